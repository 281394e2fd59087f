//! What the engine tells about one container. Lists are in [`super::list`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use spec::units::human_duration;

use super::create::{shown_paths, shown_profile};
use super::links;
use super::log_options;
use super::mounts::Mount;
use super::registry::ContainerHandle;
use super::spec::MountKind;
use super::step::{Exit, Phase, Run, StartFailure};
use super::task::View;
use super::views::{
    ContainerView, HealthStatus, MountPoint, MountRow, NetworkView, Size, StateView, Status,
    StorageView,
};
use crate::blocking::blocking;
use crate::error::Result;
use crate::workloads::files::files_in;
use crate::{Engine, Inner, networks};

impl Engine {
    /// Everything about one container; sizes cost a walk through its tree.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_container(&self, asked: &str, size: bool) -> Result<ContainerView> {
        let container = self.container(asked)?;
        let view = container.now();
        let size = if size { Some(measure(&self.inner, &view).await) } else { None };
        Ok(describe(&self.inner, &container, &view, size))
    }
}

pub(super) async fn measure(engine: &Arc<Inner>, view: &View) -> Size {
    let (engine, id, image) = (Arc::clone(engine), view.record.id.to_string(), view.record.image);
    blocking(move || {
        let writable = engine.store.snapshot_size(&id).unwrap_or(0);
        let below = engine.store.image(&image).map_or(0, |image| image.size);
        Size { writable, total: writable + below }
    })
    .await
}

/// `State.Status`.
pub(crate) fn status(phase: &Phase) -> Status {
    match phase {
        Phase::Created { .. } => Status::Created,
        // Docker shows the state before until the program runs.
        Phase::Starting { tally, .. } if tally.restarts > 0 => Status::Restarting,
        Phase::Starting { last: None, .. } => Status::Created,
        Phase::Starting { last: Some(_), .. } => Status::Exited,
        Phase::Running { .. } | Phase::Stopping { .. } => Status::Running,
        Phase::Paused { .. } => Status::Paused,
        Phase::Exited { .. } => Status::Exited,
        Phase::Backoff { .. } => Status::Restarting,
        Phase::Removing { .. } | Phase::Gone => Status::Removing,
        Phase::Dead { .. } => Status::Dead,
    }
}

/// What of a container's state its row in a list needs. Nothing in it is owned by the view, so it
/// costs next to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brief {
    pub status: Status,
    pub running: bool,
    pub exit_code: i32,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    pub health: Option<HealthStatus>,
}

fn failure(phase: &Phase) -> Option<&StartFailure> {
    match phase {
        Phase::Created { failure } => failure.as_ref(),
        Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Paused { .. }
        | Phase::Stopping { .. }
        | Phase::Exited { .. }
        | Phase::Backoff { .. }
        | Phase::Removing { .. }
        | Phase::Dead { .. }
        | Phase::Gone => None,
    }
}

pub(super) fn brief(view: &View) -> Brief {
    let status = status(&view.phase);
    let run: Option<&Run> = view.phase.run();
    let last: Option<&Exit> = view.phase.exit().or(view.last.as_ref());
    let time = |at: Timestamp| SystemTime::from(at);
    Brief {
        status,
        running: matches!(status, Status::Running | Status::Paused | Status::Restarting),
        exit_code: match (run, failure(&view.phase), last) {
            (Some(_), _, _) => 0,
            (None, Some(failure), _) => failure.code,
            (None, None, last) => last.map_or(0, |exit| exit.code),
        },
        started_at: run
            .map(|run| time(run.started_at))
            .or_else(|| last.map(|exit| time(exit.started_at))),
        finished_at: last.map(|exit| time(exit.finished_at)),
        health: view.health.as_ref().map(|health| health.status),
    }
}

fn state(view: &View) -> StateView {
    let Brief { status, running, exit_code, started_at, finished_at, health: _ } = brief(view);
    let run: Option<&Run> = view.phase.run();
    let last: Option<&Exit> = view.phase.exit().or(view.last.as_ref());
    let error = match (run, failure(&view.phase), last) {
        (Some(_), _, _) => String::new(),
        (None, Some(failure), _) => failure.message.clone(),
        (None, None, last) => last.map_or_else(String::new, |exit| exit.error.clone()),
    };
    StateView {
        status,
        running,
        paused: status == Status::Paused,
        restarting: status == Status::Restarting,
        oom_killed: run.map_or_else(|| last.is_some_and(|exit| exit.oom), |run| run.oom),
        dead: status == Status::Dead,
        pid: run.and_then(|run| u32::try_from(run.pid).ok()).unwrap_or(0),
        exit_code,
        error,
        started_at,
        finished_at,
        health: view.health.clone(),
    }
}

fn restarts(view: &View) -> u32 {
    match (&view.phase, view.phase.run(), view.phase.exit()) {
        (Phase::Starting { tally, .. } | Phase::Backoff { tally, .. }, _, _) => tally.restarts,
        (_, Some(run), _) => run.tally.restarts,
        (_, None, Some(exit)) => exit.restarts,
        (_, None, None) => 0,
    }
}

fn network(engine: &Inner, view: &View) -> NetworkView {
    network_by(view, |name| engine.networks.resolve(name).ok())
}

