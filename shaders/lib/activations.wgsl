// Activations: each function gives vec2f(value, derivative) at z. Needs special.wgsl; functions only.
//
// At a kink the derivative is PyTorch's. Parameters are those that src/model/activation.ts admits.
// Errors are in float32 and for both numbers: with v the exact value or derivative, 1e-6 (1 + |v|) unless stated otherwise,
// and "exact" means one or two roundings. Functions through 0 also hold a relative error of 1e-6 in the value near z = 0.
// What overflows is infinite, and what is outside the domain NaN in both; what saturates is right for any finite z. What is
// nearer to 0 than 2^-126, z or result, may be taken for 0. z itself is finite: see activationWgsl in src/model/activation.ts.

// z. Exact.
fn identity(z: f32) -> vec2f {
  return vec2f(z, 1.0);
}

// max(z, 0); the derivative at 0 is 0. Exact.
fn relu(z: f32) -> vec2f {
  return vec2f(max(z, 0.0), select(0.0, 1.0, z > 0.0));
}

// z where z > 0, else slope z; the derivative at 0 is slope. Exact.
fn leaky_relu(z: f32, slope: f32) -> vec2f {
  return select(vec2f(slope * z, slope), vec2f(z, 1.0), z > 0.0);
}

// min(max(z, 0), 6); the derivative at 0 and 6 is 0. Exact.
fn relu6(z: f32) -> vec2f {
  return vec2f(clamp(z, 0.0, 6.0), select(0.0, 1.0, z > 0.0 && z < 6.0));
}

// z where z > 0, else alpha (e^z - 1); the derivative at 0 is alpha. Error times max(1, |alpha|).
fn elu(z: f32, alpha: f32) -> vec2f {
  let e = falling_exp2(1.442695041 * clamp(z, -88.0, 0.0));
  return select(alpha * e.yx, vec2f(z, 1.0), z > 0.0);
}

// scale z where z > 0, else scale alpha (e^z - 1), with the scale and alpha that keep mean 0 and variance 1; the
// derivative at 0 is scale alpha.
fn selu(z: f32) -> vec2f {
  const scale = 1.0507009873554805;
  const scale_alpha = 1.7580993408473766;
  let e = falling_exp2(1.442695041 * clamp(z, -88.0, 0.0));
  return select(scale_alpha * e.yx, vec2f(scale * z, scale), z > 0.0);
}

// z where z > 0, else alpha (e^(z/alpha) - 1). Error times max(1, |alpha|); but for alpha < 0 both grow like e^|z/alpha|,
// with the relative error of exponential().
fn celu(z: f32, alpha: f32) -> vec2f {
  let limit = 100.0 * abs(alpha); // beyond it exp_of is 0 or infinite
  let x = clamp(z, -limit, 0.0) / alpha;
  let e = exp_of(x);
  return select(vec2f(alpha * expm1(x, e), e), vec2f(z, 1.0), z > 0.0);
}

// z Φ(z) with Φ the standard normal distribution; derivative Φ(z) + z e^(-z²/2) / sqrt(2 pi).
// With Q = Φ(-|z|) the value is max(z, 0) - |z| Q; exactly 0 or z for |z| >= 13.2.
fn gelu(z: f32) -> vec2f {
  let x = min(abs(z), 15.0); // keeps x^2 small; g is exactly 0 from 13.2 on
  let g = falling_exp(-0.5 * x * x);
  let q = normal_tail(x, g);
  let below = select(q, 1.0 - q, z > 0.0);
  return vec2f(max(z, 0.0) - abs(z) * q, below + 0.3989422804014327 * clamp(z, -15.0, 15.0) * g);
}

// z (1 + tanh u) / 2 = z S(2u) with u = sqrt(2/pi) (z + 0.044715 z³) and S the logistic function;
// derivative S(2u) + 2 z S(2u) S(-2u) u'.
// With t = e^(-2|u|) the value is max(z, 0) - |z| t / (1 + t); exactly 0 or z for large |z|.
fn gelu_tanh(z: f32) -> vec2f {
  let x = min(abs(z), 15.0); // keeps x^3 small; t is exactly 0 from 9.3 on
  let t = falling_exp(-1.5957691216057308 * x * (1.0 + 0.044715 * x * x));
  let r = 1.0 / (1.0 + t);
  let q = t * r;
  let slope = 1.5957691216057308 * (1.0 + 0.134145 * x * x);
  let below = select(q, r, z > 0.0);
  return vec2f(max(z, 0.0) - abs(z) * q, below + clamp(z, -15.0, 15.0) * slope * q * r);
}

