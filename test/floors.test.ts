/** The order of the folders of src and of demo/src: imports, types and dynamic ones among them, point down, and never in a circle. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

interface House {
  readonly folder: string;
  /** From the ground up; what stands on one line knows nothing of its neighbours. */
  readonly floors: readonly (readonly string[])[];
  /** The one file of a wing that others import, and that a dynamic import may fetch. */
  readonly doors: Readonly<Record<string, string>>;
  /** Fewer imports than these, and this test has gone blind. */
  readonly fewest: number;
}

const houses: readonly House[] = [
  {
    folder: "src",
    floors: [
      ["errors.ts", "mixBits.ts", "recent.ts", "turns.ts", "typedArrays.ts"],
      ["tensorFile.ts"],
      ["model", "bitsPerDimension.ts", "rows.ts"],
      ["plan", "inputs.ts"],
      ["schedule"],
      ["kernels", "results.ts", "gradients.ts"],
      ["gpu"],
      ["tune"],
      ["evaluation.ts", "fieldOptions.ts"],
      ["ode"],
      ["flowOptions.ts"],
      ["anyFlow.ts"],
      ["cpu", "field.ts"],
      ["flow.ts", "fieldFlow.ts", "train", "onnx"],
      ["index.ts"],
      ["node"],
    ],
    doors: { "kernels/tuned": "kernels/tuned/index.ts" },
    fewest: 200,
  },
  {
    folder: "demo/src",
    floors: [["base"], ["fields", "training"], ["engines"], ["layers"], ["stage.ts"], ["tools", "controls"], ["main.ts"]],
    doors: {},
    fewest: 100,
  },
];

interface Import {
  readonly from: string;
  readonly to: string;
  readonly isDynamic: boolean;
}

function importsOf(root: string, files: readonly string[]): readonly Import[] {
  return files.flatMap((from) => {
    const text = readFileSync(join(root, from), "utf8");
    const found = [...text.matchAll(/\bfrom "(\.[^"]+\.js)"|\bimport\("(\.[^"]+\.js)"\)/g)];
    return found
      .map(([, still, dynamic]) => ({
        from,
        to: relative(root, join(root, from, "..", (still ?? dynamic)!))
          .replaceAll("\\", "/")
          .replace(/\.js$/, ".ts"),
        isDynamic: dynamic !== undefined,
      }))
      .filter(({ to }) => !to.startsWith("../"));
  });
}

const roomOf = (file: string): string => file.split("/")[0]!;

describe.for(houses)("$folder", ({ folder, floors, doors, fewest }) => {
  const root = fileURLToPath(new URL(`../${folder}`, import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
    .map((file) => file.replaceAll("\\", "/"));
  const imports = importsOf(root, files);
  const floorOf = (file: string): number => floors.findIndex((rooms) => rooms.includes(roomOf(file)));

  test("every file has its floor, and imports are found", () => {
    expect(files.filter((file) => floorOf(file) < 0)).toEqual([]);
    expect(imports.length).toBeGreaterThan(fewest);
    expect(imports.some(({ isDynamic }) => isDynamic)).toBe(Object.keys(doors).length > 0);
  });

  test("imports point down", () => {
    const up = imports.filter(({ from, to }) => roomOf(from) !== roomOf(to) && floorOf(to) >= floorOf(from));
    expect(up.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });

  test("no file leads back to itself", () => {
    const next = new Map(files.map((file) => [file, imports.filter(({ from }) => from === file)]));
    const circles: string[] = [];
    const done = new Set<string>();
    const visit = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) return void circles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      if (done.has(file)) return;
      for (const { to } of next.get(file) ?? []) visit(to, [...path, file]);
      done.add(file);
    };
    for (const file of files) visit(file, []);
    expect(circles).toEqual([]);
  });

  test("a wing is entered by its door alone", () => {
    for (const [wing, door] of Object.entries(doors)) {
      const entered = imports.filter(({ from, to }) => to.startsWith(`${wing}/`) && !from.startsWith(`${wing}/`));
      expect(new Set(entered.map(({ to }) => to))).toEqual(new Set([door]));
    }
    const fetched = imports.filter(({ from, isDynamic }) => isDynamic && !from.startsWith("node/")).map(({ to }) => to);
    expect(new Set(fetched)).toEqual(new Set(Object.values(doors)));
  });
});
