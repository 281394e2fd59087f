//! What handlers need besides the engine: the daemon's own facts.

use std::sync::atomic::AtomicBool;

#[derive(Debug, Default)]
pub struct State {
    pub experimental: bool,
    /// A reload changes it.
    pub live_restore: AtomicBool,
    /// Shown by info.
    pub cdi_spec_dirs: Vec<String>,
    /// Said by info: what is unsafe about this daemon.
    pub warnings: Vec<String>,
}
