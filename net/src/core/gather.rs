//! The end of a run: tiles' final content, reports, and the agreement that all is said.
//!
//! Invariant: a tile is committed only by its owner under the plan's ownership, and at most once;
//! Finished comes only when every peer has said Done and so has this one.

use bytes::Bytes;

use super::event::{CommitBody, Output, REPORTS_MAX, Violation};
use super::{Core, Phase};
use crate::ownership::{Ownership, PeerIndex};
use crate::wire::{Message, REPORT_BYTES_MAX};
use peercompute_buffers::TileId;

/// Whose tiles are whose, and which have been committed to this peer.
#[derive(Debug)]
pub(super) struct Gather {
    ownership: Ownership,
    committed: Vec<Vec<bool>>,
}

impl Default for Gather {
    fn default() -> Gather {
        Gather::new(Ownership { epoch: 0, grids: Vec::new() })
    }
}

impl Gather {
    pub(super) fn new(ownership: Ownership) -> Gather {
        let committed = ownership.grids.iter().map(|owners| vec![false; owners.len()]).collect();
        Gather { ownership, committed }
    }

    fn owns(&self, peer: PeerIndex, grid: u16, tile: u32) -> bool {
        self.ownership.owner(usize::from(grid), TileId(tile)) == Some(peer)
    }

    /// Counts a commit of `from`.
    fn take(&mut self, from: PeerIndex, grid: u16, tile: u32) -> Result<(), Violation> {
        if !self.owns(from, grid, tile) {
            return Err(Violation::ForeignTile { grid, tile });
        }
        let committed = self.committed.get_mut(usize::from(grid)).and_then(|tiles| tiles.get_mut(tile as usize));
        match committed {
            Some(committed) if !*committed => {
                *committed = true;
                Ok(())
            }
            _ => Err(Violation::RepeatedTile { grid, tile }),
        }
    }
}

impl Core {
    pub(super) fn publish(&mut self, to: PeerIndex, commits: Vec<CommitBody>) {
        if self.phase != Phase::Running || self.done_at.is_some() {
            return self.misuse("published outside a run");
        }
        for CommitBody { grid, tile, body } in commits {
            if !self.gather.owns(self.me, grid, tile) {
                return self.misuse(&format!("published tile {tile} of grid {grid}, which is another's"));
            }
            if body.len() > self.config.commit_bytes_max as usize {
                return self.misuse(&format!("published {} bytes as one tile", body.len()));
            }
            if to == self.me {
                match self.gather.take(to, grid, tile) {
                    Ok(()) => self.outputs.push_back(Output::Commit { from: to, grid, tile, body }),
                    Err(violation) => return self.misuse(&violation.to_string()),
                }
            } else {
                self.send_to(to, &Message::Commit { grid, tile, body });
            }
        }
    }

    pub(super) fn commit(&mut self, from: PeerIndex, grid: u16, tile: u32, body: Bytes) -> Result<(), Violation> {
        let limit = self.config.commit_bytes_max;
        if self.exchanges.is_none() {
            return Err(Violation::Unexpected { message: "commit" });
        }
        if body.len() > limit as usize {
            return Err(Violation::CommitTooLarge { given: body.len(), limit });
        }
        self.gather.take(from, grid, tile)?;
        self.outputs.push_back(Output::Commit { from, grid, tile, body });
        Ok(())
    }

    pub(super) fn report(&mut self, bytes: Bytes) {
        let sent = self.peer(self.me).map_or(0, |peer| peer.reports);
        if self.phase != Phase::Running || self.done_at.is_some() {
            return self.misuse("reported outside a run");
        }
        if bytes.len() > REPORT_BYTES_MAX || sent >= REPORTS_MAX {
            return self.misuse(&format!("report {sent} of {} bytes is above a limit", bytes.len()));
        }
        if let Some(me) = self.peers.get_mut(self.me.at()) {
            me.reports += 1;
        }
        if self.is_coordinator() {
            self.outputs.push_back(Output::Report { from: self.me, bytes });
        } else {
            self.send_to(PeerIndex::COORDINATOR, &Message::Report(bytes));
        }
    }

    pub(super) fn reported(&mut self, from: PeerIndex, bytes: Bytes) -> Result<(), Violation> {
        if !self.is_coordinator() || self.exchanges.is_none() {
            return Err(Violation::Unexpected { message: "report" });
        }
        let Some(peer) = self.peers.get_mut(from.at()) else {
            return Ok(());
        };
        if peer.reports >= REPORTS_MAX {
            return Err(Violation::TooManyReports { limit: REPORTS_MAX });
        }
        peer.reports += 1;
        self.outputs.push_back(Output::Report { from, bytes });
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        let waiting = self.exchanges.as_ref().is_none_or(|exchanges| exchanges.is_waiting());
        if self.phase != Phase::Running || self.done_at.is_some() || waiting {
            return self.misuse("finished out of turn");
        }
        self.done_at = Some(self.now);
        for to in self.others() {
            self.send_to(to, &Message::Done);
        }
        self.finish_if_all_done();
    }

    pub(super) fn peer_done(&mut self, from: PeerIndex) -> Result<(), Violation> {
        let Some(exchanges) = &mut self.exchanges else {
            return Err(Violation::Unexpected { message: "done" });
        };
        exchanges.done(from);
        if let Some(peer) = self.peers.get_mut(from.at()) {
            peer.done = true;
        }
        self.finish_if_all_done();
        if self.phase == Phase::Finished { Ok(()) } else { self.deliver_or_blame(from) }
    }

    fn finish_if_all_done(&mut self) {
        let all = self.others().all(|peer| self.peer(peer).is_some_and(|peer| peer.done));
        if self.done_at.is_none() || !all {
            return;
        }
        self.enter(Phase::Finished);
        let links: Vec<_> = self.links.keys().copied().collect();
        for id in links {
            self.close(id, "the run is finished");
        }
        self.outputs.push_back(Output::Finished);
    }
}
