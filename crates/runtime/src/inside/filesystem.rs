//! The container's tree: mounts, devices, hidden and read-only places. All before the pivot.
//!
//! The root is attached in our mount namespace and everything is resolved from its descriptor, inside
//! of it (see [`sys::path`]); a mount lands on the descriptor that was resolved. Read-only and masked
//! places are cloned from such a descriptor as well, so what is hidden is what was found.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use spec::runtime::Device;
use sys::mount::{self, Attributes, Change, Depth, Filesystem};
use sys::namespace::Namespaces;
use sys::path::Root;

use super::copy_up::copy_up;
use crate::error::{Kind, LaunchError, at};
use crate::plan::{Plan, Planned, Shape, Source};
use crate::seal::STAGED_NAME;

/// What later steps need of the tree.
pub(crate) struct Built {
    pub devpts: Option<OwnedFd>,
}

/// linux/magic.h, PROC_SUPER_MAGIC.
const PROC_MAGIC: i64 = 0x9fa0;

/// Character devices that every container has. Source: OCI runtime-spec, "Default Devices".
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links that every container has in /dev.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// What may be bound over files of /proc, as lxcfs does. Source: runc `libcontainer/rootfs_linux.go`.
const PROC_FILES: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

pub(crate) fn build(plan: &Plan<'_>) -> Result<Built, LaunchError> {
    let root = Root::new(plan.rootfs.try_clone().map_err(at("duplicate the root"))?);
    let mut built = Built { devpts: None };
    let mut sealed_late = Vec::new();
    let mut own_devices = true;
    for planned in &plan.mounts {
        let step =
            || format!("error mounting {:?} to rootfs at {:?}", planned.name, planned.destination);
        let mounted =
            place(&root, plan, planned).map_err(|error| mount_error(planned, step(), &error))?;
        if planned.destination == Path::new("/dev") && matches!(planned.source, Source::Tree { .. })
        {
            own_devices = false;
        }
        if planned.destination == Path::new("/dev/pts") {
            built.devpts = Some(mounted.try_clone().map_err(at(step()))?);
        }
        if planned.read_only_late() {
            sealed_late.push(mounted);
        }
    }
    make_devices(&root, plan, own_devices)?;
    for mounted in sealed_late {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        mount::change(mounted, Depth::Only, change).map_err(at("make a mount read-only"))?;
    }
    for path in &plan.linux.readonly_paths {
        make_read_only(&root, Path::new(path))
            .map_err(at(format!("error making {path} read-only")))?;
    }
    mask(&root, &plan.linux.masked_paths)?;
    Ok(built)
}

fn mount_error(planned: &Planned, step: String, error: &io::Error) -> LaunchError {
    let mut failed = LaunchError::step(step, error);
    if error.raw_os_error() == Some(20) {
        failed.kind = Kind::NotFound;
        // moby daemon/errors.go looks for "not a directory" and adds this advice.
        failed.message.push_str(
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
             exists and is the expected type",
        );
    } else if !matches!(planned.source, Source::Tree { .. }) {
        failed.kind = Kind::Other;
    }
    failed
}

/// Makes the mount point where missing, and mounts.
fn place(root: &Root, plan: &Plan<'_>, planned: &Planned) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    let shape = match &planned.source {
        Source::Tree { shape, .. } => *shape,
        Source::Staged { .. } => Shape::File,
        Source::Filesystem { .. } | Source::CgroupV1 { .. } => Shape::Directory,
    };
    if matches!(&planned.source, Source::Filesystem { kind } if kind == "proc" || kind == "sysfs") {
        refuse_link(root, &planned.destination)?;
    }
    let target = match shape {
        Shape::Directory => root.create_dir_all(&planned.destination, mode)?,
        Shape::File => root.create_file(&planned.destination, mode)?,
    };
    refuse_over_proc(&target, planned)?;
    match &planned.source {
        Source::Tree { tree, .. } => {
            mount::attach(tree, &target)?;
            Ok(tree.try_clone()?)
        }
        Source::Staged { stage } => show_staged(stage, &target),
        Source::Filesystem { kind } => {
            let mounted = make(kind, plan, planned)?;
            if planned.copies_up() {
                copy_up(&target, &mounted)?;
            }
            mount::attach(&mounted, &target)?;
            Ok(mounted)
        }
        Source::CgroupV1 { trees, links } => {
            let mounted = cgroup_view(&target, trees, links)?;
            Ok(mounted)
        }
    }
}

