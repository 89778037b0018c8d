//! A tab as a member of a run: it joins by the link that its page was opened with, and computes what an epoch gives it.
//!
//! ```text
//! Member.join(executor, link, page, bundle) ─► verify ─► session: WebSocket to the page's server, a reservation there
//!                                              └► node, a task of this worker ─ what it tells ─► status()
//! ```
//!
//! Two tabs cannot dial each other: each is reached through the server, which moves bytes that it cannot read. Invariants: the
//! key and the bundle's hash are those of the link, whatever the server sends; nothing here waits without giving the thread back.

mod sight;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use js_sys::{Array, Object, Reflect, Uint8Array, Uint8ClampedArray, Uint16Array, Uint32Array};
use peercompute_buffers::TileId;
use peercompute_buffers::digest::hex;
use peercompute_kernels::declaration::Extent;
use peercompute_kernels::program::ParamValue;
use peercompute_kernels::{Program, PublicKey, Trust, VerifiedBundle};
use peercompute_net::driver::MemberSession;
use peercompute_net::membership::{EpochPlan, Event, Keep, Notice, PartId, Parts, Role, Tuning, VALUE_BYTES_MAX, Wish};
use peercompute_net::ownership::PeerIndex;
use peercompute_net::runtime::{self, Instant};
use peercompute_net::transport::TransportConfig;
use wasm_bindgen::prelude::*;

use super::Executor;
use super::fault::Fault;
use crate::link::{Link, PageAddress, bytes_from_hex, run_in};
use crate::node::member::{End, Look, MemberNode, Throttle, Told, params_at};
use crate::node::parts::piece;
use crate::node::speed::measure;
use crate::view::View;
use crate::world::{self, Terms};

/// The longer side of a picture, at most. **Units**: pixels.
const VIEW_PIXELS_MAX: u32 = 2048;
/// Ways to look that wait for the node.
const LOOKS_MAX: usize = 16;
/// A tab that sees worlds up to this size keeps every snapshot of all of it, to show what others compute.
const SHOWN_BYTES_MAX: u64 = 32 << 20;
/// A tab that too few others can be reached from looks for them so long.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);
/// A rate is taken over at least this many seconds.
const RATE_SECONDS: f64 = 0.5;

/// How a tab's part in a run goes.
#[derive(Default)]
struct State {
    peers: usize,
    epoch: u32,
    tick: u64,
    /// Numbers of the tiles that this tab owns, of all grids, as parts count them, ascending.
    owned: Vec<u32>,
    points: u64,
    elements_per_second: f64,
    /// Who is in the run, and who owns what.
    plan: Option<(EpochPlan, PeerIndex)>,
    /// All parts of the newest snapshot, and its tick, where they are kept.
    stored: Option<(u64, Vec<Bytes>)>,
    /// When and where the rate was taken last.
    mark: Option<(Instant, u64)>,
    /// Why nothing goes on, until the next epoch.
    lost: Option<String>,
    ended: Option<Result<Ended, Fault>>,
}

enum Ended {
    Finished { state_hash: String },
    Left,
}

impl State {
    #[allow(clippy::disallowed_methods, reason = "a rate is told; nothing depends on it")]
    fn hear(&mut self, told: &Told<'_>, parts: &Parts) {
        match told {
            Told::Entered { plan, me } => self.entered(plan, *me, parts),
            Told::Progress { tick, epoch, .. } => {
                (self.tick, self.epoch) = (*tick, *epoch);
                let (since, from) = *self.mark.get_or_insert_with(|| (Instant::now(), *tick));
                let seconds = since.elapsed().as_secs_f64();
                if seconds >= RATE_SECONDS {
                    self.elements_per_second = self.points as f64 * tick.saturating_sub(from) as f64 / seconds;
                    self.mark = Some((Instant::now(), *tick));
                }
            }
            Told::Notice(notice @ Notice::Orphaned { .. }) => self.lost = Some(notice.to_string()),
            Told::Stored { version, parts } => self.stored = Some((version.tick, parts.to_vec())),
            _ => {}
        }
    }

