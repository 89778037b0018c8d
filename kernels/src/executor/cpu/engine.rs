//! Kernels in runs, and the running of one dispatch.
//!
//! ```text
//! Compiled ─► Seated: in one run, with a seat for every thread
//! Seated + words + spans + workgroups ─► Dispatch ─► the crew's threads
//! ```
//!
//! A kernel that begins interpreted goes on as machine code at any moment after that has come, thread by thread.
//!
//! Invariants: whatever the back half, a kernel reaches only the words of its spans; a dispatch that is like one
//! before allocates nothing, once its machine code is there.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::compiler::{BackHalf, Compiled};
use super::crew::Work;
use super::interpreter::{Interpreter, Scratch};
#[cfg(target_arch = "wasm32")]
use super::machine::Code;
use super::machine::Thread;
#[cfg(target_arch = "wasm32")]
use super::machine::team::Published;
use super::watch::Watched;
use super::words::{Span, Words};

/// What one thread of one run needs to run a kernel.
struct Seat {
    /// Where machine code finds what is the thread's.
    places: Places,
    with: With,
}

/// What a seat runs its kernel with.
#[allow(clippy::large_enum_variant, reason = "one for each kernel and thread of a run")]
enum With {
    Interpreter(Scratch),
    Code(Thread),
    Inspector,
}

/// Between two looks for machine code, one in so many of the workgroups that are left of a share is done.
const PIECES: u64 = 64;

/// Where seats lie in a run's words, behind everything else.
///
/// ```text
/// first: stop word | a scratch for each thread | for each kernel and thread: its own words
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeatPlan {
    first: u64,
    scratch_words: u64,
    threads: u64,
    /// Words with everything.
    pub(crate) words: u64,
}

/// Words of a cache line.
const LINE_WORDS: u64 = 16;

impl SeatPlan {
    /// Plans the seats of a run's kernels from the word `first` on, a multiple of 16.
    ///
    /// Machine code reads up to three words past a binding or its scratch, for nothing: a line lies behind the bindings, and each
    /// thread's own words behind the scratch.
    pub(crate) fn new(kernels: &[Arc<Compiled>], threads: usize, first: u64) -> SeatPlan {
        let threads = threads as u64;
        let inner = || kernels.iter().map(|kernel| kernel.inner_words());
        let scratch_words = inner().map(|[_, scratch]| scratch).max().unwrap_or(0);
        let own_words = inner().map(|[own, _]| own).sum::<u64>();
        SeatPlan { first, scratch_words, threads, words: first + LINE_WORDS + threads * (scratch_words + own_words) }
    }

    /// The word that stops the run's dispatch when it is not 0.
    pub(crate) fn stop_word(&self) -> usize {
        self.first as usize
    }

    /// Seats every kernel, in their order, in the run's words.
    ///
    /// **Errors:** the number of a kernel that has no machine code for them, and why.
    pub(crate) fn seat(&self, kernels: Vec<Arc<Compiled>>, words: &Words) -> Result<Vec<Arc<Seated>>, (usize, String)> {
        let mut own = self.first + LINE_WORDS + self.threads * self.scratch_words;
        let mut seated = Vec::with_capacity(kernels.len());
        for (number, kernel) in kernels.into_iter().enumerate() {
            let mut seats = Vec::new();
            for thread in 0..self.threads {
                let scratch = self.first + LINE_WORDS + thread * self.scratch_words;
                let places = [own, scratch, self.first].map(|word| word as usize);
                seats.push(kernel.seat(words, places).map_err(|cause| (number, cause))?);
                own += kernel.inner_words()[0];
            }
            seated.push(Arc::new(Seated { kernel, number, seats: Mutex::new(seats) }));
        }
        #[cfg(target_arch = "wasm32")]
        self.share(&seated, words);
        Ok(seated)
    }
}

/// A kernel in one run.
pub(crate) struct Seated {
    pub(crate) kernel: Arc<Compiled>,
    /// Its number among those of the run.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "threads share kernels; workers are told which"))]
    number: usize,
    /// Those that no thread sits on.
    seats: Mutex<Vec<Seat>>,
}

/// The first of a thread's own words and of its scratch, and the stop word.
type Places = [usize; 3];

#[cfg(target_arch = "wasm32")]
impl SeatPlan {
    /// Gives the seats but the first of each kernel to the workers.
    fn share(&self, seated: &[Arc<Seated>], words: &Words) {
        let Some(apart) = words.apart() else { return };
        let modules: Vec<_> = seated
            .iter()
            .map(|seated| match &seated.kernel.back_half {
                BackHalf::Compiled(arrival, _) => arrival.code()?.ok().map(Code::module),
                _ => None,
            })
            .collect();
        let mut places = Vec::new();
        for thread in 1..self.threads as usize {
            for seated in seated {
                let mut seats = seated.seats.lock().unwrap_or_else(PoisonError::into_inner);
                places.push(match &seats[thread].with {
                    With::Code(thread) => thread.place(words),
                    _ => 0,
                });
                if thread + 1 == self.threads as usize {
                    seats.truncate(1);
                }
            }
        }
        apart.share(&modules, &places);
    }
}

#[cfg(target_arch = "wasm32")]
impl Dispatch {
    /// Whether it may be done in pieces: what is interpreted on words that lie apart would be copied for each.
    pub(crate) fn has_turns(&self) -> bool {
        let Some((seated, words, _)) = &self.what else { return false };
        words.apart().is_none() || seated.is_machine_code()
    }

