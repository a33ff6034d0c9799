/** What both engines have in common: a picture from coarse to fine, shown at once under any view. */
import { isSameLook, nextLevel, type Look, type Painted, type Shot } from "./engine.js";
import type { View } from "./plane.js";

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

/** Cells from which on the time they took tells what one takes. */
const TELLING = 1024;

export abstract class Painter {
  protected view: View = { a: 0, b: 0, width: 1 };
  protected look: Look | null = null;
  /** Which picture is wanted. */
  protected token = 0;
  /** By kind of work. */
  protected readonly millisecondsPerPoint = new Map<string, number>();

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
   * @param work what is timed under one name.
   * @param compute shows a grid; false where another picture is wanted.
   * @param fits whether a grid finer than one that was shown is one that there is room for.
   */
  protected async refine(
    { size }: Shot,
    moving: boolean,
    work: string,
    compute: (grid: Grid) => Promise<boolean>,
    onPainted: (painted: Painted) => void,
    fits: (grid: Grid) => boolean = () => true,
  ): Promise<void> {
    const { width, height } = size;
    let last: Painted | null = null;
    for (let level: number | null = Infinity; ;) {
      const limit = moving ? this.patience.moving : level === Infinity ? this.patience.first : this.patience.resting;
      level = nextLevel(level, width * height, this.millisecondsPerPoint.get(work)!, limit);
      if (level === null) return;
      const grid = { columns: Math.max(2, Math.ceil(width / level)), rows: Math.max(2, Math.ceil(height / level)) };
      if (last && !fits(grid)) return onPainted({ ...last, done: !moving });
      const begun = performance.now();
      if (!(await compute(grid))) return;
      const milliseconds = performance.now() - begun;
      const perPoint = milliseconds / (grid.columns * grid.rows);
      if (grid.columns * grid.rows >= TELLING) this.millisecondsPerPoint.set(work, perPoint);
      const next = moving ? null : nextLevel(level, width * height, perPoint, this.patience.resting);
      last = { ...grid, milliseconds, done: !moving && next === null };
      onPainted(last);
      if (next === null) return;
    }
  }
}
