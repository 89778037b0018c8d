//! A field as pixels, tile by tile: what a page shows of a world, whoever computes it.
//!
//! ```text
//! View::new(grid, element, longest side) ─ tile(number, bytes) … ─► values, one per pixel ─ pixels() ─► RGBA
//! ```
//!
//! A grid with two or three axes is seen from above (of three, the middle slice), every `step`-th point a pixel. A grid with one axis
//! whose elements begin with a vector is seen as points in the plane of its first two lanes. Invariants: tiles that were not given stay
//! transparent; a view is a function of the tiles given, whatever their order.

use peercompute_buffers::layout::{Element, Scalar};
use peercompute_buffers::{Grid, TileId};
use peercompute_kernels::Look;

/// What stands for a value that is no number.
const NOT_A_NUMBER: [u8; 4] = [255, 0, 255, 255];
/// Behind points.
const NIGHT: [u8; 4] = [8, 10, 20, 255];

/// Pixels in the making.
#[derive(Debug, Clone)]
pub struct View {
    grid: Grid,
    stride: usize,
    look: Look,
    step: u32,
    /// Pixels along x and y.
    pub width: u32,
    /// Pixels along y.
    pub height: u32,
    /// Per pixel the value, and whether its tile was given.
    values: Vec<Option<f32>>,
    points: Vec<[f32; 2]>,
}

impl View {
    /// An empty view whose longer side has at most `pixels_max` pixels; `None` where the field cannot be seen.
    pub fn new(grid: Grid, element: &Element, pixels_max: u32) -> Option<View> {
        let look = Look::of(&grid, element)?;
        let pixels_max = pixels_max.max(1);
        let [x, y, _] = grid.shape;
        let step = x.max(y).div_ceil(pixels_max);
        let (width, height) = match look {
            Look::Plane(_) => (x.div_ceil(step), y.div_ceil(step)),
            Look::Points => (pixels_max, pixels_max),
        };
        let pixels = if look == Look::Points { 0 } else { width as usize * height as usize };
        Some(View { grid, stride: element.stride as usize, look, step, width, height, values: vec![None; pixels], points: Vec::new() })
    }

    /// Puts a tile in; `bytes` are its elements, row by row. Bytes of another length are passed over.
    pub fn tile(&mut self, tile: TileId, bytes: &[u8]) {
        let block = self.grid.tile_block(tile);
        if bytes.len() != block.points() as usize * self.stride {
            return;
        }
        match self.look {
            Look::Points => {
                let lane = |element: &[u8], at: usize| f32::from_le_bytes([element[at], element[at + 1], element[at + 2], element[at + 3]]);
                self.points.extend(bytes.chunks_exact(self.stride).map(|element| [lane(element, 0), lane(element, 4)]));
            }
            Look::Plane(scalar) => {
                let ([x0, y0, z0], [nx, ny, nz]) = (block.origin, block.extent);
                let Some(z) = (self.grid.shape[2] / 2).checked_sub(z0).filter(|z| *z < nz) else { return };
                let first = |origin: u32| origin.next_multiple_of(self.step);
                for y in (first(y0)..y0 + ny).step_by(self.step as usize) {
                    for x in (first(x0)..x0 + nx).step_by(self.step as usize) {
                        let index = ((z * ny + (y - y0)) * nx + (x - x0)) as usize * self.stride;
                        let word = [bytes[index], bytes[index + 1], bytes[index + 2], bytes[index + 3]];
                        let pixel = (y / self.step * self.width + x / self.step) as usize;
                        self.values[pixel] = Some(value(scalar, word));
                    }
                }
            }
        }
    }

    /// The smallest and largest finite value.
    pub fn range(&self) -> Option<(f32, f32)> {
        let finite = self.values.iter().flatten().copied().filter(|value| value.is_finite());
        finite.fold(None, |range, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((value.min(low), value.max(high)))
        })
    }

    /// Red, green, blue, alpha per pixel, row by row: a plane through the viridis colour map over `range`, or points by their density.
    pub fn pixels(&self, range: Option<(f32, f32)>) -> Vec<u8> {
        match self.look {
            Look::Plane(_) => self.plane(range.or_else(|| self.range()).unwrap_or((0.0, 1.0))),
            Look::Points => self.scatter(),
        }
    }

    fn plane(&self, (low, high): (f32, f32)) -> Vec<u8> {
        let colours = palette();
        let scale = 255.0 / if high > low { high - low } else { 1.0 };
        let pixel = |value: &Option<f32>| match value {
            None => [0; 4],
            Some(value) if !value.is_finite() => NOT_A_NUMBER,
            Some(value) => colours[((value - low) * scale).clamp(0.0, 255.0) as usize],
        };
        self.values.iter().flat_map(pixel).collect()
    }

    fn scatter(&self) -> Vec<u8> {
        let finite: Vec<[f32; 2]> = self.points.iter().copied().filter(|point| point.iter().all(|lane| lane.is_finite())).collect();
        let Some((centre, half)) = frame(&finite) else { return NIGHT.repeat(self.width as usize * self.height as usize) };
        let mut count = vec![0u32; self.width as usize * self.height as usize];
        for point in &finite {
            let place = [0, 1].map(|axis| ((point[axis] - centre[axis]) / half * 0.5 + 0.5) * self.width as f32);
            let [x, y] = place.map(|place| place.floor());
            if x >= 0.0 && y >= 0.0 && x < self.width as f32 && y < self.height as f32 {
                count[(y as u32 * self.width + x as u32) as usize] += 1;
            }
        }
        let pixel = |count: &u32| if *count == 0 { NIGHT } else { colour((0.5 + 0.18 * f64::from(*count).log2()).min(1.0)) };
        count.iter().flat_map(pixel).collect()
    }
}

