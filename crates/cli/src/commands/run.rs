//! `run` and `create`.
//!
//! The order of requests is Docker's own: create (on 404: pull, once more), attach, wait, start.
//! Attach and wait are both sent before start, so that no output and no exit is missed; they go
//! out together.

use std::{fs, io::Write as _, path::Path};

use api::{
    client::{Client, Response, segment},
    container::{CreateRequest, CreateResponse, WaitResponse},
};

use super::transfer;
use crate::{
    args::{Arity, Command, Matches, Order, Outcome},
    context::Session,
    create::{files::reason, flags, request},
    failure::Failure,
    outcome::{exit_status, start_failure},
    render::pull,
    stream::{self, DetachKeys, Ending, Framing, Joined, Resized, Signals},
    terminal::{self, Output, RawMode},
};

const MAKE: Command = Command {
    name: "create",
    aliases: &[],
    spellings: &["container create", "create"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    flags: &[flags::CONTAINER, flags::IMAGE, flags::CREATE],
    arity: Arity::AtLeast(1),
    order: Order::OptionsFirst,
    run: |session, matches| Box::pin(create(session, matches)),
};
pub static CREATE: Command = MAKE;
pub static RUN: Command = Command {
    name: "run",
    spellings: &["container run", "run"],
    about: "Create and run a new container from an image",
    flags: &[flags::CONTAINER, flags::IMAGE, flags::RUN],
    run: |session, matches| Box::pin(run(session, matches)),
    ..MAKE
};

/// The version from which on a MAC address belongs to an endpoint.
const ENDPOINT_MAC: api::version::ApiVersion = api::version::v(44);
/// The version from which on `--kernel-memory` is no longer sent.
const KERNEL_MEMORY_GONE: api::version::ApiVersion = api::version::v(42);

fn wrong(text: String) -> Failure {
    Failure::Said { text, status: 125 }
}

/// When to pull before making the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PullPolicy {
    Always,
    Missing,
    Never,
}

fn pull_policy(text: &str) -> Result<PullPolicy, Failure> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" | "" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err(wrong(format!(
            "invalid pull option: '{text}': must be one of \"always\", \"missing\" or \"never\""
        ))),
    }
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    check_windows_only(matches)?;
    let policy = pull_policy(matches.text("pull"))?;
    let mut request = request::build(matches).map_err(wrong)?;
    prepare(session, matches, &mut request);
    let id = make(session, matches, &request, policy).await?;
    terminal::out(&format!("{id}\n"));
    Ok(0)
}

/// Options that only a daemon on Windows has.
fn check_windows_only(matches: &Matches) -> Result<(), Failure> {
    let given: Vec<String> = ["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"]
        .iter()
        .filter(|name| matches.given(name))
        .map(|name| {
            format!("\"--{name}\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux")
        })
        .collect();
    if given.is_empty() { Ok(()) } else { Err(Failure::new(given.join("\n"))) }
}

/// What depends on where we run: the terminal's size, the engine's own socket.
fn prepare(session: &Session, matches: &Matches, request: &mut CreateRequest) {
    let Some(host) = &mut request.host_config else { return };
    if matches.on("tty")
        && let Some((rows, columns)) = terminal::size()
    {
        host.console_size = [u64::from(rows), u64::from(columns)];
    }
    if matches.on("use-api-socket")
        && let api::client::Host::Unix(socket) = session.host()
    {
        host.mounts.get_or_insert_default().push(api::container::Mount {
            kind: "bind".to_owned(),
            source: socket.to_string_lossy().into_owned(),
            target: "/var/run/docker.sock".to_owned(),
            bind_options: Some(api::container::BindOptions::default()),
            ..api::container::Mount::default()
        });
    }
    for server in host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()) {
            terminal::error_text(&format!(
                "WARNING: Localhost DNS ({server}) may fail in containers.\n"
            ));
        }
    }
}

/// The file that `--cidfile` names, taken before the container exists.
struct IdFile<'a> {
    path: &'a str,
    file: Option<fs::File>,
}

