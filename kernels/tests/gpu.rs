//! The gpu executor against the oracles and against itself: whatever the shape, the tiles, the pages,
//! the borders and the number of peers, the bits are the same.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod oracle;

use std::path::Path;

use peercompute_buffers::TileId;
use peercompute_buffers::digest::{StateDigest, StateHasher, hex};
use peercompute_buffers::transfer::field_from_tile;
use peercompute_kernels::executor::gpu::{Borders, Gpu, GpuOptions};
use peercompute_kernels::executor::{Placement, Run, mesh};
use peercompute_kernels::{Manifest, Overrides, Program, SecretKey, Trust, VerifiedBundle, bundle};
use pollster::block_on;

fn load(folder: &str, shape: &[u32], tile: &[u32]) -> VerifiedBundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
    let manifest = Manifest::from_folder(&root.join(folder), &overrides).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::verify(&bundle::sign(&manifest, &key), &Trust::key(key.public())).unwrap()
}

fn gpu(borders: Borders, page_bytes_max: Option<u64>) -> Gpu {
    block_on(Gpu::open(GpuOptions { borders: Some(borders), page_bytes_max, ..GpuOptions::default() })).unwrap()
}

fn placement(program: &Program, me: usize, peers: usize) -> Placement {
    // Scattered on purpose: every tile has neighbours elsewhere.
    let owners = program.manifest.grids.iter().map(|g| (0..g.grid.tile_count() as usize).map(|t| (t * 7 + t / 3) % peers).collect()).collect();
    Placement { me, peers, owners }
}

/// Every buffer's bytes in row-major order, and the state hash, after `ticks` ticks on `peers` peers.
fn state(gpu: &Gpu, bundle: &VerifiedBundle, peers: usize, ticks: u64) -> (Vec<(String, Vec<u8>)>, String) {
    block_on(async {
        let program = bundle.program();
        let mut runs = Vec::new();
        for me in 0..peers {
            runs.push(gpu.load(bundle, &placement(program, me, peers)).await.unwrap());
        }
        mesh::run(program, &mut runs, 0..ticks).await.unwrap();
        let mut buffers = Vec::new();
        let mut hasher = StateHasher::default();
        for (index, declared) in program.manifest.buffers.iter().enumerate() {
            let element = &program.elements[index];
            let mut digest = StateDigest::default();
            let (shape, bytes) = match program.grid_of(index) {
                Some(grid) => {
                    let mut field = vec![0; grid.points() as usize * element.stride as usize];
                    for tile in 0..grid.tile_count() {
                        let owner = (tile as usize * 7 + tile as usize / 3) % peers;
                        let bytes = runs[owner].read_tile(index, TileId(tile)).await.unwrap();
                        digest.add(StateDigest::of_tile(&grid, TileId(tile), element, &bytes));
                        field_from_tile(&grid, TileId(tile), element.stride as usize, &bytes, &mut field);
                    }
                    (grid.shape, field)
                }
                None => {
                    let table = runs[0].read_table(index).await.unwrap();
                    for run in &mut runs[1..] {
                        assert_eq!(run.read_table(index).await.unwrap(), table, "peers disagree on `{}`", declared.name);
                    }
                    digest.add(StateDigest::of_table(element, &table));
                    ([table.len() as u32 / element.stride, 1, 1], table)
                }
            };
            hasher.buffer(&declared.name, shape, element, digest);
            buffers.push((declared.name.clone(), bytes));
        }
        (buffers, hex(&hasher.finish()))
    })
}

