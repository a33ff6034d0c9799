// Particles as dots: larger and orange where the volume around one has grown along its path, smaller and purple where it shrank.
// Six vertices per particle. points [count, d]; particles [count]: log-volume, age, lifetime, seed.

struct View {
  d: u32,
  a: f32,
  b: f32,
  width: f32,
  height: f32,
  // Pixels of the panel.
  pixels_across: f32,
  pixels_down: f32,
  radius: f32,
}

struct Dot {
  @builtin(position) position: vec4f,
  @location(0) place: vec2f,
  @location(1) colour: vec4f,
}

@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> plane: array<f32>;
@group(0) @binding(2) var<storage, read> points: array<f32>;
@group(0) @binding(3) var<storage, read> particles: array<vec4f>;

@vertex
fn dot_corner(@builtin(vertex_index) vertex: u32) -> Dot {
  let i = vertex / 6u;
  let corner = vertex % 6u;
  let place = vec2f(select(-1.0, 1.0, corner == 1u || corner == 2u || corner == 4u), select(-1.0, 1.0, corner >= 2u && corner != 3u));
  var a = -view.a;
  var b = -view.b;
  for (var k = 0u; k < view.d; k++) {
    let x = points[i * view.d + k] - plane[k];
    a += x * plane[view.d + k];
    b += x * plane[2u * view.d + k];
  }
  let particle = particles[i];
  let radius = view.radius * clamp(exp2(0.5 * particle.x), 0.6, 2.5);
  let centre = vec2f(a / (0.5 * view.width), b / (0.5 * view.height));
  let offset = place * 2.0 * radius / vec2f(view.pixels_across, view.pixels_down);
  let fade = clamp(min(particle.y, particle.z - particle.y) / 10.0, 0.0, 1.0);
  let grown = clamp(0.5 + 0.5 * particle.x, 0.0, 1.0);
  let colour = mix(mix(vec3f(0.18, 0.05, 0.36), vec3f(0.15), min(2.0 * grown, 1.0)), vec3f(0.7, 0.28, 0.0), max(2.0 * grown - 1.0, 0.0));
  return Dot(vec4f(centre + offset, 0.0, 1.0), place, vec4f(colour, fade));
}

@fragment
fn dot_colour(dot: Dot) -> @location(0) vec4f {
  let cover = dot.colour.a * (1.0 - smoothstep(0.7, 1.0, length(dot.place)));
  return vec4f(dot.colour.rgb * cover, cover);
}
