//! One module as two: what every browser loads, and what only the cpu executor needs.
//!
//! ```text
//! functions of the module ── reached from exports and the table ─────────────► first: loaded at once
//!                     └──── reached through those of the cpu executor alone ──► rest: loaded before that is opened
//!
//! first calls rest    through slots of the table that rest fills when it is instantiated
//! rest calls first    through imports, of whatever first exports for it
//! ```
//!
//! Both have one memory, one table and the same globals, so that nothing in the program knows of it but who loads the rest
//! (kernels/src/executor/rest.rs). Invariant: a function is in one of them, and the first has no call into the rest that does not begin in a
//! function of [`LATER`] or [`LATER_PART`]. Who calls one of those before the rest is there gets a trap.

use std::collections::{BTreeSet, HashSet};

use walrus::ir::{Value, Visitor, dfs_in_order};
use walrus::{
    ConstExpr, ElementItems, ElementKind, ExportItem, Function, FunctionBuilder, FunctionId, FunctionKind, GlobalKind, ImportKind, ImportedFunction,
    Module, ModuleConfig, TableId,
};

/// Functions that are called only for an open cpu executor begin so: the checks of WGSL are made before it compiles.
const LATER: [&str; 3] = [
    "peercompute_kernels::check::",
    "peercompute_kernels::executor::cpu::",
    "core::ptr::drop_in_place::<peercompute_kernels::executor::cpu::run::CpuRun>",
];
/// And those of what only they use, most of which the table alone names: its words for errors.
const LATER_PART: &str = "naga::";
/// What a node has before it knows its executor.
const AT_ONCE: [&str; 1] = ["CpuOptions"];
/// A shorter function may be others' too, under the name of one: the compiler makes one of those that are alike.
const INSTRUCTIONS_MIN: u64 = 48;
/// The module that the rest imports from.
const FIRST: &str = "first";

/// Two modules of one that has its functions' names.
///
/// **Errors:** the module is not as the compiler and wasm-bindgen make them, in words.
pub(crate) fn split(bytes: &[u8]) -> Result<[Vec<u8>; 2], String> {
    let mut config = ModuleConfig::new();
    config.generate_name_section(false).generate_producers_section(false);
    let parse = || config.parse(bytes).map_err(|error| format!("{error:#}"));
    // Functions, tables and globals of both have the same numbers.
    let (mut first, mut rest) = (parse()?, parse()?);
    let parts = Parts::new(&first)?;
    let wanted = parts.make_rest(&mut rest)?;
    parts.make_first(&mut first, &wanted)?;
    Ok([first.emit_wasm(), rest.emit_wasm()])
}

/// A thing of the first that the rest imports.
#[derive(Clone, Copy)]
enum Shared {
    Function(usize),
    Global(usize),
    Table(usize),
    Memory,
}

impl Shared {
    fn name(self) -> String {
        match self {
            Shared::Function(number) => format!("f{number}"),
            Shared::Global(number) => format!("g{number}"),
            Shared::Table(number) => format!("t{number}"),
            Shared::Memory => "m".into(),
        }
    }
}

/// Which function is where, by the numbers that functions have in the whole.
struct Parts {
    is_first: Vec<bool>,
    /// Functions of the rest that the first calls. Their slots are the table's last.
    called: Vec<usize>,
    /// Slots of the table with functions of the rest: the slot, and the function.
    pointed: Vec<(usize, usize)>,
    /// Slots of the table as it was.
    slots: usize,
}

impl Parts {
    fn new(module: &Module) -> Result<Parts, String> {
        let numbers = functions(module);
        let number = |id: FunctionId| id.index();
        if numbers.iter().enumerate().any(|(at, id)| number(*id) != at) {
            return Err("the functions of a parsed module are not numbered in their order".into());
        }
        let table = table(module)?;
        let slots = module.tables.get(table).initial as usize;
        let mut pointed = Vec::new();
        for element in module.elements.iter() {
            let (slot, items) = pointers(element, table)?;
            pointed.extend(items.iter().enumerate().map(|(at, id)| (slot + at, number(*id))));
        }
        let is_later: Vec<bool> = numbers.iter().map(|id| is_later(module.funcs.get(*id))).collect();
        let exported = module.exports.iter().filter_map(|export| match export.item {
            ExportItem::Function(id) => Some(number(id)),
            _ => None,
        });
        let exported: Vec<usize> = exported.chain(module.start.map(number)).collect();
        // What the table alone names is called through it, wherever it is.
        let mut stack: Vec<usize> = exported.iter().copied().chain(pointed.iter().map(|(_, function)| *function)).collect();
        stack.retain(|function| !is_later[*function]);
        let mut called: BTreeSet<usize> = exported.into_iter().filter(|function| is_later[*function]).collect();
        let mut is_first: Vec<bool> = numbers.iter().map(|id| matches!(module.funcs.get(*id).kind, FunctionKind::Import(_))).collect();
        while let Some(function) = stack.pop() {
            if std::mem::replace(&mut is_first[function], true) {
                continue;
            }
            for callee in calls(module, numbers[function]) {
                if is_later[callee] {
                    called.insert(callee);
                } else {
                    stack.push(callee);
                }
            }
        }
        if called.is_empty() {
            return Err(format!("no function begins with any of {LATER:?}"));
        }
        pointed.retain(|(_, function)| !is_first[*function]);
        let called = called.into_iter().collect();
        Ok(Parts { is_first, called, pointed, slots })
    }

