//! The twin of `shaders/physics/heat`: a five-point stencil on an n x n grid.

use std::cell::Cell;

use super::{bind_group, bind_group_layout, encode_and_wait, encode_ticks_and_wait, pipeline, read_back, shader_module, storage_buffer};

/// How the twin's kernel is cut into invocations and workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeatTuning {
    /// Invocations of a workgroup along x and y.
    pub workgroup: [u32; 2],
    /// Whether an invocation computes four neighbouring cells with 16-byte loads; needs n divisible by 4.
    pub quads: bool,
}

impl Default for HeatTuning {
    /// One cell an invocation, 64 x 4 invocations a workgroup: what the framework's kernel uses.
    fn default() -> Self {
        Self { workgroup: [64, 4], quads: false }
    }
}

/// Explicit 2-D diffusion on contiguous arrays.
pub struct HeatTwin {
    device: wgpu::Device,
    queue: wgpu::Queue,
    diffuse: wgpu::ComputePipeline,
    dispatch: [u32; 2],
    fields: [wgpu::Buffer; 2],
    /// `forward[k]` reads field `k` and writes the other one.
    forward: [wgpu::BindGroup; 2],
    /// The field that holds the present temperatures.
    now: Cell<usize>,
}

impl HeatTwin {
    /// Seeds an n x n grid like the workload does.
    ///
    /// **Limits**: `4 * n * n` bytes must fit the device's storage binding limit.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, n: u32, checked: bool) -> Self {
        Self::with_tuning(device, queue, n, checked, HeatTuning::default())
    }

    /// The same with another cut. Panics if quads are asked for and n is not divisible by 4.
    pub fn with_tuning(device: &wgpu::Device, queue: &wgpu::Queue, n: u32, checked: bool, tuning: HeatTuning) -> Self {
        assert!(!tuning.quads || n.is_multiple_of(4), "quads need a width divisible by 4, this one is {n}");
        let [wx, wy] = tuning.workgroup;
        let constants = [("n", f64::from(n)), ("workgroup_x", f64::from(wx)), ("workgroup_y", f64::from(wy))];
        let module = shader_module(device, "heat twin", include_str!("../../shaders/heat_twin.wgsl"), checked);
        let layout = bind_group_layout(device, &[true, false]);
        let entry = if tuning.quads { "diffuse_quad" } else { "diffuse" };
        let diffuse = pipeline(device, &layout, &module, entry, &constants, checked);
        let seed = pipeline(device, &layout, &module, "seed", &constants, checked);
        let bytes = 4 * u64::from(n) * u64::from(n);
        let fields = [storage_buffer(device, bytes), storage_buffer(device, bytes)];
        let forward = [bind_group(device, &layout, &[&fields[0], &fields[1]]), bind_group(device, &layout, &[&fields[1], &fields[0]])];
        let columns = if tuning.quads { n / 4 } else { n };
        let twin = Self {
            device: device.clone(),
            queue: queue.clone(),
            diffuse,
            dispatch: [columns.div_ceil(wx), n.div_ceil(wy)],
            fields,
            forward,
            now: Cell::new(1),
        };
        // Both fields, so that no lazy zeroing falls into a timing; the second one last.
        let seed_dispatch = [n.div_ceil(wx), n.div_ceil(wy)];
        encode_and_wait(device, queue, |pass| {
            pass.set_pipeline(&seed);
            for group in [&twin.forward[1], &twin.forward[0]] {
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(seed_dispatch[0], seed_dispatch[1], 1);
            }
        });
        twin
    }

    /// Computes `ticks` ticks and waits for them.
    pub fn run(&self, ticks: u32) {
        encode_ticks_and_wait(&self.device, &self.queue, ticks, |pass, ticks| {
            pass.set_pipeline(&self.diffuse);
            for _ in 0..ticks {
                let now = self.now.get();
                pass.set_bind_group(0, &self.forward[now], &[]);
                pass.dispatch_workgroups(self.dispatch[0], self.dispatch[1], 1);
                self.now.set(1 - now);
            }
        });
    }

    /// The temperatures, row-major, `n * n` of them.
    pub fn read(&self) -> Vec<f32> {
        read_back(&self.device, &self.queue, &self.fields[self.now.get()])
    }
}
