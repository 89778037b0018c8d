//! `workload.toml`: what a user declares, read with places so that mistakes can be pointed at.
//!
//! This module turns text into a [`Declaration`]: names resolved to numbers, shapes checked, nothing
//! of WGSL known yet. Invariant: an unknown key, an unknown name or an impossible shape never gets
//! past here, and every one of them is reported with its line.

use std::collections::BTreeMap;
use std::ops::Range;

use peercompute_buffers::Grid;
use peercompute_buffers::halo::Boundary;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::diagnose::{ErrorKind, WorkloadError, error_at, nearest};

/// The largest declaration that is read, in bytes.
pub const DECLARATION_BYTES_MAX: u64 = 1 << 20;
/// The most buffers of one workload.
pub const BUFFERS_MAX: usize = 64;
/// The most passes of one workload, init passes counted in.
pub const PASSES_MAX: usize = 256;
/// The most elements of a table.
pub const TABLE_LENGTH_MAX: u64 = 1 << 24;

/// How far results may differ between executors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Class {
    /// Integer or fixed-point: the same bits everywhere.
    Exact,
    /// Floats: the same bits on one executor and adapter, within this relative error across them.
    Tolerance(f64),
    /// For the eye only.
    Display,
}

/// How the contributions of peers to a table are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduce {
    /// Added up.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// What a buffer has one element for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// Every point of a grid.
    Field {
        /// The grid's number.
        grid: usize,
    },
    /// Every index below a fixed length.
    Table {
        /// Elements.
        length: u32,
        /// How peers' contributions are combined, if passes write it.
        reduce: Option<Reduce>,
    },
}

/// How a pass reads a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// The invocation's own element; any element of a table.
    Own,
    /// Elements up to this far away along each axis.
    Halo(u32),
    /// Every element.
    All,
}

/// A grid and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridDeclaration {
    /// `cells`, or `grid` where there is only one.
    pub name: String,
    /// The grid.
    pub grid: Grid,
}

/// A buffer as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferDeclaration {
    /// The WGSL variable's name.
    pub name: String,
    /// The WGSL element type, as the user wrote it.
    pub element: String,
    /// Field or table.
    pub extent: Extent,
    /// What lies beyond the grid.
    pub boundary: Boundary,
    /// The constant's scalars, for [`Boundary::Constant`].
    pub constant: Vec<f64>,
    /// A table's initial content.
    pub values: Option<toml::Value>,
    /// Where it stands in the declaration.
    pub span: Range<usize>,
}

/// A pass as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct PassDeclaration {
    /// The WGSL file.
    pub kernel: String,
    /// The entry point.
    pub entry: String,
    /// The grid it runs over.
    pub grid: usize,
    /// What it reads, by buffer number.
    pub reads: Vec<(usize, Access)>,
    /// What it writes, by buffer number.
    pub writes: Vec<usize>,
    /// Whether it runs once, before tick 0.
    pub init: bool,
    /// Where `kernel` stands in the declaration.
    pub kernel_span: Range<usize>,
    /// Where `entry` stands.
    pub entry_span: Range<usize>,
    /// Where `reads` stands, or the whole entry point's name.
    pub reads_span: Range<usize>,
}

/// A declared workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Its name: letters, digits, `-`, `_`, `/`, `.`.
    pub name: String,
    /// Its semantic version.
    pub version: semver::Version,
    /// How far executors may differ.
    pub class: Class,
    /// Its grids.
    pub grids: Vec<GridDeclaration>,
    /// Its buffers, in order of name.
    pub buffers: Vec<BufferDeclaration>,
    /// Values for `struct Params`, by field name.
    pub params: toml::Table,
    /// Where they stand.
    pub params_span: Range<usize>,
    /// Its passes: those of init first, then those of a tick, each in declared order.
    pub passes: Vec<PassDeclaration>,
    /// The text it was read from.
    pub text: String,
}

