//! What the peers of a run agree on before tick 0.
//!
//! The coordinator makes a [`RunPlan`] from what it knows of the joiners; every peer checks it
//! against the program that it verified itself. Invariant: a plan names no code; whatever it says,
//! only the signed kernels run.

use peercompute_kernels::Program;
use peercompute_kernels::executor::{Layout, Placement};
use peercompute_net::core::{ExchangeTraffic, Traffic};
use peercompute_net::ownership::Ownership;
use serde::{Deserialize, Serialize};

/// A parameter that takes a new value before a tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamChange {
    /// The tick before which it takes effect.
    pub tick: u64,
    /// The field of `struct Params`.
    pub name: String,
    /// The value, as TOML.
    pub value: String,
}

/// What all peers of a run do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// Who owns which tile.
    pub ownership: Ownership,
    /// How many ticks.
    pub ticks: u64,
    /// Parameters that change on the way.
    pub changes: Vec<ParamChange>,
    /// Buffers whose final content the coordinator gathers.
    pub gather: Vec<usize>,
}

/// Why a plan cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It does not decode.
    #[error("the plan does not decode: {0}")]
    Decode(#[from] serde_json::Error),
    /// Its ownership does not fit the workload.
    #[error("the plan's ownership does not fit: {0}")]
    Ownership(#[from] peercompute_net::ownership::OwnershipError),
    /// It gathers a buffer that does not exist.
    #[error("the plan gathers buffer {buffer}, there are {count}")]
    Buffer {
        /// The number given.
        buffer: usize,
        /// How many there are.
        count: usize,
    },
    /// It changes a parameter that cannot be changed so.
    #[error("the plan changes a parameter: {0}")]
    Param(#[from] peercompute_kernels::WorkloadError),
    /// An exchange is larger than a frame can be.
    #[error("exchange {exchange} moves {bytes} bytes to one peer, and a frame carries {limit}: use more or smaller tiles per peer")]
    Traffic {
        /// Which exchange.
        exchange: usize,
        /// Bytes to one peer.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl RunPlan {
    /// The bytes that travel.
    ///
    /// **Errors:** none that plain values can cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Decodes a plan and holds it against the program.
    ///
    /// **Errors:** [`PlanError`]; nothing has been done for a plan that is refused.
    pub fn from_bytes(bytes: &[u8], program: &Program, peers: usize) -> Result<RunPlan, PlanError> {
        let plan: RunPlan = serde_json::from_slice(bytes)?;
        plan.check(program, peers)?;
        Ok(plan)
    }

    /// Holds a plan against the program.
    ///
    /// **Errors:** [`PlanError`].
    pub fn check(&self, program: &Program, peers: usize) -> Result<(), PlanError> {
        let grids: Vec<_> = program.manifest.grids.iter().map(|grid| grid.grid).collect();
        self.ownership.check(&grids, peers)?;
        let count = program.manifest.buffers.len();
        if let Some(&buffer) = self.gather.iter().find(|&&buffer| buffer >= count) {
            return Err(PlanError::Buffer { buffer, count });
        }
        let mut params = program.manifest.params.clone();
        for change in &self.changes {
            program.set_param(&mut params, &change.name, &change.value)?;
        }
        Ok(())
    }

    /// The placement of one peer.
    pub fn placement(&self, me: usize, peers: usize) -> Placement {
        let owners = self.ownership.grids.iter().map(|owners| owners.iter().map(|owner| owner.at()).collect()).collect();
        Placement::new(me, peers, owners)
    }
}

/// What a layout's exchanges move, in bytes per peer.
///
/// **Errors:** [`PlanError::Traffic`].
pub fn traffic(layout: &Layout) -> Result<Traffic, PlanError> {
    let limit = u64::from(peercompute_net::core::PAYLOAD_BYTES_MAX);
    let bytes = |exchange: usize, words: usize| {
        let bytes = words as u64 * 4;
        if bytes <= limit { Ok(bytes as u32) } else { Err(PlanError::Traffic { exchange, bytes, limit }) }
    };
    let mut exchanges = Vec::new();
    for (index, plan) in layout.exchanges.iter().enumerate() {
        // An exchange of one grid among several may have no runs at all for this peer.
        let sizes = |runs: &[std::ops::Range<usize>]| {
            let mut sizes: Vec<u32> = runs.iter().map(|run| bytes(index, run.len())).collect::<Result<_, _>>()?;
            sizes.resize(layout.placement.peers, 0);
            Ok::<_, PlanError>(sizes)
        };
        exchanges.push(ExchangeTraffic { send: sizes(&plan.send)?, receive: sizes(&plan.receive)? });
    }
    Ok(Traffic { exchanges })
}
