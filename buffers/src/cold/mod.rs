//! The cold store: one run's snapshots and a little beside them, kept where they outlive the process.
//!
//! ```text
//!  put_snapshot ─► whole ─► delta ─► delta ─► … ─► whole          one durable batch each
//!                  └────────── the journal ─────┘   └ removes what came before it
//!  newest       ◄─ whole, deltas applied in turn, every part held against its hash
//! ```
//!
//! [`ColdStore`] is the journal; where its records lie is behind [`Records`]: a file ([`disk`]), memory ([`memory`]),
//! a browser's storage later. A batch of records is written whole or not at all, so whenever the process dies, what is
//! found is the last snapshot that was written, or the one before. Bytes and reasons: plan/formats/store.md.
//!
//! Invariants: [`ColdStore::newest`] gives exactly the bytes that were put, or an error; the journal never holds more than
//! [`WHOLE_EVERY`] snapshots; no bytes in a store, whoever wrote them, panic.

#[cfg(not(target_arch = "wasm32"))]
pub mod disk;
pub mod memory;
#[cfg(test)]
#[cfg(not(target_arch = "wasm32"))]
mod tests;

use std::path::PathBuf;

use crate::delta::{self, Encoding};
use crate::digest::{Hash, tile_hash};

/// One whole snapshot in so many.
pub const WHOLE_EVERY: u64 = 8;
/// The longest key of a value beside the snapshots.
pub const META_KEY_BYTES_MAX: usize = 64;
/// The longest such value.
pub const META_BYTES_MAX: usize = 16 << 20;
/// The most parts of a snapshot.
pub const PARTS_MAX: usize = 1 << 22;
/// The longest part: a record of a store is shorter than 2³¹ bytes everywhere.
pub const PART_BYTES_MAX: usize = (1 << 31) - (1 << 16);
/// The version of the records' layout.
pub const FORMAT: u16 = 1;

const MAGIC: [u8; 4] = *b"PCST";
const HASH_BYTES: usize = 32;
/// `encoding` of a part that is as it was in the snapshot before; it has no record. Beyond those of [`Encoding`].
const SAME: u8 = 255;

/// Why a store cannot be opened, read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColdError {
    /// No space is left. What was stored before is still there; make room, then open the store again.
    #[error("no space is left for the store: {text}")]
    Full {
        /// What the system said.
        text: String,
    },
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("not a store: {what}")]
    NotAStore {
        /// What is there instead.
        what: String,
    },
    /// A store of another version of this program.
    #[error("the store has format {found}, this program reads {expected}")]
    Format {
        /// The store's.
        found: u16,
        /// This program's.
        expected: u16,
    },
    /// Its bytes are not those that were written.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What does not fit.
        what: String,
    },
    /// More than a store takes.
    #[error("{what} of {given} is above the limit {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The system failed. After this a store answers nothing until it is opened again.
    #[error("the store cannot be used: {text}")]
    Io {
        /// What the system said.
        text: String,
    },
}

fn corrupt(what: impl Into<String>) -> ColdError {
    ColdError::Corrupt { what: what.into() }
}

/// Where a store's records lie: bytes under keys, changed in batches that happen whole or not at all.
pub trait Records: Send {
    /// The value of a key.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError>;

    /// Makes the changes of `fill` in one batch, durable on return. An error of `fill` or of the system changes nothing.
    fn write(&mut self, fill: &mut Fill<'_>) -> Result<(), ColdError>;
}

/// Says what a batch changes.
pub type Fill<'a> = dyn FnMut(&mut dyn Batch) -> Result<(), ColdError> + 'a;

/// Changes that happen together.
pub trait Batch {
    /// Sets the value of a key.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ColdError>;
    /// Removes a key, if it is there.
    fn remove(&mut self, key: &[u8]) -> Result<(), ColdError>;
}

/// What a snapshot is of: the epoch that took it, and the tick before which it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The epoch.
    pub epoch: u32,
    /// The tick.
    pub tick: u64,
}

/// A snapshot that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which.
    pub version: Version,
    /// Every part's bytes.
    pub parts: Vec<Vec<u8>>,
    /// Every part's hash.
    pub hashes: Vec<Hash>,
}

