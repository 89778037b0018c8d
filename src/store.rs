//! A run's store: what of it lies on disk, and the thread that puts it there.
//!
//! ```text
//!  node ── snapshot, epoch ────► [ the latest of each ] ──► thread ── ColdStore
//!  node ◄─ stored, failed ────── [ a few ]  ◄──────────────┘
//! ```
//!
//! Beside the snapshots lies a record of the run: what it computes, who was in it, its invitation, and the secret of this
//! peer's identity, which is why the file is its owner's alone. Invariants: a disk, however slow or full, never holds up a
//! tick; a store of another workload is refused before anything in it is changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use peercompute_buffers::cold::disk::DiskRecords;
use peercompute_buffers::cold::{self, ColdError, ColdStore};
use peercompute_kernels::VerifiedBundle;
use peercompute_net::membership::{PartId, Parts, Stored, Version};
use serde::{Deserialize, Serialize};

use crate::keys::Named;
use crate::node::member::SharedTask;
use crate::node::plan::ParamChange;

/// The record's key.
const RECORD: &str = "run";
/// What the thread may have to say that nobody has heard yet.
const HEARD_MAX: usize = 64;
/// The most addresses of members that are kept.
const ADDRESSES_MAX: usize = 256;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store itself.
    #[error("`{}`: {cause}", path.display())]
    Cold {
        /// The file.
        path: PathBuf,
        /// Its word.
        cause: ColdError,
    },
    /// It holds a run of something else.
    #[error("`{}` holds a run of {found}, and this is {given}: name another file, or the workload that it was made with", path.display())]
    OtherWorkload {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: Named,
        /// What was to be hosted.
        given: Named,
    },
    /// What lies beside the snapshots is not a run's record, or does not fit it.
    #[error("`{}` is damaged: {cause}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The system gave no file or thread.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        cause: std::io::Error,
    },
}

/// What is kept of a run beside its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The workload's name.
    pub workload: String,
    /// Its version.
    pub version: String,
    /// The hash of its bundle, as hexadecimal.
    pub bundle: String,
    /// The invitation, as hexadecimal.
    pub token: String,
    /// The secret of the host's identity, as hexadecimal.
    pub identity_seed: String,
    /// Where the run ends; `u64::MAX` where it does not.
    pub end: u64,
    /// What all nodes are told.
    pub task: SharedTask,
    /// Where its members were last.
    pub members: Vec<String>,
}

impl Record {
    /// What it was made with.
    pub fn named(&self) -> Named {
        Named { name: self.workload.clone(), version: self.version.clone(), bundle: self.bundle.clone() }
    }
}

/// An open store.
pub struct RunStore {
    path: PathBuf,
    store: ColdStore<Bytes>,
    record: Option<Record>,
}

impl RunStore {
    /// Opens a file, or makes it.
    ///
    /// **Errors:** [`StoreError`].
    pub fn open(path: &Path, bundle: &VerifiedBundle) -> Result<RunStore, StoreError> {
        make_private(path).map_err(|cause| StoreError::System { action: "make", path: path.into(), cause })?;
        let cold = |cause| StoreError::Cold { path: path.into(), cause };
        let store = ColdStore::open(DiskRecords::open(path).map_err(cold)?).map_err(cold)?;
        let record: Option<Record> = match store.meta(RECORD).map_err(cold)? {
            Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(|cause| StoreError::Record { path: path.into(), cause: cause.to_string() })?),
            None => None,
        };
        let given = Named::of(bundle);
        match record.as_ref().map(Record::named) {
            Some(found) if found.bundle != given.bundle => Err(StoreError::OtherWorkload { path: path.into(), found, given }),
            _ => Ok(RunStore { path: path.into(), store, record }),
        }
    }

    /// The run that is in it.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The newest state that is in it.
    ///
    /// **Errors:** the store is damaged, or its parts are not this run's.
    pub fn newest(&self, parts: &Parts) -> Result<Option<Stored>, StoreError> {
        let newest = self.store.newest().map_err(|cause| StoreError::Cold { path: self.path.clone(), cause })?;
        let Some(newest) = newest else { return Ok(None) };
        let stored = Stored { epoch: newest.version.epoch, tick: newest.version.tick, parts: newest.parts.into_iter().map(Bytes::from).collect() };
        let fits = |(part, content): (PartId, &Bytes)| content.len() == parts.bytes(part) as usize;
        if stored.parts.len() != parts.count() || !(0..).map(PartId).zip(&stored.parts).all(fits) {
            return Err(StoreError::Record { path: self.path.clone(), cause: "its parts are not those of the workload".into() });
        }
        Ok(Some(stored))
    }

    /// Keeps what a run is.
    ///
    /// **Errors:** it cannot be written.
    pub fn keep(&mut self, record: Record) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(&record).map_err(|cause| StoreError::Record { path: self.path.clone(), cause: cause.to_string() })?;
        self.store.put_meta(RECORD, &bytes).map_err(|cause| StoreError::Cold { path: self.path.clone(), cause })?;
        self.record = Some(record);
        Ok(())
    }

    /// Gives the store to a thread of its own.
    ///
    /// **Errors:** the system gives no thread.
    pub fn in_thread(self) -> Result<Storing, StoreError> {
        let path = self.path.clone();
        let shared = Arc::new((Mutex::new(Due::default()), Condvar::new()));
        let (told, heard) = flume::bounded(HEARD_MAX);
        let worker = Worker { store: self, shared: shared.clone(), told };
        let thread = std::thread::Builder::new().name("peercompute-store".to_owned()).spawn(move || worker.work());
        let thread = thread.map_err(|cause| StoreError::System { action: "start a thread for", path, cause })?;
        Ok(Storing { shared, heard, thread: Some(thread) })
    }
}

