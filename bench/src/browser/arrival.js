// A tab that has never been here: it takes part in the run of its link, and tells when it had come how far.
import { join } from "/peercompute/index.js";

const told = new URLSearchParams(location.search).get("told");
// Seconds since the navigation began.
const seconds = [];
const mark = () => seconds.push(performance.now() / 1e3);

mark();
const node = await join(location.href);
mark();
const run = await node.run();
mark();
const until = async (is) => {
  for (;;) {
    const status = await run.status();
    if (status.ended) throw new Error(status.error ?? status.ended);
    if (is(status)) return status;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};
const { tick: first, executor } = await until((status) => status.epoch > 0 && status.tilesOwned > 0);
mark();
await until((status) => status.tick > first);
mark();
// The page may connect to nobody but its server; it may go elsewhere.
location.href = `${told}?${[executor, ...seconds].join(",")}`;
