// Needs: const WORKGROUP_SIZE.

/// The index of an invocation of a dispatch that is laid out over x and y, since x alone ends at 65 535 workgroups.
fn invocation_index(id: vec3u, workgroups: vec3u) -> u32 {
  return id.y * workgroups.x * WORKGROUP_SIZE + id.x;
}
