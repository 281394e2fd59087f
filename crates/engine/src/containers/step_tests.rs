//! The state machine under any sequence of inputs.

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn run() -> Run {
    let tally = Tally::default();
    Run { pid: 42, started_at: at(0), tally, by_user: false, oom: false, signal: None }
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        oom: false,
        started_at: at(0),
        finished_at: at(1),
        error: String::new(),
        by_user: false,
        restarts: 0,
    }
}

fn end(code: i32) -> Input {
    Input::Exited(End { code, oom: false, at: at(1), error: String::new() })
}

const HOW: Stopping = Stopping {
    signal: 15,
    grace: Some(Duration::from_secs(10)),
    at: Timestamp::UNIX_EPOCH,
    by: By::User,
};

fn policy(restart: RestartPolicy) -> Policy {
    Policy { restart, auto_remove: false }
}

fn tallies() -> impl Strategy<Value = Tally> {
    (0..5_u32, prop_oneof![Just(0), Just(100), Just(60_000)])
        .prop_map(|(restarts, delay_ms)| Tally { restarts, delay_ms })
}

fn runs() -> impl Strategy<Value = Run> {
    let signal = prop_oneof![Just(None), Just(Some(1)), Just(Some(9))];
    (tallies(), any::<bool>(), any::<bool>(), signal)
        .prop_map(|(tally, by_user, oom, signal)| Run { tally, by_user, oom, signal, ..run() })
}

fn exits() -> impl Strategy<Value = Exit> {
    (0..3, any::<bool>(), 0..5_u32).prop_map(|(code, by_user, restarts)| Exit {
        by_user,
        restarts,
        ..exit(code)
    })
}

fn thens() -> impl Strategy<Value = Then> {
    prop_oneof![
        Just(Then::Stay),
        Just(Then::Start),
        any::<bool>().prop_map(|volumes| Then::Remove { volumes })
    ]
}

fn failure() -> StartFailure {
    StartFailure { code: 127, message: "no".to_owned(), users_fault: true }
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![
        any::<bool>().prop_map(|failed| Phase::Created { failure: failed.then(failure) }),
        (proptest::option::of(exits()), tallies(), proptest::option::of(thens()))
            .prop_map(|(last, tally, after)| Phase::Starting { last, tally, after }),
        runs().prop_map(|run| Phase::Running { run }),
        runs().prop_map(|run| Phase::Paused { run }),
        (runs(), thens(), 0..4_u8).prop_map(|(run, then, killed)| Phase::Stopping {
            run: Run { by_user: true, ..run },
            then,
            killed,
            until: Some(at(10)),
        }),
        exits().prop_map(|exit| Phase::Exited { exit }),
        (exits(), tallies()).prop_map(|(exit, tally)| Phase::Backoff {
            exit: Exit { by_user: false, ..exit },
            tally
        }),
        any::<bool>().prop_map(|volumes| Phase::Removing { volumes }),
        any::<bool>().prop_map(|volumes| Phase::Dead { reason: "busy".to_owned(), volumes }),
        Just(Phase::Gone),
    ]
}

fn inputs() -> impl Strategy<Value = Input> {
    let how = prop_oneof![Just(HOW), Just(Stopping { grace: None, ..HOW })];
    prop_oneof![
        Just(Input::Start),
        Just(Input::Started { pid: 7, at: at(0) }),
        Just(Input::StartFailed(failure())),
        how.clone().prop_map(Input::Stop),
        how.prop_map(Input::Restart),
        (prop_oneof![Just(1), Just(9), Just(15)], any::<bool>())
            .prop_map(|(signal, ends)| Input::Kill { signal, ends }),
        Just(Input::Signalled),
        Just(Input::Pause),
        Just(Input::Unpause),
        Just(Input::Thawed),
        Just(Input::Frozen),
        Just(Input::Oom),
        (0..3).prop_map(end),
        Just(Input::GraceOver),
        Just(Input::DelayOver),
        (any::<bool>(), any::<bool>())
            .prop_map(|(force, volumes)| Input::Remove { force, volumes }),
        Just(Input::Removed),
        Just(Input::RemoveFailed("busy".to_owned())),
        Just(Input::DaemonStarted),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(policy(RestartPolicy::No)),
        Just(Policy { restart: RestartPolicy::No, auto_remove: true }),
        Just(policy(RestartPolicy::Always)),
        Just(policy(RestartPolicy::UnlessStopped)),
        (0..3_u32).prop_map(|retries| policy(RestartPolicy::OnFailure { retries })),
    ]
}

