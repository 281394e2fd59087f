//! What handlers need besides the engine: the daemon's own facts, fixed at its start.

#[derive(Debug, Default)]
pub struct State {
    pub experimental: bool,
    pub live_restore: bool,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    /// Said by info: what is unsafe about this daemon.
    pub warnings: Vec<String>,
}
