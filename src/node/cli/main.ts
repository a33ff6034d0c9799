#!/usr/bin/env node
/**
 * The command `deldot`. Exit status: 0, 1 where verify finds an error out of tolerance or shards are not whole, 2 for anything that is
 * wrong; of a shard 42 where no retry mends it.
 */
import { Command, CommanderError } from "commander";
import { DeldotError, InputError, LimitError, ModelError, PlanError } from "../../errors.js";
import { addDoctor } from "./doctor.js";
import { addEval } from "./eval.js";
import { addExport } from "./export.js";
import { addGradient } from "./gradient.js";
import { addHeatmap } from "./heatmap.js";
import { addInfo } from "./info.js";
import { addLogProb } from "./logprob.js";
import { addMerge } from "./merge.js";
import { describeSystemError } from "../files/points.js";
import { filterSocket } from "./nativeStderr.js";
import { isGone } from "./output.js";
import { Interruption } from "./progress.js";
import { addSample } from "./sample.js";
import { addShards } from "./shards.js";
import { addTrain } from "./train.js";
import { addVerify } from "./verify.js";
import { version } from "./version.js";

const program = new Command("deldot")
  .description("The exact divergence of neural vector fields, on WebGPU.")
  .version(version)
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "deldot: ")) })
  .addHelpText("after", "\nExample:\n  deldot heatmap two-moons-flow.safetensors --context 0.5 --out heatmap.png");
for (const add of [
  addInfo,
  addEval,
  addGradient,
  addLogProb,
  addSample,
  addHeatmap,
  addTrain,
  addExport,
  addVerify,
  addMerge,
  addShards,
  addDoctor,
])
  add(program);

// What commander prints by itself, help and version, may fail after all is done; print() says so by itself.
let failure: Error | null = null;
process.stdout.on("error", (error) => {
  if (!isGone(error)) failure = error;
});
process.once("beforeExit", () => {
  if (failure === null || process.exitCode === 2) return;
  process.stderr.write(`deldot: stdout: ${describeSystemError(failure)}\n`);
  process.exitCode = 2;
});

// A process that opened a channel to this one, and is gone, wants no more of it.
if (process.send) {
  const stop = (): boolean => process.kill(process.pid, "SIGTERM");
  // An interrupt takes the listener away: one that came with the end of the channel, and is heard after it, is not to be a second.
  const stopUnlessTold = (): boolean => process.listenerCount("disconnect") > 0 && stop();
  if (process.connected) process.on("disconnect", () => void setTimeout(stopUnlessTold, 100).unref());
  else stop();
  process.channel?.unref();
}

/** What runs again by itself, such as a queue's jobs, and has to know whether that may help. */
const isOfShards = process.argv[2] === "merge" || process.argv.some((argument) => /^--shard(=|$)/.test(argument));
const status = await filterSocket();
if (status !== null) process.exitCode = status;
else
  try {
    await program.parseAsync();
  } catch (error) {
    process.exitCode = report(error);
  }

/** Whether the same command will fail the same way: not where a disk was full or a file could not be reached. */
function isFinal(error: DeldotError): boolean {
  const isOfInput = [InputError, ModelError, PlanError, LimitError].some((kind) => error instanceof kind);
  let code: string | undefined;
  for (let cause = error.cause as NodeJS.ErrnoException | undefined; cause && code === undefined; cause = cause.cause as typeof cause)
    ({ code } = cause);
  if (isOfInput && code !== undefined) return ["ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP"].includes(code);
  return isOfInput;
}

function report(error: unknown): number {
  // Commander has printed its own message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : isOfShards ? 42 : 2;
  if (error instanceof Interruption) {
    process.stderr.write(`deldot: ${error.message}\n`);
    return error.exitStatus;
  }
  if (error instanceof DeldotError) {
    process.stderr.write(`deldot: ${error.message.replaceAll(/\s*\n\s*/g, " ")}\n`);
    return isOfShards && isFinal(error) ? 42 : 2;
  }
  process.stderr.write(`deldot: an unexpected error, please report it: ${error instanceof Error ? error.stack : String(error)}\n`);
  return 2;
}
