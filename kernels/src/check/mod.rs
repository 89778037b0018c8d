//! The checks of a workload's WGSL: its kernels held against what the manifest declares, pass by pass.
//!
//! ```text
//! WGSL ─ naga: parse, validate ─┬─ access      what every variable is read and written at, loops that cannot end
//!                               ├─ uniformity  barriers that not all of a workgroup reach
//!                               └─ reflect     layouts, bindings
//!                                    └─► Reflection
//! ```
//!
//! In a browser all of this is in the module that a tab with WebGPU does without (`xtask/src/split.rs`). Invariant: it is called through [`kernels`]
//! alone, by [`Program::check`](crate::Program::check) and by a bundle that has arrived.

mod access;
mod uniformity;

use naga::proc::Layouter;
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use peercompute_buffers::layout::Element;

use self::access::{Touches, Update, Where};
use self::uniformity::Diverging;
use crate::declaration::{Access, Class, Extent, Reduce};
use crate::diagnose::{ErrorKind, WorkloadError, error_at};
use crate::manifest::{Buffer, Manifest, Pass};
use crate::reflection::{Binding, CheckedPass, NESTING_MAX, Reflection, Role, Write};
use crate::{link, reflect, source};

/// Bytes that an invocation has for private variables, for those of a function, and for a value (WGSL 2.4, "Limits").
const OWN_BYTES_MAX: u64 = 8192;

/// What the checks found.
pub(crate) struct Findings {
    /// What is known of the kernels.
    pub(crate) reflection: Reflection,
    /// What is allowed but probably not meant.
    pub(crate) warnings: Vec<String>,
}

/// Checks the kernels of a manifest whose numbers are within their lists.
///
/// **Errors:** [`WorkloadError`], the first thing that is wrong.
// Apart from its callers, so that it can be in another module than they are.
#[inline(never)]
pub(crate) fn kernels(manifest: &Manifest) -> Result<Findings, WorkloadError> {
    source::on_deep_stack(|| kernels_here(manifest))
}

fn kernels_here(manifest: &Manifest) -> Result<Findings, WorkloadError> {
    let mut elements: Vec<Option<Element>> = vec![None; manifest.buffers.len()];
    let mut params = None;
    let mut passes = Vec::new();
    let mut warnings = Vec::new();
    for pass in &manifest.passes {
        let mut checker = PassChecker { manifest, pass, elements: &mut elements, params: &mut params, warnings: &mut warnings };
        passes.push(checker.check()?);
    }
    let known = manifest.buffers.iter().zip(elements).map(|(buffer, element)| {
        let none = || ErrorKind::Declaration {
            cause: format!("no kernel of the workload has a variable for the buffer `{}`", buffer.name),
            help: "bind it, or take it out".into(),
        };
        element.ok_or_else(|| none().into())
    });
    let elements = known.collect::<Result<_, WorkloadError>>()?;
    Ok(Findings { reflection: Reflection { elements, params, passes }, warnings })
}

/// How deep arrays and structs nest, and where those do that nest deepest.
fn deepest(module: &naga::Module) -> Option<(usize, naga::Span)> {
    let mut depths: Vec<usize> = Vec::with_capacity(module.types.len());
    // A type comes after those that it is of.
    for (_, ty) in module.types.iter() {
        let within = |of: naga::Handle<naga::Type>| depths[of.index()];
        depths.push(match &ty.inner {
            naga::TypeInner::Array { base, .. } => 1 + within(*base),
            naga::TypeInner::Struct { members, .. } => 1 + members.iter().map(|member| within(member.ty)).max().unwrap_or(0),
            _ => 0,
        });
    }
    let (handle, depth) = module.types.iter().map(|(handle, _)| (handle, depths[handle.index()])).max_by_key(|(_, depth)| *depth)?;
    Some((depth, module.types.get_span(handle)))
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
        if let Some((depth, span)) = deepest(&module).filter(|(depth, _)| *depth > NESTING_MAX) {
            return Err(self.at(ErrorKind::NestedTooDeep { depth, limit: NESTING_MAX }, span));
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
        Ok(CheckedPass {
            workgroup: module.entry_points[entry].workgroup_size,
            workgroup_bytes: workgroup_bytes.min(u64::from(u32::MAX)) as u32,
            bindings,
            is_free: access::is_free(&module, entry) && !writes.iter().any(|write| matches!(write, Write::Partials | Write::Atomics)),
            writes,
            uses_subgroups,
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
