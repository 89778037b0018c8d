//! Buffers to files.

use std::io::{self, Write};

use super::CHUNK_BYTES;
use super::describe::{file_shape, header_bytes, leaf_descr};
use crate::layout::{Element, ElementKind};

/// Writes a field or table as a `.npy` file.
///
/// **Shapes:** `grid_shape` is `[nx, ny, nz]` cut to the grid's axes, `[length]` for a table; `bytes`
/// is one element per point, x fastest, each of the element's stride.
///
/// **Errors:** the writer's; `InvalidInput` when `bytes` has not the length that shape and element give.
pub fn write(out: &mut impl Write, grid_shape: &[u32], element: &Element, bytes: &[u8]) -> io::Result<()> {
    let points: u128 = grid_shape.iter().map(|&extent| u128::from(extent)).product();
    let expected = points * u128::from(element.stride);
    if bytes.len() as u128 != expected || element.stride == 0 {
        let text = format!("a buffer of this shape has {expected} bytes, {} were given", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    out.write_all(&header_bytes(&file_shape(grid_shape, element), &leaf_descr(element)))?;
    let words = file_words(element);
    if words.iter().enumerate().all(|(index, word)| *word == Some(index)) && words.len() == element.words() as usize {
        return out.write_all(bytes);
    }
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + 4 * words.len());
    for source in bytes.chunks_exact(element.stride as usize) {
        for word in &words {
            match word {
                Some(word) => chunk.extend_from_slice(&source[4 * word..4 * word + 4]),
                None => chunk.extend_from_slice(&[0; 4]),
            }
        }
        if chunk.len() >= CHUNK_BYTES {
            out.write_all(&chunk)?;
            chunk.clear();
        }
    }
    out.write_all(&chunk)
}

/// For every word of an element in the file, the word of memory that it holds, `None` for padding.
fn file_words(element: &Element) -> Vec<Option<usize>> {
    fn collect(element: &Element, offset: u32, words: &mut Vec<Option<usize>>) {
        let first = (offset / 4) as usize;
        match &element.kind {
            ElementKind::Array { element, count, stride } => {
                for index in 0..*count {
                    collect(element, offset + index * stride, words);
                }
            }
            ElementKind::Struct(_) => {
                let data = element.data_words().into_iter().enumerate();
                words.extend(data.map(|(word, is_data)| is_data.then_some(first + word)));
            }
            _ => {
                let data = element.data_words().into_iter().enumerate();
                words.extend(data.filter(|(_, is_data)| *is_data).map(|(word, _)| Some(first + word)));
            }
        }
    }
    let mut words = Vec::new();
    collect(element, 0, &mut words);
    words
}
