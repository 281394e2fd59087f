//! Everything that the parent opens, checks and decides before the clone.
//!
//! A [`Plan`] is what the child works off, in its copy of our memory. Whatever belongs to the host
//! is in it as a descriptor: after the clone the child never needs a path of the host again, except
//! for hooks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use spec::runtime::{Linux, Mount, NamespaceKind, Process, Spec};
use sys::cgroup::{Cgroup, Entry, Layout};
use sys::mount::{self, Attributes, Change, Depth, Propagation};
use sys::namespace::Namespaces;

use crate::error::{Kind, LaunchError, at, at_raw, words};
use crate::options::{CopyUp, Options};
use crate::request::{Init, LaunchRequest};
use crate::rootfs;
use crate::seal::InitMount;

/// What the child works off.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub request: &'a LaunchRequest<'a>,
    pub process: &'a Process,
    pub linux: &'a Linux,
    pub rootfs: OwnedFd,
    pub mounts: Vec<Planned>,
    pub namespaces: Wanted,
    pub entry: Entry,
    pub seccomp: Option<std::borrow::Cow<'a, OwnedProgram>>,
    /// /dev/null of the host, for a stdin that leads nowhere.
    pub null: OwnedFd,
    pub argv: Vec<String>,
    pub personality: Option<u32>,
}

/// A compiled filter of our own; borrowed ones come with the request.
pub(crate) type OwnedProgram = sys::seccomp::Program;

/// Namespaces to be made and to be joined.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub new: Namespaces,
    pub join: Vec<(Namespaces, OwnedFd)>,
}

impl Wanted {
    pub fn has(&self, kind: Namespaces) -> bool {
        self.new.contains(kind) || self.join.iter().any(|(joined, _)| *joined == kind)
    }

    pub fn joins(&self, kind: Namespaces) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }
}

/// One mount of the document.
#[derive(Debug)]
pub(crate) struct Planned {
    pub destination: PathBuf,
    pub source: Source,
    pub options: Options,
    /// What an error calls the source.
    pub name: String,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// A detached mount, attributes and propagation already as wished.
    Tree { tree: OwnedFd, shape: Shape },
    /// Our own binary, in a detached file system: see [`crate::seal`].
    Staged { stage: OwnedFd },
    /// A file system that has to be made inside the namespaces.
    Filesystem { kind: String },
    /// The container's view of version 1 groups: a tmpfs with these mounts and links in it.
    CgroupV1 { trees: Vec<(String, OwnedFd)>, links: Vec<(String, String)> },
}

/// What a mount's root is, and so what it can be mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    File,
}

impl<'a> Plan<'a> {
    pub fn prepare(
        request: &'a LaunchRequest<'a>,
        cgroup: Option<&Cgroup>,
    ) -> Result<Self, LaunchError> {
        let spec = request.spec;
        let process =
            spec.process.as_ref().ok_or_else(|| invalid("process property must not be empty"))?;
        let linux =
            spec.linux.as_ref().ok_or_else(|| invalid("linux property must not be empty"))?;
        check(spec, process, linux)?;
        let namespaces = namespaces(request, linux)?;
        check_sysctls(linux, &namespaces)?;
        let mut mounts = Vec::with_capacity(spec.mounts.len() + 1);
        for mount in &spec.mounts {
            if let Some(planned) = plan_mount(mount, request.bundle, cgroup, &namespaces, linux)? {
                mounts.push(planned);
            }
        }
        let mut argv = process.args.clone();
        if let Init::Engine(sealed) = request.init {
            mounts.push(plan_init(sealed)?);
            argv.splice(0..0, [crate::init::PATH.to_owned(), "--".to_owned()]);
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self {
            request,
            process,
            linux,
            rootfs: rootfs::open(request.rootfs).map_err(|error| {
                LaunchError::step("error mounting the root file system", &error)
            })?,
            mounts,
            namespaces,
            entry: entry(cgroup)?,
            seccomp: seccomp(request.seccomp, linux)?,
            null: rustix::fs::open("/dev/null", flags, Mode::empty())
                .map_err(at_raw("open /dev/null"))?,
            argv,
            personality: linux.personality.as_ref().map(personality).transpose()?,
        })
    }

