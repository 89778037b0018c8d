//! What is to happen on virtual time: by time, then by order of making, so that nothing depends on a hash.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Things to come.
pub(super) struct Agenda<T> {
    entries: BinaryHeap<Entry<T>>,
    made: u64,
}

struct Entry<T> {
    at: Duration,
    number: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Agenda<T> {
        Agenda { entries: BinaryHeap::new(), made: 0 }
    }

    pub(super) fn push(&mut self, at: Duration, what: T) {
        self.made += 1;
        self.entries.push(Entry { at, number: self.made, what });
    }

    pub(super) fn pop(&mut self) -> Option<(Duration, T)> {
        self.entries.pop().map(|entry| (entry.at, entry.what))
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the largest: a heap gives the largest first.
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// A time between two, evenly.
pub(super) fn between(random: &mut fastrand::Rng, (from, to): (Duration, Duration)) -> Duration {
    let spread = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
    from + Duration::from_nanos(random.u64(0..=spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_order_of_making() {
        let mut agenda = Agenda::new();
        for (ms, what) in [(3, 'd'), (1, 'a'), (2, 'c'), (1, 'b'), (3, 'e')] {
            agenda.push(Duration::from_millis(ms), what);
        }
        let order: String = std::iter::from_fn(|| agenda.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcde");
    }
}
