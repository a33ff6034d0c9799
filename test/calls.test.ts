/** What a call is given, and when: copied at the call, whoever changes it later; a store that never answers; buffers that fail. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluateReference, GpuError, InputError, ReferenceField, VectorField, type EvaluateOptions, type Field } from "../src/index.js";
import { makeBuffer, readBuffer } from "./buffers.js";
import { expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";

const { network } = randomMlp({ seed: 1, widths: [3, 12, 11, 3], activation: "tanh", contextSize: 2 });
const COUNT = 500;
const points = randomPoints(2, COUNT, 3);
const context = randomPoints(3, COUNT, 2);
const truth = evaluateReference(network, points, { context, outputs: ["value", "divergence"] });

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

/** Of ES2024. */
const Resizable = ArrayBuffer as unknown as new (
  bytes: number,
  options: { maxByteLength: number },
) => ArrayBuffer & { resize(bytes: number): void };

/** Small chunks, so that most of the points are still to be uploaded when the first progress is told. */
const fields: Record<string, () => Promise<Field>> = {
  "on the GPU": () => VectorField.create(device, network, { memoryBudget: 20_000 }),
  "in float64": async () => new ReferenceField(network),
};

describe.for(Object.keys(fields))("%s", (name) => {
  const expectTruth = (result: { value: ArrayLike<number>; divergence: ArrayLike<number> }): void => {
    for (const output of ["value", "divergence"] as const)
      expectClose(
        result[output],
        truth[output]!,
        truth[output]!.map(() => 1),
        { relative: 1e-5, label: output },
      );
  };

  test("numbers that are changed after the call are not seen", async () => {
    const field = await fields[name]!();
    const given = [new Float32Array(points), new Float64Array(points), Array.from(points)];
    for (const own of given) {
      const ownContext = new Float32Array(context);
      const call = field.evaluate(own, { context: ownContext });
      own.fill(7);
      ownContext.fill(7);
      expectTruth(await call);
    }
    field.destroy();
  });

  test("nor is an array that gets shorter, or a buffer that goes away, meanwhile", async () => {
    const field = await fields[name]!();
    const list = Array.from(points);
    let told = 0;
    expectTruth(await field.evaluate(list, { context, onProgress: () => (told++, (list.length = 0)) }));
    expect(told).toBeGreaterThan(0);
    const own = new Float32Array(points);
    const call = field.evaluate({ data: own, shape: [COUNT, 3] }, { context });
    structuredClone(own.buffer, { transfer: [own.buffer] });
    expectTruth(await call);
    field.destroy();
  });

  test("a buffer that is detached already is an error of the package", async () => {
    const field = await fields[name]!();
    const own = new Float32Array(points);
    structuredClone(own.buffer, { transfer: [own.buffer] });
    await expect(field.evaluate(own, { context })).rejects.toThrow(InputError);
    await expect(field.evaluate(own, { context })).rejects.toThrow(/points lies in an ArrayBuffer that is detached/);
    const away = new Float64Array(context);
    structuredClone(away.buffer, { transfer: [away.buffer] });
    await expect(field.evaluate(points, { context: away })).rejects.toThrow(/context lies in an ArrayBuffer that is detached/);
    await expect(field.jvp(points, own, { context })).rejects.toThrow(/tangents lies in an ArrayBuffer that is detached/);
    field.destroy();
  });

  test("a view that its buffer has become too short for is one too", async () => {
    const field = await fields[name]!();
    const buffer = new Resizable(48, { maxByteLength: 64 });
    const view = new Float32Array(buffer, 12, 3);
    buffer.resize(8);
    await expect(field.evaluate(view, { context: [1, 2] })).rejects.toThrow(/points lies in an ArrayBuffer that is detached, or too short/);
    await expect(field.evaluate(view, { context: [1, 2] })).rejects.toThrow(InputError);
    field.destroy();
  });

  test("options that are changed after the call are not seen", async () => {
    const field = await fields[name]!();
    const few = points.subarray(0, 30);
    for (const [given, later] of [
      [
        { method: "hutchinson", probes: 4, seed: 3 },
        { seed: 99, probes: 1 },
      ],
      [{ method: "difference", step: 0.01 }, { step: NaN }],
      [{ outputs: ["divergence"] }, { outputs: ["value"], method: "jacobian", signal: 7, onProgress: 7 }],
    ] as [EvaluateOptions, Record<string, unknown>][]) {
      const options = { ...given, context: [0.5, 1] };
      const expected = await field.evaluate(few, { ...options });
      const call = field.evaluate(few, options);
      Object.assign(options, later);
      expect((await call).divergence).toEqual(expected.divergence);
    }
    field.destroy();
  });

  test("jvp gives f beside J t where it is asked to", async () => {
    const field = await fields[name]!();
    const tangents = randomPoints(5, COUNT, 3);
    const alone = await field.jvp(points, tangents, { context });
    const both = await field.jvp(points, tangents, { context, value: true });
    expect(both.tangent).toEqual(alone);
    expectTruth({ value: both.value, divergence: truth.divergence! });
    field.destroy();
  });

  test("probes are refused where no estimate is asked for", async () => {
    const field = await fields[name]!();
    for (const method of [undefined, "auto", "tangent", "difference"] as const) {
      await expect(field.evaluate(points, { context, method, probes: 4 })).rejects.toThrow(/probes is 4, which method ".*" does not use/);
      await expect(field.evaluate(points, { context, method, probesPer: "batch" })).rejects.toThrow(InputError);
    }
    expect((await field.evaluate(points, { context, method: "hutchinson", probes: 4 })).standardError).toHaveLength(COUNT);
    field.destroy();
  });

  test("progress is told and a signal is heard", async () => {
    const field = await fields[name]!();
    const controller = new AbortController();
    const seen: number[] = [];
    await field.evaluate(points, { context, onProgress: ({ done }) => seen.push(done) });
    expect(seen.at(-1)).toBe(COUNT);
    const call = field.evaluate(points, { context, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(call).rejects.toThrow("enough");
    field.destroy();
    await expect(field.evaluate(points, { context })).rejects.toThrow(/destroyed/);
  });
});

describe("a store whose get never settles", () => {
  const never = (): Promise<string> => new Promise(() => undefined);

  test("keeps neither create nor evaluate", async () => {
    const field = await VectorField.create(device, network, { store: { get: never, set: () => undefined } });
    expectClose(
      await field.divergence(points, { context }),
      truth.divergence!,
      truth.divergence!.map(() => 1),
      { relative: 1e-5 },
    );
    field.destroy();
  });

  test("keeps no call whose signal is aborted", async () => {
    let asked = 0;
    const store = { get: () => (++asked > 1 ? never() : null), set: () => undefined };
    const field = await VectorField.create(device, network, { store });
    const controller = new AbortController();
    const call = field.evaluate(points, { context, signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 5);
    await expect(call).rejects.toThrow("enough");
    field.destroy();
  });
});

describe("an allocation that fails", () => {
  /** Buffers whose label matches are made as none can be: larger than the device allows. */
  async function failing(label: RegExp, work: () => Promise<void>): Promise<void> {
    const createBuffer = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const size = label.test(descriptor.label ?? "") ? 2 * device.limits.maxBufferSize : descriptor.size;
      return createBuffer({ ...descriptor, size });
    };
    try {
      await work();
    } finally {
      device.createBuffer = createBuffer;
    }
  }

  const encoded = async (field: VectorField): Promise<Float32Array> => {
    const divergence = makeBuffer(device, new Float32Array(COUNT));
    const encoder = device.createCommandEncoder();
    field.encode(encoder, { points: makeBuffer(device, points), context: makeBuffer(device, context), count: COUNT, divergence });
    device.queue.submit([encoder.finish()]);
    return readBuffer(device, divergence);
  };
  const expectRight = (divergence: Float32Array): void =>
    expectClose(
      divergence,
      truth.divergence!,
      truth.divergence!.map(() => 1),
      { relative: 1e-5 },
    );

  test.for([/encode: /, / as product$/, / as rows$/])("rejects reserve each time, and leaves nothing broken behind (%s)", async (label) => {
    const field = await VectorField.create(device, network);
    await failing(label, async () => {
      for (let attempt = 0; attempt < 2; attempt++)
        await expect(field.reserve(COUNT, { outputs: ["divergence"], contextPer: "point" })).rejects.toThrow(GpuError);
    });
    await field.reserve(COUNT, { outputs: ["divergence"], contextPer: "point" });
    expectRight(await encoded(field));
    field.destroy();
  });

  test("within encode is told to the device, and the next encode is right", async () => {
    const field = await VectorField.create(device, network);
    await failing(/encode: terms|as product$/, async () => {
      device.pushErrorScope("validation");
      await encoded(field);
      expect(await device.popErrorScope()).not.toBeNull();
    });
    expectRight(await encoded(field));
    field.destroy();
  });
});
