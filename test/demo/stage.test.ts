/** The stage's numbers, without a browser: by the float64 reference in place of an engine. */
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { follow, placeAt, traceCloud, type Cloud } from "../../demo/src/layers/cloud.js";
import { colourOf } from "../../demo/src/base/colour.js";
import { quadrature } from "../../demo/src/tools/disc.js";
import { nextLevel } from "../../demo/src/engines/engine.js";
import { drawOverlay, withinFree } from "../../demo/src/layers/overlay.js";
import { shelf, viewOf } from "../../demo/src/fields/shelf.js";
import { parseFormula } from "../../demo/src/fields/formula.js";
import { traceDrop } from "../../demo/src/tools/ink.js";
import { workOf } from "../../demo/src/engines/ground.js";
import { balanceOf, boxBeside } from "../../demo/src/tools/lens.js";
import { Pace } from "../../demo/src/engines/painter.js";
import { axesPlane, randomPlane, toPixel } from "../../demo/src/base/plane.js";
import { domainOf, isResolved } from "../../demo/src/stage.js";
import { fromHash, initialState, layersOf, toHash, type Link } from "../../demo/src/base/state.js";
import { evaluateReference, logProbReference, parseSafetensors, transportReference, type Network } from "../../src/index.js";
import { referenceEngine } from "./referenceEngine.js";

const load = async (name: string): Promise<Network> =>
  parseSafetensors(await readFile(new URL(`../../demo/models/${name}.safetensors`, import.meta.url)));

const PLANE = axesPlane(2, 0, 1, []);

test("a link holds a state, is readable, and a damaged one is none or less", () => {
  const link: Link = {
    field: "lorenz",
    context: [],
    layers: ["samples", "error"],
    quantity: "d2",
    pin: [1, -0.5],
    scale: 3,
    plane: { kind: "random", seed: 4 },
    view: { a: 0.5, b: -0.25, width: 4 },
    contour: false,
    truth: "10*(y - x), x, z^2",
  };
  const { context: _, ...others } = link;
  expect(fromHash(`#${toHash(link)}`)).toEqual(others);
  expect(toHash({ field: "two-moons", context: [0.9], view: { a: 0, b: 0, width: 6 }, layers: ["div", "samples"] })).toBe(
    "two-moons/t=0.9/x=0,0/w=6/layers=div,samples",
  );
  const formula: Link = { field: "formula", formula: "y/2, (1 - x*x)*y # x=1/w=3", random: initialState.random };
  expect(fromHash(toHash(formula))).toEqual({ field: "formula", formula: formula.formula });
  expect(fromHash(toHash({ field: "random", random: { ...initialState.random, gain: 1.5 } }))?.random?.gain).toBe(1.5);
  // Two axes are the first two, unless the field may have others.
  const first = { field: "lorenz", plane: { kind: "axes", i: 0, j: 1, rest: [0, 0, 0] } } as const;
  expect(toHash(first)).toBe("lorenz/axes=0,1");
  // A seed is a whole number, and a view may be deep.
  expect(fromHash(toHash({ field: "random", random: { ...initialState.random, seed: 1234567 } }))?.random?.seed).toBe(1234567);
  expect(fromHash(toHash({ field: "sink", view: { a: 1.23456789, b: 0, width: 1e-5 } }))?.view?.a).toBe(1.23456789);
  for (const hash of ["", "#", "#%", "#{", "#%7B%22quantity%22%3A%22x%22%7D", "#12", "#/x=0,0"]) expect(fromHash(hash)).toBeNull();
  expect(fromHash("#two-moons/x=a,0/w=6/layers=nonsense,div,density/show=q/t=0.5,x/pin=1/scale=-1/plane=random,-4/axes=1,1")).toEqual({
    field: "two-moons",
    layers: ["div"],
  });
  expect(fromHash("#random/net=1e99,1e9,1e9,-3,x,1e300")?.random).toEqual({
    seed: 2 ** 32,
    dimensions: 64,
    width: 512,
    depth: 1,
    activation: "tanh",
    gain: 10,
  });
  expect(fromHash("#two-moons/x=1e300,0/w=-1")?.view).toEqual({ a: 1e6, b: 0, width: 1e-5 });
});

