//! Questions over TCP: one connection, one question at a time, upstream by TCP as well.
//!
//! ```text
//! Reading ──question──▶ answered at once ──▶ Writing ──▶ Reading …
//!    └── for upstream ──▶ Asking ──answer──▶ Writing
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use net::zone::Upstream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};
use sys::epoll::{Interest, Poller, Ready};

use super::message::Query;
use super::zones::Found;
use super::{CLIENTS_MAX, Resolver, UPSTREAM_PATIENCE, UPSTREAMS_MAX};
use crate::run::watch::{Kind, Watch};

/// How long a client may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A client's connection, and the upstream connection of its question.
#[derive(Debug)]
pub struct TcpClient {
    near: Stream,
    far: Option<Question>,
    until: Instant,
}

#[derive(Debug)]
struct Question {
    stream: Stream,
    query: Query,
    /// The length-prefixed query.
    frame: Vec<u8>,
    upstream: usize,
    server: Upstream,
}

/// A connection that carries length-prefixed messages.
#[derive(Debug)]
struct Stream {
    id: u32,
    socket: Watch,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Over;

impl TcpClient {
    pub fn until(&self) -> Instant {
        self.until
    }
}

impl Resolver {
    pub(super) fn accept(&mut self, poller: &Poller) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.tcp, flags) else { return };
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        let id = self.take_id();
        if let Ok(near) = Stream::open(socket, id, poller) {
            let until = Instant::now() + IDLE_MAX;
            self.clients.insert(id, TcpClient { near, far: None, until });
        }
    }

    /// A client's socket, or the upstream one of its question, has news.
    pub(super) fn client(&mut self, id: u32, news: Ready, poller: &Poller, scratch: &mut [u8]) {
        let owner = self.clients.iter().find_map(|(&owner, client)| {
            let far = client.far.as_ref().is_some_and(|question| question.stream.id == id);
            (owner == id || far).then_some(owner)
        });
        let Some(owner) = owner else { return };
        let Some(mut client) = self.clients.remove(&owner) else { return };
        let result = if owner == id {
            self.client_news(&mut client, news, poller, scratch)
        } else {
            self.upstream_news(&mut client, news, poller, scratch)
        };
        match result {
            Ok(()) => drop(self.clients.insert(owner, client)),
            Err(Over) => self.close_client(client, poller),
        }
    }

    /// A client was idle, or its question's server was too slow.
    pub(super) fn late_client(&mut self, id: u32, poller: &Poller) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        if client.far.is_some() && self.ask_next_tcp(&mut client, poller).is_ok() {
            self.clients.insert(id, client);
        } else {
            self.close_client(client, poller);
        }
    }

    fn close_client(&mut self, client: TcpClient, poller: &Poller) {
        client.near.socket.close(poller);
        if let Some(Question { stream, server, .. }) = client.far {
            self.far.give_back(stream.socket.take(poller), server, SocketType::STREAM);
        }
    }

    fn client_news(
        &mut self,
        client: &mut TcpClient,
        news: Ready,
        poller: &Poller,
        scratch: &mut [u8],
    ) -> Result<(), Over> {
        if news.writable {
            client.near.flush()?;
        }
        if news.readable || news.hung_up {
            client.near.receive(scratch)?;
        }
        self.next_question(client, poller)
    }

    fn next_question(&mut self, client: &mut TcpClient, poller: &Poller) -> Result<(), Over> {
        while client.far.is_none() && client.near.unsent.is_empty() {
            let Some(frame) = client.near.take_frame() else { break };
            client.until = Instant::now() + IDLE_MAX;
            let query = Query::parse(&frame[2..]).ok_or(Over)?;
            self.zones.refresh();
            match self.zones.find(&query) {
                Found::Here(answer) => {
                    client.near.send(&query.answer(&answer, usize::from(u16::MAX)))?;
                }
                Found::Nobody => client.near.send(&query.fail())?,
                Found::Upstream => self.ask_tcp(client, query, frame, 0, poller)?,
            }
        }
        let waits = client.far.is_some() || !client.near.unsent.is_empty();
        client.near.watch(poller, !waits)
    }

    /// Sends the question to the first server from `upstream` on that can be reached.
    fn ask_tcp(
        &mut self,
        client: &mut TcpClient,
        query: Query,
        frame: Vec<u8>,
        upstream: usize,
        poller: &Poller,
    ) -> Result<(), Over> {
        let servers = self.zones.settings.upstreams.iter().take(UPSTREAMS_MAX).copied().enumerate();
        let servers: Vec<_> = servers.skip(upstream).collect();
        for (upstream, server) in servers {
            let Ok(socket) = self.far.connect(server, SocketType::STREAM) else { continue };
            let id = self.take_id();
            let Ok(mut stream) = Stream::open(socket, id, poller) else { continue };
            stream.unsent.extend_from_slice(&frame);
            if stream.watch(poller, true).is_ok() {
                client.far = Some(Question { stream, query, frame, upstream, server });
                client.until = Instant::now() + UPSTREAM_PATIENCE;
                return Ok(());
            }
        }
        client.near.send(&query.fail())
    }

    fn ask_next_tcp(&mut self, client: &mut TcpClient, poller: &Poller) -> Result<(), Over> {
        let Some(Question { stream, query, frame, upstream, server }) = client.far.take() else {
            return Ok(());
        };
        self.far.give_back(stream.socket.take(poller), server, SocketType::STREAM);
        self.ask_tcp(client, query, frame, upstream + 1, poller)?;
        self.next_question(client, poller)
    }

    fn upstream_news(
        &mut self,
        client: &mut TcpClient,
        news: Ready,
        poller: &Poller,
        scratch: &mut [u8],
    ) -> Result<(), Over> {
        let Some(question) = &mut client.far else { return Ok(()) };
        let mut alive = Ok(());
        if news.writable {
            alive = question.stream.flush();
        }
        if alive.is_ok() && (news.readable || news.hung_up) {
            alive = question.stream.receive(scratch);
        }
        let answer = question.stream.take_frame();
        if let Some(answer) =
            answer.filter(|frame| question.query.is_answered_by(question.query.id, &frame[2..]))
        {
            if let Some(Question { stream, server, .. }) = client.far.take() {
                self.far.give_back(stream.socket.take(poller), server, SocketType::STREAM);
            }
            client.until = Instant::now() + IDLE_MAX;
            client.near.send(&answer[2..])?;
            return self.next_question(client, poller);
        }
        if alive.is_err() {
            return self.ask_next_tcp(client, poller);
        }
        question.stream.watch(poller, true)
    }
}

