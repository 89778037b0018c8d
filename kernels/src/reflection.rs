//! What is known of a workload's kernels: layouts, bindings, and how each pass writes. The checks find it in the WGSL, a bundle carries it.
//!
//! ```text
//! manifest ─ check (naga) ─► Reflection ─┬─ Program::new          here, by who has the WGSL's front end
//!                                        └─ bundle, signed ─► Program::new   by who leaves the WGSL to its browser
//! ```
//!
//! Invariant: what [`Reflection::from_bytes`] returns has sound layouts, whoever wrote the bytes: nothing lies beyond its element, nothing nests deeper
//! than WGSL allows, and the same bytes come out again. Whether it fits a manifest is [`Reflection::check`]'s to say; whether it is true, that of
//! the checks alone.

use peercompute_buffers::layout::{Element, ElementKind, Field, Scalar};
use serde::{Deserialize, Serialize};

use crate::declaration::Extent;
use crate::manifest::{Manifest, Pass};
use crate::reflect::ELEMENT_BYTES_MAX;

/// How deep arrays and structs nest (WGSL 2.4, "Limits").
pub(crate) const NESTING_MAX: usize = 255;
/// The largest reflection, in bytes as a bundle carries it.
pub const REFLECTION_BYTES_MAX: usize = 1 << 20;
/// Bytes of all names of a reflection's elements and their parts, those of arrays included, which have what they are of in theirs.
const NAMES_BYTES_MAX: usize = 16 << 20;
/// The largest workgroup along an axis that naga lets through; what an adapter has is its executor's to hold against it.
const WORKGROUP_MAX: u32 = 1 << 14;

/// What a binding of a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The tile table.
    TileTable,
    /// The dispatch's own numbers.
    Dispatch,
    /// `struct Params`.
    Params,
    /// A buffer as of now.
    Current(usize),
    /// A buffer as it is being written.
    Next(usize),
}

/// One binding of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// `@binding(number)` in group 0.
    pub number: u32,
    /// What it is.
    pub role: Role,
    /// Whether the kernel declares it `read_write`.
    pub writable: bool,
}

/// How a pass writes a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Into the current copy: the kernel reads the buffer through `X_next` at most.
    InPlace,
    /// Into the other copy, which then is the current one.
    Swap {
        /// Whether the current content has to be copied first: the kernel does not store every element.
        copies: bool,
    },
    /// A share per workgroup, combined in a fixed order.
    Partials,
    /// Integer atomics into one share per peer.
    Atomics,
}

/// A pass' kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedPass {
    /// Invocations of a workgroup along x, y, z.
    pub workgroup: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// What it binds.
    pub bindings: Vec<Binding>,
    /// How it writes each of the pass' `writes`, in their order.
    pub writes: Vec<Write>,
    /// Whether its invocations know nothing of their workgroup: an executor may group them as it likes.
    pub is_free: bool,
    /// Whether its invocations know of their subgroups, which are an executor's own affair.
    pub uses_subgroups: bool,
}

/// What is known of a workload's kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reflection {
    /// Every buffer's element.
    pub elements: Vec<Element>,
    /// The layout of `struct Params`.
    pub params: Option<Element>,
    /// The passes, as in the manifest.
    pub passes: Vec<CheckedPass>,
}

impl Reflection {
    /// As a bundle carries it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let elements = self.elements.iter().map(nodes).collect();
        let carried = Carried { elements, params: self.params.as_ref().map(nodes), passes: self.passes.clone() };
        // Serialising plain values into memory has no way to fail.
        postcard::to_allocvec(&carried).unwrap_or_default()
    }

    /// From what a bundle carries.
    ///
    /// **Errors:** in words: it does not decode, is not in its only form, or a layout is not one that WGSL makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Reflection, String> {
        if bytes.len() > REFLECTION_BYTES_MAX {
            return Err(format!("it has {} bytes, at most {REFLECTION_BYTES_MAX} are read", bytes.len()));
        }
        let carried: Carried = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        let mut names = NAMES_BYTES_MAX;
        let mut element = |nodes| element(nodes, &mut names);
        let elements = carried.elements.into_iter().map(&mut element).collect::<Result<_, _>>()?;
        let reflection = Reflection { elements, params: carried.params.map(element).transpose()?, passes: carried.passes };
        if reflection.to_bytes() == bytes { Ok(reflection) } else { Err("it is not in canonical form".into()) }
    }

    /// Holds it against the manifest that it is said to be of, as far as can be told without the WGSL.
    ///
    /// **Errors:** in words.
    pub fn check(&self, manifest: &Manifest) -> Result<(), String> {
        if self.elements.len() != manifest.buffers.len() || self.passes.len() != manifest.passes.len() {
            return Err("it is of other buffers or passes".into());
        }
        let mut passes = manifest.passes.iter().zip(&self.passes);
        passes.try_for_each(|(pass, checked)| checked.check(manifest, pass).map_err(|cause| format!("`{}` {cause}", pass.entry)))
    }
}

