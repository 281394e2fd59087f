//! Kernel settings under `/proc/sys/net`, which are those of the calling thread's namespace.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("cannot set {path:?} to {value:?}")]
pub struct SysctlError {
    pub path: PathBuf,
    pub value: String,
    source: io::Error,
}

/// Sets `/proc/sys/net/KEY`, where `key` is a path such as `ipv4/ip_forward`.
pub fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net").join(key);
    std::fs::write(&path, value).map_err(|source| SysctlError {
        path,
        value: value.to_owned(),
        source,
    })
}

/// The value without its newline; `None` when the kernel has no such setting.
pub fn get(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/net").join(key)).ok()?;
    Some(text.trim_end().to_owned())
}

/// Sets a value that only some kernels have (IPv6 may be compiled out or off).
pub fn set_if_known(key: &str, value: &str) -> Result<(), SysctlError> {
    match get(key) {
        Some(now) if now != value => set(key, value),
        Some(_) | None => Ok(()),
    }
}

/// Lets the host forward IPv4.
pub fn forward_ipv4() -> Result<(), SysctlError> {
    set_if_known("ipv4/ip_forward", "1")
}

/// Lets the host forward IPv6, and keeps the routes that it learns from routers: a forwarding host
/// ignores router advertisements unless `accept_ra` is 2.
///
/// Source: kernel `Documentation/networking/ip-sysctl.rst`.
pub fn forward_ipv6() -> Result<(), SysctlError> {
    if get("ipv6/conf/all/forwarding").is_none_or(|now| now == "1") {
        return Ok(());
    }
    for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let key = format!("ipv6/conf/{}/accept_ra", entry.file_name().to_string_lossy());
        if get(&key).as_deref() == Some("1") {
            set(&key, "2")?;
        }
    }
    set("ipv6/conf/default/forwarding", "1")?;
    set("ipv6/conf/all/forwarding", "1")
}
