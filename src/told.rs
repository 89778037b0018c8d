//! What a member of a run tells its user, line by line: the same for people and, as JSON, for programs.
//!
//! Invariant: whoever reads the lines of any member knows who was in the run when, and how it ended.

use peercompute_net::membership::{EpochPlan, MemberId, MemberInfo, Notice, Standing};
use serde::{Deserialize, Serialize};

use crate::launch::Summary;
use crate::node::member::Told;

/// Somebody in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// The number that the run gave.
    pub id: u32,
    /// The name for people.
    pub name: String,
    /// Tiles that it owns.
    pub tiles: u32,
    /// Tiles that it catches up on in the shadow of their owners, and owns next.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shadows: u32,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    /// It can be joined.
    Listening {
        /// With this.
        link: String,
    },
    /// Somebody else has become a member.
    Joined {
        /// The number.
        id: u32,
        /// The name.
        name: String,
    },
    /// Somebody is a member no more.
    Gone {
        /// The number.
        id: u32,
        /// The name.
        name: String,
    },
    /// A member is suspected, and will be left out.
    Lost {
        /// The number.
        id: u32,
        /// The name.
        name: String,
        /// What it did or failed to do.
        reason: String,
    },
    /// An epoch begins here.
    Epoch {
        /// Its number.
        epoch: u32,
        /// Its first tick.
        tick: u64,
        /// Ticks beyond that one that this member had computed, and computes again.
        #[serde(default, skip_serializing_if = "is_zero")]
        replayed: u64,
        /// This member's number.
        me: u32,
        /// Who is in it, in order; the first coordinates.
        members: Vec<Present>,
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
        #[serde(default)]
        upkeep_bytes: u64,
    },
    /// A snapshot is in the store.
    Stored {
        /// The tick before which it was taken.
        tick: u64,
    },
    /// Something else to know.
    Notice {
        /// What.
        text: String,
    },
    /// The run has reached its end.
    Done {
        /// The tick.
        tick: u64,
        /// The last epoch.
        epoch: u32,
        /// What it came to.
        #[serde(flatten)]
        summary: Summary,
    },
    /// This member has left in good order.
    Left,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Listening { link } => write!(f, "{link}"),
            Line::Joined { id, name } => write!(f, "{name} joined as member {id}"),
            Line::Gone { id, name } => write!(f, "{name} (member {id}) is gone"),
            Line::Lost { id, name, reason } => write!(f, "{name} (member {id}) {reason}"),
            Line::Epoch { epoch, tick, replayed, me, members } => {
                write!(f, "epoch {epoch} from tick {tick}")?;
                if *replayed > 0 {
                    write!(f, ", {replayed} again")?;
                }
                write!(f, ":")?;
                for (place, member) in members.iter().enumerate() {
                    let own = if member.id == *me { " (here)" } else { "" };
                    write!(f, "{} {}{own} {} tile{}", if place > 0 { "," } else { "" }, member.name, member.tiles, plural(member.tiles))?;
                    if member.shadows > 0 {
                        write!(f, " and {} to come", member.shadows)?;
                    }
                }
                Ok(())
            }
            Line::Progress { tick, .. } => write!(f, "tick {tick}"),
            Line::Stored { tick } => write!(f, "stored the state before tick {tick}"),
            Line::Notice { text } => write!(f, "{text}"),
            Line::Done { tick, epoch, summary } => {
                write!(f, "done: tick {tick} in epoch {epoch}, {:.2} s\nstate hash {}", summary.seconds, summary.state_hash)
            }
            Line::Left => write!(f, "left"),
        }
    }
}

fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Makes lines of what a node tells; knows who was there before.
#[derive(Debug, Default)]
pub struct Teller {
    present: Vec<Present>,
    me: u32,
    /// Of the newest epoch decided.
    replayed: (u32, u64),
}

impl Teller {
    /// Who is in the epoch that this member is in.
    pub fn present(&self) -> &[Present] {
        &self.present
    }

