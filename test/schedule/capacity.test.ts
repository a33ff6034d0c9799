import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { explainPlan, LimitError, methods, outputs, type Network, type Output, type PlanOptions } from "../../src/index.js";
import { capacityOf, scheduleChunk } from "../../src/schedule/capacity.js";
import {
  STAGING_BUFFERS,
  type Chunk,
  type OuterName,
  type OuterRows,
  type Route,
  type ScheduleLimits,
  type Step,
  type Submission,
} from "../../src/schedule/steps.js";
import { PLAIN } from "../../src/kernels/layers.js";
import { makeJvpPlan, makePlan } from "../../src/plan/choose.js";
import type { PlanParameters } from "../../src/plan/options.js";
import type { Plan } from "../../src/plan/plan.js";
import { randomMlp } from "../fields.js";

/** What WebGPU guarantees on every device, with the default budget of a field. */
const guaranteed: ScheduleLimits = {
  maxStorageBufferBindingSize: 128 * 2 ** 20,
  maxBufferSize: 256 * 2 ** 20,
  minStorageBufferOffsetAlignment: 256,
  memoryBudget: 256 * 2 ** 20,
  multiplyAddsPerSubmit: 2 ** 24,
};
const parameters: PlanParameters = { seed: 0, step: 2 ** -7, orthogonal: false };
const toHost: Route = { to: "host", sharedContext: true };
const workOf = ({ steps }: Submission): number => steps.reduce((sum, { multiplyAdds }) => sum + multiplyAdds, 0);

function hiddenLayers(d: number, h: number, count: number): Network {
  return randomMlp({ seed: 1, widths: [d, ...Array<number>(count).fill(h), d], activation: "tanh" }).network;
}

/** Scratch, and the staging buffers of what the host reads. */
function bytesOf({ scratch, submissions, count }: Chunk): number {
  const reads = submissions.map((submission) => submission.reads.reduce((sum, { width }) => sum + 4 * width * count, 0));
  return [...scratch.values()].reduce((sum, bytes) => sum + bytes, 0) + STAGING_BUFFERS * Math.max(0, ...reads);
}

/** The chunks of `count` points, as a run makes them. */
function chunksOf(plan: Plan, count: number, limits: ScheduleLimits, route: Route): Chunk[] {
  const capacity = capacityOf(plan, limits, route, PLAIN);
  const chunks: Chunk[] = [];
  for (let first = 0; first < count; first += capacity.points)
    chunks.push(scheduleChunk(plan, parameters, first, Math.min(capacity.points, count - first), capacity, limits, route, PLAIN));
  return chunks;
}

/** The first chunk of more points than fit. */
function largestChunk(plan: Plan, limits: ScheduleLimits, route: Route): Chunk {
  const capacity = capacityOf(plan, limits, route, PLAIN);
  return scheduleChunk(plan, parameters, 0, capacity.points, capacity, limits, route, PLAIN);
}

const size = fc.integer({ min: 1, max: 40 });
const network = fc
  .record({ d: size, hidden: fc.array(size, { maxLength: 4 }), contextSize: fc.integer({ min: 0, max: 2 }), output: fc.boolean() })
  .map(({ d, hidden, contextSize, output }) => {
    const activation = Array<string>(hidden.length + (output ? 1 : 0)).fill("tanh");
    return randomMlp({ seed: 1, widths: [d, ...hidden, d], activation, contextSize }).network;
  });
const options: fc.Arbitrary<PlanOptions> = fc.record({
  method: fc.constantFrom(...methods),
  chunkSize: fc.option(size, { nil: undefined }),
  probes: size,
  probesPer: fc.constantFrom("point", "batch"),
});
/** A method with any of the outputs that it gives. */
const asked = fc.tuple(options, fc.subarray([...outputs], { minLength: 1 })).map(([chosen, wanted]): PlanOptions => {
  const ofJacobian: Output[] = ["jacobian", "strain", "qCriterion"];
  const without: Record<string, Output[]> = { cyclic: ["diagonal", ...ofJacobian], hutchinson: ["diagonal", ...ofJacobian], jacobian: [] };
  // Of most sizes there is no curl.
  const given = wanted.filter((output) => output !== "curl" && !(without[chosen.method!] ?? ofJacobian).includes(output));
  return { ...chosen, outputs: given.length > 0 ? given : ["divergence"] };
});
const limits: fc.Arbitrary<ScheduleLimits> = fc
  .record({
    budget: fc.integer({ min: 10, max: 24 }),
    binding: fc.integer({ min: 7, max: 22 }),
    work: fc.integer({ min: 8, max: 40 }),
    odd: fc.nat({ max: 1000 }),
  })
  .map(({ budget, binding, work, odd }) => ({
    maxStorageBufferBindingSize: 16 * Math.floor((2 ** binding + odd) / 16),
    maxBufferSize: 2 ** 28,
    minStorageBufferOffsetAlignment: 256,
    memoryBudget: 2 ** budget + odd,
    multiplyAddsPerSubmit: 2 ** work,
  }));
