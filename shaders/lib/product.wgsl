// y = W x for every row: the loops of the plain kernels that multiply by a matrix.
// One invocation computes 4 outputs, a vec4, of 4 consecutive rows: each weight that it reads serves 4 rows, each number of a
// row 4 outputs. Neighbouring invocations share the outputs and so the weights. Rows past the last repeat it, and what comes
// of them is dropped.
// Where W is block-diagonal, 4 outputs read the inputs of their own blocks alone: `inner` vec4s from first(output) on.
// Needs: the parameters rows, inner, width (vec4 per row of x), block_rows, block_columns and outer (vec4 per row of y); the
// buffer weight [4 inner, outer]; address(row), where a row of x begins; element(address, k), its vec4 number k;
// start(row, output), what is added to.

fn first(output: u32) -> u32 {
  return min(output * 4u / p.block_rows * p.block_columns / 4u, p.width - p.inner);
}

fn rows_from(row: u32) -> vec4u {
  return min(vec4u(row) + vec4u(0u, 1u, 2u, 3u), vec4u(p.rows - 1u));
}

fn product(rows: vec4u, output: u32) -> array<vec4f, 4> {
  let at0 = address(rows.x);
  let at1 = address(rows.y);
  let at2 = address(rows.z);
  let at3 = address(rows.w);
  // Variables of their own, since some compilers leave arrays in memory.
  var y0 = start(rows.x, output);
  var y1 = start(rows.y, output);
  var y2 = start(rows.z, output);
  var y3 = start(rows.w, output);
  let begin = first(output);
  for (var k = 0u; k < p.inner; k++) {
    let w = k * 4u * p.outer + output;
    let columns = mat4x4f(
      vec4f(weight[w]),
      vec4f(weight[w + p.outer]),
      vec4f(weight[w + 2u * p.outer]),
      vec4f(weight[w + 3u * p.outer]),
    );
    y0 += columns * element(at0, begin + k);
    y1 += columns * element(at1, begin + k);
    y2 += columns * element(at2, begin + k);
    y3 += columns * element(at3, begin + k);
  }
  return array(y0, y1, y2, y3);
}
