// out[b] = √( Σ_k (terms[b, k] - mean_k terms[b, k])² / (K (K - 1)) ): the standard error of a mean of K estimates; of a single one it is
// unknown, NaN. Of orthogonal probes, N after one another are all there are: as meanRows in src/plan/reduce.ts has it, squares are taken
// around the mean of each N, and only the r = K mod N that are left err: (r / K) √( s² (1 - r / N) / r ), s² = Σ squares / Σ (size - 1).
// One invocation computes one.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,           // points
  width: u32,          // K
  out_offset: u32,     // in floats
  out_stride: u32,
  population: u32,     // N; 0xffffffff where there is no end of them
  not_a_number: u32,   // bits of a float: compilers may take a NaN that is computed for impossible
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> terms: array<f32>;       // [rows, K]
@group(0) @binding(2) var<storage, read_write> out: array<u32>;   // [rows] at out_stride: the bits of floats

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  var squares = 0.0;
  var freedom = 0u;
  for (var first = 0u; first < p.width;) {
    let size = min(p.population, p.width - first);
    var mean = 0.0;
    for (var k = first; k < first + size; k++) {
      mean += terms[row * p.width + k] / f32(size);
    }
    for (var k = first; k < first + size; k++) {
      let distance = terms[row * p.width + k] - mean;
      squares += distance * distance;
    }
    freedom += size - 1u;
    first += size;
  }
  // All of them where they are fewer than the population.
  let n = p.width % p.population;
  let left = select(1.0 - f32(n) / f32(p.population), 1.0, p.population == 0xffffffffu);
  let error = f32(n) / f32(p.width) * sqrt(squares / f32(max(freedom, 1u)) * left / f32(max(n, 1u)));
  out[p.out_offset + row * p.out_stride] = select(bitcast<u32>(error), p.not_a_number, freedom == 0u && n > 0u);
}
