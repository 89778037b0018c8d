//! Who owns which tile in the next epoch: shares that follow speed, keep borders short and move little.
//!
//! ```text
//!  nobody owns anything    bisection in proportion to speed
//!  somebody joined         newcomers take the tiles of those who went, then cut theirs out of the incumbents' shares:
//!                          of each as much as it has too much; no other tile moves
//!  somebody went           those who stay grow into what is free, at the pace of their room; no other tile moves
//!  speeds changed          tiles flow from who finishes late to who finishes early, over borders, along the shortest way
//! ```
//!
//! A tick of a grid takes as long as its last member: points owned over speed. Passes over several grids follow one another,
//! so each grid is balanced on its own, and the ticks add up. Borders are kept short; they are not in the prediction.
//!
//! **A steady network moves nothing.** [`improve`] moves only what brings the tick forward by [`Rules::gain_min`] and is
//! repaid soon. Measured speeds jitter, and an answer to jitter moves tiles for ever; so speeds go through
//! [`Speed`] first: what deviates from the speed that was acted on by less than the measurements scatter has not changed.
//!
//! Invariants: the result depends on the arguments alone; every tile has one owner, and no member more than its memory
//! holds, or there is an error and no result; no speed, however odd, panics.

mod board;
mod speed;
#[cfg(test)]
mod tests;

pub use speed::Speed;
use thiserror::Error;

use board::{Board, NOBODY};
use peercompute_buffers::{Grid, TileId};

use super::parts::{PartId, Parts};
use crate::ownership::{self, Ownership, PEERS_MAX, PeerIndex};

/// How near to the best that whole tiles allow a rebalance goes: the last percents would move the most tiles.
const SLACK: f64 = 0.02;
/// A first division keeps its straight borders unless others bring the tick forward by this much.
const STRAIGHT_LOSS_MAX: f64 = ownership::SNAP_LOSS_MAX;
/// How often tiles flow in one rebalance.
const FLOWS_MAX: usize = 8;
/// Up to so many tiles per member, a division without a thought for borders is tried as well, …
const SINGLY_TILES_MAX: usize = 4;
/// … and taken where it shortens the tick to less than this fraction.
const SINGLY_GAIN: f64 = 0.9;
/// What a link carries where nobody knows. **Units**: bytes per second.
pub const LINK_BYTES_PER_S_ASSUMED: f64 = 10e6;

/// What is known of a member when tiles are shared out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// **Units**: points per second. 0, or what is no number, is not known: it counts as the mean of those that are.
    pub speed: f64,
    /// Bytes of parts that it can own; the tables, which everybody holds, are not in it.
    pub memory: u64,
    /// **Units**: bytes per second that it can receive or send. 0, or what is no number, is not known: it counts as the mean of those
    /// that are.
    pub link_bytes_per_s: f64,
}

/// Why tiles cannot be shared out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShareError {
    /// Nobody is there, or more than can be.
    #[error("{given} members, there must be 1 to {PEERS_MAX}")]
    Members {
        /// How many there are.
        given: usize,
    },
    /// All memory together is too little.
    #[error("the tiles have {needed} bytes, all members together have memory for {room}: {} bytes are lacking", needed - room)]
    Memory {
        /// The bytes of all tiles.
        needed: u64,
        /// The bytes that members can own.
        room: u64,
    },
    /// There is memory enough, but in pieces that are too small.
    #[error("part {part} has {bytes} bytes, and no member has that much memory left: use smaller tiles")]
    Pieces {
        /// A part without a place.
        part: PartId,
        /// Its bytes.
        bytes: u64,
    },
}

/// When a move pays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The least fraction of a tick that must be gained.
    pub gain_min: f64,
    /// Within this time the gain must have repaid the move. **Units**: seconds.
    pub pays_within_s: f64,
    /// What a change of epoch costs beside the bytes. **Units**: seconds.
    pub switch_s: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { gain_min: 0.1, pays_within_s: 20.0, switch_s: 0.1 }
    }
}

