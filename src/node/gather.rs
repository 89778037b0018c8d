//! Bringing whole buffers to the coordinator: tiles travel as commits into its warm store.
//!
//! A body is one commit per gathered field of the tile's grid, each behind its length (u32 LE).
//! Invariant: a tile enters the result only from the peer that owns it, whole, and with the hash
//! that its owner gave.

use bytes::Bytes;
use peercompute_buffers::TileId;
use peercompute_buffers::commit::{Commit, Warm, field_tile_bytes};
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::Program;
use peercompute_kernels::declaration::Extent;
use peercompute_kernels::executor::Run;
use peercompute_net::core::CommitBody;
use peercompute_net::ownership::PeerIndex;

use super::NodeError;
use super::plan::RunPlan;

/// A warm store for a program's fields.
fn warm(program: &Program) -> Warm {
    let sizes = |buffer: usize| program.grid_of(buffer).map_or_else(Vec::new, |grid| field_tile_bytes(&grid, &program.elements[buffer]));
    Warm::new(program.hash, (0..program.elements.len()).map(sizes).collect())
}

/// The gathered fields of one grid.
fn fields(program: &Program, plan: &RunPlan, grid: usize) -> Vec<usize> {
    plan.gather.iter().copied().filter(|&buffer| program.manifest.buffers[buffer].extent == Extent::Field { grid }).collect()
}

fn refused(peer: PeerIndex, tile: TileId, cause: impl ToString) -> NodeError {
    NodeError::Commit { peer, tile: tile.0, cause: cause.to_string() }
}

/// Reads this peer's tiles of every gathered field, takes them up in `warm`, and hands each commit over.
async fn commit_own<R: Run>(
    program: &Program,
    plan: &RunPlan,
    me: PeerIndex,
    run: &mut R,
    warm: &mut Warm,
    mut take: impl FnMut(usize, TileId, Commit),
) -> Result<(), NodeError> {
    for grid in 0..program.manifest.grids.len() {
        let fields = fields(program, plan, grid);
        for tile in plan.ownership.owned(grid, me) {
            for &buffer in &fields {
                let bytes = run.read_tile(buffer, tile).await?;
                let commit = warm.commit(buffer as u16, tile, plan.ownership.epoch, plan.ticks, me.0, &bytes);
                take(grid, tile, commit.map_err(|error| refused(me, tile, error))?);
            }
        }
    }
    Ok(())
}

/// This peer's tiles of every gathered field, to send to the coordinator.
pub(crate) async fn commits<R: Run>(program: &Program, plan: &RunPlan, me: PeerIndex, run: &mut R) -> Result<Vec<CommitBody>, NodeError> {
    let mut bodies: Vec<(u16, u32, Vec<u8>)> = Vec::new();
    let mut warm = warm(program);
    commit_own(program, plan, me, run, &mut warm, |grid, tile, commit| {
        let bytes = commit.to_bytes();
        let place = (grid as u16, tile.0);
        if bodies.last().is_none_or(|last| (last.0, last.1) != place) {
            bodies.push((place.0, place.1, Vec::new()));
        }
        if let Some((_, _, body)) = bodies.last_mut() {
            body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            body.extend_from_slice(&bytes);
        }
    })
    .await?;
    Ok(bodies.into_iter().map(|(grid, tile, body)| CommitBody { grid, tile, body: Bytes::from(body) }).collect())
}

/// What the coordinator has of the buffers that are gathered.
pub(crate) struct Gathered<'a> {
    program: &'a Program,
    plan: &'a RunPlan,
    warm: Warm,
    tables: Vec<(usize, Vec<u8>)>,
}

impl<'a> Gathered<'a> {
    pub(crate) fn new(program: &'a Program, plan: &'a RunPlan) -> Gathered<'a> {
        Gathered { program, plan, warm: warm(program), tables: Vec::new() }
    }

    /// Takes the coordinator's own tiles, and the tables, which every peer holds alike.
    pub(crate) async fn take_own<R: Run>(&mut self, run: &mut R) -> Result<(), NodeError> {
        commit_own(self.program, self.plan, PeerIndex(0), run, &mut self.warm, |_, _, _| {}).await?;
        for &buffer in self.plan.gather.iter().filter(|&&buffer| self.program.grid_of(buffer).is_none()) {
            self.tables.push((buffer, run.read_table(buffer).await?));
        }
        Ok(())
    }

    /// Takes a tile from its owner; the session has checked who that is, and that it comes once.
    pub(crate) fn take(&mut self, from: PeerIndex, grid: u16, tile: TileId, body: &[u8]) -> Result<(), NodeError> {
        let mut rest = body;
        for buffer in fields(self.program, self.plan, usize::from(grid)) {
            let (length, after) = rest.split_first_chunk::<4>().ok_or_else(|| refused(from, tile, "a commit is missing"))?;
            let length = u32::from_le_bytes(*length) as usize;
            let bytes = after.get(..length).ok_or_else(|| refused(from, tile, "a commit is cut off"))?;
            rest = &after[length..];
            let commit = Commit::from_bytes(bytes).map_err(|error| refused(from, tile, error))?;
            if (usize::from(commit.buffer), commit.tile, commit.author) != (buffer, tile, from.0) {
                return Err(refused(from, tile, "a commit is not of the tile, buffer and author that it came for"));
            }
            let owner = |_, tile| self.plan.ownership.owner(usize::from(grid), tile).map_or(u16::MAX, |owner| owner.0);
            self.warm.apply(&commit, owner).map_err(|error| refused(from, tile, error))?;
        }
        if rest.is_empty() { Ok(()) } else { Err(refused(from, tile, "bytes follow the last commit")) }
    }

    /// The buffers, whole, in row-major order.
    ///
    /// **Errors:** a tile never came.
    pub(crate) fn finish(mut self) -> Result<Vec<(usize, Vec<u8>)>, NodeError> {
        let mut whole = Vec::new();
        for &buffer in &self.plan.gather {
            let Some(grid) = self.program.grid_of(buffer) else {
                let table = self.tables.iter().position(|(b, _)| *b == buffer).map(|at| self.tables.swap_remove(at).1);
                whole.push((buffer, table.unwrap_or_default()));
                continue;
            };
            let stride = self.program.elements[buffer].stride as usize;
            let mut field = vec![0; grid.points() as usize * stride];
            for tile in grid.tiles() {
                let held = self.warm.held(buffer as u16, tile).ok_or_else(|| refused(PeerIndex(0), tile, "it never came"))?;
                field_from_tile(&grid, tile, stride, &held.bytes, &mut field);
            }
            whole.push((buffer, field));
        }
        Ok(whole)
    }
}
