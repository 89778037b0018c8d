//! A member's node: computes what an epoch gives it, for as long as the epoch lasts.
//!
//! ```text
//!            Prepare: load on trial ─► Prepared | Declined
//!  ┌───────► Enter: load, write parts (or init, imports; or keep what lies there) ─► Entered
//!  │           every tick below the pace:  params due ─ op ─ op ─ …   exchanges wait for Deliver
//!  │           at due ticks and at the end: read own parts ─► Snapshot; at the end ─► Report
//!  └─ Enter ─┘ whenever it comes, between ticks or in the midst of one: all that was computed is dropped
//! ```
//!
//! An epoch's first tick takes the steps of a run's first tick, which trust no strip, and so on; what they compute is told
//! the true tick. Where an epoch begins with what this member has just computed, and with the same tiles, only its exchanges are laid out anew.
//! Invariants: what a member computes depends on the bundle, the task, the epoch's parts and its tick, never
//! on when others came or went; of an epoch that was abandoned nothing is left but memory to be used again.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use peercompute_buffers::digest::{StateDigest, hex, tile_hash};
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::{Placement, Run};
use peercompute_kernels::program::Op;
use peercompute_kernels::{Program, VerifiedBundle};
use peercompute_net::driver::MemberSession;
use peercompute_net::fill::Spare;
use peercompute_net::membership::{Change, EpochPlan, Event, Keep, Notice, Origin, Output, PartId, Parts, Version};
use peercompute_net::ownership::PeerIndex;
use peercompute_net::runtime::{Instant, give_way, rest};
use serde::{Deserialize, Serialize};

use super::parts::{prepare, read, write};
use super::plan::{ParamChange, PlanError, traffic};
use super::shipping::Shipping;
use super::speed;
use super::{NodeError, Outcome, import};
use crate::state;

/// How often the run is told how far this member is.
const TOLD_EVERY: Duration = Duration::from_millis(2);
/// What the executor may have queued beyond what is known to be done.
const QUEUED_MIN: Duration = Duration::from_millis(5);
const QUEUED_MAX: Duration = Duration::from_millis(20);
const QUEUED_TICKS_MAX: u64 = 4096;
/// How often a member without tiles finds out how fast it would be.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// A throttled member sleeps no shorter than this, and no longer at a time than the other.
const NAP_MIN: Duration = Duration::from_millis(1);
const NAP_MAX: Duration = Duration::from_millis(250);

/// What all nodes of a run are told by its host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedTask {
    /// Parameters that change on the way.
    pub changes: Vec<ParamChange>,
    /// Buffers that an import replaces after init, by number, with the hash of what they are replaced by.
    pub imports: Vec<(usize, String)>,
}

impl SharedTask {
    /// The task of a host that has these imports.
    pub fn new(changes: Vec<ParamChange>, imports: &[(usize, Vec<u8>)]) -> SharedTask {
        SharedTask { changes, imports: imports.iter().map(|(buffer, bytes)| (*buffer, hex(&tile_hash(bytes)))).collect() }
    }

    /// The bytes that travel.
    ///
    /// **Errors:** none that plain values can cause.
    pub fn to_bytes(&self) -> Result<Bytes, PlanError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// Decodes a task and holds it against the program.
    ///
    /// **Errors:** [`PlanError`].
    pub fn from_bytes(bytes: &[u8], program: &Program) -> Result<SharedTask, PlanError> {
        let task: SharedTask = serde_json::from_slice(bytes)?;
        let mut params = program.manifest.params.clone();
        for change in &task.changes {
            program.set_param(&mut params, &change.name, &change.value)?;
        }
        Ok(task)
    }
}

/// What part of the time a member computes; told by another thread.
#[derive(Debug)]
pub struct Throttle(AtomicU32);

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle(AtomicU32::new(Throttle::WHOLE))
    }
}

impl Throttle {
    const WHOLE: u32 = 1 << 16;

