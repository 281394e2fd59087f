//! The protocol between daemon and monitor, version 1.
//!
//! ```text
//! frame    = length (u32, little-endian) body
//! body     = {"v":1,"seq":N,"fds":N,"request":{…}}  daemon → monitor; "fds" only if there are any
//!          | {"v":1,"re":N,"event":{…}}             monitor → daemon; "re" only in an answer
//! ```
//!
//! Descriptors ride on the first byte of the frame that names them, by SCM_RIGHTS. Each request
//! gets exactly one answer, whose `re` is the request's `seq`; other events are pushed on every
//! control connection.
//!
//! Always true: monitors outlive daemons, so a released version's frames never change their
//! meaning. Fields are only added, with defaults, and unknown ones ignored; golden bytes in the
//! tests hold every version released.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::id::Id;
use spec::runtime::{ConsoleSize, Process};

use crate::exit::ExitRecord;
use crate::settings::ProxyPort;

/// The version that this program speaks.
pub const VERSION: u32 = 1;

/// Longest body accepted; beyond it the peer is no monitor and no daemon.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Asked by the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Request {
    /// Makes and starts the container. Descriptors: the network namespace if `netns`, then one
    /// socket for each of `attach`. Answered by `Started` or `StartFailed`.
    Start {
        netns: bool,
        #[serde(default)]
        attach: Vec<AttachOptions>,
    },
    /// Forwards ports in user mode. Descriptors: one listening (UDP: bound) socket for each port.
    /// Answered by `Done` or `Failed`.
    Publish { ports: Vec<ProxyPort> },
    /// Stops forwarding to these addresses of the container.
    Unpublish { to: Vec<std::net::IpAddr> },
    /// Starts the resolver, if it does not run yet: its settings are there now.
    Resolve,
    /// Hands a client's own socket over. Descriptors: that socket. Answered by `Done` or `Failed`.
    Attach { target: Target, options: AttachOptions },
    /// Starts another process in the container. Descriptors: a client's socket for `attach`.
    /// Answered by `ExecStarted` or `ExecFailed`.
    Exec(Box<ExecRequest>),
    /// Sets a terminal's size.
    Resize { target: Target, size: ConsoleSize },
    /// Sends a signal to one process.
    Signal { target: Target, signal: i32 },
    /// Ends a process's stdin.
    CloseStdin { target: Target },
    /// Answered by `State`.
    State,
    /// Asked by a newer daemon than this program knows; answered by `Failed`.
    #[serde(other)]
    Unknown,
}

/// Which process of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Main,
    Exec(Id),
}

/// What an attached client gets and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The bytes that detach when typed one after the other; empty disables detaching.
    #[serde(default)]
    pub detach_keys: Vec<u8>,
    pub framing: Framing,
    /// What the daemon had already read of the client's stdin.
    #[serde(default)]
    pub prelude: Vec<u8>,
}

/// How output is put on a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Bare bytes, as with a terminal.
    Raw,
    /// An 8-byte header before each piece: stream, three zeros, length in big-endian.
    Multiplexed,
}

/// A further process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub exec: Id,
    /// `terminal` and `console_size` count.
    pub process: Process,
    /// As [`crate::settings::MonitorSettings::user`].
    #[serde(default)]
    pub user: Option<String>,
    /// Whether the process gets a stdin; otherwise it reads /dev/null.
    #[serde(default)]
    pub stdin: bool,
    #[serde(default)]
    pub attach: Option<AttachOptions>,
}

/// Told by the monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The container runs. Pid in the host's eyes.
    Started {
        pid: i32,
        started_at: Timestamp,
    },
    /// The container does not run and never will through this monitor, which ends now.
    StartFailed {
        exit_code: i32,
        message: String,
    },
    /// The container ended; its record is on disk. The last event.
    Exited(ExitRecord),
    ExecStarted {
        exec: Id,
        pid: i32,
    },
    /// The process could not be started: 126 or 127, and words for the user.
    ExecFailed {
        exec: Id,
        exit_code: i32,
        message: String,
    },
    ExecExited {
        exec: Id,
        exit_code: i32,
    },
    /// The kernel killed a process for want of memory.
    Oom,
    /// A client went: by its keys, or because it hung up.
    Detached {
        target: Target,
        cause: DetachCause,
    },
    State(State),
    /// The request was carried out.
    Done,
    /// The request could not be carried out.
    Failed {
        message: String,
    },
}

/// Why a client is no longer attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachCause {
    Keys,
    HungUp,
}

