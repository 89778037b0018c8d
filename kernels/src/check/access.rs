//! What a kernel really touches, read from its IR.
//!
//! For every buffer variable that an entry point reaches, through any depth of calls: is it loaded,
//! stored, updated atomically, and *where* relative to the invocation's own element. Constant
//! arguments of `at` are followed through lets, vars and function parameters; anything else is
//! [`Where::Anywhere`]. From the same walk comes whether a kernel stores every own element, which
//! decides whether elements that it does not store need a copy first.
//! Invariant: an access is never reported nearer than it can be; unknown means far.

use std::collections::HashMap;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{Arena, AtomicFunction, Block, Expression, Function, GlobalVariable, Handle, Literal, Module, Statement, TypeInner, UnaryOperator};

/// Where an element lies, seen from the invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// The invocation's own element.
    Own,
    /// A neighbour at most this far away along x, y, z.
    Near([u32; 3]),
    /// A neighbour through `at` whose distance is not constant: as far as the halo reaches.
    Halo,
    /// Where `partial` says that the workgroup keeps its share of a table.
    Share,
    /// Anywhere.
    Anywhere,
}

impl Where {
    fn join(self, other: Where) -> Where {
        match (self, other) {
            (Where::Share, Where::Share) => Where::Share,
            (Where::Anywhere | Where::Share, _) | (_, Where::Anywhere | Where::Share) => Where::Anywhere,
            (Where::Halo, _) | (_, Where::Halo) => Where::Halo,
            (Where::Own, Where::Own) => Where::Own,
            (a, b) => {
                let (a, b) = (a.reach(), b.reach());
                Where::Near([a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2])])
            }
        }
    }

    fn reach(self) -> [u32; 3] {
        if let Where::Near(reach) = self { reach } else { [0; 3] }
    }
}

/// How a variable is updated atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// Sums.
    Add,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// By other operations, or by more than one.
    Other,
}

/// What an entry point does with one variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touches {
    /// Where it is loaded, if it is.
    pub(super) load: Option<Where>,
    /// Where it is stored to, if it is.
    pub(super) store: Option<Where>,
    /// How it is updated atomically, if it is.
    pub(super) atomic: Option<Update>,
    /// Whether every own element is stored, whatever the data.
    pub(super) total: bool,
}

/// What a value is known to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Index(Where),
    Number(i64),
    /// The invocation's own `Cell`, as `cell` made it.
    Cell,
    /// `@builtin(global_invocation_id)`, unchanged.
    Id,
    /// An argument of the entry point that holds builtins.
    Inputs,
    Unknown,
}

/// The calls that one entry point may make in this walk, to bound its time.
pub(super) const CALLS_MAX: usize = 4_096;
/// `inside` and `index` among the members of the prelude's `Cell`.
const CELL_INSIDE: u32 = 0;
const CELL_INDEX: u32 = 1;
/// How deep blocks and calls may nest in this walk, to bound its stack.
const DEPTH_MAX: usize = 400;
/// Expressions that are looked at to follow values; after them every value is unknown.
const STEPS_MAX: usize = 1 << 18;

/// A kernel makes more calls than are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyCalls;

struct Walk<'a> {
    module: &'a Module,
    /// Per function of the module.
    facts: Vec<Facts>,
    found: Vec<Touches>,
    calls_left: usize,
    depth: usize,
    steps_left: std::cell::Cell<usize>,
}

/// A function in one of its calls.
#[derive(Clone, Copy)]
struct Frame<'a> {
    function: &'a Function,
    facts: &'a Facts,
    arguments: &'a [Value],
}

/// Reads what an entry point touches, per global variable in the arena's order.
///
/// **Errors:** more calls, or deeper ones, than can be followed.
pub(super) fn touches(module: &Module, entry: usize) -> Result<Vec<Touches>, TooManyCalls> {
    let function = &module.entry_points[entry].function;
    let (facts, inputs) = (Facts::new(function), inputs(function));
    let frame = Frame { function, facts: &facts, arguments: &inputs };
    let mut walk = Walk::new(module);
    walk.block(frame, &function.body)?;
    for (handle, _) in module.global_variables.iter() {
        walk.found[handle.index()].total = walk.stores_own(frame, &function.body, handle) == Stores::Always;
    }
    Ok(walk.found)
}

