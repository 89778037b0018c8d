// What a program in TypeScript may and may not write; checked with `tsc --strict`, and never run.
import { join, PeerComputeError, type Status, type World } from "peercompute";
import init, { Executor } from "peercompute/core";

const node = await join("https://example.com/#pc1", { executor: "auto", threads: 2, identity: "new" });
const run = await node.run("heat", { tiles: "auto" });
const off: () => void = run.onTick((tick: number) => console.log(tick));
const field: Float32Array = await run.read("temperature", { tile: 3 });
const words = await run.read<Uint32Array>("opinion", { tile: 3 });
const status: Status = await run.status();
const world: World = await run.world();
const { pixels, width, height } = await run.frame("temperature");
new ImageData(pixels, width, height);
await run.set("rate", 0.2);
await run.set("drift", [0, 1]);
await run.pause();
await run.resume();
const ended = await run.ended;
if (ended.state === "failed") console.log(ended.code);
else if (ended.state === "finished") console.log(ended.stateHash);
try {
  await node.leave();
} catch (error) {
  if (error instanceof PeerComputeError && error.code === "key") off();
}
console.log(field, words, status.isPaused, status.roundTripMs + status.bytesIn + status.bytesOut, status.identity === "kept", world.members?.length);

// @ts-expect-error: tiles are "auto" or "none"
await node.run("heat", { tiles: "some" });
// @ts-expect-error: "kept" or "new"
await join("https://example.com/#pc1", { identity: "old" });
// @ts-expect-error: of which tile?
await run.read("temperature");
// @ts-expect-error: no such code
if (new PeerComputeError("", "nonsense").code === "key") off();

await init();
const executor = await Executor.open("auto");
const workload = await executor.load(new Uint8Array(), "key");
await workload.advance(100);
console.log(executor.adapter.length, await workload.stateHash());
