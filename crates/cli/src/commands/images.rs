//! Images as the store has them: list, history, tag, remove.

use std::collections::BTreeMap;

use api::{
    client::segment,
    image::{DeleteItem, HistoryItem, Summary},
};
use spec::reference::Reference;

use super::{FORMAT_USAGE, finish, image_tree, platform_json};
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::{Failure, daemon_words},
    render::{
        format::{self, Headers, Row},
        units::{ago, ellipsis, human_size, short_id, table_size},
    },
    terminal,
};

const LIST_FLAGS: &[Flag] = &[
    flag("all", Bool, "Show all images (otherwise intermediate ones are left out)").s('a'),
    flag("digests", Bool, "Show digests"),
    flag("filter", Filter, "Show only what meets these conditions").s('f'),
    flag("format", Text, FORMAT_USAGE),
    flag("no-trunc", Bool, "Do not shorten output"),
    flag("quiet", Bool, "Show only image IDs").s('q'),
    flag("tree", Bool, "Show each image's platforms below it"),
];

const BASE: Command = Command {
    name: "ls",
    aliases: &["list"],
    spellings: &["image ls", "image list", "images"],
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    flags: &[LIST_FLAGS],
    arity: Arity::AtMost(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(list(session, matches)),
};
pub static LS: Command = BASE;
pub static IMAGES: Command = Command { name: "images", aliases: &[], ..BASE };

pub static HISTORY: Command = Command {
    name: "history",
    aliases: &[],
    spellings: &["image history", "history"],
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    flags: &[&[
        flag("format", Text, FORMAT_USAGE),
        flag("human", Bool, "Print sizes and dates for people").s('H').or("true"),
        flag("no-trunc", Bool, "Do not shorten output"),
        flag("platform", Text, "Platform of the image, where it has several"),
        flag("quiet", Bool, "Show only image IDs").s('q'),
    ]],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(history(session, matches)),
    ..BASE
};

pub static TAG: Command = Command {
    name: "tag",
    aliases: &[],
    spellings: &["image tag", "tag"],
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Give SOURCE_IMAGE the further name TARGET_IMAGE",
    flags: &[],
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(tag(session, matches)),
    ..BASE
};

pub static RM: Command = REMOVE;
pub static RMI: Command = Command { name: "rmi", aliases: &[], ..REMOVE };
const REMOVE: Command = Command {
    name: "rm",
    aliases: &["rmi", "remove"],
    spellings: &["image rm", "image remove", "rmi"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    flags: &[&[
        flag("force", Bool, "Remove the image even when containers or names hold it").s('f'),
        flag("no-prune", Bool, "Keep parents that have no name"),
        flag("platform", Strings, "Remove only this platform's variant"),
    ]],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(remove(session, matches)),
    ..BASE
};

const HEADERS: Headers = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

async fn list(session: &Session, matches: &Matches) -> Outcome {
    let is_tree = matches.on("tree");
    if is_tree {
        image_tree::refuse(|name| matches.given(name))?;
    }
    let client = session.client().await?;
    let mut filters = api::filters::Filters::default();
    if is_tree && !matches.on("all") {
        filters.add("dangling", "false");
    }
    for value in matches.all("filter") {
        if let Some((key, value)) = value.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    if let Some(name) = matches.args.first() {
        filters.add("reference", name);
    }
    let mut request = client.get("/images/json").flag("all", matches.on("all"));
    if !filters.is_empty() {
        request = request.query("filters", filters.to_json());
    }
    let images: Vec<Summary> = request.flag("manifests", is_tree).send().await?.json().await?;
    if is_tree {
        image_tree::print(&images);
        return Ok(0);
    }
    let asked = match matches.find("format") {
        Some(format) => format,
        None if matches.on("quiet") => "",
        None => session.config.format("imagesFormat").unwrap_or_default(),
    };
    let wants_digests = matches.on("digests") || asked.contains(".Digest");
    let full = matches.on("no-trunc");
    let mut rows = Vec::new();
    for image in &images {
        rows.extend(image_rows(image, wants_digests, full));
    }
    let table = if matches.on("digests") {
        "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let raw = if matches.on("digests") {
        "repository: {{ .Repository }}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
    } else {
        "repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
    };
    let template = match (matches.on("quiet"), asked) {
        (true, "" | "table") => "{{.ID}}",
        (true, "raw") => "image_id: {{.ID}}",
        _ => format::resolve(asked, table, raw),
    };
    format::print(format::Listing::Of("*formatter.imageContext"), template, HEADERS, &rows)?;
    Ok(0)
}

/// The rows of one image: one for each of its names, by repository.
///
/// Source: docker/cli `formatter/image.go`.
pub fn image_rows(image: &Summary, with_digests: bool, full: bool) -> Vec<Row> {
    let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut digests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in image.repo_tags.iter().filter(|name| *name != "<none>:<none>") {
        if let Ok(reference) = Reference::parse(name) {
            let tag = reference.tag().unwrap_or("<none>").to_owned();
            tags.entry(reference.familiar_name()).or_default().push(tag);
        }
    }
    for name in image.repo_digests.iter().filter(|name| *name != "<none>@<none>") {
        if let Some((repository, digest)) = name.split_once('@') {
            let repository = Reference::parse(repository)
                .map_or_else(|_| repository.to_owned(), |reference| reference.familiar_name());
            digests.entry(repository).or_default().push(digest.to_owned());
        }
    }
    let mut rows = Vec::new();
    for (repository, tags) in &tags {
        let found = digests.remove(repository).unwrap_or_default();
        for tag in tags {
            if with_digests && !found.is_empty() {
                rows.extend(found.iter().map(|digest| row(image, repository, tag, digest, full)));
            } else {
                rows.push(row(image, repository, tag, "<none>", full));
            }
        }
    }
    for (repository, found) in &digests {
        if with_digests {
            rows.extend(found.iter().map(|digest| row(image, repository, "<none>", digest, full)));
        } else {
            rows.push(row(image, repository, "<none>", "<none>", full));
        }
    }
    if rows.is_empty() {
        rows.push(row(image, "<none>", "<none>", "<none>", full));
    }
    rows
}

fn row(image: &Summary, repository: &str, tag: &str, digest: &str, full: bool) -> Row {
    let share = |bytes: i64| {
        if bytes < 0 { "N/A".to_owned() } else { human_size(bytes as f64) }
    };
    let unique = if image.shared_size < 0 { -1 } else { image.size - image.shared_size };
    let containers =
        if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() };
    Row {
        fields: vec![
            ("Containers", containers),
            ("CreatedAt", super::ps::local_time(image.created)),
            ("CreatedSince", since(image.created)),
            ("Digest", digest.to_owned()),
            ("ID", if full { image.id.clone() } else { short_id(&image.id).to_owned() }),
            ("Repository", repository.to_owned()),
            ("SharedSize", share(image.shared_size)),
            ("Size", table_size(image.size as f64)),
            ("Tag", tag.to_owned()),
            ("UniqueSize", share(unique)),
            ("VirtualSize", human_size(image.size as f64)),
        ],
        ..Row::default()
    }
}

/// An image may have no time at all.
fn since(created: i64) -> String {
    if created <= 0 { "N/A".to_owned() } else { ago(created) }
}

async fn history(session: &Session, matches: &Matches) -> Outcome {
    const HEADERS: Headers = &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ];
    let Some(name) = matches.args.first() else { return Ok(0) };
    let path = format!("/images/{}/history", segment(name));
    let mut request = session.client().await?.get(&path);
    if !matches.text("platform").is_empty() {
        request = request.query("platform", platform_json(matches.text("platform")));
    }
    let items: Vec<HistoryItem> = request.send().await?.json().await?;
    let (full, human) = (matches.on("no-trunc"), matches.on("human"));
    let rows: Vec<Row> = items.iter().map(|item| history_row(item, full, human)).collect();
    let asked = matches.text("format");
    let table = if human {
        "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
    } else {
        "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
    };
    let quiet = matches.on("quiet") && matches!(asked, "" | "table");
    let template = if quiet { "{{.ID}}" } else { format::resolve(asked, table, "") };
    format::print(format::Listing::Of("*image.historyContext"), template, HEADERS, &rows)?;
    Ok(0)
}

fn history_row(item: &HistoryItem, full: bool, human: bool) -> Row {
    let by = item.created_by.replace('\t', " ");
    let at = jiff::Timestamp::from_second(item.created)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default();
    let id = if full || item.id == "<missing>" { item.id.as_str() } else { short_id(&item.id) };
    Row {
        fields: vec![
            ("Comment", item.comment.clone()),
            ("CreatedAt", at.clone()),
            ("CreatedBy", if full { by } else { ellipsis(&by, 45) }),
            ("CreatedSince", if human { since(item.created) } else { at }),
            ("ID", id.to_owned()),
            ("Size", if human { table_size(item.size as f64) } else { item.size.to_string() }),
        ],
        ..Row::default()
    }
}

async fn tag(session: &Session, matches: &Matches) -> Outcome {
    let [source, target] = &matches.args[..] else { return Ok(0) };
    let reference = Reference::parse(target).map_err(|error| {
        Failure::new(format!(
            "Error parsing reference: {target:?} is not a valid repository/tag: {error}"
        ))
    })?;
    let mut request = session
        .client()
        .await?
        .post(&format!("/images/{}/tag", segment(source)))
        .query("repo", reference.familiar_name());
    if let Some(tag) = reference.tag() {
        request = request.query("tag", tag);
    }
    request.send().await?;
    Ok(0)
}

async fn remove(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let force = matches.on("force");
    let mut errors = Vec::new();
    let mut fatal = false;
    for name in &matches.args {
        let mut request = client
            .delete(&format!("/images/{}", segment(name)))
            .flag("force", force)
            .flag("noprune", matches.on("no-prune"));
        for platform in matches.all("platform") {
            request = request.query("platforms", platform_json(platform));
        }
        let done = match request.send().await {
            Ok(answer) => answer.json::<Vec<DeleteItem>>().await,
            Err(error) => Err(error),
        };
        match done {
            Ok(items) => {
                for item in items {
                    if item.deleted.is_empty() {
                        terminal::out(&format!("Untagged: {}\n", item.untagged));
                    } else {
                        terminal::out(&format!("Deleted: {}\n", item.deleted));
                    }
                }
            }
            Err(error) => {
                fatal |= !error.is_not_found();
                errors.push(daemon_words(&error));
            }
        }
    }
    if !errors.is_empty() && force && !fatal {
        terminal::error_text(&format!("{}\n", errors.join("\n")));
        return Ok(0);
    }
    finish(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let image = Summary {
            id: "sha256:0123456789abcdef".to_owned(),
            repo_tags: vec!["busybox:latest".to_owned(), "localhost:5000/a/b:1".to_owned()],
            size: 4_860_000,
            ..Summary::default()
        };
        let names: Vec<_> = image_rows(&image, false, false)
            .into_iter()
            .map(|row| {
                let field =
                    |name| row.fields.iter().find(|(key, _)| *key == name).unwrap().1.clone();
                (field("Repository"), field("Tag"), field("ID"), field("Size"))
            })
            .collect();
        let id = || "0123456789ab".to_owned();
        let size = || "4.86MB".to_owned();
        assert_eq!(
            names,
            [
                ("busybox".to_owned(), "latest".to_owned(), id(), size()),
                ("localhost:5000/a/b".to_owned(), "1".to_owned(), id(), size()),
            ]
        );
        let bare = image_rows(&Summary::default(), true, false);
        assert_eq!(bare.len(), 1);
    }
}
