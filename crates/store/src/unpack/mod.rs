//! Unpacking: strangers' archives are read by processes that can do nothing else.
//!
//! Whatever decompresses or takes apart an archive is a [`Job`] of a process that was made for this one
//! archive. The daemon pumps the archive into a pipe, hashing it, and hears what is in it; what is
//! written is written by that process, below one directory.
//!
//! ```text
//!  daemon ──Job + descriptors──▶ server ──clone3──▶ one process for each archive
//!    │  ▲                         (confined)          │  ▲
//!    │  └── events: what there is, what it asks for ──┘  │
//!    └───────────── the archive, by a pipe ──────────────┘
//! ```
//! The **server** is this program in the role `unpack`, started with the daemon and confined with the first archive. It has a user
//! namespace of its own (all ids are themselves in it), and mount, network, IPC, UTS and control group
//! namespaces, an empty read-only root, no_new_privs and the highest score for the OOM killer; it
//! reads nothing but jobs. A **process** that it makes has, besides: its own PID namespace; the
//! archive, the socket to the daemon and one directory, open; that directory for a root, which is a
//! detached mount of it without devices, set-id and execution, so that not even `..` leads out; four
//! capabilities over files in its user namespace and none in the host's; Landlock for the directory; a
//! list of the system calls that it needs; limits of memory, processor time and descriptors
//! (`confine.rs`). It is killed when the daemon hangs up or is gone.
//!
//! A user namespace may not make devices, nor set attributes in `trusted.` and `security.` as the host
//! has them. These few the process asks for, by a descriptor and a name, and `host.rs` does them after a
//! look at both. Owners, modes, hard links, whiteouts and all else it does itself.
//!
//! Whoever subverts such a process can make of this one layer or directory what its archive could have
//! said anyway, and give a layer that came compressed another layer's diff id. The digest of what came
//! is the daemon's own, and so is the diff id of what came plain. Nothing is looked at or becomes
//! visible before the process has ended, and then only if it made what it should
//! ([`crate::draft::Draft::check`]).
//!
//! Always true: a process that dies, by whatever cause, is an error of its job; the daemon removes what
//! it left, and after a kill of the daemon the next start does.

pub(crate) mod confine;
mod host;
pub(crate) mod job;
pub(crate) mod server;
pub(crate) mod wire;

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use spec::Digest;
use sys::mount::{Attributes, Change, Depth};

use crate::tar::TarError;
use wire::{Channel, Ending, Event, Job, Packet, Receiver};

/// Where archives are unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Unpacking {
    /// In processes of this program, whose first word is `unpack`.
    Program(PathBuf),
    /// On a thread of this process, with all that this process may do: for tests of everything else.
    #[default]
    Here,
}

/// Why an archive was not unpacked although nothing was found wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum UnpackerError {
    #[error("cannot start the process that unpacks archives")]
    Start(#[source] io::Error),
    #[error("cannot confine the process that unpacks archives: {0}")]
    Confine(String),
    #[error("cannot show a directory to the process that unpacks archives")]
    Directory(#[source] io::Error),
    #[error("cannot talk to the process that unpacks the archive")]
    Talk(#[source] io::Error),
    #[error(
        "the process that unpacked the archive was killed by signal {0}: it had taken more memory or time than it may, or the host ran out of memory"
    )]
    Killed(i32),
    #[error("the process that unpacked the archive ended early, with status {0}")]
    Ended(i32),
    #[error("the process that unpacked the archive made {0:?}, which has no place there")]
    Strange(PathBuf),
}

