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
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use net::zone::Upstream;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use sys::epoll::{Interest, Poller, Ready};

mod message;
mod sockets;
mod tcp;
mod zones;

pub use self::sockets::Sockets;

use self::message::{Code, Query, UDP_BYTES_MAX};
use self::sockets::Far;
use self::tcp::TcpClient;
use self::zones::{Found, Zones};
use crate::run::watch::{Kind, Watch};

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
    far: Far,
    udp: Watch,
    tcp: Watch,
    questions: BTreeMap<u32, Question>,
    clients: BTreeMap<u32, TcpClient>,
    next_id: u32,
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
    /// Which upstream has it, and that one.
    upstream: usize,
    server: Upstream,
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
    /// Starts a name server on `sockets`.
    ///
    /// # Errors
    /// When its settings cannot be read or its sockets not be watched.
    pub fn open(
        settings: &Path,
        sockets: Sockets,
        poller: &Poller,
    ) -> Result<Resolver, ResolverError> {
        let failed = |source| ResolverError::Sockets { source };
        let zones = Zones::open(settings).map_err(|source| ResolverError::Settings { source })?;
        let (udp, tcp, far) = sockets.into_parts();
        let mut udp = Watch::new(udp, Kind::Resolver, UDP);
        let mut tcp = Watch::new(tcp, Kind::Resolver, TCP);
        udp.set(poller, Some(Interest::Read)).map_err(failed)?;
        tcp.set(poller, Some(Interest::Read)).map_err(failed)?;
        Ok(Resolver {
            zones,
            far,
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
        &mut self,
        id: u32,
        upstream: usize,
        client: SocketAddr,
        query: Query,
        message: Vec<u8>,
        poller: &Poller,
    ) -> Option<Question> {
        let servers: Vec<Upstream> =
            self.zones.settings.upstreams.iter().take(UPSTREAMS_MAX).copied().collect();
        for (upstream, server) in servers.into_iter().enumerate().skip(upstream) {
            let sent_id = random();
            let mut sent = message.clone();
            message::set_id(&mut sent, sent_id);
            let Ok(socket) = self.far.connect(server, SocketType::DGRAM) else { continue };
            let mut socket = Watch::new(socket, Kind::Resolver, id);
            let watched = socket.set(poller, Some(Interest::Read));
            if watched.is_ok() && rustix::net::send(&socket, &sent, SendFlags::DONTWAIT).is_ok() {
                let until = Instant::now() + UPSTREAM_PATIENCE;
                let question =
                    Question { client, query, message, socket, sent_id, upstream, server, until };
                return Some(question);
            }
            self.far.give_back(socket.take(poller), server, SocketType::DGRAM);
        }
        None
    }

    /// Gives the question to the next server; if there is none, the client gets `last`.
    fn ask_next(&mut self, id: u32, last: Option<&[u8]>, poller: &Poller) {
        let Some(question) = self.questions.remove(&id) else { return };
        let Question { client, query, message, socket, upstream, server, .. } = question;
        self.far.give_back(socket.take(poller), server, SocketType::DGRAM);
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
                if let Some(Question { socket, server, .. }) = self.questions.remove(&id) {
                    self.far.give_back(socket.take(poller), server, SocketType::DGRAM);
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

/// Bits that an outsider cannot guess.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Two bytes come at once or not at all, and after boot they come.
    let _complete = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests;
