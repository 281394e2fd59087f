//! Where the daemon is: `-H`, `DOCKER_HOST`, contexts, else Tug's own socket, behind which a
//! daemon is started when none answers.
//!
//! Order, as in Docker's client: `--host`, `--context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the
//! config file's `currentContext`, the default. Only the default is ever started by us.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::DirBuilderExt as _, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use api::client::{Client, Host, Tls};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    args::Matches, config_file, create::files::reason, credentials, failure::Failure, tls,
};

/// How long a daemon started by us may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What one command line knows: its program's name, the user's configuration, the daemon.
pub struct Session {
    pub program: String,
    /// `--debug`.
    pub debug: bool,
    pub config: Config,
    /// The context that commands go to; `default` where `-H` or the environment says where.
    pub context: String,
    host: Place,
    client: OnceCell<Client>,
}

/// What to do when our own daemon is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Start,
    Fail,
}

#[derive(Debug, Clone)]
enum Place {
    /// Named by the user.
    Chosen(Host, Option<Tls>),
    /// Nobody said: ours.
    Default,
    /// A context that is not there, in words; a command that needs no daemon does not mind.
    Nowhere(String),
}

impl Session {
    /// # Errors
    /// When the options contradict each other or name no place.
    pub fn new(program: &str, global: &Matches) -> Result<Session, Failure> {
        let level = global.text("log-level");
        if !matches!(
            level,
            "debug" | "info" | "warn" | "warning" | "error" | "fatal" | "panic" | "trace"
        ) {
            return Err(Failure::new(format!("Unable to parse logging level: {level}")));
        }
        let config = Config::load(global.find("config"));
        let host = place(global, &config)?;
        let context = context_name(global, &config);
        Ok(Session {
            program: program.to_owned(),
            debug: global.on("debug"),
            config,
            context,
            host,
            client: OnceCell::new(),
        })
    }

    /// The daemon's client; the first call finds the daemon, and starts it where it is ours.
    ///
    /// # Errors
    /// When there is no daemon and none can be started.
    pub async fn client(&self) -> Result<&Client, Failure> {
        self.client.get_or_try_init(|| self.connect(Absent::Start)).await
    }

    /// The client of a daemon that is there already; none is started.
    ///
    /// # Errors
    /// As [`Session::client`].
    pub async fn client_if_there(&self) -> Result<&Client, Failure> {
        self.client.get_or_try_init(|| self.connect(Absent::Fail)).await
    }

    /// Where a plugin finds the daemon, when nothing in its surroundings says so; the daemon is
    /// started where it is ours and `start` says so.
    pub async fn host_for_plugin(&self, start: bool) -> Option<String> {
        let Place::Default = self.host else { return None };
        let host = Host::default();
        if let (Host::Unix(socket), true) = (&host, start) {
            // The plugin finds out by itself, and says so in its own words.
            let _ = ensure_daemon(socket, &host).await;
        }
        Some(host.to_string())
    }

    async fn connect(&self, absent: Absent) -> Result<Client, Failure> {
        let (host, tls) = match &self.host {
            Place::Chosen(host, tls) => (host.clone(), tls.clone()),
            Place::Nowhere(why) => return Err(Failure::new(why.clone())),
            Place::Default => {
                let host = Host::default();
                if let (Host::Unix(socket), Absent::Start) = (&host, absent) {
                    ensure_daemon(socket, &host).await?;
                }
                (host, None)
            }
        };
        let mut client = Client::new(host).with_tls(tls);
        if let Some(version) = env("DOCKER_API_VERSION") {
            let version = version
                .parse()
                .map_err(|_| Failure::new(format!("invalid API version: {version}")))?;
            client.set_version(version);
        } else if let Place::Chosen(..) = self.host {
            // Our own daemon speaks what we speak; others may be older.
            client.negotiate().await?;
        }
        for (name, value) in &self.config.http_headers {
            if let (Ok(name), Ok(value)) =
                (name.parse::<hyper::header::HeaderName>(), value.parse())
                && name != hyper::header::USER_AGENT
            {
                client.add_header(name, value);
            }
        }
        Ok(client)
    }

    /// Where requests go, for messages and for `--use-api-socket`.
    pub fn host(&self) -> Host {
        match &self.host {
            Place::Chosen(host, _) => host.clone(),
            Place::Default | Place::Nowhere(_) => Host::default(),
        }
    }
}

pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn place(global: &Matches, config: &Config) -> Result<Place, Failure> {
    let hosts = global.all("host");
    let context = global.find("context");
    if hosts.len() > 1 {
        return Err(unresolved("Specify only one -H"));
    }
    if let Some(host) = hosts.first().filter(|host| !host.is_empty()) {
        if context.is_some() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --host and --context",
            ));
        }
        return chosen(host, global, config);
    }
    if let Some(name) = context {
        return found(config, name, global);
    }
    if let Some(host) = env("DOCKER_HOST") {
        return chosen(&host, global, config);
    }
    match env("DOCKER_CONTEXT").or_else(|| config.current_context.clone()) {
        Some(name) => found(config, &name, global),
        None => Ok(Place::Default),
    }
}

fn found(config: &Config, name: &str, global: &Matches) -> Result<Place, Failure> {
    from_context(config, name, global).or_else(|failure| Ok(Place::Nowhere(failure.to_string())))
}

/// The name of the context that is used, by the order above.
fn context_name(global: &Matches, config: &Config) -> String {
    let default = || "default".to_owned();
    if let Some(name) = global.find("context") {
        return name.to_owned();
    }
    if !global.all("host").is_empty() || env("DOCKER_HOST").is_some() {
        return default();
    }
    env("DOCKER_CONTEXT").or_else(|| config.current_context.clone()).unwrap_or_else(default)
}

/// The host that `-H` or the environment names, with TLS where that is wanted.
fn chosen(text: &str, global: &Matches, config: &Config) -> Result<Place, Failure> {
    let host = parsed(text, tls::wanted(global))?;
    let tls = match host {
        Host::Tcp { .. } if tls::wanted(global) => {
            Some(tls::from_options(global, &config.directory)?)
        }
        Host::Tcp { .. } | Host::Unix(_) | Host::Ssh { .. } => None,
    };
    Ok(Place::Chosen(host, tls))
}

/// A host as the user wrote it; `-H` also takes a bare address, and the environment does not.
///
/// Source of the words: docker CLI 28.2 `opts/hosts.go`, moby `client.ParseHostURL`.
fn parsed(text: &str, tls: bool) -> Result<Host, Failure> {
    let text = text.trim();
    // A path without its scheme is no address.
    if text.starts_with('/') {
        return Err(unresolved(format!("unable to parse docker host `{text}`")));
    }
    let (scheme, full) = match text.split_once("://") {
        Some((scheme, _)) => (scheme, text.to_owned()),
        None => ("tcp", format!("tcp://{text}")),
    };
    if !matches!(scheme, "tcp" | "unix" | "ssh") {
        return Err(unresolved(format!("invalid bind address format: {text}")));
    }
    let host = if tls { Host::parse_tls(&full) } else { full.parse() };
    host.map_err(|error| unresolved(error.to_string()))
}

fn unresolved(why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("Failed to initialize: unable to resolve docker endpoint: {why}"))
}

fn from_context(config: &Config, name: &str, global: &Matches) -> Result<Place, Failure> {
    if name == "default" {
        return Ok(match env("DOCKER_HOST") {
            Some(host) => return chosen(&host, global, config),
            None => Place::Default,
        });
    }
    let meta = config.directory.join("contexts/meta");
    let missing = || {
        Failure::new(format!(
            "Failed to initialize: unable to resolve docker endpoint: context \"{name}\": context not found: open {}: no such file or directory",
            meta.join(spec::Digest::of(name.as_bytes()).hex()).join("meta.json").display()
        ))
    };
    let contexts = fs::read_dir(&meta).map_err(|_| missing())?;
    for entry in contexts.flatten() {
        let Ok(text) = fs::read(entry.path().join("meta.json")) else { continue };
        let Ok(meta) = serde_json::from_slice::<Value>(&text) else { continue };
        if meta["Name"] == name
            && let Some(host) = meta["Endpoints"]["docker"]["Host"].as_str()
        {
            let files = config.directory.join("contexts/tls").join(entry.file_name());
            let skip = meta["Endpoints"]["docker"]["SkipTLSVerify"] == true;
            let tls = tls::from_context(&files.join("docker"), skip)?;
            return Ok(Place::Chosen(parsed(host, tls.is_some())?, tls));
        }
    }
    Err(missing())
}

