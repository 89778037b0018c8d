//! Workloads in a real browser: the package for browsers, in one worker of a page of headless Chromium.
//!
//! ```text
//! jobs ─ a server on loopback ─► page ─► worker: package, executors ─► what came of each job ─► answers
//! ```
//!
//! The package is built by `cargo xtask web`. [`figures`] makes a report of it. Invariant: an answer is of this run's package and bundles; a browser that
//! dies, hangs or cannot is an error, never a missing answer.

pub(crate) mod figures;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tiny_http::{Header, Method, Request, Response, Server};

/// What Chromium is called.
const BROWSERS: [&str; 6] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "chromium-headless-shell"];
/// A new profile, no sandbox (there may be no user but root), WebGPU in software, nothing sent to anybody.
const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-timer-throttling",
    "--mute-audio",
];

/// Why there are no answers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrowserError {
    /// The package has not been built.
    #[error("there is no package for browsers beside this program; `cargo xtask web` builds it")]
    NoPackage,
    /// There is no browser.
    #[error("none of {} is installed; on Debian: apt-get install chromium", BROWSERS.join(", "))]
    NoBrowser,
    /// The server or the browser did not start.
    #[error("cannot start {what}: {cause}")]
    Start {
        /// Which.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// The page or its worker failed.
    #[error("in the browser: {cause}")]
    Failed {
        /// What it said.
        cause: String,
    },
    /// The browser said nothing for too long.
    #[error("the browser was silent for {seconds} s")]
    Silent {
        /// How long.
        seconds: u64,
    },
}

/// A workload to run in a browser.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Job {
    /// The signed bundle.
    #[serde(skip)]
    pub bundle: Vec<u8>,
    /// The public key that signed it.
    pub key: String,
    /// What runs it.
    pub sides: Vec<Side>,
    /// Peers in one worker that share the workload out; one if `None`.
    pub peers: Option<u32>,
    /// Ticks before the state is hashed.
    pub ticks: u32,
    /// How long a dispatch on the cpu may take; as long as usual if `None`.
    pub time_limit_seconds: Option<f64>,
    /// A buffer of floats that all sides are compared by after those ticks.
    pub output: Option<String>,
    /// Rounds that are timed.
    pub rounds: u32,
    /// How long each turn in a round takes, at least about.
    pub round_seconds: f64,
}

/// An executor that runs a job.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// As `Executor.open` takes it.
    pub executor: String,
    /// Workers that share a dispatch on the cpu out; as many as the machine runs at once if `None`.
    pub threads: Option<u32>,
}

impl Side {
    /// An executor in one worker.
    pub fn alone(executor: &str) -> Side {
        Side { executor: executor.into(), threads: Some(1) }
    }
}

/// What an executor made of a job.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// `gpu` or `cpu`.
    pub executor: String,
    /// The adapter.
    pub adapter: String,
    /// What drives it.
    pub backend: String,
    /// Seconds that loading took, compiling and init included.
    pub loaded: f64,
    /// The state after the job's ticks.
    pub hash: String,
    /// The largest difference of the job's output from the first side's, relative to values above 1.
    pub apart: f64,
    /// Ticks of a turn.
    pub repeats: u32,
    /// Seconds of each turn.
    pub seconds: Vec<f64>,
}

/// What the page says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    job: usize,
    sides: Vec<Outcome>,
    failed: Option<String>,
    done: bool,
}

/// What a page may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Share memory with its workers: it is cross-origin isolated.
    Isolated,
    /// Not that.
    Plain,
}

/// Runs jobs in a page of a browser; what each executor made of each, or why it could not.
///
/// **Errors:** [`BrowserError`]; `patience` is how long the browser may say nothing.
pub fn run(jobs: &[Job], page: Page, patience: Duration) -> Result<Vec<Result<Vec<Outcome>, String>>, BrowserError> {
    let package = package().ok_or(BrowserError::NoPackage)?;
    let server = Server::http("127.0.0.1:0").map_err(|error| BrowserError::Start { what: "a server", cause: error.to_string() })?;
    let server = Arc::new(server);
    let Some(address) = server.server_addr().to_ip() else { return Err(BrowserError::Start { what: "a server", cause: "it has no address".into() }) };
    let profile = tempfile::tempdir().map_err(|error| BrowserError::Start { what: "a profile", cause: error.to_string() })?;
    let _browser = Browser::start(&format!("http://{address}/"), profile.path())?;
    let mut answers: Vec<Option<Result<Vec<Outcome>, String>>> = jobs.iter().map(|_| None).collect();
    while let Some(request) = receive(&server, patience)? {
        let Some(said) = answer(request, page, &package, jobs) else { continue };
        match said {
            Said { done: true, .. } => break,
            Said { job, failed, sides, .. } if job < answers.len() && (failed.is_some() || !sides.is_empty()) => {
                answers[job] = Some(failed.map_or(Ok(sides), Err));
            }
            Said { failed, .. } => return Err(BrowserError::Failed { cause: failed.unwrap_or_default() }),
        }
    }
    let answers = answers.into_iter().map(|answer| answer.ok_or(BrowserError::Failed { cause: "a job was left out".into() }));
    answers.collect()
}

