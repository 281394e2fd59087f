//! UDP through user mode: one socket to the container for each sender, until it is idle.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sys::datagram::{self, Arrival, Local};
use sys::epoll::{Interest, Poller};

use crate::complaints::complain;
use crate::run::watch::{Kind, Watch};

/// Senders of one port at one time; the one that was silent longest makes room.
pub const SESSIONS_MAX: usize = 200;

/// After this time without a datagram a sender is forgotten: moby `cmd/docker-proxy`.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Datagrams received before others get their turn.
const TURN_DATAGRAMS: usize = 16;

/// A bound socket.
#[derive(Debug)]
pub struct UdpPort {
    pub to: SocketAddr,
    socket: Watch,
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    id: u32,
    sender: SocketAddr,
    /// Where the sender asked, from where it expects the answer.
    at: Option<Local>,
    socket: Watch,
    used: Instant,
}

impl UdpPort {
    pub fn new(to: SocketAddr, socket: OwnedFd, id: u32, poller: &Poller) -> io::Result<UdpPort> {
        let ipv4 = rustix::net::getsockname(&socket)?.address_family() == AddressFamily::INET;
        datagram::tell_arrivals(&socket, ipv4)?;
        let mut socket = Watch::new(socket, Kind::Proxy, id);
        socket.set(poller, Some(Interest::Read))?;
        Ok(UdpPort { to, socket, sessions: Vec::new() })
    }

    /// Receives datagrams, at most up to the first of a new sender, whose session gets the id
    /// `next`. Returns whether there was one, and which sessions had to go.
    pub fn receive(&mut self, next: u32, poller: &Poller, scratch: &mut [u8]) -> (bool, Vec<u32>) {
        let mut gone = Vec::new();
        for _ in 0..TURN_DATAGRAMS {
            let Ok(arrival) = datagram::receive(&self.socket, scratch) else { break };
            let Arrival { bytes: count, sender, at } = arrival;
            // What came before the socket was told to say where has no address; the sender's next
            // datagram brings it.
            let known = self.sessions.iter_mut().find(|session| {
                session.sender == sender && (session.at == at || session.at.is_none())
            });
            if let Some(session) = known {
                session.at = at;
                session.forward(&scratch[..count]);
                continue;
            }
            if self.sessions.len() >= SESSIONS_MAX {
                gone.extend(self.drop_idlest(poller));
            }
            match Session::open(arrival, self.to, next, poller) {
                Ok(mut session) => {
                    session.forward(&scratch[..count]);
                    self.sessions.push(session);
                    return (true, gone);
                }
                Err(error) => complain!("cannot forward datagrams to {}: {error}", self.to),
            }
        }
        (false, gone)
    }

    /// Sends what the container answered to the session's sender.
    pub fn answer(&mut self, id: u32, scratch: &mut [u8]) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) else {
            return;
        };
        for _ in 0..TURN_DATAGRAMS {
            // A refusal that the container sent is told here once; the sender finds out in time.
            let received = rustix::net::recv(&session.socket, &mut *scratch, RecvFlags::DONTWAIT);
            let Ok((_, count)) = received else { break };
            session.used = Instant::now();
            // A datagram that does not go is lost, as datagrams are.
            let _lost = datagram::send(&self.socket, &scratch[..count], session.sender, session.at);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.iter().map(|session| session.used + IDLE_MAX).min()
    }

    /// Forgets idle senders and returns their sessions' ids.
    pub fn expire(&mut self, now: Instant, poller: &Poller) -> Vec<u32> {
        let idle = self.sessions.extract_if(.., |session| now >= session.used + IDLE_MAX);
        idle.map(|session| session.close(poller)).collect()
    }

    fn drop_idlest(&mut self, poller: &Poller) -> Option<u32> {
        let (at, _) = self.sessions.iter().enumerate().min_by_key(|(_, session)| session.used)?;
        Some(self.sessions.swap_remove(at).close(poller))
    }

    /// Closes everything and returns the sessions' ids.
    pub fn close(self, poller: &Poller) -> Vec<u32> {
        self.socket.close(poller);
        self.sessions.into_iter().map(|session| session.close(poller)).collect()
    }
}

impl Session {
    fn open(arrival: Arrival, to: SocketAddr, id: u32, poller: &Poller) -> io::Result<Session> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        rustix::net::connect(&socket, &to)?;
        let mut socket = Watch::new(socket, Kind::Proxy, id);
        socket.set(poller, Some(Interest::Read))?;
        let Arrival { sender, at, .. } = arrival;
        Ok(Session { id, sender, at, socket, used: Instant::now() })
    }

    fn forward(&mut self, bytes: &[u8]) {
        self.used = Instant::now();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // A datagram that does not go is lost, as datagrams are.
        let _lost = rustix::net::send(&self.socket, bytes, flags);
    }

    fn close(self, poller: &Poller) -> u32 {
        self.socket.close(poller);
        self.id
    }
}
