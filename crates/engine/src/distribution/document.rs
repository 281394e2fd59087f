//! What a manifest says about itself and what it names, read leniently: of fields that are not asked
//! for nothing is demanded, so that artifacts of every kind are kept.

use std::collections::BTreeMap;

use serde::Deserialize;
use spec::Digest;
use spec::image::{media_type, null_is_default};

use super::{DistributionError, Result};

/// A manifest or an index.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(default)]
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: Option<String>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Link>,
    #[serde(default)]
    pub(super) layers: Option<Vec<Link>>,
    #[serde(default)]
    pub(super) manifests: Option<Vec<Link>>,
    #[serde(default)]
    pub(super) subject: Option<Link>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A descriptor, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Link {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) urls: Vec<String>,
}

impl Link {
    /// Layers that may not be distributed are named, but not here.
    fn is_elsewhere(&self) -> bool {
        !self.urls.is_empty()
            || self.media_type.contains("nondistributable")
            || self.media_type.contains("rootfs.foreign")
    }
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Index,
    /// Somebody's own: kept, and nothing made of it.
    Other,
}

impl Kind {
    fn of(media_type: &str) -> Option<Kind> {
        match media_type {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => Some(Kind::Index),
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => Some(Kind::Image),
            // Signed in a way of its own, and long gone.
            "application/vnd.docker.distribution.manifest.v1+json" => None,
            other => other.ends_with("+json").then_some(Kind::Other),
        }
    }
}

impl Document {
    /// # Errors
    /// `Document` for what is no JSON of this shape.
    pub(super) fn read(bytes: &[u8]) -> Result<Document> {
        serde_json::from_slice(bytes).map_err(DistributionError::Document)
    }

    /// The media type that the document is to be kept under, after the checks that it is one.
    /// `sent` is what the request says of it, perhaps nothing.
    ///
    /// # Errors
    /// `Invalid`.
    pub(super) fn check(&self, sent: &str) -> Result<(String, Kind)> {
        let invalid = |words: String| Err(DistributionError::Invalid(words));
        let own = self.media_type.as_deref().unwrap_or_default();
        if !sent.is_empty() && !own.is_empty() && sent != own {
            return invalid(format!("its mediaType is {own:?}, and its Content-Type {sent:?}"));
        }
        let media_type = match (sent, own) {
            ("", "") if self.manifests.is_some() => media_type::OCI_INDEX,
            ("", "") if self.layers.is_some() => media_type::OCI_MANIFEST,
            ("", own) => own,
            (sent, _) => sent,
        };
        let Some(kind) = Kind::of(media_type) else {
            return invalid(format!("no manifest has the media type {media_type:?}"));
        };
        if kind != Kind::Other && self.schema_version != 2 {
            return invalid(format!("schemaVersion is {}, not 2", self.schema_version));
        }
        match kind {
            Kind::Image if self.manifests.is_some() => {
                invalid("an image's manifest has no manifests".to_owned())
            }
            Kind::Image if self.config.is_none() || self.layers.is_none() => {
                invalid("an image's manifest has a config and layers".to_owned())
            }
            Kind::Index if self.config.is_some() || self.layers.is_some() => {
                invalid("an index has neither config nor layers".to_owned())
            }
            Kind::Index if self.manifests.is_none() => invalid("an index has manifests".to_owned()),
            Kind::Image | Kind::Index | Kind::Other => Ok((media_type.to_owned(), kind)),
        }
    }

    /// The blobs and manifests that have to be here.
    pub(super) fn needs(&self) -> impl Iterator<Item = &Digest> {
        let layers = self.layers.iter().flatten().filter(|layer| !layer.is_elsewhere());
        let all = self.config.iter().chain(layers).chain(self.manifests.iter().flatten());
        all.map(|link| &link.digest)
    }

    /// What kind of artifact it is: its own word, else an image's manifest is what its config is.
    pub(super) fn artifact_type(&self) -> Option<String> {
        let own = self.artifact_type.clone().filter(|own| !own.is_empty());
        own.or_else(|| self.config.as_ref().map(|config| config.media_type.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const LINK: &str = r#"{"mediaType":"x/y","size":2,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

    #[track_caller]
    fn check(sent: &str, document: &str, want: Expect) {
        let read = Document::read(document.replace("LINK", LINK).as_bytes());
        let got = match read.and_then(|document| Ok((document.check(sent)?, document))) {
            Ok(((media_type, kind), document)) => {
                format!("{kind:?} {media_type} {}", document.needs().count())
            }
            Err(error) => crate::error::chain(&error),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn manifests_and_indexes_are_known_by_their_type() {
        check(
            media_type::OCI_MANIFEST,
            r#"{"schemaVersion":2,"config":LINK,"layers":[LINK,LINK],"subject":LINK}"#,
            expect!["Image application/vnd.oci.image.manifest.v1+json 3"],
        );
        check(
            "",
            r#"{"schemaVersion":2,"manifests":[LINK]}"#,
            expect!["Index application/vnd.oci.image.index.v1+json 1"],
        );
        check(
            "",
            r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":LINK,"layers":[]}"#,
            expect!["Image application/vnd.docker.distribution.manifest.v2+json 1"],
        );
    }

    #[test]
    fn documents_of_other_types_are_kept() {
        check(
            "application/vnd.mine+json",
            r#"{"layers":[LINK],"anything":1}"#,
            expect!["Other application/vnd.mine+json 1"],
        );
        check(
            "text/plain",
            "{}",
            expect![[r#"manifest invalid: no manifest has the media type "text/plain""#]],
        );
    }

    #[test]
    fn a_document_is_one_thing_only() {
        let both = r#"{"schemaVersion":2,"config":LINK,"layers":[],"manifests":[]}"#;
        check(
            media_type::OCI_INDEX,
            both,
            expect!["manifest invalid: an index has neither config nor layers"],
        );
        check(
            media_type::OCI_MANIFEST,
            both,
            expect!["manifest invalid: an image's manifest has no manifests"],
        );
        check(
            media_type::OCI_MANIFEST,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            expect![[
                r#"manifest invalid: its mediaType is "application/vnd.oci.image.index.v1+json", and its Content-Type "application/vnd.oci.image.manifest.v1+json""#
            ]],
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        check("", "blabla", expect!["manifest invalid: expected value at line 1 column 1"]);
        check("", "{}", expect![[r#"manifest invalid: no manifest has the media type """#]]);
        check(
            media_type::OCI_MANIFEST,
            r#"{"schemaVersion":1,"config":LINK,"layers":[]}"#,
            expect!["manifest invalid: schemaVersion is 1, not 2"],
        );
        check(
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            r#"{"schemaVersion":1}"#,
            expect![[
                r#"manifest invalid: no manifest has the media type "application/vnd.docker.distribution.manifest.v1+prettyjws""#
            ]],
        );
        check(
            "",
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x"}]}"#,
            expect!["manifest invalid: invalid checksum digest length at line 1 column 59"],
        );
    }

    #[test]
    fn foreign_layers_are_elsewhere() {
        let foreign = r#"{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","urls":["https://x"]}"#;
        check(
            media_type::OCI_MANIFEST,
            &format!(r#"{{"schemaVersion":2,"config":LINK,"layers":[{foreign}]}}"#),
            expect!["Image application/vnd.oci.image.manifest.v1+json 1"],
        );
    }
}
