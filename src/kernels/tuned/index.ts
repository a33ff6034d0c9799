/** The kernels beside the plain ones: the one door of this wing, which is loaded when they are first needed. */
import type { Variant } from "../../schedule/steps.js";
import type { Capabilities } from "../capabilities.js";
import { layers } from "../layers.js";
import { fused } from "./fused/fused.js";
import { groupedTile } from "./groups.js";
import { tileOf } from "./tiles.js";

interface TunedVariant {
  readonly variant: Variant;
  /** How many lanes the device's subgroups must have. */
  readonly lanes: number;
  /** Whether it is worth trying on a device. */
  readonly isTried: (device: Capabilities) => boolean;
}

export const tunedVariants: readonly TunedVariant[] = [false, true].flatMap((half) => [
  { variant: layers(tileOf({ rows: 8, outputs: 16, lanes: 0, half })), lanes: 0, isTried: () => true },
  { variant: layers(tileOf({ rows: 4, outputs: 16, lanes: 8, half })), lanes: 8, isTried: (device) => !isGpu(device) && device.lanes >= 8 },
  { variant: layers(groupedTile(half)), lanes: 0, isTried: isGpu },
  { variant: fused(half), lanes: 0, isTried: isGpu },
]);

/**
 * To a processor workgroup memory is memory like any other, and a barrier a switch from invocation to invocation. An H200 takes 1.7 to 4.5
 * times as long by tiles as by groups; one of them stays for GPUs whose workgroup memory is slow.
 */
function isGpu({ isFallback }: Capabilities): boolean {
  return !isFallback;
}
