//! Where a registry's endpoints are and how far each is trusted.
//!
//! The order in which endpoints are tried: the hosts of the domain's `hosts.toml`, Docker Hub's
//! `registry-mirrors`, and last the registry: the file's `server`, else https under the domain's own
//! name, and http only where that is insecure. Loopback is insecure by itself.
//!
//! Who is asked under another name than the registry's is a mirror, which is shown no credentials.
//!
//! Source: moby `registry/config.go`, `registry/service_v2.go`; containerd `docs/hosts.md`.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use crate::dial::{Pair, Trust, Verify};
use crate::hosts::{Address, Asking, Capabilities, HostsFile};

/// The name under which Docker Hub's images are, and the host that answers for it.
pub const HUB_DOMAIN: &str = "docker.io";
pub const HUB_HOST: &str = "registry-1.docker.io";

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("invalid mirror: {0:?} is not a valid URI")]
    Mirror(String),
    #[error("invalid mirror: unsupported scheme {scheme:?} in {url:?}")]
    MirrorScheme { scheme: String, url: String },
    #[error("invalid mirror: query or fragment at end of the URI {0:?}")]
    MirrorQuery(String),
    #[error("insecure registry {0} is not valid: invalid host {0:?}")]
    Insecure(String),
}

/// Addresses by their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    length: u8,
}

impl Range {
    /// Reads `10.0.0.0/8`; a bare address is itself.
    pub fn parse(text: &str) -> Option<Range> {
        let (base, length) = match text.split_once('/') {
            Some((base, length)) => (base, Some(length.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().ok()?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(bits);
        (length <= bits).then_some(Range { base, length })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |base: u128, address: u128, bits: u32| {
            let drop = bits - u32::from(self.length);
            base.checked_shr(drop).unwrap_or(0) == address.checked_shr(drop).unwrap_or(0)
        };
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                same(base.to_bits().into(), address.to_bits().into(), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => same(base.to_bits(), address.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Https,
    Http,
}

/// Whether an endpoint is the registry or keeps copies of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Mirror,
    Registry,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Pull,
    Push,
}

/// A place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// `host[:port]`.
    pub authority: String,
    /// `/v2`, behind a path where the endpoint has one.
    pub root: String,
    pub role: Role,
    pub capabilities: Capabilities,
    /// Sent to this endpoint alone.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of whom a mirror is asked to give something; one mirror may serve many registries.
    ///
    /// Source: containerd `core/remotes/docker/resolver.go`, `addNamespace`.
    pub namespace: Option<String>,
    pub trust: Arc<Trust>,
}

impl Endpoint {
    /// The same with more headers; what no header may be is left out.
    #[must_use]
    pub fn with_headers(mut self, more: &[(String, String)]) -> Endpoint {
        let read =
            |(name, value): &(String, String)| Some((name.parse().ok()?, value.parse().ok()?));
        self.headers.extend(more.iter().filter_map(read));
        self
    }

    pub(crate) fn new(scheme: Scheme, authority: &str, role: Role, trust: Arc<Trust>) -> Endpoint {
        Endpoint {
            scheme,
            authority: authority.to_owned(),
            root: "/v2".to_owned(),
            role,
            capabilities: Capabilities::ALL,
            headers: Vec::new(),
            namespace: None,
            trust,
        }
    }

    /// A registry that is reached by other means than its address; see
    /// [`crate::transport::Transport::over`].
    pub fn of_dialer(name: &str, namespace: Option<String>) -> Endpoint {
        let trust = Arc::default();
        Endpoint { namespace, ..Endpoint::new(Scheme::Http, name, Role::Registry, trust) }
    }

    /// The address of `path` below `/v2/`.
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        format!("{scheme}://{}{}/{path}", self.authority, self.root)
    }

    /// Whether `url` is at this endpoint's own host, so that it may be told who we are.
    pub fn is_at(&self, url: &Uri) -> bool {
        let Some((scheme, authority, _)) = address_of(url) else { return false };
        scheme == self.scheme && same_authority(scheme, &authority, &self.authority)
    }
}

/// The files of a host's directory, read by whoever may read files. PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFiles {
    pub authorities: Vec<Vec<u8>>,
    pub clients: Vec<Pair>,
    pub hosts: Option<HostsFile>,
}

/// Reads a host's directory, by `host[:port]`.
pub type Files<'a, E> = &'a dyn Fn(&str) -> Result<HostFiles, E>;

/// What `daemon.json` says about registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    insecure_hosts: Vec<String>,
    insecure_ranges: Vec<Range>,
    hub_mirrors: Vec<(Scheme, String, String)>,
}

impl Policy {
    /// Reads `insecure-registries` and `registry-mirrors`.
    ///
    /// # Errors
    /// In Docker's words, when one of them is no host, range or address.
    pub fn parse(insecure: &[String], mirrors: &[String]) -> Result<Policy, PolicyError> {
        let mut policy = Policy::default();
        for text in insecure {
            let text = text.trim_start_matches("http://").trim_start_matches("https://");
            match Range::parse(text).filter(|_| text.contains('/')) {
                Some(range) => policy.insecure_ranges.push(range),
                None if !is_host(text) => return Err(PolicyError::Insecure(text.to_owned())),
                None => policy.insecure_hosts.push(text.to_ascii_lowercase()),
            }
        }
        for text in mirrors {
            policy.hub_mirrors.push(mirror(text)?);
        }
        Ok(policy)
    }

