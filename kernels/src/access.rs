//! What a kernel really touches, read from its IR.
//!
//! For every buffer variable that an entry point reaches, through any depth of calls: is it loaded,
//! stored, updated atomically, and *where* relative to the invocation's own element. Constant
//! arguments of `at` are followed through lets, vars and function parameters; anything else is
//! [`Where::Anywhere`]. From the same walk comes whether a kernel stores every own element, which
//! decides whether elements that it does not store need a copy first.
//! Invariant: an access is never reported nearer than it can be; unknown means far.

use naga::{Arena, Block, Expression, Function, GlobalVariable, Handle, Literal, Module, Statement, TypeInner, UnaryOperator};

/// Where an element lies, seen from the invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The invocation's own element.
    Own,
    /// A neighbour at most this far away along x, y, z.
    Near([u32; 3]),
    /// A neighbour through `at` whose distance is not constant: as far as the halo reaches.
    Halo,
    /// Anywhere.
    Anywhere,
}

impl Where {
    fn join(self, other: Where) -> Where {
        match (self, other) {
            (Where::Anywhere, _) | (_, Where::Anywhere) => Where::Anywhere,
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

/// What an entry point does with one variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// Where it is loaded, if it is.
    pub load: Option<Where>,
    /// Where it is stored to, if it is.
    pub store: Option<Where>,
    /// Whether it is updated atomically.
    pub atomic: bool,
    /// Whether every own element is stored, whatever the data.
    pub total: bool,
}

/// What an index value is known to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Index(Where),
    Number(i64),
    Unknown,
}

/// The calls that one entry point may make in this walk, to bound its time.
const CALLS_MAX: usize = 4_096;

struct Walk<'a> {
    module: &'a Module,
    found: Vec<Touches>,
    calls_left: usize,
}

/// Reads what an entry point touches, per global variable in the arena's order.
pub fn touches(module: &Module, entry: usize) -> Vec<Touches> {
    let mut walk = Walk { module, found: vec![Touches::default(); module.global_variables.len()], calls_left: CALLS_MAX };
    let function = &module.entry_points[entry].function;
    walk.function(function, &[]);
    for (handle, _) in module.global_variables.iter() {
        walk.found[handle.index()].total = stores_own(module, function, &function.body, handle) == Stores::Always;
    }
    walk.found
}

