//! How one element of a buffer lies in memory: scalars, vectors, matrices, arrays and structs with
//! their offsets, exactly as WGSL lays them out.
//!
//! The layout is always *derived*: from WGSL by reflection (the `kernels` layer), or from a Rust type
//! by [`element!`](crate::element). It exists so that the two can be compared field by field, so that
//! padding can be told from data when state is hashed, and so that NumPy can be told the same story.
//! Invariant: sizes and offsets are multiples of 4 bytes, since WGSL without f16 has no smaller type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A 32-bit scalar type of WGSL that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scalar {
    /// IEEE 754 binary32.
    F32,
    /// Two's complement, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
}

impl Scalar {
    /// The WGSL name.
    pub fn name(self) -> &'static str {
        match self {
            Scalar::F32 => "f32",
            Scalar::I32 => "i32",
            Scalar::U32 => "u32",
        }
    }
}

/// The shape of an element, without its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElementKind {
    /// One scalar.
    Scalar(Scalar),
    /// Two to four scalars side by side.
    Vector(Scalar, u32),
    /// Columns of f32 vectors; a column's stride is 8 or 16 bytes.
    Matrix {
        /// Number of columns.
        columns: u32,
        /// Number of rows.
        rows: u32,
    },
    /// A fixed number of equal elements.
    Array {
        /// What is repeated.
        element: Box<Element>,
        /// How often.
        count: u32,
        /// From one to the next, in bytes.
        stride: u32,
    },
    /// Named fields at offsets.
    Struct(Vec<Field>),
}

/// One field of a struct.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Bytes from the struct's start.
    pub offset: u32,
    /// The field's own layout.
    pub element: Element,
}

/// The layout of one element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// The WGSL name, `vec4<f32>` or `Body`.
    pub name: String,
    /// The size in bytes, without the padding that follows it in an array.
    pub size: u32,
    /// From one element to the next in an array, in bytes: what a slot is made of.
    pub stride: u32,
    /// What it is made of.
    pub kind: ElementKind,
}

impl Element {
    /// A lone scalar.
    pub fn scalar(scalar: Scalar) -> Element {
        Element { name: scalar.name().into(), size: 4, stride: 4, kind: ElementKind::Scalar(scalar) }
    }

    /// Two to four scalars.
    pub fn vector(scalar: Scalar, lanes: u32) -> Element {
        let stride = if lanes == 2 { 8 } else { 16 };
        Element { name: format!("vec{lanes}<{}>", scalar.name()), size: 4 * lanes, stride, kind: ElementKind::Vector(scalar, lanes) }
    }

    /// Two to four columns of as many f32.
    pub fn matrix(columns: u32, rows: u32) -> Element {
        let size = columns * Element::vector(Scalar::F32, rows).stride;
        Element { name: format!("mat{columns}x{rows}<f32>"), size, stride: size, kind: ElementKind::Matrix { columns, rows } }
    }

    /// Equal elements, one after the other.
    pub fn array(element: Element, count: u32) -> Element {
        let (stride, size) = (element.stride, element.stride * count);
        let name = format!("array<{}, {count}>", element.name);
        Element { name, size, stride: size, kind: ElementKind::Array { element: Box::new(element), count, stride } }
    }

    /// The stride in 32-bit words.
    pub fn words(&self) -> u32 {
        self.stride / 4
    }

    /// The scalar that every word of the element is, if there is only one kind and no padding
    /// but a vector's own.
    pub fn uniform_scalar(&self) -> Option<Scalar> {
        match self.kind {
            ElementKind::Scalar(scalar) | ElementKind::Vector(scalar, _) => Some(scalar),
            ElementKind::Matrix { .. } => Some(Scalar::F32),
            ElementKind::Array { ref element, .. } => element.uniform_scalar(),
            ElementKind::Struct(_) => None,
        }
    }

    /// For every word of the stride, whether it holds data (`true`) or padding.
    pub fn data_words(&self) -> Vec<bool> {
        let mut words = vec![false; self.words() as usize];
        mark_data(self, 0, &mut words);
        words
    }
}

