//! Who listens on an address: for the message to somebody who cannot have it.

use std::fs;
use std::net::SocketAddr;

/// `name (pid N)`. Best effort: it may have gone, or be out of sight.
pub fn find(address: SocketAddr) -> Option<String> {
    let inode = ["tcp", "tcp6"].iter().find_map(|table| {
        listener(&fs::read_to_string(format!("/proc/self/net/{table}")).ok()?, address.port())
    })?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = |fd: fs::DirEntry| {
            fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        };
        if descriptors.flatten().any(has) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    None
}

/// The inode of the socket that listens on `port`, from a table such as `/proc/net/tcp`.
fn listener(table: &str, port: u16) -> Option<u64> {
    const LISTENING: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, at) = fields.get(1)?.split_once(':')?;
        let is_it = u16::from_str_radix(at, 16).ok()? == port && *fields.get(3)? == LISTENING;
        is_it.then(|| fields.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_find_ourselves() {
        let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = find(ours.local_addr().unwrap()).unwrap();
        assert!(found.ends_with(&format!("(pid {})", std::process::id())), "{found}");
    }
}
