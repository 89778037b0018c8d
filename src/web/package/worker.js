// The node of a page: the network and the kernels, off the page's thread.
//
// A message { call, name, args } is answered by { call, done } or { call, failed: { message, code } }; what happens by itself
// comes as { run, tick } and { run, ended }.
import init, { Executor, Member, verifyBundle } from "./peercompute.js";

const TOLD_EVERY_MS = 16;

const fault = (message, code) => Object.assign(new Error(message), { code });

const ready = init().catch((cause) => {
  throw fault(`WebAssembly does not start here: ${cause?.message ?? cause}`, "blocked");
});
// Whoever asks first hears of it.
ready.catch(() => {});

// By bundle hash; verified.
const bundles = new Map();
// By run.
const members = new Map();
let executor;

async function fetched(base, hash) {
  let answer;
  try {
    answer = await fetch(new URL(`bundles/${hash}.pcb`, base));
  } catch (cause) {
    throw fault(`the bundle is not to be had: ${cause.message}`, "unreachable");
  }
  if (!answer.ok) throw fault(`the server has no bundle for this link (${answer.status}): is it that of another run?`, "link");
  return new Uint8Array(await answer.arrayBuffer());
}

async function verified(base, { name, bundle }, key) {
  const bytes = await fetched(base, bundle);
  await ready;
  const is = verifyBundle(bytes, key);
  if (is.hash !== bundle || is.name !== name) throw fault(`the server gave another bundle for \`${name}\` than it lists`, "bundle");
  bundles.set(bundle, bytes);
}

async function open(wanted, threads) {
  try {
    return await Executor.open(wanted, undefined, threads);
  } catch (cause) {
    throw fault(cause.message, "executor");
  }
}

function present(run) {
  const member = members.get(run);
  if (!member) throw fault(`this node takes no part in \`${run}\``, "run");
  return member;
}

// Tells of ticks and of the end.
function watch(run, member) {
  let last;
  const timer = setInterval(() => {
    const { tick, ended, stateHash, error, code } = member.status();
    if (tick !== last) postMessage({ run, tick: (last = tick) });
    if (!ended) return;
    clearInterval(timer);
    postMessage({ run, ended: { state: ended, stateHash, error, code } });
  }, TOLD_EVERY_MS);
}

const calls = {
  async verify(base, runs, key) {
    await Promise.all(runs.map((run) => verified(base, run, key)));
  },
  async run(run, link, page, { executor: wanted = "auto", threads, called = "browser", watches }) {
    await ready;
    // One that was left is over.
    members.get(run)?.free();
    members.delete(run);
    executor ??= await open(wanted, threads);
    const [, , hash] = link.split("#")[1].split(",");
    const member = await Member.join(executor, link, page, bundles.get(hash), called, watches);
    members.set(run, member);
    watch(run, member);
  },
  async status(run) {
    return present(run).status();
  },
  async tiles(run, buffer) {
    return present(run).tiles(buffer);
  },
  async read(run, buffer, tile) {
    const bytes = await present(run).read(buffer, tile);
    return { element: present(run).element(buffer), bytes };
  },
  async world(run) {
    return present(run).world();
  },
  async frame(run, buffer, pixelsMax) {
    return present(run).frame(buffer, pixelsMax);
  },
  async params(run) {
    return present(run).params();
  },
  async set(run, name, value) {
    try {
      await present(run).set(name, value);
    } catch (cause) {
      throw fault(cause.message, cause.code ?? "option");
    }
  },
  async pause(run, isPaused) {
    await present(run).pause(isPaused);
  },
  async leave(run) {
    await present(run).leave();
  },
};

// Large arrays go over without a copy.
const moved = (done) => [done?.bytes?.buffer, done?.pixels?.buffer].filter(Boolean);

self.onmessage = async ({ data: { call, name, args } }) => {
  try {
    const done = await calls[name](...args);
    self.postMessage({ call, done }, moved(done));
  } catch (error) {
    self.postMessage({ call, failed: { message: String(error?.message ?? error), code: error?.code ?? "failed" } });
  }
};
