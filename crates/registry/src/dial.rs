//! Connections: names, TCP, proxies, TLS.
//!
//! Names are resolved by our own resolver (the binary is static): /etc/hosts, then the servers of
//! /etc/resolv.conf, read at each lookup. All addresses are tried in turn. Every step has its time.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use hickory_resolver::Resolver;
use hyper::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::TransportError;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificates come and go with the files of `certs.d`.
const SETTINGS_MAX: usize = 64;
const PROXY_ANSWER_BYTES_MAX: usize = 16 << 10;

/// A connected stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A certificate chain and its key. PEM.
pub type Pair = (Vec<u8>, Vec<u8>);

/// How far a host's certificate is believed, what it is shown of ours, and how long it may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Trust {
    pub verify: Verify,
    /// Accepted besides the system's. PEM.
    pub authorities: Vec<Vec<u8>>,
    /// Of several the one is shown that the host's authorities signed, else the first.
    pub clients: Vec<Pair>,
    /// For a connection to one of its addresses.
    pub dial_timeout: Option<Duration>,
    /// The addresses for which the rest holds; connections go to these alone. Empty for those of the
    /// name.
    pub addresses: Vec<IpAddr>,
}

/// Whether certificates are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    #[default]
    Yes,
    No,
}

/// Whether settings are as the files are, or as those were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    Kept,
}

/// Makes TLS settings, each only once: parsing the system's roots takes milliseconds.
#[derive(Debug, Default)]
pub(crate) struct TlsSettings {
    known: Mutex<HashMap<Arc<Trust>, Arc<ClientConfig>>>,
}

impl TlsSettings {
    pub(crate) fn of(
        &self,
        trust: &Arc<Trust>,
    ) -> Result<(Arc<ClientConfig>, Age), TransportError> {
        if let Some(config) = self.lock().get(trust) {
            return Ok((Arc::clone(config), Age::Kept));
        }
        let config = Arc::new(settings(trust).map_err(TransportError::Settings)?);
        let mut known = self.lock();
        if known.len() >= SETTINGS_MAX {
            known.clear();
        }
        known.insert(Arc::clone(trust), Arc::clone(&config));
        Ok((config, Age::Fresh))
    }

    pub(crate) fn forget(&self, trust: &Arc<Trust>) {
        self.lock().remove(trust);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<Trust>, Arc<ClientConfig>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settings(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut own = Vec::new();
    for pem in &trust.authorities {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| format!("bad CA certificate: {error}"))?;
            own.push(certificate.clone());
            roots.add(certificate).map_err(|error| format!("bad CA certificate: {error}"))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match trust.verify {
        Verify::Yes if own.is_empty() => builder.with_root_certificates(roots),
        Verify::Yes => {
            let provider = Arc::clone(&provider);
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("bad CA certificate: {error}"))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Listed { inner, own }))
        }
        Verify::No => {
            let provider = Arc::clone(&provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        }
    };
    let mut shown = Vec::new();
    for pair in &trust.clients {
        shown.push(certified(pair, &provider)?);
    }
    if shown.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    Ok(builder.with_client_cert_resolver(Arc::new(Shown(shown))))
}

fn certified((chain, key): &Pair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("bad client certificate: {error}"))?;
    if chain.is_empty() {
        return Err("bad client certificate: no certificate in it".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("bad client key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("bad client certificate: {error}"))?;
    Ok(Arc::new(certified))
}

/// Our own certificates for one host.
#[derive(Debug)]
struct Shown(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // An issuer's name stands in a certificate as it stands in the hint: both are DER.
        let is_wanted = |shown: &&Arc<CertifiedKey>| {
            let holds = |certificate: &CertificateDer<'_>, name: &[u8]| {
                !name.is_empty() && certificate.windows(name.len()).any(|part| part == name)
            };
            let any = |name: &&[u8]| shown.cert.iter().any(|certificate| holds(certificate, name));
            root_hint_subjects.iter().any(any)
        };
        self.0.iter().find(is_wanted).or(self.0.first()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes a server's certificate also where that very certificate is among the host's authorities,
/// as Go does: people make one self-signed certificate and copy it to all clients.
#[derive(Debug)]
struct Listed {
    inner: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // webpki takes no authority for a server, whoever signed it.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.own.iter().any(|own| own.as_ref() == end_entity.as_ref()) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// For registries that the administrator called insecure.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS over a connected stream.
pub(crate) async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    stream: Pin<Box<dyn Stream>>,
) -> Result<Pin<Box<dyn Stream>>, TransportError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| TransportError::Settings(error.to_string()))?;
    match timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Box::pin(stream)),
        Ok(Err(error)) => Err(tls_error(host, &error)),
        Err(_) => Err(TransportError::TlsTimeout),
    }
}

/// rustls' errors in the words of Go's.
pub(crate) fn tls_error(host: &str, error: &io::Error) -> TransportError {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return TransportError::Http(match error.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            _ => error.to_string(),
        });
    };
    match inner {
        rustls::Error::InvalidMessage(_) => TransportError::NotTls,
        rustls::Error::InvalidCertificate(reason) => TransportError::Certificate(match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "certificate signed by unknown authority".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                other_name(host, presented)
            }
            CertificateError::NotValidForName => other_name(host, &[]),
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "certificate signed by unknown authority".to_owned()
            }
            other => other.to_string(),
        }),
        rustls::Error::AlertReceived(alert) => TransportError::Tls(alert_words(*alert)),
        other => TransportError::Tls(other.to_string()),
    }
}

