//! One program resident on one device: arenas, pipelines, and the recording of work.
//!
//! Commands are recorded into one encoder and submitted when a batch is full, when bytes are needed,
//! or on `flush`; at most [`IN_FLIGHT_MAX`] batches are under way, so that a fast CPU does not queue
//! minutes of work. Every buffer exists from the start; a tick allocates nothing here.
//! Invariant: a pass sees everything recorded before it.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use peercompute_buffers::TileId;
use peercompute_buffers::exchange::CopySet;
use peercompute_buffers::transfer::tile_bytes;

use super::memory::Memory;
use super::profile::{PassTime, Profile};
use super::tables::{Step, Table, layout_entry};
use super::{CachedPipeline, Checks, Gpu, Submitted};
use crate::declaration::Extent;
use crate::executor::arenas::{self, Shown};
use crate::executor::dispatch::{DispatchUniform, Part, PassDispatches};
use crate::executor::{ExecutorError, Layout, Piece, Placement, Run};
use crate::manifest::Pass;
use crate::program::{Binding, CheckedPass, Fresh, Program, Role, Write};

/// Dispatches recorded before a batch is submitted.
const BATCH_MAX: usize = 256;
/// Batches submitted and not yet done.
const IN_FLIGHT_MAX: usize = 3;
/// A staging buffer up to this size is kept for the next reading: making and dropping one costs a browser a millisecond.
const READING_BYTES_MAX: u64 = 1 << 20;
/// What is read at a time, if it is more than one piece: each time waits for the device.
const READ_BYTES_MAX: u64 = 16 << 20;
/// The framework's copy kernel.
const COPY_WGSL: &str = include_str!("../../../../shaders/framework/copy.wgsl");

/// The copies of a field's page.
struct PageCopies {
    /// One buffer, or two for a field that passes swap.
    sides: Vec<wgpu::Buffer>,
}

struct PassPipelines {
    layout: wgpu::BindGroupLayout,
    /// One for each part that a dispatch needs.
    parts: Vec<(Part, wgpu::ComputePipeline)>,
    dispatches: PassDispatches,
}

struct CopyJob {
    set: CopySet,
    bindings: Vec<wgpu::BindGroup>,
    groups: [u32; 2],
}

struct Mail {
    pack: Vec<CopyJob>,
    unpack_local: Vec<CopyJob>,
    unpack: Vec<CopyJob>,
    outbox: wgpu::Buffer,
    inbox: wgpu::Buffer,
    staging: Option<wgpu::Buffer>,
    send_bytes: u64,
    receive_bytes: Vec<std::ops::Range<usize>>,
    tables: Vec<usize>,
    /// Of its buffers.
    bytes: u64,
}

/// A program resident on a [`Gpu`].
pub struct GpuRun<'a> {
    gpu: &'a Gpu,
    memory: Memory<'a>,
    program: Arc<Program>,
    layout: Layout,
    /// Per buffer, per page; a table has one page.
    arenas: Vec<Vec<PageCopies>>,
    /// Per buffer, which side is current.
    side: Vec<usize>,
    tables: Vec<Option<Table>>,
    tile_tables: Vec<Vec<wgpu::Buffer>>,
    params: wgpu::Buffer,
    params_bytes: Vec<u8>,
    params_changed: bool,
    pipelines: Vec<PassPipelines>,
    bind_groups: HashMap<(usize, usize, u64), wgpu::BindGroup>,
    copy_layout: wgpu::BindGroupLayout,
    copy_pipeline: wgpu::ComputePipeline,
    mail: Vec<Mail>,
    ring: wgpu::Buffer,
    ring_stride: u64,
    ring_content: Vec<u8>,
    ring_used: usize,
    encoder: Option<wgpu::CommandEncoder>,
    open_pass: Option<wgpu::ComputePass<'static>>,
    /// The pipeline that the open pass has set last, if it is a kernel's.
    set_part: Option<(usize, Part)>,
    /// The staging buffer of the last reading.
    reading: Option<wgpu::Buffer>,
    in_flight: VecDeque<Submitted>,
    profile: Option<Profile>,
}

