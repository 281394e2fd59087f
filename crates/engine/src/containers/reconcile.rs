//! What a starting daemon makes of what it finds.
//!
//! The order of truth is: the kernel and the monitor, then the exit record, then the record. The
//! pure [`reconcile`] turns a recorded phase and an observation into ordinary inputs for the task,
//! so there is no second way to restore a container.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use runs::{ExitRecord, State};
use tracing::{info, warn};

use super::record::{LIFE_FILE, Life, RECORD_FILE, Record};
use super::registry::ContainerHandle;
use super::step::{End, Input, Phase, Run, StartFailure};
use super::task::{self, Adopted, Message};
use super::{cgroups, cleanup, records};
use crate::Inner;
use crate::blocking::blocking;
use crate::disk;
use crate::error::{Error, Kind, Result, chain};

/// What is so, whatever the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// A monitor answers and its process runs.
    Alive { pid: i32, started_at: Timestamp, frozen: bool },
    /// A monitor is there that does not answer.
    Silent { frozen: bool },
    /// No monitor, but the record of an end.
    Ended(End),
    /// Neither.
    Nothing,
}

/// The inputs that bring a recorded phase up to what is observed. Pure.
#[must_use]
pub fn reconcile(phase: &Phase, observed: &Observed) -> Vec<Input> {
    let thaw_state = |frozen: bool| match (frozen, phase) {
        (true, Phase::Running { .. }) => Some(Input::Frozen),
        (false, Phase::Paused { .. }) => Some(Input::Thawed),
        (true | false, _) => None,
    };
    match (phase, observed) {
        (Phase::Starting { .. }, Observed::Alive { pid, started_at, .. }) => {
            vec![Input::Started { pid: *pid, at: *started_at }]
        }
        // A signal that was recorded is sent; what it meets is thawed for it, if it ends by it.
        (
            Phase::Running { run: Run { signal: Some(_), .. } },
            Observed::Alive { .. } | Observed::Silent { .. },
        ) => vec![Input::DaemonStarted],
        (
            Phase::Running { .. } | Phase::Paused { .. },
            Observed::Alive { frozen, .. } | Observed::Silent { frozen },
        ) => thaw_state(*frozen).into_iter().chain([Input::DaemonStarted]).collect(),
        // Its timer went with the daemon that sent the signal, or was about to.
        (Phase::Stopping { .. }, Observed::Alive { .. } | Observed::Silent { .. }) => {
            vec![Input::DaemonStarted]
        }
        // Its monitor may yet say that it runs.
        (Phase::Starting { .. }, Observed::Silent { .. }) => Vec::new(),
        (Phase::Starting { .. }, Observed::Ended(end)) => {
            vec![Input::Started { pid: 0, at: end.at }, Input::Exited(end.clone())]
        }
        (Phase::Starting { .. }, Observed::Nothing) => {
            let failure = StartFailure {
                code: 128,
                message: "the daemon ended while the container was starting".to_owned(),
                users_fault: false,
            };
            vec![Input::StartFailed(failure), Input::DaemonStarted]
        }
        (
            Phase::Running { .. } | Phase::Paused { .. } | Phase::Stopping { .. },
            Observed::Ended(end),
        ) => {
            vec![Input::Exited(end.clone())]
        }
        // The host was restarted, or somebody killed the monitor.
        (
            Phase::Running { .. } | Phase::Paused { .. } | Phase::Stopping { .. },
            Observed::Nothing,
        ) => {
            let end = End { code: 255, oom: false, at: Timestamp::now(), error: String::new() };
            vec![Input::Exited(end)]
        }
        (
            Phase::Created { .. }
            | Phase::Exited { .. }
            | Phase::Backoff { .. }
            | Phase::Removing { .. }
            | Phase::Dead { .. }
            | Phase::Gone,
            Observed::Alive { .. }
            | Observed::Silent { .. }
            | Observed::Ended(_)
            | Observed::Nothing,
        ) => vec![Input::DaemonStarted],
    }
}

/// A container as it was found.
pub(crate) struct Found {
    pub record: Record,
    pub life: Life,
    inputs: Vec<Input>,
    adopted: Option<Adopted>,
    monitor: Asked,
}

impl Found {
    /// The life as it is recorded, the run if there is one, and what is to be done.
    pub(crate) fn into_parts(self) -> (Life, Option<Adopted>, Vec<Input>) {
        (self.life, self.adopted, self.inputs)
    }
}

/// What became of the question to a monitor.
#[derive(Debug)]
enum Asked {
    /// There is none.
    Nobody,
    Answered(State),
    /// It is there and says nothing. Its container is believed to be as recorded.
    Silent,
}

