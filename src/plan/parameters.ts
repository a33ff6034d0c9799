import type { LinearOperation, Network } from "../model/network.js";
import { numbersOf, parameterLayout, rowStrideOf, tensorsOf } from "../model/parameters.js";
import { pullBack, sumOfProducts, type PlannedMatrix, type Product } from "./matrices.js";
import type { OuterSum } from "./program.js";

/**
 * The gradients of all tensors in one row, as `parameterLayout` has them, out of the sums over the points: through what the plan's
 * matrices are computed of, and each number summed up out of all its places in the network.
 *
 * @param sums by the matrix whose gradient it is
 */
export function parameterGradient(network: Network, sums: ReadonlyMap<PlannedMatrix, PlannedMatrix>): PlannedMatrix {
  const ofPlaces = new Map([...pullBack(sums)].map(([{ place }, gradient]) => [`${place!.operation} ${place!.part}`, gradient]));
  const { tensors, size } = parameterLayout(network);
  const products = tensorsOf(network).flatMap(({ places }, index) =>
    places.flatMap((place): Product[] => {
      const { operation, part, offset, columnStride } = place;
      const matrix = ofPlaces.get(`${operation} ${part}`);
      if (!matrix) return [];
      const { columns } = numbersOf(network.operations[operation] as LinearOperation, part);
      return [
        {
          sizes: { n: 1, r: matrix.rows, c: matrix.columns, j: 1 },
          into: { row: {}, column: { first: tensors[index]!.offset + offset, r: rowStrideOf(place, columns), c: columnStride } },
          operands: [{ matrix, row: { r: 1 }, column: { c: 1 } }],
        },
      ];
    }),
  );
  return sumOfProducts("gradient of the parameters", 1, size, products);
}

/** Stands for a sum over the points where its numbers are on the device alone. */
export function sumPlaceholders(sums: readonly OuterSum[]): Map<PlannedMatrix, PlannedMatrix> {
  return new Map(sums.map(({ matrix }) => [matrix, sumOfProducts(`gradient of ${matrix.name}`, matrix.rows, matrix.columns, [])]));
}