    fn entered(&mut self, plan: &EpochPlan, me: PeerIndex, parts: &Parts) {
        self.plan = Some((plan.clone(), me));
        self.lost = None;
        self.peers = plan.roster.len();
        (self.epoch, self.tick) = (plan.epoch, plan.tick);
        let owned: Vec<_> = plan.owned(me).collect();
        self.points = owned.iter().map(|part| parts.points(*part)).sum();
        self.owned = owned.iter().map(|part| part.0).collect();
        self.mark = None;
    }
}

/// A member of a run, in this worker.
#[wasm_bindgen]
pub struct Member {
    executor: Executor,
    session: Rc<MemberSession>,
    bundle: Rc<VerifiedBundle>,
    parts: Arc<Parts>,
    state: Rc<RefCell<State>>,
    looks: flume::Sender<Look>,
}

#[wasm_bindgen]
impl Member {
    /// Joins a run. `link` is what the page was opened with, its address and all; `page` the address that the page came from,
    /// which is where the run's server is; `bundle` what the server gave for the link's hash; `name` one for people. Who only
    /// `watches` is given no tiles. `seed` is the secret that the identity is made of, 32 bytes; without, it is a new one.
    ///
    /// **Errors:** the link is none, the bundle is not what it names or was not signed by its key (then nothing of it has been
    /// compiled), or the executor cannot take the workload. What fails later is told by [`Member::status`].
    pub async fn join(
        executor: &Executor,
        link: String,
        page: String,
        bundle: Vec<u8>,
        name: String,
        watches: bool,
        seed: Option<Vec<u8>>,
    ) -> Result<Member, Fault> {
        let link: Link = link.parse()?;
        let root = root_address(&page, &link)
            .ok_or_else(|| Fault::new("link", "the link names no server that browsers can reach: was it made by `peercompute serve`?"))?;
        let bundle = VerifiedBundle::verify_signature(&bundle, &Trust::key(link.key))?;
        if bundle.program().hash != link.bundle {
            return Err(Fault::new("bundle", "the server gave another bundle than the link names"));
        }
        let identity_seed = seed.map(|seed| seed.try_into().map_err(|_| Fault::option("a seed of another length than 32 bytes"))).transpose()?;
        let speed = if watches { 0.0 } else { measure(executor.inner, &bundle, 2).await? };
        let transport = TransportConfig { listen: Vec::new(), relays: vec![root.clone()], identity_seed, ..TransportConfig::default() };
        // What is small enough is seen whole: every snapshot of it comes here.
        let parts = world::parts(&bundle)?;
        let keep = if parts.whole_bytes() <= SHOWN_BYTES_MAX { Keep::All } else { Keep::Share };
        // Whoever is alone for so long joins anew, by the link.
        let tuning = Tuning { orphan_limit: ORPHAN_LIMIT, ..Tuning::default() };
        let terms = Terms { transport, name, speed, computes: !watches, keep, seeds: false, token: link.token, tuning };
        let (session, parts) = world::start(&bundle, Role::Join { addresses: vec![root] }, terms).await?;
        let (looks, looking) = flume::bounded(LOOKS_MAX);
        let member = Member {
            executor: *executor,
            session: Rc::new(session),
            bundle: Rc::new(bundle),
            parts,
            state: Rc::new(RefCell::new(State::default())),
            looks,
        };
        runtime::spawn(member.take_part(looking));
        Ok(member)
    }

