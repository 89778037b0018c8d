//! Kernels made ready to run.
//!
//! ```text
//! (wgsl, entry, constants) ─ lower ─► ir::Kernel ─┬─ draft ─► compilers' threads ─► machine code ─┐
//!                                                 └─► interpreter, where that is not there yet ──┴─► Compiled
//! ```
//!
//! Kernels are kept by the hash of what they are made from. Loading waits for machine code only so long
//! ([`Compiler::wait`]): what takes longer begins interpreted, and its runs go on with machine code when that
//! has come. Nothing but time tells the two apart.
//!
//! Invariant: what runs a kernel is one of the [`BackHalf`]s; everything else, here and above, is the same for all of them.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::inspect::{Findings, Inspector};
use super::interpreter::Interpreter;
use super::ir::{Binding, Kernel};
use super::lower::{LowerError, Parsed};
use super::machine::{Code, Draft, Machine, MachineError, Needs};
use super::words::Words;
use crate::source;

/// Kernels kept for loading a workload again.
const KERNELS_MAX: usize = 512;

/// What runs a kernel.
#[allow(clippy::large_enum_variant, reason = "one for each kernel, behind an Arc")]
pub(super) enum BackHalf {
    /// Whole workgroups in lockstep, on every machine.
    Interpreted(Interpreter),
    /// Four lanes at a time, as machine code; interpreted until that is there, if it was not when the kernel had to be ready.
    Compiled(Arc<Arrival>, Option<Interpreter>),
    /// Step by step, watched.
    Inspected(Inspector),
}

/// Machine code, perhaps still on its way.
pub(super) struct Arrival {
    pub(super) machine: Arc<Machine>,
    pub(super) needs: Needs,
    code: OnceLock<Result<Code, MachineError>>,
}

impl Arrival {
    /// The code, once it is there.
    ///
    /// **Errors:** there will be none.
    pub(super) fn code(&self) -> Option<Result<&Code, &MachineError>> {
        self.code.get().map(Result::as_ref)
    }
}

/// What one of the compiler's threads does next.
struct Job {
    draft: Draft,
    arrival: Arc<Arrival>,
    /// Gone with the last job of those that were asked for together.
    _asked: flume::Sender<()>,
}

impl Job {
    /// Compiles, unless the executor and its runs are gone.
    fn run(self) {
        if Arc::strong_count(&self.arrival) == 1 {
            return;
        }
        // Whoever waits must hear of it.
        let compile = AssertUnwindSafe(|| self.arrival.machine.compile(self.draft));
        let code = std::panic::catch_unwind(compile).unwrap_or_else(|_| Err(MachineError("the compiler panicked".into())));
        let is_first = self.arrival.code.set(code).is_ok();
        debug_assert!(is_first, "there is one job for each arrival");
    }
}

/// Jobs, and how many threads there are for them.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    workers: usize,
}

/// Does what jobs there are, one after the other.
fn work(queue: &Mutex<Queue>) {
    loop {
        let job = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let job = queue.jobs.pop_front();
            queue.workers -= usize::from(job.is_none());
            job
        };
        match job {
            Some(job) => job.run(),
            None => return,
        }
    }
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
pub(crate) struct Compiler {
    machine: Option<Arc<Machine>>,
    is_inspecting: bool,
    /// How long a kernel may keep loading waiting for its machine code.
    wait: Duration,
    queue: Arc<Mutex<Queue>>,
    /// What was found, of kernels that are watched.
    pub(crate) findings: Findings,
}

