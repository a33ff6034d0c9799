import { InputError, PlanError, quote } from "./errors.js";
import type { Store } from "./gpu/store.js";
import { checkCount, checkObject, readBuffer, readEncodeContext, readWrt, type BufferRows, type Wrt } from "./inputs.js";
import type { Network } from "./model/network.js";
import { parameterLayout } from "./model/parameters.js";
import type { WantedGradient } from "./plan/choose.js";
import { readRunOptions, readVjpOutputs, requireOutputs, type PlanOptions } from "./plan/options.js";
import { OUTPUTS, outputs as ofEvaluations, sizeOf, type Method, type Output } from "./plan/outputs.js";
import type { OuterName, OuterRows } from "./schedule/steps.js";
import type { Floats } from "./typedArrays.js";

/** What {@link VectorField.create} takes beside device and network. */
export interface VectorFieldOptions {
  /**
   * Bytes of GPU memory for inputs, intermediate results, results and staging, of all calls of evaluate, jvp and vjp together;
   * weights, and up to 1 MiB of kernel parameters, come beside it. encode has as much again, and for a while what it has
   * outgrown, until the garbage collector finds that no command names it. Default 256 MiB.
   */
  readonly memoryBudget?: number | undefined;
  /** Remembers between runs how much work this adapter takes per submission, and which kernels are the fastest. */
  readonly store?: Store | undefined;
  /**
   * Which kernels run; all give the same results but for rounding. "auto", the default: the plain ones at first, and what
   * proves fastest on this device once tuning has paid for itself (see {@link VectorField.tune}). Or one by its name, for
   * runs that repeat to the bit on one device: "layers 4x4" (the plain ones), "layers 8x16", "layers 4x16 by 8 lanes" (of a
   * subgroup), "layers 4x4 in groups of 16x16" (of invocations that share workgroup memory), "fused storage x2"; where a plan cannot
   * be fused, the plain ones.
   */
  readonly kernels?: string | undefined;
  /**
   * How weights lie in GPU memory: "float32", the default; or "float16", on a device with the feature shader-f16, which halves
   * what products read. Arithmetic stays float32, but every weight (also of merged matrices, and in fused kernels every bias) is
   * rounded to 11 bits: errors
   * of value and divergence are then a few 1e-3 Σ|∂f_i/∂x_i|, and weights end at 65504.
   */
  readonly weights?: "float32" | "float16" | undefined;
  /** Prefix of the label of every GPU object. Default "deldot". */
  readonly label?: string | undefined;
}

/** A number of points that the device writes, a u32 at `offset` bytes (a multiple of 4; default 0) of a buffer with usage STORAGE. */
export type CountBuffer =
  | GPUBuffer
  | {
      /** Where the count lies. */
      readonly buffer: GPUBuffer;
      /** In bytes. */
      readonly offset?: number | undefined;
    };

/** What {@link VectorField.encode} reads and writes: buffers of the caller, in float32. At least one output is needed. */
export interface EncodeOptions extends Pick<PlanOptions, "chunkSize" | "probes" | "seed" | "probesPer" | "orthogonal" | "step"> {
  /** [count, d], stride d unless given; usage STORAGE. */
  readonly points: BufferRows;
  /**
   * How many points; or where the device finds their number when it comes to it, as one u32: points past it are not read, and their
   * rows stay as they are.
   */
  readonly count: number | CountBuffer;
  /** Where the count is in a buffer: the most that come, for which every buffer has room. A larger number there counts as this one. */
  readonly maxCount?: number | undefined;
  /** [count, c] in a buffer (stride c unless given, 0: one row for all), usage STORAGE; or one vector for all points. */
  readonly context?: BufferRows | number | ArrayLike<number> | undefined;
  /** Receives f(x), [count, d], stride d unless given; usage STORAGE. */
  readonly value?: BufferRows | undefined;
  /** Receives the divergence, [count], stride 1 unless given; usage STORAGE. */
  readonly divergence?: BufferRows | undefined;
  /** Receives ∂f_i/∂x_i, [count, d], stride d unless given; usage STORAGE. */
  readonly diagonal?: BufferRows | undefined;
  /** Receives J[i][j] = ∂f_i/∂x_j, [count, d, d], stride d² unless given; usage STORAGE. */
  readonly jacobian?: BufferRows | undefined;
  /** Receives the standard error of the divergence by method "hutchinson", [count], stride 1 unless given; NaN for a single probe. */
  readonly standardError?: BufferRows | undefined;
  /** Receives J(x) t for the `tangents` t, [count, d], stride d unless given; usage STORAGE. */
  readonly jvp?: BufferRows | undefined;
  /** One tangent for each point, [count, d], stride d unless given; usage STORAGE. */
  readonly tangents?: BufferRows | undefined;
  /** Receives the curl, [count, 3], stride 3 unless given; [count] for d = 2, stride 1 unless given; usage STORAGE. */
  readonly curl?: BufferRows | undefined;
  /** Receives the strain, [count, d, d], stride d² unless given; usage STORAGE. */
  readonly strain?: BufferRows | undefined;
  /** Receives the Q criterion, [count], stride 1 unless given; usage STORAGE. */
  readonly qCriterion?: BufferRows | undefined;
  /** Default "auto". */
  readonly method?: Method | "auto" | undefined;
}

