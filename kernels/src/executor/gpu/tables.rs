//! Reduced tables on the device: the buffers and pipelines of each step of a [`Reduction`].

use super::memory::Memory;
use super::{Checks, Gpu};
use crate::executor::limits;
use crate::executor::tables::{Reduction, StepPlan, WGSL, binding};
use crate::executor::{ExecutorError, Layout};
use crate::program::Program;

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
    pub(crate) fn new(
        gpu: &Gpu,
        memory: &Memory<'_>,
        program: &Program,
        layout: &Layout,
        buffer: usize,
        table: &wgpu::Buffer,
    ) -> Result<Option<Table>, ExecutorError> {
        let Some(plan) = Reduction::new(program, layout, buffer) else { return Ok(None) };
        let name = &program.manifest.buffers[buffer].name;
        let share_bytes = plan.share_words * 4;
        limits::check(
            || format!("bytes of the workgroups' shares of `{name}`"),
            share_bytes,
            "max_storage_buffer_binding_size",
            gpu.page_bytes_max(),
        )
        .map_err(|kind| ExecutorError::limit(program, &gpu.info, kind))?;
        let shares = memory.storage(name, share_bytes);
        let rows = memory.storage(name, plan.rows_words * 4);
        let numbers = memory.constant("tile numbers", bytemuck::cast_slice(if plan.owned.is_empty() { &[0] } else { &plan.owned }));
        let scratch = memory.storage("unused", 4);
        let maker = Maker { gpu, memory, constants: &plan.constants, numbers: &numbers };
        let clear = maker.step(&plan.clear, &scratch, &shares);
        let fold = maker.step(&plan.fold, &shares, &rows);
        let combine = maker.step(&plan.combine, &rows, table);
        Ok(Some(Table { shares, rows, clear, fold, combine }))
    }
}

struct Maker<'a> {
    gpu: &'a Gpu,
    memory: &'a Memory<'a>,
    constants: &'a [(&'a str, f64)],
    numbers: &'a wgpu::Buffer,
}

impl Maker<'_> {
    fn step(&self, plan: &StepPlan, source: &wgpu::Buffer, result: &wgpu::Buffer) -> Step {
        let StepPlan { entry, shape, groups } = *plan;
        let device = &self.gpu.device;
        let module = self.gpu.module("reduce", WGSL, Checks::Checked);
        let storage = |binding: u32, read_only: bool| layout_entry(binding, wgpu::BufferBindingType::Storage { read_only });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(entry),
            entries: &[
                storage(binding::SOURCE, true),
                storage(binding::RESULT, false),
                storage(binding::TILES, true),
                layout_entry(binding::SHAPE, wgpu::BufferBindingType::Uniform),
            ],
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
        let buffers = [(binding::SOURCE, source), (binding::RESULT, result), (binding::TILES, self.numbers), (binding::SHAPE, &shape)];
        let entries: Vec<_> =
            buffers.iter().map(|(binding, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() }).collect();
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
