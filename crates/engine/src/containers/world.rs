//! What a container's task does to the world: files, mounts, networks, monitors, control groups.
//!
//! Every function may be called twice for the same thing. Blocking ones say so.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use runs::{
    Durability as ExitDurability, ExitRecord, Launch, MonitorSettings, Notice, ProxyPort, Rootfs,
    RuntimeChoice,
};
use spec::Id;
use store::records::Durability;
use sys::cgroup::{Cgroup, Freeze};
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use super::derive::{self, DeviceNode, HostMount, Inputs, ManagedFiles};
use super::joined::{joined_hostname, joined_pids, joined_shm, network_owner};
use super::link_env::{self, Linked};
use super::links;
use super::log_tag::Subject;
use super::mounts::Mount;
use super::propagation;
use super::record::{EXIT_FILE, Life, Record};
use super::security::SecurityOptions;
use super::spec::{ContainerSpec, LogSpec, MountKind, NetworkMode, Protocol};
use super::step::{Run, StartFailure};
use super::task::{PendingAttach, event_attributes};
use super::volume_mounts;
use super::volumes::Place;
use crate::Inner;
use crate::error::{Error, Kind, Result, chain};
use crate::events::EventType;
use crate::networks::{self, Attachment, Listener, NetworkRecord};
use crate::words;

/// A run that just began.
pub(crate) struct Started {
    pub pid: i32,
    pub at: Timestamp,
    pub supervised: Arc<runs::Run>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub attachment: Option<Attachment>,
    /// Clients that did not come with the start.
    pub left: Vec<PendingAttach>,
}

/// Exit code of a container that could not be started for reasons of the host's.
///
/// Source: moby `daemon/start.go`.
const START_FAILED: i32 = 128;

impl From<Error> for StartFailure {
    fn from(error: Error) -> Self {
        let users_fault = error.kind != Kind::Internal && error.kind != Kind::Unavailable;
        Self { code: START_FAILED, message: error.message, users_fault }
    }
}

/// Publishes an event of a container.
pub(crate) fn tell(engine: &Inner, record: &Record, action: &str, more: &[(&str, String)]) {
    // A label of the same name wins, as in Docker.
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    let mut attributes: BTreeMap<String, String> = more.collect();
    attributes.extend(event_attributes(record));
    engine.events.publish(super::task::EVENTS, action, record.id.to_string(), attributes);
}

/// Runs blocking work beside the async ones.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work; nobody will read an answer.
            Err(_) => std::future::pending().await,
        },
    }
}

pub(crate) async fn write_record(engine: &Arc<Inner>, record: &Arc<Record>) -> Result<()> {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || record.write(engine.store.records(), &engine.config))
        .await
        .map_err(|source| Error::caused(Kind::Internal, source))
}

pub(crate) async fn write_life(
    engine: &Arc<Inner>,
    record: &Record,
    life: Life,
    durability: Durability,
) -> Result<()> {
    let id = record.id;
    let written = match durability {
        // A few microseconds of page cache; a thread would cost more.
        Durability::Lazy => life.write(&id, engine.store.records(), &engine.config, durability),
        Durability::Durable => {
            let engine = Arc::clone(engine);
            blocking(move || life.write(&id, engine.store.records(), &engine.config, durability))
                .await
        }
    };
    written.map_err(|source| Error::caused(Kind::Internal, source))
}

/// The exit record of this very run, if its monitor wrote one.
pub(crate) fn exit_record(engine: &Inner, id: &Id, run: Option<&Run>) -> Option<ExitRecord> {
    let path = engine.config.container_dir(id).join(EXIT_FILE);
    match ExitRecord::find(&path) {
        Ok(found) => found.filter(|record| {
            run.is_none_or(|run| run.pid == record.pid && run.started_at == record.started_at)
        }),
        Err(error) => {
            warn!(container = %id, error = chain(&error), "exit record not readable");
            None
        }
    }
}

pub(crate) fn cgroup(engine: &Inner, record: &Record) -> Cgroup {
    let group =
        Cgroup::find(Path::new(&derive::cgroup_path(&record.id, &record.spec, &engine.config)));
    // Runs of earlier versions are where those put them.
    let former = Cgroup::find(&Path::new("/tug").join(record.id.to_string()));
    let there = |group: &Cgroup| group.directories().iter().any(|path| path.is_dir());
    if !there(&group) && there(&former) { former } else { group }
}

