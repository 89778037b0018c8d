//! A run's state as parts: what one peer owns at a time, in the bytes that travel and are stored.
//!
//! ```text
//!  a tile's part   field 0 of its grid │ field 1 │ …     each as `Run::read_tile` gives it, in buffer order
//!  the last part   table 0 │ table 1 │ …                 every buffer without a grid, in buffer order
//! ```
//!
//! Invariant: the same program gives the same table of parts on every peer.

use std::ops::Range;

use bytes::Bytes;
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::Program;
use peercompute_kernels::declaration::Extent;
use peercompute_kernels::executor::any::AnyRun;
use peercompute_kernels::executor::{ExecutorError, Piece, Run};
use peercompute_net::fill::Spare;
use peercompute_net::membership::{PartId, Parts};

/// Parts that are read together lie in one piece of memory, as far as this goes: they come together, and go together.
const BLOCK_BYTES: usize = 16 << 20;

/// The parts of a program's state.
///
/// **Errors:** a tile or the tables are too large to move: a text for people.
pub fn parts_of(program: &Program) -> Result<Parts, String> {
    let grids: Vec<_> = program.manifest.grids.iter().map(|named| named.grid).collect();
    let point_bytes: Vec<u64> =
        (0..grids.len()).map(|grid| fields(program, grid).map(|buffer| u64::from(program.elements[buffer].stride)).sum()).collect();
    Parts::new(&grids, &point_bytes, tables(program).map(|buffer| table_bytes(program, buffer)).sum())
}

/// The fields of a grid.
fn fields(program: &Program, grid: usize) -> impl Iterator<Item = usize> + '_ {
    (0..program.manifest.buffers.len()).filter(move |&buffer| program.manifest.buffers[buffer].extent == Extent::Field { grid })
}

/// The buffers without a grid.
fn tables(program: &Program) -> impl Iterator<Item = usize> + '_ {
    (0..program.manifest.buffers.len()).filter(|&buffer| program.grid_of(buffer).is_none())
}

fn table_bytes(program: &Program, buffer: usize) -> u64 {
    match program.manifest.buffers[buffer].extent {
        Extent::Table { length, .. } => u64::from(length) * u64::from(program.elements[buffer].stride),
        Extent::Field { .. } => 0,
    }
}

/// Where each buffer of a part lies in it.
fn places(program: &Program, parts: &Parts, part: PartId) -> Vec<(usize, Range<usize>)> {
    let sized: Vec<(usize, usize)> = match parts.tile_of(part) {
        Some((grid, _)) => {
            let points = parts.points(part) as usize;
            fields(program, grid).map(|buffer| (buffer, points * program.elements[buffer].stride as usize)).collect()
        }
        None => tables(program).map(|buffer| (buffer, table_bytes(program, buffer) as usize)).collect(),
    };
    let mut end = 0;
    let place = |(buffer, bytes): (usize, usize)| {
        let start = end;
        end += bytes;
        (buffer, start..end)
    };
    sized.into_iter().map(place).collect()
}

/// Makes memory spare for reading these parts and the tables once more than what is under way.
pub(crate) fn prepare(parts: &Parts, owned: impl Iterator<Item = PartId>, spare: &Spare) {
    let lengths: Vec<usize> = blocks(parts, owned).into_iter().map(|(_, bytes)| bytes).collect();
    spare.prepare(&lengths);
}

/// The parts that lie in one piece of memory, and its bytes; the tables last.
fn blocks(parts: &Parts, owned: impl Iterator<Item = PartId>) -> Vec<(Vec<PartId>, usize)> {
    let mut blocks: Vec<(Vec<PartId>, usize)> = Vec::new();
    for part in owned.chain([parts.tables()]) {
        let bytes = parts.bytes(part) as usize;
        match blocks.last_mut().filter(|(_, length)| *length + bytes <= BLOCK_BYTES) {
            Some((block, length)) => {
                block.push(part);
                *length += bytes;
            }
            None => blocks.push((vec![part], bytes)),
        }
    }
    blocks
}

/// What a part is put together from, in the order of its bytes.
fn pieces(program: &Program, parts: &Parts, part: PartId) -> Vec<Piece> {
    match parts.tile_of(part) {
        Some((grid, tile)) => fields(program, grid).map(|buffer| Piece::Tile(buffer, tile)).collect(),
        None => tables(program).map(Piece::Table).collect(),
    }
}

