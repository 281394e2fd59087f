//! What goes wrong between here and a registry, in the words of Docker's own errors.
//!
//! Source: Go `net`, `net/http`, `crypto/tls`; distribution `registry/client/errors.go`,
//! `registry/api/errcode`; moby `distribution/errors.go`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use spec::Digest;

use crate::address::AddressError;
use crate::json::{self, Fields, JsonError};

/// Nobody waits longer because a registry says so.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Of a refusal's body, which says in a few words why.
pub(crate) const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// Characters of a registry's own words. They are shown on terminals.
const WORDS_MAX: usize = 1024;

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
    /// The connection broke off after it was made.
    #[error("{0}")]
    Lost(String),
    /// What came is no HTTP.
    #[error("malformed HTTP response: {0}")]
    Malformed(String),
    #[error("stopped after 10 redirects")]
    Redirects,
    #[error("refused a redirect from https to {0:?}")]
    Downgrade(String),
    #[error("failed to parse Location header {0:?}: {1}")]
    BadRedirect(String, AddressError),
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
    /// `MANIFEST_UNKNOWN` and the like; `UNKNOWN` where it is none of those that there are.
    pub code: String,
    /// Empty where it says no more than the code does.
    pub message: String,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        match self.message.as_str() {
            "" => f.write_str(&code),
            message => write!(f, "{code}: {message}"),
        }
    }
}

/// An answer that is a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// Empty where the body told nothing that a registry tells.
    pub codes: Vec<Code>,
    /// Why the body told nothing, and what it was; none where nobody reads it.
    pub unread: Option<String>,
    /// When it may be asked again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn is(&self, code: &str) -> bool {
        self.codes.first().is_some_and(|first| first.code == code)
    }

    /// Reads a refusal out of its headers and its body. What is no refusal of the client's request is
    /// told by its status alone.
    ///
    /// Source: distribution 2.8 `registry/client/errors.go`, `HandleErrorResponse`.
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        let (mut codes, mut unread) = (Vec::new(), None);
        if status.is_client_error() {
            codes.extend(crate::auth::challenges(headers).iter().find_map(bearer_code));
            match body_codes(status, body) {
                Ok(found) => codes.extend(found),
                Err(_) if status == StatusCode::UNAUTHORIZED && codes.is_empty() => {
                    codes.push(Code {
                        code: "UNAUTHORIZED".to_owned(),
                        message: "authentication required".to_owned(),
                    });
                }
                Err(error) => {
                    let start = &body[..body.len().min(WORDS_MAX)];
                    let start = json::quoted(&String::from_utf8_lossy(start));
                    unread = Some(format!("{error}: {start}"));
                }
            }
        }
        for code in &mut codes {
            (code.code, code.message) = (in_one_line(&code.code), in_one_line(&code.message));
        }
        Refusal { status, codes, unread, retry_after: retry_after(headers) }
    }

    /// How long to wait before asking again, if that may help.
    ///
    /// Too many requests without a time are a limit that no patience helps against: Docker Hub's is
    /// by the hour.
    pub fn pause(&self) -> Option<Duration> {
        let asked = self.retry_after;
        if asked.is_some_and(|asked| asked > RETRY_AFTER_MAX) {
            return None;
        }
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => asked,
            StatusCode::NOT_IMPLEMENTED => None,
            status if status.is_server_error() => Some(asked.unwrap_or_default()),
            _ => None,
        }
    }
}

/// What somebody else says stays within one line of ours.
fn in_one_line(text: &str) -> String {
    let letter = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(WORDS_MAX).map(letter).collect()
}

/// Source: RFC 9110, 10.2.3. A date is as rare as clocks that agree, and not read.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.codes.as_slice(), &self.unread) {
            ([], Some(unread)) => {
                let status = self.status.as_u16();
                write!(f, "error parsing HTTP {status} response body: {unread}")
            }
            ([], None) => {
                let reason = self.status.canonical_reason().unwrap_or_default();
                write!(f, "received unexpected HTTP status: {} {reason}", self.status.as_u16())
            }
            ([first, ..], _) => first.fmt(f),
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