fn live(phase: &Phase) -> bool {
    phase.run().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_live_process_is_lost_only_to_its_exit(phase in phases(), input in inputs(), policy in policies()) {
        let exited = matches!(input, Input::Exited(_));
        if let Go(next, _) = step(&phase, input, policy)
            && live(&phase)
            && !exited
        {
            prop_assert!(live(&next), "{phase:?} → {next:?}");
            prop_assert_eq!(phase.run().unwrap().pid, next.run().unwrap().pid);
        }
    }

    #[test]
    fn nothing_is_torn_down_under_a_live_process(phase in phases(), input in inputs(), policy in policies()) {
        if let Go(next, effects) = step(&phase, input, policy) && live(&next) {
            let torn = effects.iter().any(|effect| matches!(effect, CleanUp | Effect::Remove { .. }));
            prop_assert!(!torn, "{phase:?} → {next:?} {effects:?}");
        }
    }

    #[test]
    fn spawning_happens_only_into_starting(phase in phases(), input in inputs(), policy in policies()) {
        if let Go(next, effects) = step(&phase, input, policy) {
            let spawns = effects.iter().filter(|effect| **effect == Spawn).count();
            prop_assert!(spawns <= 1);
            if spawns == 1 {
                let written_ahead = matches!(next, Phase::Starting { .. });
                prop_assert!(written_ahead);
                prop_assert!(!matches!(phase, Phase::Starting { .. }), "one start at a time");
            }
        }
    }

    #[test]
    fn every_phase_can_reach_gone(phase in phases(), policy in policies()) {
        let mut phase = phase;
        for _ in 0..6 {
            for input in [
                Input::Remove { force: true, volumes: true },
                Input::Started { pid: 7, at: at(0) },
                end(137),
                Input::Removed,
            ] {
                if let Go(next, _) = step(&phase, input, policy) {
                    phase = next;
                }
            }
        }
        prop_assert_eq!(phase, Phase::Gone);
    }

    #[test]
    fn a_users_stop_is_not_undone_by_the_policy(phase in phases(), code in 0..3, policy in policies()) {
        if !matches!(phase, Phase::Running { .. } | Phase::Paused { .. } | Phase::Backoff { .. } | Phase::Stopping { .. }) {
            return Ok(());
        }
        let Go(stopping, _) = step(&phase, Input::Stop(HOW), policy) else { return Ok(()) };
        let settled = match step(&stopping, end(code), policy) {
            Go(next, _) => next,
            Unchanged | Refused(_) => stopping,
        };
        let done = matches!(settled, Phase::Exited { .. } | Phase::Removing { .. });
        prop_assert!(done, "{settled:?}");
        for input in [Input::DelayOver, Input::GraceOver] {
            let verdict = step(&settled, input, policy);
            let again = matches!(&verdict, Go(_, effects) if effects.contains(&Spawn));
            prop_assert!(!again, "{verdict:?}");
        }
    }

    #[test]
    fn the_latest_of_stop_and_restart_wins(run in runs(), wishes in proptest::collection::vec(any::<bool>(), 1..6)) {
        let mut phase = Phase::Running { run };
        for restart in &wishes {
            let input = if *restart { Input::Restart(HOW) } else { Input::Stop(HOW) };
            if let Go(next, _) = step(&phase, input, policy(RestartPolicy::No)) {
                phase = next;
            }
        }
        let Go(next, _) = step(&phase, end(0), policy(RestartPolicy::No)) else { panic!("an exit counts") };
        prop_assert_eq!(matches!(next, Phase::Starting { .. }), *wishes.last().unwrap());
    }

    #[test]
    fn a_phase_survives_its_record(phase in phases()) {
        let text = serde_json::to_string(&phase).unwrap();
        prop_assert_eq!(serde_json::from_str::<Phase>(&text).unwrap(), phase);
    }
}

#[track_caller]
fn check(phase: &Phase, input: Input, policy: Policy, want: expect_test::Expect) {
    let text = match step(phase, input, policy) {
        Go(next, effects) => format!("{next:?} {effects:?}"),
        Unchanged => "unchanged".to_owned(),
        Refused(why) => format!("refused: {why:?}"),
    };
    want.assert_eq(&text);
}

