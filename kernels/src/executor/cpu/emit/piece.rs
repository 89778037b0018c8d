//! A function of the module, until it is encoded.

use wasm_encoder::{Function, Instruction as I, ValType};

use super::EmitError;

/// A wasm local.
pub(super) type Local = u32;

/// A function in the making.
#[derive(Default)]
pub(super) struct Piece {
    /// Parameters first.
    pub(super) locals: Vec<ValType>,
    pub(super) parameters: usize,
    pub(super) results: Vec<ValType>,
    pub(super) code: Vec<I<'static>>,
    /// Where steps begin and end that follow each other, for every list of them that may be put in functions.
    pub(super) lists: Vec<Vec<usize>>,
}

/// Locals of a function, and its bytes, that every engine takes: <https://webassembly.github.io/spec/js-api/#limits>.
const LOCALS_MAX: usize = 50_000;
const BYTES_MAX: usize = 7_654_321;

impl Piece {
    /// The function, with the locals that it uses, those of a type together.
    ///
    /// **Errors:** it is longer than engines take.
    pub(super) fn function(&self) -> Result<Function, EmitError> {
        let mut is_used = vec![false; self.locals.len()];
        let used = self.code.iter().filter_map(|instruction| match *instruction {
            I::LocalGet(local) | I::LocalSet(local) | I::LocalTee(local) => Some(local as usize),
            _ => None,
        });
        used.for_each(|local| is_used[local] = true);
        let mut declared: Vec<usize> = (self.parameters..self.locals.len()).filter(|&local| is_used[local]).collect();
        declared.sort_by_key(|&local| order(self.locals[local]));
        let mut places: Vec<Local> = (0..self.locals.len() as Local).collect();
        declared.iter().enumerate().for_each(|(place, &local)| places[local] = (self.parameters + place) as Local);
        let mut function = Function::new_with_locals_types(declared.iter().map(|&local| self.locals[local]));
        for instruction in &self.code {
            match *instruction {
                I::LocalGet(local) => function.instruction(&I::LocalGet(places[local as usize])),
                I::LocalSet(local) => function.instruction(&I::LocalSet(places[local as usize])),
                I::LocalTee(local) => function.instruction(&I::LocalTee(places[local as usize])),
                ref other => function.instruction(other),
            };
        }
        if declared.len() > LOCALS_MAX || function.byte_len() > BYTES_MAX {
            return Err(EmitError::TooLong { locals: declared.len(), bytes: function.byte_len() });
        }
        Ok(function)
    }
}

/// The order in which locals are declared.
fn order(ty: ValType) -> u8 {
    match ty {
        ValType::I32 => 0,
        ValType::I64 => 1,
        ValType::F32 => 2,
        _ => 3,
    }
}
