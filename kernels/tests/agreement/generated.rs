//! Kernels at random: declarations, expressions and control flow of every kind, whose results every executor must make
//! alike, to the bit.
//!
//! ```text
//! bytes ─► Writer ─► helpers, make(), two entry points ─► Case
//! ```
//!
//! Every choice is a byte of the case, and no byte left is the simplest choice, so that shorter lists are smaller
//! kernels. Invariants of the text: it is valid; every loop ends after a few rounds; floats are whole numbers small
//! enough for every sum and product to be exact; invocations meet at every barrier; what nobody may know, such as the
//! order of atomics, reaches no result.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner, contextualize_config};

use crate::cases::Case;
use crate::machines::Machines;

/// What a variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    U32,
    I32,
    F32,
    Bool,
}

use Scalar::{Bool, F32, I32, U32};

impl Scalar {
    fn name(self) -> &'static str {
        match self {
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
        }
    }
}

/// A scalar, or a vector of 2 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Type {
    scalar: Scalar,
    size: usize,
}

impl Type {
    fn name(self) -> String {
        if self.size == 1 { self.scalar.name().into() } else { format!("vec{}<{}>", self.size, self.scalar.name()) }
    }

    fn of(scalar: Scalar) -> Type {
        Type { scalar, size: 1 }
    }
}

/// Something with a name.
#[derive(Clone, Debug)]
struct Variable {
    name: String,
    ty: Type,
    /// Elements, if it is an array.
    count: Option<usize>,
    is_mutable: bool,
    /// Whether it is the same for a whole workgroup.
    is_uniform: bool,
}

/// Variables of the module: name, scalar, components, elements.
const PRIVATE: [(&str, Scalar, usize, Option<usize>); 3] = [("kept", U32, 4, None), ("list", I32, 1, Some(5)), ("flag", Bool, 1, None)];

impl Variable {
    fn is_private(&self) -> bool {
        PRIVATE.iter().any(|(name, ..)| *name == self.name)
    }
}

/// What surrounds a statement.
#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    /// Whether the whole workgroup gets here together.
    is_uniform: bool,
    /// What `break` and `continue` may do.
    can_break: bool,
    can_continue: bool,
    /// What `return` returns, where it may stand.
    returns: Option<Type>,
}

struct Writer<'a> {
    choices: std::slice::Iter<'a, u8>,
    text: String,
    variables: Vec<Variable>,
    /// Functions written so far: what they take by value, by pointer, and return.
    functions: Vec<(Type, Type, Type)>,
    names: usize,
    statements_left: usize,
}

const LEAVES_U32: [&str; 6] = ["x.u.x", "x.u.y", "at", "in.n", "x.u.z % 7u", "x.u.w"];
const LEAVES_I32: [&str; 4] = ["x.i.x", "x.i.y % 10", "x.i.z", "i32(at)"];
const LITERALS_U32: [&str; 8] = ["1u", "2u", "3u", "5u", "16u", "31u", "0x80000000u", "0xffffffffu"];
const LITERALS_I32: [&str; 7] = ["1", "2", "3", "7", "8", "100", "0x7fffffff"];
const LITERALS_F32: [&str; 5] = ["1.0", "2.0", "3.0", "10.0", "50.0"];

