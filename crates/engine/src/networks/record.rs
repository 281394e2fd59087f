//! What is kept of a network: `networks/<id>.json` in the data root.
//!
//! Invariant: written whole and renamed, by [`super::Networks`] only. Leases are not in it: a
//! running container's record holds its addresses, and a stopped container has none.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use net::Subnet;
use serde::{Deserialize, Serialize};
use spec::Id;

use crate::error::{Error, Kind, Result};

/// What makes a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Bridge,
    Macvlan,
    Host,
    Null,
}

impl Driver {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRecord {
    pub subnet: Subnet,
    #[serde(default)]
    pub range: Option<Subnet>,
    pub gateway: IpAddr,
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Whether the user chose it; only then may containers ask for addresses.
    #[serde(default)]
    pub chosen: bool,
}

/// A subnet that a network was given of a family that it has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleSubnet {
    pub subnet: Subnet,
    pub range: Option<Subnet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A network's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub version: u32,
    pub id: Id,
    pub name: String,
    pub created_at: SystemTime,
    pub driver: Driver,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub config_only: bool,
    #[serde(default)]
    pub config_from: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub subnets: Vec<SubnetRecord>,
    #[serde(default)]
    pub idle: Vec<IdleSubnet>,
    /// Name of the bridge, or of the macvlan's parent; empty for the others.
    pub interface: String,
    /// The bridge was there before the network, and stays when it goes.
    #[serde(default)]
    pub adopted: bool,
    /// Addresses that such a bridge has from us; they go with the network.
    #[serde(default)]
    pub added: Vec<Subnet>,
}

/// Source: moby 28.2 `libnetwork/drivers/macvlan/macvlan_setup.go`, `getDummyName`.
pub fn dummy_name(id: &Id) -> String {
    format!("dm-{}", id.short())
}

/// Names that Docker reserves, each with its driver.
pub const PREDEFINED: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

impl NetworkRecord {
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        PREDEFINED.iter().any(|(name, _)| *name == self.name)
    }

    /// The default bridge has no names, no aliases and no chosen addresses.
    #[must_use]
    pub fn is_default_bridge(&self) -> bool {
        self.name == "bridge"
    }

    /// The parent that a macvlan network without one has from us.
    #[must_use]
    pub fn dummy_parent(&self) -> Option<&str> {
        let ours = self.driver == Driver::Macvlan && self.interface == dummy_name(&self.id);
        ours.then_some(self.interface.as_str())
    }

    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// A yes/no option with Go's spellings; `default` when it is not set or unreadable.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        match self.option(key) {
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(_) | None => default,
        }
    }

    pub fn subnet(&self, ipv4: bool) -> Option<&SubnetRecord> {
        self.subnets.iter().find(|subnet| subnet.subnet.is_ipv4() == ipv4)
    }

    fn path(dir: &Path, id: &Id) -> PathBuf {
        dir.join(format!("{id}.json"))
    }

    /// Writes the record so that after a crash there is either the old or the new one.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir, &self.id);
        let failed = |source: std::io::Error| {
            Error::because(Kind::Internal, format!("cannot write {}", path.display()), source)
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let new = path.with_extension("json.new");
        let mut file = fs::File::create(&new).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    pub fn delete(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir, &self.id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::because(
                Kind::Internal,
                format!("cannot remove {}", path.display()),
                error,
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All records of the directory. A damaged one is left out and logged; its bridge stays.
    pub fn load_all(dir: &Path) -> Vec<NetworkRecord> {
        let mut records = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                // Half of a record, from a crash or a full disk.
                let _ = fs::remove_file(&path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = fs::read(&path).map_err(|error| error.to_string());
            match read
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()))
            {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(path = %path.display(), error, "network record is unreadable")
                }
            }
        }
        records
    }
}
