//! Further processes in containers: created, started, ended. Kept in memory, and found again after
//! a daemon restart through the monitors' own memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runs::ExecState;
use spec::Id;
use tokio::sync::oneshot;

use super::views::{ExecSpec, ExecView};

/// How many execs of one container are remembered: beyond it the oldest ended one goes, else the
/// oldest that nobody started.
const KEPT_MAX: usize = 256;
/// How long one that ended can be asked for, and when it counts as one that may be removed.
///
/// Source: moby `daemon/exec.go`, `execCommandGC`: it looks every five minutes and removes what was
/// ended when it looked last.
const ENDED_MAX: Duration = Duration::from_secs(600);
const REMOVABLE_AFTER: Duration = Duration::from_secs(300);

/// The execs of one container.
#[derive(Default)]
pub(crate) struct Execs {
    entries: Mutex<BTreeMap<Id, Entry>>,
    /// Who wants to hear of an end.
    listeners: Mutex<BTreeMap<Id, oneshot::Sender<i32>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub spec: ExecSpec,
    pub state: ExecPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecPhase {
    Created { at: Instant },
    Starting,
    Running { pid: i32 },
    Ended { code: i32, pid: i32, at: Instant },
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an exec.
    pub(crate) fn insert(&self, id: Id, spec: ExecSpec) {
        let mut entries = self.lock();
        entries.retain(|_, entry| !entry.is_past());
        if entries.len() >= KEPT_MAX {
            let idle = entries.iter().filter_map(|(id, entry)| Some((entry.idle()?, *id)));
            if let Some((_, oldest)) = idle.min() {
                entries.remove(&oldest);
            }
        }
        entries.insert(id, Entry { spec, state: ExecPhase::Created { at: Instant::now() } });
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Entry> {
        self.lock().get(id).filter(|entry| !entry.is_past()).cloned()
    }

    /// Moves a created exec to `Starting`; false when it was started before.
    pub(crate) fn claim(&self, id: &Id) -> bool {
        match self.lock().get_mut(id) {
            Some(entry) if matches!(entry.state, ExecPhase::Created { .. }) => {
                entry.state = ExecPhase::Starting;
                true
            }
            Some(_) | None => false,
        }
    }

    /// It was started, and no end of it has been heard of.
    pub(crate) fn is_under_way(&self, id: &Id) -> bool {
        self.get(id).is_some_and(|entry| match entry.state {
            ExecPhase::Starting | ExecPhase::Running { .. } => true,
            ExecPhase::Created { .. } | ExecPhase::Ended { .. } => false,
        })
    }

    /// Notes the start, unless the end was heard of first.
    pub(crate) fn started(&self, id: &Id, pid: i32) {
        if let Some(entry) = self.lock().get_mut(id)
            && !matches!(entry.state, ExecPhase::Ended { .. })
        {
            entry.state = ExecPhase::Running { pid };
        }
    }

    /// The exit code of an exec, once it has ended.
    pub(crate) fn on_end(&self, id: &Id) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, sender);
        receiver
    }

    /// Forgets an exec that nobody can ask for.
    pub(crate) fn remove(&self, id: &Id) {
        self.lock().remove(id);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Notes the end; false when it is known already, or nobody knows the exec.
    pub(crate) fn ended(&self, id: &Id, code: i32) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(id) else { return false };
        let pid = match entry.state {
            ExecPhase::Running { pid } => pid,
            ExecPhase::Created { .. } | ExecPhase::Starting => 0,
            ExecPhase::Ended { .. } => return false,
        };
        entry.state = ExecPhase::Ended { code, pid, at: Instant::now() };
        drop(entries);
        if let Some(listener) =
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
        {
            // One that stopped waiting has given the exec up.
            let _ = listener.send(code);
        }
        true
    }

    /// The container's run ended, and with it all that ran in it; what was to run in it is gone.
    ///
    /// Source: moby `daemon/start.go`, `Cleanup`.
    pub(crate) fn run_ended(&self) {
        let mut entries = self.lock();
        entries.retain(|_, entry| !matches!(entry.state, ExecPhase::Created { .. }));
        for entry in entries.values_mut() {
            if let ExecPhase::Running { pid } = entry.state {
                entry.state = ExecPhase::Ended { code: 137, pid, at: Instant::now() };
            }
        }
    }

