// The page of a server: it takes part in the run of the link that it was opened with, or in another of the same server, and shows it.
//
// `window.peercompute` is the same for the console: { node, run, status, tiles, read, world, frame, leave }, of the run that is shown.
import { PeerComputeError, join } from "./index.js";

const LOOK_EVERY_MS = 500;
const WRONG_MS = 6000;
// A picture is asked for when the one before has been drawn, and not more often than this.
const DRAW_EVERY_MS = 100;
const PIXELS_MAX = 1024;

let node;
let run;

function present() {
  if (!run) throw new PeerComputeError("this page is no member yet", "run");
  return run;
}

window.peercompute = {
  get node() {
    return node;
  },
  get run() {
    return run;
  },
  status: async () => (run ? run.status() : {}),
  tiles: async (buffer) => present().tiles(buffer),
  read: async (buffer, tile) => present().read(buffer, tile),
  world: async () => (run ? run.world() : {}),
  frame: async (buffer, pixelsMax = PIXELS_MAX) => present().frame(buffer, pixelsMax),
  leave: async () => present().leave(),
};

const said = document.getElementById("said");
const shown = document.getElementById("status");
const leave = document.getElementById("leave");
let field = document.getElementById("field");
let redraw = false;
const [world, owners, fields, low, high, scale, outline, members, runs, pause, params, relief] =
  ["world", "owners", "fields", "low", "high", "scale", "outline", "members", "runs", "pause", "params", "relief"].map((id) => document.getElementById(id));

let heldUntil = 0;

// What is held stands so long, whatever else there is to say of how it goes.
function say(text, kind = "", heldMs = 0) {
  said.textContent = text;
  said.className = kind;
  heldUntil = performance.now() + heldMs;
}

