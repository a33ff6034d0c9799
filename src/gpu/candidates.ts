import type { FusedForm } from "../plan/fused.js";
import { fusing } from "../plan/fusing.js";
import type { Plan } from "../plan/trace.js";
import { halved, PLAIN_TILE, type FusedVariant, type LayersVariant, type Tile, type Variant } from "../plan/variants.js";
import { fusedKernelOf } from "./kernels.js";

/**
 * How long an unrolled kernel may be, in multiply-adds of all its points. Beyond, nothing is gained where it was tried: on llvmpipe
 * 31 000 take a minute to compile and are slower than loops over results, on SwiftShader 20 000 are slower than in step.
 */
const MOST_UNROLLED = { llvmpipe: 30_000, swiftShader: 20_000, other: 13_000 } as const;

/**
 * From here on SwiftShader's code and constants leave the second-level cache, where going in step takes half to three
 * quarters of the time; up to here a width of 128 with 16 coordinates compiles in 13 seconds.
 */
const IN_STEP = { least: 6_000, most: 50_000 } as const;

/** Which variants there are to try on a device; after loadWriters. */
export class Candidates {
  /** @param lanes that every subgroup of the device has at least; 0: it has no subgroups. */
  constructor(
    private readonly device: GPUDevice,
    private readonly adapter: string,
    private readonly lanes: number,
    private readonly half: boolean,
  ) {}

  /** The variants that a plan and the device allow, plain first. */
  of(plan: Plan, unrolls: boolean): Variant[] {
    const lanes = Math.min(32, this.lanes);
    const tiles: Tile[] = [PLAIN_TILE, { rows: 8, outputs: 8, lanes: 0 }, { rows: 8, outputs: 16, lanes: 0 }];
    // A lane per weight of a tile's outputs, or of several columns of them.
    if (lanes >= 4) tiles.push({ rows: 4, outputs: 16, lanes }, { rows: 8, outputs: 16, lanes });
    // Four lanes, SwiftShader's, load by far more slowly than they multiply, and each load serves more results here.
    if (lanes === 4) tiles.push({ rows: 8, outputs: 32, lanes });
    if (!this.isSoftware())
      tiles.push(
        { rows: 8, outputs: 8, lanes: 0, group: { down: 8, across: 8 } },
        { rows: 4, outputs: 4, lanes: 0, group: { down: 16, across: 16 } },
      );
    const fused: FusedVariant[] = [
      { kind: "fused", weights: "uniform", points: 1, lanes: 0 },
      { kind: "fused", weights: "uniform", points: 2, lanes: 0 },
      { kind: "fused", weights: "storage", points: 2, lanes: 0 },
      { kind: "fused", weights: "storage", points: 4, lanes: 0 },
    ];
    const unrolled = unrolls ? this.unrolled(plan) : [];
    const layers = tiles.map((tile): LayersVariant => ({ kind: "layers", tile }));
    // llvmpipe compiles loops over storage for minutes, and loops have never been faster there than unrolled kernels.
    const loops = this.isLlvmpipe() ? fused.filter(({ weights }) => weights === "uniform" && unrolled.length === 0) : fused;
    const able = [...[...loops, ...this.rolled()].filter((variant) => this.refusal(plan, variant) === null), ...unrolled];
    if (!this.half) return [...layers, ...able];
    const stored = able.filter(({ weights }) => weights === "storage");
    return [...layers.map((variant) => halved(variant)), ...stored.map((variant) => halved(variant))];
  }

  /** Weights handed around by lanes: software adapters gain from more points in an invocation, for which GPUs lack registers. */
  private rolled(): FusedVariant[] {
    const lanes = Math.min(32, this.lanes);
    if (lanes < 4) return [];
    const points = this.isSoftware() ? ([2, 4] as const) : ([1, 2] as const);
    return points.map((count): FusedVariant => ({ kind: "fused", weights: "uniform", points: count, lanes }));
  }

  private unrolled(plan: Plan): FusedVariant[] {
    const variants = ([1, 2] as const).map((points): FusedVariant => ({ kind: "fused", weights: "literal", points, lanes: 0 }));
    const inStep = variants.map((variant): FusedVariant => ({ ...variant, inStep: true }));
    const isLong = (variant: FusedVariant): boolean => {
      const form = formOf(plan, variant);
      return form !== null && unrolledSize(form) >= IN_STEP.least;
    };
    const worthwhile = this.isSwiftShader() ? inStep.filter(isLong) : [];
    return [...variants, ...worthwhile].filter((variant) => this.refusal(plan, variant) === null);
  }

  /** Why a plan cannot run in a fused variant; null where it can. */
  refusal(plan: Plan, variant: FusedVariant): string | null {
    const form = formOf(plan, variant);
    if (!form) return "the plan is not one that a single invocation carries through";
    if (variant.weights === "literal") return this.tooLong(unrolledSize(form), variant.inStep);
    const kernel = fusedKernelOf(form);
    const tooLong = variant.lanes > 0 ? this.tooLong(kernel.size!) : null;
    if (tooLong) return tooLong;
    const weights = [...kernel.weights!.values()];
    const { maxUniformBufferBindingSize, maxStorageBufferBindingSize, maxUniformBuffersPerShaderStage } = this.device.limits;
    // One uniform block is that of the parameters.
    const mostBlocks = maxUniformBuffersPerShaderStage - 1;
    if (weights.length > mostBlocks) return `its weights take ${weights.length} uniform blocks; the device has ${mostBlocks} for them`;
    const most = variant.weights === "uniform" ? maxUniformBufferBindingSize : maxStorageBufferBindingSize;
    const bytes = Math.max(0, ...weights.map(({ byteLength }) => byteLength));
    return bytes > most ? `its weights take ${bytes} bytes; the device binds ${most}` : null;
  }

  private tooLong(size: number, inStep = false): string | null {
    const most = this.mostUnrolled(inStep);
    return size > most ? `its kernel would have ${size} unrolled multiply-adds; at most ${most} are taken on this adapter` : null;
  }

  private mostUnrolled(inStep: boolean): number {
    if (this.isSwiftShader()) return inStep ? IN_STEP.most : MOST_UNROLLED.swiftShader;
    return this.isLlvmpipe() ? MOST_UNROLLED.llvmpipe : MOST_UNROLLED.other;
  }

  private isSwiftShader(): boolean {
    return /swiftshader/i.test(this.adapter);
  }

  private isLlvmpipe(): boolean {
    return /llvmpipe|lavapipe/i.test(this.adapter);
  }

  /**
   * Workgroup memory is memory like any other there, and a barrier a switch from invocation to invocation: groups took 2 to 4
   * times as long as the best of the other tiles, and SwiftShader 10 seconds to compile them.
   */
  private isSoftware(): boolean {
    return this.isLlvmpipe() || this.isSwiftShader();
  }
}

/** A plan as a variant carries it through in one kernel; null where none can. */
function formOf(plan: Plan, variant: FusedVariant): FusedForm | null {
  return fusing()?.fusedForm(plan, { to: "host" }, variant) ?? null;
}

/** How long an unrolled kernel would be, in multiply-adds of all its points. */
function unrolledSize({ program, variant }: FusedForm): number {
  return fusing()!.unrolledSize(program) * variant.points;
}
