//! From a user's WGSL to plain WGSL that any implementation runs: bindings numbered, prelude joined.
//!
//! Linking is textual and keeps every line where it was: `@group(0) @binding(n)` goes in front of the
//! variables that have none, and the prelude with the pass' constants goes behind the last line. So
//! what is signed can be read, and an error in it has the user's line number.
//! Invariant: the same file, pass and grids give the same text.

use peercompute_buffers::Grid;
use peercompute_buffers::halo;

use crate::declaration::{Access, Declaration, Extent, PassDeclaration};
use crate::diagnose::{ErrorKind, WorkloadError, error_at};
use crate::source;

/// The prelude's text.
pub const PRELUDE: &str = include_str!("../../shaders/prelude.wgsl");

/// Names that belong to the prelude.
pub const RESERVED: [&str; 9] = ["params", "tile", "cell", "at", "partial", "locate", "grid_shape", "tick", "Cell"];

/// The most bindings of one kernel file.
const BINDINGS_MAX: u32 = 256;

/// Links one pass.
///
/// `text` is the user's file. **Errors:** the file does not parse, or uses another bind group.
pub fn link(declaration: &Declaration, pass: &PassDeclaration, text: &str) -> Result<String, WorkloadError> {
    let file = &pass.kernel;
    source::check_wgsl(file, text)?;
    let text = &without_subgroups_directive(text);
    // The workgroup size is a constant of the prelude, and stands in the text that the prelude is joined to.
    let draft = format!("{text}\n{}", tail(declaration, pass, [1; 3]));
    let module = parse(file, &draft, text.len())?;
    let Some(entry) = module.entry_points.iter().find(|entry| entry.name == pass.entry) else {
        let known = module.entry_points.iter().map(|entry| entry.name.clone()).collect();
        let kind = ErrorKind::Unknown { what: "entry point", name: pass.entry.clone(), known };
        return Err(error_at(kind, crate::declaration::FILE, &declaration.text, pass.entry_span.clone()));
    };
    if entry.stage != naga::ShaderStage::Compute {
        let cause = format!("`{}` is not a compute entry point", pass.entry);
        let kind = ErrorKind::Declaration { cause, help: "mark it `@compute @workgroup_size(…)`".into() };
        return Err(error_at(kind, crate::declaration::FILE, &declaration.text, pass.entry_span.clone()));
    }
    if entry.workgroup_size_overrides.is_some() {
        let cause = format!("the workgroup size of `{}` is an override", pass.entry);
        let notes = vec!["write numbers or constants: `@workgroup_size(16, 16)`".to_string()];
        return Err(error_at(ErrorKind::Wgsl { cause, notes }, file, text, 0..0));
    }
    if entry.workgroup_size.contains(&0) {
        let kind = ErrorKind::Wgsl { cause: format!("`{}` has an empty workgroup", pass.entry), notes: Vec::new() };
        return Err(error_at(kind, file, text, 0..0));
    }
    let linked = format!("{text}\n{}", tail(declaration, pass, entry.workgroup_size));
    insert_bindings(file, &linked, &parse(file, &linked, text.len())?)
}

/// The text with blanks for `enable subgroups;`, which naga does not know yet, and takes for granted.
fn without_subgroups_directive(text: &str) -> String {
    let found = source::directives(text).find(|range| {
        let names = text[range.clone()].strip_prefix("enable").and_then(|rest| rest.strip_suffix(';'));
        names.is_some_and(|names| names.starts_with(char::is_whitespace) && names.trim() == "subgroups")
    });
    let Some(range) = found else { return text.to_string() };
    let blanks = text[range.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect::<String>();
    format!("{}{blanks}{}", &text[..range.start], &text[range.end..])
}

/// Parses WGSL; spans beyond `user_len` belong to the prelude.
pub(crate) fn parse(file: &str, text: &str, user_len: usize) -> Result<naga::Module, WorkloadError> {
    naga::front::wgsl::parse_str(text).map_err(|error| {
        let spans: Vec<_> = error.labels().map(|(span, label)| (source::range(span), label.to_string())).collect();
        let (span, label) = spans.iter().find(|(span, _)| span.start < user_len).or(spans.first()).cloned().unwrap_or((0..0, String::new()));
        let is_said = label.is_empty() || label == "see msg" || error.message().contains(&label);
        let notes = if is_said { Vec::new() } else { vec![label] };
        error_at(ErrorKind::Wgsl { cause: error.message().to_string(), notes }, file, text, span)
    })
}

fn insert_bindings(file: &str, text: &str, module: &naga::Module) -> Result<String, WorkloadError> {
    let mut taken = std::collections::BTreeSet::new();
    let mut open = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        let bound = matches!(variable.space, naga::AddressSpace::Storage { .. } | naga::AddressSpace::Uniform);
        let span = source::range(module.global_variables.get_span(handle));
        if variable.space == naga::AddressSpace::Handle {
            let cause = format!("`{}` is not a buffer", variable.name.as_deref().unwrap_or_default());
            let notes = vec!["kernels have no textures and no samplers: declare `var<storage, read> name: array<…>;`".to_string()];
            return Err(error_at(ErrorKind::Wgsl { cause, notes }, file, text, span));
        }
        match &variable.binding {
            Some(binding) if binding.group != 0 => {
                let cause = format!("bind group {} is not used: all buffers are in group 0", binding.group);
                let notes = vec!["write `@group(0)`, or no numbers at all".to_string()];
                return Err(error_at(ErrorKind::Wgsl { cause, notes }, file, text, span));
            }
            Some(binding) if !taken.insert(binding.binding) => {
                let cause = format!("binding {} is used twice", binding.binding);
                return Err(error_at(ErrorKind::Wgsl { cause, notes: Vec::new() }, file, text, span));
            }
            Some(_) => {}
            None if bound => open.push(span.start),
            None => {}
        }
    }
    open.sort_unstable();
    let mut numbers = (0..BINDINGS_MAX).filter(|number| !taken.contains(number));
    let mut linked = String::with_capacity(text.len() + 32 * open.len());
    let mut from = 0;
    for at in open {
        let Some(number) = numbers.next() else {
            return Err(ErrorKind::TooComplex { what: "bindings", count: BINDINGS_MAX as usize + 1, limit: BINDINGS_MAX as usize }.into());
        };
        linked.push_str(&text[from..at]);
        linked.push_str(&format!("@group(0) @binding({number}) "));
        from = at;
    }
    linked.push_str(&text[from..]);
    Ok(linked)
}

