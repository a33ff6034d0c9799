// Gives the points x of a batch the noise z of another row, so that their paths are short: where two rows i and j are nearer to their noise
// with each other's, |x_i - z_j|² + |x_j - z_i|² < |x_i - z_i|² + |x_j - z_j|², which is (x_i - x_j)·(z_i - z_j) < 0, they exchange it.
// Every z stays that of one x; once no two are left that would, the pairs are those of optimal transport in one dimension, and nearly in a
// few (Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2024).
// One workgroup does all of it: round by round every row meets one other, i that with i ^ mask, until all have met `sweeps` times.
// Needs: random.wgsl, batch.wgsl, lib/special.wgsl.

const PAIR_SIZE = 256u;

struct Parameters {
  batch: u32,
  width: u32,            // d
  count: u32,            // N
  window: u32,           // as in draw.wgsl
  seed: u32,
  rounds: u32,           // the least power of 2 that is not below batch
  sweeps: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> progress: array<u32>;          // [step, step of the first loss that was not finite]
@group(0) @binding(2) var<storage, read> data: array<f32>;              // [N, d]
@group(0) @binding(3) var<storage, read_write> pool: array<f32>;        // [2, batch, d]: x, and z
@group(0) @binding(4) var<storage, read_write> pairs: array<u32>;       // [batch]

@compute @workgroup_size(PAIR_SIZE)
fn main(@builtin(local_invocation_index) local: u32) {
  let step = progress[0];
  let noise = p.batch * p.width;
  for (var row = local; row < p.batch; row += PAIR_SIZE) {
    let drawn = row_of_data(p.seed, step, row, p.count, p.batch, p.window);
    for (var k = 0u; k < p.width; k++) {
      pool[row * p.width + k] = data[drawn * p.width + k];
      pool[noise + row * p.width + k] = noise_of(p.seed, step, row, k);
    }
    pairs[row] = row;
  }
  for (var sweep = 0u; sweep < p.sweeps; sweep++) {
    for (var mask = 1u; mask < p.rounds; mask++) {
      storageBarrier();
      for (var i = local; i < p.batch; i += PAIR_SIZE) {
        let j = i ^ mask;
        if (j > i && j < p.batch) {
          let a = pairs[i];
          let b = pairs[j];
          var product = 0.0;
          for (var k = 0u; k < p.width; k++) {
            product += (pool[i * p.width + k] - pool[j * p.width + k])
              * (pool[noise + a * p.width + k] - pool[noise + b * p.width + k]);
          }
          if (product < 0.0) {
            pairs[i] = b;
            pairs[j] = a;
          }
        }
      }
    }
  }
}
