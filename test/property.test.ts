import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { activationNames, evaluateReference, VectorField, type Method, type Network, type Output } from "../src/index.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { random, randomMlp, randomPoints } from "./fields.js";
import { float32Run, float64Run, nearKink, type Run } from "./float32.js";

/** DELDOT_RUNS=2000 looks further than the usual run does; the first networks are the same. */
const numRuns = Number(process.env["DELDOT_RUNS"] ?? 300);
const parameters = { seed: 20_240_531, numRuns };
const timeout = 60_000 + 2000 * numRuns;

const exactMethods: readonly Method[] = ["tangent", "cyclic", "jacobian", "coordinate"];

/** Those that are infinite or undefined somewhere are left out: near there no tolerance holds. */
const finite = activationNames.filter((name) => !["log", "sqrt", "reciprocal", "tan", "asin", "acosh", "atanh"].includes(name));
/** A device compiles one kernel per activation, so the parameters come from a small set. */
const variants = ["leaky_relu(0.2)", "elu(0.5)", "celu(2)", "softplus(2, 20)", "clip(-0.5, 0.75)", "sin(10)", "sin(30)"];
const activation = fc.oneof(
  { weight: 1, arbitrary: fc.constant("identity") },
  { weight: 6, arbitrary: fc.constantFrom(...finite, ...variants) },
);
const small = fc.integer({ min: 1, max: 9 });
const width = fc.oneof(small, fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 130 }));

/** Shrinks to fewer and narrower layers, no context, one point. */
const description = fc.record({
  hidden: fc.array(fc.record({ width, activation }), { maxLength: 6, size: "max" }),
  stateSize: fc.oneof({ weight: 2, arbitrary: small }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 100 }) }),
  outputActivation: fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: activation }),
  contextSize: fc.integer({ min: 0, max: 3 }),
  contextColumns: fc.constantFrom("last" as const, "first" as const),
  contextPerPoint: fc.boolean(),
  count: fc.integer({ min: 1, max: 6 }),
  chunkSize: fc.option(small, { nil: undefined }),
  memoryBudget: fc.constantFrom(undefined, 2 ** 17, 2 ** 15),
  /** Whether submissions hold as little work as any may, so that many points and even one are cut into several. */
  shortSubmissions: fc.boolean(),
  seed: fc.nat(),
});
type Description = typeof description extends fc.Arbitrary<infer T> ? T : never;

/** A network at points where its divergence is smooth and finite, and what float64 gives there. */
interface Case extends Run {
  network: Network;
  points: Float32Array;
  context: Float32Array | null;
  count: number;
  /** Σ_i |∂f_i/∂x_i| per point. */
  scale: Float64Array;
  /** What a divergence or a diagonal in float32 may err by, per point. */
  allowance: Float64Array;
  /** What a value in float32 may err by, per component of each point. */
  valueAllowance: Float64Array;
}

function makeCase({
  hidden,
  stateSize: d,
  outputActivation,
  contextSize: c,
  contextColumns,
  contextPerPoint,
  count,
  seed,
}: Description): Case {
  const drawnNames = [...hidden.map((layer) => layer.activation), ...(outputActivation === null ? [] : [outputActivation])];
  // A second one would amplify the rounding of the first by its frequency again.
  const fast = drawnNames.findIndex(isFastSine);
  const names = drawnNames.map((name, index) => (isFastSine(name) && index !== fast ? "sin" : name));
  const widths = [d, ...hidden.map((layer) => layer.width), d];
  const { network } = randomMlp({ seed, widths, activation: names, contextSize: c, contextColumns });
  const drawn = randomPoints(seed ^ 1, count, d, 0.5 + 2 * random(seed)());
  const contexts = c > 0 ? randomPoints(seed ^ 2, contextPerPoint ? count : 1, c) : null;

  const kinks = nearKink(network, drawn, contexts);
  const all = float64Run(network, drawn, contexts);
  // exp after exp, or square after square, leaves float32's range.
  const isTame = (point: number): boolean =>
    [all.value, all.diagonal].every((rows) => rowOf(rows, point, d).every((x) => Math.abs(x) < 1e6));
  const kept = Array.from({ length: count }, (_, point) => point).filter((point) => !kinks[point] && isTame(point));
  const points = Float32Array.from(kept.flatMap((point) => [...rowOf(drawn, point, d)]));
  const context = contexts && (contextPerPoint ? Float32Array.from(kept.flatMap((point) => [...rowOf(contexts, point, c)])) : contexts);

  const double = float64Run(network, points, context);
  const single = float32Run(network, points, context);
  const rounding = (output: keyof Run): number =>
    single[output].reduce((most, x, i) => Math.max(most, Math.abs(x - double[output][i]!)), 0);
  // Float32 rounds z itself; high frequencies and many layers amplify it.
  const relative = hidden.length > 4 || fast >= 0 ? 1e-4 : 2e-5;
  const scale = Float64Array.from(kept, (_, point) => rowOf(double.diagonal, point, d).reduce((sum, entry) => sum + Math.abs(entry), 0));
  return {
    network,
    points,
    context,
    count: kept.length,
    ...double,
    scale,
    allowance: scale.map((size) => Math.max(relative * size + 1e-6, 8 * rounding("divergence"), 8 * rounding("diagonal"))),
    valueAllowance: double.value.map((x) => Math.max(relative * (1 + Math.abs(x)), 8 * rounding("value"))),
  };
}

