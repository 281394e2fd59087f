//! One client's connection.
//!
//! The first bytes are read before hyper sees them, because a client may ask to take the
//! connection over without an Upgrade header. hyper cannot answer 200 and then let go of the
//! socket, so such a request is read and answered by hand ([`by_hand`]); everything else goes to
//! hyper with those bytes put back in front.
//!
//! Source: moby 28.2 `api/server/router/container/container_routes.go`, `postContainersAttach`.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use engine::Engine;
use engine::containers::views::ClientSocket;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::reply::Protocol;
use super::reply::{self, Reply};
use super::request::RequestBody;
use super::{Answer, Failure, TakeOver};
use crate::handlers;
use crate::state::State;

/// A head read by hand may not be longer; Go's limit.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// The same for the small JSON body of such a request.
const BODY_BYTES_MAX: usize = 1 << 20;

pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(stream) => Ok(stream.into_std()?.into()),
            Self::Tcp(stream) => Ok(stream.into_std()?.into()),
        }
    }
}

/// A socket with bytes that were read ahead.
pub struct Conn {
    socket: Socket,
    ahead: Bytes,
}

impl Conn {
    /// The bare socket; `after` is what hyper had read beyond the request.
    fn into_client(self, after: Bytes) -> io::Result<ClientSocket> {
        let mut prelude = after.to_vec();
        prelude.extend_from_slice(&self.ahead);
        Ok(ClientSocket { socket: self.socket.into_fd()?, prelude })
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Serves a client until it goes.
pub async fn serve(socket: Socket, engine: Engine, state: Arc<State>) {
    let mut conn = Conn { socket, ahead: Bytes::new() };
    let mut first = BytesMut::with_capacity(4 << 10);
    loop {
        match conn.read_buf(&mut first).await {
            Ok(0) if first.is_empty() => return,
            Ok(0) => break,
            Ok(_) if is_begun_line(&first) => {}
            Ok(_) => break,
            Err(_) => return,
        }
    }
    escape_target(&mut first);
    if may_be_hijack(&first) {
        match read_head(&mut conn, &mut first).await {
            Ok(Some(head)) if !head.headers.contains_key(UPGRADE) => {
                if let Err(error) = by_hand(conn, head, engine, state).await {
                    tracing::debug!(%error, "connection lost");
                }
                return;
            }
            // hyper takes it from the start, also to say what is wrong with it.
            Ok(Some(_) | None) => {}
            Err(_) => return,
        }
    }
    conn.ahead = first.freeze();
    let service = service_fn(move |request| answer(request, engine.clone(), Arc::clone(&state)));
    let served = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(conn), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(error = engine::error::chain(&error), "connection lost");
    }
}

async fn answer(
    mut request: Request<Incoming>,
    engine: Engine,
    state: Arc<State>,
) -> Result<Reply, std::convert::Infallible> {
    let experimental = state.experimental;
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let at = std::time::Instant::now();
    let head = Head { method: parts.method, uri: parts.uri, headers: parts.headers };
    let line = format!("{} {}", head.method, head.uri.path());
    let mut reply = match handlers::answer(head, RequestBody::Incoming(body), engine, state).await {
        Ok(Answer::Reply(reply)) => reply,
        Ok(Answer::TakeOver(take_over)) => match upgrade {
            Some(upgrade) => switch(upgrade, take_over),
            None => pump(take_over).unwrap_or_else(|failure| reply::refuse(&failure)),
        },
        Err(failure) => {
            tracing::debug!(request = line, message = failure.message, "refused");
            reply::refuse(&failure)
        }
    };
    reply::add_common_headers(&mut reply, experimental);
    tracing::debug!(request = line, status = reply.status().as_u16(), took = ?at.elapsed(), "answered");
    Ok(reply)
}

/// 101, and the socket itself to whoever wanted it.
fn switch(upgrade: hyper::upgrade::OnUpgrade, take_over: TakeOver) -> Reply {
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match &take_over.protocol {
        Protocol::Tcp => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(take_over.content_type));
            headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
            // Old clients compare the whole status line.
            reply.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        }
        Protocol::WebSocket { accept } => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            reply::set(&mut reply, "sec-websocket-accept", accept);
        }
    }
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<Conn>>() else {
            tracing::error!("an upgraded connection is of another type");
            return;
        };
        match parts.io.into_inner().into_client(parts.read_buf) {
            Ok(client) => (take_over.then)(client).await,
            Err(error) => tracing::warn!(%error, "cannot take a connection over"),
        }
    });
    reply
}

