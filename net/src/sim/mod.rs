//! Many peers in one process on virtual time: the same [`Core`], no sockets, one seed.
//!
//! Every link is an ordered stream, so frames on one link keep their order, while links overtake each
//! other as the seed has it. The node side is a [`SimNode`]; it may hold a real executor. A run is a pure
//! function of the seed, the nodes and the faults, and a failure names the seed.
//!
//! Invariant: virtual time only moves to the next thing that happens; nothing here reads a clock. What is
//! right is judged apart, in [`check`], from what nodes posted and were given.

mod agenda;
pub mod check;
pub mod churn;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::core::{Core, CoreConfig, Event, LinkId, Output, Role, RunError};
use crate::wire::STRANGER_FRAME_BYTES_MAX;
use agenda::Agenda;
use check::{CheckError, Checker};

/// Things that may happen in one run; a run that needs more does not end.
const STEPS_MAX: u64 = 50_000_000;

/// The node of one simulated peer.
pub trait SimNode {
    /// Takes an output of the core, answers with events for it. Never sees `Dial`, `Send`, `Limit`, `Close`.
    fn on_output(&mut self, output: Output, now: Duration) -> Vec<Event>;
}

/// One simulated peer.
pub struct SimPeer<'a> {
    /// Its core's configuration; see [`peer_config`].
    pub config: CoreConfig,
    /// Its node.
    pub node: Box<dyn SimNode + 'a>,
}

/// A configuration for peer `place` of `peers`; peer 0 coordinates. Which index a joiner gets depends on
/// the order of arrival.
pub fn peer_config(place: u16, peers: u16) -> CoreConfig {
    let role = match place {
        0 => Role::Coordinator { peers },
        _ => Role::Joiner { coordinator: sim_address(0) },
    };
    let mut config = CoreConfig::new(role, &format!("sim-{place}"), &format!("peer-{place}"));
    config.addresses = vec![sim_address(place)];
    config
}

fn sim_address(place: u16) -> String {
    format!("sim/{place}")
}

/// What goes wrong, and how slow things are.
#[derive(Debug, Clone)]
pub struct Faults {
    /// A frame's time under way: from, to.
    pub delay: (Duration, Duration),
    /// A node's time for each answer: from, to.
    pub compute: (Duration, Duration),
    /// Links that break: when, and between which places.
    pub loss: Vec<(Duration, u16, u16)>,
    /// Peers that stop and never go on: when, and which place. Their links stay open.
    pub freeze: Vec<(Duration, u16)>,
    /// Peers whose node stops, while their core goes on: when, and which place.
    pub stall: Vec<(Duration, u16)>,
    /// Peers that vanish with all their links: when, and which place.
    pub crash: Vec<(Duration, u16)>,
}

impl Default for Faults {
    fn default() -> Faults {
        let millis = Duration::from_millis;
        Faults {
            delay: (millis(1), millis(20)),
            compute: (millis(0), millis(5)),
            loss: Vec::new(),
            freeze: Vec::new(),
            stall: Vec::new(),
            crash: Vec::new(),
        }
    }
}

/// How a peer's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Everybody was done.
    Finished,
    /// It was told why not.
    Failed(RunError),
    /// A fault took the peer itself.
    Gone,
}

/// What came of a run.
#[derive(Debug)]
pub struct SimReport {
    /// The seed.
    pub seed: u64,
    /// Virtual time at the end.
    pub elapsed: Duration,
    /// Per place.
    pub outcomes: Vec<Outcome>,
    /// Payloads delivered to nodes.
    pub deliveries: u64,
    /// Frames that arrived.
    pub frames: u64,
    /// Bytes that arrived.
    pub bytes: u64,
}

/// Why a run is no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimFailure {
    /// Some peers neither finished nor failed.
    #[error("seed {seed}: places {unfinished:?} have no end after {elapsed_ms} ms of virtual time")]
    Unfinished {
        /// The seed.
        seed: u64,
        /// Who.
        unfinished: Vec<u16>,
        /// Virtual time.
        elapsed_ms: u64,
    },
    /// A checker found something wrong.
    #[error("seed {seed}: {error}")]
    Check {
        /// The seed.
        seed: u64,
        /// What.
        error: CheckError,
    },
}

