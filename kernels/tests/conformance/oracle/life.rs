//! `shaders/physics/life`: B3/S23 on a torus.

use super::{Buffer, buffer, fill, index, pcg, wrapped};

const NEIGHBOURS: [[i32; 3]; 8] = [[-1, -1, 0], [0, -1, 0], [1, -1, 0], [-1, 0, 0], [1, 0, 0], [-1, 1, 0], [0, 1, 0], [1, 1, 0]];

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut alive = fill(shape, |[x, y, _]| u32::from(pcg(x.wrapping_add(pcg(y))) & 7 < 3));
    for _ in 0..ticks {
        alive = fill(shape, |p| {
            let neighbours: u32 = NEIGHBOURS.iter().map(|&step| alive[wrapped(shape, p, step)]).sum();
            u32::from(neighbours == 3 || alive[index(shape, p)] == 1 && neighbours == 2)
        });
    }
    vec![buffer("alive", &alive)]
}
