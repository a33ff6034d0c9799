import { InputError, ModelError, quote } from "../errors.js";
import { parseActivation } from "./activation.js";
import {
  widthOf,
  widthOfLinear,
  type LinearOperation,
  type Matrix,
  type Network,
  type Operand,
  type Operation,
  type Place,
  type Tensor,
} from "./network.js";
import { tensorsOf } from "./parameters.js";

/** How noise grows with time t, which has no unit; σ, and with "edm" time, have the data's. */
export type DiffusionSchedule =
  | {
      /** dx = -½ β(t) x dt + √β(t) dw with β(t) = betaMin + t (betaMax - betaMin), 0 <= t <= 1. */
      readonly kind: "variance preserving";
      /** Per unit of t. Default 0.1. */
      readonly betaMin?: number | undefined;
      /** Per unit of t. Default 20. */
      readonly betaMax?: number | undefined;
    }
  | {
      /** dx = √(dσ²/dt) dw with σ(t) = sigmaMin (sigmaMax / sigmaMin)^t, 0 <= t <= 1. */
      readonly kind: "variance exploding";
      /** σ(0). Default 0.01. */
      readonly sigmaMin?: number | undefined;
      /** σ(1). Default 50. */
      readonly sigmaMax?: number | undefined;
    }
  | {
      /** Time is σ itself, and the network F is raw: D(x, σ) = c_skip x + c_out F(c_in x, ln(σ) / 4). */
      readonly kind: "edm";
      /** The standard deviation of the data. Default 0.5. */
      readonly sigmaData?: number | undefined;
    };

/** What {@link probabilityFlow} takes beside network and schedule. */
export interface ProbabilityFlowOptions {
  /** The score s = ∇ log p_t(x), the default, or the noise eps = -σ(t) s. Of "edm", whose network is F, there is no choice. */
  readonly predicts?: "score" | "noise" | undefined;
  /** Which column of the context is time. Default the only one; to be named where several are. */
  readonly timeColumn?: number | undefined;
}

/**
 * The field of the probability-flow ODE of a diffusion model, dx/dt = drift(t) x - ½ g(t)² s(x, t) (Song et al., Score-Based Generative
 * Modeling through Stochastic Differential Equations, 2021), as a network with the same state [d] and context [c]: its divergence is
 * exact as that of any other, its paths carry noise to data, and by both a model's log p is known.
 *
 * - "variance preserving": f = -½ β (x + s), with s = -eps / σ and σ² = 1 - exp(-∫β). Noise at t = 1: N(0, 1), nearly. A network of noise
 *   leaves f at t = 0 without a value: NaN. Paths end a little before, at 1e-3 or so.
 * - "variance exploding": f = -½ (dσ²/dt) s. Noise at t = 1: N(0, sigmaMax²), nearly.
 * - "edm": dx/dσ = (x - D(x, σ)) / σ, time being σ > 0 (Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models,
 *   2022, table 1). Noise at a large σ: N(0, σ²), nearly.
 *
 * So `Flow` takes noiseAt 1 and dataAt 0 or a little more, and a base other than the standard normal but for "variance preserving"; of "edm"
 * noiseAt 80 and dataAt 0.002, as that paper has them.
 *
 * What depends on time alone is computed of the context by operations of the network. Nothing cancels in it: 1 - exp(-∫β) is taken
 * without loss next to t = 0. In float32 σ² of "variance exploding" has a relative error of 1e-6, since its exponent is rounded.
 *
 * The network's tensors keep their names and numbers. Factors of time are moved past its first and last linear operations to where
 * something scales anyway, so that the cheapest plan for its own divergence stays the cheapest where every point has a time of its own. The
 * constants of the schedule are tensors named "schedule.…": who trains the network leaves those out.
 *
 * @throws InputError for a bad schedule or option; ModelError where it is no network, or none with a context.
 */
export function probabilityFlow(scoreNetwork: Network, schedule: DiffusionSchedule, options: ProbabilityFlowOptions = {}): Network {
  const tensors = tensorsOf(scoreNetwork);
  if (typeof schedule !== "object" || schedule === null)
    throw new InputError(`schedule is ${quote(schedule)}; expected an object with kind`);
  if (typeof options !== "object" || options === null) throw new InputError(`options is ${quote(options)}; expected an object`);
  const timeColumn = readTimeColumn(scoreNetwork, options.timeColumn);
  const predicts = options.predicts ?? "score";
  if (predicts !== "score" && predicts !== "noise") throw new InputError(`predicts is ${quote(predicts)}; expected "score" or "noise"`);
  if (schedule.kind === "edm" && options.predicts !== undefined)
    throw new InputError(`predicts is ${quote(predicts)}; expected none with "edm", whose network is F`);
  const writer = new Writer(scoreNetwork, timeColumn, tensors);
  switch (schedule.kind) {
    case "variance preserving":
      variancePreserving(writer, schedule, predicts);
      break;
    case "variance exploding":
      varianceExploding(writer, schedule, predicts);
      break;
    case "edm":
      edm(writer, schedule);
      break;
    default:
      throw new InputError(
        `the kind of schedule is ${quote((schedule as { kind: unknown }).kind)}; expected "variance preserving", "variance exploding" or "edm"`,
      );
  }
  const what = schedule.kind === "edm" ? "the preconditioned network" : `a network of the ${predicts}`;
  const note = `The field of the probability-flow ODE of ${what} with the schedule "${schedule.kind}"; time is column ${timeColumn} of the context.`;
  return { ...scoreNetwork, operations: writer.operations, tensors: writer.tensors, notes: [...(scoreNetwork.notes ?? []), note] };
}

