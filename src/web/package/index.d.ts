/** What went wrong. */
export type Code =
  /** The link is none, was cut, or is another run's. */
  | "link"
  /** No key is pinned, or what is computed is signed by another. */
  | "key"
  /** The bundle was changed, or is another than was named. Nothing of it was compiled. */
  | "bundle"
  /** Nobody answers. */
  | "unreachable"
  /** Not invited, or turned away. */
  | "refused"
  /** Scripts or WebAssembly are blocked here. */
  | "blocked"
  /** What was asked for computes nothing here: no WebGPU, no adapter, or a limit. */
  | "executor"
  /** No such run, or this node takes part in it already. */
  | "run"
  /** An option or an argument has a value that it cannot have. */
  | "option"
  /** The tile is another member's now. */
  | "tile"
  /** The others were lost, or too much of the state with them. */
  | "lost"
  /** The GPU went away. */
  | "device"
  /** This node has left, or its part in the run is over. */
  | "left"
  /** Anything else. */
  | "failed";

/** What went wrong, for people (`message`) and for programs (`code`). */
export class PeerComputeError extends Error {
  readonly name: "PeerComputeError";
  readonly code: Code;
  constructor(message: string, code?: Code);
}

export interface JoinOptions {
  /** Whose code may run: a public key, as `peercompute keygen` writes it or as 64 hexadecimal digits. By default the link's. */
  key?: string;
  /** The invitation, 32 hexadecimal digits. By default the link's, or what a server gives everybody. */
  token?: string;
  /** What computes: `"auto"` (WebGPU on hardware, otherwise the cpu), `"gpu"`, `"cpu"`, or a part of an adapter's name. */
  executor?: string;
  /** Workers that share the cpu executor's work out; 1 to 256, by default as many as the machine runs at once. */
  threads?: number;
  /** A name for the others. */
  name?: string;
  /**
   * Who this page is to the others. `"kept"`, the default: the same from one visit to the next, by a secret that the browser keeps
   * for the page's origin; one tab at a time has it, and a page that may keep nothing is somebody new. `"new"`: nobody who was
   * here before.
   */
  identity?: "kept" | "new";
}

/**
 * Meets the server of a link, and verifies what it computes. The link's fragment pins the key and is the invitation; for a
 * server that invites everybody (`peercompute serve --open`), an address and `options.key` are enough.
 *
 * Rejects with a {@link PeerComputeError}.
 */
export function join(link: string | URL, options?: JoinOptions): Promise<Node>;

export interface RunOptions {
  /** `"auto"`: a share by measured speed; `"none"`: look on, and compute nothing. */
  tiles?: "auto" | "none";
}

/** This page at a server. */
export class Node {
  private constructor();
  /** What can be joined here, a link's own run first. */
  readonly runs: { name: string; version: string }[];
  /** Takes part in a run; by default in the link's own. */
  run(name?: string, options?: RunOptions): Promise<Run>;
  /** Leaves every run in good order: what this page owns is handed over first. */
  leave(): Promise<void>;
}

export interface Status {
  peerId: string;
  /** Members of the run, this one included. */
  peers: number;
  workload: string;
  version: string;
  /** The next tick. */
  tick: number;
  /** Membership epochs so far. */
  epoch: number;
  executor: "gpu" | "cpu";
  adapter: string;
  /** Why it is not the GPU, where that went away again and again. */
  executorNote?: string;
  /** Whether the adapter only imitates a GPU. */
  isSoftware: boolean;
  tilesOwned: number;
  /** Whether no tick passes, because somebody wished so. */
  isPaused: boolean;
  /** Of this page's tiles. */
  elementsPerSecond: number;
  /** The longest round trip to another member, smoothed; 0 before one was measured. **Units**: milliseconds. */
  roundTripMs: number;
  /** Bytes that came from other members since this page joined, and that went to them. */
  bytesIn: number;
  bytesOut: number;
  /** Whether the identity is the one that this browser keeps, and if not, why. */
  identity: "kept" | "new";
  identityNote?: string;
  /** Why no tick passes: too few of the others can be reached, or the GPU went away. It is tried again until they can, or this page leaves. */
  lost?: string;
  ended?: "finished" | "left" | "failed";
  /** Of a run that has come to its end. */
  stateHash?: string;
  /** Why it failed. */
  error?: string;
  code?: Code;
}