function si(value) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${(value / size).toFixed(2)} ${unit}`;
  }
  return value.toFixed(0);
}

let counted;

// Bytes a second, in and out, since the status before.
function traffic(status) {
  const now = performance.now();
  const last = counted?.run === run ? counted : undefined;
  counted = { run, now, in: status.bytesIn, out: status.bytesOut };
  // A member that came back counts anew.
  const rate = (way) => (last ? Math.max(0, counted[way] - last[way]) / ((now - last.now) / 1e3) : 0);
  return `${(rate("in") / 1e6).toFixed(2)} / ${(rate("out") / 1e6).toFixed(2)} MB/s`;
}

function show(status) {
  const rows = {
    Workload: `${status.workload} ${status.version}`,
    Tick: status.tick.toLocaleString(),
    Members: status.peers,
    "Tiles of mine": status.tilesOwned,
    "Elements/s": si(status.elementsPerSecond),
    Computed: `${status.executor}: ${status.adapter}${status.executorNote ? ` (${status.executorNote})` : ""}`,
    "Round trip": status.roundTripMs > 0 ? `${status.roundTripMs.toFixed(1)} ms` : "–",
    "In / out": traffic(status),
    "Known as": `…${status.peerId.slice(-6)} (${status.identityNote ?? "kept by this browser"})`,
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

// A hue for each member, as far from those before it as can be.
const hue = (id, alpha = 1) => `hsl(${(id * 137.508) % 360} 85% 60% / ${alpha})`;

function list({ members: present }) {
  members.replaceChildren(
    ...present.map(({ id, name, tiles, isMe }) => {
      const [item, mark] = [document.createElement("li"), document.createElement("i")];
      // The policy lets no style attribute through; a property is none.
      mark.style.background = hue(id);
      item.append(mark, `${name}${isMe ? " (this tab)" : ""}: ${tiles} tiles`);
      return item;
    }),
  );
}

// The borders between owners, and this tab's tiles a little brighter.
function outlineOwners({ members: present, fields: all }, shape) {
  const seen = all.find(({ name }) => name === fields.value);
  const pen = owners.getContext("2d");
  // A canvas that a worker draws on tells no size.
  const step = Math.ceil(Math.max(shape[0], shape[1]) / PIXELS_MAX);
  [owners.width, owners.height] = shape[1] === 1 ? [PIXELS_MAX, PIXELS_MAX] : [Math.ceil(shape[0] / step), Math.ceil(shape[1] / step)];
  if (!seen || !outline.checked || seen.shape[1] === 1) return;
  const [across, down] = [0, 1].map((axis) => Math.ceil(seen.shape[axis] / seen.tile[axis]));
  const [width, height] = [0, 1].map((axis) => (seen.tile[axis] / seen.shape[axis]) * [owners.width, owners.height][axis]);
  const layer = Math.floor(seen.shape[2] / 2 / seen.tile[2]) * across * down;
  const owner = (x, y) => (x < 0 || y < 0 || x >= across || y >= down ? -1 : seen.owners[layer + y * across + x]);
  pen.lineWidth = Math.max(2, owners.width / 300);
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      const mine = owner(x, y);
      const { id, isMe } = present[mine];
      const [left, top, right, bottom] = [x * width, y * height, (x + 1) * width, (y + 1) * height];
      if (isMe) {
        pen.fillStyle = "rgb(255 255 255 / 0.12)";
        pen.fillRect(left, top, width, height);
      }
      pen.strokeStyle = hue(id);
      const inset = pen.lineWidth / 2;
      for (const [dx, dy, line] of [
        [-1, 0, [left + inset, top, left + inset, bottom]],
        [1, 0, [right - inset, top, right - inset, bottom]],
        [0, -1, [left, top + inset, right, top + inset]],
        [0, 1, [left, bottom - inset, right, bottom - inset]],
      ]) {
        if (owner(x + dx, y + dy) === mine) continue;
        pen.beginPath();
        pen.moveTo(line[0], line[1]);
        pen.lineTo(line[2], line[3]);
        pen.stroke();
      }
    }
  }
}

function legend(range) {
  // Points have none.
  [low.textContent, high.textContent] = [range.low, range.high].map((value) => (value === undefined ? "" : Number(value.toPrecision(3)).toString()));
}

// A canvas that nothing has been drawn on: one that a worker draws on is its for good.
function blank() {
  const canvas = field.cloneNode();
  field.replaceWith(canvas);
  return (field = canvas);
}

// A member that is lost shows nothing, until it is back.
const unlessLost = (shown) => async (error) => {
  if ((await shown.status()).lost === undefined) throw error;
};

// Draws a field for as long as it is the one that is shown: on the GPU where it is there, and from pixels otherwise. Nothing is
// drawn that nobody sees.
async function draw(shown) {
  fields.replaceChildren();
  const isShown = (name) => run === shown && (name === undefined || fields.value === name);
  let stop;
  let name;
  let drawnBy;
  for (; isShown(); await new Promise((resolve) => setTimeout(resolve, DRAW_EVERY_MS))) {
    if (document.hidden) continue;
    const { executor, isSoftware, lost } = await shown.status();
    if (lost) continue;
    const now = await shown.world();
    if (now.members) list(now);
    if (!now.fields?.length) continue;
    if (fields.options.length === 0) {
      fields.append(...now.fields.map(({ name }) => new Option(name)));
      // Of a landscape the land is what one looks for, by its light.
      const land = now.fields.find(({ name }) => name === "height");
      relief.checked = land !== undefined;
      if (land) fields.value = land.name;
    }
    fields.hidden = now.fields.length === 1;
    const options = { relief: relief.checked, pixelsMax: PIXELS_MAX, onRange: legend };
    if (name === undefined || !isShown(name) || redraw || drawnBy !== executor) {
      stop?.();
      [name, redraw, drawnBy] = [fields.value, false, executor];
      // Software that imitates a GPU computes, and in some browsers dies of a canvas.
      const isWanted = executor === "gpu" && (!isSoftware || query.get("draw") === "gpu");
      stop = isWanted ? await shown.draw(blank(), name, options).catch(() => blank() && undefined) : undefined;
      const isPlane = now.fields.find((field) => field.name === name).shape[1] > 1;
      relief.parentElement.hidden = !stop || !isPlane;
      scale.hidden = !isPlane;
    }
    const { shape } = now.fields.find((field) => field.name === name);
    if (!stop) {
      const picture = await shown.frame(name, PIXELS_MAX).catch(unlessLost(shown));
      if (!picture || !isShown(name)) continue;
      [field.width, field.height] = [picture.width, picture.height];
      field.getContext("2d").putImageData(new ImageData(picture.pixels, picture.width, picture.height), 0, 0);
      legend(picture);
    }
    world.hidden = false;
    outlineOwners(now, shape);
  }
  stop?.();
}

// A field to type in for each parameter; what another member has changed is seen as well.
async function listParams(seen) {
  const now = await seen.params();
  if (run !== seen) return;
  params.hidden = now.length === 0;
  for (const { name, element, value } of now) {
    let input = params.elements.namedItem(name);
    if (!input) {
      const label = document.createElement("label");
      [label.textContent, label.title, label.htmlFor] = [name, element, `param-${name}`];
      input = document.createElement("input");
      [input.id, input.name, input.inputMode] = [`param-${name}`, name, "decimal"];
      input.onchange = () => {
        const lanes = input.value.split(",").map((lane) => (lane.trim() === "" ? NaN : Number(lane)));
        if (!lanes.every(Number.isFinite)) return wrong({ message: `${name} takes ${lanes.length > 1 ? "numbers" : "a number"}: ${element}` });
        seen.set(name, lanes.length === 1 ? lanes[0] : lanes).catch(wrong);
      };
      params.append(label, input);
    }
    // As many digits as an f32 has.
    const text = [value].flat().map((lane) => Number(lane.toPrecision(7))).join(", ");
    if (document.activeElement !== input) input.value = text;
  }
}

params.onsubmit = (event) => {
  event.preventDefault();
  document.activeElement?.blur();
};

// How it goes, in words.
function now(status) {
  if (status.lost) return [`${status.lost.replace(/\.$/, "")}. Trying again…`, "wrong"];
  if (status.epoch === 0) return ["Joining…"];
  if (status.isPaused) return ["Paused, for all members."];
  return [status.tilesOwned > 0 ? "This tab computes a part of the world." : "This tab takes part, and has no tiles at present."];
}

async function look(seen) {
  params.replaceChildren();
  while (run === seen) {
    const status = await seen.status();
    show(status);
    if (status.ended) return;
    pause.hidden = status.epoch === 0;
    pause.textContent = status.isPaused ? "Go on" : "Pause";
    pause.onclick = () => (status.isPaused ? seen.resume() : seen.pause()).catch(wrong);
    await listParams(seen);
    if (run === seen && performance.now() >= heldUntil) say(...now(status));
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

const ENDS = {
  finished: ({ stateHash }) => say(`The run has come to its end: ${stateHash}`, "", Infinity),
  left: () => say("You have left the run.", "", Infinity),
  failed: ({ error }) => say(error, "wrong", Infinity),
};

const wrong = (error) => say(error.message, "wrong", WRONG_MS);

// Takes part in a run, and in no other.
async function take(name) {
  runs.disabled = true;
  leave.hidden = pause.hidden = params.hidden = true;
  try {
    const before = run;
    run = undefined;
    if (before) {
      say("Leaving: what this tab owns is handed over first…");
      await before.leave();
    }
    say("Joining…");
    const joined = await node.run(name);
    run = joined;
    leave.hidden = leave.disabled = false;
    let isOver = false;
    joined.ended.then((ended) => {
      isOver = true;
      if (run !== joined) return;
      leave.hidden = pause.hidden = params.hidden = true;
      ENDS[ended.state](ended);
    });
    // A picture that fails because the run has just ended is no news: its end is told.
    const unlessOver = (error) => run !== joined || setTimeout(() => isOver || wrong(error), LOOK_EVERY_MS);
    draw(joined).catch(unlessOver);
    look(joined).catch(unlessOver);
  } catch (error) {
    wrong(error);
  }
  runs.disabled = false;
}

relief.onchange = () => (redraw = true);

leave.onclick = () => {
  leave.disabled = true;
  say("Leaving: what this tab owns is handed over first…", "", Infinity);
  run.leave().catch(wrong);
};

const query = new URLSearchParams(location.search);

async function start() {
  if (!location.hash.includes("pc1,")) {
    return say("This page takes part in a run, and the address is only half of the invitation: open the whole link, with all that follows #.", "wrong");
  }
  const [executor, threads, name] = ["executor", "threads", "name"].map((option) => query.get(option) || undefined);
  // What is no number is told as it is.
  const options = { executor, name, threads: threads && (Number(threads) || threads) };
  say("Joining…");
  try {
    node = await join(location.href, options);
  } catch (error) {
    return wrong(error);
  }
  runs.replaceChildren(...node.runs.map(({ name }) => new Option(name)));
  runs.hidden = node.runs.length === 1;
  runs.onchange = () => take(runs.value);
  await take(query.get("run") ?? undefined);
  if (run) runs.value = run.name;
}

start();
