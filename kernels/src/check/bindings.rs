//! What every variable of a kernel is to its pass, and how the elements of its buffers lie in memory.

use naga::valid::GlobalUse;
use peercompute_buffers::layout::Element;

use super::PassChecker;
use super::access::{self, Touches};
use super::parsed::Parsed;
use crate::declaration::Extent;
use crate::diagnose::{ErrorKind, WorkloadError};
use crate::reflect;
use crate::reflection::{Binding, Role};

/// The variables of a kernel that its pass binds.
pub(super) struct Bound {
    pub(super) bindings: Vec<Binding>,
    /// Those of buffers.
    pub(super) variables: Vec<Variable>,
}

/// How a kernel uses a buffer's variable.
pub(super) struct Variable {
    pub(super) role: Role,
    pub(super) used: GlobalUse,
    pub(super) touches: Touches,
    /// Where the result of an atomic operation on it is used.
    pub(super) used_update: Option<naga::Span>,
    pub(super) span: naga::Span,
}

impl PassChecker<'_> {
    /// Gives every variable its role; one that the kernel does not use is checked, and not bound.
    ///
    /// `touched`: what the kernel touches, by variable.
    pub(super) fn bind(&mut self, parsed: &Parsed, mut touched: Vec<Touches>) -> Result<Bound, WorkloadError> {
        let (module, uses) = (&parsed.module, parsed.uses());
        let mut bound = Bound { bindings: Vec::new(), variables: Vec::new() };
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            let span = module.global_variables.get_span(handle);
            let role = self.role(parsed, variable, span)?;
            let used = uses[handle];
            if used.is_empty() {
                continue;
            }
            let writable = matches!(variable.space, naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE));
            bound.bindings.push(Binding { number: binding.binding, role, writable });
            if let Role::Current(_) | Role::Next(_) = role {
                let used_update = access::used_update(module, &parsed.info, parsed.entry, handle);
                bound.variables.push(Variable { role, used, touches: std::mem::take(&mut touched[handle.index()]), used_update, span });
            }
        }
        Ok(bound)
    }

    fn role(&mut self, parsed: &Parsed, variable: &naga::GlobalVariable, span: naga::Span) -> Result<Role, WorkloadError> {
        let name = variable.name.as_deref().unwrap_or_default();
        match name {
            "tile" => return Ok(Role::TileTable),
            "pc_dispatch" => return Ok(Role::Dispatch),
            "params" => return self.params(parsed, variable, span),
            _ => {}
        }
        let (base, is_next) = name.strip_suffix("_next").map_or((name, false), |base| (base, true));
        let Some(buffer) = self.manifest.buffers.iter().position(|b| b.name == base) else {
            let known = self.manifest.buffers.iter().map(|b| b.name.clone()).collect();
            return Err(self.at(ErrorKind::BindingWithoutBuffer { name: name.into(), known }, span));
        };
        if !matches!(variable.space, naga::AddressSpace::Storage { .. }) {
            let notes = vec![format!("declare `var<storage, read> {name}: array<{}>;`", self.manifest.buffers[buffer].element)];
            return Err(self.at(ErrorKind::Wgsl { cause: format!("`{name}` is a buffer and not in `storage`"), notes }, span));
        }
        self.element_of(parsed, variable.ty, buffer, span)?;
        Ok(if is_next { Role::Next(buffer) } else { Role::Current(buffer) })
    }

    fn params(&mut self, parsed: &Parsed, variable: &naga::GlobalVariable, span: naga::Span) -> Result<Role, WorkloadError> {
        let element = self.element(parsed, variable.ty, span)?;
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
        Ok(Role::Params)
    }

    fn element(&self, parsed: &Parsed, ty: naga::Handle<naga::Type>, span: naga::Span) -> Result<Element, WorkloadError> {
        let element = reflect::element(&parsed.module, &parsed.layouter, ty);
        element.map_err(|error| self.at(ErrorKind::Wgsl { cause: error.to_string(), notes: Vec::new() }, span))
    }

    /// Learns how a buffer's element lies in memory, from the type of a variable.
    fn element_of(&mut self, parsed: &Parsed, ty: naga::Handle<naga::Type>, buffer: usize, span: naga::Span) -> Result<(), WorkloadError> {
        let module = &parsed.module;
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
        let element = self.element(parsed, base, span)?;
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
}