/// What an entry point's arguments are.
fn inputs(function: &Function) -> Vec<Value> {
    let inputs = function.arguments.iter().map(|argument| match &argument.binding {
        binding if is_invocation_id(binding.as_ref()) => Value::Id,
        None => Value::Inputs,
        _ => Value::Unknown,
    });
    inputs.collect()
}

/// What can be said of a function's calls and variables wherever it is called from.
#[derive(Default)]
struct Facts {
    /// Arguments, by the expression that is the call's result.
    calls: HashMap<Handle<Expression>, Vec<Handle<Expression>>>,
    locals: Vec<Local>,
}

#[derive(Clone, Default)]
struct Local {
    /// Every value that is stored to the whole variable.
    stored: Vec<Handle<Expression>>,
    /// Whether more happens to it: a part is stored, its address is passed, or it is read before any store.
    unclear: bool,
    /// Whether a store certainly came before, at this point of the scan.
    assigned: bool,
}

impl Facts {
    fn new(function: &Function) -> Facts {
        let mut facts = Facts { calls: HashMap::new(), locals: vec![Local::default(); function.local_variables.len()] };
        for (handle, variable) in function.local_variables.iter() {
            if let Some(init) = variable.init {
                facts.locals[handle.index()].stored.push(init);
                facts.locals[handle.index()].assigned = true;
            }
        }
        facts.block(function, &function.body);
        facts
    }

    fn block(&mut self, function: &Function, block: &Block) {
        let mut assigned_here = Vec::new();
        for statement in block {
            match statement {
                Statement::Emit(range) => {
                    for expression in range.clone() {
                        if let Expression::Load { pointer } = function.expressions[expression]
                            && let Some(local) = local_of(function, pointer)
                        {
                            let local = &mut self.locals[local.index()];
                            local.unclear |= !local.assigned;
                        }
                    }
                }
                Statement::Store { pointer, value } => {
                    if let Expression::LocalVariable(local) = function.expressions[*pointer] {
                        let local_facts = &mut self.locals[local.index()];
                        local_facts.stored.push(*value);
                        if !local_facts.assigned {
                            local_facts.assigned = true;
                            assigned_here.push(local);
                        }
                    } else if let Some(local) = local_of(function, *pointer) {
                        self.locals[local.index()].unclear = true;
                    }
                }
                Statement::Call { arguments, result, .. } => {
                    for local in arguments.iter().filter_map(|&argument| local_of(function, argument)) {
                        self.locals[local.index()].unclear = true;
                    }
                    if let Some(result) = result {
                        self.calls.insert(*result, arguments.clone());
                    }
                }
                Statement::Block(inner) => self.block(function, inner),
                Statement::If { accept, reject, .. } => {
                    self.block(function, accept);
                    self.block(function, reject);
                }
                Statement::Switch { cases, .. } => cases.iter().for_each(|case| self.block(function, &case.body)),
                Statement::Loop { body, continuing, .. } => {
                    self.block(function, body);
                    self.block(function, continuing);
                }
                _ => {}
            }
        }
        for local in assigned_here {
            self.locals[local.index()].assigned = false;
        }
    }
}

/// The local variable that a pointer goes into.
fn local_of(function: &Function, pointer: Handle<Expression>) -> Option<Handle<naga::LocalVariable>> {
    let mut pointer = pointer;
    loop {
        match function.expressions[pointer] {
            Expression::LocalVariable(local) => return Some(local),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => pointer = base,
            _ => return None,
        }
    }
}

/// The first atomic operation on a variable whose result is used, by its span.
pub(super) fn used_update(module: &Module, info: &ModuleInfo, entry: usize, variable: Handle<GlobalVariable>) -> Option<naga::Span> {
    let own = (&module.entry_points[entry].function, info.get_entry_point(entry));
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle])).chain([own]);
    functions.into_iter().find_map(|(function, info)| used_update_in(function, info, &function.body, variable))
}

fn used_update_in(function: &Function, info: &FunctionInfo, block: &Block, variable: Handle<GlobalVariable>) -> Option<naga::Span> {
    block.span_iter().find_map(|(statement, span)| match statement {
        Statement::Atomic { pointer, result: Some(result), .. } => {
            (global_of(function, *pointer) == Some(variable) && info[*result].ref_count > 0).then_some(*span)
        }
        statement => nested(statement).into_iter().find_map(|block| used_update_in(function, info, block, variable)),
    })
}

