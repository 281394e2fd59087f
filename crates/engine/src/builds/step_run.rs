//! A RUN step that runs: started, listened to, killed when it is cancelled, cleaned up.
//!
//! It runs under a supervisor like any container. When it has ended, was cancelled or its handle was
//! dropped, nothing of it is left but the snapshot, which is its maker's.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use runs::process::Namespace;
use runs::workload::NetworkNamespace;
use runs::{AttachOptions, Framing, Notice, Rootfs, Target, Workload};
use spec::Id;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::step::{self, Facts, Found, Step};
use crate::blocking::blocking;
use crate::containers::joined;
use crate::containers::spec::{EndpointSpec, NetworkMode, Resources};
use crate::containers::start::proxied;
use crate::containers::step::StartFailure;
use crate::containers::views::LogSource;
use crate::disk;
use crate::error::{Error, Kind, Result, chain};
use crate::networks::{Member, MemberSpec};
use crate::workloads::devices::HostDevices;
use crate::workloads::files::{ManagedFiles, files_in};
use crate::workloads::filters::{self, FilterRequest};
use crate::workloads::{Privileges, cgroups, runtimes};
use crate::{Inner, networks, words};

/// Chunks of output that wait for a slow reader; beyond them the command waits.
const CHUNKS_MAX: usize = 64;
/// Names the step's control group in its run directory.
const CGROUP_FILE: &str = "cgroup";

/// A command that runs. Dropping it kills the command.
#[derive(Debug)]
pub(super) struct RunningStep {
    /// Output as it comes; ends with the command.
    pub output: mpsc::Receiver<(LogSource, Bytes)>,
    end: oneshot::Receiver<Result<i32>>,
    /// Closed by dropping, which the task that supervises the step notices.
    cancel: Option<oneshot::Sender<()>>,
}

/// Starts a step.
///
/// # Errors
/// `Invalid` with Docker's words when the command cannot be run.
pub(super) async fn start(engine: &Arc<Inner>, step: Step) -> Result<RunningStep> {
    let (engine, id) = (Arc::clone(engine), step.id);
    let (ours, theirs) = UnixStream::pair()
        .map_err(|source| Error::because(Kind::Internal, "cannot make a socket", source))?;
    let (run, notices) = match launch(&engine, step, theirs.into()).await {
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

impl RunningStep {
    /// Waits for the end; the exit code is 128+n after signal n.
    ///
    /// # Errors
    /// When the monitor was lost.
    pub(super) async fn wait(&mut self) -> Result<i32> {
        match (&mut self.end).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("the command's end was asked for twice")),
        }
    }

    /// Kills the command; `wait` then reports its end.
    pub(super) fn cancel(&mut self) {
        self.cancel = None;
    }
}

/// Waits for the end, and brings it about when cancelled.
async fn supervise(
    run: &runs::Run,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    mut cancelled: oneshot::Receiver<()>,
) -> Result<i32> {
    let mut is_killed = false;
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
            _ = &mut cancelled, if !is_killed => {
                is_killed = true;
                // One that ended at this very moment needs no signal.
                let _gone = run.signal(Target::Main, crate::containers::step::SIGKILL).await;
            }
        }
    }
}

async fn launch(
    engine: &Arc<Inner>,
    step: Step,
    client: OwnedFd,
) -> Result<(Arc<runs::Run>, mpsc::UnboundedReceiver<Notice>)> {
    let inner = Arc::clone(engine);
    let workload = blocking(move || prepare(&inner, step)).await?;
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
    match runs::start(&engine.launchers, workload, clients, &never).await? {
        Ok(started) => Ok((started.run, started.notices)),
        Err(refusal) => {
            let failure = StartFailure::from(refusal);
            let kind = if failure.users_fault { Kind::Invalid } else { Kind::Internal };
            Err(Error::new(kind, failure.message))
        }
    }
}

