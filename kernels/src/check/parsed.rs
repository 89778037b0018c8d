//! From a pass' text to a validated module with the pass' entry point, and what can be said of it at once.

use naga::proc::Layouter;
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};

use super::PassChecker;
use super::access;
use crate::diagnose::{ErrorKind, WorkloadError};
use crate::reflection::NESTING_MAX;
use crate::{link, source};

/// Bytes that an invocation has for private variables, for those of a function, and for a value (WGSL 2.4, "Limits").
const OWN_BYTES_MAX: u64 = 8192;

/// A kernel, validated.
pub(super) struct Parsed {
    pub(super) module: naga::Module,
    pub(super) info: ModuleInfo,
    pub(super) layouter: Layouter,
    /// The pass' entry point, by number.
    pub(super) entry: usize,
}

impl Parsed {
    pub(super) fn entry(&self) -> &naga::EntryPoint {
        &self.module.entry_points[self.entry]
    }

    /// What the entry point uses, those that it calls included.
    pub(super) fn uses(&self) -> &FunctionInfo {
        self.info.get_entry_point(self.entry)
    }

    fn bytes(&self, ty: naga::Handle<naga::Type>) -> u64 {
        self.layouter[ty].size.into()
    }

    /// Bytes of the workgroup memory that is used.
    pub(super) fn workgroup_bytes(&self) -> u32 {
        let variables = self.module.global_variables.iter();
        let used = variables.filter(|(handle, variable)| variable.space == naga::AddressSpace::WorkGroup && !self.uses()[*handle].is_empty());
        let bytes: u64 = used.map(|(_, variable)| self.bytes(variable.ty)).sum();
        bytes.min(u32::MAX.into()) as u32
    }
}

impl PassChecker<'_> {
    /// Parses the pass' text and validates it.
    pub(super) fn parse(&self) -> Result<Parsed, WorkloadError> {
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
            .map_err(|error| self.invalid(&error))?;
        let Some(entry) = module.entry_points.iter().position(|entry| entry.name == pass.entry && entry.stage == naga::ShaderStage::Compute) else {
            let known = module.entry_points.iter().map(|entry| entry.name.clone()).collect();
            return Err(ErrorKind::Unknown { what: "entry point", name: pass.entry.clone(), known }.into());
        };
        if let Some((depth, span)) = deepest(&module).filter(|(depth, _)| *depth > NESTING_MAX) {
            return Err(self.at(ErrorKind::NestedTooDeep { depth, limit: NESTING_MAX }, span));
        }
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).map_err(|error| ErrorKind::Wgsl { cause: error.to_string(), notes: Vec::new() })?;
        Ok(Parsed { module, info, layouter, entry })
    }

    fn invalid(&self, error: &naga::WithSpan<naga::valid::ValidationError>) -> WorkloadError {
        let pass = self.pass;
        let span = error.spans().map(|(span, _)| *span).find(naga::Span::is_defined);
        // Of some errors naga knows only the entry point.
        let span = span.or_else(|| Some(naga::Span::new(pass.wgsl.find(&format!("fn {}", pass.entry))? as u32, 0)));
        let (cause, mut notes) = source::invalid(error);
        if cause.contains("SUBGROUP") {
            let note = "`subgroupBarrier` is no WGSL: invocations of a subgroup meet in every operation on it, of a workgroup in `workgroupBarrier`";
            notes.push(note.into());
        }
        self.at(ErrorKind::Wgsl { cause, notes }, span.unwrap_or(naga::Span::UNDEFINED))
    }

    /// Holds what every invocation keeps for itself against what WGSL promises; beyond it drivers hang.
    pub(super) fn check_own_memory(&self, parsed: &Parsed) -> Result<(), WorkloadError> {
        let hold = |what: String, bytes: u64, span: naga::Span| match bytes {
            0..=OWN_BYTES_MAX => Ok(()),
            _ => {
                let cause = format!("{what} take {bytes} bytes, an invocation has {OWN_BYTES_MAX}");
                let notes = vec!["keep large arrays in a buffer, or share them in workgroup memory".to_string()];
                Err(self.at(ErrorKind::Wgsl { cause, notes }, span))
            }
        };
        let (module, uses) = (&parsed.module, parsed.uses());
        let mut private = 0;
        for (handle, variable) in module.global_variables.iter() {
            if variable.space == naga::AddressSpace::Private && !uses[handle].is_empty() {
                private += parsed.bytes(variable.ty);
                hold("private variables".into(), private, module.global_variables.get_span(handle))?;
            }
        }
        let functions = module.functions.iter().map(|(handle, function)| (function, &parsed.info[handle]));
        for (function, info) in functions.chain([(&parsed.entry().function, uses)]) {
            let name = function.name.as_deref().unwrap_or(&self.pass.entry);
            let mut own = 0;
            for (handle, variable) in function.local_variables.iter() {
                own += parsed.bytes(variable.ty);
                hold(format!("the variables of `{name}`"), own, function.local_variables.get_span(handle))?;
            }
            for (handle, _) in function.expressions.iter() {
                if let Some(ty) = info[handle].ty.handle() {
                    hold("values of this type".into(), parsed.bytes(ty), function.expressions.get_span(handle))?;
                }
            }
        }
        Ok(())
    }
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
