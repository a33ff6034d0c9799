// For norms: the padding of rows, and scales past which squares would not fit. Needs: nothing.

/// Whether a lane of vec4 number `index` is one of a row's `size` numbers; the rest is padding.
fn lanes(index: u32, size: u32) -> vec4<bool> {
  return vec4u(index * 4u) + vec4u(0u, 1u, 2u, 3u) < vec4u(size);
}

/// A power of two between 2^-126 and 2^126 that brings the larger of two magnitudes to between 1 and 4, if it is at least
/// 2^-126: the largest distance from the mean and √ε. NaN where that is not finite.
fn norm_scale(largest: f32, root_epsilon: f32) -> f32 {
  let exponent = (bitcast<u32>(max(largest, root_epsilon)) >> 23u) & 0xffu;
  return bitcast<f32>(select(clamp(254u - exponent, 1u, 253u) << 23u, 0x7fc00000u, exponent == 255u));
}

/// (r / scale, r) with r = 1 / √(mean of squared distances + ε), where `variance` is the mean of the squares of the scaled
/// distances. Beyond a deviation of 2^126, where r may be taken for 0, it is NaN: of norms of large numbers that grow it
/// would make the derivative 0.
fn inverse_deviation_of(variance: f32, root_epsilon: f32, scale: f32) -> vec2f {
  let root = scale * root_epsilon;
  let scaled = inverseSqrt(variance + root * root);
  let r = scale * scaled;
  return vec2f(scaled, bitcast<f32>(bitcast<u32>(r) | select(0u, 0x7fc00000u, r < 1.17549435e-38)));
}
