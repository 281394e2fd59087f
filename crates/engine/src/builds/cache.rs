//! What builds remember: how much room it takes, and forgetting it.
//!
//! Two kinds of things: results of steps (records of the store, most with a layer) and directories
//! of `RUN --mount=type=cache`. A result whose layer an image has too is *shared*: forgetting it frees
//! nothing, so only a prune of all does. The least recently used goes first, until what is left fits
//! the budget.
//!
//! Source: buildkit `cache/manager.go`, `calculateKeepBytes`; moby 28.2 `builder/builder-next/builder.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use build::worker::Record;
use rustix::fs::statvfs;
use store::{LayerKey, Store};
use tracing::{info, warn};

use crate::Engine;
use crate::blocking::blocking;
use crate::error::{Result, chain};
use crate::filters::Filters;

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// The result of a step.
    Regular,
    /// A directory that steps mount.
    Mount,
}

impl CacheKind {
    /// BuildKit's name for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Mount => "exec.cachemount",
        }
    }
}

/// One thing that builds remember.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    pub id: String,
    pub kind: CacheKind,
    pub description: String,
    pub in_use: bool,
    /// An image has its layer too.
    pub shared: bool,
    /// Bytes.
    pub size: u64,
    /// RFC 3339; empty when it is not known.
    pub created: String,
    pub last_used: Option<SystemTime>,
    pub uses: u64,
}

/// Whether what images share is forgotten too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    #[default]
    Dangling,
    All,
}

/// How much may stay, in bytes; all zero is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheBudget {
    /// Never less is kept.
    pub reserved: u64,
    pub used_max: u64,
    /// Of the file system; the cache gives way for it.
    pub free_min: u64,
}

impl CacheBudget {
    /// Bytes to keep of `total` when the file system has `free`.
    fn keeps(self, total: u64, free: u64) -> u64 {
        if self == Self::default() {
            return 0;
        }
        let mut keeps = self.used_max;
        if let Some(excess) = self.free_min.checked_sub(free).filter(|excess| *excess > 0) {
            let left = total.saturating_sub(excess);
            keeps = if keeps == 0 { left } else { keeps.min(left) };
        } else if keeps == 0 && self.free_min > 0 {
            // Only room was asked for, and there is enough.
            keeps = u64::MAX;
        }
        keeps.max(self.reserved)
    }
}

/// One wish to forget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePrune {
    pub filters: Filters,
    pub reach: Reach,
    pub budget: CacheBudget,
}

/// What a prune of the build cache removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePruneReport {
    pub removed: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// Filters taken apart.
struct Wanted {
    filters: Filters,
    until: Option<SystemTime>,
    in_use: Option<bool>,
    shared: Option<bool>,
}

impl Wanted {
    fn parse(filters: &Filters) -> Result<Self> {
        filters.only(&[
            "description",
            "id",
            "inuse",
            "label",
            "label!",
            "parent",
            "private",
            "shared",
            "type",
            "until",
            "unused-for",
        ])?;
        // The older name of the same.
        let unused = filters
            .values("unused-for")
            .next()
            .map(|text| crate::times::parse(text, jiff::Timestamp::now()));
        let until = match unused {
            Some(at) => Some(at?),
            None => crate::times::until(filters)?,
        };
        let private = filters.boolean("private")?;
        Ok(Self {
            filters: filters.clone(),
            until: until.map(SystemTime::from),
            in_use: filters.boolean("inuse")?,
            shared: filters.boolean("shared")?.or(private.map(|private| !private)),
        })
    }

    /// `docker system prune` sends its `label` filters here too; nothing here has labels, or parents.
    fn takes(&self, entry: &CacheEntry) -> bool {
        let is_old = |until: SystemTime| entry.last_used.is_some_and(|used| used < until);
        self.filters.prefix("id", &entry.id)
            && self.filters.exact("type", entry.kind.word())
            && self.filters.any("description", |text| entry.description.contains(text))
            && self.filters.labels(&BTreeMap::new())
            && !self.filters.contains("parent")
            && self.in_use.is_none_or(|wanted| wanted == entry.in_use)
            && self.shared.is_none_or(|wanted| wanted == entry.shared)
            && self.until.is_none_or(is_old)
    }
}

impl Engine {
    /// Everything that builds remember. Two results with one layer share its size: the first has it.
    pub async fn build_cache(&self) -> Vec<CacheEntry> {
        let engine = self.clone();
        blocking(move || engine.cache_entries()).await
    }

    /// Forgets what `prune` asks for.
    ///
    /// # Errors
    /// `Invalid` for filters that are not known.
    pub async fn prune_build_cache(&self, prune: CachePrune) -> Result<CachePruneReport> {
        let wanted = Wanted::parse(&prune.filters)?;
        let engine = self.clone();
        Ok(blocking(move || engine.forget(&wanted, &prune)).await)
    }

