//! The OCI runtime: from a document and a root file system to a process in a container.
//!
//! [`launch`] makes and starts a container in one handshake, [`create`] stops before the program so
//! that [`Created::start`] can let it go, [`exec`] adds a process to a running container. All of
//! them are one clone of the caller, which must have a single thread: the child finds what the
//! parent prepared in its copy of the memory, and no second program of ours is ever executed.
//!
//! The parent opens everything that belongs to the host (the overlay, the sources of bind mounts,
//! the control group) as descriptors; the child works on descriptors inside its namespaces only.
//! Errors of the child come back over a socket that exec closes, with the step that failed.
//!
//! What a start costs (strace, a document like Docker's with 7 mounts, 12 masked or read-only places,
//! version 1 groups): about 150 system calls of the parent and 400 of the child, 2 ms in all. The
//! larger parts are the making of control groups and of the network namespace, if none is given.
//!
//! The same from the outside is the command line in [`cli`] (`tug runtime …`) and, against another
//! runtime's command line, [`external`]. Elsewhere: what the document says, in the engine.

mod channel;
pub mod cli;
mod console;
mod error;
mod exec;
pub mod external;
mod hooks;
pub mod init;
mod inside;
mod launch;
mod options;
mod plan;
mod request;
pub mod resources;
pub mod rootfs;
mod scheduling;
pub mod seal;
pub mod seccomp;
mod state;
mod unsupported;

pub use error::{Kind, LaunchError, words};
pub use exec::exec;
pub use inside::identity::find_user;
pub use launch::{Created, create, launch};
pub use options::file_system;
pub use request::{
    CgroupPlan, ExecLaunched, ExecRequest, Init, Keyring, LaunchRequest, Launched, RootChange,
    Stdio, UserRequest,
};
pub use rootfs::RootfsMount;
pub use sys::cgroup::{Cgroup, OomWatch, Stats};