impl CheckedPass {
    fn check(&self, manifest: &Manifest, pass: &Pass) -> Result<(), &'static str> {
        if self.workgroup.iter().any(|size| !(1..=WORKGROUP_MAX).contains(size)) {
            return Err("has a workgroup of no size that there is");
        }
        let is_table = |&buffer: &usize| matches!(manifest.buffers[buffer].extent, Extent::Table { .. });
        let fits = |(buffer, write): (&usize, &Write)| matches!(write, Write::Partials | Write::Atomics) == is_table(buffer);
        if self.writes.len() != pass.writes.len() || !pass.writes.iter().zip(&self.writes).all(fits) {
            return Err("writes its buffers in other ways than those that they have");
        }
        for (at, binding) in self.bindings.iter().enumerate() {
            let is_declared = match binding.role {
                Role::TileTable | Role::Dispatch => true,
                Role::Params => !manifest.params.is_empty(),
                // Of one that the pass does not read it may ask how long it is.
                Role::Current(buffer) => buffer < manifest.buffers.len(),
                Role::Next(buffer) => pass.writes.contains(&buffer),
            };
            let is_alone = self.bindings[..at].iter().all(|other| other.number != binding.number && other.role != binding.role);
            if !is_declared || !is_alone {
                return Err("binds what it does not declare, or something twice");
            }
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Carried {
    elements: Vec<Vec<Node>>,
    params: Option<Vec<Node>>,
    passes: Vec<CheckedPass>,
}

/// An element, or a part of one. Parts follow what they are of, depth first: a tree would be read by a recursion that the bytes decide the depth of.
#[derive(Serialize, Deserialize)]
enum Node {
    Scalar(Scalar),
    Vector(Scalar, u32),
    Matrix { columns: u32, rows: u32 },
    Array { count: u32 },
    Struct { name: String, size: u32, fields: Vec<(String, u32)> },
}

fn nodes(element: &Element) -> Vec<Node> {
    let mut nodes = Vec::new();
    add_nodes(element, &mut nodes);
    nodes
}

fn add_nodes(element: &Element, nodes: &mut Vec<Node>) {
    nodes.push(match &element.kind {
        ElementKind::Scalar(scalar) => Node::Scalar(*scalar),
        ElementKind::Vector(scalar, lanes) => Node::Vector(*scalar, *lanes),
        ElementKind::Matrix { columns, rows } => Node::Matrix { columns: *columns, rows: *rows },
        ElementKind::Array { count, .. } => Node::Array { count: *count },
        ElementKind::Struct(fields) => {
            let fields = fields.iter().map(|field| (field.name.clone(), field.offset)).collect();
            Node::Struct { name: element.name.clone(), size: element.size, fields }
        }
    });
    match &element.kind {
        ElementKind::Array { element, .. } => add_nodes(element, nodes),
        ElementKind::Struct(fields) => fields.iter().for_each(|field| add_nodes(&field.element, nodes)),
        _ => {}
    }
}

fn element(nodes: Vec<Node>, names: &mut usize) -> Result<Element, String> {
    let mut nodes = nodes.into_iter();
    let element = next_element(&mut nodes, names, 0)?;
    if nodes.next().is_some() { Err("a layout has parts that are of nothing".into()) } else { Ok(element) }
}

/// The element that begins with the next node; `names`: bytes that names may still have.
fn next_element(nodes: &mut std::vec::IntoIter<Node>, names: &mut usize, depth: usize) -> Result<Element, String> {
    if depth > NESTING_MAX {
        return Err("a layout nests deeper than WGSL's".into());
    }
    let element = match nodes.next().ok_or("a layout lacks a part")? {
        Node::Scalar(scalar) => Element::scalar(scalar),
        Node::Vector(scalar, lanes @ 2..=4) => Element::vector(scalar, lanes),
        Node::Matrix { columns: columns @ 2..=4, rows: rows @ 2..=4 } => Element::matrix(columns, rows),
        Node::Array { count: count @ 1..=ELEMENT_BYTES_MAX } => {
            let element = next_element(nodes, names, depth + 1)?;
            if element.stride.checked_mul(count).is_none_or(|bytes| bytes > ELEMENT_BYTES_MAX) {
                return Err(TOO_LARGE.into());
            }
            Element::array(element, count)
        }
        Node::Struct { name, size, fields } => {
            let mut end = 0;
            let field = |(name, offset): (String, u32)| {
                let element = next_element(nodes, names, depth + 1)?;
                let is_behind = offset >= end && offset.is_multiple_of(4) && offset <= ELEMENT_BYTES_MAX;
                end = offset.saturating_add(element.size);
                if is_behind { Ok(Field { name, offset, element }) } else { Err(format!("`{name}` lies where it cannot")) }
            };
            let fields = fields.into_iter().map(field).collect::<Result<Vec<_>, String>>()?;
            if size == 0 || end > size || !size.is_multiple_of(4) {
                return Err(format!("`{name}` is not as long as its fields"));
            }
            // WGSL rounds a struct's size up to its alignment, so that nothing lies between two.
            Element { name, size, stride: size, kind: ElementKind::Struct(fields) }
        }
        _ => return Err("a layout has a part of no length that there is".into()),
    };
    *names = names.checked_sub(element.name.len()).ok_or("the names of its layouts are too long")?;
    if element.stride > ELEMENT_BYTES_MAX { Err(TOO_LARGE.into()) } else { Ok(element) }
}

const TOO_LARGE: &str = "a layout is larger than any element";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str, stride: u32, fields: Vec<(&str, u32, Element)>) -> Element {
        let fields = fields.into_iter().map(|(name, offset, element)| Field { name: name.into(), offset, element }).collect();
        Element { name: name.into(), size: stride, stride, kind: ElementKind::Struct(fields) }
    }

