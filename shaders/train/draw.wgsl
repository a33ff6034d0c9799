// Draws the batch of a step: for each row a point x of the data, out of N with equal probability, and by its kind what f is evaluated at
// and what it should be there, with z standard normal:
//   plain                      at x                  y of the same point, where there are targets
//   straight path              (1 - t) z + t x       x - z, with t uniform in [0, 1] (Lipman et al., 2023)
//   denoising                  x + σ z               -z / σ, weighted by σ², with log σ uniform (Song and Ermon, 2019)
//   noisy                      x + σ z               0: the loss is ½|f|² + ∇·f (Hyvärinen, 2005)
// One invocation draws one row.
// Needs: random.wgsl, batch.wgsl, lib/special.wgsl, lib/dispatch.wgsl.

const PLAIN = 0u;
const STRAIGHT_PATH = 1u;
const DENOISING = 2u;
const NOISY = 3u;

struct Parameters {
  kind: u32,
  batch: u32,
  width: u32,            // d
  contexts: u32,         // c
  time_column: u32,      // of the context, where t or σ goes; 0xffffffff: none
  count: u32,            // N
  window: u32,           // steps whose rows the data are; 0: all of them
  has_targets: u32,
  seed: u32,
  least_noise: u32,      // bits of the logarithms of the least σ
  most_noise: u32,       // and of the largest
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> progress: array<u32>;          // [step, step of the first loss that was not finite]
@group(0) @binding(2) var<storage, read> data: array<f32>;              // [N, d]
@group(0) @binding(3) var<storage, read> conditions: array<f32>;        // [N, c but for time]
@group(0) @binding(4) var<storage, read> targets: array<f32>;           // [N, d]
@group(0) @binding(5) var<storage, read> pairs: array<u32>;             // [batch]: whose noise a row has
@group(0) @binding(6) var<storage, read_write> points: array<f32>;      // [batch, d]
@group(0) @binding(7) var<storage, read_write> context: array<f32>;     // [batch, c]
@group(0) @binding(8) var<storage, read_write> wanted: array<f32>;      // [batch, d + 1]: what f should be, and the weight

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.batch) {
    return;
  }
  let step = progress[0];
  let drawn = row_of_data(p.seed, step, row, p.count, p.batch, p.window);
  let t = uniform_number(random_bits(p.seed, step, row, 1u));
  let log_sigma = bitcast<f32>(p.least_noise) + t * (bitcast<f32>(p.most_noise) - bitcast<f32>(p.least_noise));
  let sigma = exp_of(log_sigma);
  for (var k = 0u; k < p.width; k++) {
    let x = data[drawn * p.width + k];
    var at = x;
    var want = 0.0;
    if (p.kind == PLAIN) {
      if (p.has_targets == 1u) {
        want = targets[drawn * p.width + k];
      }
    } else {
      let z = noise_of(p.seed, step, pairs[row], k);
      if (p.kind == STRAIGHT_PATH) {
        at = (1.0 - t) * z + t * x;
        want = x - z;
      } else {
        at = x + sigma * z;
        want = select(0.0, -z / sigma, p.kind == DENOISING);
      }
    }
    points[row * p.width + k] = at;
    wanted[row * (p.width + 1u) + k] = want;
  }
  wanted[row * (p.width + 1u) + p.width] = select(1.0, sigma * sigma, p.kind == DENOISING);
  var condition = drawn * (p.contexts - select(0u, 1u, p.time_column < p.contexts));
  for (var column = 0u; column < p.contexts; column++) {
    if (column == p.time_column) {
      context[row * p.contexts + column] = select(sigma, t, p.kind == STRAIGHT_PATH);
    } else {
      context[row * p.contexts + column] = conditions[condition];
      condition++;
    }
  }
}