/// What registries may say, with the words that say no more than the code.
///
/// Source: distribution 2.8 `registry/api/errcode/register.go`, `registry/api/v2/errors.go`.
const CODES: [(&str, &str); 20] = [
    ("UNKNOWN", "unknown error"),
    ("UNSUPPORTED", "The operation is unsupported."),
    ("UNAUTHORIZED", "authentication required"),
    ("DENIED", "requested access to the resource is denied"),
    ("UNAVAILABLE", "service unavailable"),
    ("TOOMANYREQUESTS", "too many requests"),
    ("DIGEST_INVALID", "provided digest did not match uploaded content"),
    ("SIZE_INVALID", "provided length did not match content length"),
    ("RANGE_INVALID", "invalid content range"),
    ("NAME_INVALID", "invalid repository name"),
    ("TAG_INVALID", "manifest tag did not match URI"),
    ("NAME_UNKNOWN", "repository name not known to registry"),
    ("MANIFEST_UNKNOWN", "manifest unknown"),
    ("MANIFEST_INVALID", "manifest invalid"),
    ("MANIFEST_UNVERIFIED", "manifest failed signature verification"),
    ("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
    ("BLOB_UNKNOWN", "blob unknown to registry"),
    ("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
    ("BLOB_UPLOAD_INVALID", "blob upload invalid"),
    ("PAGINATION_NUMBER_INVALID", "invalid number of results requested"),
];

/// Source: distribution 2.8 `registry/client/errors.go`, `parseHTTPErrorResponse`;
/// `registry/api/errcode/errors.go`, `Errors.UnmarshalJSON`.
fn body_codes(status: StatusCode, body: &[u8]) -> Result<Vec<Code>, JsonError> {
    const LIST: &str = "[]errcode.Error";
    let body = json::parse(body)?;
    let kind = "struct { Errors []errcode.Error }";
    let Some(fields) = Fields::of(&body, "", kind)? else { return Err(JsonError::no_details()) };
    // Older token servers say it so.
    if let Ok(details @ [_, ..]) = fields.text("details").map(str::as_bytes) {
        let code = match status {
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "DENIED",
            StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        let message = String::from_utf8_lossy(details).into_owned();
        return Ok(vec![Code { code: code.to_owned(), message }]);
    }
    let mut codes = Vec::new();
    for one in fields.list("Errors", LIST)? {
        let Some(one) = Fields::of(one, "Error", "errcode.Error")? else {
            codes.push(Code { code: "UNKNOWN".to_owned(), message: String::new() });
            continue;
        };
        let (code, message) = (one.text("code")?, one.text("message")?);
        let known = CODES.iter().find(|(known, _)| *known == code);
        let (code, own) = *known.unwrap_or(&CODES[0]);
        let says_no_more = one.get("detail").is_none() && message == own;
        let message = if says_no_more { String::new() } else { message.to_owned() };
        codes.push(Code { code: code.to_owned(), message });
    }
    if codes.is_empty() { Err(JsonError::no_details()) } else { Ok(codes) }
}

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What lets us in ran out while a body was sent, which cannot be sent twice.
    #[error(transparent)]
    Expired(Refusal),
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
    /// The next page of a list is nowhere.
    #[error("the registry sent no usable Link header")]
    Link(#[source] AddressError),
}

impl Error {
    /// Whether trying once more may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Body(_) | Error::Expired(_) => true,
            Error::Request(error) => match &error.source {
                TransportError::Connect { .. }
                | TransportError::ConnectTimeout(_)
                | TransportError::TlsTimeout
                | TransportError::HeaderTimeout
                | TransportError::Lost(_)
                | TransportError::Http(_) => true,
                TransportError::Lookup { .. }
                | TransportError::Proxy(_)
                | TransportError::NotTls
                | TransportError::Certificate(_)
                | TransportError::Tls(_)
                | TransportError::Settings(_)
                | TransportError::Malformed(_)
                | TransportError::Redirects
                | TransportError::Downgrade(_)
                | TransportError::BadRedirect(..)
                | TransportError::Auth(_) => false,
                TransportError::Refused(refusal) => refusal.pause().is_some(),
            },
            Error::Refused(refusal) => refusal.pause().is_some(),
            Error::TooLarge { .. }
            | Error::Digest { .. }
            | Error::Document { .. }
            | Error::MediaType(_)
            | Error::Header(_)
            | Error::Link(_)
            | Error::Address(_) => false,
        }
    }

    /// The refusal inside, by whomever it was said.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused(refusal) | Error::Expired(refusal) => Some(refusal),
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
        let headers = [(hyper::header::WWW_AUTHENTICATE, challenge.parse().unwrap())];
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = Refusal::read(status, &headers.into_iter().collect(), body.as_bytes());
        assert_eq!(refusal.to_string(), want);
    }

    #[test]
    fn only_what_passes_is_waited_for() {
        let pause = |status: u16, after: &str| {
            let headers = [(hyper::header::RETRY_AFTER, after.parse().unwrap())];
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = Refusal::read(status, &headers.into_iter().collect(), b"");
            refusal.pause().map(|pause| pause.as_secs())
        };
        assert_eq!([pause(429, "7"), pause(429, ""), pause(429, "3600")], [Some(7), None, None]);
        assert_eq!(
            [pause(503, "2"), pause(502, ""), pause(501, ""), pause(404, "1")],
            [Some(2), Some(0), None, None]
        );
    }

    /// Each as distribution 2.8 says it.
    #[test]
    fn refusals_speak_as_dockers_do() {
        for (status, challenge, body, want) in [
            (
                404,
                "",
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                "manifest unknown: manifest unknown",
            ),
            (404, "", r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#, "manifest unknown"),
            (
                401,
                "Bearer realm=\"x\",error=\"insufficient_scope\"",
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
                "denied: requested access to the resource is denied",
            ),
            (401, "Basic realm=x", "", "unauthorized: authentication required"),
            (401, "", "<html>", "unauthorized: authentication required"),
            (
                401,
                "",
                r#"{"details":"incorrect username or password"}"#,
                "unauthorized: incorrect username or password",
            ),
            (429, "", r#"{"Details":"slower"}"#, "toomanyrequests: slower"),
            (
                403,
                "",
                "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"\\u001b[2Jno\\nStatus: done\"}]}",
                "denied:  [2Jno Status: done",
            ),
            (500, "", "<html>", "received unexpected HTTP status: 500 Internal Server Error"),
            (
                503,
                "",
                r#"{"errors":[{"code":"UNAVAILABLE"}]}"#,
                "received unexpected HTTP status: 503 Service Unavailable",
            ),
            (302, "", "", "received unexpected HTTP status: 302 Found"),
        ] {
            check(status, challenge, body, want);
        }
    }

    #[test]
    fn names_of_a_refusals_fields_count_in_any_case() {
        for body in [
            r#"{"Errors":[{"Code":"UNAUTHORIZED","Message":"a message","Detail":null}]}"#,
            r#"{"ERRORS":[{"CODE":"UNAUTHORIZED","MESSAGE":"a message"}]}"#,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"a message"}],"more":1}"#,
        ] {
            check(401, "", body, "unauthorized: a message");
        }
        check(
            403,
            "",
            r#"{"errors":[{"code":"ODD","message":"a message"}]}"#,
            "unknown: a message",
        );
    }

    #[test]
    fn a_body_that_is_no_refusal_is_shown() {
        for (body, want) in [
            ("", r#"unexpected end of JSON input: """#),
            (
                "<b>\"no\"</b>\n",
                r#"invalid character '<' looking for beginning of value: "<b>\"no\"</b>\n""#,
            ),
            ("{}", r#"no error details found in HTTP response body: "{}""#),
            ("null", r#"no error details found in HTTP response body: "null""#),
            (
                "[]",
                r#"json: cannot unmarshal array into Go value of type struct { Errors []errcode.Error }: "[]""#,
            ),
            (
                r#"{"errors":"x"}"#,
                r#"json: cannot unmarshal string into Go struct field .Errors of type []errcode.Error: "{\"errors\":\"x\"}""#,
            ),
            (
                r#"{"errors":[{"message":1}]}"#,
                r#"json: cannot unmarshal number into Go struct field Error.message of type string: "{\"errors\":[{\"message\":1}]}""#,
            ),
        ] {
            check(403, "", body, &format!("error parsing HTTP 403 response body: {want}"));
        }
        let huge = "<".repeat(1 << 20);
        let headers = HeaderMap::new();
        let text = Refusal::read(StatusCode::FORBIDDEN, &headers, huge.as_bytes()).to_string();
        assert!(text.len() < 2 * WORDS_MAX, "{}", text.len());
    }
}
