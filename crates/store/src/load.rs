//! `docker load`: images out of a tar, an OCI layout or what any Docker since 1.10 saved.
//!
//! The archive is read once, as a stream, although what a file is for stands in a manifest that
//! usually comes last. So files are told by their content: JSON is kept in memory, anything that is
//! a tar (compressed or not) is unpacked at once as a layer in waiting. When the manifest is known
//! the layers are put together; those that nobody asked for are dropped. A file whose name says that
//! it is a layer which is here already is skipped.
//!
//! Source: moby `image/tarexport/load.go`; OCI image-spec `image-layout.md`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};

use spec::image::{Index, Manifest};
use spec::{DiffId, Digest, ImageId, Platform, Reference};

use crate::compress::{Compression, sniffed};
use crate::draft::{UnpackError, UnpackLimits};
use crate::images::ImageError;
use crate::layers::{LayerKey, Lease, Unpacked};
use crate::save::{FULL_NAME, ManifestItem, REF_NAME};
use crate::store::Store;
use crate::tar::read::Reader;
use crate::tar::{BLOCK, Entry, Kind, TarError};
use crate::tree::{clean, split};

const JSON_BYTES_MAX: u64 = 16 << 20;
const JSON_TOTAL_BYTES_MAX: u64 = 128 << 20;
const LINKS_MAX: usize = 8;

/// An image that was loaded, with the names that the archive gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    pub id: ImageId,
    pub names: Vec<Reference>,
}

/// A layer being loaded: bytes read and in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadProgress {
    /// The file's short digest or name.
    pub layer: String,
    pub current: u64,
    pub total: u64,
}

/// Why an archive gave no images.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("invalid archive: it has neither manifest.json nor index.json")]
    NoManifest,
    #[error("invalid archive: {path} is no valid document")]
    Document { path: String, source: serde_json::Error },
    #[error("invalid archive: {0} is missing")]
    Missing(String),
    #[error("invalid archive: {path} has digest {got}")]
    Digest { path: String, got: Digest },
    #[error("invalid archive: documents of more than {0} bytes")]
    TooMuch(u64),
    #[error("cannot load layer {path}")]
    Layer { path: String, source: UnpackError },
    #[error("invalid manifest, layers length mismatch: expected {want}, got {got}")]
    LayerCount { want: usize, got: usize },
    #[error("invalid diffID for layer {place}: expected {want}, got {got}")]
    DiffId { place: usize, want: DiffId, got: DiffId },
    #[error("no image in the archive fits {0}")]
    Platform(Platform),
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// What was found in the archive, by name.
#[derive(Default)]
struct Contents {
    documents: HashMap<String, Vec<u8>>,
    document_bytes: u64,
    layers: HashMap<String, Slot>,
    links: HashMap<String, String>,
}

enum Slot {
    Waiting(Box<Unpacked>),
    Here(LayerKey),
    Failed(UnpackError),
}

