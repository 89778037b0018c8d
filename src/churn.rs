//! A run of several processes that come and go as a chaos list says.
//!
//! The launcher is no peer. It starts `host` and `join` as a user would, reads their lines, and does to them what the list
//! says once somebody has come to the tick. Invariants: whatever it did, it ends with a report, and leaves no process behind;
//! what it did is in the report.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use peercompute_kernels::executor::any::Choice;
use serde::{Deserialize, Serialize};

use crate::chaos::{Deed, Item};
use crate::launch::{BufferFile, Crew, LaunchError, Summary};
use crate::link::Link;
use crate::node::Progress;
use crate::node::plan::ParamChange;
use crate::told::{Line, Present};

/// Gaps between first-time ticks count as lost where they are longer than this, and begin within that time of a deed: a busy
/// machine has gaps of its own.
const GAP_MIN: Duration = Duration::from_millis(250);
const GAP_AFTER_DEED: Duration = Duration::from_secs(2);
/// How long others may take to end once one has.
const END_LIMIT: Duration = Duration::from_secs(8);
/// The most addresses that a newcomer is given.
const ADDRESSES_MAX: usize = 8;

/// What to run, and what is to happen.
#[derive(Clone, Debug)]
pub struct ChurnJob {
    /// The bundle's file.
    pub bundle: PathBuf,
    /// The key to trust for it.
    pub trust: String,
    /// Peers at the start.
    pub peers: u16,
    /// Ticks.
    pub ticks: u64,
    /// Parameters that change on the way.
    pub changes: Vec<ParamChange>,
    /// Files that replace what init made.
    pub imports: Vec<BufferFile>,
    /// NumPy files that peer 0 writes at the end.
    pub exports: Vec<BufferFile>,
    /// Pictures that peer 0 writes at the end.
    pub images: Vec<BufferFile>,
    /// What runs the kernels.
    pub executor: Choice,
    /// Threads of each peer's cpu executor.
    pub threads: usize,
    /// Whether kernels run without bounds checks, on a GPU.
    pub unchecked: bool,
    /// Whether the peers talk over QUIC.
    pub is_quic: bool,
    /// Copies of every snapshot's part beside its owner's.
    pub replicas: u16,
    /// Between two snapshots.
    pub snapshot_every: Duration,
    /// What happens.
    pub items: Vec<Item>,
    /// What peers that are not named are drawn by.
    pub seed: u64,
    /// Whether an item waits until the run is whole again after the one before.
    pub is_patient: bool,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// What.
    pub deed: String,
    /// The furthest tick that anybody had come to.
    pub tick: u64,
    /// Whom it struck.
    pub peer: Option<u16>,
    /// Why it was not done after all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Churned {
    /// As of any run.
    pub summary: Summary,
    /// How many epochs there were.
    pub epochs: u32,
    /// How many members were lost.
    pub losses: usize,
    /// Time in which nobody came to a new tick.
    pub seconds_lost: f64,
    /// What was done.
    pub chaos: Vec<Done>,
}

/// What a peer says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// How it goes.
    Line(Line),
    /// Why it failed.
    Failed {
        /// The error's text.
        error: String,
    },
}

/// One process, as far as the launcher knows it.
#[derive(Debug, Default)]
struct Peer {
    link: Option<Link>,
    /// Its number in the run, its epoch, and who is in that.
    me: u32,
    epoch: u32,
    members: Vec<Present>,
    suspected: Vec<u32>,
    /// It is no more, or will not be.
    is_leaving: bool,
    was_frozen: bool,
    thaws_at: Option<Instant>,
    done: Option<(u32, Summary)>,
    failed: Option<String>,
}

/// A run under way.
struct Upheaval<'a> {
    job: &'a ChurnJob,
    crew: Crew<Said>,
    peers: Vec<Peer>,
    lot: fastrand::Rng,
    /// The furthest tick, and when it was first come to.
    furthest: u64,
    furthest_at: Option<Instant>,
    /// When the last deed was done that the run must recover from, and the last of any.
    struck_at: Option<Instant>,
    stirred_at: Option<Instant>,
    /// Since when everybody that is there computes in one epoch.
    whole_at: Option<Instant>,
    lost: BTreeSet<u32>,
    churned: Churned,
}

