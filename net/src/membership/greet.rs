//! Coming together: hellos, joining, and finding one's way back.
//!
//! ```text
//!  joiner                         a member                      the coordinator
//!  Hello join ───────────────────► Hello, Redirect
//!  Hello join ────────────────────────────────────────────────► Hello, Welcome (a draft of the next epoch)
//!  Prepare → node   Hello link ──► Hello
//!  Ready (linked with these) ─────────────────────────────────► proposes an epoch with it
//!                                                               Decided ──► all
//! ```
//!
//! A member that was left out, because it slept or lost its links, finds out from whoever it reaches, and joins again as a
//! new member. A member that only lost a link dials it again, the one with the higher number; the epoch after that
//! has both.
//!
//! Invariant: a stranger that does not fit is told why and closed; the run never notices.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::links::{Link, own_profile};
use super::plan::{EpochPlan, MemberId};
use super::wire::{Hello, Message, Purpose, VERSION};
use super::{Member, MemberError, Notice, Output, Role};
use crate::core::{LinkId, Violation};
use crate::ownership::PEERS_MAX;
use crate::wire::RefuseReason;

/// A peer on its way in.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Whether it has been a member before.
    is_again: bool,
    /// Where members were last known to listen.
    contacts: Vec<String>,
    since: Duration,
    coordinator: Option<LinkId>,
    draft: Option<Arc<EpochPlan>>,
    /// The number that the latest draft gave; an epoch may be decided with it, and its coordinator vanish.
    drafted_as: Option<MemberId>,
    prepared: bool,
    prepare_sent: bool,
    /// What the last Ready named.
    said: Vec<MemberId>,
    redirects: u32,
    /// When to try the contacts again, after a refusal that may pass.
    again_at: Option<Duration>,
    last_error: String,
}

impl Member {
    /// The first outputs.
    pub(super) fn begin(&mut self) {
        match self.config.role.clone() {
            Role::Host { .. } => self.begin_hosting(),
            Role::Join { addresses } => {
                self.joining = Joining { contacts: addresses, since: self.now, ..Joining::default() };
                self.dial_contacts(Purpose::Join);
            }
            Role::Watch { address } => {
                self.joining = Joining { contacts: vec![address], since: self.now, ..Joining::default() };
                self.dial_contacts(Purpose::Watch);
            }
        }
    }

    fn purpose(&self) -> Purpose {
        if matches!(self.config.role, Role::Watch { .. }) { Purpose::Watch } else { Purpose::Join }
    }

    fn dial_contacts(&mut self, purpose: Purpose) {
        self.links.dials.clear();
        self.joining.coordinator = None;
        self.joining.again_at = None;
        let contacts = self.joining.contacts.clone();
        self.links.dial(contacts, None, purpose, self.now);
    }

    pub(super) fn greet(&mut self, link: LinkId, purpose: Purpose) {
        let hello = Hello {
            version: VERSION,
            purpose,
            bundle: self.config.bundle,
            token: self.config.token,
            run: self.run,
            epoch: self.decided.as_ref().map_or(0, |plan| plan.epoch),
            member: own_profile(&self.config, self.id.or(self.joining.drafted_as).unwrap_or(MemberId(0))),
        };
        self.send(link, &Message::Hello(Box::new(hello)));
    }

    /// Tells somebody why it is turned away, and closes. The run goes on.
    pub(super) fn refuse(&mut self, link: LinkId, reason: RefuseReason, text: &str) {
        let Some(refused) = self.links.all.get(&link) else { return };
        let name = refused.greeted.as_ref().map_or_else(|| refused.identity.clone(), |member| member.name.clone());
        self.refuse_named(link, &name, reason, text);
    }

    fn refuse_named(&mut self, link: LinkId, name: &str, reason: RefuseReason, text: &str) {
        let name = name.to_owned();
        self.send(link, &Message::Refuse { reason, text: text.to_owned() });
        self.drop_link(link, text);
        self.notice(Notice::Refused { name, text: text.to_owned() });
    }

