//! Files of NumPy's own, files that must be refused, and every element both ways.

use super::describe::column_stride;
use super::*;
use crate::layout::{Element, ElementKind, Field};
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
    let mut body = record(&[("position", vector(Scalar::F32, 3)), ("mass", Element::scalar(Scalar::F32)), ("basis", matrix(2, 2)), ("age", u32s)]);
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
            proptest::collection::vec(inner, 1..5).prop_map(|fields| record(&["value", "b", "c", "d"].into_iter().zip(fields).collect::<Vec<_>>())),
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
