// A step of an optimizer for every weight w, with g its gradient, clipped, and t the number of the step from 1 on:
//   sgd    m = β1 m + g + decay w;                                  w -= rate m
//   adam   m = β1 m + (1 - β1) g, v = β2 v + (1 - β2) g²;           w -= rate m / (1 - β1^t) / (sqrt(v / (1 - β2^t)) + ε)
//   adamw  the same, and                                            w -= rate decay w     (Loshchilov and Hutter, 2019)
// and the average of the weights, averaged = κ_t averaged + (1 - κ_t) w with κ_t = min(κ, (1 + t) / (10 + t)), so that the first weights,
// which know nothing, are soon forgotten. Once a loss was not finite nothing changes.
// One invocation changes one weight.
// Needs: lib/dispatch.wgsl, lib/special.wgsl.

const SGD = 0u;
const ADAM = 1u;

struct Parameters {
  size: u32,
  optimizer: u32,
  first_decay: u32,       // bits of β1, as all that follow
  second_decay: u32,      // β2
  epsilon: u32,
  decay: u32,             // of the weights
  averaging: u32,         // κ
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> progress: array<u32>;          // [step, step of the first loss that was not finite]
@group(0) @binding(2) var<storage, read> rates: array<f32>;             // [β1^t, β2^t, rate, factor of the gradient]
@group(0) @binding(3) var<storage, read> gradient: array<f32>;          // [size]
@group(0) @binding(4) var<storage, read_write> moments: array<vec2f>;   // [size]: m and v
@group(0) @binding(5) var<storage, read_write> averaged: array<f32>;    // [size]
@group(0) @binding(6) var<storage, read_write> weights: array<f32>;     // [size]

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.size || progress[1] != 0xffffffffu) {
    return;
  }
  let g = rates[3] * gradient[i];
  let first = bitcast<f32>(p.first_decay);
  let second = bitcast<f32>(p.second_decay);
  var moment = moments[i];
  var change = 0.0;
  if (p.optimizer == SGD) {
    moment.x = first * moment.x + g + bitcast<f32>(p.decay) * weights[i];
    change = moment.x;
  } else {
    moment.x = first * moment.x + (1.0 - first) * g;
    moment.y = second * moment.y + (1.0 - second) * g * g;
    change = moment.x / (1.0 - rates[0]) / (sqrt(moment.y / (1.0 - rates[1])) + bitcast<f32>(p.epsilon))
      + bitcast<f32>(p.decay) * weights[i];
  }
  // One that would overflow stays.
  let moved = weights[i] - rates[2] * change;
  let w = select(weights[i], moved, is_finite(moved));
  moments[i] = moment;
  weights[i] = w;
  let t = f32(progress[0]);
  let kept = min(bitcast<f32>(p.averaging), (1.0 + t) / (10.0 + t));
  averaged[i] = kept * averaged[i] + (1.0 - kept) * w;
}
