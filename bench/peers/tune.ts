/** Has deldot try on the adapter which of its kernels are the fastest for a case: once, so that every line runs the same. */
import type { Case } from "./networks.js";
import { readJob, work } from "./process.js";
import { tasks } from "./tasks.js";

const job = readJob() as { task: string; case: Case };

const task = tasks.find(({ name }) => name === job.task)!;
await work(() => task.tune!(task.makeProblem(job.case)));