/// Starts a job's processes, does what its list says, and sees them through.
///
/// **Errors:** [`LaunchError::Peer`] with what the peers said; [`LaunchError::Differs`] where they disagree.
#[allow(clippy::disallowed_methods, reason = "how long processes take is not the machine's business")]
pub fn run(job: &ChurnJob, progress: &mut dyn FnMut(Progress)) -> Result<Churned, LaunchError> {
    let mut upheaval = Upheaval {
        job,
        crew: Crew::default(),
        peers: Vec::new(),
        lot: fastrand::Rng::with_seed(job.seed),
        furthest: 0,
        furthest_at: None,
        struck_at: None,
        stirred_at: None,
        whole_at: None,
        lost: BTreeSet::new(),
        churned: Churned::default(),
    };
    upheaval.start()?;
    let mut items = job.items.iter().peekable();
    let mut give_up_at = None;
    loop {
        upheaval.hear(progress)?;
        upheaval.thaw();
        if upheaval.peers.len() < usize::from(job.peers) {
            if upheaval.peers[0].link.is_some() {
                (1..job.peers).try_for_each(|_| upheaval.start())?;
            }
        } else if let Some(item) = items.next_if(|item| item.tick <= upheaval.furthest && upheaval.is_ready()) {
            upheaval.strike(&item.deed)?;
        }
        let is_over = upheaval.peers.iter().any(|peer| peer.done.is_some());
        if is_over {
            let at = *give_up_at.get_or_insert_with(|| Instant::now() + END_LIMIT);
            if upheaval.crew.all_gone() || Instant::now() > at {
                let rest = items.map(|item| Done {
                    deed: item.deed.to_string(),
                    tick: item.tick,
                    peer: item.deed.peer(),
                    skipped: Some("the run was over before".into()),
                });
                upheaval.churned.chaos.extend(rest);
                return upheaval.end();
            }
        } else if upheaval.crew.all_gone() {
            return Err(LaunchError::Peer { text: upheaval.report() });
        }
    }
}

