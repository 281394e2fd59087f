//! Start, stop, kill, pause, rename, update, remove, prune, wait: what callers ask of a container's
//! task, and Docker's words for its refusals.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::limits::{self, Purpose};
use super::registry::ContainerHandle;
use super::signals;
use super::spec::RestartPolicy;
use super::step::{By, Input, Phase, Refusal, Stopping};
use super::task::{Change, Denied, Message, Until, View};
use super::turns::in_turn;
use super::views::{
    Grace, Outcome, Pruned, RemoveOptions, StopOptions, UpdateRequest, WaitCondition, WaitResult,
};
use super::{cgroups, events};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result, chain};
use crate::filters::Filters;
use crate::{Engine, Inner, words};

const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Answers when the awaited thing has happened.
pub struct Waiter {
    view: tokio::sync::watch::Receiver<Arc<View>>,
    condition: WaitCondition,
    /// Ends counted when the waiting began.
    exits: u64,
}

impl Waiter {
    /// Waits. A container that is gone ends every waiting.
    pub async fn finished(mut self) -> WaitResult {
        let (condition, exits) = (self.condition, self.exits);
        let met = |view: &Arc<View>| match condition {
            // An end that the restart policy undoes is an end too.
            // Source: moby `container/state.go`, `SetRestarting`.
            WaitCondition::NotRunning => view.exits > exits || !busy(&view.phase),
            WaitCondition::NextExit => view.exits > exits || view.phase == Phase::Gone,
            WaitCondition::Removed => matches!(view.phase, Phase::Gone | Phase::Dead { .. }),
        };
        // The sender goes only with the container, after its last view.
        let _ = self.view.wait_for(met).await;
        let view = Arc::clone(&self.view.borrow());
        // A start that failed is told by start itself; here it would be said twice.
        let error = match (&view.phase, condition) {
            (Phase::Dead { reason, .. }, WaitCondition::Removed) => Some(reason.clone()),
            (_, WaitCondition::NotRunning | WaitCondition::NextExit | WaitCondition::Removed) => {
                None
            }
        };
        let code = match (&view.failure, &view.last) {
            (Some(failure), _) => failure.code,
            (None, Some(exit)) => exit.code,
            (None, None) => 0,
        };
        WaitResult { exit_code: code, error }
    }
}

/// Whether Docker would say `Running`.
fn busy(phase: &Phase) -> bool {
    match phase {
        Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Paused { .. }
        | Phase::Stopping { .. }
        | Phase::Backoff { .. } => true,
        Phase::Created { .. }
        | Phase::Exited { .. }
        | Phase::Removing { .. }
        | Phase::Dead { .. }
        | Phase::Gone => false,
    }
}

/// Puts an input into the mailbox and awaits its outcome. The transition happens even when the
/// caller stops waiting.
async fn submit(
    container: &ContainerHandle,
    input: Input,
    until: Until,
) -> std::result::Result<Outcome, Denied> {
    let (reply, answer) = oneshot::channel();
    if container.inbox.send(Message::Input { input, until, reply }).is_err() {
        return Err(Denied::Gone);
    }
    answer.await.unwrap_or(Err(Denied::Gone))
}

/// Changes the record through its only writer.
pub(crate) async fn change(container: &ContainerHandle, change: Change) -> Result<()> {
    let (reply, answer) = oneshot::channel();
    let gone = || words::no_such_container(&container.id.to_string());
    container.inbox.send(Message::Change { change, reply }).map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
}

async fn rename(
    engine: &Arc<Inner>,
    container: &ContainerHandle,
    view: &View,
    name: &str,
) -> Result<()> {
    let old = view.record.name.clone();
    if old == name.strip_prefix('/').unwrap_or(name) {
        return Err(Error::invalid("Renaming a container with the same name as its current name"));
    }
    let new = engine.containers.reserve(Some(name), &container.id)?;
    let reserved = new.clone();
    let outcome = change(
        container,
        Box::new(move |record, _| {
            record.name = reserved;
            Ok(())
        }),
    )
    .await;
    if let Err(error) = outcome {
        engine.containers.free(&new, &container.id);
        return Err(error);
    }
    engine.containers.free(&old, &container.id);
    let (networks, id) = (engine.networks.clone(), container.id);
    blocking(move || networks.rename(&id, &new)).await;
    let more = [("oldName", format!("/{old}"))];
    events::publish(engine, &container.now().record, "rename", &more);
    Ok(())
}

