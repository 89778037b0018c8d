//! What goes into the core and what comes out: plain data, nothing that blocks.
//!
//! A driver feeds [`Event`]s and carries out [`Output`]s; a node hears those outputs that are its
//! business and answers with events. Both kinds of event go through the one `handle`, so a simulator
//! needs no other door.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::ownership::{Ownership, PEERS_MAX, PeerIndex};
use crate::wire::{Frame, RefuseReason, RosterPeer, WireError};

/// The most exchanges a traffic table can list.
pub const EXCHANGES_MAX: usize = 1024;
/// The largest payload of one exchange between two peers, in bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 30;
/// The most occurrences a payload may lag.
pub const STALENESS_MAX: u32 = 64;
/// The most reports one peer sends.
pub const REPORTS_MAX: u32 = 64;

/// One ordered, reliable, authenticated stream of frames to another peer; numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a run must know before it starts.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Coordinator or joiner.
    pub role: Role,
    /// The identity that this peer's transport proves to others.
    pub identity: String,
    /// A name for people, ≤ 64 bytes.
    pub name: String,
    /// Where this peer listens.
    pub addresses: Vec<String>,
    /// **Units**: elements per second; the coordinator's node weighs peers by it.
    pub speed: f64,
    /// The invitation to this run.
    pub token: [u8; 16],
    /// The hash of the bundle that all must run.
    pub bundle: [u8; 32],
    /// How many occurrences of an exchange a payload may lag; the coordinator's word counts for all.
    pub staleness: u32,
    /// A peer that owes something and sends no byte for this long has failed.
    pub silence_limit: Duration,
    /// A peer that lives but does not deliver what it owes for this long has failed.
    pub stall_limit: Duration,
    /// The largest body of one commit.
    pub commit_bytes_max: u32,
    /// The largest frame that a plan's traffic and commits may need; at least 8 MiB.
    pub frame_bytes_max: u32,
}

/// A peer's part in bringing the run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Collects hellos, issues the plan, gathers the result; peer 0.
    Coordinator {
        /// Peers of the run, itself included; 1 to [`PEERS_MAX`].
        peers: u16,
    },
    /// Joins the run of the coordinator at this address.
    Joiner {
        /// The coordinator's address.
        coordinator: String,
    },
}

impl CoreConfig {
    /// A configuration with the default limits.
    pub fn new(role: Role, identity: &str, name: &str) -> CoreConfig {
        CoreConfig {
            role,
            identity: identity.to_owned(),
            name: name.to_owned(),
            addresses: Vec::new(),
            speed: 1.0,
            token: [0; 16],
            bundle: [0; 32],
            staleness: 0,
            silence_limit: Duration::from_secs(10),
            stall_limit: Duration::from_secs(120),
            commit_bytes_max: 64 << 20,
            frame_bytes_max: 256 << 20,
        }
    }
}

/// A peer that has joined, before the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Joiner {
    /// Its link.
    pub link: LinkId,
    /// The index it gets: its place in the order of arrival, from 1.
    pub index: PeerIndex,
    /// The identity its transport proved.
    pub identity: String,
    /// A name for people.
    pub name: String,
    /// **Units**: elements per second, as it says; 0 where it said nonsense.
    pub speed: f64,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// The bytes of every exchange, from one peer's point of view; known before the run starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Per exchange id.
    pub exchanges: Vec<ExchangeTraffic>,
}

/// The bytes of one exchange. **Shapes**: one entry per peer of the run; 0 means nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExchangeTraffic {
    /// Bytes that this peer sends to each.
    pub send: Vec<u32>,
    /// Bytes that this peer receives from each.
    pub receive: Vec<u32>,
}