const runs = { seed: 1, numRuns: 500 };

describe("random plans under random limits", () => {
  test("keep every buffer within a binding and all of them within the budget, or are refused", () => {
    let [refused, filled] = [0, 0];
    const property = fc.property(network, asked, limits, fc.boolean(), (net, choice, given, sharedContext) => {
      const plan = makePlan(net, choice);
      const route: Route = { to: "host", sharedContext };
      let chunk: Chunk;
      try {
        chunk = largestChunk(plan, given, route);
      } catch (error) {
        expect(error).toBeInstanceOf(LimitError);
        refused++;
        return;
      }
      const largest = Math.min(given.maxStorageBufferBindingSize, given.maxBufferSize);
      for (const [name, bytes] of chunk.scratch) expect(bytes, name).toBeLessThanOrEqual(largest);
      expect(bytesOf(chunk)).toBeLessThanOrEqual(given.memoryBudget);
      if (bytesOf(chunk) > 0.8 * given.memoryBudget) filled++;
    });
    fc.assert(property, runs);
    // Neither branch of the property is empty, and a budget is made use of.
    expect(refused).toBeGreaterThan(10);
    expect(refused).toBeLessThan(250);
    expect(filled).toBeGreaterThan(30);
  });

  test("bound the work of each submission, unless one tangent of one point is more", () => {
    let several = 0;
    const property = fc.property(network, asked, limits, (net, choice, given) => {
      const roomy = { ...guaranteed, multiplyAddsPerSubmit: given.multiplyAddsPerSubmit };
      const plan = makePlan(net, choice);
      const capacity = capacityOf(plan, roomy, toHost, PLAIN);
      const { submissions } = scheduleChunk(plan, parameters, 0, capacity.points, capacity, roomy, toHost, PLAIN);
      const heaviest = Math.max(...submissions.map(workOf));
      if (submissions.length > 1) several++;
      if (heaviest > roomy.multiplyAddsPerSubmit) expect(capacity).toEqual({ points: 1, tangentsAtOnce: 1 });
    });
    fc.assert(property, runs);
    expect(several).toBeGreaterThan(30);
  });

  test("read and write only buffers that are large enough, with parameters that are 32-bit integers", () => {
    const property = fc.property(network, asked, fc.integer({ min: 1, max: 9 }), (net, choice, count) => {
      const plan = makePlan(net, choice);
      const [chunk] = chunksOf(plan, count, guaranteed, toHost) as [Chunk];
      for (const { steps, reads } of chunk.submissions) {
        for (const { label, parameters: words, bindings, invocations } of steps) {
          for (const [name, word] of Object.entries(words))
            expect(Number.isInteger(word) && word >= 0 && word < 2 ** 32, `${name} of ${label} is ${word}`).toBe(true);
          for (const binding of Object.values(bindings))
            if (binding.kind === "scratch") expect([...chunk.scratch.keys()]).toContain(binding.name);
          expect(invocations).toBeGreaterThan(0);
        }
        for (const read of reads) expect(4 * read.width * chunk.count).toBeLessThanOrEqual(chunk.scratch.get(read.scratch)!);
      }
    });
    fc.assert(property, runs);
  });

  test("read the columns of the Jacobian once each, in strips as wide as the limits allow", () => {
    const property = fc.property(network, limits, fc.option(size, { nil: undefined }), (net, given, chunkSize) => {
      const plan = makePlan(net, { outputs: ["jacobian"], chunkSize });
      const roomy = { ...given, memoryBudget: 2 ** 24, maxStorageBufferBindingSize: 2 ** 22 };
      for (const chunk of chunksOf(plan, 3, roomy, toHost)) {
        const strips = chunk.submissions.flatMap(({ reads }) => reads).filter(({ what }) => what === "jacobian");
        expect(strips.flatMap(({ first, columns }) => Array.from({ length: columns }, (_, k) => first + k))).toEqual(
          Array.from({ length: net.stateSize }, (_, k) => k),
        );
        for (const { width, columns } of strips) expect(width).toBe(net.stateSize * columns);
      }
    });
    fc.assert(property, runs);
  });

  test("in the caller's buffers keep within the budget wherever they begin", () => {
    const given: ScheduleLimits = {
      maxStorageBufferBindingSize: 2 ** 28,
      maxBufferSize: 2 ** 28,
      minStorageBufferOffsetAlignment: 256,
      memoryBudget: 200_000,
      multiplyAddsPerSubmit: Infinity,
    };
    const { network: net } = randomMlp({ seed: 1, widths: [16, 4, 16], activation: "tanh" });
    for (const outputs of [["value"], ["value", "divergence"]] as const) {
      const plan = makePlan(net, { outputs });
      const outer = { points: { offset: 0, stride: 16 }, value: { offset: 0, stride: 16 }, divergence: { offset: 0, stride: 1 } };
      const route: Route = { to: "device", outer, sharesBuffers: false, marksNonFinite: true };
      const capacity = capacityOf(plan, given, route, PLAIN);
      for (const first of [0, capacity.points, 1]) {
        const chunk = scheduleChunk(plan, { seed: 0, step: 0.1, orthogonal: false }, first, capacity.points, capacity, given, route, PLAIN);
        expect(bytesOf(chunk), `from ${first}`).toBeLessThanOrEqual(given.memoryBudget);
      }
    }
  });

  test("leave the results of all points in the caller's buffers, each row once", () => {
    const offsets = fc.nat({ max: 100 }).map((words) => 4 * words);
    const property = fc.property(network, asked, limits, offsets, size, (net, choice, given, offset, count) => {
      const wanted = (["value", "divergence", "diagonal"] as const).filter((output) => choice.outputs!.includes(output));
      if (wanted.length === 0) return;
      const plan = makePlan(net, { ...choice, outputs: wanted });
      const width = (name: OuterName): number => (name === "divergence" ? 1 : name === "context" ? net.contextSize : net.stateSize);
      const outer = Object.fromEntries(
        (["points", "context", ...wanted] as const).map((name): [OuterName, OuterRows] => [name, { offset, stride: width(name) + 2 }]),
      );
      // Small enough for many chunks, large enough for one point.
      const tight = { ...given, memoryBudget: 2 ** 17, maxStorageBufferBindingSize: 2 ** 16 };
      const chunks = chunksOf(plan, count, tight, { to: "device", outer, sharesBuffers: false, marksNonFinite: true });
      for (const name of wanted) {
        const rows = chunks.flatMap((chunk) => rowsInto(name, chunk, width(name)));
        expect(
          rows.toSorted((a, b) => a - b),
          name,
        ).toEqual(Array.from({ length: count }, (_, row) => offset + 4 * row * (width(name) + 2)));
      }
    });
    fc.assert(property, runs);
  });
});

