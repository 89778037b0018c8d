//! What goes into a member and what comes out: plain data, nothing that blocks.
//!
//! ```text
//!  node                                 member                                    node
//!                                        ─► Prepare (a draft: could you?)  ─► Prepared | Declined
//!                                        ─► Enter (abandon what you do)    ─► Entered
//!  Post, Ticked, Snapshot, Report ─►     ─► Pace, Deliver
//!  Leave, Stop ─►                        ─► Left | Finished | Failed: nothing follows
//! ```
//!
//! A node computes the ticks below `Pace::until` of the epoch it has entered, and no other. At every tick of
//! `Pace::snapshots`, and at the run's end, it hands over all its parts as they are before that tick.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::parts::{PartId, Parts};
use super::plan::{EpochPlan, MemberId, Version};
use super::wishes::Wish;
use crate::core::{LinkId, Traffic, Violation};
use crate::ownership::PeerIndex;
use crate::wire::{Frame, RefuseReason, WireError};

/// A peer's part in bringing the run together.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// Begins the run; the first coordinator.
    Host {
        /// Peers that must be here, this one included, before the first epoch begins.
        assemble: u16,
        /// The tick at which the run ends; `u64::MAX` where it does not.
        end: u64,
        /// Words for every node of the run, opaque here, ≤ 4 MiB.
        task: Bytes,
        /// Copies of every snapshot's part beside its owner's.
        replicas: u16,
        /// A state to begin with instead of init.
        stored: Option<Stored>,
    },
    /// Joins the run of the members at these addresses, tried in turn.
    Join {
        /// Any member's addresses.
        addresses: Vec<String>,
    },
    /// Looks on: is sent the run's status, and nothing else.
    Watch {
        /// Any member's address.
        address: String,
    },
}

/// A snapshot that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The epoch that took it; the run goes on in the next.
    pub epoch: u32,
    /// The tick before which it was taken.
    pub tick: u64,
    /// Every part, in order, the tables last.
    pub parts: Vec<Bytes>,
}

/// Which snapshots a member keeps beside its own parts and its share of replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Keep {
    /// None.
    #[default]
    Share = 0,
    /// All parts of the last one, at the run's end.
    End = 1,
    /// All parts of every one: it has a store.
    All = 2,
}

impl Keep {
    pub(super) fn from_number(number: u8) -> Result<Keep, WireError> {
        match number {
            0 => Ok(Keep::Share),
            1 => Ok(Keep::End),
            2 => Ok(Keep::All),
            value => Err(WireError::BadValue { field: "keep", value: value.into() }),
        }
    }
}

/// Times and rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Between two pings of a quiet link.
    pub ping_every: Duration,
    /// A member is suspected after a silence of at least this; more where round trips are long.
    pub silence_min: Duration,
    /// … and of at most this.
    pub silence_max: Duration,
    /// A member that lives, waits for nobody and completes no tick for this long is suspected.
    pub stall_limit: Duration,
    /// How far ahead the coordinator grants ticks.
    pub horizon: Duration,
    /// Between two snapshots.
    pub snapshot_every: Duration,
    /// What replicas may take of a member's links. **Units**: bytes per second.
    pub replica_bytes_per_s: u64,
    /// How long a leaving member serves its parts.
    pub leave_limit: Duration,
    /// How long a member looks for a half that may go on before it gives up.
    pub orphan_limit: Duration,
    /// How long a dial may take.
    pub dial_limit: Duration,
    /// A newcomer whose tiles would keep others waiting for longer than this computes them in the shadow of their owners first,
    /// while nobody waits. What its link carries is known once it has carried something; until then, 10 MB/s.
    pub shadow_above: Duration,
    /// How long the tiles may take to come of one that shadows them. With balance, the rest of its share follows where that pays.
    pub join_fetch: Duration,
    /// How long others may wait for a newcomer's tiles where nothing can be shadowed, as while somebody leaves.
    pub join_pause: Duration,
    /// Whether tiles follow measured speed while members stay.
    pub balance: bool,
    /// Whether no tick passes while this member is the only one.
    pub rests_alone: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        let millis = Duration::from_millis;
        Tuning {
            ping_every: millis(100),
            silence_min: millis(700),
            silence_max: millis(10_000),
            stall_limit: millis(120_000),
            horizon: millis(100),
            snapshot_every: millis(2_000),
            replica_bytes_per_s: 256 << 20,
            leave_limit: millis(10_000),
            orphan_limit: millis(30_000),
            dial_limit: millis(10_000),
            shadow_above: millis(50),
            join_fetch: millis(10_000),
            join_pause: millis(1_000),
            balance: true,
            rests_alone: false,
        }
    }
}

