import { trainOnCpu } from "./cpuTrainer.js";
import type { Answer, Request } from "./messages.js";
import type { LiveTrainer } from "./trainer.js";

/** What a worker has of the line to its page. */
interface Port {
  postMessage(message: Answer): void;
  addEventListener(type: "message", listener: (event: MessageEvent<Request>) => void): void;
}

/** Trains on the CPU as the other end of the line asks for it, one request after another. */
export function serve(port: Port): void {
  let trainer: LiveTrainer | null = null;
  let last: Promise<void> = Promise.resolve();
  const answer = async (request: Request): Promise<Answer> => {
    const { id } = request;
    if (request.kind === "create") {
      trainer = await trainOnCpu(request.points, request.options);
      return { id, kind: "done" };
    }
    if (!trainer) throw new Error("there is no trainer");
    switch (request.kind) {
      case "run": {
        const before = trainer.losses.length;
        const progress = await trainer.run(request.milliseconds);
        return { id, kind: "ran", progress, losses: trainer.losses.slice(before) };
      }
      case "network":
        return { id, kind: "network", network: await trainer.network() };
      case "loss":
        await trainer.setLoss(request.loss);
        return { id, kind: "done" };
    }
  };
  port.addEventListener("message", ({ data }) => {
    last = last
      .then(() => answer(data))
      .catch((error: unknown): Answer => ({ id: data.id, kind: "error", error: (error as Error).message }))
      .then((given) => port.postMessage(given));
  });
}
