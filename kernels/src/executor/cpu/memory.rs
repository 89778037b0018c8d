//! Where everything of a run lies: one memory of words, cut into spans before the first tick.
//!
//! ```text
//! words | params | dispatch | tile tables … | arenas: page by page, one or two sides … |
//!       | tables: shares, rows, tile numbers, shapes … | outboxes, inboxes … | room for more of them |
//! ```
//!
//! Invariants: spans do not overlap, begin at a cache line and hold at least a word; nothing is added
//! once a run is loaded, but that mailboxes take up their room.

use super::words::{Span, Words};
use crate::executor::tables::{Reduction, StepPlan};
use crate::executor::{Layout, arenas};
use crate::program::Program;

/// What spans begin at, in words: a cache line, and whole vectors of every back half.
const ALIGNMENT_WORDS: u64 = 16;
/// Words of the dispatch's own numbers, with room for alignment.
const DISPATCH_WORDS: u64 = 16;
/// Mailboxes have room to become twice as large when exchanges change, or by so many words.
const MAIL_ROOM_WORDS: u64 = 16 << 10;

/// The spans of a run.
pub(crate) struct Places {
    /// `struct Params`.
    pub(crate) params: Span,
    /// The dispatch's own numbers.
    pub(crate) dispatch: Span,
    /// Per grid, per page, the tile table.
    pub(crate) tile_tables: Vec<Vec<Span>>,
    /// Per buffer, per page, its sides: one span twice where passes do not swap it.
    pub(crate) arenas: Vec<Vec<[Span; 2]>>,
    /// Per buffer, what a reduced table needs beside its arena.
    pub(crate) tables: Vec<Option<TablePlaces>>,
    /// Per exchange, outbox and inbox.
    pub(crate) mail: Vec<[Span; 2]>,
    /// The first word of mailboxes; behind their room nothing else lies.
    mail_first: u64,
    /// Words in all. Beyond what a span can name, the spans are wrong and must not be used.
    pub(crate) words: u64,
}

/// What a reduced table needs beside its arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TablePlaces {
    /// What kernels write.
    pub(crate) shares: Span,
    /// One row per tile of the grid.
    pub(crate) rows: Span,
    /// The numbers of own tiles.
    pub(crate) numbers: Span,
    /// `struct Shape` of clear, fold and combine.
    pub(crate) shapes: [Span; 3],
}

struct Planner {
    words: u64,
}

impl Planner {
    fn span(&mut self, words: u64) -> Span {
        let words = words.max(1);
        let span = Span { first: self.words as u32, words: words as u32 };
        self.words = (self.words + words).next_multiple_of(ALIGNMENT_WORDS);
        span
    }
}

impl Places {
    /// Plans the memory of a program. `reductions` has an entry per buffer.
    pub(crate) fn new(program: &Program, layout: &Layout, reductions: &[Option<Reduction>]) -> Places {
        let mut planner = Planner { words: 0 };
        let params = planner.span((program.manifest.params.len() as u64).next_multiple_of(16) / 4);
        let dispatch = planner.span(DISPATCH_WORDS);
        let tile_tables = layout
            .grids
            .iter()
            .map(|grid| grid.pages.iter().map(|page| planner.span((page.table.len() as u64).max(grid.row_words().into()))).collect())
            .collect();
        let arenas = (0..program.manifest.buffers.len())
            .map(|buffer| {
                let element_words = u64::from(program.elements[buffer].words());
                let mut page = |elements: u64| {
                    let first = planner.span(elements * element_words);
                    [first, if program.is_double(buffer) { planner.span(elements * element_words) } else { first }]
                };
                arenas::page_elements(program, layout, buffer).into_iter().map(&mut page).collect()
            })
            .collect();
        let tables = reductions.iter().map(|reduction| Some(planner.table(reduction.as_ref()?))).collect();
        let mail_first = planner.words;
        let mail: Vec<[Span; 2]> = planner.mail(layout);
        let room = if mail.is_empty() { 0 } else { (planner.words - mail_first).max(MAIL_ROOM_WORDS) };
        Places { params, dispatch, tile_tables, arenas, tables, mail, mail_first, words: planner.words + room }
    }

    /// Lays out the mailboxes of another layout in their room; whether they fit.
    pub(crate) fn reship(&mut self, layout: &Layout) -> bool {
        let mut planner = Planner { words: self.mail_first };
        let mail = planner.mail(layout);
        let fits = planner.words <= self.words;
        if fits {
            self.mail = mail;
        }
        fits
    }

    /// Writes what never changes: tile tables, boundary constants, what reductions are told; and what tables start from.
    pub(crate) fn write_constants(&self, words: &Words, program: &Program, layout: &Layout, reductions: &[Option<Reduction>]) {
        write(words, self.params, 0, &program.manifest.params);
        for (grid, spans) in layout.grids.iter().zip(&self.tile_tables) {
            grid.pages.iter().zip(spans).for_each(|(page, span)| write(words, *span, 0, bytemuck::cast_slice(&page.table)));
        }
        for (buffer, declared) in program.manifest.buffers.iter().enumerate() {
            let element_words = program.elements[buffer].words();
            write(words, self.arenas[buffer][0][0], 0, &declared.values);
            for (page, sides) in self.arenas[buffer].iter().enumerate() {
                for run in arenas::constant_elements(program, layout, buffer, page) {
                    let content = declared.constant.repeat(run.len());
                    sides.iter().for_each(|side| write(words, *side, run.start * element_words, &content));
                }
            }
        }
        for (reduction, places) in reductions.iter().flatten().zip(self.tables.iter().flatten()) {
            write(words, places.numbers, 0, bytemuck::cast_slice(&reduction.owned));
            for (StepPlan { shape, .. }, span) in [&reduction.clear, &reduction.fold, &reduction.combine].into_iter().zip(places.shapes) {
                write(words, span, 0, bytemuck::cast_slice(shape));
            }
        }
    }
}

impl Planner {
    fn mail(&mut self, layout: &Layout) -> Vec<[Span; 2]> {
        layout.exchanges.iter().map(|plan| [self.span(plan.outbox_words), self.span(plan.inbox_words)]).collect()
    }

    fn table(&mut self, reduction: &Reduction) -> TablePlaces {
        // A peer without tiles has no shares, and yet binds what one workgroup would write.
        let shares = self.span(reduction.share_words.max(reduction.row_words));
        TablePlaces {
            shares,
            rows: self.span(reduction.rows_words),
            numbers: self.span(reduction.owned.len() as u64),
            shapes: [self.span(4), self.span(4), self.span(4)],
        }
    }
}

/// Writes bytes `at` words behind a span's first.
///
/// # Panics
/// When they do not fit: the caller knows the span.
pub(crate) fn write(words: &Words, span: Span, at: u32, bytes: &[u8]) {
    assert!(u64::from(at) * 4 + bytes.len() as u64 <= u64::from(span.words) * 4, "{} bytes at word {at} of {span:?}", bytes.len());
    words.write(span.first as usize + at as usize, bytes);
}

/// Reads bytes from `at` words behind a span's first.
///
/// # Panics
/// When the span has not as many: the caller knows the span.
pub(crate) fn read(words: &Words, span: Span, at: u32, bytes: &mut [u8]) {
    assert!(u64::from(at) * 4 + bytes.len() as u64 <= u64::from(span.words) * 4, "{} bytes at word {at} of {span:?}", bytes.len());
    words.read(span.first as usize + at as usize, bytes);
}
