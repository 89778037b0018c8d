//! A workload that has passed every check, and the order in which it runs.
//!
//! [`Program::check`] holds the declaration against the kernels: layouts, bindings, accesses, halos,
//! loops. What is left is plain: per pass the WGSL and what each binding is, per tick a list of
//! [`Op`]s. The exchanges stand in that list because they follow from the declaration alone, so every
//! peer derives the same ones. Invariant: a `Program` exists only for a manifest that passed.

use naga::proc::Layouter;
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use peercompute_buffers::Grid;
use peercompute_buffers::halo::Boundary;
use peercompute_buffers::layout::Element;
use peercompute_buffers::layout::{ElementKind, Scalar};
use peercompute_buffers::residency::HaloRules;

use crate::access::{self, Touches, Update, Where};
use crate::declaration::{Access, Class, Extent, Reduce};
use crate::diagnose::{ErrorKind, WorkloadError, error_at};
use crate::manifest::{Buffer, Manifest, Pass};
use crate::schedule::Schedule;
pub use crate::schedule::{Fresh, Op};
use crate::uniformity::{self, Diverging};
use crate::{link, reflect, source};

/// Bytes that an invocation has for private variables, for those of a function, and for a value (WGSL 2.4, "Limits").
const OWN_BYTES_MAX: u64 = 8192;

/// What a binding of a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The tile table.
    TileTable,
    /// The dispatch's own numbers.
    Dispatch,
    /// `struct Params`.
    Params,
    /// A buffer as of now.
    Current(usize),
    /// A buffer as it is being written.
    Next(usize),
}

/// One binding of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `@binding(number)` in group 0.
    pub number: u32,
    /// What it is.
    pub role: Role,
    /// Whether the kernel declares it `read_write`.
    pub writable: bool,
}

/// How a pass writes a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Into the current copy: the kernel reads the buffer through `X_next` at most.
    InPlace,
    /// Into the other copy, which then is the current one.
    Swap {
        /// Whether the current content has to be copied first: the kernel does not store every element.
        copies: bool,
    },
    /// A share per workgroup, combined in a fixed order.
    Partials,
    /// Integer atomics into one share per peer.
    Atomics,
}

/// A checked pass.
#[derive(Clone, Debug)]
pub struct CheckedPass {
    /// Invocations of a workgroup along x, y, z.
    pub workgroup: [u32; 3],
    /// Workgroups that cover a tile.
    pub groups_per_tile: [u32; 3],
    /// What it binds.
    pub bindings: Vec<Binding>,
    /// How it writes each of the pass' `writes`, in their order.
    pub writes: Vec<Write>,
    /// The deepest halo it reads.
    pub halo: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether its invocations know nothing of their workgroup: an executor may group them as it likes.
    pub is_free: bool,
    /// Whether its invocations know of their subgroups, which are an executor's own affair.
    pub uses_subgroups: bool,
}

/// A workload that can be run.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it was made from.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest's canonical bytes.
    pub hash: [u8; 32],
    /// Every buffer's element.
    pub elements: Vec<Element>,
    /// The layout of `struct Params`.
    pub params: Option<Element>,
    /// The passes, as in the manifest.
    pub passes: Vec<CheckedPass>,
    /// Per grid, what decides the layout of its fields.
    pub rules: Vec<HaloRules>,
    /// Everything that is ever exchanged at once.
    pub exchanges: Vec<Vec<Fresh>>,
    /// What runs once before tick 0.
    pub init: Vec<Op>,
    /// What runs in tick 0, 1, …; the last entry is every later tick's.
    pub ticks: Vec<Vec<Op>>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

impl Program {
    /// Checks a manifest from top to bottom.
    ///
    /// **Errors:** [`WorkloadError`], the first thing that is wrong.
    pub fn check(manifest: Manifest) -> Result<Program, WorkloadError> {
        let mut manifest = Some(manifest);
        source::on_deep_stack(|| manifest.take().map(Program::check_here))
            .unwrap_or_else(|| Err(ErrorKind::Declaration { cause: "the workload was checked already".into(), help: String::new() }.into()))
    }

    fn check_here(manifest: Manifest) -> Result<Program, WorkloadError> {
        let mut elements: Vec<Option<Element>> = vec![None; manifest.buffers.len()];
        let mut params = None;
        let mut passes = Vec::new();
        let mut warnings = Vec::new();
        check_shape(&manifest)?;
        for pass in &manifest.passes {
            let mut checker = PassChecker { manifest: &manifest, pass, elements: &mut elements, params: &mut params, warnings: &mut warnings };
            passes.push(checker.check()?);
        }
        let mut known = Vec::new();
        for (buffer, element) in manifest.buffers.iter().zip(elements) {
            let element = element.ok_or_else(|| ErrorKind::Declaration {
                cause: format!("no kernel of the workload has a variable for the buffer `{}`", buffer.name),
                help: "bind it, or take it out".into(),
            })?;
            check_buffer(buffer, &element)?;
            known.push(element);
        }
        if params.as_ref().map_or(0, |element: &Element| element.size as usize) != manifest.params.len() {
            return Err(ErrorKind::Declaration { cause: "the parameters' bytes are not those of `struct Params`".into(), help: String::new() }.into());
        }
        check_writers(&manifest)?;
        let rules = halo_rules(&manifest);
        let Schedule { exchanges, init, ticks } = Schedule::new(&manifest);
        let hash = crate::bundle::manifest_hash(&manifest);
        Ok(Program { hash, elements: known, params, passes, rules, exchanges, init, ticks, warnings, manifest })
    }

