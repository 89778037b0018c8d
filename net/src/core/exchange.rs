//! The exchanges of a run, as one peer sees them: what it sent, what came, what it waits for.
//!
//! For every exchange id and every peer that owes a payload in it there is a lane. The k-th frame in a
//! lane is the k-th occurrence of the exchange, because links keep order and nobody skips: so an
//! occurrence needs no number on the wire, and a frame whose sequence does not fit its occurrence is
//! caught.
//!
//! ```text
//!  lane    taken or stale ──┐        ┌── ahead: came before this peer posted that occurrence
//!          [ latest ]   occurrence k   [ k+1 ][ k+2 ] …        ≤ window + 1 in all lanes of a sender
//! ```
//!
//! Flow: a sender learns how far a receiver is from the receiver's own data, or, where none flows back,
//! from Progress. With more than `window` payloads under way to anybody, its next delivery waits. So no
//! queue here is longer than `window + 1`, and an honest peer never meets the limit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::event::{Owed, Traffic, Violation};
use crate::ownership::PeerIndex;

/// A payload, and who it is for or from.
type Payload = (PeerIndex, Bytes);

/// Payloads that may be under way beyond one per exchange id and staleness.
const WINDOW_SLACK: usize = 2;

/// One sender's payloads in one exchange.
#[derive(Debug)]
struct Lane {
    from: PeerIndex,
    bytes: u32,
    /// Frames ever received: the occurrence of the next one.
    received: u64,
    /// The newest payload of an occurrence that this peer has posted.
    latest: Option<Bytes>,
    /// Payloads of occurrences that this peer has yet to post, with their sequences.
    ahead: VecDeque<(u64, Bytes)>,
}

/// One exchange id.
#[derive(Debug)]
struct Channel {
    /// In peer order.
    lanes: Vec<Lane>,
    /// Bytes to each peer that is owed a payload, in peer order.
    send: Vec<(PeerIndex, u32)>,
    /// Senders that get no data back here, and so hear of progress; every delivery holds them too.
    one_way: Arc<[PeerIndex]>,
    /// Times this peer has posted it.
    posted: u64,
    /// The sequences of the latest posts, newest last; as many as a late payload may lag, and one.
    sequences: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    sequence: u64,
    exchange: u16,
    since: Duration,
}

/// What one peer's frames have shown so far.
#[derive(Debug, Default)]
struct Neighbour {
    /// Its latest data.
    last: Option<u64>,
    /// Its payloads that wait in lanes.
    ahead: usize,
    /// Sequences sent to it and not known to be taken.
    under_way: VecDeque<u64>,
    done: bool,
    /// Whether what is under way to it is somebody else's concern.
    is_uncounted: bool,
}

/// A completed exchange.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) sequence: u64,
    pub(crate) payloads: Vec<Payload>,
    /// Who must be told of the progress.
    pub(crate) progress_to: Arc<[PeerIndex]>,
}

/// Why a post was not taken.
#[derive(Debug)]
pub(crate) enum PostError {
    Misuse(String),
    Violation(PeerIndex, Violation),
}

#[derive(Debug)]
pub(crate) struct Exchanges {
    staleness: u64,
    window: usize,
    channels: Vec<Channel>,
    neighbours: Vec<Neighbour>,
    next_sequence: u64,
    waiting: Option<Waiting>,
    /// The list of the latest post, emptied: one list goes from the node's post to its delivery and back.
    spare: Vec<Payload>,
}

impl Exchanges {
    /// `traffic` has passed its check.
    pub(crate) fn new(traffic: &Traffic, peers: usize, staleness: u32) -> Exchanges {
        let channels: Vec<Channel> = traffic.exchanges.iter().map(channel_from_traffic).collect();
        Exchanges {
            staleness: staleness.into(),
            window: channels.len() * (staleness as usize + 1) + WINDOW_SLACK,
            channels,
            neighbours: (0..peers).map(|_| Neighbour::default()).collect(),
            next_sequence: 0,
            waiting: None,
            spare: Vec::new(),
        }
    }

    /// What is under way to a peer holds no delivery up from now on.
    pub(crate) fn uncount(&mut self, peer: PeerIndex) {
        if let Some(neighbour) = self.neighbours.get_mut(peer.at()) {
            neighbour.is_uncounted = true;
        }
    }

