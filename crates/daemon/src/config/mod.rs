//! The daemon's settings, from flags and `daemon.json` to typed values.
//!
//! ```text
//! flags ┐                    ┌ Settings (listeners, logging, lifetime)
//!       ├ Values, by key ────┤
//! file ─┘  (no key in both)  └ EngineConfig
//! ```
//! An unknown flag or key is refused by name, and so is one that is not implemented and asks for
//! more than the default ([`keys`]).

mod builder;
mod engine_config;
pub mod file;
pub mod flags;
pub mod keys;

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine::EngineConfig;
use serde_json::Value;

use self::flags::Values;
use self::keys::Support;
use crate::tls::TlsFiles;

/// Where things are when nobody says otherwise.
const DATA_ROOT: &str = "/var/lib/tug";
const EXEC_ROOT: &str = "/run/tug";
const CDI_SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Flag(#[from] flags::FlagError),
    #[error(transparent)]
    File(#[from] file::FileError),
    #[error("{name} is not supported yet: have {value}")]
    NotYet { name: String, value: Value },
    #[error("{0}")]
    Refused(&'static str),
    #[error("invalid {key}: {why}")]
    Value { key: &'static str, why: String },
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
}

impl ConfigError {
    fn value(key: &'static str, why: impl ToString) -> Self {
        Self::Value { key, why: why.to_string() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What the daemon itself needs; the rest is the engine's.
#[derive(Debug)]
pub struct Settings {
    pub hosts: Vec<String>,
    pub group: String,
    pub pidfile: PathBuf,
    pub level: tracing::level_filters::LevelFilter,
    pub format: LogFormat,
    /// Whether containers go on when the daemon is asked to stop. True unless the user says no:
    /// nothing of a container's depends on the daemon, so stopping them would be a loss without
    /// a gain (Docker's default is to stop them).
    pub live_restore: bool,
    pub shutdown_timeout_s: i64,
    /// For the API on the network.
    pub tls: Option<TlsFiles>,
    /// Shown to clients, whose experimental commands look for it.
    pub experimental: bool,
    /// Where descriptions of devices are looked for; none where the feature is off.
    pub cdi_spec_dirs: Vec<String>,
    pub features: BTreeMap<String, bool>,
    pub engine: EngineConfig,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Wish {
    Help,
    Version,
    Validate,
    Run(Box<Settings>),
}

/// Reads flags and file.
///
/// # Errors
/// Names the flag or key that is wrong.
pub fn read(args: &[String]) -> Result<Wish, ConfigError> {
    let flags = flags::parse(args)?;
    let on = |name: &str| flags.get(name) == Some(&Value::Bool(true));
    if on("help") {
        return Ok(Wish::Help);
    }
    if on("version") {
        return Ok(Wish::Version);
    }
    let validate = on("validate");
    let mut values = file::load(&flags)?;
    values.extend(flags);
    let settings = settings(values)?;
    if validate {
        return Ok(Wish::Validate);
    }
    Ok(Wish::Run(Box::new(settings)))
}

/// Refuses what is not there, so that no option is silently ignored.
fn check_supported(values: &Values) -> Result<(), ConfigError> {
    for key in keys::KEYS {
        let Some(value) = values.get(key.name()) else {
            continue;
        };
        match key.support {
            Support::Works | Support::NoEffect => {}
            Support::NotYet(default) if keys::asks_nothing(value, default) => {}
            Support::NotYet(_) => {
                let name = if key.flag.is_empty() {
                    key.key.to_owned()
                } else {
                    format!("--{}", key.flag)
                };
                return Err(ConfigError::NotYet { name, value: value.clone() });
            }
            Support::Refused { but, .. }
                if but.iter().any(|known| keys::asks_nothing(value, known)) => {}
            Support::Refused { words, .. } => return Err(ConfigError::Refused(words)),
        }
    }
    Ok(())
}

fn settings(values: Values) -> Result<Settings, ConfigError> {
    check_supported(&values)?;
    let reader = Reader(&values);
    let engine = engine_config::read(&reader)?;
    let features = features(&reader)?;
    proxy_path(&reader)?;
    let debug = reader.flag("debug", false);
    let hosts = match reader.list("hosts") {
        // The default socket stands beside a moved run root, so that two daemons never meet.
        hosts if hosts.is_empty() => {
            vec![format!("unix://{}", beside(&engine.exec_root, "sock").display())]
        }
        hosts => hosts,
    };
    let format = match reader.text("log-format") {
        "" | "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => {
            return Err(ConfigError::value("log-format", format!("invalid log format: {other}")));
        }
    };
    Ok(Settings {
        hosts,
        group: match reader.text("group") {
            "" => "docker".to_owned(),
            group => group.to_owned(),
        },
        pidfile: match reader.text("pidfile") {
            "" => beside(&engine.exec_root, "pid"),
            path => PathBuf::from(path),
        },
        level: level(reader.text("log-level"), debug)?,
        format,
        live_restore: reader.flag("live-restore", true),
        shutdown_timeout_s: reader.integer("shutdown-timeout", 15),
        tls: tls(&reader),
        experimental: reader.flag("experimental", false),
        cdi_spec_dirs: match (reader.list("cdi-spec-dirs"), features.get("cdi")) {
            (_, Some(false)) => Vec::new(),
            (none, _) if none.is_empty() => CDI_SPEC_DIRS.map(str::to_owned).to_vec(),
            (given, _) => given.into_iter().filter(|dir| !dir.is_empty()).collect(),
        },
        features,
        engine,
    })
}

/// Names that nobody knows are kept, as in Docker; what would change how images are kept or
/// containers are isolated is refused.
fn features(reader: &Reader<'_>) -> Result<BTreeMap<String, bool>, ConfigError> {
    let mut features = BTreeMap::new();
    for (name, value) in reader.entries("features") {
        let Some(on) = value.as_bool() else {
            return Err(ConfigError::value("features", format!("{name}: want true or false")));
        };
        let lacking = [
            "containerd-snapshotter",
            "containerd-migration",
            "embedded-containerd",
            "time-namespaces",
        ];
        if on && lacking.contains(&name) {
            return Err(ConfigError::value("features", format!("Tug has no {name}")));
        }
        features.insert(name.to_owned(), on);
    }
    Ok(features)
}

/// The monitors forward ports themselves, so the program is not run; Docker's checks hold.
///
/// Source: moby 28.2 `daemon/config/config_linux.go` `validateUserlandProxy…`.
fn proxy_path(reader: &Reader<'_>) -> Result<(), ConfigError> {
    let path = reader.text("userland-proxy-path");
    if path.is_empty() || !reader.flag("userland-proxy", true) {
        return Ok(());
    }
    if !path.starts_with('/') {
        let why = format!("must be an absolute path: {path}");
        return Err(ConfigError::value("userland-proxy-path", why));
    }
    std::fs::metadata(path)
        .map(drop)
        .map_err(|source| ConfigError::Read { path: PathBuf::from(path), source })
}

/// `--tlsverify` asks for TLS in either value, and for clients' certificates when it is true.
///
/// Source: moby 28.2 `cmd/dockerd/options.go`.
fn tls(reader: &Reader<'_>) -> Option<TlsFiles> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let verify = reader.flag("tlsverify", env("DOCKER_TLS_VERIFY").is_some());
    if !verify && !reader.0.contains_key("tlsverify") && !reader.flag("tls", false) {
        return None;
    }
    let place = env("DOCKER_CERT_PATH").or_else(|| env("DOCKER_CONFIG")).map_or_else(
        || PathBuf::from(env("HOME").unwrap_or_else(|| "/root".to_owned())).join(".docker"),
        PathBuf::from,
    );
    let file = |key: &str, name: &str| match reader.text(key) {
        "" => place.join(name),
        path => PathBuf::from(path),
    };
    Some(TlsFiles {
        authority: verify.then(|| file("tlscacert", "ca.pem")),
        certificate: file("tlscert", "cert.pem"),
        key: file("tlskey", "key.pem"),
    })
}

/// `/run/tug` → `/run/tug.sock`, `/x/run` → `/x/run.sock`.
fn beside(root: &std::path::Path, extension: &str) -> PathBuf {
    let mut name = root.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn level(text: &str, debug: bool) -> Result<tracing::level_filters::LevelFilter, ConfigError> {
    use tracing::level_filters::LevelFilter;
    let level = match text {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "" | "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        other => {
            return Err(ConfigError::value("log-level", format!("invalid logging level: {other}")));
        }
    };
    Ok(if debug { level.max(LevelFilter::DEBUG) } else { level })
}

/// Typed reading; shapes were checked before.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn integer(&self, key: &str, default: i64) -> i64 {
        self.0.get(key).and_then(Value::as_i64).unwrap_or(default)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let items = self.0.get(key).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn entries(&self, key: &str) -> impl Iterator<Item = (&str, &Value)> {
        let entries = self.0.get(key).and_then(Value::as_object);
        entries.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    /// One parsed value, or none when it is not given.
    fn parsed<T>(&self, key: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: std::str::FromStr<Err: ToString>,
    {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error: T::Err| {
                ConfigError::value(key, format!("{text}: {}", error.to_string()))
            }),
        }
    }
}

/// dockerd's usage, under the name that it was called by.
#[must_use]
pub fn usage(called: &str) -> String {
    let mut text = format!(
        "\nUsage:  {called} [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n"
    );
    for key in keys::KEYS.iter().filter(|key| !key.flag.is_empty()) {
        let short = key.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let kind = match key.kind {
            keys::Kind::Bool => "",
            keys::Kind::Int => " int",
            keys::Kind::Text => " string",
            keys::Kind::List | keys::Kind::Json => " list",
            keys::Kind::Map => " map",
        };
        let flag = format!("{}{kind}", key.flag);
        let note = match key.support {
            Support::Works | Support::NoEffect => "",
            Support::NotYet(_) => " (not supported yet)",
            Support::Refused { .. } => " (not supported)",
        };
        text.push_str(&format!("  {short}--{flag:<40} {}{note}\n", key.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(args: &str, want: Expect) {
        let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
        let got =
            flags::parse(&args).map_err(ConfigError::from).and_then(settings).map(|settings| {
                format!(
                    "{:?} {} {} {:?}",
                    settings.hosts,
                    settings.pidfile.display(),
                    settings.engine.data_root.display(),
                    settings.level
                )
            });
        want.assert_eq(&got.unwrap_or_else(|error| engine::error::chain(&error)));
    }

    #[test]
    fn everything_moves_with_the_roots() {
        check(
            "",
            expect![[r#"["unix:///run/tug.sock"] /run/tug.pid /var/lib/tug LevelFilter::INFO"#]],
        );
        check(
            "--exec-root /x/run --data-root /x/data -D",
            expect![[r#"["unix:///x/run.sock"] /x/run.pid /x/data LevelFilter::DEBUG"#]],
        );
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        check(
            "--userns-remap default",
            expect![[r#"--userns-remap is not supported yet: have "default""#]],
        );
        check(
            "--api-cors-header x",
            expect!["api-cors-header is no longer supported; use a reverse proxy for CORS headers"],
        );
    }

    #[test]
    fn what_asks_for_nothing_new_does_not_stop_the_daemon() {
        let quiet = [
            "--ip6tables=false",
            "--ip6tables",
            "--iptables=true",
            "--experimental=false",
            "--feature cdi",
            "--feature cdi=false",
            "--feature buildkit --feature nobody-knows-it",
            "--feature containerd-snapshotter=false",
            "--cdi-spec-dir /x",
            "--userns-remap=",
            "--allow-direct-routing=false",
            "--swarm-default-advertise-addr lo",
            "--containerd /run/containerd/containerd.sock",
            "--containerd-namespace x --containerd-plugins-namespace y",
            "--userland-proxy-path /bin/sh",
            "--userland-proxy=false --userland-proxy-path nowhere",
            "--network-control-plane-mtu 1400",
            "--firewall-backend nftables",
            "--firewall-backend=",
            "--init-path docker-init",
            "--default-stop-timeout 10",
            "--exec-opt native.cgroupdriver=cgroupfs",
            "--bridge-accept-fwmark=",
            "--metrics-addr=",
            "--selinux-enabled=false --rootless=false --cri-containerd=false",
            "--allow-nondistributable-artifacts x --restart=false --ip-forward-no-drop",
            "--cpu-rt-period 0 --cpu-rt-runtime 0 --network-diagnostic-port 0",
            "--raw-logs=false",
        ];
        for args in quiet {
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            let values = flags::parse(&args).map_err(ConfigError::from);
            let outcome = values.and_then(settings).map(drop);
            assert!(outcome.is_ok(), "{args:?}: {:?}", outcome.err());
        }
        for (key, value) in [
            ("default-init", serde_json::json!("docker-init")),
            ("deprecated-key-path", serde_json::json!("x")),
            ("min-api-version", serde_json::json!("1.24")),
            ("nri-opts", serde_json::json!({"enable": false})),
            ("swarm-raft-election-tick", serde_json::json!(3)),
            ("swarm-raft-heartbeat-tick", serde_json::json!(1)),
        ] {
            let outcome = settings(Values::from([(key, value)])).map(drop);
            assert!(outcome.is_ok(), "{key}: {:?}", outcome.err());
        }
    }

    #[test]
    fn what_tug_has_not_is_refused_in_clear_words() {
        for (args, want) in [
            ("--firewall-backend iptables", "Tug filters with nftables alone"),
            ("--init-path /sbin/tini", "Tug is its own init"),
            ("--feature containerd-snapshotter", "Tug has no containerd-snapshotter"),
            ("--feature=time-namespaces=true", "Tug has no time-namespaces"),
            ("--userland-proxy-path proxy", "must be an absolute path: proxy"),
            ("--userland-proxy-path /no/such/proxy", "cannot read \"/no/such/proxy\""),
            ("--authorization-plugin x", "--authorization-plugin is not supported yet"),
            ("--allow-direct-routing", "--allow-direct-routing is not supported yet"),
            ("--metrics-addr 127.0.0.1:9323", "--metrics-addr is not supported yet"),
            ("--node-generic-resource a=b", "--node-generic-resource is not supported yet"),
            ("--storage-opt overlay2.size=1G", "--storage-opt is not supported yet"),
            ("--log-driver nosuch", "no log driver named 'nosuch' is registered"),
            ("--log-opt nope=1", "unknown log opt 'nope' for json-file log driver"),
            ("--log-driver local --log-opt mode=x", "logging mode not supported: x"),
        ] {
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            let values = flags::parse(&args).map_err(ConfigError::from);
            let error = values.and_then(settings).map(drop).unwrap_err();
            let words = engine::error::chain(&error);
            assert!(words.contains(want), "{args:?}: {words}");
        }
    }

    #[test]
    fn usage_and_version_are_told_and_a_file_is_read() {
        let asked = |args: &str| {
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            read(&args).unwrap()
        };
        assert!(matches!(asked("--help"), Wish::Help));
        assert!(matches!(asked("--version"), Wish::Version));
        let path = std::env::temp_dir().join(format!("tug-config-{}.json", std::process::id()));
        std::fs::write(&path, r#"{"mtu": 1400}"#).unwrap();
        let named = format!("--config-file {}", path.display());
        assert!(matches!(asked(&format!("--validate {named}")), Wish::Validate));
        let Wish::Run(settings) = asked(&named) else { panic!("it would run") };
        assert_eq!(settings.engine.network.mtu, 1400);
        std::fs::remove_file(&path).unwrap();
        let usage = usage("dockerd");
        for key in keys::KEYS.iter().filter(|key| !key.flag.is_empty()) {
            assert!(usage.contains(&format!("--{}", key.flag)), "{}", key.flag);
        }
    }

    #[test]
    fn every_setting_reaches_its_place() {
        let shown = |args: &str| {
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            format!("{:?}", settings(flags::parse(&args).unwrap()).unwrap())
        };
        let default = shown("");
        for (args, place) in PLACES {
            let shown = shown(args);
            assert!(shown.contains(place), "{args}: {shown}");
            assert!(!default.contains(place), "{args} is what it is anyway");
        }
        for (key, value, place) in [
            ("resolv-conf", serde_json::json!("/nine"), r#"resolv_conf: Some("/nine")"#),
            ("runtimes", serde_json::json!({"r": {"path": "/r"}}), r#"{"r": OtherRuntime"#),
            ("builder", serde_json::json!({"gc": {"enabled": false}}), "enabled: false"),
        ] {
            let shown = format!("{:?}", settings(Values::from([(key, value)])).unwrap());
            assert!(shown.contains(place), "{key}: {shown}");
        }
    }

    /// One setting each, and how it stands in what the daemon works by.
    const PLACES: &[(&str, &str)] = &[
        ("--add-runtime other=/bin/true", r#"{"other": OtherRuntime { path: "/bin/true""#),
        ("--bip 10.9.0.1/24", "bip: Some((10.9.0.1, 24))"),
        ("--bip6 fd00:9::1/64", "bip6: Some((fd00:9::1, 64))"),
        ("--bridge br9", r#"bridge: Some("br9")"#),
        ("--cgroup-parent /nine", r#"cgroup_parent: "/nine""#),
        ("--data-root /nine", r#"data_root: "/nine""#),
        ("--debug", "debug: true"),
        ("--default-address-pool base=10.9.0.0/16,size=24", "address_pools: [(10.9.0.0, 16, 24)]"),
        ("--default-cgroupns-mode host", "default_cgroupns: Host"),
        ("--default-gateway 10.9.0.9", "default_gateway: Some(10.9.0.9)"),
        ("--default-gateway-v6 fd00:9::9", "default_gateway_v6: Some(fd00:9::9)"),
        ("--default-ipc-mode shareable", "default_ipc: Shareable"),
        ("--default-network-opt bridge=a=b", r#"default_options: {"bridge": {"a": "b"}}"#),
        ("--default-runtime runc", r#"default_runtime: "runc""#),
        ("--default-shm-size 9m", "default_shm_size: 9437184"),
        ("--default-ulimit nofile=9:10", r#"name: "nofile", soft: 9, hard: 10"#),
        ("--dns 192.0.2.9", "dns: [192.0.2.9]"),
        ("--dns-opt ndots:9", r#"dns_options: ["ndots:9"]"#),
        ("--dns-search nine.test", r#"dns_search: ["nine.test"]"#),
        ("--exec-root /nine", r#"exec_root: "/nine""#),
        ("--fixed-cidr 10.9.0.0/25", "fixed_cidr: Some((10.9.0.0, 25))"),
        ("--fixed-cidr-v6 fd00:9::/80", "fixed_cidr_v6: Some((fd00:9::, 80))"),
        ("--group nine", r#"group: "nine""#),
        ("--host unix:///nine", r#"hosts: ["unix:///nine"]"#),
        ("--host-gateway-ip 192.0.2.9", "host_gateway_ips: [192.0.2.9]"),
        ("--http-proxy http://nine", r#"http: "http://nine""#),
        ("--https-proxy http://nine", r#"https: "http://nine""#),
        ("--no-proxy nine", r#"no: "nine""#),
        ("--icc=false", "icc: false"),
        ("--init", "init: true"),
        ("--insecure-registry nine:5000", r#"insecure_registries: ["nine:5000"]"#),
        ("--ip 192.0.2.9", "host_ip: Some(192.0.2.9)"),
        ("--ip-forward=false", "ip_forward: false"),
        ("--ip-masq=false", "ip_masquerade: false"),
        ("--ip6tables=false", "ip6tables: false"),
        ("--iptables=false", "iptables: false"),
        ("--ipv6", "ipv6: true"),
        ("--label a=nine", r#"labels: {"a": "nine"}"#),
        ("--live-restore=false", "live_restore: false"),
        ("--log-driver local", r#"driver: "local""#),
        ("--log-format json", "format: Json"),
        ("--log-level warn", "level: LevelFilter::WARN"),
        ("--log-opt max-size=9m", r#"options: {"max-size": "9m"}"#),
        ("--max-concurrent-downloads 9", "downloads_max: 9"),
        ("--max-concurrent-uploads 9", "uploads_max: 9"),
        ("--max-download-attempts 9", "download_attempts_max: 9"),
        ("--max-unpacked-size 9g", "unpacked_max: Some(9663676416)"),
        ("--mtu 1499", "mtu: 1499"),
        ("--no-new-privileges", "no_new_privileges: true"),
        ("--pidfile /nine", r#"pidfile: "/nine""#),
        ("--registry-mirror http://nine", r#"registry_mirrors: ["http://nine/"]"#),
        ("--seccomp-profile unconfined", "seccomp_profile: Unconfined"),
        ("--shutdown-timeout 9", "shutdown_timeout_s: 9"),
        ("--storage-driver overlay2", r#"storage_driver: Some("overlay2")"#),
        ("--userland-proxy=false", "userland_proxy: false"),
    ];

    #[test]
    fn what_is_shown_to_clients_follows_the_flags() {
        let read = |args: &str| {
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            settings(flags::parse(&args).unwrap()).unwrap()
        };
        assert_eq!(read("").cdi_spec_dirs, CDI_SPEC_DIRS);
        assert_eq!(read("--cdi-spec-dir /x").cdi_spec_dirs, ["/x"]);
        assert_eq!(read("--feature cdi=0").cdi_spec_dirs, [""; 0]);
        assert!(read("--experimental").experimental && !read("").experimental);
        let network = read("--iptables=false --ip6tables=false").engine.network;
        assert!(!network.iptables && !network.ip6tables);
    }

    #[test]
    fn tls_verifies_clients_when_asked_to() {
        let files = |args: &str| {
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            settings(flags::parse(&args).unwrap()).unwrap().tls
        };
        assert_eq!(files("--tls=false"), None);
        let all = files("--tlsverify --tlscacert /a --tlscert /c --tlskey /k").unwrap();
        assert_eq!(all.authority, Some(PathBuf::from("/a")));
        assert_eq!((all.certificate, all.key), (PathBuf::from("/c"), PathBuf::from("/k")));
        assert_eq!(files("--tls --tlscacert /a").unwrap().authority, None);
        assert_eq!(files("--tlsverify=false").unwrap().authority, None);
    }

    #[test]
    fn a_default_is_no_wish() {
        check(
            "--selinux-enabled=false",
            expect![[r#"["unix:///run/tug.sock"] /run/tug.pid /var/lib/tug LevelFilter::INFO"#]],
        );
    }

    #[test]
    fn bad_values_are_refused() {
        check("--log-level loud", expect!["invalid log-level: invalid logging level: loud"]);
        check("--bip nonsense", expect!["invalid bip: nonsense: want ADDRESS/LENGTH"]);
        check(
            "--storage-driver zfs",
            expect!["invalid storage-driver: zfs: Tug has overlay2 only"],
        );
        check("--label novalue", expect!["invalid labels: bad attribute format: novalue"]);
    }
}