/// The first process of a run, by the number that was recorded: its handle is taken first, and then its
/// control group tells that the number is still its own.
pub(crate) fn process_of(engine: &Inner, record: &Record, pid: i32) -> Option<runs::Process> {
    let process = runs::Process::open(pid).ok()?;
    let all = cgroup(engine, record).processes().ok()?;
    all.iter().any(|one| one.as_raw_nonzero().get() == pid).then_some(process)
}

/// Kills everything in the container's control group, past its monitor.
pub(crate) async fn kill_group(engine: &Arc<Inner>, record: &Arc<Record>) {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || {
        let group = cgroup(&engine, &record);
        if let Err(error) = group.kill()
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(container = %record.id, error = chain(&error), "control group not killed");
        }
    })
    .await;
}

/// Removes the control group of processes that were killed, where no monitor does.
pub(crate) async fn remove_group(engine: &Arc<Inner>, record: &Arc<Record>) {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || {
        if let Err(error) = cgroup(&engine, &record).remove() {
            warn!(container = %record.id, error = chain(&error), "control group left behind");
        }
    })
    .await;
}

pub(crate) async fn freeze(engine: &Arc<Inner>, record: &Arc<Record>, wish: Freeze) -> Result<()> {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    let id = record.id;
    let outcome = blocking(move || cgroup(&engine, &record).freeze(wish)).await;
    outcome.map_err(|source| match source.kind() {
        // The monitor removed the group, and its news are on the way.
        io::ErrorKind::NotFound => words::not_running(id),
        // The same, between opening the group's file and writing it: kernfs says ENODEV.
        _ if source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            words::not_running(id)
        }
        _ => Error::because(Kind::Internal, "Cannot pause or unpause the container", source),
    })
}

/// Starts a run: network, files, document, monitor, process.
pub(crate) async fn start(
    engine: &Arc<Inner>,
    record: &Arc<Record>,
    pending: Vec<PendingAttach>,
    abandoned: &Notify,
) -> std::result::Result<Started, StartFailure> {
    let (inner, prepared) = (Arc::clone(engine), Arc::clone(record));
    let (plan, attachment) = blocking(move || prepare(&inner, &prepared)).await?;
    let mut waiting = Vec::with_capacity(pending.len());
    let clients = pending.into_iter().map(|client| {
        waiting.push(client.run);
        runs::Client { options: client.options, socket: client.socket }
    });
    let clients = clients.collect();
    let started = runs::start(&engine.launchers, plan, clients, abandoned).await;
    let runs::Started { run, notices, pid, at, left } = started.map_err(Error::from)??;
    let left = left.into_iter().map(|client| PendingAttach {
        socket: client.socket,
        options: client.options,
        run: None,
    });
    let left = left.collect();
    Ok(Started { pid, at, supervised: run, notices, attachment: Some(attachment), left })
}

impl From<runs::Refusal> for StartFailure {
    fn from(refusal: runs::Refusal) -> Self {
        let runs::Refusal { exit_code, message } = refusal;
        let users_fault = exit_code != START_FAILED;
        // A user that is not there has words without a prefix.
        let is_whole =
            ["failed to create", "unable to find "].iter().any(|start| message.starts_with(start));
        let message = if is_whole { message } else { words::start_failed(message).message };
        StartFailure { code: exit_code, message, users_fault }
    }
}

/// The sockets of published ports, for those that a supervisor forwards.
pub(crate) fn proxied(listeners: Vec<Listener>) -> Vec<(ProxyPort, OwnedFd)> {
    let port = |listener: Listener| Some((proxy_port(&listener)?, listener.socket));
    listeners.into_iter().filter_map(port).collect()
}

fn proxy_port(listener: &Listener) -> Option<ProxyPort> {
    let protocol = match listener.port.container.protocol {
        Protocol::Tcp => runs::Protocol::Tcp,
        Protocol::Udp => runs::Protocol::Udp,
        // No user-mode proxy speaks it; the kernel forwards it alone.
        Protocol::Sctp => return None,
    };
    Some(ProxyPort { protocol, to: listener.target })
}

