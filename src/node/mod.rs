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

mod gather;
pub mod member;
pub mod parts;
pub mod peer;
pub mod plan;
mod shipping;
pub mod speed;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use peercompute_buffers::transfer::{tile_bytes, tile_from_field};
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::{ExecutorError, Placement, Run};
use peercompute_kernels::program::Op;
use peercompute_kernels::{Program, VerifiedBundle};
use peercompute_net::core::{Output, RunError};
use peercompute_net::driver::{Session, SessionError};
use peercompute_net::ownership::PeerIndex;

use crate::state;
use plan::{ParamChange, PlanError};
pub(crate) use shipping::FRAME_BYTES;
use shipping::Shipping;

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

/// Runs a workload here, on one peer.
///
/// **Errors:** [`NodeError`].
pub async fn run_alone(
    executor: &AnyExecutor,
    bundle: &VerifiedBundle,
    task: &Task,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, NodeError> {
    let program = bundle.program();
    let mut node = Node::new(executor, bundle, &Placement::alone(program), None, 0).await?;
    node.compute(task, progress).await?;
    let digests = state::digests(program, &mut node.run).await?;
    let mut gathered = Vec::new();
    for &buffer in &task.gather {
        gathered.push((buffer, state::whole(program, &mut node.run, buffer).await?));
    }
    let times = node.run.pass_times().unwrap_or_default();
    let passes = times.iter().zip(&program.manifest.passes).filter(|(time, _)| time.runs > 0);
    let passes = passes.map(|(time, pass)| PassSeconds { entry: pass.entry.clone(), runs: time.runs, seconds: time.seconds }).collect();
    Ok(Outcome {
        passes,
        state_hash: state::hash(program, &digests),
        seconds: node.seconds,
        shipped_bytes: 0,
        payload_bytes: 0,
        memory_bytes: node.run.memory_bytes(),
        gathered,
        executor: executor.info().executor.into(),
        adapters: vec![executor.info().adapter.clone()],
    })
}

/// One peer's part of a run.
pub(crate) struct Node<'a> {
    pub(crate) program: &'a Program,
    pub(crate) run: AnyRun<'a>,
    session: Option<&'a Session>,
    pub(crate) shipping: Shipping,
    /// Last words and tiles of peers that were done while this one still waited for a third.
    pub(crate) early: VecDeque<Output>,
    pub(crate) seconds: f64,
    /// What all peers ship in an exchange, per exchange: payload and frames.
    everyone: Vec<u64>,
    everyone_shipped: u64,
}

/// How often progress is told, and how long work may wait unsubmitted.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

