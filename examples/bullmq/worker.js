/** Takes shards and merges out of the queue, one at a time, until SIGTERM or SIGINT. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { UnrecoverableError, WaitingError, Worker } from "bullmq";
import { connection, patience, queueName } from "./queue.js";

/** The command's script: this repository's, or what DELDOT names, such as node_modules/deldot/dist/cli.js. */
const deldot = process.env["DELDOT"] ?? fileURLToPath(new URL("../../dist/cli.js", import.meta.url));

/**
 * The command computes in a process of its own: this one has only to renew the job's lock, and is always in time.
 * @param {AbortSignal} signal tells the command to stop.
 */
async function work(job, token, signal) {
  console.log(`${job.name}: started`);
  // By the channel it does not outlive this process, whatever ends that.
  const child = spawn(process.execPath, [deldot, ...job.data.parameters], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
  const stop = () => child.kill("SIGTERM");
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop);
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-2000)));
  const [status, by] = await once(child, "close");
  if (status === 0) return;
  if (signal.aborted) {
    // Back to the others, and it has not cost one of its attempts.
    await job.moveToWait(token);
    throw new WaitingError();
  }
  const reason = `${said.trim()} (${by ?? `status ${status}`})`;
  // 42 is what no retry mends: the model, the points, the options.
  throw status === 42 ? new UnrecoverableError(reason) : new Error(reason);
}

const worker = new Worker(queueName, work, {
  connection,
  lockDuration: patience,
  stalledInterval: patience,
  // How many workers may be lost over one job.
  maxStalledCount: 10,
});
worker.on("error", (error) => console.error(error.message));
worker.on("failed", (job, error) => console.error(`${job?.name}: ${error.message}`));
// Another worker has the job then.
worker.on("lockRenewalFailed", (ids) => ids.forEach((id) => worker.cancelJob(id)));

async function close() {
  const closed = worker.close();
  worker.cancelAllJobs();
  await closed;
}
process.once("SIGTERM", () => void close());
process.once("SIGINT", () => void close());
