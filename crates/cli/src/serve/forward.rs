//! One request on its way to the daemon, and its answer on the way back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderName, HeaderValue, IF_NONE_MATCH,
    IF_RANGE, RANGE, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::Front;
use super::gate::Refusal;

/// The headers of requests that the protocol knows. Content-Length is hyper's own.
const REQUEST_HEADERS: [HeaderName; 7] =
    [ACCEPT, CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH, IF_RANGE, RANGE, USER_AGENT];
/// Those of answers that are about the daemon rather than the registry.
const DAEMONS_HEADERS: [&str; 4] = ["api-version", "docker-experimental", "ostype", "connection"];

type Reply = Response<Either<Full<Bytes>, Relayed>>;

/// Answers one request, from the daemon or by a refusal.
pub async fn answer(request: Request<Incoming>, front: &Front) -> Reply {
    let (head, body) = request.into_parts();
    if let Err(refusal) = front.gate.check(&head.method, &head.uri, &head.headers).await {
        return refuse(refusal);
    }
    let target = head.uri.path_and_query().map_or("/v2/", |target| target.as_str());
    let built = Request::builder().method(head.method).uri(target).body(body);
    let Ok(mut request) = built else { return unreachable("the request cannot be passed on") };
    *request.headers_mut() = known(&head.headers);
    match relay(request, front).await {
        Ok(reply) => reply,
        Err(why) => unreachable(&why),
    }
}

fn known(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in REQUEST_HEADERS {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept.insert(HOST, HeaderValue::from_static("registry.tug.localhost"));
    kept
}

async fn relay(request: Request<Incoming>, front: &Front) -> Result<Reply, String> {
    let stream = front.client.dial().await.map_err(|error| error.to_string())?;
    let broken = |error: hyper::Error| format!("the daemon broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection).abort_handle();
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (mut head, body) = answer.into_parts();
    for name in DAEMONS_HEADERS {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Either::Right(Relayed { body, connection })))
}

/// The daemon's answer; its connection ends with it.
pub struct Relayed {
    body: Incoming,
    connection: AbortHandle,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn refuse(refusal: Refusal) -> Reply {
    let (status, code, words) = refusal.parts();
    let mut reply = error(status, code, words);
    match refusal {
        Refusal::Unauthorized => {
            let challenge = HeaderValue::from_static("Basic realm=\"Tug registry\"");
            reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        // What such a client sends next is not for us.
        Refusal::Upgrade => {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Refusal::NoRegistryPath | Refusal::Method | Refusal::ReadOnly => {}
    }
    reply
}

fn unreachable(why: &str) -> Reply {
    crate::terminal::error_text(&format!("{why}\n"));
    error(StatusCode::BAD_GATEWAY, "UNKNOWN", "the registry's daemon cannot be reached")
}

/// Source: OCI distribution-spec 1.1, "Error Codes".
fn error(status: StatusCode, code: &str, words: &str) -> Reply {
    let text = serde_json::json!({"errors": [{"code": code, "message": words, "detail": null}]});
    let mut reply = Response::new(Either::Left(Full::new(Bytes::from(format!("{text}\n")))));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    reply
}