enum Happening {
    /// Something for a core.
    Event {
        place: u16,
        event: Event,
        from_node: bool,
    },
    /// One end of a link sees it close.
    Closes {
        place: u16,
        link: LinkId,
        reason: String,
    },
    /// A dial arrives.
    Dial {
        place: u16,
        address: String,
    },
    Loss(u16, u16),
    Freeze(u16),
    Stall(u16),
    Crash(u16),
}

/// One end of a link, at one place.
struct End {
    /// The other place, and its name for the link.
    other: (u16, LinkId),
    /// When the latest frame from here arrives there: the next one is no earlier.
    arrives: Duration,
    frame_bytes_max: u32,
    open: bool,
}

struct Place<'a> {
    core: Core,
    node: Box<dyn SimNode + 'a>,
    identity: String,
    address: String,
    ends: BTreeMap<LinkId, End>,
    next_link: u64,
    /// When the node's latest answer is in: answers keep their order.
    node_busy_until: Duration,
    /// The deadline a tick is already under way for.
    tick_at: Option<Duration>,
    frozen: bool,
    stalled: bool,
    outcome: Option<Outcome>,
}

type Tamper<'a> = Box<dyn FnMut(u16, u16, Bytes) -> Vec<Bytes> + 'a>;

/// A seeded run of several peers.
pub struct Simulation<'a> {
    seed: u64,
    random: fastrand::Rng,
    faults: Faults,
    places: Vec<Place<'a>>,
    now: Duration,
    agenda: Agenda<Happening>,
    checker: Checker,
    tamper: Option<Tamper<'a>>,
    report: SimReport,
}