    /// From now on so many payloads of one peer may wait here, if that is more.
    pub(crate) fn widen(&mut self, window: usize) {
        self.window = self.window.max(window);
    }

    /// The sequence this peer is at: the one it waits for, or the next to post.
    pub(crate) fn sequence(&self) -> u64 {
        self.waiting.map_or(self.next_sequence, |waiting| waiting.sequence)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    pub(crate) fn done(&mut self, from: PeerIndex) {
        if let Some(neighbour) = self.neighbours.get_mut(from.at()) {
            neighbour.done = true;
            neighbour.under_way.clear();
        }
    }

    /// Takes the node's payloads; what it gives back is to be sent at once.
    pub(crate) fn post(&mut self, sequence: u64, exchange: u16, payloads: Vec<Payload>, now: Duration) -> Result<Vec<Payload>, PostError> {
        let misuse = |what: String| Err(PostError::Misuse(what));
        if let Some(waiting) = self.waiting {
            return misuse(format!("posted {sequence} before {} was delivered", waiting.sequence));
        }
        if sequence != self.next_sequence {
            return misuse(format!("posted sequence {sequence}, expected {}", self.next_sequence));
        }
        let Some(channel) = self.channels.get_mut(usize::from(exchange)) else {
            return misuse(format!("posted exchange {exchange}, which is not in the traffic"));
        };
        let mut payloads = payloads;
        payloads.retain(|(_, payload)| !payload.is_empty());
        payloads.sort_unstable_by_key(|(to, _)| *to);
        let given = payloads.iter().map(|(to, payload)| (*to, payload.len()));
        if !given.eq(channel.send.iter().map(|(to, bytes)| (*to, *bytes as usize))) {
            let given: Vec<_> = payloads.iter().map(|(to, payload)| (to.0, payload.len())).collect();
            return misuse(format!("posted {given:?} for exchange {exchange}, agreed are {:?}", channel.send));
        }

        channel.posted += 1;
        channel.sequences.push_back(sequence);
        if channel.sequences.len() as u64 > self.staleness + 1 {
            channel.sequences.pop_front();
        }
        self.next_sequence += 1;
        self.waiting = Some(Waiting { sequence, exchange, since: now });
        for lane in &mut channel.lanes {
            // What came before its time is now due.
            let Some((given, payload)) = lane.ahead.pop_front() else {
                continue;
            };
            self.neighbours[lane.from.at()].ahead -= 1;
            if given != sequence {
                return Err(PostError::Violation(lane.from, Violation::WrongSequence { exchange, expected: sequence, given }));
            }
            lane.latest = Some(payload);
        }
        for (to, _) in &payloads {
            let neighbour = &mut self.neighbours[to.at()];
            if !neighbour.is_uncounted {
                neighbour.under_way.push_back(sequence);
            }
        }
        Ok(payloads)
    }

    /// Takes the list of a post back; the next delivery is written into it.
    pub(crate) fn reuse(&mut self, emptied: Vec<Payload>) {
        self.spare = emptied;
    }

    /// Takes a payload from the network.
    pub(crate) fn data(&mut self, from: PeerIndex, sequence: u64, exchange: u16, payload: Bytes) -> Result<(), Violation> {
        let count = self.channels.len();
        let no_such = Violation::NoSuchExchange { exchange, count };
        let channel = self.channels.get_mut(usize::from(exchange)).ok_or(no_such)?;
        let nothing_owed = Violation::NothingOwed { exchange };
        let at = channel.lanes.binary_search_by_key(&from, |lane| lane.from).map_err(|_| nothing_owed.clone())?;
        let lane = &mut channel.lanes[at];
        let neighbour = self.neighbours.get_mut(from.at()).ok_or(nothing_owed)?;
        if payload.len() != lane.bytes as usize {
            return Err(Violation::WrongSize { exchange, expected: lane.bytes, given: payload.len() });
        }
        if let Some(last) = neighbour.last.filter(|last| sequence <= *last) {
            return Err(Violation::Repeated { sequence, last });
        }
        if lane.received < channel.posted {
            let lag = channel.posted - 1 - lane.received;
            let newest_first = channel.sequences.iter().rev();
            let expected = usize::try_from(lag).ok().and_then(|lag| newest_first.copied().nth(lag)).unwrap_or(0);
            if expected != sequence {
                return Err(Violation::WrongSequence { exchange, expected, given: sequence });
            }
            lane.latest = Some(payload);
        } else {
            if neighbour.ahead > self.window {
                return Err(Violation::TooFarAhead { frames: neighbour.ahead + 1, limit: self.window + 1 });
            }
            neighbour.ahead += 1;
            lane.ahead.push_back((sequence, payload));
        }
        lane.received += 1;
        neighbour.last = Some(sequence);
        // It posted this one, so all before it have been delivered to it.
        neighbour.taken_below(sequence);
        Ok(())
    }

    /// Takes word that a receiver has everything up to `sequence`.
    pub(crate) fn progress(&mut self, from: PeerIndex, sequence: u64) -> Result<(), Violation> {
        // A receiver of stale data may be ahead of its sender.
        if self.staleness == 0 && sequence >= self.next_sequence {
            return Err(Violation::WrongProgress { sequence });
        }
        if let Some(neighbour) = self.neighbours.get_mut(from.at()) {
            neighbour.taken_below(sequence.saturating_add(1));
        }
        Ok(())
    }

    /// The delivery, once everything due is here.
    pub(crate) fn try_deliver(&mut self) -> Result<Option<Delivery>, (PeerIndex, Violation)> {
        let Some(Waiting { sequence, exchange, .. }) = self.waiting else {
            return Ok(None);
        };
        let mut complete = true;
        for (from, lane_ready) in self.readiness(exchange) {
            if lane_ready {
                continue;
            }
            complete = false;
            let neighbour = &self.neighbours[from.at()];
            if neighbour.done || neighbour.last.is_some_and(|last| last >= sequence) {
                return Err((from, Violation::Skipped { sequence, exchange }));
            }
        }
        if !complete || self.neighbours.iter().any(|n| n.under_way.len() > self.window) {
            return Ok(None);
        }
        self.waiting = None;
        let stale = self.staleness > 0;
        let channel = &mut self.channels[usize::from(exchange)];
        let take = |lane: &mut Lane| {
            if stale { lane.latest.clone() } else { lane.latest.take() }
        };
        let mut payloads = std::mem::take(&mut self.spare);
        payloads.extend(channel.lanes.iter_mut().filter_map(|lane| Some((lane.from, take(lane)?))));
        Ok(Some(Delivery { sequence, payloads, progress_to: channel.one_way.clone() }))
    }

    /// Whom this peer waits for, what for, and since when.
    pub(crate) fn owed(&self) -> impl Iterator<Item = (PeerIndex, Owed, Duration)> + '_ {
        self.waiting.into_iter().flat_map(|Waiting { sequence, exchange, since }| {
            let data = self.readiness(exchange).filter(|(_, ready)| !ready);
            let data = data.map(move |(from, _)| (from, Owed::Data { sequence, exchange }, since));
            let slow = self.neighbours.iter().zip(0u16..).filter(|(n, _)| n.under_way.len() > self.window);
            data.chain(slow.map(move |(_, peer)| (PeerIndex(peer), Owed::Progress, since)))
        })
    }

