//! One repository at one endpoint: manifests, blobs, tags, uploads.
//!
//! [`Client::open`] asks `GET /v2/` and learns how to authenticate; every later request carries what
//! that needs, and is tried once more when it is refused with a new challenge. Credentials go to the
//! endpoint's own host only, tokens and redirects elsewhere get none.
//!
//! Invariant: what [`Client::manifest`] and [`Client::small_blob`] give has the digest it is named
//! by. A streamed blob is verified by its reader.
//!
//! Source: OCI distribution-spec 1.1; distribution v2 `registry/client/repository.go`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, LOCATION,
    RANGE,
};
use hyper::{Method, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use spec::Digest;
use spec::image::media_type;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};

use crate::address;
use crate::auth::{self, Credentials, Realms, Session};
use crate::dial::{Trust, Verify};
use crate::error::{Error, REFUSAL_BYTES_MAX, Refusal, RequestError, TransportError};
use crate::policy::{Endpoint, Scheme};
use crate::transport::{Answer, Payload, Transport};

/// Source: moby `distribution/pull_v2.go`; OCI distribution-spec 4.4: at least 4 MiB.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
const TAGS_BYTES_MAX: usize = 4 << 20;
const TAG_PAGES_MAX: usize = 1000;
/// How often what can be sent again is sent.
const ATTEMPTS_MAX: u64 = 4;
/// Source: moby `registry/registry.go`, `PingV2Registry`.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.manifest.v1+json";

/// What is to be done with a repository, which decides the token's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        }
    }
}

/// How hosts are trusted, by `host[:port]`.
pub type Trusting = Arc<dyn Fn(&str) -> Arc<Trust> + Send + Sync>;

/// A manifest or an index as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub media_type: String,
    pub digest: Digest,
    pub bytes: Bytes,
}

/// A manifest's description without itself. The size is in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// A blob being received.
pub struct BlobStream {
    answer: Answer,
    /// Bytes that the server sends again though they are here already.
    skip: u64,
}

impl BlobStream {
    /// The next piece.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for a minute.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(mut chunk) = self.answer.chunk().await? else { return Ok(None) };
            let drop = self.skip.min(chunk.len() as u64);
            self.skip -= drop;
            let kept = chunk.split_off(usize::try_from(drop).unwrap_or(0));
            if !kept.is_empty() {
                return Ok(Some(kept));
            }
        }
    }
}

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    location: Uri,
}

/// What came of offering a blob of another repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    Mounted,
    /// The registry wants the bytes.
    Wanted(Upload),
}

/// One repository at one endpoint.
pub struct Client {
    transport: Transport,
    endpoint: Endpoint,
    repository: String,
    credentials: Credentials,
    scope: String,
    trusting: Trusting,
    /// Held while a token is fetched, so that several requests at once fetch one.
    session: Mutex<Session>,
}