function readTimeColumn({ contextSize }: Network, given: number | undefined): number {
  if (contextSize === 0) throw new ModelError("the network takes no context; expected one with time among it");
  if (given === undefined && contextSize > 1)
    throw new InputError(`the context has ${contextSize} columns; expected timeColumn to name the one that is time`);
  const column = given === undefined ? 0 : given;
  if (!(Number.isInteger(column) && column >= 0 && column < contextSize))
    throw new InputError(`timeColumn is ${quote(column)}; expected a column of the context, of which there are ${contextSize}`);
  return column;
}

/** @throws InputError where a constant is none that float32 has, squared too. */
function checkConstants(constants: Readonly<Record<string, number>>, least: "zero" | "positive"): void {
  for (const [name, value] of Object.entries(constants))
    if (!(typeof value === "number" && (value > 0 || (least === "zero" && value === 0)) && Math.fround(value * value) < Infinity))
      throw new InputError(
        `${name} of the schedule is ${quote(value)}; expected a ${least === "zero" ? "number of at least 0" : "positive number"}`,
      );
}

function variancePreserving(
  writer: Writer,
  { betaMin = 0.1, betaMax = 20 }: Extract<DiffusionSchedule, { kind: "variance preserving" }>,
  predicts: "score" | "noise",
): void {
  checkConstants({ betaMin, betaMax }, "zero");
  if (!(betaMax >= betaMin && betaMax > 0))
    throw new InputError(`betaMax of the schedule is ${betaMax}; expected a positive number of at least betaMin, ${betaMin}`);
  const beta = writer.ofTime("beta", betaMax - betaMin, betaMin);
  const drift = { name: "drift", scalar: beta, factor: -1 / 2 };
  if (predicts === "score") return writer.field({ drift, diffusion: { name: "diffusion", scalar: beta, factor: -1 / 2 } });
  const time = writer.ofTime("time", 1, 0);
  const mean = writer.ofTime("mean beta", (betaMax - betaMin) / 2, betaMin);
  const integral = writer.affine("integral", writer.product(time, mean), -1);
  // elu(-∫β) is exp(-∫β) - 1 to full accuracy, however small it is.
  const variance = writer.affine("variance", writer.activation("elu", integral), -1);
  const inverseSigma = writer.activation("reciprocal", writer.activation("sqrt", variance));
  writer.field({ drift, diffusion: { name: "diffusion", scalar: writer.product(beta, inverseSigma), factor: 1 / 2 } });
}

function varianceExploding(
  writer: Writer,
  { sigmaMin = 0.01, sigmaMax = 50 }: Extract<DiffusionSchedule, { kind: "variance exploding" }>,
  predicts: "score" | "noise",
): void {
  checkConstants({ sigmaMin, sigmaMax }, "positive");
  if (!(sigmaMax > sigmaMin)) throw new InputError(`sigmaMax of the schedule is ${sigmaMax}; expected more than sigmaMin, ${sigmaMin}`);
  // ½ dσ²/dt = ln(sigmaMax / sigmaMin) σ², and one σ is taken out of it where the noise is predicted.
  const rate = Math.log(sigmaMax) - Math.log(sigmaMin);
  const power = predicts === "score" ? 2 : 1;
  const sigmas = writer.activation("exp", writer.ofTime("log sigma", power * rate, power * Math.log(sigmaMin)));
  writer.field({ diffusion: { name: "diffusion", scalar: sigmas, factor: predicts === "score" ? -rate : rate } });
}