impl Compiler {
    /// The compiler of this machine, for `threads`; without one for it, kernels are interpreted.
    pub(crate) fn new(mode: Mode, threads: usize, wait: Duration) -> Compiler {
        Compiler {
            machine: if mode == Mode::Fastest { Machine::new(threads).ok().map(Arc::new) } else { None },
            is_inspecting: mode == Mode::Inspected,
            wait,
            queue: Arc::default(),
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

    /// Compiles, the short ones first, on at most so many threads, which end when nothing is left. What comes back has no sender any more when all
    /// is done.
    fn start(&self, mut drafts: Vec<(Draft, Arc<Arrival>)>, threads: usize) -> flume::Receiver<()> {
        let (asked, over) = flume::bounded(1);
        drafts.sort_by_key(|(draft, _)| draft.byte_count());
        let missing = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.jobs.extend(drafts.into_iter().map(|(draft, arrival)| Job { draft, arrival, _asked: asked.clone() }));
            let missing = threads.min(queue.jobs.len()).saturating_sub(queue.workers);
            queue.workers += missing;
            missing
        };
        for _ in 0..missing {
            let queue = self.queue.clone();
            on_own_thread(move || work(&queue));
        }
        over
    }
}

/// Work on a thread of its own, or here and now where there is none to be had. A browser has none like this: its own compiler takes
/// two steps, of which only the first is waited for.
fn on_own_thread(work: impl FnOnce() + Clone + Send + 'static) {
    #[cfg(not(target_arch = "wasm32"))]
    if std::thread::Builder::new().name("cpu compiler".into()).stack_size(source::STACK_BYTES).spawn(work.clone()).is_ok() {
        return;
    }
    work();
}

/// A kernel on its way.
struct Lowered {
    kernel: Kernel,
    draft: Option<Draft>,
}

impl Lowered {
    /// Lowers a kernel, and writes it down for the compiler. What the emitter has no module for is the interpreter's: a barrier
    /// that it cannot prove all to reach together, and code beyond the limits of engines.
    ///
    /// **Errors:** WGSL that the cpu executor does not cover.
    fn new(source: &Source<'_>, parsed: &Parsed<'_>, compiler: &Compiler) -> Result<Lowered, LowerError> {
        let lower = if compiler.is_inspecting { Parsed::literal_kernel } else { Parsed::kernel };
        let kernel = lower(parsed, source.entry, source.constants)?;
        let draft = compiler.machine.as_ref().and_then(|machine| machine.draft(&kernel).ok());
        Ok(Lowered { kernel, draft })
    }
}

/// A kernel, ready to run.
pub(crate) struct Compiled {
    /// The entry point.
    pub(crate) entry: String,
    /// What it binds, in the order in which a dispatch names the spans.
    pub(crate) bindings: Vec<Binding>,
    /// Invocations of a workgroup.
    pub(crate) invocations: u32,
    pub(super) back_half: BackHalf,
}

impl Compiled {
    /// Makes a kernel ready, with the machine code that is there. What the compiler refuses is the interpreter's for good.
    fn new(source: &Source<'_>, compiler: &Compiler, lowered: Lowered, arrival: Option<Arc<Arrival>>) -> Compiled {
        let kernel = lowered.kernel;
        let (bindings, invocations) = (kernel.bindings.clone(), kernel.invocations());
        // Asked once: it may come at any moment.
        let is_good = arrival.as_ref().map(|arrival| arrival.code().map(|code| code.is_ok()));
        let back_half = match (arrival, is_good) {
            _ if compiler.is_inspecting => BackHalf::Inspected(Inspector::new(kernel, source.wgsl, compiler.findings.clone())),
            (Some(arrival), Some(Some(true))) => BackHalf::Compiled(arrival, None),
            (Some(arrival), Some(None)) => BackHalf::Compiled(arrival, Some(Interpreter::new(&kernel))),
            _ => BackHalf::Interpreted(Interpreter::new(&kernel)),
        };
        Compiled { entry: source.entry.to_string(), bindings, invocations, back_half }
    }

    /// Whether it is interpreted now.
    fn is_interpreted(&self) -> bool {
        match &self.back_half {
            BackHalf::Interpreted(_) => true,
            BackHalf::Compiled(arrival, _) => !matches!(arrival.code(), Some(Ok(_))),
            BackHalf::Inspected(_) => false,
        }
    }