impl<'a> Node<'a> {
    pub(crate) async fn new(
        executor: &'a AnyExecutor,
        bundle: &'a VerifiedBundle,
        placement: &Placement,
        session: Option<&'a Session>,
        frame_bytes: u64,
    ) -> Result<Node<'a>, NodeError> {
        let program = bundle.program();
        let run = executor.load(bundle, placement).await?;
        let everyone = everyone_ships(executor, program, placement, session.is_some(), frame_bytes)?;
        let shipping = Shipping::new(run.layout());
        Ok(Node { program, run, session, shipping, early: VecDeque::new(), seconds: 0.0, everyone, everyone_shipped: 0 })
    }

    /// Init, imports, and every tick.
    #[allow(clippy::disallowed_methods, reason = "a run reports how long it took; nothing that it computes depends on it")]
    pub(crate) async fn compute(&mut self, task: &Task, progress: &mut dyn FnMut(Progress)) -> Result<(), NodeError> {
        let program = self.program;
        let mut params = program.manifest.params.clone();
        let mut changes = task.changes.clone();
        changes.sort_by_key(|change| change.tick);
        let mut due = changes.iter().peekable();
        // What holds from the start holds for init too.
        while let Some(change) = due.next_if(|change| change.tick == 0) {
            program.set_param(&mut params, &change.name, &change.value)?;
            self.run.set_params(&params);
        }
        self.advance(&program.init, 0).await?;
        for (buffer, bytes) in &task.imports {
            import(program, &mut self.run, *buffer, bytes);
        }
        self.run.finish().await?;
        let begun = Instant::now();
        let mut told: Option<Instant> = None;
        for tick in 0..task.ticks {
            while let Some(change) = due.next_if(|change| change.tick <= tick) {
                program.set_param(&mut params, &change.name, &change.value)?;
                self.run.set_params(&params);
            }
            self.advance(program.tick(tick), tick).await?;
            if told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY) {
                told = Some(Instant::now());
                self.run.flush()?;
                progress(Progress { tick: tick + 1, seconds: begun.elapsed().as_secs_f64(), shipped_bytes: self.everyone_shipped });
            }
        }
        self.run.finish().await?;
        self.seconds = begun.elapsed().as_secs_f64();
        progress(Progress { tick: task.ticks, seconds: self.seconds, shipped_bytes: self.everyone_shipped });
        Ok(())
    }

    async fn advance(&mut self, ops: &[Op], tick: u64) -> Result<(), NodeError> {
        for &op in ops {
            match op {
                Op::Pass(pass) => self.run.pass(pass, tick)?,
                Op::Exchange(exchange) => {
                    self.run.pack(exchange)?;
                    if self.session.is_some() {
                        self.exchange(exchange).await?;
                    }
                    self.run.unpack(exchange)?;
                }
            }
        }
        Ok(())
    }

    /// Ships what is packed and waits for what is due.
    async fn exchange(&mut self, exchange: usize) -> Result<(), NodeError> {
        let Some(session) = self.session else { return Ok(()) };
        let payloads = self.shipping.take_out(&mut self.run, exchange).await?;
        let sequence = self.shipping.sequence;
        session.post(sequence, exchange as u16, payloads).map_err(|error| ended(session, error))?;
        let payloads = loop {
            match next(session)? {
                Output::Deliver { sequence: delivered, payloads } if delivered == sequence => break payloads,
                early @ (Output::Report { .. } | Output::Commit { .. }) => self.early.push_back(early),
                // A stranger was turned away; the run is not concerned.
                Output::Refused { .. } => {}
                other => return Err(unexpected(&other)),
            }
        };
        self.shipping.put_in(&mut self.run, exchange, payloads);
        self.everyone_shipped += self.everyone[exchange];
        Ok(())
    }
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

/// The next output, or the failure that ended the run.
pub(crate) fn next(session: &Session) -> Result<Output, NodeError> {
    match session.next()? {
        Output::Failed(error) => Err(error.into()),
        output => Ok(output),
    }
}

/// The reason why the session took nothing more: the failure that is waiting, if there is one.
pub(crate) fn ended(session: &Session, error: SessionError) -> NodeError {
    while let Ok(output) = session.next() {
        if let Output::Failed(error) = output {
            return error.into();
        }
    }
    error.into()
}

pub(crate) fn unexpected(output: &Output) -> NodeError {
    let output: String = format!("{output:?}").chars().take(200).collect();
    NodeError::Run(RunError::Misuse { what: format!("the node did not expect {output}") })
}

/// Per exchange, what all peers together ship; needs every peer's layout, which follows from ownership.
fn everyone_ships(executor: &AnyExecutor, program: &Program, placement: &Placement, shared: bool, frame_bytes: u64) -> Result<Vec<u64>, NodeError> {
    let mut bytes = vec![0u64; program.exchanges.len()];
    for me in (0..placement.peers).filter(|_| shared) {
        let layout = executor.layout(program, &Placement { me, ..placement.clone() })?;
        for (sum, plan) in bytes.iter_mut().zip(&layout.exchanges) {
            *sum += plan.send.iter().filter(|run| !run.is_empty()).map(|run| run.len() as u64 * 4 + frame_bytes).sum::<u64>();
        }
    }
    Ok(bytes)
}
