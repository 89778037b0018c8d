//! What membership costs while nothing happens, and what it does when something does: runs of real processes.
//!
//! ```text
//! upkeep    four processes compute heat, with a snapshot every 2 s │ the same without, in turn; and what snapshots ship │ the sketch
//! join      one process, while another comes and takes half of its tiles │ the same one before; and the ticks that it loses │ one
//! balance   four processes, one of them slowed to a quarter on the way │ the best division of the tiles, computed
//! losses    five processes, of which three are lost one by one │ the times in which that is to be noticed, and got over
//! ```
//!
//! Beside the first, everybody computes less than half of the time. So processes do not take cores from each other, and a
//! member's speed is what it was told, on a machine with fewer cores than members too.

mod balance;
mod join;
mod losses;
mod upkeep;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use peercompute_kernels::VerifiedBundle;

use crate::kernels;
use crate::process::{Process, failed, program};
use crate::report::Figure;
use crate::{BenchError, BenchOptions};

const MEMBERS: usize = 4;
const BUNDLE: &str = "heat.pcb";
/// Nothing may take longer than this to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// The part of the time that a member computes: four times this is below a machine of two cores.
const DUTY: f64 = 0.4;

/// What each member is told.
const MEMBER: [&str; 5] = ["--executor", "cpu", "--threads", "1", "--control"];

/// A workload's bundle in a file, and the members that run it, the host first.
struct Crew {
    program: PathBuf,
    folder: tempfile::TempDir,
    key: String,
}

impl Crew {
    fn new(size: u32, tile: u32) -> Result<Crew, BenchError> {
        let folder = tempfile::tempdir().map_err(|cause| failed(format!("no temporary folder: {cause}")))?;
        let bundle: VerifiedBundle = kernels::load("heat", &[size, size], &[tile, tile])?;
        std::fs::write(folder.path().join(BUNDLE), bundle.bytes()).map_err(|cause| failed(format!("cannot write the bundle: {cause}")))?;
        Ok(Crew { program: program()?, folder, key: bundle.signer().to_string() })
    }

    fn bundle(&self) -> String {
        self.folder.path().join(BUNDLE).display().to_string()
    }

    /// A host that waits for so many members, itself included; and the link to it.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn host(&self, assemble: usize, options: &[&[&str]]) -> Result<(Process, String), BenchError> {
        let (bundle, assemble) = (self.bundle(), assemble.to_string());
        let head = ["host", &bundle, "--trust", &self.key, "--assemble", &assemble];
        let args = [&head[..], &MEMBER].into_iter().chain(options.iter().copied());
        let host = Process::start(&self.program, &owned(args))?;
        let listening = host.next("listening", Instant::now() + PATIENCE)?;
        Ok((host, listening["link"].as_str().unwrap_or_default().to_owned()))
    }

    fn join(&self, link: &str, options: &[&str]) -> Result<Process, BenchError> {
        let bundle = self.bundle();
        let head = ["join", link, "--bundle", &bundle, "--trust", &self.key];
        Process::start(&self.program, &owned([&head[..], &MEMBER, options].into_iter()))
    }

    /// So many members, and the link to them.
    fn start(&self, count: usize, host_options: &[&str], options: &[&str]) -> Result<(Vec<Process>, String), BenchError> {
        let (host, link) = self.host(count, &[host_options, options])?;
        let mut members = vec![host];
        for _ in 1..count {
            members.push(self.join(&link, options)?);
        }
        Ok((members, link))
    }

    /// The same, once every one of them owns tiles.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn gather(&self, count: usize, options: &[&str]) -> Result<(Vec<Process>, String), BenchError> {
        let (members, link) = self.start(count, &[], options)?;
        let until = Instant::now() + PATIENCE;
        let own = |epoch: &serde_json::Value| epoch["members"].as_array().map(|all| all.iter().filter(|member| member["tiles"] != 0).count());
        while own(&members[0].next("epoch", until)?) < Some(count) {}
        Ok((members, link))
    }
}

fn owned<'a>(options: impl Iterator<Item = &'a [&'a str]>) -> Vec<String> {
    options.flatten().map(|option| (*option).to_owned()).collect()
}

/// All of them.
///
/// **Errors:** a process did not start, or a run did not go on.
pub(crate) fn run(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    upkeep::speed(options, figures, progress)?;
    upkeep::bytes(options, figures, progress)?;
    join::run(options, figures, progress)?;
    balance::run(options, figures, progress)?;
    losses::run(options, figures, progress)
}

/// The ticks per second of a run as its host tells them.
struct Pace {
    from: Option<(u64, Instant)>,
    to: (u64, Instant),
    epochs: u32,
}

impl Pace {
    /// Listens for this long.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn listen(host: &Process, time: Duration) -> Result<Pace, BenchError> {
        let begun = Instant::now();
        let mut pace = Pace { from: None, to: (0, begun), epochs: 0 };
        while let Some(line) = host.line(begun + time)? {
            match line["event"].as_str() {
                Some("progress") => {
                    pace.to = (line["tick"].as_u64().unwrap_or(0), Instant::now());
                    pace.from.get_or_insert(pace.to);
                }
                Some("epoch") => pace.epochs += 1,
                _ => {}
            }
        }
        Ok(pace)
    }

    fn ticks_per_second(&self) -> Result<f64, BenchError> {
        let from = self.from.ok_or_else(|| failed("the run does not go on"))?;
        let seconds = self.to.1.saturating_duration_since(from.1).as_secs_f64();
        if seconds > 0.0 { Ok(self.to.0.saturating_sub(from.0) as f64 / seconds) } else { Err(failed("the run stands still")) }
    }
}
