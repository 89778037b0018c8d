//! Barriers that only a part of a workgroup reaches.
//!
//! WGSL forbids them and browsers refuse them, but naga does not look (its analysis leaves barriers
//! out), and a GPU may hang on one. This walk follows an entry point's control flow: a condition
//! *varies* if it comes from the invocation's place or from memory that invocations write, and under
//! such a condition, or after some invocations left under one, a barrier is reported.
//! Invariant: what passes here may still be refused by a browser, whose analysis also follows control
//! flow into functions and values; what is refused here is wrong by the WGSL specification (15.2).

use std::collections::HashMap;

use naga::{AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, Module, Statement, StorageAccess, TypeInner};

/// The first barrier of an entry point that not all of a workgroup reach together, by its span.
pub fn diverging_barrier(module: &Module, entry: usize) -> Option<naga::Span> {
    let function = &module.entry_points[entry].function;
    let walk = Walk { varying: varying(module, function), waits: waits(module) };
    walk.block(&function.body, false, &mut Flow::default())
}

/// Whether a function waits for its workgroup, per function; callees stand before their callers.
fn waits(module: &Module) -> Vec<bool> {
    let mut waits = Vec::with_capacity(module.functions.len());
    for (_, function) in module.functions.iter() {
        let mut found = false;
        each(&function.body, &mut |statement| {
            found |= match statement {
                Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } => true,
                Statement::Call { function, .. } => waits[function.index()],
                _ => false,
            };
        });
        waits.push(found);
    }
    waits
}

/// Whether a function reads memory that invocations write, itself.
fn reads_shared(module: &Module, function: &Function) -> bool {
    function.expressions.iter().any(|(_, expression)| matches!(expression, Expression::GlobalVariable(global) if is_shared(module, *global)))
}

/// Memory that an invocation may find changed by another, or that is its own.
fn is_shared(module: &Module, global: Handle<naga::GlobalVariable>) -> bool {
    match module.global_variables[global].space {
        AddressSpace::Uniform | AddressSpace::Immediate => false,
        AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
        _ => true,
    }
}

fn each<'a>(block: &'a Block, visit: &mut impl FnMut(&'a Statement)) {
    for statement in block {
        visit(statement);
        match statement {
            Statement::Block(inner) => each(inner, visit),
            Statement::If { accept, reject, .. } => {
                each(accept, visit);
                each(reject, visit);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| each(&case.body, visit)),
            Statement::Loop { body, continuing, .. } => {
                each(body, visit);
                each(continuing, visit);
            }
            _ => {}
        }
    }
}

/// Who is missing from here on.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Flow {
    /// Some invocations may have left the function.
    left: bool,
    /// Some may have left the loop, or this round of it.
    apart: bool,
    /// Whether a `break` leaves a `switch`; and whether some may have left it.
    is_in_switch: bool,
    switched: bool,
}

impl Flow {
    /// Who is missing where two ways meet.
    fn join(self, other: Flow) -> Flow {
        Flow { left: self.left || other.left, apart: self.apart || other.apart, switched: self.switched || other.switched, ..self }
    }
}

struct Walk {
    /// Whether an expression may differ between the invocations of a workgroup.
    varying: Vec<bool>,
    /// Whether a function has a barrier.
    waits: Vec<bool>,
}

