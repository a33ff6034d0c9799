// Elementary functions in float32, for activations.wgsl. Needs nothing; functions only.
//
// WGSL promises little about its own sin, cos, tanh and log, and about exp past float32, so these functions stand in for
// them. No step relies on the order of float operations, which compilers change.
// Errors are absolute unless called relative. Those of the polynomials alone are below 2e-7; WGSL allows exp a relative
// error of (3 + 2|x|) 2^-23, which the errors stated here leave out.
// The coefficients interpolate the float64 function at Chebyshev nodes of the interval named, weighted so that the
// leading terms of the Taylor series are kept exactly.

// Compilers may take any float expression for a finite number, so infinities and NaN are told, and made, by their bits.
fn is_finite(z: f32) -> bool {
  return (bitcast<u32>(z) & 0x7f800000u) != 0x7f800000u;
}

// v, but NaN where `undefined`.
fn undefined_where(v: vec2f, undefined: vec2<bool>) -> vec2f {
  return bitcast<vec2f>(bitcast<vec2u>(v) | select(vec2u(), vec2u(0x7fc00000u), undefined));
}

// x, but infinite where `infinite`.
fn infinite_where(x: f32, infinite: bool) -> f32 {
  return bitcast<f32>(select(bitcast<u32>(x), 0x7f800000u, infinite));
}

// The magnitude, which is not negative, with the sign of z.
fn with_sign_of(z: f32, magnitude: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(magnitude) | (bitcast<u32>(z) & 0x80000000u));
}

// e^x for x <= 0, but exactly 0 below x = -87, so that 0 times anything finite is 0.
fn falling_exp(x: f32) -> f32 {
  return select(exp(x), 0.0, x < -87.0);
}

// The same for any x, infinite above 88.7228.
fn exp_of(x: f32) -> f32 {
  return infinite_where(falling_exp(x), x > 88.7228);
}

// e^x - 1, given exp_x = exp_of(x). Relative error 3e-7, also near 0.
// x + x^2 P(x) on [-1/2, 1/2], where exp_x - 1 would cancel.
fn expm1(x: f32, exp_x: f32) -> f32 {
  let c = clamp(x, -0.5, 0.5);
  let p = 0.500000012 + c * (0.166666668 + c * (0.0416657912 + c * (0.00833323613 + c * (0.00139821860 + c * 0.000199448745))));
  return select(exp_x - 1.0, c + c * c * p, abs(x) < 0.5);
}

// (2^y, 2^y - 1) for -127 <= y <= 0; exactly (0, -1) below y = -126.5. Relative error 2e-7, of 2^y - 1 also near 0.
//
// With the integer n next to y, and f = y - n, this is 2^n + 2^n (2^f - 1), of which 2^y - 1 takes the 1 before the second
// part rounds; 2^f - 1 is f P(f) on [-1/2, 1/2]. The sum with 1.5 * 2^23 rounds to n and has it in its lowest bits; that it
// also has those of 0x4b000000 no compiler can know, so none takes the sum and the difference for nothing.
fn falling_exp2(y: f32) -> vec2f {
  let rounded = bitcast<u32>(y + 12582912.0);
  let f = y - (bitcast<f32>(rounded | 0x4b000000u) - 12582912.0);
  let f2 = f * f;
  let p = (0.6931471806 + f * 0.240226507) + f2 * ((0.0555038101 + f * 0.00961810325) + f2 * (0.00133813025 + f * 0.000154448840));
  // 2^n, but 0 for n = -127. Multiplied, since SwiftShader shifts lane by lane, in some 20 instructions.
  let power = bitcast<f32>(rounded * 0x800000u + 0x3f800000u);
  let rest = power * (f * p);
  return vec2f(power + rest, (power - 1.0) + rest);
}

// log(1 + t) for 0 <= t <= 1. Relative error 2e-7.
// 2 atanh(s) with s = t / (2 + t), as 2s + s^3 P(s^2) on [0, 1/3].
fn log1p(t: f32) -> f32 {
  let s = t / (2.0 + t);
  let u = s * s;
  return 2.0 * s + s * u * (0.666666403 + u * (0.400075606 + u * (0.282366198 + u * 0.268514981)));
}

