/** A divider: the exact divergence to its left, an estimate or a mistake to its right, with the price of each under it. */
import { explainPlan } from "deldot";
import { paintPixels } from "../engines/cpuEngine.js";
import { isSameLook, type Look } from "../engines/engine.js";
import { onesAnswer } from "./methods.js";
import { latest } from "./latest.js";
import { SCALE, short } from "../base/numbers.js";
import { gridPoints, toPixel, type View } from "../base/plane.js";
import { withContext } from "../base/quantity.js";
import type { Stage } from "../stage.js";

export type Estimator = "hutchinson" | "difference" | "ones";

const CELL_PIXELS = { webgpu: 6, onnxruntime: 9, reference: 24 } as const;

export interface Split {
  isOn: boolean;
  /** Of the picture's width. */
  place: number;
  estimator: Estimator;
  probes: number;
  /** Computes the estimate of what is on the stage now. */
  update(): void;
  draw(context: CanvasRenderingContext2D): void;
  /** In words, for both sides. */
  readonly prices: readonly [string, string];
}

/** The numbers of an estimate, and what they are of. */
interface Shown {
  readonly values: ArrayLike<number>;
  readonly grid: { readonly columns: number; readonly rows: number };
  readonly view: View;
  readonly tall: number;
  readonly of: Stage["loaded"];
}

/** An estimate is of the divergence alone. */
export function isDivergence({ ground }: Stage): boolean {
  return ground?.kind === "quantity" && ground.quantity === "divergence";
}

export function createSplit(stage: Stage, onError: (error: unknown) => void, onUpdate: () => void): Split {
  let shown: Shown | null = null;
  let image: { readonly of: Shown; readonly look: Look; readonly pixels: HTMLCanvasElement } | null = null;
  let prices: readonly [string, string] = ["", ""];
  let seed = 0;
  const compute = latest(
    stage,
    async () => {
      const { engine, loaded, plane, state, size } = stage;
      if (!split.isOn || !isDivergence(stage) || !engine || !loaded) return;
      const { network } = loaded;
      const d = network.stateSize;
      const { view, context } = state;
      const cell = CELL_PIXELS[engine.kind];
      const grid = { columns: Math.ceil(size.width / cell), rows: Math.ceil(size.height / cell) };
      const points = gridPoints(plane, view, grid, size.height / size.width);
      const { estimator, probes } = split;
      const options =
        estimator === "hutchinson" ? ({ method: "hutchinson", probes, seed: ++seed } as const) : ({ method: "difference" } as const);
      const values =
        estimator === "ones"
          ? await onesAnswer(engine, points, context, d)
          : (await engine.evaluate(points, { ...options, outputs: ["divergence"], ...withContext(context) })).divergence!;
      const exact = await engine.evaluate(points, { outputs: ["divergence", "diagonal"], ...withContext(context) });
      if (stage.loaded !== loaded) return;
      // Relative to Σ|∂f_i/∂x_i|, in the middle of all points' errors.
      const errors = Array.from(values, (value, i) => {
        let sum = 0;
        for (let k = 0; k < d; k++) sum += Math.abs(exact.diagonal![i * d + k]!);
        const error = Math.abs(value - exact.divergence![i]!);
        // Where all ∂f_i/∂x_i are 0 there is nothing to compare with but 1.
        return sum > 0 ? error / sum : error;
      })
        .filter((error) => Number.isFinite(error))
        .toSorted((x, y) => x - y);
      const price = (given: Parameters<typeof explainPlan>[1]): string =>
        `${short(explainPlan(network, { ...given, outputs: ["divergence"] }).candidates.find(({ chosen }) => chosen)!.ratio, 3)} f`;
      const names = {
        hutchinson: `Hutchinson, ${probes} ${probes === 1 ? "probe" : "probes"}`,
        difference: "differences",
        ones: "the “ones” mistake",
      };
      // A backward pass multiplies by the same matrices, transposed, as one probe's tangent does.
      const priced = estimator === "ones" ? ({ method: "hutchinson", probes: 1 } as const) : options;
      prices = [
        `exact: ${price({})}`,
        `${names[estimator]}: ${price(priced)}; ${errors.length === 0 ? "nothing here is finite" : `off by ${short(100 * errors[Math.floor(errors.length / 2)]!, 2)} % of ${SCALE}, median`}`,
      ];
      shown = {
        values,
        grid,
        view,
        tall: (view.width * size.height) / size.width,
        of: loaded,
      };
      onUpdate();
      stage.drawMoving();
    },
    onError,
  );
  const split: Split = {
    isOn: false,
    place: 0.5,
    estimator: "hutchinson",
    probes: 1,
    update() {
      if (split.isOn) compute(undefined);
    },
    get prices() {
      return prices;
    },
    draw(context) {
      const { size, state } = stage;
      if (!split.isOn || !shown || shown.of !== stage.loaded || !isDivergence(stage)) return;
      const look = stage.shot();
      if (image?.of !== shown || !isSameLook(image.look, look)) {
        const { columns: width, rows: height } = shown.grid;
        image = { of: shown, look, pixels: paintPixels(shown.values, { width, height }, look.domain, look) };
      }
      const perPixel = state.view.width / size.width;
      const [x, y] = toPixel(state.view, size, shown.view.a, shown.view.b);
      const [across, tall] = [shown.view.width / perPixel, shown.tall / perPixel];
      const edge = split.place * size.width;
      context.save();
      context.beginPath();
      context.rect(edge, 0, size.width - edge, size.height);
      context.clip();
      context.imageSmoothingEnabled = false;
      context.drawImage(image.pixels, x - across / 2, y - tall / 2, across, tall);
      context.restore();
    },
  };
  return split;
}
