//! The life of a container as a pure function.
//!
//! ```text
//! Created ─start→ Starting ─started→ Running ⇄ Paused
//!    ↑ failed ┘      │                  │ stop, restart, rm -f
//!                    │                  ▼
//!                    └ (a wish) ──→ Stopping{then} ─exit→ Exited | Starting | Removing
//!                                       │ exit, policy says again
//! Exited ─start→ Starting            Backoff ─delay→ Starting
//! Created, Exited, Backoff, Dead ─remove→ Removing ─→ Gone, or Dead when it failed
//! ```
//!
//! [`step`] takes the phase, what happened and the policy, and says where to go and what to do
//! there. The container's task persists the new phase first and acts then, so every effect may be
//! done twice. Each phase says enough for a daemon that died in between: at its next start the
//! effects are done again at once ([`Input::DaemonStarted`]), and times go on from where they were.
//!
//! Invariants, tested below over every phase, input and policy: a live process is lost only to its
//! exit; nothing is torn down under a live process; spawning happens only into `Starting`; every
//! phase can reach `Gone`; a user's stop is not undone by the restart policy; the latest of stop and
//! restart wins.
//!
//! Elsewhere: what the effects do, in [`super::task`]; which inputs a restarted daemon feeds, in
//! [`super::reconcile`].

use std::time::Duration;

use jiff::Timestamp;

pub use super::phase::{Exit, Phase, Run, StartFailure, Tally, Then};
use super::spec::RestartPolicy;

/// First delay before an automatic restart; doubled each time up to [`DELAY_MAX`].
///
/// Source: moby `restartmanager/restartmanager.go`, as the other times here.
pub const DELAY_MIN: Duration = Duration::from_millis(100);
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// A run of this length starts the delays over.
const LONG_RUN: Duration = Duration::from_secs(10);
/// Source: moby `daemon/kill.go`: how long a KILL may take, and then a direct one.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
const KILL_AGAIN_PATIENCE: Duration = Duration::from_secs(2);

pub const SIGKILL: i32 = 9;

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping {
    pub signal: i32,
    /// `None` waits forever.
    pub grace: Option<Duration>,
    pub at: Timestamp,
    pub by: By,
}

/// Who wants a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    User,
    /// The daemon shuts down; the next one may start the container again.
    Daemon,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Start,
    Started {
        pid: i32,
        at: Timestamp,
    },
    StartFailed(StartFailure),
    Stop(Stopping),
    Restart(Stopping),
    /// `ends` says that this signal means "stop" to the container.
    Kill {
        signal: i32,
        ends: bool,
    },
    /// The signal of the latest step was sent.
    Signalled,
    Pause,
    Unpause,
    /// The process turned out to be (un)frozen: a freeze that failed, or another's doing.
    Thawed,
    Frozen,
    Oom,
    Exited(End),
    /// A timer of [`Effect::ArmKill`].
    GraceOver,
    /// A timer of [`Effect::ArmRestart`].
    DelayOver,
    Remove {
        force: bool,
        volumes: bool,
    },
    Removed,
    RemoveFailed(String),
    /// The daemon started and found no process.
    DaemonStarted,
}

/// The end of the process as the monitor tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub code: i32,
    pub oom: bool,
    pub at: Timestamp,
    pub error: String,
}

/// What the wish says about endings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub restart: RestartPolicy,
    pub auto_remove: bool,
}

/// What to do after the phase was persisted, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Spawn,
    Signal(i32),
    /// The direct way, past the monitor.
    KillDirectly,
    Freeze,
    Thaw,
    /// Feed [`Input::GraceOver`] after this time, unless the phase is left before.
    ArmKill(Duration),
    /// The same at this time.
    ArmKillAt(Timestamp),
    /// Feed [`Input::DelayOver`] after this time, unless the phase is left before.
    ArmRestart(Duration),
    /// The same at this time.
    ArmRestartAt(Timestamp),
    /// Give up what a run held: network, volumes, run directory, attached clients.
    CleanUp,
    Remove {
        volumes: bool,
    },
    /// Callers of stop learn that it did not work.
    ReportStuck,
    Tell(Tell),
}

