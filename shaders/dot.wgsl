// term (+)= e_k Σ_i c_k[i] s_i t_k[i]: a contraction with no product left before it,
// for every tangent t_k of every point b, row r = b columns + k.
// One invocation computes one row.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,                  // tangents per point
  width: u32,                    // vec4 per tangent
  tangent_offset: u32,           // in vec4, as all strides down to contraction_scale_per_point
  tangent_per_point: u32,
  tangent_per_column: u32,
  contraction_offset: u32,
  contraction_per_point: u32,
  contraction_per_column: u32,
  contraction_scale_per_point: u32,
  factor_per_point: u32,         // in floats, as the rest
  factor_per_column: u32,
  first_column: u32,
  terms_per_point: u32,
  adds: u32,                     // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> tangent: array<vec4f>;             // [points or 1, columns, width]
@group(0) @binding(2) var<storage, read> contraction: array<vec4f>;         // c [points or 1, columns, width]
@group(0) @binding(3) var<storage, read> contraction_scale: array<vec4f>;   // s [points or 1, width]
@group(0) @binding(4) var<storage, read> factor: array<f32>;                // e [points or 1, columns or 1]
@group(0) @binding(5) var<storage, read_write> terms: array<f32>;           // [points, terms_per_point]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let point = row / p.columns;
  let k = row % p.columns;
  let t = p.tangent_offset + point * p.tangent_per_point + k * p.tangent_per_column;
  let c = p.contraction_offset + point * p.contraction_per_point + k * p.contraction_per_column;
  let s = point * p.contraction_scale_per_point;
  var sum = 0.0;
  for (var i = 0u; i < p.width; i++) {
    sum += dot(contraction[c + i] * contraction_scale[s + i], tangent[t + i]);
  }
  let column = p.first_column + k;
  let e = factor[point * p.factor_per_point + column * p.factor_per_column];
  let index = point * p.terms_per_point + column;
  terms[index] = select(e * sum, terms[index] + e * sum, p.adds == 1u);
}
