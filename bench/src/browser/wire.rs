//! What a browser's link carries, against a bare WebSocket of the same worker that talks to the same process.

use std::time::Duration;

use peercompute_net::transport::probe::Answering;
use serde::{Deserialize, Serialize};

use super::{BrowserError, Page, Session};
use crate::report::{Figure, Kind};
use crate::rounds::Rounds;
use crate::{Bench, BenchError, BenchOptions, Effort};

/// What of a bare WebSocket's throughput is to be kept: by the transport, and by a link on it, which encrypts and shares the connection out.
const TARGET: f64 = 0.6;
const TWIN: &str = "a bare WebSocket of the same worker";
const PATIENCE: Duration = Duration::from_secs(120);
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0/ws";

#[derive(Serialize)]
struct Job {
    wire: Order,
}

#[derive(Serialize)]
struct Order {
    address: String,
    stream: String,
    bare: String,
    size: u32,
    count: u32,
    rounds: u32,
    trips: u32,
}

/// Seconds of each round: a link, the transport's stream below it, and a bare WebSocket.
type Seconds = Vec<[f64; 3]>;

#[derive(Debug, Deserialize)]
pub(super) struct Measured {
    up: Seconds,
    down: Seconds,
    trips: Seconds,
    connected: Seconds,
}

/// What is held against a bare WebSocket.
#[derive(Clone, Copy)]
enum Side {
    Link,
    Stream,
}

impl Side {
    const ALL: [Side; 2] = [Side::Stream, Side::Link];

    fn name(self) -> &'static str {
        match self {
            Side::Link => "a link",
            Side::Stream => "the WebSocket transport alone",
        }
    }

    fn of(self, seconds: &Seconds, repeats: u32) -> Rounds {
        let own = self as usize;
        Rounds { repeats, seconds: seconds.iter().map(|all| [all[own], all[2]]).collect() }
    }
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
        let order = Order {
            address: answering.address().to_owned(),
            stream: answering.bare_address(),
            bare: answering.bare_url(),
            size,
            count,
            rounds,
            trips,
        };
        let (said, _) = session.ask(&Job { wire: order }, &[])?;
        let measured = said.wire.ok_or_else(|| BrowserError::Failed { cause: said.failed.unwrap_or_default() })?;
        for side in Side::ALL {
            for (way, seconds) in [("up", &measured.up), ("down", &measured.down)] {
                let case = format!("{}, {way}, frames of {} KiB, loopback", side.name(), size >> 10);
                let figure = side.of(seconds, count).figure(Bench::Wire, case, Kind::Speed, "MB/s", f64::from(size) / 1e6, TWIN);
                figures.push(figure.with_target(Some(TARGET)));
            }
            if size == 16 << 10 {
                let both = [("1 KiB there and back", &measured.trips), ("from the dial to where it is open", &measured.connected)];
                for (what, seconds) in both {
                    let rounds = side.of(seconds, 1);
                    let note = median_ms(what, &rounds.seconds);
                    let mut figure = rounds.figure(Bench::Wire, format!("{}, {what}", side.name()), Kind::Context, "1/s", 1.0, TWIN);
                    figure.notes.push(note);
                    figures.push(figure);
                }
            }
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
