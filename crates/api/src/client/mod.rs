//! A client of the Engine API: HTTP/1.1 over a unix socket, TCP, or `docker system dial-stdio`
//! behind ssh.
//!
//! One connection per request: on a local socket that costs some ten microseconds and leaves
//! nothing to keep. Runs on any tokio runtime, also a current-thread one. Answers of 400 and
//! above become [`Error::Api`] with the daemon's own words. Endpoints that take the connection
//! over (attach, exec) are asked with [`Request::hijack`].
//!
//! ```no_run
//! # async fn example() -> Result<(), api::client::Error> {
//! use api::client::{Client, Host};
//! let mut client = Client::new(Host::default());
//! client.negotiate().await?;
//! let rows: Vec<api::container::Summary> =
//!     client.get("/containers/json").query("all", "1").send().await?.json().await?;
//! # Ok(()) }
//! ```

mod host;
mod tls;
mod transport;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use crate::body::{Body, BodySender};
pub use host::{Host, HostError};
pub use tls::{Tls, TlsError, TlsFiles};
pub use transport::dial_ssh;

use crate::system::Ping;
use crate::version::{self, ApiVersion};
use crate::{ErrorResponse, golang};

/// No answer that is read whole may be longer; streams have no limit.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Made ready for an answer that says how long it is; a longer one grows.
const ROOM_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there. Source: docker CLI 28.2 `client/errors.go`.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Connect { host: Host, source: io::Error },
    #[error("cannot find the address of {host}")]
    Resolve { host: Host },
    #[error("error during connect to {host}: {why}")]
    Tls { host: Host, why: String },
    #[error("Error response from daemon: {message}")]
    Api { status: StatusCode, message: String },
    #[error("the connection to {host} broke")]
    Http { host: Host, source: hyper::Error },
    #[error("the request cannot be put into words")]
    Request { source: hyper::http::Error },
    #[error("cannot encode the request")]
    Encode { source: serde_json::Error },
    #[error("cannot decode the answer")]
    Decode { source: serde_json::Error },
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("unable to upgrade to tcp, received {status}")]
    NotUpgraded { status: StatusCode },
}

impl Error {
    /// The status of an error answer.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api { status, .. } => Some(*status),
            Self::Connect { .. }
            | Self::Resolve { .. }
            | Self::Tls { .. }
            | Self::Http { .. }
            | Self::Request { .. }
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::TooLong
            | Self::NotUpgraded { .. } => None,
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }
}

/// Where the daemon is and which version to speak. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
    tls: Option<Tls>,
    version: ApiVersion,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    /// Speaks the newest version until [`Self::negotiate`] or [`Self::set_version`].
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host, tls: None, version: version::MAX, headers: Vec::new() }
    }

    /// Speaks TLS to a host on the network.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    #[must_use]
    pub fn version(&self) -> ApiVersion {
        self.version
    }

    pub fn set_version(&mut self, version: ApiVersion) {
        self.version = version;
    }

    /// A header sent with every request, such as those of the user's config file.
    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.push((name, value));
    }

    /// Asks the daemon who it is.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn ping(&self) -> Result<Ping, Error> {
        let answer = self.request(Method::GET, "/_ping").unversioned().send().await?;
        let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        Ok(Ping {
            api_version: header("api-version"),
            os_type: header("ostype"),
            experimental: header("docker-experimental") == "true",
            builder_version: header("builder-version"),
            swarm: header("swarm"),
        })
    }

    /// Takes the daemon's version where it is older than ours.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn negotiate(&mut self) -> Result<Ping, Error> {
        let ping = self.ping().await?;
        // A daemon that names no version is older than the header: Docker assumes 1.24.
        let theirs = ping.api_version.parse().unwrap_or(version::MIN);
        self.version = self.version.min(theirs);
        Ok(ping)
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Request<'_> {
        self.request(Method::GET, path)
    }

    #[must_use]
    pub fn head(&self, path: &str) -> Request<'_> {
        self.request(Method::HEAD, path)
    }

    #[must_use]
    pub fn post(&self, path: &str) -> Request<'_> {
        self.request(Method::POST, path)
    }

    #[must_use]
    pub fn put(&self, path: &str) -> Request<'_> {
        self.request(Method::PUT, path)
    }

    #[must_use]
    pub fn delete(&self, path: &str) -> Request<'_> {
        self.request(Method::DELETE, path)
    }

    /// `path` begins with "/" and has no version; encode parts of it with [`segment`].
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        Request {
            client: self,
            method,
            path: format!("/v{}{path}", self.version),
            query: form_urlencoded::Serializer::new(String::new()),
            headers: self.headers.clone(),
            body: Body::empty(),
            error: None,
        }
    }

    /// A bare connection to the daemon, for `docker system dial-stdio`.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn dial(&self) -> Result<Box<dyn Io>, Error> {
        transport::connect(&self.host, self.tls.as_ref()).await
    }
}

