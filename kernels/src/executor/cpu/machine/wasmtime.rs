//! Natively: Cranelift, through wasmtime. A run's words are a memory of their own, which all threads share.

use wasmtime::{Config, MemoryType, SharedMemory, Store, TypedFunc};

use crate::executor::cpu::emit::Host;
use crate::executor::cpu::words::{WORDS_MAX, Words};

pub(crate) const NAME: &str = "wasmtime";

/// Bytes of a page of wasm memory.
const PAGE_BYTES: u64 = 64 << 10;

pub(crate) struct Engine(wasmtime::Engine);

pub(crate) struct Module(wasmtime::Module);

pub(crate) struct Instance {
    store: Store<()>,
    run: TypedFunc<i32, i32>,
}

fn told(error: wasmtime::Error) -> String {
    format!("{error:#}")
}

impl Engine {
    pub(crate) fn new(_threads: usize) -> Result<Engine, String> {
        let mut config = Config::new();
        config.shared_memory(true).wasm_threads(true).wasm_simd(true).wasm_bulk_memory(true).wasm_relaxed_simd(false);
        config.cranelift_opt_level(wasmtime::OptLevel::Speed);
        wasmtime::Engine::new(&config).map(Engine).map_err(told)
    }

    pub(crate) fn host(&self) -> Host {
        Host::Threads
    }

    pub(crate) fn module(&self, bytes: &[u8]) -> Result<Module, String> {
        wasmtime::Module::from_binary(&self.0, bytes).map(Module).map_err(told)
    }

    pub(crate) fn words(&self, words: usize) -> Option<Words> {
        let pages = ((words as u64 + 32) * 4).div_ceil(PAGE_BYTES);
        if words > WORDS_MAX || pages > 1 << 16 {
            return None;
        }
        let memory = SharedMemory::new(&self.0, MemoryType::shared(pages as u32, pages as u32)).ok()?;
        Words::of_memory(memory, words)
    }

    pub(crate) fn instance(&self, module: &Module, words: &Words) -> Result<Instance, String> {
        let Some(memory) = words.memory() else { return Err("these words are not an instance's memory".into()) };
        let mut store = Store::new(&self.0, ());
        let instance = wasmtime::Instance::new(&mut store, &module.0, &[memory.clone().into()]).map_err(told)?;
        let run = instance.get_typed_func::<i32, i32>(&mut store, "run").map_err(told)?;
        Ok(Instance { store, run })
    }
}

impl Instance {
    pub(crate) fn call(&mut self, arguments: u32) -> Result<i32, String> {
        self.run.call(&mut self.store, arguments as i32).map_err(told)
    }
}
