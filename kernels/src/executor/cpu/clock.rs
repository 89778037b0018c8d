//! The time limit of a dispatch where no other thread could watch it: in a browser's worker, code that runs looks at the
//! clock itself, now and then.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use js_sys::{Function, Reflect, global};
use wasm_bindgen::{JsCast, JsValue};

/// Looks that the interpreter skips between two at the clock.
const SKIPPED: u32 = 1 << 10;

thread_local! {
    /// When the dispatch under way has to end, in milliseconds of `performance.now()`.
    static DEADLINE_MS: Cell<f64> = const { Cell::new(f64::INFINITY) };
    static LEFT: Cell<u32> = const { Cell::new(SKIPPED) };
    static NOW: RefCell<Option<(JsValue, Function)>> = const { RefCell::new(None) };
}

/// A dispatch begins that may take `limit`.
pub(super) fn begin(limit: Duration) {
    DEADLINE_MS.set(now_ms() + limit.as_secs_f64() * 1e3);
}

/// The dispatch under way was not, for so long.
pub(super) fn postpone(ms: f64) {
    DEADLINE_MS.set(DEADLINE_MS.get() + ms);
}

/// Whether the dispatch under way has to end.
pub(super) fn is_late() -> bool {
    now_ms() > DEADLINE_MS.get()
}

/// As [`is_late`], for whoever asks so often that a look at the clock would be felt.
pub(super) fn is_late_at_times() -> bool {
    let left = LEFT.get();
    LEFT.set(if left == 0 { SKIPPED } else { left - 1 });
    left == 0 && is_late()
}

/// Without a clock, time stands still: a worker has one.
pub(super) fn now_ms() -> f64 {
    NOW.with_borrow_mut(|known| {
        if known.is_none() {
            let performance = Reflect::get(&global(), &"performance".into()).ok();
            *known = performance.and_then(|clock| Some((clock.clone(), Reflect::get(&clock, &"now".into()).ok()?.dyn_into().ok()?)));
        }
        let now = known.as_ref().and_then(|(clock, now)| now.call0(clock).ok()?.as_f64());
        now.unwrap_or(0.0)
    })
}
