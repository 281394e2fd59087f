//! Every setting of dockerd's: its key in `daemon.json`, its flag, its kind, and what becomes of it.
//!
//! A setting that is not implemented is refused by name, unless its value asks for nothing new: the
//! default, or what Tug does anyway. What is meant for a program or a mode that Tug does not have
//! (containerd, docker-proxy, swarm) changes nothing, as it would in Docker without that mode. Source: moby 28.2 `cmd/dockerd/config*.go`, `daemon/config/config*.go`.

use serde_json::{Value, json};

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Text,
    /// A flag given several times; a list in the file.
    List,
    /// `key=value` flags; an object in the file.
    Map,
    /// Any JSON, file only.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Works,
    /// Accepted and without effect, as in Docker.
    NoEffect,
    /// Refused, unless it is this default.
    NotYet(&'static str),
    /// Refused with these words, unless it is one of these values.
    Refused {
        but: &'static [&'static str],
        words: &'static str,
    },
}

#[derive(Debug)]
pub struct Key {
    /// In the file; empty for flags only.
    pub key: &'static str,
    /// Without the dashes; empty for the file only.
    pub flag: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub support: Support,
    pub help: &'static str,
}

const fn key(key: &'static str, flag: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { key, flag, short: None, kind, support: Support::Works, help }
}

impl Key {
    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn not_yet(mut self, default: &'static str) -> Self {
        self.support = Support::NotYet(default);
        self
    }

    const fn no_effect(mut self) -> Self {
        self.support = Support::NoEffect;
        self
    }

    const fn refused_but(mut self, but: &'static [&'static str], words: &'static str) -> Self {
        self.support = Support::Refused { but, words };
        self
    }

    /// The name under which values are kept.
    pub fn name(&self) -> &'static str {
        if self.key.is_empty() { self.flag } else { self.key }
    }
}

use Kind::{Bool, Int, Json, List, Map, Text};

