import { ModelError, quote } from "../../errors.js";

/** A linear layer's name, and its weight's shape. */
export interface Layer {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
}

/** Layers whose names differ in their numbers alone, in the order of those; or one that has none. */
interface Unit {
  readonly stem: string;
  readonly layers: readonly Layer[];
}

const NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
/** Words for the ends of a chain, of which more than one order of shapes may be turned round. */
const FIRST = /(^|[._])(in|input|first|enc|encoder|embed|embedding|start|begin|stem|proj_in|lin_in|fc_in)$/i;
const LAST = /(^|[._])(out|output|last|dec|decoder|head|final|end|readout|velocity|score)$/i;
/** Orders are tried one by one; a file of more parts than this has to say its own. */
const MOST_UNITS = 8;

/**
 * The layers' names in their order: by the numbers in them, else by the only order in which their shapes follow one another and
 * the words for a first or last layer stand at the ends.
 *
 * @throws ModelError where no order or more than one is left.
 */
export function orderOf(layers: readonly Layer[]): string[] {
  const units = unitsOf(layers);
  requireOneSequence(units);
  if (units.length > 1 && hasTwins(units)) refuse(layers, "of one shape, and their names have no numbers");
  if (units.length > MOST_UNITS) refuse(layers, `in ${units.length} parts whose names have no numbers in common`);
  const orders = units.length > 1 ? ordersOf(units) : [units];
  if (layers.length === 0) return [];
  if (orders.length === 0) refuse(layers, "of shapes that follow one another in no order");
  if (orders.length > 1) refuse(layers, "of shapes that follow one another in more than one order");
  return orders[0]!.flatMap((unit) => unit.layers.map(({ name }) => name));
}

function unitsOf(layers: readonly Layer[]): Unit[] {
  const stems = new Set(layers.map(({ name }) => name));
  const units = new Map<string, { layer: Layer; key: string }[]>();
  for (const layer of layers) {
    const words = layer.name.replaceAll(
      /(^|[._])(zero|one|two|three|four|five|six|seven|eight|nine|ten)(?=[._]|$)/g,
      (_, dot: string, word: string) => `${dot}${NUMBERS.indexOf(word)}`,
    );
    // dense, dense_1, dense_2: the first has no number.
    const key = !/\d/.test(words) && stems.has(`${layer.name}_1`) ? `${words}_0` : words;
    const stem = key.replaceAll(/\d+/g, "N");
    units.set(stem, [...(units.get(stem) ?? []), { layer, key }]);
  }
  const { compare } = new Intl.Collator("en", { numeric: true });
  return Array.from(units, ([stem, members]) => ({
    stem,
    layers: members.sort((a, b) => compare(a.key, b.key)).map(({ layer }) => layer),
  }));
}

/**
 * Two numbered sequences, such as a network beside its moving average, could chain by their shapes alone and give a field
 * that nobody trained.
 */
function requireOneSequence(units: readonly Unit[]): void {
  const sequences = units.filter(({ layers }) => layers.length > 1);
  if (sequences.length < 2) return;
  const names = sequences.slice(0, 4).map(({ layers }) => quote(`${layers[0]!.name}.weight`));
  const prefixes = sequences.map(({ stem }) => quote(stem.slice(0, stem.indexOf("N"))));
  throw new ModelError(
    `safetensors: tensors ${names.join(" and ")} begin ${sequences.length === 2 ? "two" : sequences.length} sequences of layers; expected one, or which one in options.prefix: ${prefixes.slice(0, 8).join(", ")}`,
  );
}

/** Two layers without a number between them that could change places. */
function hasTwins(units: readonly Unit[]): boolean {
  const shapes = units.filter(({ layers }) => layers.length === 1).map(({ layers: [layer] }) => `${layer!.rows} x ${layer!.columns}`);
  return new Set(shapes).size < shapes.length;
}

/** Orders in which each unit takes what the one before it gives; of several those that begin and end with the words for it. */
function ordersOf(units: readonly Unit[]): Unit[][] {
  const found: Unit[][] = [];
  const extend = (order: readonly Unit[]): void => {
    if (order.length === units.length) return void found.push([...order]);
    const gives = order.at(-1)?.layers.at(-1)!.rows;
    for (const unit of units)
      if (!order.includes(unit) && (gives === undefined || unit.layers[0]!.columns === gives)) extend([...order, unit]);
  };
  extend([]);
  // A field gives no more than it takes.
  const fields = found.filter((order) => order.at(-1)!.layers.at(-1)!.rows <= order[0]!.layers[0]!.columns);
  if (fields.length < 2) return fields;
  return fields.filter((order) =>
    order.every(({ stem }, at) => (!FIRST.test(stem) || at === 0) && (!LAST.test(stem) || at === order.length - 1)),
  );
}

function refuse(layers: readonly Layer[], why: string): never {
  const list = layers
    .slice(0, 16)
    .map(({ name, rows, columns }) => `${quote(name)} [${rows}, ${columns}]`)
    .join(", ");
  throw new ModelError(
    `safetensors: the layers ${list}${layers.length > 16 ? ", ..." : ""} are ${why}; expected their names in order in options.layers`,
  );
}
