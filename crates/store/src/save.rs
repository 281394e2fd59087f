//! `docker save`: images as one tar, an OCI layout that older Docker reads too.
//!
//! ```text
//! blobs/sha256/<hex>   configurations, manifests, layers (uncompressed, so named by diff id)
//! index.json           the OCI layout's index: one entry for each name
//! manifest.json        Docker's list: configuration, names, layers
//! oci-layout
//! repositories         Docker's oldest: name -> tag -> top layer
//! ```
//! All sizes and digests are in records, so the archive is streamed: nothing is written to disk and
//! a blob that several images share appears once.
//!
//! Source: moby `image/tarexport/save.go`; OCI image-spec `image-layout.md`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use spec::image::{Descriptor, Index, Manifest, media_type};
use spec::{Digest, ImageId, Reference};

use crate::layers::{LayerError, LayerKey, Lease};
use crate::recipe::LayerTar;
use crate::store::Store;
use crate::tar::write::{END, Precision, header};
use crate::tar::{Entry, Kind, Time, padding};

/// An image to save and the names to save it under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveItem {
    pub image: ImageId,
    pub names: Vec<Reference>,
}

/// Why images could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("image {0} is not there")]
    Missing(ImageId),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("cannot encode a manifest")]
    Encode(#[from] serde_json::Error),
}

/// One element of `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ManifestItem {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

/// Annotations that carry names in an OCI layout.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The archive, made while it is read.
pub struct SaveStream {
    store: Store,
    _lease: Lease,
    parts: VecDeque<Part>,
    now: Now,
}

enum Part {
    Bytes(Vec<u8>),
    Layer(LayerKey),
}

enum Now {
    Bytes(io::Cursor<Vec<u8>>),
    Layer(Box<LayerTar>),
}

/// The archive's parts in order, each blob once.
#[derive(Default)]
struct Plan {
    parts: VecDeque<Part>,
    blobs: HashSet<Digest>,
}

impl Plan {
    fn dir(&mut self, path: &str) {
        self.parts
            .push_back(Part::Bytes(header(&entry(path, Kind::Dir, 0o755, 0), Precision::Seconds)));
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        let mut bytes =
            header(&entry(path, Kind::File, 0o644, content.len() as u64), Precision::Seconds);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(crate::tar::BLOCK), 0);
        self.parts.push_back(Part::Bytes(bytes));
    }

    fn blob(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        if self.blobs.insert(digest) {
            self.file(&blob_path(&digest), content);
        }
        digest
    }

    fn layer(&mut self, key: LayerKey, size: u64) {
        let digest = key.diff_id().0;
        if self.blobs.insert(digest) {
            let head =
                header(&entry(&blob_path(&digest), Kind::File, 0o644, size), Precision::Seconds);
            self.parts.push_back(Part::Bytes(head));
            self.parts.push_back(Part::Layer(key));
            let zeros = usize::try_from(padding(size)).unwrap_or(0);
            self.parts.push_back(Part::Bytes(vec![0; zeros]));
        }
    }
}

impl Store {
    /// Streams images and all their layers, which stay held until the stream is dropped.
    pub fn image_save(&self, items: &[SaveItem]) -> Result<SaveStream, SaveError> {
        let lease = self.lease();
        let mut plan = Plan::default();
        plan.dir("blobs/");
        plan.dir("blobs/sha256/");
        let (mut index, mut list) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for item in items {
            let (descriptor, entry) = self.plan_image(&mut plan, &lease, item)?;
            for name in item.names.iter().filter(|name| name.tag().is_some()) {
                let tag = name.tag().unwrap_or_default();
                let top =
                    entry.layers.last().map_or("", |path| path.rsplit('/').next().unwrap_or(""));
                repositories
                    .entry(name.familiar_name())
                    .or_default()
                    .insert(tag.to_owned(), top.to_owned());
                index.push(named(&descriptor, name, tag));
            }
            if entry.repo_tags.is_none() {
                index.push(descriptor);
            }
            list.push(entry);
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: index,
            annotations: BTreeMap::new(),
        };
        plan.file("index.json", &serde_json::to_vec(&index)?);
        plan.file("manifest.json", &serde_json::to_vec(&list)?);
        plan.file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#);
        plan.file("repositories", &serde_json::to_vec(&repositories)?);
        plan.parts.push_back(Part::Bytes(END.to_vec()));
        let now = Now::Bytes(io::Cursor::default());
        Ok(SaveStream { store: self.clone(), _lease: lease, parts: plan.parts, now })
    }

    fn plan_image(
        &self,
        plan: &mut Plan,
        lease: &Lease,
        item: &SaveItem,
    ) -> Result<(Descriptor, ManifestItem), SaveError> {
        let image = self.image(&item.image).ok_or(SaveError::Missing(item.image))?;
        let mut layers = Vec::new();
        for key in &image.layers {
            if !lease.hold(key) {
                return Err(LayerError::Missing(*key).into());
            }
            let layer = self.layer(key).ok_or(LayerError::Missing(*key))?;
            layers.push(Descriptor::new(media_type::OCI_LAYER, key.diff_id().0, layer.tar_size));
        }
        let config = plan.blob(&image.raw);
        for layer in &layers {
            plan.layer(LayerKey(spec::DiffId(layer.digest)), layer.size);
        }
        let tags = item.names.iter().filter(|name| name.tag().is_some());
        let tags: Vec<String> = tags.map(Reference::familiar).collect();
        let entry = ManifestItem {
            config: blob_path(&config),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media_type::OCI_CONFIG, config, image.raw.len() as u64),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest)?;
        let digest = plan.blob(&bytes);
        Ok((Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64), entry))
    }
}

fn named(descriptor: &Descriptor, name: &Reference, tag: &str) -> Descriptor {
    let annotations = BTreeMap::from([
        (FULL_NAME.to_owned(), name.to_string()),
        (REF_NAME.to_owned(), tag.to_owned()),
    ]);
    Descriptor { annotations, ..descriptor.clone() }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn entry(path: &str, kind: Kind, mode: u32, size: u64) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        // The same images give the same archive.
        mtime: Time::default(),
        rdev: (0, 0),
        xattrs: Vec::new(),
        size,
        real_size: size,
        parts: Vec::new(),
    }
}

impl Read for SaveStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let got = match &mut self.now {
                Now::Bytes(bytes) => bytes.read(buffer)?,
                Now::Layer(tar) => tar.read(buffer)?,
            };
            if got > 0 {
                return Ok(got);
            }
            self.now = match self.parts.pop_front() {
                None => return Ok(0),
                Some(Part::Bytes(bytes)) => Now::Bytes(io::Cursor::new(bytes)),
                Some(Part::Layer(key)) => {
                    Now::Layer(Box::new(self.store.layer_tar(&key).map_err(io::Error::other)?))
                }
            };
        }
    }
}
