//! Pulling parts from those who hold them: in chunks, from several at once, each held against its hash.
//!
//! ```text
//!  want(version, part, sources) ─► Want offset 0 ─► Chunk … total ─► Want …, several chunks ahead ─► decoded, hashed ─► shelf
//!                                       └─ Missing, wrong bytes, no answer: the next source, from offset 0 again
//! ```
//!
//! What is needed to enter an epoch goes first; replicas stay within a budget, and come as deltas to the version that is held. Both
//! leave room for strips and pings on a link ([`Yielding`]).
//!
//! Invariants: no more is asked of one source and not there yet than its window; a source that sent wrong bytes is not asked
//! again; what is kept of a part under way is no more than its length.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peercompute_buffers::delta::{self, Encoding};
use peercompute_buffers::digest::{Hash, tile_hash};

use super::parts::{PartId, Parts};
use super::plan::{MemberId, Version};
use super::shelf::Shelf;
use super::wire::{CHUNK_BYTES, Message};
use super::yielding::Yielding;
use crate::fill::Fill;

/// Requests to one source that are not answered yet, however small: what comes of them fits a link's queue, beside strips.
const REQUESTS_MAX: usize = 32;
/// A source that does not answer for this long has not got it.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// What a link carries is told by so many bytes that came one after another, …
const BURST_BYTES_MIN: u64 = 1 << 20;
/// … over at least this, …
const BURST_TIME_MIN: Duration = Duration::from_millis(5);
/// … and without a pause like this.
const BURST_GAP: Duration = Duration::from_millis(500);
/// What the budget of replicas may save up.
const BUDGET_BURST: Duration = Duration::from_millis(250);

/// What a part is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// A replica: in time.
    Replica,
    /// To enter an epoch: at once.
    Enter,
}

#[derive(Debug)]
struct Want {
    need: Need,
    /// The part's length, which no encoding of it exceeds.
    length: u32,
    /// Who may have it, best first; a source that failed is taken out.
    sources: Vec<MemberId>,
    /// Who is asked.
    from: Option<MemberId>,
    base: Option<(Hash, Bytes)>,
    encoding: Encoding,
    total: Option<u32>,
    received: Fill,
    /// The next offset to ask for.
    asked: u32,
    /// When each chunk was asked for that is under way.
    asked_at: VecDeque<Duration>,
    heard_at: Duration,
}

impl Want {
    fn restart(&mut self) {
        self.from = None;
        self.base = None;
        self.total = None;
        self.received = Fill::default();
        self.asked = 0;
        self.asked_at.clear();
    }

    fn outstanding(&self) -> usize {
        (self.asked as usize).saturating_sub(self.received.len())
    }

    /// Bytes that the next request for at most so many would bring, as far as is known; 0 where all is asked for.
    fn next_bytes(&self, most: usize) -> usize {
        match self.total {
            None if self.asked > 0 => 0,
            None => (self.length as usize).clamp(1, most),
            Some(total) => (total.saturating_sub(self.asked) as usize).min(most),
        }
    }
}

/// What a chunk led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More to come, or nothing of interest.
    Nothing,
    /// The part is whole and has its hash.
    Whole { need: Need, bytes: Bytes, hash: Hash },
    /// The source sent something that is not the part.
    Wrong,
}

/// Chunks of parts that an epoch waits for, as they come one after another.
#[derive(Debug, Default)]
struct Burst {
    /// When the first was here, whose bytes do not count.
    begun: Duration,
    latest: Duration,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Fetch {
    wants: BTreeMap<(Version, PartId), Want>,
    /// Sources that sent wrong bytes.
    liars: BTreeSet<MemberId>,
    /// What may be under way, by source.
    yielding: BTreeMap<MemberId, Yielding>,
    /// What replicas may still take, in bytes.
    budget: f64,
    budgeted_at: Duration,
    arrived: u64,
    burst: Option<Burst>,
    /// What the latest burst of enough bytes came to.
    link_bytes_per_s: f64,
}

impl Fetch {
    /// Wants a part from one of the sources, the best first.
    pub(super) fn want(&mut self, version: Version, part: PartId, length: u32, need: Need, sources: Vec<MemberId>, now: Duration) {
        let want = self.wants.entry((version, part)).or_insert_with(|| Want {
            need,
            length,
            sources: Vec::new(),
            from: None,
            base: None,
            encoding: Encoding::Raw,
            total: None,
            received: Fill::default(),
            asked: 0,
            asked_at: VecDeque::new(),
            heard_at: now,
        });
        want.need = want.need.max(need);
        for source in sources {
            if !want.sources.contains(&source) && !self.liars.contains(&source) {
                want.sources.push(source);
            }
        }
    }