async fn update(
    engine: &Arc<Inner>,
    container: &ContainerHandle,
    view: &View,
    request: UpdateRequest,
) -> Result<()> {
    if matches!(view.phase, Phase::Removing { .. } | Phase::Dead { .. } | Phase::Gone) {
        return Err(words::update_removing(container.id));
    }
    if view.record.spec.host.auto_remove
        && request.restart.is_some_and(|policy| policy != RestartPolicy::No)
    {
        return Err(words::cannot_update(container.id, words::update_auto_remove()));
    }
    let mut spec = view.record.spec.clone();
    super::update::overlay(&mut spec.host.resources, &request.resources)
        .map_err(|error| words::cannot_update(container.id, error))?;
    if let Some(restart) = request.restart {
        spec.host.restart = restart;
    }
    if view.phase.run().is_some() {
        limits::check_shares(&request.resources, engine.host.cgroup_v2)
            .map_err(|error| words::cannot_update(container.id, error))?;
        let limits = crate::workloads::limits::lower(&spec.host.resources, &Default::default())?;
        let limits = runs::document::resources(&limits);
        let group = cgroups::cgroup(engine, &view.record);
        blocking(move || runtime::resources::apply(&group, &limits)).await.map_err(|source| {
            let error = Error::caused(Kind::Internal, source);
            words::cannot_update(container.id, error)
        })?;
    }
    let host = spec.host;
    change(
        container,
        Box::new(move |record, _| {
            record.spec.host.resources = host.resources;
            record.spec.host.restart = host.restart;
            Ok(())
        }),
    )
    .await?;
    events::publish(engine, &container.now().record, "update", &[]);
    Ok(())
}

/// Docker's words for an input that led to nothing.
fn worded(denied: Denied, container: &ContainerHandle) -> Error {
    let id = container.id;
    let view = container.now();
    let name = &view.record.name;
    match denied {
        Denied::Refused(refusal) => match refusal {
            Refusal::NotRunning => words::not_running(id),
            Refusal::Paused => words::is_paused(id),
            Refusal::NotPaused => words::not_paused(id),
            Refusal::AlreadyPaused => words::already_paused(id),
            Refusal::StartPaused => words::start_paused(),
            Refusal::Restarting => words::is_restarting(id),
            Refusal::BeingRemoved => words::start_removing(),
            Refusal::RemovalInProgress => words::remove_in_progress(name),
            Refusal::RemoveRunning => words::remove_running(name),
            Refusal::RemovePaused => words::remove_paused(name),
            Refusal::RemoveRestarting => words::remove_restarting(name),
            Refusal::Gone => words::no_such_container(&id.to_string()),
        },
        Denied::StartFailed(failure) => Error::new(
            if failure.users_fault { Kind::Invalid } else { Kind::Internal },
            failure.message,
        ),
        Denied::Failed(error) => error,
        Denied::Stuck => words::not_ended(id),
        Denied::Gone => words::no_such_container(&id.to_string()),
    }
}

/// What a stop does to this container.
fn stopping(view: &View, options: &StopOptions, by: By) -> Result<Stopping> {
    let config = &view.record.spec.config;
    let signal = match (&options.signal, config.stop_signal.as_str()) {
        (Some(signal), _) if !signal.is_empty() => signals::parse(signal)?,
        (_, "") => signals::TERM,
        (_, own) => signals::parse(own)?,
    };
    let grace = match options.grace {
        Grace::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
        Grace::Forever => None,
        Grace::Default => match config.stop_timeout {
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            None => Some(GRACE_DEFAULT),
        },
    };
    Ok(Stopping { signal, grace, at: jiff::Timestamp::now(), by })
}

/// Stops containers at the same time, for the daemon's sake and not the user's.
async fn stop_each(containers: Vec<Arc<ContainerHandle>>, grace: Grace) {
    let options = StopOptions { signal: None, grace };
    let stops = containers.into_iter().filter_map(|container| {
        let how = stopping(&container.now(), &options, By::Daemon).ok()?;
        Some(tokio::spawn(async move {
            if let Err(denied) = submit(&container, Input::Stop(how), Until::Stopped).await {
                let error = worded(denied, &container);
                tracing::warn!(container = %container.id, error = chain(&error), "container not stopped");
            }
        }))
    });
    for stop in stops.collect::<Vec<_>>() {
        // A stop that panicked has said so itself.
        let _ = stop.await;
    }
}

