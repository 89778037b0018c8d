//! What a kernel touches, held against what its pass declares: reads within their halos, writes of the own element, shares that tell nothing of order.

use naga::valid::GlobalUse;

use super::PassChecker;
use super::access::{Update, Where};
use super::bindings::Variable;
use crate::declaration::{Access, Extent, Reduce};
use crate::diagnose::{ErrorKind, WorkloadError};
use crate::link;
use crate::manifest::Buffer;
use crate::reflection::{Role, Write};

impl PassChecker<'_> {
    /// Holds what the kernel touches against what the pass declares; says how each buffer is written.
    pub(super) fn accesses(&mut self, variables: &[Variable]) -> Result<Vec<Write>, WorkloadError> {
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
        for variable in variables.iter().filter(|variable| variable.used.contains(GlobalUse::QUERY)) {
            self.check_length(variable.role);
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

    /// How long a field is in this peer's memory depends on the partition, but for one that every peer has whole and in the grid's order.
    fn check_length(&mut self, role: Role) {
        let (buffer, suffix) = match role {
            Role::Current(buffer) => (buffer, ""),
            Role::Next(buffer) => (buffer, "_next"),
            _ => return,
        };
        let declared = &self.manifest.buffers[buffer];
        let Extent::Field { grid } = declared.extent else { return };
        let is_whole = suffix.is_empty() && self.manifest.grids[grid].grid.dims == 1 && self.pass.reads.contains(&(buffer, Access::All));
        if !is_whole {
            let (entry, name) = (&self.pass.entry, &declared.name);
            self.warnings.push(format!(
                "`{entry}` asks for `arrayLength(&{name}{suffix})`, which differs with the partition: `grid_shape()` has the grid's points"
            ));
        }
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
