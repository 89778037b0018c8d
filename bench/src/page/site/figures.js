// Figures from times, as `bench/src/rounds.rs` makes them: a test gives both the same times and wants the same figures.
//
// The ratio is a speed's, always: above 1 the framework is faster than its twin, whatever the unit.

const sorted = (values) => values.toSorted((a, b) => a - b);
const median = (values) => sorted(values)[Math.floor(values.length / 2)];

export function percentile(values, share) {
  const ordered = sorted(values);
  return ordered[Math.min(ordered.length - 1, Math.ceil(share * ordered.length) - 1)];
}

function figure(parts) {
  const whole = { bench: "page", kind: "speed", floor: null, target: null, met: null, ratio_best: null, notes: [], ...parts };
  if (whole.target !== null) whole.met = whole.ratio >= whole.target;
  return whole;
}

// Of rounds in which both sides took a turn: `seconds` is [framework, twin] for each. `value` makes a side's figure of the
// seconds of one repeat.
export function fromRounds({ repeats, seconds }, value, parts) {
  const best = (side) => Math.min(...seconds.map((round) => round[side]));
  return figure({
    value: value(best(0) / repeats),
    twin_value: value(best(1) / repeats),
    ratio: median(seconds.map(([ours, twin]) => twin / ours)),
    ratio_best: best(1) / best(0),
    rounds: seconds.length,
    repeats,
    ...parts,
  });
}

// A percentile of single times, in milliseconds.
export function fromTrips(seconds, share, parts) {
  const [ours, twin] = [0, 1].map((side) => percentile(seconds.map((both) => both[side]), share) * 1e3);
  return figure({ unit: "ms", value: ours, twin_value: twin, ratio: twin / ours, rounds: seconds.length, repeats: 1, ...parts });
}
