import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluateReference,
  mlp,
  VectorField,
  type BatchInput,
  type EvaluateOptions,
  type Evaluation,
  type Method,
  type Network,
  type Output,
} from "../src/index.js";
import { divergenceScale, expectClose } from "./close.js";
import { openDevice } from "./device.js";
import { normal, random, randomMlp, randomPoints } from "./fields.js";

const exactMethods: readonly Method[] = ["tangent", "cyclic", "jacobian", "coordinate"];
type Rows = number[][];

function randomRows(seed: number, rows: number, columns: number): Rows {
  const uniform = random(seed);
  return Array.from({ length: rows }, () => Array.from({ length: columns }, () => normal(uniform) / Math.sqrt(columns)));
}

function product(a: Rows, b: Rows): Rows {
  return a.map((row) => b[0]!.map((_, column) => row.reduce((sum, x, k) => sum + x * b[k]![column]!, 0)));
}

const transpose = (a: Rows): Rows => a[0]!.map((_, column) => a.map((row) => row[column]!));
const trace = (a: Rows): number => a.reduce((sum, row, i) => sum + row[i]!, 0);
const diagonalSize = (a: Rows): number => a.reduce((sum, row, i) => sum + Math.abs(row[i]!), 0);

/** The antisymmetric part of a random matrix. */
function antisymmetric(seed: number, d: number): Rows {
  const a = randomRows(seed, d, d);
  return a.map((row, i) => row.map((x, j) => Math.fround(x - a[j]![i]!)));
}

/** Random orthonormal rows, by Gram and Schmidt. */
function orthogonal(seed: number, d: number): Rows {
  const rows: Rows = [];
  for (const row of randomRows(seed, d, d)) {
    for (const other of rows) {
      const along = row.reduce((sum, x, i) => sum + x * other[i]!, 0);
      other.forEach((y, i) => (row[i]! -= along * y));
    }
    const length = Math.hypot(...row);
    rows.push(row.map((x) => x / length));
  }
  return rows;
}

let device: GPUDevice;
let close: () => Promise<void>;
beforeAll(async () => ({ device, close } = await openDevice()));
afterAll(() => close());

async function evaluate<O extends Output = "value" | "divergence">(
  network: Network,
  points: BatchInput,
  options: EvaluateOptions<O>,
): Promise<Evaluation<O>> {
  const field = await VectorField.create(device, network);
  try {
    return await field.evaluate(points, options);
  } finally {
    field.destroy();
  }
}

/** The divergence by every exact method on the GPU and in the reference, each against what is expected. */
async function expectDivergence(
  network: Network,
  points: Float32Array,
  expected: ArrayLike<number>,
  scale: ArrayLike<number>,
): Promise<void> {
  for (const method of exactMethods) {
    const { divergence } = await evaluate(network, points, { method, outputs: ["divergence"] });
    expectClose(divergence, expected, scale, { label: `divergence by ${method}` });
    const reference = evaluateReference(network, points, { method, outputs: ["divergence"] });
    expectClose(reference.divergence!, expected, scale, { relative: 1e-12, absolute: 1e-12, label: `reference by ${method}` });
  }
}

