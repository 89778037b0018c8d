//! Headers of files from anywhere, bounded and looked through before they are parsed.

use std::io::{self, Read};

use npyz::NpyHeader;

use super::NpyError;

/// The longest header that is read when our own would be short, in bytes; else four times our own.
const HEADER_BYTES_MAX: usize = 1 << 13;

/// How deep a header's brackets may nest when our own nest less: enough to name a struct in a message.
const HEADER_DEPTH_MAX: usize = 6;

/// Reads and parses a header, leaving `input` at the data; `own` is the one we would write.
pub(super) fn read_header(input: &mut impl Read, own: &[u8]) -> Result<NpyHeader, NpyError> {
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
