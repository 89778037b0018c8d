//! Tiles that follow speed while nobody comes or goes: when the coordinator looks for a better division, and when it moves for one.
//!
//! ```text
//!  every 1.5 s ─► everybody is measured? ─► balance::improve, under Rules ─► Lasting ─► a plan ─► a pause, longer after every move
//!                                              └── wandering speeds: a larger gain
//! ```
//!
//! Invariant: speeds that wander for ever cost a bounded number of moves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Member;
use super::balance::{self, Rules, Speed};
use super::plan::EpochPlan;
use crate::ownership::PeerIndex;

/// Between two moves of tiles while nobody comes or goes, at first; twice as long after every move.
const BALANCE_EVERY: Duration = Duration::from_millis(1500);
/// … and at most. After as long without a move it is the first again.
const BALANCE_EVERY_MAX: Duration = Duration::from_secs(60);
/// In this time after the first of some moves the others find the best division: ten seconds after what made it move, which takes
/// a while to be sure of. Later ones, until it has been calm for as long as above, answer to speeds that wander …
const SETTLES: Duration = Duration::from_millis(6500);
/// … and must bring the tick forward by this fraction.
const WANDERING_GAIN_MIN: f64 = 0.2;
/// A gain of a third of the tick must have been there for so long, one of a tenth for eight times as long; of half, for no time.
const SMALL_GAIN_WAITS: Duration = Duration::from_secs(2);
/// The same while the best division is being found: what the first move got wrong is put right in that time.
const SMALL_GAIN_WAITS_SETTLING: Duration = Duration::from_millis(500);
/// … and the same after that, until it has been calm.
const SMALL_GAIN_WAITS_WANDERING: Duration = Duration::from_secs(8);

/// Since when, look for look, there has been a move that pays: what is small may be gone again soon, and costs little until then.
#[derive(Debug, Default)]
struct Lasting(Option<Duration>);

impl Lasting {
    /// Whether to move for this fraction of the tick, if there is one to be gained. Where one of a third has to last for `wait`.
    fn is_due(&mut self, gain: Option<f64>, wait: Duration, now: Duration) -> bool {
        let Some(gain) = gain else {
            self.0 = None;
            return false;
        };
        let since = *self.0.get_or_insert(now);
        since + wait.mul_f64((1.0 / gain - 2.0).max(0.0)) <= now
    }
}

/// When tiles moved, and when they may again.
#[derive(Debug, Default)]
pub(super) struct Rebalance {
    looked_at: Duration,
    /// When tiles last moved, and how long they stay after that.
    moved_at: Duration,
    pause: Duration,
    /// When they first moved since it was calm.
    settling_at: Duration,
    lasting: Lasting,
}

impl Rebalance {
    /// An epoch begins.
    pub(super) fn begin(&mut self, now: Duration) {
        self.looked_at = now;
        self.lasting = Lasting::default();
    }

    fn is_paused(&self, now: Duration) -> bool {
        self.looked_at + BALANCE_EVERY > now || self.moved_at + self.pause > now
    }

    /// Whether no tile has moved for long.
    fn is_calm(&self, now: Duration) -> bool {
        self.moved_at == Duration::ZERO || self.moved_at + BALANCE_EVERY_MAX <= now
    }

    /// Whether tiles began to move a moment ago.
    fn is_settling(&self, now: Duration) -> bool {
        !self.is_calm(now) && now < self.settling_at + SETTLES
    }

    /// What a move has to bring.
    fn rules(&self, now: Duration) -> Rules {
        let mut rules = Rules::default();
        if !self.is_calm(now) && !self.is_settling(now) {
            rules.gain_min = rules.gain_min.max(WANDERING_GAIN_MIN);
        }
        rules
    }

    /// Whether to move now, for this fraction of the tick.
    fn is_due(&mut self, gain: Option<f64>, now: Duration) -> bool {
        let wait = match (self.is_calm(now), self.is_settling(now)) {
            (true, _) => SMALL_GAIN_WAITS,
            (_, true) => SMALL_GAIN_WAITS_SETTLING,
            _ => SMALL_GAIN_WAITS_WANDERING,
        };
        self.lasting.is_due(gain, wait, now)
    }

    fn moved(&mut self, now: Duration) {
        if self.is_calm(now) {
            (self.settling_at, self.pause) = (now, BALANCE_EVERY);
        } else {
            self.pause = (self.pause * 2).clamp(BALANCE_EVERY, BALANCE_EVERY_MAX);
        }
        self.moved_at = now;
    }
}

