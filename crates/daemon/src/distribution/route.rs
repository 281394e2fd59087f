//! Path and method → what is asked of the registry.
//!
//! ```text
//! /v2/                                 end-1
//! /v2/_catalog                         not of the specification, but clients ask for it
//! /v2/<name>/blobs/<digest>            end-2, end-10
//! /v2/<name>/manifests/<tag|digest>    end-3, end-7, end-9
//! /v2/<name>/blobs/uploads/            end-4, end-11
//! /v2/<name>/blobs/uploads/<session>   end-5, end-6, end-13, end-14
//! /v2/<name>/tags/list                 end-8
//! /v2/<name>/referrers/<digest>        end-12
//! ```
//! A name may have any number of segments, so a path is read from its end. It is decoded once, and
//! every check is made on what came of that.

use engine::distribution::{Repository, Selector};
use percent_encoding::percent_decode_str;
use spec::Digest;
use spec::digest::DigestError;

use super::refusal::{Code, Refusal, Result};

/// Whether a path is the registry's rather than the Engine API's.
pub fn is_ours(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Base,
    Catalog,
    Blob(Repository, Asked),
    Manifest(Repository, AskedManifest),
    Uploads(Repository),
    Upload(Repository, String),
    Tags(Repository),
    Referrers(Repository, Asked),
}

/// A digest in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Digest(Digest),
    /// A digest by its form, but of an algorithm that nothing here has.
    Other(String),
}

/// The last segment of a manifest's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedManifest {
    Selector(Selector),
    /// Neither tag nor digest of ours: nothing has this name, and nothing may get it.
    Nothing(String),
}

/// Reads a path that [`is_ours`]; `registry` is the query's `ns`. Gives the repository's name as it
/// was written as well, empty where there is none.
///
/// # Errors
/// When it names nothing that there could be.
pub fn find(path: &str, registry: Option<&str>) -> Result<(String, Place)> {
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| Refusal::new(Code::NameInvalid, "the path is not UTF-8"))?;
    let rest = path.strip_prefix("/v2").unwrap_or_default();
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match rest {
        "" => return Ok((String::new(), Place::Base)),
        "_catalog" => return Ok((String::new(), Place::Catalog)),
        _ => {}
    }
    let nowhere = || {
        Refusal::new(
            Code::NameUnknown,
            "there is nothing at this path: see the OCI distribution specification",
        )
    };
    let (name, tail) = split(rest).ok_or_else(nowhere)?;
    let repository = Repository::parse(name, registry)?;
    let place = match tail {
        Tail::Tags => Place::Tags(repository),
        Tail::Uploads => Place::Uploads(repository),
        Tail::Upload(session) => Place::Upload(repository, session.to_owned()),
        Tail::Blob(digest) => Place::Blob(repository, asked(digest)?),
        Tail::Referrers(digest) => Place::Referrers(repository, asked(digest)?),
        Tail::Manifest(reference) => {
            let asked = manifest(&repository, reference)?;
            Place::Manifest(repository, asked)
        }
    };
    Ok((name.to_owned(), place))
}

enum Tail<'a> {
    Tags,
    Uploads,
    Upload(&'a str),
    Blob(&'a str),
    Manifest(&'a str),
    Referrers(&'a str),
}

/// The name and what follows it.
fn split(rest: &str) -> Option<(&str, Tail<'_>)> {
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, Tail::Tags));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        return Some((name, Tail::Uploads));
    }
    let (front, last) = rest.rsplit_once('/')?;
    if let Some(name) = front.strip_suffix("/blobs/uploads") {
        return Some((name, if last.is_empty() { Tail::Uploads } else { Tail::Upload(last) }));
    }
    let (name, kind) = front.rsplit_once('/')?;
    match kind {
        "blobs" => Some((name, Tail::Blob(last))),
        "manifests" => Some((name, Tail::Manifest(last))),
        "referrers" => Some((name, Tail::Referrers(last))),
        _ => None,
    }
}

fn asked(text: &str) -> Result<Asked> {
    match text.parse() {
        Ok(digest) => Ok(Asked::Digest(digest)),
        Err(DigestError::Algorithm(_)) if is_digest_like(text) => Ok(Asked::Other(text.to_owned())),
        Err(error) => Err(digest_invalid(text, &error)),
    }
}

/// A digest that somebody gives us, for content that is to be kept under it.
pub fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|error| digest_invalid(text, &error))
}

fn digest_invalid(text: &str, error: &DigestError) -> Refusal {
    let shown: String = text.chars().take(100).collect();
    Refusal::new(Code::DigestInvalid, format!("{shown:?} is no digest: {error}"))
}

/// Source: OCI image-spec 1.1, `descriptor.md`, "Digests".
fn is_digest_like(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let algorithm_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+._-".contains(&byte);
    let encoded_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte);
    !algorithm.is_empty()
        && algorithm.bytes().all(algorithm_byte)
        && !encoded.is_empty()
        && encoded.bytes().all(encoded_byte)
}