    /// The lines of what was told; stored snapshots make none before they are stored.
    pub fn lines(&mut self, told: &Told<'_>) -> Vec<Line> {
        match told {
            Told::Entered { plan, me } => self.entered(plan, plan.member(*me).map_or(MemberId(0), |member| member.id)),
            Told::Progress { tick, epoch, seconds, shipped_bytes, upkeep_bytes } => {
                let (shipped_bytes, upkeep_bytes) = (*shipped_bytes, *upkeep_bytes);
                vec![Line::Progress { tick: *tick, epoch: *epoch, seconds: *seconds, shipped_bytes, upkeep_bytes }]
            }
            Told::Notice(Notice::Lost { id, name, reason }) => vec![Line::Lost { id: id.0, name: name.clone(), reason: reason.clone() }],
            // Said once it is entered.
            Told::Notice(Notice::Epoch { epoch, replayed, .. }) => {
                self.replayed = (*epoch, *replayed);
                Vec::new()
            }
            Told::Notice(notice) => vec![Line::Notice { text: notice.to_string() }],
            Told::Stored { .. } => Vec::new(),
        }
    }

    fn entered(&mut self, plan: &EpochPlan, me: MemberId) -> Vec<Line> {
        // Who owns nothing shadows something.
        let mut tiles = vec![(0, 0); plan.roster.len()];
        plan.owners.iter().for_each(|owner| tiles[owner.at()].0 += 1);
        plan.shadows.iter().for_each(|shadow| tiles[shadow.at()].1 += 1);
        let present = |(member, (tiles, shadows)): (&MemberInfo, (u32, u32))| Present {
            id: member.id.0,
            name: member.name.clone(),
            tiles,
            shadows: if tiles == 0 { shadows } else { 0 },
        };
        let present: Vec<Present> = plan.roster.iter().zip(tiles).map(present).collect();
        let missing = |from: &[Present], of: &[Present]| -> Vec<Present> {
            of.iter().filter(|member| from.iter().all(|other| other.id != member.id)).cloned().collect()
        };
        let mut lines = Vec::new();
        // One that was left out hears of nobody's coming and going while it was away.
        if self.me == me.0 {
            lines.extend(missing(&self.present, &present).into_iter().map(|Present { id, name, .. }| Line::Joined { id, name }));
            lines.extend(missing(&present, &self.present).into_iter().map(|Present { id, name, .. }| Line::Gone { id, name }));
        }
        (self.present, self.me) = (present.clone(), me.0);
        let (epoch, replayed) = self.replayed;
        let replayed = if epoch == plan.epoch { replayed } else { 0 };
        lines.push(Line::Epoch { epoch: plan.epoch, tick: plan.tick, replayed, me: me.0, members: present });
        lines
    }
}

/// How a run stands, as `status` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The workload.
    pub workload: String,
    /// The epoch.
    pub epoch: u32,
    /// The tick that all have completed.
    pub tick: u64,
    /// Where the run ends, if it does.
    pub end: Option<u64>,
    /// The newest complete snapshot's tick, where there is one.
    pub snapshot: Option<u64>,
    /// By place in the roster; the first coordinates.
    pub members: Vec<MemberReport>,
}

/// How one member stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberReport {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Tiles that it owns.
    pub tiles: u32,
    /// While it computes.
    pub points_per_s: f64,
    /// The next tick that it computes.
    pub tick: u64,
    /// Between the coordinator and it.
    pub round_trip_ms: f64,
    /// What the coordinator has received from it.
    pub bytes_in: u64,
    /// What the coordinator has sent to it.
    pub bytes_out: u64,
}

