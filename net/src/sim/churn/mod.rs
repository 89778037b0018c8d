//! A run whose peers come and go, on virtual time: the shipped [`Member`], simulated nodes, every fault, one seed.
//!
//! ```text
//!  Scenario::draw(seed) ─► places, speeds, faults
//!                              │
//!  ┌ place ─────────────┐      ▼       ┌ place ─────────────┐
//!  │ Node ◄──► Member   │◄── links ───►│ Member ◄──► Node   │   ordered, delayed, narrow, cut, broken, tampered with
//!  └──┬─────────────────┘              └─────────────────┬──┘
//!     └────────────► Checker ◄── Oracle ◄────────────────┘     what nodes are given and say, and nothing else
//! ```
//!
//! A place is where a peer can live, more than once: crash it and it may come back with the same identity and a fresh
//! member. Every life has its own clock, which begins at 0 and drifts. A node's words reach its member a little later,
//! so some belong to an epoch that is over.
//!
//! Invariant: a run is a pure function of its [`Scenario`]; the trace and the checkers change nothing in it.

pub mod check;
pub mod faults;
mod links;
mod looks;
pub mod node;
pub mod state;
mod strikes;
#[cfg(test)]
mod tests;
pub mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::agenda::{Agenda, between};
use crate::core::LinkId;
use crate::membership::{EpochPlan, Event, Member, MemberConfig, MemberError, Notice, Output, Role, Stored, Wish, is_control};
use crate::ownership::PeerIndex;
use check::{CheckError, Checker, LifeId};
use faults::{Fault, Heals, Part, PlaceConfig, Scenario};
use node::{Node, NodeConfig};
use state::Oracle;
use trace::{event_line, output_line};

/// Things that may happen in one run; a run that needs more does not end.
const STEPS_MAX: u64 = 20_000_000;
/// Virtual time by which every run has an end.
const TIME_MAX: Duration = Duration::from_secs(600);
/// Whether whoever wished that ticks pass again is still there is looked at again after this, so many times.
const RESUME_AGAIN: Duration = Duration::from_secs(2);
const RESUME_LOOKS: u32 = 24;
/// … and wished again, if the wisher may have given up.
const RESUME_LOOKS_BETWEEN: u32 = 6;
/// Between two looks at the whole.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So near the end nobody needs to be let in.
const END_TICKS: u64 = 30;
/// … nor so many times the least silence before it: one that was left out and told by nobody asks after three.
const END_SILENCES: u32 = 5;
/// Clocks of one member without time passing.
const CLOCKS_MAX: u32 = 64;

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Everybody has reached the end.
    Finished,
    /// It left in good order.
    Left,
    /// It was told why not.
    Failed(MemberError),
    /// A fault took the peer itself.
    Gone,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Virtual time at the end.
    pub elapsed: Duration,
    /// How every life ended: its place, and how.
    pub outcomes: Vec<(u16, Outcome)>,
    /// Epochs that somebody entered.
    pub epochs: u64,
    /// The latest tick.
    pub ticks: u64,
    /// Members that joined, the first ones too.
    pub joins: u64,
    /// Members that left in good order.
    pub leaves: u64,
    /// Peers that faults took, cut off or froze.
    pub losses: u64,
    /// Members that an epoch left out, other than those that left.
    pub excluded: u64,
    /// Epochs in which newcomers computed in the shadow of others, and those in which they took over.
    pub shadowed: u64,
    /// … of which these.
    pub taken_over: u64,
    /// Epochs that computed ticks again, as members noticed.
    pub rollbacks: u64,
    /// Snapshots that somebody stored.
    pub stored: u64,
    /// Frames that arrived.
    pub frames: u64,
    /// Bytes that arrived.
    pub bytes: u64,
}

impl Summary {
    /// Whether somebody reached the end.
    pub fn is_finished(&self) -> bool {
        self.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Finished)
    }
}

