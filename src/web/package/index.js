// PeerCompute for pages: a link becomes a node, and a node takes part in runs.
//
//   join(link) ─► Node ─ run(name) ─► Run: onTick, read, world, frame, status, leave
//
// All of it happens in a worker of this page (worker.js): network, kernels and WebGPU are off the page's thread. What
// crosses is a call, its answer, and the tick. Nothing is compiled that is not signed by the key that the link pins.

/** What went wrong, for people (`message`) and for programs (`code`). */
export class PeerComputeError extends Error {
  constructor(message, code = "failed") {
    super(message);
    this.name = "PeerComputeError";
    this.code = code;
  }
}

const isText = (value) => typeof value === "string" && value !== "";
const isFunction = (value) => typeof value === "function";
const isWhole = (least, most) => (value) => Number.isInteger(value) && value >= least && value <= most;
// A number, what is true or not, or a list of those: of a vector, or of a matrix' columns.
const isValue = (value, depth = 2) =>
  Number.isFinite(value) || typeof value === "boolean" || (depth > 0 && Array.isArray(value) && value.every((item) => isValue(item, depth - 1)));

// What is asked for has to be what is needed.
function demand(name, value, is, needed) {
  if (is(value)) return;
  let given = typeof value;
  try {
    given = typeof value === "string" ? JSON.stringify(value.slice(0, 80)) : String(value).slice(0, 80);
  } catch {
    // What cannot be shown is told by its kind.
  }
  throw new PeerComputeError(`${name} is ${needed}, not ${given}`, "option");
}

// The same of what may be left out.
function ask(name, value, is, needed) {
  if (value !== undefined) demand(name, value, is, needed);
}

// What follows # in a link: pc1,NAME@VERSION,BUNDLE,KEY,TOKEN,ADDRESS…
function parsed(link) {
  const at = link.indexOf("#");
  const [page, word] = at < 0 ? [link, ""] : [link.slice(0, at), link.slice(at + 1)];
  let base;
  try {
    // What else the page's address has, a path or a query, is not the server's.
    base = new URL("/", page);
  } catch {
    throw new PeerComputeError(`\`${page}\` is not the address of a server, like https://example.com/`, "link");
  }
  if (!word) return { base };
  const [prefix, workload, bundle, key, token, ...addresses] = word.split(",");
  const [name, version, ...rest] = workload?.split("@") ?? [];
  if (prefix !== "pc1" || !name || !version || rest.length > 0 || addresses.length === 0) {
    throw new PeerComputeError("the link is cut, or is none: `peercompute serve` prints it", "link");
  }
  return { base, invited: { name, version, bundle, key, token, addresses } };
}

const THREADS_MAX = 256;
const TILE_MAX = 2 ** 32 - 1;
const PIXELS_MAX = 2048;
// A server that says nothing for so long is not reached.
const LISTING_MS = 15_000;

// The options, each as it may be; what is not given is left to others.
function checked(options) {
  ask("the second argument", options, (value) => typeof value === "object" && value !== null, "an object of options");
  const { key, token, executor, threads, name, identity = "kept" } = options ?? {};
  ask("key", key, isText, "a public key");
  ask("token", token, (value) => isText(value) && /^[0-9a-f]{32}$/i.test(value), "32 hexadecimal digits");
  ask("executor", executor, isText, '"auto", "gpu", "cpu" or a part of an adapter\'s name');
  ask("threads", threads, isWhole(1, THREADS_MAX), `a whole number from 1 to ${THREADS_MAX}`);
  ask("name", name, isText, "a text");
  demand("identity", identity, (value) => value === "kept" || value === "new", '"kept" or "new"');
  return { key, token, executor, threads, name, identity };
}

// What a server computes.
async function listed(base) {
  const url = new URL("runs", base);
  let answer;
  try {
    answer = await fetch(url, { signal: AbortSignal.timeout(LISTING_MS) });
  } catch (cause) {
    throw new PeerComputeError(`${base.host || base} is not reached: ${cause.message}`, "unreachable");
  }
  if (!answer.ok) throw new PeerComputeError(`${url} answers ${answer.status}: is it a server of runs?`, "unreachable");
  const listing = await answer.json().catch(() => undefined);
  if (listing?.version !== 1 || !Array.isArray(listing.runs)) throw new PeerComputeError(`${url} is no listing that this version reads`, "unreachable");
  const isRun = (run) => [run?.name, run?.version, run?.bundle, run?.key].every(isText) && Array.isArray(run.addresses);
  return listing.runs.filter(isRun);
}

/**
 * Meets the server of a link, and verifies what it computes. The link's fragment pins the key and is the invitation; for a
 * server that invites everybody, an address and `options.key` are enough.
 */
