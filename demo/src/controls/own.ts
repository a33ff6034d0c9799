/** What people brought themselves stays in their browser, and goes nowhere else: files as networks, formulas and what was learned as links. */
import type { Network } from "deldot";
import { createStore, delMany, entries, set } from "idb-keyval";
import type { FieldSource } from "../fields/code.js";
import type { Stage } from "../stage.js";
import { fromHash, toHash } from "../base/state.js";

/** The oldest beyond these are forgotten. */
const MOST = 8;
const PICTURE = { width: 96, height: 60 } as const;

interface Kept {
  readonly title: string;
  /** Small, as a data: address. */
  readonly picture: string;
  /** When, in milliseconds since 1970. */
  readonly at: number;
  readonly field:
    | { readonly kind: "link"; readonly hash: string }
    | { readonly kind: "file"; readonly network: Network; readonly source: FieldSource };
}

export interface Own {
  /** Keeps what is on the stage, in place of what was kept under the same name. */
  keep(name: string, title: string): void;
  /** Which of the cards is on the stage. */
  show(): void;
}

/** @param root where the cards are, the newest first. */
export function createOwn(root: HTMLElement, stage: Stage, attempt: (work: Promise<unknown>) => void): Own {
  const store = createStore("deldot", "yours");
  /** What is on the stage, where it is one of them. */
  let shown: { readonly name: string; readonly loaded: Stage["loaded"] } | null = null;

  async function list(): Promise<void> {
    const kept = (await entries<string, Kept>(store)).toSorted(([, a], [, b]) => b.at - a.at);
    const [some, others] = [kept.slice(0, MOST), kept.slice(MOST)];
    await delMany(
      others.map(([name]) => name),
      store,
    );
    root.replaceChildren(...some.map(([name, each]) => cardOf(name, each)));
    own.show();
  }

  function cardOf(name: string, kept: Kept): HTMLElement {
    const [place, card, forget] = [document.createElement("div"), document.createElement("button"), document.createElement("button")];
    const [picture, title] = [document.createElement("img"), document.createElement("span")];
    place.className = "own";
    Object.assign(card, { type: "button", className: "card", title: kept.title });
    card.dataset["own"] = name;
    Object.assign(picture, { src: kept.picture, alt: "" });
    title.textContent = kept.title;
    card.append(picture, title);
    card.addEventListener("click", () => attempt(choose(name, kept)));
    Object.assign(forget, { type: "button", className: "forget", textContent: "×" });
    forget.setAttribute("aria-label", `Forget ${kept.title}`);
    forget.addEventListener("click", () => attempt(delMany([name], store).then(list)));
    place.append(card, forget);
    return place;
  }

  async function choose(name: string, { field }: Kept): Promise<void> {
    if (field.kind === "file") await stage.useFile({ network: field.network, truth: null, source: field.source });
    else await stage.choose(fromHash(field.hash)!);
    shown = { name, loaded: stage.loaded };
    own.show();
  }

  const own: Own = {
    keep(name, title) {
      const { loaded, engine, state } = stage;
      if (!loaded || !engine) return;
      // What plays starts anew.
      const { context: _, ...said } = stage.link();
      const field: Kept["field"] =
        state.field === "file" ? { kind: "file", network: loaded.network, source: loaded.source } : { kind: "link", hash: toHash(said) };
      const kept: Kept = { title, picture: pictureOf(engine.snapshot()), at: Date.now(), field };
      shown = { name, loaded };
      // Where a browser keeps nothing, the field is on the stage all the same.
      set(name, kept, store).then(list, () => undefined);
    },
    show() {
      for (const card of root.querySelectorAll<HTMLElement>(".card"))
        card.setAttribute("aria-pressed", String(card.dataset["own"] === shown?.name && stage.loaded === shown?.loaded));
    },
  };
  list().catch(() => undefined);
  return own;
}

/** The middle of a canvas, small. */
function pictureOf(canvas: HTMLCanvasElement): string {
  const small = Object.assign(document.createElement("canvas"), PICTURE);
  const width = Math.min(canvas.width, (canvas.height * PICTURE.width) / PICTURE.height);
  const height = (width * PICTURE.height) / PICTURE.width;
  const [left, top] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
  small.getContext("2d")!.drawImage(canvas, left, top, width, height, 0, 0, PICTURE.width, PICTURE.height);
  return small.toDataURL();
}
