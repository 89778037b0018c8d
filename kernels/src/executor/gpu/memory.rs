//! Device memory, counted.
//!
//! Every buffer of a run is made here, so that what is in use is known to the byte and running out of
//! memory is an error and not a crash. Invariant: nothing is made once a run is loaded, except the
//! staging buffer of a read that a person asked for.

use std::cell::Cell;

use super::Gpu;
use crate::executor::ExecutorError;

/// Makes buffers and adds up their sizes.
pub(crate) struct Memory<'a> {
    gpu: &'a Gpu,
    bytes: Cell<u64>,
}

impl<'a> Memory<'a> {
    pub(crate) fn new(gpu: &'a Gpu) -> Self {
        Memory { gpu, bytes: Cell::new(0) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Buffers of so many bytes are used no more.
    pub(crate) fn freed(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() - bytes);
    }

    /// A buffer of at least `bytes` (a multiple of 4), zeroed.
    pub(crate) fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let size = bytes.max(4).next_multiple_of(4);
        self.bytes.set(self.bytes.get() + size);
        self.gpu.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    }

    /// A storage buffer that kernels and copies may use.
    pub(crate) fn storage(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.buffer(label, bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)
    }

    /// A storage buffer with content.
    pub(crate) fn constant(&self, label: &str, content: &[u8]) -> wgpu::Buffer {
        let buffer = self.storage(label, content.len() as u64);
        self.gpu.queue.write_buffer(&buffer, 0, content);
        buffer
    }

    /// A uniform buffer with content.
    pub(crate) fn uniform(&self, label: &str, content: &[u8]) -> wgpu::Buffer {
        let size = (content.len() as u64).max(16).next_multiple_of(16);
        let buffer = self.buffer(label, size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        self.gpu.queue.write_buffer(&buffer, 0, content);
        buffer
    }

    /// A buffer that the CPU reads.
    pub(crate) fn staging(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.buffer(label, bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
    }

    /// Runs `make` and turns the adapter's out-of-memory into an error.
    pub(crate) async fn guarded<T>(&self, make: impl FnOnce() -> T) -> Result<T, ExecutorError> {
        let memory = self.gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        // Both before anything is waited for: scopes are the device's, and another load would put its own between them.
        let (validation, memory) = (validation.pop(), memory.pop());
        let validation = validation.await;
        let error = memory.await.or(validation);
        match error {
            None => Ok(made),
            Some(error) => Err(ExecutorError::Memory { adapter: self.gpu.info.adapter.clone(), bytes: self.bytes(), cause: error.to_string() }),
        }
    }
}
