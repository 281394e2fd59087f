//! `build`: an image of a Dockerfile.
//!
//! The context goes up while the answer comes down. Tug's daemon sends a trace, drawn in
//! BuildKit's style; any other sends the classic builder's text, shown as it comes.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{
    client::{Body, Request, Response},
    container::Ulimit,
    image::BuildResult,
    progress::Message,
    trace::{self, Trace},
};
use serde_json::json;

use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, check, flag},
    build::{
        board::{Board, failure_report},
        context::{self, Compression, Context, Source},
        extras,
        output::{self, Output},
        plain::Plain,
        tty::{Phase, Tty},
    },
    context::Session,
    create::{files, limits, sizes},
    failure::Failure,
    terminal,
};

const FLAGS: &[Flag] = &[
    flag("add-host", ExtraHost, "Add a host-to-IP line to hosts files (\"host:ip\")"),
    flag("allow", Strings, "Let RUN steps ask for more (\"network.host\", \"security.insecure\")"),
    flag("build-arg", List, "Set build-time variables"),
    flag("build-context", List, "Further contexts (e.g., name=path)"),
    flag("cache-from", Strings, "Images to take as cache sources"),
    flag("cgroup-parent", Text, "Cgroup to put RUN's own under"),
    flag("compress", Bool, "Compress the build context"),
    flag("cpu-period", Int, "Period of the CPU scheduler's (CFS) quota"),
    flag("cpu-quota", Int, "Quota of the CPU scheduler (CFS)"),
    flag("cpu-shares", Int, "CPU shares (relative weight)").s('c'),
    flag("cpuset-cpus", Text, "CPUs that may be used (0-3, 0,1)"),
    flag("cpuset-mems", Text, "Memory nodes that may be used (0-3, 0,1)"),
    flag("disable-content-trust", Bool, "Skip image verification").or("true"),
    flag("file", Text, "Name of the Dockerfile (Default is \"PATH/Dockerfile\")").s('f'),
    flag("force-rm", Bool, "Always remove intermediate containers"),
    flag("iidfile", Text, "Write the image's ID to this file"),
    flag("isolation", Text, "Container isolation technology"),
    flag("label", Label, "Set metadata on the image"),
    flag("load", Bool, "Put the result into the image store (it always is)").hidden(),
    flag("memory", Bytes, "Memory limit").s('m'),
    flag("memory-swap", SwapBytes, "Limit of memory plus swap: -1 for unlimited swap"),
    flag("network", Text, "Network of RUN instructions").or("default"),
    flag("no-cache", Bool, "Do not use the cache"),
    flag("no-cache-filter", Strings, "Do not use the cache for these stages"),
    flag("output", List, "Where the result goes (format: \"type=local,dest=path\")").s('o'),
    flag("platform", Text, "Platform of the result, where the server has several"),
    flag(
        "progress",
        Text,
        "Form of progress (\"auto\", \"plain\", \"tty\", \"quiet\", \"rawjson\")",
    )
    .or("auto"),
    flag("pull", Bool, "Always look for newer base images"),
    flag("push", Bool, "Push the result to its registry"),
    flag("quiet", Bool, "Show nothing but the image's ID when it is done").s('q'),
    flag("rm", Bool, "Remove intermediate containers after success").or("true"),
    flag("secret", List, "Secrets of RUN steps (format: \"id=mysecret[,src=/local/secret]\")"),
    flag("security-opt", Strings, "Security options"),
    flag("shm-size", Bytes, "Size of /dev/shm"),
    flag("ssh", List, "Agents of RUN steps (format: \"default|<id>[=<socket>]\")"),
    flag("squash", Bool, "Make one layer of all new ones").hidden(),
    flag("tag", Reference, "Name and tag of the result (format: \"name:tag\")").s('t'),
    flag("target", Text, "Stage to build"),
    flag("ulimit", Ulimit, "Ulimit options").or("[]"),
];

