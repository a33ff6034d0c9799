import { deldot } from "./deldot.js";
import { jax } from "./jax.js";
import { onnxruntimeCpu, onnxruntimeWebgpu } from "./onnxruntime.js";
import type { Peer } from "./peer.js";
import { plain } from "./plain.js";
import { tensorflow } from "./tensorflow.js";

/** In the order of the table. None of them imports its package before it is prepared. */
export const peers: readonly Peer[] = [deldot, jax, tensorflow, onnxruntimeWebgpu, onnxruntimeCpu, plain];
