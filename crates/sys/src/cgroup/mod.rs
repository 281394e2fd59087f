//! Control groups, version 1 (a hierarchy for each controller), version 2, and the mixture.
//!
//! The host's layout is read from /proc/self/mountinfo once. A [`Cgroup`] is one path in every
//! hierarchy that is mounted, those without controllers included, so that wherever a process looks
//! for its container it finds it; version 1 wins where a controller is mounted both ways, as it can
//! only be in one. Values to be written are decided elsewhere (`runtime::resources`); here is how
//! they get there, how processes join, and how counters are read back.
//!
//! Joining: on version 2 a process is born inside (CLONE_INTO_CGROUP). On version 1 the child
//! writes `0` to each `tasks` file itself: a thread that moves only itself skips the kernel's global
//! lock (cgroup_procs_write_start), whose RCU grace period would cost milliseconds.
//!
//! Invariant: a cgroup once joined is left only by the end of the process; so `kill` reaches all.

mod devices;
mod oom;
mod stats;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

pub use devices::{Access, DeviceKind, DeviceRule};
pub use oom::OomWatch;
pub use stats::{BlockIo, BlockIoEntry, Cpu, Memory, Pids, Stats, Throttling};

/// Version 2 controllers that are handed down to containers where the kernel has them.
const DELEGATED: [&str; 7] = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb", "rdma"];

/// How this host mounts its control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Controller to mount point; co-mounted ones share theirs. Hierarchies with a name (such as
    /// `systemd`) have no controllers, nor has a version 2 one beside them any that we use.
    V1 {
        controllers: BTreeMap<String, PathBuf>,
        named: BTreeMap<String, PathBuf>,
        unified: Option<PathBuf>,
    },
    V2 {
        root: PathBuf,
    },
    /// No control groups are mounted.
    None,
}

impl Layout {
    /// This host's, read once.
    pub fn host() -> &'static Layout {
        static HOST: OnceLock<Layout> = OnceLock::new();
        HOST.get_or_init(|| {
            let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            Layout::parse(&text)
        })
    }

    /// Reads the text of a mountinfo file: proc_pid_mountinfo(5).
    #[must_use]
    pub fn parse(mountinfo: &str) -> Self {
        let mut controllers = BTreeMap::new();
        let mut named = BTreeMap::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") if unified.is_none() => unified = Some(PathBuf::from(point)),
                Some("cgroup") => {
                    for option in right.nth(1).unwrap_or_default().split(',') {
                        let (list, name) = match option.strip_prefix("name=") {
                            Some(name) => (&mut named, name),
                            None if is_controller(option) => (&mut controllers, option),
                            None => continue,
                        };
                        list.entry(name.to_owned()).or_insert_with(|| PathBuf::from(point));
                    }
                }
                _ => {}
            }
        }
        match (controllers.is_empty(), unified) {
            (false, unified) => Self::V1 { controllers, named, unified },
            (true, Some(root)) => Self::V2 { root },
            (true, None) => Self::None,
        }
    }

    /// Names of the controllers that containers can be limited by.
    #[must_use]
    pub fn controllers(&self) -> Vec<String> {
        match self {
            Self::V1 { controllers, .. } => controllers.keys().cloned().collect(),
            Self::V2 { root } => std::fs::read_to_string(root.join("cgroup.controllers"))
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            Self::None => Vec::new(),
        }
    }

    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }
}

fn is_controller(option: &str) -> bool {
    !matches!(
        option,
        "rw" | "ro"
            | "xattr"
            | "clone_children"
            | "none"
            | "noprefix"
            | "nosuid"
            | "nodev"
            | "noexec"
    ) && !option.contains('=')
}

/// A control group: one path in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: &'static Layout,
    /// Without leading slash.
    path: PathBuf,
}

/// How a new process gets into the group.
#[derive(Debug)]
pub enum Entry {
    /// The open `tasks` files of version 1; the process writes itself into each: [`Entry::enter`].
    /// Into the version 2 group beside them, if there is one, it is born.
    Tasks { files: Vec<OwnedFd>, unified: Option<OwnedFd> },
    /// The group's directory of version 2, for [`crate::process::SpawnOptions::cgroup`].
    Directory(OwnedFd),
    /// The host has no control groups.
    Nothing,
}