    pub(super) fn wants(&self, version: Version, part: PartId) -> bool {
        self.wants.contains_key(&(version, part))
    }

    /// Bytes of chunks that ever came.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// What this member's links carried while an epoch waited for its parts; 0 where that has not been seen.
    pub(super) fn link_bytes_per_s(&self) -> f64 {
        self.link_bytes_per_s
    }

    fn measure(&mut self, bytes: usize, now: Duration) {
        let Some(burst) = self.burst.as_mut().filter(|burst| burst.latest + BURST_GAP > now) else {
            self.burst = Some(Burst { begun: now, latest: now, bytes: 0 });
            return;
        };
        burst.latest = now;
        burst.bytes += bytes as u64;
        let lasted = now.saturating_sub(burst.begun);
        if burst.bytes >= BURST_BYTES_MIN && lasted >= BURST_TIME_MIN {
            self.link_bytes_per_s = burst.bytes as f64 / lasted.as_secs_f64();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Gives up what is not wanted any more.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(Version, Need) -> bool) {
        self.wants.retain(|(version, _), want| wanted(*version, want.need));
    }

    pub(super) fn clear(&mut self) {
        self.wants.clear();
    }

    /// A source is gone: whatever it was asked for is asked of the next.
    pub(super) fn lost(&mut self, source: MemberId) {
        self.yielding.remove(&source);
        for want in self.wants.values_mut() {
            want.sources.retain(|s| *s != source);
            if want.from == Some(source) {
                want.restart();
            }
        }
    }

    /// A source has not got a part.
    pub(super) fn missing(&mut self, from: MemberId, version: Version, part: PartId) {
        if let Some(want) = self.wants.get_mut(&(version, part)).filter(|want| want.from == Some(from)) {
            want.sources.retain(|s| *s != from);
            want.restart();
        }
    }

    /// Parts that nobody is left to ask for.
    pub(super) fn hopeless(&self) -> impl Iterator<Item = (Version, PartId, Need)> + '_ {
        self.wants.iter().filter(|(_, want)| want.sources.is_empty()).map(|((version, part), want)| (*version, *part, want.need))
    }

