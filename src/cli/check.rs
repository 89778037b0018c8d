//! `peercompute check`: what a workload declares, what it was understood to be, what it costs.

use clap::Args;
use peercompute::inspect::{self, Observed};
use peercompute::launch::{self, ExecutorOptions, LaunchError};
use peercompute::node::NodeError;
use peercompute::node::plan::RunPlan;
use peercompute_buffers::layout::{Element, ElementKind};
use peercompute_kernels::declaration::{Access, Extent, GridDeclaration};
use peercompute_kernels::executor::any::{AnyExecutor, Choice};
use peercompute_kernels::executor::{ExecutorError, Layout, Placement, Run};
use peercompute_kernels::program::{Role, Write};
use peercompute_kernels::{Manifest, Program};
use peercompute_net::ownership::Ownership;
use serde::Serialize;

use super::{WorkloadArgs, say, say_json, si};

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Print what a run on this many peers ships.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    peers: u16,
    /// Run it on a small grid and look for races between invocations.
    #[arg(long)]
    races: bool,
    /// Run it on a small grid and look for indices beyond their arrays.
    #[arg(long)]
    bounds: bool,
    /// Ticks of that run.
    #[arg(long, default_value_t = 2)]
    ticks: u64,
}

#[derive(Serialize)]
struct CheckReport {
    workload: String,
    version: String,
    bundle: String,
    class: String,
    grids: Vec<GridReport>,
    buffers: Vec<BufferReport>,
    passes: Vec<PassReport>,
    elements_per_tick: u64,
    bytes_per_tick: u64,
    memory_bytes: Option<u64>,
    peers: u16,
    shipped_bytes_per_tick: u64,
    executor: Option<&'static str>,
    adapter: Option<String>,
    page_bytes_max: Option<u64>,
    problem: Option<String>,
    warnings: Vec<String>,
    /// What was seen of a small run; nothing if none was asked for.
    findings: Option<Vec<Observed>>,
    /// The grids of that run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    watched: Vec<GridReport>,
}

#[derive(Serialize)]
struct GridReport {
    name: String,
    shape: Vec<u32>,
    tile: Vec<u32>,
    tiles: u32,
}

#[derive(Serialize)]
struct BufferReport {
    name: String,
    element: String,
    stride_bytes: u32,
    extent: String,
    boundary: Option<String>,
    copies: u32,
    fields: Vec<FieldReport>,
}

#[derive(Serialize)]
struct FieldReport {
    name: String,
    element: String,
    offset_bytes: u32,
    size_bytes: u32,
}

#[derive(Serialize)]
struct PassReport {
    kernel: String,
    entry: String,
    init: bool,
    workgroup: [u32; 3],
    workgroup_bytes: u32,
    reads: Vec<String>,
    writes: Vec<String>,
    bindings: Vec<String>,
}

pub(crate) fn run(args: &CheckArgs, executor: &Choice, json: bool) -> Result<(), LaunchError> {
    let bundle = args.workload.open()?;
    let program = bundle.program();
    let mut report = describe(program, args.peers);
    let mut is_refused = false;
    // Without the executor that is wanted a workload can still be checked; what cannot be told is left out and said.
    match launch::open_executor(executor, ExecutorOptions::default()) {
        Ok(executor) => {
            report.executor = Some(executor.info().executor);
            report.adapter = Some(executor.info().adapter.clone());
            report.page_bytes_max = Some(executor.page_bytes_max());
            match pollster::block_on(executor.load(&bundle, &Placement::alone(program))) {
                Ok(run) => report.memory_bytes = Some(run.memory_bytes()),
                Err(error) => {
                    is_refused = true;
                    report.problem = Some(error.to_string());
                }
            }
            let shipped = shipped(&executor, program, args.peers).map_err(NodeError::from);
            match shipped {
                Ok(bytes) => report.shipped_bytes_per_tick = bytes,
                Err(error) => report.problem = report.problem.or(Some(error.to_string())),
            }
        }
        Err(error) => report.problem = Some(error.to_string()),
    }
    if args.races || args.bounds {
        let small = inspect::open_small(&args.workload.workload, &args.workload.opening.overrides(), &args.workload.opening.trusted()?)?;
        let mut findings = inspect::inspect(&small, args.ticks)?;
        findings.retain(|finding| if finding.kind == "bounds" { args.bounds } else { args.races });
        report.findings = Some(findings);
        report.watched = grids_of(&small.program().manifest);
    }
    if json {
        say_json(&report);
    } else {
        print(&report);
    }
    match report.findings {
        Some(findings) if !findings.is_empty() => Err(LaunchError::Findings { count: findings.len() }),
        _ if is_refused => Err(LaunchError::Refused),
        _ => Ok(()),
    }
}

