// out[b, g] = factor Σ_k terms[b, k] over k = g, g + groups, g + 2 groups, ...
// groups = 1 is the divergence, groups = width a copy, of terms or of Jacobians.
// One invocation computes one sum.
// Needs: lib/dispatch.wgsl.

struct Parameters {
  sums: u32,         // rows groups
  groups: u32,
  width: u32,        // terms per row
  out_offset: u32,   // in floats
  out_stride: u32,
  factor: u32,       // bits of a float
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> terms: array<f32>;       // [rows, width]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;   // [rows, groups] at out_stride

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  let i = invocation_index(id, workgroups);
  if (i >= p.sums) {
    return;
  }
  let point = i / p.groups;
  let group = i % p.groups;
  var sum = 0.0;
  for (var k = group; k < p.width; k += p.groups) {
    sum += terms[point * p.width + k];
  }
  out[p.out_offset + point * p.out_stride + group] = bitcast<f32>(p.factor) * sum;
}
