//! A dispatch in a browser: piece by piece, between which whatever else its thread has to do has a turn.
//!
//! A tab's network and its kernels share a worker. A pass of a second, in one go, would leave everybody else without a word for as
//! long, and they would do without the tab.
//!
//! ```text
//! piece │ others │ piece │ others │ … │ last piece         pieces of about TURN_MS
//! ```
//!
//! Invariants: one dispatch at a time is under way in a thread, across its turns: the clock and the team of workers are one dispatch's.
//! What others do meanwhile is not counted against its time limit.

use std::cell::OnceCell;
use std::ops::Range;

use wasm_bindgen::prelude::*;

use super::clock;
use super::crew::{Crew, Work};
use super::engine::Dispatch;

/// How long a piece should take: a message from another peer may wait as long.
const TURN_MS: f64 = 8.0;
/// By how much more workgroups the next piece may have than the last.
const GROWTH: f64 = 4.0;
/// Workgroups of the first piece, of so many.
const FIRST_OF: u64 = 64;

#[wasm_bindgen(module = "/src/executor/cpu/turns.js")]
extern "C" {
    #[wasm_bindgen(js_name = giveWay)]
    async fn give_way();
}

thread_local! {
    /// Holds one token while no dispatch is under way.
    static UNDER_WAY: OnceCell<(flume::Sender<()>, flume::Receiver<()>)> = const { OnceCell::new() };
}

/// This thread's dispatch under way. Dropped, another may begin.
struct UnderWay(flume::Sender<()>);

impl UnderWay {
    /// Waits until no other is.
    async fn begin() -> UnderWay {
        let (idle, begin) = UNDER_WAY.with(|channel| {
            channel
                .get_or_init(|| {
                    let (idle, begin) = flume::bounded(1);
                    // There is room for it.
                    let _ = idle.send(());
                    (idle, begin)
                })
                .clone()
        });
        // The other end lives as long as the thread.
        let _ = begin.recv_async().await;
        UnderWay(idle)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // It was taken, so there is room.
        let _ = self.0.try_send(());
    }
}

/// How many workgroups take about as long as a turn.
struct Pace {
    count: u64,
    begun: f64,
}

impl Pace {
    fn new(parts: u64) -> Pace {
        Pace { count: parts.div_ceil(FIRST_OF), begun: clock::now_ms() }
    }

    /// So many have been done: sizes the next piece. Whether it is time for a turn.
    fn done(&mut self, count: u64) -> bool {
        let ms = clock::now_ms() - self.begun;
        let growth = (TURN_MS / ms.max(TURN_MS / GROWTH / 2.0)).min(GROWTH);
        self.count = ((count as f64 * growth) as u64).max(1);
        ms >= TURN_MS / 2.0
    }

    /// Lets others have their turn.
    async fn turn(&mut self) {
        let before = clock::now_ms();
        give_way().await;
        self.begun = clock::now_ms();
        clock::postpone(self.begun - before);
    }
}

/// Runs a dispatch of `parts` workgroups, with the team where there is one and it is not small; whether nothing stopped it.
pub(super) async fn run(dispatch: &Dispatch, crew: &Crew<Dispatch>, parts: u64, is_small: bool) -> bool {
    let _under_way = UnderWay::begin().await;
    if parts <= 1 || !dispatch.has_turns() {
        return crew.run(dispatch, parts, is_small);
    }
    dispatch.begin();
    let mut pace = Pace::new(parts);
    // Few invocations may take long, too.
    let mut published = if is_small { None } else { dispatch.published(parts) };
    let mut first = 0;
    loop {
        let piece: Option<Range<u64>> = match &published {
            Some(published) => published.take(pace.count),
            None => (first < parts).then(|| first..first.saturating_add(pace.count).min(parts)),
        };
        let Some(piece) = piece else { break };
        let count = piece.end - piece.start;
        first = piece.end;
        let mut once = Some(piece);
        if !dispatch.run(&mut || once.take()) {
            return false;
        }
        if pace.done(count) {
            pace.turn().await;
        }
    }
    let Some(published) = &mut published else { return true };
    loop {
        if let Some(is_done) = published.finished(TURN_MS) {
            return is_done;
        }
        pace.turn().await;
    }
}
