//! Reading kept documents: what a target leads to, and how much of it is here.
//!
//! What is missing is nothing odd: of an index one platform is pulled. So nothing here fails; a
//! [`Child`] says whether its manifest is here.

use std::collections::HashSet;

use serde::de::{DeserializeOwned, IgnoredAny};
use spec::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use spec::{ImageId, Platform};

use crate::content::Target;
use crate::store::Store;

/// Documents that are looked at for one target.
pub const CHILDREN_MAX: usize = 1000;

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Index(Index),
    Manifest(Box<Manifest>),
}

/// Why bytes are no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("{0:?} is neither a manifest nor an index")]
    Kind(String),
    #[error("invalid manifest")]
    Json(#[from] serde_json::Error),
}

impl Document {
    /// Reads a document of a media type, which may be empty where nobody has told it.
    pub fn read(media_type: &str, bytes: &[u8]) -> Result<Document, DocumentError> {
        match Document::kind(media_type, bytes)?.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => Ok(Document::Index(parse(bytes)?)),
            _ => Ok(Document::Manifest(Box::new(parse(bytes)?))),
        }
    }

    /// What a document is: what was told, or else its own word for it.
    pub fn kind(told: &str, bytes: &[u8]) -> Result<String, DocumentError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<IgnoredAny>,
            #[serde(default)]
            config: Option<IgnoredAny>,
        }
        let known = [
            media_type::OCI_INDEX,
            media_type::DOCKER_LIST,
            media_type::OCI_MANIFEST,
            media_type::DOCKER_MANIFEST,
        ];
        if known.contains(&told) {
            return Ok(told.to_owned());
        }
        let kind: Kind = parse(bytes)?;
        match (kind.media_type, kind.manifests, kind.config) {
            (Some(text), _, _) if known.contains(&text.as_str()) => Ok(text),
            (Some(text), _, _) => Err(DocumentError::Kind(text)),
            (None, Some(_), _) => Ok(media_type::OCI_INDEX.to_owned()),
            (None, None, Some(_)) if told.is_empty() => Ok(media_type::OCI_MANIFEST.to_owned()),
            (None, None, _) => Err(DocumentError::Kind(told.to_owned())),
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DocumentError> {
    Ok(serde_json::from_slice(bytes)?)
}

/// One manifest that a target leads to; what it says, if it is here.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// As the index has it.
    pub descriptor: Descriptor,
    pub manifest: Option<Manifest>,
}

impl Child {
    /// Whether all blobs are here.
    pub fn is_whole(&self, store: &Store) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| {
            let mut blobs = manifest.layers.iter().chain([&manifest.config]);
            blobs.all(|blob| store.content_size(&blob.digest).is_some())
        })
    }

    /// Whether it is the manifest of this image.
    pub fn is_of(&self, id: &ImageId) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.config.digest == id.0)
    }

    /// The configuration of an image, if it is here.
    pub fn config(&self, store: &Store) -> Option<ImageConfig> {
        let config = &self.manifest.as_ref()?.config;
        if !is_image_config(config) {
            return None;
        }
        serde_json::from_slice(&store.read_manifest(&config.digest)?).ok()
    }

    /// What it runs on, as the index or the configuration says.
    pub fn platform(&self, store: &Store) -> Option<Platform> {
        let told = self.descriptor.platform.clone();
        told.or_else(|| self.config(store).map(|config| config.platform()))
    }
}

/// Whether a manifest's configuration is one of an image that runs.
pub fn is_image_config(config: &Descriptor) -> bool {
    matches!(
        config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream" | ""
    )
}

impl Store {
    /// A kept document.
    pub fn document(&self, descriptor: &Descriptor) -> Option<Document> {
        Document::read(&descriptor.media_type, &self.read_manifest(&descriptor.digest)?).ok()
    }

    /// The manifests behind a target: itself, or those of an index, in order.
    pub fn children(&self, target: &Target) -> Vec<Child> {
        self.leads_to(target).0
    }

    /// The indexes behind a target, outer ones first: none, or itself and those in it.
    pub fn indexes(&self, target: &Target) -> Vec<Descriptor> {
        self.leads_to(target).1
    }

    fn leads_to(&self, target: &Target) -> (Vec<Child>, Vec<Descriptor>) {
        let root = Descriptor::new(&target.media_type, target.digest, target.size);
        let (mut next, mut seen) = (vec![root], HashSet::new());
        let (mut children, mut indexes) = (Vec::new(), Vec::new());
        while let Some(descriptor) = next.pop() {
            if !seen.insert(descriptor.digest) || seen.len() > CHILDREN_MAX {
                continue;
            }
            match self.document(&descriptor) {
                Some(Document::Index(index)) => {
                    next.extend(index.manifests.into_iter().rev());
                    indexes.push(descriptor);
                }
                Some(Document::Manifest(manifest)) => {
                    children.push(Child { descriptor, manifest: Some(*manifest) });
                }
                None => children.push(Child { descriptor, manifest: None }),
            }
        }
        (children, indexes)
    }

    /// Whether a target and all that it names is here.
    pub fn is_whole(&self, target: &Target) -> bool {
        self.children(target).iter().all(|child| child.is_whole(self))
    }
}
