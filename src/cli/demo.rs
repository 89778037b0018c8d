//! The demo: rain over a landscape on four peers, and the proof that one peer gives the same bits.

use std::path::{Path, PathBuf};

use peercompute::launch::{self, ExecutorOptions, Job, LaunchError};
use peercompute::node::peer::Split;
use peercompute::node::{self, Task};
use peercompute::{files, picture};
use peercompute_kernels::Overrides;
use peercompute_kernels::executor::any::Choice;
use serde_json::json;

use super::run::{Bar, new_token, write_bundle};
use super::{say, say_json, shipped, si};

const PEERS: u16 = 4;
const TICKS: u64 = 300;

pub(crate) fn run(choice: &Choice, json: bool) -> Result<(), LaunchError> {
    let bundle = shipped::ALL[0].open(&Overrides::default())?;
    let manifest = &bundle.program().manifest;
    let program = bundle.program();
    let executor = launch::open_executor(choice, ExecutorOptions::default())?;
    let info = executor.info();
    let shape = manifest.grids[0].grid.shape;
    if !json {
        say(format!(
            "Rain over a landscape of {}×{} cells, {TICKS} ticks on {PEERS} peers ({}: {})",
            shape[0], shape[1], info.executor, info.adapter
        ));
    }
    let folder = tempfile::tempdir().map_err(|cause| LaunchError::System { action: "make a folder for the demo", cause })?;
    let field = |name: &str| (name.to_string(), folder.path().join(format!("{name}.npy")));
    let exports = vec![field("height"), field("depth")];
    let job = Job {
        bundle: write_bundle(folder.path().join("rivers.pcb"), &bundle)?,
        trust: bundle.signer().to_string(),
        peers: PEERS,
        ticks: TICKS,
        changes: Vec::new(),
        imports: Vec::new(),
        exports: exports.clone(),
        images: Vec::new(),
        split: Split::Even,
        staleness: 0,
        executor: choice.clone(),
        threads: None,
        unchecked: false,
        listen: "/ip4/127.0.0.1/tcp/0".into(),
        token: new_token()?,
        silence_s: 10.0,
    };
    let bar = Bar::new(&bundle, TICKS, json);
    let together = launch::launch(&job, &mut |progress| bar.show(progress))?;
    bar.end();
    let read = |(name, path): &(String, PathBuf)| {
        let buffer = files::buffer_named(program, name)?;
        let bytes = files::import(program, buffer, path)?;
        picture::scalars(name, &program.elements[buffer], &bytes).map_err(LaunchError::from)
    };
    let (height, depth) = (read(&exports[0])?, read(&exports[1])?);
    let path = Path::new("out/terrain.png");
    launch::make_folder(path)?;
    picture::write_landscape(path, [shape[0], shape[1]], &height, &depth, 20.0)?;
    let rate = program.elements_per_tick() as f64 * TICKS as f64 / together.seconds;
    if !json {
        say(format!(
            "{PEERS} peers: {:.2} s, {}cells/s, {}B shipped → {}\nthe same on one peer, to compare:",
            together.seconds,
            si(rate),
            si(together.shipped_bytes as f64),
            path.display()
        ));
    }
    let bar = Bar::new(&bundle, TICKS, json);
    let task = Task { ticks: TICKS, ..Task::default() };
    let alone = pollster::block_on(node::run_alone(&executor, &bundle, &task, &mut |progress| bar.show(progress)))?;
    bar.end();
    let is_identical = alone.state_hash == together.state_hash;
    if json {
        say_json(&json!({ "workload": manifest.name, "peers": PEERS, "ticks": TICKS, "executor": info.executor, "adapter": info.adapter,
            "state_hash": together.state_hash, "state_hash_one_peer": alone.state_hash, "bit_identical": is_identical,
            "elements_per_s": rate, "shipped_bytes": together.shipped_bytes, "seconds": together.seconds, "picture": path }));
    } else {
        let verdict = if is_identical { "bit-identical to" } else { "DIFFERENT from" };
        say(format!("the {PEERS}-peer result is {verdict} the 1-peer result (state hash {})", &together.state_hash[..16]));
    }
    if is_identical { Ok(()) } else { Err(LaunchError::Differs { together: together.state_hash, alone: alone.state_hash }) }
}
