//! `ps`: the containers.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use api::container::{MountPoint, Port, Summary};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

use super::FORMAT_USAGE;
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag, go::quote},
    context::Session,
    failure::Failure,
    gotemplate::{Reads, schema, value::Value},
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
    let answer = request.send().await?.bytes().await?;
    let full = matches.on("no-trunc");
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
    check(asked, full)?;
    terminal::out(&render(&answer, template, full)?);
    Ok(0)
}

fn check(asked: &str, full: bool) -> Result<(), Failure> {
    if matches!(asked, "" | "table" | "json" | "raw") {
        return Ok(());
    }
    let format = Format::parse(asked)
        .map_err(|why| Failure::new(format!("failed to parse template: {why}")))?;
    let row = row(&Listed::default(), full, &Reads::All)?;
    format
        .run(&format::value(format::Listing::Containers, row))
        .map(drop)
        .map_err(|why| Failure::new(format!("failed to execute template: {why}")))
}

/// An answer's containers as the template shows them.
fn render(answer: &[u8], template: &str, full: bool) -> Result<String, Failure> {
    let mut renderer = format::Renderer::new(format::Listing::Containers, template, HEADERS)?;
    let reads = renderer.reads();
    let read_again;
    let containers: Vec<Listed<'_>> = match serde_json::from_slice(answer) {
        Ok(containers) => containers,
        // Of another daemon: by Go's rules, which take a document in between.
        Err(_) => {
            let containers: Vec<Summary> = decoded(api::golang::from_slice(answer))?;
            read_again = decoded(serde_json::to_vec(&containers))?;
            decoded(serde_json::from_slice(&read_again))?
        }
    };
    for container in &containers {
        renderer.row(row(container, full, &reads)?)?;
    }
    Ok(renderer.finish())
}

fn decoded<T>(outcome: serde_json::Result<T>) -> Result<T, Failure> {
    outcome.map_err(|source| api::client::Error::Decode { source }.into())
}

/// A [`Summary`] of an answer, as far as every table needs it: its texts stand in the answer, and what
/// consists of parts is read only for a template that shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Listed<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    names: Option<&'a RawValue>,
    #[serde(borrow)]
    image: Cow<'a, str>,
    #[serde(borrow, rename = "ImageID")]
    image_id: Cow<'a, str>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    /// Unix seconds.
    created: i64,
    #[serde(borrow)]
    ports: Option<&'a RawValue>,
    size_rw: i64,
    size_root_fs: i64,
    #[serde(borrow)]
    labels: Option<&'a RawValue>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    network_settings: Option<&'a RawValue>,
    #[serde(borrow)]
    mounts: Option<&'a RawValue>,
}

/// What a table says of `NetworkSettings`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkNames {
    networks: BTreeMap<String, IgnoredAny>,
}

/// A part of a container as its type; its zero where it is absent.
fn part<T: Default + DeserializeOwned>(json: Option<&RawValue>) -> Result<T, Failure> {
    let Some(json) = json.map(RawValue::get) else { return Ok(T::default()) };
    decoded(serde_json::from_str(json).or_else(|_| api::golang::from_slice(json.as_bytes())))
}

static PLATFORM: LazyLock<schema::Type> = LazyLock::new(|| schema::parse("*formatter.Platform"));

/// How a column is made; `full` is that nothing is shortened.
type Column = fn(&Listed<'_>, full: bool) -> Result<String, Failure>;

const COLUMNS: [(&str, Column); 14] = [
    ("Command", |container, full| Ok(quote(&shortened(&container.command, 20, full)))),
    ("CreatedAt", |container, _| Ok(local_time(container.created))),
    ("ID", |container, full| {
        Ok(if full { &container.id } else { short_id(&container.id) }.to_owned())
    }),
    ("Image", |container, full| Ok(image(container, full))),
    ("Labels", |container, _| Ok(labels_text(&part(container.labels)?))),
    ("LocalVolumes", |container, _| {
        let mounts: Vec<MountPoint> = part(container.mounts)?;
        Ok(mounts.iter().filter(|mount| mount.driver == "local").count().to_string())
    }),
    ("Mounts", mounts),
    ("Names", |container, full| Ok(names(&part::<Vec<String>>(container.names)?, full))),
    ("Networks", |container, _| {
        let settings: NetworkNames = part(container.network_settings)?;
        Ok(settings.networks.into_keys().collect::<Vec<_>>().join(","))
    }),
    ("Ports", |container, _| Ok(ports(&part::<Vec<Port>>(container.ports)?))),
    ("RunningFor", |container, _| Ok(ago(container.created))),
    ("Size", |container, _| {
        let (own, all) = (container.size_rw, container.size_root_fs);
        let virtual_size = |all: i64| format!(" (virtual {})", table_size(all as f64));
        let virtual_size = if all == 0 { String::new() } else { virtual_size(all) };
        Ok(format!("{}{virtual_size}", table_size(own as f64)))
    }),
    ("State", |container, _| Ok(container.state.clone().into_owned())),
    ("Status", |container, _| Ok(container.status.clone().into_owned())),
];

/// The fields of a container that are read of it.
fn row(container: &Listed<'_>, full: bool, reads: &Reads) -> Result<Row, Failure> {
    let mut row = Row::default();
    for (name, column) in COLUMNS.iter().filter(|(name, _)| reads.field(name)) {
        row.fields.push((name, column(container, full)?));
    }
    // Which of an image's platforms a container runs is told only by daemons that keep several.
    row.others.push(("Platform", Value::Pointer(None, *PLATFORM)));
    if reads.field("Label") {
        row.labels = part(container.labels)?;
    }
    Ok(row)
}

/// All fields of a container that was read whole.
///
/// # Errors
/// None that a daemon's container gives.
pub fn whole_row(container: &Summary, full: bool) -> Result<Row, Failure> {
    let json = decoded(serde_json::to_vec(container))?;
    row(&decoded(serde_json::from_slice(&json))?, full, &Reads::All)
}

fn shortened(text: &str, width: usize, full: bool) -> Cow<'_, str> {
    if full { Cow::Borrowed(text) } else { Cow::Owned(ellipsis(text, width)) }
}