    /// Whether http and unknown certificates will do for `authority`. `addresses` are those of its
    /// name, where they were looked up: a name in a range is as insecure as its address.
    ///
    /// Source: moby `registry/config.go`, `isSecureIndex`.
    pub fn is_insecure(&self, authority: &str, addresses: &[IpAddr]) -> bool {
        self.is_insecure_by_name(authority) || addresses.iter().any(|one| self.lists(*one))
    }

    fn is_insecure_by_name(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = host_of(&authority);
        if self.insecure_hosts.iter().any(|listed| *listed == authority || listed == host) {
            return true;
        }
        let own = match host {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            host => host.parse().ok(),
        };
        own.is_some_and(|address| self.lists(address))
    }

    fn lists(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.insecure_ranges.iter().any(|range| range.contains(address))
    }

    /// How far `authority` is trusted, with what is in its directory. Who is insecure by the addresses
    /// of its name is connected to at these alone: the next look-up may give others.
    pub fn trust(&self, authority: &str, addresses: &[IpAddr], files: HostFiles) -> Trust {
        let mut judged = Vec::new();
        if !self.is_insecure_by_name(authority) {
            judged.extend(addresses.iter().copied().filter(|address| self.lists(*address)));
        }
        let verify = if self.is_insecure(authority, addresses) { Verify::No } else { Verify::Yes };
        let HostFiles { authorities, clients, hosts: _ } = files;
        Trust { verify, authorities, clients, dial_timeout: None, addresses: judged }
    }

    /// Where to go for images of `domain`, in the order of trying. `addresses` are the domain's.
    ///
    /// # Errors
    /// What `files` has to tell.
    pub fn endpoints<E>(
        &self,
        domain: &str,
        work: Work,
        addresses: &[IpAddr],
        files: Files<'_, E>,
    ) -> Result<Vec<Endpoint>, E> {
        let authority = registry_of(domain);
        let mut own = files(domain)?;
        let file = own.hosts.take().unwrap_or_default();
        if authority != domain {
            let more = files(authority)?;
            own.authorities.extend(more.authorities);
            own.clients.extend(more.clients);
        }
        let mut endpoints = Vec::new();
        for (address, asking) in file.hosts {
            endpoints.push(self.listed(domain, address, asking, files)?);
        }
        if domain == HUB_DOMAIN && work == Work::Pull {
            for (scheme, authority, path) in &self.hub_mirrors {
                let trust = Arc::new(self.trust(authority, &[], files(authority)?));
                let endpoint = Endpoint::new(*scheme, authority, Role::Mirror, trust);
                endpoints.push(Endpoint { root: format!("{path}/v2"), ..endpoint });
            }
        }
        match file.server {
            Some(address) => {
                let server = self.listed(domain, address, file.asking, files)?;
                let server = Endpoint { role: Role::Registry, namespace: None, ..server };
                let known = endpoints
                    .iter_mut()
                    .find(|known| known.authority == server.authority && known.root == server.root);
                match known {
                    // Asked in its place, with what is said there.
                    Some(known) => (known.role, known.namespace) = (Role::Registry, None),
                    None => endpoints.push(server),
                }
            }
            None => endpoints.extend(self.itself(authority, file.asking, addresses, own)),
        }
        endpoints.retain(|endpoint| match work {
            Work::Pull => endpoint.capabilities.pull || endpoint.capabilities.resolve,
            Work::Push => endpoint.capabilities.push,
        });
        Ok(endpoints)
    }

    /// An endpoint that stands in a file. It is the registry where it has its name.
    fn listed<E>(
        &self,
        domain: &str,
        address: Address,
        asking: Asking,
        files: Files<'_, E>,
    ) -> Result<Endpoint, E> {
        let Address { scheme, authority, root } = address;
        let is_registry = same_authority(scheme, &authority, registry_of(domain));
        let trust = self.trust(&authority, &[], files(&authority)?);
        let trust = Arc::new(asked(trust, &asking));
        let role = if is_registry { Role::Registry } else { Role::Mirror };
        Ok(Endpoint {
            root,
            capabilities: asking.capabilities,
            headers: asking.headers,
            namespace: (!is_registry).then(|| domain.to_owned()),
            ..Endpoint::new(scheme, &authority, role, trust)
        })
    }