/// The first loop of an entry point's call tree that can never be left, by its span.
pub fn endless_loop(module: &Module, entry: usize) -> Option<naga::Span> {
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

impl Walk<'_> {
    fn function(&mut self, function: &Function, arguments: &[Value]) {
        self.block(function, arguments, &function.body);
    }

    fn block(&mut self, function: &Function, arguments: &[Value], block: &Block) {
        for statement in block {
            match statement {
                Statement::Emit(range) => {
                    for expression in range.clone() {
                        if let Expression::Load { pointer } = function.expressions[expression]
                            && let Some((global, place)) = self.element(function, arguments, pointer)
                        {
                            let load = &mut self.found[global.index()].load;
                            *load = Some(load.map_or(place, |before| before.join(place)));
                        }
                    }
                }
                Statement::Store { pointer, .. } => self.store(function, arguments, *pointer),
                Statement::Atomic { pointer, .. } => {
                    self.store(function, arguments, *pointer);
                    if let Some((global, place)) = self.element(function, arguments, *pointer) {
                        let touches = &mut self.found[global.index()];
                        touches.atomic = true;
                        touches.load = Some(touches.load.map_or(place, |before| before.join(place)));
                    }
                }
                Statement::Call { function: callee, arguments: passed, .. } => {
                    let values: Vec<Value> = passed.iter().map(|&a| self.value(function, arguments, a, 0)).collect();
                    if self.calls_left == 0 {
                        self.give_up();
                        return;
                    }
                    self.calls_left -= 1;
                    let callee = &self.module.functions[*callee];
                    self.function(callee, &values);
                }
                Statement::Block(inner) => self.block(function, arguments, inner),
                Statement::If { accept, reject, .. } => {
                    self.block(function, arguments, accept);
                    self.block(function, arguments, reject);
                }
                Statement::Switch { cases, .. } => {
                    for case in cases {
                        self.block(function, arguments, &case.body);
                    }
                }
                Statement::Loop { body, continuing, .. } => {
                    self.block(function, arguments, body);
                    self.block(function, arguments, continuing);
                }
                _ => {}
            }
        }
    }

    /// Too many calls to follow: everything may be touched anywhere.
    fn give_up(&mut self) {
        for touches in &mut self.found {
            if touches.load.is_some() {
                touches.load = Some(Where::Anywhere);
            }
            if touches.store.is_some() {
                touches.store = Some(Where::Anywhere);
            }
        }
    }

    fn store(&mut self, function: &Function, arguments: &[Value], pointer: Handle<Expression>) {
        if let Some((global, place)) = self.element(function, arguments, pointer) {
            let store = &mut self.found[global.index()].store;
            *store = Some(store.map_or(place, |before| before.join(place)));
        }
    }

    /// The variable that a pointer goes into, and where.
    fn element(&self, function: &Function, arguments: &[Value], pointer: Handle<Expression>) -> Option<(Handle<GlobalVariable>, Where)> {
        let place = |base: Handle<Expression>, place: Where| match function.expressions[base] {
            Expression::GlobalVariable(global) => Some((global, place)),
            _ => self.element(function, arguments, base),
        };
        match function.expressions[pointer] {
            Expression::GlobalVariable(global) => Some((global, Where::Anywhere)),
            Expression::Access { base, index } => {
                let index = match self.value(function, arguments, index, 0) {
                    Value::Index(place) => place,
                    _ => Where::Anywhere,
                };
                place(base, index)
            }
            Expression::AccessIndex { base, .. } => place(base, Where::Anywhere),
            _ => None,
        }
    }

    /// What an expression is known to be. `depth` bounds chains of variables.
    fn value(&self, function: &Function, arguments: &[Value], expression: Handle<Expression>, depth: usize) -> Value {
        if depth > 16 {
            return Value::Unknown;
        }
        let again = |expression| self.value(function, arguments, expression, depth + 1);
        match function.expressions[expression] {
            Expression::Literal(Literal::I32(value)) => Value::Number(value.into()),
            Expression::Literal(Literal::U32(value)) => Value::Number(value.into()),
            Expression::Constant(constant) => {
                constant_number(&self.module.global_expressions, self.module.constants[constant].init).map_or(Value::Unknown, Value::Number)
            }
            Expression::Unary { op: UnaryOperator::Negate, expr } => match again(expr) {
                Value::Number(value) => Value::Number(-value),
                _ => Value::Unknown,
            },
            Expression::FunctionArgument(index) => arguments.get(index as usize).copied().unwrap_or(Value::Unknown),
            Expression::AccessIndex { base, index: 1 } if is_cell(self.module, function, base) => Value::Index(Where::Own),
            Expression::Load { pointer } => match function.expressions[pointer] {
                Expression::AccessIndex { base, index: 1 } if is_cell(self.module, function, base) => Value::Index(Where::Own),
                Expression::LocalVariable(variable) => {
                    let first = function.local_variables[variable].init.map(again);
                    let mut stored = Vec::new();
                    stores_to(function, &function.body, variable, &mut stored);
                    let values = first.into_iter().chain(stored.into_iter().map(again));
                    values.reduce(join_values).unwrap_or(Value::Number(0))
                }
                _ => Value::Unknown,
            },
            Expression::CallResult(callee) => {
                let name = self.module.functions[callee].name.as_deref();
                match (name, call_arguments(&function.body, expression)) {
                    (Some("at"), Some(passed)) if passed.len() == 4 => {
                        let away: Vec<Value> = passed[1..].iter().map(|&a| again(a)).collect();
                        match (away[0], away[1], away[2]) {
                            (Value::Number(0), Value::Number(0), Value::Number(0)) => Value::Index(Where::Own),
                            (Value::Number(x), Value::Number(y), Value::Number(z)) => {
                                Value::Index(Where::Near([x, y, z].map(|d| d.unsigned_abs().min(u64::from(u32::MAX)) as u32)))
                            }
                            _ => Value::Index(Where::Halo),
                        }
                    }
                    _ => Value::Unknown,
                }
            }
            Expression::Select { accept, reject, .. } => join_values(again(accept), again(reject)),
            _ => Value::Unknown,
        }
    }
}

fn join_values(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Index(a), Value::Index(b)) => Value::Index(a.join(b)),
        (Value::Number(a), Value::Number(b)) if a == b => Value::Number(a),
        _ => Value::Unknown,
    }
}

fn constant_number(expressions: &Arena<Expression>, expression: Handle<Expression>) -> Option<i64> {
    match expressions[expression] {
        Expression::Literal(Literal::I32(value)) => Some(value.into()),
        Expression::Literal(Literal::U32(value)) => Some(value.into()),
        _ => None,
    }
}

