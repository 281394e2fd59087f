//! Health checks: when a probe runs, and what its result makes of a container's health.
//!
//! One prober runs beside each running container that has a check. It sends results to the
//! container's task, which alone publishes health. The judgement is pure ([`judge`]).
//!
//! Source: moby `daemon/health.go`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runs::{AttachOptions, Framing, Target};
use serde::{Deserialize, Serialize};
use spec::Id;
use spec::image::{Config, Healthcheck};
use spec::units::format_duration;
use store::records::Durability;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::attach::{exec_plan, tell_exec};
use super::registry::ContainerHandle;
use super::step::{Phase, SIGKILL};
use super::task::{Message, View};
use super::views::{ExecSpec, HealthResult, HealthStatus, HealthView};
use crate::error::{Error, Kind, Result};
use crate::{Engine, Inner};

const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const START_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
const RETRIES_DEFAULT: i64 = 3;
/// How long a probe that was killed may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How many results are kept, and how much of each one's output.
const RESULTS_MAX: usize = 5;
const OUTPUT_BYTES_MAX: usize = 4096;

/// A check with all its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub argv: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

impl Check {
    /// The check of a merged configuration; none for `NONE` and for an empty test.
    #[must_use]
    pub fn find(config: &Config) -> Option<Self> {
        let health: &Healthcheck = config.healthcheck.as_ref()?;
        let (kind, words) = health.test.split_first()?;
        let argv = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let default = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = if config.shell.is_empty() { &default[..] } else { &config.shell };
                shell.iter().chain(words.first()).cloned().collect()
            }
            _ => return None,
        };
        let time = |nanos: i64, default| match u64::try_from(nanos) {
            Ok(0) | Err(_) => default,
            Ok(nanos) => Duration::from_nanos(nanos),
        };
        let retries = if health.retries == 0 { RETRIES_DEFAULT } else { health.retries };
        (!argv.is_empty()).then(|| Self {
            argv,
            interval: time(health.interval, INTERVAL_DEFAULT),
            timeout: time(health.timeout, TIMEOUT_DEFAULT),
            start_period: time(health.start_period, Duration::ZERO),
            start_interval: time(health.start_interval, START_INTERVAL_DEFAULT),
            retries: u32::try_from(retries).unwrap_or(u32::MAX),
        })
    }
}

/// Health before the first result.
#[must_use]
pub fn starting() -> HealthView {
    HealthView { status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() }
}

/// Beside the run's other files, so that health outlives the daemon but not the host.
const HEALTH_FILE: &str = "health.json";

/// A run's health as it is kept: which run, by its start, and how it is.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    began: SystemTime,
    health: T,
}

/// Keeps the health of a run that began then. Losing it makes a later daemon begin anew.
pub(crate) fn keep(engine: &Inner, id: &Id, began: SystemTime, health: &HealthView) {
    let path = engine.config.run_dir(id).join(HEALTH_FILE);
    let kept = Kept { began, health };
    if let Err(error) = engine.store.records().write_json(&path, &kept, Durability::Lazy) {
        tracing::warn!(container = %id, error = crate::error::chain(&error), "health not kept");
    }
}

/// The health of a run that an earlier daemon watched, else that of one that begins.
pub(crate) fn resume(engine: &Inner, id: &Id, began: SystemTime) -> HealthView {
    let path = engine.config.run_dir(id).join(HEALTH_FILE);
    let kept = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    match kept {
        Some(Kept { began: known, health }) if known == began => health,
        Some(_) | None => starting(),
    }
}

/// What a result makes of the health so far. A failure within the start period does not count while
/// nothing has succeeded yet.
#[must_use]
pub fn judge(
    now: &HealthView,
    check: &Check,
    began: SystemTime,
    result: HealthResult,
) -> HealthView {
    let mut next = now.clone();
    let grace = next.status == HealthStatus::Starting
        && result.start.duration_since(began).unwrap_or_default() < check.start_period;
    if result.exit_code == 0 {
        next.failing_streak = 0;
        next.status = HealthStatus::Healthy;
    } else if !grace {
        next.failing_streak += 1;
        if next.failing_streak >= check.retries {
            next.status = HealthStatus::Unhealthy;
        }
    }
    next.log.push(result);
    if next.log.len() > RESULTS_MAX {
        next.log.remove(0);
    }
    next
}

/// How long until the next probe. A run whose health is not told yet is only just starting.
fn pause(status: Option<HealthStatus>, since: Duration, check: &Check) -> Duration {
    let starting = status.is_none_or(|status| status == HealthStatus::Starting);
    if starting && since < check.start_period { check.start_interval } else { check.interval }
}

/// Probes for as long as the container runs. To be aborted at its end.
pub(crate) async fn probe_forever(
    engine: Arc<Inner>,
    container: Arc<ContainerHandle>,
    check: Check,
    began: SystemTime,
) {
    loop {
        let status = container.now().health.as_ref().map(|health| health.status);
        let since = SystemTime::now().duration_since(began).unwrap_or_default();
        tokio::time::sleep(pause(status, since, &check)).await;
        let view = container.now();
        let (Phase::Running { .. }, Some(run)) = (&view.phase, &view.supervised) else { continue };
        let start = SystemTime::now();
        let (exit_code, output) = match probe(&engine, &container, &view, run, &check).await {
            Ok(outcome) => outcome,
            Err(error) => (-1, error.message),
        };
        let result = HealthResult { start, end: SystemTime::now(), exit_code, output };
        // When to probe next depends on what this result makes of the health.
        let (noted, known) = oneshot::channel();
        let message = Message::Probed { result, check: check.clone(), began, noted };
        if container.inbox.send(message).is_err() || known.await.is_err() {
            return;
        }
    }
}

