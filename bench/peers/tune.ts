/** Has deldot try on the adapter which of its kernels are the fastest for a case: once, so that every line runs the same. */
import { tuneDeldot } from "./deldot.js";
import { divergenceCases, makeProblem } from "./networks.js";
import { readJob, work } from "./process.js";

const job = readJob() as { case: string };

await work(() => tuneDeldot(makeProblem(divergenceCases.find(({ name }) => name === job.case)!)));
