//! An epoch as a value: what the members of the epoch before it agree on.
//!
//! ```text
//! plan     epoch u32 | run [16] | tick u64 | end u64 | origin | replicas u16 | next_member u32
//!          | roster: u16 n ≤ 1024, n × member | leaving: u16 n ≤ 1024, n × member
//!          | owners: u32 n, n × u16 | shadows: u32 n, n × u16 | sources: u32 n, n × u32 | hashes: u32 n, n × [32]
//!          | is_paused u8 | changes: u16 n ≤ 1024, n × change | task: u32 n ≤ 4 MiB, n
//! origin   0 u8                                 the workload's own init passes
//!          1 u8 | epoch u32 | tick u64          the snapshot of that epoch at that tick
//! change   tick u64 | key: u8 n ≤ 64, n | value: u16 n ≤ 1024, n
//! member   id u32 | identity: u8 n ≤ 128, n | name: u8 n ≤ 64, n | addresses | speed f64 | memory u64 | keep u8 | seeds u8
//! ```
//!
//! Invariant: [`EpochPlan::check`] holds before a plan is followed, whoever sent it.

use bytes::Bytes;

use super::event::Keep;
use super::parts::{PartId, Parts};
use super::wishes::{CHANGES_MAX, Change, put_change, take_change};
use crate::ownership::{PEERS_MAX, PeerIndex};
use crate::wire::{self, Reader, WireError};

/// What an address has in it that leads through a relay.
const CIRCUIT: &str = "/p2p-circuit";

/// A member's number, given by the run and never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a snapshot is of: the epoch that took it, and the tick before which it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The epoch.
    pub epoch: u32,
    /// All ticks below this are in it, none other.
    pub tick: u64,
}

/// One member of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// The identity that its transport proves.
    pub identity: String,
    /// A name for people.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// **Units**: points per second, as it measured itself before it joined; 0 where it did not.
    pub speed: f64,
    /// **Units**: bytes of parts that it can own.
    pub memory: u64,
    /// Which snapshots it keeps.
    pub keep: Keep,
    /// Whether it can run the workload's init passes and imports itself.
    pub seeds: bool,
}

/// Where the state of an epoch's first tick comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Every member runs init for its tiles.
    Init,
    /// The parts of a snapshot.
    Snapshot(Version),
}

/// An epoch: who is in it, who owns what, and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochPlan {
    /// Its number, from 1.
    pub epoch: u32,
    /// Which run, and which of its incarnations.
    pub run: [u8; 16],
    /// The first tick that it computes.
    pub tick: u64,
    /// The tick at which the run ends; `u64::MAX` where it does not.
    pub end: u64,
    /// Where its first tick's state comes from.
    pub origin: Origin,
    /// Copies of every snapshot's part beside its owner's.
    pub replicas: u16,
    /// No member has had this number or a larger one.
    pub next_member: MemberId,
    /// By rising number; the first is the coordinator.
    pub roster: Vec<Member>,
    /// Members of the epoch before that go, and serve their parts until all have entered.
    pub leaving: Vec<Member>,
    /// Per tile part, its owner's place in the roster.
    pub owners: Vec<PeerIndex>,
    /// Per tile part, who computes it in the shadow of its owner, to own it next; the owner where nobody does. Empty where
    /// nothing is shadowed. Who shadows something owns nothing.
    pub shadows: Vec<PeerIndex>,
    /// Per part, a member that holds it; empty with [`Origin::Init`].
    pub sources: Vec<MemberId>,
    /// Per part, its hash in the snapshot; empty where the snapshot is yet to be taken, and with [`Origin::Init`].
    pub hashes: Vec<[u8; 32]>,
    /// Whether no tick passes until another epoch.
    pub is_paused: bool,
    /// What members have changed while it ran, in the order of ticks.
    pub changes: Vec<Change>,
    /// What the host's node gave for all nodes; opaque here, ≤ 4 MiB.
    pub task: Bytes,
}

impl Member {
    /// Whether others can dial it without a relay's help.
    fn is_dialable(&self) -> bool {
        self.addresses.iter().any(|address| !address.contains(CIRCUIT))
    }
}

