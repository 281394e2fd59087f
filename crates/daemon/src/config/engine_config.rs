//! The engine's part of the settings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use engine::config::{NetworkSettings, OtherRuntime, Proxies, SeccompDefault, Unpacking};
use engine::containers::spec::{CgroupnsMode, IpcMode, LogSpec, Ulimit};
use engine::{EngineConfig, Live};
use serde_json::Value;
use spec::units::ram_in_bytes;

use super::{ConfigError, DATA_ROOT, EXEC_ROOT, Reader};

type Result<T> = std::result::Result<T, ConfigError>;

pub fn read(reader: &Reader<'_>) -> Result<EngineConfig> {
    let path = |key: &str, default: &str| match reader.text(key) {
        "" => PathBuf::from(default),
        path => PathBuf::from(path),
    };
    let storage_driver = match reader.text("storage-driver") {
        "" => None,
        "overlay2" | "overlay" | "overlayfs" => Some("overlay2".to_owned()),
        other => {
            return Err(ConfigError::value(
                "storage-driver",
                format!("{other}: Tug has overlay2 only"),
            ));
        }
    };
    let (cache, entitlements) = super::builder::read(reader.0.get("builder"))?;
    Ok(EngineConfig {
        data_root: absolute("data-root", path("data-root", DATA_ROOT))?,
        exec_root: absolute("exec-root", path("exec-root", EXEC_ROOT))?,
        exe: PathBuf::from("/proc/self/exe"),
        storage_driver,
        unpacked_max: match reader.text("max-unpacked-size") {
            "" => None,
            text => Some(ram_in_bytes(text).ok().filter(|size| *size > 0).ok_or_else(|| {
                ConfigError::value("max-unpacked-size", format!("invalid size: '{text}'"))
            })?),
        },
        unpacking: Unpacking::Confined,
        live: live(reader)?,
        log: log(reader)?,
        default_ulimits: ulimits(reader)?,
        default_ipc: match reader.text("default-ipc-mode") {
            "" | "private" => IpcMode::Private,
            "shareable" => IpcMode::Shareable,
            other => {
                let why = format!("IPC mode {other:?} is not supported as a daemon default");
                return Err(ConfigError::value("default-ipc-mode", why));
            }
        },
        default_cgroupns: reader
            .parsed::<CgroupnsMode>("default-cgroupns-mode")?
            .unwrap_or_default(),
        cgroup_parent: reader.text("cgroup-parent").to_owned(),
        init: reader.flag("init", false),
        no_new_privileges: reader.flag("no-new-privileges", false),
        seccomp_profile: seccomp(reader.text("seccomp-profile"))?,
        network: network(reader)?,
        proxies: proxies(reader),
        cache,
        entitlements,
    })
}

/// The settings that count from a reload on.
fn live(reader: &Reader<'_>) -> Result<Live> {
    let default = Live::default();
    Ok(Live {
        labels: labels(reader)?,
        debug: reader.flag("debug", false),
        default_shm_size: match reader.text("default-shm-size") {
            "" => default.default_shm_size,
            text => ram_in_bytes(text).map_err(|_| {
                ConfigError::value("default-shm-size", format!("invalid size: '{text}'"))
            })?,
        },
        default_runtime: match reader.text("default-runtime") {
            "" => default.default_runtime,
            name => name.to_owned(),
        },
        runtimes: runtimes(reader)?,
        registry_mirrors: reader.list("registry-mirrors").into_iter().map(slashed).collect(),
        insecure_registries: reader.list("insecure-registries"),
        downloads_max: count(reader, "max-concurrent-downloads", default.downloads_max)?,
        uploads_max: count(reader, "max-concurrent-uploads", default.uploads_max)?,
        download_attempts_max: count(
            reader,
            "max-download-attempts",
            default.download_attempts_max,
        )?,
    })
}

/// A mirror's address as info shows it.
fn slashed(url: String) -> String {
    format!("{}/", url.trim_end_matches('/'))
}

/// A number from one on; 0 is the default.
///
/// Source: moby 28.2 `daemon/config/config.go`, `Validate`.
fn count(reader: &Reader<'_>, key: &'static str, default: NonZeroU32) -> Result<NonZeroU32> {
    match reader.integer(key, 0) {
        0 => Ok(default),
        number => u32::try_from(number).ok().and_then(NonZeroU32::new).ok_or_else(|| {
            let what = key.trim_start_matches("max-").replace('-', " ");
            ConfigError::value(key, format!("invalid max {what}: {number}"))
        }),
    }
}

fn absolute(key: &'static str, path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|error| ConfigError::value(key, error))
}

/// Source: moby 28.2 `opts/opts.go`, `ValidateLabel`.
fn labels(reader: &Reader<'_>) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in reader.list("labels") {
        let Some((key, value)) = label.split_once('=') else {
            return Err(ConfigError::value("labels", format!("bad attribute format: {label}")));
        };
        let before = labels.insert(key.to_owned(), value.to_owned());
        if before.is_some_and(|before| before != value) {
            return Err(ConfigError::value("labels", format!("conflict labels for {key}")));
        }
    }
    Ok(labels)
}

