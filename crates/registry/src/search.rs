//! Search, the one part of the first registry protocol that is still in use.
//!
//! Docker Hub answers at its index, any other host at `/v1/search` of its own. A host that is not
//! Docker Hub is pinged first, over https and, where it may be, over http. The name and password go
//! along as Basic; an identity token brings a token for the scope `registry:catalog:search`.
//!
//! Source: moby 28.2 `registry/search.go`, `search_endpoint_v1.go`, `search_session.go`.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;

use crate::auth::{self, Credentials};
use crate::client::Trusting;
use crate::error::{Error, RequestError, TransportError};
use crate::policy::{Endpoint, Role, Scheme};
use crate::transport::{Answer, Payload, Transport};

const ANSWER_BYTES_MAX: usize = 4 << 20;
const PING_BYTES_MAX: usize = 64 << 10;
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const SCOPE: &str = "registry:catalog:search";

/// One image that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    pub name: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub description: String,
    pub star_count: i64,
    pub is_official: bool,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

/// Why nothing was found out. Docker's words go around the causes, so these are part of the text.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("invalid registry endpoint {url}: {}{}", shown(.why), hint(.url))]
    Endpoint { url: String, why: Box<Error> },
    #[error(
        "invalid registry endpoint {url:?}. HTTPS attempt: {}. HTTP attempt: {}", shown(.tls), shown(.plain)
    )]
    Neither { url: String, tls: Box<Error>, plain: Box<Error> },
    #[error("{}", shown(.0))]
    Request(Box<Error>),
    #[error("Unexpected status code {}", .0.as_u16())]
    Status(StatusCode),
    #[error("error decoding registry search results")]
    Document(#[source] serde_json::Error),
    #[error("error decoding registry search results: longer than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

fn shown(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn hint(url: &str) -> String {
    let host = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    format!(
        ". If this private registry supports only HTTP or HTTPS with an unknown CA certificate, \
         add `--insecure-registry {host}` to the daemon's arguments. In the case of HTTPS, if you \
         have access to the registry's CA certificate, no need for the flag; place the CA \
         certificate at /etc/docker/certs.d/{host}/ca.crt"
    )
}

/// Whom to ask and as whom.
pub struct Search {
    pub transport: Transport,
    pub trusting: Trusting,
    pub credentials: Credentials,
    /// In the order of trying.
    pub endpoints: Vec<Endpoint>,
    /// Docker Hub's index needs no ping.
    pub ping: Ping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    First,
    Never,
}

impl Search {
    /// Images whose names or descriptions have `term`, at most `limit`, in the registry's order.
    ///
    /// # Errors
    /// No endpoint answers, or not with a list.
    pub async fn run(&self, term: &str, limit: u8) -> Result<Vec<Found>, SearchError> {
        let endpoint = self.endpoint().await?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", term)
            .append_pair("n", &limit.to_string())
            .finish();
        let url = address(&format!("{}search?{query}", base(endpoint))).map_err(asked)?;
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("x-docker-token"), HeaderValue::from_static("true"));
        headers.extend(endpoint.headers.iter().cloned());
        let authorized = self.authorization(endpoint).await.map_err(asked)?;
        headers.extend(authorized.map(|value| (AUTHORIZATION, value)));
        let mut answer = self.get(&url, &headers).await.map_err(asked)?;
        let body = answer.bytes(ANSWER_BYTES_MAX).await;
        if answer.status != StatusCode::OK {
            return Err(SearchError::Status(answer.status));
        }
        let body = body.map_err(|source| asked(Error::Body(source)))?;
        results(&body.ok_or(SearchError::TooLarge)?)
    }

    /// The first endpoint that answers, whatever it says.
    async fn endpoint(&self) -> Result<&Endpoint, SearchError> {
        let mut failed: Option<Error> = None;
        let mut last = String::new();
        for endpoint in &self.endpoints {
            if self.ping == Ping::Never {
                return Ok(endpoint);
            }
            last = base(endpoint);
            match (self.ping_one(&last).await, failed.take()) {
                (Ok(()), _) => return Ok(endpoint),
                (Err(plain), Some(tls)) => {
                    let (tls, plain) = (Box::new(tls), Box::new(plain));
                    return Err(SearchError::Neither { url: last, tls, plain });
                }
                (Err(error), None) => failed = Some(error),
            }
        }
        let why = failed.unwrap_or_else(|| Error::Address(last.clone()));
        Err(SearchError::Endpoint { url: last, why: Box::new(why) })
    }

    async fn ping_one(&self, base: &str) -> Result<(), Error> {
        let url = address(&format!("{base}_ping"))?;
        let headers = HeaderMap::new();
        let late = |_| RequestError {
            method: Method::GET,
            url: url.to_string(),
            source: TransportError::HeaderTimeout,
        };
        let mut answer = timeout(PING_TIMEOUT, self.get(&url, &headers)).await.map_err(late)??;
        // Read to the end, so that the connection serves again.
        let _ = answer.bytes(PING_BYTES_MAX).await;
        Ok(())
    }

    async fn get(&self, url: &Uri, headers: &HeaderMap) -> Result<Answer, Error> {
        let sent =
            self.transport.send(Method::GET, url, headers, Payload::empty(), &*self.trusting);
        Ok(sent.await?)
    }

    async fn authorization(&self, endpoint: &Endpoint) -> Result<Option<HeaderValue>, Error> {
        if self.credentials.identity_token.is_empty() {
            let name = &self.credentials.user;
            return match name.is_empty() {
                true => Ok(None),
                false => auth::basic(&self.credentials).map(Some).map_err(|source| {
                    RequestError { method: Method::GET, url: base(endpoint), source }.into()
                }),
            };
        }
        let url = address(&endpoint.url(""))?;
        let mut answer = self.get(&url, &HeaderMap::new()).await?;
        let mut session = auth::Session::default();
        session.learn(auth::challenges(&answer.headers));
        let _ = answer.bytes(PING_BYTES_MAX).await;
        let wanted =
            session.authorization(&self.transport, &self.credentials, SCOPE, &*self.trusting);
        wanted.await.map_err(|source| {
            RequestError { method: Method::GET, url: url.to_string(), source }.into()
        })
    }
}

fn asked(error: Error) -> SearchError {
    SearchError::Request(Box::new(error))
}

fn results(body: &[u8]) -> Result<Vec<Found>, SearchError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        results: Option<Vec<Found>>,
    }
    let list: List = serde_json::from_slice(body).map_err(SearchError::Document)?;
    Ok(list.results.unwrap_or_default())
}

