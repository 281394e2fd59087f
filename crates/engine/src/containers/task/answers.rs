//! When those who asked for something are answered.

use super::super::step::Phase;
use super::super::views::Outcome;
use super::{Denied, Task, Until};
use crate::error::Error;

impl Task {
    /// Answers those whose time has come.
    pub(super) fn answer_waiting(&mut self) {
        let mut still = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match self.settled(waiting.until) {
                Some(answer) => drop(waiting.reply.send(answer)),
                None => still.push(waiting),
            }
        }
        self.waiting = still;
    }

    fn settled(&self, until: Until) -> Option<std::result::Result<Outcome, Denied>> {
        let done = Some(Ok(Outcome::Done));
        match (until, &self.phase) {
            (Until::Taken, _) => done,
            (Until::Started, Phase::Starting { .. }) => None,
            (Until::Started, Phase::Running { .. } | Phase::Paused { .. }) => done,
            // On its way to a new start, or started and told to stop at once.
            (Until::Started, Phase::Stopping { .. } | Phase::Backoff { .. }) => match &self.failure
            {
                Some(failure) => Some(Err(Denied::StartFailed(failure.clone()))),
                None if matches!(self.phase, Phase::Backoff { .. }) => done,
                None => None,
            },
            (
                Until::Started,
                Phase::Created { .. }
                | Phase::Exited { .. }
                | Phase::Removing { .. }
                | Phase::Dead { .. }
                | Phase::Gone,
            ) => match &self.failure {
                Some(failure) => Some(Err(Denied::StartFailed(failure.clone()))),
                None => done,
            },
            (Until::Stopped, Phase::Starting { after: Some(_), .. } | Phase::Stopping { .. }) => {
                None
            }
            (
                Until::Stopped,
                Phase::Created { .. }
                | Phase::Starting { .. }
                | Phase::Running { .. }
                | Phase::Paused { .. }
                | Phase::Exited { .. }
                | Phase::Backoff { .. }
                | Phase::Removing { .. }
                | Phase::Dead { .. }
                | Phase::Gone,
            ) => done,
            (Until::Gone, Phase::Gone) => done,
            (Until::Gone, Phase::Dead { reason, .. }) => {
                Some(Err(Denied::Failed(Error::internal(reason.clone()))))
            }
            (
                Until::Gone,
                Phase::Created { .. }
                | Phase::Starting { .. }
                | Phase::Running { .. }
                | Phase::Paused { .. }
                | Phase::Stopping { .. }
                | Phase::Exited { .. }
                | Phase::Backoff { .. }
                | Phase::Removing { .. },
            ) => None,
        }
    }

    pub(super) fn fail_stops(&mut self) {
        let (stuck, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| {
                matches!(waiting.until, Until::Stopped | Until::Gone | Until::Started)
            });
        self.waiting = rest;
        for waiting in stuck {
            let _ = waiting.reply.send(Err(Denied::Stuck));
        }
    }
}
