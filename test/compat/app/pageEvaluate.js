import { begin } from "./begin.js";
import { evaluate } from "./evaluate.js";

const { device, file, points } = await begin();
console.log(JSON.stringify({ evaluate: await evaluate(device, file, points) }));