    /// What building the container's tree takes.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let joined = self.namespaces.join.iter().map(|(_, fd)| fd.as_fd());
        let trees = self.mounts.iter().flat_map(|planned| planned.source.descriptors());
        [self.rootfs.as_fd()].into_iter().chain(joined).chain(trees)
    }
}

impl Source {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Tree { tree, .. } => vec![tree.as_fd()],
            Self::Staged { stage } => vec![stage.as_fd()],
            Self::Filesystem { .. } => Vec::new(),
            Self::CgroupV1 { trees, .. } => trees.iter().map(|(_, tree)| tree.as_fd()).collect(),
        }
    }
}

/// personality(2): PER_LINUX and PER_LINUX32.
fn personality(wanted: &spec::runtime::Personality) -> Result<u32, LaunchError> {
    match wanted.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(invalid(format!("personality {other:?} is unknown"))),
    }
}

fn invalid(message: impl Into<String>) -> LaunchError {
    LaunchError::new(Kind::Other, message)
}

/// Refuses what we would otherwise silently not do.
fn check(spec: &Spec, process: &Process, linux: &Linux) -> Result<(), LaunchError> {
    if process.args.is_empty() {
        return Err(invalid("process.args must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(invalid(format!("cwd must be an absolute path: {:?}", process.cwd)));
    }
    let has_time = linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Time);
    if !linux.time_offsets.is_empty() && !has_time {
        return Err(invalid("time offsets need a time namespace"));
    }
    crate::unsupported::check(spec, process, linux)?;
    let text = process.args.iter().chain(&process.env);
    if text.into_iter().any(|text| text.contains('\0')) {
        return Err(invalid("arguments and environment must not contain a NUL byte"));
    }
    Ok(())
}

pub(crate) fn seccomp<'a>(
    given: Option<&'a OwnedProgram>,
    linux: &Linux,
) -> Result<Option<std::borrow::Cow<'a, OwnedProgram>>, LaunchError> {
    use std::borrow::Cow;
    match (given, &linux.seccomp) {
        (Some(program), _) => Ok(Some(Cow::Borrowed(program))),
        (None, Some(section)) => {
            let program =
                crate::seccomp::compile(section).map_err(|error| invalid(spec::chain(&error)))?;
            Ok(Some(Cow::Owned(program)))
        }
        (None, None) => Ok(None),
    }
}

fn entry(cgroup: Option<&Cgroup>) -> Result<Entry, LaunchError> {
    let Some(cgroup) = cgroup else { return Ok(Entry::Nothing) };
    cgroup.entry().map_err(at(format!("open the cgroup {}", cgroup.path().display())))
}

fn kind_bits(kind: NamespaceKind) -> Namespaces {
    match kind {
        NamespaceKind::Pid => Namespaces::PID,
        NamespaceKind::Network => Namespaces::NET,
        NamespaceKind::Mount => Namespaces::MOUNT,
        NamespaceKind::Ipc => Namespaces::IPC,
        NamespaceKind::Uts => Namespaces::UTS,
        NamespaceKind::User => Namespaces::USER,
        NamespaceKind::Cgroup => Namespaces::CGROUP,
        NamespaceKind::Time => Namespaces::TIME,
    }
}

