// out[b] = √( Σ_k (terms[b, k] - mean_k terms[b, k])² / (K (K - 1)) ): the standard error of a mean of K estimates; of a single one it is
// unknown, NaN.
// One invocation computes one.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,           // points
  width: u32,          // K
  out_offset: u32,     // in floats
  out_stride: u32,
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
  let n = f32(p.width);
  var mean = 0.0;
  for (var k = 0u; k < p.width; k++) {
    mean += terms[row * p.width + k] / n;
  }
  var squares = 0.0;
  for (var k = 0u; k < p.width; k++) {
    let distance = terms[row * p.width + k] - mean;
    squares += distance * distance;
  }
  let error = sqrt(squares / max(n - 1.0, 1.0) / n);
  out[p.out_offset + row * p.out_stride] = select(bitcast<u32>(error), p.not_a_number, p.width == 1u);
}