impl Client {
    /// Asks the endpoint for its demands.
    ///
    /// # Errors
    /// When there is no answer at all; a refusal is one.
    pub async fn open(
        transport: Transport,
        endpoint: Endpoint,
        repository: &str,
        credentials: Credentials,
        access: Access,
        trusting: Trusting,
    ) -> Result<Client, Error> {
        let is_guarded = endpoint.scheme == Scheme::Https && endpoint.trust.verify == Verify::Yes;
        let realms = if is_guarded { Realms::Guarded } else { Realms::Any };
        let client = Client {
            transport,
            scope: format!("repository:{repository}:{}", access.actions()),
            endpoint,
            repository: repository.to_owned(),
            credentials,
            trusting,
            session: Mutex::new(Session::new(realms)),
        };
        client.ping().await?;
        Ok(client)
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn ping(&self) -> Result<Answer, Error> {
        let url = self.address("")?;
        let headers: HeaderMap = self.endpoint.headers.iter().cloned().collect();
        let trusting = self.trusting();
        let sent = self.transport.send(Method::GET, &url, &headers, Payload::empty(), &*trusting);
        let late = |_| RequestError {
            method: Method::GET,
            url: url.to_string(),
            source: TransportError::HeaderTimeout,
        };
        let mut answer = timeout(PING_TIMEOUT, sent).await.map_err(late)??;
        self.session.lock().await.learn(auth::challenges(&answer.headers));
        // Read to the end, so that the connection serves again.
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        Ok(answer)
    }

    fn trusting(&self) -> Trusting {
        let (own, trust) = (self.endpoint.authority.clone(), Arc::clone(&self.endpoint.trust));
        let others = Arc::clone(&self.trusting);
        Arc::new(
            move |authority| if authority == own { Arc::clone(&trust) } else { others(authority) },
        )
    }

    fn address(&self, path: &str) -> Result<Uri, Error> {
        let url = self.endpoint.url(path);
        url.parse().map_err(|_| Error::Address(url))
    }

    fn place(&self, rest: &str) -> Result<Uri, Error> {
        self.address(&format!("{}/{rest}", self.repository))
    }

    /// Where a manifest or a blob is; a mirror is told whose.
    fn content(&self, kind: &str, reference: &str) -> Result<Uri, Error> {
        self.named(&format!("{kind}/{reference}"))
    }

    /// The same of anything in the repository.
    fn named(&self, rest: &str) -> Result<Uri, Error> {
        let Some(namespace) = &self.endpoint.namespace else { return self.place(rest) };
        let mark = if rest.contains('?') { '&' } else { '?' };
        self.place(&format!("{rest}{mark}ns={}", utf8_percent_encode(namespace, NON_ALPHANUMERIC)))
    }

    /// Sends once, authenticates when asked to, and gives any answer.
    async fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: HeaderMap,
        payload: Payload,
        scope: &str,
    ) -> Result<Answer, Error> {
        let trusting = self.trusting();
        let mut payload = Some(payload);
        for is_last in [false, true] {
            let mut headers = headers.clone();
            let is_ours = self.endpoint.is_at(url);
            let authorized =
                if is_ours { self.authorized(&method, url, scope).await? } else { None };
            if is_ours {
                headers.extend(self.endpoint.headers.iter().cloned());
            }
            let is_basic =
                authorized.as_ref().is_some_and(|value| value.as_bytes().starts_with(b"Basic "));
            headers.extend(authorized.map(|value| (AUTHORIZATION, value)));
            let (now, later) = match payload.take() {
                Some(Payload::Bytes(bytes)) => {
                    (Payload::Bytes(bytes.clone()), Some(Payload::Bytes(bytes)))
                }
                Some(stream @ Payload::Stream(_)) => (stream, None),
                None => (Payload::empty(), None),
            };
            payload = later;
            let mut answer =
                self.transport.send(method.clone(), url, &headers, now, &*trusting).await?;
            let challenges = auth::challenges(&answer.headers);
            if !is_ours || is_basic || !is_refused(answer.status, &challenges) {
                return Ok(answer);
            }
            self.session.lock().await.refused(scope, challenges);
            if payload.is_none() {
                return Err(Error::Expired(refusal(answer).await));
            }
            if is_last {
                return Ok(answer);
            }
            let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        }
        Err(Error::Header("WWW-Authenticate"))
    }

    /// What lets us do `scope`, where that is asked for.
    async fn authorized(
        &self,
        method: &Method,
        url: &Uri,
        scope: &str,
    ) -> Result<Option<HeaderValue>, Error> {
        let trusting = self.trusting();
        let mut session = self.session.lock().await;
        let wanted =
            session.authorization(&self.transport, &self.credentials, scope, &*trusting).await;
        let failed = |source| RequestError { method: method.clone(), url: url.to_string(), source };
        Ok(wanted.map_err(failed)?)
    }

    /// The same for what can be sent again: a registry that is busy or restarts is asked some more
    /// times.
    async fn ask(
        &self,
        method: Method,
        url: &Uri,
        headers: HeaderMap,
        body: Bytes,
        scope: &str,
    ) -> Result<Answer, Error> {
        for attempt in 1.. {
            let payload = Payload::Bytes(body.clone());
            let sent = self.send(method.clone(), url, headers.clone(), payload, scope).await;
            let pause = match &sent {
                Ok(answer) => Refusal::read(answer.status, &answer.headers, b"").pause(),
                Err(error) if error.is_transient() => Some(Duration::ZERO),
                Err(_) => None,
            };
            let Some(pause) = pause.filter(|_| attempt < ATTEMPTS_MAX) else { return sent };
            if let Ok(mut answer) = sent {
                let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
            }
            sleep(pause.max(Duration::from_secs(attempt))).await;
        }
        Err(Error::Header("Retry-After"))
    }

