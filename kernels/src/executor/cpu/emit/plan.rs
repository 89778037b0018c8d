//! A kernel cut where its workgroup waits for itself.
//!
//! What lies between two barriers is a *segment*: all lanes do all of it, four at a time, before anyone goes on.
//! Control around a barrier is the same for the whole workgroup, so it stands outside, once.
//!
//! ```text
//! body ─► Node … ─► Segment │ If │ Block │ Loop │ Exit │ Repeat        barriers themselves need nothing
//! ```
//!
//! Invariant: a segment has no barrier and no way out of itself, except to the end of blocks that end where it
//! ends.

use std::collections::HashSet;

use super::super::ir::{Kernel, Label, RegisterId, Stmt, ValueId};
use super::super::shape::{Shape, Shapes};
use super::EmitError;

/// A step of the whole workgroup.
#[derive(Debug)]
pub(super) enum Node<'k> {
    Segment(Segment<'k>),
    If { condition: ValueId, accept: Vec<Node<'k>>, reject: Vec<Node<'k>> },
    Block { label: Label, body: Vec<Node<'k>> },
    Loop { label: Label, body: Vec<Node<'k>> },
    Exit(Label),
    Repeat(Label),
}

/// Steps that lanes do on their own.
#[derive(Debug)]
pub(super) struct Segment<'k> {
    pub(super) number: usize,
    pub(super) steps: Vec<&'k Stmt>,
    /// Whether it may run more than once for a workgroup.
    pub(super) is_repeated: bool,
    /// The blocks outside that end where it ends: leaving one is leaving the segment.
    pub(super) ends: HashSet<Label>,
}

/// Cuts a kernel.
///
/// **Errors:** a barrier that not all lanes reach.
pub(super) fn plan<'k>(kernel: &'k Kernel, shapes: &'k Shapes) -> Result<Vec<Node<'k>>, EmitError> {
    let mut waiting = HashSet::new();
    labels_around_barriers(&kernel.body, &mut waiting);
    let mut planner = Planner { shapes, waiting, segments: 0 };
    planner.list(&kernel.body.iter().collect::<Vec<_>>(), false, &HashSet::new())
}

fn labels_around_barriers(steps: &[Stmt], labels: &mut HashSet<Label>) {
    for step in steps {
        if let Stmt::Block { label, body } | Stmt::Loop { label, body } = step
            && body.iter().any(Stmt::has_barrier)
        {
            labels.insert(*label);
        }
        step.nested().for_each(|steps| labels_around_barriers(steps, labels));
    }
}

struct Planner<'k> {
    shapes: &'k Shapes,
    /// Blocks and loops with a barrier inside.
    waiting: HashSet<Label>,
    segments: usize,
}