impl Traffic {
    /// Checks the table's shape for the peer `me` among `peers`.
    ///
    /// **Errors**: a text that says what is wrong; a defect of the node that made it.
    pub fn check(&self, peers: usize, me: PeerIndex) -> Result<(), String> {
        if self.exchanges.len() > EXCHANGES_MAX {
            return Err(format!("{} exchanges, the limit is {EXCHANGES_MAX}", self.exchanges.len()));
        }
        for (id, exchange) in self.exchanges.iter().enumerate() {
            for (way, bytes) in [("send", &exchange.send), ("receive", &exchange.receive)] {
                if bytes.len() != peers || peers > PEERS_MAX {
                    return Err(format!("exchange {id} {way} covers {} peers of {peers}", bytes.len()));
                }
                if bytes.get(me.at()) != Some(&0) {
                    return Err(format!("exchange {id} {way} has bytes between peer {me} and itself"));
                }
                if let Some(bytes) = bytes.iter().find(|bytes| **bytes > PAYLOAD_BYTES_MAX) {
                    return Err(format!("exchange {id} {way} has a payload of {bytes} bytes"));
                }
            }
        }
        Ok(())
    }
}

/// A tile's final content on its way to another peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitBody {
    /// Which grid.
    pub grid: u16,
    /// Which tile.
    pub tile: u32,
    /// The content.
    pub body: Bytes,
}

/// Something that happened: on the network, in the node, or on the clock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A link came up; the transport has proved the identity at its other end.
    Opened {
        /// The link.
        link: LinkId,
        /// Who is at its other end.
        identity: String,
        /// Whether this peer dialled.
        outgoing: bool,
    },
    /// One frame's content arrived.
    Received {
        /// The link.
        link: LinkId,
        /// The content, without its length.
        frame: Bytes,
    },
    /// A link is gone.
    Closed {
        /// The link.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
    /// A dial came to nothing.
    DialFailed {
        /// The address of the dial.
        address: String,
        /// Why, for people.
        error: String,
    },
    /// The deadline has come.
    Tick,
    /// The coordinator's node answers [`Output::Assemble`].
    PlanMade {
        /// The node's plan, opaque here, ≤ 4 MiB.
        plan: Bytes,
        /// The coordinator's own traffic.
        traffic: Traffic,
        /// Who owns which tile.
        ownership: Ownership,
    },
    /// A joiner's node takes the plan of [`Output::PlanReceived`].
    PlanAccepted {
        /// This peer's traffic.
        traffic: Traffic,
        /// Who owns which tile.
        ownership: Ownership,
    },
    /// A joiner's node does not take the plan.
    PlanRefused {
        /// Why.
        reason: String,
    },
    /// The node's payloads for the next exchange; answered by [`Output::Deliver`], then the next may come.
    Post {
        /// Counts exchanges from 0.
        sequence: u64,
        /// Which exchange of the traffic table.
        exchange: u16,
        /// One payload for every peer that is owed one.
        payloads: Vec<(PeerIndex, Bytes)>,
    },
    /// Own tiles' final content for another peer.
    Publish {
        /// Who gathers them.
        to: PeerIndex,
        /// The tiles.
        commits: Vec<CommitBody>,
    },
    /// The node's words to the coordinator, ≤ 64 KiB.
    Report(Bytes),
    /// The node has nothing more to send.
    Finish,
    /// The node ends the run for everybody.
    Stop {
        /// Why.
        text: String,
    },
}

