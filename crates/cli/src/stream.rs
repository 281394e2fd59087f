//! Joining our standard streams to a container's: attach, exec, logs.
//!
//! Output is copied as it comes, taken apart into stdout and stderr where it is framed. Input is
//! read by a thread, since a terminal cannot be read without blocking and without changing it
//! for others; it ends with a half-close, after which output still comes. Signals become
//! requests: a change of the window's size resizes, the rest is proxied.

use std::os::fd::AsFd;

use api::{
    client::{Body, Client, Hijacked, segment},
    framing::{Decoder, Stream},
};
use rustix::stdio;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{
    failure::Failure,
    terminal::{self, Output},
};

const PIECE_BYTES: usize = 32 << 10;

/// How output arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Straight from a terminal: all of it is stdout.
    Raw,
    Multiplexed,
}

/// What is joined besides output.
#[derive(Debug, Clone)]
pub struct Joined {
    pub stdin: bool,
    pub framing: Framing,
    /// What detaches when typed; looked for on terminals only, as by Docker's client.
    pub keys: DetachKeys,
}

/// How the joining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The far side closed its half.
    Closed,
    /// The user typed the keys that detach.
    Detached,
}

/// Copies until the far side closes its half or the user detaches.
///
/// # Errors
/// When the connection breaks, or what comes is not framed though it should be.
pub async fn join(connection: Hijacked, joined: Joined) -> Result<Ending, Failure> {
    let (reader, mut writer) = tokio::io::split(connection);
    let mut keys = joined.keys;
    let input = async {
        if joined.stdin {
            let mut pieces = read_stdin();
            while let Some(piece) = pieces.recv().await {
                let (piece, detached) = match joined.framing {
                    Framing::Raw => keys.filter(&piece),
                    Framing::Multiplexed => (piece, false),
                };
                if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
                if detached {
                    return;
                }
            }
        }
        // The process may have closed its input already, which is not ours to report.
        let _ = writer.shutdown().await;
        std::future::pending::<()>().await;
    };
    let output = copy_output(reader, joined.framing);
    tokio::select! {
        done = output => done.map(|()| Ending::Closed),
        () = input => Ok(Ending::Detached),
    }
}

/// A sequence of keys, and how much of it has been typed.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// From text such as `ctrl-p,ctrl-q`; the default when it is empty or wrong.
    pub fn parse(text: &str) -> DetachKeys {
        const DEFAULT: [u8; 2] = [16, 17];
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).unwrap_or_else(|| DEFAULT.to_vec());
        DetachKeys { keys, typed: 0 }
    }

    /// What of `typed` goes on, and whether the sequence is complete. Keys that may be its
    /// beginning wait for the next one.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte != self.keys[self.typed] {
                out.extend_from_slice(&self.keys[..self.typed]);
                self.typed = 0;
            }
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (out, true);
                }
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

/// One key: a character, or `ctrl-` and a letter or one of `@[\\]^_`.
fn key(text: &str) -> Option<u8> {
    if let [byte] = text.as_bytes() {
        return Some(*byte);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [sign @ b'['..=b'_'] => Some(sign - b'[' + 27),
        _ => None,
    }
}

async fn copy_output(
    mut reader: impl AsyncReadExt + Unpin,
    framing: Framing,
) -> Result<(), Failure> {
    let (pieces, written) = write_beside(framing);
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let count = match reader.read(&mut piece).await {
            Ok(0) => break,
            Ok(count) => count,
            // A container that is removed takes its connections along.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(Failure::new(format!("error receiving stream: {error}"))),
        };
        piece.truncate(count);
        // A writer that has ended tells why below.
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    written.await.unwrap_or_else(|_| Err(Failure::new("the output's writer ended early")))
}

/// Writes output in a thread of its own: whoever does not read it now must not keep input, signals
/// and sizes from going the other way.
fn write_beside(
    framing: Framing,
) -> (mpsc::Sender<Vec<u8>>, oneshot::Receiver<Result<(), Failure>>) {
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
    let (done, written) = oneshot::channel();
    std::thread::spawn(move || {
        let mut decoder = Decoder::default();
        let mut outcome = Ok(());
        while outcome.is_ok()
            && let Some(piece) = pieces.blocking_recv()
        {
            outcome = deliver(&mut decoder, framing, &piece);
        }
        // Nobody listens once the user has detached.
        let _ = done.send(outcome);
    });
    (sender, written)
}

