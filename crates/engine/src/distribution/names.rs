//! Repositories, tags and digests as the distribution protocol writes them.
//!
//! A repository `foo/bar` is the images of that familiar name: `docker.io/foo/bar`, and `foo` is
//! `docker.io/library/foo`. Images under other registries' names are reached by a name that begins
//! with the domain, or by the query parameter `ns=HOST[:PORT]`, which is containerd's way to tell
//! a mirror whose repository is meant.
//!
//! Source: OCI distribution-spec 1.1, "Pulling manifests", "Registry Proxying".

use spec::reference::ReferenceError;
use spec::{Digest, Reference};

/// Source: OCI distribution-spec 1.1, "Pulling manifests".
const NAME_BYTES_MAX: usize = 255;
/// Other names of Docker Hub, where its images have only one.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Why a name is no repository's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    #[error("invalid repository name {0:?}")]
    Grammar(String),
    #[error("invalid registry name {0:?}")]
    Registry(String),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// A repository: all images of one name, whatever their tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Reference);

impl Repository {
    /// `name` as it stands in the path; `registry` as in `ns`.
    ///
    /// # Errors
    /// When one of them is not of the specification's grammar.
    pub fn parse(name: &str, registry: Option<&str>) -> Result<Repository, RepositoryError> {
        if name.len() > NAME_BYTES_MAX || !name.split('/').all(is_component) {
            return Err(RepositoryError::Grammar(name.to_owned()));
        }
        let reference = match registry.filter(|registry| !HUB.contains(registry)) {
            None => Reference::parse_untagged(name)?,
            Some(registry) => {
                let reference = Reference::parse_untagged(&format!("{registry}/{name}"))?;
                // Or `ns=foo` would be read as a part of the name.
                if reference.domain() != registry || reference.path() != name {
                    return Err(RepositoryError::Registry(registry.to_owned()));
                }
                reference
            }
        };
        Ok(Repository(reference))
    }

    /// The repository that an image's name belongs to.
    #[must_use]
    pub fn of(reference: &Reference) -> Repository {
        Repository(reference.bare())
    }

    /// With its domain.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.0.name()
    }

    /// As it stands in a path, for clients that name `registry` in `ns`; none where it cannot be
    /// reached so.
    #[must_use]
    pub fn served_name(&self, registry: Option<&str>) -> Option<String> {
        let name = match registry.filter(|registry| !HUB.contains(registry)) {
            None => self.0.familiar_name(),
            Some(registry) if registry == self.0.domain() => self.0.path().to_owned(),
            Some(_) => return None,
        };
        name.split('/').all(is_component).then_some(name)
    }

    /// # Errors
    /// When `tag` is none.
    pub fn tagged(&self, tag: &str) -> Result<Reference, ReferenceError> {
        self.0.with_tag(tag)
    }

    #[must_use]
    pub fn by_digest(&self, digest: Digest) -> Reference {
        self.0.with_digest(digest)
    }
}

/// Lower-case runs joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(word)
        && text.ends_with(word)
        && text.split(word).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
        })
}

/// What names a manifest within its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Of the grammar of tags.
    Tag(String),
    Digest(Digest),
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(name: &str, registry: Option<&str>, want: Expect) {
        want.assert_eq(&match Repository::parse(name, registry) {
            Ok(repository) => format!(
                "{} {}",
                repository.full_name(),
                repository.served_name(registry).unwrap_or_else(|| "-".to_owned())
            ),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn a_repository_is_the_images_of_its_familiar_name() {
        check("box", None, expect!["docker.io/library/box box"]);
        check("library/box", None, expect!["docker.io/library/box box"]);
        check("group/a__b.c--d", None, expect!["docker.io/group/a__b.c--d group/a__b.c--d"]);
        check("ghcr.io/group/box", None, expect!["ghcr.io/group/box ghcr.io/group/box"]);
    }

    #[test]
    fn another_registrys_images_are_named_by_ns() {
        check("a/b", Some("localhost:5000"), expect!["localhost:5000/a/b a/b"]);
        check("a", Some("ghcr.io"), expect!["ghcr.io/a a"]);
        check("a", Some("registry-1.docker.io"), expect!["docker.io/library/a a"]);
    }

    #[test]
    fn tricks_are_no_names() {
        check("../etc", None, expect![[r#"invalid repository name "../etc""#]]);
        check("a//b", None, expect![[r#"invalid repository name "a//b""#]]);
        check("a/", None, expect![[r#"invalid repository name "a/""#]]);
        check("", None, expect![[r#"invalid repository name """#]]);
        check("A/b", None, expect![[r#"invalid repository name "A/b""#]]);
        check("a:b", None, expect![[r#"invalid repository name "a:b""#]]);
        check("a___b", None, expect![[r#"invalid repository name "a___b""#]]);
        check("a@b", None, expect![[r#"invalid repository name "a@b""#]]);
        check("a\0", None, expect![[r#"invalid repository name "a\0""#]]);
        check("b", Some("a"), expect![[r#"invalid registry name "a""#]]);
        check("b", Some("x.y/../z"), expect!["invalid reference format"]);
        check("b", Some("x.y/a"), expect![[r#"invalid registry name "x.y/a""#]]);
    }

    #[test]
    fn images_of_a_registry_with_a_port_need_ns() {
        let name = Reference::parse("localhost:5000/a:v1").unwrap();
        assert_eq!(Repository::of(&name).served_name(None), None);
        assert_eq!(Repository::of(&name).served_name(Some("localhost:5000")), Some("a".into()));
    }
}