/// Why a run is no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChurnError {
    /// A checker found something wrong.
    #[error("seed {seed}, after {elapsed_ms} ms: {error}")]
    Check {
        /// The seed.
        seed: u64,
        /// Virtual time.
        elapsed_ms: u64,
        /// What.
        error: CheckError,
    },
    /// Some lives have no end.
    #[error("seed {seed}: places {unfinished:?} have no end after {elapsed_ms} ms of virtual time")]
    Unfinished {
        /// The seed.
        seed: u64,
        /// Where.
        unfinished: Vec<u16>,
        /// Virtual time.
        elapsed_ms: u64,
    },
}

enum Happening {
    Start(u16),
    /// Something for a member.
    Event {
        place: u16,
        life: LifeId,
        event: Event,
    },
    /// The node's work is done.
    Work {
        place: u16,
        life: LifeId,
        generation: u64,
        took: Duration,
    },
    Dial {
        place: u16,
        life: LifeId,
        address: String,
    },
    Fault(Fault),
    Crash {
        place: u16,
        life: LifeId,
        silent: bool,
        back: Option<Duration>,
    },
    Wake {
        place: u16,
        life: LifeId,
    },
    Unstall {
        place: u16,
        life: LifeId,
    },
    Quicken {
        place: u16,
        factor: u32,
    },
    Widen {
        place: u16,
    },
    /// The one who wished for something about pauses wishes that ticks pass again, once; if it is gone, somebody else does.
    Resume {
        wisher: Option<(u16, LifeId)>,
        has_wished: bool,
        looks: u32,
    },
    Heal {
        cut: Vec<(u16, u16)>,
        heals: Heals,
    },
    Look,
}

/// What travels on a link, in order.
#[derive(Clone)]
enum Item {
    Frame(Bytes),
    Close(String),
}

/// One end of a link, at one life.
struct End {
    /// The other end: where it is, who lives there, its name for the link.
    other: (u16, LifeId, LinkId),
    /// When the latest item from here arrives there: the next one is no earlier.
    arrives: Duration,
    /// When the line is free for the next item.
    free_at: Duration,
    /// When the latest frame arrives, those that were made late among them: only then the link closes.
    latest: Duration,
    frame_bytes_max: u32,
    open: bool,
    /// It is about to close, and carries nothing any more.
    is_broken: bool,
    /// What a cut holds back.
    held: VecDeque<Item>,
}

/// A crash to come: after so many more events, and that many outputs of the last one.
struct Fuse {
    /// Whether it burns yet: some wait for a snapshot to be taken.
    burns: bool,
    events: u32,
    outputs: usize,
    silent: bool,
    back: Option<Duration>,
}

/// One peer, from its start to its end.
struct Life {
    id: LifeId,
    member: Member,
    node: Node,
    born: Duration,
    ends: BTreeMap<LinkId, End>,
    next_link: u64,
    /// The deadline a clock is already under way for.
    clock_at: Option<Duration>,
    /// Clocks since time last passed.
    clocks: (Duration, u32),
    /// The generation of the node's work under way.
    working: Option<u64>,
    /// When the node's latest words are in: they keep their order.
    words_at: Duration,
    frozen: bool,
    stalled: bool,
    /// What came while it was frozen or stalled.
    backlog: VecDeque<Happening>,
    fuse: Option<Fuse>,
    /// Snapshots taken in the steady time so far.
    snapshots: u32,
    /// Whether a fault has been at it.
    touched: bool,
    over: Option<Outcome>,
}

struct Place {
    config: PlaceConfig,
    identity: String,
    address: String,
    life: Option<Life>,
    lives: u32,
    slowness: u32,
    link_bytes_per_s: u64,
}

impl Place {
    fn alive(&self) -> Option<&Life> {
        self.life.as_ref().filter(|life| life.over.is_none())
    }

    fn is_healthy(&self) -> bool {
        self.alive().is_some_and(|life| !life.frozen && !life.stalled && life.fuse.is_none())
    }
}

type Tamper<'a> = Box<dyn FnMut(u16, u16, Bytes) -> Vec<Bytes> + 'a>;