    fn readiness(&self, exchange: u16) -> impl Iterator<Item = (PeerIndex, bool)> + '_ {
        let channel = &self.channels[usize::from(exchange)];
        let needed = channel.posted.saturating_sub(self.staleness).max(1);
        channel.lanes.iter().map(move |lane| (lane.from, lane.received >= needed))
    }
}

impl Neighbour {
    fn taken_below(&mut self, sequence: u64) {
        while self.under_way.front().is_some_and(|sent| *sent < sequence) {
            self.under_way.pop_front();
        }
    }
}

fn channel_from_traffic(traffic: &super::event::ExchangeTraffic) -> Channel {
    let nonzero = |bytes: &[u32]| -> Vec<(PeerIndex, u32)> {
        let indexed = (0u16..).map(PeerIndex).zip(bytes.iter().copied());
        indexed.filter(|(_, bytes)| *bytes > 0).collect()
    };
    let (send, receive) = (nonzero(&traffic.send), nonzero(&traffic.receive));
    let one_way = receive.iter().filter(|(from, _)| traffic.send.get(from.at()).is_none_or(|bytes| *bytes == 0));
    Channel {
        one_way: one_way.map(|(from, _)| *from).collect(),
        lanes: receive.iter().map(|(from, bytes)| Lane { from: *from, bytes: *bytes, received: 0, latest: None, ahead: VecDeque::new() }).collect(),
        send,
        posted: 0,
        sequences: VecDeque::new(),
    }
}
