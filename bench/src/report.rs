//! What came out: plain values that serialise to JSON and print as a table.

use std::fmt;

use peercompute_kernels::executor::ExecutorInfo;
use serde::{Deserialize, Serialize};

use crate::{Bench, BenchError, BenchOptions};

/// The version of the JSON: raised when a field changes its meaning or goes.
pub const REPORT_VERSION: u32 = 2;

/// All figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`] of the program that wrote it.
    pub version: u32,
    /// The version of PeerCompute.
    pub peercompute: String,
    /// `tiny`, `quick` or `full`.
    pub effort: String,
    /// Where it ran.
    pub host: Host,
    /// The adapter; `None` if no bench needed one, or there is none.
    pub adapter: Option<Adapter>,
    /// The browser, if the page was measured in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<Browser>,
    /// The figures, in the order in which they were taken.
    pub figures: Vec<Figure>,
    /// The benches that came to nothing.
    pub failures: Vec<Failure>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The operating system.
    pub os: String,
    /// The processor's architecture.
    pub arch: String,
    /// Hardware threads.
    pub threads: usize,
    /// Whether the benches were compiled with optimisation.
    pub is_optimised: bool,
}

/// A browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Browser {
    /// What it calls itself.
    pub agent: String,
    /// Whether the page was cross-origin isolated: clocks are finer there.
    pub is_isolated: bool,
}

/// The adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// Backend and driver.
    pub backend: String,
    /// Whether it computes in software: then only ratios mean anything.
    pub is_software: bool,
}

impl From<&ExecutorInfo> for Adapter {
    fn from(info: &ExecutorInfo) -> Adapter {
        Adapter { name: info.adapter.clone(), backend: info.backend.clone(), is_software: info.is_software }
    }
}

/// What a figure's ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The framework's speed over its twin's: 1 is no cost at all.
    Speed,
    /// A count over its prediction: anything but 1 is a failure.
    Exact,
    /// Nothing that is promised: what the device can do, or another one does, to read the other figures by.
    Context,
}

/// One figure and its twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The bench.
    pub bench: String,
    /// Sizes and settings.
    pub case: String,
    /// What the ratio says.
    pub kind: Kind,
    /// The unit of `value`, `twin_value` and `floor`.
    pub unit: String,
    /// The framework's figure: of the best round, if timed.
    pub value: f64,
    /// What it is held against.
    pub twin: String,
    /// The twin's figure: of its best round, if timed.
    pub twin_value: f64,
    /// The median over rounds of framework over twin within a round; `value / twin_value` if not timed.
    pub ratio: f64,
    /// The best round of the one over the best of the other, if timed: far from `ratio`, the machine was busy.
    pub ratio_best: Option<f64>,
    /// What the device could do at most, by its own copy bandwidth in this run.
    pub floor: Option<f64>,
    /// The ratio to reach.
    pub target: Option<f64>,
    /// Whether it was reached.
    pub met: Option<bool>,
    /// Rounds in which both were timed in turn; 0 for counts.
    pub rounds: u32,
    /// Ticks (copies, exchanges) of each round; 0 for counts.
    pub repeats: u32,
    /// Parts of a count, and what else should be known.
    pub notes: Vec<String>,
}

impl Figure {
    /// A count and its prediction.
    pub(crate) fn exact(bench: Bench, case: String, value: u64, twin: &str, twin_value: u64) -> Figure {
        Figure {
            bench: bench.name().into(),
            case,
            kind: Kind::Exact,
            unit: "bytes".into(),
            value: value as f64,
            twin: twin.into(),
            twin_value: twin_value as f64,
            ratio: if value == twin_value { 1.0 } else { value as f64 / twin_value as f64 },
            ratio_best: None,
            floor: None,
            target: Some(1.0),
            met: Some(value == twin_value),
            rounds: 0,
            repeats: 0,
            notes: Vec::new(),
        }
    }

    /// A value of one measurement and what it is held against. `ratio` is the better, the higher it is.
    pub(crate) fn held(bench: Bench, case: String, unit: &str, value: f64, (twin, twin_value): (&str, f64), ratio: f64) -> Figure {
        Figure {
            bench: bench.name().into(),
            case,
            kind: Kind::Speed,
            unit: unit.into(),
            value,
            twin: twin.into(),
            twin_value,
            ratio,
            ratio_best: None,
            floor: None,
            target: None,
            met: None,
            rounds: 1,
            repeats: 0,
            notes: Vec::new(),
        }
    }

