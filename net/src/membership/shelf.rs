//! The snapshots that a member holds, part by part: its own, what it replicates, what it has fetched.
//!
//! ```text
//!  version    part 0     part 1     …      hashes: from the owners' offers, or from the plan
//!  (2,  300)  bytes      –                 the newest complete one: a run survives on it
//!  (2,  420)  bytes      bytes             being replicated
//! ```
//!
//! Invariants: the bytes of a part hash to what stands beside them; of the versions below the newest complete one none
//! is kept, and at most [`VERSIONS_MAX`] in all.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use peercompute_buffers::digest::Hash;

use super::parts::{PartId, Parts};
use super::plan::Version;
use super::wire::{HOLDINGS_MAX, Holding};

/// Versions kept, the complete one among them.
const VERSIONS_MAX: usize = 5;

/// One snapshot, as far as it is known here.
#[derive(Debug)]
struct Snapshot {
    hashes: Vec<Option<Hash>>,
    held: Vec<Option<Bytes>>,
}

#[derive(Debug)]
pub(super) struct Shelf {
    parts: Arc<Parts>,
    versions: BTreeMap<Version, Snapshot>,
    complete: Option<Version>,
    /// What the newest plan begins from.
    origin: Option<Version>,
    changed: bool,
}

impl Shelf {
    pub(super) fn new(parts: Arc<Parts>) -> Shelf {
        Shelf { parts, versions: BTreeMap::new(), complete: None, origin: None, changed: false }
    }

    fn open(&mut self, version: Version) -> &mut Snapshot {
        let (count, before) = (self.parts.count(), self.versions.len());
        let empty = || Snapshot { hashes: vec![None; count], held: vec![None; count] };
        self.versions.entry(version).or_insert_with(empty);
        if self.versions.len() > before {
            self.make_room(version);
        }
        self.versions.entry(version).or_insert_with(empty)
    }

    fn make_room(&mut self, newest: Version) {
        while self.versions.len() > VERSIONS_MAX {
            let keep = [Some(newest), self.complete, self.origin];
            let Some(oldest) = self.versions.keys().copied().find(|version| !keep.contains(&Some(*version))) else { return };
            self.versions.remove(&oldest);
        }
    }

    /// Learns a part's hash. `false` where another was known.
    pub(super) fn learn(&mut self, version: Version, part: PartId, hash: Hash) -> bool {
        self.changed = true;
        match self.open(version).hashes.get_mut(part.at()) {
            Some(known) => *known.get_or_insert(hash) == hash,
            None => false,
        }
    }

    /// Puts a part whose bytes hash to `hash`.
    pub(super) fn put(&mut self, version: Version, part: PartId, hash: Hash, bytes: Bytes) {
        self.changed = true;
        let snapshot = self.open(version);
        if let (Some(known), Some(held)) = (snapshot.hashes.get_mut(part.at()), snapshot.held.get_mut(part.at())) {
            *known = Some(hash);
            *held = Some(bytes);
        }
    }

    /// Whoever waits for a change looks once more.
    pub(super) fn look_again(&mut self) {
        self.changed = true;
    }

