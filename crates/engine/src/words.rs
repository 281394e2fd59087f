//! Docker's wordings, which clients match on. Each names where it comes from; nothing else in the
//! engine spells them.

use std::fmt::Display;
use std::path::Path;

use crate::error::{Error, Kind};

/// Source: moby `daemon/container.go`, `errdefs`. Observed with 20.10 and 28.2.
pub fn no_such_container(asked: &str) -> Error {
    Error::new(Kind::NotFound, format!("No such container: {asked}"))
}

/// Source: moby `daemon/exec.go`.
pub fn no_such_exec(asked: &str) -> Error {
    Error::new(Kind::NotFound, format!("No such exec instance: {asked}"))
}

/// Source: moby `daemon/images/image.go`; the CLI pulls on any 404 of create.
pub fn no_such_image(asked: &str) -> Error {
    Error::new(Kind::NotFound, format!("No such image: {asked}"))
}

/// Source: moby `pkg/system/errors.go`, `ErrNotSupportedOperatingSystem`.
pub fn os_not_supported() -> Error {
    Error::invalid("operating system is not supported")
}

/// Source: moby `reference/store.go`, `AddTag`.
pub fn ambiguous_tag() -> Error {
    Error::invalid("refusing to create an ambiguous tag using digest algorithm as name")
}

/// Source: moby `container/view.go`.
pub fn ambiguous_prefix(asked: &str) -> Error {
    Error::new(Kind::Invalid, format!("multiple IDs found with provided prefix: {asked}"))
}

/// Source: moby `daemon/names.go`.
pub fn invalid_name(name: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    )
}

/// Source: moby `daemon/names.go`.
pub fn name_in_use(name: &str, holder: impl Display) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        ),
    )
}

/// Source: moby `daemon/create.go`.
pub fn no_command() -> Error {
    Error::new(Kind::Invalid, "no command specified")
}

/// Source: moby `daemon/container.go` `verifyContainerSettings`.
pub fn relative_workdir(path: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("the working directory '{path}' is invalid, it needs to be an absolute path"),
    )
}

/// Source: docker `opts/hosts.go`, `ValidateExtraHost`.
pub fn bad_extra_host(line: &str) -> Error {
    Error::new(Kind::Invalid, format!("bad format for add-host: {line:?}"))
}

/// Source: moby 28.2 `daemon/daemon_unix.go`, `verifyPlatformContainerSettings`.
pub fn privileged_cgroup_namespace() -> Error {
    Error::invalid(
        "privileged mode is incompatible with private cgroup namespaces on cgroup v1 host.  You must run the container in the host cgroup namespace when running privileged mode",
    )
}

/// A namespace that cannot be joined, at the start: moby 28 `daemon/oci_linux.go`, `WithNamespaces`.
pub fn cannot_join(kind: &str, why: impl Display) -> Error {
    Error::internal(format!("failed to join {kind} namespace: {why}"))
}

/// Source: moby 28 `daemon/container_operations_unix.go`, `getIPCContainer`.
pub fn non_shareable_ipc(id: impl Display) -> Error {
    let hint = "(hint: use IpcMode:shareable for the donor container)";
    cannot_join("IPC", format!("container {id}: non-shareable IPC {hint}"))
}

/// Source: moby 28 `daemon/container_operations.go`, `getNetworkedContainer`.
pub fn cannot_join_network(name: &str, status: &str) -> Error {
    Error::conflict(format!(
        "cannot join network namespace of a non running container: container {name} is {status}"
    ))
}

/// Source: moby `daemon/errors.go` `errNotRunning`.
pub fn not_running(asked: impl Display) -> Error {
    Error::new(Kind::Conflict, format!("container {asked} is not running"))
}

/// Source: moby `api/server/router/container/container_routes.go`, around whatever went wrong.
pub fn cannot_kill(asked: &str, why: Error) -> Error {
    why.within(&format!("cannot kill container: {asked}"))
}

/// Source: moby `daemon/pause.go` `errIsPaused`.
pub fn is_paused(id: impl Display) -> Error {
    Error::new(Kind::Conflict, format!("container {id} is paused"))
}

