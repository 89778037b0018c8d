//! The bytes between two peers: one bounded codec that every byte from the network passes.
//!
//! Wire types stand apart from domain types, and bulk payloads are never copied through a serializer:
//! they are slices of the received frame. All integers are little-endian. `plan/formats/wire.md` is the
//! same layout with its reasons.
//!
//! ```text
//! frame     length u32 | content[length]                      length ≤ the link's limit
//! content   kind u8 | fields of the kind | nothing more
//!
//!  1 Hello    version u16 | index u16 (0xffff: none yet) | bundle [32] | plan [32] | token [16]
//!             | speed f64 | name: u8 n ≤ 64, n | addresses: u8 n ≤ 8, n × (u16 m ≤ 256, m)
//!  2 Plan     index u16 | envelope [..]                       (the envelope's BLAKE3 is the plan's hash)
//!  3 Linked
//!  4 Data     0 u8 | exchange u16 | 0 u32 | sequence u64 | payload [..]      payload at offset 16
//!  5 Commit   0 u8 | grid u16 | tile u32 | 0 u64 | body [..]                 body at offset 16
//!  6 Report   bytes [..] ≤ 64 KiB
//!  7 Done
//!  8 Refuse   reason u8 | text: u16 n ≤ 512, n
//!  9 Abort    by u16 | text: u16 n ≤ 512, n
//! 10 Ping     waiting u8 (0 | 1)
//! 11 Pong     waiting u8 (0 | 1)
//! 12 Progress sequence u64
//!
//! envelope  staleness u32 | peers: u16 n ≤ 1024, n × (identity: u8 m ≤ 128, m | name | addresses)
//!           | plan: u32 n ≤ 4 MiB, n
//! ```
//!
//! Invariant: [`decode`] allocates no more than the frame it was given, never panics, and refuses what
//! [`encode`] would not have written (so the encoding of a message is unique).

use bytes::Bytes;
use smallvec::SmallVec;
use thiserror::Error;

use crate::ownership::PEERS_MAX;

/// The version of this layout; peers of different versions do not talk.
pub const PROTOCOL_VERSION: u16 = 1;
/// The longest name of a peer, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest identity of a peer, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 128;
/// The most addresses a peer announces.
pub const ADDRESSES_MAX: usize = 8;
/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// The longest text of a refusal or abort, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// The longest report, in bytes.
pub const REPORT_BYTES_MAX: usize = 64 << 10;
/// The longest plan that a node may issue, in bytes.
pub const PLAN_BYTES_MAX: usize = 4 << 20;
/// The longest frame content a link may carry before its peer has been accepted.
pub const STRANGER_FRAME_BYTES_MAX: u32 = 4 << 10;
/// The longest frame content that an accepted peer needs before the run's traffic is known: a plan with
/// the largest roster.
pub const PLAN_FRAME_BYTES_MAX: u32 = 8 << 20;
/// Bytes of a bulk frame's content before its payload; a multiple of every element's alignment.
pub const BULK_HEAD_BYTES: usize = 16;
/// Bytes of the length before every frame.
pub const LENGTH_BYTES: usize = 4;

const NO_INDEX: u16 = u16::MAX;

/// A frame ready to write: the length and the small fields, then the bulk payload, uncopied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The length and all fields that are not bulk; of the frames of an exchange, without an allocation.
    pub head: SmallVec<[u8; 24]>,
    /// The bulk payload; empty for control messages.
    pub body: Bytes,
}

impl Frame {
    /// The content's length, without the length field itself.
    pub fn content_bytes(&self) -> usize {
        (self.head.len() + self.body.len()).saturating_sub(LENGTH_BYTES)
    }

    /// The content in one piece, as a receiver would see it. Copies; for tests and simulators.
    pub fn content(&self) -> Bytes {
        let mut content = self.head.get(LENGTH_BYTES..).unwrap_or_default().to_vec();
        content.extend_from_slice(&self.body);
        content.into()
    }
}

