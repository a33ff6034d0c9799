import type { FusedForm } from "../plan/fused.js";
import { Looped } from "./fused/looped.js";
import { Rolled } from "./fused/rolled.js";
import { Unrolled } from "./fused/unrolled.js";
import type { FusedText, Writer } from "./fused/writer.js";

/** A plan in one kernel. */
export function fusedText(form: FusedForm): FusedText {
  const writer = writerOf(form);
  for (const operation of form.program.operations) writer.write(operation);
  return writer.finish();
}

/** Unrolled where weights are literals, in loops where they are in a buffer, half and half where lanes hand them around. */
function writerOf({ program, variant: { weights, points, lanes, inStep = false, half = false } }: FusedForm): Writer {
  if (weights === "literal") return new Unrolled(program, points, { inStep });
  return lanes > 0 ? new Rolled(program, points, lanes) : new Looped(program, points, weights, half);
}
