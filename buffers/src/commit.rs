//! Commits: an owner's statement of a tile's new content, and the warm store that takes them up.
//!
//! A [`Commit`] says who owned the tile (epoch), when (tick), what the content is (its hash) and how to
//! get there from a base that the receiver may hold. [`Warm`] keeps, per tile, the bytes of the last
//! one. Latest means largest (epoch, tick), never last arrived: a receiver that cannot apply a delta
//! because its base is not the one held asks for [`Warm::whole`], which needs none.
//!
//! ```text
//! 0    2  format, u16: 1             32   32  workload: the bundle's hash
//! 2    1  encoding                   64   32  content: BLAKE3 of the tile's new bytes
//! 3    1  1 with a base, else 0      96   32  base: BLAKE3 of the bytes it starts from, else zeros
//! 4    2  buffer, u16               128    n  payload (plan/formats/delta.md)
//! 6    2  author, u16
//! 8    4  tile, u32
//! 12   4  epoch, u32
//! 16   8  tick, u64
//! 24   4  payload bytes n, u32      all integers little-endian
//! 28   4  zeros
//! ```
//!
//! Invariant: a commit has one encoding; the store changes only by a commit that passed every check,
//! and its (epoch, tick) of a tile never goes back.

use crate::delta::{self, DecodeError, Encoding};
use crate::digest::{Hash, hex, tile_hash};
use crate::grid::{Grid, TileId};
use crate::layout::Element;
use crate::transfer;

/// The bytes before a commit's payload.
pub const HEAD_BYTES: usize = 128;
/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

const FORMAT: u16 = 1;

/// An owner's statement of a tile's new content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The workload's hash.
    pub workload: Hash,
    /// The buffer's number.
    pub buffer: u16,
    /// The tile; 0 for a table.
    pub tile: TileId,
    /// Under which ownership.
    pub epoch: u32,
    /// After which tick.
    pub tick: u64,
    /// The hash of the bytes that the payload is relative to.
    pub base: Option<Hash>,
    /// The hash of the new bytes.
    pub content: Hash,
    /// How the payload holds them.
    pub encoding: Encoding,
    /// The new bytes, encoded.
    pub payload: Vec<u8>,
    /// The peer that says so.
    pub author: u16,
}

/// Why bytes are not a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitBytesError {
    /// Shorter than any commit, or not as long as it says.
    #[error("the commit has {given} bytes, expected {expected}")]
    Length {
        /// Bytes there are.
        given: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// Larger than any commit.
    #[error("the commit's payload has {given} bytes, at most {limit} are taken")]
    TooLarge {
        /// The payload's bytes.
        given: u64,
        /// The limit.
        limit: u64,
    },
    /// Another format.
    #[error("the commit has format {given}, this build reads format {known}")]
    Format {
        /// The commit's.
        given: u16,
        /// Ours.
        known: u16,
    },
    /// An encoding that this build does not have.
    #[error("the commit has the unknown encoding {given}")]
    Encoding {
        /// Its number.
        given: u8,
    },
    /// Bytes that are zero in every commit are not.
    #[error("the commit is not in canonical form")]
    NotCanonical,
}