/** What {@link VectorField.encodeVjp} reads and writes: buffers of the caller, in float32, with usage STORAGE. */
export interface EncodeVjpOptions extends Pick<PlanOptions, "chunkSize" | "probes" | "seed" | "probesPer" | "orthogonal"> {
  /** [count, d], stride d unless given. */
  readonly points: BufferRows;
  /** How many points. */
  readonly count: number;
  /** [count, c] in a buffer (stride c unless given, 0: one row for all); or one vector for all points. */
  readonly context?: BufferRows | number | ArrayLike<number> | undefined;
  /** What the results are weighed with; at least one. */
  readonly cotangents: {
    /** ∂L/∂f, [count, d], stride d unless given. */
    readonly value?: BufferRows | undefined;
    /** ∂L/∂(∇·f), [count], stride 1 unless given; or one number for all points. */
    readonly divergence?: BufferRows | number | undefined;
  };
  /** Receive what L's gradient is taken for; at least one. */
  readonly gradients: {
    /** [count, d], stride d unless given. */
    readonly points?: BufferRows | undefined;
    /** [count, c], stride c unless given; [c], the sum over the points, where one context serves all. */
    readonly context?: BufferRows | undefined;
    /** All tensors in one array, as `parameterLayout` has them; a stride means nothing here. */
    readonly parameters?: BufferRows | undefined;
  };
  /** Receives f(x), [count, d], stride d unless given. */
  readonly value?: BufferRows | undefined;
  /** Receives the divergence, [count], stride 1 unless given. */
  readonly divergence?: BufferRows | undefined;
  /** Whose trace is differentiated: an exact one or "hutchinson". Default "auto". */
  readonly method?: Method | "auto" | undefined;
}

/** What decides the plan of a later encodeVjp. */
export interface ReserveVjpOptions extends Pick<
  PlanOptions,
  "method" | "chunkSize" | "probes" | "seed" | "probesPer" | "orthogonal" | "contextPer"
> {
  /** What gradients will be taken for. Default the points alone. */
  readonly wrt?: readonly Wrt[] | undefined;
  /** Which cotangents will come. Default both. */
  readonly cotangents?: readonly ("value" | "divergence")[] | undefined;
  /** What will be given beside the gradients. Default nothing. */
  readonly outputs?: readonly ("value" | "divergence")[] | undefined;
}

/** What decides the plan of a later encode. */
export interface ReserveOptions extends PlanOptions {}

const DEFAULT_BUDGET = 256 * 2 ** 20;

interface FieldSettings {
  readonly memoryBudget: number;
  readonly label: string;
  readonly store: Store | undefined;
  readonly kernels: string;
  readonly weights: "float32" | "float16";
}

/** The options of create, checked, with their defaults. @throws InputError. */
export function readFieldOptions(options: VectorFieldOptions): FieldSettings {
  checkObject("options", options);
  const { memoryBudget = DEFAULT_BUDGET, label = "deldot", store, kernels = "auto", weights = "float32" } = options;
  if (!(typeof memoryBudget === "number" && memoryBudget > 0))
    throw new InputError(`memoryBudget is ${quote(memoryBudget)}; expected a positive number of bytes`);
  if (typeof label !== "string") throw new InputError(`label is ${quote(label)}; expected a text`);
  if (store !== undefined && (typeof store?.get !== "function" || typeof store.set !== "function"))
    throw new InputError(`store is ${quote(store)}; expected an object with get and set`);
  if (weights !== "float32" && weights !== "float16") throw new InputError(`weights is ${quote(weights)}; expected "float32" or "float16"`);
  return { memoryBudget, label, store, kernels, weights };
}

