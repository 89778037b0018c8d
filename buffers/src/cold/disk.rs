//! Records in one file, through redb.
//!
//! redb is a copy-on-write B-tree whose root changes hands in one write, with checksums: a transaction is there or it is
//! not, whenever the machine stops. It locks its file against other processes.
//!
//! A file is checked page by page when it is opened: it is read once more than needed, and redb trusts it afterwards. Where
//! it is damaged later, redb may still panic in checks of its own: every call is caught, and a panic is damage too.
//!
//! Invariant: redb is named here alone; its errors and its panics become [`ColdError`]s.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[cfg(test)]
use redb::StorageBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, Table, TableDefinition, TableError, TableHandle};

use super::{Batch, ColdError, Fill, Records};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("peercompute");
/// Snapshots are written once and read once: a large cache would only take memory from tiles.
const CACHE_BYTES: usize = 32 << 20;

/// Records in a file.
#[derive(Debug)]
pub struct DiskRecords {
    /// There, until it is dropped.
    database: Option<Database>,
}

impl DiskRecords {
    /// Opens the file, or makes it.
    ///
    /// **Errors**: [`ColdError::Locked`], [`ColdError::NotAStore`], [`ColdError::Corrupt`], [`ColdError::Full`], [`ColdError::Io`].
    pub fn open(path: &Path) -> Result<DiskRecords, ColdError> {
        DiskRecords::opened(|builder| builder.create(path), path)
    }

    /// Opens what lies behind a backend of redb.
    #[cfg(test)]
    pub(super) fn with_backend(backend: impl StorageBackend) -> Result<DiskRecords, ColdError> {
        DiskRecords::opened(|builder| builder.create_with_backend(backend), Path::new(""))
    }

    fn opened(create: impl FnOnce(&Builder) -> Result<Database, DatabaseError>, path: &Path) -> Result<DiskRecords, ColdError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = caught(|| create(&builder).map_err(|error| from_open(error, path)))?;
        let records = DiskRecords { database: Some(database) };
        // A database that somebody else has made stays theirs.
        let names = records.with(|database| {
            let transaction = database.begin_read().map_err(from_any)?;
            Ok(transaction.list_tables().map_err(from_any)?.map(|table| table.name().to_string()).collect::<Vec<_>>())
        })?;
        match names.iter().find(|name| *name != TABLE.name()) {
            Some(name) => Err(ColdError::NotAStore { what: format!("another program's database, with a table `{name}`") }),
            None => Ok(records),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, ColdError>) -> Result<T, ColdError> {
        match &self.database {
            Some(database) => caught(|| act(database)),
            None => Err(ColdError::Io { text: "closed".into() }),
        }
    }
}

impl Drop for DiskRecords {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing writes; what that cannot do, the next opening repairs.
        let _ = caught(|| {
            drop(database);
            Ok(())
        });
    }
}

impl Records for DiskRecords {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(from_any)?;
            let table = match transaction.open_table(TABLE) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(from_any(error)),
            };
            Ok(table.get(key).map_err(from_any)?.map(|value| value.value().to_vec()))
        })
    }

    fn write(&mut self, fill: &mut Fill<'_>) -> Result<(), ColdError> {
        self.with(|database| {
            // Dropped without a commit, a transaction changes nothing.
            let transaction = database.begin_write().map_err(from_any)?;
            fill(&mut OpenBatch(transaction.open_table(TABLE).map_err(from_any)?))?;
            transaction.commit().map_err(from_any)
        })
    }
}

/// A panic of redb is an error of the file.
fn caught<T>(act: impl FnOnce() -> Result<T, ColdError>) -> Result<T, ColdError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(ColdError::Corrupt { what: "its file does not fit together".into() }))
}

struct OpenBatch<'a>(Table<'a, &'static [u8], &'static [u8]>);

impl Batch for OpenBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ColdError> {
        self.0.insert(key, value).map(|_| ()).map_err(from_any)
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), ColdError> {
        self.0.remove(key).map(|_| ()).map_err(from_any)
    }
}

fn from_open(error: DatabaseError, path: &Path) -> ColdError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => ColdError::Locked { path: path.to_path_buf() },
        DatabaseError::UpgradeRequired(version) => ColdError::NotAStore { what: format!("a redb file of the old format {version}") },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            ColdError::NotAStore { what: error.to_string() }
        }
        error => from_any(error),
    }
}

fn from_any(error: impl Into<redb::Error>) -> ColdError {
    match error.into() {
        redb::Error::Corrupted(what) => ColdError::Corrupt { what },
        redb::Error::Io(error) => from_io(&error),
        error @ (redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_) | redb::Error::TypeDefinitionChanged { .. }) => {
            ColdError::NotAStore { what: error.to_string() }
        }
        error => ColdError::Io { text: error.to_string() },
    }
}

fn from_io(error: &io::Error) -> ColdError {
    use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
    let text = error.to_string();
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => ColdError::Full { text },
        InvalidData | UnexpectedEof => ColdError::Corrupt { what: text },
        _ => ColdError::Io { text },
    }
}
