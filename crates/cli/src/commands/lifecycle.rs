//! What changes a container's life: stop, restart, kill, pause, unpause, rename, rm, wait.

use api::{client::segment, container::WaitResponse};

use super::{each, finish};
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::{Failure, daemon_words},
    terminal,
};

const STOP_FLAGS: &[Flag] = &[
    flag("signal", Text, "Signal to send to the container").s('s'),
    flag("time", Int, "Seconds to wait before the container is killed").same_as("timeout"),
    flag("timeout", Int, "Seconds to wait before the container is killed").s('t'),
];

const BASE: Command = Command {
    name: "",
    aliases: &[],
    spellings: &[],
    usage: "CONTAINER [CONTAINER...]",
    about: "",
    flags: &[],
    arity: Arity::AtLeast(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(simple(session, matches, "pause")),
};

pub static STOP: Command = Command {
    name: "stop",
    spellings: &["container stop", "stop"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    flags: &[STOP_FLAGS],
    run: |session, matches| Box::pin(stop(session, matches, "stop")),
    ..BASE
};

pub static RESTART: Command = Command {
    name: "restart",
    spellings: &["container restart", "restart"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    flags: &[STOP_FLAGS],
    run: |session, matches| Box::pin(stop(session, matches, "restart")),
    ..BASE
};

pub static KILL: Command = Command {
    name: "kill",
    spellings: &["container kill", "kill"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    flags: &[&[flag("signal", Text, "Signal to send to the container").s('s')]],
    run: |session, matches| Box::pin(kill(session, matches)),
    ..BASE
};

pub static PAUSE: Command = Command {
    name: "pause",
    spellings: &["container pause", "pause"],
    about: "Pause all processes within one or more containers",
    run: |session, matches| Box::pin(simple(session, matches, "pause")),
    ..BASE
};

pub static UNPAUSE: Command = Command {
    name: "unpause",
    spellings: &["container unpause", "unpause"],
    about: "Let all processes within one or more containers go on",
    run: |session, matches| Box::pin(simple(session, matches, "unpause")),
    ..BASE
};

pub static RENAME: Command = Command {
    name: "rename",
    spellings: &["container rename", "rename"],
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(rename(session, matches)),
    ..BASE
};

pub static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    spellings: &["container rm", "container remove", "rm"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    flags: &[&[
        flag("force", Bool, "Remove it even when it runs (uses SIGKILL)").s('f'),
        flag("link", Bool, "Remove the link named").s('l'),
        flag("volumes", Bool, "Remove the container's anonymous volumes").s('v'),
    ]],
    run: |session, matches| Box::pin(rm(session, matches)),
    ..BASE
};

pub static WAIT: Command = Command {
    name: "wait",
    spellings: &["container wait", "wait"],
    about: "Wait until one or more containers stop, then print their exit codes",
    run: |session, matches| Box::pin(wait(session, matches)),
    ..BASE
};

async fn stop(session: &Session, matches: &Matches, verb: &'static str) -> Outcome {
    let timeout = matches.find("timeout").map(str::to_owned);
    let signal = matches.find("signal").filter(|signal| !signal.is_empty()).map(str::to_owned);
    each(session, &matches.args, |client, name| {
        let (timeout, signal) = (timeout.clone(), signal.clone());
        async move {
            let mut request = client.post(&format!("/containers/{}/{verb}", segment(&name)));
            if let Some(timeout) = timeout {
                request = request.query("t", timeout);
            }
            if let Some(signal) = signal {
                request = request.query("signal", signal);
            }
            request.send().await.map(drop)
        }
    })
    .await
}

async fn kill(session: &Session, matches: &Matches) -> Outcome {
    let signal = matches.text("signal").to_owned();
    each(session, &matches.args, |client, name| {
        let signal = signal.clone();
        async move {
            let mut request = client.post(&format!("/containers/{}/kill", segment(&name)));
            if !signal.is_empty() {
                request = request.query("signal", signal);
            }
            request.send().await.map(drop)
        }
    })
    .await
}

async fn simple(session: &Session, matches: &Matches, verb: &'static str) -> Outcome {
    each(session, &matches.args, |client, name| async move {
        client.post(&format!("/containers/{}/{verb}", segment(&name))).send().await.map(drop)
    })
    .await
}

async fn rename(session: &Session, matches: &Matches) -> Outcome {
    let [old, new] = &matches.args[..] else { return Ok(0) };
    let (old, new) = (old.trim(), new.trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    session
        .client()
        .await?
        .post(&format!("/containers/{}/rename", segment(old)))
        .query("name", new)
        .send()
        .await
        .map_err(|error| {
            let words = daemon_words(&error);
            Failure::new(format!("{words}\nError: failed to rename container named {old}"))
        })?;
    Ok(0)
}

async fn rm(session: &Session, matches: &Matches) -> Outcome {
    let (force, link, volumes) = (matches.on("force"), matches.on("link"), matches.on("volumes"));
    each(session, &matches.args, |client, name| async move {
        let name = name.trim_matches('/').to_owned();
        let gone = client
            .delete(&format!("/containers/{}", segment(&name)))
            .flag("force", force)
            .flag("link", link)
            .flag("v", volumes)
            .send()
            .await;
        match gone {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    })
    .await
    .or_else(|failure| if force { only_missing(failure) } else { Err(failure) })
}

/// With `--force` a container that is not there is told of, but is no failure.
fn only_missing(failure: Failure) -> Outcome {
    match &failure {
        Failure::Said { text, .. }
            if text.lines().all(|line| line.contains("No such container")) =>
        {
            terminal::error_text(&format!("{text}\n"));
            Ok(0)
        }
        Failure::Said { .. } | Failure::Daemon(_) => Err(failure),
    }
}

async fn wait(session: &Session, matches: &Matches) -> Outcome {
    let client = session.client().await?;
    let mut errors = Vec::new();
    for name in &matches.args {
        let answer = async {
            let path = format!("/containers/{}/wait", segment(name));
            client.post(&path).send().await?.json::<WaitResponse>().await
        };
        match answer.await {
            Ok(WaitResponse { error: Some(error), .. }) if !error.message.is_empty() => {
                errors.push(error.message);
            }
            Ok(done) => terminal::out(&format!("{}\n", done.status_code)),
            Err(error) => errors.push(daemon_words(&error)),
        }
    }
    finish(errors)
}