test("links of the page as it was still open", () => {
  const old = {
    field: "lorenz",
    random: initialState.random,
    context: [],
    quantity: "divergence",
    panels: "difference",
    contour: false,
    arrows: true,
    particles: true,
    plane: { kind: "axes", i: 0, j: 2, rest: [0, 1, 0] },
    view: { a: 1, b: 2, width: 4 },
    scale: null,
    pin: [1, 2],
  };
  expect(fromHash(`#${encodeURIComponent(JSON.stringify(old))}`)).toEqual({
    field: "lorenz",
    random: initialState.random,
    layers: ["samples", "arrows", "error"],
    quantity: "divergence",
    contour: false,
    plane: { kind: "axes", i: 0, j: 2, rest: [0, 1, 0] },
    view: { a: 1, b: 2, width: 4 },
    pin: [1, 2],
  });
  expect(fromHash(`#${encodeURIComponent(JSON.stringify({ field: "two-moons-flow", context: [0.9] }))}`)).toMatchObject({
    field: "two-moons",
    context: [0.9],
  });
  const odd = { toString: 1 };
  const readable = {
    field: "two-moons",
    view: { a: odd, b: 0, width: 3 },
    quantity: odd,
    random: { seed: odd },
    plane: odd,
    context: [odd],
    pin: odd,
  };
  expect(fromHash(`#${encodeURIComponent(JSON.stringify(readable))}`)).toEqual({ field: "two-moons", layers: ["div", "arrows"] });
  for (const damaged of [{ view: "x" }, { field: 3 }, { field: "../x" }, {}])
    expect(fromHash(`#${encodeURIComponent(JSON.stringify(damaged))}`)).toBeNull();
});

test("of the grounds one is shown, in the order of the keys", () => {
  expect(layersOf(["arrows", "density", "div", "samples"])).toEqual(["density", "samples", "arrows"]);
  expect(layersOf([])).toEqual([]);
});

test("a field's extent fits into what is free of any window", () => {
  for (const [width, height, left] of [
    [1280, 800, 144],
    [420, 850, 12],
    [1600, 1000, 144],
  ] as const)
    for (const { extent } of Object.values(shelf)) {
      const free = { left, top: 100, right: 14, bottom: 90 };
      const view = viewOf(extent, { width, height }, free);
      for (const [da, db] of [
        [-1, -1],
        [1, 1],
      ] as const) {
        const [x, y] = toPixel(view, { width, height }, extent.a + da * extent.across, extent.b + db * extent.up);
        expect(x).toBeGreaterThanOrEqual(left - 1e-6);
        expect(x).toBeLessThanOrEqual(width - 14 + 1e-6);
        expect(y).toBeGreaterThanOrEqual(100 - 1e-6);
        expect(y).toBeLessThanOrEqual(height - 90 + 1e-6);
      }
    }
});

