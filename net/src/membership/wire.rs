//! The frames between members: the same framing and bounded reading as [`crate::wire`], other kinds.
//!
//! ```text
//! frame     length u32 | content
//! content   kind u8 | fields of the kind | nothing more
//!
//! 32 Hello     version u16 | purpose u8 | bundle [32] | token [16] | run [16] | epoch u32 | member
//! 33 Welcome   draft [..] plan                        34 Redirect  addresses
//! 35 Ready     linked: u32 n, n × member u32          36 Refuse    reason u8 | text
//! 37 Data      0 u8 | exchange u16 | epoch u32 | sequence u64 | payload [..]          payload at offset 16
//! 38 Progress  epoch u32 | sequence u64               39 Ping      stamp u64       40 Pong  stamp u64
//! 41 Pace      epoch u32 | tick u64 | busy_us u64 | waiting u8
//! 42 Horizon   epoch u32 | until u64 | snapshots: u32 n, n × u64 | complete u8, version
//! 43 Offer     version | u32 n, n × (part u32 | hash [32])
//! 44 Want      version | part u32 | has_base u8, base [32] | offset u32 | length u32
//! 45 Chunk     version | part u32 | encoding u8 | offset u32 | total u32 | bytes [..]
//! 46 Missing   version | part u32                     47 Kept      version
//! 48 Suspect   epoch u32 | member u32 | text          49 Leave
//! 50 Prepare   epoch u32 | ballot
//! 51 Promise   epoch u32 | ballot | accepted u8, ballot, u32 n, n | holdings: u32 n, n × (version | u32 m, m)
//! 52 Accept    epoch u32 | ballot | value [..]        53 Accepted  epoch u32 | ballot
//! 54 Decided   plan [..]                              55 Nack      epoch u32 | ballot
//! 56 Done      epoch u32 | report [..] ≤ 64 KiB       57 End       reports: u32 n ≤ 1024, n × (u32 m, m)
//! 58 Standing  as in `put_standing`                   59 Entered   epoch u32 | link f64
//! 60 Speed     speed f64
//! 61 Audit     version | part u32 | offset u32 | length u32 | nonce [16]
//! 62 Proof     nonce [16] | proven u8, hash [32] | complete u8, version
//! 63 Wish      epoch u32 | 0 u8 (ticks pass) | 1 u8 (they do not) | 2 u8, key: u8 n ≤ 64, n, value: u16 n ≤ 1024, n
//! version   epoch u32 | tick u64                      ballot    round u32 | member u32
//! ```
//!
//! Invariant: as [`crate::wire::decode`]: bounded, total, and nothing is reserved for a count alone.

use bytes::Bytes;
use peercompute_buffers::delta::Encoding;
use peercompute_buffers::digest::Hash;
use smallvec::SmallVec;

use super::agree::{Accepted, Ballot};
use super::audit::{Question, RANGE_BYTES_MAX};
use super::event::{MemberStatus, Standing};
use super::parts::PartId;
use super::plan::{Member, MemberId, Version, put_member, take_list, take_member, take_speed};
use super::wishes::{Wish, put_wish, take_wish};
use crate::ownership::PEERS_MAX;
use crate::wire::{self, Frame, LENGTH_BYTES, REPORT_BYTES_MAX, Reader, RefuseReason, WireError};

/// The version of this layout.
pub(super) const VERSION: u16 = 3;
/// Snapshots due that one message names.
pub(super) const SNAPSHOTS_MAX: usize = 8;
/// Versions that one member tells of.
pub(super) const HOLDINGS_MAX: usize = 8;
/// Parts that one offer names.
pub(super) const OFFER_PARTS_MAX: usize = 4096;
/// Bytes of one chunk.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// What a peer wants of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To become a member.
    Join,
    /// To link with a member, or with one that becomes one.
    Link,
    /// To be told how the run stands.
    Watch,
}

/// First on every link, from both ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) purpose: Purpose,
    pub(super) bundle: [u8; 32],
    pub(super) token: [u8; 16],
    /// Zeros where it is in no run yet.
    pub(super) run: [u8; 16],
    /// 0 where it is in no run yet.
    pub(super) epoch: u32,
    /// Its identity is what the transport proves, not what stands here.
    pub(super) member: Member,
}

/// Which parts of a snapshot a member holds: bit p of byte p / 8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) version: Version,
    pub(super) parts: Bytes,
}