fn print_findings(findings: &[Observed], grids: &[GridReport]) {
    let found = if findings.is_empty() { ": nothing found" } else { "" };
    let extent = |shape: &[u32]| shape.iter().map(u32::to_string).collect::<Vec<_>>().join(" × ");
    let shapes: Vec<String> = grids.iter().map(|grid| extent(&grid.shape)).collect();
    say(format!("\nwatched on a small grid, {}; `--shape` takes another{found}", shapes.join(" and ")));
    for Observed { kind, kernel, entry, line, invocation, buffer, element, other } in findings {
        let other = other.map(|(other, line)| format!(", which {other:?} touches at line {line} with nothing between")).unwrap_or_default();
        let what = match *kind {
            "parted" => "waits at a barrier that not all of its workgroup reach".to_string(),
            "bounds" => format!("asks for element {element} of {buffer}"),
            _ if element.is_empty() => format!("touches {buffer}{other}"),
            _ => format!("touches {buffer} {element}{other}"),
        };
        say(format!("  {kind:<7} {kernel}:{line} ({entry})  invocation {invocation:?} {what}"));
    }
}

fn shipped(executor: &AnyExecutor, program: &Program, peers: u16) -> Result<u64, ExecutorError> {
    let grids: Vec<_> = program.manifest.grids.iter().map(|grid| grid.grid).collect();
    let ownership = Ownership::split(&grids, &vec![1.0; usize::from(peers)]);
    let plan = RunPlan { ownership, ticks: 0, changes: Vec::new(), gather: Vec::new() };
    let steady = program.ticks.last().map(Vec::as_slice).unwrap_or_default();
    let mut bytes = 0;
    for me in 0..usize::from(peers) {
        let layout: Layout = executor.layout(program, &plan.placement(me, usize::from(peers)))?;
        for op in steady {
            if let peercompute_kernels::program::Op::Exchange(exchange) = op {
                bytes += layout.exchanges[*exchange].send.iter().map(|run| run.len() as u64 * 4).sum::<u64>();
            }
        }
    }
    Ok(bytes)
}

fn describe(program: &Program, peers: u16) -> CheckReport {
    let manifest = &program.manifest;
    let name = |buffer: usize| manifest.buffers[buffer].name.clone();
    let buffers = manifest.buffers.iter().enumerate().map(|(index, buffer)| {
        let (extent, boundary) = match buffer.extent {
            Extent::Field { grid } => (format!("field of {}", manifest.grids[grid].name), Some(format!("{:?}", buffer.boundary).to_lowercase())),
            Extent::Table { length, reduce: None } => (format!("table of {length}"), None),
            Extent::Table { length, reduce: Some(reduce) } => (format!("table of {length}, {}", format!("{reduce:?}").to_lowercase()), None),
        };
        BufferReport {
            name: buffer.name.clone(),
            element: buffer.element.clone(),
            stride_bytes: program.elements[index].stride,
            extent,
            boundary,
            copies: if program.is_double(index) { 2 } else { 1 },
            fields: fields(&program.elements[index]),
        }
    });
    let passes = manifest.passes.iter().zip(&program.passes).map(|(pass, checked)| PassReport {
        kernel: pass.file.clone(),
        entry: pass.entry.clone(),
        init: pass.init,
        workgroup: checked.workgroup,
        workgroup_bytes: checked.workgroup_bytes,
        reads: pass
            .reads
            .iter()
            .map(|&(buffer, access)| match access {
                Access::Own => name(buffer),
                Access::Halo(depth) => format!("{} halo {depth}", name(buffer)),
                Access::All => format!("{} all", name(buffer)),
            })
            .collect(),
        writes: pass
            .writes
            .iter()
            .zip(&checked.writes)
            .map(|(&buffer, write)| match write {
                Write::InPlace => format!("{} in place", name(buffer)),
                Write::Swap { copies: false } => format!("{} to the other copy", name(buffer)),
                Write::Swap { copies: true } => format!("{} to the other copy, after copying it", name(buffer)),
                Write::Partials => format!("{} by workgroup shares", name(buffer)),
                Write::Atomics => format!("{} by atomics", name(buffer)),
            })
            .collect(),
        bindings: checked
            .bindings
            .iter()
            .map(|binding| {
                let variable = match binding.role {
                    Role::TileTable => "tile".to_string(),
                    Role::Dispatch => "pc_dispatch".to_string(),
                    Role::Params => "params".to_string(),
                    Role::Current(buffer) => name(buffer),
                    Role::Next(buffer) => format!("{}_next", name(buffer)),
                };
                format!("{} {variable}", binding.number)
            })
            .collect(),
    });
    CheckReport {
        workload: manifest.name.clone(),
        version: manifest.version.to_string(),
        bundle: peercompute_buffers::digest::hex(&program.hash),
        class: format!("{:?}", manifest.class).to_lowercase(),
        grids: grids_of(manifest),
        buffers: buffers.collect(),
        passes: passes.collect(),
        elements_per_tick: program.elements_per_tick(),
        bytes_per_tick: program.bytes_per_tick(),
        memory_bytes: None,
        peers,
        shipped_bytes_per_tick: 0,
        executor: None,
        adapter: None,
        page_bytes_max: None,
        problem: None,
        warnings: program.warnings.clone(),
        findings: None,
        watched: Vec::new(),
    }
}