/** With c_in = 1/√(σ² + sigmaData²), (x - D) / σ = σ c_in² x - sigmaData c_in F: nothing is divided by σ, or subtracted of what is alike. */
function edm(writer: Writer, { sigmaData = 0.5 }: Extract<DiffusionSchedule, { kind: "edm" }>): void {
  checkConstants({ sigmaData }, "positive");
  const sigma = writer.ofTime("sigma", 1, 0);
  const total = writer.affine("total", writer.activation("square", sigma), 1, sigmaData * sigmaData);
  const inverse = writer.activation("reciprocal", total);
  const inverseRoot = writer.activation("sqrt", inverse);
  writer.field({
    drift: { name: "drift", scalar: writer.product(sigma, inverse), factor: 1 },
    input: { name: "in", scalar: inverseRoot, factor: 1 },
    context: writer.contextWith("noise", writer.activation("log", sigma), 1 / 4),
    diffusion: { name: "diffusion", scalar: inverseRoot, factor: -sigmaData },
  });
}

/** factor times a result of one number, which scales vectors. */
interface Scalar {
  /** Of its constants. */
  readonly name: string;
  readonly scalar: number;
  readonly factor: number;
}

type LinearTerm = LinearOperation["terms"][number];

/** Writes operations one after another, and names their constants. */
class Writer {
  readonly operations: Operation[] = [];
  /** Where the parts of the network's operations have got to, by "3 bias" as they were. */
  private readonly moved = new Map<string, Pick<Place, "operation" | "part">>();
  private readonly constants: Tensor[] = [];
  private readonly vectors = new Map<string, number>();

  constructor(
    private readonly network: Network,
    private readonly timeColumn: number,
    private readonly given: readonly Tensor[],
  ) {}

  /** Those of the network by their names, then the constants. */
  get tensors(): readonly Tensor[] {
    const own = this.given.map((tensor) => ({
      ...tensor,
      places: tensor.places.map((place) => ({ ...place, ...this.moved.get(`${place.operation} ${place.part}`)! })),
    }));
    const names = new Set(own.map(({ name }) => name));
    const unique = (name: string): string => {
      let free = name;
      for (let i = 2; names.has(free); i++) free = `${name} ${i}`;
      names.add(free);
      return free;
    };
    return [...own, ...this.constants.map((tensor) => ({ ...tensor, name: unique(tensor.name) }))];
  }

  /** slope t + shift, one number. */
  ofTime(name: string, slope: number, shift: number): number {
    const { contextSize } = this.network;
    const data = new Float64Array(contextSize);
    data[this.timeColumn] = slope;
    return this.constant(name, [{ operand: "context", weight: { rows: 1, columns: contextSize, data } }], shift);
  }

  /** factor a + shift of one number a. */
  affine(name: string, operand: number, factor: number, shift = 0): number {
    return this.constant(name, [{ operand, weight: column(1, factor) }], shift);
  }

  /** The context with factor a, of one number a, in the place of time. */
  contextWith(name: string, operand: number, factor: number): number {
    const { timeColumn } = this;
    const { contextSize } = this.network;
    const data = new Float64Array(contextSize);
    data[timeColumn] = factor;
    const time = { operand, weight: { rows: contextSize, columns: 1, data } };
    if (contextSize === 1) return this.constant(name, [time]);
    const diagonal = Float64Array.from({ length: contextSize }, (_, i) => (i === timeColumn ? 0 : 1));
    return this.constant(name, [{ operand: "context", weight: { diagonal } }, time]);
  }

  activation(name: string, operand: Operand): number {
    return this.push({ kind: "activation", operand, activation: parseActivation(name) });
  }

  product(a: Operand, b: Operand): number {
    return this.push({ kind: "product", operands: [a, b] });
  }

