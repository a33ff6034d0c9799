import type { LinearOperation, Network } from "../model/network.js";
import { numbersOf, parameterLayout, rowStrideOf, tensorsOf } from "../model/parameters.js";
import { pullBack, sumOfProducts, sums, type PlannedMatrix, type Product } from "./matrices.js";
import type { OuterSum } from "./program.js";

/**
 * The gradients of all tensors in one row, as `parameterLayout` has them, out of the sums over the points: through what the plan's
 * matrices are computed of, and each number summed up out of all its places in the network.
 *
 * @param given the sums, by the matrix whose gradient each is
 */
export function parameterGradient(network: Network, given: ReadonlyMap<PlannedMatrix, PlannedMatrix>): PlannedMatrix {
  const ofPlaces = new Map([...pullBack(given)].map(([{ place }, gradient]) => [`${place!.operation} ${place!.part}`, gradient]));
  const { tensors, size } = parameterLayout(network);
  const products = tensorsOf(network).flatMap(({ places }, index) =>
    places.flatMap((place): Product[] => {
      const { operation, part, offset, columnStride } = place;
      const gradient = ofPlaces.get(`${operation} ${part}`);
      if (!gradient) return [];
      const { columns } = numbersOf(network.operations[operation] as LinearOperation, part);
      const r = rowStrideOf(place, columns);
      // What is one number of the tensor for all rows, or all columns, is summed up first.
      const matrix = r === 0 && gradient.rows > 1 ? sums(gradient, "columns") : gradient;
      const across = columnStride === 0 ? "j" : "c";
      return [
        {
          sizes: { n: 1, r: matrix.rows, c: 1, j: 1, [across]: matrix.columns },
          into: { row: {}, column: { first: tensors[index]!.offset + offset, r, c: columnStride } },
          operands: [{ matrix, row: { r: 1 }, column: { [across]: 1 } }],
        },
      ];
    }),
  );
  return sumOfProducts("gradient of the parameters", 1, size, products);
}

/** Stands for a sum over the points where its numbers are on the device alone. */
export function sumPlaceholders(of: readonly OuterSum[]): Map<PlannedMatrix, PlannedMatrix> {
  return new Map(of.map(({ matrix }) => [matrix, sumOfProducts(`gradient of ${matrix.name}`, matrix.rows, matrix.columns, [])]));
}
