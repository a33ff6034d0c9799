import type { Command } from "commander";
import { listShards, type ShardState } from "../shards/list.js";
import { resultArgument } from "./merge.js";
import { formatTable, print } from "./output.js";

const help = `
Reads every file of every shard. A shard is whole, and as it was written; begun, some of its rows being there, from which a
later run goes on; broken, with what is wrong with it; or missing. Exit status 1 unless all are whole.`;

export function addShards(program: Command): void {
  program
    .command("shards")
    .description("list what is there of a result's shards")
    .addArgument(resultArgument())
    .option("--json", "print one JSON object and nothing else")
    .addHelpText("after", help)
    .action(runShards);
}

async function runShards(out: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { count, shards } = await listShards(out);
  const whole = shards.filter(({ state }) => state === "whole").length;
  await print(json ? [`${JSON.stringify({ count, whole, shards }, null, 2)}\n`] : describe(count, whole, shards));
  if (whole < count) process.exitCode = 1;
}

function* describe(count: number, whole: number, shards: readonly ShardState[]): Generator<string, void, undefined> {
  yield formatTable([
    ["shard", "state", "rows", "ms", "by"],
    ...shards.map(({ shard, state, rows, milliseconds, adapters, fault }) => [
      String(shard),
      state,
      String(rows),
      String(milliseconds ?? ""),
      fault ?? adapters.join(", "),
    ]),
  ]);
  yield `\n${whole} of ${count} shards are whole\n`;
}
