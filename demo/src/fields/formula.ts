/** A vector field typed as text, as a network of deldot's own operations; nothing of it is run as JavaScript. */
import type { Network } from "deldot";
import jsep from "jsep";
import { add, constant, Expressions, FormulaError, scale, type Expression } from "./expressions.js";

export { FormulaError };

const MOST_CHARACTERS = 10_000;
const MOST_COMPONENTS = 8;
/** Brackets and signs within one another: far below what a call stack takes. */
const MOST_NESTED = 100;

/** Functions, and of how many numbers; deldot has activations under the same names, but for the last four. */
const functions: ReadonlyMap<string, number> = new Map([
  ..."sin cos tan asin atan sinh cosh tanh asinh acosh atanh exp log sqrt abs erf sigmoid softplus relu gelu silu ln"
    .split(" ")
    .map((name) => [name, 1] as const),
  ["pow", 2],
  ["max", 2],
  ["min", 2],
]);
const constants: ReadonlyMap<string, number> = new Map([
  ["pi", Math.PI],
  ["π", Math.PI],
  ["e", Math.E],
]);

/** What jsep makes of a text; `index` and what follows it are there where it is an operand. */
type Node = jsep.Expression & { index?: number; end?: number; isGroup?: boolean };

for (const power of ["^", "**"]) jsep.addBinaryOp(power, 11, true);
jsep.removeAllLiterals();
let nested = 0;
let isWithin = false;
// jsep knows neither where its nodes stand nor which had brackets, in which -x^2 and (-x)^2 differ.
jsep.hooks.add("gobble-token", function (env) {
  // The call below comes here again, and goes on to jsep's own.
  if (isWithin) {
    isWithin = false;
    return;
  }
  if (++nested > MOST_NESTED) throw new FormulaError("the formula is nested too deeply", this.index);
  isWithin = true;
  const { index } = this;
  const node: Node | undefined = this.gobbleToken();
  nested--;
  if (!node) return;
  const isGroup = this.expr[index] === "(";
  env.node = Object.assign(node, node.index === undefined ? { index, end: this.index, isGroup } : { isGroup });
});

/**
 * The field of a formula such as `y, (1 - x*x)*y - x`: one component for each of its 1 to 8 variables, between commas, semicolons or
 * new lines, with or without brackets around. Variables are x, y, z, w or x0, x1, ...; t is the time, and makes a context of 1.
 * There are pi and e, + - * / ^ (or **), and functions. Where one component is undefined, all of them are.
 *
 * @throws FormulaError where it is none.
 */
export function parseFormula(text: string): Network {
  if (text.length > MOST_CHARACTERS)
    throw new FormulaError(`the formula has ${text.length} characters; at most ${MOST_CHARACTERS} are taken`, MOST_CHARACTERS);
  // As they come out of other documents.
  const plain = text
    .replaceAll(/[−–]/g, "-")
    .replaceAll(/[×·]/g, "*")
    .replaceAll(/[^\S\n]/g, " ");
  const strange = /[^\p{L}\d₀-₉.,;+*/^()[\] \n-]/u.exec(plain);
  if (strange) throw new FormulaError(`"${strange[0]}" has no meaning here`, strange.index);
  const components = componentsOf(plain);
  const reader = new Reader(plain, components.length);
  return reader.expressions.network(components.map(([from, to]) => reader.read(parseComponent(plain, from, to))));
}