impl<'a> Simulation<'a> {
    /// A run of these peers, the coordinator first.
    pub fn new(seed: u64, peers: Vec<SimPeer<'a>>, faults: Faults) -> Simulation<'a> {
        let staleness = peers.first().map_or(0, |peer| peer.config.staleness);
        let places: Vec<Place> = peers
            .into_iter()
            .map(|peer| Place {
                identity: peer.config.identity.clone(),
                address: peer.config.addresses.first().cloned().unwrap_or_default(),
                core: Core::new(peer.config),
                node: peer.node,
                ends: BTreeMap::new(),
                next_link: 0,
                node_busy_until: Duration::ZERO,
                tick_at: None,
                frozen: false,
                stalled: false,
                outcome: None,
            })
            .collect();
        Simulation {
            seed,
            random: fastrand::Rng::with_seed(seed),
            faults,
            checker: Checker::new(places.len(), staleness),
            report: SimReport { seed, elapsed: Duration::ZERO, outcomes: Vec::new(), deliveries: 0, frames: 0, bytes: 0 },
            places,
            now: Duration::ZERO,
            agenda: Agenda::new(),
            tamper: None,
        }
    }

    /// Lets a function replace every frame's content under way (from place, to place, content) by none,
    /// one or several: a hostile peer, as the others see it.
    pub fn tamper(mut self, tamper: impl FnMut(u16, u16, Bytes) -> Vec<Bytes> + 'a) -> Simulation<'a> {
        self.tamper = Some(Box::new(tamper));
        self
    }

    /// Runs until every peer has an end, or virtual time is up.
    ///
    /// **Errors**: peers without an end; anything a checker finds. Both name the seed.
    pub fn run(mut self, time_max: Duration) -> Result<SimReport, SimFailure> {
        self.schedule_faults();
        for place in 0..self.places.len() as u16 {
            self.settle(place)?;
        }
        let mut steps = 0;
        while let Some((at, happening)) = self.agenda.pop() {
            steps += 1;
            if at > time_max || steps > STEPS_MAX || self.places.iter().all(|place| place.outcome.is_some()) {
                break;
            }
            self.now = at;
            self.happen(happening)?;
        }
        self.conclude()
    }

    fn conclude(mut self) -> Result<SimReport, SimFailure> {
        let unfinished: Vec<u16> = (0u16..).zip(&self.places).filter(|(_, place)| place.outcome.is_none()).map(|(at, _)| at).collect();
        if !unfinished.is_empty() {
            let elapsed_ms = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
            return Err(SimFailure::Unfinished { seed: self.seed, unfinished, elapsed_ms });
        }
        self.report.elapsed = self.now;
        self.report.outcomes = self.places.into_iter().filter_map(|place| place.outcome).collect();
        Ok(self.report)
    }

    fn schedule_faults(&mut self) {
        let Faults { loss, freeze, stall, crash, .. } = self.faults.clone();
        for (at, a, b) in loss {
            self.push(at, Happening::Loss(a, b));
        }
        for (at, place) in freeze {
            self.push(at, Happening::Freeze(place));
        }
        for (at, place) in stall {
            self.push(at, Happening::Stall(place));
        }
        for (at, place) in crash {
            self.push(at, Happening::Crash(place));
        }
    }

    fn push(&mut self, at: Duration, happening: Happening) {
        self.agenda.push(at, happening);
    }

    fn between(&mut self, range: (Duration, Duration)) -> Duration {
        agenda::between(&mut self.random, range)
    }

    fn place(&mut self, place: u16) -> Option<&mut Place<'a>> {
        self.places.get_mut(usize::from(place))
    }

    fn happen(&mut self, happening: Happening) -> Result<(), SimFailure> {
        match happening {
            Happening::Event { place, event, from_node } => self.event(place, event, from_node),
            Happening::Closes { place, link, reason } => {
                let end = self.place(place).and_then(|p| p.ends.get_mut(&link));
                match end {
                    Some(end) if end.open => {
                        end.open = false;
                        self.event(place, Event::Closed { link, reason }, false)
                    }
                    _ => Ok(()),
                }
            }
            Happening::Dial { place, address } => self.dial(place, address),
            Happening::Loss(a, b) => {
                let links: Vec<LinkId> = match self.place(a) {
                    Some(place) => place.ends.iter().filter(|(_, end)| end.other.0 == b).map(|(id, _)| *id).collect(),
                    None => Vec::new(),
                };
                for link in links {
                    self.break_link(a, link, "the line was cut", true);
                }
                Ok(())
            }
            Happening::Freeze(place) => {
                if let Some(place) = self.place(place) {
                    place.frozen = true;
                    place.outcome.get_or_insert(Outcome::Gone);
                }
                Ok(())
            }
            Happening::Stall(place) => {
                if let Some(place) = self.place(place) {
                    place.stalled = true;
                }
                Ok(())
            }
            Happening::Crash(at) => {
                let Some(place) = self.place(at) else {
                    return Ok(());
                };
                place.frozen = true;
                place.outcome.get_or_insert(Outcome::Gone);
                let links: Vec<LinkId> = place.ends.keys().copied().collect();
                for link in links {
                    self.break_link(at, link, "the other side vanished", false);
                }
                Ok(())
            }
        }
    }

    /// Both ends see the link close: the other after what is under way, this one at once if it still can.
    fn break_link(&mut self, place: u16, link: LinkId, reason: &str, tell_here: bool) {
        let now = self.now;
        let Some(end) = self.place(place).and_then(|p| p.ends.get_mut(&link)).filter(|end| end.open) else {
            return;
        };
        let (other, arrives) = (end.other, end.arrives.max(now));
        if tell_here {
            self.push(now, Happening::Closes { place, link, reason: reason.to_owned() });
        } else {
            end.open = false;
        }
        self.push(arrives, Happening::Closes { place: other.0, link: other.1, reason: reason.to_owned() });
    }

    fn dial(&mut self, from: u16, address: String) -> Result<(), SimFailure> {
        let to = self.places.iter().position(|place| place.address == address && !place.frozen);
        let Some(to) = to.and_then(|to| u16::try_from(to).ok()) else {
            let error = "nobody listens there".to_owned();
            return self.event(from, Event::DialFailed { address, error }, false);
        };
        let (id_from, id_to) = (self.new_link(from), self.new_link(to));
        let end = |other| End { other, arrives: Duration::ZERO, frame_bytes_max: STRANGER_FRAME_BYTES_MAX, open: true };
        let identity = |sim: &Simulation, place: u16| sim.places[usize::from(place)].identity.clone();
        let (identity_from, identity_to) = (identity(self, from), identity(self, to));
        self.places[usize::from(from)].ends.insert(id_from, end((to, id_to)));
        self.places[usize::from(to)].ends.insert(id_to, end((from, id_from)));
        self.event(to, Event::Opened { link: id_to, identity: identity_from, outgoing: false }, false)?;
        self.event(from, Event::Opened { link: id_from, identity: identity_to, outgoing: true }, false)
    }

    fn new_link(&mut self, place: u16) -> LinkId {
        let Some(place) = self.place(place) else {
            return LinkId(0);
        };
        place.next_link += 1;
        LinkId(place.next_link)
    }

    /// Gives a core an event and does what it wants done.
    fn event(&mut self, at: u16, event: Event, from_node: bool) -> Result<(), SimFailure> {
        let now = self.now;
        let Some(place) = self.place(at).filter(|place| !place.frozen) else {
            return Ok(());
        };
        match &event {
            Event::Received { link, frame } => {
                let Some(end) = place.ends.get(link).filter(|end| end.open) else {
                    return Ok(());
                };
                let limit = end.frame_bytes_max;
                if frame.len() > limit as usize {
                    let reason = format!("a frame of {} bytes, the limit is {limit}", frame.len());
                    self.break_link(at, *link, &reason, true);
                    return Ok(());
                }
                self.report.frames += 1;
                self.report.bytes += frame.len() as u64;
            }
            Event::Tick => place.tick_at = None,
            _ if from_node && place.stalled => return Ok(()),
            Event::Post { sequence, exchange, payloads } => {
                let index = place.core.index();
                let seed = self.seed;
                let posted = self.checker.posted(index, *sequence, *exchange, payloads);
                posted.map_err(|error| SimFailure::Check { seed, error })?;
            }
            _ => {}
        }
        if let Some(place) = self.place(at) {
            place.core.handle(event, now);
        }
        self.settle(at)
    }

    fn settle(&mut self, at: u16) -> Result<(), SimFailure> {
        while let Some(output) = self.place(at).and_then(|place| place.core.poll_output()) {
            match output {
                Output::Dial { address } => {
                    let arrives = self.now + self.between(self.faults.delay);
                    self.push(arrives, Happening::Dial { place: at, address });
                }
                Output::Send { link, frame } => self.carry(at, link, frame.content()),
                Output::Limit { link, frame_bytes_max } => {
                    if let Some(end) = self.place(at).and_then(|place| place.ends.get_mut(&link)) {
                        end.frame_bytes_max = frame_bytes_max;
                    }
                }
                Output::Close { link, reason } => self.break_link(at, link, &reason, false),
                for_the_node => self.tell_node(at, for_the_node)?,
            }
        }
        self.schedule_tick(at);
        Ok(())
    }

    fn schedule_tick(&mut self, at: u16) {
        let now = self.now;
        let Some(place) = self.place(at) else { return };
        let Some(deadline) = place.core.deadline() else {
            return;
        };
        let deadline = deadline.max(now);
        if place.tick_at.is_none_or(|tick| deadline < tick) {
            place.tick_at = Some(deadline);
            self.push(deadline, Happening::Event { place: at, event: Event::Tick, from_node: false });
        }
    }

    /// Puts a frame under way; it arrives after all earlier ones of its link.
    fn carry(&mut self, at: u16, link: LinkId, content: Bytes) {
        let arrives = self.now + self.between(self.faults.delay);
        let Some(end) = self.place(at).and_then(|place| place.ends.get_mut(&link)).filter(|end| end.open) else {
            return;
        };
        end.arrives = end.arrives.max(arrives);
        let (other, arrives) = (end.other, end.arrives);
        let contents = match &mut self.tamper {
            Some(tamper) => tamper(at, other.0, content),
            None => vec![content],
        };
        for frame in contents {
            let event = Event::Received { link: other.1, frame };
            self.push(arrives, Happening::Event { place: other.0, event, from_node: false });
        }
    }

    fn tell_node(&mut self, at: u16, output: Output) -> Result<(), SimFailure> {
        let now = self.now;
        let seed = self.seed;
        if let Output::Deliver { payloads, .. } = &output {
            self.report.deliveries += payloads.len() as u64;
        }
        let index = self.places[usize::from(at)].core.index();
        self.checker.observed(at, index, &output).map_err(|error| SimFailure::Check { seed, error })?;
        let delay = self.between(self.faults.compute);
        let Some(place) = self.place(at) else {
            return Ok(());
        };
        let outcome = match &output {
            Output::Failed(error) => Some(Outcome::Failed(error.clone())),
            Output::Finished => Some(Outcome::Finished),
            _ => None,
        };
        place.outcome = place.outcome.take().or(outcome);
        let answers = place.node.on_output(output, now);
        place.node_busy_until = place.node_busy_until.max(now + delay);
        let answered = place.node_busy_until;
        for event in answers {
            self.push(answered, Happening::Event { place: at, event, from_node: true });
        }
        Ok(())
    }
}
