//! A proc file system of our own, to write settings through.
//!
//! What stands at the container's /proc may be anything the image or a mount put there
//! (CVE-2019-16884, CVE-2025-52881). This one is made by us, attached nowhere, and paths in it are
//! resolved without following any link or crossing any mount.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sys::mount::{Attributes, Filesystem};

#[derive(Debug)]
pub(crate) struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// A new instance for our own PID namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self { root: Filesystem::open("proc")?.mount(Attributes::NONE)? })
    }

    /// Writes one value; `self/…` is the calling process.
    pub fn write(&self, path: &Path, value: &[u8]) -> io::Result<()> {
        let path = match path.strip_prefix("self") {
            // `self` is a link, and no link is followed: its target is no secret.
            Ok(rest) => Path::new(&std::process::id().to_string()).join(rest),
            Err(_) => path.to_owned(),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?;
        rustix::io::write(&file, value)?;
        Ok(())
    }
}
