//! The node of a simulated member: it computes a small state for real, one piece of work at a time.
//!
//! ```text
//!  Enter ─► Entering ─► Ready ──► Border ─► Computing ──► Gather ─► Closing ─► Ready …
//!                       │  ▲      (waits)   (takes time)  (waits)              │
//!                       │  └──────────────────────┴─ Ticked ───────────────────┘
//!                       └ Snapshot where due, Report at the end
//! ```
//!
//! The node hears outputs at once and works later: the simulation asks [`Node::work`] what there is to do and how
//! long it takes, and calls [`Node::step`] when that time has passed. Enter abandons what was under way.
//!
//! Invariant: it follows the contract of [`membership::Event`](crate::membership::Event) to the letter and notes in
//! [`Node::misled`] whatever made that impossible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::state::{Rules, digest};
use crate::core::{ExchangeTraffic, Traffic};
use crate::membership::{EpochPlan, Event, Origin, Output, PartId};
use crate::ownership::PeerIndex;

/// The exchange of digests between neighbouring tiles.
pub const BORDER: u16 = 0;
/// The exchange of all digests.
pub const GATHER: u16 = 1;
/// Bytes of one digest in a payload.
const DIGEST_BYTES: usize = 8;

/// What a node is, apart from what it computes.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The rules of the state.
    pub rules: Arc<Rules>,
    /// **Units**: points per second.
    pub speed: f64,
    /// Whether it can make the state before tick 0 itself.
    pub seeds: bool,
    /// Whether it turns down every draft.
    pub declines: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No epoch yet.
    Idle,
    Entering,
    /// Between two ticks.
    Ready,
    /// Waits for its neighbours' digests.
    Border,
    Computing,
    /// Waits for all digests.
    Gather,
    Closing,
}

/// A simulated node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    drafts: u32,
    plan: Option<Arc<EpochPlan>>,
    me: PeerIndex,
    phase: Phase,
    /// Raised whenever work under way is abandoned.
    generation: u64,
    own: BTreeMap<PartId, Vec<u8>>,
    tables: Vec<u8>,
    tick: u64,
    until: u64,
    due: BTreeSet<u64>,
    taken: BTreeSet<u64>,
    reported: bool,
    sequence: u64,
    /// Digests that the latest exchange brought, and the own ones.
    digests: BTreeMap<PartId, u64>,
    busy: Duration,
    misled: Option<String>,
}

impl Node {
    /// A node that waits for an epoch.
    pub fn new(config: NodeConfig) -> Node {
        Node {
            config,
            drafts: 0,
            plan: None,
            me: PeerIndex(0),
            phase: Phase::Idle,
            generation: 0,
            own: BTreeMap::new(),
            tables: Vec::new(),
            tick: 0,
            until: 0,
            due: BTreeSet::new(),
            taken: BTreeSet::new(),
            reported: false,
            sequence: 0,
            digests: BTreeMap::new(),
            busy: Duration::ZERO,
            misled: None,
        }
    }

    /// Work of an earlier generation is void.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The epoch it is in.
    pub fn plan(&self) -> Option<&Arc<EpochPlan>> {
        self.plan.as_ref()
    }

    /// The next tick that it completes.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// What the member told it that no node could follow.
    pub fn misled(&mut self) -> Option<String> {
        self.misled.take()
    }

    /// Takes what a member says.
    pub fn hear(&mut self, output: Output) {
        match output {
            Output::Prepare { .. } => self.drafts += 1,
            Output::Enter { plan, me, parts } => self.enter(plan, me, parts),
            Output::Pace { epoch, until, snapshots } => self.pace(epoch, until, snapshots),
            Output::Deliver { epoch, sequence, payloads } => self.deliver(epoch, sequence, &payloads),
            _ => {}
        }
    }

    /// How long the next step takes; `None` while there is nothing to do but wait.
    pub fn work(&self) -> Option<Duration> {
        if self.drafts > 0 {
            return Some(Duration::from_millis(2));
        }
        let short = Duration::from_micros(100);
        match self.phase {
            Phase::Idle | Phase::Border | Phase::Gather => None,
            Phase::Entering => Some(Duration::from_millis(5)),
            Phase::Closing => Some(short),
            Phase::Ready => (self.snapshot_is_due() || self.report_is_due() || self.may_compute()).then_some(short),
            Phase::Computing => {
                let points: u64 = self.own.keys().map(|part| self.config.rules.parts().points(*part)).sum();
                Some(Duration::from_secs_f64((points as f64 / self.config.speed).clamp(0.0, 60.0)))
            }
        }
    }

    /// Does the work; `took` is how long it took. Gives what it says to the member.
    pub fn step(&mut self, took: Duration) -> Vec<Event> {
        if self.drafts > 0 {
            self.drafts -= 1;
            let declined = Event::Declined { text: "no room for this workload".into() };
            return vec![if self.config.declines { declined } else { Event::Prepared }];
        }
        self.busy += took;
        match self.phase {
            Phase::Idle | Phase::Border | Phase::Gather => Vec::new(),
            Phase::Entering => self.entered(),
            Phase::Ready => self.between_ticks(),
            Phase::Computing => self.compute(),
            Phase::Closing => self.close(),
        }
    }