// z S(z) with S the logistic function; derivative S(z) + z S(z) S(-z).
// With t = e^(-|z|) the value is max(z, 0) - |z| t / (1 + t).
fn silu(z: f32) -> vec2f {
  let t = falling_exp(-abs(z));
  let r = 1.0 / (1.0 + t);
  let q = t * r;
  let below = select(q, r, z > 0.0);
  return vec2f(max(z, 0.0) - abs(z) * q, below + z * q * r);
}

// z w with w = tanh(log(1 + e^z)); derivative w + z (1 - w²) S(z) with S the logistic function.
// With t = e^(-|z|) both are quotients of polynomials with positive coefficients: nothing overflows or cancels.
fn mish(z: f32) -> vec2f {
  let t = falling_exp(-abs(z));
  let t2 = t * t;
  let positive = z > 0.0;
  let r = 1.0 / select(t2 + 2.0 * t + 2.0, 1.0 + 2.0 * t + 2.0 * t2, positive);
  let w = select(t2 + 2.0 * t, 1.0 + 2.0 * t, positive) * r;
  let slope = 4.0 * select(t, t2, positive) * (1.0 + t) * r * r;
  return vec2f(z * w, w + z * slope);
}

// 1 / (1 + e^-z); derivative t / (1 + t)² with t = e^(-|z|).
fn sigmoid(z: f32) -> vec2f {
  let t = falling_exp(-abs(z));
  let r = 1.0 / (1.0 + t);
  return vec2f(select(t, 1.0, z > 0.0) * r, t * r * r);
}

// min(max(z / 6 + 1/2, 0), 1); the derivative at -3 and 3 is 0.
fn hardsigmoid(z: f32) -> vec2f {
  return vec2f(clamp(z / 6.0 + 0.5, 0.0, 1.0), select(0.0, 1.0 / 6.0, abs(z) < 3.0));
}

// z hardsigmoid(z); the derivative is 0 at -3 and 1 at 3.
fn hardswish(z: f32) -> vec2f {
  let inner = clamp(z, -3.0, 3.0);
  let curve = vec2f(inner * (inner + 3.0) / 6.0, inner / 3.0 + 0.5);
  return select(select(curve, vec2f(0.0), z <= -3.0), vec2f(z, 1.0), z >= 3.0);
}

// min(max(z, -1), 1); the derivative at -1 and 1 is 0. Exact.
fn hardtanh(z: f32) -> vec2f {
  return vec2f(clamp(z, -1.0, 1.0), select(0.0, 1.0, abs(z) < 1.0));
}

// tanh z; derivative 4t / (1 + t)² with t = e^(-2|z|). The magnitude is (1 - t) / (1 + t); exactly -1 or 1 for large |z|.
fn hyperbolic_tangent(z: f32) -> vec2f {
  let e = falling_exp2(-2.885390082 * min(abs(z), 44.0));
  let r = 1.0 / (2.0 + e.y);
  return vec2f(with_sign_of(z, abs(e.y) * r), 4.0 * e.x * r * r);
}

// z / (1 + |z|); derivative 1 / (1 + |z|)².
fn softsign(z: f32) -> vec2f {
  let x = clamp(z, -1e37, 1e37); // a quotient by more than 2^126 may be flushed to 0
  let r = 1.0 / (1.0 + abs(x));
  return vec2f(x * r, r * r);
}

// log(1 + e^(beta z)) / beta, but z where beta z > threshold; derivative S(beta z), but 1, with S the logistic function.
// With t = e^(-|beta z|) the value is (max(beta z, 0) + log(1 + t)) / beta. Error of the value times max(1, 1/|beta|).
fn softplus(z: f32, beta: f32, threshold: f32) -> vec2f {
  let u = beta * z;
  let t = falling_exp(-abs(u));
  let smooth_part = vec2f((max(u, 0.0) + log1p(t)) / beta, select(t, 1.0, u > 0.0) / (1.0 + t));
  return select(smooth_part, vec2f(z, 1.0), u > threshold);
}

// sin(omega z), derivative omega cos(omega z); turns is |omega| / (2 pi) in fixed point (see sine_cosine).
// Error 2e-7 in the value and 2e-7 |omega| in the derivative where |z| <= 2^68, NaN beyond.
fn sine(z: f32, omega: f32, turns: vec4<u32>) -> vec2f {
  return vec2f(1.0, omega) * sine_cosine(z, omega, turns);
}

