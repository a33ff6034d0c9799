import { inputsOf } from "../plan/adjoint.js";
import { ENTRIES } from "../plan/matrices.js";
import type { Output } from "../plan/outputs.js";
import type { GradientPlan } from "../plan/plan.js";
import type { AdjointInstruction, OuterSum, Register, Rows } from "../plan/program.js";
import { inverseDeviationName, UNMOVED, valueName } from "./forward.js";
import { fill, inRows, multiply, type Lying } from "./products.js";
import { asBits, quads, Slots, type ChunkRecorder } from "./recorder.js";
import type { Binding, OuterName, Read } from "./steps.js";
import { TangentPass, TangentSteps } from "./tangents.js";
import { bandOf } from "./tile.js";

/** Sums over points are cut into so many parts that about half as many invocations work on one, and at most into 64. */
const INVOCATIONS_PER_SUM = 2048;
const MOST_PARTS = 64;

/** Writes the steps of a gradient: forwards and back over the tangents, pass by pass, then back over the nodes. */
export class AdjointSteps extends TangentSteps {
  /** Sums that hold something already. */
  private readonly begun = new Set<OuterSum>();
  private readonly slots = new Slots("adjoint");
  private readonly names = new Map<number, string>();

  /** @returns what the host reads of it: the adjoints of points and contexts, and the sums. To the caller's buffers go the former. */
  writeGradient(plan: GradientPlan): Read[] {
    const { before, tangents, after, registers, sums, points, context } = plan.adjoint;
    for (const { index } of registers) this.names.set(index, `register ${index}`);
    // Every register stays, so that what is read back after other steps is still there.
    for (const register of registers) this.chunk.scratch(this.names.get(register.index)!, this.floatsOf(register, plan));
    const { route, request } = this.chunk;
    // In the caller's buffers sums of earlier points stand already.
    if (route.to === "device" && request.first > 0) for (const sum of sums) this.begun.add(sum);
    if (plan.outputs.includes("divergence")) this.chunk.scratch("terms", this.chunk.count * plan.tangents);
    const single = this.passOf(plan, 0, 1);
    this.section(plan, before, single);
    for (let column = 0; column < plan.tangents; column += this.chunk.request.tangentsAtOnce) {
      const columns = Math.min(this.chunk.request.tangentsAtOnce, plan.tangents - column);
      const work = this.chunk.work;
      this.section(plan, tangents, this.passOf(plan, column, columns));
      this.chunk.submitWhenFull(this.chunk.work - work);
    }
    this.section(plan, after, single);
    if (route.to === "device") {
      if (route.marksNonFinite) this.marks();
      this.leave("gradient of points", points);
      this.leave("gradient of context", context);
      return [];
    }
    for (const sum of sums) this.addUp(partsOf(sum, this.chunk), sum.matrix.rows * sum.columns, sum, sumName(sum));
    const reads: Read[] = [];
    if (points) reads.push(this.readOf("points", points, plan));
    if (context) reads.push(this.readOf("context", context, plan));
    for (const sum of sums)
      reads.push({ what: "sum", scratch: sumName(sum), width: sum.matrix.rows * sum.columns, isSum: true, first: sum.index, columns: 0 });
    return reads;
  }

  /** Marks points with what is not finite, and adds the marks up. */
  private marks(): void {
    const { chunk } = this;
    const { stateSize: d, contextSize: c } = chunk.graph;
    if (chunk.route.to !== "device") return;
    const widths = { points: d, context: c, "value cotangent": d, "divergence cotangent": 1 } as const;
    const marks = chunk.scratch(MARKS, 4 * chunk.count);
    let adds = 0;
    for (const [name, width] of Object.entries(widths) as [keyof typeof widths, number][]) {
      if (!chunk.route.outer[name]) continue;
      const { binding, offset, stride } = chunk.outer(name, width);
      chunk.add({
        label: `mark what is not finite in the ${name}`,
        kernel: "mark",
        parameters: { rows: chunk.count, width, offset, stride, notANumber: asBits(NaN), adds },
        bindings: { given: binding, marks },
        invocations: chunk.count,
      });
      adds = 1;
    }
    const parts = partCount(1, 1);
    const binding = chunk.scratch("parts of the marks", parts);
    this.sumOver({ binding, parts }, null, { binding: marks, width: 1, first: 0, adds: chunk.request.first > 0 });
    this.addUp({ binding, parts }, 1, null, MARK_OF_ALL);
  }