    /// Leaves of the whole what is not the first's; returns what of the first it needs.
    fn make_rest(&self, module: &mut Module) -> Result<Vec<Shared>, String> {
        let table = table(module)?;
        let memory = module.memories.iter().next().ok_or("the module has no memory")?.id();
        let numbers = functions(module);
        for id in module.exports.iter().map(|export| export.id()).collect::<Vec<_>>() {
            module.exports.delete(id);
        }
        module.start = None;
        for id in module.elements.iter().map(|element| element.id()).collect::<Vec<_>>() {
            module.elements.delete(id);
        }
        for id in module.data.iter().map(|data| data.id()).collect::<Vec<_>>() {
            module.data.delete(id);
        }
        for id in module.imports.iter().map(|import| import.id()).collect::<Vec<_>>() {
            module.imports.delete(id);
        }
        for (number, &id) in numbers.iter().enumerate().filter(|(number, _)| self.is_first[*number]) {
            let ty = module.funcs.get(id).ty();
            let import = module.imports.add(FIRST, &Shared::Function(number).name(), ImportKind::Function(id));
            module.funcs.get_mut(id).kind = FunctionKind::Import(ImportedFunction { import, ty });
        }
        for id in module.globals.iter().map(|global| global.id()).collect::<Vec<_>>() {
            let import = module.imports.add(FIRST, &Shared::Global(id.index()).name(), ImportKind::Global(id));
            module.globals.get_mut(id).kind = GlobalKind::Import(import);
        }
        let import = module.imports.add(FIRST, &Shared::Memory.name(), ImportKind::Memory(memory));
        let shared = module.memories.get_mut(memory);
        (shared.import, shared.data_segments) = (Some(import), HashSet::default());
        for id in module.tables.iter().map(|table| table.id()).collect::<Vec<_>>() {
            let import = module.imports.add(FIRST, &Shared::Table(id.index()).name(), ImportKind::Table(id));
            let shared = module.tables.get_mut(id);
            (shared.import, shared.elem_segments) = (Some(import), HashSet::default());
        }
        self.grow(module, table);
        let called = self.called.iter().enumerate().map(|(at, function)| (self.slots + at, *function));
        for (slot, functions) in runs(self.pointed.iter().copied().chain(called)) {
            let items = ElementItems::Functions(functions.iter().map(|function| numbers[*function]).collect());
            let kind = ElementKind::Active { table, offset: ConstExpr::Value(Value::I32(slot as i32)) };
            let id = module.elements.add(kind, items);
            module.tables.get_mut(table).elem_segments.insert(id);
        }
        walrus::passes::gc::run(module);
        let imported = module.imports.iter().map(|import| match import.kind {
            ImportKind::Function(id) => Ok(Shared::Function(id.index())),
            ImportKind::Global(id) => Ok(Shared::Global(id.index())),
            ImportKind::Table(id) => Ok(Shared::Table(id.index())),
            ImportKind::Memory(_) => Ok(Shared::Memory),
            ImportKind::Tag(_) => Err("the program throws exceptions of WebAssembly's".to_owned()),
        });
        imported.collect()
    }

