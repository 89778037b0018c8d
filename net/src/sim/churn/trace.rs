//! A run as people read it: one line for everything that happens, the latest lines kept.
//!
//! ```text
//!    1.204517 s  place 3      < Received link 4: kind 23, 96 bytes
//!    1.204517 s  place 3      > Enter epoch 5 from tick 40: 4 members, coordinator 1, me 2, 9 parts
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::membership::{EpochPlan, Event, Origin, Output};

/// The latest lines of a run.
#[derive(Debug)]
pub struct Trace {
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    /// Keeps this many lines.
    pub fn new(lines_max: usize) -> Trace {
        Trace { lines: VecDeque::new(), lines_max }
    }

    /// Adds a line.
    pub fn add(&mut self, line: String) {
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// All lines, in order.
    pub fn into_text(self) -> String {
        Vec::from(self.lines).join("\n")
    }
}

/// A line of the trace: when, where, what; nowhere is the whole.
pub(super) fn line(now: Duration, place: Option<u16>, text: &str) -> String {
    let place = place.map_or_else(|| "world".to_owned(), |place| format!("place {place}"));
    format!("{:>12.6} s  {place:<9} {text}", now.as_secs_f64())
}

/// A frame in a few words.
pub fn frame_line(frame: &Bytes) -> String {
    let kind = frame.first().copied().unwrap_or(0);
    let head: String = frame.iter().skip(1).take(24).map(|byte| format!("{byte:02x}")).collect();
    format!("kind {kind}, {} bytes {head}", frame.len())
}

/// An event in one line.
pub fn event_line(event: &Event) -> String {
    match event {
        Event::Opened { link, identity, outgoing } => {
            format!("Opened link {}: {identity}, {}", link.0, if *outgoing { "dialled" } else { "came in" })
        }
        Event::Received { link, frame } => format!("Received link {}: {}", link.0, frame_line(frame)),
        Event::Closed { link, reason } => format!("Closed link {}: {reason}", link.0),
        Event::Entered { epoch, traffic } => format!("Entered epoch {epoch}, {} exchanges", traffic.exchanges.len()),
        Event::Post { epoch, sequence, exchange, payloads } => {
            let to: Vec<u16> = payloads.iter().map(|(to, _)| to.0).collect();
            format!("Post epoch {epoch} sequence {sequence} exchange {exchange} to {to:?}")
        }
        Event::Snapshot { epoch, tick, parts } => format!("Snapshot epoch {epoch} tick {tick}, {} parts", parts.len()),
        Event::Report { epoch, bytes } => format!("Report epoch {epoch}, {} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}

/// An output in one line.
pub fn output_line(output: &Output) -> String {
    match output {
        Output::Send { link, frame } => format!("Send link {}: {}", link.0, frame_line(&frame.content())),
        Output::Prepare { plan, me } => format!("Prepare {}, me {me}", plan_line(plan)),
        Output::Enter { plan, me, parts } => format!("Enter {}, me {me}, {} parts", plan_line(plan), parts.len()),
        Output::Deliver { epoch, sequence, payloads } => {
            let from: Vec<u16> = payloads.iter().map(|(from, _)| from.0).collect();
            format!("Deliver epoch {epoch} sequence {sequence} from {from:?}")
        }
        Output::Stored { version, .. } => format!("Stored epoch {} tick {}", version.epoch, version.tick),
        Output::Notice(notice) => format!("Notice: {notice}"),
        Output::Status(standing) => format!("Status epoch {} tick {}, {} members", standing.epoch, standing.tick, standing.members.len()),
        Output::Finished { plan, .. } => format!("Finished in {}", plan_line(plan)),
        Output::Failed(error) => format!("Failed: {error}"),
        other => format!("{other:?}"),
    }
}

fn plan_line(plan: &EpochPlan) -> String {
    let roster: Vec<String> = plan.roster.iter().map(|member| format!("{}={}", member.id, member.identity)).collect();
    let origin = match plan.origin {
        Origin::Init => "init".to_owned(),
        Origin::Snapshot(version) => format!("snapshot {}/{}", version.epoch, version.tick),
    };
    format!("epoch {} from tick {} ({origin}) [{}]", plan.epoch, plan.tick, roster.join(" "))
}
