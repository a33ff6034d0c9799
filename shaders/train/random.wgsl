// Numbers out of a counter: every one is a function of the seed and of where it is used, so that a run can be stopped and go on.
// Needs: lib/special.wgsl.

// A 32-bit integer hash with low bias (constants: C. Wellons' hash-prospector).
fn mix_bits(value: u32) -> u32 {
  var x = value;
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}

fn random_bits(seed: u32, step: u32, row: u32, place: u32) -> u32 {
  return mix_bits(mix_bits(mix_bits(mix_bits(seed) + step) + row) + place);
}

// In [2^-25, 1]: 24 bits, and never 0.
fn uniform_number(bits: u32) -> f32 {
  return (f32(bits >> 8u) + 0.5) * 5.9604645e-8;
}

// cos(2 pi turns) for turns in [0, 1]: a quarter turn off at most an eighth of it, and from there by Taylor series. Error 4e-7.
fn cosine_of_turns(turns: f32) -> f32 {
  let quarter = u32(round(4.0 * turns));
  let x = 6.283185307 * (turns - 0.25 * f32(quarter));
  let u = x * x;
  let cosine = 1.0 + u * (-0.5 + u * (0.0416666667 + u * (-0.00138888889 + u * 0.0000248015873)));
  let sine = x * (1.0 + u * (-0.166666667 + u * (0.00833333333 - u * 0.000198412698)));
  let rotated = select(cosine, -sine, (quarter & 1u) == 1u);
  return select(rotated, -rotated, (quarter & 2u) == 2u);
}

// A standard normal number (Box and Muller), of two places from `place` on.
fn normal_number(seed: u32, step: u32, row: u32, place: u32) -> f32 {
  let radius = sqrt(-2.0 * log_of(uniform_number(random_bits(seed, step, row, place))));
  return radius * cosine_of_turns(uniform_number(random_bits(seed, step, row, place + 1u)));
}