    /// Takes over what a monitor of an earlier daemon remembers.
    pub(crate) fn adopt(&self, found: &[ExecState]) {
        let mut entries = self.lock();
        for exec in found {
            let state = match exec.exit_code {
                None => ExecPhase::Running { pid: exec.pid },
                Some(code) => ExecPhase::Ended { code, pid: exec.pid, at: Instant::now() },
            };
            entries.insert(exec.exec, Entry { spec: ExecSpec::default(), state });
        }
    }

    /// Ids of those that have not ended.
    pub(crate) fn live(&self) -> Vec<Id> {
        let entries = self.lock();
        let live =
            entries.iter().filter(|(_, entry)| !matches!(entry.state, ExecPhase::Ended { .. }));
        live.map(|(id, _)| *id).collect()
    }

    pub(crate) fn find(&self, asked: &str) -> Option<Id> {
        let entries = self.lock();
        let mut matches = entries.iter().filter(|(id, _)| id.to_string().starts_with(asked));
        match (matches.next(), matches.next()) {
            (Some((id, entry)), None) if !entry.is_past() => Some(*id),
            (Some(_) | None, _) => None,
        }
    }

    pub(crate) fn view(&self, container: Id, id: &Id) -> Option<ExecView> {
        let entry = self.get(id)?;
        let (running, exit_code, pid) = match entry.state {
            ExecPhase::Created { .. } | ExecPhase::Starting => (false, None, 0),
            ExecPhase::Running { pid } => (true, None, pid),
            ExecPhase::Ended { code, pid, .. } => (false, Some(code), pid),
        };
        let pid = u32::try_from(pid).unwrap_or(0);
        let can_remove = entry.ended().is_some_and(|at| at.elapsed() >= REMOVABLE_AFTER);
        Some(ExecView { id: *id, container, spec: entry.spec, running, exit_code, pid, can_remove })
    }
}

impl Entry {
    fn ended(&self) -> Option<Instant> {
        match self.state {
            ExecPhase::Ended { at, .. } => Some(at),
            ExecPhase::Created { .. } | ExecPhase::Starting | ExecPhase::Running { .. } => None,
        }
    }

    /// It ended so long ago that it counts as forgotten.
    fn is_past(&self) -> bool {
        self.ended().is_some_and(|at| at.elapsed() >= ENDED_MAX)
    }

    /// Since when it does nothing: how an entry to give up is chosen. Those that ended come first.
    fn idle(&self) -> Option<(bool, Instant)> {
        match self.state {
            ExecPhase::Ended { at, .. } => Some((false, at)),
            ExecPhase::Created { at } => Some((true, at)),
            ExecPhase::Starting | ExecPhase::Running { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_started_goes_with_the_run_and_what_ended_stays() {
        let execs = Execs::default();
        let [created, running, ended] = [(); 3].map(|()| Id::random());
        for id in [created, running, ended] {
            execs.insert(id, ExecSpec::default());
        }
        execs.started(&running, 7);
        execs.ended(&ended, 3);
        execs.run_ended();
        let code = |id| execs.view(id, &id).map(|view| (view.running, view.exit_code));
        assert_eq!(code(created), None);
        assert_eq!(code(running), Some((false, Some(137))));
        assert_eq!(code(ended), Some((false, Some(3))));
    }

    #[test]
    fn execs_that_nobody_starts_are_bounded() {
        let execs = Execs::default();
        let ids: Vec<Id> = (0..KEPT_MAX + 10).map(|_| Id::random()).collect();
        for id in &ids {
            execs.insert(*id, ExecSpec::default());
        }
        assert_eq!(execs.live().len(), KEPT_MAX);
        let newest = ids.last().unwrap();
        assert_eq!(execs.find(&newest.to_string()), Some(*newest));
        assert_eq!(execs.find(&ids[0].to_string()), None);
    }
}
