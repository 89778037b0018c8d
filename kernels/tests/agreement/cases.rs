//! A kernel of the corpus, and how its results are compared.
//!
//! ```text
//!             each        same           few               plain rows    all rows
//! given ─┬─► groups of ─ all lanes do ─ groups of ─► made   gpu ≈ cpu    machine code = interpreter, to the bit
//!        │    16 lanes    row `which`     5 lanes           known values  each = few = same, to the bit
//!        └ rows: numbers of every kind, the last ones with NaNs, infinities and subnormals
//! ```
//!
//! A lane that does what all lanes do is a scalar to the cpu executor, five lanes are not a multiple of four, and 61
//! rows do not fill the last workgroup: each is another way through the emitter, and the result is one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use peercompute_buffers::layout::{Element, ElementKind, Scalar};
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::AnyExecutor;

use crate::machines::{Do, Machines, bundle_of, run};

/// Rows of input, one for each invocation.
pub(crate) const ROWS: usize = 61;
/// Those before this one hold ordinary floats.
pub(crate) const PLAIN: usize = 45;
/// Words of [`GIVEN`].
const GIVEN_WORDS: usize = 16;

/// The input of most cases.
const GIVEN: &str = "struct Given { f: vec4<f32>, g: vec4<f32>, u: vec4<u32>, i: vec4<i32> }";

/// What is linked behind a case.
const HEAD: &str = "
var<uniform> params: Params;
var<storage, read> given: array<Given>;
var<storage, read_write> made_next: array<Made>;
";

/// The entry points of a case that is a function of its row.
const EACH_AND_SAME: &str = "
@compute @workgroup_size(16) fn each(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (c.inside) { made_next[c.index] = make(given[c.index], c.coord.x); }
}
@compute @workgroup_size(6) fn same(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    made_next[c.index] = make(given[params.which], params.which);
}
";
const FEW: &str = "
@compute @workgroup_size(5) fn few(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = cell(id);
    if (!c.inside) { return; }
    made_next[c.index] = make(given[c.index], c.coord.x);
}
";

/// How a GPU's floats are held against ours; integers are always the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gpu {
    /// The same numbers; one NaN is as good as another, and so is one zero.
    Exact,
    /// Not further apart than `relative` times the larger, or `absolute`.
    Within { relative: f32, absolute: f32 },
    /// Not compared: WGSL leaves the result open.
    Apart,
}

/// A row of `given`.
#[allow(dead_code, reason = "the row as kernels see it; not every part has a twin in Rust")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) f: [f32; 4],
    pub(crate) g: [f32; 4],
    pub(crate) u: [u32; 4],
    pub(crate) i: [i32; 4],
    /// Its number.
    pub(crate) at: u32,
}

/// What plain Rust says of a row: every word of `Made` that is not padding, in order.
pub(crate) type Known = fn(&Row) -> Vec<u32>;

/// A kernel of the corpus.
pub(crate) struct Case {
    name: String,
    /// `struct Made`, and `fn make(x: Given, at: u32) -> Made` or entry points of its own.
    text: String,
    /// Entry points, and whether they read all of `given`.
    entries: Vec<(&'static str, bool)>,
    shape: Vec<u32>,
    /// `struct Given`, where it is its own.
    given: Option<String>,
    /// Members of `struct Params` behind `which`, and their values.
    params: [String; 2],
    gpu: Gpu,
    known: Option<Known>,
}

impl Case {
    /// A kernel that makes `Made` of each row by a function `make` that the text defines.
    pub(crate) fn of(name: &str, text: &str) -> Case {
        let entries = vec![("each", false), ("same", true), ("few", false)];
        Case { entries, ..Case::whole(name, &[ROWS as u32], &[], &format!("{text}{EACH_AND_SAME}{FEW}")) }
    }

    /// The same without `few`, for what has no control flow.
    pub(crate) fn brief(name: &str, text: &str) -> Case {
        let entries = vec![("each", false), ("same", true)];
        Case { entries, ..Case::whole(name, &[ROWS as u32], &[], &format!("{text}{EACH_AND_SAME}")) }
    }

    /// A kernel that makes one expression of `x: Given` and `at: u32` for each field, of this type.
    pub(crate) fn fields(name: &str, text: &str, fields: &[(&str, &str)]) -> Case {
        let members: String = fields.iter().enumerate().map(|(at, (ty, _))| format!("f{at}: {ty}, ")).collect();
        let stores: String = fields.iter().enumerate().map(|(at, (_, expression))| format!("    m.f{at} = {expression};\n")).collect();
        Case::brief(
            name,
            &format!("{text}\nstruct Made {{ {members} }}\nfn make(x: Given, at: u32) -> Made {{\n    var m: Made;\n{stores}    return m;\n}}"),
        )
    }

