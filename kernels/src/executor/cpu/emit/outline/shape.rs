//! What steps are but for their locals and constants.

use wasm_encoder::ValType;

use super::super::piece::Local;
use super::names::Name;

/// Instructions of steps that are looked at as a whole; of longer ones, what is in them is.
const STEP_MAX: usize = 1 << 10;

/// Numbers for locals, as they come.
#[derive(Default)]
pub(super) struct Numbers {
    /// Per local, its number, and since when it has it.
    of: Vec<(u32, u32)>,
    /// How often they have been given anew.
    turn: u32,
    given: u32,
}

impl Numbers {
    fn begin(&mut self) {
        (self.turn, self.given) = (self.turn + 1, 0);
    }

    fn number(&mut self, local: Local) -> u64 {
        let at = local as usize;
        if at >= self.of.len() {
            self.of.resize(at + 1, (0, 0));
        }
        let (number, turn) = &mut self.of[at];
        if *turn != self.turn {
            (*number, *turn) = (self.given, self.turn);
            self.given += 1;
        }
        (*number).into()
    }

    /// A hash of what steps are but for their locals, which are numbered as they come, and their constants; nothing if they lead out of
    /// themselves or are too many. Whether steps with the same one are the same is seen later.
    pub(super) fn shape(&mut self, names: &[Name]) -> Option<u64> {
        if names.len() > STEP_MAX {
            return None;
        }
        self.begin();
        let mut depth = 0u32;
        let mut hash = 0u64;
        for &name in names {
            let (kind, what) = match name {
                Name::Get(local) => (0, self.number(local)),
                Name::Set(local) => (1, self.number(local)),
                Name::Tee(local) => (2, self.number(local)),
                Name::Constant(ty, _) => (3, u64::from(ty == ValType::V128) << 1 | u64::from(ty == ValType::F32)),
                Name::Begin(what) => {
                    depth += 1;
                    (4, what.into())
                }
                Name::End => {
                    depth = depth.checked_sub(1)?;
                    (5, 0)
                }
                Name::Branch(out, is_on_condition) => {
                    if out >= depth {
                        return None;
                    }
                    (6 + u64::from(is_on_condition), out.into())
                }
                Name::Return => return None,
                Name::Other(what) => (8, what.into()),
            };
            hash = (hash.rotate_left(5) ^ (what << 4 | kind)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (depth == 0).then_some(hash)
    }
}
