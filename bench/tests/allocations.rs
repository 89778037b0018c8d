//! Heap allocations of a tick, once everything is warm: the framework allocates what wgpu allocates, and two lists per
//! exchange in the mesh.
//!
//! The twin of the framework's recording is a bare loop over wgpu with the same dispatches in the same batches: one
//! dynamic offset each, a ring of uniforms written per batch, at most three batches under way. What GpuRun allocates
//! beyond that is its own. One test, because the counter is the process'.

#[path = "../../tests/counting/mod.rs"]
mod counting;

use std::collections::VecDeque;

use counting::allocations;
use peercompute_bench::kernels::load;
use peercompute_bench::twin::HeatTwin;
use peercompute_kernels::executor::gpu::{Borders, Gpu, GpuOptions};
use peercompute_kernels::executor::{Placement, Run, mesh};
use pollster::block_on;

/// Allocations per tick of `work(ticks)`, once it has run.
fn per_tick(mut work: impl FnMut(u32)) -> f64 {
    const TICKS: u32 = 1024;
    work(TICKS);
    let before = allocations();
    work(TICKS);
    (allocations() - before) as f64 / f64::from(TICKS)
}

/// What the gpu executor records, written by hand: `dispatches` a tick, 256 to a batch.
struct Bare<'a> {
    device: &'a wgpu::Device,
    queue: &'a wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    ring: wgpu::Buffer,
    stride: u64,
    dispatches: u32,
}

impl<'a> Bare<'a> {
    fn new(gpu: &'a Gpu, dispatches: u32) -> Bare<'a> {
        let (device, queue) = gpu.device();
        let wgsl = "@group(0) @binding(0) var<uniform> n: u32; @group(0) @binding(1) var<storage, read_write> a: array<u32>;
            @compute @workgroup_size(1) fn main() { a[n] = n; }";
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(wgsl.into()) });
        let entry = |binding, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
            count: None,
        };
        let storage = wgpu::BufferBindingType::Storage { read_only: false };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[entry(0, wgpu::BufferBindingType::Uniform, true), entry(1, storage, false)],
        });
        let pipeline_layout =
            device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor { label: None, bind_group_layouts: &[Some(&layout)], immediate_size: 0 });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let stride = u64::from(device.limits().min_uniform_buffer_offset_alignment).max(32);
        let buffer = |size, usage| device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        let ring = buffer(stride * 256, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let target = buffer(4096, wgpu::BufferUsages::STORAGE);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &ring, offset: 0, size: std::num::NonZeroU64::new(32) }),
                },
                wgpu::BindGroupEntry { binding: 1, resource: target.as_entire_binding() },
            ],
        });
        Bare { device, queue, pipeline, group, ring, stride, dispatches }
    }

    fn run(&self, ticks: u32, content: &[u8]) {
        let mut in_flight = VecDeque::with_capacity(8);
        let mut left = ticks * self.dispatches;
        while left > 0 {
            let batch = left.min(256);
            left -= batch;
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for at in 0..batch {
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &self.group, &[(u64::from(at) * self.stride) as u32]);
                pass.dispatch_workgroups(1, 1, 1);
            }
            drop(pass);
            self.queue.write_buffer(&self.ring, 0, &content[..(u64::from(batch) * self.stride) as usize]);
            in_flight.push_back(self.queue.submit([encoder.finish()]));
            while in_flight.len() > 3 {
                self.wait(in_flight.pop_front());
            }
        }
        self.wait(in_flight.pop_back());
    }

    fn wait(&self, submission: Option<wgpu::SubmissionIndex>) {
        self.device.poll(wgpu::PollType::Wait { submission_index: submission, timeout: None }).expect("the device finishes");
    }
}

#[test]
fn a_tick_allocates_what_wgpu_allocates() {
    // (borders, dispatches of a tick): one, or an interior and four borders.
    for (borders, dispatches) in [(Borders::InPlace, 1), (Borders::Apart, 5)] {
        let gpu = block_on(Gpu::open(GpuOptions { borders: Some(borders), ..GpuOptions::default() })).expect("an adapter");
        let bundle = load("heat", &[512, 64], &[512, 64]).expect("heat loads");
        let program = bundle.program();
        let exchanges = f64::from(program.tick(9).iter().filter(|op| matches!(op, peercompute_kernels::program::Op::Exchange(_))).count() as u32);
        let passes = program.tick(9).len() as f64 - exchanges;
        assert_eq!((exchanges, passes), (1.0, 1.0));
        let mut peers = [block_on(gpu.load(&bundle, &Placement::alone(program))).expect("heat fits")];
        let mut tick = 0;
        let meshed = per_tick(|ticks| {
            let range = tick..tick + u64::from(ticks);
            tick = range.end;
            block_on(async {
                mesh::run(program, &mut peers, range).await.expect("ticks run");
                peers[0].finish().await.expect("ticks end");
            });
        });
        let [run] = &mut peers;
        let driven = per_tick(|ticks| {
            block_on(async {
                for tick in 0..ticks {
                    run.pass(1, tick.into()).await.expect("a pass runs");
                }
                run.finish().await.expect("ticks end");
            });
        });
        let bare = Bare::new(&gpu, dispatches);
        let content = vec![0; bare.stride as usize * 256];
        let recorded = per_tick(|ticks| bare.run(ticks, &content));
        let (device, queue) = gpu.device();
        let twin = HeatTwin::new(device, queue, 128, true);
        let twins = per_tick(|ticks| twin.run(ticks));
        let line = format!(
            "{borders:?}, {dispatches} dispatches a tick: mesh and executor {meshed:.3}, executor {driven:.3}, bare wgpu {recorded:.3}, heat twin {twins:.3} allocations a tick"
        );
        eprintln!("{line}");
        // One allocation in a hundred ticks may be a queue of wgpu's that grew. Fewer would mean other dispatches.
        assert!((driven - recorded).abs() <= recorded * 0.02 + 0.01, "the executor allocates by itself: {line}");
        assert!(meshed - driven <= 2.0 * exchanges + 0.01, "the mesh allocates more than its two lists: {line}");
        assert!(recorded > 0.0 && twins > 0.0, "nothing was counted: {line}");
    }
}