impl EpochPlan {
    /// Whose votes count, rising: those that others can dial by themselves, as a host and native peers; all, where nobody can be dialled.
    ///
    /// Tabs hang on their server: without it they reach nobody, and several of them vanish together, as a browser is closed. If they counted,
    /// who closes one could stop those who stay.
    pub fn voters(&self) -> Vec<MemberId> {
        voters(&self.roster)
    }

    /// A member's place in the roster.
    pub fn index_of(&self, id: MemberId) -> Option<PeerIndex> {
        self.roster.binary_search_by_key(&id, |member| member.id).ok().map(|at| PeerIndex(at as u16))
    }

    /// The member at a place of the roster.
    pub fn member(&self, index: PeerIndex) -> Option<&Member> {
        self.roster.get(index.at())
    }

    /// The coordinator.
    pub fn coordinator(&self) -> MemberId {
        self.roster.first().map_or(MemberId(0), |member| member.id)
    }

    /// A member of the roster by its identity.
    pub fn in_roster(&self, identity: &str) -> Option<&Member> {
        self.roster.iter().find(|member| member.identity == identity)
    }

    /// A member of the roster, or one that is leaving, by its identity.
    pub fn member_of(&self, identity: &str) -> Option<&Member> {
        self.roster.iter().chain(&self.leaving).find(|member| member.identity == identity)
    }