/// Source: moby `daemon/exec.go` `errExecPaused`.
pub fn exec_paused(id: impl Display) -> Error {
    Error::new(
        Kind::Conflict,
        format!("container {id} is paused, unpause the container before exec"),
    )
}

/// Source: moby `daemon/pause.go`.
pub fn already_paused(id: impl Display) -> Error {
    Error::new(Kind::Conflict, format!("Container {id} is already paused"))
}

/// Source: moby `daemon/unpause.go`; untyped there, so 500.
pub fn not_paused(id: impl Display) -> Error {
    Error::new(Kind::Internal, format!("Container {id} is not paused"))
}

/// Source: moby `daemon/errors.go` `errContainerIsRestarting`.
pub fn is_restarting(id: impl Display) -> Error {
    Error::new(
        Kind::Conflict,
        format!("Container {id} is restarting, wait until the container is running"),
    )
}

/// Source: moby `daemon/start.go`.
pub fn start_paused() -> Error {
    Error::new(Kind::Conflict, "cannot start a paused container, try unpause instead")
}

/// Source: moby `daemon/start.go`.
pub fn start_removing() -> Error {
    Error::new(Kind::Conflict, "container is marked for removal and cannot be started")
}

/// Source: moby `daemon/delete.go` (28.2).
pub fn remove_running(name: &str) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "cannot remove container \"/{name}\": container is running: \
             stop the container before removing or force remove"
        ),
    )
}

/// Source: moby `daemon/delete.go` (28.2).
pub fn remove_paused(name: &str) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "cannot remove container \"/{name}\": container is paused and must be unpaused first"
        ),
    )
}

/// Source: moby `daemon/delete.go`; the dev-container CLI looks for "already in progress".
pub fn remove_in_progress(id: impl Display) -> Error {
    Error::new(Kind::Conflict, format!("removal of container {id} is already in progress"))
}

/// Source: moby `daemon/delete.go` `rmLink`; untyped there, so 500.
pub fn default_link() -> Error {
    Error::new(Kind::Internal, "Conflict, cannot remove the default link name of the container")
}

/// Source: moby `runconfig/errors.go`.
pub fn link_to_host_network() -> Error {
    Error::new(
        Kind::Invalid,
        "conflicting options: host type networking can't be used with links. This would result \
         in undefined behavior",
    )
}

/// Source: moby `daemon/container_operations_unix.go`; untyped there, so 500.
pub fn link_elsewhere(target: &str) -> Error {
    let text = format!("Cannot link to /{target}, as it does not belong to the default network");
    Error::internal(format!("failed to set up container networking: {text}"))
}

/// Source: moby 28.2 `daemon/container_operations_unix.go`.
pub fn link_not_running(target: &str, parent: &str, alias: &str) -> Error {
    Error::new(
        Kind::Internal,
        format!("Cannot link to a non running container: /{target} AS /{parent}/{alias}"),
    )
}

/// Source: moby `api/server/router/container/container_routes.go`; observed.
pub fn no_stream_chosen() -> Error {
    Error::new(Kind::Invalid, "Bad parameters: you must choose at least one stream")
}

/// Source: moby `api/types/filters/errors.go`.
pub fn invalid_filter(key: &str) -> Error {
    Error::new(Kind::Invalid, format!("invalid filter '{key}'"))
}

/// Source: moby `api/types/filters/errors.go`.
pub fn invalid_filter_value(key: &str, value: &str) -> Error {
    Error::new(Kind::Invalid, format!("invalid filter '{key}={value}'"))
}

/// Source: moby `daemon/prune.go`.
pub fn prune_running() -> Error {
    Error::new(Kind::Conflict, "a prune operation is already running")
}

/// Source: moby `volume/mounts/parser.go` `errMountDuplicate`.
pub fn duplicate_mount(target: &str) -> Error {
    Error::new(Kind::Invalid, format!("Duplicate mount point: {target}"))
}

