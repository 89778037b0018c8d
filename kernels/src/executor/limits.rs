//! What an executor can take of one kernel, under WebGPU's names.
//!
//! Invariant: a program that passes [`Limits::check`] fails no later limit of the executor but memory.

use crate::diagnose::ErrorKind;
use crate::program::{Program, Role};

/// The limits that a program is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `max_compute_invocations_per_workgroup`.
    pub(crate) invocations: u32,
    /// `max_compute_workgroup_size_x` and so on.
    pub(crate) workgroup: [u32; 3],
    /// `max_compute_workgroup_storage_size`.
    pub(crate) workgroup_bytes: u32,
    /// `max_storage_buffers_per_shader_stage`.
    pub(crate) storage_buffers: u32,
    /// `max_bindings_per_bind_group`.
    pub(crate) bindings: u32,
    /// `max_uniform_buffer_binding_size`.
    pub(crate) uniform_bytes: u64,
    /// Whether kernels may use subgroups, which is a feature of an adapter.
    pub(crate) has_subgroups: bool,
}

impl Limits {
    /// Holds a program against the limits.
    ///
    /// **Errors:** [`ErrorKind::Limit`] with what is needed and the limit's name.
    pub(crate) fn check(&self, program: &Program) -> Result<(), ErrorKind> {
        for (pass, checked) in program.manifest.passes.iter().zip(&program.passes) {
            let entry = &pass.entry;
            let invocations = checked.workgroup.iter().map(|&size| u64::from(size)).product();
            check(
                || format!("invocations in a workgroup of `{entry}`"),
                invocations,
                "max_compute_invocations_per_workgroup",
                self.invocations.into(),
            )?;
            for axis in 0..3 {
                let what = || format!("the workgroup of `{entry}` along {}", ['x', 'y', 'z'][axis]);
                let name = ["max_compute_workgroup_size_x", "max_compute_workgroup_size_y", "max_compute_workgroup_size_z"][axis];
                check(what, checked.workgroup[axis].into(), name, self.workgroup[axis].into())?;
            }
            let bytes = checked.workgroup_bytes.into();
            let what = || format!("bytes of workgroup memory of `{entry}`");
            check(what, bytes, "max_compute_workgroup_storage_size", self.workgroup_bytes.into())?;
            let storage = checked.bindings.iter().filter(|b| !matches!(b.role, Role::Dispatch | Role::Params)).count() as u64;
            check(|| format!("storage buffers of `{entry}`"), storage, "max_storage_buffers_per_shader_stage", self.storage_buffers.into())?;
            check(|| format!("subgroups in `{entry}`"), checked.uses_subgroups.into(), "the feature `subgroups`", self.has_subgroups.into())?;
            let number = checked.bindings.iter().map(|b| u64::from(b.number)).max().unwrap_or(0);
            check(|| format!("the largest binding number of `{entry}`"), number + 1, "max_bindings_per_bind_group", self.bindings.into())?;
        }
        check(|| "bytes of parameters".into(), program.manifest.params.len() as u64, "max_uniform_buffer_binding_size", self.uniform_bytes)
    }
}

/// Holds one amount against its limit.
///
/// **Errors:** [`ErrorKind::Limit`].
pub(crate) fn check(what: impl FnOnce() -> String, needed: u64, limit_name: &str, limit: u64) -> Result<(), ErrorKind> {
    if needed <= limit { Ok(()) } else { Err(ErrorKind::Limit { what: what(), needed, limit_name: limit_name.into(), limit }) }
}