test("scales: around the truth, from one end to the other of one sign, around 0", () => {
  const spread = Array.from({ length: 101 }, (_, i) => i / 100);
  expect(
    domainOf(
      spread.map((x) => -13.7 + 0.1 * x),
      spread.map(() => -13.667),
      null,
      "diverging",
    ),
  ).toMatchObject({ palette: "diverging" });
  const { low, high } = domainOf(
    spread.map((x) => -13.7 + 0.1 * x),
    spread.map(() => -13.667),
    null,
    "diverging",
  );
  expect((low + high) / 2).toBeCloseTo(-13.667, 9);
  expect(high - low).toBeLessThan(0.3);
  const oneSigned = domainOf(
    spread.map((x) => 5 + 5 * x),
    null,
    null,
    "diverging",
  );
  expect(oneSigned.palette).toBe("grows");
  expect(
    domainOf(
      spread.map((x) => -5 - 5 * x),
      null,
      null,
      "diverging-dark",
    ).palette,
  ).toBe("shrinks-dark");
  expect(oneSigned.low).toBeCloseTo(5.1, 1);
  // However far the largest is from the least.
  const wide = domainOf(
    spread.map((x) => 1 + 9 * x),
    null,
    null,
    "diverging",
  );
  expect(wide.palette).toBe("grows");
  expect(wide.low).toBeCloseTo(1.2, 1);
  expect(wide.high).toBeCloseTo(9.8, 1);
  expect(
    domainOf(
      spread.map((x) => x - 0.5),
      null,
      null,
      "diverging",
    ),
  ).toEqual({ low: -0.5, high: 0.5, palette: "diverging" });
  // Nowhere at the end of the scale: a flat 2 of a source is orange, and not white.
  expect(
    domainOf(
      spread.map(() => 2),
      null,
      null,
      "diverging",
    ).high,
  ).toBe(3);
  expect(domainOf([0, 0], null, null, "diverging")).toEqual({ low: -1, high: 1, palette: "diverging" });
  // What is nearly 0 and nearly infinite has a scale, too.
  for (const size of [1e-45, 3.4e38]) {
    const { low, high } = domainOf([-size, size], null, null, "diverging");
    expect(high).toBeGreaterThanOrEqual(size);
    expect(low).toBe(-high);
  }
  expect(domainOf(spread, null, 7, "diverging")).toEqual({ low: -7, high: 7, palette: "diverging" });
});

test("colours: orange where room is made, purple where it shrinks, grey for none, by day and night", () => {
  for (const night of ["", "-dark"] as const) {
    const palette = `diverging${night}` as const;
    const [more, less] = [colourOf(0.7, { low: -1, high: 1, palette }), colourOf(-0.7, { low: -1, high: 1, palette })];
    // The ends of the halves are the ends of the whole.
    expect(colourOf(9, { low: 5, high: 9, palette: `grows${night}` })).toEqual(colourOf(1, { low: -1, high: 1, palette }));
    expect(colourOf(-9, { low: -9, high: -5, palette: `shrinks${night}` })).toEqual(colourOf(-1, { low: -1, high: 1, palette }));
    expect(more[0]).toBeGreaterThan(more[2] + 60);
    expect(less[2]).toBeGreaterThan(less[1] + 40);
    expect(colourOf(NaN, { low: -1, high: 1, palette })).toEqual([128, 128, 128]);
  }
});

test("the next level is the finest that there is time for", () => {
  expect(nextLevel(Infinity, 1e6, 1e-3, 30)).toBe(8);
  expect(nextLevel(Infinity, 1e6, 10, 30)).toBe(16);
  expect(nextLevel(8, 1e6, 1e-3, 300)).toBe(2);
  expect(nextLevel(1, 1e6, 1e-9, 300)).toBeNull();
});

test("what a point costs is told by large pictures, and by small ones where they are cheaper", () => {
  const pace = new Pace();
  const divergence = workOf({ kind: "quantity", quantity: "divergence" }, []);
  expect(pace.of(divergence)).toBeUndefined();
  pace.learn(divergence, 100_000, 1000);
  expect(pace.of(divergence)).toBeCloseTo(0.01, 12);
  // A few points that waited a second for other work do not make the next picture coarse.
  pace.learn(divergence, 2500, 1000);
  expect(pace.of(divergence)).toBeCloseTo(0.01, 12);
  pace.learn(divergence, 2500, 10);
  expect(pace.of(divergence)).toBeCloseTo(0.004, 12);
  pace.learn(divergence, 10_000, 200);
  expect(pace.of(divergence)).toBeCloseTo(0.02, 12);
  // A density is as many steps as it is far from the noise.
  pace.learn(workOf({ kind: "density" }, [0.125]), 1000, 20);
  expect(pace.of(workOf({ kind: "density" }, [1]))).toBeCloseTo(0.16, 12);
  expect(pace.has(workOf({ kind: "error" }, []))).toBe(false);
});