/// The square that holds nearly all points: far ones do not decide.
fn frame(points: &[[f32; 2]]) -> Option<([f32; 2], f32)> {
    let middle = |axis: usize, part: f64| {
        let mut lanes: Vec<f32> = points.iter().map(|point| point[axis]).collect();
        lanes.sort_unstable_by(f32::total_cmp);
        lanes.get((lanes.len().checked_sub(1)? as f64 * part).round() as usize).copied()
    };
    let (low, high) = ([middle(0, 0.02)?, middle(1, 0.02)?], [middle(0, 0.98)?, middle(1, 0.98)?]);
    let centre = [0, 1].map(|axis| (low[axis] + high[axis]) / 2.0);
    let half = (high[0] - low[0]).max(high[1] - low[1]) * 0.6;
    Some((centre, if half > 0.0 { half } else { 1.0 }))
}

/// Viridis, from low to high: red, green, blue, alpha.
pub fn palette() -> [[u8; 4]; 256] {
    std::array::from_fn(|level| colour(level as f64 / 255.0))
}

fn value(scalar: Scalar, word: [u8; 4]) -> f32 {
    match scalar {
        Scalar::F32 => f32::from_le_bytes(word),
        Scalar::I32 => i32::from_le_bytes(word) as f32,
        Scalar::U32 => u32::from_le_bytes(word) as f32,
    }
}

fn colour(level: f64) -> [u8; 4] {
    let colour = colorous::VIRIDIS.eval_continuous(level);
    [colour.r, colour.g, colour.b, 255]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

    use peercompute_buffers::layout::ElementKind;

    use super::*;

    fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    }

    #[test]
    fn every_step_th_point_is_a_pixel_and_missing_tiles_are_transparent() {
        let grid = Grid::new(&[10, 6], &[4, 3]).unwrap();
        let mut view = View::new(grid, &Element::scalar(Scalar::F32), 5).unwrap();
        assert_eq!((view.width, view.height), (5, 3));
        // All but the last tile; values are x + 10 y.
        for tile in grid.tiles().take(5) {
            let block = grid.tile_block(tile);
            let (origin, extent) = (block.origin, block.extent);
            let rows = (0..extent[1]).flat_map(move |y| (0..extent[0]).map(move |x| (origin[0] + x + 10 * (origin[1] + y)) as f32));
            view.tile(tile, &bytes(rows));
        }
        view.tile(TileId(5), &[0; 3]);
        assert_eq!(view.range(), Some((0.0, 46.0)));
        let pixels = view.pixels(None);
        let alpha: Vec<u8> = pixels.chunks_exact(4).map(|pixel| pixel[3]).collect();
        // Pixels are points 0, 2, 4, …; tile 5 begins at (8, 3), and pixel (4, 2) is the only one in it.
        assert_eq!(alpha, [&[255; 14][..], &[0]].concat());
        assert_eq!((&pixels[..4], &pixels[13 * 4..14 * 4]), (&colour(0.0)[..], &colour(1.0)[..]));
        assert_eq!(&view.pixels(Some((46.0, 92.0)))[13 * 4..14 * 4], &colour(0.0));
    }

    #[test]
    fn of_three_axes_the_middle_slice_is_seen_and_what_is_no_number_stands_out() {
        let grid = Grid::new(&[2, 1, 4], &[2, 1, 2]).unwrap();
        let mut view = View::new(grid, &Element::scalar(Scalar::F32), 8).unwrap();
        view.tile(TileId(0), &bytes([9.0; 4].into_iter()));
        assert_eq!(view.range(), None);
        view.tile(TileId(1), &bytes([1.0, f32::NAN, 5.0, 5.0].into_iter()));
        assert_eq!(view.range(), Some((1.0, 1.0)));
        assert_eq!(&view.pixels(None)[4..], &NOT_A_NUMBER);
    }

    #[test]
    fn vectors_of_a_line_are_points_and_scalars_are_not_seen() {
        let grid = Grid::new(&[4], &[2]).unwrap();
        assert!(View::new(grid, &Element::scalar(Scalar::F32), 8).is_none());
        let element = Element { name: "vec2<f32>".into(), size: 8, stride: 8, kind: ElementKind::Vector(Scalar::F32, 2) };
        let mut view = View::new(grid, &element, 8).unwrap();
        assert_eq!(view.pixels(None), NIGHT.repeat(64));
        view.tile(TileId(0), &bytes([0.0, 0.0, 1.0, 1.0].into_iter()));
        view.tile(TileId(1), &bytes([f32::NAN, 0.0, 1.0, 0.0].into_iter()));
        let lit = view.pixels(None).chunks_exact(4).filter(|pixel| *pixel != NIGHT).count();
        assert_eq!(lit, 3);
    }
}
