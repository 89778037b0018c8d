//! Kernels made ready to run, and the running of one dispatch.
//!
//! ```text
//! (wgsl, entry, constants) ─ lower ─► ir::Kernel ─► back half ─► Compiled    kept by the hash of the three
//! Compiled ─► Seated: in one run, with a seat for every thread
//! Seated + words + spans + workgroups ─► Dispatch ─► the crew's threads
//! ```
//!
//! What runs a kernel is a [`BackHalf`]; everything else here, and above, is the same for all of them.
//! Invariants: whatever the back half, a kernel reaches only the words of its spans; a dispatch that is
//! like one before allocates nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::crew::Work;
use super::inspect::{Findings, Inspector};
use super::interpreter::{self, Interpreter};
use super::ir::Binding;
use super::lower::{self, LowerError};
use super::machine::{Code, Machine, Thread};
use super::watch::Watched;
use super::words::{Span, Words};
use crate::source;

/// Kernels kept for loading a workload again.
const KERNELS_MAX: usize = 512;

/// What runs a kernel.
#[allow(clippy::large_enum_variant, reason = "one for each kernel, behind an Arc")]
enum BackHalf {
    /// Whole workgroups in lockstep, on every machine.
    Interpreted(Interpreter),
    /// Four lanes at a time, as machine code.
    Compiled(Code),
    /// Step by step, watched.
    Inspected(Inspector),
}

/// What one thread of one run needs to run a kernel.
#[allow(clippy::large_enum_variant, reason = "one for each kernel and thread of a run")]
enum Seat {
    Interpreted(interpreter::Scratch),
    Compiled(Thread),
    Inspected,
}

/// What becomes of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Machine code where there is a compiler, otherwise interpreted.
    Fastest,
    /// Interpreted.
    Interpreted,
    /// Interpreted slowly, watched for races and for indices beyond their arrays.
    Inspected,
}

/// What compiles kernels, as the mode says.
#[derive(Default)]
pub(crate) struct Compiler {
    machine: Option<Machine>,
    is_inspecting: bool,
    /// What was found, of kernels that are watched.
    pub(crate) findings: Findings,
}

impl Compiler {
    /// The compiler of this machine, for `threads`; without one for it, kernels are interpreted.
    pub(crate) fn new(mode: Mode, threads: usize) -> Compiler {
        Compiler {
            machine: if mode == Mode::Fastest { Machine::new(threads).ok() } else { None },
            is_inspecting: mode == Mode::Inspected,
            findings: Findings::default(),
        }
    }

    /// What it is, for people.
    pub(crate) fn name(&self) -> &'static str {
        if self.machine.is_some() {
            return Machine::NAME;
        }
        if self.is_inspecting { "inspector" } else { "interpreter" }
    }

    /// Words that the kernels it makes can run on; nothing if there is no memory for them.
    pub(crate) fn words(&self, words: usize) -> Option<Words> {
        if let Some(machine) = &self.machine {
            return machine.words(words);
        }
        Words::new(words)
    }

    /// What the emitter has no module for is the interpreter's: a barrier that it cannot prove all to reach together, and
    /// code beyond the limits of engines.
    fn back_half(&self, kernel: &super::ir::Kernel) -> Result<BackHalf, LowerError> {
        if let Some(machine) = &self.machine {
            match machine.compile(kernel) {
                Ok(code) => return Ok(BackHalf::Compiled(code)),
                Err(super::machine::MachineError::Emit(_)) => {}
                Err(error) => return Err(LowerError::Invalid { cause: error.to_string() }),
            }
        }
        Ok(BackHalf::Interpreted(Interpreter::new(kernel)))
    }
}

/// A kernel, ready to run.
pub(crate) struct Compiled {
    /// The entry point.
    pub(crate) entry: String,
    /// What it binds, in the order in which a [`Dispatch`] names the spans.
    pub(crate) bindings: Vec<Binding>,
    /// Invocations of a workgroup.
    pub(crate) invocations: u32,
    back_half: BackHalf,
}

