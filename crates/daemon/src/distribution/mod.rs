//! The registry: the OCI distribution protocol at `/v2/` of the daemon's own socket.
//!
//! ```text
//! request ─ route: path → Place ─┬─ blobs, uploads, manifests, lists ─ engine::distribution
//!                                └─ Refusal: status, code of the specification, words
//! ```
//! Who may connect to the socket may do anything, so there is no authentication here; `tug registry
//! serve` is the front for others and has it. Meaning is in `engine::distribution`; here are paths,
//! headers and statuses.
//!
//! Bounds: a manifest has 4 MiB at most ([`manifests::MANIFEST_BYTES_MAX`]), bodies are never held
//! as a whole otherwise, a silent client is left after a minute, and lists come in pages.
//!
//! Source: OCI distribution-spec 1.1.

mod blobs;
mod body;
mod lists;
mod manifests;
mod page;
mod range;
mod refusal;
mod route;
mod uploads;

use api::body::Body;
use api::query::Query;
use engine::Engine;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method, StatusCode};

use crate::http::conn::Head;
use crate::http::reply::{self, Reply};
use crate::http::request::RequestBody;
use body::Reader;
use refusal::{Refusal, Result};
use route::Place;

pub use route::is_ours;

/// One request.
struct Ask {
    engine: Engine,
    method: Method,
    path: String,
    /// The repository's, as the client wrote it; empty where the path has none.
    name: String,
    query: Query,
    headers: HeaderMap,
    body: Reader,
}

impl Ask {
    fn header(&self, name: &HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The registry whose repositories are meant, where the client says so.
    fn registry(&self) -> Option<&str> {
        self.query.get("ns").filter(|registry| !registry.is_empty())
    }

    /// The address of something in the repository that was asked for. It was decoded and checked, so
    /// nothing in it needs an escape.
    fn location(&self, tail: &str) -> String {
        let path = format!("/v2/{}/{tail}", self.name);
        match self.registry() {
            None => path,
            Some(registry) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("ns", registry);
                format!("{path}?{}", query.finish())
            }
        }
    }
}

/// Answers one request.
pub async fn answer(head: Head, body: RequestBody, engine: Engine) -> Reply {
    let mut ask = Ask {
        engine,
        method: head.method,
        path: head.uri.path().to_owned(),
        name: String::new(),
        query: Query::parse(head.uri.query()),
        body: Reader::new(body, &head.headers),
        headers: head.headers,
    };
    let answered = dispatch(&mut ask).await;
    let registry = ask.registry().map(str::to_owned);
    ask.body.drain().await;
    let mut reply = answered.unwrap_or_else(Refusal::into_reply);
    reply::set(&mut reply, "docker-distribution-api-version", "registry/2.0");
    if let Some(registry) = registry {
        reply::set(&mut reply, "oci-namespace", &registry);
    }
    reply
}

async fn dispatch(ask: &mut Ask) -> Result {
    let (name, place) = route::find(&ask.path, ask.registry())?;
    ask.name = name;
    match place {
        Place::Base => match ask.method {
            Method::GET | Method::HEAD => Ok(json(&serde_json::json!({}))),
            _ => Err(Refusal::method("GET, HEAD")),
        },
        Place::Catalog => lists::catalog(ask).await,
        Place::Tags(repository) => lists::tags(ask, &repository).await,
        Place::Referrers(repository, subject) => lists::referrers(ask, &repository, subject).await,
        Place::Blob(_, digest) => blobs::blob(ask, digest).await,
        Place::Manifest(repository, asked) => manifests::manifest(ask, &repository, asked).await,
        Place::Uploads(repository) => uploads::begin(ask, &repository).await,
        Place::Upload(repository, id) => uploads::upload(ask, &repository, &id).await,
    }
}

/// 200 with JSON.
fn json(value: &serde_json::Value) -> Reply {
    let mut reply = Reply::new(Body::full(format!("{value}\n")));
    reply::set(&mut reply, "content-type", "application/json");
    reply
}

/// An empty answer; hyper tells a length of zero.
fn empty(status: StatusCode) -> Reply {
    reply::empty(status)
}
