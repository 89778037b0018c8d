//! Built without a compiler of WebAssembly: kernels are interpreted.

use std::convert::Infallible;

use crate::executor::cpu::emit::Host;
use crate::executor::cpu::words::Words;

pub(crate) const NAME: &str = "none";

pub(crate) struct Engine(Infallible);

pub(crate) struct Module(Infallible);

pub(crate) struct Instance(Infallible);

impl Engine {
    pub(crate) fn new(_threads: usize) -> Result<Engine, String> {
        Err("this build has no compiler of WebAssembly".into())
    }

    pub(crate) fn host(&self) -> Host {
        match self.0 {}
    }

    pub(crate) fn module(&self, _bytes: &[u8]) -> Result<Module, String> {
        match self.0 {}
    }

    pub(crate) fn words(&self, _words: usize) -> Option<Words> {
        match self.0 {}
    }

    pub(crate) fn instance(&self, module: &Module, _words: &Words) -> Result<Instance, String> {
        match module.0 {}
    }
}

impl Instance {
    pub(crate) fn call(&mut self, _arguments: u32) -> Result<i32, String> {
        match self.0 {}
    }
}
