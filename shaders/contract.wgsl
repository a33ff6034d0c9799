// term (+)= e_k Σ_i c_k[i] s'_i (W (s ∘ t_k))[i]: a carry whose result is contracted at once and never stored,
// for every tangent t_k of every point b, row r = b columns + k.
// With one tangent of ones, c = 1 and W = M this is the bilinear form s'ᵀ M s; its sum over i is then left in `parts`
// partial sums, part q taking every parts-th block of i from q on.
// One invocation computes one part of some consecutive rows, a tile of rows and outputs after the other: lib/product.wgsl
// adds the loops, or src/kernels/tuned/tiles.ts others.
// Needs: lib/tangents.wgsl; Weight, a number or a vec4 of them.

struct Parameters {
  rows: u32,
  columns: u32,                  // tangents per point
  inner: u32,                    // vec4 of a row that one vec4 of results reads
  width: u32,                    // vec4 per tangent
  block_rows: u32,               // results and inputs of a diagonal block of W, as the next
  block_columns: u32,
  outer: u32,                    // vec4 per product
  parts: u32,
  tangent_offset: u32,           // in vec4, as all strides down to contraction_scale_per_point
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
  contraction_offset: u32,
  contraction_per_point: u32,
  contraction_per_column: u32,
  contraction_scale_per_point: u32,
  factor_per_point: u32,         // in floats, as the rest
  factor_per_column: u32,
  first_column: u32,
  terms_per_point: u32,
  adds: u32,                     // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<Weight>;             // [4 inner, outer]: W transposed, 4 outputs a vec4, first() of them left out
@group(0) @binding(2) var<storage, read> tangent: array<vec4f>;             // [points or 1, columns, width]
@group(0) @binding(3) var<storage, read> scale: array<vec4f>;               // s [points or 1, width]
@group(0) @binding(4) var<storage, read> contraction: array<vec4f>;         // c [points or 1, columns, outer]
@group(0) @binding(5) var<storage, read> contraction_scale: array<vec4f>;   // s' [points or 1, outer]
@group(0) @binding(6) var<storage, read> factor: array<f32>;                // e [points or 1, columns or 1]
@group(0) @binding(7) var<storage, read_write> terms: array<f32>;           // [points, terms_per_point]

fn contracted(row: u32, output: u32, y: vec4f) -> f32 {
  if (output >= p.outer) {
    return 0.0;
  }
  let point = row / p.columns;
  let c = contraction[p.contraction_offset + point * p.contraction_per_point + (row % p.columns) * p.contraction_per_column + output];
  return dot(c * contraction_scale[point * p.contraction_scale_per_point + output], y);
}

fn finish(row: u32, part: u32, sum: f32) {
  if (row >= p.rows) {
    return;
  }
  let point = row / p.columns;
  let column = p.first_column + row % p.columns;
  let e = factor[point * p.factor_per_point + column * p.factor_per_column];
  let index = point * p.terms_per_point + column * p.parts + part;
  terms[index] = select(e * sum, terms[index] + e * sum, p.adds == 1u);
}
