/** Where on the page's plot everything is, in CSS pixels. */
import type { Size } from "./plane.js";
import type { Panel, State } from "./state.js";

/** A panel and its rectangle. */
export interface PanelPlace {
  readonly panel: Panel;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface Layout {
  readonly size: Size;
  readonly panels: readonly PanelPlace[];
  readonly bar: { readonly left: number; readonly top: number; readonly width: number; readonly height: number };
}

const LEFT = 52;
const TOP = 12;
const BOTTOM = 46;
const BAR = { gap: 14, width: 14, right: 58 } as const;
const BETWEEN = 10;
const TITLE = 20;

/** Panels side by side where they are wide enough, else below one another. */
export function layoutOf(size: Size, panels: State["panels"], hasTruth: boolean): Layout {
  const shown: Panel[] = !hasTruth ? ["field"] : panels === "all" ? ["field", "truth", "difference"] : [panels];
  const titled = shown.length > 1 ? TITLE : 0;
  const inner = { width: size.width - LEFT - BAR.gap - BAR.width - BAR.right, height: size.height - TOP - BOTTOM };
  const beside = inner.width >= 130 * shown.length || shown.length === 1;
  const count = shown.length;
  const width = Math.floor(beside ? (inner.width - BETWEEN * (count - 1)) / count : inner.width);
  const height = Math.floor(beside ? inner.height - titled : (inner.height - (BETWEEN + titled) * (count - 1) - titled) / count);
  return {
    size,
    panels: shown.map((panel, index) => ({
      panel,
      left: LEFT + (beside ? index * (width + BETWEEN) : 0),
      top: TOP + titled + (beside ? 0 : index * (height + BETWEEN + titled)),
      width: Math.max(16, width),
      height: Math.max(16, height),
    })),
    bar: { left: size.width - BAR.right - BAR.width, top: TOP + titled, width: BAR.width, height: inner.height - titled },
  };
}

/** The panels in device pixels. */
export function inPixels(panels: readonly PanelPlace[], ratio: number): PanelPlace[] {
  return panels.map(({ panel, left, top, width, height }) => ({
    panel,
    left: Math.round(left * ratio),
    top: Math.round(top * ratio),
    width: Math.round(width * ratio),
    height: Math.round(height * ratio),
  }));
}