    /// The registry under its own name.
    fn itself(
        &self,
        authority: &str,
        asking: Asking,
        addresses: &[IpAddr],
        files: HostFiles,
    ) -> Vec<Endpoint> {
        let trust = Arc::new(asked(self.trust(authority, addresses, files), &asking));
        let endpoint = |scheme| Endpoint {
            capabilities: asking.capabilities,
            headers: asking.headers.clone(),
            ..Endpoint::new(scheme, authority, Role::Registry, Arc::clone(&trust))
        };
        let mut endpoints = vec![endpoint(Scheme::Https)];
        if self.is_insecure(authority, addresses) {
            endpoints.push(endpoint(Scheme::Http));
        }
        endpoints
    }
}

fn asked(trust: Trust, asking: &Asking) -> Trust {
    let mut trust = Trust {
        verify: asking.verify.unwrap_or(trust.verify),
        dial_timeout: asking.dial_timeout,
        ..trust
    };
    trust.authorities.extend(asking.authorities.iter().cloned());
    trust.clients.extend(asking.clients.iter().cloned());
    trust
}

/// The host that answers for a domain.
pub fn registry_of(domain: &str) -> &str {
    match domain {
        HUB_DOMAIN | "index.docker.io" => HUB_HOST,
        other => other,
    }
}

pub fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => match authority.rsplit_once(':') {
            Some((host, _)) if !host.contains(':') => host,
            _ => authority,
        },
    }
}

/// Whether two names mean one host and port.
fn same_authority(scheme: Scheme, one: &str, other: &str) -> bool {
    let port = match scheme {
        Scheme::Https => ":443",
        Scheme::Http => ":80",
    };
    let plain = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.strip_suffix(port).map_or(text.clone(), str::to_owned)
    };
    plain(one) == plain(other)
}

/// Source: moby `registry/config.go`, `validateHostPort`, and RFC 3986, 3.2.2.
fn is_host(text: &str) -> bool {
    let host = host_of(text);
    let port = text.strip_prefix('[').map_or(text, |rest| rest.split(']').nth(1).unwrap_or("x"));
    let digits = port.rsplit_once(':').filter(|_| port.matches(':').count() == 1);
    let is_port = digits.is_none_or(|(_, digits)| digits.parse::<u16>().is_ok());
    let is_name = |text: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !text.is_empty() && text.bytes().all(letter)
    };
    is_port && (is_name(host) || host.parse::<IpAddr>().is_ok())
}

/// Scheme, authority and path of a plain http or https address.
pub(crate) fn address_of(url: &Uri) -> Option<(Scheme, String, String)> {
    let scheme = match url.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return None,
    };
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some((scheme, authority.to_string(), url.path().trim_end_matches('/').to_owned()))
}

