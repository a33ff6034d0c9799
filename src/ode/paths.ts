import {
  control,
  LEAST_OF_SPAN,
  LEAST_STEP,
  stagesOf,
  statuses,
  tableaus,
  timeOf,
  type Solver,
  type Status,
  type Tableau,
} from "./tableaus.js";

type Numbers = Float32Array | Float64Array;

/** Which steps paths make. */
export interface Stepping {
  readonly solver: Solver;
  readonly rtol: number;
  readonly atol: number;
  /** How many steps of one size; null where the error decides. */
  readonly steps: number | null;
  /** After so many tries of a step with error control a path is given up. */
  readonly maxSteps: number;
}

/** Where paths lead, and how. */
export interface PathsOptions {
  readonly from: number;
  readonly to: number;
  readonly stepping: Stepping;
  /** Of f: what its rounding makes of an error bounds steps from below. */
  readonly precision: "float32" | "float64";
  /** Whether a path keeps its row of the batch for good, as it must where its probes go by its row. Default false. */
  readonly keepsRows?: boolean | undefined;
}

/** A step of less than this part of the whole, and of t, is too small for times in float64. */
const LEAST_OF_TIME = 2 ** -49;

/** Floats of a path that is integrated by a solver, with `size` numbers along it: what {@link Paths} allocates for each. */
export function floatsOf(solver: Solver, size: number): number {
  return size * (1 + tableaus[solver].b.length) + OWN;
}
/** Of a path beside z and its stages. */
const OWN = 4;

/**
 * Paths of points in lockstep, in float64 on the host: dz/dt of z = (x, l), where l is what is carried along x, comes from elsewhere. Each
 * round asks for the slopes of one stage of all paths that are on their way, row by row, and takes them:
 *
 *     while (paths.rows > 0) {
 *       paths.ask(x, null, times);
 *       // ẋ and l̇ of the first `rows` rows
 *       paths.take(value, divergence, 1);
 *     }
 *
 * No path sees another: each has steps of its own, by the rules of shaders/ode_stage.wgsl and shaders/ode_control.wgsl.
 */
export class Paths {
  /** How many rows the batch has; 0 when no path is on its way. */
  rows: number;
  /** The path of each row. */
  readonly pathOf: Uint32Array;
  /** How many paths have come to an end. */
  done = 0;
  private readonly tableau: Tableau;
  private readonly size: number;
  private readonly stages: number;
  /** [count, 1 + stages, size]: z, and the slopes of the stages of its step. */
  private readonly numbers: Float64Array;
  /** Of each path, where the error decides. */
  private readonly time: Float64Array;
  private readonly step: Float64Array;
  private readonly errorBefore: Float64Array;
  private readonly attempts: Uint32Array;
  /** 0 on its way; then as {@link statuses} less 1. */
  private readonly ends: Uint8Array;
  private readonly next: Float64Array;
  /** Which stage comes, of all paths. */
  private stage = 0;
  /** Steps of one size that are made. */
  private made = 0;

  /**
   * @param points x [count, d] at the beginning.
   * @param carried l [count, extra] there; null: zeros.
   */
  constructor(
    private readonly options: PathsOptions,
    readonly count: number,
    private readonly width: number,
    private readonly extra: number,
    points: Float64Array,
    carried: Float64Array | null,
  ) {
    const { solver, steps } = options.stepping;
    this.tableau = tableaus[solver];
    this.stages = steps === null ? this.tableau.b.length : stagesOf(this.tableau);
    this.size = width + extra;
    this.numbers = new Float64Array(count * (1 + this.stages) * this.size);
    this.time = new Float64Array(count).fill(options.from);
    this.step = new Float64Array(count).fill(steps === null ? 0 : (options.to - options.from) / steps);
    // As if the error before had been the tolerance.
    this.errorBefore = new Float64Array(count).fill(1);
    this.attempts = new Uint32Array(count);
    this.ends = new Uint8Array(count);
    this.next = new Float64Array(this.size);
    this.rows = count;
    this.pathOf = new Uint32Array(count);
    for (let path = 0; path < count; path++) {
      const at = this.at(path);
      this.pathOf[path] = path;
      for (let k = 0; k < width; k++) this.numbers[at + k] = points[path * width + k]!;
      if (carried) for (let k = 0; k < extra; k++) this.numbers[at + width + k] = carried[path * extra + k]!;
    }
  }

  /** Whether all paths ask for one time now. */
  get shareTime(): boolean {
    return this.options.stepping.steps !== null || this.stage === 0;
  }

