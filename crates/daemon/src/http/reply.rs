//! Answers and how they are put together.

use std::future::Future;
use std::pin::Pin;

use api::body::Body;
use engine::containers::views::ClientSocket;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::Failure;

pub type Reply = Response<Body>;

/// What a handler answers.
pub enum Answer {
    Reply(Reply),
    TakeOver(TakeOver),
}

/// What to do with the connection once the client knows that it is taken over.
pub struct TakeOver {
    pub content_type: &'static str,
    pub protocol: Protocol,
    pub then: Continuation,
}

/// What is spoken on a connection that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bare bytes.
    Tcp,
    /// With the answer to the client's key.
    WebSocket { accept: String },
}

type Continuation =
    Box<dyn FnOnce(ClientSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

impl TakeOver {
    pub fn new<F>(
        content_type: &'static str,
        then: impl FnOnce(ClientSocket) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            content_type,
            protocol: Protocol::Tcp,
            then: Box::new(|client| Box::pin(then(client))),
        }
    }
}

pub type Result<T = Answer> = std::result::Result<T, Failure>;

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = status;
    reply
}

/// 204.
pub fn no_content() -> Result {
    Ok(empty(StatusCode::NO_CONTENT).into())
}

/// A JSON answer; like Go's encoder it ends with a newline.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Result {
    let mut text = serde_json::to_vec(value)
        .map_err(|error| Failure::internal(format!("cannot encode the answer: {error}")))?;
    text.push(b'\n');
    let mut reply = Response::new(Body::full(text));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_TYPE.as_str(), "application/json");
    Ok(reply.into())
}

/// 200 with JSON.
pub fn ok<T: Serialize + ?Sized>(value: &T) -> Result {
    json(StatusCode::OK, value)
}

/// 200 with a stream; the head is sent at once.
pub fn stream(content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    set(&mut reply, CONTENT_TYPE.as_str(), content_type);
    reply
}

/// Sets a header; a value that cannot be one is left out.
pub fn set(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(
            hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap_or(CONTENT_TYPE),
            value,
        );
    }
}

/// The answer to a refused request.
pub fn refuse(failure: &Failure) -> Reply {
    let error = api::ErrorResponse { message: failure.message.clone() };
    // 304 has no body (RFC 9110, 15.4.5).
    if failure.status == StatusCode::NOT_MODIFIED {
        return empty(failure.status);
    }
    match json(failure.status, &error) {
        Ok(Answer::Reply(reply)) => reply,
        Ok(Answer::TakeOver(_)) | Err(_) => empty(failure.status),
    }
}

/// Docker's headers, which every answer carries.
pub fn add_common_headers(reply: &mut Reply, experimental: bool) {
    set(reply, "api-version", &api::version::MAX.to_string());
    set(reply, "docker-experimental", if experimental { "true" } else { "false" });
    set(reply, "ostype", "linux");
    set(reply, "server", concat!("Tug/", env!("CARGO_PKG_VERSION"), " (linux)"));
}
