//! What handlers need besides the engine: the daemon's own facts.

use std::path::PathBuf;

/// Facts that do not change while the daemon runs, but for what a reload changes in the engine.
#[derive(Debug, Default)]
pub struct State {
    pub experimental: bool,
    pub live_restore: bool,
    pub data_root: PathBuf,
    /// The files and flags given, for info.
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    /// Said by info: what is unsafe about this daemon.
    pub warnings: Vec<String>,
}