/// What writing a snapshot took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of all payloads.
    pub bytes: u64,
    /// Whether it stands alone.
    pub is_whole: bool,
}

/// The journal of one run over some [`Records`].
///
/// `P` holds a part's bytes: the last snapshot that was put is kept, as the base of the next.
pub struct ColdStore<P = Vec<u8>> {
    records: Box<dyn Records>,
    base: Option<Base<P>>,
}

/// The last snapshot put since the store was opened.
struct Base<P> {
    sequence: u64,
    parts: Vec<P>,
    hashes: Vec<Hash>,
    /// Bytes of the journal's whole snapshot.
    whole_bytes: u64,
    /// Bytes of its deltas together.
    delta_bytes: u64,
}

/// The journal's ends: the sequence numbers of its whole snapshot and of its newest.
#[derive(Clone, Copy)]
struct Ends {
    whole: u64,
    newest: u64,
}

struct Header {
    version: Version,
    parts: Vec<PartEntry>,
}

struct PartEntry {
    encoding: u8,
    bytes: usize,
    hash: Hash,
}

impl<P: AsRef<[u8]>> ColdStore<P> {
    /// Opens a store, or begins one where there are no records.
    ///
    /// **Errors**: [`ColdError::Format`], [`ColdError::NotAStore`], or what the records say.
    pub fn open(records: impl Records + 'static) -> Result<ColdStore<P>, ColdError> {
        let mut store = ColdStore { records: Box::new(records), base: None };
        match store.records.read(b"f")? {
            None => {
                let format: Vec<u8> = MAGIC.into_iter().chain(FORMAT.to_le_bytes()).collect();
                store.records.write(&mut |batch| batch.put(b"f", &format))?;
            }
            Some(format) => match <[u8; 6]>::try_from(format.as_slice()) {
                Ok([a, b, c, d, low, high]) if [a, b, c, d] == MAGIC => {
                    let found = u16::from_le_bytes([low, high]);
                    if found != FORMAT {
                        return Err(ColdError::Format { found, expected: FORMAT });
                    }
                }
                _ => return Err(ColdError::NotAStore { what: "records without this program's mark".into() }),
            },
        }
        Ok(store)
    }

    /// Keeps a value beside the snapshots.
    ///
    /// **Limits**: [`META_KEY_BYTES_MAX`], [`META_BYTES_MAX`].
    pub fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<(), ColdError> {
        limit("a key's length", key.len(), META_KEY_BYTES_MAX)?;
        limit("a value's length", value.len(), META_BYTES_MAX)?;
        self.records.write(&mut |batch| put_sealed(batch, &meta_key(key), value))
    }

