// z = prior + W a, out = σ(z), and of σ'(z)ᵀ M s the part q: the sum over every parts-th block of outputs from q on.
// The last two products of the bilinear form in one: a hidden layer, and the contraction that its slopes weigh, which so
// never leave the chip.
// One invocation computes one part of some consecutive rows, a tile of rows and outputs after the other: see bilinearMain in
// src/gpu/bilinear.ts, which adds the loops.
// Needs: activation(z) -> (σ(z), σ'(z)); Weight, a number or a vec4 of them.

struct Parameters {
  rows: u32,
  size: u32,              // outputs per row; the rest of a vec4 is padding
  inner: u32,             // vec4 per row of a and of s
  outer: u32,             // vec4 per row of z
  input_per_row: u32,     // in vec4, as the next two; 0: one row for all
  scale_per_row: u32,
  prior_per_row: u32,
  parts: u32,
  out_offset: u32,        // in floats, as the next two
  out_stride: u32,
  out_width: u32,         // how many of a row's outputs are stored; 0: none
  terms_offset: u32,
  terms_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<Weight>;      // [4 inner, outer]: W transposed, 4 outputs a vec4
@group(0) @binding(2) var<storage, read> form: array<Weight>;        // [4 inner, outer]: M transposed
@group(0) @binding(3) var<storage, read> prior: array<vec4f>;        // [rows or 1, outer]
@group(0) @binding(4) var<storage, read> a: array<vec4f>;            // [rows or 1, inner]
@group(0) @binding(5) var<storage, read> scale: array<vec4f>;        // s [rows or 1, inner]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;      // [rows, out_width] at out_stride
@group(0) @binding(7) var<storage, read_write> terms: array<f32>;    // [rows, parts] at terms_stride

// Stores σ(z) and gives σ'(z), 0 where there is no output.
fn activated(row: u32, output: u32, z: vec4f) -> vec4f {
  var slopes = vec4f();
  if (output >= p.outer) {
    return slopes;
  }
  for (var lane = 0u; lane < 4u; lane++) {
    let column = output * 4u + lane;
    let result = select(vec2f(), activation(z[lane]), column < p.size);
    if (row < p.rows && column < p.out_width) {
      out[p.out_offset + row * p.out_stride + column] = result.x;
    }
    slopes[lane] = result.y;
  }
  return slopes;
}

fn finish(row: u32, part: u32, sum: f32) {
  if (row < p.rows) {
    terms[p.terms_offset + row * p.terms_stride + part] = sum;
  }
}
