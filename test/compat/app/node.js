// In Node: every entry of the package.
import { readFile } from "node:fs/promises";
import { requestDevice } from "deldot/node";
import { evaluate } from "./evaluate.js";
import { train } from "./train.js";
import { write } from "./write.js";

const file = await readFile("model.safetensors");
const points = JSON.parse(await readFile("points.json", "utf8"));
const { device, dispose } = await requestDevice();
const results = { evaluate: await evaluate(device, file, points), train: await train(device), write: write(file) };
await dispose();
console.log(JSON.stringify({ version: process.versions.node, ...results }));
