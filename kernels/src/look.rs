//! How a field can be shown to people.

use peercompute_buffers::Grid;
use peercompute_buffers::layout::{Element, ElementKind, Scalar};

/// What a field is seen as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A plane of scalars, or of the first scalars of vectors and structs; of three axes the middle slice.
    Plane(Scalar),
    /// Points, by the first two lanes of a vector of f32.
    Points,
}

impl Look {
    /// How a field of a grid can be seen; `None` where it cannot.
    pub fn of(grid: &Grid, element: &Element) -> Option<Look> {
        let first = match &element.kind {
            ElementKind::Struct(fields) => &fields.first()?.element.kind,
            kind => kind,
        };
        match *first {
            ElementKind::Scalar(scalar) | ElementKind::Vector(scalar, _) if grid.dims > 1 => Some(Look::Plane(scalar)),
            ElementKind::Vector(Scalar::F32, _) => Some(Look::Points),
            _ => None,
        }
    }
}
