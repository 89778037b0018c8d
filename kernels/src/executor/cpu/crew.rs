//! The threads that share out a dispatch.
//!
//! The caller and its helpers take runs of neighbouring workgroups off one counter until none is left.
//! Workgroups of a dispatch are independent, so who takes which changes nothing. Not a pool of tasks: a
//! dispatch costs each thread two locks and nobody an allocation, where a general pool has to queue it.
//! Invariants: one dispatch runs at a time, and when [`Crew::run`] returns no helper works on it any more.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Runs of workgroups that each thread takes of a dispatch, about: few enough to cost nothing, enough that
/// nobody waits long for the last one.
const CHUNKS_PER_THREAD: u64 = 8;

/// What can be shared out: each thread has a copy.
pub(crate) trait Work: Default + Send + 'static {
    /// Becomes a copy of `other` without allocating, where it was one of its size before.
    fn assign(&mut self, other: &Self);

    /// Lets go of what it refers to.
    fn clear(&mut self);

    /// Told once, when its turn has come.
    fn begin(&self);

    /// Does the parts that `next` gives until it gives none; whether nothing stopped it.
    fn run(&self, next: &mut dyn FnMut() -> Option<Range<u64>>) -> bool;
}

/// Threads that wait for work.
pub(crate) struct Crew<W> {
    threads: usize,
    shared: Arc<Shared<W>>,
    helpers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

struct Shared<W> {
    state: Mutex<State<W>>,
    begin: Condvar,
    end: Condvar,
    /// The first part that nobody has taken.
    next: AtomicU64,
}

struct State<W> {
    work: W,
    parts: u64,
    chunk: u64,
    /// How many pieces of work there were.
    number: u64,
    /// Helpers that are not through with this one.
    busy: usize,
    was_stopped: bool,
    has_panicked: bool,
    is_over: bool,
}

impl<W: Work> Crew<W> {
    /// A crew of `threads`, the caller counted in. In a browser the others are workers, which are not ours to start.
    ///
    /// **Errors:** the system gives no thread.
    pub(crate) fn new(threads: usize) -> std::io::Result<Crew<W>> {
        let state = State { work: W::default(), parts: 0, chunk: 1, number: 0, busy: 0, was_stopped: false, has_panicked: false, is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), begin: Condvar::new(), end: Condvar::new(), next: AtomicU64::new(0) });
        let mut crew = Crew { threads: threads.max(1), shared, helpers: Vec::new(), turn: Mutex::new(()) };
        let helpers = if cfg!(target_arch = "wasm32") { 0 } else { threads.saturating_sub(1) };
        for number in 1..=helpers {
            let shared = crew.shared.clone();
            crew.helpers.push(std::thread::Builder::new().name(format!("cpu {number}")).spawn(move || shared.help())?);
        }
        Ok(crew)
    }

    /// The threads, the caller counted in.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Does all `parts`, alone where sharing is not worth it; whether nothing stopped it.
    pub(crate) fn run(&self, work: &W, parts: u64, is_small: bool) -> bool {
        if parts <= 1 || is_small || self.helpers.is_empty() {
            let mut all = (parts > 0).then_some(0..parts);
            work.begin();
            return work.run(&mut || all.take());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = parts.div_ceil(self.threads() as u64 * CHUNKS_PER_THREAD);
        work.begin();
        self.publish(work, parts, chunk);
        let end = End { shared: &self.shared };
        let was_stopped = !work.run(&mut || self.shared.take(parts, chunk));
        drop(end);
        let state = self.shared.locked();
        state.assert_sound();
        !was_stopped && !state.was_stopped
    }

    fn publish(&self, work: &W, parts: u64, chunk: u64) {
        let mut state = self.shared.locked();
        state.assert_sound();
        state.work.assign(work);
        (state.parts, state.chunk) = (parts, chunk);
        state.number += 1;
        state.busy = self.helpers.len();
        state.was_stopped = false;
        self.shared.next.store(0, Ordering::Relaxed);
        drop(state);
        self.shared.begin.notify_all();
    }
}

impl<W> Drop for Crew<W> {
    fn drop(&mut self) {
        self.shared.locked().is_over = true;
        self.shared.begin.notify_all();
        for helper in self.helpers.drain(..) {
            // A panic of its own was passed on by `run`.
            let _ = helper.join();
        }
    }
}

impl<W> State<W> {
    /// A helper that panicked is gone: nothing may wait for it.
    fn assert_sound(&self) {
        assert!(!self.has_panicked, "a thread of the cpu executor has panicked");
    }
}

impl<W> Shared<W> {
    fn locked(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, parts: u64, chunk: u64) -> Option<Range<u64>> {
        let first = self.next.fetch_add(chunk, Ordering::Relaxed);
        (first < parts).then(|| first..(first + chunk).min(parts))
    }
}

impl<W: Work> Shared<W> {
    fn help(&self) {
        let mut seen = 0;
        let mut work = W::default();
        loop {
            let (parts, chunk) = {
                let state = self.locked();
                let is_waiting = |state: &mut State<W>| state.number == seen && !state.is_over;
                let state = self.begin.wait_while(state, is_waiting).unwrap_or_else(PoisonError::into_inner);
                if state.is_over {
                    return;
                }
                seen = state.number;
                work.assign(&state.work);
                (state.parts, state.chunk)
            };
            let through = Through { shared: self };
            let was_stopped = !work.run(&mut || self.take(parts, chunk));
            work.clear();
            self.locked().was_stopped |= was_stopped;
            drop(through);
        }
    }
}

