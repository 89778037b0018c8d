//! `peercompute host`: a run that others can join, for as long as somebody is there, and longer with a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use peercompute::launch::{self, LaunchError};
use peercompute::link::{Link, bytes_from_hex};
use peercompute::node::member::{SharedTask, Told, agreed};
use peercompute::node::plan::ParamChange;
use peercompute::node::{NodeError, parts, speed};
use peercompute::serve::Hosted;
use peercompute::store::{Heard, Record, RunStore, Storing};
use peercompute::told::Line;
use peercompute::world::{self, Terms};
use peercompute_buffers::digest::hex;
use peercompute_kernels::executor::any::{AnyExecutor, Choice};
use peercompute_kernels::{Program, VerifiedBundle};
use peercompute_net::membership::{Keep, MemberError, Role, Stored, Tuning};
use peercompute_net::transport::TransportConfig;
use peercompute_net::transport::websocket::{self, Door, Doorway};

use super::member::{Member, MemberArgs, leave_on_signal};
use super::run::{TransportArg, change, multiaddress, seconds};
use super::serve::Opening;
use super::{Voice, WorkloadArgs, say, sign, warn_of};

/// How long members of a stored run are looked for.
const SEARCH_LIMIT: Duration = Duration::from_secs(3);
/// A server keeps every snapshot of all of a world up to this size.
const KEPT_BYTES_MAX: u64 = 64 << 20;

#[derive(Args)]
pub(crate) struct HostCommand {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
pub(crate) struct HostArgs {
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

impl HostArgs {
    /// The port that was asked for.
    pub(super) fn listen(&self) -> Option<std::net::SocketAddr> {
        self.member.listen
    }

    /// Options that only one workload can have, and whether they are given.
    pub(super) fn of_one_workload(&self) -> Vec<(&'static str, bool)> {
        let MemberArgs { import, export, image, .. } = &self.member;
        let files = [("--import", import), ("--export", export), ("--image", image)].map(|(option, files)| (option, !files.is_empty()));
        [&files[..], &[("--store", self.store.is_some()), ("--set", !self.set.is_empty())]].concat()
    }
}

pub(crate) fn run(args: &HostCommand, choice: &Choice, json: bool) -> Result<(), LaunchError> {
    host(&args.host, &args.workload.open()?, None, false, choice, Voice { json, of: None })
}

/// A run's place on a port that browsers come to.
pub(super) struct Site<'a> {
    opening: &'a Opening,
    place: usize,
    addresses: Vec<String>,
    doorway: Doorway,
    /// Until the run can be joined.
    door: Option<Door>,
}

impl<'a> Site<'a> {
    pub(super) fn new(opening: &'a Opening, place: usize, addresses: Vec<String>) -> Site<'a> {
        let (door, doorway) = websocket::door();
        Site { opening, place, addresses, doorway, door: Some(door) }
    }
}

/// Hosts a run, on a port for browsers or on one of its own. One that `rests_alone` waits while nobody else is there.
pub(super) fn host(
    args: &HostArgs,
    bundle: &VerifiedBundle,
    site: Option<Site<'_>>,
    rests_alone: bool,
    choice: &Choice,
    voice: Voice,
) -> Result<(), LaunchError> {
    let program = bundle.program();
    // A wrong name, value or file is told before anything starts.
    let mut params = program.manifest.params.clone();
    for change in &args.set {
        program.set_param(&mut params, &change.name, &change.value).map_err(NodeError::from)?;
    }
    let imports = launch::read_imports(bundle, &args.member.import)?;
    launch::wanted(bundle, &args.member.export, &args.member.image)?;
    let store = args.store.as_deref().map(|path| RunStore::open(path, bundle)).transpose()?;
    if !voice.json {
        warn_of(program);
    }
    sign::keep(bundle);
    let executor = args.member.open_executor(choice)?;
    if site.is_some() && !voice.json {
        say(format!("{} {} on {}", program.manifest.name, program.manifest.version, executor.info().named()));
    }
    let speed = if args.member.control { 0.0 } else { pollster::block_on(speed::measure(&executor, bundle, 1))? * args.member.throttle() };
    let mut host = Host { args, bundle, executor: &executor, imports, speed, voice, rests_alone, site, stored: None, storing: None };
    let record = host.open(store)?;
    if !record.members.is_empty() {
        host.note(format!("looking for the members of the stored run at {} addresses", record.members.len()));
        let role = Role::Join { addresses: record.members.clone() };
        let mut has_entered = false;
        match host.take_part(role, &record, &mut has_entered) {
            Err(LaunchError::Node(NodeError::Member(MemberError::Unreachable { .. } | MemberError::Refused { .. }))) if !has_entered => {}
            ended => return ended,
        }
        let tick = host.stored.as_ref().map_or(0, |stored| stored.tick);
        host.note(format!("nobody of the stored run answers: it goes on here from tick {tick}"));
    }
    let task = record.task.to_bytes().map_err(NodeError::from)?;
    let role = Role::Host { assemble: args.assemble, end: record.end, task, replicas: args.replicas, stored: host.stored.take() };
    host.take_part(role, &record, &mut false)
}

struct Host<'a> {
    args: &'a HostArgs,
    bundle: &'a VerifiedBundle,
    executor: &'a AnyExecutor,
    imports: Vec<(usize, Vec<u8>)>,
    speed: f64,
    voice: Voice,
    rests_alone: bool,
    site: Option<Site<'a>>,
    /// What the store had.
    stored: Option<Stored>,
    storing: Option<Storing>,
}

impl Host<'_> {
    fn note(&self, text: String) {
        self.voice.say(&Line::Notice { text });
    }

