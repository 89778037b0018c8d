// The member of this page: the network and the kernels, off the page's thread.
//
// A message { call, name, args } is answered by { call, done } or { call, failed }.
import init, { Executor, Member } from "./peercompute.js";

const ready = init({ module_or_path: new URL("peercompute_bg.wasm", import.meta.url) });
let executor;
let member;

// The signed bundle of a link, from the server that the page came from. The member verifies it.
async function fetchBundle(page, link) {
  const hash = link.split("#").pop().split(",")[2] ?? "";
  const answer = await fetch(new URL(`bundles/${hash}.pcb`, page));
  if (!answer.ok) throw new Error(`the server has no bundle for this link (${answer.status}): is it that of another run?`);
  return new Uint8Array(await answer.arrayBuffer());
}

const calls = {
  async join(link, page, options) {
    if (member) throw new Error("this page is a member already");
    await ready;
    const bundle = fetchBundle(page, link);
    const opened = Executor.open(options.executor ?? "auto", undefined, options.threads);
    // Both at once; whichever fails first is told.
    const [bytes, opening] = await Promise.all([bundle, opened]);
    executor = opening;
    member = await Member.join(executor, link, page, bytes, options.name ?? "browser");
    return member.status();
  },
  async status() {
    return member?.status() ?? {};
  },
  async tiles(buffer) {
    return present().tiles(buffer);
  },
  async read(buffer, tile) {
    const bytes = await present().read(buffer, tile);
    return { element: present().element(buffer), bytes };
  },
  async world() {
    return member?.world() ?? {};
  },
  async frame(buffer, pixelsMax) {
    return present().frame(buffer, pixelsMax);
  },
  async leave() {
    await present().leave();
  },
};

function present() {
  if (!member) throw new Error("this page is no member yet");
  return member;
}

self.onmessage = async ({ data: { call, name, args } }) => {
  try {
    const done = await calls[name](...args);
    self.postMessage({ call, done });
  } catch (error) {
    self.postMessage({ call, failed: String(error?.message ?? error) });
  }
};
