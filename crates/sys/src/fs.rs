//! Work in directory trees by file descriptor.
//!
//! Trees here belong to containers, images and archives, so nothing in them is trusted. Whoever
//! walks one holds a descriptor of its root and names everything relative to it: a symbolic link
//! is either not followed at all ([`open_beneath`]) or resolved as if the root were `/`
//! ([`open_in_root`], openat2(2), Linux 5.6). No function takes a path string from outside a root.
//!
//! Some calls of older kernels know files by paths alone. Here these go through /proc/self/fd; in a
//! process that is confined to a root without /proc ([`go_without_proc`]), through the working directory.
//!
//! Invariant: no descriptor returned from here survives an exec.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, XattrFlags};
use rustix::io::Errno;

/// One name in a directory. The kind may be [`FileType::Unknown`] on old file systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    pub kind: FileType,
}

/// Opens `path` with `root` as `/`: symbolic links, `..` and absolute paths stay inside.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open2(root, path.as_ref(), flags, mode, resolve)
}

/// Opens `path` below `dir`, refusing (ELOOP, EXDEV) every symbolic link and every way out.
pub fn open_beneath(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    open2(dir, path.as_ref(), flags, mode, resolve)
}

/// openat2 answers EAGAIN when a rename or mount elsewhere raced with a `..`; trying again is the
/// documented remedy (openat2(2), "EAGAIN").
fn open2(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    const TRIES_MAX: usize = 64;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..TRIES_MAX {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens an absolute path of the host (never of a container) as a directory.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the directory `name` of `dir`, which must not be a symbolic link.
pub fn open_dir_at(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name.as_ref(), flags, Mode::empty())?)
}

/// The names in `dir`, without `.` and `..`, in the directory's own order. Reads from the start,
/// whatever was read before.
pub fn entries(dir: BorrowedFd<'_>) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    each_entry(dir, |name, kind| found.push(Entry { name: name.to_owned(), kind }))?;
    Ok(found)
}

fn each_entry(dir: BorrowedFd<'_>, mut each: impl FnMut(&OsStr, FileType)) -> io::Result<()> {
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut stream = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = stream.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(OsStr::from_bytes(name), entry.file_type());
        }
    }
    Ok(())
}

/// The first `limit` names in `dir` that come after `after`, in the order of their bytes, and whether
/// there are more. Holds twice as many, however long the directory is.
pub fn entries_after(
    dir: BorrowedFd<'_>,
    after: Option<&OsStr>,
    limit: usize,
) -> io::Result<(Vec<Entry>, bool)> {
    let mut found: Vec<Entry> = Vec::new();
    let mut more = false;
    let mut first = |found: &mut Vec<Entry>| {
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        more |= found.len() > limit;
        found.truncate(limit);
    };
    each_entry(dir, |name, kind| {
        if after.is_none_or(|after| name > after) {
            found.push(Entry { name: name.to_owned(), kind });
        }
        if found.len() >= limit.saturating_mul(2) {
            first(&mut found);
        }
    })?;
    first(&mut found);
    Ok((found, more))
}

/// Whether descriptors are turned into paths by the working directory.
static WITHOUT_PROC: AtomicBool = AtomicBool::new(false);

/// From now on this process does without /proc: functions here that need a path change the working
/// directory instead, and leave it changed. For a process whose root is a tree that it works on, and
/// which does so with one thread.
pub fn go_without_proc() {
    WITHOUT_PROC.store(true, Ordering::Relaxed);
}

fn has_proc() -> bool {
    !WITHOUT_PROC.load(Ordering::Relaxed)
}

