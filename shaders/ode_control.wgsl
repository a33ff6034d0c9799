// Ends a step of a Runge-Kutta method with error control, each point by itself: with the last stage come, z' = z + h Σ_j b_j k_j and its
// error e = h Σ_j error_j k_j, as multiples of the tolerance err = sqrt(mean_k (e_k / (atol + rtol max(|z_k|, |z'_k|)))²). Where err <= 1
// the step is taken, and its last stage is the first of the next; else it is tried anew with a smaller h. See `control` in
// src/ode/tableaus.ts for how h follows. Before the first step: takes the first stage, and guesses h as the first guess of Hairer, Nørsett
// and Wanner, Solving Ordinary Differential Equations I, 1993, section II.4.
// home and stages lie as in ode_stage.wgsl. Of time both what has elapsed and what is left are kept: where t is large, t + h would lose of
// h, and where the end is near 0, what is left would be lost in what has elapsed.
// Status of a point: 0 on its way, 1 done, 2 out of steps, 3 not finite, 4 step too small.
// One invocation ends the step of one row.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  width: u32,
  extra: u32,
  slope_sign: u32,     // bits of what its slope is multiplied by: 1, or -1
  home_stride: u32,
  stages: u32,           // of the method; 0: before the first step
  most_attempts: u32,
  exponent: u32,         // bits of a float, as all that follow: 1 / order
  span: u32,             // the end less the beginning
  relative: u32,
  absolute: u32,
  least_step: u32,       // as part of the time elapsed, or left
  least_of_span: u32,    // as part of the span
  safety: u32,
  of_error: u32,
  of_error_before: u32,
  least: u32,
  most: u32,
  b0: u32,
  b1: u32,
  b2: u32,
  b3: u32,
  b4: u32,
  b5: u32,
  e0: u32,
  e1: u32,
  e2: u32,
  e3: u32,
  e4: u32,
  e5: u32,
  e6: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> points: array<u32>;            // [rows]
@group(0) @binding(2) var<storage, read> value: array<f32>;             // [rows, width]
@group(0) @binding(3) var<storage, read> slope: array<f32>;             // [rows, extra]
@group(0) @binding(4) var<storage, read> stages: array<f32>;            // [stages after the first, rows, n]
@group(0) @binding(5) var<storage, read_write> home: array<f32>;        // [points, home_stride]
@group(0) @binding(6) var<storage, read_write> status: array<u32>;      // [points]

// Where a point's own numbers stand at home, after z and its first stage, as `own` in src/ode/steps.ts has them.
const ELAPSED = 0u;
const LEFT = 1u;
const STEP = 2u;
const ERROR_BEFORE = 3u;
const EVALUATIONS = 4u;
const ATTEMPTS = 5u;

