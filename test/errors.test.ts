import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  DeldotError,
  DeviceLostError,
  evaluateReference,
  explainPlan,
  GpuError,
  InputError,
  LimitError,
  ModelError,
  PlanError,
  VectorField,
  type Evaluation,
} from "../src/index.js";
import { Pipelines } from "../src/gpu/pipelines.js";
import { openDevice } from "./device.js";
import { randomMlp, randomPoints } from "./fields.js";

const d = 3;
const { network } = randomMlp({ seed: 1, widths: [d, 16, 12, d], activation: "tanh" });
const { network: timed } = randomMlp({ seed: 2, widths: [d, 16, 12, d], activation: "tanh", contextSize: 2 });
const points = randomPoints(3, 40, d);

/** What a caller without types might pass. */
const anything = (value: unknown): any => value;

let device: GPUDevice;
let close: () => Promise<void>;
let field: VectorField;
let withContext: VectorField;
let expected: Evaluation<"value" | "divergence">;
beforeAll(async () => {
  ({ device, close } = await openDevice());
  field = await VectorField.create(device, network);
  withContext = await VectorField.create(device, timed);
  expected = await field.evaluate(points);
});
afterAll(async () => {
  field.destroy();
  withContext.destroy();
  await close();
});

/** Replaces methods of the device for a while. */
async function patched<T>(methods: Partial<GPUDevice>, work: () => Promise<T>): Promise<T> {
  Object.assign(device, methods);
  try {
    return await work();
  } finally {
    for (const name of Object.keys(methods)) delete anything(device)[name];
  }
}