/// For a client that reuses a connection and did not ask for an upgrade: what the container writes
/// becomes the body of an ordinary answer. Such a client cannot write.
fn pump(take_over: TakeOver) -> Result<Reply, Failure> {
    let no_pair =
        |error: io::Error| Failure::internal(format!("cannot make a socket pair: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(no_pair)?;
    let client = ClientSocket {
        socket: Socket::Unix(theirs).into_fd().map_err(no_pair)?,
        prelude: Vec::new(),
    };
    tokio::spawn((take_over.then)(client));
    Ok(reply::stream(take_over.content_type, Body::from_reader(ours)))
}

/// A request's head, as both ways of reading it give it.
pub struct Head {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
}

/// Percent-encodes what has no place in a URL but that Go's server takes: `?filters={"name":["a"]}`
/// is typed just so after `curl`. Of further requests on the same connection we do not see the head
/// before hyper does, which refuses them.
fn escape_target(first: &mut BytesMut) {
    let Some(end) = first.iter().position(|byte| *byte == b'\n') else { return };
    let stray = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | b'`' | b'^' | b'|' | b'\\');
    if !first[..end].iter().any(stray) {
        return;
    }
    let mut escaped = BytesMut::with_capacity(first.len() + 64);
    for byte in &first[..end] {
        if stray(byte) {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            escaped.extend_from_slice(&[*byte]);
        }
    }
    escaped.extend_from_slice(&first[end..]);
    *first = escaped;
}

/// Whether this is the beginning of a request's first line and the rest is to come: clients may send
/// it in pieces.
fn is_begun_line(read: &[u8]) -> bool {
    read.len() < HEAD_BYTES_MAX && read.iter().all(|byte| (b' '..=b'~').contains(byte))
}

fn may_be_hijack(first: &[u8]) -> bool {
    let Some(line) = first.split(|byte| *byte == b'\r').next() else {
        return false;
    };
    let Some(target) = line.strip_prefix(b"POST ") else {
        return false;
    };
    let path = target.split(|byte| matches!(byte, b' ' | b'?')).next().unwrap_or_default();
    path.ends_with(b"/attach") || path.ends_with(b"/start")
}

/// Reads until the head is whole. `None` when it is no request that we can read; then `read` holds
/// all that was read.
async fn read_head(conn: &mut Conn, read: &mut BytesMut) -> io::Result<Option<Head>> {
    let end = loop {
        match read.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None if read.len() > HEAD_BYTES_MAX => return Ok(None),
            None if conn.read_buf(read).await? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    };
    let Some(head) = parse_head(&read[..end]) else {
        return Ok(None);
    };
    if !head.headers.contains_key(UPGRADE) {
        // This one stays with us: what follows the head is its body.
        read.advance(end);
        conn.ahead = std::mem::take(read).freeze();
    }
    Ok(Some(head))
}

fn parse_head(head: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, protocol) = (words.next()?, words.next()?, words.next()?);
    if !protocol.starts_with("HTTP/1.") {
        return None;
    }
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(Head { method: method.parse().ok()?, uri: target.parse().ok()?, headers })
}

/// Answers a request that takes the connection over, or a failure to, and closes.
async fn by_hand(mut conn: Conn, head: Head, engine: Engine, state: Arc<State>) -> io::Result<()> {
    let experimental = state.experimental;
    let outcome = match read_body(&mut conn, &head.headers).await? {
        Ok(body) => handlers::answer(head, RequestBody::Read(body), engine, state).await,
        Err(failure) => Err(failure),
    };
    let mut reply = match outcome {
        Ok(Answer::TakeOver(take_over)) => {
            let mut reply = reply::stream(take_over.content_type, Body::empty());
            reply::add_common_headers(&mut reply, experimental);
            conn.write_all(&head_bytes(&reply)).await?;
            let client = conn.into_client(Bytes::new())?;
            (take_over.then)(client).await;
            return Ok(());
        }
        Ok(Answer::Reply(reply)) => reply,
        Err(failure) => reply::refuse(&failure),
    };
    reply::add_common_headers(&mut reply, experimental);
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(length) = reply.body().size_hint().exact() {
        reply.headers_mut().insert(hyper::header::CONTENT_LENGTH, length.into());
    }
    conn.write_all(&head_bytes(&reply)).await?;
    let mut body = reply.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            conn.write_all(&data).await?;
        }
    }
    conn.shutdown().await
}

