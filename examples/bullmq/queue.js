/** What all who speak to the queue agree on. */

export const queueName = "deldot";

/** Redis or Valkey, whose maxmemory-policy must be noeviction, as it is by default. */
export const connection = { url: process.env["REDIS_URL"] ?? "redis://127.0.0.1:6379" };

/** Milliseconds that a worker may be silent before its job is another's. */
export const patience = Number(process.env["PATIENCE_MS"] ?? 30_000);