impl Entry {
    /// The version 2 group to be born in, for [`crate::process::SpawnOptions::cgroup`].
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Directory(directory) => Some(directory.as_fd()),
            Self::Tasks { unified, .. } => unified.as_ref().map(AsFd::as_fd),
            Self::Nothing => None,
        }
    }

    /// Moves the calling thread in, on version 1; elsewhere it was born inside.
    ///
    /// # Errors
    /// `ENOSPC` for a cpuset without CPUs, `EINVAL` for a realtime process without a budget.
    pub fn enter(&self) -> io::Result<()> {
        if let Self::Tasks { files, .. } = self {
            for file in files {
                rustix::io::write(file, b"0")?;
            }
        }
        Ok(())
    }
}

/// What the freezer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    Freeze,
    Thaw,
}

impl Cgroup {
    /// The group at `path` (absolute, from the top of each hierarchy), whether or not it exists.
    #[must_use]
    pub fn find(path: &Path) -> Self {
        let path = path
            .components()
            .filter(|part| matches!(part, std::path::Component::Normal(_)))
            .collect();
        Self { layout: Layout::host(), path }
    }

    /// Creates the group, with its parents, in every hierarchy.
    ///
    /// # Errors
    /// When a directory cannot be made; what was made is removed again.
    pub fn create(path: &Path) -> io::Result<Self> {
        let group = Self::find(path);
        let done = match group.layout {
            Layout::V1 { .. } => group.create_v1(),
            Layout::V2 { root } => create_v2(root, &group.path),
            Layout::None => Ok(()),
        };
        if let Err(error) = done {
            let _ = group.try_remove();
            return Err(error);
        }
        Ok(group)
    }

