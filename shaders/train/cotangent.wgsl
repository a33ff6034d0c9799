// ∂L/∂f and ∂L/∂(∇·f) of L = Σ_b (scale/2 weight_b |f_b - wanted_b|² + penalty/2 (∇·f_b)²), with the weight after what is wanted:
// scale weight (f - wanted), and penalty ∇·f.
// One invocation computes one number of one row, of `rows` from `first` on.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  first: u32,
  rows: u32,
  width: u32,
  scale: u32,            // bits
  penalty: u32,          // bits; 0: ∇·f is not there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> value: array<f32>;             // f [batch, d]
@group(0) @binding(2) var<storage, read> divergence: array<f32>;        // [batch]
@group(0) @binding(3) var<storage, read> wanted: array<f32>;            // [batch, d + 1]
@group(0) @binding(4) var<storage, read_write> cotangent: array<f32>;   // [batch, d]
@group(0) @binding(5) var<storage, read_write> divergence_cotangent: array<f32>;   // [batch]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows * p.width) {
    return;
  }
  let row = p.first + i / p.width;
  let k = i % p.width;
  let own = row * (p.width + 1u);
  cotangent[row * p.width + k] = bitcast<f32>(p.scale) * wanted[own + p.width] * (value[row * p.width + k] - wanted[own + k]);
  if (p.penalty != 0u && k == 0u) {
    divergence_cotangent[row] = bitcast<f32>(p.penalty) * divergence[row];
  }
}