    /// From now on this part of the time, 1 at most.
    pub fn set(&self, part: f64) {
        self.0.store((part * f64::from(Throttle::WHOLE)).clamp(1.0, f64::from(Throttle::WHOLE)) as u32, Ordering::Relaxed);
    }

    /// What part of the time it is.
    fn part(&self) -> f64 {
        f64::from(self.0.load(Ordering::Relaxed)) / f64::from(Throttle::WHOLE)
    }

    /// Of how much work how much sleep follows.
    fn sleep_per_work(&self) -> f64 {
        1.0 / self.part() - 1.0
    }
}

/// What a node tells while it takes part.
#[derive(Debug)]
pub enum Told<'a> {
    /// An epoch begins here.
    Entered {
        /// The epoch.
        plan: &'a EpochPlan,
        /// This member's place in it.
        me: PeerIndex,
    },
    /// How far this member is.
    Progress {
        /// The next tick.
        tick: u64,
        /// The epoch.
        epoch: u32,
        /// Since it first entered one.
        seconds: f64,
        /// What it shipped, frames counted in.
        shipped_bytes: u64,
        /// What it sent beside that: copies of snapshots, tiles that move, agreement, pings. A tenth of a second old at most.
        upkeep_bytes: u64,
    },
    /// Something to know.
    Notice(&'a Notice),
    /// A complete snapshot, for a member that keeps them.
    Stored {
        /// Which.
        version: Version,
        /// Every part, in order, the tables last.
        parts: &'a [Bytes],
    },
}

/// A wish to see some of the state, as it is between two ticks.
pub enum Look {
    /// A part's bytes.
    Part {
        /// Which.
        part: PartId,
        /// Where they go; `None` if the part is not this member's.
        answer: flume::Sender<Option<Bytes>>,
    },
    /// Whatever can be done with the run on the spot, without changing it.
    Run(Box<dyn FnOnce(&mut AnyRun<'_>)>),
}

/// How a member's part ended.
#[derive(Debug)]
pub enum End {
    /// The run reached its end.
    Finished(Box<Outcome>),
    /// This member left.
    Left,
}

/// A member's last words to all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    digests: Vec<[u64; 2]>,
    seconds: f64,
    shipped_bytes: u64,
    payload_bytes: u64,
    memory_bytes: u64,
    adapter: String,
}

/// One member's node.
pub struct MemberNode<'a> {
    executor: &'a AnyExecutor,
    bundle: &'a VerifiedBundle,
    session: &'a MemberSession,
    parts: Arc<Parts>,
    imports: Vec<(usize, Vec<u8>)>,
    throttle: &'a Throttle,
    tell: &'a mut dyn FnMut(Told<'_>),
    shipping: Shipping,
    /// What snapshots that nobody keeps any more lay in.
    spare: Spare,
    /// When it first entered an epoch.
    begun: Option<Instant>,
    /// When it last tried how fast it would be.
    tried: Option<Instant>,
    looks: Option<flume::Receiver<Look>>,
}

/// An epoch to take up.
struct Start {
    plan: Arc<EpochPlan>,
    me: PeerIndex,
    parts: Vec<(PartId, Bytes)>,
}

/// What is left of an epoch: its run, and the snapshot that it is as it was for, if there is one.
struct Kept<'a> {
    run: AnyRun<'a>,
    version: Option<Version>,
}

/// What ends an epoch here.
enum Turn {
    Enter(Start),
    Prepare(Arc<EpochPlan>, PeerIndex),
    Over(End),
}

/// What a node that waits is woken by.
enum Next {
    Output(Output),
    Look(Look),
}