/// Runs one probe to its end or its time limit.
async fn probe(
    engine: &Arc<Inner>,
    container: &ContainerHandle,
    view: &View,
    run: &runs::Run,
    check: &Check,
) -> Result<(i32, String)> {
    let engine = Engine { inner: Arc::clone(engine) };
    let spec = ExecSpec {
        argv: check.argv.clone(),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecSpec::default()
    };
    let exec = Id::random();
    let failed = |source| Error::because(Kind::Internal, "cannot run the health check", source);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let mut ours = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
    let plan = exec_plan(&engine, view, &spec, exec)?;
    container.execs.insert(exec, spec);
    let mut ended = container.execs.on_end(&exec);
    for action in ["exec_create", "exec_start"] {
        tell_exec(&engine.inner, &view.record, action, &exec, &check.argv);
    }
    let started = start_probe(&engine, run, plan, theirs.into(), container).await;
    if let Err(error) = started {
        container.execs.remove(&exec);
        return Err(error);
    }
    let mut output = Output::default();
    let whole = async {
        output.read(&mut ours).await;
        (&mut ended).await.unwrap_or(-1)
    };
    let outcome = match tokio::time::timeout(check.timeout, whole).await {
        Ok(code) => (code, output.text()),
        Err(_) => {
            // One that ended at this very moment needs no signal.
            let _gone = run.signal(Target::Exec(exec), SIGKILL).await;
            // Dying probes must not pile up.
            let _ = tokio::time::timeout(KILL_PATIENCE, ended).await;
            (-1, exceeded(check.timeout, &output.text()))
        }
    };
    container.execs.remove(&exec);
    Ok(outcome)
}

/// Starts the probe's process, whose output comes unframed.
async fn start_probe(
    engine: &Engine,
    run: &runs::Run,
    plan: runs::ExecPlan,
    client: OwnedFd,
    container: &ContainerHandle,
) -> Result<()> {
    let options = AttachOptions {
        stdin: false,
        stdout: true,
        stderr: true,
        detach_keys: Vec::new(),
        framing: Framing::Raw,
        prelude: Vec::new(),
    };
    match run.exec(&engine.inner.launchers, plan, true).await? {
        Ok(started) => {
            container.execs.started(&started.exec, started.pid);
            Ok(run.adopt(started, Some((options, client.as_fd()))).await?)
        }
        Err(refusal) => Err(Error::internal(refusal.message)),
    }
}

/// What a probe says, of which only the beginning is kept.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    cut: bool,
}

impl Output {
    /// Reads to the end, or as far as it comes.
    async fn read(&mut self, socket: &mut tokio::net::UnixStream) {
        let mut buffer = vec![0; OUTPUT_BYTES_MAX];
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            let room = OUTPUT_BYTES_MAX - self.kept.len();
            self.cut |= count > room;
            self.kept.extend_from_slice(&buffer[..count.min(room)]);
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        format!("{text}{}", if self.cut { "..." } else { "" })
    }
}

/// Source: moby 28.2 `daemon/health.go`, `cmdProbe.run`.
fn exceeded(timeout: Duration, output: &str) -> String {
    let limit = format_duration(i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX));
    if output.is_empty() {
        return format!("Health check exceeded timeout ({limit})");
    }
    format!("Health check exceeded timeout ({limit}): {output}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        let config = Config {
            healthcheck: Some(Healthcheck {
                test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
                retries: 2,
                start_period: 10_000_000_000,
                ..Healthcheck::default()
            }),
            ..Config::default()
        };
        Check::find(&config).unwrap()
    }

    /// Results as (seconds after the start, exit code); the status after each.
    #[track_caller]
    fn after(results: &[(u64, i32)], want: &[&str]) {
        let began = SystemTime::UNIX_EPOCH;
        let mut health = starting();
        let mut got = Vec::new();
        for (second, exit_code) in results {
            let start = began + Duration::from_secs(*second);
            let result =
                HealthResult { start, end: start, exit_code: *exit_code, output: String::new() };
            health = judge(&health, &check(), began, result);
            got.push(format!("{} {}", health.status.name(), health.failing_streak));
        }
        assert_eq!(got, want);
    }

    #[test]
    fn failures_count_after_the_start_period_or_the_first_success() {
        after(
            &[(1, 1), (2, 1), (11, 1), (12, 1)],
            &["starting 0", "starting 0", "starting 1", "unhealthy 2"],
        );
        after(
            &[(1, 0), (2, 1), (3, 1), (4, 0)],
            &["healthy 0", "healthy 1", "unhealthy 2", "healthy 0"],
        );
    }

    #[test]
    fn defaults_are_dockers() {
        let check = check();
        assert_eq!(check.argv, ["/bin/sh", "-c", "true"]);
        assert_eq!((check.interval, check.timeout), (INTERVAL_DEFAULT, TIMEOUT_DEFAULT));
        let limit = Duration::from_millis(50);
        assert_eq!(exceeded(limit, "so far"), "Health check exceeded timeout (50ms): so far");
        assert_eq!(exceeded(limit, ""), "Health check exceeded timeout (50ms)");
    }

    #[test]
    fn the_start_interval_counts_from_the_first_probe_on() {
        let check = Check { start_interval: Duration::from_secs(2), ..check() };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(11));
        for (status, since, want) in [
            (None, early, check.start_interval),
            (Some(HealthStatus::Starting), early, check.start_interval),
            (Some(HealthStatus::Starting), late, check.interval),
            (Some(HealthStatus::Healthy), early, check.interval),
            (Some(HealthStatus::Unhealthy), early, check.interval),
        ] {
            assert_eq!(pause(status, since, &check), want, "{status:?} {since:?}");
        }
    }
}
