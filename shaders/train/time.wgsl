// Sets the time of a batch: context[row, column] = time.
// One invocation sets that of one row.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  batch: u32,
  contexts: u32,         // c
  column: u32,
  time: u32,             // bits
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> context: array<f32>;     // [batch, c]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row < p.batch) {
    context[row * p.contexts + p.column] = bitcast<f32>(p.time);
  }
}
