//! The cpu executor: WGSL where there is no GPU driver at all.
//!
//! ```text
//! bundle ─ program ─ lower ─► ir::Kernel ─┬─ emit ─► machine code ─┐
//!                                         └─► interpreter ────────┤
//!          layout ─► spans of one memory of words ────────────────┴─► CpuRun: dispatches shared out to the crew
//! ```
//!
//! [`Cpu`] is a crew of threads and every kernel compiled so far; [`CpuRun`] is one program resident on it. In a browser, dispatches take turns
//! with the network (`turns`).
//! Dispatches, reductions and exchanges are those of the gpu executor, word for word. Invariants: whatever
//! the kernel, it reaches only the words of its own run; the number of threads changes no bit of a
//! deterministic kernel.

pub mod builder;
#[cfg(target_arch = "wasm32")]
mod clock;
mod compiler;
mod copies;
mod crew;
pub mod emit;
mod engine;
pub mod inspect;
pub mod interpreter;
pub mod ir;
pub mod lower;
pub mod machine;
mod math;
mod memory;
pub mod ops;
mod print;
mod prune;
#[cfg(test)]
mod reference;
mod run;
pub mod shape;
mod sink;
#[cfg(target_arch = "wasm32")]
mod turns;
mod watch;
pub mod words;

pub use run::CpuRun;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::bundle::VerifiedBundle;
use crate::diagnose::ErrorKind;
use crate::executor::limits::{self, Limits};
use crate::executor::{Borders, ExecutorError, ExecutorInfo, Layout, Placement};
use crate::program::Program;

use crew::Crew;
use inspect::Finding;

use compiler::{Compiled, Compiler, Kernels, Mode, Source};
use engine::Dispatch;
use watch::Watch;

/// The most memory of a run, in bytes: what 32 bits address, less what is added to an address.
pub const MEMORY_BYTES_MAX: u64 = (4 << 30) - (64 << 10);
/// How long a dispatch may take, unless told otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How long loading waits for the machine code of a kernel, unless told otherwise: with what comes before, and what begins
/// instead, a kernel is ready in 10 ms.
pub const COMPILE_WAIT: Duration = Duration::from_millis(3);

/// What the cpu executor takes of one kernel: what every GPU takes, and more where that costs nothing.
const LIMITS: Limits = Limits {
    invocations: lower::INVOCATIONS_MAX,
    workgroup: [1024, 1024, 1024],
    workgroup_bytes: lower::WORKGROUP_WORDS_MAX * 4,
    storage_buffers: 64,
    bindings: 1000,
    uniform_bytes: 64 << 10,
    has_subgroups: true,
};

/// How the cpu executor is opened and used.
#[derive(Clone, Debug, Default)]
pub struct CpuOptions {
    /// Threads that run a dispatch; by default as many as the machine runs at once.
    pub threads: Option<usize>,
    /// The most memory of one run, in bytes, if less than [`MEMORY_BYTES_MAX`].
    pub memory_bytes_max: Option<u64>,
    /// How long one dispatch may take before it is stopped and its run ends; by default [`TIME_LIMIT`].
    pub time_limit: Option<Duration>,
    /// A page limit in bytes: what a browser's GPU would give, or a test wants.
    pub page_bytes_max: Option<u64>,
    /// How borders are told from interiors; by default apart.
    pub borders: Option<Borders>,
    /// How long loading waits for the machine code of a kernel, times the kernels that a thread has to compile; by default
    /// [`COMPILE_WAIT`]. What takes longer begins interpreted, with the same results, and goes on as machine code. In a browser, loading waits
    /// for the first of the two codes that the browser makes.
    pub compile_wait: Option<Duration>,
    /// Whether kernels are interpreted even where they could be machine code.
    pub is_interpreted: bool,
    /// Whether kernels are watched: slow, on one thread, and [`Cpu::findings`] tells of races and of indices beyond
    /// their arrays.
    pub is_inspected: bool,
}

/// The threads of this machine, as an executor.
pub struct Cpu {
    shared: Arc<Shared>,
    options: CpuOptions,
    compiler: Compiler,
    kernels: Kernels,
}

/// What runs share: it lives as long as any of them.
struct Shared {
    info: ExecutorInfo,
    crew: Crew<Dispatch>,
    watch: Watch,
    time_limit: Duration,
}

impl Shared {
    fn refused(&self, entry: &str, cause: String) -> ExecutorError {
        ExecutorError::Kernel { adapter: self.info.named(), entry: entry.to_string(), cause }
    }
}

impl Cpu {
    /// Starts the threads.
    ///
    /// **Errors:** the system gives none.
    pub fn open(options: CpuOptions) -> Result<Cpu, ExecutorError> {
        let threads = if options.is_inspected { 1 } else { options.threads.unwrap_or_else(threads_here).max(1) };
        let mode = match options {
            CpuOptions { is_inspected: true, .. } => Mode::Inspected,
            CpuOptions { is_interpreted: true, .. } => Mode::Interpreted,
            _ => Mode::Fastest,
        };
        let threads = if cfg!(target_arch = "wasm32") && mode != Mode::Fastest { 1 } else { threads.min(threads_max()) };
        let compiler = Compiler::new(mode, threads, options.compile_wait.unwrap_or(COMPILE_WAIT));
        let info = info(threads, compiler.name());
        let no_thread = |cause: std::io::Error| ExecutorError::NoDevice { adapter: info.named(), cause: cause.to_string() };
        let crew = Crew::new(threads).map_err(no_thread)?;
        let watch = Watch::new().map_err(no_thread)?;
        let time_limit = options.time_limit.unwrap_or(TIME_LIMIT);
        Ok(Cpu { shared: Arc::new(Shared { info, crew, watch, time_limit }), options, compiler, kernels: Kernels::default() })
    }