    /// A value that was kept.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, ColdError> {
        self.read_sealed(&meta_key(key))
    }

    /// Stores a snapshot, durable on return: as the difference to the one before, or whole. The newest is the one put last.
    ///
    /// **Errors**: what was the newest before still is; or, after [`ColdError::Io`] and [`ColdError::Full`], this one may be.
    pub fn put_snapshot(&mut self, version: Version, parts: Vec<P>) -> Result<Written, ColdError> {
        limit("parts of a snapshot", parts.len(), PARTS_MAX)?;
        for part in &parts {
            limit("bytes of a part", part.as_ref().len(), PART_BYTES_MAX)?;
        }
        let ends = self.ends()?;
        let sequence = ends.map_or(0, |ends| ends.newest + 1);
        let base = self.base.take().filter(|base| may_be_base(base, ends, &parts));
        // Everything of the journal before a whole snapshot goes with it.
        let outdated = if base.is_none() { ends.map_or(Ok(Vec::new()), |ends| self.outdated(ends))? } else { Vec::new() };
        let whole = if base.is_none() { sequence } else { ends.map_or(sequence, |ends| ends.whole) };

        let hashes: Vec<Hash> = parts.iter().map(|part| tile_hash(part.as_ref())).collect();
        let mut bytes = 0;
        self.records.write(&mut |batch| {
            let mut header = header_start(version, parts.len());
            let mut payload = Vec::new();
            bytes = 0;
            for (index, (part, hash)) in parts.iter().zip(&hashes).enumerate() {
                let part = part.as_ref();
                let encoding = match &base {
                    Some(base) if base.hashes[index] == *hash => SAME,
                    _ => {
                        payload.clear();
                        let before = base.as_ref().map(|base| base.parts[index].as_ref());
                        let encoding = delta::encode(before, part, &mut payload) as u8;
                        batch.put(&part_key(sequence, index), &payload)?;
                        bytes += payload.len() as u64;
                        encoding
                    }
                };
                header.push(encoding);
                header.extend((part.len() as u32).to_le_bytes());
                header.extend(hash);
            }
            for key in &outdated {
                batch.remove(key)?;
            }
            put_sealed(batch, &header_key(sequence), &header)?;
            let ends = [whole.to_le_bytes(), sequence.to_le_bytes()].concat();
            put_sealed(batch, b"n", &ends)
        })?;

        let is_whole = base.is_none();
        let (whole_bytes, delta_bytes) = base.map_or((bytes, 0), |base| (base.whole_bytes, base.delta_bytes + bytes));
        self.base = Some(Base { sequence, parts, hashes, whole_bytes, delta_bytes });
        Ok(Written { bytes, is_whole })
    }

    /// The version of the newest snapshot, without its parts.
    pub fn newest_version(&self) -> Result<Option<Version>, ColdError> {
        self.ends()?.map(|ends| Ok(self.header(ends.newest)?.version)).transpose()
    }

    /// The newest snapshot, every part of the hash with which it was put.
    pub fn newest(&self) -> Result<Option<Snapshot>, ColdError> {
        let Some(ends) = self.ends()? else { return Ok(None) };
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut newest = self.header(ends.whole)?;
        for sequence in ends.whole..=ends.newest {
            newest = self.header(sequence)?;
            self.follow(sequence, sequence == ends.whole, &newest, &mut parts)?;
        }
        let Header { version, parts: entries } = newest;
        for (index, (part, entry)) in parts.iter().zip(&entries).enumerate() {
            if tile_hash(part) != entry.hash {
                return Err(corrupt(format!("part {index} of the snapshot before tick {} has another hash", version.tick)));
            }
        }
        Ok(Some(Snapshot { version, parts, hashes: entries.into_iter().map(|entry| entry.hash).collect() }))
    }

    /// Brings parts from one snapshot of the journal to the next.
    fn follow(&self, sequence: u64, is_whole: bool, header: &Header, parts: &mut Vec<Vec<u8>>) -> Result<(), ColdError> {
        if !is_whole && header.parts.len() != parts.len() {
            return Err(corrupt(format!("snapshot {sequence} has another number of parts than the one before")));
        }
        for (index, entry) in header.parts.iter().enumerate() {
            let damaged = |what: String| corrupt(format!("part {index} of snapshot {sequence}: {what}"));
            let before = if is_whole { None } else { parts.get(index) };
            if entry.encoding == SAME {
                before.ok_or_else(|| damaged("nothing before it".into()))?;
                continue;
            }
            let encoding = Encoding::from_number(entry.encoding).ok_or_else(|| damaged(format!("no encoding {}", entry.encoding)))?;
            let payload = self.records.read(&part_key(sequence, index))?.ok_or_else(|| damaged("not there".into()))?;
            let mut now = vec![0; entry.bytes];
            delta::decode(encoding, &payload, before.map(Vec::as_slice), &mut now).map_err(|error| damaged(error.to_string()))?;
            match parts.get_mut(index) {
                Some(part) => *part = now,
                None => parts.push(now),
            }
        }
        Ok(())
    }

    /// The keys of all snapshots between these ends.
    fn outdated(&self, ends: Ends) -> Result<Vec<Vec<u8>>, ColdError> {
        let mut keys = Vec::new();
        for sequence in ends.whole..=ends.newest {
            let header = self.header(sequence)?;
            keys.push(header_key(sequence));
            let stored = header.parts.iter().enumerate().filter(|(_, entry)| entry.encoding != SAME);
            keys.extend(stored.map(|(index, _)| part_key(sequence, index)));
        }
        Ok(keys)
    }

    fn ends(&self) -> Result<Option<Ends>, ColdError> {
        let Some(bytes) = self.read_sealed(b"n")? else { return Ok(None) };
        let mut reader = Reader(&bytes);
        let ends = Ends { whole: u64::from_le_bytes(reader.take()?), newest: u64::from_le_bytes(reader.take()?) };
        if !reader.0.is_empty() || ends.newest.checked_sub(ends.whole).is_none_or(|more| more >= WHOLE_EVERY) || ends.newest == u64::MAX {
            return Err(corrupt("the journal's ends"));
        }
        Ok(Some(ends))
    }

    fn header(&self, sequence: u64) -> Result<Header, ColdError> {
        let bytes = self.read_sealed(&header_key(sequence))?.ok_or_else(|| corrupt(format!("snapshot {sequence} is not there")))?;
        let mut reader = Reader(&bytes);
        let version = Version { epoch: u32::from_le_bytes(reader.take()?), tick: u64::from_le_bytes(reader.take()?) };
        let count = u32::from_le_bytes(reader.take()?) as usize;
        let mut parts = Vec::new();
        while !reader.0.is_empty() {
            let [encoding] = reader.take()?;
            parts.push(PartEntry { encoding, bytes: u32::from_le_bytes(reader.take()?) as usize, hash: reader.take()? });
        }
        if parts.len() != count || parts.iter().any(|part| part.bytes > PART_BYTES_MAX) {
            return Err(corrupt(format!("the list of parts of snapshot {sequence}")));
        }
        Ok(Header { version, parts })
    }

    /// A value that follows its hash, which is over the key too: a record in another's place is noticed.
    fn read_sealed(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError> {
        let Some(mut value) = self.records.read(key)? else { return Ok(None) };
        let split = HASH_BYTES.min(value.len());
        if value[..split] != seal(key, &value[split..]) {
            return Err(corrupt(format!("the record `{}` has another hash", key.escape_ascii())));
        }
        Ok(Some(value.split_off(split)))
    }
}

