//! A run shared with other peers: assemble, agree on the plan, compute, gather.
//!
//! Invariant: the coordinator decides nothing about code; every peer holds the plan against the
//! bundle that it verified itself before it takes part.

use bytes::Bytes;
use peercompute_buffers::TileId;
use peercompute_buffers::digest::StateDigest;
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::{Layout, Placement, Run};
use peercompute_net::core::{Output, RunError};
use peercompute_net::driver::Session;
use peercompute_net::ownership::{Ownership, PeerIndex};
use serde::{Deserialize, Serialize};

use crate::state;

use super::gather::{self, Gathered};
use super::lockstep::{Node, ended, next, unexpected};
use super::plan::{RunPlan, traffic};
use super::{FRAME_BYTES, NodeError, Outcome, Progress, Task};

/// How tiles are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Every peer the same.
    #[default]
    Even,
    /// By the speed that each peer measured.
    Measured,
}

/// A peer's last words to the coordinator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastWords {
    digests: Vec<[u64; 2]>,
    seconds: f64,
    shipped_bytes: u64,
    payload_bytes: u64,
    memory_bytes: u64,
    adapter: String,
}

/// Coordinates a run of `peers` peers, this one included, and takes part in it.
///
/// **Errors:** [`NodeError`]; on every peer the same report.
pub async fn host(
    executor: &AnyExecutor,
    bundle: &VerifiedBundle,
    session: &Session,
    split: Split,
    own_speed: f64,
    task: &Task,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, NodeError> {
    let program = bundle.program();
    let joiners = loop {
        match next(session)? {
            Output::Assemble { joiners } => break joiners,
            // A stranger was turned away; the run is not concerned.
            Output::Refused { .. } => {}
            other => return Err(unexpected(&other)),
        }
    };
    let peers = joiners.len() + 1;
    let weights: Vec<f64> = match split {
        Split::Even => vec![1.0; peers],
        Split::Measured => std::iter::once(own_speed).chain(joiners.iter().map(|joiner| joiner.speed)).collect(),
    };
    let grids: Vec<_> = program.manifest.grids.iter().map(|grid| grid.grid).collect();
    let plan =
        RunPlan { ownership: Ownership::split(&grids, &weights), ticks: task.ticks, changes: task.changes.clone(), gather: task.gather.clone() };
    plan.check(program, peers)?;
    let placement = plan.placement(0, peers);
    let layout = executor.layout(program, &placement)?;
    session.plan_made(plan.to_bytes()?.into(), traffic(&layout)?, plan.ownership.clone()).map_err(|error| ended(session, error))?;
    let mut node = take_part(executor, bundle, session, &placement, task, progress).await?;
    let mut digests = state::digests(program, &mut node.run).await?;
    let mut gathered = Gathered::new(program, &plan);
    gathered.take_own(&mut node.run).await?;
    session.finish().map_err(|error| ended(session, error))?;
    let mut outcome = Outcome {
        seconds: node.seconds,
        shipped_bytes: node.shipping.shipped_bytes,
        payload_bytes: node.shipping.payload_bytes,
        memory_bytes: node.run.memory_bytes(),
        executor: executor.info().executor.into(),
        adapters: vec![executor.info().adapter.clone()],
        ..Outcome::default()
    };
    let mut words: Vec<Option<LastWords>> = (1..peers).map(|_| None).collect();
    let mut early = std::mem::take(&mut node.early);
    loop {
        match early.pop_front().map_or_else(|| next(session), Ok)? {
            Output::Commit { from, grid, tile, body } => gathered.take(from, grid, TileId(tile), &body)?,
            Output::Report { from, bytes } => {
                let said: LastWords = serde_json::from_slice(&bytes).map_err(|error| NodeError::Report { peer: from, cause: error.to_string() })?;
                if said.digests.len() != digests.len() {
                    return Err(NodeError::Report { peer: from, cause: "its digests are not one for each buffer".into() });
                }
                words[from.at() - 1] = Some(said);
            }
            Output::Finished => break,
            Output::Refused { .. } => {}
            other => return Err(unexpected(&other)),
        }
    }
    for (index, said) in words.into_iter().enumerate() {
        let peer = PeerIndex(index as u16 + 1);
        let said = said.ok_or_else(|| NodeError::Report { peer, cause: "it finished without a report".into() })?;
        for (buffer, digest) in said.digests.iter().enumerate() {
            if program.grid_of(buffer).is_some() {
                digests[buffer].add(StateDigest(*digest));
            } else if digests[buffer] != StateDigest(*digest) {
                return Err(NodeError::PeersDisagree { peer, buffer: program.manifest.buffers[buffer].name.clone() });
            }
        }
        outcome.seconds = outcome.seconds.max(said.seconds);
        outcome.shipped_bytes += said.shipped_bytes;
        outcome.payload_bytes += said.payload_bytes;
        outcome.memory_bytes += said.memory_bytes;
        outcome.adapters.push(said.adapter);
    }
    outcome.state_hash = state::hash(program, &digests);
    outcome.gathered = gathered.finish()?;
    Ok(outcome)
}

/// Takes part in a run that another peer coordinates. `imports` are this peer's own view of the imports.
///
/// **Errors:** [`NodeError`]; on every peer the same report.
pub async fn join(executor: &AnyExecutor, bundle: &VerifiedBundle, session: &Session, imports: Vec<(usize, Vec<u8>)>) -> Result<(), NodeError> {
    let program = bundle.program();
    let (plan, me, peers) = match next(session)? {
        Output::PlanReceived { plan, index, roster, .. } => match RunPlan::from_bytes(&plan, program, roster.len()) {
            Ok(plan) => (plan, index, roster.len()),
            Err(error) => {
                session.plan_refused(&error.to_string()).map_err(|error| ended(session, error))?;
                return Err(error.into());
            }
        },
        other => return Err(unexpected(&other)),
    };
    let placement = plan.placement(me.at(), peers);
    let accepted: Result<Layout, NodeError> = executor.layout(program, &placement).map_err(NodeError::from);
    let traffic = accepted.and_then(|layout| Ok(traffic(&layout)?));
    match traffic {
        Ok(traffic) => session.plan_accepted(traffic, plan.ownership.clone()).map_err(|error| ended(session, error))?,
        Err(error) => {
            session.plan_refused(&error.to_string()).map_err(|error| ended(session, error))?;
            return Err(error);
        }
    }
    let task = Task { ticks: plan.ticks, changes: plan.changes.clone(), imports, gather: plan.gather.clone() };
    let mut node = take_part(executor, bundle, session, &placement, &task, &mut |_| {}).await?;
    let words = LastWords {
        digests: state::digests(program, &mut node.run).await?.iter().map(|digest| digest.0).collect(),
        seconds: node.seconds,
        shipped_bytes: node.shipping.shipped_bytes,
        payload_bytes: node.shipping.payload_bytes,
        memory_bytes: node.run.memory_bytes(),
        adapter: executor.info().adapter.clone(),
    };
    let commits = gather::commits(program, &plan, me, &mut node.run).await?;
    if !commits.is_empty() {
        session.publish(PeerIndex(0), commits).map_err(|error| ended(session, error))?;
    }
    let words = serde_json::to_vec(&words).map_err(super::plan::PlanError::from)?;
    session.report(Bytes::from(words)).map_err(|error| ended(session, error))?;
    session.finish().map_err(|error| ended(session, error))?;
    match next(session)? {
        Output::Finished => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Loads, waits for the start, computes.
async fn take_part<'a>(
    executor: &'a AnyExecutor,
    bundle: &'a VerifiedBundle,
    session: &'a Session,
    placement: &Placement,
    task: &Task,
    progress: &mut dyn FnMut(Progress),
) -> Result<Node<'a>, NodeError> {
    let loaded = Node::new(executor, bundle, placement, Some(session), FRAME_BYTES).await;
    let mut node = match loaded {
        Ok(node) => node,
        Err(error) => {
            // The others hear why before this peer goes.
            session.stop(&error.to_string()).map_err(|error| ended(session, error))?;
            return Err(error);
        }
    };
    loop {
        match next(session)? {
            Output::Start => break,
            Output::Refused { .. } => {}
            other => return Err(unexpected(&other)),
        }
    }
    match node.compute(task, progress).await {
        Ok(()) => Ok(node),
        Err(NodeError::Run(error)) => Err(NodeError::Run(error)),
        Err(error) => {
            session.stop(&error.to_string()).map_err(|error| ended(session, error))?;
            Err(error)
        }
    }
}

/// Whether a failure is another peer's report of the cause, which that peer tells better.
pub fn is_second_hand(error: &NodeError) -> bool {
    matches!(error, NodeError::Run(RunError::Aborted { .. }))
}
