//! Containers whose namespaces another one joins: looked for at its start, by id or by name.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use runs::process::Namespace;
use sys::path::Root;
use tracing::warn;

use super::record::Record;
use super::registry::ContainerHandle;
use super::spec::{IpcMode, NetworkMode, PidMode};
use super::views::Status;
use crate::Inner;
use crate::error::{Error, Result, chain};
use crate::words;

/// Namespaces of other containers that a container joins, each held so that it stays the same one.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub network: Option<OwnedFd>,
    pub pid: Option<OwnedFd>,
    pub ipc: Option<OwnedFd>,
    /// The `/dev/shm` that goes with `ipc`, as a mount that is attached nowhere.
    pub shm: Option<OwnedFd>,
}

impl Joined {
    /// Looks for the containers that are joined. Blocking.
    ///
    /// # Errors
    /// In Docker's words when one does not run, or does not share what is joined.
    pub(crate) fn find(engine: &Inner, record: &Record) -> Result<Joined> {
        let host = &record.spec.host;
        let mut joined = Joined::default();
        match &host.network {
            NetworkMode::Container(other) => {
                let container = joined_network(engine, record, other)?;
                joined.network = Some(namespace(engine, &container, Namespace::Network)?);
            }
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {
            }
        }
        match &host.ipc {
            IpcMode::Container(other) => {
                let in_words = |error: Error| words::cannot_join("IPC", error.message);
                let container = engine.containers.resolve(other).map_err(in_words)?;
                let ipc = namespace(engine, &container, Namespace::Ipc).map_err(in_words)?;
                if !shares_ipc(&container.now().record.spec.host.ipc) {
                    return Err(words::non_shareable_ipc(container.id));
                }
                joined.ipc = Some(ipc);
                joined.shm = shared_memory(engine, record, &container);
            }
            IpcMode::Unset
            | IpcMode::None
            | IpcMode::Private
            | IpcMode::Shareable
            | IpcMode::Host => {}
        }
        match &host.pid {
            PidMode::Container(other) => {
                let in_words = |error: Error| words::cannot_join("PID", error.message);
                let container = engine.containers.resolve(other).map_err(in_words)?;
                joined.pid = Some(namespace(engine, &container, Namespace::Pid).map_err(in_words)?);
            }
            PidMode::Private | PidMode::Host => {}
        }
        Ok(joined)
    }
}

/// A namespace of a container that runs, by its first process's handle.
///
/// # Errors
/// In Docker's words when it does not run.
pub(crate) fn namespace(
    engine: &Inner,
    container: &ContainerHandle,
    kind: Namespace,
) -> Result<OwnedFd> {
    let not_running = || words::not_running(container.id);
    let view = container.now();
    let run = view.phase.run().ok_or_else(not_running)?;
    let held = view.supervised.as_ref().and_then(|run| run.process());
    let held = held.filter(|process| process.pidfd().is_some());
    let process = match held {
        Some(process) => process,
        // Its supervisor has yet to say which process it is.
        None => {
            let found = super::cgroups::process_of(engine, &view.record, run.pid);
            Arc::new(found.ok_or_else(not_running)?)
        }
    };
    process.namespace(kind).map_err(|_| not_running())
}

/// Whether others may join the IPC namespace of a container that asked for this.
fn shares_ipc(mode: &IpcMode) -> bool {
    match mode {
        IpcMode::Shareable | IpcMode::Host | IpcMode::Container(_) => true,
        IpcMode::Unset | IpcMode::None | IpcMode::Private => false,
    }
}

/// The running container whose network is joined.
///
/// Source: moby 28.2 `daemon/container_operations.go`, `getNetworkedContainer`.
fn joined_network(engine: &Inner, record: &Record, other: &str) -> Result<Arc<ContainerHandle>> {
    // Not `NotFound`: what is asked for is wrong, not the container that is started.
    let found = engine.containers.resolve(other).map_err(|error| {
        Error::internal(format!("joining network namespace of container: {}", error.message))
    })?;
    if found.id == record.id {
        return Err(Error::internal("cannot join own network namespace"));
    }
    let view = found.now();
    match super::inspect::status(&view.phase) {
        Status::Running | Status::Paused => Ok(found),
        Status::Restarting => Err(Error::internal(format!(
            "cannot join network namespace of container: {}",
            words::is_restarting(found.id).message
        ))),
        status @ (Status::Created | Status::Removing | Status::Exited | Status::Dead) => {
            Err(words::cannot_join_network(&view.record.name, status.name()))
        }
    }
}

/// Whose files a container has that joins this one's network: those at the end of the chain.
pub(crate) fn network_owner(engine: &Inner, asked: &str) -> Result<Arc<Record>> {
    let find = |asked: &str| -> Result<Arc<Record>> {
        Ok(Arc::clone(&engine.containers.resolve(asked)?.now().record))
    };
    let mut owner = find(asked)?;
    // Names are looked up anew, so that a chain may have come to be a ring.
    let mut seen = BTreeSet::from([owner.id]);
    while let NetworkMode::Container(other) = &owner.spec.host.network {
        let next = find(other)?;
        if !seen.insert(next.id) {
            return Err(Error::internal("cannot join own network namespace"));
        }
        owner = next;
    }
    Ok(owner)
}

/// The host name: that of the container whose network is joined, which may have come later.
pub(crate) fn joined_hostname(engine: &Inner, record: &Record) -> Result<String> {
    match &record.spec.host.network {
        NetworkMode::Container(other) => Ok(network_owner(engine, other)?.hostname.clone()),
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {
            Ok(record.hostname.clone())
        }
    }
}

/// Takes a mount of a container's `/dev/shm`.
fn shared_memory(engine: &Inner, record: &Record, container: &ContainerHandle) -> Option<OwnedFd> {
    let theirs = namespace(engine, container, Namespace::Mount).ok()?;
    let take = move || -> io::Result<OwnedFd> {
        // setns(2): only a thread that shares its directories with no other may change them.
        sys::namespace::unshare_directories()?;
        sys::namespace::join(&theirs, sys::namespace::Namespaces::MOUNT)?;
        // The container may have made a link of it, and may see our own /proc: no magic link is followed.
        let shm = Root::open_at(Path::new("/"))?.handle(Path::new("/dev/shm"))?;
        sys::mount::clone_tree(&shm, Path::new(""), sys::mount::Depth::Only)
    };
    match std::thread::spawn(take).join() {
        Ok(Ok(tree)) => Some(tree),
        Ok(Err(error)) => {
            warn!(container = %record.id, error = chain(&error), "shared memory not shared");
            None
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