    /// Path from the top of the hierarchies, absolute.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    #[must_use]
    pub fn layout(&self) -> &'static Layout {
        self.layout
    }

    /// The directory where `controller`'s files are; `None` when the host lacks it.
    #[must_use]
    pub fn directory(&self, controller: &str) -> Option<PathBuf> {
        match self.layout {
            Layout::V1 { controllers, .. } => {
                controllers.get(controller).map(|top| top.join(&self.path))
            }
            Layout::V2 { root } => Some(root.join(&self.path)),
            Layout::None => None,
        }
    }

    /// Every directory of the group that exists.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut directories = match self.layout {
            Layout::V1 { unified, .. } => {
                let all = self.v1_directories().into_iter();
                let all = all.chain(unified.as_ref().map(|top| top.join(&self.path)));
                all.filter(|path| path.is_dir()).collect()
            }
            Layout::V2 { root } => vec![root.join(&self.path)],
            Layout::None => Vec::new(),
        };
        directories.sort();
        directories.dedup();
        directories
    }

    fn create_v1(&self) -> io::Result<()> {
        let directories = self.v1_directories();
        for directory in &directories {
            create_directory(directory)?;
        }
        if let Some(directory) = self.directory("cpuset") {
            inherit_cpuset(&directory)?;
        }
        // Its controllers are nobody's here, so it may be read-only or refuse; then it is left out.
        if let Some(directory) = self.unified() {
            let _ = create_directory(&directory);
        }
        Ok(())
    }

    /// The directory in the version 2 hierarchy beside version 1.
    fn unified(&self) -> Option<PathBuf> {
        match self.layout {
            Layout::V1 { unified, .. } => unified.as_ref().map(|top| top.join(&self.path)),
            Layout::V2 { .. } | Layout::None => None,
        }
    }

    fn v1_directories(&self) -> Vec<PathBuf> {
        let Layout::V1 { controllers, named, .. } = self.layout else { return Vec::new() };
        let mut directories: Vec<_> =
            controllers.values().chain(named.values()).map(|top| top.join(&self.path)).collect();
        directories.sort();
        directories.dedup();
        directories
    }

    /// The way in for a process about to be made, in whatever hierarchies the group has.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn entry(&self) -> io::Result<Entry> {
        let place = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
        };
        match self.layout {
            Layout::V1 { .. } => {
                let mut files = Vec::new();
                for directory in self.v1_directories() {
                    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                    match rustix::fs::open(directory.join("tasks"), flags, Mode::empty()) {
                        // Mounted after the group was made.
                        Err(Errno::NOENT) => {}
                        opened => files.push(opened?),
                    }
                }
                if files.is_empty() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let unified = self.unified().and_then(|path| place(&path).ok());
                Ok(Entry::Tasks { files, unified })
            }
            Layout::V2 { root } => Ok(Entry::Directory(place(&root.join(&self.path))?)),
            Layout::None => Ok(Entry::Nothing),
        }
    }

    /// Moves a running process in, with all its threads.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn add(&self, pid: Pid) -> io::Result<()> {
        for directory in self.directories() {
            write_file(&directory.join("cgroup.procs"), &pid.as_raw_nonzero().to_string())?;
        }
        Ok(())
    }

    /// Makes the group exist for one more controller, with all its processes, where it was created
    /// without (version 1).
    ///
    /// # Errors
    /// `ENOENT` when the host lacks the controller.
    pub fn extend(&self, controller: &str) -> io::Result<()> {
        let directory = self.directory(controller).ok_or(io::ErrorKind::NotFound)?;
        if directory.is_dir() {
            return Ok(());
        }
        create_directory(&directory)?;
        if controller == "cpuset" {
            inherit_cpuset(&directory)?;
        }
        // Who is moved makes children inside, so each round finds fewer that were missed.
        let mut moved = std::collections::BTreeSet::new();
        loop {
            let found = self.processes()?;
            let missed: Vec<_> = found
                .into_iter()
                .map(Pid::as_raw_nonzero)
                .filter(|pid| moved.insert(*pid))
                .collect();
            if missed.is_empty() {
                return Ok(());
            }
            for pid in missed {
                match write_file(&directory.join("cgroup.procs"), &pid.to_string()) {
                    Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
                    done => done?,
                }
            }
        }
    }

    /// Writes one value.
    ///
    /// # Errors
    /// `ENOENT` when the controller or the file does not exist here.
    pub fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        write_file(&self.file(controller, file)?, value)
    }

    /// Reads one file.
    ///
    /// # Errors
    /// `ENOENT` when the controller or the file does not exist here.
    pub fn read(&self, controller: &str, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.file(controller, file)?)
    }

    fn file(&self, controller: &str, file: &str) -> io::Result<PathBuf> {
        let directory = self.directory(controller).ok_or(io::ErrorKind::NotFound)?;
        Ok(directory.join(file))
    }

    /// Replaces the rules by which devices may be used.
    ///
    /// # Errors
    /// `EINVAL` when a rule widens what the parent allows (version 1).
    pub fn set_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        match self.layout {
            Layout::V1 { controllers, .. } if controllers.contains_key("devices") => {
                let open = |file| {
                    let path = self.file("devices", file)?;
                    io::Result::Ok(rustix::fs::open(
                        path,
                        OFlags::WRONLY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?)
                };
                let (allow, deny) = (open("devices.allow")?, open("devices.deny")?);
                for (file, line) in devices::v1_lines(rules) {
                    let file = if file == "devices.allow" { &allow } else { &deny };
                    // The kernel takes each write as a whole, wherever the one before ended.
                    rustix::io::write(file, line.as_bytes())?;
                }
                Ok(())
            }
            Layout::V2 { root } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = rustix::fs::open(root.join(&self.path), flags, Mode::empty())?;
                devices::attach_v2(directory.as_fd(), rules)
            }
            Layout::V1 { .. } | Layout::None => Ok(()),
        }
    }

    /// The processes of the group and of those below.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn processes(&self) -> io::Result<Vec<Pid>> {
        let Some(directory) =
            self.directory("pids").or_else(|| self.directories().into_iter().next())
        else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        collect_processes(&directory, &mut found)?;
        Ok(found)
    }

    /// Stops all processes from running, or lets them; waits until it is so.
    ///
    /// # Errors
    /// `TimedOut` when they do not get there in ten seconds.
    pub fn freeze(&self, freeze: Freeze) -> io::Result<()> {
        let (file, wish) = match (self.layout.is_v2(), freeze) {
            (true, Freeze::Freeze) => ("cgroup.freeze", "1"),
            (true, Freeze::Thaw) => ("cgroup.freeze", "0"),
            (false, Freeze::Freeze) => ("freezer.state", "FROZEN"),
            (false, Freeze::Thaw) => ("freezer.state", "THAWED"),
        };
        for attempt in 0..1000_u32 {
            self.write("freezer", file, wish)?;
            if self.is_frozen()? == (freeze == Freeze::Freeze) {
                return Ok(());
            }
            // kernel cgroup-v1/freezer-subsystem: FREEZING lasts while a task is in the kernel, and
            // now and then needs a thaw to get unstuck.
            if attempt % 50 == 49 && freeze == Freeze::Freeze && !self.layout.is_v2() {
                self.write("freezer", file, "THAWED")?;
            }
            std::thread::sleep(Duration::from_millis(if attempt < 50 { 1 } else { 10 }));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Whether all processes are stopped.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn is_frozen(&self) -> io::Result<bool> {
        if self.layout.is_v2() {
            let events = self.read("freezer", "cgroup.events")?;
            return Ok(events.lines().any(|line| line == "frozen 1"));
        }
        Ok(self.read("freezer", "freezer.state")?.trim() == "FROZEN")
    }

    /// Sends SIGKILL to every process, those below included.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn kill(&self) -> io::Result<()> {
        if self.layout.is_v2() && self.write("", "cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        // A fork may escape one round, not all: each round the tree of parents gets smaller.
        for _ in 0..16 {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            // A number may be another process's by now: handles are taken first, and what the group
            // still lists afterwards was its own when its handle was taken.
            let handles: Vec<_> = processes
                .into_iter()
                .filter_map(|pid| Some((pid, crate::process::open_process(pid).ok()?)))
                .collect();
            let still = self.processes()?;
            for (_, handle) in handles.iter().filter(|(pid, _)| still.contains(pid)) {
                // One that has ended meanwhile needs no signal.
                let _gone = crate::process::signal_process(handle, libc::SIGKILL);
            }
            // A frozen process takes SIGKILL only once thawed (version 1).
            if self.directory("freezer").is_some_and(|directory| directory.is_dir()) {
                let _ = self.write("freezer", "freezer.state", "THAWED");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Removes the group and the groups below, waiting up to two seconds for the last processes
    /// to leave.
    ///
    /// # Errors
    /// `EBUSY` when processes remain.
    pub fn remove(&self) -> io::Result<()> {
        let mut pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        loop {
            match self.try_remove() {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY)
                        && waited < Duration::from_secs(2) =>
                {
                    std::thread::sleep(pause);
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                done => return done,
            }
        }
    }

    /// Removes the group and the groups below, if no process is in them.
    ///
    /// # Errors
    /// `EBUSY` when processes remain.
    pub fn try_remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for directory in self.directories() {
            if let Err(error) = remove_directory(&directory) {
                result = Err(error);
            }
        }
        result
    }

    /// The counters.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn stats(&self) -> io::Result<Stats> {
        stats::read(self)
    }

    /// A watch for the out-of-memory killer.
    ///
    /// # Errors
    /// When the group does not exist or has no memory controller.
    pub fn watch_oom(&self) -> io::Result<OomWatch> {
        OomWatch::open(self)
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(path),
        done => done,
    }
}

/// cpuset(7): a new group has no CPUs and no memory nodes, and nothing may join it like that.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !std::fs::read_to_string(directory.join(file))?.trim().is_empty() {
            continue;
        }
        let Some(parent) = directory.parent().filter(|parent| parent.join(file).exists()) else {
            continue;
        };
        if std::fs::read_to_string(parent.join(file))?.trim().is_empty() {
            inherit_cpuset(parent)?;
        }
        // cpuset(7): from now on the kernel does it, when a group is made. Below the top that is nobody's
        // business but ours; the top itself is the host's.
        if parent.parent().is_some_and(is_cpuset) {
            write_file(&parent.join("cgroup.clone_children"), "1")?;
        }
        write_file(&directory.join(file), std::fs::read_to_string(parent.join(file))?.trim())?;
    }
    Ok(())
}