fn namespaces(request: &LaunchRequest<'_>, linux: &Linux) -> Result<Wanted, LaunchError> {
    let mut wanted = Wanted { new: Namespaces::NONE, join: Vec::new() };
    for namespace in &linux.namespaces {
        let kind = kind_bits(namespace.kind);
        if wanted.has(kind) {
            return Err(invalid(format!(
                "malformed spec file: duplicated ns {:?}",
                namespace.kind
            )));
        }
        let given = request.netns.filter(|_| namespace.kind == NamespaceKind::Network);
        if let Some(netns) = given {
            let netns =
                netns.try_clone_to_owned().map_err(at("duplicate the network namespace"))?;
            wanted.join.push((kind, netns));
        } else if namespace.path.is_empty() {
            wanted.new |= kind;
        } else {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&namespace.path, flags, Mode::empty())
                .map_err(at_raw(format!("open the namespace {}", namespace.path)))?;
            wanted.join.push((kind, fd));
        }
    }
    check_mount_namespace(&wanted)?;
    // The user namespace owns the others, and joining the mount namespace changes what paths mean.
    wanted.join.sort_by_key(|(kind, _)| match *kind {
        Namespaces::USER => 0,
        Namespaces::MOUNT => 2,
        _ => 1,
    });
    if wanted.joins(Namespaces::USER) && wanted.new.contains(Namespaces::PID) {
        return Err(invalid(
            "a new PID namespace inside of an existing user namespace is not supported",
        ));
    }
    Ok(wanted)
}

/// The container's root becomes the root of whoever is in its mount namespace, so that one must not be
/// ours.
fn check_mount_namespace(wanted: &Wanted) -> Result<(), LaunchError> {
    let joined = wanted.join.iter().find(|(kind, _)| *kind == Namespaces::MOUNT);
    let Some((_, joined)) = joined else {
        return match wanted.new.contains(Namespaces::MOUNT) {
            true => Ok(()),
            false => Err(invalid("linux.namespaces without a mount namespace is not supported")),
        };
    };
    let own = std::fs::metadata("/proc/self/ns/mnt").map_err(at("look at /proc/self/ns/mnt"))?;
    let theirs = rustix::fs::fstat(joined).map_err(at_raw("look at the mount namespace"))?;
    if own.ino() == theirs.st_ino {
        return Err(invalid("the runtime's own mount namespace cannot be the container's"));
    }
    Ok(())
}

/// Only settings that belong to one of the container's own namespaces: all others are the host's.
/// Source of the words: runc `libcontainer/configs/validate`.
fn check_sysctls(linux: &Linux, namespaces: &Wanted) -> Result<(), LaunchError> {
    use spec::sysctl::{Owner, Sysctl};
    for name in linux.sysctl.keys() {
        let known = Sysctl::parse(name).map_err(|error| invalid(error.to_string()))?;
        match known.owner() {
            Owner::Ipc if !namespaces.has(Namespaces::IPC) => {
                return Err(invalid(format!(
                    "sysctl {name:?} is not allowed in the hosts ipc namespace"
                )));
            }
            Owner::Network if !namespaces.has(Namespaces::NET) => {
                return Err(invalid(format!(
                    "sysctl {name:?} not allowed in host network namespace"
                )));
            }
            Owner::Uts if !namespaces.has(Namespaces::UTS) => {
                return Err(invalid(format!(
                    "sysctl {name:?} is not in a separate kernel namespace"
                )));
            }
            Owner::Ipc | Owner::Network | Owner::Uts => {}
        }
    }
    Ok(())
}

fn plan_mount(
    mount: &Mount,
    bundle: &Path,
    cgroup: Option<&Cgroup>,
    namespaces: &Wanted,
    linux: &Linux,
) -> Result<Option<Planned>, LaunchError> {
    let options = Options::parse(mount.options.iter().map(String::as_str));
    let destination = Path::new("/").join(&mount.destination);
    let name = if mount.source.is_empty() { mount.kind.clone() } else { mount.source.clone() };
    let source = match mount.kind.as_str() {
        _ if options.bind.is_some() => plan_bind(mount, bundle, &options, linux)?,
        "bind" => plan_bind(mount, bundle, &options, linux)?,
        _ if maps_ids(mount, &options) => {
            return Err(invalid(format!(
                "id mappings of {:?}: only bind mounts can have them",
                mount.destination
            )));
        }
        "cgroup" | "cgroup2" => match plan_cgroup(cgroup, namespaces, &options)? {
            Some(source) => source,
            None => return Ok(None),
        },
        kind => Source::Filesystem { kind: kind.to_owned() },
    };
    Ok(Some(Planned { destination, source, options, name }))
}

