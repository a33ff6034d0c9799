// marks[p] (+)= NaN where row p holds a NaN or an infinity, 0 elsewhere: what is added to all that comes of a point. Bits are compared,
// since a compiler may assume that no number is NaN.
// One invocation reads one row.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  width: u32,        // floats of a row
  offset: u32,       // in floats, as the next
  stride: u32,       // from row to row; 0: one row for all points
  not_a_number: u32, // its bits
  adds: u32,         // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> given: array<u32>;          // [rows or 1, width] at stride
@group(0) @binding(2) var<storage, read_write> marks: array<u32>;    // [rows], 4 floats apart

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows) {
    return;
  }
  var mark = select(0u, marks[i * 4u], p.adds == 1u);
  for (var k = 0u; k < p.width; k++) {
    if ((given[p.offset + i * p.stride + k] & 0x7f800000u) == 0x7f800000u) {
      mark = p.not_a_number;
    }
  }
  marks[i * 4u] = mark;
}
