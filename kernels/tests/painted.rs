//! A field painted by the device against the values that it holds: own tiles from the pages, others' from bytes, missing ones not at all.
//! Needs an adapter; one in software will do.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::path::Path;

use peercompute_buffers::TileId;
use peercompute_kernels::executor::gpu::{Gpu, GpuOptions, Painter, Palette, Sight, TextureFormat};
use peercompute_kernels::executor::{Placement, Run};
use peercompute_kernels::program::Op;
use peercompute_kernels::{Manifest, Overrides, SecretKey, VerifiedBundle};
use pollster::block_on;

// Tiles at the edges are smaller.
const SHAPE: [u32; 2] = [100, 70];
const TILE: [u32; 2] = [32, 32];

fn load(folder: &str, shape: &[u32], tile: &[u32]) -> VerifiedBundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let overrides = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Overrides::default() };
    let manifest = Manifest::from_folder(&root.join(folder), &overrides).unwrap();
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(manifest, &key).unwrap()
}

/// Grey levels, the number of each in the red as well.
fn palette() -> Palette {
    std::array::from_fn(|level| [level as u8, 255 - level as u8, 7, 255])
}

#[test]
fn a_picture_has_the_fields_values_and_nothing_where_no_tile_is() {
    let gpu = block_on(Gpu::open(GpuOptions::default())).unwrap();
    // Floats; whole numbers.
    for (folder, buffer) in [("shaders/physics/heat", "temperature"), ("shaders/physics/life", "alive")] {
        let bundle = load(folder, &SHAPE, &TILE);
        let program = bundle.program();
        let grid = program.manifest.grids[0].grid;
        let number = program.buffer(buffer).unwrap();
        // Tiles 0, 3, 6 … are another peer's: one of these is put in, the others stay away.
        let owners = vec![(0..grid.tile_count() as usize).map(|tile| usize::from(tile % 3 == 0)).collect()];
        let mut run = block_on(gpu.load(&bundle, &Placement::new(0, 2, owners))).unwrap();
        for &op in &program.init {
            if let Op::Pass(pass) = op {
                block_on(run.pass(pass, 0)).unwrap();
            }
        }
        let mut painter = Painter::new(&gpu, program, number, &palette(), TextureFormat::Rgba8Unorm).unwrap();
        let foreign = TileId(3);
        let block = grid.tile_block(foreign);
        let put: Vec<u8> = (0..block.points() as u32)
            .flat_map(|at| if folder.contains("heat") { (at as f32 / 900.0).to_le_bytes() } else { (at % 2).to_le_bytes() })
            .collect();
        painter.put(&gpu, foreign, &put);
        painter.put(&gpu, TileId(6), &put[..4]);
        let pixels = block_on(painter.picture(&mut run, SHAPE, Sight { is_relief: false })).unwrap();
        // Between the least and the greatest value of the tiles that are there.
        let reading = painter.range(&mut run).unwrap();
        let range = block_on(reading.get(&gpu)).unwrap().unwrap();
        let mut values = Vec::new();
        let mut colours = std::collections::BTreeSet::new();
        for tile in grid.tiles() {
            let block = grid.tile_block(tile);
            let content = match tile.0 {
                3 => Some(put.clone()),
                other if other % 3 == 0 => None,
                _ => Some(block_on(run.read_tile(number, tile)).unwrap()),
            };
            for at in 0..block.points() as usize {
                let (x, y) = (block.origin[0] as usize + at % block.extent[0] as usize, block.origin[1] as usize + at / block.extent[0] as usize);
                let pixel = &pixels[(y * SHAPE[0] as usize + x) * 4..][..4];
                let Some(content) = &content else {
                    assert_eq!(pixel, [0; 4], "{folder} {tile:?} {x} {y}");
                    continue;
                };
                let word: [u8; 4] = content[at * 4..at * 4 + 4].try_into().unwrap();
                let value = if folder.contains("heat") { f32::from_le_bytes(word) } else { u32::from_le_bytes(word) as f32 };
                values.push(value);
                let level = ((value - range[0]) / (range[1] - range[0])).clamp(0.0, 1.0) * 255.0;
                assert!(
                    (f32::from(pixel[0]) - level.floor()).abs() <= 1.0 && pixel[1] == 255 - pixel[0],
                    "{folder} {tile:?} {x} {y}: {pixel:?} {value}"
                );
                assert_eq!(pixel[2..], [7, 255]);
                colours.insert(pixel[0]);
            }
        }
        assert!(colours.len() > if folder.contains("heat") { 100 } else { 1 }, "{folder}: {colours:?}");
        assert_eq!(values.iter().copied().reduce(f32::min).zip(values.iter().copied().reduce(f32::max)), Some((range[0], range[1])));
        // Lit, it is another picture, and as transparent.
        let lit = block_on(painter.picture(&mut run, SHAPE, Sight { is_relief: true })).unwrap();
        assert_ne!(lit, pixels);
        assert!(lit.chunks_exact(4).zip(pixels.chunks_exact(4)).all(|(lit, flat)| lit[3] == flat[3]));
        // A smaller picture is every so many-th point.
        assert_eq!((painter.pixels(100), painter.pixels(50), painter.pixels(1)), ([100, 70], [50, 35], [1, 1]));
    }
}

