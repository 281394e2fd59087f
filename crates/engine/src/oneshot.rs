//! A command run once in a snapshot, for the builder's RUN steps.
//!
//! It runs under a monitor like any container, but is no container: no name, no record, no log, no
//! events. When it has ended, was cancelled or its handle was dropped, nothing of it is left but
//! the snapshot, which is its maker's.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use runs::{
    AttachOptions, Durability, Framing, LogSettings, MonitorSettings, Notice, Rootfs,
    RuntimeChoice, Target,
};
use spec::Id;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::containers::derive::{self, HostMount, Inputs, ManagedFiles};
use crate::containers::mounts::Mount;
use crate::containers::spec::{ContainerSpec, MountKind, NetworkMode, Resources, TmpfsOptions};
use crate::containers::step::StartFailure;
use crate::containers::views::LogSource;
use crate::containers::world::{self, blocking, fd_path};
use crate::error::{Error, Kind, Result, chain};
use crate::{Engine, Inner, networks, words};

/// Chunks of output that wait for a slow reader; beyond them the command waits.
const CHUNKS_MAX: usize = 64;
/// Names the step's control group in its run directory.
const CGROUP_FILE: &str = "cgroup";
/// What BuildKit calls its sandbox; commands see it as their host's name.
const HOSTNAME: &str = "buildkitsandbox";

/// What to run.
#[derive(Debug, Default)]
pub struct OneShot {
    /// Its name for the monitor, the control group and events; none makes one up.
    pub id: Option<Id>,
    /// A snapshot of the store, by its id; it takes the changes.
    pub snapshot: String,
    pub argv: Vec<String>,
    pub env: Vec<String>,
    /// `user[:group]`, names from the snapshot's own files; empty is root.
    pub user: String,
    pub working_dir: String,
    pub network: OneShotNetwork,
    pub resources: Resources,
    pub shm_size: Option<u64>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub security_opt: Vec<String>,
    pub privileged: bool,
    /// Empty for the usual one.
    pub hostname: String,
    pub mounts: Vec<OneShotMount>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OneShotNetwork {
    /// The default bridge.
    #[default]
    Bridge,
    Host,
    None,
    /// A network by name or id.
    Named(String),
    /// The network of a running container.
    Container(String),
}

impl From<NetworkMode> for OneShotNetwork {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Bridge => Self::Bridge,
            NetworkMode::Host => Self::Host,
            NetworkMode::None => Self::None,
            NetworkMode::Named(name) => Self::Named(name),
            NetworkMode::Container(other) => Self::Container(other),
        }
    }
}

/// A mount of a RUN step (`--mount=type=…`).
#[derive(Debug)]
pub enum OneShotMount {
    /// A file or directory that the engine owns, by its host path.
    Bind {
        source: PathBuf,
        target: String,
        read_only: bool,
    },
    /// A tree by descriptor, such as another stage's.
    Tree {
        root: OwnedFd,
        target: String,
        read_only: bool,
    },
    Tmpfs {
        target: String,
        size_bytes: Option<u64>,
    },
}

/// A command that runs. Dropping it kills the command.
#[derive(Debug)]
pub struct RunningStep {
    /// Output as it comes; ends with the command.
    pub output: mpsc::Receiver<(LogSource, Bytes)>,
    end: oneshot::Receiver<Result<i32>>,
    /// Closed by dropping, which the supervisor hears.
    cancel: Option<oneshot::Sender<()>>,
}

impl Engine {
    /// Starts a command.
    ///
    /// # Errors
    /// `Invalid` with Docker's words when the command cannot be run.
    pub async fn run_once(&self, request: OneShot) -> Result<RunningStep> {
        let engine = Arc::clone(&self.inner);
        let id = request.id.unwrap_or_else(Id::random);
        let (ours, theirs) = UnixStream::pair()
            .map_err(|source| Error::because(Kind::Internal, "cannot make a socket", source))?;
        let started = start(&engine, id, request, theirs.into()).await;
        let (run, notices) = match started {
            Ok(started) => started,
            Err(error) => {
                blocking(move || clean_up(&engine, &id)).await;
                return Err(error);
            }
        };
        let (sender, output) = mpsc::channel(CHUNKS_MAX);
        tokio::spawn(read_output(ours, sender));
        let (finish, end) = oneshot::channel();
        let (cancel, cancelled) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = supervise(&run, notices, cancelled).await;
            blocking(move || clean_up(&engine, &id)).await;
            // Whoever dropped the handle does not want to know.
            let _ = finish.send(outcome);
        });
        Ok(RunningStep { output, end, cancel: Some(cancel) })
    }
}

