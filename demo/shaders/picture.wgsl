// The picture of a grid of numbers, under the view they were computed for or another: each pixel interpolates between the four cells
// around it, takes its colour from a table, and draws a contour where the number crosses the scale's middle within a pixel or so.
// numbers [rows * columns, stride]; others [rows * columns, d or 1]; table [256] colours.

struct Picture {
  columns: f32,
  rows: f32,
  stride: u32,
  // -1: the length of all numbers of a cell.
  component: i32,
  // The numbers at the ends of the table.
  low: f32,
  high: f32,
  contour: u32,
  // 0: numbers; 1: numbers - others; 2: a density: exp(numbers - |others|² / 2 - d / 2 log 2π).
  combined: u32,
  d: u32,
  // 1: what is below the middle fades; -1: what is above; 0: nothing does.
  emphasis: f32,
  // The pixels of the canvas, and the line's width in them.
  width: f32,
  height: f32,
  line: f32,
  // The place in the grid, from 0 to 1, of a place on the canvas: start + place * size.
  start_x: f32,
  start_y: f32,
  size_x: f32,
  size_y: f32,
  paper_red: f32,
  paper_green: f32,
  paper_blue: f32,
  // Where the contour is, and what is below or above fades.
  middle: f32,
}

const LOG_2_PI = 1.8378770664093453;
const FADED = 0.22;

@group(0) @binding(0) var<uniform> picture: Picture;
@group(0) @binding(1) var<storage, read> numbers: array<f32>;
@group(0) @binding(2) var<storage, read> others: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<vec4f>;

@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4f {
  // One triangle over all of the canvas.
  return vec4f(f32(index & 1u) * 4.0 - 1.0, f32(index >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

fn number_at(column: i32, row: i32) -> f32 {
  let c = u32(clamp(column, 0, i32(picture.columns) - 1));
  let r = u32(clamp(row, 0, i32(picture.rows) - 1));
  let cell = r * u32(picture.columns) + c;
  if (picture.combined == 1u) { return numbers[cell] - others[cell]; }
  if (picture.combined == 2u) {
    var squares = 0.0;
    for (var k = 0u; k < picture.d; k++) {
      let z = others[cell * picture.d + k];
      squares += z * z;
    }
    return exp(numbers[cell] - 0.5 * (squares + f32(picture.d) * LOG_2_PI));
  }
  if (picture.component >= 0) { return numbers[cell * picture.stride + u32(picture.component)]; }
  var sum = 0.0;
  for (var k = 0u; k < picture.stride; k++) {
    let x = numbers[cell * picture.stride + k];
    sum += x * x;
  }
  return sqrt(sum);
}

// The number at a place of the grid, and its slopes along both axes per cell.
fn value_at(at: vec2f) -> vec3f {
  let cell = at * vec2f(picture.columns, picture.rows) - 0.5;
  let low = floor(cell);
  let part = cell - low;
  let column = i32(low.x);
  let row = i32(low.y);
  let a = number_at(column, row);
  let b = number_at(column + 1, row);
  let c = number_at(column, row + 1);
  let d = number_at(column + 1, row + 1);
  return vec3f(mix(mix(a, b, part.x), mix(c, d, part.x), part.y), mix(b - a, d - c, part.y), mix(c - a, d - b, part.x));
}

// Where cells are about as wide as pixels, slopes within one jump from cell to cell: the differences of the neighbours on both sides.
fn slope_around(at: vec2f) -> vec2f {
  let cell = vec2i(floor(at * vec2f(picture.columns, picture.rows)));
  return 0.5 * vec2f(
    number_at(cell.x + 1, cell.y) - number_at(cell.x - 1, cell.y),
    number_at(cell.x, cell.y + 1) - number_at(cell.x, cell.y - 1),
  );
}

@fragment
fn colour(@builtin(position) position: vec4f) -> @location(0) vec4f {
  let paper = vec3f(picture.paper_red, picture.paper_green, picture.paper_blue);
  let pixel = vec2f(picture.size_x / picture.width, picture.size_y / picture.height);
  let at = vec2f(picture.start_x, picture.start_y) + position.xy * pixel;
  if (any(at < vec2f(0.0)) || any(at > vec2f(1.0))) { return vec4f(paper, 1.0); }
  let found = value_at(at);
  let value = found.x;
  // An infinity or a NaN, by its bits: compilers may assume that there is none.
  if ((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u) { return vec4f(vec3f(128.0 / 255.0), 1.0); }
  let place = clamp((value - picture.low) / (picture.high - picture.low), 0.0, 1.0) * 255.0;
  let low = u32(place);
  var shade = mix(table[low], table[min(low + 1u, 255u)], place - f32(low)).rgb;
  if ((value - picture.middle) * picture.emphasis < 0.0) { shade = mix(paper, shade, FADED); }
  if (picture.contour == 1u) {
    // |value| over its change per pixel: the distance to the contour.
    let cells_per_pixel = vec2f(picture.columns, picture.rows) * pixel;
    var slope = found.yz * cells_per_pixel;
    if (cells_per_pixel.x > 0.4) { slope = slope_around(at) * cells_per_pixel; }
    let steepness = length(slope);
    if (steepness > 0.0) {
      let distance = abs(value - picture.middle) / steepness;
      let cover = 1.0 - smoothstep(0.5 * picture.line - 0.5, 0.5 * picture.line + 0.5, distance);
      shade = mix(shade, select(vec3f(0.1), vec3f(0.92), dot(paper, vec3f(1.0)) < 1.5), 0.8 * cover);
    }
  }
  return vec4f(shade, 1.0);
}