    pub(super) fn hello(&mut self, id: LinkId, hello: Hello) {
        let Some(link) = self.links.all.get(&id) else { return };
        if link.greeted.is_some() {
            return self.offend(id, &Violation::Unexpected { message: "hello" });
        }
        let (identity, outgoing, dialled_for) = (link.identity.clone(), link.outgoing, link.purpose);
        if let Err((reason, text)) = self.check_invited(&hello.bundle, &hello.token, hello.version) {
            return self.refuse_named(id, &hello.member.name, reason, text);
        }
        if identity == self.config.identity {
            return self.refuse(id, RefuseReason::Identity, "this identity is this peer's own");
        }
        if self.is_banned(&identity) {
            return self.refuse_named(id, &hello.member.name, RefuseReason::Banned, "has broken the rules of this run before");
        }
        let mut member = hello.member;
        member.identity.clone_from(&identity);
        self.members_changed = true;
        if let Some(older) = self.links.greet(id, member) {
            self.outputs.push_back(Output::Close { link: older, reason: "replaced by a newer link".to_owned() });
            self.lead.forget(older, &identity);
            if self.joining.coordinator == Some(older) {
                self.look_again("its coordinator has begun anew");
            }
            // What was under way on it is lost.
            if let Some(member) = self.member_id(&identity) {
                self.frames_lost(member);
                self.trouble(member);
            }
        }
        if outgoing {
            self.answered(id, dialled_for, &identity);
        } else {
            self.trust(id);
            match hello.purpose {
                Purpose::Watch => self.watched(id),
                Purpose::Join => self.asked_to_join(id),
                Purpose::Link => self.asked_to_link(id, &identity, hello.run, hello.epoch),
            }
        }
        self.send_unsent(&identity);
    }

    fn check_invited(&self, bundle: &[u8; 32], token: &[u8; 16], version: u16) -> Result<(), (RefuseReason, &'static str)> {
        if version != VERSION {
            Err((RefuseReason::Version, "another version of the protocol"))
        } else if *token != self.config.token {
            Err((RefuseReason::Token, "not invited to this run"))
        } else if *bundle != self.config.bundle {
            Err((RefuseReason::Bundle, "another bundle"))
        } else {
            Ok(())
        }
    }

    /// The other end of an own dial has said hello.
    fn answered(&mut self, id: LinkId, purpose: Purpose, identity: &str) {
        match purpose {
            // Now Welcome, Redirect or Refuse follows.
            Purpose::Join | Purpose::Watch => self.joining.coordinator = Some(id),
            Purpose::Link => self.relinked(identity),
        }
    }

    fn asked_to_link(&mut self, id: LinkId, identity: &str, run: [u8; 16], epoch: u32) {
        if self.run != [0; 16] && run != [0; 16] && run != self.run {
            return self.refuse(id, RefuseReason::Plan, "another incarnation of this run goes on here");
        }
        self.greet(id, Purpose::Link);
        let newer = self.decided.clone().filter(|plan| epoch != 0 && epoch < plan.epoch);
        if let Some(plan) = newer {
            self.send(id, &Message::Decided { plan: plan.to_bytes() });
        }
        self.relinked(identity);
    }

    /// A member can be reached again; what was under way is lost all the same, so an epoch follows.
    fn relinked(&mut self, identity: &str) {
        if let Some(id) = self.member_id(identity).filter(|id| !self.barred.contains(id)) {
            self.suspects.remove(&id);
            let me = self.id;
            self.reports.retain(|(accuser, accused), _| Some(*accuser) != me || *accused != id);
            self.told.retain(|(_, accused)| *accused != id);
        }
    }

    fn watched(&mut self, id: LinkId) {
        self.greet(id, Purpose::Link);
        if self.leads() {
            self.lead.watch(id);
        } else {
            self.redirect(id);
        }
    }

    fn redirect(&mut self, id: LinkId) {
        let coordinator = self.decided.as_ref().and_then(|plan| plan.roster.first()).filter(|first| first.identity != self.config.identity);
        match coordinator.map(|coordinator| coordinator.addresses.clone()) {
            Some(addresses) if !addresses.is_empty() => self.send(id, &Message::Redirect { addresses }),
            _ => self.refuse(id, RefuseReason::Orphaned, "not in a run that goes on yet"),
        }
    }

    fn asked_to_join(&mut self, id: LinkId) {
        self.greet(id, Purpose::Link);
        let member = self.links.all.get(&id).and_then(|link| link.greeted.as_deref());
        let is_in =
            |plan: &&Arc<EpochPlan>| member.is_some_and(|member| plan.roster.iter().any(|m| (m.id, &m.identity) == (member.id, &member.identity)));
        if let Some(plan) = self.decided.as_ref().filter(is_in) {
            // It is in already, and whoever was to tell it has vanished.
            let plan = plan.to_bytes();
            return self.send(id, &Message::Decided { plan });
        }
        if self.orphaned_at.is_some() {
            return self.refuse(id, RefuseReason::Orphaned, "too few members can be reached here for the run to go on");
        }
        if !self.leads() {
            return self.redirect(id);
        }
        let Some(member) = self.links.all.get(&id).and_then(|link| link.greeted.as_deref().cloned()) else { return };
        // One that is still in the roster slept through its own loss: it comes in again once that is decided.
        let known = self.decided.as_ref().and_then(|plan| plan.in_roster(&member.identity)).map(|member| member.id);
        if let Some(known) = known {
            self.suspect(known, "has come anew");
            return self.refuse(id, RefuseReason::Orphaned, "still known as a member that vanished: in a moment");
        }
        // One that has left is asked for what it had until all have entered the epoch without it.
        let is_leaving = self.decided.as_ref().is_some_and(|plan| {
            let is_here = self.running.as_ref().is_some_and(|running| running.plan.epoch == plan.epoch);
            let has_entered = |id: MemberId| if Some(id) == self.id { is_here } else { self.entered.contains(&id) };
            plan.member_of(&member.identity).is_some() && !plan.roster.iter().all(|member| has_entered(member.id))
        });
        if is_leaving {
            return self.refuse(id, RefuseReason::Orphaned, "still known as a member that leaves: in a moment");
        }
        if self.decided.as_ref().map_or(0, |plan| plan.roster.len()) + self.lead.joiners_count() >= PEERS_MAX {
            return self.refuse(id, RefuseReason::Full, "all places are taken");
        }
        self.admit(id, member);
    }

