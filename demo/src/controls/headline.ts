/** What is to be seen, in a line, some of whose words show where when they are pointed at. */
import { fileOf } from "../fields/code.js";
import { MEANING, MEANING_OF_ERROR, shelfField, type Phrase } from "../fields/shelf.js";
import { element } from "../base/page.js";
import type { Stage } from "../stage.js";
import type { State } from "../base/state.js";

let shown: readonly Phrase[] | null = null;

export function showHeadline(stage: Stage): void {
  const phrases = phrasesOf(stage);
  if (JSON.stringify(phrases) === JSON.stringify(shown)) return;
  shown = phrases;
  // Words that go while they are pointed at do not say that they are left.
  stage.emphasise(0);
  element("headline", HTMLElement).replaceChildren(
    ...phrases.map((phrase) => {
      if (typeof phrase === "string") return document.createTextNode(phrase);
      if (phrase.sign === 0) return Object.assign(document.createElement("span"), { textContent: phrase.text, className: "cut" });
      const word = document.createElement("button");
      word.type = "button";
      word.textContent = phrase.text;
      word.dataset["sign"] = String(phrase.sign);
      const { sign } = phrase;
      const emphasise = (on: boolean) => () => stage.emphasise(on ? sign : 0);
      for (const [event, on] of [
        ["pointerenter", true],
        ["focus", true],
        ["pointerleave", false],
        ["blur", false],
      ] as const)
        word.addEventListener(event, emphasise(on));
      return word;
    }),
  );
}

function phrasesOf({ state, loaded, ground }: Stage): readonly Phrase[] {
  if (ground?.kind === "density") return [`The exact density at t = ${state.context[0]!.toFixed(2)}, by ∇·f along each path.`];
  const known = shelfField(state.field);
  // But for a field whose headline is of its error against its own truth.
  if (ground?.kind === "error" && (state.truth !== null || !known?.layers.includes("error"))) return MEANING_OF_ERROR;
  const phrases = known?.headline ?? phrasesOfOwn(state, loaded);
  // What is orange or purple is so of ∇·f alone.
  const isColoured = ground?.kind === "error" || (ground?.kind === "quantity" && ground.quantity === "divergence");
  return isColoured ? phrases : withoutColours(phrases);
}

/** What stands before the first colour that is named; its words show nothing where they are pointed at. */
function withoutColours(phrases: readonly Phrase[]): readonly Phrase[] {
  const first = phrases.findIndex((phrase) => typeof phrase !== "string" && /^(orange|purple)/i.test(phrase.text));
  return phrases.slice(0, first < 0 ? phrases.length : first).map((phrase, index) => {
    if (typeof phrase !== "string") return phrase.sign === 0 ? phrase : phrase.text;
    return index === first - 1 ? phrase.replace(/[,:] $/, ".") : phrase;
  });
}

/** Of a field that is not on the shelf. */
function phrasesOfOwn(state: State, loaded: Stage["loaded"]): readonly Phrase[] {
  if (loaded?.source.kind === "drawn" && loaded.network.contextSize === 0)
    return ["The score ∇ log p of your points: arrows lead to them, ", { text: "purple gathers", sign: -1 }, " where they are."];
  if (loaded?.source.kind === "drawn")
    return [`This network learned ${loaded.source.points === null ? "somebody's" : `your ${loaded.source.points}`} points. `, ...MEANING];
  const what =
    state.field === "formula"
      ? `f = (${state.formula}). `
      : state.field === "random"
        ? "A random network. "
        : `${loaded ? fileOf(loaded.source) : "Your field"}. `;
  return [{ text: what, sign: 0 }, ...MEANING];
}
