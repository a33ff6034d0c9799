import { LimitError } from "../../../errors.js";
import { activationWgsl, isIdentity, type Activation } from "../../../model/activation.js";
import type { PlannedMatrix } from "../../../plan/matrices.js";
import type { FusedProgram, Statement, Vector } from "./statements.js";

/** The text of a fused kernel, and what its buffers of weights hold, in vec4s, by their names. */
export interface FusedText {
  readonly text: string;
  readonly weights: ReadonlyMap<string, Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>>;
  /** How long the text is, in multiply-adds of one point. */
  readonly size: number;
}

/** An activation is about as long as this many multiply-adds. */
const ACTIVATION_SIZE = 30;
/**
 * And the read of an array's element as this many: it takes SwiftShader a dozen slots of a stack frame of 512 KiB, and a text that
 * needs more ends the process, as 1-128-...-128-1 with eight hidden layers did by four points.
 */
const READ_SIZE = 1.5;

export type Load = Extract<Statement, { kind: "load" }>;
export type Sum = Extract<Statement, { kind: "sum" }>;
export type Contract = Extract<Statement, { kind: "contract" }>;
export type Norm = Extract<Statement, { kind: "norm" }>;
export type NormTangent = Extract<Statement, { kind: "norm tangent" }>;

export const COMPONENTS = ["x", "y", "z", "w"] as const;

/** What all forms share: the interface of the kernel, its inputs and outputs, and the activations of all points. */
export abstract class Writer {
  protected readonly lines: string[] = [];
  /** Stores of each point, at the end. */
  private readonly stores: string[][];
  private readonly activations = new Map<string, string>();
  protected names = 0;

  constructor(
    protected readonly program: FusedProgram,
    protected readonly points: number,
  ) {
    this.stores = COMPONENTS.slice(0, points).map(() => []);
  }

  write(statement: Statement): void {
    switch (statement.kind) {
      case "load":
        return this.load(statement);
      case "sum":
        return this.sum(statement);
      case "norm":
        return this.norm(statement);
      case "norm tangent":
        return this.normTangent(statement);
      case "contract":
        return this.contract(statement);
      case "store":
        return this.store(statement);
    }
  }

  protected abstract load(statement: Load): void;
  protected abstract sum(statement: Sum): void;
  protected abstract norm(statement: Norm): void;
  protected abstract normTangent(statement: NormTangent): void;
  protected abstract contract(statement: Contract): void;
  /** What an element of a vector is called. */
  protected abstract element(vector: Vector, index: number): string;
  /** The buffers of weights as they are declared, and what they hold. */
  protected abstract weightsBindings(): string[];
  protected abstract packed(): FusedText["weights"];
  /** What main needs beyond the number of the invocation, and how it begins. */
  protected builtins(): string {
    return "";
  }

  protected fresh(prefix: string): string {
    return `${prefix}${this.names++}`;
  }

  /** V of a number of each point. */
  protected ofPoints(of: (point: number) => string): string {
    return this.points === 1
      ? of(0)
      : `V(${COMPONENTS.slice(0, this.points)
          .map((_, lane) => of(lane))
          .join(", ")})`;
  }

  protected ofPoint(name: string, lane: number): string {
    return this.points === 1 ? name : `${name}.${COMPONENTS[lane]}`;
  }

  /** σ(z) and σ'(z) of all points, as two expressions. */
  protected activate(activation: Activation, z: string): { value: string; slope: string } {
    if (isIdentity(activation)) return { value: z, slope: "V(1.0)" };
    const text = activationWgsl(activation);
    let name = this.activations.get(text);
    if (name === undefined) this.activations.set(text, (name = `activation_${this.activations.size}`));
    const results = COMPONENTS.slice(0, this.points).map((_, lane) => {
      const result = this.fresh("q");
      this.lines.push(`let ${result} = ${name}(${this.ofPoint(z, lane)});`);
      return result;
    });
    return { value: this.ofPoints((lane) => `${results[lane]}.x`), slope: this.ofPoints((lane) => `${results[lane]}.y`) };
  }

  /**
   * How a norm is computed once the least and the largest entry are known, as shaders/norm.wgsl does: the normalised value of an
   * entry, r times its distance from the mean; `sum` adds up what `of` makes of each entry.
   */
  protected normOf(
    { centered, epsilon, x, inverseDeviation }: Norm,
    [low, high]: readonly [string, string],
    sum: (of: (entry: string) => string) => string,
  ): (entry: string) => string {
    const root = literal(Math.sqrt(epsilon));
    const named = (prefix: string, expression: string): string => {
      const name = this.fresh(prefix);
      this.lines.push(`let ${name} = ${expression};`);
      return name;
    };
    const scaleOf = (largest: string, least: string): string =>
      named(
        "scale",
        this.ofPoints((point) => `norm_scale(${this.ofPoint(largest, point)}, ${least})`),
      );
    let mean = named("mean", "V(0.0)");
    if (centered) {
      const scale = scaleOf(named("largest", `max(${high}, -${low})`), "0.0");
      const total = sum((entry) => `${scale} * ${entry} * ${literal(1 / x.width)}`);
      mean = named("mean", `clamp(${total} / ${scale}, ${low}, ${high})`);
    }
    const scale = scaleOf(named("largest", `max(${high} - ${mean}, ${mean} - ${low})`), root);
    const apart = (entry: string): string => `${scale} * (${entry} - ${mean})`;
    // What rounding the mean has left.
    const rest = centered ? sum((entry) => `${apart(entry)} * ${literal(1 / x.width)}`) : null;
    const distance = (entry: string): string => (rest === null ? `(${apart(entry)})` : `(${apart(entry)} - ${rest})`);
    const variance = sum((entry) => `${distance(entry)} * ${distance(entry)} * ${literal(1 / x.width)}`);
    const both = COMPONENTS.slice(0, this.points).map((_, point) =>
      named("r", `inverse_deviation_of(${this.ofPoint(variance, point)}, ${root}, ${this.ofPoint(scale, point)})`),
    );
    const scaled = named(
      "scaled",
      this.ofPoints((point) => `${both[point]}.x`),
    );
    this.keepInverseDeviation(
      inverseDeviation,
      this.ofPoints((point) => `${both[point]}.y`),
    );
    return (entry) => `${scaled} * ${distance(entry)}`;
  }

