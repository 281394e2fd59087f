//! One manifest of a list: its bytes, where they came from, and its platform.
//!
//! Written as Docker's client writes it, so that both read each other's files:
//!
//! ```text
//! {"Ref":…,"Descriptor":{…},"Raw":"base64","SchemaV2Manifest":{…}}     or "OCIManifest"
//! ```
//! Source: docker/cli 28.2 `cli/manifest/types/types.go`; distribution `manifest/manifestlist`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spec::image::{Descriptor, Manifest, media_type};
use spec::{Digest, Platform, Reference};

use crate::failure::Failure;
use crate::render::json;

/// One manifest. Its descriptor's digest is that of `raw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub reference: Reference,
    pub descriptor: Descriptor,
    pub raw: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    #[serde(rename = "Ref")]
    reference: String,
    descriptor: Descriptor,
    raw: String,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    schema_v2_manifest: Option<&'a RawValue>,
    #[serde(borrow, rename = "OCIManifest", default, skip_serializing_if = "Option::is_none")]
    oci_manifest: Option<&'a RawValue>,
}

impl Entry {
    /// # Errors
    /// When the text is not of this form, or its parts contradict each other.
    pub fn parse(text: &str) -> Result<Entry, Failure> {
        let wrong = |why: &dyn std::fmt::Display| Failure::new(format!("invalid manifest: {why}"));
        let written: Written<'_> = serde_json::from_str(text).map_err(|error| wrong(&error))?;
        let raw = STANDARD.decode(&written.raw).map_err(|error| wrong(&error))?;
        let reference = Reference::parse(&written.reference).map_err(|error| wrong(&error))?;
        if Digest::of(&raw) != written.descriptor.digest {
            return Err(wrong(&"its bytes have another digest"));
        }
        Ok(Entry { reference, descriptor: written.descriptor, raw })
    }

    /// The whole entry, on one line.
    pub fn to_json(&self) -> String {
        let document = std::str::from_utf8(&self.raw).ok();
        let document: Option<&RawValue> =
            document.and_then(|text| serde_json::from_str(text.trim()).ok());
        let is_oci = self.descriptor.media_type == media_type::OCI_MANIFEST;
        let written = Written {
            reference: self.reference.to_string(),
            descriptor: self.descriptor.clone(),
            raw: STANDARD.encode(&self.raw),
            schema_v2_manifest: document.filter(|_| !is_oci),
            oci_manifest: document.filter(|_| is_oci),
        };
        json::compact(&serde_json::to_string(&written).unwrap_or_default())
    }

    /// The blobs that the manifest needs, its configuration first.
    ///
    /// # Errors
    /// When the manifest is none.
    pub fn blobs(&self) -> Result<Vec<Descriptor>, Failure> {
        let manifest: Manifest = serde_json::from_slice(&self.raw)
            .map_err(|error| Failure::new(format!("manifest of {}: {error}", self.reference)))?;
        Ok(std::iter::once(manifest.config).chain(manifest.layers).collect())
    }
}

/// What a list says of one manifest, in the order in which Docker's client writes it, which decides
/// the list's digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    media_type: &'a str,
    size: u64,
    digest: Digest,
    platform: Platform,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Listed<'a>>,
}

/// A list's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

/// The document of a list under `name`.
///
/// # Errors
/// When an entry is of another registry.
pub fn list(name: &Reference, entries: &[Entry]) -> Result<Document, Failure> {
    let first = entries.first().map(|entry| entry.descriptor.media_type.as_str());
    let kind = match first {
        Some(media_type::OCI_MANIFEST) => media_type::OCI_INDEX,
        _ => media_type::DOCKER_LIST,
    };
    let mut manifests = Vec::new();
    for entry in entries {
        let (theirs, ours) = (entry.reference.domain(), name.domain());
        if theirs != ours {
            return Err(Failure::new(format!(
                "cannot use source images from a different registry than the target image: {theirs} != {ours}"
            )));
        }
        let platform = entry.descriptor.platform.clone();
        manifests.push(Listed {
            media_type: &entry.descriptor.media_type,
            size: entry.descriptor.size,
            digest: entry.descriptor.digest,
            platform: platform.unwrap_or_else(|| Platform::new("", "", None)),
        });
    }
    let list = List { schema_version: 2, media_type: kind, manifests };
    let text = serde_json::to_string(&list).unwrap_or_default();
    Ok(Document { media_type: kind, bytes: json::indented_by("   ", &text).into_bytes() })
}

