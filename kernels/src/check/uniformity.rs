//! Barriers that only a part of a workgroup reaches.
//!
//! WGSL forbids them and browsers refuse them, but naga does not look (its analysis leaves barriers
//! out), and a GPU may hang on one. This walk follows an entry point and every function that it calls,
//! step by step, and keeps which variables *vary*: they may differ between the invocations of a workgroup,
//! because they come from an invocation's place, from memory that invocations write, or from a step that only
//! some of them did. Under a varying condition, or after some invocations left under one, a barrier is reported.
//!
//! ```text
//! function + what of its arguments varies + is it called by all? ─ walk ─► does its result vary, what it leaves in pointers
//! ```
//!
//! A function is walked once for every such question, so a call costs nothing the second time; loops are walked until
//! nothing new varies at their head, which is kept from visit to visit, so that loops in loops do not multiply.
//! Invariant: what is refused here is wrong by the WGSL specification (15.2), whose rules these are: vectors, arrays and
//! structs vary as a whole, and what was once written to a part of one stays.

use std::collections::HashMap;

use naga::{AddressSpace, Barrier, Binding, Block, BuiltIn, Expression, Function, Handle, Module, Span, Statement, StorageAccess, TypeInner};

/// A barrier that not all of a workgroup reach together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Diverging {
    /// The barrier, or the call that leads to it: the first step that only some invocations do.
    pub(super) span: Span,
    /// What it is called in WGSL.
    pub(super) construct: &'static str,
    /// The function that stands in; the entry point's has no name here.
    pub(super) function: Option<String>,
    /// The calls on the way to that function, from the entry point on.
    pub(super) calls: Vec<Span>,
}

/// The first barrier of an entry point that not all of a workgroup reach together.
pub(super) fn diverging_barrier(module: &Module, entry: usize) -> Option<Diverging> {
    let function = &module.entry_points[entry].function;
    let mut known = Known { module, waits: waits(module), answers: HashMap::new() };
    let arguments = function.arguments.iter().map(|argument| !is_same_for_workgroup(argument.binding.as_ref())).collect();
    Walk { is_entry: true, ..Walk::new(&mut known, function, false, arguments) }.run().err()
}

/// The first barrier in a function or in what it calls, per function; callees stand before their callers.
fn waits(module: &Module) -> Vec<Option<&'static str>> {
    let mut waits: Vec<Option<&'static str>> = Vec::with_capacity(module.functions.len());
    for (_, function) in module.functions.iter() {
        let mut found = None;
        each(&function.body, &mut |statement| {
            found = found.or_else(|| match statement {
                Statement::Call { function, .. } => waits[function.index()],
                _ => barrier(statement),
            });
        });
        waits.push(found);
    }
    waits
}

/// What waits for the whole workgroup.
fn barrier(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::ControlBarrier(barrier) if barrier.contains(Barrier::STORAGE) => Some("storageBarrier"),
        Statement::ControlBarrier(barrier) if barrier.contains(Barrier::TEXTURE) => Some("textureBarrier"),
        Statement::ControlBarrier(_) => Some("workgroupBarrier"),
        Statement::WorkGroupUniformLoad { .. } => Some("workgroupUniformLoad"),
        _ => None,
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

/// Memory that an invocation may find changed by another, or that is its own.
fn is_shared(space: AddressSpace) -> bool {
    match space {
        AddressSpace::Uniform | AddressSpace::Immediate => false,
        AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
        _ => true,
    }
}

/// Whether a pointer of this type goes to a variable of some caller.
fn is_into_caller(inner: &TypeInner) -> bool {
    matches!(inner, TypeInner::Pointer { space: AddressSpace::Function, .. } | TypeInner::ValuePointer { space: AddressSpace::Function, .. })
}

/// A call, as far as its answer depends on it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    function: Handle<Function>,
    /// Only a part of the workgroup makes it.
    is_split: bool,
    /// Per argument, whether it varies; of a pointer, what it points to.
    arguments: Vec<bool>,
}

/// What a call leaves behind.
#[derive(Clone)]
struct Answer {
    /// Whether the result varies.
    result: bool,
    /// Per argument, whether what it points to varies now.
    arguments: Vec<bool>,
}