const isFastSine = (name: string): boolean => name === "sin(10)" || name === "sin(30)";

function rowOf<T extends Float32Array | Float64Array>(data: T, row: number, size: number): T {
  return data.subarray(row * size, (row + 1) * size) as T;
}

/** What is said of each point, for each of its d entries. */
function repeated(perPoint: Float64Array, d: number): Float64Array {
  return Float64Array.from({ length: perPoint.length * d }, (_, index) => perPoint[Math.floor(index / d)]!);
}

const outputsOf = (method: Method): Output[] => (method === "cyclic" ? ["value", "divergence"] : ["value", "divergence", "diagonal"]);

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

describe("random networks", () => {
  test("the reference gives plain float64 forward mode, by every exact method", { timeout }, () => {
    const property = fc.property(description, (described) => {
      const { network, points, context, scale, ...truth } = makeCase(described);
      for (const method of exactMethods) {
        const result = evaluateReference(network, points, { context, method, outputs: outputsOf(method) });
        const within = { relative: 1e-9, absolute: 1e-12 };
        expectClose(result.value!, truth.value, truth.value.map(Math.abs), { ...within, label: `value by ${method}` });
        expectClose(result.divergence!, truth.divergence, scale, { ...within, label: `divergence by ${method}` });
        if (result.diagonal)
          expectClose(result.diagonal, truth.diagonal, repeated(scale, network.stateSize), { ...within, label: `diagonal by ${method}` });
      }
    });
    fc.assert(property, parameters);
  });

  test("the GPU gives float64 and the reference within float32, by every exact method, and the methods agree", { timeout }, async () => {
    const property = fc.asyncProperty(description, async (described) => {
      const { network, points, context, count, allowance, valueAllowance, ...truth } = makeCase(described);
      const d = network.stateSize;
      const store = { get: () => (described.shortSubmissions ? String(2 ** 20) : null), set: () => undefined };
      const field = await VectorField.create(device, network, { memoryBudget: described.memoryBudget, store });
      const divergences: Float32Array[] = [];
      for (const method of exactMethods) {
        const options = { context, method, outputs: outputsOf(method), chunkSize: described.chunkSize };
        const result = await field.evaluate(points, options);
        const reference = evaluateReference(network, points, options);
        for (const { value, divergence, diagonal } of [truth, reference]) {
          const within = { relative: 1, absolute: 0 };
          expectClose(result.value!, value!, valueAllowance, { ...within, label: `value by ${method}` });
          expectClose(result.divergence!, divergence!, allowance, { ...within, label: `divergence by ${method}` });
          if (result.diagonal)
            expectClose(result.diagonal, diagonal!, repeated(allowance, d), { ...within, label: `diagonal by ${method}` });
        }
        expect(result.method).toBe(method);
        divergences.push(result.divergence!);
      }
      for (let point = 0; point < count; point++) {
        const each = divergences.map((divergence) => divergence[point]!);
        expect(Math.max(...each) - Math.min(...each), `the methods at point ${point}: ${each.join(", ")}`).toBeLessThanOrEqual(
          allowance[point]!,
        );
      }
      const jacobian = { context, outputs: ["jacobian"] as const, chunkSize: described.chunkSize };
      const actual = (await field.evaluate(points, jacobian)).jacobian;
      const expected = evaluateReference(network, points, jacobian).jacobian!;
      const sizes = Float64Array.from({ length: count }, (_, point) => Math.hypot(...rowOf(expected, point, d * d)));
      expectClose(
        actual,
        expected,
        repeated(
          sizes.map((size, point) => 2e-5 * size + allowance[point]!),
          d * d,
        ),
        { relative: 1, absolute: 0, label: "Jacobian" },
      );
      field.destroy();
    });
    await fc.assert(property, parameters);
  });
});
