/** What examples/slurm/shards.sbatch makes of each exit status, with srun and scontrol that only tell; try.sh has a real Slurm. */
import { execFileSync, spawnSync } from "node:child_process";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deldot-slurm-"));
  for (const [name, text] of Object.entries({
    srun: 'printf "%s|" "$@" >srun; exit "$STATUS"',
    scontrol: 'echo "$@" >scontrol',
    deldot: 'printf "%s|" "$@"',
  })) {
    await writeFile(join(folder, name), `#!/bin/sh\n${text}\n`);
    await chmod(join(folder, name), 0o755);
  }
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs the script as Slurm runs it, with an exit status of the command. */
async function runTask(environment: NodeJS.ProcessEnv): Promise<{ status: number | null; srun: string; scontrol: string | null }> {
  const own = await mkdtemp(join(folder, "task-"));
  const { status } = spawnSync("bash", [resolve("examples/slurm/shards.sbatch"), "eval", "a model", "--out", "r.npy"], {
    cwd: own,
    env: { ...process.env, PATH: `${folder}:${process.env["PATH"]}`, SLURM_JOB_ID: "17", SLURM_CPUS_PER_TASK: "3", ...environment },
  });
  return {
    status,
    srun: await readFile(join(own, "srun"), "utf8"),
    scontrol: await readFile(join(own, "scontrol"), "utf8").catch(() => null),
  };
}

test.each([
  [0, undefined, null],
  [42, undefined, null],
  [2, undefined, "requeue 17\n"],
  [137, "9", "requeue 17\n"],
  [143, "3", "requeue 17\n"],
  [143, "10", null],
])("after status %i and %s restarts", async (status, restarts, scontrol) => {
  const task = await runTask({ STATUS: String(status), SLURM_RESTART_COUNT: restarts });
  expect(task).toEqual({ status, scontrol, srun: "--ntasks=1|--cpus-per-task=3|deldot|eval|a model|--out|r.npy|--shard|--threads|3|" });
});

test("the command can be words, and the number of restarts another", async () => {
  const environment = { STATUS: "1", DELDOT: "node cli.js", DELDOT_RESTARTS: "2", SLURM_RESTART_COUNT: "2" };
  const { srun, scontrol } = await runTask(environment);
  expect(srun).toMatch(/^--ntasks=1\|--cpus-per-task=3\|node\|cli\.js\|eval\|/);
  expect(scontrol).toBeNull();
});

test("merges by its own script", () => {
  const told = execFileSync("bash", [resolve("examples/slurm/merge.sbatch"), "r.npy"], {
    env: { ...process.env, PATH: `${folder}:${process.env["PATH"]}` },
    encoding: "utf8",
  });
  expect(told).toBe("merge|r.npy|");
});
