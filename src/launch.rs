//! A run of several peers on this machine: one process each, joined over loopback.
//!
//! The launcher is no peer. It writes a job file, starts the processes, reads their messages (JSON
//! lines on standard output) and tells one story. A peer ends when its standard input does, so none
//! outlives the launcher. Invariant: whatever happens to a peer, the launcher ends with a report that
//! names it, and with no process left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peercompute_kernels::executor::any::{AnyExecutor, Choice};
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::gpu::{Checks, GpuOptions};
use peercompute_kernels::{Trust, VerifiedBundle};
use peercompute_net::driver::{Session, SessionConfig};
use peercompute_net::transport::TransportConfig;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::keys::{self, KeyFileError};
use crate::link::bytes_from_hex;
use crate::node::peer::{self, Split};
use crate::node::plan::ParamChange;
use crate::node::speed;
use crate::node::{NodeError, Outcome, Progress, Task};
use crate::picture::{self, PictureError};
use crate::state;

/// A buffer's name and a file.
pub type BufferFile = (String, PathBuf);

/// What a process of a run is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The bundle's file.
    pub bundle: PathBuf,
    /// The key to trust for it.
    pub trust: String,
    /// Peers in all.
    pub peers: u16,
    /// Ticks.
    pub ticks: u64,
    /// Parameters that change on the way.
    pub changes: Vec<ParamChange>,
    /// Files that replace what init made.
    pub imports: Vec<BufferFile>,
    /// NumPy files to write at the end.
    pub exports: Vec<BufferFile>,
    /// Pictures to write at the end.
    pub images: Vec<BufferFile>,
    /// How tiles are shared out.
    pub split: Split,
    /// How many ticks a halo may lag.
    pub staleness: u32,
    /// What runs the kernels.
    pub executor: Choice,
    /// Threads of each peer's cpu executor; by default the peers share the machine.
    pub threads: Option<usize>,
    /// Whether kernels run without bounds checks, on a GPU.
    pub unchecked: bool,
    /// Where to listen: a multiaddress.
    pub listen: String,
    /// The invitation, as hexadecimal.
    pub token: String,
    /// After how many seconds a silent peer has failed.
    pub silence_s: f64,
}

/// What a process tells the launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Message {
    /// It can be joined.
    Listening {
        /// Where.
        addresses: Vec<String>,
    },
    /// How far it is.
    Progress {
        /// Ticks.
        tick: u64,
        /// Since tick 0.
        seconds: f64,
        /// By all peers.
        shipped_bytes: u64,
    },
    /// It is done.
    Done(Summary),
    /// It failed.
    Failed {
        /// Why.
        text: String,
        /// Whether another peer tells it better.
        second_hand: bool,
    },
}

/// An [`Outcome`] without its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The hash of the whole state.
    pub state_hash: String,
    /// From tick 0 to the end of the last, on the slowest peer.
    pub seconds: f64,
    /// By all peers, frames counted in.
    pub shipped_bytes: u64,
    /// By all peers, without frames.
    pub payload_bytes: u64,
    /// Of all executors.
    pub memory_bytes: u64,
    /// `gpu` or `cpu`, on the first peer.
    pub executor: String,
    /// By peer.
    pub adapters: Vec<String>,
}

impl From<&Outcome> for Summary {
    fn from(outcome: &Outcome) -> Summary {
        Summary {
            state_hash: outcome.state_hash.clone(),
            seconds: outcome.seconds,
            shipped_bytes: outcome.shipped_bytes,
            payload_bytes: outcome.payload_bytes,
            memory_bytes: outcome.memory_bytes,
            executor: outcome.executor.clone(),
            adapters: outcome.adapters.clone(),
        }
    }
}

