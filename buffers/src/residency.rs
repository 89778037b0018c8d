//! Which tiles an executor holds, where each lies, and how a kernel finds a neighbour.
//!
//! All fields of a grid share one layout, so one index serves them all. An arena is cut into pages:
//!
//! ```text
//! page   | slot 0 | slot 1 | … | strips … | constant |      one per page limit, in elements
//! slot   | the tile's elements, x fastest            |      equal slots; a clipped tile fills a prefix
//! table  | first, origin x y z | extent x y z, 0 | entry × 3^dims |   one row of i32 per owned tile
//! entry  | base, mx, my, mz |   index = base + x·mx + y·my + z·mz, x y z in tile coordinates
//! ```
//!
//! A neighbour that lies in the same page and is one affine image for every field is an entry into
//! its slot; any other is a *strip*: a few elements of this page, filled before the pass that reads.
//! Invariant: an entry never points outside its page, and only owned tiles have rows.

use crate::grid::{Grid, TileId};
use crate::halo::{self, Boundary, Direction, TileBox};

/// What decides a grid's layout: the same on every peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaloRules {
    /// The deepest halo that any pass reads; 0 for none.
    pub depth: u32,
    /// The boundary rules of the fields that are read with a halo, without repetition.
    pub boundaries: Vec<Boundary>,
    /// Whether a field is read as a whole: every tile is resident, in tile order, in one page.
    pub whole: bool,
}

/// A strip in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strip {
    /// The tile whose halo it is.
    pub tile: TileId,
    /// Where it lies from there.
    pub direction: Direction,
    /// Its first element in the page.
    pub first: u32,
    /// Elements along each axis.
    pub extent: [u32; 3],
}

/// One page of a grid's arenas.
#[derive(Clone, Debug)]
pub struct Page {
    /// The tiles in slot order.
    pub tiles: Vec<TileId>,
    /// The strips behind the slots.
    pub strips: Vec<Strip>,
    /// The element that holds the constant of the boundary rule, if any field has one.
    pub constant: Option<u32>,
    /// Elements in all.
    pub elements: u32,
    /// The tiles that passes run over: those of `tiles` that are owned.
    pub owned: Vec<TileId>,
    /// Rows of the tile table, one per owned tile, [`Residency::row_words`] each.
    pub table: Vec<i32>,
}

/// Why tiles cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResidencyError {
    /// Not even one tile fits a page.
    #[error("one tile with its strips takes {needed} bytes of a field, and a page has {limit}: use smaller tiles")]
    TileTooLarge {
        /// Bytes of a slot and its strips.
        needed: u64,
        /// Bytes of a page.
        limit: u64,
    },
    /// A field that is read as a whole must lie in one page.
    #[error("a field that is read with `all` takes {needed} bytes in one piece, and the limit is {limit}")]
    WholeTooLarge {
        /// Bytes of the field.
        needed: u64,
        /// Bytes of a page.
        limit: u64,
    },
}

/// The layout of a grid's arenas on one executor.
#[derive(Clone, Debug)]
pub struct Residency {
    /// The grid.
    pub grid: Grid,
    /// What the layout was made for.
    pub rules: HaloRules,
    /// The pages.
    pub pages: Vec<Page>,
}

/// Fewest bytes a page is cut to, so that a tiny limit in a test still holds a slot.
const HEADER_WORDS: u32 = 8;

impl Residency {
    /// Lays out the tiles that a peer owns, and with `rules.whole` every other one beside them.
    ///
    /// `element_bytes` is the largest stride of the grid's fields, `page_bytes_max` the largest
    /// binding the executor can make.
    ///
    /// **Errors:** [`ResidencyError`]: smaller tiles, or an adapter with a larger limit.
    pub fn new(grid: Grid, rules: HaloRules, owned: &[TileId], element_bytes: u32, page_bytes_max: u64) -> Result<Residency, ResidencyError> {
        let slot = grid.tile_points();
        let page_elements = (page_bytes_max / u64::from(element_bytes)).min(i32::MAX as u64);
        let resident: Vec<TileId> = if rules.whole { grid.tiles().collect() } else { owned.to_vec() };
        // A page is filled by its slots first; the strips of its tiles are a bound that the cut must leave room for.
        let strip_bound = halo::directions(grid.dims).map(|d| halo_elements(&grid, d, rules.depth)).sum::<u64>();
        let fits = |count: u64| {
            count * slot < page_elements && (count * (slot + strip_bound) < page_elements || all_direct(&grid, &rules, &resident, count))
        };
        let per_page = if rules.whole {
            let needed = grid.points();
            if needed > page_elements {
                return Err(ResidencyError::WholeTooLarge { needed: needed * u64::from(element_bytes), limit: page_bytes_max });
            }
            resident.len().max(1)
        } else if fits(resident.len() as u64) {
            resident.len().max(1)
        } else {
            let count = (page_elements - 1) / (slot + strip_bound);
            if count == 0 {
                return Err(ResidencyError::TileTooLarge { needed: (slot + strip_bound) * u64::from(element_bytes), limit: page_bytes_max });
            }
            count as usize
        };
        let pages = resident.chunks(per_page).map(|tiles| lay_out_page(&grid, &rules, tiles, owned)).collect();
        Ok(Residency { grid, rules, pages })
    }