impl RunningStep {
    /// Waits for the end; the exit code is 128+n after signal n.
    ///
    /// # Errors
    /// When the monitor was lost.
    pub async fn wait(&mut self) -> Result<i32> {
        match (&mut self.end).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("the command's end was asked for twice")),
        }
    }

    /// Kills the command; `wait` then reports its end.
    pub fn cancel(&mut self) {
        self.cancel = None;
    }
}

/// Waits for the end, and brings it about when cancelled.
async fn supervise(
    run: &runs::Run,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    mut cancelled: oneshot::Receiver<()>,
) -> Result<i32> {
    let mut asked = false;
    loop {
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(Notice::Exited(record)) => {
                    // Its output may end now.
                    run.hang_up();
                    return Ok(record.exit_code);
                }
                Some(Notice::Lost) | None => return Err(Error::internal("the command's monitor was lost")),
                Some(Notice::Oom | Notice::ExecExited { .. } | Notice::Detached { .. }) => {}
            },
            _ = &mut cancelled, if !asked => {
                asked = true;
                // One that ended at this very moment needs no signal.
                let _gone = run.signal(Target::Main, crate::containers::step::SIGKILL).await;
            }
        }
    }
}

async fn start(
    engine: &Arc<Inner>,
    id: Id,
    request: OneShot,
    client: OwnedFd,
) -> Result<(Arc<runs::Run>, mpsc::UnboundedReceiver<Notice>)> {
    let inner = Arc::clone(engine);
    let plan = blocking(move || prepare(&inner, &id, request)).await?;
    let options = AttachOptions {
        stdin: false,
        stdout: true,
        stderr: true,
        detach_keys: Vec::new(),
        framing: Framing::Multiplexed,
        prelude: Vec::new(),
    };
    let clients = vec![runs::Client { options, socket: client }];
    let never = tokio::sync::Notify::new();
    match runs::start(&engine.launchers, plan, clients, &never).await? {
        Ok(started) => Ok((started.run, started.notices)),
        Err(refusal) => {
            let failure = StartFailure::from(refusal);
            let kind = if failure.users_fault { Kind::Invalid } else { Kind::Internal };
            Err(Error::new(kind, failure.message))
        }
    }
}

/// A wish for a container that comes nearest to the step.
fn wish(request: &OneShot) -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    spec.config.cmd = Some(request.argv.clone());
    spec.config.env.clone_from(&request.env);
    spec.config.user.clone_from(&request.user);
    spec.config.working_dir.clone_from(&request.working_dir);
    spec.host.network = match &request.network {
        OneShotNetwork::Bridge => NetworkMode::Bridge,
        OneShotNetwork::Host => NetworkMode::Host,
        OneShotNetwork::None => NetworkMode::None,
        OneShotNetwork::Named(name) => NetworkMode::Named(name.clone()),
        OneShotNetwork::Container(other) => NetworkMode::Container(other.clone()),
    };
    spec.host.resources = request.resources.clone();
    spec.host.shm_size = request.shm_size;
    spec.host.extra_hosts.clone_from(&request.extra_hosts);
    spec.host.security_opt.clone_from(&request.security_opt);
    spec.host.privileged = request.privileged;
    spec.settle_networks();
    spec
}

/// Whether a command may run so.
///
/// # Errors
/// `Invalid`, in the words that a container with these options would get.
pub(crate) fn check(request: &OneShot) -> Result<()> {
    let kernel = crate::system::limit_support();
    crate::containers::validate::validate(&mut wish(request), &kernel).map(drop)
}

