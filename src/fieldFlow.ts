import { AnyFlow } from "./anyFlow.js";
import { InputError, quote } from "./errors.js";
import type { Field } from "./evaluation.js";
import { readFlowTimes, type FlowInputs, type FlowTimes, type SolveSettings } from "./flowOptions.js";
import { startRun, type RunOptions } from "./inputs.js";
import { mixBits, unmixBits } from "./mixBits.js";
import type { Integrated } from "./ode/integrate.js";
import { floatsOf, Paths } from "./ode/paths.js";
import { readRunOptions } from "./plan/options.js";

/** Paths that go through together, at most, and the memory that they take. */
const BLOCK_PATHS = 16_384;
const BLOCK_BYTES = 256 * 2 ** 20;

/**
 * A flow of any {@link Field}, with the methods of {@link Flow}: the host makes the paths' steps in float64, and f and its divergence come
 * from the field, for all paths of a block that are on their way in one call. rtol and atol are 1e-5 where none is given, and 1e-9 of a
 * field in float64. No answer depends on the other points of a call, but for what the field's own rounding makes of a batch.
 */
export class FieldFlow extends AnyFlow<Float64Array> {
  private readonly field: Field;
  private readonly timeColumn: number | null;

  /**
   * @param field stays the caller's.
   * @throws InputError for a bad argument.
   */
  constructor(field: Field, times: FlowTimes = {}) {
    if (typeof field?.evaluate !== "function") throw new InputError(`field is ${quote(field)}; expected a Field`);
    const settings = readFlowTimes(field.network, times);
    super(field, settings, Float64Array);
    this.field = field;
    this.timeColumn = settings.timeColumn;
  }

  /** Integrates all points, block by block. */
  protected async solve(
    { count, points, context }: FlowInputs,
    from: number,
    to: number,
    stepping: SolveSettings,
    { onProgress, signal }: RunOptions,
    carried: Float64Array | null,
  ): Promise<Integrated<Float64Array>> {
    startRun({ onProgress, signal });
    const { timeColumn } = this;
    const { stateSize: d } = this.network;
    const { divergence } = stepping;
    const estimate = divergence === "exact" ? null : divergence;
    if (estimate) readRunOptions(estimate);
    const extra = carried ? d : 1;
    const perBlock = Math.max(1, Math.min(BLOCK_PATHS, Math.floor(BLOCK_BYTES / 8 / floatsOf(stepping.solver, d + extra))));
    const result: Integrated<Float64Array> = {
      points: new Float64Array(count * d),
      carried: new Float64Array(count * extra),
      evaluations: new Uint32Array(count),
      status: [],
    };
    for (let first = 0; first < count; first += perBlock) {
      const rows = Math.min(perBlock, count - first);
      const rowsOf = (numbers: Float64Array, width: number): Float64Array => numbers.subarray(first * width, (first + rows) * width);
      const paths = new Paths(
        { from, to, stepping, precision: this.field.precision, keepsRows: estimate !== null },
        rows,
        d,
        extra,
        rowsOf(points, d),
        carried && rowsOf(carried, d),
      );
      const slopes = new Slopes(this.field, paths, first, context, timeColumn, estimate, carried !== null);
      for (let done = 0; paths.rows > 0;) {
        await slopes.come(signal);
        signal?.throwIfAborted();
        if (paths.done > done) onProgress?.({ done: first + (done = paths.done), total: count });
      }
      paths.into(result, first);
    }
    return result;
  }
}

/** The slopes of a block of paths, by the field. */
class Slopes {
  private readonly x: Float64Array;
  /** Of ∇ log p, where that is carried. */
  private readonly score: Float64Array | null;
  private readonly times: Float64Array;
  private readonly contexts: Float64Array;
  private readonly sharesCondition: boolean;
  private readonly options: { readonly method?: "hutchinson"; readonly probes?: number | undefined; readonly seed?: number };

  constructor(
    private readonly field: Field,
    private readonly paths: Paths,
    /** Which of all points the block begins with. */
    private readonly first: number,
    /** [1 or all points, c], with anything where time goes. */
    private readonly context: Float64Array | null,
    private readonly timeColumn: number | null,
    estimate: Exclude<SolveSettings["divergence"], "exact"> | null,
    carriesScore: boolean,
  ) {
    const { stateSize: d, contextSize: c } = field.network;
    const rows = paths.count;
    this.x = new Float64Array(rows * d);
    this.score = carriesScore ? new Float64Array(rows * d) : null;
    this.times = new Float64Array(rows);
    this.contexts = new Float64Array(rows * c);
    this.sharesCondition = context === null || context.length === c;
    // A point's probes go by mixBits(seed) + its index: by this seed the block's first point has those of its own index in the whole call.
    this.options = estimate ? { ...estimate, seed: unmixBits(mixBits(estimate.seed ?? 0) + first) } : {};
  }

  /** Evaluates f where the paths ask for it. */
  async come(signal: AbortSignal | undefined): Promise<void> {
    const { field, paths, x, score: s } = this;
    const { stateSize: d } = field.network;
    paths.ask(x, s, this.times);
    const sharesContext = this.sharesCondition && (this.timeColumn === null || paths.shareTime);
    const { rows } = paths;
    const context = this.contextOf(sharesContext ? 1 : rows);
    const points = x.subarray(0, rows * d);
    if (s) {
      const cotangents = { value: s.subarray(0, rows * d), divergence: 1 };
      const { value, points: slope } = await field.vjp(points, cotangents, { ...this.options, outputs: ["value"], context, signal });
      paths.take(value, slope, -1);
    } else {
      const outputs = ["value", "divergence"] as const;
      const { value, divergence } = await field.evaluate(points, { ...this.options, outputs, context, signal });
      paths.take(value, divergence, 1);
    }
  }

  /** Of as many rows, or of one for all; null where f takes none. */
  private contextOf(rows: number): Float64Array | null {
    const { context, contexts, times, timeColumn, sharesCondition, first, paths } = this;
    if (context === null) return null;
    const { contextSize: c } = this.field.network;
    for (let row = 0; row < rows; row++) {
      const from = sharesCondition ? 0 : (first + paths.pathOf[row]!) * c;
      for (let column = 0; column < c; column++) contexts[row * c + column] = column === timeColumn ? times[row]! : context[from + column]!;
    }
    return contexts.subarray(0, rows * c);
  }
}
