//! What `--chaos` does to a run, and when: a list that a user writes, or that is drawn by a seed.
//!
//! ```text
//! list   item, item, …         | random:SEED
//! item   deed@TICK
//! deed   kill [PEER]           its process dies at once
//!        freeze [PEER] SECONDSs   it stops, and goes on after that time
//!        leave [PEER]          it hands over its tiles and goes
//!        join                  another peer comes
//!        slow [PEER] PART      from then on it computes that part of the time; 1 makes it well again
//! ```
//!
//! A peer that is not named is drawn by lot from those that are there. Invariant: the same text and seed give the same deeds;
//! that the run survives them is the user's care where the list is written, and this file's where it is drawn.

use std::fmt;
use std::time::Duration;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Once a peer has come to this tick.
    pub tick: u64,
    /// What.
    pub deed: Deed,
}

/// What is done. Peers are numbered as they are started, from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// Ends a peer's process without warning.
    Kill(Option<u16>),
    /// Stops a peer's process for a time.
    Freeze(Option<u16>, Duration),
    /// Asks a peer to leave.
    Leave(Option<u16>),
    /// Starts another peer.
    Join,
    /// Lets a peer compute a part of the time only.
    Slow(Option<u16>, f64),
}

/// Why a list cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chaos `{item}`: {cause}")]
pub struct ChaosError {
    /// The item as it was written.
    pub item: String,
    /// What is wrong with it.
    pub cause: String,
}

const FORMS: &str = "an item is `kill [PEER]@TICK`, `freeze [PEER] SECONDSs@TICK`, `leave [PEER]@TICK`, `join@TICK` or `slow [PEER] PART@TICK`";
const FREEZE_SECONDS_MAX: f64 = 3600.0;

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |peer: &Option<u16>| peer.map_or(String::new(), |peer| format!(" {peer}"));
        match self {
            Deed::Kill(peer) => write!(f, "kill{}", named(peer)),
            Deed::Freeze(peer, time) => write!(f, "freeze{} {}s", named(peer), time.as_secs_f64()),
            Deed::Leave(peer) => write!(f, "leave{}", named(peer)),
            Deed::Join => write!(f, "join"),
            Deed::Slow(peer, part) => write!(f, "slow{} {part}", named(peer)),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.deed, self.tick)
    }
}

/// Reads a list for a run of `peers` peers and `ticks` ticks; sorted by tick, as they were written where those are equal.
///
/// **Errors:** the first item that is wrong.
pub fn parse(text: &str, peers: u16, ticks: u64) -> Result<Vec<Item>, ChaosError> {
    if let Some(seed) = text.trim().strip_prefix("random:") {
        let wrong = || ChaosError { item: text.trim().into(), cause: "write `random:SEED` with a whole number".into() };
        return Ok(drawn(seed.parse().map_err(|_| wrong())?, peers, ticks));
    }
    let mut items = Vec::new();
    for item in text.split(',').map(str::trim) {
        items.push(parse_item(item, ticks).map_err(|cause| ChaosError { item: item.into(), cause })?);
    }
    items.sort_by_key(|item| item.tick);
    // Peers that join are numbered on, so only what has joined by then can be named.
    let mut started = peers;
    for item in &items {
        started += u16::from(item.deed == Deed::Join);
        if let Some(peer) = item.deed.peer().filter(|peer| *peer >= started) {
            let cause = format!("there is no peer {peer} by then: they are 0 to {}", started - 1);
            return Err(ChaosError { item: item.to_string(), cause });
        }
    }
    Ok(items)
}

impl Deed {
    /// The peer that is named.
    pub fn peer(&self) -> Option<u16> {
        match self {
            Deed::Kill(peer) | Deed::Freeze(peer, _) | Deed::Leave(peer) | Deed::Slow(peer, _) => *peer,
            Deed::Join => None,
        }
    }
}

fn parse_item(item: &str, ticks: u64) -> Result<Item, String> {
    let (deed, tick) = item.split_once('@').ok_or_else(|| format!("it has no `@TICK`; {FORMS}"))?;
    let tick: u64 = tick.trim().parse().map_err(|_| format!("`{tick}` is not a tick"))?;
    if tick >= ticks {
        return Err(format!("the run has {ticks} ticks"));
    }
    let words: Vec<&str> = deed.split_whitespace().collect();
    let peer = |word: &str| word.parse::<u16>().map(Some).map_err(|_| format!("`{word}` is not a peer's number"));
    let time = |word: &str| {
        let seconds = word.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok());
        let seconds = seconds.filter(|seconds| (0.0..=FREEZE_SECONDS_MAX).contains(seconds));
        seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("`{word}` is not a time like `3s`, up to {FREEZE_SECONDS_MAX} s"))
    };
    let part = |word: &str| {
        let part = word.parse::<f64>().ok().filter(|part| (0.01..=1.0).contains(part));
        part.ok_or_else(|| format!("`{word}` is not a part from 0.01 to 1"))
    };
    let deed = match words[..] {
        ["kill"] => Deed::Kill(None),
        ["kill", who] => Deed::Kill(peer(who)?),
        ["freeze", how_long] => Deed::Freeze(None, time(how_long)?),
        ["freeze", who, how_long] => Deed::Freeze(peer(who)?, time(how_long)?),
        ["leave"] => Deed::Leave(None),
        ["leave", who] => Deed::Leave(peer(who)?),
        ["join"] => Deed::Join,
        ["slow", how_much] => Deed::Slow(None, part(how_much)?),
        ["slow", who, how_much] => Deed::Slow(peer(who)?, part(how_much)?),
        _ => return Err(FORMS.into()),
    };
    Ok(Item { tick, deed })
}

