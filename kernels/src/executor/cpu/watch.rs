//! Ends a dispatch that outlasts its limit, without a clock.
//!
//! A kernel always ends at last, but a loop that a user wrote may take days. One thread counts coarse
//! ticks ([`TICK`]) while any run is in a dispatch and sleeps otherwise; a run whose ticks are used up
//! finds its flag set at the next check of the back half. In a browser's worker there is no such thread: the
//! back half looks at the clock itself. Invariants: a dispatch is never stopped early, and one run's limit
//! stops that run alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::words::Words;

/// How coarsely time is counted.
const TICK: Duration = Duration::from_millis(20);
/// Ticks without any dispatch before the thread goes to sleep.
const IDLE_TICKS: u32 = 50;

/// The thread that counts.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// One run's place with the watch.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    ticks_left: Mutex<u64>,
    stop: AtomicBool,
    /// The same flag as a word, for code that sees nothing but the run's memory.
    stop_word: Option<(Arc<Words>, usize)>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    is_asleep: AtomicBool,
}

#[derive(Default)]
struct State {
    runs: Vec<Weak<Watched>>,
    is_over: bool,
}

impl Watch {
    /// Starts the thread.
    ///
    /// **Errors:** the system gives no thread.
    pub(crate) fn new() -> std::io::Result<Watch> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new(), is_asleep: AtomicBool::new(false) });
        let counting = shared.clone();
        let thread = if cfg!(target_arch = "wasm32") {
            None
        } else {
            Some(std::thread::Builder::new().name("cpu watch".into()).spawn(move || counting.count())?)
        };
        Ok(Watch { shared, thread })
    }

    /// A place for a run; `stop_word` is where its memory says that it has to end.
    pub(crate) fn place(&self, stop_word: Option<(Arc<Words>, usize)>) -> Arc<Watched> {
        let watched = Arc::new(Watched { shared: self.shared.clone(), ticks_left: Mutex::new(0), stop: AtomicBool::new(false), stop_word });
        let mut state = locked(&self.shared.state);
        state.runs.retain(|run| run.strong_count() > 0);
        state.runs.push(Arc::downgrade(&watched));
        watched
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        locked(&self.shared.state).is_over = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell: a panic of its own was printed already.
            let _ = thread.join();
        }
    }
}

impl Watched {
    /// A dispatch begins that may take `limit`.
    pub(crate) fn begin(&self, limit: Duration) {
        #[cfg(target_arch = "wasm32")]
        super::clock::begin(limit);
        {
            let mut left = locked(&self.ticks_left);
            self.set_stop(false);
            // The tick under way counts for nothing.
            *left = (limit.as_nanos().div_ceil(TICK.as_nanos()) as u64).saturating_add(1);
        }
        if self.shared.is_asleep.load(Ordering::SeqCst) {
            let _state = locked(&self.shared.state);
            self.shared.is_asleep.store(false, Ordering::SeqCst);
            self.shared.wake.notify_all();
        }
    }

    /// The dispatch is over.
    pub(crate) fn end(&self) {
        *locked(&self.ticks_left) = 0;
    }

    /// Set when the dispatch has to end.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    fn set_stop(&self, stop: bool) {
        self.stop.store(stop, Ordering::Relaxed);
        if let Some((words, at)) = &self.stop_word {
            words.set(*at, stop.into());
        }
    }

    /// One tick; whether a dispatch is under way.
    fn tick(&self) -> bool {
        let mut left = locked(&self.ticks_left);
        if *left == 0 {
            return false;
        }
        *left -= 1;
        if *left == 0 {
            self.set_stop(true);
        }
        true
    }
}

impl Shared {
    fn count(&self) {
        let mut idle = 0;
        let mut state = locked(&self.state);
        while !state.is_over {
            state = self.wake.wait_timeout_while(state, TICK, |state| !state.is_over).map_or_else(|e| e.into_inner().0, |(state, _)| state);
            let active = state.runs.iter().filter_map(Weak::upgrade).filter(|run| run.tick()).count();
            idle = if active > 0 { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS {
                state = self.sleep(state);
                idle = 0;
            }
        }
    }

    /// Waits for a dispatch. Whoever begins one either is seen here or sees that this thread sleeps.
    fn sleep<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.is_asleep.store(true, Ordering::SeqCst);
        let is_idle = state.runs.iter().filter_map(Weak::upgrade).all(|run| *locked(&run.ticks_left) == 0);
        if !is_idle {
            self.is_asleep.store(false, Ordering::SeqCst);
            return state;
        }
        let asleep = |state: &mut State| !state.is_over && self.is_asleep.load(Ordering::SeqCst);
        self.wake.wait_while(state, asleep).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock whose holders cannot leave anything half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(stop: &AtomicBool) {
        // Ended by the watch, or by the runner of the tests.
        while !stop.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_the_run_that_outlasts_its_limit_is_stopped() {
        let watch = Watch::new().unwrap();
        let (slow, patient, idle) = (watch.place(None), watch.place(None), watch.place(None));
        slow.begin(Duration::from_millis(1));
        patient.begin(Duration::from_secs(3600));
        wait_for(slow.stop());
        assert!(!patient.stop().load(Ordering::Relaxed) && !idle.stop().load(Ordering::Relaxed));
    }

    #[test]
    fn a_dispatch_that_ended_is_not_stopped_later() {
        let watch = Watch::new().unwrap();
        let (ended, probe) = (watch.place(None), watch.place(None));
        ended.begin(Duration::from_millis(1));
        ended.end();
        probe.begin(Duration::from_millis(50));
        wait_for(probe.stop());
        assert!(!ended.stop().load(Ordering::Relaxed));
        // Stopped once, it begins anew.
        probe.begin(Duration::from_secs(3600));
        assert!(!probe.stop().load(Ordering::Relaxed));
    }

    #[test]
    fn a_sleeping_watch_wakes_for_a_dispatch() {
        let watch = Watch::new().unwrap();
        let run = watch.place(None);
        wait_for(&watch.shared.is_asleep);
        run.begin(Duration::from_millis(1));
        wait_for(run.stop());
    }
}