/// What a user may change without editing the declaration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Another tile for a grid; the name may be left out when there is one grid.
    pub tiles: Vec<(Option<String>, Vec<u32>)>,
    /// Another shape for a grid.
    pub shapes: Vec<(Option<String>, Vec<u32>)>,
    /// Other parameter values, as TOML.
    pub params: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    version: Spanned<String>,
    #[serde(default)]
    class: Option<Spanned<String>>,
    #[serde(default)]
    grid: Option<Spanned<RawGrid>>,
    #[serde(default)]
    grids: Option<BTreeMap<String, Spanned<RawGrid>>>,
    #[serde(default)]
    buffers: BTreeMap<String, Spanned<RawBuffer>>,
    #[serde(default)]
    params: Option<Spanned<toml::Table>>,
    #[serde(default)]
    init: Vec<RawPass>,
    #[serde(default)]
    passes: Vec<RawPass>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct RawGrid {
    shape: Vec<u32>,
    tile: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBuffer {
    element: Spanned<String>,
    grid: Option<Spanned<String>>,
    boundary: Option<Spanned<String>>,
    length: Option<Spanned<u64>>,
    reduce: Option<Spanned<String>>,
    values: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPass {
    kernel: Spanned<String>,
    entry: Spanned<String>,
    grid: Option<Spanned<String>>,
    reads: Option<Spanned<toml::Value>>,
    #[serde(default)]
    writes: Vec<Spanned<String>>,
}

/// The file's name in messages.
pub const FILE: &str = "workload.toml";

impl Declaration {
    /// Reads a declaration.
    ///
    /// **Errors:** [`WorkloadError`] with the line that is to blame.
    pub fn parse(text: &str, overrides: &Overrides) -> Result<Declaration, WorkloadError> {
        if text.len() as u64 > DECLARATION_BYTES_MAX {
            return Err(ErrorKind::TooLarge { file: FILE.into(), bytes: text.len() as u64, limit: DECLARATION_BYTES_MAX }.into());
        }
        crate::source::check_nesting(FILE, text, crate::source::Syntax::Toml)?;
        let raw: Raw = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
        Reader { text }.declaration(raw, overrides)
    }

    /// The number of a buffer.
    pub fn buffer(&self, name: &str) -> Option<usize> {
        self.buffers.iter().position(|buffer| buffer.name == name)
    }
}

fn toml_error(text: &str, error: &toml::de::Error) -> WorkloadError {
    let message = error.message().to_string();
    // serde words an unknown key as "unknown field `x`, expected one of `a`, `b`".
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_string);
    let given = quoted.next().unwrap_or_default();
    let known: Vec<String> = quoted.collect();
    let suggestion = message.starts_with("unknown field").then(|| nearest(&given, &known).map(str::to_string)).flatten();
    let kind = ErrorKind::Toml { cause: message, suggestion };
    error_at(kind, FILE, text, error.span().unwrap_or(0..0))
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn error(&self, kind: ErrorKind, span: Range<usize>) -> WorkloadError {
        error_at(kind, FILE, self.text, span)
    }

    fn wrong(&self, cause: impl Into<String>, help: impl Into<String>, span: Range<usize>) -> WorkloadError {
        self.error(ErrorKind::Declaration { cause: cause.into(), help: help.into() }, span)
    }

    fn declaration(&self, raw: Raw, overrides: &Overrides) -> Result<Declaration, WorkloadError> {
        let name_span = raw.name.span();
        let name = raw.name.into_inner();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(self.wrong("a workload's name is 1 to 64 letters, digits and `-_./`", "", name_span));
        }
        let version_span = raw.version.span();
        let version = semver::Version::parse(raw.version.get_ref())
            .map_err(|e| self.wrong(format!("not a semantic version: {e}"), "write three numbers, `1.0.0`", version_span))?;
        let class = raw.class.map_or(Ok(Class::Tolerance(1e-5)), |class| self.class(&class))?;
        let grids = self.grids(raw.grid, raw.grids, overrides)?;
        let buffers = self.buffers(raw.buffers, &grids)?;
        let mut passes = Vec::new();
        let declared = raw.init.into_iter().map(|p| (p, true)).chain(raw.passes.into_iter().map(|p| (p, false)));
        for (pass, init) in declared {
            passes.push(self.pass(pass, init, &grids, &buffers)?);
        }
        if !passes.iter().any(|pass| !pass.init) {
            return Err(self.wrong("the workload has no passes", "add a `[[passes]]` with `kernel`, `entry`, `writes`", name_span));
        }
        if passes.len() > PASSES_MAX {
            return Err(ErrorKind::TooComplex { what: "passes", count: passes.len(), limit: PASSES_MAX }.into());
        }
        let params_span = raw.params.as_ref().map_or(0..0, Spanned::span);
        let mut params = raw.params.map(Spanned::into_inner).unwrap_or_default();
        for (name, value) in &overrides.params {
            let parsed: toml::Table = format!("value = {value}").parse().map_err(|_| {
                WorkloadError::from(ErrorKind::Declaration {
                    cause: format!("`--set {name}={value}`: the value is not TOML"),
                    help: "write a number, `true`, or a list `[1.0, 2.0]`".into(),
                })
            })?;
            params.extend(parsed.into_iter().map(|(_, value)| (name.clone(), value)));
        }
        Ok(Declaration { name, version, class, grids, buffers, params, params_span, passes, text: self.text.into() })
    }

    fn class(&self, class: &Spanned<String>) -> Result<Class, WorkloadError> {
        match class.get_ref().as_str() {
            "exact" => Ok(Class::Exact),
            "display" => Ok(Class::Display),
            other => other
                .strip_prefix("tolerance(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(|number| number.trim().parse::<f64>().ok())
                .filter(|tolerance| *tolerance > 0.0 && tolerance.is_finite())
                .map(Class::Tolerance)
                .ok_or_else(|| self.wrong(format!("unknown class `{other}`"), "use `exact`, `tolerance(1e-5)` or `display`", class.span())),
        }
    }

    fn grids(
        &self,
        one: Option<Spanned<RawGrid>>,
        many: Option<BTreeMap<String, Spanned<RawGrid>>>,
        overrides: &Overrides,
    ) -> Result<Vec<GridDeclaration>, WorkloadError> {
        let raw: Vec<(String, Spanned<RawGrid>)> = match (one, many) {
            (Some(one), None) => vec![("grid".into(), one)],
            (None, Some(many)) if !many.is_empty() => many.into_iter().collect(),
            (Some(one), Some(_)) => return Err(self.wrong("both `grid` and `[grids]` are given", "use `[grids.NAME]` for all of them", one.span())),
            _ => return Err(self.wrong("the workload has no grid", "add `grid = { shape = [1024, 1024], tile = [256, 256] }`", 0..0)),
        };
        if raw.len() > 16 {
            return Err(ErrorKind::TooComplex { what: "grids", count: raw.len(), limit: 16 }.into());
        }
        let names: Vec<String> = raw.iter().map(|(name, _)| name.clone()).collect();
        let chosen = |list: &[(Option<String>, Vec<u32>)], name: &str| -> Result<Option<Vec<u32>>, WorkloadError> {
            let mut value = None;
            for (target, extents) in list {
                match target {
                    Some(target) if !names.contains(target) => {
                        return Err(ErrorKind::Unknown { what: "grid", name: target.clone(), known: names.clone() }.into());
                    }
                    None if names.len() > 1 => {
                        return Err(ErrorKind::Declaration {
                            cause: "the workload has several grids".into(),
                            help: format!("name one of {}: `{}=…`", names.join(", "), names[0]),
                        }
                        .into());
                    }
                    _ => {}
                }
                if target.as_deref().is_none_or(|target| target == name) {
                    value = Some(extents.clone());
                }
            }
            Ok(value)
        };
        let mut grids = Vec::new();
        for (name, grid) in &raw {
            self.identifier(name, grid.span())?;
            let shape = chosen(&overrides.shapes, name)?.unwrap_or(grid.get_ref().shape.clone());
            let tile = chosen(&overrides.tiles, name)?.or(grid.get_ref().tile.clone()).unwrap_or_else(|| default_tile(&shape));
            let built = Grid::new(&shape, &tile).map_err(|e| self.wrong(e.to_string(), "", grid.span()))?;
            grids.push(GridDeclaration { name: name.clone(), grid: built });
        }
        Ok(grids)
    }

    fn identifier(&self, name: &str, span: Range<usize>) -> Result<(), WorkloadError> {
        let start = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let plain = name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if start && plain && !name.starts_with("__") {
            return Ok(());
        }
        Err(self.wrong(format!("`{name}` cannot be a WGSL variable"), "use letters, digits and `_`, not starting with a digit", span))
    }

    fn grid_named(&self, name: Option<&Spanned<String>>, grids: &[GridDeclaration], span: Range<usize>) -> Result<usize, WorkloadError> {
        let known = || grids.iter().map(|g| g.name.clone()).collect::<Vec<_>>();
        match name {
            None if grids.len() == 1 => Ok(0),
            None => {
                Err(self.wrong("the workload has several grids and this does not say which", format!("add `grid = \"{}\"`", grids[0].name), span))
            }
            Some(name) => grids
                .iter()
                .position(|g| g.name == *name.get_ref())
                .ok_or_else(|| self.error(ErrorKind::Unknown { what: "grid", name: name.get_ref().clone(), known: known() }, name.span())),
        }
    }

    fn buffers(&self, raw: BTreeMap<String, Spanned<RawBuffer>>, grids: &[GridDeclaration]) -> Result<Vec<BufferDeclaration>, WorkloadError> {
        if raw.is_empty() {
            return Err(self.wrong("the workload has no buffers", "add `[buffers.NAME]` with `element`", 0..0));
        }
        if raw.len() > BUFFERS_MAX {
            return Err(ErrorKind::TooComplex { what: "buffers", count: raw.len(), limit: BUFFERS_MAX }.into());
        }
        let mut buffers: Vec<BufferDeclaration> = Vec::new();
        for (name, buffer) in raw {
            let span = buffer.span();
            self.identifier(&name, span.clone())?;
            if crate::link::RESERVED.contains(&name.as_str()) || name.starts_with("pc_") {
                return Err(self.wrong(format!("`{name}` is reserved"), "choose another name for the buffer", span));
            }
            if name.ends_with("_next") {
                return Err(self.wrong(format!("`{name}` ends in `_next`"), "`X_next` is the name of the buffer `X` as it is being written", span));
            }
            let buffer = buffer.into_inner();
            let (boundary, constant) = match &buffer.boundary {
                None => (Boundary::Clamp, Vec::new()),
                Some(text) => self.boundary(text)?,
            };
            let extent = match (&buffer.length, &buffer.reduce) {
                (None, None) => Extent::Field { grid: self.grid_named(buffer.grid.as_ref(), grids, span.clone())? },
                (None, Some(reduce)) => {
                    return Err(self.wrong("`reduce` is for tables", "add `length`: how many elements the table has", reduce.span()));
                }
                (Some(length), _) if *length.get_ref() == 0 || *length.get_ref() > TABLE_LENGTH_MAX => {
                    return Err(self.wrong(format!("a table has 1 to {TABLE_LENGTH_MAX} elements"), "", length.span()));
                }
                (Some(length), reduce) => {
                    let length = *length.get_ref() as u32;
                    let reduce = reduce.as_ref().map(|reduce| self.reduce(reduce)).transpose()?;
                    Extent::Table { length, reduce }
                }
            };
            if let (Extent::Table { .. }, Some(grid)) = (extent, &buffer.grid) {
                return Err(self.wrong("a table has no grid", "take out `grid` or `length`", grid.span()));
            }
            if let (Extent::Table { .. }, Some(boundary)) = (extent, &buffer.boundary) {
                return Err(self.wrong("a table has no boundary", "take out `boundary`", boundary.span()));
            }
            if buffer.values.is_some() && matches!(extent, Extent::Field { .. } | Extent::Table { reduce: Some(_), .. }) {
                return Err(self.wrong("`values` fill a table that no pass writes", "use an init pass or an import", span));
            }
            buffers.push(BufferDeclaration {
                name,
                element: buffer.element.get_ref().clone(),
                extent,
                boundary,
                constant,
                values: buffer.values,
                span,
            });
        }
        Ok(buffers)
    }

    fn reduce(&self, reduce: &Spanned<String>) -> Result<Reduce, WorkloadError> {
        match reduce.get_ref().as_str() {
            "sum" => Ok(Reduce::Sum),
            "min" => Ok(Reduce::Min),
            "max" => Ok(Reduce::Max),
            other => {
                let known = ["sum", "min", "max"].map(String::from).to_vec();
                Err(self.error(ErrorKind::Unknown { what: "reduction", name: other.into(), known }, reduce.span()))
            }
        }
    }

    fn boundary(&self, text: &Spanned<String>) -> Result<(Boundary, Vec<f64>), WorkloadError> {
        match text.get_ref().as_str() {
            "clamp" => Ok((Boundary::Clamp, Vec::new())),
            "wrap" => Ok((Boundary::Wrap, Vec::new())),
            other => {
                let inner = other.strip_prefix("constant(").and_then(|rest| rest.strip_suffix(')'));
                let values = inner.and_then(|list| list.split(',').map(|v| v.trim().parse::<f64>().ok()).collect::<Option<Vec<_>>>());
                match values {
                    Some(values) if !values.is_empty() => Ok((Boundary::Constant, values)),
                    _ => Err(self.wrong(format!("unknown boundary `{other}`"), "use `clamp`, `wrap` or `constant(0.0)`", text.span())),
                }
            }
        }
    }

    fn pass(&self, raw: RawPass, init: bool, grids: &[GridDeclaration], buffers: &[BufferDeclaration]) -> Result<PassDeclaration, WorkloadError> {
        let names: Vec<String> = buffers.iter().map(|b| b.name.clone()).collect();
        let find = |name: &str, span: Range<usize>| {
            names
                .iter()
                .position(|known| known == name)
                .ok_or_else(|| self.error(ErrorKind::Unknown { what: "buffer", name: name.into(), known: names.clone() }, span))
        };
        let kernel = raw.kernel.get_ref();
        let safe = std::path::Path::new(kernel).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !safe || !kernel.ends_with(".wgsl") {
            return Err(self.wrong(
                format!("`{kernel}` is not a WGSL file of the workload's folder"),
                "name a `.wgsl` file beside the declaration",
                raw.kernel.span(),
            ));
        }
        let mut writes = Vec::new();
        for name in &raw.writes {
            let buffer = find(name.get_ref(), name.span())?;
            if writes.contains(&buffer) {
                return Err(self.wrong(format!("`{}` is written twice", name.get_ref()), "name it once", name.span()));
            }
            if matches!(buffers[buffer].extent, Extent::Table { reduce: None, .. }) {
                return Err(self.wrong(
                    format!("`{}` is a table, and peers cannot agree on one that each writes", name.get_ref()),
                    "give it `reduce = \"sum\"`, `\"min\"` or `\"max\"`",
                    name.span(),
                ));
            }
            writes.push(buffer);
        }
        if writes.is_empty() {
            return Err(self.wrong(format!("`{}` writes nothing", raw.entry.get_ref()), "add `writes = [\"…\"]`", raw.entry.span()));
        }
        let grid = match &raw.grid {
            Some(_) => self.grid_named(raw.grid.as_ref(), grids, raw.entry.span())?,
            None => {
                let written = writes.iter().find_map(|&b| match buffers[b].extent {
                    Extent::Field { grid } => Some(grid),
                    Extent::Table { .. } => None,
                });
                written.map_or_else(|| self.grid_named(None, grids, raw.entry.span()), Ok)?
            }
        };
        for (&buffer, name) in writes.iter().zip(&raw.writes) {
            if matches!(buffers[buffer].extent, Extent::Field { grid: other } if other != grid) {
                return Err(self.wrong(
                    format!("`{}` belongs to another grid than the pass", name.get_ref()),
                    "a pass writes fields of the grid that it runs over",
                    name.span(),
                ));
            }
        }
        let reads_span = raw.reads.as_ref().map_or(raw.entry.span(), Spanned::span);
        let mut reads = Vec::new();
        for (name, access) in self.reads(raw.reads.as_ref())? {
            let buffer = find(&name, reads_span.clone())?;
            let access = match buffers[buffer].extent {
                Extent::Table { .. } if matches!(access, Access::Halo(_)) => {
                    return Err(self.wrong(format!("`{name}` is a table and has no halo"), "read it with \"all\"", reads_span));
                }
                Extent::Table { .. } => Access::All,
                Extent::Field { grid: other } if other != grid && access != Access::All => {
                    return Err(self.wrong(format!("`{name}` belongs to another grid than the pass"), "read it with \"all\"", reads_span));
                }
                Extent::Field { .. } => access,
            };
            if let Access::Halo(halo) = access {
                let grid = &grids[grid].grid;
                for axis in 0..usize::from(grid.dims) {
                    if halo > grid.tile[axis] {
                        let axis_name = ['x', 'y', 'z'][axis];
                        return Err(self.error(ErrorKind::HaloTooLarge { halo, tile: grid.tile[axis], axis: axis_name }, reads_span));
                    }
                }
            }
            reads.push((buffer, access));
        }
        Ok(PassDeclaration {
            kernel: kernel.clone(),
            entry: raw.entry.get_ref().clone(),
            grid,
            reads,
            writes,
            init,
            kernel_span: raw.kernel.span(),
            entry_span: raw.entry.span(),
            reads_span,
        })
    }

    fn reads(&self, raw: Option<&Spanned<toml::Value>>) -> Result<Vec<(String, Access)>, WorkloadError> {
        let Some(raw) = raw else { return Ok(Vec::new()) };
        let wrong = |cause: String| self.wrong(cause, "write `reads = { X = \"own\", Y = { halo = 1 }, Z = \"all\" }`", raw.span());
        match raw.get_ref() {
            toml::Value::Array(names) => names
                .iter()
                .map(|name| name.as_str().map(|name| (name.to_string(), Access::Own)).ok_or_else(|| wrong("a list of reads holds names".into())))
                .collect(),
            toml::Value::Table(table) => table
                .iter()
                .map(|(name, how)| {
                    let access = match how {
                        toml::Value::String(text) if text == "own" => Access::Own,
                        toml::Value::String(text) if text == "all" => Access::All,
                        toml::Value::Table(inner) if inner.len() == 1 && inner.contains_key("halo") => {
                            match inner["halo"].as_integer().and_then(|r| u32::try_from(r).ok()) {
                                Some(0) => Access::Own,
                                Some(depth) => Access::Halo(depth),
                                None => return Err(wrong(format!("the halo of `{name}` is not a whole number"))),
                            }
                        }
                        other => return Err(wrong(format!("`{name} = {other}` is no way to read"))),
                    };
                    Ok((name.clone(), access))
                })
                .collect(),
            _ => Err(wrong("`reads` is neither a list nor a table".into())),
        }
    }
}

/// Tiles that cut a grid into some 16, so that a few peers each hold several.
fn default_tile(shape: &[u32]) -> Vec<u32> {
    let cuts = match shape.len() {
        1 => 16,
        2 => 4,
        _ => 2,
    };
    shape.iter().map(|&extent| extent.div_ceil(cuts).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAT: &str = r#"
name = "heat"
version = "1.0.0"
grid = { shape = [64, 64], tile = [16, 16] }
[buffers.temperature]
element = "f32"
boundary = "constant(1.5)"
[params]
rate = 0.1
[[init]]
kernel = "heat.wgsl"
entry = "seed"
writes = ["temperature"]
[[passes]]
kernel = "heat.wgsl"
entry = "diffuse"
reads = { temperature = { halo = 1 } }
writes = ["temperature"]
"#;

    fn check(from: &str, to: &str, expected: &str) {
        assert!(HEAT.contains(from), "{from}");
        let error = Declaration::parse(&HEAT.replacen(from, to, 1), &Overrides::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.place.is_some() || expected.contains("deep"), "{error}");
    }

    #[test]
    fn a_declaration_is_read() {
        let heat = Declaration::parse(HEAT, &Overrides::default()).unwrap();
        assert_eq!(heat.grids[0].grid.tile_count(), 16);
        assert_eq!(heat.buffers[0].boundary, Boundary::Constant);
        assert_eq!(heat.buffers[0].constant, [1.5]);
        assert_eq!(heat.passes[1].reads, [(0, Access::Halo(1))]);
        assert!(heat.passes[0].init);
    }

    #[test]
    fn overrides_replace_what_is_declared() {
        let overrides =
            Overrides { tiles: vec![(None, vec![8, 32])], shapes: vec![(None, vec![100, 70])], params: vec![("rate".into(), "0.2".into())] };
        let heat = Declaration::parse(HEAT, &overrides).unwrap();
        assert_eq!(heat.grids[0].grid, Grid::new(&[100, 70], &[8, 32]).unwrap());
        assert_eq!(heat.params["rate"].as_float(), Some(0.2));
        let error = Declaration::parse(HEAT, &Overrides { tiles: vec![(Some("cels".into()), vec![1])], ..Overrides::default() });
        assert!(error.unwrap_err().to_string().contains("unknown grid `cels`"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        check("tile = [16, 16]", "tiel = [16, 16]", "did you mean `tile`?");
        check("[[passes]]", "[[pass]]", "did you mean `passes`?");
        check("shape = [64, 64]", "shape = [0, 64]", "extent 0 on axis 0");
        check("shape = [64, 64]", "shape = [64]", "`tile` has 2 axes, `shape` has 1");
        check("{ halo = 1 }", "{ halo = 17 }", "a halo of 17 does not fit a tile of 16 along x");
        check("{ halo = 1 }", "\"own2\"", "is no way to read");
        check("reads = { temperature", "reads = { temprature", "did you mean `temperature`?");
        check("writes = [\"temperature\"]\n[[passes]]", "writes = [\"heat\"]\n[[passes]]", "unknown buffer `heat`");
        check("\"heat.wgsl\"", "\"../heat.wgsl\"", "not a WGSL file of the workload's folder");
        check("constant(1.5)", "constant(x)", "unknown boundary");
        check("name = \"heat\"", "name = \"he at\"", "letters, digits");
        check("version = \"1.0.0\"", "version = \"1\"", "not a semantic version");
        check("name = \"heat\"", "name = ", "workload.toml:2");
        check("[buffers.temperature]", "[buffers.params]", "`params` is reserved");
        check("element = \"f32\"", "element = \"f32\"\nlength = 0", "a table has 1 to");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{HEAT}\n[x]\ny = {}{}", "[".repeat(10_000), "]".repeat(10_000));
        let error = Declaration::parse(&deep, &Overrides::default()).unwrap_err();
        assert!(matches!(*error.kind, ErrorKind::NestedTooDeep { .. }), "{error}");
    }
}
