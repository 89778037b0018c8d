//! A workload that can be run, and the order in which it runs.
//!
//! It is made of a manifest and of what is known of its kernels: [`Program::check`] finds that in the WGSL, a bundle carries
//! it. What is left is plain: per pass the WGSL and what each binding is, per tick a list of
//! [`Op`]s. The exchanges stand in that list because they follow from the declaration alone, so every
//! peer derives the same ones. Invariant: a `Program` exists only for a manifest that passed the checks, here or where it was signed.

use peercompute_buffers::Grid;
use peercompute_buffers::halo::Boundary;
use peercompute_buffers::layout::{Element, ElementKind, Scalar};
use peercompute_buffers::residency::HaloRules;

use crate::declaration::{Access, Extent, Reduce};
use crate::diagnose::{ErrorKind, WorkloadError};
use crate::manifest::{Manifest, Pass};
use crate::reflection::Reflection;
pub use crate::reflection::{Binding, CheckedPass, Role, Write};
use crate::schedule::Schedule;
pub use crate::schedule::{Fresh, Op};
use crate::{check, link, reflect};

/// The largest share of a table, in bytes: what one binding may have anywhere.
const SHARE_BYTES_MAX: u64 = 1 << 31;

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
        check_shape(&manifest)?;
        let found = check::kernels(&manifest)?;
        // What a bundle could not say is not found out by those who get one.
        Reflection::from_bytes(&found.reflection.to_bytes()).map_err(|cause| untold(&cause))?;
        Ok(Program { warnings: found.warnings, ..Program::new(manifest, found.reflection)? })
    }

    /// What runs of a manifest whose kernels are known already.
    ///
    /// **Errors:** [`WorkloadError`]: the manifest contradicts itself, or what is said of its kernels does not fit it.
    pub(crate) fn new(manifest: Manifest, reflection: Reflection) -> Result<Program, WorkloadError> {
        check_shape(&manifest)?;
        reflection.check(&manifest).map_err(|cause| untold(&cause))?;
        let Reflection { elements, params, passes } = reflection;
        for (buffer, element) in manifest.buffers.iter().zip(&elements) {
            check_buffer(buffer, element)?;
        }
        if params.as_ref().map_or(0, |element: &Element| element.size as usize) != manifest.params.len() {
            return Err(ErrorKind::Declaration { cause: "the parameters' bytes are not those of `struct Params`".into(), help: String::new() }.into());
        }
        check_writers(&manifest, &elements)?;
        let rules = halo_rules(&manifest);
        let Schedule { exchanges, init, ticks } = Schedule::new(&manifest);
        let hash = crate::bundle::manifest_hash(&manifest);
        Ok(Program { hash, elements, params, passes, rules, exchanges, init, ticks, warnings: Vec::new(), manifest })
    }

    /// What is known of its kernels.
    pub fn reflection(&self) -> Reflection {
        Reflection { elements: self.elements.clone(), params: self.params.clone(), passes: self.passes.clone() }
    }

    /// Workgroups of a pass that cover a tile.
    pub fn groups_per_tile(&self, pass: usize) -> [u32; 3] {
        let grid = self.manifest.passes[pass].grid;
        link::groups_per_tile(&self.manifest.grids[grid].grid, self.passes[pass].workgroup)
    }

    /// The deepest halo that a pass reads.
    pub fn halo(&self, pass: usize) -> u32 {
        link::pass_halo(&self.manifest.passes[pass].reads)
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

fn untold(cause: &str) -> WorkloadError {
    ErrorKind::Declaration { cause: format!("what a bundle would say of the kernels: {cause}"), help: String::new() }.into()
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

/// A reduced table has one writer, so that its shares are those of one grid's tiles; and shares as long as the longest table that this one writes.
fn check_writers(manifest: &Manifest, elements: &[Element]) -> Result<(), WorkloadError> {
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
    for pass in &manifest.passes {
        let length = |&table: &usize| match manifest.buffers[table].extent {
            Extent::Table { length, .. } => Some((table, u64::from(length))),
            Extent::Field { .. } => None,
        };
        let tables = || pass.writes.iter().filter_map(length);
        let longest = tables().map(|(_, length)| length).max().unwrap_or(0);
        for (table, _) in tables() {
            let needed = longest * u64::from(elements[table].stride);
            if needed > SHARE_BYTES_MAX {
                let what = format!("bytes of a workgroup's share of `{}`", manifest.buffers[table].name);
                return Err(ErrorKind::Limit { what, needed, limit_name: "the largest share".into(), limit: SHARE_BYTES_MAX }.into());
            }
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
