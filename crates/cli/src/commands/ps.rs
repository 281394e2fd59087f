//! `ps`: the containers.

use std::sync::LazyLock;

use api::container::{Port, Summary};

use super::FORMAT_USAGE;
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag, go::quote},
    context::Session,
    failure::Failure,
    gotemplate::{schema, value::Value},
    render::{
        format::{self, Headers, Row, labels_text},
        template::Format,
        units::{ago, ellipsis, short_id, table_size},
    },
    terminal,
};

const FLAGS: &[Flag] = &[
    flag("all", Bool, "Show all containers (otherwise only those running)").s('a'),
    flag("filter", Filter, "Show only what meets these conditions").s('f'),
    flag("format", Text, FORMAT_USAGE),
    flag("last", Int, "Show the n containers created last (in any state)").s('n').or("-1"),
    flag("latest", Bool, "Show the container created last (in any state)").s('l'),
    flag("no-trunc", Bool, "Do not shorten output"),
    flag("quiet", Bool, "Show only container IDs").s('q'),
    flag("size", Bool, "Show total file sizes").s('s'),
];

const LIST: Command = Command {
    name: "ls",
    aliases: &["ps", "list"],
    spellings: &["container ls", "container list", "container ps", "ps"],
    usage: "[OPTIONS]",
    about: "List containers",
    flags: &[FLAGS],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(list(session, matches)),
};
pub static LS: Command = LIST;
pub static PS: Command = Command { name: "ps", aliases: &[], ..LIST };

pub const HEADERS: Headers = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];

const TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";

async fn list(session: &Session, matches: &Matches) -> Outcome {
    let asked = match matches.find("format") {
        Some(format) => format,
        None if matches.on("quiet") => "",
        None => session.config.format("psFormat").unwrap_or_default(),
    };
    let wants_size = matches.on("size") || asked.contains(".Size") || asked.contains("json .}}");
    let last = if matches.on("latest") { 1 } else { matches.int("last") };
    let mut request = session
        .client()
        .await?
        .get("/containers/json")
        .flag("all", matches.on("all"))
        .flag("size", wants_size);
    if last > 0 {
        request = request.query("limit", last.to_string());
    }
    if let Some(filters) = super::filters(matches) {
        request = request.query("filters", filters);
    }
    let containers: Vec<Summary> = request.send().await?.json().await?;
    let full = matches.on("no-trunc");
    let rows: Vec<Row> = containers.iter().map(|container| row(container, full)).collect();
    let table = if wants_size { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
    let raw = if wants_size { format!("{RAW}size: {{{{.Size}}}}\n") } else { RAW.to_owned() };
    let template = match (matches.on("quiet"), asked) {
        (true, "raw") => "container_id: {{.ID}}",
        (true, _) => "{{.ID}}",
        (false, _) => format::resolve(asked, &table, &raw),
    };
    if matches.on("quiet") && matches.given("format") {
        terminal::error_text(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.\n",
        );
    }
    // A wrong template is told before anything is shown, and as the user wrote it.
    check(asked, &row(&Summary::default(), full))?;
    format::print(format::Listing::Containers, template, HEADERS, &rows)?;
    Ok(0)
}

fn check(asked: &str, row: &Row) -> Result<(), Failure> {
    if matches!(asked, "" | "table" | "json" | "raw") {
        return Ok(());
    }
    let format = Format::parse(asked)
        .map_err(|why| Failure::new(format!("failed to parse template: {why}")))?;
    format
        .run(&format::value(format::Listing::Containers, row))
        .map(drop)
        .map_err(|why| Failure::new(format!("failed to execute template: {why}")))
}

static PLATFORM: LazyLock<schema::Type> = LazyLock::new(|| schema::parse("*formatter.Platform"));

pub fn row(container: &Summary, full: bool) -> Row {
    let id = if full { &container.id } else { short_id(&container.id) };
    let command = if full { container.command.clone() } else { ellipsis(&container.command, 20) };
    let size = match (container.size_rw, container.size_root_fs) {
        (own, 0) => table_size(own as f64),
        (own, all) => format!("{} (virtual {})", table_size(own as f64), table_size(all as f64)),
    };
    let networks: Vec<&str> = container
        .network_settings
        .networks
        .iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
            if full { name.clone() } else { ellipsis(name, 15) }
        })
        .collect();
    let volumes = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    Row {
        fields: vec![
            ("Command", quote(&command)),
            ("CreatedAt", local_time(container.created)),
            ("ID", id.to_owned()),
            ("Image", image(container, full)),
            ("Labels", labels_text(&container.labels)),
            ("LocalVolumes", volumes.to_string()),
            ("Mounts", mounts.join(",")),
            ("Names", names(container, full)),
            ("Networks", networks.join(",")),
            ("Ports", ports(&container.ports)),
            ("RunningFor", ago(container.created)),
            ("Size", size),
            ("State", container.state.clone()),
            ("Status", container.status.clone()),
        ],
        // Which of an image's platforms a container runs is told only by daemons that keep several.
        others: vec![("Platform", Value::Pointer(None, *PLATFORM))],
        labels: container.labels.clone(),
    }
}

