//! What a confined process asks for because its user namespace may not do it: devices, and attributes
//! of the kernel's own kinds.
//!
//! It names things by a descriptor that it has and the name of an entry. Both are looked at as if they
//! came from a subverted process: a descriptor must be of a directory or a regular file, and all that it
//! can have of these lie below its one directory; a name must be one component; nothing is followed.
//! What is done is no more than an archive's entry may ask for.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::wire::{Bytes, Event};
use crate::tar::Kind;
use crate::tree::{OPAQUE, is_overlay_xattr, is_privileged_xattr};

/// Which of overlayfs' marks may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    None,
    Opaque,
}

/// Does what `event` asks for; none when it asks for nothing of this kind.
pub(super) fn serve(event: &Event, fds: &[OwnedFd], marks: Marks) -> Option<io::Result<()>> {
    match event {
        Event::Device { name, kind, mode, rdev } => {
            Some(one(fds).and_then(|dir| device(dir, name, *kind, *mode, *rdev)))
        }
        Event::Attribute { entry, name, value } => {
            Some(one(fds).and_then(|on| attribute(on, entry.as_ref(), name, value, marks)))
        }
        Event::Begun
        | Event::Implied(_)
        | Event::Kept(..)
        | Event::Layer(_)
        | Event::Listed(_)
        | Event::NotPlain
        | Event::File { .. }
        | Event::Link { .. }
        | Event::Blob { .. }
        | Event::Known { .. }
        | Event::LayerBegins { .. }
        | Event::LayerFailed(_)
        | Event::Entry(_)
        | Event::Done
        | Event::Failed(_)
        | Event::Unconfined(_)
        | Event::Exited(_) => None,
    }
}

fn one(fds: &[OwnedFd]) -> io::Result<BorrowedFd<'_>> {
    match fds {
        [fd] => Ok(fd.as_fd()),
        _ => Err(Errno::BADF.into()),
    }
}

fn kind_of(fd: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// A name that leads nowhere else.
fn component(name: &Bytes) -> io::Result<&OsStr> {
    let bytes = name.0.as_slice();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Errno::INVAL.into());
    }
    Ok(OsStr::from_bytes(bytes))
}

fn device(
    dir: BorrowedFd<'_>,
    name: &Bytes,
    kind: Kind,
    mode: u32,
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let name = component(name)?;
    if kind_of(dir)? != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    let file_type = match kind {
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::File | Kind::HardLink | Kind::Symlink | Kind::Dir | Kind::Fifo => {
            return Err(Errno::INVAL.into());
        }
    };
    let (mode, device) = (Mode::from_raw_mode(mode & 0o777), rustix::fs::makedev(major, minor));
    // mknod(2) follows no link in the last component.
    Ok(rustix::fs::mknodat(dir, name, file_type, mode, device)?)
}

fn attribute(
    on: BorrowedFd<'_>,
    entry: Option<&Bytes>,
    name: &Bytes,
    value: &Bytes,
    marks: Marks,
) -> io::Result<()> {
    let (name, value) = (name.0.as_slice(), value.0.as_slice());
    let is_mark = name == OPAQUE.as_bytes() && value == b"y" && marks == Marks::Opaque;
    if !is_privileged_xattr(name) || (is_overlay_xattr(name) && !is_mark) {
        return Err(Errno::PERM.into());
    }
    match (entry, kind_of(on)?) {
        (Some(entry), FileType::Directory) => {
            sys::fs::set_xattr_at(on, component(entry)?, name, value)
        }
        (None, FileType::Directory | FileType::RegularFile) => sys::fs::set_xattr(on, name, value),
        _ => Err(Errno::BADF.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn bytes(text: &str) -> Bytes {
        Bytes::of(text.as_bytes())
    }

    #[track_caller]
    fn check(event: &Event, fd: OwnedFd, marks: Marks, want: Option<Errno>) {
        let outcome = serve(event, &[fd], marks).unwrap();
        assert_eq!(outcome.err().and_then(|error| Errno::from_io_error(&error)), want);
    }

    fn a_device(name: &str) -> Event {
        Event::Device { name: bytes(name), kind: Kind::CharDevice, mode: 0o666, rdev: (1, 3) }
    }

    fn an_attribute(entry: Option<&str>, name: &str) -> Event {
        Event::Attribute { entry: entry.map(bytes), name: bytes(name), value: bytes("y") }
    }

    #[test]
    fn a_name_that_leads_elsewhere_makes_no_device() {
        let scratch = Scratch::new();
        let dir = || sys::fs::open_dir(scratch.path()).unwrap();
        for name in ["", ".", "..", "../x", "a/b", "a\0b"] {
            check(&a_device(name), dir(), Marks::None, Some(Errno::INVAL));
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        check(&a_device("x"), file.into(), Marks::None, Some(Errno::NOTDIR));
        let fifo = Event::Device { name: bytes("x"), kind: Kind::File, mode: 0, rdev: (0, 0) };
        check(&fifo, dir(), Marks::None, Some(Errno::INVAL));
        assert!(serve(&a_device("x"), &[], Marks::None).unwrap().is_err());
    }

    #[test]
    fn only_attributes_that_need_privileges_are_set_and_marks_only_on_layers() {
        let scratch = Scratch::new();
        let dir = || sys::fs::open_dir(scratch.path()).unwrap();
        for name in ["user.x", "trusted.overlay.redirect", "user.overlay.opaque", "system.x"] {
            check(&an_attribute(None, name), dir(), Marks::Opaque, Some(Errno::PERM));
        }
        check(&an_attribute(None, OPAQUE), dir(), Marks::None, Some(Errno::PERM));
        // Descriptors that are neither directory nor file are of the host's.
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        check(&an_attribute(None, "trusted.x"), null(), Marks::None, Some(Errno::BADF));
        check(&an_attribute(Some("a"), "trusted.x"), null(), Marks::None, Some(Errno::BADF));
        check(&an_attribute(Some("../a"), "trusted.x"), dir(), Marks::None, Some(Errno::INVAL));
        if !sys::testing::privileged("attributes in trusted. need CAP_SYS_ADMIN") {
            return;
        }
        check(&an_attribute(None, OPAQUE), dir(), Marks::Opaque, None);
        check(&an_attribute(None, "trusted.x"), dir(), Marks::None, None);
    }
}