impl Compiled {
    /// Lowers and compiles a kernel.
    ///
    /// **Errors:** WGSL that the cpu executor does not cover.
    fn new(source: &Source<'_>, compiler: &Compiler) -> Result<Compiled, LowerError> {
        let lower = if compiler.is_inspecting { lower::literal_kernel_from_wgsl } else { lower::kernel_from_wgsl };
        let kernel = lower(source.wgsl, source.entry, source.constants)?;
        Ok(Compiled {
            entry: source.entry.to_string(),
            bindings: kernel.bindings.clone(),
            invocations: kernel.invocations(),
            back_half: if compiler.is_inspecting {
                BackHalf::Inspected(Inspector::new(kernel, source.wgsl, compiler.findings.clone()))
            } else {
                compiler.back_half(&kernel)?
            },
        })
    }

    /// Words that each thread of a run needs for it, beside the run's.
    pub(crate) fn seat_words(&self) -> u64 {
        match &self.back_half {
            BackHalf::Interpreted(interpreter) => interpreter.scratch_words(),
            BackHalf::Compiled(_) => 0,
            BackHalf::Inspected(_) => 0,
        }
    }

    /// Words of the run's that each of its threads needs for this kernel alone, and while it runs this kernel.
    fn inner_words(&self) -> [u64; 2] {
        match &self.back_half {
            BackHalf::Interpreted(_) | BackHalf::Inspected(_) => [0, 0],
            BackHalf::Compiled(code) => [code.own_words() as u64, code.scratch_words() as u64],
        }
    }
}

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
    pub(crate) fn seat(&self, kernels: Vec<Arc<Compiled>>, compiler: &Compiler, words: &Words) -> Result<Vec<Arc<Seated>>, (usize, String)> {
        let mut own = self.first + LINE_WORDS + self.threads * self.scratch_words;
        let mut seated = Vec::with_capacity(kernels.len());
        for (number, kernel) in kernels.into_iter().enumerate() {
            let mut seats = Vec::new();
            for thread in 0..self.threads {
                let scratch = self.first + LINE_WORDS + thread * self.scratch_words;
                seats.push(kernel.seat(compiler, words, [own, scratch, self.first].map(|word| word as usize)).map_err(|cause| (number, cause))?);
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

#[cfg(target_arch = "wasm32")]
impl SeatPlan {
    /// Gives the seats but the first of each kernel to the workers.
    fn share(&self, seated: &[Arc<Seated>], words: &Words) {
        let Some(apart) = words.apart() else { return };
        let modules: Vec<_> = seated
            .iter()
            .map(|seated| match &seated.kernel.back_half {
                BackHalf::Compiled(code) => Some(code.module()),
                _ => None,
            })
            .collect();
        let mut places = Vec::new();
        for thread in 1..self.threads as usize {
            for seated in seated {
                let mut seats = seated.seats.lock().unwrap_or_else(PoisonError::into_inner);
                places.push(match &seats[thread] {
                    Seat::Compiled(thread) => thread.place(words),
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
    /// Runs it on the team of workers; whether nothing stopped it, or nothing if it is for this worker alone.
    pub(crate) fn in_team(&self, parts: u64, is_small: bool) -> Option<bool> {
        let (seated, words, watched) = self.what.as_ref().filter(|_| parts > 1 && !is_small)?;
        let apart = words.apart()?;
        let mut seats = seated.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Seat::Compiled(thread)) = seats.first_mut() else { return None };
        watched.begin(self.time_limit);
        let outcome = apart.dispatch(seated.number, thread, words, (&self.spans, self.groups, parts), self.time_limit)?;
        Some(match outcome {
            Ok(()) => true,
            Err(super::machine::Interrupted::Stopped) => false,
            Err(super::machine::Interrupted::Trapped(cause)) => panic!("`{}` trapped: {cause}", seated.kernel.entry),
        })
    }
}

impl Compiled {
    /// What a thread needs: its own words, its scratch and the stop word are at these places.
    fn seat(&self, compiler: &Compiler, words: &Words, places: [usize; 3]) -> Result<Seat, String> {
        match &self.back_half {
            BackHalf::Interpreted(_) if !words.prepare_interpreter() => Err("there is no memory to interpret it in".into()),
            BackHalf::Interpreted(interpreter) => Ok(Seat::Interpreted(interpreter.scratch())),
            BackHalf::Inspected(_) => Ok(Seat::Inspected),
            BackHalf::Compiled(code) => match &compiler.machine {
                Some(machine) => code.thread(machine, words, places).map(Seat::Compiled).map_err(|error| error.to_string()),
                None => Err("its compiler is gone".into()),
            },
        }
    }
}

impl Seated {
    /// Runs the workgroups that `next` gives; whether nothing stopped them.
    fn run(&self, words: &Words, dispatch: &Dispatch, watched: &Watched, next: &mut dyn FnMut() -> Option<Range<u64>>) -> bool {
        let seats = || self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = seats().pop();
        let Some(mut seat) = seat else { unreachable!("there is a seat for every thread") };
        let mut run = |range| match (&self.kernel.back_half, &mut seat) {
            (BackHalf::Interpreted(interpreter), Seat::Interpreted(scratch)) => {
                let spans = &dispatch.spans;
                words.addressed(spans, |words| interpreter.run(scratch, words, spans, dispatch.groups, range, watched.stop())).is_ok()
            }
            (BackHalf::Compiled(_), Seat::Compiled(thread)) => match thread.run(words, &dispatch.spans, dispatch.groups, range) {
                Ok(()) => true,
                Err(super::machine::Interrupted::Stopped) => false,
                Err(super::machine::Interrupted::Trapped(cause)) => panic!("`{}` trapped: {cause}", self.kernel.entry),
            },
            (BackHalf::Inspected(inspector), _) => inspector.run(words, &dispatch.spans, dispatch.groups, range, watched.stop()),
            _ => unreachable!("a seat is its kernel's"),
        };
        let mut is_done = true;
        while let Some(range) = next().filter(|_| is_done) {
            is_done = run(range);
        }
        seats().push(seat);
        is_done
    }
}

/// What a kernel is compiled from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) wgsl: &'a str,
    pub(crate) entry: &'a str,
    /// The values of overrides.
    pub(crate) constants: &'a [(&'a str, f64)],
}

impl Source<'_> {
    fn key(&self) -> [u8; 32] {
        let mut key = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            key.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        part(self.entry.as_bytes());
        part(self.wgsl.as_bytes());
        for (name, value) in self.constants {
            part(name.as_bytes());
            part(&value.to_bits().to_le_bytes());
        }
        *key.finalize().as_bytes()
    }
}

/// Every kernel compiled so far.
#[derive(Default)]
pub(crate) struct Kernels {
    known: Mutex<HashMap<[u8; 32], Arc<Compiled>>>,
}

impl Kernels {
    /// The kernels of `sources`, in their order; those not known yet are compiled by `threads` threads.
    ///
    /// **Errors:** the first source that is not covered, with its number.
    pub(crate) fn get(&self, sources: &[Source<'_>], compiler: &Compiler, threads: usize) -> Result<Vec<Arc<Compiled>>, (usize, LowerError)> {
        let keys: Vec<[u8; 32]> = sources.iter().map(Source::key).collect();
        let found: Vec<Option<Arc<Compiled>>> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().map(|key| known.get(key).cloned()).collect()
        };
        let missing: Vec<usize> = (0..keys.len()).filter(|&at| found[at].is_none() && !keys[..at].contains(&keys[at])).collect();
        let made = compile(sources, &missing, compiler, threads);
        let mut fresh = HashMap::new();
        for (at, kernel) in missing.into_iter().zip(made) {
            fresh.insert(keys[at], Arc::new(kernel.map_err(|error| (at, error))?));
        }
        let kernels = keys.iter().zip(found).filter_map(|(key, found)| found.or_else(|| fresh.get(key).cloned())).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + fresh.len() > KERNELS_MAX {
            known.clear();
        }
        known.extend(fresh);
        Ok(kernels)
    }
}

/// Compiles the sources numbered `wanted`, in their order.
fn compile(sources: &[Source<'_>], wanted: &[usize], compiler: &Compiler, threads: usize) -> Vec<Result<Compiled, LowerError>> {
    let threads = if cfg!(target_arch = "wasm32") { 1 } else { threads.min(wanted.len()) };
    if threads <= 1 {
        return wanted.iter().map(|&at| source::on_deep_stack(|| Compiled::new(&sources[at], compiler))).collect();
    }
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<(usize, Result<Compiled, LowerError>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&at) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let kernel = source::on_deep_stack(|| Compiled::new(&sources[at], compiler));
                    made.lock().unwrap_or_else(PoisonError::into_inner).push((at, kernel));
                }
            });
        }
    });
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, kernel)| kernel).collect()
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
