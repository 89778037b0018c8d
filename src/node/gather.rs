//! Bringing whole buffers to the coordinator: tiles travel as commits into its warm store.
//!
//! Invariant: a tile enters the result only from the peer that owns it, and only whole.

use bytes::Bytes;
use peercompute_buffers::TileId;
use peercompute_buffers::transfer::{field_from_tile, tile_bytes};
use peercompute_kernels::declaration::Extent;
use peercompute_kernels::executor::Run;
use peercompute_kernels::{Program, VerifiedBundle};
use peercompute_net::core::CommitBody;
use peercompute_net::ownership::PeerIndex;

use super::NodeError;
use super::plan::RunPlan;

/// The gathered buffers of one grid.
fn fields(program: &Program, plan: &RunPlan, grid: usize) -> Vec<usize> {
    plan.gather.iter().copied().filter(|&b| program.manifest.buffers[b].extent == Extent::Field { grid }).collect()
}

/// This peer's tiles of every gathered buffer.
pub(crate) async fn commits<R: Run>(program: &Program, _bundle: &VerifiedBundle, plan: &RunPlan, me: PeerIndex, run: &mut R) -> Result<Vec<CommitBody>, NodeError> {
    let mut commits = Vec::new();
    for grid in 0..program.manifest.grids.len() {
        let fields = fields(program, plan, grid);
        if fields.is_empty() {
            continue;
        }
        let owned: Vec<TileId> = plan.ownership.owned(grid, me).collect();
        for tile in owned {
            let mut body = Vec::new();
            for &buffer in &fields {
                body.extend(run.read_tile(buffer, tile).await?);
            }
            commits.push(CommitBody { grid: grid as u16, tile: tile.0, body: Bytes::from(body) });
        }
    }
    Ok(commits)
}

/// What the coordinator has of the buffers that are gathered.
pub(crate) struct Gathered<'a> {
    program: &'a Program,
    plan: &'a RunPlan,
    buffers: Vec<(usize, Vec<u8>)>,
    missing: usize,
}

impl<'a> Gathered<'a> {
    pub(crate) fn new(program: &'a Program, _bundle: &VerifiedBundle, plan: &'a RunPlan, _tick: u64) -> Gathered<'a> {
        let bytes = |&buffer: &usize| {
            let points = program.grid_of(buffer).map_or(0, |grid| grid.points());
            (buffer, vec![0; points as usize * program.elements[buffer].stride as usize])
        };
        let missing = (0..program.manifest.grids.len())
            .filter(|&grid| !fields(program, plan, grid).is_empty())
            .map(|grid| program.manifest.grids[grid].grid.tile_count() as usize)
            .sum();
        Gathered { program, plan, buffers: plan.gather.iter().map(bytes).collect(), missing }
    }

    /// Takes the coordinator's own tiles, and the tables, which every peer holds alike.
    pub(crate) async fn take_own<R: Run>(&mut self, run: &mut R) -> Result<(), NodeError> {
        for own in commits_of(self.program, self.plan, run).await? {
            self.place(PeerIndex(0), usize::from(own.grid), TileId(own.tile), &own.body)?;
        }
        for (buffer, bytes) in &mut self.buffers {
            if self.program.grid_of(*buffer).is_none() {
                *bytes = run.read_table(*buffer).await?;
            }
        }
        Ok(())
    }

    /// Takes a tile from its owner; the session has checked who that is, and that it comes once.
    pub(crate) fn take(&mut self, from: PeerIndex, grid: u16, tile: TileId, body: &[u8]) -> Result<(), NodeError> {
        self.place(from, usize::from(grid), tile, body)
    }

    fn place(&mut self, from: PeerIndex, grid: usize, tile: TileId, body: &[u8]) -> Result<(), NodeError> {
        let shape = &self.program.manifest.grids[grid].grid;
        let mut at = 0;
        for buffer in fields(self.program, self.plan, grid) {
            let stride = self.program.elements[buffer].stride as usize;
            let length = tile_bytes(shape, tile, stride);
            let refused = |cause: &str| NodeError::Commit { peer: from, tile: tile.0, cause: cause.into() };
            let bytes = body.get(at..at + length).ok_or_else(|| refused("it is too short"))?;
            at += length;
            if let Some((_, field)) = self.buffers.iter_mut().find(|(b, _)| *b == buffer) {
                field_from_tile(shape, tile, stride, bytes, field);
            }
        }
        if at != body.len() {
            return Err(NodeError::Commit { peer: from, tile: tile.0, cause: "it is too long".into() });
        }
        self.missing -= 1;
        Ok(())
    }

    /// The buffers, whole.
    ///
    /// **Errors:** a tile never came.
    pub(crate) fn finish(self) -> Result<Vec<(usize, Vec<u8>)>, NodeError> {
        if self.missing > 0 {
            let cause = format!("{} tiles never came", self.missing);
            return Err(NodeError::Commit { peer: PeerIndex(0), tile: 0, cause });
        }
        Ok(self.buffers)
    }
}

async fn commits_of<R: Run>(program: &Program, plan: &RunPlan, run: &mut R) -> Result<Vec<CommitBody>, NodeError> {
    let mut own = Vec::new();
    for grid in 0..program.manifest.grids.len() {
        let fields = fields(program, plan, grid);
        if fields.is_empty() {
            continue;
        }
        let tiles: Vec<TileId> = plan.ownership.owned(grid, PeerIndex(0)).collect();
        for tile in tiles {
            let mut body = Vec::new();
            for &buffer in &fields {
                body.extend(run.read_tile(buffer, tile).await?);
            }
            own.push(CommitBody { grid: grid as u16, tile: tile.0, body: Bytes::from(body) });
        }
    }
    Ok(own)
}
