//! One suite for all records; then what only a file can suffer: crashes, damage, a full disk.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use redb::StorageBackend;

use super::disk::DiskRecords;
use super::memory::MemoryRecords;
use super::*;

const PARTS: usize = 5;

fn random(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    }
}

/// The state before a tick: a part that never changes, one that changes a little, one altogether, an odd one, an empty one.
fn state(tick: u64) -> Vec<Vec<u8>> {
    let words = |seed: u64, count: usize| {
        let mut next = random(seed);
        (0..count).flat_map(|_| next().to_le_bytes()).collect::<Vec<u8>>()
    };
    let mut little = words(2, 300);
    little[4 * (tick as usize % 300)] ^= 1 + tick as u8;
    vec![words(1, 200), little, words(100 + tick, 250), words(tick, 2)[..7].to_vec(), Vec::new()]
}

fn version(tick: u64) -> Version {
    Version { epoch: 1 + tick as u32 / 4, tick }
}

fn put(store: &mut ColdStore, tick: u64) -> Result<Written, ColdError> {
    store.put_snapshot(version(tick), state(tick))
}

fn check_newest(store: &ColdStore, expected: Option<u64>) {
    let newest = store.newest().unwrap();
    assert_eq!(newest.as_ref().map(|snapshot| snapshot.version), expected.map(version));
    assert_eq!(store.newest_version().unwrap(), expected.map(version));
    if let (Some(snapshot), Some(tick)) = (newest, expected) {
        assert_eq!(snapshot.parts, state(tick));
        assert_eq!(snapshot.hashes, state(tick).iter().map(|part| tile_hash(part)).collect::<Vec<_>>());
    }
}

/// What every kind of records must do; `open` opens the same ones again.
fn conforms<R: Records + 'static>(mut open: impl FnMut() -> R) {
    let mut store: ColdStore = ColdStore::open(open()).unwrap();
    check_newest(&store, None);
    assert_eq!(store.meta("token").unwrap(), None);
    store.put_meta("token", b"secret").unwrap();
    store.put_meta("empty", b"").unwrap();
    // Three journals, opened again at odd places.
    for tick in 0..3 * WHOLE_EVERY {
        let written = put(&mut store, tick).unwrap();
        check_newest(&store, Some(tick));
        if tick % 5 == 3 {
            drop(store);
            store = ColdStore::open(open()).unwrap();
            check_newest(&store, Some(tick));
        }
        assert!(written.is_whole || (tick > 0 && tick % 5 != 4), "{tick}: after an opening there is no base at hand");
    }
    assert_eq!(store.meta("token").unwrap().unwrap(), b"secret");
    assert_eq!(store.meta("empty").unwrap().unwrap(), b"");
    store.put_meta("token", b"").unwrap();
    assert_eq!(store.meta("token").unwrap().unwrap(), b"");
    // Other shapes stand alone.
    for parts in [vec![], vec![vec![1, 2, 3]], vec![vec![1, 2, 3, 4]], vec![vec![1, 2, 3, 4], vec![]]] {
        assert!(store.put_snapshot(version(99), parts.clone()).unwrap().is_whole);
        assert_eq!(store.newest().unwrap().unwrap().parts, parts);
    }
    // Limits.
    assert!(matches!(store.put_meta(&"k".repeat(META_KEY_BYTES_MAX + 1), b""), Err(ColdError::Limit { .. })));
    assert!(matches!(store.put_meta("k", &vec![0; META_BYTES_MAX + 1]), Err(ColdError::Limit { .. })));
    drop(store);
    // A batch that fails changes nothing.
    let mut records = open();
    let refused = ColdError::Io { text: "no".into() };
    let failed = records.write(&mut |batch| {
        batch.put(b"x", b"1")?;
        batch.remove(b"f")?;
        Err(refused.clone())
    });
    assert_eq!(failed, Err(refused));
    assert_eq!((records.read(b"x").unwrap(), records.read(b"f").unwrap().is_some()), (None, true));
    // Changes of one batch happen in order.
    let change = |batch: &mut dyn Batch| {
        batch.put(b"x", b"1")?;
        batch.remove(b"x")?;
        batch.put(b"y", b"1")?;
        batch.put(b"y", b"2")?;
        batch.remove(b"z")
    };
    records.write(&mut { change }).unwrap();
    assert_eq!((records.read(b"x").unwrap(), records.read(b"y").unwrap()), (None, Some(b"2".to_vec())));
    // A store of another format, and what is none.
    records.write(&mut |batch| batch.put(b"f", b"PCST\x07\x00")).unwrap();
    drop(records);
    assert_eq!(ColdStore::<Vec<u8>>::open(open()).err(), Some(ColdError::Format { found: 7, expected: FORMAT }));
    open().write(&mut |batch| batch.put(b"f", b"what")).unwrap();
    assert!(matches!(ColdStore::<Vec<u8>>::open(open()).err(), Some(ColdError::NotAStore { .. })));
}