fn mark_data(element: &Element, offset: u32, words: &mut [bool]) {
    match &element.kind {
        ElementKind::Scalar(_) => words[(offset / 4) as usize] = true,
        ElementKind::Vector(_, count) => {
            for lane in 0..*count {
                words[(offset / 4 + lane) as usize] = true;
            }
        }
        ElementKind::Matrix { columns, rows } => {
            let stride = if *rows == 2 { 2 } else { 4 };
            for column in 0..*columns {
                for row in 0..*rows {
                    words[(offset / 4 + column * stride + row) as usize] = true;
                }
            }
        }
        ElementKind::Array { element, count, stride } => {
            for index in 0..*count {
                mark_data(element, offset + index * stride, words);
            }
        }
        ElementKind::Struct(fields) => {
            for field in fields {
                mark_data(&field.element, offset + field.offset, words);
            }
        }
    }
}

/// A Rust type whose bytes are an element: name, size and fields as the compiler laid them out.
///
/// Implemented for the scalars, their arrays of 2 to 4, and by [`element!`](crate::element).
pub trait HostElement: bytemuck::Pod {
    /// The type's name in messages.
    const NAME: &'static str;
    /// `(field, offset, size)` in bytes; empty for scalars and vectors.
    const FIELDS: &'static [(&'static str, usize, usize)];
}