impl Store {
    /// Loads all images of an archive, compressed or not; they are held by nothing but themselves
    /// and have no names yet.
    pub fn image_load(
        &self,
        archive: impl Read + Send,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let lease = self.lease();
        let plain =
            sniffed(BufReader::with_capacity(256 * 1024, archive)).map_err(LoadError::Read)?;
        let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, plain));
        let mut contents = Contents::default();
        let mut raw = Vec::new();
        while let Some(entry) = reader.next(&mut raw)? {
            raw.clear();
            self.take_in(&mut contents, &lease, &entry, &mut reader, progress)?;
        }
        let mut loading = Loading { store: self, lease: &lease, contents };
        if loading.find_document("manifest.json").is_some() {
            return loading.docker_archive();
        }
        if loading.find_document("index.json").is_some() {
            return loading.oci_layout();
        }
        Err(LoadError::NoManifest)
    }

    fn take_in<R: BufRead + Send>(
        &self,
        contents: &mut Contents,
        lease: &Lease,
        entry: &Entry,
        reader: &mut Reader<R>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(), LoadError> {
        let Ok(path) = clean(&entry.path) else { return Ok(()) };
        let name = String::from_utf8_lossy(&path).into_owned();
        match entry.kind {
            Kind::File => {}
            Kind::Symlink => {
                let target = [split(&path).0, b"/", &entry.link].concat();
                if let Ok(target) = clean(&target) {
                    contents.links.insert(name, String::from_utf8_lossy(&target).into_owned());
                }
                return Ok(());
            }
            Kind::HardLink => {
                if let Ok(target) = clean(&entry.link) {
                    contents.links.insert(name, String::from_utf8_lossy(&target).into_owned());
                }
                return Ok(());
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Dir | Kind::Fifo => return Ok(()),
        }
        let mut content = EntryRead(reader);
        let mut start = Vec::new();
        (&mut content).take(BLOCK as u64).read_to_end(&mut start).map_err(LoadError::Read)?;
        if matches!(start.trim_ascii_start().first(), Some(b'{' | b'['))
            && entry.size <= JSON_BYTES_MAX
        {
            contents.document_bytes += entry.size;
            if contents.document_bytes > JSON_TOTAL_BYTES_MAX {
                return Err(LoadError::TooMuch(JSON_TOTAL_BYTES_MAX));
            }
            content.read_to_end(&mut start).map_err(LoadError::Read)?;
            contents.documents.insert(name, start);
            return Ok(());
        }
        if !may_be_layer(&start) {
            return Ok(());
        }
        let layer = short_name(&name);
        progress(LoadProgress { layer: layer.clone(), current: 0, total: entry.size });
        let slot = match self.known_layer(lease, &name) {
            Some(key) => Slot::Here(key),
            None => {
                let blob = io::Cursor::new(start).chain(content);
                match self.unpack_apart(blob, &UnpackLimits::default(), None) {
                    Ok(unpacked) => Slot::Waiting(Box::new(unpacked)),
                    Err(error) => Slot::Failed(error),
                }
            }
        };
        progress(LoadProgress { layer, current: entry.size, total: entry.size });
        contents.layers.insert(name, slot);
        Ok(())
    }

    /// A blob that is named by the diff id of a layer which is here.
    fn known_layer(&self, lease: &Lease, name: &str) -> Option<LayerKey> {
        let digest = Digest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()?;
        let key = LayerKey(DiffId(digest));
        lease.hold(&key).then_some(key)
    }
}

/// Putting images together.
struct Loading<'s> {
    store: &'s Store,
    lease: &'s Lease,
    contents: Contents,
}

