//! Stands in for the member until it is there: a host alone.
#![allow(missing_docs)]
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::membership::{EpochPlan, Event, MemberConfig, MemberError, MemberId, Origin, Output, Role};
use crate::ownership::PeerIndex;

pub struct Member {
    out: VecDeque<Output>,
    over: bool,
    plan: Option<Arc<EpochPlan>>,
}

impl Member {
    pub fn new(config: MemberConfig) -> Member {
        let mut out = VecDeque::new();
        let mut over = false;
        let mut kept = None;
        if let Role::Host { end, task, replicas, .. } = config.role {
            let member = crate::membership::Member {
                id: MemberId(0),
                identity: config.identity,
                name: config.name,
                addresses: config.addresses,
                speed: config.speed,
                memory: config.memory,
                keep: config.keep,
                seeds: config.seeds,
            };
            let plan = Arc::new(EpochPlan {
                epoch: 1,
                run: [1; 16],
                tick: 0,
                end,
                origin: Origin::Init,
                replicas,
                next_member: MemberId(1),
                roster: vec![member],
                leaving: Vec::new(),
                owners: vec![PeerIndex(0); config.parts.tile_count()],
                sources: Vec::new(),
                hashes: Vec::new(),
                task,
            });
            kept = Some(plan.clone());
            out.push_back(Output::Enter { plan, me: PeerIndex(0), parts: Vec::new() });
        } else {
            over = true;
            out.push_back(Output::Failed(MemberError::Unreachable { address: "sim/0".into(), error: "stub".into() }));
        }
        Member { out, over, plan: kept }
    }

    pub fn handle(&mut self, event: Event, _now: Duration) {
        let Some(plan) = self.plan.clone() else { return };
        match event {
            Event::Entered { epoch, .. } => self.out.push_back(Output::Pace { epoch, until: plan.end, snapshots: vec![3, 5] }),
            Event::Post { epoch, sequence, .. } => self.out.push_back(Output::Deliver { epoch, sequence, payloads: Vec::new() }),
            Event::Report { bytes, .. } => {
                self.over = true;
                let reports: Vec<Bytes> = vec![bytes];
                self.out.push_back(Output::Finished { plan, reports });
            }
            _ => {}
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    pub fn is_over(&self) -> bool {
        self.over
    }
}