impl<'a> GpuRun<'a> {
    pub(crate) async fn new(gpu: &'a Gpu, program: Program, layout: Layout) -> Result<GpuRun<'a>, ExecutorError> {
        let memory = Memory::new(gpu);
        let arenas = memory.guarded(|| make_arenas(&memory, &program, &layout)).await?;
        let mut tables = Vec::new();
        for (buffer, pages) in arenas.iter().enumerate() {
            tables.push(match program.manifest.buffers[buffer].extent {
                Extent::Table { .. } => Table::new(gpu, &memory, &program, &layout, buffer, &pages[0].sides[0])?,
                Extent::Field { .. } => None,
            });
        }
        let tile_tables: Vec<Vec<wgpu::Buffer>> = memory
            .guarded(|| {
                let table =
                    |rows: &Vec<i32>| memory.constant("tile table", bytemuck::cast_slice(if rows.is_empty() { &[0; 16] } else { rows.as_slice() }));
                layout.grids.iter().map(|residency| residency.pages.iter().map(|page| table(&page.table)).collect()).collect()
            })
            .await?;
        let params_bytes = program.manifest.params.clone();
        let params = memory.uniform("params", &params_bytes);
        let ring_stride = (size_of::<DispatchUniform>() as u64).next_multiple_of(gpu.limits.min_uniform_buffer_offset_alignment.into());
        let ring = memory.buffer("dispatches", ring_stride * BATCH_MAX as u64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let (copy_layout, copy_pipeline) = copy_pipeline(gpu);
        let mut pipelines = Vec::new();
        for index in 0..program.passes.len() {
            pipelines.push(pass_pipelines(gpu, &program, &layout, index).await?);
        }
        let mail = memory
            .guarded(|| (0..layout.exchanges.len()).map(|x| make_mail(gpu, &memory, &program, &layout, &arenas, &tables, &copy_layout, x)).collect())
            .await?;
        let side = vec![0; arenas.len()];
        let profile = if gpu.options.is_profiled { Profile::new(gpu, &memory, program.passes.len()) } else { None };
        let mut run = GpuRun {
            gpu,
            program: Arc::new(program),
            layout,
            arenas,
            side,
            tables,
            tile_tables,
            params,
            params_bytes,
            params_changed: false,
            pipelines,
            bind_groups: HashMap::new(),
            copy_layout,
            copy_pipeline,
            mail,
            ring,
            ring_stride,
            ring_content: vec![0; ring_stride as usize * BATCH_MAX],
            ring_used: 0,
            encoder: None,
            open_pass: None,
            set_part: None,
            reading: None,
            in_flight: VecDeque::new(),
            profile,
            memory,
        };
        run.write_constants();
        Ok(run)
    }

    /// Boundary constants and the content of tables: written once, on every side.
    fn write_constants(&mut self) {
        for (buffer, declared) in self.program.manifest.buffers.iter().enumerate() {
            if !declared.values.is_empty() {
                self.gpu.queue.write_buffer(&self.arenas[buffer][0].sides[0], 0, &declared.values);
            }
            let stride = u64::from(self.program.elements[buffer].stride);
            for (page, copies) in self.arenas[buffer].iter().enumerate() {
                for elements in arenas::constant_elements(&self.program, &self.layout, buffer, page) {
                    let content = declared.constant.repeat(elements.len());
                    copies.sides.iter().for_each(|side| self.gpu.queue.write_buffer(side, u64::from(elements.start) * stride, &content));
                }
            }
        }
    }

    fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.open_pass = None;
        self.encoder.get_or_insert_with(|| self.gpu.device.create_command_encoder(&Default::default()))
    }

    fn compute(&mut self) -> &mut wgpu::ComputePass<'static> {
        let encoder = self.encoder.get_or_insert_with(|| self.gpu.device.create_command_encoder(&Default::default()));
        self.open_pass.get_or_insert_with(|| {
            self.set_part = None;
            encoder.begin_compute_pass(&Default::default()).forget_lifetime()
        })
    }

    fn submit(&mut self) -> Result<(), ExecutorError> {
        self.open_pass = None;
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        let stamps = self.profile.as_ref().and_then(|profile| profile.resolve(&mut encoder));
        if self.ring_used > 0 {
            let bytes = self.ring_used * self.ring_stride as usize;
            self.gpu.queue.write_buffer(&self.ring, 0, &self.ring_content[..bytes]);
            self.ring_used = 0;
        }
        self.in_flight.push_back(self.gpu.submit(encoder.finish()));
        self.after_submit(stamps)?;
        self.gpu.lost()
    }

    /// Reads what a profile timed, and waits until no more than [`IN_FLIGHT_MAX`] batches are under way.
    #[cfg(not(target_arch = "wasm32"))]
    fn after_submit(&mut self, stamps: Option<(wgpu::Buffer, u64)>) -> Result<(), ExecutorError> {
        if let Some((staging, bytes)) = stamps
            && let Some(mut profile) = self.profile.take()
        {
            let read = self.map_now(&staging, bytes, &mut |stamps| profile.add(stamps));
            self.profile = Some(profile);
            read?;
        }
        while self.in_flight.len() > IN_FLIGHT_MAX {
            let oldest = self.in_flight.pop_front();
            self.gpu.wait(oldest)?;
        }
        Ok(())
    }

