#!/usr/bin/env node
/** The command `deldot`. Exit status: 0, 1 where verify finds an error out of tolerance, 2 for anything that is wrong. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Command, CommanderError } from "commander";
import { DeldotError } from "../../errors.js";
import { addDoctor } from "./doctor.js";
import { addEval } from "./eval.js";
import { addExport } from "./export.js";
import { addGradient } from "./gradient.js";
import { addHeatmap } from "./heatmap.js";
import { addInfo } from "./info.js";
import { addLogProb } from "./logprob.js";
import { describeSystemError } from "../files/points.js";
import { filterSocket } from "./nativeStderr.js";
import { isGone } from "./output.js";
import { Interruption } from "./progress.js";
import { addSample } from "./sample.js";
import { addTrain } from "./train.js";
import { addVerify } from "./verify.js";

const { version } = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("deldot/package.json"), "utf8")) as {
  version: string;
};

const program = new Command("deldot")
  .description("The exact divergence of neural vector fields, on WebGPU.")
  .version(version)
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "deldot: ")) })
  .addHelpText("after", "\nExample:\n  deldot heatmap two-moons-flow.safetensors --context 0.5 --out heatmap.png");
for (const add of [addInfo, addEval, addGradient, addLogProb, addSample, addHeatmap, addTrain, addExport, addVerify, addDoctor])
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

const status = await filterSocket();
if (status !== null) process.exitCode = status;
else
  try {
    await program.parseAsync();
  } catch (error) {
    process.exitCode = report(error);
  }

function report(error: unknown): number {
  // Commander has printed its own message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof Interruption) {
    process.stderr.write(`deldot: ${error.message}\n`);
    return error.exitStatus;
  }
  if (error instanceof DeldotError) {
    process.stderr.write(`deldot: ${error.message.replaceAll(/\s*\n\s*/g, " ")}\n`);
    return 2;
  }
  process.stderr.write(`deldot: an unexpected error, please report it: ${error instanceof Error ? error.stack : String(error)}\n`);
  return 2;
}
