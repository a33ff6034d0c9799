// z = prior + W a, out = σ(z), scale = σ'(z), for every row (a point, a moved copy of one, or a context).
// The prior is the bias, or what other terms have summed up.
// One invocation computes 4 outputs of 4 consecutive rows; neighbouring invocations share the outputs and so the weights.
// Needs: lib/dispatch.wgsl, and activation(z) -> (σ(z), σ'(z)).

struct Parameters {
  rows: u32,
  size: u32,            // outputs per row; the rest of a vec4 is padding
  inner: u32,           // vec4 per row of a
  outer: u32,           // vec4 per row of z
  input_per_row: u32,   // in vec4, as the next; 0: one row for all
  prior_per_row: u32,
  out_offset: u32,      // in floats, as the next two
  out_stride: u32,
  out_width: u32,       // how many of a row's outputs are stored
  keeps_scale: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;      // [4 inner, outer]: W transposed, 4 outputs a vec4
@group(0) @binding(2) var<storage, read> prior: array<vec4f>;       // [rows or 1, outer]
@group(0) @binding(3) var<storage, read> a: array<vec4f>;           // [rows or 1, inner]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;     // [rows, out_width] at out_stride
@group(0) @binding(5) var<storage, read_write> scale: array<f32>;   // [rows, 4 outer]

fn store(row: u32, output: u32, z: vec4f) {
  if (row >= p.rows) {
    return;
  }
  for (var lane = 0u; lane < 4u; lane++) {
    let column = output * 4u + lane;
    // Padding stays 0: σ(0) may be huge, as that of a reciprocal, and products of it overflow into real lanes as NaN.
    let result = select(vec2f(), activation(z[lane]), column < p.size);
    if (column < p.out_width) {
      out[p.out_offset + row * p.out_stride + column] = result.x;
    }
    if (p.keeps_scale == 1u) {
      scale[row * p.outer * 4u + column] = result.y;
    }
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let groups = (p.rows + 3u) / 4u;
  if (i >= groups * p.outer) {
    return;
  }
  let output = i / groups;
  let row = (i % groups) * 4u;
  // Rows past the last repeat it; store() drops them.
  let r1 = min(row + 1u, p.rows - 1u);
  let r2 = min(row + 2u, p.rows - 1u);
  let r3 = min(row + 3u, p.rows - 1u);
  let a0 = row * p.input_per_row;
  let a1 = r1 * p.input_per_row;
  let a2 = r2 * p.input_per_row;
  let a3 = r3 * p.input_per_row;
  var z0 = prior[row * p.prior_per_row + output];
  var z1 = prior[r1 * p.prior_per_row + output];
  var z2 = prior[r2 * p.prior_per_row + output];
  var z3 = prior[r3 * p.prior_per_row + output];
  for (var k = 0u; k < p.inner; k++) {
    let w = k * 4u * p.outer + output;
    let columns = mat4x4f(weight[w], weight[w + p.outer], weight[w + 2u * p.outer], weight[w + 3u * p.outer]);
    z0 += columns * a[a0 + k];
    z1 += columns * a[a1 + k];
    z2 += columns * a[a2 + k];
    z3 += columns * a[a3 + k];
  }
  store(row, output, z0);
  store(row + 1u, output, z1);
  store(row + 2u, output, z2);
  store(row + 3u, output, z3);
}