fn is_cpuset(directory: &Path) -> bool {
    directory.join("cpuset.cpus").exists()
}

fn create_v2(root: &Path, path: &Path) -> io::Result<()> {
    let group = root.join(path);
    if std::fs::create_dir(&group).is_ok() {
        return Ok(());
    }
    let mut at = root.to_owned();
    for part in path.components() {
        delegate(&at)?;
        at.push(part);
        create_directory(&at)?;
    }
    Ok(())
}

/// Hands controllers down to the groups below `directory`.
fn delegate(directory: &Path) -> io::Result<()> {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers"))?;
    let enabled = std::fs::read_to_string(directory.join("cgroup.subtree_control"))?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    for name in DELEGATED.iter().filter(|name| has(&available, name) && !has(&enabled, name)) {
        let file = directory.join("cgroup.subtree_control");
        match write_file(&file, &format!("+{name}")) {
            // cgroups(7), "no internal processes": the top of a container's own view holds processes,
            // which have to move into a leaf first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                evacuate(directory)?;
                write_file(&file, &format!("+{name}"))?;
            }
            done => done?,
        }
    }
    Ok(())
}

fn evacuate(directory: &Path) -> io::Result<()> {
    let leaf = directory.join("init");
    create_directory(&leaf)?;
    for pid in std::fs::read_to_string(directory.join("cgroup.procs"))?.lines() {
        match write_file(&leaf.join("cgroup.procs"), pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            done => done?,
        }
    }
    Ok(())
}