fn maps_ids(mount: &Mount, options: &Options) -> bool {
    options.map_ids.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty()
}

fn plan_bind(
    mount: &Mount,
    bundle: &Path,
    options: &Options,
    linux: &Linux,
) -> Result<Source, LaunchError> {
    let step = || format!("error mounting {:?} to rootfs at {:?}", mount.source, mount.destination);
    let source = bundle.join(&mount.source);
    let depth = options.bind.unwrap_or(Depth::Only);
    let cloned = mount::clone_tree(rustix::fs::CWD, &source, depth);
    let tree = cloned.or_else(|error| detached_tree(&source).ok_or(error)).map_err(|error| {
        let text = format!("{}: stat {}: {}", step(), source.display(), words(&error));
        LaunchError::new(Kind::Other, text)
    })?;
    if maps_ids(mount, options) {
        map_ids(&tree, mount, options, linux)?;
    }
    let shape = shape(&tree).map_err(at(step()))?;
    // Nothing can be mounted below a file.
    let depth = if shape == Shape::File { Depth::Only } else { depth };
    apply_to_tree(&tree, depth, options).map_err(at(step()))?;
    Ok(Source::Tree { tree, shape })
}

/// Shows owners through the mount's own mappings, or through the container's where it has none.
///
/// Source: OCI runtime-spec `config.md`, "uidMappings" of mounts; mount_setattr(2), "ID-mapped mounts".
fn map_ids(
    tree: &OwnedFd,
    mount: &Mount,
    options: &Options,
    linux: &Linux,
) -> Result<(), LaunchError> {
    let step = format!("error mapping the ids of {:?}", mount.destination);
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let (users, groups) = match own {
        true => (&mount.uid_mappings, &mount.gid_mappings),
        false => (&linux.uid_mappings, &linux.gid_mappings),
    };
    if users.is_empty() || groups.is_empty() {
        return Err(invalid(format!("{step}: both uidMappings and gidMappings are needed")));
    }
    let mapping = crate::launch::mapped_namespace(users, groups)?;
    let depth = options.map_ids.unwrap_or(Depth::Only);
    let change = Change { mapping: Some(mapping.as_fd()), ..Change::default() };
    mount::change(tree, depth, change).map_err(at(step))
}

/// A detached mount that somebody holds open for us. One that was made in another mount namespace
/// (or on a kernel before 6.15) cannot be cloned; it is attached itself.
fn detached_tree(source: &Path) -> Option<OwnedFd> {
    let descriptor = source.starts_with("/proc") && source.parent()?.ends_with("fd");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    if descriptor { rustix::fs::open(source, flags, rustix::fs::Mode::empty()).ok() } else { None }
}

/// `cloned` says whether there may be mounts below: where there are none, one call does it all.
fn apply_to_tree(tree: &OwnedFd, cloned: Depth, options: &Options) -> io::Result<()> {
    // A clone of a shared mount is its peer: what the container mounts below would show on the host.
    let (propagation, depth) =
        options.propagation.unwrap_or((Propagation::Private, Depth::Recursive));
    if cloned == Depth::Only {
        let change = Change {
            set: options.set_below.without(options.clear).with(options.set),
            clear: options.clear_below.without(options.set).with(options.clear),
            propagation: Some(propagation),
            ..Change::default()
        };
        return mount::change(tree, Depth::Only, change);
    }
    mount::change(tree, depth, Change { propagation: Some(propagation), ..Change::default() })?;
    let below = Change { set: options.set_below, clear: options.clear_below, ..Change::default() };
    if !below.is_empty() {
        mount::change(tree, Depth::Recursive, below)?;
    }
    let own = Change { set: options.set, clear: options.clear, ..Change::default() };
    if own.is_empty() { Ok(()) } else { mount::change(tree, Depth::Only, own) }
}