impl Engine {
    /// The id that a text means.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for an ambiguous prefix.
    pub fn resolve_container(&self, asked: &str) -> Result<spec::Id> {
        Ok(self.inner.containers.resolve(asked)?.id)
    }

    pub(crate) fn container(&self, asked: &str) -> Result<Arc<ContainerHandle>> {
        self.inner.containers.resolve(asked)
    }

    /// Starts a container and returns once its program runs.
    ///
    /// # Errors
    /// With the words by which clients tell 125, 126 and 127 apart.
    pub async fn start_container(&self, asked: &str) -> Result<Outcome> {
        let container = self.container(asked)?;
        container.arrivals.settle().await;
        submit(&container, Input::Start, Until::Started)
            .await
            .map_err(|denied| worded(denied, &container))
    }

    /// Asks a container to end, and makes it end when its time is over.
    ///
    /// # Errors
    /// When it neither ended by itself nor could be killed.
    pub async fn stop_container(&self, asked: &str, options: StopOptions) -> Result<Outcome> {
        let container = self.container(asked)?;
        let how = stopping(&container.now(), &options, By::User)?;
        submit(&container, Input::Stop(how), Until::Stopped)
            .await
            .map_err(|denied| worded(denied, &container))
    }

    /// Stops everything that runs, all at once, for a daemon that does not leave containers behind.
    /// Restart policies see no user's stop in it.
    pub async fn stop_all(&self, grace: Grace) {
        stop_each(self.inner.containers.all(), grace).await;
    }