/// Blocking.
fn prepare(
    engine: &Inner,
    record: &Record,
) -> std::result::Result<(runs::Plan, Attachment), StartFailure> {
    let (dir, run) = (engine.config.container_dir(&record.id), engine.config.run_dir(&record.id));
    super::limits::check_shares(&record.spec.host.resources, engine.host.cgroup_v2).map_err(
        |error| {
            let why = error.message;
            words::start_failed(format!("error setting cgroup config for procHooks process: {why}"))
        },
    )?;
    make_dir(&run)?;
    remove_file(&dir.join(EXIT_FILE))?;
    let joined = joined_pids(engine, record)?;
    let hostname = joined_hostname(engine, record)?;
    links::check_running(engine, record)?;
    let mut held = Vec::new();
    let mounts = host_mounts(engine, record, &mut held)?;
    let network = engine.networks.prepare(&networks::Container {
        id: record.id,
        name: &record.name,
        spec: &record.spec,
        hostname: &hostname,
    })?;
    // After the networks, as in Docker.
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        volume_mounted(engine, record, mount);
    }
    let files = managed_files(engine, record, &network)?;
    let devices = devices(record)?;
    let shm = joined_shm(record, &joined).map(|tree| {
        let path = fd_path(&tree);
        held.push(tree);
        path
    });
    let links = link_env(engine, record);
    let runtime = runtime_choice(engine, &record.spec.host.runtime, &run)?;
    let (filter, section) = filter(engine, &record.spec, &runtime)?;
    let document = derive::derive(&Inputs {
        id: &record.id,
        seccomp: section,
        spec: &record.spec,
        config: &engine.config,
        default_shm_size: engine.live().default_shm_size,
        host: &engine.host,
        hostname: &hostname,
        mounts: &mounts,
        files: &files,
        joined: &joined,
        devices: &devices,
        shm: shm.as_deref(),
        link_env: &links,
    })?;
    let settings = settings(engine, record, &run, runtime)?;
    let networks::Prepared { netns, listeners, attachment, .. } = network;
    let launch = launch(run, settings, document);
    let plan = runs::Plan { launch, netns, filter, ports: proxied(listeners), held };
    Ok((plan, attachment))
}

/// What descriptors come along is filled in by whoever sends it.
pub(crate) fn launch(
    bundle: PathBuf,
    settings: MonitorSettings,
    document: spec::runtime::Spec,
) -> Launch {
    Launch { bundle, settings, document, netns: false, seccomp: false, attach: Vec::new() }
}

/// The seccomp filter of a run: compiled for our own runtime, as a section of the document for another.
pub(crate) fn filter(
    engine: &Inner,
    spec: &ContainerSpec,
    runtime: &RuntimeChoice,
) -> Result<(Option<runs::Filter>, Option<spec::runtime::Seccomp>)> {
    let security = SecurityOptions::parse(&spec.host.security_opt)?;
    match runtime {
        RuntimeChoice::Builtin => Ok((engine.filters.filter(engine, spec, &security)?, None)),
        RuntimeChoice::External { .. } => {
            Ok((None, super::filters::section(engine, spec, &security)?))
        }
    }
}

fn file_error(what: &str, path: &Path, source: io::Error) -> Error {
    Error::because(Kind::Internal, format!("cannot {what} {}", path.display()), source)
}

/// Makes a directory that only root may list.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|source| file_error("make", path, source))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_error("remove", path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Finds each mount's source on the host.
fn host_mounts(engine: &Inner, record: &Record, held: &mut Vec<OwnedFd>) -> Result<Vec<HostMount>> {
    let mut all = Vec::with_capacity(record.mounts.len());
    for mount in &record.mounts {
        let mut file_system = None;
        let source = match mount.kind {
            MountKind::Tmpfs | MountKind::Npipe | MountKind::Cluster => PathBuf::new(),
            MountKind::Bind => {
                let source = bind_source(mount)?;
                propagation::check(&source, &mount.propagation)?;
                source
            }
            MountKind::Volume => match super::volumes::place(engine, mount)? {
                Place::Directory(root) => subpath(root, mount, held)?,
                Place::FileSystem(wish) if wish.is_bind() => {
                    let source = subpath(PathBuf::from(&wish.source), mount, held)?;
                    file_system = Some(wish);
                    source
                }
                Place::FileSystem(wish) => {
                    let volume = super::volumes::ensure(engine, mount)?;
                    volume_mounts::hold(engine, record.id, &volume, &wish)?;
                    subpath(volume.mountpoint, mount, held)?
                }
            },
            MountKind::Image => {
                subpath(super::volumes::image_tree(engine, mount, held)?, mount, held)?
            }
        };
        all.push(HostMount { mount: mount.clone(), source, file_system });
    }
    Ok(all)
}

