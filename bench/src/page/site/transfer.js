// What goes up to the root and comes down from it, over the page's own connection.
//
// Up and down are each other's twins. What peers' links carry beside a bare WebSocket is `peercompute bench --only wire`.
import { fromRounds } from "./figures.js";

// Requests of a round, at most; few where a link is slow.
const REQUESTS_MAX = 8;

async function down(bytes) {
  const answer = await fetch("/bench/bytes", { cache: "no-store" });
  const content = await answer.arrayBuffer();
  if (!answer.ok || content.byteLength !== bytes) throw new Error(`the server gives no bytes (${answer.status})`);
  return content;
}

async function up(content) {
  const answer = await fetch("/bench/bytes", { method: "POST", body: content });
  if (!answer.ok) throw new Error(`the server takes no bytes (${answer.status})`);
}

async function seconds(requests, work) {
  const begun = performance.now();
  for (let request = 0; request < requests; request++) await work();
  return Math.max((performance.now() - begun) / 1e3, 1e-6);
}

export async function transfer({ about, effort }) {
  const bytes = about.transfer_bytes;
  const content = await down(bytes);
  const each = (await seconds(1, () => up(content))) + (await seconds(1, () => down(bytes)));
  const repeats = Math.min(Math.max(Math.ceil((2 * effort.round_seconds) / each), 1), REQUESTS_MAX);
  const times = [];
  for (let round = 0; round < effort.rounds; round++) {
    times.push([await seconds(repeats, () => up(content)), await seconds(repeats, () => down(bytes))]);
  }
  const parts = { case: `to the root, ${bytes >> 20} MiB a request`, kind: "context", unit: "MB/s", twin: "from the root, the same way" };
  return [fromRounds({ repeats, seconds: times }, (each) => bytes / 1e6 / each, parts)];
}