impl Walk {
    /// `split`: only a part of the workgroup executes this block.
    fn block(&self, block: &Block, split: bool, flow: &mut Flow) -> Option<naga::Span> {
        for (statement, span) in block.span_iter() {
            let alone = split || flow.left || flow.apart || flow.switched;
            let found = match statement {
                Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } if alone => Some(*span),
                Statement::Call { function, .. } if alone && self.waits[function.index()] => Some(*span),
                Statement::Return { .. } | Statement::Kill => {
                    flow.left |= alone;
                    None
                }
                Statement::Break if flow.is_in_switch => {
                    flow.switched |= alone;
                    None
                }
                Statement::Break | Statement::Continue => {
                    flow.apart |= alone;
                    None
                }
                Statement::Block(inner) => self.block(inner, split, flow),
                Statement::If { condition, accept, reject } => {
                    let split = split || self.varying[condition.index()];
                    let mut other = *flow;
                    let found = self.block(accept, split, flow).or_else(|| self.block(reject, split, &mut other));
                    *flow = flow.join(other);
                    found
                }
                Statement::Switch { selector, cases } => {
                    let split = split || self.varying[selector.index()];
                    let before = *flow;
                    cases.iter().find_map(|case| {
                        let mut inner = Flow { is_in_switch: true, ..before };
                        let found = self.block(&case.body, split, &mut inner);
                        // Behind the switch, those who left only it are back.
                        *flow = flow.join(Flow { switched: before.switched, ..inner });
                        found
                    })
                }
                Statement::Loop { body, continuing, break_if } => {
                    let mut inner = Flow { is_in_switch: false, ..*flow };
                    // Another round for what the last has taken apart, and none for what it has not: loops lie in each other.
                    let mut found = None;
                    let mut before = None;
                    while found.is_none() && before != Some(inner) {
                        before = Some(inner);
                        found = self.block(body, split, &mut inner).or_else(|| self.block(continuing, split, &mut inner));
                        inner.apart |= break_if.is_some_and(|condition| self.varying[condition.index()]);
                    }
                    flow.left |= inner.left;
                    found
                }
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Per expression, whether it may differ between the invocations of a workgroup.
fn varying(module: &Module, function: &Function) -> Vec<bool> {
    let mut stores: Vec<(usize, Handle<Expression>)> = Vec::new();
    let mut passed: HashMap<Handle<Expression>, &[Handle<Expression>]> = HashMap::new();
    let mut locals = vec![false; function.local_variables.len()];
    stores.extend(function.local_variables.iter().filter_map(|(handle, variable)| Some((handle.index(), variable.init?))));
    each(&function.body, &mut |statement| match statement {
        Statement::Store { pointer, value } => stores.extend(local_of(function, *pointer).map(|local| (local, *value))),
        Statement::Call { arguments, result, .. } => {
            // What a callee does with an address is not followed.
            for local in arguments.iter().filter_map(|&argument| local_of(function, argument)) {
                locals[local] = true;
            }
            passed.extend(result.map(|result| (result, arguments.as_slice())));
        }
        _ => {}
    });
    let reads_shared: Vec<bool> = module.functions.iter().map(|(_, function)| reads_shared(module, function)).collect();
    // Expressions only name earlier ones; variables need rounds until nothing new varies.
    let mut varying = vec![false; function.expressions.len()];
    loop {
        for (handle, expression) in function.expressions.iter() {
            let arguments = passed.get(&handle).copied().unwrap_or_default();
            varying[handle.index()] = match expression {
                Expression::LocalVariable(variable) => locals[variable.index()],
                Expression::CallResult(callee) => reads_shared[callee.index()] || arguments.iter().any(|a| varying[a.index()]),
                _ => varies(module, function, expression, &varying),
            };
        }
        let mut settled = true;
        for &(local, value) in &stores {
            settled &= locals[local] || !varying[value.index()];
            locals[local] |= varying[value.index()];
        }
        if settled {
            return varying;
        }
    }
}

fn varies(module: &Module, function: &Function, expression: &Expression, known: &[bool]) -> bool {
    let any = |parts: &[Handle<Expression>]| parts.iter().any(|part| known[part.index()]);
    match *expression {
        Expression::Literal(_)
        | Expression::Constant(_)
        | Expression::Override(_)
        | Expression::ZeroValue(_)
        | Expression::ArrayLength(_)
        | Expression::WorkGroupUniformLoadResult { .. } => false,
        Expression::GlobalVariable(global) => is_shared(module, global),
        Expression::FunctionArgument(index) => !is_same_for_workgroup(function.arguments[index as usize].binding.as_ref()),
        Expression::AccessIndex { base, index } => {
            if let Expression::FunctionArgument(argument) = function.expressions[base]
                && let TypeInner::Struct { members, .. } = &module.types[function.arguments[argument as usize].ty].inner
            {
                return !is_same_for_workgroup(members[index as usize].binding.as_ref());
            }
            any(&[base])
        }
        Expression::Access { base, index } => any(&[base, index]),
        Expression::Load { pointer: inner }
        | Expression::Splat { value: inner, .. }
        | Expression::Swizzle { vector: inner, .. }
        | Expression::Unary { expr: inner, .. }
        | Expression::Relational { argument: inner, .. }
        | Expression::As { expr: inner, .. } => any(&[inner]),
        Expression::Compose { ref components, .. } => any(components),
        Expression::Binary { left, right, .. } => any(&[left, right]),
        Expression::Select { condition, accept, reject } => any(&[condition, accept, reject]),
        Expression::Math { arg, arg1, arg2, arg3, .. } => any(&[arg, arg1.unwrap_or(arg), arg2.unwrap_or(arg), arg3.unwrap_or(arg)]),
        _ => true,
    }
}

fn is_same_for_workgroup(binding: Option<&Binding>) -> bool {
    matches!(binding, Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups)))
}

/// The local variable that a pointer goes into.
fn local_of(function: &Function, pointer: Handle<Expression>) -> Option<usize> {
    let mut pointer = pointer;
    loop {
        match function.expressions[pointer] {
            Expression::LocalVariable(local) => return Some(local.index()),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => pointer = base,
            _ => return None,
        }
    }
}
