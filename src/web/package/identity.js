// Who a browser is to others from one visit to the next: a secret that it keeps for the page's origin.
//
// Invariant: one worker at a time has it, for as long as it lives; two of one identity would take each other's links. Who does
// not get it is somebody new, and is told why.

const NAME = "peercompute";
const SEED_BYTES = 32;

const answered = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function stored() {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(NAME);
  const database = await answered(opening);
  try {
    const kept = await answered(database.transaction(NAME).objectStore(NAME).get("seed"));
    if (kept instanceof Uint8Array && kept.length === SEED_BYTES) return kept;
    const seed = crypto.getRandomValues(new Uint8Array(SEED_BYTES));
    await answered(database.transaction(NAME, "readwrite").objectStore(NAME).put(seed, "seed"));
    return seed;
  } finally {
    database.close();
  }
}

// Whether this worker is the only one that has it; until it ends.
const isOurs = () =>
  new Promise((resolve, reject) => {
    const held = navigator.locks.request(NAME, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock && new Promise(() => {});
    });
    held.catch(reject);
  });

/** The secret that an identity is made of, or why there is none that is kept: { seed } or { why }. */
export async function identity(wanted) {
  if (wanted === "new") return { why: "a new one was asked for" };
  if (!self.isSecureContext) return { why: "browsers keep nothing safely for a page without TLS" };
  try {
    if (!(await isOurs())) return { why: "another tab or worker of this browser has the one that is kept" };
    return { seed: await stored() };
  } catch (cause) {
    return { why: `the browser keeps nothing for this page: ${cause?.message ?? cause}` };
  }
}
