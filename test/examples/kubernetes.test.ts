/** The manifests of examples/kubernetes: as Kubernetes' schemas have them, by its own rules, and as the command takes them. */
import { execFile, spawnSync } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeNpy } from "../../src/node/files/npy.js";
import { runDeldot } from "../node/command.js";
import { random } from "../random.js";

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: Record<string, unknown>;
}
/** What the rules and the runs look at. */
interface JobSpec {
  completionMode?: string;
  completions?: number;
  parallelism?: number;
  backoffLimitPerIndex?: number;
  maxFailedIndexes?: number;
  podFailurePolicy?: {
    rules: {
      action: string;
      onExitCodes?: { containerName?: string; operator: string; values: number[] };
      onPodConditions?: { type: string; status: string }[];
    }[];
  };
  podReplacementPolicy?: string;
  template: {
    spec: {
      restartPolicy?: string;
      containers: { name: string; args: string[]; volumeMounts: { name: string; mountPath: string }[] }[];
      volumes: { name: string; persistentVolumeClaim: { claimName: string } }[];
    };
  };
}

const schemas = resolve("test/kubernetes-models");
let folder: string;
let files: Record<"shards" | "merge" | "volume", string>;
let parse: (text: string) => Manifest;
beforeAll(async () => {
  if (!existsSync(join(schemas, "node_modules/yaml")))
    await promisify(execFile)("npm", ["ci", "--no-audit", "--no-fund"], { cwd: schemas });
  ({ parse } = createRequire(join(schemas, "package.json"))("yaml") as { parse: typeof parse });
  folder = await mkdtemp(join(tmpdir(), "deldot-kubernetes-"));
  const read = (name: string): Promise<string> => readFile(`examples/kubernetes/${name}.yaml`, "utf8");
  files = { shards: await read("shards"), merge: await read("merge"), volume: await read("volume") };
});
afterAll(() => rm(folder, { recursive: true }));

/** The manifest's own schema, and its type, which knows of no other fields. */
const models: Record<string, { module: string; type: string }> = {
  Job: { module: "kubernetes-models/batch/v1", type: "IJob" },
  PersistentVolumeClaim: { module: "kubernetes-models/v1", type: "IPersistentVolumeClaim" },
};

/** What is wrong with each of them: by the types, all in one run of the compiler, then by the validator. */
async function faultsOf(manifests: readonly Manifest[]): Promise<string[][]> {
  const own = await mkdtemp(join(folder, "types-"));
  await symlink(join(schemas, "node_modules"), join(own, "node_modules"));
  for (const [index, manifest] of manifests.entries()) {
    const { module, type } = models[manifest.kind]!;
    const text = `import type { ${type} } from "${module}";\nexport const manifest: ${type} = ${JSON.stringify(manifest)};\n`;
    await writeFile(join(own, `${index}.ts`), text);
  }
  const sources = manifests.map((_, index) => `${index}.ts`);
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler", "--types", ""];
  const { stdout } = spawnSync(process.execPath, [resolve("node_modules/typescript/bin/tsc"), ...options, ...sources], {
    cwd: own,
    encoding: "utf8",
  });
  return manifests.map((manifest, index) => {
    const faults = stdout.split("\n").filter((line) => line.startsWith(`${index}.ts`));
    const { module } = models[manifest.kind]!;
    const loaded = createRequire(join(schemas, "package.json"))(module) as Record<string, new (data: Manifest) => { validate(): void }>;
    try {
      new loaded[manifest.kind]!(manifest).validate();
    } catch (error) {
      faults.push((error as Error).message);
    }
    return faults;
  });
}