    /// The same, with a refusal as an error.
    async fn demand(
        &self,
        method: Method,
        url: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Error> {
        let answer = self.ask(method, url, headers, body, &self.scope).await?;
        accepted(answer).await
    }

    /// What `reference` (a tag or a digest) is; None where the registry does not tell without
    /// sending it.
    ///
    /// # Errors
    /// Only when there is no answer, or none without credentials.
    pub async fn find_manifest(&self, reference: &str) -> Result<Option<Known>, Error> {
        let url = self.content("manifests", reference)?;
        let mut answer = self.ask(Method::HEAD, &url, accept(), Bytes::new(), &self.scope).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let digest = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
        let size = answer.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let media_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        Ok(digest.zip(size).map(|(digest, size)| Known { media_type, digest, size }))
    }

    /// The manifest that `reference` (a tag or a digest) names. One that is asked for by digest has it.
    ///
    /// # Errors
    /// Refused, too large, another digest.
    pub async fn manifest(&self, reference: &str) -> Result<Fetched, Error> {
        let url = self.content("manifests", reference)?;
        let mut answer = self.demand(Method::GET, &url, accept(), Bytes::new()).await?;
        let media_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = answer.bytes(MANIFEST_BYTES_MAX).await.map_err(Error::Body)?;
        let bytes = bytes.ok_or_else(|| Error::TooLarge {
            what: format!("manifest {reference}"),
            max: MANIFEST_BYTES_MAX as u64,
        })?;
        let digest = Digest::of(&bytes);
        let want = reference
            .parse()
            .ok()
            .or_else(|| answer.header("docker-content-digest").and_then(|text| text.parse().ok()));
        match want {
            Some(want) if want != digest => Err(Error::Digest { want, got: digest }),
            _ => Ok(Fetched { media_type, digest, bytes }),
        }
    }

    /// A blob that fits into memory, verified.
    ///
    /// # Errors
    /// Refused, too large, another digest.
    pub async fn small_blob(&self, digest: &Digest, max: usize) -> Result<Bytes, Error> {
        let url = self.content("blobs", &digest.to_string())?;
        let mut answer = self.demand(Method::GET, &url, HeaderMap::new(), Bytes::new()).await?;
        let bytes = answer.bytes(max).await.map_err(Error::Body)?;
        let bytes = bytes
            .ok_or_else(|| Error::TooLarge { what: format!("blob {digest}"), max: max as u64 })?;
        let got = Digest::of(&bytes);
        if got != *digest {
            return Err(Error::Digest { want: *digest, got });
        }
        Ok(bytes)
    }

    /// A blob from byte `offset` on, not verified.
    ///
    /// # Errors
    /// Refused.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobStream, Error> {
        let url = self.content("blobs", &digest.to_string())?;
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.insert(RANGE, range.map_err(|_| Error::Header("Range"))?);
        }
        // Whoever continues a blob also counts the tries.
        let sent = self.send(Method::GET, &url, headers, Payload::empty(), &self.scope).await?;
        let answer = accepted(sent).await?;
        let start = match answer.status {
            StatusCode::PARTIAL_CONTENT => {
                let range =
                    answer.header("content-range").and_then(|text| text.strip_prefix("bytes "));
                let start = range.and_then(|range| range.split('-').next()?.parse::<u64>().ok());
                start.filter(|start| *start <= offset).ok_or(Error::Header("Content-Range"))?
            }
            _ => 0,
        };
        Ok(BlobStream { answer, skip: offset - start })
    }

    /// The size of a blob that is there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn find_blob(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let url = self.content("blobs", &digest.to_string())?;
        let mut answer =
            self.ask(Method::HEAD, &url, HeaderMap::new(), Bytes::new(), &self.scope).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let size =
                    answer.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
                Ok(Some(size.unwrap_or(0)))
            }
            _ => Err(refusal(answer).await.into()),
        }
    }

    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// Refused, or no list.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(serde::Deserialize)]
        struct List {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut place = self.named("tags/list")?;
        let mut all = Vec::new();
        for _ in 0..TAG_PAGES_MAX {
            let mut answer =
                self.demand(Method::GET, &place, HeaderMap::new(), Bytes::new()).await?;
            let links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
            let next = links.filter_map(next_page).next();
            let next = next.map(|next| address::resolve(&answer.url, next)).transpose();
            let next = next.map_err(Error::Link)?;
            let body = answer.bytes(TAGS_BYTES_MAX).await.map_err(Error::Body)?;
            let body = body.ok_or_else(|| Error::TooLarge {
                what: "list of tags".to_owned(),
                max: TAGS_BYTES_MAX as u64,
            })?;
            let list: List = serde_json::from_slice(&body)
                .map_err(|source| Error::Document { what: "list of tags", source })?;
            all.extend(list.tags.unwrap_or_default());
            match next {
                Some(next) => place = next,
                None => return Ok(all),
            }
        }
        Ok(all)
    }

    /// Offers a blob of the repository `from` of the same registry.
    ///
    /// # Errors
    /// Refused.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from)
            .finish();
        let url = self.named(&format!("blobs/uploads/?{query}"))?;
        let scope = format!("{} repository:{from}:pull", self.scope);
        let answer = self.ask(Method::POST, &url, HeaderMap::new(), Bytes::new(), &scope).await?;
        let mut answer = accepted(answer).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        match answer.status {
            StatusCode::CREATED => Ok(Mount::Mounted),
            _ => Ok(Mount::Wanted(begun(&answer, &url)?)),
        }
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// Refused.
    pub async fn begin_upload(&self) -> Result<Upload, Error> {
        let url = self.named("blobs/uploads/")?;
        let mut answer = self.demand(Method::POST, &url, HeaderMap::new(), Bytes::new()).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        begun(&answer, &url)
    }

    /// How many bytes of an upload the registry has, and where it goes on.
    ///
    /// # Errors
    /// Refused: the registry has forgotten it, or tells no offset.
    pub async fn upload_status(&self, upload: &Upload) -> Result<(Upload, u64), Error> {
        let mut answer =
            self.demand(Method::GET, &upload.location, HeaderMap::new(), Bytes::new()).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        let range = answer.header(RANGE.as_str()).and_then(received);
        let received = range.ok_or(Error::Header("Range"))?;
        // Some say the place anew with each answer, for others it stays.
        let moved = begun(&answer, &upload.location).unwrap_or_else(|_| upload.clone());
        Ok((moved, received))
    }

    /// Sends bytes as they come, after those that the registry has.
    ///
    /// # Errors
    /// Refused, or the stream itself failed.
    pub async fn send_upload(
        &self,
        upload: Upload,
        bytes: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<Upload, Error> {
        let headers = HeaderMap::from_iter([octets()]);
        let payload = Payload::Stream(bytes);
        let sent = self.send(Method::PATCH, &upload.location, headers, payload, &self.scope);
        let mut answer = accepted(sent.await?).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        begun(&answer, &upload.location)
    }

    /// Ends an upload, with its last bytes if there are any left.
    ///
    /// # Errors
    /// Refused: the registry got other bytes.
    pub async fn finish_upload(
        &self,
        upload: Upload,
        digest: &Digest,
        rest: Bytes,
    ) -> Result<(), Error> {
        let place = upload.location.to_string();
        let mark = if place.contains('?') { '&' } else { '?' };
        let digest = digest.to_string();
        let place =
            format!("{place}{mark}digest={}", utf8_percent_encode(&digest, NON_ALPHANUMERIC));
        let url: Uri = place.parse().map_err(|_| Error::Address(place))?;
        let headers = HeaderMap::from_iter([octets()]);
        let mut answer = self.demand(Method::PUT, &url, headers, rest).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        Ok(())
    }

    /// Puts a manifest under `reference`, a tag or a digest.
    ///
    /// # Errors
    /// Refused: blobs are missing, or the tag may not be changed.
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let url = self.content("manifests", reference)?;
        let kind = HeaderValue::from_str(media_type)
            .map_err(|_| Error::MediaType(media_type.to_owned()))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        let mut answer = self.demand(Method::PUT, &url, headers, bytes).await?;
        let _ = answer.bytes(REFUSAL_BYTES_MAX).await;
        Ok(())
    }
}

