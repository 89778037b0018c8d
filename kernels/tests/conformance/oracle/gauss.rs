//! `shaders/image/gauss`: the 7 x 7 binomial blur on a torus.

use super::{Buffer, buffer, fill, pcg, wrapped};

pub(super) fn run(shape: [u32; 3], ticks: u64) -> Vec<Buffer> {
    let mut brightness = fill(shape, |[x, y, _]| (pcg((x / 48).wrapping_add(pcg(y / 16))) & 1) as f32);
    for _ in 0..ticks {
        brightness = fill(shape, |p| {
            let row = |dy: i32| weighted(|dx| brightness[wrapped(shape, p, [dx, dy, 0])]);
            weighted(row) * (1.0 / 4096.0)
        });
    }
    vec![buffer("brightness", &brightness)]
}

/// The sum of seven values, weighted 1 6 15 20 15 6 1.
fn weighted(value: impl Fn(i32) -> f32) -> f32 {
    (value(-3) + value(3)) + 6.0 * (value(-2) + value(2)) + 15.0 * (value(-1) + value(1)) + 20.0 * value(0)
}