/// The system and architecture pairs that a list may name: what Go can build for.
///
/// Source: Go 1.24 documentation, "Installing Go from source", GOOS and GOARCH.
pub fn is_known_platform(os: &str, architecture: &str) -> bool {
    let known: &[&str] = match os {
        "aix" => &["ppc64"],
        "android" => &["386", "amd64", "arm", "arm64"],
        "darwin" | "ios" => &["amd64", "arm64"],
        "dragonfly" | "illumos" | "solaris" => &["amd64"],
        "freebsd" => &["386", "amd64", "arm", "arm64", "riscv64"],
        "js" | "wasip1" => &["wasm"],
        "linux" => &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
            "ppc64", "ppc64le", "riscv64", "s390x",
        ],
        "netbsd" => &["386", "amd64", "arm", "arm64"],
        "openbsd" => &["386", "amd64", "arm", "arm64", "ppc64", "riscv64"],
        "plan9" => &["386", "amd64", "arm"],
        "windows" => &["386", "amd64", "arm", "arm64"],
        _ => &[],
    };
    known.contains(&architecture)
}

#[cfg(test)]
pub(super) mod tests {
    use expect_test::expect;

    use super::*;

    pub fn entry(name: &str, kind: &str, architecture: &str) -> Entry {
        let raw = format!(
            "{{\n  \"schemaVersion\": 2,\n  \"config\": {{\"mediaType\": \"c\", \"digest\": \"{}\", \"size\": 1}},\n  \"layers\": [],\n  \"annotations\": {{\"a\": \"<b>\"}}\n}}",
            Digest::of(b"config")
        );
        let mut descriptor = Descriptor::new(kind, Digest::of(raw.as_bytes()), raw.len() as u64);
        descriptor.platform = Some(Platform::new("linux", architecture, None));
        Entry { reference: Reference::parse(name).unwrap(), descriptor, raw: raw.into_bytes() }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let one = entry("reg.example/a:b", media_type::OCI_MANIFEST, "arm64");
        let text = one.to_json();
        assert!(
            text.starts_with(r#"{"Ref":"reg.example/a:b","Descriptor":{"mediaType":"#),
            "{text}"
        );
        assert!(text.contains(r#""OCIManifest":{"schemaVersion":2,"config":"#), "{text}");
        assert!(text.contains(r#""annotations":{"a":"\u003cb\u003e"}"#), "{text}");
        assert_eq!(Entry::parse(&text).unwrap(), one);
        let forged = text.replace("sha256:", "sha256:0").replace("0\",\"size", "\",\"size");
        assert!(Entry::parse(&forged).is_err());
    }

    #[test]
    fn a_list_is_of_the_kind_of_its_first_manifest() {
        let name = Reference::parse("reg.example/list").unwrap();
        let document =
            list(&name, &[entry("reg.example/a:b", media_type::DOCKER_MANIFEST, "amd64")]).unwrap();
        expect![[r#"
            {
               "schemaVersion": 2,
               "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
               "manifests": [
                  {
                     "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                     "size": 199,
                     "digest": "sha256:X",
                     "platform": {
                        "architecture": "amd64",
                        "os": "linux"
                     }
                  }
               ]
            }"#]]
        .assert_eq(&shown(&document));
        let other = entry("other.example/a:b", media_type::OCI_MANIFEST, "amd64");
        assert!(list(&name, std::slice::from_ref(&other)).is_err());
        let name = Reference::parse("other.example/list").unwrap();
        assert_eq!(list(&name, &[other]).unwrap().media_type, media_type::OCI_INDEX);
    }

    fn shown(document: &Document) -> String {
        let text = String::from_utf8(document.bytes.clone()).unwrap();
        let digest = entry("a", media_type::DOCKER_MANIFEST, "amd64").descriptor.digest;
        text.replace(&digest.hex(), "X")
    }
}