/** The byte addresses of the rows that a chunk's steps write into a buffer of the caller. */
function rowsInto(name: OuterName, { submissions, count }: Chunk, width: number): number[] {
  const writers = submissions
    .flatMap(({ steps }) => steps)
    .filter(({ bindings }) => bindings["out"]?.kind === "outer" && bindings["out"].name === name);
  return writers.flatMap(({ bindings, parameters: words }: Step) => {
    const out = bindings["out"]!;
    if (out.kind !== "outer") return [];
    expect(out.offset % 256).toBe(0);
    const rows = Array.from({ length: count }, (_, row) => out.offset + 4 * (words["outOffset"]! + row * words["outStride"]!));
    expect(rows.at(-1)! + 4 * width).toBe(out.offset + out.size);
    return rows;
  });
}

describe("chunks", () => {
  test("hold all points where they fit", () => {
    const chunks = chunksOf(makePlan(hiddenLayers(2, 16, 2)), 1000, { ...guaranteed, multiplyAddsPerSubmit: 2 ** 30 }, toHost);
    expect(chunks.map(({ first, count }) => [first, count])).toEqual([[0, 1000]]);
    expect(chunks[0]!.submissions).toHaveLength(1);
  });

  test("follow one another without a gap where they do not", () => {
    const chunks = chunksOf(makePlan(hiddenLayers(2, 16, 2)), 100_000, { ...guaranteed, memoryBudget: 2 ** 22 }, toHost);
    expect(chunks.length).toBeGreaterThan(3);
    let next = 0;
    for (const { first, count } of chunks) {
      expect(first).toBe(next);
      next += count;
    }
    expect(next).toBe(100_000);
  });

  test("of 784 dimensions hold no Jacobian, unless it is the method", () => {
    const net = hiddenLayers(784, 64, 2);
    const roomy = {
      ...guaranteed,
      maxStorageBufferBindingSize: 2 ** 30,
      maxBufferSize: 2 ** 30,
      memoryBudget: 2 ** 30,
      multiplyAddsPerSubmit: 2 ** 40,
    };
    const bytes = (choice: PlanOptions): number => bytesOf(chunksOf(makePlan(net, choice), 64, roomy, toHost)[0]!);
    expect(bytes({ method: "cyclic" })).toBeLessThan(64 * 784 * 4 * 10);
    expect(bytes({ method: "tangent" })).toBeLessThan(64 * 784 * 4 * 10);
    expect(bytes({ method: "jacobian" })).toBeGreaterThan(64 * 784 * 784 * 4);
  });

  test("carry fewer tangents at once where one point is too large, and no fewer than needed", () => {
    const plan = makePlan(hiddenLayers(784, 64, 3), { method: "tangent" });
    const capacity = capacityOf(plan, { ...guaranteed, maxStorageBufferBindingSize: 2 ** 16 }, toHost, PLAIN);
    // One point's tangents take 784 x 64 floats, 200 704 bytes: a quarter of them fits 65 536.
    expect(capacity).toEqual({ points: 1, tangentsAtOnce: 196 });
    expect(capacityOf(plan, { ...guaranteed, multiplyAddsPerSubmit: 2 ** 40 }, toHost, PLAIN).tangentsAtOnce).toBe(784);
  });

  test("of one heavy point are cut into submissions of several tangents, not of one", () => {
    const plan = makePlan(hiddenLayers(784, 512, 3), { method: "tangent" });
    const limit = 2 ** 24;
    const capacity = capacityOf(plan, { ...guaranteed, multiplyAddsPerSubmit: limit }, toHost, PLAIN);
    const { submissions } = scheduleChunk(plan, parameters, 0, 1, capacity, { ...guaranteed, multiplyAddsPerSubmit: limit }, toHost, PLAIN);
    const works = submissions.map(workOf);
    expect(capacity.tangentsAtOnce).toBeGreaterThan(8);
    expect(Math.max(...works)).toBeLessThanOrEqual(limit);
    // Half full, at least, so that there are no more of them than needed.
    expect(works.length).toBeLessThanOrEqual((2 * works.reduce((sum, work) => sum + work, 0)) / limit + 1);
  });

  test("of one coordinate at a time hold several points, each submission as many passes as its limit takes", () => {
    const plan = makePlan(hiddenLayers(784, 512, 3), { method: "coordinate" });
    const limit = 2 ** 24;
    const capacity = capacityOf(plan, { ...guaranteed, multiplyAddsPerSubmit: limit }, toHost, PLAIN);
    const { submissions } = scheduleChunk(
      plan,
      parameters,
      0,
      capacity.points,
      capacity,
      { ...guaranteed, multiplyAddsPerSubmit: limit },
      toHost,
      PLAIN,
    );
    const works = submissions.map(workOf);
    expect(capacity.tangentsAtOnce).toBe(1);
    // The work of a whole point is 43 times the limit, that of one pass an eighteenth of it.
    expect(capacity.points).toBeGreaterThan(4);
    expect(Math.max(...works)).toBeLessThanOrEqual(limit);
    expect(works.length).toBeGreaterThan(100);
    expect(works.length).toBeLessThanOrEqual(2 * 256);
  });

  test("of one plan are as large as those of a fresh one, whatever was asked before", () => {
    const property = fc.property(
      network,
      asked,
      fc.array(fc.tuple(limits, fc.boolean()), { minLength: 2, maxLength: 4 }),
      (net, choice, all) => {
        const attempt = (plan: Plan, given: ScheduleLimits, sharedContext: boolean): unknown => {
          try {
            return capacityOf(plan, given, { to: "host", sharedContext }, PLAIN);
          } catch (error) {
            return (error as Error).message;
          }
        };
        const plan = makePlan(net, choice);
        for (const [given, sharedContext] of [...all, all[0]!])
          expect(attempt(plan, given, sharedContext)).toEqual(attempt(makePlan(net, choice), given, sharedContext));
      },
    );
    fc.assert(property, { ...runs, numRuns: 100 });
  });

  test("for the caller's buffers are made anew where anything about them is another", () => {
    const plan = makePlan(hiddenLayers(3, 8, 2), { outputs: ["divergence"] });
    const chunk = (first: number, count: number, offset: number): Chunk => {
      const outer = { points: { offset, stride: 3 }, divergence: { offset: 0, stride: 1 } };
      const unlimited = { ...guaranteed, multiplyAddsPerSubmit: Infinity };
      const route: Route = { to: "device", outer, sharesBuffers: false, marksNonFinite: true };
      return scheduleChunk(plan, parameters, first, count, { points: 100, tangentsAtOnce: 3 }, unlimited, route, PLAIN);
    };
    const known = chunk(0, 10, 0);
    expect(chunk(0, 10, 0)).toBe(known);
    const printed = (given: Chunk): string => JSON.stringify(given);
    for (const other of [chunk(10, 10, 0), chunk(0, 9, 0), chunk(0, 10, 256)]) expect(printed(other)).not.toBe(printed(known));
    expect(printed(chunk(0, 10, 0))).toBe(printed(known));
  });

  test("for the host are kept while they are one submission, whatever the pace, and built anew where it cuts them", () => {
    const plan = makePlan(hiddenLayers(3, 8, 2), { method: "tangent", chunkSize: 1 });
    const chunk = (multiplyAddsPerSubmit: number): Chunk =>
      scheduleChunk(plan, parameters, 0, 10, { points: 10, tangentsAtOnce: 1 }, { ...guaranteed, multiplyAddsPerSubmit }, toHost, PLAIN);
    const whole = chunk(2 ** 30);
    expect(whole.submissions).toHaveLength(1);
    expect(chunk(2 ** 29)).toBe(whole);
    const cut = chunk(1);
    expect(cut.submissions.length).toBeGreaterThan(1);
    expect(chunk(1)).toBe(cut);
    expect(chunk(2 ** 30).submissions).toHaveLength(1);
  });

  test("of a jvp carry one tangent per point", () => {
    const [chunk] = chunksOf(makeJvpPlan(hiddenLayers(5, 8, 2), false), 7, guaranteed, toHost) as [Chunk];
    expect(chunk.submissions.flatMap(({ reads }) => reads)).toEqual([{ what: "tangent", scratch: "jvp", width: 5, first: 0, columns: 0 }]);
    expect(chunk.submissions.reduce((sum, submission) => sum + workOf(submission), 0)).toBe(
      7 * (5 * 8 + 8 * 8) + 7 * (5 * 8 + 8 * 8 + 8 * 5),
    );
  });

  test("do the work that the plan counted", () => {
    for (const method of ["tangent", "cyclic", "jacobian", "coordinate"] as const) {
      const net = hiddenLayers(6, 20, 3);
      const plan = makePlan(net, { method, outputs: ["value", "divergence"] });
      const counted = explainPlan(net, { method }).candidates.find(({ chosen }) => chosen)!.multiplyAdds;
      const forward = 6 * 20 + 20 * 20 + 20 * 20 + 20 * 6;
      const [chunk] = chunksOf(plan, 10, guaranteed, toHost) as [Chunk];
      expect(
        chunk.submissions.reduce((sum, submission) => sum + workOf(submission), 0),
        method,
      ).toBe(10 * (forward + counted));
    }
  });
});

describe("a point that is too large", () => {
  test("is refused with its bytes and the device's", () => {
    const plan = makePlan(hiddenLayers(3, 4000, 2), { method: "tangent" });
    const run = (): unknown => capacityOf(plan, { ...guaranteed, maxStorageBufferBindingSize: 4096 }, toHost, PLAIN);
    expect(run).toThrow(LimitError);
    expect(run).toThrow("one point of this network needs a buffer of 16000 bytes; the device allows 4096");
  });

  test("is refused with its bytes and the budget", () => {
    const plan = makePlan(hiddenLayers(3, 64, 2), { method: "tangent", chunkSize: 1 });
    const at = (memoryBudget: number): number => capacityOf(plan, { ...guaranteed, memoryBudget }, toHost, PLAIN).points;
    expect(() => at(1000)).toThrow(LimitError);
    expect(() => at(1000)).toThrow(/^one point of this network needs \d+ bytes; the memory budget is 1000$/);
    const needed = Number(/needs (\d+)/.exec(messageOf(() => at(1000)))![1]);
    expect(at(needed)).toBe(1);
    expect(() => at(needed - 1)).toThrow(`needs ${needed} bytes; the memory budget is ${needed - 1}`);
  });
});

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return expect.fail("nothing was thrown");
}