/// The blocks inside a statement.
fn nested(statement: &Statement) -> Vec<&Block> {
    match statement {
        Statement::Block(inner) => vec![inner],
        Statement::If { accept, reject, .. } => vec![accept, reject],
        Statement::Switch { cases, .. } => cases.iter().map(|case| &case.body).collect(),
        Statement::Loop { body, continuing, .. } => vec![body, continuing],
        _ => Vec::new(),
    }
}

/// The global variable that a pointer goes into.
fn global_of(function: &Function, pointer: Handle<Expression>) -> Option<Handle<GlobalVariable>> {
    match function.expressions[pointer] {
        Expression::GlobalVariable(global) => Some(global),
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => global_of(function, base),
        _ => None,
    }
}

/// Whether an entry point, or a function that it calls, looks at the others of its subgroup, or is told of it.
pub(super) fn uses_subgroups(module: &Module, entry: usize) -> bool {
    use naga::BuiltIn::{NumSubgroups, SubgroupId, SubgroupInvocationId, SubgroupSize};
    let is_told = |binding: &Option<naga::Binding>| {
        matches!(binding, Some(naga::Binding::BuiltIn(NumSubgroups | SubgroupId | SubgroupInvocationId | SubgroupSize)))
    };
    // Callees stand before their callers.
    let mut looks = Vec::with_capacity(module.functions.len());
    for (_, function) in module.functions.iter() {
        looks.push(looks_across(&function.body, &looks));
    }
    let function = &module.entry_points[entry].function;
    let told = function.arguments.iter().any(|argument| match &module.types[argument.ty].inner {
        TypeInner::Struct { members, .. } => members.iter().any(|member| is_told(&member.binding)),
        _ => is_told(&argument.binding),
    });
    told || looks_across(&function.body, &looks)
}

fn looks_across(block: &Block, callees: &[bool]) -> bool {
    block.iter().any(|statement| match statement {
        Statement::SubgroupBallot { .. } | Statement::SubgroupGather { .. } | Statement::SubgroupCollectiveOperation { .. } => true,
        Statement::Call { function, .. } => callees[function.index()],
        statement => nested(statement).into_iter().any(|block| looks_across(block, callees)),
    })
}

/// Whether an entry point knows nothing of its workgroup: of the builtins it takes only the global id, and
/// it neither waits for, shares with, nor asks other invocations.
pub(super) fn is_free(module: &Module, entry: usize) -> bool {
    let function = &module.entry_points[entry].function;
    let global_id = |binding: &Option<naga::Binding>| matches!(binding, Some(naga::Binding::BuiltIn(naga::BuiltIn::GlobalInvocationId)));
    let takes_only_the_id = function.arguments.iter().all(|argument| match &module.types[argument.ty].inner {
        TypeInner::Struct { members, .. } if argument.binding.is_none() => members.iter().all(|member| global_id(&member.binding)),
        _ => global_id(&argument.binding),
    });
    let shares = module.global_variables.iter().any(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup);
    let bodies = module.functions.iter().map(|(_, function)| &function.body).chain([&function.body]);
    takes_only_the_id && !shares && bodies.into_iter().all(stands_alone)
}

fn stands_alone(block: &Block) -> bool {
    block.iter().all(|statement| match statement {
        Statement::ControlBarrier(_)
        | Statement::MemoryBarrier(_)
        | Statement::WorkGroupUniformLoad { .. }
        | Statement::SubgroupBallot { .. }
        | Statement::SubgroupGather { .. }
        | Statement::SubgroupCollectiveOperation { .. } => false,
        statement => nested(statement).into_iter().all(stands_alone),
    })
}

/// The first thing in a module that is wider or narrower than four bytes, by its span.
pub(super) fn other_width(module: &Module) -> Option<naga::Span> {
    use naga::ScalarKind::{Float, Sint, Uint};
    let is_other = |scalar: naga::Scalar| scalar.width != 4 && matches!(scalar.kind, Sint | Uint | Float);
    let is_other_expression = |expression: &Expression| match *expression {
        Expression::Literal(literal) => is_other(literal.scalar()),
        Expression::As { kind, convert: Some(width), .. } => is_other(naga::Scalar { kind, width }),
        _ => false,
    };
    let functions = module.functions.iter().map(|(_, function)| function).chain(module.entry_points.iter().map(|entry| &entry.function));
    let expressions = functions.map(|function| &function.expressions).chain([&module.global_expressions]);
    let first = expressions.flat_map(|arena| arena.iter().map(|(handle, expression)| (arena.get_span(handle), expression)));
    let first = first.filter(|(_, expression)| is_other_expression(expression)).map(|(span, _)| span);
    let types = module.types.iter().filter(|(_, ty)| ty.inner.scalar().is_some_and(is_other)).map(|(handle, _)| module.types.get_span(handle));
    // A type's own span is often unknown.
    let spans: Vec<naga::Span> = first.chain(types).collect();
    spans.iter().find(|span| span.is_defined()).or(spans.first()).copied()
}

