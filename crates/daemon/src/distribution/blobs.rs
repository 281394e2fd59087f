//! Blobs: end-2 and end-10.

use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use hyper::{Method, StatusCode};
use spec::Digest;

use super::range::{self, Wanted};
use super::refusal::{Code, Refusal, Result};
use super::route::Asked;
use super::{Ask, body, empty};
use crate::http::reply::{self, Reply};

pub async fn blob(ask: &mut Ask, asked: Asked) -> Result {
    let digest = match asked {
        Asked::Digest(digest) => digest,
        Asked::Other(text) => {
            return Err(Refusal::new(
                Code::BlobUnknown,
                format!("blob unknown to registry: {text}"),
            ));
        }
    };
    match ask.method {
        Method::HEAD => head(ask, &digest),
        Method::GET => get(ask, digest).await,
        Method::DELETE => {
            ask.engine.delete_blob(digest).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(Refusal::method("GET, HEAD, DELETE")),
    }
}

fn head(ask: &Ask, digest: &Digest) -> Result {
    let unknown = || Refusal::new(Code::BlobUnknown, format!("blob unknown to registry: {digest}"));
    let size = ask.engine.find_blob(digest).ok_or_else(unknown)?;
    // Whoever asks may count on it for a manifest that comes soon.
    ask.engine.hold_blob(digest);
    let mut reply = empty(StatusCode::OK);
    describe(&mut reply, digest);
    reply.headers_mut().insert(CONTENT_LENGTH, size.into());
    Ok(reply)
}

async fn get(ask: &Ask, digest: Digest) -> Result {
    let mut blob = ask.engine.open_blob(digest).await?;
    if is_same(ask.header(&IF_NONE_MATCH), &digest) {
        let mut reply = empty(StatusCode::NOT_MODIFIED);
        describe(&mut reply, &digest);
        return Ok(reply);
    }
    let size = blob.size();
    let condition = ask.header(&IF_RANGE);
    let wanted = match condition.is_empty() || is_same(condition, &digest) {
        true => range::wanted(ask.header(&RANGE), size),
        false => Wanted::Whole,
    };
    let failed = |error: std::io::Error| {
        tracing::error!(%digest, %error, "a blob cannot be read");
        Refusal::new(Code::Unknown, "the blob cannot be read")
    };
    let (status, length, part) = match wanted {
        Wanted::Whole => (StatusCode::OK, size, None),
        Wanted::Part { start, end } => {
            blob.cut(start, end).await.map_err(failed)?;
            let part = format!("bytes {start}-{}/{size}", end - 1);
            (StatusCode::PARTIAL_CONTENT, end - start, Some(part))
        }
        Wanted::Unsatisfiable => {
            return Err(Refusal::new(Code::SizeInvalid, format!("the blob has {size} bytes"))
                .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
                .with_header(CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    let mut reply = Reply::new(body::of_blob(blob));
    *reply.status_mut() = status;
    describe(&mut reply, &digest);
    reply.headers_mut().insert(CONTENT_LENGTH, length.into());
    if let Some(part) = part {
        reply::set(&mut reply, "content-range", &part);
    }
    Ok(reply)
}

fn describe(reply: &mut Reply, digest: &Digest) {
    reply::set(reply, "docker-content-digest", &digest.to_string());
    reply::set(reply, ETAG.as_str(), &etag(digest));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

/// Content never changes under its digest, so the digest is its tag.
pub fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether one of the entity tags in a condition is the digest's (RFC 9110, 13.1).
pub fn is_same(condition: &str, digest: &Digest) -> bool {
    let own = etag(digest);
    condition.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == own)
}