fn log(reader: &Reader<'_>) -> Result<LogSpec> {
    let driver = match reader.text("log-driver") {
        "" => "json-file",
        driver @ ("json-file" | "local" | "none") => driver,
        other => {
            return Err(ConfigError::value(
                "log-driver",
                format!("no log driver named '{other}' is registered"),
            ));
        }
    };
    let mut options = BTreeMap::new();
    for (key, value) in reader.entries("log-opts") {
        let Value::String(value) = value else {
            return Err(ConfigError::value("log-opts", format!("{key}: values must be strings")));
        };
        options.insert(key.to_owned(), value.clone());
    }
    let log = LogSpec { driver: driver.to_owned(), options };
    engine::containers::log_options::validate(&log)
        .map_err(|error| ConfigError::value("log-opts", error.message))?;
    Ok(log)
}

/// `nofile=1:2` on the command line, `{"nofile":{"Name":…,"Soft":1,"Hard":2}}` in the file.
fn ulimits(reader: &Reader<'_>) -> Result<Vec<Ulimit>> {
    let bad = |name: &str, value: &Value| {
        ConfigError::value("default-ulimits", format!("{name}={value}"))
    };
    reader
        .entries("default-ulimits")
        .map(|(name, value)| {
            let (soft, hard) = match value {
                Value::String(text) => {
                    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
                    (soft.parse().ok(), hard.parse().ok())
                }
                Value::Object(fields) => {
                    let field = |name: &str| fields.get(name).and_then(Value::as_i64);
                    (field("Soft"), field("Hard"))
                }
                Value::Number(both) => (both.as_i64(), both.as_i64()),
                Value::Null | Value::Bool(_) | Value::Array(_) => (None, None),
            };
            match (soft, hard) {
                (Some(soft), Some(hard)) if soft <= hard || hard == -1 => {
                    Ok(Ulimit { name: name.to_owned(), soft, hard })
                }
                _ => Err(bad(name, value)),
            }
        })
        .collect()
}

fn seccomp(text: &str) -> Result<SeccompDefault> {
    match text {
        "" | "builtin" => Ok(SeccompDefault::Builtin),
        "unconfined" => Ok(SeccompDefault::Unconfined),
        path => std::fs::read_to_string(path)
            .map(SeccompDefault::Profile)
            .map_err(|source| ConfigError::Read { path: PathBuf::from(path), source }),
    }
}

/// `--add-runtime name=path`, and `runtimes` with paths and arguments in the file.
fn runtimes(reader: &Reader<'_>) -> Result<BTreeMap<String, OtherRuntime>> {
    let mut runtimes = BTreeMap::new();
    for (name, path) in reader.entries("add-runtime") {
        let path = PathBuf::from(path.as_str().unwrap_or_default());
        runtimes.insert(name.to_owned(), OtherRuntime { path, args: Vec::new() });
    }
    for (name, value) in reader.entries("runtimes") {
        let bad = |why: &str| ConfigError::value("runtimes", format!("{name}: {why}"));
        let fields = value.as_object().ok_or_else(|| bad("want an object"))?;
        if fields.contains_key("runtimeType") || fields.contains_key("options") {
            return Err(bad(
                "runtimeType names a containerd shim, and Tug has none; give the runtime's path",
            ));
        }
        if let Some(other) =
            fields.keys().find(|key| !matches!(key.as_str(), "path" | "runtimeArgs"))
        {
            return Err(bad(&format!("unknown key {other}")));
        }
        let path = fields.get("path").and_then(Value::as_str).ok_or_else(|| bad("no path"))?;
        let args = fields.get("runtimeArgs").and_then(Value::as_array).into_iter().flatten();
        let runtime = OtherRuntime {
            path: PathBuf::from(path),
            args: args.filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        if runtimes.insert(name.to_owned(), runtime).is_some() {
            return Err(bad("given as a flag, too"));
        }
    }
    // Source: moby 28.2 `daemon/runtime_unix.go`.
    let reserved = |name: &&String| {
        matches!(name.as_str(), "tug" | "runc") || name.starts_with("io.containerd.")
    };
    if let Some(name) = runtimes.keys().find(reserved) {
        return Err(ConfigError::value("runtimes", format!("runtime name '{name}' is reserved")));
    }
    Ok(runtimes)
}

fn proxies(reader: &Reader<'_>) -> Proxies {
    let value = |key: &str, variables: [&str; 2]| match reader.text(key) {
        "" => variables.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default(),
        text => text.to_owned(),
    };
    Proxies {
        http: value("http-proxy", ["HTTP_PROXY", "http_proxy"]),
        https: value("https-proxy", ["HTTPS_PROXY", "https_proxy"]),
        no: value("no-proxy", ["NO_PROXY", "no_proxy"]),
    }
}

fn subnet(reader: &Reader<'_>, key: &'static str) -> Result<Option<(IpAddr, u8)>> {
    match reader.text(key) {
        "" => Ok(None),
        text => match parse_subnet(text) {
            Some(subnet) => Ok(Some(subnet)),
            None => Err(ConfigError::value(key, format!("{text}: want ADDRESS/LENGTH"))),
        },
    }
}

fn parse_subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (length <= bits).then_some((address, length))
}

