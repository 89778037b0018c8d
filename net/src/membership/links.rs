//! The links of one member: who is at the other end, how far away, and whether it still speaks.
//!
//! ```text
//!  dialled ─► Opened ─► Hello both ways ─► greeted: a member, or one that becomes one
//!  accepted ─► Opened ─► its Hello fits ─► Hello back ─► greeted
//!                     └─ it does not ─► Refuse, close: the run never notices
//! ```
//!
//! Every greeted link is pinged when it is quiet; the answer measures the round trip, and the time that a silence may last
//! follows from it. Pings come from the driver's thread, so a member that computes is not silent.
//!
//! Invariants: one greeted link for each identity, the latest; strangers are bounded; nobody is called silent before this
//! process had the chance to hear them (its own sleep is forgiven).

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{MemberConfig, Tuning};
use super::plan::Member;
use super::wire::Purpose;
use crate::core::LinkId;

/// Links without a hello.
const STRANGERS_MAX: usize = 64;
/// The longest pause between two dials of the same peer.
const REDIAL_MAX: Duration = Duration::from_millis(1000);
const REDIAL_MIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Link {
    pub(super) identity: String,
    pub(super) outgoing: bool,
    /// What this side dialled it for.
    pub(super) purpose: Purpose,
    /// Who it says it is, once its hello is here; its identity is proven.
    pub(super) greeted: Option<Box<Member>>,
    pub(super) opened_at: Duration,
    pub(super) heard_at: Duration,
    said_at: Duration,
    pinged_at: Duration,
    /// The smoothed round trip and its deviation.
    round_trip: Option<(Duration, Duration)>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Link {
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.map_or(Duration::ZERO, |(smoothed, _)| smoothed)
    }

    /// RFC 6298: smoothed round trip and deviation.
    fn measured(&mut self, sample: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((smoothed, deviation)) => ((smoothed * 7 + sample) / 8, (deviation * 3 + smoothed.abs_diff(sample)) / 4),
        });
    }

    /// How long it may be silent.
    fn silence_limit(&self, tuning: &Tuning) -> Duration {
        let (smoothed, deviation) = self.round_trip.unwrap_or((tuning.silence_min, Duration::ZERO));
        (tuning.ping_every * 3 + smoothed * 4 + deviation * 8).clamp(tuning.silence_min, tuning.silence_max.max(tuning.silence_min))
    }

    fn silent_at(&self, tuning: &Tuning) -> Duration {
        self.heard_at + self.silence_limit(tuning)
    }
}

/// Somebody to be reached.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) addresses: Vec<String>,
    /// Who must answer; `None` takes whoever is there.
    pub(super) identity: Option<String>,
    pub(super) purpose: Purpose,
    next: usize,
    tries: u32,
    /// When to dial again; `None` while a dial is under way.
    retry_at: Option<Duration>,
    pub(super) error: String,
}

impl Dial {
    /// The address that was tried last.
    pub(super) fn address(&self) -> String {
        self.addresses.get(self.next.saturating_sub(1) % self.addresses.len().max(1)).cloned().unwrap_or_default()
    }
}

/// What a link's event means.
#[derive(Debug)]
pub(super) enum Opened {
    /// Say hello.
    Greet(Purpose),
    /// Wait for its hello.
    Wait,
    /// Close it.
    TurnAway(&'static str),
}

/// What all links of a peer have carried, those that are gone counted in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LinkTotals {
    /// Bytes of frames that came.
    pub bytes_in: u64,
    /// Bytes of frames that went.
    pub bytes_out: u64,
    /// Those of them that no exchange asked for: copies of snapshots, tiles that move, agreement, pings.
    pub upkeep_out: u64,
    /// The longest round trip of those that are up, smoothed; zero where none was measured.
    pub round_trip: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) all: BTreeMap<LinkId, Link>,
    /// The greeted link of each identity, the latest.
    greeted: BTreeMap<String, LinkId>,
    pub(super) dials: Vec<Dial>,
    /// Without round trips.
    carried: LinkTotals,
}

