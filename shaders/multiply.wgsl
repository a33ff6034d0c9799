// result[n, r, c] (+)= Σ_j a[n, r, c, j] b[n, r, c, j]: a sum of products of the entries of two matrices, each of which lies anywhere:
// an index moves through them by strides, 0 where they do not depend on it. Products of matrices, their sums, transposes and diagonals
// are all of this form; see Product in src/plan/matrices.ts.
// One invocation computes 4 r by 4 c of one n.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  size_n: u32,
  size_r: u32,
  size_c: u32,
  size_j: u32,
  out_first: u32,   // all in floats
  out_n: u32,
  out_r: u32,
  out_c: u32,
  a_first: u32,
  a_n: u32,
  a_r: u32,
  a_c: u32,
  a_j: u32,
  b_first: u32,
  b_n: u32,
  b_r: u32,
  b_c: u32,
  b_j: u32,
  adds: u32,        // to what is there
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

/// How many products are summed up before they are added to the sum of all: rounding grows with it and with their number, not with j.
const BLOCK = 64u;

fn store(n: u32, r: u32, c: u32, sum: f32) {
  if (r < p.size_r && c < p.size_c) {
    let at = p.out_first + n * p.out_n + r * p.out_r + c * p.out_c;
    out[at] = select(sum, out[at] + sum, p.adds == 1u);
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  let down = (p.size_r + 3u) / 4u;
  let across = (p.size_c + 3u) / 4u;
  if (i >= p.size_n * down * across) {
    return;
  }
  let n = i / (down * across);
  let top = i / across % down * 4u;
  let left = i % across * 4u;
  let at_a = p.a_first + n * p.a_n;
  let at_b = p.b_first + n * p.b_n;
  // What is past the last row or column is computed of that one again, and dropped.
  let rows = min(vec4u(top) + vec4u(0u, 1u, 2u, 3u), vec4u(p.size_r - 1u));
  let columns = min(vec4u(left) + vec4u(0u, 1u, 2u, 3u), vec4u(p.size_c - 1u));
  if (p.a_c != 0u || p.b_r != 0u) {
    for (var r = 0u; r < 4u; r++) {
      for (var c = 0u; c < 4u; c++) {
        let from_a = at_a + rows[r] * p.a_r + columns[c] * p.a_c;
        let from_b = at_b + rows[r] * p.b_r + columns[c] * p.b_c;
        var sum = 0.0;
        for (var first = 0u; first < p.size_j; first += BLOCK) {
          var block = 0.0;
          for (var j = first; j < min(first + BLOCK, p.size_j); j++) {
            block += a[from_a + j * p.a_j] * b[from_b + j * p.b_j];
          }
          sum += block;
        }
        store(n, top + r, left + c, sum);
      }
    }
    return;
  }
  // Every number that is read serves 4 sums.
  let from_a = vec4u(at_a) + rows * p.a_r;
  let from_b = vec4u(at_b) + columns * p.b_c;
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  for (var first = 0u; first < p.size_j; first += BLOCK) {
    var block0 = vec4f();
    var block1 = vec4f();
    var block2 = vec4f();
    var block3 = vec4f();
    for (var j = first; j < min(first + BLOCK, p.size_j); j++) {
      let i = from_b + j * p.b_j;
      let row = vec4f(b[i.x], b[i.y], b[i.z], b[i.w]);
      let k = from_a + j * p.a_j;
      block0 += a[k.x] * row;
      block1 += a[k.y] * row;
      block2 += a[k.z] * row;
      block3 += a[k.w] * row;
    }
    sum0 += block0;
    sum1 += block1;
    sum2 += block2;
    sum3 += block3;
  }
  for (var c = 0u; c < 4u; c++) {
    store(n, top, left + c, sum0[c]);
    store(n, top + 1u, left + c, sum1[c]);
    store(n, top + 2u, left + c, sum2[c]);
    store(n, top + 3u, left + c, sum3[c]);
  }
}
