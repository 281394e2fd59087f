//! What of a container survives the daemon.
//!
//! ```text
//! <data-root>/containers/<id>/record.json   the wish: written at create, rename, update, connect
//!                             life.json     the phase: written at every transition
//!                             exit.json     the end of the latest run: the monitor's
//!                             hosts, hostname, resolv.conf, json.log
//! ```
//! One writer for the first two: the container's task. Records of containers that remove
//! themselves are never synced, since nobody asks for them after a power cut.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::{Id, ImageId};
use store::records::{Durability, RecordError, Records};

use super::mounts::Mount;
use super::spec::{ContainerSpec, LogSpec, RestartPolicy};
use super::step::{Phase, Policy};
use crate::config::EngineConfig;
use crate::networks::Attachment;

pub const RECORD_FILE: &str = "record.json";
pub const LIFE_FILE: &str = "life.json";
pub const EXIT_FILE: &str = "exit.json";

const VERSION: u32 = 1;

/// The wish and what create decided about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub id: Id,
    pub name: String,
    pub created_at: Timestamp,
    pub image: ImageId,
    /// `linux`, for inspect.
    pub platform: String,
    pub spec: ContainerSpec,
    /// The wish's, or what the modes imply.
    pub hostname: String,
    pub mounts: Vec<Mount>,
    /// With the daemon's default driver and options filled in.
    pub log: LogSpec,
}

/// Where it is in its life.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Life {
    pub version: u32,
    pub phase: Phase,
    /// While it runs.
    pub attachment: Option<Attachment>,
}

impl Record {
    #[must_use]
    pub fn new(id: Id, name: String, image: ImageId, spec: ContainerSpec) -> Self {
        Self {
            version: VERSION,
            id,
            name,
            created_at: Timestamp::now(),
            image,
            platform: "linux".to_owned(),
            spec,
            hostname: String::new(),
            mounts: Vec::new(),
            log: LogSpec::default(),
        }
    }

    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy { restart: self.spec.host.restart, auto_remove: self.spec.host.auto_remove }
    }

    /// Writes the record.
    pub fn write(&self, records: &Records, config: &EngineConfig) -> Result<(), RecordError> {
        let durability =
            if self.spec.host.auto_remove { Durability::Lazy } else { Durability::Durable };
        records.write_json(&config.container_dir(&self.id).join(RECORD_FILE), self, durability)
    }

    /// How safe a phase must be. Before a run has ended there is nothing that a power cut, which
    /// ends all runs, could take from the user but the fact that it was started; that matters to
    /// restart policies.
    #[must_use]
    pub fn durability(&self, phase: &Phase) -> Durability {
        if self.spec.host.auto_remove {
            return Durability::Lazy;
        }
        match phase {
            Phase::Running { .. } if self.spec.host.restart != RestartPolicy::No => {
                Durability::Durable
            }
            Phase::Exited { .. } => Durability::Durable,
            Phase::Created { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Removing { .. }
            | Phase::Dead { .. }
            | Phase::Gone => Durability::Lazy,
        }
    }
}

impl Life {
    #[must_use]
    pub fn new(phase: Phase, attachment: Option<Attachment>) -> Self {
        Self { version: VERSION, phase, attachment }
    }

    /// Writes the phase.
    pub fn write(
        &self,
        id: &Id,
        records: &Records,
        config: &EngineConfig,
        durability: Durability,
    ) -> Result<(), RecordError> {
        records.write_json(&config.container_dir(id).join(LIFE_FILE), self, durability)
    }
}
