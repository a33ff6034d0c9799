import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AdapterError, InputError } from "../../src/errors.js";
import { adapterName, describeAdapter, requestDevice } from "../../src/node/index.js";
import { packagedSwiftShader, softwareDrivers } from "../../src/node/softwareGpu.js";

describe("requestDevice", () => {
  test("gives a device with the adapter's limits, and disposing it twice is no matter", async () => {
    const report = await describeAdapter({ adapter: "software" });
    const { device, description, dispose } = await requestDevice({ adapter: "software" });
    expect(report.software).toBe(true);
    expect(description).toBe(report.description);
    for (const name of [
      "maxStorageBufferBindingSize",
      "maxBufferSize",
      "maxComputeWorkgroupStorageSize",
      "maxStorageBuffersPerShaderStage",
    ] as const)
      expect(device.limits[name]).toBe(report.limits[name]);
    expect(GPUBufferUsage.STORAGE).toBe(128);
    await dispose();
    await dispose();
    expect((await device.lost).reason).toBe("destroyed");
  });

  test("gives WebGPU's guaranteed limits on request", async () => {
    const { device, dispose } = await requestDevice({ adapter: "software", limits: "default" });
    expect(device.limits.maxStorageBufferBindingSize).toBe(2 ** 27);
    expect(device.limits.maxComputeInvocationsPerWorkgroup).toBe(256);
    expect(device.features.has("timestamp-query")).toBe(false);
    await dispose();
  });

  test("gives several devices at once and leaves the environment as it was", async () => {
    const before = { ...process.env };
    const devices = await Promise.all([requestDevice(), requestDevice({ adapter: "software" })]);
    expect(process.env).toEqual(before);
    await Promise.all(devices.map(({ dispose }) => dispose()));
  });

  test("refuses a driver of the user's that does not work, and says what it was", async () => {
    const before = process.env["VK_DRIVER_FILES"];
    process.env["VK_DRIVER_FILES"] = "/nowhere/icd.json";
    try {
      await expect(requestDevice()).rejects.toThrow("VK_DRIVER_FILES=/nowhere/icd.json");
      await expect(requestDevice()).rejects.toThrow(AdapterError);
    } finally {
      if (before === undefined) delete process.env["VK_DRIVER_FILES"];
      else process.env["VK_DRIVER_FILES"] = before;
    }
  });

  test("refuses unknown options", async () => {
    await expect(requestDevice({ adapter: "hardware" as "auto" })).rejects.toThrow(InputError);
    await expect(requestDevice({ limits: "all" as "default" })).rejects.toThrow('limits is "all"');
  });
});

test("an adapter's name tells the card where the description is the driver's alone", () => {
  const info = { vendor: "nvidia", architecture: "hopper", device: "h200", description: "NVIDIA: 580.159", isFallbackAdapter: false };
  const named = (own: Partial<typeof info>): string => adapterName({ ...info, ...own } as GPUAdapterInfo);
  expect(named({})).toBe("h200, NVIDIA: 580.159");
  expect(named({ device: "" })).toBe("NVIDIA: 580.159");
  expect(named({ description: "" })).toBe("nvidia hopper h200");
  expect(named({ vendor: "mesa", device: "llvmpipe-256-bits", description: "llvmpipe: Mesa 25" })).toBe("llvmpipe: Mesa 25");
  expect(named({ vendor: "", architecture: "", device: "", description: "" })).toBe("unnamed GPU");
});

describe("software drivers", () => {
  let cache: string;
  const before = process.env["XDG_CACHE_HOME"];
  beforeAll(async () => {
    cache = await mkdtemp(join(tmpdir(), "deldot-cache-"));
    process.env["XDG_CACHE_HOME"] = cache;
  });
  afterAll(async () => {
    if (before === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = before;
    await rm(cache, { recursive: true });
  });

  test("are looked for on the system, then in the npm package, then beside a browser", async () => {
    const names: string[] = [];
    for await (const { name } of softwareDrivers()) names.push(name);
    expect(names[0]).toContain("lavapipe");
    expect(names[1]).toContain("@sparticuz/chromium");
    expect(names[2]).toContain("/usr/lib/chromium");
  });

  test("are unpacked once, by many at the same time, and again where a file is missing", async () => {
    await rm(join(cache, "deldot"), { recursive: true, force: true });
    const drivers = await Promise.all(Array.from({ length: 4 }, () => packagedSwiftShader()));
    const [first] = drivers;
    if (!first || "missing" in first) throw new Error(`no driver: ${JSON.stringify(first)}`);
    for (const driver of drivers) expect(driver).toEqual(first);
    expect(await readdir(join(cache, "deldot"))).toHaveLength(1);
    await rm(first.loader!);
    expect(await packagedSwiftShader()).toEqual(first);
    expect(await readdir(join(cache, "deldot"))).toHaveLength(1);
    expect(await readdir(join(first.manifests, ".."))).toHaveLength(3);
  });
});

test("a process that disposes its device ends by itself, time after time", async () => {
  const script = `import { requestDevice } from ${JSON.stringify(new URL("dist/node.js", `file://${process.cwd()}/`).href)};
    const { dispose } = await requestDevice({ adapter: "software" });
    await dispose();
    console.log("done");`;
  for (let run = 0; run < 3; run++) {
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { timeout: 30_000 });
    expect(stdout).toBe("done\n");
  }
});
