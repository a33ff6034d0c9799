import { decode } from "fast-png";
import { describe, expect, test } from "vitest";
import {
  centres,
  colourLimit,
  colourOf,
  heatmapLayout,
  heatmapSvg,
  renderHeatmap,
  type Colours,
  type Heatmap,
} from "../../src/node/heatmap.js";

const size = 64;
const unit: Colours = { kind: "diverging", limit: 1 };
/** x y: zero along the axes, positive in the first and third quadrant. */
function saddle(): Heatmap {
  const axis = { name: "x0", from: -1, to: 1 };
  const points = centres(axis, size);
  return {
    size,
    values: Float64Array.from({ length: size * size }, (_, index) => points[index % size]! * points[Math.floor(index / size)]!),
    x: axis,
    y: { ...axis, name: "x1" },
    title: "∇·f of a saddle",
  };
}

type Picture = ReturnType<typeof decode>;

function pixel({ data, width, channels }: Picture, x: number, y: number): number[] {
  const start = (y * width + x) * channels;
  return Array.from(data.subarray(start, start + 3));
}

async function draw(heatmap: Heatmap): Promise<{ picture: Picture; left: number; top: number }> {
  const picture = decode(await renderHeatmap(heatmap));
  const { width, height, left, top } = heatmapLayout(heatmap);
  expect([picture.width, picture.height]).toEqual([width, height]);
  return { picture, left, top };
}

