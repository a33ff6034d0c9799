import type { Chunk, Growth, OuterRows, Step } from "./steps.js";
import { outerAddress } from "./recorder.js";

/**
 * Points by which dispatches grow: every tile of rows divides as many, so that what their invocations come to is a line. As in
 * shaders/count.wgsl.
 */
export const BLOCK = 256;

/**
 * A chunk of as many points as the device finds in a buffer, and of `chunk.count` at most: each submission begins with a step that
 * puts their number into what depends on it.
 * @param build the same chunk for another count.
 */
export function countedChunk(chunk: Chunk, build: (count: number) => Chunk, count: OuterRows, alignment: number): Chunk {
  const [one, two] = [build(BLOCK), build(2 * BLOCK)];
  const { binding, offset } = outerAddress("count", count, 1, 0, 1, alignment);
  return {
    ...chunk,
    submissions: chunk.submissions.map(({ steps, reads }, submission) => {
      const grown = steps.map((step, index): Step => {
        const growth = growthOf(one.submissions[submission]!.steps[index]!, two.submissions[submission]!.steps[index]!);
        return { ...step, growth };
      });
      const entries = grown.reduce((sum, { growth }) => sum + growth!.parameters.length + 1, 0);
      const counting: Step = {
        label: "count the points",
        kernel: "count",
        activation: null,
        tile: null,
        scaling: "none",
        curved: false,
        growth: null,
        // The device's limit stands there once it is bound.
        parameters: { entries, offset, first: chunk.first, most: chunk.count },
        bindings: { count: binding },
        invocations: entries,
        multiplyAdds: 0,
      };
      return { steps: [counting, ...grown], reads };
    }),
  };
}

/** Lines through what a step is for one block of points and for two. */
function growthOf(one: Step, two: Step): Growth {
  const line = (a: number, b: number, points: number) => ({ fixed: 2 * a - b, slope: (b - a) / points });
  const parameters = Object.entries(one.parameters).flatMap(([name, value]) => {
    const other = two.parameters[name]!;
    return other === value ? [] : [{ name, ...line(value, other, BLOCK) }];
  });
  return { parameters, invocations: line(one.invocations, two.invocations, 1) };
}
