/** Programs, and tests, on other runtimes than Node. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Installs what a folder's package-lock.json names, unless `file` is there. @returns the path of `file`. */
export async function installIn(folder: string, file: string): Promise<string> {
  const path = join(folder, file);
  if (!existsSync(path)) await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder });
  return path;
}

/** Runs a command in the root of the package. @throws where it is killed, by `timeout` milliseconds among others. */
export async function call(
  command: string,
  parameters: readonly string[],
  environment: NodeJS.ProcessEnv,
  timeout: number,
): Promise<Outcome> {
  // What tells a program that vitest runs it is not for one that runs vitest.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST") && name !== "NODE_OPTIONS");
  const env = { ...Object.fromEntries(inherited), NO_COLOR: "1", ...environment };
  try {
    return { status: 0, ...(await run(command, parameters, { cwd: root, env, timeout, maxBuffer: 2 ** 26 })) };
  } catch (error) {
    const { code, stdout, stderr } = error as Error & Outcome & { code: unknown };
    if (typeof code !== "number") throw new Error(`${command} ${parameters.join(" ")} ended without a status: ${stderr}`, { cause: error });
    return { status: code, stdout, stderr };
  }
}

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** Which tests. */
export interface Tests {
  /** "calls" for test/calls.test.ts. */
  readonly files: readonly string[];
  /** Expressions of names, of which each test has one; null for all tests. */
  readonly names: readonly string[] | null;
  /** There must be more. */
  readonly least: number;
}

/**
 * Runs tests by a runtime that runs vitest itself, and expects that all pass and every file has some.
 * @param start what vitest is given, from its file on. @param outputFile where its report may lie.
 */
export async function expectTests(
  { files, names, least }: Tests,
  start: (parameters: readonly string[]) => Promise<Outcome>,
  outputFile: string,
): Promise<void> {
  const parameters = ["--reporter=json", `--outputFile=${outputFile}`, ...(names ? ["--testNamePattern", names.join("|")] : [])];
  const paths = files.map((name) => `test/${name}.test.ts`);
  const { status, stdout, stderr } = await start(["node_modules/vitest/vitest.mjs", "run", ...parameters, ...paths]);
  const said = `${stdout}${stderr}`;
  const report = (await readFile(outputFile, "utf8").then(JSON.parse, () => expect.fail(said))) as Report;
  const all = report.testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = all.filter(({ status: ended }) => ended === "failed");
  expect(failed.map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages.join("\n")}`)).toEqual([]);
  expect(status, said).toBe(0);
  for (const { name, message, assertionResults } of report.testResults)
    expect(
      assertionResults.some(({ status: ended }) => ended === "passed"),
      `${name}: ${message}`,
    ).toBe(true);
  expect(report.testResults).toHaveLength(files.length);
  expect(all.filter(({ status: ended }) => ended === "passed").length).toBeGreaterThan(least);
}
