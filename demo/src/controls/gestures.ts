/** Panning, zooming, pointing and holding, by mouse, fingers or keys. */
import { atPixel, type Size, type View } from "../base/plane.js";

export interface GestureTarget {
  readonly size: Size;
  readonly view: View;
  /** Whether it stands in a page that scrolls: then a wheel zooms with Ctrl alone. */
  readonly isEmbedded: boolean;
  /** A view on the way to another, or where one has come to rest. */
  onView(view: View, moving: boolean): void;
  /** Whether a pinch around a pixel, or a wheel with Shift there, sizes what is there; else it zooms. */
  isSized(x: number, y: number): boolean;
  onSize(factor: number): void;
  onPoint(a: number, b: number, x: number, y: number): void;
  /** The pointer left the picture. */
  onLeave(): void;
  onPin(a: number, b: number): void;
  onUnpin(): void;
  onReset(): void;
  /** Keys have moved the view: where its middle is now. */
  onMiddle(a: number, b: number): void;
  /** A press that stays where it is, or a key, and its end. */
  onHold(a: number, b: number): void;
  onRelease(): void;
}

const ZOOM_PER_PIXEL = 0.0016;
/** A step of a wheel is at least so many pixels. */
const LEAST_WHEEL = 48;
const REST_MILLISECONDS = 160;
/** A press that moves less is a click, or, held for so long, ink. */
const CLICK_PIXELS = 4;
const HOLD_MILLISECONDS = 320;

export function listen(element: HTMLElement, target: GestureTarget): void {
  const fingers = new Map<number, { x: number; y: number }>();
  let moved = 0;
  /** What was in view when the first finger came. */
  let begun = target.view;
  let isHeld = false;
  /** Whether two fingers size what is between them. */
  let isSizing = false;
  let holding: ReturnType<typeof setTimeout> | undefined;
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
  const at = (x: number, y: number): [number, number] => atPixel(target.view, target.size, x, y);
  const panBy = (dx: number, dy: number): void => {
    const step = target.view.width / target.size.width;
    move({ ...target.view, a: target.view.a - dx * step, b: target.view.b + dy * step });
  };
  /** Keeps what is under (x, y) where it is. */
  const zoomAt = (x: number, y: number, factor: number): void => {
    const [a, b] = at(x, y);
    const { view } = target;
    move({ a: a + (view.a - a) * factor, b: b + (view.b - b) * factor, width: view.width * factor });
  };
  const otherThan = (finger: number): { x: number; y: number } => [...fingers].find(([id]) => id !== finger)![1];
  const endHold = (): void => {
    clearTimeout(holding);
    if (isHeld) target.onRelease();
    isHeld = false;
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const { x, y } = place(event);
    endHold();
    fingers.set(event.pointerId, { x, y });
    moved = fingers.size > 1 ? Infinity : 0;
    if (fingers.size === 1) begun = target.view;
    element.setPointerCapture(event.pointerId);
    if (fingers.size > 1) {
      const { x: otherX, y: otherY } = otherThan(event.pointerId);
      isSizing = target.isSized((x + otherX) / 2, (y + otherY) / 2);
      return;
    }
    holding = setTimeout(() => {
      isHeld = true;
      moved = Infinity;
      target.onHold(...at(x, y));
    }, HOLD_MILLISECONDS);
  });
  element.addEventListener("pointermove", (event) => {
    const { x, y } = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) return target.onPoint(...at(x, y), x, y);
    if (isHeld) return;
    if (fingers.size === 1) {
      moved += Math.hypot(x - before.x, y - before.y);
      if (moved >= CLICK_PIXELS) {
        clearTimeout(holding);
        panBy(x - before.x, y - before.y);
      }
    } else {
      const other = otherThan(event.pointerId);
      const distance = (finger: { x: number; y: number }): number => Math.max(1, Math.hypot(finger.x - other.x, finger.y - other.y));
      const factor = distance(before) / distance({ x, y });
      if (isSizing) target.onSize(1 / factor);
      else zoomAt((x + other.x) / 2, (y + other.y) / 2, factor);
    }
    fingers.set(event.pointerId, { x, y });
  });
  element.addEventListener("pointerleave", () => target.onLeave());
  const release = (event: PointerEvent): void => {
    const { x, y } = place(event);
    const wasDown = fingers.delete(event.pointerId);
    endHold();
    if (wasDown && event.type === "pointerup" && moved < CLICK_PIXELS) target.onPin(...at(x, y));
  };
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", (event) => {
    const wasDown = fingers.has(event.pointerId);
    release(event);
    // The page around it scrolls: what the finger has done until then was no pan.
    if (wasDown) move(begun);
  });
  element.addEventListener("lostpointercapture", ({ pointerId }) => fingers.delete(pointerId));
  element.addEventListener("contextmenu", (event) => isHeld && event.preventDefault());
  element.addEventListener(
    "wheel",
    (event) => {
      const { x, y } = place(event);
      const sizes = event.shiftKey && target.isSized(x, y);
      if (target.isEmbedded && !event.ctrlKey && !event.metaKey && !sizes) return;
      event.preventDefault();
      // With Shift some browsers turn a wheel to the side.
      const delta = sizes ? event.deltaY || event.deltaX : event.deltaY;
      const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 * delta : delta;
      if (sizes) return target.onSize(Math.exp(-ZOOM_PER_PIXEL * pixels));
      // What browsers send for a pinch on a touchpad is a wheel with Ctrl and small steps.
      const isPinch = event.ctrlKey && Math.abs(pixels) < LEAST_WHEEL;
      zoomAt(x, y, Math.exp((isPinch ? 8 : 1) * ZOOM_PER_PIXEL * pixels));
    },
    { passive: false },
  );
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = target.size;
    const middle = (): [number, number] => at(width / 2, height / 2);
    const views: Record<string, () => void> = {
      ArrowLeft: () => panBy(width / 12, 0),
      ArrowRight: () => panBy(-width / 12, 0),
      ArrowUp: () => panBy(0, height / 12),
      ArrowDown: () => panBy(0, -height / 12),
      "+": () => zoomAt(width / 2, height / 2, 0.8),
      "=": () => zoomAt(width / 2, height / 2, 0.8),
      "-": () => zoomAt(width / 2, height / 2, 1.25),
      "0": () => target.onReset(),
    };
    const others: Record<string, () => void> = {
      Enter: () => target.onPin(...middle()),
      Escape: () => target.onUnpin(),
      i: () => {
        if (event.repeat || isHeld) return;
        isHeld = true;
        target.onHold(...middle());
      },
    };
    const action = views[event.key] ?? others[event.key];
    if (!action) return;
    event.preventDefault();
    action();
    if (event.key in views) target.onMiddle(...middle());
  });
  element.addEventListener("keyup", ({ key }) => key === "i" && endHold());
  element.addEventListener("blur", endHold);
}
