//! What must hold in every simulated run, whatever the faults: judged from outside the core.
//!
//! - A payload that is delivered was posted by that peer, to that peer, for that exchange: the same bytes;
//!   with no staleness, for that very sequence.
//! - Every peer is delivered sequence 0, 1, 2, … once each, and only what it posted for.
//! - Stale payloads are within the staleness and never get older.
//! - All peers start from the same plan; a tile is committed to a peer once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use thiserror::Error;

use crate::core::Output;
use crate::ownership::PeerIndex;

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A delivery that nobody posted, or other bytes than were posted.
    #[error("peer {to} was delivered something at sequence {sequence} that peer {from} did not post for it")]
    Invented {
        /// The sender, as delivered.
        from: PeerIndex,
        /// The receiver.
        to: PeerIndex,
        /// The sequence.
        sequence: u64,
    },
    /// A delivery out of order, twice, or without a post.
    #[error("peer {to} was delivered sequence {sequence}, expected {expected}")]
    OutOfTurn {
        /// The receiver.
        to: PeerIndex,
        /// The sequence delivered.
        sequence: u64,
        /// The sequence due.
        expected: u64,
    },
    /// A stale payload older than one delivered before, or than the staleness allows.
    #[error("peer {to} was delivered occurrence {occurrence} of peer {from} at its occurrence {at}, after {before}")]
    TooStale {
        /// The sender.
        from: PeerIndex,
        /// The receiver.
        to: PeerIndex,
        /// The occurrence delivered.
        occurrence: u64,
        /// The receiver's own occurrence.
        at: u64,
        /// The occurrence delivered before.
        before: u64,
    },
    /// Payloads out of peer order, or two of one peer.
    #[error("peer {to} was delivered sequence {sequence} out of peer order")]
    Unordered {
        /// The receiver.
        to: PeerIndex,
        /// The sequence.
        sequence: u64,
    },
    /// A peer was given another plan than the first.
    #[error("place {place} was given another plan")]
    OtherPlan {
        /// Which place.
        place: u16,
    },
    /// A tile was committed twice to one peer.
    #[error("place {place} was given tile {tile} of grid {grid} twice")]
    CommittedTwice {
        /// Which place.
        place: u16,
        /// The grid.
        grid: u16,
        /// The tile.
        tile: u32,
    },
    /// Something after the end.
    #[error("place {place} was given something after its end")]
    AfterEnd {
        /// Which place.
        place: u16,
    },
}

/// What the posts of one peer to one other, in one exchange, were: (sequence, hash) by occurrence.
type Posts = Vec<(u64, blake3::Hash)>;

/// Watches one run.
#[derive(Debug, Default)]
pub struct Checker {
    staleness: u64,
    posts: BTreeMap<(PeerIndex, PeerIndex, u16), Posts>,
    /// Per peer: the exchange of each sequence it posted.
    schedule: BTreeMap<PeerIndex, Vec<u16>>,
    delivered: BTreeMap<PeerIndex, u64>,
    /// The latest occurrence delivered, by (from, to, exchange).
    newest: BTreeMap<(PeerIndex, PeerIndex, u16), u64>,
    plan: Option<blake3::Hash>,
    committed: BTreeSet<(u16, u16, u32)>,
    ended: Vec<bool>,
}

impl Checker {
    /// A watcher over a run of this many places.
    pub fn new(places: usize, staleness: u32) -> Checker {
        Checker { staleness: staleness.into(), ended: vec![false; places], ..Checker::default() }
    }

    /// A node posts.
    pub fn posted(&mut self, from: Option<PeerIndex>, sequence: u64, exchange: u16, payloads: &[(PeerIndex, Bytes)]) -> Result<(), CheckError> {
        let Some(from) = from else { return Ok(()) };
        self.schedule.entry(from).or_default().push(exchange);
        for (to, payload) in payloads {
            self.posts.entry((from, *to, exchange)).or_default().push((sequence, blake3::hash(payload)));
        }
        Ok(())
    }

    /// A node is given an output.
    pub fn observed(&mut self, place: u16, index: Option<PeerIndex>, output: &Output) -> Result<(), CheckError> {
        if self.ended.get(usize::from(place)) == Some(&true) {
            return Err(CheckError::AfterEnd { place });
        }
        match output {
            Output::Deliver { sequence, payloads } => match index {
                Some(to) => self.delivered(to, *sequence, payloads),
                None => Ok(()),
            },
            Output::PlanReceived { plan, .. } => {
                let hash = blake3::hash(plan);
                if *self.plan.get_or_insert(hash) == hash { Ok(()) } else { Err(CheckError::OtherPlan { place }) }
            }
            Output::Commit { grid, tile, .. } => match self.committed.insert((place, *grid, *tile)) {
                true => Ok(()),
                false => Err(CheckError::CommittedTwice { place, grid: *grid, tile: *tile }),
            },
            Output::Failed(_) | Output::Finished => {
                if let Some(ended) = self.ended.get_mut(usize::from(place)) {
                    *ended = true;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn delivered(&mut self, to: PeerIndex, sequence: u64, payloads: &[(PeerIndex, Bytes)]) -> Result<(), CheckError> {
        let due = self.delivered.entry(to).or_default();
        let schedule = self.schedule.get(&to).map(Vec::as_slice).unwrap_or_default();
        let exchange = usize::try_from(sequence).ok().and_then(|at| schedule.get(at)).copied();
        let (true, Some(exchange)) = (*due == sequence, exchange) else {
            return Err(CheckError::OutOfTurn { to, sequence, expected: *due });
        };
        *due += 1;
        if !payloads.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(CheckError::Unordered { to, sequence });
        }
        let past = schedule.iter().take(sequence as usize);
        let at = past.filter(|posted| **posted == exchange).count() as u64;
        for (from, payload) in payloads {
            self.delivered_one(*from, to, (sequence, exchange, at), payload)?;
        }
        Ok(())
    }

    fn delivered_one(
        &mut self,
        from: PeerIndex,
        to: PeerIndex,
        (sequence, exchange, at): (u64, u16, u64),
        payload: &Bytes,
    ) -> Result<(), CheckError> {
        let posts = self.posts.get(&(from, to, exchange)).map(Vec::as_slice).unwrap_or_default();
        let hash = blake3::hash(payload);
        let oldest = at.saturating_sub(self.staleness);
        // The newest fitting post: payloads may repeat.
        let fits = |(n, post): &(u64, &(u64, blake3::Hash))| (oldest..=at).contains(n) && post.1 == hash;
        let Some((occurrence, _)) = (0u64..).zip(posts).filter(fits).last() else {
            return Err(CheckError::Invented { from, to, sequence });
        };
        let before = self.newest.insert((from, to, exchange), occurrence);
        match before.filter(|before| *before > occurrence) {
            Some(before) => Err(CheckError::TooStale { from, to, occurrence, at, before }),
            None => Ok(()),
        }
    }
}
