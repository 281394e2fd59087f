//! One control connection: requests in, events out, none of it waiting.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SendFlags;
use sys::epoll::{Interest, Poller};

use super::watch::{Kind, Watch};
use crate::complaints::complain;
use crate::wire::{self, Decoder, Event, ReceivedRequest};

/// A daemon that leaves this much unread is cut off; it finds everything again by `State`.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// A connected daemon.
#[derive(Debug)]
pub struct Control {
    socket: Watch,
    decoder: Decoder,
    unsent: Vec<u8>,
}

/// The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Control {
    pub fn new(socket: OwnedFd, id: u32, poller: &Poller) -> io::Result<Control> {
        super::process::nonblocking(&socket)?;
        let mut socket = Watch::new(socket, Kind::Control, id);
        socket.set(poller, Some(Interest::Read))?;
        Ok(Control { socket, decoder: Decoder::default(), unsent: Vec::new() })
    }

    /// Takes what has arrived; the requests that came before an end still count.
    pub fn receive(&mut self) -> (Vec<ReceivedRequest>, Result<(), Closed>) {
        let mut bytes = [0; 16 << 10];
        let mut end = Ok(());
        loop {
            let mut fds = Vec::new();
            match sys::socket::recv_with_fds(&self.socket, &mut bytes, &mut fds) {
                Ok(0) => {
                    end = Err(Closed);
                    break;
                }
                Ok(count) => self.decoder.feed(&bytes[..count], fds),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    end = Err(Closed);
                    break;
                }
            }
        }
        let mut requests = Vec::new();
        loop {
            match self.decoder.next_request() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => return (requests, end),
                Err(error) => {
                    complain!("a control connection is cut off: {error}");
                    return (requests, Err(Closed));
                }
            }
        }
    }

    /// Sends an event, or keeps it for [`Control::flush`]; one with descriptors goes now or not at all.
    pub fn send(
        &mut self,
        re: Option<u64>,
        event: &Event,
        fds: &[BorrowedFd<'_>],
        poller: &Poller,
    ) -> Result<(), Closed> {
        let frame = wire::encode_event(re, event, fds.len());
        if fds.is_empty() {
            self.unsent.extend_from_slice(&frame);
            return self.flush(poller);
        }
        // They ride on the first byte of their own frame.
        self.flush(poller)?;
        if !self.unsent.is_empty() {
            return Err(Closed);
        }
        let sent = loop {
            match sys::socket::send_with_fds(&self.socket, &frame, fds) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => break sent.map_err(|_| Closed)?,
            }
        };
        self.unsent.extend_from_slice(&frame[sent..]);
        self.flush(poller)
    }

    /// Sends what was kept.
    pub fn flush(&mut self, poller: &Poller) -> Result<(), Closed> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while !self.unsent.is_empty() {
            match rustix::net::send(&self.socket, &self.unsent, flags) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.unsent.len() < UNSENT_BYTES_MAX => break,
                Err(_) => return Err(Closed),
            }
        }
        let interest = Interest::of(true, !self.unsent.is_empty());
        self.socket.set(poller, Some(interest)).map_err(|_| Closed)
    }

    /// Whether events are still to be sent.
    pub fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub fn close(self, poller: &Poller) {
        self.socket.close(poller);
    }
}
