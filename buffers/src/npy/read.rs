//! Files to buffers: what the file has of each scalar, and what becomes of it.

use std::io::{self, Read};

use npyz::{DType, Endianness, Order, TypeChar};

use super::describe::{column_stride, field_descr, file_shape, header_bytes, leaf_descr, scalar_descr};
use super::header::read_header;
use super::{CHUNK_BYTES, NpyError, shape_text};
use crate::layout::{Element, ElementKind, Field, Scalar};

/// Reads a field or table from a `.npy` file into row-major grid order, padding zeroed.
///
/// Takes either byte order, C and Fortran order, fields of a struct in any order, and any integer,
/// float or boolean type whose values fit: integers must be in range and exact, floats may be rounded
/// to f32 but not overflow it. What follows the array stays unread.
///
/// **Shapes:** as [`write`]. **Limits:** the array takes at most `limit` bytes, in the file and in memory;
/// a file in Fortran order takes both at once.
///
/// **Errors:** [`NpyError`]; nothing is kept.
pub fn read(input: &mut impl Read, grid_shape: &[u32], element: &Element, limit: u64) -> Result<Vec<u8>, NpyError> {
    let expected = file_shape(grid_shape, element);
    let header = read_header(input, &header_bytes(&expected, &leaf_descr(element)))?;
    if header.shape() != expected {
        return Err(NpyError::Shape { expected, found: header.shape().to_vec() });
    }
    let dtype = header.dtype();
    let Some(item_bytes) = dtype.num_bytes().filter(|&bytes| bytes > 0) else {
        return Err(NpyError::Type { field: String::new(), expected: leaf_descr(element), found: dtype_text(&dtype) });
    };
    let axes = &expected[grid_shape.len()..];
    let product = |shape: &mut dyn Iterator<Item = u64>| shape.fold(1u128, |product, extent| product.saturating_mul(extent.into()));
    let points = product(&mut grid_shape.iter().map(|&extent| u64::from(extent)));
    let items = product(&mut axes.iter().copied());
    // Sizes first: what follows adds up offsets within one element of the file.
    let file_bytes = points.saturating_mul(items).saturating_mul(item_bytes as u128);
    let buffer_bytes = points.saturating_mul(u128::from(element.stride));
    let bytes = file_bytes.max(buffer_bytes);
    if bytes > u128::from(limit) || isize::try_from(bytes).is_err() {
        return Err(NpyError::TooLarge { bytes, limit });
    }
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let whole = axes.iter().rev().fold(dtype, |inner, &extent| DType::Array(extent, Box::new(inner)));
    let mut runs = Runs::default();
    runs.element("", &whole, 0, element, 0)?;
    let mut out = vec![0; buffer_bytes as usize];
    let source_bytes = items as usize * item_bytes;
    if header.order() == Order::Fortran && expected.len() > 1 {
        let mut data = vec![0; file_bytes as usize];
        fill(input, &mut data, 0, file_bytes as u64)?;
        let rows = c_from_fortran(&data, &expected, item_bytes);
        runs.convert(0, &rows, source_bytes, &mut out, element.stride as usize)?;
        return Ok(out);
    }
    let chunk_elements = (CHUNK_BYTES / source_bytes).max(1);
    let mut chunk = vec![0; source_bytes * chunk_elements.min(points as usize)];
    let mut first = 0;
    for target in out.chunks_mut(chunk_elements * element.stride as usize) {
        let elements = target.len() / element.stride as usize;
        let source = &mut chunk[..elements * source_bytes];
        fill(input, source, first * source_bytes as u64, file_bytes as u64)?;
        runs.convert(first, source, source_bytes, target, element.stride as usize)?;
        first += elements as u64;
    }
    Ok(out)
}

fn fill(input: &mut impl Read, target: &mut [u8], found: u64, expected: u64) -> Result<(), NpyError> {
    input.read_exact(target).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => NpyError::Truncated { expected, found },
        _ => NpyError::Io(error),
    })
}

/// What one scalar of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    kind: SourceKind,
    bytes: usize,
    big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceKind {
    Bool,
    Int,
    Uint,
    Float,
}

impl Source {
    /// `None` where the file's type holds no number that a 32-bit scalar could.
    fn new(dtype: &DType) -> Option<Source> {
        let DType::Plain(text) = dtype else { return None };
        let bytes = text.num_bytes()?;
        let kind = match (text.type_char(), bytes) {
            (TypeChar::Bool, 1) => SourceKind::Bool,
            (TypeChar::Int, 1 | 2 | 4 | 8) => SourceKind::Int,
            (TypeChar::Uint, 1 | 2 | 4 | 8) => SourceKind::Uint,
            (TypeChar::Float, 2 | 4 | 8) => SourceKind::Float,
            _ => return None,
        };
        Some(Source { kind, bytes, big_endian: text.endianness() == Endianness::Big })
    }

    /// Whether the bytes of the file are those of memory.
    fn is_native(self, scalar: Scalar) -> bool {
        let kind = match scalar {
            Scalar::F32 => SourceKind::Float,
            Scalar::I32 => SourceKind::Int,
            Scalar::U32 => SourceKind::Uint,
        };
        self.kind == kind && self.bytes == 4 && !self.big_endian
    }

