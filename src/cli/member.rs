//! What `host` and `join` have in common: taking part, saying how it goes, and leaving in good order.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use peercompute::launch::{self, BufferFile, ExecutorOptions, LaunchError, Summary};
use peercompute::node::member::{End, MemberNode, Throttle, Told};
use peercompute::node::{NodeError, parts};
use peercompute::told::{Line, Teller};
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::{AnyExecutor, Choice};
use peercompute_net::driver::MemberSession;
use peercompute_net::membership::{Event, Parts, Version};

use super::{Voice, buffer_file, say, si};

/// Options of whoever takes part.
#[derive(Args)]
pub(crate) struct MemberArgs {
    /// Where to listen; by default a free port of loopback, or of every interface where the run is elsewhere.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// A name for the others; by default the machine's, with the process' number.
    #[arg(long)]
    name: Option<String>,
    /// Threads of the cpu executor; by default all that the machine runs at once.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Compute this part of the time only.
    #[arg(long, value_name = "PART", value_parser = part)]
    throttle: Option<f64>,
    /// Replace what init made of a buffer, as the host does: `.npy`, or `.png` for a 2-D field of f32.
    #[arg(long, value_name = "BUFFER=FILE", value_parser = buffer_file)]
    pub(crate) import: Vec<BufferFile>,
    /// Write a buffer as `.npy` at the end.
    #[arg(long, value_name = "BUFFER=FILE", value_parser = buffer_file)]
    pub(crate) export: Vec<BufferFile>,
    /// Write a scalar field as `.png` at the end.
    #[arg(long, value_name = "BUFFER=FILE", value_parser = buffer_file)]
    pub(crate) image: Vec<BufferFile>,
    /// Run kernels without bounds and loop checks on a GPU: you answer for them.
    #[arg(long)]
    unchecked: bool,
    /// Take orders from standard input, and end with it; for `run --chaos`.
    #[arg(long, hide = true)]
    pub(crate) control: bool,
}

fn part(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|part| (0.001..=1.0).contains(part)).ok_or("a part from 0.001 to 1".into())
}

impl MemberArgs {
    pub(crate) fn name(&self, what: &str) -> String {
        self.name.clone().unwrap_or_else(|| peercompute::world::default_name(what))
    }

    pub(crate) fn open_executor(&self, choice: &Choice) -> Result<AnyExecutor, NodeError> {
        launch::open_executor(choice, ExecutorOptions { threads: self.threads.map(usize::from), unchecked: self.unchecked, is_profiled: false })
    }

    /// The part of the time that this peer computes.
    pub(crate) fn throttle(&self) -> f64 {
        self.throttle.unwrap_or(1.0)
    }

    /// Whether the state of the end is wanted here.
    pub(crate) fn wants_state(&self) -> bool {
        !self.export.is_empty() || !self.image.is_empty()
    }
}

/// One member's place in a run.
pub(crate) struct Member<'a> {
    pub(crate) args: &'a MemberArgs,
    pub(crate) bundle: &'a VerifiedBundle,
    pub(crate) executor: &'a AnyExecutor,
    pub(crate) session: Arc<MemberSession>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) imports: Vec<(usize, Vec<u8>)>,
    /// Where the run ends, if that is known here.
    pub(crate) ticks: Option<u64>,
    pub(crate) voice: Voice,
}

impl Member<'_> {
    /// Takes part to the end. `hear` sees what is told, before it is printed; its lines are printed too.
    pub(crate) fn take_part(self, hear: &mut dyn FnMut(&Told<'_>) -> Vec<Line>) -> Result<(), LaunchError> {
        let throttle = Arc::new(Throttle::default());
        throttle.set(self.args.throttle());
        if self.args.control {
            obey_input(Arc::downgrade(&self.session), throttle.clone());
        }
        let wanted = launch::wanted(self.bundle, &self.args.export, &self.args.image)?;
        let mut speaker = Speaker::new(self.bundle, self.ticks, self.voice.clone(), self.args.control);
        let mut state: Option<(Version, Vec<bytes::Bytes>)> = None;
        let mut tell = |told: Told<'_>| {
            let lines = hear(&told);
            if let Told::Stored { version, parts } = told
                && !wanted.is_empty()
            {
                state = Some((version, parts.to_vec()));
            }
            speaker.tell(&told);
            lines.iter().for_each(|line| speaker.say(line));
        };
        let node = MemberNode::new(self.executor, self.bundle, &self.session, self.parts.clone(), self.imports, &throttle, &mut tell);
        let end = pollster::block_on(node.take_part())?;
        speaker.end();
        let mut outcome = match end {
            End::Finished(outcome) => *outcome,
            End::Left => {
                speaker.say(&Line::Left);
                peercompute::node::Outcome::default()
            }
        };
        if let Some((version, parts)) = &state {
            for buffer in wanted {
                let whole = parts::whole(self.bundle.program(), &self.parts, parts, buffer);
                outcome.gathered.push((buffer, whole.map_err(|cause| NodeError::Parts { cause })?));
            }
            launch::write_results(self.bundle, &outcome, &self.args.export, &self.args.image)?;
            if !self.voice.json {
                for (name, path) in self.args.export.iter().chain(&self.args.image) {
                    say(format!("{name} before tick {} → {}", version.tick, path.display()));
                }
            }
        } else if self.args.wants_state() {
            return Err(LaunchError::NoState);
        }
        if !outcome.state_hash.is_empty() {
            let (tick, epoch) = speaker.last;
            speaker.say(&Line::Done { tick, epoch, summary: Summary::from(&outcome) });
        }
        Ok(())
    }
}