fn head_bytes(reply: &Reply) -> Vec<u8> {
    let status = reply.status();
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    for (name, value) in reply.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The body as its headers measure it; the outer error is the connection's.
async fn read_body(conn: &mut Conn, headers: &HeaderMap) -> io::Result<Result<Bytes, Failure>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let too_long = || Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large");
    if text("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return read_chunks(conn).await;
    }
    let length = match text("content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(length)) if length <= BODY_BYTES_MAX => length,
        Some(Ok(_)) => return Ok(Err(too_long())),
        Some(Err(_)) => return Ok(Err(Failure::invalid("bad Content-Length"))),
    };
    let mut body = vec![0; length];
    conn.read_exact(&mut body).await?;
    Ok(Ok(body.into()))
}

/// Source: RFC 9112, 7.1.
async fn read_chunks(conn: &mut Conn) -> io::Result<Result<Bytes, Failure>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(conn).await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let Ok(length) = usize::from_str_radix(digits, 16) else {
            return Ok(Err(Failure::invalid("bad chunk length")));
        };
        if length == 0 {
            while !read_line(conn).await?.is_empty() {}
            return Ok(Ok(body.into()));
        }
        if length > BODY_BYTES_MAX - body.len() {
            return Ok(Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "http: request body too large",
            )));
        }
        let start = body.len();
        body.resize(start + length, 0);
        conn.read_exact(&mut body[start..]).await?;
        read_line(conn).await?;
    }
}

async fn read_line(conn: &mut Conn) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match conn.read_u8().await? {
            b'\n' => break,
            byte if line.len() < 4096 => line.push(byte),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_have_what_gos_server_takes() {
        for (head, want) in [
            (
                "GET /containers/json?filters={\"name\":[\"a\"]} HTTP/1.1\r\nA: \"b\"\r\n",
                "GET /containers/json?filters={%22name%22:[%22a%22]} HTTP/1.1\r\nA: \"b\"\r\n",
            ),
            ("GET /_ping HTTP/1.1\r\n\r\n", "GET /_ping HTTP/1.1\r\n\r\n"),
            ("GET /\"", "GET /\""),
        ] {
            let mut bytes = BytesMut::from(head);
            escape_target(&mut bytes);
            assert_eq!(bytes, want);
        }
    }

    #[test]
    fn only_requests_that_may_take_the_connection_over_are_read_by_hand() {
        for (line, want) in [
            ("POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\n", true),
            ("POST /exec/x/start HTTP/1.1\r\n", true),
            ("POST /containers/create HTTP/1.1\r\n", false),
            ("GET /containers/x/attach HTTP/1.1\r\n", false),
            ("", false),
        ] {
            assert_eq!(may_be_hijack(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn a_first_line_may_come_in_pieces() {
        for (read, want) in [
            ("PO", true),
            ("POST /v1.41/containers/x/att", true),
            ("POST /exec/x/start HTTP/1.1\r\n", false),
            ("\x16\x03\x01", false),
        ] {
            assert_eq!(is_begun_line(read.as_bytes()), want, "{read:?}");
        }
    }

    #[test]
    fn a_head_is_a_line_and_headers() {
        let head = parse_head(b"POST /a?b=c HTTP/1.1\r\nHost: d\r\nUpgrade:tcp\r\n\r\n").unwrap();
        assert_eq!(head.uri.query(), Some("b=c"));
        assert_eq!(head.headers["upgrade"], "tcp");
        assert!(parse_head(b"POST /a SSH-2.0\r\n\r\n").is_none());
    }

    async fn body_of(
        wire: &'static [u8],
        headers: &[(&'static str, &'static str)],
    ) -> Option<Bytes> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(wire).await.unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let mut conn = Conn { socket: Socket::Unix(ours), ahead: Bytes::new() };
        read_body(&mut conn, &headers).await.unwrap().ok()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bodies_read_by_hand_are_measured_both_ways() {
        let counted = body_of(b"{}rest", &[("content-length", "2")]).await;
        assert_eq!(counted.as_deref(), Some(b"{}".as_slice()));
        let chunked =
            body_of(b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n", &[("transfer-encoding", "chunked")])
                .await;
        assert_eq!(chunked.as_deref(), Some(b"{}".as_slice()));
        let broken = body_of(b"zz\r\n", &[("transfer-encoding", "chunked")]).await;
        assert_eq!(broken, None);
        let none = body_of(b"", &[]).await;
        assert_eq!(none.as_deref(), Some(b"".as_slice()));
    }
}