pub static BUILD: Command = Command {
    name: "build",
    aliases: &["b"],
    spellings: &["image build", "build", "builder build"],
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image from a Dockerfile",
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(build(session, matches)),
};

pub static BUILDX_VERSION: Command = Command {
    name: "version",
    aliases: &[],
    spellings: &[],
    usage: "",
    about: "Show the builder's version",
    flags: &[],
    arity: Arity::None,
    order: Order::Mixed,
    run: |_, _| {
        Box::pin(async {
            terminal::out(&format!("tug builder {}\n", env!("CARGO_PKG_VERSION")));
            Ok(0)
        })
    },
};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Tty,
    Plain,
    Quiet,
    RawJson,
}

fn style(matches: &Matches) -> Result<Style, Failure> {
    if matches.on("quiet") {
        return Ok(Style::Quiet);
    }
    let environment = std::env::var("BUILDKIT_PROGRESS").ok();
    let asked = match (matches.find("progress"), environment.as_deref()) {
        (Some(asked), _) | (None, Some(asked)) => asked,
        (None, None) => "auto",
    };
    match asked {
        "" | "auto" if terminal::stderr_is_terminal() => Ok(Style::Tty),
        "" | "auto" | "plain" => Ok(Style::Plain),
        "tty" => Ok(Style::Tty),
        "quiet" | "none" => Ok(Style::Quiet),
        "rawjson" => Ok(Style::RawJson),
        _ => Err(Failure::new(format!("invalid progress mode {asked}"))),
    }
}

/// What goes along with the context, read before anything is sent.
struct Given {
    places: BTreeMap<String, String>,
    contexts_directory: String,
    secrets: Option<String>,
    agents: BTreeMap<String, std::path::PathBuf>,
    outputs: Vec<Output>,
}

impl Given {
    /// Whether only Tug's own builder can do it.
    fn is_more(&self, matches: &Matches) -> bool {
        !self.places.is_empty()
            || self.secrets.is_some()
            || !self.agents.is_empty()
            || !matches.all("allow").is_empty()
            || !matches.all("no-cache-filter").is_empty()
    }

    /// Those that `--output type=image` gives.
    fn names(&self) -> Vec<String> {
        let names = |output: &Output| match output {
            Output::Image { names, .. } => names.clone(),
            Output::Local(_) | Output::Tar(_) | Output::Archive(_) | Output::Nothing => Vec::new(),
        };
        self.outputs.iter().flat_map(names).collect()
    }

    fn keeps_image(&self) -> bool {
        self.outputs.is_empty() || self.outputs.iter().any(Output::keeps_image)
    }
}

fn given(matches: &Matches) -> Result<(Given, context::Named), Failure> {
    let contexts = extras::contexts(matches.all("build-context"))?;
    let mut outputs = Vec::new();
    for value in matches.all("output") {
        outputs.push(Output::parse(value)?);
    }
    if matches.on("push") {
        outputs.push(Output::Image { names: Vec::new(), push: true });
    }
    let secrets = matches.all("secret");
    let given = Given {
        places: contexts.places,
        contexts_directory: contexts.named.directory.clone(),
        secrets: (!secrets.is_empty()).then(|| extras::secrets(secrets)).transpose()?,
        agents: extras::agents(matches.all("ssh"))?,
        outputs,
    };
    Ok((given, contexts.named))
}