/// The container whose network is joined: its process, and the files that name its network, which are
/// those of the last one where that container itself has joined another.
fn joined(engine: &Inner, network: &OneShotNetwork) -> Result<Option<(i32, ManagedFiles)>> {
    let OneShotNetwork::Container(other) = network else { return Ok(None) };
    let container = engine.containers.resolve(other)?;
    let view = container.now();
    let Some(run) = view.phase.run() else {
        let status = crate::containers::inspect::status(&view.phase).name();
        return Err(words::cannot_join_network(&view.record.name, status));
    };
    let owner = crate::containers::joined::network_owner(engine, other)?;
    Ok(Some((run.pid, world::files_in(&engine.config.container_dir(&owner.id)))))
}

/// Blocking.
fn prepare(engine: &Inner, id: &Id, mut request: OneShot) -> Result<runs::Plan> {
    let run = engine.config.run_dir(id);
    world::make_dir(&run)?;
    let spec = wish(&request);
    let hostname = match request.hostname.is_empty() {
        true => HOSTNAME.to_owned(),
        false => request.hostname.clone(),
    };
    let joined = joined(engine, &request.network)?;
    let mut held = Vec::new();
    let mounts = std::mem::take(&mut request.mounts);
    let mounts: Vec<HostMount> =
        mounts.into_iter().map(|mount| host_mount(mount, &mut held)).collect();
    let network = engine.networks.prepare(&networks::Container {
        id: *id,
        name: "",
        spec: &spec,
        hostname: &hostname,
    })?;
    let (files, pids) = files(&run, &hostname, &network, joined, &request.network)?;
    let mut devices = BTreeMap::new();
    if request.privileged {
        devices.insert(String::new(), crate::containers::devices::under(Path::new("/dev")));
    }
    let runtime = world::runtime_choice(engine, "", &run)?;
    let (filter, section) = world::filter(engine, &spec, &runtime)?;
    let document = derive::derive(&Inputs {
        id,
        seccomp: section,
        spec: &spec,
        config: &engine.config,
        default_shm_size: engine.live().default_shm_size,
        host: &engine.host,
        hostname: &hostname,
        mounts: &mounts,
        files: &files,
        joined: &pids,
        devices: &devices,
        shm: None,
        link_env: &[],
    })?;
    let cgroup = derive::cgroup_path(id, &spec, &engine.config);
    // For whoever finds the directory after a crash.
    write(&run.join(CGROUP_FILE), &cgroup)?;
    let settings = settings(engine, id, &run, cgroup.into(), (&request, runtime))?;
    let networks::Prepared { netns, listeners, .. } = network;
    let launch = world::launch(run, settings, document);
    Ok(runs::Plan { launch, netns, filter, ports: world::proxied(listeners), held })
}

fn settings(
    engine: &Inner,
    id: &Id,
    run: &Path,
    cgroup: PathBuf,
    (request, runtime): (&OneShot, RuntimeChoice),
) -> Result<MonitorSettings> {
    let snapshot = engine
        .store
        .snapshot(&request.snapshot)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    Ok(MonitorSettings {
        container: *id,
        rootfs: Rootfs::Overlay {
            lowers: snapshot.lowers,
            upper: snapshot.upper,
            work: snapshot.work,
        },
        user: Some(request.user.clone()),
        groups: Vec::new(),
        tty: false,
        console_size: None,
        open_stdin: false,
        stdin_once: false,
        log: LogSettings::default(),
        exit_record: run.join("exit.json"),
        durability: Durability::Lazy,
        runtime,
        cgroup: Some(cgroup),
        init: false,
        resolver: matches!(request.network, OneShotNetwork::Named(_))
            .then(|| run.join(net::zone::RESOLVER_FILE)),
        zones: Some(engine.config.exec_root.join("networks")),
    })
}