  /**
   * Where slopes are wanted now: x [rows, d], what is carried [rows, extra] where it is asked for, and t [rows]. A path that has come to
   * its end, but keeps its row, leaves what stands there.
   */
  ask(x: Float64Array, carried: Float64Array | null, times: Float64Array): void {
    const { numbers, size, width, extra, stage, tableau, pathOf, ends, rows } = this;
    const { from, to, stepping } = this.options;
    const weights = tableau.a[stage]!;
    const c = tableau.c[stage]!;
    const asked = carried ? size : width;
    const [least, most] = [Math.min(from, to), Math.max(from, to)];
    const shared = stepping.steps === null ? from : timeOf((this.made + c) / stepping.steps, from, to);
    for (let row = 0; row < rows; row++) {
      const path = pathOf[row]!;
      if (ends[path] !== 0) continue;
      const at = this.at(path);
      const h = this.step[path]!;
      for (let k = 0; k < asked; k++) {
        let y = numbers[at + k]!;
        if (stage > 0) {
          let sum = 0;
          for (let j = 0; j < stage; j++) sum += weights[j]! * numbers[at + (1 + j) * size + k]!;
          y += h * sum;
        }
        if (k < width) x[row * width + k] = y;
        else carried![row * extra + k - width] = y;
      }
      // Rounding leads beyond neither end.
      times[row] = stepping.steps === null ? Math.min(Math.max(this.time[path]! + c * h, least), most) : shared;
    }
  }

  /** The slopes of what was asked for: ẋ [rows, d], and `sign` times what has the slope of what is carried [rows, extra]. */
  take(value: Numbers, carried: Numbers, sign: 1 | -1): void {
    const { numbers, size, width, extra, pathOf, rows } = this;
    for (let row = 0; row < rows; row++) {
      const at = this.at(pathOf[row]!) + (1 + this.stage) * size;
      for (let k = 0; k < width; k++) numbers[at + k] = value[row * width + k]!;
      for (let k = 0; k < extra; k++) numbers[at + width + k] = sign * carried[row * extra + k]!;
    }
    const isFirst = this.stage++ === 0;
    if (this.options.stepping.steps !== null) {
      if (this.stage === this.stages) this.endFixed(this.options.stepping.steps);
      return;
    }
    if (isFirst) this.endRound((path) => this.begin(path));
    else if (this.stage === this.stages) {
      this.endRound((path) => this.endStep(path));
      // The last stage is the first of the next step.
      this.stage = 1;
    }
  }

  /** x at the ends [count, d] and what is carried [count, extra], from row `first` on; NaN of a path that did not get there. */
  into(
    { points, carried, evaluations, status }: { points: Numbers; carried: Numbers; evaluations: Uint32Array; status: Status[] },
    first: number,
  ): void {
    const { count, width, extra, numbers } = this;
    const { steps } = this.options.stepping;
    for (let path = 0; path < count; path++) {
      const at = this.at(path);
      const end = statuses[this.ends[path]! - 1]!;
      for (let k = 0; k < width; k++) points[(first + path) * width + k] = end === "done" ? numbers[at + k]! : NaN;
      for (let k = 0; k < extra; k++) carried[(first + path) * extra + k] = end === "done" ? numbers[at + width + k]! : NaN;
      evaluations[first + path] = steps === null ? 1 + this.attempts[path]! * (this.stages - 1) : steps * this.stages;
      status[first + path] = end;
    }
  }

  private at(path: number): number {
    return path * (1 + this.stages) * this.size;
  }

  private isFinite(at: number): boolean {
    for (let k = 0; k < this.size; k++) if (!Number.isFinite(this.numbers[at + k]!)) return false;
    return true;
  }

  /** Ends a round of all paths on their way; those that have come to an end leave the batch. */
  private endRound(end: (path: number) => Status | null): void {
    const { pathOf, ends } = this;
    let kept = 0;
    for (let row = 0; row < this.rows; row++) {
      const path = pathOf[row]!;
      if (ends[path] === 0) {
        const status = end(path);
        if (status !== null) {
          ends[path] = 1 + statuses.indexOf(status);
          this.done++;
        }
      }
      if (this.options.keepsRows) {
        if (ends[path] === 0) kept = row + 1;
      } else if (ends[path] === 0) pathOf[kept++] = path;
    }
    this.rows = kept;
  }

