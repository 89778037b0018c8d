//! Lossless deltas: a tile's new bytes relative to bytes that both sides hold, or to nothing.
//!
//! Words that did not change become zero under XOR and are taken out as runs; what is left is split
//! into byte planes, where exponents lie beside exponents and lz4 finds them. Compacting first is the
//! main gain: lz4 would walk through long zero runs far slower than a copy does (plan/formats/delta.md).
//!
//! ```text
//! Raw      the tile's bytes, whatever the base
//! Planes   runs_bytes varint | literals varint | section runs | section plane 0 … section plane 3
//!   section   stored varint | stored bytes: an lz4 block when fewer than the section has, else as they are
//!   runs      (zero words varint, literal words varint) … until the tile's words are covered
//!   plane p   byte p of each literal, in order; a literal is a little-endian word of `now XOR base`
//! varint   LEB128, at most 5 bytes
//! ```
//!
//! Invariant: decoding allocates at most a small multiple of the tile's bytes, reaches exactly the
//! tile's length or fails, and leaves `out` as it was when it fails.

/// How a payload holds a tile's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// The bytes themselves.
    Raw = 0,
    /// Zero runs and byte planes of the difference to the base.
    Planes = 1,
}

impl Encoding {
    /// The encoding of a number on the wire, if it is one.
    pub fn from_number(number: u8) -> Option<Encoding> {
        match number {
            0 => Some(Encoding::Raw),
            1 => Some(Encoding::Planes),
            _ => None,
        }
    }
}

/// Why a payload is not a tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A raw payload, or the words of a packed one, are not as many as the tile's.
    #[error("the payload holds {given} bytes, the tile has {expected}")]
    Length {
        /// Bytes the payload stands for.
        given: u64,
        /// The tile's bytes.
        expected: u64,
    },
    /// The base is not of the tile's length, or the tile is not made of words.
    #[error("a base of {given} bytes does not fit a tile of {expected}")]
    Base {
        /// The base's bytes.
        given: u64,
        /// The tile's bytes.
        expected: u64,
    },
    /// The payload ends early, or goes on after its end.
    #[error("the payload ends after {given} bytes, expected {expected}")]
    End {
        /// The payload's bytes.
        given: u64,
        /// Where it should have ended, as far as is known.
        expected: u64,
    },
    /// A number in the payload is larger than anything it could count.
    #[error("the payload counts {given} {what}, at most {limit} are possible")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The payload's number.
        given: u64,
        /// The largest possible.
        limit: u64,
    },
    /// A section is not the lz4 block that it should be.
    #[error("section {section} of the payload does not unpack to its {expected} bytes")]
    Section {
        /// 0 for the runs, then the planes.
        section: usize,
        /// Bytes it should have.
        expected: u64,
    },
    /// A run that covers nothing.
    #[error("the payload has an empty run at word {word}")]
    EmptyRun {
        /// The words covered before it.
        word: u64,
    },
}

const PLANES: usize = 4;
const VARINT_BYTES_MAX: usize = 5;

/// Appends the payload of `now` to `out`; [`Encoding::Raw`] when nothing shorter is found.
///
/// # Panics
/// When the base has another length than `now`.
pub fn encode(base: Option<&[u8]>, now: &[u8], out: &mut Vec<u8>) -> Encoding {
    assert!(base.is_none_or(|base| base.len() == now.len()), "a delta's base has the tile's length");
    let start = out.len();
    if now.len().is_multiple_of(4) && now.len() / 4 <= u32::MAX as usize {
        let (runs, planes) = split(base, now);
        push_varint(out, runs.len());
        push_varint(out, planes[0].len());
        for section in [&runs].into_iter().chain(&planes) {
            push_section(out, section);
            if out.len() - start >= now.len() {
                break;
            }
        }
        if out.len() - start < now.len() {
            return Encoding::Planes;
        }
        out.truncate(start);
    }
    out.extend_from_slice(now);
    Encoding::Raw
}