    /// The tile parts that a member owns, in order.
    pub fn owned(&self, index: PeerIndex) -> impl Iterator<Item = PartId> + '_ {
        self.owners.iter().zip(0u32..).filter(move |(owner, _)| **owner == index).map(|(_, part)| PartId(part))
    }

    /// The tile parts that a member computes, in order: those that it owns, or those that it shadows.
    pub fn computed(&self, index: PeerIndex) -> impl Iterator<Item = PartId> + '_ {
        (0..self.owners.len() as u32).map(PartId).filter(move |part| self.computes(index, *part))
    }

    /// Whether a member computes a tile part, as its owner or in its owner's shadow.
    pub fn computes(&self, index: PeerIndex, part: PartId) -> bool {
        [&self.owners, &self.shadows].iter().any(|places| places.get(part.at()) == Some(&index))
    }

    /// Whether a part is computed in its owner's shadow.
    pub fn is_shadowed(&self, part: PartId) -> bool {
        self.shadows.get(part.at()).is_some_and(|shadow| self.owners.get(part.at()) != Some(shadow))
    }

    /// Whether a member shadows something.
    pub fn is_shadow(&self, index: PeerIndex) -> bool {
        self.shadows.iter().zip(&self.owners).any(|(shadow, owner)| *shadow == index && *owner != index)
    }

    /// The version that it begins from, where that is a snapshot.
    pub fn version(&self) -> Option<Version> {
        match self.origin {
            Origin::Init => None,
            Origin::Snapshot(version) => Some(version),
        }
    }

    /// Holds a plan against the run's parts.
    ///
    /// **Errors**: what is wrong, for people; do not follow it.
    pub fn check(&self, parts: &Parts) -> Result<(), &'static str> {
        if self.roster.is_empty() || self.roster.len() > PEERS_MAX || self.leaving.len() > PEERS_MAX {
            return Err("a roster of no peers, or of too many");
        }
        if !self.roster.is_sorted_by(|a, b| a.id < b.id) || self.roster.iter().any(|member| member.id >= self.next_member) {
            return Err("a roster out of order");
        }
        let mut identities: Vec<&str> = self.roster.iter().chain(&self.leaving).map(|member| member.identity.as_str()).collect();
        identities.sort_unstable();
        if !identities.is_sorted_by(|a, b| a < b) {
            return Err("an identity twice");
        }
        if self.owners.len() != parts.tile_count() || self.owners.iter().any(|owner| owner.at() >= self.roster.len()) {
            return Err("owners that do not fit the parts or the roster");
        }
        if !self.shadows.is_empty() {
            self.check_shadows()?;
        }
        let is_snapshot = self.version().is_some();
        if self.sources.len() != if is_snapshot { parts.count() } else { 0 } {
            return Err("sources that do not fit the parts");
        }
        if !self.hashes.is_empty() && (!is_snapshot || self.hashes.len() != parts.count()) {
            return Err("hashes that do not fit the parts");
        }
        if self.changes.len() > CHANGES_MAX || !self.changes.is_sorted_by_key(|change| change.tick) {
            return Err("too many changes, or changes out of order");
        }
        match self.version() {
            Some(version) if version.tick != self.tick || version.epoch >= self.epoch => Err("an origin at another tick, or of its own epoch"),
            None if self.tick != 0 => Err("init at another tick than 0"),
            _ if self.tick > self.end => Err("a tick beyond the end"),
            _ => Ok(()),
        }
    }

    fn check_shadows(&self) -> Result<(), &'static str> {
        if self.shadows.len() != self.owners.len() || self.shadows.iter().any(|shadow| shadow.at() >= self.roster.len()) {
            return Err("shadows that do not fit the parts or the roster");
        }
        if self.shadows == self.owners {
            return Err("shadows of nothing");
        }
        let mut owns = vec![false; self.roster.len()];
        self.owners.iter().for_each(|owner| owns[owner.at()] = true);
        let is_owner = |(shadow, owner): (&PeerIndex, &PeerIndex)| shadow != owner && owns[shadow.at()];
        if self.shadows.iter().zip(&self.owners).any(is_owner) {
            return Err("a shadow that owns something");
        }
        if self.version().is_none() {
            return Err("shadows where init makes the state");
        }
        Ok(())
    }

    /// The plan's only encoding.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(128 + self.owners.len() * 8 + self.hashes.len() * 32 + self.task.len());
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.run);
        out.extend(self.tick.to_le_bytes());
        out.extend(self.end.to_le_bytes());
        match self.origin {
            Origin::Init => out.push(0),
            Origin::Snapshot(version) => {
                out.push(1);
                out.extend(version.epoch.to_le_bytes());
                out.extend(version.tick.to_le_bytes());
            }
        }
        out.extend(self.replicas.to_le_bytes());
        out.extend(self.next_member.0.to_le_bytes());
        for members in [&self.roster, &self.leaving] {
            out.extend((members.len() as u16).to_le_bytes());
            for member in members {
                put_member(&mut out, member);
            }
        }
        out.extend((self.owners.len() as u32).to_le_bytes());
        out.extend(self.owners.iter().flat_map(|owner| owner.0.to_le_bytes()));
        out.extend((self.shadows.len() as u32).to_le_bytes());
        out.extend(self.shadows.iter().flat_map(|shadow| shadow.0.to_le_bytes()));
        out.extend((self.sources.len() as u32).to_le_bytes());
        out.extend(self.sources.iter().flat_map(|source| source.0.to_le_bytes()));
        out.extend((self.hashes.len() as u32).to_le_bytes());
        out.extend(self.hashes.iter().flatten());
        out.push(u8::from(self.is_paused));
        out.extend((self.changes.len() as u16).to_le_bytes());
        self.changes.iter().for_each(|change| put_change(&mut out, change));
        out.extend((self.task.len() as u32).to_le_bytes());
        out.extend(&self.task);
        out.into()
    }

    /// Reads a plan and holds it against the run's parts.
    ///
    /// **Errors**: the first field that does not fit. Nothing is reserved for a count beyond the bytes that are there.
    pub fn from_bytes(bytes: Bytes, parts: &Parts) -> Result<EpochPlan, WireError> {
        let mut reader = Reader::new(bytes);
        let epoch = reader.u32("epoch")?;
        let run = reader.array("run")?;
        let (tick, end) = (reader.u64("tick")?, reader.u64("end")?);
        let origin = match reader.u8("origin")? {
            0 => Origin::Init,
            1 => Origin::Snapshot(Version { epoch: reader.u32("origin epoch")?, tick: reader.u64("origin tick")? }),
            value => return Err(WireError::BadValue { field: "origin", value: value.into() }),
        };
        let replicas = reader.u16("replicas")?;
        let next_member = MemberId(reader.u32("next member")?);
        let (roster, leaving) = (take_members(&mut reader)?, take_members(&mut reader)?);
        let place = |bytes: &[u8]| PeerIndex(u16::from_le_bytes([bytes[0], bytes[1]]));
        let (owners, shadows) = (take_list(&mut reader, "owners", 2, place)?, take_list(&mut reader, "shadows", 2, place)?);
        let sources = take_list(&mut reader, "sources", 4, |bytes| MemberId(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))?;
        let hashes = take_list(&mut reader, "hashes", 32, |bytes| {
            let mut hash = [0; 32];
            hash.copy_from_slice(bytes);
            hash
        })?;
        let is_paused = reader.flag("is_paused")?;
        let mut changes = Vec::new();
        for _ in 0..reader.u16("changes length")? {
            changes.push(take_change(&mut reader)?);
        }
        let task_bytes = reader.u32("task length")? as usize;
        wire::limit("task length", task_bytes, wire::PLAN_BYTES_MAX)?;
        let task = reader.take("task", task_bytes)?;
        reader.end()?;
        let plan = EpochPlan {
            epoch,
            run,
            tick,
            end,
            origin,
            replicas,
            next_member,
            roster,
            leaving,
            owners,
            shadows,
            sources,
            hashes,
            is_paused,
            changes,
            task,
        };
        plan.check(parts).map_err(|what| WireError::BadPlan { what })?;
        Ok(plan)
    }
}

