//! Neighbouring words, such as those of a vec4: read, and written, as one vector.
//!
//! ```text
//! all lanes share them   one load; a shuffle where a word is used
//! each lane has its own  a load for each lane, then rows become columns; the other way round for stores
//! ```
//!
//! Word by word, a loop over bodies in a slab has sixteen broadcasts and as many values in flight, most of them out of
//! registers: compilers read memory where the text does, and compute as late as they can. And four particles take
//! sixteen loads that each fill a quarter of a register.

use std::collections::HashMap;

use wasm_encoder::{Instruction as I, MemArg, ValType};

use super::super::ir::{Memory, Op, Stmt, ValueId};
use super::class::Class;
use super::code::{Emitter, Held, Local, at};

/// Loads that are one, by the one of them that is reached first.
pub(super) type Packs = HashMap<ValueId, Pack>;

/// Words from `offset` on, as the values that hold them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pack {
    memory: Memory,
    address: ValueId,
    offset: u32,
    apart: Apart,
    values: [Option<ValueId>; 4],
}

/// Where lanes read, seen from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    /// So many words from lane to lane.
    By(i32),
    /// Each somewhere.
    Anyhow,
}

/// How four words of `a` and four of `b` are put together, by their places in both.
fn shuffled(places: [u8; 4]) -> I<'static> {
    I::I8x16Shuffle(std::array::from_fn(|byte| 4 * places[byte / 4] + byte as u8 % 4))
}

