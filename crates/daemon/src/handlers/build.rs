//! `POST /build`.
//!
//! What fails before the first line of output gets a status; afterwards the stream's last object
//! says so. Source: moby 28.2 `api/server/router/build/build_routes.go`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::body::{Body, BodySender};
use api::container::Ulimit;
use api::progress::Message;
use api::trace;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::builds::{
    Archive, BuildExtras, BuildFailure, BuildRequest, BuildSource, CacheBudget, CacheEntry,
    CachePrune, CacheUse, Carrier, Containers, Export, ExtraContext, Output, Pull, Reach, Squash,
    Style, Verbosity,
};
use engine::containers::security::SecurityOptions;
use engine::containers::spec::{Resources, Ulimit as Limit};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::registry::registry_config;
use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

/// Lines between the builder and the connection.
const QUEUE_LENGTH: usize = 64;

pub async fn build(mut call: Call) -> Result {
    // Taken first: what is refused below is told only when the client could finish sending.
    let upload = call.upload_stream();
    let mut request = request(&call)?;
    if matches!(request.source, BuildSource::Context(_)) {
        request.source = BuildSource::Context(upload);
    }
    let (sender, mut output) = mpsc::channel(QUEUE_LENGTH);
    let engine = call.engine.clone();
    let mut building = tokio::spawn(async move { engine.build(request, sender).await });
    // The builder ends its output before it ends itself.
    let Some(first) = output.recv().await else {
        return match building.await {
            Ok(Ok(_made)) => Ok(reply::stream("application/json", Body::empty()).into()),
            Ok(Err(failure)) => Err(failure.error.into()),
            Err(error) => Err(Failure::internal(format!("the build broke: {error}"))),
        };
    };
    let body = super::streams::spawn_feed(|sender| async move {
        let mut next = Some(first);
        while let Some(line) = next {
            if !sender.send(message(line).to_line()).await {
                return;
            }
            next = output.recv().await;
        }
        finish(&sender, (&mut building).await).await;
    });
    Ok(reply::stream("application/json", body).into())
}

/// Stops a build by the `buildid` that its client gave it. One that is not there has ended.
///
/// Source: moby 28.2 `build_routes.go`, `postCancel`; `builder-next/builder.go`, `Cancel`.
pub fn cancel(call: &Call) -> Result {
    match call.query.text("id") {
        "" => Err(Failure::invalid("build ID not provided")),
        id => {
            call.engine.cancel_build(id);
            reply::no_content()
        }
    }
}

/// Source: moby 28.2 `build_routes.go`, `postPrune`.
pub async fn prune(call: &Call) -> Result {
    let bytes = |name: &str| match call.query.text(name) {
        "" => Ok(0),
        text => text.parse::<i64>().map(|bytes| u64::try_from(bytes).unwrap_or(0)).map_err(|_| {
            Failure::invalid(format!("{name} is in bytes and expects an integer, got {text}"))
        }),
    };
    let prune = CachePrune {
        filters: call.filters()?,
        reach: if call.query.flag("all") { Reach::All } else { Reach::Dangling },
        budget: CacheBudget {
            // The first is the older name.
            reserved: bytes("keep-storage")?.max(bytes("reserved-space")?),
            used_max: bytes("max-used-space")?,
            free_min: bytes("min-free-space")?,
        },
    };
    let report = call.engine.prune_build_cache(prune).await?;
    reply::ok(&api::image::BuildPruneReport {
        caches_deleted: (!report.removed.is_empty()).then_some(report.removed),
        space_reclaimed: report.reclaimed,
    })
}

/// One record for `GET /system/df`.
pub fn usage(entry: CacheEntry) -> api::system::BuildCache {
    api::system::BuildCache {
        id: entry.id,
        parents: None,
        kind: entry.kind.word().to_owned(),
        description: entry.description,
        in_use: entry.in_use,
        shared: entry.shared,
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        created_at: match entry.created.is_empty() {
            true => "0001-01-01T00:00:00Z".to_owned(),
            false => entry.created,
        },
        last_used_at: entry.last_used.map(|at| crate::convert::time(Some(at))),
        usage_count: i64::try_from(entry.uses).unwrap_or(i64::MAX),
    }
}