    /// The scalar's bits in memory, or the value that does not fit.
    fn convert(self, bytes: &[u8], scalar: Scalar) -> Result<u32, String> {
        let mut raw = [0; 8];
        raw[..self.bytes].copy_from_slice(bytes);
        if self.big_endian {
            raw[..self.bytes].reverse();
        }
        let bits = u64::from_le_bytes(raw);
        let unused = 64 - 8 * self.bytes as u32;
        match self.kind {
            SourceKind::Bool => integer(i128::from(bits != 0), scalar),
            SourceKind::Uint => integer(i128::from(bits), scalar),
            SourceKind::Int => integer(i128::from(((bits << unused) as i64) >> unused), scalar),
            SourceKind::Float if self.bytes == 4 && scalar == Scalar::F32 => Ok(bits as u32),
            SourceKind::Float => {
                let value = match self.bytes {
                    2 => f64_from_half(bits as u16),
                    4 => f64::from(f32::from_bits(bits as u32)),
                    _ => f64::from_bits(bits),
                };
                float(value, scalar)
            }
        }
    }
}

fn integer(value: i128, scalar: Scalar) -> Result<u32, String> {
    let bits = match scalar {
        Scalar::F32 => Some(value as f32).filter(|&float| float as i128 == value).map(f32::to_bits),
        Scalar::I32 => i32::try_from(value).ok().map(|value| value as u32),
        Scalar::U32 => u32::try_from(value).ok(),
    };
    bits.ok_or_else(|| value.to_string())
}

fn float(value: f64, scalar: Scalar) -> Result<u32, String> {
    if scalar == Scalar::F32 {
        let rounded = value as f32;
        let overflows = rounded.is_infinite() && value.is_finite();
        return if overflows { Err(format!("{value:e}")) } else { Ok(rounded.to_bits()) };
    }
    let whole = value as i128;
    if whole as f64 != value {
        return Err(format!("{value:?}"));
    }
    integer(whole, scalar).map_err(|_| format!("{value:?}"))
}

/// IEEE 754 binary16, exactly.
fn f64_from_half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match i32::from(bits >> 10 & 0x1f) {
        0 => fraction * (-24f64).exp2(),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + fraction) * f64::from(exponent - 25).exp2(),
    };
    sign * magnitude
}

/// Scalars of one type that follow one another in the file and in memory.
#[derive(Debug)]
struct Run {
    /// First byte within the file's element.
    from: usize,
    /// First byte within the element.
    to: usize,
    count: usize,
    source: Source,
    scalar: Scalar,
    /// The field's path, for messages.
    field: String,
}

/// Where each scalar of an element comes from.
#[derive(Debug, Default)]
struct Runs(Vec<Run>);

impl Runs {
    /// Matches an element at byte `to` with a type at byte `from` of the file.
    fn element(&mut self, field: &str, dtype: &DType, from: usize, element: &Element, to: usize) -> Result<(), NpyError> {
        let differs = || NpyError::Type { field: field.into(), expected: type_text(element), found: dtype_text(dtype) };
        match &element.kind {
            ElementKind::Scalar(scalar) => self.scalar(field, dtype, from, *scalar, to),
            ElementKind::Vector(scalar, lanes) => {
                let (inner, step) = repeated(dtype, *lanes).ok_or_else(differs)?;
                (0..*lanes as usize).try_for_each(|lane| self.scalar(field, inner, from + lane * step, *scalar, to + 4 * lane))
            }
            ElementKind::Matrix { columns, rows } => {
                let (column, step) = repeated(dtype, *columns).ok_or_else(differs)?;
                let (column, skip) = unwrapped(column);
                let (inner, row_step) = repeated(column, *rows).ok_or_else(differs)?;
                for column in 0..*columns as usize {
                    for row in 0..*rows as usize {
                        let from = from + column * step + skip + row * row_step;
                        self.scalar(field, inner, from, Scalar::F32, to + column * column_stride(*rows) as usize + 4 * row)?;
                    }
                }
                Ok(())
            }
            ElementKind::Array { element, count, stride } => {
                let (inner, step) = repeated(dtype, *count).ok_or_else(differs)?;
                let (inner, skip) = match element.kind {
                    ElementKind::Struct(_) => (inner, 0),
                    _ => unwrapped(inner),
                };
                (0..*count as usize)
                    .try_for_each(|index| self.element(field, inner, from + skip + index * step, element, to + index * *stride as usize))
            }
            ElementKind::Struct(fields) => {
                let DType::Record(given) = dtype else { return Err(differs()) };
                self.record(field, given, from, fields, to)
            }
        }
    }

