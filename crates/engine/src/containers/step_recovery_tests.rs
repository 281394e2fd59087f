//! A daemon that dies between any two effects of any step.
//!
//! [`World`] stands for the kernel and the monitor: a process that ends only by a signal that
//! reached it, thawed; what a run holds; timers, which go with the daemon. Nothing is fed to the
//! state machine but what a fresh daemon sees there, so an effect that recovery forgets shows as a
//! container that never gets where it was told to go.

use proptest::prelude::*;

use super::super::reconcile::{Observed, reconcile};
use super::*;

const NO: Policy = Policy { restart: RestartPolicy::No, auto_remove: false };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

#[derive(Debug, Clone)]
struct World {
    phase: Phase,
    policy: Policy,
    alive: bool,
    frozen: bool,
    /// Signals that reached the process and that it has not acted on yet.
    queued: Vec<i32>,
    /// The monitor tells, or its record does.
    ended: bool,
    /// Of a run: networks, run directory.
    held: bool,
    directory: bool,
    timer: Option<Input>,
    ignores_term: bool,
}

impl World {
    fn new(policy: Policy, ignores_term: bool) -> World {
        World {
            phase: Phase::Created { failure: None },
            policy,
            alive: false,
            frozen: false,
            queued: Vec::new(),
            ended: false,
            held: false,
            directory: true,
            timer: None,
            ignores_term,
        }
    }

    /// One step as the task makes it; false when the daemon died after `effects` of them.
    fn feed(&mut self, input: Input, mut effects_left: Option<usize>) -> bool {
        let Go(next, effects) = step(&self.phase, input, self.policy) else { return true };
        if std::mem::discriminant(&next) != std::mem::discriminant(&self.phase) {
            self.timer = None;
        }
        self.phase = next;
        for effect in effects {
            match &mut effects_left {
                Some(0) => return false,
                Some(left) => *left -= 1,
                None => {}
            }
            self.perform(effect);
        }
        if effects_left == Some(0) {
            return false;
        }
        if self.phase.run().is_some_and(|run| run.signal.is_some())
            && let Go(next, _) = step(&self.phase, Input::Signalled, self.policy)
        {
            self.phase = next;
        }
        true
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Spawn => {
                (self.alive, self.held, self.frozen, self.ended) = (true, true, false, false);
                self.queued.clear();
            }
            Signal(signal) => self.queued.push(signal),
            KillDirectly => {
                self.queued.push(SIGKILL);
                self.frozen = false;
            }
            Freeze => self.frozen = self.alive,
            Thaw => self.frozen = false,
            ArmKill(_) | ArmKillAt(_) => self.timer = Some(Input::GraceOver),
            ArmRestart(_) | ArmRestartAt(_) => self.timer = Some(Input::DelayOver),
            CleanUp => {
                assert!(!self.alive, "nothing is taken from a live process");
                self.held = false;
            }
            Effect::Remove { .. } => self.directory = false,
            ReportStuck | Effect::Tell(_) => {}
        }
    }

    /// What happens by itself: signals are acted on, starts and ends are told, times run out.
    fn passes(&mut self) -> bool {
        if self.alive && !self.frozen {
            let deadly = |signal: &i32| *signal == SIGKILL || (*signal == 15 && !self.ignores_term);
            if self.queued.iter().any(deadly) {
                (self.alive, self.ended) = (false, true);
                return true;
            }
            self.queued.clear();
        }
        let input = match &self.phase {
            Phase::Starting { .. } if self.alive => Input::Started { pid: 7, at: at(0) },
            Phase::Removing { .. } if !self.directory => Input::Removed,
            phase if phase.run().is_some() && self.ended => {
                self.ended = false;
                Input::Exited(End { code: 137, oom: false, at: at(1), error: String::new() })
            }
            _ => match self.timer.take() {
                Some(input) => input,
                None => return false,
            },
        };
        self.feed(input, None)
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.passes() {
                return;
            }
        }
        panic!("never at rest: {self:?}");
    }

    /// The daemon is gone, and another one looks.
    fn restart(&mut self) {
        self.timer = None;
        let observed = if self.alive {
            Observed::Alive { pid: 7, started_at: at(0), frozen: self.frozen }
        } else if self.ended && (self.phase.run().is_some() || self.held) {
            Observed::Ended(End { code: 137, oom: false, at: at(1), error: String::new() })
        } else {
            Observed::Nothing
        };
        if self.phase.run().is_none() && !matches!(self.phase, Phase::Starting { .. }) {
            // As `observe` does for phases at rest.
            self.held = false;
        }
        let inputs = reconcile(&self.phase, &observed);
        self.ended &= self.alive;
        for input in inputs {
            self.feed(input, None);
        }
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(NO),
        Just(Policy { auto_remove: true, ..NO }),
        Just(Policy { restart: RestartPolicy::UnlessStopped, ..NO }),
    ]
}