export interface World {
  /** Who takes part, in the order in which `owners` counts. Nobody before the first epoch. */
  members?: { id: number; name: string; tiles: number; isMe: boolean }[];
  /** What can be seen. */
  fields?: {
    name: string;
    /** Points along x, y, z. */
    shape: Uint32Array;
    /** The same of a tile. */
    tile: Uint32Array;
    /** Per tile, the place of its owner in `members`. */
    owners: Uint16Array;
  }[];
}

export interface Frame {
  width: number;
  height: number;
  /** The values of the darkest and the brightest colour. */
  low: number;
  high: number;
  /** Red, green, blue and alpha of each pixel, row by row; for an `ImageData`. What is not known here is transparent. */
  pixels: Uint8ClampedArray<ArrayBuffer>;
}

export interface DrawOptions {
  /** Light it as a landscape whose heights the values are. */
  relief?: boolean;
  /** The longer side, at most; 1024 unless given, at most 2048. */
  pixelsMax?: number;
  /** Hears twice a second of the values of the darkest and the brightest colour, and of how many frames have been drawn. */
  onRange?: (range: { low?: number; high?: number; framesPerSecond: number }) => void;
}

export interface Param {
  name: string;
  /** Its WGSL type. */
  element: string;
  value: number | number[];
}

export type Ended = { state: "finished"; stateHash: string } | { state: "left" } | { state: "failed"; error: string; code: Code };

/** Elements as numbers, where all their words are of one kind; as bytes otherwise. */
export type Elements = Float32Array | Uint32Array | Int32Array | Uint8Array;

/** This page's part in a run. */
export class Run {
  private constructor();
  readonly name: string;
  /** How it ended, once it has. Never rejects. */
  readonly ended: Promise<Ended>;
  /** Calls with the newest tick whenever there is another, some sixty times a second at most; returns what ends that. */
  onTick(listener: (tick: number) => void): () => void;
  status(): Promise<Status>;
  /** The tiles of a buffer that this page owns. */
  tiles(buffer: string): Promise<Uint32Array>;
  /**
   * A tile of this page's, row by row, as it is between two ticks. Vectors are as WGSL lays them out: one of three lanes takes
   * four.
   */
  read<T extends Elements = Float32Array>(buffer: string, tile: { tile: number }): Promise<T>;
  /** Who computes what. */
  world(): Promise<World>;
  /** A field as pixels, its longer side of at most so many (1024 unless given, at most 2048). */
  frame(buffer: string, pixelsMax?: number): Promise<Frame>;
  /**
   * Draws a field on a canvas from now on, straight from the GPU's buffers, a frame for each of the screen's. The canvas is the
   * drawing's for good, whatever comes of it. Returns what ends it.
   *
   * Rejects with the code `"executor"` where the cpu computes, or the field is neither a plane nor points: `frame` shows it then.
   */
  draw(canvas: HTMLCanvasElement | OffscreenCanvas, buffer: string, options?: DrawOptions): Promise<() => void>;
  /** The workload's parameters as they are; those that are no scalars or vectors are left out. Empty before the first epoch. */
  params(): Promise<Param[]>;
  /** Wishes for another value of a parameter: all members compute with it from one and the same tick on, soon. */
  set(name: string, value: number | boolean | number[]): Promise<void>;
  /** Wishes that no tick passes, for all members; they may come and go meanwhile. */
  pause(): Promise<void>;
  /** Wishes that ticks pass again. */
  resume(): Promise<void>;
  /** Leaves in good order; done when what this page owned is somebody else's. */
  leave(): Promise<void>;
}