/// Escapes a name for use as one segment of a path.
#[must_use]
pub fn segment(name: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    // Slash and colon stand in image names, where the daemon expects them as they are.
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'/')
        .remove(b':')
        .remove(b'@');
    utf8_percent_encode(name, ESCAPED).to_string()
}

/// A request being put together.
pub struct Request<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: form_urlencoded::Serializer<'static, String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
    error: Option<Error>,
}

impl Request<'_> {
    /// Leaves the version out of the path.
    #[must_use]
    pub fn unversioned(mut self) -> Self {
        let prefix = format!("/v{}", self.client.version);
        if let Some(path) = self.path.strip_prefix(&prefix) {
            self.path = path.to_owned();
        }
        self
    }

    #[must_use]
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query.append_pair(name, value.as_ref());
        self
    }

    /// Adds `name=1` when set, nothing otherwise.
    #[must_use]
    pub fn flag(self, name: &str, set: bool) -> Self {
        if set { self.query(name, "1") } else { self }
    }

    /// A header; a value that cannot be one fails the request when it is sent.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.headers.push((HeaderName::from_static(name), value)),
            Err(error) => self.error = Some(Error::Request { source: error.into() }),
        }
        self
    }

    /// A JSON body with its content type.
    #[must_use]
    pub fn json<T: Serialize>(mut self, body: &T) -> Self {
        match serde_json::to_vec(body) {
            Ok(json) => {
                self.body = Body::full(json);
                self.header("content-type", "application/json")
            }
            Err(source) => {
                self.error = Some(Error::Encode { source });
                self
            }
        }
    }

    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Body) -> Self {
        self.body = body;
        self.header("content-type", content_type)
    }

    /// Sends, and waits for the head of the answer.
    ///
    /// # Errors
    /// When the daemon cannot be reached, or answers with an error.
    pub async fn send(self) -> Result<Response, Error> {
        let host = self.client.host.clone();
        let answer = self.exchange(Vec::new()).await?;
        Ok(Response { host, answer, rest: BytesMut::new() })
    }

    /// Sends, asking to take the connection over.
    ///
    /// # Errors
    /// As [`Self::send`], and when the daemon does not switch.
    pub async fn hijack(self) -> Result<Hijacked, Error> {
        let host = self.client.host.clone();
        let upgrade = vec![
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("tcp")),
        ];
        let answer = self.exchange(upgrade).await?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotUpgraded { status });
        }
        let content_type = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let upgraded =
            hyper::upgrade::on(answer).await.map_err(|source| Error::Http { host, source })?;
        Ok(Hijacked { content_type, io: TokioIo::new(upgraded) })
    }

    async fn exchange(
        mut self,
        more_headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<hyper::Response<Incoming>, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let host = &self.client.host;
        let io = transport::connect(host, self.client.tls.as_ref()).await?;
        let http = |source| Error::Http { host: host.clone(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(http)?;
        // Ends with the connection; its error also reaches whoever waits for the answer.
        tokio::spawn(connection.with_upgrades());

        let query = self.query.finish();
        let uri = if query.is_empty() { self.path } else { format!("{}?{query}", self.path) };
        let mut request = hyper::Request::builder()
            .method(self.method)
            .uri(uri)
            .header(HOST, host.http_host())
            .header(
                USER_AGENT,
                concat!("Docker-Client/tug-", env!("CARGO_PKG_VERSION"), " (linux)"),
            );
        for (name, value) in self.headers.drain(..).chain(more_headers) {
            request = request.header(name, value);
        }
        let request = request.body(self.body).map_err(|source| Error::Request { source })?;
        let answer = sender.send_request(request).await.map_err(http)?;
        let status = answer.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(api_error(status, answer).await);
        }
        Ok(answer)
    }
}

/// Reads an error answer; whatever its body is, the status stays.
async fn api_error(status: StatusCode, answer: hyper::Response<Incoming>) -> Error {
    let limited = http_body_util::Limited::new(answer.into_body(), 1 << 20);
    let body = match limited.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let message = match golang::from_slice::<ErrorResponse>(&body) {
        Ok(error) if !error.message.is_empty() => error.message,
        Ok(_) | Err(_) => {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            if text.is_empty() { status.to_string() } else { text }
        }
    };
    Error::Api { status, message }
}

