//! Who has a port: for the message to somebody who cannot have it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::ports::Transport;

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub command: String,
    pub pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} (pid {})", self.command, self.pid)
    }
}

/// Looks for the process whose socket keeps `address` from being bound, in the calling thread's
/// network namespace. Best effort: it may have gone, or be out of sight.
pub fn find(transport: Transport, address: SocketAddr) -> Option<Holder> {
    let tables = match transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
        Transport::Sctp => return None,
    };
    let texts = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok());
    let inode = texts.into_iter().find_map(|text| socket_inode(&text, transport, address))?;
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.into_iter().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        has_descriptor(&process.path(), &wanted).then(|| {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            Holder { command: command.trim_end().to_owned(), pid }
        })
    })
}

fn has_descriptor(process: &Path, wanted: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .flatten()
        .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted))
}

/// The inode of the socket in the way, from a table such as `/proc/net/tcp`: same port, listening
/// if it is TCP, and bound to this address or to all of them.
fn socket_inode(table: &str, transport: Transport, address: SocketAddr) -> Option<u64> {
    const LISTENING: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let ip = address_of(ip)?;
        let listening = match transport {
            Transport::Tcp => *fields.get(3)? == LISTENING,
            Transport::Udp | Transport::Sctp => true,
        };
        let in_the_way = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        (listening && port == address.port() && in_the_way).then(|| fields.get(9)?.parse().ok())?
    })
}

/// Addresses stand there as native 32-bit words in hexadecimal.
fn address_of(text: &str) -> Option<IpAddr> {
    let mut octets = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        octets.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0
   1: 00000000:0050 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4343 1 0
";

    #[test]
    fn only_a_listener_in_the_way_counts() {
        check("127.0.0.1:80", Some(4242));
        check("0.0.0.0:80", Some(4242));
        check("192.0.2.1:80", None);
        check("127.0.0.1:81", None);
    }

    #[track_caller]
    fn check(address: &str, want: Option<u64>) {
        assert_eq!(socket_inode(TABLE, Transport::Tcp, address.parse().unwrap()), want);
    }
}
