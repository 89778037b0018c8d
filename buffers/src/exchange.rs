//! One exchange: which bytes go to whom, and which copies bring them to their places.
//!
//! Before a pass reads beyond its tiles, every peer *packs* the boxes that others need into one
//! outbox, one contiguous run per peer, ships the runs, and *unpacks* what arrived. A strip that
//! comes from a tile of the same executor takes the same way without leaving it.
//!
//! ```text
//! outbox | boxes for peer 0 | boxes for peer 1 | … | boxes for own strips |   in words
//! inbox  | boxes of peer 0  | boxes of peer 1  | … |
//! run    | buffer 0: boxes by tile, origin, extent | buffer 1: … |           each box x fastest
//! ```
//!
//! A tile may have a *shadow* beside its owner: another peer that computes it too. It reads what an owner would read, and
//! nobody reads from it.
//!
//! Invariant: sender and receiver derive the same run from ownership alone, no box is shipped twice
//! to one peer, and nothing is shipped that no halo shows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::grid::TileId;
use crate::halo::{self, Boundary, TileBox};
use crate::residency::Residency;

/// A field of the grid that must be fresh beyond the tile before the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// The buffer's number in the workload.
    pub buffer: usize,
    /// Words of an element.
    pub words: u32,
    /// What lies beyond the grid.
    pub boundary: Boundary,
    /// How deep its halo is read; 0 when it is not.
    pub depth: u32,
    /// Whether it is read as a whole.
    pub whole: bool,
}

/// One affine copy of elements, in words: what the pack and unpack kernels are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Copy {
    /// Elements along each axis, then words per element.
    pub extent: [u32; 4],
    /// First word of the source, then words from one element to the next along each axis.
    pub from: [u32; 4],
    /// The same for the target.
    pub to: [u32; 4],
}

impl Copy {
    /// Words moved.
    pub fn words(&self) -> u32 {
        self.extent.iter().product()
    }
}

/// The copies between one page of one buffer and a mailbox.
#[derive(Clone, Debug)]
pub struct CopySet {
    /// The buffer's number in the workload.
    pub buffer: usize,
    /// The page of its arena.
    pub page: usize,
    /// The copies.
    pub copies: Vec<Copy>,
}

impl CopySet {
    /// Runs the copies on the CPU.
    ///
    /// # Panics
    /// When a slice is shorter than the plan says.
    pub fn run(&self, from: &[u32], to: &mut [u32]) {
        for copy in &self.copies {
            let [ex, ey, ez, words] = copy.extent;
            for z in 0..ez {
                for y in 0..ey {
                    for x in 0..ex {
                        let at = |a: &[u32; 4]| (a[0] + x * a[1] + y * a[2] + z * a[3]) as usize;
                        let (source, target, words) = (at(&copy.from), at(&copy.to), words as usize);
                        to[target..target + words].copy_from_slice(&from[source..source + words]);
                    }
                }
            }
        }
    }
}

/// One exchange, as one peer carries it out. All lengths and ranges are in 32-bit words.
#[derive(Clone, Debug, Default)]
pub struct ExchangePlan {
    /// From pages to the outbox.
    pub pack: Vec<CopySet>,
    /// The outbox' length.
    pub outbox_words: u64,
    /// Per peer, its run of the outbox; empty where nothing is owed.
    pub send: Vec<Range<usize>>,
    /// The inbox' length.
    pub inbox_words: u64,
    /// Per peer, its run of the inbox.
    pub receive: Vec<Range<usize>>,
    /// From the outbox to strips of the same executor.
    pub unpack_local: Vec<CopySet>,
    /// From the inbox to strips and replicas.
    pub unpack: Vec<CopySet>,
}

impl ExchangePlan {
    /// Whether nothing moves at all.
    pub fn is_empty(&self) -> bool {
        self.outbox_words == 0 && self.inbox_words == 0
    }

    /// Whether nothing crosses to or from another peer.
    pub fn is_local(&self) -> bool {
        self.send.iter().chain(&self.receive).all(Range::is_empty)
    }