async fn build(session: &Session, matches: &Matches) -> Outcome {
    let style = style(matches)?;
    let Some(path) = matches.args.first() else { return Ok(0) };
    let (given, named) = given(matches)?;
    let context = context::prepare(path, matches.text("file"), named)?;
    let client = session.client().await?;
    let is_tug = is_tug(client).await?;
    if given.is_more(matches) && !is_tug {
        let text =
            "secrets, agents, named contexts, --allow and --no-cache-filter need Tug's daemon";
        return Err(Failure::new(text));
    }
    let traced = is_tug;
    let names: Vec<String> = given.names();
    let mut request = parameters(client.post("/build"), session, matches, &context, &names)?;
    if traced {
        request = request.query("version", trace::VERSION);
        request = more(request, matches, &given);
    }
    request = request
        .flag("q", style == Style::Quiet && !traced)
        .header("x-registry-config", &session.config.all_auths());
    let (response, sending) = send(request, context, matches.on("compress")).await;
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            // What could not be read explains a request that broke off.
            if let Some(sending) = sending {
                sending.await.map_err(|error| Failure::new(error.to_string()))??;
            }
            return Err(error.into());
        }
    };
    let shown = show(response, style).await;
    if let Some(sending) = sending {
        match sending.await {
            Ok(Err(failure)) if shown.is_err() => return Err(failure),
            Ok(_) | Err(_) => {}
        }
    }
    let image = shown?;
    if let Some(path) = matches.find("iidfile").filter(|path| !path.is_empty()) {
        std::fs::write(path, &image)
            .map_err(|error| Failure::new(format!("open {path}: {}", files::reason(&error))))?;
    }
    deliver(session, matches, &given, &image).await
}

/// Makes what `--output` and `--push` ask for.
async fn deliver(session: &Session, matches: &Matches, given: &Given, image: &str) -> Outcome {
    let client = session.client().await?;
    for output in &given.outputs {
        output::make(client, output, image).await?;
        if let Output::Image { names, push: true } = output {
            for name in names.iter().chain(matches.all("tag")) {
                super::transfer::push_image(session, name).await?;
            }
        }
    }
    if !given.keeps_image() && matches.all("tag").is_empty() {
        // Its layers stay for the next build; whoever uses it already keeps it.
        let path = format!("/images/{image}");
        let _ = client.delete(&path).send().await;
    }
    Ok(0)
}

fn more<'a>(mut request: Request<'a>, matches: &Matches, given: &Given) -> Request<'a> {
    if let Some(secrets) = &given.secrets {
        request = request.header(trace::SECRETS_HEADER, secrets);
    }
    if !given.places.is_empty() {
        request = request.query("contexts", json!(given.places).to_string());
        request = request.query("contextsdir", &given.contexts_directory);
    }
    if !given.agents.is_empty() {
        request = request.query("ssh", json!(given.agents).to_string());
    }
    for (flag, name) in [("allow", "allow"), ("no-cache-filter", "nocachefilter")] {
        for value in matches.all(flag) {
            request = request.query(name, value);
        }
    }
    request
}

async fn is_tug(client: &api::client::Client) -> Result<bool, Failure> {
    let answer = client.get("/_ping").unversioned().send().await?;
    Ok(answer.header("server").is_some_and(|server| server.to_ascii_lowercase().starts_with("tug")))
}

type Sending = tokio::task::JoinHandle<Result<(), Failure>>;

async fn send(
    request: Request<'_>,
    context: Context,
    compress: bool,
) -> (Result<Response, api::client::Error>, Option<Sending>) {
    if let Source::Remote(_) = context.source {
        return (request.send().await, None);
    }
    let (sender, body) = Body::channel();
    let compression = if compress { Compression::Gzip } else { Compression::None };
    let sending =
        tokio::task::spawn_blocking(move || context::send(&context.source, compression, sender));
    (request.body("application/x-tar", body).send().await, Some(sending))
}

