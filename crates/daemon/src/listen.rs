//! Listening sockets: `unix://`, `tcp://`, and `fd://` from whoever started us.
//!
//! A unix socket is root's alone until it has its group, so it is never open to more than it should
//! be. A socket file that nobody listens on is a dead daemon's and is replaced, also while that
//! daemon's last threads are still there; one that answers is another daemon's and is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::client::Host;
use rustix::fs::{Gid, Mode};

use crate::http::conn::Socket;
use crate::instance::{DYING_MAX, PAUSE, is_dying};
use crate::tls::Tls;

/// How long who listens on our socket may take to answer, so that it counts as a daemon.
const PING_MAX: Duration = Duration::from_secs(2);
/// How long a daemon that was killed may keep a port.
const PORT_MAX: Duration = Duration::from_secs(2);

/// Root and the socket's group.
const SOCKET_MODE: u32 = 0o660;
/// The first descriptor that systemd passes: `sd_listen_fds(3)`.
const LISTEN_FDS_START: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("invalid host {host:?}")]
    Host { host: String, source: api::client::HostError },
    #[error("cannot listen on {host}")]
    Bind { host: String, source: io::Error },
    #[error("cannot listen on {path:?}: another daemon answers there")]
    InUse { path: PathBuf },
    #[error("cannot listen on {path:?}: another program listens there and does not answer")]
    Held { path: PathBuf },
    #[error("{host:?} names no address: give an IP address or localhost")]
    Name { host: String },
    #[error("no sockets found via socket activation: make sure the service was started by systemd")]
    NotActivated,
    #[error("group {0} not found")]
    NoGroup(String),
}

#[derive(Debug)]
pub enum Listener {
    Unix {
        listener: tokio::net::UnixListener,
        /// Removed at the end, unless it is the activator's.
        path: Option<PathBuf>,
    },
    Tcp {
        listener: tokio::net::TcpListener,
        address: SocketAddr,
        tls: Option<Tls>,
    },
}

/// A client that came, perhaps with keys yet to be agreed on.
pub enum Accepted {
    Plain(Socket),
    Tls(tokio::net::TcpStream, Tls),
}

impl Accepted {
    /// The socket to serve.
    ///
    /// # Errors
    /// When TLS cannot be agreed on.
    pub async fn into_socket(self) -> io::Result<Socket> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Tls(stream, tls) => tls.accept(stream).await.map(Socket::Unix),
        }
    }
}