/// A move that pays.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// Per tile part, its owner afterwards.
    pub owners: Vec<PeerIndex>,
    /// **Units**: seconds of computing per tick, as it is.
    pub tick_s_before: f64,
    /// … and afterwards.
    pub tick_s_after: f64,
    /// Bytes of the parts that change hands.
    pub bytes: u64,
    /// What the move costs, the change of epoch included. **Units**: seconds.
    pub cost_s: f64,
}

/// The owners of all tiles for a roster of `loads`, by place in it.
///
/// **Shapes**: `current[p]` is the place in the *new* roster of whoever owns tile part `p`; `None` where that one is gone or
/// goes. Members that own nothing in it are newcomers. Who stays keeps its tiles, but for what newcomers take.
///
/// **Errors**: [`ShareError`]; the roster cannot hold the state.
pub fn share_out(parts: &Parts, current: &[Option<PeerIndex>], loads: &[Load]) -> Result<Vec<PeerIndex>, ShareError> {
    if loads.is_empty() || loads.len() > PEERS_MAX {
        return Err(ShareError::Members { given: loads.len() });
    }
    let needed: u64 = tile_parts(parts).map(|part| u64::from(parts.bytes(part))).sum();
    let room = loads.iter().fold(0u64, |sum, load| sum.saturating_add(load.memory));
    if needed > room {
        return Err(ShareError::Memory { needed, room });
    }
    let mut deal = Deal::new(parts, loads, |part| current.get(part).copied().flatten().map(|owner| owner.0));
    let newcomers: Vec<bool> = (0..loads.len()).map(|member| !deal.owners.contains(&(member as u16))).collect();
    for grid in 0..parts.grids().len() {
        if newcomers.iter().all(|is_new| *is_new) {
            deal.divide(grid);
        } else {
            deal.hand_over(grid, &newcomers);
        }
    }
    deal.fit()?;
    Ok(deal.owners.into_iter().map(PeerIndex).collect())
}

/// A move that brings the tick forward by enough and soon repays what it costs; `None` where there is none.
///
/// Pass speeds that went through [`Speed::settle`]. Members keep at most their memory, unless they exceed it already.
pub fn improve(parts: &Parts, current: &[PeerIndex], loads: &[Load], rules: &Rules) -> Option<Move> {
    let is_known = loads.iter().any(|load| is_usable(load.speed));
    if !is_known || loads.len() > PEERS_MAX || current.len() != parts.tile_count() || current.iter().any(|owner| owner.at() >= loads.len()) {
        return None;
    }
    let tick_s_before = tick_s(parts, current, loads);
    // Nothing beyond the bound can be gained: most calls end here.
    if tick_s_before * (1.0 - rules.gain_min) < best_tick_s(parts, loads) * (1.0 - 1e-9) {
        return None;
    }
    let mut deal = Deal::new(parts, loads, |part| Some(current[part].0));
    for grid in 0..parts.grids().len() {
        deal.balance(grid);
    }
    // Clipped tiles are not of one size: what was rounded may not fit.
    deal.fit().ok()?;
    let owners: Vec<PeerIndex> = deal.owners.into_iter().map(PeerIndex).collect();
    let tick_s_after = tick_s(parts, &owners, loads);
    let (bytes, transfer_s) = transfer(parts, current, &owners, loads);
    let cost_s = rules.switch_s + transfer_s;
    let gain = 1.0 - tick_s_after / tick_s_before;
    let pays = bytes > 0 && gain >= rules.gain_min && cost_s <= rules.pays_within_s * gain;
    pays.then_some(Move { owners, tick_s_before, tick_s_after, bytes, cost_s })
}

/// The seconds of computing in a tick: over each grid, until its last member is done.
pub fn tick_s(parts: &Parts, owners: &[PeerIndex], loads: &[Load]) -> f64 {
    let speeds = speeds(loads);
    let mut total = 0.0;
    for grid in 0..parts.grids().len() {
        let mut load = vec![0.0; loads.len()];
        for part in parts_of(parts, grid) {
            if let Some(load) = owners.get(part).and_then(|owner| load.get_mut(owner.at())) {
                *load += parts.points(PartId(part as u32)) as f64;
            }
        }
        total += load.iter().zip(&speeds).map(|(load, speed)| load / speed).fold(0.0, f64::max);
    }
    total
}

