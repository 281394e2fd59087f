//! Names under which the rooms of this folder were one; used by what is being changed elsewhere.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use runs::RuntimeChoice;

pub(crate) use super::cgroups::{cgroup, freeze, kill_group, remove_group};
pub(crate) use super::cleanup::{publish_given_up as tell_given_up, remove, remove_run, take_back};
pub(crate) use super::events::publish as tell;
pub(crate) use super::link_env::of as link_env;
pub(crate) use super::lowering::process::console_size;
pub(crate) use super::records::{exit_record, write_life, write_record};
pub(crate) use super::start::{Started, proxied, start};
use crate::Inner;
pub(crate) use crate::blocking::blocking;
use crate::error::Result;
pub(crate) use crate::workloads::files::files_in;

pub(crate) fn subpath(
    root: PathBuf,
    mount: &super::mounts::Mount,
    held: &mut Vec<OwnedFd>,
) -> Result<PathBuf> {
    if mount.subpath.is_empty() {
        return Ok(root);
    }
    let found = super::mount_sources::open_subpath(&root, &mount.subpath)?;
    let path = super::mount_sources::fd_path(&found);
    held.push(found);
    Ok(path)
}

pub(crate) fn runtime_choice(
    engine: &Inner,
    name: &str,
    run: &std::path::Path,
) -> Result<RuntimeChoice> {
    crate::workloads::runtimes::choose(&engine.live(), name, run)
}
