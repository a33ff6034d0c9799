/** What the commands share at the edge: options, and the texts that users write for ranges, lists and contexts. */
import { dirname, isAbsolute, join } from "node:path";
import { availableParallelism } from "node:os";
import type { EngineOptions } from "./evaluator.js";
import { Argument, InvalidArgumentError, Option, type Command } from "commander";
import { DeldotError, InputError, ModelError, quote } from "../../errors.js";
import { gradientField, methods, parseOnnx, parseSafetensors, type Method, type Network } from "../../index.js";
import { engines } from "../engines.js";
import { asContext, readBytes, readBytesAtOnce, readNumbers } from "../files/points.js";

export interface ModelOptions {
  readonly activation?: string;
  readonly contextColumns?: "last" | "first";
  readonly state?: string;
  readonly contextOrder?: string;
  readonly output?: string;
  readonly potential?: boolean;
  readonly contextSize?: number;
  readonly prefix?: string;
  readonly layers?: string;
  readonly ignore?: string;
}

/** What the readers' options are called here, where it is not --name. */
const flags: ReadonlyMap<string, string> = new Map([
  ["contextColumns", "--context-columns"],
  ["context", "--context-order"],
  ["contextSize", "--context-size"],
]);

/** The readers' texts write options as in code, options.state and layers: ["a", "b"]; here they are typed, --state and --layers a,b. */
export function asTyped(text: string): string {
  const flag = (name: string): string => flags.get(name) ?? `--${name}`;
  return text
    .replaceAll(/\boptions\.(contextColumns|contextSize|state|context|output)\b/g, (_, name: string) => flag(name))
    .replaceAll(
      /\b(activation|contextColumns|layers|prefix|ignore): (\[[^\]]*\]|"[^"]*")/g,
      (_, name: string, value: string) => `${flag(name)} ${value.replaceAll(/[[\]"]/g, "").replaceAll(", ", ",") || '""'}`,
    );
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
    .addOption(new Option("--state <name>", "the input of an .onnx file that is the state"))
    .addOption(new Option("--context-order <names>", "its other inputs, with commas, in the order of the context's numbers"))
    .addOption(new Option("--output <name>", "its output that is the field"))
    .addOption(
      new Option("--potential", "the model gives one number, a potential: the field is its gradient, the divergence its Laplacian"),
    )
    .addOption(
      new Option("--context-size <count>", "of a potential: how many numbers of its one input are context").argParser(
        parseWhole(0, 2 ** 20),
      ),
    )
    .addOption(new Option("--prefix <text>", "what the names in a .safetensors file begin with that are the network's, of several in it"))
    .addOption(new Option("--layers <names>", "its layers in their order, with commas, where neither numbers nor shapes tell it"))
    .addOption(new Option("--ignore <names>", "its tensors, with commas, that are no part of the field"));
}

export function modelArgument(): Argument {
  return new Argument("<model>", "file in .safetensors or .onnx format");
}

export async function readModel(path: string, options: ModelOptions): Promise<Network> {
  const { activation, contextColumns, state, contextOrder, output, potential, contextSize, prefix, layers, ignore } = options;
  const isOnnx = path.toLowerCase().endsWith(".onnx");
  if (isOnnx && activation !== undefined)
    throw new InputError(`--activation is ${quote(activation)}, but an .onnx file holds its own; expected no --activation`);
  for (const [flag, name] of Object.entries({ "--state": state, "--context-order": contextOrder, "--output": output }))
    if (!isOnnx && name !== undefined)
      throw new InputError(`${flag} is ${quote(name)}, but only an .onnx file names its inputs and outputs; expected no ${flag}`);
  for (const [flag, name] of Object.entries({ "--prefix": prefix, "--layers": layers, "--ignore": ignore }))
    if (isOnnx && name !== undefined)
      throw new InputError(`${flag} is ${quote(name)}, which only a .safetensors file needs; expected no ${flag}`);
  if (contextSize !== undefined && !potential)
    throw new InputError(`--context-size is ${contextSize}, which a velocity's size tells; expected it with --potential alone`);
  const bytes = await readBytes(path);
  try {
    const read = isOnnx
      ? parseOnnx(bytes, {
          contextColumns,
          state,
          context: namesIn(contextOrder),
          output,
          potential,
          contextSize,
          externalData: { get: (location) => readBeside(path, location) },
        })
      : parseSafetensors(bytes, {
          activation,
          contextColumns,
          potential,
          contextSize,
          prefix,
          layers: namesIn(layers),
          ignore: namesIn(ignore),
        });
    const network = potential ? gradientField(read) : read;
    return { ...network, notes: (network.notes ?? []).map(asTyped) };
  } catch (error) {
    if (error instanceof DeldotError) throw new ModelError(`${path}: ${asTyped(error.message)}`, { cause: error });
    throw error;
  }
}

