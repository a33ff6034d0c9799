import { isFlow } from "../../demo/src/layers/cloud.js";
import type { Engine } from "../../demo/src/engines/engine.js";
import { FieldFlow, ReferenceField, type Network } from "../../src/index.js";

/** What the stage asks of an engine, in float64. */
export function referenceEngine(network: Network): Engine {
  const field = new ReferenceField(network);
  const flow = new FieldFlow(field, { timeColumn: isFlow(network) ? 0 : null });
  return {
    evaluate: (points: Float32Array, options: Parameters<Engine["evaluate"]>[1]) => field.evaluate(points, options),
    transport: (points: Float32Array, options: Parameters<Engine["transport"]>[1]) => flow.transport(points, options),
  } as unknown as Engine;
}
