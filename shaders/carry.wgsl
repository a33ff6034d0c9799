// out (+)= e ∘ W (s ∘ t): one layer of forward mode for every tangent t_k of every point b, row r = b columns + k.
// Strides say where t, s, e and out are: tangents that all points share have per_point = 0, a missing scale is one row of
// ones with per_point = 0, and the Jacobian is stored with its columns innermost.
// One invocation computes a tile of consecutive rows and outputs: lib/product.wgsl adds the loops, or
// src/kernels/tuned/tiles.ts others.
// Needs: lib/tangents.wgsl; Weight, a number or a vec4 of them.

struct Parameters {
  rows: u32,
  columns: u32,               // tangents per point
  inner: u32,                 // vec4 of a row that one vec4 of results reads
  width: u32,                 // vec4 per tangent
  block_rows: u32,            // results and inputs of a diagonal block of W, as the next
  block_columns: u32,
  outer: u32,                 // vec4 per product
  tangent_offset: u32,        // in vec4, as the next three
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
  out_offset: u32,            // in floats, as the next three
  out_per_point: u32,
  out_per_column: u32,
  out_per_row: u32,
  out_rows: u32,              // how many outputs are stored
  end_scale_per_point: u32,   // in vec4
  adds: u32,                  // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<Weight>;     // [4 inner, outer]: W transposed, 4 outputs a vec4, first() of them left out
@group(0) @binding(2) var<storage, read> tangent: array<vec4f>;     // [points or 1, columns, width]
@group(0) @binding(3) var<storage, read> scale: array<vec4f>;       // [points or 1, width]
@group(0) @binding(4) var<storage, read> end_scale: array<vec4f>;   // [points or 1, outer]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn finish(row: u32, output: u32, y: vec4f) {
  if (row >= p.rows || output >= p.outer) {
    return;
  }
  let point = row / p.columns;
  let at = p.out_offset + point * p.out_per_point + (row % p.columns) * p.out_per_column;
  let scaled = y * end_scale[point * p.end_scale_per_point + output];
  for (var lane = 0u; lane < 4u; lane++) {
    let i = output * 4u + lane;
    if (i < p.out_rows) {
      let index = at + i * p.out_per_row;
      out[index] = select(scaled[lane], out[index] + scaled[lane], p.adds == 1u);
    }
  }
}