/// An event to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    Start,
    Kill { signal: i32 },
    Stop,
    Die { code: i32, lasted: Duration },
    Oom,
    Pause,
    Unpause,
    Destroy,
}

/// Why an input is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotRunning,
    Paused,
    NotPaused,
    AlreadyPaused,
    StartPaused,
    Restarting,
    BeingRemoved,
    RemovalInProgress,
    RemoveRunning,
    RemovePaused,
    RemoveRestarting,
    Gone,
}

/// The answer of [`step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Go(Phase, Vec<Effect>),
    /// It is so already (304), or the news came too late to matter.
    Unchanged,
    Refused(Refusal),
}

use Effect::{
    ArmKill, ArmKillAt, ArmRestart, ArmRestartAt, CleanUp, Freeze, KillDirectly, ReportStuck,
    Signal, Spawn, Thaw,
};
use Verdict::{Go, Refused, Unchanged};

/// Decides what an input does in a phase. Pure.
#[must_use]
pub fn step(phase: &Phase, input: Input, policy: Policy) -> Verdict {
    match phase {
        Phase::Created { .. } => settled(None, input, policy),
        Phase::Exited { exit } => settled(Some(exit), input, policy),
        Phase::Starting { last, tally, after } => {
            starting(last.as_ref(), *tally, *after, input, policy)
        }
        Phase::Running { run } => running(*run, input, policy),
        Phase::Paused { run } => paused(*run, input, policy),
        Phase::Stopping { run, then, killed, until } => {
            stopping(*run, *then, (*killed, *until), input, policy)
        }
        Phase::Backoff { exit, tally } => backoff(exit, *tally, input),
        Phase::Removing { volumes } => removing(*volumes, input),
        Phase::Dead { volumes, .. } => dead(*volumes, input),
        Phase::Gone => Refused(Refusal::Gone),
    }
}

/// `Created` and `Exited`: no process, nothing pending.
fn settled(last: Option<&Exit>, input: Input, policy: Policy) -> Verdict {
    match input {
        Input::Start => start(last, Tally::default(), Vec::new()),
        Input::Restart(_) => start(last, Tally::default(), Vec::new()),
        Input::Stop(_) => Unchanged,
        Input::Kill { .. } | Input::Pause => Refused(Refusal::NotRunning),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Remove { volumes, .. } => remove(volumes),
        Input::DaemonStarted => match last {
            Some(exit) if again_after_daemon(exit, policy) => {
                start(last, Tally { restarts: exit.restarts, delay_ms: 0 }, Vec::new())
            }
            Some(_) if policy.auto_remove => remove(true),
            Some(_) | None => Unchanged,
        },
        Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Signalled
        | Input::Thawed
        | Input::Frozen
        | Input::Oom
        | Input::Exited(_)
        | Input::GraceOver
        | Input::DelayOver
        | Input::Removed
        | Input::RemoveFailed(_) => Unchanged,
    }
}