/// An epoch under way.
struct Epoch<'a> {
    plan: Arc<EpochPlan>,
    me: PeerIndex,
    run: AnyRun<'a>,
    params: Params<'a>,
    /// The next tick.
    tick: u64,
    /// The first tick that may not be computed yet.
    until: u64,
    /// Ticks before which a snapshot is due.
    snapshots: VecDeque<u64>,
    snapshot: Option<u64>,
    /// Computing, and throttled; waiting for others is not in it.
    busy: Duration,
    told: Instant,
    told_tick: u64,
    /// Ticks that the executor may have queued, and how many it may.
    queued: u64,
    queued_max: u64,
    /// Something of the next tick is computed.
    is_midway: bool,
    is_reported: bool,
    /// Computes nothing, and would take something.
    is_idle: bool,
    /// Computes what others own.
    is_shadow: bool,
}

/// The parameters of a run as they change from tick to tick.
struct Params<'a> {
    program: &'a Program,
    bytes: Vec<u8>,
    due: VecDeque<ParamChange>,
}

impl<'a> Params<'a> {
    fn new(program: &'a Program, mut changes: Vec<ParamChange>) -> Params<'a> {
        changes.sort_by_key(|change| change.tick);
        Params { program, bytes: program.manifest.params.clone(), due: changes.into() }
    }

    /// Makes what is due at this tick or was before hold for what is computed from now on.
    fn advance(&mut self, run: &mut AnyRun<'_>, tick: u64) -> Result<(), NodeError> {
        while let Some(change) = self.due.pop_front_if(|change| change.tick <= tick) {
            self.program.set_param(&mut self.bytes, &change.name, &change.value)?;
            run.set_params(&self.bytes);
        }
        Ok(())
    }
}

impl<'a> MemberNode<'a> {
    /// A node for a member whose session has just started. `parts` are those of the session's configuration.
    pub fn new(
        executor: &'a AnyExecutor,
        bundle: &'a VerifiedBundle,
        session: &'a MemberSession,
        parts: Arc<Parts>,
        imports: Vec<(usize, Vec<u8>)>,
        throttle: &'a Throttle,
        tell: &'a mut dyn FnMut(Told<'_>),
    ) -> MemberNode<'a> {
        MemberNode {
            executor,
            bundle,
            session,
            parts,
            imports,
            throttle,
            tell,
            shipping: Shipping::default(),
            spare: Spare::default(),
            begun: None,
            tried: None,
            looks: None,
        }
    }

    /// The same, and answers those who want to look: between ticks, and as long as it computes.
    pub fn shown(mut self, looks: flume::Receiver<Look>) -> MemberNode<'a> {
        self.looks = Some(looks);
        self
    }

    /// Takes part until the run is over or this member has left.
    ///
    /// **Errors:** [`NodeError`]; the others have been told.
    pub async fn take_part(mut self) -> Result<End, NodeError> {
        let mut turn = self.wait(None).await;
        let mut kept = None;
        loop {
            turn = match turn {
                Ok(Turn::Over(end)) => return Ok(end),
                Ok(Turn::Enter(start)) => self.epoch(start, &mut kept).await,
                Ok(Turn::Prepare(plan, me)) => {
                    kept = None;
                    self.prepare(&plan, me).await;
                    self.wait(None).await
                }
                Err(error) => return Err(self.stop(error).await),
            }
        }
    }

    /// Says why this node cannot go on.
    async fn stop(&self, error: NodeError) -> NodeError {
        if matches!(error, NodeError::Member(_)) {
            return error;
        }
        if self.session.send_async(Event::Stop { text: error.to_string() }).await.is_ok() {
            while self.session.next_async().await.is_ok() {}
        }
        error
    }

    /// Where the run is over, nothing is sent: the last output says how it ended.
    async fn send(&self, event: Event) {
        let _ = self.session.send_async(event).await;
    }

    /// Waits until something ends what is done here now.
    async fn wait(&mut self, mut epoch: Option<&mut Epoch<'a>>) -> Result<Turn, NodeError> {
        loop {
            let output = self.session.next_async().await?;
            if let Some(turn) = self.hear(output, epoch.as_deref_mut())? {
                return Ok(turn);
            }
        }
    }

    /// Takes in what is not the answer to an exchange.
    fn hear(&mut self, output: Output, epoch: Option<&mut Epoch<'a>>) -> Result<Option<Turn>, NodeError> {
        match output {
            Output::Prepare { plan, me } => return Ok(Some(Turn::Prepare(plan, me))),
            Output::Enter { plan, me, parts } => return Ok(Some(Turn::Enter(Start { plan, me, parts }))),
            Output::Finished { plan, reports } => return self.outcome(&plan, &reports).map(|outcome| Some(Turn::Over(End::Finished(outcome)))),
            Output::Left => return Ok(Some(Turn::Over(End::Left))),
            Output::Failed(error) => return Err(error.into()),
            Output::Pace { epoch: number, until, snapshots } => {
                if let Some(epoch) = epoch.filter(|epoch| epoch.plan.epoch == number) {
                    (epoch.until, epoch.snapshots) = (until, snapshots.into());
                }
            }
            Output::Notice(notice) => (self.tell)(Told::Notice(&notice)),
            Output::Stored { version, parts } => (self.tell)(Told::Stored { version, parts: &parts }),
            // What was due in an epoch that is no more, and what is nobody's business here.
            _ => {}
        }
        Ok(None)
    }

    /// Finds out whether this member could do what a draft gives it.
    async fn prepare(&self, plan: &EpochPlan, me: PeerIndex) {
        let program = self.bundle.program();
        let could = async {
            SharedTask::from_bytes(&plan.task, program)?;
            let placement = placement(program, &self.parts, plan, me);
            traffic(&self.executor.layout(program, &placement)?)?;
            // Memory is there once it has been had; and the kernels are compiled by the time they are needed.
            self.executor.load(self.bundle, &placement).await?;
            Ok::<_, NodeError>(())
        };
        let answer = match could.await {
            Ok(()) => Event::Prepared,
            Err(error) => Event::Declined { text: error.to_string() },
        };
        self.send(answer).await;
    }

    /// Takes an epoch up and computes until something ends it.
    #[allow(clippy::disallowed_methods, reason = "a member tells how long it computed; nothing that it computes depends on it")]
    async fn epoch(&mut self, start: Start, kept: &mut Option<Kept<'a>>) -> Result<Turn, NodeError> {
        let Start { plan, me, parts } = start;
        let program = self.bundle.program();
        let task = SharedTask::from_bytes(&plan.task, program)?;
        let run = self.begin(&plan, me, &parts, kept.take()).await?;
        drop(parts);
        self.shipping.begin(run.layout());
        let event = Event::Entered { epoch: plan.epoch, traffic: traffic(run.layout())? };
        (self.tell)(Told::Entered { plan: &plan, me });
        let now = Instant::now();
        self.begun.get_or_insert(now);
        let mut epoch = Epoch {
            me,
            run,
            params: Params::new(program, [task.changes, agreed(program, &plan)].concat()),
            tick: plan.tick,
            until: plan.tick,
            snapshots: VecDeque::new(),
            snapshot: None,
            busy: Duration::ZERO,
            told: now,
            told_tick: plan.tick,
            queued: 0,
            queued_max: 1,
            is_midway: false,
            is_reported: false,
            is_shadow: plan.is_shadow(me),
            is_idle: plan.computed(me).next().is_none() && plan.member(me).is_some_and(|member| member.memory > 0),
            plan,
        };
        self.send(event).await;
        prepare(&self.parts, epoch.plan.computed(me), &self.spare);
        let turn = self.compute(&mut epoch, &task.imports).await?;
        // The last member takes the state with it: where it has a store, all of it, and not only the newest snapshot.
        let keeps = epoch.plan.member(me).is_some_and(|member| member.keep == Keep::All);
        if matches!(turn, Turn::Over(End::Left)) && epoch.plan.roster.len() == 1 && keeps {
            let parts = read(self.bundle.program(), &self.parts, epoch.plan.owned(me), &mut epoch.run, &self.spare).await?;
            let parts: Vec<Bytes> = parts.into_iter().map(|(_, content)| content).collect();
            (self.tell)(Told::Stored { version: Version { epoch: epoch.plan.epoch, tick: epoch.tick }, parts: &parts });
        }
        let is_as_snapshot = epoch.snapshot == Some(epoch.tick) && !epoch.is_midway;
        let version = Version { epoch: epoch.plan.epoch, tick: epoch.tick };
        *kept = Some(Kept { version: is_as_snapshot.then_some(version), run: epoch.run });
        Ok(turn)
    }

    /// A run with an epoch's parts: the one before, where it has them already.
    async fn begin(&self, plan: &EpochPlan, me: PeerIndex, parts: &[(PartId, Bytes)], kept: Option<Kept<'a>>) -> Result<AnyRun<'a>, NodeError> {
        let program = self.bundle.program();
        let placement = placement(program, &self.parts, plan, me);
        let mut run = match kept {
            Some(Kept { mut run, version }) => {
                if version.is_some() && plan.version() == version && run.reship(&placement).await? {
                    return Ok(run);
                }
                self.executor.reload(run, self.bundle, &placement).await?
            }
            None => self.executor.load(self.bundle, &placement).await?,
        };
        write(program, &self.parts, &mut run, parts).map_err(|cause| NodeError::Parts { cause })?;
        Ok(run)
    }

    /// Computes until something ends the epoch.
    async fn compute(&mut self, epoch: &mut Epoch<'a>, imports: &[(usize, String)]) -> Result<Turn, NodeError> {
        if epoch.plan.origin == Origin::Init
            && let Some(turn) = self.init(epoch, imports).await?
        {
            return Ok(turn);
        }
        loop {
            while let Some(output) = self.session.try_next()? {
                if let Some(turn) = self.hear(output, Some(epoch))? {
                    return Ok(turn);
                }
            }
            while let Some(look) = self.looks.as_ref().and_then(|looks| looks.try_recv().ok()) {
                self.show(epoch, look).await?;
            }
            if epoch.snapshots.pop_front_if(|due| *due <= epoch.tick).is_some() {
                self.snapshot(epoch).await?;
                continue;
            }
            if epoch.tick >= epoch.plan.end && !epoch.is_reported {
                self.snapshot(epoch).await?;
                self.report(epoch).await?;
            }
            if epoch.is_reported || epoch.tick >= epoch.until {
                self.tick_told(epoch).await?;
                self.try_out(epoch).await?;
                match self.next().await? {
                    Next::Look(look) => self.show(epoch, look).await?,
                    Next::Output(output) => {
                        if let Some(turn) = self.hear(output, Some(epoch))? {
                            return Ok(turn);
                        }
                    }
                }
                continue;
            }
            if let Some(turn) = self.tick(epoch).await? {
                return Ok(turn);
            }
        }
    }

    /// What comes next: somebody who wants to look, or an output.
    async fn next(&self) -> Result<Next, NodeError> {
        let output = pin!(self.session.next_async());
        let look = pin!(async {
            match &self.looks {
                Some(looks) => looks.recv_async().await.ok(),
                None => None,
            }
        });
        match select(output, look).await {
            Either::Left((output, _)) => Ok(Next::Output(output?)),
            Either::Right((Some(look), _)) => Ok(Next::Look(look)),
            // Nobody looks any more.
            Either::Right((None, output)) => Ok(Next::Output(output.await?)),
        }
    }

    /// Shows what is asked for: a part, if it is owned here.
    async fn show(&self, epoch: &mut Epoch<'a>, look: Look) -> Result<(), NodeError> {
        match look {
            Look::Run(look) => look(&mut epoch.run),
            Look::Part { part, answer } => {
                let owned = epoch.plan.owned(epoch.me).find(|owned| *owned == part);
                let parts = read(self.bundle.program(), &self.parts, owned.into_iter(), &mut epoch.run, &Spare::default()).await?;
                // The tables, everybody's, come along. Whoever asked may have gone.
                let _ = answer.try_send(parts.into_iter().find(|(other, _)| *other == part).map(|(_, bytes)| bytes));
            }
        }
        Ok(())
    }

    /// Init and imports.
    async fn init(&mut self, epoch: &mut Epoch<'a>, imports: &[(usize, String)]) -> Result<Option<Turn>, NodeError> {
        let own = SharedTask::new(Vec::new(), &self.imports).imports;
        if own != imports {
            return Err(NodeError::Parts { cause: "the run begins with imports that this member does not have".into() });
        }
        // What holds from the start holds for init too.
        epoch.params.advance(&mut epoch.run, 0)?;
        let program = self.bundle.program();
        if let Some(turn) = self.steps(epoch, &program.init, 0).await? {
            return Ok(Some(turn));
        }
        for (buffer, bytes) in &self.imports {
            import(program, &mut epoch.run, *buffer, bytes);
        }
        epoch.run.finish().await?;
        Ok(None)
    }

    /// One tick.
    async fn tick(&mut self, epoch: &mut Epoch<'a>) -> Result<Option<Turn>, NodeError> {
        let program = self.bundle.program();
        let before = epoch.busy;
        epoch.params.advance(&mut epoch.run, epoch.tick)?;
        let steps = program.tick(epoch.tick - epoch.plan.tick);
        epoch.is_midway = true;
        if let Some(turn) = self.steps(epoch, steps, epoch.tick).await? {
            return Ok(Some(turn));
        }
        epoch.is_midway = false;
        epoch.tick += 1;
        epoch.queued += 1;
        if epoch.queued >= epoch.queued_max || epoch.told.elapsed() >= TOLD_EVERY {
            self.tick_told(epoch).await?;
        }
        self.nap(epoch, before).await;
        Ok(None)
    }

    /// Sleeps as a throttled member does after work, which counts as work.
    #[allow(clippy::disallowed_methods, reason = "a slow machine is imitated")]
    async fn nap(&self, epoch: &mut Epoch<'a>, before: Duration) {
        let per_work = self.throttle.sleep_per_work();
        if per_work <= 0.0 {
            return;
        }
        let mut owed = (epoch.busy - before).mul_f64(per_work);
        while owed >= NAP_MIN {
            let nap = owed.min(NAP_MAX);
            rest(nap).await;
            epoch.busy += nap;
            owed -= nap;
        }
        // Too short to sleep: a clock turns it into busy waiting.
        let begun = Instant::now();
        while begun.elapsed() < owed {
            std::thread::yield_now();
        }
        epoch.busy += owed;
    }

    /// Runs steps; what ends the epoch meanwhile, if something does.
    #[allow(clippy::disallowed_methods, reason = "a member tells how long it computed; nothing that it computes depends on it")]
    async fn steps(&mut self, epoch: &mut Epoch<'a>, steps: &[Op], tick: u64) -> Result<Option<Turn>, NodeError> {
        let mut resumed = Instant::now();
        for &step in steps {
            match step {
                Op::Pass(pass) => epoch.run.pass(pass, tick).await?,
                Op::Exchange(exchange) => {
                    epoch.run.pack(exchange)?;
                    if epoch.plan.roster.len() > 1 {
                        let payloads = self.shipping.take_out(&mut epoch.run, exchange).await?;
                        epoch.busy += resumed.elapsed();
                        let (number, sequence) = (epoch.plan.epoch, self.shipping.sequence);
                        self.send(Event::Post { epoch: number, sequence, exchange: exchange as u16, payloads }).await;
                        let payloads = loop {
                            match self.session.next_async().await? {
                                Output::Deliver { epoch, sequence: delivered, payloads } if (epoch, delivered) == (number, sequence) => {
                                    break payloads;
                                }
                                other => {
                                    if let Some(turn) = self.hear(other, Some(epoch))? {
                                        return Ok(Some(turn));
                                    }
                                }
                            }
                        };
                        resumed = Instant::now();
                        self.shipping.put_in(&mut epoch.run, exchange, payloads);
                    }
                    epoch.run.unpack(exchange).await?;
                }
            }
        }
        epoch.busy += resumed.elapsed();
        Ok(None)
    }

    /// Waits for what is queued and says how far this member is, unless that is known.
    #[allow(clippy::disallowed_methods, reason = "a member tells how long it computed; nothing that it computes depends on it")]
    async fn tick_told(&mut self, epoch: &mut Epoch<'a>) -> Result<(), NodeError> {
        if epoch.told_tick == epoch.tick {
            return Ok(());
        }
        let begun = Instant::now();
        epoch.run.finish().await?;
        let now = Instant::now();
        epoch.busy += now - begun;
        // As much is queued as takes some milliseconds: less would idle the device, more would promise what is not done.
        let since = now - epoch.told;
        if since < QUEUED_MIN && epoch.queued >= epoch.queued_max {
            epoch.queued_max = (epoch.queued_max * 2).min(QUEUED_TICKS_MAX);
        } else if since > QUEUED_MAX {
            epoch.queued_max = (epoch.queued_max / 2).max(1);
        }
        (epoch.told, epoch.told_tick, epoch.queued) = (now, epoch.tick, 0);
        self.send(Event::Ticked { epoch: epoch.plan.epoch, tick: epoch.tick, busy: epoch.busy }).await;
        let seconds = self.begun.map_or(0.0, |begun| (now - begun).as_secs_f64());
        let (shipped_bytes, upkeep_bytes) = (self.shipping.shipped_bytes, self.session.link_totals().upkeep_out);
        (self.tell)(Told::Progress { tick: epoch.tick, epoch: epoch.plan.epoch, seconds, shipped_bytes, upkeep_bytes });
        give_way().await;
        Ok(())
    }

    /// Says how fast this member would be, if it owns nothing: nobody sees it compute, and it may be well again.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn try_out(&mut self, epoch: &Epoch<'a>) -> Result<(), NodeError> {
        if !epoch.is_idle || epoch.is_reported || self.tried.is_some_and(|tried| tried.elapsed() < TRY_EVERY) {
            return Ok(());
        }
        self.tried = Some(Instant::now());
        let points_per_s = speed::try_out(self.executor, self.bundle).await? * self.throttle.part();
        self.send(Event::Measured { points_per_s }).await;
        Ok(())
    }

    /// Hands over the own parts as they are before the next tick.
    async fn snapshot(&mut self, epoch: &mut Epoch<'a>) -> Result<(), NodeError> {
        self.tick_told(epoch).await?;
        if epoch.snapshot.replace(epoch.tick) == Some(epoch.tick) {
            return Ok(());
        }
        let parts = read(self.bundle.program(), &self.parts, epoch.plan.computed(epoch.me), &mut epoch.run, &self.spare).await?;
        self.send(Event::Snapshot { epoch: epoch.plan.epoch, tick: epoch.tick, parts }).await;
        if !epoch.plan.shadows.is_empty() {
            // Another is due when they take over, and everybody waits for it.
            prepare(&self.parts, epoch.plan.computed(epoch.me), &self.spare);
        }
        Ok(())
    }

    /// Says this member's last words.
    async fn report(&mut self, epoch: &mut Epoch<'a>) -> Result<(), NodeError> {
        let program = self.bundle.program();
        let mut digests = state::digests(program, &mut epoch.run).await?;
        if epoch.is_shadow {
            // Its owners count its tiles.
            let fields = digests.iter_mut().enumerate().filter(|(buffer, _)| program.grid_of(*buffer).is_some());
            fields.for_each(|(_, digest)| *digest = StateDigest::default());
        }
        let words = Words {
            digests: digests.iter().map(|digest| digest.0).collect(),
            seconds: self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64()),
            shipped_bytes: self.shipping.shipped_bytes,
            payload_bytes: self.shipping.payload_bytes,
            memory_bytes: epoch.run.memory_bytes(),
            adapter: self.executor.info().adapter.clone(),
        };
        let bytes = serde_json::to_vec(&words).map_err(PlanError::from)?.into();
        epoch.is_reported = true;
        self.send(Event::Report { epoch: epoch.plan.epoch, bytes }).await;
        Ok(())
    }

    /// What the run came to, from everybody's last words.
    fn outcome(&self, plan: &EpochPlan, reports: &[Bytes]) -> Result<Box<Outcome>, NodeError> {
        let program = self.bundle.program();
        let mut digests = vec![StateDigest::default(); program.elements.len()];
        let mut outcome = Outcome { executor: self.executor.info().executor.into(), ..Outcome::default() };
        for (index, bytes) in reports.iter().enumerate() {
            let peer = PeerIndex(index as u16);
            let nonsense = |cause: String| NodeError::Report { peer, cause };
            let said: Words = serde_json::from_slice(bytes).map_err(|error| nonsense(error.to_string()))?;
            if said.digests.len() != digests.len() {
                return Err(nonsense("its digests are not one for each buffer".into()));
            }
            for (buffer, digest) in said.digests.into_iter().map(StateDigest).enumerate() {
                if program.grid_of(buffer).is_some() || index == 0 {
                    digests[buffer].add(digest);
                } else if digests[buffer] != digest {
                    return Err(NodeError::PeersDisagree { peer, buffer: program.manifest.buffers[buffer].name.clone() });
                }
            }
            outcome.seconds = outcome.seconds.max(said.seconds);
            outcome.shipped_bytes += said.shipped_bytes;
            outcome.payload_bytes += said.payload_bytes;
            outcome.memory_bytes += said.memory_bytes;
            outcome.adapters.push(said.adapter);
        }
        if reports.len() != plan.roster.len() {
            return Err(NodeError::Parts { cause: format!("{} of {} members reported", reports.len(), plan.roster.len()) });
        }
        outcome.state_hash = state::hash(program, &digests);
        Ok(Box::new(outcome))
    }
}

