//! Workloads in a real browser: the package for browsers, in one worker of a page of headless Chromium.
//!
//! ```text
//! job ─ a server on loopback ─► page ─► worker: package, executors ─► buffers, and what came of the job ─► answer ─► next job
//! ```
//!
//! The package is built by `cargo xtask web`. [`figures`] makes a report of it. Invariant: an answer is of this run's package and bundles; a browser that
//! dies, hangs or cannot is an error, never a missing answer.

pub(crate) mod arrival;
pub(crate) mod figures;
pub(crate) mod page;
pub(crate) mod wire;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tiny_http::{Method, Request, Server};

/// How often a silent browser is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What Chromium is called.
const BROWSERS: [&str; 6] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "chromium-headless-shell"];
/// A browser and its flags for WebGPU, by spaces, in place of those below: `/opt/chrome --enable-features=Vulkan`, say.
const BROWSER_VARIABLE: &str = "PEERCOMPUTE_BROWSER";
/// WebGPU in software.
const SOFTWARE: [&str; 2] = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
/// A new profile, no sandbox (there may be no user but root), nothing sent to anybody.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
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
    /// Buffers that are wanted as they are after those ticks.
    pub buffers: Vec<String>,
    /// A buffer of floats that all sides are compared by after those ticks.
    pub output: Option<String>,
    /// Rounds that are timed.
    pub rounds: u32,
    /// How long each turn in a round takes, at least about.
    pub round_seconds: f64,
}

/// An executor that runs a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// As `Executor.open` takes it.
    pub executor: String,
    /// Workers that share a dispatch on the cpu out; as many as the machine runs at once if `None`.
    pub threads: Option<u32>,
    /// A largest page of an arena below the executor's, in bytes.
    pub page_bytes_max: Option<u64>,
    /// Whether borders of tiles are dispatched apart from interiors; as suits the executor if `None`.
    pub are_borders_apart: Option<bool>,
}

impl Side {
    /// An executor in one worker.
    pub fn alone(executor: &str) -> Side {
        Side { executor: executor.into(), threads: Some(1), ..Side::default() }
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
    /// The job's buffers, in its order.
    #[serde(skip)]
    pub buffers: Vec<Vec<u8>>,
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
    sides: Vec<Outcome>,
    wire: Option<wire::Measured>,
    failed: Option<String>,
    /// Whether no more jobs will be done.
    is_over: bool,
}

/// What a page may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Share memory with its workers: it is cross-origin isolated.
    Isolated,
    /// Not that.
    Plain,
}

/// What came of a job: what each executor made of it, or why one could not.
pub type Answer = Result<Vec<Outcome>, String>;

/// Runs jobs in a page of a browser.
///
/// **Errors:** [`BrowserError`]; `patience` is how long the browser may say nothing.
pub fn run(jobs: &[Job], page: Page, patience: Duration) -> Result<Vec<Answer>, BrowserError> {
    let mut session = Session::start(page, patience)?;
    jobs.iter().map(|job| session.run(job)).collect()
}

/// A browser with a page that does one job after another.
pub struct Session {
    server: Server,
    page: Page,
    package: PathBuf,
    patience: Duration,
    /// A worker that has asked for its next job.
    asking: Option<Request>,
    browser: Browser,
    // Behind the browser, which goes first.
    _profile: TempDir,
}

impl Session {
    /// Starts a browser.
    ///
    /// **Errors:** [`BrowserError`].
    pub fn start(page: Page, patience: Duration) -> Result<Session, BrowserError> {
        Session::open("", page, patience)
    }

    /// Starts a browser at a path of the server.
    fn open(path: &str, page: Page, patience: Duration) -> Result<Session, BrowserError> {
        let package = package().ok_or(BrowserError::NoPackage)?;
        let server = Server::http("127.0.0.1:0").map_err(|error| BrowserError::Start { what: "a server", cause: error.to_string() })?;
        let Some(address) = server.server_addr().to_ip() else {
            return Err(BrowserError::Start { what: "a server", cause: "it has no address".into() });
        };
        let profile = tempfile::tempdir().map_err(|error| BrowserError::Start { what: "a profile", cause: error.to_string() })?;
        let browser = Browser::start(&format!("http://{address}/{path}"), profile.path())?;
        Ok(Session { server, page, package, patience, asking: None, browser, _profile: profile })
    }

    /// Does a job.
    ///
    /// **Errors:** [`BrowserError`]; then there are no more answers to be had.
    pub fn run(&mut self, job: &Job) -> Result<Answer, BrowserError> {
        let (said, buffers) = self.ask(job, &job.bundle)?;
        match said {
            Said { failed: Some(cause), .. } => Ok(Err(cause)),
            Said { sides, .. } => with_buffers(sides, job, buffers).map(Ok),
        }
    }