/// Looks at all containers on disk. Directories without a record are what a crash left of a
/// creation or a removal; they are removed.
pub(crate) async fn look(engine: &Arc<Inner>) -> Result<Vec<Found>> {
    let root = engine.config.data_root.join("containers");
    disk::make_dir(&root)?;
    let unreadable = |source| Error::caused(Kind::Internal, source);
    let records = store::records::load_dir::<Record>(&root, RECORD_FILE).map_err(unreadable)?;
    // All at the same time: one that hangs may cost its own container's answer, nobody else's.
    let mut looks = Vec::with_capacity(records.len());
    let mut known = BTreeSet::new();
    for (name, mut record) in records {
        record.spec.settle_old_networks();
        if record.id.to_string() != name {
            warn!(directory = name, "container record of another id");
            continue;
        }
        known.insert(name);
        let path = engine.config.container_dir(&record.id).join(LIFE_FILE);
        let life = store::records::read_json::<Life>(&path).map_err(unreadable)?;
        let life = life.unwrap_or_else(|| Life::new(Phase::Created { failure: None }, None));
        let engine = Arc::clone(engine);
        looks.push(tokio::spawn(async move { observe(&engine, record, life).await }));
    }
    let mut found = Vec::with_capacity(looks.len());
    for look in looks {
        found.push(look.await.map_err(|source| {
            Error::because(Kind::Internal, "cannot look at the containers", source)
        })?);
    }
    sweep(engine, &root, &known);
    sweep_runs(engine, &known);
    Ok(found)
}

pub(crate) async fn observe(engine: &Arc<Inner>, record: Record, life: Life) -> Found {
    let run_dir = engine.config.run_dir(&record.id);
    let mut found =
        Found { record, life, inputs: Vec::new(), adopted: None, monitor: Asked::Nobody };
    let mut observed = Observed::Nothing;
    match runs::Run::find(found.record.id, &run_dir) {
        Ok(Some(runs::Found { run, notices })) => {
            observed = ask(engine, &mut found, &run).await;
            if observed != Observed::Nothing || matches!(found.monitor, Asked::Silent) {
                found.adopted = Some(Adopted { supervised: run, notices });
            }
        }
        Err(error) => {
            warn!(container = %found.record.id, error = chain(&error), "monitor not heard")
        }
        // Nobody listens: there is no monitor.
        Ok(None) => {}
    }
    if observed == Observed::Nothing
        && let Some(end) = records::exit_record(engine, &found.record.id, found.life.phase.run())
    {
        observed = Observed::Ended(end_of(&end));
        found.adopted = None;
    }
    if let (Observed::Nothing, Asked::Silent) = (&observed, &found.monitor) {
        if let (Some(adopted), Some(run)) = (&found.adopted, found.life.phase.run())
            && let Some(process) = cgroups::process_of(engine, &found.record, run.pid)
        {
            adopted.supervised.believe(process);
        }
        let frozen = cgroups::cgroup(engine, &found.record).is_frozen().unwrap_or(false);
        observed = Observed::Silent { frozen };
    }
    if observed == Observed::Nothing && found.life.phase.run().is_some() {
        cgroups::kill_group(engine, &Arc::new(found.record.clone())).await;
    }
    let at_rest = at_rest(&found.life.phase);
    if at_rest && let (Asked::Silent, Some(adopted)) = (&found.monitor, found.adopted.take()) {
        // What it had to tell is recorded.
        adopted.supervised.end_supervisor(Duration::ZERO);
    }
    if at_rest && found.adopted.is_none() {
        // An end is recorded before it is cleaned up after, and the daemon may have died between.
        found.life.attachment = None;
        let (engine, id) = (Arc::clone(engine), found.record.clone());
        blocking(move || cleanup::remove_run(&engine, &id)).await;
    }
    found.inputs = reconcile(&found.life.phase, &observed);
    info!(container = %found.record.id, alive = found.adopted.is_some(), "container found");
    found
}

/// No process, so nothing that a run holds.
fn at_rest(phase: &Phase) -> bool {
    match phase {
        Phase::Created { .. } | Phase::Exited { .. } | Phase::Backoff { .. } => true,
        Phase::Removing { .. } | Phase::Dead { .. } | Phase::Gone => true,
        Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Paused { .. }
        | Phase::Stopping { .. } => false,
    }
}

/// Asks a monitor how its container is.
async fn ask(engine: &Arc<Inner>, found: &mut Found, run: &runs::Run) -> Observed {
    match run.state().await {
        Ok(state) => {
            let main = state.main;
            found.monitor = Asked::Answered(state);
            let Some(main) = main else {
                // It waits for somebody to have recorded the end, which its record tells.
                run.hang_up();
                return Observed::Nothing;
            };
            let frozen = cgroups::cgroup(engine, &found.record).is_frozen().unwrap_or(false);
            Observed::Alive { pid: main.pid, started_at: main.started_at, frozen }
        }
        Err(error) => {
            warn!(container = %found.record.id, error = chain(&error), "monitor does not answer");
            if run.is_silent() {
                found.monitor = Asked::Silent;
            }
            Observed::Nothing
        }
    }
}