impl Holding {
    pub(super) fn has(&self, part: PartId) -> bool {
        self.parts.get(part.at() / 8).is_some_and(|byte| byte >> (part.at() % 8) & 1 == 1)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Hello(Box<Hello>),
    Welcome {
        draft: Bytes,
    },
    Redirect {
        addresses: Vec<String>,
    },
    Ready {
        linked: Vec<MemberId>,
    },
    Refuse {
        reason: RefuseReason,
        text: String,
    },
    Data {
        epoch: u32,
        exchange: u16,
        sequence: u64,
        payload: Bytes,
    },
    Progress {
        epoch: u32,
        sequence: u64,
    },
    Ping {
        stamp: u64,
    },
    Pong {
        stamp: u64,
    },
    Pace {
        epoch: u32,
        tick: u64,
        busy_us: u64,
        waiting: bool,
    },
    Horizon {
        epoch: u32,
        until: u64,
        snapshots: Vec<u64>,
        complete: Option<Version>,
    },
    Offer {
        version: Version,
        parts: Vec<(PartId, Hash)>,
    },
    Want {
        version: Version,
        part: PartId,
        base: Option<Hash>,
        offset: u32,
        /// Bytes wanted from there on, ≤ [`CHUNK_BYTES`].
        length: u32,
    },
    Chunk {
        version: Version,
        part: PartId,
        encoding: Encoding,
        offset: u32,
        total: u32,
        bytes: Bytes,
    },
    Missing {
        version: Version,
        part: PartId,
    },
    Kept {
        version: Version,
    },
    Suspect {
        epoch: u32,
        member: MemberId,
        text: String,
    },
    Leave,
    Prepare {
        epoch: u32,
        ballot: Ballot,
    },
    Promise {
        epoch: u32,
        ballot: Ballot,
        accepted: Option<Accepted>,
        holdings: Vec<Holding>,
    },
    Accept {
        epoch: u32,
        ballot: Ballot,
        value: Bytes,
    },
    Accepted {
        epoch: u32,
        ballot: Ballot,
    },
    Decided {
        plan: Bytes,
    },
    Nack {
        epoch: u32,
        ballot: Ballot,
    },
    Done {
        epoch: u32,
        report: Bytes,
    },
    End {
        reports: Vec<Bytes>,
    },
    Standing(Box<Standing>),
    Entered {
        epoch: u32,
        /// What its links carried while its parts came; 0 where that is not known.
        link_bytes_per_s: f64,
    },
    Speed {
        points_per_s: f64,
    },
    Audit(Question),
    Proof {
        nonce: [u8; 16],
        proof: Option<Hash>,
        complete: Option<Version>,
    },
    /// Said to the coordinator of this epoch.
    Wish {
        epoch: u32,
        wish: Wish,
    },
}

impl Message {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 32,
            Message::Welcome { .. } => 33,
            Message::Redirect { .. } => 34,
            Message::Ready { .. } => 35,
            Message::Refuse { .. } => 36,
            Message::Data { .. } => 37,
            Message::Progress { .. } => 38,
            Message::Ping { .. } => 39,
            Message::Pong { .. } => 40,
            Message::Pace { .. } => 41,
            Message::Horizon { .. } => 42,
            Message::Offer { .. } => 43,
            Message::Want { .. } => 44,
            Message::Chunk { .. } => 45,
            Message::Missing { .. } => 46,
            Message::Kept { .. } => 47,
            Message::Suspect { .. } => 48,
            Message::Leave => 49,
            Message::Prepare { .. } => 50,
            Message::Promise { .. } => 51,
            Message::Accept { .. } => 52,
            Message::Accepted { .. } => 53,
            Message::Decided { .. } => 54,
            Message::Nack { .. } => 55,
            Message::Done { .. } => 56,
            Message::End { .. } => 57,
            Message::Standing(_) => 58,
            Message::Entered { .. } => 59,
            Message::Speed { .. } => 60,
            Message::Audit(_) => 61,
            Message::Proof { .. } => 62,
            Message::Wish { .. } => 63,
        }
    }

    /// Its kind in one word, for reports.
    pub(super) fn name(&self) -> &'static str {
        const NAMES: [&str; 32] = [
            "hello", "welcome", "redirect", "ready", "refuse", "data", "progress", "ping", "pong", "pace", "horizon", "offer", "want", "chunk",
            "missing", "kept", "suspect", "leave", "prepare", "promise", "accept", "accepted", "decided", "nack", "done", "end", "standing",
            "entered", "speed", "audit", "proof", "wish",
        ];
        NAMES[usize::from(self.kind() - 32)]
    }
}

