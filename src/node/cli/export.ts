import { extname } from "node:path";
import { InvalidArgumentError, Option, type Command } from "commander";
import { InputError, quote } from "../../errors.js";
import { onnxOutputs, toOnnx, type OnnxExportOptions, type OnnxOutput } from "../../onnx/index.js";
import { commit, discard, openOutputs } from "../files/output.js";
import { addModelOptions, modelArgument, parseWhole, readModel, type ModelOptions } from "./options.js";
import { print } from "./output.js";

interface ExportOptions extends ModelOptions {
  readonly outputs?: readonly OnnxOutput[];
  readonly method: NonNullable<OnnxExportOptions["method"]>;
  readonly opset: number;
  readonly contextPer: NonNullable<OnnxExportOptions["contextPer"]>;
  readonly out: string;
}

const help = `
Writes the plan itself: standard operators in float32, matrices merged in float64 among its initializers. The file's
inputs are x [batch, d] and, where there is a context, context: [batch, c], or [1, c] with --context-per batch. The
batch is free. --output, for .onnx models, is the output to read; --outputs are those to write:
  value       [batch, d]     f
  divergence  [batch]        ∇·f
  diagonal    [batch, d]     ∂f_i/∂x_i, not by cyclic
  jacobian    [batch, d, d]  J[i][j] = ∂f_i/∂x_j, by jacobian, and so are the next three
  curl        [batch, 3]     ∇×f; for d = 2 [batch], ∂f_1/∂x_0 - ∂f_0/∂x_1
  strain      [batch, d, d]  S = (J + Jᵀ)/2
  qCriterion  [batch]        (‖Ω‖² - ‖S‖²)/2 with Ω = (J - Jᵀ)/2
  gradient    [batch, d]     ∇(∇·f), by the point
No device is needed.

Example:
  deldot export two-moons-flow.safetensors --outputs value,divergence --out two-moons-divergence.onnx`;

const extension = ".onnx";

export function addExport(program: Command): void {
  const command = program
    .command("export")
    .description("write the field, its divergence and what else is asked for as an .onnx file for other runtimes")
    .addArgument(modelArgument())
    .addOption(
      new Option("--outputs <names>", `what it gives, with commas: ${onnxOutputs.join(", ")} (default: value,divergence)`).argParser(
        parseOutputs,
      ),
    )
    .addOption(
      new Option("--method <name>", "how the divergence is computed").choices(["auto", "tangent", "cyclic", "jacobian"]).default("auto"),
    )
    .option("--opset <number>", "the version of ONNX's operators, 13 to 21", parseWhole(13, 21), 17)
    .addOption(
      new Option("--context-per <what>", "whether each point has a context, or all points of a run have one")
        .choices(["point", "batch"])
        .default("point"),
    )
    .requiredOption("--out <file>", `write the model: ${extension}`);
  addModelOptions(command).addHelpText("after", help).action(runExport);
}

function parseOutputs(text: string): OnnxOutput[] {
  const names = text.split(",").map((name) => name.trim());
  const known = onnxOutputs.filter((name) => names.includes(name));
  if (known.length < new Set(names).size) throw new InvalidArgumentError(`Expected names out of ${onnxOutputs.join(",")}.`);
  return known;
}

async function runExport(modelPath: string, { outputs, method, opset, contextPer, out, ...options }: ExportOptions): Promise<void> {
  const network = await readModel(modelPath, options);
  if (extname(out).toLowerCase() !== extension)
    throw new InputError(`--out ${out}: its extension is ${quote(extname(out))}; expected ${extension}`);
  const files = await openOutputs([out], [modelPath]);
  try {
    const bytes = toOnnx(network, { outputs, method, opset, contextPer });
    await commit([{ file: files[0]!, content: [bytes] }]);
    const { stateSize: d, contextSize: c } = network;
    const inputs = [`x [batch, ${d}]`, ...(c > 0 ? [`context [${contextPer === "batch" ? 1 : "batch"}, ${c}]`] : [])];
    const names = (outputs ?? ["value", "divergence"]).join(", ");
    await print([`wrote ${out}: ${inputs.join(", ")} -> ${names}; ${bytes.length} bytes, opset ${opset}\n`]);
  } finally {
    await discard(files);
  }
}
