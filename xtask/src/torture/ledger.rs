//! What one client knows: of each name, what the daemon's last acknowledgement said of it.
//!
//! A request that was refused or lost leaves the truth open; only acknowledgements are promises.

use std::collections::{BTreeMap, BTreeSet};

/// Whether a thing exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Present,
    Absent,
    Open,
}

/// Whether a container's process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    Yes,
    No,
    Open,
}

#[derive(Debug, Clone)]
pub struct ContainerFacts {
    /// Empty until `run -d` acknowledged.
    pub id: String,
    pub presence: Presence,
    pub running: Running,
    /// Networks whose connection was the last thing acknowledged of them.
    pub connected: BTreeSet<String>,
    pub disconnected: BTreeSet<String>,
    /// The memory limit that an acknowledged update set.
    pub memory_bytes: Option<u64>,
}

impl ContainerFacts {
    pub fn open() -> ContainerFacts {
        ContainerFacts {
            id: String::new(),
            presence: Presence::Open,
            running: Running::Open,
            connected: BTreeSet::new(),
            disconnected: BTreeSet::new(),
            memory_bytes: None,
        }
    }
}

/// A volume, image or network, with what its content must say.
#[derive(Debug, Clone)]
pub struct ThingFacts {
    pub presence: Presence,
    pub token: Option<String>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub containers: BTreeMap<String, ContainerFacts>,
    pub volumes: BTreeMap<String, ThingFacts>,
    pub images: BTreeMap<String, ThingFacts>,
    pub networks: BTreeMap<String, ThingFacts>,
}

impl Ledger {
    /// Names of containers of which `holds` is true.
    pub fn containers_where(&self, holds: impl Fn(&ContainerFacts) -> bool) -> Vec<String> {
        self.containers
            .iter()
            .filter(|(_, facts)| holds(facts))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// Names of things that are present, or open.
pub fn named(things: &BTreeMap<String, ThingFacts>, presence: Presence) -> Vec<String> {
    things
        .iter()
        .filter(|(_, facts)| facts.presence == presence)
        .map(|(name, _)| name.clone())
        .collect()
}
