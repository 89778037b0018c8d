//! The executors of a browser that the suite runs on, and runs of workloads on them.
//!
//! Invariant: what the cpu executor computes there alone is what it computes natively, byte for byte; every run says so.

use std::cell::RefCell;
use std::time::Duration;

use peercompute_bench::browser::{Job, Page, Session, Side};
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::Borders;

use crate::cases::{Kind, State};
use crate::native;

/// How long a browser may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Does something while a browser is there for [`run`] and [`refusal`].
pub(crate) fn in_a_browser<T>(work: impl FnOnce() -> T) -> T {
    let session = Session::start(Page::Isolated, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    SESSION.set(Some(session));
    let made = work();
    SESSION.set(None);
    made
}

/// An executor of the browser, which opens it when it is first used.
pub(crate) struct Opened {
    kind: Kind,
    side: Side,
}

pub(crate) fn open(kind: Kind, borders: Borders, page_bytes_max: Option<u64>) -> Opened {
    let (executor, threads) = match kind {
        Kind::Gpu => ("gpu", 1),
        Kind::Cpu => ("cpu", 2),
        Kind::Interpreted => ("interpreter", 1),
    };
    let are_borders_apart = Some(borders == Borders::Apart);
    Opened { kind, side: Side { executor: executor.into(), threads: Some(threads), page_bytes_max, are_borders_apart } }
}

/// Does a job of one side; what that made, or why not.
fn ask(side: &Side, bundle: &VerifiedBundle, peers: usize, ticks: u64, buffers: Vec<String>) -> Result<State, String> {
    let job = Job {
        bundle: bundle.bytes().to_vec(),
        key: bundle.signer().to_string(),
        sides: vec![side.clone()],
        peers: Some(peers as u32),
        ticks: ticks as u32,
        buffers: buffers.clone(),
        ..Job::default()
    };
    let answer = SESSION.with_borrow_mut(|session| session.as_mut().expect("a browser that answers").run(&job));
    let answer = answer.unwrap_or_else(|error| {
        // Nothing else is asked of it.
        SESSION.set(None);
        panic!("{error}")
    });
    let outcome = answer?.remove(0);
    Ok(State { buffers: buffers.into_iter().zip(outcome.buffers).collect(), hash: outcome.hash })
}

/// The state after `ticks` ticks on `peers` peers.
pub(crate) fn run(executor: &Opened, bundle: &VerifiedBundle, peers: usize, ticks: u64) -> State {
    let names = bundle.program().manifest.buffers.iter().map(|buffer| buffer.name.clone()).collect();
    let state = ask(&executor.side, bundle, peers, ticks, names).unwrap_or_else(|error| panic!("{error}"));
    if executor.kind != Kind::Gpu && peers == 1 {
        let here = native::run(&native::open(Kind::Cpu, Borders::Apart, None), bundle, 1, ticks);
        assert!(state == here, "{} differs from what it is natively", bundle.program().manifest.name);
    }
    state
}

/// Why an executor does not take a workload, if it does not.
pub(crate) fn refusal(kind: Kind, page_bytes_max: Option<u64>, bundle: &VerifiedBundle) -> Option<String> {
    let refused = ask(&open(kind, Borders::InPlace, page_bytes_max).side, bundle, 1, 0, Vec::new()).err();
    if kind != Kind::Gpu {
        let here = native::refusal(kind, page_bytes_max, bundle);
        assert_eq!(refused.is_some(), here.is_some(), "{refused:?} there, {here:?} here");
    }
    refused
}