    /// What to ask now. `rate` is the replicas' budget in bytes per second.
    pub(super) fn pump(&mut self, shelf: &Shelf, is_linked: impl Fn(MemberId) -> bool, rate: u64, now: Duration) -> Vec<(MemberId, Message)> {
        let elapsed = now.saturating_sub(self.budgeted_at);
        self.budgeted_at = now;
        let burst = (rate as f64 * BUDGET_BURST.as_secs_f64()).max(CHUNK_BYTES as f64);
        self.budget = (self.budget + rate as f64 * elapsed.as_secs_f64()).min(burst);
        // Bytes and requests under way, by source.
        let mut ahead: BTreeMap<MemberId, (usize, usize)> = BTreeMap::new();
        for want in self.wants.values_mut() {
            if let Some(from) = want.from {
                if want.heard_at + ANSWER_LIMIT <= now && want.outstanding() > 0 {
                    want.sources.retain(|s| *s != from);
                    want.restart();
                } else {
                    let (bytes, requests) = ahead.entry(from).or_default();
                    *bytes += want.outstanding();
                    *requests += want.asked_at.len();
                }
            }
        }
        let mut messages = Vec::new();
        for need in [Need::Enter, Need::Replica] {
            for ((version, part), want) in self.wants.iter_mut().filter(|(_, want)| want.need == need) {
                // Asked only once its hash is known: until then its owner has not got it either.
                if shelf.hash(*version, *part).is_none() {
                    continue;
                }
                let Some(from) = want.from.or_else(|| want.sources.iter().copied().find(|source| is_linked(*source))) else { continue };
                if want.from.is_none() {
                    want.from = Some(from);
                    want.heard_at = now;
                    let base = shelf.base(*version, *part).filter(|_| need == Need::Replica);
                    want.base = base.map(|(hash, bytes)| (hash, bytes.clone()));
                }
                let (ahead, requests) = ahead.entry(from).or_default();
                let yielding = self.yielding.entry(from).or_default();
                let window = yielding.window();
                loop {
                    let bytes = want.next_bytes(yielding.request_bytes());
                    let over_budget = need == Need::Replica && self.budget < bytes as f64;
                    if bytes == 0 || (*ahead > 0 && *ahead + bytes > window) || *requests >= REQUESTS_MAX || over_budget {
                        break;
                    }
                    if need == Need::Replica {
                        self.budget -= bytes as f64;
                    }
                    if want.outstanding() == 0 {
                        want.heard_at = now;
                    }
                    let base = want.base.as_ref().map(|(hash, _)| *hash);
                    messages.push((from, Message::Want { version: *version, part: *part, base, offset: want.asked, length: bytes as u32 }));
                    want.asked += bytes as u32;
                    want.asked_at.push_back(now);
                    *ahead += bytes;
                    *requests += 1;
                }
            }
        }
        messages
    }

    /// When there may be something to ask, though nothing happens.
    pub(super) fn deadline(&self, rate: u64) -> Option<Duration> {
        let waits = self.wants.values().filter(|want| want.need == Need::Replica && want.next_bytes(CHUNK_BYTES) > 0 && !want.sources.is_empty());
        let budget = waits.map(|want| {
            let lacking = (want.next_bytes(CHUNK_BYTES) as f64 - self.budget).max(0.0);
            self.budgeted_at + Duration::from_secs_f64(lacking / rate.max(1) as f64) + Duration::from_millis(1)
        });
        let answers = self.wants.values().filter(|want| want.from.is_some() && want.outstanding() > 0).map(|want| want.heard_at + ANSWER_LIMIT);
        budget.chain(answers).min()
    }

    /// Takes a chunk.
    #[allow(clippy::too_many_arguments, reason = "what a chunk says, and what it is held against")]
    pub(super) fn chunk(
        &mut self,
        from: MemberId,
        (version, part): (Version, PartId),
        (encoding, offset, total): (Encoding, u32, u32),
        bytes: &[u8],
        shelf: &Shelf,
        parts: &Parts,
        now: Duration,
    ) -> Step {
        let key = (version, part);
        let is_asked = |want: &&mut Want| want.from == Some(from);
        if self.wants.get_mut(&key).filter(is_asked).is_some_and(|want| want.need == Need::Enter) {
            self.measure(bytes.len(), now);
        }
        let Some(want) = self.wants.get_mut(&key).filter(is_asked) else { return Step::Nothing };
        let length = parts.bytes(part);
        let fits = total <= length && want.total.is_none_or(|known| known == total && want.encoding == encoding);
        if !fits || offset as usize + bytes.len() > total as usize || (bytes.is_empty() && total > 0) {
            return self.wrong(from);
        }
        if offset as usize != want.received.len() {
            // One that came twice, or overtook another: ask again from where this stands.
            if offset as usize > want.received.len() {
                want.asked = want.received.len() as u32;
                want.asked_at.clear();
            }
            return Step::Nothing;
        }
        self.arrived += bytes.len() as u64;
        want.heard_at = now;
        if let Some(asked_at) = want.asked_at.pop_front() {
            self.yielding.entry(from).or_default().came(bytes.len(), asked_at, now);
        }
        want.encoding = encoding;
        if want.total.is_none() {
            want.total = Some(total);
            want.received = Fill::of(total as usize);
            want.asked = want.asked.min(total).max(bytes.len() as u32);
        }
        want.received.extend(bytes);
        want.asked = want.asked.max(want.received.len() as u32);
        if want.received.len() < total as usize {
            return Step::Nothing;
        }
        let payload = std::mem::take(&mut want.received).close();
        let whole = if encoding == Encoding::Raw && payload.len() == length as usize {
            Some(payload)
        } else {
            let mut whole = vec![0; length as usize];
            let base = want.base.as_ref().map(|(_, bytes)| bytes.as_ref());
            delta::decode(encoding, &payload, base, &mut whole).is_ok().then(|| whole.into())
        };
        let known = shelf.hash(version, part);
        match whole {
            Some(whole) if known == Some(tile_hash(&whole)) => {
                let need = want.need;
                self.wants.remove(&(version, part));
                Step::Whole { need, bytes: whole, hash: known.unwrap_or_default() }
            }
            _ => self.wrong(from),
        }
    }