// cos z, derivative -sin z; turns is 1 / (2 pi) in fixed point (see sine_cosine). Error 2e-7 where |z| <= 2^68, NaN
// beyond.
fn cosine(z: f32, turns: vec4<u32>) -> vec2f {
  let sc = sine_cosine(z, 1.0, turns);
  return vec2f(sc.y, -sc.x);
}

// tan z and 1 + tan² z; turns is 1 / (2 pi) in fixed point and finer_turns 2^24 times that (see tangent_of). Relative error
// 1e-6, next to the poles too, where |z| <= 2^68, NaN beyond.
fn tangent(z: f32, turns: vec4<u32>, finer_turns: vec4<u32>) -> vec2f {
  let t = tangent_of(z, turns, finer_turns);
  return undefined_where(vec2f(t, 1.0 + t * t), vec2<bool>(abs(z) > 295147905179352825856.0));
}

// asin z and 1 / sqrt(1 - z²), infinite at -1 and 1.
// z + z³ P(z²) for |z| < 1/2, else pi/2 - 2 asin(sqrt((1 - |z|) / 2)).
fn inverse_sine(z: f32) -> vec2f {
  let x = min(abs(z), 1.0);
  let rest = 1.0 - x;
  let centre = x < 0.5;
  let c = select(sqrt(0.5 * rest), x, centre);
  let u = c * c;
  let p = 0.166666724 + u * (0.0749885507 + u * (0.0450013801 + u * (0.0265545422 + u * 0.0380850236)));
  let part = c + c * u * p;
  let value = with_sign_of(z, select(1.5707963268 - 2.0 * part, part, centre));
  let slope = infinite_where(1.0 / sqrt(max(rest, 1e-8) * (1.0 + x)), abs(z) == 1.0);
  return undefined_where(vec2f(value, slope), vec2<bool>(abs(z) > 1.0));
}

// atan z and 1 / (1 + z²). With c the smaller one of |z| and 1 / |z| it is c + c³ P(c²), or pi/2 minus that.
fn inverse_tangent(z: f32) -> vec2f {
  let x = abs(z);
  let far = x > 1.0;
  let c = select(x, 1.0 / max(x, 1.0), far);
  let u = c * c;
  let low = -0.333333231 + u * (0.199986812 + u * (-0.142570449 + u * 0.108657591));
  let high = -0.0800968172 + u * (0.0489143215 + u * (-0.0200267476 + u * 0.00386673891));
  let u2 = u * u;
  let part = c + c * u * (low + u2 * u2 * high);
  return vec2f(with_sign_of(z, select(part, 1.5707963268 - part, far)), select(1.0, u, far) / (1.0 + u));
}

// sinh z and cosh z; infinite above |z| = 89.4159. Relative error that of WGSL's exp (see hyperbolic).
fn hyperbolic_sine(z: f32) -> vec2f {
  return hyperbolic(z);
}

// cosh z and sinh z, as above.
fn hyperbolic_cosine(z: f32) -> vec2f {
  return hyperbolic(z).yx;
}

// asinh z and 1 / sqrt(z² + 1). With t = |z| + z² / (1 + sqrt(z² + 1)) the value is log(1 + t); log |2z| for large |z|.
// As with log, the derivative is NaN above 2^126.
fn inverse_hyperbolic_sine(z: f32) -> vec2f {
  let x = min(abs(z), 1e9);
  let root = sqrt(x * x + 1.0);
  let far = abs(z) > 1e9;
  let value = select(log1p_of(x + x * (x / (1.0 + root))), log_of(abs(z)) + 0.6931471806, far);
  let slope = 1.0 / select(root, abs(z), far);
  return undefined_where(vec2f(with_sign_of(z, value), slope), vec2<bool>(false, abs(z) > 8.5070592e37));
}

// acosh z and 1 / sqrt(z² - 1), infinite at 1. With t = z - 1 + sqrt(z² - 1) the value is log(1 + t); log 2z for large z. As
// with log, the derivative is NaN above 2^126.
fn inverse_hyperbolic_cosine(z: f32) -> vec2f {
  let x = clamp(z, 1.0, 1e9);
  let root = sqrt((x - 1.0) * (x + 1.0));
  let far = z > 1e9;
  let value = select(log1p_of(x - 1.0 + root), log_of(z) + 0.6931471806, far);
  let slope = infinite_where(1.0 / select(max(root, 1e-4), z, far), z == 1.0);
  return undefined_where(vec2f(value, slope), vec2<bool>(z < 1.0, z < 1.0 || z > 8.5070592e37));
}

