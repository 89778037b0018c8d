//! Types taken apart: the scalars of a type in order, each with its place in memory.

use std::borrow::Cow;

use naga::{ArraySize, Handle, ScalarKind, Type, TypeInner, VectorSize};

use super::super::ir::Scalar;
use super::{LowerError, Lowering};

/// The most scalars that a value may have; larger ones stay in memory.
const LEAVES_MAX: usize = 1 << 14;

/// A scalar of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Its place in memory, in words from the type's first.
    pub(super) offset: u32,
    /// What it is.
    pub(super) scalar: Scalar,
}

/// Words that hold so many bytes.
pub(super) fn word_count(bytes: u32) -> u32 {
    bytes.div_ceil(4)
}

/// Words from one column of a matrix to the next.
pub(super) fn column_words(rows: VectorSize) -> u32 {
    if rows == VectorSize::Bi { 2 } else { 4 }
}

impl<'a> Lowering<'a> {
    /// The scalars of a type.
    pub(super) fn leaves(&self, ty: Handle<Type>) -> Result<Vec<Leaf>, LowerError> {
        self.leaves_of(&self.module.types[ty].inner)
    }

    /// The scalars of a type.
    pub(super) fn leaves_of(&self, inner: &TypeInner) -> Result<Vec<Leaf>, LowerError> {
        let mut leaves = Vec::new();
        self.add_leaves(inner, 0, &mut leaves)?;
        Ok(leaves)
    }

    fn add_leaves(&self, inner: &TypeInner, offset: u32, leaves: &mut Vec<Leaf>) -> Result<(), LowerError> {
        match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => leaves.push(Leaf { offset, scalar: self.scalar_of(scalar)? }),
            TypeInner::Vector { size, scalar } => {
                let scalar = self.scalar_of(scalar)?;
                leaves.extend((0..size as u32).map(|at| Leaf { offset: offset + at, scalar }));
            }
            TypeInner::Matrix { columns, rows, scalar } => {
                let scalar = self.scalar_of(scalar)?;
                for column in 0..columns as u32 {
                    leaves.extend((0..rows as u32).map(|row| Leaf { offset: offset + column * column_words(rows) + row, scalar }));
                }
            }
            TypeInner::Array { base, size: ArraySize::Constant(count), stride } => {
                let first = leaves.len();
                self.add_leaves(&self.module.types[base].inner, offset, leaves)?;
                let element: Vec<Leaf> = leaves[first..].to_vec();
                let total = first + element.len() * count.get() as usize;
                if total > LEAVES_MAX {
                    return Err(self.too_large("the number of scalars of a value", total as u64, LEAVES_MAX as u64, None));
                }
                let stride = self.stride_words(base, stride);
                for at in 1..count.get() {
                    leaves.extend(element.iter().map(|leaf| Leaf { offset: leaf.offset + at * stride, ..*leaf }));
                }
            }
            TypeInner::Struct { ref members, .. } => {
                for (at, member) in members.iter().enumerate() {
                    self.add_leaves(&self.module.types[member.ty].inner, offset + self.member_word(members, at), leaves)?;
                }
            }
            ref other => return Err(self.uncovered(&format!("a value of type {other:?}"), None)),
        }
        Ok(())
    }

    /// Whether there is a Bool in a type. Such a type is never shared with the host, and naga lays it out in bytes: here
    /// its parts follow each other, a word for a Bool.
    fn has_bool(&self, ty: Handle<Type>) -> bool {
        match self.module.types[ty].inner {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => scalar.kind == ScalarKind::Bool,
            TypeInner::Array { base, .. } => self.has_bool(base),
            TypeInner::Struct { ref members, .. } => members.iter().any(|member| self.has_bool(member.ty)),
            _ => false,
        }
    }

    /// Words of a type in memory; of a runtime array, none.
    pub(super) fn words(&self, ty: Handle<Type>) -> u32 {
        match self.module.types[ty].inner {
            _ if !self.has_bool(ty) => word_count(self.layouter[ty].size),
            TypeInner::Scalar(_) => 1,
            TypeInner::Vector { size, .. } => size as u32,
            TypeInner::Array { base, size: ArraySize::Constant(count), .. } => self.words(base).saturating_mul(count.get()),
            TypeInner::Struct { ref members, .. } => members.iter().map(|member| self.words(member.ty)).fold(0, u32::saturating_add),
            _ => 0,
        }
    }

    /// Words from one element of an array to the next; `stride` is naga's, in bytes.
    pub(super) fn stride_words(&self, base: Handle<Type>, stride: u32) -> u32 {
        if self.has_bool(base) { self.words(base) } else { stride / 4 }
    }

    /// The first word of a struct's member.
    pub(super) fn member_word(&self, members: &[naga::StructMember], at: usize) -> u32 {
        if members.iter().any(|member| self.has_bool(member.ty)) {
            return members[..at].iter().map(|member| self.words(member.ty)).fold(0, u32::saturating_add);
        }
        members[at].offset / 4
    }

    /// How many scalars a type has.
    pub(super) fn leaf_count(&self, inner: &TypeInner) -> Result<usize, LowerError> {
        Ok(match *inner {
            TypeInner::Scalar(_) | TypeInner::Atomic(_) => 1,
            TypeInner::Vector { size, .. } => size as usize,
            TypeInner::Matrix { columns, rows, .. } => columns as usize * rows as usize,
            ref other => self.leaves_of(other)?.len(),
        })
    }

    /// Which scalars of a composite belong to its `index`-th part.
    pub(super) fn part(&self, inner: &TypeInner, index: u32) -> Result<std::ops::Range<usize>, LowerError> {
        let index = index as usize;
        Ok(match *inner {
            TypeInner::Vector { .. } => index..index + 1,
            TypeInner::Matrix { rows, .. } => index * rows as usize..(index + 1) * rows as usize,
            TypeInner::Array { base, .. } => {
                let count = self.leaf_count(&self.module.types[base].inner)?;
                index * count..(index + 1) * count
            }
            TypeInner::Struct { ref members, .. } => {
                let mut first = 0;
                for member in &members[..index] {
                    first += self.leaf_count(&self.module.types[member.ty].inner)?;
                }
                first..first + self.leaf_count(&self.module.types[members[index].ty].inner)?
            }
            ref other => return Err(self.uncovered(&format!("a part of {other:?}"), None)),
        })
    }

    /// A scalar of ours.
    pub(super) fn scalar_of(&self, scalar: naga::Scalar) -> Result<Scalar, LowerError> {
        match (scalar.kind, scalar.width) {
            (ScalarKind::Bool, _) => Ok(Scalar::Bool),
            (ScalarKind::Sint, 4) => Ok(Scalar::I32),
            (ScalarKind::Uint, 4) => Ok(Scalar::U32),
            (ScalarKind::Float, 4) => Ok(Scalar::F32),
            (ScalarKind::Float, 2) => Err(self.uncovered("f16", None)),
            (kind, width) => Err(self.uncovered(&format!("{kind:?} of {width} bytes"), None)),
        }
    }

    /// What a pointer points to.
    pub(super) fn pointee<'t>(&'t self, inner: &'t TypeInner) -> Cow<'t, TypeInner> {
        match *inner {
            TypeInner::Pointer { base, .. } => Cow::Borrowed(&self.module.types[base].inner),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => Cow::Owned(TypeInner::Vector { size, scalar }),
            TypeInner::ValuePointer { size: None, scalar, .. } => Cow::Owned(TypeInner::Scalar(scalar)),
            ref other => Cow::Borrowed(other),
        }
    }
}