/// Whether an endpoint takes the credentials; gives an identity token where it hands them out.
///
/// # Errors
/// Refused, in the words of whoever refused, or no answer.
pub async fn login(
    transport: Transport,
    endpoint: Endpoint,
    credentials: Credentials,
    trusting: Trusting,
) -> Result<Option<String>, Error> {
    let client = Client::open(transport, endpoint, "", credentials, Access::Pull, trusting).await?;
    let url = client.address("")?;
    let failed = |source| RequestError { method: Method::GET, url: url.to_string(), source };
    let trusting = client.trusting();
    let bearer = client.session.lock().await.bearer();
    let identity = match bearer {
        Some(challenge) if client.credentials.identity_token.is_empty() => client
            .session
            .lock()
            .await
            .refresh_token(&client.transport, &client.credentials, &challenge, &*trusting)
            .await
            .map_err(failed)?,
        _ => None,
    };
    let answer = client.send(Method::GET, &url, HeaderMap::new(), Payload::empty(), "").await?;
    accepted(answer).await.map(|_| identity)
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))])
}

fn octets() -> (hyper::header::HeaderName, HeaderValue) {
    (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
}

fn begun(answer: &Answer, url: &Uri) -> Result<Upload, Error> {
    let location = answer.header(LOCATION.as_str()).filter(|location| !location.is_empty());
    let location = location.and_then(|location| address::resolve(url, location).ok());
    Ok(Upload { location: location.ok_or(Error::Header("Location"))? })
}

async fn accepted(answer: Answer) -> Result<Answer, Error> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    Err(refusal(answer).await.into())
}

