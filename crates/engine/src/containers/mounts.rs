//! Which mounts a container gets: `-v`, `--mount`, `--volumes-from` and the image's volumes,
//! parsed and put in order. Pure; volumes are made and looked up by the caller.
//!
//! Two wishes of the user for one destination are an error, but of two `--volumes-from` the later one
//! wins. The precedence is: user, volumes-from, image.
//!
//! Source: moby `volume/mounts/linux_parser.go`, `daemon/volumes.go`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use spec::Id;

use super::spec::{ContainerSpec, MountKind, MountSpec, TmpfsOptions};
use crate::error::{Error, Result};
use crate::words;

/// A mount of a container, as its record keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub kind: MountKind,
    /// The volume's name; for an image mount the reference.
    pub name: String,
    /// A bind's path on the host; a volume's is looked up when it is mounted.
    pub source: String,
    pub destination: String,
    pub driver: String,
    pub driver_options: std::collections::BTreeMap<String, String>,
    pub labels: std::collections::BTreeMap<String, String>,
    /// As typed, for inspect.
    pub mode: String,
    pub read_only: bool,
    /// Empty is `rprivate`.
    pub propagation: String,
    /// The volume was made for this container alone.
    pub anonymous: bool,
    pub no_copy: bool,
    pub subpath: String,
    pub non_recursive: bool,
    /// Read-only for the mount itself and not for those below it.
    pub read_only_non_recursive: bool,
    /// Make a missing source directory (`-v`), or refuse (`--mount`).
    pub create_source: bool,
    pub tmpfs: Option<TmpfsOptions>,
}

/// All mounts of a wish, sorted so that parents come before what lies in them.
///
/// `from` gives the mounts of a container named by `--volumes-from`.
///
/// # Errors
/// `Invalid` in Docker's words for what cannot be parsed, and for two wishes at one place.
pub fn resolve(
    spec: &ContainerSpec,
    from: impl Fn(&str) -> Result<Vec<Mount>>,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    let mut taken = BTreeSet::new();
    let mut wish = |mount: Mount, mounts: &mut Vec<Mount>| {
        if !taken.insert(mount.destination.clone()) {
            return Err(words::duplicate_mount(&mount.destination));
        }
        mounts.push(mount);
        Ok(())
    };
    for text in &spec.host.binds {
        wish(parse_bind(text, &spec.host.volume_driver)?, &mut mounts)?;
    }
    for mount in &spec.host.mounts {
        wish(convert(mount)?, &mut mounts)?;
    }
    for (target, options) in &spec.host.tmpfs {
        wish(tmpfs(target, options)?, &mut mounts)?;
    }
    let mut others = Vec::new();
    for text in &spec.host.volumes_from {
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = match mode {
            "" | "rw" => false,
            "ro" => true,
            "z" | "Z" => false,
            other => return Err(Error::invalid(format!("invalid mode: {other}"))),
        };
        for mut mount in from(container)? {
            mount.read_only |= read_only;
            mount.anonymous = false;
            // Another container's files; this one's image has no business with them.
            mount.no_copy = true;
            if !taken.contains(&mount.destination) {
                others.retain(|other: &Mount| other.destination != mount.destination);
                others.push(mount);
            }
        }
    }
    taken.extend(others.iter().map(|mount| mount.destination.clone()));
    mounts.extend(others);
    for path in spec.config.volumes.keys() {
        let destination = absolute(path, path)?;
        if taken.insert(destination.clone()) {
            mounts.push(anonymous(destination, &spec.host.volume_driver));
        }
    }
    mounts
        .sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    Ok(mounts)
}

fn anonymous(destination: String, driver: &str) -> Mount {
    Mount {
        kind: MountKind::Volume,
        name: Id::random().to_string(),
        destination,
        driver: driver_or_local(driver),
        anonymous: true,
        ..Mount::default()
    }
}

fn driver_or_local(driver: &str) -> String {
    if driver.is_empty() { "local".to_owned() } else { driver.to_owned() }
}

