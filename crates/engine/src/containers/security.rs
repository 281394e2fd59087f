//! `--security-opt`, parsed.
//!
//! Source: moby `daemon/daemon_unix.go` `parseSecurityOpt`.

use crate::error::{Error, Result};

/// What the options say; `None` leaves it to the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    pub no_new_privileges: Option<bool>,
    pub seccomp: Option<Seccomp>,
    /// Empty is unset.
    pub apparmor: String,
    /// SELinux labels; without SELinux on the host they have no effect.
    pub labels: Vec<String>,
    pub system_paths_unconfined: bool,
    pub writable_cgroups: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    Builtin,
    Unconfined,
    /// A profile's JSON.
    Profile(String),
}

impl SecurityOptions {
    /// # Errors
    /// `Invalid` for an unknown option.
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            // The colon is the separator of old clients.
            let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((key, value)) => (key, Some(value)),
                None => (option.as_str(), None),
            };
            let boolean = |value: Option<&str>| match value {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(_) => Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            };
            match (key, value) {
                ("no-new-privileges", value) => parsed.no_new_privileges = Some(boolean(value)?),
                ("writable-cgroups", value) => parsed.writable_cgroups = boolean(value)?,
                ("disable", None) => parsed.labels.push("disable".to_owned()),
                ("label", Some(value)) => parsed.labels.push(value.to_owned()),
                ("apparmor", Some(value)) => value.clone_into(&mut parsed.apparmor),
                ("seccomp", Some(value)) => {
                    parsed.seccomp = Some(match value {
                        "builtin" => Seccomp::Builtin,
                        "unconfined" => Seccomp::Unconfined,
                        json => Seccomp::Profile(json.to_owned()),
                    });
                }
                ("systempaths", Some("unconfined")) => parsed.system_paths_unconfined = true,
                (_, None) => {
                    return Err(Error::invalid(format!("invalid --security-opt 1: \"{option}\"")));
                }
                (_, Some(_)) => {
                    return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\"")));
                }
            }
        }
        Ok(parsed)
    }
}
