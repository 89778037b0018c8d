//! `peercompute join` and `status`: taking part in a run by its link, and looking on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use peercompute::keys::{self, KeyFileError};
use peercompute::launch::{self, LaunchError};
use peercompute::link::Link;
use peercompute::node::speed;
use peercompute::serve;
use peercompute::told::{Line, Report};
use peercompute::world::{self, Terms};
use peercompute_kernels::Overrides;
use peercompute_kernels::executor::any::Choice;
use peercompute_net::membership::{Keep, Role, Tuning};
use peercompute_net::transport::TransportConfig;

use super::member::{Member, MemberArgs, leave_on_signal};
use super::run::{TransportArg, multiaddress};
use super::{GridExtents, Voice, extents, say, say_json, si};

#[derive(Args)]
pub(crate) struct JoinArgs {
    /// What `peercompute host` or `serve` printed.
    link: Link,
    /// The workload's folder, if it was not verified on this machine before.
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    workload: Option<PathBuf>,
    /// The run's bundle, if it was not verified on this machine before.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The folder's tile, where the host gave another.
    #[arg(long, value_name = "[GRID=]X,Y,Z", value_parser = extents, requires = "workload")]
    tile: Vec<GridExtents>,
    /// The folder's shape, where the host gave another.
    #[arg(long, value_name = "[GRID=]X,Y,Z", value_parser = extents, requires = "workload")]
    shape: Vec<GridExtents>,
    /// A key to trust: a file, or the key itself; by default the key that the link names.
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,
    #[command(flatten)]
    member: MemberArgs,
    /// This peer has all that the run begins with.
    #[arg(long, hide = true)]
    seeds: bool,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// What `peercompute host` or `serve` printed.
    link: Link,
    /// Go on looking until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(crate) fn join(args: &JoinArgs, choice: &Choice, json: bool) -> Result<(), LaunchError> {
    let trusted = args.trust.iter().map(|key| keys::read_public(key)).collect::<Result<Vec<_>, _>>()?;
    let given = args.workload.as_deref().or(args.bundle.as_deref());
    let overrides = Overrides { tiles: args.tile.clone(), shapes: args.shape.clone(), params: Vec::new() };
    let open = |given: Option<&Path>| keys::open_linked(&args.link, given, &overrides, &trusted);
    let bundle = match (open(given), &args.link.page) {
        (Err(KeyFileError::NotHere { .. }), Some(page)) => open(Some(fetch(page, &args.link)?.path()))?,
        (opened, _) => opened?,
    };
    let imports = launch::read_imports(&bundle, &args.member.import)?;
    launch::wanted(&bundle, &args.member.export, &args.member.image)?;
    let executor = args.member.open_executor(choice)?;
    let speed = if args.member.control { 0.0 } else { pollster::block_on(speed::measure(&executor, &bundle, 2))? * args.member.throttle() };
    let addresses = &args.link.addresses;
    let is_quic = addresses.iter().all(|address| address.contains("/quic"));
    let transport = if is_quic { TransportArg::Quic } else { TransportArg::Tcp };
    let terms = Terms {
        transport: TransportConfig {
            listen: vec![args.member.listen.map_or_else(|| world::listen_for(addresses), |listen| multiaddress(Some(listen), transport))],
            relays: world::relays_at(addresses),
            ..TransportConfig::default()
        },
        name: args.member.name("peer"),
        speed,
        computes: true,
        keep: if args.member.wants_state() { Keep::End } else { Keep::Share },
        seeds: args.seeds || !imports.is_empty(),
        token: args.link.token,
        tuning: Tuning::default(),
    };
    let (session, parts) = pollster::block_on(world::start(&bundle, Role::Join { addresses: args.link.addresses.clone() }, terms))?;
    let session = Arc::new(session);
    leave_on_signal(&session, args.member.control)?;
    let link = world::link(&bundle, &session, args.link.token);
    let line = Line::Listening { link: Link { key: args.link.key, ..link }.to_string() };
    if json {
        say_json(&line);
    } else {
        say(format!("{} {} on {}; joining", args.link.workload, args.link.version, executor.info().named()));
    }
    let member =
        Member { args: &args.member, bundle: &bundle, executor: &executor, session, parts, imports, ticks: None, voice: Voice { json, of: None } };
    member.take_part(&mut |_| Vec::new())
}

/// The page's bundle, in a file for as long as it takes to verify it.
fn fetch(page: &str, link: &Link) -> Result<tempfile::NamedTempFile, LaunchError> {
    let bytes = serve::fetch_bundle(page, link)?;
    let written = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(&bytes).map(|()| file));
    written.map_err(|cause| LaunchError::System { action: "write the bundle", cause })
}

pub(crate) fn status(args: &StatusArgs, json: bool) -> Result<(), LaunchError> {
    let mut look = |standing: &_| {
        let report = Report::new(&args.link.workload, standing);
        if json {
            say_json(&report);
        } else {
            print(&report);
        }
        args.watch
    };
    Ok(world::watch(&args.link, &mut look)?)
}

fn print(report: &Report) {
    let end = report.end.map_or(String::new(), |end| format!(" of {end}"));
    let snapshot = report.snapshot.map_or("none yet".to_owned(), |tick| format!("before tick {tick}"));
    say(format!("{}: tick {}{end}, epoch {}, last snapshot {snapshot}", report.workload, report.tick, report.epoch));
    say(format!(
        "{:>6}  {:<28} {:>7} {:>12} {:>12} {:>10} {:>10} {:>10}",
        "member", "name", "tiles", "tick", "points/s", "round trip", "from it", "to it"
    ));
    for (place, member) in report.members.iter().enumerate() {
        let trip = if place == 0 { "-".to_owned() } else { format!("{:.2} ms", member.round_trip_ms) };
        let (speed, bytes_in, bytes_out) = (si(member.points_per_s), si(member.bytes_in as f64), si(member.bytes_out as f64));
        let name: String = member.name.chars().take(28).collect();
        say(format!(
            "{:>6}  {name:<28} {:>7} {:>12} {speed:>12} {trip:>10} {:>10} {:>10}",
            member.id,
            member.tiles,
            member.tick,
            format!("{bytes_in}B"),
            format!("{bytes_out}B")
        ));
    }
}
