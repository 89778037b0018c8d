//! Emitted kernels as machine code, by whatever compiles WebAssembly here.
//!
//! ```text
//! Kernel ─ emit ─► Draft ─ host: wasmtime, or the browser ─► Code     kept, for all runs
//! Code + a run's Words ─► Thread                 an instance for each thread and run, over the run's memory
//! ```
//!
//! The words of a run lie in the instances' one linear memory: its buffers, and behind them a stop word, a scratch for
//! every thread, and for every kernel on every thread its arguments and constants. Invariant: an instance that was
//! stopped can run again; nothing of it outlives the workgroup.

#[cfg(all(feature = "jit", not(target_arch = "wasm32")))]
#[path = "wasmtime.rs"]
pub(super) mod host;
#[cfg(target_arch = "wasm32")]
#[path = "browser.rs"]
pub(super) mod host;
#[cfg(not(any(feature = "jit", target_arch = "wasm32")))]
#[path = "nowhere.rs"]
pub(super) mod host;
#[cfg(target_arch = "wasm32")]
pub mod team;

use std::ops::Range;
use std::sync::Arc;

use super::emit::{self, EmitError, HEAD_WORDS};
use super::ir::Kernel;
use super::shape;
use super::words::{Span, Words};

/// Why a kernel has no machine code: there is no compiler here, or it refused what we emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// The compiler.
pub struct Machine {
    engine: host::Engine,
}

/// A kernel as WebAssembly, to be compiled.
pub struct Draft {
    bytes: Vec<u8>,
    needs: Needs,
}

/// A kernel as machine code.
pub struct Code {
    module: host::Module,
    needs: Needs,
}

/// What a kernel's threads need of a run's memory.
#[derive(Clone, Debug)]
pub struct Needs {
    scratch_bytes: u32,
    constants: Arc<[u32]>,
    bindings: usize,
}

/// A kernel on one thread of one run.
pub struct Thread {
    instance: host::Instance,
    /// The words of its arguments, by number.
    arguments: usize,
    bindings: usize,
}

/// Why a dispatch did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The stop word was set.
    Stopped,
    /// The machine trapped: a fault of ours, told rather than hidden.
    Trapped(String),
}

impl Machine {
    /// What compiles, for people.
    pub const NAME: &str = host::NAME;

    /// The compiler of this machine.
    ///
    /// Where threads share dispatches out, `threads` are wanted.
    ///
    /// **Errors:** there is none for it.
    pub fn new(threads: usize) -> Result<Machine, MachineError> {
        host::Engine::new(threads).map(|engine| Machine { engine }).map_err(MachineError)
    }

    /// Writes a kernel down for the compiler, which takes longer by far than this.
    ///
    /// **Errors:** it has no WebAssembly.
    pub fn draft(&self, kernel: &Kernel) -> Result<Draft, EmitError> {
        let emitted = emit::emit(kernel, &shape::shapes(kernel), self.engine.host())?;
        let needs = Needs { scratch_bytes: emitted.scratch_bytes, constants: emitted.constants.into(), bindings: kernel.bindings.len() };
        Ok(Draft { bytes: emitted.bytes, needs })
    }

    /// Compiles a kernel.
    ///
    /// **Errors:** the compiler refuses what we emitted.
    pub fn compile(&self, draft: Draft) -> Result<Code, MachineError> {
        let module = self.engine.module(&draft.bytes).map_err(MachineError)?;
        Ok(Code { module, needs: draft.needs })
    }

    /// Zeroed words that instances can use; nothing if there is no memory for them.
    pub fn words(&self, words: usize) -> Option<Words> {
        self.engine.words(words)
    }
}

impl Draft {
    /// How long it is: what takes the compiler time.
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// What its threads will need.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }
}

impl Needs {
    /// Words that a thread needs in the run's memory for this kernel alone.
    pub fn own_words(&self) -> usize {
        self.head_words() + self.constants.len().next_multiple_of(16)
    }

    /// Words that a thread needs while it runs this kernel; kernels that run one after the other can share them.
    pub fn scratch_words(&self) -> usize {
        (self.scratch_bytes as usize / 4).next_multiple_of(16)
    }

    fn head_words(&self) -> usize {
        (HEAD_WORDS + 2 * self.bindings).next_multiple_of(16)
    }
}