fn shape(tree: &OwnedFd) -> io::Result<Shape> {
    let stat = rustix::fs::fstat(tree)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if is_directory { Shape::Directory } else { Shape::File })
}

fn plan_init(sealed: &crate::seal::Sealed) -> Result<Planned, LaunchError> {
    let source = match sealed.mount().map_err(at("error preparing the init binary"))? {
        InitMount::File(tree) => Source::Tree { tree, shape: Shape::File },
        InitMount::Staged(stage) => Source::Staged { stage },
    };
    Ok(Planned {
        destination: crate::init::PATH.into(),
        source,
        options: Options { bind: Some(Depth::Only), ..Options::default() },
        name: "tug".to_owned(),
    })
}

/// The container sees its own group as the top, whether or not it has a cgroup namespace.
fn plan_cgroup(
    cgroup: Option<&Cgroup>,
    namespaces: &Wanted,
    options: &Options,
) -> Result<Option<Source>, LaunchError> {
    let Some(cgroup) = cgroup else { return Ok(None) };
    let step = "error mounting \"cgroup\" to rootfs";
    match cgroup.layout() {
        Layout::None => Ok(None),
        Layout::V2 { .. } if namespaces.new.contains(Namespaces::CGROUP) => {
            Ok(Some(Source::Filesystem { kind: "cgroup2".to_owned() }))
        }
        Layout::V2 { root } => {
            let path = root.join(cgroup.path().strip_prefix("/").unwrap_or(Path::new("")));
            let tree = mount::clone_tree(rustix::fs::CWD, &path, Depth::Only).map_err(at(step))?;
            apply_to_tree(&tree, Depth::Only, options).map_err(at(step))?;
            Ok(Some(Source::Tree { tree, shape: Shape::Directory }))
        }
        Layout::V1 { controllers, named, unified } => {
            let (mut trees, mut links) = (Vec::new(), Vec::new());
            // Only a controller is looked for by its own name too: the others have none but the place.
            let nameless = named.values().chain(unified).map(|top| (None, top));
            let all = controllers.iter().map(|(name, top)| (Some(name), top)).chain(nameless);
            for (controller, top) in all {
                let Some(base) = top.file_name().map(|name| name.to_string_lossy().into_owned())
                else {
                    continue;
                };
                let directory = top.join(cgroup.path().strip_prefix("/").unwrap_or(Path::new("")));
                let known = trees.iter().any(|(name, _)| *name == base);
                let tree = match known {
                    true => None,
                    false => match mount::clone_tree(rustix::fs::CWD, &directory, Depth::Only) {
                        Ok(tree) => Some(tree),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(at(step)(error)),
                    },
                };
                if let Some(controller) = controller.filter(|controller| **controller != base) {
                    links.push((controller.clone(), base.clone()));
                }
                let Some(tree) = tree else { continue };
                let own = Options { set: options.set.with(Attributes::NO_SUID), ..options.clone() };
                apply_to_tree(&tree, Depth::Only, &own).map_err(at(step))?;
                trees.push((base, tree));
            }
            Ok(Some(Source::CgroupV1 { trees, links }))
        }
    }
}

impl Planned {
    /// Whether the mount stays writable until all others are in place: their mount points may have to
    /// be made in it.
    pub fn read_only_late(&self) -> bool {
        let made_here = match &self.source {
            Source::Filesystem { kind } => kind == "tmpfs",
            Source::CgroupV1 { .. } => true,
            Source::Tree { .. } | Source::Staged { .. } => false,
        };
        made_here && self.options.set.contains(Attributes::READ_ONLY)
    }

    pub fn copies_up(&self) -> bool {
        self.options.copy_up == CopyUp::Yes
            && matches!(&self.source, Source::Filesystem { kind } if kind == "tmpfs")
    }
}
