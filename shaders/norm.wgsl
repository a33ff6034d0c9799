// y = r (x - μ), r = 1 / √(mean((x - μ)²) + ε), with μ = mean x where it is centered (LayerNorm), else 0 (RMSNorm).
// Distances are squared in a scale of their own, so y is right for any x that float32 holds, as long as x - μ fits too; beyond,
// and where an entry is not finite, all of y and r are NaN. r is, too, where 1/r is over 2^126.
// One invocation computes one row (a point, a moved copy of one, or a context).
// Needs: lib/dispatch.wgsl, lib/norms.wgsl.

struct Parameters {
  rows: u32,
  size: u32,            // floats per row
  width: u32,           // vec4 per row
  input_per_row: u32,   // in vec4; 0: one row for all
  centered: u32,
  epsilon: u32,         // bits of a float
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;                // [rows or 1, width]
@group(0) @binding(2) var<storage, read_write> normed: array<vec4f>;     // y [rows, width], 0 in the padding
@group(0) @binding(3) var<storage, read_write> inverse_deviation: array<f32>;    // r [rows]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let start = row * p.input_per_row;
  let n = f32(p.size);
  let root_epsilon = sqrt(bitcast<f32>(p.epsilon));
  let first = vec4f(x[start].x);
  var low = first;
  var high = first;
  for (var i = 0u; i < p.width; i++) {
    let entries = select(first, x[start + i], lanes(i, p.size));
    low = min(low, entries);
    high = max(high, entries);
  }
  let lowest = min(min(low.x, low.y), min(low.z, low.w));
  let highest = max(max(high.x, high.y), max(high.z, high.w));
  var mean = 0.0;
  if (p.centered == 1u) {
    let scale = norm_scale(max(highest, -lowest), 0.0);
    for (var i = 0u; i < p.width; i++) {
      mean += dot(select(vec4f(), scale * x[start + i], lanes(i, p.size)), vec4f(1.0)) / n;
    }
    // Rounding must not move the mean of equal numbers away from them: the distances would be all that is normed.
    mean = clamp(mean / scale, lowest, highest);
  }
  let scale = norm_scale(max(highest - mean, mean - lowest), root_epsilon);
  // What rounding the mean has left, in that scale: entries that differ little from one another differ much from a mean so rounded.
  var rest = 0.0;
  if (p.centered == 1u) {
    for (var i = 0u; i < p.width; i++) {
      rest += dot(select(vec4f(), scale * (x[start + i] - mean), lanes(i, p.size)), vec4f(1.0)) / n;
    }
  }
  // min and max may lose a NaN; the variance does not.
  var variance = 0.0;
  for (var i = 0u; i < p.width; i++) {
    let distance = select(vec4f(), scale * (x[start + i] - mean) - rest, lanes(i, p.size));
    variance += dot(distance, distance) / n;
  }
  let r = inverse_deviation_of(variance, root_epsilon, scale);
  inverse_deviation[row] = r.y;
  for (var i = 0u; i < p.width; i++) {
    let y = r.x * (scale * (x[start + i] - mean) - rest);
    normed[row * p.width + i] = select(vec4f(), y, lanes(i, p.size));
  }
}
