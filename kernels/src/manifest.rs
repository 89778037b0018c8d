//! A workload in one plain value: everything an executor needs, nothing else.
//!
//! Made from a folder by [`Manifest::from_folder`], carried by a bundle, turned into a runnable
//! [`Program`](crate::program::Program) by the checks. Invariant: it is self-contained and its
//! serialised bytes are canonical, so its hash names the workload.

use std::collections::BTreeMap;
use std::path::Path;

use naga::proc::Layouter;
use peercompute_buffers::halo::Boundary;
use peercompute_buffers::layout::{Element, Scalar};
use serde::{Deserialize, Serialize};

use crate::declaration::{Access, Class, Declaration, Extent, FILE, GridDeclaration, Overrides};
use crate::diagnose::{ErrorKind, WorkloadError, error_at, nearest};
use crate::reflect::{self, ValueError};
use crate::{link, source};

/// A workload, linked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The workload's name.
    pub name: String,
    /// Its semantic version.
    pub version: semver::Version,
    /// How far executors may differ.
    pub class: Class,
    /// Its grids.
    pub grids: Vec<GridDeclaration>,
    /// Its buffers, in order of name.
    pub buffers: Vec<Buffer>,
    /// The bytes of `struct Params` at tick 0; empty if there is none.
    pub params: Vec<u8>,
    /// Its passes, init first.
    pub passes: Vec<Pass>,
}

/// A buffer of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// The WGSL variable's name.
    pub name: String,
    /// The canonical WGSL element type.
    pub element: String,
    /// Field or table.
    pub extent: Extent,
    /// What lies beyond the grid.
    pub boundary: Boundary,
    /// One element that holds the boundary's constant; empty for other rules.
    pub constant: Vec<u8>,
    /// A table's initial content; empty for zeros.
    pub values: Vec<u8>,
}

/// A pass of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// The file that the WGSL came from, for messages.
    pub file: String,
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
    /// The linked, plain WGSL.
    pub wgsl: String,
}

/// The WGSL files of a workload, by name within its folder.
pub type Sources = BTreeMap<String, String>;

impl Manifest {
    /// Reads, links and resolves the workload in a folder.
    ///
    /// The result has been parsed, not checked: [`Program::check`](crate::program::Program::check) does that.
    ///
    /// **Errors:** [`WorkloadError`] with the file, line and column that are to blame.
    pub fn from_folder(folder: &Path, overrides: &Overrides) -> Result<Manifest, WorkloadError> {
        let file = if folder.extension().is_some_and(|e| e == "toml") { folder.to_path_buf() } else { folder.join(FILE) };
        let folder = file.parent().unwrap_or(Path::new("."));
        let text = read(&file, crate::declaration::DECLARATION_BYTES_MAX)?;
        let declaration = Declaration::parse(&text, overrides)?;
        let mut sources = Sources::new();
        for pass in &declaration.passes {
            if !sources.contains_key(&pass.kernel) {
                let wgsl = read(&folder.join(&pass.kernel), source::WGSL_BYTES_MAX).map_err(|error| match *error.kind {
                    kind @ ErrorKind::Unreadable { .. } => error_at(kind, FILE, &declaration.text, pass.kernel_span.clone()),
                    _ => error,
                })?;
                sources.insert(pass.kernel.clone(), wgsl);
            }
        }
        Manifest::new(&declaration, &sources)
    }

    /// Links and resolves a declaration with the files it names.
    ///
    /// **Errors:** as [`Manifest::from_folder`].
    pub fn new(declaration: &Declaration, sources: &Sources) -> Result<Manifest, WorkloadError> {
        source::on_deep_stack(|| Manifest::resolve(declaration, sources))
    }

