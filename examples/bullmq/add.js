/**
 * Adds the shards of one command to the queue, and their merge, which waits for all of them; then waits for that.
 *   node add.js SHARDS eval|logprob|gradient MODEL --points POINTS.npy --out RESULT.npy
 * Exit status: 0 once the result is there, 1 where it will not be. Added again, it does what is still missing.
 */
import { FlowProducer, QueueEvents } from "bullmq";
import { connection, queueName } from "./queue.js";

const [shards, ...command] = process.argv.slice(2);
const out = command[command.indexOf("--out") + 1];
if (!(Number(shards) >= 1) || !command.includes("--out") || out === undefined) {
  console.error("expected node add.js SHARDS eval|logprob|gradient MODEL --points POINTS.npy --out RESULT.npy");
  process.exit(2);
}

const day = 24 * 3600;
const options = {
  attempts: 10,
  backoff: { type: "exponential", delay: 1000, jitter: 0.5 },
  removeOnComplete: { age: day },
  removeOnFail: { age: 7 * day },
};

const events = new QueueEvents(queueName, { connection });
const producer = new FlowProducer({ connection });
try {
  await events.waitUntilReady();
  const { job: merge, children } = await producer.add({
    name: "merge",
    queueName,
    data: { parameters: ["merge", out] },
    opts: options,
    children: Array.from({ length: Number(shards) }, (_, index) => ({
      name: `shard ${index}`,
      queueName,
      data: { parameters: [...command, "--shard", `${index}/${shards}`] },
      opts: { ...options, failParentOnFailure: true },
    })),
  });
  const names = new Map([{ job: merge }, ...children].map(({ job }) => [job.id, job.name]));
  events.on("completed", ({ jobId }) => names.has(jobId) && console.log(`${names.get(jobId)}: done`));
  events.on("failed", ({ jobId, failedReason }) => names.has(jobId) && console.error(`${names.get(jobId)}: ${failedReason}`));
  await merge.waitUntilFinished(events).catch(() => (process.exitCode = 1));
} finally {
  await producer.close();
  await events.close();
}
