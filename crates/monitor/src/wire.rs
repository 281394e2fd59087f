//! The protocol between daemon and monitor, version 1.
//!
//! ```text
//! frame    = length (u32, little-endian) body
//! body     = {"v":1,"seq":N,"fds":N,"request":{…}}         daemon → monitor
//!          | {"v":1,"re":N,"fds":N,"event":{…}}            monitor → daemon; "re" only in a reply
//! ```
//!
//! Descriptors ride on the first byte of the frame that names them, by SCM_RIGHTS; "fds" is there
//! only if there are any. Each request gets exactly one reply, whose `re` is the request's `seq`;
//! other events are pushed on every control connection.
//!
//! A process speaks it in two roles. A launcher waits with privileges for one of [`Request::Launch`],
//! [`Request::Enter`] and [`Request::Delete`]; it is forked by the daemon that uses it, so these may
//! change with every version. A supervisor, which a launcher becomes, has none, and outlives daemons.
//!
//! Always true: a released version's frames between daemon and supervisor never change their
//! meaning. Fields are only added, with defaults, and unknown ones ignored; golden bytes in the
//! tests hold every version released. Monitors from before the launchers
//! ([`State::supervisor`] is false) are asked to signal; they get no execs any more.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::id::Id;
use spec::runtime::{ConsoleSize, NamespaceKind, Process, Spec};

use crate::exit::ExitRecord;
use crate::settings::{MonitorSettings, ProxyPort, RuntimeChoice};

/// The version that this program speaks.
pub const VERSION: u32 = 1;

/// Longest body accepted; beyond it the peer is no monitor and no daemon.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// From the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Request {
    /// To a launcher: makes and starts a container and becomes its supervisor. Descriptors: the
    /// network namespace if `netns`, the filter if `seccomp`, one for each of `places`, then one socket
    /// for each of `attach`.
    /// Answered by `Started`, with the first process's pidfd, or `StartFailed`.
    Launch(Box<Launch>),
    /// To a launcher: starts another process in a container, and stays until that ends. Descriptors:
    /// the pidfd of the container's first process, the filter if `seccomp`, a socket that takes the
    /// exit code, and without a terminal the process's streams: stdin if `stdin`, stdout, stderr.
    /// Answered by `ExecStarted`, with the pidfd and a terminal's master, or `ExecFailed`.
    Enter(Box<Enter>),
    /// To a launcher: removes what another OCI runtime keeps of a container that ended. Answered by
    /// `Done` or `Failed`.
    Delete { bundle: PathBuf, container: Id, runtime: RuntimeChoice },
    /// To a supervisor: takes over a process that a launcher has started. Descriptors: the pidfd, the
    /// socket that brings the exit code, then a terminal's master, or our ends of the streams that
    /// `streams` names; at last a client's socket for `attach`.
    Adopt {
        exec: Id,
        pid: i32,
        streams: Streams,
        #[serde(default)]
        attach: Option<AttachOptions>,
    },
    /// Of monitors before the launchers: makes and starts the container.
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
    /// Starts the resolver, if it does not run yet: its settings are there now. Descriptors: its
    /// sockets in the container's network namespace, as [`crate::resolver::Sockets`] lists them.
    Resolve {
        #[serde(default, skip_serializing_if = "is_zero")]
        sockets: usize,
    },
    /// Hands a client's own socket over. Descriptors: that socket. Answered by `Done` or `Failed`.
    Attach { target: Target, options: AttachOptions },
    /// Of monitors before the launchers: starts another process in the container. Descriptors: a
    /// client's socket for `attach`. Answered by `ExecStarted` or `ExecFailed`.
    Exec(Box<ExecRequest>),
    /// Sets a terminal's size.
    Resize { target: Target, size: ConsoleSize },
    /// Of monitors before the launchers: sends a signal to one process. A supervisor may not.
    Signal { target: Target, signal: i32 },
    /// Ends a process's stdin.
    CloseStdin { target: Target },
    /// Answered by `State`.
    State,
    /// From a newer daemon than this program knows; answered by `Failed`.
    #[serde(other)]
    Unknown,
}

/// A container to be made and started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The run directory: the control socket and what is said on stderr go there.
    pub bundle: PathBuf,
    pub settings: MonitorSettings,
    pub document: Spec,
    pub netns: bool,
    /// Whether a compiled filter comes along, which replaces the document's section.
    pub seccomp: bool,
    /// What the document leaves empty, for descriptors that come along.
    pub places: Vec<Place>,
    pub attach: Vec<AttachOptions>,
}

/// A place of a document that means a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The path of the namespace of this kind, which is joined.
    Namespace(NamespaceKind),
    /// The source of the mount with this index.
    Mount(usize),
}

