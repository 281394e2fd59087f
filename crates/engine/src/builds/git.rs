//! Gets git repositories, with the host's git program.
//!
//! The program is given no shell, no terminal, no protocol that could start others, and its hooks
//! are off; what it makes is read like any context, by descriptor. It dies with its build.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use build::git::{GitDirectory, Repository};
use build::worker::{Failure, FailureKind};
use store::Store;
use tokio::sync::watch;

use super::context::Directory;
use super::worker::failure_of;

/// Of what the program says when it fails.
const WORDS_BYTES_MAX: u64 = 16 << 10;
/// How often it is looked whether the program ended or the build was cancelled.
const POLL: Duration = Duration::from_millis(20);

/// A repository's files: the directory that holds them, what of it was asked for, and the commit.
pub(super) struct Clone {
    pub(super) directory: Directory,
    pub(super) below: PathBuf,
    pub(super) commit: String,
}

/// Gets a repository. Blocking.
///
/// # Errors
/// What git says, and when there is no git.
pub(super) fn clone(
    cancel: &watch::Sender<bool>,
    store: &Store,
    repository: &Repository,
    keep: GitDirectory,
) -> Result<Clone, Failure> {
    let directory = Directory::make(store).map_err(|error| failure_of(&error))?;
    let git = Git { cancel, at: directory.path() };
    git.run("initializing", &["init", "-q"])?;
    git.fetch(repository)?;
    git.run("checking out", &["checkout", "-q", "-f", "--detach", "FETCH_HEAD"])?;
    if git.at.join(".gitmodules").is_file() {
        let submodules = ["submodule", "update", "-q", "--init", "--recursive", "--depth=1"];
        git.run("initializing submodules", &submodules)?;
    }
    let commit = git.run("naming the commit", &["rev-parse", "HEAD"])?;
    if keep == GitDirectory::Removed {
        let records = git.at.join(".git");
        std::fs::remove_dir_all(&records).map_err(|error| failed("cleaning", &error))?;
    }
    let below = PathBuf::from(&repository.directory);
    Ok(Clone { directory, below, commit: commit.trim().to_owned() })
}

struct Git<'a> {
    cancel: &'a watch::Sender<bool>,
    at: &'a Path,
}

fn failed(doing: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Invalid, format!("error {doing}: {why}"))
}

impl Git<'_> {
    /// One state, without what led to it; all of it from servers that cannot do that.
    fn fetch(&self, repository: &Repository) -> Result<(), Failure> {
        let url = repository.url.as_str();
        let wanted = match repository.reference.as_str() {
            "" => "HEAD",
            reference => reference,
        };
        let shallow = ["fetch", "-q", "--no-tags", "--depth=1", "--", url, wanted];
        let Err(problem) = self.run("fetching", &shallow) else { return Ok(()) };
        if problem.kind == FailureKind::Cancelled {
            return Err(problem);
        }
        let whole = ["fetch", "-q", "--no-tags", "--", url, wanted];
        if self.run("fetching", &whole).is_ok() {
            return Ok(());
        }
        if !repository.is_commit() {
            return Err(problem);
        }
        // A commit that the server gives only as part of a branch or tag.
        let all =
            ["fetch", "-q", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        self.run("fetching", &all)?;
        self.run("fetching", &["update-ref", "FETCH_HEAD", wanted]).map(drop)
    }

    /// Runs git to its end; its output.
    fn run(&self, doing: &str, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("git");
        command
            .args(["-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"])
            .args(arguments)
            .current_dir(self.at)
            .env("GIT_ALLOW_PROTOCOL", "git:http:https:ssh")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("LC_ALL", "C")
            .env_remove("GIT_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                failed(doing, &"the git program is needed for git contexts and is not installed")
            }
            _ => failed(doing, &error),
        })?;
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                if let Some(mut pipe) = pipe {
                    // What is too long is read all the same, or the program would wait.
                    let _ = (&mut pipe).take(WORDS_BYTES_MAX).read_to_end(&mut text);
                    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
                }
                String::from_utf8_lossy(&text).into_owned()
            })
        };
        let output = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let words = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(failed(doing, &error)),
            }
            if *self.cancel.borrow() {
                // It may have ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::new(FailureKind::Cancelled, "context canceled"));
            }
            std::thread::sleep(POLL);
        };
        let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
        match status.success() {
            true => Ok(text(output)),
            false => {
                let code = status.code().unwrap_or(-1);
                Err(failed(doing, &format!("{}: exit status {code}", text(words).trim())))
            }
        }
    }
}
