//! How long each pass takes on the device, by its own clock.
//!
//! With timestamps every pass of the program gets a compute pass of its own, with a query at either
//! end, and every batch is waited for: it is for looking, not for speed. Invariant: a run without it
//! pays nothing.

#![cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "runs in a browser are not profiled"))]

use super::Gpu;
use super::memory::Memory;

/// Passes timed in one batch.
pub(crate) const TIMED_MAX: u32 = 128;

/// What a pass has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PassTime {
    /// How often it ran.
    pub runs: u64,
    /// **Units:** seconds on the device, all runs together.
    pub seconds: f64,
}

pub(crate) struct Profile {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// The passes of this batch, in order.
    timed: Vec<usize>,
    period_s: f64,
    pub(crate) times: Vec<PassTime>,
}

impl Profile {
    /// `None` where the adapter has no timestamps.
    pub(crate) fn new(gpu: &Gpu, memory: &Memory<'_>, passes: usize) -> Option<Profile> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let queries =
            gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: Some("passes"), ty: wgpu::QueryType::Timestamp, count: 2 * TIMED_MAX });
        let bytes = u64::from(2 * TIMED_MAX) * 8;
        let resolved = memory.buffer("timestamps", bytes, wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = memory.staging("timestamps", bytes);
        let period_s = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        Some(Profile { queries, resolved, staging, timed: Vec::new(), period_s, times: vec![PassTime::default(); passes] })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.timed.len() >= TIMED_MAX as usize
    }

    /// Opens a compute pass that times `pass`.
    pub(crate) fn begin(&mut self, encoder: &mut wgpu::CommandEncoder, pass: usize) -> wgpu::ComputePass<'static> {
        let first = 2 * self.timed.len() as u32;
        self.timed.push(pass);
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        };
        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) }).forget_lifetime()
    }

    /// Ends a batch: what to wait for and read before [`Profile::add`], if anything was timed.
    pub(crate) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) -> Option<(wgpu::Buffer, u64)> {
        let count = 2 * self.timed.len() as u32;
        if count == 0 {
            return None;
        }
        encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, u64::from(count) * 8);
        Some((self.staging.clone(), u64::from(count) * 8))
    }

    /// Adds a batch's timestamps.
    pub(crate) fn add(&mut self, stamps: &[u8]) {
        let stamp = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        for (pass, pair) in self.timed.drain(..).zip(stamps.chunks_exact(16)) {
            let (begin, end) = pair.split_at(8);
            let time = &mut self.times[pass];
            time.runs += 1;
            // Some drivers write an end before its beginning when nothing ran.
            time.seconds += stamp(end).saturating_sub(stamp(begin)) as f64 * self.period_s;
        }
    }
}
