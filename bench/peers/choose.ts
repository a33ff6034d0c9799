/** Asks deldot for its adapter. */
import { findAdapter } from "./adapter.js";
import { work } from "./process.js";

await work(findAdapter);