/// Mounts one file of a detached file system. Kernels before 6.15 clone only what is attached in our
/// namespace, so it is attached (to the host's root, which is about to go) for that moment.
fn show_staged(stage: &OwnedFd, target: &OwnedFd) -> io::Result<OwnedFd> {
    let top = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(stage, top)?;
    let file =
        rustix::fs::openat(stage, STAGED_NAME, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let clone = mount::clone_tree(file, Path::new(""), Depth::Only)?;
    mount::detach(stage)?;
    let set = Attributes::READ_ONLY.with(Attributes::NO_SUID).with(Attributes::NO_DEV);
    mount::change(&clone, Depth::Only, Change { set, ..Change::default() })?;
    mount::attach(&clone, target)?;
    Ok(clone)
}

/// An image that ships /proc as a link would have what is masked by name left open elsewhere
/// (CVE-2019-19921).
fn refuse_link(root: &Root, path: &Path) -> io::Result<()> {
    let there = match root.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => done?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&there)?.st_mode) == FileType::Directory {
        return Ok(());
    }
    Err(io::Error::other(format!("{} must be an ordinary directory", path.display())))
}

/// Whoever covers /proc can make later writes to it go elsewhere (CVE-2019-19921).
fn refuse_over_proc(target: &OwnedFd, planned: &Planned) -> io::Result<()> {
    let is_proc = match &planned.source {
        Source::Filesystem { kind } => kind == "proc",
        Source::Tree { tree, .. } => rustix::fs::fstatfs(tree)?.f_type as i64 == PROC_MAGIC,
        Source::Staged { .. } | Source::CgroupV1 { .. } => false,
    };
    let inside = rustix::fs::fstatfs(target)?.f_type as i64 == PROC_MAGIC;
    let at_proc = planned.destination == Path::new("/proc");
    if is_proc || !(inside || at_proc) {
        return Ok(());
    }
    let name = planned.destination.strip_prefix("/proc").unwrap_or(Path::new(""));
    if PROC_FILES.iter().any(|file| Path::new(file) == name) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{:?} cannot be mounted because it is inside /proc",
        planned.destination
    )))
}

fn make(kind: &str, plan: &Plan<'_>, planned: &Planned) -> io::Result<OwnedFd> {
    let options = &planned.options;
    let filesystem = Filesystem::open(kind)?;
    let source = plan
        .request
        .spec
        .mounts
        .iter()
        .find(|mount| Path::new("/").join(&mount.destination) == planned.destination);
    let source =
        source.map_or(kind, |mount| if mount.source.is_empty() { kind } else { &mount.source });
    filesystem.set("source", source.as_bytes())?;
    filesystem.set_options(
        options.data.iter().map(String::as_str).filter(|option| *option != "newinstance"),
    )?;
    let mut set = options.set;
    if planned.read_only_late() {
        set = set.without(Attributes::READ_ONLY);
    }
    let mounted = filesystem.mount(set)?;
    if let Some((propagation, depth)) = options.propagation {
        mount::change(
            &mounted,
            depth,
            Change { propagation: Some(propagation), ..Change::default() },
        )?;
    }
    Ok(mounted)
}

fn cgroup_view(
    target: &OwnedFd,
    trees: &[(String, OwnedFd)],
    links: &[(String, String)],
) -> io::Result<OwnedFd> {
    let filesystem = Filesystem::open("tmpfs")?;
    filesystem.set("source", b"cgroup")?;
    filesystem.set("mode", b"755")?;
    let set = Attributes::NO_SUID.with(Attributes::NO_DEV).with(Attributes::NO_EXEC);
    let mounted = filesystem.mount(set)?;
    mount::attach(&mounted, target)?;
    let view = Root::new(mounted.try_clone()?);
    for (name, tree) in trees {
        mount::attach(tree, view.create_dir_all(Path::new(name), Mode::from_raw_mode(0o755))?)?;
    }
    for (link, to) in links {
        rustix::fs::symlinkat(to.as_str(), &mounted, link.as_str())?;
    }
    Ok(mounted)
}