/// Why a run on this machine failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A key or the bundle.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file to import or export.
    #[error(transparent)]
    File(#[from] FileError),
    /// A picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The run itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The system gave no process or file.
    #[error("cannot {action}: {cause}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's word.
        cause: std::io::Error,
    },
    /// The job file does not decode.
    #[error("the job does not decode: {0}")]
    Job(#[from] serde_json::Error),
    /// The state was to be written, and never came together.
    #[error("there is nothing to export: the state of the end was never whole at this member")]
    NoState,
    /// The member that was to write them is gone.
    #[error("peer 0 was to write what is exported, and did not reach the end: the exports are lost")]
    ExportsLost,
    /// The server for browsers.
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    /// A bundle was to come from a page.
    #[error(transparent)]
    Fetch(#[from] crate::serve::FetchError),
    /// Several workloads, and an option that is one's.
    #[error("`{option}` is for one workload: serve one alone with it")]
    OneWorkload {
        /// Which.
        option: &'static str,
    },
    /// Two workloads of one name on one port.
    #[error("two workloads are called `{name}`: serve them on ports of their own")]
    SameName {
        /// The name.
        name: String,
    },
    /// A change that nobody would see.
    #[error("`{name}` is to change at tick {tick}, and the run ends before it: it has {ticks} ticks")]
    TooLate {
        /// The parameter.
        name: String,
        /// When it was to change.
        tick: u64,
        /// How long the run is.
        ticks: u64,
    },
    /// A run's store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A chaos list.
    #[error(transparent)]
    Chaos(#[from] crate::chaos::ChaosError),
    /// The executor does not take the workload; why, has been told.
    #[error("the executor refuses the workload")]
    Refused,
    /// Kernels were seen to do what they should not; what, has been told.
    #[error("{count} finding{}", if *count == 1 { "" } else { "s" })]
    Findings {
        /// How many.
        count: usize,
    },
    /// The partition changed the result, which it never should.
    #[error("the partition changed the result: {together} on several peers, {alone} on one; please report this with your adapter's name")]
    Differs {
        /// The state hash of the partitioned run.
        together: String,
        /// The state hash on one peer.
        alone: String,
    },
    /// A process failed or vanished.
    #[error("{text}")]
    Peer {
        /// What the peers report, the cause first.
        text: String,
    },
}

fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> LaunchError {
    move |cause| LaunchError::System { action, cause }
}

/// How an executor is opened, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// Threads of the cpu executor; by default as many as the machine runs at once.
    pub threads: Option<usize>,
    /// Whether kernels run without bounds checks, on a GPU.
    pub unchecked: bool,
    /// Whether passes are timed, on a GPU that can.
    pub is_profiled: bool,
}

/// Opens the executor that is wanted.
///
/// **Errors:** it is not there; the error says what is.
pub fn open_executor(choice: &Choice, options: ExecutorOptions) -> Result<AnyExecutor, NodeError> {
    let checks = if options.unchecked { Checks::Unchecked } else { Checks::Checked };
    let gpu = GpuOptions { checks, is_profiled: options.is_profiled, ..GpuOptions::default() };
    let cpu = CpuOptions { threads: options.threads, ..CpuOptions::default() };
    Ok(pollster::block_on(AnyExecutor::open(choice, gpu, cpu))?)
}

/// The threads of one of `peers` that share this machine.
pub fn threads_each(peers: u16) -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / usize::from(peers.max(1))).max(1)
}

/// The imports of a task, read and checked against the program.
///
/// **Errors:** [`FileError`].
pub fn read_imports(bundle: &VerifiedBundle, imports: &[BufferFile]) -> Result<Vec<(usize, Vec<u8>)>, FileError> {
    let program = bundle.program();
    imports
        .iter()
        .map(|(name, path)| {
            let buffer = files::buffer_named(program, name)?;
            Ok((buffer, files::import(program, buffer, path)?))
        })
        .collect()
}

/// The numbers of the buffers that exports and images want, without repetition. Makes the folders of the files: what cannot be
/// written is told before anything runs.
///
/// **Errors:** a buffer is not there or has no picture, or a file cannot be written.
pub fn wanted(bundle: &VerifiedBundle, exports: &[BufferFile], images: &[BufferFile]) -> Result<Vec<usize>, LaunchError> {
    let program = bundle.program();
    let mut wanted = Vec::new();
    for (name, path) in images {
        let buffer = files::buffer_named(program, name)?;
        picture::check_field(path, name, &state::extents(program, buffer), &program.elements[buffer])?;
    }
    for (name, path) in exports.iter().chain(images) {
        let buffer = files::buffer_named(program, name)?;
        make_folder(path)?;
        files::check_writable(path)?;
        if !wanted.contains(&buffer) {
            wanted.push(buffer);
        }
    }
    Ok(wanted)
}

/// Writes what a run gathered, into the folders that [`wanted`] has made.
///
/// **Errors:** a file cannot be written, or a field has no picture.
pub fn write_results(bundle: &VerifiedBundle, outcome: &Outcome, exports: &[BufferFile], images: &[BufferFile]) -> Result<(), LaunchError> {
    let program = bundle.program();
    let content = |name: &str| {
        let buffer = files::buffer_named(program, name)?;
        let bytes = outcome.gathered.iter().find(|(b, _)| *b == buffer).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        Ok::<_, FileError>((buffer, bytes))
    };
    for (name, path) in exports {
        let (buffer, bytes) = content(name)?;
        files::export(program, buffer, bytes, path)?;
    }
    for (name, path) in images {
        let (buffer, bytes) = content(name)?;
        picture::write_field(path, name, &state::extents(program, buffer), &program.elements[buffer], bytes)?;
    }
    Ok(())
}