fn base(endpoint: &Endpoint) -> String {
    let scheme = match endpoint.scheme {
        Scheme::Https => "https",
        Scheme::Http => "http",
    };
    format!("{scheme}://{}/v1/", endpoint.authority)
}

fn address(text: &str) -> Result<Uri, Error> {
    text.parse().map_err(|_| Error::Address(text.to_owned()))
}

/// The host that a term names before its first slash, and what is searched there. None for the host
/// is Docker Hub.
///
/// Source: moby 28.2 `registry/search.go`, `splitReposSearchTerm`.
pub fn split_term(term: &str) -> (Option<&str>, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | "index.docker.io" => (None, without_library(rest)),
            host => (Some(host), rest),
        },
        _ => (None, without_library(term)),
    }
}

/// Official images are listed by their bare names.
fn without_library(term: &str) -> &str {
    term.strip_prefix("library/").unwrap_or(term)
}

/// Docker Hub's index, which searches.
pub fn hub(trust: Arc<crate::dial::Trust>) -> Endpoint {
    Endpoint::new(Scheme::Https, HUB_INDEX, Role::Registry, trust)
}

pub const HUB_INDEX: &str = "index.docker.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_begin_with_a_host() {
        assert_eq!(split_term("redis"), (None, "redis"));
        assert_eq!(split_term("library/redis"), (None, "redis"));
        assert_eq!(split_term("docker.io/library/redis"), (None, "redis"));
        assert_eq!(split_term("group/redis"), (None, "group/redis"));
        assert_eq!(split_term("localhost/redis"), (Some("localhost"), "redis"));
        assert_eq!(split_term("reg.example:5000/a/b"), (Some("reg.example:5000"), "a/b"));
    }

    #[test]
    fn what_a_registry_leaves_out_is_empty() {
        let found =
            results(br#"{"results":[{"name":"a","description":null,"star_count":3}]}"#).unwrap();
        assert_eq!(found, [Found { name: "a".to_owned(), star_count: 3, ..Found::default() }]);
        assert_eq!(results(br#"{"num_results":0,"results":null}"#).unwrap(), []);
        assert!(results(b"<html>").is_err());
    }
}
