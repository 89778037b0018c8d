//! Records in memory: for tests, and where nothing needs to outlive the process.
//!
//! Invariant: as [`Records`] demands, a batch that fails changes nothing.

use std::collections::BTreeMap;

use super::{Batch, ColdError, Fill, Records};

/// Records in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords {
    pub(super) values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryRecords {
    /// No records.
    pub fn new() -> MemoryRecords {
        MemoryRecords::default()
    }
}

impl Records for MemoryRecords {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError> {
        Ok(self.values.get(key).cloned())
    }

    fn write(&mut self, fill: &mut Fill<'_>) -> Result<(), ColdError> {
        let mut changes = Changes::default();
        fill(&mut changes)?;
        for (key, value) in changes.0 {
            match value {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
        Ok(())
    }
}

#[derive(Default)]
struct Changes(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Batch for Changes {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ColdError> {
        self.0.push((key.to_vec(), Some(value.to_vec())));
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), ColdError> {
        self.0.push((key.to_vec(), None));
        Ok(())
    }
}
