/** The page's end of a training worker. */
import type { Network } from "deldot";
import type { Answer, Request } from "./messages.js";
import type { LiveLoss, LiveOptions, LiveTrainer, Progress } from "./trainer.js";

/** A request without its number. */
type Asked = Request extends infer Each ? (Each extends Request ? Omit<Each, "id"> : never) : never;

/**
 * Trains on the CPU, in a worker of its own.
 * @param points [n, 2]
 * @throws Error with the worker's message, as all methods of the trainer do.
 */
export async function trainInWorker(points: Float32Array, options: LiveOptions = {}): Promise<LiveTrainer> {
  const trainer = new RemoteTrainer(new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }));
  try {
    await trainer.create(points, options);
  } catch (error) {
    trainer.destroy();
    throw error;
  }
  return trainer;
}

class RemoteTrainer implements LiveTrainer {
  loss: LiveLoss = "flow_matching";
  losses: number[] = [];
  private asked = 0;
  /** Why nothing is answered any more. */
  private ended: string | null = null;
  private readonly waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();

  constructor(private readonly worker: Worker) {
    worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.kind === "error") waiting?.reject(new Error(data.error));
      else waiting?.resolve(data);
    });
    worker.addEventListener("error", ({ message }) => this.end(`the training worker failed: ${message}`));
  }

  async create(points: Float32Array, options: LiveOptions): Promise<void> {
    await this.ask({ kind: "create", points, options });
  }

  async run(milliseconds: number): Promise<Progress> {
    const { progress, losses } = (await this.ask({ kind: "run", milliseconds })) as Extract<Answer, { kind: "ran" }>;
    for (const loss of losses) this.losses.push(loss);
    return progress;
  }

  async network(): Promise<Network> {
    return ((await this.ask({ kind: "network" })) as Extract<Answer, { kind: "network" }>).network;
  }

  async setLoss(loss: LiveLoss): Promise<void> {
    await this.ask({ kind: "loss", loss });
    this.loss = loss;
    this.losses = [];
  }

  destroy(): void {
    this.end("the trainer was destroyed; make a new one");
    this.worker.terminate();
  }

  private ask(request: Asked): Promise<Answer> {
    if (this.ended !== null) return Promise.reject(new Error(this.ended));
    const id = ++this.asked;
    return new Promise<Answer>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...request });
    });
  }

  private end(reason: string): void {
    this.ended ??= reason;
    for (const { reject } of this.waiting.values()) reject(new Error(this.ended));
    this.waiting.clear();
  }
}