impl Links {
    pub(super) fn dial(&mut self, addresses: Vec<String>, identity: Option<String>, purpose: Purpose, now: Duration) {
        let same = |dial: &Dial| dial.purpose == purpose && dial.addresses == addresses && dial.identity == identity;
        if addresses.is_empty() || self.dials.iter().any(same) {
            return;
        }
        self.dials.push(Dial { addresses, identity, purpose, next: 0, tries: 0, retry_at: Some(now), error: "no answer".into() });
    }

    /// The addresses to dial now.
    pub(super) fn due_dials(&mut self, now: Duration) -> Vec<String> {
        let due = self.dials.iter_mut().filter(|dial| dial.retry_at.is_some_and(|at| at <= now));
        due.map(|dial| {
            let address = dial.addresses[dial.next % dial.addresses.len()].clone();
            dial.next = dial.next.wrapping_add(1);
            dial.retry_at = None;
            address
        })
        .collect()
    }

    pub(super) fn dial_failed(&mut self, address: &str, error: String, now: Duration) {
        let dialled = |dial: &&mut Dial| dial.retry_at.is_none() && dial.addresses.iter().any(|a| a == address);
        if let Some(dial) = self.dials.iter_mut().find(dialled) {
            dial.tries += 1;
            dial.retry_at = Some(now + (REDIAL_MIN * 2u32.saturating_pow(dial.tries.min(8))).min(REDIAL_MAX));
            dial.error = error;
        }
    }

    pub(super) fn opened(&mut self, id: LinkId, identity: String, outgoing: bool, now: Duration) -> Opened {
        let purpose = if outgoing {
            let at = self.dials.iter().position(|dial| dial.retry_at.is_none() && dial.identity.as_ref() == Some(&identity));
            let at = at.or_else(|| self.dials.iter().position(|dial| dial.retry_at.is_none() && dial.identity.is_none()));
            match at {
                Some(at) if self.dials[at].purpose == Purpose::Link && self.greeted.contains_key(&identity) => {
                    self.dials.remove(at);
                    return Opened::TurnAway("linked already");
                }
                Some(at) => self.dials.remove(at).purpose,
                None => return Opened::TurnAway("nobody that was dialled"),
            }
        } else {
            if self.all.values().filter(|link| link.greeted.is_none()).count() >= STRANGERS_MAX {
                return Opened::TurnAway("too many strangers");
            }
            Purpose::Link
        };
        let link = Link {
            identity,
            outgoing,
            purpose,
            greeted: None,
            opened_at: now,
            heard_at: now,
            said_at: now,
            pinged_at: now,
            round_trip: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        self.all.insert(id, link);
        if outgoing { Opened::Greet(purpose) } else { Opened::Wait }
    }

    /// The greeted link to an identity.
    pub(super) fn to(&self, identity: &str) -> Option<LinkId> {
        self.greeted.get(identity).copied()
    }

    /// A link's other end has said who it is. Gives the older link to the same identity, which this one replaces.
    pub(super) fn greet(&mut self, id: LinkId, member: Member) -> Option<LinkId> {
        let link = self.all.get_mut(&id)?;
        let identity = link.identity.clone();
        link.greeted = Some(Box::new(member));
        self.dials.retain(|dial| dial.identity.as_ref() != Some(&identity));
        self.greeted.insert(identity, id).filter(|older| self.all.remove(older).is_some())
    }

    /// Takes a link out.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.all.remove(&id)?;
        if self.greeted.get(&link.identity) == Some(&id) {
            self.greeted.remove(&link.identity);
        }
        Some(link)
    }

    pub(super) fn is_dialling(&self, identity: &str) -> bool {
        self.dials.iter().any(|dial| dial.identity.as_deref() == Some(identity))
            || self.all.values().any(|link| link.outgoing && link.greeted.is_none() && link.identity == identity)
    }