    /// A browser does not let code wait in the midst of a pass: its runs are not profiled, and whoever records many
    /// ticks awaits [`Run::keep_up`] now and then. Batches that nobody waits for are done before the newer ones.
    #[cfg(target_arch = "wasm32")]
    fn after_submit(&mut self, _stamps: Option<(wgpu::Buffer, u64)>) -> Result<(), ExecutorError> {
        while self.in_flight.len() > IN_FLIGHT_MAX + 1 {
            self.in_flight.pop_front();
        }
        Ok(())
    }

    async fn wait_all(&mut self) -> Result<(), ExecutorError> {
        self.submit()?;
        if let Some(last) = self.in_flight.pop_back() {
            self.in_flight.clear();
            self.gpu.done(Some(last)).await?;
        }
        Ok(())
    }

    /// Makes room in the ring for `count` dispatches that belong together.
    fn reserve(&mut self, count: usize) -> Result<(), ExecutorError> {
        if self.ring_used + count > BATCH_MAX { self.submit() } else { Ok(()) }
    }

    /// The device it is on.
    pub(super) fn gpu(&self) -> &'a Gpu {
        self.gpu
    }

    /// Records copies of the own tiles of a field, each to a multiple of `stride` bytes; which they are.
    pub(super) fn copy_tiles(&mut self, buffer: usize, to: &wgpu::Buffer, stride: u64) -> Vec<TileId> {
        let (program, side) = (self.program.clone(), self.side[buffer]);
        let Some(grid) = program.grid_of(buffer) else { return Vec::new() };
        let element_bytes = program.elements[buffer].stride;
        let residency = self.layout.of_field(&program, buffer);
        let slots: Vec<_> = residency.into_iter().flat_map(|residency| residency.owned().map(|tile| (tile, residency.slot(tile)))).collect();
        for (tile, slot) in &slots {
            let Some((page, first)) = *slot else { continue };
            let sides = &self.arenas[buffer][page].sides;
            let from = sides[side.min(sides.len() - 1)].clone();
            let bytes = tile_bytes(&grid, *tile, element_bytes as usize) as u64;
            let offset = u64::from(first) * u64::from(element_bytes);
            self.encoder().copy_buffer_to_buffer(&from, offset, to, u64::from(tile.0) * stride, bytes);
        }
        slots.into_iter().map(|(tile, _)| tile).collect()
    }

    /// Dispatches workgroups along x and y, after everything recorded before.
    pub(super) fn dispatch(&mut self, pipeline: &wgpu::ComputePipeline, bindings: &wgpu::BindGroup, [x, y]: [u32; 2]) {
        let mut pass = self.encoder().begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, bindings, &[]);
        pass.dispatch_workgroups(x, y, 1);
    }

    /// Copies one buffer into another, after everything recorded before.
    pub(super) fn copy(&mut self, from: &wgpu::Buffer, to: &wgpu::Buffer, bytes: u64) -> Result<(), ExecutorError> {
        self.encoder().copy_buffer_to_buffer(from, 0, to, 0, bytes);
        self.submit()
    }

    /// Draws so many vertices of so many instances on a target of this colour, after everything recorded before.
    pub(super) fn render(
        &mut self,
        target: &wgpu::TextureView,
        pipeline: &wgpu::RenderPipeline,
        bindings: &wgpu::BindGroup,
        (vertices, instances): (u32, u32),
        ground: wgpu::Color,
    ) -> Result<(), ExecutorError> {
        let attachment = wgpu::RenderPassColorAttachment {
            view: target,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations { load: wgpu::LoadOp::Clear(ground), store: wgpu::StoreOp::Store },
        };
        let mut pass = self.encoder().begin_render_pass(&wgpu::RenderPassDescriptor { color_attachments: &[Some(attachment)], ..Default::default() });
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, bindings, &[]);
        pass.draw(0..vertices, 0..instances);
        drop(pass);
        self.submit()
    }

    /// Reads a texture of four bytes a pixel, row by row.
    pub(super) async fn read_texture(&mut self, texture: &wgpu::Texture, [width, height]: [u32; 2]) -> Result<Vec<u8>, ExecutorError> {
        let row = (width * 4).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
        let bytes = u64::from(row) * u64::from(height);
        let staging = self.memory.staging("picture", bytes);
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(row), rows_per_image: None };
        let to = wgpu::TexelCopyBufferInfo { buffer: &staging, layout };
        self.encoder().copy_texture_to_buffer(texture.as_image_copy(), to, texture.size());
        self.submit()?;
        let mut pixels = Vec::new();
        let mut take = |mapped: &[u8]| mapped.chunks_exact(row as usize).for_each(|line| pixels.extend_from_slice(&line[..width as usize * 4]));
        self.map(&staging, bytes, &mut take).await?;
        Ok(pixels)
    }

    /// How long each pass has taken on the device, by pass; `None` where passes are not timed.
    pub fn pass_times(&self) -> Option<&[PassTime]> {
        self.profile.as_ref().map(|profile| profile.times.as_slice())
    }

    /// Opens a compute pass of its own for a pass that is timed.
    fn time_pass(&mut self, pass: usize) -> Result<(), ExecutorError> {
        if self.profile.is_none() {
            return Ok(());
        }
        // All dispatches of the pass go into one batch, where they can.
        let dispatches = self.pipelines[pass].dispatches.pages.iter().map(Vec::len).sum::<usize>();
        self.reserve(dispatches.min(BATCH_MAX))?;
        if self.profile.as_ref().is_some_and(Profile::is_full) {
            self.submit()?;
        }
        self.open_pass = None;
        let encoder = self.encoder.get_or_insert_with(|| self.gpu.device.create_command_encoder(&Default::default()));
        self.set_part = None;
        self.open_pass = self.profile.as_mut().map(|profile| profile.begin(encoder, pass));
        Ok(())
    }

    fn bind_group(&mut self, pass: usize, page: usize) -> (usize, usize, u64) {
        let checked = &self.program.passes[pass];
        let mut sides = 0u64;
        for binding in &checked.bindings {
            if let Role::Current(buffer) | Role::Next(buffer) = binding.role {
                sides |= (self.side[buffer] as u64) << buffer;
            }
        }
        let key = (pass, page, sides);
        if !self.bind_groups.contains_key(&key) {
            let group = self.make_bind_group(pass, page);
            self.bind_groups.insert(key, group);
        }
        key
    }

    fn make_bind_group(&self, pass: usize, page: usize) -> wgpu::BindGroup {
        let declared = &self.program.manifest.passes[pass];
        let part_of = |buffer, bytes| wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size: bytes });
        let entries: Vec<wgpu::BindGroupEntry<'_>> = self.program.passes[pass]
            .bindings
            .iter()
            .map(|binding| {
                let resource = match arenas::shown(&self.program, &self.layout, pass, page, binding.role) {
                    Shown::TileTable => self.tile_tables[declared.grid][page].as_entire_binding(),
                    Shown::Params => self.params.as_entire_binding(),
                    Shown::Dispatch => part_of(&self.ring, NonZeroU64::new(size_of::<DispatchUniform>() as u64)),
                    Shown::Shares(buffer) => {
                        self.tables[buffer].as_ref().map_or(self.params.as_entire_binding(), |table| table.shares.as_entire_binding())
                    }
                    Shown::Arena { buffer, page, is_other_side, bytes } => {
                        let side = if is_other_side { 1 - self.side[buffer] } else { self.side[buffer] };
                        part_of(&self.arenas[buffer][page].sides[side], bytes.and_then(NonZeroU64::new))
                    }
                };
                wgpu::BindGroupEntry { binding: binding.number, resource }
            })
            .collect();
        self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&declared.entry),
            layout: &self.pipelines[pass].layout,
            entries: &entries,
        })
    }

    fn step(&mut self, step: fn(&Table) -> &Step, buffer: usize) {
        // The borrow of the table ends before the pass is opened: wgpu handles are cheap clones.
        let Some((pipeline, bindings, groups)) = self.tables[buffer].as_ref().map(step).map(|s| (s.pipeline.clone(), s.bindings.clone(), s.groups))
        else {
            return;
        };
        if groups.contains(&0) {
            return;
        }
        let compute = self.compute();
        compute.set_pipeline(&pipeline);
        compute.set_bind_group(0, &bindings, &[]);
        compute.dispatch_workgroups(groups[0], groups[1], 1);
        self.set_part = None;
    }

    fn copies(&mut self, exchange: usize, part: fn(&Mail) -> &Vec<CopyJob>) {
        for index in 0..part(&self.mail[exchange]).len() {
            let job = &part(&self.mail[exchange])[index];
            let side = self.side[job.set.buffer].min(job.bindings.len() - 1);
            let (bindings, groups) = (job.bindings[side].clone(), job.groups);
            let pipeline = self.copy_pipeline.clone();
            let compute = self.compute();
            compute.set_pipeline(&pipeline);
            compute.set_bind_group(0, &bindings, &[]);
            compute.dispatch_workgroups(groups[0], groups[1], 1);
            self.set_part = None;
        }
    }

    /// Where a piece lies: its buffer, its first byte there, and how many it has.
    fn piece(&self, piece: Piece) -> Option<(wgpu::Buffer, u64, u64)> {
        let stride = |buffer: usize| self.program.elements[buffer].stride;
        match piece {
            Piece::Tile(buffer, tile) => {
                let residency = self.layout.of_field(&self.program, buffer)?;
                let (page, first) = residency.slot(tile)?;
                let bytes = tile_bytes(&residency.grid, tile, stride(buffer) as usize) as u64;
                let source = self.arenas[buffer][page].sides[self.side[buffer]].clone();
                Some((source, u64::from(first) * u64::from(stride(buffer)), bytes))
            }
            Piece::Table(buffer) => {
                let Extent::Table { length, .. } = self.program.manifest.buffers[buffer].extent else { return None };
                Some((self.arenas[buffer][0].sides[0].clone(), 0, u64::from(length) * u64::from(stride(buffer))))
            }
        }
    }

    /// Waits for everything queued, then copies ranges of buffers to the CPU, one behind the other.
    async fn read_ranges(&mut self, ranges: &[(wgpu::Buffer, u64, u64)], into: &mut [u8]) -> Result<(), ExecutorError> {
        let bytes = into.len() as u64;
        // Taken: a reading that is given up while it is mapped leaves none behind.
        let kept = self.reading.take().filter(|staging| staging.size() >= bytes);
        let staging = kept.unwrap_or_else(|| {
            self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let mut end = 0;
        for (source, offset, bytes) in ranges {
            self.encoder().copy_buffer_to_buffer(source, *offset, &staging, end, *bytes);
            end += bytes;
        }
        self.submit()?;
        self.map(&staging, bytes, &mut |mapped| into.copy_from_slice(mapped)).await?;
        self.reading = Some(staging);
        Ok(())
    }

    /// Reads a staging buffer, once everything submitted so far is done.
    async fn map(&mut self, staging: &wgpu::Buffer, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError> {
        let mapped = Mapping::begin(staging, bytes);
        let last = self.in_flight.back().cloned();
        self.in_flight.clear();
        self.gpu.done(last).await?;
        mapped.done(self.gpu).await?;
        Mapping::end(staging, bytes, take);
        Ok(())
    }

    /// As [`GpuRun::map`], on the spot.
    #[cfg(not(target_arch = "wasm32"))]
    fn map_now(&mut self, staging: &wgpu::Buffer, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError> {
        let mapped = Mapping::begin(staging, bytes);
        let last = self.in_flight.back().cloned();
        self.in_flight.clear();
        self.gpu.wait(last)?;
        mapped.0.try_recv().map_err(|error| error.to_string()).and_then(|result| result).map_err(|cause| ExecutorError::Lost { cause })?;
        Mapping::end(staging, bytes, take);
        Ok(())
    }
}

/// A staging buffer that is being mapped.
pub(super) struct Mapping(flume::Receiver<Result<(), String>>);

impl Mapping {
    pub(super) fn begin(staging: &wgpu::Buffer, bytes: u64) -> Mapping {
        let (send, receive) = flume::bounded(1);
        staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver only goes away when the wait for it has failed.
            let _ = send.send(result.map_err(|error| error.to_string()));
        });
        Mapping(receive)
    }

    /// Waits until it is mapped; the device is driven by somebody else.
    pub(super) async fn done(self, gpu: &Gpu) -> Result<(), ExecutorError> {
        let mapped = self.0.recv_async().await.map_err(|error| error.to_string()).and_then(|result| result);
        // What went wrong before says more.
        mapped.or_else(|cause| gpu.lost().and(Err(ExecutorError::Lost { cause })))
    }

    pub(super) fn end(staging: &wgpu::Buffer, bytes: u64, take: &mut dyn FnMut(&[u8])) {
        take(&staging.get_mapped_range(0..bytes));
        staging.unmap();
    }
}

impl Run for GpuRun<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    async fn pass(&mut self, pass: usize, tick: u64) -> Result<(), ExecutorError> {
        if std::mem::take(&mut self.params_changed) {
            self.submit()?;
            self.gpu.queue.write_buffer(&self.params, 0, &self.params_bytes);
        }
        let program = self.program.clone();
        let (declared, checked) = (&program.manifest.passes[pass], &program.passes[pass]);
        let has_uniform = checked.bindings.iter().any(|binding| binding.role == Role::Dispatch);
        for (&buffer, write) in declared.writes.iter().zip(&checked.writes) {
            match write {
                Write::Swap { copies: true } => {
                    let (from, to) = (self.side[buffer], 1 - self.side[buffer]);
                    for page in 0..self.arenas[buffer].len() {
                        let sides = &self.arenas[buffer][page].sides;
                        let (from, to) = (sides[from].clone(), sides[to].clone());
                        self.encoder().copy_buffer_to_buffer(&from, 0, &to, 0, from.size());
                    }
                }
                Write::Partials | Write::Atomics => self.step(|table| &table.clear, buffer),
                _ => {}
            }
        }
        self.time_pass(pass)?;
        for page in 0..self.layout.grids[declared.grid].pages.len() {
            let count = self.pipelines[pass].dispatches.pages[page].len();
            let key = self.bind_group(pass, page);
            for index in 0..count {
                self.reserve(1)?;
                let pipelines = &self.pipelines[pass];
                let dispatch = pipelines.dispatches.pages[page][index];
                let uniform = dispatch.uniform(tick, pipelines.dispatches.page_rows[page]);
                let at = self.ring_used as u64 * self.ring_stride;
                self.ring_used += 1;
                self.ring_content[at as usize..at as usize + size_of::<DispatchUniform>()].copy_from_slice(bytemuck::bytes_of(&uniform));
                let Some(pipeline) = pipelines.parts.iter().find(|(part, _)| *part == dispatch.part).map(|(_, pipeline)| pipeline.clone()) else {
                    continue;
                };
                let offsets = [at as u32];
                let group = self.bind_groups[&key].clone();
                self.compute();
                let is_set = self.set_part.replace((pass, dispatch.part)) == Some((pass, dispatch.part));
                let compute = self.compute();
                if !is_set {
                    compute.set_pipeline(&pipeline);
                }
                compute.set_bind_group(0, &group, if has_uniform { &offsets } else { &[] });
                compute.dispatch_workgroups(dispatch.groups[0], dispatch.groups[1], dispatch.groups[2]);
            }
        }
        if self.profile.is_some() {
            self.open_pass = None;
        }
        for (&buffer, write) in declared.writes.iter().zip(&checked.writes) {
            match write {
                Write::Swap { .. } => self.side[buffer] = 1 - self.side[buffer],
                Write::Partials | Write::Atomics => self.step(|table| &table.fold, buffer),
                Write::InPlace => {}
            }
        }
        Ok(())
    }

    fn pack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        self.copies(exchange, |mail| &mail.pack);
        Ok(())
    }

    async fn outbox(&mut self, exchange: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError> {
        let mail = &self.mail[exchange];
        let (bytes, outbox) = (mail.send_bytes, mail.outbox.clone());
        let Some(staging) = mail.staging.clone() else {
            take(&[]);
            return self.submit();
        };
        self.encoder().copy_buffer_to_buffer(&outbox, 0, &staging, 0, bytes);
        self.submit()?;
        self.map(&staging, bytes, take).await
    }

    fn inbox(&mut self, exchange: usize, peer: usize, bytes: &[u8]) {
        let range = &self.mail[exchange].receive_bytes[peer];
        assert_eq!(bytes.len(), range.len(), "the network layer checks what it delivers");
        if !bytes.is_empty() {
            self.gpu.queue.write_buffer(&self.mail[exchange].inbox, range.start as u64, bytes);
        }
    }

    async fn unpack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        self.copies(exchange, |mail| &mail.unpack_local);
        self.copies(exchange, |mail| &mail.unpack);
        for index in 0..self.mail[exchange].tables.len() {
            let buffer = self.mail[exchange].tables[index];
            self.step(|table| &table.combine, buffer);
        }
        Ok(())
    }

    async fn reship(&mut self, placement: &Placement) -> Result<bool, ExecutorError> {
        let refused = |cause| ExecutorError::layout(&self.program, &self.gpu.info, cause);
        let layout = self.layout.reshipped(&self.program, placement, self.gpu.page_bytes_max()).map_err(refused)?;
        let Some(layout) = layout else { return Ok(false) };
        // What is recorded goes by the old ones.
        self.submit()?;
        let mail = self.memory.guarded(|| {
            let mail = |exchange| make_mail(self.gpu, &self.memory, &self.program, &layout, &self.arenas, &self.tables, &self.copy_layout, exchange);
            (0..layout.exchanges.len()).map(mail).collect()
        });
        let before: Vec<Mail> = std::mem::replace(&mut self.mail, mail.await?);
        self.memory.freed(before.iter().map(|mail| mail.bytes).sum());
        self.layout = layout;
        Ok(true)
    }

    fn set_params(&mut self, bytes: &[u8]) {
        self.params_bytes = bytes.to_vec();
        self.params_changed = true;
    }

    fn write_tile(&mut self, buffer: usize, tile: TileId, bytes: &[u8]) {
        let Some((page, first)) = self.layout.of_field(&self.program, buffer).and_then(|residency| residency.slot(tile)) else { return };
        let offset = u64::from(first) * u64::from(self.program.elements[buffer].stride);
        // What is recorded must not see the new content.
        if self.submit().is_ok() {
            self.gpu.queue.write_buffer(&self.arenas[buffer][page].sides[self.side[buffer]], offset, bytes);
        }
    }

    fn write_table(&mut self, buffer: usize, bytes: &[u8]) {
        if self.submit().is_ok() {
            self.gpu.queue.write_buffer(&self.arenas[buffer][0].sides[0], 0, bytes);
        }
    }

    fn piece_bytes(&self, piece: Piece) -> usize {
        self.piece(piece).map_or(0, |(_, _, bytes)| bytes as usize)
    }

    async fn read(&mut self, pieces: &[Piece], mut into: &mut [u8]) -> Result<(), ExecutorError> {
        let ranges: Vec<_> = pieces.iter().filter_map(|piece| self.piece(*piece)).collect();
        let mut left = &ranges[..];
        while let Some(&(.., first)) = left.first() {
            let (mut count, mut bytes) = (1, first);
            while let Some((.., more)) = left.get(count)
                && bytes + more <= READ_BYTES_MAX
            {
                (count, bytes) = (count + 1, bytes + more);
            }
            let (content, behind) = into.split_at_mut(bytes as usize);
            self.read_ranges(&left[..count], content).await?;
            (left, into) = (&left[count..], behind);
        }
        assert!(into.is_empty(), "{} bytes more than the pieces have", into.len());
        self.reading = self.reading.take().filter(|staging| staging.size() <= READING_BYTES_MAX);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExecutorError> {
        self.submit()
    }

    async fn keep_up(&mut self) -> Result<(), ExecutorError> {
        self.submit()?;
        while self.in_flight.len() > IN_FLIGHT_MAX {
            let oldest = self.in_flight.pop_front();
            self.gpu.done(oldest).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ExecutorError> {
        self.wait_all().await
    }

    fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }
}

fn make_arenas(memory: &Memory<'_>, program: &Program, layout: &Layout) -> Vec<Vec<PageCopies>> {
    let mut arenas = Vec::new();
    for (buffer, declared) in program.manifest.buffers.iter().enumerate() {
        let stride = u64::from(program.elements[buffer].stride);
        let sides = if program.is_double(buffer) { 2 } else { 1 };
        let page = |elements: &u64| PageCopies { sides: (0..sides).map(|_| memory.storage(&declared.name, elements * stride)).collect() };
        let pages = arenas::page_elements(program, layout, buffer).iter().map(page).collect();
        arenas.push(pages);
    }
    arenas
}

async fn pass_pipelines(gpu: &Gpu, program: &Program, layout: &Layout, index: usize) -> Result<PassPipelines, ExecutorError> {
    let (declared, checked) = (&program.manifest.passes[index], &program.passes[index]);
    let dispatches = PassDispatches::new(program, layout, index, gpu.borders, gpu.limits.max_compute_workgroups_per_dimension);
    let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
    let mut parts: Vec<(Part, wgpu::ComputePipeline)> = Vec::new();
    let mut layout = None;
    // `Any` is always there: its layout serves the others, which take the same bindings.
    for part in Part::ALL.into_iter().filter(|&part| part == Part::Any || dispatches.parts().any(|needed| needed == part)) {
        let mut key = blake3::Hasher::new();
        key.update(declared.entry.as_bytes()).update(&[0, part as u8]).update(declared.wgsl.as_bytes());
        // Of the same text, two bundles may say different things.
        for Binding { number, role, writable } in &checked.bindings {
            let kind = [*role == Role::Params, *role == Role::Dispatch, *writable].map(u8::from);
            key.update(&number.to_le_bytes()).update(&kind);
        }
        let (of_part, pipeline) = gpu.cached_pipeline(*key.finalize().as_bytes(), || caught(gpu, declared, checked, part))?;
        layout.get_or_insert(of_part);
        parts.push((part, pipeline));
    }
    if let Some(error) = scope.pop().await {
        gpu.forget_pipelines();
        return Err(ExecutorError::Kernel { adapter: gpu.info.adapter.clone(), entry: declared.entry.clone(), cause: error.to_string() });
    }
    let Some(layout) = layout else { return Err(ExecutorError::Lost { cause: "no pipeline was made".into() }) };
    Ok(PassPipelines { layout, parts, dispatches })
}

/// Compiles one pass for the adapter. naga's writers panic on some of what its validator lets through, such as a pointer to
/// a part of a variable that a function takes: that is the kernel's error, and not the end of the process.
fn caught(gpu: &Gpu, declared: &Pass, checked: &CheckedPass, part: Part) -> Result<CachedPipeline, ExecutorError> {
    std::panic::catch_unwind(AssertUnwindSafe(|| compile(gpu, declared, checked, part))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let cause = format!("its compiler for this adapter has failed ({}); the cpu executor may take it", text.unwrap_or("without a word"));
        ExecutorError::Kernel { adapter: gpu.info.adapter.clone(), entry: declared.entry.clone(), cause }
    })
}