    /// Wakes the team of workers for it, which takes the workgroups in chunks; nothing if there is none, or it has too many.
    pub(crate) fn published(&self, parts: u64) -> Option<Published> {
        let (seated, words, _) = self.what.as_ref()?;
        words.apart()?.publish(seated.number, words, (&self.spans, self.groups, parts), self.time_limit)
    }
}

impl Compiled {
    /// What a thread needs that finds its own at these places.
    fn seat(&self, words: &Words, places: Places) -> Result<Seat, String> {
        let with = match &self.back_half {
            BackHalf::Inspected(_) => With::Inspector,
            BackHalf::Compiled(arrival, interpreter) => match (arrival.code(), interpreter) {
                (Some(Ok(code)), _) => With::Code(code.thread(&arrival.machine, words, places).map_err(|error| error.to_string())?),
                (_, Some(interpreter)) => interpreted(interpreter, words)?,
                (_, None) => unreachable!("whoever has no machine code is interpreted"),
            },
            BackHalf::Interpreted(interpreter) => interpreted(interpreter, words)?,
        };
        Ok(Seat { places, with })
    }

    /// Whether a seat that is interpreted may have machine code later.
    fn is_waiting(&self, seat: &Seat) -> bool {
        matches!((&seat.with, &self.back_half), (With::Interpreter(_), BackHalf::Compiled(arrival, _)) if arrival.code().is_none())
    }

    /// What goes on in place of a seat that was interpreted, once there is machine code. What the compiler refused, or has no place for, is
    /// interpreted to the end.
    fn seat_with_code(&self, seat: &Seat, words: &Words) -> Option<Seat> {
        let (With::Interpreter(_), BackHalf::Compiled(arrival, _)) = (&seat.with, &self.back_half) else { return None };
        let is_there = matches!(arrival.code(), Some(Ok(_)));
        is_there.then(|| self.seat(words, seat.places).ok()).flatten()
    }
}

fn interpreted(interpreter: &Interpreter, words: &Words) -> Result<With, String> {
    if !words.prepare_interpreter() {
        return Err("there is no memory to interpret it in".into());
    }
    Ok(With::Interpreter(interpreter.scratch()))
}

impl Seated {
    /// Whether no thread interprets it.
    #[cfg(any(target_arch = "wasm32", all(test, feature = "jit")))]
    pub(crate) fn is_machine_code(&self) -> bool {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|seat| matches!(seat.with, With::Code(_)))
    }

    /// Runs the workgroups that `next` gives; whether nothing stopped them.
    fn run(&self, words: &Words, dispatch: &Dispatch, watched: &Watched, next: &mut dyn FnMut() -> Option<Range<u64>>) -> bool {
        let seats = || self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = seats().pop();
        let Some(mut seat) = seat else { unreachable!("there is a seat for every thread") };
        let run = |seat: &mut Seat, range| match (&mut seat.with, &self.kernel.back_half) {
            (With::Interpreter(scratch), BackHalf::Interpreted(interpreter) | BackHalf::Compiled(_, Some(interpreter))) => {
                let spans = &dispatch.spans;
                words.addressed(spans, |words| interpreter.run(scratch, words, spans, dispatch.groups, range, watched.stop())).is_ok()
            }
            (With::Code(thread), _) => match thread.run(words, &dispatch.spans, dispatch.groups, range) {
                Ok(()) => true,
                Err(super::machine::Interrupted::Stopped) => false,
                Err(super::machine::Interrupted::Trapped(cause)) => panic!("`{}` trapped: {cause}", self.kernel.entry),
            },
            (With::Inspector, BackHalf::Inspected(inspector)) => inspector.run(words, &dispatch.spans, dispatch.groups, range, watched.stop()),
            _ => unreachable!("a seat is its kernel's"),
        };
        let mut is_done = true;
        while let Some(mut rest) = next().filter(|_| is_done) {
            while is_done && !rest.is_empty() {
                if let Some(with_code) = self.kernel.seat_with_code(&seat, words) {
                    seat = with_code;
                }
                let count = rest.end - rest.start;
                let end = rest.start + if self.kernel.is_waiting(&seat) { (count / PIECES).max(1) } else { count };
                is_done = run(&mut seat, rest.start..end);
                rest.start = end;
            }
        }
        seats().push(seat);
        is_done
    }
}

/// One dispatch: a kernel over a number of workgroups. Made once by a run, and set anew for each.
#[derive(Default)]
pub(crate) struct Dispatch {
    /// What runs, and where; nothing between dispatches.
    pub(crate) what: Option<(Arc<Seated>, Arc<Words>, Arc<Watched>)>,
    /// The spans of the kernel's bindings, in their order.
    pub(crate) spans: Vec<Span>,
    /// Workgroups.
    pub(crate) groups: [u32; 3],
    /// How long it may take.
    pub(crate) time_limit: Duration,
}

impl Work for Dispatch {
    fn assign(&mut self, other: &Self) {
        self.what.clone_from(&other.what);
        self.spans.clone_from(&other.spans);
        (self.groups, self.time_limit) = (other.groups, other.time_limit);
    }

    fn clear(&mut self) {
        self.what = None;
    }

    fn begin(&self) {
        if let Some((_, _, watched)) = &self.what {
            watched.begin(self.time_limit);
        }
    }

    fn run(&self, next: &mut dyn FnMut() -> Option<Range<u64>>) -> bool {
        let Some((kernel, words, watched)) = &self.what else { return true };
        kernel.run(words, self, watched, next)
    }
}