/// Whether the next snapshot is a difference to this one: no other came between, the shapes agree, and the journal may grow.
fn may_be_base<P: AsRef<[u8]>>(base: &Base<P>, ends: Option<Ends>, parts: &[P]) -> bool {
    let may_grow = ends.is_some_and(|ends| ends.newest == base.sequence && ends.newest + 1 - ends.whole < WHOLE_EVERY);
    let same_shape = base.parts.len() == parts.len() && base.parts.iter().zip(parts).all(|(a, b)| a.as_ref().len() == b.as_ref().len());
    // Deltas as long as the whole only make it slower to read.
    may_grow && same_shape && base.delta_bytes <= base.whole_bytes
}

fn limit(what: &'static str, given: usize, limit: usize) -> Result<(), ColdError> {
    if given > limit { Err(ColdError::Limit { what, given, limit }) } else { Ok(()) }
}

fn header_start(version: Version, parts: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(16 + parts * (5 + HASH_BYTES));
    header.extend(version.epoch.to_le_bytes());
    header.extend(version.tick.to_le_bytes());
    header.extend((parts as u32).to_le_bytes());
    header
}

fn meta_key(key: &str) -> Vec<u8> {
    [b"m", key.as_bytes()].concat()
}

/// Big-endian, so that records lie in the order in which they are written and read.
fn header_key(sequence: u64) -> Vec<u8> {
    [b"h".as_slice(), &sequence.to_be_bytes()].concat()
}

fn part_key(sequence: u64, index: usize) -> Vec<u8> {
    [b"p".as_slice(), &sequence.to_be_bytes(), &(index as u32).to_be_bytes()].concat()
}

fn seal(key: &[u8], value: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    *hasher.finalize().as_bytes()
}

fn put_sealed(batch: &mut dyn Batch, key: &[u8], value: &[u8]) -> Result<(), ColdError> {
    batch.put(key, &[seal(key, value).as_slice(), value].concat())
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ColdError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| corrupt("a record that ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }
}
