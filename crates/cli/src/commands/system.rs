//! Disk usage, and the prunes that give disk back.

use api::{client::Client, filters::Filters, image, system::DiskUsage};
use serde_json::Value;

use super::FORMAT_USAGE;
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    render::{
        cache,
        format::{self, Headers, Row},
        units::human_size,
    },
    stream, terminal,
};

const FORCE: Flag = flag("force", Bool, "Do not ask").s('f');
const PRUNE_FILTER: Flag =
    flag("filter", Filter, "Prune only what meets these conditions (e.g. \"until=<timestamp>\")");

const BASE: Command = Command {
    name: "prune",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    flags: &[&[PRUNE_FILTER, FORCE]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(prune_containers(session, matches)),
};
pub static CONTAINER_PRUNE: Command = BASE;

pub static IMAGE_PRUNE: Command = Command {
    about: "Remove unused images",
    flags: &[&[
        flag(
            "all",
            Bool,
            "Remove every image that no container uses, not only those without a name",
        )
        .s('a'),
        PRUNE_FILTER,
        FORCE,
    ]],
    run: |session, matches| Box::pin(prune_images(session, matches)),
    ..BASE
};

pub static NETWORK_PRUNE: Command = Command {
    about: "Remove all unused networks",
    run: |session, matches| Box::pin(prune_networks(session, matches)),
    ..BASE
};

pub static VOLUME_PRUNE: Command = Command {
    about: "Remove unused local volumes",
    flags: &[&[
        flag("all", Bool, "Remove every unused volume, not only the anonymous").s('a'),
        flag("filter", Filter, "Prune only what meets these conditions (e.g. \"label=<label>\")"),
        FORCE,
    ]],
    run: |session, matches| Box::pin(prune_volumes(session, matches)),
    ..BASE
};

pub static BUILDER_PRUNE: Command = Command {
    usage: "",
    about: "Remove what builds keep for later ones",
    flags: &[&[
        flag("all", Bool, "Remove all unused build cache, not only what nothing refers to").s('a'),
        flag("filter", Filter, "Prune only what meets these conditions (e.g. \"until=24h\")"),
        FORCE,
        flag("keep-storage", Bytes, "Amount of disk to keep for the cache"),
    ]],
    run: |session, matches| Box::pin(prune_builds(session, matches)),
    ..BASE
};

pub static SYSTEM_PRUNE: Command = Command {
    about: "Remove unused data",
    flags: &[&[
        flag("all", Bool, "Remove every unused image, not only those without a name").s('a'),
        flag(
            "filter",
            Filter,
            "Prune only what meets these conditions (e.g. \"label=<key>=<value>\")",
        ),
        FORCE,
        flag("volumes", Bool, "Prune anonymous volumes"),
    ]],
    run: |session, matches| Box::pin(prune_system(session, matches)),
    ..BASE
};

pub static DF: Command = Command {
    name: "df",
    about: "Show disk usage",
    flags: &[&[
        flag("format", Text, FORMAT_USAGE),
        flag("verbose", Bool, "Show each object's own usage").s('v'),
    ]],
    run: |session, matches| Box::pin(df(session, matches)),
    ..BASE
};

pub static DIAL_STDIO: Command = Command {
    name: "dial-stdio",
    usage: "",
    about: "Join STDIN and STDOUT to the engine's socket",
    flags: &[],
    run: |session, matches| Box::pin(dial_stdio(session, matches)),
    ..BASE
};

async fn dial_stdio(session: &Session, _matches: &Matches) -> Outcome {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let connection = session.client().await?.dial().await?;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let input = async {
        let mut pieces = stream::read_stdin();
        while let Some(piece) = pieces.recv().await {
            if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        // The daemon may have closed first.
        let _ = writer.shutdown().await;
        std::future::pending::<()>().await;
    };
    let output = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(count) = reader.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            terminal::write(terminal::Output::Stdout, &buffer[..count])?;
        }
        Ok(0)
    };
    tokio::select! {
        done = output => done,
        () = input => Ok(0),
    }
}

