//! Whether those who say that they keep a snapshot's parts have them, before a loss shows it.
//!
//! ```text
//!  a snapshot is complete ─► owner: of every holder, a few random bytes of one random part ─ Audit (range, nonce) ─► holder
//!                            BLAKE3 of nonce and bytes, held against the own ◄──────────────── Proof ─────────────┘
//!                                 └─ another, or none: the holder is left out of the next epoch, and named
//! ```
//!
//! A holder that has dropped a version because a newer one is complete says which; its word is believed once this owner hears of a
//! complete one as new. Invariants: the bytes themselves do not travel, and no answer fits another question; one question to a
//! holder at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use peercompute_buffers::digest::Hash;

use super::plan::{MemberId, Version};
use super::snapshots::replicates;
use super::wire::Message;
use super::{Member, OFFENCES_MAX, PartId};
use crate::ownership::PeerIndex;

/// Bytes that one question is about, at most.
pub(super) const RANGE_BYTES_MAX: u32 = 64 << 10;
/// A holder that does not answer for this long, or whose excuse is not borne out by then, has not got it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What an owner asks a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) version: Version,
    pub(super) part: PartId,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) nonce: [u8; 16],
}

impl Question {
    /// The answer of whoever has these bytes; `None` where the range is not in them.
    fn answer(&self, bytes: &[u8]) -> Option<Hash> {
        let from = self.offset as usize;
        let range = bytes.get(from..from.checked_add(self.length as usize)?)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.nonce).update(range);
        Some(hasher.finalize().into())
    }
}

#[derive(Debug)]
struct Asked {
    question: Question,
    at: Duration,
    /// The newer complete version for which it says it has dropped this one.
    excuse: Option<Version>,
}

/// The questions that wait for answers, by holder.
#[derive(Debug, Default)]
pub(super) struct Audits(BTreeMap<MemberId, Asked>);

impl Audits {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the first of them is over.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.values().map(|asked| asked.at + ANSWER_LIMIT).min()
    }
}

impl Member {
    /// Asks everybody who replicates own parts of a snapshot that is complete for a piece of one of them.
    pub(super) fn audit(&mut self, version: Version) {
        let Some(running) = self.running.as_ref().filter(|running| running.plan.epoch == version.epoch) else { return };
        let (plan, me) = (running.plan.clone(), running.me);
        for (holder, member) in (0u16..).map(PeerIndex).zip(&plan.roster) {
            if holder == me || self.audits.0.contains_key(&member.id) {
                continue;
            }
            let held: Vec<PartId> = plan.owned(me).filter(|part| replicates(&plan, *part, holder)).collect();
            if held.is_empty() {
                continue;
            }
            let part = held[self.random.usize(..held.len())];
            let bytes = self.config.parts.bytes(part);
            let length = bytes.min(RANGE_BYTES_MAX);
            let mut nonce = [0; 16];
            nonce.iter_mut().for_each(|byte| *byte = self.random.u8(..));
            let question = Question { version, part, offset: self.random.u32(..=bytes - length), length, nonce };
            self.audits.0.insert(member.id, Asked { question, at: self.now, excuse: None });
            self.send_to(member.id, &Message::Audit(question));
        }
    }

    /// Answers an owner.
    pub(super) fn audited(&mut self, identity: &str, question: Question) {
        let Some(owner) = self.member_id(identity) else { return };
        let proof = self.shelf.get(question.version, question.part).and_then(|bytes| question.answer(bytes));
        self.send_to(owner, &Message::Proof { nonce: question.nonce, proof, complete: self.shelf.complete() });
    }

    /// A holder has answered.
    pub(super) fn proved(&mut self, identity: &str, nonce: [u8; 16], proof: Option<Hash>, complete: Option<Version>) {
        let Some(holder) = self.member_id(identity) else { return };
        let Some(asked) = self.audits.0.get_mut(&holder).filter(|asked| asked.question.nonce == nonce) else { return };
        let Question { version, part, .. } = asked.question;
        let own = self.shelf.get(version, part).and_then(|bytes| asked.question.answer(bytes));
        match (proof, own) {
            // This owner has dropped it too.
            (_, None) => {}
            (Some(proof), Some(own)) if proof == own => {}
            (None, Some(_)) if complete > Some(version) => {
                asked.excuse = complete;
                return self.advance_audits();
            }
            _ => return self.caught(holder),
        }
        self.audits.0.remove(&holder);
    }

    /// Believes excuses that are borne out, and nobody who has none.
    pub(super) fn advance_audits(&mut self) {
        let (now, complete) = (self.now, self.shelf.complete());
        self.audits.0.retain(|_, asked| asked.excuse.is_none_or(|excuse| complete < Some(excuse)));
        let late: Vec<MemberId> = self.audits.0.iter().filter(|(_, asked)| asked.at + ANSWER_LIMIT <= now).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|holder| self.caught(holder));
    }

    fn caught(&mut self, holder: MemberId) {
        let Some(Asked { question, .. }) = self.audits.0.remove(&holder) else { return };
        let (part, tick) = (question.part, question.version.tick);
        // No accident looks like this.
        self.count_offences(holder, OFFENCES_MAX);
        self.bar(holder, &format!("says that it keeps part {part} of the snapshot at tick {tick}, and cannot prove it"));
    }
}