impl Writer<'_> {
    /// A choice among so many; 0 when there are no more.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or(0)) % count
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn name(&mut self, start: &str) -> String {
        self.names += 1;
        format!("{start}{}", self.names)
    }

    fn line(&mut self, place: Place, line: &str) {
        let _ = writeln!(self.text, "{}{line}", "    ".repeat(place.depth + 1));
    }

    fn ty(&mut self) -> Type {
        let scalar = self.pick(&[U32, I32, F32, Bool, U32, I32]);
        let size = self.pick(&[1, 1, 3, 4, 2]);
        Type { scalar, size }
    }

    fn some_variable(&mut self, fits: impl Fn(&Variable) -> bool) -> Option<Variable> {
        let fitting: Vec<usize> = (0..self.variables.len()).filter(|&at| fits(&self.variables[at])).collect();
        // The newest first.
        let at = self.below(fitting.len().max(1));
        fitting.len().checked_sub(at + 1).map(|back| self.variables[fitting[back]].clone())
    }

    // ---- expressions; none of them is constant but a literal, and those only stand where WGSL cannot fold them away

    /// An index below `count`.
    fn index(&mut self, count: usize, depth: usize) -> String {
        match self.below(3) {
            0 => format!("(at % {count}u)"),
            1 => format!("{}u", self.below(count)),
            _ => format!("({} % {count}u)", self.value(Type::of(U32), depth)),
        }
    }

    /// A value that is small enough to multiply, if it is a float.
    fn value(&mut self, ty: Type, depth: usize) -> String {
        if depth == 0 {
            return self.leaf(ty);
        }
        let value = if ty.size > 1 { self.vector(ty, depth - 1) } else { self.scalar(ty.scalar, depth - 1) };
        match (ty.scalar, ty.size) {
            (F32, 1) => format!("small({value})"),
            (F32, size) => format!("small{size}({value})"),
            _ => value,
        }
    }

    /// A leaf or a literal.
    fn operand(&mut self, ty: Type, depth: usize) -> String {
        if self.below(4) == 3 && ty.size == 1 {
            return match ty.scalar {
                U32 => self.pick(&LITERALS_U32).into(),
                I32 => self.pick(&LITERALS_I32).into(),
                F32 => self.pick(&LITERALS_F32).into(),
                Bool => self.pick(&["true", "false"]).into(),
            };
        }
        self.value(ty, depth)
    }

    fn leaf(&mut self, ty: Type) -> String {
        let choice = self.below(4);
        if choice > 0
            && let Some(variable) = self.some_variable(|variable| variable.ty.scalar == ty.scalar)
        {
            let whole = match variable.count {
                Some(count) => format!("{}[{}]", variable.name, self.index(count, 0)),
                None => variable.name.clone(),
            };
            return self.resized(&whole, variable.ty.size, ty);
        }
        let scalar = match ty.scalar {
            U32 => self.pick(&LEAVES_U32).to_string(),
            I32 => self.pick(&LEAVES_I32).to_string(),
            F32 => self.pick(&["f32(x.i.x % 50)", "f32(at % 9u)", "f32(x.u.y % 64u)", "-f32(x.u.x % 8u)"]).to_string(),
            Bool => self.pick(&["(x.u.x > 5u)", "(x.i.y < 0)", "(at % 2u == 1u)", "(x.u.z > x.u.w)"]).to_string(),
        };
        if ty.size == 1 {
            return scalar;
        }
        if choice == 0 && ty.scalar == U32 {
            return ["x.u.zx", "x.u.xyz", "x.u"][ty.size - 2].into();
        }
        format!("{}({scalar})", ty.name())
    }

    /// A value with another number of components.
    fn resized(&mut self, value: &str, size: usize, ty: Type) -> String {
        let letters = |writer: &mut Self, count: usize| (0..count).map(|_| writer.pick(&["x", "y", "z", "w"][..size])).collect::<String>();
        match (size, ty.size) {
            (1, 1) => value.into(),
            (1, _) => format!("{}({value})", ty.name()),
            (size, 1) if self.below(2) == 1 => format!("{value}[{}]", self.index(size, 0)),
            (a, b) if a == b && self.below(2) == 0 => value.into(),
            (_, count) => format!("{value}.{}", letters(self, count)),
        }
    }

    fn vector(&mut self, ty: Type, depth: usize) -> String {
        let one = Type::of(ty.scalar);
        match self.below(6) {
            0 => self.leaf(ty),
            1 => {
                let parts: Vec<String> = (0..ty.size).map(|_| self.value(one, depth.min(1))).collect();
                format!("{}({})", ty.name(), parts.join(", "))
            }
            2 if ty.size > 2 => {
                let front = self.value(Type { size: ty.size - 1, ..ty }, depth);
                format!("{}({front}, {})", ty.name(), self.value(one, depth))
            }
            3 => {
                let size = self.pick(&[2, 3, 4]);
                let other = self.value(Type { size, ..ty }, depth);
                self.resized(&format!("({other})"), size, ty)
            }
            _ => self.operation(ty, depth),
        }
    }

    fn scalar(&mut self, scalar: Scalar, depth: usize) -> String {
        let ty = Type::of(scalar);
        match (self.below(8), scalar) {
            (0, _) => self.leaf(ty),
            (1, U32) => format!("bitcast<u32>({})", self.value(Type::of(I32), depth)),
            (1, I32) => format!("bitcast<i32>({})", self.value(Type::of(U32), depth)),
            (2, U32) => format!("u32({})", self.value(Type::of(Bool), depth)),
            (2, I32) => format!("i32({})", self.value(Type::of(F32), depth)),
            (1 | 2, F32) => format!("f32({} % 60)", self.value(Type::of(I32), depth)),
            (1, Bool) => format!("bool({})", self.value(Type::of(U32), depth)),
            (2, Bool) => {
                let size = self.pick(&[2, 3, 4]);
                let function = self.pick(&["all", "any"]);
                format!("{function}({})", self.value(Type { scalar: Bool, size }, depth))
            }
            (3, Bool) => {
                let operator = self.pick(&["&&", "||"]);
                format!("({} {operator} {})", self.value(ty, depth), self.value(ty, depth))
            }
            (3, U32 | I32 | F32) => {
                let size = self.pick(&[2, 3, 4]);
                let vector = Type { scalar, size };
                format!("dot({}, {})", self.value(vector, depth), self.value(vector, depth))
            }
            _ => self.operation(ty, depth),
        }
    }

    /// An operator or a function of every component.
    fn operation(&mut self, ty: Type, depth: usize) -> String {
        let a = self.value(ty, depth);
        if self.below(6) == 5 {
            let condition = if self.below(2) == 0 { Type::of(Bool) } else { Type { scalar: Bool, ..ty } };
            let condition = self.value(condition, depth);
            return format!("select({a}, {}, {condition})", self.value(ty, depth));
        }
        if ty.scalar == Bool {
            return match self.below(4) {
                0 => format!("!({a})"),
                1 => {
                    let operator = self.pick(&["&", "|", "==", "!="]);
                    format!("(({a}) {operator} ({}))", self.value(ty, depth))
                }
                _ => {
                    let scalar = self.pick(&[U32, I32, F32]);
                    let operator = self.pick(&["<", "<=", ">", ">=", "==", "!="]);
                    let compared = Type { scalar, ..ty };
                    format!("({} {operator} {})", self.value(compared, depth), self.operand(compared, depth))
                }
            };
        }
        let functions: &[&str] = match ty.scalar {
            U32 => &["~", "abs", "countOneBits", "reverseBits", "countLeadingZeros", "firstTrailingBit", "firstLeadingBit"],
            I32 => &["-", "~", "abs", "sign", "countTrailingZeros", "firstLeadingBit"],
            _ => &["-", "abs", "floor", "trunc", "sign", "ceil"],
        };
        let operators: &[&str] = match ty.scalar {
            F32 => &["+", "-", "*", "min", "max"],
            _ => &["+", "-", "*", "/", "%", "&", "|", "^", "min", "max", "<<", ">>"],
        };
        match self.below(5) {
            0 => {
                let function = self.pick(functions);
                format!("{function}({a})")
            }
            1 => format!("clamp({a}, {}, {})", self.value(ty, depth.min(1)), self.value(ty, depth.min(1))),
            _ => {
                let operator = self.pick(operators);
                match operator {
                    "min" | "max" => format!("{operator}({a}, {})", self.operand(ty, depth)),
                    "<<" | ">>" => {
                        let amount = Type { scalar: U32, ..ty };
                        format!("(({a}) {operator} ({} & {}(31u)))", self.value(amount, depth), amount.name())
                    }
                    _ => format!("({a} {operator} {})", self.operand(ty, depth)),
                }
            }
        }
    }

    /// A number that is the same for the whole workgroup.
    fn uniform_value(&mut self) -> String {
        let choice = self.below(4);
        if choice == 3
            && let Some(variable) = self.some_variable(|variable| variable.is_uniform)
        {
            return variable.name;
        }
        ["group.x", "params.which", "groups.x"][choice % 3].into()
    }

    // ---- statements

    fn declare(&mut self, place: Place) {
        let ty = self.ty();
        let name = self.name("v");
        let depth = 1 + self.below(3);
        let mut variable = Variable { name: name.clone(), ty, count: None, is_mutable: true, is_uniform: false };
        match self.below(5) {
            0 | 1 => {
                let value = self.value(ty, depth);
                self.line(place, &format!("var {name} = {value};"));
            }
            2 => {
                let value = self.value(ty, depth);
                variable.is_mutable = false;
                self.line(place, &format!("let {name} = {value};"));
            }
            3 => self.line(place, &format!("var {name}: {};", ty.name())),
            _ => {
                let count = 2 + self.below(5);
                variable.count = Some(count);
                let name_of = ty.name();
                if self.below(2) == 0 {
                    self.line(place, &format!("var {name}: array<{name_of}, {count}>;"));
                } else {
                    let values: Vec<String> = (0..count).map(|_| self.value(ty, 1)).collect();
                    self.line(place, &format!("var {name} = array<{name_of}, {count}>({});", values.join(", ")));
                }
            }
        }
        self.variables.push(variable);
    }

    fn assign(&mut self, place: Place) {
        let Some(variable) = self.some_variable(|variable| variable.is_mutable) else { return self.declare(place) };
        let mut target = variable.name.clone();
        if let Some(count) = variable.count {
            let index = self.index(count, 1);
            let _ = write!(target, "[{index}]");
        }
        let mut ty = variable.ty;
        if ty.size > 1 && self.below(2) == 1 {
            let part = if self.below(2) == 0 {
                format!(".{}", self.pick(&["x", "y", "z", "w"][..ty.size]))
            } else {
                format!("[{}]", self.index(ty.size, 1))
            };
            target.push_str(&part);
            ty = Type::of(ty.scalar);
        }
        let depth = 1 + self.below(3);
        let operator = match ty.scalar {
            U32 | I32 => self.pick(&["", "", "+", "*", "^", "-", "|"]),
            _ => "",
        };
        let value = self.value(ty, depth);
        self.line(place, &format!("{target} {operator}= {value};"));
    }

    fn call(&mut self, place: Place) {
        if self.functions.is_empty() {
            return self.assign(place);
        }
        let number = self.below(self.functions.len());
        let (by_value, by_pointer, returns) = self.functions[number];
        // A helper takes pointers to variables of functions.
        let fits = |variable: &Variable| variable.is_mutable && variable.count.is_none() && variable.ty == by_pointer && !variable.is_private();
        let Some(target) = self.some_variable(fits) else {
            let name = self.name("v");
            self.line(place, &format!("var {name}: {};", by_pointer.name()));
            return self.variables.push(Variable { name, ty: by_pointer, count: None, is_mutable: true, is_uniform: false });
        };
        let value = self.value(by_value, 2);
        let name = self.name("v");
        self.line(place, &format!("let {name} = helper{number}(in, x, at, {value}, &{});", target.name));
        self.variables.push(Variable { name, ty: returns, count: None, is_mutable: false, is_uniform: false });
    }

    /// What all of a workgroup do together.
    fn share(&mut self, place: Place) {
        let scalar = self.pick(&[U32, I32, F32]);
        let depth = 1 + self.below(2);
        let name = self.name("v");
        let ty = match self.below(5) {
            0 | 1 => {
                let memory = format!("shared_{}", scalar.name());
                let value = self.value(Type::of(scalar), depth);
                let from = self.value(Type::of(U32), 1);
                self.line(place, &format!("{memory}[in.n] = {value};"));
                self.line(place, "workgroupBarrier();");
                self.line(place, &format!("let {name} = {memory}[({from}) % size];"));
                self.line(place, "workgroupBarrier();");
                Type::of(scalar)
            }
            2 => {
                let value = self.value(Type { scalar: U32, size: 3 }, depth);
                self.line(place, &format!("shared_vectors[size - 1u - in.n] = {value};"));
                self.line(place, "workgroupBarrier();");
                self.line(place, &format!("let {name} = shared_vectors[(in.n + 1u) % size].zxy;"));
                self.line(place, "workgroupBarrier();");
                Type { scalar: U32, size: 3 }
            }
            3 => {
                let operator = self.pick(&["Add", "Max", "Or", "Xor"]);
                let value = self.value(Type::of(U32), depth);
                self.line(place, "if (in.n == 0u) { atomicStore(&shared_count, 0u); }");
                self.line(place, "workgroupBarrier();");
                self.line(place, &format!("atomic{operator}(&shared_count, {value});"));
                self.line(place, "workgroupBarrier();");
                self.line(place, &format!("let {name} = atomicLoad(&shared_count);"));
                self.line(place, "workgroupBarrier();");
                Type::of(U32)
            }
            _ => {
                let value = self.value(Type::of(U32), depth);
                self.line(place, &format!("if (in.n == size / 2u) {{ shared_one = ({value}) % 6u; }}"));
                self.line(place, &format!("let {name} = workgroupUniformLoad(&shared_one);"));
                self.variables.push(Variable { name, ty: Type::of(U32), count: None, is_mutable: false, is_uniform: true });
                return;
            }
        };
        self.variables.push(Variable { name, ty, count: None, is_mutable: false, is_uniform: false });
    }

    fn condition(&mut self, place: &mut Place) -> String {
        if place.is_uniform && self.below(2) == 1 {
            return format!("{} % 2u == {}u", self.uniform_value(), self.below(2));
        }
        place.is_uniform = false;
        let depth = 1 + self.below(2);
        self.value(Type::of(Bool), depth)
    }

    fn block(&mut self, place: Place, most: usize) {
        let known = self.variables.len();
        for _ in 0..1 + self.below(most) {
            if self.statements_left == 0 {
                break;
            }
            self.statements_left -= 1;
            if !self.statement(place) {
                break;
            }
        }
        self.variables.truncate(known);
    }

    /// Writes a statement; whether others may follow it.
    fn statement(&mut self, place: Place) -> bool {
        let inner = Place { depth: place.depth + 1, ..place };
        match self.below(14) {
            0..=2 => self.assign(place),
            3 | 4 => self.declare(place),
            5 => self.call(place),
            6 if place.is_uniform => self.share(place),
            7 | 8 if place.depth < 4 => {
                let mut inner = inner;
                let condition = self.condition(&mut inner);
                self.line(place, &format!("if ({condition}) {{"));
                self.block(inner, 3);
                if self.below(2) == 1 {
                    self.line(place, "} else {");
                    self.block(inner, 3);
                }
                self.line(place, "}");
            }
            9 | 10 if place.depth < 3 => self.repeat(place),
            11 if place.depth < 3 => self.switch(place),
            12 => {
                let leave = match (self.below(3), place) {
                    (0, Place { can_break: true, .. }) => "break;".to_string(),
                    (1, Place { can_continue: true, .. }) => "continue;".to_string(),
                    (_, Place { returns: Some(ty), .. }) => format!("return {};", self.value(ty, 2)),
                    _ => {
                        self.assign(place);
                        return true;
                    }
                };
                let condition = self.value(Type::of(Bool), 2);
                self.line(place, &format!("if ({condition}) {{ {leave} }}"));
            }
            13 if place.depth < 4 => {
                self.line(place, "{");
                self.block(inner, 3);
                self.line(place, "}");
            }
            _ => self.assign(place),
        }
        true
    }

    /// A loop of at most five rounds.
    fn repeat(&mut self, place: Place) {
        let mut inner = Place { depth: place.depth + 1, ..place };
        let counter = self.name("k");
        let most = 2 + self.below(4);
        let bound = if place.is_uniform && self.below(2) == 1 {
            format!("1u + {} % {most}u", self.uniform_value())
        } else {
            inner.is_uniform = false;
            format!("{} % {most}u", self.value(Type::of(U32), 2))
        };
        // Where the workgroup stays together, nobody leaves early.
        (inner.can_break, inner.can_continue) = (!inner.is_uniform, !inner.is_uniform);
        let counted = Variable { name: counter.clone(), ty: Type::of(U32), count: None, is_mutable: false, is_uniform: inner.is_uniform };
        self.variables.push(counted);
        match self.below(3) {
            0 => {
                self.line(place, &format!("for (var {counter} = 0u; {counter} < {bound}; {counter}++) {{"));
                self.block(inner, 4);
            }
            1 => {
                self.line(place, &format!("var {counter} = 0u;"));
                self.line(place, &format!("while ({counter} < {bound}) {{"));
                self.line(inner, &format!("{counter}++;"));
                self.block(inner, 4);
            }
            _ => {
                self.line(place, &format!("var {counter} = 0u;"));
                self.line(place, "loop {");
                self.line(inner, &format!("if ({counter} >= {bound}) {{ break; }}"));
                self.block(inner, 4);
                let end = if inner.is_uniform { String::new() } else { format!(" break if {};", self.value(Type::of(Bool), 2)) };
                self.line(inner, &format!("continuing {{ {counter}++;{end} }}"));
            }
        }
        self.line(place, "}");
        self.variables.pop();
    }

    fn switch(&mut self, place: Place) {
        let mut inner = Place { depth: place.depth + 2, can_break: true, ..place };
        let count = 2 + self.below(4);
        let (selector, ending) = if place.is_uniform && self.below(2) == 1 {
            inner.can_break = false;
            (format!("{} % {count}u", self.uniform_value()), "u")
        } else {
            inner.is_uniform = false;
            match self.below(2) {
                0 => (format!("{} % {count}u", self.value(Type::of(U32), 2)), "u"),
                _ => (format!("{} % {count}", self.value(Type::of(I32), 2)), ""),
            }
        };
        let cases = self.below(count);
        let default = self.below(cases + 1);
        self.line(place, &format!("switch ({selector}) {{"));
        let step = Place { depth: place.depth + 1, ..place };
        for case in 0..=cases {
            let head = match case == default {
                true if self.below(3) == 2 => format!("case {case}{ending}, default: {{"),
                true => "default: {".to_string(),
                false if ending.is_empty() && self.below(2) == 1 => format!("case {case}, -{}: {{", case + 1),
                false => format!("case {case}{ending}: {{"),
            };
            self.line(step, &head);
            self.block(inner, 2);
            self.line(step, "}");
        }
        self.line(place, "}");
    }

    // ---- functions

    fn function(&mut self) {
        let (by_value, by_pointer, returns) = (self.ty(), self.ty(), self.ty());
        let number = self.functions.len();
        let _ = writeln!(
            self.text,
            "fn helper{number}(in: Inputs, x: Given, at: u32, p: {}, q: ptr<function, {}>) -> {} {{",
            by_value.name(),
            by_pointer.name(),
            returns.name()
        );
        let place = Place { returns: Some(returns), ..Place::default() };
        let globals = self.variables.len();
        let variable = |name: &str, ty, is_mutable| Variable { name: name.into(), ty, count: None, is_mutable, is_uniform: false };
        self.variables.extend([variable("p", by_value, false), variable("(*q)", by_pointer, true)]);
        self.statements_left = 12;
        // A block of its own would hide its variables from the last line.
        for _ in 0..1 + self.below(5) {
            self.statement(place);
        }
        let value = self.value(returns, 3);
        self.line(place, &format!("return {value};"));
        self.text.push_str("}\n");
        self.variables.truncate(globals);
        self.functions.push((by_value, by_pointer, returns));
    }

    fn make(&mut self) {
        self.text.push_str("fn make(in: Inputs, x: Given, at: u32, size: u32, group: vec3<u32>, groups: vec3<u32>) -> Made {\n");
        let place = Place { is_uniform: true, ..Place::default() };
        self.statements_left = 40;
        for _ in 0..3 + self.below(10) {
            self.statement(place);
        }
        self.line(place, "var made: Made;");
        for (field, ty) in [("a", Type { scalar: U32, size: 4 }), ("b", Type { scalar: I32, size: 3 }), ("c", Type { scalar: F32, size: 2 })] {
            let value = self.value(ty, 2);
            self.line(place, &format!("made.{field} = {value};"));
        }
        // Nothing that was computed is for nothing.
        for variable in self.variables.clone() {
            let parts: Vec<String> = match variable.count {
                Some(count) => (0..count).map(|at| format!("{}[{at}]", variable.name)).collect(),
                None => vec![variable.name],
            };
            for part in parts {
                for component in 0..variable.ty.size {
                    let part = if variable.ty.size == 1 { part.clone() } else { format!("{part}.{}", ["x", "y", "z", "w"][component]) };
                    let word = match variable.ty.scalar {
                        U32 | Bool => format!("u32({part})"),
                        I32 => format!("bitcast<u32>({part})"),
                        F32 => format!("bitcast<u32>(i32({part}))"),
                    };
                    self.line(place, &format!("made.sum = made.sum * 31u + {word};"));
                }
            }
        }
        self.line(place, "return made;");
        self.text.push_str("}\n");
    }
}

