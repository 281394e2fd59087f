//! Further processes in containers: created, started, ended. Kept in memory, and found again after
//! a daemon restart through the monitors' own memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use monitor::wire::ExecState;
use spec::Id;
use tokio::sync::oneshot;

use super::views::{ExecSpec, ExecView};

/// How many execs of one container are remembered.
const KEPT_MAX: usize = 256;

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
    Created,
    Starting,
    Running { pid: i32, since: Instant },
    Ended { code: i32, pid: i32, at: Instant },
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an exec; the oldest ended one goes when there are many.
    pub(crate) fn insert(&self, id: Id, spec: ExecSpec) {
        let mut entries = self.lock();
        let ended = |entry: &Entry| match entry.state {
            ExecPhase::Ended { at, .. } => Some(at),
            ExecPhase::Created | ExecPhase::Starting | ExecPhase::Running { .. } => None,
        };
        if entries.len() >= KEPT_MAX {
            let oldest = entries.iter().filter_map(|(id, entry)| Some((ended(entry)?, *id))).min();
            if let Some((_, oldest)) = oldest {
                entries.remove(&oldest);
            }
        }
        entries.insert(id, Entry { spec, state: ExecPhase::Created });
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Entry> {
        self.lock().get(id).cloned()
    }

    /// Moves a created exec to `Starting`; false when it was started before.
    pub(crate) fn claim(&self, id: &Id) -> bool {
        match self.lock().get_mut(id) {
            Some(entry) if entry.state == ExecPhase::Created => {
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
            ExecPhase::Created | ExecPhase::Ended { .. } => false,
        })
    }

    /// Notes the start, unless the end was heard of first.
    pub(crate) fn started(&self, id: &Id, pid: i32) {
        if let Some(entry) = self.lock().get_mut(id)
            && !matches!(entry.state, ExecPhase::Ended { .. })
        {
            entry.state = ExecPhase::Running { pid, since: Instant::now() };
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

    /// Notes the end; gives the time it ran.
    pub(crate) fn ended(&self, id: &Id, code: i32) -> Option<std::time::Duration> {
        let mut entries = self.lock();
        let entry = entries.get_mut(id)?;
        let (pid, lasted) = match entry.state {
            ExecPhase::Running { pid, since } => (pid, since.elapsed()),
            ExecPhase::Created | ExecPhase::Starting => (0, std::time::Duration::ZERO),
            ExecPhase::Ended { .. } => return None,
        };
        entry.state = ExecPhase::Ended { code, pid, at: Instant::now() };
        drop(entries);
        if let Some(listener) =
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
        {
            // One that stopped waiting has given the exec up.
            let _ = listener.send(code);
        }
        Some(lasted)
    }

    /// The container ended, and with it all that ran in it.
    pub(crate) fn all_ended(&self) {
        for entry in self.lock().values_mut() {
            if let ExecPhase::Running { pid, .. } = entry.state {
                entry.state = ExecPhase::Ended { code: 137, pid, at: Instant::now() };
            }
        }
    }

    /// Takes over what a monitor of an earlier daemon remembers.
    pub(crate) fn adopt(&self, found: &[ExecState]) {
        let mut entries = self.lock();
        for exec in found {
            let state = match exec.exit_code {
                None => ExecPhase::Running { pid: exec.pid, since: Instant::now() },
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
        let mut matches = entries.keys().filter(|id| id.to_string().starts_with(asked));
        match (matches.next(), matches.next()) {
            (Some(id), None) => Some(*id),
            (Some(_) | None, _) => None,
        }
    }

    pub(crate) fn view(&self, container: Id, id: &Id) -> Option<ExecView> {
        let entry = self.get(id)?;
        let (running, exit_code, pid) = match entry.state {
            ExecPhase::Created | ExecPhase::Starting => (false, None, 0),
            ExecPhase::Running { pid, .. } => (true, None, pid),
            ExecPhase::Ended { code, pid, .. } => (false, Some(code), pid),
        };
        let pid = u32::try_from(pid).unwrap_or(0);
        Some(ExecView {
            id: *id,
            container,
            spec: entry.spec,
            running,
            exit_code,
            pid,
            can_remove: false,
        })
    }
}
