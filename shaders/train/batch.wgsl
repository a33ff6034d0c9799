// Which point of the data a row of a step's batch is, and its noise: functions of the seed, the step and the row.
// Needs: random.wgsl.

// One of N rows, with equal probability; or, where the host has sent on what was drawn of more than the device holds, the row of a
// window of so many steps. Its twin in drawnOf, src/train/batches.ts.
fn row_of_data(seed: u32, step: u32, row: u32, count: u32, batch: u32, window: u32) -> u32 {
  if (window > 0u) {
    return (step % window) * batch + row;
  }
  // The whole part of bits / 2^32 N, by halves that fit 32 bits.
  let bits = random_bits(seed, step, row, 0u);
  let low = (bits & 0xffffu) * (count & 0xffffu);
  let middle = (bits >> 16u) * (count & 0xffffu) + (low >> 16u);
  let other = (bits & 0xffffu) * (count >> 16u) + (middle & 0xffffu);
  return (bits >> 16u) * (count >> 16u) + (middle >> 16u) + (other >> 16u);
}

// A standard normal number of a row's noise.
fn noise_of(seed: u32, step: u32, row: u32, k: u32) -> f32 {
  return normal_number(seed, step, row, 2u + 2u * k);
}
