//! Volumes: create, list, remove.

use api::{
    client::segment,
    volume::{CreateRequest, ListResponse, Volume},
};

use super::{FORMAT_USAGE, each};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files,
    failure::Failure,
    render::{
        format::{self, Headers, Row, labels_text},
        units::table_size,
    },
    terminal,
};

const BASE: Command = Command {
    name: "create",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    flags: &[&[
        flag("driver", Text, "Volume driver").s('d').or("local"),
        flag("label", Label, "Set metadata on the volume"),
        flag("name", Text, "Volume name").hidden(),
        flag("opt", Map, "Options of the driver").s('o').or("map[]"),
    ]],
    arity: Arity::AtMost(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(create(session, matches)),
};
pub static CREATE: Command = BASE;

pub static LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    spellings: &["volume ls", "volume list"],
    usage: "[OPTIONS]",
    about: "List volumes",
    flags: &[&[
        flag("cluster", Bool, "Show only cluster volumes").hidden(),
        flag("filter", Filter, "Show only what meets these conditions (e.g. \"dangling=true\")")
            .s('f'),
        flag("format", Text, FORMAT_USAGE),
        flag("quiet", Bool, "Show only volume names").s('q'),
    ]],
    arity: Arity::None,
    run: |session, matches| Box::pin(list(session, matches)),
    ..BASE
};

pub static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    spellings: &["volume rm", "volume remove"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes. A volume in use cannot be removed.",
    flags: &[&[flag("force", Bool, "Remove them even when they are not there").s('f')]],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(remove(session, matches)),
    ..BASE
};

pub static UPDATE: Command = Command {
    name: "update",
    usage: "[OPTIONS] [VOLUME]",
    about: "Change a cluster volume",
    flags: &[&[flag(
        "availability",
        Text,
        "Availability of a cluster volume (\"active\", \"pause\", \"drain\")",
    )
    .or("active")
    .hidden()]],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(update(session, matches)),
    ..BASE
};

/// Only a swarm has volumes that can be updated, and here is none.
async fn update(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    session.client().await?.get(&format!("/volumes/{}", segment(name))).send().await?;
    Err(Failure::new("can only update cluster volumes"))
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let name = match (matches.args.first(), matches.find("name")) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        (Some(name), None) => name.as_str(),
        (None, name) => name.unwrap_or_default(),
    };
    let request = CreateRequest {
        name: name.to_owned(),
        driver: matches.text("driver").to_owned(),
        driver_opts: Some(files::pairs(matches.all("opt"))),
        labels: Some(files::labels(&[], matches.all("label"))?),
        cluster_volume_spec: None,
    };
    let volume: Volume =
        session.client().await?.post("/volumes/create").json(&request).send().await?.json().await?;
    terminal::out(&format!("{}\n", volume.name));
    Ok(0)
}

pub const HEADERS: Headers = &[
    ("Availability", "AVAILABILITY"),
    ("Driver", "DRIVER"),
    ("Group", "GROUP"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

async fn list(session: &Session, matches: &Matches) -> Outcome {
    let mut request = session.client().await?.get("/volumes");
    if let Some(filters) = super::filters(matches) {
        request = request.query("filters", filters);
    }
    let mut found: ListResponse = request.send().await?.json().await?;
    found.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    if matches.on("cluster") {
        // Only a swarm has such volumes.
        found.volumes.clear();
    }
    let rows: Vec<Row> = found.volumes.iter().map(row).collect();
    let asked = match matches.find("format") {
        Some(format) => format,
        None if matches.on("quiet") => "",
        None => session.config.format("volumesFormat").unwrap_or_default(),
    };
    let quiet = matches.on("quiet") && matches!(asked, "" | "table");
    let template = if quiet {
        "{{.Name}}"
    } else {
        format::resolve(
            asked,
            "table {{.Driver}}\t{{.Name}}",
            "name: {{.Name}}\ndriver: {{.Driver}}\n",
        )
    };
    format::print(format::Listing::Of("*formatter.volumeContext"), template, HEADERS, &rows)?;
    Ok(0)
}

/// A volume's row; usage is known only to `system df`.
pub fn row(volume: &Volume) -> Row {
    let labels = volume.labels.clone().unwrap_or_default();
    let (links, size) = match &volume.usage_data {
        Some(usage) => (usage.ref_count.to_string(), table_size(usage.size as f64)),
        None => ("N/A".to_owned(), "N/A".to_owned()),
    };
    let unknown = || "N/A".to_owned();
    Row {
        fields: vec![
            ("Availability", unknown()),
            ("Driver", volume.driver.clone()),
            ("Group", unknown()),
            ("Labels", labels_text(&labels)),
            ("Links", links),
            ("Mountpoint", volume.mountpoint.clone()),
            ("Name", volume.name.clone()),
            ("Scope", volume.scope.clone()),
            ("Size", size),
            ("Status", unknown()),
        ],
        labels,
        ..Row::default()
    }
}

async fn remove(session: &Session, matches: &Matches) -> Outcome {
    let force = matches.on("force");
    each(session, &matches.args, |client, name| async move {
        client
            .delete(&format!("/volumes/{}", segment(&name)))
            .flag("force", force)
            .send()
            .await
            .map(drop)
    })
    .await
}