fn is_finite(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

fn last_stage(row: u32, k: u32) -> f32 {
  if (k < p.width) {
    return value[row * p.width + k];
  }
  return bitcast<f32>(p.slope_sign) * slope[row * p.extra + k - p.width];
}

// The first step, and where the stage is not finite, none.
fn begin_first(row: u32, point: u32) {
  let n = p.width + p.extra;
  let at = point * p.home_stride;
  let span = bitcast<f32>(p.span);
  var size = 0.0;
  var speed = 0.0;
  var finite = true;
  for (var k = 0u; k < n; k++) {
    let z = home[at + k];
    let came = last_stage(row, k);
    home[at + n + k] = came;
    finite = finite && is_finite(came);
    let tolerance = bitcast<f32>(p.absolute) + bitcast<f32>(p.relative) * abs(z);
    size += (z / tolerance) * (z / tolerance);
    speed += (came / tolerance) * (came / tolerance);
  }
  var h = 0.001 * abs(span);
  if (size > 1e-10 && speed > 1e-10 && is_finite(size) && is_finite(speed)) {
    h = 0.01 * sqrt(size) / sqrt(speed);
  }
  let own = at + 2u * n;
  home[own + STEP] = sign(span) * min(h, abs(span));
  home[own + EVALUATIONS] += 1.0;
  if (!finite) {
    status[point] = 3u;
  } else if (span == 0.0) {
    status[point] = 1u;
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let point = points[row];
  if (status[point] != 0u) {
    return;
  }
  if (p.stages == 0u) {
    begin_first(row, point);
    return;
  }
  let n = p.width + p.extra;
  let at = point * p.home_stride;
  let own = at + 2u * n;
  let elapsed = home[own + ELAPSED];
  let left = home[own + LEFT];
  let h = home[own + STEP];
  let before = home[own + ERROR_BEFORE];
  let b = array(p.b0, p.b1, p.b2, p.b3, p.b4, p.b5);
  let e = array(p.e0, p.e1, p.e2, p.e3, p.e4, p.e5, p.e6);
  var sum = 0.0;
  var finite = true;
  for (var k = 0u; k < n; k++) {
    var moved = bitcast<f32>(b[0]) * home[at + n + k];
    var error = bitcast<f32>(e[0]) * home[at + n + k];
    for (var j = 1u; j + 1u < p.stages; j++) {
      let stage = stages[((j - 1u) * p.rows + row) * n + k];
      moved += bitcast<f32>(b[j]) * stage;
      error += bitcast<f32>(e[j]) * stage;
    }
    error += bitcast<f32>(e[p.stages - 1u]) * last_stage(row, k);
    let next = home[at + k] + h * moved;
    finite = finite && is_finite(next) && is_finite(last_stage(row, k));
    let tolerance = bitcast<f32>(p.absolute) + bitcast<f32>(p.relative) * max(abs(home[at + k]), abs(next));
    sum += (h * error / tolerance) * (h * error / tolerance);
  }
  finite = finite && is_finite(sum);
  let attempts = home[own + ATTEMPTS] + 1.0;
  home[own + EVALUATIONS] += f32(p.stages - 1u);
  home[own + ATTEMPTS] = attempts;

  let err = max(sqrt(sum / f32(n)), 1e-10);
  let exponent = bitcast<f32>(p.exponent);
  let lower = bitcast<f32>(p.least);
  var growth = lower;
  if (finite && err <= 1.0) {
    let wanted = bitcast<f32>(p.safety) * pow(err, -bitcast<f32>(p.of_error) * exponent)
      * pow(before, bitcast<f32>(p.of_error_before) * exponent);
    // After a step that was tried anew, h does not grow at once: the error before says so.
    growth = clamp(wanted, lower, bitcast<f32>(p.most));
    // z' anew, since WGSL has no arrays of n numbers.
    for (var k = 0u; k < n; k++) {
      var moved = bitcast<f32>(b[0]) * home[at + n + k];
      for (var j = 1u; j + 1u < p.stages; j++) {
        moved += bitcast<f32>(b[j]) * stages[((j - 1u) * p.rows + row) * n + k];
      }
      home[at + k] += h * moved;
      home[at + n + k] = last_stage(row, k);
    }
    home[own + ERROR_BEFORE] = max(err, 1e-4);
    if (abs(h) >= abs(left)) {
      status[point] = 1u;
      return;
    }
    home[own + ELAPSED] = elapsed + h;
    home[own + LEFT] = left - h;
  } else if (finite) {
    growth = clamp(bitcast<f32>(p.safety) * pow(err, -exponent), lower, 1.0);
  }
  let now_left = abs(home[own + LEFT]);
  var next = h * growth;
  let least = max(bitcast<f32>(p.least_step) * min(abs(home[own + ELAPSED]), now_left), bitcast<f32>(p.least_of_span) * abs(bitcast<f32>(p.span)));
  if (abs(next) >= now_left) {
    next = home[own + LEFT];
  } else if (growth < 1.0 && abs(next) < least) {
    status[point] = select(3u, 4u, finite);
  }
  home[own + STEP] = next;
  if (status[point] == 0u && attempts >= f32(p.most_attempts)) {
    status[point] = 2u;
  }
}
