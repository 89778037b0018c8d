//! Fields as pictures: a colour map for any scalar field, a hillshaded landscape for the demo.
//!
//! Invariant: a picture is a function of the field alone; the same bits give the same pixels.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use peercompute_buffers::layout::{Element, ElementKind, Scalar};

/// Why a buffer has no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// Pictures have two axes.
    #[error("`{buffer}` has {axes} axes: a picture shows a 2-D field, or the middle slice of a 3-D one")]
    Axes {
        /// The buffer.
        buffer: String,
        /// Its axes.
        axes: usize,
    },
    /// Pictures show scalars.
    #[error("`{buffer}` holds `{element}`: a picture shows one scalar, or a vector's first lane")]
    Element {
        /// The buffer.
        buffer: String,
        /// Its element.
        element: String,
    },
    /// Pictures are PNG.
    #[error("`{}` is no name for a picture: it ends in `.png`", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write the picture: {0}")]
    Write(#[from] image::ImageError),
}

/// The scalars of a field: the element itself, or the first lane of a vector.
///
/// **Errors:** [`PictureError::Element`].
pub fn scalars(buffer: &str, element: &Element, bytes: &[u8]) -> Result<Vec<f32>, PictureError> {
    let scalar = scalar_of(buffer, element)?;
    let word = |word: &[u8]| [word[0], word[1], word[2], word[3]];
    Ok(bytes
        .chunks_exact(element.stride as usize)
        .map(|element| match scalar {
            Scalar::F32 => f32::from_le_bytes(word(element)),
            Scalar::I32 => i32::from_le_bytes(word(element)) as f32,
            Scalar::U32 => u32::from_le_bytes(word(element)) as f32,
        })
        .collect())
}

fn scalar_of(buffer: &str, element: &Element) -> Result<Scalar, PictureError> {
    match element.kind {
        ElementKind::Scalar(scalar) | ElementKind::Vector(scalar, _) => Ok(scalar),
        _ => Err(PictureError::Element { buffer: buffer.into(), element: element.name.clone() }),
    }
}

/// What is shown of a field: its width, its height, and where it begins.
fn slice_of(buffer: &str, shape: &[u32]) -> Result<(u32, u32, usize), PictureError> {
    match *shape {
        [width, height] => Ok((width, height, 0)),
        [width, height, depth] => Ok((width, height, (width * height * (depth / 2)) as usize)),
        _ => Err(PictureError::Axes { buffer: buffer.into(), axes: shape.len() }),
    }
}

/// Whether a buffer has a picture, and a file is a name for one.
///
/// **Errors:** [`PictureError`].
pub fn check_field(path: &Path, buffer: &str, shape: &[u32], element: &Element) -> Result<(), PictureError> {
    slice_of(buffer, shape)?;
    scalar_of(buffer, element)?;
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("png") => Ok(()),
        _ => Err(PictureError::Name { path: path.into() }),
    }
}

/// Writes a scalar field through the viridis colour map, from its smallest finite value to its largest.
///
/// Of a 3-D field the middle slice is shown. Values that are not numbers are magenta.
///
/// **Errors:** [`PictureError`].
pub fn write_field(path: &Path, buffer: &str, shape: &[u32], element: &Element, bytes: &[u8]) -> Result<(), PictureError> {
    let values = scalars(buffer, element, bytes)?;
    let (width, height, first) = slice_of(buffer, shape)?;
    let slice = &values[first..first + (width * height) as usize];
    let finite = || slice.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
    let span = if high > low { high - low } else { 1.0 };
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let value = slice[(x + width * y) as usize];
        if !value.is_finite() {
            return Rgb([255, 0, 255]);
        }
        let colour = colorous::VIRIDIS.eval_continuous(f64::from((value - low) / span));
        Rgb([colour.r, colour.g, colour.b])
    });
    picture.save(path)?;
    Ok(())
}