/// The networks of a container; `id_of` knows those of the daemon.
pub(super) fn network_by(view: &View, id_of: impl Fn(&str) -> Option<spec::Id>) -> NetworkView {
    match (&view.attachment, view.phase.run()) {
        (Some(attachment), Some(_)) => attachment.view(&view.record.spec),
        (Some(_) | None, _) => {
            let mut shown = networks::stopped_view(&view.record.spec);
            // Compose recreates a container whose networks have other ids than it expects.
            for (name, endpoint) in &mut shown.endpoints {
                endpoint.network_id = id_of(name).map(|id| id.to_string()).unwrap_or_default();
            }
            shown
        }
    }
}

fn describe(
    engine: &Arc<Inner>,
    container: &ContainerHandle,
    view: &View,
    size: Option<Size>,
) -> ContainerView {
    let record = &view.record;
    let dir = engine.config.container_dir(&record.id);
    let files = files_in(&dir);
    let (masked_paths, readonly_paths) = shown_paths(engine, &record.spec);
    let mut argv = record.spec.argv().into_iter();
    let runtime = &record.spec.host.runtime;
    let mut spec = record.spec.clone();
    spec.hostname.clone_from(&record.hostname);
    spec.host.links = links::shown(engine, record);
    ContainerView {
        id: record.id,
        name: record.name.clone(),
        created_at: record.created_at.into(),
        image: record.image,
        spec,
        log: record.log.clone(),
        shm_size: record.spec.host.shm_size.unwrap_or(engine.live().default_shm_size),
        runtime: if runtime.is_empty() {
            engine.live().default_runtime.clone()
        } else {
            runtime.clone()
        },
        init: record.spec.host.init.unwrap_or(engine.config.init),
        masked_paths,
        readonly_paths,
        apparmor_profile: shown_profile(engine, &record.spec),
        state: state(view),
        restart_count: restarts(view),
        path: argv.next().unwrap_or_default(),
        args: argv.collect(),
        resolv_conf_path: files.resolv_conf,
        hostname_path: files.hostname,
        hosts_path: files.hosts,
        log_path: log_options::log_path(&record.log, &dir, &record.id),
        exec_ids: container.execs.live(),
        mounts: record.mounts.iter().filter_map(|mount| mount_point(engine, mount)).collect(),
        network: network(engine, view),
        storage: storage(engine, view),
        size,
        platform: record.platform.clone(),
    }
}

fn storage(engine: &Inner, view: &View) -> StorageView {
    let mut data = BTreeMap::new();
    if let Ok(snapshot) = engine.store.snapshot(&view.record.id.to_string()) {
        let show = |path: &std::path::Path| path.display().to_string();
        let lowers: Vec<String> = snapshot.lowers.iter().map(|path| show(path)).collect();
        data.insert("LowerDir".to_owned(), lowers.join(":"));
        data.insert("UpperDir".to_owned(), show(&snapshot.upper));
        data.insert("WorkDir".to_owned(), show(&snapshot.work));
        // There is no merged directory on the host; its place is where Docker's would be.
        let merged = snapshot.upper.parent().map(|dir| dir.join("merged"));
        data.insert("MergedDir".to_owned(), merged.map_or_else(String::new, |path| show(&path)));
    }
    StorageView { driver: engine.store.driver().name().to_owned(), data }
}

/// Tmpfs mounts of `--tmpfs` are shown in the host configuration alone, as in Docker.
pub(super) fn mount_row<'a>(engine: &Inner, mount: &'a Mount) -> Option<MountRow<'a>> {
    let source = match mount.kind {
        MountKind::Volume => {
            let place = engine.store.volume_mountpoint(&mount.name).unwrap_or_default();
            Cow::Owned(place.display().to_string())
        }
        MountKind::Bind => Cow::Borrowed(mount.source.as_str()),
        MountKind::Tmpfs => return None,
        MountKind::Image | MountKind::Npipe | MountKind::Cluster => Cow::Borrowed(""),
    };
    let propagation = match (mount.kind, mount.propagation.as_str()) {
        (MountKind::Bind, "") => "rprivate",
        (_, propagation) => propagation,
    };
    Some(MountRow { mount, source, propagation })
}

fn mount_point(engine: &Inner, mount: &Mount) -> Option<MountPoint> {
    let MountRow { mount, source, propagation } = mount_row(engine, mount)?;
    Some(MountPoint {
        kind: mount.kind,
        name: mount.name.clone(),
        source: source.into_owned(),
        destination: mount.destination.clone(),
        driver: mount.driver.clone(),
        mode: mount.mode.clone(),
        writable: !mount.read_only,
        propagation: propagation.to_owned(),
    })
}

/// Source: moby `container/state.go` `String`.
pub(super) fn status_text(state: &Brief, now: SystemTime) -> Cow<'static, str> {
    let since = |at: Option<SystemTime>| {
        let since = at.and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        human_duration(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    };
    Cow::Owned(match state.status {
        Status::Removing => return Cow::Borrowed("Removal In Progress"),
        Status::Dead => return Cow::Borrowed("Dead"),
        Status::Created => return Cow::Borrowed("Created"),
        Status::Running => {
            let up = format!("Up {}", since(state.started_at));
            match state.health {
                None => up,
                Some(HealthStatus::Starting) => format!("{up} (health: starting)"),
                Some(status) => format!("{up} ({})", status.name()),
            }
        }
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at))
        }
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    })
}