/** From where to where each component is. */
function componentsOf(text: string): [from: number, to: number][] {
  const closing = new Map<number, number>();
  const open: number[] = [];
  for (let index = 0; index < text.length; index++) {
    const character = text[index]!;
    if ("([".includes(character)) open.push(index);
    if (!")]".includes(character)) continue;
    const opening = open.pop();
    if (opening === undefined || "([".indexOf(text[opening]!) !== ")]".indexOf(character))
      throw new FormulaError(`"${character}" closes no bracket`, index);
    if (text.slice(opening + 1, index).trim() === "") throw new FormulaError("there is nothing in these brackets", opening);
    closing.set(opening, index);
  }
  if (open.length > 0) throw new FormulaError(`"${text[open.at(-1)!]}" is never closed`, open.at(-1)!);

  let from = text.search(/\S|$/);
  let to = text.trimEnd().length;
  while (closing.get(from) === to - 1) {
    from += 1 + text.slice(from + 1).search(/\S/);
    to = text.slice(0, to - 1).trimEnd().length;
  }
  if (from >= to) throw new FormulaError("write one component for each variable, as in y, -x", 0);

  const components: [number, number][] = [];
  for (let index = from, start = from; index <= to; index++) {
    index = closing.get(index) ?? index;
    if (index < to && !",;\n".includes(text[index]!)) continue;
    const isBlank = text.slice(start, index).trim() === "";
    // New lines beside commas, and more than one, separate no more than one does.
    if (isBlank && text[index] !== "\n" && text[start - 1] !== "\n") throw new FormulaError("a component is missing", index);
    if (!isBlank) components.push([start, index]);
    start = index + 1;
  }
  if (components.length > MOST_COMPONENTS)
    throw new FormulaError(
      `there are ${components.length} components; at most ${MOST_COMPONENTS} are taken`,
      components[MOST_COMPONENTS]![0],
    );
  return components;
}

function parseComponent(text: string, from: number, to: number): Node {
  nested = 0;
  try {
    // Blanks in front keep every index that of the whole text.
    return jsep(text.slice(from, to).padStart(to));
  } catch (error) {
    if (!(error instanceof Error && "description" in error && "index" in error)) throw error;
    const index = Number(error.index);
    if (String(error.description).startsWith("Variable names")) throw missingOperation(text, index);
    if (index < to) throw new FormulaError(`something is missing before "${text[index]}"`, index);
    throw new FormulaError(`something is missing after "${text.slice(from, to).trimEnd().at(-1)}"`, to);
  }
}

function missingOperation(text: string, index: number): FormulaError {
  const [word] = /^[\p{L}\d₀-₉.]*/u.exec(text.slice(index))!;
  return new FormulaError(
    `an operation is missing before "${word || text[index]}"; write * for a product and brackets after a function, as in 2*x and sin(x)`,
    index,
  );
}

/** Where an expression begins. */
function startOf(node: Node): number {
  let first = node;
  while (first.index === undefined) first = first["left"] as Node;
  return first.index;
}

function isPower({ type, operator }: Node): boolean {
  return type === "BinaryExpression" && (operator === "^" || operator === "**");
}

/** The number of x, y, z, w or x0, x1, ...; -1 where it is none of them. */
function variableOf(name: string): number {
  // The last four bits of a digit, and of a subscript digit, are its number.
  if (/^x[\d₀-₉]$/.test(name)) return name.charCodeAt(1) % 16;
  return name.length === 1 ? "xyzw".indexOf(name) : -1;
}

class Reader {
  readonly expressions: Expressions;
  private nested = 0;

  constructor(
    private readonly text: string,
    private readonly stateSize: number,
  ) {
    this.expressions = new Expressions(stateSize);
  }

  read(node: Node): Expression {
    if (++this.nested > 4 * MOST_NESTED) throw new FormulaError("the formula is nested too deeply", startOf(node));
    // A long sum is deep on its left alone.
    const rest: Node[] = [];
    let first = node;
    for (; first.type === "BinaryExpression" && !isPower(first); first = first["left"] as Node) rest.push(first);
    let value = this.readOperand(first);
    for (const each of rest.toReversed()) {
      const right = each["right"] as Node;
      const other = this.read(right);
      this.expressions.at = startOf(right);
      if (each["operator"] === "+") value = add(value, other);
      else if (each["operator"] === "-") value = add(value, other, -1);
      else value = each["operator"] === "*" ? this.expressions.product(value, other) : this.expressions.quotient(value, other);
    }
    const large = [value.constant, ...value.factors.values()].find((number) => !Number.isFinite(Math.fround(number)));
    if (large !== undefined) throw new FormulaError(`this comes to ${large}; numbers go up to 3.4e38`, startOf(node));
    this.nested--;
    return value;
  }

