import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { withoutExpected } from "../../src/node/cli/nativeStderr.js";

describe("lines of native stderr", () => {
  const limits = "Warning: maxDynamicUniformBuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit.\n";
  const loader = "Warning: Couldn't load Vulkan: libvulkan.so.1: cannot open\n    at LoadVulkan (backend.cpp:7)\n";

  test("that are said of every software adapter are left out, and what belongs to them", () => {
    expect(withoutExpected(limits + loader)).toBe("");
  });

  test("that say anything else are kept, in their order", () => {
    const others = ["Warning: vkCreateInstance failed\n    at Check (a.cpp:1)\n", "artificially reduced\n", "no newline"];
    expect(withoutExpected(others[0]! + limits + others[1]! + loader + others[2]!)).toBe(others.join(""));
  });
});

describe.skipIf(process.platform !== "linux")("the command line", () => {
  const cli = fileURLToPath(new URL("../../dist/cli.js", import.meta.url));
  const model = fileURLToPath(new URL("../../demo/models/lorenz.safetensors", import.meta.url));

  test.for([["doctor"], ["verify", model, "--points", "4"]])("%s prints nothing of the driver's to stderr", (args) => {
    const { status, stderr } = spawnSync(process.execPath, [cli, ...args], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });

  test("hands on what a broken driver says", () => {
    const { status, stderr } = spawnSync(process.execPath, [cli, "doctor"], {
      encoding: "utf8",
      env: { ...process.env, VK_DRIVER_FILES: "/nowhere.json" },
    });
    expect(stderr).toContain("/nowhere.json");
    expect(stderr).toContain("correct the variable or unset it");
    expect(status).toBe(2);
  });
});

describe.skipIf(process.platform !== "linux")("a stdout that is full", () => {
  const cli = fileURLToPath(new URL("../../dist/cli.js", import.meta.url));
  const model = fileURLToPath(new URL("../../demo/models/lorenz.safetensors", import.meta.url));

  test.for([["info", model], ["--help"], ["verify", model, "--points", "8", "--adapter", "reference"]])(
    "%s ends with a message and 2",
    (args) => {
      const full = openSync("/dev/full", "w");
      const { status, stderr } = spawnSync(process.execPath, [cli, ...args], { encoding: "utf8", stdio: ["ignore", full, "pipe"] });
      closeSync(full);
      expect(stderr).toMatch(/^deldot: stdout: no space left on device/);
      expect(status).toBe(2);
    },
  );
});
