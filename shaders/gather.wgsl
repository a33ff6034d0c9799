// gathered[r] = [row r / copies of the caller's, 0 ...], as padded rows of vec4.
// With copies = 2K, row r moves one coordinate k = first_coordinate + (r % copies) / 2 by -h (even r) or +h (odd r),
// h = step max(1, |x_k|), for central differences.
// One invocation writes one vec4.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  copies: u32,
  size: u32,
  width: u32,              // vec4 per row of gathered
  offset: u32,             // in floats, as the stride
  stride: u32,             // 0: one row for all
  first_coordinate: u32,   // none that exists: nothing moves
  step: u32,               // bits of a float
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> given: array<f32>;              // [rows / copies or 1, size] at stride
@group(0) @binding(2) var<storage, read_write> gathered: array<vec4f>;   // [rows, width]

fn element(row: u32, index: u32) -> f32 {
  if (index >= p.size) {
    return 0.0;
  }
  let x = given[p.offset + (row / p.copies) * p.stride + index];
  let copy = row % p.copies;
  if (index != p.first_coordinate + copy / 2u) {
    return x;
  }
  let h = bitcast<f32>(p.step) * max(1.0, abs(x));
  return select(x - h, x + h, copy % 2u == 1u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows * p.width) {
    return;
  }
  let row = i / p.width;
  let first = (i % p.width) * 4u;
  gathered[i] = vec4f(element(row, first), element(row, first + 1u), element(row, first + 2u), element(row, first + 3u));
}