impl<'k> Emitter<'k> {
    /// Finds what loads of a list of steps are one: those of neighbouring words with nothing between them that could write.
    pub(super) fn find_packs(&mut self, steps: &[&'k Stmt]) {
        let mut packs = Packs::new();
        let mut loads: HashMap<(Memory, ValueId), Vec<(u32, ValueId)>> = HashMap::new();
        for step in steps {
            match step {
                Stmt::Let(value) => {
                    let Op::Load { memory, address, offset } = self.kernel.value(*value).op else { continue };
                    loads.entry((memory, address)).or_default().push((offset, *value));
                }
                Stmt::Set(..) => {}
                _ => loads.drain().for_each(|(place, loads)| self.pack(place, loads, &mut packs)),
            }
        }
        loads.drain().for_each(|(place, loads)| self.pack(place, loads, &mut packs));
        if let Some(quad) = &mut self.quad {
            quad.packs.extend(packs);
        }
    }

    /// Packs loads from one address; `loads`: offset and value, in the order of the text.
    fn pack(&self, (memory, address): (Memory, ValueId), mut loads: Vec<(u32, ValueId)>, packs: &mut Packs) {
        let is_scattered = self.class(address) == Class::Vector && memory != Memory::Private;
        let apart = if is_scattered { Some(Apart::Anyhow) } else { self.pack_step(memory, address).map(Apart::By) };
        let Some(apart) = apart else { return };
        let width = if apart == Apart::By(2) { 2 } else { 4 };
        loads.retain(|(_, value)| !matches!(self.class(*value), Class::Group { .. }));
        loads.sort();
        loads.dedup_by_key(|(offset, _)| *offset);
        let mut rest = &loads[..];
        while let [(offset, _), ..] = *rest {
            let within = rest.iter().take_while(|(further, _)| further - offset < width).count();
            // Three of four: the other word is read for nothing. What lies behind a binding or behind a workgroup's memory
            // is there to be read, but not what lies behind the constants.
            let is_pack = within as u32 == width || (within == 3 && memory != Memory::Constant);
            if is_pack {
                let mut values = [None; 4];
                rest[..within].iter().for_each(|(further, value)| values[(further - offset) as usize] = Some(*value));
                // Values are numbered as the text computes them.
                let first = values.into_iter().flatten().min();
                packs.extend(first.map(|first| (first, Pack { memory, address, offset, apart, values })));
            }
            rest = &rest[if is_pack { within } else { 1 }..];
        }
    }

    /// The step from lane to lane of an address, where words beside it can be read with it.
    fn pack_step(&self, memory: Memory, address: ValueId) -> Option<i32> {
        // Private memory lies lane beside lane. Of neighbouring lanes' neighbouring words, most are the same.
        let class = self.class(address);
        let is_sure = memory != Memory::Private && !matches!(class, Class::Checked(_));
        // Lanes further apart than four of them have room in a memory are in code that never runs.
        let step = class.step().filter(|step| is_sure && step.checked_mul(16).is_some())?;
        (step.abs() != 1 && step != -2).then_some(step)
    }

    /// Reads a value and its neighbours, if it is the first of a pack; whether it was.
    pub(super) fn load_pack(&mut self, value: ValueId) -> bool {
        let Some(pack) = self.quad.as_ref().and_then(|quad| quad.packs.get(&value).copied()) else { return false };
        let rows = match pack.apart {
            Apart::By(0) => {
                let words = self.load_words(&pack, 0);
                self.hold_all(&pack, |lane| Held::Word(words, lane));
                return true;
            }
            Apart::By(2) => {
                let rows = [0, 2].map(|lane| self.load_words(&pack, 2 * lane));
                let columns = [[0, 2, 4, 6], [1, 3, 5, 7]].map(|places| self.shuffle(rows, places));
                self.hold_all(&pack, |word| Held::Vector(columns[usize::from(word)]));
                return true;
            }
            Apart::By(step) => [0, 1, 2, 3].map(|lane| self.load_words(&pack, i64::from(step) * lane)),
            Apart::Anyhow => self.gather_words(&pack),
        };
        let columns = self.transposed(rows);
        self.hold_all(&pack, |word| Held::Vector(columns[usize::from(word)]));
        true
    }

    fn hold_all(&mut self, pack: &Pack, held: impl Fn(u8) -> Held) {
        for (word, value) in (0..).zip(pack.values) {
            if let Some(value) = value {
                self.hold(value, held(word));
            }
        }
    }

    /// Four words, `further` than where the first lane's begin.
    fn load_words(&mut self, pack: &Pack, further: i64) -> Local {
        let place = self.row(pack.memory, pack.address, pack.offset, further);
        self.push(I::V128Load(place));
        self.keep(ValType::V128)
    }

    /// Four words of each lane, from where its own begin.
    fn gather_words(&mut self, pack: &Pack) -> [Local; 4] {
        let place = self.offset(pack.memory, pack.offset);
        let addresses = self.addresses(pack.memory, pack.address);
        [0, 1, 2, 3].map(|lane| {
            self.all([I::LocalGet(addresses), I::I32x4ExtractLane(lane), I::V128Load(at(place))]);
            self.keep(ValType::V128)
        })
    }

    /// Pushes an address; what lies `offset` and `further` words from the first lane's word is there.
    fn row(&mut self, memory: Memory, address: ValueId, offset: u32, further: i64) -> MemArg {
        let beside = self.first_address(memory, address);
        let bytes = (self.offset(memory, offset) + beside) as i64 + 4 * further;
        u64::try_from(bytes).map(at).unwrap_or_else(|_| {
            self.all([I::I32Const(bytes as i32), I::I32Add]);
            at(0)
        })
    }

    fn shuffle(&mut self, [a, b]: [Local; 2], places: [u8; 4]) -> Local {
        self.all([I::LocalGet(a), I::LocalGet(b), shuffled(places)]);
        self.keep(ValType::V128)
    }

    /// Rows as columns.
    fn transposed(&mut self, [a, b, c, d]: [Local; 4]) -> [Local; 4] {
        let (low, high) = ([0, 4, 1, 5], [2, 6, 3, 7]);
        let halves = [([a, b], low), ([c, d], low), ([a, b], high), ([c, d], high)];
        let [ab, cd, ab_high, cd_high] = halves.map(|(rows, places)| self.shuffle(rows, places));
        let (first, last) = ([0, 1, 4, 5], [2, 3, 6, 7]);
        [([ab, cd], first), ([ab, cd], last), ([ab_high, cd_high], first), ([ab_high, cd_high], last)]
            .map(|(pairs, places)| self.shuffle(pairs, places))
    }

    /// Pushes a word that all lanes share for all of them.
    pub(super) fn word(&mut self, words: Local, lane: u8) {
        self.all([I::LocalGet(words), I::LocalGet(words), shuffled([lane; 4])]);
    }

    /// Writes what the first of the steps do, if they are stores to neighbouring words of each lane; how many they were.
    pub(super) fn store_pack(&mut self, steps: &[&'k Stmt]) -> Option<usize> {
        let Stmt::Store { memory, address, .. } = *steps.first()? else { return None };
        let (memory, address) = (*memory, *address);
        let step = self.pack_step(memory, address)?;
        let width = match step {
            2 => 2,
            // Lanes that are nearer write into each other's words.
            step if step.abs() >= 4 => 4,
            _ => return None,
        };
        let mut words = [None; 4];
        let least = steps.iter().take(width).filter_map(|step| if let Stmt::Store { offset, .. } = step { Some(*offset) } else { None }).min()?;
        for step in steps.get(..width)? {
            let Stmt::Store { memory: of, address: from, offset, value, .. } = step else { return None };
            let word = words[..width].get_mut((offset - least) as usize).filter(|word| (*of, *from) == (memory, address) && word.is_none())?;
            *word = Some(*value);
        }
        let mask = self.mask();
        if let Some(mask) = mask {
            self.all([I::LocalGet(mask), I::I32x4AllTrue]);
            self.open(I::If);
        }
        let columns: Vec<Local> = words
            .into_iter()
            .flatten()
            .map(|value| {
                self.vector(value);
                self.keep(ValType::V128)
            })
            .collect();
        let rows = match columns[..] {
            [a, b] => [[0, 4, 1, 5], [2, 6, 3, 7]].map(|places| self.shuffle([a, b], places)).to_vec(),
            [a, b, c, d] => self.transposed([a, b, c, d]).to_vec(),
            _ => unreachable!("two words or four"),
        };
        for (row, local) in (0..).zip(rows) {
            let place = self.row(memory, address, least, i64::from(step) * row * (4 / width as i64));
            self.all([I::LocalGet(local), I::V128Store(place)]);
        }
        if mask.is_some() {
            self.push(I::Else);
            for (word, value) in (0..).zip(words.into_iter().flatten()) {
                self.store(memory, address, least + word, value);
            }
            self.close();
        }
        Some(width)
    }
}
