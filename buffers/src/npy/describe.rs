//! What a file says of a buffer: its shape, the type of its array, the header that NumPy would write.

use super::shape_text;
use crate::layout::{Element, ElementKind, Field, Scalar};

/// The array's shape: the grid's axes, slowest first, then the element's own outside of structs.
pub(super) fn file_shape(grid_shape: &[u32], element: &Element) -> Vec<u64> {
    let mut shape: Vec<u64> = grid_shape.iter().rev().map(|&extent| u64::from(extent)).collect();
    let mut inner = element;
    loop {
        match &inner.kind {
            ElementKind::Scalar(_) | ElementKind::Struct(_) => return shape,
            ElementKind::Vector(_, lanes) => {
                shape.push(u64::from(*lanes));
                return shape;
            }
            ElementKind::Matrix { columns, rows } => {
                shape.extend([u64::from(*columns), u64::from(*rows)]);
                return shape;
            }
            ElementKind::Array { element, count, .. } => {
                shape.push(u64::from(*count));
                inner = element;
            }
        }
    }
}

/// The `descr` of the array: that of a scalar or struct, whatever vectors and arrays stand around it.
pub(super) fn leaf_descr(element: &Element) -> String {
    match &element.kind {
        ElementKind::Scalar(scalar) | ElementKind::Vector(scalar, _) => format!("'{}'", scalar_descr(*scalar)),
        ElementKind::Matrix { .. } => format!("'{}'", scalar_descr(Scalar::F32)),
        ElementKind::Array { element, .. } => leaf_descr(element),
        ElementKind::Struct(fields) => record_descr(fields, element.stride),
    }
}

pub(super) fn scalar_descr(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::F32 => "<f4",
        Scalar::I32 => "<i4",
        Scalar::U32 => "<u4",
    }
}

/// A record of fields in order of offset, filled up with void to `bytes`.
fn record_descr(fields: &[Field], bytes: u32) -> String {
    let mut entries = Vec::new();
    let mut end = 0;
    for field in fields {
        entries.extend(void_descr(field.offset.saturating_sub(end)));
        let (descr, shape, bytes) = field_descr(&field.element);
        entries.push(entry_descr(&field.name, &descr, &shape));
        end = field.offset + bytes;
    }
    entries.extend(void_descr(bytes.saturating_sub(end)));
    format!("[{}]", entries.join(", "))
}

fn void_descr(bytes: u32) -> Option<String> {
    (bytes > 0).then(|| format!("('', '|V{bytes}')"))
}

fn entry_descr(name: &str, descr: &str, shape: &[u32]) -> String {
    let name = name.replace('\\', "\\\\").replace('\'', "\\'");
    if shape.is_empty() {
        return format!("('{name}', {descr})");
    }
    format!("('{name}', {descr}, {})", shape_text(&shape.iter().map(|&extent| u64::from(extent)).collect::<Vec<_>>()))
}

/// A struct field's `descr`, sub-array shape and bytes.
pub(super) fn field_descr(element: &Element) -> (String, Vec<u32>, u32) {
    match &element.kind {
        ElementKind::Scalar(scalar) => (format!("'{}'", scalar_descr(*scalar)), vec![], 4),
        ElementKind::Vector(scalar, lanes) => (format!("'{}'", scalar_descr(*scalar)), vec![*lanes], 4 * lanes),
        ElementKind::Matrix { columns, rows } => {
            let column = (format!("'{}'", scalar_descr(Scalar::F32)), vec![*rows], 4 * rows);
            repeated_descr(column, *columns, column_stride(*rows))
        }
        ElementKind::Array { element, count, stride } => repeated_descr(field_descr(element), *count, *stride),
        ElementKind::Struct(fields) => (record_descr(fields, element.size), vec![], element.size),
    }
}

fn repeated_descr((descr, mut shape, bytes): (String, Vec<u32>, u32), count: u32, stride: u32) -> (String, Vec<u32>, u32) {
    if bytes >= stride {
        shape.insert(0, count);
        return (descr, shape, count * stride);
    }
    let entries: Vec<String> = [entry_descr("value", &descr, &shape)].into_iter().chain(void_descr(stride - bytes)).collect();
    (format!("[{}]", entries.join(", ")), vec![count], count * stride)
}

pub(super) fn column_stride(rows: u32) -> u32 {
    if rows == 2 { 8 } else { 16 }
}

/// Everything before the data, 64-byte aligned as NumPy's own.
///
/// ```text
/// 93 'NUMPY' | major u8, minor u8 | header length u16 (1.0) or u32 (2.0, 3.0: UTF-8) | dict, spaces, newline
/// ```
pub(super) fn header_bytes(shape: &[u64], descr: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {}, }}", shape_text(shape));
    let long = text.len() + 128 > usize::from(u16::MAX);
    let version: u8 = match (text.is_ascii(), long) {
        (false, _) => 3,
        (true, true) => 2,
        (true, false) => 1,
    };
    let start = if version == 1 { 10 } else { 12 };
    // NumPy leaves room for the first extent to grow in place; so do we, to write its very bytes.
    let room = 21usize.saturating_sub(shape.first().map_or(21, |extent| extent.to_string().len()));
    let length = (start + text.len() + room + 1).next_multiple_of(64) - start;
    text.extend(std::iter::repeat_n(' ', length - 1 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((length as u16).to_le_bytes()),
        _ => bytes.extend((length as u32).to_le_bytes()),
    }
    bytes.extend(text.as_bytes());
    bytes
}