/// A list that a run with one replica survives: at most one peer is missing at a time, never fewer than three are there
/// before one goes, and all of it happens in the first four fifths of the run.
fn drawn(seed: u64, peers: u16, ticks: u64) -> Vec<Item> {
    let mut lot = fastrand::Rng::with_seed(seed);
    let (mut there, count) = (peers, lot.u64(3..=6));
    let mut items = Vec::new();
    for index in 0..count {
        // One in each stretch, so that there is room for what the one before did.
        let stretch = ticks * 4 / 5 / count;
        let tick = (stretch * index + stretch / 4 + lot.u64(0..=stretch / 2)).min(ticks.saturating_sub(1));
        let deed = match lot.u32(0..8) {
            0..=2 if there > 2 => Deed::Kill(None),
            3 if there > 2 => Deed::Leave(None),
            4 if there > 2 => Deed::Freeze(None, Duration::from_millis(lot.u64(2..=20) * 100)),
            5 => Deed::Slow(None, f64::from(lot.u32(1..=4)) / 4.0),
            _ => Deed::Join,
        };
        match deed {
            Deed::Kill(_) | Deed::Leave(_) => there -= 1,
            Deed::Join => there += 1,
            Deed::Freeze(..) | Deed::Slow(..) => {}
        }
        items.push(Item { tick, deed });
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_sorted() {
        let text = "kill 2@400, join@700,freeze 3s@900 , leave@1200, slow 3 0.25@500, freeze 0 0.5s@401";
        let items = parse(text, 6, 3000).unwrap();
        let told: Vec<String> = items.iter().map(Item::to_string).collect();
        assert_eq!(told, ["kill 2@400", "freeze 0 0.5s@401", "slow 3 0.25@500", "join@700", "freeze 3s@900", "leave@1200"]);
        // A peer that has joined by then can be named.
        assert!(parse("join@1, kill 6@2", 6, 10).is_ok());
    }

    #[test]
    fn errors_name_the_item() {
        let check = |text: &str, item: &str, cause: &str| {
            let error = parse(text, 4, 1000).unwrap_err();
            assert!(error.item == item && error.cause.contains(cause), "{text}: {error}");
        };
        check("", "", "no `@TICK`");
        check("kill 2@400,", "", "no `@TICK`");
        check("kill 2@400, explode@500", "explode@500", "an item is");
        check("kill two@400", "kill two@400", "`two` is not a peer's number");
        check("kill@soon", "kill@soon", "`soon` is not a tick");
        check("kill@1000", "kill@1000", "the run has 1000 ticks");
        check("kill 4@1", "kill 4@1", "no peer 4 by then: they are 0 to 3");
        check("kill 4@1, join@2", "kill 4@1", "no peer 4");
        check("freeze 3@9", "freeze 3@9", "not a time");
        check("freeze -1s@9", "freeze -1s@9", "not a time");
        check("freeze 1 NaNs@9", "freeze 1 NaNs@9", "not a time");
        check("slow 1 0@9", "slow 1 0@9", "not a part");
        check("random:x", "random:x", "random:SEED");
    }

    #[test]
    fn a_seed_draws_the_same_list_and_one_that_can_be_survived() {
        for seed in 0..500 {
            let (items, mut there) = (parse(&format!("random:{seed}"), 4, 3000).unwrap(), 4);
            assert_eq!(items, parse(&format!("random:{seed}"), 4, 3000).unwrap());
            assert!(items.is_sorted_by(|a, b| a.tick < b.tick) && items.iter().all(|item| item.tick < 2600), "{items:?}");
            for item in &items {
                match item.deed {
                    Deed::Join => there += 1,
                    Deed::Kill(_) | Deed::Leave(_) => there -= 1,
                    Deed::Freeze(..) | Deed::Slow(..) => {}
                }
                assert!(there >= 2, "{items:?}");
            }
        }
    }
}
