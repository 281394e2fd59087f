//! Which capabilities a container's processes may have.
//!
//! Source: capabilities(7); moby `oci/caps/utils.go`, `oci/caps/defaults.go`.

use crate::error::{Error, Result};
use crate::workloads::Privileges;

/// All that Linux has, in the order of their numbers.
pub const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A capability as the user named it: `all`, `NET_ADMIN`, `cap_net_admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    All,
    One(&'static str),
}

/// # Errors
/// `Invalid` for an unknown name.
pub fn parse(text: &str) -> Result<Named> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(Named::All);
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let known = ALL.iter().find(|name| name.strip_prefix("CAP_") == Some(bare));
    known
        .map(|name| Named::One(name))
        .ok_or_else(|| Error::invalid(format!("unknown capability: \"CAP_{bare}\"")))
}

/// The capabilities after adding and dropping. `last` is the kernel's highest one.
///
/// # Errors
/// `Invalid` for an unknown name.
pub fn resolve(
    privileges: Privileges,
    add: &[String],
    drop: &[String],
    last: usize,
) -> Result<Vec<String>> {
    let known = &ALL[..ALL.len().min(last + 1)];
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    if privileges == Privileges::All {
        return Ok(owned(known));
    }
    let add = add.iter().map(|name| parse(name)).collect::<Result<Vec<_>>>()?;
    let drop = drop.iter().map(|name| parse(name)).collect::<Result<Vec<_>>>()?;
    let wanted = |name: &&'static str| {
        let added = add.contains(&Named::One(name));
        let dropped = drop.contains(&Named::One(name));
        let base = if drop.contains(&Named::All) {
            // ALL in both lists leaves what add names, and all else.
            add.contains(&Named::All)
        } else if add.contains(&Named::All) {
            !dropped
        } else {
            DEFAULT.contains(name) && !dropped
        };
        base || added
    };
    Ok(known.iter().copied().filter(wanted).map(str::to_owned).collect())
}

/// The same in the kernel's terms.
#[must_use]
pub fn set(names: &[String]) -> sys::capability::Set {
    sys::capability::Set::parse(names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], want: usize, has: &str) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let got = resolve(Privileges::Default, &owned(add), &owned(drop), 40).unwrap();
        assert_eq!(got.len(), want, "{got:?}");
        assert!(has.is_empty() || got.iter().any(|name| name == has), "{got:?}");
    }

    #[test]
    fn adding_and_dropping_follows_docker() {
        check(&[], &[], 14, "CAP_CHOWN");
        check(&["net_admin"], &["CAP_CHOWN"], 14, "CAP_NET_ADMIN");
        check(&[], &["all"], 0, "");
        check(&["KILL"], &["ALL"], 1, "CAP_KILL");
        check(&["ALL"], &["SYS_ADMIN"], 40, "CAP_BPF");
        assert!(parse("nope").is_err());
    }
}
