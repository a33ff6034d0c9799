// The points of a picture's grid: x = origin + a u + b v at the middle of each cell, rows from the top.
// One invocation per coordinate of a point. plane [3, d]: origin, u, v. points [count, d], of the cells from `first` on.

struct Grid {
  columns: u32,
  rows: u32,
  first: u32,
  count: u32,
  d: u32,
  a: f32,
  b: f32,
  width: f32,
  height: f32,
}

@group(0) @binding(0) var<uniform> grid: Grid;
@group(0) @binding(1) var<storage, read> plane: array<f32>;
@group(0) @binding(2) var<storage, read_write> points: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let index = id.x + id.y * workgroups.x * 64u;
  if (index >= grid.count * grid.d) { return; }
  let cell = grid.first + index / grid.d;
  let k = index % grid.d;
  let across = (f32(cell % grid.columns) + 0.5) / f32(grid.columns) - 0.5;
  let down = (f32(cell / grid.columns) + 0.5) / f32(grid.rows) - 0.5;
  let a = grid.a + across * grid.width;
  let b = grid.b - down * grid.height;
  points[index] = plane[k] + a * plane[grid.d + k] + b * plane[2u * grid.d + k];
}
