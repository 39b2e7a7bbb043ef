// A worker for Node 18 and newer that counts words:
//
//     FORMICARY_WORKERS_TOKEN=secret node count-words.mjs ws://127.0.0.1:7788/v1/workers [TAG ...]
//
// The token is that of the ant, where it has one. SIGTERM and SIGINT finish what runs; a second one ends it.

import { NodeSocket } from "./node-socket.mjs";
import { methods } from "./methods.mjs";
import { Worker } from "./worker.mjs";

const [url, ...tags] = process.argv.slice(2);
if (!url) {
  console.error("usage: node count-words.mjs URL [TAG ...]");
  process.exit(2);
}
const worker = new Worker({
  url,
  methods,
  name: "node",
  token: process.env.FORMICARY_WORKERS_TOKEN ?? null,
  tags: ["javascript", ...tags],
  slots: 4,
  WebSocket: NodeSocket, // Node 22 has one of its own
});
for (const name of ["SIGTERM", "SIGINT"]) process.once(name, () => worker.drain());
worker.run().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