    pub(super) fn heard(&mut self, id: LinkId, bytes: usize, now: Duration) {
        if let Some(link) = self.all.get_mut(&id) {
            link.heard_at = now;
            link.bytes_in += bytes as u64;
            self.carried.bytes_in += bytes as u64;
        }
    }

    pub(super) fn said(&mut self, id: LinkId, bytes: usize, is_exchanged: bool, now: Duration) {
        if let Some(link) = self.all.get_mut(&id) {
            link.said_at = now;
            link.bytes_out += bytes as u64;
            self.carried.bytes_out += bytes as u64;
            self.carried.upkeep_out += if is_exchanged { 0 } else { bytes as u64 };
        }
    }

    pub(super) fn ponged(&mut self, id: LinkId, stamp: u64, now: Duration) {
        if let (Some(link), Some(sample)) = (self.all.get_mut(&id), now.checked_sub(Duration::from_micros(stamp))) {
            link.measured(sample);
        }
    }

    /// The links that want a ping now.
    pub(super) fn due_pings(&mut self, tuning: &Tuning, now: Duration) -> Vec<LinkId> {
        let due = self.all.iter_mut().filter(|(_, link)| link.greeted.is_some() && ping_at(link, tuning) <= now);
        due.map(|(id, link)| {
            link.pinged_at = now;
            *id
        })
        .collect()
    }

    /// Strangers whose hello is late, and greeted links on which nothing was heard for too long.
    pub(super) fn silent(&self, tuning: &Tuning, now: Duration) -> Vec<LinkId> {
        let silent = |link: &Link| match link.greeted {
            None => link.opened_at + tuning.dial_limit <= now,
            Some(_) => link.silent_at(tuning) <= now,
        };
        self.all.iter().filter(|(_, link)| silent(link)).map(|(id, _)| *id).collect()
    }

    /// When something is due here.
    pub(super) fn deadline(&self, tuning: &Tuning) -> Option<Duration> {
        let links = self.all.values().map(|link| match link.greeted {
            None => link.opened_at + tuning.dial_limit,
            Some(_) => ping_at(link, tuning).min(link.silent_at(tuning)),
        });
        links.chain(self.dials.iter().filter_map(|dial| dial.retry_at)).min()
    }

    /// Where this process itself was stopped for a while, what came meanwhile is still unread.
    pub(super) fn forgive(&mut self, slept: Duration, now: Duration) {
        for link in self.all.values_mut() {
            link.heard_at = (link.heard_at + slept).min(now);
            link.opened_at = (link.opened_at + slept).min(now);
        }
    }

    pub(super) fn totals(&self) -> LinkTotals {
        LinkTotals { round_trip: self.round_trip_max(), ..self.carried }
    }

    /// The largest round trip of the greeted links.
    pub(super) fn round_trip_max(&self) -> Duration {
        self.all.values().map(Link::round_trip).max().unwrap_or(Duration::ZERO)
    }
}

/// A ping tells the other end that this one lives, so it follows from what was said; and measures, now and then, all the same.
fn ping_at(link: &Link, tuning: &Tuning) -> Duration {
    (link.said_at + tuning.ping_every).min(link.pinged_at + tuning.ping_every * 8).max(link.pinged_at + tuning.ping_every)
}

/// This peer, as its hellos and the roster have it.
pub(super) fn own_profile(config: &MemberConfig, id: super::plan::MemberId) -> Member {
    Member {
        id,
        identity: config.identity.clone(),
        name: crate::wire::cut(&config.name, crate::wire::NAME_BYTES_MAX).to_owned(),
        addresses: config.addresses.clone(),
        speed: if config.speed.is_finite() && config.speed >= 0.0 { config.speed } else { 0.0 },
        memory: config.memory,
        keep: config.keep,
        seeds: config.seeds,
    }
}
