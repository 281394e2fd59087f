//! `docker save`: images as one tar, an OCI layout that older Docker reads too.
//!
//! ```text
//! blobs/sha256/<hex>   manifests, indexes, configurations, layers
//! index.json           the OCI layout's index: one entry for each name
//! manifest.json        Docker's list: configuration, names, layers
//! oci-layout
//! repositories         Docker's oldest: name -> tag -> top layer
//! ```
//! An image that came from elsewhere goes with the bytes it came as: the same manifest or index, the
//! same compressed layers, and of an index whatever is here. One that was made here gets a manifest of
//! uncompressed layers, which nobody else has seen.
//!
//! All sizes and digests are in records, so the archive is streamed: nothing is written to disk and
//! a blob that several images share appears once.
//!
//! Source: moby `image/tarexport/save.go`, `daemon/containerd/image_exporter.go`; OCI image-spec
//! `image-layout.md`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use spec::image::{Descriptor, Index, Manifest, media_type};
use spec::{Digest, ImageId, Platform, Reference};

use crate::content::{ContentLease, ContentReader, Target};
use crate::documents::Child;
use crate::images::Image;
use crate::layers::{LayerError, LayerKey, Lease};
use crate::store::Store;
use crate::tar::write::{END, Precision, header};
use crate::tar::{Entry, Kind, Time, padding};

/// An image to save and the names to save it under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveItem {
    pub image: ImageId,
    pub names: Vec<Reference>,
    /// Of an index this one alone.
    pub platform: Option<Platform>,
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
    #[error(
        "image with reference {name} was found but does not provide the specified platform ({platform})"
    )]
    Platform { name: String, platform: Box<Platform> },
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
/// With a domain behind it: the repository that has this very manifest. Source: containerd
/// `core/images/archive/exporter.go`, `labels.LabelDistributionSource`.
pub(crate) const SOURCE: &str = "containerd.io/distribution.source.";

/// The archive, made while it is read.
pub struct SaveStream {
    store: Store,
    _lease: Lease,
    _content: ContentLease,
    parts: VecDeque<Part>,
    now: Now,
}

enum Part {
    Bytes(Vec<u8>),
    /// A blob of the content store, or a layer by its uncompressed digest.
    Blob(Digest),
}

enum Now {
    Bytes(io::Cursor<Vec<u8>>),
    Blob(Box<ContentReader>),
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

    fn reference(&mut self, digest: Digest, size: u64) {
        if self.blobs.insert(digest) {
            let head =
                header(&entry(&blob_path(&digest), Kind::File, 0o644, size), Precision::Seconds);
            self.parts.push_back(Part::Bytes(head));
            self.parts.push_back(Part::Blob(digest));
            let zeros = usize::try_from(padding(size)).unwrap_or(0);
            self.parts.push_back(Part::Bytes(vec![0; zeros]));
        }
    }
}

/// What keeps an archive's blobs from being removed.
struct Leases {
    layers: Lease,
    content: ContentLease,
}

/// What one image adds to the archive's lists.
struct Planned {
    /// For each name, or the one without a name.
    descriptors: Vec<Descriptor>,
    entry: Option<ManifestItem>,
}

impl Planned {
    /// What Docker's list says of an image.
    fn of(manifest: &Manifest, names: &[Reference]) -> ManifestItem {
        ManifestItem {
            config: blob_path(&manifest.config.digest),
            repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
            layers: manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        }
    }
}

/// `repositories`: name, tag, top layer.
type Repositories = BTreeMap<String, BTreeMap<String, String>>;

fn note_names(repositories: &mut Repositories, item: &ManifestItem, names: &[Reference]) {
    let top = item.layers.last().map_or("", |path| path.rsplit('/').next().unwrap_or(""));
    for name in names {
        let Some(tag) = name.tag() else { continue };
        let tags = repositories.entry(name.familiar_name()).or_default();
        tags.insert(tag.to_owned(), top.to_owned());
    }
}

impl Store {
    /// Streams images and all their layers, which stay held until the stream is dropped.
    pub fn image_save(&self, items: &[SaveItem]) -> Result<SaveStream, SaveError> {
        let leases = Leases { layers: self.lease(), content: self.lease_content() };
        let mut plan = Plan::default();
        plan.dir("blobs/");
        plan.dir("blobs/sha256/");
        let (mut index, mut list) = (Vec::new(), Vec::new());
        let mut repositories = Repositories::default();
        for item in items {
            let planned = self.plan_image(&mut plan, &leases, item)?;
            index.extend(planned.descriptors);
            let Some(entry) = planned.entry else { continue };
            note_names(&mut repositories, &entry, &item.names);
            list.push(entry);
        }
        self.finish_plan(plan, leases, index, &list, &repositories)
    }