fn bind_source(mount: &Mount) -> Result<PathBuf> {
    let path = PathBuf::from(&mount.source);
    if !path.exists() {
        if !mount.create_source {
            return Err(words::bind_source_missing(&mount.source));
        }
        fs::create_dir_all(&path).map_err(|source| {
            let text = format!("error while creating mount source path '{}'", path.display());
            Error::because(Kind::Internal, text, source)
        })?;
    }
    Ok(path)
}

/// A path below a tree that we own, held open so that nobody swaps a part of it for a link.
pub(crate) fn subpath(root: PathBuf, mount: &Mount, held: &mut Vec<OwnedFd>) -> Result<PathBuf> {
    if mount.subpath.is_empty() {
        return Ok(root);
    }
    let found = open_subpath(&root, &mount.subpath)?;
    let path = fd_path(&found);
    held.push(found);
    Ok(path)
}

/// What `subpath` of a volume is. Links are followed that stay below; an absolute one does not,
/// wherever it leads: Docker takes it for one of the host's.
pub(crate) fn open_subpath(root: &Path, subpath: &str) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::XDEV => words::escapes_base(root, subpath),
        error => words::not_accessible(&root.join(subpath), io::Error::from(error)),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&top, subpath, flags, Mode::empty(), resolve).map_err(failed)
}

/// A path that leads another process to our descriptor, while we hold it.
pub(crate) fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

fn volume_mounted(engine: &Inner, record: &Record, mount: &Mount) {
    let attributes = BTreeMap::from([
        ("container".to_owned(), record.id.to_string()),
        ("destination".to_owned(), mount.destination.clone()),
        ("driver".to_owned(), mount.driver.clone()),
        ("propagation".to_owned(), mount.propagation.clone()),
        ("read/write".to_owned(), (!mount.read_only).to_string()),
    ]);
    engine.events.publish(EventType::Volume, "mount", mount.name.clone(), attributes);
}

/// What the links of a container on the default bridge put into its environment. A link to what
/// does not run there has been refused or is void.
pub(crate) fn link_env(engine: &Inner, record: &Record) -> Vec<String> {
    if !record.spec.endpoints.contains_key("bridge") {
        return Vec::new();
    }
    let mut all = Vec::new();
    for link in &record.spec.host.links {
        let (target, alias) = networks::link_parts(link);
        let Ok(container) = engine.containers.resolve(target) else { continue };
        let view = container.now();
        let endpoint = view.attachment.as_ref().and_then(|there| there.endpoints.get("bridge"));
        let Some(address) = endpoint.and_then(|endpoint| endpoint.addresses().next()) else {
            continue;
        };
        let config = &view.record.spec.config;
        all.extend(link_env::variables(&Linked {
            parent: &record.name,
            alias,
            address,
            ports: config.exposed_ports.keys().filter_map(|port| port.parse().ok()).collect(),
            env: &config.env,
        }));
    }
    all
}

/// Writes hosts, hostname and resolv.conf, or points to those of the joined container.
fn managed_files(
    engine: &Inner,
    record: &Record,
    network: &networks::Prepared,
) -> Result<ManagedFiles> {
    if let NetworkMode::Container(other) = &record.spec.host.network {
        let owner = network_owner(engine, other)?;
        return Ok(files_in(&engine.config.container_dir(&owner.id)));
    }
    let files = files_in(&engine.config.container_dir(&record.id));
    for (path, text) in [
        (&files.hosts, network.hosts.as_str()),
        (&files.hostname, &format!("{}\n", record.hostname)),
    ] {
        fs::write(path, text).map_err(|source| file_error("write", path, source))?;
    }
    let path = &files.resolv_conf;
    super::resolv::write(path, &network.resolv_conf)
        .map_err(|source| file_error("write", path, source))?;
    Ok(files)
}

