// Ends the gradient of a step: adds up its loss, constant + Σ_b (scale/2 weight_b |f_b - wanted_b|² + divergence_scale ∇·f_b +
// penalty/2 (∇·f_b)²), and the square of its gradient; notes the step where either is not finite, after which nothing changes any more;
// and sets the rates of the update.
// One workgroup does all of it.
// Needs: random.wgsl, lib/special.wgsl.

const SUM_SIZE = 256u;
const NONE = 0xffffffffu;
const CONSTANT = 0u;
const COSINE = 1u;

struct Parameters {
  batch: u32,
  width: u32,
  size: u32,              // how many weights there are
  losses: u32,            // how many losses are kept
  scale: u32,             // bits, as all that follow but schedule, warm_up and steps
  divergence_scale: u32,
  penalty: u32,
  constant: u32,
  rate: u32,
  schedule: u32,
  warm_up: u32,           // steps on which the rate grows from 0
  steps: u32,             // in which a cosine falls to 0
  first_decay: u32,
  second_decay: u32,
  most_norm: u32,         // of a gradient; 0: any
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> value: array<f32>;                 // f [batch, d]
@group(0) @binding(2) var<storage, read> divergence: array<f32>;            // [batch]
@group(0) @binding(3) var<storage, read> wanted: array<f32>;                // [batch, d + 1]
@group(0) @binding(4) var<storage, read> gradient: array<f32>;              // [size]
@group(0) @binding(5) var<storage, read_write> progress: array<u32>;        // [step, step of the first loss that was not finite]
@group(0) @binding(6) var<storage, read_write> rates: array<f32>;           // [powers of both decays, rate, factor of the gradient]
@group(0) @binding(7) var<storage, read_write> losses: array<f32>;

var<workgroup> sums: array<vec2f, SUM_SIZE>;

fn rate_of(step: f32) -> f32 {
  let warm = min(1.0, (step + 1.0) / f32(max(p.warm_up, 1u)));
  let way = clamp(step / f32(max(p.steps, 1u)), 0.0, 1.0);
  let fallen = select(1.0, 0.5 + 0.5 * cosine_of_turns(0.5 * way), p.schedule == COSINE);
  return bitcast<f32>(p.rate) * warm * fallen;
}

@compute @workgroup_size(SUM_SIZE)
fn main(@builtin(local_invocation_index) local: u32) {
  var sum = vec2f();
  for (var row = local; row < p.batch; row += SUM_SIZE) {
    if (p.scale != 0u) {
      let own = row * (p.width + 1u);
      var squares = 0.0;
      for (var k = 0u; k < p.width; k++) {
        let off = value[row * p.width + k] - wanted[own + k];
        squares += off * off;
      }
      sum.x += 0.5 * bitcast<f32>(p.scale) * wanted[own + p.width] * squares;
    }
    if ((p.divergence_scale | p.penalty) != 0u) {
      let own = divergence[row];
      sum.x += (bitcast<f32>(p.divergence_scale) + 0.5 * bitcast<f32>(p.penalty) * own) * own;
    }
  }
  for (var i = local; i < p.size; i += SUM_SIZE) {
    sum.y += gradient[i] * gradient[i];
  }
  sums[local] = sum;
  for (var half = SUM_SIZE / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) {
      sums[local] += sums[local + half];
    }
  }
  if (local > 0u || progress[1] != NONE) {
    return;
  }
  let step = progress[0];
  let loss = bitcast<f32>(p.constant) + sums[0].x;
  losses[step % p.losses] = loss;
  if (!is_finite(loss) || !is_finite(sums[0].y)) {
    progress[1] = step;
    return;
  }
  rates[0] *= bitcast<f32>(p.first_decay);
  rates[1] *= bitcast<f32>(p.second_decay);
  rates[2] = rate_of(f32(step));
  let norm = sqrt(sums[0].y);
  let most = bitcast<f32>(p.most_norm);
  rates[3] = select(1.0, most / norm, most > 0.0 && norm > most);
  progress[0] = step + 1u;
}
