//! Bodies: read with a bound on length and on silence, written as the client takes them.

use std::io;
use std::time::Duration;

use api::body::Body;
use bytes::{Bytes, BytesMut};
use engine::distribution::Blob;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::header::EXPECT;
use tokio::time::timeout;

use crate::http::request::RequestBody;

/// A client that says nothing for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A body that was refused is read on for so long, so that the client gets to read the answer.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Pieces of an upload are gathered up to this length before they are written.
const GATHERED_BYTES: usize = 512 << 10;
const PIECE_BYTES: usize = 256 << 10;

/// A request's body.
pub struct Reader {
    body: RequestBody,
    /// Met while gathering, and told after what was gathered.
    failure: Option<io::Error>,
    /// Nothing was read, and the client waits to be told that it may send (RFC 9110, 10.1.1).
    waits: bool,
}

impl Reader {
    pub fn new(body: RequestBody, headers: &HeaderMap) -> Self {
        let expects = headers.get(EXPECT).and_then(|value| value.to_str().ok());
        let waits = expects.is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Self { body, failure: None, waits }
    }

    /// The next bytes; none at the end.
    async fn frame(&mut self) -> io::Result<Option<Bytes>> {
        self.waits = false;
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let incoming = match &mut self.body {
            RequestBody::Read(bytes) if bytes.is_empty() => return Ok(None),
            RequestBody::Read(bytes) => return Ok(Some(std::mem::take(bytes))),
            RequestBody::Incoming(incoming) => incoming,
        };
        loop {
            let frame = timeout(SILENCE_MAX, incoming.frame()).await;
            let frame = frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
            }
        }
    }

    /// The next piece, large enough to be worth a write; none at the end. What came before the
    /// connection broke is given first.
    ///
    /// # Errors
    /// When the client broke off or fell silent.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let Some(first) = self.frame().await? else { return Ok(None) };
        if first.len() >= GATHERED_BYTES {
            return Ok(Some(first));
        }
        let mut gathered = BytesMut::with_capacity(GATHERED_BYTES);
        gathered.extend_from_slice(&first);
        while gathered.len() < GATHERED_BYTES {
            match self.frame().await {
                Ok(Some(more)) => gathered.extend_from_slice(&more),
                Ok(None) => break,
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(Some(gathered.freeze()))
    }

    /// The whole body; none when it is longer than `max` bytes.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub async fn whole(&mut self, max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.frame().await? {
            if whole.len() + bytes.len() > max {
                return Ok(None);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(Some(whole))
    }

    /// Reads on what nobody wants: closing a socket with unread bytes takes the answer from the client.
    pub async fn drain(mut self) {
        if self.waits {
            return;
        }
        let mut left = DRAIN_BYTES_MAX;
        let drained = timeout(DRAIN_TIME, async {
            while let Ok(Some(bytes)) = self.frame().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    return;
                }
            }
        });
        // In time or not, the answer goes out now.
        let _ = drained.await;
    }
}

/// A blob as a body, read as the client takes it.
pub fn of_blob(mut blob: Blob) -> Body {
    let (sender, body) = Body::channel();
    tokio::spawn(async move {
        loop {
            let sent = match blob.piece(PIECE_BYTES).await {
                Ok(piece) if piece.is_empty() => return,
                Ok(piece) => timeout(SILENCE_MAX, sender.send(piece)).await.unwrap_or(false),
                Err(error) => {
                    sender.fail(error).await;
                    return;
                }
            };
            if !sent {
                return;
            }
        }
    });
    body
}