/// Sorted by flag, as in dockerd's help; the ones without a flag stand last.
pub static KEYS: &[Key] = &[
    key("", "add-runtime", Map, "Register an additional OCI compatible runtime"),
    key(
        "allow-direct-routing",
        "allow-direct-routing",
        Bool,
        "Allow remote access to published ports on container IP addresses",
    )
    .not_yet("false"),
    key(
        "allow-nondistributable-artifacts",
        "allow-nondistributable-artifacts",
        List,
        "Allow push of nondistributable artifacts to registry",
    )
    .no_effect(),
    key("api-cors-header", "api-cors-header", Text, "Set CORS headers in the Engine API")
        .refused_but(
            &["\"\""],
            "api-cors-header is no longer supported; use a reverse proxy for CORS headers",
        ),
    key("authorization-plugins", "authorization-plugin", List, "Authorization plugins to load")
        .not_yet("[]"),
    key("bip", "bip", Text, "IPv4 address for the default bridge"),
    key("bip6", "bip6", Text, "IPv6 address for the default bridge"),
    key("bridge", "bridge", Text, "Attach containers to a network bridge").short('b'),
    key(
        "bridge-accept-fwmark",
        "bridge-accept-fwmark",
        Text,
        "Accept traffic with this firewall mark",
    )
    .not_yet("\"\""),
    key("cdi-spec-dirs", "cdi-spec-dir", List, "CDI specification directories to use"),
    key("cgroup-parent", "cgroup-parent", Text, "Set parent cgroup for all containers"),
    key("", "config-file", Text, "Daemon configuration file"),
    // Tug is its own containerd.
    key("containerd", "containerd", Text, "containerd grpc address").no_effect(),
    key("containerd-namespace", "containerd-namespace", Text, "Containerd namespace to use")
        .no_effect(),
    key(
        "containerd-plugin-namespace",
        "containerd-plugins-namespace",
        Text,
        "Containerd namespace to use for plugins",
    )
    .no_effect(),
    key("cpu-rt-period", "cpu-rt-period", Int, "Limit the CPU real-time period in microseconds")
        .not_yet("0"),
    key("cpu-rt-runtime", "cpu-rt-runtime", Int, "Limit the CPU real-time runtime in microseconds")
        .not_yet("0"),
    key("cri-containerd", "cri-containerd", Bool, "start containerd with cri").not_yet("false"),
    key("data-root", "data-root", Text, "Root directory of persistent state"),
    key("debug", "debug", Bool, "Enable debug mode").short('D'),
    key(
        "default-address-pools",
        "default-address-pool",
        List,
        "Default address pools for node specific local networks",
    ),
    key(
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        Text,
        "Default mode for containers cgroup namespace",
    ),
    key(
        "default-gateway",
        "default-gateway",
        Text,
        "Default gateway IPv4 address for the default bridge network",
    ),
    key(
        "default-gateway-v6",
        "default-gateway-v6",
        Text,
        "Default gateway IPv6 address for the default bridge network",
    ),
    key("default-ipc-mode", "default-ipc-mode", Text, "Default mode for containers ipc"),
    key("default-network-opts", "default-network-opt", Map, "Default network options"),
    key("default-runtime", "default-runtime", Text, "Default OCI runtime for containers"),
    key("default-shm-size", "default-shm-size", Text, "Default shm size for containers"),
    key("default-stop-timeout", "default-stop-timeout", Int, "Default stop timeout for containers")
        .not_yet("10"),
    key("default-ulimits", "default-ulimit", Map, "Default ulimits for containers"),
    key("dns", "dns", List, "DNS server to use"),
    key("dns-opts", "dns-opt", List, "DNS options to use"),
    key("dns-search", "dns-search", List, "DNS search domains to use"),
    key("exec-opts", "exec-opt", List, "Runtime execution options")
        .not_yet("[\"native.cgroupdriver=cgroupfs\"]"),
    key("exec-root", "exec-root", Text, "Root directory for execution state files"),
    key("experimental", "experimental", Bool, "Enable experimental features"),
    key("features", "feature", Map, "Enable feature in the daemon"),
    key(
        "firewall-backend",
        "firewall-backend",
        Text,
        "Firewall backend to use, iptables or nftables",
    )
    .refused_but(
        &["\"\"", "\"nftables\""],
        "firewall-backend: Tug filters with nftables alone; leave the option out, or say nftables",
    ),
    key("fixed-cidr", "fixed-cidr", Text, "IPv4 subnet for the default bridge network"),
    key("fixed-cidr-v6", "fixed-cidr-v6", Text, "IPv6 subnet for the default bridge network"),
    key("group", "group", Text, "Group for the unix socket").short('G'),
    key("", "help", Bool, "Print usage"),
    key("hosts", "host", List, "Daemon socket(s) to connect to").short('H'),
    key(
        "host-gateway-ips",
        "host-gateway-ip",
        List,
        "IP addresses that the special 'host-gateway' string in --add-host resolves to",
    ),
    key("http-proxy", "http-proxy", Text, "HTTP proxy URL to use for outgoing traffic"),
    key("https-proxy", "https-proxy", Text, "HTTPS proxy URL to use for outgoing traffic"),
    key("icc", "icc", Bool, "Enable inter-container communication for the default bridge network"),
    key("init", "init", Bool, "Run an init in the container to forward signals and reap processes"),
    key("init-path", "init-path", Text, "Path to the docker-init binary").refused_but(
        &["\"\"", "\"docker-init\""],
        "init-path: Tug is its own init, and runs no other program in its place",
    ),
    key("insecure-registries", "insecure-registry", List, "Enable insecure registry communication"),
    key("ip", "ip", Text, "Host IP for port publishing from the default bridge network"),
    key("ip-forward", "ip-forward", Bool, "Enable IP forwarding in system configuration"),
    // Whatever it is: the policy of other tables is never changed, and what may come in is decided
    // by our own.
    key(
        "ip-forward-no-drop",
        "ip-forward-no-drop",
        Bool,
        "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding",
    )
    .no_effect(),
    key("ip-masq", "ip-masq", Bool, "Enable IP masquerading for the default bridge network"),
    // What Tug filters by is a table of its own and no part of iptables; off means that iptables'
    // own table is left alone.
    key("ip6tables", "ip6tables", Bool, "Enable addition of firewall rules for IPv6"),
    key("iptables", "iptables", Bool, "Enable addition of firewall rules"),
    key("ipv6", "ipv6", Bool, "Enable IPv6 networking for the default bridge network"),
    key("labels", "label", List, "Set key=value labels to the daemon"),
    key(
        "live-restore",
        "live-restore",
        Bool,
        "Keep containers running when the daemon stops (default true)",
    ),
    key("log-driver", "log-driver", Text, "Default driver for container logs"),
    key("log-format", "log-format", Text, "Set the logging format (\"text\"|\"json\")"),
    key(
        "log-level",
        "log-level",
        Text,
        "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\")",
    )
    .short('l'),
    key("log-opts", "log-opt", Map, "Default log driver options for containers"),
    key(
        "max-concurrent-downloads",
        "max-concurrent-downloads",
        Int,
        "Set the max concurrent downloads",
    ),
    key("max-concurrent-uploads", "max-concurrent-uploads", Int, "Set the max concurrent uploads"),
    key(
        "max-download-attempts",
        "max-download-attempts",
        Int,
        "Set the max download attempts for each pull",
    ),
    key(
        "max-unpacked-size",
        "max-unpacked-size",
        Text,
        "What an image, layer, build context or copied archive may unpack to (default 2 GiB, or 500 times what came)",
    ),
    key(
        "metrics-addr",
        "metrics-addr",
        Text,
        "Set default address and port to serve the metrics api on",
    )
    .not_yet("\"\""),
    key("mtu", "mtu", Int, "Set the MTU for the default \"bridge\" network"),
    key("network-control-plane-mtu", "network-control-plane-mtu", Int, "Network Control plane MTU")
        .no_effect(),
    key(
        "network-diagnostic-port",
        "network-diagnostic-port",
        Int,
        "TCP port number of the network diagnostic server",
    )
    .not_yet("0"),
    key(
        "no-new-privileges",
        "no-new-privileges",
        Bool,
        "Set no-new-privileges by default for new containers",
    ),
    key(
        "no-proxy",
        "no-proxy",
        Text,
        "Comma-separated list of hosts or IP addresses for which the proxy is skipped",
    ),
    key("node-generic-resources", "node-generic-resource", List, "Advertise user-defined resource")
        .not_yet("[]"),
    key("pidfile", "pidfile", Text, "Path to use for daemon PID file").short('p'),
    // The log is never coloured, and its times are whole.
    key("raw-logs", "raw-logs", Bool, "Full timestamps without ANSI coloring").no_effect(),
    key("registry-mirrors", "registry-mirror", List, "Preferred registry mirror"),
    // What the option restarts is decided by each container's policy since Docker 1.2.
    key(
        "",
        "restart",
        Bool,
        "--restart on the daemon has been deprecated in favor of --restart policies on docker run",
    )
    .short('r')
    .no_effect(),
    key("rootless", "rootless", Bool, "Enable rootless mode").not_yet("false"),
    key("seccomp-profile", "seccomp-profile", Text, "Path to seccomp profile"),
    key("selinux-enabled", "selinux-enabled", Bool, "Enable selinux support").not_yet("false"),
    key("shutdown-timeout", "shutdown-timeout", Int, "Set the default shutdown timeout"),
    key("storage-driver", "storage-driver", Text, "Storage driver to use").short('s'),
    // The kernel is asked what it can do, and no list of versions.
    key("storage-opts", "storage-opt", List, "Storage driver options")
        .not_yet("[\"overlay2.override_kernel_check=true\",\"overlay2.override_kernel_check=1\"]"),
    key(
        "swarm-default-advertise-addr",
        "swarm-default-advertise-addr",
        Text,
        "Set default address or interface for swarm advertised address",
    )
    .no_effect(),
    key("tls", "tls", Bool, "Use TLS; implied by --tlsverify"),
    key("tlscacert", "tlscacert", Text, "Trust certs signed only by this CA"),
    key("tlscert", "tlscert", Text, "Path to TLS certificate file"),
    key("tlskey", "tlskey", Text, "Path to TLS key file"),
    key("tlsverify", "tlsverify", Bool, "Use TLS and verify the remote"),
    key("userland-proxy", "userland-proxy", Bool, "Use userland proxy for loopback traffic"),
    key("userland-proxy-path", "userland-proxy-path", Text, "Path to the userland proxy binary"),
    key("userns-remap", "userns-remap", Text, "User/Group setting for user namespaces")
        .not_yet("\"\""),
    key("", "validate", Bool, "Validate daemon configuration and exit"),
    key("", "version", Bool, "Print version information and quit").short('v'),
    key("builder", "", Json, ""),
    key("default-init", "", Text, "").refused_but(
        &["\"\"", "\"docker-init\""],
        "default-init: Tug is its own init, and runs no other program in its place",
    ),
    key("deprecated-key-path", "", Text, "").no_effect(),
    key("min-api-version", "", Text, "").not_yet("\"1.24\""),
    key("nri-opts", "", Json, "").not_yet("{\"enable\":false}"),
    key("resolv-conf", "", Text, ""),
    key("runtimes", "", Json, ""),
    key("swarm-raft-election-tick", "", Int, "").no_effect(),
    key("swarm-raft-heartbeat-tick", "", Int, "").no_effect(),
];