    fn record(&mut self, path: &str, given: &[npyz::Field], from: usize, fields: &[Field], to: usize) -> Result<(), NpyError> {
        let path_of = |name: &str| if path.is_empty() { name.into() } else { format!("{path}.{name}") };
        if let Some(stray) = given.iter().find(|g| !is_padding(g) && fields.iter().all(|field| field.name != g.name)) {
            return Err(NpyError::UnknownField { field: path_of(&stray.name) });
        }
        for field in fields {
            let mut offset = 0;
            let mut found = None;
            for candidate in given {
                if candidate.name == field.name && found.is_none() {
                    found = Some((&candidate.dtype, offset));
                }
                offset += candidate.dtype.num_bytes().unwrap_or(0);
            }
            let Some((dtype, offset)) = found else {
                return Err(NpyError::MissingField { field: path_of(&field.name), expected: type_text(&field.element) });
            };
            self.element(&path_of(&field.name), dtype, from + offset, &field.element, to + field.offset as usize)?;
        }
        Ok(())
    }

    fn scalar(&mut self, field: &str, dtype: &DType, from: usize, scalar: Scalar, to: usize) -> Result<(), NpyError> {
        let Some(source) = Source::new(dtype) else {
            let expected = format!("'{}' or a type that converts to it", scalar_descr(scalar));
            return Err(NpyError::Type { field: field.into(), expected, found: dtype_text(dtype) });
        };
        if let Some(last) = self.0.last_mut() {
            let follows = last.from + last.count * source.bytes == from && last.to + 4 * last.count == to;
            if follows && last.source == source && last.scalar == scalar && last.field == field {
                last.count += 1;
                return Ok(());
            }
        }
        self.0.push(Run { from, to, count: 1, source, scalar, field: field.into() });
        Ok(())
    }

    /// Converts whole elements; `first` is the number of the first one, for messages.
    fn convert(&self, first: u64, from: &[u8], from_bytes: usize, to: &mut [u8], to_bytes: usize) -> Result<(), NpyError> {
        for (index, (from, to)) in from.chunks_exact(from_bytes).zip(to.chunks_exact_mut(to_bytes)).enumerate() {
            for run in &self.0 {
                let from = &from[run.from..run.from + run.count * run.source.bytes];
                let to = &mut to[run.to..run.to + 4 * run.count];
                if run.source.is_native(run.scalar) {
                    to.copy_from_slice(from);
                    continue;
                }
                for (from, to) in from.chunks_exact(run.source.bytes).zip(to.chunks_exact_mut(4)) {
                    let bits = run.source.convert(from, run.scalar).map_err(|value| NpyError::Value {
                        index: first + index as u64,
                        field: run.field.clone(),
                        value,
                        scalar: run.scalar,
                    })?;
                    to.copy_from_slice(&bits.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

fn is_padding(field: &npyz::Field) -> bool {
    let is_void = matches!(&field.dtype, DType::Plain(text) if text.type_char() == TypeChar::RawData);
    field.name.is_empty() && is_void
}

/// The entry of a sub-array of this many entries, and its bytes.
fn repeated(dtype: &DType, count: u32) -> Option<(&DType, usize)> {
    match dtype {
        DType::Array(given, inner) if *given == u64::from(count) => Some((inner, inner.num_bytes()?)),
        _ => None,
    }
}

/// Looks through the record of one field `value` that keeps an entry's padding, to its type and offset.
fn unwrapped(dtype: &DType) -> (&DType, usize) {
    let DType::Record(fields) = dtype else { return (dtype, 0) };
    let mut data = fields.iter().filter(|field| !is_padding(field));
    match (data.next(), data.next()) {
        (Some(value), None) if value.name == "value" => {
            let before = fields.iter().take_while(|field| !std::ptr::eq(*field, value));
            (&value.dtype, before.filter_map(|field| field.dtype.num_bytes()).sum())
        }
        _ => (dtype, 0),
    }
}

fn type_text(element: &Element) -> String {
    let (descr, shape, _) = field_descr(element);
    let shape: Vec<u64> = shape.iter().map(|&extent| u64::from(extent)).collect();
    if shape.is_empty() { descr } else { format!("({descr}, {})", shape_text(&shape)) }
}

fn dtype_text(dtype: &DType) -> String {
    let mut shape = Vec::new();
    let mut inner = dtype;
    while let DType::Array(count, next) = inner {
        shape.push(*count);
        inner = next;
    }
    let mut descr = inner.descr();
    if let Some((cut, _)) = descr.char_indices().nth(200) {
        descr.truncate(cut);
        descr.push_str("...");
    }
    if shape.is_empty() { descr } else { format!("({descr}, {})", shape_text(&shape)) }
}

/// Items in C order from items in Fortran order.
fn c_from_fortran(data: &[u8], shape: &[u64], item_bytes: usize) -> Vec<u8> {
    let shape: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
    let strides: Vec<usize> = shape.iter().scan(1, |step, &extent| Some(std::mem::replace(step, *step * extent))).collect();
    let mut out = Vec::with_capacity(data.len());
    let mut at = vec![0; shape.len()];
    for _ in 0..data.len() / item_bytes {
        let item: usize = at.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
        out.extend_from_slice(&data[item * item_bytes..(item + 1) * item_bytes]);
        for (index, extent) in at.iter_mut().zip(&shape).rev() {
            *index += 1;
            if *index < *extent {
                break;
            }
            *index = 0;
        }
    }
    out
}
