//! What other programs change in nftables, as the kernel's notifications say.
//!
//! After each transaction the kernel sends its objects to the group `NFNLGRP_NFTABLES`, with the
//! port of the socket that committed it in every header. A filter on the socket drops those of one
//! port, our own, so that our transactions neither wake anybody nor fill the queue. The kernel
//! queues the notifications before it lets the next transaction begin: whoever commits and then
//! drains has seen everything that came before the commit.
//!
//! Notifications that found the queue full are lost; the kernel says so once (`ENOBUFS`), and then
//! anything may have changed ([`Changes::Unknown`]).
//!
//! Source: Linux `net/netfilter/nf_tables_api.c`, `nf_tables_commit`; netlink(7).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

use super::super::{NetlinkError, Packets, RECEIVE_BYTES, Socket, find, set_option, text_of};

/// The bit of `NFNLGRP_NFTABLES` (7), include/uapi/linux/netfilter/nfnetlink.h.
const GROUPS: u32 = 1 << (7 - 1);
const SUBSYSTEM: u16 = super::SUBSYSTEM_NFTABLES >> 8;
/// `NFT_MSG_NEWGEN` closes each transaction and names no table.
const MSG_NEWGEN: u16 = super::SUBSYSTEM_NFTABLES | 15;
/// Every object's first attribute is the name of its table.
const OBJECT_TABLE: u16 = 1;
/// Where `nlmsg_pid` stands in the header.
const PORT_OFFSET: u32 = 12;
/// Parts read at once; with more waiting, what they say is taken as unknown, so that a flood holds
/// nobody up.
const PARTS_MAX: usize = 4096;

/// What has changed since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// The tables in which something changed, by family number and name.
    Tables(BTreeSet<(u8, String)>),
    /// Notifications were lost.
    Unknown,
}

/// A subscription to the changes that others make in the namespace of the socket.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Watch {
    /// Subscribes in the calling thread's network namespace, to what is not committed by `own`.
    pub fn open(own: &Socket) -> Result<Watch, NetlinkError> {
        let failed = |source: io::Error| NetlinkError::Socket { source };
        let port = port_of(own).map_err(failed)?;
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::NETFILTER),
        )
        .map_err(|error| failed(error.into()))?;
        // Other programs' rule sets come in one burst. Ordinary users get what they may have.
        let _ = set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20);
        drop_messages_of(fd.as_fd(), port).map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, GROUPS))
            .map_err(|error| failed(error.into()))?;
        Ok(Watch { fd, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Reads what is there, without waiting.
    pub fn drain(&mut self) -> Result<Changes, NetlinkError> {
        let mut tables = BTreeSet::new();
        let mut lost = false;
        for _ in 0..PARTS_MAX {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((read, whole)) if whole == read => {
                    lost |= !note(&self.buffer[..read], &mut tables);
                }
                Ok(_) | Err(Errno::NOBUFS) => lost = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    return Ok(if lost { Changes::Unknown } else { Changes::Tables(tables) });
                }
                Err(error) => return Err(NetlinkError::Socket { source: error.into() }),
            }
        }
        Ok(Changes::Unknown)
    }

    /// A second descriptor of the subscription, to wait on.
    pub fn waiter(&self) -> Result<OwnedFd, NetlinkError> {
        self.fd.try_clone().map_err(|source| NetlinkError::Socket { source })
    }
}

/// Notes the tables that one part names. False when it is not understood.
fn note(part: &[u8], tables: &mut BTreeSet<(u8, String)>) -> bool {
    for packet in Packets(part) {
        let Ok(packet) = packet else { return false };
        if packet.kind >> 8 != SUBSYSTEM || packet.kind == MSG_NEWGEN {
            continue;
        }
        let (Some(family), Some(body)) = (packet.payload.first(), packet.payload.get(4..)) else {
            return false;
        };
        let Some(table) = find(body, OBJECT_TABLE) else { return false };
        tables.insert((*family, text_of(table)));
    }
    true
}

/// The port of a socket, which the kernel chooses at the latest now.
fn port_of(socket: &Socket) -> io::Result<u32> {
    let address = || -> io::Result<SocketAddrNetlink> {
        Ok(SocketAddrNetlink::try_from(rustix::net::getsockname(&socket.fd)?)?)
    };
    if address()?.pid() == 0 {
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, 0))?;
    }
    Ok(address()?.pid())
}

/// Has the kernel drop what comes with this port in its first header. Messages that share a part
/// are of one transaction.
fn drop_messages_of(fd: BorrowedFd<'_>, port: u32) -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The filter loads in network order what stands there in the host's.
    let stored = u32::from_be_bytes(port.to_ne_bytes());
    let mut filter = [
        instruction(LOAD_WORD, 0, 0, PORT_OFFSET),
        instruction(JUMP_EQUAL, 0, 1, stored),
        instruction(RETURN, 0, 0, 0),
        instruction(RETURN, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: setsockopt(2) reads one sock_fprog at the pointer, and through it `len` instructions;
    // both live until the call returns, and the kernel keeps a copy.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Protocol, netns};
    use super::super::{Batch, Family, Table};
    use super::*;

    const OURS: Table<'_> = Table { family: Family::Inet, name: "ours" };
    const THEIRS: Table<'_> = Table { family: Family::Ip, name: "theirs" };

    fn add(socket: &mut Socket, table: Table<'_>) {
        let mut batch = Batch::new();
        batch.table_add(table);
        batch.chain_add(table, "chain", None);
        batch.commit(socket).unwrap();
    }

    fn watched(work: impl FnOnce(&mut Socket, &mut Socket, &mut Watch) + Send) {
        if crate::testing::privileged("nftables need a network namespace of their own") {
            netns::create(|| {
                let mut own = Socket::open(Protocol::Netfilter).unwrap();
                let mut other = Socket::open(Protocol::Netfilter).unwrap();
                let mut watch = Watch::open(&own).unwrap();
                work(&mut own, &mut other, &mut watch);
            })
            .unwrap();
        }
    }

    #[test]
    fn changes_of_others_are_seen_and_our_own_are_not() {
        watched(|own, other, watch| {
            add(own, OURS);
            assert_eq!(watch.drain().unwrap(), Changes::Tables(BTreeSet::new()));
            add(other, THEIRS);
            add(own, OURS);
            let theirs = BTreeSet::from([(Family::Ip as u8, "theirs".to_owned())]);
            assert_eq!(watch.drain().unwrap(), Changes::Tables(theirs));
            assert_eq!(watch.drain().unwrap(), Changes::Tables(BTreeSet::new()));
        });
    }

    #[test]
    fn lost_notifications_are_said_to_be_lost_once() {
        watched(|_, other, watch| {
            set_option(watch.fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 2048).unwrap();
            for _ in 0..64 {
                add(other, THEIRS);
                let mut batch = Batch::new();
                batch.table_delete(THEIRS);
                batch.commit(other).unwrap();
            }
            assert_eq!(watch.drain().unwrap(), Changes::Unknown);
            assert_eq!(watch.drain().unwrap(), Changes::Tables(BTreeSet::new()));
        });
    }

    #[test]
    fn what_is_not_understood_is_not_taken_for_nothing() {
        let mut tables = BTreeSet::new();
        assert!(!note(&[255; 32], &mut tables));
        assert!(tables.is_empty());
    }
}