fn starting(
    last: Option<&Exit>,
    tally: Tally,
    after: Option<Then>,
    input: Input,
    policy: Policy,
) -> Verdict {
    let stay = |after, grace: Option<Duration>| {
        let phase = Phase::Starting { last: last.cloned(), tally, after: Some(after) };
        Go(phase, grace.map(ArmKill).into_iter().collect())
    };
    let doomed = matches!(after, Some(Then::Remove { .. }));
    match input {
        Input::Started { pid, at } => {
            let run = Run { pid, started_at: at, tally, by_user: false, oom: false, signal: None };
            let told = Effect::Tell(Tell::Start);
            match after {
                None => Go(Phase::Running { run }, vec![told]),
                Some(then) => {
                    let run = Run { by_user: true, signal: Some(SIGKILL), ..run };
                    let effects = vec![told, Signal(SIGKILL), ArmKill(KILL_PATIENCE)];
                    Go(Phase::Stopping { run, then, killed: 1, until: None }, effects)
                }
            }
        }
        Input::StartFailed(failure) => start_failed(last, tally, after, failure, policy),
        // The monitor vanished, or a daemon that had died finds nothing.
        Input::Exited(end) => {
            let failure = StartFailure { code: end.code, message: end.error, users_fault: false };
            start_failed(last, tally, after, failure, policy)
        }
        Input::Stop(_) | Input::Restart(_) if doomed => Refused(Refusal::BeingRemoved),
        Input::Stop(how) => stay(Then::Stay, how.grace),
        // It is starting anyway; an earlier wish to stop is withdrawn.
        Input::Restart(_) => {
            Go(Phase::Starting { last: last.cloned(), tally, after: None }, Vec::new())
        }
        Input::Remove { force: true, volumes } => {
            stay(Then::Remove { volumes }, Some(KILL_PATIENCE))
        }
        // A start that hangs is broken off, and fails by that.
        Input::GraceOver if after.is_some() => {
            Go(Phase::Starting { last: last.cloned(), tally, after }, vec![KillDirectly])
        }
        Input::Remove { force: false, .. } => Refused(Refusal::RemoveRunning),
        Input::Kill { .. } | Input::Pause => Refused(Refusal::NotRunning),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Start
        | Input::Signalled
        | Input::Thawed
        | Input::Frozen
        | Input::Oom
        | Input::GraceOver
        | Input::DelayOver
        | Input::Removed
        | Input::RemoveFailed(_)
        | Input::DaemonStarted => Unchanged,
    }
}

fn running(run: Run, input: Input, policy: Policy) -> Verdict {
    match input {
        Input::Signalled => Go(Phase::Running { run: Run { signal: None, ..run } }, Vec::new()),
        // A kill of a paused container thaws it, too.
        Input::DaemonStarted => match run.signal {
            Some(signal) => Go(Phase::Running { run }, vec![Signal(signal), Thaw]),
            None => Unchanged,
        },
        Input::Stop(how) => stop(run, Then::Stay, how),
        Input::Restart(how) => stop(run, Then::Start, how),
        Input::Kill { signal, ends } => kill(run, signal, ends, Vec::new()),
        Input::Pause => Go(Phase::Paused { run }, vec![Freeze, Effect::Tell(Tell::Pause)]),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Frozen => Go(Phase::Paused { run }, Vec::new()),
        Input::Oom => {
            Go(Phase::Running { run: Run { oom: true, ..run } }, vec![Effect::Tell(Tell::Oom)])
        }
        Input::Exited(end) => ended(run, Then::Stay, end, policy, false),
        Input::Remove { force: false, .. } => Refused(Refusal::RemoveRunning),
        Input::Remove { force: true, volumes } => kill_to_remove(run, volumes, Vec::new()),
        Input::Start
        | Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Thawed
        | Input::GraceOver
        | Input::DelayOver
        | Input::Removed
        | Input::RemoveFailed(_) => Unchanged,
    }
}

fn paused(run: Run, input: Input, policy: Policy) -> Verdict {
    match input {
        Input::Signalled => Go(Phase::Paused { run: Run { signal: None, ..run } }, Vec::new()),
        Input::DaemonStarted => match run.signal {
            Some(signal) => Go(Phase::Paused { run }, vec![Signal(signal)]),
            None => Unchanged,
        },
        Input::Unpause => Go(Phase::Running { run }, vec![Thaw, Effect::Tell(Tell::Unpause)]),
        Input::Thawed => Go(Phase::Running { run }, Vec::new()),
        Input::Pause => Refused(Refusal::AlreadyPaused),
        Input::Start => Refused(Refusal::StartPaused),
        Input::Stop(how) => thawed(stop(run, Then::Stay, how)),
        Input::Restart(how) => thawed(stop(run, Then::Start, how)),
        // A frozen process acts on no signal, so it is thawed when the signal means its end.
        Input::Kill { signal, ends: true } => kill(run, signal, true, vec![Thaw]),
        Input::Kill { signal, ends: false } => {
            let effects = vec![Signal(signal), Effect::Tell(Tell::Kill { signal })];
            Go(Phase::Paused { run: Run { signal: Some(signal), ..run } }, effects)
        }
        Input::Oom => {
            Go(Phase::Paused { run: Run { oom: true, ..run } }, vec![Effect::Tell(Tell::Oom)])
        }
        Input::Exited(end) => ended(run, Then::Stay, end, policy, false),
        Input::Remove { force: false, .. } => Refused(Refusal::RemovePaused),
        Input::Remove { force: true, volumes } => kill_to_remove(run, volumes, vec![Thaw]),
        Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Frozen
        | Input::GraceOver
        | Input::DelayOver
        | Input::Removed
        | Input::RemoveFailed(_) => Unchanged,
    }
}

