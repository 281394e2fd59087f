//! The container's name server at 127.0.0.11.
//!
//! Two sockets in the container's network namespace on ports of their own, to which nftables in
//! there redirects port 53. Names of the container's networks are answered from [`zones`]; all
//! else is sent on, raw, to at most [`UPSTREAMS_MAX`] servers in turn.
//!
//! ```text
//! client ──UDP──▶ ours ──UDP, a socket and random id for each question──▶ upstream
//! client ──TCP──▶ ours ──TCP──▶ upstream
//! ```
//!
//! Always true: answers come only from a socket connected to the asked server, under the id and
//! with the question sent; questions waiting and connections are bounded, the rest is dropped.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sys::epoll::{Interest, Poller, Ready};
use sys::namespace::Namespaces;

mod message;
mod tcp;
mod zones;

use self::message::{Code, Query, UDP_BYTES_MAX};
use self::tcp::TcpClient;
use self::zones::{Found, Zones};
use crate::run::watch::{Kind, Watch};

/// Where containers believe their name server to be.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Servers tried for one question. Source: moby `libnetwork/resolver.go`, as are the next two.
const UPSTREAMS_MAX: usize = 3;

/// How long one server may take.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(4);

/// Questions waiting for upstream servers at one time.
const QUESTIONS_MAX: usize = 200;

/// TCP connections of clients at one time.
const CLIENTS_MAX: usize = 50;

/// Datagrams received before others get their turn.
const TURN_DATAGRAMS: usize = 16;

/// Ids of the two sockets that are always there.
const UDP: u32 = 0;
const TCP: u32 = 1;

/// A running name server.
#[derive(Debug)]
pub struct Resolver {
    zones: Zones,
    namespaces: Spaces,
    udp: Watch,
    tcp: Watch,
    questions: BTreeMap<u32, Question>,
    clients: BTreeMap<u32, TcpClient>,
    next_id: u32,
}

/// The container's network namespace and the host's.
#[derive(Debug)]
struct Spaces {
    container: OwnedFd,
    host: OwnedFd,
}

/// A question that an upstream server has over UDP.
#[derive(Debug)]
struct Question {
    client: SocketAddr,
    query: Query,
    /// The query as the client sent it.
    message: Vec<u8>,
    socket: Watch,
    sent_id: u16,
    /// Which upstream has it.
    upstream: usize,
    until: Instant,
}

/// Why a container got no name server.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    #[error("cannot read the resolver's settings")]
    Settings { source: net::zone::ZoneError },
    #[error("cannot open the resolver's sockets")]
    Sockets { source: io::Error },
    #[error("cannot redirect the container's name server")]
    Redirect { source: sys::netlink::NetlinkError },
}

impl Resolver {
    /// Starts a name server in the network namespace `container`.
    ///
    /// # Errors
    /// When its settings, its sockets or the redirection fail.
    pub fn open(
        settings: &Path,
        container: OwnedFd,
        poller: &Poller,
    ) -> Result<Resolver, ResolverError> {
        let sockets = |source| ResolverError::Sockets { source };
        let zones = Zones::open(settings).map_err(|source| ResolverError::Settings { source })?;
        let host = std::fs::File::open("/proc/thread-self/ns/net").map_err(sockets)?.into();
        let namespaces = Spaces { container, host };
        let (udp, tcp) = namespaces
            .inside(|| {
                let opened = open_sockets().map_err(sockets)?;
                let (udp, tcp) =
                    (port(&opened.0).map_err(sockets)?, port(&opened.1).map_err(sockets)?);
                net::redirect::resolver(udp, tcp)
                    .map_err(|source| ResolverError::Redirect { source })?;
                Ok(opened)
            })
            .map_err(sockets)??;
        let mut udp = Watch::new(udp, Kind::Resolver, UDP);
        let mut tcp = Watch::new(tcp, Kind::Resolver, TCP);
        udp.set(poller, Some(Interest::Read)).map_err(sockets)?;
        tcp.set(poller, Some(Interest::Read)).map_err(sockets)?;
        Ok(Resolver {
            zones,
            namespaces,
            udp,
            tcp,
            questions: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_id: TCP + 1,
        })
    }

    /// One of our sockets has news.
    pub fn handle(&mut self, id: u32, news: Ready, poller: &Poller, scratch: &mut [u8]) {
        match id {
            UDP => self.datagrams(poller, scratch),
            TCP => self.accept(poller),
            question if self.questions.contains_key(&question) => {
                self.answered(question, poller, scratch);
            }
            _ => self.client(id, news, poller, scratch),
        }
    }

