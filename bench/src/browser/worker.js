// Asks the server for one job after another, and tells what came of each.
//
// A job names a signed bundle and the executors to run it on. All of them compute the same ticks first and tell the hash
// of their state, hand out buffers, and tell how far an output of theirs is from the first one's; then, if times are wanted, each takes a turn
// in every round.
import init, { Executor, Wire } from "/package/peercompute.js";

const executors = new Map();

async function open({ executor, threads, page_bytes_max, are_borders_apart }, timeLimit) {
  const wanted = [executor, timeLimit, threads, page_bytes_max, are_borders_apart].map((option) => option ?? undefined);
  const key = JSON.stringify(wanted);
  if (!executors.has(key)) executors.set(key, await Executor.open(...wanted));
  return executors.get(key);
}

async function timed(workload, ticks) {
  const begun = performance.now();
  await workload.advance(ticks);
  return (performance.now() - begun) / 1e3;
}

function apart(a, b) {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let at = 0; at < a.length; at++) {
    const by = Math.abs(a[at] - b[at]) / Math.max(1, Math.abs(a[at]));
    // Not a number is as far as can be.
    if (!(by <= most)) most = Number.isNaN(by) ? Infinity : by;
  }
  return most;
}

async function side(wanted, bundle, job) {
  const executor = await open(wanted, job.time_limit_seconds);
  const begun = performance.now();
  const workload = await executor.load(bundle, job.key, job.peers ?? undefined);
  const loaded = (performance.now() - begun) / 1e3;
  await workload.advance(job.ticks);
  const hash = await workload.stateHash();
  return { workload, result: { executor: executor.executor, adapter: executor.adapter, backend: executor.backend, loaded, hash, apart: 0, repeats: 0, seconds: [] } };
}

async function run(job) {
  const bundle = new Uint8Array(await (await fetch("/bundle")).arrayBuffer());
  const sides = [];
  try {
    for (const wanted of job.sides) sides.push(await side(wanted, bundle, job));
    for (const [number, { workload }] of sides.entries()) {
      for (const [buffer, name] of job.buffers.entries()) {
        await fetch(`/buffers/${number}/${buffer}`, { method: "POST", body: await workload.read(name) });
      }
    }
    if (job.output) {
      const outputs = [];
      for (const { workload } of sides) outputs.push(new Float32Array((await workload.read(job.output)).buffer));
      // Infinity has no JSON.
      sides.forEach(({ result }, at) => (result.apart = Math.min(apart(outputs[0], outputs[at]), Number.MAX_VALUE)));
    }
    if (job.rounds > 0) {
      for (const { workload, result } of sides) {
        await timed(workload, 1);
        const once = await timed(workload, 1);
        result.repeats = Math.max(1, Math.ceil(job.round_seconds / once));
      }
    }
    for (let round = 0; round < job.rounds; round++) {
      const turns = round % 2 === 0 ? sides : sides.toReversed();
      for (const { workload, result } of turns) result.seconds.push(await timed(workload, result.repeats));
    }
    return sides.map((side) => side.result);
  } finally {
    sides.forEach((side) => side.workload.free());
  }
}

// A bare WebSocket that speaks to the same answering side.
class Bare {
  static async dial(url) {
    const begun = performance.now();
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error(`${url} is not reached`));
    });
    const bare = new Bare();
    bare.socket = socket;
    bare.connected = (performance.now() - begun) / 1e3;
    return bare;
  }

  heard(count) {
    return new Promise((resolve) => {
      this.socket.onmessage = () => --count === 0 && resolve();
    });
  }

  async timed(count, send) {
    const begun = performance.now();
    const heard = this.heard(count);
    send();
    await heard;
    return (performance.now() - begun) / 1e3;
  }

  up(size, count) {
    const content = new Uint8Array(size);
    return this.timed(1, () => {
      for (let sent = 0; sent < count; sent++) this.socket.send(content);
      this.socket.send(new Uint8Array([1]));
    });
  }

  down(size, count) {
    const order = new DataView(new ArrayBuffer(9));
    order.setUint8(0, 2);
    order.setUint32(1, size, true);
    order.setUint32(5, count, true);
    return this.timed(count, () => this.socket.send(order.buffer));
  }

  roundTrip(size) {
    const content = new Uint8Array(size);
    content[0] = 1;
    return this.timed(1, () => this.socket.send(content));
  }
}

// What links carry, and the transport's stream alone, and a bare WebSocket, in turn.
async function measure({ address, stream, bare, size, count, rounds, trips }) {
  const measured = { up: [], down: [], trips: [], connected: [] };
  const dial = async () => [await Wire.dial(address), await Wire.dialStream(stream), await Bare.dial(bare)];
  const sides = await dial();
  const inTurn = async (round, of) => {
    const seconds = [];
    const turns = sides.keys().toArray();
    for (const at of round % 2 === 0 ? turns : turns.reverse()) seconds[at] = await of(sides[at]);
    return seconds;
  };
  for (const side of sides) for (const way of ["up", "down"]) await side[way](size, 1);
  for (let round = 0; round < rounds; round++) {
    for (const way of ["up", "down"]) measured[way].push(await inTurn(round, (side) => side[way](size, count)));
  }
  for (let trip = 0; trip < trips; trip++) measured.trips.push(await inTurn(trip, (side) => side.roundTrip(1024)));
  for (let round = 0; round < rounds; round++) measured.connected.push((await dial()).map((side) => side.connected));
  return measured;
}

try {
  await init({ module_or_path: "/package/peercompute_bg.wasm" });
  for (;;) {
    const job = await (await fetch("/job")).json();
    try {
      postMessage(job.wire ? { wire: await measure(job.wire) } : { sides: await run(job) });
    } catch (error) {
      postMessage({ failed: String(error) });
    }
  }
} catch (error) {
  postMessage({ failed: String(error), is_over: true });
}