fn stopping(
    run: Run,
    then: Then,
    (killed, until): (u8, Option<Timestamp>),
    input: Input,
    policy: Policy,
) -> Verdict {
    let doomed = matches!(then, Then::Remove { .. });
    let stay = |run, effects| Go(Phase::Stopping { run, then, killed, until }, effects);
    match input {
        Input::Exited(end) => ended(run, then, end, policy, true),
        Input::Signalled => stay(Run { signal: None, ..run }, Vec::new()),
        Input::GraceOver => {
            let signal = if killed == 0 { Some(SIGKILL) } else { run.signal };
            let effects = match killed {
                0 => vec![
                    Signal(SIGKILL),
                    Effect::Tell(Tell::Kill { signal: SIGKILL }),
                    ArmKill(KILL_PATIENCE),
                ],
                1 => vec![KillDirectly, ArmKill(KILL_AGAIN_PATIENCE)],
                _ => vec![ReportStuck],
            };
            let (run, killed) = (Run { signal, ..run }, killed.saturating_add(1));
            Go(Phase::Stopping { run, then, killed, until }, effects)
        }
        Input::Stop(_) | Input::Restart(_) if doomed => Refused(Refusal::BeingRemoved),
        Input::Stop(how) => stop_again(run, Then::Stay, killed, how),
        Input::Restart(how) => stop_again(run, Then::Start, killed, how),
        Input::Kill { signal, .. } => {
            let effects = vec![Signal(signal), Effect::Tell(Tell::Kill { signal })];
            stay(Run { signal: Some(signal), ..run }, effects)
        }
        Input::Remove { force: false, .. } => Refused(Refusal::RemoveRunning),
        Input::Remove { .. } if doomed => Refused(Refusal::RemovalInProgress),
        Input::Remove { force: true, volumes } => kill_to_remove(run, volumes, Vec::new()),
        Input::Oom => stay(Run { oom: true, ..run }, vec![Effect::Tell(Tell::Oom)]),
        // The daemon before may have recorded what it did not come to do, and its timer is gone.
        Input::DaemonStarted => {
            let again = if killed > 0 { Some(SIGKILL) } else { run.signal };
            let timer = match (killed, until) {
                (0, until) => until.map(ArmKillAt),
                (_, _) => Some(ArmKill(KILL_PATIENCE)),
            };
            let direct = (killed > 1).then_some(KillDirectly);
            let effects = again.map(Signal).into_iter().chain([Thaw]).chain(direct).chain(timer);
            stay(run, effects.collect())
        }
        Input::Pause => Refused(Refusal::NotRunning),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Start
        | Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Thawed
        | Input::Frozen
        | Input::DelayOver
        | Input::Removed
        | Input::RemoveFailed(_) => Unchanged,
    }
}

fn backoff(exit: &Exit, tally: Tally, input: Input) -> Verdict {
    let give_up = |told: Vec<Effect>| {
        Go(Phase::Exited { exit: Exit { by_user: true, ..exit.clone() } }, told)
    };
    match input {
        Input::DelayOver => {
            start(Some(exit), Tally { restarts: tally.restarts + 1, ..tally }, Vec::new())
        }
        Input::DaemonStarted => {
            let delay = Duration::from_millis(u64::from(tally.delay_ms));
            let due = exit.finished_at.saturating_add(delay).unwrap_or(exit.finished_at);
            Go(Phase::Backoff { exit: exit.clone(), tally }, vec![ArmRestartAt(due)])
        }
        Input::Stop(_) => give_up(vec![Effect::Tell(Tell::Stop)]),
        Input::Kill { .. } => give_up(Vec::new()),
        Input::Restart(_) => start(Some(exit), Tally::default(), Vec::new()),
        Input::Pause => Refused(Refusal::Restarting),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Remove { force: false, .. } => Refused(Refusal::RemoveRestarting),
        Input::Remove { force: true, volumes } => remove(volumes),
        Input::Start
        | Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Signalled
        | Input::Thawed
        | Input::Frozen
        | Input::Oom
        | Input::Exited(_)
        | Input::GraceOver
        | Input::Removed
        | Input::RemoveFailed(_) => Unchanged,
    }
}

