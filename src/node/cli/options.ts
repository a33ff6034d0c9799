/** What the commands share at the edge: options, and the texts that users write for ranges, lists and contexts. */
import { Argument, InvalidArgumentError, Option, type Command } from "commander";
import { DeldotError, InputError, ModelError, quote } from "../../errors.js";
import { methods, parseOnnx, parseSafetensors, type Method, type Network } from "../../index.js";
import { asContext, readBytes, readNumbers } from "../files/points.js";

export interface ModelOptions {
  readonly activation?: string;
  readonly contextColumns?: "last" | "first";
  readonly layers?: readonly string[];
  readonly prefix?: string;
  readonly ignore?: readonly string[];
}

export function addModelOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--activation <name>",
        'activation of the hidden layers, such as silu or "elu(0.5)", or a list with commas; wins over the .safetensors file\'s own',
      ),
    )
    .addOption(new Option("--context-columns <place>", "where the first weight has the context's columns").choices(["last", "first"]))
    .addOption(
      new Option("--layers <names>", "the layers of a .safetensors file in order, with commas: names of weights less .weight").argParser(
        parseNames,
      ),
    )
    .addOption(new Option("--prefix <text>", "read only the tensors of a .safetensors file whose names begin so"))
    .addOption(
      new Option("--ignore <names>", "tensors of a .safetensors file that the field does without, with commas").argParser(parseNames),
    );
}

function parseNames(text: string): string[] {
  return text.split(",").map((name) => name.trim());
}

export function modelArgument(): Argument {
  return new Argument("<model>", "file in .safetensors or .onnx format");
}

export async function readModel(path: string, { activation, contextColumns, layers, prefix, ignore }: ModelOptions): Promise<Network> {
  const isOnnx = path.toLowerCase().endsWith(".onnx");
  if (isOnnx)
    for (const [name, value] of Object.entries({ activation, layers, prefix, ignore }))
      if (value !== undefined)
        throw new InputError(`--${name} is ${quote(String(value))}, but an .onnx file says by itself what it holds; expected no --${name}`);
  const bytes = await readBytes(path);
  try {
    const network = isOnnx
      ? parseOnnx(bytes, { contextColumns })
      : parseSafetensors(bytes, { activation, contextColumns, layers, prefix, ignore });
    return network.notes ? { ...network, notes: network.notes.map(asTyped) } : network;
  } catch (error) {
    if (error instanceof DeldotError) throw new ModelError(`${path}: ${asTyped(error.message)}`, { cause: error });
    throw error;
  }
}

/** The readers' texts write options as in code, layers: ["a", "b"]; here they are typed, --layers a,b. */
export function asTyped(text: string): string {
  return text.replaceAll(
    /\b(activation|contextColumns|layers|prefix|ignore): (\[[^\]]*\]|"[^"]*")/g,
    (_, name: string, value: string) =>
      `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} ${value.replaceAll(/[[\]"]/g, "").replaceAll(", ", ",") || '""'}`,
  );
}

export const adapterChoices = ["auto", "software", "cpu"] as const;
export type AdapterChoice = (typeof adapterChoices)[number];

export interface EvaluationOptions {
  readonly adapter: AdapterChoice;
  readonly method: Method | "auto";
}

export function addEvaluationOptions(command: Command): Command {
  return command
    .addOption(new Option("--method <name>", "how the divergence is computed").choices(["auto", ...methods]).default("auto"))
    .addOption(
      new Option("--adapter <kind>", "a real GPU else a software one, a software one, or the float64 reference on the CPU")
        .choices(adapterChoices)
        .default("auto"),
    );
}

export const contextHelp = "context of all points (0.5 or 0.5,1), or a file with one row, or with one row per point";

/** @throws InputError where the model takes no context, or one of another size. */
export async function readContext(
  text: string | undefined,
  network: Network,
  pointCount: number,
): Promise<Float32Array | Float64Array | undefined> {
  const { contextSize } = network;
  if (text === undefined) {
    if (contextSize === 0) return undefined;
    throw new InputError(
      `the model takes a context of ${contextSize} ${contextSize === 1 ? "number" : "numbers"} and none was given; expected --context`,
    );
  }
  if (contextSize === 0) throw new InputError(`--context is ${quote(text)}, but the model takes no context; expected no --context`);
  const numbers = parseNumbers(text);
  if (!numbers) return asContext(await readNumbers(text), contextSize, pointCount, text);
  if (numbers.length !== contextSize)
    throw new InputError(`--context ${text} has ${numbers.length} numbers; expected ${contextSize}, as the model takes`);
  return Float64Array.from(numbers);
}

const decimal = String.raw`\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*`;
const listPattern = new RegExp(`^${decimal}(,${decimal})*$`, "i");
const rangePattern = new RegExp(`^${decimal}:${decimal}$`, "i");

/** "1,-2.5" -> [1, -2.5]; null where it is anything else, such as the name of a file. */
function parseNumbers(text: string): number[] | null {
  if (!listPattern.test(text)) return null;
  const numbers = text.split(",").map(Number);
  return numbers.every(Number.isFinite) ? numbers : null;
}

export function parseList(text: string): number[] {
  const numbers = parseNumbers(text);
  if (!numbers) throw new InvalidArgumentError("Expected numbers with commas between, such as 0,-1.5.");
  return numbers;
}

export interface Range {
  readonly from: number;
  readonly to: number;
}

export function parseRange(text: string): Range {
  const [from, to] = rangePattern.test(text) ? text.split(":").map(Number) : [];
  if (from === undefined || to === undefined || !Number.isFinite(to - from) || from >= to)
    throw new InvalidArgumentError("Expected two numbers, the smaller one first, such as -3:3.");
  return { from, to };
}

/** A parser of whole numbers from `least` to `most`. */
export function parseWhole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : NaN;
    if (!(value >= least && value <= most)) throw new InvalidArgumentError(`Expected a whole number from ${least} to ${most}.`);
    return value;
  };
}

export function parsePositive(text: string): number {
  const value = parseNumbers(text);
  if (value?.length !== 1 || value[0]! <= 0) throw new InvalidArgumentError("Expected a number above 0.");
  return value[0]!;
}