/// The runs and planes of the difference.
fn split(base: Option<&[u8]>, now: &[u8]) -> (Vec<u8>, [Vec<u8>; PLANES]) {
    let mut runs = Vec::new();
    let mut planes: [Vec<u8>; PLANES] = Default::default();
    let (mut zeros, mut literals) = (0, 0);
    for (index, word) in now.chunks_exact(4).enumerate() {
        let before = base.map_or([0; 4], |base| word_at(base, index));
        let difference = u32::from_le_bytes(word_at(word, 0)) ^ u32::from_le_bytes(before);
        if difference == 0 {
            if literals > 0 {
                push_varint(&mut runs, zeros);
                push_varint(&mut runs, literals);
                (zeros, literals) = (0, 0);
            }
            zeros += 1;
            continue;
        }
        literals += 1;
        for (plane, byte) in planes.iter_mut().zip(difference.to_le_bytes()) {
            plane.push(byte);
        }
    }
    if zeros + literals > 0 {
        push_varint(&mut runs, zeros);
        push_varint(&mut runs, literals);
    }
    (runs, planes)
}

fn word_at(bytes: &[u8], index: usize) -> [u8; 4] {
    [bytes[4 * index], bytes[4 * index + 1], bytes[4 * index + 2], bytes[4 * index + 3]]
}