/// Something to do: by the driver, or by the node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// Driver: dial, and answer with `Opened` or `DialFailed` of the same address.
    Dial {
        /// The address.
        address: String,
    },
    /// Driver: write a frame.
    Send {
        /// The link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// Driver: from now on let frames of this length through; before, only
    /// [`STRANGER_FRAME_BYTES_MAX`](crate::wire::STRANGER_FRAME_BYTES_MAX).
    Limit {
        /// The link.
        link: LinkId,
        /// The largest content.
        frame_bytes_max: u32,
    },
    /// Driver: write what was sent, then close. No `Closed` is expected.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
    /// Coordinator's node: all are here, make the plan.
    Assemble {
        /// In index order, from 1.
        joiners: Vec<Joiner>,
    },
    /// Coordinator's node, for information: a stranger was turned away and the run goes on.
    Refused {
        /// The identity its transport proved.
        identity: String,
        /// Its name, where it said one.
        name: String,
        /// Why, for programs.
        reason: RefuseReason,
        /// Why, for people.
        text: String,
    },
    /// Joiner's node: check the plan and accept or refuse it.
    PlanReceived {
        /// The node's plan.
        plan: Bytes,
        /// This peer's index.
        index: PeerIndex,
        /// All peers in index order.
        roster: Vec<RosterPeer>,
        /// How many occurrences of an exchange a payload may lag.
        staleness: u32,
    },
    /// Node: all links are up everywhere, begin.
    Start,
    /// Node: everything due for its last post.
    Deliver {
        /// The post's sequence.
        sequence: u64,
        /// In peer order, one from every peer that owes one; in the list of the post, which is there to be filled again.
        payloads: Vec<(PeerIndex, Bytes)>,
    },
    /// Node: a tile's final content, from its owner.
    Commit {
        /// The owner.
        from: PeerIndex,
        /// Which grid.
        grid: u16,
        /// Which tile.
        tile: u32,
        /// The content.
        body: Bytes,
    },
    /// Coordinator's node: another node's words.
    Report {
        /// Whose.
        from: PeerIndex,
        /// The words.
        bytes: Bytes,
    },
    /// Node: the run is over, and why. Nothing follows.
    Failed(RunError),
    /// Node: everybody is done. Nothing follows.
    Finished,
}

/// What a peer has yet to do for this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Owed {
    /// Its first words on a link.
    #[error("its hello")]
    Hello,
    /// The plan.
    #[error("the plan")]
    Plan,
    /// Word that its links are up.
    #[error("its links")]
    Links,
    /// The signal to start.
    #[error("the start")]
    Start,
    /// A payload.
    #[error("its data for exchange {exchange} (sequence {sequence})")]
    Data {
        /// Which exchange of the run.
        sequence: u64,
        /// Which exchange of the traffic table.
        exchange: u16,
    },
    /// Taking what was sent to it.
    #[error("word that it took earlier data")]
    Progress,
    /// The end.
    #[error("its commits and its end")]
    Done,
}

/// What a peer did that the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no message.
    #[error("sent bytes that are no message: {0}")]
    Wire(#[from] WireError),
    /// A message that has no place there.
    #[error("sent {message} out of place")]
    Unexpected {
        /// The message's kind.
        message: &'static str,
    },
    /// A roster that cannot be.
    #[error("sent a roster that cannot be: {what}")]
    BadRoster {
        /// What is wrong.
        what: &'static str,
    },
    /// Another plan than the coordinator's.
    #[error("follows another plan")]
    WrongPlan,
    /// No exchange has this id.
    #[error("sent data for exchange {exchange}, there are {count}")]
    NoSuchExchange {
        /// The id given.
        exchange: u16,
        /// How many there are.
        count: usize,
    },
    /// A payload that nobody is owed.
    #[error("sent data for exchange {exchange}, in which it owes nothing")]
    NothingOwed {
        /// The exchange.
        exchange: u16,
    },
    /// A payload of another size than agreed.
    #[error("sent {given} bytes for exchange {exchange}, agreed are {expected}")]
    WrongSize {
        /// The exchange.
        exchange: u16,
        /// Bytes agreed.
        expected: u32,
        /// Bytes sent.
        given: usize,
    },
    /// A sequence that this exchange does not have there.
    #[error("sent sequence {given} for exchange {exchange}, expected is {expected}")]
    WrongSequence {
        /// The exchange.
        exchange: u16,
        /// The sequence expected.
        expected: u64,
        /// The sequence sent.
        given: u64,
    },
    /// A sequence that it sent before, or an earlier one.
    #[error("sent sequence {sequence} after {last}")]
    Repeated {
        /// The sequence sent.
        sequence: u64,
        /// Its latest before.
        last: u64,
    },
    /// It went past an exchange without the payload it owed.
    #[error("went past sequence {sequence} (exchange {exchange}) without its data")]
    Skipped {
        /// The sequence.
        sequence: u64,
        /// The exchange.
        exchange: u16,
    },
    /// More payloads ahead than anybody may be.
    #[error("ran ahead: {frames} payloads wait, the limit is {limit}")]
    TooFarAhead {
        /// Payloads that wait.
        frames: usize,
        /// How many may.
        limit: usize,
    },
    /// Progress on a sequence that was never sent.
    #[error("took sequence {sequence}, which was not sent")]
    WrongProgress {
        /// The sequence.
        sequence: u64,
    },
    /// A commit for a tile of another peer, or of nobody.
    #[error("committed tile {tile} of grid {grid}, which it does not own")]
    ForeignTile {
        /// The grid.
        grid: u16,
        /// The tile.
        tile: u32,
    },
    /// A second commit for a tile.
    #[error("committed tile {tile} of grid {grid} twice")]
    RepeatedTile {
        /// The grid.
        grid: u16,
        /// The tile.
        tile: u32,
    },
    /// A commit above the limit.
    #[error("committed {given} bytes, the limit is {limit}")]
    CommitTooLarge {
        /// Bytes sent.
        given: usize,
        /// Bytes allowed.
        limit: u32,
    },
    /// More reports than anybody may send.
    #[error("sent more than {limit} reports")]
    TooManyReports {
        /// How many are allowed.
        limit: u32,
    },
    /// Something after its end.
    #[error("sent {message} after its end")]
    AfterDone {
        /// The message's kind.
        message: &'static str,
    },
}