/** What encode reads and writes, checked for usage and size. */
interface EncodeBuffers {
  readonly rows: { -readonly [Name in OuterName]?: OuterRows };
  readonly buffers: { -readonly [Name in OuterName]?: GPUBuffer };
  /** How many points there are, or the most that come. */
  readonly count: number;
  /** Of the evaluation; J t is another matter. */
  readonly outputs: readonly Output[];
}

/** Puts numbers that were given as they are into a buffer. */
type Upload = (name: string, numbers: Floats) => GPUBuffer;

/**
 * @param upload puts the numbers of a context into a buffer.
 * @throws InputError where a buffer is missing, of the wrong usage or too small.
 */
export function readEncodeOptions(network: Network, options: EncodeOptions, upload: Upload): EncodeBuffers {
  checkObject("options", options);
  const { count, maxCount } = options;
  const isCounted = typeof count === "object" && count !== null;
  if (isCounted) checkCount(maxCount, 0, "maxCount");
  else if (maxCount !== undefined) throw new InputError(`maxCount is ${quote(maxCount)}; expected it with a count in a buffer`);
  const most = isCounted ? maxCount! : count;
  const { rows, buffers, add } = readEncodeInputs(network, { ...options, count: most }, upload);
  if (isCounted) {
    add("count", count, 1, 1);
    rows.count = { ...rows.count!, stride: 0 };
  }
  const named = ofEvaluations.filter((name) => options[name] !== undefined);
  const { standardError, jvp, tangents, method = "auto" } = options;
  if (named.length === 0 && standardError === undefined && jvp === undefined)
    throw new InputError(`no output buffer was given; expected at least one of ${[...ofEvaluations, "standardError", "jvp"].join(", ")}`);
  requireOutputs(named, network.stateSize);
  for (const name of named) add(name, options[name]!);
  if (standardError !== undefined) {
    if (method !== "hutchinson")
      throw new PlanError(`method ${quote(method)} does not give the output "standardError"; it is given by "hutchinson"`);
    add("standardError", standardError);
  }
  if ((jvp === undefined) !== (tangents === undefined))
    throw new InputError(
      jvp === undefined ? "tangents is given without jvp" : "tangents is missing; expected a buffer with one for each point",
    );
  if (jvp !== undefined) {
    add("jvp", jvp);
    add("tangents", tangents!);
  }
  // The error is one of a divergence, whether that is left anywhere or not.
  const outputs = standardError === undefined || named.includes("divergence") ? named : [...named, "divergence" as const];
  return { rows, buffers, count: most, outputs };
}

/** Points and context, and what adds other buffers to them. */
function readEncodeInputs(network: Network, options: Pick<EncodeVjpOptions, "points" | "count" | "context">, upload: Upload) {
  const { count, points } = options;
  checkCount(count, 0);
  const rows: Partial<Record<OuterName, OuterRows>> = {};
  const buffers: Partial<Record<OuterName, GPUBuffer>> = {};
  /** @param rowCount 1 for one row, whatever the points. */
  const add = (name: OuterName, given: BufferRows, width = widthOf(network, name), rowCount = count): void => {
    const { buffer, offset, stride } = readBuffer(name, given, width, rowCount);
    rows[name] = { offset, stride };
    buffers[name] = buffer;
  };
  if (points === undefined) throw new InputError("points is missing; expected a GPUBuffer or { buffer, offset, stride }");
  add("points", points);
  const context = readEncodeContext(options.context, network.contextSize);
  if (context && "rows" in context) add("context", context.rows);
  else if (context && count > 0) add("context", { buffer: upload("context", context.numbers), stride: 0 });
  return { rows, buffers, add };
}

/** What a gradient is asked for in buffers. */
interface GradientBuffers extends Omit<EncodeBuffers, "outputs" | "count"> {
  readonly wanted: WantedGradient;
}