/// Compiles one pass for the adapter.
fn compile(gpu: &Gpu, declared: &Pass, checked: &CheckedPass, part: Part) -> CachedPipeline {
    let module = gpu.module(&declared.entry, &declared.wgsl, gpu.options.checks);
    let entries: Vec<_> = checked
        .bindings
        .iter()
        .map(|binding| match binding.role {
            Role::Params => layout_entry(binding.number, wgpu::BufferBindingType::Uniform),
            Role::Dispatch => {
                let mut entry = layout_entry(binding.number, wgpu::BufferBindingType::Uniform);
                entry.ty = wgpu::BindingType::Buffer { ty: wgpu::BufferBindingType::Uniform, has_dynamic_offset: true, min_binding_size: None };
                entry
            }
            _ => layout_entry(binding.number, wgpu::BufferBindingType::Storage { read_only: !binding.writable }),
        })
        .collect();
    let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&declared.entry), entries: &entries });
    let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&declared.entry),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&declared.entry),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(&declared.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: part.constants(),
            zero_initialize_workgroup_memory: gpu.options.checks == Checks::Checked,
        },
        cache: None,
    });
    (layout, pipeline)
}

fn copy_pipeline(gpu: &Gpu) -> (wgpu::BindGroupLayout, wgpu::ComputePipeline) {
    let storage = |binding: u32, read_only: bool| layout_entry(binding, wgpu::BufferBindingType::Storage { read_only });
    let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("copy"),
        entries: &[storage(0, true), storage(1, false), storage(2, true)],
    });
    let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("copy"),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = gpu.module("copy", COPY_WGSL, Checks::Checked);
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("copy"),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("copy"),
        compilation_options: Default::default(),
        cache: None,
    });
    (layout, pipeline)
}