/// What a peer says of itself, first on every link.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The layout it speaks.
    pub version: u16,
    /// Its index, once a plan gave it one.
    pub index: Option<u16>,
    /// The bundle it runs.
    pub bundle: [u8; 32],
    /// The hash of the plan it accepted; zeros before there is one.
    pub plan: [u8; 32],
    /// Proof that it was invited to this run.
    pub token: [u8; 16],
    /// **Units**: elements per second, as measured by itself.
    pub speed: f64,
    /// A name for people.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// One peer in the plan's envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterPeer {
    /// The identity its transport proves.
    pub identity: String,
    /// A name for people.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// What the coordinator sends to all: the roster and the node's own plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// How many occurrences of an exchange a payload may lag.
    pub staleness: u32,
    /// All peers in index order.
    pub roster: Vec<RosterPeer>,
    /// The node's plan, opaque here.
    pub plan: Bytes,
}

/// Why a peer was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefuseReason {
    /// It speaks another version of the wire.
    Version,
    /// It runs another bundle.
    Bundle,
    /// Its token is not this run's.
    Token,
    /// It accepted another plan.
    Plan,
    /// All places are taken, or the run has begun.
    Full,
    /// Its identity is already here, or is not in the roster.
    Identity,
    /// It broke the protocol.
    Protocol,
    /// It did not say hello in time.
    Silent,
    /// The run does not go on here at the moment; ask again, or elsewhere.
    Orphaned,
    /// The run is over: parts of its state have no holder left.
    PartsLost,
    /// It has broken the rules of this run too often.
    Banned,
}

const REFUSE_REASONS: [RefuseReason; 11] = [
    RefuseReason::Version,
    RefuseReason::Bundle,
    RefuseReason::Token,
    RefuseReason::Plan,
    RefuseReason::Full,
    RefuseReason::Identity,
    RefuseReason::Protocol,
    RefuseReason::Silent,
    RefuseReason::Orphaned,
    RefuseReason::PartsLost,
    RefuseReason::Banned,
];

/// One message on a link.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// Who a peer is and what it runs.
    Hello(Hello),
    /// The plan for the peer of this index; the envelope is [`Envelope`] in bytes.
    Plan {
        /// The receiver's index.
        index: u16,
        /// The envelope, undecoded, so that it can be hashed.
        envelope: Bytes,
    },
    /// To the coordinator: all my links are up. From it: so are everybody's.
    Linked,
    /// One payload of one exchange.
    Data {
        /// Which exchange of the run, counted from 0.
        sequence: u64,
        /// Which exchange of the traffic table.
        exchange: u16,
        /// The bytes.
        payload: Bytes,
    },
    /// A tile's final content.
    Commit {
        /// Which grid.
        grid: u16,
        /// Which tile.
        tile: u32,
        /// The content.
        body: Bytes,
    },
    /// A node's words to the coordinator, opaque here.
    Report(Bytes),
    /// Nothing more will come, except the link's end.
    Done,
    /// The receiver is turned away.
    Refuse {
        /// Why, for programs.
        reason: RefuseReason,
        /// Why, for people.
        text: String,
    },
    /// The run is over for everybody.
    Abort {
        /// The peer that noticed.
        by: u16,
        /// Why.
        text: String,
    },
    /// I am alive; answer that you are.
    Ping {
        /// Whether the sender itself is waiting for somebody.
        waiting: bool,
    },
    /// I am alive.
    Pong {
        /// Whether the sender itself is waiting for somebody.
        waiting: bool,
    },
    /// Everything up to this sequence has been taken; says to a sender that gets no data back that it
    /// may go on.
    Progress {
        /// The last exchange delivered.
        sequence: u64,
    },
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The content ends inside a field.
    #[error("{field} needs {needed} bytes, {left} are left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A length is above its limit.
    #[error("{field} has length {given}, the limit is {limit}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The length given.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The message ended before the content did.
    #[error("{bytes} bytes follow the message")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// No message has this kind.
    #[error("unknown message kind {kind}")]
    UnknownKind {
        /// The kind given.
        kind: u8,
    },
    /// A text is not UTF-8.
    #[error("{field} is not utf-8")]
    NotText {
        /// The field.
        field: &'static str,
    },
    /// A plan that cannot be followed.
    #[error("the plan has {what}")]
    BadPlan {
        /// What is wrong.
        what: &'static str,
    },
    /// A field holds a value that no message has there.
    #[error("{field} holds {value}, which means nothing there")]
    BadValue {
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
    },
}

