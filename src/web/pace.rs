//! How many ticks go into one batch: enough that the device never waits for this worker, few enough that it is never far behind.
//!
//! What is queued on a GPU is what everything else on it waits for, a page's own drawing too; so a batch is measured in time, and
//! a few of them are under way. Invariant: between 1 and [`TICKS_MAX`] ticks.

use std::time::Duration;

use peercompute_net::runtime::Instant;

/// Ticks of a batch, at most: more gain nothing.
const TICKS_MAX: u64 = 256;
/// A batch that took less is followed by a larger one.
const SHORT: Duration = Duration::from_millis(8);
/// A batch that took more is followed by a smaller one.
const LONG: Duration = Duration::from_millis(32);

/// A workload's pace, kept from one call to the next.
pub(super) struct Pace {
    ticks: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { ticks: 1 }
    }
}

impl Pace {
    /// Ticks of the next batch.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// A batch is begun.
    #[allow(clippy::disallowed_methods, reason = "only how work is cut into batches depends on it, and no result")]
    pub(super) fn begin(&self) -> Instant {
        Instant::now()
    }

    /// It was handed over, and the one that had to be done before it is done.
    pub(super) fn end(&mut self, begun: Instant) {
        let took = begun.elapsed();
        if took < SHORT {
            self.ticks = (self.ticks * 2).min(TICKS_MAX);
        } else if took > LONG {
            self.ticks = (self.ticks / 2).max(1);
        }
    }
}
