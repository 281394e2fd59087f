//! What goes wrong between here and a registry, in the words of Docker's own errors.
//!
//! Source: Go `net`, `net/http`, `crypto/tls`; distribution `registry/client/errors.go`,
//! `registry/api/errcode`; moby `distribution/errors.go`.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use spec::Digest;

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("dial tcp: lookup {host}: {why}")]
    Lookup { host: String, why: &'static str },
    #[error("dial tcp {address}: connect: {why}")]
    Connect { address: SocketAddr, why: String },
    #[error("dial tcp {0}: i/o timeout")]
    ConnectTimeout(SocketAddr),
    #[error("{0}")]
    Proxy(String),
    #[error("http: server gave HTTP response to HTTPS client")]
    NotTls,
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    #[error("remote error: tls: {0}")]
    Tls(String),
    #[error("net/http: TLS handshake timeout")]
    TlsTimeout,
    #[error("net/http: timeout awaiting response headers")]
    HeaderTimeout,
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Http(String),
    #[error("stopped after 10 redirects")]
    Redirects,
    #[error("refused a redirect from https to {0:?}")]
    Downgrade(String),
    #[error("bad redirect to {0:?}")]
    BadRedirect(String),
    /// What authentication needs is not there.
    #[error("{0}")]
    Auth(String),
    /// The token server refused.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// A request that got no usable answer: `Get "https://…": …`, as Go's client words it.
#[derive(Debug, thiserror::Error)]
#[error("{} {url:?}", verb(method))]
pub struct RequestError {
    pub method: Method,
    pub url: String,
    pub source: TransportError,
}

/// Go writes methods as words.
fn verb(method: &Method) -> String {
    let text = method.as_str();
    let (first, rest) = text.split_at(1.min(text.len()));
    format!("{first}{}", rest.to_ascii_lowercase())
}

/// One of a registry's own errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// `MANIFEST_UNKNOWN` and the like.
    pub code: String,
    pub message: String,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        write!(f, "{code}: {}", self.message)
    }
}

/// An answer that is a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// Empty where the body told nothing that a registry tells.
    pub codes: Vec<Code>,
}

impl Refusal {
    pub fn is(&self, code: &str) -> bool {
        self.codes.first().is_some_and(|first| first.code == code)
    }

    /// Reads a refusal out of its challenge and its body.
    pub(crate) fn read(
        status: StatusCode,
        challenges: &[crate::auth::Challenge],
        body: &[u8],
    ) -> Refusal {
        let mut codes = Vec::new();
        if status.is_client_error() {
            codes.extend(challenges.iter().find_map(bearer_code));
        }
        codes.extend(body_codes(status, body));
        if codes.is_empty() && status == StatusCode::UNAUTHORIZED {
            codes.push(Code {
                code: "UNAUTHORIZED".to_owned(),
                message: "authentication required".to_owned(),
            });
        }
        Refusal { status, codes }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codes.as_slice() {
            [] => {
                let reason = self.status.canonical_reason().unwrap_or_default();
                write!(f, "received unexpected HTTP status: {} {reason}", self.status.as_u16())
            }
            [first, ..] => first.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// Source: RFC 6750, 3.1.
fn bearer_code(challenge: &crate::auth::Challenge) -> Option<Code> {
    if challenge.scheme != "bearer" {
        return None;
    }
    let (code, message) = match challenge.parameter("error")? {
        "invalid_token" => ("UNAUTHORIZED", "authentication required"),
        "insufficient_scope" => ("DENIED", "requested access to the resource is denied"),
        _ => return None,
    };
    let message =
        challenge.parameter("error_description").filter(|text| !text.is_empty()).unwrap_or(message);
    Some(Code { code: code.to_owned(), message: message.to_owned() })
}

fn body_codes(status: StatusCode, body: &[u8]) -> Vec<Code> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Option<Vec<One>>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else { return Vec::new() };
    if let Some(errors) = body.errors.filter(|errors| !errors.is_empty()) {
        return errors
            .into_iter()
            .map(|one| Code {
                message: if one.message.is_empty() {
                    one.code.to_ascii_lowercase().replace('_', " ")
                } else {
                    one.message
                },
                code: one.code,
            })
            .collect();
    }
    if body.details.is_empty() {
        return Vec::new();
    }
    let code = match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::FORBIDDEN => "DENIED",
        StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
        _ => "UNKNOWN",
    };
    vec![Code { code: code.to_owned(), message: body.details }]
}

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the answer broke off")]
    Body(#[source] io::Error),
    #[error("{what} is larger than {max} bytes")]
    TooLarge { what: String, max: u64 },
    #[error("manifest verification failed for digest {want}")]
    Digest { want: Digest, got: Digest },
    #[error("{what} of the registry cannot be read")]
    Document { what: &'static str, source: serde_json::Error },
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    #[error("the registry sent no usable {0} header")]
    Header(&'static str),
    #[error("invalid registry address {0:?}")]
    Address(String),
}

impl Error {
    /// Whether trying once more may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Body(_) => true,
            Error::Request(error) => match &error.source {
                TransportError::Connect { .. }
                | TransportError::ConnectTimeout(_)
                | TransportError::TlsTimeout
                | TransportError::HeaderTimeout
                | TransportError::Http(_) => true,
                TransportError::Lookup { .. }
                | TransportError::Proxy(_)
                | TransportError::NotTls
                | TransportError::Certificate(_)
                | TransportError::Tls(_)
                | TransportError::Settings(_)
                | TransportError::Redirects
                | TransportError::Downgrade(_)
                | TransportError::BadRedirect(_)
                | TransportError::Auth(_)
                | TransportError::Refused(_) => false,
            },
            Error::Refused(refusal) => {
                refusal.status.is_server_error() || refusal.status == StatusCode::TOO_MANY_REQUESTS
            }
            Error::TooLarge { .. }
            | Error::Digest { .. }
            | Error::Document { .. }
            | Error::MediaType(_)
            | Error::Header(_)
            | Error::Address(_) => false,
        }
    }

    /// The refusal inside, by whomever it was said.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused(refusal) => Some(refusal),
            Error::Request(RequestError { source: TransportError::Refused(refusal), .. }) => {
                Some(refusal)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, challenge: &str, body: &str, want: &str) {
        let challenges = crate::auth::parse_challenges(challenge);
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Refusal::read(status, &challenges, body.as_bytes()).to_string(), want);
    }

    #[test]
    fn refusals_speak_as_dockers_do() {
        check(
            404,
            "",
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
            "manifest unknown: manifest unknown",
        );
        check(
            401,
            "Bearer realm=\"x\",error=\"insufficient_scope\"",
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            "denied: requested access to the resource is denied",
        );
        check(401, "Basic realm=x", "", "unauthorized: authentication required");
        check(
            401,
            "",
            r#"{"details":"incorrect username or password"}"#,
            "unauthorized: incorrect username or password",
        );
        check(500, "", "<html>", "received unexpected HTTP status: 500 Internal Server Error");
    }
}
