//! Looks at the whole: whether a run that can get on does, and lets in who wants in.

use std::time::Duration;

use super::check::CheckError;
use super::faults::Part;
use super::{Checked, Churn, END_TICKS, Happening, LOOK_EVERY, Place};

/// An epoch is heard of by all its members within this, where nothing is wrong.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// A quorum that can talk gets on within this.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// A joiner becomes a member within this, where nothing is wrong.
const JOIN_MAX: Duration = Duration::from_secs(10);
/// Snapshots that everybody takes before a loss counts as made good.
const SNAPSHOTS_TO_RECOVER: u32 = 3;

impl Churn<'_> {
    /// Looks at the whole: whether it has recovered, whether it gets on, whether all is over.
    pub(super) fn look(&mut self) -> Result<bool, CheckError> {
        let members = self.members();
        let all_well = !members.is_empty() && members.iter().all(|place| place.is_some_and(|place| self.is_well(place)));
        if all_well && !self.steady {
            self.steady = true;
            for life in self.places.iter_mut().filter_map(|place| place.life.as_mut()) {
                life.snapshots = 0;
            }
        }
        self.steady &= all_well;
        let snapshots = |place: &Option<u16>| place.and_then(|at| self.places[usize::from(at)].life.as_ref()).map_or(0, |life| life.snapshots);
        // Of a few members' snapshots there are no more copies than there are others.
        let copies_max = usize::from(self.scenario.replicas).min(members.len().saturating_sub(1));
        if members.iter().any(|place| snapshots(place) > 0) {
            self.covered = self.covered.min(copies_max);
        }
        if self.steady && members.iter().all(|place| snapshots(place) >= SNAPSHOTS_TO_RECOVER) {
            self.covered = copies_max;
        }
        self.look_at_progress(&members)?;
        let to_come = self.places.iter().any(|place| place.lives == 0) && self.living().next().is_some();
        if self.living().next().is_none() && !to_come && self.places.iter().any(|place| place.lives > 0) {
            return Ok(true);
        }
        self.agenda.push(self.now + LOOK_EVERY, Happening::Look);
        Ok(false)
    }

    pub(super) fn look_at_progress(&mut self, members: &[Option<u16>]) -> Checked {
        let progress = self.checker.progress();
        let left = members.iter().filter(|place| place.is_some_and(|place| self.is_well(place))).count();
        let coordinator_is_well = members.first().is_some_and(|place| place.is_some_and(|place| self.is_well(place)));
        let mut has_quorum = left * 2 > members.len() || (left * 2 == members.len() && coordinator_is_well);
        if members.is_empty() {
            let can_assemble = |at: &u16| matches!(self.places[usize::from(*at)].config.part, Part::Host | Part::Joiner) && self.is_well(*at);
            let here = self.living().filter(can_assemble).count();
            has_quorum = here >= usize::from(self.scenario.assemble) && self.places.first().is_some_and(|place| place.lives == 1) && self.is_well(0);
        }
        let is_disturbed = !self.cuts.is_empty() || self.now < self.disturbed_until || self.places.iter().any(|place| place.slowness > 1);
        let is_narrow = self.places.iter().any(|place| place.link_bytes_per_s < self.scenario.link_bytes_per_s);
        if !has_quorum || is_disturbed || is_narrow || self.living().any(|place| !self.is_well(place)) {
            self.calm_since = self.now;
        }
        if progress != self.progress || !has_quorum || is_disturbed || is_narrow {
            self.progress = progress;
            self.progress_at = self.now;
        }
        let newest = self.checker.newest().map_or(0, |plan| plan.epoch);
        if newest != self.newest_at.0 {
            self.newest_at = (newest, self.now);
        }
        self.look_at_joiners()?;
        let quiet = self.now - self.progress_at;
        if quiet > QUIET_MAX {
            let epoch = self.checker.newest().map_or(0, |plan| plan.epoch);
            return Err(CheckError::NoProgress { epoch, tick: progress.0, quiet_ms: quiet.as_millis() as u64 });
        }
        Ok(())
    }

    /// In calm, whoever wants in gets in.
    pub(super) fn look_at_joiners(&self) -> Checked {
        let Some(newest) = self.checker.newest() else { return Ok(()) };
        // Whoever is in hears of an epoch a moment later than the first.
        if self.now < self.newest_at.1 + HEARD_WITHIN {
            return Ok(());
        }
        for life in self.places.iter().filter(|place| place.config.part == Part::Joiner).filter_map(Place::alive) {
            let is_in = life.node.plan().is_some_and(|plan| plan.epoch == newest.epoch);
            let waited = self.now - self.calm_since.max(life.born);
            // At the end nobody is let in any more.
            let is_ending = self.checker.progress().0 + END_TICKS >= newest.end;
            if !is_in && waited > JOIN_MAX && !is_ending {
                return Err(CheckError::NotJoined { life: life.id, waited_ms: waited.as_millis() as u64 });
            }
        }
        Ok(())
    }
}