/** @throws InputError where a buffer is missing, of the wrong usage or too small; PlanError. */
export function readEncodeVjpOptions(network: Network, options: EncodeVjpOptions, upload: Upload): GradientBuffers {
  checkObject("options", options);
  const { rows, buffers, add } = readEncodeInputs(network, options, upload);
  readRunOptions({ ...options, outputs: ["divergence"] });
  const { cotangents, gradients } = options;
  checkObject("cotangents", cotangents);
  checkObject("gradients", gradients);
  if (cotangents.value == null && cotangents.divergence == null)
    throw new InputError("cotangents has neither value nor divergence; expected at least one");
  if (cotangents.value != null) add("value cotangent", cotangents.value);
  if (typeof cotangents.divergence === "number") {
    const numbers = Float32Array.of(cotangents.divergence);
    add("divergence cotangent", { buffer: upload("divergence cotangent", numbers) }, 1, 1);
    rows["divergence cotangent"] = { offset: 0, stride: 0 };
  } else if (cotangents.divergence != null) add("divergence cotangent", cotangents.divergence);
  const contextPer = rows.context && rows.context.stride > 0 ? "point" : "batch";
  const wrt = readWrt(
    (Object.keys(gradients) as Wrt[]).filter((each) => gradients[each] != null),
    network.contextSize,
    "gradients",
  );
  for (const each of wrt) {
    const name = `gradient of ${each}` as const;
    const isOne = each === "parameters" || (each === "context" && contextPer === "batch");
    if (!isOne) add(name, gradients[each]!);
    else {
      add(name, gradients[each]!, each === "parameters" ? parameterLayout(network).size : network.contextSize, 1);
      rows[name] = { ...rows[name]!, stride: 0 };
    }
  }
  const outputs = readVjpOutputs((["value", "divergence"] as const).filter((name) => options[name] != null));
  for (const name of outputs) add(name, options[name]!);
  const given = { value: cotangents.value != null, divergence: cotangents.divergence != null };
  return { rows, buffers, wanted: { wrt, ...given, outputs, contextPer } };
}

/** The same for buffers that come later, whose rows lie as they do where nothing else is said. @throws InputError, PlanError. */
export function readReserveVjpOptions(network: Network, options: ReserveVjpOptions): Omit<GradientBuffers, "buffers"> {
  checkObject("options", options);
  const { contextPer = "batch", cotangents = ["value", "divergence"] } = options;
  readRunOptions({ ...options, outputs: ["divergence"] });
  const given = readVjpOutputs(cotangents, "cotangents");
  if (given.length === 0) throw new InputError("cotangents is []; expected value, divergence or both");
  const outputs = readVjpOutputs(options.outputs);
  const wrt = readWrt(options.wrt, network.contextSize);
  const names: OuterName[] = [
    "points",
    ...given.map((each) => `${each} cotangent` as const),
    ...wrt.map((each) => `gradient of ${each}` as const),
  ];
  if (network.contextSize > 0) names.push("context");
  const isOne = (name: OuterName): boolean => name === "gradient of parameters" || (name.endsWith("context") && contextPer === "batch");
  const rows = Object.fromEntries(
    [...names, ...outputs].map((name) => [name, { offset: 0, stride: isOne(name) ? 0 : widthOf(network, name) }]),
  );
  return { rows, wanted: { wrt, value: given.includes("value"), divergence: given.includes("divergence"), outputs, contextPer } };
}

/** Rows as they lie where nothing else is said, for reserve: one context for all points unless each has its own. */
export function usualRows(
  network: Network,
  { contextPer }: ReserveOptions,
  outputs: readonly Output[],
): Partial<Record<OuterName, OuterRows>> {
  const strideOf = (name: OuterName): number => (name === "context" && contextPer !== "point" ? 0 : widthOf(network, name));
  return Object.fromEntries((["points", "context", ...outputs] as const).map((name) => [name, { offset: 0, stride: strideOf(name) }]));
}

function widthOf({ stateSize, contextSize }: Network, name: OuterName): number {
  if (name.endsWith("context")) return contextSize;
  if (name in OUTPUTS) return sizeOf(name as Output, stateSize);
  if (name === "standardError") return 1;
  return name.startsWith("divergence") ? 1 : stateSize;
}
