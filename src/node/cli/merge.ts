import { Argument, type Command } from "commander";
import { mergeShards } from "../shards/merge.js";
import { print } from "./output.js";
import { interruptSignal, withProgress } from "./progress.js";

const help = `
Reads every file of every shard beside the result and checks it against its checksum, reads the points again and checks that
they are what the shards were computed from, and writes NAME.npy and what eval and logprob write beside it, or NAME.safetensors
of gradient: whole or not at all. It can be repeated; the shards stay.

The numbers are those of one run over all rows, whatever the number of shards; of gradient's sums over the points, which are
added block by block, those of any other number of shards.

Example:
  deldot eval two-moons-flow.safetensors --points points.npy --context 0.5 --shard 0/2 --out result.npy
  deldot eval two-moons-flow.safetensors --points points.npy --context 0.5 --shard 1/2 --out result.npy
  deldot merge result.npy`;

/** The files of rows, by their options. */
interface MergeOptions {
  readonly points?: string;
  readonly context?: string;
  readonly condition?: string;
  readonly valueCotangent?: string;
  readonly divergenceCotangent?: string;
  readonly json?: boolean;
}

export function resultArgument(): Argument {
  return new Argument("<result>", "what --out was: NAME.npy, or NAME.safetensors of gradient");
}

export function addMerge(program: Command): void {
  const moved = "where the file is now, if it is not where the shards read it";
  program
    .command("merge")
    .description("make one result of all its shards")
    .addArgument(resultArgument())
    .option("--points <file>", moved)
    .option("--context <file>", moved)
    .option("--condition <file>", moved)
    .option("--value-cotangent <file>", moved)
    .option("--divergence-cotangent <file>", moved)
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runMerge);
}

async function runMerge(out: string, { json, valueCotangent, divergenceCotangent, ...same }: MergeOptions): Promise<void> {
  const named = { ...same, "value-cotangent": valueCotangent, "divergence-cotangent": divergenceCotangent };
  const inputs = Object.fromEntries(Object.entries(named).filter((entry): entry is [string, string] => entry[1] !== undefined));
  const signal = interruptSignal();
  const { paths, shards } = await withProgress("merge", (onProgress) => mergeShards(out, { inputs, signal, onProgress }), "rows");
  const count = shards[0]!.rows;
  const adapters = [...new Set(shards.flatMap((shard) => shard.adapters))];
  await print(
    json
      ? [`${JSON.stringify({ count, shards: shards.length, adapters, files: paths }, null, 2)}\n`]
      : [
          `${count} points of ${shards.length} shards${adapters.length > 0 ? `, by ${adapters.join(" and ")}` : ""}\n`,
          ...paths.map((path) => `wrote ${path}\n`),
        ],
  );
}