fn removing(volumes: bool, input: Input) -> Verdict {
    match input {
        Input::Removed => Go(Phase::Gone, vec![Effect::Tell(Tell::Destroy)]),
        Input::RemoveFailed(reason) => Go(Phase::Dead { reason, volumes }, Vec::new()),
        // What an earlier daemon began is done again.
        Input::DaemonStarted => remove(volumes),
        Input::Start | Input::Restart(_) => Refused(Refusal::BeingRemoved),
        Input::Remove { .. } => Refused(Refusal::RemovalInProgress),
        Input::Kill { .. } | Input::Pause => Refused(Refusal::NotRunning),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Stop(_)
        | Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Signalled
        | Input::Thawed
        | Input::Frozen
        | Input::Oom
        | Input::Exited(_)
        | Input::GraceOver
        | Input::DelayOver => Unchanged,
    }
}

fn dead(volumes: bool, input: Input) -> Verdict {
    match input {
        Input::Remove { volumes: also, .. } => remove(volumes || also),
        Input::DaemonStarted => remove(volumes),
        Input::Start | Input::Restart(_) => Refused(Refusal::BeingRemoved),
        Input::Kill { .. } | Input::Pause => Refused(Refusal::NotRunning),
        Input::Unpause => Refused(Refusal::NotPaused),
        Input::Stop(_)
        | Input::Started { .. }
        | Input::StartFailed(_)
        | Input::Signalled
        | Input::Thawed
        | Input::Frozen
        | Input::Oom
        | Input::Exited(_)
        | Input::GraceOver
        | Input::DelayOver
        | Input::Removed
        | Input::RemoveFailed(_) => Unchanged,
    }
}

fn start(last: Option<&Exit>, tally: Tally, mut effects: Vec<Effect>) -> Verdict {
    effects.push(Spawn);
    Go(Phase::Starting { last: last.cloned(), tally, after: None }, effects)
}

fn remove(volumes: bool) -> Verdict {
    Go(Phase::Removing { volumes }, vec![Effect::Remove { volumes }])
}

fn start_failed(
    last: Option<&Exit>,
    tally: Tally,
    after: Option<Then>,
    failure: StartFailure,
    policy: Policy,
) -> Verdict {
    let mut effects = vec![CleanUp];
    let volumes = match after {
        Some(Then::Remove { volumes }) => Some(volumes),
        Some(Then::Stay | Then::Start) | None => policy.auto_remove.then_some(true),
    };
    if let Some(volumes) = volumes {
        effects.push(Effect::Remove { volumes });
        return Go(Phase::Removing { volumes }, effects);
    }
    let phase = match last {
        None => Phase::Created { failure: Some(failure) },
        Some(exit) => {
            let exit = Exit {
                code: failure.code,
                error: failure.message,
                by_user: after.is_some(),
                restarts: tally.restarts,
                ..exit.clone()
            };
            Phase::Exited { exit }
        }
    };
    Go(phase, effects)
}

fn stop(run: Run, then: Then, how: Stopping) -> Verdict {
    let by_user = run.by_user || how.by == By::User;
    let run = Run { by_user, signal: Some(how.signal), ..run };
    let until = how.grace.map(|grace| how.at.saturating_add(grace).unwrap_or(Timestamp::MAX));
    let mut effects = vec![Signal(how.signal), Effect::Tell(Tell::Kill { signal: how.signal })];
    effects.extend(how.grace.map(ArmKill));
    Go(Phase::Stopping { run, then, killed: 0, until }, effects)
}

/// Another stop or restart while it ends already: the later one decides what follows, and may
/// shorten the wait.
fn stop_again(run: Run, then: Then, killed: u8, how: Stopping) -> Verdict {
    if killed > 0 {
        return Go(Phase::Stopping { run, then, killed, until: None }, Vec::new());
    }
    stop(run, then, how)
}