    /// How it goes: `peerId`, `peers`, `workload`, `version`, `tick`, `epoch`, `executor`, `adapter`, `isSoftware`, `tilesOwned`, `isPaused`, `elementsPerSecond`; of its links `roundTripMs`, the
    /// longest, and `bytesIn` and `bytesOut` so far; `lost`, why nothing goes on, while too few others are reached; and
    /// `ended`, which is `undefined`, `"finished"` (with `stateHash`), `"left"` or `"failed"` (with `error`, and its `code`: `"refused"`,
    /// `"unreachable"`, `"lost"`, `"device"`, where a GPU went away, or `"failed"`).
    pub fn status(&self) -> Object {
        let state = self.state.borrow();
        let manifest = &self.bundle.program().manifest;
        let object = Object::new();
        let set = |name: &str, value: JsValue| set(&object, name, &value);
        set("peerId", self.session.identity().into());
        set("peers", (state.peers as f64).into());
        set("workload", manifest.name.clone().into());
        set("version", manifest.version.to_string().into());
        set("tick", (state.tick as f64).into());
        set("epoch", state.epoch.into());
        set("executor", self.executor.executor().into());
        set("adapter", self.executor.adapter().into());
        set("isSoftware", self.executor.is_software().into());
        set("tilesOwned", (state.owned.len() as f64).into());
        set("isPaused", state.plan.as_ref().is_some_and(|(plan, _)| plan.is_paused).into());
        set("elementsPerSecond", state.elements_per_second.into());
        let links = self.session.link_totals();
        set("roundTripMs", (links.round_trip.as_secs_f64() * 1e3).into());
        set("bytesIn", (links.bytes_in as f64).into());
        set("bytesOut", (links.bytes_out as f64).into());
        if let (Some(lost), None) = (&state.lost, &state.ended) {
            set("lost", lost.clone().into());
        }
        match &state.ended {
            None => {}
            Some(Ok(Ended::Left)) => set("ended", "left".into()),
            Some(Ok(Ended::Finished { state_hash })) => {
                set("ended", "finished".into());
                set("stateHash", state_hash.clone().into());
            }
            Some(Err(Fault { code, text })) => {
                set("ended", "failed".into());
                set("error", text.clone().into());
                set("code", (*code).into());
            }
        }
        object
    }

    /// Who computes what: `members`, of each `id`, `name`, `tiles` and `isMe`, in the order in which `owners` counts them; `fields`, those that can
    /// be seen, of each `name`, `shape` and `tile` (x, y, z) and `owners`, per tile. Empty before the first epoch.
    pub fn world(&self) -> Object {
        let state = self.state.borrow();
        let world = Object::new();
        let Some((plan, me)) = &state.plan else { return world };
        let members = Array::new();
        for (at, member) in (0u16..).map(PeerIndex).zip(&plan.roster) {
            let tiles = plan.owned(at).count() as f64;
            members.push(&object(&[
                ("id", member.id.0.into()),
                ("name", member.name.as_str().into()),
                ("tiles", tiles.into()),
                ("isMe", (at == *me).into()),
            ]));
        }
        set(&world, "members", &members);
        let program = self.bundle.program();
        let fields = Array::new();
        for (number, buffer) in program.manifest.buffers.iter().enumerate() {
            let Extent::Field { grid } = buffer.extent else { continue };
            let shape = &program.manifest.grids[grid].grid;
            if peercompute_kernels::Look::of(shape, &program.elements[number]).is_none() {
                continue;
            }
            let first = self.parts.part_of(grid, TileId(0)).at();
            let owners: Vec<u16> = plan.owners[first..first + shape.tile_count() as usize].iter().map(|owner| owner.0).collect();
            fields.push(&object(&[
                ("name", buffer.name.as_str().into()),
                ("shape", Uint32Array::from(&shape.shape[..]).into()),
                ("tile", Uint32Array::from(&shape.tile[..]).into()),
                ("owners", Uint16Array::from(&owners[..]).into()),
            ]));
        }
        set(&world, "fields", &fields);
        world
    }

    /// A field as pixels: `width`, `height`, `pixels` (red, green, blue, alpha), `low` and `high`, the values of the darkest and brightest colour. Own tiles
    /// are as they are now, others as in the newest snapshot; what is not known here is transparent.
    ///
    /// **Errors:** there is no such field, it cannot be seen, or this member computes no more.
    pub async fn frame(&self, buffer: String, pixels_max: u32) -> Result<Object, Fault> {
        let (number, grid) = self.field(&buffer)?;
        let program = self.bundle.program();
        let (grid_shape, element) = (program.manifest.grids[grid].grid, &program.elements[number]);
        let unseen = || Fault::option(format!("`{buffer}` holds `{}`, and has no picture", element.name));
        let mut view = View::new(grid_shape, element, pixels_max.clamp(1, VIEW_PIXELS_MAX)).ok_or_else(unseen)?;
        let (owned, stored) = {
            let state = self.state.borrow();
            (state.owned.clone(), state.stored.clone())
        };
        let mut own = Vec::new();
        for part in owned.iter().map(|part| PartId(*part)).filter(|part| self.parts.tile_of(*part).is_some_and(|(of, _)| of == grid)) {
            let (answer, answered) = flume::bounded(1);
            self.looks.send_async(Look::Part { part, answer }).await.map_err(|_| Fault::over())?;
            // One that was handed over meanwhile is seen again with its next owner's snapshot.
            if let Ok(Some(content)) = answered.recv_async().await {
                own.push((part, content));
            }
        }
        let others = stored.iter().flat_map(|(_, parts)| (0..).map(PartId).zip(parts.iter().cloned()));
        for (part, content) in others.filter(|(part, _)| owned.binary_search(&part.0).is_err()).chain(own) {
            if let Some((of, tile)) = self.parts.tile_of(part)
                && of == grid
                && let Some(bytes) = piece(program, &self.parts, part, &content, number)
            {
                view.tile(tile, &bytes);
            }
        }
        let (low, high) = view.range().unwrap_or_default();
        Ok(object(&[
            ("width", view.width.into()),
            ("height", view.height.into()),
            ("low", low.into()),
            ("high", high.into()),
            ("pixels", Uint8ClampedArray::from(&view.pixels(None)[..]).into()),
        ]))
    }

