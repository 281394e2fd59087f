//! Images.

use std::collections::BTreeMap;
use std::pin::Pin;

use api::body::Body;
use api::compat::{self, Answer as Shape};
use api::container::{GraphDriver, StrSlice, Unit};
use api::image as docker;
use api::progress::{Message, Progress};
use engine::images::{
    Extent, Force, HistoryStep, ImageDetails, ImageSummary, ImagesQuery, ImportRequest,
    InspectQuery, Intermediate, LayerFormat, LoadOutput, Parents, PullRequest, PushRequest,
    Removal, Removed, SharedSize, TransferOutput, Variant, VariantKind, Variants,
};
use hyper::StatusCode;
use serde_json::json;
use spec::{Platform, Reference};
use tokio::sync::mpsc;

use super::registry::{meta_headers, registry_auth};
use super::streams::spawn_feed;
use crate::convert::view::health_config;
use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

/// Read of an archive that is refused by its request alone.
const REFUSED_BYTES_MAX: usize = 1 << 20;
/// Lines between the store and the connection.
const QUEUE_LENGTH: usize = 64;

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One row; `containers` are counted for disk usage only.
pub fn summary(image: ImageSummary) -> docker::Summary {
    let labels = image.image.config.config.labels.clone();
    docker::Summary {
        containers: i64::try_from(image.containers).unwrap_or(i64::MAX),
        created: image.created.as_second(),
        id: image.image.id.to_string(),
        labels: (!labels.is_empty()).then_some(labels),
        parent_id: image.image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        repo_digests: image.digests,
        repo_tags: image.tags,
        shared_size: image.shared_size.map_or(-1, bytes),
        size: bytes(image.image.size),
        manifests: image.variants.map(|variants| variants.into_iter().map(manifest).collect()),
    }
}

fn manifest(variant: Variant) -> docker::ManifestSummary {
    let content = variant.content_size;
    let (kind, image, attestation, unpacked) = match variant.kind {
        VariantKind::Image { platform, unpacked_size, containers } => {
            let image = docker::ManifestImage {
                platform: json!(platform),
                containers: containers.iter().map(ToString::to_string).collect(),
                size: docker::UnpackedSize { unpacked: bytes(unpacked_size) },
            };
            ("image", Some(image), None, unpacked_size)
        }
        VariantKind::Attestation { of } => {
            let of = of.map(|digest| digest.to_string()).unwrap_or_default();
            ("attestation", None, Some(docker::ManifestAttestation { of }), 0)
        }
        VariantKind::Unknown => ("unknown", None, None, 0),
    };
    docker::ManifestSummary {
        id: variant.descriptor.digest.to_string(),
        descriptor: json!(variant.descriptor),
        available: variant.available,
        size: docker::ManifestSize {
            total: bytes(content.saturating_add(unpacked)),
            content: bytes(content),
        },
        kind: kind.to_owned(),
        image_data: image,
        attestation_data: attestation,
    }
}

pub async fn list(call: &Call) -> Result {
    let mut filters = call.filters()?;
    // Before 1.41 a name could also be given beside the filters.
    let name = call.query.text("filter");
    if !name.is_empty() && call.version < api::version::v(41) {
        filters.insert("reference", name);
    }
    // The one view of images that shows which are used.
    let with_manifests = call.query.flag("manifests") && call.version >= api::version::v(47);
    let query = ImagesQuery {
        variants: if with_manifests { Variants::List } else { Variants::Leave },
        intermediate: if call.query.flag("all") { Intermediate::Show } else { Intermediate::Hide },
        shared_size: if call.query.flag("shared-size") {
            SharedSize::Count
        } else {
            SharedSize::Leave
        },
        filters,
    };
    let rows: Vec<_> = call
        .engine
        .list_images(query)
        .await?
        .into_iter()
        .map(|image| match summary(image) {
            counted if with_manifests => counted,
            other => docker::Summary { containers: -1, ..other },
        })
        .collect();
    shown(call, Shape::ImageList, &rows)
}

fn shown<T: serde::Serialize>(call: &Call, shape: Shape, value: &T) -> Result {
    let mut value =
        serde_json::to_value(value).map_err(|error| Failure::internal(error.to_string()))?;
    compat::downgrade(shape, call.version, &mut value);
    reply::ok(&value)
}