impl Stream {
    fn open(socket: OwnedFd, id: u32, poller: &Poller) -> io::Result<Stream> {
        let mut socket = Watch::new(socket, Kind::Resolver, id);
        socket.set(poller, Some(Interest::Read))?;
        Ok(Stream { id, socket, received: Vec::new(), unsent: Vec::new() })
    }

    fn watch(&mut self, poller: &Poller, reads: bool) -> Result<(), Over> {
        let interest = Interest::of(reads, !self.unsent.is_empty());
        self.socket.set(poller, Some(interest)).map_err(|_| Over)
    }

    fn receive(&mut self, scratch: &mut [u8]) -> Result<(), Over> {
        match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(Over),
            Ok((_, count)) => {
                self.received.extend_from_slice(&scratch[..count]);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Over),
        }
    }

    /// The first whole message with its length.
    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.received.first_chunk()?));
        if self.received.len() < 2 + length {
            return None;
        }
        Some(self.received.drain(..2 + length).collect())
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Over> {
        let length = u16::try_from(message.len()).map_err(|_| Over)?;
        self.unsent.extend_from_slice(&length.to_be_bytes());
        self.unsent.extend_from_slice(message);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Over> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(&self.socket, &self.unsent, flags) {
            Ok(count) => {
                self.unsent.drain(..count);
                Ok(())
            }
            // A connection that is still being made takes nothing yet.
            Err(Errno::AGAIN | Errno::INTR | Errno::INPROGRESS) => Ok(()),
            Err(_) => Err(Over),
        }
    }
}
