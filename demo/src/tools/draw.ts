/** Points that are painted or dropped, and a network that learns them on the stage. */
import { DeviceLostError, toSafetensors, type Network } from "deldot";
import { GpuEngine } from "../engines/gpuEngine.js";
import { short } from "../base/numbers.js";
import { element, save, sharp } from "../base/page.js";
import { atPixel, normals, toPixel, uniforms } from "../base/plane.js";
import type { Stage } from "../stage.js";
import { trainInWorker } from "../training/client.js";
import { readPoints, standardise } from "../training/points.js";
import { trainOnGpu, type LiveLoss, type LiveTrainer } from "../training/trainer.js";

type Attempt = (work: Promise<unknown>) => void;

/** Of a brush: points a move, and how far they stray, in pixels. */
const [SPRAY, STRAY] = [5, 9];
/** By a key as much as by so many moves. */
const STROKE = 4;
const FEWEST = 50;
const MOST = 20_000;
/** Between two looks at what has been learned. */
const RUN_MILLISECONDS = 400;
const LOOKS = 3;
const CURVE_POINTS = 300;

export interface Draw {
  /** Whether the panel is open, and a pointer paints. */
  readonly isOn: boolean;
  /** Takes a file of points; false where it is none. */
  take(name: string, bytes: Uint8Array): boolean;
  /** Brings the panel in line with what is painted and learned, and with the page's colours. */
  show(): void;
  draw(context: CanvasRenderingContext2D): void;
}

/** @param onLearned hears of what rests on the stage when learning pauses, by the name of the training and what it is. */
export function createDraw(stage: Stage, overlay: HTMLElement, attempt: Attempt, onLearned: (name: string, title: string) => void): Draw {
  let points: number[] = [];
  /** What a file's points are of what it has. */
  let about = "";
  let trainer: LiveTrainer | null = null;
  let trainerName = "";
  /** The stage's, when learning began or showed what it has learned. */
  let choice = 0;
  /** Which training goes on; another, or none, ends it. */
  let run: object | null = null;
  const normal = normals(Date.now() % 2 ** 31);
  const button = (id: string): HTMLButtonElement => element(id, HTMLButtonElement);
  const say = (text: string): void => void (element("draw-status", HTMLElement).textContent = text);
  const show = (): void => {
    button("train").textContent = run ? "Pause" : trainer ? "Go on" : "Train";
    button("train").disabled = points.length < 2 * FEWEST;
    element("draw-hint", HTMLElement).textContent = trainer
      ? "The network has these points; Clear, to paint others."
      : "Paint points on the stage, or drop a .npy or .csv of them, and let a network learn them.";
    const status = element("draw-status", HTMLElement);
    status.dataset["points"] = String(points.length / 2);
    // Not read out look by look.
    status.setAttribute("aria-live", run ? "off" : "polite");
    if (draw.isOn) drawCurve(element("curve", HTMLCanvasElement), trainer?.losses ?? []);
    if (!trainer && !run) say(`${points.length / 2} points${about}${points.length < 2 * FEWEST ? `; paint at least ${FEWEST}` : ""}`);
    stage.drawMoving();
  };
  const setPoints = (given: ArrayLike<number>, place = ""): void => {
    end();
    // Evenly out of more than there may be: a file may be sorted.
    const count = given.length / 2;
    about = `${count > MOST ? ` of ${count}` : ""}${place}`;
    const every = Math.max(1, count / MOST);
    points = Array.from({ length: Math.min(count, MOST) }, (_, i) => 2 * Math.floor(i * every)).flatMap((at) => [
      given[at]!,
      given[at + 1]!,
    ]);
    show();
  };
  const pause = (): void => {
    run = null;
    stage.isTraining = false;
    show();
  };
  const end = (): void => {
    trainer?.destroy();
    trainer = null;
    pause();
  };

  async function start(): Promise<void> {
    const mine = (run = {});
    choice = stage.choice;
    stage.isTraining = true;
    show();
    try {
      if (!trainer) {
        say("Starting");
        const { engine } = stage;
        const given = Float32Array.from(points);
        const made = engine instanceof GpuEngine && engine.isHardware ? await trainOnGpu(engine.device, given) : await trainInWorker(given);
        if (run !== mine) return made.destroy();
        trainer = made;
        show();
        trainerName = `drawn ${Date.now()}`;
        const loss = element("loss", HTMLSelectElement).value as LiveLoss;
        if (loss !== trainer.loss) await trainer.setLoss(loss);
      }
      await learn(trainer, mine);
    } catch (error) {
      if (run !== mine) return;
      end();
      // The stage mends itself, and learning does not.
      if (error instanceof DeviceLostError) return say("Learning ended with the GPU, which was lost");
      throw error;
    }
  }

  async function learn(learner: LiveTrainer, mine: object): Promise<void> {
    for (let look = 0; ; look++) {
      const { step, loss, stepsPerSecond } = await learner.run(RUN_MILLISECONDS);
      if (run !== mine) break;
      say(`step ${step}, ${short(stepsPerSecond, 3)} a second, loss ${short(loss, 4)}`);
      element("draw-status", HTMLElement).dataset["loss"] = String(loss);
      if (draw.isOn) drawCurve(element("curve", HTMLCanvasElement), learner.losses);
      if (look % LOOKS > 0) continue;
      const network = await learner.network();
      if (run !== mine) break;
      const isShown = await place(network);
      if (run !== mine) break;
      if (!isShown) return pause();
    }
    // What was learned last rests on the stage, unless learning goes on already, by another loss perhaps.
    if (run || trainer !== learner) return;
    const network = await learner.network();
    if (run || trainer !== learner) return;
    if (await place(network)) onLearned(trainerName, `Learned from ${points.length / 2} points`);
  }

  /** Shows what was learned; false where the visitor went on to another field, who is left there. */
  async function place(network: Network): Promise<boolean> {
    if (stage.choice !== choice) return false;
    const placed = stage.replace(network, points.length / 2);
    choice = stage.choice;
    return placed;
  }

  const paintAt = (x: number, y: number, count = SPRAY): void => {
    for (let i = 0; i < count && points.length < 2 * MOST; i++)
      points.push(...atPixel(stage.state.view, stage.size, x + STRAY * normal(), y + STRAY * normal()));
    show();
  };
  const paint = ({ clientX, clientY }: PointerEvent): void => {
    const { left, top } = overlay.getBoundingClientRect();
    paintAt(clientX - left, clientY - top);
  };
  // Before the gestures hear of it: a pointer paints as long as nothing is learned, and Enter in the middle.
  const isPainting = (event: PointerEvent): boolean => draw.isOn && !trainer && event.isPrimary && event.button <= 0;
  overlay.addEventListener("pointerdown", (event) => {
    if (!isPainting(event)) return;
    event.stopImmediatePropagation();
    overlay.setPointerCapture(event.pointerId);
    paint(event);
  });
  overlay.addEventListener("pointermove", (event) => {
    if (!isPainting(event) || !overlay.hasPointerCapture(event.pointerId)) return;
    event.stopImmediatePropagation();
    paint(event);
  });
  overlay.addEventListener("pointerup", (event) => isPainting(event) && event.stopImmediatePropagation());
  overlay.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !draw.isOn || trainer) return;
    event.stopImmediatePropagation();
    paintAt(stage.size.width / 2, stage.size.height / 2, STROKE * SPRAY);
  });

  button("train").addEventListener("click", () => (run ? pause() : attempt(start())));
  button("clear").addEventListener("click", () => setPoints([]));
  button("example").addEventListener("click", () => setPoints(spiral()));
  element("loss", HTMLSelectElement).addEventListener("change", () => {
    if (!trainer) return;
    const loss = element("loss", HTMLSelectElement).value as LiveLoss;
    // Learning goes on, and what has run until now neither shows nor keeps what the other loss begins with.
    const waiting = run && (run = {});
    attempt(
      trainer.setLoss(loss).then(
        () => (waiting && run === waiting ? start() : undefined),
        (error: unknown) => {
          if (run === waiting) pause();
          throw error;
        },
      ),
    );
  });
  button("save-trained").addEventListener("click", () => {
    const network: Network | undefined = stage.state.field === "drawn" ? stage.loaded?.network : undefined;
    if (network) save(new Blob([toSafetensors(network) as Uint8Array<ArrayBuffer>]), "drawn.safetensors");
  });
  element("draw", HTMLElement).addEventListener("toggle", show);

  const draw: Draw = {
    get isOn() {
      return !element("draw", HTMLElement).hidden;
    },
    take(name, bytes) {
      if (!/\.(npy|csv|tsv|txt)$/i.test(name)) return false;
      const { points: given, centre, scale } = standardise(readPoints(name, bytes));
      setPoints(
        given,
        scale !== 1
          ? `, less (${centre.map((x) => short(x, 4)).join(", ")}) and over ${short(scale, 4)}: so is what is learned and saved`
          : "",
      );
      return true;
    },
    show,
    draw(context) {
      if (!draw.isOn) return;
      const { view } = stage.state;
      context.fillStyle = stage.isDark ? "rgb(120 230 255 / 0.75)" : "rgb(0 90 140 / 0.7)";
      context.beginPath();
      for (let i = 0; i < points.length; i += 2) {
        const [x, y] = toPixel(view, stage.size, points[i]!, points[i + 1]!);
        context.rect(x - 1, y - 1, 2, 2);
      }
      context.fill();
    },
  };
  return draw;
}

