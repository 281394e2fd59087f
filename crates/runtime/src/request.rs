//! What callers ask of the runtime, and what they get.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use spec::runtime::{Process, Spec};
use sys::cgroup::Cgroup;
use sys::process::Pid;
use sys::tty::Size;

use crate::rootfs::RootfsMount;

/// A container to be made and started.
#[derive(Debug)]
pub struct LaunchRequest<'a> {
    pub id: &'a str,
    pub spec: &'a Spec,
    /// The directory that relative paths of the document start from, also told to hooks.
    pub bundle: &'a std::path::Path,
    /// Replaces the document's `root.path`.
    pub rootfs: &'a RootfsMount,
    /// A ready network namespace; replaces what the document says about it.
    pub netns: Option<BorrowedFd<'a>>,
    pub stdio: Stdio<'a>,
    pub cgroup: CgroupPlan,
    /// Names to be looked up in the image; replaces the document's `process.user` ids.
    pub user: Option<&'a UserRequest>,
    pub init: Init<'a>,
    /// Replaces compiling the document's `linux.seccomp`.
    pub seccomp: Option<&'a sys::seccomp::Program>,
    pub keyring: Keyring,
    pub root_change: RootChange,
    /// Descriptors from 3 on that the program inherits: `--preserve-fds`.
    pub preserved_fds: u32,
}

impl<'a> LaunchRequest<'a> {
    /// A request with everything optional left to the document.
    #[must_use]
    pub fn new(
        id: &'a str,
        spec: &'a Spec,
        rootfs: &'a RootfsMount,
        stdio: Stdio<'a>,
        cgroup: CgroupPlan,
    ) -> Self {
        Self {
            id,
            spec,
            bundle: std::path::Path::new("/"),
            rootfs,
            netns: None,
            stdio,
            cgroup,
            user: None,
            init: Init::Program,
            seccomp: None,
            keyring: Keyring::New,
            root_change: RootChange::Pivot,
            preserved_fds: 0,
        }
    }
}

/// Where the first process's standard streams lead.
#[derive(Debug)]
pub enum Stdio<'a> {
    /// To where ours lead.
    Inherit,
    /// To these; no stdin is /dev/null.
    Streams { stdin: Option<BorrowedFd<'a>>, stdout: BorrowedFd<'a>, stderr: BorrowedFd<'a> },
    /// To a new terminal of the container, whose master the caller gets.
    Terminal { size: Option<Size> },
}

/// Which control group the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupPlan {
    /// This path from the top of each hierarchy, such as `/tug/<id>`. It is made, and limited by the
    /// document's `linux.resources`.
    Path(PathBuf),
    /// None of its own: it stays in the caller's.
    Inherit,
}

/// Docker's `--user` and `--group-add`, to be looked up in the container's own files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserRequest {
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// Further groups, names or numbers.
    pub groups: Vec<String>,
}

/// What runs as the container's first process.
#[derive(Debug, Clone, Copy)]
pub enum Init<'a> {
    /// The document's program itself.
    Program,
    /// Tug's own init, which starts the program and reaps: `--init`. The binary is bound read-only
    /// at [`crate::init::PATH`].
    Engine(&'a crate::seal::Sealed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyring {
    New,
    /// `--no-new-keyring`.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootChange {
    Pivot,
    /// chroot(2) into a moved mount: `--no-pivot`, for a root on the initial RAM disk.
    Chroot,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Launched {
    pub pid: Pid,
    /// The process is a child of the caller, which reaps it: [`sys::process::wait_process`].
    pub pidfd: OwnedFd,
    /// The master of the container's terminal.
    pub terminal: Option<OwnedFd>,
    pub cgroup: Option<Cgroup>,
    /// What the host could not do and was not fatal.
    pub warnings: Vec<String>,
}

/// A further process for a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's first process.
    pub pid: Pid,
    pub pidfd: BorrowedFd<'a>,
    pub process: &'a Process,
    pub stdio: Stdio<'a>,
    /// The container's group, which the process joins.
    pub cgroup: Option<&'a Cgroup>,
    pub user: Option<&'a UserRequest>,
    pub seccomp: Option<&'a sys::seccomp::Program>,
    pub preserved_fds: u32,
}

/// A further process that runs.
#[derive(Debug)]
pub struct ExecLaunched {
    pub pid: Pid,
    /// The process is a child of the caller, which reaps it.
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    pub warnings: Vec<String>,
}