/// Writes one message. Texts, names, addresses and lists above their limits are cut to them.
///
/// **Limits**: a payload above `u32::MAX` bytes cannot be framed; the core refuses it long before.
pub fn encode(message: &Message) -> Frame {
    let mut head = SmallVec::from_slice(&[0; LENGTH_BYTES]);
    head.push(kind_of(message));
    let mut body = Bytes::new();
    match message {
        Message::Hello(hello) => put_hello(&mut head, hello),
        Message::Plan { index, envelope } => {
            head.extend(index.to_le_bytes());
            body = envelope.clone();
        }
        Message::Data { sequence, exchange, payload } => {
            head.push(0);
            head.extend(exchange.to_le_bytes());
            head.extend(0u32.to_le_bytes());
            head.extend(sequence.to_le_bytes());
            body = payload.clone();
        }
        Message::Commit { grid, tile, body: content } => {
            head.push(0);
            head.extend(grid.to_le_bytes());
            head.extend(tile.to_le_bytes());
            head.extend(0u64.to_le_bytes());
            body = content.clone();
        }
        Message::Report(bytes) => body = bytes.clone(),
        Message::Refuse { reason, text } => {
            head.push(code_of(*reason));
            put_text(&mut head, text);
        }
        Message::Abort { by, text } => {
            head.extend(by.to_le_bytes());
            put_text(&mut head, text);
        }
        Message::Ping { waiting } | Message::Pong { waiting } => head.push(u8::from(*waiting)),
        Message::Progress { sequence } => head.extend(sequence.to_le_bytes()),
        Message::Linked | Message::Done => {}
    }
    let length = (head.len() - LENGTH_BYTES + body.len()) as u32;
    head[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Frame { head, body }
}

/// Reads the content of one frame.
///
/// **Errors**: the first byte that [`encode`] would not have written. Close the link.
pub fn decode(content: Bytes) -> Result<Message, WireError> {
    let mut reader = Reader::new(content);
    let kind = reader.u8("kind")?;
    let message = match kind {
        1 => Message::Hello(take_hello(&mut reader)?),
        2 => Message::Plan { index: reader.u16("plan index")?, envelope: reader.everything() },
        3 => Message::Linked,
        4 => {
            reader.zeros("data padding", 1)?;
            let exchange = reader.u16("exchange")?;
            reader.zeros("data padding", 4)?;
            Message::Data { exchange, sequence: reader.u64("sequence")?, payload: reader.everything() }
        }
        5 => {
            reader.zeros("commit padding", 1)?;
            let (grid, tile) = (reader.u16("grid")?, reader.u32("tile")?);
            reader.zeros("commit padding", 8)?;
            Message::Commit { grid, tile, body: reader.everything() }
        }
        6 => {
            limit("report", reader.rest.len(), REPORT_BYTES_MAX)?;
            Message::Report(reader.everything())
        }
        7 => Message::Done,
        8 => Message::Refuse { reason: take_reason(&mut reader)?, text: take_text(&mut reader)? },
        9 => Message::Abort { by: reader.u16("abort by")?, text: take_text(&mut reader)? },
        10 => Message::Ping { waiting: reader.flag("ping waiting")? },
        11 => Message::Pong { waiting: reader.flag("pong waiting")? },
        12 => Message::Progress { sequence: reader.u64("progress sequence")? },
        kind => return Err(WireError::UnknownKind { kind }),
    };
    reader.end()?;
    Ok(message)
}

/// Writes a plan's envelope; its BLAKE3 hash is the plan's hash.
pub fn encode_envelope(envelope: &Envelope) -> Bytes {
    let mut out = Vec::with_capacity(64 + envelope.plan.len());
    out.extend(envelope.staleness.to_le_bytes());
    let roster = &envelope.roster[..envelope.roster.len().min(PEERS_MAX)];
    out.extend((roster.len() as u16).to_le_bytes());
    for peer in roster {
        put_short(&mut out, &peer.identity, IDENTITY_BYTES_MAX);
        put_short(&mut out, &peer.name, NAME_BYTES_MAX);
        put_addresses(&mut out, &peer.addresses);
    }
    out.extend((envelope.plan.len() as u32).to_le_bytes());
    out.extend_from_slice(&envelope.plan);
    out.into()
}

/// Reads a plan's envelope.
///
/// **Errors**: as [`decode`].
pub fn decode_envelope(bytes: Bytes) -> Result<Envelope, WireError> {
    let mut reader = Reader::new(bytes);
    let staleness = reader.u32("staleness")?;
    let peers = usize::from(reader.u16("roster length")?);
    limit("roster length", peers, PEERS_MAX)?;
    // Grown as the peers are read: a count alone reserves nothing.
    let mut roster = Vec::new();
    for _ in 0..peers {
        roster.push(RosterPeer {
            identity: take_short(&mut reader, "identity", IDENTITY_BYTES_MAX)?,
            name: take_short(&mut reader, "name", NAME_BYTES_MAX)?,
            addresses: take_addresses(&mut reader)?,
        });
    }
    let plan_bytes = reader.u32("plan length")? as usize;
    limit("plan length", plan_bytes, PLAN_BYTES_MAX)?;
    let plan = reader.take("plan", plan_bytes)?;
    reader.end()?;
    Ok(Envelope { staleness, roster, plan })
}

/// The longest prefix of `text` within `bytes_max` bytes that is still text.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn kind_of(message: &Message) -> u8 {
    match message {
        Message::Hello(_) => 1,
        Message::Plan { .. } => 2,
        Message::Linked => 3,
        Message::Data { .. } => 4,
        Message::Commit { .. } => 5,
        Message::Report(_) => 6,
        Message::Done => 7,
        Message::Refuse { .. } => 8,
        Message::Abort { .. } => 9,
        Message::Ping { .. } => 10,
        Message::Pong { .. } => 11,
        Message::Progress { .. } => 12,
    }
}