    fn resolve(declaration: &Declaration, sources: &Sources) -> Result<Manifest, WorkloadError> {
        let mut passes = Vec::new();
        let mut reflected = Reflected::default();
        for pass in &declaration.passes {
            let text = sources.get(&pass.kernel).ok_or_else(|| {
                let kind = ErrorKind::Unreadable { file: pass.kernel.clone(), cause: "no such file".into() };
                error_at(kind, FILE, &declaration.text, pass.kernel_span.clone())
            })?;
            let wgsl = link::link(declaration, pass, text)?;
            reflected.read(&link::parse(&pass.kernel, &wgsl, text.len())?)?;
            passes.push(Pass {
                file: pass.kernel.clone(),
                entry: pass.entry.clone(),
                grid: pass.grid,
                reads: pass.reads.clone(),
                writes: pass.writes.clone(),
                init: pass.init,
                wgsl,
            });
        }
        let mut buffers = Vec::new();
        for buffer in &declaration.buffers {
            let wrong = |kind| error_at(kind, FILE, &declaration.text, buffer.span.clone());
            let Some(element) = reflected.elements.get(&buffer.name) else {
                let strange: Vec<String> = reflected.elements.keys().filter(|name| declaration.buffer(name).is_none()).cloned().collect();
                if let Some(near) = nearest(&buffer.name, &strange) {
                    return Err(wrong(ErrorKind::Declaration {
                        cause: format!("no kernel of the workload has a variable for the buffer `{}`", buffer.name),
                        help: format!("the WGSL has `{near}`: give both one name"),
                    }));
                }
                return Err(wrong(ErrorKind::Declaration {
                    cause: format!("no kernel of the workload has a variable for the buffer `{}`", buffer.name),
                    help: format!("add `var<storage, read> {}: array<{}>;` to a kernel, or take the buffer out", buffer.name, buffer.element),
                }));
            };
            reflect::check_size(&buffer.name, element).map_err(wrong)?;
            let declared = reflect::canonical_name(&buffer.element);
            if declared != element.name {
                return Err(wrong(ErrorKind::ElementMismatch { buffer: buffer.name.clone(), declared, found: element.name.clone() }));
            }
            let constant = constant_bytes(element, &buffer.constant).ok_or_else(|| {
                let scalars = element.data_words().iter().filter(|data| **data).count();
                wrong(ErrorKind::Declaration {
                    cause: format!("the boundary of `{}` has {} constants", buffer.name, buffer.constant.len()),
                    help: format!("give one for every scalar, or {scalars}; an element that mixes scalar types takes only `constant(0)`"),
                })
            })?;
            let values = match (&buffer.values, buffer.extent) {
                (Some(value), Extent::Table { length, .. }) => {
                    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                    if items.len() != length as usize {
                        return Err(wrong(ErrorKind::Declaration {
                            cause: format!("`values` of `{}` has {} elements, `length` is {length}", buffer.name, items.len()),
                            help: String::new(),
                        }));
                    }
                    let mut bytes = vec![0; length as usize * element.stride as usize];
                    for (index, item) in items.iter().enumerate() {
                        let at = index * element.stride as usize;
                        reflect::write_value(element, &format!("{}[{index}]", buffer.name), item, &mut bytes[at..])
                            .map_err(|error| wrong(value_error(error)))?;
                    }
                    bytes
                }
                _ => Vec::new(),
            };
            buffers.push(Buffer {
                name: buffer.name.clone(),
                element: element.name.clone(),
                extent: buffer.extent,
                boundary: buffer.boundary,
                constant,
                values,
            });
        }
        let params = params_bytes(declaration, reflected.params.as_ref())?;
        Ok(Manifest {
            name: declaration.name.clone(),
            version: declaration.version.clone(),
            class: declaration.class,
            grids: declaration.grids.clone(),
            buffers,
            params,
            passes,
        })
    }
}

fn read(path: &Path, limit: u64) -> Result<String, WorkloadError> {
    use std::io::Read;
    let file = path.display().to_string();
    let unreadable = |cause: String| WorkloadError::from(ErrorKind::Unreadable { file: file.clone(), cause });
    let open = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let bytes = open.metadata().map_err(|e| unreadable(e.to_string()))?.len();
    if bytes > limit {
        return Err(ErrorKind::TooLarge { file, bytes, limit }.into());
    }
    let mut text = String::new();
    // The limit holds for what is read, whatever the metadata said.
    open.take(limit).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    Ok(text)
}