/// The parameters as they are before a tick of an epoch: the declared ones, and what has been changed since.
///
/// **Errors:** the plan's task is none of this program's.
pub fn params_at(program: &Program, plan: &EpochPlan, tick: u64) -> Result<Vec<u8>, NodeError> {
    let task = SharedTask::from_bytes(&plan.task, program)?;
    let mut params = program.manifest.params.clone();
    let mut changes = [task.changes, agreed(program, plan)].concat();
    changes.sort_by_key(|change| change.tick);
    for change in changes.iter().filter(|change| change.tick <= tick) {
        program.set_param(&mut params, &change.name, &change.value)?;
    }
    Ok(params)
}

/// What members have changed while the run went on. What is no value of a parameter is passed over, by all members alike.
pub fn agreed(program: &Program, plan: &EpochPlan) -> Vec<ParamChange> {
    let is_fine = |change: &&Change| program.set_param(&mut program.manifest.params.clone(), &change.key, &change.value).is_ok();
    let change = |change: &Change| ParamChange { tick: change.tick, name: change.key.clone(), value: change.value.clone() };
    plan.changes.iter().filter(is_fine).map(change).collect()
}

/// The placement of one member.
fn placement(program: &Program, parts: &Parts, plan: &EpochPlan, me: PeerIndex) -> Placement {
    let by_grid = |places: &[PeerIndex]| -> Vec<Vec<usize>> {
        let mut tiles: Vec<Vec<usize>> = program.manifest.grids.iter().map(|named| vec![0; named.grid.tile_count() as usize]).collect();
        for (part, place) in (0..).map(PartId).zip(places) {
            if let Some((grid, tile)) = parts.tile_of(part) {
                tiles[grid][tile.0 as usize] = place.at();
            }
        }
        tiles
    };
    let shadows = if plan.shadows.is_empty() { Vec::new() } else { by_grid(&plan.shadows) };
    Placement { shadows, ..Placement::new(me.at(), plan.roster.len(), by_grid(&plan.owners)) }
}
