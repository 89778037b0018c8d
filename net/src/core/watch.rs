//! Noticing peers that have stopped: silence, standstill, and the pings that tell them apart.
//!
//! A peer is only ever accused of something it owes. Silence means that no byte came for the silence
//! limit; pings go out after a quarter of it, from the driver's thread, so a peer that computes is never
//! silent. Standstill means that it pings but does not deliver for the stall limit, and does not itself
//! wait for somebody: in a chain of waiting peers only the last one is to blame.
//!
//! Invariant: whenever [`Core::deadline`] has passed, a tick changes something, so a driver that ticks at
//! deadlines never spins.

use std::time::Duration;

use super::event::{LinkId, Owed, RunError};
use super::{Core, Link, LinkState, Peer, Phase};
use crate::ownership::PeerIndex;
use crate::wire::{Message, RefuseReason};

/// Waiting peers are blamed all the same after this many stall limits: somebody must be.
const STALLS_OF_WAITING_MAX: u32 = 8;

impl Core {
    /// When the next tick is due, if nothing happens before; the driver then sends `Event::Tick`.
    pub fn deadline(&self) -> Option<Duration> {
        if self.is_over() {
            return None;
        }
        let links = self.links.values().map(|link| match link.state {
            LinkState::Stranger => link.opened_at + self.config.silence_limit,
            _ => link.said_at + self.ping_after(),
        });
        let mut owed_until = None;
        self.each_owed(|peer, owed, since| {
            if let Some(link) = self.link_of(peer) {
                let until = self.silent_at(link).min(self.stalled_at(link, owed, since));
                owed_until = Some(owed_until.map_or(until, |first| until.min(first)));
            }
        });
        let dials = self.dials.iter().map(|dial| {
            let failed = self.dial_deadline(dial);
            dial.retry_at.map_or(failed, |retry| retry.min(failed))
        });
        links.chain(owed_until).chain(dials).min()
    }

    pub(super) fn tick(&mut self) {
        self.tick_dials();
        self.tick_strangers();
        self.tick_owed();
        if self.is_over() {
            return;
        }
        let ping_after = self.ping_after();
        let quiet = |link: &Link| !matches!(link.state, LinkState::Stranger) && link.said_at + ping_after <= self.now;
        let quiet: Vec<LinkId> = self.links.iter().filter(|(_, link)| quiet(link)).map(|(id, _)| *id).collect();
        let waiting = self.is_waiting();
        for id in quiet {
            self.send(id, &Message::Ping { waiting });
        }
    }

    fn tick_strangers(&mut self) {
        let late = |link: &Link| matches!(link.state, LinkState::Stranger) && link.opened_at + self.config.silence_limit <= self.now;
        let late: Vec<LinkId> = self.links.iter().filter(|(_, link)| late(link)).map(|(id, _)| *id).collect();
        for id in late {
            self.refuse(id, RefuseReason::Silent, "no hello in time");
        }
    }

    fn tick_owed(&mut self) {
        let mut all = Vec::new();
        self.each_owed(|peer, owed, since| all.push((peer, owed, since)));
        for (peer, owed, since) in all {
            let Some(link) = self.link_of(peer) else {
                continue;
            };
            let name = self.name(peer);
            if self.silent_at(link) <= self.now {
                let silent_ms = millis(self.now.saturating_sub(link.heard_at));
                return self.fail(RunError::Silent { peer, name, owed, silent_ms });
            }
            if self.stalled_at(link, owed, since) <= self.now {
                let waited_ms = millis(self.now.saturating_sub(since));
                return self.fail(RunError::Stalled { peer, name, owed, waited_ms });
            }
        }
    }

    /// Answers a ping, though no more often than a well-behaved peer would ask.
    pub(super) fn pinged(&mut self, id: LinkId, waiting: bool) {
        self.heard_waiting(id, waiting);
        let (now, pause) = (self.now, self.config.silence_limit / 16);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.ponged_at.is_some_and(|at| now < at + pause) {
            return;
        }
        link.ponged_at = Some(now);
        let waiting = self.is_waiting();
        self.send(id, &Message::Pong { waiting });
    }

    pub(super) fn heard_waiting(&mut self, id: LinkId, waiting: bool) {
        let now = self.now;
        if let Some(link) = self.links.get_mut(&id).filter(|_| waiting) {
            link.waiting_at = Some(now);
        }
    }

    /// Where this process itself was stopped for a while, what came meanwhile is still unread: nobody is
    /// silent before there was a chance to hear it.
    pub(super) fn forgive_own_sleep(&mut self, now: Duration) {
        let half = self.config.silence_limit / 2;
        if now.saturating_sub(self.now) <= half {
            return;
        }
        for link in self.links.values_mut() {
            link.heard_at = link.heard_at.max(now.saturating_sub(half));
        }
    }

    fn is_waiting(&self) -> bool {
        let mut waiting = false;
        self.each_owed(|_, _, _| waiting = true);
        waiting
    }

    /// Who owes this peer something now, what, and since when. The driver asks at every turn: nothing is
    /// allocated for the answer.
    fn each_owed(&self, mut take: impl FnMut(PeerIndex, Owed, Duration)) {
        let joiner = !self.is_coordinator();
        let mut late = |owed, since, is_late: &dyn Fn(&Peer) -> bool| {
            let late = self.others().filter(|peer| self.peer(*peer).is_some_and(is_late));
            late.for_each(|peer| take(peer, owed, since));
        };
        match self.phase {
            Phase::Assembling if joiner => take(PeerIndex::COORDINATOR, Owed::Plan, self.since),
            Phase::Linking if joiner && self.linked_sent => take(PeerIndex::COORDINATOR, Owed::Start, self.since),
            Phase::Linking if joiner => {
                for link in self.links.values() {
                    if let LinkState::Dialled(peer) = link.state {
                        take(peer, Owed::Hello, link.opened_at);
                    }
                }
            }
            Phase::Linking => late(Owed::Links, self.since, &|peer| !peer.linked),
            Phase::Running => match (self.done_at, &self.exchanges) {
                (Some(since), _) => late(Owed::Done, since, &|peer| !peer.done),
                (None, Some(exchanges)) => exchanges.owed().for_each(|(peer, owed, since)| take(peer, owed, since)),
                (None, None) => {}
            },
            _ => {}
        }
    }

    fn link_of(&self, peer: PeerIndex) -> Option<&Link> {
        let known = self.peer(peer).and_then(|peer| peer.link).and_then(|id| self.links.get(&id));
        // Before the plan, and before the hello, the link itself says whose it is.
        known.or_else(|| self.links.values().find(|link| matches!(link.state, LinkState::Peer(p) | LinkState::Dialled(p) if p == peer)))
    }

    fn silent_at(&self, link: &Link) -> Duration {
        link.heard_at + self.config.silence_limit
    }

    fn stalled_at(&self, link: &Link, owed: Owed, since: Duration) -> Duration {
        // The plan waits for people who have yet to join.
        if owed == Owed::Plan {
            return Duration::MAX;
        }
        let limit = self.config.stall_limit;
        let excused_until = link.waiting_at.unwrap_or_default().max(since);
        (excused_until + limit).min(since + limit * STALLS_OF_WAITING_MAX)
    }

    fn ping_after(&self) -> Duration {
        self.config.silence_limit / 4
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