/// Memory that outlives its store.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<MemoryRecords>>);

impl Records for Shared {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError> {
        self.0.lock().unwrap().read(key)
    }

    fn write(&mut self, fill: &mut Fill<'_>) -> Result<(), ColdError> {
        self.0.lock().unwrap().write(fill)
    }
}

#[test]
fn memory_conforms() {
    let records = Shared::default();
    conforms(|| records.clone());
}

#[test]
fn a_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(|| DiskRecords::open(&folder.path().join("run")).unwrap());
}

#[test]
fn the_journal_is_bounded() {
    let records = Shared::default();
    let mut store = ColdStore::open(records.clone()).unwrap();
    let still = |tick: u64| state(0).into_iter().chain([vec![tick as u8; 4]]).collect::<Vec<_>>();
    let whole = store.put_snapshot(version(0), still(0)).unwrap();
    for tick in 1..4 * WHOLE_EVERY {
        let written = store.put_snapshot(version(tick), still(tick)).unwrap();
        assert_eq!(written.is_whole, tick.is_multiple_of(WHOLE_EVERY));
        // Parts that did not change take nothing.
        assert!(written.is_whole || written.bytes <= 4, "{written:?} of {whole:?}");
        let ends = store.ends().unwrap().unwrap();
        assert_eq!((ends.whole, ends.newest), (tick / WHOLE_EVERY * WHOLE_EVERY, tick));
        let kept = 3 + (tick % WHOLE_EVERY) as usize * 2 + PARTS;
        let MemoryRecords { values } = records.0.lock().unwrap().clone();
        assert_eq!(values.len(), kept + 1, "{tick}: {:?}", values.keys().map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>());
    }
    // Deltas as long as the whole end the journal early.
    let noise = |tick: u64| vec![state(tick).remove(2)];
    store.put_snapshot(version(0), noise(0)).unwrap();
    let wholes = (1..12).filter(|tick| store.put_snapshot(version(*tick), noise(*tick)).unwrap().is_whole).count();
    assert!(wholes >= 3, "{wholes}");
}

/// plan/formats/store.md, byte for byte.
#[test]
fn records_are_as_they_are_written_down() {
    let records = Shared::default();
    let mut store = ColdStore::open(records.clone()).unwrap();
    store.put_meta("task", b"run").unwrap();
    store.put_snapshot(Version { epoch: 2, tick: 7 }, vec![vec![9, 8, 7], vec![0; 4]]).unwrap();
    store.put_snapshot(Version { epoch: 2, tick: 8 }, vec![vec![9, 8, 6], vec![0; 4]]).unwrap();
    let sealed = |key: &[u8], value: &[&[u8]]| {
        let value = value.concat();
        let seal = blake3::hash(&[&(key.len() as u64).to_le_bytes(), key, &value].concat());
        (key.to_vec(), [seal.as_bytes().as_slice(), &value].concat())
    };
    let (one, other, still) = (blake3::hash(&[9, 8, 7]), blake3::hash(&[9, 8, 6]), blake3::hash(&[0; 4]));
    let zeros = {
        let mut payload = Vec::new();
        (delta::encode(None, &[0; 4], &mut payload) as u8, payload)
    };
    let [start, next] = [7u8, 8].map(|tick| [[2, 0, 0, 0, tick, 0, 0, 0], [0, 0, 0, 0, 2, 0, 0, 0]].concat());
    let expected = [
        (b"f".to_vec(), b"PCST\x01\x00".to_vec()),
        sealed(b"h\0\0\0\0\0\0\0\0", &[&start, &[0, 3, 0, 0, 0], one.as_bytes(), &[zeros.0, 4, 0, 0, 0], still.as_bytes()]),
        sealed(b"h\0\0\0\0\0\0\0\x01", &[&next, &[0, 3, 0, 0, 0], other.as_bytes(), &[255, 4, 0, 0, 0], still.as_bytes()]),
        sealed(b"mtask", &[b"run"]),
        sealed(b"n", &[&[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0]]),
        (b"p\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), vec![9, 8, 7]),
        (b"p\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec(), zeros.1),
        (b"p\0\0\0\0\0\0\0\x01\0\0\0\0".to_vec(), vec![9, 8, 6]),
    ];
    assert_eq!(records.0.lock().unwrap().values, expected.into_iter().collect());
}

#[test]
fn a_snapshot_from_elsewhere_is_no_base() {
    let records = Shared::default();
    let (mut one, mut other) = (ColdStore::open(records.clone()).unwrap(), ColdStore::open(records).unwrap());
    put(&mut one, 0).unwrap();
    put(&mut other, 1).unwrap();
    assert!(put(&mut one, 2).unwrap().is_whole);
    check_newest(&other, Some(2));
}

// What happens to files.

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Clone, Default)]
struct Platter {
    /// As the process sees it.
    bytes: Vec<u8>,
    /// As it was when it was last made durable.
    synced: Vec<u8>,
    /// Since then.
    pending: Vec<Change>,
    changes: usize,
    /// Everything fails from this change on.
    dies_at: Option<usize>,
    room: Option<u64>,
}

