//! Reduced tables on the device: shares of workgroups, one row per tile, the table.
//!
//! `pass → fold or spread → rows of own tiles → exchange → combine → table`. Invariant: every step
//! joins words in an order that the grid alone decides.

use super::memory::Memory;
use super::{Checks, Gpu};
use crate::declaration::{Extent, Reduce};
use crate::executor::{ExecutorError, Layout};
use crate::program::{Program, Write, identity_word};
use peercompute_buffers::layout::Scalar;

/// The framework's reduction kernels.
const WGSL: &str = include_str!("../../../../shaders/framework/reduce.wgsl");

/// One step of a reduction, ready to dispatch.
pub(crate) struct Step {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) bindings: wgpu::BindGroup,
    pub(crate) groups: [u32; 2],
}

/// What a reduced table needs on the device.
pub(crate) struct Table {
    /// What kernels write: a share per workgroup, or one of the peer.
    pub(crate) shares: wgpu::Buffer,
    /// One row of words per tile of the grid.
    pub(crate) rows: wgpu::Buffer,
    /// Sets every share to the identity, before the pass.
    pub(crate) clear: Step,
    /// From shares to the rows of own tiles, after the pass.
    pub(crate) fold: Step,
    /// From all rows to the table, after the exchange.
    pub(crate) combine: Step,
}

impl Table {
    /// Makes the buffers and pipelines of a reduced table; `None` for one that no pass writes.
    pub(crate) async fn new(
        gpu: &Gpu,
        memory: &Memory<'_>,
        program: &Program,
        layout: &Layout,
        buffer: usize,
        table: &wgpu::Buffer,
    ) -> Result<Option<Table>, ExecutorError> {
        let declared = &program.manifest.buffers[buffer];
        let (Extent::Table { reduce: Some(reduce), .. }, Some(shares)) = (declared.extent, &layout.shares[buffer]) else { return Ok(None) };
        let Some((pass, checked)) = program.manifest.passes.iter().zip(&program.passes).find(|(pass, _)| pass.writes.contains(&buffer)) else {
            return Ok(None);
        };
        let at = pass.writes.iter().position(|&b| b == buffer).unwrap_or(0);
        let by_atomics = checked.writes[at] == Write::Atomics;
        let scalar = program.elements[buffer].uniform_scalar().unwrap_or(Scalar::U32);
        let element_words = program.elements[buffer].words();
        let owned: Vec<u32> = layout.grids[shares.grid].owned().map(|tile| tile.0).collect();
        let groups = checked.groups_per_tile.iter().product::<u32>();
        // All tables of a pass share one stride: the prelude's `partial` knows the pass, not the table.
        let stride = pass.writes.iter().filter_map(|&b| match program.manifest.buffers[b].extent {
            Extent::Table { length, .. } => Some(length),
            Extent::Field { .. } => None,
        });
        let stride = stride.max().unwrap_or(1) * element_words;
        let share_words = if by_atomics { u64::from(shares.words) } else { owned.len() as u64 * u64::from(groups) * u64::from(stride) };
        let share_bytes = share_words * 4;
        if share_bytes > gpu.page_bytes_max() {
            let kind = crate::diagnose::ErrorKind::Limit {
                what: format!("bytes of the workgroups' shares of `{}`", declared.name),
                needed: share_bytes,
                limit_name: "max_storage_buffer_binding_size".into(),
                limit: gpu.page_bytes_max(),
            };
            return Err(ExecutorError::Limit { workload: program.manifest.name.clone(), adapter: gpu.info.adapter.clone(), cause: kind.into() });
        }
        let tiles = layout.placement.owners[shares.grid].len() as u32;
        let shares_buffer = memory.storage(&declared.name, share_bytes);
        let rows = memory.storage(&declared.name, u64::from(tiles) * u64::from(shares.words) * 4);
        let numbers = memory.constant("tile numbers", bytemuck::cast_slice(if owned.is_empty() { &[0] } else { &owned }));
        let constants = [
            (
                "kind",
                match scalar {
                    Scalar::F32 => 0.0,
                    Scalar::I32 => 1.0,
                    Scalar::U32 => 2.0,
                },
            ),
            (
                "operation",
                match reduce {
                    Reduce::Sum => 0.0,
                    Reduce::Min => 1.0,
                    Reduce::Max => 2.0,
                },
            ),
        ];
        let maker = Maker { gpu, memory, constants: &constants, numbers: &numbers };
        let identity = identity_word(reduce, scalar);
        let (words, rows_owned) = (shares.words, owned.len() as u32);
        let scratch = memory.storage("unused", 4);
        let wide = |items: u64| (items.div_ceil(256).clamp(1, 4096)) as u32;
        let shape = |stride: u32, count: u32| [identity, words, stride, count];
        let clear = maker.step("fill", &scratch, &shares_buffer, shape(0, 0), [wide(share_words), 1]);
        let fold = if by_atomics {
            maker.step("spread", &shares_buffer, &rows, shape(0, rows_owned), [wide(words.into()), 1])
        } else {
            maker.step("fold", &shares_buffer, &rows, shape(stride, groups), [words.min(65_535), rows_owned])
        };
        let combine = maker.step("combine", &rows, table, shape(0, tiles), [words.min(65_535), 1]);
        Ok(Some(Table { shares: shares_buffer, rows, clear, fold, combine }))
    }
}

struct Maker<'a> {
    gpu: &'a Gpu,
    memory: &'a Memory<'a>,
    constants: &'a [(&'a str, f64)],
    numbers: &'a wgpu::Buffer,
}

impl Maker<'_> {
    fn step(&self, entry: &str, source: &wgpu::Buffer, result: &wgpu::Buffer, shape: [u32; 4], groups: [u32; 2]) -> Step {
        let device = &self.gpu.device;
        let module = self.gpu.module("reduce", WGSL, Checks::Checked);
        let storage = |binding: u32, read_only: bool| layout_entry(binding, wgpu::BufferBindingType::Storage { read_only });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(entry),
            entries: &[storage(0, true), storage(1, false), storage(2, true), layout_entry(3, wgpu::BufferBindingType::Uniform)],
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(entry),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions { constants: self.constants, ..Default::default() },
            cache: None,
        });
        let shape = self.memory.uniform("shape", bytemuck::cast_slice(&shape));
        let buffers = [source, result, self.numbers, &shape];
        let entries: Vec<_> =
            buffers.iter().enumerate().map(|(i, buffer)| wgpu::BindGroupEntry { binding: i as u32, resource: buffer.as_entire_binding() }).collect();
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(entry), layout: &layout, entries: &entries });
        Step { pipeline, bindings, groups }
    }
}

/// A buffer binding for compute.
pub(crate) fn layout_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
