//! Faults as they strike: whom, and what becomes of them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::LifeId;
use super::faults::{Fault, Part};
use super::{Checked, Churn, Fuse, Happening, LOOK_EVERY, Place, RESUME_LOOKS};
use crate::membership::{Event, Wish};

impl Churn<'_> {
    /// The newest epoch's members and the places where they live; none for those who live no more.
    pub(super) fn members(&self) -> Vec<Option<u16>> {
        let Some(plan) = self.checker.newest() else { return Vec::new() };
        let place_of = |identity: &str| {
            let is_in = |place: &Place| {
                let epoch = place.alive().and_then(|life| life.node.plan()).map(|plan| plan.epoch);
                place.identity == identity && epoch == Some(plan.epoch)
            };
            (0u16..).zip(&self.places).find(|(_, place)| is_in(place)).map(|(at, _)| at)
        };
        plan.roster.iter().map(|member| place_of(&member.identity)).collect()
    }

    pub(super) fn is_well(&self, place: u16) -> bool {
        self.places[usize::from(place)].is_healthy() && !self.cuts.keys().any(|(from, to)| *from == place || *to == place)
    }

    /// Whether a quorum of the newest epoch is left without those places, whichever epoch may follow with them in it.
    pub(super) fn may_lose(&self, victims: &BTreeSet<u16>) -> bool {
        let members = self.members();
        if members.is_empty() || victims.len() > self.covered {
            return false;
        }
        let well = |place: &&Option<u16>| place.is_some_and(|place| self.is_well(place) && !victims.contains(&place));
        let left = members.iter().filter(well).count();
        let strangers = victims.iter().filter(|victim| !members.contains(&Some(**victim))).count();
        let coordinator_stays = members.first().is_some_and(|first| well(&first));
        let all = members.len() + strangers;
        left * 2 > all || (left * 2 == all && coordinator_stays)
    }

    /// Draws victims, fewer than wanted where no more may be lost; empty where none may.
    pub(super) fn victims(&mut self, count: u16) -> Vec<u16> {
        let mut candidates: Vec<u16> = self.living().filter(|place| self.is_well(*place)).collect();
        self.random.shuffle(&mut candidates);
        let mut victims = BTreeSet::new();
        for candidate in candidates {
            if victims.len() == usize::from(count) {
                break;
            }
            victims.insert(candidate);
            if self.scenario.survives && !self.may_lose(&victims) {
                victims.remove(&candidate);
            }
        }
        victims.into_iter().collect()
    }

    pub(super) fn touch(&mut self, victims: &[u16]) {
        self.covered = 0;
        self.steady = false;
        self.progress_at = self.now;
        self.calm_since = self.now;
        self.summary.losses += victims.len() as u64;
        for victim in victims {
            if let Some(life) = self.life(*victim) {
                life.touched = true;
            }
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Checked {
        let count = match fault {
            Fault::Crash { count, .. } | Fault::Freeze { count, .. } | Fault::Split { count, .. } => count,
            _ => 1,
        };
        if let Fault::Disturb { lasts } = fault {
            self.note(None, || format!("{fault:?}"));
            self.disturbed_until = self.now + lasts;
            return Ok(());
        }
        if let Fault::Pause { lasts } = fault {
            self.note(None, || format!("{fault:?}"));
            let wisher = self.wish(None, Wish::Pause(true))?;
            self.agenda.push(self.now + lasts, Happening::Resume { wisher, has_wished: false, looks: RESUME_LOOKS });
            return Ok(());
        }
        let victims = self.victims(count);
        if victims.is_empty() {
            // Later, unless all is over by then.
            if self.now < Duration::from_secs(60) && self.living().next().is_some() {
                self.agenda.push(self.now + LOOK_EVERY * 3, Happening::Fault(fault));
            }
            return Ok(());
        }
        self.note(None, || format!("{fault:?}: places {victims:?}"));
        self.touch(&victims);
        for victim in &victims {
            let Some(id) = self.life(*victim).map(|life| life.id) else { continue };
            self.strike(fault, *victim, id)?;
        }
        if let Fault::Split { lasts, heals, .. } = fault {
            let others: Vec<u16> = (0..self.places.len() as u16).filter(|place| !victims.contains(place)).collect();
            let apart = victims.iter().flat_map(|victim| others.iter().flat_map(move |other| [(*victim, *other), (*other, *victim)]));
            let pairs: Vec<(u16, u16)> = apart.collect();
            self.cut(&pairs);
            self.agenda.push(self.now + lasts, Happening::Heal { cut: pairs, heals });
        }
        Ok(())
    }

    /// This one, or else anybody, wishes for something; who did.
    pub(super) fn wish(&mut self, wisher: Option<(u16, LifeId)>, wish: Wish) -> Checked<Option<(u16, LifeId)>> {
        // Somebody who can be a member: an onlooker's wish is nobody's.
        let takes_part = |at: &u16| matches!(self.places[usize::from(*at)].config.part, Part::Host | Part::Joiner);
        let all: Vec<u16> = self.living().filter(takes_part).collect();
        let anybody = self.random.choice(all).and_then(|at| Some((at, self.life(at)?.id)));
        let wisher = wisher.or(anybody);
        if let Some((at, id)) = wisher {
            self.event(at, id, Event::Wish(wish))?;
        }
        Ok(wisher)
    }

    /// What a fault does to one place.
    pub(super) fn strike(&mut self, fault: Fault, at: u16, life: LifeId) -> Checked {
        let now = self.now;
        match fault {
            Fault::Crash { steps: 0, silent, back, .. } => self.crash(at, silent, back),
            Fault::Crash { steps, silent, back, .. } => {
                let fuse = Fuse { burns: self.random.bool(), events: self.random.u32(0..steps), outputs: self.random.usize(0..12), silent, back };
                // A quiet peer goes all the same.
                self.agenda.push(now + Duration::from_secs(2), Happening::Crash { place: at, life, silent, back });
                if let Some(life) = self.life(at) {
                    life.fuse = Some(fuse);
                }
            }
            Fault::Freeze { lasts, .. } => {
                if let Some(life) = self.life(at) {
                    life.frozen = true;
                }
                self.agenda.push(now + lasts, Happening::Wake { place: at, life });
            }
            Fault::Stall { lasts } => {
                if let Some(life) = self.life(at) {
                    life.stalled = true;
                }
                match lasts {
                    Some(lasts) => self.agenda.push(now + lasts, Happening::Unstall { place: at, life }),
                    // Somebody ends the process at last.
                    None => self.agenda.push(now + Duration::from_secs(40), Happening::Crash { place: at, life, silent: false, back: None }),
                }
            }
            Fault::Slow { factor, lasts } => {
                self.places[usize::from(at)].slowness *= factor;
                self.agenda.push(now + lasts, Happening::Quicken { place: at, factor });
            }
            Fault::OneWay { lasts, heals } => {
                if let Some(other) = self.somebody_else(at) {
                    self.cut(&[(at, other)]);
                    self.agenda.push(now + lasts, Happening::Heal { cut: vec![(at, other)], heals });
                }
            }
            Fault::Break => {
                if let Some(other) = self.somebody_else(at) {
                    for link in self.links_between(at, other) {
                        self.break_link(at, link, "the line broke");
                    }
                }
            }
            Fault::Narrow { bytes_per_s, lasts } => {
                self.places[usize::from(at)].link_bytes_per_s = bytes_per_s;
                self.agenda.push(now + lasts, Happening::Widen { place: at });
            }
            Fault::Leave { back } => {
                if let Some(after) = back {
                    self.agenda.push(now + after, Happening::Start(at));
                }
                return self.event(at, life, Event::Leave);
            }
            Fault::Stop => return self.event(at, life, Event::Stop { text: "the device is lost".into() }),
            Fault::Split { .. } | Fault::Disturb { .. } | Fault::Pause { .. } => {}
        }
        Ok(())
    }

    /// Somebody alive beside one: the fault between them may cost either.
    pub(super) fn somebody_else(&mut self, at: u16) -> Option<u16> {
        let others: Vec<u16> = self.living().filter(|other| *other != at).collect();
        let other = self.random.choice(others)?;
        if let Some(life) = self.life(other) {
            life.touched = true;
        }
        Some(other)
    }
}