    /// The steps of a tick.
    pub fn tick(&self, tick: u64) -> &[Op] {
        &self.ticks[(tick as usize).min(self.ticks.len() - 1)]
    }

    /// The grid of a field; `None` for a table.
    pub fn grid_of(&self, buffer: usize) -> Option<Grid> {
        match self.manifest.buffers[buffer].extent {
            Extent::Field { grid } => Some(self.manifest.grids[grid].grid),
            Extent::Table { .. } => None,
        }
    }

    /// A buffer's number.
    pub fn buffer(&self, name: &str) -> Option<usize> {
        self.manifest.buffers.iter().position(|buffer| buffer.name == name)
    }

    /// Whether a buffer has two copies: some pass reads it and writes it to the other side.
    pub fn is_double(&self, buffer: usize) -> bool {
        self.manifest
            .passes
            .iter()
            .zip(&self.passes)
            .any(|(pass, checked)| pass.writes.iter().zip(&checked.writes).any(|(&b, write)| b == buffer && matches!(write, Write::Swap { .. })))
    }

    /// The grid whose tiles contribute to a reduced table: that of the pass that writes it.
    pub fn contributors(&self, table: usize) -> Option<usize> {
        self.manifest.passes.iter().find(|pass| pass.writes.contains(&table)).map(|pass| pass.grid)
    }

    /// Elements that a tick updates: what `elements_per_s` counts. Every point of every grid that a pass
    /// runs over counts once, however many passes and fields there are.
    pub fn elements_per_tick(&self) -> u64 {
        let mut grids: Vec<usize> = self.manifest.passes.iter().filter(|pass| !pass.init).map(|pass| pass.grid).collect();
        grids.sort_unstable();
        grids.dedup();
        grids.iter().map(|&grid| self.manifest.grids[grid].grid.points()).sum()
    }

    /// Bytes that the passes of a tick read and write in executor memory, halos not counted.
    pub fn bytes_per_tick(&self) -> u64 {
        let bytes = |&buffer: &usize| self.grid_of(buffer).map_or(0, |grid| grid.points() * u64::from(self.elements[buffer].stride));
        self.manifest
            .passes
            .iter()
            .filter(|pass| !pass.init)
            .map(|pass| {
                let mut read: Vec<usize> = pass.reads.iter().map(|(b, _)| *b).collect();
                read.sort_unstable();
                read.dedup();
                read.iter().map(bytes).sum::<u64>() + pass.writes.iter().map(bytes).sum::<u64>()
            })
            .sum()
    }

    /// The parameters' bytes with one of them changed.
    ///
    /// **Errors:** no such parameter, or a value that does not fit.
    pub fn set_param(&self, params: &mut [u8], name: &str, value: &str) -> Result<(), WorkloadError> {
        let fields = match self.params.as_ref().map(|element| &element.kind) {
            Some(ElementKind::Struct(fields)) => fields.as_slice(),
            _ => &[],
        };
        let known: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
        let field =
            fields.iter().find(|field| field.name == name).ok_or_else(|| ErrorKind::Unknown { what: "parameter", name: name.into(), known })?;
        let parsed: toml::Table = format!("value = {value}").parse().map_err(|_| ErrorKind::Declaration {
            cause: format!("`{name}={value}`: the value is not TOML"),
            help: "write a number, `true`, or a list `[1.0, 2.0]`".into(),
        })?;
        let at = field.offset as usize;
        reflect::write_value(&field.element, name, &parsed["value"], &mut params[at..at + field.element.size as usize])
            .map_err(|error| crate::manifest::value_error(error).into())
    }
}