/// Makes what the step needs on the host, and lowers it. Blocking.
fn prepare(engine: &Inner, step: Step) -> Result<Workload> {
    let facts = Facts {
        config: &engine.config,
        host: &engine.host,
        default_shm_size: engine.live().default_shm_size,
    };
    let directory = engine.config.run_dir(&step.id);
    disk::make_dir(&directory)?;
    let joined = join_network(engine, &step.network)?;
    let made = engine.networks.prepare(&Member {
        id: step.id,
        name: "",
        spec: on_networks(&step, &endpoints(&step.network)),
        hostname: step.hostname(),
    })?;
    let (files, network) = match (joined, &step.network) {
        (Some((network, files)), _) => (files, NetworkNamespace::Joined(network)),
        (None, mode) => {
            let files = files_in(&directory);
            write_files(&files, step.hostname(), &made)?;
            (files, own_network(mode, made.netns))
        }
    };
    let runtime = runtimes::choose(&engine.live(), "", &directory)?;
    let request = FilterRequest {
        privileges: step.privileges,
        options: &step.options.security,
        capabilities: step.capabilities(&facts)?,
    };
    let filter = filters::for_runtime(engine, &request, &runtime)?;
    // For whoever finds the directory after a crash.
    disk::write(&directory.join(CGROUP_FILE), &step.cgroup(&facts).to_string_lossy())?;
    let snapshot = engine
        .store
        .snapshot(&step.snapshot)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    let found = Found {
        root: Rootfs::Overlay {
            lowers: snapshot.lowers,
            upper: snapshot.upper,
            work: snapshot.work,
        },
        network,
        ports: proxied(made.listeners),
        files,
        devices: HostDevices::find(step.privileges, [])?,
        filter,
        runtime,
    };
    step::lower(&facts, step, found)
}

fn own_network(mode: &NetworkMode, sandbox: Option<OwnedFd>) -> NetworkNamespace {
    match (mode, sandbox) {
        (NetworkMode::Host, _) => NetworkNamespace::Host,
        (_, Some(sandbox)) => NetworkNamespace::Sandbox(sandbox),
        (_, None) => NetworkNamespace::New,
    }
}

/// The one network that a step is on, with nothing asked of it.
fn endpoints(mode: &NetworkMode) -> BTreeMap<String, EndpointSpec> {
    match mode {
        NetworkMode::Container(_) => BTreeMap::new(),
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {
            BTreeMap::from([(mode.to_string(), EndpointSpec::default())])
        }
    }
}

fn on_networks<'a>(
    step: &'a Step,
    endpoints: &'a BTreeMap<String, EndpointSpec>,
) -> MemberSpec<'a> {
    const NONE: &BTreeMap<String, String> = &BTreeMap::new();
    MemberSpec {
        network: &step.network,
        network_disabled: false,
        endpoints,
        mac_address: "",
        domainname: "",
        links: &[],
        extra_hosts: &step.options.extra_hosts,
        dns: &[],
        dns_search: &[],
        dns_options: &[],
        sysctls: NONE,
        ports: &[],
        publish_all_ports: false,
        exposed: const { &BTreeMap::new() },
        privileged: step.privileges == Privileges::All,
    }
}

/// The container whose network is joined: that network, and the files that name it, which are those of
/// the last one where that container itself has joined another.
fn join_network(engine: &Inner, mode: &NetworkMode) -> Result<Option<(OwnedFd, ManagedFiles)>> {
    let NetworkMode::Container(other) = mode else { return Ok(None) };
    let container = engine.containers.resolve(other)?;
    let view = container.now();
    if view.phase.run().is_none() {
        let status = crate::containers::inspect::status(&view.phase).name();
        return Err(words::cannot_join_network(&view.record.name, status));
    }
    let network = joined::namespace(engine, &container, Namespace::Network)?;
    let owner = joined::network_owner(engine, other)?;
    Ok(Some((network, files_in(&engine.config.container_dir(&owner.id)))))
}

fn write_files(files: &ManagedFiles, hostname: &str, network: &networks::Prepared) -> Result<()> {
    disk::write(&files.hosts, &network.hosts)?;
    disk::write(&files.hostname, &format!("{hostname}\n"))?;
    disk::write(&files.resolv_conf, &network.resolv_conf)
}

/// Gives up everything but the snapshot. Blocking.
pub(crate) fn clean_up(engine: &Inner, id: &Id) {
    engine.networks.release(id);
    let run = engine.config.run_dir(id);
    let group = fs::read_to_string(run.join(CGROUP_FILE)).map_or_else(
        |_| cgroups::path(id, &Resources::default(), &engine.config),
        |path| Path::new(&path).to_owned(),
    );
    let group = sys::cgroup::Cgroup::find(&group);
    let runtime = runtimes::choose(&engine.live(), "", &run).unwrap_or_default();
    cgroups::end_run(engine, id, &group, runtime);
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