    /// When [`Resolver::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let questions = self.questions.values().map(|question| question.until);
        questions.chain(self.clients.values().map(TcpClient::until)).min()
    }

    /// Asks the next server where one took too long.
    pub fn tick(&mut self, now: Instant, poller: &Poller) {
        let late: Vec<u32> = self
            .questions
            .iter()
            .filter(|(_, question)| now >= question.until)
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            self.ask_next(id, None, poller);
        }
        let idle: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, client)| now >= client.until())
            .map(|(&id, _)| id)
            .collect();
        for id in idle {
            self.late_client(id, poller);
        }
    }

    fn datagrams(&mut self, poller: &Poller, scratch: &mut [u8]) {
        self.zones.refresh();
        for _ in 0..TURN_DATAGRAMS {
            let received = rustix::net::recvfrom(&self.udp, &mut *scratch, RecvFlags::DONTWAIT);
            let Ok((_, count, Some(client))) = received else { break };
            let Ok(client) = SocketAddr::try_from(client) else { continue };
            let message = &scratch[..count];
            let Some(query) = Query::parse(message) else { continue };
            match self.zones.find(&query) {
                Found::Here(answer) => self.send(&query.answer(&answer, UDP_BYTES_MAX), &client),
                Found::Nobody => self.send(&query.fail(), &client),
                Found::Upstream => self.ask(client, query, message.to_vec(), poller),
            }
        }
    }

    fn send(&self, message: &[u8], client: &SocketAddr) {
        // A datagram that does not go is lost, and asked for again.
        let _lost = rustix::net::sendto(&self.udp, message, SendFlags::DONTWAIT, client);
    }

    fn ask(&mut self, client: SocketAddr, query: Query, message: Vec<u8>, poller: &Poller) {
        if self.questions.len() >= QUESTIONS_MAX {
            return;
        }
        let id = self.take_id();
        match self.ask_from(id, 0, client, query.clone(), message, poller) {
            Some(question) => drop(self.questions.insert(id, question)),
            None => self.send(&query.fail(), &client),
        }
    }

    /// Sends the question to the first server from `upstream` on that can be sent to.
    fn ask_from(
        &self,
        id: u32,
        upstream: usize,
        client: SocketAddr,
        query: Query,
        message: Vec<u8>,
        poller: &Poller,
    ) -> Option<Question> {
        let servers = self.zones.settings.upstreams.iter().take(UPSTREAMS_MAX).enumerate();
        for (upstream, server) in servers.skip(upstream) {
            let sent_id = random();
            let mut sent = message.clone();
            message::set_id(&mut sent, sent_id);
            let opened = self.namespaces.connect(*server, SocketType::DGRAM).and_then(|socket| {
                let mut socket = Watch::new(socket, Kind::Resolver, id);
                socket.set(poller, Some(Interest::Read))?;
                rustix::net::send(&socket, &sent, SendFlags::DONTWAIT)?;
                Ok(socket)
            });
            if let Ok(socket) = opened {
                let until = Instant::now() + UPSTREAM_PATIENCE;
                return Some(Question { client, query, message, socket, sent_id, upstream, until });
            }
        }
        None
    }

    /// Gives the question to the next server; if there is none, the client gets `last`.
    fn ask_next(&mut self, id: u32, last: Option<&[u8]>, poller: &Poller) {
        let Some(question) = self.questions.remove(&id) else { return };
        let Question { client, query, message, socket, upstream, .. } = question;
        socket.close(poller);
        let new_id = self.take_id();
        match self.ask_from(new_id, upstream + 1, client, query.clone(), message, poller) {
            Some(question) => drop(self.questions.insert(new_id, question)),
            None => match last {
                Some(last) => self.send(last, &client),
                None => self.send(&query.fail(), &client),
            },
        }
    }

    /// A server has answered a question, or its host said that nobody is there.
    fn answered(&mut self, id: u32, poller: &Poller, scratch: &mut [u8]) {
        let Some(question) = self.questions.get(&id) else { return };
        let received = rustix::net::recv(&question.socket, &mut *scratch, RecvFlags::DONTWAIT);
        let count = match received {
            Ok((_, count)) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => return self.ask_next(id, None, poller),
        };
        let message = &mut scratch[..count];
        if !question.query.is_answered_by(question.sent_id, message) {
            return;
        }
        message::set_id(message, question.query.id);
        match message::code(message) {
            Code::ServerFailure | Code::Refused => self.ask_next(id, Some(message), poller),
            Code::Success | Code::Other => {
                self.send(message, &question.client);
                if let Some(question) = self.questions.remove(&id) {
                    question.socket.close(poller);
                }
            }
        }
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

impl Spaces {
    /// Runs `work` with the thread in the container's namespace.
    fn inside<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        sys::namespace::join(&self.container, Namespaces::NET)?;
        let result = work();
        sys::namespace::join(&self.host, Namespaces::NET)?;
        Ok(result)
    }

    /// A socket on its way to a server, from where that is to be reached.
    fn connect(&self, server: net::zone::Upstream, kind: SocketType) -> io::Result<OwnedFd> {
        let open = || {
            let family =
                if server.server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(family, kind, flags, None)?;
            match rustix::net::connect(&socket, &server.server) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
                Err(error) => Err(error.into()),
            }
        };
        match server.from {
            net::zone::From::Host => open(),
            net::zone::From::Container => self.inside(open)?,
        }
    }
}

fn open_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let open = |kind| -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
        rustix::net::bind(&socket, &SocketAddr::from((ADDRESS, 0)))?;
        Ok(socket)
    };
    let (udp, tcp) = (open(SocketType::DGRAM)?, open(SocketType::STREAM)?);
    rustix::net::listen(&tcp, 16)?;
    Ok((udp, tcp))
}

fn port(socket: impl AsFd) -> io::Result<u16> {
    let address = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    debug_assert_eq!(address.ip(), IpAddr::from(ADDRESS));
    Ok(address.port())
}

/// Bits that an outsider cannot guess.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Two bytes come at once or not at all, and after boot they come.
    let _complete = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests;