impl Commit {
    /// The commit's only encoding.
    ///
    /// # Panics
    /// When the payload is larger than [`PAYLOAD_BYTES_MAX`].
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "a payload is no larger than its tile");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.payload.len());
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend([self.encoding as u8, u8::from(self.base.is_some())]);
        bytes.extend(self.buffer.to_le_bytes());
        bytes.extend(self.author.to_le_bytes());
        bytes.extend(self.tile.0.to_le_bytes());
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.tick.to_le_bytes());
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.workload);
        bytes.extend(self.content);
        bytes.extend(self.base.unwrap_or_default());
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads a commit, all of `bytes`; says nothing about whether it may be applied.
    ///
    /// **Errors:** [`CommitBytesError`]. Whatever reads encodes to the same bytes again.
    pub fn from_bytes(bytes: &[u8]) -> Result<Commit, CommitBytesError> {
        let given = bytes.len() as u64;
        let Some((head, payload)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(CommitBytesError::Length { given, expected: HEAD_BYTES as u64 });
        };
        let format = u16::from_le_bytes(part(head, 0));
        if format != FORMAT {
            return Err(CommitBytesError::Format { given: format, known: FORMAT });
        }
        let payload_bytes = u32::from_le_bytes(part(head, 24));
        if payload_bytes as usize > PAYLOAD_BYTES_MAX {
            return Err(CommitBytesError::TooLarge { given: payload_bytes.into(), limit: PAYLOAD_BYTES_MAX as u64 });
        }
        if payload.len() != payload_bytes as usize {
            return Err(CommitBytesError::Length { given, expected: HEAD_BYTES as u64 + u64::from(payload_bytes) });
        }
        let base: Hash = part(head, 96);
        let base = match head[3] {
            0 if base == [0; 32] => None,
            1 => Some(base),
            _ => return Err(CommitBytesError::NotCanonical),
        };
        if head[28..32] != [0; 4] {
            return Err(CommitBytesError::NotCanonical);
        }
        Ok(Commit {
            workload: part(head, 32),
            buffer: u16::from_le_bytes(part(head, 4)),
            tile: TileId(u32::from_le_bytes(part(head, 8))),
            epoch: u32::from_le_bytes(part(head, 12)),
            tick: u64::from_le_bytes(part(head, 16)),
            base,
            content: part(head, 64),
            encoding: Encoding::from_number(head[2]).ok_or(CommitBytesError::Encoding { given: head[2] })?,
            payload: payload.to_vec(),
            author: u16::from_le_bytes(part(head, 6)),
        })
    }
}

fn part<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&head[at..at + N]);
    part
}

/// Why a commit was not taken up. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The commit is of another workload.
    #[error("the commit is of the workload {}, this one is {}", hex(given), hex(have))]
    WrongWorkload {
        /// The store's.
        have: Hash,
        /// The commit's.
        given: Hash,
    },
    /// There is no such buffer.
    #[error("the workload has no buffer {buffer}")]
    UnknownBuffer {
        /// The number given.
        buffer: u16,
    },
    /// The buffer has no such tile.
    #[error("buffer {buffer} has no tile {}", tile.0)]
    UnknownTile {
        /// The buffer.
        buffer: u16,
        /// The number given.
        tile: TileId,
    },
    /// The author may not commit the tile.
    #[error("tile {} of buffer {buffer} belongs to peer {owner}, not to peer {author}", tile.0)]
    NotOwner {
        /// The buffer.
        buffer: u16,
        /// The tile.
        tile: TileId,
        /// Who owns it.
        owner: u16,
        /// Who committed it.
        author: u16,
    },
    /// An older epoch than the one held.
    #[error("tile {}: epoch {given} is older than {have}", tile.0)]
    StaleEpoch {
        /// The tile.
        tile: TileId,
        /// The epoch held.
        have: u32,
        /// The commit's.
        given: u32,
    },
    /// A tick of the same epoch that is held already, or an older one.
    #[error("tile {}: tick {given} is not newer than {have}", tile.0)]
    StaleTick {
        /// The tile.
        tile: TileId,
        /// The tick held.
        have: u64,
        /// The commit's.
        given: u64,
    },
    /// The owner has said something else of the same epoch and tick: tell whoever watches it.
    #[error("tile {}: two commits of epoch {epoch}, tick {tick} differ", tile.0)]
    Contradiction {
        /// The tile.
        tile: TileId,
        /// Their epoch.
        epoch: u32,
        /// Their tick.
        tick: u64,
    },
    /// The delta starts from bytes that are not held: ask for the whole tile.
    #[error("tile {}: the commit starts from {}, held is {}", tile.0, hex(given), have.map_or("nothing".into(), |have| hex(&have)))]
    WrongBase {
        /// The tile.
        tile: TileId,
        /// The hash of the bytes held.
        have: Option<Hash>,
        /// The commit's base.
        given: Hash,
    },
    /// The payload is not one of this tile.
    #[error("tile {}: {cause}", tile.0)]
    Payload {
        /// The tile.
        tile: TileId,
        /// What the decoder found.
        cause: DecodeError,
    },
    /// The payload decodes, but not to what the commit says.
    #[error("tile {}: the content hashes to {}, the commit says {}", tile.0, hex(found), hex(given))]
    WrongContent {
        /// The tile.
        tile: TileId,
        /// The hash of what was decoded.
        found: Hash,
        /// The commit's.
        given: Hash,
    },
}

