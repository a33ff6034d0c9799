import { begin } from "./begin.js";
import { write } from "./write.js";

const { file } = await begin();
console.log(JSON.stringify({ write: write(file) }));