impl Loading<'_> {
    fn docker_archive(&mut self) -> Result<Vec<LoadedImage>, LoadError> {
        let items: Vec<ManifestItem> = self.document("manifest.json")?;
        let mut loaded = Vec::new();
        for item in items {
            let config = self.bytes(&item.config)?.to_vec();
            let id = self.image(&config, &item.layers)?;
            let tags = item.repo_tags.unwrap_or_default();
            let names = tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect();
            loaded.push(LoadedImage { id, names });
        }
        Ok(loaded)
    }

    fn oci_layout(&mut self) -> Result<Vec<LoadedImage>, LoadError> {
        let index: Index = self.document("index.json")?;
        let mut loaded: Vec<LoadedImage> = Vec::new();
        for descriptor in &index.manifests {
            let names = names_of(&descriptor.annotations);
            for manifest in self.manifests(descriptor.digest, 0)? {
                let config = self.blob(manifest.config.digest)?.to_vec();
                let layers: Vec<String> =
                    manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
                let id = self.image(&config, &layers)?;
                match loaded.iter_mut().find(|image| image.id == id) {
                    Some(image) => image.names.extend(names.iter().cloned()),
                    None => loaded.push(LoadedImage { id, names: names.clone() }),
                }
            }
        }
        if loaded.is_empty() && !index.manifests.is_empty() {
            return Err(LoadError::Platform(Platform::host()));
        }
        Ok(loaded)
    }

    /// The manifests behind a descriptor: itself, or those of an index that run here.
    fn manifests(&mut self, digest: Digest, depth: usize) -> Result<Vec<Manifest>, LoadError> {
        let path = blob_name(&digest);
        let invalid = |source| LoadError::Document { path: path.clone(), source };
        let bytes = self.blob(digest)?;
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
            return Ok(vec![manifest]);
        }
        let index: Index = serde_json::from_slice(bytes).map_err(invalid)?;
        let host = Platform::host();
        let mut found = Vec::new();
        for descriptor in &index.manifests {
            let fits = descriptor.platform.as_ref().is_none_or(|offered| host.runs(offered));
            let here = self.find_document(&blob_name(&descriptor.digest)).is_some();
            if fits && here && depth < LINKS_MAX {
                found.extend(self.manifests(descriptor.digest, depth + 1)?);
            }
        }
        Ok(found)
    }

    fn image(&mut self, config: &[u8], paths: &[String]) -> Result<ImageId, LoadError> {
        let parsed: spec::image::ImageConfig = serde_json::from_slice(config)
            .map_err(|error| LoadError::Image(ImageError::Config(error)))?;
        let wanted = &parsed.rootfs.diff_ids;
        if wanted.len() != paths.len() {
            return Err(LoadError::LayerCount { want: wanted.len(), got: paths.len() });
        }
        let mut parents = Vec::new();
        for (place, (path, want)) in paths.iter().zip(wanted).enumerate() {
            let key = LayerKey(*want);
            if !self.lease.hold(&key) {
                let got = self.layer(path, &parents)?;
                if got != key {
                    return Err(LoadError::DiffId { place, want: *want, got: got.diff_id() });
                }
            }
            parents.push(key);
        }
        Ok(self.store.image_create(config, None, self.lease)?)
    }

    fn layer(&mut self, path: &str, parents: &[LayerKey]) -> Result<LayerKey, LoadError> {
        let name = self.follow(path);
        let slot = self
            .contents
            .layers
            .remove(&name)
            .ok_or_else(|| LoadError::Missing(path.to_owned()))?;
        let failed = |source| LoadError::Layer { path: path.to_owned(), source };
        let key = match slot {
            Slot::Here(key) => key,
            Slot::Failed(error) => return Err(failed(error)),
            Slot::Waiting(unpacked) => unpacked.commit(self.lease, parents).map_err(failed)?.key,
        };
        self.contents.layers.insert(name, Slot::Here(key));
        Ok(key)
    }

    fn document<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, LoadError> {
        let bytes = self.bytes(path)?;
        serde_json::from_slice(bytes)
            .map_err(|source| LoadError::Document { path: path.to_owned(), source })
    }

    fn bytes(&self, path: &str) -> Result<&[u8], LoadError> {
        self.find_document(path).ok_or_else(|| LoadError::Missing(path.to_owned()))
    }

    /// A document whose name is its digest.
    fn blob(&self, digest: Digest) -> Result<&[u8], LoadError> {
        let path = blob_name(&digest);
        let bytes = self.bytes(&path)?;
        let got = Digest::of(bytes);
        if got == digest { Ok(bytes) } else { Err(LoadError::Digest { path, got }) }
    }

    fn find_document(&self, path: &str) -> Option<&[u8]> {
        self.contents.documents.get(&self.follow(path)).map(Vec::as_slice)
    }

    /// Older Docker saved a layer once and linked to it.
    fn follow(&self, path: &str) -> String {
        let mut name = clean(path.as_bytes())
            .map_or_else(|_| path.to_owned(), |path| String::from_utf8_lossy(&path).into_owned());
        for _ in 0..LINKS_MAX {
            match self.contents.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        name
    }
}

fn names_of(annotations: &std::collections::BTreeMap<String, String>) -> Vec<Reference> {
    if let Some(name) = annotations.get(FULL_NAME).and_then(|name| Reference::parse(name).ok()) {
        return vec![name];
    }
    // Some write the whole name here, others the tag alone, which names nothing.
    let name = annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    name.and_then(|name| Reference::parse(name).ok()).into_iter().collect()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What stands for a layer in progress lines: twelve digits where there is a digest.
fn short_name(name: &str) -> String {
    let digest = name
        .split('/')
        .find(|part| Digest::from_hex(&part.chars().take(64).collect::<String>()).is_ok());
    digest.unwrap_or(name).chars().take(12).collect()
}

fn may_be_layer(start: &[u8]) -> bool {
    if start.is_empty() {
        return false;
    }
    Compression::sniff(start) != Compression::None
        || Reader::new(start).next(&mut Vec::new()).is_ok()
}

/// Reads the current entry's payload.
struct EntryRead<'r, R>(&'r mut Reader<R>);

impl<R: BufRead> Read for EntryRead<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.0.payload(buffer.len() as u64).map_err(|error| match error {
            TarError::Truncated => io::Error::from(io::ErrorKind::UnexpectedEof),
            other => io::Error::other(other),
        })?;
        let got = chunk.len();
        buffer[..got].copy_from_slice(chunk);
        self.0.consume(got);
        Ok(got)
    }
}
