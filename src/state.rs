//! What a run holds: the digests of its buffers, their hash, and buffers as a whole.
//!
//! Invariant: a hash tells states apart, never how they were computed: tiles, peers and executors leave no trace in it.

use peercompute_buffers::digest::{StateDigest, StateHasher, hex};
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::Program;
use peercompute_kernels::declaration::Extent;
use peercompute_kernels::executor::{ExecutorError, Run};

/// The extents of a buffer, x first: a grid's used axes, or a table's length.
pub fn extents(program: &Program, buffer: usize) -> Vec<u32> {
    match program.manifest.buffers[buffer].extent {
        Extent::Field { grid } => {
            let grid = &program.manifest.grids[grid].grid;
            grid.shape[..usize::from(grid.dims)].to_vec()
        }
        Extent::Table { length, .. } => vec![length],
    }
}

/// Per buffer, the digest of the tiles owned here; of a table, the whole.
///
/// **Errors:** the executor's.
pub async fn digests<R: Run>(program: &Program, run: &mut R) -> Result<Vec<StateDigest>, ExecutorError> {
    let mut digests = Vec::new();
    for (buffer, element) in program.elements.iter().enumerate() {
        let mut digest = StateDigest::default();
        match program.grid_of(buffer) {
            Some(grid) => {
                let owned: Vec<_> = run.layout().of_field(program, buffer).map(|r| r.owned().collect()).unwrap_or_default();
                for tile in owned {
                    let bytes = run.read_tile(buffer, tile).await?;
                    digest.add(StateDigest::of_tile(&grid, tile, element, &bytes));
                }
            }
            None => digest.add(StateDigest::of_table(element, &run.read_table(buffer).await?)),
        }
        digests.push(digest);
    }
    Ok(digests)
}

/// The hash of a state from its buffers' digests.
pub fn hash(program: &Program, digests: &[StateDigest]) -> String {
    let mut hasher = StateHasher::default();
    for (index, buffer) in program.manifest.buffers.iter().enumerate() {
        let mut shape = [1; 3];
        for (axis, extent) in extents(program, index).into_iter().enumerate() {
            shape[axis] = extent;
        }
        hasher.buffer(&buffer.name, shape, &program.elements[index], digests[index]);
    }
    hex(&hasher.finish())
}

/// A whole buffer in row-major order, from the tiles that are owned here.
///
/// **Errors:** the executor's.
pub async fn whole<R: Run>(program: &Program, run: &mut R, buffer: usize) -> Result<Vec<u8>, ExecutorError> {
    let mut whole = Vec::new();
    gather(program, run, buffer, &mut whole).await?;
    Ok(whole)
}

/// Puts the tiles that are owned here, or a table, where they belong in a whole buffer, which begins empty.
///
/// **Errors:** the executor's.
pub async fn gather<R: Run>(program: &Program, run: &mut R, buffer: usize, whole: &mut Vec<u8>) -> Result<(), ExecutorError> {
    let Some(grid) = program.grid_of(buffer) else {
        *whole = run.read_table(buffer).await?;
        return Ok(());
    };
    let stride = program.elements[buffer].stride as usize;
    whole.resize(grid.points() as usize * stride, 0);
    let owned: Vec<_> = run.layout().of_field(program, buffer).map(|r| r.owned().collect()).unwrap_or_default();
    for tile in owned {
        let bytes = run.read_tile(buffer, tile).await?;
        field_from_tile(&grid, tile, stride, &bytes, whole);
    }
    Ok(())
}