const HEAD: &str = "
struct In {
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) n: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
}
struct Inputs { n: u32 }
struct Made { a: vec4<u32>, b: vec3<i32>, c: vec2<f32>, sum: u32 }
var<workgroup> shared_u32: array<u32, 16>;
var<workgroup> shared_i32: array<i32, 16>;
var<workgroup> shared_f32: array<f32, 16>;
var<workgroup> shared_vectors: array<vec3<u32>, 16>;
var<workgroup> shared_count: atomic<u32>;
var<workgroup> shared_one: u32;
var<private> kept: vec4<u32>;
var<private> list: array<i32, 5>;
var<private> flag: bool;
fn small(v: f32) -> f32 { return clamp(trunc(v), -63.0, 63.0); }
fn small2(v: vec2<f32>) -> vec2<f32> { return clamp(trunc(v), vec2<f32>(-63.0), vec2<f32>(63.0)); }
fn small3(v: vec3<f32>) -> vec3<f32> { return clamp(trunc(v), vec3<f32>(-63.0), vec3<f32>(63.0)); }
fn small4(v: vec4<f32>) -> vec4<f32> { return clamp(trunc(v), vec4<f32>(-63.0), vec4<f32>(63.0)); }
";

const ENTRIES: &str = "
@compute @workgroup_size(16) fn by_16(in: In) {
    let c = cell(in.id);
    let made = make(Inputs(in.n), given[select(0u, c.index, c.inside)], c.coord.x, 16u, in.group, in.groups);
    if (c.inside) { made_next[c.index] = made; }
}
@compute @workgroup_size(7) fn by_7(in: In) {
    let c = cell(in.id);
    let made = make(Inputs(in.n), given[select(0u, c.index, c.inside)], c.coord.x, 7u, in.group, in.groups);
    if (c.inside) { made_next[c.index] = made; }
}
";