    /// The tiles of a buffer's grid that this tab owns now.
    ///
    /// **Errors:** there is no such buffer, or it is a table.
    pub fn tiles(&self, buffer: &str) -> Result<Vec<u32>, Fault> {
        let (_, grid) = self.field(buffer)?;
        let owned = &self.state.borrow().owned;
        let tiles = owned.iter().filter_map(|part| self.parts.tile_of(peercompute_net::membership::PartId(*part)));
        Ok(tiles.filter(|(of, _)| *of == grid).map(|(_, tile)| tile.0).collect())
    }

    /// The WGSL type of a buffer's elements.
    ///
    /// **Errors:** there is no such buffer.
    pub fn element(&self, buffer: &str) -> Result<String, Fault> {
        let program = self.bundle.program();
        Ok(program.elements[named(program, buffer)?].name.clone())
    }

    /// A tile of a buffer as it is between two ticks, row by row.
    ///
    /// **Errors:** there is no such field, the tile is another member's, or this one computes no more.
    pub async fn read(&self, buffer: String, tile: u32) -> Result<Uint8Array, Fault> {
        let (number, grid) = self.field(&buffer)?;
        let program = self.bundle.program();
        let count = program.manifest.grids[grid].grid.tile_count();
        if tile >= count {
            return Err(Fault::option(format!("`{buffer}` has {count} tiles, and no tile {tile}")));
        }
        let part = self.parts.part_of(grid, TileId(tile));
        let (answer, answered) = flume::bounded(1);
        self.looks.send_async(Look::Part { part, answer }).await.map_err(|_| Fault::over())?;
        let content = answered.recv_async().await.map_err(|_| Fault::over())?;
        let content = content.ok_or_else(|| Fault::new("tile", format!("tile {tile} is another member's")))?;
        let bytes = piece(program, &self.parts, part, &content, number).ok_or_else(Fault::over)?;
        Ok(Uint8Array::from(&bytes[..]))
    }

    /// The workload's parameters as they are: of each `name`, `element`, its WGSL type, and `value`, a number or a list of them.
    /// Those that are no scalars or vectors are left out. Empty before the first epoch.
    ///
    /// **Errors:** the run's task is none of this workload's.
    pub fn params(&self) -> Result<Array, Fault> {
        let state = self.state.borrow();
        let params = Array::new();
        let Some((plan, _)) = &state.plan else { return Ok(params) };
        let program = self.bundle.program();
        let bytes = params_at(program, plan, state.tick)?;
        for ParamValue { name, element, lanes } in program.param_values(&bytes) {
            let value = match lanes[..] {
                [lane] => lane.into(),
                _ => lanes.iter().map(|lane| JsValue::from(*lane)).collect::<Array>().into(),
            };
            params.push(&object(&[("name", name.into()), ("element", element.into()), ("value", value)]));
        }
        Ok(params)
    }

