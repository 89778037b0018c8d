//! What runs a kernel here: machine code, the interpreter, and a GPU; and one run of a workload on one of them.

use std::time::Duration;

use peercompute_buffers::TileId;
use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::executor::any::{AnyExecutor, Choice};
use peercompute_kernels::executor::cpu::CpuOptions;
use peercompute_kernels::executor::gpu::GpuOptions;
use peercompute_kernels::executor::{ExecutorError, Placement, Run};
use peercompute_kernels::manifest::Sources;
use peercompute_kernels::program::Op;
use peercompute_kernels::{BundleError, Manifest, Overrides, SecretKey, VerifiedBundle, WorkloadError};
use pollster::block_on;

/// The executors that are held against each other.
pub(crate) struct Machines {
    /// The cpu executor, with machine code.
    pub(crate) compiled: AnyExecutor,
    /// The cpu executor, interpreting.
    pub(crate) interpreted: AnyExecutor,
    /// A GPU, in software where there is no other.
    pub(crate) gpu: AnyExecutor,
}

/// Kernels do not begin interpreted: what is tested is their machine code.
pub(crate) fn compiled_first() -> CpuOptions {
    CpuOptions { compile_wait: Some(Duration::MAX), ..CpuOptions::default() }
}

pub(crate) fn cpu(options: CpuOptions) -> AnyExecutor {
    block_on(AnyExecutor::open(&Choice::Cpu, GpuOptions::default(), options)).unwrap()
}

impl Machines {
    pub(crate) fn open() -> Machines {
        let options = |is_interpreted| CpuOptions { threads: Some(1), is_interpreted, ..compiled_first() };
        let gpu = block_on(AnyExecutor::open(&Choice::Gpu, GpuOptions::default(), CpuOptions::default())).unwrap();
        Machines { compiled: cpu(options(false)), interpreted: cpu(options(true)), gpu }
    }
}

/// A workload of one kernel file, `k.wgsl`.
pub(crate) fn bundle_of(toml: &str, wgsl: &str) -> Result<VerifiedBundle, WorkloadError> {
    let declaration = Declaration::parse(toml, &Overrides::default()).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let sources = Sources::from([("k.wgsl".to_string(), wgsl.to_string())]);
    let key = SecretKey::generate().unwrap();
    VerifiedBundle::sign(Manifest::new(&declaration, &sources)?, &key).map_err(|error| match error {
        BundleError::Workload(cause) => cause,
        other => panic!("{other}"),
    })
}

/// What a run does, in order.
#[derive(Clone, Debug)]
pub(crate) enum Do<'a> {
    /// Replaces the only tile of a buffer.
    Write(&'a str, &'a [u32]),
    /// Replaces the parameters.
    Params(&'a [u32]),
    /// Runs a pass alone.
    Pass(usize),
    /// Reads a buffer.
    Read(&'a str),
}

/// Does all of that on one peer; what was read.
pub(crate) fn run(executor: &AnyExecutor, bundle: &VerifiedBundle, list: &[Do<'_>]) -> Result<Vec<Vec<u32>>, ExecutorError> {
    block_on(async {
        let program = bundle.program();
        let buffer = |name: &str| program.manifest.buffers.iter().position(|buffer| buffer.name == name).unwrap();
        let mut run = executor.load(bundle, &Placement::alone(program)).await?;
        let mut read = Vec::new();
        for op in &program.init {
            if let Op::Pass(pass) = op {
                run.pass(*pass, 0).await?;
            }
        }
        for step in list {
            match step {
                Do::Write(name, words) => run.write_tile(buffer(name), TileId(0), bytemuck::cast_slice(words)),
                Do::Params(words) => run.set_params(bytemuck::cast_slice(words)),
                Do::Pass(pass) => run.pass(*pass, 0).await?,
                Do::Read(name) => {
                    let bytes = match program.grid_of(buffer(name)) {
                        Some(_) => run.read_tile(buffer(name), TileId(0)).await?,
                        None => run.read_table(buffer(name)).await?,
                    };
                    read.push(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect());
                }
            }
        }
        run.finish().await?;
        Ok(read)
    })
}
