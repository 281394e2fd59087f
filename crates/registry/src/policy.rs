//! Where a registry's endpoints are and how far each is trusted.
//!
//! The order in which endpoints are tried: mirrors (Docker Hub's from `registry-mirrors`, any
//! host's from its `hosts.toml`), https, and http only where the host is insecure. Loopback is
//! insecure by itself.
//!
//! Source: moby `registry/config.go`, `registry/service_v2.go`; containerd `docs/hosts.md`.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::Uri;

use crate::dial::{Trust, Verify};

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

/// A place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// `host[:port]`.
    pub authority: String,
    /// Before `/v2/`; begins with a slash or is empty.
    pub prefix: String,
    pub role: Role,
    pub trust: Arc<Trust>,
}

impl Endpoint {
    /// The address of `path` below `/v2/`.
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        format!("{scheme}://{}{}/v2/{path}", self.authority, self.prefix)
    }
}

/// The files of `certs.d/HOST/`, read by whoever may read files. PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFiles {
    pub authorities: Vec<Vec<u8>>,
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

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
                None if text.is_empty() || text.contains(['/', ' ']) => {
                    return Err(PolicyError::Insecure(text.to_owned()));
                }
                None => policy.insecure_hosts.push(text.to_ascii_lowercase()),
            }
        }
        for text in mirrors {
            policy.hub_mirrors.push(mirror(text)?);
        }
        Ok(policy)
    }

    /// Whether http and unknown certificates will do for `authority`.
    pub fn is_insecure(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = host_of(&authority);
        if self.insecure_hosts.iter().any(|listed| *listed == authority || listed == host) {
            return true;
        }
        let address = if host == "localhost" {
            Some(IpAddr::from([127, 0, 0, 1]))
        } else {
            host.parse().ok()
        };
        address.is_some_and(|address: IpAddr| {
            address.is_loopback()
                || self.insecure_ranges.iter().any(|range| range.contains(address))
        })
    }

    /// How far `authority` is trusted, with what is in its directory.
    pub fn trust(&self, authority: &str, files: HostFiles) -> Arc<Trust> {
        let verify = if self.is_insecure(authority) { Verify::No } else { Verify::Yes };
        Arc::new(Trust { verify, authorities: files.authorities, client: files.client })
    }

    /// Where to pull images of `domain` from, in the order of trying. `files` reads a host's
    /// directory.
    pub fn pull_endpoints(&self, domain: &str, files: &dyn Fn(&str) -> HostFiles) -> Vec<Endpoint> {
        let mirrors: &[(Scheme, String, String)] =
            if domain == HUB_DOMAIN { &self.hub_mirrors } else { &[] };
        let mirrors = mirrors.iter().map(|(scheme, authority, prefix)| Endpoint {
            scheme: *scheme,
            authority: authority.clone(),
            prefix: prefix.clone(),
            role: Role::Mirror,
            trust: self.trust(authority, files(authority)),
        });
        mirrors.chain(self.registry_endpoints(domain, files)).collect()
    }

    /// Where to push images of `domain`, in the order of trying.
    pub fn registry_endpoints(
        &self,
        domain: &str,
        files: &dyn Fn(&str) -> HostFiles,
    ) -> Vec<Endpoint> {
        let authority = match domain {
            HUB_DOMAIN | "index.docker.io" => HUB_HOST,
            other => other,
        };
        let trust = self.trust(authority, files(authority));
        let endpoint = |scheme| Endpoint {
            scheme,
            authority: authority.to_owned(),
            prefix: String::new(),
            role: Role::Registry,
            trust: Arc::clone(&trust),
        };
        let mut endpoints = vec![endpoint(Scheme::Https)];
        if self.is_insecure(authority) {
            endpoints.push(endpoint(Scheme::Http));
        }
        endpoints
    }
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => match authority.rsplit_once(':') {
            Some((host, _)) if !host.contains(':') => host,
            _ => authority,
        },
    }
}

fn mirror(text: &str) -> Result<(Scheme, String, String), PolicyError> {
    let bad = || PolicyError::Mirror(text.to_owned());
    let url: Uri = text.parse().map_err(|_| bad())?;
    let scheme = match url.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        other => {
            let scheme = other.unwrap_or_default().to_owned();
            return Err(PolicyError::MirrorScheme { scheme, url: text.to_owned() });
        }
    };
    let authority =
        url.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
    Ok((scheme, authority.to_string(), url.path().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let insecure = ["reg.example:5000", "10.0.0.0/8", "plain.example"].map(str::to_owned);
        Policy::parse(&insecure, &["https://mirror.example/hub/".to_owned()]).unwrap()
    }

    #[track_caller]
    fn check(domain: &str, want: &[&str]) {
        let endpoints = policy().pull_endpoints(domain, &|_| HostFiles::default());
        let urls: Vec<String> = endpoints.iter().map(|endpoint| endpoint.url("")).collect();
        assert_eq!(urls, want);
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
        check("docker.io", &["https://mirror.example/hub/v2/", "https://registry-1.docker.io/v2/"]);
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
        assert!(refused("a/b", "").is_err());
        assert!(refused("", "ftp://mirror").unwrap_err().contains("unsupported scheme"));
        assert!(refused("", "https://user:word@mirror").is_err());
        assert!(refused("::1", "http://mirror").is_ok());
    }
}
