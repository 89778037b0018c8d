//! The second back half: a kernel as WebAssembly, four lanes at a time.
//!
//! The same bytes run in wasmtime and in a browser. Nothing in them traps: every address has been brought into
//! its memory, so the only ways out of `run` are its end and the stop flag.
//!
//! ```text
//! Kernel + Shapes ─ plan ─► segments ─ class ─► forms ─┬─ group: once per workgroup, scalars
//!                                                      └─ lanes: for every four lanes, scalars and v128; pairs: for eight
//!                                                              └─► one function ─ outline ─► and what repeats in it
//! ```
//!
//! The module imports one memory (`"m" "m"`) and exports `run(args: i32) -> i32`: 0 at the end, 1 if it
//! was stopped. `args` is the byte address of [`Arguments`].
//!
//! Invariant: lanes of a workgroup are counted in order, four at a time; what is observable is what `ops.rs`
//! says, whichever form runs.

mod bounds;
mod class;
mod code;
mod group;
mod lanes;
mod linear;
mod memory;
mod operators;
mod outline;
mod packs;
mod pairs;
mod piece;
mod plan;
#[cfg(all(test, feature = "jit"))]
mod tests;

use super::ir::Kernel;
use super::shape::Shapes;

/// Words of the argument block before the bindings.
pub const HEAD_WORDS: usize = 10;

/// Where a run finds what: the words at `args`.
///
/// ```text
/// 0 stop flag (byte address; not 0 there: leave)   1..4 workgroups along x y z   4..7 the first workgroup   7 how many
/// 8 scratch (byte address)   9 constants (byte address)   10.. per binding: byte address, words
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Arguments;

/// A kernel as WebAssembly.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The module.
    pub bytes: Vec<u8>,
    /// Bytes of scratch that each thread needs, at an address that 16 divides.
    pub scratch_bytes: u32,
    /// What lies at the address of its constants, which 16 divides.
    pub constants: Vec<u32>,
}

/// Why a kernel has no WebAssembly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// Not all lanes reach a barrier.
    #[error("a barrier is not reached by all invocations of a workgroup together")]
    Diverging,
    /// It is longer than WebAssembly engines take.
    #[error("a function of {bytes} bytes and {locals} locals is longer than WebAssembly engines take")]
    TooLong {
        /// Its locals.
        locals: usize,
        /// Bytes of its body.
        bytes: usize,
    },
}

/// Where a module runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// On threads that share its memory; one of them raises the stop flag.
    Threads,
    /// On one thread, in a memory that it does not share. It imports `"m" "late"`, a function without parameters, and leaves
    /// when that returns anything but 0; it is called now and then.
    Alone,
    /// On workers that share its memory, each of which asks its own `"m" "late"`.
    Workers,
}

impl Host {
    fn is_shared(self) -> bool {
        self != Host::Alone
    }

    fn is_asked(self) -> bool {
        self != Host::Threads
    }
}

/// Emits a kernel.
///
/// **Errors:** [`EmitError`].
pub fn emit(kernel: &Kernel, shapes: &Shapes, host: Host) -> Result<Emitted, EmitError> {
    let nodes = plan::plan(kernel, shapes)?;
    let uses = plan::uses(kernel, &nodes);
    let mut emitter = code::Emitter::new(kernel, shapes, uses, host);
    emitter.function(&nodes);
    emitter.module()
}
