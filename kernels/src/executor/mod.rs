//! What runs kernels, and the seam between it and the node.
//!
//! The node walks a program's [`Op`](crate::program::Op)s: `pass` runs one, an exchange is `pack`,
//! `outbox` → wire → `inbox`, `unpack`. An executor never waits unless a method is `async`; work is
//! queued and handed over in batches. Invariant: the same program, placement and inputs give the same
//! bits on the same executor and adapter, whatever the partition.

pub mod any;
mod arenas;
pub mod cpu;
mod dispatch;
pub mod gpu;
pub mod layout;
mod limits;
pub mod mesh;
#[cfg(target_arch = "wasm32")]
mod rest;
mod tables;

use peercompute_buffers::TileId;
use peercompute_buffers::residency::ResidencyError;

pub use dispatch::Borders;
pub use layout::{Layout, Placement};

use crate::bundle::BundleError;
use crate::diagnose::{ErrorKind, WorkloadError};
use crate::program::Program;

/// Why something cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// There is no adapter at all.
    #[cfg_attr(
        target_arch = "wasm32",
        error(
            "no GPU adapter was found: this browser has no WebGPU, gives none of its adapters, or the page is neither https nor from this machine"
        )
    )]
    #[cfg_attr(
        not(target_arch = "wasm32"),
        error(
            "no GPU adapter was found\n  help: install a Vulkan driver for your GPU, or a software one; on Debian and Ubuntu: apt-get install mesa-vulkan-drivers; or use the cpu executor, which needs none"
        )
    )]
    NoAdapter,
    /// None of that name.
    #[error("no adapter's name contains `{wanted}`; there is {}", available.join(", "))]
    NoSuchAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The adapter gave no device.
    #[error("{adapter} gave no device: {cause}")]
    NoDevice {
        /// The adapter.
        adapter: String,
        /// Its word.
        cause: String,
    },
    /// The workload needs more than the adapter has.
    #[error("`{workload}` does not fit {adapter}: {cause}")]
    Limit {
        /// The workload.
        workload: String,
        /// The adapter.
        adapter: String,
        /// What stands in the way.
        cause: WorkloadError,
    },
    /// The tiles do not fit the adapter's largest binding.
    #[error("`{workload}` does not fit {adapter}: {cause}")]
    Layout {
        /// The workload.
        workload: String,
        /// The adapter.
        adapter: String,
        /// What stands in the way.
        cause: ResidencyError,
    },
    /// The kernels fail the checks, or are not what the bundle says; for bundles whose signature alone has been verified.
    #[error(transparent)]
    Bundle(#[from] Box<BundleError>),
    /// The adapter's compiler refused a kernel.
    #[error("{adapter} refuses `{entry}`: {cause}")]
    Kernel {
        /// The adapter.
        adapter: String,
        /// The entry point.
        entry: String,
        /// Its word.
        cause: String,
    },
    /// Not enough memory.
    #[error("{adapter} has no {bytes} bytes of memory left: {cause}")]
    Memory {
        /// The adapter.
        adapter: String,
        /// Bytes asked for in all.
        bytes: u64,
        /// Its word.
        cause: String,
    },
    /// A dispatch ran longer than the executor allows; the run cannot go on.
    #[error("`{entry}` was stopped on {adapter}: one dispatch ran for more than {seconds} s")]
    TimedOut {
        /// The adapter.
        adapter: String,
        /// The entry point.
        entry: String,
        /// The limit.
        seconds: f64,
    },
    /// The device went away or an operation failed on it.
    #[error("the device was lost: {cause}")]
    Lost {
        /// What the driver said.
        cause: String,
    },
    /// In a browser: the module that the cpu executor is in was not to be had.
    #[error("the cpu executor cannot be loaded: {cause}")]
    NotLoaded {
        /// The browser's word.
        cause: String,
    },
}

impl ExecutorError {
    fn limit(program: &Program, info: &ExecutorInfo, kind: ErrorKind) -> ExecutorError {
        ExecutorError::Limit { workload: program.manifest.name.clone(), adapter: info.named(), cause: kind.into() }
    }

    fn layout(program: &Program, info: &ExecutorInfo, cause: ResidencyError) -> ExecutorError {
        ExecutorError::Layout { workload: program.manifest.name.clone(), adapter: info.named(), cause }
    }
}

/// What an executor is, for people and for results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorInfo {
    /// `gpu` or `cpu`.
    pub executor: &'static str,
    /// The adapter's name.
    pub adapter: String,
    /// The driver or backend.
    pub backend: String,
    /// Whether it computes in software.
    pub is_software: bool,
}