fn make_devices(root: &Root, plan: &Plan<'_>, own: bool) -> Result<(), LaunchError> {
    if !own {
        return Ok(());
    }
    let step = "error creating device nodes";
    let dev =
        root.create_dir_all(Path::new("/dev"), Mode::from_raw_mode(0o755)).map_err(at(step))?;
    let may_make = !plan.namespaces.has(Namespaces::USER);
    for (name, major, minor) in DEVICES {
        if plan
            .linux
            .devices
            .iter()
            .any(|device| Path::new(&device.path) == Path::new("/dev").join(name))
        {
            continue;
        }
        let device = Device {
            path: format!("/dev/{name}"),
            kind: "c".to_owned(),
            major: major.into(),
            minor: minor.into(),
            file_mode: Some(0o666),
            uid: None,
            gid: None,
        };
        make_device(&dev, Path::new(name), &device, may_make).map_err(at(step))?;
    }
    for device in &plan.linux.devices {
        let path = Path::new("/").join(&device.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let parent = root.create_dir_all(parent, Mode::from_raw_mode(0o755)).map_err(at(step))?;
        make_device(&parent, Path::new(name), device, may_make)
            .map_err(at(format!("{step}: {}", path.display())))?;
    }
    for (name, target) in LINKS {
        if name == "core" && !Path::new("/proc/kcore").exists() {
            continue;
        }
        link(&dev, name, target).map_err(at(format!("symlink {target} /dev/{name}")))?;
    }
    Ok(())
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        // The image has something there; ptmx alone must be ours, or terminals come from elsewhere.
        Err(rustix::io::Errno::EXIST) if name == "ptmx" => {
            rustix::fs::unlinkat(dev, name, AtFlags::empty())?;
            Ok(rustix::fs::symlinkat(target, dev, name)?)
        }
        Err(rustix::io::Errno::EXIST) => Ok(()),
        done => Ok(done?),
    }
}

fn make_device(parent: &OwnedFd, name: &Path, device: &Device, may_make: bool) -> io::Result<()> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(io::Error::other(format!("device type {other:?} is unknown"))),
    };
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let rdev = if kind == FileType::Fifo {
        0
    } else {
        rustix::fs::makedev(number(device.major)?, number(device.minor)?)
    };
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let made = if may_make {
        rustix::fs::mknodat(parent, name, kind, mode, rdev)
    } else {
        Err(rustix::io::Errno::PERM)
    };
    match made {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            // The image's own is taken if it is what was asked for, else replaced.
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != rdev {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                rustix::fs::mknodat(parent, name, kind, mode, rdev)?;
            }
        }
        Err(rustix::io::Errno::PERM) => return bind_device(parent, name, &device.path),
        Err(error) => return Err(error.into()),
    }
    if device.uid.is_some() || device.gid.is_some() {
        let uid = device.uid.map(rustix::fs::Uid::from_raw);
        let gid = device.gid.map(rustix::fs::Gid::from_raw);
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// In a user namespace nodes cannot be made, but the host's can be shown: before the pivot it is
/// still there, under the covered root. Source: OCI runtime-spec leaves the means open.
fn bind_device(parent: &OwnedFd, name: &Path, host: &str) -> io::Result<()> {
    let tree = mount::clone_tree(rustix::fs::CWD, Path::new(host), Depth::Only)?;
    let root = Root::new(parent.try_clone()?);
    mount::attach(tree, root.create_file(name, Mode::from_raw_mode(0o666))?)
}

fn make_read_only(root: &Root, path: &Path) -> io::Result<()> {
    let target = match root.handle(path) {
        Err(error) if is_absent(&error) => return Ok(()),
        done => done?,
    };
    let clone = mount::clone_tree(&target, Path::new(""), Depth::Recursive)?;
    mount::change(&clone, Depth::Only, Change { set: Attributes::READ_ONLY, ..Change::default() })?;
    mount::attach(clone, target)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Covers files with /dev/null and directories with one empty read-only tmpfs.
fn mask(root: &Root, paths: &[String]) -> Result<(), LaunchError> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let step = || format!("error masking {path}");
        let target = match root.handle(Path::new(path)) {
            Err(error) if is_absent(&error) => continue,
            done => done.map_err(at(step()))?,
        };
        mask_one(root, &target, &mut empty).map_err(at(step()))?;
    }
    Ok(())
}

fn mask_one(root: &Root, target: &OwnedFd, empty: &mut Option<OwnedFd>) -> io::Result<()> {
    let stat = rustix::fs::fstat(target)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return mount::attach(null_device(root)?, target);
    }
    if let Some(first) = empty {
        return mount::attach(mount::clone_tree(&*first, Path::new(""), Depth::Only)?, target);
    }
    let filesystem = Filesystem::open("tmpfs")?;
    filesystem.set("nr_blocks", b"1")?;
    filesystem.set("nr_inodes", b"1")?;
    let mounted = filesystem.mount(Attributes::READ_ONLY)?;
    mount::attach(&mounted, target)?;
    *empty = Some(mounted);
    Ok(())
}

/// A clone of the container's /dev/null, if that is what stands there (CVE-2025-31133).
fn null_device(root: &Root) -> io::Result<OwnedFd> {
    let null = root.open(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if !is_null {
        return Err(io::Error::other("the container's /dev/null is something else"));
    }
    mount::clone_tree(null.as_fd(), Path::new(""), Depth::Only)
}

/// The file /dev/console, made if missing, after the pivot.
pub(crate) fn console() -> io::Result<OwnedFd> {
    Root::open_at(Path::new("/"))?
        .create_file(Path::new("/dev/console"), Mode::from_raw_mode(0o620))
}
