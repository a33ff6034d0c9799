// terms[b, i] = (f_i(x + h e_i) - f_i(x - h e_i)) / ((x_i + h) - (x_i - h)), with i = first + k.
// The divisor is the distance of the moved coordinates as float32 holds them.
// One invocation computes one term, row r = b columns + k; its moved rows are 2 r (-h) and 2 r + 1 (+h).
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,
  state_size: u32,
  input_width: u32,       // floats per row of moved
  first: u32,
  terms_per_point: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> moved: array<f32>;         // [2 rows, input_width]
@group(0) @binding(2) var<storage, read> value: array<f32>;         // [2 rows, d]
@group(0) @binding(3) var<storage, read_write> terms: array<f32>;   // [points, terms_per_point]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let i = p.first + row % p.columns;
  let less = 2u * row;
  let more = less + 1u;
  let rise = value[more * p.state_size + i] - value[less * p.state_size + i];
  let run = moved[more * p.input_width + i] - moved[less * p.input_width + i];
  terms[(row / p.columns) * p.terms_per_point + i] = rise / run;
}
