//! The twin of `shaders/physics/nbody`: gravity between all pairs, tiled through workgroup memory.

use std::cell::Cell;

use super::{bind_group, bind_group_layout, encode_and_wait, encode_ticks_and_wait, pipeline, read_back, shader_module, storage_buffer};

/// Invocations of a workgroup: `LANES` in the WGSL.
const LANES: u32 = 256;

/// Leapfrog n-body on contiguous arrays, kick and drift in one dispatch.
pub struct NbodyTwin {
    device: wgpu::Device,
    queue: wgpu::Queue,
    advance: wgpu::ComputePipeline,
    dispatch: u32,
    bodies: [wgpu::Buffer; 2],
    /// `forward[k]` reads bodies `k` and writes the other ones.
    forward: [wgpu::BindGroup; 2],
    /// The buffer that holds the present bodies.
    now: Cell<usize>,
}

impl NbodyTwin {
    /// Seeds `n` bodies like the workload does, for any `n` of at least 1.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, n: u32, checked: bool) -> Self {
        let module = shader_module(device, "nbody twin", include_str!("../../shaders/nbody_twin.wgsl"), checked);
        let layout = bind_group_layout(device, &[true, false, false]);
        let advance = pipeline(device, &layout, &module, "advance", &[], checked);
        let seed = pipeline(device, &layout, &module, "seed", &[], checked);
        let bytes = 16 * u64::from(n);
        let bodies = [storage_buffer(device, bytes), storage_buffer(device, bytes)];
        let velocity = storage_buffer(device, bytes);
        let forward =
            [bind_group(device, &layout, &[&bodies[0], &bodies[1], &velocity]), bind_group(device, &layout, &[&bodies[1], &bodies[0], &velocity])];
        let twin = Self { device: device.clone(), queue: queue.clone(), advance, dispatch: n.div_ceil(LANES), bodies, forward, now: Cell::new(1) };
        // Both buffers, so that no lazy zeroing falls into a timing; the second one last.
        encode_and_wait(device, queue, |pass| {
            pass.set_pipeline(&seed);
            for group in [&twin.forward[1], &twin.forward[0]] {
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(twin.dispatch, 1, 1);
            }
        });
        twin
    }

    /// Computes `ticks` ticks and waits for them.
    pub fn run(&self, ticks: u32) {
        encode_ticks_and_wait(&self.device, &self.queue, ticks, |pass, ticks| {
            pass.set_pipeline(&self.advance);
            for _ in 0..ticks {
                let now = self.now.get();
                pass.set_bind_group(0, &self.forward[now], &[]);
                pass.dispatch_workgroups(self.dispatch, 1, 1);
                self.now.set(1 - now);
            }
        });
    }

    /// The bodies, four floats each: position xyz, mass.
    pub fn read(&self) -> Vec<f32> {
        read_back(&self.device, &self.queue, &self.bodies[self.now.get()])
    }
}
