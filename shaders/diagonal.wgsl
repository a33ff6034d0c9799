// terms[b, first + k] = J[b, first + k, k], from the columns [first, first + columns) of each point's Jacobian.
// One invocation copies one entry, row r = b columns + k.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,
  offset: u32,            // in floats, as the next two
  per_point: u32,
  per_row: u32,
  first: u32,
  terms_per_point: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> jacobian: array<f32>;      // [points, d, columns] at offset, per_point and per_row
@group(0) @binding(2) var<storage, read_write> terms: array<f32>;   // [points, terms_per_point]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let point = row / p.columns;
  let k = row % p.columns;
  terms[point * p.terms_per_point + p.first + k] = jacobian[p.offset + point * p.per_point + (p.first + k) * p.per_row + k];
}