test("numbers of the axes and of the bar keep apart from one another and from the ticks, in any window", () => {
  for (const [width, height, left, bottom] of [
    [1280, 800, 144, 90],
    [900, 700, 144, 90],
    [420, 850, 12, 190],
    [360, 640, 12, 190],
  ] as const)
    for (const across of [0.013, 6, 7.4, 9, 260]) {
      const words: { text: string; x: number; y: number; width: number }[] = [];
      const ticks: (readonly [x: number, y: number])[] = [];
      const widthOf = (text: string): number => 7 * text.length;
      const context = {
        textAlign: "",
        textBaseline: "",
        measureText: (text: string) => ({ width: widthOf(text) }),
        fillText(text: string, x: number, y: number) {
          const [shift, rise] = [
            { left: 0, center: 0.5, right: 1 }[this.textAlign]!,
            { top: 0, middle: 0.5, bottom: 1 }[this.textBaseline]!,
          ];
          words.push({ text, x: x - shift * widthOf(text), y: y - rise * 13, width: widthOf(text) });
        },
        lineTo: (x: number, y: number) => ticks.push([x, y]),
      };
      const ignored = (): void => undefined;
      drawOverlay(
        new Proxy(context, {
          get: (target, name) => (Reflect.get(target, name) as unknown) ?? ignored,
        }) as unknown as CanvasRenderingContext2D,
        {
          size: { width, height },
          margins: { left, top: 120, right: 14, bottom },
          plane: PLANE,
          view: { a: 0.3 * across, b: -0.2 * across, width: across },
          bar: { domain: { low: -0.08, high: 0.08, palette: "diverging" }, name: "density at t = 0.95" },
          arrows: [],
          pin: null,
          ink: "#000",
          paper: "#fff",
        },
      );
      const where = `${width} x ${height}, ${across} across`;
      for (const [index, { text, x, y, width: wide }] of words.entries()) {
        expect(x + wide, `${text}, ${where}`).toBeLessThanOrEqual(width);
        for (const other of words.slice(index + 1))
          expect(
            x + wide <= other.x || other.x + other.width <= x || y + 13 <= other.y || other.y + 13 <= y,
            `${text} and ${other.text}, ${where}`,
          ).toBe(true);
        // A dash before a number would be its sign.
        for (const [tick, line] of ticks) if (line > y && line < y + 13) expect(tick + 6, `${text}, ${where}`).toBeLessThanOrEqual(x);
      }
      const numbers = words.filter(({ text }) => /^[−\d]/.test(text));
      expect(numbers.filter(({ y }) => y > height - bottom - 22).length, where).toBeGreaterThanOrEqual(width > 800 ? 5 : 2);
      expect(numbers.filter(({ x }) => x < left + 4).length, where).toBeGreaterThanOrEqual(3);
    }
});

test("the mean over a disc of polynomials is exact", () => {
  const disc = quadrature(6, 20);
  const mean = (of: (x: number, y: number) => number): number => disc.reduce((sum, { x, y, weight }) => sum + weight * of(x, y), 0);
  expect(mean(() => 1)).toBeCloseTo(1, 12);
  expect(mean((x) => x * x)).toBeCloseTo(1 / 4, 12);
  expect(mean((x, y) => x ** 4 * y ** 2)).toBeCloseTo(1 / 64, 12);
  expect(mean((x, y) => x + y ** 3)).toBeCloseTo(0, 12);
});

