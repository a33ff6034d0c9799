/** What both engines have in common: a picture from coarse to fine, shown at once under any view. */
import { isSameLook, nextLevel, type Look, type Painted, type Shot } from "./engine.js";
import type { Work } from "./ground.js";
import type { View } from "../base/plane.js";

export interface Grid {
  readonly columns: number;
  readonly rows: number;
}

/** In milliseconds. */
export interface Patience {
  /** For a picture while things move. */
  readonly moving: number;
  /** For the first picture of what rests. */
  readonly first: number;
  /** For its finest. */
  readonly resting: number;
}

const LEAST_MILLISECONDS = 0.5;
/** The next coarser picture is a quarter of one. */
const SMALL = 0.2;

/** What each kind of work costs. */
export class Pace {
  private readonly known = new Map<string, { readonly amount: number; readonly milliseconds: number }>();

  has({ name }: Work): boolean {
    return this.known.has(name);
  }

  /** Of a point, in milliseconds; undefined where nothing is known. */
  of({ name, perPoint }: Work): number | undefined {
    const known = this.known.get(name);
    return known && (perPoint * known.milliseconds) / known.amount;
  }

  /** Of a few points most is waiting, for the browser and for other work: a small part of what is known replaces it only where it is cheaper. */
  learn(work: Work, points: number, measured: number): void {
    const known = this.known.get(work.name);
    const amount = points * work.perPoint;
    // Some browsers' clocks go by milliseconds.
    const milliseconds = Math.max(measured, LEAST_MILLISECONDS);
    if (!known || amount >= SMALL * known.amount || milliseconds * known.amount < known.milliseconds * amount)
      this.known.set(work.name, { amount, milliseconds });
  }

  clear(): void {
    this.known.clear();
  }
}

export abstract class Painter {
  protected view: View = { a: 0, b: 0, width: 1 };
  protected look: Look | null = null;
  /** Which picture is wanted. */
  protected token = 0;
  protected readonly pace = new Pace();

  constructor(private readonly patience: Patience) {}

  /** The numbers there are, under the view that is shown. */
  protected abstract redraw(): void;

  show(view: View, look: Look | null = this.look): void {
    const isOther = view !== this.view || look === null || this.look === null || !isSameLook(look, this.look);
    this.view = view;
    this.look = look;
    if (isOther) this.redraw();
  }

  /**
   * Coarse first, then finer and finer.
   * @param compute shows a grid; false where another picture is wanted.
   * @param fits whether a grid finer than one that was shown is one that there is room for.
   */
  protected async refine(
    { size }: Shot,
    moving: boolean,
    work: Work,
    compute: (grid: Grid) => Promise<boolean>,
    onPainted: (painted: Painted) => void,
    fits: (grid: Grid) => boolean = () => true,
  ): Promise<void> {
    const { width, height } = size;
    let last: Painted | null = null;
    for (let level: number | null = Infinity; ;) {
      const limit = moving ? this.patience.moving : level === Infinity ? this.patience.first : this.patience.resting;
      level = nextLevel(level, width * height, this.pace.of(work)!, limit);
      if (level === null) return;
      const grid = { columns: Math.max(2, Math.ceil(width / level)), rows: Math.max(2, Math.ceil(height / level)) };
      if (last && !fits(grid)) return onPainted({ ...last, done: !moving });
      const begun = performance.now();
      if (!(await compute(grid))) return;
      const milliseconds = performance.now() - begun;
      this.pace.learn(work, grid.columns * grid.rows, milliseconds);
      const next = moving ? null : nextLevel(level, width * height, this.pace.of(work)!, this.patience.resting);
      last = { ...grid, milliseconds, done: !moving && next === null };
      onPainted(last);
      if (next === null) return;
    }
  }
}
