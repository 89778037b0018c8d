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

use std::io::{self, Read, Write};

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use crate::layout::{Element, ElementKind, Field, Scalar};

/// The longest header that is read when our own would be short, in bytes; else four times our own.
const HEADER_BYTES_MAX: usize = 1 << 13;
/// How deep a header's brackets may nest when our own nest less: enough to name a struct in a message.
const HEADER_DEPTH_MAX: usize = 6;
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

/// The array's shape: the grid's axes, slowest first, then the element's own outside of structs.
fn file_shape(grid_shape: &[u32], element: &Element) -> Vec<u64> {
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

/// The `descr` of the array: that of a scalar or struct, whatever vectors and arrays stand around it.
fn leaf_descr(element: &Element) -> String {
    match &element.kind {
        ElementKind::Scalar(scalar) | ElementKind::Vector(scalar, _) => format!("'{}'", scalar_descr(*scalar)),
        ElementKind::Matrix { .. } => format!("'{}'", scalar_descr(Scalar::F32)),
        ElementKind::Array { element, .. } => leaf_descr(element),
        ElementKind::Struct(fields) => record_descr(fields, element.stride),
    }
}

fn scalar_descr(scalar: Scalar) -> &'static str {
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
fn field_descr(element: &Element) -> (String, Vec<u32>, u32) {
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

fn column_stride(rows: u32) -> u32 {
    if rows == 2 { 8 } else { 16 }
}

/// Everything before the data, 64-byte aligned as NumPy's own.
///
/// ```text
/// 93 'NUMPY' | major u8, minor u8 | header length u16 (1.0) or u32 (2.0, 3.0: UTF-8) | dict, spaces, newline
/// ```
fn header_bytes(shape: &[u64], descr: &str) -> Vec<u8> {
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

/// Reads and parses a header, leaving `input` at the data; `own` is the one we would write.
fn read_header(input: &mut impl Read, own: &[u8]) -> Result<NpyHeader, NpyError> {
    let bytes_max = HEADER_BYTES_MAX.max(4 * own.len());
    let header = |reason: &str| NpyError::Header { reason: reason.into() };
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => header("it ends within the header"),
        _ => NpyError::Io(error),
    };
    let mut bytes = vec![0; 8];
    input.read_exact(&mut bytes).map_err(ended)?;
    if &bytes[..6] != b"\x93NUMPY" {
        return Err(header("it does not begin with \\x93NUMPY"));
    }
    let length_bytes = match (bytes[6], bytes[7]) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        (major, minor) => return Err(header(&format!("version {major}.{minor} is not known"))),
    };
    let mut length = [0; 4];
    input.read_exact(&mut length[..length_bytes]).map_err(ended)?;
    bytes.extend(&length[..length_bytes]);
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(NpyError::HeaderTooLong { given: length as u64, max: bytes_max as u64 });
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    input.read_exact(&mut bytes[start..]).map_err(ended)?;
    look_through(&bytes[start..], HEADER_DEPTH_MAX.max(depth(own)))?;
    NpyHeader::from_reader(bytes.as_slice()).map_err(|error| header(&error.to_string()))
}

/// How deep a header's brackets nest.
fn depth(header: &[u8]) -> usize {
    let mut open = 0usize;
    let depths = header.iter().map(|byte| {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open
    });
    depths.max().unwrap_or(0)
}

/// Refuses header texts that the parser must not see: it recurses with the depth of brackets, tries
/// lists twice at every level, and multiplies a shape's extents without looking.
fn look_through(text: &[u8], depth_max: usize) -> Result<(), NpyError> {
    let header = |reason: String| Err(NpyError::Header { reason });
    let mut products: Vec<u64> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        at += match rest[0] {
            b' ' | b',' | b':' | b'\n' => 1,
            b'(' | b'[' | b'{' => {
                products.push(1);
                1
            }
            b')' | b']' | b'}' => {
                products.pop();
                1
            }
            quote @ (b'\'' | b'"') => {
                let mut end = 1;
                while rest.get(end).is_some_and(|&byte| byte != quote) {
                    end += if rest[end] == b'\\' { 2 } else { 1 };
                }
                end + 1
            }
            b'0'..=b'9' => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse::<u64>().ok());
                let product = products.last().copied().unwrap_or(1);
                match number.and_then(|number| product.checked_mul(number.max(1))) {
                    Some(product) => products.last_mut().map_or((), |last| *last = product),
                    None => return header("a shape has more points than can be counted".into()),
                }
                digits
            }
            _ if rest.starts_with(b"True") => 4,
            _ if rest.starts_with(b"False") => 5,
            byte => return header(format!("unexpected `{}` in the header", byte.escape_ascii())),
        };
        if products.len() > depth_max {
            return header(format!("the header nests deeper than {depth_max} brackets"));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 1 << 20;

    fn vector(scalar: Scalar, lanes: u32) -> Element {
        let stride = if lanes == 2 { 8 } else { 16 };
        Element { name: format!("vec{lanes}<{}>", scalar.name()), size: 4 * lanes, stride, kind: ElementKind::Vector(scalar, lanes) }
    }

    fn matrix(columns: u32, rows: u32) -> Element {
        let size = columns * column_stride(rows);
        Element { name: format!("mat{columns}x{rows}<f32>"), size, stride: size, kind: ElementKind::Matrix { columns, rows } }
    }

    fn array(element: Element, count: u32) -> Element {
        let stride = element.stride;
        let kind = ElementKind::Array { element: Box::new(element), count, stride };
        Element { name: "array".into(), size: stride * count, stride: stride * count, kind }
    }

    fn align(element: &Element) -> u32 {
        match &element.kind {
            ElementKind::Scalar(_) => 4,
            ElementKind::Vector(_, 2) => 8,
            ElementKind::Vector(..) => 16,
            ElementKind::Matrix { rows, .. } => column_stride(*rows),
            ElementKind::Array { element, .. } => align(element),
            ElementKind::Struct(fields) => fields.iter().map(|field| align(&field.element)).max().unwrap_or(4),
        }
    }

    /// Lies as WGSL lays it out.
    fn record(fields: &[(&str, Element)]) -> Element {
        let mut end = 0u32;
        let mut placed = Vec::new();
        for (name, element) in fields {
            let offset = end.next_multiple_of(align(element));
            end = offset + element.size;
            placed.push(Field { name: (*name).into(), offset, element: element.clone() });
        }
        let mut element = Element { name: "Record".into(), size: 0, stride: 0, kind: ElementKind::Struct(placed) };
        element.size = end.next_multiple_of(align(&element));
        element.stride = element.size;
        element
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// What NumPy 2.4 wrote: the header's text, the length of all that precedes the data, the data.
    fn numpy(header: &str, start: usize, data: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(((start - 10) as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.resize(start - 1, b' ');
        bytes.push(b'\n');
        bytes.extend(hex(data));
        bytes
    }

    fn plain(descr: &str, shape: &str, data: &str) -> Vec<u8> {
        numpy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"), 128, data)
    }

    fn fortran(descr: &str, shape: &str, data: &str) -> Vec<u8> {
        numpy(&format!("{{'descr': '{descr}', 'fortran_order': True, 'shape': {shape}, }}"), 128, data)
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        words(bytes).into_iter().map(f32::from_bits).collect()
    }

    fn read_words(file: &[u8], shape: &[u32], scalar: Scalar) -> Vec<u32> {
        words(&read(&mut &*file, shape, &Element::scalar(scalar), LIMIT).unwrap())
    }

    fn refusal(file: &[u8], shape: &[u32], element: &Element) -> String {
        read(&mut &*file, shape, element, LIMIT).unwrap_err().to_string()
    }

    fn body() -> Element {
        let u32s = Element::scalar(Scalar::U32);
        let mut body =
            record(&[("position", vector(Scalar::F32, 3)), ("mass", Element::scalar(Scalar::F32)), ("basis", matrix(2, 2)), ("age", u32s)]);
        // As with `@align(16) mass`: a gap between two fields.
        let ElementKind::Struct(fields) = &mut body.kind else { unreachable!() };
        for (field, offset) in fields.iter_mut().zip([0, 16, 24, 40]) {
            field.offset = offset;
        }
        body.size = 48;
        body.stride = 48;
        body
    }

    const BODY: &str = "{'descr': [('position', '<f4', (3,)), ('', '|V4'), ('mass', '<f4'), ('', '|V4'), ('basis', '<f4', (2, 2)), \
        ('age', '<u4'), ('', '|V4')], 'fortran_order': False, 'shape': (2,), }";
    const BODY_DATA: &str = "0000803f0000004000004040000000000000e04000000000000000000000803f00000040000040400900000000000000\
        000080400000a0400000c040000000000000004100000000000080400000a0400000c0400000e0400a00000000000000";

    #[test]
    fn what_numpy_wrote_is_read_and_written_again() {
        let check = |file: Vec<u8>, shape: &[u32], element: &Element| {
            let bytes = read(&mut &*file, shape, element, LIMIT).unwrap();
            let mut again = Vec::new();
            write(&mut again, shape, element, &bytes).unwrap();
            assert_eq!(again, file);
            bytes
        };
        let data = "000000000000803f0000004000004040000080400000b040";
        let field = check(plain("<f4", "(2, 3)", data), &[3, 2], &Element::scalar(Scalar::F32));
        assert_eq!(floats(&field), [0.0, 1.0, 2.0, 3.0, 4.0, 5.5]);
        // The same bytes as two vec3: their padding is dropped in the file and zero in memory.
        let vectors = check(plain("<f4", "(2, 3)", data), &[2], &vector(Scalar::F32, 3));
        assert_eq!(floats(&vectors), [0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 5.5, 0.0]);
        check(numpy(BODY, 256, BODY_DATA), &[2], &body());
        let link = record(&[("to", Element::scalar(Scalar::U32)), ("weight", Element::scalar(Scalar::F32))]);
        let nested = record(&[("columns", matrix(2, 3)), ("links", array(link, 2))]);
        let header = "{'descr': [('columns', [('value', '<f4', (3,)), ('', '|V4')], (2,)), ('links', [('to', '<u4'), ('weight', '<f4')], (2,))], \
            'fortran_order': False, 'shape': (1,), }";
        let data = "000000000000803f000000400000000000004040000080400000a0400000000006000000000000410700000000001041";
        check(numpy(header, 256, data), &[1], &nested);
    }

    #[test]
    fn other_orders_and_widths_are_converted() {
        assert_eq!(read_words(&plain(">u4", "(3,)", "0000000100000002ffffffff"), &[3], Scalar::U32), [1, 2, u32::MAX]);
        let ints = read_words(&fortran("<i4", "(2, 3)", "feffffff01000000ffffffff020000000000000003000000"), &[3, 2], Scalar::I32);
        assert_eq!(ints, [-2, -1, 0, 1, 2, 3].map(|value: i32| value as u32));
        let data = "000000000000c04000004040000010410000803f0000e040000080400000204100000040000000410000a04000003041";
        let vectors = read(&mut &*fortran("<f4", "(2, 2, 3)", data), &[2, 2], &vector(Scalar::F32, 3), LIMIT).unwrap();
        assert_eq!(floats(&vectors), [0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 5.0, 0.0, 6.0, 7.0, 8.0, 0.0, 9.0, 10.0, 11.0, 0.0]);
        let data = "0000000000000000000000000000f03f00000000000000c09a9999999999b93f9c577727266ca137000000000000f07f000000000000f0ff";
        let doubles = read_words(&plain("<f8", "(7,)", data), &[7], Scalar::F32);
        assert_eq!(doubles, [0.0, 1.0, -2.0, 0.1, 1e-40, f32::INFINITY, f32::NEG_INFINITY].map(f32::to_bits));
        let halves = read_words(&plain("<f2", "(5,)", "003e00c00100ff7b007c"), &[5], Scalar::F32);
        assert_eq!(halves, [1.5, -2.0, 5.9604645e-8, 65504.0, f32::INFINITY].map(f32::to_bits));
        for scalar in [Scalar::U32, Scalar::I32] {
            assert_eq!(read_words(&plain("|b1", "(3,)", "010001"), &[3], scalar), [1, 0, 1]);
            assert_eq!(read_words(&plain(">i8", "(2,)", "00000000000000030000000000000004"), &[2], scalar), [3, 4]);
            assert_eq!(read_words(&plain("<f2", "(1,)", "0042"), &[1], scalar), [3]);
        }
        assert_eq!(read_words(&plain("|i1", "(2,)", "807f"), &[2], Scalar::I32), [-128i32 as u32, 127]);
        assert_eq!(read_words(&plain("|i1", "(2,)", "807f"), &[2], Scalar::F32), [(-128f32).to_bits(), 127f32.to_bits()]);
    }

    #[test]
    fn a_struct_is_matched_by_name() {
        let header = "{'descr': [('age', '>i8'), ('mass', '<f8'), ('basis', '<f4', (2, 2)), ('position', '<f2', (3,))], \
            'fortran_order': False, 'shape': (2,), }";
        let data = "00000000000000090000000000001c40000000000000803f0000004000004040003c00400042\
            000000000000000a0000000000002040000080400000a0400000c0400000e040004400450046";
        let bytes = read(&mut &*numpy(header, 192, data), &[2], &body(), LIMIT).unwrap();
        assert_eq!(bytes, hex(BODY_DATA));
    }

    #[test]
    fn a_wrong_file_is_refused_with_what_was_expected_and_found() {
        let f32s = Element::scalar(Scalar::F32);
        let u32s = Element::scalar(Scalar::U32);
        let file = plain("<f4", "(2, 3)", "000000000000803f0000004000004040000080400000b040");
        assert_eq!(refusal(&file, &[2, 3], &f32s), "expected an array of shape (3, 2), found (2, 3): axes are (z, y, x), then those of the element");
        assert_eq!(refusal(&file, &[3, 2], &u32s), "element 5 is 5.5, which does not fit u32");
        assert_eq!(refusal(&file[..150], &[3, 2], &f32s), "the file ends after 0 of 24 data bytes");
        assert_eq!(refusal(&plain("<i8", "(1,)", "0000000000010000"), &[1], &u32s), "element 0 is 1099511627776, which does not fit u32");
        assert_eq!(refusal(&plain("|i1", "(2,)", "807f"), &[2], &u32s), "element 0 is -128, which does not fit u32");
        assert_eq!(refusal(&plain("<u4", "(1,)", "ffffffff"), &[1], &f32s), "element 0 is 4294967295, which does not fit f32");
        assert_eq!(refusal(&plain("<f8", "(1,)", "ffffffffffffef7f"), &[1], &f32s), "element 0 is 1.7976931348623157e308, which does not fit f32");
        assert_eq!(refusal(&plain("<f4", "(1,)", "0000c07f"), &[1], &u32s), "element 0 is NaN, which does not fit u32");
        let complex = plain("<c16", "(1,)", "000000000000f03f0000000000000040");
        assert_eq!(refusal(&complex, &[1], &f32s), "expected '<f4' or a type that converts to it, found '<c16'");
        assert_eq!(refusal(b"PK\x03\x04 and so on", &[1], &f32s), "not a .npy file: it does not begin with \\x93NUMPY");
        assert_eq!(refusal(b"\x93NUM", &[1], &f32s), "not a .npy file: it ends within the header");
        assert_eq!(refusal(b"\x93NUMPY\x09\x00aaaa", &[1], &f32s), "not a .npy file: version 9.0 is not known");
        let long = b"\x93NUMPY\x02\x00\xff\xff\xff\xff";
        assert_eq!(refusal(long, &[1], &f32s), "the .npy header has 4294967295 bytes, at most 8192 are read");
        let limited = read(&mut &*plain("<f4", "(8,)", ""), &[8], &f32s, 31).unwrap_err();
        assert!(matches!(limited, NpyError::TooLarge { bytes: 32, limit: 31 }));
    }

    #[test]
    fn a_struct_that_differs_is_refused_by_field() {
        let check = |from: &str, to: &str, message: &str| {
            assert_ne!(BODY.replace(from, to), BODY);
            assert_eq!(refusal(&numpy(&BODY.replace(from, to), 256, BODY_DATA), &[2], &body()), message);
        };
        check("'mass'", "'weight'", "the file has a field `weight`, which the element does not have: remove or rename it");
        check("('mass', '<f4')", "('', '|V4')", "the file lacks the field `mass` ('<f4')");
        check("'<f4', (2, 2)", "'<f4', (4,)", "field `basis`: expected ('<f4', (2, 2)), found ('<f4', (4,))");
        check("('age', '<u4')", "('age', '|S4')", "field `age`: expected '<u4' or a type that converts to it, found '|S4'");
        check("('age', '<u4')", "('age', '<f2'), ('', '|V2')", "field `age`: element 0 is 5.364418029785156e-7, which does not fit u32");
    }

    #[test]
    fn headers_that_would_hurt_the_parser_are_refused() {
        let check = |header: &str, message: &str| {
            let refusal = refusal(&numpy(header, 8_192, ""), &[1], &Element::scalar(Scalar::F32));
            assert!(refusal.starts_with(&format!("not a .npy file: {message}")), "{refusal}");
        };
        check(&"[".repeat(8_000), "the header nests deeper than 6 brackets");
        check("{'shape': (4294967296, 4294967296, 4), }", "a shape has more points than can be counted");
        check("{'shape': (99999999999999999999, ), }", "a shape has more points than can be counted");
        check("__import__('os')", "unexpected `_` in the header");
        check("{'shape': (1,), 'fortran_order': False, }", "dict is missing key 'descr'");
        check("{'descr': '<q4', 'shape': (1,), 'fortran_order': False, }", "invalid type string: Invalid type-string");
        check("{'descr': '<f4', 'shape': (1,)", "could not parse");
        let objects = plain("|O", "(1,)", "00000000");
        assert_eq!(refusal(&objects, &[1], &Element::scalar(Scalar::F32)), "expected '<f4', found '|O'");
    }

    #[test]
    fn a_buffer_of_another_length_is_not_written() {
        let error = write(&mut Vec::new(), &[2, 2], &Element::scalar(Scalar::F32), &[0; 12]).unwrap_err();
        assert_eq!(error.to_string(), "a buffer of this shape has 16 bytes, 12 were given");
    }

    fn element() -> impl Strategy<Value = Element> {
        let scalar = prop_oneof![Just(Scalar::F32), Just(Scalar::I32), Just(Scalar::U32)];
        let leaf = prop_oneof![
            scalar.clone().prop_map(Element::scalar),
            (scalar, 2u32..5).prop_map(|(scalar, lanes)| vector(scalar, lanes)),
            (2u32..5, 2u32..5).prop_map(|(columns, rows)| matrix(columns, rows)),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                (inner.clone(), 1u32..4).prop_map(|(inner, count)| array(inner, count)),
                proptest::collection::vec(inner, 1..5)
                    .prop_map(|fields| record(&["value", "b", "c", "d"].into_iter().zip(fields).collect::<Vec<_>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_buffer_survives_the_round_trip(
            element in element(),
            shape in proptest::collection::vec(1u32..5, 1..4),
            seed in any::<u32>(),
        ) {
            let points = shape.iter().product::<u32>();
            let data = element.data_words();
            let mut bytes = Vec::new();
            let mut garbage = Vec::new();
            for word in 0..points * element.words() {
                let value = (word + 1).wrapping_mul(seed | 1);
                let is_data = data[(word % element.words()) as usize];
                bytes.extend((if is_data { value } else { 0 }).to_le_bytes());
                garbage.extend(value.to_le_bytes());
            }
            let mut file = Vec::new();
            let mut again = Vec::new();
            write(&mut file, &shape, &element, &bytes).unwrap();
            write(&mut again, &shape, &element, &garbage).unwrap();
            prop_assert_eq!(&file, &again, "padding leaks");
            prop_assert_eq!(read(&mut &*file, &shape, &element, LIMIT).unwrap(), bytes);
        }

        #[test]
        fn mutated_files_are_refused_or_read_but_never_panic(
            element in element(),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let mut file = Vec::new();
            write(&mut file, &[3, 2], &element, &vec![1; 6 * element.stride as usize]).unwrap();
            for (at, byte) in edits {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(file.len()));
            }
            if let Ok(bytes) = read(&mut &*file, &[3, 2], &element, LIMIT) {
                prop_assert_eq!(bytes.len(), 6 * element.stride as usize);
            }
        }
    }
}