/// Makes the folder that a file goes into.
///
/// **Errors:** it cannot be made.
pub fn make_folder(file: &Path) -> Result<(), LaunchError> {
    match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder).map_err(system("make the folder of a result")),
        None => Ok(()),
    }
}

/// One process of a run, from its job file to its last message.
///
/// **Errors:** none: what goes wrong is told to the launcher; `false` says that something did.
pub fn run_peer(job: &Path, index: u16, link: Option<&str>, tell: &mut dyn FnMut(&Message)) -> bool {
    watch_input();
    match try_peer(job, index, link, tell) {
        Ok(()) => true,
        Err(error) => {
            let second_hand = matches!(&error, LaunchError::Node(error) if peer::is_second_hand(error));
            tell(&Message::Failed { text: error.to_string(), second_hand });
            false
        }
    }
}

/// Ends this process when the launcher has gone.
fn watch_input() {
    std::thread::spawn(|| {
        let mut nothing = [0; 64];
        while std::io::stdin().read(&mut nothing).is_ok_and(|bytes| bytes > 0) {}
        std::process::exit(3);
    });
}

fn try_peer(job: &Path, index: u16, link: Option<&str>, tell: &mut dyn FnMut(&Message)) -> Result<(), LaunchError> {
    let text = std::fs::read_to_string(job).map_err(system("read the job"))?;
    let job: Job = serde_json::from_str(&text)?;
    let key = keys::read_public(&job.trust)?;
    let bundle = keys::read_bundle(&job.bundle, &Trust::key(key))?;
    let imports = read_imports(&bundle, &job.imports)?;
    let threads = Some(job.threads.unwrap_or_else(|| threads_each(job.peers)));
    let executor = open_executor(&job.executor, ExecutorOptions { threads, unchecked: job.unchecked, is_profiled: false })?;
    let speed = match job.split {
        Split::Even => 0.0,
        Split::Measured => pollster::block_on(speed::measure(&executor, &bundle, usize::from(job.peers)))?,
    };
    let config = session_config(&job, &bundle, index, speed);
    match link {
        None => {
            let session = Session::host(config, job.peers).map_err(NodeError::from)?;
            tell(&Message::Listening { addresses: session.addresses().to_vec() });
            let gather = wanted(&bundle, &job.exports, &job.images)?;
            let task = Task { ticks: job.ticks, changes: job.changes.clone(), imports, gather };
            let mut progress = |p: Progress| tell(&Message::Progress { tick: p.tick, seconds: p.seconds, shipped_bytes: p.shipped_bytes });
            let outcome = pollster::block_on(peer::host(&executor, &bundle, &session, job.split, speed, &task, &mut progress))?;
            write_results(&bundle, &outcome, &job.exports, &job.images)?;
            tell(&Message::Done(Summary::from(&outcome)));
        }
        Some(link) => {
            let session = Session::join(config, link).map_err(NodeError::from)?;
            pollster::block_on(peer::join(&executor, &bundle, &session, imports))?;
        }
    }
    Ok(())
}

fn session_config(job: &Job, bundle: &VerifiedBundle, index: u16, speed: f64) -> SessionConfig {
    let program = bundle.program();
    let points = |buffer: usize| program.grid_of(buffer).map_or(0, |grid| grid.tile_points());
    // A tile of every buffer, and the heads of its commits.
    let commit: u64 = (0..program.elements.len()).map(|b| points(b) * u64::from(program.elements[b].stride) + 256).sum();
    let commit = commit.min(u64::from(u32::MAX / 2)) as u32;
    SessionConfig {
        transport: TransportConfig { listen: vec![job.listen.clone()], ..TransportConfig::default() },
        name: format!("peer {index} of {}", job.peers),
        speed,
        token: bytes_from_hex(&job.token).unwrap_or_default(),
        bundle: program.hash,
        staleness: job.staleness,
        silence_limit: Duration::from_secs_f64(job.silence_s),
        commit_bytes_max: commit,
        frame_bytes_max: u32::MAX / 2,
        ..SessionConfig::default()
    }
}