pub async fn inspect(call: &Call, asked: &str) -> Result {
    let since = |minor| call.version >= api::version::v(minor);
    let query = InspectQuery {
        platform: if since(49) { platform(call)? } else { None },
        variants: match call.query.flag("manifests") && since(48) {
            true => Variants::List,
            false => Variants::Leave,
        },
    };
    if query.platform.is_some() && query.variants == Variants::List {
        return Err(Failure::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let details = call.engine.inspect_image(asked, query).await?;
    let mut inspected = inspected(details);
    if !since(48) {
        inspected.descriptor = None;
    }
    shown(call, Shape::ImageInspect, &inspected)
}

fn inspected(details: ImageDetails) -> docker::Inspect {
    let image = details.image;
    let config = &image.config;
    docker::Inspect {
        id: image.id.to_string(),
        repo_tags: details.tags,
        repo_digests: details.digests,
        parent: image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        comment: config.comment.clone().unwrap_or_default(),
        created: config.created.clone().unwrap_or_default(),
        docker_version: String::new(),
        author: config.author.clone().unwrap_or_default(),
        config: Some(image_config(config.config.clone())),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        os_version: config.os_version.clone().unwrap_or_default(),
        size: bytes(image.size),
        graph_driver: GraphDriver {
            data: Some(directories(&details.lowers)),
            name: "overlay2".to_owned(),
        },
        root_fs: docker::RootFs {
            kind: config.rootfs.kind.clone(),
            layers: Some(config.rootfs.diff_ids.iter().map(ToString::to_string).collect()),
        },
        metadata: docker::Metadata {
            last_tag_time: match details.tagged_at {
                Some(at) => at.to_string(),
                None => api::ZERO_TIME.to_owned(),
            },
        },
        descriptor: details.descriptor.map(|descriptor| json!(descriptor)),
        manifests: details.variants.map(|variants| variants.into_iter().map(manifest).collect()),
    }
}

/// As Docker's driver names them: the top layer apart from those below.
fn directories(lowers: &[std::path::PathBuf]) -> BTreeMap<String, String> {
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut data = BTreeMap::new();
    if let Some((top, below)) = lowers.split_first() {
        data.insert("UpperDir".to_owned(), text(top));
        if !below.is_empty() {
            let below: Vec<_> = below.iter().map(text).collect();
            data.insert("LowerDir".to_owned(), below.join(":"));
        }
    }
    data
}

fn image_config(config: spec::image::Config) -> docker::Config {
    let set = |keys: BTreeMap<String, spec::image::Empty>| {
        Some(keys.into_keys().map(|key| (key, Unit {})).collect())
    };
    docker::Config {
        user: config.user,
        exposed_ports: set(config.exposed_ports),
        env: Some(config.env),
        entrypoint: StrSlice(config.entrypoint),
        cmd: StrSlice(config.cmd),
        volumes: set(config.volumes),
        working_dir: config.working_dir,
        labels: Some(config.labels),
        stop_signal: config.stop_signal,
        args_escaped: config.args_escaped,
        healthcheck: config.healthcheck.map(health_config),
        on_build: Some(config.on_build),
        shell: StrSlice(Some(config.shell)),
    }
}

pub async fn history(call: &Call, asked: &str) -> Result {
    let wanted = if call.version >= api::version::v(48) { platform(call)? } else { None };
    let steps = call.engine.image_history(asked, wanted).await?;
    let step = |step: HistoryStep| docker::HistoryItem {
        comment: step.comment,
        created: step.created.as_second(),
        created_by: step.created_by,
        id: step.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
        size: bytes(step.size),
        tags: (!step.tags.is_empty()).then_some(step.tags),
    };
    reply::ok(&steps.into_iter().map(step).collect::<Vec<_>>())
}

/// `repo` and `tag` of a query; the tag defaults to latest.
fn named(repo: &str, tag: &str) -> std::result::Result<Reference, Failure> {
    match tag {
        "" => Ok(repo.parse()?),
        tag => Ok(Reference::parse_untagged(repo)?.with_tag(tag)?),
    }
}

pub async fn tag(call: &Call, asked: &str) -> Result {
    let name = named(call.query.text("repo"), call.query.text("tag"))?;
    call.engine.tag_image(asked, &name).await?;
    Ok(reply::empty(StatusCode::CREATED).into())
}

fn deleted(items: Vec<Removed>) -> Vec<docker::DeleteItem> {
    let items = items.into_iter();
    items
        .map(|item| match item {
            Removed::Untagged(name) => docker::DeleteItem { untagged: name, ..Default::default() },
            Removed::Deleted(id) => docker::DeleteItem { deleted: id, ..Default::default() },
        })
        .collect()
}

pub async fn delete(call: &Call, asked: &str) -> Result {
    let removal = Removal::new(
        if call.query.flag("force") { Force::Yes } else { Force::No },
        if call.query.flag("noprune") { Parents::Keep } else { Parents::Remove },
    );
    let platforms = call.query.all("platforms").filter(|text| !text.is_empty());
    let platforms = match call.version >= api::version::v(50) {
        true => platforms.map(platform_of).collect::<std::result::Result<Vec<_>, _>>()?,
        false => Vec::new(),
    };
    let removed = match platforms.is_empty() {
        true => call.engine.remove_image(asked, removal).await?,
        false => call.engine.remove_image_platforms(asked, removal, platforms).await?,
    };
    reply::ok(&deleted(removed))
}

pub async fn prune(call: &Call) -> Result {
    let report = call.engine.prune_images(call.filters()?).await?;
    let items = deleted(report.removed);
    reply::ok(&docker::PruneReport {
        images_deleted: (!items.is_empty()).then_some(items),
        space_reclaimed: report.reclaimed,
    })
}

/// `docker pull` and `docker import` share an endpoint.
pub async fn create(call: Call) -> Result {
    let query = &call.query;
    match (query.text("fromImage"), query.text("fromSrc")) {
        ("", "") => Err(Failure::invalid("one of fromImage and fromSrc is needed")),
        ("", "-") => import(call).await,
        ("", source) => {
            let url = match source.contains("://") {
                true => source.to_owned(),
                false => format!("http://{source}"),
            };
            import_from(call, url).await
        }
        (image, _) => {
            let name = match (
                query.text("tag").trim_start_matches('@'),
                Reference::parse_untagged(image)?,
            ) {
                // All tags, where no tag is written either.
                ("", name) => name,
                (digest, name) if digest.contains(':') => {
                    let digest = digest
                        .parse()
                        .map_err(|error| Failure::bad(&error as &spec::digest::DigestError))?;
                    name.with_digest(digest)
                }
                (tag, name) => name.with_tag(tag)?,
            };
            pull(call, name).await
        }
    }
}

/// The platform that was asked for: `linux/arm64`, or as a document since API 1.46.
///
/// Source: moby `api/server/httputils/form.go`, `DecodePlatform`.
fn platform(call: &Call) -> Result<Option<Platform>> {
    if call.query.all("platform").filter(|text| !text.is_empty()).count() > 1 {
        // Clients before API 1.52 know one, and so does this daemon.
        return Err(Failure::invalid("multiple platform parameters not supported"));
    }
    match call.query.text("platform") {
        "" => Ok(None),
        text if text.starts_with('{') => platform_of(text).map(Some),
        text => Ok(Some(text.parse()?)),
    }
}

/// Reads a platform's document.
fn platform_of(text: &str) -> Result<Platform> {
    let parse =
        |error: serde_json::Error| Failure::invalid(format!("failed to parse platform: {error}"));
    let document: serde_json::Value = serde_json::from_str(text).map_err(parse)?;
    let has = |key: &str| document.get(key).is_some_and(|value| value != "" && !value.is_null());
    let optional = ["variant", "os.version", "os.features"].into_iter().any(has);
    match (has("os"), has("architecture")) {
        (true, true) => serde_json::from_value(document).map_err(parse),
        (false, false) if optional => Err(Failure::invalid(
            "optional platform fields provided, but OS and Architecture are missing",
        )),
        _ => Err(Failure::invalid("both OS and Architecture must be provided")),
    }
}

/// The one platform of an archive, which a client may choose since API 1.48.
///
/// Source: moby 28.2 `api/server/router/image/image_routes.go`, `getImagesGet`, `postImagesLoad`.
fn archive_platform(call: &Call) -> Result<Option<Platform>> {
    if call.version < api::version::v(48) {
        return Ok(None);
    }
    if call.query.all("platform").count() > 1 {
        return Err(Failure::invalid("multiple platform parameters not supported"));
    }
    platform(call)
}

async fn pull(call: Call, name: Reference) -> Result {
    let platform = platform(&call)?;
    // Ours, where Docker has nothing: an index with all that it names.
    let extent = match call.query.flag("allPlatforms") {
        true => Extent::AllPlatforms,
        false => Extent::OnePlatform,
    };
    let request = PullRequest {
        name,
        platform,
        extent,
        credentials: registry_auth(&call),
        headers: meta_headers(&call),
    };
    let (sender, output) = mpsc::channel(QUEUE_LENGTH);
    let engine = call.engine.clone();
    transferred(output, async move { engine.pull_image(request, sender).await }).await
}

pub async fn push(call: &Call, asked: &str) -> Result {
    let name = match call.query.text("tag") {
        "" => Reference::parse_untagged(asked)?,
        tag => Reference::parse_untagged(asked)?.with_tag(tag)?,
    };
    // Ours, where Docker has nothing: the form that layers are to have.
    let format = match call.query.text("compression") {
        "" => None,
        "gzip" => Some(LayerFormat::Gzip),
        "zstd" => Some(LayerFormat::Zstd),
        other => {
            let text = format!("invalid compression {other:?}: it is gzip or zstd");
            return Err(engine::Error::invalid(text).into());
        }
    };
    let (platform, credentials) = (platform(call)?, registry_auth(call));
    let headers = meta_headers(call);
    let request = PushRequest { name, platform, format, credentials, headers };
    let (sender, output) = mpsc::channel(QUEUE_LENGTH);
    let engine = call.engine.clone();
    transferred(output, async move { engine.push_image(request, sender).await }).await
}

/// Sends what a pull or push tells. What fails before it has told anything is a status; later it
/// is the last message. The work ends when the client goes.
async fn transferred(
    mut output: mpsc::Receiver<TransferOutput>,
    work: impl Future<Output = engine::Result<()>> + Send + 'static,
) -> Result {
    let mut work: Pin<Box<dyn Future<Output = engine::Result<()>> + Send>> = Box::pin(work);
    let first = tokio::select! {
        biased;
        first = output.recv() => first,
        done = &mut work => {
            let first = output.try_recv().ok();
            if first.is_none() {
                done?;
                return Ok(reply::stream("application/json", Body::empty()).into());
            }
            work = Box::pin(std::future::ready(done));
            first
        }
    };
    let Some(first) = first else {
        return Ok(reply::stream("application/json", Body::empty()).into());
    };
    let body = spawn_feed(|sender| async move {
        let tell = async {
            let mut next = Some(first);
            while let Some(told) = next {
                if !sender.send(transfer_message(told).to_line()).await {
                    return;
                }
                next = output.recv().await;
            }
        };
        let ((), done) = tokio::join!(tell, work);
        if let Err(error) = done {
            sender.send(Message::error(error.message, 0).to_line()).await;
        }
    });
    Ok(reply::stream("application/json", body).into())
}

fn transfer_message(output: TransferOutput) -> Message {
    match output {
        TransferOutput::Line { id, text } => Message { status: text, id, ..Message::default() },
        TransferOutput::Layer { id, text, progress } => {
            let (current, total) = progress.unwrap_or_default();
            let detail =
                Progress { current: bytes(current), total: bytes(total), ..Progress::default() };
            Message::progress(id, text, detail)
        }
        TransferOutput::Pushed { tag, digest, size } => {
            let digest = digest.to_string();
            // The stream has an empty object of progress here, and so have we.
            Message {
                progress_detail: Some(Progress::default()),
                ..Message::aux(serde_json::json!({ "Tag": tag, "Digest": digest, "Size": size }))
            }
        }
    }
}

fn import_request(call: &Call) -> Result<ImportRequest> {
    let query = &call.query;
    let name = match query.text("repo") {
        "" => None,
        repo => Some(named(repo, query.text("tag"))?),
    };
    Ok(ImportRequest {
        name,
        message: query.text("message").to_owned(),
        changes: query.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
        platform: platform(call)?,
    })
}

async fn import(mut call: Call) -> Result {
    let request = match import_request(&call) {
        Ok(request) => request,
        Err(refusal) => {
            // Whoever sends hears the answer only if it is not cut off in a word.
            let (mut archive, mut left) = (call.upload_stream(), REFUSED_BYTES_MAX);
            while let Some(Ok(chunk)) = archive.recv().await {
                match left.checked_sub(chunk.len()) {
                    Some(less) => left = less,
                    None => break,
                }
            }
            return Err(refusal);
        }
    };
    let archive = call.upload_stream();
    let id = call.engine.import_image(archive, request).await?;
    let body = Body::full(Message::status(id.to_string()).to_line());
    Ok(reply::stream("application/json", body).into())
}

/// The same of what is at an address. It is under way before anything is answered, so that an address
/// where nothing is gets a status.
async fn import_from(call: Call, url: String) -> Result {
    let mut request = import_request(&call)?;
    if request.message.is_empty() {
        request.message = format!("Imported from {url}");
    }
    let mut download = call.engine.download_archive(&url).await?;
    let (chunks, archive) = mpsc::channel(QUEUE_LENGTH);
    let engine = call.engine.clone();
    let body = spawn_feed(|sender| async move {
        let begun = Message::status(format!("Downloading from {url}"));
        if !sender.send(begun.to_line()).await {
            return;
        }
        let importing = engine.import_image(archive, request);
        let total = download.size.map_or(0, bytes);
        let fed = async {
            let mut current = 0;
            while let Some(chunk) = download.bytes.recv().await {
                current += chunk.as_ref().map_or(0, |chunk| bytes(chunk.len() as u64));
                // An importer that gave up says why itself.
                if chunks.send(chunk).await.is_err() {
                    break;
                }
                let detail = Progress { current, total, ..Progress::default() };
                let message = Message::progress("", "Importing", detail);
                if !sender.send(message.to_line()).await {
                    break;
                }
            }
            drop(chunks);
        };
        let (id, ()) = tokio::join!(importing, fed);
        let last = match id {
            Ok(id) => Message::status(id.to_string()),
            Err(error) => Message::error(error.message, 0),
        };
        sender.send(last.to_line()).await;
    });
    Ok(reply::stream("application/json", body).into())
}

pub async fn load(mut call: Call) -> Result {
    let (quiet, platform) = (call.query.flag("quiet"), archive_platform(&call)?);
    let archive = call.upload_stream();
    let (sender, mut output) = mpsc::channel(QUEUE_LENGTH);
    let engine = call.engine.clone();
    // A load goes on when the client goes: its body is what ends it.
    let loading = tokio::spawn(async move { engine.load_images(archive, platform, sender).await });
    // skopeo takes the answer's beginning for the end of the load, as Docker's is when it is quiet.
    let mut first = output.recv().await;
    while quiet && matches!(first, Some(LoadOutput::Progress(_))) {
        first = output.recv().await;
    }
    let Some(first) = first else {
        // Source: moby 28.2 `api/server/router/image/image_routes.go`: every failure is told in the
        // body, where docker-py looks for it.
        let body = match loading.await {
            Ok(Ok(())) => Body::empty(),
            Ok(Err(error)) => Body::full(Message::error(error.message, 0).to_line()),
            Err(error) => {
                Body::full(Message::error(format!("the load broke: {error}"), 0).to_line())
            }
        };
        return Ok(reply::stream("application/json", body).into());
    };
    let body = spawn_feed(|sender| async move {
        let mut next = Some(first);
        while let Some(line) = next {
            if let Some(message) = load_message(line, quiet)
                && !sender.send(message.to_line()).await
            {
                return;
            }
            next = output.recv().await;
        }
        let failure = match loading.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.message,
            Err(error) => format!("the load broke: {error}"),
        };
        sender.send(Message::error(failure, 0).to_line()).await;
    });
    Ok(reply::stream("application/json", body).into())
}

fn load_message(output: LoadOutput, quiet: bool) -> Option<Message> {
    match output {
        LoadOutput::Text(text) => Some(Message::stream(text)),
        LoadOutput::Progress(_) if quiet => None,
        LoadOutput::Progress(progress) => {
            let detail = Progress {
                current: bytes(progress.current),
                total: bytes(progress.total),
                ..Progress::default()
            };
            Some(Message::progress(progress.layer, "Loading layer", detail))
        }
    }
}

pub async fn save(call: &Call, names: &[String]) -> Result {
    let tar = call.engine.save_images(names, archive_platform(call)?).await?;
    Ok(reply::stream("application/x-tar", Body::from_receiver(tar)).into())
}

pub async fn save_all(call: &Call) -> Result {
    let names: Vec<_> = call.query.all("names").map(str::to_owned).collect();
    save(call, &names).await
}
