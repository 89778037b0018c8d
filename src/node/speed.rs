//! How fast an executor is at a workload, found out by running it with nothing exchanged.
//!
//! Invariant: what the run computes meanwhile is thrown away; only the time counts.

use std::time::Duration;

use peercompute_buffers::TileId;
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::{Placement, Run};

use peercompute_net::runtime::Instant;

use super::NodeError;

/// How long a peer measures itself before it joins.
const MEASURED_FOR: Duration = Duration::from_millis(250);
/// How long a member without tiles does, every now and then.
const TRIED_FOR: Duration = Duration::from_millis(20);

/// Points per second on an even share among this many peers: the first tiles of every grid.
///
/// **Errors:** the executor cannot take the workload.
pub async fn measure(executor: &AnyExecutor, bundle: &VerifiedBundle, peers: usize) -> Result<f64, NodeError> {
    run(executor, bundle, &|tile, tiles| tile * peers < tiles, MEASURED_FOR).await
}

/// Points per second on one tile of every grid; takes some milliseconds.
///
/// **Errors:** the executor cannot take the workload.
pub(crate) async fn try_out(executor: &AnyExecutor, bundle: &VerifiedBundle) -> Result<f64, NodeError> {
    run(executor, bundle, &|tile, _| tile == 0, TRIED_FOR).await
}

/// Runs ticks on the tiles that are `mine` (which of how many) for this long.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
async fn run(executor: &AnyExecutor, bundle: &VerifiedBundle, mine: &dyn Fn(usize, usize) -> bool, time: Duration) -> Result<f64, NodeError> {
    let program = bundle.program();
    let grids = || program.manifest.grids.iter().map(|named| named.grid);
    let share = |tiles: usize| (0..tiles).map(|tile| usize::from(!mine(tile, tiles))).collect();
    let owners: Vec<Vec<usize>> = grids().map(|grid| share(grid.tile_count() as usize)).collect();
    let own_points = |(grid, owners): (peercompute_buffers::Grid, &Vec<usize>)| -> u64 {
        let own = (0u32..).map(TileId).zip(owners).filter(|(_, owner)| **owner == 0);
        own.map(|(tile, _)| grid.tile_block(tile).points()).sum()
    };
    let points: u64 = grids().zip(&owners).map(own_points).sum();
    let mut run = executor.load(bundle, &Placement::new(0, 2, owners)).await?;
    executor.finish_compiling();
    let passes: Vec<usize> = (0..program.passes.len()).filter(|&pass| !program.manifest.passes[pass].init).collect();
    let mut ticks = 0u64;
    let mut begun = None;
    // One tick to warm up.
    loop {
        for &pass in &passes {
            run.pass(pass, ticks).await?;
        }
        run.finish().await?;
        let elapsed = begun.get_or_insert_with(Instant::now).elapsed();
        if ticks > 0 && elapsed > time {
            return Ok(points as f64 * ticks as f64 / elapsed.as_secs_f64());
        }
        ticks += 1;
    }
}