fn kernel(choices: &[u8]) -> String {
    let global = |(name, scalar, size, count): (&str, _, _, _)| Variable {
        name: name.into(),
        ty: Type { scalar, size },
        count,
        is_mutable: true,
        is_uniform: false,
    };
    let variables = PRIVATE.map(global).to_vec();
    let mut writer = Writer { choices: choices.iter(), text: HEAD.into(), variables, functions: Vec::new(), names: 0, statements_left: 0 };
    for _ in 0..writer.below(3) {
        writer.function();
    }
    writer.make();
    writer.text + ENTRIES
}

/// As many as fit half a minute in an unoptimised build, or as `PROPTEST_CASES` asks for.
const CASES: u32 = 60;

#[test]
fn random_kernels_agree() {
    let machines = Machines::open();
    let config = contextualize_config(Config { cases: CASES, failure_persistence: None, max_shrink_iters: 300, ..Config::default() });
    let outcome = TestRunner::new(config).run(&proptest::collection::vec(any::<u8>(), 0..700), |choices| {
        let case = Case::whole("random", &[61], &["by_16", "by_7"], &kernel(&choices));
        let outcome = catch_unwind(AssertUnwindSafe(|| case.check(&machines)));
        let cause = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => cause,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()),
        };
        Err(TestCaseError::fail(cause))
    });
    if let Err(TestError::Fail(cause, choices)) = &outcome {
        panic!("{cause}\n{}", kernel(choices));
    }
    outcome.unwrap();
}
