import { availableParallelism } from "node:os";
import { InputError, quote } from "../errors.js";
import {
  ReferenceField,
  VectorField,
  type BatchInput,
  type Cotangents,
  type EvaluateOptions,
  type Evaluation,
  type ExplainOptions,
  type Field,
  type Jvp,
  type JvpOptions,
  type Network,
  type Output,
  type PlanExplanation,
  type VectorFieldOptions,
  type Vjp,
  type VjpOptions,
  type Wrt,
} from "../index.js";
import { OnnxField } from "../onnx/index.js";
import { engines, openEngine, type Engine, type OpenEngine } from "./engines.js";
import { fileStore } from "./fileStore.js";

/** What {@link createField} takes beside the network. */
export interface CreateFieldOptions {
  /**
   * "auto" (the default): the driver that VK_DRIVER_FILES or VK_ICD_FILENAMES names, where one is named; else a real GPU; else "cpu",
   * onnxruntime-node where it is installed; else "software", a software driver of WebGPU; else "reference", float64 on the CPU.
   */
  readonly device?: Engine | "auto" | undefined;
  /** cpu: how many threads work on an operator. Default all that the process may use. */
  readonly threads?: number | undefined;
  /** gpu, software: as {@link VectorField.create} takes them. Default store: {@link fileStore}. */
  readonly gpu?: VectorFieldOptions | undefined;
}

/** More than there are processors only wait for one another. */
const mostThreads = Math.max(64, availableParallelism());

/** A field, and what computes it: of a GPU too no more than all fields have; for more, {@link requestDevice} and {@link VectorField}. */
export class NodeField implements Field {
  /** Which engine was found. */
  readonly engine: Engine;
  /** For people: the adapter and its driver, or what computes on the CPU. */
  readonly description: string;

  /** By {@link createField}. */
  constructor(
    private readonly inner: Field,
    private readonly opened: Pick<OpenEngine, "engine" | "description" | "dispose">,
  ) {
    ({ engine: this.engine, description: this.description } = opened);
  }

  /** Of its results. */
  get precision(): Field["precision"] {
    return this.inner.precision;
  }

  /** The network as it was given. */
  get network(): Network {
    return this.inner.network;
  }

  /** As {@link VectorField.evaluate}. */
  evaluate<O extends Output = "value" | "divergence">(
    points: BatchInput,
    options?: EvaluateOptions<O>,
  ): Promise<Evaluation<O, Float32Array | Float64Array>> {
    return this.inner.evaluate(points, options);
  }

  /** As {@link VectorField.divergence}. */
  divergence(points: BatchInput, options?: Omit<EvaluateOptions, "outputs">): Promise<Float32Array | Float64Array> {
    return this.inner.divergence(points, options);
  }

  /** As {@link VectorField.jvp}. */
  jvp(points: BatchInput, tangents: BatchInput, options: JvpOptions & { readonly value: true }): Promise<Jvp<Float32Array | Float64Array>>;
  jvp(
    points: BatchInput,
    tangents: BatchInput,
    options?: JvpOptions & { readonly value?: false | undefined },
  ): Promise<Float32Array | Float64Array>;
  jvp(
    points: BatchInput,
    tangents: BatchInput,
    options?: JvpOptions,
  ): Promise<Float32Array | Float64Array | Jvp<Float32Array | Float64Array>> {
    return this.inner.jvp(points, tangents, options as JvpOptions & { readonly value: true });
  }

  /** As {@link VectorField.vjp}. */
  vjp<W extends Wrt = "points", O extends "value" | "divergence" = never>(
    points: BatchInput,
    cotangents: Cotangents,
    options?: VjpOptions<W, O>,
  ): Promise<Vjp<W, O, Float32Array | Float64Array>> {
    return this.inner.vjp(points, cotangents, options);
  }

  /** As {@link VectorField.explain}. */
  explain(options?: ExplainOptions): PlanExplanation {
    return this.inner.explain(options);
  }

  /** Frees the field and its device, without which the process may not end. Later calls reject. */
  destroy(): void {
    void this.close();
  }

  /** The same, and waits until a device is gone. */
  async close(): Promise<void> {
    this.inner.destroy();
    await this.opened.dispose();
  }
}

/**
 * A network on what is there to compute it, ready to be evaluated; see {@link CreateFieldOptions.device}. Flows run on it too:
 * `new FieldFlow(field)`.
 *
 * @throws InputError for a bad option; ModelError where it is no network; AdapterError where the engine asked for is not there; what
 * {@link VectorField.create} and {@link OnnxField.create} throw.
 */
export async function createField(network: Network, options: CreateFieldOptions = {}): Promise<NodeField> {
  if (typeof options !== "object" || options === null) throw new InputError(`options is ${quote(options)}; expected an object`);
  const { device = "auto", threads, gpu = {} } = options;
  if (typeof gpu !== "object" || gpu === null) throw new InputError(`gpu is ${quote(gpu)}; expected an object`);
  if (device !== "auto" && !engines.includes(device))
    throw new InputError(`device is ${quote(device)}; expected "auto" or one of ${engines.map((engine) => quote(engine)).join(", ")}`);
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= mostThreads))
    throw new InputError(`threads is ${quote(threads)}; expected a whole number from 1 to ${mostThreads}`);
  const opened = await openEngine(device, threads);
  try {
    return new NodeField(await fieldOn(opened, network, gpu), opened);
  } catch (error) {
    await opened.dispose();
    throw error;
  }
}

/** A network on an engine. */
export function fieldOn(opened: OpenEngine, network: Network, options: VectorFieldOptions = {}): Promise<Field> | Field {
  if (opened.engine === "cpu") return OnnxField.create(opened.runtime, network, { session: opened.session });
  if (opened.engine === "reference") return new ReferenceField(network);
  return VectorField.create(opened.device, network, { store: fileStore(), ...options });
}