impl Code {
    /// What an instance is made of.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn module(&self) -> &host::Module {
        &self.module
    }

    /// An instance over a run's words, with [`Needs::own_words`] from `own` on and [`Needs::scratch_words`] from `scratch`
    /// on, both multiples of 16. It leaves a dispatch when the word at `stop` is not 0.
    ///
    /// **Errors:** the words are not of this machine.
    pub fn thread(&self, machine: &Machine, words: &Words, [own, scratch, stop]: [usize; 3]) -> Result<Thread, MachineError> {
        let instance = machine.engine.instance(&self.module, words).map_err(MachineError)?;
        let constants = own + self.needs.head_words();
        words.write(constants, bytemuck::cast_slice(&self.needs.constants));
        words.write(own, bytemuck::bytes_of(&words.address(stop)));
        words.write(own + 8, bytemuck::cast_slice(&[words.address(scratch), words.address(constants)]));
        Ok(Thread { instance, arguments: own, bindings: self.needs.bindings })
    }
}

impl Thread {
    /// The address of its arguments.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn place(&self, words: &Words) -> u32 {
        words.address(self.arguments)
    }

    /// Runs workgroups `range` of a dispatch of `groups`, numbered x first.
    ///
    /// **Errors:** [`Interrupted`]. **Panics** where the spans are not the kernel's.
    pub fn run(&mut self, words: &Words, bindings: &[Span], groups: [u32; 3], range: Range<u64>) -> Result<(), Interrupted> {
        assert_eq!(bindings.len(), self.bindings, "a span for each binding");
        let (x, y) = (u64::from(groups[0]), u64::from(groups[1]));
        let mut first = range.start;
        while first < range.end {
            let count = (range.end - first).min(u64::from(u32::MAX)) as u32;
            let place = [first % x, first / x % y, first / (x * y)].map(|axis| axis as u32);
            words.write(self.arguments + 1, bytemuck::cast_slice(&groups));
            words.write(self.arguments + 4, bytemuck::cast_slice(&place));
            words.write(self.arguments + 7, bytemuck::bytes_of(&count));
            for (at, span) in bindings.iter().enumerate() {
                words.write(self.arguments + HEAD_WORDS + 2 * at, bytemuck::cast_slice(&[words.address(span.first as usize), span.words]));
            }
            match self.instance.call(words.address(self.arguments)) {
                Ok(0) => first += u64::from(count),
                Ok(_) => return Err(Interrupted::Stopped),
                Err(cause) => return Err(Interrupted::Trapped(cause)),
            }
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "jit"))]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::{self, choices, random_kernel};
    use super::*;

    /// Runs a kernel on fresh words; what its bindings hold then.
    fn run(machine: &Machine, kernel: &Kernel, bindings: &[Vec<u32>], groups: [u32; 3], range: Range<u64>) -> Vec<Vec<u32>> {
        let draft = machine.draft(kernel).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
        let needs = draft.needs().clone();
        let code = machine.compile(draft).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
        let mut spans = Vec::new();
        let mut first = 0;
        for binding in bindings {
            spans.push(Span { first: first as u32, words: binding.len() as u32 });
            first += binding.len().next_multiple_of(16);
        }
        let own = first + 16;
        let scratch = own + needs.own_words();
        let words = machine.words(scratch + needs.scratch_words()).expect("memory");
        for (binding, span) in bindings.iter().zip(&spans) {
            words.write(span.first as usize, bytemuck::cast_slice(binding));
        }
        let mut thread = code.thread(machine, &words, [own, scratch, first]).expect("an instance");
        thread.run(&words, &spans, groups, range).unwrap_or_else(|error| panic!("{error:?}\n{kernel}"));
        let read = |span: &Span| {
            let mut content = vec![0u32; span.words as usize];
            words.read(span.first as usize, bytemuck::cast_slice_mut(&mut content));
            content
        };
        spans.iter().map(read).collect()
    }

    proptest! {
        #![proptest_config(reference::config(400))]
        #[test]
        fn random_kernels_do_what_they_mean(choices in choices()) {
            let machine = Machine::new(1).unwrap();
            let random = random_kernel(&choices);
            let mut expected = random.bindings();
            let range = 0..random.groups.iter().map(|&count| u64::from(count)).product();
            reference::run(&random.kernel, &mut expected, random.groups, range.clone(), &mut |_, _| {});
            let found = run(&machine, &random.kernel, &random.bindings(), random.groups, range);
            prop_assert_eq!(found, expected, "{}", random.kernel);
        }
    }
}