/// Workgroups that cover a full tile.
pub fn groups_per_tile(grid: &Grid, workgroup: [u32; 3]) -> [u32; 3] {
    [0, 1, 2].map(|axis| grid.tile[axis].div_ceil(workgroup[axis]))
}

/// The deepest halo that a pass reads.
pub fn pass_halo(reads: &[(usize, Access)]) -> u32 {
    reads.iter().map(|(_, access)| if let Access::Halo(depth) = access { *depth } else { 0 }).max().unwrap_or(0)
}

fn tail(declaration: &Declaration, pass: &PassDeclaration, workgroup: [u32; 3]) -> String {
    let grid = &declaration.grids[pass.grid].grid;
    let vector = |v: [u32; 3], kind: &str| format!("vec3<{kind}>({}, {}, {})", v[0], v[1], v[2]);
    let groups = groups_per_tile(grid, workgroup);
    let depth = pass_halo(&pass.reads);
    let used = |axis: usize, value: u32| if axis < usize::from(grid.dims) { value } else { 0 };
    let halo = [0, 1, 2].map(|axis| used(axis, depth));
    let side = [used(0, 1), used(1, 3), used(2, 9)];
    let partials = pass.writes.iter().filter_map(|&b| match declaration.buffers[b].extent {
        Extent::Table { length, .. } => Some(length),
        Extent::Field { .. } => None,
    });
    let is_whole = declaration
        .passes
        .iter()
        .flat_map(|pass| &pass.reads)
        .any(|&(buffer, access)| access == Access::All && declaration.buffers[buffer].extent == (Extent::Field { grid: pass.grid }));
    let is_full = (0..3).all(|axis| grid.shape[axis].is_multiple_of(grid.tile[axis]) && grid.tile[axis].is_multiple_of(workgroup[axis]));
    let mut text = format!(
        "// linked by peercompute\nconst PC_GRID = {};\nconst PC_TILE = {};\nconst PC_HALO = {};\nconst PC_SIDE = {};\nconst PC_USED = {};\n\
         const PC_GROUP = {};\nconst PC_GROUPS = {};\nconst PC_SLOT = {}u;\nconst PC_ROW = {}u;\nconst PC_PARTIALS = {}u;\n\
         const PC_DIVISIBLE = {};\nconst PC_FULL = {is_full};\nconst PC_WHOLE = {is_whole};\nconst PC_DEEP = {};\n",
        vector(grid.shape, "u32"),
        vector(grid.tile, "u32"),
        vector(halo, "i32"),
        vector(side, "i32"),
        vector([0, 1, 2].map(|axis| used(axis, 1)), "u32"),
        vector(workgroup, "u32"),
        vector(groups, "u32"),
        grid.tile_points().min(u64::from(u32::MAX)),
        2 + halo::table_entries(grid.dims),
        partials.max().unwrap_or(0),
        grid.is_divisible(),
        groups[2] * workgroup[2] != 1,
    );
    text.push_str(PRELUDE);
    text.push_str(&locate("locate", grid));
    if declaration.grids.len() > 1 {
        for named in &declaration.grids {
            text.push_str(&locate(&format!("locate_{}", named.name), &named.grid));
        }
    }
    text
}

/// The function that finds a point in a field which is read as a whole, where slots lie in tile order.
fn locate(name: &str, grid: &Grid) -> String {
    let [sx, sy, sz] = grid.shape;
    let [tx, ty, tz] = grid.tile;
    let [nx, ny, _] = grid.tiles_per_axis();
    format!(
        "\n/// The index of a point in a field that is read with `all`.\n\
         fn {name}(coord: vec3<u32>) -> u32 {{\n    let full = vec3<u32>({tx}, {ty}, {tz});\n    let shape = vec3<u32>({sx}, {sy}, {sz});\n    \
         let point = min(coord, shape - 1u);\n    let at = point / full;\n    let local = point - at * full;\n    \
         let extent = min(full, shape - at * full);\n    let number = at.x + {nx}u * (at.y + {ny}u * at.z);\n    \
         return number * {slot}u + local.x + extent.x * (local.y + extent.y * local.z);\n}}\n",
        slot = tx as u64 * u64::from(ty) * u64::from(tz)
    )
}