/// A helper at work: however it ends, the caller hears of it.
struct Through<'a, W> {
    shared: &'a Shared<W>,
}

impl<W> Drop for Through<'_, W> {
    fn drop(&mut self) {
        let mut state = self.shared.locked();
        state.has_panicked |= std::thread::panicking();
        state.busy -= 1;
        if state.busy == 0 {
            self.shared.end.notify_all();
        }
    }
}

/// The caller at work: however that ends, it waits for its helpers.
struct End<'a, W: Work> {
    shared: &'a Shared<W>,
}

impl<W: Work> Drop for End<'_, W> {
    fn drop(&mut self) {
        let mut state = self.shared.end.wait_while(self.shared.locked(), |state| state.busy > 0).unwrap_or_else(PoisonError::into_inner);
        state.work.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Counts how often each part was done.
    #[derive(Default)]
    struct Tally {
        done: Option<Arc<Vec<AtomicU64>>>,
        panics: bool,
        stop: Option<Arc<AtomicBool>>,
    }

    impl Work for Tally {
        fn assign(&mut self, other: &Self) {
            *self = Tally { done: other.done.clone(), panics: other.panics, stop: other.stop.clone() };
        }

        fn clear(&mut self) {
            *self = Tally::default();
        }

        fn begin(&self) {}

        fn run(&self, next: &mut dyn FnMut() -> Option<Range<u64>>) -> bool {
            let Some(done) = &self.done else { return true };
            while let Some(parts) = next() {
                assert!(!self.panics || std::thread::current().name().is_none_or(|name| !name.starts_with("cpu ")), "as asked");
                for part in parts {
                    done[part as usize].fetch_add(1, Ordering::Relaxed);
                }
                if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return false;
                }
            }
            true
        }
    }

    fn tally(parts: u64) -> (Tally, Arc<Vec<AtomicU64>>) {
        let done: Arc<Vec<AtomicU64>> = Arc::new((0..parts).map(|_| AtomicU64::new(0)).collect());
        (Tally { done: Some(done.clone()), ..Tally::default() }, done)
    }

    #[test]
    fn every_part_is_done_once() {
        for threads in [1, 2, 3, 8] {
            let crew = Crew::new(threads).unwrap();
            for parts in [0, 1, 2, 15, 16, 17, 1000, 100_003] {
                let (work, done) = tally(parts);
                assert!(crew.run(&work, parts, false));
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{parts} parts on {threads} threads");
                drop(work);
                assert_eq!(Arc::strong_count(&done), 1, "nobody holds on to work that is done");
            }
        }
    }

    /// A helper that takes a part and finishes it long after the caller has found no more.
    #[derive(Clone, Default)]
    struct Late(Arc<[AtomicBool; 3]>);

    impl Work for Late {
        fn assign(&mut self, other: &Self) {
            self.clone_from(other);
        }

        fn clear(&mut self) {
            *self = Late::default();
        }

        fn begin(&self) {}

        fn run(&self, next: &mut dyn FnMut() -> Option<Range<u64>>) -> bool {
            let [is_taken, is_empty, is_done] = &*self.0;
            let wait_for = |flag: &AtomicBool| (0..).take_while(|_| !flag.load(Ordering::SeqCst)).for_each(|_: u32| std::thread::yield_now());
            if std::thread::current().name() == Some("cpu 1") {
                let taken = next();
                is_taken.store(true, Ordering::SeqCst);
                wait_for(is_empty);
                (0..10_000).for_each(|_| std::thread::yield_now());
                is_done.store(taken.is_some(), Ordering::SeqCst);
            } else {
                wait_for(is_taken);
                while next().is_some() {}
                is_empty.store(true, Ordering::SeqCst);
            }
            true
        }
    }

    #[test]
    fn nobody_is_left_behind() {
        let crew = Crew::new(2).unwrap();
        let work = Late::default();
        assert!(crew.run(&work, 64, false));
        assert!(work.0[2].load(Ordering::SeqCst), "the helper is still at its part");
    }

    #[test]
    fn callers_take_turns() {
        let crew: Crew<Tally> = Crew::new(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let (work, done) = tally(99);
                        assert!(crew.run(&work, 99, false));
                        assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
                    }
                });
            }
        });
    }

    #[test]
    fn whoever_is_stopped_tells() {
        let crew = Crew::new(2).unwrap();
        let (mut work, _) = tally(64);
        let stop = Arc::new(AtomicBool::new(true));
        work.stop = Some(stop.clone());
        assert!(!crew.run(&work, 64, false));
        stop.store(false, Ordering::Relaxed);
        assert!(crew.run(&work, 64, false));
    }

    #[test]
    #[should_panic(expected = "a thread of the cpu executor has panicked")]
    fn a_helpers_panic_is_the_callers() {
        let crew = Crew::new(2).unwrap();
        let (mut work, _) = tally(1 << 20);
        work.panics = true;
        // The helper takes a part of some dispatch at last.
        loop {
            crew.run(&work, 1 << 20, false);
        }
    }
}
