// The node of a page: the network and the kernels, off the page's thread.
//
// A message { call, name, args } is answered by { call, done } or { call, failed: { message, code } }; what happens by itself
// comes as { run, tick } and { run, ended }.
import { identity } from "./identity.js";
import init, { Executor, Member, verifyBundle } from "./peercompute.js";

const TOLD_EVERY_MS = 16;
// A bundle that is not here after so long is not to be had.
const BUNDLE_MS = 60_000;
// Between two attempts to come back, doubled every time.
const RETRY_MS = 500;
const RETRY_MS_MAX = 30_000;
// A member that was in for so long has come to stay.
const SETTLED_MS = 30_000;
// So often one that was in may be turned away before it stays away, and one that was never in may look again.
const REFUSALS_MAX = 6;
const FIRST_RETRIES_MAX = 1;
// A GPU that goes away so often before a member has settled computes no more, where another executor may.
const LOSSES_MAX = 3;
const RANGE_EVERY_MS = 500;

const fault = (message, code) => Object.assign(new Error(message), { code });

const ready = init().catch((cause) => {
  throw fault(`WebAssembly does not start here: ${cause?.message ?? cause}`, "blocked");
});
// Whoever asks first hears of it.
ready.catch(() => {});

// By bundle hash; verified.
const bundles = new Map();
// By run.
const parts = new Map();
// Drawings that go on, by number.
const drawings = new Set();
let executor;
let losses = 0;
// Who this worker is to others, once a run wants to know.
let known;

async function fetched(base, hash) {
  try {
    const answer = await fetch(new URL(`bundles/${hash}.pcb`, base), { signal: AbortSignal.timeout(BUNDLE_MS) });
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
    throw fault(`the server has no bundle for this link (${answer.status}): is it that of another run?`, "link");
  } catch (cause) {
    throw cause.code === "link" ? cause : fault(`the bundle is not to be had: ${cause.message}`, "unreachable");
  }
}

async function verified(base, { name, version, bundle }, key) {
  const bytes = await fetched(base, bundle);
  await ready;
  const is = verifyBundle(bytes, key);
  if (is.hash !== bundle) throw fault(`the server gave another bundle for \`${name}\` than it lists`, "bundle");
  if (is.name !== name || is.version !== version) {
    throw fault(`what the link calls ${name} ${version} is ${is.name} ${is.version}: is the link as it was printed?`, "link");
  }
  bundles.set(bundle, bytes);
}

// The executor of all parts; another one once its device was lost. After several in a row nobody waits for a GPU any more who
// leaves the choice to this node.
function executing(wanted, threads) {
  if (!executor || executor.opened?.isLost) {
    if (executor) losses = performance.now() - executor.since > SETTLED_MS ? 1 : losses + 1;
    const isGivenUp = wanted === "auto" && losses >= LOSSES_MAX;
    const opening = { since: performance.now(), opened: undefined };
    opening.ready = Executor.open(isGivenUp ? "cpu" : wanted, undefined, threads).then((opened) => (opening.opened = opened));
    // One that did not open is not kept.
    opening.ready.catch(() => executor === opening && (executor = undefined));
    executor = opening;
  }
  return executor.ready;
}

// This node's part in a run: a member, and after it was lost with all others another one, until it is let in.
class Part {
  #run;
  #join;
  #member;
  #hasEntered = false;
  #isLeaving = false;
  #lost;
  // Attempts since it was let in last that waiting alone may not mend.
  #vain = 0;
  #isOver = false;
  #wake = () => {};

