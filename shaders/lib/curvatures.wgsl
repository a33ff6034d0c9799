// Second derivatives of the activations: each function gives the curvature σ''(z) of the function of the same name in
// activations.wgsl. Needs special.wgsl; functions only.
//
// What consists of straight pieces has none here: curvatureWgsl in src/model/activation.ts writes 0. Errors, overflow, what is
// outside the domain and what is near 0 are as in activations.wgsl, with v the exact curvature. At the ends of an
// activation's pieces the curvature is PyTorch's.
// What underflows is 0 where the activation saturates or its tail is an exponential. In the algebraic tails of log, sqrt,
// asinh, acosh, reciprocal and power the curvature is NaN instead where it may be taken for 0, for the reason that
// logarithm() in activations.wgsl gives: it meets the square of a derivative that may be as large as it is small.

// x, but NaN where `undefined`.
fn undefined_if(x: f32, undefined: bool) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) | select(0u, 0x7fc00000u, undefined));
}

// alpha e^z where z < 0, else 0, at 0 too. Error times max(1, |alpha|).
fn elu_curvature(z: f32, alpha: f32) -> f32 {
  return select(0.0, alpha * falling_exp2(1.442695041 * clamp(z, -88.0, 0.0)).x, z < 0.0);
}

// scale alpha e^z where z < 0, else 0, at 0 too.
fn selu_curvature(z: f32) -> f32 {
  return elu_curvature(z, 1.7580993408473766);
}

// e^(z/alpha) / alpha where z < 0, else 0, at 0 too. Error times max(1, 1/|alpha|); but for alpha < 0 it grows like
// e^|z/alpha|, with the relative error of exponential().
// By two equal factors, since e^(z/alpha) overflows before the quotient by a large alpha does. That one of them is divided first is
// told by its bits: some drivers multiply before they divide.
fn celu_curvature(z: f32, alpha: f32) -> f32 {
  let limit = 200.0 * abs(alpha); // beyond it root is 0 or infinite
  let half = 0.5 * (clamp(z, -limit, 0.0) / alpha);
  let root = exp_of(half);
  let part = infinite_where(root / abs(alpha), half > 88.7228);
  return select(0.0, root * with_sign_of(alpha, part), z < 0.0);
}

// (2 - z²) e^(-z²/2) / sqrt(2 pi); exactly 0 for |z| >= 13.2.
fn gelu_curvature(z: f32) -> f32 {
  let x = min(abs(z), 15.0); // as in gelu
  return 0.3989422804014327 * (2.0 - x * x) * falling_exp(-0.5 * x * x);
}

// S'(2u) (4u' + 2|z| u'' - 4|z| u'² tanh |u|) with u and S as in gelu_tanh. With t = e^(-2|u|) the first factor is
// t / (1 + t)² and the tangent (1 - t) / (1 + t); exactly 0 for large |z|.
fn gelu_tanh_curvature(z: f32) -> f32 {
  let x = min(abs(z), 15.0); // as in gelu_tanh
  let x2 = x * x;
  let t = falling_exp(-1.5957691216057308 * x * (1.0 + 0.044715 * x2));
  let r = 1.0 / (1.0 + t);
  let slope = 1.5957691216057308 * (1.0 + 0.134145 * x2);
  return t * r * r * (3.1915382432114616 * (1.0 + 0.26829 * x2) - x * slope * slope * (1.0 - t) * r);
}

// S'(z) (2 - |z| tanh(|z|/2)) with S the logistic function. With t = e^(-|z|) the tangent is (1 - t) / (1 + t).
fn silu_curvature(z: f32) -> f32 {
  let x = min(abs(z), 100.0); // t is exactly 0 from 87 on
  let t = falling_exp(-x);
  let r = 1.0 / (1.0 + t);
  return t * r * r * (2.0 - x * (1.0 - t) * r);
}

