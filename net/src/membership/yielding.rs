//! How much of parts may be under way on a link, so that what is small and urgent is not behind it.
//!
//! Ticks wait for strips, and a member that nothing is heard of for a second is taken for lost; parts share their links. So each source
//! is asked for as much as keeps the delay of its answers near the least that was seen: the window grows while answers are prompt and halves when they are late, as LEDBAT (RFC 6817) does for transports that yield. Answers
//! are late too where a busy machine lets threads wait; so the window is never less than what has been seen to come in that time.
//!
//! Invariant: one request may always be under way.

use std::time::Duration;

use super::wire::CHUNK_BYTES;

/// Answers may be later than the least delay by this.
const TARGET: Duration = Duration::from_millis(50);
/// The rate is taken over this, and begun anew after a pause of the other.
const RATE_OVER: Duration = Duration::from_millis(20);
const RATE_GAP: Duration = Duration::from_millis(200);
/// The least delay is forgotten after this: routes change.
const LEAST_FOR: Duration = Duration::from_secs(30);
const WINDOW_MIN: usize = 16 << 10;
const WINDOW_MAX: usize = 4 << 20;

/// What is known of one source.
#[derive(Debug)]
pub(super) struct Yielding {
    window: usize,
    /// The least delay of an answer, and when it was seen.
    least: Option<(Duration, Duration)>,
    /// When the window was last halved: answers to what was asked before say nothing new.
    halved_at: Duration,
    /// **Units**: bytes per second, as they come one after another.
    rate: f64,
    /// Since when bytes are counted for the next rate, how many there are, and when the latest came.
    counted: (Duration, usize, Duration),
}

impl Default for Yielding {
    fn default() -> Yielding {
        Yielding { window: WINDOW_MIN, least: None, halved_at: Duration::ZERO, rate: 0.0, counted: Default::default() }
    }
}

impl Yielding {
    /// Bytes that may be asked for and not be here.
    pub(super) fn window(&self) -> usize {
        let comes = self.rate * TARGET.as_secs_f64();
        self.window.max((comes as usize).min(WINDOW_MAX))
    }

    /// Bytes of one request: several are under way, so that a late answer tells of a queue and not of its own length.
    pub(super) fn request_bytes(&self) -> usize {
        (self.window() / 4).clamp(WINDOW_MIN, CHUNK_BYTES)
    }

    /// So many bytes are here that were asked for then.
    pub(super) fn came(&mut self, bytes: usize, asked_at: Duration, now: Duration) {
        self.count(bytes, now);
        let delay = now.saturating_sub(asked_at);
        let least = match self.least {
            Some((least, at)) if least <= delay && now < at + LEAST_FOR => least,
            _ => {
                self.least = Some((delay, now));
                delay
            }
        };
        if delay <= least + TARGET {
            self.window = (self.window + bytes).min(WINDOW_MAX);
        } else if asked_at >= self.halved_at {
            self.halved_at = now;
            self.window = (self.window / 2).max(WINDOW_MIN);
        }
    }

    fn count(&mut self, bytes: usize, now: Duration) {
        let (since, sum, latest) = self.counted;
        if latest + RATE_GAP <= now {
            // The first says when, not how fast.
            self.counted = (now, 0, now);
            return;
        }
        self.counted = (since, sum + bytes, now);
        let elapsed = now.saturating_sub(since);
        if elapsed >= RATE_OVER {
            let rate = self.counted.1 as f64 / elapsed.as_secs_f64();
            self.rate = if self.rate > 0.0 { (self.rate + rate) / 2.0 } else { rate };
            self.counted = (now, 0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that carries so many bytes per second, asked for chunks as large as the window lets; the window after some seconds, and the
    /// longest that a chunk waited in the end.
    fn settled(bytes_per_s: f64, round_trip: Duration, hiccup: Duration) -> (usize, Duration) {
        let mut random = fastrand::Rng::with_seed(7);
        let mut yielding = Yielding::default();
        let (mut now, mut free_at, mut delay) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut under_way: std::collections::VecDeque<(Duration, Duration, usize)> = std::collections::VecDeque::new();
        while now < Duration::from_secs(20) {
            let chunk = yielding.request_bytes();
            while under_way.is_empty() || under_way.iter().map(|(_, _, bytes)| bytes).sum::<usize>() + chunk <= yielding.window() {
                free_at = free_at.max(now + round_trip / 2) + Duration::from_secs_f64(chunk as f64 / bytes_per_s);
                under_way.push_back((now, free_at + round_trip / 2, chunk));
            }
            let Some((asked_at, comes, bytes)) = under_way.pop_front() else { break };
            now = now.max(if random.u8(..16) == 0 { comes + hiccup } else { comes });
            delay = now - asked_at;
            yielding.came(bytes, asked_at, now);
        }
        (yielding.window(), delay)
    }

    #[test]
    fn a_slow_line_is_kept_nearly_empty_and_a_fast_one_busy() {
        let ms = Duration::from_millis;
        let (window, delay) = settled(400e3, ms(1), ms(0));
        assert!(window <= 96 << 10 && delay < ms(140), "{window} bytes, {delay:?}");
        let (window, delay) = settled(1e9, ms(1), ms(0));
        assert!(window > 3 << 20 && delay < ms(60), "{window} bytes, {delay:?}");
        let (window, _) = settled(1e9, ms(1), ms(150));
        assert!(window > 1 << 20, "{window} bytes though threads wait");
        // Far away: what is under way keeps the line busy all the same.
        let (window, delay) = settled(20e6, ms(80), ms(0));
        assert!(window > 1 << 20 && delay < ms(250), "{window} bytes, {delay:?}");
    }
}
