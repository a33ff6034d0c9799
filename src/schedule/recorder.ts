import type { Graph, Node } from "../plan/graph.js";
import { ones, type PlannedMatrix } from "../plan/matrices.js";
import type { PlanParameters } from "../plan/options.js";
import type { Plan } from "../plan/plan.js";
import {
  STEPS_PER_SUBMISSION,
  type Binding,
  type Chunk,
  type OuterName,
  type OuterRows,
  type Read,
  type Route,
  type ScheduleLimits,
  type Step,
  type Submission,
  type Variant,
} from "./steps.js";
import type { Tile } from "./tile.js";

export interface ChunkRequest {
  readonly plan: Plan;
  readonly parameters: PlanParameters;
  readonly first: number;
  readonly count: number;
  readonly tangentsAtOnce: number;
  readonly limits: ScheduleLimits;
  readonly route: Route;
  readonly variant: Variant;
}

/** A buffer with rows of vec4, `perRow` apart; 0 where one row serves all. */
export interface Values {
  readonly binding: Binding;
  readonly perRow: number;
}

/** Where a result of the forward pass is written, in floats. */
export interface Address {
  readonly binding: Binding;
  readonly offset: number;
  readonly stride: number;
  /** How many floats of a row are stored: the node's width, or whole vec4s in scratch. */
  readonly width: number;
}

/** What a step may leave out. */
type Defaulted = "activation" | "tile" | "scaling" | "curved" | "multiplyAdds" | "growth";

/** Collects steps, cut into submissions, and the scratch buffers they need. */
export class StepRecorder {
  /** Multiply-adds of the submission that is being collected. */
  work = 0;
  private readonly scratchBytes = new Map<string, number>();
  private readonly submissions: Submission[] = [];
  private steps: Step[] = [];
  private forwardSteps = 0;

  constructor(readonly limits: Pick<ScheduleLimits, "multiplyAddsPerSubmit">) {}

  scratch(name: string, floats: number): Binding {
    // Kernels read some of these as vec4, so each is a whole number of them.
    this.scratchBytes.set(name, Math.max(this.scratchBytes.get(name) ?? 0, 16 * Math.ceil(floats / 4)));
    return { kind: "scratch", name };
  }

  add(step: Omit<Step, Defaulted> & Partial<Pick<Step, Defaulted>>): void {
    const whole = { activation: null, tile: null, scaling: "none" as const, curved: false, multiplyAdds: 0, growth: null, ...step };
    this.steps.push(whole);
    this.work += whole.multiplyAdds;
  }

  /** f is there. */
  endForward(): void {
    this.forwardSteps = this.submissions.reduce((sum, { steps }) => sum + steps.length, this.steps.length);
  }

  /** Closes the submission where `next` multiply-adds more would be too much. */
  submitWhenFull(next: number): void {
    if (this.work + next > this.limits.multiplyAddsPerSubmit || this.steps.length >= STEPS_PER_SUBMISSION) this.submit([]);
  }

  /** Closes the last submission: the steps of `count` points from `first`. */
  finish(reads: readonly Read[], first = 0, count = 0): Chunk {
    this.submit(reads);
    return { first, count, submissions: this.submissions, scratch: this.scratchBytes, forwardSteps: this.forwardSteps };
  }

  submit(reads: readonly Read[]): void {
    if (this.steps.length === 0 && reads.length === 0) return;
    this.submissions.push({ steps: this.steps, reads });
    this.steps = [];
    this.work = 0;
  }
}

/** The steps of one chunk of points. */
export class ChunkRecorder extends StepRecorder {
  readonly plan: Plan;
  readonly graph: Graph;
  readonly count: number;
  readonly route: Route;

  constructor(readonly request: ChunkRequest) {
    super(request.limits);
    this.plan = request.plan;
    this.graph = request.plan.graph;
    this.count = request.count;
    this.route = request.route;
  }

  /** How a product with a matrix is cut. */
  tileOf({ blocks }: PlannedMatrix): Tile {
    const { plain, tile } = this.request.variant;
    return blocks ? plain : tile;
  }

  override finish(reads: readonly Read[]): Chunk {
    return super.finish(reads, this.request.first, this.count);
  }

  /** Whether the node depends on a context alone that all points share: one row for all. */
  isShared({ moves }: Node): boolean {
    return !moves && this.sharedContext();
  }

  sharedContext(): boolean {
    if (this.graph.contextSize === 0) return true;
    return this.route.to === "host" ? this.route.sharedContext : this.route.outer.context?.stride === 0;
  }

  /** Rows of a scratch buffer in whole vec4s. */
  padded(name: string, rows: number, width: number): Address {
    const floats = quads(width) * 4;
    return { binding: this.scratch(name, rows * floats), offset: 0, stride: floats, width: floats };
  }

  valueAddress(): Address {
    return this.resultAddress("value", this.graph.stateSize);
  }

  /** Where a result goes, [count, width]: to the caller's buffer, or to scratch of its name. */
  resultAddress(name: "value" | "jvp", width: number): Address {
    return this.route.to === "device"
      ? this.outer(name, width)
      : { binding: this.scratch(name, this.count * width), offset: 0, stride: width, width };
  }

  /** The rows of this chunk in a buffer of the caller: bound from an aligned offset on, the rest is added in the kernel. */
  outer(name: OuterName, width: number): Address {
    if (this.route.to === "host") {
      const shared = name === "context" ? this.route.sharedContext : name === "divergence cotangent" && this.route.sharedCotangent === true;
      const rows = shared ? 1 : this.count;
      return { binding: this.scratch(name, rows * width), offset: 0, stride: shared ? 0 : width, width };
    }
    const { first, limits } = this.request;
    return outerAddress(name, this.route.outer[name]!, width, first, this.count, limits.minStorageBufferOffsetAlignment);
  }
}

/** The rows of `count` points from `first` in a buffer of the caller. */
export function outerAddress(
  name: OuterName,
  { offset, stride }: OuterRows,
  width: number,
  first: number,
  count: number,
  alignment: number,
): Address {
  const begin = offset + 4 * first * stride;
  const aligned = Math.floor(begin / alignment) * alignment;
  const end = begin + 4 * ((count - 1) * stride + width);
  return { binding: { kind: "outer", name, offset: aligned, size: end - aligned }, offset: (begin - aligned) / 4, stride, width };
}

/**
 * Scratch buffers that are used again once what they hold is not needed any more. What all points share has buffers of its
 * own, so that every buffer is either of one size or grows in step with the points.
 */
export class Slots {
  private readonly unused: Record<"own" | "shared", string[]> = { own: [], shared: [] };
  private readonly kinds = new Map<string, "own" | "shared">();

  constructor(private readonly name: string) {}

  take(shared: boolean): string {
    const kind = shared ? "shared" : "own";
    const free = this.unused[kind].pop();
    if (free !== undefined) return free;
    const name = `${kind} ${this.name} ${this.kinds.size}`;
    this.kinds.set(name, kind);
    return name;
  }

  free(name: string): void {
    this.unused[this.kinds.get(name)!].push(name);
  }
}

export const quads = (width: number): number => Math.ceil(width / 4);

/** A matrix that a product multiplies by. */
export function asProduct(matrix: PlannedMatrix, { half }: Tile): Binding {
  return { kind: "matrix", matrix, layout: half ? "half product" : "product" };
}

export function asRows(matrix: PlannedMatrix): Binding {
  return { kind: "matrix", matrix, layout: "rows" };
}

export function onesRow(width: number): PlannedMatrix {
  return ones(1, width);
}

/** The bits of a float32, as parameters are all u32. */
export function asBits(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0]!;
}