function namesIn(text: string | undefined): string[] | undefined {
  return text?.split(",").map((name) => name.trim());
}

/** A model's weights in another file. Its name is not trusted: only one in the model's own folder, or below, is read. */
function readBeside(model: string, location: string): Uint8Array {
  const parts = location.split(/[\\/]/);
  if (location === "" || isAbsolute(location) || parts.some((part) => part === "" || part === ".." || part.includes(":")))
    throw new InputError(`its weights are in ${quote(location)}; expected a file beside the model`);
  return readBytesAtOnce(join(dirname(model), ...parts));
}

export interface EvaluationOptions extends EngineOptions {
  readonly method: Method | "auto";
}

/** @param able the methods that the command can use. */
export function addEvaluationOptions(command: Command, able: readonly Method[] = methods): Command {
  return addEngineOptions(
    command.addOption(new Option("--method <name>", "how the divergence is computed").choices(["auto", ...able]).default("auto")),
  );
}

export function addEngineOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--adapter <kind>",
        "what computes: a GPU (gpu), onnxruntime on the processor (cpu), a software GPU (software), float64 on the CPU (reference), or the first of them that is there",
      )
        .choices(["auto", ...engines])
        .default("auto"),
    )
    .option("--threads <count>", "cpu: how many threads (default: all there are)", parseWhole(1, Math.max(64, availableParallelism())))
    .option("--kernels <name>", 'gpu, software: these kernels always, such as "layers 4x4", instead of those that prove fastest');
}

export const contextHelp = "context of all points (0.5 or 0.5,1), or a file with one row, or with one row per point";

/** @throws InputError where the model takes no context, or one of another size. */
export function readContext(
  text: string | undefined,
  { contextSize }: Pick<Network, "contextSize">,
  pointCount: number,
): Promise<Float32Array | Float64Array | undefined> {
  return readRows(text, "context", contextSize, pointCount);
}

/** What the option --NAME gives: one row of `size` numbers for all points, or one per point. */
export async function readRows(
  text: string | undefined,
  name: "context" | "condition",
  size: number,
  pointCount: number,
): Promise<Float32Array | Float64Array | undefined> {
  const row = readRow(text, name, size);
  return typeof row === "string" ? asContext(await readNumbers(row), size, pointCount, row, name) : row;
}

/** What the option --NAME says: the row itself, the file that it is in, or nothing where the model takes none. @throws InputError. */
export function readRow(text: string | undefined, name: "context" | "condition", size: number): Float64Array | string | undefined {
  if (text === undefined) {
    if (size === 0) return undefined;
    throw new InputError(
      `the model takes a ${name} of ${size} ${size === 1 ? "number" : "numbers"} and none was given; expected --${name}`,
    );
  }
  if (size === 0) throw new InputError(`--${name} is ${quote(text)}, but the model takes no ${name}; expected no --${name}`);
  const numbers = parseNumbers(text);
  if (!numbers) return text;
  if (numbers.length !== size)
    throw new InputError(`--${name} ${text} has ${numbers.length} numbers; expected ${size}, as the model takes`);
  return Float64Array.from(numbers);
}

const decimal = String.raw`\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*`;
const listPattern = new RegExp(`^${decimal}(,${decimal})*$`, "i");
const rangePattern = new RegExp(`^${decimal}:${decimal}$`, "i");

/** "1,-2.5" -> [1, -2.5]; null where it is anything else, such as the name of a file. */
export function parseNumbers(text: string): number[] | null {
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

export function parseFinite(text: string): number {
  const value = parseNumbers(text);
  if (value?.length !== 1) throw new InvalidArgumentError("Expected a number.");
  return value[0]!;
}

export function parsePositive(text: string): number {
  const value = parseNumbers(text);
  if (value?.length !== 1 || value[0]! <= 0) throw new InvalidArgumentError("Expected a number above 0.");
  return value[0]!;
}