fn grids_of(manifest: &Manifest) -> Vec<GridReport> {
    let report = |grid: &GridDeclaration| {
        let dims = usize::from(grid.grid.dims);
        GridReport {
            name: grid.name.clone(),
            shape: grid.grid.shape[..dims].to_vec(),
            tile: grid.grid.tile[..dims].to_vec(),
            tiles: grid.grid.tile_count(),
        }
    };
    manifest.grids.iter().map(report).collect()
}

fn fields(element: &Element) -> Vec<FieldReport> {
    let ElementKind::Struct(fields) = &element.kind else { return Vec::new() };
    let report = |field: &peercompute_buffers::layout::Field| FieldReport {
        name: field.name.clone(),
        element: field.element.name.clone(),
        offset_bytes: field.offset,
        size_bytes: field.element.size,
    };
    fields.iter().map(report).collect()
}

fn print(report: &CheckReport) {
    say(format!("{} {} ({})", report.workload, report.version, report.class));
    say(format!("bundle {}", report.bundle));
    say("\ngrids");
    let joined = |extents: &[u32]| extents.iter().map(u32::to_string).collect::<Vec<_>>().join("×");
    for grid in &report.grids {
        say(format!("  {:<14} {} in {} tiles of {}", grid.name, joined(&grid.shape), grid.tiles, joined(&grid.tile)));
    }
    say("\nbuffers");
    for buffer in &report.buffers {
        let boundary = buffer.boundary.as_ref().map(|b| format!(", {b}")).unwrap_or_default();
        let copies = if buffer.copies == 2 { ", two copies" } else { "" };
        say(format!("  {:<14} {:<12} {:>3} B  {}{boundary}{copies}", buffer.name, buffer.element, buffer.stride_bytes, buffer.extent));
        for field in &buffer.fields {
            say(format!("    {:>4}..{:<4} {} {}", field.offset_bytes, field.offset_bytes + field.size_bytes, field.name, field.element));
        }
    }
    say("\npasses");
    for pass in &report.passes {
        let [x, y, z] = pass.workgroup;
        let init = if pass.init { "  once, before tick 0" } else { "" };
        say(format!("  {}:{}  workgroup {x}×{y}×{z}{init}", pass.kernel, pass.entry));
        say(format!("    reads     {}", or_nothing(&pass.reads)));
        say(format!("    writes    {}", or_nothing(&pass.writes)));
        say(format!("    bindings  {}", or_nothing(&pass.bindings)));
    }
    say("\na tick");
    say(format!(
        "  updates {}elements, moves at least {}B in executor memory",
        si(report.elements_per_tick as f64),
        si(report.bytes_per_tick as f64)
    ));
    if report.adapter.is_some() {
        say(format!("  ships {}B between {} peers", si(report.shipped_bytes_per_tick as f64), report.peers));
    }
    if let (Some(executor), Some(adapter), Some(limit)) = (report.executor, &report.adapter, report.page_bytes_max) {
        say(format!("\non the {executor}: {adapter}"));
        say(format!("  pages of at most {limit} bytes"));
        if let Some(memory) = report.memory_bytes {
            say(format!("  {}B of memory on one peer", si(memory as f64)));
        }
    }
    if let Some(problem) = &report.problem {
        say(format!("\nnot runnable here: {problem}"));
    }
    for warning in &report.warnings {
        say(format!("\nwarning: {warning}"));
    }
    if let Some(findings) = &report.findings {
        print_findings(findings, &report.watched);
    }
}

fn or_nothing(list: &[String]) -> String {
    if list.is_empty() { "nothing".into() } else { list.join(", ") }
}
