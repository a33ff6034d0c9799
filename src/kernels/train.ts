import dispatch from "../../shaders/lib/dispatch.wgsl?raw";
import special from "../../shaders/lib/special.wgsl?raw";
import cotangent from "../../shaders/train/cotangent.wgsl?raw";
import draw from "../../shaders/train/draw.wgsl?raw";
import loss from "../../shaders/train/loss.wgsl?raw";
import optimize from "../../shaders/train/optimize.wgsl?raw";
import random from "../../shaders/train/random.wgsl?raw";
import type { Kernel } from "../schedule/kernel.js";
import { WORKGROUP_SIZE } from "../schedule/steps.js";
import { interfaceOf, preamble } from "./text.js";

export type TrainKernelName = "draw" | "cotangent" | "loss" | "optimize";

/** The kernels of training; of the main entry they are no part. */
export const trainKernels: Readonly<Record<TrainKernelName, Kernel>> = {
  draw: kernelOf("draw", draw, [dispatch, special, random]),
  cotangent: kernelOf("cotangent", cotangent, [dispatch]),
  loss: kernelOf("loss", loss, [special, random]),
  optimize: kernelOf("optimize", optimize, [dispatch]),
};

function kernelOf(label: TrainKernelName, text: string, needs: readonly string[]): Kernel {
  const source = [preamble([], [`const WORKGROUP_SIZE = ${WORKGROUP_SIZE}u`]), ...needs, text].join("\n");
  return { label, source, ...interfaceOf(text) };
}
