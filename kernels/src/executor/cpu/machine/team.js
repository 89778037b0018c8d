// The workers that share out dispatches in a page that may share memory.
//
// One file for both sides. Whoever imports it opens a team: workers that run this same file and know nothing but emitted
// kernels and the memory of runs. They sleep on the control words; messages bring them a run's kernels and take them away.
//
//   open ─► helpers ready        load ─► message: memory, modules ─► instances
//   publish ─► SEQUENCE + 1 ─► every worker takes chunks off NEXT ─► BUSY 0 ─► finish
//
// Invariant: a helper reads a dispatch only once every message sent before it has been handled.

const NAME = "peercompute helper";

// Words of the control block.
const SEQUENCE = 0; // raised by every dispatch and every message: what helpers sleep on
const MESSAGES = 1; // sent to each helper so far
const RUN = 2;
const KERNEL = 3;
const PARTS = 4; // workgroups of the dispatch
const CHUNK = 5; // that a worker takes at a time
const NEXT = 6; // the first that nobody has taken
const BUSY = 7; // helpers that are not through
const STATE = 8; // how the dispatch goes
const LIMIT_MS = 9;
const GROUPS = 10;
const SPANS = 13; // how many, then the words of each: address, length
const CONTROL_WORDS = 4096;

const GOES_ON = 0;
const STOPPED = 1;
const TRAPPED = 2;

// Words of a kernel's arguments; emit/mod.rs has the whole block.
const ARGUMENT_GROUPS = 1;
const ARGUMENT_FIRST = 4;
const ARGUMENT_COUNT = 7;
const ARGUMENT_BINDINGS = 10;

class Helper {
  constructor(control, number) {
    this.control = control;
    this.number = number;
    this.seen = Atomics.load(control, SEQUENCE);
    this.messages = 0;
    this.deadline = Infinity;
    this.runs = new Map();
  }

  load({ run, memory, modules, places }) {
    const late = () => (performance.now() > this.deadline ? 1 : 0);
    const kernels = modules.map((module) => module && new WebAssembly.Instance(module, { m: { m: memory, late } }).exports.run);
    this.runs.set(run, { words: new Uint32Array(memory.buffer), kernels, places });
  }

  // Until there is a message to handle.
  serve() {
    const { control } = this;
    while (Atomics.load(control, MESSAGES) === this.messages) {
      const sequence = Atomics.load(control, SEQUENCE);
      if (sequence === this.seen) {
        Atomics.wait(control, SEQUENCE, sequence);
        continue;
      }
      this.seen = sequence;
      if (Atomics.load(control, BUSY) > 0) this.work();
    }
  }

  work() {
    const { control } = this;
    try {
      this.deadline = performance.now() + control[LIMIT_MS];
      const { words, kernels, places } = this.runs.get(control[RUN]);
      const [kernel, place] = [kernels[control[KERNEL]], places[control[KERNEL]]];
      const [x, y] = [control[GROUPS], control[GROUPS + 1]];
      const at = place / 4;
      for (let axis = 0; axis < 3; axis++) words[at + ARGUMENT_GROUPS + axis] = control[GROUPS + axis];
      for (let word = 0; word < 2 * control[SPANS]; word++) words[at + ARGUMENT_BINDINGS + word] = control[SPANS + 1 + word];
      const [parts, chunk] = [control[PARTS] >>> 0, control[CHUNK] >>> 0];
      while (Atomics.load(control, STATE) === GOES_ON) {
        const first = Atomics.add(control, NEXT, chunk) >>> 0;
        if (first >= parts) break;
        words[at + ARGUMENT_FIRST] = first % x;
        words[at + ARGUMENT_FIRST + 1] = Math.floor(first / x) % y;
        words[at + ARGUMENT_FIRST + 2] = Math.floor(first / (x * y));
        words[at + ARGUMENT_COUNT] = Math.min(chunk, parts - first);
        if (kernel(place) !== 0) Atomics.compareExchange(control, STATE, GOES_ON, STOPPED);
      }
    } catch (error) {
      console.error(error);
      Atomics.store(control, STATE, TRAPPED);
    }
    if (Atomics.sub(control, BUSY, 1) === 1) Atomics.notify(control, BUSY);
  }
}

if (self.name === NAME) {
  let helper;
  self.onmessage = ({ data }) => {
    if (data.control) {
      helper = new Helper(data.control, data.number);
      self.postMessage("ready");
    } else {
      helper.messages += 1;
      if (data.load) helper.load(data.load);
      if (data.drop !== undefined) helper.runs.delete(data.drop);
    }
    helper.serve();
  };
}

export class Team {
  static #one;

  // The team of this worker, with `threads` in all; undefined where memory cannot be shared.
  static async open(threads) {
    if (!self.crossOriginIsolated || threads < 2) return undefined;
    return (Team.#one ??= Team.#start(threads - 1));
  }

  static async #start(count) {
    const team = new Team();
    team.control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
    team.helpers = [];
    team.runs = 0;
    const ready = [];
    for (let number = 0; number < count; number++) {
      const helper = new Worker(import.meta.url, { type: "module", name: NAME });
      ready.push(
        new Promise((resolve, reject) => {
          helper.onmessage = resolve;
          helper.onerror = (event) => reject(new Error(event.message ?? "a helper did not start"));
        }),
      );
      helper.postMessage({ control: team.control, number });
      team.helpers.push(helper);
    }
    await Promise.all(ready);
    return team;
  }

  get threads() {
    return this.helpers.length + 1;
  }

  #send(message) {
    Atomics.add(this.control, MESSAGES, 1);
    Atomics.add(this.control, SEQUENCE, 1);
    Atomics.notify(this.control, SEQUENCE);
    this.helpers.forEach((helper, number) => helper.postMessage(message(number)));
  }

  // Gives every helper a run's kernels; `places` are the addresses of their arguments, helper by helper.
  load(memory, modules, places) {
    const run = this.runs++;
    this.#send((number) => ({ load: { run, memory, modules, places: places.slice(number * modules.length, (number + 1) * modules.length) } }));
    return run;
  }

  drop(run) {
    this.#send(() => ({ drop: run }));
  }

  // Wakes the helpers for a dispatch.
  publish(run, kernel, groups, spans, parts, chunk, limitMs) {
    const { control } = this;
    control[RUN] = run;
    control[KERNEL] = kernel;
    control[PARTS] = parts;
    control[CHUNK] = chunk;
    control[LIMIT_MS] = Math.min(limitMs, 2 ** 31 - 1);
    control.set(groups, GROUPS);
    control[SPANS] = spans.length / 2;
    control.set(spans, SPANS + 1);
    control[STATE] = GOES_ON;
    Atomics.store(control, NEXT, 0);
    Atomics.store(control, BUSY, this.helpers.length);
    Atomics.add(control, SEQUENCE, 1);
    Atomics.notify(control, SEQUENCE);
  }

  // The first workgroup of a chunk for whoever published; not below the number of parts if there is none left.
  next(chunk) {
    return Atomics.load(this.control, STATE) === GOES_ON ? Atomics.add(this.control, NEXT, chunk) >>> 0 : 2 ** 32 - 1;
  }

  // Tells the helpers to leave.
  stop() {
    Atomics.compareExchange(this.control, STATE, GOES_ON, STOPPED);
  }

  // Waits for the helpers, not much longer than told; how it went, or -1.
  finish(ms) {
    for (;;) {
      const busy = Atomics.load(this.control, BUSY);
      if (busy === 0) return Atomics.load(this.control, STATE);
      if (Atomics.wait(this.control, BUSY, busy, ms) === "timed-out") return -1;
    }
  }
}
