//! Whether a bind's source can propagate mounts as the wish says. Pure but for [`check`].
//!
//! Source: moby 28.2 `daemon/oci_linux.go` (`ensureShared`, `ensureSharedOrSlave`),
//! proc_pid_mountinfo(5).

use std::path::Path;

use crate::error::{Error, Result};

/// Refuses a propagation that the mount of `source` does not have.
///
/// # Errors
/// `Internal`, as Docker has it.
pub(crate) fn check(source: &Path, propagation: &str) -> Result<()> {
    let peers = match propagation.strip_prefix('r').unwrap_or(propagation) {
        "shared" => &["shared:"][..],
        "slave" => &["shared:", "master:"],
        _ => return Ok(()),
    };
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let Some((place, fields)) = mount_of(&table, &path) else { return Ok(()) };
    if fields.iter().any(|field| peers.iter().any(|peer| field.starts_with(peer))) {
        return Ok(());
    }
    let kind = if peers.len() == 1 { "shared" } else { "shared or slave" };
    let path = path.display();
    Err(Error::internal(format!("path {path} is mounted on {place} but it is not a {kind} mount")))
}

/// The mount point that a path is on, and its optional fields; of several on one point the last
/// covers the others.
fn mount_of<'a>(table: &'a str, path: &Path) -> Option<(String, Vec<&'a str>)> {
    let mut best: Option<(String, Vec<&str>)> = None;
    for line in table.lines() {
        let mut words = line.split(' ');
        let Some(place) = words.nth(4).map(unescape) else { continue };
        let longer = best.as_ref().is_none_or(|(known, _)| place.len() >= known.len());
        if longer && path.starts_with(&place) {
            best = Some((place, words.skip(1).take_while(|word| *word != "-").collect()));
        }
    }
    best
}

/// Spaces and their like stand as `\040`.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts_and_the_last_on_a_point() {
        let table = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n\
                     2 1 8:2 / /a\\040b rw master:7 - ext4 /dev/b rw\n\
                     3 1 8:3 / /data rw shared:2 - ext4 /dev/c rw\n\
                     4 3 8:4 / /data rw - tmpfs t rw\n";
        for (path, place, fields) in [
            ("/home", "/", &["shared:1"][..]),
            ("/a b/c", "/a b", &["master:7"]),
            ("/data/x", "/data", &[]),
            ("/database", "/", &["shared:1"]),
        ] {
            let found = mount_of(table, Path::new(path)).unwrap();
            assert_eq!(found, (place.to_owned(), fields.to_vec()), "{path}");
        }
    }
}