// 2w' + z w'' with w as in mish: with t = e^(-|z|) and D the denominator of w there, w' = 4 t^k (1 + t) / D² and
// w'' = 4 t^k P(t) / D³, where k = 2 and P = -2 - 3t + 2t² + 2t³ for z > 0, else k = 1 and P = 2 + 2t - 3t² - 2t³.
fn mish_curvature(z: f32) -> f32 {
  let x = clamp(z, -100.0, 100.0); // t is exactly 0 from 87 on
  let t = falling_exp(-abs(x));
  let t2 = t * t;
  let positive = z > 0.0;
  let r = 1.0 / select(t2 + 2.0 * t + 2.0, 1.0 + 2.0 * t + 2.0 * t2, positive);
  let p = select(2.0 + 2.0 * t - t2 * (3.0 + 2.0 * t), 2.0 * t2 * (1.0 + t) - 3.0 * t - 2.0, positive);
  return 4.0 * select(t, t2, positive) * r * r * (2.0 * (1.0 + t) + x * p * r);
}

// -t (1 - t) / (1 + t)³ with t = e^(-|z|) and the sign of z. Relative error 1e-6 near z = 0 too.
fn sigmoid_curvature(z: f32) -> f32 {
  let e = falling_exp2(-1.442695041 * min(abs(z), 88.0));
  let r = 1.0 / (2.0 + e.y);
  return with_sign_of(-z, e.x * abs(e.y) * r * r * r);
}

// 1/3 between -3 and 3, 0 there and beyond.
fn hardswish_curvature(z: f32) -> f32 {
  return select(0.0, 1.0 / 3.0, abs(z) < 3.0);
}

// -8t (1 - t) / (1 + t)³ with t = e^(-2|z|) and the sign of z. Relative error 1e-6 near z = 0 too.
fn hyperbolic_tangent_curvature(z: f32) -> f32 {
  let e = falling_exp2(-2.885390082 * min(abs(z), 44.0));
  let r = 1.0 / (2.0 + e.y);
  return with_sign_of(-z, 8.0 * e.x * abs(e.y) * r * r * r);
}

// -2 / (1 + |z|)³ with the sign of z, 0 at 0.
fn softsign_curvature(z: f32) -> f32 {
  let r = 1.0 / (1.0 + min(abs(z), 1e37)); // as in softsign
  return -2.0 * sign(z) * (r * r * r);
}

// beta S'(beta z) with S the logistic function, but 0 where beta z >= threshold, at the threshold too, unlike the
// derivative's switch. With t = e^(-|beta z|) it is beta t / (1 + t)². Error times max(1, |beta|).
fn softplus_curvature(z: f32, beta: f32, threshold: f32) -> f32 {
  let u = beta * z;
  let t = falling_exp(-abs(u));
  let r = 1.0 / (1.0 + t);
  return select(0.0, beta * (t * r * r), u < threshold);
}

// -omega² sin(omega z). Error 2e-7 omega² where |z| <= 2^68, NaN beyond.
fn sine_curvature(z: f32, omega: f32, turns: vec4<u32>, omega_squared: f32) -> f32 {
  return -omega_squared * sine_cosine(z, omega, turns).x;
}

// -cos z. Error 2e-7 where |z| <= 2^68, NaN beyond.
fn cosine_curvature(z: f32, turns: vec4<u32>) -> f32 {
  return -sine_cosine(z, 1.0, turns).y;
}

// 2 tan z (1 + tan² z). Relative error 2e-6, next to the poles too, where |z| <= 2^68, NaN beyond.
fn tangent_curvature(z: f32, turns: vec4<u32>, finer_turns: vec4<u32>) -> f32 {
  let t = tangent_of(z, turns, finer_turns);
  return undefined_if(2.0 * t * (1.0 + t * t), abs(z) > 295147905179352825856.0);
}

// z / (1 - z²)^(3/2), infinite at -1 and 1. Relative error 1e-6.
fn inverse_sine_curvature(z: f32) -> f32 {
  let x = min(abs(z), 1.0);
  let rest = max(1.0 - x, 1e-8) * (1.0 + x);
  let magnitude = infinite_where(x / (rest * sqrt(rest)), abs(z) == 1.0);
  return undefined_if(with_sign_of(z, magnitude), abs(z) > 1.0);
}

// -2z / (1 + z²)². With c the smaller one of |z| and 1 / |z| it is -2c / (1 + c²)², and that times c² for |z| > 1.
fn inverse_tangent_curvature(z: f32) -> f32 {
  let x = abs(z);
  let far = x > 1.0;
  let c = select(x, 1.0 / max(x, 1.0), far);
  let u = c * c;
  let r = 1.0 / (1.0 + u);
  return with_sign_of(-z, 2.0 * c * select(1.0, u, far) * r * r);
}

