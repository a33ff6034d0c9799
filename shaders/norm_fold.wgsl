// What the tangents y'_k = r (t_k - mean t_k - y mean(y ∘ t_k)) of a norm with the adjoints g_k give back to its value y and to its
// inverse deviation r, for tangents t_k = scale ∘ tangent_k:
// out (+)= -r Σ_k (mean(y ∘ t_k) g_k + mean(y ∘ g_k) t_k), deviation (+)= -(r/n) Σ_k g_k · y'_k.
// The latter times y is what x takes by way of r, since ∂r/∂x = -r² y / n.
// One invocation computes one point.
// Needs: lib/dispatch.wgsl, lib/norms.wgsl.

struct Parameters {
  rows: u32,                 // points
  columns: u32,              // tangents per point
  size: u32,                 // floats per tangent
  width: u32,                // vec4 per tangent
  tangent_offset: u32,       // in vec4, as the next three
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
  adds: u32,                 // to what is there, as the next
  adds_deviation: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> tangent: array<vec4f>;               // [points or 1, columns, width]
@group(0) @binding(2) var<storage, read> scale: array<vec4f>;                 // [points or 1, width]
@group(0) @binding(3) var<storage, read> moved: array<vec4f>;                 // y' [points, columns, width]
@group(0) @binding(4) var<storage, read> adjoint: array<vec4f>;               // g [points, columns, width]
@group(0) @binding(5) var<storage, read> value: array<vec4f>;                 // y [points, width], 0 in the padding
@group(0) @binding(6) var<storage, read> inverse_deviation: array<f32>;       // r [points]
@group(0) @binding(7) var<storage, read_write> out: array<vec4f>;             // [points, width]
@group(0) @binding(8) var<storage, read_write> deviation: array<f32>;         // [points, 4]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let point = invocation_index(id, workgroups);
  if (point >= p.rows) {
    return;
  }
  let y = point * p.width;
  let n = f32(p.size);
  let r = inverse_deviation[point];
  var total = 0.0;
  for (var k = 0u; k < p.columns; k++) {
    let t = p.tangent_offset + point * p.tangent_per_point + k * p.tangent_per_column;
    let g = (point * p.columns + k) * p.width;
    var along_tangent = 0.0;
    var along_adjoint = 0.0;
    for (var i = 0u; i < p.width; i++) {
      along_tangent += dot(r * (scale[point * p.scale_per_point + i] * tangent[t + i]), value[y + i]) / n;
      along_adjoint += dot(adjoint[g + i], value[y + i]) / n;
      total -= dot(adjoint[g + i], moved[g + i]);
    }
    for (var i = 0u; i < p.width; i++) {
      let given = r * (scale[point * p.scale_per_point + i] * tangent[t + i]);
      let folded = select(vec4f(), -(along_tangent * adjoint[g + i] + along_adjoint * given), lanes(i, p.size));
      out[y + i] = select(folded, out[y + i] + folded, p.adds == 1u || k > 0u);
    }
  }
  let share = r / n * total;
  deviation[4u * point] = select(share, deviation[4u * point] + share, p.adds_deviation == 1u);
}
