//! `peercompute host`: a run that others can join, for as long as somebody is there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use peercompute::launch::{self, LaunchError};
use peercompute::node::member::SharedTask;
use peercompute::node::plan::ParamChange;
use peercompute::node::{NodeError, peer};
use peercompute::told::Line;
use peercompute::world::{self, Terms};
use peercompute_kernels::executor::any::Choice;
use peercompute_net::membership::{Keep, Role, Tuning};

use super::member::{Member, MemberArgs};
use super::run::{TransportArg, change, multiaddress, seconds};
use super::{WorkloadArgs, say, say_json, sign};

#[derive(Args)]
pub(crate) struct HostArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    member: MemberArgs,
    /// Keep the run in this file, and go on with what is in it: with the members that were there, or alone.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// How many ticks; without, until the last member has left.
    #[arg(long)]
    ticks: Option<u64>,
    /// Change a parameter, from the start or before a tick: `rate=0.2`, `rate=0.2@100`.
    #[arg(long, value_name = "NAME=VALUE[@TICK]", value_parser = change)]
    set: Vec<ParamChange>,
    /// Copies of every snapshot's part beside its owner's: as many members can vanish at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=16))]
    replicas: u16,
    /// Seconds between snapshots.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    snapshot_every: f64,
    /// Peers that must be there, this one included, before the first tick.
    #[arg(long, value_name = "PEERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    assemble: u16,
    /// What the peers talk over.
    #[arg(long, value_enum, default_value_t = TransportArg::Tcp)]
    transport: TransportArg,
}

pub(crate) fn run(args: &HostArgs, choice: &Choice, json: bool) -> Result<(), LaunchError> {
    let bundle = args.workload.open()?;
    let program = bundle.program();
    // A wrong name, value or file is told before anything starts.
    let mut params = program.manifest.params.clone();
    for change in &args.set {
        program.set_param(&mut params, &change.name, &change.value).map_err(NodeError::from)?;
    }
    let imports = launch::read_imports(&bundle, &args.member.import)?;
    launch::wanted(&bundle, &args.member.export, &args.member.image)?;
    if !json {
        for warning in &program.warnings {
            say(format!("warning: {warning}"));
        }
    }
    sign::keep(&bundle);
    let executor = args.member.open_executor(choice)?;
    let speed = if args.member.control { 0.0 } else { pollster::block_on(peer::measure(&executor, &bundle, 1))? * args.member.throttle() };
    let keep = match (&args.store, args.member.wants_state(), args.ticks) {
        (Some(_), _, _) | (None, true, None) => Keep::All,
        (None, true, Some(_)) => Keep::End,
        (None, false, _) => Keep::Share,
    };
    let token = world::random()?;
    let terms = Terms {
        listen: vec![multiaddress(args.member.listen, args.transport)],
        identity_seed: Some(world::random()?),
        name: args.member.name("host"),
        speed,
        keep,
        seeds: true,
        token,
        tuning: Tuning { snapshot_every: Duration::from_secs_f64(args.snapshot_every), ..Tuning::default() },
    };
    let task = SharedTask::new(args.set.clone(), &imports).to_bytes().map_err(NodeError::from)?;
    let role = Role::Host { assemble: args.assemble, end: args.ticks.unwrap_or(u64::MAX), task, replicas: args.replicas, stored: None };
    let (session, parts) = world::start(&bundle, role, terms)?;
    let link = world::link(&bundle, &session, token).to_string();
    if json {
        say_json(&Line::Listening { link });
    } else {
        say(format!(
            "{} {} at {}; others join with\n\npeercompute join {link}\n",
            program.manifest.name,
            program.manifest.version,
            executor.info().named()
        ));
    }
    let member =
        Member { args: &args.member, bundle: &bundle, executor: &executor, session: Arc::new(session), parts, imports, ticks: args.ticks, json };
    member.take_part(&mut |_| Vec::new())
}
