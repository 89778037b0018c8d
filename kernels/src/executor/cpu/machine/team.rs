//! Workers that share out dispatches, in a browser whose page may share memory (it is cross-origin isolated).
//!
//! A run's words are then a memory of their own, which the workers see and this module's code does not: the host reads
//! and writes it through views. Workers know emitted kernels only; `team.js` says how they are woken. An interpreted
//! kernel of such a run works on a [mirror](Apart::mirrored) of its bindings.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use js_sys::{Array, JsString, Uint8Array, Uint32Array, WebAssembly};
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::*;

use super::host::Module;
use crate::executor::cpu::words::{Span, Words};

#[wasm_bindgen(module = "/src/executor/cpu/machine/team.js")]
extern "C" {
    /// The workers, and what they sleep on.
    #[wasm_bindgen(js_name = Team)]
    pub(crate) type Workers;
    #[wasm_bindgen(static_method_of = Workers, js_class = "Team", catch)]
    async fn open(threads: u32) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn threads(this: &Workers) -> u32;
    #[wasm_bindgen(method)]
    fn load(this: &Workers, memory: &WebAssembly::Memory, modules: &Array, places: &Uint32Array) -> u32;
    #[wasm_bindgen(method, js_name = drop)]
    fn let_go(this: &Workers, run: u32);
    #[wasm_bindgen(method)]
    #[allow(clippy::too_many_arguments, reason = "a dispatch, word by word")]
    fn publish(this: &Workers, run: u32, kernel: u32, groups: &[u32], spans: &[u32], parts: u32, chunk: u32, limit_ms: f64);
    #[wasm_bindgen(method)]
    fn next(this: &Workers, chunk: u32) -> f64;
    #[wasm_bindgen(method)]
    fn stop(this: &Workers);
    #[wasm_bindgen(method)]
    fn finish(this: &Workers, ms: f64) -> i32;
}

/// Chunks that each worker takes of a dispatch, about.
const CHUNKS_PER_THREAD: u64 = 8;
/// Workgroups of a dispatch that is shared out: what is counted stays within 32 bits.
const PARTS_MAX: u64 = 1 << 30;
/// Bytes of a page of wasm memory.
const PAGE_BYTES: u64 = 64 << 10;

thread_local! {
    static TEAM: RefCell<Option<Rc<Workers>>> = const { RefCell::new(None) };
}

/// Starts the workers of this worker, once; how many there are with it. Without shared memory it stays alone.
///
/// **Errors:** a worker does not start.
pub async fn open_team(threads: usize) -> Result<usize, String> {
    if team().is_none() {
        let opened = Workers::open(threads.min(u32::MAX as usize) as u32).await;
        let opened = opened.map_err(|thrown| format!("no workers for the cpu executor: {thrown:?}"))?;
        if let Ok(workers) = opened.dyn_into::<Workers>() {
            TEAM.set(Some(Rc::new(workers)));
        }
    }
    Ok(threads_here())
}

/// Threads of this worker's team.
pub(crate) fn threads_here() -> usize {
    team().map_or(1, |workers| workers.threads() as usize)
}

pub(super) fn team() -> Option<Rc<Workers>> {
    TEAM.with_borrow(Clone::clone)
}

/// Memories of runs that are gone, and the most pages of each: a browser gives one back only when the collectors of all
/// workers have seen that nobody has it any more, and has room for some thousands at a time.
const SPARE_MAX: usize = 16;
const SPARE_PAGES_MAX: u64 = 64;

thread_local! {
    /// By pages.
    static SPARE: RefCell<Vec<(u64, WebAssembly::Memory)>> = const { RefCell::new(Vec::new()) };
}

/// A shared memory of so many pages, zeroed; nothing if there is none.
fn memory_of(pages: u64) -> Option<WebAssembly::Memory> {
    let wanted = js_sys::Object::new();
    for (key, value) in [("initial", (pages as f64).into()), ("maximum", (pages as f64).into()), ("shared", JsValue::TRUE)] {
        js_sys::Reflect::set(&wanted, &JsString::from(key), &value).ok()?;
    }
    WebAssembly::Memory::new(&wanted).ok()
}

/// A run's words in a memory of their own.
pub(crate) struct Apart(SendWrapper<Inner>);

struct Inner {
    workers: Rc<Workers>,
    memory: WebAssembly::Memory,
    pages: u64,
    bytes: Uint8Array,
    words: Uint32Array,
    /// The run's number with the workers, once it is loaded.
    run: OnceCell<u32>,
    mirror: OnceCell<Box<Words>>,
    /// Of the dispatch that is being published: an address and a length for each binding.
    spans: RefCell<Vec<u32>>,
}

impl Apart {
    /// Memory for `words`, zeroed; nothing if there is none.
    pub(super) fn new(workers: Rc<Workers>, words: usize) -> Option<Apart> {
        let pages = (words as u64 * 4).div_ceil(PAGE_BYTES).max(1);
        let pages = if pages <= SPARE_PAGES_MAX { pages.next_power_of_two() } else { pages };
        let spare = SPARE.with_borrow_mut(|spare| {
            let found = spare.iter().position(|(spare_pages, _)| *spare_pages == pages);
            found.map(|found| spare.swap_remove(found).1)
        });
        let memory = match spare {
            Some(memory) => {
                let words = Uint32Array::new(&memory.buffer());
                words.fill(0, 0, words.length());
                memory
            }
            None => memory_of(pages)?,
        };
        let (bytes, words) = (Uint8Array::new(&memory.buffer()), Uint32Array::new(&memory.buffer()));
        let (run, mirror) = (OnceCell::new(), OnceCell::new());
        Some(Apart(SendWrapper::new(Inner { workers, memory, pages, bytes, words, run, mirror, spans: RefCell::default() })))
    }

