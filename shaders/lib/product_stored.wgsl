// Every product is handed to finish(row, output, y).
// Needs: lib/dispatch.wgsl, lib/product.wgsl.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let tiles = (p.rows + 3u) / 4u;
  if (i >= tiles * p.outer) {
    return;
  }
  let output = i / tiles;
  let row = (i % tiles) * 4u;
  let y = product(rows_from(row), output);
  for (var r = 0u; r < 4u; r++) {
    finish(row + r, output, y[r]);
  }
}
