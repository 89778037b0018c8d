//! From naga's module to a [`Kernel`]: overrides fixed, every call inlined, every aggregate taken apart.
//!
//! ```text
//! text ─ parse, validate, fix overrides ─► module ─► entry point ─┬─ statements ─┐
//!                                                                └─ expressions ┴─► Builder ─► Kernel
//! ```
//!
//! A value of any type is the list of its scalars in order ([`types`]). A local variable is a list of
//! registers, or private memory if it is indexed while running. A call is a block that `return` leaves.
//!
//! Invariants: what is not covered is a [`LowerError`] that names the construct and its line, never
//! something else done instead; the work is bounded by [`VALUES_MAX`], [`DEPTH_MAX`] and [`REST_DEPTH_MAX`] whatever the text.

mod expressions;
mod statements;
mod subgroups;
mod types;
mod variables;
mod vectors;

use std::collections::HashMap;

use naga::proc::Layouter;
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, BuiltIn, Function, Handle, Module, ShaderStage, StorageAccess, TypeInner};

use super::builder::{Builder, VALUES_MAX};
use super::ir::{Binary, Binding, Input, Kernel, Label, Memory, RegisterId, SUBGROUP, SharedVariable, ValueId};
use types::word_count;

/// How deep blocks and calls may lie in each other.
const DEPTH_MAX: usize = 400;
/// How deep what follows a branch may lie in one of its sides.
const REST_DEPTH_MAX: usize = 64;
/// The most words of workgroup memory: 64 KiB, four times what every GPU has.
pub const WORKGROUP_WORDS_MAX: u32 = 16 << 10;
/// The most words of private memory of one invocation: 64 KiB.
pub const PRIVATE_WORDS_MAX: u32 = 16 << 10;
/// The most invocations of a workgroup.
pub const INVOCATIONS_MAX: u32 = 1024;

/// Why a kernel cannot run on the cpu executor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// It is not valid WGSL.
    #[error("{cause}")]
    Invalid {
        /// What naga says.
        cause: String,
    },
    /// No such entry point.
    #[error("there is no compute entry point `{entry}`")]
    NoEntry {
        /// What was asked for.
        entry: String,
    },
    /// WGSL that the cpu executor does not cover.
    #[error("line {line}: the cpu executor does not cover {construct}")]
    Uncovered {
        /// What it is.
        construct: String,
        /// The line of the linked text, which is the kernel's own.
        line: u32,
    },
    /// More than the cpu executor takes.
    #[error("line {line}: {what} comes to {count}, the cpu executor takes {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        count: u64,
        /// How much there may be.
        limit: u64,
        /// The line of the linked text, or 0 for all of it.
        line: u32,
    },
}

/// A linked WGSL text, parsed and validated: once for all kernels that are made of it.
pub struct Parsed<'t> {
    text: &'t str,
    module: Module,
    info: ModuleInfo,
}

impl<'t> Parsed<'t> {
    /// Parses and validates a text.
    ///
    /// **Errors:** it is not valid WGSL.
    pub fn new(text: &'t str) -> Result<Parsed<'t>, LowerError> {
        let invalid = |cause: String| LowerError::Invalid { cause };
        let module = naga::front::wgsl::parse_str(text).map_err(|error| invalid(error.emit_to_string(text)))?;
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP);
        let info = validator.validate(&module).map_err(|error| invalid(error.emit_to_string(text)))?;
        Ok(Parsed { text, module, info })
    }

    /// Lowers an entry point. `constants` are values for its overrides, by name.
    ///
    /// **Errors:** [`LowerError`].
    pub fn kernel(&self, entry: &str, constants: &[(&str, f64)]) -> Result<Kernel, LowerError> {
        self.lowered(entry, constants, true)
    }