    /// Words that each thread of a run needs for it, beside the run's.
    pub(crate) fn seat_words(&self) -> u64 {
        match &self.back_half {
            BackHalf::Compiled(arrival, _) if matches!(arrival.code(), Some(Ok(_))) => 0,
            BackHalf::Interpreted(interpreter) | BackHalf::Compiled(_, Some(interpreter)) => interpreter.scratch_words(),
            BackHalf::Compiled(_, None) | BackHalf::Inspected(_) => 0,
        }
    }

    /// Waits for machine code that is on its way.
    pub(crate) fn wait(&self) {
        if let BackHalf::Compiled(arrival, _) = &self.back_half {
            arrival.code.wait();
        }
    }

    /// Words of the run's that each of its threads needs for this kernel alone, and while it runs this kernel.
    pub(super) fn inner_words(&self) -> [u64; 2] {
        match &self.back_half {
            BackHalf::Interpreted(_) | BackHalf::Inspected(_) => [0, 0],
            BackHalf::Compiled(arrival, _) => [arrival.needs.own_words() as u64, arrival.needs.scratch_words() as u64],
        }
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
    /// Waits for machine code that is on its way.
    pub(crate) fn wait(&self) {
        // Others may load meanwhile.
        let known: Vec<_> = self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        known.iter().for_each(|kernel| kernel.wait());
    }

    /// The entry points of those that are interpreted now, in no order.
    pub(crate) fn interpreted(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|kernel| kernel.is_interpreted()).map(|kernel| kernel.entry.clone()).collect()
    }

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

/// Compiles the sources numbered `wanted`, in their order, and waits for machine code no longer than the compiler may.
fn compile(sources: &[Source<'_>], wanted: &[usize], compiler: &Compiler, threads: usize) -> Vec<Result<Compiled, LowerError>> {
    let threads = if cfg!(target_arch = "wasm32") { 1 } else { threads.min(wanted.len()).max(1) };
    let mut lowered = lower(sources, wanted, compiler, threads);
    let mut drafts = Vec::new();
    let mut arrival_of = |lowered: &mut Lowered| {
        let (machine, draft) = (compiler.machine.clone()?, lowered.draft.take()?);
        let arrival = Arc::new(Arrival { machine, needs: draft.needs().clone(), code: OnceLock::new() });
        drafts.push((draft, arrival.clone()));
        Some(arrival)
    };
    let arrivals: Vec<_> = lowered.iter_mut().map(|lowered| lowered.as_mut().ok().and_then(&mut arrival_of)).collect();
    let wait = compiler.wait.checked_mul(drafts.len().div_ceil(threads) as u32);
    let over = compiler.start(drafts, threads);
    match wait {
        // Where there are no threads, all is over now.
        _ if cfg!(target_arch = "wasm32") => {}
        Some(wait) => drop(over.recv_timeout(wait)),
        None => drop(over.recv()),
    }
    let made = lowered.into_iter().zip(arrivals).zip(wanted);
    made.map(|((lowered, arrival), &at)| Ok(Compiled::new(&sources[at], compiler, lowered?, arrival))).collect()
}

/// Lowers the sources numbered `wanted`, in their order.
fn lower(sources: &[Source<'_>], wanted: &[usize], compiler: &Compiler, threads: usize) -> Vec<Result<Lowered, LowerError>> {
    // Most kernels of a workload stand in one text.
    let parsed: HashMap<&str, OnceLock<Result<Parsed<'_>, LowerError>>> = wanted.iter().map(|&at| (sources[at].wgsl, OnceLock::new())).collect();
    let one = |at: usize| {
        source::on_deep_stack(|| {
            let source = &sources[at];
            let parsed = parsed[source.wgsl].get_or_init(|| Parsed::new(source.wgsl));
            Lowered::new(source, parsed.as_ref().map_err(Clone::clone)?, compiler)
        })
    };
    if threads == 1 {
        return wanted.iter().map(|&at| one(at)).collect();
    }
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<(usize, Result<Lowered, LowerError>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&at) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let lowered = one(at);
                    made.lock().unwrap_or_else(PoisonError::into_inner).push((at, lowered));
                }
            });
        }
    });
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, lowered)| lowered).collect()
}
