//! One attached client: output to its socket, stdin from it.
//!
//! Output that the socket does not take is kept, at most one piece; its process is then read no
//! further until it is gone, so a slow client slows the container down, as with Docker, and costs
//! no memory. A client that hung up is dropped.
//!
//! The socket may be shared with the daemon, so calls say themselves that they do not wait.

use std::borrow::Cow;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use sys::epoll::{Interest, Poller};

use super::watch::{Kind, Watch};
use crate::complaints::complain;
use crate::detach::{DetachKeys, Typed};
use crate::logs::Stream;
use crate::wire::{AttachOptions, Framing};

/// A client that leaves this much unread of a process that has ended is dropped.
const UNSENT_BYTES_MAX: usize = 8 << 20;

/// An attached client.
#[derive(Debug)]
pub struct Attached {
    socket: Watch,
    /// Its process.
    pub process: u32,
    pub options: AttachOptions,
    keys: DetachKeys,
    unsent: Vec<u8>,
    stdin: Stdin,
    /// Nobody reads its output any more, but there may be input that it left.
    pub hung_up: bool,
    /// To be closed once nothing is unsent.
    pub closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stdin {
    Open,
    Ended,
}

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What a client typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// No input yet.
    Nothing,
    Input,
    /// The end: half-closed, or gone.
    End,
    /// Its detach keys, after what input there was.
    Detach,
}

impl Attached {
    pub fn new(socket: OwnedFd, id: u32, process: u32, options: AttachOptions) -> Attached {
        // A peer that vanished from the network is noticed in the end; fails on unix sockets,
        // where that cannot happen.
        let _not_tcp = rustix::net::sockopt::set_socket_keepalive(&socket, true);
        Attached {
            socket: Watch::new(socket, Kind::Client, id),
            process,
            keys: DetachKeys::new(options.detach_keys.clone()),
            stdin: if options.stdin { Stdin::Open } else { Stdin::Ended },
            options,
            unsent: Vec::new(),
            hung_up: false,
            closing: false,
        }
    }

    /// Whether its process must not be read now.
    pub fn is_slow(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether its stdin may still say something.
    pub fn has_stdin(&self) -> bool {
        self.stdin == Stdin::Open
    }

    /// Nobody reads what is sent any more.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
        self.unsent.clear();
    }

    /// Its stdin says nothing more.
    pub fn end_stdin(&mut self) {
        self.stdin = Stdin::Ended;
    }

    /// Whether output of `stream` is for this client. A terminal's output counts as stdout.
    pub fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        }
    }

    /// Sends a piece of output.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Gone> {
        if self.closing || self.hung_up {
            return Ok(());
        }
        let header = match self.options.framing {
            Framing::Raw => Vec::new(),
            Framing::Multiplexed => header(stream, bytes.len()),
        };
        let mut sent = 0;
        if self.unsent.is_empty() {
            sent = self.send(&header, bytes)?;
        }
        if self.unsent.len() + bytes.len() > UNSENT_BYTES_MAX {
            return Err(Gone);
        }
        let of_header = sent.min(header.len());
        self.unsent.extend_from_slice(&header[of_header..]);
        self.unsent.extend_from_slice(&bytes[sent - of_header..]);
        Ok(())
    }

    /// Sends what was kept.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while !self.unsent.is_empty() {
            let sent = self.send(&[], &self.unsent)?;
            if sent == 0 {
                return Ok(());
            }
            self.unsent.drain(..sent);
        }
        self.unsent.shrink_to(4096);
        Ok(())
    }

    /// How many bytes went; 0 when the socket is full.
    fn send(&self, header: &[u8], bytes: &[u8]) -> Result<usize, Gone> {
        let slices = [IoSlice::new(header), IoSlice::new(bytes)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            let mut nothing = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(&self.socket, &slices, &mut nothing, flags) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Reads stdin once: what it gave, and how much of it stands in `scratch`.
    pub fn read(&mut self, scratch: &mut [u8]) -> (Read, usize) {
        loop {
            match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return (Read::End, 0),
                Ok((_, count)) => return (Read::Input, count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return (Read::Nothing, 0),
                Err(_) => return (Read::End, 0),
            }
        }
    }

    /// Looks at input for the detach keys; without any it goes on as it is.
    pub fn typed<'a>(&mut self, bytes: &'a [u8]) -> (Read, Cow<'a, [u8]>) {
        if self.options.detach_keys.is_empty() {
            return (Read::Input, Cow::Borrowed(bytes));
        }
        let mut input = Vec::with_capacity(bytes.len());
        let read = match self.keys.feed(bytes, &mut input) {
            Typed::Input => Read::Input,
            Typed::Detach => Read::Detach,
        };
        (read, Cow::Owned(input))
    }

    /// Watches what matters now; `takes_stdin` is whether the process can take more.
    pub fn watch(&mut self, poller: &Poller, takes_stdin: bool) {
        let reads = self.stdin == Stdin::Open && takes_stdin && !self.closing;
        let interest = Interest::of(reads, !self.unsent.is_empty());
        // A hang-up is told again and again, so only who wants to read on may hear of it.
        let silent = self.hung_up && !reads;
        if let Err(error) = self.socket.set(poller, if silent { None } else { Some(interest) }) {
            complain!("cannot watch an attached client: {error}");
        }
    }

    /// Hangs up, after what was sent has been read by the client.
    pub fn close(self, poller: &Poller) {
        let mut rest = [0; 4096];
        // Closing a TCP socket with unread input resets it, and the client could lose output.
        while matches!(
            rustix::net::recv(&self.socket, &mut rest, RecvFlags::DONTWAIT),
            Ok((_, 1..))
        ) {}
        // The daemon may hold a duplicate, so closing ours is not enough.
        let _already = rustix::net::shutdown(&self.socket, Shutdown::Both);
        self.socket.close(poller);
    }
}

/// The 8 bytes before each piece of multiplexed output.
///
/// Source: moby `pkg/stdcopy`.
fn header(stream: Stream, length: usize) -> Vec<u8> {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let length = u32::try_from(length).expect("pieces are at most one read buffer long");
    let mut header = vec![number, 0, 0, 0];
    header.extend_from_slice(&length.to_be_bytes());
    header
}
