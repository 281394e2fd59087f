//! HTTP/1.1 over kept connections, with proxies and redirects.
//!
//! A connection carries one request at a time. It goes back to the pool when its answer was read to
//! the end, and is used again for a request that can be sent twice: the server may have closed it in
//! the meantime.
//!
//! Redirects are followed for GET and HEAD only, at most [`REDIRECTS_MAX`]. To another host only
//! Accept and Range go along, and from https nothing leads to http.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, RANGE, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::address;
use crate::dial::{self, Age, Stream, TlsSettings, Trust};
use crate::error::{RequestError, TransportError};
use crate::policy::{Range, host_of};

const REDIRECTS_MAX: usize = 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// For the answer to a PUT: the registry may have to read all of a blob, or to unpack an image.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Longest time between two pieces of a body.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A body that brings less in [`STALL_TIMEOUT`] stalls, too: somebody holds us by single bytes.
const STALL_BYTES_MIN: usize = 1 << 10;
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
const IDLE_MAX: usize = 8;
/// Of a connection, and so of a piece of a body, of which several wait for the disk.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const AGENT: &str = concat!("tug/", env!("CARGO_PKG_VERSION"));

/// The addresses of proxies, and who is reached without. Empty means none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    pub no: String,
}

impl Proxies {
    /// Source: Go `golang.org/x/net/http/httpproxy`.
    fn of(&self, is_tls: bool, host: &str, port: u16) -> Option<Uri> {
        let text = if is_tls { &self.https } else { &self.http };
        let text = if text.is_empty() || text.contains("://") {
            text.clone()
        } else {
            format!("http://{text}")
        };
        let proxy: Uri = text.parse().ok()?;
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let direct =
            self.no.split(',').map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| {
                let (name, wanted) = match rule.rsplit_once(':') {
                    Some((name, digits)) if !name.contains(':') => {
                        (name, digits.parse::<u16>().ok())
                    }
                    _ => (rule, None),
                };
                let suffix = name.trim_start_matches('*').trim_start_matches('.');
                let matches = match (address, Range::parse(name)) {
                    (Some(address), Some(range)) => range.contains(address),
                    _ => name == "*" || host == suffix || host.ends_with(&format!(".{suffix}")),
                };
                matches && wanted.is_none_or(|wanted| wanted == port)
            });
        (!direct).then_some(proxy)
    }
}

/// What is sent as a body.
#[derive(Debug)]
pub enum Payload {
    Bytes(Bytes),
    /// Sent as it comes, in chunks; cannot be sent twice.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Payload {
    pub fn empty() -> Payload {
        Payload::Bytes(Bytes::new())
    }
}

/// The body that hyper pulls from.
struct Sending {
    payload: Payload,
    /// When hyper came for more.
    moved: Arc<Mutex<Instant>>,
}

impl Sending {
    fn new(payload: Payload) -> Sending {
        Sending { payload, moved: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match &mut self.payload {
            Payload::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Payload::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Payload::Stream(stream) => {
                stream.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.payload, Payload::Bytes(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match &self.payload {
            Payload::Bytes(bytes) => hyper::body::SizeHint::with_exact(bytes.len() as u64),
            Payload::Stream(_) => hyper::body::SizeHint::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    is_tls: bool,
    host: String,
    port: u16,
    trust: Arc<Trust>,
}

struct Idle {
    sender: SendRequest<Sending>,
    since: Instant,
}

/// Makes connections by other means than the network's addresses.
pub type Dialer = Arc<
    dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Pin<Box<dyn Stream>>>> + Send>>
        + Send
        + Sync,
>;

#[derive(Default)]
struct Shared {
    proxies: Proxies,
    dialer: Option<Dialer>,
    tls: TlsSettings,
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
}

/// Sends requests. Clones share connections.
#[derive(Clone, Default)]
pub struct Transport {
    shared: Arc<Shared>,
}

/// An answer whose body is still to be read.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Uri,
    body: Incoming,
    /// How long was waited for how many bytes of the stall's measure.
    measured: (Duration, usize),
    connection: Option<(Origin, SendRequest<Sending>)>,
    transport: Transport,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for a minute.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let began = Instant::now();
            let frame = timeout(STALL_TIMEOUT, self.body.frame()).await;
            self.measured.0 += began.elapsed();
            let frame =
                frame.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"))?;
            match frame {
                None => {
                    if let Some((origin, sender)) = self.connection.take() {
                        self.transport.keep(origin, sender);
                    }
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.measure(data.len())?;
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("unexpected EOF: {error}"),
                    ));
                }
            }
        }
    }

    fn measure(&mut self, bytes: usize) -> io::Result<()> {
        self.measured.1 += bytes;
        if self.measured.0 < STALL_TIMEOUT {
            return Ok(());
        }
        if self.measured.1 < STALL_BYTES_MIN {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"));
        }
        self.measured = (Duration::ZERO, 0);
        Ok(())
    }

    /// The body's first bytes, at most `max`; fewer also where it breaks off.
    pub(crate) async fn start(&mut self, max: usize) -> Bytes {
        let mut all = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let take = chunk.len().min(max - all.len());
            all.extend_from_slice(&chunk[..take]);
            if all.len() == max {
                break;
            }
        }
        all.freeze()
    }

