//! Making a container: image, merge, validation, name, writable layer, volumes, record.
//!
//! What was made before a failure is taken away again, in reverse.

use std::sync::Arc;

use spec::{Id, ImageId, Platform, Reference};
use store::Image;

use super::mounts::{self, Mount};
use super::record::{Life, Record};
use super::registry::ContainerHandle;
use super::spec::{
    ContainerSpec, CreateRequest, HostSpec, IpcMode, LogSpec, NetworkMode, PidMode, UtsMode,
};
use super::step::Phase;
use super::views::Created;
use super::{events, links, log_options, lowering, merge, task, validate, volumes};
use crate::blocking::blocking;
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::workloads::{cgroups, runtimes};
use crate::{Engine, Inner, words};

impl Engine {
    /// Makes a container that can be started.
    ///
    /// # Errors
    /// `NotFound` without the image, `Conflict` when the name is taken, `Invalid` for wishes that
    /// cannot be.
    pub async fn create_container(&self, request: CreateRequest) -> Result<Created> {
        let engine = Arc::clone(&self.inner);
        blocking(move || create(&engine, request)).await
    }
}

/// The image that a text means: a reference, an id, or an id's prefix.
pub(crate) fn find_image(engine: &Inner, asked: &str) -> Result<Arc<Image>> {
    let missing = || words::no_such_image(asked);
    if let Ok(reference) = Reference::parse(asked)
        && let Some(image) =
            engine.store.resolve_tag(&reference).and_then(|id| engine.store.image(&id))
    {
        return Ok(image);
    }
    let digits = asked.strip_prefix("sha256:").unwrap_or(asked);
    if digits.is_empty()
        || digits.len() > 64
        || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        // Malformed references are a client's mistake, others are merely absent.
        Reference::parse(asked).map_err(|source| Error::caused(Kind::Invalid, source))?;
        return Err(missing_reference(asked));
    }
    match engine.store.images_by_prefix(digits).as_slice() {
        [id] => engine.store.image(id).ok_or_else(missing),
        _ => Err(missing_reference(asked)),
    }
}

/// Docker names the tag too.
fn missing_reference(asked: &str) -> Error {
    match Reference::parse(asked) {
        Ok(reference) => words::no_such_image(&reference.familiar()),
        Err(_) => words::no_such_image(asked),
    }
}

fn create(engine: &Arc<Inner>, request: CreateRequest) -> Result<Created> {
    let CreateRequest { name, platform, mut spec } = request;
    let mut warnings = validate::validate(&mut spec, &crate::system::limit_support())?;
    warnings.extend(forwarding_warning(&spec.host.network));
    validate::cgroup_namespace(&spec.host, engine.host.cgroup_v2)?;
    if spec.image.is_empty() && spec.argv().is_empty() {
        return Err(words::no_command());
    }
    let mut image = find_image(engine, &spec.image)?;
    if let Some(wanted) = platform.as_ref().filter(|wanted| !wanted.runs(&image.config.platform()))
        && let Some(other) = crate::images::content::for_platform(engine, &spec.image, wanted)?
    {
        image = other;
    }
    warnings.extend(platform_warnings(&spec.image, &image, platform.as_ref())?);
    merge::merge(&mut spec.config, &image.config.config);
    if spec.argv().is_empty() {
        return Err(words::no_command());
    }
    resolve_joined(engine, &mut spec)?;
    links::resolve(engine, &mut spec)?;
    settle(engine, &mut spec.host);
    engine.networks.validate(&spec)?;
    spec.settle_networks();
    engine.networks.name_endpoints(&mut spec);
    let mut mounts = mounts::resolve(&spec, |other| Ok(other_mounts(&*joined(engine, other)?)))?;
    check_binds(&mounts)?;
    mounts::guard_root(&mut mounts, &engine.config.data_root)?;
    let id = Id::random();
    let mut record = Record::new(id, String::new(), image.id, spec);
    record.mounts = mounts;
    record.hostname = hostname(engine, &record)?;
    record.log = log(engine, &record)?;
    runtimes::choose(&engine.live(), &record.spec.host.runtime, std::path::Path::new(""))?;
    record.name = engine.containers.reserve(name.as_deref(), &id)?;
    match make(engine, &image, &record) {
        Ok(()) => {}
        Err(error) => {
            engine.containers.free(&record.name, &id);
            return Err(error);
        }
    }
    events::publish(engine, &record, "create", &[]);
    task::launch(
        engine,
        record,
        Life::new(Phase::Created { failure: None }, None),
        None,
        Vec::new(),
    );
    Ok(Created { id, warnings })
}