    /// Appends an exchange of another grid; runs of one peer stay contiguous.
    pub fn merge(plans: &[ExchangePlan], peers: usize) -> ExchangePlan {
        if let [only] = plans {
            return only.clone();
        }
        let mut merged = ExchangePlan::default();
        let place = |runs: &dyn Fn(&ExchangePlan) -> Vec<Range<usize>>| {
            let mut at = 0;
            let mut shifts: Vec<Vec<(Range<usize>, i64)>> = vec![Vec::new(); plans.len()];
            let mut whole = Vec::new();
            for peer in 0..=peers {
                let first = at;
                for (plan, shifts) in plans.iter().zip(&mut shifts) {
                    if let Some(run) = runs(plan).get(peer) {
                        shifts.push((run.clone(), at as i64 - run.start as i64));
                        at += run.len();
                    }
                }
                whole.push(first..at);
            }
            (at, shifts, whole)
        };
        let with_local = |plan: &ExchangePlan| {
            let mut runs = plan.send.clone();
            let end = runs.last().map_or(0, |run| run.end);
            runs.push(end..plan.outbox_words as usize);
            runs
        };
        let (outbox, out_shifts, mut send) = place(&with_local);
        let (inbox, in_shifts, mut receive) = place(&|plan| plan.receive.clone());
        send.truncate(peers);
        receive.truncate(peers);
        let shifted = |sets: &[CopySet], shifts: &[(Range<usize>, i64)], side: fn(&mut Copy) -> &mut u32| {
            let mut sets = sets.to_vec();
            for copy in sets.iter_mut().flat_map(|set| &mut set.copies) {
                let word = side(copy);
                if let Some((_, by)) = shifts.iter().find(|(run, _)| run.contains(&(*word as usize))) {
                    *word = (i64::from(*word) + by) as u32;
                }
            }
            sets
        };
        for (index, plan) in plans.iter().enumerate() {
            merged.pack.extend(shifted(&plan.pack, &out_shifts[index], |c| &mut c.to[0]));
            merged.unpack_local.extend(shifted(&plan.unpack_local, &out_shifts[index], |c| &mut c.from[0]));
            merged.unpack.extend(shifted(&plan.unpack, &in_shifts[index], |c| &mut c.from[0]));
        }
        merged.outbox_words = outbox as u64;
        merged.inbox_words = inbox as u64;
        merged.send = send;
        merged.receive = receive;
        merged
    }
}

/// The peers that compute a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computers {
    /// Whose results others read.
    pub owner: usize,
    /// Who computes it too; the owner itself where nobody does.
    pub shadow: usize,
}

impl Computers {
    /// A tile without a shadow.
    pub fn owner(owner: usize) -> Computers {
        Computers { owner, shadow: owner }
    }

    /// Whether a peer computes the tile.
    pub fn include(self, peer: usize) -> bool {
        peer == self.owner || peer == self.shadow
    }
}

/// Where a box lies in a mailbox: buffer number and box to first word.
type Mailbox = BTreeMap<(usize, TileBox), u32>;

/// Plans an exchange of fields of one grid.
///
/// `computers_of` names who computes a tile; `residency` is the layout on peer `me`, of all tiles that it computes. Of a buffer that is read
/// as a whole, `is_whole_for` says whether a peer reads it so: one that computes nothing does not.
pub fn plan(
    residency: &Residency,
    computers_of: &dyn Fn(TileId) -> Computers,
    is_whole_for: &dyn Fn(usize, usize) -> bool,
    me: usize,
    peers: usize,
    ghosts: &[Ghost],
) -> ExchangePlan {
    let grid = &residency.grid;
    let depth_max = residency.rules.depth;
    let owner_of = |tile: TileId| computers_of(tile).owner;
    let needs: Vec<BTreeSet<(usize, TileBox)>> = boxes_by_reader(residency, computers_of, is_whole_for, peers, ghosts);
    let words = |buffer: usize| ghosts.iter().find(|g| g.buffer == buffer).map_or(0, |g| g.words);

    let mut plan = ExchangePlan::default();
    let mut outbox: Vec<(usize, TileBox, u32)> = Vec::new();
    let mut at = 0u32;
    for needed in &needs {
        let first = at;
        for &(buffer, piece) in needed {
            if owner_of(piece.tile) == me {
                outbox.push((buffer, piece, at));
                at += piece.elements() as u32 * words(buffer);
            }
        }
        plan.send.push(first as usize..at as usize);
    }
    let mut inbox = Mailbox::new();
    let mut received = 0u32;
    for peer in 0..peers {
        let first = received;
        for &(buffer, piece) in &needs[me] {
            if owner_of(piece.tile) == peer {
                inbox.insert((buffer, piece), received);
                received += piece.elements() as u32 * words(buffer);
            }
        }
        plan.receive.push(first as usize..received as usize);
    }

    // Replicas take what arrived as it is.
    let mut unpack = Sets::new();
    for (&(buffer, piece), &word) in &inbox {
        if let Some((page, first)) = residency.slot(piece.tile) {
            let to = slot_side(residency, first, &piece, words(buffer));
            push(
                &mut unpack,
                buffer,
                page,
                Copy { extent: extent(&piece, words(buffer)), from: box_side(word, &piece, piece.extent, words(buffer)), to },
            );
        }
    }
    // Strips are assembled from boxes of others and, by way of the outbox, of our own.
    let mut local = Mailbox::new();
    let mut unpack_local = Sets::new();
    for (page_index, page) in residency.pages.iter().enumerate() {
        for strip in &page.strips {
            for ghost in ghosts.iter().filter(|g| g.depth > 0) {
                for piece in halo::pieces(grid, strip.tile, strip.direction, ghost.depth, depth_max, ghost.boundary) {
                    let [x, y, z] = piece.to;
                    let first = strip.first + x + strip.extent[0] * (y + strip.extent[1] * z);
                    let w = ghost.words;
                    let to = [first * w, w, strip.extent[0] * w, strip.extent[0] * strip.extent[1] * w];
                    let size = [piece.extent[0], piece.extent[1], piece.extent[2], w];
                    let Some(from) = piece.from else { continue };
                    let key = (ghost.buffer, from);
                    if let Some(&word) = inbox.get(&key) {
                        push(&mut unpack, ghost.buffer, page_index, Copy { extent: size, from: box_side(word, &from, piece.extent, w), to });
                    } else {
                        let word = *local.entry(key).or_insert_with(|| {
                            outbox.push((ghost.buffer, from, at));
                            at += from.elements() as u32 * w;
                            at - from.elements() as u32 * w
                        });
                        push(&mut unpack_local, ghost.buffer, page_index, Copy { extent: size, from: box_side(word, &from, piece.extent, w), to });
                    }
                }
            }
        }
    }
    let mut pack = Sets::new();
    for (buffer, piece, word) in outbox {
        if let Some((page, first)) = residency.slot(piece.tile) {
            let from = slot_side(residency, first, &piece, words(buffer));
            push(
                &mut pack,
                buffer,
                page,
                Copy { extent: extent(&piece, words(buffer)), from, to: box_side(word, &piece, piece.extent, words(buffer)) },
            );
        }
    }
    plan.outbox_words = u64::from(at);
    plan.inbox_words = u64::from(received);
    plan.pack = sets(pack);
    plan.unpack = sets(unpack);
    plan.unpack_local = sets(unpack_local);
    plan
}

