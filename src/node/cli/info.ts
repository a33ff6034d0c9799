import type { Command } from "commander";
import { explainPlan, type Network } from "../../index.js";
import { addModelOptions, readModel, type ModelOptions } from "./options.js";
import { formatTable, print } from "./output.js";

export function addInfo(program: Command): void {
  const command = program
    .command("info")
    .description("describe a model: its layers, parameters, state and context, and the plan for its divergence")
    .argument("<model>", "file in .safetensors format");
  addModelOptions(command)
    .addHelpText("after", "\nNo device is needed.\n\nExample:\n  deldot info two-moons-flow.safetensors")
    .action(async (path: string, options: ModelOptions) => {
      const network = await readModel(path, options);
      await print([describeNetwork(path, network), "\n", explainPlan(network).toString().trimEnd(), "\n"]);
    });
}

function describeNetwork(path: string, { stateSize, contextSize, operations }: Network): string {
  const rows = [["layer", "weight", "bias", "activation", "parameters"]];
  let total = 0;
  for (const operation of operations) {
    if (operation.kind === "activation") {
      rows.at(-1)![3] = operation.activation.toString();
      continue;
    }
    const columns = operation.terms.reduce((sum, { weight }) => sum + weight.columns, 0);
    const outputs = operation.terms[0]!.weight.rows;
    const parameters = outputs * columns + (operation.bias?.length ?? 0);
    total += parameters;
    rows.push([
      String(rows.length),
      `${outputs} x ${columns}`,
      operation.bias ? String(operation.bias.length) : "none",
      "none",
      String(parameters),
    ]);
  }
  const context = contextSize === 0 ? "no context" : `context of ${contextSize}`;
  return `${path}: a vector field, state of ${stateSize}, ${context}, ${total} parameters\n\n${formatTable(rows)}`;
}