    fn enter(&mut self, plan: Arc<EpochPlan>, me: PeerIndex, parts: Vec<(PartId, Bytes)>) {
        let rules = self.config.rules.clone();
        let tables = rules.parts().tables();
        let wanted: Vec<PartId> = plan.computed(me).chain([tables]).collect();
        let by_init = parts.is_empty() && plan.origin == Origin::Init;
        if by_init && !self.config.seeds {
            self.misled = Some("has to run init, which it cannot".into());
        } else if !by_init && !parts.iter().map(|(part, _)| part).eq(&wanted) {
            let given: Vec<u32> = parts.iter().map(|(part, _)| part.0).collect();
            self.misled = Some(format!("was given the parts {given:?}, not its own and the tables"));
        }
        let mut content: BTreeMap<PartId, Vec<u8>> = match by_init {
            true => wanted.into_iter().map(|part| (part, rules.init(part))).collect(),
            false => parts.into_iter().map(|(part, bytes)| (part, bytes.to_vec())).collect(),
        };
        self.generation += 1;
        self.tables = content.remove(&tables).unwrap_or_default();
        self.own = content;
        self.tick = plan.tick;
        self.plan = Some(plan);
        self.me = me;
        self.phase = Phase::Entering;
        self.until = 0;
        self.due.clear();
        self.taken.clear();
        self.reported = false;
        self.sequence = 0;
        self.digests.clear();
        self.busy = Duration::ZERO;
    }

    fn entered(&mut self) -> Vec<Event> {
        let Some(plan) = self.plan.clone() else { return Vec::new() };
        self.phase = Phase::Ready;
        vec![Event::Entered { epoch: plan.epoch, traffic: self.traffic(&plan) }]
    }

    fn traffic(&self, plan: &EpochPlan) -> Traffic {
        let peers = || (0..plan.roster.len() as u16).map(PeerIndex);
        let bytes = |parts: usize| (parts * DIGEST_BYTES) as u32;
        let border = |from, to| bytes(self.border_parts(plan, from, to).count());
        let gather = |from: PeerIndex, to: PeerIndex| bytes(gathered(plan, from, to).count());
        Traffic {
            exchanges: vec![
                ExchangeTraffic {
                    send: peers().map(|peer| border(self.me, peer)).collect(),
                    receive: peers().map(|peer| border(peer, self.me)).collect(),
                },
                ExchangeTraffic {
                    send: peers().map(|peer| gather(self.me, peer)).collect(),
                    receive: peers().map(|peer| gather(peer, self.me)).collect(),
                },
            ],
        }
    }

    /// Parts of one peer that lie beside parts which another computes.
    fn border_parts<'a>(&'a self, plan: &'a EpochPlan, from: PeerIndex, to: PeerIndex) -> impl Iterator<Item = PartId> + 'a {
        let is_beside = move |part: &PartId| self.config.rules.beside(*part).iter().any(|other| plan.computes(to, *other));
        gathered(plan, from, to).filter(is_beside)
    }