/// Writes a landscape: land coloured by height and lit from the north-west, water by its depth.
///
/// `height` and `depth` in metres, `cell` the width of a cell in metres, rows from north to south.
///
/// **Errors:** the file cannot be written.
///
/// **Source:** hillshade after Horn, "Hill shading and the reflectance map", Proc. IEEE 69(1), 1981.
pub fn write_landscape(path: &Path, [width, rows]: [u32; 2], height: &[f32], depth: &[f32], cell: f32) -> Result<(), PictureError> {
    let at = |x: i64, y: i64| {
        let x = x.clamp(0, i64::from(width) - 1) as u32;
        let y = y.clamp(0, i64::from(rows) - 1) as u32;
        (x + width * y) as usize
    };
    let ground = |x: i64, y: i64| height[at(x, y)];
    let (low, high) = height.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let picture = RgbImage::from_fn(width, rows, |px, py| {
        let (x, y) = (i64::from(px), i64::from(py));
        let east = (ground(x + 1, y - 1) + 2.0 * ground(x + 1, y) + ground(x + 1, y + 1))
            - (ground(x - 1, y - 1) + 2.0 * ground(x - 1, y) + ground(x - 1, y + 1));
        let south = (ground(x - 1, y + 1) + 2.0 * ground(x, y + 1) + ground(x + 1, y + 1))
            - (ground(x - 1, y - 1) + 2.0 * ground(x, y - 1) + ground(x + 1, y - 1));
        let (east, south) = (east / (8.0 * cell), south / (8.0 * cell));
        // The normal is (-east, -south, 1); the light stands in the north-west, 45 degrees up.
        let length = (east * east + south * south + 1.0).sqrt();
        let light = ((0.5 * east + 0.5 * south + 0.707) / length).clamp(0.0, 1.0);
        let level = (height[at(x, y)] - low) / (high - low).max(1e-6);
        let steep = (1.0 - 1.0 / length) * 2.5;
        let land = mix(land_colour(level), [0.42, 0.38, 0.34], steep.clamp(0.0, 0.7));
        let shade = 0.25 + 1.05 * light;
        let lit = land.map(|channel| channel * shade);
        let water = depth[at(x, y)];
        let cover = ((water - 0.25) / 2.5).clamp(0.0, 1.0).sqrt();
        let deep = (water / 60.0).clamp(0.0, 1.0).sqrt();
        let colour = mix([0.36, 0.62, 0.74], [0.05, 0.18, 0.38], deep);
        let pixel = mix(lit, colour, 0.92 * cover);
        Rgb(pixel.map(|channel| (channel.clamp(0.0, 1.0) * 255.0 + 0.5) as u8))
    });
    picture.save(path)?;
    Ok(())
}

fn mix(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * t)
}

/// Lowland, meadow, forest, heath, rock, snow.
fn land_colour(level: f32) -> [f32; 3] {
    const STOPS: [(f32, [f32; 3]); 6] = [
        (0.0, [0.76, 0.70, 0.50]),
        (0.12, [0.55, 0.65, 0.36]),
        (0.35, [0.31, 0.48, 0.27]),
        (0.6, [0.50, 0.47, 0.34]),
        (0.8, [0.55, 0.52, 0.50]),
        (1.0, [0.95, 0.96, 0.98]),
    ];
    for pair in STOPS.windows(2) {
        let ((from, a), (to, b)) = (pair[0], pair[1]);
        if level <= to {
            return mix(a, b, ((level - from) / (to - from)).clamp(0.0, 1.0));
        }
    }
    STOPS[5].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_becomes_a_picture_of_its_extremes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let bytes: Vec<u8> = [0.0f32, 1.0, 2.0, f32::NAN].iter().flat_map(|v| v.to_le_bytes()).collect();
        write_field(&path, "a", &[2, 2], &Element::scalar(Scalar::F32), &bytes).unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        let colour = |t: f64| {
            let c = colorous::VIRIDIS.eval_continuous(t);
            Rgb([c.r, c.g, c.b])
        };
        assert_eq!(*picture.get_pixel(0, 0), colour(0.0));
        assert_eq!(*picture.get_pixel(1, 0), colour(0.5));
        assert_eq!(*picture.get_pixel(0, 1), colour(1.0));
        assert_eq!(*picture.get_pixel(1, 1), Rgb([255, 0, 255]));
        assert!(write_field(&path, "a", &[4], &Element::scalar(Scalar::F32), &bytes).is_err());
    }
}
