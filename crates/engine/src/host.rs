//! Opening: the roots, the facts about this host, and the parts of the engine.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use store::{Options, Store};
use sys::cgroup::Layout;
use tracing::warn;

use crate::config::{EngineConfig, Unpacking};
use crate::distribution::Uploads;
use crate::error::{Error, Kind, Result, chain};
use crate::events::Events;
use crate::networks::Networks;
use crate::workloads::Host;
use crate::{Inner, containers, workloads};

/// Blocking.
pub(crate) fn open(mut config: EngineConfig) -> Result<Inner> {
    let driver = store::Driver::parse(config.storage_driver.as_deref().unwrap_or(""))
        .map_err(|source| Error::caused(Kind::Invalid, source))?;
    let (program, sealed) = program(&config);
    let unpacking = match config.unpacking {
        Unpacking::Confined => store::Unpacking::Program(program.clone()),
        Unpacking::Here => store::Unpacking::Here,
    };
    let options = Options { driver, unpacked_max: config.unpacked_max, unpacking };
    let store = Store::open(&config.data_root, options)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    crate::builds::sweep(&store);
    store.root().clone_into(&mut config.data_root);
    crate::disk::make_dir(&config.exec_root)?;
    config.exec_root = config.exec_root.canonicalize().unwrap_or(config.exec_root);
    crate::system::check_runtimes(&config.live)?;
    let events = Events::default();
    let registries = crate::images::registries::Registries::open(&config)?;
    let uploads = Uploads::open(&config.data_root).map_err(|source| {
        Error::because(Kind::Internal, "cannot open the uploads in the data root", source)
    })?;
    let networks = Networks::open(&config, events.clone())?;
    Ok(Inner {
        host: facts(),
        launchers: std::sync::Arc::new(runs::Launchers::new(program, monitors_group())),
        filters: workloads::filters::Filters::default(),
        live: std::sync::RwLock::new(std::sync::Arc::new(config.live.clone())),
        config,
        events,
        store,
        registries,
        uploads,
        networks,
        containers: containers::Registry::default(),
        adopted: std::sync::Mutex::default(),
        cache_locks: std::sync::Arc::default(),
        cache_collected: std::sync::Mutex::default(),
        named_builds: crate::builds::NamedBuilds::default(),
        pruning: tokio::sync::Mutex::default(),
        pruning_images: tokio::sync::Mutex::default(),
        volume_holders: containers::volume_mounts::Holders::default(),
        pruning_volumes: tokio::sync::Mutex::default(),
        _sealed: sealed,
    })
}

/// The sealed form of our own program, or the one that was named instead: a container that gets hold of its monitor's binary cannot
/// change what the next monitor is started from (CVE-2019-5736).
fn program(config: &EngineConfig) -> (PathBuf, Option<runtime::seal::Sealed>) {
    if config.exe != Path::new("/proc/self/exe") {
        return (config.exe.clone(), None);
    }
    match runtime::seal::Sealed::open() {
        Ok(sealed) => {
            (PathBuf::from(format!("/proc/self/fd/{}", sealed.as_fd().as_raw_fd())), Some(sealed))
        }
        Err(error) => {
            warn!(error = chain(&error), "monitors run from the unsealed program");
            (config.exe.clone(), None)
        }
    }
}

/// A group apart from the daemon's, so that whoever kills the daemon's spares the monitors.
fn monitors_group() -> Option<PathBuf> {
    match Layout::host() {
        Layout::V2 { root } => {
            let path = root.join("tug-monitors");
            match fs::create_dir_all(&path) {
                Ok(()) => Some(path),
                Err(error) => {
                    warn!(error = chain(&error), "monitors stay in the daemon's control group");
                    None
                }
            }
        }
        Layout::V1 { .. } | Layout::None => None,
    }
}

fn facts() -> Host {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Host {
        cgroup_v2: Layout::host().is_v2(),
        kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        architecture: spec::Platform::host().architecture,
        last_capability: read("/proc/sys/kernel/cap_last_cap").trim().parse().unwrap_or(40),
        thermal_paths: thermal_paths(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        apparmor: crate::apparmor::set_up(),
    }
}

/// Source: moby `oci/defaults.go`: what `/sys/devices/system/cpu/cpuN/thermal_throttle` tells.
fn thermal_paths() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| Path::new(path).is_dir())
        .map(|path| path.display().to_string())
        .collect();
    found.sort();
    found
}
