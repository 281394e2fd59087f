//! Runs: what is started, held in check and taken down, whoever asked for it.
//!
//! A [`Workload`] says all that one run is: root file system, process, namespaces, mounts, devices,
//! limits, network, security. It is parsed and checked; nothing in it is a string that has yet to be
//! understood. A container, a step of a build and later a pod sandbox are lowered to it, and
//! [`start`] makes a [`Run`] of it, by way of an OCI [`document`]. The run owns everything that happens
//! afterwards: signals, pauses, execs, attached clients, ports, its end.
//!
//! ```text
//! engine ──Workload──▶ start ──Launch──▶ launcher ─▶ supervisor          (crate `monitor`)
//!    ◀──Notice── Run ◀──events── Link ◀─────────────────┘
//! ```
//!
//! Always true: every request to a launcher or supervisor has a deadline, behind which stands a kill by
//! control group; a process is reached through a descriptor, never through a number that may be another's
//! by now. Nothing here knows Docker, an image or a container's record.

pub mod document;
mod error;
mod exec;
mod link;
pub mod process;
mod run;
mod start;
pub mod workload;

pub use error::{Error, Refusal, Result};
pub use exec::{Client, ExecPlan, ExecStarted};
pub use link::Notice;
pub use monitor::client::Launchers;
pub use monitor::exit::ExitRecord;
pub use monitor::settings::{
    Durability, LogDriver, LogSettings, MonitorSettings, Protocol, ProxyPort, Rootfs, RuntimeChoice,
};
pub use monitor::wire::{
    AttachOptions, DetachCause, ExecState, Framing, Launch, Place, Running, State, Target,
};
pub use process::Process;
pub use run::{Found, Run};
pub use start::{Filter, Started, start};
pub use workload::Workload;

/// Logs of runs, for those who read them.
pub mod logs {
    pub use monitor::logs::*;
}
