//! Hand-written twins: what a good engineer writes with plain wgpu, or in Rust with rayon, to measure the framework
//! against in the same run.
//!
//! They share nothing with the framework but the device. On an adapter: contiguous arrays, ping-pong bind groups, one
//! compute pass for hundreds of ticks, a wait only at the end. Arithmetic and seeds are those of the workload of the
//! same name, so that what comes out can be compared and not only how fast.

mod copy;
pub mod cpu;
mod heat;
mod nbody;

pub use copy::CopyTwin;
pub use heat::{HeatTuning, HeatTwin};
pub use nbody::NbodyTwin;

/// Ticks of one submission: many, so that a submission costs nothing; few enough that the device starts early.
const BATCH_TICKS: u32 = 256;

/// Compiles a twin's WGSL, with naga's bounds and loop checks or without.
fn shader_module(device: &wgpu::Device, label: &str, wgsl: &'static str, checked: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    if checked {
        return device.create_shader_module(descriptor);
    }
    #[allow(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "the twins are our own constants, index only below the lengths of their bindings, and have no endless \
                  loop; unchecked is the ceiling that the checked figures are read against"
    )]
    // SAFETY: see the reason above; nothing that arrived from outside reaches this function.
    unsafe {
        device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    }
}

/// A pipeline for one entry point; zeroing workgroup memory is a check too.
fn pipeline(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    module: &wgpu::ShaderModule,
    entry: &str,
    constants: &[(&str, f64)],
    checked: bool,
) -> wgpu::ComputePipeline {
    let layout =
        device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor { label: Some(entry), bind_group_layouts: &[Some(layout)], immediate_size: 0 });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: Some(&layout),
        module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions { constants, zero_initialize_workgroup_memory: checked },
        cache: None,
    })
}

/// The layout of storage bindings 0, 1, ..; `read_only[i]` says how binding `i` is used.
fn bind_group_layout(device: &wgpu::Device, read_only: &[bool]) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = (0u32..)
        .zip(read_only)
        .map(|(binding, &read_only)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty: wgpu::BufferBindingType::Storage { read_only }, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

/// Binds whole buffers to 0, 1, ...
fn bind_group(device: &wgpu::Device, layout: &wgpu::BindGroupLayout, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
    let entries: Vec<_> =
        (0u32..).zip(buffers).map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }).collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}

/// A storage buffer that can be read back.
fn storage_buffer(device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    })
}

/// Encodes one compute pass, submits it and waits for it.
fn encode_and_wait(device: &wgpu::Device, queue: &wgpu::Queue, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    submit_and_wait(device, queue, encoder);
}

/// Encodes ticks in batches, so that the device computes one while the next is recorded, and waits for the last.
fn encode_ticks_and_wait(device: &wgpu::Device, queue: &wgpu::Queue, ticks: u32, mut encode: impl FnMut(&mut wgpu::ComputePass<'_>, u32)) {
    let mut left = ticks;
    while left > BATCH_TICKS {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), BATCH_TICKS);
        queue.submit([encoder.finish()]);
        left -= BATCH_TICKS;
    }
    encode_and_wait(device, queue, |pass| encode(pass, left));
}

/// Submits, and returns when the device is done. Panics if the device is lost: a bench has nothing to measure then.
fn submit_and_wait(device: &wgpu::Device, queue: &wgpu::Queue, encoder: wgpu::CommandEncoder) {
    let submission = queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None }).expect("the device finishes what was submitted");
}

/// Reads a whole buffer back. Panics if the device is lost.
fn read_back(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Vec<f32> {
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("twin read-back"),
        size: buffer.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, .., |mapped| mapped.expect("a staging buffer maps"));
    submit_and_wait(device, queue, encoder);
    bytemuck::cast_slice(&staging.slice(..).get_mapped_range()).to_vec()
}
