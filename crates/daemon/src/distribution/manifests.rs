//! Manifests: end-3, end-7 and end-9.

use api::body::Body;
use engine::distribution::{ManifestFile, NewManifest, Repository, Selector};
use hyper::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use hyper::{Method, StatusCode};
use spec::image::media_type;

use super::blobs::{etag, is_same};
use super::refusal::{Code, Refusal, Result};
use super::route::AskedManifest;
use super::{Ask, empty};
use crate::http::reply::{self, Reply};

/// Source: OCI distribution-spec 1.1, "Pushing Manifests": at least 4 MB.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Tags that one request may give.
const TAGS_MAX: usize = 100;
/// Source: OCI distribution-spec 1.1, "Warnings".
const WARNING_BYTES_MAX: usize = 2048;

pub async fn manifest(ask: &mut Ask, repository: &Repository, asked: AskedManifest) -> Result {
    let selector = match (asked, &ask.method) {
        (AskedManifest::Selector(selector), _) => selector,
        (AskedManifest::Nothing(text), &Method::PUT) => {
            return Err(Refusal::new(
                Code::ManifestInvalid,
                format!("{text:?} is neither a tag nor a digest of sha256"),
            ));
        }
        (AskedManifest::Nothing(text), _) => {
            return Err(Refusal::new(
                Code::ManifestUnknown,
                format!("manifest unknown to registry: {text}"),
            ));
        }
    };
    match ask.method {
        Method::GET | Method::HEAD => get(ask, repository, &selector).await,
        Method::PUT => put(ask, repository, selector).await,
        Method::DELETE => {
            ask.engine.delete_manifest(repository, &selector).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(Refusal::method("GET, HEAD, PUT, DELETE")),
    }
}

async fn get(ask: &Ask, repository: &Repository, selector: &Selector) -> Result {
    let mut found = ask.engine.find_manifest(repository, selector).await?;
    // A digest means what it says; a tag may be an index to some and this host's image to others.
    if matches!(selector, Selector::Tag(_)) && is_index(&found) && !takes_indexes(ask) {
        found = ask.engine.host_manifest(&found).await?;
    }
    let ManifestFile { digest, media_type, bytes } = found;
    let is_known = is_same(ask.header(&IF_NONE_MATCH), &digest);
    let mut reply = match is_known {
        true => empty(StatusCode::NOT_MODIFIED),
        false if ask.method == Method::HEAD => {
            let mut reply = empty(StatusCode::OK);
            reply.headers_mut().insert(CONTENT_LENGTH, bytes.len().into());
            reply
        }
        false => Reply::new(Body::full(bytes)),
    };
    reply::set(&mut reply, CONTENT_TYPE.as_str(), &media_type);
    reply::set(&mut reply, "docker-content-digest", &digest.to_string());
    reply::set(&mut reply, ETAG.as_str(), &etag(&digest));
    Ok(reply)
}

fn is_index(manifest: &ManifestFile) -> bool {
    matches!(manifest.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

/// Whether a client may be given an index: unless it asks for manifests of images and nothing else.
/// A manifest goes out as it is kept, whatever the client would rather have (RFC 9110, 12.1).
fn takes_indexes(ask: &Ask) -> bool {
    let accepted: Vec<&str> = ask
        .headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim())
        .filter(|kind| !kind.is_empty())
        .collect();
    let is_image =
        |kind: &&str| matches!(*kind, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
    let takes_any = |kind: &&str| {
        matches!(*kind, media_type::OCI_INDEX | media_type::DOCKER_LIST | "*/*" | "application/*")
    };
    accepted.iter().any(takes_any) || !accepted.iter().any(is_image)
}

async fn put(ask: &mut Ask, repository: &Repository, selector: Selector) -> Result {
    let too_large = || {
        let words = format!("a manifest may have {MANIFEST_BYTES_MAX} bytes at most");
        Refusal::new(Code::ManifestInvalid, words).with_status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    let told = ask.header(&CONTENT_LENGTH).parse::<u64>();
    if told.is_ok_and(|told| told > MANIFEST_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let tags = tags(ask, repository, &selector)?;
    let broken = |error: std::io::Error| {
        Refusal::new(Code::ManifestInvalid, format!("the manifest broke off: {error}"))
    };
    let bytes = ask.body.whole(MANIFEST_BYTES_MAX).await.map_err(broken)?.ok_or_else(too_large)?;
    let media_type = ask.header(&CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let manifest = NewManifest {
        selector: selector.clone(),
        tags: tags.clone(),
        media_type: media_type.to_owned(),
        bytes,
    };
    let stored = ask.engine.put_manifest(repository, manifest).await?;
    let reference = match selector {
        Selector::Tag(tag) => tag,
        Selector::Digest(digest) => digest.to_string(),
    };
    let mut reply = empty(StatusCode::CREATED);
    reply::set(&mut reply, "location", &ask.location(&format!("manifests/{reference}")));
    reply::set(&mut reply, "docker-content-digest", &stored.digest.to_string());
    if let Some(subject) = stored.subject {
        reply::set(&mut reply, "oci-subject", &subject.to_string());
    }
    for tag in tags {
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            reply.headers_mut().append(HeaderName::from_static("oci-tag"), tag);
        }
    }
    if let Some(warning) = stored.warning {
        reply::set(&mut reply, "warning", &format!("299 - \"{}\"", quoted(&warning)));
    }
    Ok(reply)
}

/// The further tags of a manifest that comes by digest.
fn tags(ask: &Ask, repository: &Repository, selector: &Selector) -> Result<Vec<String>> {
    let asked: Vec<&str> = ask.query.all("tag").collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    if matches!(selector, Selector::Tag(_)) {
        let words = "further tags are given to a manifest that is sent by its digest";
        return Err(Refusal::new(Code::ManifestInvalid, words));
    }
    if asked.len() > TAGS_MAX {
        return Err(Refusal::new(Code::ManifestInvalid, format!("{TAGS_MAX} tags at most"))
            .with_status(StatusCode::URI_TOO_LONG));
    }
    if let Some(wrong) = asked.iter().find(|tag| repository.tagged(tag).is_err()) {
        return Err(Refusal::new(Code::ManifestInvalid, format!("{wrong:?} is no tag")));
    }
    Ok(asked.into_iter().map(str::to_owned).collect())
}

/// Text as it may stand between the quotes of a header.
fn quoted(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => '\'',
            ' '..='~' => c,
            _ => '?',
        })
        .take(WARNING_BYTES_MAX)
        .collect()
}