#[test]
fn points_are_where_their_first_two_lanes_say() {
    const SIDE: u32 = 64;
    let gpu = block_on(Gpu::open(GpuOptions::default())).unwrap();
    // The last tile is smaller.
    let bundle = load("shaders/physics/nbody", &[100], &[32]);
    let (program, body) = (bundle.program(), bundle.program().buffer("body").unwrap());
    let mut run = block_on(gpu.load(&bundle, &Placement::alone(program))).unwrap();
    let at: Vec<[f32; 4]> = (0..100).map(|number| [(number % 10) as f32 - 4.5, (number / 10) as f32 + 100.0, 7.0, 1.0]).collect();
    // One is no number, and one so far off that it does not count.
    let strange = |number: usize, at: [f32; 4]| match number {
        40 => [f32::NAN, at[1], 7.0, 1.0],
        99 => [1e30, at[1], 7.0, 1.0],
        _ => at,
    };
    for tile in 0..4 {
        let tile_bodies = at.iter().copied().enumerate().skip(tile * 32).take(32).map(|(number, at)| strange(number, at));
        let bytes: Vec<u8> = tile_bodies.flatten().flat_map(f32::to_le_bytes).collect();
        run.write_tile(body, TileId(tile as u32), &bytes);
    }
    let mut painter = Painter::new(&gpu, program, body, &palette(), TextureFormat::Rgba8Unorm).unwrap();
    let mut pixels = Vec::new();
    // The window closes in on where nearly all are.
    for _ in 0..600 {
        pixels = block_on(painter.picture(&mut run, [SIDE; 2], Sight::default())).unwrap();
    }
    let reading = painter.range(&mut run).unwrap();
    assert_eq!(block_on(reading.get(&gpu)).unwrap(), None);
    let ground = &pixels[..4];
    let is_lit = |x: f32, y: f32| &pixels[((y as u32 * SIDE + x as u32) * 4) as usize..][..4] != ground;
    // 98 points about (0, 104.5), their deviation along x √8.25 and along y nearly as much: 2.6 of these are half of the picture.
    let seen: Vec<[f32; 2]> = at.iter().enumerate().filter(|(number, _)| ![40, 99].contains(number)).map(|(_, at)| [at[0], at[1]]).collect();
    let mean = [0, 1].map(|axis| seen.iter().map(|at| at[axis]).sum::<f32>() / seen.len() as f32);
    let variance = [0, 1].map(|axis| seen.iter().map(|at| (at[axis] - mean[axis]).powi(2)).sum::<f32>() / seen.len() as f32);
    let half = 2.6 * variance[0].max(variance[1]).sqrt();
    let place = |at: [f32; 2]| [0, 1].map(|axis| ((at[axis] - mean[axis]) / half * 0.5 + 0.5) * SIDE as f32);
    for (number, at) in at.iter().enumerate() {
        let [x, y] = place([at[0], at[1]]);
        assert_eq!(is_lit(x, y), ![40, 99].contains(&number), "{number} at {x} {y}");
    }
    // Half way to the next one there is nothing.
    let [x, y] = place([at[44][0] + 0.5, at[44][1] + 0.5]);
    assert!(!is_lit(x, y), "{x} {y}");
    assert_eq!(painter.pixels(9), [9, 9]);
}

#[test]
fn what_cannot_be_seen_has_no_painter() {
    let gpu = block_on(Gpu::open(GpuOptions::default())).unwrap();
    let bundle = load("bench/src/executors/sum", &[256], &[64]);
    let value = bundle.program().buffer("value").unwrap();
    assert!(Painter::new(&gpu, bundle.program(), value, &palette(), TextureFormat::Rgba8Unorm).is_none());
    let total = bundle.program().buffer("total").unwrap();
    assert!(Painter::new(&gpu, bundle.program(), total, &palette(), TextureFormat::Rgba8Unorm).is_none());
}
