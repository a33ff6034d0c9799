/** What decides which kernels a device can run, and which are worth trying. */
export interface Capabilities {
  /** Lanes that every subgroup has at least; 0 where there are no subgroups. */
  readonly lanes: number;
  readonly hasFloat16: boolean;
  /** Whether the adapter is a processor that stands in for a GPU, as it says of itself. */
  readonly isFallback: boolean;
}

export function capabilitiesOf({ features, adapterInfo }: GPUDevice): Capabilities {
  return {
    lanes: features.has("subgroups") ? (adapterInfo.subgroupMinSize ?? 0) : 0,
    hasFloat16: features.has("shader-f16"),
    isFallback: adapterInfo.isFallbackAdapter ?? false,
  };
}

/** What the names of kernels with weights in float16 end in. */
export const HALF = " in float16";