/// An answer whose body has yet to be read: whole, line by line, or as it comes.
pub struct Response {
    host: Host,
    answer: hyper::Response<Incoming>,
    rest: BytesMut,
}

impl Response {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.answer.status()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body as it arrives; `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.answer.body_mut().frame().await {
            let frame = frame.map_err(|source| Error::Http { host: self.host.clone(), source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        // As long as the daemon says, or what comes until then; a wrong word costs no more than this.
        let length = self.answer.body().size_hint().lower().min(ROOM_BYTES_MAX);
        let mut body = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// When the connection breaks or the JSON does not fit.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        decode(&self.bytes().await?).map_err(|source| Error::Decode { source })
    }

    /// The next JSON value of a stream, whether or not newlines stand between; `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks or the JSON does not fit.
    pub async fn next_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let decode = |source| Error::Decode { source };
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.rest).into_iter();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    let _ = self.rest.split_to(used);
                    return golang::from_value(value).map(Some).map_err(decode);
                }
                Some(Err(error)) if !error.is_eof() => return Err(decode(error)),
                Some(Err(_)) | None => {}
            }
            match self.chunk().await? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return golang::from_slice(&self.rest).map(Some).map_err(decode),
            }
        }
    }
}

/// Decodes an answer straight into its type, and only where that does not fit (a `null` for a number)
/// by Go's rules, which take a document in between. Daemons spell their fields as the types do.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body).or_else(|_| golang::from_slice(body))
}

/// What a connection must be able to do.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection taken over. Reads begin with what came after the answer's head; `shutdown`
/// closes only our half, so the daemon may go on writing.
pub struct Hijacked {
    /// Says whether output is framed, from API 1.42 on.
    pub content_type: String,
    io: TokioIo<Upgraded>,
}

impl AsyncRead for Hijacked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hijacked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    /// A daemon that says `answer` to the first request, then what it is sent, until its end.
    async fn daemon(
        name: &str,
        answer: &'static [u8],
    ) -> (Client, tokio::task::JoinHandle<String>) {
        let path =
            std::env::temp_dir().join(format!("tug-client-{}-{name}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let client = Client::new(Host::Unix(path.clone()));
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            std::fs::remove_file(path).unwrap();
            let mut seen = Vec::new();
            while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                stream.read_buf(&mut seen).await.unwrap();
            }
            stream.write_all(answer).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = stream.write_all(&rest).await;
            let head = String::from_utf8(seen).unwrap();
            head.lines().next().unwrap().to_owned()
        });
        (client, served)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_error_answer_is_told_in_the_daemons_words() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\n{\"message\":\"no\"}";
        let (client, served) = daemon("error", answer).await;
        let error =
            client.get("/containers/a%20b/json").query("size", "1").send().await.err().unwrap();
        assert!(error.is_not_found());
        expect!["Error response from daemon: no"].assert_eq(&error.to_string());
        drop(client);
        expect!["GET /v1.50/containers/a%20b/json?size=1 HTTP/1.1"]
            .assert_eq(&served.await.unwrap());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn values_of_a_stream_need_no_newlines_and_may_come_in_pieces() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            9\r\n{\"status\"\r\n19\r\n:\"a\"}{\"status\":\"b\"}\r\n{\"st\r\n0c\r\natus\":\"c\"}\r\n\r\n0\r\n\r\n";
        let (client, _served) = daemon("stream", answer).await;
        let mut response = client.get("/events").send().await.unwrap();
        let mut words = Vec::new();
        while let Some(message) = response.next_json::<crate::progress::Message>().await.unwrap() {
            words.push(message.status);
        }
        assert_eq!(words, ["a", "b", "c"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_taken_over_begins_with_what_came_early_and_closes_by_halves() {
        let answer =
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
            Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ";
        let (client, served) = daemon("hijack", answer).await;
        let mut io = client.post("/containers/x/attach").hijack().await.unwrap();
        assert_eq!(io.content_type, crate::framing::RAW_STREAM);
        io.write_all(b"late").await.unwrap();
        io.shutdown().await.unwrap();
        let mut got = String::new();
        io.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "early late");
        served.await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_there_is_said_as_docker_says_it() {
        let client = Client::new("unix:///nonexistent/tug.sock".parse().unwrap());
        let error = client.ping().await.unwrap_err();
        expect!["Cannot connect to the Docker daemon at unix:///nonexistent/tug.sock. Is the docker daemon running?"]
            .assert_eq(&error.to_string());
    }
}
