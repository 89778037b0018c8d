// The measurements: the framework as its users drive it, and a twin, in turn, in one worker.
//
// Invariant: no figure before both have computed the same, element by element.
import { fromRounds, fromTrips } from "./figures.js";
import { openTwin } from "./twins.js";

const COMPARED_TICKS = 3;
const TWIN = "hand-written WebGPU, same worker";
// Repeats of a round, at least and at most.
const [REPEATS_MIN, REPEATS_MAX] = [2, 20000];
const TRIPS_IN_TURN = 25;
const ARRAYS = { f32: Float32Array, u32: Uint32Array };

async function seconds(work) {
  const begun = performance.now();
  await work();
  // A browser may round a short time down to none.
  return Math.max((performance.now() - begun) / 1e3, 1e-6);
}

// A B, B A, A B, …: what the machine does besides hits both alike.
async function interleave(rounds, ours, theirs) {
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const turn = [0, 0];
    for (const side of round % 2 === 0 ? [0, 1] : [1, 0]) turn[side] = await seconds([ours, theirs][side]);
    times.push(turn);
  }
  return times;
}

// Single times, in turns of several: a device that has just been another's is slower for a moment, which is nobody's cost, so the first of
// a turn is not counted.
async function single(count, ours, theirs) {
  const times = [];
  for (let turn = 0; times.length < count; turn++) {
    const taken = [[], []];
    for (const side of turn % 2 === 0 ? [0, 1] : [1, 0]) {
      for (let trip = 0; trip <= TRIPS_IN_TURN; trip++) taken[side].push(await seconds([ours, theirs][side]));
    }
    for (let trip = 1; trip <= TRIPS_IN_TURN; trip++) times.push([taken[0][trip], taken[1][trip]]);
  }
  return times;
}

function agree(title, tolerance, ours, theirs) {
  if (ours.length !== theirs.length) throw new Error(`${title}: ${ours.length} elements, the twin has ${theirs.length}`);
  for (let at = 0; at < ours.length; at++) {
    // Written so that what is not a number disagrees.
    if (!(Math.abs(ours[at] - theirs[at]) <= tolerance * Math.max(Math.abs(theirs[at]), 1))) {
      throw new Error(`${title}: element ${at} is ${ours[at]}, the twin has ${theirs[at]}`);
    }
  }
}

// A workload and its twin at a size, once they are known to compute the same.
export class Pair {
  static async open({ executor, device, about }, name, size) {
    const known = about.cases.find((known) => known.name === name);
    const at = known.sizes.find((known) => known.size === size);
    const pair = new Pair();
    Object.assign(pair, { ...known, ...at, title: `${name}, ${at.label}` });
    try {
      const answer = await fetch(`/bench/bundles/${at.bundle}`);
      if (!answer.ok) throw new Error(`the server has no bundle ${at.bundle} (${answer.status})`);
      pair.workload = await executor.load(new Uint8Array(await answer.arrayBuffer()), about.key);
      pair.twin = await openTwin(device, name, size);
      await pair.compare();
    } catch (error) {
      pair.free();
      throw error;
    }
    return pair;
  }

  async compare() {
    await this.workload.advance(COMPARED_TICKS);
    await this.twin.run(COMPARED_TICKS);
    const Array = ARRAYS[this.element];
    const [ours, theirs] = [await this.workload.read(this.output), await this.twin.read()];
    agree(this.title, this.tolerance, new Array(ours.buffer), new Array(theirs.buffer));
  }

  // Times both sides, each with as many ticks as fill its part of a round.
  async time({ rounds, round_seconds }) {
    // The second probe counts: the first may still clear memory or compile.
    let each = 0;
    for (let probe = 0; probe < 2; probe++) {
      each = (await seconds(() => this.workload.advance(4))) / 4;
      await this.twin.run(4);
    }
    let repeats = Math.min(Math.max(Math.ceil(round_seconds / each), REPEATS_MIN), REPEATS_MAX);
    // Four short ticks are mostly waiting: what counts is how long many take.
    if (repeats > 64) {
      each = (await seconds(() => this.workload.advance(repeats))) / repeats;
      await this.twin.run(repeats);
      repeats = Math.min(Math.max(Math.ceil(round_seconds / each), REPEATS_MIN), REPEATS_MAX);
    }
    return { repeats, seconds: await interleave(rounds, () => this.workload.advance(repeats), () => this.twin.run(repeats)) };
  }

  free() {
    this.workload?.free();
    this.twin?.free();
  }
}

async function withPair(context, name, size, work) {
  const pair = await Pair.open(context, name, size);
  try {
    return await work(pair);
  } finally {
    pair.free();
  }
}

// The speed of one case at one size.
export const speed = (context, name, size) =>
  withPair(context, name, size, async (pair) => {
    const { title, unit, target, units_per_tick } = pair;
    const times = await pair.time(context.effort);
    return [fromRounds(times, (each) => units_per_tick / each, { case: title, unit, twin: TWIN, target })];
  });

// What one of many small dispatches costs, and how long a little takes to come back.
export const small = (context) =>
  withPair(context, "copy", context.smallest("copy"), async (pair) => {
    const { trips } = context.effort;
    const times = await pair.time(context.effort);
    const cost = fromRounds(times, (each) => each * 1e6, { case: "a dispatch of many, 4 KiB", unit: "µs", twin: TWIN });
    const reads = await single(trips, () => pair.workload.read(pair.output), () => pair.twin.read());
    return [cost, ...percentiles(reads, "4 KiB read back")];
  });

// A tick by itself: submitted, and its end awaited.
export const trip = (context) =>
  withPair(context, "heat", context.smallest("heat"), async (pair) => {
    const trips = await single(context.effort.trips, () => pair.workload.advance(1), () => pair.twin.run(1));
    return percentiles(trips, `a tick awaited, ${pair.label}`);
  });

function percentiles(trips, what) {
  return [0.5, 0.99].map((share) => fromTrips(trips, share, { case: `${what}, p${share * 100}`, twin: TWIN }));
}
