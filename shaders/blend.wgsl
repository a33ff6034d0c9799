// out (+)= w_k s ∘ t for every tangent t_k of every point b, row r = b columns + k: a skip, a gate, a factor,
// or an adjoint by the weight w of its point or of its tangent.
// Strides say where t, s and out are, as in carry.wgsl.
// One invocation computes one vec4 of one row.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,               // tangents per point
  outer: u32,                 // vec4 per tangent
  tangent_offset: u32,        // in vec4, as the next three
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
  weight_offset: u32,         // in floats, as the next two
  weight_per_point: u32,
  weight_per_column: u32,
  times: u32,                 // bits of a float that all weights are multiplied by
  out_offset: u32,            // in floats, as the next three
  out_per_point: u32,
  out_per_column: u32,
  out_per_row: u32,
  out_rows: u32,              // how many outputs are stored
  adds: u32,                  // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> tangent: array<vec4f>;     // [points or 1, columns, outer]
@group(0) @binding(2) var<storage, read> scale: array<vec4f>;       // [points or 1, outer]
@group(0) @binding(3) var<storage, read> weight: array<f32>;        // w [points or 1, columns or 1]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows * p.outer) {
    return;
  }
  let row = i / p.outer;
  let quad = i % p.outer;
  let point = row / p.columns;
  let t = p.tangent_offset + point * p.tangent_per_point + (row % p.columns) * p.tangent_per_column;
  let w = bitcast<f32>(p.times) * weight[p.weight_offset + point * p.weight_per_point + (row % p.columns) * p.weight_per_column];
  let moved = w * (scale[point * p.scale_per_point + quad] * tangent[t + quad]);
  let at = p.out_offset + point * p.out_per_point + (row % p.columns) * p.out_per_column;
  for (var lane = 0u; lane < 4u; lane++) {
    let output = quad * 4u + lane;
    if (output < p.out_rows) {
      let index = at + output * p.out_per_row;
      out[index] = select(moved[lane], out[index] + moved[lane], p.adds == 1u);
    }
  }
}
