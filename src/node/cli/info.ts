import type { Command } from "commander";
import { explainPlan, parameterLayout, type Network, type Operand, type Operation, type Weight } from "../../index.js";
import { addModelOptions, modelArgument, readModel, type ModelOptions } from "./options.js";
import { formatTable, print } from "./output.js";

export function addInfo(program: Command): void {
  const command = program
    .command("info")
    .description("describe a model: its operations as read, parameters, state and context, and the plan for its divergence")
    .addArgument(modelArgument());
  addModelOptions(command)
    .addHelpText("after", "\nNo device is needed.\n\nExample:\n  deldot info two-moons-flow.safetensors")
    .action(async (path: string, options: ModelOptions) => {
      const network = await readModel(path, options);
      await print([describeNetwork(path, network), "\n", explainPlan(network).toString().trimEnd(), "\n"]);
    });
}

function describeNetwork(path: string, network: Network): string {
  const { stateSize, contextSize, operations, notes = [] } = network;
  const rows = [["", "operation", "reads", "weights", "parameters"]];
  operations.forEach((operation, index) => {
    const { name, reads, weights, parameters } = describeOperation(operation);
    const sources = reads.map((operand) => (typeof operand === "number" ? String(operand + 1) : operand));
    rows.push([String(index + 1), name, sources.join(", "), weights, parameters === 0 ? "" : String(parameters)]);
  });
  const context = contextSize === 0 ? "no context" : `context of ${contextSize}`;
  return `${path}: a vector field, state of ${stateSize}, ${context}, ${parameterLayout(network).size} parameters\n${notes.map((note) => `${note}\n`).join("")}\n${formatTable(rows)}`;
}

interface Description {
  readonly name: string;
  readonly reads: readonly Operand[];
  readonly weights: string;
  readonly parameters: number;
}

function describeOperation(operation: Operation): Description {
  switch (operation.kind) {
    case "activation":
      return { name: operation.activation.toString(), reads: [operation.operand], weights: "", parameters: 0 };
    case "product":
      return { name: "product", reads: operation.operands, weights: "", parameters: 0 };
    case "norm": {
      const name = `${operation.centered ? "layer norm" : "rms norm"}, epsilon ${operation.epsilon}`;
      return { name, reads: [operation.operand], weights: "", parameters: 0 };
    }
    case "linear": {
      const { bias } = operation;
      const weights = operation.terms.map(({ weight }) => describeWeight(weight));
      // What all parts share is counted once, their bias too.
      const parts = operation.terms.map(({ weight }) => ("block" in weight ? weight.times : 1));
      const period = (bias?.length ?? 0) / Math.max(1, ...parts);
      const biases = bias?.every((value, i) => value === bias[i % period]) ? period : (bias?.length ?? 0);
      return {
        name: "linear",
        reads: operation.terms.map(({ operand }) => operand),
        weights: [...weights.map(({ shape }) => shape), ...(bias ? [`bias ${biases}`] : [])].join(" + "),
        parameters: operation.isFixed ? 0 : weights.reduce((sum, { parameters }) => sum + parameters, 0) + biases,
      };
    }
  }
}

function describeWeight(weight: Weight): { shape: string; parameters: number } {
  if ("block" in weight) {
    const { shape, parameters } = describeWeight(weight.block);
    return { shape: `${shape} for each of ${weight.times} parts`, parameters };
  }
  if (!("diagonal" in weight)) return { shape: `${weight.rows} x ${weight.columns}`, parameters: weight.rows * weight.columns };
  const { diagonal } = weight;
  if (diagonal.every((factor) => factor === 1)) return { shape: "identity", parameters: 0 };
  return { shape: `diagonal ${diagonal.length}`, parameters: diagonal.length };
}