    /// Sets what else should be known.
    pub(crate) fn with_notes(self, notes: Vec<String>) -> Figure {
        Figure { notes, ..self }
    }

    /// Sets the ratio to reach.
    pub(crate) fn with_target(mut self, target: Option<f64>) -> Figure {
        self.target = target;
        self.met = target.map(|target| self.ratio >= target);
        self
    }
}

/// A bench that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The bench.
    pub bench: String,
    /// Why.
    pub cause: String,
}

impl Report {
    pub(crate) fn new(options: &BenchOptions) -> Report {
        Report {
            version: REPORT_VERSION,
            peercompute: env!("CARGO_PKG_VERSION").into(),
            effort: options.effort.name().into(),
            host: Host {
                os: std::env::consts::OS.into(),
                arch: std::env::consts::ARCH.into(),
                threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
                is_optimised: !cfg!(debug_assertions),
            },
            adapter: None,
            browser: None,
            figures: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Takes over what a bench measured, also what it had before it failed.
    pub(crate) fn take(&mut self, bench: Bench, measure: impl FnOnce(&mut Vec<Figure>) -> Result<(), BenchError>) {
        let mut figures = Vec::new();
        let done = measure(&mut figures);
        self.figures.extend(figures);
        if let Err(error) = done {
            self.failures.push(Failure { bench: bench.name().into(), cause: error.to_string() });
        }
    }

    /// Whether every bench ran and every count is what was predicted. Speeds do not matter here.
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty() && self.figures.iter().all(|figure| figure.kind != Kind::Exact || figure.met == Some(true))
    }

    /// The figures that have not reached their target.
    pub fn missed(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| figure.met == Some(false))
    }

    /// The copy bandwidth of this run in bytes per second, read and written bytes added.
    pub(crate) fn copy_bytes_per_second(&self) -> Option<f64> {
        let copies = self.figures.iter().filter(|figure| figure.bench == Bench::Copy.name());
        copies.map(|figure| figure.value.max(figure.twin_value) * 1e9).reduce(f64::max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        writeln!(f, "peercompute {} on {} {}, {} threads; {} benches", self.peercompute, host.os, host.arch, host.threads, self.effort)?;
        if !host.is_optimised {
            writeln!(f, "compiled without optimisation: build with --release for figures that mean something")?;
        }
        if let Some(adapter) = &self.adapter {
            writeln!(f, "{} ({})", adapter.name, adapter.backend)?;
            if adapter.is_software {
                writeln!(f, "a software adapter: only ratios mean anything")?;
            }
        }
        if let Some(browser) = &self.browser {
            writeln!(f, "{}", browser.agent)?;
        }
        let header = ["bench", "case", "value", "twin", "unit", "ratio", "best", "floor", "target", "met"].map(String::from);
        let mut rows = vec![(header, Vec::new())];
        rows.extend(self.figures.iter().map(|figure| (cells(figure), figure.notes.clone())));
        let width = |column: usize| rows.iter().map(|(cells, _)| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..10).map(width).collect();
        for (cells, notes) in &rows {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate() {
                let width = widths[column];
                // Words to the left, numbers to the right.
                line += &if matches!(column, 0 | 1 | 4 | 9) { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
            for note in notes {
                writeln!(f, "{:indent$}{note}", "", indent = widths[0] + 4)?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "{} failed: {}", failure.bench, failure.cause)?;
        }
        Ok(())
    }
}

fn cells(figure: &Figure) -> [String; 10] {
    let number = |value: f64| match figure.kind {
        Kind::Exact => format!("{value}"),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    };
    let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.3}"));
    [
        figure.bench.clone(),
        figure.case.clone(),
        number(figure.value),
        number(figure.twin_value),
        figure.unit.clone(),
        ratio(Some(figure.ratio)),
        ratio(figure.ratio_best),
        figure.floor.map_or(String::new(), number),
        figure.target.map_or(String::new(), |target| format!("{target:.2}")),
        figure.met.map_or("", |met| if met { "yes" } else { "no" }).into(),
    ]
}
