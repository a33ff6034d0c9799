import type { GradientPlan, TracePlan } from "../plan/plan.js";
import { sizeOf, zeros, type PlannedMatrix } from "../plan/matrices.js";
import { drawsOf } from "../plan/orthogonal.js";
import { KINEMATICS, kinematicsOf, sizeOf as sizeOfOutput } from "../plan/outputs.js";
import {
  isOnes,
  multiplyAddsOf,
  rowsOf,
  widthOfTarget,
  type Factor,
  type Register,
  type Rows,
  type Scale,
  type TangentInstruction,
  type Tangents,
  type Target,
  type Weighting,
} from "../plan/program.js";
import { curvatureName, inverseDeviationName, slopeName, UNMOVED, valueName, type ForwardSteps } from "./forward.js";
import { asBits, asProduct, asRows, onesRow, quads, Slots, type ChunkRecorder, type Values } from "./recorder.js";
import type { Binding } from "./steps.js";
import { partsPerTerm, recordSums, termsPerPoint } from "./terms.js";
import { bandOf, productInvocations, tilesAcross, type Scaling } from "./tile.js";

/** Tangents, or rows contracted with them: where column k of point b is found, in vec4. */
export interface Columns {
  readonly binding: Binding;
  readonly offset: number;
  readonly perPoint: number;
  readonly perColumn: number;
}

/** Columns of the points' Jacobians, in floats. */
interface Place {
  readonly binding: Binding;
  readonly offset: number;
  readonly perPoint: number;
  readonly perRow: number;
}

/** Writes the steps of a trace: pass by pass over the tangents, from seed to end. */
export class TangentSteps {
  /** Products of scales, by what they are made of. */
  private readonly products = new Map<string, Values>();
  /** Constant factors, by their place in the keys of products. */
  private readonly constants: PlannedMatrix[] = [];

  constructor(
    protected readonly chunk: ChunkRecorder,
    protected readonly forward: ForwardSteps,
  ) {}

  write(plan: TracePlan, instructions: readonly TangentInstruction[]): void {
    if (instructions.some(({ kind }) => kind === "contract")) this.chunk.scratch("terms", this.chunk.count * termsPerPoint(this.chunk));
    const registers = new Slots("tangents");
    for (let column = 0; column < plan.tangents; column += this.chunk.request.tangentsAtOnce) {
      const columns = Math.min(this.chunk.request.tangentsAtOnce, plan.tangents - column);
      const before = this.chunk.work;
      this.pass(plan, instructions, column, columns, registers);
      if (column + columns < plan.tangents) this.chunk.submitWhenFull(this.chunk.work - before);
    }
  }

  /** The tangents [column, column + columns) of every point, from seed to end. */
  private pass(plan: TracePlan, instructions: readonly TangentInstruction[], column: number, columns: number, slots: Slots): void {
    const pass = new TangentPass(column, columns);
    if (readsRows(instructions, "probes")) pass.probes = this.probes(plan, column, columns);
    if (readsRows(instructions, "given")) pass.given = this.given();
    const lastUse = new Map<number, number>();
    instructions.forEach((instruction, index) => {
      for (const { index: register } of registersOf(instruction)) lastUse.set(register, index);
    });
    instructions.forEach((instruction, index) => {
      this.run(plan, instruction, pass, slots);
      for (const [register, name] of pass.held)
        if (lastUse.get(register) === index) {
          slots.free(name);
          pass.held.delete(register);
        }
    });
    if (!instructions.some(({ kind }) => kind === "contract") && plan.method !== "jvp") this.diagonal(column, columns);
  }

  protected run(plan: TracePlan | GradientPlan, instruction: TangentInstruction, pass: TangentPass, slots: Slots): void {
    switch (instruction.kind) {
      case "contract":
        if (!instruction.once || pass.column === 0) this.contract(plan, instruction, pass);
        return;
      case "carry":
        return this.carry(instruction, pass, slots);
      case "blend":
        return this.blend(instruction, pass, slots);
      case "norm tangent":
        return this.normTangent(instruction, pass, slots);
    }
  }