impl Member {
    /// A successor in which tiles follow measured speed, where that pays for itself.
    pub(super) fn balanced(&mut self, plan: &EpochPlan, tick: u64) -> Option<EpochPlan> {
        let now = self.now;
        if !self.config.tuning.balance || self.lead.rebalance.is_paused(now) || plan.roster.len() < 2 {
            return None;
        }
        self.lead.rebalance.looked_at = now;
        // Not on the word of a few: everybody that owns something must have been measured in this epoch, and before.
        let owns = |at: u16| plan.owned(PeerIndex(at)).next().is_some();
        let is_measured = |at: u16| {
            let speed = self.lead.speeds.get(&self.lead.roster[usize::from(at)]);
            self.lead.progress[usize::from(at)].measured.0 > plan.tick && speed.is_some_and(Speed::is_known)
        };
        if !(0..plan.roster.len() as u16).all(|at| !owns(at) || is_measured(at)) {
            return None;
        }
        for speed in self.lead.speeds.values_mut() {
            speed.settle();
        }
        let loads = self.lead.loads(&plan.roster);
        let better = balance::improve(&self.config.parts, &plan.owners, &loads, &self.lead.rebalance.rules(now));
        let gain = better.as_ref().map(|better| 1.0 - better.tick_s_after / better.tick_s_before);
        let better = better.filter(|_| self.lead.rebalance.is_due(gain, now))?;
        self.lead.rebalance.moved(now);
        Some(self.planned_with(plan, tick, plan.roster.clone(), &BTreeSet::new(), better.owners))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_gain_has_to_last() {
        let at = Duration::from_secs;
        let mut lasting = Lasting::default();
        assert!(lasting.is_due(Some(0.6), SMALL_GAIN_WAITS, at(1)), "half of the tick and more waits for nothing");
        let mut lasting = Lasting::default();
        assert!(!lasting.is_due(Some(0.125), SMALL_GAIN_WAITS, at(1)) && !lasting.is_due(Some(0.125), SMALL_GAIN_WAITS, at(12)));
        assert!(!lasting.is_due(None, SMALL_GAIN_WAITS, at(12)), "it is gone");
        assert!(
            !lasting.is_due(Some(0.125), SMALL_GAIN_WAITS, at(13))
                && !lasting.is_due(Some(0.125), SMALL_GAIN_WAITS, at(24))
                && lasting.is_due(Some(0.125), SMALL_GAIN_WAITS, at(25))
        );
        assert!(
            !lasting.is_due(Some(0.1), SMALL_GAIN_WAITS, at(28)) && lasting.is_due(Some(0.1), SMALL_GAIN_WAITS, at(29)),
            "the smaller, the longer"
        );
    }
    #[test]
    fn each_move_is_farther_from_the_one_before_until_it_has_been_calm() {
        let at = Duration::from_millis;
        let (mut rebalance, mut now, mut moves) = (Rebalance::default(), at(1500), Vec::new());
        rebalance.begin(Duration::ZERO);
        while now <= at(60_000) {
            if !rebalance.is_paused(now) {
                moves.push(now.as_millis());
                rebalance.moved(now);
                rebalance.begin(now);
            }
            now += at(500);
        }
        assert_eq!(moves, [1500, 3000, 6000, 12_000, 24_000, 48_000], "speeds that wander cost a bounded number of moves");
        assert_eq!(rebalance.rules(at(48_000)).gain_min, WANDERING_GAIN_MIN);
        assert_eq!(rebalance.rules(at(108_000)).gain_min, Rules::default().gain_min, "it has been calm");
        rebalance.moved(at(108_000));
        assert!(!rebalance.is_paused(at(109_500)) && rebalance.rules(at(114_000)).gain_min < WANDERING_GAIN_MIN);
    }
    #[test]
    fn what_a_move_got_wrong_is_put_right_soon() {
        let at = Duration::from_millis;
        let mut rebalance = Rebalance::default();
        assert!(!rebalance.is_due(Some(0.125), at(1000)) && !rebalance.is_due(Some(0.125), at(4000)), "it is calm");
        rebalance.moved(at(4000));
        rebalance.begin(at(4000));
        assert!(!rebalance.is_due(Some(0.125), at(5500)) && rebalance.is_due(Some(0.125), at(8500)));
        rebalance.moved(at(8500));
        rebalance.begin(at(8500));
        assert!(!rebalance.is_due(Some(0.25), at(14_000)) && !rebalance.is_due(Some(0.25), at(29_000)), "it has had its time");
        assert!(rebalance.is_due(Some(0.25), at(30_000)) && rebalance.is_due(Some(0.5), at(14_500)), "what is large still counts");
    }
}
