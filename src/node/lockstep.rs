//! Peers of a fixed roster in lockstep, or one alone: init, then tick after tick to the end.
//!
//! Invariant: everyone takes the same steps in the same order; who posts an exchange waits for what it is owed before it goes on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::{Placement, Run};
use peercompute_kernels::program::Op;
use peercompute_kernels::{Program, VerifiedBundle};
use peercompute_net::core::{Output, RunError};
use peercompute_net::driver::{Session, SessionError};

use super::shipping::Shipping;
use super::{NodeError, Outcome, PassSeconds, Progress, Task, import};
use crate::state;

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
                Op::Pass(pass) => self.run.pass(pass, tick).await?,
                Op::Exchange(exchange) => {
                    self.run.pack(exchange)?;
                    if self.session.is_some() {
                        self.exchange(exchange).await?;
                    }
                    self.run.unpack(exchange).await?;
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
