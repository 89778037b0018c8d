//! How fast an executor runs a workload, before anybody relies on it.

use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::AnyExecutor;
use peercompute_kernels::executor::{Placement, Run};
use peercompute_net::runtime::Instant;

use super::NodeError;

/// Measures this peer: elements per second on an even share of the workload, nothing exchanged.
///
/// **Errors:** the executor cannot take the workload.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
pub async fn measure(executor: &AnyExecutor, bundle: &VerifiedBundle, peers: usize) -> Result<f64, NodeError> {
    let program = bundle.program();
    let share = |tiles: u32| (0..tiles as usize).map(|tile| if tile * peers < tiles as usize { 0 } else { 1 }).collect();
    let owners: Vec<Vec<usize>> = program.manifest.grids.iter().map(|grid| share(grid.grid.tile_count())).collect();
    let points: u64 = program
        .manifest
        .grids
        .iter()
        .zip(&owners)
        .map(|(grid, owners)| {
            owners.iter().zip(grid.grid.tiles()).filter(|(owner, _)| **owner == 0).map(|(_, tile)| grid.grid.tile_block(tile).points()).sum::<u64>()
        })
        .sum();
    let mut run = executor.load(bundle, &Placement { me: 0, peers: 2, owners }).await?;
    let passes: Vec<usize> = (0..program.passes.len()).filter(|&pass| !program.manifest.passes[pass].init).collect();
    let mut ticks = 0u64;
    let mut begun = None;
    // One tick to warm up, then for a quarter of a second.
    loop {
        for &pass in &passes {
            run.pass(pass, ticks)?;
        }
        run.finish().await?;
        let begun = *begun.get_or_insert_with(Instant::now);
        let seconds = begun.elapsed().as_secs_f64();
        if ticks > 0 && seconds > 0.25 {
            return Ok(points as f64 * ticks as f64 / seconds);
        }
        ticks += 1;
    }
}