#[derive(Clone)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl std::fmt::Debug for Platter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a disk after {} changes", self.changes)
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length, 0),
            Change::Bytes(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn of(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(Platter { synced: bytes.clone(), bytes, ..Platter::default() })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut platter = self.platter();
        let is_dead = platter.dies_at.is_some_and(|at| platter.changes >= at);
        if is_dead {
            return Err(io::Error::other("the machine stopped"));
        }
        let end = match &change {
            Change::Length(length) => *length,
            Change::Bytes(at, data) => at + data.len(),
        };
        if platter.room.is_some_and(|room| end as u64 > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.changes += 1;
        change.apply(&mut platter.bytes);
        platter.pending.push(change);
        Ok(())
    }

    /// What is found after the power failed: of what was not durable, some is there, some is not, some is torn.
    fn after_power_loss(&self, seed: u64) -> Vec<u8> {
        let platter = self.platter();
        let (mut bytes, mut random) = (platter.synced.clone(), random(seed));
        for change in &platter.pending {
            match (random() % 3, change) {
                (0, _) => {}
                (1, Change::Bytes(at, data)) => Change::Bytes(*at, data[..data.len() / 2].to_vec()).apply(&mut bytes),
                _ => change.apply(&mut bytes),
            }
        }
        bytes
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let from = usize::try_from(offset).ok().and_then(|offset| platter.bytes.get(offset..)).and_then(|from| from.get(..out.len()));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        if platter.dies_at.is_some_and(|at| platter.changes >= at) {
            return Err(io::Error::other("the machine stopped"));
        }
        platter.synced = platter.bytes.clone();
        platter.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Bytes(offset as usize, data.to_vec()))
    }
}

fn on(disk: &Disk) -> Result<ColdStore, ColdError> {
    ColdStore::open(DiskRecords::with_backend(disk.clone())?)
}

/// A life that ends somewhere: how many snapshots were acknowledged, if the store came to be.
fn live(disk: &Disk, snapshots: u64) -> Option<u64> {
    let mut store = on(disk).ok()?;
    Some((0..snapshots).take_while(|tick| put(&mut store, *tick).is_ok()).count() as u64)
}

/// Holds what is found after a crash against what was acknowledged before it.
fn check_found(bytes: Vec<u8>, acknowledged: Option<u64>, what: &str) {
    let disk = Disk::of(bytes);
    let mut store = match on(&disk) {
        Ok(store) => store,
        // The file was being made: nothing was ever in it.
        Err(ColdError::NotAStore { .. } | ColdError::Corrupt { .. }) if acknowledged.is_none() => return,
        Err(error) => panic!("{what}: {error}"),
    };
    let found = store.newest_version().unwrap().map(|version| version.tick + 1).unwrap_or(0);
    let acknowledged = acknowledged.unwrap_or(0);
    assert!(found == acknowledged || found == acknowledged + 1, "{what}: {found} snapshots found, {acknowledged} were acknowledged");
    check_newest(&store, found.checked_sub(1));
    // And it goes on.
    put(&mut store, 70).unwrap();
    check_newest(&store, Some(70));
}

