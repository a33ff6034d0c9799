import { ModelError, quote } from "../../../errors.js";

/** A layer by its name and widths. */
export interface NamedLayer {
  /** What its tensors' names have in common. */
  readonly name: string;
  /** [outputs, inputs] */
  readonly shape: readonly [outputs: number, inputs: number];
}

/** Trials of a search: far more than any model takes; a file made to need more is asked for its order. */
const mostTrials = 1_000_000;
const numberWords = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
const frontWords = /^(in|input|inputs|first|start|encoder|embed|embedding)$/;
const backWords = /^(out|output|outputs|last|final|end|decoder|head)$/;

/**
 * The layers in the order of the chain: of the numbers in their names where all have them, else of their shapes where one
 * order alone chains, else where one order is left once layers that are called first or last stand there.
 *
 * @throws ModelError where that leaves no order or several.
 */
export function orderLayers<Layer extends NamedLayer>(layers: readonly Layer[]): readonly Layer[] {
  const sequences = numberedSequences(layers);
  const [only = []] = sequences;
  const chains = only.every((layer, i) => i === 0 || layer.shape[1] === only[i - 1]!.shape[0]);
  if (sequences.length <= 1 && chains) return only;
  const [one, other] = sequences.filter(({ length }) => length > 1);
  if (one && other)
    throw new ModelError(
      `safetensors: layers ${quote(one[0]!.name)} and ${quote(other[0]!.name)} begin two sequences; expected one${choices(one[0]!, other[0]!)}, or all in order in layers: ["a", "b"]`,
    );
  let orders = findChains(sequences, null);
  if (orders && orders.length > 1) orders = findChains(sequences, ranksOf(sequences));
  if (orders?.length === 1) return orders[0]!;
  throw new ModelError(
    `safetensors: the names and shapes [outputs, inputs] ${orders?.length === 0 ? "fit no order" : "do not tell the order"} of ${listed(layers.map(({ name, shape }) => `${quote(name)} [${shape.join(", ")}]`))}; expected the names in order in layers: ["a", "b"]`,
  );
}

/** How to choose between two sequences by what stands before their numbers. */
function choices(...layers: readonly [NamedLayer, NamedLayer]): string {
  const [short, long] = layers.map(({ name }) => name.replace(/\d.*$/s, "")).sort((a, b) => a.length - b.length) as [string, string];
  if (short === long) return "";
  const first = long.startsWith(short) ? `ignore: [${quote(long.replace(/[./]$/, ""))}]` : `prefix: ${quote(short)}`;
  return `, as of ${first} or prefix: ${quote(long)}`;
}

/** Some of many, for a message. */
export function listed(texts: readonly string[], separator = ", "): string {
  const most = 16;
  return texts.length <= most
    ? texts.join(separator)
    : [...texts.slice(0, most - 1), `... ${texts.length - most} more ...`, texts.at(-1)].join(separator);
}

/** Layers whose names differ in numbers alone, by those: fc1, fc2; dense, dense_1; mid_one, mid_two. All others stand alone. */
function numberedSequences<Layer extends NamedLayer>(layers: readonly Layer[]): Layer[][] {
  const sequences = new Map<string, { layer: Layer; text: string }[]>();
  for (const layer of layers) {
    const text = layer.name.replaceAll(/(?<![a-z])[a-z]+(?![a-z])/gi, (word) => {
      const number = numberWords.indexOf(word.toLowerCase());
      return number < 0 ? word : String(number);
    });
    const stem = text.replaceAll(/\d+/g, "N");
    const sequence = sequences.get(stem);
    if (sequence) sequence.push({ layer, text });
    else sequences.set(stem, [{ layer, text }]);
  }
  // Keras calls the first of its layers dense, and the next dense_1.
  for (const [stem, sequence] of sequences) {
    const numbered = sequences.get(`${stem}_N`);
    if (!numbered) continue;
    numbered.push(...sequence);
    sequences.delete(stem);
  }
  const { compare } = new Intl.Collator("en", { numeric: true });
  return [...sequences.values()].map((sequence) => {
    sequence.sort((a, b) => compare(a.text, b.text));
    const twin = sequence.findIndex(({ text }, index) => index > 0 && compare(sequence[index - 1]!.text, text) === 0);
    if (twin > 0)
      throw new ModelError(
        `safetensors: layers ${quote(sequence[twin - 1]!.layer.name)} and ${quote(sequence[twin]!.layer.name)} have the same numbers; expected the names of all layers in order in layers: ["a", "b"]`,
      );
    return sequence.map(({ layer }) => layer);
  });
}

/**
 * Orders of all layers that keep each sequence's own, chain by their shapes, take at least as many inputs as they give outputs, and
 * whose ranks never fall: two of them where there are more; null where the search was given up.
 *
 * @param ranks one per sequence; null for none.
 */
export function findChains<Layer extends NamedLayer>(
  sequences: readonly (readonly Layer[])[],
  ranks: readonly number[] | null,
): Layer[][] | null {
  const total = sequences.reduce((sum, { length }) => sum + length, 0);
  const found: Layer[][] = [];
  const taken = sequences.map(() => 0);
  const path: { sequence: number; layer: Layer }[] = [];
  let next = 0;
  for (let trial = 0; trial < mostTrials; trial++) {
    const last = path.at(-1);
    if (next === sequences.length) {
      if (!last) return found;
      path.pop();
      taken[last.sequence]!--;
      next = last.sequence + 1;
      continue;
    }
    const sequence = next++;
    const layer = sequences[sequence]![taken[sequence]!];
    if (!layer || (last && (layer.shape[1] !== last.layer.shape[0] || (ranks && ranks[sequence]! < ranks[last.sequence]!)))) continue;
    if (path.length + 1 < total) {
      path.push({ sequence, layer });
      taken[sequence]!++;
      next = 0;
    } else if ((path[0]?.layer ?? layer).shape[1] >= layer.shape[0]) {
      found.push([...path.map((step) => step.layer), layer]);
      if (found.length === 2) return found;
    }
  }
  return null;
}

/** 0 for a sequence called in, first, encoder and the like, 2 for out, last, decoder, 1 for others; words that all share say nothing. */
function ranksOf(sequences: readonly (readonly NamedLayer[])[]): number[] {
  const words = sequences.map(
    ([layer]) =>
      new Set(
        layer!.name
          .replaceAll(/([a-z])([A-Z])/g, "$1 $2")
          .toLowerCase()
          .match(/[a-z]+/g),
      ),
  );
  const counts = new Map<string, number>();
  for (const own of words) for (const word of own) counts.set(word, (counts.get(word) ?? 0) + 1);
  return words.map((own) => {
    const telling = [...own].filter((word) => counts.get(word)! < sequences.length);
    const [front, back] = [frontWords, backWords].map((pattern) => telling.some((word) => pattern.test(word)));
    return front === back ? 1 : front ? 0 : 2;
  });
}