macro_rules! host_scalars {
    ($($t:ty),*) => {$(
        impl HostElement for $t { const NAME: &'static str = stringify!($t); const FIELDS: &'static [(&'static str, usize, usize)] = &[]; }
        impl HostElement for [$t; 2] { const NAME: &'static str = concat!("[", stringify!($t), "; 2]"); const FIELDS: &'static [(&'static str, usize, usize)] = &[]; }
        impl HostElement for [$t; 3] { const NAME: &'static str = concat!("[", stringify!($t), "; 3]"); const FIELDS: &'static [(&'static str, usize, usize)] = &[]; }
        impl HostElement for [$t; 4] { const NAME: &'static str = concat!("[", stringify!($t), "; 4]"); const FIELDS: &'static [(&'static str, usize, usize)] = &[]; }
    )*};
}
host_scalars!(f32, i32, u32);

/// Declares a `#[repr(C)]` struct whose bytes can be an element of a buffer, and records its layout
/// so that it can be compared with the WGSL struct of the same name.
///
/// ```
/// peercompute_buffers::element! {
///     /// A point mass.
///     pub struct Body { pub position: [f32; 3], pub mass: f32 }
/// }
/// assert_eq!(std::mem::size_of::<Body>(), 16);
/// ```
#[macro_export]
macro_rules! element {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $fvis:vis $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, $crate::bytemuck::Pod, $crate::bytemuck::Zeroable)]
        #[bytemuck(crate = "::peercompute_buffers::bytemuck")]
        $vis struct $name { $($(#[$fmeta])* $fvis $field: $ty),* }
        impl $crate::layout::HostElement for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [(&'static str, usize, usize)] =
                &[$((stringify!($field), ::std::mem::offset_of!($name, $field), ::std::mem::size_of::<$ty>())),*];
        }
    };
}

/// A Rust type and a WGSL type that do not lie in memory alike, field by field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LayoutMismatch {
    /// The Rust type.
    pub host: &'static str,
    /// The WGSL type.
    pub wgsl: String,
    /// Bytes of the Rust type, bytes from one WGSL element to the next.
    pub bytes: (usize, usize),
    /// One row per field of either.
    pub rows: Vec<LayoutRow>,
}

/// One row of a layout comparison: offsets and sizes in bytes, `None` where the field is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRow {
    /// The field's name.
    pub field: String,
    /// Offset and size in Rust.
    pub host: Option<(usize, usize)>,
    /// Offset and size in WGSL.
    pub wgsl: Option<(usize, usize)>,
    /// What to do about it; empty where the two agree.
    pub fix: String,
}

impl fmt::Display for LayoutMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |p: Option<(usize, usize)>| p.map_or("-".into(), |(o, s)| format!("{o}..{}", o + s));
        writeln!(
            f,
            "the Rust type `{}` ({} bytes) does not lie in memory as the WGSL type `{}` ({} bytes)",
            self.host, self.bytes.0, self.wgsl, self.bytes.1
        )?;
        writeln!(f, "  {:<16} {:>10} {:>10}  fix", "field", "rust", "wgsl")?;
        for row in &self.rows {
            writeln!(f, "  {:<16} {:>10} {:>10}  {}", row.field, place(row.host), place(row.wgsl), row.fix)?;
        }
        Ok(())
    }
}

/// Compares a Rust type with an element, field by field.
///
/// **Errors:** [`LayoutMismatch`], whose text is a table of fields, offsets and the padding to insert.
pub fn check_host<T: HostElement>(element: &Element) -> Result<(), LayoutMismatch> {
    let bytes = (std::mem::size_of::<T>(), element.stride as usize);
    let fields: &[Field] = match &element.kind {
        ElementKind::Struct(fields) => fields,
        _ => &[],
    };
    let mut rows = Vec::new();
    let mut agree = bytes.0 == bytes.1 && fields.is_empty() == T::FIELDS.is_empty();
    let mut host_end = 0;
    for field in fields {
        let wgsl = (field.offset as usize, field.element.size as usize);
        let host = T::FIELDS.iter().find(|f| f.0 == field.name).map(|f| (f.1, f.2));
        let fix = match host {
            None => format!("add `{}: {}`", field.name, host_type(&field.element)),
            Some((offset, _)) if offset < wgsl.0 => {
                format!("insert `_pad{}: [u32; {}]` before it", wgsl.0, (wgsl.0 - host_end.min(wgsl.0)) / 4)
            }
            Some((offset, _)) if offset > wgsl.0 => "starts too late: remove what stands before it".into(),
            Some((_, size)) if size < wgsl.1 => format!("use {}", host_type(&field.element)),
            Some((_, size)) if size > wgsl.1 + padding_after(fields, field, element.stride) => {
                format!("use {}", host_type(&field.element))
            }
            Some(_) => String::new(),
        };
        agree &= fix.is_empty();
        if let Some((offset, size)) = host {
            host_end = offset + size;
        }
        rows.push(LayoutRow { field: field.name.clone(), host, wgsl: Some(wgsl), fix });
    }
    for &(name, offset, size) in T::FIELDS {
        let known = fields.iter().any(|f| f.name == name);
        if !known && !name.starts_with("_pad") {
            agree = false;
            rows.push(LayoutRow { field: name.into(), host: Some((offset, size)), wgsl: None, fix: "not in the WGSL: remove".into() });
        }
    }
    let end = fields.iter().map(|f| (f.offset + f.element.size) as usize).max().unwrap_or(0);
    if bytes.0 < bytes.1 && end < bytes.1 && !fields.is_empty() {
        rows.push(LayoutRow {
            field: "(end)".into(),
            host: Some((bytes.0, 0)),
            wgsl: Some((bytes.1, 0)),
            fix: format!("append `_pad_end: [u32; {}]`", (bytes.1 - end) / 4),
        });
    }
    if agree { Ok(()) } else { Err(LayoutMismatch { host: T::NAME, wgsl: element.name.clone(), bytes, rows }) }
}

fn padding_after(fields: &[Field], field: &Field, stride: u32) -> usize {
    let end = field.offset + field.element.size;
    let next = fields.iter().map(|f| f.offset).filter(|&o| o >= end).min().unwrap_or(stride);
    (next - end) as usize
}

fn host_type(element: &Element) -> String {
    match &element.kind {
        ElementKind::Scalar(scalar) => scalar.name().into(),
        ElementKind::Vector(scalar, count) => format!("[{}; {count}]", scalar.name()),
        _ => format!("[u32; {}]", element.size / 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(mass_offset: u32, stride: u32) -> Element {
        let vec3 = Element { name: "vec3<f32>".into(), size: 12, stride: 16, kind: ElementKind::Vector(Scalar::F32, 3) };
        Element {
            name: "Body".into(),
            size: stride,
            stride,
            kind: ElementKind::Struct(vec![
                Field { name: "position".into(), offset: 0, element: vec3 },
                Field { name: "mass".into(), offset: mass_offset, element: Element::scalar(Scalar::F32) },
            ]),
        }
    }

    element! {
        struct Body { position: [f32; 3], mass: f32 }
    }

    #[test]
    fn a_matching_struct_is_accepted() {
        check_host::<Body>(&body(12, 16)).unwrap();
        check_host::<f32>(&Element::scalar(Scalar::F32)).unwrap();
    }

    #[test]
    fn a_shifted_field_is_named_with_its_padding() {
        let error = check_host::<Body>(&body(16, 32)).unwrap_err();
        insta::assert_snapshot!(error, @r"
        the Rust type `Body` (16 bytes) does not lie in memory as the WGSL type `Body` (32 bytes)
          field                  rust       wgsl  fix
          position              0..12      0..12  
          mass                 12..16     16..20  insert `_pad16: [u32; 1]` before it
          (end)                16..16     32..32  append `_pad_end: [u32; 3]`
        ");
    }

    #[test]
    fn padding_is_told_from_data() {
        assert_eq!(body(16, 32).data_words(), [true, true, true, false, true, false, false, false]);
    }
}
