//! Pushes: which documents and blobs a name means, and in which order they go to the registry.
//!
//! ```text
//! index that is here whole ─▶ all blobs ─▶ its manifests ─▶ the index
//! manifest that is here    ─▶ its blobs ─▶ the manifest            (byte for byte as it came)
//! image made here          ─▶ its layers, compressed on the way ─▶ a manifest, kept
//! ```
//! What names others goes after what it names, the tag last. An index that is not here whole is not
//! pushed: its manifest of this image is. How a blob goes is in [`super::upload`].
//!
//! Source: moby `distribution/push.go`, `push_v2.go`; `daemon/containerd/image_push.go`.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use registry::{Access, Client, Credentials, Work};
use spec::image::Descriptor;
use spec::{DiffId, Digest, ImageId, Platform, Reference};
use store::blocks::Format;
use store::{Child, ContentLease, Image, Target};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::blobs::KnownBlob;
use super::content::manifest;
use super::pull::{TransferOutput, line};
use super::registries::{Failed, may_fall_back, push_error};
use super::upload::{Item, Sending, Unsent, is_of};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::{Engine, Inner};

/// What to push, as whom.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Without a tag: all tags.
    pub name: Reference,
    /// Of an index this one alone.
    pub platform: Option<Platform>,
    /// The form that all layers are to have; else each has the one that it has.
    pub format: Option<Format>,
    pub credentials: Credentials,
    /// Sent to the registry with each request.
    pub headers: Vec<(String, String)>,
}

impl Engine {
    /// Pushes an image. Dropping the future ends it.
    ///
    /// # Errors
    /// In Docker's words. What was sent stays at the registry.
    pub async fn push_image(
        &self,
        request: PushRequest,
        output: mpsc::Sender<TransferOutput>,
    ) -> Result<()> {
        let PushRequest { name, platform, format, credentials, headers } = request;
        if name.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        // The same queue from threads and from tasks.
        let _ =
            output.send(line("", format!("The push refers to repository [{}]", name.name()))).await;
        let images = images(&self.inner, &name)?;
        let mut last = Failed::default();
        for endpoint in self.inner.registries.endpoints(name.domain(), Work::Push).await? {
            let (role, endpoint) = (endpoint.role, endpoint.with_headers(&headers));
            let opened =
                self.inner.registries.client(endpoint, &name, &credentials, Access::Push).await;
            let client = match opened {
                Ok(client) => Arc::new(client),
                Err(error) if may_fall_back(&error, role) => {
                    last.note(error);
                    continue;
                }
                Err(error) => return Err(push_error(error)),
            };
            let lease = Arc::new(self.inner.store.lease_content());
            let engine = Arc::clone(&self.inner);
            let push = Push { engine, client, output, platform, format, lease };
            for (name, id) in &images {
                push.one(name, id).await?;
            }
            return Ok(());
        }
        Err(last.error(name.domain()))
    }
}

/// The tags to push.
fn images(engine: &Inner, name: &Reference) -> Result<Vec<(Reference, ImageId)>> {
    let same =
        |(known, _): &(Reference, ImageId)| known.name() == name.name() && known.tag().is_some();
    let all: Vec<(Reference, ImageId)> = engine.store.names().into_iter().filter(same).collect();
    if all.is_empty() {
        let text =
            format!("An image does not exist locally with the tag: {}", name.familiar_name());
        return Err(Error::not_found(text));
    }
    if name.tag().is_none() {
        return Ok(all);
    }
    let chosen: Vec<(Reference, ImageId)> =
        all.into_iter().filter(|(known, _)| known.tag() == name.tag()).collect();
    if chosen.is_empty() {
        return Err(Error::not_found(format!("tag does not exist: {}", name.familiar())));
    }
    Ok(chosen)
}

/// A document as it goes to the registry.
struct Document {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

/// What of a name is pushed.
enum Plan {
    /// Blobs in the order of sending, documents likewise, the last one under the tag.
    Kept { items: Vec<Item>, documents: Vec<Document> },
    /// An image whose manifest is made anew.
    Made,
}

struct Push {
    engine: Arc<Inner>,
    client: Arc<Client>,
    output: mpsc::Sender<TransferOutput>,
    platform: Option<Platform>,
    format: Option<Format>,
    lease: Arc<ContentLease>,
}

impl Push {
    async fn say(&self, output: TransferOutput) {
        // Whoever asked may have gone; then this future is dropped soon.
        let _ = self.output.send(output).await;
    }