    /// What this is.
    pub fn info(&self) -> &ExecutorInfo {
        &self.shared.info
    }

    /// What kernels were found to do and should not, in the order of their lines; only where they are watched.
    pub fn findings(&self) -> Vec<Finding> {
        self.compiler.findings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The largest page of an arena, in bytes.
    pub fn page_bytes_max(&self) -> u64 {
        self.options.page_bytes_max.unwrap_or(u64::MAX).min(self.memory_bytes_max()) / 4 * 4
    }

    /// Makes a verified workload resident: memory for the tiles that `placement` gives this peer, and kernels.
    ///
    /// **Errors:** a limit (named), no memory, a kernel that fails the checks, or one that the cpu executor does not cover.
    pub async fn load(&self, bundle: &VerifiedBundle, placement: &Placement) -> Result<CpuRun, ExecutorError> {
        let program = self.checked(bundle)?;
        let layout = self.layout(program, placement)?;
        CpuRun::new(self, program.clone(), layout, None)
    }

    /// The same in place of a run, which is gone then: its memory is used again where it is large enough.
    ///
    /// **Errors:** those of [`Cpu::load`].
    pub async fn reload(&self, run: CpuRun, bundle: &VerifiedBundle, placement: &Placement) -> Result<CpuRun, ExecutorError> {
        let program = self.checked(bundle)?;
        let layout = self.layout(program, placement)?;
        CpuRun::new(self, program.clone(), layout, run.into_words())
    }

    /// A bundle's program, if its kernels pass the checks here and fit.
    fn checked<'b>(&self, bundle: &'b VerifiedBundle) -> Result<&'b Program, ExecutorError> {
        bundle.check_kernels().map_err(Box::new)?;
        let program = bundle.program();
        self.check_limits(program).map_err(|kind| ExecutorError::limit(program, self.info(), kind))?;
        Ok(program)
    }

    /// Where a program's tiles would lie, without making them resident.
    ///
    /// **Errors:** they do not fit a page.
    pub fn layout(&self, program: &Program, placement: &Placement) -> Result<Layout, ExecutorError> {
        Layout::new(program, placement, self.page_bytes_max()).map_err(|cause| ExecutorError::layout(program, self.info(), cause))
    }

    /// Holds a program against the limits.
    ///
    /// **Errors:** [`ErrorKind::Limit`] with what is needed and the limit's name.
    pub fn check_limits(&self, program: &Program) -> Result<(), ErrorKind> {
        LIMITS.check(program)
    }

    /// Waits for the machine code of every kernel that it keeps.
    pub fn finish_compiling(&self) {
        self.kernels.wait();
    }

    /// The entry points of kernels that are interpreted now: until their machine code is there, or for good. In no order, each as often as it was
    /// compiled.
    pub fn interpreted(&self) -> Vec<String> {
        self.kernels.interpreted()
    }

    fn memory_bytes_max(&self) -> u64 {
        self.options.memory_bytes_max.unwrap_or(MEMORY_BYTES_MAX).min(MEMORY_BYTES_MAX)
    }

    fn check_memory(&self, program: &Program, bytes: u64) -> Result<(), ExecutorError> {
        limits::check(|| "bytes of memory".into(), bytes, "memory_bytes_max", self.memory_bytes_max())
            .map_err(|kind| ExecutorError::limit(program, self.info(), kind))
    }

    fn no_memory(&self, bytes: u64) -> ExecutorError {
        ExecutorError::Memory { adapter: self.info().named(), bytes, cause: "the system gave none".into() }
    }

    fn borders(&self) -> Borders {
        self.options.borders.unwrap_or(Borders::Apart)
    }

    fn compiled(&self, sources: &[Source<'_>]) -> Result<Vec<Arc<Compiled>>, ExecutorError> {
        let kernels = self.kernels.get(sources, &self.compiler, self.shared.crew.threads());
        kernels.map_err(|(number, error)| self.shared.refused(sources[number].entry, error.to_string()))
    }
}

/// The most threads of a crew.
const THREADS_MAX: usize = 1024;

/// Threads that there can be: in a browser, those of the team.
fn threads_max() -> usize {
    if cfg!(target_arch = "wasm32") { threads_here() } else { THREADS_MAX }
}

/// Whether both back halves find the wide instructions that they use.
fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[cfg(not(target_arch = "wasm32"))]
fn threads_here() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(target_arch = "wasm32")]
use machine::team::threads_here;

fn info(threads: usize, backend: &str) -> ExecutorInfo {
    let adapter = format!("{threads} thread{}{}", if threads == 1 { "" } else { "s" }, if has_avx2() { ", AVX2" } else { "" });
    ExecutorInfo { executor: "cpu", adapter, backend: backend.into(), is_software: true }
}
