//! The domain: containers, images, networks, volumes, builds and events behind one handle.
//!
//! [`Engine`] is that handle. It is opened once by the daemon on a data root and a run root, is
//! cheap to clone, and every method may be called from any task. Front doors convert their own
//! wire types into the types here and back; nothing here knows Docker's JSON or HTTP.
//!
//! Who writes which state, and the order of truth, is drawn in ARCHITECTURE.md; the life of a
//! container is in [`containers::step`].
//!
//! Lock order: the registry of containers, then the names in it; a container's own state belongs
//! to its task and is locked by nobody. No lock is held across an `.await`.

pub mod builds;
pub mod config;
pub mod containers;
pub mod error;
pub mod events;
pub mod filters;
pub mod names;
pub mod oneshot;
pub mod stream;
pub mod system;
pub mod words;

use std::sync::Arc;

pub use config::EngineConfig;
pub use error::{Error, Kind, Result};
pub use events::{Event, EventQuery, EventStream, EventType, Events};
pub use filters::Filters;

/// The engine. Clones share one state.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What all of the engine's parts share.
pub(crate) struct Inner {
    pub config: EngineConfig,
    pub events: Events,
    pub containers: containers::Registry,
    pub store: store::Store,
    /// Caches of `RUN --mount=type=cache` that a step has for itself.
    pub cache_locks: Arc<builds::CacheLocks>,
}

impl Engine {
    /// Opens the data root, finds running containers again and settles what an earlier daemon left
    /// half done. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a root cannot be made or read, or another daemon holds it.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let events = Events::default();
        let store = open_store(&config)?;
        builds::sweep(&store);
        let containers = containers::Registry::default();
        let inner = Inner { config, events, containers, store, cache_locks: Arc::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// The event bus; `events().subscribe(query)` follows it.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.inner.events
    }
}

fn open_store(config: &EngineConfig) -> Result<store::Store> {
    let name = config.storage_driver.as_deref().unwrap_or_default();
    let driver = store::Driver::parse(name).map_err(|error| Error::caused(Kind::Invalid, error))?;
    let options = store::Options { driver };
    store::Store::open(&config.data_root, options)
        .map_err(|error| Error::caused(Kind::Unavailable, error))
}
