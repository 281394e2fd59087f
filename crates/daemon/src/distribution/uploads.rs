//! Uploads: end-4, end-5, end-6, end-11, end-13 and end-14.
//!
//! ```text
//! POST ?mount=D            the blob is here: 201            else as POST
//! POST ?digest=D  body     201
//! POST                     202, and a session
//! PATCH  body              appended: 202                    a gap or an overlap: 416
//! PUT ?digest=D  [body]    appended, verified, kept: 201
//! GET 204, DELETE 204
//! ```
//! A body that ends early leaves what came: the client asks by GET and goes on from there. One that
//! is not as long as its `Content-Range` says is forgotten as a whole.

use std::io;

use engine::distribution::{Repository, SessionId, Upload};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use hyper::{Method, StatusCode};
use spec::Digest;

use super::range::{self, Chunk};
use super::refusal::{Code, Refusal, Result};
use super::{Ask, empty, route};
use crate::http::reply::{self, Reply};

/// `POST …/blobs/uploads/`.
pub async fn begin(ask: &mut Ask, repository: &Repository) -> Result {
    if ask.method != Method::POST {
        return Err(Refusal::method("POST"));
    }
    if let Some(mount) = ask.query.get("mount") {
        let digest = route::digest(mount)?;
        // Blobs belong to all repositories; but a client that is wrong about where one is shall notice.
        let is_from = match ask.query.get("from") {
            Some(from) => match Repository::parse(from, None) {
                Ok(from) => ask.engine.has_repository(&from).await,
                Err(_) => false,
            },
            None => true,
        };
        if is_from && ask.engine.find_blob(&digest).is_some() {
            ask.engine.hold_blob(&digest);
            return Ok(created(ask, &digest));
        }
    }
    if let Some(algorithm) = ask.query.get("digest-algorithm")
        && algorithm != "sha256"
    {
        let words = format!("digest algorithm {algorithm:?} is not supported: use sha256");
        return Err(Refusal::new(Code::DigestInvalid, words));
    }
    let digest = ask.query.get("digest").map(route::digest).transpose()?;
    let id = ask.engine.begin_upload(repository).await?;
    let Some(digest) = digest else {
        return Ok(progress(ask, StatusCode::ACCEPTED, id, 0));
    };
    let mut upload = ask.engine.open_upload(repository, &id.to_string()).await?;
    if let Err(refusal) = append(ask, &mut upload).await {
        upload.cancel().await?;
        return Err(refusal);
    }
    upload.finish(digest).await?;
    Ok(created(ask, &digest))
}

/// What is asked of a session.
pub async fn upload(ask: &mut Ask, repository: &Repository, id: &str) -> Result {
    let known = [Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE];
    if !known.contains(&ask.method) {
        return Err(Refusal::method("GET, PATCH, PUT, DELETE"));
    }
    let mut upload = ask.engine.open_upload(repository, id).await?;
    match ask.method {
        Method::PATCH => {
            append(ask, &mut upload).await?;
            Ok(progress(ask, StatusCode::ACCEPTED, upload.id(), upload.length()))
        }
        Method::PUT => {
            let digest = ask.query.get("digest").ok_or_else(|| {
                Refusal::new(Code::DigestInvalid, "the digest is missing: add ?digest=…")
            })?;
            let digest = route::digest(digest)?;
            append(ask, &mut upload).await?;
            upload.finish(digest).await?;
            Ok(created(ask, &digest))
        }
        Method::DELETE => {
            upload.cancel().await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Ok(progress(ask, StatusCode::NO_CONTENT, upload.id(), upload.length())),
    }
}

/// Appends the request's body.
async fn append(ask: &mut Ask, upload: &mut Upload) -> Result<()> {
    let start = upload.length();
    let expected = expected(ask, upload)?;
    let outcome = copy(ask, upload).await;
    let got = upload.length() - start;
    match (outcome, expected) {
        (Ok(()), Some(expected)) if got != expected => {
            upload.cut(start).await?;
            let words =
                format!("provided length did not match content length: {expected}, got {got}");
            Err(Refusal::new(Code::SizeInvalid, words))
        }
        (Ok(()), Some(_) | None) => Ok(()),
        (Err(Broken::Client(error)), Some(_) | None) => {
            tracing::debug!(%error, got, "an upload broke off");
            Err(Refusal::new(Code::BlobUploadInvalid, format!("the upload broke off: {error}")))
        }
        (Err(Broken::Ours(refusal)), Some(_) | None) => Err(refusal),
    }
}

/// How many bytes the chunk says that it has, after the check that it is the next one.
fn expected(ask: &Ask, upload: &Upload) -> Result<Option<u64>> {
    let header = ask.header(&CONTENT_RANGE);
    if header.is_empty() {
        return Ok(None);
    }
    let wrong = |words: String| {
        let location = location(ask, upload.id());
        Refusal::new(Code::BlobUploadInvalid, words)
            .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
            .with_header(LOCATION, &location)
            .with_header(RANGE, &range::held(upload.length()))
    };
    let Some(Chunk { start, length }) = range::chunk(header) else {
        return Err(wrong(format!("{header:?} is no range of bytes")));
    };
    if start != upload.length() {
        return Err(wrong(format!("the next byte is {}, not {start}", upload.length())));
    }
    let told = ask.header(&CONTENT_LENGTH).parse::<u64>();
    if told.is_ok_and(|told| told != length) {
        let words =
            "provided length did not match content length: Content-Range and Content-Length differ";
        return Err(Refusal::new(Code::SizeInvalid, words));
    }
    Ok(Some(length))
}

enum Broken {
    Client(io::Error),
    Ours(Refusal),
}

async fn copy(ask: &mut Ask, upload: &mut Upload) -> std::result::Result<(), Broken> {
    while let Some(piece) = ask.body.piece().await.map_err(Broken::Client)? {
        upload.write(piece).await.map_err(|error| Broken::Ours(error.into()))?;
    }
    Ok(())
}

fn location(ask: &Ask, id: SessionId) -> String {
    ask.location(&format!("blobs/uploads/{id}"))
}

/// Where to go on, and from what byte.
fn progress(ask: &Ask, status: StatusCode, id: SessionId, length: u64) -> Reply {
    let mut reply = empty(status);
    reply::set(&mut reply, "location", &location(ask, id));
    reply::set(&mut reply, "range", &range::held(length));
    reply::set(&mut reply, "docker-upload-uuid", &id.to_string());
    reply
}

fn created(ask: &Ask, digest: &Digest) -> Reply {
    let mut reply = empty(StatusCode::CREATED);
    reply::set(&mut reply, "location", &ask.location(&format!("blobs/{digest}")));
    reply::set(&mut reply, "docker-content-digest", &digest.to_string());
    reply
}
