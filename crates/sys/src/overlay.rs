//! Overlay mounts that no path leads to: each lives as long as its descriptor.
//!
//! Kernels from 6.5 on take the layers one by one into a file system context. Older ones take one
//! string, of which fsconfig(2) passes on 255 bytes, too few for an image's layers. There mount(2) is
//! called in a mount namespace of a helper thread, which ends with the thread; what stays is a clone
//! of the mount that is attached nowhere. Either way nothing shows on the host.
//!
//! Source: kernel `Documentation/filesystems/overlayfs.rst`, `fs/fsopen.c`, open_tree(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::mount::{self, Attributes, Change, Depth, Filesystem, Propagation};
use crate::namespace::{self, Namespaces};
use crate::process::check;

/// The directories of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Topmost first; at least two where there is no upper directory.
    pub lowers: &'a [PathBuf],
    /// Upper and work directory; without them the mount is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Further options, `key` or `key=value`.
    pub options: &'a [String],
}

/// Mounts `overlay` and gives its root directory, attached nowhere.
///
/// # Errors
/// With the kernel's explanation where there is one.
pub fn mount(overlay: &Overlay<'_>, attributes: Attributes) -> io::Result<OwnedFd> {
    let attributes = match overlay.upper {
        Some(_) => attributes,
        None => attributes.with(Attributes::READ_ONLY),
    };
    if kernel_release() < (6, 5) {
        return mount_in_thread(overlay, attributes);
    }
    // The releases around 6.5 differ in what they take one by one. EINVAL has other causes too, and
    // then the second way fails likewise.
    match mount_one_by_one(overlay, attributes) {
        Err(error) if is_invalid(&error) => mount_in_thread(overlay, attributes).map_err(|_| error),
        done => done,
    }
}

/// Major and minor number of `uname -r`; zeros for what is no number.
fn kernel_release() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn is_invalid(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput || error.raw_os_error() == Some(libc::EINVAL)
}

fn mount_one_by_one(overlay: &Overlay<'_>, attributes: Attributes) -> io::Result<OwnedFd> {
    let context = Filesystem::open("overlay")?;
    // The source shows in mountinfo and df.
    context.set("source", b"overlay")?;
    for lower in overlay.lowers {
        context.set("lowerdir+", lower.as_os_str().as_bytes())?;
    }
    if let Some((upper, work)) = overlay.upper {
        context.set("upperdir", upper.as_os_str().as_bytes())?;
        context.set("workdir", work.as_os_str().as_bytes())?;
    }
    context.set_options(overlay.options.iter().map(String::as_str))?;
    context.mount(attributes)
}

fn mount_in_thread(overlay: &Overlay<'_>, attributes: Attributes) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            namespace::unshare(Namespaces::MOUNT)?;
            mount::change_all(Propagation::Private)?;
            mount_over_lower(overlay, attributes)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

/// Mounts on the topmost lower directory, which only this thread's namespace sees.
fn mount_over_lower(overlay: &Overlay<'_>, attributes: Attributes) -> io::Result<OwnedFd> {
    let open = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let lowers = overlay.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    // One page holds all options, so directories are named by descriptors, which are short and have
    // nothing to escape.
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut options = format!("lowerdir={}", lowers.iter().map(name).collect::<Vec<_>>().join(":"));
    let upper = match overlay.upper {
        Some((upper, work)) => Some((open(upper)?, open(work)?)),
        None => None,
    };
    if let Some((upper, work)) = &upper {
        options.push_str(&format!(",upperdir={},workdir={}", name(upper), name(work)));
    }
    for option in overlay.options {
        options.push(',');
        options.push_str(option);
    }
    let first = overlay.lowers.first().ok_or(io::ErrorKind::InvalidInput)?;
    let target = CString::new(first.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    // SAFETY: mount(2) reads the C strings, which live until it returns; overlayfs takes a string as
    // its data.
    check(i64::from(unsafe {
        libc::mount(
            c"overlay".as_ptr(),
            target.as_ptr(),
            c"overlay".as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    }))?;
    let mounted = mount::clone_tree(CWD, first, Depth::Only)?;
    if !attributes.is_empty() {
        mount::change(&mounted, Depth::Only, Change { set: attributes, ..Change::default() })?;
    }
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directories(PathBuf);

    impl Drop for Directories {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn both_ways_of_mounting_show_the_same_tree_and_nothing_on_the_host() {
        if !crate::testing::privileged("mounting needs CAP_SYS_ADMIN") {
            return;
        }
        let base = std::env::temp_dir().join(format!("tug-overlay-{}", std::process::id()));
        let _removed = Directories(base.clone());
        // More layers than 255 bytes name.
        let lowers: Vec<PathBuf> =
            (0..40).map(|n| base.join(format!("layer, with: number {n}"))).collect();
        for (number, lower) in lowers.iter().enumerate() {
            std::fs::create_dir_all(lower).unwrap();
            std::fs::write(lower.join(format!("file{number}")), "").unwrap();
        }
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let before = mounts();
        let ways: [fn(&Overlay<'_>, Attributes) -> io::Result<OwnedFd>; 2] =
            [mount_one_by_one, mount_in_thread];
        for (way, mount) in ways.into_iter().enumerate() {
            let [upper, work] = ["upper", "work"].map(|name| base.join(format!("{name}{way}")));
            std::fs::create_dir_all(&upper).unwrap();
            std::fs::create_dir_all(&work).unwrap();
            let options = ["index=off".to_owned()];
            let overlay =
                Overlay { lowers: &lowers, upper: Some((&upper, &work)), options: &options };
            let mounted = match mount(&overlay, Attributes::NO_DEV) {
                Err(error) if way == 0 && is_invalid(&error) => continue,
                mounted => mounted.unwrap(),
            };
            let names = crate::fs::open_dir_at(std::os::fd::AsFd::as_fd(&mounted), ".").unwrap();
            let entries = rustix::fs::Dir::new(names).unwrap().count();
            assert_eq!(entries, 42, "40 files, `.` and `..`");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::openat(&mounted, "new", flags, Mode::RUSR).unwrap();
            assert!(upper.join("new").exists());
            assert_eq!(mounts(), before);
        }
    }
}