/// What a member must know from the start.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    /// Host, joiner or onlooker.
    pub role: Role,
    /// The identity that this peer's transport proves to others.
    pub identity: String,
    /// A name for people, ≤ 64 bytes.
    pub name: String,
    /// Where this peer listens.
    pub addresses: Vec<String>,
    /// **Units**: points per second, self-measured; 0 where it is not known.
    pub speed: f64,
    /// Bytes of parts that it can own.
    pub memory: u64,
    /// Which snapshots it keeps.
    pub keep: Keep,
    /// Whether it can run the workload's init passes and imports itself.
    pub seeds: bool,
    /// The invitation to this run.
    pub token: [u8; 16],
    /// The hash of the bundle that all must run.
    pub bundle: [u8; 32],
    /// What the state consists of.
    pub parts: Arc<Parts>,
    /// Randomness: nothing else in here is drawn by lot.
    pub seed: u64,
    /// The largest frame that the run's exchanges may need; at least 8 MiB.
    pub frame_bytes_max: u32,
    /// Times and rates.
    pub tuning: Tuning,
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
    /// Something has arrived on a link, and may still wait to be handled: whoever sent it is not silent.
    Heard {
        /// The link.
        link: LinkId,
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
    Clock,
    /// The node answers [`Output::Prepare`]: it could.
    Prepared,
    /// The node answers [`Output::Prepare`]: it could not, and this peer does not join.
    Declined {
        /// Why.
        text: String,
    },
    /// The node has taken up [`Output::Enter`].
    Entered {
        /// The epoch.
        epoch: u32,
        /// The bytes of this epoch's exchanges, per place of its roster.
        traffic: Traffic,
    },
    /// The node's payloads for the next exchange of an epoch; answered by [`Output::Deliver`], then the next may come.
    Post {
        /// The epoch.
        epoch: u32,
        /// Counts the epoch's exchanges from 0.
        sequence: u64,
        /// Which exchange of the traffic table.
        exchange: u16,
        /// One payload for every peer that is owed one.
        payloads: Vec<(PeerIndex, Bytes)>,
    },
    /// The node has completed every tick below `tick`.
    Ticked {
        /// The epoch.
        epoch: u32,
        /// The next tick.
        tick: u64,
        /// Time spent computing since the epoch was entered; waiting is not in it.
        busy: Duration,
    },
    /// How fast the node would be: from one that owns nothing, and so is not seen to compute.
    Measured {
        /// **Units**: points per second.
        points_per_s: f64,
    },
    /// All parts that this member computes, and the tables, as they are before `tick`.
    Snapshot {
        /// The epoch.
        epoch: u32,
        /// The tick.
        tick: u64,
        /// In order, the tables last.
        parts: Vec<(PartId, Bytes)>,
    },
    /// The node's last words at the run's end, ≤ 64 KiB; sent after the snapshot of the end.
    Report {
        /// The epoch.
        epoch: u32,
        /// The words.
        bytes: Bytes,
    },
    /// This peer wants something of the run itself.
    Wish(Wish),
    /// This peer wants to go: its tiles are handed over first.
    Leave,
    /// The node cannot go on: this peer is gone at once.
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
    /// Node of a peer that joins, for the first time or again: a draft of the epoch in which it would take part. Abandon
    /// what was computed, and answer `Prepared` or `Declined`; the epoch that comes may differ.
    Prepare {
        /// The draft.
        plan: Arc<EpochPlan>,
        /// This peer's place in it.
        me: PeerIndex,
    },
    /// Node: abandon what was computed, and begin this epoch. Answer `Entered`.
    Enter {
        /// The epoch.
        plan: Arc<EpochPlan>,
        /// This peer's place in it.
        me: PeerIndex,
        /// The parts that it computes and the tables as they are before the plan's tick, in order, the tables last; empty where
        /// init makes them.
        parts: Vec<(PartId, Bytes)>,
    },
    /// Node: ticks below this may be computed. Replaces what was said before.
    Pace {
        /// The epoch.
        epoch: u32,
        /// The first tick that may not be computed yet.
        until: u64,
        /// Ticks, rising, before which a snapshot is due; those already taken are not repeated.
        snapshots: Vec<u64>,
    },
    /// Node: everything due for its last post.
    Deliver {
        /// The epoch.
        epoch: u32,
        /// The post's sequence.
        sequence: u64,
        /// In peer order, one from every peer that owes one; in the list of the post, which is there to be filled again.
        payloads: Vec<(PeerIndex, Bytes)>,
    },
    /// Node of a member that keeps all: a complete snapshot.
    Stored {
        /// Which.
        version: Version,
        /// Every part, in order, the tables last.
        parts: Vec<Bytes>,
    },
    /// Node, for information.
    Notice(Notice),
    /// Node of an onlooker: how the run stands.
    Status(Standing),
    /// Node: everybody has reached the end. Nothing follows.
    Finished {
        /// The epoch in which the run ended.
        plan: Arc<EpochPlan>,
        /// Every member's last words, by place.
        reports: Vec<Bytes>,
    },
    /// Node: this peer has left in good order. Nothing follows.
    Left,
    /// Node: over, and why. Nothing follows.
    Failed(MemberError),
}