    /// A kernel with entry points of its own, over a grid of this shape, that read all of `given`.
    pub(crate) fn whole(name: &str, shape: &[u32], entries: &[&'static str], text: &str) -> Case {
        let entries = entries.iter().map(|&entry| (entry, true)).collect();
        let params = [String::new(), String::new()];
        Case { name: name.into(), text: text.into(), entries, shape: shape.to_vec(), given: None, params, gpu: Gpu::Exact, known: None }
    }

    /// The GPU's floats are this close, relatively or absolutely.
    pub(crate) fn within(mut self, relative: f32, absolute: f32) -> Case {
        self.gpu = Gpu::Within { relative, absolute };
        self
    }

    /// WGSL leaves the result open, or a GPU cannot be asked.
    pub(crate) fn apart(mut self) -> Case {
        self.gpu = Gpu::Apart;
        self
    }

    /// The input is this `struct Given`; all of its rows are ordinary.
    pub(crate) fn given(mut self, text: &str) -> Case {
        self.given = Some(text.into());
        self
    }

    /// There are more parameters than `which`: their declarations and their values.
    pub(crate) fn params(mut self, members: &str, values: &str) -> Case {
        self.params = [members.into(), values.into()];
        self
    }

    /// Plain Rust knows the result for every row.
    pub(crate) fn known(mut self, known: Known) -> Case {
        self.known = Some(known);
        self
    }

    fn bundle(&self) -> VerifiedBundle {
        let shape = format!("{:?}", self.shape);
        let passes: String = self
            .entries
            .iter()
            .map(|(entry, reads_all)| {
                let how = if *reads_all { "all" } else { "own" };
                format!("[[passes]]\nkernel = \"k.wgsl\"\nentry = \"{entry}\"\nreads = {{ given = \"{how}\" }}\nwrites = [\"made\"]\n")
            })
            .collect();
        let toml = format!(
            "name = \"agreement\"\nversion = \"1.0.0\"\ngrid = {{ shape = {shape}, tile = {shape} }}\n[buffers.given]\nelement = \"Given\"\n\
             [buffers.made]\nelement = \"Made\"\n[params]\nwhich = 0\n{}\n{passes}",
            self.params[1]
        );
        let given = self.given.as_deref().unwrap_or(GIVEN);
        let text = format!("{}\n{given}\nstruct Params {{ which: u32, {} }}{HEAD}", self.text, self.params[0]);
        bundle_of(&toml, &text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The words of `made` after each entry point, with zeros before it.
    fn results(&self, executor: &AnyExecutor, bundle: &VerifiedBundle, given: &[u32]) -> Vec<Vec<u32>> {
        let zeros = vec![0; self.shape.iter().product::<u32>() as usize * words_of(bundle, "made").len()];
        let mut list = vec![Do::Write("given", given)];
        for pass in 0..self.entries.len() {
            list.extend([Do::Write("made", &zeros), Do::Pass(pass), Do::Read("made")]);
        }
        run(executor, bundle, &list).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Rows of `same`, one run for each of some.
    fn rows_alone(&self, executor: &AnyExecutor, bundle: &VerifiedBundle, given: &[u32]) -> Vec<(usize, Vec<u32>)> {
        let rest = bytemuck::pod_collect_to_vec::<u8, u32>(&bundle.program().manifest.params);
        let rows: Vec<Vec<u32>> = (0..ROWS).step_by(3).map(|row| [&[row as u32], &rest[1..]].concat()).collect();
        let mut list = vec![Do::Write("given", given)];
        for row in &rows {
            list.extend([Do::Params(row), Do::Pass(1), Do::Read("made")]);
        }
        let made = run(executor, bundle, &list).unwrap_or_else(|error| panic!("{error}"));
        rows.iter().map(|row| row[0] as usize).zip(made).collect()
    }

    pub(crate) fn check(&self, machines: &Machines) -> Result<(), String> {
        let bundle = self.bundle();
        let kinds = words_of(&bundle, "made");
        let rows = self.shape.iter().product::<u32>() as usize;
        let given = if self.given.is_some() { ordinary(rows, &words_of(&bundle, "given")) } else { given(rows) };
        let compiled = self.results(&machines.compiled, &bundle, &given);
        let interpreted = self.results(&machines.interpreted, &bundle, &given);
        for ((entry, _), (a, b)) in self.entries.iter().zip(compiled.iter().zip(&interpreted)) {
            same_bits(a, b, &kinds).map_err(|error| format!("`{entry}`, machine code and interpreter: {error}"))?;
        }
        if self.entries[0].0 == "each" {
            if let Some(few) = compiled.get(2) {
                same_bits(&compiled[0], few, &kinds).map_err(|error| format!("`each` and `few`: {error}"))?;
            }
            for executor in [&machines.compiled, &machines.interpreted] {
                for (row, made) in self.rows_alone(executor, &bundle, &given) {
                    let expected = compiled[0][row * kinds.len()..(row + 1) * kinds.len()].repeat(ROWS);
                    let name = &executor.info().backend;
                    same_bits(&made, &expected, &kinds).map_err(|error| format!("`same` of row {row} ({name}) and `each`: {error}"))?;
                }
            }
        }
        if let Some(known) = self.known {
            for (at, made) in compiled[0].chunks(kinds.len()).enumerate() {
                let row = row_of(&given, at);
                let made: Vec<u32> = made.iter().zip(&kinds).filter(|(_, kind)| kind.is_some()).map(|(word, _)| *word).collect();
                let expected = known(&row);
                if made != expected {
                    return Err(format!("row {at} is {made:x?}, Rust says {expected:x?}: {row:?}"));
                }
            }
        }
        if matches!(self.gpu, Gpu::Apart) {
            return Ok(());
        }
        let on_gpu = self.results(&machines.gpu, &bundle, &given);
        let plain = if self.entries[0].0 == "each" && self.given.is_none() { PLAIN * kinds.len() } else { usize::MAX };
        for ((entry, _), (a, b)) in self.entries.iter().zip(compiled.iter().zip(&on_gpu)) {
            let end = plain.min(a.len());
            near(&a[..end], &b[..end], &kinds, self.gpu).map_err(|error| format!("`{entry}`, cpu and gpu: {error}"))?;
        }
        Ok(())
    }
}

/// Checks every case, and tells of all that fail.
pub(crate) fn check(cases: &[Case]) {
    let machines = Machines::open();
    let mut failures = Vec::new();
    for case in cases {
        let outcome = catch_unwind(AssertUnwindSafe(|| case.check(&machines)));
        let failure = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        });
        failures.extend(failure.err().map(|failure| format!("{}: {failure}", case.name)));
    }
    assert!(failures.is_empty(), "{} of {} cases fail\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// What each word of an element of a buffer is; nothing where it is padding.
fn words_of(bundle: &VerifiedBundle, name: &str) -> Vec<Option<Scalar>> {
    let program = bundle.program();
    let buffer = program.manifest.buffers.iter().position(|buffer| buffer.name == name).unwrap();
    let element = &program.elements[buffer];
    let mut words = vec![None; element.words() as usize];
    add_words(element, 0, &mut words);
    words
}

fn add_words(element: &Element, first: u32, words: &mut [Option<Scalar>]) {
    match &element.kind {
        ElementKind::Scalar(scalar) => words[first as usize] = Some(*scalar),
        ElementKind::Vector(scalar, count) => (first..first + count).for_each(|at| words[at as usize] = Some(*scalar)),
        ElementKind::Matrix { columns, rows } => {
            let step = if *rows == 2 { 2 } else { 4 };
            for column in 0..*columns {
                (0..*rows).for_each(|row| words[(first + column * step + row) as usize] = Some(Scalar::F32));
            }
        }
        ElementKind::Array { element, count, stride } => (0..*count).for_each(|at| add_words(element, first + at * stride / 4, words)),
        ElementKind::Struct(fields) => fields.iter().for_each(|field| add_words(&field.element, first + field.offset / 4, words)),
    }
}

fn text_of(word: u32, kind: Scalar) -> String {
    match kind {
        Scalar::F32 => format!("{:?} ({word:#x})", f32::from_bits(word)),
        Scalar::I32 => format!("{}", word as i32),
        Scalar::U32 => format!("{word} ({word:#x})"),
    }
}

/// Every word that is not padding has the same bits.
pub(crate) fn same_bits(a: &[u32], b: &[u32], kinds: &[Option<Scalar>]) -> Result<(), String> {
    compare(a, b, kinds, |_, a, b| a == b)
}

fn near(a: &[u32], b: &[u32], kinds: &[Option<Scalar>], gpu: Gpu) -> Result<(), String> {
    compare(a, b, kinds, |kind, a, b| match (kind, gpu) {
        _ if a == b => true,
        (Scalar::F32, gpu) => {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            let is_within = match gpu {
                Gpu::Within { relative, absolute } => (a - b).abs() <= absolute.max(relative * a.abs().max(b.abs())),
                Gpu::Exact | Gpu::Apart => false,
            };
            is_within || a == b || a.is_nan() && b.is_nan()
        }
        _ => false,
    })
}

fn compare(a: &[u32], b: &[u32], kinds: &[Option<Scalar>], is_same: impl Fn(Scalar, u32, u32) -> bool) -> Result<(), String> {
    assert_eq!(a.len(), b.len());
    let words = a.iter().zip(b).enumerate().filter_map(|(at, (&a, &b))| Some((at, kinds[at % kinds.len()]?, a, b)));
    let different: Vec<_> = words.filter(|&(_, kind, a, b)| !is_same(kind, a, b)).collect();
    let Some(&(at, kind, a, b)) = different.first() else { return Ok(()) };
    let (row, word) = (at / kinds.len(), at % kinds.len());
    let rest = different.len() - 1;
    Err(format!("row {row}, word {word}: {} and {}, and {rest} more", text_of(a, kind), text_of(b, kind)))
}

/// Numbers without pattern.
pub(crate) fn noise(seed: u32) -> u32 {
    let mut x = seed.wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
    for _ in 0..2 {
        x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
        x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    }
    x ^ x >> 16
}

/// The rows of `given`, as words; all rows beyond [`ROWS`] are ordinary.
fn given(rows: usize) -> Vec<u32> {
    (0..rows).flat_map(|row| (0..GIVEN_WORDS).map(move |word| given_word(row, word))).collect()
}

/// Rows of any kind, without NaNs and infinities. What is padding holds something too.
fn ordinary(rows: usize, kinds: &[Option<Scalar>]) -> Vec<u32> {
    let word = |at: usize| match kinds[at % kinds.len()] {
        Some(Scalar::F32) => given_word(0, at / 8 * GIVEN_WORDS + at % 8),
        _ => noise(at as u32) % if at.is_multiple_of(3) { 9 } else { u32::MAX },
    };
    (0..rows * kinds.len()).map(word).collect()
}

fn given_word(row: usize, word: usize) -> u32 {
    const WILD: [u32; 14] = [
        0,
        0x8000_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0xffc1_2345,
        0x7fa0_0001,
        1,
        0x807f_ffff,
        0x7f7f_ffff,
        0x4f00_0000,
        0xcf00_0001,
        0x4f80_0000,
        0x3f80_0001,
    ];
    const EDGES: [u32; 12] = [0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff, 2, 31, 32, 33, 0xffff, 0xff00_ff00, 0xffff_fffe];
    let noise = noise((row * GIVEN_WORDS + word) as u32);
    let pick = noise >> 8;
    match word % GIVEN_WORDS {
        0..8 if (PLAIN..ROWS).contains(&row) && !noise.is_multiple_of(3) => WILD[pick as usize % WILD.len()],
        0..8 => {
            let float = match noise % 4 {
                0 => (pick % 9) as f32 - 4.0,
                1 => (pick % 4001) as f32 / 200.0 - 10.0,
                2 => (pick % 2000) as f32 / 1000.0 - 1.0,
                _ => ((pick % 200_000) as f32 - 1e5) / 16.0,
            };
            // No zeros: their signs are the wild rows'.
            if float == 0.0 { 0.25f32.to_bits() } else { float.to_bits() }
        }
        _ => match noise % 3 {
            0 => EDGES[pick as usize % EDGES.len()],
            1 => (pick % 41).wrapping_sub(if word < 12 { 0 } else { 20 }),
            _ => crate::cases::noise(noise),
        },
    }
}

fn row_of(given: &[u32], at: usize) -> Row {
    let word = |word: usize| given[at * GIVEN_WORDS + word];
    let four = [0, 1, 2, 3];
    Row {
        f: four.map(|lane| f32::from_bits(word(lane))),
        g: four.map(|lane| f32::from_bits(word(4 + lane))),
        u: four.map(|lane| word(8 + lane)),
        i: four.map(|lane| word(12 + lane) as i32),
        at: at as u32,
    }
}
