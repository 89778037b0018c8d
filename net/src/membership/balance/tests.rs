//! Shares drawn as digits, and what must hold of every one.

use proptest::prelude::*;

use super::*;

const POINT_BYTES: u64 = 4;

fn grid(tiles: &[u32]) -> Grid {
    let shape: Vec<u32> = tiles.iter().map(|n| n * 16).collect();
    Grid::new(&shape, &vec![16; tiles.len()]).unwrap()
}

fn parts(grids: &[Grid]) -> Parts {
    Parts::new(grids, &vec![POINT_BYTES; grids.len()], 64).unwrap()
}

fn load(speed: f64) -> Load {
    Load { speed, memory: u64::MAX, link_bytes_per_s: 0.0 }
}

fn loads(speeds: &[f64]) -> Vec<Load> {
    speeds.iter().copied().map(load).collect()
}

fn draw(grid: &Grid, owners: &[PeerIndex]) -> Vec<String> {
    let digit = |owner: &PeerIndex| char::from_digit(u32::from(owner.0), 36).unwrap_or('#');
    owners.chunks(grid.tiles_per_axis()[0] as usize).map(|row| row.iter().map(digit).collect()).collect()
}

/// Owners from rows of digits; a dot is nobody's.
fn drawn(rows: &[&str]) -> Vec<Option<PeerIndex>> {
    rows.iter().flat_map(|row| row.chars()).map(|owner| owner.to_digit(36).map(|owner| PeerIndex(owner as u16))).collect()
}

/// Shares out a flat grid as drawn.
fn check(speeds: &[f64], current: &[&str], expected: &[&str]) {
    let grid = grid(&[current[0].len() as u32, current.len() as u32]);
    let owners = share_out(&parts(&[grid]), &drawn(current), &loads(speeds)).unwrap();
    assert_eq!(draw(&grid, &owners), expected);
}

fn border(grid: &Grid, owners: &[PeerIndex], members: usize) -> usize {
    Board::new(grid, owners.iter().map(|owner| owner.0).collect(), members).border()
}

fn counts(owners: &[PeerIndex], members: usize) -> Vec<usize> {
    (0..members).map(|member| owners.iter().filter(|owner| owner.at() == member).count()).collect()
}

/// The owners that a list of options names, where all of them are there.
fn all(current: Vec<Option<PeerIndex>>) -> Vec<PeerIndex> {
    current.into_iter().flatten().collect()
}

/// What a division without a thought for borders reaches: the largest tiles first, each to who is then done first.
fn offline_tick_s(parts: &Parts, speeds: &[f64]) -> f64 {
    let mut total = 0.0;
    for grid in 0..parts.grids().len() {
        let mut points: Vec<u64> = parts_of(parts, grid).map(|part| parts.points(PartId(part as u32))).collect();
        points.sort_unstable_by(|a, b| b.cmp(a));
        let mut end = vec![0.0; speeds.len()];
        for points in points {
            let then = |member: usize| end[member] + points as f64 / speeds[member];
            let first = (0..speeds.len()).min_by(|a, b| then(*a).total_cmp(&then(*b))).unwrap();
            end[first] = then(first);
        }
        total += end.into_iter().fold(0.0, f64::max);
    }
    total
}

const AT_ANY_PRICE: Rules = Rules { gain_min: 0.0, pays_within_s: f64::INFINITY, switch_s: 0.0 };
const QUADRANTS: [&str; 8] = ["00001111", "00001111", "00001111", "00001111", "22223333", "22223333", "22223333", "22223333"];

#[test]
fn whoever_comes_first_gets_a_compact_share() {
    check(&[1.0; 4], &["........"; 8], &QUADRANTS);
    check(&[3.0, 1.0], &["........"; 2], &["00000011"; 2]);
    // Speeds that say nothing count as equal, one that does not as the mean.
    check(&[0.0, f64::NAN], &["........"], &["00001111"]);
    check(&[2.0, 0.0, 4.0, f64::INFINITY], &["............"], &["001112222333"]);
}

#[test]
fn a_newcomer_takes_of_each_what_it_has_too_much() {
    check(&[1.0, 1.0], &["00000000"; 4], &["00001111", "00001111", "00001111", "00001111"]);
    check(&[2.0, 1.0, 1.0], &["00000000", "00000000", "00001111", "00001111"], &["00002222", "00002222", "00001111", "00001111"]);
    check(&[1.0; 5], &QUADRANTS, &["00001111", "00001111", "00444111", "00444411", "22444433", "22244333", "22223333", "22223333"]);
}

