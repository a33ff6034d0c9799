// out (+)= s ∘ Σ_k w_k a_k ∘ b_k over the tangents of every point: what a scale takes of tangents a_k and their adjoints b_k.
// Strides say where a, b, w and s are, as in carry.wgsl.
// One invocation computes one vec4 of one point.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,                // points
  columns: u32,             // tangents per point
  outer: u32,               // vec4 per row
  a_offset: u32,            // in vec4, as all strides down to scale_per_point
  a_per_point: u32,
  a_per_column: u32,
  b_offset: u32,
  b_per_point: u32,
  b_per_column: u32,
  scale_per_point: u32,
  weight_offset: u32,       // in floats, as the next two
  weight_per_point: u32,
  weight_per_column: u32,
  times: u32,               // bits of a float that all weights are multiplied by
  adds: u32,                // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;            // [points or 1, columns, outer]
@group(0) @binding(2) var<storage, read> b: array<vec4f>;            // [points or 1, columns, outer]
@group(0) @binding(3) var<storage, read> scale: array<vec4f>;        // s [points or 1, outer]
@group(0) @binding(4) var<storage, read> weight: array<f32>;         // w [points or 1, columns or 1]
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;    // [points, outer]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows * p.outer) {
    return;
  }
  let point = i / p.outer;
  let quad = i % p.outer;
  var sum = vec4f();
  for (var k = 0u; k < p.columns; k++) {
    let w = weight[p.weight_offset + point * p.weight_per_point + k * p.weight_per_column];
    let from_a = a[p.a_offset + point * p.a_per_point + k * p.a_per_column + quad];
    sum += w * from_a * b[p.b_offset + point * p.b_per_point + k * p.b_per_column + quad];
  }
  let folded = bitcast<f32>(p.times) * scale[point * p.scale_per_point + quad] * sum;
  out[i] = select(folded, out[i] + folded, p.adds == 1u);
}
