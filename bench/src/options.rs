//! What a run of the benches is asked for.

/// One bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// Device copy bandwidth: the floor of streaming kernels.
    Copy,
    /// The heat workload against its twin.
    Heat,
    /// The n-body workload against its twin.
    Nbody,
    /// Bytes of device memory against what the declaration predicts.
    Memory,
    /// Bytes that two peers ship in a tick against what geometry predicts.
    Strips,
    /// The network path against a bare stream.
    Exchange,
    /// Tiles that move to a newcomer against a bare stream.
    Move,
    /// The cpu executor against every adapter and against hand-written Rust; runs only where it is named.
    Executors,
    /// The cpu executor in a browser against the browser's WebGPU; runs only where it is named.
    Browser,
    /// The gpu executor in a browser against hand-written WebGPU in the same worker; runs only where it is named.
    Page,
    /// What membership costs, and how tiles follow speed, with real processes; runs only where it is named.
    Members,
    /// A browser's link against a bare WebSocket of the same worker; runs only where it is named.
    Wire,
    /// How soon a fresh tab computes: from its navigation to its first tick in a run; runs only where it is named.
    Arrival,
}

impl Bench {
    /// Every bench, in the order in which they run.
    pub const ALL: [Bench; 13] = [
        Bench::Copy,
        Bench::Heat,
        Bench::Nbody,
        Bench::Memory,
        Bench::Strips,
        Bench::Exchange,
        Bench::Move,
        Bench::Executors,
        Bench::Browser,
        Bench::Page,
        Bench::Members,
        Bench::Wire,
        Bench::Arrival,
    ];

    /// Its name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Bench::Copy => "copy",
            Bench::Heat => "heat",
            Bench::Nbody => "nbody",
            Bench::Memory => "memory",
            Bench::Strips => "strips",
            Bench::Exchange => "exchange",
            Bench::Move => "move",
            Bench::Executors => "executors",
            Bench::Browser => "browser",
            Bench::Page => "page",
            Bench::Members => "members",
            Bench::Wire => "wire",
            Bench::Arrival => "arrival",
        }
    }

    /// The bench of a name.
    pub fn from_name(name: &str) -> Option<Bench> {
        Bench::ALL.into_iter().find(|bench| bench.name() == name)
    }

    /// Whether it measures the gpu executor, and so comes to nothing where no adapter is.
    pub fn needs_gpu(self) -> bool {
        matches!(self, Bench::Copy | Bench::Heat | Bench::Nbody | Bench::Memory | Bench::Strips)
    }

    /// Whether it runs where none is named.
    fn is_usual(self) -> bool {
        self.needs_gpu() || matches!(self, Bench::Exchange | Bench::Move)
    }
}

/// How much time figures may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Sizes at which only the code is tested: figures mean nothing.
    Tiny,
    /// Real sizes, few and short rounds, only the cases that have a target on every adapter.
    Quick,
    /// Everything.
    #[default]
    Full,
}

impl Effort {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Effort::Tiny => "tiny",
            Effort::Quick => "quick",
            Effort::Full => "full",
        }
    }

    /// Times that a figure and its twin are timed in turn.
    pub(crate) fn rounds(self) -> u32 {
        match self {
            Effort::Tiny => 1,
            Effort::Quick => 5,
            Effort::Full => 15,
        }
    }

    /// Seconds that one side of one round should take.
    pub(crate) fn round_seconds(self) -> f64 {
        match self {
            Effort::Tiny => 0.0,
            Effort::Quick => 0.3,
            Effort::Full => 0.6,
        }
    }
}

/// What to measure, where and how long.
#[derive(Clone, Debug, Default)]
pub struct BenchOptions {
    /// A part of the adapter's name; otherwise the fastest kind there is, and where executors are compared, every one.
    pub adapter: Option<String>,
    /// The benches to run; empty for all that run where none is named.
    pub only: Vec<Bench>,
    /// How much time it may take.
    pub effort: Effort,
    /// Bodies of the n-body figure that every adapter gives; 8,192 if `None`. Real GPUs add 262,144.
    pub bodies: Option<u32>,
    /// A part of the name of what executors are compared by; all that there is if `None`.
    pub case: Option<String>,
}

impl BenchOptions {
    pub(crate) fn benches(&self) -> impl Iterator<Item = Bench> + '_ {
        Bench::ALL.into_iter().filter(|bench| if self.only.is_empty() { bench.is_usual() } else { self.only.contains(bench) })
    }
}
