// probes[b, k] = a Rademacher vector of ±1, a function of (seed + step, point, probe, coordinate) alone: chunks do not change it.
// `population` probes of a point after one another have random signs in common and are orthogonal: times them, each is a row r of a
// Hadamard matrix, (-1)^|r & i|. src/plan/orthogonal.ts says why and which; src/cpu/probes.ts computes the same bits.
// One invocation writes one vec4, row r = b columns + k.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,
  state_size: u32,
  width: u32,          // vec4 per probe
  first_point: u32,
  first_column: u32,
  seed: u32,
  population: u32,     // 1: all are independent; else a power of two, at least state_size
  polynomial: u32,     // irreducible over the field of two elements, of the degree log2 population
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> step: array<u32>;             // [1]: of training, which has other probes in each; else 0
@group(0) @binding(2) var<storage, read_write> probes: array<vec4f>;   // [rows, width]

/// A 32-bit integer hash with low bias (constants: C. Wellons' hash-prospector).
fn mix_bits(value: u32) -> u32 {
  var x = value;
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}

/// The product in the field of `population` elements: of polynomials, their coefficients as bits, modulo `polynomial`.
fn multiply_in_field(a: u32, b: u32) -> u32 {
  var product = 0u;
  var power = a;
  for (var rest = b; rest > 0u; rest >>= 1u) {
    product ^= power * (rest & 1u);
    power <<= 1u;
    if (power >= p.population) {
      power ^= p.polynomial;
    }
  }
  return product;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows * p.width) {
    return;
  }
  let row = i / p.width;
  let quad = i % p.width;
  let point = p.first_point + row / p.columns;
  let column = p.first_column + row % p.columns;
  let start = mix_bits(mix_bits(mix_bits(p.seed + step[0]) + point) + column / p.population);
  let bits = mix_bits(start + quad);
  let factor = 1u + mix_bits(start - 1u) % max(1u, p.population - 1u);
  let hadamard = multiply_in_field(factor, column % p.population);
  var probe = vec4f();
  for (var lane = 0u; lane < 4u; lane++) {
    let index = quad * 4u + lane;
    if (index < p.state_size) {
      probe[lane] = select(-1.0, 1.0, (((bits >> (28u + lane)) ^ countOneBits(hadamard & index)) & 1u) == 1u);
    }
  }
  probes[i] = probe;
}
