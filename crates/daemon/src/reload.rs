//! SIGHUP: the file is read again, and what can change while running changes.
//!
//! All of the file counts or none: when anything in it is wrong, the old settings stay and the log
//! says why. What cannot change while running waits for the next start.
//!
//! Source: moby 28.2 `daemon/reload.go`, `cmd/dockerd/daemon.go`; `reload` event of `daemon/events.go`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use engine::containers::spec::{CgroupnsMode, IpcMode};
use engine::error::chain;
use engine::{Engine, EngineConfig, EventType, Live};

use crate::config::{self, Settings, Wish};
use crate::run::LevelHandle;
use crate::state::State;

/// Reads flags and file again. Gives the shutdown's new timeout in seconds, or none where the old
/// settings stay.
pub fn reload(args: &[String], engine: &Engine, state: &State, level: &LevelHandle) -> Option<i64> {
    tracing::info!("Got signal to reload configuration");
    let settings = match config::read(args) {
        Ok(Wish::Run(settings)) => settings,
        Ok(Wish::Help | Wish::Version | Wish::Validate) => return None,
        Err(error) => {
            tracing::error!(error = chain(&error), "configuration not reloaded");
            return None;
        }
    };
    if let Err(error) = engine.reload(settings.engine.live.clone()) {
        tracing::error!(error = error.message, "configuration not reloaded");
        return None;
    }
    state.live_restore.store(settings.live_restore, Ordering::Relaxed);
    if let Err(error) = level.reload(settings.level) {
        tracing::warn!(%error, "cannot change the level of the log");
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut attributes = attributes(&settings, engine.config());
    attributes.insert("name".to_owned(), name);
    engine.events().publish(EventType::Daemon, "reload", engine.id(), attributes);
    tracing::info!("configuration reloaded");
    Some(settings.shutdown_timeout_s)
}

/// As Go prints a map.
fn features(settings: &Settings) -> String {
    let features = settings.features.iter().map(|(name, on)| format!("{name}:{on}"));
    format!("map[{}]", features.collect::<Vec<_>>().join(" "))
}

/// What the event tells; lists are JSON.
fn attributes(settings: &Settings, fixed: &EngineConfig) -> BTreeMap<String, String> {
    let list = |items: &[String]| serde_json::Value::from(items.to_vec()).to_string();
    let live: &Live = &settings.engine.live;
    let labels: Vec<String> =
        live.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let others = live.runtimes.iter().map(|(name, other)| (name.as_str(), other.path.as_path()));
    let own = [("runc", std::path::Path::new("runc")), ("tug", std::path::Path::new("tug"))];
    let runtimes: BTreeMap<_, _> = own.into_iter().chain(others).collect();
    let runtimes: Vec<String> =
        runtimes.iter().map(|(name, path)| format!("{name}:{}", path.display())).collect();
    let ipc = match fixed.default_ipc {
        IpcMode::Shareable => "shareable",
        _ => "private",
    };
    let cgroupns = match fixed.default_cgroupns {
        CgroupnsMode::Host => "host",
        CgroupnsMode::Private => "private",
        CgroupnsMode::Unset => "",
    };
    [
        ("allow-nondistributable-artifacts", "[]".to_owned()),
        ("debug", live.debug.to_string()),
        ("default-cgroupns-mode", cgroupns.to_owned()),
        ("default-ipc-mode", ipc.to_owned()),
        ("default-runtime", live.default_runtime.clone()),
        ("default-shm-size", live.default_shm_size.to_string()),
        ("features", features(settings)),
        ("insecure-registries", list(&live.insecure_registries)),
        ("labels", list(&labels)),
        ("live-restore", settings.live_restore.to_string()),
        ("max-concurrent-downloads", live.downloads_max.to_string()),
        ("max-concurrent-uploads", live.uploads_max.to_string()),
        ("max-download-attempts", live.download_attempts_max.to_string()),
        ("registry-mirrors", list(&live.registry_mirrors)),
        ("runtimes", runtimes.join(" ")),
        ("shutdown-timeout", settings.shutdown_timeout_s.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
