// out = r (t - mean t - y mean(y ∘ t)) for tangents t = scale ∘ tangent: how a norm's value y moves, since its mean and
// deviation move with x (no mean t where it is not centered); r = 1 / √(variance + ε).
// r comes first, since r t fits where t alone may be large.
// One invocation computes one tangent, row r = b columns + k.
// Needs: lib/dispatch.wgsl, lib/norms.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,              // tangents per point
  size: u32,                 // floats per tangent
  width: u32,                // vec4 per tangent
  centered: u32,
  tangent_offset: u32,       // in vec4, as the rest
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> tangent: array<vec4f>;      // [points or 1, columns, width]
@group(0) @binding(2) var<storage, read> scale: array<vec4f>;        // [points or 1, width]
@group(0) @binding(3) var<storage, read> value: array<vec4f>;        // y [points, width], 0 in the padding
@group(0) @binding(4) var<storage, read> inverse_deviation: array<f32>;      // r [points]
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;    // [points, columns, width]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let point = row / p.columns;
  let t = p.tangent_offset + point * p.tangent_per_point + (row % p.columns) * p.tangent_per_column;
  let s = point * p.scale_per_point;
  let y = point * p.width;
  let n = f32(p.size);
  let r = inverse_deviation[point];
  var mean = 0.0;
  var along = 0.0;
  for (var i = 0u; i < p.width; i++) {
    let moved = select(vec4f(), r * (scale[s + i] * tangent[t + i]), lanes(i, p.size));
    mean += dot(moved, vec4f(1.0)) / n;
    along += dot(moved, value[y + i]) / n;
  }
  if (p.centered == 0u) {
    mean = 0.0;
  }
  for (var i = 0u; i < p.width; i++) {
    let moved = select(vec4f(), r * (scale[s + i] * tangent[t + i]), lanes(i, p.size));
    let normed = moved - mean - value[y + i] * along;
    out[row * p.width + i] = select(vec4f(), normed, lanes(i, p.size));
  }
}
