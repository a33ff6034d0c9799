/** Has deldot try on the adapter which of its kernels are the fastest for a case: once, so that every line runs the same. */
import { tuneDeldot } from "./deldot.js";
import { cases, makeProblem } from "./networks.js";
import { readJob, work } from "./process.js";

const job = readJob() as { case: string };

await work(() => tuneDeldot(makeProblem(cases.find(({ name }) => name === job.case)!)));
