//! Instructions by what they are: numbers in place of what takes time to compare.

use rustc_hash::FxHashMap;
use wasm_encoder::{Encode, Instruction as I, ValType};

use super::super::piece::{Local, Piece};
use super::shape::Numbers;

/// An instruction as far as repeats are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// Reads, writes, or writes and leaves a local.
    Get(Local),
    Set(Local),
    Tee(Local),
    /// A constant, by its type and its number.
    Constant(ValType, u32),
    /// A block begins, with what it is.
    Begin(u32),
    End,
    /// Goes as many blocks out, on a condition or not.
    Branch(u32, bool),
    /// Leaves the function.
    Return,
    /// Anything else, by its number.
    Other(u32),
}

/// The local of an instruction that has one.
pub(super) fn local(name: Name) -> Option<Local> {
    match name {
        Name::Get(local) | Name::Set(local) | Name::Tee(local) => Some(local),
        _ => None,
    }
}

/// A piece with the names of its instructions.
pub(super) struct Named {
    pub(super) piece: Piece,
    pub(super) names: Vec<Name>,
    /// What each step of the piece's lists is.
    pub(super) shapes: Vec<Vec<Option<u64>>>,
    /// Per local, how often it is read.
    pub(super) gets: Vec<u32>,
}

impl Named {
    /// Counts anew what is read.
    pub(super) fn count(&mut self) {
        self.gets = vec![0; self.piece.locals.len()];
        for name in &self.names {
            if let Name::Get(local) = name {
                self.gets[*local as usize] += 1;
            }
        }
    }
}

/// Numbers for instructions, for constants, and for locals.
#[derive(Default)]
pub(super) struct Names {
    others: FxHashMap<Vec<u8>, u32>,
    constants: FxHashMap<(ValType, u128), u32>,
    bytes: Vec<u8>,
    pub(super) numbers: Numbers,
}

impl Names {
    pub(super) fn named(&mut self, piece: Piece) -> Named {
        let names: Vec<Name> = piece.code.iter().map(|instruction| self.name(instruction)).collect();
        let mut shape = |ends: &[usize]| self.numbers.shape(&names[ends[0]..ends[1]]);
        let shapes = piece.lists.iter().map(|list| list.windows(2).map(&mut shape).collect()).collect();
        let mut named = Named { piece, names, shapes, gets: Vec::new() };
        named.count();
        named
    }

    pub(super) fn name(&mut self, instruction: &I<'static>) -> Name {
        match *instruction {
            I::LocalGet(local) => Name::Get(local),
            I::LocalSet(local) => Name::Set(local),
            I::LocalTee(local) => Name::Tee(local),
            I::I32Const(value) => self.constant(ValType::I32, value as u32 as u128),
            I::I64Const(value) => self.constant(ValType::I64, value as u64 as u128),
            I::F32Const(value) => self.constant(ValType::F32, value.bits().into()),
            I::V128Const(value) => self.constant(ValType::V128, value as u128),
            I::Block(_) | I::Loop(_) | I::If(_) => Name::Begin(self.other(instruction)),
            I::End => Name::End,
            I::Br(out) => Name::Branch(out, false),
            I::BrIf(out) => Name::Branch(out, true),
            I::Return => Name::Return,
            _ => Name::Other(self.other(instruction)),
        }
    }

    fn constant(&mut self, ty: ValType, bits: u128) -> Name {
        let next = self.constants.len() as u32;
        Name::Constant(ty, *self.constants.entry((ty, bits)).or_insert(next))
    }

    fn other(&mut self, instruction: &I<'static>) -> u32 {
        self.bytes.clear();
        instruction.encode(&mut self.bytes);
        if let Some(&number) = self.others.get(&self.bytes) {
            return number;
        }
        let next = self.others.len() as u32;
        self.others.insert(self.bytes.clone(), next);
        next
    }
}