impl Upheaval<'_> {
    /// Starts another peer.
    fn start(&mut self) -> Result<(), LaunchError> {
        let (job, index) = (self.job, self.peers.len() as u16);
        let program = std::env::current_exe().map_err(|cause| LaunchError::System { action: "find the own program", cause })?;
        let mut command = Command::new(program);
        if index == 0 {
            command.arg("host").arg(&job.bundle).args(["--ticks", &job.ticks.to_string(), "--assemble", &job.peers.to_string()]);
            command.args(["--replicas", &job.replicas.to_string()]);
            command.args(["--snapshot-every", &job.snapshot_every.as_secs_f64().to_string()]);
            command.args(["--transport", if job.is_quic { "quic" } else { "tcp" }]);
            for change in &job.changes {
                command.arg("--set").arg(format!("{}={}@{}", change.name, change.value, change.tick));
            }
            for (flag, files) in [("--export", &job.exports), ("--image", &job.images)] {
                for (name, path) in files {
                    command.arg(flag).arg(named(name, path));
                }
            }
        } else {
            let link = self.link()?.to_string();
            command.arg("join").arg(link).arg("--bundle").arg(&job.bundle).arg("--seeds");
        }
        for (name, path) in &job.imports {
            command.arg("--import").arg(named(name, path));
        }
        command.args(["--trust", &job.trust, "--name", &format!("peer {index}"), "--executor", &job.executor.to_string()]);
        command.args(["--threads", &job.threads.to_string(), "--json", "--control"]);
        if job.unchecked {
            command.arg("--unchecked");
        }
        self.crew.spawn(command, index)?;
        self.peers.push(Peer::default());
        Ok(())
    }

    /// A link to those that can be joined now.
    fn link(&self) -> Result<Link, LaunchError> {
        let there = self.peers.iter().enumerate().filter(|(index, peer)| self.is_there(*index) && peer.thaws_at.is_none());
        let mut links = there.filter_map(|(_, peer)| peer.link.clone());
        let mut link = links.next().ok_or_else(|| LaunchError::Peer { text: "nobody is left to join".into() })?;
        link.addresses.extend(links.flat_map(|link| link.addresses).take(ADDRESSES_MAX - 1));
        Ok(link)
    }

    /// Whether a peer's process runs and is not on its way out.
    fn is_there(&self, index: usize) -> bool {
        let peer = &self.peers[index];
        !peer.is_leaving && peer.failed.is_none() && peer.done.is_none() && self.crew.is_running(index as u16)
    }

    /// Takes in a message, or notes who has gone.
    #[allow(clippy::disallowed_methods, reason = "the time between two ticks is reported")]
    fn hear(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), LaunchError> {
        let Some((index, said)) = self.crew.hear(Duration::from_millis(5))? else { return Ok(()) };
        let peer = &mut self.peers[usize::from(index)];
        match said {
            Said::Failed { error } => peer.failed = Some(error),
            Said::Line(Line::Listening { link }) => peer.link = link.parse().ok(),
            Said::Line(Line::Epoch { epoch, me, members, .. }) => {
                // Who was suspected by one that is still in, and is not in any more itself. One that slept suspects everybody.
                let suspected = std::mem::take(&mut peer.suspected);
                if peer.me == me {
                    self.lost.extend(suspected.into_iter().filter(|id| members.iter().all(|member| member.id != *id)));
                }
                (peer.epoch, peer.me, peer.members) = (epoch, me, members);
            }
            Said::Line(Line::Lost { id, .. }) => peer.suspected.push(id),
            Said::Line(Line::Done { epoch, summary, .. }) => peer.done = Some((epoch, summary)),
            Said::Line(Line::Progress { tick, seconds, shipped_bytes, .. }) if tick > self.furthest => {
                let now = Instant::now();
                let gap = self.furthest_at.map_or(Duration::ZERO, |at| now - at);
                let is_of_deed = self.stirred_at.zip(self.furthest_at).is_some_and(|(stirred, at)| at <= stirred + GAP_AFTER_DEED);
                if gap >= GAP_MIN && is_of_deed {
                    self.churned.seconds_lost += gap.as_secs_f64();
                }
                (self.furthest, self.furthest_at) = (tick, Some(now));
                progress(Progress { tick, seconds, shipped_bytes });
            }
            Said::Line(_) => {}
        }
        Ok(())
    }

    /// Wakes those whose time has come.
    #[allow(clippy::disallowed_methods, reason = "a process is frozen for a time")]
    fn thaw(&mut self) {
        let now = Instant::now();
        for (index, peer) in (0u16..).zip(&mut self.peers) {
            if peer.thaws_at.is_some_and(|at| at <= now) {
                peer.thaws_at = None;
                self.crew.child(index).into_iter().for_each(|child| drop(signal(child, Signal::Continue)));
            }
        }
    }

    /// Whether the next item may be done: at once, or once everybody that is there computes in one epoch, nobody is frozen,
    /// and snapshots have had the time to be safe again.
    #[allow(clippy::disallowed_methods, reason = "how long processes take is not the machine's business")]
    fn is_ready(&mut self) -> bool {
        if !self.job.is_patient {
            return true;
        }
        let there: Vec<&Peer> = (0..self.peers.len()).filter(|index| self.is_there(*index)).map(|index| &self.peers[index]).collect();
        let epoch = there.iter().map(|peer| peer.epoch).max().unwrap_or(0);
        let is_whole = there.iter().all(|peer| peer.epoch == epoch && peer.thaws_at.is_none() && peer.members.len() == there.len());
        // Not since the deed: what a new epoch begins from has one copy until its first snapshot is complete.
        self.whole_at = self.whole_at.filter(|_| is_whole).or_else(|| is_whole.then(Instant::now));
        self.whole_at.is_some_and(|at| self.struck_at.is_none() || at.elapsed() >= self.job.snapshot_every * 3)
    }

    /// Does one thing.
    #[allow(clippy::disallowed_methods, reason = "a process is frozen for a time")]
    fn strike(&mut self, deed: &Deed) -> Result<(), LaunchError> {
        let mut done = Done { deed: deed.to_string(), tick: self.furthest, peer: None, skipped: None };
        self.stirred_at = Some(Instant::now());
        self.whole_at = None;
        if *deed == Deed::Join {
            if self.link().is_err() {
                // All that are left have come to the end, or are on their way out.
                done.skipped = Some("nobody was left to join".into());
                self.churned.chaos.push(done);
                return Ok(());
            }
            done.peer = Some(self.peers.len() as u16);
            self.start()?;
            self.churned.chaos.push(done);
            return Ok(());
        }
        // Who exports is spared where the lot decides.
        let exports = !(self.job.exports.is_empty() && self.job.images.is_empty());
        let is_free = |index: &usize| self.is_there(*index) && self.peers[*index].thaws_at.is_none() && self.peers[*index].epoch > 0;
        let free: Vec<usize> = (usize::from(exports)..self.peers.len()).filter(is_free).collect();
        let index = match deed.peer() {
            Some(peer) => Some(usize::from(peer)).filter(|index| is_free(index)),
            None => self.lot.choice(&free).copied(),
        };
        let Some(index) = index else {
            done.peer = deed.peer();
            done.skipped = Some(if deed.peer().is_some() { "that peer is not there".into() } else { "nobody is there".into() });
            self.churned.chaos.push(done);
            return Ok(());
        };
        done.peer = Some(index as u16);
        let peer = &mut self.peers[index];
        if let Some(child) = self.crew.child(index as u16) {
            let struck = match deed {
                Deed::Kill(_) => {
                    peer.is_leaving = true;
                    child.kill()
                }
                Deed::Leave(_) => {
                    peer.is_leaving = true;
                    signal(child, Signal::Interrupt)
                }
                Deed::Freeze(_, time) => {
                    peer.was_frozen = true;
                    peer.thaws_at = Some(Instant::now() + *time);
                    signal(child, Signal::Stop)
                }
                Deed::Slow(_, part) => order(child, &format!("throttle {part}")),
                Deed::Join => Ok(()),
            };
            struck.map_err(|cause| LaunchError::System { action: "strike a peer", cause })?;
        }
        if matches!(deed, Deed::Kill(_) | Deed::Freeze(..)) {
            self.struck_at = Some(Instant::now());
        }
        self.churned.chaos.push(done);
        Ok(())
    }

    /// What the run came to, from everybody that reached the end.
    fn end(mut self) -> Result<Churned, LaunchError> {
        let mut results = self.peers.iter().filter_map(|peer| peer.done.clone());
        if let Some((epoch, summary)) = results.next() {
            for (_, other) in results {
                if other.state_hash != summary.state_hash {
                    return Err(LaunchError::Differs { together: other.state_hash, alone: summary.state_hash });
                }
            }
            (self.churned.epochs, self.churned.summary) = (epoch, summary);
        }
        // One that slept, or came too late, may find nobody; for anybody else it is an error.
        let is_excused = |peer: &&Peer| peer.was_frozen || peer.is_leaving || peer.epoch == 0;
        if self.peers.iter().filter(|peer| !is_excused(peer)).any(|peer| peer.failed.is_some()) {
            return Err(LaunchError::Peer { text: self.report() });
        }
        if !(self.job.exports.is_empty() && self.job.images.is_empty()) && self.peers[0].done.is_none() {
            return Err(LaunchError::ExportsLost);
        }
        self.churned.losses = self.lost.len();
        Ok(self.churned)
    }

    /// What the peers say went wrong.
    fn report(&self) -> String {
        let mut lines = Vec::new();
        for (index, peer) in (0u16..).zip(&self.peers) {
            match (&peer.failed, self.crew.ending(index)) {
                (Some(error), _) => lines.push(format!("peer {index}: {error}")),
                (None, Some(ending)) if !peer.is_leaving && peer.done.is_none() => lines.push(format!("peer {index}: {ending}")),
                _ => {}
            }
        }
        let done: Vec<String> = self.churned.chaos.iter().map(|done| format!("{}@{}", done.deed, done.tick)).collect();
        format!("the run stopped at tick {} after `{}`\n  {}", self.furthest, done.join(", "), lines.join("\n  "))
    }
}

fn named(name: &str, path: &std::path::Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(format!("{name}="));
    argument.push(path);
    argument
}

fn order(child: &mut Child, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    match child.stdin.as_mut() {
        Some(input) => writeln!(input, "{text}").and_then(|()| input.flush()),
        None => Ok(()),
    }
}

enum Signal {
    Stop,
    Continue,
    Interrupt,
}

#[cfg(unix)]
fn signal(child: &mut Child, signal: Signal) -> std::io::Result<()> {
    use rustix::process::{Pid, Signal as Of, kill_process};
    let of = match signal {
        Signal::Stop => Of::STOP,
        Signal::Continue => Of::CONT,
        Signal::Interrupt => Of::INT,
    };
    match Pid::from_raw(child.id() as i32) {
        Some(pid) => kill_process(pid, of).map_err(Into::into),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
fn signal(child: &mut Child, signal: Signal) -> std::io::Result<()> {
    match signal {
        Signal::Interrupt => order(child, "leave"),
        Signal::Stop => Err(std::io::Error::other("processes are frozen on Unix only")),
        Signal::Continue => Ok(()),
    }
}
