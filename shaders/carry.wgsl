// out (+)= e ∘ W (s ∘ t): one layer of forward mode for every tangent t_k of every point b, row r = b columns + k.
// Strides say where t, s, e and out are: tangents that all points share have per_point = 0, a missing scale is one row of
// ones with per_point = 0, and the Jacobian is stored with its columns innermost.
// One invocation computes 4 outputs of 4 consecutive rows; neighbouring invocations share the outputs and so the weights.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,               // tangents per point
  inner: u32,                 // vec4 per tangent
  outer: u32,                 // vec4 per product
  tangent_offset: u32,        // in vec4, as the next three
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
  out_per_point: u32,         // in floats, as the next two
  out_per_column: u32,
  out_per_row: u32,
  out_rows: u32,              // how many outputs are stored
  end_scale_per_point: u32,   // in vec4
  adds: u32,                  // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;      // [4 inner, outer]: W transposed, 4 outputs a vec4
@group(0) @binding(2) var<storage, read> tangent: array<vec4f>;     // [points or 1, columns, inner]
@group(0) @binding(3) var<storage, read> scale: array<vec4f>;       // [points or 1, inner]
@group(0) @binding(4) var<storage, read> end_scale: array<vec4f>;   // [points or 1, outer]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn tangent_at(row: u32) -> u32 {
  return p.tangent_offset + (row / p.columns) * p.tangent_per_point + (row % p.columns) * p.tangent_per_column;
}

fn store(row: u32, output: u32, y: vec4f) {
  if (row >= p.rows) {
    return;
  }
  let point = row / p.columns;
  let at = point * p.out_per_point + (row % p.columns) * p.out_per_column;
  let scaled = y * end_scale[point * p.end_scale_per_point + output];
  for (var lane = 0u; lane < 4u; lane++) {
    let i = output * 4u + lane;
    if (i < p.out_rows) {
      let index = at + i * p.out_per_row;
      out[index] = select(scaled[lane], out[index] + scaled[lane], p.adds == 1u);
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
  let t0 = tangent_at(row);
  let t1 = tangent_at(r1);
  let t2 = tangent_at(r2);
  let t3 = tangent_at(r3);
  let s0 = (row / p.columns) * p.scale_per_point;
  let s1 = (r1 / p.columns) * p.scale_per_point;
  let s2 = (r2 / p.columns) * p.scale_per_point;
  let s3 = (r3 / p.columns) * p.scale_per_point;
  var y0 = vec4f();
  var y1 = vec4f();
  var y2 = vec4f();
  var y3 = vec4f();
  for (var k = 0u; k < p.inner; k++) {
    let w = k * 4u * p.outer + output;
    let columns = mat4x4f(weight[w], weight[w + p.outer], weight[w + 2u * p.outer], weight[w + 3u * p.outer]);
    y0 += columns * (scale[s0 + k] * tangent[t0 + k]);
    y1 += columns * (scale[s1 + k] * tangent[t1 + k]);
    y2 += columns * (scale[s2 + k] * tangent[t2 + k]);
    y3 += columns * (scale[s3 + k] * tangent[t3 + k]);
  }
  store(row, output, y0);
  store(row + 1u, output, y1);
  store(row + 2u, output, y2);
  store(row + 3u, output, y3);
}
