//! The working directory and the program: found inside the container, with Docker's words when not.
//!
//! Nothing here runs before the pivot, so plain paths mean the container's.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
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
///
/// Links of /proc are not followed: /proc/self/fd/N could lead out (CVE-2024-21626).
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

/// Finds the program as execvp(3) would, with the program's own PATH.
pub(crate) fn find(
    argv: &[String],
    env: &[String],
    identity: &Identity,
) -> Result<Program, LaunchError> {
    let name = argv.first().map_or("", String::as_str);
    let path = if name.contains('/') { find_at(name)? } else { search(name, env)? };
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

fn find_at(name: &str) -> Result<String, LaunchError> {
    match executable(Path::new(name)) {
        Ok(()) => Ok(name.to_owned()),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.kind() == io::ErrorKind::NotADirectory =>
        {
            let text = format!("exec: {name:?}: stat {name}: {}", words(&error));
            Err(LaunchError::new(Kind::NotFound, text))
        }
        Err(error) => {
            Err(LaunchError::new(Kind::NotExecutable, format!("exec: {name:?}: {}", words(&error))))
        }
    }
}

fn search(name: &str, env: &[String]) -> Result<String, LaunchError> {
    let path =
        env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let mut refused = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        match executable(Path::new(&candidate)) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
            Ok(()) | Err(_) => {}
        }
    }
    // Go's exec.LookPath, which runc asks, reports a refused candidate as not found.
    drop(refused);
    let text = format!("exec: {name:?}: executable file not found in $PATH");
    Err(LaunchError::new(Kind::NotFound, text))
}

fn executable(path: &Path) -> io::Result<()> {
    let stat = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(rustix::io::Errno::ISDIR.into());
    }
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS).or_else(
        |error| match error {
            // Kernels before 5.8 have no faccessat2; any execute bit is then good enough.
            rustix::io::Errno::NOSYS if stat.st_mode & 0o111 != 0 => Ok(()),
            other => Err(other),
        },
    )?;
    Ok(())
}

/// Opens the container's devpts by its well-known place, for a further terminal.
pub(crate) fn devpts() -> io::Result<OwnedFd> {
    Root::open_at(Path::new("/"))?.open(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY)
}