describe("bad input to evaluate, and to the reference alike", () => {
  let touched: string[] = [];
  beforeEach(() => {
    touched = [];
  });

  /** Expects no buffer to be made or written and nothing to be submitted. */
  async function untouched(work: () => Promise<void>): Promise<void> {
    const { queue } = device;
    const note = <T extends object>(owner: T, name: keyof T & string) => {
      const original = anything(owner)[name].bind(owner);
      anything(owner)[name] = (...given: unknown[]) => (touched.push(name), original(...given));
    };
    note(queue, "submit");
    note(queue, "writeBuffer");
    note(device, "createBuffer");
    note(device, "createCommandEncoder");
    try {
      await work();
    } finally {
      for (const name of ["submit", "writeBuffer"]) delete anything(queue)[name];
      for (const name of ["createBuffer", "createCommandEncoder"]) delete anything(device)[name];
    }
    expect(touched).toEqual([]);
  }

  const pointCases: [string, unknown, RegExp][] = [
    ["not a multiple of d", [1, 2, 3, 4], /points has 4 numbers; expected a multiple of 3/],
    [
      "a last dimension other than d",
      { data: new Float32Array(12), shape: [3, 4] },
      /points has the shape \[3, 4\]; expected the last dimension to be 3/,
    ],
    ["a shape that holds another number", { data: new Float32Array(12), shape: [3, 3] }, /points has 12 numbers in the shape \[3, 3\]/],
    ["a negative shape", { data: new Float32Array(12), shape: [-4, -3] }, /\[-4, -3\]/],
    ["an empty shape", { data: new Float32Array(1), shape: [] }, /in the shape \[\]/],
    ["a shape that is no list", { data: new Float32Array(3), shape: 3 }, /points is/],
    ["data without a shape", { data: new Float32Array(3) }, /points is/],
    ["nested rows", [[1, 2, 3]], /points holds \[1, 2, 3\] at position 0; expected numbers, flat/],
    ["texts", ["1", "2", "3"], /points holds "1" at position 0/],
    ["a gap", [1, undefined, 3], /points holds undefined at position 1/],
    ["a hole", Array(3), /points holds undefined at position 0/],
    ["null inside", [1, 2, null], /points holds null at position 2/],
    ["integers of another array type", new Int32Array(3), /points is .*expected a Float32Array/],
    ["an ArrayBuffer", new ArrayBuffer(12), /points is \[object ArrayBuffer\]/],
    ["a number", 3, /points is 3/],
    ["a text", "1,2,3", /points is "1,2,3"/],
    ["null", null, /points is null/],
    ["nothing", undefined, /points is undefined/],
    ["an object without a text", Object.create(null), /points is an object/],
  ];
  test.for(pointCases)("points: %s", ([, given, message]) =>
    untouched(async () => {
      const rejected = await field.evaluate(anything(given)).catch((error: unknown) => error);
      expect(rejected).toBeInstanceOf(InputError);
      expect(anything(rejected).message).toMatch(message);
      expect(() => evaluateReference(network, anything(given))).toThrow(anything(rejected).message);
      await expect(field.jvp(anything(given), points)).rejects.toThrow(message);
      await expect(field.divergence(anything(given))).rejects.toThrow(message);
    }),
  );

  const contextCases: [string, unknown, RegExp][] = [
    ["missing", undefined, /context is missing; expected one vector of 2 numbers for all points, or one for each of the 40 points/],
    ["null", null, /context is missing/],
    ["a number for two", 0.5, /context is the number 0\.5/],
    ["too many", new Float32Array(81), /context has 81 numbers/],
    ["one point short", new Float32Array(78), /context has 78 numbers/],
    ["empty", [], /context has 0 numbers/],
    ["of another last dimension", { data: new Float32Array(80), shape: [80, 1] }, /context has the shape \[80, 1\]/],
    ["texts", ["0", "1"], /context holds "0" at position 0/],
    ["a text", "0.5", /context is "0\.5"/],
    ["true", true, /context is true/],
    ["an object", {}, /context is \[object Object\]/],
  ];
  test.for(contextCases)("context: %s", ([, context, message]) =>
    untouched(async () => {
      const options = anything({ context });
      for (const call of [() => withContext.evaluate(points, options), () => withContext.jvp(points, points, options)]) {
        await expect(call()).rejects.toThrow(InputError);
        await expect(call()).rejects.toThrow(message);
      }
      expect(() => evaluateReference(timed, points, options)).toThrow(message);
    }),
  );

  test("context: one that is not needed", () =>
    untouched(async () => {
      for (const context of [0, [0.5], new Float32Array(40), { data: [1], shape: [1, 1] }]) {
        await expect(field.evaluate(points, { context })).rejects.toThrow(/context is .*; the network takes none/);
        await expect(field.jvp(points, points, { context })).rejects.toThrow(InputError);
        expect(() => evaluateReference(network, points, { context })).toThrow(InputError);
      }
    }));

  test("an empty one is as good as none", async () => {
    expect(await field.evaluate(points, { context: [] })).toEqual(expected);
    expect(await field.evaluate(points, { context: null })).toEqual(expected);
  });

  const optionCases: [string, unknown, typeof InputError | typeof PlanError, RegExp][] = [
    ["an unknown method", { method: "fastest" }, PlanError, /method is "fastest"; expected "auto" or one of tangent, cyclic/],
    ["a method that is a number", { method: 1 }, PlanError, /method is 1/],
    ["an unknown output", { outputs: ["value", "torsion"] }, PlanError, /"torsion".*"value", "divergence", "diagonal", "jacobian"/],
    ["no outputs", { outputs: [] }, PlanError, /outputs is \[\]/],
    ["outputs that are a text", { outputs: "value" }, PlanError, /outputs is "value"; expected a list/],
    [
      "a method that cannot",
      { outputs: ["diagonal"], method: "cyclic" },
      PlanError,
      /method "cyclic" does not give the output "diagonal".*"tangent"/,
    ],
    ["an estimator asked for a Jacobian", { outputs: ["jacobian"], method: "hutchinson" }, PlanError, /"hutchinson".*"jacobian"/],
    ["probes of 0", { probes: 0 }, InputError, /probes is 0; expected a whole number/],
    ["probes of 2.5", { probes: 2.5 }, InputError, /probes is 2\.5/],
    ["probes that are NaN", { probes: NaN }, InputError, /probes is NaN/],
    ["probes that are a text", { probes: "16" }, InputError, /probes is "16"/],
    ["a seed of half", { seed: 0.5 }, InputError, /seed is 0\.5; expected a 32-bit integer/],
    ["a seed that is a BigInt", { seed: 1n }, InputError, /seed is 1/],
    ["a seed beyond 32 bits", { seed: 2 ** 32 }, InputError, /seed is 4294967296/],
    ["probesPer of no kind", { probesPer: "all" }, InputError, /probesPer is "all"; expected "point" or "batch"/],
    ["chunkSize of -1", { chunkSize: -1 }, InputError, /chunkSize is -1/],
    ["chunkSize of Infinity", { chunkSize: Infinity }, InputError, /chunkSize is Infinity/],
    ["a step of 0", { step: 0 }, InputError, /step is 0; expected a number between 0 and 1/],
    ["a step that is NaN", { step: NaN }, InputError, /step is NaN/],
    ["null for options", null, InputError, /options is null; expected an object/],
    ["a number for options", 3, InputError, /options is 3/],
  ];
  test.for(optionCases)("options: %s", ([, options, Kind, message]) =>
    untouched(async () => {
      // What was right before is remembered; it must not be taken for what is wrong now.
      field.explain();
      for (const call of [() => field.evaluate(points, anything(options)), () => field.reserve(1, anything(options))]) {
        await expect(call()).rejects.toThrow(Kind);
        await expect(call()).rejects.toThrow(message);
      }
      for (const call of [
        () => evaluateReference(network, points, anything(options)),
        () => explainPlan(network, anything(options)),
        () => field.explain(anything(options)),
      ]) {
        expect(call).toThrow(Kind);
        expect(call).toThrow(message);
      }
    }),
  );

  test("tangents of jvp", () =>
    untouched(async () => {
      await expect(field.jvp(points, points.subarray(3))).rejects.toThrow(/tangents has 39 vectors of 3; expected 40, one per point/);
      await expect(field.jvp(points, points.subarray(1))).rejects.toThrow(/tangents has 119 numbers; expected a multiple of 3/);
      await expect(field.jvp(points, anything(undefined))).rejects.toThrow(/tangents is undefined/);
      await expect(field.jvp(points, anything(["a", "b", "c"]))).rejects.toThrow(/tangents holds "a" at position 0/);
      await expect(field.jvp(points, points, anything(null))).rejects.toThrow(/options is null/);
      await expect(field.jvp(points, points.subarray(3))).rejects.toBeInstanceOf(InputError);
    }));

  test("a progress callback or a signal of the wrong kind", () =>
    untouched(async () => {
      for (const call of [(options: object) => field.evaluate(points, options), (options: object) => field.jvp(points, points, options)]) {
        await expect(call({ onProgress: "yes" })).rejects.toThrow(/onProgress is "yes"; expected a function/);
        await expect(call({ signal: "stop" })).rejects.toThrow(/signal is "stop"; expected an AbortSignal/);
        await expect(call({ signal: new AbortController() })).rejects.toThrow(InputError);
      }
    }));

  test("more numbers than an array can hold", () =>
    untouched(async () => {
      const { network: wide } = randomMlp({ seed: 4, widths: [3000, 1, 3000], activation: "tanh" });
      const many = await VectorField.create(device, wide);
      touched = [];
      await expect(many.evaluate(new Float32Array(3000 * 1000), { outputs: ["jacobian"] })).rejects.toThrow(LimitError);
      await expect(many.evaluate(new Float32Array(3000 * 1000), { outputs: ["jacobian"] })).rejects.toThrow(
        /jacobian has 1000 rows of 9000000 numbers/,
      );
    }));

  test("more probes than any buffer holds is an error at once", async () => {
    await expect(field.evaluate(points, { method: "hutchinson", probes: 2 ** 31 })).rejects.toThrow(LimitError);
    await expect(field.evaluate(points, { method: "hutchinson", probes: 2 ** 31 })).rejects.toThrow(/one point has 2147483648 terms/);
  });

  test("to create", async () => {
    for (const given of [null, undefined, {}, "gpu"])
      await expect(VectorField.create(anything(given), network)).rejects.toThrow(/device is .*; expected a GPUDevice/);
    for (const given of [null, undefined, {}, []]) {
      await expect(VectorField.create(device, anything(given))).rejects.toThrow(ModelError);
      await expect(VectorField.create(device, anything(given))).rejects.toThrow(/network is .*; expected one that mlp/);
      expect(() => evaluateReference(anything(given), [1])).toThrow(ModelError);
      expect(() => explainPlan(anything(given))).toThrow(ModelError);
    }
    for (const memoryBudget of [0, -1, NaN, "1 MiB"])
      await expect(VectorField.create(device, network, anything({ memoryBudget }))).rejects.toThrow(
        /memoryBudget is .*; expected a positive number of bytes/,
      );
    await expect(VectorField.create(device, network, anything({ label: 5 }))).rejects.toThrow(/label is 5/);
    for (const store of [null, {}, { get: () => null }, "file"])
      await expect(VectorField.create(device, network, anything({ store }))).rejects.toThrow(
        /store is .*; expected an object with get and set/,
      );
    await expect(VectorField.create(device, network, anything(null))).rejects.toThrow(InputError);
  });

  test("all of them are errors of the package", () => {
    for (const Kind of [InputError, PlanError, ModelError, LimitError, GpuError, DeviceLostError]) {
      const error = new Kind("text");
      expect(error).toBeInstanceOf(DeldotError);
      expect(error).toBeInstanceOf(Error);
      expect(error.name).toBe(Kind.name);
    }
  });
});