    async fn one(&self, name: &Reference, id: &ImageId) -> Result<()> {
        let image = self.engine.store.image(id);
        let image = image.ok_or_else(|| crate::words::no_such_image(&name.familiar()))?;
        let (engine, named, of) = (Arc::clone(&self.engine), name.clone(), Arc::clone(&image));
        let (platform, lease) = (self.platform.clone(), Arc::clone(&self.lease));
        let wish = Wish { platform, format: self.format };
        let plan = blocking(move || plan(&engine, &named, &of, &wish, &lease)).await?;
        let (documents, learnt) = match plan {
            Plan::Made => self.made(name, &image).await?,
            Plan::Kept { items, documents } => match self.items(name, items).await {
                Ok(learnt) => (documents, learnt),
                // The layer is here, but not as the blob that it came as.
                Err(Unsent::Missing(digest)) if self.platform.is_none() => {
                    let text = format!("{}: not kept, so the manifest changes", digest.short());
                    self.say(line("", text)).await;
                    self.made(name, &image).await?
                }
                Err(Unsent::Missing(digest)) => {
                    return Err(Error::not_found(format!("content digest {digest}: not found")));
                }
                Err(Unsent::Error(error)) => return Err(error),
            },
        };
        let tag = name.tag().unwrap_or("latest").to_owned();
        let Some((root, before)) = documents.split_last() else {
            return Err(Error::internal("nothing to push"));
        };
        for document in before {
            self.document(&document.digest.to_string(), document).await?;
        }
        self.document(&tag, root).await?;
        let (digest, size) = (root.digest, root.bytes.len() as u64);
        let target = Target { digest, media_type: root.media_type.clone(), size };
        let (engine, named, id, id_of) = (Arc::clone(&self.engine), name.clone(), *id, id);
        blocking(move || {
            engine.registries.blobs.learn(&engine.store, &named, learnt);
            // Gone meanwhile, or already named so.
            let _ = engine.store.tag_as(&named.with_digest(digest), &id, Some(target));
        })
        .await;
        self.say(line("", format!("{tag}: digest: {digest} size: {size}"))).await;
        self.say(TransferOutput::Pushed { tag, digest, size }).await;
        super::tell_of(&self.engine, "push", id_of, name);
        Ok(())
    }

    async fn document(&self, under: &str, document: &Document) -> Result<()> {
        let bytes = Bytes::from(document.bytes.clone());
        let put = self.client.put_manifest(under, &document.media_type, bytes).await;
        put.map_err(push_error)
    }

    /// Brings all items to the registry; gives what is to be remembered.
    async fn items(
        &self,
        name: &Reference,
        items: Vec<Item>,
    ) -> std::result::Result<Vec<(DiffId, KnownBlob)>, Unsent> {
        let sent = self.send(name, items).await?;
        Ok(sent.into_iter().filter_map(|(_, learnt)| learnt).collect())
    }

    async fn send(
        &self,
        name: &Reference,
        items: Vec<Item>,
    ) -> std::result::Result<Vec<Sent>, Unsent> {
        let uploads = Arc::clone(&self.engine.registries.current().uploads);
        let mut tasks = JoinSet::new();
        let mut waiting = Vec::new();
        for (place, item) in items.into_iter().enumerate() {
            let sending = Sending {
                engine: Arc::clone(&self.engine),
                client: Arc::clone(&self.client),
                output: self.output.clone(),
                name: name.clone(),
                lease: Arc::clone(&self.lease),
                format: self.format,
                item,
            };
            sending.say("Preparing").await;
            waiting.push((place, sending));
        }
        let mut all: Vec<Option<Sent>> = waiting.iter().map(|_| None).collect();
        for (place, sending) in waiting {
            let uploads = Arc::clone(&uploads);
            tasks.spawn(async move {
                if uploads.available_permits() == 0 {
                    sending.say("Waiting").await;
                }
                let _permit = uploads.acquire().await;
                let blob = sending.push().await?;
                let learnt = sending.learnt(&blob);
                Ok::<_, Unsent>((place, (blob, learnt)))
            });
        }
        while let Some(finished) = tasks.join_next().await {
            match finished {
                Ok(finished) => {
                    let (place, sent) = finished?;
                    all[place] = Some(sent);
                }
                Err(failure) => std::panic::resume_unwind(failure.into_panic()),
            }
        }
        Ok(all.into_iter().flatten().collect())
    }