    /// Has a job done; what the worker says, and what buffers it posted.
    fn ask(&mut self, job: &impl Serialize, bundle: &[u8]) -> Result<(Said, HashMap<String, Vec<u8>>), BrowserError> {
        let text = serde_json::to_vec(job).map_err(|error| BrowserError::Failed { cause: error.to_string() })?;
        let mut text = Some(text);
        let mut buffers = HashMap::new();
        loop {
            if text.is_some()
                && let Some(request) = self.asking.take()
            {
                respond(request, self.page, "application/json", &text.take().unwrap_or_default());
            }
            let request = self.receive()?;
            let url = request.url().to_string();
            match (request.method(), url.as_str()) {
                (Method::Get, "/job") => self.asking = Some(request),
                (Method::Get, "/bundle") => respond(request, self.page, "application/octet-stream", bundle),
                (Method::Post, "/said") => {
                    let said = self.heard(request).and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
                    match said {
                        Ok(said) if !said.is_over => return Ok((said, buffers)),
                        Ok(Said { failed, .. }) => return Err(BrowserError::Failed { cause: failed.unwrap_or_default() }),
                        Err(cause) => return Err(BrowserError::Failed { cause }),
                    }
                }
                (Method::Post, _) => {
                    let bytes = self.heard(request).map_err(|cause| BrowserError::Failed { cause })?;
                    buffers.insert(url, bytes);
                }
                _ => self.file(request, &url),
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "a browser that hangs is told by a clock")]
    fn receive(&mut self) -> Result<Request, BrowserError> {
        let begun = Instant::now();
        loop {
            match self.server.recv_timeout(LOOK_EVERY) {
                Ok(Some(request)) => return Ok(request),
                Ok(None) => {}
                Err(error) => return Err(BrowserError::Failed { cause: error.to_string() }),
            }
            if let Ok(Some(status)) = self.browser.0.try_wait() {
                return Err(BrowserError::Failed { cause: format!("it has ended: {status}") });
            }
            if begun.elapsed() >= self.patience {
                return Err(BrowserError::Silent { seconds: begun.elapsed().as_secs() });
            }
        }
    }

    /// What was posted.
    fn heard(&self, mut request: Request) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = request.as_reader().take(POSTED_BYTES_MAX).read_to_end(&mut bytes);
        respond(request, self.page, "text/plain", &[]);
        read.map(|_| bytes).map_err(|error| error.to_string())
    }

    fn file(&self, request: Request, url: &str) {
        let content = match url {
            "/" => Some(("text/html", include_bytes!("page.html").to_vec())),
            "/worker.js" => Some(("text/javascript", include_bytes!("worker.js").to_vec())),
            url => packaged(url, &self.package),
        };
        match content {
            Some((kind, bytes)) => respond(request, self.page, kind, &bytes),
            None => answer(request, "404 Not Found", self.page, "text/plain", &[]),
        }
    }
}

/// The most bytes of one request.
const POSTED_BYTES_MAX: u64 = 64 << 20;

/// Every side's buffers, which came by themselves.
fn with_buffers(mut sides: Vec<Outcome>, job: &Job, mut posted: HashMap<String, Vec<u8>>) -> Result<Vec<Outcome>, BrowserError> {
    for (number, side) in sides.iter_mut().enumerate() {
        for (buffer, name) in job.buffers.iter().enumerate() {
            let bytes = posted.remove(&format!("/buffers/{number}/{buffer}"));
            side.buffers.push(bytes.ok_or_else(|| BrowserError::Failed { cause: format!("`{name}` was left out") })?);
        }
    }
    Ok(sides)
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

/// Answers, and has the browser close the connection: `tiny_http` keeps a thread for each that is open, and of several that come at once one may
/// wait until another is closed.
fn answer(request: Request, status: &str, page: Page, kind: &str, bytes: &[u8]) {
    let isolating = match page {
        Page::Isolated => "cross-origin-opener-policy: same-origin\r\ncross-origin-embedder-policy: require-corp\r\n",
        Page::Plain => "",
    };
    let length = bytes.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{isolating}\r\n");
    let mut writer = request.into_writer();
    // Whether the browser heard it is its own affair.
    drop(writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(bytes)).and_then(|()| writer.flush()));
}

fn respond(request: Request, page: Page, kind: &str, bytes: &[u8]) {
    answer(request, "200 OK", page, kind, bytes);
}

/// The package's folder: `web`, beside the profile that this program was built in.
fn package() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join("web")).find(|folder| folder.join("peercompute_bg.wasm").exists())
}

/// The first browser of a known name in the system's folders.
fn installed() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    BROWSERS.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.exists()))
}

/// A browser that ends with us.
struct Browser(Child);

impl Browser {
    fn start(url: &str, profile: &Path) -> Result<Browser, BrowserError> {
        let named = std::env::var(BROWSER_VARIABLE).unwrap_or_default();
        let mut named = named.split_whitespace();
        let mut command = match named.next() {
            Some(program) => Command::new(program),
            None => Command::new(installed().ok_or(BrowserError::NoBrowser)?),
        };
        let flags: Vec<&str> = named.collect();
        command
            .args(if flags.is_empty() { &SOFTWARE[..] } else { &flags })
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url);
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
