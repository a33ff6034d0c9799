/** What people brought themselves stays in their browser, and goes nowhere else: files and what was learned as networks, formulas as links. */
import type { Network } from "deldot";
import { createStore, delMany, entries, get, set } from "idb-keyval";
import type { FieldSource } from "../fields/code.js";
import { surfaceOf, type Stage } from "../stage.js";
import { fromHash, toHash } from "../base/state.js";

/** The oldest beyond these are forgotten. */
const MOST = 8;
const PICTURE = { width: 96, height: 60 } as const;

interface Card {
  readonly title: string;
  /** Small, as a data: address; empty where there was none. */
  readonly picture: string;
  /** When, in milliseconds since 1970. */
  readonly at: number;
}

type Kept =
  | { readonly kind: "link"; readonly hash: string }
  /** `hash` is how what was learned was shown, without its weights, which a link would round. */
  | { readonly kind: "file"; readonly network: Network; readonly source: FieldSource; readonly hash?: string };

export interface Own {
  /** Keeps what is on the stage, in place of what was kept under the same name. */
  keep(name: string, title: string): void;
  /** Which of the cards is on the stage. */
  show(): void;
}

/** @param root where the cards are, the newest first. */
export function createOwn(root: HTMLElement, stage: Stage, attempt: (work: Promise<unknown>) => void): Own {
  // Fields are read when they are chosen: they may be large.
  const [cards, fields] = [createStore("deldot cards", "cards"), createStore("deldot fields", "fields")];

  async function list(): Promise<void> {
    const all = (await entries<string, Card>(cards)).toSorted(([, a], [, b]) => b.at - a.at);
    await forget(all.slice(MOST).map(([name]) => name));
    const focused = root.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset["own"] : undefined;
    root.replaceChildren(...all.slice(0, MOST).map(([name, card]) => elementOf(name, card)));
    if (focused !== undefined) root.querySelector<HTMLElement>(`[data-own="${CSS.escape(focused)}"]`)?.focus();
    own.show();
  }

  async function forget(names: string[]): Promise<void> {
    await Promise.all([delMany(names, cards), delMany(names, fields)]);
  }

  function elementOf(name: string, { title, picture }: Card): HTMLElement {
    const [place, card, cross] = [document.createElement("div"), document.createElement("button"), document.createElement("button")];
    place.className = "own";
    Object.assign(card, { type: "button", className: "card", title });
    card.dataset["own"] = name;
    if (picture) card.append(Object.assign(document.createElement("img"), { src: picture, alt: "" }));
    card.append(Object.assign(document.createElement("span"), { textContent: title }));
    card.addEventListener("click", () => attempt(choose(name, title)));
    Object.assign(cross, { type: "button", className: "forget", textContent: "×" });
    cross.setAttribute("aria-label", `Forget ${title}`);
    cross.addEventListener("click", () =>
      attempt(
        (async () => {
          await forget([name]);
          await list();
          // Whoever uses keys goes on from there.
          (root.querySelector<HTMLElement>(".card") ?? document.querySelector<HTMLElement>("#formula"))!.focus();
        })(),
      ),
    );
    place.append(card, cross);
    return place;
  }

  async function choose(name: string, title: string): Promise<void> {
    const { choice } = stage;
    const kept = await get<Kept>(name, fields);
    if (choice !== stage.choice) return;
    const link = kept?.hash === undefined ? { field: "file" } : fromHash(kept.hash);
    if (!kept || !link) throw new Error(`${title} is not kept any more`);
    await stage.choose(link, name, kept.kind === "file" ? { network: kept.network, truth: null, source: kept.source } : null);
  }

  const own: Own = {
    keep(name, title) {
      const { loaded, engine, state } = stage;
      if (!loaded) return;
      // What plays starts anew.
      const { context: _, ...said } = state;
      const { network, source } = loaded;
      const kept: Kept =
        state.field === "file"
          ? { kind: "file", network, source }
          : state.field === "drawn"
            ? { kind: "file", network, source, hash: toHash(said) }
            : { kind: "link", hash: toHash(said) };
      const card: Card = { title, picture: engine ? pictureOf(engine.snapshot()) : "", at: Date.now() };
      loaded.own = name;
      const put = async (): Promise<void> => {
        await set(name, kept, fields);
        await set(name, card, cards);
        await list();
      };
      // Where a browser keeps nothing, the field is on the stage all the same.
      put().catch(() => undefined);
    },
    show() {
      for (const card of root.querySelectorAll<HTMLElement>(".card"))
        card.setAttribute("aria-pressed", String(card.dataset["own"] === stage.loaded?.own));
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
  surfaceOf(small).drawImage(canvas, left, top, width, height, 0, 0, PICTURE.width, PICTURE.height);
  return small.toDataURL();
}
