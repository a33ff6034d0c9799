// Puts the number of points, which the device alone knows, into the parameters and the dispatches of the steps that follow.
// Of n points of a chunk a parameter is fixed + slope n, and a dispatch has the invocations fixed + slope ⌈n / BLOCK⌉, none where n is 0.
// One invocation writes one parameter or one dispatch.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  entries: u32,
  offset: u32,    // of the count, in words
  first: u32,     // the first point of the chunk
  most: u32,      // points of the chunk, where all come
  across: u32,    // workgroups of a dispatch in one dimension, at most
}

struct Entry {
  at: u32,        // where it is written, in words
  fixed: u32,
  slope: u32,
  workgroup: u32, // invocations of a workgroup; 0: a parameter
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> count: array<u32>;
@group(0) @binding(2) var<storage, read> entries: array<Entry>;
@group(0) @binding(3) var<storage, read_write> sizes: array<u32>;

/// As in src/schedule/counted.ts.
const BLOCK = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.entries) {
    return;
  }
  let n = min(max(count[p.offset], p.first) - p.first, p.most);
  let entry = entries[i];
  if (entry.workgroup == 0u) {
    sizes[entry.at] = entry.fixed + entry.slope * n;
    return;
  }
  let invocations = select(entry.fixed + entry.slope * ((n + BLOCK - 1u) / BLOCK), 0u, n == 0u);
  let groups = (invocations + entry.workgroup - 1u) / entry.workgroup;
  // Even rows, as in src/gpu/encode.ts.
  let down = max((groups + p.across - 1u) / p.across, 1u);
  sizes[entry.at] = (groups + down - 1u) / down;
  sizes[entry.at + 1u] = down;
  sizes[entry.at + 2u] = 1u;
}