    fn wrong(&mut self, from: MemberId) -> Step {
        self.liars.insert(from);
        for want in self.wants.values_mut() {
            want.sources.retain(|source| *source != from);
            if want.from == Some(from) {
                want.restart();
            }
        }
        Step::Wrong
    }
}

/// Parts in the form in which they are being sent.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The latest last.
    sent: Vec<(Version, PartId, Hash, Encoding, Bytes)>,
}

/// Encoded parts kept for the next chunk.
const ENCODED_MAX: usize = 16;

impl Encoded {
    /// The payload of a part for somebody who holds `base`, or nothing.
    pub(super) fn payload(&mut self, shelf: &Shelf, version: Version, part: PartId, base: Option<Hash>) -> Option<(Encoding, Bytes)> {
        let bytes = shelf.get(version, part)?;
        let base_bytes = base.and_then(|base| Some((base, shelf.by_hash(part, &base)?)));
        // Without a base the bytes go as they are: a link is faster than any codec.
        let Some((base, base_bytes)) = base_bytes else { return Some((Encoding::Raw, bytes.clone())) };
        if let Some((.., encoding, payload)) = self.sent.iter().find(|(v, p, b, ..)| (*v, *p, *b) == (version, part, base)) {
            return Some((*encoding, payload.clone()));
        }
        let mut payload = Vec::new();
        let encoding = delta::encode(Some(base_bytes), bytes, &mut payload);
        let payload = Bytes::from(payload);
        if self.sent.len() >= ENCODED_MAX {
            self.sent.remove(0);
        }
        self.sent.push((version, part, base, encoding, payload.clone()));
        Some((encoding, payload))
    }

    /// The last chunk was sent: it is not needed again, or made again.
    pub(super) fn forget(&mut self, version: Version, part: PartId) {
        self.sent.retain(|(v, p, ..)| (*v, *p) != (version, part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_measured_by_what_came_without_a_pause() {
        let mut fetch = Fetch::default();
        let mut now = Duration::from_secs(3);
        let mut comes = |fetch: &mut Fetch, bytes: usize, after_ms: u64| {
            now += Duration::from_millis(after_ms);
            fetch.measure(bytes, now);
            fetch.link_bytes_per_s()
        };
        // The first says when, not how fast; and a little says nothing.
        assert_eq!(comes(&mut fetch, 50 << 20, 0), 0.0);
        assert_eq!(comes(&mut fetch, 1 << 19, 10), 0.0);
        assert_eq!(comes(&mut fetch, 1 << 19, 10), f64::from(1 << 20) / 0.02);
        assert_eq!(comes(&mut fetch, 1 << 20, 20), f64::from(2 << 20) / 0.04);
        // After a pause it is another burst, which has to be long enough itself.
        assert_eq!(comes(&mut fetch, 9 << 20, 500), f64::from(2 << 20) / 0.04);
        assert_eq!(comes(&mut fetch, 4 << 20, 4), f64::from(2 << 20) / 0.04);
        assert_eq!(comes(&mut fetch, 4 << 20, 4), f64::from(8 << 20) / 0.008);
    }
}
