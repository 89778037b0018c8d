// The module's other half, peercompute_cpu.wasm: all that it needs is exported by the first, its table among it.

let loading;

async function load(first) {
  if (!first.m) return;
  const answer = await fetch(new URL("../../../../peercompute_cpu.wasm", import.meta.url));
  if (!answer.ok) throw new Error(`${answer.url} answers ${answer.status}`);
  await WebAssembly.instantiate(await answer.arrayBuffer(), { first });
}

// One that was not loaded may be tried again.
export const rest = (first) => (loading ??= load(first).catch((cause) => ((loading = undefined), Promise.reject(cause))));
