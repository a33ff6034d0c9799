import { begin } from "./begin.js";
import { train } from "./train.js";

const { device } = await begin();
console.log(JSON.stringify({ train: await train(device) }));