/// One `-v`: `[source:]destination[:options]`.
fn parse_bind(text: &str, driver: &str) -> Result<Mount> {
    let refuse = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(refuse()),
    };
    if destination.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(refuse());
    }
    let destination = absolute(destination, text)?;
    let mut mount = if source.is_empty() {
        anonymous(destination, driver)
    } else if source.starts_with('/') {
        Mount {
            kind: MountKind::Bind,
            source: clean(source),
            destination,
            create_source: true,
            ..Mount::default()
        }
    } else {
        if !crate::names::is_valid(source) {
            return Err(Error::invalid(format!(
                "create {source}: \"{source}\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
                 absolute path"
            )));
        }
        Mount {
            kind: MountKind::Volume,
            name: source.to_owned(),
            destination,
            driver: driver_or_local(driver),
            ..Mount::default()
        }
    };
    // Source: moby 28.2 `volume/mounts/linux_parser.go`: what a named volume shows.
    let named = mount.kind == MountKind::Volume && !mount.anonymous;
    mount.mode = if named && mode.is_empty() { "z" } else { mode }.to_owned();
    apply_mode(&mut mount, mode)?;
    Ok(mount)
}

fn apply_mode(mount: &mut Mount, mode: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        let group = match option {
            "ro" | "rw" => {
                mount.read_only = option == "ro";
                "access"
            }
            "z" | "Z" => "label",
            "nocopy" if mount.kind == MountKind::Volume => {
                mount.no_copy = true;
                "copy"
            }
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate"
                if mount.kind == MountKind::Bind =>
            {
                option.clone_into(&mut mount.propagation);
                "propagation"
            }
            "consistent" | "cached" | "delegated" | "default" => "consistency",
            _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        };
        if !seen.insert(group) {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
    }
    Ok(())
}

/// One `--mount`.
fn convert(wish: &MountSpec) -> Result<Mount> {
    let kind = wish.kind;
    let refuse =
        |why: &str| Error::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    if wish.target.is_empty() {
        return Err(refuse("field Target must not be empty"));
    }
    exclusive(wish, &refuse)?;
    let destination = clean(&wish.target);
    if !wish.target.starts_with('/') {
        return Err(refuse(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            wish.target
        )));
    }
    if destination == "/" {
        return Err(refuse("invalid specification: destination can't be '/'"));
    }
    let base = Mount { kind, destination, read_only: wish.read_only, ..Mount::default() };
    match kind {
        MountKind::Bind => bind_mount(wish, base, &refuse),
        MountKind::Volume => volume_mount(wish, base, &refuse),
        MountKind::Tmpfs => {
            if !wish.source.is_empty() {
                return Err(refuse("field Source must not be specified"));
            }
            let options = wish.tmpfs.clone().unwrap_or_default();
            for words in &options.options {
                match words.as_slice() {
                    [name] | [name, _] if ["exec", "noexec"].contains(&name.as_str()) => {}
                    [name] | [name, _] => return Err(refuse(&format!("invalid option: {name}"))),
                    _ => return Err(refuse("invalid option array length")),
                }
            }
            Ok(Mount { tmpfs: Some(options), ..base })
        }
        MountKind::Image => {
            if wish.source.is_empty() {
                return Err(refuse("field Source must not be empty"));
            }
            let subpath =
                wish.image.as_ref().map_or_else(String::new, |image| image.subpath.clone());
            local_subpath(&subpath, &refuse)?;
            Ok(Mount { name: wish.source.clone(), subpath, read_only: true, ..base })
        }
        MountKind::Npipe | MountKind::Cluster => {
            Err(refuse("mount type not supported on this platform"))
        }
    }
}

/// Source: moby `volume/mounts/validate.go` `validateExclusiveOptions`.
fn exclusive(wish: &MountSpec, refuse: &dyn Fn(&str) -> Error) -> Result<()> {
    for (name, given, kind) in [
        ("BindOptions", wish.bind.is_some(), MountKind::Bind),
        ("VolumeOptions", wish.volume.is_some(), MountKind::Volume),
        ("ImageOptions", wish.image.is_some(), MountKind::Image),
        ("TmpfsOptions", wish.tmpfs.is_some(), MountKind::Tmpfs),
    ] {
        if given && wish.kind != kind {
            return Err(refuse(&format!("field {name} must not be specified")));
        }
    }
    Ok(())
}

fn local_subpath(subpath: &str, refuse: &dyn Fn(&str) -> Error) -> Result<()> {
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(refuse("subpath must be a relative path within the volume"));
    }
    Ok(())
}