async fn finish<T>(
    sender: &BodySender,
    outcome: std::result::Result<std::result::Result<T, BuildFailure>, tokio::task::JoinError>,
) {
    let last = match outcome {
        Ok(Ok(_image)) => return,
        Ok(Err(failure)) => {
            Message::error(failure.error.message, failure.code.unwrap_or_default().into())
        }
        Err(error) => Message::error(format!("the build broke: {error}"), 0),
    };
    sender.send(last.to_line()).await;
}

fn message(output: Output) -> Message {
    match output {
        Output::Text(text) => Message::stream(text),
        Output::Image(id) => Message::aux(serde_json::json!({ "ID": id.to_string() })),
        Output::Piece { output, bytes } => {
            let data = BASE64_STANDARD.encode(bytes);
            Message {
                id: trace::EXPORT_ID.to_owned(),
                aux: serde_json::to_value(trace::ExportPiece { output, data }).ok(),
                ..Message::default()
            }
        }
        Output::Trace(trace) => Message {
            id: trace::ID.to_owned(),
            aux: serde_json::to_value(trace).ok(),
            ..Message::default()
        },
    }
}

/// A parameter that is JSON; the default when it is missing, or null.
fn json<T: DeserializeOwned + Default>(
    call: &Call,
    name: &str,
    wrong: &str,
) -> std::result::Result<T, Failure> {
    match call.query.text(name) {
        "" => Ok(T::default()),
        text => api::golang::from_slice::<Option<T>>(text.as_bytes())
            .map(Option::unwrap_or_default)
            .map_err(|error| Failure::invalid(format!("{wrong}{error}"))),
    }
}

/// What is to be made of the result. The classic builder makes images only.
fn exports(call: &Call, style: Style) -> std::result::Result<Vec<Export>, Failure> {
    if call.query.text("outputs").is_empty() {
        return Ok(vec![Export::Image]);
    }
    let outputs: Vec<trace::BuildOutput> = json(call, "outputs", "invalid outputs specified: ")?;
    if style == Style::Classic {
        if outputs.is_empty() {
            return Ok(vec![Export::Image]);
        }
        let text = "outputs are not supported by the classic builder, which makes an image: \
                    leave them out, or build with Tug's own client";
        return Err(Failure::invalid(text));
    }
    let export = |output: &trace::BuildOutput| match output.kind.as_str() {
        "image" => Ok(Export::Image),
        "local" => Ok(Export::Files(Carrier::Directory)),
        "tar" => Ok(Export::Files(Carrier::Tar)),
        "docker" => Ok(Export::Archive(Archive::Docker)),
        "oci" => Ok(Export::Archive(Archive::Oci)),
        other => Err(Failure::invalid(format!("exporter {other:?} could not be found"))),
    };
    outputs.iter().map(export).collect()
}

fn shm_size(call: &Call) -> std::result::Result<Option<u64>, Failure> {
    let text = call.query.text("shmsize");
    match text.parse::<i64>() {
        _ if text.is_empty() => Ok(None),
        Ok(bytes) if bytes < 0 => Err(Failure::invalid("SHM size can not be less than 0")),
        Ok(bytes) => Ok(u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)),
        Err(_) => {
            let text = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
            Err(Failure::invalid(text))
        }
    }
}

fn resources(call: &Call) -> std::result::Result<Resources, Failure> {
    let query = &call.query;
    // moby takes a number that is none for zero here.
    let number = |name: &str| query.text(name).parse::<i64>().unwrap_or_default();
    let ulimits: Vec<Ulimit> = json(call, "ulimits", "error reading ulimit settings: ")?;
    Ok(Resources {
        memory: number("memory"),
        memory_swap: number("memswap"),
        cpu_shares: number("cpushares"),
        cpu_period: number("cpuperiod"),
        cpu_quota: number("cpuquota"),
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        cgroup_parent: query.text("cgroupparent").to_owned(),
        ulimits: ulimits
            .into_iter()
            .map(|ulimit| Limit { name: ulimit.name, soft: ulimit.soft, hard: ulimit.hard })
            .collect(),
        ..Resources::default()
    })
}