/// Source: moby `registry/config.go`, `ValidateMirror`.
fn mirror(text: &str) -> Result<(Scheme, String, String), PolicyError> {
    let bad = || PolicyError::Mirror(text.to_owned());
    let url: Uri = text.parse().map_err(|_| bad())?;
    if !matches!(url.scheme_str(), Some("https" | "http")) {
        let scheme = url.scheme_str().unwrap_or_default().to_owned();
        return Err(PolicyError::MirrorScheme { scheme, url: text.to_owned() });
    }
    if url.query().is_some() || text.contains('#') {
        return Err(PolicyError::MirrorQuery(text.to_owned()));
    }
    address_of(&url).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let insecure = ["reg.example:5000", "10.0.0.0/8", "plain.example"].map(str::to_owned);
        Policy::parse(&insecure, &["https://mirror.example/hub/".to_owned()]).unwrap()
    }

    /// Addresses of endpoints; mirrors have a `~` in front.
    fn urls(
        policy: &Policy,
        domain: &str,
        work: Work,
        addresses: &[IpAddr],
        toml: &str,
    ) -> Vec<String> {
        let files = |name: &str| -> Result<HostFiles, crate::hosts::HostsError> {
            let text = if name == domain { toml } else { "" };
            let read = |_: &std::path::Path| Ok(Vec::new());
            Ok(HostFiles { hosts: Some(crate::hosts::parse(text, &read)?), ..HostFiles::default() })
        };
        let endpoints = policy.endpoints(domain, work, addresses, &files).unwrap();
        let shown = endpoints.iter().map(|endpoint| match endpoint.role {
            Role::Mirror => format!("~{}", endpoint.url("")),
            Role::Registry => endpoint.url(""),
        });
        shown.collect()
    }

    #[track_caller]
    fn check(domain: &str, want: &[&str]) {
        assert_eq!(urls(&policy(), domain, Work::Pull, &[], ""), want);
    }

    #[test]
    fn plain_http_is_for_insecure_hosts_alone() {
        check("secure.example", &["https://secure.example/v2/"]);
        check("reg.example:5000", &["https://reg.example:5000/v2/", "http://reg.example:5000/v2/"]);
        check("plain.example:80", &["https://plain.example:80/v2/", "http://plain.example:80/v2/"]);
        check("10.1.2.3:5000", &["https://10.1.2.3:5000/v2/", "http://10.1.2.3:5000/v2/"]);
        check("localhost:5000", &["https://localhost:5000/v2/", "http://localhost:5000/v2/"]);
        check("reg.example:5001", &["https://reg.example:5001/v2/"]);
    }

    #[test]
    fn mirrors_are_docker_hubs_and_come_first() {
        check(
            "docker.io",
            &["~https://mirror.example/hub/v2/", "https://registry-1.docker.io/v2/"],
        );
        let pushed = urls(&policy(), "docker.io", Work::Push, &[], "");
        assert_eq!(pushed, ["https://registry-1.docker.io/v2/"]);
    }

    #[test]
    fn a_name_that_is_insecure_by_its_address_is_connected_to_there() {
        let inside = IpAddr::from([10, 1, 2, 3]);
        let outside = IpAddr::from([192, 0, 2, 1]);
        let pinned = |authority: &str, addresses: &[IpAddr]| {
            policy().trust(authority, addresses, HostFiles::default()).addresses
        };
        assert_eq!(pinned("some.example", &[outside, inside]), [inside]);
        assert!(pinned("some.example", &[outside]).is_empty());
        assert!(pinned("plain.example", &[inside]).is_empty());
        assert!(pinned("10.1.2.3:5000", &[inside]).is_empty());
    }

    #[test]
    fn a_name_in_a_range_is_insecure() {
        let at = |address: &str| {
            urls(&policy(), "name.example", Work::Pull, &[address.parse().unwrap()], "").len()
        };
        assert_eq!([at("10.9.9.9"), at("127.0.0.1"), at("11.9.9.9")], [2, 2, 1]);
    }

    #[test]
    fn a_hosts_file_decides_the_order() {
        let hosts = "[host.\"http://m.example\"]\ncapabilities=[\"pull\"]\n[host.\"https://REG.example:443/x\"]\n";
        let of = |work, toml: &str| urls(&policy(), "reg.example", work, &[], toml);
        let itself = "https://REG.example:443/x/v2/";
        let last = "https://reg.example/v2/";
        assert_eq!(of(Work::Pull, hosts), ["~http://m.example/v2/", itself, last]);
        assert_eq!(of(Work::Push, hosts), [itself, last]);
        let server = format!("server = \"https://up.example\"\n{hosts}");
        assert_eq!(of(Work::Push, &server), [itself, "https://up.example/v2/"]);
        let without = "capabilities=[\"resolve\"]\n[host.\"m.example\"]\ncapabilities=[\"pull\"]";
        assert_eq!(of(Work::Push, without), [""; 0]);
        let listed = "server=\"https://m.example\"\n[host.\"https://m.example\"]";
        assert_eq!(of(Work::Pull, listed), ["https://m.example/v2/"]);
    }

    #[test]
    fn an_address_belongs_to_an_endpoint_by_scheme_host_and_port() {
        let trust = Arc::new(Trust::default());
        let endpoint = Endpoint::new(Scheme::Https, "reg.example", Role::Registry, trust);
        let is_at = |url: &str| endpoint.is_at(&url.parse().unwrap());
        assert!(is_at("https://reg.example/v2/x") && is_at("https://REG.example:443/"));
        assert!(!is_at("http://reg.example/v2/x") && !is_at("https://reg.example:5000/"));
        assert!(!is_at("https://reg.example.evil/") && !is_at("/v2/"));
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let refused = |insecure: &str, mirror: &str| {
            let list =
                |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
            Policy::parse(&list(insecure), &list(mirror))
                .map(drop)
                .map_err(|error| error.to_string())
        };
        for bad in ["a/b", "a b", "a:port", "a:1:2", "", "a:99999"] {
            let list = [bad.to_owned()];
            assert!(Policy::parse(&list, &[]).is_err(), "{bad}");
        }
        assert!(refused("", "https://mirror/?a=b").unwrap_err().contains("query or fragment"));
        assert!(refused("", "ftp://mirror").unwrap_err().contains("unsupported scheme"));
        assert!(refused("", "https://user:word@mirror").is_err());
        assert!(refused("::1", "http://mirror").is_ok());
        assert!(refused("[::1]:5000", "").is_ok());
    }
}