/// The command's own files of names, or those of the container whose network it joins; and the process
/// that has that network, by what the wish calls it.
fn files(
    run: &Path,
    hostname: &str,
    network: &networks::Prepared,
    joined: Option<(i32, ManagedFiles)>,
    wanted: &OneShotNetwork,
) -> Result<(ManagedFiles, BTreeMap<String, i32>)> {
    if let (Some((pid, files)), OneShotNetwork::Container(other)) = (joined, wanted) {
        return Ok((files, BTreeMap::from([(other.clone(), pid)])));
    }
    let files = world::files_in(run);
    write_files(&files, hostname, network)?;
    Ok((files, BTreeMap::new()))
}

fn write_files(files: &ManagedFiles, hostname: &str, network: &networks::Prepared) -> Result<()> {
    let hostname = format!("{hostname}\n");
    for (path, text) in [
        (&files.hosts, &network.hosts),
        (&files.hostname, &hostname),
        (&files.resolv_conf, &network.resolv_conf),
    ] {
        write(path, text)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| {
        Error::because(Kind::Internal, format!("cannot write {}", path.display()), source)
    })
}

fn host_mount(mount: OneShotMount, held: &mut Vec<OwnedFd>) -> HostMount {
    let bind = |destination: String, read_only| Mount {
        kind: MountKind::Bind,
        destination: crate::containers::mounts::clean(&destination),
        read_only,
        ..Mount::default()
    };
    match mount {
        OneShotMount::Bind { source, target, read_only } => {
            HostMount { mount: bind(target, read_only), source, file_system: None }
        }
        OneShotMount::Tree { root, target, read_only } => {
            let source = fd_path(&root);
            held.push(root);
            HostMount { mount: bind(target, read_only), source, file_system: None }
        }
        OneShotMount::Tmpfs { target, size_bytes } => {
            let size_bytes = size_bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0);
            let tmpfs = Some(TmpfsOptions { size_bytes, ..TmpfsOptions::default() });
            HostMount {
                mount: Mount { kind: MountKind::Tmpfs, tmpfs, ..bind(target, false) },
                source: PathBuf::new(),
                file_system: None,
            }
        }
    }
}

/// Gives up everything but the snapshot. Blocking.
pub(crate) fn clean_up(engine: &Inner, id: &Id) {
    engine.networks.release(id);
    let run = engine.config.run_dir(id);
    let group = fs::read_to_string(run.join(CGROUP_FILE))
        .unwrap_or_else(|_| derive::cgroup_path(id, &ContainerSpec::default(), &engine.config));
    let group = sys::cgroup::Cgroup::find(Path::new(&group));
    let runtime = world::runtime_choice(engine, "", &run).unwrap_or_default();
    world::end_run(engine, id, &group, runtime);
    if let Err(error) = fs::remove_dir_all(&run)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(step = %id, path = %run.display(), error = chain(&error), "run directory left behind");
    }
}

/// Cuts the monitor's frames into pieces of output.
async fn read_output(socket: UnixStream, sender: mpsc::Sender<(LogSource, Bytes)>) {
    let made = socket.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(socket));
    let Ok(mut socket) = made else { return };
    let mut buffer = BytesMut::with_capacity(64 << 10);
    while let Ok(1..) = socket.read_buf(&mut buffer).await {
        while let Some(piece) = next_frame(&mut buffer) {
            // Without a reader the output is drained, so that the command can end.
            let _ = sender.send(piece).await;
        }
    }
}

/// Takes one whole frame: stream, three zeros, length in big-endian, payload.
fn next_frame(buffer: &mut BytesMut) -> Option<(LogSource, Bytes)> {
    let header: [u8; 8] = *buffer.first_chunk()?;
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if buffer.len() < 8 + length {
        return None;
    }
    buffer.advance(8);
    let payload = buffer.split_to(length).freeze();
    let source = if header[0] == 2 { LogSource::Stderr } else { LogSource::Stdout };
    Some((source, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut buffer = BytesMut::from(&b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03er"[..]);
        assert_eq!(next_frame(&mut buffer), Some((LogSource::Stdout, Bytes::from_static(b"hi"))));
        assert_eq!(next_frame(&mut buffer), None);
        buffer.extend_from_slice(b"r");
        assert_eq!(next_frame(&mut buffer), Some((LogSource::Stderr, Bytes::from_static(b"err"))));
    }
}