export async function join(link, options = {}) {
  if (!isText(link) && !(link instanceof URL)) throw new PeerComputeError("a link is a text, or a URL", "link");
  const { base, invited } = parsed(String(link));
  options = checked(options);
  const key = options.key ?? invited?.key;
  if (!key) throw new PeerComputeError("no key says whose code may run: open the whole link, with all that follows #, or give `key`", "key");
  const known = await listed(base);
  const token = (run) => options.token ?? invited?.token ?? run.token;
  // What another key signed is somebody else's, and not looked at.
  const runs = known.filter((run) => run.key === key || key.endsWith(run.key)).map((run) => ({ ...run, token: token(run) }));
  if (invited) {
    const own = runs.findIndex((run) => run.bundle === invited.bundle);
    // A link's own run comes first, and is as the link says.
    if (own >= 0) runs.unshift({ ...runs.splice(own, 1)[0], ...invited, key, token: token(invited) });
    else if (known.length > 0 && known.every((run) => run.bundle !== invited.bundle)) {
      throw new PeerComputeError("the server has no bundle for this link: is it that of another run, or of one that is over?", "link");
    } else runs.unshift({ ...invited, key, token: token(invited) });
  }
  if (runs.length === 0) throw new PeerComputeError(`nothing at ${base.host} is signed by the key that is trusted here`, "key");
  if (!runs.some((run) => run.token)) throw new PeerComputeError(`${base.host} invites only those who have its whole link`, "refused");
  const office = new Office();
  try {
    await office.ask("verify", base.href, runs.map(({ name, version, bundle }) => ({ name, version, bundle })), key);
  } catch (error) {
    office.close();
    throw error;
  }
  return new Node(office, base, runs, options);
}

// A worker, and what it is asked.
class Office {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "peercompute" });
  #waiting = new Map();
  #calls = 0;
  #broken;
  heard = new Map();

  constructor() {
    this.#worker.onmessage = ({ data }) => {
      if (data.run !== undefined) return this.heard.get(data.run)?.(data);
      const { resolve, reject } = this.#waiting.get(data.call) ?? {};
      // Whoever waited has been told of the worker's end already.
      if (!this.#waiting.delete(data.call)) return;
      if (data.failed) reject(new PeerComputeError(data.failed.message, data.failed.code));
      else resolve(data.done);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.#end(new PeerComputeError(event.message || "the worker did not start: are scripts or WebAssembly blocked here?", "blocked"));
    };
  }

  ask(name, ...args) {
    return this.give([], name, ...args);
  }

  // The same; what is transferred is the worker's from then on.
  give(transfer, name, ...args) {
    if (this.#broken) return Promise.reject(this.#broken);
    const call = this.#calls++;
    try {
      this.#worker.postMessage({ call, name, args }, transfer);
    } catch (cause) {
      return Promise.reject(new PeerComputeError(`what was given cannot go to a worker: ${cause.message}`, "option"));
    }
    return new Promise((resolve, reject) => this.#waiting.set(call, { resolve, reject }));
  }

  close() {
    this.#worker.terminate();
    this.#end(new PeerComputeError("this node has left", "left"));
  }

  #end(error) {
    this.#broken = error;
    this.#waiting.forEach(({ reject }) => reject(error));
    this.#waiting.clear();
    this.heard.forEach((hear) => hear({ ended: { state: "failed", error: error.message, code: error.code } }));
  }
}

/** This page at a server. */
export class Node {
  #office;
  #base;
  #known;
  #options;
  #runs = new Map();