/// Where a container's managed files are.
pub(crate) fn files_in(dir: &Path) -> ManagedFiles {
    ManagedFiles {
        hosts: dir.join("hosts"),
        hostname: dir.join("hostname"),
        resolv_conf: dir.join("resolv.conf"),
    }
}

/// The device nodes that a wish names, by the wish's path.
fn devices(record: &Record) -> Result<BTreeMap<String, Vec<DeviceNode>>> {
    let limits = &record.spec.host.resources;
    if let Some(request) = limits.device_requests.first() {
        // As Go prints a list of lists.
        let sets = request.capabilities.iter().map(|set| format!("[{}]", set.join(" ")));
        let sets = sets.collect::<Vec<_>>().join(" ");
        let driver = &request.driver;
        return Err(Error::internal(format!(
            "could not select device driver \"{driver}\" with capabilities: [{sets}]"
        )));
    }
    let mut found = BTreeMap::new();
    if record.spec.host.privileged {
        found.insert(String::new(), super::devices::under(Path::new("/dev")));
    }
    let throttled = [
        &limits.blkio_device_read_bps,
        &limits.blkio_device_write_bps,
        &limits.blkio_device_read_iops,
        &limits.blkio_device_write_iops,
    ];
    let paths = limits.devices.iter().map(|device| &device.host);
    let paths = paths.chain(throttled.into_iter().flatten().map(|device| &device.path));
    for path in paths.chain(limits.blkio_weight_device.iter().map(|device| &device.path)) {
        found.insert(path.clone(), super::devices::at(path)?);
    }
    Ok(found)
}

fn settings(
    engine: &Inner,
    record: &Record,
    run: &Path,
    runtime: RuntimeChoice,
) -> Result<MonitorSettings> {
    let spec = &record.spec;
    let snapshot = engine
        .store
        .snapshot(&record.id.to_string())
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    Ok(MonitorSettings {
        container: record.id,
        rootfs: Rootfs::Overlay {
            lowers: snapshot.lowers,
            upper: snapshot.upper,
            work: snapshot.work,
        },
        user: Some(spec.config.user.clone()),
        groups: spec.host.group_add.clone(),
        tty: spec.tty,
        console_size: console_size(spec.host.console_size),
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        log: super::log_options::settings(
            &record.log,
            &log_subject(engine, record),
            &engine.config.container_dir(&record.id),
        )
        .map_err(|error| error.within("failed to initialize logging driver"))?,
        exit_record: engine.config.container_dir(&record.id).join(EXIT_FILE),
        durability: if spec.host.auto_remove {
            ExitDurability::Lazy
        } else {
            ExitDurability::Fsync
        },
        runtime,
        cgroup: Some(PathBuf::from(derive::cgroup_path(&record.id, spec, &engine.config))),
        init: spec.host.init.unwrap_or(engine.config.init),
        resolver: may_resolve(&spec.host.network).then(|| run.join(net::zone::RESOLVER_FILE)),
        zones: Some(engine.config.exec_root.join("networks")),
    })
}

/// Whether a container is on a user's network, or may get there later.
fn may_resolve(mode: &NetworkMode) -> bool {
    match mode {
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => true,
        NetworkMode::Host | NetworkMode::Container(_) => false,
    }
}

pub(crate) fn console_size(size: Option<(u16, u16)>) -> Option<spec::runtime::ConsoleSize> {
    size.filter(|size| *size != (0, 0))
        .map(|(height, width)| spec::runtime::ConsoleSize { height, width })
}