/// Something that people want to know and nobody must act on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Notice {
    /// This peer is a member, or is one again.
    #[error("joined as member {id}")]
    Joined {
        /// The number given.
        id: MemberId,
    },
    /// An epoch was decided.
    #[error("epoch {epoch} from tick {tick}: {members} members{}", if *replayed > 0 { format!(", {replayed} ticks are computed again") } else { String::new() })]
    Epoch {
        /// Its number.
        epoch: u32,
        /// Where it begins.
        tick: u64,
        /// How many are in it.
        members: usize,
        /// Ticks that this member had computed beyond `tick`.
        replayed: u64,
    },
    /// A member is suspected, and will be left out.
    #[error("member {id} ({name}) {reason}")]
    Lost {
        /// Which.
        id: MemberId,
        /// Its name.
        name: String,
        /// What it did or failed to do.
        reason: String,
    },
    /// What this peer wished for is not to be had.
    #[error("{text}")]
    Wish {
        /// Why, for people.
        text: String,
    },
    /// Somebody was turned away; the run is not disturbed.
    #[error("turned away {name}: {text}")]
    Refused {
        /// Its name, or its identity.
        name: String,
        /// Why, for people.
        text: String,
    },
    /// A member sent bytes of another hash than it had named; another source is asked.
    #[error("member {id} ({name}) sent part {part} with another content than its hash; it is asked no more")]
    BadPart {
        /// Who.
        id: MemberId,
        /// Its name.
        name: String,
        /// Which part.
        part: PartId,
    },
    /// This peer is in the half that may not go on.
    #[error("only {linked} of {members} members can be reached: this half may not go on, and looks for the others")]
    Orphaned {
        /// How many are linked, this one included.
        linked: usize,
        /// How many there are.
        members: usize,
    },
    /// All members together offered too little memory: everybody holds what it must.
    #[error("owns {bytes} bytes of tiles, and offered memory for {memory}: all members together have too little")]
    Overcommitted {
        /// Bytes of the parts that this member owns.
        bytes: u64,
        /// Bytes that it offered.
        memory: u64,
    },
    /// The others went on without this peer; it joins again.
    #[error("left out of epoch {epoch}; joining again")]
    Excluded {
        /// The epoch.
        epoch: u32,
    },
}

/// Why a peer's part in the run is over before its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MemberError {
    /// It was not let in.
    #[error("not let in by {name}: {text}")]
    Refused {
        /// Whose word it is: an identity or an address.
        name: String,
        /// Why, for programs.
        reason: RefuseReason,
        /// Why, for people.
        text: String,
    },
    /// Nobody could be reached.
    #[error("cannot reach {address}: {error}")]
    Unreachable {
        /// The last address tried.
        address: String,
        /// Why.
        error: String,
    },
    /// The half that this peer is in may not go on, and the other was not found in time.
    #[error("{linked} of {members} members are left here, too few to go on, and the others were not reached for {waited_ms} ms; missing: {missing}")]
    Orphaned {
        /// How many are here.
        linked: usize,
        /// How many there are.
        members: usize,
        /// For how long.
        waited_ms: u64,
        /// Names of those missing.
        missing: String,
    },
    /// Too many were lost at once: no snapshot has all its parts left.
    #[error("no snapshot is complete: {lost} parts have no holder left, the first is {first} ({what}); the newest snapshot is of tick {tick}")]
    PartsLost {
        /// How many parts.
        lost: usize,
        /// The first.
        first: PartId,
        /// Which tile that is.
        what: String,
        /// The newest snapshot's tick.
        tick: u64,
    },
    /// The node stopped.
    #[error("stopped: {text}")]
    Stopped {
        /// Why.
        text: String,
    },
    /// This peer's node or driver broke the contract.
    #[error("the member was misused: {what}")]
    Misuse {
        /// How.
        what: String,
    },
    /// The coordinator broke the protocol before this peer was a member.
    #[error("{name} {violation}")]
    Violation {
        /// Who: an identity.
        name: String,
        /// How.
        violation: Violation,
    },
}

/// How a run stands, from the coordinator's view.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The epoch.
    pub epoch: u32,
    /// The tick that all have completed.
    pub tick: u64,
    /// Where the run ends; `u64::MAX` where it does not.
    pub end: u64,
    /// The newest complete snapshot's tick, where there is one.
    pub snapshot: Option<u64>,
    /// By place in the roster.
    pub members: Vec<MemberStatus>,
}

/// How one member stands.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberStatus {
    /// Its number.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Tiles that it owns.
    pub tiles: u32,
    /// **Units**: points per second while it computes.
    pub speed: f64,
    /// The next tick that it computes.
    pub tick: u64,
    /// **Units**: microseconds between the coordinator and it; 0 for itself.
    pub round_trip_us: u32,
    /// Bytes that the coordinator has received from it.
    pub bytes_in: u64,
    /// Bytes that the coordinator has sent to it.
    pub bytes_out: u64,
}