// log(x) for x >= 0; that of 0 below 2^-126. Relative error 3e-7, also near 1.
// x = m 2^e with m in [1/sqrt 2, sqrt 2); log m is 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172, as in log1p.
fn log_of(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let e = (bits - 0x3f3504f3u + 0x3f800000u) >> 23u; // the exponent + 127 after rounding m to that range
  let m = bitcast<f32>(bits - ((e - 127u) << 23u));
  let s = (m - 1.0) / (m + 1.0);
  let u = s * s;
  let log_m = 2.0 * s + s * u * (0.666666403 + u * (0.400075606 + u * (0.282366198 + u * 0.268514981)));
  // Subtracted as whole numbers: of (f32(e) - 127) log 2 some drivers make f32(e) log 2 - 127 log 2, whose second part rounds.
  let log_x = f32(i32(e) - 127) * 0.6931471806 + log_m;
  return bitcast<f32>(select(bitcast<u32>(log_x), 0xff800000u, x < 1.17549435e-38));
}

// log(1 + t) for t >= 0. Relative error 3e-7, also near 0.
fn log1p_of(t: f32) -> f32 {
  return select(log_of(1.0 + t), log1p(min(t, 1.0)), t < 1.0);
}

// (sinh z, cosh z), infinite for |z| > 89.4159. Relative error that of WGSL's exp, (3 + 2|z|) 2^-23; of the sine 2e-7 for
// |z| < 1, where it is z + z^3 P(z^2).
fn hyperbolic(z: f32) -> vec2f {
  let x = abs(z);
  let grown = exp_of(x - 0.6931471806); // e^x / 2, which overflows later than e^x
  let fallen = 0.5 * falling_exp(-x);
  let c = min(x, 1.0);
  let u = c * c;
  let p = 0.166666754 + u * (0.00833176273 + u * 0.000202588849);
  return vec2f(with_sign_of(z, select(grown - fallen, c + c * u * p, x < 1.0)), grown + fallen);
}

// z multiplied out n times.
fn whole_power(z: f32, n: u32) -> f32 {
  var result = 1.0;
  var factor = z;
  for (var k = n; k > 0u; k >>= 1u) {
    result = select(result, result * factor, (k & 1u) != 0u);
    factor *= factor;
  }
  return result;
}

// z^e, of a negative e by the reciprocal; |z|^e for a broken e.
fn raise(z: f32, e: f32) -> f32 {
  let units = floor(abs(e));
  let broken = abs(e) - units;
  let base = select(z, 1.0 / z, e < 0.0);
  let whole = whole_power(base, u32(units));
  return select(whole, abs(whole) * exp_of(sign(e) * broken * log_of(abs(z))), broken > 0.0);
}

// The upper tail of the standard normal distribution, erfc(x / sqrt 2) / 2 for x >= 0, given g = falling_exp(-x^2 / 2).
// Error 2e-7, relative 5e-7; exactly 0 where g is, so for all x >= 13.2.
// g r P(1 - 2r) with r = 1 / (1 + 0.3 x), on [0, 13.2].
fn normal_tail(x: f32, g: f32) -> f32 {
  let r = 1.0 / (1.0 + 0.3 * min(x, 13.2));
  let s = 1.0 - 2.0 * r;
  let low = 0.221970598 + s * (-0.164579316 + s * (0.0865507879 + s * (-0.0277637050 + s * 0.00180305849)));
  let high = 0.00243745668 + s * (-0.000515624375 + s * (-0.000282676415 + s * 0.00000295742377));
  let s2 = s * s;
  return g * r * (low + s2 * s2 * s * high);
}

// Word i of (0, c.x, c.y, c.z, c.w, 0, 0, ...).
fn fixed_point_word(c: vec4<u32>, i: u32) -> u32 {
  return select(0u, c[(i - 1u) & 3u], i - 1u < 4u);
}