fn mounts(container: &Listed<'_>, full: bool) -> Result<String, Failure> {
    let mounts: Vec<MountPoint> = part(container.mounts)?;
    let mounts = mounts.iter().map(|mount| {
        let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
        shortened(name, 15, full)
    });
    Ok(mounts.collect::<Vec<_>>().join(","))
}

/// A local time as Go's `time.Time` prints itself.
pub fn local_time(unix_seconds: i64) -> String {
    let Ok(at) = jiff::Timestamp::from_second(unix_seconds) else { return String::new() };
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// The image as named; by its own short ID where it was named by digest or ID.
fn image(container: &Listed<'_>, full: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if full {
        return container.image.clone().into_owned();
    }
    let name = &container.image;
    if short_id(name) == short_id(&container.image_id) || name.starts_with("sha256:") {
        return short_id(&container.image_id).to_owned();
    }
    match name.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => name.clone().into_owned(),
    }
}

/// Names without their slash; those given by links of others, which hold more slashes, only in
/// full output.
fn names(names: &[String], full: bool) -> String {
    names
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
    use sys::testing::allocations;

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

    const ANSWER: &str = r#"[{"Id":"0123456789abcdef","Names":["/web","/other/db"],"Image":"busybox","ImageID":"sha256:4576","Command":"sh -c 'a \"b\"'","Created":0,"Ports":[{"PrivatePort":80,"Type":"tcp"}],"Labels":{"a":"b"},"State":"created","Status":"Created","HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"Aliases":null,"IPPrefixLen":0}}},"Mounts":[{"Type":"volume","Name":"v","Driver":"local"}]}]"#;
    const ROWS: usize = 64;
    /// The template's own, and the text as it grows.
    const FOR_THE_TABLE: usize = 120;
    /// Seven columns are made and become values; names and ports are read for them.
    const FOR_A_ROW: usize = 42;
    const FOR_AN_ID: usize = 8;

    fn many() -> String {
        let row = ANSWER.trim_start_matches('[').trim_end_matches(']');
        format!("[{}]", vec![row; ROWS].join(","))
    }

    #[test]
    fn a_row_costs_what_its_template_shows() {
        let answer = many();
        for (template, for_a_row) in [(TABLE, FOR_A_ROW), ("{{.ID}}", FOR_AN_ID)] {
            let before = allocations();
            render(answer.as_bytes(), template, false).unwrap();
            let taken = allocations() - before;
            let most = FOR_THE_TABLE + ROWS * for_a_row;
            assert!((1..=most).contains(&taken), "{taken} for {ROWS} rows of {template}");
        }
    }

    #[test]
    fn each_column_is_read_of_the_answer() {
        let template = "{{.ID}} {{.Names}} {{.Image}} {{.Command}} {{.Ports}} {{.Labels}} {{.State}} {{.Status}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}} {{.Size}} {{.Label \"a\"}} {{.Platform}}";
        let want = "0123456789ab web busybox \"sh -c 'a \\\"b\\\"'\" 80/tcp a=b created Created bridge v 1 0B b <nil>\n";
        assert_eq!(render(ANSWER.as_bytes(), template, false).unwrap(), want);
        // Of a daemon that spells fields its own way, and has nulls where we have none.
        let other = ANSWER.replace("\"Id\"", "\"ID\"").replace("\"Created\":0", "\"Created\":null");
        assert_eq!(render(other.as_bytes(), template, false).unwrap(), want);
        assert!(render(b"{}", template, false).is_err());
        assert_eq!(render(b"null", template, false).unwrap(), "");
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
