//! `--mount`, `--volume` and `--tmpfs`.
//!
//! Source of the forms and words: docker/cli `opts/mount.go`, `compose/loader/volume.go`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::sizes::{csv_fields, ram_in_bytes};
use crate::args::go;

/// What `--mount` asked for. Only the options of its own type may be set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountValue {
    pub kind: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind: Option<BindValue>,
    pub volume: Option<VolumeValue>,
    pub image_subpath: Option<String>,
    pub tmpfs: Option<TmpfsValue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindValue {
    pub propagation: String,
    pub recursion: Recursion,
}

/// What a bind mount does with the mounts below its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recursion {
    #[default]
    Enabled,
    /// Mounts below are left out.
    Disabled,
    /// Only the top is read-only.
    Writable,
    /// All must become read-only, else it is an error.
    ReadOnly,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeValue {
    pub no_copy: bool,
    pub subpath: String,
    pub labels: BTreeMap<String, String>,
    pub driver: String,
    pub driver_options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TmpfsValue {
    pub size_bytes: i64,
    pub mode: u32,
}

/// Reads `--mount`'s value; a relative source is taken from the working directory.
pub fn parse(value: &str) -> Result<MountValue, String> {
    let mut mount = MountValue { kind: "volume".to_owned(), ..MountValue::default() };
    for field in csv_fields(value)? {
        match field.split_once('=') {
            Some((key, text)) => set(&mut mount, &field, &key.to_lowercase(), text)?,
            None => set_bare(&mut mount, &field)?,
        }
    }
    check_mount(&mount)?;
    Ok(mount)
}

fn set_bare(mount: &mut MountValue, field: &str) -> Result<(), String> {
    match field.to_lowercase().as_str() {
        "readonly" | "ro" => mount.read_only = true,
        "volume-nocopy" => mount.volume.get_or_insert_default().no_copy = true,
        "bind-nonrecursive" => {
            mount.bind.get_or_insert_default().recursion = Recursion::Disabled;
        }
        _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
    }
    Ok(())
}

fn set(mount: &mut MountValue, field: &str, key: &str, text: &str) -> Result<(), String> {
    let truth = || go::parse_bool(text).map_err(|_| format!("invalid value for {key}: {text}"));
    let pair = || {
        let (name, option) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), option.to_owned())
    };
    match key {
        "type" => mount.kind = text.to_lowercase(),
        "source" | "src" => mount.source = absolute(text),
        "target" | "dst" | "destination" => mount.target = text.to_owned(),
        "readonly" | "ro" => mount.read_only = truth()?,
        "consistency" => mount.consistency = text.to_lowercase(),
        "bind-propagation" => {
            mount.bind.get_or_insert_default().propagation = text.to_lowercase();
        }
        "bind-nonrecursive" => {
            if truth()? {
                mount.bind.get_or_insert_default().recursion = Recursion::Disabled;
            }
        }
        "bind-recursive" => {
            mount.bind.get_or_insert_default().recursion = match text {
                "enabled" => Recursion::Enabled,
                "disabled" => Recursion::Disabled,
                "writable" => Recursion::Writable,
                "readonly" => Recursion::ReadOnly,
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {text} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            }
        }
        "volume-subpath" => mount.volume.get_or_insert_default().subpath = text.to_owned(),
        "volume-nocopy" => {
            let no_copy = go::parse_bool(text)
                .map_err(|_| format!("invalid value for volume-nocopy: {text}"))?;
            mount.volume.get_or_insert_default().no_copy = no_copy;
        }
        "volume-label" => mount.volume.get_or_insert_default().labels.extend([pair()]),
        "volume-driver" => mount.volume.get_or_insert_default().driver = text.to_owned(),
        "volume-opt" => mount.volume.get_or_insert_default().driver_options.extend([pair()]),
        "image-subpath" => mount.image_subpath = Some(text.to_owned()),
        "tmpfs-size" => {
            mount.tmpfs.get_or_insert_default().size_bytes =
                ram_in_bytes(text).map_err(|_| format!("invalid value for {key}: {text}"))?;
        }
        "tmpfs-mode" => {
            mount.tmpfs.get_or_insert_default().mode = u32::from_str_radix(text, 8)
                .map_err(|_| format!("invalid value for {key}: {text}"))?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn check_mount(mount: &MountValue) -> Result<(), String> {
    let kind = mount.kind.as_str();
    if kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let mixed = [
        ("volume", mount.volume.is_some()),
        ("image", mount.image_subpath.is_some()),
        ("bind", mount.bind.is_some()),
        ("tmpfs", mount.tmpfs.is_some()),
    ];
    for (family, used) in mixed {
        if used && kind != family {
            return Err(format!("cannot mix '{family}-*' options with mount type '{kind}'"));
        }
    }
    let Some(bind) = &mount.bind else { return Ok(()) };
    match bind.recursion {
        Recursion::Writable if !mount.read_only => Err(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
                .to_owned(),
        ),
        Recursion::ReadOnly if !mount.read_only => Err(
            "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
                .to_owned(),
        ),
        Recursion::ReadOnly if bind.propagation != "rprivate" => Err(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
                .to_owned(),
        ),
        Recursion::Enabled | Recursion::Disabled | Recursion::Writable | Recursion::ReadOnly => {
            Ok(())
        }
    }
}

/// What one `--volume` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeFlag {
    /// A path in the container that gets a volume of its own.
    Anonymous(String),
    /// `source:target[:options]`, ready for the daemon.
    Bind(String),
}

/// Reads `--volume`'s value; a source that begins with a dot is taken from the working directory.
pub fn parse_volume(value: &str) -> Result<VolumeFlag, String> {
    if value.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = split_volume(value);
    if value.len() > 2 && parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {value}: empty section between colons"));
    }
    if parts.len() > 3 {
        return Err(format!("invalid spec: {value}: too many colons"));
    }
    if parts.len() == 1 || value.len() <= 2 {
        return Ok(VolumeFlag::Anonymous(value.to_owned()));
    }
    let (source, rest) = value.split_once(':').unwrap_or((value, ""));
    if source.starts_with('.') {
        return Ok(VolumeFlag::Bind(format!("{}:{rest}", absolute(source))));
    }
    if source.starts_with('~')
        && let Some(home) = std::env::var_os("HOME")
    {
        let home = home.to_string_lossy().into_owned();
        return Ok(VolumeFlag::Bind(format!("{home}{}:{rest}", &source[1..])));
    }
    Ok(VolumeFlag::Bind(value.to_owned()))
}

