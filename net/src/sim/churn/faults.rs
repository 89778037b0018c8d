//! What a seed makes of a run: who takes part, how fast everything is, and what goes wrong.
//!
//! A fault names how many it hits, not whom: victims are drawn when it happens, among those who are then there. In a run
//! that must survive, [`Scenario::survives`], the simulation holds a fault back until as many as it takes may be lost.

use std::sync::Arc;
use std::time::Duration;

use peercompute_buffers::Grid;

use super::state::Rules;
use crate::membership::{Keep, Parts, Tuning};

/// Everything about a run that is settled before it begins.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed of the run's other draws.
    pub seed: u64,
    /// The state and how it changes.
    pub rules: Arc<Rules>,
    /// Who may be there; the first is the host.
    pub places: Vec<PlaceConfig>,
    /// Peers before the first epoch.
    pub assemble: u16,
    /// The tick at which the run ends.
    pub end: u64,
    /// Copies beside the owner's.
    pub replicas: u16,
    /// The tick of the stored state that the host begins with.
    pub stored_at: Option<u64>,
    /// Times and rates of all members.
    pub tuning: Tuning,
    /// A frame's time under way: from, to.
    pub delay: (Duration, Duration),
    /// What one link carries. **Units**: bytes per second.
    pub link_bytes_per_s: u64,
    /// What goes wrong, and when at the earliest.
    pub faults: Vec<(Duration, Fault)>,
    /// Whether losses are kept to what the run must survive, so that it has to reach its end.
    pub survives: bool,
}

/// One place, where a peer may live more than once.
#[derive(Debug, Clone)]
pub struct PlaceConfig {
    /// When its peer starts.
    pub starts: Duration,
    /// Its part in the run.
    pub part: Part,
    /// **Units**: points per second.
    pub speed: f64,
    /// How much faster its clock runs. **Units**: parts per million.
    pub drift_ppm: i32,
    /// Which snapshots it keeps.
    pub keep: Keep,
    /// Whether it can run init.
    pub seeds: bool,
    /// **Units**: bytes of parts.
    pub memory: u64,
}

/// What a peer is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Begins the run.
    Host,
    /// Joins it.
    Joiner,
    /// Joins, but its node turns every draft down.
    Declines,
    /// Comes with another bundle.
    OtherBundle,
    /// Was not invited.
    Uninvited,
    /// Looks on.
    Watcher,
}

/// Something that goes wrong, or a change that is in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Peers vanish together, each after so many more events of its own and in the midst of what the last one makes it do.
    Crash {
        /// How many.
        count: u16,
        /// Events until then, at most; 0 is at once.
        steps: u32,
        /// Whether the others' links to it stay as they are.
        silent: bool,
        /// When its place is started anew.
        back: Option<Duration>,
    },
    /// Whole processes stand still, and wake to everything at once.
    Freeze {
        /// How many.
        count: u16,
        /// For how long.
        lasts: Duration,
    },
    /// A node stands still while its member goes on.
    Stall {
        /// For how long; for ever where none.
        lasts: Option<Duration>,
    },
    /// A node computes more slowly.
    Slow {
        /// How many times.
        factor: u32,
        /// For how long.
        lasts: Duration,
    },
    /// Nothing gets from one peer to another, while the other way works.
    OneWay {
        /// For how long.
        lasts: Duration,
        /// What becomes of what was sent.
        heals: Heals,
    },
    /// Some peers and the others hear nothing of each other.
    Split {
        /// How many are cut off.
        count: u16,
        /// For how long.
        lasts: Duration,
        /// What becomes of what was sent.
        heals: Heals,
    },
    /// A link breaks, and both ends see it.
    Break,
    /// The links of a peer become slow.
    Narrow {
        /// **Units**: bytes per second.
        bytes_per_s: u64,
        /// For how long.
        lasts: Duration,
    },
    /// Frames that may be are repeated and overtake each other.
    Disturb {
        /// For how long.
        lasts: Duration,
    },
    /// Somebody wishes that no tick passes, and somebody that ticks pass again.
    Pause {
        /// After how long.
        lasts: Duration,
    },
    /// A peer leaves in good order.
    Leave {
        /// When it comes again, as who it was, if it is gone by then.
        back: Option<Duration>,
    },
    /// A node gives up.
    Stop,
}

