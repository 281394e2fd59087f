//! Image references: `[domain/]path[:tag][@digest]`, with Docker's normalisation.
//!
//! A [`Reference`] always has its full domain and path (`docker.io/library/busybox`). It has a tag,
//! a digest, or both; [`Reference::parse`] adds `latest` where neither was written.
//!
//! Source: distribution `reference/regexp.go` and `reference/normalize.go`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library";
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// Why a text is no reference, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("unsupported digest algorithm")]
    Algorithm,
}

/// A valid, normalised image reference.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference and adds the tag `latest` where neither tag nor digest is written.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        let mut reference = Reference::parse_untagged(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some("latest".to_owned());
        }
        Ok(reference)
    }

    /// Reads a reference as written: a bare name stays without a tag.
    pub fn parse_untagged(text: &str) -> Result<Reference, ReferenceError> {
        if text.len() == 64 && Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digits)) => (rest, Some(parse_digest(digits)?)),
            None => (text, None),
        };
        let (domain, rest) = split_domain(rest);
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') && !path.is_empty() {
            format!("{OFFICIAL}/{path}")
        } else {
            path.to_owned()
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(path));
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) {
            return Err(ReferenceError::Format);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > NAME_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Reference { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// `docker.io`, `localhost:5000`, …
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/busybox`, without the domain.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `docker.io/library/busybox`: domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people type it: Docker Hub's domain and `library/` are left out, unless what is
    /// left would be read as another registry's.
    pub fn familiar_name(&self) -> String {
        let first = self.path.split_once('/').map_or("", |(first, _)| first);
        if self.domain != DEFAULT_DOMAIN || first.contains('.') || first == "localhost" {
            return self.name();
        }
        match self.path.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people type it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The same repository under another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository by `digest`, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository alone: neither tag nor digest.
    pub fn bare(&self) -> Reference {
        Reference { tag: None, digest: None, ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// The first component is a domain if it has a dot, a colon or an upper-case letter, or is `localhost`.
fn split_domain(text: &str) -> (String, &str) {
    if let Some((first, rest)) = text.split_once('/') {
        let domain_like = first == "localhost"
            || first.contains(['.', ':'])
            || first.chars().any(|c| c.is_ascii_uppercase());
        if domain_like {
            let domain = if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first };
            return (domain.to_owned(), rest);
        }
    }
    (DEFAULT_DOMAIN.to_owned(), text)
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    match text.split_once(':') {
        Some(("sha256", _)) => text.parse().map_err(|_| ReferenceError::Format),
        Some(("sha384" | "sha512", _)) => Err(ReferenceError::Algorithm),
        _ => Err(ReferenceError::Format),
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        return after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    port.is_none_or(is_port) && host.split('.').all(is_domain_component)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

fn is_domain_component(text: &str) -> bool {
    let edges = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edges(text.chars().next())
        && edges(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Lower-case runs joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return false;
    }
    text.split(alphanumeric).filter(|separator| !separator.is_empty()).all(|separator| {
        matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= TAG_BYTES_MAX
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = String::deserialize(deserializer)?;
        Reference::parse_untagged(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match Reference::parse(text) {
            Ok(reference) => format!("{reference} = {}", reference.familiar()),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn short_names_are_docker_hubs() {
        check("busybox", "docker.io/library/busybox:latest = busybox:latest");
        check("me/app:v1", "docker.io/me/app:v1 = me/app:v1");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest = busybox:latest");
    }

    #[test]
    fn a_first_component_like_a_host_is_the_registry() {
        // Found by fuzzing: without its domain it would be another registry's.
        check("docker.io/a.b/c", "docker.io/a.b/c:latest = docker.io/a.b/c:latest");
        check("localhost/app", "localhost/app:latest = localhost/app:latest");
        check("reg.example:5000/a/b:1", "reg.example:5000/a/b:1 = reg.example:5000/a/b:1");
        check("[::1]:5000/app", "[::1]:5000/app:latest = [::1]:5000/app:latest");
        check("Host/app", "Host/app:latest = Host/app:latest");
    }

    #[test]
    fn bad_references_get_dockers_words() {
        check("", "invalid reference format");
        check("-x", "invalid reference format");
        check("a..b", "invalid reference format");
        check("a:b:c", "invalid reference format");
        check(
            "Busybox",
            "invalid reference format: repository name (library/Busybox) must be lowercase",
        );
        check("a@sha256:12", "invalid reference format");
        check(&"a".repeat(300), "repository name must not be more than 255 characters");
        check(&format!("a:{}", "t".repeat(129)), "invalid reference format");
        let hex = "ab".repeat(32);
        check(
            &hex,
            &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"),
        );
    }

    #[test]
    fn separators_follow_the_grammar() {
        check("a__b--c.d_e", "docker.io/library/a__b--c.d_e:latest = a__b--c.d_e:latest");
        check("a___b", "invalid reference format");
    }
}
