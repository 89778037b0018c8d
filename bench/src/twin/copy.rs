//! Copies between two buffers: by a kernel, and by the driver's own command.

use super::{bind_group, bind_group_layout, encode_and_wait, encode_ticks_and_wait, pipeline, shader_module, submit_and_wait};

/// Invocations of a workgroup: `LANES` in the WGSL.
const LANES: u64 = 256;
/// Workgroups along x; more go along y.
const GROUPS_X: u64 = 4096;

/// Two buffers and the two ways to bring the content of one into the other.
pub struct CopyTwin {
    device: wgpu::Device,
    queue: wgpu::Queue,
    copy: wgpu::ComputePipeline,
    dispatch: [u32; 2],
    buffers: [wgpu::Buffer; 2],
    group: wgpu::BindGroup,
}

impl CopyTwin {
    /// Makes two buffers of `bytes` bytes, a multiple of 16.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, bytes: u64, checked: bool) -> Self {
        assert!(bytes.is_multiple_of(16) && bytes > 0, "whole vec4s only");
        let wgsl = include_str!("../../shaders/copy_twin.wgsl");
        let module = shader_module(device, "copy twin", wgsl, checked);
        let layout = bind_group_layout(device, &[true, false]);
        let copy = pipeline(device, &layout, &module, "copy", &[], checked);
        let buffer = || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("copy"),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let buffers = [buffer(), buffer()];
        let groups = (bytes / 16).div_ceil(LANES);
        let x = groups.min(GROUPS_X);
        let twin = Self {
            device: device.clone(),
            queue: queue.clone(),
            copy,
            dispatch: [x as u32, groups.div_ceil(x) as u32],
            group: bind_group(device, &layout, &[&buffers[0], &buffers[1]]),
            buffers,
        };
        // So that no lazy zeroing falls into a timing.
        twin.run_kernel(1);
        twin
    }

    /// Copies `times` times with a kernel and waits.
    pub fn run_kernel(&self, times: u32) {
        encode_ticks_and_wait(&self.device, &self.queue, times, |pass, times| {
            pass.set_pipeline(&self.copy);
            pass.set_bind_group(0, &self.group, &[]);
            for _ in 0..times {
                pass.dispatch_workgroups(self.dispatch[0], self.dispatch[1], 1);
            }
        });
    }

    /// Copies `times` times with the driver's own command and waits.
    pub fn run_driver(&self, times: u32) {
        if times == 0 {
            return encode_and_wait(&self.device, &self.queue, |_| {});
        }
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let [from, to] = &self.buffers;
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
        }
        submit_and_wait(&self.device, &self.queue, encoder);
    }
}