describe("a linear field A x + b", () => {
  const points = randomPoints(3, 5, 7);

  test("has the divergence tr A everywhere", async () => {
    const a = randomRows(1, 7, 7);
    const network = mlp({ layers: [{ weight: a, bias: [1, 2, 3, 4, 5, 6, 7] }] });
    await expectDivergence(network, points, Array<number>(5).fill(trace(a)), Array<number>(5).fill(diagonalSize(a)));
  });

  test("has it by central differences too, whatever their step", async () => {
    const a = randomRows(1, 7, 7);
    const network = mlp({ layers: [{ weight: a }] });
    const { divergence } = await evaluate(network, points, { method: "difference", step: 0.125 });
    expectClose(divergence, Array<number>(5).fill(trace(a)), Array<number>(5).fill(diagonalSize(a)), { relative: 1e-4, absolute: 1e-4 });
    const reference = evaluateReference(network, points, { method: "difference", step: 0.125 });
    expectClose(reference.divergence!, Array<number>(5).fill(trace(a)), Array<number>(5).fill(1), { relative: 1e-13, absolute: 0 });
  });

  test("has tr(W3 W2 W1) where it comes as three layers without activations", async () => {
    const [w1, w2, w3] = [randomRows(1, 5, 7), randomRows(2, 9, 5), randomRows(3, 7, 9)];
    const network = mlp({ layers: [w1, w2, w3].map((weight) => ({ weight })), activation: "identity" });
    const a = product(w3, product(w2, w1));
    await expectDivergence(network, points, Array<number>(5).fill(trace(a)), Array<number>(5).fill(diagonalSize(a)));
  });

  test("has none where A is antisymmetric", async () => {
    const a = antisymmetric(1, 7);
    await expectDivergence(mlp({ layers: [{ weight: a }] }), points, new Float32Array(5), new Float32Array(5));
  });

  test("has the Jacobian A, with J[i][j] = ∂f_i/∂x_j", async () => {
    const a = [
      [1, 2, 3],
      [40, 50, 60],
      [700, 800, 900],
    ];
    const network = mlp({ layers: [{ weight: a, bias: [1, 1, 1] }] });
    const { jacobian, diagonal, divergence } = await evaluate(network, [0, 0, 0, 1, 2, 3], {
      outputs: ["jacobian", "diagonal", "divergence"],
    });
    expect([...jacobian]).toEqual([...a.flat(), ...a.flat()]);
    expect([...diagonal]).toEqual([1, 50, 900, 1, 50, 900]);
    expect([...divergence]).toEqual([951, 951]);
  });

  test("has it as two layers, and in strips of one and of two columns", async () => {
    const [w1, w2] = [
      [
        [1, 0, 2],
        [0, 3, 0],
        [4, 0, 0],
        [0, 0, 5],
      ],
      [
        [1, 2, 0, 0],
        [0, 1, 3, 0],
        [5, 0, 0, 1],
      ],
    ];
    const network = mlp({ layers: [{ weight: w1 }, { weight: w2 }], activation: "identity" });
    for (const chunkSize of [1, 2, 3, undefined]) {
      const { jacobian } = await evaluate(network, [0, 0, 0, 1, 2, 3], { outputs: ["jacobian"], chunkSize });
      expect([...jacobian]).toEqual([...product(w2, w1).flat(), ...product(w2, w1).flat()]);
    }
  });
});

describe("a field without divergence", () => {
  // f = A Wᵀ σ(W x + b), J = A Wᵀ S W: the trace of an antisymmetric times a symmetric matrix is 0.
  test.for(["tanh", "silu", "sin"])("that rotates the gradient of a potential has none anywhere, with %s", async (activation) => {
    const d = 6;
    const w = randomRows(1, 40, d);
    const layers = [{ weight: w, bias: randomRows(2, 1, 40)[0]! }, { weight: product(antisymmetric(3, d), transpose(w)) }];
    const network = mlp({ layers, activation });
    const points = randomPoints(4, 8, d);
    const { diagonal } = evaluateReference(network, points, { outputs: ["diagonal"] });
    const scale = Array.from({ length: 8 }, (_, point) =>
      diagonal!.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + Math.abs(entry), 0),
    );
    expect(Math.min(...scale)).toBeGreaterThan(0.1);
    await expectDivergence(network, points, new Float32Array(8), scale);
  });
});