    /// Stops what an earlier daemon left running, for a daemon that leaves nothing running itself;
    /// then restart policies count, as after any start of a daemon.
    ///
    /// Source: moby `daemon/daemon.go`, `restore`.
    pub async fn end_earlier_runs(&self) {
        let found = {
            let mut found = self.inner.adopted.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *found)
        };
        let found: Vec<_> = found.iter().filter_map(std::sync::Weak::upgrade).collect();
        if found.is_empty() {
            return;
        }
        tracing::info!(count = found.len(), "stopping what an earlier daemon left running");
        stop_each(found.clone(), Grace::Default).await;
        for container in found {
            // One that removes itself at its end is gone by now.
            let _ = submit(&container, Input::DaemonStarted, Until::Taken).await;
        }
    }

    /// Stops and starts again.
    ///
    /// # Errors
    /// As stop and start.
    pub async fn restart_container(&self, asked: &str, options: StopOptions) -> Result<()> {
        let container = self.container(asked)?;
        let how = stopping(&container.now(), &options, By::User)?;
        submit(&container, Input::Restart(how), Until::Started).await.map_err(|denied| {
            worded(denied, &container).within(&format!("Cannot restart container {asked}"))
        })?;
        events::publish(&self.inner, &container.now().record, "restart", &[]);
        Ok(())
    }

    /// Sends a signal: name or number; `None` is KILL.
    ///
    /// # Errors
    /// `Conflict` when it does not run, `Invalid` for an unknown signal.
    pub async fn kill_container(&self, asked: &str, signal: Option<&str>) -> Result<()> {
        let killed = self.send_signal(asked, signal.unwrap_or_default()).await;
        killed.map_err(|error| words::cannot_kill(asked, error))
    }

    async fn send_signal(&self, asked: &str, signal: &str) -> Result<()> {
        let signal = match signal {
            "" => super::step::SIGKILL,
            text => signals::parse(text)?,
        };
        let container = self.container(asked)?;
        let view = container.now();
        let own = signals::parse(&view.record.spec.config.stop_signal).unwrap_or(signals::TERM);
        let ends = signal == super::step::SIGKILL || signal == own;
        submit(&container, Input::Kill { signal, ends }, Until::Taken)
            .await
            .map_err(|denied| worded(denied, &container))?;
        if signal == super::step::SIGKILL {
            // Docker answers a KILL once the container has ended.
            let waiter = Waiter {
                view: container.view.clone(),
                condition: WaitCondition::NextExit,
                exits: view.exits,
            };
            let _ = tokio::time::timeout(GRACE_DEFAULT, waiter.finished()).await;
        }
        Ok(())
    }

    /// # Errors
    /// `Conflict` when it does not run or is paused.
    pub async fn pause_container(&self, asked: &str) -> Result<()> {
        let container = self.container(asked)?;
        submit(&container, Input::Pause, Until::Taken)
            .await
            .map(drop)
            .map_err(|denied| worded(denied, &container))
    }

    /// # Errors
    /// `Internal`, as Docker has it, when it is not paused.
    pub async fn unpause_container(&self, asked: &str) -> Result<()> {
        let container = self.container(asked)?;
        submit(&container, Input::Unpause, Until::Taken)
            .await
            .map(drop)
            .map_err(|denied| worded(denied, &container))
    }

    /// # Errors
    /// `Conflict` when the name is taken, `Invalid` when it cannot be one.
    pub async fn rename_container(&self, asked: &str, name: &str) -> Result<()> {
        if name.is_empty() || asked.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        in_turn(self.container(asked)?, move |container, view| async move {
            rename(&inner, &container, &view, &name).await
        })
        .await
    }

    /// Changes limits and restart policy; returns warnings.
    ///
    /// # Errors
    /// `Invalid` for limits that cannot be, `Internal` when the kernel refuses them.
    pub async fn update_container(
        &self,
        asked: &str,
        mut request: UpdateRequest,
    ) -> Result<Vec<String>> {
        let kernel = crate::system::limit_support();
        let warnings = limits::verify(&mut request.resources, &kernel, Purpose::Update)?;
        let inner = Arc::clone(&self.inner);
        in_turn(self.container(asked)?, move |container, view| async move {
            update(&inner, &container, &view, request).await
        })
        .await?;
        Ok(warnings)
    }

    /// Removes a container, with `force` also a running one.
    ///
    /// # Errors
    /// `Conflict` when it runs or is being removed.
    pub async fn remove_container(&self, asked: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(asked).await;
        }
        let container = self.container(asked)?;
        let input = Input::Remove { force: options.force, volumes: options.volumes };
        match submit(&container, input, Until::Gone).await {
            Ok(_) => Ok(()),
            Err(denied) => Err(worded(denied, &container)),
        }
    }

    /// Removes all containers that do not run.
    ///
    /// # Errors
    /// `Conflict` when another prune runs.
    pub async fn prune_containers(&self, filters: Filters) -> Result<Pruned> {
        filters.only(&["label", "label!", "until"])?;
        let until = crate::times::until(&filters)?;
        let Ok(_one) = self.inner.pruning.try_lock() else { return Err(words::prune_running()) };
        let mut pruned = Pruned::default();
        for container in self.inner.containers.all() {
            let view = container.now();
            let old = until.is_none_or(|until| view.record.created_at < until);
            let stopped = matches!(
                view.phase,
                Phase::Created { .. } | Phase::Exited { .. } | Phase::Dead { .. }
            );
            if !stopped || !old || !filters.labels(&view.record.spec.config.labels) {
                continue;
            }
            let (engine, id) = (Arc::clone(&self.inner), container.id.to_string());
            let size = blocking(move || engine.store.snapshot_size(&id).unwrap_or(0)).await;
            // One that was started meanwhile is refused, and stays.
            let input = Input::Remove { force: false, volumes: false };
            if submit(&container, input, Until::Gone).await.is_ok() {
                pruned.ids.push(container.id.to_string());
                pruned.reclaimed += size;
            }
        }
        let attributes = std::collections::BTreeMap::from([(
            "reclaimed".to_owned(),
            pruned.reclaimed.to_string(),
        )]);
        self.inner.events.publish(super::task::EVENTS, "prune", "", attributes);
        Ok(pruned)
    }

    /// Starts waiting now; send the answer's headers, then await the [`Waiter`].
    ///
    /// # Errors
    /// `NotFound`.
    pub fn wait_container(&self, asked: &str, condition: WaitCondition) -> Result<Waiter> {
        let container = self.container(asked)?;
        let view = container.view.clone();
        let exits = view.borrow().exits;
        Ok(Waiter { view, condition, exits })
    }
}
