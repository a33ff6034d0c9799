// z = prior + f ∘ x, out = σ(z), slope = σ'(z), curvature = σ''(z), for every row (a point, a moved copy of one, or a context).
// The prior is the bias, or what other terms have summed up; f is a constant row or another value.
// One invocation computes one vec4 of one row.
// Needs: lib/dispatch.wgsl, and derivatives(z) -> (σ(z), σ'(z), σ''(z)).

struct Parameters {
  rows: u32,
  size: u32,            // outputs per row; the rest of a vec4 is padding
  outer: u32,           // vec4 per row of z
  prior_per_row: u32,   // in vec4, as the next two; 0: one row for all
  x_per_row: u32,
  f_per_row: u32,
  out_offset: u32,      // in floats, as the next two
  out_stride: u32,
  out_width: u32,       // how many of a row's outputs are stored
  keeps_slope: u32,
  keeps_curvature: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> prior: array<vec4f>;       // [rows or 1, outer]
@group(0) @binding(2) var<storage, read> x: array<vec4f>;           // [rows or 1, outer]
@group(0) @binding(3) var<storage, read> f: array<vec4f>;           // [rows or 1, outer]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;     // [rows, out_width] at out_stride
@group(0) @binding(5) var<storage, read_write> slope: array<f32>;   // [rows, 4 outer]
@group(0) @binding(6) var<storage, read_write> curvature: array<f32>;   // [rows, 4 outer]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.rows * p.outer) {
    return;
  }
  let row = i / p.outer;
  let output = i % p.outer;
  let z = prior[row * p.prior_per_row + output] + f[row * p.f_per_row + output] * x[row * p.x_per_row + output];
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
