/** Particles that the field carries on the CPU: what particles_step.wgsl and particles.wgsl say, for fewer of them. */
import type { Numbers, Shot } from "./engine.js";
import { RADIUS_PIXELS, STRIDE } from "./particles.js";
import { onPlane, pointOn, toPixel } from "./plane.js";

const COUNT = 512;
/** A step is as long as two on the GPU: without one, showing a frame is the CPU's work as well. */
const STEPS_AT_ONCE = 2;
const STEP_MILLISECONDS = 30;
const SHRUNK = [46, 13, 92] as const;
const SAME = [38, 38, 38] as const;
const GROWN = [179, 71, 0] as const;

interface Particle {
  readonly x: readonly number[];
  /** The logarithm of the volume around it, over that at its start. */
  readonly growth: number;
  /** In steps of the GPU. */
  readonly age: number;
  readonly lifetime: number;
}

export class CpuParticles {
  private particles: readonly Particle[] = [];
  private shot: Shot | null = null;
  private placedFor = "";
  private isRunning = false;
  /** Which loop of frames is the present one. */
  private run = 0;
  private stepped = 0;

  /** @param evaluate f and its divergence at points [B, d]. @param redraw shows where they are now. */
  constructor(
    private readonly evaluate: (points: Float32Array, context: readonly number[]) => Promise<Numbers>,
    private readonly redraw: () => void,
  ) {}

  setRunning(on: boolean): void {
    if (on === this.isRunning) return;
    this.isRunning = on;
    this.run++;
    if (on) this.next(this.run);
    else this.redraw();
  }

  /** They belong to a field that is gone. */
  forget(): void {
    this.particles = [];
    this.shot = null;
    this.placedFor = "";
  }

  /** Tells where the picture is. Particles are strewn over it anew where the plane or the view is another. */
  moveTo(shot: Shot): void {
    this.shot = shot;
    const key = JSON.stringify([shot.plane, shot.view]);
    if (key === this.placedFor) return;
    this.placedFor = key;
    this.particles = Array.from({ length: COUNT }, () => ({ ...born(shot), age: Math.floor(60 * Math.random()) }));
  }

  private next(run: number): void {
    requestAnimationFrame((now) => {
      if (run !== this.run) return;
      if (now - this.stepped < STEP_MILLISECONDS) return this.next(run);
      this.stepped = now;
      void this.step().then(() => this.next(run));
    });
  }

  /** A short Euler step of all, with the divergence integrated beside; what leaves the picture or is old starts anew. */
  private async step(): Promise<void> {
    const { particles, shot } = this;
    if (!shot) return;
    const d = shot.plane.origin.length;
    const points = Float32Array.from(particles.flatMap(({ x }) => x));
    const numbers = await this.evaluate(points, shot.context).catch(() => null);
    // Strewn anew, ended, or of a field that is gone.
    if (!numbers || particles !== this.particles || !this.isRunning) return;
    const { view } = shot;
    const dt = (STEPS_AT_ONCE * STRIDE * view.width) / shot.speed;
    this.particles = particles.map(({ x, growth, age, lifetime }, index) => {
      const moved = { x: x.map((at, k) => at + dt * numbers.value![index * d + k]!), growth: growth + dt * numbers.divergence![index]! };
      const [a, b] = onPlane(shot.plane, moved.x);
      // Written so that a NaN, too, starts anew.
      const isInside = Math.abs(a - view.a) < 0.6 * view.width && Math.abs(b - view.b) < 0.6 * tallOf(shot) && Math.abs(moved.growth) < 20;
      return isInside && age < lifetime ? { ...moved, age: age + STEPS_AT_ONCE, lifetime } : born(shot);
    });
    this.redraw();
  }

  /** Larger and orange where the volume around one has grown along its path, smaller and purple where it shrank. */
  draw(surface: CanvasRenderingContext2D): void {
    const { shot } = this;
    const place = shot?.panels.find(({ panel }) => panel === "field");
    if (!this.isRunning || !shot || !place) return;
    surface.save();
    surface.beginPath();
    surface.rect(place.left, place.top, place.width, place.height);
    surface.clip();
    for (const { x, growth, age, lifetime } of this.particles) {
      const [a, b] = onPlane(shot.plane, x);
      const [left, top] = toPixel(shot.view, place, a, b);
      const [part, towards] = growth < 0 ? [Math.min(1, -growth), SHRUNK] : [Math.min(1, growth), GROWN];
      const [red, green, blue] = SAME.map((from, k) => Math.round(from + part * (towards[k]! - from)));
      surface.fillStyle = `rgb(${red} ${green} ${blue} / ${Math.min(1, age / 10, (lifetime - age) / 10)})`;
      surface.beginPath();
      surface.arc(place.left + left, place.top + top, RADIUS_PIXELS * shot.ratio * Math.min(2.5, Math.max(0.6, 2 ** (0.5 * growth))), 0, 7);
      surface.fill();
    }
    surface.restore();
  }
}

function tallOf({ view, panels }: Shot): number {
  return (view.width * panels[0]!.height) / panels[0]!.width;
}

function born(shot: Shot): Particle {
  const { plane, view } = shot;
  const x = pointOn(plane, view.a + (Math.random() - 0.5) * view.width, view.b + (Math.random() - 0.5) * tallOf(shot));
  return { x, growth: 0, age: 0, lifetime: 60 + Math.floor(120 * Math.random()) };
}
