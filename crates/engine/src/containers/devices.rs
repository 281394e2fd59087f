//! Device nodes of the host.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::derive::DeviceNode;
use crate::error::{Error, Kind, Result};

/// The node at a path, or all nodes below it when it is a directory.
///
/// # Errors
/// `Internal`, as Docker has it, when there is none.
pub fn at(path: &str) -> Result<Vec<DeviceNode>> {
    let failed = |source| {
        let text =
            format!("error gathering device information while adding custom device \"{path}\"");
        Error::because(Kind::Internal, text, source)
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let found = if metadata.is_dir() {
        under(Path::new(path))
    } else {
        Vec::from_iter(node(Path::new(path), &metadata))
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
#[must_use]
pub fn under(dir: &Path) -> Vec<DeviceNode> {
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
            found.extend(node(&path, &metadata));
        }
    }
    found
}

fn node(path: &Path, metadata: &fs::Metadata) -> Option<DeviceNode> {
    let file_type = metadata.file_type();
    let kind = match (file_type.is_char_device(), file_type.is_block_device()) {
        (true, _) => 'c',
        (_, true) => 'b',
        (false, false) => return None,
    };
    let number = metadata.rdev();
    Some(DeviceNode {
        path: path.to_str()?.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}
