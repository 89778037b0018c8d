//! How soon a fresh tab computes: a server in a process of its own, and a browser that has never been there, again and again.
//!
//! ```text
//! serve --page (arrival.js) ◄─ navigation ─ Chromium, a new profile each time
//!                            page ─ join ─ run ─ epoch ─ tick ─► seconds since the navigation
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use tiny_http::{Response, Server};

use super::{Browser, BrowserError};
use crate::kernels;
use crate::process::{Process, failed, program};
use crate::report::{Figure, Kind};
use crate::rounds::Rounds;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// Within this a tab should compute. **Units**: seconds since its navigation began.
const LIMIT_SECONDS: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(60);
/// What a tab tells of, in order.
const STEPS: [&str; 5] =
    ["the page's script", "bundles verified", "executor ready, its speed measured", "in an epoch, with its tiles", "the first tick"];

/// Seconds since the navigation, by step, and what computes.
struct Told {
    seconds: Vec<f64>,
    executor: String,
}

impl Told {
    /// As the page writes it: the executor, then seconds, by commas.
    fn parse(text: &str) -> Option<Told> {
        let (executor, seconds) = text.split_once(',')?;
        let seconds = seconds.split(',').map(|text| text.parse().ok()).collect::<Option<Vec<f64>>>()?;
        (seconds.len() == STEPS.len()).then(|| Told { seconds, executor: executor.to_owned() })
    }
}

/// One figure: arrivals a second against the limit, and in its notes what they are made of.
///
/// **Errors:** the server's, and the browser's.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
pub(crate) fn figures(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (size, tile, rounds) = match options.effort {
        Effort::Tiny => (128, 32, 1),
        Effort::Quick => (1024, 128, 5),
        Effort::Full => (1024, 128, 15),
    };
    let case = format!("heat {size}²: a fresh tab to its first tick, loopback");
    progress(&format!("arrival: {case}, {rounds} times"));
    let folder = tempfile::tempdir().map_err(|cause| failed(format!("no temporary folder: {cause}")))?;
    let page = "<!doctype html><meta charset=utf-8><title>arrival</title><script type=module src=arrival.js></script>";
    write(folder.path(), "index.html", page)?;
    write(folder.path(), "arrival.js", include_str!("arrival.js"))?;
    let workload = kernels::load("heat", &[size, size], &[tile, tile])?;
    std::fs::write(folder.path().join("heat.pcb"), workload.bytes()).map_err(|cause| failed(format!("cannot write the bundle: {cause}")))?;
    let bundle = folder.path().join("heat.pcb").display().to_string();
    let (key, site) = (workload.signer().to_string(), folder.path().display().to_string());
    let args = ["serve", &bundle, "--trust", &key, "--listen", "127.0.0.1:0", "--page", &site];
    let args: Vec<String> = args.iter().chain(&["--executor", "cpu", "--threads", "1"]).map(|arg| (*arg).to_owned()).collect();
    let root = Process::start(&program()?, &args)?;
    let listening = root.next("listening", Instant::now() + PATIENCE)?;
    let link = listening["link"].as_str().ok_or_else(|| failed("a server without a link"))?.to_owned();

    let start = |error: String| BrowserError::Start { what: "a server", cause: error };
    let server = Server::http("127.0.0.1:0").map_err(|error| start(error.to_string()))?;
    let address = server.server_addr().to_ip().ok_or_else(|| start("it has no address".into()))?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.push(arrive(&link, &server, &format!("http://{address}/"))?);
    }
    let median = |of: &dyn Fn(&Told) -> f64| {
        let mut seconds: Vec<f64> = all.iter().map(of).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let last = STEPS.len() - 1;
    let whole = median(&|told| told.seconds[last]);
    let parts = STEPS.iter().enumerate().map(|(step, name)| {
        let took = median(&|told| told.seconds[step] - if step == 0 { 0.0 } else { told.seconds[step - 1] });
        format!("{name} {took:.2} s")
    });
    let mut notes = vec![format!("{whole:.2} s in the median: {}", parts.collect::<Vec<_>>().join(", "))];
    notes.extend(all.last().map(|told| format!("computed by the {}", told.executor)));
    let timed = Rounds { repeats: 1, seconds: all.iter().map(|told| [told.seconds[last], LIMIT_SECONDS]).collect() };
    let limit = format!("a limit of {LIMIT_SECONDS} s");
    let mut figure = timed.figure(Bench::Arrival, case, Kind::Speed, "1/s", 1.0, &limit).with_target(Some(1.0));
    figure.notes.extend(notes);
    figures.push(figure);
    Ok(())
}

fn write(folder: &Path, name: &str, content: &str) -> Result<(), BenchError> {
    std::fs::write(folder.join(name), content).map_err(|cause| failed(format!("cannot write {name}: {cause}")))
}

/// A browser without a past comes to the run.
fn arrive(link: &str, server: &Server, tell: &str) -> Result<Told, BenchError> {
    let profile = tempfile::tempdir().map_err(|cause| failed(format!("no temporary folder: {cause}")))?;
    let url = link.replacen("/#", &format!("/?told={tell}#"), 1);
    let _browser = Browser::start(&url, profile.path())?;
    loop {
        let request = server.recv_timeout(PATIENCE).map_err(|error| failed(error.to_string()))?;
        let request = request.ok_or(BrowserError::Silent { seconds: PATIENCE.as_secs() })?;
        let told = request.url().split_once('?').map(|(_, told)| told.to_owned());
        // Browsers ask for a picture of the place as well.
        drop(request.respond(Response::empty(204)));
        if let Some(told) = told {
            return Ok(Told::parse(&told).ok_or_else(|| BrowserError::Failed { cause: format!("the page tells `{told}`") })?);
        }
    }
}
