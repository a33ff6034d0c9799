import { describe, expect, it } from "vitest";
import { findChains, orderLayers, type NamedLayer } from "../../src/model/readers/safetensors/order.js";
import { random } from "../random.js";

const layer = (name: string, outputs: number, inputs: number): NamedLayer => ({ name, shape: [outputs, inputs] });
const orderOf = (layers: readonly NamedLayer[]): string =>
  orderLayers(layers)
    .map(({ name }) => name)
    .join(" ");

/** Every order of the layers that keeps those of the sequences, by trying all. */
function* interleavings(sequences: readonly (readonly NamedLayer[])[]): Generator<NamedLayer[]> {
  if (sequences.every(({ length }) => length === 0)) yield [];
  for (const [at, [first, ...rest]] of sequences.entries())
    if (first) for (const tail of interleavings(sequences.with(at, rest))) yield [first, ...tail];
}

describe("the order of layers", () => {
  it("is the one that trying all orders finds, or none, or two of several", () => {
    const uniform = random(7);
    const counts = [0, 0, 0];
    for (let round = 0; round < 3000; round++) {
      const width = (): number => 1 + Math.floor(uniform() * 4);
      // Widths along a chain, so that there is an order at all, in most rounds.
      let before = width();
      let left = 1 + Math.floor(uniform() * 5);
      const sequences: NamedLayer[][] = [];
      for (; left > 0; left--) {
        const after = width();
        const one = layer(String(left), after, uniform() < 0.1 ? width() : before);
        before = after;
        if (uniform() < 0.3 && sequences.length > 0) sequences[Math.floor(uniform() * sequences.length)]!.push(one);
        else sequences.push([one]);
      }
      const ranks = uniform() < 0.5 ? null : sequences.map(() => Math.floor(uniform() * 3));
      const rankOf = (one: NamedLayer): number => ranks?.[sequences.findIndex((sequence) => sequence.includes(one))] ?? 0;
      const all = [...interleavings(sequences)].filter(
        (order) =>
          order[0]!.shape[1] >= order.at(-1)!.shape[0] &&
          order.every((one, i) => i === 0 || (one.shape[1] === order[i - 1]!.shape[0] && rankOf(one) >= rankOf(order[i - 1]!))),
      );
      const found = findChains(sequences, ranks)!;
      expect(found.length).toBe(Math.min(all.length, 2));
      for (const order of found) expect(all).toContainEqual(order);
      counts[found.length]!++;
    }
    expect(Math.min(...counts)).toBeGreaterThan(300);
  });

  it.each<[string, NamedLayer[], string]>([
    ["numbers", [layer("net.10", 2, 5), layer("net.2", 5, 3), layer("net.0", 3, 2)], "net.0 net.2 net.10"],
    ["Keras's names", [layer("dense_1", 4, 4), layer("dense", 4, 2), layer("dense_2", 2, 4)], "dense dense_1 dense_2"],
    ["words for numbers", [layer("mid_two", 4, 4), layer("mid_three", 4, 4), layer("mid_one", 4, 4)], "mid_one mid_two mid_three"],
    ["shapes", [layer("c", 3, 9), layer("a", 9, 8), layer("b", 8, 4)], "b a c"],
    ["shapes around numbers", [layer("z", 32, 4), layer("h.1", 32, 32), layer("a", 3, 32), layer("h.0", 32, 32)], "z h.0 h.1 a"],
    ["words where shapes leave several", [layer("head", 2, 2), layer("body", 2, 2), layer("embed", 2, 2)], "embed body head"],
    [
      "the words that tell layers apart",
      [layer("encoder.layerOut", 3, 8), layer("encoder.layerIn", 8, 3)],
      "encoder.layerIn encoder.layerOut",
    ],
  ])("comes from %s", (_, layers, order) => expect(orderOf(layers)).toBe(order));

  it.each<[string, NamedLayer[], RegExp]>([
    [
      "equal shapes",
      [layer("a", 2, 2), layer("b", 2, 2)],
      /do not tell the order of "a" \[2, 2\], "b" \[2, 2\]; expected .* layers: \["a", "b"\]/,
    ],
    ["shapes against words", [layer("out", 8, 4), layer("in", 3, 8)], /do not tell the order/],
    [
      "shapes against words of more than the place",
      [layer("net.0", 64, 2), layer("net.2", 2, 64), layer("time_embed", 64, 64)],
      /do not tell/,
    ],
    ["words of another module", [layer("lift", 4, 4), layer("block.in", 4, 4), layer("block.out", 4, 4)], /do not tell/],
    ["words beside others", [layer("last_hidden", 4, 4), layer("velocity", 4, 4)], /do not tell/],
    ["one end alone", [layer("head", 2, 3), layer("layers.0", 3, 2), layer("layers.1", 3, 3)], /do not tell/],
    ["numbers beside a name without one", [layer("fc_1", 4, 4), layer("fc_2", 4, 4), layer("fc", 4, 4)], /do not tell/],
    ["dense beside dense_0", [layer("dense", 4, 4), layer("dense_0", 4, 4), layer("dense_1", 4, 4)], /do not tell/],
    ["widths for numbers", [layer("lin_64_32", 32, 64), layer("lin_32_64", 64, 32)], /do not tell/],
    ["a circle without words", [layer("a", 8, 2), layer("b", 2, 8)], /do not tell the order/],
    ["equal layers between words", [layer("in", 2, 2), layer("a", 2, 2), layer("b", 2, 2), layer("out", 2, 2)], /do not tell the order/],
    ["shapes that fit no order", [layer("a", 8, 2), layer("b", 2, 7)], /fit no order/],
    ["two sequences", [layer("a.0", 8, 2), layer("a.1", 2, 8), layer("b.0", 8, 2), layer("b.1", 2, 8)], /prefix: "a\." or prefix: "b\."/],
    [
      "a sequence under another",
      [layer("0", 8, 2), layer("1", 2, 8), layer("ema.0", 8, 2), layer("ema.1", 2, 8)],
      /expected one, as of ignore: \["ema"\] or prefix: "ema\.", or/,
    ],
    [
      "two sequences side by side",
      [layer("n.0.a", 2, 2), layer("n.1.a", 2, 2), layer("n.0.b", 2, 2), layer("n.1.b", 2, 2)],
      /expected one, or all in order/,
    ],
    ["numbers that are no order", [layer("fc_2_9", 9, 2), layer("fc_9_2", 2, 9), layer("fc_9_9", 9, 9)], /fit no order/],
    ["a number twice", [layer("f1", 2, 2), layer("f01", 2, 2)], /"f1" and "f01" have the same numbers/],
  ])("is asked for at %s", (_, layers, message) => expect(() => orderLayers(layers)).toThrow(message));

  it.each<[string, (i: number) => NamedLayer]>([
    ["numbered", (i) => layer(`net.${i}`, 2, 2)],
    [
      "without numbers",
      (i) => layer(`l${"x".repeat(i % 500)}${String.fromCharCode(97 + (i % 26))}${"y".repeat(i / 500)}`, 2 + (i % 7), 2 + ((3 * i) % 7)),
    ],
    ["equal", (i) => layer(`net.${"ab"[i % 2]}${"q".repeat(i / 2)}`.slice(0, 60) + "z".repeat(i / 2), 2, 2)],
  ])("takes bounded time for 20 000 layers, %s", (_, make) => {
    const start = process.cpuUsage();
    const layers = Array.from({ length: 20_000 }, (__, i) => ({ ...make(i) }));
    try {
      expect(orderLayers(layers)).toHaveLength(20_000);
    } catch (error) {
      expect(String(error)).toMatch(/the order|same numbers/);
      expect(String(error).length).toBeLessThan(3000);
    }
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1000).toBeLessThan(10_000);
  });
});
