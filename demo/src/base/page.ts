/** The element of an id, of the kind that is expected. @throws TypeError where index.html has no such. */
export function element<T extends HTMLElement>(id: string, kind: abstract new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`the page has no ${kind.name} #${id}`);
  return found;
}

/** A canvas as large as it is shown, empty; its context's units are CSS pixels. */
export function sharp(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  [canvas.width, canvas.height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
  const context = canvas.getContext("2d")!;
  context.scale(devicePixelRatio, devicePixelRatio);
  return context;
}

/** A labelled slider with its number beside it, as three cells of a grid. */
export function slider(
  parent: HTMLElement,
  { id, name, value, low, high }: { id: string; name: string; value: number; low: number; high: number },
  onInput: (value: number) => void,
): void {
  const label = document.createElement("label");
  label.htmlFor = id;
  label.textContent = name;
  const input = Object.assign(document.createElement("input"), { id, type: "range", min: String(low), max: String(high), step: "0.01" });
  input.value = String(value);
  const output = document.createElement("output");
  output.textContent = value.toFixed(2);
  input.addEventListener("input", () => {
    output.textContent = Number(input.value).toFixed(2);
    onInput(Number(input.value));
  });
  parent.append(label, input, output);
}

export function option(value: string, text: string): HTMLOptionElement {
  return Object.assign(document.createElement("option"), { value, textContent: text });
}

/** Has the browser save a file. */
export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** What stays between visits, where the browser lets a page keep anything. */
export const stored = {
  get(key: string): string | null {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key: string, value: string): void {
    try {
      localStorage.setItem(key, value);
    } catch {
      // Blocked, as in a frame of another site, or full: the next visit starts anew.
    }
  },
};
