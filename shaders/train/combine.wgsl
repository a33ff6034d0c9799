// values[to + i] = Σ_n factor_n values[from_n + i] for i < size: the stages and steps of a Runge-Kutta method and of its adjoint, and
// sums over them.
// One invocation computes one number.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  size: u32,
  to: u32,
  count: u32,            // of terms
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> terms: array<vec2u>;           // [count]: from, and the bits of its factor
@group(0) @binding(2) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.size) {
    return;
  }
  var sum = 0.0;
  for (var n = 0u; n < p.count; n++) {
    sum += bitcast<f32>(terms[n].y) * values[terms[n].x + i];
  }
  values[p.to + i] = sum;
}