    fn body() -> Element {
        let inner = named("Inner", 16, vec![("a", 0, Element::vector(Scalar::I32, 3)), ("b", 12, Element::scalar(Scalar::U32))]);
        let turned = Element::array(Element::matrix(3, 2), 2);
        named("Body", 112, vec![("at", 0, Element::vector(Scalar::F32, 2)), ("turned", 8, turned), ("inner", 64, Element::array(inner, 3))])
    }

    fn reflection() -> Reflection {
        let bindings = vec![
            Binding { number: 0, role: Role::TileTable, writable: false },
            Binding { number: 1, role: Role::Current(0), writable: false },
            Binding { number: 7, role: Role::Next(0), writable: true },
        ];
        let writes = vec![Write::Swap { copies: true }];
        let pass = CheckedPass { workgroup: [8, 8, 1], workgroup_bytes: 300, bindings, writes, is_free: true, uses_subgroups: false };
        Reflection { elements: vec![body(), Element::scalar(Scalar::F32)], params: Some(body()), passes: vec![pass] }
    }

    #[test]
    fn a_reflection_comes_back_from_its_bytes() {
        assert_eq!(Reflection::from_bytes(&reflection().to_bytes()), Ok(reflection()));
    }

    #[test]
    fn layouts_that_wgsl_does_not_make_are_refused() {
        let refusal = |element: Element| Reflection::from_bytes(&Reflection { elements: vec![element], ..reflection() }.to_bytes()).unwrap_err();
        let within = |depth: u32| (0..depth).fold(Element::scalar(Scalar::F32), |inner, _| named("S", 4, vec![("a", 0, inner)]));
        Reflection::from_bytes(&Reflection { elements: vec![within(255)], ..reflection() }.to_bytes()).unwrap();
        let scalar = || Element::scalar(Scalar::F32);
        for (element, words) in [
            (within(256), "nests deeper"),
            (Element::vector(Scalar::F32, 5), "of no length"),
            (Element::matrix(1, 4), "of no length"),
            (Element::array(scalar(), 0), "of no length"),
            (Element::array(scalar(), 16_385), "larger than any"),
            (named("S", 65_540, vec![("a", 0, scalar())]), "larger than any"),
            (named("S", 8, vec![("a", 0, scalar()), ("b", 8, scalar())]), "`S` is not as long"),
            (named("S", 8, vec![("a", 4, scalar()), ("b", 0, scalar())]), "`b` lies where it cannot"),
            (named("S", 8, vec![("a", 2, scalar())]), "`a` lies where it cannot"),
            (named("S", u32::MAX, vec![("a", u32::MAX - 3, scalar())]), "`a` lies where it cannot"),
            (named("S", 6, vec![("a", 0, scalar())]), "`S` is not as long"),
            (named("S", 0, Vec::new()), "`S` is not as long"),
            (Element::array(named("S", 0, Vec::new()), 3), "`S` is not as long"),
            (named(&"S".repeat(REFLECTION_BYTES_MAX), 4, vec![("a", 0, scalar())]), "at most 1048576 are read"),
            ((0..200).fold(named(&"S".repeat(100_000), 4, vec![("a", 0, scalar())]), |inner, _| Element::array(inner, 1)), "too long"),
        ] {
            let refusal = refusal(element);
            assert!(refusal.contains(words), "{refusal}");
        }
        for (nodes, words) in [
            (vec![Node::Scalar(Scalar::F32), Node::Array { count: 1 }], "parts that are of nothing"),
            (vec![Node::Array { count: 1 }], "lacks a part"),
            ((0..100_000).map(|_| Node::Array { count: 1 }).collect(), "nests deeper"),
        ] {
            let carried = Carried { elements: vec![nodes], params: None, passes: Vec::new() };
            let refusal = Reflection::from_bytes(&postcard::to_allocvec(&carried).unwrap()).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_a_sound_reflection_or_none(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = reflection().to_bytes();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(found) = Reflection::from_bytes(&bytes) {
                prop_assert_eq!(found.to_bytes(), bytes);
                found.elements.iter().chain(&found.params).for_each(|element| drop(element.data_words()));
            }
        }
    }
}
