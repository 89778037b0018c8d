//! How the members of an epoch agree on its one successor: single-decree Paxos (Lamport, "Paxos Made Simple", 2001).
//!
//! One instance per epoch. Its acceptors are the epoch's members, its value is the next [`EpochPlan`](super::EpochPlan)
//! in bytes; so there is no log, and reconfiguration is the agreement itself.
//!
//! ```text
//!  coordinator, nobody suspected           a proposer after a loss
//!  Accept (round 0) ──► all                Prepare (round n) ──► all
//!        ◄── Accepted, a quorum                  ◄── Promise, a quorum, with what they accepted and what they hold
//!  Decided ──► all                         Accept (round n) ──► … as on the left
//! ```
//!
//! Round 0 belongs to the coordinator alone, so it needs no Prepare. A quorum is more than half of the voters
//! ([`EpochPlan::voters`](super::EpochPlan::voters)), or exactly half with the first among them: any two quorums meet. A
//! voter that vanished counts as one that does not answer; one that comes back is a new member and votes only in later
//! epochs, so votes need no disk.
//!
//! Invariant: two different values are never decided for one epoch.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::plan::MemberId;

/// A proposal's number; the member makes it unique.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Counts attempts; 0 is the coordinator's first.
    pub round: u32,
    /// Whose it is.
    pub member: u32,
}

/// Whether these, out of a rising list of voters, may decide.
pub fn is_quorum(members: &[MemberId], present: impl Fn(MemberId) -> bool) -> bool {
    let count = members.iter().filter(|id| present(**id)).count();
    count * 2 > members.len() || (count * 2 == members.len() && members.first().is_some_and(|first| present(*first)))
}

/// A value and the ballot under which it was accepted.
pub type Accepted = (Ballot, Bytes);

/// One member's vote on its epoch's successor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptor {
    promised: Option<Ballot>,
    accepted: Option<Accepted>,
}

impl Acceptor {
    /// Promises to accept nothing below this ballot; gives what was accepted.
    ///
    /// **Errors**: a higher ballot was promised.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Option<Accepted>, Ballot> {
        match self.promised.filter(|promised| *promised > ballot) {
            Some(promised) => Err(promised),
            None => {
                self.promised = Some(ballot);
                Ok(self.accepted.clone())
            }
        }
    }

    /// Accepts a value, unless a higher ballot was promised.
    ///
    /// **Errors**: the ballot that was promised.
    pub fn accept(&mut self, ballot: Ballot, value: Bytes) -> Result<(), Ballot> {
        match self.promised.filter(|promised| *promised > ballot) {
            Some(promised) => Err(promised),
            None => {
                self.promised = Some(ballot);
                self.accepted = Some((ballot, value));
                Ok(())
            }
        }
    }

    /// The value accepted last.
    pub fn accepted_value(&self) -> Option<&Bytes> {
        self.accepted.as_ref().map(|(_, value)| value)
    }

    /// The highest ballot seen.
    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }
}

/// One attempt to have a value decided.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Its ballot.
    pub ballot: Ballot,
    /// Who promised, with what they had accepted.
    promises: BTreeMap<MemberId, Option<Accepted>>,
    /// The value, once it is being proposed.
    pub value: Option<Bytes>,
    accepts: Vec<MemberId>,
}

impl Proposal {
    /// An attempt that has yet to ask for promises, or with a value of its own where the ballot needs none.
    pub fn new(ballot: Ballot, value: Option<Bytes>) -> Proposal {
        Proposal { ballot, promises: BTreeMap::new(), value, accepts: Vec::new() }
    }

    /// Takes a promise.
    pub fn promised(&mut self, from: MemberId, accepted: Option<Accepted>) {
        self.promises.insert(from, accepted);
    }

    /// Whether a member promised.
    pub fn has_promise(&self, from: MemberId) -> bool {
        self.promises.contains_key(&from)
    }

    /// Whether enough have promised.
    pub fn is_prepared(&self, members: &[MemberId]) -> bool {
        is_quorum(members, |id| self.promises.contains_key(&id))
    }

    /// The value that must be proposed: that of the highest ballot among the promises; `None` leaves the choice free.
    pub fn bound_value(&self) -> Option<Bytes> {
        let accepted = self.promises.values().flatten().max_by_key(|(ballot, _)| *ballot);
        accepted.map(|(_, value)| value.clone())
    }

    /// Takes a vote; whether the value is decided by it.
    pub fn accepted(&mut self, from: MemberId, members: &[MemberId]) -> bool {
        if self.value.is_none() || !members.contains(&from) {
            return false;
        }
        if !self.accepts.contains(&from) {
            self.accepts.push(from);
        }
        is_quorum(members, |id| self.accepts.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u32) -> Vec<MemberId> {
        (0..count).map(|id| MemberId(id * 3 + 1)).collect()
    }

    #[test]
    fn any_two_quorums_meet() {
        for count in 1..=8 {
            let members = ids(count);
            let present = |set: u32| {
                let members = members.clone();
                move |id: MemberId| members.iter().position(|m| *m == id).is_some_and(|at| set >> at & 1 == 1)
            };
            for a in 0..1u32 << count {
                for b in 0..1u32 << count {
                    if is_quorum(&members, present(a)) && is_quorum(&members, present(b)) {
                        assert_ne!(a & b, 0, "{count} members: {a:b} and {b:b} are both quorums");
                    }
                }
                // Of two halves that split everybody, one may go on, unless the coordinator is with neither.
                let rest = !a & ((1 << count) - 1);
                assert!(is_quorum(&members, present(a)) != is_quorum(&members, present(rest)), "{count} members: {a:b}");
            }
        }
        // A host whose only guest has vanished goes on; the guest does not.
        assert!(is_quorum(&ids(2), |id| id == MemberId(1)));
        assert!(!is_quorum(&ids(2), |id| id == MemberId(4)));
    }

    /// Random schedules of competing proposers with lost messages: at most one value is ever decided.
    #[test]
    fn two_values_are_never_decided() {
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let members = ids(random.u32(1..7));
            let mut acceptors: Vec<Acceptor> = members.iter().map(|_| Acceptor::default()).collect();
            let mut proposals: Vec<Proposal> = Vec::new();
            let mut decided: Option<Bytes> = None;
            let first = Bytes::from("coordinator");
            proposals.push(Proposal::new(Ballot { round: 0, member: members[0].0 }, Some(first)));
            for step in 0..60u32 {
                if random.u8(0..8) == 0 {
                    let member = members[random.usize(0..members.len())].0;
                    proposals.push(Proposal::new(Ballot { round: step + 1, member }, None));
                }
                let at = random.usize(0..proposals.len());
                let proposal = &mut proposals[at];
                let to = random.usize(0..members.len());
                if proposal.value.is_none() {
                    if let Ok(accepted) = acceptors[to].prepare(proposal.ballot) {
                        // The answer may be lost.
                        if random.bool() {
                            proposal.promised(members[to], accepted);
                        }
                    }
                    if proposal.is_prepared(&members) {
                        let own = Bytes::from(format!("{:?}", proposal.ballot));
                        proposal.value = Some(proposal.bound_value().unwrap_or(own));
                    }
                } else if let Some(value) = proposal.value.clone()
                    && acceptors[to].accept(proposal.ballot, value.clone()).is_ok()
                    && random.bool()
                    && proposal.accepted(members[to], &members)
                {
                    assert_eq!(decided.get_or_insert(value.clone()), &value, "seed {seed}");
                }
            }
        }
    }
}