/** What the API server refuses beyond that (its pkg/apis/batch/validation). */
function refusalsOf(spec: JobSpec): string[] {
  const { completionMode, completions, backoffLimitPerIndex, maxFailedIndexes, podFailurePolicy, podReplacementPolicy, template } = spec;
  const { restartPolicy, containers } = template.spec;
  const indexed = completionMode === "Indexed";
  const refusals: (string | false)[] = [
    indexed && completions === undefined && "an Indexed job needs completions",
    !["Never", "OnFailure"].includes(restartPolicy ?? "") && "restartPolicy is Never or OnFailure",
    backoffLimitPerIndex !== undefined && !indexed && "backoffLimitPerIndex is for Indexed jobs",
    backoffLimitPerIndex !== undefined && restartPolicy !== "Never" && "backoffLimitPerIndex needs restartPolicy Never",
    maxFailedIndexes !== undefined && backoffLimitPerIndex === undefined && "maxFailedIndexes needs backoffLimitPerIndex",
    (maxFailedIndexes ?? 0) > (completions ?? 0) && "maxFailedIndexes is completions at most",
    !!podFailurePolicy && restartPolicy !== "Never" && "podFailurePolicy needs restartPolicy Never",
    !!podFailurePolicy && (podReplacementPolicy ?? "Failed") !== "Failed" && "podFailurePolicy needs podReplacementPolicy Failed",
  ];
  for (const { action, onExitCodes, onPodConditions } of podFailurePolicy?.rules ?? []) {
    const { containerName, operator, values = [] } = onExitCodes ?? {};
    refusals.push(
      !!onExitCodes === !!onPodConditions && "a rule has one of onExitCodes and onPodConditions",
      action === "FailIndex" && backoffLimitPerIndex === undefined && "FailIndex needs backoffLimitPerIndex",
      containerName !== undefined && !containers.some(({ name }) => name === containerName) && "containerName is that of a container",
      operator === "In" && values.includes(0) && "0 is no failure",
      values.some((value, index) => index > 0 && value <= values[index - 1]!) && "values are in order",
    );
  }
  return refusals.filter((each) => each !== false);
}

const specOf = (manifest: Manifest): JobSpec => manifest.spec as unknown as JobSpec;
/** The file's manifest with one thing in it changed. */
function changed(file: string, from: string, to: string): Manifest {
  const text = file.replace(from, to);
  expect(text).not.toBe(file);
  return parse(text);
}

describe("the manifests", () => {
  test("are as Kubernetes has them, and others are refused", async () => {
    const { shards, merge, volume } = files;
    const wrong: [Manifest, RegExp][] = [
      [changed(shards, "backoffLimitPerIndex", "backoffLimitPerShard"), /backoffLimitPerShard.* does not exist/],
      [changed(shards, "terminationGracePeriodSeconds: 60", "terminationGracePeriod: 60"), /terminationGracePeriod.* does not exist/],
      [changed(shards, "onExitCodes", "onExitStatus"), /onExitStatus.* does not exist/],
      [changed(shards, "values: [42]", 'values: ["42"]'), /must be integer/],
      [changed(shards, 'status: "True"', "status: true"), /must be string/],
      [changed(shards, "completions: 8", "completions: 8.5"), /must be integer/],
      [changed(shards, "operator: In", "operator: Is"), /must be equal to one of the allowed values/],
      [changed(shards, "action: FailIndex", "action: FailShard"), /must be equal to one of the allowed values/],
      [changed(shards, "mountPath: /data", "path: /data"), /must have required property mountPath/],
      [changed(merge, "containers:", "initContainers:"), /must have required property containers/],
      [changed(merge, 'cpu: "1"', "cpu: [1]"), /must be/],
      [changed(volume, "accessModes: [ReadWriteMany]", "accessModes: ReadWriteMany"), /must be array/],
    ];
    const good = [shards, merge, volume].map(parse);
    const faults = await faultsOf([...good, ...wrong.map(([manifest]) => manifest)]);
    expect(faults.slice(0, good.length)).toEqual(good.map(() => []));
    for (const [index, [, message]] of wrong.entries()) expect(faults[good.length + index]!.join("\n")).toMatch(message);
  });

  test("keep the rules of the API server, and others are refused", () => {
    const { shards, merge } = files;
    for (const file of [shards, merge]) expect(refusalsOf(specOf(parse(file)))).toEqual([]);
    for (const [from, to, refusal] of [
      ["completions: 8", "", /an Indexed job needs completions/],
      ["completionMode: Indexed", "completionMode: NonIndexed", /backoffLimitPerIndex is for Indexed jobs/],
      ["restartPolicy: Never", "restartPolicy: OnFailure", /podFailurePolicy needs restartPolicy Never/],
      ["restartPolicy: Never", "restartPolicy: Always", /restartPolicy is Never or OnFailure/],
      ["backoffLimitPerIndex: 5", "backoffLimit: 5", /FailIndex needs backoffLimitPerIndex/],
      ["maxFailedIndexes: 0", "maxFailedIndexes: 9", /maxFailedIndexes is completions at most/],
      ["containerName: deldot", "containerName: shard", /containerName is that of a container/],
      ["podReplacementPolicy: Failed", "podReplacementPolicy: TerminatingOrFailed", /podFailurePolicy needs podReplacementPolicy Failed/],
      ["values: [42]", "values: [42, 2]", /values are in order/],
    ] as const)
      expect(refusalsOf(specOf(changed(shards, from, to))).join("\n")).toMatch(refusal);
  });

  test("belong together: as many shards as pods, one volume, and what no retry mends fails its index at once", () => {
    const [shards, merge, volume] = [files.shards, files.merge, files.volume].map(parse) as [Manifest, Manifest, Manifest];
    const { completions, parallelism, podFailurePolicy, template } = specOf(shards);
    const { args } = template.spec.containers[0]!;
    expect(args[args.indexOf("--shard") + 1]).toBe(String(completions));
    expect(parallelism).toBeLessThanOrEqual(completions!);
    expect(podFailurePolicy!.rules).toMatchObject([
      { action: "Ignore", onPodConditions: [{ type: "DisruptionTarget", status: "True" }] },
      { action: "FailIndex", onExitCodes: { operator: "In", values: [42] } },
    ]);
    for (const { containers, volumes } of [shards, merge].map((job) => specOf(job).template.spec)) {
      expect(containers[0]!.volumeMounts).toEqual([{ name: volumes[0]!.name, mountPath: "/data" }]);
      expect(volumes).toMatchObject([{ persistentVolumeClaim: { claimName: volume.metadata.name } }]);
    }
  });
});