/// What was found out about the module's functions.
struct Known<'a> {
    module: &'a Module,
    waits: Vec<Option<&'static str>>,
    answers: HashMap<Question, Answer>,
}

impl Known<'_> {
    fn answer(&mut self, question: Question) -> Result<Answer, Diverging> {
        if let Some(answer) = self.answers.get(&question) {
            return Ok(answer.clone());
        }
        let function = &self.module.functions[question.function];
        let answer = Walk::new(self, function, question.is_split, question.arguments.clone()).run()?;
        self.answers.insert(question, answer.clone());
        Ok(answer)
    }
}

/// What holds before a step.
#[derive(Clone, Default, PartialEq, Eq)]
struct State {
    /// Nobody gets here.
    is_dead: bool,
    /// Per local variable, then per argument, whether its content varies.
    varies: Vec<bool>,
    /// Some invocations may have left the function.
    left: bool,
    /// Some may have left the loop, or this round of it.
    apart: bool,
    /// Some may have left the switch.
    switched: bool,
}

impl State {
    /// What holds where another way comes in.
    fn join(&mut self, other: &State) {
        self.left |= other.left;
        self.apart |= other.apart;
        self.switched |= other.switched;
        match (self.is_dead, other.is_dead) {
            (_, true) => {}
            (true, false) => {
                self.is_dead = false;
                self.varies.clone_from(&other.varies);
            }
            (false, false) => self.varies.iter_mut().zip(&other.varies).for_each(|(mine, other)| *mine |= other),
        }
    }
}

/// A loop or a switch around a step.
struct Around {
    is_loop: bool,
    breaks: State,
    continues: State,
}

/// Where a pointer goes.
struct Place {
    /// The variable or argument, as in [`State::varies`], unless it is memory that is not the function's own.
    own: Option<usize>,
    is_whole: bool,
    /// Whether steps on the way, or the memory, vary.
    varies: bool,
}

struct Walk<'k, 'a> {
    known: &'k mut Known<'a>,
    function: &'a Function,
    is_entry: bool,
    is_split: bool,
    /// Per expression, whether it may differ between the invocations of a workgroup, when last computed.
    varying: Vec<bool>,
    around: Vec<Around>,
    /// Per loop, by the place of its body, what held at its head so far.
    heads: HashMap<*const Block, State>,
    returned: State,
    result: bool,
}

impl<'k, 'a> Walk<'k, 'a> {
    fn new(known: &'k mut Known<'a>, function: &'a Function, is_split: bool, arguments: Vec<bool>) -> Walk<'k, 'a> {
        let nobody = State { is_dead: true, ..State::default() };
        let varying = function.expressions.iter().map(|(_, expression)| match *expression {
            Expression::FunctionArgument(index) => arguments[index as usize],
            _ => !expression.needs_pre_emit() && is_result(expression),
        });
        let varying = varying.collect();
        let returned = State { varies: [vec![false; function.local_variables.len()], arguments].concat(), ..nobody };
        Walk { known, function, is_entry: false, is_split, varying, around: Vec::new(), heads: HashMap::new(), returned, result: false }
    }

    fn run(mut self) -> Result<Answer, Diverging> {
        // Variables begin with constants.
        let mut state = State { is_dead: false, ..self.returned.clone() };
        let function = self.function;
        self.block(&function.body, self.is_split, &mut state)?;
        self.returned.join(&state);
        Ok(Answer { result: self.result, arguments: self.returned.varies.split_off(function.local_variables.len()) })
    }

    fn diverging(&self, span: Span, construct: &'static str) -> Diverging {
        Diverging { span, construct, function: self.function.name.clone(), calls: Vec::new() }
    }

