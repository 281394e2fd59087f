//! The working directory and the program: found inside the container, with Docker's words when not.
//!
//! Nothing here runs before the pivot, so plain paths mean the container's. All of them are the
//! image's or the user's words, so they are resolved without links of /proc ([`Root`]): /proc/self/fd/N
//! could lead out (CVE-2024-21626).
//!
//! execve then gets the path and not the descriptor that was looked at: by descriptor the program's
//! name would be a number in ps, `AT_EXECFN` would be /dev/fd/N, and a script's interpreter could not
//! open it. Whoever swaps the path meanwhile gains nothing, since by now nothing of the host is open
//! and the privileges are the program's own.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use spec::runtime::Process;
use sys::path::Root;

use super::identity::Identity;
use crate::error::{Kind, LaunchError, at, words};

/// What execve gets.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    argv: Vec<CString>,
    envp: Vec<CString>,
}

impl Program {
    pub fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Returns only when the kernel refused.
    pub fn execute(&self) -> io::Error {
        let argv: Vec<_> = self.argv.iter().map(CString::as_c_str).collect();
        let envp: Vec<_> = self.envp.iter().map(CString::as_c_str).collect();
        sys::process::execve(&self.path, &argv, &envp)
    }
}

/// What becomes of a working directory that is not there: runc's init makes it, its exec does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Refuse,
}

/// Changes to the working directory.
pub(crate) fn enter_directory(cwd: &str, missing: Missing) -> Result<(), LaunchError> {
    let step = format!("chdir to cwd ({cwd:?}) set in config.json failed");
    let directory = match open_directory(cwd, missing) {
        // Source: moby `daemon/errors.go`: these words mean 127, whatever is not there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{step}: {}", words(&error));
            return Err(LaunchError::new(Kind::NotFound, text));
        }
        opened => opened.map_err(at(&step))?,
    };
    match rustix::process::fchdir(&directory) {
        // As root we may be refused where the program's user is not: network file systems do so.
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => return Ok(()),
        done => done.map_err(|error| LaunchError::step(&step, &error.into()))?,
    }
    check_inside(&step)
}

/// The same once more as the program's user, if root was refused before.
pub(crate) fn enter_directory_again(cwd: &str) -> Result<(), LaunchError> {
    if cwd == "/" || rustix::process::getcwd(Vec::new()).is_ok_and(|at| at.as_bytes() != b"/") {
        return Ok(());
    }
    let step = format!("chdir to cwd ({cwd:?}) set in config.json failed");
    let directory = open_directory(cwd, Missing::Refuse).map_err(at(&step))?;
    rustix::process::fchdir(&directory).map_err(|error| LaunchError::step(&step, &error.into()))?;
    check_inside(&step)
}

fn open_directory(cwd: &str, missing: Missing) -> io::Result<OwnedFd> {
    let root = Root::open_at(Path::new("/"))?;
    match missing {
        Missing::Create => root.create_dir_all(Path::new(cwd), Mode::from_raw_mode(0o755)),
        Missing::Refuse => root.open(Path::new(cwd), OFlags::PATH | OFlags::DIRECTORY),
    }
}

/// getcwd(3): a directory outside of the root is shown as `(unreachable)`.
fn check_inside(step: &str) -> Result<(), LaunchError> {
    let at = rustix::process::getcwd(Vec::new())
        .map_err(|error| LaunchError::step(step, &error.into()))?;
    if at.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    let text = "current working directory is outside of container mount namespace root -- possible container breakout detected";
    Err(LaunchError::new(Kind::Other, text))
}

/// Finds the program as its own user would, with its own PATH.
///
/// Source for rules and words: runc asks Go's `os/exec.LookPath`.
pub(crate) fn find(
    argv: &[String],
    process: &Process,
    identity: &Identity,
) -> Result<Program, LaunchError> {
    let (cwd, env) = (process.cwd.as_str(), process.env.as_slice());
    let name = argv.first().map_or("", String::as_str);
    let path = if name.contains('/') { find_at(cwd, name)? } else { search(cwd, name, env)? };
    let string = |text: &str| {
        CString::new(text).map_err(|_| {
            LaunchError::new(Kind::Other, "a NUL byte in the arguments or environment")
        })
    };
    let argv = argv.iter().map(|text| string(text)).collect::<Result<_, _>>()?;
    let mut envp = env.iter().map(|text| string(text)).collect::<Result<Vec<_>, _>>()?;
    let home = env.iter().find_map(|variable| variable.strip_prefix("HOME="));
    if home.is_none_or(str::is_empty) {
        envp.retain(|variable| !variable.as_bytes().starts_with(b"HOME="));
        envp.push(string(&format!("HOME={}", identity.home))?);
    }
    Ok(Program { path: string(&path)?, argv, envp })
}

fn find_at(cwd: &str, name: &str) -> Result<String, LaunchError> {
    let (kind, reason) = match executable(cwd, name) {
        Ok(()) => return Ok(name.to_owned()),
        Err(Unfit::Absent(error)) => {
            let kind = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::NotExecutable,
                _ => Kind::Other,
            };
            (kind, format!("stat {name}: {}", words(&error)))
        }
        // Newer ones of runc say "is a directory", but clients before 24 know these words only.
        Err(Unfit::Directory) => (Kind::NotExecutable, "permission denied".to_owned()),
        Err(Unfit::Refused(error)) => (Kind::NotExecutable, words(&error)),
    };
    Err(LaunchError::new(kind, format!("exec: {name:?}: {reason}")))
}

fn search(cwd: &str, name: &str, env: &[String]) -> Result<String, LaunchError> {
    let path =
        env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let directories = path.split(':').filter(|_| !path.is_empty() && !name.is_empty());
    for directory in directories {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        // One that is refused counts as not found.
        if executable(cwd, &candidate).is_err() {
            continue;
        }
        if candidate.starts_with('/') {
            return Ok(candidate);
        }
        let text =
            format!("exec: {name:?}: cannot run executable found relative to current directory");
        return Err(LaunchError::new(Kind::Other, text));
    }
    let text = format!("exec: {name:?}: executable file not found in $PATH");
    Err(LaunchError::new(Kind::NotFound, text))
}

/// Why a path is no program.
enum Unfit {
    Absent(io::Error),
    Directory,
    Refused(io::Error),
}

fn executable(cwd: &str, path: &str) -> Result<(), Unfit> {
    let whole = Path::new(cwd).join(path);
    let open = || Root::open_at(Path::new("/"))?.handle(&whole);
    let file = open().map_err(Unfit::Absent)?;
    let stat = rustix::fs::fstat(&file).map_err(|error| Unfit::Absent(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Unfit::Directory);
    }
    match sys::process::may_execute(&file) {
        // Kernels before 5.8 and filters of an outer container; any execute bit is then good enough.
        Err(error) if matches!(error.raw_os_error(), Some(1 | 38)) && stat.st_mode & 0o111 != 0 => {
            Ok(())
        }
        done => done.map_err(Unfit::Refused),
    }
}

/// Opens the container's devpts by its well-known place, for a further terminal.
pub(crate) fn devpts() -> io::Result<OwnedFd> {
    Root::open_at(Path::new("/"))?.open(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY)
}