fn stores_to(function: &Function, block: &Block, variable: Handle<naga::LocalVariable>, found: &mut Vec<Handle<Expression>>) {
    for statement in block {
        match statement {
            Statement::Store { pointer, value } if matches!(function.expressions[*pointer], Expression::LocalVariable(v) if v == variable) => found.push(*value),
            Statement::Block(inner) => stores_to(function, inner, variable, found),
            Statement::If { accept, reject, .. } => {
                stores_to(function, accept, variable, found);
                stores_to(function, reject, variable, found);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| stores_to(function, &case.body, variable, found)),
            Statement::Loop { body, continuing, .. } => {
                stores_to(function, body, variable, found);
                stores_to(function, continuing, variable, found);
            }
            _ => {}
        }
    }
}

fn call_arguments(block: &Block, of: Handle<Expression>) -> Option<&[Handle<Expression>]> {
    block.iter().find_map(|statement| match statement {
        Statement::Call { arguments, result, .. } if *result == Some(of) => Some(arguments.as_slice()),
        Statement::Block(inner) => call_arguments(inner, of),
        Statement::If { accept, reject, .. } => call_arguments(accept, of).or_else(|| call_arguments(reject, of)),
        Statement::Switch { cases, .. } => cases.iter().find_map(|case| call_arguments(&case.body, of)),
        Statement::Loop { body, continuing, .. } => call_arguments(body, of).or_else(|| call_arguments(continuing, of)),
        _ => None,
    })
}

/// Whether an expression is a `Cell`, or a variable that holds one.
fn is_cell(module: &Module, function: &Function, expression: Handle<Expression>) -> bool {
    let named_cell = |ty: Handle<naga::Type>| module.types[ty].name.as_deref() == Some("Cell") && matches!(module.types[ty].inner, TypeInner::Struct { .. });
    match function.expressions[expression] {
        Expression::CallResult(callee) => {
            module.functions[callee].name.as_deref() == Some("cell") && module.functions[callee].result.as_ref().is_some_and(|result| named_cell(result.ty))
        }
        Expression::FunctionArgument(index) => named_cell(function.arguments[index as usize].ty),
        Expression::LocalVariable(variable) => named_cell(function.local_variables[variable].ty),
        Expression::Load { pointer } => is_cell(module, function, pointer),
        _ => false,
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

/// Whether a block stores `X_next[c.index]` for every cell that is inside.
fn stores_own(module: &Module, function: &Function, block: &Block, global: Handle<GlobalVariable>) -> Stores {
    for statement in block {
        let outcome = match statement {
            Statement::Store { pointer, .. } => match function.expressions[*pointer] {
                Expression::Access { base, index }
                    if matches!(function.expressions[base], Expression::GlobalVariable(g) if g == global) && is_own_index(module, function, index) =>
                {
                    Stores::Always
                }
                _ => Stores::NotYet,
            },
            Statement::Block(inner) => stores_own(module, function, inner, global),
            Statement::If { condition, accept, reject } => match inside_test(module, function, *condition) {
                Some(true) => stores_own(module, function, accept, global),
                Some(false) => stores_own(module, function, reject, global),
                None => match (stores_own(module, function, accept, global), stores_own(module, function, reject, global)) {
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
                if returns(body) || returns(continuing) { Stores::Never } else { Stores::NotYet }
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

/// `Some(true)` for `c.inside`, `Some(false)` for its negation.
fn inside_test(module: &Module, function: &Function, condition: Handle<Expression>) -> Option<bool> {
    match function.expressions[condition] {
        Expression::AccessIndex { base, index: 0 } if is_cell(module, function, base) => Some(true),
        Expression::Load { pointer } => match function.expressions[pointer] {
            Expression::AccessIndex { base, index: 0 } if is_cell(module, function, base) => Some(true),
            _ => None,
        },
        Expression::Unary { op: UnaryOperator::LogicalNot, expr } => inside_test(module, function, expr).map(|inside| !inside),
        _ => None,
    }
}

fn is_own_index(module: &Module, function: &Function, index: Handle<Expression>) -> bool {
    match function.expressions[index] {
        Expression::AccessIndex { base, index: 1 } => is_cell(module, function, base),
        Expression::Load { pointer } => {
            matches!(function.expressions[pointer], Expression::AccessIndex { base, index: 1 } if is_cell(module, function, base))
        }
        _ => false,
    }
}