/// The user's `config.json`, the parts that this client reads.
#[derive(Debug, Default)]
pub struct Config {
    pub directory: PathBuf,
    pub current_context: Option<String>,
    pub detach_keys: Option<String>,
    pub http_headers: Vec<(String, String)>,
    /// Further directories of plugins.
    pub plugin_directories: Vec<String>,
    /// Other names of commands; Docker allows but `builder`.
    pub aliases: Vec<(String, String)>,
    root: Value,
}

impl Config {
    fn load(flag: Option<&str>) -> Config {
        let directory = match (flag, env("DOCKER_CONFIG"), env("HOME")) {
            (Some(directory), _, _) => PathBuf::from(directory),
            (None, Some(directory), _) => PathBuf::from(directory),
            (None, None, Some(home)) => Path::new(&home).join(".docker"),
            (None, None, None) => PathBuf::from("/root/.docker"),
        };
        let root = config_file::read(&directory.join("config.json"));
        let text =
            |key: &str| root[key].as_str().filter(|value| !value.is_empty()).map(str::to_owned);
        let pairs = |key: &str| -> Vec<(String, String)> {
            let entries = root[key].as_object().into_iter().flatten();
            entries
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        let directories = root["cliPluginsExtraDirs"].as_array().into_iter().flatten();
        Config {
            plugin_directories: directories.filter_map(Value::as_str).map(str::to_owned).collect(),
            aliases: pairs("aliases"),
            http_headers: pairs("HttpHeaders"),
            current_context: text("currentContext"),
            detach_keys: text("detachKeys"),
            directory,
            root,
        }
    }

    /// Nothing but where it would be: for words about ourselves before options are read.
    pub fn of_user() -> Config {
        Config::load(None)
    }

    /// A default `--format`, such as `psFormat`.
    pub fn format(&self, key: &str) -> Option<&str> {
        self.root[key].as_str().filter(|value| !value.is_empty())
    }

    /// The stored credentials for a registry, as `X-Registry-Auth` wants them.
    pub fn registry_auth(&self, domain: &str) -> api::system::AuthConfig {
        let key = if domain == "docker.io" { credentials::HUB } else { domain };
        self.credentials(key).unwrap_or_else(|failure| {
            crate::terminal::error_text(&format!("WARNING: {failure}\n"));
            api::system::AuthConfig { server_address: key.to_owned(), ..Default::default() }
        })
    }

    /// The stored credentials for a server; empty ones where there are none.
    ///
    /// # Errors
    /// When the helper that has them fails.
    pub fn credentials(&self, key: &str) -> Result<api::system::AuthConfig, Failure> {
        let Some(helper) = self.credential_helper(key) else {
            return Ok(credentials::in_file(&self.root, key));
        };
        let nothing =
            || api::system::AuthConfig { server_address: key.to_owned(), ..Default::default() };
        Ok(helper.get(key)?.unwrap_or_else(nothing))
    }

    /// The file itself.
    pub fn file(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// What the file says of a server, where it says something.
    pub fn entry(&self, server: &str) -> Option<&Value> {
        self.root["auths"].as_object()?.get(server)
    }

    /// Changes the file as it is now, and nothing in it but what `change` does. It becomes readable by
    /// its owner alone.
    ///
    /// # Errors
    /// When it is no JSON, or cannot be written.
    pub fn change(
        &self,
        change: impl FnOnce(&mut serde_json::Map<String, Value>),
    ) -> Result<(), Failure> {
        let path = self.file();
        let failed = |error: std::io::Error| {
            Failure::new(format!("write {}: {}", path.display(), reason(&error)))
        };
        let mut root: Value = match fs::read(&path) {
            Ok(text) if !text.trim_ascii().is_empty() => serde_json::from_slice(&text)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
            Ok(_) => Value::Object(serde_json::Map::new()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Value::Object(serde_json::Map::new())
            }
            Err(error) => return Err(failed(error)),
        };
        let Value::Object(fields) = &mut root else {
            return Err(Failure::new(format!("{}: no JSON object", path.display())));
        };
        change(fields);
        if let Some(Value::Object(auths)) = fields.get_mut("auths") {
            auths.sort_keys();
        }
        let text = crate::render::json::indented_by("\t", &root.to_string());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(failed)?;
        crate::files::replace(&path, text.as_bytes(), 0o600).map_err(failed)
    }

    /// The program that keeps a server's credentials, if there is one.
    pub fn credential_helper(&self, server: &str) -> Option<crate::credentials::Helper> {
        crate::credentials::Helper::of(&self.root, server)
    }

    /// Every stored credential, as `X-Registry-Config` wants them.
    pub fn all_auths(&self) -> String {
        use base64::Engine as _;
        let keys = |name: &str| {
            let known = self.root[name].as_object().into_iter().flatten();
            known.map(|(server, _)| server.clone()).collect::<Vec<_>>()
        };
        let stored = self.credential_helper("").map(|helper| helper.servers()).unwrap_or_default();
        let servers = keys("auths").into_iter().chain(keys("credHelpers")).chain(stored);
        let auths: std::collections::BTreeMap<String, api::system::AuthConfig> =
            servers.map(|server| (server.clone(), self.registry_auth(&server))).collect();
        let json = serde_json::to_vec(&auths).unwrap_or_default();
        base64::engine::general_purpose::URL_SAFE.encode(json)
    }

    /// Build-time proxies, as build arguments.
    pub fn proxies(&self, host: &str) -> Vec<(String, String)> {
        let proxies = &self.root["proxies"];
        let entry = if proxies[host].is_object() { &proxies[host] } else { &proxies["default"] };
        let mut found = Vec::new();
        for (key, name) in [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ] {
            if let Some(value) = entry[key].as_str() {
                found.push((name.to_owned(), value.to_owned()));
                found.push((name.to_lowercase(), value.to_owned()));
            }
        }
        found
    }
}

/// Makes sure that somebody listens on Tug's own socket.
async fn ensure_daemon(socket: &Path, host: &Host) -> Result<(), Failure> {
    let unreachable = |source| api::client::Error::Connect { host: host.clone(), source };
    match UnixStream::connect(socket) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(unreachable(error).into());
        }
        Err(error) => {
            if let Err(why) = start_daemon() {
                let text = unreachable(error).to_string();
                return Err(Failure::new(format!("{text}\n({why})")));
            }
        }
    }
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match Client::new(host.clone()).ping().await {
            Ok(_) => {
                crate::terminal::error_text(&format!(
                    "Started the Tug daemon; its log is {}\n",
                    log_path().display()
                ));
                return Ok(());
            }
            Err(error) if Instant::now() > deadline => {
                let log = log_path();
                return Err(Failure::new(format!("{error}\n(see {})", log.display())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn log_path() -> PathBuf {
    PathBuf::from("/var/log/tug.log")
}

/// Starts `tug daemon` in a session of its own, so that it outlives this terminal.
fn start_daemon() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can start the daemon: run `tug daemon` as root".to_owned());
    }
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot find our own program: {}", reason(&error)))?;
    let path = log_path();
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| format!("open {}: {}", path.display(), reason(&error)))?;
    let copy =
        log.try_clone().map_err(|error| format!("open {}: {}", path.display(), reason(&error)))?;
    // Leaving our session takes a call between fork and exec, which safe code cannot make: the
    // child is this command line again, which leaves the session and becomes the daemon.
    Command::new(&program)
        .arg0("tug")
        .arg(DAEMON_SESSION)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(copy))
        .spawn()
        .map(drop)
        .map_err(|error| format!("start {} daemon: {}", program.display(), reason(&error)))
}

/// The first word that makes this program leave its session and become the daemon.
pub const DAEMON_SESSION: &str = "__daemon-session";

/// Becomes `tug daemon` in a session of its own; returns only when that fails.
pub fn become_daemon() -> u8 {
    if let Err(error) = rustix::process::setsid() {
        crate::terminal::error_text(&format!("cannot leave the session: {error}\n"));
        return 125;
    }
    let Ok(program) = std::env::current_exe() else { return 125 };
    let error = Command::new(&program).arg0("tug").arg("daemon").exec();
    crate::terminal::error_text(&format!("start {} daemon: {error}\n", program.display()));
    125
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_lack_its_scheme() {
        let host = |text: &str| parsed(text, false).unwrap().to_string();
        assert_eq!(host("unix:///x.sock"), "unix:///x.sock");
        assert_eq!(host("10.0.0.1:2375"), "tcp://10.0.0.1:2375");
        assert_eq!(parsed("10.0.0.1", true).unwrap().to_string(), "tcp://10.0.0.1:2376");
        for (text, want) in [
            ("ftp://x", "invalid bind address format: ftp://x"),
            ("/tmp/x", "unable to parse docker host `/tmp/x`"),
        ] {
            let told = parsed(text, false).unwrap_err().to_string();
            assert!(
                told.ends_with(&format!("unable to resolve docker endpoint: {want}")),
                "{told}"
            );
        }
    }
}