    fn pace(&mut self, epoch: u32, until: u64, snapshots: Vec<u64>) {
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.epoch == epoch) else {
            self.misled = Some(format!("was paced for epoch {epoch}, which it is not in"));
            return;
        };
        if snapshots.iter().any(|tick| *tick > plan.end) || !snapshots.is_sorted_by(|a, b| a < b) {
            self.misled = Some(format!("was asked for snapshots {snapshots:?}, out of order or beyond the end"));
        }
        let begun = if matches!(self.phase, Phase::Entering | Phase::Ready) { self.tick } else { self.tick + 1 };
        if let Some(missed) = snapshots.iter().find(|tick| **tick < begun && !self.taken.contains(tick)) {
            self.misled = Some(format!("was asked for a snapshot before tick {missed} when it had begun all ticks below {begun}"));
        }
        self.until = until;
        self.due = snapshots.into_iter().collect();
    }

    fn snapshot_is_due(&self) -> bool {
        (self.due.contains(&self.tick) || self.is_at_end()) && !self.taken.contains(&self.tick)
    }

    fn report_is_due(&self) -> bool {
        self.is_at_end() && !self.reported
    }

    fn may_compute(&self) -> bool {
        self.tick < self.until && !self.is_at_end()
    }

    fn is_at_end(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.end == self.tick)
    }

    fn between_ticks(&mut self) -> Vec<Event> {
        let Some(plan) = self.plan.clone() else { return Vec::new() };
        let mut events = Vec::new();
        if self.snapshot_is_due() {
            self.taken.insert(self.tick);
            let own = self.own.iter().map(|(part, content)| (*part, Bytes::copy_from_slice(content)));
            let tables = (self.config.rules.parts().tables(), Bytes::copy_from_slice(&self.tables));
            events.push(Event::Snapshot { epoch: plan.epoch, tick: self.tick, parts: own.chain([tables]).collect() });
        }
        if self.report_is_due() {
            self.reported = true;
            let own = plan.owned(self.me).filter_map(|part| Some((part, self.own.get(&part)?.clone()))).collect();
            events.push(Event::Report { epoch: plan.epoch, bytes: report(&own) });
        } else if self.may_compute() {
            let peers = (0..plan.roster.len() as u16).map(PeerIndex);
            let payload = |to| self.border_parts(&plan, self.me, to).flat_map(|part| digest(&self.own[&part]).to_le_bytes()).collect();
            let payloads = peers.map(|to| (to, payload(to))).filter(|(_, payload): &(_, Bytes)| !payload.is_empty()).collect();
            self.digests = self.own.iter().map(|(part, content)| (*part, digest(content))).collect();
            events.push(self.post(&plan, BORDER, payloads));
            self.phase = Phase::Border;
        }
        events
    }

    fn post(&self, plan: &EpochPlan, exchange: u16, payloads: Vec<(PeerIndex, Bytes)>) -> Event {
        Event::Post { epoch: plan.epoch, sequence: self.sequence, exchange, payloads }
    }

    fn deliver(&mut self, epoch: u32, sequence: u64, payloads: &[(PeerIndex, Bytes)]) {
        let Some(plan) = self.plan.clone() else { return };
        let is_due = matches!(self.phase, Phase::Border | Phase::Gather) && plan.epoch == epoch && sequence == self.sequence;
        if !is_due {
            self.misled = Some(format!("was delivered sequence {sequence} of epoch {epoch} at {} of {}", self.sequence, plan.epoch));
            return;
        }
        self.sequence += 1;
        let peers = (0..plan.roster.len() as u16).map(PeerIndex).filter(|peer| *peer != self.me);
        let owed: Vec<(PeerIndex, Vec<PartId>)> = match self.phase {
            Phase::Border => peers.map(|from| (from, self.border_parts(&plan, from, self.me).collect())).collect(),
            _ => peers.map(|from| (from, gathered(&plan, from, self.me).collect())).collect(),
        };
        let owed = owed.into_iter().filter(|(_, parts)| !parts.is_empty());
        let given = payloads.iter().map(|(from, payload)| (*from, payload.len()));
        if !given.eq(owed.clone().map(|(from, parts)| (from, parts.len() * DIGEST_BYTES))) {
            self.misled = Some(format!("was not delivered what is due at sequence {sequence} of epoch {epoch}"));
            return;
        }
        for ((_, parts), (_, payload)) in owed.zip(payloads) {
            for (part, word) in parts.into_iter().zip(payload.chunks_exact(DIGEST_BYTES)) {
                let mut digest = [0; DIGEST_BYTES];
                digest.copy_from_slice(word);
                self.digests.insert(part, u64::from_le_bytes(digest));
            }
        }
        self.phase = if self.phase == Phase::Border { Phase::Computing } else { Phase::Closing };
    }

    fn compute(&mut self) -> Vec<Event> {
        let Some(plan) = self.plan.clone() else { return Vec::new() };
        let rules = self.config.rules.clone();
        let tables = digest(&self.tables);
        for (part, content) in &mut self.own {
            let beside = rules.beside(*part).iter().map(|part| self.digests.get(part).copied().unwrap_or(0));
            rules.compute(content, beside, tables, self.tick);
        }
        if !rules.gathers(self.tick) {
            return self.ticked(&plan);
        }
        self.digests = self.own.iter().map(|(part, content)| (*part, digest(content))).collect();
        let payload = |to| gathered(&plan, self.me, to).flat_map(|part| self.digests[&part].to_le_bytes()).collect();
        let peers = (0..plan.roster.len() as u16).map(PeerIndex);
        let payloads = peers.map(|to| (to, payload(to))).filter(|(_, payload): &(_, Bytes)| !payload.is_empty()).collect();
        self.phase = Phase::Gather;
        vec![self.post(&plan, GATHER, payloads)]
    }

    fn close(&mut self) -> Vec<Event> {
        let Some(plan) = self.plan.clone() else { return Vec::new() };
        let rules = self.config.rules.clone();
        rules.reduce(&mut self.tables, self.digests.values().copied(), self.tick);
        self.ticked(&plan)
    }

    fn ticked(&mut self, plan: &EpochPlan) -> Vec<Event> {
        self.tick += 1;
        self.phase = Phase::Ready;
        vec![Event::Ticked { epoch: plan.epoch, tick: self.tick, busy: self.busy }]
    }
}

/// Parts of one peer that another does not compute itself.
fn gathered(plan: &EpochPlan, from: PeerIndex, to: PeerIndex) -> impl Iterator<Item = PartId> + '_ {
    plan.owned(from).filter(move |part| !plan.computes(to, *part))
}

/// A node's last words: the digest of every part that it owns, in order.
pub fn report(own: &BTreeMap<PartId, Vec<u8>>) -> Bytes {
    let words = own.iter().flat_map(|(part, content)| [u64::from(part.0), digest(content)]);
    words.flat_map(u64::to_le_bytes).collect()
}
