//! `examples/hello-workload`: the annealing vote on a torus.

use super::{Buffer, buffer, fill, wrapped};

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut opinion = fill(shape, seed);
    for _ in 0..ticks {
        opinion = fill(shape, |p| {
            let mut ayes = 0;
            for dy in -1..=1 {
                for dx in -1..=1 {
                    ayes += opinion[wrapped(shape, p, [dx, dy, 0])];
                }
            }
            u32::from(ayes == 4 || ayes >= 6)
        });
    }
    vec![buffer("opinion", &opinion)]
}

fn seed([x, y, _]: [u32; 3]) -> u32 {
    let mut h = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    (h >> 15) & 1
}
