//! TLS to a daemon: which certificates are believed, and which one is shown.
//!
//! Source: docker `go-connections` `tlsconfig/config.go`, docker CLI 28.2 `cli/flags/options.go`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Error, Host, Io};

/// The files of a connection with TLS. PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Only what this authority signed is believed; without it nobody's certificate is checked.
    pub authority: Option<PathBuf>,
    /// Ours, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read {what} {path:?}")]
    Read { what: &'static str, path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path:?} holds no certificate")]
    Empty { path: PathBuf },
    #[error("could not load the X509 key pair (cert: {certificate:?}, key: {key:?})")]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("could not use the CA certificate {path:?}")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("TLS cannot be set up")]
    Settings { source: rustls::Error },
}

/// A connection's settings, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be read or used.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Settings { source })?;
        let builder = match &files.authority {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
        };
        let Some((certificate, key)) = &files.identity else {
            return Ok(Self(Arc::new(builder.with_no_client_auth())));
        };
        let chain = certificates("certificate", certificate)?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Read {
            what: "key",
            path: key.clone(),
            source,
        })?;
        let config = builder.with_client_auth_cert(chain, secret).map_err(|source| {
            TlsError::Pair { certificate: certificate.clone(), key: key.clone(), source }
        })?;
        Ok(Self(Arc::new(config)))
    }

    pub(super) async fn connect(
        &self,
        host: &Host,
        name: &str,
        stream: TcpStream,
    ) -> Result<Box<dyn Io>, Error> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::Resolve { host: host.clone() })?;
        match TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Error::Tls { host: host.clone(), why: why(&error) }),
        }
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { what, path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(found)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// Go's words, which people look for.
fn why(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "tls: failed to verify certificate: x509: certificate signed by unknown authority"
            .to_owned(),
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("tls: failed to verify certificate: {reason}")
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(other) => format!("tls: {other}"),
        None => error.to_string(),
    }
}

/// For `--tls` without `--tlsverify`.
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
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