/// Writes one piece of output where it belongs.
///
/// # Errors
/// When it is not framed though it should be, or stdout does not take it.
pub fn deliver(decoder: &mut Decoder, framing: Framing, bytes: &[u8]) -> Result<(), Failure> {
    match framing {
        Framing::Raw => terminal::write(Output::Stdout, bytes),
        Framing::Multiplexed => {
            let mut written = Ok(());
            decoder
                .feed(bytes, |stream, payload| {
                    let output = match stream {
                        Stream::Stdin | Stream::Stdout => Output::Stdout,
                        Stream::Stderr | Stream::SystemError => Output::Stderr,
                    };
                    if written.is_ok() {
                        written = terminal::write(output, payload);
                    }
                })
                .map_err(|error| Failure::new(error.to_string()))?;
            written
        }
    }
}

/// What comes in on stdin; ends at its end.
pub fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let stdin = stdio::stdin();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// A request's body read from stdin.
pub fn stdin_body() -> Body {
    let (sender, body) = Body::channel();
    tokio::spawn(async move {
        let mut pieces = read_stdin();
        while let Some(piece) = pieces.recv().await {
            if !sender.send(piece).await {
                return;
            }
        }
    });
    body
}

/// Whose terminal follows the size of ours.
#[derive(Debug, Clone)]
pub enum Resized {
    Container(String),
    Exec(String),
}

impl Resized {
    fn path(&self) -> String {
        match self {
            Resized::Container(id) => format!("/containers/{}/resize", segment(id)),
            Resized::Exec(id) => format!("/exec/{}/resize", segment(id)),
        }
    }
}

/// Tells the daemon our size now and whenever it changes. Never ends.
pub async fn follow_size(client: &Client, target: Resized) {
    let path = target.path();
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    // The process may not be up yet when the first size arrives; then it is said again.
    for pause_ms in [0u64, 10, 20, 30, 40, 50] {
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        if send_size(client, &path).await {
            break;
        }
    }
    while changed.recv().await.is_some() {
        send_size(client, &path).await;
    }
}

/// Says a size one off, then the right one, so that what runs there draws itself anew.
pub async fn redraw(client: &Client, target: &Resized) {
    let Some((rows, columns)) = terminal::size() else { return };
    // Only looks are at stake: whoever runs there may have ended.
    let _ = client
        .post(&target.path())
        .query("h", (u32::from(rows) + 1).to_string())
        .query("w", (u32::from(columns) + 1).to_string())
        .send()
        .await;
}

async fn send_size(client: &Client, path: &str) -> bool {
    let Some((rows, columns)) = terminal::size() else { return true };
    client
        .post(path)
        .query("h", rows.to_string())
        .query("w", columns.to_string())
        .send()
        .await
        .is_ok()
}

/// The signals handed on to a container: all that end or steer a process and can be caught.
const PROXIED: [(i32, &str); 13] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (28, "WINCH"),
    (29, "IO"),
];

/// Signals caught from now on; see [`Signals::proxy`].
pub struct Signals(mpsc::UnboundedReceiver<&'static str>);

impl Signals {
    /// Catches the signals, before the container exists, so that none is lost.
    pub fn catch() -> Signals {
        let (sender, receiver) = mpsc::unbounded_channel();
        for (number, name) in PROXIED {
            let Ok(mut stream) = signal(SignalKind::from_raw(number)) else { continue };
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(name).is_err() {
                        return;
                    }
                }
            });
        }
        Signals(receiver)
    }

    /// Hands every caught signal on to the container. Never ends. With a terminal, a change of
    /// its size is not handed on, since the container's own terminal says so.
    ///
    /// A user who asks for the end three times gets it, whatever the container thinks of signals.
    /// Source: docker CLI 28.2 `cmd/docker/docker.go`, `forceExitAfter3TerminationSignals`.
    pub async fn proxy(mut self, client: &Client, id: &str, tty: bool) {
        let path = format!("/containers/{}/kill", segment(id));
        let mut asked = 0;
        while let Some(name) = self.0.recv().await {
            asked += usize::from(matches!(name, "INT" | "TERM"));
            if asked == 3 && !tty {
                crate::terminal::error_text("\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n");
                std::process::exit(1);
            }
            if tty && name == "WINCH" {
                continue;
            }
            // It may have ended a moment ago.
            let _ = client.post(&path).query("signal", name).send().await;
        }
        std::future::pending::<()>().await;
    }
}

/// Ends with the status of the first signal that would end us; for raw mode, where nothing is
/// proxied, so that the terminal is restored on the way out.
pub async fn deadly_signal() -> u8 {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for number in [1u8, 2, 3, 15] {
        let Ok(mut stream) = signal(SignalKind::from_raw(i32::from(number))) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            stream.recv().await;
            // Nobody listens once the command is over.
            let _ = sender.send(128 + number);
        });
    }
    drop(sender);
    match receiver.recv().await {
        Some(status) => status,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_only_begin_the_sequence_go_on() {
        let mut keys = DetachKeys::parse("");
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        assert_eq!(DetachKeys::parse("ctrl-x,q").keys, [24, b'q']);
        assert_eq!(DetachKeys::parse("nonsense").keys, [16, 17]);
    }
}