fn parameters<'a>(
    mut request: Request<'a>,
    session: &Session,
    matches: &Matches,
    context: &Context,
    names: &[String],
) -> Result<Request<'a>, Failure> {
    for tag in matches.all("tag").iter().chain(names) {
        request = request.query("t", tag);
    }
    if let Source::Remote(url) = &context.source {
        request = request.query("remote", url);
    }
    let bytes = |name: &str| {
        matches.find(name).and_then(|text| sizes::swap_in_bytes(text).ok()).map(|n| n.to_string())
    };
    let number = |name: &str| matches.find(name).map(str::to_owned);
    let text = |name: &str| matches.find(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let dockerfile = (!context.dockerfile.is_empty()).then(|| context.dockerfile.clone());
    for (name, value) in [
        ("dockerfile", dockerfile),
        ("memory", bytes("memory")),
        ("memswap", bytes("memory-swap")),
        ("shmsize", bytes("shm-size")),
        ("cpuperiod", number("cpu-period")),
        ("cpuquota", number("cpu-quota")),
        ("cpushares", number("cpu-shares")),
        ("cpusetcpus", text("cpuset-cpus")),
        ("cpusetmems", text("cpuset-mems")),
        ("cgroupparent", text("cgroup-parent")),
        ("networkmode", text("network")),
        ("target", text("target")),
        ("platform", text("platform")),
        ("isolation", text("isolation")),
    ] {
        if let Some(value) = value {
            request = request.query(name, value);
        }
    }
    request = request
        .flag("nocache", matches.on("no-cache"))
        .flag("pull", matches.on("pull"))
        .flag("squash", matches.on("squash"))
        .flag("forcerm", matches.on("force-rm"))
        .query("rm", if matches.on("rm") { "1" } else { "0" });
    for (name, value) in lists(session, matches)? {
        request = request.query(name, value);
    }
    Ok(request)
}

/// The parameters that are JSON.
fn lists(session: &Session, matches: &Matches) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut found = Vec::new();
    let mut arguments: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (name, value) in session.config.proxies(&session.host().to_string()) {
        arguments.insert(name, Some(value));
    }
    for argument in matches.all("build-arg") {
        match argument.split_once('=') {
            Some((name, value)) => {
                arguments.insert(name.to_owned(), Some(value.to_owned()));
            }
            // A name alone takes our own value; without one the Dockerfile's default stays.
            None => {
                arguments.insert(argument.clone(), std::env::var(argument).ok());
            }
        }
    }
    if !arguments.is_empty() {
        found.push(("buildargs", json!(arguments).to_string()));
    }
    let labels = files::pairs(matches.all("label"));
    if !labels.is_empty() {
        found.push(("labels", json!(labels).to_string()));
    }
    let mut ulimits = Vec::new();
    for value in matches.all("ulimit") {
        let one = limits::ulimit(value)?;
        ulimits.push(Ulimit { name: one.name, soft: one.soft, hard: one.hard });
    }
    if !ulimits.is_empty() {
        found.push(("ulimits", json!(ulimits).to_string()));
    }
    if !matches.all("cache-from").is_empty() {
        found.push(("cachefrom", json!(matches.all("cache-from")).to_string()));
    }
    for value in matches.all("security-opt") {
        found.push(("securityopt", value.clone()));
    }
    for value in matches.all("add-host") {
        found.push(("extrahosts", check::extra_host(value)?));
    }
    Ok(found)
}

/// Shows the stream to its end; the image's ID.
async fn show(mut response: Response, style: Style) -> Result<String, Failure> {
    let mut view = View::new(style);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let outcome = {
        let mut messages = std::pin::pin!(forward(&mut response, &sender));
        loop {
            tokio::select! {
                biased;
                Some(message) = receiver.recv() => view.take(&message)?,
                done = &mut messages => break done,
                _ = ticks.tick(), if style == Style::Tty => view.tick(),
            }
        }
    };
    while let Ok(message) = receiver.try_recv() {
        view.take(&message)?;
    }
    view.finish(outcome)
}

