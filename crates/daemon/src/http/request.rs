//! A request as handlers see it.

use std::io;
use std::sync::Arc;

use api::query::Query;
use api::version::ApiVersion;
use bytes::{Bytes, BytesMut};
use engine::Engine;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::Failure;
use crate::state::State;

/// A JSON body may not be longer.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Bodies up to this length are read before the request is looked at.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// Pieces of an upload that wait for the engine.
const UPLOAD_PIECES: usize = 8;

/// The body of a request that came through hyper, or of one that was read by hand.
pub enum RequestBody {
    Incoming(Incoming),
    Read(Bytes),
}

/// One request: where to, with what, for which version.
pub struct Call {
    pub engine: Engine,
    pub state: Arc<State>,
    pub version: ApiVersion,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: RequestBody,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Reads a short body ahead, so that an answer given without looking at it does not close the
    /// connection under a client that is still writing.
    pub async fn read_ahead(&mut self) -> Result<(), Failure> {
        let length = self.header("content-length").parse::<usize>();
        if length.is_ok_and(|length| length <= READ_AHEAD_BYTES_MAX) {
            self.body = RequestBody::Read(self.bytes().await?);
        }
        Ok(())
    }

    /// The engine's filters. Both shapes parse; an endpoint's own keys are the engine's to check.
    pub fn filters(&self) -> Result<engine::Filters, Failure> {
        let mut filters = engine::Filters::default();
        let parsed = self.query.filters()?;
        for (key, values) in parsed.iter() {
            for value in values {
                filters.insert(key, value.as_str());
            }
        }
        Ok(filters)
    }

    /// The body as JSON; `None` when there is none.
    /// Source: moby `api/server/httputils/httputils.go`, `CheckForJSON` and `ReadJSON`.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let Some(body) = self.json_bytes().await? else {
            return Ok(None);
        };
        match api::golang::from_slice(&body) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(invalid_json(&body, &error)),
        }
    }

    /// The bytes of a JSON body after the checks that all of them need.
    pub async fn json_bytes(&mut self) -> Result<Option<Bytes>, Failure> {
        let content_type = self.header(CONTENT_TYPE.as_str()).to_owned();
        let body = self.bytes().await?;
        if content_type.is_empty() && body.is_empty() {
            return Ok(None);
        }
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Failure::invalid(format!(
                "unsupported Content-Type header ({content_type}): must be 'application/json'"
            )));
        }
        if body.is_empty() {
            return Ok(None);
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::invalid("invalid JSON: got EOF while reading request body"));
        }
        Ok(Some(body))
    }

    async fn bytes(&mut self) -> Result<Bytes, Failure> {
        let incoming = match &mut self.body {
            RequestBody::Read(bytes) => return Ok(std::mem::take(bytes)),
            RequestBody::Incoming(incoming) => incoming,
        };
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame
                .map_err(|error| Failure::invalid(format!("reading the request body: {error}")))?;
            if let Ok(data) = frame.into_data() {
                if body.len() + data.len() > JSON_BYTES_MAX {
                    return Err(Failure::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "http: request body too large",
                    ));
                }
                body.extend_from_slice(&data);
            }
        }
        Ok(body.freeze())
    }

    /// The body as a reader for the engine's blocking side, fed as that side reads. A client that
    /// breaks off makes the reader fail, so that half an upload is never taken for the whole.
    pub fn upload(&mut self) -> engine::stream::StreamReader {
        engine::stream::reader(self.upload_stream())
    }

    /// The body as the engine's stream of pieces; see [`Self::upload`].
    pub fn upload_stream(&mut self) -> engine::stream::ByteStream {
        let (sender, receiver) = mpsc::channel(UPLOAD_PIECES);
        match std::mem::replace(&mut self.body, RequestBody::Read(Bytes::new())) {
            RequestBody::Read(bytes) => {
                // There is room: the queue is empty.
                let _ = sender.try_send(Ok(bytes));
            }
            RequestBody::Incoming(mut incoming) => drop(tokio::spawn(async move {
                while let Some(frame) = incoming.frame().await {
                    let piece = match frame {
                        Ok(frame) => match frame.into_data() {
                            Ok(data) => Ok(data),
                            Err(_trailers) => continue,
                        },
                        Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
                    };
                    // When nobody reads on, the rest is read all the same: closing a socket with
                    // unread data would take the answer from the client (unix(7), ECONNRESET).
                    let _ = sender.send(piece).await;
                }
            })),
        }
        receiver
    }
}

/// A JSON body that cannot be read, in Docker's words.
pub fn invalid_json(body: &[u8], error: &serde_json::Error) -> Failure {
    // serde_json tells what stands behind a value by its text alone.
    if error.is_syntax() && error.to_string().starts_with("trailing characters") {
        return Failure::invalid("unexpected content after JSON");
    }
    match api::golang_words::syntax_error(body) {
        Some(words) => Failure::invalid(format!("invalid JSON: {words}")),
        None => Failure::invalid(format!("invalid JSON: {error}")),
    }
}