#[test]
fn a_forced_stop_tells_kill_kill_die_stop() {
    let mut told = Vec::new();
    let mut phase = Phase::Running { run: run() };
    for input in [Input::Stop(HOW), Input::GraceOver, end(137)] {
        let Go(next, effects) = step(&phase, input, policy(RestartPolicy::Always)) else {
            panic!("goes")
        };
        told.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Tell(tell) => Some(tell),
            _ => None,
        }));
        phase = next;
    }
    let want = [
        Tell::Kill { signal: 15 },
        Tell::Kill { signal: 9 },
        Tell::Die { code: 137, lasted: Duration::from_secs(1) },
        Tell::Stop,
    ];
    assert_eq!(told, want);
    assert!(matches!(phase, Phase::Exited { .. }));
}

#[test]
fn delays_double_up_to_a_minute_and_start_over_after_a_long_run() {
    let mut delays = Vec::new();
    let mut tally = Tally::default();
    for _ in 0..12 {
        tally = again(&exit(1), tally, Duration::from_secs(1), RestartPolicy::Always).unwrap();
        delays.push(tally.delay_ms);
    }
    assert_eq!(delays[..4], [100, 200, 400, 800]);
    assert_eq!(delays[11], 60_000);
    let after = again(&exit(1), tally, Duration::from_secs(10), RestartPolicy::Always).unwrap();
    assert_eq!(after.delay_ms, 100);
}

#[test]
fn on_failure_counts_its_retries() {
    let tally = Tally { restarts: 2, delay_ms: 100 };
    let policy = RestartPolicy::OnFailure { retries: 2 };
    assert_eq!(again(&exit(1), tally, Duration::ZERO, policy), None);
    assert_eq!(again(&exit(0), Tally::default(), Duration::ZERO, policy), None);
    assert!(again(&exit(1), Tally::default(), Duration::ZERO, policy).is_some());
}

#[test]
fn after_a_daemon_restart_always_starts_what_was_stopped_by_hand() {
    let stopped = Phase::Exited { exit: Exit { by_user: true, ..exit(0) } };
    let spawns = |restart| matches!(step(&stopped, Input::DaemonStarted, policy(restart)), Go(..));
    assert!(spawns(RestartPolicy::Always));
    assert!(!spawns(RestartPolicy::UnlessStopped));
    assert!(!spawns(RestartPolicy::No));
}

#[test]
fn a_daemons_stop_is_no_users_stop() {
    let unless = policy(RestartPolicy::UnlessStopped);
    let how = Stopping { by: By::Daemon, ..HOW };
    let Go(stopping, _) = step(&Phase::Running { run: run() }, Input::Stop(how), unless) else {
        panic!("goes")
    };
    let Go(exited, _) = step(&stopping, end(143), unless) else { panic!("goes") };
    assert!(matches!(exited, Phase::Exited { .. }), "not before the next daemon");
    assert!(matches!(step(&exited, Input::DaemonStarted, unless), Go(Phase::Starting { .. }, _)));
}

#[test]
fn an_auto_removed_container_goes_away_with_its_process_and_with_a_failed_start() {
    let policy = Policy { restart: RestartPolicy::No, auto_remove: true };
    check(
        &Phase::Running { run: run() },
        end(0),
        policy,
        expect_test::expect![[
            "Removing { volumes: true } [Tell(Die { code: 0, lasted: 1s }), CleanUp, Remove { volumes: true }]"
        ]],
    );
    let starting = Phase::Starting { last: None, tally: Tally::default(), after: None };
    check(
        &starting,
        Input::StartFailed(failure()),
        policy,
        expect_test::expect![["Removing { volumes: true } [CleanUp, Remove { volumes: true }]"]],
    );
}

#[test]
fn what_docker_refuses_is_refused() {
    let none = policy(RestartPolicy::No);
    let created = Phase::Created { failure: None };
    check(
        &created,
        Input::Kill { signal: 9, ends: true },
        none,
        expect_test::expect!["refused: NotRunning"],
    );
    check(&created, Input::Stop(HOW), none, expect_test::expect!["unchanged"]);
    let running = Phase::Running { run: run() };
    check(&running, Input::Start, none, expect_test::expect!["unchanged"]);
    check(&running, Input::Unpause, none, expect_test::expect!["refused: NotPaused"]);
    let plain = Input::Remove { force: false, volumes: false };
    check(&running, plain.clone(), none, expect_test::expect!["refused: RemoveRunning"]);
    let paused = Phase::Paused { run: run() };
    check(&paused, Input::Pause, none, expect_test::expect!["refused: AlreadyPaused"]);
    check(&paused, plain.clone(), none, expect_test::expect!["refused: RemovePaused"]);
    check(
        &Phase::Removing { volumes: false },
        plain,
        none,
        expect_test::expect!["refused: RemovalInProgress"],
    );
}
