import { LimitError } from "../errors.js";
import type { Matrices } from "../gpu/buffers.js";
import { parameterLayout, numbersOf, rowStrideOf, tensorsOf } from "../model/parameters.js";
import type { LinearOperation, Network } from "../model/network.js";
import { isTrained } from "../plan/matrices.js";
import { scheduleFrom, uploaded, type Lying } from "../schedule/products.js";
import type { Chunk } from "../schedule/steps.js";

/**
 * The steps that give every matrix on the device the numbers of the weights in one flat buffer, "parameters", as `parameterLayout` has
 * them: those that are weights as they stand, and those that are computed of them.
 * @throws LimitError where one lies in a way that only the host writes.
 */
export function scheduleWeights(network: Network, matrices: Matrices): Chunk {
  const { computable, others } = matrices.trained();
  const wanted = [...computable, ...others];
  const strange = wanted.find(({ matrix, layout }) => matrix.blocks !== null || layout === "half product");
  if (strange)
    throw new LimitError(`the matrix ${strange.matrix.name} has blocks or is float16; such networks are not trained on the device`);
  const { tensors, size } = parameterLayout(network);
  const binding = { kind: "outer", name: "parameters", offset: 0, size: 4 * size } as const;
  const views = new Map<string, Lying>();
  for (const [index, { places }] of tensorsOf(network).entries())
    for (const place of places) {
      const linear = network.operations[place.operation] as LinearOperation;
      const stride = rowStrideOf(place, numbersOf(linear, place.part).columns);
      const first = tensors[index]!.offset + place.offset;
      // A list is a row where it is planned.
      const isList = place.part === "bias" || "diagonal" in linear.terms[place.part]!.weight;
      const strides = isList ? { rowStride: 0, columnStride: stride } : { rowStride: stride, columnStride: place.columnStride };
      views.set(`${place.operation} ${place.part}`, { binding, first, ...strides });
    }
  return scheduleFrom(wanted, { multiplyAddsPerSubmit: Infinity }, (matrix) => {
    if (matrix.place) return views.get(`${matrix.place.operation} ${matrix.place.part}`)!;
    return isTrained(matrix) ? null : uploaded(matrix, matrices.has.bind(matrices));
  });
}
