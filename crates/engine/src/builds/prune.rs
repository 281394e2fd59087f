//! Forgetting what builds remember.

use crate::Engine;
use crate::containers::world::blocking;
use crate::error::Result;
use crate::filters::Filters;

/// What a prune of the build cache removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePruneReport {
    /// The keys of the records.
    pub removed: Vec<String>,
    /// Bytes of the layers that only the cache needed.
    pub reclaimed: u64,
}

impl Engine {
    /// Forgets all results of build steps; layers that images use stay.
    ///
    /// # Errors
    /// `Invalid` for any filter: records have no times or types to choose by.
    pub async fn prune_build_cache(&self, filters: &Filters) -> Result<CachePruneReport> {
        filters.only(&[])?;
        let store = self.inner.store.clone();
        let before = self.layers_size();
        let removed = blocking(move || {
            let records = store.cache_list().into_iter();
            records
                .map(|record| {
                    store.cache_remove(&record.key);
                    record.key
                })
                .collect()
        })
        .await;
        let reclaimed = before.saturating_sub(self.layers_size());
        Ok(CachePruneReport { removed, reclaimed })
    }
}
