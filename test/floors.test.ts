/** The order of the folders of src: imports, types and dynamic ones among them, point down, and never in a circle. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../src", import.meta.url));

/** From the ground up; what stands on one line knows nothing of its neighbours. */
const floors: readonly (readonly string[])[] = [
  ["errors.ts", "mixBits.ts", "recent.ts", "turns.ts"],
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
];
/** The one file of a wing that others import, and that a dynamic import may fetch. */
const doors: Readonly<Record<string, string>> = { "kernels/tuned": "kernels/tuned/index.ts" };

interface Import {
  readonly from: string;
  readonly to: string;
  readonly isDynamic: boolean;
}

const files = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
  .map((file) => file.replaceAll("\\", "/"));

const imports: readonly Import[] = files.flatMap((from) => {
  const text = readFileSync(join(root, from), "utf8");
  const found = [...text.matchAll(/\bfrom "(\.[^"]+\.js)"|\bimport\("(\.[^"]+\.js)"\)/g)];
  return found.map(([, still, dynamic]) => ({
    from,
    to: relative(root, join(root, from, "..", (still ?? dynamic)!))
      .replaceAll("\\", "/")
      .replace(/\.js$/, ".ts"),
    isDynamic: dynamic !== undefined,
  }));
});

const floorOf = (file: string): number => floors.findIndex((rooms) => rooms.includes(file.split("/")[0]!));
const roomOf = (file: string): string => file.split("/")[0]!;

test("every file has its floor, and imports are found", () => {
  expect(files.filter((file) => floorOf(file) < 0)).toEqual([]);
  expect(imports.length).toBeGreaterThan(200);
  expect(imports.filter(({ isDynamic }) => isDynamic).length).toBeGreaterThan(0);
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
