//! Opening connections to a [`Host`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Error, Host, Io, Tls};

pub(super) async fn connect(host: &Host, tls: Option<&Tls>) -> Result<Box<dyn Io>, Error> {
    let failed = |source| Error::Connect { host: host.clone(), source };
    match host {
        Host::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        Host::Tcp { name, port } => {
            let addresses =
                addresses_of(name).ok_or_else(|| Error::Resolve { host: host.clone() })?;
            let addresses: Vec<_> =
                addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect();
            let stream = TcpStream::connect(addresses.as_slice()).await.map_err(failed)?;
            // Keystrokes of an attached terminal must not wait for each other.
            stream.set_nodelay(true).map_err(failed)?;
            match tls {
                Some(tls) => tls.connect(host, name, stream).await,
                None => Ok(Box::new(stream)),
            }
        }
        Host::Ssh { target, port } => dial_ssh(target, *port, "docker").map_err(failed),
    }
}

/// Literals, `localhost` and `/etc/hosts`; a static binary has no system resolver.
fn addresses_of(name: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Some(vec![address]);
    }
    if name.eq_ignore_ascii_case("localhost") {
        return Some(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    }
    let table = std::fs::read_to_string("/etc/hosts").ok()?;
    let found: Vec<_> = table
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect();
    (!found.is_empty()).then_some(found)
}

/// Connects to the daemon behind ssh: the far side's `PROGRAM system dial-stdio` joins its standard
/// streams to the daemon's socket. `target` is what ssh takes: `[USER@]HOST`.
///
/// # Errors
/// When ssh cannot be started; all else shows when the stream is used.
pub fn dial_ssh(target: &str, port: Option<u16>, program: &str) -> io::Result<Box<dyn Io>> {
    let mut command = Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    let mut child = command
        .args(["--", target, program, "system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("ssh has no standard streams"));
    };
    Ok(Box::new(SshStream { stdin: Some(stdin), stdout, _child: child }))
}

struct SshStream {
    /// Gone once our half is closed.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    _child: Child,
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stdin) = &mut self.stdin {
            std::task::ready!(Pin::new(stdin).poll_shutdown(cx))?;
        }
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