// The fraction of |z| * c in units of 2^-32; c is fixed-point, one integer word and three fraction words, the highest
// first. Error 4 units, and |z| units of 2^-64 where that is more. For |z| >= 2^-41.
//
// |z| = m 2^e with integers m < 2^24 and e, so the bits of c above 2^(-e-1) add whole numbers: only the 64 bits of c from
// there on are multiplied, in integers, which no compiler rounds or reorders.
fn fraction_of_product(z: f32, c: vec4<u32>) -> u32 {
  let bits = bitcast<u32>(z);
  let m = (bits & 0x7fffffu) | 0x800000u;
  let offset = max((bits >> 23u) & 0xffu, 86u) - 86u; // e + 64: how far the 64 bits begin below 2^63
  let word = offset >> 5u;
  let shift = offset & 31u;
  let a = fixed_point_word(c, word);
  let b = fixed_point_word(c, word + 1u);
  let d = fixed_point_word(c, word + 2u);
  let high = (a << shift) | ((b >> 1u) >> (31u - shift));
  let low = (b << shift) | ((d >> 1u) >> (31u - shift));
  // The low 32 bits of m * high, plus the high 32 bits of m * low, byte by byte, as a product of 24 and 8 bits fits a word.
  let carried = ((m * (low >> 24u)) >> 8u) + ((m * ((low >> 16u) & 0xffu)) >> 16u) + ((m * ((low >> 8u) & 0xffu)) >> 24u);
  return m * high + carried;
}

// (sin r, cos r) for |r| <= pi/4. Error 2e-7, relative in the sine too.
// The sine is r + r^3 P(r^2) and the cosine 1 - r^2/2 + r^4 P(r^2).
fn sine_cosine_near_0(r: f32) -> vec2f {
  let u = r * r;
  let s = r + r * u * (-0.166666647 + u * (0.00833274827 - u * 0.000195878909));
  let c = 1.0 - 0.5 * u + u * u * (0.0416666647 + u * (-0.00138883030 + u * 0.0000245479419));
  return vec2f(s, c);
}

// (sin(omega z), cos(omega z)), with turns = |omega| / (2 pi) in fixed point as above; for |omega| <= 1e10.
// Error 2e-7 whatever omega is, and relative 3e-7 in the sine for |omega z| < 0.78. NaN for |z| > 2^68, where the words of
// turns no longer reach.
//
// The angle is reduced to the nearest quarter turn and a remainder in [-pi/4, pi/4].
fn sine_cosine(z: f32, omega: f32, turns: vec4<u32>) -> vec2f {
  let product = omega * z;
  let small = abs(product) < 0.78; // needs no reduction, which would lose relative accuracy
  let fraction = fraction_of_product(z, turns);
  let nearest = (fraction + 0x20000000u) >> 30u;
  let remainder = f32(bitcast<i32>(fraction - (nearest << 30u))) * 1.46291808e-9; // 2 pi / 2^32
  let quarter = select(nearest, 0u, small);
  let r = select(remainder, abs(product), small);
  let sc = sine_cosine_near_0(r);
  let odd = (quarter & 1u) != 0u;
  let sine = select(sc.x, sc.y, odd);
  let cosine = select(sc.y, sc.x, odd);
  let sine_is_negative = ((quarter & 2u) != 0u) != (product < 0.0);
  let cosine_is_negative = ((quarter + 1u) & 2u) != 0u;
  let both = vec2f(select(sine, -sine, sine_is_negative), select(cosine, -cosine, cosine_is_negative));
  return undefined_where(both, vec2<bool>(abs(z) > 295147905179352825856.0));
}

// tan z, with turns = 1 / (2 pi) in fixed point as above, and finer_turns 2^24 times that; for |z| <= 2^68. Relative error
// 5e-7.
//
// Next to a pole the tangent is as right as the remainder is, relative to itself. finer_turns gives the fraction of a turn
// in units of 2^-56; its highest 8 bits are the lowest 8 of the fraction in units of 2^-32, of which those err.
fn tangent_of(z: f32, turns: vec4<u32>, finer_turns: vec4<u32>) -> f32 {
  let small = abs(z) < 0.78;
  let fraction = fraction_of_product(z, turns);
  let finer = fraction_of_product(z, finer_turns);
  let nearest = (fraction + 0x20000000u) >> 30u;
  let distance = fraction - (nearest << 30u);
  let whole = bitcast<i32>(distance) + (bitcast<i32>((finer - (distance << 24u)) & 0xff000000u) >> 24u);
  let few = f32(bitcast<i32>(finer)) * 5.96046448e-8; // the same in one piece, where whole is less than 2^7
  let units = select(f32(whole) + f32(finer & 0xffffffu) * 5.96046448e-8, few, abs(whole) < 64);
  let sc = sine_cosine_near_0(select(units * 1.46291808e-9, abs(z), small)); // 2 pi / 2^32
  let odd = !small && (nearest & 1u) != 0u;
  let tangent = select(sc.x, -sc.y, odd) / select(sc.y, sc.x, odd);
  return select(tangent, -tangent, z < 0.0);
}