/// A local time as Go's `time.Time` prints itself.
pub fn local_time(unix_seconds: i64) -> String {
    let Ok(at) = jiff::Timestamp::from_second(unix_seconds) else { return String::new() };
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// The image as named; by its own short ID where it was named by digest or ID.
fn image(container: &Summary, full: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if full {
        return container.image.clone();
    }
    let name = &container.image;
    if short_id(name) == short_id(&container.image_id) || name.starts_with("sha256:") {
        return short_id(&container.image_id).to_owned();
    }
    match name.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => name.clone(),
    }
}

/// Names without their slash; those given by links of others, which hold more slashes, only in
/// full output.
fn names(container: &Summary, full: bool) -> String {
    container
        .names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .filter(|name| full || !name.contains('/'))
        .collect::<Vec<_>>()
        .join(",")
}

/// Published ports first by their numbers, runs of numbers as ranges.
///
/// Source: docker/cli `formatter.DisplayablePorts`.
fn ports(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.kind).cmp(&(
            b.private_port,
            &b.ip,
            b.public_port,
            &b.kind,
        ))
    });
    // Runs are kept by address and protocol; a run may follow its publication one to one.
    struct Run<'a> {
        key: (&'a str, &'a str),
        first: u16,
        last: u16,
    }
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut mapped: Vec<String> = Vec::new();
    for port in sorted {
        if !port.ip.is_empty() && port.public_port != port.private_port {
            mapped.push(format!(
                "{}->{}/{}",
                crate::commands::logs::join_host_port(&port.ip, port.public_port),
                port.private_port,
                port.kind
            ));
            continue;
        }
        let key = (port.ip.as_str(), port.kind.as_str());
        match runs.iter_mut().find(|run| run.key == key) {
            Some(run) if port.private_port == run.last => {}
            Some(run) if port.private_port == run.last.wrapping_add(1) => {
                run.last = port.private_port;
            }
            Some(run) => {
                texts.push(run_text(run.key, run.first, run.last));
                (run.first, run.last) = (port.private_port, port.private_port);
            }
            None => runs.push(Run { key, first: port.private_port, last: port.private_port }),
        }
    }
    texts.extend(runs.iter().map(|run| run_text(run.key, run.first, run.last)));
    texts.extend(mapped);
    texts.join(", ")
}

fn run_text((ip, kind): (&str, &str), first: u16, last: u16) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if ip.is_empty() {
        return format!("{range}/{kind}");
    }
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{ip}:{range}->{range}/{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &[(&str, u16, u16)], want: &str) {
        let list: Vec<Port> = list
            .iter()
            .map(|&(ip, public_port, private_port)| Port {
                ip: ip.to_owned(),
                public_port,
                private_port,
                kind: "tcp".to_owned(),
            })
            .collect();
        assert_eq!(ports(&list), want);
    }

    #[test]
    fn ports_are_shown_with_their_publication() {
        check(&[("", 0, 80)], "80/tcp");
        check(
            &[("0.0.0.0", 8080, 80), ("::", 8080, 80)],
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        );
        check(&[("", 0, 80), ("", 0, 81), ("", 0, 90)], "80-81/tcp, 90/tcp");
        check(&[("0.0.0.0", 80, 80), ("0.0.0.0", 81, 81)], "0.0.0.0:80-81->80-81/tcp");
    }
}