    /// `is_split`: only a part of the workgroup executes this block.
    fn block(&mut self, block: &'a Block, is_split: bool, state: &mut State) -> Result<(), Diverging> {
        for (statement, span) in block.span_iter() {
            if state.is_dead {
                break;
            }
            let is_alone = is_split || state.left || state.apart || state.switched;
            if let Some(construct) = barrier(statement).filter(|_| is_alone) {
                return Err(self.diverging(*span, construct));
            }
            match statement {
                Statement::Emit(range) => {
                    for handle in range.clone() {
                        self.varying[handle.index()] = self.varies(&self.function.expressions[handle], state);
                    }
                }
                Statement::Store { pointer, value } => {
                    let place = self.place(*pointer);
                    let varies = is_alone || place.varies || self.varying[value.index()];
                    write(&place, varies, state);
                }
                Statement::Call { function, arguments, result } => self.call(*function, arguments, *result, is_alone, *span, state)?,
                Statement::Return { value } => {
                    self.result |= is_alone || value.is_some_and(|value| self.varying[value.index()]);
                    state.left |= is_alone;
                    self.returned.join(state);
                    state.is_dead = true;
                }
                Statement::Kill => {
                    state.left |= is_alone;
                    state.is_dead = true;
                }
                Statement::Break => {
                    if let Some(around) = self.around.last_mut() {
                        state.apart |= is_alone && around.is_loop;
                        state.switched |= is_alone && !around.is_loop;
                        around.breaks.join(state);
                    }
                    state.is_dead = true;
                }
                Statement::Continue => {
                    state.apart |= is_alone;
                    if let Some(around) = self.around.iter_mut().rev().find(|around| around.is_loop) {
                        around.continues.join(state);
                    }
                    state.is_dead = true;
                }
                Statement::Block(inner) => self.block(inner, is_split, state)?,
                Statement::If { condition, accept, reject } => {
                    let is_split = is_split || self.varying[condition.index()];
                    let mut other = state.clone();
                    self.block(accept, is_split, state)?;
                    self.block(reject, is_split, &mut other)?;
                    state.join(&other);
                }
                Statement::Switch { selector, cases } => self.switch(*selector, cases, is_split, state)?,
                Statement::Loop { body, continuing, break_if } => self.repeat(body, continuing, *break_if, is_split, state)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        function: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        is_split: bool,
        span: Span,
        state: &mut State,
    ) -> Result<(), Diverging> {
        if let Some(construct) = self.known.waits[function.index()].filter(|_| is_split) {
            return Err(self.diverging(span, construct));
        }
        let module = self.known.module;
        let types = module.functions[function].arguments.iter().map(|argument| &module.types[argument.ty].inner);
        let mut places = Vec::new();
        let given = arguments.iter().zip(types).enumerate().map(|(index, (&argument, ty))| {
            if !is_into_caller(ty) {
                return self.varying[argument.index()];
            }
            let place = self.place(argument);
            let varies = place.varies || place.own.is_none_or(|own| state.varies[own]);
            places.push((index, place));
            varies
        });
        let question = Question { function, is_split, arguments: given.collect() };
        let answer = self.known.answer(question).map_err(|mut found| {
            found.calls.insert(0, span);
            found
        })?;
        for (index, place) in places {
            write(&place, answer.arguments[index], state);
        }
        if let Some(result) = result {
            self.varying[result.index()] = answer.result;
        }
        Ok(())
    }

    fn switch(&mut self, selector: Handle<Expression>, cases: &'a [naga::SwitchCase], is_split: bool, state: &mut State) -> Result<(), Diverging> {
        let is_split = is_split || self.varying[selector.index()];
        let nobody = State { is_dead: true, ..state.clone() };
        self.around.push(Around { is_loop: false, breaks: nobody.clone(), continues: nobody.clone() });
        let mut after = nobody;
        for case in cases {
            let mut inner = state.clone();
            self.block(&case.body, is_split, &mut inner)?;
            after.join(&inner);
        }
        if let Some(around) = self.around.pop() {
            after.join(&around.breaks);
        }
        // Those who left only the switch are back.
        *state = State { switched: state.switched, ..after };
        Ok(())
    }

    fn repeat(
        &mut self,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
        is_split: bool,
        state: &mut State,
    ) -> Result<(), Diverging> {
        let nobody = State { is_dead: true, ..state.clone() };
        let mut head = state.clone();
        if let Some(before) = self.heads.get(&std::ptr::from_ref(body)) {
            head.join(before);
        }
        loop {
            self.around.push(Around { is_loop: true, breaks: nobody.clone(), continues: nobody.clone() });
            let mut inner = head.clone();
            let done = self.block(body, is_split, &mut inner);
            let around = self.around.pop();
            done?;
            let mut after = nobody.clone();
            if let Some(around) = around {
                inner.join(&around.continues);
                after.join(&around.breaks);
            }
            self.block(continuing, is_split, &mut inner)?;
            if let Some(condition) = break_if {
                inner.apart |= self.varying[condition.index()];
                after.join(&inner);
            }
            let mut next = head.clone();
            next.join(&inner);
            next.join(&State { is_dead: true, ..after.clone() });
            if next == head {
                self.heads.insert(std::ptr::from_ref(body), head);
                // Behind the loop, those who left only it are back.
                *state = State { apart: state.apart, switched: state.switched, left: next.left, ..after };
                return Ok(());
            }
            head = next;
        }
    }

    fn place(&self, pointer: Handle<Expression>) -> Place {
        let module = self.known.module;
        let locals = self.function.local_variables.len();
        let (mut pointer, mut is_whole, mut varies) = (pointer, true, false);
        loop {
            let own = match self.function.expressions[pointer] {
                Expression::LocalVariable(local) => Some(local.index()),
                Expression::FunctionArgument(index) => {
                    let ty = self.function.arguments[index as usize].ty;
                    is_into_caller(&module.types[ty].inner).then_some(locals + index as usize)
                }
                Expression::GlobalVariable(global) => {
                    return Place { own: None, is_whole, varies: varies || is_shared(module.global_variables[global].space) };
                }
                Expression::Access { base, index } => {
                    varies |= self.varying[index.index()];
                    (pointer, is_whole) = (base, false);
                    continue;
                }
                Expression::AccessIndex { base, .. } => {
                    (pointer, is_whole) = (base, false);
                    continue;
                }
                _ => None,
            };
            return Place { own, is_whole, varies: varies || own.is_none() };
        }
    }

    fn varies(&self, expression: &Expression, state: &State) -> bool {
        let module = self.known.module;
        let one = |part: Handle<Expression>| self.varying[part.index()];
        match *expression {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::Override(_)
            | Expression::ZeroValue(_)
            | Expression::ArrayLength(_)
            | Expression::GlobalVariable(_)
            | Expression::LocalVariable(_) => false,
            Expression::Load { pointer } => {
                let place = self.place(pointer);
                place.varies || place.own.is_some_and(|own| state.varies[own])
            }
            Expression::AccessIndex { base, index } => {
                if self.is_entry
                    && let Expression::FunctionArgument(argument) = self.function.expressions[base]
                    && let TypeInner::Struct { members, .. } = &module.types[self.function.arguments[argument as usize].ty].inner
                    && let Some(binding) = &members[index as usize].binding
                {
                    return !is_same_for_workgroup(Some(binding));
                }
                one(base)
            }
            Expression::Access { base, index } => one(base) || one(index),
            Expression::Splat { value: inner, .. }
            | Expression::Swizzle { vector: inner, .. }
            | Expression::Unary { expr: inner, .. }
            | Expression::Relational { argument: inner, .. }
            | Expression::As { expr: inner, .. } => one(inner),
            Expression::Compose { ref components, .. } => components.iter().any(|&part| one(part)),
            Expression::Binary { left, right, .. } => one(left) || one(right),
            Expression::Select { condition, accept, reject } => one(condition) || one(accept) || one(reject),
            Expression::Math { arg, arg1, arg2, arg3, .. } => [Some(arg), arg1, arg2, arg3].into_iter().flatten().any(one),
            _ => true,
        }
    }
}

/// Whether a statement makes it, of what invocations may differ in.
fn is_result(expression: &Expression) -> bool {
    !matches!(expression, Expression::CallResult(_) | Expression::WorkGroupUniformLoadResult { .. })
}

/// Notes what a variable holds after it was written.
fn write(place: &Place, varies: bool, state: &mut State) {
    if let Some(own) = place.own {
        // A part of it leaves the rest as it was.
        state.varies[own] = varies || !place.is_whole && state.varies[own];
    }
}

fn is_same_for_workgroup(binding: Option<&Binding>) -> bool {
    matches!(binding, Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups)))
}