/// Starts a job's processes and sees them through.
///
/// **Errors:** [`LaunchError::Peer`] with the cause, whichever process it struck.
#[allow(clippy::disallowed_methods, reason = "how long processes may take to end is not the core's business")]
pub fn launch(job: &Job, progress: &mut dyn FnMut(Progress)) -> Result<Summary, LaunchError> {
    let folder = tempfile::Builder::new().prefix("peercompute-").tempdir().map_err(system("make a folder for the job"))?;
    let file = folder.path().join("job.json");
    std::fs::write(&file, serde_json::to_vec(job)?).map_err(system("write the job"))?;
    let mut crew: Crew<Message> = Crew::default();
    crew.spawn(peer_command(&file, 0, None)?, 0)?;
    let mut failures: Vec<Failure> = Vec::new();
    let link = loop {
        match crew.hear(HEAR_LIMIT)? {
            Some((_, Message::Listening { addresses })) => {
                break addresses.into_iter().next().ok_or_else(|| LaunchError::Peer { text: "the first peer listens nowhere".into() })?;
            }
            Some((_, Message::Failed { text, .. })) => return Err(LaunchError::Peer { text }),
            None if crew.all_gone() => {
                note_vanished(&crew, &mut failures);
                return Err(LaunchError::Peer { text: report(&failures) });
            }
            _ => {}
        }
    };
    for index in 1..job.peers {
        crew.spawn(peer_command(&file, index, Some(&link))?, index)?;
    }
    let mut summary = None;
    let mut give_up_at: Option<Instant> = None;
    loop {
        match crew.hear(HEAR_LIMIT)? {
            Some((_, Message::Progress { tick, seconds, shipped_bytes })) => progress(Progress { tick, seconds, shipped_bytes }),
            Some((_, Message::Done(done))) => summary = Some(done),
            Some((peer, Message::Failed { text, second_hand })) => failures.push(Failure { peer, text, rank: u8::from(second_hand) * 2 }),
            Some((_, Message::Listening { .. })) => {}
            None => note_vanished(&crew, &mut failures),
        }
        if !failures.is_empty() {
            // The others get a moment to tell what they saw.
            let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + Duration::from_secs(2));
            if crew.all_gone() || Instant::now() > give_up_at {
                failures.sort_by_key(|failure| (failure.rank, failure.peer));
                return Err(LaunchError::Peer { text: report(&failures) });
            }
        } else if crew.all_gone() {
            return summary.ok_or_else(|| LaunchError::Peer { text: "the peers ended without a result".into() });
        }
    }
}

/// How long to wait for a message before looking for processes that have gone.
const HEAR_LIMIT: Duration = Duration::from_millis(20);

fn peer_command(job: &Path, index: u16, link: Option<&str>) -> Result<Command, LaunchError> {
    let program = std::env::current_exe().map_err(system("find the own program"))?;
    let mut command = Command::new(program);
    command.arg("peer").arg("--job").arg(job).arg("--index").arg(index.to_string());
    if let Some(link) = link {
        command.arg("--link").arg(link);
    }
    Ok(command)
}

fn note_vanished(crew: &Crew<Message>, failures: &mut Vec<Failure>) {
    for (peer, text) in crew.vanished() {
        if failures.iter().all(|failure| failure.peer != peer) {
            failures.push(Failure { peer, text, rank: 1 });
        }
    }
}

struct Failure {
    peer: u16,
    text: String,
    /// A cause before its echoes: told at first hand, vanished, told at second hand.
    rank: u8,
}

fn report(failures: &[Failure]) -> String {
    let vanished: Vec<&Failure> = failures.iter().filter(|failure| failure.rank == 1).collect();
    let mut lines: Vec<String> = Vec::new();
    for failure in vanished.into_iter().chain(failures.iter().filter(|failure| failure.rank == 0)) {
        lines.push(format!("peer {}: {}", failure.peer, failure.text));
    }
    if lines.is_empty() {
        lines.extend(failures.iter().map(|failure| format!("peer {}: {}", failure.peer, failure.text)));
    }
    lines.dedup();
    format!("the run stopped\n  {}", lines.join("\n  "))
}

/// Processes of a run, and what they say.
pub(crate) struct Crew<Said> {
    children: Vec<Member>,
    told: flume::Sender<(u16, Said)>,
    hear: flume::Receiver<(u16, Said)>,
}