  /** Into the caller's buffer, with the marks: a gradient, zeros where nothing reaches what it is for. */
  private leave(name: "gradient of points" | "gradient of context", register: Register | null): void {
    const { chunk } = this;
    if (chunk.route.to !== "device" || !chunk.route.outer[name]) return;
    const width = name === "gradient of points" ? chunk.graph.stateSize : chunk.graph.contextSize;
    const into = chunk.outer(name, width);
    // One row for all is a sum, to which later points add.
    const isShared = into.stride === 0;
    const rows = isShared ? 1 : chunk.count;
    const lying = inRows(into.binding, into.stride, into.offset);
    const adds = isShared && chunk.request.first > 0;
    if (register) {
      const from = inRows(this.bindingOf(register), 4 * quads(register.width));
      const sizes = { n: 1, r: rows, c: width, j: 1 };
      multiply(chunk, `leave the ${name}`, { sizes, into: ENTRIES }, lying, [{ ...ENTRIES, lying: from }], adds);
    } else if (!adds) fill(chunk, `leave the ${name}`, rows, width, lying);
    if (chunk.route.marksNonFinite) this.addMarks(name, lying, rows, width, isShared);
  }

  /** In the caller's buffer, of points that are not finite. */
  markOutput(name: Output): void {
    const width = name === "value" ? this.chunk.graph.stateSize : 1;
    const { binding, offset, stride } = this.chunk.outer(name, width);
    this.addMarks(name, inRows(binding, stride, offset), this.chunk.count, width, false);
  }

  /** NaN into the rows of marked points; into all that sums over points, where one of them is marked. */
  private addMarks(name: OuterName, into: Lying, rows: number, width: number, isSum: boolean): void {
    const mark = this.chunk.scratch(isSum ? MARK_OF_ALL : MARKS, 0);
    const sizes = { n: 1, r: rows, c: width, j: 1 };
    const operand = { row: { r: 1 }, column: {}, lying: inRows(mark, 4) };
    multiply(this.chunk, `mark the ${name}`, { sizes, into: ENTRIES }, into, [operand], true);
  }

  private readOf(what: "points" | "context", register: Register, plan: GradientPlan): Read {
    const width = this.floatsOf(register, plan) / (register.shared ? 1 : this.chunk.count);
    return { what, scratch: this.names.get(register.index)!, width, isSum: register.shared, first: 0, columns: 0 };
  }

  private floatsOf({ width, per, shared }: Register, plan: GradientPlan): number {
    const columns = per === "point" ? 1 : Math.min(plan.tangents, this.chunk.request.tangentsAtOnce);
    return (shared ? 1 : this.chunk.count) * columns * 4 * quads(width);
  }

  private passOf(plan: GradientPlan, column: number, columns: number): TangentPass {
    const pass = new TangentPass(column, columns);
    for (const [index, name] of this.names) pass.names.set(index, name);
    const { before, tangents, after } = plan.adjoint;
    const reads = inputsOf([...before, ...tangents, ...after]);
    if (reads.probes && plan.probesPer) pass.probes = this.probes(plan, column, columns);
    if (reads.value) pass.valueCotangent = this.gathered("value cotangent", this.chunk.graph.stateSize);
    if (reads.divergence) {
      const { binding, perPoint } = this.gathered("divergence cotangent", 1);
      pass.divergenceCotangent = { binding, offset: 0, perPoint: 4 * perPoint, perColumn: 0 };
    }
    return pass;
  }

  /** The caller's rows in whole vec4s. */
  private gathered(name: "value cotangent" | "divergence cotangent", width: number): NonNullable<TangentPass["valueCotangent"]> {
    const given = this.chunk.outer(name, width);
    const rows = given.stride === 0 ? 1 : this.chunk.count;
    const binding = this.chunk.scratch(`gathered ${name}`, rows * 4 * quads(width));
    if (!this.gatheredNames.has(name)) this.forward.gather(`gather the ${name}`, given, width, rows, binding, UNMOVED);
    this.gatheredNames.add(name);
    return { binding, offset: 0, perPoint: given.stride === 0 ? 0 : quads(width), perColumn: 0 };
  }
  private readonly gatheredNames = new Set<string>();

