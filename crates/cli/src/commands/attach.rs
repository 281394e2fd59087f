//! `start` and `attach`.

use api::{
    client::{Client, segment},
    container::Inspect,
};

use super::run::{detach_keys, foreground, side_work};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::{Failure, daemon_words},
    stream::{self, DetachKeys, Framing, Joined, Resized, Signals},
    terminal::{self, RawMode},
};

pub static START: Command = Command {
    name: "start",
    aliases: &[],
    spellings: &["container start", "start"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    flags: &[&[
        flag("attach", Bool, "Attach STDOUT/STDERR and forward signals").s('a'),
        flag("checkpoint", Text, "Restore from this checkpoint").hidden(),
        flag("checkpoint-dir", Text, "Use another directory of checkpoints").hidden(),
        flag("detach-keys", Text, "Key sequence that detaches from the container"),
        flag("interactive", Bool, "Attach the container's STDIN").s('i'),
    ]],
    arity: Arity::AtLeast(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(start(session, matches)),
};

pub static ATTACH: Command = Command {
    name: "attach",
    aliases: &[],
    spellings: &["container attach", "attach"],
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    flags: &[&[
        flag("detach-keys", Text, "Key sequence that detaches from the container"),
        flag("no-stdin", Bool, "Do not attach STDIN"),
        flag("sig-proxy", Bool, "Hand all received signals on to the process").or("true"),
    ]],
    arity: Arity::Exactly(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(attach(session, matches)),
};

async fn start(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    if matches.given("checkpoint") {
        return Err(Failure::new("checkpoints are not supported"));
    }
    if matches.on("attach") || matches.on("interactive") {
        let [name] = &matches.args[..] else {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        };
        return start_attached(session, matches, client, name).await;
    }
    let mut failed = Vec::new();
    for name in &matches.args {
        match client.post(&format!("/containers/{}/start", segment(name))).send().await {
            Ok(_) => terminal::out(&format!("{name}\n")),
            Err(error) => {
                terminal::error_text(&format!("{}\n", daemon_words(&error)));
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn inspect(client: &Client, name: &str) -> Result<Inspect, Failure> {
    let path = format!("/containers/{}/json", segment(name));
    Ok(client.get(&path).send().await?.json().await?)
}

/// How to join a container that exists.
struct Join {
    stdin: bool,
    start: bool,
    proxy: bool,
}

async fn start_attached(
    session: &Session,
    matches: &Matches,
    client: &Client,
    name: &str,
) -> Outcome {
    let container = inspect(client, name).await?;
    let stdin = matches.on("interactive") && container.config.open_stdin;
    join(session, matches, client, &container, Join { stdin, start: true, proxy: true }).await
}

async fn attach(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let Some(name) = matches.args.first() else { return Ok(0) };
    let container = inspect(client, name).await?;
    let state = &container.state;
    for (bad, words) in [
        (!state.running, "You cannot attach to a stopped container, start it first"),
        (state.paused, "You cannot attach to a paused container, unpause it first"),
        (state.restarting, "You cannot attach to a restarting container, wait until it is running"),
    ] {
        if bad {
            return Err(Failure::new(words));
        }
    }
    let stdin = !matches.on("no-stdin") && container.config.open_stdin;
    if stdin && container.config.tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let proxy = matches.on("sig-proxy");
    join(session, matches, client, &container, Join { stdin, start: false, proxy }).await
}

async fn join(
    session: &Session,
    matches: &Matches,
    client: &Client,
    container: &Inspect,
    how: Join,
) -> Outcome {
    let (id, tty) = (container.id.as_str(), container.config.tty);
    let signals = (how.proxy && !tty).then(Signals::catch);
    let keys = detach_keys(session, matches);
    let mut attach = client
        .post(&format!("/containers/{id}/attach"))
        .flag("stream", true)
        .flag("stdin", how.stdin)
        .flag("stdout", true)
        .flag("stderr", true);
    if !keys.is_empty() {
        attach = attach.query("detachKeys", &keys);
    }
    let condition = match (how.start, container.host_config.auto_remove) {
        (true, true) => "removed",
        (true, false) => "next-exit",
        (false, _) => "not-running",
    };
    let wait = client.post(&format!("/containers/{id}/wait")).query("condition", condition).send();
    let (connection, wait) = tokio::join!(attach.hijack(), wait);
    let (connection, wait) = (connection?, wait?);
    if how.start {
        client.post(&format!("/containers/{id}/start")).send().await?;
    }
    let joined = Joined {
        stdin: how.stdin,
        framing: if tty { Framing::Raw } else { Framing::Multiplexed },
        keys: DetachKeys::parse(&keys),
    };
    let raw = if tty && how.stdin { RawMode::enter() } else { None };
    let target = Resized::Container(id.to_owned());
    if tty && !how.start {
        stream::redraw(client, &target).await;
    }
    let on_detach = if how.start { Ok(0) } else { Err(Failure::new("read escape sequence")) };
    let side = side_work(client, target, tty, signals, id);
    let status = tokio::select! {
        status = foreground(stream::join(connection, joined), wait, on_detach) => status,
        status = side => Ok(status),
    };
    drop(raw);
    status
}
