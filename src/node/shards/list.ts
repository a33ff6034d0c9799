import { InputError } from "../../errors.js";
import { findFault, findShardsOfOne, manifestPath, readManifest, stemOf } from "./manifest.js";
import { readJournal } from "./run.js";

/** What is there of one shard. */
export interface ShardState {
  readonly shard: number;
  /** "whole" and as it was written; "begun", some of its rows being there; "broken", see the fault; or "missing". */
  readonly state: "whole" | "begun" | "broken" | "missing";
  /** Rows that are there. */
  readonly rows: number;
  readonly adapters: readonly string[];
  readonly milliseconds: number | null;
  readonly fault: string | null;
}

/** The shards beside a result, every file of them read. @throws InputError where there are none, or those of several numbers. */
export async function listShards(out: string): Promise<{ count: number; shards: ShardState[] }> {
  const { count, present } = await findShardsOfOne(out);
  const shards: ShardState[] = [];
  for (let index = 0; index < count; index++) {
    const { whole = false, journals = [] } = present.get(index) ?? {};
    shards.push(await stateOf(out, index, count, whole, journals));
  }
  return { count, shards };
}

async function stateOf(out: string, index: number, count: number, whole: boolean, journals: readonly string[]): Promise<ShardState> {
  const none = { shard: index, rows: 0, adapters: [], milliseconds: null, fault: null };
  if (whole) {
    const stem = stemOf(out, { index, count });
    try {
      const manifest = await readManifest(manifestPath(stem));
      const fault = await findFault(stem, manifest);
      if (fault !== null) return { ...none, state: "broken", fault };
      return {
        ...none,
        state: "whole",
        rows: manifest.to - manifest.from,
        adapters: manifest.adapters,
        milliseconds: manifest.milliseconds,
      };
    } catch (error) {
      if (error instanceof InputError) return { ...none, state: "broken", fault: error.message };
      throw error;
    }
  }
  const rows = await Promise.all(
    journals.map(async (path) => (await readJournal(path)).blocks.reduce((sum, { count: own }) => sum + own, 0)),
  );
  return rows.length === 0 ? { ...none, state: "missing" } : { ...none, state: "begun", rows: Math.max(...rows) };
}