    /// The same to the letter: what an invocation does not do in the text is not done for it in the kernel either.
    ///
    /// **Errors:** [`LowerError`].
    pub fn literal_kernel(&self, entry: &str, constants: &[(&str, f64)]) -> Result<Kernel, LowerError> {
        self.lowered(entry, constants, false)
    }

    fn lowered(&self, entry: &str, constants: &[(&str, f64)], is_speculative: bool) -> Result<Kernel, LowerError> {
        let constants = constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let stage = Some((ShaderStage::Compute, entry));
        let fixed = naga::back::pipeline_constants::process_overrides(&self.module, &self.info, stage, &constants);
        let (module, info) = fixed.map_err(|error| match error {
            _ if !self.module.entry_points.iter().any(|point| point.name == entry) => LowerError::NoEntry { entry: entry.to_string() },
            error => LowerError::Invalid { cause: error.to_string() },
        })?;
        let mut lowering = Lowering::new(&module, &info, self.text, entry)?;
        if !is_speculative {
            lowering.builder = lowering.builder.without_speculation();
        }
        lowering.kernel()
    }
}

/// What an expression is.
#[derive(Clone, Debug)]
enum Item {
    /// Its scalars, in order.
    Value(Vec<ValueId>),
    /// Where it points.
    Pointer(Pointer),
}

/// A place that can be read and written.
#[derive(Clone, Debug)]
enum Pointer {
    /// Registers, one for every scalar.
    Registers(Vec<RegisterId>),
    /// One register of several, known only while running.
    Component(Vec<RegisterId>, ValueId),
    /// Words of memory.
    Memory { memory: Memory, address: ValueId, offset: u32 },
}

/// A call in progress.
struct Frame<'a> {
    function: &'a Function,
    info: &'a FunctionInfo,
    arguments: Vec<Item>,
    locals: Vec<Pointer>,
    /// Per expression, what it is, once it has been reached.
    items: Vec<Option<Item>>,
    /// Where `break` and `continue` go, innermost last.
    loops: Vec<(Label, Option<Label>)>,
    returns: Label,
    result: Vec<RegisterId>,
}

impl Frame<'_> {
    /// Where `continue` goes.
    fn next(&self) -> Option<Label> {
        self.loops.iter().rev().find_map(|&(_, next)| next)
    }
}

struct Lowering<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    text: &'a str,
    entry: usize,
    layouter: Layouter,
    builder: Builder,
    /// Per global variable that the entry point uses, where it is.
    globals: Vec<Option<Pointer>>,
    /// Where arrays of constants lie in constant memory.
    tables: HashMap<Vec<u32>, u32>,
    /// Blocks and calls around what is lowered.
    depth: usize,
    /// Sides of branches around it that hold what followed the branch.
    rests: usize,
}

impl<'a> Lowering<'a> {
    fn new(module: &'a Module, info: &'a ModuleInfo, text: &'a str, entry: &str) -> Result<Lowering<'a>, LowerError> {
        let is_entry = |point: &naga::EntryPoint| point.name == entry && point.stage == ShaderStage::Compute;
        let Some(index) = module.entry_points.iter().position(is_entry) else { return Err(LowerError::NoEntry { entry: entry.to_string() }) };
        let workgroup = module.entry_points[index].workgroup_size;
        let invocations = workgroup.iter().map(|&extent| u64::from(extent)).product::<u64>();
        if invocations == 0 || invocations > INVOCATIONS_MAX.into() {
            let what = "the number of invocations of a workgroup";
            return Err(LowerError::TooLarge { what, count: invocations, limit: INVOCATIONS_MAX.into(), line: 0 });
        }
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).map_err(|error| LowerError::Invalid { cause: error.to_string() })?;
        let builder = Builder::new(entry, workgroup);
        let globals = vec![None; module.global_variables.len()];
        Ok(Lowering { module, info, text, entry: index, layouter, builder, globals, tables: HashMap::new(), depth: 0, rests: 0 })
    }