pub fn by_key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| !key.key.is_empty() && key.key == name)
}

pub fn by_flag(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| !key.flag.is_empty() && key.flag == name)
}

pub fn by_short(short: char) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.short == Some(short))
}

impl Kind {
    /// Whether a value of the file has this shape.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Int => value.is_i64(),
            Self::Text => value.is_string(),
            Self::List => value.is_array(),
            Self::Map => value.is_object(),
            Self::Json => true,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Text => "string",
            Self::List => "list",
            Self::Map => "map",
            Self::Json => "object",
        }
    }
}

/// Whether a value asks for nothing that the default does not give. Every entry of a list or map
/// must stand in the default's.
pub fn asks_nothing(value: &Value, default: &str) -> bool {
    let default: Value = serde_json::from_str(default).unwrap_or_else(|_| json!(null));
    match (value, &default) {
        (Value::Array(items), Value::Array(known)) => items.iter().all(|item| known.contains(item)),
        (Value::Object(items), Value::Object(known)) => {
            items.iter().all(|(key, value)| known.get(key) == Some(value))
        }
        _ => *value == default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_what_works() {
        let text = include_str!("../../../../docs/daemon.md");
        let part = |from: &str| {
            let rest = text.split_once(from).map_or("", |(_, rest)| rest);
            rest.split("\n\n").next().unwrap_or_default().to_owned()
        };
        for (heading, fits) in [
            ("**Work**:", (|support| support == Support::Works) as fn(Support) -> bool),
            ("**Not yet;", |support| matches!(support, Support::NotYet(_))),
            ("**Without effect,", |support| support == Support::NoEffect),
            ("**Refused**:", |support| matches!(support, Support::Refused { .. })),
        ] {
            let told = part(heading);
            for one in KEYS.iter().filter(|one| !one.key.is_empty()) {
                let is_told = told.contains(&format!("`{}`", one.key));
                // What a file alone may say is told only where it works.
                if fits(one.support) && (!one.flag.is_empty() || one.support == Support::Works) {
                    assert!(is_told, "{} is missing behind {heading}", one.key);
                } else if !fits(one.support) {
                    assert!(!is_told, "{} does not belong behind {heading}", one.key);
                }
            }
        }
    }

    #[test]
    fn names_are_unique_and_defaults_have_their_kind() {
        for (at, one) in KEYS.iter().enumerate() {
            for other in &KEYS[at + 1..] {
                assert!(one.key.is_empty() || one.key != other.key, "{}", one.key);
                assert!(one.flag.is_empty() || one.flag != other.flag, "{}", one.flag);
                assert!(one.short.is_none() || one.short != other.short, "{:?}", one.short);
            }
            if let Support::NotYet(default) = one.support {
                let value: Value = serde_json::from_str(default).unwrap();
                assert!(one.kind.accepts(&value), "{}", one.name());
            }
        }
    }

    #[test]
    fn a_default_asks_for_nothing() {
        assert!(asks_nothing(&json!({"buildkit": false}), "{\"buildkit\":false}"));
        assert!(!asks_nothing(&json!({"buildkit": true}), "{\"buildkit\":false}"));
        assert!(asks_nothing(&json!([]), "[]"));
        assert!(!asks_nothing(&json!(["x"]), "[]"));
        assert!(!asks_nothing(&json!(true), "false"));
    }
}
