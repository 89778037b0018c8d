// Hand-written WebGPU twins of the workloads, as one would write them without a framework: contiguous arrays, two buffers that
// change places, everything made once, one compute pass for many ticks, one wait at the end.
//
// They share nothing with the framework but the adapter and the arithmetic: a twin has its own WGSL and seeds its own buffers.

// Ticks of one submission, as the twins in Rust have it.
const BATCH_TICKS = 256;
const LANES = 256;
// Workgroups along x; more go along y.
const GROUPS_MAX = 32768;
// Workgroups of a reduction's first dispatch, each with many values.
const PARTIALS = 1024;
// What shaders/worldgen/noise declares: frequency, gain, lacunarity, octaves, seed.
const NOISE = { floats: [0.0078125, 0.5, 2.0], words: [6, 1] };

// The adapter that a request without wishes gives, which is what the framework takes too.
export async function openDevice() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return undefined;
  const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits;
  const device = await adapter.requestDevice({ requiredLimits: { maxStorageBufferBindingSize, maxBufferSize } });
  const { vendor, architecture, device: model, description } = adapter.info;
  return { device, name: [vendor, architecture, model, description].filter(Boolean).join(" ") };
}

// What a tick's dispatches are: [pipeline, bind group, groups along x, along y] each; `ticks` has one list for each buffer
// that can be the present one.
class Twin {
  constructor(device, { seeds, ticks, outputs, buffers }) {
    Object.assign(this, { device, ticks, outputs, buffers, done: 0 });
    if (seeds.length > 0) this.submit((pass) => record(pass, seeds));
  }

  async run(count) {
    for (let left = count; left > 0; left -= BATCH_TICKS) {
      this.submit((pass) => {
        let last;
        for (let tick = 0; tick < Math.min(left, BATCH_TICKS); tick++) {
          last = record(pass, this.ticks[this.done++ % this.ticks.length], last);
        }
      });
    }
    await this.device.queue.onSubmittedWorkDone();
  }

  submit(encode) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    encode(pass);
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }

  // What has been computed, through a staging buffer that is made once.
  async read(bytes) {
    const source = this.outputs[this.done % this.outputs.length];
    const size = bytes ?? source.size;
    if (this.staging?.size !== size) {
      this.staging?.destroy();
      this.staging = this.device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    }
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, this.staging, 0, size);
    this.device.queue.submit([encoder.finish()]);
    await this.staging.mapAsync(GPUMapMode.READ);
    const content = this.staging.getMappedRange().slice(0);
    this.staging.unmap();
    return new Uint8Array(content);
  }

  free() {
    [this.staging, ...this.buffers].forEach((buffer) => buffer?.destroy());
  }
}

// Sets what differs from the dispatch before.
function record(pass, dispatches, last = []) {
  for (const [pipeline, group, x, y] of dispatches) {
    if (pipeline !== last[0]) pass.setPipeline(pipeline);
    if (group !== last[1]) pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y);
    last = [pipeline, group];
  }
  return last;
}

// What makes a twin's parts, for one WGSL text.
class Maker {
  constructor(device, code) {
    this.device = device;
    this.module = device.createShaderModule({ code });
    this.buffers = [];
  }

  storage(bytes) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
    const buffer = this.device.createBuffer({ size: bytes, usage });
    this.buffers.push(buffer);
    return buffer;
  }

  layout(...types) {
    const entries = types.map((type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }));
    return this.device.createBindGroupLayout({ entries });
  }

  pipeline(layout, entryPoint, constants = {}) {
    return this.device.createComputePipeline({
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: this.module, entryPoint, constants },
    });
  }

  group(layout, ...buffers) {
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    return this.device.createBindGroup({ layout, entries });
  }

  twin(parts) {
    return new Twin(this.device, { buffers: this.buffers, ...parts });
  }
}

const [READ, WRITE, UNIFORM] = ["read-only-storage", "storage", "uniform"];