fn thawed(verdict: Verdict) -> Verdict {
    match verdict {
        Go(phase, mut effects) => {
            // After the signal is queued, so that the process acts on it first of all.
            effects.insert(1.min(effects.len()), Thaw);
            Go(phase, effects)
        }
        Unchanged | Refused(_) => verdict,
    }
}

fn kill(run: Run, signal: i32, ends: bool, more: Vec<Effect>) -> Verdict {
    let run = Run { by_user: run.by_user || ends, signal: Some(signal), ..run };
    let mut effects = vec![Signal(signal)];
    effects.extend(more);
    effects.push(Effect::Tell(Tell::Kill { signal }));
    Go(Phase::Running { run }, effects)
}

fn kill_to_remove(run: Run, volumes: bool, more: Vec<Effect>) -> Verdict {
    let run = Run { by_user: true, signal: Some(SIGKILL), ..run };
    let mut effects = vec![Signal(SIGKILL)];
    effects.extend(more);
    effects.extend([Effect::Tell(Tell::Kill { signal: SIGKILL }), ArmKill(KILL_PATIENCE)]);
    let then = Then::Remove { volumes };
    Go(Phase::Stopping { run, then, killed: 1, until: None }, effects)
}

/// The process is gone: what now? `asked` tells whether a stop led here.
fn ended(run: Run, then: Then, end: End, policy: Policy, asked: bool) -> Verdict {
    let lasted = lasted(run.started_at, end.at);
    let exit = Exit {
        code: end.code,
        oom: end.oom || run.oom,
        started_at: run.started_at,
        finished_at: end.at,
        error: end.error,
        by_user: run.by_user,
        restarts: run.tally.restarts,
    };
    let mut effects = Vec::new();
    if exit.oom && !run.oom {
        effects.push(Effect::Tell(Tell::Oom));
    }
    effects.extend([Effect::Tell(Tell::Die { code: exit.code, lasted }), CleanUp]);
    match then {
        Then::Remove { volumes } => {
            effects.push(Effect::Remove { volumes });
            Go(Phase::Removing { volumes }, effects)
        }
        Then::Start => {
            effects.push(Effect::Tell(Tell::Stop));
            start(Some(&exit), Tally::default(), effects)
        }
        Then::Stay => {
            if asked {
                effects.push(Effect::Tell(Tell::Stop));
            }
            let tally = if asked { None } else { again(&exit, run.tally, lasted, policy.restart) };
            if let Some(tally) = tally {
                effects.push(ArmRestart(Duration::from_millis(u64::from(tally.delay_ms))));
                return Go(Phase::Backoff { exit, tally }, effects);
            }
            if policy.auto_remove {
                effects.push(Effect::Remove { volumes: true });
                return Go(Phase::Removing { volumes: true }, effects);
            }
            Go(Phase::Exited { exit }, effects)
        }
    }
}

/// Whether the policy starts it again, and the next delay if so.
fn again(exit: &Exit, tally: Tally, lasted: Duration, restart: RestartPolicy) -> Option<Tally> {
    if exit.by_user {
        return None;
    }
    let wanted = match restart {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { retries } => {
            exit.code != 0 && (retries == 0 || tally.restarts < retries)
        }
    };
    let delay = if tally.delay_ms == 0 || lasted >= LONG_RUN {
        DELAY_MIN
    } else {
        (Duration::from_millis(u64::from(tally.delay_ms)) * 2).min(DELAY_MAX)
    };
    let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
    wanted.then_some(Tally { restarts: tally.restarts, delay_ms })
}

/// The same question after the daemon itself was started.
fn again_after_daemon(exit: &Exit, policy: Policy) -> bool {
    match policy.restart {
        RestartPolicy::No => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !exit.by_user,
        RestartPolicy::OnFailure { retries } => {
            !exit.by_user && exit.code != 0 && (retries == 0 || exit.restarts < retries)
        }
    }
}

fn lasted(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "step_recovery_tests.rs"]
mod recovery_tests;
