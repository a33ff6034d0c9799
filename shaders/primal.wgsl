// z = prior + W a, out = σ(z), slope = σ'(z), curvature = σ''(z), for every row (a point, a moved copy of one, or a context).
// The prior is the bias, or what other terms have summed up.
// One invocation computes a tile of consecutive rows and outputs: lib/product.wgsl adds the loops, or src/kernels/tuned/tiles.ts others.
// Needs: derivatives(z) -> (σ(z), σ'(z), σ''(z)); Weight, a number or a vec4 of them.

struct Parameters {
  rows: u32,
  size: u32,            // outputs per row; the rest of a vec4 is padding
  inner: u32,           // vec4 of a row that one vec4 of results reads
  width: u32,           // vec4 per row of a
  block_rows: u32,      // results and inputs of a diagonal block of W, as the next
  block_columns: u32,
  outer: u32,           // vec4 per row of z
  input_per_row: u32,   // in vec4, as the next; 0: one row for all
  prior_per_row: u32,
  out_offset: u32,      // in floats, as the next two
  out_stride: u32,
  out_width: u32,       // how many of a row's outputs are stored
  keeps_slope: u32,
  keeps_curvature: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<Weight>;     // [4 inner, outer]: W transposed, 4 outputs a vec4, first() of them left out
@group(0) @binding(2) var<storage, read> prior: array<vec4f>;       // [rows or 1, outer]
@group(0) @binding(3) var<storage, read> a: array<vec4f>;           // [rows or 1, width]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;     // [rows, out_width] at out_stride
@group(0) @binding(5) var<storage, read_write> slope: array<f32>;   // [rows, 4 outer]
@group(0) @binding(6) var<storage, read_write> curvature: array<f32>;   // [rows, 4 outer]

fn address(row: u32) -> u32 {
  return row * p.input_per_row;
}

fn element(at: u32, k: u32) -> vec4f {
  return a[at + k];
}

fn start(row: u32, output: u32) -> vec4f {
  return prior[row * p.prior_per_row + output];
}

fn finish(row: u32, output: u32, z: vec4f) {
  if (row >= p.rows || output >= p.outer) {
    return;
  }
  for (var lane = 0u; lane < 4u; lane++) {
    let column = output * 4u + lane;
    // Padding stays 0: σ(0) may be huge, as that of a reciprocal, and products of it overflow into real lanes as NaN.
    let result = select(vec3f(), derivatives(z[lane]), column < p.size);
    if (column < p.out_width) {
      out[p.out_offset + row * p.out_stride + column] = result.x;
    }
    if (p.keeps_slope == 1u) {
      slope[row * p.outer * 4u + column] = result.y;
    }
    if (p.keeps_curvature == 1u) {
      curvature[row * p.outer * 4u + column] = result.z;
    }
  }
}
