/** A small trained field as text: what a link carries behind its #, so that nothing is stored anywhere. */
import { activationNames, mlp, ModelError, type Network } from "deldot";
import { textOf } from "../../../src/model/activation.js";
import { float16, halves } from "../../../src/model/float16.js";

/** The version of the format. */
const VERSION = "a";
/** Of a point, the stage's. */
const STATE = 2;
const MOST_WIDTH = 128;
/** Version, activation, how many contexts (none, or time), widths of one to three hidden layers, and the numbers. */
const PATTERN = /^a\.([a-z0-9_]{1,16})\.([01])\.([1-9]\d{0,2}(?:-[1-9]\d{0,2}){0,2})\.([\w-]*)$/;

/**
 * "a.gelu_tanh.1.64-64." and the weights and biases, layer by layer in float16, as base64url: letters, digits, "-", "_" and "." alone, so
 * that no link changes them. 12 143 characters for 2 + 1 inputs and 64-64, 11 972 without time.
 * @throws ModelError for any but a chain of such sizes, R^2 (and time) to R^2, with one activation after each hidden layer and none at the
 * end; LimitError where a weight is beyond float16.
 */
export function toFragment(network: Network): string {
  const { contextSize } = network;
  const { widths, activation, numbers } = chainOf(network);
  const bits = halves(numbers, "the network");
  const bytes = new Uint8Array(2 * bits.length);
  const view = new DataView(bytes.buffer);
  bits.forEach((half, i) => view.setUint16(2 * i, half, true));
  const text = `${VERSION}.${activation}.${contextSize}.${widths.join("-")}.${toBase64(bytes)}`;
  // What no one could read back is not written.
  fromFragment(text);
  return text;
}

/**
 * The network that {@link toFragment} wrote. The text is not trusted: sizes are bounded before anything is made.
 * @throws ModelError for any other text.
 */
export function fromFragment(text: string): Network {
  const match = PATTERN.exec(text);
  if (!match)
    fail(`it begins with ${JSON.stringify(text.slice(0, 24))}; expected "${VERSION}.", an activation, 0 or 1, widths and weights`);
  const [, activation, context, listed, data] = match as unknown as [string, string, string, string, string];
  if (!activationNames.includes(activation)) fail(`its activation is ${JSON.stringify(activation)}; expected one that this page knows`);
  const hidden = listed.split("-").map(Number);
  if (hidden.some((width) => width > MOST_WIDTH)) fail(`its widths are ${listed}; expected at most ${MOST_WIDTH}`);
  const widths = [STATE + Number(context), ...hidden, STATE];
  const shapes = widths.slice(1).map((outputs, layer) => [outputs, widths[layer]!] as const);
  const size = shapes.reduce((sum, [outputs, inputs]) => sum + outputs * (inputs + 1), 0);
  const expected = Math.ceil((16 * size) / 6);
  if (data.length !== expected) fail(`its weights take ${data.length} characters; expected ${expected} for the widths ${listed}`);
  const bytes = fromBase64(data);
  // Of the last character some bits are spare: one network has one text.
  if (toBase64(bytes) !== data) fail("its last character has bits that belong to no weight");
  const view = new DataView(bytes.buffer);
  const numbers = Float32Array.from({ length: size }, (_, i) => float16(view.getUint16(2 * i, true)));
  let place = 0;
  const take = (count: number): Float32Array => numbers.subarray(place, (place += count));
  const layers = shapes.map(([outputs, inputs]) => ({
    weight: { data: take(outputs * inputs), shape: [outputs, inputs] },
    bias: take(outputs),
  }));
  // It refuses numbers that are not finite.
  return mlp({ layers, activation });
}

/** A network's hidden widths, its activation, and its numbers layer by layer: weights [outputs, inputs], time in the last column, then biases. */
function chainOf({ stateSize, contextSize, operations }: Network): { widths: number[]; activation: string; numbers: Float32Array } {
  const refuse = (): never =>
    fail("it is no chain of linear layers from two coordinates, and time, to two, with one activation after each but the last");
  if (stateSize !== STATE || contextSize > 1) refuse();
  const names = new Set<string>();
  const widths: number[] = [];
  const numbers: number[] = [];
  for (const [index, operation] of operations.entries()) {
    if (operation.kind === "activation" && index % 2 === 1 && operation.operand === index - 1) {
      names.add(textOf(operation.activation));
      continue;
    }
    if (operation.kind !== "linear" || index % 2 === 1 || !operation.bias) return refuse();
    const operands = index > 0 ? [index - 1] : contextSize > 0 ? (["state", "context"] as const) : (["state"] as const);
    const parts = operands.map((operand) => operation.terms.find((term) => term.operand === operand)?.weight);
    if (operation.terms.length !== operands.length) refuse();
    const rows = operation.bias.length;
    for (let row = 0; row < rows; row++)
      for (const part of parts) {
        if (!part || !("columns" in part)) return refuse();
        numbers.push(...part.data.subarray(row * part.columns, (row + 1) * part.columns));
      }
    numbers.push(...operation.bias);
    widths.push(rows);
  }
  // The last operation is a layer of its own.
  widths.pop();
  const [activation] = names;
  if (operations.length % 2 === 0 || names.size !== 1) return refuse();
  return { widths, activation: activation!, numbers: Float32Array.from(numbers) };
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** @param data of such characters alone, and as many as whole bytes take. */
function fromBase64(data: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(data.replaceAll("-", "+").replaceAll("_", "/")), (byte) => byte.charCodeAt(0));
}

function fail(reason: string): never {
  throw new ModelError(`the link's network: ${reason}`);
}
