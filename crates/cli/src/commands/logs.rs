//! What a container shows of itself: logs, top, port, diff.

use api::{
    client::segment,
    container::{Change, Inspect, Top},
    framing::Decoder,
};
use spec::units::parse_duration;

use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag, go},
    context::Session,
    failure::Failure,
    render::table::{self, Widths},
    stream::{self, Framing},
    terminal,
};

const FLAGS: &[Flag] = &[
    flag("details", Bool, "Show the log's further details"),
    flag("follow", Bool, "Go on with what is written from now on").s('f'),
    flag(
        "since",
        Text,
        "Show logs since a time (\"2013-01-02T13:23:37Z\") or for a span (\"42m\" for 42 minutes)",
    ),
    flag("tail", Text, "Number of lines to show from the end of the logs").s('n').or("all"),
    flag("timestamps", Bool, "Show timestamps").s('t'),
    flag(
        "until",
        Text,
        "Show logs before a time (\"2013-01-02T13:23:37Z\") or a span ago (\"42m\" for 42 minutes)",
    ),
];

const BASE: Command = Command {
    name: "logs",
    aliases: &[],
    spellings: &["container logs", "logs"],
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(logs(session, matches)),
};
pub static LOGS: Command = BASE;

pub static TOP: Command = Command {
    name: "top",
    spellings: &["container top", "top"],
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    flags: &[],
    arity: Arity::AtLeast(1),
    order: Order::OptionsFirst,
    run: |session, matches| Box::pin(top(session, matches)),
    ..BASE
};

pub static PORT: Command = Command {
    name: "port",
    spellings: &["container port", "port"],
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings, or one mapping, of a container",
    flags: &[],
    arity: Arity::Between(1, 2),
    run: |session, matches| Box::pin(port(session, matches)),
    ..BASE
};

pub static DIFF: Command = Command {
    name: "diff",
    spellings: &["container diff", "diff"],
    usage: "CONTAINER",
    about: "Show what changed in a container's filesystem",
    flags: &[],
    run: |session, matches| Box::pin(diff(session, matches)),
    ..BASE
};

async fn logs(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let Some(name) = matches.args.first() else { return Ok(0) };
    let path = format!("/containers/{}", segment(name));
    let container: Inspect = client.get(&format!("{path}/json")).send().await?.json().await?;
    let mut request = client
        .get(&format!("/containers/{}/logs", segment(&container.id)))
        .flag("stdout", true)
        .flag("stderr", true)
        .flag("follow", matches.on("follow"))
        .flag("timestamps", matches.on("timestamps"))
        .flag("details", matches.on("details"))
        .query("tail", matches.text("tail"));
    for name in ["since", "until"] {
        if let Some(text) = matches.find(name).filter(|text| !text.is_empty()) {
            let at = moment(text)
                .map_err(|why| Failure::new(format!("invalid value for \"{name}\": {why}")))?;
            request = request.query(name, at);
        }
    }
    let mut response = request.send().await?;
    let framing = if container.config.tty { Framing::Raw } else { Framing::Multiplexed };
    let mut decoder = Decoder::default();
    while let Some(chunk) = response.chunk().await? {
        stream::deliver(&mut decoder, framing, &chunk)?;
    }
    Ok(0)
}

/// A point in time as the daemon wants it, Unix seconds with nanoseconds: from a span ago, a
/// date and time in several forms, or Unix seconds already.
///
/// Source: moby `api/types/time/timestamp.go`.
pub fn moment(text: &str) -> Result<String, String> {
    let now = jiff::Timestamp::now();
    if let Ok(span) = parse_duration(text) {
        let at = now.as_nanosecond() - i128::from(span);
        return Ok(unix_text(at));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(unix_text(at.as_nanosecond()));
    }
    let local = |civil: jiff::civil::DateTime| {
        civil
            .to_zoned(jiff::tz::TimeZone::system())
            .map(|at| unix_text(at.timestamp().as_nanosecond()))
            .map_err(|error| error.to_string())
    };
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        return local(civil);
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        return local(date.to_datetime(jiff::civil::Time::midnight()));
    }
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (seconds, nanos) = text.split_once('.').unwrap_or((text, "0"));
    if number(seconds.trim_start_matches('-')) && number(nanos) {
        return Ok(text.to_owned());
    }
    Err(format!("failed to parse value as time or duration: {}", go::quote(text)))
}

fn unix_text(nanos: i128) -> String {
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

async fn top(session: &Session, matches: &Matches) -> Outcome {
    let [name, options @ ..] = &matches.args[..] else { return Ok(0) };
    let client = session.client().await?;
    let mut request = client.get(&format!("/containers/{}/top", segment(name)));
    if !options.is_empty() {
        request = request.query("ps_args", options.join(" "));
    }
    let processes: Top = request.send().await?.json().await?;
    let mut text = processes.titles.join("\t");
    text.push('\n');
    for process in &processes.processes {
        text.push_str(&process.join("\t"));
        text.push('\n');
    }
    terminal::out(&table::align(&text, Widths { least: 20, padding: 3 }));
    Ok(0)
}

/// An address and a port, IPv6 in brackets.
pub fn join_host_port(ip: &str, port: impl std::fmt::Display) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

async fn port(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let [name, wanted @ ..] = &matches.args[..] else { return Ok(0) };
    let path = format!("/containers/{}/json", segment(name));
    let container: Inspect = client.get(&path).send().await?.json().await?;
    let ports = container.network_settings.ports.unwrap_or_default();
    if let Some(wanted) = wanted.first() {
        let number = wanted.split('/').next().unwrap_or_default();
        go::parse_decimal_uint(number, u64::from(u16::MAX))
            .map_err(|why| Failure::new(format!("Error: invalid port ({number}): {why}")))?;
        let full = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
        let Some(Some(bindings)) = ports.get(&full) else {
            return Err(Failure::new(format!(
                "Error: No public port '{wanted}' published for {name}"
            )));
        };
        for binding in bindings {
            terminal::out(&format!("{}\n", join_host_port(&binding.host_ip, &binding.host_port)));
        }
        return Ok(0);
    }
    let mut sorted: Vec<_> = ports.iter().collect();
    sorted.sort_by_key(|(port, _)| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, ""));
        (number.parse::<u16>().unwrap_or_default(), protocol.to_owned())
    });
    for (port, bindings) in sorted {
        for binding in bindings.iter().flatten() {
            terminal::out(&format!(
                "{port} -> {}\n",
                join_host_port(&binding.host_ip, &binding.host_port)
            ));
        }
    }
    Ok(0)
}

async fn diff(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let Some(name) = matches.args.first().filter(|name| !name.is_empty()) else {
        return Err(Failure::new("Container name cannot be empty"));
    };
    let path = format!("/containers/{}/changes", segment(name));
    let changes: Option<Vec<Change>> = client.get(&path).send().await?.json().await?;
    for change in changes.unwrap_or_default() {
        let letter = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        terminal::out(&format!("{letter} {}\n", change.path));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_in_several_ways() {
        assert_eq!(moment("1700000000"), Ok("1700000000".to_owned()));
        assert_eq!(moment("1700000000.5"), Ok("1700000000.5".to_owned()));
        assert_eq!(moment("2013-01-02T13:23:37Z"), Ok("1357133017.000000000".to_owned()));
        assert!(moment("42m").unwrap().contains('.'));
        assert!(moment("yesterday").is_err());
    }
}
