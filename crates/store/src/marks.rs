//! What overlayfs and the kernel mark files with: whiteouts, opaque directories, attributes that are not
//! everybody's.

use rustix::fs::{FileType, Stat};

/// Marks a directory that hides its namesakes below.
///
/// Source: kernel `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether this is overlayfs' mark for "removed": a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an attribute is overlayfs' own. From an archive it would redirect lookups in the layers
/// below; into an archive it would carry this machine's inode numbers.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether the kernel leaves an attribute to the host's root alone: xattr(7).
pub(crate) fn is_privileged_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.")
}
