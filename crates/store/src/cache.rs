//! Build cache records: small values by key that keep layers alive.
//!
//! What a key or value means is the builder's. One file each, `buildcache/<sha256 of key>.json`.

use serde::{Deserialize, Serialize};
use spec::Digest;

use crate::layers::LayerKey;
use crate::records::{self, Durability, RecordError};
use crate::store::{State, Store};

/// One record, with the layers it keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheRecord {
    pub key: String,
    pub value: serde_json::Value,
    pub layers: Vec<LayerKey>,
    /// How often it was asked for since the daemon began or the record was made.
    #[serde(skip)]
    pub uses: u64,
}

/// A directory that build steps mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    pub name: String,
    /// What its user calls it.
    pub title: String,
    /// Bytes of the files.
    pub size: u64,
    pub used_at: Option<std::time::SystemTime>,
}

/// Why a cache record was not kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("layer {0} is not there")]
    NoLayer(LayerKey),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Store {
    /// Keeps `value` and `layers` under `key`, in place of what was there.
    pub fn cache_put(
        &self,
        key: &str,
        value: serde_json::Value,
        layers: &[LayerKey],
    ) -> Result<(), CacheError> {
        let record = CacheRecord { key: key.to_owned(), value, layers: layers.to_vec(), uses: 0 };
        self.state().layers.hold_all(layers).map_err(CacheError::NoLayer)?;
        if let Err(error) =
            self.records().write_json(&self.cache_path(key), &record, Durability::Lazy)
        {
            self.release_layers(layers);
            return Err(error.into());
        }
        let replaced = self.state().cache.insert(key.to_owned(), record);
        self.release_layers(&replaced.map(|old| old.layers).unwrap_or_default());
        Ok(())
    }

    pub fn cache_get(&self, key: &str) -> Option<CacheRecord> {
        let found = {
            let mut state = self.state();
            let record = state.cache.get_mut(key)?;
            record.uses += 1;
            record.clone()
        };
        // The file's time says when it was used last; nothing depends on it but a prune's `until`.
        let file = std::fs::File::options().write(true).open(self.cache_path(key));
        let _ = file.and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(found)
    }

    /// When the record was kept or used last; `None` without a record.
    pub fn cache_used_at(&self, key: &str) -> Option<std::time::SystemTime> {
        std::fs::metadata(self.cache_path(key)).and_then(|found| found.modified()).ok()
    }

    /// All records in the order of keys.
    pub fn cache_list(&self) -> Vec<CacheRecord> {
        self.state().cache.values().cloned().collect()
    }

    /// Forgets `key`; gives the layers that nobody needs any more.
    pub fn cache_remove(&self, key: &str) -> Vec<LayerKey> {
        let removed = self.state().cache.remove(key);
        let Some(record) = removed else { return Vec::new() };
        let _ = std::fs::remove_file(self.cache_path(key));
        self.release_layers(&record.layers)
    }

    /// The place of a directory that build steps mount, noted as used now. It need not exist.
    pub fn cache_mount(&self, name: &str, title: &str) -> std::path::PathBuf {
        let base = self.cache_mounts_dir();
        // Only a prune reads the note.
        let _ = std::fs::create_dir_all(&base)
            .and_then(|()| std::fs::write(base.join(format!("{name}.title")), title));
        base.join(name)
    }

    pub fn cache_mounts(&self) -> Vec<CacheMount> {
        let base = self.cache_mounts_dir();
        let Ok(entries) = std::fs::read_dir(&base) else { return Vec::new() };
        let mount = |entry: std::fs::DirEntry| {
            let is_directory = entry.file_type().ok()?.is_dir();
            let name = entry.file_name().into_string().ok().filter(|_| is_directory)?;
            let note = base.join(format!("{name}.title"));
            let directory = sys::fs::open_dir(&entry.path()).ok()?;
            Some(CacheMount {
                title: std::fs::read_to_string(&note).unwrap_or_default(),
                size: crate::walk::size(std::os::fd::AsFd::as_fd(&directory)).unwrap_or(0),
                used_at: std::fs::metadata(&note).and_then(|note| note.modified()).ok(),
                name,
            })
        };
        let mut found: Vec<CacheMount> = entries.flatten().filter_map(mount).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }

    /// Removes a directory that no step uses; whether it was there.
    pub fn cache_mount_remove(&self, name: &str) -> bool {
        let base = self.cache_mounts_dir();
        let _ = std::fs::remove_file(base.join(format!("{name}.title")));
        let trashed = self.to_trash(&base.join(name));
        let was_there = trashed.is_some();
        self.discard(trashed.into_iter().collect());
        was_there
    }

    fn cache_mounts_dir(&self) -> std::path::PathBuf {
        self.root().join("buildcache").join("mounts")
    }

    fn cache_path(&self, key: &str) -> std::path::PathBuf {
        self.root().join("buildcache").join(format!("{}.json", Digest::of(key.as_bytes()).hex()))
    }

    pub(crate) fn load_cache(&self, state: &mut State) -> Result<(), RecordError> {
        let dir = self.root().join("buildcache");
        for (stem, record) in records::load_files::<CacheRecord>(&dir, ".json")? {
            match state.layers.hold_all(&record.layers) {
                Ok(()) => {
                    state.cache.insert(record.key.clone(), record);
                }
                Err(_) => {
                    let _ = std::fs::remove_file(dir.join(format!("{stem}.json")));
                }
            }
        }
        Ok(())
    }
}