fn collect_processes(directory: &Path, found: &mut Vec<Pid>) -> io::Result<()> {
    let text = std::fs::read_to_string(directory.join("cgroup.procs"))?;
    found.extend(text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw));
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match collect_processes(&entry.path(), found) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directory(&entry.path())?;
        }
    }
    std::fs::remove_dir(directory)
}

/// One write(2): the kernel takes each write to a control file as a whole.
pub(crate) fn write_file(path: &Path, value: &str) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_layout_counts_as_version_1() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Layout::V1 { controllers, named, unified } = Layout::parse(text) else {
            panic!("not version 1")
        };
        assert_eq!(controllers.keys().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        assert_eq!(named["systemd"], Path::new("/sys/fs/cgroup/systemd"));
        assert_eq!(unified, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_single_cgroup2_is_version_2() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Layout::parse(text), Layout::V2 { root: "/sys/fs/cgroup".into() });
    }

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        assert_eq!(Cgroup::find(Path::new("/../../etc/x")).path(), Path::new("/etc/x"));
    }

    #[test]
    fn a_group_is_made_limited_read_and_removed() {
        if !crate::testing::privileged("making a cgroup needs root") {
            return;
        }
        let path = format!("/tug-test/{}", std::process::id());
        let group = Cgroup::create(Path::new(&path)).unwrap();
        assert!(group.processes().unwrap().is_empty());
        let tops = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tops = tops.lines().filter(|line| {
            let kind = line.split(" - ").nth(1).unwrap_or_default();
            kind.starts_with("cgroup") && !line.contains("/docker/")
        });
        for top in tops.filter_map(|line| line.split(' ').nth(4)) {
            let directory = Path::new(top).join(path.trim_start_matches('/'));
            assert!(directory.is_dir(), "{directory:?}");
        }
        // cpuset(7): without CPUs and memory nodes nothing could join.
        group.entry().unwrap();
        group.write("pids", "pids.max", "7").unwrap();
        assert_eq!(group.stats().unwrap().pids.limit, Some(7));
        group.remove().unwrap();
        assert!(group.directories().iter().all(|directory| !directory.exists()));
        let _ = Cgroup::find(Path::new("/tug-test")).try_remove();
    }
}
