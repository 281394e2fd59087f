//! `build`: an image of a Dockerfile.
//!
//! The context goes up while the answer comes down; `build::view` shows that.

use std::{collections::BTreeMap, path::Path};

use api::{
    client::{Body, Request, Response},
    container::Ulimit,
    trace,
};
use serde_json::json;

use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, check, flag},
    build::{
        context::{self, Compression, Context, Source, Unprepared},
        extras, metadata,
        output::Outputs,
        view::{self, Interrupts, Style},
        wishes,
    },
    context::Session,
    create::{files, limits, sizes},
    failure::Failure,
    terminal,
};

const FLAGS: &[Flag] = &[
    flag("add-host", ExtraHost, "Add a host-to-IP line to hosts files (\"host:ip\")"),
    flag("allow", Strings, "Let RUN steps ask for more (\"network.host\", \"security.insecure\")"),
    flag("annotation", List, "Add an annotation to the image (not supported yet)"),
    flag("attest", List, "Attestations (format: \"type=sbom,disabled=true\"; none is made yet)"),
    flag("build-arg", List, "Set build-time variables"),
    flag("build-context", List, "Further contexts (e.g., name=path)"),
    flag("builder", Text, "Builder to use (there is one, \"default\")"),
    flag("cache-from", List, "Images to take as cache sources"),
    flag("cache-to", List, "Where the cache goes (not supported yet)"),
    flag("call", Text, "Method of evaluation (only \"build\")").or("build"),
    flag("cgroup-parent", Text, "Cgroup to put RUN's own under"),
    flag("check", Bool, "Look for mistakes instead of building (not supported yet)"),
    flag("compress", Bool, "Compress the build context"),
    flag("cpu-period", Int, "Period of the CPU scheduler's (CFS) quota"),
    flag("cpu-quota", Int, "Quota of the CPU scheduler (CFS)"),
    flag("cpu-shares", Int, "CPU shares (relative weight)").s('c'),
    flag("cpuset-cpus", Text, "CPUs that may be used (0-3, 0,1)"),
    flag("cpuset-mems", Text, "Memory nodes that may be used (0-3, 0,1)"),
    flag("debug", Bool, "Turn on debug mode").s('D'),
    flag("disable-content-trust", Bool, "Skip image verification").or("true"),
    flag("file", Text, "Name of the Dockerfile (Default is \"PATH/Dockerfile\")").s('f'),
    flag("force-rm", Bool, "Always remove intermediate containers"),
    flag("iidfile", Text, "Write the image's ID to this file"),
    flag("isolation", Text, "Container isolation technology"),
    flag("label", Label, "Set metadata on the image"),
    flag("load", Bool, "Put the result into the image store (it always is)"),
    flag("memory", Bytes, "Memory limit").s('m'),
    flag("memory-swap", SwapBytes, "Limit of memory plus swap: -1 for unlimited swap"),
    flag("metadata-file", Text, "Write what was made to this file, as JSON"),
    flag("network", Text, "Network of RUN instructions").or("default"),
    flag("no-cache", Bool, "Do not use the cache"),
    flag("no-cache-filter", Strings, "Do not use the cache for these stages"),
    flag("output", List, "Where the result goes (format: \"type=local,dest=path\")").s('o'),
    flag("platform", Strings, "Platform of the result, where the server has several"),
    flag("policy", List, "Source policies (not supported yet)"),
    flag("print", Text, "Older name of --call").hidden(),
    flag(
        "progress",
        Text,
        "Form of progress (\"auto\", \"plain\", \"tty\", \"quiet\", \"rawjson\")",
    )
    .or("auto"),
    flag("provenance", Text, "Shorthand for \"--attest=type=provenance\" (only \"false\")"),
    flag("pull", Bool, "Always look for newer base images"),
    flag("push", Bool, "Push the result to its registry"),
    flag("quiet", Bool, "Show nothing but the image's ID when it is done").s('q'),
    flag("resource", List, "Limits of RUN steps (format: \"memory=64m,cpu-shares=512\")"),
    flag("rm", Bool, "Remove intermediate containers after success").or("true"),
    flag("sbom", Text, "Shorthand for \"--attest=type=sbom\" (only \"false\")"),
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
        "" | "auto" if terminal::moves_cursor(terminal::Output::Stderr) => Ok(Style::Tty),
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
    outputs: Outputs,
    cache_from: Vec<String>,
    resources: Vec<(&'static str, String)>,
}

impl Given {
    /// Whether only Tug's own builder can do it.
    fn is_more(&self, matches: &Matches) -> bool {
        !self.places.is_empty()
            || self.secrets.is_some()
            || !self.agents.is_empty()
            || !matches.all("allow").is_empty()
            || !matches.all("no-cache-filter").is_empty()
            || self.outputs.is_more()
    }

    /// Every name of the image.
    fn names<'a>(&'a self, matches: &'a Matches) -> Vec<String> {
        matches.all("tag").iter().chain(self.outputs.image().0).cloned().collect()
    }
}

