//! Moves index arithmetic to where it is used.
//!
//! A kernel computes its cell, tile and group at its top, and needs some of that only in a branch at its end, such as
//! `if (lane == 0)` behind a reduction. There it is computed by whoever takes the branch, and does not have to wait in
//! memory behind barriers.
//!
//! Only what follows from inputs, constants and memory that nobody writes is moved, so that nothing else has to
//! wait in its place; never into a loop, which would compute it again.

use std::collections::HashMap;

use super::ir::{Kernel, Op, Stmt, ValueId};

/// Nested lists that are looked into: each level looks at all that is inside.
const DEPTH_MAX: usize = 64;

/// A list inside a list: of which step, and whether it is the second of that.
type Inside = (usize, bool);

/// Where a value is used, seen from a list of steps.
#[derive(Clone, Copy, PartialEq)]
enum Users {
    /// In that list alone.
    In(Inside),
    /// By the list's own steps, or in several lists.
    Here,
}

/// Moves values of index arithmetic into the branches and blocks that alone use them.
pub(super) fn sink(kernel: &mut Kernel) {
    let is_index = kernel.followers(|_| true);
    let mut body = std::mem::take(&mut kernel.body);
    sink_list(kernel, &is_index, &mut body, 0);
    kernel.body = body;
}

fn sink_list(kernel: &Kernel, is_index: &[bool], steps: &mut Vec<Stmt>, depth: usize) {
    if depth == DEPTH_MAX {
        return;
    }
    let mut users = HashMap::new();
    let mut moved: HashMap<Inside, Vec<Stmt>> = HashMap::new();
    let mut kept = Vec::with_capacity(steps.len());
    for (at, step) in std::mem::take(steps).into_iter().enumerate().rev() {
        if let Stmt::Let(value) = step {
            let op = kernel.value(value).op;
            let to = match users.get(&value) {
                Some(Users::In(inside)) if is_index[value.0 as usize] && !matches!(op, Op::Load { .. }) => Some(*inside),
                _ => None,
            };
            let user = to.map_or(Users::Here, Users::In);
            op.operands(|operand| note(&mut users, operand, user));
            match to {
                Some(inside) => moved.entry(inside).or_default().push(step),
                None => kept.push((at, step)),
            }
            continue;
        }
        step.operands(|operand| note(&mut users, operand, Users::Here));
        let is_loop = matches!(step, Stmt::Loop { .. });
        for (nested, is_second) in step.nested().zip([false, true]) {
            let user = if is_loop { Users::Here } else { Users::In((at, is_second)) };
            each_used(kernel, nested, &mut |value| note(&mut users, value, user));
        }
        kept.push((at, step));
    }
    for (at, mut step) in kept.into_iter().rev() {
        for (nested, is_second) in step.nested_mut().zip([false, true]) {
            let sunk = moved.remove(&(at, is_second)).unwrap_or_default();
            nested.splice(..0, sunk.into_iter().rev());
            sink_list(kernel, is_index, nested, depth + 1);
        }
        steps.push(step);
    }
}

fn note(users: &mut HashMap<ValueId, Users>, value: ValueId, user: Users) {
    users.entry(value).and_modify(|known| *known = if *known == user { user } else { Users::Here }).or_insert(user);
}

/// Shows every value that the steps use to `visit`, also those that they compute.
fn each_used(kernel: &Kernel, steps: &[Stmt], visit: &mut impl FnMut(ValueId)) {
    for step in steps {
        step.operands(&mut *visit);
        if let Stmt::Let(value) = step {
            kernel.value(*value).op.operands(&mut *visit);
        }
        step.nested().for_each(|nested| each_used(kernel, nested, visit));
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::super::ir::{Binary, Binding, Input, Memory, Scalar};
    use super::*;

    const BINDING: Memory = Memory::Binding(0);

    fn builder() -> Builder {
        let mut b = Builder::new("main", [64, 1, 1]).without_speculation();
        b.binding(Binding { number: 0, is_writable: true, words_min: 256 });
        b
    }

    fn is_if(step: &Stmt) -> bool {
        matches!(step, Stmt::If { .. })
    }

    /// The values computed at the top and in the first side of the only branch there.
    fn computed(kernel: &Kernel) -> (usize, usize) {
        let lets = |steps: &[Stmt]| steps.iter().filter(|step| matches!(step, Stmt::Let(_))).count();
        let branch = kernel.body.iter().find_map(|step| if let Stmt::If { accept, .. } = step { Some(lets(accept)) } else { None });
        (lets(&kernel.body), branch.expect("a branch"))
    }

    #[test]
    fn what_one_branch_needs_is_computed_there() {
        let mut b = builder();
        let (lane, group, three, eight) = (b.input(Input::LocalId(0)), b.input(Input::GroupId(0)), b.uint(3), b.uint(8));
        let sum = b.binary(Binary::Add, lane, group);
        let place = b.binary(Binary::ShrU, sum, three);
        let is_early = b.binary(Binary::LtU, lane, eight);
        b.begin_if(is_early);
        b.store(BINDING, place, 0, lane);
        b.begin_else();
        b.end_if();
        let kernel = b.finish();
        assert_eq!(computed(&kernel), (1, 2), "only the condition stays\n{kernel}");
        assert!(kernel.body.last().is_some_and(is_if));
    }

    #[test]
    fn what_others_need_stays() {
        let mut b = builder();
        let (lane, group, three, eight) = (b.input(Input::LocalId(0)), b.input(Input::GroupId(0)), b.uint(3), b.uint(8));
        let sum = b.binary(Binary::Add, lane, group);
        let both = b.binary(Binary::ShrU, sum, three);
        let behind = b.binary(Binary::Mul, sum, three);
        let held = b.load(Scalar::U32, BINDING, lane, 0);
        let is_early = b.binary(Binary::LtU, lane, eight);
        b.begin_if(is_early);
        b.store(BINDING, both, 0, held);
        b.begin_else();
        b.store(BINDING, both, 1, lane);
        b.end_if();
        b.store(BINDING, behind, 2, lane);
        let kernel = b.finish();
        assert_eq!(computed(&kernel), (5, 0), "{kernel}");
    }

    #[test]
    fn nothing_goes_into_a_loop() {
        let mut b = builder();
        let (lane, group, eight) = (b.input(Input::LocalId(0)), b.input(Input::GroupId(0)), b.uint(8));
        let sum = b.binary(Binary::Add, lane, group);
        let through = b.begin_block();
        let again = b.begin_loop([]);
        b.store(BINDING, sum, 0, lane);
        let is_over = b.binary(Binary::LtU, sum, eight);
        b.begin_if(is_over);
        b.exit(through);
        b.begin_else();
        b.end_if();
        b.repeat(again);
        b.end_loop();
        b.end_block();
        let kernel = b.finish();
        let Some(Stmt::Block { body, .. }) = kernel.body.first() else { panic!("{kernel}") };
        assert!(matches!(body[..], [Stmt::Let(_), Stmt::Loop { .. }]), "before the loop, in the block\n{kernel}");
    }
}
