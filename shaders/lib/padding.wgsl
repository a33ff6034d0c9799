// Needs: nothing.

/// 1 where a lane of vec4 number `index` is one of a row's `size` numbers, 0 in the padding.
fn lanes(index: u32, size: u32) -> vec4f {
  return select(vec4f(), vec4f(1.0), vec4u(index * 4u) + vec4u(0u, 1u, 2u, 3u) < vec4u(size));
}
