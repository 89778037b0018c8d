//! Element layouts from naga's types, and values into their bytes.
//!
//! naga's own layouter says where everything lies; nothing is computed a second time here. The names
//! are WGSL's canonical ones, `vec4<f32>`, so that a declaration can be compared with them.

use naga::proc::Layouter;
use naga::{ArraySize, Handle, Module, ScalarKind, Type, TypeInner};
use peercompute_buffers::layout::{Element, ElementKind, Field, Scalar};

use crate::diagnose::ErrorKind;

/// Why a type cannot be an element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be stored in a buffer: use f32, i32, u32, vectors, matrices, arrays and structs of them")]
pub struct NotAnElement(pub String);

/// The largest element, in bytes: what a uniform binding may have everywhere.
pub const ELEMENT_BYTES_MAX: u32 = 64 << 10;

/// Holds an element's size against [`ELEMENT_BYTES_MAX`].
///
/// **Errors:** [`ErrorKind::Limit`].
pub fn check_size(name: &str, element: &Element) -> Result<(), ErrorKind> {
    if element.stride <= ELEMENT_BYTES_MAX {
        return Ok(());
    }
    Err(ErrorKind::Limit {
        what: format!("an element of `{name}` has {} bytes", element.stride),
        needed: element.stride.into(),
        limit_name: "the largest element".into(),
        limit: ELEMENT_BYTES_MAX.into(),
    })
}

/// The WGSL name of a type.
pub fn type_name(module: &Module, ty: Handle<Type>) -> String {
    let scalar = |s: &naga::Scalar| match (s.kind, s.width) {
        (ScalarKind::Float, 4) => "f32",
        (ScalarKind::Float, 2) => "f16",
        (ScalarKind::Sint, 4) => "i32",
        (ScalarKind::Uint, 4) => "u32",
        (ScalarKind::Bool, _) => "bool",
        _ => "a 64-bit scalar",
    };
    match &module.types[ty].inner {
        TypeInner::Scalar(s) => scalar(s).into(),
        // An atomic lies in memory as its scalar.
        TypeInner::Atomic(s) => scalar(s).into(),
        TypeInner::Vector { size, scalar: s } => format!("vec{}<{}>", *size as u8, scalar(s)),
        TypeInner::Matrix { columns, rows, scalar: s } => format!("mat{}x{}<{}>", *columns as u8, *rows as u8, scalar(s)),
        TypeInner::Array { base, size: ArraySize::Constant(count), .. } => format!("array<{}, {count}>", type_name(module, *base)),
        TypeInner::Array { base, .. } => format!("array<{}>", type_name(module, *base)),
        _ => module.types[ty].name.clone().unwrap_or_else(|| "this type".into()),
    }
}

/// The layout of a type.
///
/// **Errors:** [`NotAnElement`] for bool, f16, 64-bit and opaque types.
pub fn element(module: &Module, layouter: &Layouter, ty: Handle<Type>) -> Result<Element, NotAnElement> {
    let name = type_name(module, ty);
    let fail = || NotAnElement(type_name(module, ty));
    let stored = |s: &naga::Scalar| match (s.kind, s.width) {
        (ScalarKind::Float, 4) => Ok(Scalar::F32),
        (ScalarKind::Sint, 4) => Ok(Scalar::I32),
        (ScalarKind::Uint, 4) => Ok(Scalar::U32),
        _ => Err(fail()),
    };
    let layout = layouter[ty];
    let kind = match &module.types[ty].inner {
        TypeInner::Scalar(s) | TypeInner::Atomic(s) => {
            let scalar = stored(s)?;
            return Ok(Element::scalar(scalar));
        }
        TypeInner::Vector { size, scalar } => ElementKind::Vector(stored(scalar)?, *size as u32),
        TypeInner::Matrix { columns, rows, scalar } => {
            stored(scalar)?;
            ElementKind::Matrix { columns: *columns as u32, rows: *rows as u32 }
        }
        TypeInner::Array { base, size: ArraySize::Constant(count), stride } => {
            ElementKind::Array { element: Box::new(element(module, layouter, *base)?), count: count.get(), stride: *stride }
        }
        TypeInner::Struct { members, .. } => {
            let fields = members.iter().map(|member| {
                Ok(Field { name: member.name.clone().unwrap_or_default(), offset: member.offset, element: element(module, layouter, member.ty)? })
            });
            ElementKind::Struct(fields.collect::<Result<_, NotAnElement>>()?)
        }
        _ => return Err(fail()),
    };
    Ok(Element { name, size: layout.size, stride: layout.to_stride(), kind })
}

