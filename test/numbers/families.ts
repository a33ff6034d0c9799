import { capabilitiesOf } from "../../src/kernels/capabilities.js";

/** A family of kernels: what VectorField.create is told, and how often it is drawn. */
export interface Family {
  /** The option `kernels`. */
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
  { kernels: "layers 8x16", weight: 3 },
  { kernels: "layers 4x16 by 8 lanes", weight: 3 },
  { kernels: "layers 4x4 in groups of 16x16", weight: 2 },
  { kernels: "fused storage x2", weight: 4, fused: true },
  { kernels: "layers 4x4 in float16", weight: 1, half: true },
  { kernels: "layers 8x16 in float16", weight: 1, half: true },
  { kernels: "layers 4x16 by 8 lanes in float16", weight: 1, half: true },
  { kernels: "layers 4x4 in groups of 16x16 in float16", weight: 0.4, half: true },
  { kernels: "fused storage x2 in float16", weight: 1, fused: true, half: true },
];

/** The families that a device can run. */
export function familiesOf(device: GPUDevice): Family[] {
  const { lanes, hasFloat16 } = capabilitiesOf(device);
  return named.filter(({ kernels, half }) => (lanes >= 8 || !kernels.includes("8 lanes")) && (!half || hasFloat16));
}