/// The strips that only a boundary constant fills: written once, when the buffer is made.
pub fn constant_pieces(residency: &Residency, page: usize, ghost: &Ghost) -> Vec<Range<u32>> {
    let mut runs = Vec::new();
    if ghost.depth == 0 || ghost.boundary != Boundary::Constant {
        return runs;
    }
    for strip in &residency.pages[page].strips {
        for piece in halo::pieces(&residency.grid, strip.tile, strip.direction, ghost.depth, residency.rules.depth, ghost.boundary) {
            if piece.from.is_none() {
                for z in 0..piece.extent[2] {
                    for y in 0..piece.extent[1] {
                        let first = strip.first + piece.to[0] + strip.extent[0] * (piece.to[1] + y + strip.extent[1] * (piece.to[2] + z));
                        runs.push(first..first + piece.extent[0]);
                    }
                }
            }
        }
    }
    runs
}

/// Per peer, the boxes that it needs of tiles that it does not compute, in canonical order.
fn boxes_by_reader(
    residency: &Residency,
    computers_of: &dyn Fn(TileId) -> Computers,
    is_whole_for: &dyn Fn(usize, usize) -> bool,
    peers: usize,
    ghosts: &[Ghost],
) -> Vec<BTreeSet<(usize, TileBox)>> {
    let grid = &residency.grid;
    let mut needs = vec![BTreeSet::new(); peers];
    for ghost in ghosts {
        for (peer, needs) in needs.iter_mut().enumerate().filter(|(peer, _)| ghost.whole && is_whole_for(ghost.buffer, *peer)) {
            for tile in grid.tiles().filter(|tile| !computers_of(*tile).include(peer)) {
                needs.insert((ghost.buffer, TileBox { tile, origin: [0; 3], extent: grid.tile_block(tile).extent }));
            }
        }
        for tile in grid.tiles().filter(|_| ghost.depth > 0) {
            let Computers { owner, shadow } = computers_of(tile);
            for direction in halo::directions(grid.dims) {
                for piece in halo::pieces(grid, tile, direction, ghost.depth, residency.rules.depth, ghost.boundary) {
                    let Some(from) = piece.from else { continue };
                    for reader in [owner, shadow].into_iter().filter(|reader| !computers_of(from.tile).include(*reader)) {
                        needs[reader].insert((ghost.buffer, from));
                    }
                }
            }
        }
    }
    needs
}

type Sets = BTreeMap<(usize, usize), Vec<Copy>>;

fn push(sets: &mut Sets, buffer: usize, page: usize, copy: Copy) {
    sets.entry((buffer, page)).or_default().push(copy);
}

fn sets(sets: Sets) -> Vec<CopySet> {
    sets.into_iter().map(|((buffer, page), copies)| CopySet { buffer, page, copies }).collect()
}

fn extent(piece: &TileBox, words: u32) -> [u32; 4] {
    [piece.extent[0], piece.extent[1], piece.extent[2], words]
}

/// The side of a copy that lies in a mailbox; an axis along which one element is repeated has step 0.
fn box_side(word: u32, piece: &TileBox, shown: [u32; 3], words: u32) -> [u32; 4] {
    let step = [words, piece.extent[0] * words, piece.extent[0] * piece.extent[1] * words];
    let step = [0, 1, 2].map(|axis| if piece.extent[axis] == 1 && shown[axis] > 1 { 0 } else { step[axis] });
    [word, step[0], step[1], step[2]]
}

/// The side of a copy that lies in a slot.
fn slot_side(residency: &Residency, first: u32, piece: &TileBox, words: u32) -> [u32; 4] {
    let pitch = residency.grid.tile_block(piece.tile).extent;
    let [x, y, z] = piece.origin;
    let element = first + x + pitch[0] * (y + pitch[1] * z);
    [element * words, words, pitch[0] * words, pitch[0] * pitch[1] * words]
}