    pub(super) fn redirected(&mut self, id: LinkId, addresses: Vec<String>) {
        if self.joining.coordinator != Some(id) || self.id.is_some() || addresses.is_empty() {
            return;
        }
        self.joining.redirects += 1;
        self.links.remove(id);
        self.outputs.push_back(Output::Close { link: id, reason: "redirected".to_owned() });
        let purpose = self.purpose();
        // The one that was asked stays known, in case the coordinator is gone.
        let known = std::mem::take(&mut self.joining.contacts);
        self.joining.contacts = addresses.into_iter().chain(known).fold(Vec::new(), |mut all, address| {
            if !all.contains(&address) && all.len() < 64 {
                all.push(address);
            }
            all
        });
        if self.joining.redirects > 64 {
            self.joining.redirects = 0;
            self.joining.again_at = Some(self.now + Duration::from_millis(500));
        } else {
            self.dial_contacts(purpose);
        }
    }

    pub(super) fn refused(&mut self, id: LinkId, reason: RefuseReason, text: String) {
        let Some(link) = self.links.all.get(&id) else { return };
        let (identity, is_contact) = (link.identity.clone(), self.joining.coordinator == Some(id) || (link.outgoing && link.greeted.is_none()));
        let passes = matches!(reason, RefuseReason::Orphaned | RefuseReason::Silent);
        if self.id.is_none() && is_contact {
            if !passes || (!self.joining.is_again && self.purpose() == Purpose::Watch) {
                return self.fail(MemberError::Refused { name: identity, reason, text });
            }
            self.joining.last_error = text.clone();
            self.joining.again_at = Some(self.now + Duration::from_millis(100 + self.random.u64(0..150)));
        }
        if matches!(reason, RefuseReason::PartsLost | RefuseReason::Banned) && self.member_id(&identity).is_some() {
            return self.fail(MemberError::Refused { name: identity, reason, text });
        }
        // A joiner that could not do what it was given.
        if self.leads() && self.id.is_some() && self.member_id(&identity).is_none() {
            let name = self.links.all.get(&id).and_then(|link| link.greeted.as_ref()).map_or(identity, |member| member.name.clone());
            self.notice(Notice::Refused { name, text: format!("it declined: {text}") });
        }
        self.drop_link(id, &format!("turned this peer away: {text}"));
    }

    /// The coordinator's draft: what the next epoch would be.
    pub(super) fn welcomed(&mut self, id: LinkId, draft: Bytes) {
        if self.joining.coordinator != Some(id) || self.id.is_some() {
            return;
        }
        let plan = match EpochPlan::from_bytes(draft, &self.config.parts) {
            Ok(plan) => Arc::new(plan),
            Err(error) => return self.offend(id, &Violation::Wire(error)),
        };
        let Some(me) = plan.member_of(&self.config.identity).and_then(|member| plan.index_of(member.id)) else {
            return self.offend(id, &Violation::BadRoster { what: "this peer is not in it" });
        };
        self.joining.contacts =
            plan.roster.iter().filter(|m| m.identity != self.config.identity).flat_map(|m| m.addresses.clone()).take(64).collect();
        self.joining.drafted_as = plan.member(me).map(|member| member.id);
        self.joining.draft = Some(plan.clone());
        if !self.joining.prepare_sent {
            self.joining.prepare_sent = true;
            self.outputs.push_back(Output::Prepare { plan, me });
        }
    }

    pub(super) fn prepared(&mut self) {
        self.joining.prepared = true;
    }

    pub(super) fn declined(&mut self, text: String) {
        if let Some(link) = self.joining.coordinator {
            self.send(link, &Message::Refuse { reason: RefuseReason::Plan, text: text.clone() });
        }
        self.fail(MemberError::Stopped { text });
    }