impl Listener {
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix { listener, .. } => {
                Ok(Accepted::Plain(Socket::Unix(listener.accept().await?.0)))
            }
            Self::Tcp { listener, tls, .. } => {
                let (stream, _) = listener.accept().await?;
                // Keystrokes of an attached terminal must not wait for each other.
                stream.set_nodelay(true)?;
                Ok(match tls {
                    Some(tls) => Accepted::Tls(stream, tls.clone()),
                    None => Accepted::Plain(Socket::Tcp(stream)),
                })
            }
        }
    }

    /// What is dangerous about this listener, if anything. A loopback address counts: a browser's
    /// scripts reach it.
    ///
    /// Source: moby 28.2 `daemon/info.go` `fillAPIInfo`.
    pub fn warning(&self) -> Option<String> {
        const WARN: &str = "\n         Access to the remote API is equivalent to root access on the host. Refer\n         to the 'Docker daemon attack surface' section in the documentation for\n         more information: https://docs.docker.com/go/attack-surface/";
        match self {
            Self::Tcp { tls: Some(Tls { verifies: true, .. }), .. } => None,
            Self::Tcp { address, tls: Some(_), .. } => Some(format!(
                "[DEPRECATION NOTICE]: API is accessible on https://{address} without TLS client verification.{WARN}"
            )),
            Self::Tcp { address, .. } => Some(format!(
                "[DEPRECATION NOTICE]: API is accessible on http://{address} without encryption.{WARN}"
            )),
            Self::Unix { .. } => None,
        }
    }

    /// Removes the socket's file.
    pub fn close(self) {
        if let Self::Unix { path: Some(path), .. } = self {
            // Nobody is there to be told, and the next daemon replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Opens the sockets of one `-H`. Needs a tokio runtime.
///
/// # Errors
/// When the address is wrong, taken, or not allowed.
pub fn open(host: &str, group: &str, tls: Option<&Tls>) -> Result<Vec<Listener>, ListenError> {
    // Without a scheme it is a place on the network. Source: moby 28.2 `opts/hosts.go`.
    let assumed;
    let host = match host.trim() {
        "" => "unix://",
        host if host.contains("://") => host,
        place => {
            assumed = format!("tcp://{place}");
            assumed.as_str()
        }
    };
    let failed = |source| ListenError::Bind { host: host.to_owned(), source };
    if let Some(wanted) = host.strip_prefix("fd://") {
        return activated(wanted, tls);
    }
    let parsed = if tls.is_some() { Host::parse_tls(host) } else { host.parse::<Host>() };
    let parsed = parsed.map_err(|source| ListenError::Host { host: host.to_owned(), source })?;
    match parsed {
        Host::Unix(path) => Ok(vec![unix(path, group)?]),
        Host::Tcp { name, port } => {
            let ip: IpAddr = match name.as_str() {
                "localhost" => IpAddr::from([127, 0, 0, 1]),
                name => name.parse().map_err(|_| ListenError::Name { host: host.to_owned() })?,
            };
            let listener = bind_port(SocketAddr::new(ip, port)).map_err(failed)?;
            Ok(vec![tcp(listener, tls).map_err(failed)?])
        }
        Host::Ssh { .. } => Err(ListenError::Bind {
            host: host.to_owned(),
            source: io::ErrorKind::Unsupported.into(),
        }),
    }
}

/// Binds a port, with patience for a daemon that has just been killed.
fn bind_port(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let since = Instant::now();
    loop {
        match std::net::TcpListener::bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && since.elapsed() < PORT_MAX =>
            {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// Waits until nobody alive listens at `path`.
fn await_free(path: &Path) -> Result<(), ListenError> {
    let since = Instant::now();
    loop {
        let listening = match sys::socket::connect_now(path) {
            Ok(stream) => stream,
            // Its queue is full, so somebody does listen.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ListenError::Held { path: path.to_owned() });
            }
            Err(_) => return Ok(()),
        };
        let listener = sys::socket::peer_process(&listening).ok().flatten();
        if listener.is_some_and(|pid| is_dying(pid.as_raw_nonzero().get().unsigned_abs())) {
            return Ok(());
        }
        if answers(listening) {
            return Err(ListenError::InUse { path: path.to_owned() });
        }
        if since.elapsed() >= DYING_MAX {
            return Err(ListenError::Held { path: path.to_owned() });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a daemon answers a ping. One that was killed takes connections and nothing more.
fn answers(mut stream: std::os::unix::net::UnixStream) -> bool {
    use std::io::{Read as _, Write as _};
    let ping = b"GET /_ping HTTP/1.1\r\nHost: tug\r\nConnection: close\r\n\r\n";
    let asked = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(PING_MAX)))
        .and_then(|()| stream.write_all(ping));
    asked.is_ok() && stream.read(&mut [0; 16]).is_ok_and(|count| count > 0)
}

fn tcp(listener: std::net::TcpListener, tls: Option<&Tls>) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp {
        address: listener.local_addr()?,
        listener: tokio::net::TcpListener::from_std(listener)?,
        tls: tls.cloned(),
    })
}

fn unix(path: PathBuf, group: &str) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Bind { host: format!("unix://{}", path.display()), source };
    await_free(&path)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // Nothing else makes files yet, so the mask may change for a moment.
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = std::os::unix::net::UnixListener::bind(&path);
    rustix::process::umask(mask);
    let listener = bound.map_err(failed)?;
    restrict(&path, group, &failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Listener::Unix {
        listener: tokio::net::UnixListener::from_std(listener).map_err(failed)?,
        path: Some(path),
    })
}

fn restrict(
    path: &Path,
    group: &str,
    failed: &dyn Fn(io::Error) -> ListenError,
) -> Result<(), ListenError> {
    let bad = |error: rustix::io::Errno| failed(error.into());
    match find_group(group) {
        Some(gid) => rustix::fs::chown(path, None, Some(Gid::from_raw(gid))).map_err(bad)?,
        // Docker's default group need not exist; then the socket is root's alone.
        None if group == "docker" => {}
        None => return Err(ListenError::NoGroup(group.to_owned())),
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(SOCKET_MODE)).map_err(bad)
}

/// From the file: a static binary has no name service.
fn find_group(group: &str) -> Option<u32> {
    if let Ok(gid) = group.parse() {
        return Some(gid);
    }
    let table = std::fs::read_to_string("/etc/group").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Sockets passed by systemd: all of them, or the one with the given number.
fn activated(wanted: &str, tls: Option<&Tls>) -> Result<Vec<Listener>, ListenError> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let ours = number("LISTEN_PID") == i32::try_from(std::process::id()).ok();
    let count = number("LISTEN_FDS").filter(|_| ours).ok_or(ListenError::NotActivated)?;
    let failed = |source: io::Error| ListenError::Bind { host: format!("fd://{wanted}"), source };
    // The descriptors are ours by the protocol, but only by number; a pidfd of our own gives
    // owned copies of them.
    let us = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )
    .map_err(|error| failed(error.into()))?;
    let mut listeners = Vec::new();
    for fd in LISTEN_FDS_START..LISTEN_FDS_START + count {
        if !matches!(wanted, "" | "*") && wanted != fd.to_string() {
            continue;
        }
        let fd = rustix::process::pidfd_getfd(&us, fd, rustix::process::PidfdGetfdFlags::empty())
            .map_err(|error| failed(error.into()))?;
        listeners.push(passed(fd, tls).map_err(failed)?);
    }
    if listeners.is_empty() { Err(ListenError::NotActivated) } else { Ok(listeners) }
}

fn passed(fd: OwnedFd, tls: Option<&Tls>) -> io::Result<Listener> {
    let domain = rustix::net::sockopt::socket_domain(&fd)?;
    if domain == rustix::net::AddressFamily::UNIX {
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true)?;
        return Ok(Listener::Unix {
            listener: tokio::net::UnixListener::from_std(listener)?,
            path: None,
        });
    }
    tcp(std::net::TcpListener::from(fd), tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test(flavor = "current_thread")]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("tug-listen-{}.sock", std::process::id()));
        let host = format!("unix://{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut first = open(&host, "0", None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let second = {
            let host = host.clone();
            tokio::task::spawn_blocking(move || open(&host, "0", None).map(drop))
        };
        // What answers is alive, whatever it says.
        let accepted = first[0].accept().await.unwrap();
        let Accepted::Plain(Socket::Unix(mut stream)) = accepted else { panic!("a unix socket") };
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n").await.unwrap();
        assert!(matches!(second.await.unwrap(), Err(ListenError::InUse { .. })));
        first.remove(0).close();
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn wrong_addresses_are_refused() {
        for host in ["tcp://some.where:1", "nonsense", "/some/path.sock", "npipe:////x", "fd://"] {
            assert!(open(host, "0", None).is_err(), "{host}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_place_on_the_network_needs_no_scheme_and_is_warned_of() {
        for host in ["tcp://127.0.0.1:0", "0.0.0.0:0", ":0", "localhost:0"] {
            let listeners = open(host, "0", None).unwrap();
            let words = listeners[0].warning().unwrap();
            let start = "[DEPRECATION NOTICE]: API is accessible on http://";
            assert!(words.starts_with(start), "{host}: {words}");
            assert!(words.contains("equivalent to root access"), "{words}");
        }
    }
}
