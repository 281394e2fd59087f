//! Bodies of requests and answers: nothing, bytes, or a stream with back-pressure.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;

/// Pieces waiting between the producer and the connection.
const QUEUE_LENGTH: usize = 4;
const PIECE_BYTES: usize = 64 << 10;

pub struct Body(Kind);

enum Kind {
    Full(Option<Bytes>),
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

/// The producer's end of [`Body::channel`]. Dropping it ends the body.
#[derive(Clone)]
pub struct BodySender(mpsc::Sender<io::Result<Bytes>>);

impl BodySender {
    /// Waits for room. `false` when the connection is gone.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(Ok(piece.into())).await.is_ok()
    }

    /// Resolves when the other side has gone away.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Breaks the body off, so that the other side does not take half of it for the whole.
    pub async fn fail(&self, error: io::Error) -> bool {
        self.0.send(Err(error)).await.is_ok()
    }

    /// As [`Self::send`], from a thread outside the runtime.
    #[must_use]
    pub fn blocking_send(&self, piece: impl Into<Bytes>) -> bool {
        self.0.blocking_send(Ok(piece.into())).is_ok()
    }

    /// As [`Self::fail`], from a thread outside the runtime.
    #[must_use]
    pub fn blocking_fail(&self, error: io::Error) -> bool {
        self.0.blocking_send(Err(error)).is_ok()
    }
}

impl Body {
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Full(None))
    }

    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(Some(bytes.into())))
    }

    /// A body fed piece by piece.
    #[must_use]
    pub fn channel() -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        (BodySender(sender), Self(Kind::Stream(receiver)))
    }

    /// A body of the pieces that `receiver` gives; an error among them breaks it off.
    #[must_use]
    pub fn from_receiver(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self(Kind::Stream(receiver))
    }

    /// A body read from `reader` as the connection takes it. Needs a running tokio runtime.
    #[must_use]
    pub fn from_reader(mut reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (sender, body) = Self::channel();
        tokio::spawn(async move {
            loop {
                let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
                let sent = match reader.read_buf(&mut piece).await {
                    Ok(0) => return,
                    Ok(_) => sender.send(piece).await,
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
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(receiver) => {
                receiver.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
