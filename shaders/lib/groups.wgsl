// y = W x for every row, as lib/product.wgsl, in workgroups that read through their memory.
// A workgroup of 16 x 16 invocations computes a block of 64 rows and 64 outputs, each invocation 4 rows by 4 outputs. In steps of 4 vec4
// of the inner dimension it loads what the block needs of the rows, scaled, and of W's transpose, each number once; then every invocation
// multiplies its tile out of workgroup memory. WGSL wants barriers where all invocations meet them: what a workgroup does follows from
// its number alone, and no invocation leaves early. So rows and outputs past the last repeat it, and what comes of them is dropped. Past
// the end of the inner dimension rows are 0, since the numbers there are another row's and may be infinite; weights are what the buffer
// gives, since all of it is finite.
// Neighbouring invocations load neighbouring vec4. The rows of an invocation are 16 apart and its neighbours' outputs beside one another,
// so that neighbours also read neighbours, from different banks; for the same when they store their loads, numbers of one k end two vec4
// before those of the next begin.
// The sums are written as fused multiply-adds: of a matrix times a vector, added to a sum, a compiler makes some more instructions, which
// took 7 % longer on an H200.
// Needs: what lib/product.wgsl does, but for block_rows and block_columns; WORKGROUP_SIZE 256.

const SIDE = 16u;           // invocations below one another, over rows, and beside one another, over outputs
const ROWS = 4u * SIDE;     // of a block
const STEP = 4u;            // vec4 of the inner dimension
const ROWS_APART = ROWS + 2u;

var<workgroup> block_rows: array<vec4f, STEP * ROWS_APART>;
var<workgroup> block_weights: array<vec4f, 4u * STEP * SIDE>;

/// A workgroup's number.
fn group_index(workgroup: vec3u, workgroups: vec3u) -> u32 {
  return workgroup.y * workgroups.x + workgroup.x;
}

/// How many blocks of outputs a row has.
fn blocks_across() -> u32 {
  return (p.outer + SIDE - 1u) / SIDE;
}

/// Row r of 4 of an invocation.
fn row_of(first_row: u32, local: u32, r: u32) -> u32 {
  return first_row + local / SIDE + r * SIDE;
}

/// The vec4 of outputs of an invocation.
fn output_of(block: u32, local: u32) -> u32 {
  return block * SIDE + local % SIDE;
}

fn product(first_row: u32, block: u32, local: u32) -> array<vec4f, 4> {
  let output = min(output_of(block, local), p.outer - 1u);
  // Variables of their own, since some compilers leave arrays in memory.
  var y0 = start(min(row_of(first_row, local, 0u), p.rows - 1u), output);
  var y1 = start(min(row_of(first_row, local, 1u), p.rows - 1u), output);
  var y2 = start(min(row_of(first_row, local, 2u), p.rows - 1u), output);
  var y3 = start(min(row_of(first_row, local, 3u), p.rows - 1u), output);
  // What the invocation loads of a step.
  let row_at = address(min(first_row + local / STEP, p.rows - 1u));
  let row_slot = local % STEP * ROWS_APART + local / STEP;
  let weight_at = local / SIDE * p.outer + output;
  for (var first = 0u; first < p.inner; first += STEP) {
    workgroupBarrier();
    let k = first + local % STEP;
    block_rows[row_slot] = select(vec4f(), element(row_at, k), k < p.inner);
    block_weights[local] = vec4f(weight[first * 4u * p.outer + weight_at]);
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let x = i * ROWS_APART + local / SIDE;
      let w = i * 4u * SIDE + local % SIDE;
      let x0 = block_rows[x];
      let x1 = block_rows[x + SIDE];
      let x2 = block_rows[x + 2u * SIDE];
      let x3 = block_rows[x + 3u * SIDE];
      let column0 = block_weights[w];
      let column1 = block_weights[w + SIDE];
      let column2 = block_weights[w + 2u * SIDE];
      let column3 = block_weights[w + 3u * SIDE];
      y0 = fma(column3, vec4f(x0.w), fma(column2, vec4f(x0.z), fma(column1, vec4f(x0.y), fma(column0, vec4f(x0.x), y0))));
      y1 = fma(column3, vec4f(x1.w), fma(column2, vec4f(x1.z), fma(column1, vec4f(x1.y), fma(column0, vec4f(x1.x), y1))));
      y2 = fma(column3, vec4f(x2.w), fma(column2, vec4f(x2.z), fma(column1, vec4f(x2.y), fma(column0, vec4f(x2.x), y2))));
      y3 = fma(column3, vec4f(x3.w), fma(column2, vec4f(x3.z), fma(column1, vec4f(x3.y), fma(column0, vec4f(x3.x), y3))));
    }
  }
  return array(y0, y1, y2, y3);
}