/// Where an open directory (with /proc: any file) lies now, in this process's view. For files of our own
/// trees only.
pub fn real_path(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    if has_proc() {
        return std::fs::read_link(proc_path(fd));
    }
    rustix::process::fchdir(fd)?;
    Ok(PathBuf::from(OsString::from_vec(rustix::process::getcwd(Vec::new())?.into_bytes())))
}

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A path to the entry `name` of `dir`.
fn entry_path(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathBuf> {
    if has_proc() {
        return Ok(proc_path(dir).join(name));
    }
    rustix::process::fchdir(dir)?;
    Ok(Path::new(".").join(name))
}

/// Extended attributes in the order of their names.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes of an open file. None where the file system has no such thing.
pub fn xattrs(fd: BorrowedFd<'_>) -> io::Result<Xattrs> {
    collect_xattrs(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
}

/// All extended attributes of `name` in `dir`, a symbolic link not followed.
pub fn xattrs_at(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<Xattrs> {
    // There is no l*xattrat before Linux 6.13; the last component below a magic link is not
    // followed by the l-variants, so this names exactly the entry.
    let path = entry_path(dir, name.as_ref())?;
    collect_xattrs(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
    )
}

fn collect_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    // The short buffer answers "none", the common case, in one call.
    let mut small = [0u8; 256];
    let names = match list(&mut small) {
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => grow(|buffer| list(buffer))?,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grow(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Gone meanwhile, or listed but not for us (security.* of another namespace).
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// xattr(7): lists and values are at most 64 KiB.
fn grow(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0u8; 1024];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 64 * 1024 => buffer.resize(64 * 1024, 0),
            Err(error) => return Err(error),
        }
    }
}

/// One extended attribute of an open file, if it has it.
pub fn xattr(fd: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    match grow(|buffer| rustix::fs::fgetxattr(fd, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets one extended attribute of an open file.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?)
}

/// Sets one extended attribute of `name` in `dir`, a symbolic link not followed.
pub fn set_xattr_at(
    dir: BorrowedFd<'_>,
    name: impl AsRef<OsStr>,
    attribute: &[u8],
    value: &[u8],
) -> io::Result<()> {
    let path = entry_path(dir, name.as_ref())?;
    Ok(rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty())?)
}

/// Changes the mode of `name` in `dir`, which is no symbolic link.
pub fn chmod_at(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
    let (name, mode) = (name.as_ref(), Mode::from_raw_mode(mode));
    if has_proc() {
        // fchmod(2) refuses a handle. This works before Linux 6.6 as well, which brought fchmodat2.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        return Ok(rustix::fs::chmod(proc_path(handle.as_fd()), mode)?);
    }
    // A link in its place leads nowhere but inside this process's root.
    Ok(rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?)
}

/// Removes `name` of `dir` with everything below, following nothing. What is not there is fine.
///
/// # Errors
/// The first failure; what could be removed is gone even then.
pub fn remove_tree(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = name.as_ref();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // unlink(2): EISDIR on Linux, EPERM by POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut removal = Removal { top: dir, lifted: Vec::new(), first: None };
    removal.empty_and_remove(dir, name, 0);
    while let Some(lifted) = removal.lifted.pop() {
        removal.empty_and_remove(dir, &lifted, 0);
    }
    removal.first.map_or(Ok(()), Err)
}

/// A removal in progress. Each level costs a descriptor, so a subtree that is too deep is lifted to
/// the top and emptied from there.
struct Removal<'a> {
    top: BorrowedFd<'a>,
    lifted: Vec<OsString>,
    first: Option<io::Error>,
}

const DEPTH_MAX: usize = 64;

impl Removal<'_> {
    fn empty_and_remove(&mut self, parent: BorrowedFd<'_>, name: &OsStr, depth: usize) {
        let opened = match open_dir_at(parent, name) {
            Ok(opened) => opened,
            Err(error) => return self.note(error),
        };
        match entries(opened.as_fd()) {
            Ok(found) => {
                for entry in found {
                    self.remove_entry(opened.as_fd(), &entry, depth);
                }
            }
            Err(error) => self.note(error),
        }
        if let Err(error) = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            self.note(error.into());
        }
    }

    fn remove_entry(&mut self, dir: BorrowedFd<'_>, entry: &Entry, depth: usize) {
        if entry.kind != FileType::Directory {
            match rustix::fs::unlinkat(dir, &entry.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return,
                Err(Errno::ISDIR) => {}
                Err(error) => return self.note(error.into()),
            }
        }
        if depth < DEPTH_MAX {
            return self.empty_and_remove(dir, &entry.name, depth + 1);
        }
        // Removals of one directory may run side by side, also in other processes.
        static LIFTED: AtomicUsize = AtomicUsize::new(0);
        let number = LIFTED.fetch_add(1, Ordering::Relaxed);
        let aside = OsString::from(format!(".deep-{}-{number}", std::process::id()));
        match rustix::fs::renameat(dir, &entry.name, self.top, &aside) {
            Ok(()) => self.lifted.push(aside),
            Err(error) => self.note(error.into()),
        }
    }

    fn note(&mut self, error: io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.first.get_or_insert(error);
        }
    }
}

/// Copies `length` bytes from the start of `from` to the start of `to`: as a shared extent where
/// the file system can, else inside the kernel, else through memory.
pub fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    if length == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut done = 0;
    while done < length {
        let want = usize::try_from((length - done).min(1 << 30)).unwrap_or(1 << 30);
        let (mut at_from, mut at_to) = (done, done);
        match rustix::fs::copy_file_range(from, Some(&mut at_from), to, Some(&mut at_to), want) {
            Ok(0) => return Ok(()),
            Ok(copied) => done += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_through_memory(from, to, done, length);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through_memory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    mut at: u64,
    length: u64,
) -> io::Result<()> {
    let mut buffer = vec![0u8; 256 * 1024];
    while at < length {
        let got = rustix::io::pread(from, &mut buffer, at)?;
        if got == 0 {
            break;
        }
        let mut written = 0;
        while written < got {
            written += rustix::io::pwrite(to, &buffer[written..got], at + written as u64)?;
        }
        at += got as u64;
    }
    Ok(())
}

/// The bits that this process's umask(2) takes from new files, without changing it for an instant
/// (which umask(2) itself would, for all threads).
pub fn umask() -> io::Result<u32> {
    if !has_proc() {
        let mask = rustix::process::umask(Mode::empty());
        rustix::process::umask(mask);
        return Ok(mask.as_raw_mode());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Umask in /proc/self/status"))
}

/// The target of the symbolic link `name` in `dir`.
pub fn read_link_at(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(dir, name.as_ref(), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of the test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("tug-fs-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let scratch = Scratch::new("root");
        std::fs::create_dir_all(scratch.0.join("etc")).unwrap();
        std::fs::write(scratch.0.join("etc/passwd"), "inside").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scratch.0.join("link")).unwrap();
        let root = open_dir(&scratch.0).unwrap();
        let fd = open_in_root(root.as_fd(), "link", OFlags::RDONLY, Mode::empty()).unwrap();
        let text = std::io::read_to_string(std::fs::File::from(fd)).unwrap();
        assert_eq!(text, "inside");
        let refused = open_beneath(root.as_fd(), "link", OFlags::RDONLY, Mode::empty());
        assert!(refused.is_err());
    }

    #[test]
    fn a_tree_deeper_than_descriptors_go_is_removed() {
        let scratch = Scratch::new("deep");
        let root = open_dir(&scratch.0).unwrap();
        let mut at = open_dir(&scratch.0).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_dir_at(at.as_fd(), "d").unwrap();
        }
        remove_tree(root.as_fd(), "d").unwrap();
        assert_eq!(entries(root.as_fd()).unwrap(), []);
    }

    #[test]
    fn the_umask_is_read_as_it_is() {
        assert!(umask().unwrap() <= 0o777);
    }
}