  protected carry(instruction: Extract<TangentInstruction, { kind: "carry" }>, pass: TangentPass, slots: Slots): void {
    const { matrix, from } = instruction;
    const points = this.pointsOf(instruction.into);
    const rows = points * pass.columns;
    const tile = this.chunk.tileOf(matrix);
    const end = this.scaleValues(instruction.endScale, matrix.rows);
    const { tangent, scale, scaling } = this.inputOf(from, matrix, pass.columns, pass);
    const target = this.target(instruction.into, pass, slots);
    this.chunk.add({
      label: `carry by ${matrix.name}`,
      kernel: "carry",
      tile,
      scaling,
      parameters: {
        rows,
        columns: pass.columns,
        ...bandOf(matrix),
        outer: quads(matrix.rows),
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
        ...target.strides,
        endScalePerPoint: end.perRow,
        adds: instruction.adds ? 1 : 0,
      },
      bindings: {
        weight: asProduct(matrix, tile),
        tangent: tangent.binding,
        scale: scale.binding,
        endScale: end.binding,
        out: target.binding,
      },
      invocations: productInvocations(tile, rows, tilesAcross(tile, matrix.rows)),
      multiplyAdds: rows * sizeOf(matrix),
    });
  }

  protected blend(instruction: Extract<TangentInstruction, { kind: "blend" }>, pass: TangentPass, slots: Slots): void {
    const { from, into, endScale } = instruction;
    const width = widthOfTarget(into);
    const rows = this.pointsOf(into) * pass.columns;
    const scale = this.scaleValues([...from.scale, ...endScale], width);
    const tangent = this.columnsOf(from.rows, pass);
    const target = this.target(into, pass, slots);
    const { weight, parameters } = this.weighting(instruction.weighting ?? null, pass);
    this.chunk.add({
      label: "blend tangents",
      kernel: "blend",
      parameters: {
        rows,
        columns: pass.columns,
        outer: quads(width),
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
        ...parameters,
        ...target.strides,
        adds: instruction.adds ? 1 : 0,
      },
      bindings: { tangent: tangent.binding, scale: scale.binding, weight, out: target.binding },
      invocations: rows * quads(width),
      multiplyAdds: rows * multiplyAddsOf(instruction),
    });
  }

  /** What multiplies tangents as wholes; 1 where nothing does. */
  protected weighting(
    weighting: Weighting | null,
    pass: TangentPass,
  ): { weight: Binding; parameters: Record<"weightOffset" | "weightPerPoint" | "weightPerColumn" | "times", number> } {
    const times = asBits(weighting?.kind === "divergence cotangent" ? weighting.share : 1);
    if (weighting === null)
      return { weight: asRows(onesRow(1)), parameters: { weightOffset: 0, weightPerPoint: 0, weightPerColumn: 0, times } };
    if (weighting.kind === "divergence cotangent") {
      const { binding, perPoint } = pass.divergenceCotangent!;
      return { weight: binding, parameters: { weightOffset: 0, weightPerPoint: perPoint, weightPerColumn: 0, times } };
    }
    const { index, width } = weighting.register;
    const weight: Binding = { kind: "scratch", name: pass.names.get(index)! };
    // A register of one number for a point has it for all tangents.
    const parameters = {
      weightOffset: width > 1 ? pass.column : 0,
      weightPerPoint: 4 * quads(width),
      weightPerColumn: width > 1 ? 1 : 0,
      times,
    };
    return { weight, parameters };
  }