/// Parts at colons; a single letter before one is a drive and stays with what follows.
fn split_volume(value: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in value.match_indices(':') {
        let part = &value[start..at];
        if part.len() == 1 && part.starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        parts.push(part);
        start = at + 1;
    }
    parts.push(&value[start..]);
    parts
}

fn absolute(source: &str) -> String {
    if source != "." && source != ".." && !source.starts_with("./") && !source.starts_with("../") {
        return source.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    clean(&here.join(source)).to_string_lossy().into_owned()
}

/// A path without `.` and `..`, by text alone, as Go's `filepath.Clean` does.
pub fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() && !path.is_absolute() {
                    out.push("..");
                }
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                out.push(component);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_names_its_type_source_and_target() {
        let mount = parse("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap();
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("bind", "/a"));
        assert!(mount.read_only && mount.bind.unwrap().propagation == "rslave");
        let volume = parse("src=v,dst=/v,volume-nocopy,volume-opt=o=x,volume-driver=d").unwrap();
        assert_eq!(volume.kind, "volume");
        let options = volume.volume.unwrap();
        assert!(options.no_copy && options.driver_options["o"] == "x" && options.driver == "d");
        let tmpfs = parse("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap().tmpfs;
        assert_eq!(tmpfs, Some(TmpfsValue { size_bytes: 1 << 20, mode: 0o1770 }));
    }

    #[test]
    fn a_bad_mount_is_refused_in_dockers_words() {
        for (value, want) in [
            ("x", "invalid field 'x' must be a key=value pair"),
            ("type=bind", "target is required"),
            ("type=bind,src=/a,dst=/b,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("type=bind,dst=/b,ro=x", "invalid value for ro: x"),
            ("type=tmpfs,dst=/x,tmpfs-size=z", "invalid value for tmpfs-size: z"),
            (
                "type=tmpfs,dst=/x,bind-propagation=rslave",
                "cannot mix 'bind-*' options with mount type 'tmpfs'",
            ),
        ] {
            assert_eq!(parse(value).unwrap_err(), want);
        }
    }

    #[test]
    fn a_volume_is_anonymous_named_or_a_path() {
        let bind = |text: &str| Ok(VolumeFlag::Bind(text.to_owned()));
        for (value, want) in [
            ("/data", Ok(VolumeFlag::Anonymous("/data".to_owned()))),
            ("vol:/data", bind("vol:/data")),
            ("/a:/b:ro", bind("/a:/b:ro")),
            ("aa:bb:cc:dd", Err("invalid spec: aa:bb:cc:dd: too many colons".to_owned())),
            ("aa::cc", Err("invalid spec: aa::cc: empty section between colons".to_owned())),
        ] {
            assert_eq!(parse_volume(value), want);
        }
    }

    #[test]
    fn a_relative_source_is_made_absolute() {
        let here = std::env::current_dir().unwrap();
        let want = format!("{}/x:/y", here.display());
        assert_eq!(parse_volume("./x:/y"), Ok(VolumeFlag::Bind(want)));
        assert_eq!(clean(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