  private readOperand(node: Node): Expression {
    switch (node.type) {
      case "Literal":
        return constant(node["value"] as number);
      case "Identifier":
        return this.readName(node["name"] as string, node.index!);
      case "UnaryExpression":
        return scale(this.read(node["argument"] as Node), node["operator"] === "-" ? -1 : 1);
      case "BinaryExpression": {
        // jsep takes -x^2 for (-x)^2.
        let base = node["left"] as Node;
        let sign = 1;
        for (; base.type === "UnaryExpression" && !base.isGroup; base = base["argument"] as Node)
          if (base["operator"] === "-") sign = -sign;
        const exponent = node["right"] as Node;
        const [a, b] = [this.read(base), this.read(exponent)];
        this.expressions.at = startOf(exponent);
        return scale(this.expressions.power(a, b), sign);
      }
      case "CallExpression":
        return this.readCall(node, node["callee"] as Node, node["arguments"] as Node[]);
      case "Compound":
      case "SequenceExpression":
        throw missingOperation(this.text, startOf(((node["body"] ?? node["expressions"]) as Node[])[1]!));
      default:
        throw new FormulaError(`"${this.text.slice(node.index, node.end).trim()}" is no part of a formula`, node.index!);
    }
  }

  private readName(name: string, index: number): Expression {
    const { stateSize: d, expressions } = this;
    const value = constants.get(name);
    if (value !== undefined) return constant(value);
    if (name === "t") return expressions.time();
    if (functions.has(name)) throw new FormulaError(`"${name}" is a function; write ${name}(x)`, index);
    const variable = variableOf(name);
    const coordinate = expressions.coordinates[variable];
    if (coordinate) return coordinate;
    const known = d > 4 ? `x0 to x${d - 1}` : Array.from("xyzw".slice(0, d)).join(", ");
    throw new FormulaError(
      variable < 0
        ? `"${name}" is no variable; there are ${known}, the time t, and the numbers pi and e`
        : `"${name}" needs ${variable + 1} components or more, one for each variable; there ${d === 1 ? "is 1" : `are ${d}`}`,
      index,
    );
  }

  private readCall(node: Node, callee: Node, given: readonly Node[]): Expression {
    const { text, expressions } = this;
    // What stood in brackets is a factor, whatever its name.
    const name = callee.type === "Identifier" && callee.index === undefined ? (callee["name"] as string) : "";
    if (name === "" || name === "t" || constants.has(name) || variableOf(name) >= 0)
      throw missingOperation(text, text.lastIndexOf("(", startOf(given[0]!) - 1));
    const count = functions.get(name);
    if (count === undefined) throw new FormulaError(`"${name}" is no function; there are ${[...functions.keys()].join(", ")}`, node.index!);
    const takesMore = name === "max" || name === "min";
    if (given.length < count || (given.length > count && !takesMore))
      throw new FormulaError(
        `${name} takes ${takesMore ? "at least " : ""}${count} number${count === 1 ? "" : "s"}, not ${given.length}`,
        node.index!,
      );
    const values = given.map((each) => this.read(each));
    expressions.at = node.index!;
    if (name === "pow") return expressions.power(values[0]!, values[1]!);
    if (!takesMore) return expressions.apply(name === "ln" ? "log" : name, values[0]!);
    const sign = name === "max" ? 1 : -1;
    const largest = values.map((value) => scale(value, sign)).reduce((a, b) => expressions.larger(a, b));
    return scale(largest, sign);
  }
}
