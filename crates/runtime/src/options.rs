//! Mount options of an OCI document, sorted into what the kernel's calls take.
//!
//! Source: OCI runtime-spec `config.md`, "Linux mount options"; mount(8).

use std::io;
use std::os::fd::OwnedFd;

use sys::mount::{Attributes, Depth, Filesystem, Propagation};

/// What the options of one mount say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub set: Attributes,
    pub clear: Attributes,
    /// Attributes for the mounts below as well: `rro` and its like.
    pub set_below: Attributes,
    pub clear_below: Attributes,
    pub propagation: Option<(Propagation, Depth)>,
    pub bind: Option<Depth>,
    /// Owners are shown through mappings: those of the mount, or else the container's.
    pub map_ids: Option<Depth>,
    pub copy_up: CopyUp,
    /// The rest: options of the file system itself.
    pub data: Vec<String>,
}

/// Whether a tmpfs starts with what the image has at its place.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyUp {
    #[default]
    No,
    Yes,
}

/// A file system as the options of mount(8) describe it, mounted nowhere yet.
///
/// # Errors
/// With the kernel's own words about what it refuses.
pub fn file_system<'a>(
    kind: &str,
    source: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> io::Result<OwnedFd> {
    let options = Options::parse(options);
    let filesystem = Filesystem::open(kind)?;
    filesystem.set("source", source.as_bytes())?;
    filesystem.set_options(options.data.iter().map(String::as_str))?;
    filesystem.mount(options.set)
}

impl Options {
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option);
        }
        parsed
    }

    fn take(&mut self, option: &str) {
        if let Some((attribute, on)) = attribute(option) {
            let (to, from) = if on {
                (&mut self.set, &mut self.clear)
            } else {
                (&mut self.clear, &mut self.set)
            };
            *to = to.with(attribute);
            *from = from.without(attribute);
            return;
        }
        if let Some((attribute, on)) = option.strip_prefix('r').and_then(attribute) {
            let below = if on { &mut self.set_below } else { &mut self.clear_below };
            *below = below.with(attribute);
            return;
        }
        match option {
            "bind" => self.bind = Some(Depth::Only),
            "rbind" => self.bind = Some(Depth::Recursive),
            "private" => self.propagation = Some((Propagation::Private, Depth::Only)),
            "rprivate" => self.propagation = Some((Propagation::Private, Depth::Recursive)),
            "slave" => self.propagation = Some((Propagation::Slave, Depth::Only)),
            "rslave" => self.propagation = Some((Propagation::Slave, Depth::Recursive)),
            "shared" => self.propagation = Some((Propagation::Shared, Depth::Only)),
            "rshared" => self.propagation = Some((Propagation::Shared, Depth::Recursive)),
            "unbindable" => self.propagation = Some((Propagation::Unbindable, Depth::Only)),
            "runbindable" => self.propagation = Some((Propagation::Unbindable, Depth::Recursive)),
            "idmap" => self.map_ids = Some(Depth::Only),
            "ridmap" => self.map_ids = Some(Depth::Recursive),
            "tmpcopyup" => self.copy_up = CopyUp::Yes,
            // Defaults, and words for fstab and Docker that ask nothing of the kernel.
            "" | "defaults" | "async" | "loud" | "nomand" | "norelatime" | "nostrictatime"
            | "cached" | "delegated" | "consistent" | "z" | "Z" | "auto" | "noauto" | "user"
            | "nouser" | "_netdev" | "nofail" => {}
            other => self.data.push(other.to_owned()),
        }
    }
}

fn attribute(option: &str) -> Option<(Attributes, bool)> {
    Some(match option {
        "ro" => (Attributes::READ_ONLY, true),
        "rw" => (Attributes::READ_ONLY, false),
        "nosuid" => (Attributes::NO_SUID, true),
        "suid" => (Attributes::NO_SUID, false),
        "nodev" => (Attributes::NO_DEV, true),
        "dev" => (Attributes::NO_DEV, false),
        "noexec" => (Attributes::NO_EXEC, true),
        "exec" => (Attributes::NO_EXEC, false),
        "noatime" => (Attributes::NO_ATIME, true),
        "atime" | "relatime" => (Attributes::ATIME_FIELD, false),
        "strictatime" => (Attributes::STRICT_ATIME, true),
        "nodiratime" => (Attributes::NO_DIR_ATIME, true),
        "diratime" => (Attributes::NO_DIR_ATIME, false),
        "nosymfollow" => (Attributes::NO_SYMLINK_FOLLOW, true),
        "symfollow" => (Attributes::NO_SYMLINK_FOLLOW, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_propagation_and_data_are_told_apart() {
        let options = Options::parse([
            "nosuid", "noexec", "rbind", "rprivate", "rro", "size=64m", "mode=755",
        ]);
        assert_eq!(options.set, Attributes::NO_SUID.with(Attributes::NO_EXEC));
        assert_eq!(options.set_below, Attributes::READ_ONLY);
        assert_eq!(options.bind, Some(Depth::Recursive));
        assert_eq!(options.propagation, Some((Propagation::Private, Depth::Recursive)));
        assert_eq!(options.data, ["size=64m", "mode=755"]);
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        let options = Options::parse(["ro", "rw"]);
        assert_eq!((options.set, options.clear), (Attributes::NONE, Attributes::READ_ONLY));
    }
}