  protected normTangent(instruction: Extract<TangentInstruction, { kind: "norm tangent" }>, pass: TangentPass, slots: Slots): void {
    const { node: index, centered, from, into } = instruction;
    const node = this.chunk.graph.nodes[index]!;
    const rows = this.pointsOf(into) * pass.columns;
    const scale = this.scaleValues(from.scale, node.width);
    const tangent = this.columnsOf(from.rows, pass);
    const target = this.target(into, pass, slots);
    this.chunk.add({
      label: `tangents of norm ${index}`,
      kernel: "norm_tangent",
      parameters: {
        rows,
        columns: pass.columns,
        size: node.width,
        width: quads(node.width),
        centered: centered ? 1 : 0,
        tangentOffset: tangent.offset,
        tangentPerPoint: tangent.perPoint,
        tangentPerColumn: tangent.perColumn,
        scalePerPoint: scale.perRow,
      },
      bindings: {
        tangent: tangent.binding,
        scale: scale.binding,
        value: this.chunk.scratch(valueName(index), 0),
        inverseDeviation: this.chunk.scratch(inverseDeviationName(index), 0),
        out: target.binding,
      },
      invocations: rows,
      multiplyAdds: rows * 4 * node.width,
    });
  }

  protected contract(
    plan: TracePlan | GradientPlan,
    instruction: Extract<TangentInstruction, { kind: "contract" }>,
    pass: TangentPass,
  ): void {
    const { matrix, from, width, into } = instruction;
    const columns = instruction.once ? 1 : pass.columns;
    const rows = this.chunk.count * columns;
    const contraction = this.columnsOf(instruction.rows, pass);
    // Without a product between them, both scales meet at once.
    const scale = matrix ? this.scaleValues(instruction.scale, width) : this.scaleValues([...from.scale, ...instruction.scale], width);
    const factor = this.scaleValues(instruction.endScale, instruction.endScale.length > 0 ? plan.tangents : 1);
    // Into a register each term is weighed by its point.
    const weighed = into && pass.divergenceCotangent!;
    const parameters = {
      rows,
      columns,
      contractionOffset: contraction.offset,
      contractionPerPoint: contraction.perPoint,
      contractionPerColumn: contraction.perColumn,
      contractionScalePerPoint: scale.perRow,
      factorPerPoint: weighed ? weighed.perPoint : factor.perRow * 4,
      factorPerColumn: instruction.endScale.length > 0 ? 1 : 0,
      firstColumn: instruction.once ? 0 : pass.column,
      termsPerPoint: into ? 4 * quads(into.width) : termsPerPoint(this.chunk),
      adds: instruction.adds ? 1 : 0,
    };
    const bindings = {
      contraction: contraction.binding,
      contractionScale: scale.binding,
      factor: weighed ? weighed.binding : factor.binding,
      terms: into
        ? this.chunk.scratch(pass.names.get(into.index)!, this.chunk.count * 4 * quads(into.width))
        : this.chunk.scratch("terms", 0),
    };
    const addressOf = (tangent: Columns): Record<string, number> => ({
      tangentOffset: tangent.offset,
      tangentPerPoint: tangent.perPoint,
      tangentPerColumn: tangent.perColumn,
    });
    if (!matrix) {
      const tangent = this.columnsOf(from.rows, pass);
      this.chunk.add({
        label: "contract the tangents",
        kernel: "dot",
        parameters: { ...parameters, ...addressOf(tangent), width: quads(width) },
        bindings: { ...bindings, tangent: tangent.binding },
        invocations: rows,
        multiplyAdds: rows * width,
      });
      return;
    }
    const { tangent, scale: tangentScale, scaling } = this.inputOf(from, matrix, columns, pass);
    const tile = this.chunk.tileOf(matrix);
    this.chunk.add({
      label: `carry by ${matrix.name} and contract`,
      kernel: "contract",
      tile,
      scaling,
      parameters: {
        ...parameters,
        ...addressOf(tangent),
        ...bandOf(matrix),
        outer: quads(matrix.rows),
        parts: partsPerTerm(this.chunk),
        scalePerPoint: tangentScale.perRow,
      },
      bindings: { ...bindings, weight: asProduct(matrix, tile), tangent: tangent.binding, scale: tangentScale.binding },
      invocations: productInvocations(tile, rows, partsPerTerm(this.chunk)),
      multiplyAdds: rows * multiplyAddsOf(instruction),
    });
  }