// sinh z. Infinite and as accurate as hyperbolic_sine().
fn hyperbolic_sine_curvature(z: f32) -> f32 {
  return hyperbolic(z).x;
}

// cosh z, as above.
fn hyperbolic_cosine_curvature(z: f32) -> f32 {
  return hyperbolic(z).y;
}

// -z / (z² + 1)^(3/2); -1 / z² with the sign of z for large |z|, NaN above 2^63.
fn inverse_hyperbolic_sine_curvature(z: f32) -> f32 {
  let x = min(abs(z), 1e9);
  let far = abs(z) > 1e9;
  let r = 1.0 / select(sqrt(x * x + 1.0), abs(z), far);
  let magnitude = select(x * r, 1.0, far) * (r * r);
  return undefined_if(with_sign_of(-z, magnitude), r * r < 1.17549435e-38);
}

// -z / (z² - 1)^(3/2), infinite at 1; -1 / z² for large z, NaN above 2^63.
fn inverse_hyperbolic_cosine_curvature(z: f32) -> f32 {
  let x = clamp(z, 1.0, 1e9);
  let far = z > 1e9;
  let r = 1.0 / select(max(sqrt((x - 1.0) * (x + 1.0)), 1e-4), z, far);
  let magnitude = infinite_where(select(x * r, 1.0, far) * (r * r), z == 1.0);
  return undefined_if(with_sign_of(-1.0, magnitude), z < 1.0 || r * r < 1.17549435e-38);
}

// 2z / (1 - z²)², infinite at -1 and 1. Relative error 1e-6.
fn inverse_hyperbolic_tangent_curvature(z: f32) -> f32 {
  let x = min(abs(z), 1.0);
  let slope = 1.0 / (max(1.0 - x, 1e-8) * (1.0 + x));
  let magnitude = infinite_where(2.0 * x * slope * slope, abs(z) == 1.0);
  return undefined_if(with_sign_of(z, magnitude), abs(z) > 1.0);
}

// e^z, as exponential().
fn exponential_curvature(z: f32) -> f32 {
  return exp_of(z);
}

// -1/z²; -infinity at 0, NaN above 2^63. Exact.
fn logarithm_curvature(z: f32) -> f32 {
  let r = 1.0 / z;
  return undefined_if(-r * r, z < 0.0 || r * r < 1.17549435e-38);
}

// -1 / (4 z sqrt z), infinite at 0, NaN above 2^82.
fn square_root_curvature(z: f32) -> f32 {
  let r = 1.0 / sqrt(abs(z)); // abs for the sake of -0
  let c = 0.5 * r; // r³ overflows before a quarter of it does
  let magnitude = c * c * r;
  return undefined_if(-magnitude, z < 0.0 || magnitude < 1.17549435e-38);
}

// 2/z³. Exact; NaN beyond 2^42.
fn reciprocal_curvature(z: f32) -> f32 {
  let r = 1.0 / z;
  let cube = r * r * r;
  return undefined_if(2.0 * cube, abs(cube) < 1.17549435e-38);
}

// 2. Exact.
fn square_curvature(z: f32) -> f32 {
  return 2.0;
}

// exponent (exponent - 1) z^(exponent - 2), which is factor z^lower, or factor z^lower / z where `divided`; below 0 a broken
// exponent is outside the domain. Relative error and NaN as of the derivative that power() gives.
// Only what has a broken exponent is divided, and by z last: the whole power may overflow where its product with a factor
// below 1 does not. A factor of 0 wants no infinite power.
fn power_curvature(z: f32, factor: f32, lower: f32, divided: bool) -> f32 {
  let part = raise(z, lower);
  let curvature = (factor * part) * select(1.0, 1.0 / abs(z), divided);
  let outside = z < 0.0 && lower != floor(lower);
  let vanishes = abs(z) > 1.0 && min(abs(part), abs(curvature)) < 1.17549435e-38;
  return select(undefined_if(curvature, outside || vanishes), 0.0, factor == 0.0);
}

// -4z/sqrt(pi) e^(-z²).
fn erf_curvature(z: f32) -> f32 {
  let x = clamp(z, -10.0, 10.0); // as in erf
  return -2.256758334191025 * x * falling_exp(-x * x);
}