/// The last commit of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its epoch.
    pub epoch: u32,
    /// Its tick.
    pub tick: u64,
    /// The bytes' hash.
    pub hash: Hash,
    /// Who committed it.
    pub author: u16,
    /// The tile's bytes.
    pub bytes: Vec<u8>,
}

/// The bytes of every tile of a field, as [`Warm::new`] wants them.
pub fn field_tile_bytes(grid: &Grid, element: &Element) -> Vec<usize> {
    grid.tiles().map(|tile| transfer::tile_bytes(grid, tile, element.stride as usize)).collect()
}

/// Per tile of each buffer, its last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warm {
    workload: Hash,
    /// Per buffer and tile, the bytes it has.
    tile_bytes: Vec<Vec<usize>>,
    held: Vec<Vec<Option<Held>>>,
}

impl Warm {
    /// An empty store. `tile_bytes` gives, per buffer, the bytes of each tile ([`field_tile_bytes`]); a table is one tile.
    pub fn new(workload: Hash, tile_bytes: Vec<Vec<usize>>) -> Warm {
        let held = tile_bytes.iter().map(|tiles| vec![None; tiles.len()]).collect();
        Warm { workload, tile_bytes, held }
    }

    /// The last commit of a tile; `None` before the first, and where there is no such tile.
    pub fn held(&self, buffer: u16, tile: TileId) -> Option<&Held> {
        self.held.get(usize::from(buffer))?.get(tile.0 as usize)?.as_ref()
    }

    /// Takes up a tile's new bytes and says so: the commit to send, relative to what was held.
    ///
    /// **Errors:** no such tile, bytes of another length, or nothing newer than what is held.
    pub fn commit(&mut self, buffer: u16, tile: TileId, epoch: u32, tick: u64, author: u16, now: &[u8]) -> Result<Commit, ApplyError> {
        let bytes = self.bytes_of(buffer, tile)?;
        if now.len() != bytes {
            let cause = DecodeError::Length { given: now.len() as u64, expected: bytes as u64 };
            return Err(ApplyError::Payload { tile, cause });
        }
        let content = tile_hash(now);
        let before = self.held(buffer, tile);
        check_newer(before, tile, epoch, tick, &content)?;
        let mut payload = Vec::new();
        let encoding = delta::encode(before.map(|held| held.bytes.as_slice()), now, &mut payload);
        // A raw payload stands on its own, and a receiver that lacks the base can take it.
        let base = before.filter(|_| encoding != Encoding::Raw).map(|held| held.hash);
        self.held[usize::from(buffer)][tile.0 as usize] = Some(Held { epoch, tick, hash: content, author, bytes: now.to_vec() });
        Ok(Commit { workload: self.workload, buffer, tile, epoch, tick, base, content, encoding, payload, author })
    }

    /// The last commit of a tile once more, without a base: for who has not followed.
    pub fn whole(&self, buffer: u16, tile: TileId) -> Option<Commit> {
        let held = self.held(buffer, tile)?;
        let mut payload = Vec::new();
        let encoding = delta::encode(None, &held.bytes, &mut payload);
        let Held { epoch, tick, hash: content, author, .. } = *held;
        Some(Commit { workload: self.workload, buffer, tile, epoch, tick, base: None, content, encoding, payload, author })
    }