#[test]
fn whenever_it_stops_the_last_snapshot_or_the_one_before_is_found() {
    let snapshots = WHOLE_EVERY + 3;
    let whole = Disk::default();
    assert_eq!(live(&whole, snapshots), Some(snapshots));
    let changes = whole.platter().changes;
    assert!(changes > 50, "{changes}");
    for dies_at in 0..changes {
        let disk = Disk::default();
        disk.platter().dies_at = Some(dies_at);
        let acknowledged = live(&disk, snapshots);
        check_found(disk.platter().bytes.clone(), acknowledged, &format!("process gone at change {dies_at}"));
        for seed in 0..3 {
            check_found(disk.after_power_loss(seed), acknowledged, &format!("power gone at change {dies_at}, seed {seed}"));
        }
    }
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_that_was_there() {
    let disk = Disk::default();
    let mut store = on(&disk).unwrap();
    put(&mut store, 0).unwrap();
    let room = disk.platter().bytes.len() as u64;
    disk.platter().room = Some(room);
    let large = || (0..40).map(random).map(|mut next| (0..1 << 15).flat_map(|_| next().to_le_bytes()).collect()).collect::<Vec<Vec<u8>>>();
    let error = store.put_snapshot(version(1), large()).unwrap_err();
    assert!(matches!(error, ColdError::Full { .. }), "{error:?}");
    drop(store);
    let store = on(&disk).unwrap();
    check_newest(&store, Some(0));
    drop(store);
    disk.platter().room = None;
    let mut store = on(&disk).unwrap();
    store.put_snapshot(version(1), large()).unwrap();
    assert_eq!(store.newest().unwrap().unwrap().parts, large());
    // Full from the start.
    let disk = Disk::default();
    disk.platter().room = Some(0);
    assert!(matches!(on(&disk).err(), Some(ColdError::Full { .. })));
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| ColdStore::<Vec<u8>>::open(DiskRecords::open(&folder.path().join(name))?);
    let text = "temperature = 3\n".repeat(1000);
    std::fs::write(folder.path().join("text"), &text).unwrap();
    assert!(matches!(open("text").err(), Some(ColdError::NotAStore { .. })));
    assert_eq!(std::fs::read_to_string(folder.path().join("text")).unwrap(), text);
    std::fs::write(folder.path().join("short"), "x").unwrap();
    let error = open("short").err();
    assert!(matches!(error, Some(ColdError::NotAStore { .. } | ColdError::Corrupt { .. })), "{error:?}");
    let error = open("nowhere/run").err();
    assert!(matches!(error, Some(ColdError::Io { .. })), "{error:?}");
    // Another program's database.
    let database = redb::Database::create(folder.path().join("other")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("scores")).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open("other").err().unwrap();
    assert!(error.to_string().contains("scores"), "{error}");
    // In use.
    let held = open("held").unwrap();
    let error = open("held").err().unwrap();
    assert!(matches!(&error, ColdError::Locked { path } if path.ends_with(Path::new("held"))), "{error:?}");
    drop(held);
    open("held").unwrap();
}

#[test]
fn a_panic_while_a_file_is_written_is_an_error() {
    let disk = Disk::default();
    let mut records = DiskRecords::with_backend(disk.clone()).unwrap();
    records.write(&mut |batch| batch.put(b"x", b"1")).unwrap();
    assert!(matches!(records.write(&mut |_| panic!("as redb may")), Err(ColdError::Corrupt { .. })));
    drop(records);
    assert_eq!(DiskRecords::with_backend(disk).unwrap().read(b"x").unwrap(), Some(b"1".to_vec()));
}

/// Records damaged in one place, under any store: the journal's own checks, without those of a file.
fn damaged(at: usize, flip: u8) -> (Shared, Vec<u8>) {
    let records = Shared::default();
    let mut store = ColdStore::open(records.clone()).unwrap();
    (0..3).for_each(|tick| {
        put(&mut store, tick).unwrap();
    });
    store.put_meta("task", b"words").unwrap();
    let mut memory = records.0.lock().unwrap();
    let count = memory.values.values().map(Vec::len).sum::<usize>();
    let mut at = at % count;
    let mut key = Vec::new();
    for (name, value) in &mut memory.values {
        if let Some(byte) = value.get_mut(at) {
            *byte ^= flip;
            key = name.clone();
            break;
        }
        at -= value.len();
    }
    drop(memory);
    (records, key)
}

/// Reads everything; `Err` where anything is said to be wrong.
fn read_all(store: Result<ColdStore, ColdError>) -> Result<(), ColdError> {
    let mut store = store?;
    let newest = store.newest()?;
    let _ = store.meta("task")?;
    if let Some(snapshot) = newest {
        let tick = snapshot.version.tick;
        assert!(tick < 3 && snapshot.version == version(tick) && snapshot.parts == state(tick), "a snapshot that nobody put");
    }
    put(&mut store, 9)?;
    check_newest(&store, Some(9));
    Ok(())
}

#[test]
fn sealed_nonsense_is_damage() {
    let check = |key: &[u8], value: &[&[u8]]| {
        let mut records = damaged(0, 0).0;
        records.write(&mut |batch| put_sealed(batch, key, &value.concat())).unwrap();
        let mut store: ColdStore = ColdStore::open(records).unwrap();
        for result in [store.newest().map(|_| ()), put(&mut store, 5).map(|_| ())] {
            assert!(matches!(result, Err(ColdError::Corrupt { .. })), "{}: {result:?}", key.escape_ascii());
        }
    };
    let ends = |whole: u64, newest: u64| [whole.to_le_bytes(), newest.to_le_bytes()].concat();
    for (whole, newest) in [(1, 0), (0, WHOLE_EVERY), (u64::MAX, u64::MAX), (0, 3)] {
        check(b"n", &[&ends(whole, newest)]);
    }
    check(b"n", &[&ends(0, 2), b"more"]);
    check(b"n", &[b"less"]);
    let part = |encoding: u8, bytes: u32| [[encoding].as_slice(), &bytes.to_le_bytes(), &[0; 32]].concat();
    check(&header_key(1), &[&[0; 12], &2u32.to_le_bytes(), &part(0, 8)]);
    check(&header_key(1), &[&[0; 12], &1u32.to_le_bytes(), &part(0, u32::MAX)]);
    check(&header_key(1), &[&[0; 12], &1u32.to_le_bytes(), &part(0, 8), b"more"]);
    // A list that can be, of parts that cannot.
    for (sequence, encoding) in [(0, SAME), (0, 7), (2, SAME)] {
        let mut records = damaged(0, 0).0;
        let header = [vec![0; 12], 1u32.to_le_bytes().to_vec(), part(encoding, 8)].concat();
        records.write(&mut |batch| put_sealed(batch, &header_key(sequence), &header)).unwrap();
        let newest = ColdStore::<Vec<u8>>::open(records).unwrap().newest();
        assert!(matches!(newest, Err(ColdError::Corrupt { .. })), "{newest:?}");
    }
}

proptest! {
    #[test]
    fn a_damaged_record_is_noticed(at in any::<usize>(), flip in 1u8..) {
        let (records, key) = damaged(at, flip);
        // What a later snapshot holds in full is not needed of an earlier one; what is read is right in any case.
        let result = read_all(ColdStore::open(records));
        let is_typed = matches!(&result, Err(ColdError::Corrupt { .. } | ColdError::NotAStore { .. } | ColdError::Format { .. }));
        prop_assert!(is_typed || (result.is_ok() && key[0] == b'p'), "{}: {result:?}", key.escape_ascii());
    }

    #[test]
    fn a_missing_record_is_noticed(which in any::<prop::sample::Index>()) {
        let records = damaged(0, 0).0;
        let key = {
            let mut memory = records.0.lock().unwrap();
            let key = memory.values.keys().nth(which.index(memory.values.len())).unwrap().clone();
            memory.values.remove(&key);
            key
        };
        let result = ColdStore::<Vec<u8>>::open(records).and_then(|store| store.newest());
        match key[0] {
            b'h' | b'p' => prop_assert!(matches!(result, Err(ColdError::Corrupt { .. })), "{}: {result:?}", key.escape_ascii()),
            b'n' => prop_assert_eq!(result, Ok(None)),
            _ => prop_assert!(result.is_ok()),
        }
    }

    #[test]
    fn random_records_never_panic(values in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..120), any::<bool>()), 0..12)) {
        let mut records = Shared::default();
        for (which, value, is_sealed) in values {
            let key = [b"n".to_vec(), header_key(0), part_key(0, 0), header_key(1)][which].clone();
            records.write(&mut |batch| if is_sealed { put_sealed(batch, &key, &value) } else { batch.put(&key, &value) }).unwrap();
        }
        let mut store = ColdStore::open(records).unwrap();
        let _ = (store.newest(), put(&mut store, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_damaged_file_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in prop::option::of(any::<prop::sample::Index>())) {
        static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let file = FILE.get_or_init(|| {
            let disk = Disk::default();
            live(&disk, 3);
            disk.platter().bytes.clone()
        });
        let mut bytes = file.clone();
        // Most of a new file is empty: damage falls where something is.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, byte) in edits {
            bytes[used[at.index(used.len())]] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // What is opened is sound, though it may be the snapshot before: damage may hide the newest root.
        if let Ok(store) = on(&Disk::of(bytes)) {
            prop_assert_eq!(read_all(Ok(store)), Ok(()));
        }
    }
}