describe("colours", () => {
  test("zero is neutral, expansion red, contraction blue, the two sides alike in strength", () => {
    const [red, green, blue] = colourOf(0, unit) as [number, number, number];
    expect(Math.max(red, green, blue) - Math.min(red, green, blue)).toBeLessThan(8);
    expect(Math.min(red, green, blue)).toBeGreaterThan(230);
    for (const value of [0.2, 0.5, 1]) {
      const [warm, cold] = [colourOf(value, unit), colourOf(-value, unit)];
      expect(warm[0]).toBeGreaterThan(warm[2]!);
      expect(cold[2]).toBeGreaterThan(cold[0]!);
    }
    expect(colourOf(7, unit)).toEqual(colourOf(1, unit));
    expect(colourOf(NaN, unit)).toEqual([128, 128, 128]);
  });

  test("in sequence become lighter from the lowest value to the highest, in grey print and to every eye, and stay so beyond", () => {
    const colours: Colours = { kind: "sequential", from: -12, to: -2 };
    const lightness = (value: number): number => {
      const [red, green, blue] = colourOf(value, colours).map((part) => (part / 255) ** 2.2) as [number, number, number];
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    for (let value = -12; value < -2; value += 0.5) expect(lightness(value + 0.5)).toBeGreaterThan(lightness(value));
    expect(lightness(-12)).toBeLessThan(0.02);
    expect(lightness(-2)).toBeGreaterThan(0.7);
    expect(colourOf(-99, colours)).toEqual(colourOf(-12, colours));
    expect(colourOf(0, colours)).toEqual(colourOf(-2, colours));
    expect(colourOf(-12, colours)).toEqual([68, 1, 84]);
    expect(colourOf(NaN, colours)).toEqual([255, 255, 255]);
  });

  test("the limit is the largest finite magnitude, and 1 where all is zero", () => {
    expect(colourLimit(Float32Array.of(1, -3, NaN, Infinity))).toBe(3);
    expect(colourLimit(Float32Array.of(0, 0))).toBe(1);
  });
});

describe("the picture", () => {
  test("has every cell as one pixel of its colour, the lowest y at the bottom", async () => {
    const heatmap = saddle();
    const { picture, left, top } = await draw(heatmap);
    const colours: Colours = { kind: "diverging", limit: colourLimit(heatmap.values) };
    for (let row = 0; row < size; row += 9)
      for (let column = 0; column < size; column += 9)
        expect(pixel(picture, left + column, top + size - 1 - row), `cell ${column}, ${row}`).toEqual(
          colourOf(heatmap.values[row * size + column]!, colours),
        );
  });

  test("is white at its edges: nothing is cut off", async () => {
    const heatmap: Heatmap = {
      ...saddle(),
      title: "∇·f of a name that is far too long to stand above so small a plot",
      subtitle: "context 0.123456, 0.123456, 0.123456, 0.123456, 0.123456",
      x: { name: "x0", from: -123456, to: 123456 },
      y: { name: "x1", from: -99999, to: 99999 },
    };
    for (const scale of [1e-7, 1, 1e7]) {
      const { picture } = await draw({ ...heatmap, values: heatmap.values.map((value) => value * scale) });
      const { width, height } = picture;
      for (let x = 0; x < width; x++) for (const y of [0, 1, height - 2, height - 1]) expect(pixel(picture, x, y)).toEqual([255, 255, 255]);
      for (let y = 0; y < height; y++) for (const x of [0, 1, width - 2, width - 1]) expect(pixel(picture, x, y)).toEqual([255, 255, 255]);
    }
  });

  test("has a colour bar from the highest colour down to the lowest, zero in its middle", async () => {
    const heatmap = saddle();
    const { picture, left, top } = await draw(heatmap);
    const column = left + size + 22;
    expect(pixel(picture, column, top)[0]).toBeGreaterThan(pixel(picture, column, top)[2]!);
    expect(pixel(picture, column, top + size - 1)[2]).toBeGreaterThan(pixel(picture, column, top + size - 1)[0]!);
    expect(Math.min(...pixel(picture, column, top + size / 2))).toBeGreaterThan(230);
  });

  test("in sequence has the highest colour at the top of its bar and the lowest at the bottom, numbered from one to the other", async () => {
    const colours: Colours = { kind: "sequential", from: 0, to: 1 };
    const heatmap: Heatmap = { ...saddle(), colours };
    const { picture, left, top } = await draw(heatmap);
    const column = left + size + 22;
    // A pixel of the bar has several shades in it.
    for (const [row, value] of [
      [0, 1],
      [size - 1, 0],
    ] as const)
      for (const [part, expected] of colourOf(value, colours).entries())
        expect(Math.abs(pixel(picture, column, top + row)[part]! - expected)).toBeLessThan(8);
    expect(pixel(picture, left + 1, top + 1)).toEqual(colourOf(-1, colours));
    expect(heatmapSvg(heatmap)).toContain(">0.5<");
  });

  test("shows a value that is not finite in grey, and does not let it set the scale", async () => {
    const heatmap = saddle();
    const values = heatmap.values.slice();
    values[0] = NaN;
    values[size * size - 1] = Infinity;
    const { picture, left, top } = await draw({ ...heatmap, values });
    expect(pixel(picture, left, top + size - 1)).toEqual([128, 128, 128]);
    expect(pixel(picture, left + size - 1, top)).toEqual([128, 128, 128]);
  });

  test("draws the line where the sign changes, and arrows along f, on request", async () => {
    const plain = await draw(saddle());
    const lined = await draw({ ...saddle(), contour: true });
    const at = [plain.left + size / 2, plain.top + 10] as const;
    expect(Math.min(...pixel(plain.picture, ...at))).toBeGreaterThan(200);
    expect(Math.min(...pixel(lined.picture, ...at))).toBeLessThan(160);

    const vectors = Float64Array.from({ length: 2 * 4 * 4 }, (_, index) => (index % 2 === 0 ? 1 : 0));
    const svg = heatmapSvg({ ...saddle(), arrows: { count: 4, vectors } });
    const [shaft] = /M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)M/
      .exec(svg.slice(svg.indexOf("stroke-opacity") - 5000))!
      .slice(1)
      .map(Number) as [number];
    expect(shaft).toBeGreaterThan(plain.left);
    expect(heatmapSvg({ ...saddle(), arrows: { count: 4, vectors: vectors.map(() => 0) } })).not.toContain("stroke-opacity");
  });

  test("takes any name as a title", () => {
    const svg = heatmapSvg({ ...saddle(), title: "<a>&\u0000\u0007\uD800" });
    expect(svg).toContain("&lt;a&gt;&amp;");
    // oxlint-disable-next-line no-control-regex
    expect(svg).not.toMatch(/[\u0000-\u0008]/);
  });
});