describe("an orthogonal change of coordinates", () => {
  test.for([0, 1, 2, 3])("changes nothing with %i hidden layers: g(y) = Q f(Qᵀ y) has at y the divergence of f at Qᵀ y", async (hidden) => {
    const d = 5;
    const q = orthogonal(7, d);
    const weights = [d, ...Array<number>(hidden).fill(17), d].flatMap((width, index, widths) =>
      index === 0 ? [] : [randomRows(index, width, widths[index - 1]!)],
    );
    const biases = weights.map((weight, index) => randomRows(20 + index, 1, weight.length)[0]!);
    const layersOf = (each: Rows[], offsets: number[][]) => each.map((weight, index) => ({ weight, bias: offsets[index]! }));
    const turned = [...weights];
    turned[0] = product(turned[0]!, transpose(q));
    turned[hidden] = product(q, turned[hidden]!);
    const offsets = biases.with(
      hidden,
      product(
        q,
        biases[hidden]!.map((x) => [x]),
      ).flat(),
    );
    const f = mlp({ layers: layersOf(weights, biases), activation: "softplus" });
    const g = mlp({ layers: layersOf(turned, offsets), activation: "softplus" });

    const y = randomPoints(9, 6, d);
    const x = Array.from({ length: 6 }, (_, point) =>
      product(
        transpose(q),
        [...y.subarray(point * d, (point + 1) * d)].map((c) => [c]),
      ).flat(),
    ).flat();
    const { divergence } = evaluateReference(f, x);
    const { diagonal } = evaluateReference(g, y, { outputs: ["diagonal"] });
    const scale = divergenceScale(diagonal!, d);
    expectClose(evaluateReference(g, y).divergence!, divergence!, scale, { relative: 1e-12, absolute: 1e-12 });
    await expectDivergence(g, y, divergence!, scale);
  });
});

describe("one coordinate", () => {
  test("has f' for its divergence", async () => {
    const [w, b, v] = [randomRows(1, 1, 30)[0]!, randomRows(2, 1, 30)[0]!, randomRows(3, 1, 30)[0]!].map((row) => row.map(Math.fround)) as [
      number[],
      number[],
      number[],
    ];
    const network = mlp({ layers: [{ weight: w.map((x) => [x]), bias: b }, { weight: [v] }], activation: "tanh" });
    const points = randomPoints(4, 9, 1, 3);
    const terms = Array.from(points, (x) => w.map((_, i) => v[i]! * w[i]! * (1 - Math.tanh(w[i]! * x + b[i]!) ** 2)));
    const slopes = terms.map((each) => each.reduce((sum, term) => sum + term, 0));
    await expectDivergence(network, points, slopes, slopes.map(Math.abs));
  });

  test("has f' through three layers and an activation at the output, and one more coordinate that stands apart adds its own", async () => {
    // f = sigmoid(c tanh(b sin(a x))), f' by the chain rule.
    const [a, b, c] = [0.75, -1.5, 2.5];
    const points = randomPoints(5, 9, 1, 2);
    const slopes = Array.from(points, (x) => {
      const inner = Math.tanh(b * Math.sin(a * x));
      const sigmoid = 1 / (1 + Math.exp(-c * inner));
      return sigmoid * (1 - sigmoid) * c * (1 - inner ** 2) * b * Math.cos(a * x) * a;
    });
    const activation = ["sin", "tanh", "sigmoid"];
    await expectDivergence(
      mlp({ layers: [{ weight: [[a]] }, { weight: [[b]] }, { weight: [[c]] }], activation }),
      points,
      slopes,
      slopes.map(Math.abs),
    );

    const twice = (factor: number) => ({
      weight: [
        [factor, 0],
        [0, factor],
      ],
    });
    const pairs = Float32Array.from(Array.from(points).flatMap((x) => [x, x]));
    await expectDivergence(
      mlp({ layers: [a, b, c].map(twice), activation }),
      pairs,
      slopes.map((slope) => 2 * slope),
      slopes.map((slope) => 2 * Math.abs(slope)),
    );
  });
});