/// Reads the parts that are owned here, and the tables: in order, the tables last. What is left in `spare` then is let go: as much comes
/// back with each reading as the next one takes.
///
/// **Errors:** the executor's.
pub(crate) async fn read(
    program: &Program,
    parts: &Parts,
    owned: impl Iterator<Item = PartId>,
    run: &mut AnyRun<'_>,
    spare: &Spare,
) -> Result<Vec<(PartId, Bytes)>, ExecutorError> {
    let mut read = Vec::new();
    for (together, bytes) in blocks(parts, owned) {
        let pieces: Vec<Piece> = together.iter().flat_map(|part| pieces(program, parts, *part)).collect();
        let mut block = spare.fill(bytes);
        run.read(&pieces, block.grow(bytes)).await?;
        let mut block = block.close();
        read.extend(together.iter().map(|part| (*part, block.split_to(parts.bytes(*part) as usize))));
    }
    spare.trim();
    Ok(read)
}

/// Writes parts where they belong.
///
/// **Errors:** a part has not its length; nothing of it was written.
pub(crate) fn write(program: &Program, parts: &Parts, run: &mut AnyRun<'_>, given: &[(PartId, Bytes)]) -> Result<(), String> {
    for (part, content) in given {
        if content.len() != parts.bytes(*part) as usize {
            return Err(format!("part {part} has {} bytes, not {}", content.len(), parts.bytes(*part)));
        }
        for (buffer, place) in places(program, parts, *part) {
            match parts.tile_of(*part) {
                Some((_, tile)) => run.write_tile(buffer, tile, &content[place]),
                None => run.write_table(buffer, &content[place]),
            }
        }
    }
    Ok(())
}

/// A buffer's bytes within a part; `None` if it has none there.
pub fn piece(program: &Program, parts: &Parts, part: PartId, content: &Bytes, buffer: usize) -> Option<Bytes> {
    let (_, place) = places(program, parts, part).into_iter().find(|(b, _)| *b == buffer)?;
    (place.end <= content.len()).then(|| content.slice(place))
}

/// A whole buffer in row-major order, out of every part of a state.
///
/// **Errors:** a part is missing or has not its length.
pub fn whole(program: &Program, parts: &Parts, state: &[Bytes], buffer: usize) -> Result<Vec<u8>, String> {
    if state.len() != parts.count() || (0..).map(PartId).zip(state).any(|(part, content)| content.len() != parts.bytes(part) as usize) {
        return Err("the state has not the parts of this workload".into());
    }
    let piece = |part: PartId| {
        let place = places(program, parts, part).into_iter().find(|(b, _)| *b == buffer).map(|(_, place)| place);
        place.map_or(&[][..], |place| &state[part.at()][place])
    };
    let Extent::Field { grid } = program.manifest.buffers[buffer].extent else {
        return Ok(piece(parts.tables()).to_vec());
    };
    let (shape, stride) = (program.manifest.grids[grid].grid, program.elements[buffer].stride as usize);
    let mut field = vec![0; shape.points() as usize * stride];
    for tile in shape.tiles() {
        field_from_tile(&shape, tile, stride, piece(parts.part_of(grid, tile)), &mut field);
    }
    Ok(field)
}

#[cfg(test)]
mod tests {
    use peercompute_buffers::Grid;

    use super::*;

    #[test]
    fn parts_come_in_blocks_that_are_not_too_large() {
        const PART: usize = 6 << 20;
        let parts = |bytes: u64| Parts::new(&[Grid::new(&[5 * 1024, 1536], &[1024, 1536]).expect("a grid")], &[bytes], 100).expect("parts");
        let owned = || [0, 1, 3, 4].into_iter().map(PartId);
        let in_blocks = |parts: &Parts| blocks(parts, owned()).into_iter().map(|(block, bytes)| (block.len(), bytes)).collect::<Vec<_>>();
        assert_eq!(in_blocks(&parts(4)), [(2, 2 * PART), (3, 2 * PART + 100)]);
        // One that is too large alone comes alone.
        assert_eq!(in_blocks(&parts(12)), [(1, 3 * PART), (1, 3 * PART), (1, 3 * PART), (1, 3 * PART), (1, 100)]);
        let all: Vec<PartId> = blocks(&parts(4), owned()).into_iter().flat_map(|(block, _)| block).collect();
        assert_eq!(all, [0, 1, 3, 4, 5].map(PartId));
    }
}
