//! Gets what a URL names: for `ADD https://…` and for a remote context.
//!
//! Names are resolved by our own resolver (the binary is static), certificates are checked against
//! the host's. Everything is bounded: redirects, bytes, and the time without progress.
//!
//! Source: docs.docker.com "Dockerfile reference", ADD: mode 0600, time from `Last-Modified`.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use build::worker::{Blob, Failure, FailureKind};
use bytes::Bytes;
use hickory_resolver::Resolver;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, LAST_MODIFIED, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const BYTES_MAX: usize = 512 << 20;
const REDIRECTS_MAX: usize = 10;
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// The bytes at `url`, with the name that the last part of its path gives.
///
/// # Errors
/// Unreachable, an answer other than success, too many bytes.
pub(super) async fn fetch(url: &str) -> Result<Blob, Failure> {
    let failed = |what: String| Failure::new(FailureKind::Invalid, format!("Get {url:?}: {what}"));
    let mut place: Uri = url.parse().map_err(|error| failed(format!("{error}")))?;
    let name = place.path().rsplit('/').next().unwrap_or_default().to_owned();
    for _ in 0..REDIRECTS_MAX {
        let response = get(&place).await.map_err(failed)?;
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| failed("a redirect leads nowhere".to_owned()))?;
            place = redirected(&place, location)
                .ok_or_else(|| failed(format!("bad redirect to {location:?}")))?;
            continue;
        }
        if !status.is_success() {
            let text = format!("failed to GET {url} with status {status}");
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        let modified_secs =
            response.headers().get(LAST_MODIFIED).and_then(|value| http_date(value.to_str().ok()?));
        let bytes = body(response).await.map_err(failed)?;
        return Ok(Blob { name, bytes: Arc::from(bytes), mode: 0o600, modified_secs });
    }
    Err(failed("too many redirects".to_owned()))
}

fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let to: Uri = location.parse().ok()?;
    if to.scheme().is_some() {
        return Some(to);
    }
    let path = match location.starts_with('/') {
        true => location.to_owned(),
        false => format!(
            "{}/{location}",
            from.path().rsplit_once('/').map_or("", |(directory, _)| directory)
        ),
    };
    format!("{}://{}{path}", from.scheme_str()?, from.authority()?).parse().ok()
}

async fn get(place: &Uri) -> Result<Response<Incoming>, String> {
    let host = place.host().ok_or("no host in the address")?.trim_matches(['[', ']']).to_owned();
    let is_tls = match place.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("unsupported protocol scheme".to_owned()),
    };
    let port = place.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = connect(&host, port).await?;
    let transport: Pin<Box<dyn Transport>> = match is_tls {
        false => Box::pin(stream),
        true => {
            let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
            let connected = TlsConnector::from(tls()?).connect(name, stream);
            let connected = timeout(STEP_TIMEOUT, connected)
                .await
                .map_err(|_| "net/http: TLS handshake timeout".to_owned())?;
            Box::pin(connected.map_err(|error| error.to_string())?)
        }
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(transport))
        .await
        .map_err(|error| error.to_string())?;
    // Ends with the body, or when that is dropped.
    tokio::spawn(connection);
    let path = place.path_and_query().map_or("/", |path| path.as_str());
    let authority = place.authority().map_or(host.as_str(), |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, "tug")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = timeout(STEP_TIMEOUT, sender.send_request(request)).await;
    answer
        .map_err(|_| "timeout awaiting response headers".to_owned())?
        .map_err(|error| error.to_string())
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses(host).await? {
        let socket = SocketAddr::new(address, port);
        match timeout(STEP_TIMEOUT, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("dial tcp {socket}: connect: {error}"),
            Err(_) => last = format!("dial tcp {socket}: i/o timeout"),
        }
    }
    Err(last)
}

async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = |error: &dyn std::fmt::Display| format!("dial tcp: lookup {host}: {error}");
    let resolver = Resolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| failed(&error))?;
    let found = resolver.lookup_ip(host).await.map_err(|error| failed(&error))?;
    Ok(found.iter().collect())
}

fn tls() -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn body(response: Response<Incoming>) -> Result<Vec<u8>, String> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        let frame = timeout(STEP_TIMEOUT, body.frame())
            .await
            .map_err(|_| "timeout reading the body".to_owned())?;
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > BYTES_MAX {
                return Err(format!("more than {BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(data);
        }
    }
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Source: RFC 9110, 5.6.7.
fn http_date(text: &str) -> Option<i64> {
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(at.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_may_be_relative() {
        let from: Uri = "http://host:8080/a/b".parse().unwrap();
        let to = |location: &str| redirected(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("/c").as_deref(), Some("http://host:8080/c"));
        assert_eq!(to("c").as_deref(), Some("http://host:8080/a/c"));
        assert_eq!(to("https://other/x").as_deref(), Some("https://other/x"));
    }

    #[test]
    fn times_of_the_last_change_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