/// The first loop of an entry point's call tree that can never be left, by its span.
pub(super) fn endless_loop(module: &Module, entry: usize) -> Option<naga::Span> {
    let bodies = module.functions.iter().map(|(_, f)| f).chain([&module.entry_points[entry].function]);
    bodies.into_iter().find_map(|function| endless_in(function, &function.body))
}

fn endless_in(function: &Function, block: &Block) -> Option<naga::Span> {
    block.span_iter().find_map(|(statement, span)| match statement {
        Statement::Block(inner) => endless_in(function, inner),
        Statement::If { accept, reject, .. } => endless_in(function, accept).or_else(|| endless_in(function, reject)),
        Statement::Switch { cases, .. } => cases.iter().find_map(|case| endless_in(function, &case.body)),
        Statement::Loop { body, continuing, break_if } => {
            let ends = break_if.is_some_and(|condition| literal(function, condition) != Some(false));
            if !ends && !leaves(function, body, true) && !leaves(function, continuing, true) {
                return Some(*span);
            }
            endless_in(function, body).or_else(|| endless_in(function, continuing))
        }
        _ => None,
    })
}

/// Whether a block can leave the loop around it; `own` while a `break` would mean that loop.
fn leaves(function: &Function, block: &Block, own: bool) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Break => own,
        Statement::Return { .. } | Statement::Kill => true,
        Statement::Block(inner) => leaves(function, inner, own),
        Statement::If { condition, accept, reject } => {
            let taken = literal(function, *condition);
            (taken != Some(false) && leaves(function, accept, own)) || (taken != Some(true) && leaves(function, reject, own))
        }
        Statement::Switch { cases, .. } => cases.iter().any(|case| leaves(function, &case.body, false)),
        Statement::Loop { body, continuing, .. } => leaves(function, body, false) || leaves(function, continuing, false),
        _ => false,
    })
}

fn literal(function: &Function, expression: Handle<Expression>) -> Option<bool> {
    match function.expressions[expression] {
        Expression::Literal(Literal::Bool(value)) => Some(value),
        Expression::Unary { op: UnaryOperator::LogicalNot, expr } => literal(function, expr).map(|value| !value),
        _ => None,
    }
}

