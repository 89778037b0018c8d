//! A core in steady state allocates nothing: neither for a post, nor for a frame, a delivery or the next deadline.
//!
//! Cores are wired by hand, so that nothing else runs: what a transport would do is done here with a [`Pool`], as the
//! transport does it, and so is counted with it.

#[path = "../../tests/counting/mod.rs"]
mod counting;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use counting::allocations_here;
use peercompute_net::core::{Core, CoreConfig, Event, ExchangeTraffic, LinkId, Output, Role, Traffic};
use peercompute_net::ownership::{Ownership, PeerIndex};
use peercompute_net::pool::Pool;
use peercompute_net::wire::LENGTH_BYTES;

const WARM_UP: u64 = 100;
const EXCHANGES: u64 = 1000;

/// Bytes from one peer to another in an exchange.
type Way = fn(u16, u16) -> u32;

struct Place {
    core: Core,
    me: u16,
    pool: Pool,
    payload: Bytes,
    /// The list that the latest delivery came in.
    payloads: Vec<(PeerIndex, Bytes)>,
    delivered: Option<u64>,
    /// By the number of a link here: the place at its other end, and its number there.
    links: Vec<(usize, LinkId)>,
}

/// Cores whose outputs are each other's events, at once and in order.
struct Wired {
    exchanges: &'static [Way],
    places: Vec<Place>,
    events: VecDeque<(usize, Event)>,
    now: Duration,
}

impl Wired {
    fn new(peers: u16, staleness: u32, exchanges: &'static [Way]) -> Wired {
        let place = |me: u16| {
            let role = if me == 0 { Role::Coordinator { peers } } else { Role::Joiner { coordinator: "at/0".to_owned() } };
            let mut config = CoreConfig::new(role, &format!("id-{me}"), "");
            (config.addresses, config.staleness) = (vec![format!("at/{me}")], staleness);
            let mut pool = Pool::default();
            let payload = pool.copy(&[me as u8; 1 << 10]);
            Place { core: Core::new(config), me, pool, payload, payloads: Vec::new(), delivered: None, links: Vec::new() }
        };
        let mut wired = Wired { exchanges, places: (0..peers).map(place).collect(), events: VecDeque::new(), now: Duration::ZERO };
        (0..wired.places.len()).for_each(|at| wired.carry_out(at));
        wired.settle();
        wired
    }

    fn settle(&mut self) {
        while let Some((at, event)) = self.events.pop_front() {
            self.places[at].core.handle(event, self.now);
            assert!(self.places[at].core.deadline().is_some());
            self.carry_out(at);
        }
    }

    fn traffic(&self, me: u16) -> Traffic {
        let peers = 0..self.places.len() as u16;
        let ways = |bytes: &Way| ExchangeTraffic {
            send: peers.clone().map(|to| bytes(me, to)).collect(),
            receive: peers.clone().map(|from| bytes(from, me)).collect(),
        };
        Traffic { exchanges: self.exchanges.iter().map(ways).collect() }
    }

    fn carry_out(&mut self, at: usize) {
        let nobody = || Ownership { epoch: 0, grids: Vec::new() };
        while let Some(output) = self.places[at].core.poll_output() {
            match output {
                Output::Dial { address } => {
                    let to = address.trim_start_matches("at/").parse::<usize>().expect("a place");
                    let (here, there) = (self.places[at].links.len(), self.places[to].links.len());
                    let (here, there) = (LinkId(here as u64), LinkId(there as u64));
                    self.places[at].links.push((to, there));
                    self.places[to].links.push((at, here));
                    self.events.push_back((to, Event::Opened { link: there, identity: format!("id-{at}"), outgoing: false }));
                    self.events.push_back((at, Event::Opened { link: here, identity: format!("id-{to}"), outgoing: true }));
                }
                Output::Send { link, frame } => {
                    let (to, link) = self.places[at].links[link.0 as usize];
                    let mut content = self.places[to].pool.take(frame.content_bytes());
                    let (head, body) = content.split_at_mut(frame.head.len() - LENGTH_BYTES);
                    head.copy_from_slice(&frame.head[LENGTH_BYTES..]);
                    body.copy_from_slice(&frame.body);
                    let frame = self.places[to].pool.keep(content);
                    self.events.push_back((to, Event::Received { link, frame }));
                }
                Output::Assemble { .. } => {
                    let event = Event::PlanMade { plan: Bytes::new(), traffic: self.traffic(0), ownership: nobody() };
                    self.events.push_back((at, event));
                }
                Output::PlanReceived { index, .. } => {
                    self.places[at].me = index.0;
                    self.events.push_back((at, Event::PlanAccepted { traffic: self.traffic(index.0), ownership: nobody() }));
                }
                Output::Deliver { sequence, mut payloads } => {
                    payloads.clear();
                    (self.places[at].payloads, self.places[at].delivered) = (payloads, Some(sequence));
                }
                Output::Limit { .. } | Output::Start => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// One exchange of all; who posts first changes, so that frames also come before their time.
    fn exchange(&mut self, sequence: u64) {
        let (peers, exchange) = (self.places.len(), sequence as usize % self.exchanges.len());
        self.now += Duration::from_millis(1);
        for turn in 0..peers {
            let at = (sequence as usize + turn) % peers;
            let place = &mut self.places[at];
            let mut payloads = std::mem::take(&mut place.payloads);
            for to in 0..peers as u16 {
                let bytes = self.exchanges[exchange](place.me, to) as usize;
                if bytes > 0 {
                    payloads.push((PeerIndex(to), place.payload.slice(..bytes)));
                }
            }
            self.events.push_back((at, Event::Post { sequence, exchange: exchange as u16, payloads }));
            self.settle();
        }
        assert!(self.places.iter().all(|place| place.delivered == Some(sequence)));
    }
}

fn check_cores(peers: u16, staleness: u32, exchanges: &'static [Way]) {
    let mut wired = Wired::new(peers, staleness, exchanges);
    (0..WARM_UP).for_each(|sequence| wired.exchange(sequence));
    let before = allocations_here();
    (WARM_UP..WARM_UP + EXCHANGES).for_each(|sequence| wired.exchange(sequence));
    let allocated = allocations_here() - before;
    assert_eq!(allocated, 0, "in {EXCHANGES} exchanges of {peers} cores, staleness {staleness}");
}

fn check_pool() {
    let mut pool = Pool::default();
    let mut held = VecDeque::with_capacity(8);
    let mut allocated = 0;
    for round in 0..WARM_UP + EXCHANGES {
        let before = allocations_here();
        // As many at a time, and as different, as a link has under way.
        for bytes in [2, 9, 1040, 1 << 16, 1 << 20] {
            let mut content = pool.take(bytes);
            content[..2].fill(round as u8);
            held.push_back(pool.keep(content));
            if held.len() > 7 {
                held.pop_front();
            }
        }
        if round >= WARM_UP {
            allocated += allocations_here() - before;
        }
    }
    assert_eq!(allocated, 0, "by a pool of which no more is held than ever");
}

#[test]
fn steady_state_allocates_nothing() {
    const MUTUAL: Way = |from, to| if from == to { 0 } else { 500 };
    const TO_0: Way = |from, to| if from != 0 && to == 0 { 900 } else { 0 };
    assert!(allocations_here() > 0, "nothing is counted");
    check_pool();
    check_cores(2, 0, &[MUTUAL]);
    check_cores(2, 0, &[TO_0]);
    check_cores(3, 0, &[MUTUAL, TO_0]);
    check_cores(3, 2, &[MUTUAL, TO_0]);
}