fn manifest(repository: &Repository, text: &str) -> Result<AskedManifest> {
    if text.contains(':') {
        return Ok(match asked(text)? {
            Asked::Digest(digest) => AskedManifest::Selector(Selector::Digest(digest)),
            Asked::Other(text) => AskedManifest::Nothing(text),
        });
    }
    Ok(match repository.tagged(text) {
        Ok(_) => AskedManifest::Selector(Selector::Tag(text.to_owned())),
        Err(_) => AskedManifest::Nothing(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(path: &str, want: Expect) {
        let shown = match find(&path.replace("DIGEST", DIGEST), None).map(|(_, place)| place) {
            Ok(Place::Base) => "base".to_owned(),
            Ok(Place::Catalog) => "catalog".to_owned(),
            Ok(Place::Blob(name, asked)) => format!("blob {} {}", name.full_name(), short(&asked)),
            Ok(Place::Referrers(name, asked)) => {
                format!("referrers {} {}", name.full_name(), short(&asked))
            }
            Ok(Place::Manifest(name, asked)) => match asked {
                AskedManifest::Selector(Selector::Tag(tag)) => {
                    format!("manifest {}:{tag}", name.full_name())
                }
                AskedManifest::Selector(Selector::Digest(_)) => {
                    format!("manifest {}@DIGEST", name.full_name())
                }
                AskedManifest::Nothing(text) => format!("no manifest {text}"),
            },
            Ok(Place::Uploads(name)) => format!("uploads {}", name.full_name()),
            Ok(Place::Upload(name, session)) => format!("upload {} {session}", name.full_name()),
            Ok(Place::Tags(name)) => format!("tags {}", name.full_name()),
            Err(refusal) => format!("{refusal:?}").split(", message").next().unwrap().to_owned(),
        };
        want.assert_eq(&shown);
    }

    fn short(asked: &Asked) -> String {
        match asked {
            Asked::Digest(_) => "DIGEST".to_owned(),
            Asked::Other(text) => text.clone(),
        }
    }

    #[test]
    fn every_end_point_has_its_place() {
        check("/v2", expect!["base"]);
        check("/v2/", expect!["base"]);
        check("/v2/_catalog", expect!["catalog"]);
        check("/v2/a/blobs/DIGEST", expect!["blob docker.io/library/a DIGEST"]);
        check("/v2/a/b/manifests/v1", expect!["manifest docker.io/a/b:v1"]);
        check("/v2/a/manifests/DIGEST", expect!["manifest docker.io/library/a@DIGEST"]);
        check("/v2/a/blobs/uploads/", expect!["uploads docker.io/library/a"]);
        check("/v2/a/blobs/uploads", expect!["uploads docker.io/library/a"]);
        check("/v2/a/blobs/uploads/x-1", expect!["upload docker.io/library/a x-1"]);
        check("/v2/a/tags/list", expect!["tags docker.io/library/a"]);
        check("/v2/a/referrers/DIGEST", expect!["referrers docker.io/library/a DIGEST"]);
    }

    #[test]
    fn names_may_look_like_end_points() {
        check("/v2/blobs/uploads/manifests/v1", expect!["manifest docker.io/blobs/uploads:v1"]);
        check("/v2/manifests/tags/list", expect!["tags docker.io/library/manifests"]);
        check("/v2/tags/list/tags/list", expect!["tags docker.io/tags/list"]);
    }

    #[test]
    fn paths_are_decoded_once() {
        let colon = DIGEST.replace(':', "%3A");
        check(&format!("/v2/a/blobs/{colon}"), expect!["blob docker.io/library/a DIGEST"]);
        check("/v2/a%2Fb/tags/list", expect!["tags docker.io/a/b"]);
        check("/v2/%252e%252e/tags/list", expect!["Refusal { status: 400, code: NameInvalid"]);
    }

    #[test]
    fn tricks_lead_nowhere() {
        check("/v2/..%2f..%2fetc/tags/list", expect!["Refusal { status: 400, code: NameInvalid"]);
        check("/v2/../../etc/passwd", expect!["Refusal { status: 404, code: NameUnknown"]);
        check("/v2//tags/list", expect!["Refusal { status: 400, code: NameInvalid"]);
        check("/v2/a/tags/list/", expect!["Refusal { status: 404, code: NameUnknown"]);
        check("/v2/%ff/tags/list", expect!["Refusal { status: 400, code: NameInvalid"]);
        check("/v2/a/blobs/../x", expect!["Refusal { status: 404, code: NameUnknown"]);
        check("/v2/a/blobs/sha256:..", expect!["Refusal { status: 400, code: DigestInvalid"]);
        check("/v2/a/blobs/sha256:E3", expect!["Refusal { status: 400, code: DigestInvalid"]);
        check("/v2/a/manifests/..", expect!["no manifest .."]);
        check("/v2/a/manifests/.hidden", expect!["no manifest .hidden"]);
    }

    #[test]
    fn a_digest_of_another_algorithm_names_nothing() {
        check("/v2/a/blobs/sha512:aa", expect!["blob docker.io/library/a sha512:aa"]);
        check("/v2/a/manifests/sha512:aa", expect!["no manifest sha512:aa"]);
        check("/v2/a/blobs/sha/512:aa", expect!["Refusal { status: 404, code: NameUnknown"]);
    }
}