  private diagonal(column: number, columns: number): void {
    const d = this.chunk.graph.stateSize;
    const { route, plan, count } = this.chunk;
    const terms = this.chunk.scratch("terms", count * termsPerPoint(this.chunk));
    const { binding, ...place } = this.jacobian(column, columns);
    this.chunk.add({
      label: "diagonal of the Jacobian",
      kernel: "diagonal",
      parameters: { rows: count * columns, columns, ...place, first: column, termsPerPoint: termsPerPoint(this.chunk) },
      bindings: { jacobian: binding, terms },
      invocations: count * columns,
    });
    this.kinematics(column, columns, { binding, ...place });
    if (route.to === "host" && plan.outputs.includes("jacobian"))
      this.chunk.submit([{ what: "jacobian", scratch: "jacobian", width: d * columns, first: column, columns }]);
  }

  /** What is made of the whole Jacobian, once its last columns are there; what comes in strips is put together first. */
  private kinematics(column: number, columns: number, strip: Place): void {
    const { chunk } = this;
    const { count } = chunk;
    const { stateSize: d } = chunk.graph;
    const wanted = kinematicsOf(chunk.plan.outputs);
    if (wanted.length === 0) return;
    let { binding: jacobian, offset, perPoint } = strip;
    if (strip.perRow === d) offset -= column;
    else {
      jacobian = chunk.scratch("whole jacobian", count * d * d);
      recordSums(chunk, strip.binding, columns, columns, { binding: jacobian, offset: column, stride: d, width: columns }, 1, count * d);
      [offset, perPoint] = [0, d * d];
    }
    if (column + columns < d) return;
    if (this.mustCopy()) recordSums(chunk, jacobian, d * d, d * d, chunk.outer("jacobian", d * d));
    for (const output of wanted) {
      const numbers = sizeOfOutput(output, d);
      const multiplyAdds = count * (output === "qCriterion" ? d * d : numbers);
      chunk.submitWhenFull(multiplyAdds);
      const into = chunk.outer(output, numbers);
      const invocations = count * numbers;
      chunk.add({
        label: `the ${output} of the Jacobian`,
        kernel: "kinematics",
        parameters: {
          rows: invocations,
          numbers,
          stateSize: d,
          offset,
          perPoint,
          what: KINEMATICS.indexOf(output),
          outOffset: into.offset,
          outStride: into.stride,
        },
        bindings: { jacobian, out: into.binding },
        invocations,
        multiplyAdds,
      });
    }
  }

  protected probes(plan: TracePlan | GradientPlan, column: number, columns: number): Columns {
    const { stateSize: d } = this.chunk.graph;
    const shared = plan.probesPer === "batch";
    const width = quads(d);
    const rows = columns * (shared ? 1 : this.chunk.count);
    const binding = this.chunk.scratch("probes", rows * width * 4);
    const { route, request } = this.chunk;
    const { parameters } = request;
    const isTraining = route.to === "device" && route.outer.step !== undefined;
    this.chunk.add({
      label: "Rademacher probes",
      kernel: "probes",
      parameters: {
        rows,
        columns,
        stateSize: d,
        width,
        firstPoint: shared ? 0 : request.first,
        firstColumn: column,
        seed: parameters.seed,
        ...drawsOf(d, parameters.orthogonal),
      },
      bindings: { step: isTraining ? this.chunk.outer("step", 1).binding : asRows(zeros(1, 1)), probes: binding },
      invocations: rows * width,
    });
    return { binding, offset: 0, perPoint: shared ? 0 : columns * width, perColumn: width };
  }

