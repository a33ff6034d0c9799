// The picture of a grid of numbers: each pixel interpolates between the four cells around it, takes its colour from a table,
// and draws the zero contour where the number changes its sign within a pixel or so.
// numbers [rows * columns, stride]; table [256] colours.

struct Picture {
  columns: f32,
  rows: f32,
  stride: u32,
  // -1: the length of all numbers of a cell.
  component: i32,
  scale: f32,
  // 1: from -scale to scale; 0: from 0 to scale.
  diverging: u32,
  contour: u32,
  // 0 field, 1 truth, 2 their difference; truth = constant + square x_0².
  panel: u32,
  constant: f32,
  square: f32,
  // x_0 = x_left + across x_across + down x_down, both from 0 to 1 over the panel.
  x_left: f32,
  x_across: f32,
  x_down: f32,
  // Where the panel is on the canvas, in pixels.
  left: f32,
  top: f32,
  width: f32,
  height: f32,
  // Width of the contour in pixels.
  line: f32,
}

@group(0) @binding(0) var<uniform> picture: Picture;
@group(0) @binding(1) var<storage, read> numbers: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<vec4f>;

@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4f {
  // One triangle over all of the viewport.
  return vec4f(f32(index & 1u) * 4.0 - 1.0, f32(index >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

fn number_at(column: i32, row: i32) -> f32 {
  let c = u32(clamp(column, 0, i32(picture.columns) - 1));
  let r = u32(clamp(row, 0, i32(picture.rows) - 1));
  let cell = r * u32(picture.columns) + c;
  if (picture.component >= 0) { return numbers[cell * picture.stride + u32(picture.component)]; }
  var sum = 0.0;
  for (var k = 0u; k < picture.stride; k++) {
    let x = numbers[cell * picture.stride + k];
    sum += x * x;
  }
  return sqrt(sum);
}

fn value_at(at: vec2f) -> f32 {
  let truth = truth_at(at);
  if (picture.panel == 1u) { return truth; }
  let cell = at * vec2f(picture.columns, picture.rows) - 0.5;
  let low = floor(cell);
  let part = cell - low;
  let column = i32(low.x);
  let row = i32(low.y);
  let above = mix(number_at(column, row), number_at(column + 1, row), part.x);
  let below = mix(number_at(column, row + 1), number_at(column + 1, row + 1), part.x);
  return mix(above, below, part.y) - select(0.0, truth, picture.panel == 2u);
}

fn truth_at(at: vec2f) -> f32 {
  let x = picture.x_left + at.x * picture.x_across + at.y * picture.x_down;
  return picture.constant + picture.square * x * x;
}

@fragment
fn colour(@builtin(position) position: vec4f) -> @location(0) vec4f {
  let pixel = vec2f(1.0 / picture.width, 1.0 / picture.height);
  let at = (position.xy - vec2f(picture.left, picture.top)) * pixel;
  let value = value_at(at);
  // An infinity or a NaN, by its bits: compilers may assume that there is none.
  if ((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u) { return vec4f(vec3f(128.0 / 255.0), 1.0); }
  let t = select(value / picture.scale, 0.5 + 0.5 * value / picture.scale, picture.diverging == 1u);
  let place = clamp(t, 0.0, 1.0) * 255.0;
  let low = u32(place);
  var shade = mix(table[low], table[min(low + 1u, 255u)], place - f32(low)).rgb;
  if (picture.contour == 1u) {
    // |value| over its change per pixel: the distance to the contour.
    let slope = vec2f(
      value_at(at + vec2f(pixel.x, 0.0)) - value_at(at - vec2f(pixel.x, 0.0)),
      value_at(at + vec2f(0.0, pixel.y)) - value_at(at - vec2f(0.0, pixel.y)),
    ) * 0.5;
    let steepness = length(slope);
    if (steepness > 0.0) {
      let distance = abs(value) / steepness;
      let cover = 1.0 - smoothstep(0.5 * picture.line - 0.5, 0.5 * picture.line + 0.5, distance);
      shade = mix(shade, vec3f(0.1), cover);
    }
  }
  return vec4f(shade, 1.0);
}