impl Program {
    /// What the parameters' bytes say, field by field; those that are no scalar and no vector are left out.
    pub fn param_values<'a>(&'a self, params: &'a [u8]) -> impl Iterator<Item = ParamValue<'a>> {
        let fields = match self.params.as_ref().map(|element| &element.kind) {
            Some(ElementKind::Struct(fields)) => fields.as_slice(),
            _ => &[],
        };
        fields.iter().filter_map(move |field| {
            let (scalar, count) = match field.element.kind {
                ElementKind::Scalar(scalar) => (scalar, 1),
                ElementKind::Vector(scalar, count) => (scalar, count as usize),
                _ => return None,
            };
            let words = params.get(field.offset as usize..)?.chunks_exact(4).take(count);
            let lane = |word: &[u8]| {
                let word = [word[0], word[1], word[2], word[3]];
                match scalar {
                    Scalar::F32 => f64::from(f32::from_le_bytes(word)),
                    Scalar::I32 => f64::from(i32::from_le_bytes(word)),
                    Scalar::U32 => f64::from(u32::from_le_bytes(word)),
                }
            };
            Some(ParamValue { name: &field.name, element: &field.element.name, lanes: words.map(lane).collect() })
        })
    }
}

/// A parameter as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamValue<'a> {
    /// The field of `struct Params`.
    pub name: &'a str,
    /// Its WGSL type: a scalar or a vector.
    pub element: &'a str,
    /// Its scalars.
    pub lanes: Vec<f64>,
}

/// The rules that a declaration's parser keeps and a decoded manifest might not.
fn check_shape(manifest: &Manifest) -> Result<(), WorkloadError> {
    let wrong = |cause: String| WorkloadError::from(ErrorKind::Declaration { cause, help: String::new() });
    if manifest.grids.is_empty() || manifest.buffers.is_empty() || !manifest.passes.iter().any(|pass| !pass.init) {
        return Err(wrong("a workload has at least a grid, a buffer and a pass".into()));
    }
    if manifest.buffers.len() > crate::declaration::BUFFERS_MAX || manifest.passes.len() > crate::declaration::PASSES_MAX {
        return Err(wrong("the workload has too many buffers or passes".into()));
    }
    for grid in &manifest.grids {
        grid.grid.check().map_err(|error| wrong(error.to_string()))?;
    }
    for buffer in &manifest.buffers {
        match buffer.extent {
            Extent::Field { grid } if grid >= manifest.grids.len() => return Err(wrong(format!("`{}` belongs to no grid", buffer.name))),
            Extent::Table { length, .. } if length == 0 || u64::from(length) > crate::declaration::TABLE_LENGTH_MAX => {
                return Err(wrong(format!("the table `{}` has {length} elements", buffer.name)));
            }
            _ => {}
        }
        if manifest.buffers.iter().filter(|other| other.name == buffer.name).count() > 1 {
            return Err(wrong(format!("two buffers are named `{}`", buffer.name)));
        }
    }
    for pass in &manifest.passes {
        let grid = manifest.grids.get(pass.grid).ok_or_else(|| wrong(format!("`{}` runs over no grid", pass.entry)))?.grid;
        let touched = pass.reads.iter().map(|(b, _)| b).chain(&pass.writes);
        for &buffer in touched {
            if buffer >= manifest.buffers.len() {
                return Err(wrong(format!("`{}` names a buffer that does not exist", pass.entry)));
            }
        }
        for &(buffer, access) in &pass.reads {
            let own_grid = matches!(manifest.buffers[buffer].extent, Extent::Field { grid } if grid == pass.grid);
            if !own_grid && access != Access::All {
                return Err(wrong(format!("`{}` reads `{}` as if it were of its own grid", pass.entry, manifest.buffers[buffer].name)));
            }
            if let Access::Halo(halo) = access
                && let Some(axis) = (0..usize::from(grid.dims)).find(|&axis| halo > grid.tile[axis])
            {
                return Err(ErrorKind::HaloTooLarge { halo, tile: grid.tile[axis], axis: ['x', 'y', 'z'][axis] }.into());
            }
        }
        for &buffer in &pass.writes {
            match manifest.buffers[buffer].extent {
                Extent::Field { grid } if grid == pass.grid => {}
                Extent::Table { reduce: Some(_), .. } => {}
                _ => return Err(wrong(format!("`{}` cannot write `{}`", pass.entry, manifest.buffers[buffer].name))),
            }
        }
    }
    Ok(())
}

fn check_buffer(buffer: &crate::manifest::Buffer, element: &Element) -> Result<(), WorkloadError> {
    let wrong = |cause: String, help: &str| WorkloadError::from(ErrorKind::Declaration { cause, help: help.into() });
    if buffer.element != element.name {
        return Err(ErrorKind::ElementMismatch { buffer: buffer.name.clone(), declared: buffer.element.clone(), found: element.name.clone() }.into());
    }
    let constant = if buffer.boundary == Boundary::Constant { element.stride as usize } else { 0 };
    if buffer.constant.len() != constant {
        return Err(wrong(format!("the constant of `{}` is not one element", buffer.name), ""));
    }
    if let Extent::Table { length, reduce } = buffer.extent {
        if !buffer.values.is_empty() && buffer.values.len() != length as usize * element.stride as usize {
            return Err(wrong(format!("the values of `{}` do not fill the table", buffer.name), ""));
        }
        if reduce.is_some() && element.uniform_scalar().is_none() {
            return Err(wrong(format!("`{}` is reduced, and `{}` is not one kind of scalar", buffer.name, element.name), "use a scalar or a vector"));
        }
    }
    Ok(())
}

