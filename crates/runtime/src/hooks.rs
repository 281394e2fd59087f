//! Hooks: programs of the host that the document names for certain moments.
//!
//! Each gets the container's state as JSON on stdin and has to succeed; the caller decides where an
//! error stops things and where it is only told.
//!
//! Source: OCI runtime-spec `config.md`, "POSIX-platform Hooks".

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use spec::runtime::{Hook, Spec};

use crate::error::{Kind, LaunchError, words};

/// The container as hooks are told about it.
pub(crate) struct State<'a> {
    pub id: &'a str,
    pub status: &'a str,
    /// 0 when there is no process (any more).
    pub pid: u32,
    pub bundle: &'a Path,
}

pub(crate) fn run(
    list: &[Hook],
    stage: &str,
    state: &State<'_>,
    spec: &Spec,
) -> Result<(), LaunchError> {
    for (number, hook) in list.iter().enumerate() {
        run_one(hook, state, spec).map_err(|reason| {
            LaunchError::new(Kind::Other, format!("error running {stage} hook #{number}: {reason}"))
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &State<'_>, spec: &Spec) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    if !hook.path.starts_with('/') {
        return Err(format!("invalid hook path {:?}: not an absolute path", hook.path));
    }
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("fork/exec {}: {}", hook.path, words(&error)))?;
    let told = serde_json::json!({
        "ociVersion": spec::runtime::VERSION,
        "id": state.id,
        "status": state.status,
        "pid": state.pid,
        "bundle": state.bundle,
        "annotations": spec.annotations,
    });
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input is none the worse.
        let _ = stdin.write_all(told.to_string().as_bytes());
    }
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| words(&error))? {
            break status;
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!(
                "hook ran past specified timeout of {}s",
                hook.timeout.unwrap_or_default()
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4096).read_to_string(&mut words);
    }
    Err(format!("{status}, stdout: , stderr: {}", words.trim_end()))
}