impl<'a> Walk<'a> {
    fn new(module: &'a Module) -> Walk<'a> {
        Walk {
            module,
            facts: module.functions.iter().map(|(_, function)| Facts::new(function)).collect(),
            found: vec![Touches::default(); module.global_variables.len()],
            calls_left: CALLS_MAX,
            depth: 0,
            steps_left: STEPS_MAX.into(),
        }
    }

    fn block(&mut self, frame: Frame, block: &Block) -> Result<(), TooManyCalls> {
        if self.depth == DEPTH_MAX {
            return Err(TooManyCalls);
        }
        self.depth += 1;
        for statement in block {
            match statement {
                Statement::Emit(range) => {
                    for expression in range.clone() {
                        if let Expression::Load { pointer } = frame.function.expressions[expression]
                            && let Some((global, place)) = self.element(frame, pointer)
                        {
                            let touches = &mut self.found[global.index()];
                            touches.load = Some(touches.load.map_or(place, |before| before.join(place)));
                            self.plainly(global);
                        }
                    }
                }
                Statement::Store { pointer, .. } => {
                    if let Some(global) = self.store(frame, *pointer) {
                        self.plainly(global);
                    }
                }
                Statement::Atomic { pointer, fun, .. } => {
                    self.store(frame, *pointer);
                    if let Some((global, place)) = self.element(frame, *pointer) {
                        let update = match fun {
                            // What is taken away is a summand like any other.
                            AtomicFunction::Add | AtomicFunction::Subtract => Update::Add,
                            AtomicFunction::Min => Update::Min,
                            AtomicFunction::Max => Update::Max,
                            _ => Update::Other,
                        };
                        let touches = &mut self.found[global.index()];
                        touches.atomic = Some(touches.atomic.map_or(update, |before| if before == update { update } else { Update::Other }));
                        touches.load = Some(touches.load.map_or(place, |before| before.join(place)));
                    }
                }
                Statement::Call { function: callee, arguments: passed, .. } => {
                    let arguments: Vec<Value> = passed.iter().map(|&argument| self.value(frame, argument, 0)).collect();
                    self.calls_left = self.calls_left.checked_sub(1).ok_or(TooManyCalls)?;
                    let function = &self.module.functions[*callee];
                    // Taken out for the call: WGSL has no recursion, so nobody below asks for it.
                    let facts = std::mem::take(&mut self.facts[callee.index()]);
                    let outcome = self.block(Frame { function, facts: &facts, arguments: &arguments }, &function.body);
                    self.facts[callee.index()] = facts;
                    outcome?;
                }
                Statement::Block(inner) => self.block(frame, inner)?,
                Statement::If { accept, reject, .. } => {
                    self.block(frame, accept)?;
                    self.block(frame, reject)?;
                }
                Statement::Switch { cases, .. } => {
                    for case in cases {
                        self.block(frame, &case.body)?;
                    }
                }
                Statement::Loop { body, continuing, .. } => {
                    self.block(frame, body)?;
                    self.block(frame, continuing)?;
                }
                _ => {}
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Notes a store; to which variable.
    fn store(&mut self, frame: Frame, pointer: Handle<Expression>) -> Option<Handle<GlobalVariable>> {
        let (global, place) = self.element(frame, pointer)?;
        let store = &mut self.found[global.index()].store;
        *store = Some(store.map_or(place, |before| before.join(place)));
        Some(global)
    }

    /// A load or a store, which of what is atomic is an operation of its own.
    fn plainly(&mut self, global: Handle<GlobalVariable>) {
        if let TypeInner::Array { base, .. } = self.module.types[self.module.global_variables[global].ty].inner
            && let TypeInner::Atomic(_) = self.module.types[base].inner
        {
            self.found[global.index()].atomic = Some(Update::Other);
        }
    }

    /// The variable that a pointer goes into, and where.
    fn element(&self, frame: Frame, pointer: Handle<Expression>) -> Option<(Handle<GlobalVariable>, Where)> {
        let place = |base: Handle<Expression>, place: Where| match frame.function.expressions[base] {
            Expression::GlobalVariable(global) => Some((global, place)),
            _ => self.element(frame, base),
        };
        match frame.function.expressions[pointer] {
            Expression::GlobalVariable(global) => Some((global, Where::Anywhere)),
            Expression::Access { base, index } => {
                let index = match self.value(frame, index, 0) {
                    Value::Index(place) => place,
                    _ => Where::Anywhere,
                };
                place(base, index)
            }
            Expression::AccessIndex { base, .. } => place(base, Where::Anywhere),
            _ => None,
        }
    }

    /// What an expression is known to be. `depth` bounds chains of variables, the walk's steps all of them.
    fn value(&self, frame: Frame, expression: Handle<Expression>, depth: usize) -> Value {
        let steps_left = self.steps_left.get();
        if depth > 16 || steps_left == 0 {
            return Value::Unknown;
        }
        self.steps_left.set(steps_left - 1);
        let again = |expression| self.value(frame, expression, depth + 1);
        if self.cell_member(frame, expression, depth) == Some(CELL_INDEX) {
            return Value::Index(Where::Own);
        }
        match frame.function.expressions[expression] {
            Expression::Literal(Literal::I32(value)) => Value::Number(value.into()),
            Expression::Literal(Literal::U32(value)) => Value::Number(value.into()),
            Expression::Constant(constant) => {
                constant_number(&self.module.global_expressions, self.module.constants[constant].init).map_or(Value::Unknown, Value::Number)
            }
            Expression::Unary { op: UnaryOperator::Negate, expr } => match again(expr) {
                Value::Number(value) => Value::Number(-value),
                _ => Value::Unknown,
            },
            Expression::FunctionArgument(index) => frame.arguments.get(index as usize).copied().unwrap_or(Value::Unknown),
            Expression::AccessIndex { base, index } => match frame.function.expressions[base] {
                Expression::FunctionArgument(argument) if frame.arguments.get(argument as usize) == Some(&Value::Inputs) => {
                    let ty = &self.module.types[frame.function.arguments[argument as usize].ty].inner;
                    match ty {
                        TypeInner::Struct { members, .. } if is_invocation_id(members[index as usize].binding.as_ref()) => Value::Id,
                        _ => Value::Unknown,
                    }
                }
                _ => Value::Unknown,
            },
            Expression::Load { pointer } => match frame.function.expressions[pointer] {
                Expression::LocalVariable(variable) => {
                    let local = &frame.facts.locals[variable.index()];
                    let mut joined = None;
                    for &stored in local.stored.iter().filter(|_| !local.unclear) {
                        let value = again(stored);
                        match joined.map_or(value, |before| join_values(before, value)) {
                            Value::Unknown => return Value::Unknown,
                            value => joined = Some(value),
                        }
                    }
                    joined.unwrap_or(Value::Unknown)
                }
                _ => Value::Unknown,
            },
            Expression::CallResult(callee) => {
                let name = self.module.functions[callee].name.as_deref();
                match (name, frame.facts.calls.get(&expression).map(Vec::as_slice)) {
                    (Some("cell"), Some(&[id])) if again(id) == Value::Id => Value::Cell,
                    (Some("partial"), Some(&[cell, _])) if again(cell) == Value::Cell => Value::Index(Where::Share),
                    (Some("at"), Some(&[cell, x, y, z])) if again(cell) == Value::Cell => match (again(x), again(y), again(z)) {
                        (Value::Number(0), Value::Number(0), Value::Number(0)) => Value::Index(Where::Own),
                        (Value::Number(x), Value::Number(y), Value::Number(z)) => {
                            Value::Index(Where::Near([x, y, z].map(|d| d.unsigned_abs().min(u64::from(u32::MAX)) as u32)))
                        }
                        _ => Value::Index(Where::Halo),
                    },
                    _ => Value::Unknown,
                }
            }
            Expression::Select { accept, reject, .. } => join_values(again(accept), again(reject)),
            _ => Value::Unknown,
        }
    }

    /// Which member of the invocation's own `Cell` an expression is.
    fn cell_member(&self, frame: Frame, expression: Handle<Expression>, depth: usize) -> Option<u32> {
        let (base, member) = match frame.function.expressions[expression] {
            Expression::AccessIndex { base, index } => (base, index),
            Expression::Load { pointer } => match frame.function.expressions[pointer] {
                Expression::AccessIndex { base, index } => {
                    let Expression::LocalVariable(variable) = frame.function.expressions[base] else { return None };
                    let local = &frame.facts.locals[variable.index()];
                    let is_cell = |&stored: &Handle<Expression>| self.value(frame, stored, depth + 1) == Value::Cell;
                    let holds_cell = !local.unclear && !local.stored.is_empty() && local.stored.iter().all(is_cell);
                    return holds_cell.then_some(index);
                }
                _ => return None,
            },
            _ => return None,
        };
        (self.value(frame, base, depth + 1) == Value::Cell).then_some(member)
    }

    /// Whether a block stores `X_next[c.index]` for every cell that is inside.
    fn stores_own(&self, frame: Frame, block: &Block, global: Handle<GlobalVariable>) -> Stores {
        for statement in block {
            let outcome = match statement {
                Statement::Store { pointer, .. } => match frame.function.expressions[*pointer] {
                    Expression::Access { base, index }
                        if matches!(frame.function.expressions[base], Expression::GlobalVariable(g) if g == global)
                            && self.value(frame, index, 0) == Value::Index(Where::Own) =>
                    {
                        Stores::Always
                    }
                    _ => Stores::NotYet,
                },
                Statement::Block(inner) => self.stores_own(frame, inner, global),
                Statement::If { condition, accept, reject } => match self.inside_test(frame, *condition) {
                    Some(true) => self.stores_own(frame, accept, global),
                    Some(false) => self.stores_own(frame, reject, global),
                    None => match (self.stores_own(frame, accept, global), self.stores_own(frame, reject, global)) {
                        (Stores::Always, Stores::Always) => Stores::Always,
                        (Stores::Never, _) | (_, Stores::Never) => Stores::Never,
                        _ => Stores::NotYet,
                    },
                },
                Statement::Switch { cases, .. } => {
                    let leaves = cases.iter().any(|case| returns(&case.body));
                    if leaves { Stores::Never } else { Stores::NotYet }
                }
                Statement::Loop { body, continuing, .. } => {
                    if returns(body) || returns(continuing) {
                        Stores::Never
                    } else {
                        Stores::NotYet
                    }
                }
                Statement::Return { .. } | Statement::Kill | Statement::Break | Statement::Continue => Stores::Never,
                _ => Stores::NotYet,
            };
            if outcome != Stores::NotYet {
                return outcome;
            }
        }
        Stores::NotYet
    }

    /// `Some(true)` for `c.inside`, `Some(false)` for its negation.
    fn inside_test(&self, frame: Frame, condition: Handle<Expression>) -> Option<bool> {
        if self.cell_member(frame, condition, 0) == Some(CELL_INSIDE) {
            return Some(true);
        }
        match frame.function.expressions[condition] {
            Expression::Unary { op: UnaryOperator::LogicalNot, expr } => self.inside_test(frame, expr).map(|inside| !inside),
            _ => None,
        }
    }
}

fn join_values(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Index(a), Value::Index(b)) => Value::Index(a.join(b)),
        (a, b) if a == b => a,
        _ => Value::Unknown,
    }
}

fn is_invocation_id(binding: Option<&naga::Binding>) -> bool {
    matches!(binding, Some(naga::Binding::BuiltIn(naga::BuiltIn::GlobalInvocationId)))
}

fn constant_number(expressions: &Arena<Expression>, expression: Handle<Expression>) -> Option<i64> {
    match expressions[expression] {
        Expression::Literal(Literal::I32(value)) => Some(value.into()),
        Expression::Literal(Literal::U32(value)) => Some(value.into()),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stores {
    /// Every invocation inside the tile stores its own element.
    Always,
    /// Not so far, and control flow goes on.
    NotYet,
    /// Some invocation may have left without.
    Never,
}

fn returns(block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Return { .. } | Statement::Kill => true,
        Statement::Block(inner) => returns(inner),
        Statement::If { accept, reject, .. } => returns(accept) || returns(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| returns(&case.body)),
        Statement::Loop { body, continuing, .. } => returns(body) || returns(continuing),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRELUDE: &str = "
        struct Cell { inside: bool, index: u32, coord: vec3<u32> }
        fn cell(id: vec3<u32>) -> Cell { return Cell(true, id.x, id); }
        fn at(c: Cell, dx: i32, dy: i32, dz: i32) -> u32 { return c.index + u32(dx + dy + dz); }
        @group(0) @binding(0) var<storage, read> x: array<f32>;
        @group(0) @binding(1) var<storage, read_write> x_next: array<f32>;
        const TWO = 2;
        fn near(c: Cell, d: i32) -> f32 { return x[at(c, d, 0, 0)]; }
        fn nearer(c: Cell) -> f32 { return near(c, -1) + near(c, 1); }
        fn by(i: u32) -> f32 { return x[i]; }
        fn change(c: ptr<function, Cell>) { (*c).index = 0u; }";

    /// What `main` touches of `x` and `x_next`, with this body after `let c = cell(id);`.
    fn touched(body: &str) -> (Touches, Touches) {
        let main = format!("@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ let c = cell(id); {body} }}");
        let module = naga::front::wgsl::parse_str(&format!("{PRELUDE}\n{main}")).unwrap();
        let mut found = touches(&module, 0).unwrap();
        let next = found.remove(1);
        (found.remove(0), next)
    }

    fn check_load(body: &str, expected: Where) {
        assert_eq!(touched(body).0.load, Some(expected), "{body}");
    }

    #[test]
    fn distances_are_followed_to_their_constants() {
        check_load("_ = x[c.index];", Where::Own);
        check_load("_ = x[at(c, 0, 0, 0)];", Where::Own);
        check_load("_ = x[at(c, 1, -2, 3)];", Where::Near([1, 2, 3]));
        check_load("_ = x[at(c, TWO, 0, 0)];", Where::Near([2, 0, 0]));
        check_load("let d = -3; _ = x[at(c, 0, d, 0)];", Where::Near([0, 3, 0]));
        check_load("var d = 2; let i = at(c, d, 0, 0); _ = x[i];", Where::Near([2, 0, 0]));
        check_load("var i = c.index; _ = x[i];", Where::Own);
        check_load("var i = c.index; if (c.inside) { i = at(c, 1, 0, 0); } _ = x[i];", Where::Near([1, 0, 0]));
        check_load("_ = x[select(c.index, at(c, 0, 4, 0), c.inside)];", Where::Near([0, 4, 0]));
        check_load("_ = x[c.index]; _ = x[at(c, 1, 0, 0)]; _ = x[at(c, 0, 2, 0)];", Where::Near([1, 2, 0]));
        check_load("_ = near(c, 5);", Where::Near([5, 0, 0]));
        check_load("_ = nearer(c);", Where::Near([1, 0, 0]));
        check_load("_ = by(at(c, 0, 0, 7));", Where::Near([0, 0, 7]));
        check_load("var own = c; _ = near(own, 2) + x[own.index];", Where::Near([2, 0, 0]));
    }

    #[test]
    fn what_is_not_known_is_far() {
        check_load("for (var d = 0; d < 3; d++) { _ = x[at(c, d, 0, 0)]; }", Where::Halo);
        check_load("_ = near(c, i32(id.x));", Where::Halo);
        check_load("_ = x[c.index + 1u];", Where::Anywhere);
        check_load("_ = x[id.x];", Where::Anywhere);
        check_load("_ = x[0];", Where::Anywhere);
        check_load("var i = c.index; i += 1u; _ = x[i];", Where::Anywhere);
        check_load("var i: u32; if (c.inside) { i = c.index; } _ = x[i];", Where::Anywhere);
        check_load("var d = 1; d = d + 1; _ = x[at(c, d, 0, 0)];", Where::Halo);
        check_load("var own = c; own.index = 0u; _ = x[own.index];", Where::Anywhere);
        check_load("var own = c; change(&own); _ = x[own.index];", Where::Anywhere);
        check_load("_ = near(Cell(true, 0u, id), 1);", Where::Anywhere);
        check_load("_ = x[cell(id + 1u).index];", Where::Anywhere);
        assert_eq!(touched("").0, Touches::default());
    }

    #[test]
    fn the_id_may_come_in_a_struct() {
        let text = format!(
            "{PRELUDE}\nstruct In {{ @builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32> }}
            @compute @workgroup_size(1) fn main(in: In) {{ let c = cell(in.id); let d = cell(in.local); _ = x[c.index]; x_next[d.index] = 1.0; }}"
        );
        let found = touches(&naga::front::wgsl::parse_str(&text).unwrap(), 0).unwrap();
        assert_eq!((found[0].load, found[1].store), (Some(Where::Own), Some(Where::Anywhere)));
    }

    #[test]
    fn a_store_to_every_own_element_is_told_from_some() {
        let check = |body: &str, total: bool| {
            let next = touched(body).1;
            assert_eq!((next.store, next.total), (Some(Where::Own), total), "{body}");
        };
        check("x_next[c.index] = 1.0;", true);
        check("if (!c.inside) { return; } x_next[c.index] = 1.0;", true);
        check("if (c.inside) { x_next[c.index] = 1.0; }", true);
        check("if (c.inside) { } else { return; } x_next[c.index] = 1.0;", true);
        check("var own = c; if (!own.inside) { return; } x_next[own.index] = 1.0;", true);
        check("if (x[c.index] > 0.0) { x_next[c.index] = 1.0; } else { x_next[c.index] = 2.0; }", true);
        check("{ x_next[c.index] = 1.0; }", true);
        check("x_next[c.index] = 1.0; if (x[c.index] > 0.0) { return; }", true);
        check("if (x[c.index] > 0.0) { x_next[c.index] = 1.0; }", false);
        check("if (x[c.index] > 0.0) { return; } x_next[c.index] = 1.0;", false);
        check("if (c.inside && x[c.index] > 0.0) { x_next[c.index] = 1.0; }", false);
        check("if (c.inside) { return; } x_next[c.index] = 1.0;", false);
        check("for (var i = 0u; i < id.x; i++) { x_next[c.index] = 1.0; }", false);
        check("loop { if (x[c.index] > 0.0) { return; } break; } x_next[c.index] = 1.0;", false);
        check("switch id.x { case 0u: { return; } default: { } } x_next[c.index] = 1.0;", false);
    }

    #[test]
    fn too_many_calls_are_refused_not_guessed() {
        let tree: String = (0..20).map(|i| format!("fn f{i}() -> f32 {{ return f{0}() + f{0}(); }}\n", i + 1)).collect();
        let text = format!("{PRELUDE}\n{tree} fn f20() -> f32 {{ return x[0]; }} @compute @workgroup_size(1) fn main() {{ x_next[0] = f0(); }}");
        assert_eq!(touches(&naga::front::wgsl::parse_str(&text).unwrap(), 0), Err(TooManyCalls));
    }
}