impl<'a> IdFile<'a> {
    fn take(path: &'a str) -> Result<IdFile<'a>, Failure> {
        if path.is_empty() {
            return Ok(IdFile { path, file: None });
        }
        if Path::new(path).exists() {
            return Err(Failure::new(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        let file = fs::File::create(path).map_err(|error| {
            Failure::new(format!(
                "failed to create the container ID file: open {path}: {}",
                reason(&error)
            ))
        })?;
        Ok(IdFile { path, file: Some(file) })
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes()).map_err(|error| {
            Failure::new(format!(
                "failed to write the container ID ({id}) to file: write {}: {}",
                self.path,
                reason(&error)
            ))
        })
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Nothing was made, so nothing may claim so; a failure to remove changes no outcome.
            let _ = fs::remove_file(self.path);
        }
    }
}

/// An image is named by a reference or by its ID.
fn check_reference(image: &str) -> Result<(), Failure> {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    let is_id = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        return Ok(());
    }
    match spec::reference::Reference::parse(image) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// `os[/arch[/variant]]`.
///
/// Source of the words: containerd `platforms`.
fn check_platform(platform: &str) -> Result<(), Failure> {
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    if platform.is_empty() {
        return Ok(());
    }
    let why = if platform.split('/').count() > 3 {
        "cannot parse platform specifier"
    } else if !platform.split('/').all(part) {
        "invalid platform component"
    } else {
        return Ok(());
    };
    Err(Failure::new(format!(
        "error parsing specified platform: {platform:?}: {why}: invalid argument"
    )))
}

/// Creates the container, pulling its image when the policy says so.
async fn make(
    session: &Session,
    matches: &Matches,
    request: &CreateRequest,
    policy: PullPolicy,
) -> Result<String, Failure> {
    let id_file = IdFile::take(matches.text("cidfile"))?;
    let client = session.client().await?;
    let (image, platform) = (&request.config.image, matches.text("platform"));
    check_platform(platform)?;
    check_reference(image)?;
    let quiet = matches.on("quiet");
    if policy == PullPolicy::Always {
        fetch(session, image, platform, quiet).await?;
    }
    let mut request = request.clone();
    if client.version() < ENDPOINT_MAC {
        request.config.mac_address = matches.text("mac-address").to_owned();
    }
    if let Some(host) = &mut request.host_config
        && client.version() >= KERNEL_MEMORY_GONE
    {
        host.kernel_memory = 0;
    }
    let create = || {
        let mut post = client.post("/containers/create");
        for (name, value) in [("name", matches.text("name")), ("platform", platform)] {
            if !value.is_empty() {
                post = post.query(name, value);
            }
        }
        post.json(&request).send()
    };
    let answer = match create().await {
        Err(error) if error.is_not_found() && policy == PullPolicy::Missing => {
            let Ok(reference) = spec::reference::Reference::parse(image) else {
                return Err(error.into());
            };
            if !quiet {
                terminal::error_text(&format!(
                    "Unable to find image '{}' locally\n",
                    reference.familiar()
                ));
            }
            fetch(session, image, platform, quiet).await?;
            create().await?
        }
        other => other?,
    };
    let made: CreateResponse = answer.json().await?;
    for warning in &made.warnings {
        terminal::error_text(&format!("WARNING: {warning}\n"));
    }
    id_file.write(&made.id)?;
    Ok(made.id)
}

async fn fetch(session: &Session, image: &str, platform: &str, quiet: bool) -> Result<(), Failure> {
    let response = transfer::start_pull(session, image, platform).await?;
    if quiet {
        return pull::discard(response).await;
    }
    pull::show(response, Output::Stderr, |_| ()).await
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    check_windows_only(matches)?;
    let policy = pull_policy(matches.text("pull"))?;
    let mut request = request::build(matches).map_err(wrong)?;
    let detach = matches.on("detach");
    let tty = request.config.tty;
    if detach {
        if matches.given("attach") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --attach and --detach",
            ));
        }
        let config = &mut request.config;
        (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
        config.stdin_once = false;
    } else if request.config.attach_stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    prepare(session, matches, &mut request);
    let signals = (!detach && matches.on("sig-proxy")).then(Signals::catch);
    let id = make(session, matches, &request, policy)
        .await
        .map_err(|failure| start_failure(&session.program, &matches.path, failure))?;
    let client = session.client().await?;
    if detach {
        let started = start(client, &id).await;
        terminal::out(&format!("{id}\n"));
        return match started {
            Ok(()) => Ok(0),
            Err(failure) => Err(start_failure(&session.program, &matches.path, failure)),
        };
    }
    let run = Foreground { session, matches, request: &request, id: &id };
    run.go(client, signals).await
}

