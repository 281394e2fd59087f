//! One daemon per pidfile, and a word to the service manager.
//!
//! The pidfile is locked for as long as the daemon lives. The kernel lets go of the lock whatever
//! way the daemon ends, so a pidfile left behind by `kill -9` never stands in the way. A daemon that
//! was killed and whose threads are yet to end is waited for.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long the lock of a daemon that was killed may outlive it.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long a daemon that was killed may take to be gone.
pub const DYING_MAX: Duration = Duration::from_secs(10);
/// Between two looks at something that will be free in a moment.
pub const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Source: moby 28.2 `cmd/dockerd/daemon.go`.
    #[error(
        "ensure docker is not running or delete {path:?}: process with PID {pid} is still running"
    )]
    Running { path: PathBuf, pid: String },
    #[error("cannot write the pidfile {path:?}")]
    Pidfile { path: PathBuf, source: io::Error },
}

/// The right to be the daemon of this pidfile.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    _locked: File,
}

impl Instance {
    /// Takes the pidfile and writes our number into it.
    ///
    /// # Errors
    /// When another daemon has it, or it cannot be written.
    pub fn take(path: &Path) -> Result<Self, InstanceError> {
        let failed = |source| InstanceError::Pidfile { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        if let Err(error) = lock(&file) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(InstanceError::Running {
                path: path.to_owned(),
                pid: pid.trim().to_owned(),
            });
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        write().map_err(failed)?;
        Ok(Self { path: path.to_owned(), _locked: file })
    }

    /// Ends being the daemon.
    pub fn give_back(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Locks the file, with patience for a daemon that has just been killed: it may not be gone yet, and
/// a child of it that has not reached its execve still holds the lock for moments.
fn lock(mut file: &File) -> Result<(), rustix::io::Errno> {
    let since = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            done => return done,
        }
        let mut pid = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut pid));
        let dying = read.is_ok() && pid.trim().parse().is_ok_and(is_dying);
        let patience = if dying { DYING_MAX } else { LOCK_PATIENCE };
        if since.elapsed() >= patience {
            return file
                .rewind()
                .map_or(Err(rustix::io::Errno::IO), |()| Err(rustix::io::Errno::WOULDBLOCK));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a process is on its way out: gone, a zombie whose other threads may still be there, or
/// about to act on a KILL.
pub fn is_dying(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| ends(&status))
}

/// Source: proc_pid_status(5).
fn ends(status: &str) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default()
    };
    let killed = |name| {
        let mask = u64::from_str_radix(field(name), 16).unwrap_or(0);
        mask & 1 << (rustix::process::Signal::KILL.as_raw() - 1) != 0
    };
    field("State:").starts_with(['Z', 'X']) || killed("SigPnd:") || killed("ShdPnd:")
}

/// Tells the service manager, if there is one: `sd_notify(3)`.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = name.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_belongs_to_one_daemon_at_a_time() {
        let path = std::env::temp_dir().join(format!("tug-instance-{}.pid", std::process::id()));
        std::fs::write(&path, "4294967295").unwrap();
        let first = Instance::take(&path).unwrap();
        let pid = std::fs::read_to_string(&path).unwrap();
        assert_eq!(pid, std::process::id().to_string());
        match Instance::take(&path) {
            Err(InstanceError::Running { pid: holder, .. }) => assert_eq!(holder, pid),
            other => panic!("{other:?}"),
        }
        first.give_back();
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_was_killed_is_on_its_way_out() {
        for (status, want) in [
            ("State:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n", false),
            ("State:\tZ (zombie)\nSigPnd:\t0000000000000000\n", true),
            ("State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n", true),
            (
                "State:\tD (disk sleep)\nSigPnd:\t0000000000004000\nShdPnd:\t0000000000000100\n",
                true,
            ),
        ] {
            assert_eq!(ends(status), want, "{status}");
        }
        assert!(!is_dying(std::process::id()));
    }
}