    /// The whole body; None when it is longer than `max` bytes.
    ///
    /// # Errors
    /// As [`Answer::chunk`].
    pub async fn bytes(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > max {
                return Ok(None);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(Some(all.freeze()))
    }
}

/// Who is trusted how; asked again for each host that a redirect leads to.
pub type TrustOf<'a> = &'a (dyn Fn(&str) -> Arc<Trust> + Send + Sync);

impl Transport {
    /// The addresses of the host of `authority`, for who wants to know whether they are trusted; none
    /// where they cannot be told, or where a proxy is asked for it.
    pub async fn addresses(&self, authority: &str) -> Vec<IpAddr> {
        let host = host_of(authority);
        if self.shared.proxies.of(true, host, 443).is_some() {
            return Vec::new();
        }
        dial::addresses(host).await.unwrap_or_default()
    }

    #[must_use]
    pub fn new(proxies: Proxies) -> Transport {
        Transport { shared: Arc::new(Shared { proxies, ..Shared::default() }) }
    }

    /// All connections come from `dialer`, whatever host a request names: a socket, or a program that
    /// leads to one.
    #[must_use]
    pub fn over(dialer: Dialer) -> Transport {
        Transport { shared: Arc::new(Shared { dialer: Some(dialer), ..Shared::default() }) }
    }

