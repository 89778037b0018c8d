//! What peers ship in a tick: exactly the strips, nothing more.
//!
//! Two runs of one program in one process, the grid cut in halves along its last axis, driven by the
//! mesh. Every byte that reaches an inbox is counted; what must come is worked out from sizes alone.

use peercompute_buffers::TileId;
use peercompute_kernels::executor::gpu::Gpu;
use peercompute_kernels::executor::{ExecutorError, Layout, Piece, Placement, Run, mesh};
use peercompute_kernels::{Program, VerifiedBundle};
use pollster::block_on;

use super::load;
use crate::report::Figure;
use crate::{Bench, BenchError, Effort};

/// A run that counts what it is sent.
struct Counting<R> {
    run: R,
    received_bytes: u64,
}

impl<R: Run> Run for Counting<R> {
    fn layout(&self) -> &Layout {
        self.run.layout()
    }
    async fn pass(&mut self, pass: usize, tick: u64) -> Result<(), ExecutorError> {
        self.run.pass(pass, tick).await
    }
    fn pack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        self.run.pack(exchange)
    }
    async fn outbox(&mut self, exchange: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError> {
        self.run.outbox(exchange, take).await
    }
    fn inbox(&mut self, exchange: usize, peer: usize, bytes: &[u8]) {
        self.received_bytes += bytes.len() as u64;
        self.run.inbox(exchange, peer, bytes);
    }
    async fn unpack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        self.run.unpack(exchange).await
    }
    async fn reship(&mut self, placement: &Placement) -> Result<bool, ExecutorError> {
        self.run.reship(placement).await
    }
    fn set_params(&mut self, bytes: &[u8]) {
        self.run.set_params(bytes);
    }
    fn write_tile(&mut self, buffer: usize, tile: TileId, bytes: &[u8]) {
        self.run.write_tile(buffer, tile, bytes);
    }
    fn write_table(&mut self, buffer: usize, bytes: &[u8]) {
        self.run.write_table(buffer, bytes);
    }
    fn piece_bytes(&self, piece: Piece) -> usize {
        self.run.piece_bytes(piece)
    }
    async fn read(&mut self, pieces: &[Piece], into: &mut [u8]) -> Result<(), ExecutorError> {
        self.run.read(pieces, into).await
    }
    fn flush(&mut self) -> Result<(), ExecutorError> {
        self.run.flush()
    }
    async fn finish(&mut self) -> Result<(), ExecutorError> {
        self.run.finish().await
    }
    fn memory_bytes(&self) -> u64 {
        self.run.memory_bytes()
    }
}

/// The grid cut along its last axis: peer 0 owns the first half of the tiles.
pub(super) fn halves(program: &Program, me: usize) -> Placement {
    let owners = program
        .manifest
        .grids
        .iter()
        .map(|named| {
            let tiles = named.grid.tile_count() as usize;
            (0..tiles).map(|tile| usize::from(tile >= tiles / 2)).collect()
        })
        .collect();
    Placement::new(me, 2, owners)
}

/// What both peers receive in a tick when rows of tiles of `tile` cells meet at `borders` borders, with a halo of 1.
///
/// Each side of a border needs, from every tile on the other side, its row and the corners that its diagonal
/// neighbours show: those are cells of the row again, because a box belongs to one strip.
fn border_bytes(side: u64, tile: u64, borders: u64, stride: u64) -> u64 {
    let per_tile = tile + 2;
    2 * borders * (side / tile) * per_tile * stride
}

pub(super) fn run(gpu: &Gpu, effort: Effort, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (side, tile, bodies) = if effort == Effort::Tiny { (64, 16, 512) } else { (2048, 256, 8192) };
    let (side_long, tile_long) = (u64::from(side), u64::from(tile));
    let cells = format!("{side} x {side} cells, tiles of {tile} x {tile}");
    let cases = [
        ("heat", vec![side, side], vec![tile, tile], format!("heat, {cells}, clamped"), border_bytes(side_long, tile_long, 1, 4)),
        ("life", vec![side, side], vec![tile, tile], format!("life, {cells}, wrapped"), border_bytes(side_long, tile_long, 2, 4)),
        // Every peer holds every body: each ships its half to the other.
        ("nbody", vec![bodies], vec![bodies / 8], format!("nbody, {bodies} bodies"), u64::from(bodies) * 16),
    ];
    for (name, shape, tile, case, predicted) in cases {
        progress(&format!("strips: {case}"));
        let received = received_per_tick(gpu, &load(name, &shape, &tile)?)?;
        let case = format!("{case}, two peers, a tick");
        figures.push(Figure::exact(Bench::Strips, case, received, "geometry", predicted));
    }
    Ok(())
}

fn received_per_tick(gpu: &Gpu, bundle: &VerifiedBundle) -> Result<u64, BenchError> {
    const TICKS: u64 = 4;
    let program = bundle.program();
    block_on(async {
        let mut peers = Vec::new();
        for me in 0..2 {
            peers.push(Counting { run: gpu.load(bundle, &halves(program, me)).await?, received_bytes: 0 });
        }
        mesh::run(program, &mut peers, 0..2).await?;
        peers.iter_mut().for_each(|peer| peer.received_bytes = 0);
        mesh::run(program, &mut peers, 2..2 + TICKS).await?;
        for peer in &mut peers {
            peer.finish().await?;
        }
        let total: u64 = peers.iter().map(|peer| peer.received_bytes).sum();
        assert!(total.is_multiple_of(TICKS), "{total} bytes in {TICKS} ticks: ticks differ");
        Ok(total / TICKS)
    })
}