    /// Takes up another peer's commit. `owner` names the peer that may commit a tile under the commit's epoch.
    ///
    /// **Errors:** [`ApplyError`], nothing changed. On [`ApplyError::WrongBase`] ask the author for the whole tile.
    pub fn apply(&mut self, commit: &Commit, owner: impl Fn(u16, TileId) -> u16) -> Result<(), ApplyError> {
        let Commit { buffer, tile, epoch, tick, author, content, .. } = *commit;
        if commit.workload != self.workload {
            return Err(ApplyError::WrongWorkload { have: self.workload, given: commit.workload });
        }
        let tile_bytes = self.bytes_of(buffer, tile)?;
        let owner = owner(buffer, tile);
        if author != owner {
            return Err(ApplyError::NotOwner { buffer, tile, owner, author });
        }
        let before = self.held(buffer, tile);
        check_newer(before, tile, epoch, tick, &content)?;
        let base = match commit.base {
            None => None,
            Some(given) => match before {
                Some(held) if held.hash == given => Some(held.bytes.as_slice()),
                _ => return Err(ApplyError::WrongBase { tile, have: before.map(|held| held.hash), given }),
            },
        };
        let mut bytes = vec![0; tile_bytes];
        delta::decode(commit.encoding, &commit.payload, base, &mut bytes).map_err(|cause| ApplyError::Payload { tile, cause })?;
        let found = tile_hash(&bytes);
        if found != content {
            return Err(ApplyError::WrongContent { tile, found, given: content });
        }
        self.held[usize::from(buffer)][tile.0 as usize] = Some(Held { epoch, tick, hash: content, author, bytes });
        Ok(())
    }

    fn bytes_of(&self, buffer: u16, tile: TileId) -> Result<usize, ApplyError> {
        let tiles = self.tile_bytes.get(usize::from(buffer)).ok_or(ApplyError::UnknownBuffer { buffer })?;
        tiles.get(tile.0 as usize).copied().ok_or(ApplyError::UnknownTile { buffer, tile })
    }
}

