//! The order of a tick: passes, and the exchanges between them.
//!
//! A field is exchanged before a pass reads beyond its tile, if anything wrote it since the last time;
//! a reduced table is combined before it is read and at the latest at the end of the tick. All of it
//! follows from the declaration alone. Invariant: every peer derives the same list, and whatever a
//! pass reads of others is as fresh as if one peer ran alone.

use crate::declaration::{Access, Extent};
use crate::manifest::Manifest;

/// What must be fresh before a pass reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fresh {
    /// A field beyond the own tiles.
    Field {
        /// The buffer.
        buffer: usize,
        /// How deep its halo is read by any pass.
        depth: u32,
        /// Whether any pass reads it as a whole.
        whole: bool,
    },
    /// A table that every peer holds a share of.
    Table {
        /// The buffer.
        buffer: usize,
    },
}

/// One step of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Run a pass, and fold what it contributes to tables, tile by tile.
    Pass(usize),
    /// Bring what lies beyond the own tiles up to date; the number of an entry of [`Program::exchanges`].
    Exchange(usize),
}

/// The order of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Everything that is ever exchanged at once.
    pub(crate) exchanges: Vec<Vec<Fresh>>,
    /// What runs once before tick 0.
    pub(crate) init: Vec<Op>,
    /// What runs in tick 0, 1, …; the last entry is every later tick's.
    pub(crate) ticks: Vec<Vec<Op>>,
}

impl Schedule {
    /// The order of a manifest's passes and what must be exchanged between them.
    pub(crate) fn new(manifest: &Manifest) -> Schedule {
        let mut scheduler = Scheduler { manifest, exchanges: Vec::new(), stale: Vec::new() };
        let init = scheduler.init();
        let ticks = scheduler.ticks();
        Schedule { exchanges: scheduler.exchanges, init, ticks }
    }
}

/// Places the exchanges: a field is exchanged before a pass reads beyond the tile, if it was written since.
struct Scheduler<'a> {
    manifest: &'a Manifest,
    exchanges: Vec<Vec<Fresh>>,
    stale: Vec<bool>,
}

