//! `--security-opt`, parsed once when a request comes in; records keep the texts.
//!
//! Source: moby `daemon/daemon_unix.go` `parseSecurityOpt`.

use serde::{Deserialize, Serialize};

use crate::apparmor::Profile;
use crate::error::{Error, Result};

/// What the options say; `None` leaves it to the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct SecurityOptions {
    /// As they were given, for inspect.
    texts: Vec<String>,
    pub no_new_privileges: Option<bool>,
    pub seccomp: Option<Seccomp>,
    pub apparmor: Option<Profile>,
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
    pub fn parse(options: Vec<String>) -> Result<Self> {
        let mut parsed = Self::default();
        for option in &options {
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
                ("apparmor", Some(value)) => parsed.apparmor = Profile::parse(value),
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
        parsed.texts = options;
        Ok(parsed)
    }

    /// As they were given.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

impl TryFrom<Vec<String>> for SecurityOptions {
    type Error = Error;

    fn try_from(options: Vec<String>) -> Result<Self> {
        Self::parse(options)
    }
}

impl From<SecurityOptions> for Vec<String> {
    fn from(options: SecurityOptions) -> Self {
        options.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOptions> {
        SecurityOptions::parse(options.iter().map(|&option| option.to_owned()).collect())
    }

    #[test]
    fn options_are_parsed_once_and_kept_as_they_were_given() {
        let options = ["no-new-privileges", "apparmor=mine", "seccomp:unconfined", "label=disable"];
        let parsed = parse(&options).unwrap();
        assert_eq!(parsed.no_new_privileges, Some(true));
        assert_eq!(parsed.apparmor, Some(Profile::Named("mine".to_owned())));
        assert_eq!(parsed.seccomp, Some(Seccomp::Unconfined));
        let kept = serde_json::to_string(&parsed).unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(&kept).unwrap(), options);
        assert_eq!(serde_json::from_str::<SecurityOptions>(&kept).unwrap(), parsed);
        let last = parse(&["apparmor=mine", "apparmor=unconfined"]).unwrap();
        assert_eq!(last.apparmor, Some(Profile::Unconfined));
    }

    #[test]
    fn unknown_options_are_refused_in_dockers_words() {
        let refused = |option: &str| parse(&[option]).unwrap_err().message;
        assert_eq!(refused("x"), "invalid --security-opt 1: \"x\"");
        assert_eq!(refused("x=y"), "invalid --security-opt 2: \"x=y\"");
        assert_eq!(refused("systempaths=x"), "invalid --security-opt 2: \"systempaths=x\"");
    }
}