/// All that a daemon must learn again after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `None` before `Start`.
    pub main: Option<Running>,
    pub oom_killed: bool,
    pub execs: Vec<ExecState>,
}

/// The container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub pid: i32,
    pub started_at: Timestamp,
}

/// An exec that runs or that ended; the last few hundred of those are kept while the container
/// runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    pub exec: Id,
    pub pid: i32,
    /// `None` while it runs.
    pub exit_code: Option<i32>,
}

#[derive(Serialize, Deserialize)]
struct RequestBody {
    v: u32,
    seq: u64,
    /// How many descriptors ride on the frame: said apart, for a request may be unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    fds: usize,
    request: Request,
}

#[derive(Serialize, Deserialize)]
struct EventBody {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    re: Option<u64>,
    event: Event,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a frame of {0} bytes is longer than any that is sent")]
    TooLong(usize),
    #[error("a frame is malformed")]
    Malformed(#[source] serde_json::Error),
    #[error("the peer speaks version {0} of the monitor's protocol, unknown here")]
    Version(u32),
    #[error("a frame says {wanted} descriptors, of which {present} came, or needs more")]
    Descriptors { wanted: usize, present: usize },
}

/// A request with its descriptors.
#[derive(Debug)]
pub struct Asked {
    pub seq: u64,
    pub request: Request,
    pub fds: Vec<OwnedFd>,
}

/// An event, and the `seq` of the request it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub re: Option<u64>,
    pub event: Event,
}

impl Request {
    /// How many descriptors come with the request.
    pub fn fd_count(&self) -> usize {
        match self {
            Request::Start { netns, attach } => usize::from(*netns) + attach.len(),
            Request::Publish { ports } => ports.len(),
            Request::Attach { .. } => 1,
            Request::Exec(exec) => usize::from(exec.attach.is_some()),
            Request::Unpublish { .. }
            | Request::Resolve
            | Request::Resize { .. }
            | Request::Signal { .. }
            | Request::CloseStdin { .. }
            | Request::State
            | Request::Unknown => 0,
        }
    }
}

/// The frame of a request.
pub fn encode_request(seq: u64, request: &Request) -> Vec<u8> {
    let fds = request.fd_count();
    encode(&RequestBody { v: VERSION, seq, fds, request: request.clone() })
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The frame of an event.
pub fn encode_event(re: Option<u64>, event: &Event) -> Vec<u8> {
    encode(&EventBody { v: VERSION, re, event: event.clone() })
}

fn encode(body: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, body)
        .expect("our types have string keys and write to memory");
    let length = u32::try_from(frame.len() - 4).expect("our own frames are far below 4 GiB");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Cuts received bytes into frames, and keeps the descriptors that came with them in order.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// Adds what was received.
    pub fn feed(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// The next request, once it is complete.
    ///
    /// # Errors
    /// When the peer cannot be understood; the connection is then of no further use.
    pub fn next_request(&mut self) -> Result<Option<Asked>, WireError> {
        let Some(body) = self.next_body()? else {
            return Ok(None);
        };
        let body: RequestBody = parse(&body)?;
        let (wanted, present) = (body.fds, self.fds.len());
        if wanted > present || wanted < body.request.fd_count() {
            return Err(WireError::Descriptors { wanted, present });
        }
        let fds = self.fds.drain(..wanted).collect();
        Ok(Some(Asked { seq: body.seq, request: body.request, fds }))
    }

    /// The next event, once it is complete.
    ///
    /// # Errors
    /// As [`Decoder::next_request`].
    pub fn next_event(&mut self) -> Result<Option<Told>, WireError> {
        let Some(body) = self.next_body()? else {
            return Ok(None);
        };
        let body: EventBody = parse(&body)?;
        Ok(Some(Told { re: body.re, event: body.event }))
    }

    fn next_body(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        let Some(header) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > BODY_BYTES_MAX {
            return Err(WireError::TooLong(length));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let body = self.bytes[4..4 + length].to_vec();
        self.bytes.drain(..4 + length);
        Ok(Some(body))
    }
}

/// Parses a body. A newer version is worth a clear refusal, even if its body has another shape.
fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, WireError> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let Versioned { v } = serde_json::from_slice(body).map_err(WireError::Malformed)?;
    if v != VERSION {
        return Err(WireError::Version(v));
    }
    serde_json::from_slice(body).map_err(WireError::Malformed)
}

#[cfg(test)]
mod tests;
