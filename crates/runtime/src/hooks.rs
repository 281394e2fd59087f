//! Hooks: programs of the host that the document names for certain moments.
//!
//! Each gets the container's state as JSON on stdin and has to succeed; the caller decides where an
//! error stops things and where it is only told.
//!
//! Source: OCI runtime-spec `config.md`, "POSIX-platform Hooks".

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
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
    let mut errors = Errors::of(child.stderr.take()).map_err(|error| words(&error))?;
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| words(&error))? {
            break status;
        }
        errors.read();
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
    errors.read();
    Err(format!("{status}, stdout: , stderr: {}", errors.words()))
}

/// The first words that a hook has for its failure. All are read, so that it never waits for us.
struct Errors {
    stderr: Option<ChildStderr>,
    kept: Vec<u8>,
}

impl Errors {
    const BYTES_MAX: usize = 4096;

    fn of(stderr: Option<ChildStderr>) -> io::Result<Errors> {
        if let Some(stderr) = &stderr {
            rustix::io::ioctl_fionbio(stderr, true)?;
        }
        Ok(Errors { stderr, kept: Vec::new() })
    }

    /// Reads what is there.
    fn read(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut part) {
            let room = Self::BYTES_MAX - self.kept.len();
            self.kept.extend_from_slice(&part[..count.min(room)]);
        }
    }

    fn words(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, env: &[&str]) -> Result<(), LaunchError> {
        let hook = Hook {
            path: "/bin/sh".to_owned(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: env.iter().map(|&variable| variable.to_owned()).collect(),
            timeout: Some(60),
        };
        let state = State { id: "one", status: "created", pid: 1, bundle: Path::new("/bundle") };
        run(&[hook], "poststart", &state, &Spec::default())
    }

    #[track_caller]
    fn says(script: &str, env: &[&str], want: &str) {
        let error = run_shell(&format!("{{ {script}; }} >&2; exit 3"), env).unwrap_err();
        assert_eq!(
            error.message,
            format!("error running poststart hook #0: exit status: 3, stdout: , stderr: {want}")
        );
    }

    #[test]
    fn a_hook_has_the_path_that_it_was_given_and_nothing_of_ours() {
        says("echo $PATH", &["PATH=/its/own"], "/its/own");
        says("echo ${HOME-none}", &[], "none");
    }

    #[test]
    fn a_hook_that_complains_at_length_ends_all_the_same() {
        let long = "i=0; while [ $i -lt 3000 ]; do echo \
                    0123456789012345678901234567890123456789012345678901234567890123456789 >&2; \
                    i=$((i+1)); done";
        run_shell(long, &[]).unwrap();
        let error = run_shell(&format!("{long}; exit 1"), &[]).unwrap_err();
        assert!(error.message.len() < 5000, "{}", error.message.len());
    }
}