pub(super) fn put_member(out: &mut Vec<u8>, member: &Member) {
    out.extend(member.id.0.to_le_bytes());
    wire::put_short(out, &member.identity, wire::IDENTITY_BYTES_MAX);
    wire::put_short(out, &member.name, wire::NAME_BYTES_MAX);
    wire::put_addresses(out, &member.addresses);
    out.extend(member.speed.to_le_bytes());
    out.extend(member.memory.to_le_bytes());
    out.extend([member.keep as u8, u8::from(member.seeds)]);
}

pub(super) fn take_member(reader: &mut Reader) -> Result<Member, WireError> {
    Ok(Member {
        id: MemberId(reader.u32("member")?),
        identity: wire::take_short(reader, "identity", wire::IDENTITY_BYTES_MAX)?,
        name: wire::take_short(reader, "name", wire::NAME_BYTES_MAX)?,
        addresses: wire::take_addresses(reader)?,
        speed: take_speed(reader)?,
        memory: reader.u64("memory")?,
        keep: Keep::from_number(reader.u8("keep")?)?,
        seeds: reader.flag("seeds")?,
    })
}

pub(super) fn take_speed(reader: &mut Reader) -> Result<f64, WireError> {
    let speed = f64::from_le_bytes(reader.array("speed")?);
    if speed.is_finite() && speed >= 0.0 { Ok(speed) } else { Err(WireError::BadValue { field: "speed", value: speed.to_bits() }) }
}

fn voters(roster: &[Member]) -> Vec<MemberId> {
    let some_can = roster.iter().any(Member::is_dialable);
    roster.iter().filter(|member| member.is_dialable() || !some_can).map(|member| member.id).collect()
}

fn take_members(reader: &mut Reader) -> Result<Vec<Member>, WireError> {
    let count = usize::from(reader.u16("roster length")?);
    wire::limit("roster length", count, PEERS_MAX)?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(take_member(reader)?);
    }
    Ok(members)
}

