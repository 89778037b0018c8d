//! The cpu executor in a browser against the browser's own WebGPU, case by case.
//!
//! All sides run the same bundle in one worker, one of them with the help of others, and take a turn in every round.
//! Invariant: no figure before all have computed the same.

use std::time::Duration;

use super::{BrowserError, Job, Outcome, Page, Side, run};
use crate::executors::cases::{self, Case};
use crate::report::{Figure, Kind};
use crate::rounds::Rounds;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What one worker is to reach over WebGPU in software.
const TARGET: f64 = 4.0;
/// Ticks after which both sides are compared.
const COMPARED_TICKS: u32 = 3;
/// What a browser may take for a case without a word: compiling, and all rounds.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs every case in a browser.
///
/// **Errors:** the browser's, or two sides disagree.
pub(crate) fn figures(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let is_asked = |case: &Case| options.case.as_ref().is_none_or(|part| case.name.contains(part));
    let cases: Vec<Case> = cases::all(options.effort == Effort::Tiny, options.bodies).into_iter().filter(is_asked).collect();
    for case in cases {
        progress(&format!("browser: {}", case.name));
        let bundle = case.bundle()?;
        let job = Job {
            bundle: bundle.bytes().to_vec(),
            key: bundle.signer().to_string(),
            sides: [Side::alone("cpu"), Side::alone("gpu"), Side::alone("interpreter"), Side { threads: None, ..Side::alone("cpu") }].to_vec(),
            ticks: COMPARED_TICKS,
            output: Some(case.output.name().into()),
            rounds: options.effort.rounds().min(5),
            round_seconds: options.effort.round_seconds(),
            ..Job::default()
        };
        // A browser for each case: what one leaves behind does not weigh on the next.
        let sides =
            run(&[job], Page::Isolated, PATIENCE)?.remove(0).map_err(|cause| BrowserError::Failed { cause: format!("{}: {cause}", case.name) })?;
        let [cpu, gpu, interpreted, shared] = &sides[..] else {
            return Err(BrowserError::Failed { cause: format!("{} sides of four", sides.len()) }.into());
        };
        for side in [gpu, interpreted, shared] {
            if side.apart > f64::from(case.tolerance) {
                let cause = format!("{}: {} is {:e} apart from the cpu executor", case.name, described(side), side.apart);
                return Err(BrowserError::Failed { cause }.into());
            }
        }
        let over_gpu = pair(cpu, gpu).figure(
            Bench::Browser,
            format!("{}: cpu in one worker over WebGPU", case.name),
            Kind::Speed,
            case.unit,
            case.units_per_tick / 1e9,
            &described(gpu),
        );
        // Only an adapter in software takes this machine's threads too.
        let mut over_gpu = if is_software(gpu) { over_gpu.with_target(Some(TARGET)) } else { Figure { kind: Kind::Context, ..over_gpu } };
        over_gpu.notes.push(format!("cpu: {}; loaded in {:.0} ms", described(cpu), cpu.loaded * 1e3));
        over_gpu.notes.push(format!("gpu: {}; loaded in {:.0} ms", described(gpu), gpu.loaded * 1e3));
        figures.push(over_gpu);
        let over_code = format!("{}: interpreter over machine code, in one worker", case.name);
        let over_one = format!("{}: cpu in all workers over one", case.name);
        let mut over_one = pair(shared, cpu).figure(Bench::Browser, over_one, Kind::Context, case.unit, case.units_per_tick / 1e9, &described(cpu));
        over_one.notes.push(format!("all: {}", described(shared)));
        figures.push(over_one);
        figures.push(pair(interpreted, cpu).figure(Bench::Browser, over_code, Kind::Context, case.unit, case.units_per_tick / 1e9, &described(cpu)));
    }
    Ok(())
}

fn described(side: &Outcome) -> String {
    format!("{} ({})", side.adapter, side.backend)
}

fn is_software(side: &Outcome) -> bool {
    side.adapter.to_lowercase().contains("swiftshader")
}

/// Two sides; the twin's seconds are those of as many repeats as the other has.
fn pair(ours: &Outcome, twin: &Outcome) -> Rounds {
    let scale = f64::from(ours.repeats) / f64::from(twin.repeats);
    let seconds = ours.seconds.iter().zip(&twin.seconds).map(|(ours, twin)| [*ours, twin * scale]).collect();
    Rounds { repeats: ours.repeats, seconds }
}
