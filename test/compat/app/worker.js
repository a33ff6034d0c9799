import { begin } from "./begin.js";
import { evaluate } from "./evaluate.js";

const { device, file, points } = await begin();
postMessage(await evaluate(device, file, points));