    fn kernel(mut self) -> Result<Kernel, LowerError> {
        let point = &self.module.entry_points[self.entry];
        let info = self.info.get_entry_point(self.entry);
        for (handle, _) in self.module.global_variables.iter() {
            if !info[handle].is_empty() {
                let place = self.global(handle)?;
                self.globals[handle.index()] = Some(place);
            }
        }
        let arguments = point.function.arguments.iter().map(|argument| self.input(argument)).collect::<Result<Vec<_>, _>>()?;
        self.call(&point.function, info, arguments)?;
        if self.builder.is_too_large() {
            return Err(self.too_large("the number of values with every call inlined", self.builder.values() as u64, VALUES_MAX as u64, None));
        }
        Ok(self.builder.finish())
    }

    /// Gives a global variable its place.
    fn global(&mut self, handle: Handle<naga::GlobalVariable>) -> Result<Pointer, LowerError> {
        let variable = &self.module.global_variables[handle];
        let span = self.module.global_variables.get_span(handle);
        let words = self.words(variable.ty);
        let zero = self.builder.uint(0);
        let memory = match variable.space {
            AddressSpace::Storage { .. } | AddressSpace::Uniform => {
                let Some(binding) = &variable.binding else {
                    return Err(self.uncovered("a buffer without a binding", Some(span)));
                };
                let is_writable = matches!(variable.space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE));
                let binding = Binding { number: binding.binding, is_writable, words_min: self.least_words(variable.ty) };
                Memory::Binding(self.builder.binding(binding))
            }
            AddressSpace::WorkGroup => {
                // Vectors of four words may lie on their own lines.
                let first = self.builder.kernel().workgroup_words.next_multiple_of(4);
                let end = u64::from(first) + u64::from(words);
                if end > WORKGROUP_WORDS_MAX.into() {
                    return Err(self.too_large("bytes of workgroup memory", end * 4, u64::from(WORKGROUP_WORDS_MAX) * 4, Some(span)));
                }
                let stride = match self.module.types[variable.ty].inner {
                    TypeInner::Array { base, stride, .. } => Some(self.stride_words(base, stride)),
                    _ => None,
                };
                let shared = SharedVariable { name: variable.name.clone().unwrap_or_default(), first, stride };
                self.builder.kernel().shared.push(shared);
                self.builder.kernel().workgroup_words = end as u32;
                return Ok(Pointer::Memory { memory: Memory::Workgroup, address: zero, offset: first });
            }
            AddressSpace::Private => {
                let init = variable.init.map(|init| self.global_value(init)).transpose()?;
                return self.variable(variable.ty, init, true, span);
            }
            space => return Err(self.uncovered(&format!("a variable in {space:?}"), Some(span))),
        };
        Ok(Pointer::Memory { memory, address: zero, offset: 0 })
    }

    /// The least words of a buffer: a runtime array has one element.
    fn least_words(&self, ty: Handle<naga::Type>) -> u32 {
        let last = |ty: Handle<naga::Type>| match self.module.types[ty].inner {
            TypeInner::Array { size: naga::ArraySize::Dynamic, stride, .. } => Some(stride),
            _ => None,
        };
        let bytes = match &self.module.types[ty].inner {
            TypeInner::Struct { members, .. } => {
                let runtime = members.last().and_then(|member| Some(member.offset + last(member.ty)?));
                runtime.unwrap_or(self.layouter[ty].size)
            }
            _ => last(ty).unwrap_or(self.layouter[ty].size),
        };
        word_count(bytes)
    }

    /// An argument of the entry point: what the invocation is told.
    fn input(&mut self, argument: &naga::FunctionArgument) -> Result<Item, LowerError> {
        if let Some(binding) = &argument.binding {
            return Ok(Item::Value(self.built_in(binding)?));
        }
        let TypeInner::Struct { members, .. } = &self.module.types[argument.ty].inner else {
            return Err(self.uncovered("an entry point's argument that is not a built-in value", None));
        };
        let mut values = Vec::new();
        for member in members {
            match &member.binding {
                Some(binding) => values.extend(self.built_in(binding)?),
                None => return Err(self.uncovered("an entry point's argument that is not a built-in value", None)),
            }
        }
        Ok(Item::Value(values))
    }

    fn built_in(&mut self, binding: &naga::Binding) -> Result<Vec<ValueId>, LowerError> {
        let builder = &mut self.builder;
        let extents = builder.kernel().workgroup;
        Ok(match binding {
            naga::Binding::BuiltIn(BuiltIn::LocalInvocationIndex) => vec![builder.input(Input::LocalIndex)],
            naga::Binding::BuiltIn(BuiltIn::LocalInvocationId) => [0, 1, 2].map(|axis| builder.input(Input::LocalId(axis))).to_vec(),
            naga::Binding::BuiltIn(BuiltIn::WorkGroupId) => [0, 1, 2].map(|axis| builder.input(Input::GroupId(axis))).to_vec(),
            naga::Binding::BuiltIn(BuiltIn::NumWorkGroups) => [0, 1, 2].map(|axis| builder.input(Input::Groups(axis))).to_vec(),
            naga::Binding::BuiltIn(BuiltIn::GlobalInvocationId) => {
                let mut id = Vec::new();
                for axis in [0, 1, 2u8] {
                    let group = builder.input(Input::GroupId(axis));
                    let extent = builder.uint(extents[usize::from(axis)]);
                    let first = builder.binary(Binary::Mul, group, extent);
                    let local = builder.input(Input::LocalId(axis));
                    id.push(builder.binary(Binary::Add, first, local));
                }
                id
            }
            naga::Binding::BuiltIn(BuiltIn::SubgroupSize) => vec![builder.uint(SUBGROUP)],
            naga::Binding::BuiltIn(BuiltIn::NumSubgroups) => vec![builder.uint(extents.iter().product::<u32>().div_ceil(SUBGROUP))],
            naga::Binding::BuiltIn(BuiltIn::SubgroupInvocationId) => vec![self.place_in_subgroup()],
            naga::Binding::BuiltIn(BuiltIn::SubgroupId) => {
                let (lane, size) = (builder.input(Input::LocalIndex), builder.uint(SUBGROUP));
                vec![builder.binary(Binary::DivU, lane, size)]
            }
            other => return Err(self.uncovered(&format!("the built-in value {other:?}"), None)),
        })
    }

    /// Inlines a call; its result.
    fn call(&mut self, function: &'a Function, info: &'a FunctionInfo, arguments: Vec<Item>) -> Result<Vec<ValueId>, LowerError> {
        let result = match &function.result {
            Some(result) => self.leaves(result.ty)?.iter().map(|leaf| self.builder.register(leaf.scalar)).collect(),
            None => Vec::new(),
        };
        let locals = self.locals(function, info)?;
        let returns = self.builder.begin_block();
        let items = vec![None; function.expressions.len()];
        let mut frame = Frame { function, info, arguments, locals, items, loops: Vec::new(), returns, result };
        self.block(&mut frame, &function.body, Some(returns))?;
        self.builder.end_block();
        Ok(frame.result.iter().map(|&register| self.builder.get(register)).collect())
    }

    fn uncovered(&self, construct: &str, span: Option<naga::Span>) -> LowerError {
        LowerError::Uncovered { construct: construct.to_string(), line: self.line(span) }
    }

    fn too_large(&self, what: &'static str, count: u64, limit: u64, span: Option<naga::Span>) -> LowerError {
        LowerError::TooLarge { what, count, limit, line: self.line(span) }
    }

    fn line(&self, span: Option<naga::Span>) -> u32 {
        let start = span.and_then(|span| span.to_range()).map_or(0, |range| range.start.min(self.text.len()));
        let at_all = u32::from(span.is_some_and(|span| span.is_defined()));
        at_all + self.text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() as u32
    }
}
