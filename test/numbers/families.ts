/** A family of kernels: what VectorField.create is told, and how often it is drawn. */
export interface Family {
  /** The option `kernels`; LANES stands for as many as the subgroups of the device have. */
  readonly kernels: string;
  readonly weight: number;
  /** One kernel for the whole evaluation, which drivers take long to compile: drawn for small networks alone, with few plans. */
  readonly fused?: boolean;
  readonly half?: boolean;
}

/** Every family there is, by the names that `kernels` takes: the one place to change when they do. */
const named: readonly Family[] = [
  { kernels: "auto", weight: 2 },
  { kernels: "layers 4x4", weight: 3 },
  { kernels: "layers 8x8", weight: 2 },
  { kernels: "layers 8x16", weight: 2 },
  { kernels: "layers 4x16 by LANES lanes", weight: 3 },
  { kernels: "layers 8x16 by LANES lanes", weight: 3 },
  { kernels: "layers 8x8 in groups of 8x8", weight: 1 },
  { kernels: "layers 4x4 in groups of 16x16", weight: 1 },
  { kernels: "fused uniform x1", weight: 2, fused: true },
  { kernels: "fused uniform x2", weight: 2, fused: true },
  { kernels: "fused storage x2", weight: 2, fused: true },
  { kernels: "fused storage x4", weight: 2, fused: true },
  { kernels: "fused uniform x1 by LANES lanes", weight: 2, fused: true },
  { kernels: "fused uniform x2 by LANES lanes", weight: 2, fused: true },
  { kernels: "fused uniform x4 by LANES lanes", weight: 2, fused: true },
  { kernels: "layers 4x4 in float16", weight: 1, half: true },
  { kernels: "layers 8x16 by LANES lanes in float16", weight: 1, half: true },
  { kernels: "layers 8x8 in groups of 8x8 in float16", weight: 0.4, half: true },
  { kernels: "fused storage x2 in float16", weight: 1, fused: true, half: true },
];

/** More lanes than this are no family that a trial tries. */
const MOST_LANES = 32;

/** The families that a device can run. */
export function familiesOf(device: GPUDevice): Family[] {
  const least = device.features.has("subgroups") ? (device.adapterInfo.subgroupMinSize ?? 0) : 0;
  const lanes = Math.min(MOST_LANES, least);
  return named
    .filter(({ kernels, half }) => (lanes > 0 || !kernels.includes("LANES")) && (!half || device.features.has("shader-f16")))
    .map((family) => ({ ...family, kernels: family.kernels.replace("LANES", String(lanes)) }));
}