/// A further process to be started in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enter {
    pub container: Id,
    pub bundle: PathBuf,
    pub exec: Id,
    /// The container's first process, whose pidfd comes along.
    pub pid: i32,
    /// `terminal` and `console_size` count.
    pub process: Process,
    /// As [`crate::settings::MonitorSettings::user`].
    pub user: Option<String>,
    /// As [`crate::settings::MonitorSettings::groups`].
    pub groups: Vec<String>,
    pub cgroup: Option<PathBuf>,
    pub runtime: RuntimeChoice,
    pub seccomp: bool,
    pub stdin: bool,
}

/// Which of a process's streams are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// Its terminal's master.
    Terminal,
    /// Pipes.
    Pipes { stdin: bool },
    /// None: it has /dev/null.
    Nothing,
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

/// From the monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A launcher is there. Descriptor: its own pidfd.
    Ready,
    /// A launcher has what it is to start, and begins.
    Accepted,
    /// The container runs. Pid in the host's eyes. Descriptor: its pidfd.
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
    /// Descriptors: its pidfd, and its terminal's master if it has one.
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

/// All that a daemon must learn again after a restart. Descriptors: the pidfds of `main` and of the
/// execs that run, in their order, as many as one message may carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether this is a supervisor, without privileges. Of monitors before the launchers: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub supervisor: bool,
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
    #[serde(default, skip_serializing_if = "is_zero")]
    fds: usize,
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

/// A request as it arrived, with its descriptors.
#[derive(Debug)]
pub struct ReceivedRequest {
    pub seq: u64,
    pub request: Request,
    pub fds: Vec<OwnedFd>,
}

/// An event as it arrived, with its descriptors and the `seq` of the request it answers.
#[derive(Debug)]
pub struct ReceivedEvent {
    pub re: Option<u64>,
    pub event: Event,
    pub fds: Vec<OwnedFd>,
}

impl Request {
    /// How many descriptors come with the request.
    pub fn fd_count(&self) -> usize {
        match self {
            Request::Launch(launch) => {
                usize::from(launch.netns)
                    + usize::from(launch.seccomp)
                    + launch.places.len()
                    + launch.attach.len()
            }
            Request::Enter(enter) => {
                let streams = if enter.process.terminal { 0 } else { 2 + usize::from(enter.stdin) };
                2 + usize::from(enter.seccomp) + streams
            }
            Request::Adopt { streams, attach, .. } => {
                let streams = match streams {
                    Streams::Terminal => 1,
                    Streams::Pipes { stdin } => 2 + usize::from(*stdin),
                    Streams::Nothing => 0,
                };
                2 + streams + usize::from(attach.is_some())
            }
            Request::Resolve { sockets } => *sockets,
            Request::Start { netns, attach } => usize::from(*netns) + attach.len(),
            Request::Publish { ports } => ports.len(),
            Request::Attach { .. } => 1,
            Request::Exec(exec) => usize::from(exec.attach.is_some()),
            Request::Unpublish { .. }
            | Request::Delete { .. }
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

fn is_false(value: &bool) -> bool {
    !value
}

/// The frame of an event that `fds` descriptors ride on.
pub fn encode_event(re: Option<u64>, event: &Event, fds: usize) -> Vec<u8> {
    encode(&EventBody { v: VERSION, re, fds, event: event.clone() })
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
    pub fn next_request(&mut self) -> Result<Option<ReceivedRequest>, WireError> {
        let Some(body) = self.next_body()? else {
            return Ok(None);
        };
        let body: RequestBody = parse(&body)?;
        let (wanted, present) = (body.fds, self.fds.len());
        if wanted > present || wanted < body.request.fd_count() {
            return Err(WireError::Descriptors { wanted, present });
        }
        let fds = self.fds.drain(..wanted).collect();
        Ok(Some(ReceivedRequest { seq: body.seq, request: body.request, fds }))
    }

    /// The next event, once it is complete.
    ///
    /// # Errors
    /// As [`Decoder::next_request`].
    pub fn next_event(&mut self) -> Result<Option<ReceivedEvent>, WireError> {
        let Some(body) = self.next_body()? else {
            // Those that wait belong to one frame, which is not complete; others nobody names.
            let present = self.fds.len();
            if present > sys::socket::FDS_PER_MESSAGE_MAX {
                return Err(WireError::Descriptors { wanted: 0, present });
            }
            return Ok(None);
        };
        let body: EventBody = parse(&body)?;
        let (wanted, present) = (body.fds, self.fds.len());
        if wanted > present {
            return Err(WireError::Descriptors { wanted, present });
        }
        let fds = self.fds.drain(..wanted).collect();
        Ok(Some(ReceivedEvent { re: body.re, event: body.event, fds }))
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