/// A seeded run.
pub struct Churn<'a> {
    scenario: Scenario,
    random: fastrand::Rng,
    now: Duration,
    agenda: Agenda<Happening>,
    places: Vec<Place>,
    checker: Checker,
    trace: Option<Box<dyn FnMut(String) + 'a>>,
    tamper: Option<Tamper<'a>>,
    /// Whether a frame may be repeated or overtake others.
    may_disturb: fn(&[u8]) -> bool,
    disturbed_until: Duration,
    /// Directions that are cut, and how often.
    cuts: BTreeMap<(u16, u16), u32>,
    /// How many may be lost at once now: none until the latest loss has been made good.
    covered: usize,
    newest: Option<Arc<EpochPlan>>,
    /// Whether all members of the newest epoch are well, since the last look at least.
    steady: bool,
    /// What had been achieved, when it last changed or a fault last was, and whether a quorum could talk since.
    progress: (u64, u64),
    progress_at: Duration,
    /// Since when a quorum could talk and nothing was wrong anywhere.
    calm_since: Duration,
    /// The newest epoch, and when it was first seen.
    newest_at: (u32, Duration),
    /// When somebody first reached the run's end.
    finished_at: Option<Duration>,
    summary: Summary,
}

type Checked<T = ()> = Result<T, CheckError>;