/// Source: moby `volume/mounts/linux_parser.go`.
pub fn bind_source_missing(path: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("invalid mount config for type \"bind\": bind source path does not exist: {path}"),
    )
}

/// Source: moby `daemon/start.go`, containerd and runc: what the CLI turns into 127, 126 or 125 by
/// looking for the words of `why`.
pub fn start_failed(why: impl Display) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "failed to create task for container: failed to create shim task: OCI runtime create \
             failed: unable to start container process: {why}"
        ),
    )
}

/// Source: moby `daemon/logger/plugin.go`, `pkg/plugins`: what is none of the drivers may be a plugin.
pub fn no_log_driver(name: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("error looking up logging plugin {name}: plugin \"{name}\" not found"),
    )
}

/// Source: moby `daemon/logs.go` and `daemon/logger/none`.
pub fn logs_not_supported() -> Error {
    Error::new(Kind::NotImplemented, "configured logging driver does not support reading")
}

/// Source: moby `daemon/update.go` `errCannotUpdate`, around whatever went wrong.
pub fn cannot_update(id: impl Display, why: Error) -> Error {
    why.within(&format!("Cannot update container {id}"))
}

/// Source: moby `container/container_unix.go` `UpdateContainer`.
pub fn update_auto_remove() -> Error {
    Error::new(
        Kind::Conflict,
        "Restart policy cannot be updated because AutoRemove is enabled for the container",
    )
}

/// Source: moby `daemon/update.go`.
pub fn update_removing(id: impl Display) -> Error {
    Error::new(
        Kind::Internal,
        format!(
            "Cannot update container {id}: container is marked for removal and cannot be \"update\""
        ),
    )
}

/// Source: moby `daemon/delete.go` (28.2).
pub fn remove_restarting(name: &str) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "cannot remove container \"/{name}\": container is restarting: \
             stop the container before removing or force remove"
        ),
    )
}

/// Source: moby `daemon/kill.go`.
pub fn not_ended(id: impl Display) -> Error {
    Error::new(
        Kind::Internal,
        format!(
            "cannot stop container: {id}: tried to kill container, but did not receive an exit event"
        ),
    )
}

/// Source: moby `internal/safepath/errors.go`, `ErrEscapesBase`.
pub fn escapes_base(base: &Path, subpath: &str) -> Error {
    let base = base.display();
    Error::invalid(format!(
        "path concatenation escapes the base directory, base: {base}, subpath: {subpath}"
    ))
}

/// Source: moby `internal/safepath/errors.go`, `ErrNotAccessible`.
pub fn not_accessible(path: &Path, source: std::io::Error) -> Error {
    let text = format!("cannot access path {}", path.display());
    Error::because(Kind::NotFound, text, source)
}

/// Source: moby `container/container_unix.go`, `SetupWorkingDirectory`.
pub fn working_directory_is_none(path: &str) -> Error {
    Error::internal(format!("Cannot mkdir: {path} is not a directory"))
}

/// Source: moby `daemon/archive.go`, `containerFileNotFound`.
pub fn no_such_file_in(container: &str, path: &str) -> Error {
    Error::not_found(format!("Could not find the file {path} in container {container}"))
}

/// Source: moby `pkg/archive/archive.go`, `Unpack` with `NoOverwriteDirNonDir`.
pub fn directory_by_other(there: &Path, into: &Path) -> Error {
    Error::invalid(format!("cannot overwrite directory {there:?} with non-directory {into:?}"))
}

/// Source: as [`directory_by_other`].
pub fn other_by_directory(there: &Path, into: &Path) -> Error {
    Error::invalid(format!("cannot overwrite non-directory {there:?} with directory {into:?}"))
}

/// Source: moby `daemon/archive_unix.go`.
pub fn read_only_rootfs() -> Error {
    Error::new(Kind::Invalid, "container rootfs is marked read-only")
}

/// Source: moby `daemon/archive_unix.go`.
pub fn read_only_volume() -> Error {
    Error::new(Kind::Invalid, "mounted volume is marked read-only")
}