fn shapes(folder: &str) -> Vec<(Vec<u32>, Vec<u32>)> {
    match folder {
        f if f.ends_with("wave3d") => vec![(vec![1, 1, 1], vec![1, 1, 1]), (vec![17, 9, 11], vec![5, 4, 3]), (vec![16, 16, 16], vec![8, 8, 8])],
        f if f.ends_with("nbody") => vec![(vec![1], vec![1]), (vec![300], vec![64]), (vec![1024], vec![256])],
        f if f.ends_with("wave6") || f.ends_with("gauss") => {
            vec![(vec![3, 3], vec![3, 3]), (vec![50, 37], vec![16, 8]), (vec![64, 64], vec![16, 32])]
        }
        _ => vec![(vec![1, 1], vec![1, 1]), (vec![5, 3], vec![2, 2]), (vec![70, 45], vec![16, 16]), (vec![192, 128], vec![64, 64])],
    }
}

/// How far a buffer may be from its oracle, as the oracle's author measured and declared it.
fn assert_close(name: &str, buffer: &str, got: &[u8], want: &[u8], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}.{buffer}");
    if got == want {
        return;
    }
    assert!(tolerance > 0.0, "{name}.{buffer} is not bit-identical to its oracle");
    for (index, (g, w)) in got.chunks_exact(4).zip(want.chunks_exact(4)).enumerate() {
        let value = |b: &[u8]| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let (g, w) = (value(g), value(w));
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{name}.{buffer}[{index}]: {g}, the oracle has {w}");
    }
}

#[test]
fn results_are_the_oracles() {
    let gpu = gpu(Borders::Apart, None);
    for (name, folder) in oracle::WORKLOADS {
        for (shape, tile) in shapes(folder) {
            for ticks in [0, 1, 7] {
                let bundle = load(folder, &shape, &tile);
                let (got, _) = state(&gpu, &bundle, 1, ticks);
                let full = [shape[0], *shape.get(1).unwrap_or(&1), *shape.get(2).unwrap_or(&1)];
                for (buffer, want) in oracle::run(name, full, ticks) {
                    let got = &got.iter().find(|(n, _)| n == buffer).unwrap().1;
                    let tolerance = match name {
                        "rivers" => 0.1,
                        "wave6" => 1e-5,
                        "energy" if buffer == "energy" => 1e-5,
                        _ => 0.0,
                    };
                    assert_close(&format!("{name} {shape:?} {tile:?} {ticks}"), buffer, got, &want, tolerance);
                }
            }
        }
    }
}

#[test]
fn the_partition_changes_no_bit() {
    for (borders, page) in [(Borders::InPlace, None), (Borders::Apart, Some(150_000))] {
        let gpu = gpu(borders, page);
        for (name, folder) in oracle::WORKLOADS {
            let (shape, tile) = shapes(folder).pop().unwrap();
            let bundle = load(folder, &shape, &tile);
            if page.is_some() && bundle.program().rules.iter().any(|rules| rules.whole) {
                continue;
            }
            let (_, alone) = state(&gpu, &bundle, 1, 12);
            for peers in [2, 3, 4, 7] {
                let (_, together) = state(&gpu, &bundle, peers, 12);
                assert_eq!(together, alone, "{name} on {peers} peers, {borders:?}, pages of {page:?}");
            }
        }
    }
}

#[test]
fn tiles_pages_and_borders_change_no_bit() {
    for (name, folder) in oracle::WORKLOADS {
        let (shape, tile) = shapes(folder).pop().unwrap();
        let reference = state(&gpu(Borders::InPlace, None), &load(folder, &shape, &tile), 1, 6);
        let odd: Vec<u32> = tile.iter().map(|&e| e / 2 + 3).collect();
        for (tile, borders, page) in [(&tile, Borders::Apart, None), (&odd, Borders::Apart, None), (&odd, Borders::InPlace, Some(1 << 20))] {
            let got = state(&gpu(borders, page), &load(folder, &shape, tile), 1, 6);
            for ((buffer, got), (_, want)) in got.0.iter().zip(&reference.0) {
                // A float sum depends on the tiling, and says so.
                if !(name == "energy" && buffer == "energy") {
                    assert!(got == want, "{name}.{buffer} with tiles {tile:?}, {borders:?}, pages of {page:?}");
                }
            }
        }
    }
}