/// No division has a shorter tick than this; were borders and memory free, one of whole tiles reached it.
///
/// Where a grid has clipped tiles, the bound is that of tiles as small as one likes.
pub fn best_tick_s(parts: &Parts, loads: &[Load]) -> f64 {
    let speeds = speeds(loads);
    let (none, unlimited) = (vec![0.0; loads.len()], vec![f64::INFINITY; loads.len()]);
    let best = |grid: &Grid| match grid.is_divisible() {
        true => level(grid.points() as f64, grid.tile_points() as f64, &speeds, &none, &unlimited),
        false => grid.points() as f64 / speeds.iter().sum::<f64>(),
    };
    parts.grids().iter().map(best).sum()
}

/// The speed to act on: the one `held` from before while `measured` is within `band` of it (a fraction), else the measured.
///
/// With a band of 0.12, a jitter of ±5 % from any two measurements never changes a speed.
pub fn steady_speed(held: f64, measured: f64, band: f64) -> f64 {
    match (is_usable(held), is_usable(measured)) {
        (true, true) if (measured / held - 1.0).abs() > band => measured,
        (false, true) => measured,
        _ => held,
    }
}

fn is_usable(speed: f64) -> bool {
    speed.is_finite() && speed > 0.0
}

/// Per member, a speed that can be divided by: unknown ones are the mean of the known, or all 1.
fn speeds(loads: &[Load]) -> Vec<f64> {
    or_mean(loads.iter().map(|load| load.speed), 1.0)
}

/// Values that can be divided by: unknown ones are the mean of the known, or all `otherwise`.
fn or_mean(values: impl Iterator<Item = f64> + Clone, otherwise: f64) -> Vec<f64> {
    // Neither sums nor quotients of these overflow or vanish.
    let known = |value: f64| is_usable(value).then(|| value.clamp(1e-3, 1e18));
    let (sum, count) = values.clone().filter_map(known).fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    let mean = if count == 0 { otherwise } else { sum / f64::from(count) };
    values.map(|value| known(value).unwrap_or(mean)).collect()
}

fn tile_parts(parts: &Parts) -> impl Iterator<Item = PartId> {
    (0..parts.tile_count() as u32).map(PartId)
}

/// The parts of a grid's tiles, in tile order.
fn parts_of(parts: &Parts, grid: usize) -> std::ops::Range<usize> {
    let first = parts.part_of(grid, TileId(0)).at();
    first..first + parts.grids()[grid].tile_count() as usize
}

/// The bytes that change hands, and how long the busiest link carries its part of them.
fn transfer(parts: &Parts, before: &[PeerIndex], after: &[PeerIndex], loads: &[Load]) -> (u64, f64) {
    let (mut sent, mut received, mut total) = (vec![0u64; loads.len()], vec![0u64; loads.len()], 0);
    for (part, (from, to)) in tile_parts(parts).zip(before.iter().zip(after)) {
        if from != to {
            let bytes = u64::from(parts.bytes(part));
            sent[from.at()] += bytes;
            received[to.at()] += bytes;
            total += bytes;
        }
    }
    let rates = or_mean(loads.iter().map(|load| load.link_bytes_per_s), LINK_BYTES_PER_S_ASSUMED);
    let seconds = rates.iter().zip(sent.iter().zip(&received)).map(|(rate, (sent, received))| *sent.max(received) as f64 / rate);
    (total, seconds.fold(0.0, f64::max))
}

/// The shortest time in which members that keep `kept` points each have taken `points` more, in whole tiles and within `limit`.
///
/// Infinite where the limits leave no room for them.
fn level(points: f64, tile_points: f64, speeds: &[f64], kept: &[f64], limit: &[f64]) -> f64 {
    let takes = |time: f64| -> f64 { (0..speeds.len()).map(|m| room_by(time, tile_points, speeds[m], kept[m], limit[m])).sum() };
    let slowest = speeds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = kept.iter().copied().fold(points, f64::max) + points + tile_points;
    let (mut low, mut high) = (0.0, most / slowest);
    if takes(high) < points {
        return f64::INFINITY;
    }
    // Halved until nothing is left between: the high end always does.
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if takes(middle) >= points { high = middle } else { low = middle }
    }
    high
}