#[allow(clippy::too_many_arguments, reason = "the parts of a run that are made before it exists")]
fn make_mail(
    gpu: &Gpu,
    memory: &Memory<'_>,
    program: &Program,
    layout: &Layout,
    arenas: &[Vec<PageCopies>],
    tables: &[Option<Table>],
    copy_layout: &wgpu::BindGroupLayout,
    exchange: usize,
) -> Mail {
    let plan = &layout.exchanges[exchange];
    let before = memory.bytes();
    let outbox = memory.storage("outbox", plan.outbox_words * 4);
    let inbox = memory.storage("inbox", plan.inbox_words * 4);
    let send_words = plan.send.last().map_or(0, |run| run.end) as u64;
    let staging = (send_words > 0).then(|| memory.staging("outbox", send_words * 4));
    let job = |set: &CopySet, mailbox: &wgpu::Buffer, packs: bool| {
        let arena: Vec<&wgpu::Buffer> = match &tables[set.buffer] {
            Some(table) => vec![&table.rows],
            None => arenas[set.buffer][set.page].sides.iter().collect(),
        };
        let jobs = memory.constant("copies", bytemuck::cast_slice(&set.copies));
        let bindings = arena
            .into_iter()
            .map(|arena| {
                let (from, to) = if packs { (arena, mailbox) } else { (mailbox, arena) };
                let entries: Vec<_> = [from, to, &jobs]
                    .iter()
                    .enumerate()
                    .map(|(i, buffer)| wgpu::BindGroupEntry { binding: i as u32, resource: buffer.as_entire_binding() })
                    .collect();
                gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some("copy"), layout: copy_layout, entries: &entries })
            })
            .collect();
        let words = set.copies.iter().map(|copy| copy.words()).max().unwrap_or(0);
        CopyJob { set: set.clone(), bindings, groups: [words.div_ceil(256), set.copies.len() as u32] }
    };
    let jobs = |sets: &[CopySet], mailbox: &wgpu::Buffer, packs: bool| {
        // A dispatch takes so many copies and no more.
        let cut = |set: &CopySet| -> Vec<CopySet> {
            set.copies.chunks(60_000).map(|copies| CopySet { buffer: set.buffer, page: set.page, copies: copies.to_vec() }).collect()
        };
        sets.iter().flat_map(cut).map(|set| job(&set, mailbox, packs)).collect::<Vec<_>>()
    };
    Mail {
        pack: jobs(&plan.pack, &outbox, true),
        unpack_local: jobs(&plan.unpack_local, &outbox, false),
        unpack: jobs(&plan.unpack, &inbox, false),
        bytes: memory.bytes() - before,
        send_bytes: send_words * 4,
        receive_bytes: plan.receive.iter().map(|run| run.start * 4..run.end * 4).collect(),
        outbox,
        inbox,
        staging,
        tables: program.exchanges[exchange]
            .iter()
            .filter_map(|fresh| if let Fresh::Table { buffer } = fresh { Some(*buffer) } else { None })
            .collect(),
    }
}
