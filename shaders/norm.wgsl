// y = r (x - μ), r = 1 / √(mean((x - μ)²) + ε), with μ = mean x where it is centered (LayerNorm), else 0 (RMSNorm).
// One invocation computes one row (a point, a moved copy of one, or a context).
// Needs: lib/dispatch.wgsl, lib/padding.wgsl.

struct Parameters {
  rows: u32,
  size: u32,            // floats per row
  width: u32,           // vec4 per row
  input_per_row: u32,   // in vec4; 0: one row for all
  centered: u32,
  epsilon: u32,         // bits of a float
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;                // [rows or 1, width]
@group(0) @binding(2) var<storage, read_write> normed: array<vec4f>;     // y [rows, width], 0 in the padding
@group(0) @binding(3) var<storage, read_write> inverse_deviation: array<f32>;   // r [rows]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let start = row * p.input_per_row;
  let n = f32(p.size);
  var mean = 0.0;
  if (p.centered == 1u) {
    for (var i = 0u; i < p.width; i++) {
      mean += dot(x[start + i], lanes(i, p.size)) / n;
    }
  }
  var variance = 0.0;
  for (var i = 0u; i < p.width; i++) {
    let distance = (x[start + i] - mean) * lanes(i, p.size);
    variance += dot(distance, distance) / n;
  }
  let r = inverseSqrt(variance + bitcast<f32>(p.epsilon));
  inverse_deviation[row] = r;
  for (var i = 0u; i < p.width; i++) {
    normed[row * p.width + i] = r * (x[start + i] - mean) * lanes(i, p.size);
  }
}
