/** Panning, zooming and pointing, by mouse, fingers or keys. */
import type { PanelPlace } from "./layout.js";
import { atPixel, type View } from "./plane.js";

export interface GestureTarget {
  readonly panels: readonly PanelPlace[];
  readonly view: View;
  /** A view on the way to another, or where one has come to rest. */
  onView(view: View, moving: boolean): void;
  onPoint(a: number, b: number): void;
  onPin(a: number, b: number): void;
  onUnpin(): void;
  onReset(): void;
}

const ZOOM_PER_PIXEL = 0.0016;
const REST_MILLISECONDS = 160;
/** A press that moves less is a click. */
const CLICK_PIXELS = 4;

export function listen(element: HTMLElement, target: GestureTarget): void {
  const fingers = new Map<number, { x: number; y: number }>();
  let moved = 0;
  let resting: ReturnType<typeof setTimeout> | undefined;

  const move = (view: View): void => {
    if (!Number.isFinite(view.width) || view.width < 1e-5 || view.width > 1e5) return;
    target.onView(view, true);
    clearTimeout(resting);
    resting = setTimeout(() => target.onView(target.view, false), REST_MILLISECONDS);
  };
  const place = (event: { clientX: number; clientY: number }): { x: number; y: number } => {
    const { left, top } = element.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const panelAt = (x: number, y: number): PanelPlace | undefined =>
    target.panels.find(({ left, top, width, height }) => x >= left && y >= top && x < left + width && y < top + height);
  const panBy = (dx: number, dy: number): void => {
    const step = target.view.width / target.panels[0]!.width;
    move({ ...target.view, a: target.view.a - dx * step, b: target.view.b + dy * step });
  };
  /** Keeps what is under (x, y) where it is. */
  const zoomAt = (x: number, y: number, factor: number): void => {
    const panel = panelAt(x, y) ?? target.panels[0]!;
    const [a, b] = atPixel(target.view, panel, x - panel.left, y - panel.top);
    const { view } = target;
    move({ a: a + (view.a - a) * factor, b: b + (view.b - b) * factor, width: view.width * factor });
  };

  element.addEventListener("pointerdown", (event) => {
    const at = place(event);
    if (event.button !== 0 || !panelAt(at.x, at.y)) return;
    fingers.set(event.pointerId, at);
    moved = fingers.size > 1 ? Infinity : 0;
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    const at = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      const panel = panelAt(at.x, at.y);
      if (panel) target.onPoint(...atPixel(target.view, panel, at.x - panel.left, at.y - panel.top));
      return;
    }
    if (fingers.size === 1) {
      moved += Math.hypot(at.x - before.x, at.y - before.y);
      if (moved >= CLICK_PIXELS) panBy(at.x - before.x, at.y - before.y);
    } else {
      const other = [...fingers].find(([id]) => id !== event.pointerId)![1];
      const distance = (finger: { x: number; y: number }): number => Math.hypot(finger.x - other.x, finger.y - other.y);
      zoomAt((at.x + other.x) / 2, (at.y + other.y) / 2, distance(before) / Math.max(1, distance(at)));
    }
    fingers.set(event.pointerId, at);
  });
  const release = (event: PointerEvent): void => {
    const at = place(event);
    const wasDown = fingers.delete(event.pointerId);
    const panel = panelAt(at.x, at.y);
    if (wasDown && event.type === "pointerup" && moved < CLICK_PIXELS && panel)
      target.onPin(...atPixel(target.view, panel, at.x - panel.left, at.y - panel.top));
  };
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("lostpointercapture", ({ pointerId }) => fingers.delete(pointerId));
  element.addEventListener(
    "wheel",
    (event) => {
      const { x, y } = place(event);
      if (!panelAt(x, y)) return;
      event.preventDefault();
      const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 * event.deltaY : event.deltaY;
      // What browsers send for a pinch on a touchpad is a wheel with Ctrl and small steps.
      zoomAt(x, y, Math.exp((event.ctrlKey ? 8 : 1) * ZOOM_PER_PIXEL * pixels));
    },
    { passive: false },
  );
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const panel = target.panels[0]!;
    const middle = [panel.left + panel.width / 2, panel.top + panel.height / 2] as const;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => panBy(panel.width / 12, 0),
      ArrowRight: () => panBy(-panel.width / 12, 0),
      ArrowUp: () => panBy(0, panel.height / 12),
      ArrowDown: () => panBy(0, -panel.height / 12),
      "+": () => zoomAt(...middle, 0.8),
      "=": () => zoomAt(...middle, 0.8),
      "-": () => zoomAt(...middle, 1.25),
      "0": () => target.onReset(),
      Enter: () => target.onPin(target.view.a, target.view.b),
      Escape: () => target.onUnpin(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