test("the containers' commands make the bits of one run, pod by pod, and end with what the policy names", async () => {
  const next = random(1);
  const rows = 100;
  const data = Float32Array.from({ length: rows * 2 }, () => next() * 4 - 2);
  await writeFile(join(folder, "points.npy"), writeNpy({ data, shape: [rows, 2] }));
  const model = join(folder, "model.safetensors");
  await copyFile("demo/models/two-moons-flow.safetensors", model);
  /** As in the container, whose volume is the folder. */
  const commandOf = (file: string): string[] =>
    specOf(parse(file)).template.spec.containers[0]!.args.map((argument) => argument.replace("/data", folder));
  // In float64, which takes the same work on every machine.
  const shard = [...commandOf(files.shards), "--adapter", "reference"];
  const { completions, podFailurePolicy } = specOf(parse(files.shards));

  for (let index = completions! - 1; index >= 0; index--) {
    if (index === 0)
      expect(await runDeldot(folder, commandOf(files.merge))).toMatchObject({
        status: 2,
        stderr: expect.stringContaining(`.shard-0-of-${completions!} is missing`),
      });
    expect(await runDeldot(folder, shard, { JOB_COMPLETION_INDEX: String(index) })).toMatchObject({ status: 0, stderr: "" });
  }
  expect(await runDeldot(folder, commandOf(files.merge))).toMatchObject({ status: 0, stderr: "" });
  const at = shard.indexOf("--shard");
  const whole = shard.toSpliced(at, 2).map((argument) => argument.replace("result", "whole"));
  expect((await runDeldot(folder, whole)).status).toBe(0);
  for (const array of ["", ".base"])
    expect((await readFile(join(folder, `result${array}.npy`))).equals(await readFile(join(folder, `whole${array}.npy`)))).toBe(true);

  await rm(model);
  const { status } = await runDeldot(folder, shard, { JOB_COMPLETION_INDEX: "0" });
  expect(podFailurePolicy!.rules[1]!.onExitCodes!.values).toEqual([status]);
});