  private section(plan: GradientPlan, instructions: readonly AdjointInstruction[], pass: TangentPass): void {
    for (const given of instructions) {
      // What a pass adds for a point comes to what earlier passes have left.
      const instruction = pass.column > 0 && writesPoints(given) ? { ...given, adds: true, addsDeviation: true } : given;
      switch (instruction.kind) {
        case "fold":
          this.fold(instruction, pass);
          break;
        case "outer":
          this.outer(instruction, pass);
          break;
        case "row sum": {
          const { sum, register } = instruction;
          const width = (register.per === "point" ? 1 : pass.columns) * 4 * quads(register.width);
          const first = pass.column * 4 * quads(register.width);
          // A pass over some of the tangents writes some rows alone: the others begin at 0.
          if (!this.begun.has(sum) && pass.columns < plan.tangents) this.clear(sum);
          this.sumOver(partsOf(sum, this.chunk), sum, { binding: this.bindingOf(register), width, first, adds: this.begun.has(sum) });
          this.begun.add(sum);
          break;
        }
        case "point sum": {
          const { into, register } = instruction;
          const parts = partCount(1, into.width);
          const binding = this.chunk.scratch(`parts of register ${into.index}`, into.width * parts);
          this.sumOver({ binding, parts }, null, { binding: this.bindingOf(register), width: into.width, first: 0, adds: false });
          this.addUp({ binding, parts }, into.width, null, this.names.get(into.index)!);
          break;
        }
        case "norm fold":
          this.normFold(instruction, pass);
          break;
        default:
          this.run(plan, instruction, pass, this.slots);
      }
    }
  }

  private bindingOf({ index }: Register): Binding {
    return { kind: "scratch", name: this.names.get(index)! };
  }

  private fold(instruction: Extract<AdjointInstruction, { kind: "fold" }>, pass: TangentPass): void {
    const { into, endScale, adds, weighting } = instruction;
    const [a, b] = [this.columnsOf(instruction.rows, pass), this.columnsOf(instruction.by, pass)];
    const scale = this.scaleValues(endScale, into.width);
    const { weight, parameters } = this.weighting(weighting, pass);
    const { count } = this.chunk;
    this.chunk.add({
      label: "fold tangents",
      kernel: "fold",
      parameters: {
        rows: count,
        columns: pass.columns,
        outer: quads(into.width),
        aOffset: a.offset,
        aPerPoint: a.perPoint,
        aPerColumn: a.perColumn,
        bOffset: b.offset,
        bPerPoint: b.perPoint,
        bPerColumn: b.perColumn,
        scalePerPoint: scale.perRow,
        ...parameters,
        adds: adds ? 1 : 0,
      },
      bindings: { a: a.binding, b: b.binding, scale: scale.binding, weight, out: this.bindingOf(into) },
      invocations: count * quads(into.width),
      multiplyAdds: count * pass.columns * into.width,
    });
  }

  private outer({ matrix, sum, left, right }: Extract<AdjointInstruction, { kind: "outer" }>, pass: TangentPass): void {
    const { rows: height, columns: width } = matrix;
    const { width: vectors, ...band } = bandOf(matrix);
    const a = this.columnsOf(left, pass);
    const { tangent, scale } = this.inputOf(right, matrix, pass.columns, pass);
    const isScaled = right.scale.length > 0 && tangent.binding !== scale.binding;
    const { binding, parts } = partsOf(sum, this.chunk);
    // What all points share is one row.
    const points = [left, right.rows].some((rows) => this.isOfPoints(rows)) ? this.chunk.count : 1;
    this.chunk.add({
      label: `gradient of ${sum.matrix.name}`,
      kernel: "outer",
      parameters: {
        points,
        columns: pass.columns,
        height,
        width: vectors,
        ...band,
        parts,
        aOffset: a.offset,
        aPerPoint: a.perPoint,
        aPerColumn: a.perColumn,
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: isScaled ? scale.perRow : 0,
        isScaled: isScaled ? 1 : 0,
        first: 0,
        sumsPerRow: sum.columns,
        adds: this.begun.has(sum) ? 1 : 0,
      },
      bindings: {
        a: a.binding,
        tangent: tangent.binding,
        scale: isScaled ? scale.binding : this.scaleValues([], width).binding,
        sums: binding,
      },
      invocations: quads(height) * Math.ceil(band.inner / 2) * parts,
      multiplyAdds: points * pass.columns * sum.matrix.rows * sum.matrix.columns,
    });
    this.begun.add(sum);
  }

  private isOfPoints(rows: Rows): boolean {
    if (rows.kind === "register") return !rows.register.shared;
    return rows.kind === "value" ? !this.chunk.isShared(this.chunk.graph.nodes[rows.node]!) : rows.kind !== "matrix";
  }