/// What a user may ask for, in the order in which it is asked.
fn wishes() -> impl Strategy<Value = Vec<Input>> {
    let how = Stopping {
        signal: 15,
        grace: Some(Duration::from_secs(10)),
        at: Timestamp::UNIX_EPOCH,
        by: By::User,
    };
    let wish = prop_oneof![
        Just(Input::Start),
        Just(Input::Stop(how)),
        Just(Input::Restart(how)),
        Just(Input::Pause),
        Just(Input::Unpause),
        Just(Input::Kill { signal: SIGKILL, ends: true }),
        Just(Input::Kill { signal: 15, ends: true }),
        Just(Input::Kill { signal: 1, ends: false }),
        Just(Input::Remove { force: true, volumes: false }),
    ];
    proptest::collection::vec(wish, 0..4)
}

/// Whether a container is where this phase leads, with the world as the phase says.
fn check(world: &World, written: &Phase) -> Result<(), TestCaseError> {
    let phase = &world.phase;
    prop_assert_eq!(world.alive, phase.run().is_some(), "{:?}", world);
    prop_assert_eq!(world.held, world.alive, "{:?}", world);
    prop_assert!(!matches!(phase, Phase::Starting { .. } | Phase::Stopping { .. }), "{:?}", phase);
    prop_assert_eq!(world.frozen, matches!(phase, Phase::Paused { .. }), "{:?}", world);
    match written {
        Phase::Stopping { then: Then::Stay, .. } => prop_assert!(!world.alive),
        Phase::Stopping { then: Then::Start, .. } | Phase::Backoff { .. } => {
            prop_assert!(world.alive)
        }
        Phase::Stopping { then: Then::Remove { .. }, .. } | Phase::Removing { .. } => {
            prop_assert_eq!(phase, &Phase::Gone)
        }
        Phase::Running { run } if run.signal == Some(SIGKILL) => {
            let again = run.started_at;
            prop_assert!(!world.alive || world.policy.restart != RestartPolicy::No, "{again}")
        }
        Phase::Running { run } if run.signal == Some(15) => {
            prop_assert!(!world.alive || world.ignores_term)
        }
        Phase::Created { .. }
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Paused { .. }
        | Phase::Exited { .. }
        | Phase::Dead { .. }
        | Phase::Gone => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_done_by_the_next_daemon(
        before in wishes(), last in wishes(), crash in 0..6_usize, again in 0..3_usize,
        ignores_term in any::<bool>(), policy in policies(),
    ) {
        let mut world = World::new(policy, ignores_term);
        world.feed(Input::Start, None);
        world.settle();
        for wish in before {
            world.feed(wish, None);
            world.settle();
        }
        let Some(wish) = last.into_iter().next() else { return Ok(()) };
        if world.feed(wish, Some(crash)) {
            return Ok(());
        }
        let written = world.phase.clone();
        // A daemon that dies again at once must not be what keeps the effects from being done.
        for _ in 0..=again {
            world.restart();
        }
        world.settle();
        check(&world, &written)?;
    }
}

#[test]
fn a_kill_that_was_only_written_is_sent_by_the_next_daemon() {
    for wish in [
        Input::Remove { force: true, volumes: false },
        Input::Kill { signal: SIGKILL, ends: true },
        Input::Stop(Stopping { signal: 15, grace: None, at: Timestamp::UNIX_EPOCH, by: By::User }),
    ] {
        let mut world = World::new(NO, false);
        world.feed(Input::Start, None);
        world.settle();
        assert!(!world.feed(wish.clone(), Some(0)), "the daemon dies right after writing");
        world.restart();
        assert!(!world.queued.is_empty(), "{wish:?} is not sent again: {world:?}");
        world.settle();
        assert!(!world.alive, "{world:?}");
    }
}

#[test]
fn a_grace_that_is_over_is_over_for_the_next_daemon() {
    let run = Run {
        pid: 7,
        started_at: at(0),
        tally: Tally::default(),
        by_user: true,
        oom: false,
        signal: None,
    };
    let stopping = |until| Phase::Stopping { run, then: Then::Stay, killed: 0, until };
    let effects = |phase: &Phase| match step(phase, Input::DaemonStarted, NO) {
        Go(_, effects) => effects,
        other => panic!("{other:?}"),
    };
    assert_eq!(effects(&stopping(Some(at(3)))), [Thaw, ArmKillAt(at(3))]);
    assert_eq!(effects(&stopping(None)), [Thaw], "whoever waits for ever kills never");
    // A record of a version that did not know the time.
    let text = serde_json::to_string(&stopping(None)).unwrap().replace(",\"until\":null", "");
    let old: Phase = serde_json::from_str(&text).unwrap();
    assert_eq!(effects(&old), [Thaw, ArmKillAt(Timestamp::UNIX_EPOCH)]);
}