/// Makes a file that its owner alone can read, if there is none.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What the thread has to do: the latest of each, because only that counts.
#[derive(Default)]
struct Due {
    snapshot: Option<(Version, Vec<Bytes>)>,
    epoch: Option<Entered>,
    is_over: bool,
}

/// What an epoch changes about a run.
struct Entered {
    /// Where its members can be reached.
    members: Vec<String>,
    /// Parameters that members have changed.
    changes: Vec<ParamChange>,
}

/// What became of something that was to be stored.
#[derive(Debug)]
pub enum Heard {
    /// The state before this tick is on disk.
    Stored {
        /// The tick.
        tick: u64,
    },
    /// Nothing more will be stored.
    Failed(StoreError),
}

/// A store at work. Dropping it waits until what was given is written.
pub struct Storing {
    shared: Arc<(Mutex<Due>, Condvar)>,
    heard: flume::Receiver<Heard>,
    thread: Option<JoinHandle<()>>,
}

impl Storing {
    /// Stores a state; in place of one that is still waiting.
    pub fn put(&self, version: Version, parts: Vec<Bytes>) {
        self.due(|due| due.snapshot = Some((version, parts)));
    }

    /// Notes where members can be reached, and what they have changed.
    pub fn entered(&self, addresses: impl Iterator<Item = String>, changes: Vec<ParamChange>) {
        let addresses = addresses.take(ADDRESSES_MAX).collect();
        self.due(|due| due.epoch = Some(Entered { members: addresses, changes }));
    }

    /// What has become of what was given, if that is not known yet.
    pub fn heard(&self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }

    /// Waits until all is written.
    pub fn finish(mut self) -> Vec<Heard> {
        self.end();
        self.heard.try_iter().collect()
    }

    fn due(&self, change: impl FnOnce(&mut Due)) {
        let (due, changed) = &*self.shared;
        change(&mut due.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_one();
    }

    fn end(&mut self) {
        self.due(|due| due.is_over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    store: RunStore,
    shared: Arc<(Mutex<Due>, Condvar)>,
    told: flume::Sender<Heard>,
}

impl Worker {
    fn work(mut self) {
        while let Some((snapshot, epoch)) = self.wait() {
            let done = self.write(snapshot, epoch);
            if let Err(error) = done {
                // The run goes on; who reads this decides what is to be done.
                let _ = self.told.try_send(Heard::Failed(error));
                return;
            }
        }
    }

    fn write(&mut self, snapshot: Option<(Version, Vec<Bytes>)>, epoch: Option<Entered>) -> Result<(), StoreError> {
        if let (Some(Entered { members, changes }), Some(mut record)) = (epoch, self.store.record.clone()) {
            let new: Vec<ParamChange> = changes.into_iter().filter(|change| !record.task.changes.contains(change)).collect();
            if record.members != members || !new.is_empty() {
                record.members = members;
                record.task.changes.extend(new);
                self.store.keep(record)?;
            }
        }
        if let Some((version, parts)) = snapshot {
            let of = cold::Version { epoch: version.epoch, tick: version.tick };
            self.store.store.put_snapshot(of, parts).map_err(|cause| StoreError::Cold { path: self.store.path.clone(), cause })?;
            let _ = self.told.try_send(Heard::Stored { tick: version.tick });
        }
        Ok(())
    }

    /// What is to be done next; nothing once all is done and nothing more comes.
    #[allow(clippy::type_complexity, reason = "the two halves of what is due, used at once")]
    fn wait(&self) -> Option<(Option<(Version, Vec<Bytes>)>, Option<Entered>)> {
        let (due, changed) = &*self.shared;
        let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if due.snapshot.is_some() || due.epoch.is_some() {
                return Some((due.snapshot.take(), due.epoch.take()));
            }
            if due.is_over {
                return None;
            }
            due = changed.wait(due).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
