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

mod apparmor;
mod blocking;
pub mod builds;
pub mod changes;
pub mod config;
pub mod containers;
mod disk;
pub mod distribution;
pub mod error;
pub mod events;
pub mod filters;
mod host;
pub mod images;
pub mod names;
pub mod networks;
pub mod stream;
pub mod system;
pub mod times;
pub mod volumes;
pub mod words;
pub mod workloads;

use std::sync::{Arc, PoisonError, RwLock};

pub use config::{EngineConfig, Live};
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
    /// As it was at the start; [`Inner::live`] is what it is now.
    pub config: EngineConfig,
    live: RwLock<Arc<Live>>,
    pub host: workloads::Host,
    pub events: Events,
    pub store: store::Store,
    pub registries: images::registries::Registries,
    pub uploads: distribution::Uploads,
    pub networks: networks::Networks,
    pub containers: containers::Registry,
    /// What an earlier daemon left running, until somebody asks for it.
    pub adopted: std::sync::Mutex<Vec<std::sync::Weak<containers::ContainerHandle>>>,
    /// Caches of `RUN --mount=type=cache` that a step has for itself.
    pub cache_locks: Arc<builds::CacheLocks>,
    /// When the build cache was last brought within its limits.
    pub cache_collected: std::sync::Mutex<Option<std::time::Instant>>,
    pub named_builds: builds::NamedBuilds,
    /// One prune of containers at a time.
    pub pruning: tokio::sync::Mutex<()>,
    pub pruning_images: tokio::sync::Mutex<()>,
    pub pruning_volumes: tokio::sync::Mutex<()>,
    pub volume_holders: containers::volume_mounts::Holders,
    pub launchers: Arc<runs::Launchers>,
    /// Keeps the path valid that launchers are started from.
    pub _sealed: Option<runtime::seal::Sealed>,
    pub filters: workloads::filters::Filters,
}

impl Inner {
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    /// Waits until what was written to the data root so far is on the disk; to be called before a word
    /// that acknowledges it. Blocking.
    pub(crate) fn flush(&self) -> Result<()> {
        let flushed = self.store.flush();
        flushed.map_err(|source| {
            Error::because(Kind::Internal, "cannot flush the data root to the disk", source)
        })
    }
}

impl Engine {
    /// Opens the data root, finds running containers again and settles what an earlier daemon left
    /// half done. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a root cannot be made or read, or another daemon holds it.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let inner = blocking::blocking(move || host::open(config)).await?;
        let inner = Arc::new(inner);
        if let Err(error) = inner.launchers.fill() {
            // Each start tries again, and says what is wrong.
            tracing::warn!(error = error::chain(&error), "no launchers made ahead");
        }
        let found = containers::reconcile::look(&inner).await?;
        let running = found
            .iter()
            .filter_map(|found| Some((found.record.id, found.life.attachment.clone()?)))
            .collect();
        let networks = inner.networks.clone();
        blocking::blocking(move || networks.restore(running)).await;
        containers::reconcile::adopt(&inner, found);
        let engine = Arc::clone(&inner);
        blocking::blocking(move || containers::volume_mounts::sweep(&engine)).await;
        distribution::keep_swept(&inner);
        Ok(Self { inner })
    }

    /// To be called when the daemon ends in order. Running containers stay, with all that they
    /// need; where none runs, the bridges and the firewall table go, and the next start makes them
    /// again from the records.
    pub async fn close(&self) {
        let alive = self
            .inner
            .containers
            .all()
            .iter()
            .any(|container| container.now().phase.run().is_some());
        if alive {
            return;
        }
        let networks = self.inner.networks.clone();
        let gone = blocking::blocking(move || networks.tear_down()).await;
        if let Err(error) = gone {
            tracing::warn!(error = error::chain(&error), "networks left in the kernel");
        }
    }

    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// The settings that can change, as they are now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.inner.live()
    }

    /// Takes new settings; all of them, or on an error none.
    ///
    /// # Errors
    /// `Invalid` for settings that mean nothing.
    pub fn reload(&self, live: Live) -> Result<()> {
        system::check_runtimes(&live)?;
        self.inner.registries.reload(&live)?;
        *self.inner.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        Ok(())
    }

    /// The store, for what needs nothing of the engine's own.
    #[must_use]
    pub fn store(&self) -> &store::Store {
        &self.inner.store
    }

    /// The event bus; `events().subscribe(query)` follows it.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.inner.events
    }
}
