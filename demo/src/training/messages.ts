/** What a page and its training worker say to each other. */
import type { Network } from "deldot";
import type { LiveLoss, LiveOptions, Progress } from "./trainer.js";

/** Each is answered once, in the order that they came in; the first one is "create". */
export type Request = { readonly id: number } & (
  | { readonly kind: "create"; readonly points: Float32Array; readonly options: LiveOptions }
  | { readonly kind: "run"; readonly milliseconds: number }
  | { readonly kind: "network" }
  | { readonly kind: "loss"; readonly loss: LiveLoss }
);

export type Answer = { readonly id: number } & (
  | { readonly kind: "done" }
  /** With the losses of the steps of this run. */
  | { readonly kind: "ran"; readonly progress: Progress; readonly losses: readonly number[] }
  | { readonly kind: "network"; readonly network: Network }
  | { readonly kind: "error"; readonly error: string }
);