async fn refusal(mut answer: Answer) -> Refusal {
    let body = answer.start(REFUSAL_BYTES_MAX).await;
    Refusal::read(answer.status, &answer.headers, &body)
}

/// Whether it is who we are that was refused.
///
/// Source: RFC 6750, 3.1: what a token is not good for may be told with 401 or 403.
fn is_refused(status: StatusCode, challenges: &[auth::Challenge]) -> bool {
    let lacks_scope =
        |challenge: &auth::Challenge| challenge.parameter("error") == Some("insufficient_scope");
    status == StatusCode::UNAUTHORIZED
        || (status == StatusCode::FORBIDDEN && challenges.iter().any(lacks_scope))
}

/// How many bytes `0-9` (or `bytes=0-9`) are. Source: OCI distribution-spec 1.1, "Pushing a blob in
/// chunks"; docker-registry says `0-0` when it has none.
fn received(range: &str) -> Option<u64> {
    let (start, end) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    match (start, end) {
        (0, 0) => Some(0),
        (0, end) => end.checked_add(1),
        _ => None,
    }
}

/// The address of `<…>; rel="next"`, among others of one header.
///
/// Source: RFC 8288, 3: relations are words in any case, in quotes or not.
fn next_page(link: &str) -> Option<&str> {
    let mut rest = link;
    while let Some((_, after)) = rest.split_once('<') {
        let (address, after) = after.split_once('>')?;
        // Parameters end where the next link begins; a quoted comma belongs to them.
        let mut is_quoted = false;
        let end = after.find(|letter| {
            is_quoted ^= letter == '"';
            letter == ',' && !is_quoted
        });
        let (parameters, after) = after.split_at(end.unwrap_or(after.len()));
        let is_next =
            parameters.split(';').filter_map(|one| one.split_once('=')).any(|(name, value)| {
                let mut words = value.trim().trim_matches('"').split_ascii_whitespace();
                name.trim().eq_ignore_ascii_case("rel")
                    && words.any(|word| word.eq_ignore_ascii_case("next"))
            });
        if is_next {
            return Some(address);
        }
        rest = after;
    }
    None
}

/// Whether a media type is one of an index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_received_is_in_the_range() {
        assert_eq!(received("0-99"), Some(100));
        assert_eq!(received("bytes=0-0"), Some(0));
        assert_eq!(received("5-9"), None);
        assert_eq!(received("0"), None);
    }

    #[test]
    fn the_next_page_is_in_the_link() {
        assert_eq!(
            next_page(r#"</v2/a/tags/list?last=x&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=x&n=2")
        );
        assert_eq!(next_page(r#"</v2/>; rel="prev""#), None);
        assert_eq!(
            next_page(r#"<a>; rel="prev", <b?x=1,2>; title="c, d"; rel=NEXT"#),
            Some("b?x=1,2")
        );
        assert_eq!(next_page(r#"<?last=x>; rel="first next""#), Some("?last=x"));
        assert_eq!(next_page("<never ends"), None);
    }
}
