//! Containers whose namespaces another one joins: looked for at its start, by id or by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use sys::path::Root;
use tracing::warn;

use super::record::Record;
use super::registry::Container;
use super::spec::{IpcMode, NetworkMode, PidMode};
use super::views::Status;
use crate::Inner;
use crate::error::{Error, Result, chain};
use crate::words;

/// Pids of the containers whose namespaces this one joins, by what the wish calls them.
pub(crate) fn joined_pids(engine: &Inner, record: &Record) -> Result<BTreeMap<String, i32>> {
    let host = &record.spec.host;
    let mut found = BTreeMap::new();
    match &host.network {
        NetworkMode::Container(other) => {
            let container = joined_network(engine, record, other)?;
            let run = container.now().phase.run().map(|run| run.pid);
            let pid = run.ok_or_else(|| crate::words::not_running(container.id))?;
            found.insert(other.clone(), pid);
        }
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {}
    }
    let ipc = match &host.ipc {
        IpcMode::Container(other) => Some((other, "IPC")),
        IpcMode::Unset | IpcMode::None | IpcMode::Private | IpcMode::Shareable | IpcMode::Host => {
            None
        }
    };
    let pid = match &host.pid {
        PidMode::Container(other) => Some((other, "PID")),
        PidMode::Private | PidMode::Host => None,
    };
    for (other, what) in [ipc, pid].into_iter().flatten() {
        let in_words = |error: Error| words::cannot_join(what, error.message);
        let container = engine.containers.resolve(other).map_err(in_words)?;
        let view = container.now();
        let Some(run) = view.phase.run() else {
            return Err(in_words(words::not_running(container.id)));
        };
        if what == "IPC" && !shares_ipc(&view.record.spec.host.ipc) {
            return Err(words::non_shareable_ipc(container.id));
        }
        found.insert(other.clone(), run.pid);
    }
    Ok(found)
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
fn joined_network(engine: &Inner, record: &Record, other: &str) -> Result<Arc<Container>> {
    // Not `NotFound`: it is the wish that is wrong, not the container that is started.
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

/// The `/dev/shm` of the container whose IPC namespace is joined, as a detached mount.
pub(crate) fn joined_shm(record: &Record, joined: &BTreeMap<String, i32>) -> Option<OwnedFd> {
    let IpcMode::Container(other) = &record.spec.host.ipc else { return None };
    let namespace = format!("/proc/{}/ns/mnt", joined.get(other)?);
    let take = || -> io::Result<OwnedFd> {
        let namespace = fs::File::open(namespace)?;
        // setns(2): only a thread that shares its directories with no other may change them.
        sys::namespace::unshare_directories()?;
        sys::namespace::join(&namespace, sys::namespace::Namespaces::MOUNT)?;
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