/// A counted list of items of equal size.
pub(super) fn take_list<T>(reader: &mut Reader, field: &'static str, item_bytes: usize, item: impl Fn(&[u8]) -> T) -> Result<Vec<T>, WireError> {
    let count = reader.u32(field)? as usize;
    let bytes = reader.take(field, count.saturating_mul(item_bytes))?;
    Ok(bytes.chunks_exact(item_bytes).map(item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_vote_whom_others_can_dial_or_all_where_there_are_none() {
        let at = |id: u32, addresses: &[&str]| Member { addresses: addresses.iter().map(|&address| address.into()).collect(), ..member(id) };
        let relayed = "/ip4/10.0.0.1/tcp/80/ws/p2p/12D3KooWServer/p2p-circuit/p2p/12D3KooWTab";
        let [server, native] = [at(1, &["/ip4/10.0.0.1/tcp/80/ws"]), at(9, &[relayed, "/ip4/10.0.0.2/tcp/7000"])];
        let tabs = [at(4, &[relayed]), at(5, &[])];
        assert_eq!(voters(&[vec![server.clone()], tabs.to_vec(), vec![native]].concat()), [MemberId(1), MemberId(9)]);
        assert_eq!(voters(&[vec![server], tabs.to_vec()].concat()), [MemberId(1)]);
        assert_eq!(voters(&tabs), [MemberId(4), MemberId(5)]);
    }

    fn member(id: u32) -> Member {
        Member {
            id: MemberId(id),
            identity: format!("somebody {id}"),
            name: format!("Some Body {id}"),
            addresses: Vec::new(),
            speed: 0.0,
            memory: 7,
            keep: Keep::Share,
            seeds: false,
        }
    }

    #[test]
    fn a_plan_with_changes_comes_back_and_one_out_of_order_does_not() {
        let parts = Parts::new(&[], &[], 4).expect("a table alone is a state");
        let change = |tick, key: &str| Change { tick, key: key.into(), value: "[1.0, 2.0]".into() };
        let member = Member { addresses: vec!["sim/1".into()], speed: 1e9, keep: Keep::All, seeds: true, ..member(1) };
        let plan = EpochPlan {
            epoch: 3,
            run: [5; 16],
            tick: 40,
            end: 90,
            origin: Origin::Snapshot(Version { epoch: 2, tick: 40 }),
            replicas: 1,
            next_member: MemberId(2),
            roster: vec![member],
            leaving: Vec::new(),
            owners: Vec::new(),
            shadows: Vec::new(),
            sources: vec![MemberId(1)],
            hashes: Vec::new(),
            is_paused: true,
            changes: vec![change(7, "rate"), change(40, "")],
            task: Bytes::from_static(b"task"),
        };
        assert_eq!(EpochPlan::from_bytes(plan.to_bytes(), &parts), Ok(plan.clone()));
        for end in 0..plan.to_bytes().len() {
            assert!(EpochPlan::from_bytes(plan.to_bytes().slice(..end), &parts).is_err(), "{end}");
        }
        let unordered = EpochPlan { changes: vec![change(40, "rate"), change(7, "rate")], ..plan.clone() };
        let many = EpochPlan { changes: vec![change(40, "rate"); CHANGES_MAX + 1], ..plan };
        for wrong in [unordered, many] {
            assert!(matches!(EpochPlan::from_bytes(wrong.to_bytes(), &parts), Err(WireError::BadPlan { .. })));
        }
    }
    #[test]
    fn a_shadow_owns_nothing_and_stands_beside_an_owner() {
        let grid = peercompute_buffers::Grid::new(&[8], &[2]).expect("a grid of four tiles");
        let parts = Parts::new(&[grid], &[4], 4).expect("small parts");
        let places = |of: [u16; 4]| of.map(PeerIndex).to_vec();
        let plan = |owners, shadows: Vec<PeerIndex>| EpochPlan {
            epoch: 2,
            run: [0; 16],
            tick: 5,
            end: 9,
            origin: Origin::Snapshot(Version { epoch: 1, tick: 5 }),
            replicas: 1,
            next_member: MemberId(4),
            roster: [1, 2, 3].map(member).to_vec(),
            leaving: Vec::new(),
            owners: places(owners),
            shadows,
            sources: vec![MemberId(1); 5],
            hashes: Vec::new(),
            is_paused: false,
            changes: Vec::new(),
            task: Bytes::new(),
        };
        let good = plan([0, 0, 1, 1], places([0, 2, 1, 2]));
        assert_eq!(EpochPlan::from_bytes(good.to_bytes(), &parts), Ok(good.clone()));
        let computed = |at| good.computed(PeerIndex(at)).map(|part| part.0).collect::<Vec<_>>();
        assert_eq!([computed(0), computed(1), computed(2)], [vec![0, 1], vec![2, 3], vec![1, 3]]);
        assert_eq!([0, 1, 2].map(|at| good.is_shadow(PeerIndex(at))), [false, false, true]);
        assert_eq!(good.owned(PeerIndex(2)).count(), 0);
        let wrong = [
            (plan([0, 0, 1, 1], places([0, 0, 1, 1])), "shadows of nothing"),
            (plan([0, 0, 1, 1], places([0, 1, 1, 1])), "a shadow that owns something"),
            (plan([0, 0, 1, 1], places([0, 3, 1, 1])), "shadows that do not fit the parts or the roster"),
            (plan([0, 0, 1, 1], vec![PeerIndex(2)]), "shadows that do not fit the parts or the roster"),
            (
                EpochPlan { origin: Origin::Init, tick: 0, sources: Vec::new(), ..plan([0, 0, 1, 1], places([0, 2, 1, 1])) },
                "shadows where init makes the state",
            ),
        ];
        for (plan, what) in wrong {
            assert_eq!(plan.check(&parts), Err(what));
        }
    }
}
