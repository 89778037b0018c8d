//! Fields and tables as NumPy `.npy` files: how state enters and leaves the world of Python.
//!
//! A file holds a whole buffer in row-major grid order. Grid axes are `[x, y, z]`, x fastest, so the
//! NumPy shape is the reverse, `(nz, ny, nx)`, with only the axes that the grid has; a table has one.
//!
//! ```text
//! element              shape of the array         dtype
//! f32 | i32 | u32      (nz, ny, nx)               '<f4' | '<i4' | '<u4'
//! vec3<f32>            (nz, ny, nx, 3)            '<f4'             packed: a vec3's padding is dropped
//! mat4x3<f32>          (nz, ny, nx, 4, 3)         '<f4'             (column, row), packed
//! array<T, n>          (nz, ny, nx, n, axes of T) that of T         packed
//! struct               (nz, ny, nx)               [('position', '<f4', (3,)), ('', '|V4'), ...]
//! ```
//! A struct keeps its bytes: fields lie where WGSL puts them and unnamed void fields fill the gaps, so
//! that `itemsize` is the stride. Where the padding lies *inside* an array or matrix of a struct, each
//! of its entries is a record of one field `value`: `('m', [('value', '<f4', (3,)), ('', '|V4')], (4,))`.
//!
//! Invariant: a header is bounded and looked through before it is parsed, nothing is allocated that
//! the declaration and the caller's limit do not allow, and padding is zero on both ways.

mod describe;
mod header;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::read;
pub use write::write;

use std::io;

use crate::layout::Scalar;

/// Bytes of a file that are converted at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// Why a file is not the buffer that was declared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// Reading failed.
    #[error("cannot read the .npy file: {0}")]
    Io(#[from] io::Error),
    /// Not a .npy file, or a header that NumPy would not have written.
    #[error("not a .npy file: {reason}")]
    Header {
        /// What is wrong with it.
        reason: String,
    },
    /// The header is longer than any that fits.
    #[error("the .npy header has {given} bytes, at most {max} are read")]
    HeaderTooLong {
        /// The length that the file states.
        given: u64,
        /// The longest allowed.
        max: u64,
    },
    /// The array has another shape.
    #[error("expected an array of shape {}, found {}: axes are (z, y, x), then those of the element", shape_text(expected), shape_text(found))]
    Shape {
        /// The shape that grid and element give.
        expected: Vec<u64>,
        /// The file's.
        found: Vec<u64>,
    },
    /// The array, or one field of it, has another type.
    #[error("{}expected {expected}, found {found}", place_text(field))]
    Type {
        /// The field's path, empty for the array itself.
        field: String,
        /// What the element asks for.
        expected: String,
        /// The file's type.
        found: String,
    },
    /// A field of the element is not in the file.
    #[error("the file lacks the field `{field}` ({expected})")]
    MissingField {
        /// The field's path.
        field: String,
        /// What the element asks for.
        expected: String,
    },
    /// A field of the file is not in the element.
    #[error("the file has a field `{field}`, which the element does not have: remove or rename it")]
    UnknownField {
        /// The field's path.
        field: String,
    },
    /// The array needs more memory than the caller allows.
    #[error("the array has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the array, in the file or as the buffer, whichever is more.
        bytes: u128,
        /// The caller's limit.
        limit: u64,
    },
    /// The file ends before the array does.
    #[error("the file ends after {found} of {expected} data bytes")]
    Truncated {
        /// Bytes of the array.
        expected: u64,
        /// Bytes that were there, in whole pieces.
        found: u64,
    },
    /// A value that the element's scalar cannot hold.
    #[error("{}element {index} is {value}, which does not fit {}", place_text(field), scalar.name())]
    Value {
        /// The element, in row-major order.
        index: u64,
        /// The field's path, empty for the array itself.
        field: String,
        /// The value found.
        value: String,
        /// What it should have fitted.
        scalar: Scalar,
    },
}

fn shape_text(shape: &[u64]) -> String {
    match shape {
        [only] => format!("({only},)"),
        _ => format!("({})", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn place_text(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("field `{field}`: ") }
}
