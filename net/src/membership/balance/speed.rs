//! What is known of one member's speed, from measurements that jitter.
//!
//! ```text
//! samples  …[ 16 newest ] ─► median, spread (the middle three fifths) ─► changed? only beyond the band and the spread ─► acted on
//! ```
//!
//! On a shared machine samples differ by tens of percents, and an answer to each moves tiles for ever. So a speed counts as
//! changed only when the median has left what the samples themselves scatter over. A real change passes: it fills the window.

use std::collections::VecDeque;

use super::steady_speed;

/// Samples that are remembered.
const WINDOW: usize = 16;
/// Fewer say nothing yet.
const SAMPLES_MIN: usize = 4;
/// A speed counts as unchanged within this fraction, or within the spread of the samples where that is more.
const BAND_MIN: f64 = 0.12;
/// Beyond this fraction, samples from before a change are told from those after it.
const CLEAR_CHANGE: f64 = 0.33;

/// The speed of one member. **Units**: points per second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Speed {
    recent: VecDeque<f64>,
    /// What tiles were last shared out by.
    held: f64,
}

impl Speed {
    /// Takes a measurement; what is no speed is passed over.
    pub fn add(&mut self, sample: f64) {
        if !super::is_usable(sample) {
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
    }

    /// Whether there are enough samples to act on.
    pub fn is_known(&self) -> bool {
        self.recent.len() >= SAMPLES_MIN
    }

    /// The median of the newest samples; `None` before the first.
    pub fn measured(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The speed to act on, after this look at the samples: the one of the look before, unless it has changed.
    pub fn settle(&mut self) -> Option<f64> {
        let median = self.measured()?;
        if self.is_known() {
            let before = self.held;
            self.held = steady_speed(before, median, BAND_MIN.max(self.spread()));
            let has_changed = self.held != before && super::is_usable(before);
            if has_changed && (median / before - 1.0).abs() > CLEAR_CHANGE {
                // Samples nearer to the speed before are from before, and would pull the new one towards it.
                let since = self.recent.iter().copied().filter(|sample| (sample - median).abs() <= (sample - before).abs());
                self.held = quantile(since, 0.5).unwrap_or(median);
            }
        }
        Some(self.acted_on())
    }

    /// The speed of the latest [`settle`](Self::settle), or the median where there was none; 0 without samples.
    pub fn acted_on(&self) -> f64 {
        if super::is_usable(self.held) { self.held } else { self.measured().unwrap_or(0.0) }
    }

    /// The range of the middle three fifths of the samples, as a fraction of the median.
    fn spread(&self) -> f64 {
        match (self.quantile(0.2), self.quantile(0.5), self.quantile(0.8)) {
            (Some(low), Some(median), Some(high)) => (high - low) / median,
            _ => 0.0,
        }
    }

    fn quantile(&self, part: f64) -> Option<f64> {
        quantile(self.recent.iter().copied(), part)
    }
}

fn quantile(samples: impl Iterator<Item = f64>, part: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scatter_is_no_change_and_a_fall_is() {
        let mut random = fastrand::Rng::with_seed(4);
        for scatter in [0.05, 0.2, 0.3] {
            let mut speed = Speed::default();
            (0..WINDOW).for_each(|_| speed.add(100.0 * (1.0 - scatter + 2.0 * scatter * random.f64())));
            let mut held = speed.settle();
            let mut changes = 0;
            for _ in 0..1000 {
                speed.add(100.0 * (1.0 - scatter + 2.0 * scatter * random.f64()));
                changes += usize::from(speed.settle() != held);
                held = speed.settle();
            }
            // Of the median of 16 samples, three deviations are left once in some hundred independent windows.
            assert!(changes <= 3, "{changes} changes at a scatter of {scatter}");
            for looks in 0.. {
                speed.add(25.0 * (1.0 - scatter + 2.0 * scatter * random.f64()));
                if speed.settle() < held.map(|held| held / 2.0) {
                    assert!((WINDOW / 2..WINDOW).contains(&looks), "seen after {looks}");
                    break;
                }
            }
        }
    }

    #[test]
    fn what_was_before_a_change_is_not_in_the_speed_after_it() {
        let mut random = fastrand::Rng::with_seed(9);
        let mut around = |speed: f64| speed * (0.8 + 0.4 * random.f64());
        let after_a_fall = |_| {
            let mut speed = Speed::default();
            (0..WINDOW).for_each(|_| speed.add(around(100.0)));
            let before = speed.settle();
            while speed.settle() == before {
                speed.add(around(25.0));
            }
            speed.acted_on() / 25.0
        };
        let mean = (0..400).map(after_a_fall).sum::<f64>() / 400.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean} of the true speed on average");
    }

    #[test]
    fn one_that_is_hardly_known_or_odd_changes_nothing() {
        let mut speed = Speed::default();
        assert_eq!((speed.settle(), speed.acted_on()), (None, 0.0));
        for odd in [f64::NAN, f64::INFINITY, 0.0, -3.0] {
            speed.add(odd);
        }
        assert_eq!(speed.measured(), None);
        (1..SAMPLES_MIN).for_each(|_| speed.add(8.0));
        assert!(!speed.is_known());
        assert_eq!((speed.settle(), speed.measured()), (Some(8.0), Some(8.0)));
        speed.add(8.0);
        assert!(speed.is_known());
    }
}