#[test]
fn a_newcomer_takes_the_place_of_who_went() {
    check(&[1.0; 4], &["....1111", "....1111", "22220000", "22220000"], &["33331111", "33331111", "22220000", "22220000"]);
}

#[test]
fn who_stays_grows_into_what_is_free() {
    check(&[1.0; 3], &["00011122", "00011122", "0001.122", "00011122"], &["00011122", "00011122", "00012122", "00011122"]);
    check(&[1.0, 1.0], &["11....00"; 2], &["11110000"; 2]);
    check(&[3.0, 1.0], &["000....1"], &["00000011"]);
}

#[test]
fn a_slow_member_sheds_tiles_at_its_borders_and_gets_them_back() {
    let grid = grid(&[8, 8]);
    let parts = parts(&[grid]);
    let slow = loads(&[100.0, 100.0, 100.0, 25.0]);
    let shed = improve(&parts, &all(drawn(&QUADRANTS)), &slow, &AT_ANY_PRICE).unwrap();
    assert_eq!(draw(&grid, &shed.owners), ["00000111", "00000111", "00000111", "00001111", "22221111", "22222211", "22222331", "22222333"]);
    assert_eq!((shed.tick_s_before, shed.tick_s_after, shed.bytes), (16.0 * 256.0 / 25.0, 20.0 * 256.0 / 100.0, 14 * 256 * POINT_BYTES));
    let back = improve(&parts, &shed.owners, &loads(&[100.0; 4]), &AT_ANY_PRICE).unwrap();
    assert_eq!(draw(&grid, &back.owners), QUADRANTS);
}

#[test]
fn who_owns_nothing_is_cut_a_share() {
    let grid = grid(&[8, 8]);
    let parts = parts(&[grid]);
    let gone = improve(&parts, &all(drawn(&QUADRANTS)), &loads(&[1.0, 1.0, 1.0, 1e-6]), &AT_ANY_PRICE).unwrap();
    assert_eq!(counts(&gone.owners, 4)[3], 0);
    let back = improve(&parts, &gone.owners, &loads(&[1.0; 4]), &AT_ANY_PRICE).unwrap();
    assert_eq!(counts(&back.owners, 4), [16; 4]);
}

#[test]
fn few_tiles_of_different_sizes_change_places() {
    let parts = parts(&[Grid::new(&[4], &[3]).unwrap()]);
    let swapped = improve(&parts, &[PeerIndex(0), PeerIndex(1)], &loads(&[1.0, 2.0]), &AT_ANY_PRICE).unwrap();
    assert_eq!((swapped.owners, swapped.tick_s_after), (vec![PeerIndex(1), PeerIndex(0)], 1.5));
}