/// The writable layer, volumes and records; nothing stays when it fails.
fn make(engine: &Inner, image: &Image, record: &Record) -> Result<()> {
    let id = record.id.to_string();
    engine
        .store
        .snapshot_create(&id, &image.layers)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    let dir = engine.config.container_dir(&record.id);
    let rest = || -> Result<()> {
        make_working_directory(engine, record)?;
        volumes::create_all(engine, record)?;
        if !record.spec.host.auto_remove {
            engine.flush()?;
        }
        disk::make_dir(&dir)?;
        let written = record.write(engine.store.records(), &engine.config);
        written.map_err(|source| Error::caused(Kind::Internal, source))
    };
    rest().inspect_err(|_| {
        // The failure itself is what the user hears of; what cannot be undone now is found by the
        // next start of the daemon.
        volumes::remove_anonymous(engine, record);
        let _ = std::fs::remove_dir_all(&dir);
        let _ = engine.store.snapshot_remove(&id);
    })
}

/// The working directory is there from the start, so that `docker cp` finds it.
///
/// Source: moby `daemon/create_unix.go`, which makes it before the volumes.
fn make_working_directory(engine: &Inner, record: &Record) -> Result<()> {
    let asked = &record.spec.config.working_dir;
    let path = mounts::clean(asked);
    let id = record.id.to_string();
    if path == "/" || engine.store.snapshot_has_directory(&id, std::path::Path::new(&path)) {
        return Ok(());
    }
    let tree = engine.store.snapshot_mount(&id);
    let tree = tree.map_err(|source| Error::caused(Kind::Internal, source))?;
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotADirectory => words::working_directory_is_none(asked),
        _ => Error::because(Kind::Internal, format!("mkdir {path}"), source),
    };
    let root = sys::path::Root::new(tree.try_clone().map_err(failed)?);
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    root.create_dir_all(std::path::Path::new(&path), mode).map(drop).map_err(failed)
}

/// Source: moby `daemon/create.go`.
fn platform_warnings(asked: &str, image: &Image, wanted: Option<&Platform>) -> Result<Vec<String>> {
    let offered = image.config.platform();
    let host = Platform::host();
    if let Some(wanted) = wanted {
        if !wanted.runs(&offered) {
            let text = format!(
                "image with reference {asked} was found but its platform ({offered}) does not match the specified platform ({wanted})"
            );
            return Err(Error::not_found(text));
        }
        return Ok(Vec::new());
    }
    if offered.architecture.is_empty() || host.runs(&offered) {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "The requested image's platform ({offered}) does not match the detected host platform ({host}) and no specific platform was requested"
    )])
}

/// What the wish leaves open is decided now and shown by inspect, so that a later change of the
/// daemon's defaults does not change an existing container.
///
/// Source: moby 28.2 `daemon/daemon_unix.go`, `adaptContainerSettings`.
fn settle(engine: &Inner, host: &mut HostSpec) {
    if host.ipc == IpcMode::Unset {
        host.ipc = engine.config.default_ipc.clone();
    }
    host.cgroupns =
        cgroups::settled(host.cgroupns, lowering::privileges(host), &engine.config, &engine.host);
    if host.resources.memory > 0 && host.resources.memory_swap == 0 {
        host.resources.memory_swap = host.resources.memory.saturating_mul(2);
    }
}