    /// Puts calls through the table in place of the rest's functions, and exports what the rest wants.
    fn make_first(&self, module: &mut Module, wanted: &[Shared]) -> Result<(), String> {
        let table = table(module)?;
        let numbers = functions(module);
        for (at, &function) in self.called.iter().enumerate() {
            let ty = module.funcs.get(numbers[function]).ty();
            let (params, results) = module.types.params_results(ty);
            let (params, results) = (params.to_vec(), results.to_vec());
            let args: Vec<_> = params.iter().map(|ty| module.locals.add(*ty)).collect();
            let mut builder = FunctionBuilder::new(&mut module.types, &params, &results);
            let mut body = builder.func_body();
            for arg in &args {
                body.local_get(*arg);
            }
            body.i32_const((self.slots + at) as i32).call_indirect(ty, table);
            module.funcs.get_mut(numbers[function]).kind = FunctionKind::Local(builder.local_func(args));
        }
        // What a slot has until the rest is there.
        let mut builder = FunctionBuilder::new(&mut module.types, &[], &[]);
        builder.func_body().unreachable();
        let missing = builder.finish(Vec::new(), &mut module.funcs);
        for element in module.elements.iter_mut() {
            if let ElementItems::Functions(items) = &mut element.items {
                items.iter_mut().filter(|id| !self.is_first[id.index()]).for_each(|id| *id = missing);
            }
        }
        self.grow(module, table);
        for shared in wanted {
            let item = match *shared {
                Shared::Function(number) => ExportItem::Function(numbers[number]),
                Shared::Global(number) => {
                    let global = module.globals.iter().map(|global| global.id()).find(|id| id.index() == number);
                    ExportItem::Global(global.ok_or("a global has another number in the first")?)
                }
                Shared::Table(number) => {
                    let table = module.tables.iter().map(|table| table.id()).find(|id| id.index() == number);
                    ExportItem::Table(table.ok_or("a table has another number in the first")?)
                }
                Shared::Memory => ExportItem::Memory(module.memories.iter().next().ok_or("the module has no memory")?.id()),
            };
            module.exports.add(&shared.name(), item);
        }
        walrus::passes::gc::run(module);
        Ok(())
    }

    /// Gives the table the slots that the first calls the rest through.
    fn grow(&self, module: &mut Module, table: TableId) {
        let table = module.tables.get_mut(table);
        table.initial += self.called.len() as u64;
        table.maximum = table.maximum.map(|slots| slots + self.called.len() as u64);
    }
}

/// Whether a function is called only for an open cpu executor.
fn is_later(function: &Function) -> bool {
    let name = plain(function.name.as_deref().unwrap_or_default());
    let path = name.trim_start_matches(['<', '&']);
    let is_named = name.contains(LATER_PART) || LATER.iter().any(|begin| path.starts_with(begin));
    let is_of_it = is_named && !AT_ONCE.iter().any(|part| path.contains(part));
    is_of_it && matches!(&function.kind, FunctionKind::Local(function) if function.size() >= INSTRUCTIONS_MIN)
}

/// A function's name without what tells builds of a crate apart, `[0123abcd]`.
fn plain(name: &str) -> String {
    let mut parts = name.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_hash = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
        match part.split_once(']').filter(|(inside, _)| is_hash(inside)) {
            Some((_, after)) => plain.push_str(after),
            None => plain.extend(["[", part]),
        }
    }
    plain
}

fn functions(module: &Module) -> Vec<FunctionId> {
    module.funcs.iter().map(|function| function.id()).collect()
}

fn table(module: &Module) -> Result<TableId, String> {
    module.tables.main_function_table().map_err(|error| format!("{error:#}"))?.ok_or_else(|| "the module has no table of functions".into())
}

/// The functions that a function names, by number.
fn calls(module: &Module, id: FunctionId) -> Vec<usize> {
    struct Named(Vec<usize>);
    impl Visitor<'_> for Named {
        fn visit_function_id(&mut self, id: &FunctionId) {
            self.0.push(id.index());
        }
    }
    let FunctionKind::Local(function) = &module.funcs.get(id).kind else { return Vec::new() };
    let mut named = Named(Vec::new());
    dfs_in_order(&mut named, function, function.entry_block());
    named.0
}

/// The functions that a segment puts into the table, and the slot of the first.
fn pointers(element: &walrus::Element, table: TableId) -> Result<(usize, &[FunctionId]), String> {
    match (&element.kind, &element.items) {
        (ElementKind::Active { table: filled, offset: ConstExpr::Value(Value::I32(slot)) }, ElementItems::Functions(items)) if *filled == table => {
            Ok((*slot as usize, items))
        }
        _ => Err("a segment of the table is not a list of functions for constant slots".into()),
    }
}

/// Functions of neighbouring slots together.
fn runs(slots: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, Vec<usize>)> {
    let mut runs: Vec<(usize, Vec<usize>)> = Vec::new();
    for (slot, function) in slots {
        match runs.last_mut().filter(|(first, functions)| first + functions.len() == slot) {
            Some((_, functions)) => functions.push(function),
            None => runs.push((slot, vec![function])),
        }
    }
    runs
}