impl Report {
    /// A standing of a run of this workload.
    pub fn new(workload: &str, standing: &Standing) -> Report {
        let member = |member: &peercompute_net::membership::MemberStatus| MemberReport {
            id: member.id.0,
            name: member.name.clone(),
            tiles: member.tiles,
            points_per_s: member.speed,
            tick: member.tick,
            round_trip_ms: f64::from(member.round_trip_us) / 1e3,
            bytes_in: member.bytes_in,
            bytes_out: member.bytes_out,
        };
        Report {
            workload: workload.to_owned(),
            epoch: standing.epoch,
            tick: standing.tick,
            end: (standing.end != u64::MAX).then_some(standing.end),
            snapshot: standing.snapshot,
            members: standing.members.iter().map(member).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peercompute_net::membership::{Keep, Origin};
    use peercompute_net::ownership::PeerIndex;

    fn plan(epoch: u32, ids: &[u32], owners: &[u16]) -> EpochPlan {
        let member = |id: &u32| MemberInfo {
            id: MemberId(*id),
            identity: id.to_string(),
            name: ["host", "ann", "bob"][*id as usize - 1].into(),
            addresses: Vec::new(),
            speed: 0.0,
            memory: 0,
            keep: Keep::Share,
            seeds: true,
        };
        EpochPlan {
            epoch,
            run: [0; 16],
            tick: 10 * u64::from(epoch),
            end: 100,
            origin: Origin::Init,
            replicas: 1,
            next_member: MemberId(4),
            roster: ids.iter().map(member).collect(),
            leaving: Vec::new(),
            owners: owners.iter().map(|owner| PeerIndex(*owner)).collect(),
            shadows: Vec::new(),
            sources: Vec::new(),
            hashes: Vec::new(),
            is_paused: false,
            changes: Vec::new(),
            task: Default::default(),
        }
    }

    #[test]
    fn who_comes_and_goes_is_told_once_and_nobody_that_came_while_one_was_away() {
        let mut teller = Teller::default();
        let mut check = |plan: &EpochPlan, me: u16, expected: &[&str]| {
            let lines = teller.lines(&Told::Entered { plan, me: PeerIndex(me) });
            assert_eq!(lines.iter().map(Line::to_string).collect::<Vec<_>>(), expected);
            // What a program reads is what was said.
            for line in lines {
                assert_eq!(serde_json::from_str::<Line>(&serde_json::to_string(&line).unwrap()).unwrap(), line);
            }
        };
        check(&plan(1, &[1], &[0, 0, 0]), 0, &["epoch 1 from tick 10: host (here) 3 tiles"]);
        let shadowed = EpochPlan { shadows: [0, 1, 0].map(PeerIndex).to_vec(), ..plan(1, &[1, 2], &[0, 0, 0]) };
        check(&shadowed, 0, &["ann joined as member 2", "epoch 1 from tick 10: host (here) 3 tiles, ann 0 tiles and 1 to come"]);
        check(&plan(2, &[1, 2], &[0, 1, 0]), 0, &["epoch 2 from tick 20: host (here) 2 tiles, ann 1 tile"]);
        check(&plan(3, &[1, 2], &[0, 1, 1]), 0, &["epoch 3 from tick 30: host (here) 1 tile, ann 2 tiles"]);
        // It was left out, and is another member now.
        check(&plan(4, &[2, 3], &[0, 0, 1]), 1, &["epoch 4 from tick 40: ann 2 tiles, bob (here) 1 tile"]);
        check(&plan(5, &[3], &[0, 0, 0]), 0, &["ann (member 2) is gone", "epoch 5 from tick 50: bob (here) 3 tiles"]);
    }

    #[test]
    fn ticks_that_are_computed_again_are_told_with_their_epoch() {
        let mut teller = Teller::default();
        assert_eq!(teller.lines(&Told::Notice(&Notice::Epoch { epoch: 2, tick: 20, members: 1, replayed: 7 })), []);
        let lines = teller.lines(&Told::Entered { plan: &plan(2, &[1], &[0]), me: PeerIndex(0) });
        assert_eq!(lines[0].to_string(), "epoch 2 from tick 20, 7 again: host (here) 1 tile");
    }
}
