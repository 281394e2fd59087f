//! Forgetting what builds remember.

use std::collections::BTreeMap;

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
    /// Forgets results of build steps; layers that images use stay. `until` goes by the last use.
    /// `docker system prune` sends its `label` filters here too: records have no labels.
    ///
    /// # Errors
    /// `Invalid` for filters that are not known.
    pub async fn prune_build_cache(&self, filters: &Filters) -> Result<CachePruneReport> {
        filters.only(&["id", "inuse", "label", "label!", "type", "until", "unused-for"])?;
        // The older name of the same. Source: moby 28.2 `builder/builder-next/builder.go`.
        let unused = filters
            .values("unused-for")
            .next()
            .map(|text| crate::times::parse(text, jiff::Timestamp::now()));
        let until = match unused {
            Some(at) => Some(at?),
            None => crate::times::until(filters)?,
        };
        let until = until.map(std::time::SystemTime::from);
        // A running build holds layers, not records.
        let none = filters.boolean("inuse")? == Some(true)
            || !filters.labels(&BTreeMap::new())
            || !filters.exact("type", "regular");
        if none {
            return Ok(CachePruneReport::default());
        }
        let filters = filters.clone();
        let store = self.inner.store.clone();
        let before = self.layers_size();
        let removed = blocking(move || {
            let old = |key: &str| {
                until.is_none_or(|until| store.cache_used_at(key).is_some_and(|used| used < until))
            };
            let records = store.cache_list().into_iter();
            records
                .filter(|record| filters.prefix("id", &record.key) && old(&record.key))
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
