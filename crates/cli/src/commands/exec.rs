//! `exec`: another command in a running container.

use api::{
    client::{Client, segment},
    exec::{CreateRequest, CreateResponse, Inspect, StartRequest},
};

use super::run::{detach_keys, side_work};
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files,
    failure::Failure,
    outcome::exit_status,
    stream::{self, DetachKeys, Ending, Framing, Joined, Resized},
    terminal::{self, RawMode},
};

const FLAGS: &[Flag] = &[
    flag("detach", Bool, "Detached mode: run the command in the background").s('d'),
    flag("detach-keys", Text, "Key sequence that detaches from the container"),
    flag("env", Env, "Set environment variables").s('e'),
    flag("env-file", List, "Read environment variables from a file"),
    flag("interactive", Bool, "Keep STDIN open even if not attached").s('i'),
    flag("privileged", Bool, "Give extended privileges to the command"),
    flag("tty", Bool, "Allocate a pseudo-TTY").s('t'),
    flag("user", Text, "Username or UID (format: \"<name|uid>[:<group|gid>]\")").s('u'),
    flag("workdir", Text, "Working directory inside the container").s('w'),
];

pub static EXEC: Command = Command {
    name: "exec",
    aliases: &[],
    spellings: &["container exec", "exec"],
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    flags: &[FLAGS],
    arity: Arity::AtLeast(2),
    order: Order::OptionsFirst,
    run: |session, matches| Box::pin(exec(session, matches)),
};

/// What ended first.
enum Ended {
    Stream(Ending),
    Signal(u8),
}

async fn exec(session: &Session, matches: &Matches) -> Outcome {
    let [name, command @ ..] = &matches.args[..] else { return Ok(0) };
    let (detach, tty) = (matches.on("detach"), matches.on("tty"));
    let interactive = matches.on("interactive") && !detach;
    if interactive && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let size = (tty && !detach)
        .then(terminal::size)
        .flatten()
        .map(|(rows, columns)| [u64::from(rows), u64::from(columns)]);
    let keys = detach_keys(session, matches);
    let request = CreateRequest {
        user: matches.text("user").to_owned(),
        privileged: matches.on("privileged"),
        tty,
        console_size: size,
        attach_stdin: interactive,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach,
        detach_keys: keys.clone(),
        env: Some(files::environment(matches.all("env-file"), matches.all("env"))?),
        working_dir: matches.text("workdir").to_owned(),
        cmd: command.to_vec().into(),
    };
    let client = session.client().await?;
    let path = format!("/containers/{}/exec", segment(name));
    let made: CreateResponse = client.post(&path).json(&request).send().await?.json().await?;
    if made.id.is_empty() {
        return Err(Failure::new("exec ID empty"));
    }
    let start = client.post(&format!("/exec/{}/start", segment(&made.id))).json(&StartRequest {
        detach,
        tty,
        console_size: size,
    });
    if detach {
        start.send().await?;
        return Ok(0);
    }
    let connection = start.hijack().await?;
    let joined = Joined {
        stdin: interactive,
        framing: if tty { Framing::Raw } else { Framing::Multiplexed },
        keys: DetachKeys::parse(&keys),
    };
    let raw = if tty && interactive { RawMode::enter() } else { None };
    let side = side_work(client, Resized::Exec(made.id.clone()), tty, None, "");
    let ended = tokio::select! {
        done = stream::join(connection, joined) => done.map(Ended::Stream),
        status = side => Ok(Ended::Signal(status)),
    };
    drop(raw);
    match ended? {
        Ended::Signal(status) => Ok(status),
        Ended::Stream(Ending::Detached) => Err(Failure::new("read escape sequence")),
        Ended::Stream(Ending::Closed) => exit_code(client, &made.id).await,
    }
}

async fn exit_code(client: &Client, id: &str) -> Outcome {
    let path = format!("/exec/{}/json", segment(id));
    let state: Inspect = client.get(&path).send().await?.json().await?;
    Ok(exit_status(state.exit_code.unwrap_or_default()))
}