describe("an error of WebGPU rejects the call, and the next one works", () => {
  /** Buffers made from now on whose label fits come out spoilt. */
  const spoiling = (label: RegExp, change: (descriptor: GPUBufferDescriptor) => GPUBufferDescriptor): Partial<GPUDevice> => {
    const createBuffer = device.createBuffer.bind(device);
    return { createBuffer: (descriptor) => createBuffer(label.test(descriptor.label ?? "") ? change(descriptor) : descriptor) };
  };
  const wrongUsage = (descriptor: GPUBufferDescriptor) => ({ ...descriptor, usage: GPUBufferUsage.COPY_DST });
  const tooSmall = (descriptor: GPUBufferDescriptor) => ({ ...descriptor, size: 4 });
  const tooLarge = (descriptor: GPUBufferDescriptor) => ({ ...descriptor, size: 2 ** 48 });

  const cases: [string, RegExp, (descriptor: GPUBufferDescriptor) => GPUBufferDescriptor][] = [
    ["scratch of the wrong usage", /: own value 0$/, wrongUsage],
    ["scratch that is too small to write to", /: points$/, tooSmall],
    ["scratch that cannot be made", /: terms$|: slope/, tooLarge],
    ["a matrix of the wrong usage", / as product$/, wrongUsage],
    ["a matrix that cannot be made", / as rows$/, tooLarge],
    ["staging of the wrong usage", /: staging/, wrongUsage],
    ["staging that cannot be made", /: staging/, tooLarge],
    ["parameters of the wrong usage", /: parameters$/, wrongUsage],
  ];
  test.for(cases)("%s", async ([, label, change]) => {
    const own = await VectorField.create(device, network);
    await patched(spoiling(label, change), async () => {
      const call = own.evaluate(points);
      await expect(call).rejects.toThrow(GpuError);
      await expect(call).rejects.toThrow(/^deldot: ./);
      await expect(own.jvp(points, points)).rejects.toThrow(GpuError);
    });
    expect(await own.evaluate(points)).toEqual(expected);
    expect(await own.jvp(points, points)).toEqual(await field.jvp(points, points));
    own.destroy();
  });

  test("an internal buffer that was destroyed", async () => {
    const made: GPUBuffer[] = [];
    const createBuffer = device.createBuffer.bind(device);
    for (const label of ["own value 0", "slope 2", "W1 as product", "staging 0", "parameters"]) {
      made.length = 0;
      const fresh = await VectorField.create(device, network);
      await patched({ createBuffer: (descriptor) => (made.push(createBuffer(descriptor)), made.at(-1)!) }, () => fresh.evaluate(points));
      for (const buffer of made) if (buffer.label.replace(/ \[.*\]/, "").endsWith(`: ${label}`)) buffer.destroy();
      // The staging buffers take turns.
      if (label === "staging 0") await fresh.evaluate(points).catch(() => undefined);
      await expect(fresh.evaluate(points), label).rejects.toThrow(GpuError);
      expect(await fresh.evaluate(points), label).toEqual(expected);
      fresh.destroy();
    }
  });

  test("what WebGPU throws at once", async () => {
    const createBuffer = () => {
      throw new RangeError("createBuffer failed, size (64) is too large");
    };
    const own = await VectorField.create(device, network);
    await patched({ createBuffer }, () => expect(own.evaluate(points)).rejects.toThrow(/^deldot: createBuffer failed/));
    await patched({ createBuffer }, () => expect(own.evaluate(points)).rejects.toThrow(GpuError));
    await patched({ createBuffer }, () => expect(own.reserve(10)).rejects.toThrow(GpuError));
    expect(await own.evaluate(points)).toEqual(expected);
    await own.reserve(10);
    own.destroy();
  });

  test("a map that fails", async () => {
    const createBuffer = device.createBuffer.bind(device);
    const failing = (descriptor: GPUBufferDescriptor) => {
      const buffer = createBuffer(descriptor);
      if (descriptor.usage & GPUBufferUsage.MAP_READ)
        buffer.mapAsync = () => Promise.reject(new DOMException("mapping failed", "OperationError"));
      return buffer;
    };
    const own = await VectorField.create(device, network);
    await patched({ createBuffer: failing }, () => expect(own.evaluate(points)).rejects.toThrow(GpuError));
    expect(await own.evaluate(points)).toEqual(expected);
    own.destroy();
  });

  test("reserve, and what comes after it", async () => {
    const own = await VectorField.create(device, network, { label: "mine" });
    await patched(spoiling(/own value 0$/, tooLarge), () => expect(own.reserve(100)).rejects.toThrow(/^mine: ./));
    await own.reserve(100);
    own.destroy();
  });

  test("calls beside a failing one are right or fail, and never zero", async () => {
    const own = await VectorField.create(device, network, { memoryBudget: 100_000 });
    const many = randomPoints(5, 3000, d);
    const truth = await own.evaluate(many);
    const jacobian = await own.evaluate(many, { outputs: ["jacobian"] });
    let buffers = 0;
    const createBuffer = device.createBuffer.bind(device);
    const now = { createBuffer: (descriptor: GPUBufferDescriptor) => createBuffer(++buffers === 3 ? wrongUsage(descriptor) : descriptor) };
    await own.jvp(points, points);
    const results = await patched(now, () =>
      Promise.allSettled([
        own.evaluate(many, { outputs: ["jacobian"] }),
        own.evaluate(many, { method: "difference" }),
        own.evaluate(many),
        own.evaluate(many, { outputs: ["jacobian"] }),
      ]),
    );
    expect(results.some(({ status }) => status === "rejected")).toBe(true);
    for (const [index, result] of results.entries()) {
      if (result.status === "rejected") expect(result.reason).toBeInstanceOf(GpuError);
      else if (index !== 1) expect(result.value, `call ${index}`).toEqual(index === 2 ? truth : jacobian);
      else expect(Math.abs(anything(result.value).divergence[0] - truth.divergence[0]!)).toBeLessThan(0.01);
    }
    expect(await own.evaluate(many)).toEqual(truth);
    own.destroy();
  });

  test("a shader that does not compile is told with its line", async () => {
    const source = "@compute @workgroup_size(1)\nfn main() {\n  let x: u32 = 1.5;\n}\n";
    const compile = () => new Pipelines(device).compile({ label: "broken", source, parameters: [], storage: [] });
    await expect(compile()).rejects.toThrow(GpuError);
    await expect(compile()).rejects.toThrow(/deldot broken: [^]+ at 3:\d+: let x: u32 = 1\.5;/);
  });

  test("a pipeline that cannot be made is told too", async () => {
    const source = "@compute @workgroup_size(1)\nfn other() {}\n";
    await expect(new Pipelines(device).compile({ label: "misnamed", source, parameters: [], storage: [] })).rejects.toThrow(
      /deldot misnamed: .*main/s,
    );
  });

  test("create fails with the compiler's message and works the next time", async () => {
    const { network: other } = randomMlp({ seed: 6, widths: [2, 5, 2], activation: "celu(1.25)" });
    const createShaderModule = device.createShaderModule.bind(device);
    const broken = {
      createShaderModule: (descriptor: GPUShaderModuleDescriptor) =>
        createShaderModule({ ...descriptor, code: `${descriptor.code}\nfn broken() -> u32 { return; }` }),
    };
    await patched(broken, () => expect(VectorField.create(device, other)).rejects.toThrow(GpuError));
    const own = await VectorField.create(device, other);
    expect((await own.divergence([1, 2]))[0]).toBeCloseTo(evaluateReference(other, [1, 2]).divergence![0]!, 5);
    own.destroy();
  });

  test("the caller's own error scopes see none of it", async () => {
    const own = await VectorField.create(device, network);
    device.pushErrorScope("validation");
    await patched(spoiling(/: own value 0$/, wrongUsage), () => expect(own.evaluate(points)).rejects.toThrow(GpuError));
    expect(await device.popErrorScope()).toBeNull();
    own.destroy();
  });

  test("an error of the caller's own calls is the caller's, and no error of a field is", async () => {
    const told: string[] = [];
    const listen = (event: GPUUncapturedErrorEvent): void => {
      event.preventDefault();
      told.push(event.error.message);
    };
    device.addEventListener("uncapturederror", listen);
    const own = await VectorField.create(device, network);
    await patched(spoiling(/: own value 0$/, wrongUsage), () => expect(own.evaluate(points)).rejects.toThrow(GpuError));
    await device.queue.onSubmittedWorkDone();
    expect(told).toEqual([]);
    const call = own.evaluate(points);
    device.createBuffer({ label: "the caller's", size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
    const calls = [call, own.evaluate(points)];
    expect(await Promise.all(calls)).toEqual([expected, expected]);
    await device.queue.onSubmittedWorkDone();
    expect(told).toHaveLength(1);
    device.removeEventListener("uncapturederror", listen);
    own.destroy();
  });
});

describe("field.destroy", () => {
  test("later calls fail, the device works on, and another field too", async () => {
    const own = await VectorField.create(device, network);
    const other = await VectorField.create(device, network);
    await own.evaluate(points);
    own.destroy();
    own.destroy();
    for (const call of [() => own.evaluate(points), () => own.divergence(points), () => own.jvp(points, points), () => own.reserve(5)]) {
      await expect(call()).rejects.toThrow(DeldotError);
      await expect(call()).rejects.toThrow(/the field was destroyed/);
    }
    expect(() => own.encode(device.createCommandEncoder(), anything({}))).toThrow(/the field was destroyed/);
    expect(own.explain().method).toBe("cyclic");
    expect(await other.evaluate(points)).toEqual(expected);
    other.destroy();
    await device.queue.onSubmittedWorkDone();
  });

  test("pending calls fail, wherever they are", async () => {
    const many = randomPoints(7, 5000, d);
    for (const when of ["at once", "a turn later", "after a chunk"]) {
      const own = await VectorField.create(device, network, { memoryBudget: 60_000 });
      await own.evaluate(points);
      const calls = [
        own.evaluate(many, { onProgress: () => when === "after a chunk" && own.destroy() }),
        own.evaluate(many, { method: "jacobian", outputs: ["jacobian"] }),
        own.jvp(many, many),
      ];
      if (when === "at once") own.destroy();
      if (when === "a turn later") setTimeout(() => own.destroy(), 0);
      const results = await Promise.allSettled(calls);
      for (const result of results)
        expect(result).toMatchObject({ status: "rejected", reason: { message: expect.stringContaining("the field was destroyed") } });
    }
    expect(await field.evaluate(points)).toEqual(expected);
  });

  test("it leaves no buffer of the field behind", async () => {
    const alive = new Map<GPUBuffer, string>();
    const createBuffer = device.createBuffer.bind(device);
    const counting = (descriptor: GPUBufferDescriptor) => {
      const buffer = createBuffer(descriptor);
      alive.set(buffer, descriptor.label ?? "");
      const destroy = buffer.destroy.bind(buffer);
      buffer.destroy = () => (alive.delete(buffer), destroy());
      return buffer;
    };
    await patched({ createBuffer: counting }, async () => {
      const own = await VectorField.create(device, network, { memoryBudget: 60_000 });
      for (const method of ["tangent", "cyclic", "jacobian", "difference", "hutchinson"] as const)
        await own.evaluate(randomPoints(8, 900, d), { method });
      const pending = own.evaluate(randomPoints(8, 900, d)).catch(() => undefined);
      await own.reserve(50);
      await own.reserve(500);
      own.destroy();
      await pending;
    });
    expect([...alive.values()]).toEqual([]);
  });
});

describe("when the device is lost", () => {
  const many = randomPoints(9, 20_000, d);
  const options = { memoryBudget: 2 ** 20 };

  /** Expects each call to be rejected for the loss. */
  async function expectLost(calls: readonly Promise<unknown>[]): Promise<void> {
    for (const result of await Promise.allSettled(calls)) {
      if (result.status === "fulfilled") expect.fail("a call on a lost device was fulfilled");
      expect(result.reason).toBeInstanceOf(DeviceLostError);
      expect(result.reason.message).toMatch(/^the GPU device was lost \(.+\): ./);
    }
  }

  const allCalls = (own: VectorField) => [
    own.evaluate(many),
    own.evaluate(points, { method: "jacobian", outputs: ["jacobian"] }),
    own.divergence(many, { method: "difference" }),
    own.jvp(many, many),
    own.reserve(100_000),
  ];

  test("before create", async () => {
    const { device: own, close: dispose } = await openDevice();
    own.destroy();
    await expectLost([VectorField.create(own, network), VectorField.create(own, timed)]);
    await own.lost;
    await expectLost([VectorField.create(own, network)]);
    await dispose();
  });

  test("during create", async () => {
    const { device: own, close: dispose } = await openDevice();
    const creating = [VectorField.create(own, network), VectorField.create(own, timed)];
    own.destroy();
    await expectLost(creating);
    await dispose();
  });

  test("during create, while its store is asked", async () => {
    const { device: own, close: dispose } = await openDevice();
    const creating = VectorField.create(own, network, { store: { get: () => new Promise(() => undefined), set: () => undefined } });
    setTimeout(() => own.destroy(), 5);
    await expectLost([creating]);
    await dispose();
  });

  test("between calls", async () => {
    const { device: own, close: dispose } = await openDevice();
    const lost = await VectorField.create(own, network, options);
    await lost.evaluate(points);
    own.destroy();
    await expectLost(allCalls(lost));
    await own.lost;
    await expectLost(allCalls(lost));
    expect(() => lost.encode(anything({ dispatchWorkgroups: null }), anything({}))).toThrow(DeviceLostError);
    expect(lost.explain().method).toBe("cyclic");
    lost.destroy();
    await dispose();
  });

  test("with calls pending", async () => {
    const { device: own, close: dispose } = await openDevice();
    const lost = await VectorField.create(own, network, options);
    const calls = allCalls(lost);
    own.destroy();
    await expectLost(calls);
    await expectLost(allCalls(lost));
    await dispose();
  });

  test.for([0, 1, 10])("with calls pending, %d ms later", async (milliseconds) => {
    const { device: own, close: dispose } = await openDevice();
    const lost = await VectorField.create(own, network, { memoryBudget: 30_000 });
    const calls = [lost.evaluate(many), lost.evaluate(many, { outputs: ["jacobian"] }), lost.jvp(many, many)];
    setTimeout(() => own.destroy(), milliseconds);
    await expectLost(calls);
    await dispose();
  });

  test("in the middle of many chunks", async () => {
    const { device: own, close: dispose } = await openDevice();
    const lost = await VectorField.create(own, network, { memoryBudget: 100_000 });
    let chunks = 0;
    const onProgress = () => {
      if (++chunks === 3) own.destroy();
    };
    await expectLost([lost.evaluate(many, { onProgress }), lost.evaluate(many, { method: "coordinate" })]);
    expect(chunks).toBeLessThan(10);
    await dispose();
  });

  test("encode right after it throws nothing but errors of the package", async () => {
    const { device: own, close: dispose } = await openDevice();
    const lost = await VectorField.create(own, network, options);
    const buffer = own.createBuffer({ size: 4000, usage: GPUBufferUsage.STORAGE });
    const encoder = own.createCommandEncoder();
    own.destroy();
    try {
      lost.encode(encoder, { points: buffer, count: 10, divergence: buffer });
    } catch (error) {
      expect(error).toBeInstanceOf(DeldotError);
    }
    await own.lost;
    expect(() => lost.encode(encoder, { points: buffer, count: 10, divergence: buffer })).toThrow(DeviceLostError);
    await dispose();
  });
});
