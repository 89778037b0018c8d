//! The checks of a workload's WGSL: its kernels held against what the manifest declares, pass by pass.
//!
//! ```text
//! WGSL ─ parsed: naga, validated ─┬─ access      what every variable is read and written at, loops that cannot end
//!                                 ├─ uniformity  barriers that not all of a workgroup reach
//!                                 └─ bindings    what each variable is to the pass, layouts
//!                                      └─ declared: touched as it is declared ─► Reflection
//! ```
//!
//! In a browser all of this is in the module that a tab with WebGPU does without (`xtask/src/split.rs`). Invariant: it is called through [`kernels`]
//! alone, by [`Program::check`](crate::Program::check) and by a bundle that has arrived.

mod access;
mod bindings;
mod declared;
mod parsed;
mod uniformity;

use peercompute_buffers::layout::Element;

use self::access::Touches;
use self::bindings::Bound;
use self::parsed::Parsed;
use self::uniformity::Diverging;
use crate::declaration::Class;
use crate::diagnose::{ErrorKind, WorkloadError, error_at};
use crate::manifest::{Manifest, Pass};
use crate::reflection::{CheckedPass, Reflection, Write};
use crate::source;

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

/// The checks of one pass; what they find of buffers and parameters is the whole workload's.
struct PassChecker<'a> {
    manifest: &'a Manifest,
    pass: &'a Pass,
    elements: &'a mut Vec<Option<Element>>,
    params: &'a mut Option<Element>,
    warnings: &'a mut Vec<String>,
}

impl PassChecker<'_> {
    fn check(&mut self) -> Result<CheckedPass, WorkloadError> {
        let parsed = self.parse()?;
        let touched = self.follow(&parsed)?;
        self.check_own_memory(&parsed)?;
        let Bound { bindings, variables } = self.bind(&parsed, touched)?;
        let writes = self.accesses(&variables)?;
        let shares = writes.iter().any(|write| matches!(write, Write::Partials | Write::Atomics));
        Ok(CheckedPass {
            workgroup: parsed.entry().workgroup_size,
            workgroup_bytes: parsed.workgroup_bytes(),
            bindings,
            writes,
            is_free: access::is_free(&parsed.module, parsed.entry) && !shares,
            uses_subgroups: access::uses_subgroups(&parsed.module, parsed.entry),
        })
    }

    /// Follows the kernel wherever it goes, and finds what it touches of each variable: loops have to end, and barriers to be reached by all.
    fn follow(&mut self, parsed: &Parsed) -> Result<Vec<Touches>, WorkloadError> {
        let (module, entry) = (&parsed.module, parsed.entry);
        if let Some(span) = access::endless_loop(module, entry) {
            return Err(self.at(ErrorKind::EndlessLoop { entry: self.pass.entry.clone() }, span));
        }
        // Before what follows calls as well, and counts none.
        let touched = access::touches(module, entry).map_err(|_| {
            self.at_entry(ErrorKind::TooComplex { what: "calls in one kernel", count: access::CALLS_MAX + 1, limit: access::CALLS_MAX })
        })?;
        if let Some(found) = uniformity::diverging_barrier(module, entry) {
            return Err(self.diverging(&found));
        }
        if access::uses_subgroups(module, entry) && self.manifest.class == Class::Exact {
            self.warnings.push(format!(
                "`{}` uses subgroups, whose size is each executor's own: the class is `exact` only if no result depends on it",
                self.pass.entry
            ));
        }
        Ok(touched)
    }

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
}
