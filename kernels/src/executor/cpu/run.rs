//! One program resident on the cpu executor.
//!
//! Nothing is queued: a method is over when its work is done. A pass is its dispatches one after
//! another, each shared out to the threads; an exchange's copies are native; a reduction runs the
//! framework's kernels like any other, so its order is the gpu's. To cancel a run between passes, drop
//! it. Invariants: no pass and no exchange allocates memory once each has run; after a dispatch was
//! stopped the run only repeats the error.

use std::sync::Arc;

use peercompute_buffers::TileId;
use peercompute_buffers::exchange::CopySet;
use peercompute_buffers::transfer::tile_bytes;

use super::compiler::Source;
use super::engine::{Dispatch, SeatPlan, Seated};
use super::memory::{self, Places, TablePlaces};
#[cfg(target_arch = "wasm32")]
use super::turns;
use super::watch::Watched;
use super::words::{Span, Words};
use super::{Cpu, Shared, copies};
use crate::declaration::Extent;
use crate::executor::arenas::{self, Shown};
use crate::executor::dispatch::{Part, PassDispatches};
use crate::executor::tables::{self, Reduction, StepPlan};
use crate::executor::{ExecutorError, Layout, Piece, Placement, Run};
use crate::program::{Fresh, Program, Role, Write};

/// Workgroups along an axis of one dispatch: invocations along it, and those of a tile table's rows, stay far from 2³².
const GROUPS_MAX: u32 = 1 << 20;
/// A dispatch of fewer invocations is done before a second thread is awake.
const SHARED_INVOCATIONS_MIN: u64 = 2048;

/// A kernel, and what each of its bindings is to the pass.
struct PartKernel {
    part: Part,
    kernel: Arc<Seated>,
    roles: Vec<Role>,
}

struct PassKernels {
    /// One for each part that a dispatch needs.
    parts: Vec<PartKernel>,
    dispatches: PassDispatches,
}

/// One step of a reduction, ready to dispatch.
struct Step {
    kernel: Arc<Seated>,
    spans: Vec<Span>,
    groups: [u32; 2],
}

/// The steps of one table.
struct Table {
    clear: Step,
    fold: Step,
    combine: Step,
}

/// A program resident on a [`Cpu`].
pub struct CpuRun {
    shared: Arc<Shared>,
    program: Arc<Program>,
    layout: Layout,
    words: Arc<Words>,
    places: Places,
    /// Per buffer, which side is current.
    side: Vec<usize>,
    passes: Vec<PassKernels>,
    tables: Vec<Option<Table>>,
    /// Per exchange, the tables that it combines.
    combined: Vec<Vec<usize>>,
    watched: Arc<Watched>,
    /// The dispatch that is being set up or run.
    dispatch: Dispatch,
    /// What goes to other peers, as bytes.
    outgoing: Vec<u8>,
    /// The words, `outgoing`, and what threads need beside them.
    memory_bytes: u64,
    /// The entry point of a dispatch that was stopped.
    stopped: Option<String>,
    /// What its pages were laid out with.
    page_bytes_max: u64,
}

/// Bytes that an exchange sends to others, of the largest.
fn outgoing_bytes(layout: &Layout) -> usize {
    layout.exchanges.iter().map(|plan| plan.send.last().map_or(0, |run| run.end)).max().unwrap_or(0) * 4
}

/// The kernels of a program on one peer, by number, and what they are compiled from.
struct Wanted<'a> {
    sources: Vec<Source<'a>>,
    /// Per pass, its parts and the numbers of their kernels.
    parts: Vec<Vec<(Part, usize)>>,
    /// Per buffer, the numbers of clear, fold and combine.
    steps: Vec<Option<[usize; 3]>>,
}

