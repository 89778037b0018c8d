//! Peers without a network: several runs of one program in one process, exchanging through memory.
//!
//! One run is the whole workload on one peer. Several are the same partition that a network would
//! make, which is how tests hold the two against each other without a socket. Invariant: bytes move
//! exactly as the plans say, nothing else is shared.

use crate::executor::{ExecutorError, Run};
use crate::program::{Op, Program};

/// Runs a list of ops on every peer, in lockstep.
///
/// **Errors:** the first executor that fails.
pub async fn advance<R: Run>(program: &Program, peers: &mut [R], ops: &[Op], tick: u64) -> Result<(), ExecutorError> {
    debug_assert_eq!(peers.len(), peers.first().map_or(0, |peer| peer.layout().placement.peers), "{}", program.manifest.name);
    for &op in ops {
        match op {
            Op::Pass(pass) => {
                for peer in peers.iter_mut() {
                    peer.pass(pass, tick).await?;
                }
            }
            Op::Exchange(exchange) if peers.iter().all(|peer| peer.layout().exchanges[exchange].is_local()) => {
                for peer in peers.iter_mut() {
                    peer.pack(exchange)?;
                    peer.unpack(exchange).await?;
                }
            }
            Op::Exchange(exchange) => {
                let mut sent = Vec::new();
                for peer in peers.iter_mut() {
                    peer.pack(exchange)?;
                    let mut bytes = Vec::new();
                    // One that sends nothing may receive, and what it has queued must not see that.
                    peer.outbox(exchange, &mut |packed| bytes.extend_from_slice(packed)).await?;
                    sent.push(bytes);
                }
                for from in 0..peers.len() {
                    let runs = peers[from].layout().exchanges[exchange].send.clone();
                    for (to, run) in runs.into_iter().enumerate().filter(|(_, run)| !run.is_empty()) {
                        peers[to].inbox(exchange, from, &sent[from][run.start * 4..run.end * 4]);
                    }
                }
                for peer in peers.iter_mut() {
                    peer.unpack(exchange).await?;
                }
            }
        }
    }
    Ok(())
}

/// Runs the init passes and then `ticks` ticks.
///
/// **Errors:** the first executor that fails.
pub async fn run<R: Run>(program: &Program, peers: &mut [R], ticks: std::ops::Range<u64>) -> Result<(), ExecutorError> {
    if ticks.start == 0 {
        advance(program, peers, &program.init, 0).await?;
    }
    for tick in ticks {
        advance(program, peers, program.tick(tick), tick).await?;
    }
    Ok(())
}
