// sums[i, j] (+)= Σ a[i] (s ∘ t)[j] over the tangents of all points: a gradient of weights, which is a product of what comes from
// above and what a layer was given. Every part takes some consecutive points, so that parts add up in an order that is always the same.
// Strides say where a, t and s are, as in carry.wgsl.
// Where the weights are block-diagonal, 4 i read the j of their own blocks alone, `inner` vec4s from first(i) on, and of each i the sums
// of its own block are stored.
// One invocation computes 4 i by 8 j of one part: what it reads of a point serves 32 sums.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  points: u32,
  columns: u32,             // tangents per point
  height: u32,              // how many i
  width: u32,               // vec4 of all j, and of those that 4 i read
  inner: u32,
  block_rows: u32,          // i and j of a diagonal block
  block_columns: u32,
  parts: u32,
  a_offset: u32,            // in vec4, as all strides down to scale_per_point
  a_per_point: u32,
  a_per_column: u32,
  tangent_offset: u32,
  tangent_per_point: u32,
  tangent_per_column: u32,
  scale_per_point: u32,
  is_scaled: u32,           // else s is 1
  first: u32,               // in sums: where [0, 0] is, and how many sums a row has
  sums_per_row: u32,
  adds: u32,                // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;            // [points or 1, columns, ⌈height / 4⌉]
@group(0) @binding(2) var<storage, read> tangent: array<vec4f>;      // [points or 1, columns, width]
@group(0) @binding(3) var<storage, read> scale: array<vec4f>;        // [points or 1, width]
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;     // [height, sums_per_row ≥ block_columns, parts]

/// Tangents, of one point or several.
const BLOCK = 64u;

fn store(part: u32, row: u32, left: u32, sum: vec4f) {
  for (var lane = 0u; lane < 4u; lane++) {
    // Beyond its block where it is before it too, since these are unsigned.
    let column = left * 4u + lane - row / p.block_rows * p.block_columns;
    if (row < p.height && column < p.block_columns) {
      let at = (p.first + row * p.sums_per_row + column) * p.parts + part;
      sums[at] = select(sum[lane], sums[at] + sum[lane], p.adds == 1u);
    }
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let down = (p.height + 3u) / 4u;
  let across = (p.inner + 1u) / 2u;
  if (i >= down * across * p.parts) {
    return;
  }
  let part = i / (down * across);
  let top = i / across % down;
  let start = min(top * 4u / p.block_rows * p.block_columns / 4u, p.width - p.inner);
  let left = start + i % across * 2u;
  // The last one may be alone: then it is computed twice, and dropped.
  let right = min(left + 1u, start + p.inner - 1u);
  let each = (p.points + p.parts - 1u) / p.parts;
  let end = min((part + 1u) * each, p.points);
  let begin = min(part * each, end);
  let count = (end - begin) * p.columns;
  // From a point's last tangent to the next point's first.
  let a_step = p.a_per_point - (p.columns - 1u) * p.a_per_column;
  let tangent_step = p.tangent_per_point - (p.columns - 1u) * p.tangent_per_column;
  // Column r of a matrix has what row r of the tile gets.
  var sum = mat4x4f();
  var beside = mat4x4f();
  var at_a = p.a_offset + begin * p.a_per_point + top;
  var at_tangent = p.tangent_offset + begin * p.tangent_per_point;
  var at_scale = begin * p.scale_per_point;
  var k = 0u;
  // Block by block, so that what rounding takes grows with a block's length and the number of blocks, not with their product. A loop over
  // points and one over tangents in it would take several times as long on software drivers.
  for (var first = 0u; first < count; first += BLOCK) {
    var block = mat4x4f();
    var other = mat4x4f();
    for (var n = first; n < min(first + BLOCK, count); n++) {
      let above = a[at_a];
      var given = tangent[at_tangent + left];
      var next = tangent[at_tangent + right];
      if (p.is_scaled == 1u) {
        given *= scale[at_scale + left];
        next *= scale[at_scale + right];
      }
      block += mat4x4f(above.x * given, above.y * given, above.z * given, above.w * given);
      other += mat4x4f(above.x * next, above.y * next, above.z * next, above.w * next);
      k++;
      let is_last = k == p.columns;
      at_a += select(p.a_per_column, a_step, is_last);
      at_tangent += select(p.tangent_per_column, tangent_step, is_last);
      at_scale += select(0u, p.scale_per_point, is_last);
      k = select(k, 0u, is_last);
    }
    sum += block;
    beside += other;
  }
  for (var r = 0u; r < 4u; r++) {
    store(part, top * 4u + r, left, sum[r]);
    if (right > left) {
      store(part, top * 4u + r, right, beside[r]);
    }
  }
}