impl Scheduler<'_> {
    fn init(&mut self) -> Vec<Op> {
        self.stale = vec![true; self.manifest.buffers.len()];
        self.run(true)
    }

    fn ticks(&mut self) -> Vec<Vec<Op>> {
        // Imports may replace what init wrote, so tick 0 trusts nothing.
        self.stale = vec![true; self.manifest.buffers.len()];
        let mut ticks = Vec::new();
        let mut seen = Vec::new();
        while !seen.contains(&self.stale) {
            seen.push(self.stale.clone());
            ticks.push(self.run(false));
        }
        ticks
    }

    fn run(&mut self, init: bool) -> Vec<Op> {
        let manifest = self.manifest;
        let mut ops = Vec::new();
        let mut tables: Vec<Fresh> = Vec::new();
        for (index, pass) in manifest.passes.iter().enumerate().filter(|(_, pass)| pass.init == init) {
            let mut fields: Vec<Fresh> = Vec::new();
            let mut reads_pending_table = false;
            for &(buffer, access) in &pass.reads {
                reads_pending_table |= tables.contains(&Fresh::Table { buffer });
                let is_field = matches!(manifest.buffers[buffer].extent, Extent::Field { .. });
                if is_field && access != Access::Own && self.stale[buffer] {
                    self.stale[buffer] = false;
                    fields.push(self.field(buffer));
                }
            }
            if reads_pending_table || !fields.is_empty() {
                fields.append(&mut tables);
                self.exchange(&mut ops, fields);
            }
            ops.push(Op::Pass(index));
            for &buffer in &pass.writes {
                self.stale[buffer] = true;
                if matches!(manifest.buffers[buffer].extent, Extent::Table { .. }) {
                    tables.push(Fresh::Table { buffer });
                    self.stale[buffer] = false;
                }
            }
        }
        if !tables.is_empty() {
            self.exchange(&mut ops, tables);
        }
        ops
    }

    /// A field with everything that any pass needs of it, so that one exchange serves them all.
    fn field(&self, buffer: usize) -> Fresh {
        let (mut depth, mut whole) = (0, false);
        for (_, access) in self.manifest.passes.iter().flat_map(|pass| &pass.reads).filter(|(b, _)| *b == buffer) {
            match access {
                Access::Own => {}
                Access::Halo(halo) => depth = depth.max(*halo),
                Access::All => whole = true,
            }
        }
        Fresh::Field { buffer, depth, whole }
    }

    fn exchange(&mut self, ops: &mut Vec<Op>, mut fresh: Vec<Fresh>) {
        fresh.sort_unstable();
        let exchange = self.exchanges.iter().position(|known| *known == fresh).unwrap_or_else(|| {
            self.exchanges.push(fresh);
            self.exchanges.len() - 1
        });
        ops.push(Op::Exchange(exchange));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Pass;

    /// A workload on one grid: per pass its reads and writes, as in a declaration. Fields `a`, `b`, `c`, tables `s`, `t`.
    fn schedule(init: &[(&str, &[&str])], passes: &[(&str, &[&str])]) -> (Vec<Op>, Vec<Vec<Op>>, Vec<Vec<Fresh>>) {
        let field = |name: &str| format!("[buffers.{name}]\nelement = \"f32\"\n");
        let table = |name: &str| format!("[buffers.{name}]\nelement = \"f32\"\nlength = 1\nreduce = \"sum\"\n");
        let pass = |kind: &str, (reads, writes): &(&str, &[&str])| {
            format!("[[{kind}]]\nkernel = \"k.wgsl\"\nentry = \"k\"\nreads = {{ {reads} }}\nwrites = {writes:?}\ngrid = \"grid\"\n")
        };
        let mut text = "name = \"s\"\nversion = \"1.0.0\"\ngrid = { shape = [8], tile = [4] }\n".to_string();
        text += &["a", "b", "c"].map(field).concat();
        text += &["s", "t"].map(table).concat();
        text += &init.iter().map(|p| pass("init", p)).collect::<String>();
        text += &passes.iter().map(|p| pass("passes", p)).collect::<String>();
        let declaration = crate::declaration::Declaration::parse(&text, &crate::Overrides::default()).unwrap();
        let passes = declaration.passes.iter().map(|pass| Pass {
            file: String::new(),
            entry: String::new(),
            grid: 0,
            reads: pass.reads.clone(),
            writes: pass.writes.clone(),
            init: pass.init,
            wgsl: String::new(),
        });
        let buffers = declaration.buffers.iter().map(|buffer| crate::manifest::Buffer {
            name: buffer.name.clone(),
            element: buffer.element.clone(),
            extent: buffer.extent,
            boundary: buffer.boundary,
            constant: Vec::new(),
            values: Vec::new(),
        });
        let manifest = Manifest {
            name: String::new(),
            version: declaration.version.clone(),
            class: declaration.class,
            grids: declaration.grids.clone(),
            buffers: buffers.collect(),
            params: Vec::new(),
            passes: passes.collect(),
        };
        let Schedule { exchanges, init, mut ticks } = Schedule::new(&manifest);
        // The last entry stands for every later tick.
        ticks.dedup();
        (init, ticks, exchanges)
    }

    const A: usize = 0;
    const B: usize = 1;
    const S: usize = 3;
    const T: usize = 4;

    fn halo(buffer: usize, depth: u32) -> Fresh {
        Fresh::Field { buffer, depth, whole: false }
    }

    #[test]
    fn nothing_is_exchanged_for_own_reads() {
        let (_, ticks, exchanges) = schedule(&[], &[("a = \"own\"", &["a"]), ("a = \"own\"", &["b"])]);
        assert_eq!(ticks, [[Op::Pass(0), Op::Pass(1)]]);
        assert!(exchanges.is_empty());
    }

    #[test]
    fn a_field_is_exchanged_before_it_is_read_and_only_if_it_was_written_since() {
        let (_, ticks, exchanges) = schedule(&[], &[("a = { halo = 1 }", &["b"]), ("a = { halo = 2 }, b = { halo = 1 }", &["a"])]);
        // One exchange of `a` serves both passes, as deep as the deeper one needs.
        assert_eq!(ticks, [[Op::Exchange(0), Op::Pass(0), Op::Exchange(1), Op::Pass(1)]]);
        assert_eq!(exchanges, [vec![halo(A, 2)], vec![halo(B, 1)]]);
    }

    #[test]
    fn what_no_pass_writes_is_exchanged_in_tick_0_only() {
        let (_, ticks, exchanges) = schedule(&[], &[("a = { halo = 1 }, b = { halo = 1 }", &["a"])]);
        assert_eq!(ticks, [[Op::Exchange(0), Op::Pass(0)], [Op::Exchange(1), Op::Pass(0)]]);
        assert_eq!(exchanges, [vec![halo(A, 1), halo(B, 1)], vec![halo(A, 1)]]);
    }

    #[test]
    fn what_is_read_first_and_written_later_waits_for_the_next_tick() {
        let (_, ticks, _) = schedule(&[], &[("a = { halo = 1 }", &["b"]), ("", &["a"])]);
        assert_eq!(ticks, [[Op::Exchange(0), Op::Pass(0), Op::Pass(1)]]);
    }

    #[test]
    fn init_has_its_own_exchanges_and_tick_0_trusts_none_of_them() {
        let (init, ticks, exchanges) = schedule(&[("", &["a"]), ("a = { halo = 1 }", &["b"])], &[("a = { halo = 1 }", &["b"])]);
        assert_eq!(init, [Op::Pass(0), Op::Exchange(0), Op::Pass(1)]);
        assert_eq!(ticks, [vec![Op::Exchange(0), Op::Pass(2)], vec![Op::Pass(2)]]);
        assert_eq!(exchanges, [[halo(A, 1)]]);
    }

    #[test]
    fn whole_reads_and_halos_share_an_exchange() {
        let (_, _, exchanges) = schedule(&[], &[("a = \"all\"", &["b"]), ("a = { halo = 3 }", &["b"])]);
        assert_eq!(exchanges, [[Fresh::Field { buffer: A, depth: 3, whole: true }]]);
    }

    #[test]
    fn tables_wait_for_the_next_exchange() {
        // Nobody reads them in the tick: both go at its end, together.
        let (_, ticks, exchanges) = schedule(&[], &[("", &["s", "a"]), ("", &["t", "b"])]);
        assert_eq!(ticks, [[Op::Pass(0), Op::Pass(1), Op::Exchange(0)]]);
        assert_eq!(exchanges, [[Fresh::Table { buffer: S }, Fresh::Table { buffer: T }]]);
        // A field's exchange takes a pending table along.
        let (_, ticks, exchanges) = schedule(&[], &[("", &["s", "a"]), ("a = { halo = 1 }", &["b"])]);
        assert_eq!(ticks, [[Op::Pass(0), Op::Exchange(0), Op::Pass(1)]]);
        assert_eq!(exchanges, [[halo(A, 1), Fresh::Table { buffer: S }]]);
        // A table that is read is exchanged before.
        let (_, ticks, exchanges) = schedule(&[], &[("", &["s", "a"]), ("s = \"all\"", &["b"])]);
        assert_eq!(ticks, [[Op::Pass(0), Op::Exchange(0), Op::Pass(1)]]);
        assert_eq!(exchanges, [[Fresh::Table { buffer: S }]]);
    }
}