#[test]
fn four_with_one_at_a_quarter_reach_what_is_best() {
    for side in [8, 16] {
        let parts = parts(&[grid(&[side, side])]);
        let even = share_out(&parts, &vec![None; parts.tile_count()], &loads(&[1.0; 4])).unwrap();
        for slow in 0..4 {
            let mut speeds = [1.0; 4];
            speeds[slow] = 0.25;
            let after = improve(&parts, &even, &loads(&speeds), &Rules { pays_within_s: f64::INFINITY, ..Rules::default() }).unwrap();
            let offline = offline_tick_s(&parts, &speeds);
            assert!(offline >= 0.97 * after.tick_s_after, "{side}: {} {offline}", after.tick_s_after);
            assert!((best_tick_s(&parts, &loads(&speeds)) / offline - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn a_move_must_pay() {
    let parts = parts(&[grid(&[8, 8])]);
    let current = all(drawn(&QUADRANTS));
    let with = |link: f64, rules: Rules| {
        let mut loads = loads(&[100.0, 100.0, 100.0, 25.0]);
        loads.iter_mut().for_each(|load| load.link_bytes_per_s = link);
        improve(&parts, &current, &loads, &rules)
    };
    let rules = Rules::default();
    let pays = with(1e6, rules).unwrap();
    // The slow member sends eleven tiles; nobody else sends or receives more.
    assert_eq!(pays.cost_s, rules.switch_s + 11.0 * 1024.0 / 1e6);
    assert_eq!(with(1e6, Rules { gain_min: 0.7, ..rules }), None);
    assert_eq!(with(100.0, rules), None);
    // One link is known, and the others count as it.
    let mut one = loads(&[100.0, 100.0, 100.0, 25.0]);
    one[0].link_bytes_per_s = 1e5;
    assert_eq!(improve(&parts, &current, &one, &rules).unwrap().cost_s, rules.switch_s + 11.0 * 1024.0 / 1e5);
    assert_eq!(with(1e6, Rules { switch_s: 30.0, ..rules }), None);
    // Nobody has measured anything: there are no seconds to gain.
    assert_eq!(improve(&parts, &all(drawn(&["0000000000000001"; 4])), &loads(&[0.0; 2]), &AT_ANY_PRICE), None);
}

#[test]
fn memory_bounds_a_share() {
    let grid = grid(&[8, 1]);
    let parts = parts(&[grid]);
    let tile = u64::from(parts.bytes(PartId(0)));
    let with = |tiles: [u64; 2]| tiles.map(|n| Load { memory: n * tile, ..load(1.0) });
    let split = |tiles: [u64; 2], current: &str| share_out(&parts, &drawn(&[current]), &with(tiles)).map(|owners| draw(&grid, &owners).concat());
    assert_eq!(split([2, 9], "........").unwrap(), "00111111");
    assert_eq!(split([9, 1], "00000000").unwrap(), "00000001");
    assert_eq!(split([9, 3], "00..11..").unwrap().matches('1').count(), 3);
    assert_eq!(split([6, 9], "00000000").unwrap().matches('0').count(), 4);
    // What no longer fits goes.
    assert_eq!(split([3, 9], "00000011").unwrap(), "00011111");
    assert_eq!(split([2, 5], "00000011"), Err(ShareError::Memory { needed: 8 * tile, room: 7 * tile }));
    let lacking = ShareError::Memory { needed: 8, room: 5 }.to_string();
    assert!(lacking.contains("3 bytes are lacking"), "{lacking}");
    let halves = [9 * tile / 2, 7 * tile / 2].map(|memory| Load { memory, ..load(1.0) });
    assert!(matches!(share_out(&parts, &[None; 8], &halves), Err(ShareError::Pieces { .. })));
}

#[test]
fn rosters_that_cannot_be_are_refused() {
    let parts = parts(&[grid(&[2])]);
    assert_eq!(share_out(&parts, &[None; 2], &[]), Err(ShareError::Members { given: 0 }));
    assert_eq!(share_out(&parts, &[None; 2], &loads(&vec![1.0; PEERS_MAX + 1])), Err(ShareError::Members { given: PEERS_MAX + 1 }));
    // Lists that do not fit name nobody.
    assert_eq!(share_out(&parts, &[Some(PeerIndex(9))], &loads(&[1.0])).unwrap(), [PeerIndex(0); 2]);
    assert_eq!(improve(&parts, &[PeerIndex(9); 2], &loads(&[1.0]), &AT_ANY_PRICE), None);
    assert_eq!(improve(&parts, &[PeerIndex(0)], &loads(&[1.0]), &AT_ANY_PRICE), None);
}

#[test]
fn a_speed_holds_within_its_band() {
    assert_eq!(steady_speed(100.0, 111.0, 0.12), 100.0);
    assert_eq!(steady_speed(100.0, 113.0, 0.12), 113.0);
    assert_eq!(steady_speed(100.0, 87.0, 0.12), 87.0);
    assert_eq!(steady_speed(0.0, 5.0, 0.12), 5.0);
    assert_eq!(steady_speed(5.0, f64::NAN, 0.12), 5.0);
    assert_eq!(steady_speed(95.0, 105.0, 0.12), 95.0);
}

#[test]
fn the_largest_grid_is_shared_out() {
    let grid = Grid::new(&[255 * 4, 257 * 4], &[4, 4]).unwrap();
    let parts = parts(&[grid]);
    let speeds: Vec<f64> = (0..64).map(|m| 1.0 + f64::from(m % 7)).collect();
    let fresh = share_out(&parts, &vec![None; parts.tile_count()], &loads(&speeds)).unwrap();
    let named: Vec<_> = fresh.iter().copied().map(Some).collect();
    let joined = share_out(&parts, &named, &loads(&[speeds.as_slice(), &[3.0, 5.0]].concat())).unwrap();
    let lost: Vec<_> = fresh.iter().map(|owner| (owner.0 > 0).then(|| PeerIndex(owner.0 - 1))).collect();
    let left = share_out(&parts, &lost, &loads(&speeds[1..])).unwrap();
    let throttled: Vec<f64> = speeds.iter().zip(0..).map(|(speed, m)| if m % 5 == 0 { speed / 4.0 } else { *speed }).collect();
    let balanced = improve(&parts, &fresh, &loads(&throttled), &AT_ANY_PRICE).unwrap();
    let all_joined = share_out(&parts, &vec![Some(PeerIndex(0)); parts.tile_count()], &loads(&speeds)).unwrap();
    for (owners, speeds) in
        [(&joined, [speeds.as_slice(), &[3.0, 5.0]].concat()), (&left, speeds[1..].to_vec()), (&balanced.owners, throttled), (&all_joined, speeds)]
    {
        let ratio = tick_s(&parts, owners, &loads(&speeds)) / best_tick_s(&parts, &loads(&speeds));
        assert!((0.999..1.1).contains(&ratio), "{ratio}");
    }
}

/// One to three axes, tiles that may be clipped.
fn any_grid() -> impl Strategy<Value = Grid> {
    let axis = |most: u32| (1..=most, 1u32..5, 0u32..4).prop_map(|(tiles, tile, short)| (tiles * tile - short.min(tile - 1), tile));
    prop_oneof![prop::collection::vec(axis(40), 1), prop::collection::vec(axis(16), 2), prop::collection::vec(axis(6), 3),].prop_map(|axes| {
        let (shape, tile): (Vec<u32>, Vec<u32>) = axes.into_iter().unzip();
        Grid::new(&shape, &tile).unwrap()
    })
}

fn any_speeds(most: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.2f64..5.0, 1..=most)
}

/// Owners as a run would have them: shared out, then changed by speeds that changed.
fn settled(parts: &Parts, speeds: &[f64], changed: &[f64]) -> Vec<PeerIndex> {
    let fresh = share_out(parts, &vec![None; parts.tile_count()], &loads(speeds)).unwrap();
    improve(parts, &fresh, &loads(changed), &AT_ANY_PRICE).map_or(fresh, |better| better.owners)
}

/// The seconds that the slowest member needs for half a tile of each grid, and the fastest for a whole one: what rounding may cost.
fn rounding_s(parts: &Parts, speeds: &[f64]) -> f64 {
    let (slowest, fastest) = speeds.iter().fold((f64::INFINITY, 0.0f64), |(low, high), speed| (low.min(*speed), high.max(*speed)));
    parts.grids().iter().map(|grid| grid.tile_points() as f64 * (0.5 / slowest + 1.0 / fastest)).sum()
}

proptest! {
    #[test]
    fn a_first_division_is_as_good_as_bisection(grids in prop::collection::vec(any_grid(), 1..3), speeds in any_speeds(12)) {
        let parts = parts(&grids);
        let owners = share_out(&parts, &vec![None; parts.tile_count()], &loads(&speeds)).unwrap();
        prop_assert_eq!(&owners, &share_out(&parts, &vec![None; parts.tile_count()], &loads(&speeds)).unwrap());
        let split: Vec<PeerIndex> = Ownership::split(&grids, &speeds).grids.concat();
        let (ours, theirs) = (tick_s(&parts, &owners, &loads(&speeds)), tick_s(&parts, &split, &loads(&speeds)));
        prop_assert!(ours <= theirs * (1.0 + 1e-9));
        prop_assert!(ours >= best_tick_s(&parts, &loads(&speeds)) * (1.0 - 1e-6));
        for (index, grid) in grids.iter().enumerate() {
            let (ours, theirs) = (&owners[parts_of(&parts, index)], &split[parts_of(&parts, index)]);
            let (ours, theirs) = (border(grid, ours, speeds.len()), border(grid, theirs, speeds.len()));
            let is_coarse = grid.tile_count() as usize <= SINGLY_TILES_MAX * speeds.len();
            prop_assert!(is_coarse || ours <= theirs + theirs / 2 + 8, "borders of {} instead of {}", ours, theirs);
        }
    }

    #[test]
    fn in_a_join_tiles_move_to_newcomers_alone(
        grids in prop::collection::vec(any_grid(), 1..3), speeds in any_speeds(8), changed in any_speeds(8), new in any_speeds(4),
    ) {
        let parts = parts(&grids);
        let changed: Vec<f64> = speeds.iter().zip(changed.iter().chain(std::iter::repeat(&1.0))).map(|(speed, change)| speed * change).collect();
        let before = settled(&parts, &speeds, &changed);
        let roster = loads(&[changed.as_slice(), &new].concat());
        let named: Vec<_> = before.iter().copied().map(Some).collect();
        let after = share_out(&parts, &named, &roster).unwrap();
        let idle: Vec<bool> = counts(&before, roster.len()).iter().map(|count| *count == 0).collect();
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before == after || idle[after.at()], "{} to {}", before, after);
        }
        let (was, is) = (tick_s(&parts, &before, &roster), tick_s(&parts, &after, &roster));
        prop_assert!(is <= was * (1.0 + 1e-9));
        // As near to the best as the incumbents were.
        let gap = was / best_tick_s(&parts, &roster[..changed.len()]);
        let rounding = rounding_s(&parts, &roster.iter().map(|load| load.speed).collect::<Vec<_>>());
        // Bisection counts tiles, so clipped ones make shares of newcomers less even.
        let uneven = if grids.iter().all(Grid::is_divisible) { 1.1 } else { 1.3 };
        prop_assert!(is <= gap * best_tick_s(&parts, &roster) * uneven + rounding, "{} {} {}", is, gap, best_tick_s(&parts, &roster));
    }

    #[test]
    fn in_a_loss_only_free_tiles_move(
        grids in prop::collection::vec(any_grid(), 1..3), speeds in prop::collection::vec(0.2f64..5.0, 2..9), lost in any::<prop::sample::Index>(),
    ) {
        let parts = parts(&grids);
        let before = settled(&parts, &speeds, &speeds);
        let lost = lost.index(speeds.len());
        let place = |owner: PeerIndex| (owner.at() != lost).then(|| PeerIndex(owner.0 - u16::from(owner.at() > lost)));
        let named: Vec<_> = before.iter().copied().map(place).collect();
        let mut left = speeds.clone();
        left.remove(lost);
        let idle_free = (0..speeds.len()).filter(|m| *m != lost).all(|m| before.iter().any(|owner| owner.at() == m));
        let after = share_out(&parts, &named, &loads(&left)).unwrap();
        for (before, after) in named.iter().zip(&after) {
            prop_assert!(before.is_none_or(|before| before == *after) || !idle_free);
        }
        // Nobody ends later than it did, or than the best that the survivors could have done with all tiles.
        let bound = tick_s(&parts, &before, &loads(&speeds)).max(best_tick_s(&parts, &loads(&left)) * 1.05) + rounding_s(&parts, &left);
        prop_assert!(tick_s(&parts, &after, &loads(&left)) <= bound, "{} {}", tick_s(&parts, &after, &loads(&left)), bound);
    }

    #[test]
    fn a_rebalance_reaches_the_best(grids in prop::collection::vec(any_grid(), 1..3), speeds in any_speeds(10), changes in any_speeds(10)) {
        let parts = parts(&grids);
        let even = share_out(&parts, &vec![None; parts.tile_count()], &loads(&speeds)).unwrap();
        let speeds: Vec<f64> = speeds.iter().zip(changes.iter().chain(std::iter::repeat(&1.0))).map(|(speed, change)| speed * change).collect();
        let (mut owners, mut rounds) = (even, 0);
        while let Some(better) = improve(&parts, &owners, &loads(&speeds), &Rules { gain_min: 0.01, ..AT_ANY_PRICE }) {
            prop_assert!(better.tick_s_after <= better.tick_s_before * 0.99 * (1.0 + 1e-9));
            prop_assert_eq!(better.tick_s_after, tick_s(&parts, &better.owners, &loads(&speeds)));
            owners = better.owners;
            rounds += 1;
        }
        prop_assert!(rounds <= 3, "{} rounds", rounds);
        let (ours, offline) = (tick_s(&parts, &owners, &loads(&speeds)), offline_tick_s(&parts, &speeds));
        // Clipped tiles are rounded to half a tile.
        let rounding = if grids.iter().all(Grid::is_divisible) { 1e-9 } else { rounding_s(&parts, &speeds) };
        prop_assert!(ours <= offline / 0.9 + rounding, "{} instead of {}", ours, offline);
    }

    #[test]
    fn jitter_moves_nothing_once_settled(grid in any_grid(), speeds in any_speeds(8), changes in any_speeds(8), seed in any::<u64>()) {
        let parts = parts(&[grid]);
        let mut random = fastrand::Rng::with_seed(seed);
        let owners = share_out(&parts, &vec![None; parts.tile_count()], &loads(&speeds)).unwrap();
        let speeds: Vec<f64> = speeds.iter().zip(changes.iter().chain(std::iter::repeat(&1.0))).map(|(speed, change)| speed * change).collect();
        let rules = Rules { pays_within_s: f64::INFINITY, ..Rules::default() };
        let mut held = vec![0.0; speeds.len()];
        let (mut owners, mut moves) = (owners, Vec::new());
        for round in 0..40 {
            for (held, speed) in held.iter_mut().zip(&speeds) {
                *held = steady_speed(*held, speed * (0.95 + 0.1 * random.f64()), 0.12);
            }
            if let Some(better) = improve(&parts, &owners, &loads(&held), &rules) {
                owners = better.owners;
                moves.push(round);
            }
        }
        prop_assert!(moves.iter().all(|round| *round < 3), "{:?}", moves);
    }

    #[test]
    fn memory_is_never_exceeded(
        grids in prop::collection::vec(any_grid(), 1..3), speeds in any_speeds(8), memory in prop::collection::vec(0u64..400, 8), seed in any::<u64>(),
    ) {
        let parts = parts(&grids);
        let needed: u64 = tile_parts(&parts).map(|part| u64::from(parts.bytes(part))).sum();
        let loads: Vec<Load> = speeds.iter().zip(&memory).map(|(speed, percent)| Load { memory: needed * percent / 100, ..load(*speed) }).collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let current: Vec<_> = (0..parts.tile_count()).map(|_| Some(PeerIndex(random.u16(0..12))).filter(|owner| owner.at() < loads.len())).collect();
        let within = |owners: &[PeerIndex]| {
            let mut bytes = vec![0; loads.len()];
            owners.iter().zip(tile_parts(&parts)).for_each(|(owner, part)| bytes[owner.at()] += u64::from(parts.bytes(part)));
            bytes.iter().zip(&loads).all(|(bytes, load)| *bytes <= load.memory)
        };
        let room: u64 = loads.iter().map(|load| load.memory).sum();
        for current in [current, vec![None; parts.tile_count()]] {
            match share_out(&parts, &current, &loads) {
                Ok(owners) => {
                    prop_assert!(within(&owners));
                    if let Some(better) = improve(&parts, &owners, &loads, &AT_ANY_PRICE) {
                        prop_assert!(within(&better.owners));
                    }
                }
                Err(ShareError::Memory { .. }) => prop_assert!(needed > room),
                Err(ShareError::Pieces { bytes, .. }) => {
                    let largest = parts.grids().iter().map(|grid| grid.tile_points() * POINT_BYTES).max().unwrap();
                    prop_assert!(bytes <= largest && room - needed < largest * loads.len() as u64);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }

    #[test]
    fn nothing_panics_on_odd_speeds(
        grids in prop::collection::vec(any_grid(), 1..3), odd in prop::collection::vec((any::<f64>(), any::<f64>(), any::<u64>()), 0..8), seed in any::<u64>(),
    ) {
        let parts = parts(&grids);
        let loads: Vec<Load> = odd.iter().map(|(speed, link, memory)| Load { speed: *speed, memory: *memory, link_bytes_per_s: *link }).collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let current: Vec<_> = (0..parts.tile_count()).map(|_| random.bool().then(|| PeerIndex(random.u16(0..9)))).collect();
        if let Ok(owners) = share_out(&parts, &current, &loads) {
            prop_assert!(owners.len() == parts.tile_count() && owners.iter().all(|owner| owner.at() < loads.len()));
            improve(&parts, &owners, &loads, &AT_ANY_PRICE);
        }
    }
}