/// A reduced table has one writer, so that its shares are those of one grid's tiles.
fn check_writers(manifest: &Manifest) -> Result<(), WorkloadError> {
    for (index, buffer) in manifest.buffers.iter().enumerate() {
        let writers: Vec<&Pass> = manifest.passes.iter().filter(|pass| pass.writes.contains(&index)).collect();
        if let (Extent::Table { .. }, [first, second, ..]) = (buffer.extent, writers.as_slice()) {
            return Err(ErrorKind::Declaration {
                cause: format!("`{}` is written by `{}` and by `{}`", buffer.name, first.entry, second.entry),
                help: "a table is written by one pass: use two tables".into(),
            }
            .into());
        }
    }
    Ok(())
}

fn halo_rules(manifest: &Manifest) -> Vec<HaloRules> {
    (0..manifest.grids.len())
        .map(|grid| {
            let mut rules = HaloRules { depth: 0, boundaries: Vec::new(), whole: false };
            for &(buffer, access) in manifest.passes.iter().flat_map(|pass| &pass.reads) {
                if !matches!(manifest.buffers[buffer].extent, Extent::Field { grid: g } if g == grid) {
                    continue;
                }
                match access {
                    Access::Own => {}
                    Access::All => rules.whole = true,
                    Access::Halo(depth) => {
                        rules.depth = rules.depth.max(depth);
                        rules.boundaries.push(manifest.buffers[buffer].boundary);
                    }
                }
            }
            rules.boundaries.sort_unstable();
            rules.boundaries.dedup();
            rules
        })
        .collect()
}

struct PassChecker<'a> {
    manifest: &'a Manifest,
    pass: &'a Pass,
    elements: &'a mut Vec<Option<Element>>,
    params: &'a mut Option<Element>,
    warnings: &'a mut Vec<String>,
}

