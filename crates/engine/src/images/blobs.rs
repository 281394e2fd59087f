//! Which blobs of registries our layers are.
//!
//! ```text
//! registry/blobs.json   layer -> blobs, and the repositories that have them
//! ```
//! All of this only saves work: without it a push sends again what the registry has. So nothing is
//! flushed, and what cannot be read is forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spec::{DiffId, Digest, Reference};
use store::{Durability, LayerKey, Store};
use tracing::warn;

use crate::error::chain;

const REPOSITORIES_MAX: usize = 8;

/// A layer's form in a registry. The size is in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownBlob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: String,
    /// With domain, the latest last.
    pub(super) repositories: Vec<String>,
}

/// What is known of all layers.
pub(crate) struct Blobs {
    root: PathBuf,
    known: Mutex<Option<BTreeMap<DiffId, Vec<KnownBlob>>>>,
}

impl Blobs {
    pub(crate) fn new(data_root: &Path) -> Blobs {
        Blobs { root: data_root.join("registry"), known: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<DiffId, Vec<KnownBlob>>) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let all = known.get_or_insert_with(|| {
            store::records::read_json(&self.root.join("blobs.json"))
                .ok()
                .flatten()
                .unwrap_or_default()
        });
        work(all)
    }

    /// The blobs of a layer, those of `name`'s repository first. Blocking.
    pub(super) fn of(&self, layer: &DiffId, name: &Reference) -> Vec<KnownBlob> {
        let repository = name.name();
        let mut found = self.with(|all| all.get(layer).cloned().unwrap_or_default());
        found.sort_by_key(|blob| !blob.repositories.contains(&repository));
        found
    }

    /// Remembers that `name`'s repository has the blobs. Blocking.
    pub(super) fn learn(&self, store: &Store, name: &Reference, blobs: Vec<(DiffId, KnownBlob)>) {
        let repository = name.name();
        let changed = self.with(|all| {
            let before = all.clone();
            for (layer, new) in blobs {
                let list = all.entry(layer).or_default();
                let place = list.iter().position(|blob| blob.digest == new.digest);
                let place = place.unwrap_or_else(|| {
                    list.push(new);
                    list.len() - 1
                });
                let repositories = &mut list[place].repositories;
                repositories.retain(|known| *known != repository);
                repositories.push(repository.clone());
                let surplus = repositories.len().saturating_sub(REPOSITORIES_MAX);
                repositories.drain(..surplus);
            }
            all.retain(|layer, _| store.has_layer(&LayerKey::from(*layer)));
            (*all != before).then(|| all.clone())
        });
        let Some(all) = changed else { return };
        let path = self.root.join("blobs.json");
        let written =
            fs::create_dir_all(&self.root).map_err(|error| chain(&error)).and_then(|()| {
                store
                    .records()
                    .write_json(&path, &all, Durability::Lazy)
                    .map_err(|error| chain(&error))
            });
        if let Err(error) = written {
            warn!(error, "which registry has which layer is not remembered");
        }
    }
}
