import { evaluateReference, parseSafetensors, VectorField } from "deldot";

/** ∇·f of a model's file: on the device, and in float64. */
export async function evaluate(device, file, points) {
  const network = parseSafetensors(file);
  const field = await VectorField.create(device, network);
  const divergence = await field.divergence(points);
  field.destroy();
  return { divergence: [...divergence], reference: [...evaluateReference(network, points).divergence] };
}
