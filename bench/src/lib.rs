//! Measurements: the framework against its hand-written twins, in one run.
//!
//! ```text
//! options ─► run ─► kernels::{copy, heat, nbody, memory, strips}, net::{exchange, moves}, members, executors, browser (page, arrival) ─► Report (JSON, table)
//!                        └── twin: what a good engineer writes without the framework
//! ```
//!
//! Only ratios mean anything: a figure and its twin are timed in turn, on one device, in one process, so that
//! whatever else the machine does hits both. What can be known to the byte (memory, what peers ship) is not
//! timed but held against a prediction, and any difference is a failure.
//! Invariant: no figure without its twin, and a framework that computed something else than the twin is an
//! error, not a figure. The framework is driven as a user's run drives it: `mesh::run`, then `finish`.

pub mod browser;
mod executors;
pub mod kernels;
mod members;
mod net;
mod options;
pub mod page;
mod process;
mod report;
mod rounds;
pub mod twin;

pub use options::{Bench, BenchOptions, Effort};
pub use report::{Adapter, Browser, Failure, Figure, Host, Kind, REPORT_VERSION, Report};

use peercompute_kernels::executor::gpu::{Checks, Gpu, GpuOptions};
use peercompute_kernels::{BundleError, WorkloadError, executor::ExecutorError};
use pollster::block_on;

/// Why a bench came to nothing. The report carries it as a [`Failure`]; the other benches still run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The device failed, or there is none.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// A workload of ours is refused: a bug, or sizes that it cannot have.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A bundle that we have just signed is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The operating system gives no random bytes for a key.
    #[error("no key to sign with: {cause}")]
    Key {
        /// Its word.
        cause: String,
    },
    /// The operating system gives no threads for a twin.
    #[error("no threads for the twins: {cause}")]
    Threads {
        /// Its word.
        cause: String,
    },
    /// The network path or its twin failed.
    #[error("the exchange failed: {cause}")]
    Net {
        /// What happened.
        cause: String,
    },
    /// A run of processes could not be started, or did not go on.
    #[error("the run failed: {cause}")]
    Run {
        /// What happened.
        cause: String,
    },
    /// The browser, or what runs in it.
    #[error(transparent)]
    Browser(#[from] browser::BrowserError),
    /// Framework and twin do not compute the same: no figure can be given.
    #[error("{case}: element {index} is {framework}, the twin has {twin}")]
    Disagree {
        /// What was compared.
        case: String,
        /// The element.
        index: usize,
        /// The framework's value.
        framework: f32,
        /// The twin's.
        twin: f32,
    },
}

/// Runs the benches that the options name. `progress` is told what comes next.
///
/// A bench that fails is a [`Failure`] in the report; without any adapter, that is every bench that needs one.
pub fn run(options: &BenchOptions, progress: &mut dyn FnMut(&str)) -> Report {
    let mut report = Report::new(options);
    let open = |checks| {
        let adapter = options.adapter.clone();
        block_on(Gpu::open(GpuOptions { adapter, checks, ..GpuOptions::default() }))
    };
    let gpu_benches: Vec<Bench> = options.benches().filter(|bench| bench.needs_gpu()).collect();
    if !gpu_benches.is_empty() {
        match open(Checks::Checked) {
            Ok(checked) => {
                report.adapter = Some(Adapter::from(checked.info()));
                let unchecked = if options.effort == Effort::Full { open(Checks::Unchecked).ok() } else { None };
                let gpus = kernels::Gpus { checked: &checked, unchecked: unchecked.as_ref() };
                for bench in gpu_benches {
                    let copy = report.copy_bytes_per_second();
                    report.take(bench, |figures| kernels::run(bench, &gpus, options, copy, figures, progress));
                }
            }
            Err(error) => {
                for bench in gpu_benches {
                    report.failures.push(Failure { bench: bench.name().into(), cause: error.to_string() });
                }
            }
        }
    }
    if options.benches().any(|bench| bench == Bench::Exchange) {
        report.take(Bench::Exchange, |figures| net::exchange(options, figures, progress));
    }
    if options.benches().any(|bench| bench == Bench::Move) {
        report.take(Bench::Move, |figures| net::moves(options, figures, progress));
    }
    if options.benches().any(|bench| bench == Bench::Executors) {
        report.take(Bench::Executors, |figures| executors::run(options, figures, progress));
    }
    if options.benches().any(|bench| bench == Bench::Members) {
        report.take(Bench::Members, |figures| members::run(options, figures, progress));
    }
    if options.benches().any(|bench| bench == Bench::Browser) {
        report.take(Bench::Browser, |figures| browser::figures::figures(options, figures, progress));
    }
    if options.benches().any(|bench| bench == Bench::Page) {
        browser::page::measure(options, &mut report, progress);
    }
    if options.benches().any(|bench| bench == Bench::Wire) {
        report.take(Bench::Wire, |figures| browser::wire::figures(options, figures, progress));
    }
    if options.benches().any(|bench| bench == Bench::Arrival) {
        report.take(Bench::Arrival, |figures| browser::arrival::figures(options, figures, progress));
    }
    report
}