  constructor(office, base, known, options) {
    [this.#office, this.#base, this.#known, this.#options] = [office, base, known, options];
  }

  /** What can be joined here, a link's own run first. */
  get runs() {
    return this.#known.filter((run) => run.token).map(({ name, version }) => ({ name, version }));
  }

  /** Takes part in a run; by default in the link's own. */
  async run(name = this.runs[0].name, options) {
    demand("a run's name", name, isText, "a text");
    const known = this.#known.find((run) => run.name === name && run.token);
    if (!known) throw new PeerComputeError(`no run is called \`${name.slice(0, 80)}\`; there are ${this.runs.map((run) => run.name).join(", ")}`, "run");
    const tiles = options?.tiles ?? "auto";
    demand("tiles", tiles, (value) => value === "auto" || value === "none", '"auto" or "none"');
    if (this.#runs.has(name)) throw new PeerComputeError(`this node takes part in \`${name}\` already`, "run");
    const { version, bundle, key, token, addresses } = known;
    const link = `${this.#base.href}#pc1,${name}@${version},${bundle},${key.slice(-64)},${token},${addresses.join(",")}`;
    const { executor, threads, name: called, identity } = this.#options;
    const run = new Run(this.#office, name, () => this.#runs.delete(name));
    this.#runs.set(name, run);
    try {
      await this.#office.ask("run", name, link, this.#base.href, { executor, threads, called, watches: tiles === "none", identity });
    } catch (error) {
      // Whoever waits for its end hears of it too.
      this.#office.heard.get(name)?.({ ended: { state: "failed", error: error.message, code: error.code } });
      throw error;
    }
    return run;
  }

  /** Leaves every run in good order: what this page owns is handed over first. */
  async leave() {
    await Promise.all([...this.#runs.values()].map((run) => run.leave()));
    this.#office.close();
  }
}

// One number for each.
let drawings = 0;

// What a listener throws is its own, and none of the others'.
function heard(listener, news) {
  try {
    listener(news);
  } catch (error) {
    reportError(error);
  }
}

const ARRAYS = { f32: Float32Array, u32: Uint32Array, i32: Int32Array };

// Elements as numbers, where all their words are of one kind; as bytes otherwise.
function typed(element, bytes) {
  const [scalar] = /^(?:atomic<|vec[234]<|mat[234]x[234]<)?([fiu]32)>?$/.exec(element)?.slice(1) ?? [];
  const Array = ARRAYS[scalar] ?? Uint8Array;
  return new Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / Array.BYTES_PER_ELEMENT);
}

/** This page's part in a run. */
export class Run {
  #office;
  #listeners = new Set();
  #drawings = new Map();
  #forget;
  /** The workload's name. */
  name;
  /** How it ended, once it has. */
  ended;

  constructor(office, name, forget) {
    [this.#office, this.name] = [office, name];
    let end;
    this.ended = new Promise((resolve) => (end = resolve));
    this.#forget = () => {
      office.heard.delete(name);
      forget();
    };
    office.heard.set(name, ({ tick, ended, drawing, range }) => {
      if (range && this.#drawings.has(drawing)) heard(this.#drawings.get(drawing), range);
      if (tick !== undefined) this.#listeners.forEach((listener) => heard(listener, tick));
      if (ended) {
        this.#forget();
        end(ended);
      }
    });
  }

  /** Calls with the newest tick whenever there is another, some sixty times a second at most; returns what ends that. */
  onTick(listener) {
    demand("a listener", listener, isFunction, "a function");
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** How it goes. */
  status() {
    return this.#office.ask("status", this.name);
  }

  /** The tiles of a buffer that this page owns. */
  async tiles(buffer) {
    demand("a buffer's name", buffer, isText, "a text");
    return this.#office.ask("tiles", this.name, buffer);
  }

  /** A tile of this page's, row by row, as it is between two ticks. */
  async read(buffer, options) {
    demand("a buffer's name", buffer, isText, "a text");
    const tile = options?.tile;
    demand("tile", tile, isWhole(0, TILE_MAX), "the number of a tile, as in `{ tile: 3 }`");
    const { element, bytes } = await this.#office.ask("read", this.name, buffer, tile);
    return typed(element, bytes);
  }

  /** Who computes what. */
  world() {
    return this.#office.ask("world", this.name);
  }

  /** A field as pixels, its longer side of at most so many. */
  async frame(buffer, pixelsMax = 1024) {
    demand("a buffer's name", buffer, isText, "a text");
    demand("pixelsMax", pixelsMax, isWhole(1, Infinity), "a whole number of pixels");
    return this.#office.ask("frame", this.name, buffer, Math.min(pixelsMax, PIXELS_MAX));
  }

  /**
   * Draws a field on a canvas from now on, straight from the GPU's buffers, a frame for each of the screen's. The canvas is the
   * drawing's for good. Returns what ends it.
   */
  async draw(canvas, buffer, options) {
    const { relief = false, pixelsMax = 1024, onRange = () => {} } = options ?? {};
    demand("a buffer's name", buffer, isText, "a text");
    demand("pixelsMax", pixelsMax, isWhole(1, Infinity), "a whole number of pixels");
    demand("onRange", onRange, isFunction, "a function");
    const isCanvas = (value) => isFunction(value?.transferControlToOffscreen) || value instanceof OffscreenCanvas;
    demand("what is drawn on", canvas, isCanvas, "a canvas");
    let offscreen;
    try {
      offscreen = canvas.transferControlToOffscreen?.() ?? canvas;
    } catch (cause) {
      throw new PeerComputeError(`the canvas is somebody else's already: ${cause.message}`, "option");
    }
    const drawing = drawings++;
    this.#drawings.set(drawing, onRange);
    const forget = () => this.#drawings.delete(drawing);
    await this.#office.give([offscreen], "draw", this.name, drawing, offscreen, buffer, Boolean(relief), Math.min(pixelsMax, PIXELS_MAX)).catch((error) => {
      forget();
      throw error;
    });
    return () => {
      forget();
      this.#office.ask("stop", drawing).catch(() => {});
    };
  }

  /** The workload's parameters as they are. */
  params() {
    return this.#office.ask("params", this.name);
  }

  /** Wishes for another value of a parameter: all members compute with it from one and the same tick on, soon. */
  async set(name, value) {
    demand("a parameter's name", name, isText, "a text");
    demand(`the value of \`${name.slice(0, 80)}\``, value, isValue, "a number, true or false, or a list of them");
    const toml = (value) => (Array.isArray(value) ? `[${value.map(toml).join(", ")}]` : String(value));
    return this.#office.ask("set", this.name, name, toml(value));
  }

  /** Wishes that no tick passes, for all members; they may come and go meanwhile. */
  pause() {
    return this.#office.ask("pause", this.name, true);
  }

  /** Wishes that ticks pass again. */
  resume() {
    return this.#office.ask("pause", this.name, false);
  }

  /** Leaves in good order; done when what this page owned is somebody else's. */
  async leave() {
    await this.#office.ask("leave", this.name);
    await this.ended;
  }
}