    pub(super) fn memory(&self) -> &WebAssembly::Memory {
        &self.0.memory
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let first = at as u32 * 4;
        self.0.bytes.subarray(first, first + bytes.len() as u32).copy_from(bytes);
    }

    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) {
        let first = at as u32 * 4;
        self.0.bytes.subarray(first, first + bytes.len() as u32).copy_to(bytes);
    }

    pub(crate) fn fill(&self, range: Range<usize>, word: u32) {
        self.0.words.fill(word, range.start as u32, range.end as u32);
    }

    pub(crate) fn copy_within(&self, from: usize, to: usize, words: usize) {
        self.0.words.copy_within(to as i32, from as i32, (from + words) as i32);
    }

    /// Gives the workers the kernels of this run; `places` are the argument words of each helper's kernels, in turn.
    pub(crate) fn share(&self, modules: &[Option<&Module>], places: &[u32]) {
        let modules: Array = modules.iter().map(|module| module.map_or(JsValue::NULL, |module| JsValue::from(&*module.0))).collect();
        self.0.run.get_or_init(|| self.0.workers.load(&self.0.memory, &modules, &Uint32Array::from(places)));
    }

    /// Has all workers begin with a dispatch of kernel number `kernel`. Nothing if it cannot be shared out.
    pub(crate) fn publish(
        &self,
        kernel: usize,
        words: &Words,
        (spans, groups, parts): (&[Span], [u32; 3], u64),
        limit: Duration,
    ) -> Option<Published> {
        let workers = &self.0.workers;
        let run = *self.0.run.get()?;
        if parts > PARTS_MAX {
            return None;
        }
        let chunk = parts.div_ceil(u64::from(workers.threads()) * CHUNKS_PER_THREAD);
        let mut flat = self.0.spans.borrow_mut();
        flat.clear();
        flat.extend(spans.iter().flat_map(|span| [words.address(span.first as usize), span.words]));
        workers.publish(run, kernel as u32, &groups, &flat, parts as u32, chunk as u32, limit.as_secs_f64() * 1e3);
        Some(Published { workers: workers.clone(), parts, chunk, is_over: false })
    }

    /// Sees to it that there is a mirror of `words` words; whether there is memory for it.
    pub(crate) fn prepare_mirror(&self, words: usize) -> bool {
        if self.0.mirror.get().is_none()
            && let Some(mirror) = Words::new(words)
        {
            self.0.mirror.get_or_init(|| Box::new(mirror));
        }
        self.0.mirror.get().is_some()
    }

    /// Does `work` on a copy of the spans, which is then brought back. **Panics** where there is no mirror.
    pub(crate) fn mirrored<T>(&self, spans: &[Span], work: impl FnOnce(&Words) -> T) -> T {
        let Some(mirror) = self.0.mirror.get() else { unreachable!("a kernel that is interpreted has had its mirror prepared") };
        let mut content = Vec::new();
        for span in spans {
            content.resize(span.words as usize * 4, 0);
            self.read(span.first as usize, &mut content);
            mirror.write(span.first as usize, &content);
        }
        let outcome = work(mirror);
        for span in spans {
            content.resize(span.words as usize * 4, 0);
            mirror.read(span.first as usize, &mut content);
            self.write(span.first as usize, &content);
        }
        outcome
    }
}

/// A dispatch that all workers are at. Given up before its end, it is stopped, and waited for.
pub(crate) struct Published {
    workers: Rc<Workers>,
    parts: u64,
    /// Workgroups that a worker takes at a time.
    chunk: u64,
    is_over: bool,
}

impl Published {
    /// Up to so many workgroups for this worker, which are then nobody else's; nothing if none are left.
    pub(crate) fn take(&self, most: u64) -> Option<Range<u64>> {
        let count = most.clamp(1, self.chunk);
        let first = self.workers.next(count as u32) as u64;
        (first < self.parts).then(|| first..(first + count).min(self.parts))
    }

    /// How it went, if the others are through within some milliseconds. **Panics** where one trapped.
    pub(crate) fn finished(&mut self, ms: f64) -> Option<bool> {
        let state = self.workers.finish(ms);
        self.is_over = state >= 0;
        assert!(state <= 1, "a kernel trapped in a worker, whose console says why");
        self.is_over.then_some(state == 0)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if !self.is_over {
            self.workers.stop();
            self.workers.finish(f64::INFINITY);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(&run) = self.run.get() {
            self.workers.let_go(run);
        }
        SPARE.with_borrow_mut(|spare| {
            if self.pages <= SPARE_PAGES_MAX && spare.len() < SPARE_MAX {
                spare.push((self.pages, self.memory.clone()));
            }
        });
    }
}