  protected abstract keepInverseDeviation(vector: Vector, expression: string): void;

  protected input({ from }: Load, index: string): string {
    return this.ofPoints((point) => `${from}[p.${from}_offset + point_${point} * p.${from}_stride + ${index}]`);
  }

  private output(what: string, name: string, index: string): void {
    this.stores.forEach((lines, lane) =>
      lines.push(`${what}[p.${what}_offset + point_${lane} * p.${what}_stride + ${index}] = ${this.ofPoint(name, lane)};`),
    );
  }

  private store({ from, what }: Extract<Statement, { kind: "store" }>): void {
    const names = Array.from({ length: from.width }, (_, index) => this.element(from, index));
    if (what !== "divergence") return names.forEach((name, index) => this.output(what, name, `${index}u`));
    const sum = this.fresh("sum");
    this.lines.push(`let ${sum} = ${names.join(" + ") || "V(0.0)"};`);
    this.output(what, sum, "0u");
  }

  /** How long a line is, in multiply-adds of one point. */
  private sizeOf(line: string): number {
    if (line.includes(" += ")) return 1;
    if (/ = \w+\[\d+u\];$/.test(line)) return READ_SIZE;
    return line.includes("= activation_") ? ACTIVATION_SIZE / this.points : 0;
  }

  finish(): FusedText {
    const { statements } = this.program;
    const loads = new Set(statements.flatMap((statement) => (statement.kind === "load" ? [statement.from] : [])));
    const stored = new Set(statements.flatMap((statement) => (statement.kind === "store" ? [statement.what] : [])));
    const buffers = [
      ...[...loads].map((name) => `<storage, read> ${name}: array<f32>`),
      ...[...stored].map((name) => `<storage, read_write> ${name}: array<f32>`),
      ...this.weightsBindings(),
    ];
    const functions = [...this.activations].map(([text, name]) => text.replace("fn activation(", `fn ${name}(`));
    const text = `// The ${[...stored].join(" and ")} of a plan, all layers of a point in one invocation, written from the plan's instructions.
// One invocation takes ${this.points} consecutive points; V holds one number of each. Past the last point it computes that one
// again and writes the same numbers: a branch would cost some compilers two thirds of the speed of such long code.
// points [rows, d] and context [rows or 1, c] at their strides; value [rows, d]; divergence [rows]; diagonal [rows, K].${this.weightsBindings().length > 0 ? "\n// weights: the numbers of matrices and biases in the order in which the text reads them." : ""}
// Needs: lib/dispatch.wgsl, lib/special.wgsl, lib/activations.wgsl, lib/norms.wgsl.

struct Parameters {
  rows: u32,
  points_offset: u32,
  points_stride: u32,
  context_offset: u32,
  context_stride: u32,
  value_offset: u32,
  value_stride: u32,
  divergence_offset: u32,
  divergence_stride: u32,
  diagonal_offset: u32,
  diagonal_stride: u32,
}

alias V = ${this.points === 1 ? "f32" : `vec${this.points}f`};

@group(0) @binding(0) var<uniform> p: Parameters;
${buffers.map((buffer, index) => `@group(0) @binding(${index + 1}) var${buffer};`).join("\n")}

${functions.join("\n")}
@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u${this.builtins()}) {
let i = invocation_index(id, workgroups);
${COMPONENTS.slice(0, this.points)
  .map((_, lane) => `let point_${lane} = min(i * ${this.points}u + ${lane}u, p.rows - 1u);`)
  .join("\n")}
${this.lines.join("\n")}
${this.stores.flat().join("\n")}
}
`;
    const size = this.lines.reduce((sum, line) => sum + this.sizeOf(line), 0);
    return { text, weights: this.packed(), size };
  }
}

export function numberOf(matrix: PlannedMatrix, row: number, column: number): number {
  return matrix.build().data[row * matrix.columns + column]!;
}

/** A float32 in WGSL. @throws LimitError where the number is none. */
export function literal(value: number): string {
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded)) throw new LimitError(`the weight ${value} is no float32; expected at most 3.4e38`);
  const text = String(rounded);
  return `${/[.e]/.test(text) ? text : `${text}.0`}f`;
}