  /** The end of a step of all paths, where steps have one size. */
  private endFixed(steps: number): void {
    const { numbers, size, stages, step } = this;
    const { b } = this.tableau;
    for (let path = 0; path < this.count; path++) {
      const at = this.at(path);
      for (let k = 0; k < size; k++) {
        let sum = 0;
        for (let j = 0; j < stages; j++) sum += b[j]! * numbers[at + (1 + j) * size + k]!;
        numbers[at + k]! += step[path]! * sum;
      }
    }
    this.stage = 0;
    if (++this.made === steps) this.endRound((path) => (this.isFinite(this.at(path)) ? "done" : "not finite"));
  }

  /** The first slope has come: the first step size, as Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, 1993, II.4. */
  private begin(path: number): Status | null {
    const { numbers, size } = this;
    const { from, to, stepping } = this.options;
    const at = this.at(path);
    if (!this.isFinite(at + size)) return "not finite";
    if (from === to) return "done";
    const whole = to - from;
    let ofState = 0;
    let ofSlope = 0;
    for (let k = 0; k < size; k++) {
      const z = numbers[at + k]!;
      const tolerance = stepping.atol + stepping.rtol * Math.abs(z);
      ofState += (z / tolerance) ** 2;
      ofSlope += (numbers[at + size + k]! / tolerance) ** 2;
    }
    const isKnown = ofState > 1e-10 && ofSlope > 1e-10 && Number.isFinite(ofState) && Number.isFinite(ofSlope);
    const h = isKnown ? (0.01 * Math.sqrt(ofState)) / Math.sqrt(ofSlope) : 0.001 * Math.abs(whole);
    const least = 4 * LEAST_OF_TIME * Math.max(Math.abs(whole), Math.abs(from));
    this.step[path] = Math.sign(whole) * Math.min(Math.max(h, least), Math.abs(whole));
    return null;
  }

  /** All stages of a step have come: it is taken, or tried anew with a smaller one. */
  private endStep(path: number): Status | null {
    const { numbers, size, stages, next, tableau } = this;
    const { to, stepping } = this.options;
    const { order, b } = tableau;
    const error = tableau.error!;
    const exponent = 1 / order;
    const at = this.at(path);
    const last = at + stages * size;
    let h = this.step[path]!;
    let isFinite = true;
    let squares = 0;
    for (let k = 0; k < size; k++) {
      let moved = 0;
      let erred = 0;
      for (let j = 0; j < stages; j++) {
        const slope = numbers[at + (1 + j) * size + k]!;
        moved += b[j]! * slope;
        erred += error[j]! * slope;
      }
      const z = numbers[at + k]!;
      const y = z + h * moved;
      next[k] = y;
      isFinite = isFinite && Number.isFinite(y) && Number.isFinite(numbers[last + k]!);
      squares += ((h * erred) / (stepping.atol + stepping.rtol * Math.max(Math.abs(z), Math.abs(y)))) ** 2;
    }
    const attempts = ++this.attempts[path]!;
    const err = Math.max(Math.sqrt(squares / size), 1e-10);
    isFinite = isFinite && Number.isFinite(err);
    let factor: number = control.least;
    if (isFinite && err <= 1) {
      // After a step that was tried anew, h does not grow at once: the error before says so.
      const wanted = control.safety * err ** (-control.ofError * exponent) * this.errorBefore[path]! ** (control.ofErrorBefore * exponent);
      factor = Math.min(Math.max(wanted, control.least), control.most);
      for (let k = 0; k < size; k++) {
        numbers[at + k] = next[k]!;
        numbers[at + size + k] = numbers[last + k]!;
      }
      if (Math.abs(h) >= Math.abs(to - this.time[path]!)) return "done";
      this.errorBefore[path] = Math.max(err, 1e-4);
      this.time[path]! += h;
    } else if (isFinite) factor = Math.min(Math.max(control.safety * err ** -exponent, control.least), 1);
    const left = to - this.time[path]!;
    h *= factor;
    if (Math.abs(h) >= Math.abs(left)) h = left;
    else if (factor < 1 && Math.abs(h) < this.leastStep(this.time[path]!)) return isFinite ? "step too small" : "not finite";
    this.step[path] = h;
    return attempts >= stepping.maxSteps ? "out of steps" : null;
  }

  private leastStep(t: number): number {
    const { from, to, precision } = this.options;
    const span = Math.abs(to - from);
    const ofTime = LEAST_OF_TIME * Math.max(span, Math.abs(t));
    return precision === "float64"
      ? ofTime
      : Math.max(ofTime, LEAST_STEP * Math.min(Math.abs(t - from), Math.abs(to - t)), LEAST_OF_SPAN * span);
  }
}
