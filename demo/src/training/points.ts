/** Points to train on, out of files that are dropped onto the page: read here, sent nowhere. */
import { InputError } from "deldot";
import { readCsv } from "../../../src/node/files/csv.js";
import { readNpy } from "../../../src/node/files/npy.js";

/** Where the stage ends: it shows coordinates from -3 to 3. */
const STAGE = 3;
/** Points that spread less than this, on the average over both coordinates, would be a spot on the stage. */
const LEAST_SPREAD = 0.25;

/**
 * Points [n, 2] of a .npy file (real numbers of any type and order), or of a .csv, .tsv or .txt file (commas, semicolons, tabs or spaces,
 * with a line of names or without one).
 * @throws InputError that begins with the file's name.
 */
export function readPoints(name: string, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const fail = (reason: string): never => {
    throw new InputError(`${name}: ${reason}`);
  };
  const [, extension] = /\.(npy|csv|tsv|txt)$/i.exec(name) ?? fail("it is neither .npy nor .csv; expected one of them, with a point a row");
  const { data, shape } = named(name, () => (extension!.toLowerCase() === "npy" ? readNpy(bytes) : readCsv(textOf(bytes))));
  const [rows, columns] = shape as [number, number];
  if (shape.length !== 2) fail(`its shape is (${shape.join(", ")}); expected (n, 2), a point a row`);
  if (columns !== 2) fail(`it has ${columns} column${columns === 1 ? "" : "s"}; expected 2, since the stage has two dimensions`);
  if (rows === 0) fail("it has no points; expected at least one");
  const points = Float32Array.from(data);
  const bad = points.findIndex((number) => !Number.isFinite(number));
  if (bad >= 0) fail(`point ${Math.floor(bad / 2) + 1} has the coordinate ${data[bad]}; expected finite numbers`);
  return points;
}

/** Points as they are trained on, and where they came from: a point x of the file is (x - centre) / scale here. */
export interface StagedPoints {
  /** [n, 2] */
  readonly points: Float32Array<ArrayBuffer>;
  readonly centre: readonly [number, number];
  readonly scale: number;
}

/**
 * Points [n, 2] for the stage. Flows begin at a standard normal distribution and the score's noise is 0.1, so points should have about
 * that size; those that lie on the stage and are no mere spot on it stay as they are. Others are moved to mean 0 and divided by one number,
 * their standard deviation over both coordinates: shapes stay as they are.
 */
export function standardise(points: Float32Array<ArrayBuffer>): StagedPoints {
  const count = points.length / 2;
  const centre: [number, number] = [0, 0];
  points.forEach((x, i) => (centre[i % 2]! += x / count));
  const spread = Math.sqrt(points.reduce((sum, x, i) => sum + (x - centre[i % 2]!) ** 2, 0) / points.length);
  const isStaged = points.every((x) => Math.abs(x) <= STAGE) && spread >= LEAST_SPREAD;
  if (isStaged) return { points, centre: [0, 0], scale: 1 };
  // Points that are all the same, but for rounding, have no size.
  const largest = points.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const scale = spread > 1e-6 * largest ? spread : 1;
  return { points: points.map((x, i) => (x - centre[i % 2]!) / scale), centre, scale };
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new InputError("it is not text in UTF-8", { cause: error });
  }
}

/** What `read` gives; where it refuses the file, its name stands before the reason. */
function named<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${name}: ${error.message}`, { cause: error });
    throw error;
  }
}