impl<'a> Wanted<'a> {
    fn new(program: &'a Program, dispatches: &[PassDispatches], reductions: &'a [Option<Reduction>]) -> Wanted<'a> {
        let mut sources = Vec::new();
        let mut add = |source| {
            sources.push(source);
            sources.len() - 1
        };
        let passes = program.manifest.passes.iter().zip(dispatches);
        let parts = passes
            .map(|(pass, dispatches)| {
                dispatches.parts().map(|part| (part, add(Source { wgsl: &pass.wgsl, entry: &pass.entry, constants: part.constants() }))).collect()
            })
            .collect();
        let steps = reductions
            .iter()
            .map(|reduction| {
                let reduction = reduction.as_ref()?;
                let mut step = |plan: &StepPlan| add(Source { wgsl: tables::WGSL, entry: plan.entry, constants: &reduction.constants });
                Some([step(&reduction.clear), step(&reduction.fold), step(&reduction.combine)])
            })
            .collect();
        Wanted { sources, parts, steps }
    }

    /// The kernels of every pass.
    fn passes(&self, program: &Program, kernels: &[Arc<Seated>], dispatches: Vec<PassDispatches>) -> Vec<PassKernels> {
        let parts_of = |pass: usize| {
            let parts = self.parts[pass].iter();
            parts.map(|&(part, number)| PartKernel::new(part, kernels[number].clone(), program, pass)).collect()
        };
        dispatches.into_iter().enumerate().map(|(pass, dispatches)| PassKernels { parts: parts_of(pass), dispatches }).collect()
    }

    /// The steps of every reduced table.
    fn tables(&self, kernels: &[Arc<Seated>], reductions: &[Option<Reduction>], places: &Places) -> Vec<Option<Table>> {
        let table = |buffer: usize| {
            let kernels = self.steps[buffer]?.map(|number| kernels[number].clone());
            Some(Table::new(reductions[buffer].as_ref()?, kernels, places.tables[buffer].as_ref()?, places.arenas[buffer][0][0]))
        };
        (0..reductions.len()).map(table).collect()
    }
}

impl CpuRun {
    /// `used` is memory that it may take.
    pub(crate) fn new(cpu: &Cpu, program: Program, layout: Layout, used: Option<Words>) -> Result<CpuRun, ExecutorError> {
        let (program, shared) = (Arc::new(program), cpu.shared.clone());
        let reductions: Vec<_> = (0..program.manifest.buffers.len()).map(|buffer| Reduction::new(&program, &layout, buffer)).collect();
        let places = Places::new(&program, &layout, &reductions);
        let outgoing = outgoing_bytes(&layout);
        cpu.check_memory(&program, places.words * 4 + outgoing as u64)?;

        let dispatches: Vec<_> =
            (0..program.passes.len()).map(|pass| PassDispatches::new(&program, &layout, pass, cpu.borders(), GROUPS_MAX)).collect();
        let wanted = Wanted::new(&program, &dispatches, &reductions);
        let kernels = cpu.compiled(&wanted.sources)?;
        let threads = shared.crew.threads();
        let seats = SeatPlan::new(&kernels, threads, places.words);
        let beside = || outgoing as u64 + kernels.iter().map(|kernel| kernel.seat_words() * 4 * threads as u64).sum::<u64>();
        let mut beside_bytes = beside();
        if cpu.check_memory(&program, seats.words * 4 + beside_bytes).is_err() {
            // Machine code needs less than what would run until it is there.
            kernels.iter().for_each(|kernel| kernel.wait());
            beside_bytes = beside();
            cpu.check_memory(&program, seats.words * 4 + beside_bytes)?;
        }

        let used = used.and_then(|used| used.again(seats.words as usize));
        let memory_words = used.as_ref().map_or(seats.words, |used| used.room() as u64);
        let words = used.or_else(|| cpu.compiler.words(seats.words as usize));
        let words = Arc::new(words.ok_or_else(|| cpu.no_memory(seats.words * 4))?);
        places.write_constants(&words, &program, &layout, &reductions);
        let refused = |(number, cause): (usize, String)| shared.refused(wanted.sources[number].entry, cause);
        let kernels = seats.seat(kernels, &words).map_err(refused)?;
        let (passes, tables) = (wanted.passes(&program, &kernels, dispatches), wanted.tables(&kernels, &reductions, &places));
        let table_of = |fresh: &Fresh| if let Fresh::Table { buffer } = fresh { Some(*buffer) } else { None };
        let run = CpuRun {
            side: vec![0; program.manifest.buffers.len()],
            combined: program.exchanges.iter().map(|fresh| fresh.iter().filter_map(table_of).collect()).collect(),
            watched: shared.watch.place(Some((words.clone(), seats.stop_word()))),
            dispatch: Dispatch { time_limit: shared.time_limit, ..Dispatch::default() },
            outgoing: vec![0; outgoing],
            memory_bytes: memory_words * 4 + beside_bytes,
            stopped: None,
            page_bytes_max: cpu.page_bytes_max(),
            shared,
            program,
            layout,
            places,
            words,
            passes,
            tables,
        };
        run.check_spans()?;
        Ok(run)
    }