    /// Pushes an image without a manifest of its own; gives the one that was made, which is kept.
    async fn made(
        &self,
        name: &Reference,
        image: &Arc<Image>,
    ) -> Result<(Vec<Document>, Vec<(DiffId, KnownBlob)>)> {
        let unsent = |unsent| match unsent {
            Unsent::Error(error) => error,
            Unsent::Missing(digest) => Error::internal(format!("blob {digest} is gone")),
        };
        let (store, lease, of) =
            (self.engine.store.clone(), Arc::clone(&self.lease), Arc::clone(image));
        let kept = blocking(move || store.keep_blob(&of.raw, &lease)).await;
        kept.map_err(|source| Error::caused(Kind::Internal, source))?;
        let config = Descriptor::new("", image.id.0, image.raw.len() as u64);
        let layers = top_first(image.layers.iter().map(store::LayerKey::diff_id));
        let items = layers.iter().map(|layer| Item::Layer(*layer)).collect();
        let sent = self.send(name, items).await.map_err(unsent)?;
        let config_item = vec![Item::Config(config.clone())];
        self.send(name, config_item).await.map_err(unsent)?;
        let blob_of = |layer: DiffId| {
            let place = layers.iter().position(|known| *known == layer)?;
            sent.get(place).map(|(blob, _)| blob.clone())
        };
        let blobs: Vec<Descriptor> =
            image.layers.iter().filter_map(|key| blob_of(key.diff_id())).collect();
        let (media_type, bytes) = manifest(config, &blobs)?;
        let digest = Digest::of(&bytes);
        let target = Target { digest, media_type: media_type.clone(), size: bytes.len() as u64 };
        let (store, lease) = (self.engine.store.clone(), Arc::clone(&self.lease));
        let (named, id, kept) = (name.clone(), image.id, bytes.clone());
        blocking(move || {
            store.keep_blob(&kept, &lease)?;
            // It may have been removed or named anew meanwhile.
            if store.resolve_tag(&named) == Some(id) {
                let _ = store.tag_as(&named, &id, Some(target));
            }
            Ok(())
        })
        .await
        .map_err(|source: store::ContentError| Error::caused(Kind::Internal, source))?;
        let learnt = sent.into_iter().filter_map(|(_, learnt)| learnt).collect();
        Ok((vec![Document { digest, media_type, bytes }], learnt))
    }
}

/// What an item is at the registry, and what is to be remembered of it.
type Sent = (Descriptor, Option<(DiffId, KnownBlob)>);

/// Each layer once, the top one first.
fn top_first(layers: impl DoubleEndedIterator<Item = DiffId>) -> Vec<DiffId> {
    let mut seen = HashSet::new();
    layers.rev().filter(|layer| seen.insert(*layer)).collect()
}

/// What of an image is asked for.
struct Wish {
    platform: Option<Platform>,
    format: Option<Format>,
}

/// Whether all layers of all manifests that are here have this form.
fn all_of(manifests: &[Child], format: Format) -> bool {
    let manifests = manifests.iter().filter_map(|child| child.manifest.as_ref());
    manifests.flat_map(|manifest| &manifest.layers).all(|layer| is_of(format, &layer.media_type))
}

/// Blocking.
fn plan(
    engine: &Inner,
    name: &Reference,
    image: &Image,
    wish: &Wish,
    lease: &ContentLease,
) -> Result<Plan> {
    let store = &engine.store;
    let platform = wish.platform.as_ref();
    let missing = |platform: &Platform| {
        Error::not_found(format!(
            "image with reference {} was found but does not provide the specified platform ({platform})",
            name.familiar()
        ))
    };
    // Layers of another form make another manifest.
    let as_wished =
        |target: &Target| wish.format.is_none_or(|format| all_of(&store.children(target), format));
    let Some(target) = store.content(name).filter(as_wished) else {
        return match platform.filter(|wanted| !wanted.runs(&image.config.platform())) {
            Some(platform) => Err(missing(platform)),
            None => Ok(Plan::Made),
        };
    };
    let all = store.children(&target);
    lease.hold(&target.digest);
    let chosen = match platform {
        Some(platform) => {
            let fits = |child: &&Child| {
                let config = child.config(store);
                config.is_some_and(|config| platform.runs(&config.platform()))
            };
            vec![all.iter().find(fits).cloned().ok_or_else(|| missing(platform))?]
        }
        None if all.iter().all(|child| child.is_whole(store)) => all.clone(),
        None => match all.iter().find(|child| child.is_of(&image.id)) {
            Some(child) => vec![child.clone()],
            None => return Ok(Plan::Made),
        },
    };
    let mut wanted: Vec<Descriptor> = chosen.iter().map(|child| child.descriptor.clone()).collect();
    if platform.is_none() && chosen.len() == all.len() {
        wanted.extend(store.indexes(&target).into_iter().rev());
    }
    let mut documents = Vec::new();
    for descriptor in wanted {
        let digest = descriptor.digest;
        lease.hold(&digest);
        let Some(bytes) = store.read_manifest(&digest) else { return Ok(Plan::Made) };
        let media_type = store::Document::kind(&descriptor.media_type, &bytes)
            .map_err(|source| Error::caused(Kind::Internal, source))?;
        documents.push(Document { digest, media_type, bytes });
    }
    Ok(Plan::Kept { items: items(&chosen, image, lease), documents })
}

/// The blobs of some manifests, each once, configurations last.
fn items(manifests: &[Child], image: &Image, lease: &ContentLease) -> Vec<Item> {
    let (mut seen, mut items, mut configs) = (HashSet::new(), Vec::new(), Vec::new());
    for manifest in manifests.iter().filter_map(|child| child.manifest.as_ref()) {
        let layer_of = |place: usize| {
            let is_ours =
                manifest.config.digest == image.id.0 && manifest.layers.len() == image.layers.len();
            is_ours.then(|| image.layers[place].diff_id())
        };
        for (place, blob) in manifest.layers.iter().enumerate().rev() {
            lease.hold(&blob.digest);
            if seen.insert(blob.digest) {
                items.push(Item::Blob(blob.clone(), layer_of(place)));
            }
        }
        lease.hold(&manifest.config.digest);
        if seen.insert(manifest.config.digest) {
            configs.push(Item::Config(manifest.config.clone()));
        }
    }
    items.extend(configs);
    items
}