    /// Sends a request and follows where it is led. `trust_of` gets `host:port`.
    ///
    /// # Errors
    /// When there is no answer; a refusal is an answer.
    pub async fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: &HeaderMap,
        payload: Payload,
        trust_of: TrustOf<'_>,
    ) -> Result<Answer, RequestError> {
        let failed = |url: &Uri, source| RequestError {
            method: method.clone(),
            url: address::shown(url),
            source,
        };
        let (mut place, mut headers, mut payload) = (url.clone(), headers.clone(), payload);
        let may_follow = method == Method::GET || method == Method::HEAD;
        for _ in 0..=REDIRECTS_MAX {
            let origin = origin(&place, trust_of).map_err(|source| failed(&place, source))?;
            let sent = self.exchange(&method, &place, &headers, payload, origin).await;
            let answer = sent.map_err(|source| failed(&place, source))?;
            let is_redirect = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !may_follow || !is_redirect {
                return Ok(answer);
            }
            // Who says not where is no redirect. Source: Go `net/http`, `redirectBehavior`.
            let location = answer.header(LOCATION.as_str()).filter(|text| !text.is_empty());
            let Some(location) = location else { return Ok(answer) };
            let next = address::resolve(&place, location).map_err(|why| {
                failed(&place, TransportError::BadRedirect(location.to_owned(), why))
            })?;
            if place.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(failed(&place, TransportError::Downgrade(location.to_owned())));
            }
            if next.authority() != place.authority() {
                headers = for_strangers(&headers);
            }
            (place, payload) = (next, Payload::empty());
        }
        Err(failed(&place, TransportError::Redirects))
    }

    async fn exchange(
        &self,
        method: &Method,
        url: &Uri,
        headers: &HeaderMap,
        payload: Payload,
        origin: Origin,
    ) -> Result<Answer, TransportError> {
        let proxy = self.shared.proxies.of(origin.is_tls, &origin.host, origin.port);
        let through = proxy.as_ref().filter(|_| !origin.is_tls);
        let request = |payload| request(method, url, headers, payload, through);
        let patience = if *method == Method::PUT { COMMIT_TIMEOUT } else { HEADER_TIMEOUT };
        if let Payload::Bytes(bytes) = &payload {
            while let Some(mut sender) = self.idle(&origin) {
                // A kept connection may be dead; then a new one is made.
                if sender.ready().await.is_err() {
                    continue;
                }
                let sent = sender.send_request(request(Payload::Bytes(bytes.clone()))?);
                if let Ok(Ok(response)) = timeout(patience, sent).await {
                    return Ok(self.answer(response, url, origin, sender));
                }
            }
        }
        let stream = self.connect(&origin, proxy.as_ref()).await?;
        let broken = |error: hyper::Error| http_error(&error, &origin.host);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends when the answer was read and the sender is gone.
        tokio::spawn(connection);
        let request = request(payload)?;
        let moved = Arc::clone(&request.body().moved);
        let sent = sender.send_request(request);
        tokio::pin!(sent);
        let response = loop {
            // As long as the body flows the time of the answer has not begun.
            let since = *moved.lock().unwrap_or_else(PoisonError::into_inner);
            match timeout_at(since + patience, &mut sent).await {
                Ok(answered) => break answered.map_err(broken)?,
                Err(_) if since.elapsed() < patience => {}
                Err(_) if *moved.lock().unwrap_or_else(PoisonError::into_inner) > since => {}
                Err(_) => return Err(TransportError::HeaderTimeout),
            }
        };
        Ok(self.answer(response, url, origin, sender))
    }

    fn answer(
        &self,
        response: hyper::Response<Incoming>,
        url: &Uri,
        origin: Origin,
        sender: SendRequest<Sending>,
    ) -> Answer {
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            url: url.clone(),
            body,
            measured: (Duration::ZERO, 0),
            connection: Some((origin, sender)),
            transport: self.clone(),
        }
    }

    async fn connect(
        &self,
        origin: &Origin,
        proxy: Option<&Uri>,
    ) -> Result<Pin<Box<dyn Stream>>, TransportError> {
        if let Some(dialer) = &self.shared.dialer {
            return dialer().await.map_err(|error| TransportError::Http(error.to_string()));
        }
        let stream = match proxy {
            None => dial::connect(&origin.host, origin.port, &origin.trust).await?,
            Some(proxy) => {
                let host = proxy.host().unwrap_or_default().trim_matches(['[', ']']);
                let port = proxy.port_u16().unwrap_or(80);
                let connected = dial::connect(host, port, &Trust::default()).await;
                let connected = connected
                    .map_err(|error| TransportError::Proxy(format!("proxyconnect tcp: {error}")))?;
                match origin.is_tls {
                    true => dial::tunnel(connected, proxy, &origin.host, origin.port).await?,
                    false => connected,
                }
            }
        };
        if !origin.is_tls {
            return Ok(Box::pin(stream));
        }
        let (config, age) = self.shared.tls.of(&origin.trust)?;
        let shaken = dial::handshake(config, &origin.host, Box::pin(stream)).await;
        match (shaken, age) {
            // The system's store may have changed since it was read.
            (Err(TransportError::Certificate(_)), Age::Kept) => {
                self.shared.tls.forget(&origin.trust);
                Box::pin(self.connect(origin, proxy)).await
            }
            (shaken, _) => shaken,
        }
    }

    fn idle(&self, origin: &Origin) -> Option<SendRequest<Sending>> {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(origin)?;
        while let Some(Idle { sender, since }) = kept.pop() {
            if since.elapsed() < IDLE_TIME_MAX && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, origin: Origin, sender: SendRequest<Sending>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(|idle| idle.since.elapsed() < IDLE_TIME_MAX && !idle.sender.is_closed());
            !kept.is_empty()
        });
        let kept = idle.entry(origin).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }
}