/// # Errors
/// `Invalid` for a runtime that the daemon was not told of.
pub(crate) fn runtime_choice(engine: &Inner, wish: &str, run: &Path) -> Result<RuntimeChoice> {
    let live = engine.live();
    let name = if wish.is_empty() { &live.default_runtime } else { wish };
    if let Some(other) = live.runtimes.get(name) {
        return Ok(RuntimeChoice::External {
            program: other.path.clone(),
            args: other.args.clone(),
            root: run.join("runtime"),
        });
    }
    match name {
        "tug" | "io.containerd.runc.v2" => Ok(RuntimeChoice::Builtin),
        "runc" => match find_program("runc") {
            Some(program) => {
                Ok(RuntimeChoice::External { program, args: Vec::new(), root: run.join("runtime") })
            }
            None => Ok(RuntimeChoice::Builtin),
        },
        other => Err(Error::invalid(format!("unknown or invalid runtime name: {other}"))),
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

/// What of a container its log's labels and tag may show.
pub(crate) fn log_subject<'a>(engine: &Inner, record: &'a Record) -> Subject<'a> {
    let dir = engine.config.container_dir(&record.id);
    Subject {
        record,
        image_name: &record.spec.image,
        log_path: log_path(&record.log, &dir, &record.id),
    }
}

/// The current log file; empty for drivers without one.
pub(crate) fn log_path(log: &LogSpec, dir: &Path, id: &Id) -> PathBuf {
    match log.driver.as_str() {
        "json-file" => dir.join(format!("{id}-json.log")),
        "local" => dir.join("local-logs").join("container.log"),
        _ => PathBuf::new(),
    }
}

/// Says that a run gave up what it held: the networks it was on, and its volumes.
pub(crate) fn tell_given_up(engine: &Inner, record: &Record, networks: &[NetworkRecord]) {
    engine.networks.tell_left(&record.id, networks);
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let attributes = BTreeMap::from([
            ("container".to_owned(), record.id.to_string()),
            ("driver".to_owned(), mount.driver.clone()),
        ]);
        engine.events.publish(EventType::Volume, "unmount", mount.name.clone(), attributes);
    }
}

/// Takes a run's networks back, and lets go of its volumes.
pub(crate) async fn take_back(engine: &Arc<Inner>, record: &Arc<Record>) -> Vec<NetworkRecord> {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || {
        volume_mounts::release(&engine, &record);
        engine.networks.take_back(&record.id)
    })
    .await
}

/// Removes what a run has on the host beside its network: processes that outlived the first one, what
/// another runtime keeps, the control group, the run directory. Blocking.
pub(crate) fn remove_run(engine: &Inner, record: &Record) {
    let run = engine.config.run_dir(&record.id);
    let group = cgroup(engine, record);
    let runtime = runtime_choice(engine, &record.spec.host.runtime, &run);
    end_run(engine, &record.id, &group, runtime.unwrap_or_default());
    if let Err(error) = fs::remove_dir_all(&run)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(container = %record.id, path = %run.display(), error = chain(&error), "run directory left behind");
    }
}

/// Kills what outlived a run's first process and removes the control group. Blocking.
pub(crate) fn end_run(engine: &Inner, id: &Id, group: &Cgroup, runtime: RuntimeChoice) {
    // Without a pid namespace there may be processes that outlived the first one.
    if !group.processes().unwrap_or_default().is_empty()
        && let Err(error) = group.kill()
    {
        warn!(run = %id, error = chain(&error), "processes left behind");
    }
    if runtime != RuntimeChoice::Builtin {
        let bundle = engine.config.run_dir(id);
        let delete = runs::Run::delete(&engine.launchers, *id, &bundle, runtime);
        if let Err(error) = tokio::runtime::Handle::current().block_on(delete) {
            warn!(run = %id, error = chain(&error), "the runtime's own state left behind");
        }
    }
    if let Err(error) = group.remove() {
        warn!(run = %id, error = chain(&error), "control group left behind");
    }
}

/// Removes all that a container has on disk.
pub(crate) async fn remove(engine: &Arc<Inner>, record: Arc<Record>, volumes: bool) -> Result<()> {
    let engine = Arc::clone(engine);
    blocking(move || remove_blocking(&engine, &record, volumes)).await
}

fn remove_blocking(engine: &Inner, record: &Record, volumes: bool) -> Result<()> {
    let id = record.id.to_string();
    if let Err(error) = engine.store.snapshot_remove(&id) {
        return Err(Error::because(
            Kind::Internal,
            format!("container {id}: driver \"overlay2\" failed to remove root filesystem"),
            error,
        ));
    }
    if volumes {
        super::volumes::remove_anonymous(engine, record);
    }
    let dir = engine.config.container_dir(&record.id);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_error("remove", &dir, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