    /// Its memory, unless somebody else still holds it.
    pub(crate) fn into_words(self) -> Option<Words> {
        let words = self.words.clone();
        drop(self);
        Arc::into_inner(words)
    }

    /// Holds what each dispatch will bind against what its kernel touches without asking for a length.
    fn check_spans(&self) -> Result<(), ExecutorError> {
        for (pass, kernels) in self.passes.iter().enumerate() {
            for (page, dispatches) in kernels.dispatches.pages.iter().enumerate() {
                for part in kernels.parts.iter().filter(|part| dispatches.iter().any(|dispatch| dispatch.part == part.part)) {
                    for (binding, &role) in part.kernel.kernel.bindings.iter().zip(&part.roles) {
                        let span = self.span(pass, page, role);
                        if span.words < binding.words_min {
                            let cause = format!("binding {} has {} words, and the kernel needs {}", binding.number, span.words, binding.words_min);
                            return Err(self.shared.refused(&part.kernel.kernel.entry, cause));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What a binding of a pass shows right now.
    fn span(&self, pass: usize, page: usize, role: Role) -> Span {
        match arenas::shown(&self.program, &self.layout, pass, page, role) {
            Shown::TileTable => self.places.tile_tables[self.program.manifest.passes[pass].grid][page],
            Shown::Params => self.places.params,
            Shown::Dispatch => self.places.dispatch,
            Shown::Shares(buffer) => self.places.tables[buffer].map_or(self.places.params, |table| table.shares),
            Shown::Arena { buffer, page, is_other_side, bytes } => {
                let side = if is_other_side { 1 - self.side[buffer] } else { self.side[buffer] };
                let span = self.places.arenas[buffer][page][side];
                Span { words: bytes.map_or(span.words, |bytes| (bytes / 4) as u32), ..span }
            }
        }
    }

    /// The run's error, once a dispatch was stopped.
    fn check(&self) -> Result<(), ExecutorError> {
        match &self.stopped {
            None => Ok(()),
            Some(entry) => Err(ExecutorError::TimedOut {
                adapter: self.shared.info.named(),
                entry: entry.clone(),
                seconds: self.shared.time_limit.as_secs_f64(),
            }),
        }
    }

    /// Runs a kernel over workgroups, bound to the spans that stand in `self.dispatch`.
    async fn run_kernel(&mut self, kernel: Arc<Seated>, groups: [u32; 3]) -> Result<(), ExecutorError> {
        let parts = groups.iter().map(|&groups| u64::from(groups)).product::<u64>();
        let is_small = parts * u64::from(kernel.kernel.invocations) < SHARED_INVOCATIONS_MIN;
        self.dispatch.groups = groups;
        self.dispatch.what = Some((kernel, self.words.clone(), self.watched.clone()));
        let is_done = self.share_out(parts, is_small).await;
        self.watched.end();
        let what = self.dispatch.what.take();
        if !is_done {
            self.stopped = what.map(|(kernel, _, _)| kernel.kernel.entry.clone());
        }
        self.check()
    }

    /// Runs `self.dispatch` on every thread; whether nothing stopped it.
    async fn share_out(&self, parts: u64, is_small: bool) -> bool {
        #[cfg(target_arch = "wasm32")]
        return turns::run(&self.dispatch, &self.shared.crew, parts, is_small).await;
        #[cfg(not(target_arch = "wasm32"))]
        self.shared.crew.run(&self.dispatch, parts, is_small)
    }

    /// Runs a step of a table's reduction, if the buffer has one.
    async fn step(&mut self, step: fn(&Table) -> &Step, buffer: usize) -> Result<(), ExecutorError> {
        let Some(step) = self.tables[buffer].as_ref().map(step) else { return Ok(()) };
        self.dispatch.spans.clone_from(&step.spans);
        let (kernel, [x, y]) = (step.kernel.clone(), step.groups);
        self.run_kernel(kernel, [x, y, 1]).await
    }

    /// Runs the dispatches of a pass over one page.
    async fn run_page(&mut self, pass: usize, page: usize, tick: u64) -> Result<(), ExecutorError> {
        let page_row = self.passes[pass].dispatches.page_rows[page];
        for index in 0..self.passes[pass].dispatches.pages[page].len() {
            let dispatch = self.passes[pass].dispatches.pages[page][index];
            let Some(part) = self.passes[pass].parts.iter().find(|part| part.part == dispatch.part) else { continue };
            memory::write(&self.words, self.places.dispatch, 0, bytemuck::bytes_of(&dispatch.uniform(tick, page_row)));
            let mut spans = std::mem::take(&mut self.dispatch.spans);
            spans.clear();
            spans.extend(part.roles.iter().map(|&role| self.span(pass, page, role)));
            let kernel = part.kernel.clone();
            self.dispatch.spans = spans;
            self.run_kernel(kernel, dispatch.groups).await?;
        }
        Ok(())
    }

    /// Runs copies between arenas and a mailbox.
    fn copy(&self, sets: &[CopySet], mailbox: Span, packs: bool) {
        for set in sets {
            let arena = match &self.places.tables[set.buffer] {
                Some(table) => table.rows,
                None => self.places.arenas[set.buffer][set.page][self.side[set.buffer]],
            };
            let (from, to) = if packs { (arena, mailbox) } else { (mailbox, arena) };
            copies::run(&self.words, set, from, to);
        }
    }

    /// Where a piece lies, as [`CpuRun::tile`] tells it.
    fn piece(&self, piece: Piece) -> Option<(Span, u32, usize)> {
        match piece {
            Piece::Tile(buffer, tile) => self.tile(buffer, tile),
            Piece::Table(buffer) => {
                let Extent::Table { length, .. } = self.program.manifest.buffers[buffer].extent else { return None };
                Some((self.places.arenas[buffer][0][0], 0, length as usize * self.program.elements[buffer].stride as usize))
            }
        }
    }

    /// Where an owned tile lies: the span of its page, the first word in it, and its bytes.
    fn tile(&self, buffer: usize, tile: TileId) -> Option<(Span, u32, usize)> {
        let residency = self.layout.of_field(&self.program, buffer)?;
        let (page, first) = residency.slot(tile)?;
        let element = &self.program.elements[buffer];
        let bytes = tile_bytes(&residency.grid, tile, element.stride as usize);
        Some((self.places.arenas[buffer][page][self.side[buffer]], first * element.words(), bytes))
    }
}

impl Run for CpuRun {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    async fn pass(&mut self, pass: usize, tick: u64) -> Result<(), ExecutorError> {
        self.check()?;
        let program = self.program.clone();
        let (declared, checked) = (&program.manifest.passes[pass], &program.passes[pass]);
        let writes = || declared.writes.iter().copied().zip(checked.writes.iter().copied());
        for (buffer, write) in writes() {
            match write {
                Write::Swap { copies: true } => {
                    let (from, to) = (self.side[buffer], 1 - self.side[buffer]);
                    for sides in &self.places.arenas[buffer] {
                        self.words.copy_within(sides[from].first as usize, sides[to].first as usize, sides[from].words as usize);
                    }
                }
                Write::Partials | Write::Atomics => self.step(|table| &table.clear, buffer).await?,
                _ => {}
            }
        }
        for page in 0..self.layout.grids[declared.grid].pages.len() {
            self.run_page(pass, page, tick).await?;
        }
        for (buffer, write) in writes() {
            match write {
                Write::Swap { .. } => self.side[buffer] = 1 - self.side[buffer],
                Write::Partials | Write::Atomics => self.step(|table| &table.fold, buffer).await?,
                Write::InPlace => {}
            }
        }
        Ok(())
    }

    fn pack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        self.check()?;
        self.copy(&self.layout.exchanges[exchange].pack, self.places.mail[exchange][0], true);
        Ok(())
    }

    async fn outbox(&mut self, exchange: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), ExecutorError> {
        self.check()?;
        let bytes = self.layout.exchanges[exchange].send.last().map_or(0, |run| run.end) * 4;
        memory::read(&self.words, self.places.mail[exchange][0], 0, &mut self.outgoing[..bytes]);
        take(&self.outgoing[..bytes]);
        Ok(())
    }

    fn inbox(&mut self, exchange: usize, peer: usize, bytes: &[u8]) {
        let run = &self.layout.exchanges[exchange].receive[peer];
        assert_eq!(bytes.len(), run.len() * 4, "the network layer checks what it delivers");
        memory::write(&self.words, self.places.mail[exchange][1], run.start as u32, bytes);
    }

    async fn unpack(&mut self, exchange: usize) -> Result<(), ExecutorError> {
        self.check()?;
        let [outbox, inbox] = self.places.mail[exchange];
        self.copy(&self.layout.exchanges[exchange].unpack_local, outbox, false);
        self.copy(&self.layout.exchanges[exchange].unpack, inbox, false);
        for index in 0..self.combined[exchange].len() {
            self.step(|table| &table.combine, self.combined[exchange][index]).await?;
        }
        Ok(())
    }

    async fn reship(&mut self, placement: &Placement) -> Result<bool, ExecutorError> {
        self.check()?;
        let refused = |cause| ExecutorError::layout(&self.program, &self.shared.info, cause);
        let layout = self.layout.reshipped(&self.program, placement, self.page_bytes_max).map_err(refused)?;
        let Some(layout) = layout.filter(|layout| self.places.reship(layout)) else { return Ok(false) };
        self.outgoing.resize(outgoing_bytes(&layout), 0);
        self.layout = layout;
        Ok(true)
    }

    fn set_params(&mut self, bytes: &[u8]) {
        memory::write(&self.words, self.places.params, 0, bytes);
    }

    fn write_tile(&mut self, buffer: usize, tile: TileId, bytes: &[u8]) {
        let Some((span, at, tile_bytes)) = self.tile(buffer, tile) else { return };
        assert_eq!(bytes.len(), tile_bytes, "a tile is written as a whole");
        memory::write(&self.words, span, at, bytes);
    }

    fn write_table(&mut self, buffer: usize, bytes: &[u8]) {
        memory::write(&self.words, self.places.arenas[buffer][0][0], 0, bytes);
    }

    fn piece_bytes(&self, piece: Piece) -> usize {
        self.piece(piece).map_or(0, |(_, _, bytes)| bytes)
    }

    async fn read(&mut self, pieces: &[Piece], mut into: &mut [u8]) -> Result<(), ExecutorError> {
        self.check()?;
        for (span, at, bytes) in pieces.iter().filter_map(|piece| self.piece(*piece)) {
            let (content, rest) = into.split_at_mut(bytes);
            memory::read(&self.words, span, at, content);
            into = rest;
        }
        assert!(into.is_empty(), "{} bytes more than the pieces have", into.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExecutorError> {
        self.check()
    }

    async fn finish(&mut self) -> Result<(), ExecutorError> {
        self.check()
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl PartKernel {
    fn new(part: Part, kernel: Arc<Seated>, program: &Program, pass: usize) -> PartKernel {
        let declared = &program.passes[pass].bindings;
        let role = |number: u32| declared.iter().find(|binding| binding.number == number).map(|binding| binding.role);
        let bound = &kernel.kernel;
        let roles: Vec<Role> = bound.bindings.iter().filter_map(|binding| role(binding.number)).collect();
        assert_eq!(roles.len(), bound.bindings.len(), "what `{}` binds was read off the same text before", bound.entry);
        PartKernel { part, kernel, roles }
    }
}

impl Table {
    fn new(reduction: &Reduction, [clear, fold, combine]: [Arc<Seated>; 3], places: &TablePlaces, table: Span) -> Table {
        let step = |plan: &StepPlan, kernel: Arc<Seated>, shape: Span, source: Span, result: Span| {
            let span = |number: u32| match number {
                tables::binding::SOURCE => source,
                tables::binding::RESULT => result,
                tables::binding::TILES => places.numbers,
                _ => shape,
            };
            Step { spans: kernel.kernel.bindings.iter().map(|binding| span(binding.number)).collect(), kernel, groups: plan.groups }
        };
        let [clear_shape, fold_shape, combine_shape] = places.shapes;
        Table {
            clear: step(&reduction.clear, clear, clear_shape, places.numbers, places.shares),
            fold: step(&reduction.fold, fold, fold_shape, places.shares, places.rows),
            combine: step(&reduction.combine, combine, combine_shape, places.rows, table),
        }
    }
}

#[cfg(all(test, feature = "jit"))]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::declaration::Declaration;
    use crate::executor::Placement;
    use crate::executor::cpu::CpuOptions;
    use crate::{Manifest, Overrides, SecretKey, VerifiedBundle};

    const TOML: &str = "name = \"k\"\nversion = \"1.0.0\"\ngrid = { shape = [64], tile = [64] }\n[buffers.v]\nelement = \"u32\"\n\
                        [[passes]]\nkernel = \"k.wgsl\"\nentry = \"go\"\nwrites = [\"v\"]\n";
    const WGSL: &str = "var<storage, read_write> v_next: array<u32>;
        @compute @workgroup_size(8) fn go(@builtin(global_invocation_id) id: vec3<u32>) {
            let c = cell(id);
            if (c.inside) { v_next[c.index] = id.x; }
        }";

    fn bundle() -> VerifiedBundle {
        let declaration = Declaration::parse(TOML, &Overrides::default()).expect("a declaration");
        let manifest = Manifest::new(&declaration, &[("k.wgsl".to_string(), WGSL.to_string())].into()).expect("a workload");
        let key = SecretKey::generate().expect("a key");
        VerifiedBundle::sign(manifest, &key).expect("a workload")
    }

    #[test]
    fn a_run_in_place_of_another_has_its_memory_and_nothing_of_its_content() {
        for is_interpreted in [false, true] {
            let (bundle, options) = (bundle(), CpuOptions { threads: Some(2), is_interpreted, ..CpuOptions::default() });
            let (cpu, alone) = (Cpu::open(options).expect("threads"), Placement::alone(bundle.program()));
            let mut run = block_on(cpu.load(&bundle, &alone)).expect("a run");
            block_on(run.pass(0, 0)).expect("a pass");
            assert_ne!(block_on(run.read_tile(0, TileId(0))).expect("a tile"), [0; 256]);
            let memory = run.words.memory_address();
            let mut again = block_on(cpu.reload(run, &bundle, &alone)).expect("a run");
            assert_eq!(again.words.memory_address(), memory);
            assert_eq!(block_on(again.read_tile(0, TileId(0))).expect("a tile"), [0; 256]);
            block_on(again.pass(0, 0)).expect("a pass");
            assert_ne!(block_on(again.read_tile(0, TileId(0))).expect("a tile"), [0; 256]);
        }
    }

    #[test]
    fn a_run_takes_the_machine_code_that_has_come() {
        let bundle = bundle();
        let options = CpuOptions { threads: Some(1), compile_wait: Some(std::time::Duration::ZERO), ..CpuOptions::default() };
        let cpu = Cpu::open(options).expect("threads");
        let mut run = block_on(cpu.load(&bundle, &Placement::alone(bundle.program()))).expect("a run");
        cpu.finish_compiling();
        block_on(run.pass(0, 0)).expect("a pass");
        assert!(run.passes.iter().flat_map(|pass| &pass.parts).all(|part| part.kernel.is_machine_code()));
    }
}