// Workgroups for so many invocations, along x and y.
function spread(invocations) {
  const groups = Math.ceil(invocations / LANES);
  const x = Math.min(groups, GROUPS_MAX);
  return [x, Math.ceil(groups / x)];
}

function copy(make, size) {
  const layout = make.layout(READ, WRITE);
  const [source, result] = [make.storage(16 * size), make.storage(16 * size)];
  const seed = [make.pipeline(layout, "seed"), make.group(layout, result, source), ...spread(size)];
  const tick = [make.pipeline(layout, "copy"), make.group(layout, source, result), ...spread(size)];
  return { seeds: [seed], ticks: [[tick]], outputs: [result] };
}

function heat(make, size) {
  const constants = { n: size, workgroup_x: 64, workgroup_y: 4 };
  const groups = [Math.ceil(size / 64), Math.ceil(size / 4)];
  const layout = make.layout(READ, WRITE);
  const [even, odd] = [make.storage(4 * size * size), make.storage(4 * size * size)];
  const [onward, back] = [make.group(layout, even, odd), make.group(layout, odd, even)];
  const diffuse = make.pipeline(layout, "diffuse", constants);
  const seed = [make.pipeline(layout, "seed", constants), back, ...groups];
  return { seeds: [seed], ticks: [[[diffuse, onward, ...groups]], [[diffuse, back, ...groups]]], outputs: [even, odd] };
}

function nbody(make, size) {
  const layout = make.layout(READ, WRITE, WRITE);
  const [even, odd, velocity] = [0, 1, 2].map(() => make.storage(16 * size));
  const [onward, back] = [make.group(layout, even, odd, velocity), make.group(layout, odd, even, velocity)];
  const groups = [Math.ceil(size / LANES), 1];
  const advance = make.pipeline(layout, "advance");
  const seed = [make.pipeline(layout, "seed"), back, ...groups];
  return { seeds: [seed], ticks: [[[advance, onward, ...groups]], [[advance, back, ...groups]]], outputs: [even, odd] };
}

function sum(make, size) {
  const layout = make.layout(READ, WRITE);
  const partials = Math.min(Math.ceil(size / LANES), PARTIALS);
  const [value, partial, total] = [make.storage(4 * size), make.storage(4 * partials), make.storage(4)];
  const gather = make.pipeline(layout, "gather");
  const seed = [make.pipeline(layout, "seed"), make.group(layout, partial, value), partials, 1];
  const tick = [
    [gather, make.group(layout, value, partial), partials, 1],
    [gather, make.group(layout, partial, total), 1, 1],
  ];
  return { seeds: [seed], ticks: [tick], outputs: [total] };
}

function noise(make, size) {
  const layout = make.layout(WRITE, UNIFORM);
  const height = make.storage(4 * size * size);
  const params = make.device.createBuffer({ size: 32, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  make.buffers.push(params);
  make.device.queue.writeBuffer(params, 0, new Float32Array(NOISE.floats));
  make.device.queue.writeBuffer(params, 12, new Uint32Array(NOISE.words));
  const groups = Math.ceil(size / 16);
  const tick = [make.pipeline(layout, "raise", { n: size }), make.group(layout, height, params), groups, groups];
  return { seeds: [], ticks: [[tick]], outputs: [height] };
}

const TWINS = { copy, "heat": heat, "n-body": nbody, "reduce": sum, noise };
const SOURCES = { copy: "copy", "heat": "heat", "n-body": "nbody", "reduce": "sum", noise: "noise" };

// The twin of a case at a size. What the driver does not like is an error here, not a wrong result later.
export async function openTwin(device, name, size) {
  const code = await (await fetch(new URL(`${SOURCES[name]}_twin.wgsl`, import.meta.url))).text();
  ["validation", "out-of-memory"].forEach((filter) => device.pushErrorScope(filter));
  const make = new Maker(device, code);
  const twin = make.twin(TWINS[name](make, size));
  const errors = [await device.popErrorScope(), await device.popErrorScope()];
  const error = errors.find((error) => error);
  if (error) throw new Error(`the twin of ${name} is refused: ${error.message}`);
  return twin;
}