fn given(matches: &Matches) -> Result<(Given, context::Named), Failure> {
    let contexts = extras::contexts(matches.all("build-context"))?;
    wishes::check(matches)?;
    let outputs = Outputs::parse(matches.all("output"), matches.on("load"), matches.on("push"))?;
    let secrets = matches.all("secret");
    let given = Given {
        places: contexts.places,
        contexts_directory: contexts.named.directory.clone(),
        secrets: (!secrets.is_empty()).then(|| extras::secrets(secrets)).transpose()?,
        agents: extras::agents(matches.all("ssh"))?,
        outputs,
        cache_from: wishes::cache_sources(matches.all("cache-from"))?,
        resources: wishes::resources(matches.all("resource"))?,
    };
    if given.outputs.image().1 && given.names(matches).is_empty() {
        return Err(Failure::new("ERROR: failed to build: tag is needed when pushing to registry"));
    }
    Ok((given, contexts.named))
}

/// Makes way for the files that will say what was made.
fn check_reports(matches: &Matches) -> Result<(), Failure> {
    if let Some(path) = matches.find("iidfile").filter(|path| !path.is_empty()) {
        crate::files::remove_stale(Path::new(path)).map_err(|error| {
            let why = files::reason(&error);
            Failure::new(format!("removing image ID file: remove {path}: {why}"))
        })?;
    }
    match matches.find("metadata-file").filter(|path| !path.is_empty()) {
        Some(path) => crate::files::check_output(path).map_err(Failure::new),
        None => Ok(()),
    }
}

async fn build(session: &Session, matches: &Matches) -> Outcome {
    let style = style(matches)?;
    let Some(path) = matches.args.first() else { return Ok(0) };
    let (given, named) = given(matches)?;
    check_reports(matches)?;
    let context = context::prepare(path, matches.text("file"), named);
    let client = session.client().await?;
    let is_tug = is_tug(client).await?;
    if matches.on("debug") {
        let kind = if is_tug { "Tug's builder" } else { "the classic builder" };
        terminal::error_text(&format!("DEBUG: building with {kind} at {}\n", session.host()));
    }
    let context = context.map_err(|refused| match refused {
        Unprepared::Other(failure) => failure,
        Unprepared::Dockerfile { buildkit, .. } if is_tug => {
            Failure::new(format!("ERROR: failed to build: {buildkit}"))
        }
        Unprepared::Dockerfile { classic, .. } => Failure::new(classic),
    })?;
    if given.is_more(matches) && !is_tug {
        let text = "secrets, agents, named contexts, --allow, --no-cache-filter and outputs other \
                    than an image need Tug's daemon";
        return Err(Failure::new(text));
    }
    let mut request = parameters(client.post("/build"), session, matches, &context, &given)?;
    if is_tug {
        request = request.query("version", trace::VERSION);
        request = more(request, matches, &given);
    }
    request = request
        .flag("q", style == Style::Quiet && !is_tug)
        .header("x-registry-config", &session.config.all_auths());
    let image = perform(request, context, matches, style, &given).await?;
    if let Some(path) = matches.find("iidfile").filter(|path| !path.is_empty()) {
        std::fs::write(path, &image)
            .map_err(|error| Failure::new(format!("open {path}: {}", files::reason(&error))))?;
    }
    let names = given.names(matches);
    let (_, is_pushed) = given.outputs.image();
    for name in names.iter().filter(|_| is_pushed) {
        super::transfer::push_image(session, name).await?;
    }
    if let Some(path) = matches.find("metadata-file").filter(|path| !path.is_empty()) {
        let found = metadata::of_image(client, &image, &names, is_pushed).await?;
        metadata::write(path, &found)?;
    }
    Ok(0)
}

/// Sends the context, and shows what comes back; the image's ID, empty when none was made.
async fn perform(
    request: Request<'_>,
    context: Context,
    matches: &Matches,
    style: Style,
    given: &Given,
) -> Result<String, Failure> {
    let mut interrupts = Interrupts::new()?;
    let (response, sending) = tokio::select! {
        sent = send(request, context, matches.on("compress")) => sent,
        status = interrupts.next() => return Err(view::stopped(status)),
    };
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
    let shown = view::show(response, style, given.outputs.takers(), &mut interrupts).await;
    if let Some(sending) = sending.filter(|_| !shown.as_ref().is_err_and(view::is_stop)) {
        match sending.await {
            Ok(Err(failure)) if shown.is_err() => return Err(failure),
            Ok(_) | Err(_) => {}
        }
    }
    shown
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
    if let Some(outputs) = given.outputs.parameter() {
        request = request.query("outputs", outputs);
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
    given: &Given,
) -> Result<Request<'a>, Failure> {
    for tag in given.names(matches) {
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
        ("platform", matches.all("platform").first().cloned()),
        ("isolation", text("isolation")),
    ] {
        let limit = given.resources.iter().rev().find(|(own, _)| *own == name);
        if let Some(value) = limit.map(|(_, value)| value.clone()).or(value) {
            request = request.query(name, value);
        }
    }
    request = request
        .flag("nocache", matches.on("no-cache"))
        .flag("pull", matches.on("pull"))
        .flag("squash", matches.on("squash"))
        .flag("forcerm", matches.on("force-rm"))
        .query("rm", if matches.on("rm") { "1" } else { "0" });
    if !given.cache_from.is_empty() {
        request = request.query("cachefrom", json!(given.cache_from).to_string());
    }
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
    for value in matches.all("security-opt") {
        found.push(("securityopt", value.clone()));
    }
    for value in matches.all("add-host") {
        found.push(("extrahosts", check::extra_host(value)?));
    }
    Ok(found)
}
