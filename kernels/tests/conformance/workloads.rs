//! The repository's workloads against their oracles, and against themselves however they are laid out.

use peercompute_kernels::executor::Borders;

use crate::cases::{Kind, load};
use crate::executors::{open, run};
use crate::oracle;

pub(crate) fn shapes(folder: &str) -> Vec<(Vec<u32>, Vec<u32>)> {
    match folder {
        f if f.ends_with("wave3d") => vec![(vec![1, 1, 1], vec![1, 1, 1]), (vec![17, 9, 11], vec![5, 4, 3]), (vec![16, 16, 16], vec![8, 8, 8])],
        f if f.ends_with("nbody") => vec![(vec![1], vec![1]), (vec![300], vec![64]), (vec![1024], vec![256])],
        f if f.ends_with("wave6") || f.ends_with("gauss") => {
            vec![(vec![3, 3], vec![3, 3]), (vec![50, 37], vec![16, 8]), (vec![64, 64], vec![16, 32])]
        }
        _ => vec![(vec![1, 1], vec![1, 1]), (vec![5, 3], vec![2, 2]), (vec![70, 45], vec![16, 16]), (vec![192, 128], vec![64, 64])],
    }
}

/// The largest grid that a kind of executor is tested on, and so many ticks of so many.
fn largest(kind: Kind, folder: &str, ticks: u64) -> (Vec<u32>, Vec<u32>, u64) {
    let mut shapes = shapes(folder);
    let last = shapes.pop();
    let (shape, tile) = last.filter(|_| kind != Kind::Interpreted).or(shapes.pop()).unwrap();
    (shape, tile, if kind == Kind::Interpreted { ticks.div_ceil(3) } else { ticks })
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

pub(crate) fn results_are_the_oracles(kind: Kind) {
    let executor = open(kind, Borders::Apart, None);
    for (name, folder) in oracle::WORKLOADS {
        let (shape, _, most) = largest(kind, folder, 7);
        let is_tested = |extents: &[u32]| extents.iter().product::<u32>() <= shape.iter().product();
        for (shape, tile) in shapes(folder).into_iter().filter(|(shape, _)| is_tested(shape)) {
            let bundle = load(folder, &shape, &tile);
            for ticks in [0, 1, most] {
                let got = run(&executor, &bundle, 1, ticks);
                let full = [shape[0], *shape.get(1).unwrap_or(&1), *shape.get(2).unwrap_or(&1)];
                for (buffer, want) in oracle::run(name, full, ticks) {
                    let got = got.bytes(buffer);
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

pub(crate) fn the_partition_changes_no_bit(kind: Kind) {
    for (borders, page) in [(Borders::InPlace, None), (Borders::Apart, Some(150_000))] {
        let executor = open(kind, borders, page);
        for (name, folder) in oracle::WORKLOADS {
            let (shape, tile, ticks) = largest(kind, folder, 12);
            let bundle = load(folder, &shape, &tile);
            if page.is_some() && bundle.program().rules.iter().any(|rules| rules.whole) {
                continue;
            }
            let alone = run(&executor, &bundle, 1, ticks).hash;
            let peers: &[usize] = if kind == Kind::Interpreted { &[3] } else { &[2, 3, 4, 7] };
            for &peers in peers {
                let together = run(&executor, &bundle, peers, ticks).hash;
                assert_eq!(together, alone, "{name} on {peers} peers, {borders:?}, pages of {page:?}");
            }
        }
    }
}

pub(crate) fn tiles_pages_and_borders_change_no_bit(kind: Kind) {
    for (name, folder) in oracle::WORKLOADS {
        let (shape, tile, ticks) = largest(kind, folder, 6);
        let reference = run(&open(kind, Borders::InPlace, None), &load(folder, &shape, &tile), 1, ticks);
        let odd: Vec<u32> = tile.iter().map(|&e| e / 2 + 3).collect();
        for (tile, borders, page) in [(&tile, Borders::Apart, None), (&odd, Borders::Apart, None), (&odd, Borders::InPlace, Some(1 << 20))] {
            let got = run(&open(kind, borders, page), &load(folder, &shape, tile), 1, ticks);
            for ((buffer, got), (_, want)) in got.buffers.iter().zip(&reference.buffers) {
                // A float sum depends on the tiling, and says so.
                if !(name == "energy" && buffer == "energy") {
                    assert!(got == want, "{name}.{buffer} with tiles {tile:?}, {borders:?}, pages of {page:?}");
                }
            }
        }
    }
}