    /// Whether anything came since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn hash(&self, version: Version, part: PartId) -> Option<Hash> {
        self.versions.get(&version)?.hashes.get(part.at()).copied().flatten()
    }

    pub(super) fn get(&self, version: Version, part: PartId) -> Option<&Bytes> {
        self.versions.get(&version)?.held.get(part.at())?.as_ref()
    }

    /// The newest other version of a part, to make or read a delta from.
    pub(super) fn base(&self, version: Version, part: PartId) -> Option<(Hash, &Bytes)> {
        let mut others = self.versions.iter().rev().filter(|(other, _)| **other != version);
        others.find_map(|(_, snapshot)| Some((snapshot.hashes.get(part.at()).copied().flatten()?, snapshot.held.get(part.at())?.as_ref()?)))
    }

    /// A part by its hash, in whatever version.
    pub(super) fn by_hash(&self, part: PartId, hash: &Hash) -> Option<&Bytes> {
        let holds = |snapshot: &&Snapshot| snapshot.hashes.get(part.at()).copied().flatten() == Some(*hash);
        self.versions.values().rev().filter(holds).find_map(|snapshot| snapshot.held.get(part.at())?.as_ref())
    }

    /// All hashes of a version, where all are known.
    pub(super) fn hashes(&self, version: Version) -> Option<Vec<Hash>> {
        self.versions.get(&version)?.hashes.iter().copied().collect()
    }

    /// All parts of a version, where all are held.
    pub(super) fn whole(&self, version: Version) -> Option<Vec<Bytes>> {
        self.versions.get(&version)?.held.iter().cloned().collect()
    }

    pub(super) fn complete(&self) -> Option<Version> {
        self.complete
    }

    /// A version is complete on all its holders: older ones are not needed any more. Whether that is news.
    pub(super) fn completed(&mut self, version: Version) -> bool {
        if self.complete >= Some(version) {
            return false;
        }
        self.complete = Some(version);
        let origin = self.origin;
        self.versions.retain(|other, _| *other >= version || Some(*other) == origin);
        true
    }

    /// The newest plan begins from this version.
    pub(super) fn begin(&mut self, origin: Option<Version>) {
        self.origin = origin;
    }

    /// What is held, newest first.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        let newest = self.versions.iter().rev().take(HOLDINGS_MAX);
        let bits = |snapshot: &Snapshot| {
            let mut bits = vec![0u8; snapshot.held.len().div_ceil(8)];
            for (at, _) in snapshot.held.iter().enumerate().filter(|(_, held)| held.is_some()) {
                bits[at / 8] |= 1 << (at % 8);
            }
            Bytes::from(bits)
        };
        newest.map(|(version, snapshot)| Holding { version: *version, parts: bits(snapshot) }).filter(|h| h.parts.iter().any(|b| *b != 0)).collect()
    }

    /// The versions of which every hash is known here, newest first.
    pub(super) fn known(&self) -> impl Iterator<Item = Version> + '_ {
        self.versions.iter().rev().filter(|(_, snapshot)| snapshot.hashes.iter().all(Option::is_some)).map(|(version, _)| *version)
    }

    /// The newest version of which anything is known.
    pub(super) fn newest(&self) -> Option<Version> {
        self.versions.keys().next_back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peercompute_buffers::Grid;

    fn version(epoch: u32, tick: u64) -> Version {
        Version { epoch, tick }
    }

    fn shelf() -> Shelf {
        let grid = Grid::new(&[12], &[4]).unwrap();
        Shelf::new(Arc::new(Parts::new(&[grid], &[4], 8).unwrap()))
    }

    #[test]
    fn old_versions_go_once_a_newer_one_is_complete() {
        let mut shelf = shelf();
        let bytes = Bytes::from_static(&[1; 16]);
        for tick in [10, 20, 30] {
            shelf.put(version(1, tick), PartId(0), [tick as u8; 32], bytes.clone());
        }
        assert_eq!(shelf.base(version(1, 30), PartId(0)).map(|(hash, _)| hash), Some([20; 32]));
        shelf.begin(Some(version(1, 10)));
        assert!(shelf.completed(version(1, 30)) && !shelf.completed(version(1, 20)));
        assert!(shelf.get(version(1, 10), PartId(0)).is_some(), "the origin stays");
        assert!(shelf.get(version(1, 20), PartId(0)).is_none());
        assert_eq!(shelf.holdings().len(), 2);
        assert!(shelf.holdings()[0].has(PartId(0)) && !shelf.holdings()[0].has(PartId(1)));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_complete_one_stays() {
        let mut shelf = shelf();
        shelf.put(version(1, 0), PartId(0), [0; 32], Bytes::new());
        shelf.completed(version(1, 0));
        for tick in 1..50 {
            assert!(shelf.learn(version(1, tick), PartId(1), [tick as u8; 32]));
            assert!(!shelf.learn(version(1, tick), PartId(1), [99; 32]));
            assert!(shelf.versions.len() <= VERSIONS_MAX);
        }
        assert!(shelf.get(version(1, 0), PartId(0)).is_some());
        assert_eq!(shelf.newest(), Some(version(1, 49)));
        assert!(!shelf.learn(version(1, 49), PartId(9), [0; 32]), "no such part");
    }
}
