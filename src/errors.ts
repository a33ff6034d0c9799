/**
 * The base class of every error this package throws. Each message names the offending value and what was expected.
 * Catch this one to tell a problem the package describes from a bug.
 */
export class DeldotError extends Error {
  /** The name of the class, as it survives minifiers. */
  override name = "DeldotError";
}

/** An argument of a call is wrong: points, a context, tangents, an option, a buffer. Thrown before any GPU work. */
export class InputError extends DeldotError {
  override name = "InputError";
}

/** A model file or a description of a network cannot be read as a vector field. */
export class ModelError extends DeldotError {
  override name = "ModelError";
}

/** A method cannot deliver the outputs asked for, or does not exist. */
export class PlanError extends DeldotError {
  override name = "PlanError";
}

/** A network is too large for the device's limits or for the memory budget, whatever the schedule does. */
export class LimitError extends DeldotError {
  override name = "LimitError";
}

/** The GPU refused or failed: a WebGPU validation error, out of memory, or a shader that does not compile. */
export class GpuError extends DeldotError {
  override name = "GpuError";
}

/** The GPUDevice was lost or destroyed. Pending calls and later ones reject with it; make a new device and a new field. */
export class DeviceLostError extends DeldotError {
  override name = "DeviceLostError";
}

/** No adapter could be found (Node only); the message says what to install. */
export class AdapterError extends DeldotError {
  override name = "AdapterError";
}

/** Writes a value for an error message, shortened. */
export function quote(value: unknown): string {
  const text =
    typeof value === "string" ? JSON.stringify(value) : Array.isArray(value) ? `[${value.map(quote).join(", ")}]` : asText(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function asText(value: unknown): string {
  try {
    return String(value);
  } catch {
    return "an object without a text";
  }
}