impl PassChecker<'_> {
    fn at(&self, kind: ErrorKind, span: naga::Span) -> WorkloadError {
        error_at(kind, &self.pass.file, &self.pass.wgsl, source::range(span))
    }

    /// An error about the whole of an entry point: where its function begins.
    fn at_entry(&self, kind: ErrorKind) -> WorkloadError {
        let (text, entry) = (&self.pass.wgsl, &self.pass.entry);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let is_head = |at: usize| {
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let is_comment = text[line..at].contains("//");
            !is_comment && text[..at].trim_end().ends_with("fn") && !text[at + entry.len()..].starts_with(is_word)
        };
        match text.match_indices(entry.as_str()).map(|(at, _)| at).find(|at| is_head(*at)) {
            Some(at) => error_at(kind, &self.pass.file, text, at..at + entry.len()),
            None => kind.into(),
        }
    }

    fn diverging(&self, found: &Diverging) -> WorkloadError {
        let cause = format!("`{}` has a `{}` that not every invocation of a workgroup reaches", self.pass.entry, found.construct);
        let mut notes = Vec::new();
        if let (Some(function), false) = (&found.function, found.calls.is_empty()) {
            let lines: Vec<_> = found.calls.iter().map(|call| source::line_of(&self.pass.wgsl, *call).to_string()).collect();
            notes.push(format!("this is `{function}` as it is called in line {}", lines.join(", from there in line ")));
        }
        let flow = "keep barriers where control flow is uniform: not under a condition on `c`, the id or shared data, nor after a `return` under one";
        notes.push(flow.into());
        self.at(ErrorKind::Wgsl { cause, notes }, found.span)
    }

    fn check(&mut self) -> Result<CheckedPass, WorkloadError> {
        let pass = self.pass;
        source::check_linked(&pass.file, &pass.wgsl)?;
        let module = link::parse(&pass.file, &pass.wgsl, pass.wgsl.len())?;
        if let Some(span) = access::other_width(&module) {
            let cause = "kernels compute with `f32`, `i32`, `u32` and `bool` alone: not every GPU has others".to_string();
            let notes = vec!["halves can be kept in memory: `pack2x16float`, `unpack2x16float`".to_string()];
            return Err(self.at(ErrorKind::Wgsl { cause, notes }, span));
        }
        let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP)
            .validate(&module)
            .map_err(|error| {
                let span = error.spans().map(|(span, _)| *span).find(naga::Span::is_defined);
                // Of some errors naga knows only the entry point.
                let span = span.or_else(|| Some(naga::Span::new(pass.wgsl.find(&format!("fn {}", pass.entry))? as u32, 0)));
                let span = span.unwrap_or(naga::Span::UNDEFINED);
                let (cause, mut notes) = source::invalid(&error);
                if cause.contains("SUBGROUP") {
                    notes.push(
                        "`subgroupBarrier` is no WGSL: invocations of a subgroup meet in every operation on it, of a workgroup in `workgroupBarrier`"
                            .into(),
                    );
                }
                self.at(ErrorKind::Wgsl { cause, notes }, span)
            })?;
        let Some(entry) = module.entry_points.iter().position(|entry| entry.name == pass.entry && entry.stage == naga::ShaderStage::Compute) else {
            let known = module.entry_points.iter().map(|entry| entry.name.clone()).collect();
            return Err(ErrorKind::Unknown { what: "entry point", name: pass.entry.clone(), known }.into());
        };
        if let Some(span) = access::endless_loop(&module, entry) {
            return Err(self.at(ErrorKind::EndlessLoop { entry: pass.entry.clone() }, span));
        }
        let touched = access::touches(&module, entry).map_err(|_| {
            self.at_entry(ErrorKind::TooComplex { what: "calls in one kernel", count: access::CALLS_MAX + 1, limit: access::CALLS_MAX })
        })?;
        if let Some(found) = uniformity::diverging_barrier(&module, entry) {
            return Err(self.diverging(&found));
        }
        let uses_subgroups = access::uses_subgroups(&module, entry);
        if uses_subgroups && self.manifest.class == Class::Exact {
            self.warnings.push(format!(
                "`{}` uses subgroups, whose size is each executor's own: the class is `exact` only if no result depends on it",
                pass.entry
            ));
        }
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).map_err(|error| ErrorKind::Wgsl { cause: error.to_string(), notes: Vec::new() })?;
        self.check_own_memory(&module, &info, &layouter, entry)?;
        let uses = info.get_entry_point(entry);
        let mut bindings = Vec::new();
        let mut variables: Vec<Variable> = Vec::new();
        let mut workgroup_bytes = 0u64;
        for (handle, variable) in module.global_variables.iter() {
            let name = variable.name.clone().unwrap_or_default();
            let span = module.global_variables.get_span(handle);
            let used = uses[handle];
            if variable.space == naga::AddressSpace::WorkGroup && !used.is_empty() {
                workgroup_bytes += u64::from(layouter[variable.ty].size);
            }
            let Some(binding) = variable.binding else { continue };
            let writable = matches!(variable.space, naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE));
            let role = match name.as_str() {
                "tile" => Role::TileTable,
                "pc_dispatch" => Role::Dispatch,
                "params" => {
                    let element = reflect::element(&module, &layouter, variable.ty)
                        .map_err(|error| self.at(ErrorKind::Wgsl { cause: error.to_string(), notes: Vec::new() }, span))?;
                    if variable.space != naga::AddressSpace::Uniform {
                        let notes = vec!["declare `var<uniform> params: Params;`".to_string()];
                        return Err(self.at(ErrorKind::Wgsl { cause: "`params` is not a uniform".into(), notes }, span));
                    }
                    if self.params.as_ref().is_some_and(|known| *known != element) {
                        let cause = "`struct Params` differs between the kernels of the workload".to_string();
                        return Err(self.at(ErrorKind::Wgsl { cause, notes: Vec::new() }, span));
                    }
                    reflect::check_size("params", &element).map_err(|kind| self.at(kind, span))?;
                    *self.params = Some(element);
                    Role::Params
                }
                _ => {
                    let (base, next) = name.strip_suffix("_next").map_or((name.as_str(), false), |base| (base, true));
                    let Some(buffer) = self.manifest.buffers.iter().position(|b| b.name == base) else {
                        let known = self.manifest.buffers.iter().map(|b| b.name.clone()).collect();
                        return Err(self.at(ErrorKind::BindingWithoutBuffer { name, known }, span));
                    };
                    if !matches!(variable.space, naga::AddressSpace::Storage { .. }) {
                        let notes = vec![format!("declare `var<storage, read> {name}: array<{}>;`", self.manifest.buffers[buffer].element)];
                        return Err(self.at(ErrorKind::Wgsl { cause: format!("`{name}` is a buffer and not in `storage`"), notes }, span));
                    }
                    self.element_of(&module, &layouter, variable.ty, buffer, span)?;
                    if next { Role::Next(buffer) } else { Role::Current(buffer) }
                }
            };
            if !used.is_empty() {
                bindings.push(Binding { number: binding.binding, role, writable });
                if let Role::Current(_) | Role::Next(_) = role {
                    let used_update = access::used_update(&module, &info, entry, handle);
                    variables.push(Variable { role, used, touches: touched[handle.index()].clone(), used_update, span });
                }
            }
        }
        let writes = self.accesses(&variables)?;
        let checked = &module.entry_points[entry];
        let grid = &self.manifest.grids[pass.grid].grid;
        Ok(CheckedPass {
            workgroup: checked.workgroup_size,
            groups_per_tile: link::groups_per_tile(grid, checked.workgroup_size),
            bindings,
            uses_subgroups,
            is_free: access::is_free(&module, entry) && !writes.iter().any(|write| matches!(write, Write::Partials | Write::Atomics)),
            writes,
            halo: link::pass_halo(&pass.reads),
            workgroup_bytes: workgroup_bytes.min(u64::from(u32::MAX)) as u32,
        })
    }

    /// Holds what every invocation keeps for itself against what WGSL promises; beyond it drivers hang.
    fn check_own_memory(&self, module: &naga::Module, info: &ModuleInfo, layouter: &Layouter, entry: usize) -> Result<(), WorkloadError> {
        let hold = |what: String, bytes: u64, span: naga::Span| match bytes {
            0..=OWN_BYTES_MAX => Ok(()),
            _ => {
                let cause = format!("{what} take {bytes} bytes, an invocation has {OWN_BYTES_MAX}");
                let notes = vec!["keep large arrays in a buffer, or share them in workgroup memory".to_string()];
                Err(self.at(ErrorKind::Wgsl { cause, notes }, span))
            }
        };
        let bytes = |ty: naga::Handle<naga::Type>| u64::from(layouter[ty].size);
        let uses = info.get_entry_point(entry);
        let mut private = 0;
        for (handle, variable) in module.global_variables.iter() {
            if variable.space == naga::AddressSpace::Private && !uses[handle].is_empty() {
                private += bytes(variable.ty);
                hold("private variables".into(), private, module.global_variables.get_span(handle))?;
            }
        }
        let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
        for (function, info) in functions.chain([(&module.entry_points[entry].function, uses)]) {
            let name = function.name.as_deref().unwrap_or(&self.pass.entry);
            let mut own = 0;
            for (handle, variable) in function.local_variables.iter() {
                own += bytes(variable.ty);
                hold(format!("the variables of `{name}`"), own, function.local_variables.get_span(handle))?;
            }
            for (handle, _) in function.expressions.iter() {
                if let Some(ty) = info[handle].ty.handle() {
                    hold("values of this type".into(), bytes(ty), function.expressions.get_span(handle))?;
                }
            }
        }
        Ok(())
    }

    fn element_of(
        &mut self,
        module: &naga::Module,
        layouter: &Layouter,
        ty: naga::Handle<naga::Type>,
        buffer: usize,
        span: naga::Span,
    ) -> Result<(), WorkloadError> {
        let declared = &self.manifest.buffers[buffer];
        let mismatch = |found: String| ErrorKind::ElementMismatch { buffer: declared.name.clone(), declared: declared.element.clone(), found };
        let (base, size) = match module.types[ty].inner {
            naga::TypeInner::Array { base, size, .. } => (base, size),
            _ => {
                let cause = format!("`{}` is a {}, and a buffer is an array", declared.name, reflect::type_name(module, ty));
                let notes = vec![format!("declare `array<{}>`", declared.element)];
                return Err(self.at(ErrorKind::Wgsl { cause, notes }, span));
            }
        };
        let fits = match (size, declared.extent) {
            (naga::ArraySize::Dynamic, _) => true,
            (naga::ArraySize::Constant(count), Extent::Table { length, .. }) => count.get() == length,
            _ => false,
        };
        if !fits {
            let cause = format!("`{}` has a fixed length that is not the buffer's", declared.name);
            let notes = vec![format!("declare `array<{}>`", declared.element)];
            return Err(self.at(ErrorKind::Wgsl { cause, notes }, span));
        }
        let element = reflect::element(module, layouter, base)
            .map_err(|error| self.at(ErrorKind::Wgsl { cause: error.to_string(), notes: Vec::new() }, span))?;
        if element.name != declared.element {
            return Err(self.at(mismatch(element.name), span));
        }
        if self.elements[buffer].as_ref().is_some_and(|known| *known != element) {
            let cause = format!("`struct {}` differs between the kernels of the workload", element.name);
            return Err(self.at(ErrorKind::Wgsl { cause, notes: Vec::new() }, span));
        }
        reflect::check_size(&declared.name, &element).map_err(|kind| self.at(kind, span))?;
        self.elements[buffer] = Some(element);
        Ok(())
    }

    /// Holds what the kernel touches against what the pass declares; says how each buffer is written.
    fn accesses(&mut self, variables: &[Variable]) -> Result<Vec<Write>, WorkloadError> {
        let (pass, manifest) = (self.pass, self.manifest);
        let entry = || pass.entry.clone();
        let name = |buffer: usize| manifest.buffers[buffer].name.clone();
        let find = |role: Role| variables.iter().find(|variable| variable.role == role);
        for variable in variables {
            match variable.role {
                Role::Current(buffer) => {
                    if variable.used.intersects(GlobalUse::WRITE | GlobalUse::ATOMIC) {
                        let declared = pass.writes.contains(&buffer);
                        let help = if declared {
                            format!("write to `{}_next`; `{0}` is the buffer as of now", name(buffer))
                        } else {
                            format!("declare `writes = [\"{}\"]` and write to `{0}_next`", name(buffer))
                        };
                        return Err(
                            self.at(ErrorKind::UndeclaredAccess { entry: entry(), does: "writes", buffer: name(buffer), help }, variable.span)
                        );
                    }
                    self.check_read(buffer, variable)?;
                }
                Role::Next(buffer) => {
                    if !pass.writes.contains(&buffer) {
                        let help = format!("declare `writes = [\"{}\"]`, or read `{0}`", name(buffer));
                        return Err(
                            self.at(ErrorKind::UndeclaredAccess { entry: entry(), does: "writes", buffer: name(buffer), help }, variable.span)
                        );
                    }
                    self.check_write(buffer, variable, find(Role::Current(buffer)).is_some())?;
                }
                _ => {}
            }
        }
        for &(buffer, _) in &pass.reads {
            if find(Role::Current(buffer)).is_none() && !(pass.writes.contains(&buffer) && find(Role::Next(buffer)).is_some()) {
                if self.has_variable(&name(buffer)) {
                    self.warnings.push(format!(
                        "`{}` declares that it reads `{}`, but does not: its halo is shipped for nothing",
                        pass.entry,
                        name(buffer)
                    ));
                } else {
                    let kind = ErrorKind::BufferWithoutBinding { entry: entry(), does: "reads", buffer: name(buffer), variable: name(buffer) };
                    return Err(self.at_entry(kind));
                }
            }
        }
        let mut writes = Vec::new();
        for &buffer in &pass.writes {
            let Some(next) = find(Role::Next(buffer)) else {
                let variable = format!("{}_next", name(buffer));
                return Err(self.at_entry(if self.has_variable(&variable) {
                    ErrorKind::UnusedAccess { entry: entry(), does: "writes", buffer: name(buffer) }
                } else {
                    ErrorKind::BufferWithoutBinding { entry: entry(), does: "writes", buffer: name(buffer), variable }
                }));
            };
            let reads_current = find(Role::Current(buffer)).is_some();
            let write = match manifest.buffers[buffer].extent {
                Extent::Table { .. } if next.touches.atomic.is_some() => Write::Atomics,
                Extent::Table { .. } => Write::Partials,
                Extent::Field { .. } if reads_current => {
                    let copies = !next.touches.total;
                    if copies {
                        self.warnings.push(format!(
                            "`{}` may leave elements of `{}` unwritten: they keep their value, at the cost of one copy of the buffer per tick",
                            pass.entry,
                            name(buffer)
                        ));
                    }
                    Write::Swap { copies }
                }
                Extent::Field { .. } => Write::InPlace,
            };
            writes.push(write);
        }
        Ok(writes)
    }

    fn has_variable(&self, name: &str) -> bool {
        // The module was parsed already; a variable's declaration is the only place where `name:` follows `>`.
        link::parse(&self.pass.file, &self.pass.wgsl, self.pass.wgsl.len())
            .is_ok_and(|module| module.global_variables.iter().any(|(_, variable)| variable.name.as_deref() == Some(name)))
    }

    fn check_read(&self, buffer: usize, variable: &Variable) -> Result<(), WorkloadError> {
        let (pass, declared) = (self.pass, &self.manifest.buffers[buffer]);
        let access = pass.reads.iter().find(|(b, _)| *b == buffer).map(|(_, access)| *access);
        let own_write = pass.writes.contains(&buffer);
        let undeclared = |help: String| {
            self.at(ErrorKind::UndeclaredAccess { entry: pass.entry.clone(), does: "reads", buffer: declared.name.clone(), help }, variable.span)
        };
        let Some(place) = variable.touches.load else { return Ok(()) };
        let access = match access {
            Some(access) => access,
            None if own_write => Access::Own,
            None => return Err(undeclared(format!("declare `reads = {{ {} = \"own\" }}`", declared.name))),
        };
        if matches!(declared.extent, Extent::Table { .. }) {
            return Ok(());
        }
        let limit = match access {
            Access::All => return Ok(()),
            Access::Own => 0,
            Access::Halo(depth) => depth,
        };
        match place {
            Where::Own => Ok(()),
            Where::Near(away) => {
                let dims = usize::from(self.manifest.grids[pass.grid].grid.dims);
                match (0..dims).find(|&axis| away[axis] > limit) {
                    None => Ok(()),
                    Some(axis) => Err(self.at(
                        ErrorKind::BeyondHalo {
                            entry: pass.entry.clone(),
                            buffer: declared.name.clone(),
                            axis: ['x', 'y', 'z'][axis],
                            given: away[axis].into(),
                            declared: if limit == 0 { "only the own element".into() } else { format!("a halo of {limit}") },
                        },
                        variable.span,
                    )),
                }
            }
            // A distance that is not constant may be as far as the pass' deepest halo.
            Where::Halo if limit == link::pass_halo(&pass.reads) && limit > 0 => Ok(()),
            Where::Halo => Err(undeclared(format!(
                "the distance in `at` is not constant: declare `{} = {{ halo = {} }}`",
                declared.name,
                link::pass_halo(&pass.reads).max(1)
            ))),
            Where::Anywhere | Where::Share => {
                Err(undeclared("the index is neither `cell(id).index` nor from `at`: read it so, or declare `\"all\"`".into()))
            }
        }
    }

    /// What a workgroup adds to a table must not show who came first, nor where it ran.
    fn check_share(&self, declared: &Buffer, reduce: Option<Reduce>, store: Where, variable: &Variable) -> Result<(), WorkloadError> {
        let (entry, name) = (&self.pass.entry, &declared.name);
        let wrong = |cause: String, note: String, span: naga::Span| Err(self.at(ErrorKind::Wgsl { cause, notes: vec![note] }, span));
        let Some(update) = variable.touches.atomic else {
            return match (variable.touches.load, store) {
                (Some(_), _) => {
                    let note = "keep it in a variable or in workgroup memory".to_string();
                    wrong(format!("`{entry}` reads its own share of `{name}`"), note, variable.span)
                }
                (None, Where::Share) => Ok(()),
                (None, _) => {
                    let note = format!("store to `{name}_next[partial(c, k)]` with `c = cell(id)`, for each element `k`");
                    wrong(format!("`{entry}` stores to `{name}` at another index than that of its workgroup's share"), note, variable.span)
                }
            };
        };
        let (wanted, operation, reduction) = match reduce {
            // The declaration has been held against what passes write.
            None => return Ok(()),
            Some(Reduce::Sum) => (Update::Add, "atomicAdd", "sum"),
            Some(Reduce::Min) => (Update::Min, "atomicMin", "min"),
            Some(Reduce::Max) => (Update::Max, "atomicMax", "max"),
        };
        if update != wanted {
            let cause = format!("`{entry}` updates `{name}` by other operations than that of its reduction, `{reduction}`");
            return wrong(cause, format!("use `{operation}` alone: no load, store or exchange either"), variable.span);
        }
        match variable.used_update {
            Some(span) => wrong(
                format!("`{entry}` uses what an atomic operation on `{name}` returns"),
                "it depends on who came first, and on the partition: passes after this one read the whole".to_string(),
                span,
            ),
            None => Ok(()),
        }
    }

    fn check_write(&self, buffer: usize, variable: &Variable, reads_current: bool) -> Result<(), WorkloadError> {
        let (pass, declared) = (self.pass, &self.manifest.buffers[buffer]);
        let wrong = |cause: String, note: &str| Err(self.at(ErrorKind::Wgsl { cause, notes: vec![note.to_string()] }, variable.span));
        let Some(store) = variable.touches.store else {
            return Err(self.at(ErrorKind::UnusedAccess { entry: pass.entry.clone(), does: "writes", buffer: declared.name.clone() }, variable.span));
        };
        if let Extent::Table { reduce, .. } = declared.extent {
            return self.check_share(declared, reduce, store, variable);
        }
        if store != Where::Own {
            return wrong(
                format!("`{}` writes `{}` at an index that is not the invocation's own", pass.entry, declared.name),
                "store to `X_next[cell(id).index]` only: a pass writes its own tile, one element per invocation",
            );
        }
        match variable.touches.load {
            Some(_) if reads_current => {
                wrong(format!("`{}` reads `{}_next` while it writes it", pass.entry, declared.name), "read the buffer without `_next`")
            }
            Some(place) if place != Where::Own => wrong(
                format!("`{}` reads neighbours in `{}_next` while they are being written", pass.entry, declared.name),
                "read the buffer without `_next`",
            ),
            _ => Ok(()),
        }
    }
}

struct Variable {
    role: Role,
    used: GlobalUse,
    touches: Touches,
    /// Where the result of an atomic operation on it is used.
    used_update: Option<naga::Span>,
    span: naga::Span,
}

/// What neutral element a reduction starts from, as the word of a scalar.
pub fn identity_word(reduce: Reduce, scalar: peercompute_buffers::layout::Scalar) -> u32 {
    use peercompute_buffers::layout::Scalar::{F32, I32, U32};
    match (reduce, scalar) {
        (Reduce::Sum, _) => 0,
        (Reduce::Min, F32) => f32::MAX.to_bits(),
        (Reduce::Max, F32) => f32::MIN.to_bits(),
        (Reduce::Min, I32) => i32::MAX as u32,
        (Reduce::Max, I32) => i32::MIN as u32,
        (Reduce::Min, U32) => u32::MAX,
        (Reduce::Max, U32) => 0,
    }
}