#[derive(Default)]
struct Reflected {
    elements: BTreeMap<String, Element>,
    params: Option<Element>,
}

impl Reflected {
    /// Takes note of every buffer's element. What cannot be an element is reported by the checks.
    ///
    /// **Errors:** a type has no layout: it is larger than addresses reach.
    fn read(&mut self, module: &naga::Module) -> Result<(), WorkloadError> {
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).map_err(|error| {
            let name = module.types[error.ty].name.as_deref().unwrap_or("an array");
            ErrorKind::Wgsl { cause: format!("{name} has no layout: {}", error.inner), notes: Vec::new() }
        })?;
        for (_, variable) in module.global_variables.iter() {
            let Some(name) = variable.name.as_deref().filter(|_| variable.binding.is_some()) else { continue };
            if name == "params" {
                self.params = reflect::element(module, &layouter, variable.ty).ok().or(self.params.take());
            } else if let naga::TypeInner::Array { base, .. } = module.types[variable.ty].inner
                && let Ok(element) = reflect::element(module, &layouter, base)
            {
                let name = name.strip_suffix("_next").unwrap_or(name);
                self.elements.entry(name.into()).or_insert(element);
            }
        }
        Ok(())
    }
}

/// One element of constants: one value for all scalars, or one for each.
fn constant_bytes(element: &Element, constants: &[f64]) -> Option<Vec<u8>> {
    if constants.is_empty() {
        return Some(Vec::new());
    }
    let mut bytes = vec![0; element.stride as usize];
    let data = element.data_words();
    let places: Vec<usize> = (0..data.len()).filter(|&word| data[word]).collect();
    if constants.len() != 1 && constants.len() != places.len() {
        return None;
    }
    if constants.iter().all(|value| *value == 0.0) {
        return Some(bytes);
    }
    let scalar = element.uniform_scalar()?;
    for (index, word) in places.into_iter().enumerate() {
        let value = constants[if constants.len() == 1 { 0 } else { index }];
        let whole = value.fract() == 0.0;
        let word_bytes = match scalar {
            Scalar::F32 => (value as f32).to_le_bytes(),
            Scalar::U32 if whole && (0.0..=f64::from(u32::MAX)).contains(&value) => (value as u32).to_le_bytes(),
            Scalar::I32 if whole && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value) => (value as i32).to_le_bytes(),
            _ => return None,
        };
        bytes[word * 4..word * 4 + 4].copy_from_slice(&word_bytes);
    }
    Some(bytes)
}

/// An error of a value, as an error of the workload.
pub(crate) fn value_error(error: ValueError) -> ErrorKind {
    match error {
        ValueError::NoField { name, known, .. } => ErrorKind::Unknown { what: "parameter", name, known },
        other => ErrorKind::Declaration { cause: other.to_string(), help: String::new() },
    }
}

fn params_bytes(declaration: &Declaration, element: Option<&Element>) -> Result<Vec<u8>, WorkloadError> {
    let at = |kind| error_at(kind, FILE, &declaration.text, declaration.params_span.clone());
    match element {
        None if declaration.params.is_empty() => Ok(Vec::new()),
        None => Err(at(ErrorKind::Declaration {
            cause: "no kernel of the workload has parameters".into(),
            help: "add `struct Params { … }` and `var<uniform> params: Params;`, or take `[params]` out".into(),
        })),
        Some(element) => {
            reflect::check_size("params", element).map_err(at)?;
            let mut bytes = vec![0; element.size as usize];
            let value = toml::Value::Table(declaration.params.clone());
            reflect::write_value(element, "params", &value, &mut bytes).map_err(|error| at(value_error(error)))?;
            Ok(bytes)
        }
    }
}