  private given(): Columns {
    const { stateSize: d } = this.chunk.graph;
    const width = quads(d);
    const binding = this.chunk.scratch("given tangents", this.chunk.count * width * 4);
    this.forward.gather("gather the tangents", this.chunk.outer("tangents", d), d, this.chunk.count, binding, UNMOVED);
    return { binding, offset: 0, perPoint: width, perColumn: 0 };
  }

  /** What a product reads: the tangents, their scale, and how they meet. A scale of ones is a tangent itself. */
  protected inputOf(
    { rows, scale }: Tangents,
    matrix: PlannedMatrix,
    columns: number,
    pass: TangentPass,
  ): { tangent: Columns; scale: Values; scaling: Scaling } {
    const values = this.scaleValues(scale, matrix.columns);
    if (scale.length > 0 && isOnes(rows))
      return { tangent: { binding: values.binding, offset: 0, perPoint: values.perRow, perColumn: 0 }, scale: values, scaling: "none" };
    const tile = this.chunk.tileOf(matrix);
    const together = columns % tile.rows === 0 && tile.scalings.includes("together");
    return { tangent: this.columnsOf(rows, pass), scale: values, scaling: scale.length === 0 ? "none" : together ? "together" : "each" };
  }

  protected columnsOf(rows: Rows, pass: TangentPass): Columns {
    switch (rows.kind) {
      case "matrix": {
        const width = quads(rows.matrix.columns);
        return { binding: asRows(rows.matrix), offset: pass.column * width, perPoint: 0, perColumn: width };
      }
      case "probes":
        return pass.probes!;
      case "given":
        return pass.given!;
      case "register": {
        const { index, width, shared } = rows.register;
        const binding: Binding = { kind: "scratch", name: pass.names.get(index)! };
        const columns = rows.register.per === "point" ? 1 : pass.columns;
        return {
          binding,
          offset: 0,
          perPoint: shared ? 0 : columns * quads(width),
          perColumn: rows.register.per === "point" ? 0 : quads(width),
        };
      }
      case "value": {
        const node = this.chunk.graph.nodes[rows.node]!;
        const { binding, perRow } = this.factorValues(rows);
        return { binding, offset: 0, perPoint: perRow === 0 ? 0 : quads(node.width), perColumn: 0 };
      }
      case "value cotangent":
        return pass.valueCotangent!;
    }
  }

  protected pointsOf(into: Target): number {
    return into.kind === "register" && into.register.shared ? 1 : this.chunk.count;
  }

  /** Where tangents are written, and their strides in floats. */
  private target(
    into: Target,
    pass: TangentPass,
    slots: Slots,
  ): { binding: Binding; strides: Record<"outOffset" | "outPerPoint" | "outPerColumn" | "outPerRow" | "outRows", number> } {
    const { columns } = pass;
    if (into.kind === "register") {
      const { index, width } = into.register;
      if (!pass.names.has(index)) {
        const name = slots.take(into.register.shared);
        pass.names.set(index, name);
        pass.held.set(index, name);
      }
      const padded = quads(width) * 4;
      const binding = this.chunk.scratch(pass.names.get(index)!, this.pointsOf(into) * columns * padded);
      return { binding, strides: { outOffset: 0, outPerPoint: columns * padded, outPerColumn: padded, outPerRow: 1, outRows: padded } };
    }
    const d = into.width;
    if (into.kind === "tangent") {
      const { binding, offset, stride } = this.chunk.resultAddress("jvp", d);
      return { binding, strides: { outOffset: offset, outPerPoint: stride, outPerColumn: 1, outPerRow: 1, outRows: d } };
    }
    const { binding, offset, perPoint, perRow } = this.jacobian(pass.column, columns);
    return { binding, strides: { outOffset: offset, outPerPoint: perPoint, outPerColumn: 1, outPerRow: perRow, outRows: d } };
  }