  /** Σ over points of rows of `width` floats. */
  private sumOver(
    { binding, parts }: { binding: Binding; parts: number },
    sum: OuterSum | null,
    { binding: rows, width, first, adds }: { binding: Binding; width: number; first: number; adds: boolean },
    count: number = this.chunk.count,
  ): void {
    const ones = this.scaleValues([], 1).binding;
    this.chunk.add({
      label: sum ? `gradient of ${sum.matrix.name}` : "sum over points",
      kernel: "outer",
      parameters: {
        points: count,
        columns: 1,
        height: 1,
        width: quads(width),
        inner: quads(width),
        blockRows: 1,
        blockColumns: width,
        parts,
        aOffset: 0,
        aPerPoint: 0,
        aPerColumn: 0,
        tangentOffset: 0,
        tangentPerPoint: quads(width),
        tangentPerColumn: 0,
        scalePerPoint: 0,
        isScaled: 0,
        first,
        sumsPerRow: width,
        adds: adds ? 1 : 0,
      },
      bindings: { a: ones, tangent: rows, scale: this.scaleValues([], width).binding, sums: binding },
      invocations: Math.ceil(quads(width) / 2) * parts,
      multiplyAdds: count * width,
    });
  }

  /** A sum over no points. */
  private clear(sum: OuterSum): void {
    const parts = partsOf(sum, this.chunk);
    const width = sum.matrix.rows * sum.columns;
    this.sumOver(parts, sum, { binding: this.scaleValues([], 1).binding, width, first: 0, adds: false }, 0);
    this.begun.add(sum);
  }

  /** The parts of each of so many sums, always in one order. */
  private addUp({ binding, parts }: { binding: Binding; parts: number }, sums: number, sum: OuterSum | null, name: string): void {
    this.chunk.add({
      label: `add up ${sum ? `the gradient of ${sum.matrix.name}` : "sums over points"}`,
      kernel: "reduce",
      parameters: { sums, groups: 1, width: parts, outOffset: 0, outStride: 1, factor: asBits(1) },
      bindings: { terms: binding, out: this.chunk.scratch(name, sums) },
      invocations: sums,
    });
  }

  private normFold(instruction: Extract<AdjointInstruction, { kind: "norm fold" }>, pass: TangentPass): void {
    const { node: index, from, tangents, adjoints, into, deviation } = instruction;
    const node = this.chunk.graph.nodes[index]!;
    const tangent = this.columnsOf(from.rows, pass);
    const scale = this.scaleValues(from.scale, node.width);
    const { count } = this.chunk;
    this.chunk.add({
      label: `fold the tangents of norm ${index}`,
      kernel: "norm_fold",
      parameters: {
        rows: count,
        columns: pass.columns,
        size: node.width,
        width: quads(node.width),
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
        adds: instruction.adds ? 1 : 0,
        addsDeviation: instruction.addsDeviation ? 1 : 0,
      },
      bindings: {
        tangent: tangent.binding,
        scale: scale.binding,
        moved: this.columnsOf(tangents, pass).binding,
        adjoint: this.columnsOf(adjoints, pass).binding,
        value: this.chunk.scratch(valueName(index), 0),
        inverseDeviation: this.chunk.scratch(inverseDeviationName(index), 0),
        out: this.bindingOf(into),
        deviation: this.bindingOf(deviation),
      },
      invocations: count,
      multiplyAdds: count * pass.columns * 5 * node.width,
    });
  }
}

/** NaN for each point that is not finite, 4 floats apart, and for all if there is one. */
const MARKS = "marks";
export const MARK_OF_ALL = "mark of all points";

export const sumName = (sum: OuterSum): string => `gradient ${sum.index}`;

/** The parts of a sum over the points, those of each number one after another. */
export function partsOf(sum: OuterSum, chunk: ChunkRecorder): { binding: Binding; parts: number } {
  const { rows } = sum.matrix;
  const parts = partCount(rows, sum.columns);
  return { binding: chunk.scratch(`${PARTS}${sumName(sum)}`, rows * sum.columns * parts), parts };
}

/** Whether a scratch buffer has such parts. */
export function isPartOfSum(name: string): boolean {
  return name.startsWith(PARTS);
}

const PARTS = "parts of ";

/** The same for any number of points, so that memory grows with them by a constant. */
function partCount(height: number, width: number): number {
  return Math.min(MOST_PARTS, Math.max(1, Math.ceil(INVOCATIONS_PER_SUM / (quads(height) * quads(width)))));
}

/** Whether it leaves one row for a point. */
function writesPoints(instruction: AdjointInstruction): boolean {
  if (instruction.kind === "norm fold" || instruction.kind === "fold") return true;
  return (
    (instruction.kind === "carry" || instruction.kind === "blend") &&
    instruction.into.kind === "register" &&
    instruction.into.register.per === "point"
  );
}
