//! UDP on sockets of all addresses: at which one a datagram arrived, and answers that leave by it.
//!
//! A client that asked one of the host's addresses takes an answer from that address only, while
//! the kernel chooses the source by the route back. Source: ip(7) `IP_PKTINFO`, ipv6(7)
//! `IPV6_PKTINFO`.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// Room for one control message of either family, aligned as its header must be.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL_BYTES]);

const CONTROL_BYTES: usize = 64;

/// A datagram as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub bytes: usize,
    pub sender: SocketAddr,
    /// The local address to which it was sent, if the kernel told one that can answer.
    pub at: Option<Local>,
}

/// An address of this host; for a link-local one with the interface that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub address: IpAddr,
    pub interface: u32,
}

/// Has the kernel tell where datagrams arrive.
///
/// # Errors
/// As setsockopt(2).
pub fn tell_arrivals(socket: impl AsFd, ipv4: bool) -> io::Result<()> {
    let (level, option) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    let value: i32 = 1;
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: setsockopt(2) reads `length` bytes at the pointer, which is a live i32 of that size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives one datagram without waiting.
///
/// # Errors
/// As recvmsg(2), among them `WouldBlock`.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<Arrival> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([MaybeUninit::zeroed(); CONTROL_BYTES]);
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data, for which zeros are valid.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_BYTES;
    // SAFETY: recvmsg(2) writes at most the stated lengths to the three places, all live locals or
    // the caller's exclusive slice.
    let count =
        unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let bytes = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: sockaddr_storage is plain data, zeroed above and then written by the kernel.
    let sender = socket_address(&unsafe { name.assume_init() })
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Arrival { bytes, sender, at: arrival_address(&header) })
}

/// Sends one datagram without waiting, from the given address of this host.
///
/// # Errors
/// As sendmsg(2); `InvalidInput` when the addresses are of different families.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    to: SocketAddr,
    from: Option<Local>,
) -> io::Result<()> {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let Some(from) = from else {
        rustix::net::sendto(socket, bytes, flags, &to)?;
        return Ok(());
    };
    let (mut name, name_bytes) = raw_address(to);
    let mut control = Control([MaybeUninit::zeroed(); CONTROL_BYTES]);
    let mut slice =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data, for which zeros are valid.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = name_bytes;
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    match (from.address, to.is_ipv4()) {
        (IpAddr::V4(v4), true) => {
            let mut info: libc::in_pktinfo = zeroed_in_pktinfo();
            info.ipi_spec_dst.s_addr = u32::from_ne_bytes(v4.octets());
            put(&mut header, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        (IpAddr::V6(v6), false) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: v6.octets() },
                ipi6_ifindex: if v6.is_unicast_link_local() { from.interface } else { 0 },
            };
            put(&mut header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        (IpAddr::V4(_), false) | (IpAddr::V6(_), true) => {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    // SAFETY: sendmsg(2) only reads what the header points to: live locals and the caller's slice.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_fd().as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn zeroed_in_pktinfo() -> libc::in_pktinfo {
    let nothing = libc::in_addr { s_addr: 0 };
    libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: nothing, ipi_addr: nothing }
}

/// Writes one control message; the header's control pointer is that of a [`Control`].
fn put<T: Copy>(header: &mut libc::msghdr, level: i32, kind: i32, value: T) {
    const { assert!(size_of::<T>() + 32 <= CONTROL_BYTES) };
    let length = size_of::<T>() as u32;
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, whole) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length)) };
    header.msg_controllen = space as usize;
    // SAFETY: the control buffer is aligned, and by the assertion above has room for a header and
    // a T; CMSG_FIRSTHDR is its start, CMSG_DATA the place behind the header.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = whole as usize;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
    }
}

fn arrival_address(header: &libc::msghdr) -> Option<Local> {
    // SAFETY: the kernel filled the control buffer and set its length; CMSG_FIRSTHDR checks that a
    // header fits, and a message of these kinds carries the whole structure of its kind.
    let local = unsafe {
        let message = libc::CMSG_FIRSTHDR(header).as_ref()?;
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned();
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                Local { address: address.into(), interface: info.ipi_ifindex.cast_unsigned() }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned();
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                Local { address: address.into(), interface: info.ipi6_ifindex }
            }
            _ => return None,
        }
    };
    (!local.address.is_multicast() && !local.address.is_unspecified()).then_some(local)
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let at = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_storage is larger than and aligned for a sockaddr_in, which the
            // family says it is.
            let raw = unsafe { &*at.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let raw = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let (port, scope) = (u16::from_be(raw.sin6_port), raw.sin6_scope_id);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, scope).into())
        }
        _ => None,
    }
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: sockaddr_storage is plain data, for which zeros are valid.
    let mut storage: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    let at = &raw mut storage;
    let length = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_storage is larger than and aligned for a sockaddr_in, and ours alone.
            let raw = unsafe { &mut *at.cast::<libc::sockaddr_in>() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above, for sockaddr_in6.
            let raw = unsafe { &mut *at.cast::<libc::sockaddr_in6>() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_flowinfo = v6.flowinfo();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[track_caller]
    fn check(everywhere: &str, asked: &str) {
        let Ok(server) = UdpSocket::bind((everywhere, 0)) else { return };
        let port = server.local_addr().unwrap().port();
        tell_arrivals(&server, asked.parse::<IpAddr>().unwrap().is_ipv4()).unwrap();
        let client = UdpSocket::bind((asked, 0)).unwrap();
        client.connect((asked, port)).unwrap();
        client.send(b"ping").unwrap();
        let mut bytes = [0; 16];
        let arrival = receive(&server, &mut bytes).unwrap();
        assert_eq!(&bytes[..arrival.bytes], b"ping");
        assert_eq!(arrival.sender, client.local_addr().unwrap());
        assert_eq!(arrival.at.unwrap().address, asked.parse::<IpAddr>().unwrap());
        send(&server, b"pong", arrival.sender, arrival.at).unwrap();
        assert_eq!(client.recv(&mut bytes).unwrap(), 4);
        assert_eq!(receive(&server, &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_answer_leaves_by_the_address_that_was_asked() {
        // Every address of 127/8 is the host's; the route back would choose 127.0.0.1.
        check("0.0.0.0", "127.0.0.7");
        check("::", "::1");
    }
}