    /// Streams an image that is not kept: its configuration and layers that are here, under `names`.
    pub fn image_save_made(
        &self,
        config: &[u8],
        layers: &[LayerKey],
        names: &[Reference],
    ) -> Result<SaveStream, SaveError> {
        let leases = Leases { layers: self.lease(), content: self.lease_content() };
        let mut plan = Plan::default();
        plan.dir("blobs/");
        plan.dir("blobs/sha256/");
        let (descriptor, manifest) = self.plan_made(&mut plan, &leases, config, layers)?;
        let item = Planned::of(&manifest, names);
        let descriptors = match names.is_empty() {
            true => vec![descriptor],
            false => names.iter().map(|name| named(&descriptor, name)).collect(),
        };
        let mut repositories = Repositories::default();
        note_names(&mut repositories, &item, names);
        self.finish_plan(plan, leases, descriptors, &[item], &repositories)
    }

    fn finish_plan(
        &self,
        mut plan: Plan,
        leases: Leases,
        manifests: Vec<Descriptor>,
        list: &[ManifestItem],
        repositories: &Repositories,
    ) -> Result<SaveStream, SaveError> {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
        };
        plan.file("index.json", &serde_json::to_vec(&index)?);
        plan.file("manifest.json", &serde_json::to_vec(list)?);
        plan.file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#);
        plan.file("repositories", &serde_json::to_vec(repositories)?);
        plan.parts.push_back(Part::Bytes(END.to_vec()));
        let now = Now::Bytes(io::Cursor::default());
        let Leases { layers: _lease, content: _content } = leases;
        Ok(SaveStream { store: self.clone(), _lease, _content, parts: plan.parts, now })
    }

    fn plan_image(
        &self,
        plan: &mut Plan,
        leases: &Leases,
        item: &SaveItem,
    ) -> Result<Planned, SaveError> {
        let image = self.image(&item.image).ok_or(SaveError::Missing(item.image))?;
        let names: Vec<&Reference> =
            item.names.iter().filter(|name| name.tag().is_some()).collect();
        let known = match names.as_slice() {
            [] => self.references(&image.id),
            names => names.iter().map(|name| (*name).clone()).collect(),
        };
        let targets: Vec<(Reference, Target)> = known
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.content(&name)?)))
            .collect();
        let (mut descriptors, mut shown) = (Vec::new(), None);
        for (name, target) in &targets {
            let Some((descriptor, child)) =
                self.plan_kept(plan, leases, (name, target), &image, item)?
            else {
                continue;
            };
            shown = shown.or(child);
            match names.is_empty() {
                true => {
                    descriptors.push(descriptor);
                    break;
                }
                false => descriptors.push(self.annotated(&descriptor, name)),
            }
        }
        let platform = item.platform.as_ref();
        if shown.is_none() && platform.is_some_and(|wanted| !wanted.runs(&image.config.platform()))
        {
            let name = names.first().map_or(image.id.to_string(), |name| name.familiar());
            let platform = platform.cloned().unwrap_or_else(Platform::host);
            return Err(SaveError::Platform { name, platform: Box::new(platform) });
        }
        let is_named = |name: &Reference| {
            let full = name.to_string();
            descriptors.iter().any(|known| known.annotations.get(FULL_NAME) == Some(&full))
        };
        let rest: Vec<&&Reference> = names.iter().filter(|name| !is_named(name)).collect();
        let mut made = None;
        if !rest.is_empty() || descriptors.is_empty() {
            let (descriptor, manifest) = self.plan_made(plan, leases, &image.raw, &image.layers)?;
            descriptors.extend(rest.iter().map(|name| named(&descriptor, name)));
            if names.is_empty() {
                descriptors.push(descriptor);
            }
            made = Some(manifest);
        }
        let names: Vec<Reference> = names.into_iter().cloned().collect();
        let entry = shown.or(made).map(|manifest| Planned::of(&manifest, &names));
        Ok(Planned { descriptors, entry })
    }

    /// Adds what a target leads to, as far as it is here; gives what stands for it in the index, and
    /// the manifest that Docker's list shows. None where the image itself is not wholly kept.
    fn plan_kept(
        &self,
        plan: &mut Plan,
        leases: &Leases,
        (name, target): (&Reference, &Target),
        image: &Image,
        item: &SaveItem,
    ) -> Result<Option<(Descriptor, Option<Manifest>)>, SaveError> {
        let held = |descriptor: &Descriptor| {
            leases.content.hold(&descriptor.digest)
                || leases.layers.hold(&LayerKey(spec::DiffId(descriptor.digest)))
        };
        let mut whole: Vec<Child> = self.children(target);
        whole.retain(|child| child.is_whole(self));
        let shown = match &item.platform {
            Some(wanted) => {
                let fits = |child: &Child| {
                    let offered = child.platform(self);
                    offered.is_some_and(|offered| wanted.runs(&offered))
                };
                let fitting = whole.iter().position(fits);
                let Some(place) = fitting else {
                    let (name, platform) = (name.familiar(), Box::new(wanted.clone()));
                    return match wanted.runs(&image.config.platform()) {
                        true => Ok(None),
                        false => Err(SaveError::Platform { name, platform }),
                    };
                };
                whole = vec![whole.swap_remove(place)];
                whole.first()
            }
            None => whole.iter().find(|child| child.is_of(&image.id)),
        };
        let Some(shown) = shown.cloned() else { return Ok(None) };
        let single = item.platform.is_some() || item.names.is_empty();
        let root = match single {
            true => shown.descriptor.clone(),
            false => Descriptor::new(&target.media_type, target.digest, target.size),
        };
        let mut wanted: Vec<Descriptor> = Vec::new();
        for child in whole.iter().filter(|child| !single || **child == shown) {
            let manifest = child.manifest.iter();
            wanted
                .extend(manifest.flat_map(|manifest| {
                    manifest.layers.iter().chain([&manifest.config]).cloned()
                }));
            wanted.push(child.descriptor.clone());
        }
        if !single {
            wanted.extend(self.indexes(target));
        }
        for descriptor in &wanted {
            let size = self.content_size(&descriptor.digest);
            match size.filter(|_| held(descriptor)) {
                Some(size) => plan.reference(descriptor.digest, size),
                None => return Ok(None),
            }
        }
        Ok(Some((root, shown.manifest)))
    }

    /// Names what stands in the index, and says so where the name's repository has that very thing.
    fn annotated(&self, descriptor: &Descriptor, name: &Reference) -> Descriptor {
        let mut named = named(descriptor, name);
        if self.content(&name.with_digest(descriptor.digest)).is_some() {
            named.annotations.insert(format!("{SOURCE}{}", name.domain()), name.path().to_owned());
        }
        named
    }

    /// Adds an image that nobody has given a manifest yet.
    fn plan_made(
        &self,
        plan: &mut Plan,
        leases: &Leases,
        config: &[u8],
        chain: &[LayerKey],
    ) -> Result<(Descriptor, Manifest), SaveError> {
        let mut layers = Vec::new();
        for key in chain {
            if !leases.layers.hold(key) {
                return Err(LayerError::Missing(*key).into());
            }
            let layer = self.layer(key).ok_or(LayerError::Missing(*key))?;
            layers.push(Descriptor::new(media_type::OCI_LAYER, key.diff_id().0, layer.tar_size));
        }
        let size = config.len() as u64;
        let config = plan.blob(config);
        for layer in &layers {
            plan.reference(layer.digest, layer.size);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media_type::OCI_CONFIG, config, size),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest)?;
        let digest = plan.blob(&bytes);
        let size = bytes.len() as u64;
        Ok((Descriptor::new(media_type::OCI_MANIFEST, digest, size), manifest))
    }
}

fn named(descriptor: &Descriptor, name: &Reference) -> Descriptor {
    let mut annotations = descriptor.annotations.clone();
    annotations.insert(FULL_NAME.to_owned(), name.to_string());
    annotations.insert(REF_NAME.to_owned(), name.tag().unwrap_or_default().to_owned());
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
                Now::Blob(blob) => blob.read(buffer)?,
            };
            if got > 0 {
                return Ok(got);
            }
            self.now = match self.parts.pop_front() {
                None => return Ok(0),
                Some(Part::Bytes(bytes)) => Now::Bytes(io::Cursor::new(bytes)),
                Some(Part::Blob(digest)) => {
                    let reader = self.store.content_reader(&digest).map_err(io::Error::other)?;
                    let gone = || io::Error::other(format!("blob {digest} is gone"));
                    Now::Blob(Box::new(reader.ok_or_else(gone)?))
                }
            };
        }
    }
}