fn bind_mount(wish: &MountSpec, base: Mount, refuse: &dyn Fn(&str) -> Error) -> Result<Mount> {
    if wish.source.is_empty() {
        return Err(refuse("field Source must not be empty"));
    }
    if !wish.source.starts_with('/') {
        return Err(refuse(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            wish.source
        )));
    }
    let options = wish.bind.clone().unwrap_or_default();
    let known = ["", "rprivate", "private", "rshared", "shared", "rslave", "slave"];
    if !known.contains(&options.propagation.as_str()) {
        return Err(refuse(&format!("invalid propagation mode: {}", options.propagation)));
    }
    // All kernels that Tug runs on can make a tree read-only, so nothing else is left to force.
    // Source: moby 28.2 `daemon/volumes_unix.go`.
    if options.read_only_force_recursive && !wish.read_only {
        return Err(Error::invalid(
            "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive",
        ));
    }
    if options.read_only_force_recursive
        && (options.read_only_non_recursive || options.non_recursive)
    {
        return Err(Error::invalid(
            "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        ));
    }
    Ok(Mount {
        source: clean(&wish.source),
        propagation: options.propagation,
        non_recursive: options.non_recursive,
        read_only_non_recursive: options.read_only_non_recursive,
        create_source: options.create_mountpoint,
        ..base
    })
}

fn volume_mount(wish: &MountSpec, base: Mount, refuse: &dyn Fn(&str) -> Error) -> Result<Mount> {
    let options = wish.volume.clone().unwrap_or_default();
    local_subpath(&options.subpath, refuse)?;
    if wish.source.is_empty() && !options.subpath.is_empty() {
        return Err(refuse("must not set Subpath when using anonymous volumes"));
    }
    if !wish.source.is_empty() && !crate::names::is_valid(&wish.source) {
        return Err(refuse(&format!("invalid volume name \"{}\"", wish.source)));
    }
    let fresh = anonymous(base.destination.clone(), &options.driver);
    Ok(Mount {
        name: if wish.source.is_empty() { fresh.name } else { wish.source.clone() },
        anonymous: wish.source.is_empty(),
        driver: fresh.driver,
        driver_options: options.driver_options,
        labels: options.labels,
        no_copy: options.no_copy,
        subpath: options.subpath,
        mode: "z".to_owned(),
        ..base
    })
}

const TMPFS_VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
/// mount(8), options that all file systems have.
const TMPFS_FLAGS: [&str; 38] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "unbindable",
    "runbindable",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "silent",
];

fn tmpfs(target: &str, options: &str) -> Result<Mount> {
    // Source: moby 28.2 `daemon/volumes.go`: a tmpfs has no volume's words before its own.
    if !target.starts_with('/') {
        let text = format!("invalid mount path: '{target}' mount path must be absolute");
        return Err(Error::invalid(text));
    }
    let destination = absolute(target, target)?;
    let list = options.split(',').filter(|option| !option.is_empty());
    // Source: moby `vendor/github.com/moby/sys/mount` `MergeTmpfsOptions`.
    let unknown = |option: &&str| match option.split_once('=') {
        Some((name, _)) => !TMPFS_VALUES.contains(&name),
        None => !TMPFS_FLAGS.contains(option),
    };
    if let Some(option) = list.clone().find(unknown) {
        let words: Vec<String> = option.splitn(2, '=').map(|word| format!("{word:?}")).collect();
        return Err(Error::invalid(format!("invalid tmpfs option [{}]", words.join(" "))));
    }
    let options = list.map(|option| option.splitn(2, '=').map(str::to_owned).collect()).collect();
    let tmpfs = TmpfsOptions { size_bytes: 0, mode: None, options };
    Ok(Mount { kind: MountKind::Tmpfs, destination, tmpfs: Some(tmpfs), ..Mount::default() })
}