/// Says what a member tells.
struct Speaker {
    teller: Teller,
    bar: ProgressBar,
    elements_per_tick: f64,
    voice: Voice,
    /// How often progress is a line of JSON.
    every: Duration,
    said: Option<Instant>,
    last: (u64, u32),
    /// When and where the rate was taken last.
    mark: (Instant, u64),
}

impl Speaker {
    #[allow(clippy::disallowed_methods, reason = "people are told at a pace")]
    fn new(bundle: &VerifiedBundle, ticks: Option<u64>, voice: Voice, control: bool) -> Speaker {
        // Bars of several runs would overwrite each other.
        let target = if voice.json || voice.of.is_some() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(ticks, target);
        let template = if ticks.is_some() { "{prefix} {wide_bar:.cyan/blue} {pos}/{len} ticks  {msg}" } else { "{prefix} tick {pos}  {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(bundle.program().manifest.name.clone());
        Speaker {
            teller: Teller::default(),
            bar,
            elements_per_tick: bundle.program().elements_per_tick() as f64,
            voice,
            every: Duration::from_millis(if control { 5 } else { 1000 }),
            said: None,
            last: (0, 0),
            mark: (Instant::now(), 0),
        }
    }

    fn tell(&mut self, told: &Told<'_>) {
        for line in self.teller.lines(told) {
            match line {
                Line::Progress { tick, epoch, .. } => self.progress(&line, tick, epoch),
                line => self.say(&line),
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "people are told at a pace")]
    fn progress(&mut self, line: &Line, tick: u64, epoch: u32) {
        self.last = (tick, epoch);
        if self.voice.json {
            if self.said.is_none_or(|said| said.elapsed() >= self.every) {
                self.said = Some(Instant::now());
                self.voice.say(line);
            }
            return;
        }
        self.bar.set_position(tick);
        let (since, from) = (self.mark.0.elapsed(), self.mark.1);
        if since >= Duration::from_millis(500) {
            let rate = self.elements_per_tick * tick.saturating_sub(from) as f64 / since.as_secs_f64();
            let members = self.teller.present().len();
            self.bar.set_message(format!("{}elements/s  {members} member{}", si(rate), if members == 1 { "" } else { "s" }));
            self.mark = (Instant::now(), tick);
        }
    }

    fn say(&self, line: &Line) {
        self.bar.suspend(|| self.voice.say(line));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// The sessions that Ctrl-C leaves, and how often it was asked to. They must not outlive their members: that is when the last
/// frames go out.
static LEAVING: (Mutex<Vec<Weak<MemberSession>>>, AtomicU32) = (Mutex::new(Vec::new()), AtomicU32::new(0));

/// The first Ctrl-C, or polite kill, leaves in good order; the second goes at once. To be said before others are told where this session is.
pub(crate) fn leave_on_signal(session: &Arc<MemberSession>, is_quiet: bool) -> Result<(), LaunchError> {
    let mut all = LEAVING.0.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|session| session.strong_count() > 0);
    all.push(Arc::downgrade(session));
    drop(all);
    let handler = move || {
        if LEAVING.1.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(130);
        }
        if !is_quiet {
            eprintln!("leaving; once more goes at once");
        }
        leave_all();
    };
    match ctrlc::set_handler(handler) {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        Err(cause) => Err(LaunchError::System { action: "listen for Ctrl-C", cause: std::io::Error::other(cause) }),
    }
}

/// Leaves all runs of this process in good order.
pub(super) fn leave_all() {
    let sessions: Vec<_> = LEAVING.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for session in sessions {
        // A congested link may keep it waiting, and a second Ctrl-C must be heard.
        std::thread::spawn(move || session.send(Event::Leave));
    }
}

/// Takes orders: `throttle PART`, `leave`. Ends the process with the input.
fn obey_input(session: Weak<MemberSession>, throttle: Arc<Throttle>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if let Some(part) = line.strip_prefix("throttle ").and_then(|part| part.trim().parse().ok()) {
                throttle.set(part);
            } else if line == "leave"
                && let Some(session) = session.upgrade()
            {
                // One that is over is leaving already.
                let _ = session.send(Event::Leave);
            }
        }
        std::process::exit(3);
    });
}