struct Member {
    index: u16,
    child: Child,
    ending: Option<ExitStatus>,
    /// Ends when all that it said was read. What is said last is often read after the process has gone.
    reader: Option<JoinHandle<()>>,
    /// The end of what it said on standard error, where that is not the launcher's own.
    errors: Arc<Mutex<String>>,
}

/// What is kept of a process' standard error.
const ERROR_BYTES_MAX: usize = 4096;

impl<Said> Default for Crew<Said> {
    fn default() -> Crew<Said> {
        let (told, hear) = flume::bounded(1024);
        Crew { children: Vec::new(), told, hear }
    }
}

impl<Said: serde::de::DeserializeOwned + Send + 'static> Crew<Said> {
    /// Starts a process; each line of its standard output that reads as a message is one.
    pub(crate) fn spawn(&mut self, mut command: Command, index: u16) -> Result<(), LaunchError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(system("start a process"))?;
        let reader = child.stdout.take().map(|output| {
            let told = self.told.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Ok(said) = serde_json::from_str(&line)
                        && told.send((index, said)).is_err()
                    {
                        break;
                    }
                }
            })
        });
        let errors = Arc::new(Mutex::new(String::new()));
        if let Some(output) = child.stderr.take() {
            let errors = errors.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let Ok(mut errors) = errors.lock() else { break };
                    errors.push_str(&line);
                    errors.push('\n');
                    while errors.len() > ERROR_BYTES_MAX {
                        let first = errors.find('\n').map_or(errors.len(), |at| at + 1);
                        errors.drain(..first);
                    }
                }
            });
        }
        self.children.push(Member { index, child, ending: None, reader, errors });
        Ok(())
    }

    /// The next message, or none within `limit`; notes processes that have gone meanwhile.
    pub(crate) fn hear(&mut self, limit: Duration) -> Result<Option<(u16, Said)>, LaunchError> {
        if let Ok(message) = self.hear.recv_timeout(limit) {
            return Ok(Some(message));
        }
        for member in self.children.iter_mut().filter(|member| member.ending.is_none()) {
            member.ending = member.child.try_wait().map_err(system("ask for a process"))?;
        }
        Ok(None)
    }

    /// Whether all have gone and all that they said was heard.
    pub(crate) fn all_gone(&self) -> bool {
        // The queue last: a reader that has ended has put everything there.
        self.children.iter().all(Member::is_gone) && self.hear.is_empty()
    }

    pub(crate) fn is_running(&self, index: u16) -> bool {
        self.children.iter().any(|member| member.index == index && member.ending.is_none())
    }

    /// A process that has not gone.
    pub(crate) fn child(&mut self, index: u16) -> Option<&mut Child> {
        self.children.iter_mut().find(|member| member.index == index && member.ending.is_none()).map(|member| &mut member.child)
    }

    /// How a process ended that has gone and been heard to its end, with the end of what it said.
    pub(crate) fn ending(&self, index: u16) -> Option<String> {
        let member = self.children.iter().find(|member| member.index == index)?;
        let status = member.ending.filter(|_| member.is_gone())?;
        let errors = member.errors.lock().map(|errors| errors.trim().to_owned()).unwrap_or_default();
        Some(format!("its process ended: {status}{}{errors}", if errors.is_empty() { "" } else { "\n" }))
    }

    /// Processes that have gone without success and without a word of their own, with how.
    fn vanished(&self) -> impl Iterator<Item = (u16, String)> + '_ {
        let gone = self.children.iter().filter(|member| member.is_gone()).filter_map(|member| Some((member.index, member.ending?)));
        gone.filter(|(_, status)| !status.success() && status.code() != Some(1))
            .map(|(index, status)| (index, format!("its process ended: {status}")))
    }
}

impl Member {
    /// Whether it has ended, and all that it said is in the queue.
    fn is_gone(&self) -> bool {
        self.ending.is_some() && self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<Said> Drop for Crew<Said> {
    fn drop(&mut self) {
        for member in &mut self.children {
            // Gone already is as good.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_process_is_heard_though_it_has_gone() {
        let mut crew: Crew<u32> = Crew::default();
        let mut command = Command::new("sh");
        // What it says arrives long after its end.
        command.args(["-c", "(sleep 0.2; echo 7) & exit 0"]);
        crew.spawn(command, 0).expect("a process");
        let mut heard = Vec::new();
        while !crew.all_gone() {
            heard.extend(crew.hear(HEAR_LIMIT).expect("listens"));
        }
        assert_eq!(heard, [(0, 7)]);
        assert!(crew.ending(0).is_some_and(|ending| ending.contains("exit status: 0")));
    }
}