/// A message's kind in one word, for reports.
pub(crate) fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Plan { .. } => "plan",
        Message::Linked => "linked",
        Message::Data { .. } => "data",
        Message::Commit { .. } => "commit",
        Message::Report(_) => "report",
        Message::Done => "done",
        Message::Refuse { .. } => "refuse",
        Message::Abort { .. } => "abort",
        Message::Ping { .. } => "ping",
        Message::Pong { .. } => "pong",
        Message::Progress { .. } => "progress",
    }
}

pub(crate) fn code_of(reason: RefuseReason) -> u8 {
    REFUSE_REASONS.iter().zip(0u8..).find_map(|(r, code)| (*r == reason).then_some(code)).unwrap_or(0)
}

pub(crate) fn take_reason(reader: &mut Reader) -> Result<RefuseReason, WireError> {
    let code = reader.u8("refuse reason")?;
    let known = REFUSE_REASONS.get(usize::from(code)).copied();
    known.ok_or(WireError::BadValue { field: "refuse reason", value: code.into() })
}

fn put_hello(out: &mut impl Extend<u8>, hello: &Hello) {
    out.extend(hello.version.to_le_bytes());
    out.extend(hello.index.unwrap_or(NO_INDEX).to_le_bytes());
    out.extend(hello.bundle);
    out.extend(hello.plan);
    out.extend(hello.token);
    out.extend(hello.speed.to_le_bytes());
    put_short(out, &hello.name, NAME_BYTES_MAX);
    put_addresses(out, &hello.addresses);
}