    /// Words of a tile table's row.
    pub fn row_words(&self) -> u32 {
        HEADER_WORDS + 4 * halo::table_entries(self.grid.dims)
    }

    /// Elements of all pages: what one copy of a field takes.
    pub fn elements(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.elements)).sum()
    }

    /// The page and first element of a resident tile.
    pub fn slot(&self, tile: TileId) -> Option<(usize, u32)> {
        self.pages.iter().enumerate().find_map(|(index, page)| {
            let slot = page.tiles.binary_search(&tile).ok()?;
            Some((index, slot as u32 * self.grid.tile_points() as u32))
        })
    }

    /// Whether passes run over the tile here.
    pub fn owns(&self, tile: TileId) -> bool {
        self.pages.iter().any(|page| page.owned.binary_search(&tile).is_ok())
    }

    /// Every owned tile.
    pub fn owned(&self) -> impl Iterator<Item = TileId> + '_ {
        self.pages.iter().flat_map(|page| page.owned.iter().copied())
    }
}

fn halo_elements(grid: &Grid, direction: Direction, depth: u32) -> u64 {
    (0..3).map(|axis| u64::from(if direction[axis] == 0 { grid.tile[axis] } else { depth })).product()
}

/// Whether the whole grid is resident, in one page, with nothing that needs a strip.
fn all_direct(grid: &Grid, rules: &HaloRules, resident: &[TileId], count: u64) -> bool {
    count == u64::from(grid.tile_count())
        && resident.len() as u64 == count
        && rules.boundaries.len() <= 1
        && (0..usize::from(grid.dims)).all(|axis| {
            let rest = grid.shape[axis] % grid.tile[axis];
            rest == 0 || rest >= rules.depth
        })
        && (0..usize::from(grid.dims)).all(|axis| grid.tile[axis] >= rules.depth)
}

fn lay_out_page(grid: &Grid, rules: &HaloRules, tiles: &[TileId], owned: &[TileId]) -> Page {
    let slot = grid.tile_points() as u32;
    let last = *tiles.last().unwrap_or(&TileId(0));
    // The last slot ends where its tile ends, so that a whole 1-D field is exactly its grid.
    let mut elements = match tiles.len() as u32 {
        0 => 0,
        count => (count - 1) * slot + grid.tile_block(last).points() as u32,
    };
    let owned: Vec<TileId> = tiles.iter().copied().filter(|tile| owned.binary_search(tile).is_ok()).collect();
    let has_constant = rules.boundaries.contains(&Boundary::Constant) && rules.depth > 0;
    let mut strips = Vec::new();
    let mut entries = Vec::new();
    for &tile in &owned {
        entries.push((tile, [0, 0, 0], Entry::Own));
        if rules.depth == 0 {
            continue;
        }
        for direction in halo::directions(grid.dims) {
            let entry = match direct(grid, rules, tile, direction) {
                Some(None) => Entry::Constant,
                Some(Some(from)) if tiles.binary_search(&from.tile).is_ok() => Entry::Direct(from),
                _ => {
                    let extent = halo::strip_extent(grid, tile, direction, rules.depth);
                    let strip = Strip { tile, direction, first: elements, extent };
                    elements += extent.iter().product::<u32>();
                    strips.push(strip);
                    Entry::Strip(strip)
                }
            };
            entries.push((tile, direction, entry));
        }
    }
    let constant = has_constant.then_some(elements);
    elements += u32::from(has_constant);
    let table = tile_table(grid, tiles, &owned, &entries, rules.depth, constant);
    Page { tiles: tiles.to_vec(), strips, constant, elements: elements.max(1), owned, table }
}

enum Entry {
    Own,
    Direct(TileBox),
    Constant,
    Strip(Strip),
}

/// The one box (or constant) that a strip shows under every boundary rule in use, if there is one.
fn direct(grid: &Grid, rules: &HaloRules, tile: TileId, direction: Direction) -> Option<Option<TileBox>> {
    let mut found = None;
    for &boundary in &rules.boundaries {
        let pieces = halo::pieces(grid, tile, direction, rules.depth, rules.depth, boundary);
        let [piece] = pieces.as_slice() else { return None };
        if *found.get_or_insert(piece.from) != piece.from {
            return None;
        }
    }
    found
}

