// out[p] = l - (|x|² + d log 2π) / 2: the log-density of points that a flow has carried back to x of the standard normal distribution,
// l = ∫ ∇·f dt along the way.
// One invocation computes one point.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  width: u32,         // d
  home_stride: u32,
  out_offset: u32,    // in floats, as the next
  out_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> home: array<f32>;          // [rows, home_stride], see ode_stage.wgsl
@group(0) @binding(2) var<storage, read_write> out: array<f32>;     // [rows] at out_stride

const LOG_TWO_PI = 1.8378770664;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let at = row * p.home_stride;
  var squares = 0.0;
  for (var k = 0u; k < p.width; k++) {
    squares += home[at + k] * home[at + k];
  }
  out[p.out_offset + row * p.out_stride] = home[at + p.width] - 0.5 * (squares + f32(p.width) * LOG_TWO_PI);
}
