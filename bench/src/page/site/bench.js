// The benchmark page: one button, sizes to choose, a table, and the report as JSON. All that takes time is in a worker.
//
// `?start` presses the button; `effort` and a case's name choose, as in `?start&effort=full&heat=4096`; 0 leaves a case out. `?tell`
// posts progress and report to the server, which is how `peercompute bench --browser` hears of them. For the console and for tests
// there is `peercomputeBench.report`.
import { fill } from "./table.js";

const query = new URLSearchParams(location.search);
const element = (id) => document.getElementById(id);
const [adapter, sizes, effort, start, said, results, table, failures, json, copy] =
  ["adapter", "sizes", "effort", "start", "said", "results", "table", "failures", "json", "copy"].map(element);
const state = { report: undefined, isBusy: false };
window.peercomputeBench = state;
let figures = [];

// One after the other: requests of their own would overtake each other.
let told = Promise.resolve();
function tell(what) {
  if (query.has("tell")) told = told.then(() => fetch("/bench/told", { method: "POST", body: JSON.stringify(what) }));
}

function say(text, kind = "") {
  said.textContent = text;
  said.className = kind;
}

// A choice of sizes for each case: what the query says, or what suits the adapter.
function offer({ cases }, isSoftware) {
  const offered = cases.map(({ name, sizes }) => {
    const [label, choice] = [document.createElement("label"), document.createElement("select")];
    choice.name = name;
    choice.append(...sizes.map(({ label, size }) => new Option(label, size)), new Option("left out", 0));
    choice.value = query.get(name) ?? sizes[query.get("effort") === "tiny" ? 0 : isSoftware ? 1 : 2].size;
    label.append(name, choice);
    return label;
  });
  sizes.replaceChildren(...offered);
  if (query.has("effort")) effort.value = query.get("effort");
}

function chosen() {
  return Object.fromEntries([...sizes.querySelectorAll("select")].map(({ name, value }) => [name, Number(value)]));
}

function measure() {
  if (state.isBusy) return;
  [state.isBusy, state.report, figures] = [true, undefined, []];
  start.disabled = copy.disabled = true;
  failures.replaceChildren();
  [json.value, results.hidden] = ["", true];
  worker.postMessage({ plan: { effort: effort.value, sizes: chosen() } });
}

function done(report) {
  failures.replaceChildren(
    ...report.failures.map(({ cause }) => {
      const item = document.createElement("li");
      item.className = "wrong";
      item.textContent = cause;
      return item;
    }),
  );
  fill(table, report.figures);
  json.value = JSON.stringify(report, null, 2);
  results.hidden = false;
  [state.report, state.isBusy] = [report, false];
  start.disabled = copy.disabled = false;
  if (report.failures.length > 0) say("Done, with failures.", "wrong");
  else say(report.effort === "tiny" ? "Done. So little work tests the page, and says nothing of speed." : "Done.");
}

const heard = {
  seen({ adapter: found, missing, about }) {
    offer(about, found?.is_software);
    adapter.textContent = missing ?? (found.is_software ? `${found.name}: a software adapter, only ratios mean anything` : found.name);
    adapter.className = missing ? "wrong" : found.is_software ? "software" : "";
    start.disabled = false;
    if (query.has("start")) measure();
  },
  progress: (step) => say(`Measuring ${step}…`),
  figures(more) {
    figures.push(...more);
    fill(table, figures);
    results.hidden = false;
  },
  report: done,
  failed(cause) {
    say(cause, "wrong");
    [state.isBusy, start.disabled] = [false, false];
  },
};

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "peercompute bench" });
worker.onmessage = ({ data }) => {
  for (const [name, what] of Object.entries(data)) {
    heard[name](what);
    if (name !== "seen" && name !== "figures") tell({ [name]: what });
  }
};
worker.onerror = (event) => {
  const failed = event.message ?? "the worker did not start: are scripts or WebAssembly blocked here?";
  heard.failed(failed);
  tell({ failed });
};
worker.postMessage({ look: true });

element("plan").onsubmit = (event) => {
  event.preventDefault();
  measure();
};

copy.onclick = async () => {
  try {
    await navigator.clipboard.writeText(json.value);
    copy.textContent = "Copied";
  } catch {
    // Without leave to write there: it is selected, for the keys.
    json.closest("details").open = true;
    json.select();
    copy.textContent = "Selected: copy it with the keys";
  }
};