/// Whether a frame may come twice or late, as far as this protocol is concerned: exchanges and grants rely on a link's order.
pub fn is_control(content: &[u8]) -> bool {
    content.first().is_some_and(|kind| !matches!(kind, 32 | 33 | 35 | 37 | 38 | 42))
}

pub(super) fn encode(message: &Message) -> Frame {
    let mut head: SmallVec<[u8; 24]> = SmallVec::from_slice(&[0; LENGTH_BYTES]);
    head.push(message.kind());
    let mut body = Bytes::new();
    match message {
        Message::Hello(hello) => {
            head.extend(hello.version.to_le_bytes());
            head.push(hello.purpose as u8);
            head.extend(hello.bundle);
            head.extend(hello.token);
            head.extend(hello.run);
            head.extend(hello.epoch.to_le_bytes());
            let mut member = Vec::new();
            put_member(&mut member, &hello.member);
            head.extend(member);
        }
        Message::Welcome { draft: bytes } | Message::Decided { plan: bytes } => body = bytes.clone(),
        Message::Redirect { addresses } => wire::put_addresses(&mut head, addresses),
        Message::Ready { linked } => {
            head.extend((linked.len() as u32).to_le_bytes());
            head.extend(linked.iter().flat_map(|id| id.0.to_le_bytes()));
        }
        Message::Refuse { reason, text } => {
            head.push(wire::code_of(*reason));
            wire::put_text(&mut head, text);
        }
        Message::Data { epoch, exchange, sequence, payload } => {
            head.push(0);
            head.extend(exchange.to_le_bytes());
            head.extend(epoch.to_le_bytes());
            head.extend(sequence.to_le_bytes());
            body = payload.clone();
        }
        Message::Progress { epoch, sequence } => {
            head.extend(epoch.to_le_bytes());
            head.extend(sequence.to_le_bytes());
        }
        Message::Ping { stamp } | Message::Pong { stamp } => head.extend(stamp.to_le_bytes()),
        Message::Pace { epoch, tick, busy_us, waiting } => {
            head.extend(epoch.to_le_bytes());
            head.extend(tick.to_le_bytes());
            head.extend(busy_us.to_le_bytes());
            head.push(u8::from(*waiting));
        }
        Message::Horizon { epoch, until, snapshots, complete } => {
            head.extend(epoch.to_le_bytes());
            head.extend(until.to_le_bytes());
            head.extend((snapshots.len() as u32).to_le_bytes());
            head.extend(snapshots.iter().flat_map(|tick| tick.to_le_bytes()));
            head.push(u8::from(complete.is_some()));
            if let Some(version) = complete {
                put_version(&mut head, *version);
            }
        }
        Message::Offer { version, parts } => {
            put_version(&mut head, *version);
            let mut list = Vec::with_capacity(4 + parts.len() * 36);
            list.extend((parts.len() as u32).to_le_bytes());
            for (part, hash) in parts {
                list.extend(part.0.to_le_bytes());
                list.extend(hash);
            }
            body = list.into();
        }
        Message::Want { version, part, base, offset, length } => {
            put_version(&mut head, *version);
            head.extend(part.0.to_le_bytes());
            head.push(u8::from(base.is_some()));
            head.extend(base.iter().flatten().copied());
            head.extend(offset.to_le_bytes());
            head.extend(length.to_le_bytes());
        }
        Message::Chunk { version, part, encoding, offset, total, bytes } => {
            put_version(&mut head, *version);
            head.extend(part.0.to_le_bytes());
            head.push(*encoding as u8);
            head.extend(offset.to_le_bytes());
            head.extend(total.to_le_bytes());
            body = bytes.clone();
        }
        Message::Missing { version, part } => {
            put_version(&mut head, *version);
            head.extend(part.0.to_le_bytes());
        }
        Message::Kept { version } => put_version(&mut head, *version),
        Message::Suspect { epoch, member, text } => {
            head.extend(epoch.to_le_bytes());
            head.extend(member.0.to_le_bytes());
            wire::put_text(&mut head, text);
        }
        Message::Leave => {}
        Message::Prepare { epoch, ballot } | Message::Accepted { epoch, ballot } | Message::Nack { epoch, ballot } => {
            head.extend(epoch.to_le_bytes());
            put_ballot(&mut head, *ballot);
        }
        Message::Promise { epoch, ballot, accepted, holdings } => {
            head.extend(epoch.to_le_bytes());
            put_ballot(&mut head, *ballot);
            head.push(u8::from(accepted.is_some()));
            if let Some((ballot, value)) = accepted {
                put_ballot(&mut head, *ballot);
                head.extend((value.len() as u32).to_le_bytes());
                head.extend(value.iter().copied());
            }
            head.extend((holdings.len() as u32).to_le_bytes());
            for holding in holdings {
                put_version(&mut head, holding.version);
                head.extend((holding.parts.len() as u32).to_le_bytes());
                head.extend(holding.parts.iter().copied());
            }
        }
        Message::Accept { epoch, ballot, value } => {
            head.extend(epoch.to_le_bytes());
            put_ballot(&mut head, *ballot);
            body = value.clone();
        }
        Message::Done { epoch, report } => {
            head.extend(epoch.to_le_bytes());
            body = report.clone();
        }
        Message::End { reports } => {
            let mut list = Vec::new();
            list.extend((reports.len() as u32).to_le_bytes());
            for report in reports {
                list.extend((report.len() as u32).to_le_bytes());
                list.extend(report);
            }
            body = list.into();
        }
        Message::Standing(standing) => {
            let mut bytes = Vec::new();
            put_standing(&mut bytes, standing);
            body = bytes.into();
        }
        Message::Entered { epoch, link_bytes_per_s } => {
            head.extend(epoch.to_le_bytes());
            head.extend(link_bytes_per_s.to_le_bytes());
        }
        Message::Speed { points_per_s } => head.extend(points_per_s.to_le_bytes()),
        Message::Wish { epoch, wish } => {
            head.extend(epoch.to_le_bytes());
            let mut bytes = Vec::new();
            put_wish(&mut bytes, wish);
            body = bytes.into();
        }
        Message::Audit(question) => {
            put_version(&mut head, question.version);
            [question.part.0, question.offset, question.length].iter().for_each(|number| head.extend(number.to_le_bytes()));
            head.extend(question.nonce);
        }
        Message::Proof { nonce, proof, complete } => {
            head.extend(*nonce);
            head.push(u8::from(proof.is_some()));
            head.extend(proof.iter().flatten().copied());
            head.push(u8::from(complete.is_some()));
            if let Some(version) = complete {
                put_version(&mut head, *version);
            }
        }
    }
    let length = (head.len() - LENGTH_BYTES + body.len()) as u32;
    head[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Frame { head, body }
}

/// Reads the content of one frame.
///
/// **Errors**: the first field that does not fit.
pub(super) fn decode(content: Bytes) -> Result<Message, WireError> {
    let mut reader = Reader::new(content);
    let r = &mut reader;
    let kind = r.u8("kind")?;
    let message = match kind {
        32 => Message::Hello(Box::new(Hello {
            version: r.u16("version")?,
            purpose: match r.u8("purpose")? {
                0 => Purpose::Join,
                1 => Purpose::Link,
                2 => Purpose::Watch,
                value => return Err(WireError::BadValue { field: "purpose", value: value.into() }),
            },
            bundle: r.array("bundle")?,
            token: r.array("token")?,
            run: r.array("run")?,
            epoch: r.u32("epoch")?,
            member: take_member(r)?,
        })),
        33 => Message::Welcome { draft: r.everything() },
        34 => Message::Redirect { addresses: wire::take_addresses(r)? },
        35 => Message::Ready { linked: take_list(r, "linked", 4, |b| MemberId(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))? },
        36 => Message::Refuse { reason: wire::take_reason(r)?, text: wire::take_text(r)? },
        37 => {
            r.zeros("data padding", 1)?;
            let exchange = r.u16("exchange")?;
            let (epoch, sequence) = (r.u32("epoch")?, r.u64("sequence")?);
            Message::Data { epoch, exchange, sequence, payload: r.everything() }
        }
        38 => Message::Progress { epoch: r.u32("epoch")?, sequence: r.u64("sequence")? },
        39 => Message::Ping { stamp: r.u64("stamp")? },
        40 => Message::Pong { stamp: r.u64("stamp")? },
        41 => Message::Pace { epoch: r.u32("epoch")?, tick: r.u64("tick")?, busy_us: r.u64("busy")?, waiting: r.flag("waiting")? },
        42 => {
            let (epoch, until) = (r.u32("epoch")?, r.u64("until")?);
            let count = r.u32("snapshots")? as usize;
            wire::limit("snapshots", count, SNAPSHOTS_MAX)?;
            let mut snapshots = Vec::with_capacity(count);
            for _ in 0..count {
                snapshots.push(r.u64("snapshot")?);
            }
            let complete = if r.flag("complete")? { Some(take_version(r)?) } else { None };
            Message::Horizon { epoch, until, snapshots, complete }
        }
        43 => {
            let version = take_version(r)?;
            let parts = take_list(r, "offer", 36, |b| {
                let mut hash = [0; 32];
                hash.copy_from_slice(&b[4..]);
                (PartId(u32::from_le_bytes([b[0], b[1], b[2], b[3]])), hash)
            })?;
            wire::limit("offer", parts.len(), OFFER_PARTS_MAX)?;
            Message::Offer { version, parts }
        }
        44 => {
            let (version, part) = (take_version(r)?, PartId(r.u32("part")?));
            let base = if r.flag("base")? { Some(r.array("base")?) } else { None };
            Message::Want { version, part, base, offset: r.u32("offset")?, length: r.u32("length")? }
        }
        45 => {
            let (version, part) = (take_version(r)?, PartId(r.u32("part")?));
            let number = r.u8("encoding")?;
            let encoding = Encoding::from_number(number).ok_or(WireError::BadValue { field: "encoding", value: number.into() })?;
            let (offset, total) = (r.u32("offset")?, r.u32("total")?);
            let bytes = r.everything();
            wire::limit("chunk", bytes.len(), CHUNK_BYTES)?;
            Message::Chunk { version, part, encoding, offset, total, bytes }
        }
        46 => Message::Missing { version: take_version(r)?, part: PartId(r.u32("part")?) },
        47 => Message::Kept { version: take_version(r)? },
        48 => Message::Suspect { epoch: r.u32("epoch")?, member: MemberId(r.u32("member")?), text: wire::take_text(r)? },
        49 => Message::Leave,
        50 => Message::Prepare { epoch: r.u32("epoch")?, ballot: take_ballot(r)? },
        51 => {
            let (epoch, ballot) = (r.u32("epoch")?, take_ballot(r)?);
            let accepted = if r.flag("accepted")? {
                let ballot = take_ballot(r)?;
                let bytes = r.u32("value length")? as usize;
                Some((ballot, r.take("value", bytes)?))
            } else {
                None
            };
            let count = r.u32("holdings")? as usize;
            wire::limit("holdings", count, HOLDINGS_MAX)?;
            let mut holdings = Vec::with_capacity(count);
            for _ in 0..count {
                let version = take_version(r)?;
                let bytes = r.u32("holding length")? as usize;
                holdings.push(Holding { version, parts: r.take("holding", bytes)? });
            }
            Message::Promise { epoch, ballot, accepted, holdings }
        }
        52 => Message::Accept { epoch: r.u32("epoch")?, ballot: take_ballot(r)?, value: r.everything() },
        53 => Message::Accepted { epoch: r.u32("epoch")?, ballot: take_ballot(r)? },
        54 => Message::Decided { plan: r.everything() },
        55 => Message::Nack { epoch: r.u32("epoch")?, ballot: take_ballot(r)? },
        56 => {
            let epoch = r.u32("epoch")?;
            let report = r.everything();
            wire::limit("report", report.len(), REPORT_BYTES_MAX)?;
            Message::Done { epoch, report }
        }
        57 => {
            let count = r.u32("reports")? as usize;
            wire::limit("reports", count, PEERS_MAX)?;
            let mut reports = Vec::new();
            for _ in 0..count {
                let bytes = r.u32("report length")? as usize;
                wire::limit("report", bytes, REPORT_BYTES_MAX)?;
                reports.push(r.take("report", bytes)?);
            }
            Message::End { reports }
        }
        58 => Message::Standing(Box::new(take_standing(r)?)),
        59 => Message::Entered { epoch: r.u32("epoch")?, link_bytes_per_s: take_speed(r)? },
        60 => Message::Speed { points_per_s: take_speed(r)? },
        61 => {
            let (version, part) = (take_version(r)?, PartId(r.u32("part")?));
            let (offset, length) = (r.u32("offset")?, r.u32("length")?);
            wire::limit("audited range", length as usize, RANGE_BYTES_MAX as usize)?;
            Message::Audit(Question { version, part, offset, length, nonce: r.array("nonce")? })
        }
        62 => {
            let nonce = r.array("nonce")?;
            let proof = if r.flag("proof")? { Some(r.array("proof")?) } else { None };
            let complete = if r.flag("complete")? { Some(take_version(r)?) } else { None };
            Message::Proof { nonce, proof, complete }
        }
        63 => Message::Wish { epoch: r.u32("epoch")?, wish: take_wish(r)? },
        kind => return Err(WireError::UnknownKind { kind }),
    };
    reader.end()?;
    Ok(message)
}

fn put_version(out: &mut impl Extend<u8>, version: Version) {
    out.extend(version.epoch.to_le_bytes());
    out.extend(version.tick.to_le_bytes());
}

fn take_version(reader: &mut Reader) -> Result<Version, WireError> {
    Ok(Version { epoch: reader.u32("version epoch")?, tick: reader.u64("version tick")? })
}

fn put_ballot(out: &mut impl Extend<u8>, ballot: Ballot) {
    out.extend(ballot.round.to_le_bytes());
    out.extend(ballot.member.to_le_bytes());
}

fn take_ballot(reader: &mut Reader) -> Result<Ballot, WireError> {
    Ok(Ballot { round: reader.u32("ballot round")?, member: reader.u32("ballot member")? })
}

/// `epoch u32 | tick u64 | end u64 | has u8, snapshot u64 | u16 n, n × (id u32 | name | tiles u32 | speed f64 | tick u64
/// | round trip u32 | in u64 | out u64)`
fn put_standing(out: &mut Vec<u8>, standing: &Standing) {
    out.extend(standing.epoch.to_le_bytes());
    out.extend(standing.tick.to_le_bytes());
    out.extend(standing.end.to_le_bytes());
    out.push(u8::from(standing.snapshot.is_some()));
    out.extend(standing.snapshot.unwrap_or(0).to_le_bytes());
    let members = &standing.members[..standing.members.len().min(PEERS_MAX)];
    out.extend((members.len() as u16).to_le_bytes());
    for member in members {
        out.extend(member.id.0.to_le_bytes());
        wire::put_short(out, &member.name, wire::NAME_BYTES_MAX);
        out.extend(member.tiles.to_le_bytes());
        out.extend(member.speed.to_le_bytes());
        out.extend(member.tick.to_le_bytes());
        out.extend(member.round_trip_us.to_le_bytes());
        out.extend(member.bytes_in.to_le_bytes());
        out.extend(member.bytes_out.to_le_bytes());
    }
}

fn take_standing(r: &mut Reader) -> Result<Standing, WireError> {
    let (epoch, tick, end) = (r.u32("epoch")?, r.u64("tick")?, r.u64("end")?);
    let (has_snapshot, snapshot) = (r.flag("snapshot")?, r.u64("snapshot tick")?);
    let count = usize::from(r.u16("members")?);
    wire::limit("members", count, PEERS_MAX)?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(MemberStatus {
            id: MemberId(r.u32("member")?),
            name: wire::take_short(r, "name", wire::NAME_BYTES_MAX)?,
            tiles: r.u32("tiles")?,
            speed: take_speed(r)?,
            tick: r.u64("tick")?,
            round_trip_us: r.u32("round trip")?,
            bytes_in: r.u64("bytes in")?,
            bytes_out: r.u64("bytes out")?,
        });
    }
    Ok(Standing { epoch, tick, end, snapshot: has_snapshot.then_some(snapshot), members })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::event::Keep;
    use proptest::prelude::*;

    fn samples() -> Vec<Message> {
        let version = Version { epoch: 7, tick: 1 << 40 };
        let ballot = Ballot { round: 3, member: 9 };
        let bytes = Bytes::from_static(&[1, 2, 3, 4, 5]);
        let member = Member {
            id: MemberId(4),
            identity: "id".into(),
            name: "näme".into(),
            addresses: vec!["/ip4/1".into()],
            speed: 1e9,
            memory: 1 << 33,
            keep: Keep::All,
            seeds: true,
        };
        let hello = Hello { version: 1, purpose: Purpose::Link, bundle: [1; 32], token: [2; 16], run: [3; 16], epoch: 5, member };
        let status =
            MemberStatus { id: MemberId(1), name: "a".into(), tiles: 3, speed: 2.5, tick: 9, round_trip_us: 400, bytes_in: 1 << 40, bytes_out: 7 };
        let standing = Standing { epoch: 2, tick: 9, end: u64::MAX, snapshot: Some(4), members: vec![status] };
        vec![
            Message::Hello(Box::new(hello)),
            Message::Welcome { draft: bytes.clone() },
            Message::Redirect { addresses: vec!["/x".into(), "/y".into()] },
            Message::Ready { linked: vec![MemberId(1), MemberId(2)] },
            Message::Refuse { reason: RefuseReason::Bundle, text: "no".into() },
            Message::Data { epoch: 3, exchange: 2, sequence: 9, payload: bytes.clone() },
            Message::Progress { epoch: 3, sequence: 9 },
            Message::Ping { stamp: 77 },
            Message::Pong { stamp: 77 },
            Message::Pace { epoch: 3, tick: 5, busy_us: 8, waiting: true },
            Message::Horizon { epoch: 3, until: 10, snapshots: vec![4, 8], complete: Some(version) },
            Message::Horizon { epoch: 3, until: 10, snapshots: vec![], complete: None },
            Message::Offer { version, parts: vec![(PartId(3), [9; 32]), (PartId(4), [8; 32])] },
            Message::Want { version, part: PartId(1), base: Some([1; 32]), offset: 5, length: 9 },
            Message::Want { version, part: PartId(1), base: None, offset: 0, length: 1 << 18 },
            Message::Chunk { version, part: PartId(1), encoding: Encoding::Planes, offset: 0, total: 5, bytes: bytes.clone() },
            Message::Missing { version, part: PartId(1) },
            Message::Kept { version },
            Message::Suspect { epoch: 1, member: MemberId(2), text: "silent".into() },
            Message::Leave,
            Message::Prepare { epoch: 1, ballot },
            Message::Promise { epoch: 1, ballot, accepted: Some((ballot, bytes.clone())), holdings: vec![Holding { version, parts: bytes.clone() }] },
            Message::Promise { epoch: 1, ballot, accepted: None, holdings: vec![] },
            Message::Accept { epoch: 1, ballot, value: bytes.clone() },
            Message::Accepted { epoch: 1, ballot },
            Message::Decided { plan: bytes.clone() },
            Message::Nack { epoch: 1, ballot },
            Message::Done { epoch: 1, report: bytes.clone() },
            Message::End { reports: vec![bytes.clone(), Bytes::new()] },
            Message::Standing(Box::new(standing)),
            Message::Entered { epoch: 3, link_bytes_per_s: 12.5e6 },
            Message::Speed { points_per_s: 1.5e9 },
            Message::Audit(Question { version, part: PartId(3), offset: 64, length: 9, nonce: [7; 16] }),
            Message::Proof { nonce: [7; 16], proof: Some([3; 32]), complete: Some(version) },
            Message::Proof { nonce: [7; 16], proof: None, complete: None },
            Message::Wish { epoch: 3, wish: Wish::Pause(true) },
            Message::Wish { epoch: 3, wish: Wish::Change { key: "rate".into(), value: "0.2".into() } },
        ]
    }

    #[test]
    fn every_message_comes_back() {
        let mut kinds = std::collections::BTreeSet::new();
        for message in samples() {
            let frame = encode(&message);
            assert_eq!(frame.content_bytes(), frame.content().len());
            kinds.insert(frame.content()[0]);
            assert_eq!(decode(frame.content()), Ok(message.clone()), "{}", message.name());
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (32..=63).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for message in samples() {
            let content = encode(&message).content();
            for end in 0..content.len() {
                if let Ok(other) = decode(content.slice(..end)) {
                    // A bulk tail may be shorter; nothing else may.
                    assert_eq!(other.kind(), message.kind());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(which in 0..samples().len(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let content = encode(&samples()[which]).content();
            let mut bytes = content.to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = decode(bytes.into());
        }
    }
}
