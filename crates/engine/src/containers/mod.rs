//! Containers: their spec, their life, and what can be done with them, as methods of
//! [`crate::Engine`].
//!
//! `asked` is always what the user typed: a full id, a name, or an id's prefix.
//!
//! ```text
//! spec ──merge, validate, mounts──→ record ──start: lowering──→ Workload ──→ runs::start
//!                                     ↑                                          │
//!   methods of Engine ──messages──→ task (step) ←────────── notices of the run ←─┘
//!                                     └─→ records, cgroups, cleanup, events
//! ```

mod assemble;
pub mod attach;
pub mod capabilities;
mod cgroups;
mod cleanup;
mod commit;
mod cpuset;
mod create;
mod events;
mod execs;
mod files;
pub mod health;
pub mod inspect;
pub(crate) mod joined;
pub(crate) mod lifecycle;
pub mod limits;
mod link_env;
mod links;
pub mod list;
pub mod log_options;
mod log_tag;
mod logs;
pub(crate) mod lowering;
pub mod merge;
mod mount_sources;
pub mod mounts;
pub mod phase;
mod propagation;
pub mod reconcile;
pub mod record;
mod records;
mod registry;
pub(crate) mod resolv;
pub mod security;
pub mod signals;
pub mod spec;
pub(crate) mod start;
pub mod step;
pub(crate) mod task;
mod top;
pub(crate) mod turns;
mod update;
pub mod validate;
pub mod views;
pub(crate) mod volume_mounts;
mod volumes;

pub use attach::{Attaching, ExecStarting};
pub(crate) use create::find_image;
pub use lifecycle::Waiter;
pub(crate) use registry::{ContainerHandle, Registry};
pub(crate) use volumes::users as volume_users;