  /** drift ∘ x + diffusion ∘ network(input ∘ x, context), the last of all. */
  field(parts: { readonly drift?: Scalar; readonly input?: Scalar; readonly context?: Operand; readonly diffusion: Scalar }): void {
    const { drift, input, context = "context", diffusion } = parts;
    const { operations, stateSize } = this.network;
    const places: number[] = [];
    const state = (): Operand => (input ? this.scaled("state", stateSize, input) : "state");
    const read = (operand: Operand): Operand => (operand === "state" ? state() : operand === "context" ? context : places[operand]!);
    const lastIndex = operations.length - 1;
    for (const [index, operation] of operations.entries()) {
      if (index === lastIndex && operation.kind === "linear") break;
      if (operation.kind === "linear") {
        const parts = operation.terms.map((term, part) => this.readTerm(term, part, index, input, read));
        places.push(this.linear(operation, index, parts));
      } else if (operation.kind === "product") places.push(this.product(read(operation.operands[0]), read(operation.operands[1])));
      else places.push(this.push({ ...operation, operand: read(operation.operand) }));
    }
    const last = operations[lastIndex];
    // A skip of the state is one to the velocity itself: around a sum x + s before one factor for both, the trace would not be cyclic.
    const terms: LinearTerm[] = drift ? [identity(this.scaled("state", stateSize, drift), stateSize)] : [];
    if (last?.kind !== "linear") {
      terms.push(identity(this.scaled(places[lastIndex]!, stateSize, diffusion), stateSize));
      this.push({ kind: "linear", terms, bias: null });
      return;
    }
    // Behind the last matrix, the factor would stand between it and the first one around the cycle, which otherwise merge.
    const operation = { terms, bias: null } as const;
    const own: [part: Place["part"], term: number][] = [];
    for (const [part, { operand, weight }] of last.terms.entries()) {
      const factor = operand === "state" && input ? this.times(diffusion, input) : diffusion;
      if (operand === "state" && "diagonal" in weight) {
        const factors = this.push({ kind: "linear", terms: [{ operand: this.vector(factor, stateSize), weight }], bias: null });
        this.moved.set(`${lastIndex} ${part}`, { operation: factors, part: 0 });
        terms.push(identity(this.product("state", factors), stateSize));
        continue;
      }
      const source = operand === "state" ? "state" : read(operand);
      own.push([part, terms.length]);
      terms.push({ operand: this.scaled(source, widthOf(this.network, operand), factor), weight });
    }
    if (last.bias) {
      own.push(["bias", terms.length]);
      terms.push({ operand: this.vector(diffusion, stateSize), weight: { diagonal: last.bias } });
    }
    const index = this.push({ kind: "linear", ...operation });
    for (const [part, term] of own) this.moved.set(`${lastIndex} ${part}`, { operation: index, part: term });
  }

  /** A term of the network's; where it multiplies the scaled state by a matrix, W (c x) is c (W x). */
  private readTerm(
    { operand, weight }: LinearTerm,
    part: number,
    index: number,
    input: Scalar | undefined,
    read: (operand: Operand) => Operand,
  ): LinearTerm & { readonly isOwn: boolean } {
    if (operand !== "state" || !input || "diagonal" in weight) return { operand: read(operand), weight, isOwn: true };
    const term = { operand, weight };
    const product = this.push({ kind: "linear", terms: [term], bias: null });
    this.moved.set(`${index} ${part}`, { operation: product, part: 0 });
    const rows = widthOfLinear({ kind: "linear", terms: [term], bias: null });
    return { ...identity(this.scaled(product, rows, input), rows), isOwn: false };
  }

  /** A linear operation of the network with the terms that stand for its own. */
  private linear({ bias, isFixed }: LinearOperation, index: number, terms: readonly (LinearTerm & { readonly isOwn: boolean })[]): number {
    const own = terms.map(({ operand, weight }) => ({ operand, weight }));
    const operation = this.push({ kind: "linear", terms: own, bias, ...(isFixed && { isFixed }) });
    for (const [part, { isOwn }] of terms.entries()) if (isOwn) this.moved.set(`${index} ${part}`, { operation, part });
    this.moved.set(`${index} bias`, { operation, part: "bias" });
    return operation;
  }

  private scaled(operand: Operand, width: number, scalar: Scalar): number {
    return this.product(operand, this.vector(scalar, width));
  }

  private times(a: Scalar, b: Scalar): Scalar {
    return { name: `${a.name} ${b.name}`, scalar: this.product(a.scalar, b.scalar), factor: a.factor * b.factor };
  }

  /** The scalar in every place of a vector; one for all of the same width. */
  private vector({ name, scalar, factor }: Scalar, width: number): number {
    const key = `${name} ${width}`;
    const known = this.vectors.get(key) ?? this.constant(name, [{ operand: scalar, weight: column(width, factor) }]);
    this.vectors.set(key, known);
    return known;
  }

  private constant(name: string, terms: readonly LinearTerm[], shift = 0): number {
    const operation = this.operations.length;
    const add = (part: Place["part"], suffix: string, shape: readonly number[]): void => {
      const place = { operation, part, offset: 0, rowStride: shape.length > 1 ? shape[1]! : 0, columnStride: 1 };
      this.constants.push({ name: `schedule.${name}.${suffix}`, shape, places: [place] });
    };
    terms.forEach(({ weight }, term) => {
      const shape = "rows" in weight ? [weight.rows, weight.columns] : [this.network.contextSize];
      add(term, terms.length > 1 ? `weight.${term}` : "weight", shape);
    });
    if (shift !== 0) add("bias", "bias", [1]);
    return this.push({ kind: "linear", terms, bias: shift === 0 ? null : Float64Array.of(shift) });
  }

  private push(operation: Operation): number {
    return this.operations.push(operation) - 1;
  }
}

function column(rows: number, value: number): Matrix {
  return { rows, columns: 1, data: new Float64Array(rows).fill(value) };
}

function identity(operand: Operand, width: number): LinearTerm {
  return { operand, weight: { diagonal: new Float64Array(width).fill(1) } };
}
