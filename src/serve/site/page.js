// The page of a run: it joins by the link that it was opened with, in a worker, and says how it goes.
//
// `window.peercompute` is the same for the console: join, status, tiles, read, leave.
const LOOK_EVERY_MS = 500;

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "peercompute member" });
const waiting = new Map();
let calls = 0;
let broken;

worker.onmessage = ({ data: { call, done, failed } }) => {
  const { resolve, reject } = waiting.get(call);
  waiting.delete(call);
  if (failed === undefined) resolve(done);
  else reject(new Error(failed));
};
worker.onerror = (event) => {
  broken = new Error(event.message ?? "the worker did not start: are scripts or WebAssembly blocked here?");
  waiting.forEach(({ reject }) => reject(broken));
  waiting.clear();
};

function ask(name, ...args) {
  if (broken) return Promise.reject(broken);
  const call = calls++;
  const answered = new Promise((resolve, reject) => waiting.set(call, { resolve, reject }));
  worker.postMessage({ call, name, args });
  return answered;
}

const ARRAYS = { f32: Float32Array, u32: Uint32Array, i32: Int32Array };

const peercompute = {
  // Joins the run of a link; by default the page's own.
  join: (link = location.hash.slice(1), options = {}) => ask("join", link, new URL("/", location.href).href, options),
  status: () => ask("status"),
  // The tiles of a buffer that this tab owns.
  tiles: (buffer) => ask("tiles", buffer),
  // A tile of a buffer as numbers, row by row; as bytes where its elements are more than one number.
  async read(buffer, { tile }) {
    const { element, bytes } = await ask("read", buffer, tile);
    const Array = ARRAYS[element] ?? Uint8Array;
    return new Array(bytes.buffer);
  },
  leave: () => ask("leave"),
};
window.peercompute = peercompute;

const said = document.getElementById("said");
const shown = document.getElementById("status");
const leave = document.getElementById("leave");

function say(text, kind = "") {
  said.textContent = text;
  said.className = kind;
}

function si(value) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${(value / size).toFixed(2)} ${unit}`;
  }
  return value.toFixed(0);
}

function show(status) {
  const rows = {
    Workload: `${status.workload} ${status.version}`,
    Tick: status.tick.toLocaleString(),
    Members: status.peers,
    "Tiles of mine": status.tilesOwned,
    "Elements/s": si(status.elementsPerSecond),
    Computed: `${status.executor}: ${status.adapter}`,
  };
  shown.replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => {
      const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      detail.textContent = value;
      return [term, detail];
    }),
  );
}

const ENDS = {
  finished: (status) => say(`The run has come to its end: ${status.stateHash}`),
  left: () => say("You have left the run."),
  failed: (status) => say(status.error, "wrong"),
};

async function look() {
  try {
    const status = await peercompute.status();
    if (status.workload !== undefined) show(status);
    if (status.ended) {
      leave.hidden = true;
      return ENDS[status.ended](status);
    }
    if (status.tilesOwned > 0) say("This tab computes a part of the world.");
    setTimeout(look, LOOK_EVERY_MS);
  } catch (error) {
    say(error.message, "wrong");
  }
}

leave.onclick = () => {
  leave.disabled = true;
  say("Leaving: what this tab owns is handed over first…");
  peercompute.leave().catch((error) => say(error.message, "wrong"));
};

async function start() {
  if (!location.hash.includes("pc1,")) {
    return say("This page takes part in a run, and the address is only half of the invitation: open the whole link, with all that follows #.", "wrong");
  }
  const query = new URLSearchParams(location.search);
  const options = { executor: query.get("executor") ?? undefined, name: query.get("name") ?? undefined };
  if (query.has("threads")) options.threads = Number(query.get("threads"));
  say("Joining…");
  try {
    await peercompute.join(undefined, options);
    leave.hidden = false;
    await look();
  } catch (error) {
    say(error.message, "wrong");
  }
}

start();