    /// What the run is: as the store has it, or new and then in the store.
    fn open(&mut self, store: Option<RunStore>) -> Result<Record, LaunchError> {
        let manifest = &self.bundle.program().manifest;
        let mut record = match store.as_ref().and_then(RunStore::record) {
            Some(record) => record.clone(),
            None => Record {
                workload: manifest.name.clone(),
                version: manifest.version.to_string(),
                bundle: hex(&self.bundle.program().hash),
                token: hex(&self.site.as_ref().map_or_else(world::random, |site| Ok(site.opening.token))?),
                identity_seed: hex(&world::random::<32>()?),
                end: u64::MAX,
                task: SharedTask::new(Vec::new(), &self.imports),
                members: Vec::new(),
            },
        };
        // What was changed before stays so; what is asked for now comes on top.
        record.task.changes.extend(self.args.set.iter().filter(|change| !record.task.changes.contains(change)).cloned().collect::<Vec<_>>());
        record.end = self.args.ticks.unwrap_or(record.end);
        if let Some(mut store) = store {
            let parts = parts::parts_of(self.bundle.program()).map_err(|cause| NodeError::Parts { cause })?;
            self.stored = store.newest(&parts)?;
            store.keep(record.clone())?;
            self.storing = Some(store.in_thread()?);
        }
        Ok(record)
    }

    /// Where the others find this host, and as whom.
    fn transport(&self, record: &Record) -> TransportConfig {
        let identity_seed = bytes_from_hex(&record.identity_seed);
        match &self.site {
            Some(site) => TransportConfig {
                listen: site.addresses.clone(),
                doorway: Some(site.doorway.clone()),
                relay: true,
                identity_seed,
                ..TransportConfig::default()
            },
            None => TransportConfig {
                listen: vec![multiaddress(self.args.member.listen, self.args.transport)],
                identity_seed,
                ..TransportConfig::default()
            },
        }
    }

    /// Says how to join, or lets the site say so; `false` if nobody ever can, for a reason that another run has.
    fn announce(&mut self, link: Link) -> Result<bool, LaunchError> {
        if let Some(site) = &mut self.site {
            // Who looked for a stored run in vain has opened the site already.
            if let Some(door) = site.door.take() {
                return Ok(site.opening.ready(site.place, Hosted { link, bundle: self.bundle.clone(), door })?);
            }
        } else if self.voice.json {
            self.voice.say(&Line::Listening { link: link.to_string() });
        } else {
            let manifest = &self.bundle.program().manifest;
            say(format!("{} {} on {}; others join with\n\npeercompute join {link}\n", manifest.name, manifest.version, self.executor.info().named()));
        }
        Ok(true)
    }

    fn take_part(&mut self, role: Role, record: &Record, has_entered: &mut bool) -> Result<(), LaunchError> {
        let args = &self.args.member;
        let keep = match (&self.storing, args.wants_state(), record.end) {
            (Some(_), _, _) | (None, true, u64::MAX) => Keep::All,
            (None, true, _) => Keep::End,
            // Of tabs several vanish at once, with what they own and what they keep for each other.
            (None, false, _) if self.site.is_some() && world::parts(self.bundle)?.whole_bytes() <= KEPT_BYTES_MAX => Keep::All,
            (None, false, _) => Keep::Share,
        };
        let is_hosting = matches!(role, Role::Host { .. });
        let dial_limit = if is_hosting { Tuning::default().dial_limit } else { SEARCH_LIMIT };
        let token = bytes_from_hex(&record.token).unwrap_or_default();
        let terms = Terms {
            transport: self.transport(record),
            name: args.name("host"),
            speed: self.speed,
            computes: true,
            keep,
            seeds: is_hosting,
            token,
            tuning: Tuning {
                snapshot_every: Duration::from_secs_f64(self.args.snapshot_every),
                dial_limit,
                rests_alone: self.rests_alone,
                ..Tuning::default()
            },
        };
        let (session, parts) = pollster::block_on(world::start(self.bundle, role, terms))?;
        let session = Arc::new(session);
        leave_on_signal(&session, args.control)?;
        if !self.announce(world::link(self.bundle, &session, token))? {
            return Ok(());
        }
        let own = session.identity().to_owned();
        let member = Member {
            args,
            bundle: self.bundle,
            executor: self.executor,
            session,
            parts,
            imports: self.imports.clone(),
            ticks: (record.end != u64::MAX).then_some(record.end),
            voice: self.voice.clone(),
        };
        let (storing, program) = (&self.storing, self.bundle.program());
        let mut hear = |told: &Told<'_>| {
            *has_entered |= matches!(told, Told::Entered { .. });
            storing.as_ref().map_or(Vec::new(), |storing| store(storing, told, &own, program))
        };
        let ended = member.take_part(&mut hear);
        if is_hosting || *has_entered {
            // What was given last is on disk before this process says that it is done.
            let last = self.storing.take().map_or(Vec::new(), Storing::finish);
            for line in last.into_iter().map(line_of) {
                self.voice.say(&line);
            }
        }
        ended
    }
}

/// Stores what is to be stored, and says what has been.
fn store(storing: &Storing, told: &Told<'_>, own: &str, program: &Program) -> Vec<Line> {
    match told {
        Told::Stored { version, parts } => storing.put(*version, parts.to_vec()),
        Told::Entered { plan, .. } => {
            let others = plan.roster.iter().filter(|member| member.identity != own);
            storing.entered(others.flat_map(|member| member.addresses.clone()), agreed(program, plan));
        }
        _ => {}
    }
    storing.heard().into_iter().map(line_of).collect()
}

fn line_of(heard: Heard) -> Line {
    match heard {
        Heard::Stored { tick } => Line::Stored { tick },
        Heard::Failed(error) => Line::Notice { text: format!("the run is not stored any more, and goes on without: {error}") },
    }
}
