// What the Jacobian J[i, j] = ∂f_i/∂x_j of each point says of rotation and strain:
// 0: the curl, ∂f_j/∂x_i - ∂f_i/∂x_j for the two axes i, j that follow each axis; in two dimensions for the third axis alone.
// 1: the strain, (J + Jᵀ) / 2.
// 2: the Q criterion, (‖Ω‖² - ‖S‖²) / 2 of the two halves of J = S + Ω, S = Sᵀ, Ω = -Ωᵀ, which is -tr(J²) / 2.
// One invocation computes one number, row r = b numbers + n.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  rows: u32,
  numbers: u32,      // of a point
  state_size: u32,
  offset: u32,       // of the Jacobians, in floats
  per_point: u32,    // from one to the next, in floats
  what: u32,
  out_offset: u32,   // in floats
  out_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> jacobian: array<f32>;    // [points, d, d] at offset and per_point
@group(0) @binding(2) var<storage, read_write> out: array<f32>;   // [points, numbers] at out_stride

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let row = invocation_index(id, workgroups);
  if (row >= p.rows) {
    return;
  }
  let d = p.state_size;
  let point = row / p.numbers;
  let n = row % p.numbers;
  let first = p.offset + point * p.per_point;
  var result = 0.0;
  switch (p.what) {
    case 0u: {
      let axis = select(n, 2u, d == 2u);
      let i = (axis + 1u) % 3u;
      let j = (axis + 2u) % 3u;
      result = jacobian[first + j * d + i] - jacobian[first + i * d + j];
    }
    case 1u: {
      result = 0.5 * (jacobian[first + n] + jacobian[first + (n % d) * d + n / d]);
    }
    default: {
      for (var i = 0u; i < d; i++) {
        for (var j = 0u; j < i; j++) {
          result -= jacobian[first + i * d + j] * jacobian[first + j * d + i];
        }
        let stretch = jacobian[first + i * d + i];
        result -= 0.5 * stretch * stretch;
      }
    }
  }
  out[p.out_offset + point * p.out_stride + n] = result;
}