test("the lens: what flows out through the rim is what is made inside, and over a small area the divergence", async () => {
  for (const [name, context] of [
    ["two-moons-flow", [0.9]],
    ["van-der-pol", []],
    ["taylor-green", []],
  ] as const) {
    const network = await load(name);
    const engine = referenceEngine(network);
    for (const [a, b] of [
      [0.4, -0.2],
      [-1, 0.7],
    ] as const) {
      const wide = await balanceOf(engine, PLANE, context, [a, b], 0.5);
      expect(Math.abs(wide.flux - wide.made)).toBeLessThan(0.01 * Math.max(Math.abs(wide.made), 0.01 * wide.area));
      const small = await balanceOf(engine, PLANE, context, [a, b], 0.02);
      const options = { context: context.length > 0 ? context : null, outputs: ["divergence", "diagonal"] as const };
      const { divergence, diagonal } = evaluateReference(network, [a, b], options);
      const scale = Math.abs(diagonal![0]!) + Math.abs(diagonal![1]!);
      expect(Math.abs(small.flux / small.area - divergence![0]!)).toBeLessThan(0.02 * scale);
      expect(Math.abs(small.made / small.area - divergence![0]!)).toBeLessThan(0.02 * scale);
    }
  }
  // On a plane that is turned, and by a field whose numbers are known: a source makes 2 in each unit of area.
  const turned = randomPlane([0, 0], 5);
  const { flux, made, area } = await balanceOf(referenceEngine(parseFormula("x, y")), turned, [], [0.3, 1], 0.7);
  expect(flux).toBeCloseTo(2 * area, 5);
  expect(made).toBeCloseTo(2 * area, 5);
});

test("the lens' numbers stand in what is free, and beside the circle where there is room", () => {
  const [size, margins] = [
    { width: 900, height: 700 },
    { left: 144, top: 120, right: 14, bottom: 90 },
  ];
  for (const radius of [8, 70, 240])
    for (let x = 0; x <= size.width; x += 30)
      for (let y = 0; y <= size.height; y += 30) {
        const [left, top] = boxBeside([x, y], radius, margins, size);
        expect(left).toBeGreaterThanOrEqual(margins.left);
        expect(top).toBeGreaterThanOrEqual(margins.top);
        expect(left + 270).toBeLessThanOrEqual(size.width - margins.right);
        expect(top + 88).toBeLessThanOrEqual(size.height - margins.bottom);
        if (radius < 200 && y > margins.top && y < size.height - margins.bottom)
          expect(top + 88 <= y - radius || top >= y + radius).toBe(true);
      }
  // What is too wide begins where what is free does.
  expect(withinFree(margins, { width: 300, height: 700 }, [-50, 900], { width: 400, height: 28 })).toEqual([144, 582]);
});

test("ink: its area grows by the mean of exp ∫∇·f", async () => {
  const flow = await load("two-moons-flow");
  const drop = await traceDrop(referenceEngine(flow), flow, PLANE, { at: [0.3, 0.4], radius: 0.2, from: 0, to: 1, context: [0] });
  expect(Math.abs(drop.measured.at(-1)! / drop.said.at(-1)! - 1)).toBeLessThan(0.01);
  expect(drop.measured[0]).toBe(1);
  expect(Math.abs(drop.measured.at(-1)! - 1)).toBeGreaterThan(0.05);
  const saddle = parseFormula("x, -y");
  const kept = await traceDrop(referenceEngine(saddle), saddle, PLANE, { at: [1, 1], radius: 0.3, from: 0, to: 0.7, context: [] });
  expect(kept.measured.at(-1)).toBeCloseTo(1, 4);
  expect(kept.said.at(-1)).toBeCloseTo(1, 9);
  const source = parseFormula("x, y");
  const grown = await traceDrop(referenceEngine(source), source, PLANE, { at: [0, 0], radius: 0.3, from: 0, to: 0.5, context: [] });
  expect(grown.measured.at(-1)).toBeCloseTo(Math.E, 4);
  expect(grown.said.at(-1)).toBeCloseTo(Math.E, 6);
});

