// The page of a run: it joins by the link that it was opened with, in a worker, and says how it goes.
//
// `window.peercompute` is the same for the console: join, status, world, tiles, read, frame, leave.
const LOOK_EVERY_MS = 500;
// A picture is asked for when the one before has been drawn, and not more often than this.
const DRAW_EVERY_MS = 100;
const PIXELS_MAX = 1024;

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
  // Who computes what: { members, fields }.
  world: () => ask("world"),
  // A field as pixels: { width, height, low, high, pixels }.
  frame: (buffer, pixelsMax = PIXELS_MAX) => ask("frame", buffer, pixelsMax),
  leave: () => ask("leave"),
};
window.peercompute = peercompute;

const said = document.getElementById("said");
const shown = document.getElementById("status");
const leave = document.getElementById("leave");
const [world, field, owners, fields, low, high, outline, members] =
  ["world", "field", "owners", "fields", "low", "high", "outline", "members"].map((id) => document.getElementById(id));

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
function outlineOwners({ members: present, fields: all }) {
  const seen = all.find(({ name }) => name === fields.value);
  const pen = owners.getContext("2d");
  owners.width = field.width;
  owners.height = field.height;
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

let isOver = false;

// Draws for as long as this tab takes part. Nothing is drawn that nobody sees.
async function draw() {
  while (!isOver) {
    const next = new Promise((resolve) => setTimeout(resolve, DRAW_EVERY_MS));
    if (!document.hidden) {
      const now = await peercompute.world();
      if (now.fields?.length) {
        if (fields.options.length === 0) fields.append(...now.fields.map(({ name }) => new Option(name)));
        fields.hidden = now.fields.length === 1;
        const picture = await peercompute.frame(fields.value);
        [field.width, field.height] = [picture.width, picture.height];
        field.getContext("2d").putImageData(new ImageData(picture.pixels, picture.width, picture.height), 0, 0);
        [low.textContent, high.textContent] = [picture.low, picture.high].map((value) => Number(value.toPrecision(3)).toString());
        world.hidden = false;
        outlineOwners(now);
      }
      if (now.members) list(now);
    }
    await next;
  }
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
      isOver = true;
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
    // A picture that fails because the run has just ended is no news: the status tells.
    draw().catch((error) => isOver || say(error.message, "wrong"));
    await look();
  } catch (error) {
    say(error.message, "wrong");
  }
}

start();
