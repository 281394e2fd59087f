//! Kernel settings that belong to one of a container's namespaces, by a grammar.
//!
//! ```text
//! setting = "kernel." one of IPC below | "kernel.domainname"
//!         | "fs.mqueue." segment
//!         | "net." segment { "." segment }
//! segment = letters, digits and _ - . @ : +             but neither . nor ..
//! ```
//!
//! As in sysctl(8), whichever of `.` and `/` comes first separates, and the other stands for the dot of
//! a segment such as an interface's name (`net.ipv4.conf.eth0/1.forwarding`). Whatever is no word of
//! this grammar is the host's: a path is made of checked segments only.
//!
//! Source: runc `libcontainer/configs/validate` for which ones there are.

use std::fmt;
use std::path::PathBuf;

/// The namespace that has its own value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Ipc,
    Network,
    Uts,
}

/// A setting that a container may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    segments: Vec<String>,
    owner: Owner,
}

/// Why a name is no setting of a container's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    #[error("sysctl {0:?} is not in a separate kernel namespace")]
    HostsOwn(String),
    #[error("sysctl {0:?} is not allowed as it conflicts with the OCI \"hostname\" field")]
    Hostname(String),
}

const IPC: [&str; 8] =
    ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

impl Sysctl {
    /// # Errors
    /// When the name is none that a namespace of a container owns.
    pub fn parse(name: &str) -> Result<Self, SysctlError> {
        let hosts_own = || SysctlError::HostsOwn(name.to_owned());
        let separator = name.chars().find(|letter| matches!(letter, '.' | '/')).unwrap_or('.');
        let segments: Vec<String> =
            name.split(separator).map(|segment| segment.replace('/', ".")).collect();
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let owner = match words.as_slice() {
            ["kernel", "hostname"] => return Err(SysctlError::Hostname(name.to_owned())),
            ["kernel", "domainname"] => Owner::Uts,
            ["kernel", word] if IPC.contains(word) => Owner::Ipc,
            ["fs", "mqueue", _] => Owner::Ipc,
            ["net", _, ..] => Owner::Network,
            _ => return Err(hosts_own()),
        };
        if !words.iter().all(|word| is_segment(word)) {
            return Err(hosts_own());
        }
        Ok(Self { segments, owner })
    }

    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The setting's file, from the top of a proc file system.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        [String::from("sys")].iter().chain(&self.segments).collect()
    }
}

/// In the form of which [`Sysctl::parse`] makes the same setting again.
impl fmt::Display for Sysctl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for segment in &self.segments {
            write!(out, "{separator}{}", segment.replace('.', "/"))?;
            separator = ".";
        }
        Ok(())
    }
}

fn is_segment(word: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_alphanumeric() || b"_-.@:+".contains(&letter);
    !matches!(word, "" | "." | "..") && word.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: Option<&str>) {
        let found = Sysctl::parse(name).ok().map(|found| found.path().display().to_string());
        assert_eq!(found.as_deref(), want, "{name}");
        if let Ok(found) = Sysctl::parse(name) {
            assert_eq!(Sysctl::parse(&found.to_string()), Ok(found), "{name}");
        }
    }

    #[test]
    fn the_first_separator_decides() {
        check("net.ipv4.ip_forward", Some("sys/net/ipv4/ip_forward"));
        check("net/ipv4/conf/eth0.1/forwarding", Some("sys/net/ipv4/conf/eth0.1/forwarding"));
        check("net.ipv4.conf.eth0/1.forwarding", Some("sys/net/ipv4/conf/eth0.1/forwarding"));
        check("kernel/shmmax", Some("sys/kernel/shmmax"));
        check("fs.mqueue.msg_max", Some("sys/fs/mqueue/msg_max"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in [
            "net.//.kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net//kernel",
            "net..kernel",
            "net./.x",
            "net.",
            "net",
            "net.ipv4.",
            ".net.ipv4.x",
            "/net/ipv4/x",
            "netx.ipv4",
            "net.ipv4.ip_forward\n",
            "net.\0.x",
            "fs.mqueue.a.b",
            "fs.mqueue.//",
            "fs.mqueue.",
            "fs.mqueuex.y",
            "kernel.msgmax.x",
            "kernel.shm_next_id",
            "kernel.core_pattern",
            "kernel/msgmax/../core_pattern",
            "vm.overcommit_memory",
            "",
        ] {
            check(name, None);
        }
        assert!(matches!(Sysctl::parse("kernel.hostname"), Err(SysctlError::Hostname(_))));
    }
}
