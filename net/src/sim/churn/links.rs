//! What lies between places: links that are dialled, carry frames in order and late, and are cut, held up and broken.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::super::agenda::between;
use super::check::LifeId;
use super::faults::Heals;
use super::{Checked, Churn, End, Happening, Item, Outcome};
use crate::core::LinkId;
use crate::membership::Event;
use crate::wire::STRANGER_FRAME_BYTES_MAX;

/// A dial that nothing answers ends after this.
const DIAL_LASTS: Duration = Duration::from_secs(2);

impl Churn<'_> {
    pub(super) fn is_cut(&self, from: u16, to: u16) -> bool {
        self.cuts.contains_key(&(from, to))
    }

    pub(super) fn dial(&mut self, from: u16, id: LifeId, address: String) -> Checked {
        let Some(life) = self.life_of(from, id) else { return Ok(()) };
        if life.frozen {
            life.backlog.push_back(Happening::Dial { place: from, life: id, address });
            return Ok(());
        }
        let to = (0u16..).zip(&self.places).find(|(_, place)| place.address == address).map(|(at, _)| at);
        let reach = to.filter(|to| *to != from && self.places[usize::from(*to)].alive().is_some());
        let Some(to) = reach else {
            let event = Event::DialFailed { address, error: "nobody listens there".into() };
            let at = self.soon();
            self.agenda.push(at, Happening::Event { place: from, life: id, event });
            return Ok(());
        };
        let is_frozen = self.life(to).is_some_and(|life| life.frozen);
        if is_frozen || self.is_cut(from, to) || self.is_cut(to, from) {
            let event = Event::DialFailed { address, error: "no answer".into() };
            self.agenda.push(self.now + DIAL_LASTS, Happening::Event { place: from, life: id, event });
            return Ok(());
        }
        let opens = self.soon();
        let (link_from, link_to) = (self.new_link(from), self.new_link(to));
        let (identity_from, identity_to) = (self.places[usize::from(from)].identity.clone(), self.places[usize::from(to)].identity.clone());
        let Some(id_to) = self.life(to).map(|life| life.id) else { return Ok(()) };
        let end = |other| End {
            other,
            arrives: opens,
            free_at: opens,
            latest: opens,
            is_broken: false,
            frame_bytes_max: STRANGER_FRAME_BYTES_MAX,
            open: true,
            held: VecDeque::new(),
        };
        if let Some(life) = self.life(from) {
            life.ends.insert(link_from, end((to, id_to, link_to)));
        }
        if let Some(life) = self.life(to) {
            life.ends.insert(link_to, end((from, id, link_from)));
        }
        let event = Event::Opened { link: link_from, identity: identity_to, outgoing: true };
        self.agenda.push(opens, Happening::Event { place: from, life: id, event });
        self.event(to, id_to, Event::Opened { link: link_to, identity: identity_from, outgoing: false })
    }

    pub(super) fn new_link(&mut self, at: u16) -> LinkId {
        self.life(at).map_or(LinkId(0), |life| {
            life.next_link += 1;
            LinkId(life.next_link)
        })
    }

    /// Puts an item under way; it arrives after all earlier ones of its link.
    pub(super) fn carry(&mut self, at: u16, link: LinkId, item: Item) {
        let now = self.now;
        let Some(end) = self.life(at).and_then(|life| life.ends.get_mut(&link)).filter(|end| end.open && !end.is_broken) else { return };
        let to = end.other.0;
        if self.is_cut(at, to) {
            if let Some(end) = self.life(at).and_then(|life| life.ends.get_mut(&link)) {
                end.held.push_back(item);
            }
            return;
        }
        let slowest = self.places[usize::from(at)].link_bytes_per_s.min(self.places[usize::from(to)].link_bytes_per_s);
        let bytes = match &item {
            Item::Frame(content) => content.len() as u64 + 64,
            Item::Close(_) => 64,
        };
        let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / slowest.max(1));
        let delay = between(&mut self.random, self.scenario.delay);
        let Some(end) = self.life(at).and_then(|life| life.ends.get_mut(&link)) else { return };
        end.free_at = end.free_at.max(now) + takes;
        end.arrives = end.arrives.max(end.free_at + delay);
        let (other, arrives, latest) = (end.other, end.arrives, end.latest);
        match item {
            Item::Frame(content) => {
                let latest = self.arrive(at, other, arrives, content);
                if let Some(end) = self.life(at).and_then(|life| life.ends.get_mut(&link)) {
                    end.latest = end.latest.max(latest);
                }
            }
            Item::Close(reason) => {
                let arrives = arrives.max(latest);
                let event = Event::Closed { link: other.2, reason };
                self.agenda.push(arrives, Happening::Event { place: other.0, life: other.1, event });
            }
        }
    }

    /// Gives when the latest of what came of it arrives.
    pub(super) fn arrive(&mut self, from: u16, (to, life, link): (u16, LifeId, LinkId), at: Duration, content: Bytes) -> Duration {
        let mut latest = at;
        let contents = match &mut self.tamper {
            Some(tamper) => tamper(from, to, content),
            None => vec![content],
        };
        for frame in contents {
            let mut times = vec![at];
            let may_disturb = self.now < self.disturbed_until && (self.may_disturb)(&frame);
            if may_disturb {
                let late = |random: &mut fastrand::Rng| at + Duration::from_millis(random.u64(0..200));
                match self.random.u8(..4) {
                    0 => times.push(late(&mut self.random)),
                    1 => times = vec![late(&mut self.random)],
                    _ => {}
                }
            }
            for at in times {
                latest = latest.max(at);
                let event = Event::Received { link, frame: frame.clone() };
                self.agenda.push(at, Happening::Event { place: to, life, event });
            }
        }
        latest
    }

    /// This end closes at once, the other after what is under way.
    pub(super) fn close(&mut self, at: u16, link: LinkId, reason: &str) {
        self.carry(at, link, Item::Close(reason.to_owned()));
        if let Some(end) = self.life(at).and_then(|life| life.ends.get_mut(&link)) {
            end.open = false;
        }
    }

    /// Both ends see the link close, each in its time; what is under way then, or sent on it until then, is lost.
    pub(super) fn break_link(&mut self, at: u16, link: LinkId, reason: &str) {
        let (here, there) = (self.soon(), self.soon());
        let Some(life) = self.life(at) else { return };
        let id = life.id;
        let Some(end) = life.ends.get_mut(&link).filter(|end| end.open) else { return };
        end.held.clear();
        end.is_broken = true;
        let other = end.other;
        if let Some(end) = self.life_of(other.0, other.1).and_then(|life| life.ends.get_mut(&other.2)) {
            end.is_broken = true;
        }
        let closed = |link| Event::Closed { link, reason: reason.to_owned() };
        self.agenda.push(here, Happening::Event { place: at, life: id, event: closed(link) });
        self.agenda.push(there, Happening::Event { place: other.0, life: other.1, event: closed(other.2) });
    }

    pub(super) fn links_between(&self, a: u16, b: u16) -> Vec<LinkId> {
        let ends = self.places[usize::from(a)].alive().map(|life| &life.ends);
        ends.into_iter().flatten().filter(|(_, end)| end.open && end.other.0 == b).map(|(link, _)| *link).collect()
    }

    pub(super) fn crash(&mut self, at: u16, silent: bool, back: Option<Duration>) {
        self.note(Some(at), || format!("crashes, {}", if silent { "and nobody sees it" } else { "its links close" }));
        let Some(mut life) = self.places[usize::from(at)].life.take() else { return };
        let ends = std::mem::take(&mut life.ends);
        if !silent {
            for end in ends.into_values().filter(|end| end.open) {
                // Somewhere among what was under way.
                let latest = end.arrives.max(self.now + Duration::from_millis(1));
                let seen = between(&mut self.random, (self.now, latest + (latest - self.now)));
                let event = Event::Closed { link: end.other.2, reason: "the other side vanished".into() };
                self.agenda.push(seen, Happening::Event { place: end.other.0, life: end.other.1, event });
            }
        }
        self.summary.outcomes.push((at, Outcome::Gone));
        if let Some(after) = back {
            self.agenda.push(self.now + after, Happening::Start(at));
        }
    }

    pub(super) fn cut(&mut self, pairs: &[(u16, u16)]) {
        for pair in pairs {
            *self.cuts.entry(*pair).or_default() += 1;
        }
    }

    pub(super) fn heal(&mut self, pairs: &[(u16, u16)], heals: Heals) {
        self.note(None, || format!("heals {pairs:?}: {heals:?}"));
        for pair in pairs {
            match self.cuts.get_mut(pair) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.cuts.remove(pair);
                }
            }
        }
        for (from, to) in pairs.iter().copied().filter(|(from, to)| !self.cuts.contains_key(&(*from, *to))).collect::<Vec<_>>() {
            if heals == Heals::Broken {
                for link in self.links_between(from, to) {
                    self.break_link(from, link, "the line was cut for too long");
                }
            }
            self.release_held(from, to, heals);
        }
    }

    pub(super) fn release_held(&mut self, from: u16, to: u16, heals: Heals) {
        let Some(life) = self.life(from) else { return };
        let ends = life.ends.iter_mut().filter(|(_, end)| end.other.0 == to && !end.held.is_empty());
        let held: Vec<(LinkId, bool, VecDeque<Item>)> = ends.map(|(link, end)| (*link, end.open, std::mem::take(&mut end.held))).collect();
        for (link, is_open, items) in held {
            if heals == Heals::Lossy && is_open {
                continue;
            }
            // A closing that was held back goes out though the end is closed here.
            let set_open = |churn: &mut Churn, open| {
                if let Some(end) = churn.life(from).and_then(|life| life.ends.get_mut(&link)) {
                    end.open = open;
                }
            };
            set_open(self, true);
            for item in items {
                self.carry(from, link, item);
            }
            set_open(self, is_open);
        }
    }
}