  /** Whether what is made of the Jacobian may lie in its buffer, which one dispatch may not read and write. */
  private mustCopy(): boolean {
    const { route, plan } = this.chunk;
    return route.to === "device" && route.sharesBuffers && plan.outputs.includes("jacobian") && kinematicsOf(plan.outputs).length > 0;
  }

  /** Where the columns [column, column + columns) of the points' Jacobians lie: in the caller's buffer, or by themselves. */
  private jacobian(column: number, columns: number): Place {
    const d = this.chunk.graph.stateSize;
    const { route, plan } = this.chunk;
    if (route.to === "device" && plan.outputs.includes("jacobian") && !this.mustCopy()) {
      const { binding, offset, stride } = this.chunk.outer("jacobian", d * d);
      return { binding, offset: offset + column, perPoint: stride, perRow: d };
    }
    const binding = this.chunk.scratch("jacobian", this.chunk.count * d * columns);
    return { binding, offset: 0, perPoint: d * columns, perRow: columns };
  }

  /** A scale as rows, the product of its factors where there are several, ones where there is none. */
  protected scaleValues(scale: Scale, width: number): Values {
    if (scale.length === 0) return { binding: asRows(onesRow(width)), perRow: 0 };
    const [first, ...rest] = scale;
    if (rest.length === 0) return this.factorValues(first!);
    const key = scale
      .map((factor) => this.keyOf(factor))
      .toSorted()
      .join(" ");
    let product = this.products.get(key);
    if (!product) {
      let values = this.factorValues(first!);
      rest.forEach((factor, index) => {
        const other = this.factorValues(factor);
        const perRow = values.perRow || other.perRow ? quads(width) : 0;
        const rows = perRow === 0 ? 1 : this.chunk.count;
        const into = this.chunk.padded(`scale ${key} ${index}`, rows, width);
        this.forward.combine(
          "multiply scales",
          null,
          rows,
          { binding: asRows(zeros(1, width)), perRow: 0 },
          values,
          other,
          into,
          null,
          width,
        );
        values = { binding: into.binding, perRow };
      });
      this.products.set(key, (product = values));
    }
    return product;
  }

  private factorValues(factor: Factor): Values {
    if (factor.kind === "constant") return { binding: asRows(factor.row), perRow: 0 };
    const node = this.chunk.graph.nodes[factor.node]!;
    const perRow = this.chunk.isShared(node) ? 0 : quads(node.width);
    const name = { slope: slopeName, curvature: curvatureName, value: valueName }[factor.kind](node.index);
    return { binding: this.chunk.scratch(name, 0), perRow };
  }

  private keyOf(factor: Factor): string {
    if (factor.kind !== "constant") return `${factor.kind} ${factor.node}`;
    if (!this.constants.includes(factor.row)) this.constants.push(factor.row);
    return `constant ${this.constants.indexOf(factor.row)}`;
  }
}

export class TangentPass {
  probes: Columns | null = null;
  given: Columns | null = null;
  /** ∂L/∂f, and ∂L/∂(∇·f), where it is found in floats; null where none are given. */
  valueCotangent: Columns | null = null;
  divergenceCotangent: Columns | null = null;
  /** The scratch buffer of each register, and of those that are still needed. */
  readonly names: Map<number, string> = new Map();
  readonly held: Map<number, string> = new Map();

  constructor(
    readonly column: number,
    readonly columns: number,
  ) {}
}

function readsRows(instructions: readonly TangentInstruction[], kind: Rows["kind"]): boolean {
  return instructions.some((instruction) => rowsOf(instruction).some((rows) => rows.kind === kind));
}

function registersOf(instruction: TangentInstruction): Register[] {
  const read = rowsOf(instruction).flatMap((rows) => (rows.kind === "register" ? [rows.register] : []));
  return instruction.kind !== "contract" && instruction.into.kind === "register" ? [...read, instruction.into.register] : read;
}