impl<'a> Churn<'a> {
    /// A run of this scenario.
    pub fn new(scenario: Scenario) -> Churn<'a> {
        let mut checker = Checker::new(scenario.rules.clone());
        // Where a link loses frames and goes on, its ends seem to break the rules.
        let is_lossy = |fault: &Fault| matches!(fault, Fault::OneWay { heals: Heals::Lossy, .. } | Fault::Split { heals: Heals::Lossy, .. });
        checker.hostile = scenario.faults.iter().any(|(_, fault)| is_lossy(fault));
        checker.replicas_hold = scenario.survives.then_some(scenario.replicas);
        let seeds = scenario.places.iter().all(|place| place.seeds);
        let place = |(at, config): (u16, &PlaceConfig)| Place {
            config: config.clone(),
            identity: format!("sim-{at}"),
            address: address_of(at),
            life: None,
            lives: 0,
            slowness: 1,
            link_bytes_per_s: scenario.link_bytes_per_s,
        };
        Churn {
            random: fastrand::Rng::with_seed(scenario.seed),
            now: Duration::ZERO,
            agenda: Agenda::new(),
            places: (0u16..).zip(&scenario.places).map(place).collect(),
            checker,
            trace: None,
            tamper: None,
            may_disturb: is_control,
            disturbed_until: Duration::ZERO,
            cuts: BTreeMap::new(),
            // Before the first snapshot, a run begins anew from init, and from a store it cannot.
            covered: if scenario.stored_at.is_none() && seeds { usize::from(scenario.replicas) } else { 0 },
            newest: None,
            steady: false,
            progress: (0, 0),
            progress_at: Duration::ZERO,
            calm_since: Duration::ZERO,
            newest_at: (0, Duration::ZERO),
            finished_at: None,
            summary: Summary::default(),
            scenario,
        }
    }

    /// Gives every line of a trace to a function, such as [`Trace::add`](trace::Trace::add).
    pub fn trace(mut self, add: impl FnMut(String) + 'a) -> Churn<'a> {
        self.trace = Some(Box::new(add));
        self
    }

    /// Lets a function replace every frame's content under way (from place, to place, content) by none, one or several: a
    /// hostile peer, as the others see it. From now on accusations are right.
    pub fn tamper(mut self, tamper: impl FnMut(u16, u16, Bytes) -> Vec<Bytes> + 'a) -> Churn<'a> {
        self.tamper = Some(Box::new(tamper));
        self.checker.hostile = true;
        self
    }

    /// Which frames may be repeated and overtake others; those of [`is_control`] before this is said.
    pub fn disturb(mut self, may_disturb: fn(&[u8]) -> bool) -> Churn<'a> {
        self.may_disturb = may_disturb;
        self
    }

    /// Runs until every life has an end.
    ///
    /// **Errors**: what a checker finds; lives without an end. Both name the seed.
    pub fn run(mut self) -> Result<Summary, ChurnError> {
        for place in 0..self.places.len() as u16 {
            self.agenda.push(self.places[usize::from(place)].config.starts, Happening::Start(place));
        }
        for (at, fault) in self.scenario.faults.clone() {
            self.agenda.push(at, Happening::Fault(fault));
        }
        self.agenda.push(LOOK_EVERY, Happening::Look);
        let checked = self.run_on();
        let (seed, elapsed_ms) = (self.scenario.seed, u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX));
        if let Err(error) = checked {
            return Err(ChurnError::Check { seed, elapsed_ms, error });
        }
        let mut unfinished: Vec<u16> = self.living().collect();
        if self.checker.newest().is_none() && !self.scenario.survives {
            // Too few came for the first epoch: a host waits for more.
            unfinished.clear();
        }
        if !unfinished.is_empty() {
            return Err(ChurnError::Unfinished { seed, unfinished, elapsed_ms });
        }
        self.summary.elapsed = self.now;
        self.summary.ticks = self.checker.progress().0;
        Ok(self.summary)
    }

    fn run_on(&mut self) -> Checked {
        let mut steps = 0;
        while let Some((at, happening)) = self.agenda.pop() {
            steps += 1;
            if at > TIME_MAX || steps > STEPS_MAX {
                return Ok(());
            }
            self.now = at;
            if self.happen(happening)? {
                return self.conclude();
            }
        }
        self.conclude()
    }

    /// What must be true of the whole once everybody has an end.
    fn conclude(&mut self) -> Checked {
        if !self.scenario.survives {
            return Ok(());
        }
        for place in &self.places {
            let Some(life) = &place.life else { continue };
            let is_due = matches!(place.config.part, Part::Host | Part::Joiner) && life.node.plan().is_some() && !life.touched;
            // Whoever was left out so near the end does not get in again.
            let is_near = |newest: &EpochPlan| {
                let lasted = self.finished_at.map(|at| at.saturating_sub(self.newest_at.1));
                newest.tick + END_TICKS >= newest.end || lasted.is_some_and(|lasted| lasted < self.scenario.tuning.silence_min * END_SILENCES)
            };
            let is_late = |newest: &EpochPlan| is_near(newest) && life.node.plan().is_some_and(|own| own.epoch < newest.epoch);
            match &life.over {
                Some(Outcome::Failed(error)) if is_due && !self.checker.newest().is_some_and(|newest| is_late(newest)) => {
                    return Err(CheckError::NotFinished { life: life.id, text: error.to_string() });
                }
                _ => {}
            }
        }
        let host = self.places.iter().find_map(|place| place.life.as_ref());
        match host {
            Some(life) if !self.summary.is_finished() => Err(CheckError::NotFinished { life: life.id, text: "nobody finished".into() }),
            _ => Ok(()),
        }
    }

    fn note(&mut self, place: Option<u16>, text: impl FnOnce() -> String) {
        if let Some(add) = &mut self.trace {
            add(trace::line(self.now, place, &text()));
        }
    }

    fn living(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(&self.places).filter(|(_, place)| place.alive().is_some()).map(|(at, _)| at)
    }

    fn life(&mut self, place: u16) -> Option<&mut Life> {
        self.places.get_mut(usize::from(place)).and_then(|place| place.life.as_mut())
    }

    /// The life that lives there now, if it is that one.
    fn life_of(&mut self, place: u16, id: LifeId) -> Option<&mut Life> {
        self.life(place).filter(|life| life.id == id && life.over.is_none())
    }

    fn soon(&mut self) -> Duration {
        let delay = self.scenario.delay;
        self.now + between(&mut self.random, delay)
    }

    /// Whether that was the last thing to happen.
    fn happen(&mut self, happening: Happening) -> Result<bool, CheckError> {
        let happening = match self.hold_back(happening) {
            Some(happening) => happening,
            None => return Ok(false),
        };
        match happening {
            Happening::Start(place) => self.start(place)?,
            Happening::Event { place, life, event } => self.event(place, life, event)?,
            Happening::Work { place, life, generation, took } => self.work(place, life, generation, took)?,
            Happening::Dial { place, life, address } => self.dial(place, life, address)?,
            Happening::Fault(fault) => self.fault(fault)?,
            Happening::Crash { place, life, silent, back } => {
                if self.life_of(place, life).is_some() {
                    self.crash(place, silent, back);
                }
            }
            Happening::Wake { place, life } => {
                if let Some(life) = self.life_of(place, life) {
                    life.frozen = false;
                    self.release(place, "wakes");
                }
            }
            Happening::Unstall { place, life } => {
                if let Some(life) = self.life_of(place, life) {
                    life.stalled = false;
                    self.release(place, "its node goes on");
                }
            }
            Happening::Resume { wisher, has_wished, looks } => {
                let there = wisher.filter(|(place, life)| self.life_of(*place, *life).is_some());
                let wisher = match there {
                    // It goes on wishing for a while.
                    Some(_) if has_wished && looks % RESUME_LOOKS_BETWEEN != 0 => there,
                    there => self.wish(there, Wish::Pause(false))?,
                };
                if looks > 0 {
                    self.agenda.push(self.now + RESUME_AGAIN, Happening::Resume { wisher, has_wished: wisher.is_some(), looks: looks - 1 });
                }
            }
            Happening::Quicken { place, factor } => {
                let place = &mut self.places[usize::from(place)];
                place.slowness = (place.slowness / factor).max(1);
            }
            Happening::Widen { place } => self.places[usize::from(place)].link_bytes_per_s = self.scenario.link_bytes_per_s,
            Happening::Heal { cut, heals } => self.heal(&cut, heals),
            Happening::Look => return self.look(),
        }
        Ok(false)
    }

    /// A frozen peer gets nothing, a stalled node does nothing, until they go on.
    fn hold_back(&mut self, happening: Happening) -> Option<Happening> {
        let (place, id, is_work) = match &happening {
            Happening::Event { place, life, .. } => (*place, *life, false),
            Happening::Work { place, life, .. } => (*place, *life, true),
            _ => return Some(happening),
        };
        match self.life_of(place, id) {
            Some(life) if life.frozen || (life.stalled && is_work) => {
                life.backlog.push_back(happening);
                None
            }
            _ => Some(happening),
        }
    }

    fn release(&mut self, place: u16, what: &str) {
        let text = what.to_owned();
        self.note(Some(place), || text);
        let now = self.now;
        let Some(life) = self.life(place) else { return };
        for happening in std::mem::take(&mut life.backlog) {
            self.agenda.push(now, happening);
        }
    }

    // --- lives ---

    fn start(&mut self, at: u16) -> Checked {
        let place = &self.places[usize::from(at)];
        if place.alive().is_some() {
            return Ok(());
        }
        let hosts = place.config.part == Part::Host && place.lives == 0;
        let config = self.member_config(at, hosts);
        let place = &mut self.places[usize::from(at)];
        place.lives += 1;
        let node = NodeConfig {
            rules: self.scenario.rules.clone(),
            speed: place.config.speed,
            seeds: place.config.seeds,
            declines: place.config.part == Part::Declines,
        };
        let id = self.checker.born(&place.identity, config.keep, hosts);
        let role = format!("starts as life {id}: {:?}", config.role);
        place.life = Some(Life {
            id,
            member: Member::new(config),
            node: Node::new(node),
            born: self.now,
            ends: BTreeMap::new(),
            next_link: 0,
            clock_at: None,
            clocks: (Duration::ZERO, 0),
            working: None,
            words_at: Duration::ZERO,
            frozen: false,
            stalled: false,
            backlog: VecDeque::new(),
            fuse: None,
            snapshots: 0,
            touched: false,
            over: None,
        });
        self.note(Some(at), || role);
        self.settle(at, usize::MAX)
    }

    fn member_config(&mut self, at: u16, hosts: bool) -> MemberConfig {
        let place = self.places[usize::from(at)].config.clone();
        let stored = |tick| Stored { epoch: 3, tick, parts: Oracle::parts_at(self.scenario.rules.clone(), tick) };
        let role = match place.part {
            _ if hosts => Role::Host {
                assemble: self.scenario.assemble,
                end: self.scenario.end,
                task: Bytes::from_static(b"churn"),
                replicas: self.scenario.replicas,
                stored: self.scenario.stored_at.map(stored),
            },
            Part::Watcher => Role::Watch { address: address_of(0) },
            _ => Role::Join { addresses: self.addresses(at) },
        };
        let spread = 0.8 + 0.4 * self.random.f64();
        MemberConfig {
            role,
            identity: self.places[usize::from(at)].identity.clone(),
            name: format!("peer-{at}"),
            addresses: vec![address_of(at)],
            speed: place.speed * spread,
            memory: place.memory,
            keep: place.keep,
            seeds: place.seeds,
            token: [if place.part == Part::Uninvited { 9 } else { 7 }; 16],
            bundle: [if place.part == Part::OtherBundle { 9 } else { 7 }; 32],
            parts: self.scenario.rules.parts().clone(),
            seed: self.random.u64(..),
            frame_bytes_max: 8 << 20,
            tuning: self.scenario.tuning,
        }
    }

    /// Where a newcomer may ask: the host first, as in a link, then whoever else is there.
    fn addresses(&mut self, at: u16) -> Vec<String> {
        let mut others: Vec<u16> = self.living().filter(|other| *other != at && *other != 0).collect();
        self.random.shuffle(&mut others);
        others.truncate(7);
        let host = if at == 0 { None } else { Some(0) };
        host.into_iter().chain(others).map(address_of).collect()
    }

    fn local(&self, at: u16) -> Duration {
        let place = &self.places[usize::from(at)];
        let born = place.life.as_ref().map_or(Duration::ZERO, |life| life.born);
        scaled(self.now.saturating_sub(born), 1_000_000 + i64::from(place.config.drift_ppm), 1_000_000)
    }

    /// Gives a member an event and does what it wants done.
    fn event(&mut self, at: u16, id: LifeId, event: Event) -> Checked {
        let (local, now) = (self.local(at), self.now);
        let Some(life) = self.life_of(at, id) else { return Ok(()) };
        match &event {
            Event::Received { link, frame } => {
                let Some(end) = life.ends.get(link).filter(|end| end.open) else { return Ok(()) };
                let limit = end.frame_bytes_max;
                if frame.len() > limit as usize {
                    let reason = format!("a frame of {} bytes, the limit is {limit}", frame.len());
                    self.break_link(at, *link, &reason);
                    return Ok(());
                }
                self.summary.frames += 1;
                self.summary.bytes += frame.len() as u64;
            }
            Event::Closed { link, .. } => match life.ends.get_mut(link).filter(|end| end.open) {
                Some(end) => end.open = false,
                None => return Ok(()),
            },
            Event::Clock => {
                life.clock_at = None;
                if life.member.deadline().is_none_or(|deadline| deadline > local) {
                    self.schedule_clock(at);
                    return Ok(());
                }
                let count = if life.clocks.0 == now { life.clocks.1 + 1 } else { 0 };
                life.clocks = (now, count);
                if count > CLOCKS_MAX {
                    return Err(CheckError::Spins { life: id });
                }
            }
            Event::Snapshot { .. } => {
                life.snapshots += 1;
                if let Some(fuse) = &mut life.fuse {
                    fuse.burns = true;
                }
            }
            _ => {}
        }
        self.note(Some(at), || format!("< {}", event_line(&event)));
        self.checker.said(id, &event)?;
        let Some(life) = self.life_of(at, id) else { return Ok(()) };
        life.member.handle(event, local);
        let burnt = match &mut life.fuse {
            Some(fuse) if !fuse.burns => None,
            Some(fuse) if fuse.events > 0 => {
                fuse.events -= 1;
                None
            }
            Some(_) => life.fuse.take(),
            None => None,
        };
        self.settle(at, burnt.as_ref().map_or(usize::MAX, |fuse| fuse.outputs))?;
        if let Some(fuse) = burnt {
            self.crash(at, fuse.silent, fuse.back);
        }
        Ok(())
    }

    /// Carries out what a member wants done, at most so much of it.
    fn settle(&mut self, at: u16, outputs_max: usize) -> Checked {
        let mut outputs = 0;
        while outputs < outputs_max {
            let Some(output) = self.life(at).and_then(|life| life.member.poll_output()) else { break };
            outputs += 1;
            self.note(Some(at), || format!("> {}", output_line(&output)));
            match output {
                Output::Dial { address } => {
                    let arrives = self.soon();
                    if let Some(life) = self.life(at) {
                        let life = life.id;
                        self.agenda.push(arrives, Happening::Dial { place: at, life, address });
                    }
                }
                Output::Send { link, frame } => self.carry(at, link, Item::Frame(frame.content())),
                Output::Limit { link, frame_bytes_max } => {
                    if let Some(end) = self.life(at).and_then(|life| life.ends.get_mut(&link)) {
                        end.frame_bytes_max = frame_bytes_max;
                    }
                }
                Output::Close { link, reason } => self.close(at, link, &reason),
                for_the_node => self.tell_node(at, for_the_node)?,
            }
        }
        let Some(life) = self.life(at) else { return Ok(()) };
        let id = life.id;
        if life.member.is_over() && life.over.is_none() && outputs < outputs_max {
            return Err(CheckError::Misled { life: id, what: "is not told that it is over".into() });
        }
        self.checker.handled(id, outputs)?;
        self.leave_links_when_over(at);
        self.schedule_clock(at);
        self.schedule_work(at);
        Ok(())
    }

    /// A peer that is over writes what it has sent, and its process ends.
    fn leave_links_when_over(&mut self, at: u16) {
        let Some(life) = self.life(at).filter(|life| life.over.is_some()) else { return };
        let links: Vec<LinkId> = life.ends.iter().filter(|(_, end)| end.open).map(|(link, _)| *link).collect();
        for link in links {
            self.close(at, link, "the other side has ended");
        }
    }

    fn schedule_clock(&mut self, at: u16) {
        let now = self.now;
        let drift_ppm = i64::from(self.places[usize::from(at)].config.drift_ppm);
        let Some(life) = self.life(at).filter(|life| life.over.is_none()) else { return };
        let Some(deadline) = life.member.deadline() else { return };
        // A little late rather than early: clocks do not ring before their time.
        let due = life.born + scaled(deadline, 1_000_000, 1_000_000 + drift_ppm) + Duration::from_nanos(2);
        let due = due.max(now);
        if life.clock_at.is_none_or(|clock| due < clock) {
            life.clock_at = Some(due);
            let life = life.id;
            self.agenda.push(due, Happening::Event { place: at, life, event: Event::Clock });
        }
    }

    fn tell_node(&mut self, at: u16, output: Output) -> Checked {
        let Some(life) = self.life(at) else { return Ok(()) };
        let id = life.id;
        self.checker.heard(id, &output)?;
        match &output {
            Output::Enter { plan, .. } => self.entered(at, plan),
            Output::Stored { .. } => self.summary.stored += 1,
            Output::Notice(Notice::Epoch { replayed: 1.., .. }) => self.summary.rollbacks += 1,
            Output::Notice(Notice::Joined { .. }) => self.summary.joins += 1,
            Output::Finished { .. } => self.end(at, Outcome::Finished),
            Output::Left => {
                self.summary.leaves += 1;
                self.end(at, Outcome::Left);
            }
            Output::Failed(error) => self.end(at, Outcome::Failed(error.clone())),
            _ => {}
        }
        let Some(life) = self.life(at) else { return Ok(()) };
        life.node.hear(output);
        match life.node.misled() {
            Some(what) => Err(CheckError::Misled { life: id, what }),
            None => Ok(()),
        }
    }

    fn entered(&mut self, at: u16, plan: &EpochPlan) {
        if let Some(newest) = self.newest.clone().filter(|newest| newest.epoch < plan.epoch) {
            let stays = |id| plan.index_of(id).is_some() || plan.leaving.iter().any(|member| member.id == id);
            let lost = newest.roster.iter().filter(|member| !stays(member.id)).count() as u64;
            if lost > 0 {
                // Whether a fault was at it or not.
                self.covered = 0;
                self.steady = false;
            }
            self.summary.excluded += lost;
            if plan.version().is_some() {
                // What it begins from was copied among those before it.
                self.covered = self.covered.min(newest.roster.len() - 1);
            }
        }
        if self.newest.as_ref().is_none_or(|newest| newest.epoch < plan.epoch) {
            self.summary.epochs += 1;
            self.summary.shadowed += u64::from(!plan.shadows.is_empty());
            self.summary.taken_over += u64::from(self.newest.as_ref().is_some_and(|newest| takes_over(newest, plan)));
            self.newest = Some(Arc::new(plan.clone()));
        }
        if let Some(life) = self.life(at) {
            life.snapshots = 0;
        }
    }

    fn end(&mut self, at: u16, outcome: Outcome) {
        let now = self.now;
        if let Some(life) = self.life(at) {
            life.over = Some(outcome.clone());
            let is_finished = outcome == Outcome::Finished;
            self.finished_at = self.finished_at.or(is_finished.then_some(now));
            self.summary.outcomes.push((at, outcome));
        }
    }

    fn schedule_work(&mut self, at: u16) {
        let now = self.now;
        let slowness = self.places[usize::from(at)].slowness;
        let jitter = 0.75 + 0.5 * self.random.f64();
        let Some(life) = self.life(at).filter(|life| life.over.is_none()) else { return };
        let generation = life.node.generation();
        if life.working == Some(generation) {
            return;
        }
        let Some(takes) = life.node.work() else { return };
        let took = (takes * slowness).mul_f64(jitter);
        life.working = Some(generation);
        let life = life.id;
        self.agenda.push(now + took, Happening::Work { place: at, life, generation, took });
    }

    fn work(&mut self, at: u16, id: LifeId, generation: u64, took: Duration) -> Checked {
        let late = Duration::from_micros(self.random.u64(1..500));
        let now = self.now;
        let Some(life) = self.life_of(at, id).filter(|life| life.working == Some(generation)) else { return Ok(()) };
        life.working = None;
        if life.node.generation() == generation {
            let said = life.node.step(took);
            life.words_at = life.words_at.max(now + late);
            let said_at = life.words_at;
            for event in said {
                self.agenda.push(said_at, Happening::Event { place: at, life: id, event });
            }
        }
        self.schedule_work(at);
        Ok(())
    }
}

/// Whether in an epoch those own the tiles that shadowed them in the one before.
fn takes_over(before: &EpochPlan, plan: &EpochPlan) -> bool {
    let id = |plan: &EpochPlan, places: &[PeerIndex]| places.iter().map(|at| plan.member(*at).map(|member| member.id)).collect::<Vec<_>>();
    let is_planned = plan.epoch == before.epoch + 1 && plan.hashes.is_empty();
    is_planned && !before.shadows.is_empty() && id(before, &before.shadows) == id(plan, &plan.owners)
}

fn address_of(place: u16) -> String {
    format!("sim/{place}")
}

/// A duration times a fraction.
fn scaled(duration: Duration, numerator: i64, denominator: i64) -> Duration {
    let nanos = duration.as_nanos() * numerator.unsigned_abs() as u128 / denominator.unsigned_abs().max(1) as u128;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