/// What only Tug's own client sends: see `api::trace`.
fn extras(call: &Call, style: Style) -> std::result::Result<BuildExtras, Failure> {
    let secrets: BTreeMap<String, String> = match (style, call.header(trace::SECRETS_HEADER)) {
        (Style::Classic, _) => return Ok(BuildExtras::default()),
        (Style::Trace, "") => BTreeMap::new(),
        (Style::Trace, text) => decode_secrets(text)?,
    };
    let mut extras = BuildExtras {
        agents: json::<BTreeMap<String, PathBuf>>(call, "ssh", "error reading ssh: ")?,
        contexts_directory: call.query.text("contextsdir").to_owned(),
        fresh_stages: call.query.all("nocachefilter").map(str::to_owned).collect(),
        ..BuildExtras::default()
    };
    for (name, text) in secrets {
        let content = BASE64_STANDARD
            .decode(text)
            .map_err(|error| Failure::invalid(format!("error reading secret {name}: {error}")))?;
        extras.secrets.insert(name, content);
    }
    for (name, place) in
        json::<BTreeMap<String, String>>(call, "contexts", "error reading contexts: ")?
    {
        let context = match (place.parse(), place.strip_prefix("docker-image://")) {
            (Ok(number), _) => ExtraContext::Archive(number),
            (Err(_), Some(image)) => ExtraContext::Image(image.to_owned()),
            (Err(_), None) => {
                return Err(Failure::invalid(format!("unsupported context source {place:?}")));
            }
        };
        extras.contexts.insert(name, context);
    }
    Ok(extras)
}

fn decode_secrets(text: &str) -> std::result::Result<BTreeMap<String, String>, Failure> {
    let wrong = |error: String| Failure::invalid(format!("error reading secrets: {error}"));
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

fn request(call: &Call) -> std::result::Result<BuildRequest, Failure> {
    let query = &call.query;
    let optional = |name: &str| query.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let style = match query.text("version") {
        "" | "1" => Style::Classic,
        trace::VERSION => Style::Trace,
        "2" => {
            return Err(Failure::not_implemented(
                "this daemon builds without BuildKit: set DOCKER_BUILDKIT=0",
            ));
        }
        other => return Err(Failure::invalid(format!("invalid version {other}"))),
    };
    if query.flag("squash") {
        return Err(Failure::invalid("squash is only supported with experimental mode"));
    }
    let isolation = query.text("isolation");
    if !matches!(isolation, "" | "default") {
        return Err(Failure::invalid(format!("unsupported isolation: {isolation:?}")));
    }
    // BuildKit's own client may set them; the classic builder refuses them.
    if style == Style::Classic && !query.text("securityopt").is_empty() {
        let text = "the daemon on this platform does not support setting security options on build";
        return Err(Failure::invalid(text));
    }
    let containers = match (query.flag("forcerm"), query.flag_or("rm", true)) {
        (true, _) => Containers::RemoveAlways,
        (false, true) => Containers::RemoveAfterSuccess,
        (false, false) => Containers::Keep,
    };
    let source = match query.text("remote") {
        // The body takes its place.
        "" => BuildSource::Context(mpsc::channel(1).1),
        url => BuildSource::Remote(url.to_owned()),
    };
    Ok(BuildRequest {
        source,
        dockerfile: query.text("dockerfile").to_owned(),
        tags: query.all("t").map(str::to_owned).collect(),
        target: optional("target"),
        arguments: json::<BTreeMap<String, Option<String>>>(
            call,
            "buildargs",
            "error reading build args: ",
        )?,
        labels: json(call, "labels", "error reading labels: ")?,
        cache: if query.flag("nocache") { CacheUse::Ignore } else { CacheUse::Use },
        credentials: registry_config(call),
        pull: if query.flag("pull") { Pull::Always } else { Pull::Missing },
        containers,
        verbosity: if query.flag("q") { Verbosity::Quiet } else { Verbosity::Full },
        network: query.text("networkmode").to_owned(),
        extra_hosts: query.all("extrahosts").map(str::to_owned).collect(),
        shm_size: shm_size(call)?,
        resources: resources(call)?,
        platform: optional("platform"),
        squash: Squash::No,
        cache_from: json(call, "cachefrom", "")?,
        exports: exports(call, style)?,
        build_id: query.text("buildid").to_owned(),
        extras: extras(call, style)?,
        allow: query.all("allow").map(str::to_owned).collect(),
        security_opt: SecurityOptions::parse(
            query.all("securityopt").map(str::to_owned).collect(),
        )?,
        style,
    })
}
