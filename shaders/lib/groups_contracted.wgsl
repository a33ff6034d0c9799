// Every product is weighed and summed up, contracted(row, output, y) -> f32, and the sum over every parts-th block of outputs
// from `part` on handed to finish(row, part, sum).
// Needs: lib/groups.wgsl, the parameter parts.

var<workgroup> block_sums: array<f32, ROWS * SIDE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let group = group_index(workgroup, workgroups);
  if (group >= (p.rows + ROWS - 1u) / ROWS * p.parts) {
    return;
  }
  let part = group % p.parts;
  let first_row = group / p.parts * ROWS;
  var sums: array<f32, 4>;
  for (var block = part; block < blocks_across(); block += p.parts) {
    let y = product(first_row, block, local);
    for (var r = 0u; r < 4u; r++) {
      sums[r] += contracted(min(row_of(first_row, local, r), p.rows - 1u), output_of(block, local), y[r]);
    }
  }
  for (var r = 0u; r < 4u; r++) {
    block_sums[local % SIDE * ROWS + row_of(0u, local, r)] = sums[r];
  }
  workgroupBarrier();
  if (local < ROWS) {
    var sum = 0.0;
    for (var i = 0u; i < SIDE; i++) {
      sum += block_sums[i * ROWS + local];
    }
    finish(first_row + local, part, sum);
  }
}