    /// A joiner's contact, or one of those that it must link with, is gone.
    pub(super) fn contact_lost(&mut self, gone: &Link, reason: &str) {
        if self.id.is_some() || self.over {
            return;
        }
        if gone.outgoing && matches!(gone.purpose, Purpose::Join | Purpose::Watch) {
            self.look_again(reason);
        }
    }

    /// A joiner has nobody who takes it in: it asks all it knows once more.
    fn look_again(&mut self, reason: &str) {
        self.joining.coordinator = None;
        self.joining.draft = None;
        self.joining.said.clear();
        self.joining.last_error = reason.to_owned();
        let pause = Duration::from_millis(50 + self.random.u64(0..100));
        self.joining.again_at.get_or_insert(self.now + pause);
    }

    pub(super) fn advance_joining(&mut self) {
        if self.over || self.id.is_some() || matches!(self.config.role, Role::Host { .. }) && !self.joining.is_again {
            return;
        }
        if self.joining.again_at.is_some_and(|at| at <= self.now) {
            let purpose = self.purpose();
            self.dial_contacts(purpose);
            for address in self.links.due_dials(self.now) {
                self.outputs.push_back(Output::Dial { address });
            }
        }
        if self.joining.coordinator.is_none() && self.joining_limit() <= self.now {
            let (address, error) = match self.links.dials.first() {
                Some(dial) => (dial.address(), dial.error.clone()),
                None => (self.joining.contacts.first().cloned().unwrap_or_default(), self.joining.last_error.clone()),
            };
            return self.fail(MemberError::Unreachable { address, error });
        }
        let Some(draft) = self.joining.draft.clone() else { return };
        let Some(coordinator) = self.joining.coordinator else { return };
        let mut linked = Vec::new();
        let mut all = true;
        for member in draft.roster.iter().filter(|member| member.identity != self.config.identity) {
            if self.links.to(&member.identity).is_some() {
                linked.push(member.id);
            } else {
                all = false;
                if !self.links.is_dialling(&member.identity) {
                    self.links.dial(member.addresses.clone(), Some(member.identity.clone()), Purpose::Link, self.now);
                }
            }
        }
        for address in self.links.due_dials(self.now) {
            self.outputs.push_back(Output::Dial { address });
        }
        if all && self.joining.prepared && self.joining.said != linked {
            self.joining.said.clone_from(&linked);
            self.send(coordinator, &Message::Ready { linked });
        }
    }

    fn joining_limit(&self) -> Duration {
        let tuning = &self.config.tuning;
        self.joining.since + if self.joining.is_again { tuning.orphan_limit } else { tuning.dial_limit }
    }

    pub(super) fn joining_deadline(&self) -> Option<Duration> {
        if self.id.is_some() || (matches!(self.config.role, Role::Host { .. }) && !self.joining.is_again) {
            return None;
        }
        let limit = self.joining.coordinator.is_none().then(|| self.joining_limit());
        limit.into_iter().chain(self.joining.again_at).min()
    }

    /// Whether an identity is one that this joiner was told of by its coordinator, or the coordinator itself.
    pub(super) fn joining_with(&self, identity: &str) -> bool {
        let coordinator = self.joining.coordinator.and_then(|link| self.links.all.get(&link));
        coordinator.is_some_and(|link| link.identity == identity)
            || self.joining.draft.as_ref().is_some_and(|draft| draft.member_of(identity).is_some())
    }

    /// The run goes on without this peer: everything of its old life goes, and it joins again.
    pub(super) fn rejoin(&mut self, plan: &EpochPlan) {
        for link in std::mem::take(&mut self.links).all.into_keys() {
            self.outputs.push_back(Output::Close { link, reason: "joining again".to_owned() });
        }
        let contacts = plan.roster.iter().filter(|member| member.identity != self.config.identity).flat_map(|member| member.addresses.clone());
        self.joining = Joining { is_again: true, contacts: contacts.take(64).collect(), since: self.now, ..Joining::default() };
        self.id = None;
        self.run = [0; 16];
        self.decided = None;
        self.running = None;
        self.unhashed.keep(None);
        self.backlogs.clear();
        self.audits.clear();
        self.forget_succession();
        self.shelf = super::Shelf::new(self.config.parts.clone());
        self.fetch.clear();
        self.lead = super::Lead::default();
        self.early.clear();
        self.early_bytes = 0;
        self.orphaned_at = None;
        self.dial_contacts(Purpose::Join);
        for address in self.links.due_dials(self.now) {
            self.outputs.push_back(Output::Dial { address });
        }
    }
}
