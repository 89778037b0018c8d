//! Those who want to become members, as the coordinator has them in hand until an epoch with them is planned.
//!
//! ```text
//!  greeted ─► admit: a number, a draft of the epoch with it ─► it links with everybody in the draft ─► Ready
//!                     └── the roster has changed: another draft ◄──┘                                     │
//!  propose_changes ◄── joiners_due: all are ready, or one has waited for the others ◄────────────────────┘
//! ```
//!
//! Invariant: who is due is linked with everybody in the epoch, and with all who are due before it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Member;
use super::plan::{Member as MemberInfo, MemberId};
use super::shadow::JOINERS_WAIT;
use super::wire::Message;
use crate::core::LinkId;

/// Joiners that come together are taken in together: one that is ready waits this long for the others.
const TOGETHER: Duration = Duration::from_millis(150);

/// A peer that wants to become a member.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) link: LinkId,
    pub(super) profile: MemberInfo,
    /// With whom it is linked, once it is ready.
    linked: Option<BTreeSet<MemberId>>,
    ready_at: Duration,
    /// The roster of the draft it was sent.
    drafted: Vec<MemberId>,
}

impl Member {
    /// Takes a joiner in hand: it gets a number and a draft.
    pub(super) fn admit(&mut self, link: LinkId, mut profile: MemberInfo) {
        profile.id = MemberId(self.lead.next_member);
        self.lead.next_member += 1;
        let identity = profile.identity.clone();
        self.lead.joiners.insert(identity, Joiner { link, profile, linked: None, ready_at: self.now, drafted: Vec::new() });
        self.send_drafts();
    }

    /// Sends every joiner the draft of an epoch with it and all joiners before it, where that has changed.
    fn send_drafts(&mut self) {
        let mut joiners: Vec<(MemberId, LinkId, MemberInfo, Vec<MemberId>)> =
            self.lead.joiners.values().map(|joiner| (joiner.profile.id, joiner.link, joiner.profile.clone(), joiner.drafted.clone())).collect();
        joiners.sort_by_key(|(id, ..)| *id);
        let mut before: Vec<MemberInfo> = Vec::new();
        for (id, link, profile, drafted) in joiners {
            before.push(profile.clone());
            let draft = match self.decided.clone() {
                Some(plan) => self.planned(&plan, plan.tick.max(self.lead.until), &before, &BTreeSet::new(), &BTreeSet::new()),
                None => self.first_plan(&before),
            };
            let roster: Vec<MemberId> = draft.roster.iter().map(|member| member.id).collect();
            if roster == drafted {
                continue;
            }
            if let Some(joiner) = self.lead.joiners.get_mut(&profile.identity) {
                joiner.drafted = roster;
                joiner.linked = None;
            }
            debug_assert!(draft.member_of(&profile.identity).is_some_and(|member| member.id == id));
            self.send(link, &Message::Welcome { draft: draft.to_bytes() });
        }
    }

    pub(super) fn joiner_ready(&mut self, link: LinkId, linked: Vec<MemberId>) {
        let now = self.now;
        if let Some(joiner) = self.lead.joiners.values_mut().find(|joiner| joiner.link == link) {
            if joiner.linked.is_none() {
                joiner.ready_at = now;
            }
            joiner.linked = Some(linked.into_iter().collect());
        }
    }

    /// Joiners that are linked with this roster and with all ready joiners before them, by number.
    pub(super) fn ready_joiners(&self, roster: &[MemberId]) -> Vec<MemberInfo> {
        let mut joiners: Vec<&Joiner> = self.lead.joiners.values().collect();
        joiners.sort_by_key(|joiner| joiner.profile.id);
        let mut ready: Vec<MemberInfo> = Vec::new();
        for joiner in joiners {
            let Some(linked) = &joiner.linked else { continue };
            let needed = roster.iter().copied().chain(ready.iter().map(|member| member.id));
            if needed.into_iter().all(|id| linked.contains(&id)) {
                ready.push(joiner.profile.clone());
            }
        }
        ready
    }

    /// Sends drafts where the newest epoch, or who else joins, has made one stale.
    pub(super) fn send_drafts_if_changed(&mut self) {
        if self.lead.joiners.is_empty() {
            return;
        }
        let members: Vec<MemberId> = match &self.decided {
            Some(plan) => plan.roster.iter().map(|member| member.id).collect(),
            None => vec![MemberId(1)],
        };
        let joiners: Vec<MemberId> = self.lead.joiners.values().map(|joiner| joiner.profile.id).collect();
        // Everybody in the epoch, and nobody who has gone: a joiner waits for a link with each of them.
        let is_fresh = |joiner: &Joiner| {
            let is_here = |id: &MemberId| members.contains(id) || joiners.contains(id);
            members.iter().all(|id| joiner.drafted.contains(id)) && joiner.drafted.iter().all(is_here)
        };
        let is_stale = !self.lead.joiners.values().all(is_fresh);
        if is_stale {
            self.send_drafts();
        }
    }

    /// Those who are to become members now.
    pub(super) fn joiners_due(&self) -> Vec<MemberInfo> {
        let ready = self.ready_joiners(&self.lead.roster);
        let all_ready = ready.len() == self.lead.joiners.len();
        let waited = self.lead.joiners.values().any(|joiner| joiner.linked.is_some() && joiner.ready_at + TOGETHER <= self.now);
        if all_ready || waited { ready } else { Vec::new() }
    }

    /// Whether somebody who could join has waited for shadows whose tiles are still coming.
    pub(super) fn is_waited_for_long(&self) -> bool {
        self.lead.joiners.values().any(|joiner| joiner.linked.is_some() && joiner.ready_at + JOINERS_WAIT <= self.now)
    }

    /// When to look at the joiners again.
    pub(super) fn joiners_deadline(&self) -> Option<Duration> {
        let ready = self.lead.joiners.values().filter(|joiner| joiner.linked.is_some()).map(|joiner| joiner.ready_at + TOGETHER);
        ready.filter(|at| *at > self.now).min()
    }
}