impl<'k> Planner<'k> {
    /// `ends`: blocks that end where this list ends.
    fn list(&mut self, steps: &[&'k Stmt], is_repeated: bool, ends: &HashSet<Label>) -> Result<Vec<Node<'k>>, EmitError> {
        let mut nodes = Vec::new();
        let mut run: Vec<&'k Stmt> = Vec::new();
        for (at, &step) in steps.iter().enumerate() {
            let is_last = at + 1 == steps.len();
            if !self.is_shared(step) {
                run.push(step);
                continue;
            }
            self.cut(&mut run, &mut nodes, is_repeated, &HashSet::new())?;
            let inner_ends = if is_last { ends.clone() } else { HashSet::new() };
            match step {
                Stmt::Barrier { .. } => {}
                Stmt::Exit(label) => nodes.push(Node::Exit(*label)),
                Stmt::Repeat(label) => nodes.push(Node::Repeat(*label)),
                Stmt::If { condition, accept, reject } => {
                    if *self.shape(*condition) != Shape::Uniform {
                        return Err(EmitError::Diverging);
                    }
                    let accept = self.list(&accept.iter().collect::<Vec<_>>(), is_repeated, &inner_ends)?;
                    let reject = self.list(&reject.iter().collect::<Vec<_>>(), is_repeated, &inner_ends)?;
                    nodes.push(Node::If { condition: *condition, accept, reject });
                }
                Stmt::Block { label, body } => {
                    let mut inner_ends = inner_ends;
                    inner_ends.insert(*label);
                    let body = self.list(&body.iter().collect::<Vec<_>>(), is_repeated, &inner_ends)?;
                    nodes.push(Node::Block { label: *label, body });
                }
                Stmt::Loop { label, body } => {
                    let body = self.list(&body.iter().collect::<Vec<_>>(), true, &inner_ends)?;
                    nodes.push(Node::Loop { label: *label, body });
                }
                Stmt::Let(_) | Stmt::Set(..) | Stmt::Store { .. } | Stmt::Atomic { .. } | Stmt::Across { .. } => run.push(step),
            }
        }
        self.cut(&mut run, &mut nodes, is_repeated, ends)?;
        Ok(nodes)
    }

    fn cut(&mut self, run: &mut Vec<&'k Stmt>, nodes: &mut Vec<Node<'k>>, is_repeated: bool, ends: &HashSet<Label>) -> Result<(), EmitError> {
        if run.is_empty() {
            return Ok(());
        }
        let steps = std::mem::take(run);
        let mut left = HashSet::new();
        steps.iter().for_each(|step| targets(step, &mut left));
        if left.iter().any(|label| self.waiting.contains(label) && !ends.contains(label)) {
            return Err(EmitError::Diverging);
        }
        nodes.push(Node::Segment(Segment { number: self.segments, steps, is_repeated, ends: ends.clone() }));
        self.segments += 1;
        Ok(())
    }

    /// Whether the workgroup takes a step as one: it waits in it, or leaves what it waits in.
    fn is_shared(&self, step: &Stmt) -> bool {
        if step.has_barrier() {
            return true;
        }
        let mut left = HashSet::new();
        targets(step, &mut left);
        let leaves = left.iter().any(|label| self.waiting.contains(label));
        leaves && self.is_uniform(step)
    }

    /// Whether all control in a step is the same for the workgroup.
    fn is_uniform(&self, step: &Stmt) -> bool {
        let is_here = match step {
            Stmt::If { condition, .. } => *self.shape(*condition) == Shape::Uniform,
            _ => true,
        };
        is_here && step.nested().flatten().all(|step| self.is_uniform(step))
    }

    fn shape(&self, value: ValueId) -> &Shape {
        &self.shapes.values[value.0 as usize]
    }
}

/// The labels that a step goes to.
fn targets(step: &Stmt, labels: &mut HashSet<Label>) {
    if let Stmt::Exit(label) | Stmt::Repeat(label) = step {
        labels.insert(*label);
    }
    step.nested().flatten().for_each(|step| targets(step, labels));
}

/// Where values and registers are made and used.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Per value, the segment that computes it.
    pub(super) made: Vec<Option<usize>>,
    /// Per value, whether another segment, or control between segments, uses it.
    pub(super) is_shared: Vec<bool>,
    /// Per register, whether it must outlive a segment.
    pub(super) is_kept: Vec<bool>,
}

/// Finds where values and registers are made and used.
pub(super) fn uses(kernel: &Kernel, nodes: &[Node<'_>]) -> Uses {
    let mut uses =
        Uses { made: vec![None; kernel.values.len()], is_shared: vec![false; kernel.values.len()], is_kept: vec![false; kernel.registers.len()] };
    let mut seen: Vec<Option<usize>> = vec![None; kernel.registers.len()];
    each_segment(nodes, &mut |segment| {
        each_step(segment.steps.iter().copied(), &mut |step| made_by(step, &mut |value| uses.made[value.0 as usize] = Some(segment.number)));
    });
    each_segment(nodes, &mut |segment| {
        each_step(segment.steps.iter().copied(), &mut |step| {
            let mut register = |id: RegisterId| {
                let seen = seen[id.0 as usize].get_or_insert(segment.number);
                uses.is_kept[id.0 as usize] |= *seen != segment.number || segment.is_repeated;
            };
            match step {
                Stmt::Set(id, _) => register(*id),
                Stmt::Let(value) => {
                    if let super::super::ir::Op::Get(id) = kernel.value(*value).op {
                        register(id);
                    }
                }
                _ => {}
            }
            let made = &uses.made;
            let is_shared = &mut uses.is_shared;
            let mut used = |value: ValueId| {
                let made = made[value.0 as usize];
                is_shared[value.0 as usize] |= made.is_some_and(|made| made != segment.number);
            };
            step.operands(&mut used);
            if let Stmt::Let(value) = step {
                kernel.value(*value).op.operands(&mut used);
            }
        });
    });
    conditions(nodes, &mut |value| uses.is_shared[value.0 as usize] = true);
    uses
}

fn made_by(step: &Stmt, visit: &mut impl FnMut(ValueId)) {
    match step {
        Stmt::Let(value) | Stmt::Atomic { found: Some(value), .. } | Stmt::Across { found: value, .. } => visit(*value),
        _ => {}
    }
}

pub(super) fn each_step<'k>(steps: impl Iterator<Item = &'k Stmt>, visit: &mut dyn FnMut(&'k Stmt)) {
    for step in steps {
        visit(step);
        for nested in step.nested() {
            each_step(nested.iter(), visit);
        }
    }
}

pub(super) fn each_segment<'n, 'k>(nodes: &'n [Node<'k>], visit: &mut dyn FnMut(&'n Segment<'k>)) {
    for node in nodes {
        match node {
            Node::Segment(segment) => visit(segment),
            Node::If { accept, reject, .. } => {
                each_segment(accept, visit);
                each_segment(reject, visit);
            }
            Node::Block { body, .. } | Node::Loop { body, .. } => each_segment(body, visit),
            Node::Exit(_) | Node::Repeat(_) => {}
        }
    }
}

fn conditions(nodes: &[Node<'_>], visit: &mut dyn FnMut(ValueId)) {
    for node in nodes {
        match node {
            Node::If { condition, accept, reject } => {
                visit(*condition);
                conditions(accept, visit);
                conditions(reject, visit);
            }
            Node::Block { body, .. } | Node::Loop { body, .. } => conditions(body, visit),
            Node::Segment(_) | Node::Exit(_) | Node::Repeat(_) => {}
        }
    }
}