/// The points that a member can take and be done by `time`, in whole tiles.
fn room_by(time: f64, tile_points: f64, speed: f64, kept: f64, limit: f64) -> f64 {
    // A hair more, so that a time that was computed from a count of tiles gives that count.
    let tiles = ((time * speed).min(limit) - kept) / tile_points;
    (tiles * (1.0 + 1e-12) + 1e-9).floor().max(0.0) * tile_points
}

/// Tiles being dealt out.
struct Deal<'a> {
    parts: &'a Parts,
    speeds: Vec<f64>,
    memory: Vec<u64>,
    /// Per part, the owner.
    owners: Vec<u16>,
    /// Per member, the bytes that it owns.
    bytes: Vec<u64>,
}

impl<'a> Deal<'a> {
    fn new(parts: &'a Parts, loads: &[Load], owner: impl Fn(usize) -> Option<u16>) -> Deal<'a> {
        let owners = (0..parts.tile_count()).map(|part| owner(part).filter(|owner| usize::from(*owner) < loads.len()).unwrap_or(NOBODY));
        let mut deal = Deal {
            parts,
            speeds: speeds(loads),
            memory: loads.iter().map(|load| load.memory).collect(),
            owners: owners.collect(),
            bytes: vec![0; loads.len()],
        };
        for part in 0..deal.owners.len() {
            deal.count(part, deal.owners[part], true);
        }
        deal
    }

    fn count(&mut self, part: usize, owner: u16, is_gained: bool) {
        let bytes = u64::from(self.parts.bytes(PartId(part as u32)));
        if let Some(owned) = self.bytes.get_mut(usize::from(owner)) {
            *owned = if is_gained { *owned + bytes } else { *owned - bytes };
        }
    }

    fn give(&mut self, part: usize, owner: u16) {
        self.count(part, self.owners[part], false);
        self.count(part, owner, true);
        self.owners[part] = owner;
    }

    fn members(&self) -> usize {
        self.speeds.len()
    }

    fn board(&self, grid: usize) -> Board {
        Board::new(&self.parts.grids()[grid], self.owners[parts_of(self.parts, grid)].to_vec(), self.members())
    }

    fn take_over(&mut self, grid: usize, board: &Board) {
        for (part, owner) in parts_of(self.parts, grid).zip(&board.owners) {
            if self.owners[part] != *owner {
                self.give(part, *owner);
            }
        }
    }

    fn tile_points(&self, grid: usize) -> f64 {
        self.parts.grids()[grid].tile_points() as f64
    }

    /// Per member, the points of a grid for which it has memory, beside what it owns of the others.
    fn limits(&self, grid: usize, board: &Board) -> Vec<f64> {
        let range = parts_of(self.parts, grid);
        let of_grid: u64 = range.map(|part| u64::from(self.parts.bytes(PartId(part as u32)))).sum();
        let points = self.parts.grids()[grid].points() as f64;
        let left = self.memory.iter().zip(&self.bytes).map(|(memory, bytes)| *memory as f64 - *bytes as f64);
        left.zip(&board.load)
            .map(|(left, load)| if of_grid == 0 { f64::INFINITY } else { (load + left * points / of_grid as f64).max(0.0) })
            .collect()
    }

    /// The end of a grid's tick that is best with whole tiles, within memory.
    fn best(&self, grid: usize, limits: &[f64]) -> f64 {
        level(self.parts.grids()[grid].points() as f64, self.tile_points(grid), &self.speeds, &vec![0.0; self.members()], limits)
    }

    /// Per member, the points of a grid that it can own and be done by `slack` times the best end.
    fn goals(&self, grid: usize, board: &Board, slack: f64) -> Vec<f64> {
        let limits = self.limits(grid, board);
        let best = self.best(grid, &limits) * slack;
        (0..self.members()).map(|m| room_by(best, self.tile_points(grid), self.speeds[m], 0.0, limits[m])).collect()
    }

    /// Divides a grid of which nobody owns anything.
    fn divide(&mut self, grid: usize) {
        let empty = self.board(grid);
        let goals = self.goals(grid, &empty, 1.0);
        let shape = &self.parts.grids()[grid..=grid];
        let divided = |weights: &[f64]| {
            let mut board = self.board(grid);
            let ownership = Ownership::split(shape, weights);
            ownership.grids[0].iter().enumerate().for_each(|(tile, owner)| board.give(tile, owner.0));
            board
        };
        let limits = self.limits(grid, &empty);
        let best = self.best(grid, &limits);
        let fits = |board: &Board| board.load.iter().zip(&limits).all(|(load, limit)| load <= limit);
        // By speed; else without those who are too slow, or have no memory, for one tile; else over crooked borders.
        let mut board = divided(&self.speeds);
        let others: [&dyn Fn() -> Board; 2] = [&|| divided(&goals), &|| {
            let mut crooked = divided(&goals);
            self.level_out(grid, &mut crooked);
            crooked
        }];
        for other in others {
            let end = self.end(&board) * (1.0 - STRAIGHT_LOSS_MAX);
            if fits(&board) && end <= best {
                break;
            }
            let other = other();
            if !fits(&board) || self.end(&other) < end {
                board = other;
            }
        }
        self.take_over(grid, &board);
    }

    /// Gives the tiles of those who went, and a share for newcomers; no other tile moves.
    fn hand_over(&mut self, grid: usize, newcomers: &[bool]) {
        let mut board = self.board(grid);
        let (tile_points, limits) = (self.tile_points(grid), self.limits(grid, &board));
        let all: f64 = self.parts.grids()[grid].points() as f64;
        let best = self.best(grid, &limits);
        let shares: Vec<f64> =
            self.goals(grid, &board, 1.0).into_iter().zip(newcomers).map(|(goal, is_new)| if *is_new { goal } else { 0.0 }).collect();
        let wanted = self.fair(all, tile_points, &shares, newcomers);
        let free: f64 = board.tiles_of(NOBODY).iter().map(|tile| f64::from(board.points[*tile as usize])).sum();
        if free > wanted {
            // More than newcomers want: those who stay grow into the rest.
            let kept = board.load.clone();
            let limits: Vec<f64> = limits.iter().zip(newcomers).map(|(limit, is_new)| if *is_new { 0.0 } else { *limit }).collect();
            let time = level(free - wanted, tile_points, &self.speeds, &kept, &limits);
            let mut room: Vec<f64> = (0..self.members()).map(|m| room_by(time, tile_points, self.speeds[m], kept[m], limits[m])).collect();
            board.grow(&mut room);
            // Who is not beside them, and newcomers, divide what is left.
            let weights: Vec<f64> = shares.iter().zip(&room).map(|(share, room)| share + room).collect();
            self.deal_free(grid, &mut board, &weights);
        } else if wanted > 0.0 {
            board.carve(&self.late(&board, tile_points, wanted - free));
            self.deal_free(grid, &mut board, &shares);
        }
        let before = self.board(grid);
        board.polish(&self.speeds, &limits, |tile, to| newcomers[to] || before.owners[tile] == NOBODY, best * (1.0 + SLACK));
        // Where tiles are few, a share can cost more than it brings.
        if free > 0.0 || self.end(&board) < self.end(&before) {
            self.take_over(grid, &board);
        }
    }

    /// The points that newcomers take together: in proportion to their speed, in whole tiles, within their shares.
    fn fair(&self, all: f64, tile_points: f64, shares: &[f64], newcomers: &[bool]) -> f64 {
        let of_newcomers: f64 = self.speeds.iter().zip(newcomers).filter(|(_, is_new)| **is_new).map(|(speed, _)| speed).sum();
        let fair = all * of_newcomers / self.speeds.iter().sum::<f64>();
        ((fair / tile_points).round() * tile_points).min(shares.iter().sum())
    }

    /// `points` in whole tiles, taken one by one from whoever finishes last.
    fn late(&self, board: &Board, tile_points: f64, points: f64) -> Vec<f64> {
        let mut budgets = vec![0.0; self.members()];
        let mut owners: std::collections::BinaryHeap<(Late, std::cmp::Reverse<usize>)> =
            (0..self.members()).map(|m| (Late(board.load[m] / self.speeds[m]), std::cmp::Reverse(m))).collect();
        for _ in 0..(points / tile_points).round() as usize {
            let Some((_, std::cmp::Reverse(member))) = owners.pop() else { break };
            budgets[member] += tile_points;
            owners.push((Late((board.load[member] - budgets[member]) / self.speeds[member]), std::cmp::Reverse(member)));
        }
        budgets
    }

    /// Divides the free tiles of a grid by weight; all weights 0 leave them free.
    fn deal_free(&self, grid: usize, board: &mut Board, weights: &[f64]) {
        let takers: Vec<usize> = (0..weights.len()).filter(|member| weights[*member] > 0.0).collect();
        if takers.is_empty() {
            return;
        }
        let free = board.tiles_of(NOBODY);
        let weights: Vec<f64> = takers.iter().map(|member| weights[*member]).collect();
        let mut owners = vec![PeerIndex(0); board.owners.len()];
        ownership::split_tiles(&self.parts.grids()[grid], free.iter().map(|tile| TileId(*tile)), &weights, &mut owners);
        for tile in free {
            board.give(tile as usize, takers[owners[tile as usize].at()] as u16);
        }
    }

    /// Lets tiles of a grid follow speed, where that brings its end forward at all.
    fn balance(&mut self, grid: usize) {
        let before = self.board(grid);
        let mut board = self.board(grid);
        self.level_out(grid, &mut board);
        if self.end(&board) < self.end(&before) * (1.0 - SLACK) {
            self.take_over(grid, &board);
        }
    }

    /// When the last member is done with a grid.
    fn end(&self, board: &Board) -> f64 {
        board.load.iter().zip(&self.speeds).map(|(load, speed)| load / speed).fold(0.0, f64::max)
    }

    /// Moves tiles over borders from those who finish late to those who finish early, until all end near the best.
    fn level_out(&self, grid: usize, board: &mut Board) {
        let (tile_points, limits) = (self.tile_points(grid), self.limits(grid, board));
        let goal = self.goals(grid, board, 1.0 + SLACK);
        let excess = |board: &Board| board.load.iter().zip(&goal).map(|(load, goal)| (load - goal).max(0.0)).collect::<Vec<f64>>();
        let lack = |board: &Board| board.load.iter().zip(&goal).map(|(load, goal)| (goal - load).max(0.0)).collect::<Vec<f64>>();
        // Who owns nothing has no border to grow from: what only it can take is cut out for it.
        let (empty, others): (Vec<f64>, Vec<f64>) =
            lack(board).iter().zip(&board.load).map(|(lack, load)| if *load == 0.0 { (*lack, 0.0) } else { (0.0, *lack) }).unzip();
        let wanted = (excess(board).iter().sum::<f64>() - others.iter().sum::<f64>()).min(empty.iter().sum());
        if wanted >= tile_points / 2.0 {
            board.carve(&self.late(board, tile_points, wanted));
            self.deal_free(grid, board, &empty);
        }
        // Shares change shape as tiles flow through them, and ways that were there are gone: what got stuck flows on.
        for _ in 0..FLOWS_MAX {
            let (over, mut under) = (excess(board), lack(board));
            (0..self.members()).filter(|member| board.load[*member] == 0.0).for_each(|member| under[member] = 0.0);
            if over.iter().all(|over| *over < tile_points / 2.0) {
                break;
            }
            self.flow(board, over, under, tile_points);
        }
        board.polish(&self.speeds, &limits, |_, _| true, self.best(grid, &limits) * (1.0 + SLACK));
        if board.owners.len() <= SINGLY_TILES_MAX * self.members() {
            let mut singly = self.board(grid);
            singly.deal_singly(&self.speeds, &limits);
            if !singly.owners.contains(&NOBODY) && self.end(&singly) < self.end(board) * SINGLY_GAIN {
                *board = singly;
            }
        }
    }

    /// Moves what is over to where something lacks, each time to the nearest such member.
    fn flow(&self, board: &mut Board, mut over: Vec<f64>, mut under: Vec<f64>, tile_points: f64) {
        let borders = board.borders();
        let mut late: Vec<usize> = (0..self.members()).filter(|member| over[*member] > 0.0).collect();
        late.sort_by(|a, b| (over[*b] / self.speeds[*b]).total_cmp(&(over[*a] / self.speeds[*a])).then(a.cmp(b)));
        for from in late {
            // Each turn empties the one who gives or fills one who takes.
            for _ in 0..self.members() {
                let Some(way) = way(&borders, from, &under, tile_points) else { break };
                let to = way[way.len() - 1];
                let amount = over[from].min(under[to]);
                let mut moved = amount;
                for step in way.windows(2) {
                    moved = board.shift(step[0] as u16, step[1] as u16, moved);
                }
                over[from] -= amount;
                under[to] -= amount;
                if over[from] < tile_points / 2.0 {
                    break;
                }
            }
        }
    }

    /// Finds places for tiles without an owner and for those that somebody has no memory for.
    fn fit(&mut self) -> Result<(), ShareError> {
        for part in (0..self.owners.len()).rev() {
            let owner = usize::from(self.owners[part]);
            if self.bytes.get(owner).is_some_and(|bytes| *bytes > self.memory[owner]) {
                self.give(part, NOBODY);
            }
        }
        if self.place().is_err() {
            // Once more, from the largest to the smallest, with nobody keeping anything.
            (0..self.owners.len()).for_each(|part| self.give(part, NOBODY));
            self.place()?;
        }
        Ok(())
    }

    /// Gives each tile without an owner to whoever has the memory and then finishes first.
    fn place(&mut self) -> Result<(), ShareError> {
        let mut free: Vec<usize> = (0..self.owners.len()).filter(|part| self.owners[*part] == NOBODY).collect();
        free.sort_by_key(|part| (std::cmp::Reverse(self.parts.bytes(PartId(*part as u32))), *part));
        let mut load = vec![0.0; self.members()];
        for part in 0..self.owners.len() {
            if let Some(load) = load.get_mut(usize::from(self.owners[part])) {
                *load += self.parts.points(PartId(part as u32)) as f64;
            }
        }
        for part in free {
            let id = PartId(part as u32);
            let (bytes, points) = (u64::from(self.parts.bytes(id)), self.parts.points(id) as f64);
            let fitting = (0..self.members()).filter(|m| self.memory[*m] - self.bytes[*m].min(self.memory[*m]) >= bytes);
            let first = fitting.min_by(|a, b| ((load[*a] + points) / self.speeds[*a]).total_cmp(&((load[*b] + points) / self.speeds[*b])));
            let Some(member) = first else { return Err(ShareError::Pieces { part: id, bytes }) };
            load[member] += points;
            self.give(part, member as u16);
        }
        Ok(())
    }
}

/// The shortest way over borders from a member to one that can take a tile.
fn way(borders: &[(u16, u16)], from: usize, under: &[f64], tile_points: f64) -> Option<Vec<usize>> {
    let mut before = vec![usize::MAX; under.len()];
    before[from] = from;
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(member) = queue.pop_front() {
        if under[member] >= tile_points / 2.0 {
            let mut way = vec![member];
            while way[way.len() - 1] != from {
                way.push(before[way[way.len() - 1]]);
            }
            way.reverse();
            return Some(way);
        }
        let first = borders.partition_point(|(a, _)| usize::from(*a) < member);
        for (_, next) in borders[first..].iter().take_while(|(a, _)| usize::from(*a) == member) {
            if before[usize::from(*next)] == usize::MAX {
                before[usize::from(*next)] = member;
                queue.push_back(usize::from(*next));
            }
        }
    }
    None
}

/// A time, in order.
struct Late(f64);

impl PartialEq for Late {
    fn eq(&self, other: &Late) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Late) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Late {
    fn cmp(&self, other: &Late) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
