// Every product is weighed and summed up, contracted(row, output, y) -> f32, and the sum over every parts-th vec4 of outputs
// from `part` on handed to finish(row, part, sum).
// Needs: lib/dispatch.wgsl, lib/product.wgsl, the parameter parts.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let tiles = (p.rows + 3u) / 4u;
  if (i >= tiles * p.parts) {
    return;
  }
  let part = i / tiles;
  let row = (i % tiles) * 4u;
  let rows = rows_from(row);
  var sums: array<f32, 4>;
  for (var output = part; output < p.outer; output += p.parts) {
    let y = product(rows, output);
    for (var r = 0u; r < 4u; r++) {
      sums[r] += contracted(rows[r], output, y[r]);
    }
  }
  for (var r = 0u; r < 4u; r++) {
    finish(row + r, part, sums[r]);
  }
}