/// `container:NAME` is kept by id, so that a rename does not change its meaning. Whose network is
/// joined may be made later: it is looked for at the start.
///
/// Source: moby 28.2 `daemon/daemon_unix.go`, `adaptSharedNamespaceContainer`.
fn resolve_joined(engine: &Inner, spec: &mut ContainerSpec) -> Result<()> {
    if let NetworkMode::Container(other) = &mut spec.host.network
        && let Ok(found) = engine.containers.resolve(other)
    {
        *other = found.id.to_string();
    }
    if let IpcMode::Container(other) = &mut spec.host.ipc {
        *other = joined(engine, other)?.id.to_string();
    }
    if let PidMode::Container(other) = &mut spec.host.pid {
        *other = joined(engine, other)?.id.to_string();
    }
    Ok(())
}

/// Another container that a wish names. Its absence is a mistake in the wish: clients take
/// `NotFound` for a missing image and pull.
fn joined(engine: &Inner, other: &str) -> Result<Arc<ContainerHandle>> {
    engine.containers.resolve(other).map_err(|error| Error::invalid(error.message))
}

fn other_mounts(other: &ContainerHandle) -> Vec<Mount> {
    other.now().record.mounts.clone()
}

/// `--mount type=bind` wants its source to be there already at create.
fn check_binds(mounts: &[Mount]) -> Result<()> {
    for mount in mounts {
        let bind = mount.kind == super::spec::MountKind::Bind;
        if bind && !mount.create_source && !std::path::Path::new(&mount.source).exists() {
            return Err(words::bind_source_missing(&mount.source));
        }
    }
    Ok(())
}

fn hostname(engine: &Inner, record: &Record) -> Result<String> {
    let spec = &record.spec;
    if !spec.hostname.is_empty() {
        return Ok(spec.hostname.clone());
    }
    if let NetworkMode::Container(other) = &spec.host.network {
        let other = engine.containers.resolve(other).map(|found| found.now());
        return Ok(other.map_or_else(|_| record.id.short(), |other| other.record.hostname.clone()));
    }
    if spec.host.network == NetworkMode::Host || spec.host.uts == UtsMode::Host {
        return Ok(rustix::system::uname().nodename().to_string_lossy().into_owned());
    }
    Ok(record.id.short())
}

/// The wish's driver and options; the daemon's options belong to the daemon's driver.
fn log(engine: &Inner, record: &Record) -> Result<LogSpec> {
    let mut log = record.spec.host.log.clone();
    if log.driver.is_empty() {
        log.driver.clone_from(&engine.config.log.driver);
    }
    if log.driver == engine.config.log.driver {
        for (key, value) in &engine.config.log.options {
            log.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    log_options::validate(&log)?;
    Ok(log)
}

/// The image that a container shows: as typed, or its id when that name means another image now.
pub(crate) fn image_shown(engine: &Inner, typed: &str, image: &ImageId) -> String {
    match Reference::parse(typed) {
        Ok(reference) if engine.store.resolve_tag(&reference) == Some(*image) => typed.to_owned(),
        Ok(_) | Err(_) => {
            let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
            if !digits.is_empty() && image.hex().starts_with(digits) {
                typed.to_owned()
            } else {
                image.to_string()
            }
        }
    }
}

/// The AppArmor profile of a container's processes.
pub(crate) fn shown_profile(engine: &Inner, spec: &ContainerSpec) -> String {
    lowering::process::apparmor(spec, &engine.host).unwrap_or_default()
}

/// The paths that inspect shows as masked and as read-only.
pub(crate) fn shown_paths(engine: &Inner, spec: &ContainerSpec) -> (Vec<String>, Vec<String>) {
    let paths = lowering::system_paths(spec, &engine.host);
    (paths.masked, paths.readonly)
}

/// Source: moby 28.2 `daemon/daemon_unix.go` `verifyPlatformContainerSettings`.
fn forwarding_warning(network: &NetworkMode) -> Option<String> {
    let forwarded = !matches!(network, NetworkMode::Host | NetworkMode::None);
    let off = forwarded && net::sysctl::get("ipv4/ip_forward").is_some_and(|value| value == "0");
    off.then(|| "IPv4 forwarding is disabled. Networking will not work.".to_owned())
}