/// `vec4f` and `vec4 < f32 >` as `vec4<f32>`: how a declared element is compared with a reflected one.
pub fn canonical_name(declared: &str) -> String {
    let plain = declared.chars().filter(|c| !c.is_whitespace()).collect::<String>().replace(',', ", ");
    let plain = plain.strip_prefix("atomic<").and_then(|rest| rest.strip_suffix('>')).unwrap_or(&plain).to_string();
    let short = plain.len() >= 5 && (plain.starts_with("vec") || plain.starts_with("mat")) && !plain.contains('<');
    let scalar = match plain.as_bytes().last() {
        Some(b'f') => "f32",
        Some(b'i') => "i32",
        Some(b'u') => "u32",
        _ => return plain,
    };
    if short && plain.as_bytes()[3].is_ascii_digit() { format!("{}<{scalar}>", &plain[..plain.len() - 1]) } else { plain }
}

/// Why a value does not fit an element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value is of another kind.
    #[error("`{path}` is a {wanted}, not `{given}`")]
    Kind {
        /// The field.
        path: String,
        /// The WGSL type.
        wanted: String,
        /// The value.
        given: String,
    },
    /// A list has the wrong length.
    #[error("`{path}` is a {wanted} and takes {expected} values, not {given}")]
    Length {
        /// The field.
        path: String,
        /// The WGSL type.
        wanted: String,
        /// How many it takes.
        expected: usize,
        /// How many were given.
        given: usize,
    },
    /// A field has no value.
    #[error("`{path}` has no value")]
    Missing {
        /// The field.
        path: String,
    },
    /// A value has no field.
    #[error("`struct {of}` has no field `{name}`")]
    NoField {
        /// The struct.
        of: String,
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

/// Writes a TOML value into an element's bytes.
///
/// **Errors:** [`ValueError`]: the value's kind, length or fields do not fit.
pub fn write_value(element: &Element, path: &str, value: &toml::Value, bytes: &mut [u8]) -> Result<(), ValueError> {
    let list = |expected: usize| match value.as_array() {
        Some(items) if items.len() == expected => Ok(items),
        Some(items) => Err(ValueError::Length { path: path.into(), wanted: element.name.clone(), expected, given: items.len() }),
        None => Err(ValueError::Kind { path: path.into(), wanted: element.name.clone(), given: value.to_string() }),
    };
    match &element.kind {
        ElementKind::Scalar(scalar) => {
            let word = scalar_bytes(*scalar, value).ok_or_else(|| ValueError::Kind {
                path: path.into(),
                wanted: element.name.clone(),
                given: value.to_string(),
            })?;
            bytes[..4].copy_from_slice(&word);
        }
        ElementKind::Vector(scalar, count) => {
            let lane = Element::scalar(*scalar);
            for (index, item) in list(*count as usize)?.iter().enumerate() {
                write_value(&lane, &format!("{path}[{index}]"), item, &mut bytes[index * 4..])?;
            }
        }
        ElementKind::Matrix { columns, rows } => {
            let column = Element::vector(Scalar::F32, *rows);
            for (index, item) in list(*columns as usize)?.iter().enumerate() {
                write_value(&column, &format!("{path}[{index}]"), item, &mut bytes[index * column.stride as usize..])?;
            }
        }
        ElementKind::Array { element: inner, count, stride } => {
            for (index, item) in list(*count as usize)?.iter().enumerate() {
                write_value(inner, &format!("{path}[{index}]"), item, &mut bytes[index * *stride as usize..])?;
            }
        }
        ElementKind::Struct(fields) => {
            let table =
                value.as_table().ok_or_else(|| ValueError::Kind { path: path.into(), wanted: element.name.clone(), given: value.to_string() })?;
            let known: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
            if let Some(name) = table.keys().find(|name| !known.contains(name)) {
                return Err(ValueError::NoField { of: element.name.clone(), name: name.clone(), known });
            }
            for field in fields {
                let inner = format!("{path}.{}", field.name);
                let item = table.get(&field.name).ok_or(ValueError::Missing { path: inner.clone() })?;
                write_value(&field.element, &inner, item, &mut bytes[field.offset as usize..])?;
            }
        }
    }
    Ok(())
}

/// The four bytes of a scalar value: numbers must fit. What is no finite f32 is none that WGSL promises to compute with.
fn scalar_bytes(scalar: Scalar, value: &toml::Value) -> Option<[u8; 4]> {
    match (scalar, value) {
        (Scalar::F32, toml::Value::Float(v)) => Some(*v as f32).filter(|v| v.is_finite()).map(f32::to_le_bytes),
        (Scalar::F32, toml::Value::Integer(v)) => Some((*v as f32).to_le_bytes()),
        (Scalar::U32, toml::Value::Integer(v)) => u32::try_from(*v).ok().map(u32::to_le_bytes),
        (Scalar::I32, toml::Value::Integer(v)) => i32::try_from(*v).ok().map(i32::to_le_bytes),
        (Scalar::U32, toml::Value::Boolean(v)) => Some(u32::from(*v).to_le_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_names_are_compared_in_one_spelling() {
        for (given, expected) in [
            ("vec4f", "vec4<f32>"),
            ("vec3 < u32 >", "vec3<u32>"),
            ("mat2x2f", "mat2x2<f32>"),
            ("atomic<u32>", "u32"),
            ("array< f32,4 >", "array<f32, 4>"),
            ("Body", "Body"),
            ("f32", "f32"),
            ("vecf", "vecf"),
        ] {
            assert_eq!(canonical_name(given), expected);
        }
    }

    #[test]
    fn layouts_are_nagas_own() {
        let source = "struct Inner { a: vec3<f32>, b: f32, c: array<vec2<u32>, 3> } struct S { m: mat3x3<f32>, i: Inner, k: i32 }
            @group(0) @binding(0) var<storage, read> s: array<S>; @compute @workgroup_size(1) fn main() { _ = s[0].k; }";
        let module = naga::front::wgsl::parse_str(source).unwrap();
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let (handle, _) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("S")).unwrap();
        let s = element(&module, &layouter, handle).unwrap();
        let ElementKind::Struct(fields) = &s.kind else { panic!() };
        assert_eq!((s.stride, fields[1].offset, fields[2].offset), (112, 48, 96));
        assert_eq!(fields[0].element, Element::matrix(3, 3));
        let ElementKind::Struct(inner) = &fields[1].element.kind else { panic!() };
        assert_eq!(inner[2].element, Element::array(Element::vector(Scalar::U32, 2), 3));
        let mut bytes = vec![0; 112];
        let value: toml::Table = "m = [[1,2,3],[4,5,6],[7,8,9]]\nk = -1\ni = { a = [1,2,3], b = 4, c = [[1,2],[3,4],[5,6]] }".parse().unwrap();
        write_value(&s, "params", &toml::Value::Table(value), &mut bytes).unwrap();
        assert_eq!(bytes[96..100], (-1i32).to_le_bytes());
        assert_eq!(bytes[16..20], 4f32.to_le_bytes());
        assert_eq!(bytes[60..64], 4f32.to_le_bytes());
        assert_eq!(bytes[72..76], 3u32.to_le_bytes());
        assert_eq!(s.data_words().iter().filter(|d| **d).count(), 9 + 3 + 1 + 6 + 1);
    }
}
