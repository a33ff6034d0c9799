import { DeldotError } from "../errors.js";
import type { EvaluateOptions, Evaluation, Field, Jvp, JvpOptions, Vjp, VjpOptions } from "../evaluation.js";
import type { Cotangents, Wrt } from "../inputs.js";
import { checkObject, ownOptions, copied, type BatchInput } from "../inputs.js";
import type { Network } from "../model/network.js";
import { explainPlan, type ExplainOptions, type PlanExplanation } from "../plan/explain.js";
import { graphOf } from "../plan/graph.js";
import type { Output } from "../plan/outputs.js";
import { Reference, ReferenceJvp } from "./reference.js";
import { runInSlices } from "./slices.js";
import { ReferenceVjp } from "./vjp.js";

/** A network on the CPU in float64: as exact as {@link evaluateReference}, with progress, and without keeping the thread. */
export class ReferenceField implements Field<Float64Array> {
  readonly precision = "float64";
  private destroyed = false;

  /** @throws ModelError where it is no network. */
  constructor(readonly network: Network) {
    graphOf(network);
  }

  async evaluate<O extends Output = "value" | "divergence">(
    points: BatchInput,
    given: EvaluateOptions<O> = {},
  ): Promise<Evaluation<O, Float64Array>> {
    this.checkUsable();
    const options = ownOptions(given);
    const reference = new Reference(this.network, copied(points), { ...options, context: copied(options.context) });
    await runInSlices(reference, options, () => this.checkUsable());
    return { ...reference.result(), kernels: "reference" } as unknown as Evaluation<O, Float64Array>;
  }

  async divergence(points: BatchInput, options: Omit<EvaluateOptions, "outputs"> = {}): Promise<Float64Array> {
    const { divergence } = await this.evaluate(points, { ...options, outputs: ["divergence"] });
    return divergence;
  }

  async jvp(points: BatchInput, tangents: BatchInput, options: JvpOptions & { readonly value: true }): Promise<Jvp<Float64Array>>;
  async jvp(points: BatchInput, tangents: BatchInput, options?: JvpOptions & { readonly value?: false | undefined }): Promise<Float64Array>;
  async jvp(points: BatchInput, tangents: BatchInput, given: JvpOptions = {}): Promise<Float64Array | Jvp<Float64Array>> {
    this.checkUsable();
    const options = ownOptions(given);
    const jvp = new ReferenceJvp(this.network, copied(points), copied(tangents), copied(options.context));
    await runInSlices(jvp, options, () => this.checkUsable());
    const { value, tangent } = jvp;
    return options.value ? { value, tangent } : tangent;
  }

  async vjp<W extends Wrt = "points", O extends "value" | "divergence" = never>(
    points: BatchInput,
    cotangents: Cotangents,
    given: VjpOptions<W, O> = {},
  ): Promise<Vjp<W, O, Float64Array>> {
    this.checkUsable();
    const options = ownOptions(given);
    checkObject("cotangents", cotangents);
    const own = { value: copied(cotangents.value), divergence: copied(cotangents.divergence) };
    const vjp = new ReferenceVjp(this.network, copied(points), own, { ...options, context: copied(options.context) });
    await runInSlices(vjp, options, () => this.checkUsable());
    return vjp.result() as Vjp<W, O, Float64Array>;
  }

  explain(options: ExplainOptions = {}): PlanExplanation {
    return explainPlan(this.network, options);
  }

  destroy(): void {
    this.destroyed = true;
  }

  private checkUsable(): void {
    if (this.destroyed) throw new DeldotError("the field was destroyed; make a new one");
  }
}