fn tile_table(
    grid: &Grid,
    tiles: &[TileId],
    owned: &[TileId],
    entries: &[(TileId, Direction, Entry)],
    depth: u32,
    constant: Option<u32>,
) -> Vec<i32> {
    let slot = grid.tile_points() as u32;
    let row_words = (HEADER_WORDS + 4 * halo::table_entries(grid.dims)) as usize;
    let first_of = |tile: TileId| tiles.binary_search(&tile).map_or(0, |index| index as u32 * slot);
    let mut table = vec![0i32; row_words * owned.len()];
    for (row, &tile) in table.chunks_exact_mut(row_words).zip(owned) {
        let block = grid.tile_block(tile);
        let header = [first_of(tile), block.origin[0], block.origin[1], block.origin[2], block.extent[0], block.extent[1], block.extent[2], tile.0];
        row[..8].copy_from_slice(&header.map(|word| word as i32));
    }
    for (tile, direction, entry) in entries {
        let Ok(row) = owned.binary_search(tile) else { continue };
        let own = grid.tile_block(*tile).extent;
        // `start` is the tile coordinate at which the strip begins, `first` the element found there.
        let start = [0, 1, 2].map(|axis| match direction[axis] {
            0 => 0,
            1 => own[axis] as i32,
            _ => -(depth as i32),
        });
        let (first, pitch, moves) = match entry {
            Entry::Own => (first_of(*tile), own, [true; 3]),
            Entry::Constant => (constant.unwrap_or(0), [1; 3], [false; 3]),
            Entry::Strip(strip) => (strip.first, strip.extent, [true; 3]),
            Entry::Direct(from) => {
                let extent = grid.tile_block(from.tile).extent;
                let [x, y, z] = from.origin;
                let span = halo::strip_extent(grid, *tile, *direction, depth);
                let moves = [0, 1, 2].map(|axis| from.extent[axis] == span[axis]);
                (first_of(from.tile) + x + extent[0] * (y + extent[1] * z), extent, moves)
            }
        };
        let step = [1, pitch[0], pitch[0] * pitch[1]];
        let step = [0, 1, 2].map(|axis| if moves[axis] { step[axis] as i32 } else { 0 });
        let base = first as i32 - (0..3).map(|axis| start[axis] * step[axis]).sum::<i32>();
        let at = row * row_words + (HEADER_WORDS + 4 * halo::table_index(grid.dims, *direction)) as usize;
        table[at..at + 4].copy_from_slice(&[base, step[0], step[1], step[2]]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{self, Computers, Ghost};
    use proptest::prelude::*;

    fn boundary() -> impl Strategy<Value = Boundary> {
        prop_oneof![Just(Boundary::Clamp), Just(Boundary::Wrap), Just(Boundary::Constant)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// The end-to-end geometry: whatever the partition, the pages and the boundary rules, an
        /// `at` through the table finds the element that the grid's rule names.
        #[test]
        fn neighbours_are_found_under_any_partition(
            shape in proptest::array::uniform3(1u32..8),
            tile in proptest::array::uniform3(1u32..5),
            dims in 1usize..4,
            depth in 1u32..4,
            boundaries in (boundary(), boundary()),
            peers in 1usize..4,
            whole in any::<bool>(),
            is_shadowed in any::<bool>(),
            page_slots in 1u64..20,
            seed in any::<u64>(),
        ) {
            let grid = Grid::new(&shape[..dims], &tile[..dims]).unwrap();
            let depth = (0..dims).map(|a| grid.tile[a]).min().unwrap().min(depth);
            let mut kinds = vec![boundaries.0, boundaries.1];
            kinds.dedup();
            let rules = HaloRules { depth, boundaries: kinds, whole };
            let mut random = seed | 1;
            let mut draw = |below: usize| { random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); (random >> 33) as usize % below };
            let mut computers: Vec<Computers> = grid.tiles().map(|_| Computers::owner(draw(peers))).collect();
            // One more peer, which owns nothing.
            if is_shadowed {
                computers.iter_mut().filter(|_| draw(2) == 0).for_each(|tile| tile.shadow = peers);
            }
            let peers = peers + usize::from(is_shadowed);
            let fields = [boundaries.0, boundaries.1];
            let bound = grid.tile_points() + halo::directions(grid.dims).map(|d| halo_elements(&grid, d, depth)).sum::<u64>();
            let limit = if whole { u64::MAX } else { (page_slots * bound + 1) * 4 };
            let peers: Vec<Residency> = (0..peers).map(|peer| {
                let owned: Vec<TileId> = grid.tiles().filter(|t| computers[t.0 as usize].include(peer)).collect();
                Residency::new(grid, rules.clone(), &owned, 4, limit).unwrap()
            }).collect();
            let value = |field: usize, point: [u32; 3]| 1 + field as u32 * 1000 + point[0] + grid.shape[0] * (point[1] + grid.shape[1] * point[2]);
            // Each peer's memory, its own tiles filled, everything else poisoned.
            let mut memory: Vec<Vec<Vec<Vec<u32>>>> = peers.iter().map(|r| (0..2).map(|field| r.pages.iter().map(|page| {
                let mut words = vec![0xdead; page.elements as usize];
                for (slot, &tile) in page.tiles.iter().enumerate() {
                    if page.owned.contains(&tile) {
                        let b = grid.tile_block(tile);
                        for i in 0..b.points() as u32 {
                            let p = [b.origin[0] + i % b.extent[0], b.origin[1] + i / b.extent[0] % b.extent[1], b.origin[2] + i / (b.extent[0] * b.extent[1])];
                            words[slot * grid.tile_points() as usize + i as usize] = value(field, p);
                        }
                    }
                }
                if let Some(c) = page.constant { words[c as usize] = 77; }
                words
            }).collect()).collect()).collect();
            let ghosts: Vec<Ghost> = (0..2).map(|field| Ghost { buffer: field, words: 1, boundary: fields[field], depth, whole: false }).collect();
            for (residency, memory) in peers.iter().zip(&mut memory) {
                for (ghost, pages) in ghosts.iter().zip(memory) {
                    for (page, words) in pages.iter_mut().enumerate() {
                        for run in exchange::constant_pieces(residency, page, ghost) {
                            words[run.start as usize..run.end as usize].fill(77);
                        }
                    }
                }
            }
            let computers_of = |t: TileId| computers[t.0 as usize];
            let plans: Vec<_> = (0..peers.len()).map(|me| exchange::plan(&peers[me], &computers_of, &|_, _| true, me, peers.len(), &ghosts)).collect();
            prop_assert!(!is_shadowed || plans[peers.len() - 1].send.iter().all(|run| run.is_empty()), "a shadow sends");
            let outboxes: Vec<Vec<u32>> = plans.iter().enumerate().map(|(me, plan)| {
                let mut out = vec![0; plan.outbox_words as usize];
                for set in &plan.pack { set.run(&memory[me][set.buffer][set.page], &mut out); }
                out
            }).collect();
            for (me, plan) in plans.iter().enumerate() {
                let mut inbox = vec![0; plan.inbox_words as usize];
                for from in 0..peers.len() {
                    let sent = &outboxes[from][plans[from].send[me].clone()];
                    inbox[plan.receive[from].clone()].copy_from_slice(sent);
                }
                for set in &plan.unpack_local { set.run(&outboxes[me], &mut memory[me][set.buffer][set.page]); }
                for set in &plan.unpack { set.run(&inbox, &mut memory[me][set.buffer][set.page]); }
            }
            for (me, residency) in peers.iter().enumerate() {
                let row_words = residency.row_words() as usize;
                for (p, page) in residency.pages.iter().enumerate() {
                    for (row, &tile) in page.owned.iter().enumerate() {
                        let block = grid.tile_block(tile);
                        let d = depth as i32;
                        let span = |axis: usize| if axis < dims { -d..block.extent[axis] as i32 + d } else { 0..1 };
                        for z in span(2) { for y in span(1) { for x in span(0) {
                            let at = [x, y, z];
                            let dir = [0, 1, 2].map(|a| if at[a] < 0 { -1i8 } else if at[a] >= block.extent[a] as i32 { 1 } else { 0 });
                            let e = row * row_words + (HEADER_WORDS + 4 * halo::table_index(grid.dims, dir)) as usize;
                            let e = &page.table[e..e + 4];
                            let index = (e[0] + x * e[1] + y * e[2] + z * e[3]) as usize;
                            for field in 0..2 {
                                let mut point = [0; 3];
                                let mut outside = false;
                                for a in 0..3 {
                                    let shape = i64::from(grid.shape[a]);
                                    let g = i64::from(block.origin[a]) + i64::from(at[a]);
                                    point[a] = match fields[field] {
                                        Boundary::Clamp => g.clamp(0, shape - 1),
                                        Boundary::Wrap => g.rem_euclid(shape),
                                        Boundary::Constant => { outside |= g < 0 || g >= shape; 0.max(g.min(shape - 1)) }
                                    } as u32;
                                }
                                let want = if outside { 77 } else { value(field, point) };
                                prop_assert_eq!(memory[me][field][p][index], want, "peer {} tile {:?} at {:?} field {}", me, tile, at, field);
                            }
                        }}}
                    }
                }
            }
        }
    }
}