describe("the Jacobian", () => {
  const d = 6;
  const points = randomPoints(4, 5, d);

  test("of a gradient is symmetric", async () => {
    const w = randomRows(1, 33, d);
    const network = mlp({ layers: [{ weight: w, bias: randomRows(2, 1, 33)[0]! }, { weight: transpose(w) }], activation: "silu" });
    const { jacobian } = await evaluate(network, points, { outputs: ["jacobian"] });
    const flipped = jacobian.map((_, index) => {
      const [point, i, j] = [Math.floor(index / (d * d)), Math.floor(index / d) % d, index % d];
      return jacobian[point * d * d + j * d + i]!;
    });
    expectClose(jacobian, flipped, jacobian.map(Math.abs), { relative: 1e-5, absolute: 1e-6 });
    expect(Math.max(...jacobian.filter((_, index) => index % (d + 1) !== 0).map(Math.abs))).toBeGreaterThan(0.1);
  });

  const fields = [0, 1, 2, 3].map((hidden) => ({
    hidden,
    ...randomMlp({ seed: hidden, widths: [d, ...Array<number>(hidden).fill(19), d], activation: "tanh", contextSize: 2 }),
  }));
  const context = [0.5, -1];

  test.for(fields)("has jvp(x, e_k) for its column k, with $hidden hidden layers", async ({ network }) => {
    const field = await VectorField.create(device, network);
    const { jacobian } = await field.evaluate(points, { context, outputs: ["jacobian"] });
    for (let k = 0; k < d; k++) {
      const basis = points.map((_, index) => (index % d === k ? 1 : 0));
      const column = await field.jvp(points, basis, { context });
      expectClose(
        column,
        column.map((_, index) => jacobian[index * d + k]!),
        column.map(Math.abs),
        { relative: 2e-6, absolute: 1e-6, label: `column ${k}` },
      );
    }
    field.destroy();
  });

  test.for(fields)("times any tangent is the jvp, with $hidden hidden layers", async ({ network }) => {
    const field = await VectorField.create(device, network);
    const tangents = randomPoints(6, 5, d);
    const { jacobian } = evaluateReference(network, points, { context, outputs: ["jacobian"] });
    const expected = Array.from(tangents, (_, index) => {
      const from = Math.floor(index / d) * d;
      return tangents.subarray(from, from + d).reduce((sum, t, j) => sum + jacobian![index * d + j]! * t, 0);
    });
    expectClose(await field.jvp(points, tangents, { context }), expected, expected.map(Math.abs), { absolute: 3e-6 });
    expect([
      ...(await field.jvp(
        points,
        points.map(() => 0),
        { context },
      )),
    ]).toEqual([...points].map(() => 0));
    field.destroy();
  });

  test.for(fields)("agrees with the reference in every entry, with $hidden hidden layers", async ({ network }) => {
    const { jacobian } = await evaluate(network, points, { context, outputs: ["jacobian"] });
    const reference = evaluateReference(network, points, { context, outputs: ["jacobian"] }).jacobian!;
    expectClose(jacobian, reference, reference.map(Math.abs));
  });

  test.for(fields)("has a diagonal whose sum is the divergence, rounded once, with $hidden hidden layers", async ({ network }) => {
    for (const method of ["tangent", "jacobian", "coordinate", "difference"] as const) {
      const { diagonal, divergence } = await evaluate(network, points, { context, method, outputs: ["diagonal", "divergence"] });
      const sums = divergence.map((_, point) => diagonal.subarray(point * d, (point + 1) * d).reduce((sum, entry) => sum + entry, 0));
      expect([...divergence]).toEqual([...sums]);
    }
    const { diagonal, jacobian } = await evaluate(network, points, { context, outputs: ["diagonal", "jacobian"] });
    expect(diagonal).toEqual(jacobian.filter((_, index) => Math.floor(index / d) % d === index % d));
  });
});