fn push_varint(out: &mut Vec<u8>, value: usize) {
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_section(out: &mut Vec<u8>, section: &[u8]) {
    let packed = lz4_flex::block::compress(section);
    let stored = if packed.len() < section.len() { packed.as_slice() } else { section };
    push_varint(out, stored.len());
    out.extend_from_slice(stored);
}

/// Decodes a payload into a tile's bytes; `out` keeps its content when that fails.
///
/// **Limits:** allocates at most twice the tile's bytes, whatever the payload says.
///
/// **Errors:** [`DecodeError`]; the payload is not one that [`encode`] made against this base.
pub fn decode(encoding: Encoding, payload: &[u8], base: Option<&[u8]>, out: &mut [u8]) -> Result<(), DecodeError> {
    let expected = out.len() as u64;
    match encoding {
        Encoding::Raw if payload.len() == out.len() => {
            out.copy_from_slice(payload);
            Ok(())
        }
        Encoding::Raw => Err(DecodeError::Length { given: payload.len() as u64, expected }),
        Encoding::Planes => {
            let base_bytes = base.map_or(out.len(), <[u8]>::len);
            if base_bytes != out.len() || !out.len().is_multiple_of(4) {
                return Err(DecodeError::Base { given: base_bytes as u64, expected });
            }
            let parts = parts(payload, out.len() / 4)?;
            join(&parts, base, out);
            Ok(())
        }
    }
}

/// A packed payload, unpacked and checked.
struct Parts {
    runs: Vec<u8>,
    /// The planes one after another.
    literals: Vec<u8>,
}

fn parts(payload: &[u8], words: usize) -> Result<Parts, DecodeError> {
    let mut reader = Reader { payload, at: 0 };
    // A run that covers anything takes no more bytes than it covers words; only the first and the
    // last pair have a side that covers nothing.
    let runs_bytes = reader.count("bytes of runs", words as u64 + 2)?;
    let literals = reader.count("changed words", words as u64)?;
    let mut parts = Parts { runs: vec![0; runs_bytes], literals: vec![0; PLANES * literals] };
    reader.section(0, &mut parts.runs)?;
    for plane in 0..PLANES {
        reader.section(1 + plane, &mut parts.literals[plane * literals..(plane + 1) * literals])?;
    }
    if reader.at != payload.len() {
        return Err(DecodeError::End { given: payload.len() as u64, expected: reader.at as u64 });
    }
    check_runs(&parts.runs, literals, words)?;
    Ok(parts)
}

/// Checks that the runs cover all words and use all literals, so that [`join`] cannot fail.
fn check_runs(runs: &[u8], literals: usize, words: usize) -> Result<(), DecodeError> {
    let mut reader = Reader { payload: runs, at: 0 };
    let (mut covered, mut used) = (0u64, 0u64);
    while reader.at < runs.len() {
        let zeros = reader.count("unchanged words in a run", words as u64)? as u64;
        let changed = reader.count("changed words in a run", words as u64)? as u64;
        if zeros + changed == 0 {
            return Err(DecodeError::EmptyRun { word: covered });
        }
        covered += zeros + changed;
        used += changed;
    }
    if covered != words as u64 {
        return Err(DecodeError::Length { given: 4 * covered, expected: 4 * words as u64 });
    }
    if used != literals as u64 {
        return Err(DecodeError::Count { what: "changed words in runs", given: used, limit: literals as u64 });
    }
    Ok(())
}

fn join(parts: &Parts, base: Option<&[u8]>, out: &mut [u8]) {
    match base {
        Some(base) => out.copy_from_slice(base),
        None => out.fill(0),
    }
    let count = parts.literals.len() / PLANES;
    let mut reader = Reader { payload: &parts.runs, at: 0 };
    let (mut word, mut literal) = (0, 0);
    while let (Ok(zeros), Ok(changed)) = (reader.varint(), reader.varint()) {
        word += zeros as usize;
        for _ in 0..changed {
            for plane in 0..PLANES {
                out[4 * word + plane] ^= parts.literals[plane * count + literal];
            }
            word += 1;
            literal += 1;
        }
    }
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn end(&self, expected: usize) -> DecodeError {
        DecodeError::End { given: self.payload.len() as u64, expected: expected as u64 }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = *self.payload.get(self.at).ok_or_else(|| self.end(self.at + 1))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Count { what: "bytes in a number and more", given: VARINT_BYTES_MAX as u64, limit: VARINT_BYTES_MAX as u64 })
    }

    fn count(&mut self, what: &'static str, limit: u64) -> Result<usize, DecodeError> {
        let given = self.varint()?;
        if given > limit {
            return Err(DecodeError::Count { what, given, limit });
        }
        Ok(given as usize)
    }

    fn section(&mut self, section: usize, target: &mut [u8]) -> Result<(), DecodeError> {
        let stored = self.count("bytes of a section", target.len() as u64)?;
        let bytes = self.payload.get(self.at..self.at + stored).ok_or_else(|| self.end(self.at + stored))?;
        self.at += stored;
        if stored == target.len() {
            target.copy_from_slice(bytes);
            return Ok(());
        }
        match lz4_flex::block::decompress_into(bytes, target) {
            Ok(unpacked) if unpacked == target.len() => Ok(()),
            _ => Err(DecodeError::Section { section, expected: target.len() as u64 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn round_trip(base: Option<&[u8]>, now: &[u8]) -> (Encoding, usize) {
        let mut payload = vec![0xaa];
        let encoding = encode(base, now, &mut payload);
        let mut out = vec![0x55; now.len()];
        decode(encoding, &payload[1..], base, &mut out).unwrap();
        assert_eq!(out, now);
        assert!(payload.len() - 1 <= now.len());
        (encoding, payload.len() - 1)
    }

    #[test]
    fn what_changes_little_becomes_small() {
        let base = bytes((0..10_000).map(|i| (i as f32).sqrt().to_bits()));
        let mut now = base.clone();
        now[4_000..4_016].copy_from_slice(&bytes([1, 2, 3, 4]));
        assert_eq!(round_trip(Some(&base), &base), (Encoding::Planes, 10));
        assert!(round_trip(Some(&base), &now).1 < 40);
        assert!(round_trip(None, &vec![0; 40_000]).1 < 12);
        assert!(round_trip(None, &bytes(vec![0x3f80_0000; 10_000])).1 < 400);
        assert_eq!(round_trip(None, &[]), (Encoding::Raw, 0));
        // A vec3's padding costs nothing: every fourth word is the same.
        let vectors = bytes((0..4_000u32).map(|i| if i % 4 == 3 { 0 } else { i.wrapping_mul(2_654_435_761) }));
        assert!(round_trip(None, &vectors).1 < 12_200);
    }

    #[test]
    fn noise_stays_raw() {
        let noise = bytes((1..1_000u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(i % 32) ^ i.pow(2)));
        assert_eq!(round_trip(None, &noise).0, Encoding::Raw);
    }

    #[test]
    fn the_layout_is_the_one_that_is_drawn() {
        let base = bytes([7, 7, 7, 7, 7, 7, 7, 7]);
        let now = bytes([7, 7, 0x0403_0205, 7, 7, 7, 7, 7]);
        let mut payload = Vec::new();
        assert_eq!(encode(Some(&base), &now, &mut payload), Encoding::Planes);
        assert_eq!(payload, [4, 1, /* runs */ 4, 2, 1, 5, 0, /* planes */ 1, 2, 1, 2, 1, 3, 1, 4]);
    }

    #[test]
    fn wrong_payloads_are_told_apart() {
        let check = |payload: &[u8], words: usize, expected: DecodeError| {
            let mut out = vec![0x55; 4 * words];
            assert_eq!(decode(Encoding::Planes, payload, None, &mut out).unwrap_err(), expected);
            assert!(out.iter().all(|&byte| byte == 0x55), "out was touched");
        };
        let good = [4, 1, 4, 2, 1, 5, 0, 1, 2, 1, 2, 1, 3, 1, 4];
        check(&good, 9, DecodeError::Length { given: 32, expected: 36 });
        check(&good[..14], 8, DecodeError::End { given: 14, expected: 15 });
        check(&[good.as_slice(), &[0]].concat(), 8, DecodeError::End { given: 16, expected: 15 });
        check(&[0xff; 20], 8, DecodeError::Count { what: "bytes in a number and more", given: 5, limit: 5 });
        check(&[11, 1], 8, DecodeError::Count { what: "bytes of runs", given: 11, limit: 10 });
        check(&[4, 9], 8, DecodeError::Count { what: "changed words", given: 9, limit: 8 });
        check(&[4, 1, 5], 8, DecodeError::Count { what: "bytes of a section", given: 5, limit: 4 });
        check(&[4, 1, 3, 0, 0, 0], 8, DecodeError::Section { section: 0, expected: 4 });
        check(&[4, 0, 4, 0, 0, 8, 0, 0, 0, 0, 0], 8, DecodeError::EmptyRun { word: 0 });
        check(&[2, 0, 2, 7, 1, 0, 0, 0, 0], 8, DecodeError::Count { what: "changed words in runs", given: 1, limit: 0 });
        let mut out = [0; 8];
        assert_eq!(decode(Encoding::Raw, &[0; 7], None, &mut out), Err(DecodeError::Length { given: 7, expected: 8 }));
        assert_eq!(decode(Encoding::Planes, &[], Some(&[0; 4]), &mut out), Err(DecodeError::Base { given: 4, expected: 8 }));
    }

    /// A tile that differs from its base in the ways that fields do.
    fn tile() -> impl Strategy<Value = (Option<Vec<u8>>, Vec<u8>)> {
        let words = prop_oneof![Just(0usize), Just(1), 1usize..40, 200usize..600];
        (words, any::<u32>(), 0u32..5, any::<bool>()).prop_map(|(words, seed, kind, has_base)| {
            let mut state = u64::from(seed) | 1;
            let mut random = move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 32) as u32
            };
            let base: Vec<u32> = (0..words).map(|_| random()).collect();
            let now: Vec<u32> = base
                .iter()
                .enumerate()
                .map(|(index, &before)| match kind {
                    0 => random(),
                    1 => {
                        if random().is_multiple_of(20) {
                            random()
                        } else {
                            before
                        }
                    }
                    2 => seed,
                    3 => before.wrapping_add(random() & 0xff),
                    _ => (index as f32 * 0.01).sin().to_bits(),
                })
                .collect();
            (has_base.then(|| bytes(base)), bytes(now))
        })
    }

    proptest! {
        #[test]
        fn every_tile_survives((base, now) in tile()) {
            round_trip(base.as_deref(), &now);
        }

        #[test]
        fn random_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..80), words in 0usize..40) {
            let mut out = vec![0; 4 * words];
            if decode(Encoding::Raw, &payload, None, &mut out).is_ok() {
                prop_assert_eq!(payload.len(), out.len());
            }
            let _ = decode(Encoding::Planes, &payload, None, &mut out);
        }

        #[test]
        fn mutated_payloads_never_panic_nor_fit_another_length(
            (base, now) in tile(),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            words in 0usize..700,
        ) {
            let mut payload = Vec::new();
            let encoding = encode(base.as_deref(), &now, &mut payload);
            let mut out = vec![0x55; 4 * words];
            let base_of_another = vec![0; 4 * words];
            if 4 * words != now.len() {
                prop_assert!(decode(encoding, &payload, Some(&base_of_another), &mut out).is_err());
                prop_assert!(out.iter().all(|&byte| byte == 0x55));
            }
            for (at, byte) in edits {
                if !payload.is_empty() {
                    let at = at.index(payload.len());
                    payload[at] = byte;
                }
            }
            let mut out = vec![0x55; now.len()];
            if decode(encoding, &payload, base.as_deref(), &mut out).is_err() {
                prop_assert!(out.iter().all(|&byte| byte == 0x55));
            }
        }
    }
}