/// What a job works on.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Nothing,
    File(BorrowedFd<'a>),
    /// A directory that this process sees.
    Directory(BorrowedFd<'a>),
    /// The same as a mount of its own already, attached nowhere.
    Detached(BorrowedFd<'a>),
}

/// What was pumped.
pub(crate) struct Pumped {
    pub(crate) bytes: u64,
    /// Of all bytes that came, if all came and the job wants it.
    pub(crate) digest: Option<Digest>,
    end: PumpEnd,
}

enum PumpEnd {
    All,
    /// Nobody read on.
    Unread,
    Failed(io::Error),
}

/// Has archives unpacked.
pub(crate) struct Unpacker {
    how: Unpacking,
    server: Mutex<Option<Server>>,
}

/// The server's process. It ends when its control socket closes.
struct Server {
    /// Which one in this daemon's life.
    number: u64,
    control: Option<OwnedFd>,
    process: Child,
    is_confined: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control = None;
        // It does nothing but wait for that.
        let _ = self.process.wait();
    }
}

impl Unpacker {
    pub(crate) fn new(how: Unpacking) -> Unpacker {
        Unpacker { how, server: Mutex::new(None) }
    }

    /// Starts the server, so that the first archive need not wait for it. Without success that one tries
    /// again.
    pub(crate) fn prepare(&self) {
        if let Unpacking::Program(program) = &self.how
            && let Ok(started) = Server::start(program)
        {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        }
    }

    /// Has `job` done with the archive `source`; `talk` hears what is said until [`Event::Done`].
    /// Returns when the process has ended.
    pub(crate) fn run<T, E: From<TarError>>(
        &self,
        job: &Job,
        source: impl Read + Send,
        place: Place<'_>,
        talk: impl FnOnce(&mut Session) -> Result<T, E>,
    ) -> Result<(T, Pumped), E> {
        let broken = |error| E::from(TarError::Unpacker(error));
        std::thread::scope(|scope| {
            let (mut session, writer) = match &self.how {
                Unpacking::Program(program) => self.begin(program, job, place).map_err(broken)?,
                Unpacking::Here => {
                    let Ends { session, writer, reader, reply } =
                        Ends::make(job).map_err(broken)?;
                    scope.spawn(move || here(job, reader, reply, place));
                    let mut session = session;
                    session.begun().map_err(broken)?;
                    (session, writer)
                }
            };
            let hash = job.wants_digest().then(Sha256::new);
            let pump = scope.spawn(move || pump(source, writer, hash));
            let said = talk(&mut session);
            let ended = match &said {
                Ok(_) => session.end().map_err(broken),
                Err(_) => session.abort().map_err(broken),
            };
            let pumped = pump.join().expect("pumping does not panic");
            match (pumped, said) {
                (Pumped { end: PumpEnd::Failed(error), .. }, said)
                    if said.is_err() || job.reads_all() =>
                {
                    Err(TarError::Read(error).into())
                }
                (pumped, said) => {
                    let said = said?;
                    ended?;
                    Ok((said, pumped))
                }
            }
        })
    }

    /// Has a process made that waits for its archive.
    fn begin(
        &self,
        program: &Path,
        job: &Job,
        place: Place<'_>,
    ) -> Result<(Session, OwnedFd), UnpackerError> {
        let mut tries = 0;
        loop {
            let Ends { mut session, writer, reader, reply } = Ends::make(job)?;
            let number = self.send(program, job, reader, reply, place)?;
            match session.begun() {
                Ok(()) => return Ok((session, writer)),
                // The server was just being killed, by the kernel for want of memory perhaps.
                Err(UnpackerError::Talk(_)) if tries == 0 => tries += 1,
                Err(error) => return Err(error),
            }
            let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
            server.take_if(|known| known.number == number);
        }
    }

    /// Sends a job to the server, which is started where none lives; gives the server's number.
    fn send(
        &self,
        program: &Path,
        job: &Job,
        archive: OwnedFd,
        reply: OwnedFd,
        place: Place<'_>,
    ) -> Result<u64, UnpackerError> {
        let clone;
        let place = match place {
            Place::Nothing => None,
            Place::File(file) => Some(file),
            Place::Detached(mount) => Some(mount),
            Place::Directory(directory) => {
                clone = detached(directory).map_err(UnpackerError::Directory)?;
                Some(clone.as_fd())
            }
        };
        let text = serde_json::to_vec(job).map_err(|error| UnpackerError::Talk(error.into()))?;
        let fds: Vec<BorrowedFd<'_>> =
            [Some(archive.as_fd()), Some(reply.as_fd()), place].into_iter().flatten().collect();
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tries = 0;
        loop {
            let known = match &mut *server {
                Some(known) => known,
                None => server.insert(Server::start(program)?),
            };
            let number = known.number;
            let sent = known.confined().and_then(|control| {
                sys::socket::send_with_fds(control, &text, &fds).map_err(UnpackerError::Talk)
            });
            match sent {
                Ok(_) => return Ok(number),
                // It was killed since the last archive.
                Err(UnpackerError::Talk(_)) if tries == 0 => tries += 1,
                Err(error) => {
                    *server = None;
                    return Err(error);
                }
            }
            *server = None;
        }
    }
}

/// The ends of a pipe for an archive and of a socket for the talk about it.
struct Ends {
    session: Session,
    writer: OwnedFd,
    reader: OwnedFd,
    reply: OwnedFd,
}

impl Ends {
    fn make(job: &Job) -> Result<Ends, UnpackerError> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (reader, writer) = pipe.map_err(|error| UnpackerError::Start(error.into()))?;
        let (ours, reply) = wire::pair().map_err(UnpackerError::Start)?;
        Ok(Ends { session: Session::new(ours, job), writer, reader, reply })
    }
}