/// Source: Go `crypto/x509/verify.go`, `HostnameError`.
fn other_name(host: &str, presented: &[String]) -> String {
    let is_address = host.parse::<IpAddr>().is_ok();
    let kind = if is_address { "IpAddress(" } else { "DnsName(" };
    let names = presented.iter().filter_map(|name| name.strip_prefix(kind)?.strip_suffix(')'));
    let names: Vec<&str> = names.map(|name| name.trim_matches('"')).collect();
    match (names.as_slice(), is_address) {
        ([], true) => {
            format!("cannot validate certificate for {host} because it doesn't contain any IP SANs")
        }
        ([], false) => {
            format!("certificate is not valid for any names, but wanted to match {host}")
        }
        (names, _) => format!("certificate is valid for {}, not {host}", names.join(", ")),
    }
}

/// `BadCertificate` as `bad certificate`.
///
/// Source: Go `crypto/tls/alert.go`.
fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        AlertDescription::ProtocolVersion => "protocol version not supported".to_owned(),
        AlertDescription::Unknown(number) => format!("alert({number})"),
        other => {
            let mut words = String::new();
            for letter in format!("{other:?}").chars() {
                if letter.is_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.extend(letter.to_lowercase());
            }
            words
        }
    }
}

/// A TCP connection to `host`, whose name may have several addresses, as far as it is trusted.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    trust: &Trust,
) -> Result<TcpStream, TransportError> {
    let patience = trust.dial_timeout.unwrap_or(CONNECT_TIMEOUT);
    let mut last = TransportError::Lookup { host: host.to_owned(), why: "no such host" };
    let all = match trust.addresses.as_slice() {
        [] => addresses(host).await?,
        judged => judged.to_vec(),
    };
    for address in all {
        let address = SocketAddr::new(address, port);
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A request goes out in one piece; waiting for more to send only delays it.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = TransportError::Connect { address, why: reason(&error) },
            Err(_) => last = TransportError::ConnectTimeout(address),
        }
    }
    Err(last)
}

/// The kernel's words as Go prints them.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// The addresses of a name, or of the address that it is.
pub(crate) async fn addresses(host: &str) -> Result<Vec<IpAddr>, TransportError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    // RFC 6761, 6.3: never asked of a server.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let failed = |why| TransportError::Lookup { host: host.to_owned(), why };
    let resolver = Resolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|_| failed("no such host"))?;
    match timeout(LOOKUP_TIMEOUT, resolver.lookup_ip(host)).await {
        Err(_) => Err(failed("i/o timeout")),
        Ok(Ok(found)) => Ok(found.iter().collect()),
        Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => {
            Err(failed("no such host"))
        }
        Ok(Err(error)) if error.to_string().contains("timed out") => Err(failed("i/o timeout")),
        // Servers that cannot be reached know no host.
        Ok(Err(_)) => Err(failed("no such host")),
    }
}

/// A tunnel to `host:port` through a proxy that is already connected.
pub(crate) async fn tunnel(
    mut stream: TcpStream,
    proxy: &Uri,
    host: &str,
    port: u16,
) -> Result<TcpStream, TransportError> {
    let failed =
        |error: &dyn std::fmt::Display| TransportError::Proxy(format!("proxyconnect tcp: {error}"));
    let target =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let authorization = proxy_authorization(proxy)
        .map_or(String::new(), |value| format!("Proxy-Authorization: {value}\r\n"));
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|error| failed(&error))?;
    let answer = timeout(CONNECT_TIMEOUT, proxy_answer(&mut stream)).await;
    let answer = answer.map_err(|_| failed(&"i/o timeout"))?.map_err(|error| failed(&error))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let words = answer.split_once(' ').map_or("", |(_, rest)| rest);
        return Err(TransportError::Proxy(
            words.split_once(' ').map_or("", |(_, rest)| rest).to_owned(),
        ));
    }
    Ok(stream)
}

/// The status line of the proxy's answer, whose headers are read to their end and no further.
async fn proxy_answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > PROXY_ANSWER_BYTES_MAX {
            return Err(io::Error::other("answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// `Basic …` for the user in a proxy's address.
pub(crate) fn proxy_authorization(proxy: &Uri) -> Option<String> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_and_alerts_are_told_in_gos_words() {
        let names = ["DnsName(\"a.example\")", "IpAddress(10.0.0.1)", "DnsName(\"*.b\")"];
        let names = names.map(str::to_owned);
        assert_eq!(other_name("c", &names), "certificate is valid for a.example, *.b, not c");
        assert_eq!(other_name("::1", &names), "certificate is valid for 10.0.0.1, not ::1");
        let none = "certificate is not valid for any names, but wanted to match c";
        assert_eq!(other_name("c", &names[1..2]), none);
        let none = "cannot validate certificate for ::1 because it doesn't contain any IP SANs";
        assert_eq!(other_name("::1", &names[..1]), none);
        assert_eq!(alert_words(AlertDescription::CertificateRequired), "certificate required");
        assert_eq!(alert_words(AlertDescription::UnknownCA), "unknown certificate authority");
    }
}