/** Two arms, 1500 points. */
function spiral(): number[] {
  const [next, normal] = [uniforms(5), normals(6)];
  return Array.from({ length: 1500 }, (_, i) => {
    const turn = 3.3 * Math.PI * Math.sqrt(next());
    const [radius, angle] = [0.2 * turn, turn + (i % 2) * Math.PI];
    return [radius * Math.cos(angle) + 0.05 * normal(), radius * Math.sin(angle) + 0.05 * normal()];
  }).flat();
}

/** Means of as many steps each as there is room for. */
function drawCurve(canvas: HTMLCanvasElement, losses: readonly number[]): void {
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = sharp(canvas);
  const each = Math.max(1, Math.ceil(losses.length / CURVE_POINTS));
  const means = Array.from({ length: Math.floor(losses.length / each) }, (_, i) => {
    const some = losses.slice(i * each, (i + 1) * each);
    return some.reduce((sum, loss) => sum + loss, 0) / each;
  });
  const sorted = means.toSorted((a, b) => a - b);
  // The first steps are far off.
  const [low, high] = [sorted[0] ?? 0, sorted[Math.floor(0.97 * sorted.length)] ?? 1];
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5;
  context.beginPath();
  means.forEach((mean, i) =>
    context.lineTo(
      (i / Math.max(1, means.length - 1)) * width,
      4 + Math.min(1, Math.max(0, (high - mean) / (high - low || 1))) * (height - 8),
    ),
  );
  context.stroke();
}