// atanh z = log(1 + 2|z| / (1 - |z|)) / 2 with the sign of z, and 1 / (1 - z²); infinite at -1 and 1.
fn inverse_hyperbolic_tangent(z: f32) -> vec2f {
  let x = min(abs(z), 1.0);
  let rest = max(1.0 - x, 1e-8);
  let value = infinite_where(0.5 * log1p_of(2.0 * x / rest), abs(z) == 1.0);
  let slope = infinite_where(1.0 / (rest * (1.0 + x)), abs(z) == 1.0);
  return undefined_where(vec2f(with_sign_of(z, value), slope), vec2<bool>(abs(z) > 1.0));
}

// e^z and again e^z; 0 below -87, infinite above 88.7228. Relative error that of WGSL's exp, (3 + 2|z|) 2^-23.
fn exponential(z: f32) -> vec2f {
  return vec2f(exp_of(z));
}

// log z and 1/z; -infinity and infinity at 0. Relative error 3e-7. Above 2^126 the derivative, which may be taken for 0, is
// NaN: of log(e^z) it would make 0 for 1.
fn logarithm(z: f32) -> vec2f {
  return undefined_where(vec2f(log_of(z), 1.0 / z), vec2<bool>(z < 0.0, z < 0.0 || z > 8.5070592e37));
}

// sqrt z and 1 / (2 sqrt z), infinite at 0.
fn square_root(z: f32) -> vec2f {
  let root = sqrt(z);
  return undefined_where(vec2f(root, 0.5 / root), vec2<bool>(z < 0.0));
}

// 1/z and -1/z². Exact. Beyond 2^63 the derivative, which may be taken for 0, is NaN: of e^z / (1 + e^z) it would make 1 for 0.
fn reciprocal(z: f32) -> vec2f {
  let r = 1.0 / z;
  return undefined_where(vec2f(r, -r * r), vec2<bool>(false, r * r < 1.17549435e-38));
}

// z² and 2z. Exact.
fn square(z: f32) -> vec2f {
  return vec2f(z * z, 2.0 * z);
}

// z^exponent and exponent z^(exponent - 1); below 0 a broken exponent is outside the domain. The whole part is multiplied
// out, at a relative error of 2^-24 for each of its units; a broken part costs that of exponential() besides. As with log,
// and reciprocal, the derivative is NaN where it may be taken for 0 far from 0.
fn power(z: f32, exponent: f32) -> vec2f {
  let lower = raise(z, exponent - 1.0);
  let outside = z < 0.0 && exponent != floor(exponent);
  let slope = exponent * lower;
  let vanishes = abs(z) > 1.0 && min(abs(lower), abs(slope)) < 1.17549435e-38;
  return undefined_where(vec2f(raise(z, exponent), slope), vec2<bool>(outside, outside || vanishes));
}

// |z|; the derivative at 0 is 0. Exact.
fn absolute(z: f32) -> vec2f {
  return vec2f(abs(z), sign(z));
}

// erf z = 2/sqrt(pi) times the integral of e^(-t²) from 0 to z; derivative 2/sqrt(pi) e^(-z²).
// The Taylor series for |z| < 0.6, where 1 - 2Q would cancel.
fn erf(z: f32) -> vec2f {
  let x = min(abs(z), 10.0); // keeps x^2 small; g is exactly 0 from 9.33 on
  let g = falling_exp(-x * x);
  let c = clamp(z, -0.6, 0.6);
  let u = c * c;
  let p = 0.1 + u * (-0.0238095238 + u * (0.00462962963 + u * (-0.000757575758 + u * 0.000106837607)));
  let centre = 1.1283791671 * (c + c * u * (-0.333333333 + u * p));
  return vec2f(select(sign(z) * (1.0 - 2.0 * normal_tail(1.4142135624 * x, g)), centre, abs(z) < 0.6), 1.1283791671 * g);
}

// min(max(z, low), high); the derivative at low and high is 1. Exact.
fn clip(z: f32, low: f32, high: f32) -> vec2f {
  return vec2f(min(max(z, low), high), select(0.0, 1.0, z >= low && z <= high));
}

// A step function of z, whose value the caller gives: the derivative is 0 everywhere. Exact.
fn stepped(z: f32, value: f32) -> vec2f {
  return vec2f(value, 0.0);
}
