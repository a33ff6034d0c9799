import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** `npm test` has built dist already. The kernels are fixed: tuning takes long on a software adapter. */
async function bench(flags: string): Promise<any> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--import", "tsx", "bench/main.ts", "--kernels", "layers 8x16", "--json", ...flags.split(" ")],
    { cwd: root, timeout: 50_000 },
  );
  return JSON.parse(stdout);
}

test("the benchmark measures a small case and gives its numbers as JSON", async () => {
  const report = await bench("--sections cases,host --cases ^residual --methods auto|jacobian --points 64 --repeats 1");
  expect(report).toMatchObject({ deviceTime: expect.any(String), peaks: null, scale: [] });
  expect(report.adapter).not.toBe("");
  const [{ name, points, forwardMultiplyAdds, rows }] = report.cases;
  expect({ name, points, forwardMultiplyAdds }).toEqual({ name: "residual", points: 64, forwardMultiplyAdds: 2400 });
  expect(rows.map(({ method, auto }: any) => ({ method, auto }))).toEqual([
    { method: "value", auto: false },
    { method: "tangent", auto: true },
    { method: "jacobian", auto: false },
  ]);
  for (const row of rows) {
    expect(row.error).toBeLessThan(1e-4);
    expect(row.compared).toBe(row.points);
    expect(row.kernels).toBe("layers 8x16");
    for (const { median, low, high, samples } of [row.device, row.wall, row.ratio, row.wallRatio]) {
      expect(low).toBeLessThanOrEqual(median);
      expect(median).toBeLessThanOrEqual(high);
      expect(samples).toBe(1);
    }
    for (const amount of [row.device.median, row.gflops, row.pointsPerSecond, row.peakBytes]) expect(amount).toBeGreaterThan(0);
  }
  expect(rows[0]).toMatchObject({ ratio: { median: 1 }, predictedRatio: 1 });
  expect(rows[1].predictedRatio).toBeCloseTo(2.5, 10);
  expect(report.calls.map(({ name }: any) => name)).toEqual(["2-64-2", "64-256-3", "two-moons-flow"]);
  for (const { first, encode, encodeCalls, evaluate, evaluateCalls } of report.calls)
    for (const amount of [first, encode.median, encodeCalls.median, evaluate.median, evaluateCalls.median])
      expect(amount).toBeGreaterThan(0);
});

test("the benchmark measures a step of training beside what the plan counts", async () => {
  const { gradients } = await bench("--sections gradient --cases ^2-64-2 --points 64 --repeats 1");
  expect(gradients).toHaveLength(1);
  const [{ name, points, planned, ...times }] = gradients;
  expect({ name, points }).toEqual({ name: "2-64-2", points: 64 });
  // 1.95, and what is done once for all points spread over 64.
  expect(planned).toBeCloseTo(1.95 + 24576 / 64 / 13188, 2);
  for (const { median, samples } of Object.values<any>(times)) {
    expect(median).toBeGreaterThan(0);
    expect(samples).toBe(1);
  }
});

test("the benchmark measures whole steps of training, and what the host has of them", async () => {
  const { training } = await bench("--sections train --cases ^2-64-2 --points 64 --repeats 1");
  expect(training.map(({ name, loss, batch }: any) => ({ name, loss, batch }))).toEqual([
    { name: "2-64-2", loss: "flow_matching", batch: 64 },
    { name: "2-64-2", loss: "score_matching", batch: 64 },
  ]);
  for (const { stepsPerSecond, step, host, hostShare, steps } of training) {
    expect(stepsPerSecond.median * step.median).toBeCloseTo(1000, 6);
    expect(hostShare.median).toBeCloseTo(host.median / step.median, 6);
    expect(hostShare.median).toBeGreaterThan(0);
    expect(hostShare.median).toBeLessThan(1);
    expect(steps).toBeGreaterThan(0);
  }
});
