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
/** Beside one of those in a name they change nothing of what it says. */
const plainWords = /^(fc|lin|linear|dense|layer|proj|net|mlp)$/;

/**
 * The layers in the order of the chain: of the numbers in their names where all have them, else of their shapes where one
 * order alone chains, else where one order is left once the layers that are called first and last stand there.
 *
 * @throws ModelError where that leaves no order or several, or where numbers are widths and words contradict the shapes.
 */
export function orderLayers<Layer extends NamedLayer>(layers: readonly Layer[]): readonly Layer[] {
  const sequences = numberedSequences(layers);
  const [only = []] = sequences;
  const chains = only.every((layer, i) => i === 0 || layer.shape[1] === only[i - 1]!.shape[0]);
  if (sequences.length <= 1 && chains && !areWidths(only)) return only;
  const [one, other] = sequences.filter(({ length }) => length > 1);
  if (one && other)
    throw new ModelError(
      `safetensors: layers ${quote(one[0]!.name)} and ${quote(other[0]!.name)} begin two sequences; expected one${choices(one[0]!, other[0]!)}, or all in order in layers: ["a", "b"]`,
    );
  const places = placesOf(sequences);
  let orders = sequences.length <= 1 && chains ? null : findChains(sequences, null);
  if (orders && orders.length > 1 && settles(places))
    orders = findChains(
      sequences,
      places.map(({ isPlain, rank }) => (isPlain ? rank : 1)),
    );
  if (orders?.length === 1 && !isContradicted(orders[0]!, sequences, places)) return orders[0]!;
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
    const numbered = /(^|[./])dense$/.test(stem) ? sequences.get(`${stem}_N`) : undefined;
    if (!numbered?.some(({ text }) => text.endsWith("_1")) || numbered.some(({ text }) => text.endsWith("_0"))) continue;
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

/** Whether the numbers in all names are the layers' own widths, and another order chains too: lin_64_32 before lin_32_64, or after. */
function areWidths(layers: readonly NamedLayer[]): boolean {
  const isNamedByWidth = ({ name, shape }: NamedLayer): boolean =>
    name.match(/\d+/g)?.every((number) => shape.includes(Number(number))) ?? false;
  if (layers.length < 2 || !layers.every(isNamedByWidth)) return false;
  const orders = findChains(
    layers.map((layer) => [layer]),
    null,
  );
  return orders === null || orders.length > 1;
}

/** What the words of a name say of a sequence's place. */
interface Place {
  /** 0 for one called in, first, encoder and the like, 2 for out, last, decoder, 1 for others. */
  readonly rank: number;
  /** Whether it is called so and nothing else: time_embed and last_hidden are not. */
  readonly isPlain: boolean;
  /** What it is a part of. */
  readonly parent: string;
}

function placesOf(sequences: readonly (readonly NamedLayer[])[]): Place[] {
  return sequences.map(([layer]) => {
    const parts = layer!.name.replace(/([._/]?\d+)+$/, "").split(/[./]/);
    const words =
      parts
        .pop()!
        .replaceAll(/([a-z])([A-Z])/g, "$1 $2")
        .toLowerCase()
        .match(/[a-z]+/g) ?? [];
    const [front, back] = [frontWords, backWords].map((pattern) => words.some((word) => pattern.test(word)));
    const isPlain = words.filter((word) => !plainWords.test(word)).length === 1;
    return { rank: front === back ? 1 : front ? 0 : 2, isPlain, parent: parts.join(".") };
  });
}

/** Words settle an order where they name both of its ends, of one module. */
function settles(places: readonly Place[]): boolean {
  const named = (rank: number): boolean => places.some((place) => place.isPlain && place.rank === rank);
  return named(0) && named(2) && places.every(({ parent }) => parent === places[0]!.parent);
}

/** Whether one that is called first, with whatever other words, does not stand there, or one that is called last. */
function isContradicted<Layer extends NamedLayer>(
  order: readonly Layer[],
  sequences: readonly (readonly Layer[])[],
  places: readonly Place[],
): boolean {
  return places.some(
    ({ rank }, at) => (rank === 0 && order[0] !== sequences[at]![0]) || (rank === 2 && order.at(-1) !== sequences[at]!.at(-1)),
  );
}
