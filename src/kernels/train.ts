import dispatch from "../../shaders/lib/dispatch.wgsl?raw";
import special from "../../shaders/lib/special.wgsl?raw";
import batch from "../../shaders/train/batch.wgsl?raw";
import combine from "../../shaders/train/combine.wgsl?raw";
import cotangent from "../../shaders/train/cotangent.wgsl?raw";
import draw from "../../shaders/train/draw.wgsl?raw";
import loss from "../../shaders/train/loss.wgsl?raw";
import optimize from "../../shaders/train/optimize.wgsl?raw";
import pair from "../../shaders/train/pair.wgsl?raw";
import random from "../../shaders/train/random.wgsl?raw";
import time from "../../shaders/train/time.wgsl?raw";
import type { Kernel } from "../schedule/kernel.js";
import { WORKGROUP_SIZE } from "../schedule/steps.js";
import { interfaceOf, preamble } from "./text.js";

export type TrainKernelName = "combine" | "cotangent" | "draw" | "loss" | "optimize" | "pair" | "time";

/** The kernels of training; of the main entry they are no part. */
export const trainKernels: Readonly<Record<TrainKernelName, Kernel>> = {
  combine: kernelOf("combine", combine, [dispatch]),
  cotangent: kernelOf("cotangent", cotangent, [dispatch]),
  draw: kernelOf("draw", draw, [dispatch, special, random, batch]),
  loss: kernelOf("loss", loss, [special, random]),
  optimize: kernelOf("optimize", optimize, [dispatch, special]),
  pair: kernelOf("pair", pair, [special, random, batch]),
  time: kernelOf("time", time, [dispatch]),
};

function kernelOf(label: TrainKernelName, text: string, needs: readonly string[]): Kernel {
  const source = [preamble([], [`const WORKGROUP_SIZE = ${WORKGROUP_SIZE}u`]), ...needs, text].join("\n");
  return { label, source, ...interfaceOf(text) };
}