/// Passes messages on, so that a redraw may happen between two without losing half of one.
async fn forward(
    response: &mut Response,
    sender: &tokio::sync::mpsc::UnboundedSender<Message>,
) -> Result<(), Failure> {
    while let Some(message) = response.next_json::<Message>().await? {
        if let Some(error) = &message.error_detail {
            return Err(Failure::Said {
                text: error.message.clone(),
                status: u8::try_from(error.code).ok().filter(|code| *code != 0).unwrap_or(1),
            });
        }
        if !message.error.is_empty() {
            return Err(Failure::new(message.error));
        }
        if sender.send(message).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

struct View {
    style: Style,
    board: Board,
    plain: Plain,
    tty: Tty,
    image: String,
    traced: bool,
}

impl View {
    fn new(style: Style) -> View {
        View {
            style,
            board: Board::default(),
            plain: Plain::default(),
            tty: Tty::default(),
            image: String::new(),
            traced: false,
        }
    }

    fn take(&mut self, message: &Message) -> Result<(), Failure> {
        if let Some(aux) = &message.aux {
            if message.id == trace::ID {
                let trace = serde_json::from_value::<Trace>(aux.clone()).map_err(|error| {
                    Failure::new(format!("cannot read the build's progress: {error}"))
                })?;
                self.trace(&trace, aux);
            } else if let Ok(result) = serde_json::from_value::<BuildResult>(aux.clone())
                && !result.id.is_empty()
            {
                self.image = result.id;
            }
            return Ok(());
        }
        if self.style == Style::Quiet {
            let line = message.stream.trim();
            if line.starts_with("sha256:") {
                self.image = line.to_owned();
            }
        } else if !message.stream.is_empty() {
            terminal::out(&message.stream);
        } else if !message.status.is_empty() && message.progress_detail.is_none() {
            let id =
                if message.id.is_empty() { String::new() } else { format!("{}: ", message.id) };
            terminal::out(&format!("{id}{}\n", message.status));
        }
        Ok(())
    }

    fn trace(&mut self, trace: &Trace, raw: &serde_json::Value) {
        self.traced = true;
        if let Trace::Image { id } = trace {
            self.image = id.clone();
        }
        match self.style {
            Style::Plain => {
                let text = self.plain.draw(trace);
                terminal::error_text(&text);
            }
            Style::RawJson => terminal::error_text(&format!("{raw}\n")),
            Style::Tty | Style::Quiet => {}
        }
        self.board.apply(trace);
    }

    fn tick(&mut self) {
        if self.traced {
            self.redraw(Phase::Running);
        }
    }

    fn redraw(&mut self, phase: Phase) {
        let rows = terminal::size().map_or(24, |(rows, _)| usize::from(rows));
        // The daemon's clock may be another's; what is drawn counts on from its last time.
        let now = unix_ms().max(self.board.now_ms);
        let now = if phase == Phase::Running { now } else { self.board.now_ms };
        let text = self.tty.redraw(&self.board, phase, now, (rows, terminal::columns()));
        terminal::error_text(&text);
    }

    fn finish(mut self, outcome: Result<(), Failure>) -> Result<String, Failure> {
        let phase = if outcome.is_ok() { Phase::Finished } else { Phase::Failed };
        if self.traced && self.style == Style::Tty {
            self.redraw(phase);
        }
        match outcome {
            Ok(()) => {
                let warnings = &self.board.warnings;
                if self.style == Style::Tty && !warnings.is_empty() {
                    let plural = if warnings.len() == 1 { "" } else { "s" };
                    let list: String = warnings.iter().map(|one| format!(" - {one}\n")).collect();
                    terminal::error_text(&format!(
                        "\n {} warning{plural} found:\n{list}",
                        warnings.len()
                    ));
                }
                if self.style == Style::Quiet {
                    terminal::out(&format!("{}\n", self.image));
                }
                Ok(self.image)
            }
            Err(failure) if self.traced => {
                terminal::error_text(&failure_report(&self.board, true));
                Err(Failure::Said {
                    text: format!("ERROR: {}", failure.words().unwrap_or_default()),
                    status: failure.status(),
                })
            }
            Err(failure) => Err(failure),
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        .unwrap_or_default()
}