fn end_of(record: &ExitRecord) -> End {
    End {
        code: record.exit_code,
        oom: record.oom_killed,
        at: record.finished_at,
        error: record.error.clone().unwrap_or_default(),
    }
}

/// Gives every found container its task.
pub(crate) fn adopt(engine: &Arc<Inner>, found: Vec<Found>) {
    for Found { mut record, life, inputs, adopted, monitor } in found {
        match engine.containers.reserve(Some(&record.name), &record.id) {
            Ok(_) => {}
            Err(error) => {
                warn!(container = %record.id, error = chain(&error), "name lost to another container");
                record.name = crate::names::make_up(&record.id, |_| true);
            }
        }
        let (live, pid) = (adopted.is_some(), life.phase.run().map(|run| run.pid));
        let supervised = adopted.as_ref().map(|adopted| Arc::clone(&adopted.supervised));
        let container = task::launch(engine, record, life, adopted, inputs);
        if live {
            let mut all = engine.adopted.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Arc::downgrade(&container));
        }
        match (monitor, supervised) {
            (Asked::Answered(state), _) => container.execs.adopt(&state.execs),
            (Asked::Silent, Some(run)) => drop(tokio::spawn(look_after(container.clone(), run))),
            (Asked::Nobody | Asked::Silent, _) => {}
        }
        tracing::debug!(container = %container.id, live, pid, "container adopted");
    }
}

/// Waits for a monitor that did not answer, and catches up on what it knows.
async fn look_after(container: Arc<ContainerHandle>, run: Arc<runs::Run>) {
    while run.speaks().await {
        if let Ok(state) = run.state().await {
            container.execs.adopt(&state.execs);
            // A container that is gone needs no news.
            let _ = container.inbox.send(Message::Known(state));
            return;
        }
    }
}

/// Removes what belongs to no container: half-made directories and their snapshots.
fn sweep(engine: &Inner, root: &Path, known: &BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if known.contains(&name) || entry.path().join(RECORD_FILE).exists() {
            continue;
        }
        info!(directory = name, "removing what is left of an unfinished container");
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(directory = name, error = chain(&error), "not removed");
        }
    }
    for id in engine.store.snapshots() {
        let container = id.parse::<spec::Id>().is_ok();
        if container
            && !known.contains(&id)
            && let Err(error) = engine.store.snapshot_remove(&id)
        {
            warn!(snapshot = id, error = chain(&error), "snapshot not removed");
        }
    }
}

/// Ends what ran for nobody that is known: steps of builds whose daemon died.
fn sweep_runs(engine: &Inner, known: &BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(engine.config.exec_root.join("containers")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !known.contains(*name)) else { continue };
        let Ok(id) = name.parse::<spec::Id>() else { continue };
        info!(step = name, "ending what an earlier daemon left running");
        crate::builds::clean_up(engine, &id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::step::Tally;
    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_second(1).unwrap()
    }

    fn run() -> Run {
        let tally = Tally::default();
        Run { pid: 7, started_at: at(), tally, by_user: false, oom: false, signal: None }
    }

    fn end() -> End {
        End { code: 3, oom: false, at: at(), error: String::new() }
    }

    #[track_caller]
    fn check(phase: &Phase, observed: &Observed, want: &[Input]) {
        assert_eq!(reconcile(phase, observed), want, "{phase:?} {observed:?}");
    }

    #[test]
    fn what_is_so_wins_over_what_is_recorded() {
        let alive = Observed::Alive { pid: 7, started_at: at(), frozen: false };
        let frozen = Observed::Alive { pid: 7, started_at: at(), frozen: true };
        let running = Phase::Running { run: run() };
        check(&running, &alive, &[Input::DaemonStarted]);
        check(&running, &frozen, &[Input::Frozen, Input::DaemonStarted]);
        check(&running, &Observed::Silent { frozen: false }, &[Input::DaemonStarted]);
        let paused = Phase::Paused { run: run() };
        check(&paused, &alive, &[Input::Thawed, Input::DaemonStarted]);
        let killed = Phase::Running { run: Run { signal: Some(9), ..run() } };
        check(&killed, &frozen, &[Input::DaemonStarted]);
        check(&Phase::Running { run: run() }, &Observed::Ended(end()), &[Input::Exited(end())]);
        let starting = Phase::Starting { last: None, tally: Tally::default(), after: None };
        check(&starting, &alive, &[Input::Started { pid: 7, at: at() }]);
        check(&starting, &Observed::Silent { frozen: false }, &[]);
        check(&Phase::Created { failure: None }, &Observed::Nothing, &[Input::DaemonStarted]);
    }
}