fn check_newer(before: Option<&Held>, tile: TileId, epoch: u32, tick: u64, content: &Hash) -> Result<(), ApplyError> {
    let Some(held) = before else { return Ok(()) };
    if epoch < held.epoch {
        return Err(ApplyError::StaleEpoch { tile, have: held.epoch, given: epoch });
    }
    if (epoch, tick) == (held.epoch, held.tick) && *content != held.hash {
        return Err(ApplyError::Contradiction { tile, epoch, tick });
    }
    if epoch == held.epoch && tick <= held.tick {
        return Err(ApplyError::StaleTick { tile, have: held.tick, given: tick });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scalar;
    use proptest::prelude::*;

    const WORKLOAD: Hash = [7; 32];
    const TILE: TileId = TileId(1);

    fn store() -> Warm {
        let grid = Grid::new(&[20], &[8]).unwrap();
        Warm::new(WORKLOAD, vec![field_tile_bytes(&grid, &Element::scalar(Scalar::U32)), vec![12]])
    }

    fn owner(_: u16, tile: TileId) -> u16 {
        tile.0 as u16 * 10
    }

    /// Tile content that changes a little with each version.
    fn content(version: u8) -> Vec<u8> {
        (0..8u32).flat_map(|i| (if i == 3 { u32::from(version) } else { i * i * 1_000_003 }).to_le_bytes()).collect()
    }

    #[test]
    fn a_commit_brings_another_store_to_the_same_state() {
        let (mut mine, mut theirs) = (store(), store());
        for version in 1..5 {
            let commit = mine.commit(0, TILE, 0, version.into(), 10, &content(version)).unwrap();
            assert_eq!(commit.base.is_some(), version > 1);
            let read = Commit::from_bytes(&commit.to_bytes()).unwrap();
            assert_eq!(read, commit);
            theirs.apply(&read, owner).unwrap();
            assert_eq!(theirs, mine);
        }
        assert_eq!(field_tile_bytes(&Grid::new(&[20], &[8]).unwrap(), &Element::scalar(Scalar::U32)), [32, 32, 16]);
        let mut late = store();
        late.apply(&mine.whole(0, TILE).unwrap(), owner).unwrap();
        assert_eq!(late, mine);
        assert_eq!(mine.whole(1, TileId(0)), None);
    }

    #[test]
    fn every_refusal_has_its_reason_and_changes_nothing() {
        let mut author = store();
        let first = author.commit(0, TILE, 3, 5, 10, &content(1)).unwrap();
        let mut branch = author.clone();
        let next = author.commit(0, TILE, 3, 6, 10, &content(2)).unwrap();
        let other = branch.commit(0, TILE, 3, 6, 10, &content(9)).unwrap();
        assert!(next.base.is_some());
        let hash = |version: u8| tile_hash(&content(version));
        let mut held = store();
        held.apply(&first, owner).unwrap();
        let check = |edit: &dyn Fn(&mut Commit), expected: ApplyError| {
            let mut store = held.clone();
            let mut commit = next.clone();
            edit(&mut commit);
            assert_eq!(store.apply(&commit, owner).unwrap_err(), expected);
            assert_eq!(store, held);
        };
        check(&|c| c.workload = [8; 32], ApplyError::WrongWorkload { have: WORKLOAD, given: [8; 32] });
        check(&|c| c.buffer = 2, ApplyError::UnknownBuffer { buffer: 2 });
        check(&|c| c.tile = TileId(3), ApplyError::UnknownTile { buffer: 0, tile: TileId(3) });
        check(&|c| (c.buffer, c.tile) = (1, TileId(1)), ApplyError::UnknownTile { buffer: 1, tile: TILE });
        check(&|c| c.author = 20, ApplyError::NotOwner { buffer: 0, tile: TILE, owner: 10, author: 20 });
        check(&|c| (c.epoch, c.tick) = (2, 99), ApplyError::StaleEpoch { tile: TILE, have: 3, given: 2 });
        check(&|c| c.tick = 4, ApplyError::StaleTick { tile: TILE, have: 5, given: 4 });
        check(&|c| c.tick = 5, ApplyError::Contradiction { tile: TILE, epoch: 3, tick: 5 });
        check(&|c| *c = first.clone(), ApplyError::StaleTick { tile: TILE, have: 5, given: 5 });
        check(&|c| c.base = Some([1; 32]), ApplyError::WrongBase { tile: TILE, have: Some(hash(1)), given: [1; 32] });
        check(&|c| c.payload.push(0), ApplyError::Payload { tile: TILE, cause: DecodeError::End { given: 16, expected: 15 } });
        let raw = DecodeError::Length { given: 15, expected: 32 };
        check(&|c| c.encoding = Encoding::Raw, ApplyError::Payload { tile: TILE, cause: raw });
        check(&|c| c.content = hash(3), ApplyError::WrongContent { tile: TILE, found: hash(2), given: hash(3) });
        check(&|c| c.payload.clone_from(&other.payload), ApplyError::WrongContent { tile: TILE, found: hash(9), given: hash(2) });
        let mut empty = store();
        let missing = ApplyError::WrongBase { tile: TILE, have: None, given: hash(1) };
        assert_eq!(empty.apply(&next, owner).unwrap_err(), missing);
        assert_eq!(empty, store());
        held.apply(&next, owner).unwrap();
    }

    #[test]
    fn an_owner_cannot_commit_what_does_not_fit() {
        let mut warm = store();
        let cause = DecodeError::Length { given: 31, expected: 32 };
        assert_eq!(warm.commit(0, TILE, 0, 0, 10, &[0; 31]).unwrap_err(), ApplyError::Payload { tile: TILE, cause });
        warm.commit(0, TILE, 1, 1, 10, &content(1)).unwrap();
        assert_eq!(warm.commit(0, TILE, 1, 1, 10, &content(1)).unwrap_err(), ApplyError::StaleTick { tile: TILE, have: 1, given: 1 });
        assert_eq!(warm.commit(9, TILE, 1, 1, 10, &[]).unwrap_err(), ApplyError::UnknownBuffer { buffer: 9 });
    }

    #[test]
    fn the_layout_is_the_one_that_is_drawn() {
        let commit = Commit {
            workload: [0x77; 32],
            buffer: 0x0102,
            tile: TileId(0x0304_0506),
            epoch: 0x0708_090a,
            tick: 0x0b0c_0d0e_0f10_1112,
            base: Some([0xbb; 32]),
            content: [0xcc; 32],
            encoding: Encoding::Planes,
            payload: vec![1, 2, 3],
            author: 0x1314,
        };
        let bytes = commit.to_bytes();
        let head = "0100010102011413060504030a0908071211100f0e0d0c0b0300000000000000";
        assert_eq!(hex(&bytes[..32]), head);
        assert_eq!(bytes[32..], [[0x77; 32].as_slice(), &[0xcc; 32], &[0xbb; 32], &[1, 2, 3]].concat());
        let check = |at: usize, byte: u8, expected: CommitBytesError| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert_eq!(Commit::from_bytes(&bytes).unwrap_err(), expected);
        };
        check(0, 2, CommitBytesError::Format { given: 2, known: 1 });
        check(2, 9, CommitBytesError::Encoding { given: 9 });
        check(3, 0, CommitBytesError::NotCanonical);
        check(3, 2, CommitBytesError::NotCanonical);
        check(24, 4, CommitBytesError::Length { given: 131, expected: 132 });
        check(27, 0xff, CommitBytesError::TooLarge { given: 0xff00_0003, limit: PAYLOAD_BYTES_MAX as u64 });
        check(31, 1, CommitBytesError::NotCanonical);
        assert_eq!(Commit::from_bytes(&bytes[..127]).unwrap_err(), CommitBytesError::Length { given: 127, expected: 128 });
        assert_eq!(Commit::from_bytes(&bytes[..130]).unwrap_err(), CommitBytesError::Length { given: 130, expected: 131 });
    }

    proptest! {
        /// Whole commits of several owners and epochs, repeated and in any order: the largest (epoch, tick) stays.
        #[test]
        fn arrival_order_never_matters_for_whole_tiles(
            stamps in proptest::collection::btree_map((0u32..3, 0u64..6), any::<u8>(), 1..12),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let commits: Vec<Commit> = stamps.iter().map(|(&(epoch, tick), &version)| {
                store().commit(0, TILE, epoch, tick, 10, &content(version)).unwrap()
            }).collect();
            let mut warm = store();
            for commit in order.iter().map(|at| at.get(&commits)).chain(&commits) {
                let before = warm.clone();
                if warm.apply(commit, owner).is_err() {
                    prop_assert_eq!(&before, &warm);
                }
            }
            let mut expected = store();
            expected.apply(commits.last().unwrap(), owner).unwrap();
            prop_assert_eq!(warm, expected);
        }

        /// A chain of deltas in any order: what lacks its base is kept and tried again, or the whole tile is asked for.
        #[test]
        fn arrival_order_never_matters_for_deltas(
            versions in proptest::collection::vec(any::<u8>(), 1..10),
            keys in proptest::collection::vec(any::<prop::sample::Index>(), 10),
            lost in any::<Option<prop::sample::Index>>(),
        ) {
            let mut author = store();
            let mut commits: Vec<Commit> = versions.iter().enumerate().map(|(tick, &version)| {
                author.commit(0, TILE, 0, tick as u64, 10, &content(version)).unwrap()
            }).collect();
            for (index, key) in keys.iter().enumerate().take(commits.len()) {
                let other = key.index(commits.len());
                commits.swap(index, other);
            }
            if let Some(lost) = lost {
                commits.remove(lost.index(commits.len()));
            }
            let mut warm = store();
            loop {
                let waiting = commits.len();
                commits.retain(|commit| matches!(warm.apply(commit, owner), Err(ApplyError::WrongBase { .. })));
                if commits.len() == waiting { break }
            }
            let newest = author.held(0, TILE).unwrap().tick;
            if lost.is_none() {
                prop_assert!(commits.is_empty());
            } else if warm.held(0, TILE).is_none_or(|held| held.tick < newest) {
                warm.apply(&author.whole(0, TILE).unwrap(), owner).unwrap();
            }
            prop_assert_eq!(warm, author);
        }

        #[test]
        fn random_and_mutated_bytes_never_panic_and_read_only_as_themselves(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut warm = store();
            let mut bytes = warm.commit(0, TILE, 1, 1, 10, &content(1)).unwrap().to_bytes();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for bytes in [noise, bytes] {
                if let Ok(commit) = Commit::from_bytes(&bytes) {
                    prop_assert_eq!(commit.to_bytes(), bytes);
                    let _ = store().apply(&commit, owner);
                }
            }
        }
    }
}
