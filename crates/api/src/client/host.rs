//! Where a daemon is: the value of `-H` and `DOCKER_HOST`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Tug's own socket.
pub const SOCKET_DEFAULT: &str = "/run/tug.sock";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    Tcp {
        name: String,
        port: u16,
    },
    /// The target as ssh takes it, and the port if given.
    Ssh {
        target: String,
        port: Option<u16>,
    },
}

impl Default for Host {
    fn default() -> Self {
        Self::Unix(PathBuf::from(SOCKET_DEFAULT))
    }
}

/// Source: docker CLI 28.2 `opts/hosts.go`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("unable to parse docker host `{0}`")]
    NoScheme(String),
    #[error("invalid bind address ({0}): unsupported proto {1}")]
    Scheme(String, String),
    #[error("invalid bind address format: {0}")]
    Address(String),
}

/// Source: docker CLI 28.2 `opts/hosts.go`.
const PORT: u16 = 2375;
const PORT_TLS: u16 = 2376;

impl Host {
    /// As [`str::parse`], with the port that TLS has where none is given.
    ///
    /// # Errors
    /// When the text names no place.
    pub fn parse_tls(text: &str) -> Result<Self, HostError> {
        parse(text, PORT_TLS)
    }

    /// What stands in the `Host:` header.
    #[must_use]
    pub(super) fn http_host(&self) -> String {
        match self {
            // RFC 9110 asks for a name where there is none to give; Docker's own stand-in.
            Self::Unix(_) | Self::Ssh { .. } => "api.moby.localhost".to_owned(),
            Self::Tcp { name, port } if name.contains(':') => format!("[{name}]:{port}"),
            Self::Tcp { name, port } => format!("{name}:{port}"),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        parse(text, PORT)
    }
}

fn parse(text: &str, port_default: u16) -> Result<Host, HostError> {
    let bad = || HostError::Address(text.to_owned());
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(HostError::NoScheme(text.to_owned()));
    };
    match scheme {
        "unix" if rest.is_empty() => Ok(Host::default()),
        "unix" => Ok(Host::Unix(PathBuf::from(rest))),
        "tcp" | "http" => {
            let (name, port) = split_port(rest.trim_end_matches('/')).ok_or_else(bad)?;
            Ok(Host::Tcp {
                name: if name.is_empty() { "127.0.0.1".to_owned() } else { name },
                port: port.unwrap_or(port_default),
            })
        }
        "ssh" => {
            let rest = rest.trim_end_matches('/');
            let (user, place) = match rest.rsplit_once('@') {
                Some((user, place)) => (Some(user), place),
                None => (None, rest),
            };
            let (name, port) = split_port(place).ok_or_else(bad)?;
            // A target that ssh would read as an option is no host.
            if name.is_empty() || rest.starts_with('-') || rest.contains('/') {
                return Err(bad());
            }
            let target = match user {
                Some(user) => format!("{user}@{name}"),
                None => name,
            };
            Ok(Host::Ssh { target, port })
        }
        other => Err(HostError::Scheme(text.to_owned(), other.to_owned())),
    }
}

/// `name[:port]` with IPv6 in brackets; `None` when the port is no number.
fn split_port(place: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (name, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((name.to_owned(), Some(port.parse().ok()?))),
            None if port.is_empty() => Some((name.to_owned(), None)),
            None => None,
        };
    }
    match place.rsplit_once(':') {
        Some((name, port)) => Some((name.to_owned(), Some(port.parse().ok()?))),
        None => Some((place.to_owned(), None)),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { .. } => write!(f, "tcp://{}", self.http_host()),
            Self::Ssh { target, port: None } => write!(f, "ssh://{target}"),
            Self::Ssh { target, port: Some(port) } => write!(f, "ssh://{target}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, want: Expect) {
        want.assert_eq(&match text.parse::<Host>() {
            Ok(host) => host.to_string(),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn hosts_have_a_scheme_and_an_address() {
        check("unix:///tmp/x.sock", expect!["unix:///tmp/x.sock"]);
        check("unix://", expect!["unix:///run/tug.sock"]);
        check("tcp://10.0.0.1", expect!["tcp://10.0.0.1:2375"]);
        check("tcp://:4000", expect!["tcp://127.0.0.1:4000"]);
        check("tcp://[::1]:5", expect!["tcp://[::1]:5"]);
        check("ssh://me@there:22", expect!["ssh://me@there:22"]);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        check("there", expect!["unable to parse docker host `there`"]);
        check("ftp://x", expect!["invalid bind address (ftp://x): unsupported proto ftp"]);
        check("tcp://a:b", expect!["invalid bind address format: tcp://a:b"]);
        check(
            "ssh://-oProxyCommand=x",
            expect!["invalid bind address format: ssh://-oProxyCommand=x"],
        );
    }
}
