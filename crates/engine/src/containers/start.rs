//! Starting a container: what its spec names is looked up on the host, the spec is lowered to a
//! [`Workload`], and the workload is run. May be done twice for the same container.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use runs::workload::{Resolver, Supervision};
use runs::{Durability, Notice, ProxyPort, Rootfs, RuntimeChoice, Workload};
use tokio::sync::{Notify, mpsc};

use super::joined::{Joined, joined_hostname, network_owner};
use super::lowering::{self, Inputs};
use super::record::{EXIT_FILE, Record};
use super::spec::{ContainerSpec, NetworkMode, Protocol};
use super::step::StartFailure;
use super::task::PendingAttach;
use super::{capabilities, link_env, links, log_options, mount_sources};
use crate::Inner;
use crate::blocking::blocking;
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::networks::{self, Attachment, Listener, Member, MemberSpec};
use crate::words;
use crate::workloads::devices::HostDevices;
use crate::workloads::files::{ManagedFiles, files_in};
use crate::workloads::filters::{self, FilterRequest};
use crate::workloads::runtimes;

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

/// Starts a run: network, files, workload, process.
pub(crate) async fn start(
    engine: &Arc<Inner>,
    record: &Arc<Record>,
    pending: Vec<PendingAttach>,
    abandoned: &Notify,
) -> std::result::Result<Started, StartFailure> {
    let (inner, prepared) = (Arc::clone(engine), Arc::clone(record));
    let (workload, attachment) = blocking(move || prepare(&inner, &prepared)).await?;
    let clients = pending
        .into_iter()
        .map(|client| runs::Client { options: client.options, socket: client.socket });
    let started = runs::start(&engine.launchers, workload, clients.collect(), abandoned).await;
    let runs::Started { run, notices, pid, at, left } = started.map_err(Error::from)??;
    let left = left.into_iter().map(|client| PendingAttach {
        socket: client.socket,
        options: client.options,
        run: None,
    });
    let left = left.collect();
    Ok(Started { pid, at, supervised: run, notices, attachment: Some(attachment), left })
}

/// Looks up what the spec names, and lowers it. Blocking.
fn prepare(
    engine: &Inner,
    record: &Record,
) -> std::result::Result<(Workload, Attachment), StartFailure> {
    let (dir, run) = (engine.config.container_dir(&record.id), engine.config.run_dir(&record.id));
    super::limits::check_shares(&record.spec.host.resources, engine.host.cgroup_v2).map_err(
        |error| {
            let why = error.message;
            words::start_failed(format!("error setting cgroup config for procHooks process: {why}"))
        },
    )?;
    disk::make_dir(&run)?;
    disk::remove_file(&dir.join(EXIT_FILE))?;
    let joined = Joined::find(engine, record)?;
    let hostname = joined_hostname(engine, record)?;
    links::check_running(engine, record)?;
    let mounts = mount_sources::find(engine, record)?;
    let network = engine.networks.prepare(&Member {
        id: record.id,
        name: &record.name,
        spec: MemberSpec::of(&record.spec),
        hostname: &hostname,
    })?;
    // After the networks, as in Docker.
    mount_sources::publish_mounted(engine, record);
    let files = managed_files(engine, record, &network)?;
    let runtime = runtimes::choose(&engine.live(), &record.spec.host.runtime, &run)?;
    let networks::Prepared { netns, listeners, attachment, .. } = network;
    let workload = lowering::lower(Inputs {
        id: &record.id,
        spec: &record.spec,
        config: &engine.config,
        default_shm_size: engine.live().default_shm_size,
        host: &engine.host,
        hostname: &hostname,
        mounts,
        files: &files,
        sandbox: netns,
        joined,
        devices: devices(record)?,
        link_env: &link_env::of(engine, record),
        filter: filters::for_runtime(engine, &filter_request(engine, &record.spec)?, &runtime)?,
        root: root(engine, record)?,
        supervision: supervision(engine, record, &run)?,
        ports: proxied(listeners),
        runtime,
    })?;
    Ok((workload, attachment))
}

/// The filter of a container's processes, execs included, in our own runtime's form. `None` where it is
/// unconfined or another runtime's concern.
///
/// # Errors
/// `Invalid` for a profile that cannot be used.
pub(crate) fn exec_filter(
    engine: &Inner,
    spec: &ContainerSpec,
    runtime: &RuntimeChoice,
) -> Result<Option<runs::Filter>> {
    match runtime {
        RuntimeChoice::Builtin => filters::compiled(engine, &filter_request(engine, spec)?),
        RuntimeChoice::External { .. } => Ok(None),
    }
}

fn filter_request<'a>(engine: &Inner, spec: &'a ContainerSpec) -> Result<FilterRequest<'a>> {
    let host = &spec.host;
    Ok(FilterRequest {
        privileges: lowering::privileges(&spec.host),
        options: &host.security_opt,
        capabilities: capabilities::resolve(
            lowering::privileges(host),
            &host.cap_add,
            &host.cap_drop,
            engine.host.last_capability,
        )?,
    })
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
    disk::write(&files.hosts, &network.hosts)?;
    disk::write(&files.hostname, &format!("{}\n", record.hostname))?;
    let path = &files.resolv_conf;
    super::resolv::write(path, &network.resolv_conf)
        .map_err(|source| disk::failed("write", path, source))?;
    Ok(files)
}

/// The devices that a container's spec names.
fn devices(record: &Record) -> Result<HostDevices> {
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
    let throttled = [
        &limits.blkio_device_read_bps,
        &limits.blkio_device_write_bps,
        &limits.blkio_device_read_iops,
        &limits.blkio_device_write_iops,
    ];
    let paths = limits.devices.iter().map(|device| &device.host);
    let paths = paths.chain(throttled.into_iter().flatten().map(|device| &device.path));
    let paths = paths.chain(limits.blkio_weight_device.iter().map(|device| &device.path));
    HostDevices::find(lowering::privileges(&record.spec.host), paths)
}

fn root(engine: &Inner, record: &Record) -> Result<Rootfs> {
    let snapshot = engine
        .store
        .snapshot(&record.id.to_string())
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    Ok(Rootfs::Overlay { lowers: snapshot.lowers, upper: snapshot.upper, work: snapshot.work })
}

fn supervision(engine: &Inner, record: &Record, run: &Path) -> Result<Supervision> {
    let dir = engine.config.container_dir(&record.id);
    let subject = log_options::log_subject(engine, record);
    let log = log_options::settings(&record.log, &subject, &dir)
        .map_err(|error| error.within("failed to initialize logging driver"))?;
    Ok(Supervision {
        directory: run.to_owned(),
        log,
        exit_record: dir.join(EXIT_FILE),
        durability: match record.spec.host.auto_remove {
            true => Durability::Lazy,
            false => Durability::Fsync,
        },
        resolver: may_resolve(&record.spec.host.network).then(|| Resolver {
            settings: run.join(net::zone::RESOLVER_FILE),
            zones: engine.config.exec_root.join("networks"),
        }),
    })
}

/// Whether a container is on a user's network, or may get there later.
fn may_resolve(mode: &NetworkMode) -> bool {
    match mode {
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => true,
        NetworkMode::Host | NetworkMode::Container(_) => false,
    }
}