/// Why a run is over before its end; every variant says whose doing it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// This peer was turned away.
    #[error("refused by peer {peer} ({name}): {text}")]
    Refused {
        /// Who refused.
        peer: PeerIndex,
        /// Its name.
        name: String,
        /// Why, for programs.
        reason: RefuseReason,
        /// Why, for people.
        text: String,
    },
    /// A peer could not be dialled.
    #[error("cannot reach peer {peer} ({name}) at {address}: {error}")]
    Unreachable {
        /// Which peer.
        peer: PeerIndex,
        /// Its name.
        name: String,
        /// The last address tried.
        address: String,
        /// Why.
        error: String,
    },
    /// A peer broke the protocol.
    #[error("peer {peer} ({name}) {violation}")]
    Violation {
        /// Which peer.
        peer: PeerIndex,
        /// Its name.
        name: String,
        /// How.
        violation: Violation,
    },
    /// A peer sends nothing at all.
    #[error("peer {peer} ({name}) has been silent for {silent_ms} ms and owes {owed}")]
    Silent {
        /// Which peer.
        peer: PeerIndex,
        /// Its name.
        name: String,
        /// What it owes.
        owed: Owed,
        /// For how long.
        silent_ms: u64,
    },
    /// A peer lives but does not get on.
    #[error("peer {peer} ({name}) is alive but has owed {owed} for {waited_ms} ms")]
    Stalled {
        /// Which peer.
        peer: PeerIndex,
        /// Its name.
        name: String,
        /// What it owes.
        owed: Owed,
        /// For how long.
        waited_ms: u64,
    },
    /// A peer's link is gone.
    #[error("lost peer {peer} ({name}) {}: {reason}", at_sequence(*.sequence))]
    Lost {
        /// Which peer.
        peer: PeerIndex,
        /// Its name.
        name: String,
        /// How far this peer was, where the exchanges had begun.
        sequence: Option<u64>,
        /// What the transport says.
        reason: String,
    },
    /// Another peer ended the run.
    #[error("peer {by} ({name}) ended the run: {text}")]
    Aborted {
        /// Which peer; `u16::MAX` where it had no index yet.
        by: PeerIndex,
        /// Its name.
        name: String,
        /// Why.
        text: String,
    },
    /// This peer's node did not take the plan.
    #[error("the plan was refused here: {reason}")]
    PlanRefused {
        /// Why.
        reason: String,
    },
    /// This peer's node ended the run.
    #[error("stopped: {text}")]
    Stopped {
        /// Why.
        text: String,
    },
    /// This peer's node or driver broke the core's contract.
    #[error("the core was misused: {what}")]
    Misuse {
        /// How.
        what: String,
    },
}

fn at_sequence(sequence: Option<u64>) -> String {
    match sequence {
        Some(sequence) => format!("at sequence {sequence}"),
        None => "before the start".to_owned(),
    }
}
