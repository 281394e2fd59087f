//! `tmpcopyup`: a tmpfs begins with what the image has at its place.
//!
//! The tree is the image's, so its depth is a stranger's choice: it is walked without recursion, with
//! two open directories however deep it is. Going up is by `..`, and whoever has moved a directory
//! meanwhile ends the copy, since `..` would lead elsewhere.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

/// Deeper trees have no path that a program could name: PATH_MAX is 4096.
const DEPTH_MAX: usize = 2048;

const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Fills `mounted` with what it is about to cover.
pub(super) fn copy_up(covered: &OwnedFd, mounted: &OwnedFd) -> io::Result<()> {
    let open = |fd: &OwnedFd| rustix::fs::openat(fd, ".", OPEN, Mode::empty());
    copy_tree(open(covered)?, open(mounted)?)
}

/// A directory on the way down.
struct Level {
    stat: Stat,
    /// Its directories that are still to be copied.
    left: Vec<CString>,
}

impl Level {
    fn enter(from: &OwnedFd, to: &OwnedFd) -> io::Result<Level> {
        Ok(Level { stat: rustix::fs::fstat(from)?, left: copy_files(from, to)? })
    }

    fn is(&self, directory: &OwnedFd) -> io::Result<bool> {
        let stat = rustix::fs::fstat(directory)?;
        Ok((stat.st_dev, stat.st_ino) == (self.stat.st_dev, self.stat.st_ino))
    }
}

fn copy_tree(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let (mut from, mut to) = (from, to);
    let mut levels = vec![Level::enter(&from, &to)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            if levels.len() >= DEPTH_MAX {
                return Err(io::Error::other("directories are nested too deep to be copied"));
            }
            let below = rustix::fs::openat(&from, &name, OPEN, Mode::empty())?;
            rustix::fs::mkdirat(&to, &name, Mode::RWXU)?;
            to = rustix::fs::openat(&to, &name, OPEN, Mode::empty())?;
            from = below;
            levels.push(Level::enter(&from, &to)?);
            continue;
        }
        // What is in a directory changes its times, and its mode may forbid to put anything in.
        copy_attributes(&to, &level.stat)?;
        levels.pop();
        if let Some(above) = levels.last() {
            from = rustix::fs::openat(&from, "..", OPEN, Mode::empty())?;
            to = rustix::fs::openat(&to, "..", OPEN, Mode::empty())?;
            if !above.is(&from)? {
                return Err(io::Error::other("a directory was moved while it was copied"));
            }
        }
    }
    Ok(())
}

/// Copies all but the directories, whose names it gives.
fn copy_files(from: &OwnedFd, to: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => directories.push(name.to_owned()),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = rustix::fs::openat(to, name, create, mode)?;
                io::copy(
                    &mut std::fs::File::from(from),
                    &mut std::fs::File::from(to.try_clone()?),
                )?;
                copy_attributes(&to, &stat)?;
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice => {
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            FileType::Unknown => {}
        }
    }
    Ok(directories)
}

fn owner(stat: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)))
}

fn copy_attributes(to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    // chown(2) clears the set-user-ID bits, so the mode comes last.
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tug-copy-up-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("to")).unwrap();
        std::fs::create_dir_all(path.join("from")).unwrap();
        path
    }

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OPEN, Mode::empty()).unwrap()
    }

    /// Makes directories in one another; gives the names of the innermost.
    fn nest(path: &Path, depth: usize) {
        let mut inner = open(path);
        for _ in 0..depth {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = rustix::fs::openat(&inner, "d", OPEN, Mode::empty()).unwrap();
        }
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&inner, "end", create, Mode::RUSR).unwrap();
    }

    fn depth(path: &Path) -> usize {
        let mut inner = open(path);
        let mut depth = 0;
        while let Ok(below) = rustix::fs::openat(&inner, "d", OPEN, Mode::empty()) {
            (inner, depth) = (below, depth + 1);
        }
        rustix::fs::statat(&inner, "end", AtFlags::empty()).unwrap();
        depth
    }

    fn remove(path: &Path) {
        // The standard library recurses, but holds no descriptors while it does.
        let done = std::process::Command::new("rm").arg("-rf").arg(path).status();
        assert!(done.unwrap().success());
    }

    #[test]
    fn a_tree_is_copied_however_deep_a_program_could_go() {
        let path = scratch("deep");
        nest(&path.join("from"), 1500);
        copy_up(&open(&path.join("from")), &open(&path.join("to"))).unwrap();
        assert_eq!(depth(&path.join("to")), 1500);
        remove(&path);
    }

    #[test]
    fn a_tree_that_is_deeper_is_refused() {
        let path = scratch("deeper");
        nest(&path.join("from"), DEPTH_MAX + 10);
        let error = copy_up(&open(&path.join("from")), &open(&path.join("to"))).unwrap_err();
        assert!(error.to_string().contains("nested too deep"), "{error}");
        remove(&path);
    }

    #[test]
    fn modes_links_and_siblings_arrive() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = scratch("wide");
        let from = path.join("from");
        for name in ["a/x", "b/y"] {
            std::fs::create_dir_all(from.join(name)).unwrap();
            std::fs::write(from.join(name).join("file"), name).unwrap();
        }
        let locked = std::fs::Permissions::from_mode(0o500);
        std::fs::set_permissions(from.join("a"), locked).unwrap();
        std::os::unix::fs::symlink("../elsewhere", from.join("link")).unwrap();
        copy_up(&open(&from), &open(&path.join("to"))).unwrap();
        let to = path.join("to");
        assert_eq!(std::fs::read_to_string(to.join("a/x/file")).unwrap(), "a/x");
        assert_eq!(std::fs::read_to_string(to.join("b/y/file")).unwrap(), "b/y");
        assert_eq!(std::fs::metadata(to.join("a")).unwrap().permissions().mode() & 0o777, 0o500);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("../elsewhere"));
        remove(&path);
    }
}
