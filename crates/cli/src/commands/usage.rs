//! `system df -v`: what each object holds, as tables or by a template over all of them.
//!
//! Source: docker CLI 28.2 `cli/command/formatter/disk_usage.go`, `buildcache.go`.

use std::rc::Rc;

use api::{container, image, system::BuildCache, system::DiskUsage};

use crate::{
    failure::Failure,
    gotemplate::{
        print::go_time,
        schema,
        value::{Struct, Value},
    },
    render::{
        format::{self, Headers, Listing, Row},
        template::Format,
        units::{ago_at, human_size, short_id, table_size},
    },
};

const IMAGES: Headers = &[
    ("Containers", "CONTAINERS"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
];
const IMAGE_TABLE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
const CONTAINER_TABLE: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const CACHES: Headers = &[
    ("CacheType", "CACHE TYPE"),
    ("CreatedSince", "CREATED"),
    ("ID", "CACHE ID"),
    ("LastUsedSince", "LAST USED"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("UsageCount", "USAGE"),
];
const CACHE_TABLE: &str = "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}";

/// Full identifiers are for templates; tables have them short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    Short,
    Full,
}

/// # Errors
/// When the template is wrong.
pub fn verbose(usage: &DiskUsage, asked: &str) -> Result<String, Failure> {
    match asked {
        "" | "table" => tables(usage),
        "json" => by_template(usage, "{{json .}}"),
        other => by_template(usage, other),
    }
}

fn tables(usage: &DiskUsage) -> Result<String, Failure> {
    let part = Listing::Of("*formatter.diskUsageContext");
    let ids = Ids::Short;
    let volumes: Vec<Row> = usage.volumes.iter().flatten().map(super::volumes::row).collect();
    let own: i64 = usage
        .build_cache
        .iter()
        .flatten()
        .filter(|cache| !cache.shared)
        .map(|cache| cache.size)
        .sum();
    let mut text = String::new();
    for (heading, template, headers, rows) in [
        ("Images space usage:\n\n".to_owned(), IMAGE_TABLE, IMAGES, images(usage, ids)),
        (
            "\nContainers space usage:\n\n".to_owned(),
            CONTAINER_TABLE,
            super::ps::HEADERS,
            containers(usage, ids)?,
        ),
        (
            "\nLocal Volumes space usage:\n\n".to_owned(),
            "table {{.Name}}\t{{.Links}}\t{{.Size}}",
            super::volumes::HEADERS,
            volumes,
        ),
        (
            format!("\nBuild cache usage: {}\n\n", human_size(own as f64)),
            CACHE_TABLE,
            CACHES,
            caches(usage, ids),
        ),
    ] {
        text.push_str(&heading);
        text.push_str(&format::render(part, template, headers, &rows)?);
    }
    Ok(text)
}

fn by_template(usage: &DiskUsage, template: &str) -> Result<String, Failure> {
    let list = |name: &'static str, rows: Vec<Row>| {
        let rows = rows.into_iter().map(|row| format::value(Listing::Of(name), row)).collect();
        Value::List(Some(Rc::new(rows)), schema::parse("[]any"))
    };
    let volumes = usage.volumes.iter().flatten().map(super::volumes::row).collect();
    let fields = vec![
        list("*formatter.imageContext", images(usage, Ids::Full)),
        list("*formatter.ContainerContext", containers(usage, Ids::Full)?),
        list("*formatter.volumeContext", volumes),
        list("*formatter.buildCacheContext", caches(usage, Ids::Full)),
    ];
    let all = Value::Struct(Rc::new(Struct { name: "formatter.diskUsageContext", fields }));
    let all = Value::Pointer(Some(Rc::new(all)), schema::parse("*formatter.diskUsageContext"));
    let wrong = |why: String| Failure::new(format!("template parsing error: {why}"));
    let template = template.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
    let format = Format::parse(&template).map_err(wrong)?;
    format.run(&all).map_err(Failure::new)
}

/// One row for each image, by the first of its names.
fn images(usage: &DiskUsage, ids: Ids) -> Vec<Row> {
    let first = |one: &image::Summary| image::Summary {
        repo_tags: one.repo_tags.iter().take(1).cloned().collect(),
        repo_digests: Vec::new(),
        ..one.clone()
    };
    let images = usage.images.iter().flatten();
    let rows =
        images.flat_map(|image| super::images::image_rows(&first(image), false, ids == Ids::Full));
    // A digest is not asked for here, and so is not even said to be absent.
    rows.map(|mut row| {
        row.fields.retain(|(name, _)| *name != "Digest");
        row.fields.push(("Digest", String::new()));
        row
    })
    .collect()
}

fn containers(usage: &DiskUsage, ids: Ids) -> Result<Vec<Row>, Failure> {
    let containers = usage.containers.iter().flatten();
    containers
        .map(|one| {
            // Only what a container holds itself is told here.
            let own = container::Summary { size_root_fs: 0, ..one.clone() };
            super::ps::whole_row(&own, ids == Ids::Full)
        })
        .collect()
}

/// The least used first.
fn caches(usage: &DiskUsage, ids: Ids) -> Vec<Row> {
    let mut caches: Vec<&BuildCache> = usage.build_cache.iter().flatten().collect();
    caches.sort_by(|a, b| (moment(&a.last_used_at), &a.id).cmp(&(moment(&b.last_used_at), &b.id)));
    caches.into_iter().map(|cache| cache_row(cache, ids)).collect()
}

fn moment(text: &Option<String>) -> Option<jiff::Timestamp> {
    text.as_ref()?.parse().ok()
}

fn cache_row(cache: &BuildCache, ids: Ids) -> Row {
    let id = if ids == Ids::Short { short_id(&cache.id) } else { &cache.id };
    let mark = if cache.in_use { "*" } else { "" };
    let parents = cache.parents.clone().unwrap_or_default().join(", ");
    let since = |text: &Option<String>| moment(text).map(ago_at).unwrap_or_default();
    Row {
        fields: vec![
            ("CacheType", cache.kind.clone()),
            ("CreatedAt", go_time(&cache.created_at)),
            ("CreatedSince", since(&Some(cache.created_at.clone()))),
            ("Description", cache.description.clone()),
            ("ID", format!("{id}{mark}")),
            ("InUse", cache.in_use.to_string()),
            ("LastUsedAt", cache.last_used_at.as_deref().map(go_time).unwrap_or_default()),
            ("LastUsedSince", since(&cache.last_used_at)),
            ("Parent", if ids == Ids::Short { short_id(&parents).to_owned() } else { parents }),
            ("Shared", cache.shared.to_string()),
            ("Size", table_size(cache.size as f64)),
            ("UsageCount", cache.usage_count.to_string()),
        ],
        ..Row::default()
    }
}
