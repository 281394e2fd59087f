//! Names of containers: what the daemon knows and the monitors' resolvers answer from.
//!
//! ```text
//! <exec-root>/networks/<network id>/zone.json     one a network, rewritten at each change
//! <exec-root>/containers/<container id>/resolver.json
//!                                                 which zones a container sees, and its upstreams
//! ```
//! Both are replaced by rename, so a reader has either the old or the new whole file, and sees a
//! change by the file's inode number (`stat`). A zone that is gone answers nothing.
//!
//! How a question is answered (done by the monitor): a trailing `.` is cut, letters are compared
//! in lower case; the zones are asked in order, first the name itself, then, if it ends in
//! `.<network name>`, the part before. A name that a zone has, but not in the family asked for, is
//! an empty NOERROR. Everything else goes to the upstreams, unless every zone is `internal`.
//!
//! Invariant: one writer a file, the daemon. Fields are only ever added, for monitors outlive it.

use std::collections::BTreeMap;
use std::io;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// File name of a network's zone, in the network's directory.
pub const ZONE_FILE: &str = "zone.json";
/// File name of a container's resolver settings, in the container's run directory.
pub const RESOLVER_FILE: &str = "resolver.json";

/// The names on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The network's name: `redis.backend` is asked for as well as `redis`.
    pub network: String,
    /// No way out: questions that only internal zones could answer are not forwarded.
    #[serde(default)]
    pub internal: bool,
    /// Lower-case name → addresses: container names, aliases, short ids, host names.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Address → name for PTR questions (without the network's name).
    #[serde(default)]
    pub addresses: BTreeMap<IpAddr, String>,
}

/// What one container's resolver does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Zone files in the order in which they are asked.
    pub zones: Vec<PathBuf>,
    /// Names that only this container has (`--link` on user networks), lower case → addresses.
    #[serde(default)]
    pub links: BTreeMap<String, Vec<IpAddr>>,
    /// At most three are asked, each for 4 seconds.
    pub upstreams: Vec<Upstream>,
}

/// A server to forward to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub server: SocketAddr,
    /// From which network namespace the server is reached.
    pub from: From,
}

/// Where a question to an upstream server is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The container's namespace: servers that the user named.
    Container,
    /// The host's: its loopback servers (127.0.0.53) exist only there.
    Host,
}

#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    #[error("cannot write {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} is damaged")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// Replaces `path` by `document` in one step. The directory must exist.
///
/// Not synced: the files live in the exec root and are rewritten at daemon start.
pub fn write<T: Serialize>(path: &Path, document: &T) -> Result<(), ZoneError> {
    let write = |source| ZoneError::Write { path: path.to_owned(), source };
    let text = serde_json::to_vec(document).map_err(|error| write(error.into()))?;
    let new = path.with_extension("json.new");
    let mut file = std::fs::File::create(&new).map_err(write)?;
    file.write_all(&text).map_err(write)?;
    std::fs::rename(&new, path).map_err(write)
}

/// Reads a [`Zone`] or [`Resolver`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ZoneError> {
    let text =
        std::fs::read(path).map_err(|source| ZoneError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|source| ZoneError::Damaged { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let path = std::env::temp_dir().join(format!("tug-zone-{}.json", std::process::id()));
        let zone = Zone {
            network: "backend".into(),
            internal: false,
            names: BTreeMap::from([("redis".into(), vec!["172.18.0.2".parse().unwrap()])]),
            addresses: BTreeMap::from([("172.18.0.2".parse().unwrap(), "redis".into())]),
        };
        write(&path, &zone).unwrap();
        assert_eq!(read::<Zone>(&path).unwrap(), zone);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read::<Zone>(&path), Err(ZoneError::Read { .. })));
    }
}
