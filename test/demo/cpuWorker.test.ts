/** The worker of the page's CPU engine, without a browser: what it holds on to. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Answer, Request } from "../../demo/src/engines/cpuWorker.js";
import { parseFormula } from "../../demo/src/fields/formula.js";
import { firstNetwork } from "../../demo/src/training/trainer.js";

const sessions = vi.hoisted(() => ({ made: 0, released: 0 }));
vi.mock("onnxruntime-web/wasm", async () => {
  const { runtime } = await import("../onnxruntime.js");
  return {
    ...runtime,
    env: { wasm: {} },
    InferenceSession: {
      async create(...given: Parameters<typeof runtime.InferenceSession.create>) {
        const session = await runtime.InferenceSession.create(...given);
        sessions.made++;
        return { run: session.run.bind(session), release: () => (sessions.released++, session.release()) };
      },
    },
  };
});

let post: (request: Request) => void;
const answers: Answer[] = [];
beforeAll(async () => {
  vi.stubGlobal("crossOriginIsolated", false);
  vi.stubGlobal("self", {
    addEventListener: (_: string, listener: (event: { data: Request }) => void) => (post = (data) => listener({ data })),
    postMessage: (answer: Answer) => answers.push(answer),
  });
  await import("../../demo/src/engines/cpuWorker.js");
});
afterAll(() => void vi.unstubAllGlobals());

const patience = { timeout: 60_000 };

test("sessions of fields that are gone are released, however many there have been", async () => {
  const answer = (kind: Answer["kind"], id?: number): Promise<void> =>
    vi.waitFor(
      () => expect(answers.some((each) => each.kind === kind && (id === undefined || ("id" in each && each.id === id)))).toBe(true),
      patience,
    );
  post({ kind: "load" });
  await answer("loaded");
  const networks = [firstNetwork("flow", 1), parseFormula("sin(x)*y, x - y*y")];
  const points = Float32Array.of(0.3, -0.2, 1, 0.5);
  let asked = 0;
  /** As the page does: a network, its picture, its cloud. */
  const change = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index++) {
      const network = networks[index % 2]!;
      const of = ++asked;
      post({ kind: "network", id: of, network });
      await answer("network", of);
      post({ kind: "use", id: of });
      const context = network.contextSize > 0 ? 0.5 : null;
      const [numbers, moved] = [++asked, ++asked];
      post({ kind: "evaluate", id: numbers, of, points, options: { outputs: ["value", "divergence"], context } });
      post({ kind: "transport", id: moved, of, points, options: { solver: "rk4", steps: 2, from: 0, to: 1 } });
      await answer("numbers", numbers);
      await answer("moved", moved);
    }
  };
  await change(2);
  const few = sessions.made - sessions.released;
  expect(few).toBeGreaterThan(0);
  await change(20);
  expect(sessions.made).toBeGreaterThan(20);
  await vi.waitFor(() => expect(sessions.made - sessions.released).toBe(few), patience);
  expect(answers.filter(({ kind }) => kind === "error")).toEqual([]);
  expect(answers.some((each) => each.kind === "moved" && each.by === "reference")).toBe(false);
});