    /// Blocking. Keeps the cache within the limits that the daemon was given.
    pub(super) fn collect_cache(&self) {
        for rule in self.cache_rules() {
            match Wanted::parse(&rule.filters) {
                Ok(wanted) => {
                    let report = self.forget(&wanted, &rule);
                    if !report.removed.is_empty() {
                        let (count, bytes) = (report.removed.len(), report.reclaimed);
                        info!(count, bytes, "build cache collected");
                    }
                }
                Err(error) => warn!(error = chain(&error), "rule for the build cache is wrong"),
            }
        }
    }

    /// The daemon's rules, or Docker's: all within a tenth of the file system at least.
    fn cache_rules(&self) -> Vec<CachePrune> {
        let gc = &self.inner.config.cache;
        if !gc.enabled {
            return Vec::new();
        }
        let disk = statvfs(self.inner.store.root()).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        let usual = match gc.budget == CacheBudget::default() {
            true => CacheBudget {
                reserved: (disk / 10).max(2 << 30),
                used_max: disk / 10 * 8,
                free_min: disk / 5,
            },
            false => gc.budget,
        };
        let all = CachePrune { reach: Reach::All, budget: usual, ..CachePrune::default() };
        match gc.rules.is_empty() {
            true => vec![all],
            false => gc.rules.clone(),
        }
    }

    fn cache_entries(&self) -> Vec<CacheEntry> {
        let store = &self.inner.store;
        let images = store.images();
        let shared: BTreeSet<LayerKey> =
            images.iter().flat_map(|image| image.layers.iter().copied()).collect();
        let mut counted = BTreeSet::new();
        let mut entries = Vec::new();
        for record in store.cache_list() {
            let Ok(step) = serde_json::from_value::<Record>(record.value.clone()) else { continue };
            let is_first = |layer: &&LayerKey| counted.insert(**layer);
            let sizes = record.layers.iter().filter(is_first).filter_map(|key| store.layer(key));
            entries.push(CacheEntry {
                size: sizes.map(|layer| layer.size).sum(),
                kind: CacheKind::Regular,
                description: step.description,
                in_use: false,
                // A result without a layer goes with those that images still show the fruits of.
                shared: record.layers.iter().all(|layer| shared.contains(layer)),
                created: step.created,
                last_used: store.cache_used_at(&record.key),
                uses: record.uses,
                id: record.key,
            });
        }
        for mount in store.cache_mounts() {
            entries.push(CacheEntry {
                in_use: self.inner.cache_locks.is_used(&mount.name),
                kind: CacheKind::Mount,
                description: format!("cached mount {}", mount.title),
                shared: false,
                size: mount.size,
                created: String::new(),
                last_used: mount.used_at,
                uses: 0,
                id: mount.name,
            });
        }
        entries
    }

    fn forget(&self, wanted: &Wanted, prune: &CachePrune) -> CachePruneReport {
        let store = &self.inner.store;
        let mut entries = self.cache_entries();
        let own = |entry: &CacheEntry| if entry.shared { 0 } else { entry.size };
        let mut total: u64 = entries.iter().map(own).sum();
        let free = statvfs(store.root()).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
        let keeps = prune.budget.keeps(total, free);
        entries.retain(|entry| {
            let is_in_reach = prune.reach == Reach::All || !entry.shared;
            is_in_reach && !entry.in_use && wanted.takes(entry)
        });
        entries.sort_by_key(|entry| entry.last_used);
        let mut report = CachePruneReport::default();
        let before = self.layers_size();
        for entry in entries {
            if total <= keeps && keeps > 0 {
                break;
            }
            total = total.saturating_sub(own(&entry));
            if self.forget_one(store, &entry) {
                report.reclaimed += if entry.kind == CacheKind::Mount { entry.size } else { 0 };
                report.removed.push(entry.id);
            }
        }
        report.reclaimed += before.saturating_sub(self.layers_size());
        report
    }

    fn forget_one(&self, store: &Store, entry: &CacheEntry) -> bool {
        match entry.kind {
            CacheKind::Regular => {
                store.cache_remove(&entry.id);
                true
            }
            // Held while it goes, so that no step begins to use it; a used one stays.
            CacheKind::Mount => {
                let held = self.inner.cache_locks.try_hold(&entry.id);
                held.is_some_and(|_held| store.cache_mount_remove(&entry.id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_keeps_what_docker_keeps() {
        let budget = |reserved, used_max, free_min| CacheBudget { reserved, used_max, free_min };
        for (budget, total, free, want) in [
            (budget(0, 0, 0), 100, 5, 0),
            (budget(30, 0, 0), 100, 5, 30),
            (budget(0, 40, 0), 100, 5, 40),
            (budget(50, 40, 0), 100, 5, 50),
            (budget(0, 0, 25), 100, 5, 80),
            (budget(0, 0, 25), 100, 50, u64::MAX),
            (budget(10, 90, 25), 100, 5, 80),
            (budget(10, 40, 25), 100, 5, 40),
        ] {
            assert_eq!(budget.keeps(total, free), want, "{budget:?}");
        }
    }
}
