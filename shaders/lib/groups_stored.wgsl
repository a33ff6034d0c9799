// Every product is handed to finish(row, output, y).
// Neighbouring workgroups share their rows, which memory then gives once: W is small and stays in a cache anyway.
// Needs: lib/groups.wgsl.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let group = group_index(workgroup, workgroups);
  let blocks = blocks_across();
  if (group >= (p.rows + ROWS - 1u) / ROWS * blocks) {
    return;
  }
  let block = group % blocks;
  let first_row = group / blocks * ROWS;
  let y = product(first_row, block, local);
  for (var r = 0u; r < 4u; r++) {
    finish(row_of(first_row, local, r), output_of(block, local), y[r]);
  }
}
