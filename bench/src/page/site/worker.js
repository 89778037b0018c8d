// Measures, off the page's thread. Told { plan }, it answers with { progress } and { figures } as they come, then with { report };
// told { look }, with { seen }: what there is to measure with.
import init, { Executor } from "../peercompute.js";
import { small, speed, trip } from "./measure.js";
import { transfer } from "./transfer.js";
import { openDevice } from "./twins.js";

const BENCH = "page";
const text = (error) => String(error?.message ?? error);

// WebGPU on both sides; without, why.
async function open() {
  if (!navigator.gpu) {
    const why = self.isSecureContext ? "this browser has none, or has it switched off" : "browsers give it to pages over https alone, except at home";
    throw new Error(`no WebGPU here: ${why}; the twins are written for it, so there is nothing to measure against`);
  }
  const twins = await openDevice();
  if (!twins) throw new Error("no WebGPU here: the browser knows no adapter; is the graphics driver blocked?");
  await init({ module_or_path: new URL("../peercompute_bg.wasm", import.meta.url) });
  const executor = await Executor.open("gpu");
  if (executor.adapter !== twins.name) throw new Error(`the framework computes on "${executor.adapter}", the twins on "${twins.name}"`);
  return { executor, device: twins.device };
}

const opened = open();
// Whoever asks is told.
opened.catch(() => {});
const about = fetch("/bench/about.json").then((answer) => answer.json());

function adapter({ executor }) {
  return { name: executor.adapter || "unnamed", backend: executor.backend, is_software: executor.isSoftware };
}

async function look() {
  try {
    return { adapter: adapter(await opened) };
  } catch (error) {
    return { missing: text(error) };
  }
}

// The page's name for a system is good enough for people.
function host() {
  const os = navigator.userAgentData?.platform || navigator.platform || "unknown";
  return { os, arch: "wasm32", threads: navigator.hardwareConcurrency, is_optimised: true };
}

function steps(context, { sizes }) {
  const chosen = Object.entries(sizes).filter(([, size]) => size > 0);
  return [
    ...chosen.map(([name, size]) => [`${name}, ${size}`, () => speed(context, name, size)]),
    ["small dispatches and reads", () => small(context)],
    ["single ticks", () => trip(context)],
  ];
}

async function run(plan) {
  const known = await about;
  const report = {
    version: known.version,
    peercompute: known.peercompute,
    effort: plan.effort,
    host: host(),
    adapter: null,
    browser: { agent: navigator.userAgent, is_isolated: self.crossOriginIsolated },
    figures: [],
    failures: [],
  };
  const smallest = (name) => known.cases.find((known) => known.name === name).sizes[0].size;
  const context = { about: known, effort: known.efforts[plan.effort], smallest };
  const measure = async (progress, work) => {
    postMessage({ progress });
    try {
      const figures = await work();
      report.figures.push(...figures);
      postMessage({ figures });
    } catch (error) {
      report.failures.push({ bench: BENCH, cause: text(error) });
    }
  };
  try {
    Object.assign(context, await opened);
    report.adapter = adapter(context);
    for (const [progress, work] of steps(context, plan)) await measure(progress, work);
  } catch (error) {
    report.failures.push({ bench: BENCH, cause: text(error) });
  }
  await measure("bytes to and from the root", () => transfer(context));
  postMessage({ report });
}

self.onmessage = async ({ data }) => {
  try {
    if (data.look) postMessage({ seen: { ...(await look()), about: await about } });
    if (data.plan) await run(data.plan);
  } catch (error) {
    postMessage({ failed: text(error) });
  }
};
