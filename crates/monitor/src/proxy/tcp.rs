//! TCP through user mode: two sockets, each direction with its own end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};
use sys::epoll::{Interest, Poller, Ready};

use crate::complaints::complain;
use crate::run::watch::{Kind, Watch};

/// Connections at one time, of all ports together; beyond, they wait in the kernel.
pub const CONNECTIONS_MAX: usize = 400;

/// Reads of one side before others get their turn.
const TURN_READS: usize = 4;

/// A listening socket.
#[derive(Debug)]
pub struct TcpPort {
    pub to: SocketAddr,
    socket: Watch,
}

impl TcpPort {
    pub fn new(to: SocketAddr, socket: OwnedFd, id: u32, poller: &Poller) -> io::Result<TcpPort> {
        crate::run::process::nonblocking(&socket)?;
        let mut socket = Watch::new(socket, Kind::Proxy, id);
        socket.set(poller, Some(Interest::Read))?;
        Ok(TcpPort { to, socket })
    }

    pub fn accept(&self) -> Option<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::accept_with(&self.socket, flags).ok()
    }

    pub fn pause(&mut self, poller: &Poller) {
        self.watch(poller, None);
    }

    pub fn resume(&mut self, poller: &Poller) {
        self.watch(poller, Some(Interest::Read));
    }

    fn watch(&mut self, poller: &Poller, interest: Option<Interest>) {
        if let Err(error) = self.socket.set(poller, interest) {
            complain!("cannot watch a published port: {error}");
        }
    }

    pub fn close(self, poller: &Poller) {
        self.socket.close(poller);
    }
}

/// A connection and its other half.
#[derive(Debug)]
pub struct Connection {
    near: Side,
    far: Side,
    connecting: bool,
}

#[derive(Debug)]
struct Side {
    id: u32,
    socket: Watch,
    /// To be sent to this side.
    unsent: Vec<u8>,
    /// This side says nothing more.
    ended: bool,
    /// This side was told that nothing more comes.
    told: bool,
    hung_up: bool,
}

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over;

impl Connection {
    pub fn open(
        near: OwnedFd,
        to: SocketAddr,
        near_id: u32,
        far_id: u32,
        poller: &Poller,
    ) -> io::Result<Connection> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let far = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        for socket in [&near, &far] {
            sockopt::set_tcp_nodelay(socket, true)?;
            sockopt::set_socket_keepalive(socket, true)?;
        }
        match rustix::net::connect(&far, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let mut connection = Connection {
            near: Side::new(near, near_id),
            far: Side::new(far, far_id),
            connecting: true,
        };
        connection.watch(poller)?;
        Ok(connection)
    }

    pub fn handle(
        &mut self,
        id: u32,
        news: Ready,
        poller: &Poller,
        scratch: &mut [u8],
    ) -> Result<(), Over> {
        let side = if id == self.near.id { &mut self.near } else { &mut self.far };
        side.hung_up |= news.hung_up;
        if self.connecting {
            if id == self.near.id {
                return self.watch(poller).map_err(|_| Over);
            }
            match sockopt::socket_error(&self.far.socket) {
                Ok(Ok(())) if news.writable => self.connecting = false,
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) | Err(_) => return Err(Over),
            }
        }
        self.near.pass(&mut self.far, scratch)?;
        self.far.pass(&mut self.near, scratch)?;
        if self.near.told && self.far.told {
            return Err(Over);
        }
        self.watch(poller).map_err(|_| Over)
    }

    fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        let (near_reads, far_reads) = (
            !self.connecting && !self.near.ended && self.far.unsent.is_empty(),
            !self.connecting && !self.far.ended && self.near.unsent.is_empty(),
        );
        self.near.watch(poller, near_reads, false)?;
        self.far.watch(poller, far_reads, self.connecting)
    }

    /// Closes both sockets and returns their ids.
    pub fn close(self, poller: &Poller) -> [u32; 2] {
        let ids = [self.near.id, self.far.id];
        self.near.socket.close(poller);
        self.far.socket.close(poller);
        ids
    }
}

impl Side {
    fn new(socket: OwnedFd, id: u32) -> Side {
        let socket = Watch::new(socket, Kind::Proxy, id);
        Side { id, socket, unsent: Vec::new(), ended: false, told: false, hung_up: false }
    }

    /// A side that hung up and is neither read nor written would be told again and again.
    fn watch(&mut self, poller: &Poller, reads: bool, connecting: bool) -> io::Result<()> {
        let interest = Interest::of(reads, connecting || !self.unsent.is_empty());
        let silent = self.hung_up && interest == Interest::Nothing;
        self.socket.set(poller, if silent { None } else { Some(interest) })
    }

    /// Moves what this side says to `other`.
    fn pass(&mut self, other: &mut Side, scratch: &mut [u8]) -> Result<(), Over> {
        other.flush()?;
        for _ in 0..TURN_READS {
            if self.ended || !other.unsent.is_empty() {
                break;
            }
            match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.ended = true,
                Ok((_, count)) => {
                    let sent = other.send(&scratch[..count])?;
                    other.unsent.extend_from_slice(&scratch[sent..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Over),
            }
        }
        if self.ended && other.unsent.is_empty() && !other.told {
            other.told = true;
            rustix::net::shutdown(other.socket.as_fd(), Shutdown::Write).map_err(|_| Over)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Over> {
        if !self.unsent.is_empty() {
            let sent = self.send(&self.unsent)?;
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Over> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(&self.socket, bytes, flags) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(_) => Err(Over),
        }
    }
}
