// The rows of a product with tangents: tangent t_k of point b, row r = b columns + k, and the scale s that it may come with.
// Needs: the parameters columns, tangent_offset, tangent_per_point, tangent_per_column and scale_per_point, in vec4 but the
// first; the buffers tangent and scale; SCALED, whether the scale is multiplied with.

/// Where the tangent of a row begins, and its scale.
fn address(row: u32) -> vec2u {
  let point = row / p.columns;
  let tangent_at = p.tangent_offset + point * p.tangent_per_point + (row % p.columns) * p.tangent_per_column;
  return vec2u(tangent_at, point * p.scale_per_point);
}

fn load(at: vec2u, k: u32) -> vec4f {
  return tangent[at.x + k];
}

fn load_scale(at: vec2u, k: u32) -> vec4f {
  return scale[at.y + k];
}

fn element(at: vec2u, k: u32) -> vec4f {
  if (SCALED) {
    return load_scale(at, k) * load(at, k);
  }
  return load(at, k);
}

fn start(row: u32, output: u32) -> vec4f {
  return vec4f();
}
