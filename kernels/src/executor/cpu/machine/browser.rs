//! In a browser: its own WebAssembly. Without a [team], kernels import the memory of this very module, so a run's words
//! lie in it as everything else does, and nothing is copied; with one they import the run's own.
//!
//! Compiling and instantiating are synchronous, which a page's main thread allows for small modules only: this is for
//! a worker.

use std::rc::Rc;

use js_sys::{Function, Object, Reflect, Uint8Array, WebAssembly};
use send_wrapper::SendWrapper;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};

use super::team::{self, Apart, Workers};
use crate::executor::cpu::clock;
use crate::executor::cpu::emit::Host;
use crate::executor::cpu::words::Words;

pub(crate) const NAME: &str = "browser";

/// What kernels ask now and then.
pub(crate) struct Engine {
    late: SendWrapper<Closure<dyn Fn() -> i32>>,
    team: Option<SendWrapper<Rc<Workers>>>,
}

pub(crate) struct Module(pub(super) SendWrapper<WebAssembly::Module>);

pub(crate) struct Instance(SendWrapper<Function>);

/// What JavaScript threw, in words.
fn told(thrown: JsValue) -> String {
    thrown.dyn_ref::<js_sys::Error>().map_or_else(|| format!("{thrown:?}"), |error| String::from(error.to_string()))
}

/// `{ key: value }`.
fn object(key: &str, value: impl Into<JsValue>) -> Result<Object, JsValue> {
    let object = Object::new();
    Reflect::set(&object, &key.into(), &value.into())?;
    Ok(object)
}

impl Engine {
    pub(crate) fn new(threads: usize) -> Result<Engine, String> {
        let team = if threads > 1 { team::team().map(SendWrapper::new) } else { None };
        Ok(Engine { late: SendWrapper::new(Closure::new(|| i32::from(clock::is_late()))), team })
    }

    pub(crate) fn host(&self) -> Host {
        if self.team.is_some() { Host::Workers } else { Host::Alone }
    }

    pub(crate) fn module(&self, bytes: &[u8]) -> Result<Module, String> {
        WebAssembly::Module::new(&Uint8Array::from(bytes)).map(|module| Module(SendWrapper::new(module))).map_err(told)
    }

    pub(crate) fn words(&self, words: usize) -> Option<Words> {
        match &self.team {
            Some(workers) => Words::of_apart(Apart::new((**workers).clone(), words)?, words),
            None => Words::new(words),
        }
    }

    pub(crate) fn instance(&self, module: &Module, words: &Words) -> Result<Instance, String> {
        let run = || {
            let inner = object("m", words.apart().map_or_else(wasm_bindgen::memory, |apart| apart.memory().into()))?;
            Reflect::set(&inner, &"late".into(), self.late.as_ref())?;
            let imports = object("m", inner)?;
            let instance = WebAssembly::Instance::new(&module.0, &imports)?;
            Reflect::get(&instance.exports(), &"run".into())?.dyn_into::<Function>()
        };
        run().map(|run| Instance(SendWrapper::new(run))).map_err(told)
    }
}

impl Instance {
    pub(crate) fn call(&mut self, arguments: u32) -> Result<i32, String> {
        let left = self.0.call1(&JsValue::UNDEFINED, &arguments.into()).map_err(told)?;
        // It declares an i32.
        Ok(left.as_f64().map_or(1, |left| left as i32))
    }
}