    /// Wishes for another value of a parameter, as TOML: all members compute with it from one and the same tick on, soon.
    ///
    /// **Errors:** no such parameter, or a value that does not fit.
    pub async fn set(&self, name: String, value: String) -> Result<(), Fault> {
        let program = self.bundle.program();
        program.set_param(&mut program.manifest.params.clone(), &name, &value)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Fault::option(format!("a value of more than {VALUE_BYTES_MAX} bytes")));
        }
        self.wish(Wish::Change { key: name, value }).await;
        Ok(())
    }

    /// Wishes that no tick passes, or that ticks pass again, for all members.
    pub async fn pause(&self, is_paused: bool) {
        self.wish(Wish::Pause(is_paused)).await;
    }

    /// Leaves in good order: what this tab owns is handed over first. [`Member::status`] tells when it has.
    pub async fn leave(&self) {
        // One that is over is leaving already.
        let _ = self.session.send_async(Event::Leave).await;
    }
}

impl Member {
    async fn wish(&self, wish: Wish) {
        // One that is over has nobody to tell.
        let _ = self.session.send_async(Event::Wish(wish)).await;
    }

    fn take_part(&self, looking: flume::Receiver<Look>) -> impl Future<Output = ()> + 'static {
        let (executor, session, bundle, parts, state) =
            (self.executor.inner, self.session.clone(), self.bundle.clone(), self.parts.clone(), self.state.clone());
        let unseen = looking.clone();
        async move {
            let throttle = Throttle::default();
            let mut tell = |told: Told<'_>| state.borrow_mut().hear(&told, &parts);
            let node = MemberNode::new(executor, &bundle, &session, parts.clone(), Vec::new(), &throttle, &mut tell).shown(looking);
            let ended = match node.take_part().await {
                Ok(End::Finished(outcome)) => Ok(Ended::Finished { state_hash: outcome.state_hash }),
                Ok(End::Left) => Ok(Ended::Left),
                Err(error) => Err(Fault::from(error)),
            };
            state.borrow_mut().ended = Some(ended);
            // Whoever has asked meanwhile hears that nobody answers: what is in the channel would wait for its other end, which the asker keeps.
            drop(unseen.drain());
        }
    }

    fn field(&self, buffer: &str) -> Result<(usize, usize), Fault> {
        let program = self.bundle.program();
        let number = named(program, buffer)?;
        match program.manifest.buffers[number].extent {
            Extent::Field { grid } => Ok((number, grid)),
            _ => Err(Fault::option(format!("`{buffer}` is a table, and has no tiles"))),
        }
    }
}

/// What a bundle is: `name`, `version` and `hash`. Nothing of it has been compiled, and nothing will be that is not what `key` signed.
///
/// **Errors:** with a `code`: `"key"` if another key signed it, or none that is one was given; `"bundle"` if it was changed, or is none.
#[wasm_bindgen(js_name = verifyBundle)]
#[allow(unreachable_pub, reason = "JavaScript reaches it")]
pub fn verify_bundle(bundle: &[u8], key: &str) -> Result<Object, Fault> {
    // As links write it, or as key files do.
    let key: PublicKey = bytes_from_hex(key).map(PublicKey).map_or_else(|| key.parse(), Ok)?;
    let verified = VerifiedBundle::verify_signature(bundle, &Trust::key(key))?;
    let program = verified.program();
    Ok(object(&[
        ("name", program.manifest.name.as_str().into()),
        ("version", program.manifest.version.to_string().into()),
        ("hash", hex(&program.hash).into()),
    ]))
}

fn named(program: &Program, buffer: &str) -> Result<usize, Fault> {
    program.buffer(buffer).ok_or_else(|| Fault::option(format!("no buffer is called `{buffer}`")))
}

/// A plain object takes anything.
fn set(object: &Object, name: &str, value: &JsValue) {
    let _ = Reflect::set(object, &name.into(), value);
}

fn object(fields: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    fields.iter().for_each(|(name, value)| set(&object, name, value));
    object
}

/// Where the run's server is for whoever has its page: under the page's own address, whichever of several that is, and with the
/// identity that the link gives it.
fn root_address(page: &str, link: &Link) -> Option<String> {
    let relay = world::relays_at(&link.addresses).into_iter().next()?;
    let (_, identity) = relay.rsplit_once("/p2p/")?;
    Some(format!("{}/p2p/{identity}", PageAddress::parse(page)?.multiaddress(run_in(&relay))))
}