/// How a cut between two peers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heals {
    /// Everything sent meanwhile arrives, late and in order, as TCP has it.
    Late,
    /// The links break.
    Broken,
    /// What was sent meanwhile is gone and the links go on: no transport of ours does so.
    Lossy,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One of several, evenly.
fn one_of<T: Copy>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(..of.len())]
}

impl Scenario {
    /// What this seed makes of a run of at most so many places.
    pub fn draw(seed: u64, peers_max: u16) -> Scenario {
        let random = &mut fastrand::Rng::with_seed(seed ^ 0x5ced_a410);
        // Small runs are quicker, and most of what can go wrong needs few.
        let peers_max = peers_max.max(2);
        let count = if random.u8(..4) == 0 { random.u16(2..=peers_max) } else { random.u16(2..=peers_max.min(6)) };
        let survives = random.u8(..3) > 0;
        // In every eighth run a tile is some kilobytes, and takes its time on a link.
        let heavy = &mut fastrand::Rng::with_seed(seed ^ 0x11ea);
        let weight = if heavy.u8(..8) == 0 { heavy.u64(100..1_000) } else { 1 };
        let rules = draw_rules(random, weight);
        let snapshot_every = ms(random.u64(150..800));
        let silence_min = ms(random.u64(250..700));
        let delay_max = one_of(random, &[2, 10, 10, 40]);
        // Newcomers get all at once, or a part or two at first.
        let join_pause = one_of(random, &[Duration::from_secs(1), Duration::from_micros(8)]);
        // They wait for them with the others, or compute them in the shadow of their owners first.
        let shadow_above = one_of(&mut fastrand::Rng::with_seed(seed ^ 0x54ad), &[Duration::ZERO, Duration::ZERO, Duration::MAX]);
        let tuning = Tuning {
            ping_every: silence_min / 4,
            silence_min,
            silence_max: ms(4_000),
            stall_limit: ms(random.u64(3_000..6_000)),
            horizon: ms(random.u64(50..250)),
            snapshot_every,
            leave_limit: ms(random.u64(2_000..6_000)),
            orphan_limit: ms(random.u64(4_000..12_000)),
            dial_limit: ms(2_000),
            balance: random.bool(),
            join_pause,
            join_fetch: join_pause,
            shadow_above,
            ..Tuning::default()
        };
        let points: u64 = (0..rules.parts().tile_count() as u32).map(|part| rules.parts().points(crate::membership::PartId(part))).sum();
        // Alone, a peer takes 20 to 200 ms for a tick.
        let speed = points as f64 * f64::from(random.u32(5..50));
        let lasts = ms(random.u64(4_000..16_000));
        let tick = 1.0 / (speed / points as f64 * f64::from(count).sqrt()) + 2.0 * delay_max as f64 / 1000.0;
        let end = ((lasts.as_secs_f64() / tick) as u64).clamp(20, 300);
        let replicas = random.u16(1..=2.min(count - 1).max(1));
        let assemble = random.u16(1..=4.min(count));
        let places = (0..count).map(|at| draw_place(random, at, assemble, lasts, speed)).collect();
        let mut faults = draw_faults(random, lasts, replicas, count, survives);
        draw_pause(&mut fastrand::Rng::with_seed(seed ^ 0x9a05), lasts, &mut faults);
        Scenario {
            seed,
            rules,
            places,
            assemble,
            end,
            replicas,
            stored_at: (random.u8(..8) == 0).then(|| random.u64(1..15)),
            tuning,
            delay: (ms(delay_max / 10), ms(delay_max)),
            link_bytes_per_s: one_of(random, &[500 << 10, 4 << 20, 64 << 20]),
            faults,
            survives,
        }
    }
}

fn draw_rules(random: &mut fastrand::Rng, weight: u64) -> Arc<Rules> {
    let (width, height) = (random.u32(4..12), random.u32(4..12));
    let mut grids = vec![(vec![width, height], vec![2, 2], 4 * random.u64(1..4))];
    if random.u8(..4) == 0 {
        grids.push((vec![random.u32(1..20)], vec![3], 8));
    }
    let point_bytes: Vec<u64> = grids.iter().map(|(_, _, bytes)| *bytes * weight).collect();
    let grids: Vec<Grid> = grids.iter().filter_map(|(shape, tile, _)| Grid::new(shape, tile).ok()).collect();
    let parts = match Parts::new(&grids, &point_bytes, 4 * random.u64(1..6)) {
        Ok(parts) => parts,
        Err(what) => unreachable!("small grids are parts: {what}"),
    };
    Arc::new(Rules::new(Arc::new(parts), random.u64(1..4), random.u64(..)))
}