/// A mount of `directory` that is attached nowhere, with what is mounted below. No device of it can be
/// opened and no program of it gains anything, by whichever way.
pub(crate) fn detached(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mount = sys::mount::clone_tree(directory, Path::new(""), Depth::Recursive)?;
    let set = Attributes::NO_DEV.with(Attributes::NO_SUID).with(Attributes::NO_EXEC);
    let change = Change { set, ..Change::default() };
    sys::mount::change(&mount, Depth::Recursive, change)?;
    Ok(mount)
}

impl Server {
    fn start(program: &Path) -> Result<Server, UnpackerError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let (ours, theirs) = wire::pair().map_err(UnpackerError::Start)?;
        let mut command = Command::new(program);
        // The path of a sealed program is a descriptor's, which says nothing to whoever lists processes.
        command.arg0("tug").arg("unpack").env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        sys::process::with_standard_streams_alone(&mut command);
        let process = command.spawn().map_err(UnpackerError::Start)?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Server { number, control: Some(ours), process, is_confined: false })
    }

    /// The socket for jobs, once the server has given up everything else.
    fn confined(&mut self) -> Result<BorrowedFd<'_>, UnpackerError> {
        let talk = UnpackerError::Talk;
        let Some(control) = &self.control else { unreachable!("it is taken in drop alone") };
        let control = control.as_fd();
        let mut receiver = Receiver::default();
        while !self.is_confined {
            match receiver.receive(control).map_err(talk)? {
                Packet::Event => {}
                Packet::Data(_) | Packet::End => {
                    return Err(talk(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            match receiver.event().map_err(talk)? {
                server::Greeting::Unmapped => {
                    // It is our child and not reaped, so its number is its own.
                    confine::map_all_ids(self.process.id()).map_err(UnpackerError::Start)?;
                    let mapped = server::Greeting::Mapped;
                    wire::send_event(control, &mapped, None).map_err(talk)?;
                }
                server::Greeting::Ready => self.is_confined = true,
                server::Greeting::Failed(words) => return Err(UnpackerError::Confine(words)),
                server::Greeting::Mapped => return Err(talk(io::ErrorKind::InvalidData.into())),
            }
        }
        Ok(control)
    }
}

/// Does a job on this thread.
fn here(job: &Job, archive: OwnedFd, reply: OwnedFd, place: Place<'_>) {
    let path = |fd: BorrowedFd<'_>| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let ground = match place {
        Place::Nothing => Ok(job::Ground::Nothing),
        Place::File(file) => file.try_clone_to_owned().map(|file| job::Ground::File(file.into())),
        Place::Directory(directory) | Place::Detached(directory) => {
            Ok(job::Ground::Directory(path(directory)))
        }
    };
    let channel = Channel::new(reply);
    // The other side sees that there is no last word.
    let Ok(ground) = ground else { return };
    job::run(job, File::from(archive), channel, ground, job::Rights::All);
}

const PUMP_BYTES: usize = 256 << 10;
/// pipe(7): what a pipe may be without privileges.
const PIPE_BYTES: usize = 1 << 20;

fn pump(mut source: impl Read, pipe: OwnedFd, mut hash: Option<Sha256>) -> Pumped {
    // A smaller one only takes more turns.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
    let (mut pipe, mut bytes) = (File::from(pipe), 0);
    let mut buffer = vec![0; PUMP_BYTES];
    let end = loop {
        match source.read(&mut buffer) {
            Ok(0) => break PumpEnd::All,
            Ok(got) => {
                if let Some(hash) = &mut hash {
                    hash.update(&buffer[..got]);
                }
                bytes += got as u64;
                if pipe.write_all(&buffer[..got]).is_err() {
                    break PumpEnd::Unread;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break PumpEnd::Failed(error),
        }
    };
    let digest = hash.map(|hash| Digest::from_raw(hash.finalize().into()));
    Pumped { bytes, digest, end }
}

/// The daemon's end of a talk about one archive.
pub(crate) struct Session {
    socket: OwnedFd,
    receiver: Receiver,
    may_mark: host::Marks,
    ending: Option<Ending>,
}

/// What the other side said.
pub(crate) enum Said<'a> {
    Event(Event),
    Data(&'a [u8]),
}

impl Session {
    fn new(socket: OwnedFd, job: &Job) -> Session {
        let may_mark = if job.makes_layers() { host::Marks::Opaque } else { host::Marks::None };
        Session { socket, receiver: Receiver::default(), may_mark, ending: None }
    }

    /// Waits for the process's first word.
    fn begun(&mut self) -> Result<(), UnpackerError> {
        match self.next()? {
            Said::Event(Event::Begun) => Ok(()),
            Said::Event(_) | Said::Data(_) => {
                Err(UnpackerError::Talk(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// The next thing said that is for the caller.
    ///
    /// # Errors
    /// When the process has ended, or makes no sense.
    pub(crate) fn next(&mut self) -> Result<Said<'_>, UnpackerError> {
        let length = loop {
            match self.receiver.receive(self.socket.as_fd()).map_err(UnpackerError::Talk)? {
                Packet::End => return Err(self.early_end()),
                Packet::Data(length) => break length,
                Packet::Event => {}
            }
            let event = self.receiver.event().map_err(UnpackerError::Talk)?;
            match host::serve(&event, &self.receiver.fds, self.may_mark) {
                Some(outcome) => {
                    let number = outcome.err().map(|error| error.raw_os_error().unwrap_or(5));
                    self.answer(&number)?;
                }
                None => match event {
                    Event::Exited(ending) => self.ending = Some(ending),
                    Event::Unconfined(words) => return Err(UnpackerError::Confine(words)),
                    event => return Ok(Said::Event(event)),
                },
            }
        };
        Ok(Said::Data(self.receiver.data(length)))
    }

    /// So many bytes that come as data.
    ///
    /// # Errors
    /// As [`Session::next`]; when fewer or more come.
    pub(crate) fn content(&mut self, size: u64) -> Result<Vec<u8>, UnpackerError> {
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            match self.next()? {
                Said::Data(data) => content.extend_from_slice(data),
                Said::Event(_) => {
                    return Err(UnpackerError::Talk(io::ErrorKind::InvalidData.into()));
                }
            }
        }
        match content.len() as u64 == size {
            true => Ok(content),
            false => Err(UnpackerError::Talk(io::ErrorKind::InvalidData.into())),
        }
    }

    pub(crate) fn answer(&self, answer: &impl serde::Serialize) -> Result<(), UnpackerError> {
        wire::send_event(self.socket.as_fd(), answer, None).map_err(UnpackerError::Talk)
    }

    fn early_end(&self) -> UnpackerError {
        match &self.ending {
            Some(Ending::Signal(signal)) => UnpackerError::Killed(*signal),
            Some(Ending::Code(code)) => UnpackerError::Ended(*code),
            Some(Ending::NotStarted(words)) => UnpackerError::Confine(words.clone()),
            None => UnpackerError::Talk(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Waits until the process, which has said its last, has ended. The server closes its end of the
    /// socket only then.
    fn end(&mut self) -> Result<(), UnpackerError> {
        loop {
            match self.receiver.receive(self.socket.as_fd()).map_err(UnpackerError::Talk)? {
                Packet::End if self.ending == Some(Ending::Code(0)) => return Ok(()),
                Packet::End => return Err(self.early_end()),
                Packet::Event => {
                    if let Ok(Event::Exited(ending)) = self.receiver.event() {
                        self.ending = Some(ending);
                    }
                }
                Packet::Data(_) => {}
            }
        }
    }

    /// Has the process killed and waits for its end.
    fn abort(&mut self) -> Result<(), UnpackerError> {
        // The server takes this for a hang-up.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        self.end()
    }
}