impl ExecutorInfo {
    /// Its name in a sentence.
    pub fn named(&self) -> String {
        if self.executor == "cpu" { format!("the cpu ({})", self.adapter) } else { self.adapter.clone() }
    }
}

/// A piece of a run's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An owned tile of a field: the buffer's number, and which.
    Tile(usize, TileId),
    /// A table, by the buffer's number.
    Table(usize),
}

/// A program resident on an executor.
#[allow(async_fn_in_trait, reason = "runs stay on one thread; browsers cannot send them between threads")]
pub trait Run {
    /// Where everything lies and what exchanges move.
    fn layout(&self) -> &Layout;

    /// Queues a pass and the folding of what it contributes to tables. The cpu executor does it at once; in a browser, where the network
    /// may have the same thread, it lets other tasks have their turn meanwhile.
    ///
    /// Whoever drops the future before its end has to drop the run: its buffers are half written.
    ///
    /// **Errors:** the device was lost.
    async fn pass(&mut self, pass: usize, tick: u64) -> Result<(), ExecutorError>;

    /// Queues the packing of an exchange.
    ///
    /// **Errors:** the device was lost.
    fn pack(&mut self, exchange: usize) -> Result<(), ExecutorError>;

    /// Waits for what was packed and shows it to `take`: the runs of `ExchangePlan::send`, 4 bytes a word.
    /// Where nothing goes to another peer, `take` sees no bytes.
    ///
    /// **Errors:** the device was lost.
    async fn outbox(&mut self, exchange: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError>;

    /// Puts what a peer sent into the inbox, after this peer's own [`outbox`](Run::outbox) of the exchange.
    ///
    /// # Panics
    /// When the length is not the plan's: the network layer checks it.
    fn inbox(&mut self, exchange: usize, peer: usize, bytes: &[u8]);

    /// Queues the unpacking of an exchange and the combining of its tables; as [`Run::pass`].
    ///
    /// **Errors:** the device was lost.
    async fn unpack(&mut self, exchange: usize) -> Result<(), ExecutorError>;

    /// Takes up another placement under which this peer computes the same tiles: what it computed stays where it is, and only
    /// exchanges change. Whether it could; `false` where the tiles are others, or the executor must load anew.
    ///
    /// **Errors:** no memory, or the device was lost.
    async fn reship(&mut self, placement: &Placement) -> Result<bool, ExecutorError>;

    /// Replaces the bytes of `struct Params` for passes queued from now on.
    fn set_params(&mut self, bytes: &[u8]);

    /// Replaces an owned tile of a field.
    fn write_tile(&mut self, buffer: usize, tile: TileId, bytes: &[u8]);

    /// Replaces a table.
    fn write_table(&mut self, buffer: usize, bytes: &[u8]);

    /// Bytes of a piece; 0 of what is not here.
    fn piece_bytes(&self, piece: Piece) -> usize;

    /// Waits for all that is queued and reads pieces, one right behind the other.
    ///
    /// **Errors:** the device was lost.
    ///
    /// # Panics
    /// When `into` is not as long as they are together.
    async fn read(&mut self, pieces: &[Piece], into: &mut [u8]) -> Result<(), ExecutorError>;

    /// Reads an owned tile; nothing, if it is not here.
    ///
    /// **Errors:** those of [`Run::read`].
    async fn read_tile(&mut self, buffer: usize, tile: TileId) -> Result<Vec<u8>, ExecutorError> {
        read_piece(self, Piece::Tile(buffer, tile)).await
    }

    /// Reads a table.
    ///
    /// **Errors:** those of [`Run::read`].
    async fn read_table(&mut self, buffer: usize) -> Result<Vec<u8>, ExecutorError> {
        read_piece(self, Piece::Table(buffer)).await
    }

    /// Hands over what is queued without waiting.
    ///
    /// **Errors:** the device was lost.
    fn flush(&mut self) -> Result<(), ExecutorError>;

    /// Hands over what is queued, and waits until only a few batches of it are under way: for whoever queues much.
    ///
    /// **Errors:** the device was lost.
    async fn keep_up(&mut self) -> Result<(), ExecutorError> {
        self.flush()
    }

    /// Waits for all that is queued.
    ///
    /// **Errors:** the device was lost.
    async fn finish(&mut self) -> Result<(), ExecutorError>;

    /// Bytes of executor memory in use.
    fn memory_bytes(&self) -> u64;
}

async fn read_piece(run: &mut (impl Run + ?Sized), piece: Piece) -> Result<Vec<u8>, ExecutorError> {
    let mut content = vec![0; run.piece_bytes(piece)];
    run.read(&[piece], &mut content).await?;
    Ok(content)
}