fn draw_place(random: &mut fastrand::Rng, at: u16, assemble: u16, lasts: Duration, speed: f64) -> PlaceConfig {
    let starts = match at {
        0 => Duration::ZERO,
        _ if at < assemble => ms(random.u64(0..300)),
        _ => ms(random.u64(0..lasts.as_millis() as u64 * 2 / 3)),
    };
    let part = match (at, random.u8(..24)) {
        (0, _) => Part::Host,
        _ if at < assemble => Part::Joiner,
        (_, 0) => Part::Declines,
        (_, 1) => Part::OtherBundle,
        (_, 2) => Part::Uninvited,
        (_, 3 | 4) => Part::Watcher,
        _ => Part::Joiner,
    };
    PlaceConfig {
        starts,
        part,
        speed: speed * one_of(random, &[0.3, 1.0, 1.0, 1.0, 2.0]),
        drift_ppm: random.i32(-10_000..=10_000),
        keep: one_of(random, &[Keep::Share, Keep::Share, Keep::End, Keep::All]),
        seeds: at == 0 || random.u8(..8) > 0,
        memory: if at > 0 && random.u8(..8) == 0 { random.u64(100..1000) } else { 1 << 30 },
    }
}

fn draw_faults(random: &mut fastrand::Rng, lasts: Duration, replicas: u16, count: u16, survives: bool) -> Vec<(Duration, Fault)> {
    let faults = match random.u8(..8) {
        0 => 0,
        _ if survives => random.usize(1..7),
        _ => random.usize(1..10),
    };
    let most = if survives { replicas } else { count };
    let mut drawn: Vec<(Duration, Fault)> = Vec::new();
    for _ in 0..faults {
        let at = ms(random.u64(0..lasts.as_millis() as u64));
        drawn.push((at, draw_fault(random, most, survives)));
    }
    drawn.sort_by_key(|(at, _)| *at);
    drawn
}

/// In every fourth run, somewhere among what goes wrong.
fn draw_pause(random: &mut fastrand::Rng, lasts: Duration, faults: &mut Vec<(Duration, Fault)>) {
    if random.u8(..4) == 0 {
        let at = ms(random.u64(0..lasts.as_millis() as u64));
        faults.push((at, Fault::Pause { lasts: ms(one_of(random, &[50, 500, 2_000, 8_000])) }));
        faults.sort_by_key(|(at, _)| *at);
    }
}

fn draw_fault(random: &mut fastrand::Rng, most: u16, survives: bool) -> Fault {
    let several = |random: &mut fastrand::Rng| if random.u8(..3) == 0 { random.u16(1..=most) } else { 1 };
    let lasts = ms(one_of(random, &[100, 400, 1_000, 3_000, 8_000]) + random.u64(..500));
    let heals = match random.u8(..8) {
        0 if !survives => Heals::Lossy,
        0..4 => Heals::Broken,
        _ => Heals::Late,
    };
    match random.u8(..20) {
        0..6 => Fault::Crash {
            count: several(random),
            steps: one_of(random, &[0, 1, 10, 100, 300]),
            silent: random.bool(),
            back: random.bool().then(|| ms(random.u64(0..6_000))),
        },
        6..9 => Fault::Freeze { count: several(random), lasts },
        9 => Fault::Stall { lasts: (survives || random.bool()).then_some(lasts) },
        10 | 11 => Fault::Slow { factor: one_of(random, &[2, 4, 10]), lasts },
        12 => Fault::OneWay { lasts, heals },
        13 | 14 => Fault::Split { count: several(random), lasts, heals },
        15 => Fault::Break,
        16 => Fault::Narrow { bytes_per_s: one_of(random, &[2_000, 10_000, 50_000]), lasts },
        17 => Fault::Disturb { lasts },
        18 => Fault::Leave { back: random.bool().then(|| ms(random.u64(0..6_000))) },
        _ if random.bool() => Fault::Stop,
        _ => Fault::Leave { back: None },
    }
}
