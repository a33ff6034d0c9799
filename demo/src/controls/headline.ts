/** What is to be seen, in a line, some of whose words show where when they are pointed at. */
import { fileOf } from "../fields/code.js";
import { MEANING, shelfField, type Phrase } from "../fields/shelf.js";
import { element } from "../base/page.js";
import type { Stage } from "../stage.js";

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
  // What is orange or purple is so of ∇·f alone.
  const isColoured = ground?.kind === "error" || (ground?.kind === "quantity" && ground.quantity === "divergence");
  if (!isColoured && known) return [known.headline.map((phrase) => (typeof phrase === "string" ? phrase : phrase.text)).join("")];
  if (known) return known.headline;
  if (loaded?.source.kind === "drawn" && loaded.network.contextSize === 0)
    return ["The score ∇ log p of your points: arrows lead to them, and ", { text: "purple gathers", sign: -1 }, " where they are."];
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
