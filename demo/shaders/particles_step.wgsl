// Particles one step further along the field: Heun's method would need f twice, so short Euler steps, with the divergence
// integrated beside: log-volume += dt ∇·f. A particle that leaves the picture or is old starts anew at a random place in it.
// One invocation per particle. points, value [count, d]; divergence [count]; particles [count]: log-volume, age, lifetime, seed.

struct Step {
  count: u32,
  d: u32,
  a: f32,
  b: f32,
  width: f32,
  height: f32,
  dt: f32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> plane: array<f32>;
@group(0) @binding(2) var<storage, read_write> points: array<f32>;
@group(0) @binding(3) var<storage, read> value: array<f32>;
@group(0) @binding(4) var<storage, read> divergence: array<f32>;
@group(0) @binding(5) var<storage, read_write> particles: array<vec4f>;

// PCG's output permutation over a linear congruential step.
fn random(seed: u32) -> u32 {
  let state = seed * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= step.count) { return; }
  var particle = particles[i];
  var a = -step.a;
  var b = -step.b;
  for (var k = 0u; k < step.d; k++) {
    let x = points[i * step.d + k] + step.dt * value[i * step.d + k];
    points[i * step.d + k] = x;
    a += (x - plane[k]) * plane[step.d + k];
    b += (x - plane[k]) * plane[2u * step.d + k];
  }
  particle.x += step.dt * divergence[i];
  particle.y += 1.0;
  // Written so that a NaN, too, starts anew.
  let inside = abs(a) < 0.6 * step.width && abs(b) < 0.6 * step.height && abs(particle.x) < 20.0;
  if (!inside || particle.y > particle.z) {
    let first = random(bitcast<u32>(particle.w));
    let second = random(first);
    let third = random(second);
    let at = vec2f(f32(first >> 8u), f32(second >> 8u)) / 16777216.0 - 0.5;
    for (var k = 0u; k < step.d; k++) {
      points[i * step.d + k] =
        plane[k] + (step.a + at.x * step.width) * plane[step.d + k] + (step.b + at.y * step.height) * plane[2u * step.d + k];
    }
    particle = vec4f(0.0, 0.0, 60.0 + f32(third % 120u), bitcast<f32>(third & 0x3fffffffu));
  }
  particles[i] = particle;
}