test("ink that is folded more finely than its rim has corners is not measured, and what cannot be summed is not", async () => {
  const folding = parseFormula("sin(9*y), sin(9*x)");
  const given = { at: [0.3, 0.1] as const, radius: 0.2, from: 0, to: 1.5, context: [] };
  const drop = await traceDrop(referenceEngine(folding), folding, PLANE, given);
  // Nothing is made anywhere: a number that is shown has to say so.
  expect(drop.measured.some((area) => Number.isNaN(area))).toBe(true);
  for (const area of drop.measured) if (!Number.isNaN(area)) expect(Math.abs(area - 1)).toBeLessThan(0.03);
  expect(isResolved([0.9999, 1.0001], 1, 1100)).toBe(true);
  expect(isResolved([0.62, 0.6199], 0.61, 1100)).toBe(true);
  for (const [masses, share] of [
    [[3e-19, 0], 1],
    [[0.874, 0.874], 1],
    [[1, 0.58], 1],
    [[NaN, NaN], 1],
  ] as const)
    expect(isResolved(masses, share, 1100)).toBe(false);
});

test("the cloud goes where the flow goes, and grows as it says", async () => {
  const network = await load("two-moons-flow");
  const engine = referenceEngine(network);
  const setting = { plane: PLANE, view: { a: 0, b: 0, width: 6 }, size: { width: 600, height: 400 }, context: [0] };
  const cloud = await traceCloud(engine, network, setting, 40);
  const starts = Float32Array.from(cloud.places.subarray(0, 80));
  const truth = transportReference(network, starts, { from: 0, to: 1 });
  for (let i = 0; i < 40; i++) {
    const [a, b, growth] = placeAt(cloud, i, 1);
    expect(Math.abs(a - truth.points[2 * i]!) + Math.abs(b - truth.points[2 * i + 1]!)).toBeLessThan(2e-3);
    expect(Math.abs(growth - truth.divergenceIntegral[i]!)).toBeLessThan(0.05);
    expect(placeAt(cloud, i, 0).slice(0, 2)).toEqual([starts[2 * i], starts[2 * i + 1]]);
  }
  // Those that come later stand beside the first as if all had come at once.
  const first = await traceCloud(engine, network, setting, 16);
  expect(await traceCloud(engine, network, setting, 40, first)).toEqual(cloud);
  // The height of the clock's track.
  for (const stop of [0, 10, 24]) {
    const t = cloud.times[stop]!;
    const points = t > 0 ? transportReference(network, starts, { from: 0, to: t }).points : starts;
    const divergence = evaluateReference(network, points, { context: t, outputs: ["divergence"] }).divergence!;
    expect(cloud.mean[stop], `at ${t}`).toBeCloseTo(divergence.reduce((sum, each) => sum + each, 0) / 40, 2);
  }

  const rotation = parseFormula("-y, x");
  const steady = (count: number, known?: Cloud) =>
    traceCloud(referenceEngine(rotation), rotation, { ...setting, context: [] }, count, known);
  const turning = await steady(30);
  expect(await steady(30, await steady(7))).toEqual(turning);
  for (let i = 0; i < 30; i++) {
    const [a0, b0] = placeAt(turning, i, 0);
    const [a1, b1, growth] = placeAt(turning, i, 1);
    expect(Math.hypot(a1, b1)).toBeCloseTo(Math.hypot(a0, b0), 4);
    expect(growth).toBe(0);
  }
});

test("a path's area under ∇·f is what log p loses on it", async () => {
  const network = await load("two-moons-flow");
  const x = Float32Array.of(0.8, 0.3);
  const way = await follow(referenceEngine(network), network, x, { from: 1, to: 0, stops: 41, context: [1] });
  const z = way.points.at(-1)!;
  const logNoise = -0.5 * (z[0]! ** 2 + z[1]! ** 2) - Math.log(2 * Math.PI);
  const { logProb } = logProbReference(network, x);
  expect(Math.abs(logNoise + way.growth.at(-1)![0]! - logProb[0]!)).toBeLessThan(0.02);
});