async fn start(client: &Client, id: &str) -> Result<(), Failure> {
    client.post(&format!("/containers/{}/start", segment(id))).send().await?;
    Ok(())
}

/// A container that this process stays joined to.
struct Foreground<'a> {
    session: &'a Session,
    matches: &'a Matches,
    request: &'a CreateRequest,
    id: &'a str,
}

impl Foreground<'_> {
    async fn go(&self, client: &Client, signals: Option<Signals>) -> Outcome {
        let config = &self.request.config;
        let auto_remove = self.request.host_config.as_ref().is_some_and(|host| host.auto_remove);
        let condition = if auto_remove { "removed" } else { "next-exit" };
        let keys = detach_keys(self.session, self.matches);
        let mut attach = client
            .post(&format!("/containers/{}/attach", segment(self.id)))
            .flag("stream", true)
            .flag("stdin", config.attach_stdin)
            .flag("stdout", config.attach_stdout)
            .flag("stderr", config.attach_stderr);
        if !keys.is_empty() {
            attach = attach.query("detachKeys", &keys);
        }
        let wait = client
            .post(&format!("/containers/{}/wait", segment(self.id)))
            .query("condition", condition)
            .send();
        let (connection, wait) = tokio::join!(attach.hijack(), wait);
        let fail = |failure| start_failure(&self.session.program, &self.matches.path, failure);
        let connection = connection.map_err(|error| fail(error.into()))?;
        let wait = wait.map_err(|error| fail(error.into()))?;
        if let Err(failure) = start(client, self.id).await {
            if auto_remove {
                // The daemon removes it; whoever looks next must not find it.
                let _ = wait.json::<WaitResponse>().await;
            }
            return Err(fail(failure));
        }
        let joined = Joined {
            stdin: config.attach_stdin,
            framing: if config.tty { Framing::Raw } else { Framing::Multiplexed },
            keys: DetachKeys::parse(&keys),
        };
        let raw = if config.tty && config.attach_stdin { RawMode::enter() } else { None };
        let side =
            side_work(client, Resized::Container(self.id.to_owned()), config.tty, signals, self.id);
        let status = tokio::select! {
            status = foreground(stream::join(connection, joined), wait, Ok(0)) => status,
            status = side => Ok(status),
        };
        drop(raw);
        status
    }
}

/// What goes on beside the copying: sizes and signals. Ends only when a signal ends us.
pub async fn side_work(
    client: &Client,
    target: Resized,
    tty: bool,
    signals: Option<Signals>,
    id: &str,
) -> u8 {
    let sizes = async {
        if tty {
            stream::follow_size(client, target).await;
        }
        std::future::pending().await
    };
    let proxying = async {
        match signals {
            Some(signals) => signals.proxy(client, id, tty).await,
            // Unhandled signals end us as ever, but the terminal must be put back first.
            None if tty => return stream::deadly_signal().await,
            None => {}
        }
        std::future::pending().await
    };
    tokio::select! {
        status = sizes => status,
        status = proxying => status,
    }
}

/// Copies to the end, then takes the status from the wait that was begun before.
pub async fn foreground(
    copying: impl Future<Output = Result<Ending, Failure>>,
    wait: Response,
    on_detach: Outcome,
) -> Outcome {
    match copying.await? {
        Ending::Closed => {}
        Ending::Detached => return on_detach,
    }
    let done: WaitResponse = wait.json().await?;
    match done.error {
        Some(error) if !error.message.is_empty() => {
            Err(Failure::Said { text: error.message, status: 125 })
        }
        Some(_) | None => Ok(exit_status(done.status_code)),
    }
}

/// The keys that detach: the flag's, else the config file's, else the daemon's own.
pub fn detach_keys(session: &Session, matches: &Matches) -> String {
    matches
        .find("detach-keys")
        .map(str::to_owned)
        .or_else(|| session.config.detach_keys.clone())
        .unwrap_or_default()
}
