import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";

const program = ["redis-server", "valkey-server"].find((name) => spawnSync(name, ["--version"]).status === 0);

/** What is missing for a server, and how it is had; null where one is installed. */
export const missing = program
  ? null
  : 'examples/bullmq is not tested: neither redis-server nor valkey-server is here; "apt-get install redis-server" or "brew install redis" brings one';

/** Starts one on a free port, which keeps nothing on disk. */
export async function startServer(folder: string): Promise<{ url: string; stop: () => Promise<void> }> {
  const port = await freePort();
  const server = spawn(program!, ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(server, "close");
  await new Promise<void>((ready, fail) => {
    let log = "";
    server.stdout.on("data", (text) => {
      log += text;
      if (log.includes("Ready to accept connections")) ready();
    });
    server.on("close", () => fail(new Error(`${program!} ended:\n${log}`)));
  });
  return {
    url: `redis://127.0.0.1:${port}`,
    stop: async () => {
      server.kill();
      await closed;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