/// What another host than the one that was asked may see of a request: neither who we are nor what an
/// administrator lets us send to a host of his.
fn for_strangers(headers: &HeaderMap) -> HeaderMap {
    let kept = [ACCEPT, RANGE].into_iter();
    kept.filter_map(|name| Some((name.clone(), headers.get(&name)?.clone()))).collect()
}

fn http_error(error: &hyper::Error, host: &str) -> TransportError {
    if error.is_incomplete_message() || error.is_canceled() {
        return TransportError::Lost("EOF".to_owned());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        // With TLS 1.3 a server looks at our certificate after it let us begin.
        let io = inner.downcast_ref::<io::Error>();
        if let Some(io) = io.filter(|io| io.get_ref().is_some_and(|own| own.is::<rustls::Error>()))
        {
            return dial::tls_error(host, io);
        }
        text = io.map_or_else(|| inner.to_string(), dial::reason);
        cause = inner.source();
    }
    match error.is_parse() {
        true => TransportError::Malformed(text),
        false => TransportError::Lost(text),
    }
}

fn origin(url: &Uri, trust_of: TrustOf<'_>) -> Result<Origin, TransportError> {
    let is_tls = match url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        other => {
            let scheme = other.unwrap_or_default();
            return Err(TransportError::Settings(format!(
                "unsupported protocol scheme {scheme:?}"
            )));
        }
    };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    Ok(Origin { is_tls, host, port, trust: trust_of(address::host_of(url)) })
}

fn request(
    method: &Method,
    url: &Uri,
    headers: &HeaderMap,
    payload: Payload,
    proxy: Option<&Uri>,
) -> Result<Request<Sending>, TransportError> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let target = if proxy.is_some() { url.to_string() } else { path.to_owned() };
    let mut request = Request::builder().method(method.clone()).uri(target);
    if let Some(all) = request.headers_mut() {
        all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let host = HeaderValue::from_str(address::host_of(url))
            .map_err(|error| TransportError::Http(error.to_string()))?;
        all.insert(HOST, host);
        all.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some((user, _)) =
            address::user_of(url).filter(|_| !headers.contains_key(AUTHORIZATION))
        {
            let user: Vec<u8> = percent_encoding::percent_decode_str(user).collect();
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(user)));
            let mut value = value.map_err(|error| TransportError::Http(error.to_string()))?;
            value.set_sensitive(true);
            all.insert(AUTHORIZATION, value);
        }
        let authorization = proxy.and_then(dial::proxy_authorization);
        if let Some(value) = authorization.and_then(|value| HeaderValue::from_str(&value).ok()) {
            all.insert("proxy-authorization", value);
        }
    }
    request.body(Sending::new(payload)).map_err(|error| TransportError::Http(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_hosts_need_no_proxy() {
        let proxies = Proxies {
            http: "proxy:3128".to_owned(),
            https: "http://secure:3129".to_owned(),
            no: "10.0.0.0/8, .inner.example, exact:5000".to_owned(),
        };
        let of = |is_tls, host, port| proxies.of(is_tls, host, port).map(|uri| uri.to_string());
        assert_eq!(of(false, "registry.example", 80).as_deref(), Some("http://proxy:3128/"));
        assert_eq!(of(true, "registry.example", 443).as_deref(), Some("http://secure:3129/"));
        for (host, port) in [
            ("10.1.2.3", 443),
            ("a.inner.example", 443),
            ("exact", 5000),
            ("127.0.0.1", 1),
            ("localhost", 1),
        ] {
            assert_eq!(of(true, host, port), None, "{host}");
        }
        assert!(of(true, "exact", 443).is_some());
        assert!(of(true, "11.1.2.3", 443).is_some());
    }
}
