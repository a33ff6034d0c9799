/** Which rows a shard has: a fixed range of blocks, and a block is the same rows whatever the number of shards. */
import { InputError, quote } from "../../errors.js";

/** Shard `index` of `count`, from 0 on. */
export interface Shard {
  readonly index: number;
  readonly count: number;
}

/** Rows [from, to). */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** More files than that beside one another help nobody. */
export const mostShards = 100_000;

/** Rows of a block at most: what is lost when a process is killed. */
const mostRows = 2 ** 16;
/** Numbers of a block at most, where a row has no more. */
const mostNumbers = 2 ** 20;

/**
 * Rows of a block, a power of 2 that the width of the rows decides.
 * @param numbersPerRow read and written.
 * @param numbersPerBlock that are written once for all rows of a block: sums. They take a quarter of the rest at most, where they can.
 */
export function blockRowsOf(numbersPerRow: number, numbersPerBlock: number): number {
  const fits = mostNumbers / numbersPerRow;
  const wanted = Math.max(fits, (4 * numbersPerBlock) / numbersPerRow, 1);
  return Math.min(mostRows, 2 ** Math.floor(Math.log2(wanted)));
}

/** The rows of a shard: whole blocks but for the last one of all. */
export function rangeOf({ index, count }: Shard, rows: number, blockRows: number): Range {
  const blocks = Math.ceil(rows / blockRows);
  const edge = (shard: number): number => Math.min(rows, Math.floor((blocks * shard) / count) * blockRows);
  return { from: edge(index), to: edge(index + 1) };
}

/** What array jobs tell a task of itself: its number from 0 on, and of how many where they tell it. */
const environments: readonly (readonly [index: string, count: string | null])[] = [
  ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"],
  ["JOB_COMPLETION_INDEX", null], // Kubernetes
  ["AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"],
  ["BATCH_TASK_INDEX", "BATCH_TASK_COUNT"], // Google Cloud Batch
  ["CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"],
  ["PBS_ARRAY_INDEX", null],
];

const variables = environments.map(([index]) => index).join(", ");

/**
 * The shard that `--shard` names: "i/n"; "n", where i is in the environment; or true, where both are.
 * @throws InputError.
 */
export function readShard(text: string | true, environment: Readonly<Record<string, string | undefined>> = process.env): Shard {
  const match = text === true ? [] : /^(?:(\d+)\/)?(\d+)$/.exec(text);
  if (!match)
    throw new InputError(`--shard is ${quote(text)}; expected i/n, shard i of n from 0 on, or n alone where the environment has i`);
  const given = match[2] === undefined ? null : Number(match[2]);
  if (given !== null && !(given >= 1 && given <= mostShards))
    throw new InputError(`--shard ${text}: there are ${given} shards; expected 1 to ${mostShards}`);
  const shard = match[1] === undefined ? fromEnvironment(given, environment) : { index: Number(match[1]), count: given! };
  if (shard.index >= shard.count) {
    const of = shard.count === 1 ? "0, of 1 shard" : `0 to ${shard.count - 1}, of ${shard.count} shards`;
    throw new InputError(`the shard is number ${shard.index}; expected ${of}`);
  }
  return shard;
}

function fromEnvironment(given: number | null, environment: Readonly<Record<string, string | undefined>>): Shard {
  const found = environments.find(([name]) => environment[name] !== undefined);
  if (!found) throw new InputError(`--shard names no shard, and the environment has none of ${variables}; expected --shard i/n`);
  const whole = (name: string): number => {
    const text = environment[name];
    if (text === undefined || !/^\d{1,9}$/.test(text))
      throw new InputError(`${name} is ${text === undefined ? "missing" : quote(text)}; expected a whole number, or --shard i/n`);
    return Number(text);
  };
  const [indexName, countName] = found;
  const index = whole(indexName);
  if (given !== null) return { index, count: given };
  if (countName === null) throw new InputError(`${indexName} is ${index}, but nothing tells of how many; expected --shard n`);
  const count = whole(countName);
  // An array of a few numbers, such as those that are to run again, is not the whole: its count would be of other shards.
  if (indexName.startsWith("SLURM") && (whole("SLURM_ARRAY_TASK_MIN") !== 0 || whole("SLURM_ARRAY_TASK_MAX") !== count - 1))
    throw new InputError(
      `the array has ${count} tasks from ${environment["SLURM_ARRAY_TASK_MIN"]} to ${environment["SLURM_ARRAY_TASK_MAX"]}, which are not all of 0 to n - 1; expected --shard n`,
    );
  return { index, count };
}
