//! Telling neighbours who has an address now: gratuitous ARP and unsolicited neighbour
//! advertisements, sent as raw frames.
//!
//! Addresses are reused at once, so the neighbours' caches may still name the previous owner.
//!
//! Source: RFC 826, RFC 5227 section 3, RFC 4861 section 7.2.6, packet(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A packet socket of one namespace. It receives nothing.
#[derive(Debug)]
pub struct Announcer(OwnedFd);

impl Announcer {
    /// Opens in the calling thread's network namespace.
    pub fn open() -> io::Result<Announcer> {
        // Protocol 0: no frame is ever queued for us.
        let fd = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Announcer(fd))
    }

    /// Says on the interface that `address` is at `mac`.
    pub fn announce(&self, interface: u32, mac: [u8; 6], address: IpAddr) -> io::Result<()> {
        self.send(
            interface,
            &match address {
                IpAddr::V4(v4) => arp(mac, v4),
                IpAddr::V6(v6) => advertisement(mac, v6),
            },
        )
    }

    /// Sends a whole frame, Ethernet header and all.
    pub fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain integers, for which all-zero bytes are a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = interface.cast_signed();
        to.sll_halen = 6;
        // SAFETY: sendto(2) reads `frame.len()` bytes of the frame and one sockaddr_ll; both are
        // live for the call.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Type 136, the override flag, the target, and option 2: the target's link-layer address.
    let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend(address.octets());
    body.extend([2, 1]);
    body.extend(mac);
    let checksum = checksum6(address, ALL_NODES, &body);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(14 + 40 + body.len());
    frame.extend([0x33, 0x33, 0, 0, 0, 1]);
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((body.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(body);
    frame
}

/// The checksum of ICMPv6 over its pseudo header (RFC 8200 section 8.1).
fn checksum6(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let mut sum = body.len() as u32 + 58;
    let words = source.octets().into_iter().chain(destination.octets()).chain(body.iter().copied());
    for (place, byte) in words.enumerate() {
        sum += if place % 2 == 0 { u32::from(byte) << 8 } else { u32::from(byte) };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_sums_to_nothing() {
        let source: Ipv6Addr = "fd00::2".parse().unwrap();
        let frame = advertisement([2, 0, 0, 0, 0, 1], source);
        assert_eq!(checksum6(source, "ff02::1".parse().unwrap(), &frame[54..]), 0);
    }

    #[test]
    fn an_arp_announcement_names_its_sender_twice() {
        let frame = arp([2, 0, 0, 0, 0, 1], Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], frame[38..42]);
    }
}