fn take_hello(reader: &mut Reader) -> Result<Hello, WireError> {
    Ok(Hello {
        version: reader.u16("version")?,
        index: Some(reader.u16("index")?).filter(|index| *index != NO_INDEX),
        bundle: reader.array("bundle")?,
        plan: reader.array("plan hash")?,
        token: reader.array("token")?,
        speed: f64::from_le_bytes(reader.array("speed")?),
        name: take_short(reader, "name", NAME_BYTES_MAX)?,
        addresses: take_addresses(reader)?,
    })
}

pub(crate) fn put_short(out: &mut impl Extend<u8>, text: &str, bytes_max: usize) {
    let text = cut(text, bytes_max);
    out.extend([text.len() as u8]);
    out.extend(text.bytes());
}

pub(crate) fn take_short(reader: &mut Reader, field: &'static str, bytes_max: usize) -> Result<String, WireError> {
    let length = usize::from(reader.u8(field)?);
    reader.text(field, length, bytes_max)
}

pub(crate) fn put_addresses(out: &mut impl Extend<u8>, addresses: &[String]) {
    // A cut address leads nowhere: leave it out.
    let fitting = addresses.iter().filter(|a| a.len() <= ADDRESS_BYTES_MAX).take(ADDRESSES_MAX);
    out.extend([fitting.clone().count() as u8]);
    for address in fitting {
        out.extend((address.len() as u16).to_le_bytes());
        out.extend(address.bytes());
    }
}

pub(crate) fn take_addresses(reader: &mut Reader) -> Result<Vec<String>, WireError> {
    let count = usize::from(reader.u8("address count")?);
    limit("address count", count, ADDRESSES_MAX)?;
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(reader.u16("address")?);
        addresses.push(reader.text("address", length, ADDRESS_BYTES_MAX)?);
    }
    Ok(addresses)
}

pub(crate) fn put_text(out: &mut impl Extend<u8>, text: &str) {
    let text = cut(text, TEXT_BYTES_MAX);
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.bytes());
}

pub(crate) fn take_text(reader: &mut Reader) -> Result<String, WireError> {
    let length = usize::from(reader.u16("text")?);
    reader.text("text", length, TEXT_BYTES_MAX)
}

pub(crate) fn limit(field: &'static str, given: usize, limit: usize) -> Result<(), WireError> {
    if given > limit { Err(WireError::TooLong { field, given, limit }) } else { Ok(()) }
}

/// What is left of a frame's content.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(rest: Bytes) -> Reader {
        Reader { rest }
    }

    pub(crate) fn take(&mut self, field: &'static str, needed: usize) -> Result<Bytes, WireError> {
        let left = self.rest.len();
        if needed > left {
            return Err(WireError::Truncated { field, needed, left });
        }
        Ok(self.rest.split_to(needed))
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::BadValue { field, value: value.into() }),
        }
    }

    pub(crate) fn zeros(&mut self, field: &'static str, count: usize) -> Result<(), WireError> {
        match self.take(field, count)?.iter().find(|byte| **byte != 0) {
            None => Ok(()),
            Some(byte) => Err(WireError::BadValue { field, value: (*byte).into() }),
        }
    }

    pub(crate) fn text(&mut self, field: &'static str, length: usize, bytes_max: usize) -> Result<String, WireError> {
        limit(field, length, bytes_max)?;
        let bytes = self.take(field, length)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| WireError::NotText { field })?;
        Ok(text.to_owned())
    }

    pub(crate) fn everything(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn end(&self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(WireError::TrailingBytes { bytes }),
        }
    }
}
