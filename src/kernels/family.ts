import type { Variant } from "../schedule/steps.js";

/** What decides which variants a device can run, and which are worth trying. */
export interface Capabilities {
  /** Lanes that every subgroup has at least; 0 where there are no subgroups. */
  readonly lanes: number;
  readonly hasFloat16: boolean;
  /** Whether the adapter is a processor that stands in for a GPU, as it says of itself. */
  readonly isFallback: boolean;
  readonly maxUniformBufferBindingSize: number;
  readonly maxStorageBufferBindingSize: number;
  readonly maxUniformBuffersPerShaderStage: number;
}

export function capabilitiesOf(device: GPUDevice): Capabilities {
  const { maxUniformBufferBindingSize, maxStorageBufferBindingSize, maxUniformBuffersPerShaderStage } = device.limits;
  return {
    lanes: device.features.has("subgroups") ? (device.adapterInfo.subgroupMinSize ?? 0) : 0,
    hasFloat16: device.features.has("shader-f16"),
    isFallback: device.adapterInfo.isFallbackAdapter ?? false,
    maxUniformBufferBindingSize,
    maxStorageBufferBindingSize,
    maxUniformBuffersPerShaderStage,
  };
}

/** Variants of the kernels that are written alike. */
export interface Family {
  /** Names that the option `kernels` takes, for messages. */
  readonly example: string;
  /** Those worth trying on a device. */
  variants(device: Capabilities): Variant[];
  /** The variant of a name; null where it is none of this family. The tuner holds its `lanes` to the device's. */
  parse(name: string, device: Capabilities): { readonly variant: Variant; readonly lanes: number } | null;
}

/** Weights in float16 are named at the end of a variant. */
export const HALF = " in float16";

/** A name and whether it ends in float16. */
export function splitHalf(name: string): [name: string, half: boolean] {
  return name.endsWith(HALF) ? [name.slice(0, -HALF.length), true] : [name, false];
}