#[allow(clippy::disallowed_methods, reason = "a browser that hangs is told by a clock")]
fn receive(server: &Server, patience: Duration) -> Result<Option<Request>, BrowserError> {
    let begun = Instant::now();
    match server.recv_timeout(patience) {
        Ok(Some(request)) => Ok(Some(request)),
        Ok(None) => Err(BrowserError::Silent { seconds: begun.elapsed().as_secs() }),
        Err(error) => Err(BrowserError::Failed { cause: error.to_string() }),
    }
}

/// Answers a request; what the page said, if it said something.
fn answer(mut request: Request, page: Page, package: &Path, jobs: &[Job]) -> Option<Said> {
    let url = request.url().to_string();
    if *request.method() == Method::Post {
        let mut text = String::new();
        let read = request.as_reader().take(64 << 20).read_to_string(&mut text);
        let said = read.map_err(|error| error.to_string()).and_then(|_| serde_json::from_str(&text).map_err(|error| error.to_string()));
        respond(request, page, "text/plain", Vec::new());
        return Some(said.unwrap_or_else(|cause| Said { job: usize::MAX, failed: Some(cause), ..Said::default() }));
    }
    let content = match url.as_str() {
        "/" => Some(("text/html", include_bytes!("page.html").to_vec())),
        "/worker.js" => Some(("text/javascript", include_bytes!("worker.js").to_vec())),
        "/jobs" => serde_json::to_vec(jobs).ok().map(|jobs| ("application/json", jobs)),
        url => match url.strip_prefix("/bundles/") {
            Some(number) => {
                number.parse().ok().and_then(|number: usize| jobs.get(number)).map(|job| ("application/octet-stream", job.bundle.clone()))
            }
            None => packaged(url, package),
        },
    };
    match content {
        Some((kind, bytes)) => respond(request, page, kind, bytes),
        // Whether the browser heard it is its own affair.
        None => drop(request.respond(Response::empty(404))),
    }
    None
}

/// A file of the package.
fn packaged(url: &str, package: &Path) -> Option<(&'static str, Vec<u8>)> {
    let name = url.strip_prefix("/package/")?;
    let kind = match name.rsplit_once('.')?.1 {
        "js" => "text/javascript",
        "wasm" => "application/wasm",
        _ => return None,
    };
    let is_inside = name.split('/').all(|part| !part.is_empty() && part != "..");
    is_inside.then(|| std::fs::read(package.join(name)).ok()).flatten().map(|bytes| (kind, bytes))
}

fn respond(request: Request, page: Page, kind: &str, bytes: Vec<u8>) {
    let isolating = [("cross-origin-opener-policy", "same-origin"), ("cross-origin-embedder-policy", "require-corp")];
    let isolating = isolating.iter().filter(|_| page == Page::Isolated);
    let headers = [("content-type", kind)];
    let headers = headers.iter().chain(isolating).filter_map(|(name, value)| Header::from_bytes(*name, *value).ok());
    let response = headers.fold(Response::from_data(bytes), Response::with_header);
    // Whether the browser heard it is its own affair.
    drop(request.respond(response));
}

/// The package's folder: `web`, beside the profile that this program was built in.
fn package() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join("web")).find(|folder| folder.join("peercompute_bg.wasm").exists())
}

/// A browser that ends with us.
struct Browser(Child);

impl Browser {
    fn start(url: &str, profile: &Path) -> Result<Browser, BrowserError> {
        let folders: Vec<PathBuf> = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let found = BROWSERS.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.exists()));
        let mut command = Command::new(found.ok_or(BrowserError::NoBrowser)?);
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.display())).arg(url);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Browser).map_err(|error| BrowserError::Start { what: "the browser", cause: error.to_string() })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