fn addresses(reader: &Reader<'_>, key: &'static str) -> Result<Vec<IpAddr>> {
    reader
        .list(key)
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|_| ConfigError::value(key, format!("{text} is not an IP address")))
        })
        .collect()
}

fn network(reader: &Reader<'_>) -> Result<NetworkSettings> {
    let host_ip = reader.parsed::<IpAddr>("ip")?.filter(|ip| !ip.is_unspecified());
    let bridge = reader.text("bridge");
    let mtu = match u32::try_from(reader.integer("mtu", 0)) {
        Ok(0) => NetworkSettings::default().mtu,
        Ok(mtu) => mtu,
        Err(_) => return Err(ConfigError::value("mtu", "it is negative")),
    };
    Ok(NetworkSettings {
        bridge: (!bridge.is_empty()).then(|| bridge.to_owned()),
        bip: subnet(reader, "bip")?,
        bip6: subnet(reader, "bip6")?,
        fixed_cidr: subnet(reader, "fixed-cidr")?,
        fixed_cidr_v6: subnet(reader, "fixed-cidr-v6")?,
        default_gateway: reader.parsed("default-gateway")?,
        default_gateway_v6: reader.parsed("default-gateway-v6")?,
        address_pools: address_pools(reader)?,
        default_options: default_options(reader)?,
        mtu,
        icc: reader.flag("icc", true),
        ipv6: reader.flag("ipv6", false),
        ip_forward: reader.flag("ip-forward", true),
        ip_masquerade: reader.flag("ip-masq", true),
        iptables: reader.flag("iptables", true),
        ip6tables: reader.flag("ip6tables", true),
        userland_proxy: reader.flag("userland-proxy", true),
        host_ip,
        host_gateway_ips: addresses(reader, "host-gateway-ips")?,
        dns: addresses(reader, "dns")?,
        dns_options: reader.list("dns-opts"),
        dns_search: reader.list("dns-search"),
        resolv_conf: match reader.text("resolv-conf") {
            "" => None,
            path => Some(PathBuf::from(path)),
        },
    })
}

/// `base=10.0.0.0/8,size=24` on the command line, `{"base":…,"size":…}` in the file.
fn address_pools(reader: &Reader<'_>) -> Result<Vec<(IpAddr, u8, u8)>> {
    let key = "default-address-pools";
    let items = reader.0.get(key).and_then(Value::as_array).into_iter().flatten();
    items
        .map(|item| {
            let bad =
                || ConfigError::value(key, format!("{item}: want base=ADDRESS/LENGTH,size=LENGTH"));
            let (base, size) = match item {
                Value::String(text) => {
                    let field = |name: &str| {
                        let mut fields =
                            text.split(',').filter_map(|field| field.trim().split_once('='));
                        fields
                            .find(|(key, _)| key.eq_ignore_ascii_case(name))
                            .map(|(_, value)| value.to_owned())
                    };
                    (field("base"), field("size").and_then(|size| size.parse().ok()))
                }
                Value::Object(fields) => {
                    let size = fields.get("size").and_then(Value::as_u64);
                    let base = fields.get("base").and_then(Value::as_str);
                    (base.map(str::to_owned), size.and_then(|size| u8::try_from(size).ok()))
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => (None, None),
            };
            let (base, length) = base.as_deref().and_then(parse_subnet).ok_or_else(bad)?;
            let size = size.filter(|size| *size >= length).ok_or_else(bad)?;
            Ok((base, length, size))
        })
        .collect()
}

/// Options by driver.
fn default_options(reader: &Reader<'_>) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut options: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (driver, value) in reader.entries("default-network-opts") {
        let bad = || ConfigError::value("default-network-opts", format!("{driver}={value}"));
        let of_driver = options.entry(driver.to_owned()).or_default();
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    of_driver.insert(key.clone(), value.as_str().ok_or_else(bad)?.to_owned());
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                return Err(bad());
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_in_powers_of_1024() {
        let read = |text: &str| {
            let values = super::super::Values::from([("default-shm-size", text.into())]);
            live(&Reader(&values)).map(|live| live.default_shm_size)
        };
        for (text, want) in [("64m", 64 << 20), ("1.5g", 3 << 29), ("1 GiB", 1 << 30)] {
            assert_eq!(read(text).unwrap(), want, "{text}");
        }
        for text in ["x", "1q", "-1"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(&format!("invalid size: '{text}'")), "{error}");
        }
    }

    #[test]
    fn pools_have_two_spellings() {
        let values = super::super::Values::from([(
            "default-address-pools",
            serde_json::json!(["base=10.0.0.0/8,size=24", {"base": "fd00::/48", "size": 64}]),
        )]);
        let pools = address_pools(&Reader(&values)).unwrap();
        assert_eq!(
            pools,
            [("10.0.0.0".parse().unwrap(), 8, 24), ("fd00::".parse().unwrap(), 48, 64)]
        );
    }
}
