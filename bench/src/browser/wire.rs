//! What a browser's link carries, against a bare WebSocket of the same worker that talks to the same process.

use std::time::Duration;

use peercompute_net::transport::probe::Answering;
use serde::{Deserialize, Serialize};

use super::{BrowserError, Page, Session};
use crate::report::{Figure, Kind};
use crate::rounds::Rounds;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of a bare WebSocket's throughput a link must keep: it encrypts, and shares the connection out.
const TARGET: f64 = 0.6;
const PATIENCE: Duration = Duration::from_secs(120);
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0/ws";

#[derive(Serialize)]
struct Job {
    wire: Order,
}

#[derive(Serialize)]
struct Order {
    address: String,
    bare: String,
    size: u32,
    count: u32,
    rounds: u32,
    trips: u32,
}

/// Seconds of each round: the link, the bare WebSocket.
#[derive(Debug, Deserialize)]
pub(super) struct Measured {
    up: Vec<[f64; 2]>,
    down: Vec<[f64; 2]>,
    trips: Vec<[f64; 2]>,
    connected: Vec<[f64; 2]>,
}

/// Measures one worker.
///
/// **Errors:** the browser's.
pub(crate) fn figures(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (rounds, trips, total) = match options.effort {
        Effort::Tiny => (1, 3, 0),
        Effort::Quick => (5, 200, 16 << 20),
        Effort::Full => (15, 1000, 64 << 20),
    };
    let answering = Answering::start(LISTEN).map_err(|error| BenchError::Net { cause: error.to_string() })?;
    let mut session = Session::start(Page::Isolated, PATIENCE)?;
    for size in [16 << 10, 256 << 10] {
        progress(&format!("wire: frames of {} KiB", size >> 10));
        let count = (total / size).max(2);
        let order = Order { address: answering.address().to_owned(), bare: answering.bare_url(), size, count, rounds, trips };
        let (said, _) = session.ask(&Job { wire: order }, &[])?;
        let measured = said.wire.ok_or_else(|| BrowserError::Failed { cause: said.failed.unwrap_or_default() })?;
        for (way, seconds) in [("up", measured.up), ("down", measured.down)] {
            let case = format!("{way}, frames of {} KiB, loopback", size >> 10);
            let rounds = Rounds { repeats: count, seconds };
            let figure = rounds.figure(Bench::Wire, case, Kind::Speed, "MB/s", f64::from(size) / 1e6, "a bare WebSocket of the same worker");
            figures.push(figure.with_target(Some(TARGET)));
        }
        if size == 16 << 10 {
            let trips = Rounds { repeats: 1, seconds: measured.trips };
            let notes = median_ms("1 KiB there and back", &trips.seconds);
            let mut figure =
                trips.figure(Bench::Wire, "1 KiB there and back".into(), Kind::Context, "1/s", 1.0, "a bare WebSocket of the same worker");
            figure.notes.push(notes);
            figures.push(figure);
            let connected = Rounds { repeats: 1, seconds: measured.connected };
            let notes = median_ms("from the dial to the open link", &connected.seconds);
            let mut figure = connected.figure(Bench::Wire, "connections".into(), Kind::Context, "1/s", 1.0, "a bare WebSocket of the same worker");
            figure.notes.push(notes);
            figures.push(figure);
        }
    }
    Ok(())
}

fn median_ms(what: &str, seconds: &[[f64; 2]]) -> String {
    let median = |side: usize| {
        let mut all: Vec<f64> = seconds.iter().map(|both| both[side] * 1e3).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    format!("{what}: {:.2} ms in the median, {:.2} ms bare", median(0), median(1))
}
