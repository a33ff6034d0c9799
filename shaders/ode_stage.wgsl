// A stage of a Runge-Kutta step (src/ode/tableaus.ts) over z = (x, l), l what is carried along x: ∫ ∇·f dt, whose slope is ∇·f, or
// ∇ log p, whose slope is -Jᵀ l - ∇(∇·f). Takes ż of a stage where one has come, and makes the y = z + h Σ_j weight_j k_j at which the next
// is evaluated; where the step is whole, z is that.
// home[point] = z [n], first stage [n], time elapsed, time left, h, error before, evaluations, attempts, condition [contexts], with n = width + extra.
// One invocation computes one number of one row.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  width: u32,          // d
  extra: u32,          // of l
  slope_sign: u32,     // bits of what its slope is multiplied by: 1, or -1
  contexts: u32,       // c
  home_stride: u32,
  arrived: u32,        // the stage whose ż has come; 0xffffffff: none
  known: u32,          // how many stages are summed up
  ends_step: u32,      // whether z becomes y
  is_adaptive: u32,    // whether each point has its own time and h, and rows are some of the points
  step: u32,           // bits of h, where it is one for all
  time: u32,           // bits of t at the next stage, as that; of its c otherwise
  begin: u32,          // bits of t at the beginning
  end: u32,            // and at the end
  time_column: u32,    // of the context; 0xffffffff: none
  context_rows: u32,
  weight0: u32,        // bits
  weight1: u32,
  weight2: u32,
  weight3: u32,
  weight4: u32,
  weight5: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> points: array<u32>;            // [rows]: the point of each row; where all go alike, row and point are one
@group(0) @binding(2) var<storage, read> value: array<f32>;             // [rows, width]
@group(0) @binding(3) var<storage, read> slope: array<f32>;             // [rows, extra]
@group(0) @binding(4) var<storage, read_write> home: array<f32>;        // [points, home_stride]
@group(0) @binding(5) var<storage, read_write> stages: array<f32>;      // [stages after the first, rows, n]
@group(0) @binding(6) var<storage, read_write> state: array<f32>;       // [rows, width]
@group(0) @binding(7) var<storage, read_write> carried: array<f32>;     // [rows, extra]
@group(0) @binding(8) var<storage, read_write> context: array<f32>;     // [context_rows, contexts]

// As in ode_control.wgsl.
const ELAPSED = 0u;
const LEFT = 1u;
const STEP = 2u;
const CONDITION = 6u;

// t ahead of where a point is, from the nearer end; rounding leads beyond neither.
fn time_at(elapsed: f32, left: f32, ahead: f32) -> f32 {
  let begin = bitcast<f32>(p.begin);
  let end = bitcast<f32>(p.end);
  let time = select(begin + (elapsed + ahead), end - (left - ahead), abs(left) < abs(elapsed));
  return select(clamp(time, min(begin, end), max(begin, end)), end, ahead == left);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let n = p.width + p.extra;
  if (i >= p.rows * n) {
    return;
  }
  let row = i / n;
  let k = i % n;
  let at = select(row, points[row], p.is_adaptive == 1u) * p.home_stride;
  let own = at + 2u * n;
  if (p.arrived != 0xffffffffu) {
    var came = 0.0;
    if (k < p.width) {
      came = value[row * p.width + k];
    } else {
      came = bitcast<f32>(p.slope_sign) * slope[row * p.extra + k - p.width];
    }
    if (p.arrived == 0u) {
      home[at + n + k] = came;
    } else {
      stages[((p.arrived - 1u) * p.rows + row) * n + k] = came;
    }
  }
  let h = select(bitcast<f32>(p.step), home[own + STEP], p.is_adaptive == 1u);
  let weights = array(p.weight0, p.weight1, p.weight2, p.weight3, p.weight4, p.weight5);
  var sum = 0.0;
  for (var j = 0u; j < p.known; j++) {
    if (j == 0u) {
      sum += bitcast<f32>(weights[j]) * home[at + n + k];
    } else {
      sum += bitcast<f32>(weights[j]) * stages[((j - 1u) * p.rows + row) * n + k];
    }
  }
  let y = home[at + k] + h * sum;
  if (p.ends_step == 1u) {
    home[at + k] = y;
  }
  if (k < p.width) {
    state[row * p.width + k] = y;
  } else {
    carried[row * p.extra + k - p.width] = y;
  }
  if (k == 0u && row < p.context_rows) {
    var time = bitcast<f32>(p.time);
    if (p.is_adaptive == 1u) {
      time = time_at(home[own + ELAPSED], home[own + LEFT], time * h);
    }
    for (var column = 0u; column < p.contexts; column++) {
      context[row * p.contexts + column] = select(home[own + CONDITION + column], time, column == p.time_column);
    }
  }
}
