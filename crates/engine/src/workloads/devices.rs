//! Device nodes of the host, and which of them runs get.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use runs::workload::{
    DeviceAccess, DeviceKind, DeviceNode, DeviceNumber, DeviceRule, PathInside, Verdict,
};

use super::Privileges;
use crate::error::{Error, Kind, Result};

/// A device on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    pub path: String,
    pub kind: DeviceKind,
    pub number: DeviceNumber,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What was found on the host of the devices that a run names.
#[derive(Debug, Clone, Default)]
pub struct HostDevices {
    /// By the path that was named; a directory has several.
    pub named: BTreeMap<String, Vec<HostDevice>>,
    /// All of the host's, for a privileged run.
    pub all: Vec<HostDevice>,
}

impl HostDevices {
    /// Looks at each path on the host, and at all devices for a privileged run. Blocking.
    ///
    /// # Errors
    /// `Internal`, as Docker has it, when one is not there.
    pub fn find<'a>(
        privileges: Privileges,
        paths: impl IntoIterator<Item = &'a String>,
    ) -> Result<Self> {
        let all = match privileges {
            Privileges::All => under(Path::new("/dev")),
            Privileges::Default => Vec::new(),
        };
        let named = paths.into_iter().map(|path| Ok((path.clone(), at(path)?)));
        Ok(Self { named: named.collect::<Result<_>>()?, all })
    }

    pub fn at(&self, path: &str) -> &[HostDevice] {
        self.named.get(path).map_or(&[], Vec::as_slice)
    }

    pub fn number(&self, path: &str) -> Option<DeviceNumber> {
        self.at(path).first().map(|device| device.number)
    }
}

impl HostDevice {
    /// The same device at a place in a run.
    pub fn node(&self, path: String) -> DeviceNode {
        DeviceNode {
            path: PathInside::new(path),
            kind: self.kind,
            number: self.number,
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
        }
    }
}

/// The node at a path, or all nodes below it when it is a directory.
fn at(path: &str) -> Result<Vec<HostDevice>> {
    let failed = |source| {
        let text =
            format!("error gathering device information while adding custom device \"{path}\"");
        Error::because(Kind::Internal, text, source)
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let found = if metadata.is_dir() {
        under(Path::new(path))
    } else {
        Vec::from_iter(device(Path::new(path), &metadata))
    };
    if found.is_empty() {
        return Err(Error::internal(format!(
            "error gathering device information while adding custom device \"{path}\": not a device node"
        )));
    }
    Ok(found)
}

/// All nodes below a directory, less what every container has of its own.
///
/// Source: runc `libcontainer/devices`.
fn under(dir: &Path) -> Vec<HostDevice> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let own = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
        if entry.file_name().to_str().is_none_or(|name| own.contains(&name)) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            found.extend(under(&path));
        } else {
            found.extend(device(&path, &metadata));
        }
    }
    found
}

fn device(path: &Path, metadata: &fs::Metadata) -> Option<HostDevice> {
    let file_type = metadata.file_type();
    let kind = match (file_type.is_char_device(), file_type.is_block_device()) {
        (true, _) => DeviceKind::Character,
        (_, true) => DeviceKind::Block,
        (false, false) => return None,
    };
    let number = metadata.rdev();
    Some(HostDevice {
        path: path.to_str()?.to_owned(),
        kind,
        number: DeviceNumber { major: rustix::fs::major(number), minor: rustix::fs::minor(number) },
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// What every run may do with devices; a privileged one may do all.
///
/// Source: moby `oci/defaults.go`.
pub(crate) fn default_rules(privileges: Privileges) -> Vec<DeviceRule> {
    let rule =
        |verdict, kind, major, minor, access| DeviceRule { verdict, kind, major, minor, access };
    let character = Some(DeviceKind::Character);
    let all = |verdict| rule(verdict, None, None, None, DeviceAccess::ALL);
    match privileges {
        Privileges::All => vec![all(Verdict::Allow)],
        Privileges::Default => {
            let allow =
                |major, minor| rule(Verdict::Allow, character, major, minor, DeviceAccess::ALL);
            let make = |kind| rule(Verdict::Allow, kind, None, None, DeviceAccess::MKNOD);
            // fuse(4) is named as Docker names it, and first: runc cannot take one device out of a
            // wider rule.
            let fuse = rule(Verdict::Deny, character, Some(10), Some(229), DeviceAccess::ALL);
            let mut rules =
                vec![all(Verdict::Deny), fuse, make(character), make(Some(DeviceKind::Block))];
            // null, zero, full, random, urandom, tty, console, ptmx: mem(4), random(4), tty(4), pts(4).
            for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
                rules.push(allow(Some(major), Some(minor)));
            }
            rules.push(allow(Some(136), None));
            rules
        }
    }
}

/// The rule by which a run may use one device.
pub(crate) fn allow(device: &HostDevice, access: DeviceAccess) -> DeviceRule {
    DeviceRule {
        verdict: Verdict::Allow,
        kind: Some(device.kind),
        major: Some(device.number.major),
        minor: Some(device.number.minor),
        access,
    }
}
