//! TLS of the API on the network, with client certificates where they are demanded.
//!
//! ```text
//! client ══TLS══ pump ──socket pair── connection
//! ```
//! TLS is taken off by a task of its own. What serves the client, and what is handed to a monitor
//! when a client attaches, is a plain socket, as everywhere else. The session keys live in the
//! daemon, so attached clients that came by TLS lose their connection with it; their container
//! does not notice.
//!
//! Source: docker `go-connections` `tlsconfig/config.go`, moby 28.2 `cmd/dockerd/options.go`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

/// How long a client may take to agree on keys.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of each direction.
const PUMP_BYTES: usize = 32 << 10;
/// The first byte of a TLS session: RFC 8446, 5.1, `handshake`.
const HANDSHAKE: u8 = 22;
/// Source: Go `net/http` `server.go`; clients show it.
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The files. PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who must have signed a client's certificate; without it any client is served.
    pub authority: Option<PathBuf>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read {what} {path:?}")]
    Read { what: &'static str, path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path:?} holds no certificate")]
    Empty { path: PathBuf },
    #[error("could not load X509 key pair (cert: {certificate:?}, key: {key:?})")]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("could not use the CA certificate {path:?}")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("could not use the CA certificate {path:?}")]
    Verifier { path: PathBuf, source: VerifierBuilderError },
    #[error("TLS cannot be set up")]
    Settings { source: rustls::Error },
}

/// Ready for use. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    pub verifies: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("verifies", &self.verifies).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be read or used.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Settings { source })?;
        let builder = match &files.authority {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|source| TlsError::Verifier { path: path.clone(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates("certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
            what: "key",
            path: files.key.clone(),
            source,
        })?;
        let config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, verifies: files.authority.is_some() })
    }

    /// Agrees on keys with a client, and gives the plain end of its connection.
    ///
    /// # Errors
    /// When the client speaks no TLS, takes too long, or shows no certificate that is believed.
    pub async fn accept(&self, mut stream: TcpStream) -> io::Result<UnixStream> {
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            if first != [HANDSHAKE] {
                stream.write_all(NOT_TLS).await?;
                stream.shutdown().await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks no TLS"));
            }
            self.acceptor.accept(stream).await
        });
        let mut stream = shaken.await??;
        let (mut ours, theirs) = UnixStream::pair()?;
        tokio::spawn(async move {
            // Either side may break off at any time; whoever serves or asks sees that itself.
            let _ =
                copy_bidirectional_with_sizes(&mut stream, &mut ours, PUMP_BYTES, PUMP_BYTES).await;
        });
        Ok(theirs)
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