fn absolute(path: &str, whole: &str) -> Result<String> {
    let refuse =
        |why: &str| Error::invalid(format!("invalid volume specification: '{whole}': {why}"));
    if !path.starts_with('/') {
        let kind = if whole.starts_with('/') { "bind" } else { "volume" };
        return Err(refuse(&format!(
            "invalid mount config for type \"{kind}\": invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    match clean(path).as_str() {
        "/" => Err(refuse("invalid specification: destination can't be '/'")),
        path => Ok(path.to_owned()),
    }
}

/// Keeps binds of the daemon's own root from holding its mounts: such a bind must let go of what
/// the daemon unmounts, and does by default where its file system's mount can tell.
///
/// # Errors
/// `Invalid` for another propagation.
///
/// Source: moby 28.2 `daemon/volumes_linux.go` `validateBindDaemonRoot`.
pub(crate) fn guard_root(mounts: &mut [Mount], root: &std::path::Path) -> Result<()> {
    let root = root.to_string_lossy();
    for mount in mounts.iter_mut().filter(|mount| mount.kind == MountKind::Bind) {
        let source = &mount.source;
        if !source.starts_with(&*root) && !root.starts_with(source.as_str()) {
            continue;
        }
        match mount.propagation.as_str() {
            "rslave" | "rshared" => {}
            "" => {
                let path = std::path::Path::new(source);
                if super::propagation::check(path, "rslave").is_ok() {
                    "rslave".clone_into(&mut mount.propagation);
                }
            }
            other => {
                return Err(Error::invalid(format!(
                    "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the daemon root, daemon root: \"{root}\", bind mount source: \"{source}\", propagation: \"{other}\""
                )));
            }
        }
    }
    Ok(())
}

/// An absolute path without `.`, `..`, and doubled slashes, by its text alone.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(binds: &[&str], want: Expect) {
        let mut spec = ContainerSpec::default();
        spec.host.binds = binds.iter().map(|&text| text.to_owned()).collect();
        let text = match resolve(&spec, |_| Ok(Vec::new())) {
            Ok(mounts) => mounts
                .iter()
                .map(|mount| {
                    let source = if mount.anonymous {
                        "(new)"
                    } else if mount.name.is_empty() {
                        &mount.source
                    } else {
                        &mount.name
                    };
                    let access = if mount.read_only { "ro" } else { "rw" };
                    format!(
                        "{} {source} {} {access} {}",
                        mount.kind, mount.destination, mount.propagation
                    )
                    .trim_end()
                    .to_owned()
                })
                .collect::<Vec<_>>()
                .join("; "),
            Err(error) => error.message,
        };
        want.assert_eq(&text);
    }

    #[test]
    fn a_bind_is_read_in_dockers_forms() {
        check(&["/a:/b"], expect!["bind /a /b rw"]);
        check(&["/a/../c:/b/:ro,rshared"], expect!["bind /c /b ro rshared"]);
        check(&["data:/b:ro"], expect!["volume data /b ro"]);
        check(&["/data"], expect!["volume (new) /data rw"]);
        check(&["a1:/x/y/z", "/b:/x"], expect!["bind /b /x rw; volume a1 /x/y/z rw"]);
    }

    #[test]
    fn what_is_no_bind_is_refused() {
        check(&["/a:/b:ro:x"], expect!["invalid volume specification: '/a:/b:ro:x'"]);
        check(&["/a:/b:xx"], expect!["invalid mode: xx"]);
        check(&["/a:/b:ro,rw"], expect!["invalid mode: ro,rw"]);
        check(
            &["/a:/"],
            expect![
                "invalid volume specification: '/a:/': invalid specification: destination can't be '/'"
            ],
        );
        check(&["/a:/b", "c1:/b"], expect!["Duplicate mount point: /b"]);
        check(
            &["/a:b"],
            expect![[
                r#"invalid volume specification: '/a:b': invalid mount config for type "bind": invalid mount path: 'b' mount path must be absolute"#
            ]],
        );
    }

    #[test]
    fn of_two_volumes_from_the_later_one_wins_and_takes_nothing_of_the_image() {
        let mut spec = ContainerSpec::default();
        spec.host.volumes_from = vec!["a".to_owned(), "b:ro".to_owned()];
        spec.host.binds = vec!["/own:/mine".to_owned()];
        spec.config.volumes.insert("/data".to_owned(), spec::image::Empty {});
        let from = |name: &str| {
            let mount = |destination: &str| Mount {
                kind: MountKind::Volume,
                name: name.to_owned(),
                destination: destination.to_owned(),
                ..Mount::default()
            };
            Ok(vec![mount("/data"), mount("/mine")])
        };
        let mounts = resolve(&spec, from).unwrap();
        let got: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.destination.as_str(), mount.name.as_str(), mount.no_copy))
            .collect();
        assert_eq!(got, [("/mine", "", false), ("/data", "b", true)]);
        assert!(mounts[1].read_only);
    }

    #[test]
    fn the_users_mounts_win_over_the_images_volumes() {
        let mut spec = ContainerSpec::default();
        spec.config.volumes.insert("/data".to_owned(), spec::image::Empty {});
        spec.config.volumes.insert("/more".to_owned(), spec::image::Empty {});
        spec.host.binds = vec!["/a:/data".to_owned()];
        let mounts = resolve(&spec, |_| Ok(Vec::new())).unwrap();
        let got: Vec<(MountKind, &str)> =
            mounts.iter().map(|mount| (mount.kind, mount.destination.as_str())).collect();
        assert_eq!(got, [(MountKind::Bind, "/data"), (MountKind::Volume, "/more")]);
    }

    #[track_caller]
    fn check_mount(wish: MountSpec, want: Expect) {
        let wish = MountSpec { target: "/t".to_owned(), ..wish };
        let mut spec = ContainerSpec::default();
        spec.host.mounts = vec![wish];
        let outcome = resolve(&spec, |_| Ok(Vec::new()));
        want.assert_eq(&outcome.map_or_else(|error| error.message, |_| "ok".to_owned()));
    }

    #[test]
    fn options_of_another_kind_of_mount_are_refused() {
        use super::super::spec::{BindOptions, ImageOptions, VolumeOptions};
        let bind = || MountSpec {
            kind: MountKind::Bind,
            source: "/a".to_owned(),
            bind: Some(BindOptions::default()),
            ..MountSpec::default()
        };
        check_mount(bind(), expect!["ok"]);
        let volume = MountSpec { volume: Some(VolumeOptions::default()), ..bind() };
        check_mount(
            volume,
            expect![
                r#"invalid mount config for type "bind": field VolumeOptions must not be specified"#
            ],
        );
        let image = MountSpec { image: Some(ImageOptions::default()), ..bind() };
        check_mount(
            image,
            expect![
                r#"invalid mount config for type "bind": field ImageOptions must not be specified"#
            ],
        );
        let tmpfs = |options: &[&[&str]]| MountSpec {
            kind: MountKind::Tmpfs,
            tmpfs: Some(TmpfsOptions {
                options: options
                    .iter()
                    .map(|words| words.iter().map(|&word| word.to_owned()).collect())
                    .collect(),
                ..TmpfsOptions::default()
            }),
            ..MountSpec::default()
        };
        check_mount(tmpfs(&[&["exec"]]), expect!["ok"]);
        check_mount(
            tmpfs(&[&["suid"]]),
            expect![r#"invalid mount config for type "tmpfs": invalid option: suid"#],
        );
        check_mount(
            tmpfs(&[&[]]),
            expect![r#"invalid mount config for type "tmpfs": invalid option array length"#],
        );
        let forced = |read_only, non_recursive| MountSpec {
            read_only,
            bind: Some(BindOptions {
                read_only_force_recursive: true,
                read_only_non_recursive: non_recursive,
                ..BindOptions::default()
            }),
            ..bind()
        };
        check_mount(forced(true, false), expect!["ok"]);
        check_mount(
            forced(false, false),
            expect!["mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive"],
        );
        check_mount(
            forced(true, true),
            expect![
                "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"
            ],
        );
    }

    #[test]
    fn a_bind_of_the_daemons_root_lets_go_of_its_mounts() {
        let told = |source: &str, propagation: &str| {
            let mut mounts = [Mount {
                kind: MountKind::Bind,
                source: source.to_owned(),
                propagation: propagation.to_owned(),
                ..Mount::default()
            }];
            guard_root(&mut mounts, std::path::Path::new("/var/lib/x")).map(|()| {
                let [mount] = mounts;
                mount.propagation
            })
        };
        for good in ["rslave", "rshared"] {
            assert_eq!(told("/var/lib/x/volumes", good).unwrap(), good);
        }
        for bad in ["private", "rprivate", "slave", "shared"] {
            let words = told("/var", bad).unwrap_err().message;
            assert!(words.contains("must use either propagation mode \"rslave\""), "{words}");
            assert_eq!(told("/home", bad).unwrap(), bad, "elsewhere all are allowed");
        }
    }
}