  constructor(run, join) {
    [this.#run, this.#join] = [run, join];
  }

  async begin() {
    this.#member = await this.#join();
    // Somebody may have thought better of it meanwhile.
    if (this.#isLeaving) this.#member.leave();
    this.#last();
  }

  // Goes on until the run is over, it is left, or what went wrong would go wrong again.
  async #last() {
    let [wait, entered] = [RETRY_MS, performance.now()];
    for (;;) {
      const ended = await this.#ended();
      // Whoever falls out again and again waits longer each time.
      if (performance.now() - entered > SETTLED_MS) wait = RETRY_MS;
      if (!this.#comesBack(ended.state, ended.code)) return this.#end(ended);
      if (ended.code === "refused" || !this.#hasEntered) this.#vain++;
      this.#lost = ended.error;
      let next;
      while (!next) {
        await this.#sleep(wait);
        if (this.#isLeaving) return this.#end({ state: "left" });
        wait = Math.min(wait * 2, RETRY_MS_MAX);
        // Why it is not to be had is told as long as it is not.
        next = await this.#join().catch((cause) => void (this.#lost = cause.message));
      }
      // The one before goes when nobody waits for its answers any more.
      this.#member = next;
      if (await this.#enters()) [entered, this.#lost, this.#vain] = [performance.now(), undefined, 0];
    }
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, ms);
    });
  }

  // Whether it is worth trying again after such an end.
  #comesBack(state, code) {
    if (state !== "failed" || this.#isLeaving) return false;
    // Its page was there a moment ago.
    if (!this.#hasEntered) return (code === "unreachable" || code === "device") && this.#vain < FIRST_RETRIES_MAX;
    // A server that has just begun anew does not know yet whom it invites.
    const isEarly = code === "refused" && this.#lost !== undefined && this.#vain < REFUSALS_MAX;
    return code === "lost" || code === "unreachable" || code === "device" || isEarly;
  }

  // Whether this member gets into an epoch.
  #enters() {
    return this.#until(({ ended, epoch }) => (epoch > 0 ? "in" : ended && "out")).then((how) => how === "in");
  }

  #ended() {
    let last;
    return this.#until(({ tick, epoch, peers, ended, stateHash, error, code }) => {
      if (tick !== last) postMessage({ run: this.#run, tick: (last = tick) });
      this.#hasEntered ||= epoch > 0;
      if (ended) return { state: ended, stateHash, error, code };
      // A page hosts nothing. Alone, it has no server any more; nobody would find it, and one that came back would go on without it.
      if (epoch > 0 && peers === 1 && !this.#isLeaving) {
        this.#member.leave();
        return { state: "failed", error: "the server has left, and nobody else is in reach", code: "lost" };
      }
    });
  }

  #until(is) {
    return new Promise((resolve) => {
      const timer = setInterval(() => {
        const found = is(this.#member.status());
        if (!found) return;
        clearInterval(timer);
        resolve(found);
      }, TOLD_EVERY_MS);
    });
  }

  #end(ended) {
    this.#lost = undefined;
    this.#isOver = true;
    postMessage({ run: this.#run, ended });
  }

  // Shows a field on a canvas, frame by frame, for as long as this part lasts or until `isOver` says so.
  async draw(canvas, buffer, relief, pixelsMax, isOver, told) {
    let [sight, drawsOn] = [this.#member.sight(canvas, buffer, relief, pixelsMax), executor];
    const show = async () => {
      let [looked, painted] = [performance.now(), 0];
      while (!isOver() && !this.#isOver) {
        await new Promise(requestAnimationFrame);
        if (this.#lost !== undefined) continue;
        try {
          // After a device was lost the canvas is another's.
          if (drawsOn !== executor) [sight, drawsOn] = [this.#member.sight(canvas, buffer, relief, pixelsMax), executor];
          await this.#member.paint(sight);
          painted++;
          const since = performance.now() - looked;
          if (since > RANGE_EVERY_MS) {
            told({ ...(await this.#member.range(sight)), framesPerSecond: (painted * 1e3) / since });
            [looked, painted] = [performance.now(), 0];
          }
        } catch {
          // A member that computes no more is followed by another, or by the end.
          await new Promise((resolve) => setTimeout(resolve, RANGE_EVERY_MS));
        }
      }
    };
    show();
  }

  // What the member is asked, as long as it takes part. One that is lost, meanwhile too, may be back later.
  async asked(does) {
    if (this.#isOver) throw fault("this node's part in the run is over", "left");
    const { lost } = this.status();
    if (lost !== undefined) throw fault(lost, "lost");
    try {
      return await does(this.#member);
    } catch (cause) {
      const isLost = cause.code === "left" && !this.#isOver && !this.#isLeaving;
      throw isLost ? fault(this.status().lost ?? cause.message, "lost") : cause;
    }
  }

  get member() {
    if (!this.#member) throw fault("this node is still on its way into the run", "run");
    return this.#member;
  }

  status() {
    const status = this.member.status();
    const lost = this.#lost ?? (this.#comesBack(status.ended, status.code) ? status.error : undefined);
    return lost === undefined ? status : { ...status, lost, ended: undefined, error: undefined, code: undefined };
  }

  leave() {
    this.#isLeaving = true;
    this.#wake();
    return this.#member?.leave();
  }
}

function present(run) {
  const part = parts.get(run);
  if (!part) throw fault(`this node takes no part in \`${run}\``, "run");
  return part;
}

const calls = {
  async verify(base, runs, key) {
    await Promise.all(runs.map((run) => verified(base, run, key)));
  },
  async run(run, link, page, { executor: wanted = "auto", threads, called = "browser", watches, identity: who }) {
    const [, , hash] = link.split("#")[1].split(",");
    const join = async () => {
      await ready;
      // Several runs may begin at once, and are one and the same peer.
      const { seed } = await (known ??= identity(who));
      return Member.join(await executing(wanted, threads), link, page, bundles.get(hash), called, watches, seed);
    };
    const part = new Part(run, join);
    parts.set(run, part);
    try {
      await part.begin();
    } catch (cause) {
      parts.delete(run);
      throw cause;
    }
  },
  async status(run) {
    const status = present(run).status();
    const { seed, why } = await known;
    // Browsers too may give none any more after a while.
    const executorNote = losses > 0 && executor?.opened?.executor === "cpu" ? `the GPU went away ${losses === 1 ? "once" : `${losses} times`}` : undefined;
    return { ...status, identity: seed ? "kept" : "new", identityNote: why, executorNote };
  },
  async tiles(run, buffer) {
    return present(run).asked((member) => member.tiles(buffer));
  },
  async read(run, buffer, tile) {
    return present(run).asked(async (member) => ({ bytes: await member.read(buffer, tile), element: member.element(buffer) }));
  },
  async world(run) {
    return present(run).member.world();
  },
  async frame(run, buffer, pixelsMax) {
    return present(run).asked((member) => member.frame(buffer, pixelsMax));
  },
  async draw(run, drawing, canvas, buffer, relief, pixelsMax) {
    const part = present(run);
    drawings.add(drawing);
    try {
      await part.asked(() => part.draw(canvas, buffer, relief, pixelsMax, () => !drawings.has(drawing), (range) => postMessage({ run, drawing, range })));
    } catch (cause) {
      drawings.delete(drawing);
      throw cause;
    }
  },
  async stop(drawing) {
    drawings.delete(drawing);
  },
  async params(run) {
    return present(run).member.params();
  },
  async set(run, name, value) {
    await present(run).asked((member) => member.set(name, value));
  },
  async pause(run, isPaused) {
    await present(run).asked((member) => member.pause(isPaused));
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
