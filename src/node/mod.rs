//! The node: walks a program's ops on an executor, alone or in lockstep with other peers.
//!
//! ```text
//! init, then for every tick:   params due ─ op ─ op ─ …
//! Op::Pass       executor.pass
//! Op::Exchange   executor.pack ─ outbox ─ session.post ─ Deliver ─ executor.inbox ─ unpack
//! at the end     digests of own tiles ─► coordinator; tiles that it gathers as commits ─► its warm store
//! ```
//!
//! Invariant: what a run computes depends on the bundle, the imports and the plan, never on how many
//! peers there are or how fast they are.

#[cfg(not(target_arch = "wasm32"))]
mod gather;
#[cfg(not(target_arch = "wasm32"))]
mod lockstep;
pub mod member;
pub mod parts;
#[cfg(not(target_arch = "wasm32"))]
pub mod peer;
pub mod plan;
mod shipping;
pub mod speed;

use peercompute_buffers::transfer::{tile_bytes, tile_from_field};
use peercompute_kernels::Program;
use peercompute_kernels::executor::any::AnyRun;
use peercompute_kernels::executor::{ExecutorError, Run};
use peercompute_net::core::RunError;
use peercompute_net::driver::SessionError;
use peercompute_net::ownership::PeerIndex;

#[cfg(not(target_arch = "wasm32"))]
pub use lockstep::run_alone;
use plan::{ParamChange, PlanError};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use shipping::FRAME_BYTES;

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The executor failed or cannot take the workload.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The network could not start.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The run failed: a peer was lost, silent, wrong or turned this one away.
    #[error(transparent)]
    Run(#[from] RunError),
    /// This member's part is over before the run's end.
    #[error(transparent)]
    Member(#[from] peercompute_net::membership::MemberError),
    /// The parts of a run's state are not what they should be.
    #[error("{cause}")]
    Parts {
        /// How.
        cause: String,
    },
    /// The plan cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A parameter cannot be changed so.
    #[error(transparent)]
    Param(#[from] peercompute_kernels::WorkloadError),
    /// Peers hold different tables after a reduction.
    #[error("peer {peer} holds another `{buffer}` than this one: the run is not deterministic on these adapters")]
    PeersDisagree {
        /// The other peer.
        peer: PeerIndex,
        /// The table.
        buffer: String,
    },
    /// A peer's last words do not decode.
    #[error("peer {peer} reported nonsense: {cause}")]
    Report {
        /// The peer.
        peer: PeerIndex,
        /// What is wrong.
        cause: String,
    },
    /// A tile that was gathered is refused.
    #[error("peer {peer} sent tile {tile}: {cause}")]
    Commit {
        /// The peer.
        peer: PeerIndex,
        /// The tile.
        tile: u32,
        /// Why.
        cause: String,
    },
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// How many ticks.
    pub ticks: u64,
    /// Parameters that change on the way.
    pub changes: Vec<ParamChange>,
    /// Whole buffers that replace what init made, in row-major order, by buffer number.
    pub imports: Vec<(usize, Vec<u8>)>,
    /// Buffers whose final content is wanted, by number.
    pub gather: Vec<usize>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Ticks handed to the executor.
    pub tick: u64,
    /// Time since tick 0.
    pub seconds: f64,
    /// Bytes that all peers have shipped, frames counted in.
    pub shipped_bytes: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The hash of the whole state.
    pub state_hash: String,
    /// Time from tick 0 to the last tick's end, on the slowest peer.
    pub seconds: f64,
    /// Bytes that all peers shipped, frames counted in.
    pub shipped_bytes: u64,
    /// Bytes of strips, replicas and shares alone.
    pub payload_bytes: u64,
    /// Bytes of executor memory, all peers.
    pub memory_bytes: u64,
    /// The buffers that were asked for, in row-major order, by number.
    pub gathered: Vec<(usize, Vec<u8>)>,
    /// `gpu` or `cpu`, on this peer.
    pub executor: String,
    /// The executors' adapters, by peer.
    pub adapters: Vec<String>,
    /// What each pass took on the device, where it was timed.
    pub passes: Vec<PassSeconds>,
}

/// What a pass took on the device.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PassSeconds {
    /// Its entry point.
    pub entry: String,
    /// How often it ran.
    pub runs: u64,
    /// All runs together.
    pub seconds: f64,
}

/// Replaces a buffer by an import, as far as it is owned here.
fn import(program: &Program, run: &mut AnyRun<'_>, buffer: usize, bytes: &[u8]) {
    let Some(grid) = program.grid_of(buffer) else {
        run.write_table(buffer, bytes);
        return;
    };
    let stride = program.elements[buffer].stride as usize;
    let owned: Vec<_> = run.layout().of_field(program, buffer).map(|residency| residency.owned().collect()).unwrap_or_default();
    for tile in owned {
        let mut content = vec![0; tile_bytes(&grid, tile, stride)];
        tile_from_field(&grid, tile, stride, bytes, &mut content);
        run.write_tile(buffer, tile, &content);
    }
}
