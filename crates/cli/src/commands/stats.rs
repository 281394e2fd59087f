//! `stats`: use of resources, once or live.

use api::{
    client::{Client, segment},
    container::Summary,
    stats::Stats,
};
use tokio::task::JoinSet;

use super::FORMAT_USAGE;
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    render::{
        format::{self, Headers, Row},
        units::{binary_size, short_id, table_size},
    },
    terminal,
};

pub static STATS: Command = Command {
    name: "stats",
    aliases: &[],
    spellings: &["container stats", "stats"],
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show a live view of containers' use of resources",
    flags: &[&[
        flag("all", Bool, "Show all containers (otherwise only those running)").s('a'),
        flag("format", Text, FORMAT_USAGE),
        flag("no-stream", Bool, "Show one result and stop"),
        flag("no-trunc", Bool, "Do not shorten output"),
    ]],
    arity: Arity::AtLeast(0),
    order: Order::Mixed,
    run: |session, matches| Box::pin(stats(session, matches)),
};

const HEADERS: Headers = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];
const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

async fn stats(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let asked = match matches.find("format") {
        Some(format) => format,
        None => session.config.format("statsFormat").unwrap_or_default(),
    };
    let template = format::resolve(asked, TABLE, "");
    loop {
        let names = names(client, matches).await?;
        let listed = if matches.args.is_empty() { Listed::ByDaemon } else { Listed::ByUser };
        let rows = sample(client, &names, listed, matches.on("no-trunc")).await?;
        let text = format::render(
            format::Listing::Of("*container.statsContext"),
            template,
            HEADERS,
            &rows,
        )?;
        if matches.on("no-stream") {
            terminal::out(&text);
            return Ok(0);
        }
        if terminal::moves_cursor(terminal::Output::Stdout) {
            // Home, each line cleared to its end, the rest of the screen cleared.
            terminal::out(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")));
        } else {
            terminal::out(&text);
        }
        terminal::check()?;
        if rows.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
}

/// A container as whoever asked names it; the daemon's listing has whole identifiers.
fn asked(name: &str, listed: Listed) -> &str {
    match listed {
        Listed::ByUser => name,
        Listed::ByDaemon => short_id(name),
    }
}

/// Who says which containers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    ByUser,
    ByDaemon,
}

async fn names(client: &Client, matches: &Matches) -> Result<Vec<String>, Failure> {
    if !matches.args.is_empty() {
        return Ok(matches.args.clone());
    }
    let request = client.get("/containers/json").flag("all", matches.on("all"));
    let containers: Vec<Summary> = request.send().await?.json().await?;
    Ok(containers.into_iter().map(|container| container.id).collect())
}

/// Asks for all at once, since each answer takes the daemon a second of watching.
async fn sample(
    client: &Client,
    names: &[String],
    listed: Listed,
    full: bool,
) -> Result<Vec<Row>, Failure> {
    let mut tasks = JoinSet::new();
    for (index, name) in names.iter().enumerate() {
        let (client, name) = (client.clone(), name.clone());
        tasks.spawn_local(async move {
            let path = format!("/containers/{}/stats", segment(&name));
            let answer = async {
                client.get(&path).query("stream", "0").send().await?.json::<Stats>().await
            };
            (index, answer.await)
        });
    }
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let Ok((index, answer)) = done else { continue };
        match answer {
            // Listed a moment ago, and gone by now.
            Err(error) if listed == Listed::ByDaemon && error.is_not_found() => {}
            Ok(stats) => found.push((index, row(&stats, asked(&names[index], listed), full))),
            Err(error) => failed.push((index, Failure::from(error))),
        }
    }
    if !failed.is_empty() {
        failed.sort_by_key(|(index, _)| *index);
        let words = failed.iter().filter_map(|(_, failure)| failure.words());
        return Err(Failure::new(words.collect::<Vec<_>>().join("\n")));
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, row)| row).collect())
}

fn row(stats: &Stats, asked: &str, full: bool) -> Row {
    let used = memory_used(stats);
    let limit = stats.memory_stats.limit as f64;
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (received, sent) = stats
        .networks
        .iter()
        .flatten()
        .fold((0, 0), |(rx, tx), (_, network)| (rx + network.rx_bytes, tx + network.tx_bytes));
    let blocks = |kind: &str| -> u64 {
        let entries = stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
        entries.filter(|entry| entry.op.eq_ignore_ascii_case(kind)).map(|entry| entry.value).sum()
    };
    let pair = |a: u64, b: u64| format!("{} / {}", table_size(a as f64), table_size(b as f64));
    let id = if full { stats.id.as_str() } else { short_id(&stats.id) };
    Row {
        fields: vec![
            ("BlockIO", pair(blocks("read"), blocks("write"))),
            ("CPUPerc", format!("{:.2}%", cpu_share(stats))),
            ("Container", asked.to_owned()),
            ("ID", id.to_owned()),
            ("MemPerc", format!("{share:.2}%")),
            ("MemUsage", format!("{} / {}", binary_size(used), binary_size(limit))),
            ("Name", stats.name.trim_start_matches('/').to_owned()),
            ("NetIO", pair(received, sent)),
            ("PIDs", stats.pids_stats.current.to_string()),
        ],
        ..Row::default()
    }
}

/// The page cache that can be given back at once does not count.
fn memory_used(stats: &Stats) -> f64 {
    let memory = &stats.memory_stats;
    let cache =
        memory.stats.get("total_inactive_file").or_else(|| memory.stats.get("inactive_file"));
    match cache {
        Some(cache) if *cache < memory.usage => (memory.usage - cache) as f64,
        Some(_) | None => memory.usage as f64,
    }
}

fn cpu_share(stats: &Stats) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let own = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let all = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        cpus => f64::from(cpus),
    };
    if own > 0.0 && all > 0.0 { own / all * cpus * 100.0 } else { 0.0 }
}