describe("points", () => {
  const { network } = randomMlp({ seed: 1, widths: [3, 16, 16, 3], activation: "tanh" });
  const flat = randomPoints(2, 12, 3);
  const wanted = ["value", "divergence", "diagonal", "jacobian"] as const;
  let field: VectorField;
  beforeAll(async () => (field = await VectorField.create(device, network)));

  test("keep their leading shape: (B, N, 3), (B, 3), a single vector and a flat array", async () => {
    const whole = await field.evaluate(flat, { outputs: wanted });
    const shapes: [BatchInput, number[]][] = [
      [flat, [12]],
      [{ data: flat, shape: [12, 3] }, [12]],
      [{ data: flat, shape: [4, 3, 3] }, [4, 3]],
      [{ data: flat, shape: [2, 1, 6, 3] }, [2, 1, 6]],
      [{ data: flat.subarray(0, 3), shape: [3] }, []],
    ];
    for (const [given, shape] of shapes) {
      const result = await field.evaluate(given, { outputs: wanted });
      expect(result.shape).toEqual(shape);
      expect(evaluateReference(network, given).shape).toEqual(shape);
      const count = shape.reduce((size, n) => size * n, 1);
      expect(result.value).toEqual(whole.value.subarray(0, 3 * count));
      expect(result.divergence).toEqual(whole.divergence.subarray(0, count));
      expect(result.diagonal).toEqual(whole.diagonal.subarray(0, 3 * count));
      expect(result.jacobian).toEqual(whole.jacobian.subarray(0, 9 * count));
    }
  });

  test("may come as number[], Float64Array, Float32Array or { data, shape }", async () => {
    const whole = await field.evaluate(flat);
    for (const given of [
      [...flat],
      Float64Array.from(flat),
      { data: flat, shape: [12, 3] },
      { data: [...flat], shape: [3, 4, 3] },
      { data: Float64Array.from(flat), shape: [12, 3] },
    ]) {
      const result = await field.evaluate(given);
      expect(result.value).toEqual(whole.value);
      expect(result.divergence).toEqual(whole.divergence);
      expect(await field.divergence(given)).toEqual(whole.divergence);
      expect(await field.jvp(given, given)).toEqual(await field.jvp(flat, flat));
      expect(evaluateReference(network, given).divergence).toEqual(evaluateReference(network, flat).divergence);
    }
  });

  test("may be one", async () => {
    const { divergence, shape } = await field.evaluate(flat.subarray(3, 6));
    expect(shape).toEqual([1]);
    expect(divergence).toEqual((await field.evaluate(flat)).divergence.subarray(1, 2));
  });

  test("may be none", async () => {
    const empty: [BatchInput, number[]][] = [
      [[], [0]],
      [new Float32Array(0), [0]],
      [{ data: [], shape: [0, 3] }, [0]],
      [{ data: [], shape: [5, 0, 3] }, [5, 0]],
    ];
    for (const [given, shape] of empty)
      for (const method of ["auto", ...exactMethods, "difference", "hutchinson"] as const) {
        const result = await field.evaluate(given, { method });
        expect(result).toMatchObject({ shape, value: new Float32Array(0), divergence: new Float32Array(0) });
        expect(evaluateReference(network, given, { method })).toMatchObject({
          shape,
          value: new Float64Array(0),
          divergence: new Float64Array(0),
        });
      }
    expect(await field.jvp([], [])).toEqual(new Float32Array(0));
  });

  test("in one dimension have as many divergences as coordinates", async () => {
    const line = randomMlp({ seed: 3, widths: [1, 8, 8, 1], activation: "tanh" }).network;
    const points = randomPoints(4, 5, 1);
    const result = await evaluate(line, points, { outputs: wanted });
    expect(result.divergence).toEqual(result.diagonal);
    expect(result.divergence).toEqual(result.jacobian);
    expectClose(result.divergence, evaluateReference(line, points).divergence!, result.divergence.map(Math.abs));
  });
});

test("a network that was sent to a worker is the same network", async () => {
  const activations = ["softplus(2)", "elu(0.5)", "elu"] as const;
  for (const activation of activations) {
    const { network } = randomMlp({ seed: 2, widths: [3, 9, 8, 3], activation });
    const clone = structuredClone(network);
    const points = randomPoints(3, 20, 3);
    const reference = evaluateReference(network, points);
    expect(evaluateReference(clone, points).divergence).toEqual(reference.divergence);
    const [field, cloned] = [await VectorField.create(device, network), await VectorField.create(device, clone)];
    expect((await cloned.evaluate(points)).divergence).toEqual((await field.evaluate(points)).divergence);
    field.destroy();
    cloned.destroy();
  }
});