/// The filters of a prune: the flag's, and those that the other flags mean.
fn prune_filters(matches: &Matches, more: &[(&str, &str)]) -> Filters {
    let mut filters = Filters::default();
    for value in matches.all("filter") {
        if let Some((key, value)) = value.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    for (key, value) in more {
        filters.add(*key, *value);
    }
    filters
}

fn agreed(matches: &Matches, warning: &str) -> bool {
    matches.on("force")
        || terminal::confirm(&format!("WARNING! {warning}\nAre you sure you want to continue?"))
}

/// One prune: what was removed, and the bytes given back.
struct Pruned {
    text: String,
    bytes: u64,
}

async fn prune(client: &Client, path: &str, filters: Filters) -> Result<Value, Failure> {
    let mut request = client.post(path);
    if !filters.is_empty() {
        request = request.query("filters", filters.to_json());
    }
    Ok(request.send().await?.json().await?)
}

/// Lists the names under `key` below a heading.
fn removed(report: &Value, key: &str, heading: &str) -> Pruned {
    let mut text = String::new();
    let names: Vec<&str> =
        report[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        text = format!("{heading}:\n{}\n\n", names.join("\n"));
    }
    Pruned { text, bytes: report["SpaceReclaimed"].as_u64().unwrap_or_default() }
}

fn tell(pruned: &Pruned) {
    terminal::out(&format!(
        "{}Total reclaimed space: {}\n",
        pruned.text,
        human_size(pruned.bytes as f64)
    ));
}

async fn containers_gone(client: &Client, filters: Filters) -> Result<Pruned, Failure> {
    let report = prune(client, "/containers/prune", filters).await?;
    Ok(removed(&report, "ContainersDeleted", "Deleted Containers"))
}

async fn networks_gone(client: &Client, filters: Filters) -> Result<Pruned, Failure> {
    let report = prune(client, "/networks/prune", filters).await?;
    Ok(removed(&report, "NetworksDeleted", "Deleted Networks"))
}

async fn volumes_gone(client: &Client, filters: Filters) -> Result<Pruned, Failure> {
    let report = prune(client, "/volumes/prune", filters).await?;
    Ok(removed(&report, "VolumesDeleted", "Deleted Volumes"))
}

async fn images_gone(client: &Client, filters: Filters) -> Result<Pruned, Failure> {
    let report = prune(client, "/images/prune", filters).await?;
    let report: image::PruneReport =
        api::golang::from_value(report).map_err(|error| Failure::new(error.to_string()))?;
    let mut text = String::new();
    for item in report.images_deleted.iter().flatten() {
        let (what, name) = if item.untagged.is_empty() {
            ("deleted", &item.deleted)
        } else {
            ("untagged", &item.untagged)
        };
        text.push_str(&format!("{what}: {name}\n"));
    }
    if !text.is_empty() {
        text = format!("Deleted Images:\n{text}\n");
    }
    Ok(Pruned { text, bytes: report.space_reclaimed })
}

async fn builds_gone(client: &Client, all: bool, filters: Filters) -> Result<Pruned, Failure> {
    let report = prune_cache(client, all, 0, filters).await?;
    Ok(removed(&report, "CachesDeleted", "Deleted build cache objects"))
}

async fn prune_cache(
    client: &Client,
    all: bool,
    keep: i64,
    filters: Filters,
) -> Result<Value, Failure> {
    let mut request = client.post("/build/prune").flag("all", all);
    if keep > 0 {
        request = request.query("keep-storage", keep.to_string());
    }
    if !filters.is_empty() {
        request = request.query("filters", filters.to_json());
    }
    Ok(request.send().await?.json().await?)
}

async fn prune_containers(session: &Session, matches: &Matches) -> Outcome {
    if agreed(matches, "This will remove all stopped containers.") {
        tell(&containers_gone(session.client().await?, prune_filters(matches, &[])).await?);
    }
    Ok(0)
}

async fn prune_images(session: &Session, matches: &Matches) -> Outcome {
    let (warning, dangling) = if matches.on("all") {
        ("This will remove all images without at least one container associated to them.", "false")
    } else {
        ("This will remove all dangling images.", "true")
    };
    if agreed(matches, warning) {
        let filters = prune_filters(matches, &[("dangling", dangling)]);
        tell(&images_gone(session.client().await?, filters).await?);
    }
    Ok(0)
}

async fn prune_networks(session: &Session, matches: &Matches) -> Outcome {
    if agreed(matches, "This will remove all custom networks not used by at least one container.") {
        let pruned = networks_gone(session.client().await?, prune_filters(matches, &[])).await?;
        terminal::out(&pruned.text);
    }
    Ok(0)
}

async fn prune_volumes(session: &Session, matches: &Matches) -> Outcome {
    let (warning, more): (_, &[(&str, &str)]) = if matches.on("all") {
        (
            "This will remove all local volumes not used by at least one container.",
            &[("all", "true")],
        )
    } else {
        ("This will remove anonymous local volumes not used by at least one container.", &[])
    };
    if agreed(matches, warning) {
        tell(&volumes_gone(session.client().await?, prune_filters(matches, more)).await?);
    }
    Ok(0)
}

async fn prune_builds(session: &Session, matches: &Matches) -> Outcome {
    let all = matches.on("all");
    let warning = if all {
        "This will remove all build cache."
    } else {
        "This will remove all dangling build cache."
    };
    if agreed(matches, warning) {
        let keep = matches
            .find("keep-storage")
            .and_then(|text| crate::create::sizes::ram_in_bytes(text).ok())
            .unwrap_or_default();
        let filters = prune_filters(matches, &[]);
        let client = session.client().await?;
        // The report has no sizes; what there was before has.
        let usage = client.get("/system/df").query("type", "build-cache").send().await?;
        let before = usage.json::<DiskUsage>().await?.build_cache.unwrap_or_default();
        let report = prune_cache(client, all, keep, filters).await?;
        let gone = report["CachesDeleted"].as_array().into_iter().flatten();
        let gone: Vec<&str> = gone.filter_map(Value::as_str).collect();
        let reclaimed = report["SpaceReclaimed"].as_u64().unwrap_or_default();
        terminal::out(&cache::pruned(&before, &gone, reclaimed));
    }
    Ok(0)
}

async fn prune_system(session: &Session, matches: &Matches) -> Outcome {
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    if volumes && matches.all("filter").iter().any(|filter| filter.starts_with("until=")) {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let mut warning = "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
    if volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if all {
        "  - all images without at least one container associated to them\n  - all build cache\n"
    } else {
        "  - all dangling images\n  - unused build cache\n"
    });
    if !agreed(matches, &warning) {
        return Ok(0);
    }
    let client = session.client().await?;
    let filters = || prune_filters(matches, &[]);
    let mut bytes = 0;
    let mut all_text = String::new();
    let mut add = |pruned: Pruned| {
        bytes += pruned.bytes;
        all_text.push_str(&pruned.text);
    };
    add(containers_gone(client, filters()).await?);
    add(networks_gone(client, filters()).await?);
    if volumes {
        add(volumes_gone(client, filters()).await?);
    }
    let dangling = if all { "false" } else { "true" };
    add(images_gone(client, prune_filters(matches, &[("dangling", dangling)])).await?);
    add(builds_gone(client, all, filters()).await?);
    tell(&Pruned { text: all_text, bytes });
    Ok(0)
}

async fn df(session: &Session, matches: &Matches) -> Outcome {
    const HEADERS: Headers = &[
        ("Active", "ACTIVE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("TotalCount", "TOTAL"),
        ("Type", "TYPE"),
    ];
    const RAW: &str = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n";
    let usage: DiskUsage = session.client().await?.get("/system/df").send().await?.json().await?;
    let asked = matches.text("format");
    if matches.on("verbose") {
        terminal::out(&super::usage::verbose(&usage, asked)?);
        return Ok(0);
    }
    let template = format::resolve(
        asked,
        "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        RAW,
    );
    format::print(
        format::Listing::Of("*formatter.diskUsageImagesContext"),
        template,
        HEADERS,
        &usage_rows(&usage),
    )?;
    Ok(0)
}

fn usage_rows(usage: &DiskUsage) -> Vec<Row> {
    let images = usage.images.as_deref().unwrap_or_default();
    let used_images: i64 = images
        .iter()
        .filter(|image| image.containers != 0)
        .map(|image| image.size - image.shared_size.max(0))
        .sum();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let running = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let volume_size = |in_use: Option<bool>| -> i64 {
        volumes
            .iter()
            .filter_map(|volume| volume.usage_data.as_ref())
            .filter(|data| in_use.is_none_or(|wanted| (data.ref_count > 0) == wanted))
            .map(|data| data.size.max(0))
            .sum()
    };
    let caches = usage.build_cache.as_deref().unwrap_or_default();
    let cache_size = |in_use: Option<bool>| -> i64 {
        caches
            .iter()
            .filter(|cache| !cache.shared && in_use.is_none_or(|wanted| cache.in_use == wanted))
            .map(|cache| cache.size)
            .sum()
    };
    let container_size = |only_stopped: bool| -> i64 {
        containers
            .iter()
            .filter(|container| !only_stopped || !running(&container.state))
            .map(|container| container.size_rw)
            .sum()
    };
    vec![
        usage_row(
            "Images",
            images.len(),
            images.iter().filter(|image| image.containers > 0).count(),
            usage.layers_size,
            (usage.layers_size - used_images).max(0),
        ),
        usage_row(
            "Containers",
            containers.len(),
            containers.iter().filter(|container| running(&container.state)).count(),
            container_size(false),
            container_size(true),
        ),
        usage_row(
            "Local Volumes",
            volumes.len(),
            volumes
                .iter()
                .filter(|volume| volume.usage_data.as_ref().is_some_and(|data| data.ref_count > 0))
                .count(),
            volume_size(None),
            volume_size(Some(false)),
        ),
        usage_row(
            "Build Cache",
            caches.len(),
            caches.iter().filter(|cache| cache.in_use).count(),
            cache_size(None),
            cache_size(Some(false)),
        ),
    ]
}

fn usage_row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Row {
    let share = if size > 0 && kind != "Build Cache" {
        format!(" ({}%)", reclaimable * 100 / size)
    } else {
        String::new()
    };
    Row {
        fields: vec![
            ("Active", active.to_string()),
            ("Reclaimable", format!("{}{share}", human_size(reclaimable as f64))),
            ("Size", human_size(size as f64)),
            ("TotalCount", total.to_string()),
            ("Type", kind.to_owned()),
        ],
        ..Row::default()
    }
}
