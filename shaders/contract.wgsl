// term (+)= e_k Σ_i c_k[i] s'_i (W (s ∘ t_k))[i]: a carry whose result is contracted at once and never stored,
// for every tangent t_k of every point b, row r = b columns + k.
// With one tangent of ones, c = 1 and W = M this is the bilinear form s'ᵀ M s; its sum over i is then left in `parts`
// partial sums, part q taking every parts-th vec4 of i from q on.
// One invocation computes one part of 4 consecutive rows.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  columns: u32,                  // tangents per point
  inner: u32,                    // vec4 per tangent
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
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;              // [4 inner, outer]: W transposed, 4 outputs a vec4
@group(0) @binding(2) var<storage, read> tangent: array<vec4f>;             // [points or 1, columns, inner]
@group(0) @binding(3) var<storage, read> scale: array<vec4f>;               // s [points or 1, inner]
@group(0) @binding(4) var<storage, read> contraction: array<vec4f>;         // c [points or 1, columns, outer]
@group(0) @binding(5) var<storage, read> contraction_scale: array<vec4f>;   // s' [points or 1, outer]
@group(0) @binding(6) var<storage, read> factor: array<f32>;                // e [points or 1, columns or 1]
@group(0) @binding(7) var<storage, read_write> terms: array<f32>;           // [points, terms_per_point]

fn tangent_at(row: u32) -> u32 {
  return p.tangent_offset + (row / p.columns) * p.tangent_per_point + (row % p.columns) * p.tangent_per_column;
}

fn contraction_at(row: u32) -> u32 {
  return p.contraction_offset + (row / p.columns) * p.contraction_per_point + (row % p.columns) * p.contraction_per_column;
}

fn store(row: u32, part: u32, sum: f32) {
  if (row >= p.rows) {
    return;
  }
  let point = row / p.columns;
  let column = p.first_column + row % p.columns;
  let e = factor[point * p.factor_per_point + column * p.factor_per_column];
  let index = point * p.terms_per_point + column * p.parts + part;
  terms[index] = select(e * sum, terms[index] + e * sum, p.adds == 1u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let groups = (p.rows + 3u) / 4u;
  if (i >= groups * p.parts) {
    return;
  }
  let part = i / groups;
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
  let c0 = contraction_at(row);
  let c1 = contraction_at(r1);
  let c2 = contraction_at(r2);
  let c3 = contraction_at(r3);
  let u0 = (row / p.columns) * p.contraction_scale_per_point;
  let u1 = (r1 / p.columns) * p.contraction_scale_per_point;
  let u2 = (r2 / p.columns) * p.contraction_scale_per_point;
  let u3 = (r3 / p.columns) * p.contraction_scale_per_point;
  var sums = vec4f();
  for (var output = part; output < p.outer; output += p.parts) {
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
    sums += vec4f(
      dot(contraction[c0 + output] * contraction_scale[u0 + output], y0),
      dot(contraction[c1 + output] * contraction_scale[u1 + output], y1),
      dot(contraction[c2 + output] * contraction_scale[u2 + output], y2),
      dot(contraction[c3 + output] * contraction_scale[u3 + output], y3),
    );
  }
  store(row, part, sums.x);
  store(row + 1u, part, sums.y);
  store(row + 2u, part, sums.z);
  store(row + 3u, part, sums.w);
}
