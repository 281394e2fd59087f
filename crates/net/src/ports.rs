//! Published ports: which host port, held by a real socket.
//!
//! A port is reserved by binding it, so a conflict is found whoever the other is: a container, a
//! program, another engine. The socket goes to the container's monitor, whose proxy serves what
//! the firewall's maps do not (loopback, IPv6 to an IPv4 container, our own bridges), and which
//! keeps the port reserved while the daemon is away.
//!
//! Without an address a port is published on `0.0.0.0` and `::`, with the same number.
//!
//! Source: moby v28 `libnetwork/portallocator`, `libnetwork/drivers/bridge/port_mapping_linux.go`.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use crate::holder::{self, Holder};

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        })
    }
}

/// One host address and port that leads to a container's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    pub transport: Transport,
    pub host_ip: IpAddr,
    pub host_port: u16,
    pub container_port: u16,
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortWish {
    pub transport: Transport,
    pub container_port: u16,
    /// `None` is all addresses of both families.
    pub host_ip: Option<IpAddr>,
    /// `None` takes any; of a range, the first that is free.
    pub host_ports: Option<RangeInclusive<u16>>,
}

/// A published port with the socket that holds it. SCTP has none: there is no proxy for it, and
/// few kernels offer its sockets.
#[derive(Debug)]
pub struct BoundPort {
    pub port: PublishedPort,
    pub socket: Option<OwnedFd>,
}

/// Why a port could not be published. Texts are Docker's, plus who is in the way.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("Bind for {host} failed: port is already allocated{}", by(.owner.as_deref()))]
    Allocated { host: SocketAddr, owner: Option<String> },
    #[error("failed to bind host port for {host}:{target}/{transport}: address already in use{}", used_by(.holder.as_ref()))]
    InUse { host: SocketAddr, target: SocketAddr, transport: Transport, holder: Option<Holder> },
    #[error("failed to bind host port for {host}:{target}/{transport}")]
    Bind { host: SocketAddr, target: SocketAddr, transport: Transport, source: io::Error },
    #[error("all ports are allocated")]
    Exhausted,
}

fn by(owner: Option<&str>) -> String {
    owner.map(|name| format!(" by container {name}")).unwrap_or_default()
}

fn used_by(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// Chooses and reserves host ports.
#[derive(Debug, Default)]
pub struct PortAllocator {
    /// Where the search for any port begins: ports are not given out again at once.
    next: Option<u16>,
    /// SCTP ports, which no socket holds.
    reserved: BTreeSet<(IpAddr, u16)>,
}

impl PortAllocator {
    /// Reserves what `wish` asks for. `target` is the container's address, for messages; `owner`
    /// names the container that has a port already.
    pub fn bind(
        &mut self,
        wish: &PortWish,
        target: IpAddr,
        owner: impl Fn(Transport, SocketAddr) -> Option<String>,
    ) -> Result<Vec<BoundPort>, PortError> {
        let addresses = match wish.host_ip {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        };
        let candidates: Vec<u16> = match &wish.host_ports {
            Some(range) => range.clone().collect(),
            None => self.any_ports(),
        };
        let mut first_refusal = None;
        for port in candidates {
            match self.bind_all(wish, &addresses, port) {
                Ok(bound) => {
                    if wish.host_ports.is_none() {
                        self.next = Some(port.checked_add(1).unwrap_or(0));
                    }
                    return Ok(bound);
                }
                Err((host, error)) => {
                    let busy = error == Errno::ADDRINUSE;
                    first_refusal.get_or_insert((host, error));
                    if !busy {
                        break;
                    }
                }
            }
        }
        let Some((host, error)) = first_refusal else { return Err(PortError::Exhausted) };
        if error == Errno::ADDRINUSE && wish.host_ports.is_none() {
            return Err(PortError::Exhausted);
        }
        Err(explain(wish, host, target, error, &owner))
    }

    /// Forgets an SCTP port; the others end with their sockets.
    pub fn release(&mut self, port: &PublishedPort) {
        match port.transport {
            Transport::Tcp | Transport::Udp => {}
            Transport::Sctp => drop(self.reserved.remove(&(port.host_ip, port.host_port))),
        }
    }

    /// Notes an SCTP port that a running container has.
    pub fn restore(&mut self, port: &PublishedPort) {
        match port.transport {
            Transport::Tcp | Transport::Udp => {}
            Transport::Sctp => drop(self.reserved.insert((port.host_ip, port.host_port))),
        }
    }

    fn bind_all(
        &mut self,
        wish: &PortWish,
        addresses: &[IpAddr],
        host_port: u16,
    ) -> Result<Vec<BoundPort>, (SocketAddr, Errno)> {
        let mut bound = Vec::new();
        for &host_ip in addresses {
            let host = SocketAddr::new(host_ip, host_port);
            let port = PublishedPort {
                transport: wish.transport,
                host_ip,
                host_port,
                container_port: wish.container_port,
            };
            match self.reserve(wish.transport, host) {
                Ok(socket) => bound.push(BoundPort { port, socket }),
                // A host without IPv6 publishes on IPv4 alone, if the user did not name an address.
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
                    if addresses.len() > 1 && host.is_ipv6() => {}
                Err(error) => {
                    for other in &bound {
                        self.release(&other.port);
                    }
                    return Err((host, error));
                }
            }
        }
        Ok(bound)
    }

    fn reserve(
        &mut self,
        transport: Transport,
        host: SocketAddr,
    ) -> Result<Option<OwnedFd>, Errno> {
        match transport {
            Transport::Tcp | Transport::Udp => open(transport, host).map(Some),
            Transport::Sctp => {
                let fresh = self.reserved.insert((host.ip(), host.port()));
                if fresh { Ok(None) } else { Err(Errno::ADDRINUSE) }
            }
        }
    }

    /// The kernel's ephemeral range, from where the last search ended, around.
    fn any_ports(&self) -> Vec<u16> {
        let range = crate::sysctl::get("ipv4/ip_local_port_range");
        let mut bounds = range
            .iter()
            .flat_map(|text| text.split_whitespace())
            .filter_map(|word| word.parse().ok());
        let (low, high): (u16, u16) =
            (bounds.next().unwrap_or(32768), bounds.next().unwrap_or(60999));
        let start = self.next.filter(|port| (low..=high).contains(port)).unwrap_or(low);
        (start..=high).chain(low..start).collect()
    }
}

fn open(transport: Transport, host: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp | Transport::Sctp => SocketType::DGRAM,
    };
    let socket =
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match transport {
        Transport::Tcp => {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &host)?;
            rustix::net::listen(&socket, 4096)?;
        }
        // Two UDP sockets with SO_REUSEADDR would share the port.
        Transport::Udp | Transport::Sctp => rustix::net::bind(&socket, &host)?,
    }
    Ok(socket)
}

fn explain(
    wish: &PortWish,
    host: SocketAddr,
    target: IpAddr,
    error: Errno,
    owner: &dyn Fn(Transport, SocketAddr) -> Option<String>,
) -> PortError {
    let transport = wish.transport;
    let target = SocketAddr::new(target, wish.container_port);
    if error != Errno::ADDRINUSE {
        return PortError::Bind { host, target, transport, source: error.into() };
    }
    if let Some(owner) = owner(transport, host) {
        return PortError::Allocated { host, owner: Some(owner) };
    }
    match transport {
        Transport::Sctp => PortError::Allocated { host, owner: None },
        Transport::Tcp | Transport::Udp => {
            PortError::InUse { host, target, transport, holder: holder::find(transport, host) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::netlink::route::{Link, LinkChange, State, link_set};
    use sys::netlink::{Protocol, Socket, netns};

    fn in_own_namespace(work: impl FnOnce() + Send) {
        if sys::testing::privileged("ports are taken in a network namespace of their own") {
            netns::create(|| {
                let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
                Socket::open(Protocol::Route)
                    .unwrap()
                    .send(&[link_set(Link::Name("lo"), &up)])
                    .unwrap();
                work();
            })
            .unwrap();
        }
    }

    fn wish(host_ip: Option<&str>, host_ports: Option<RangeInclusive<u16>>) -> PortWish {
        let host_ip = host_ip.map(|text| text.parse().unwrap());
        PortWish { transport: Transport::Tcp, container_port: 80, host_ip, host_ports }
    }

    fn target() -> IpAddr {
        [172, 17, 0, 2].into()
    }

    #[test]
    fn both_families_get_the_same_number_and_the_next_search_goes_on() {
        in_own_namespace(|| {
            let mut allocator = PortAllocator::default();
            let first = allocator.bind(&wish(None, None), target(), |_, _| None).unwrap();
            assert_eq!(first.len(), 2);
            assert_eq!(first[0].port.host_port, first[1].port.host_port);
            let number = first[0].port.host_port;
            drop(first);
            let second = allocator.bind(&wish(None, None), target(), |_, _| None).unwrap();
            assert_eq!(second[0].port.host_port, number + 1);
        });
    }

    #[test]
    fn of_a_range_the_first_free_port_is_taken() {
        in_own_namespace(|| {
            let mut allocator = PortAllocator::default();
            let ports: Vec<_> = (0..3)
                .map(|_| {
                    allocator.bind(&wish(None, Some(8000..=8002)), target(), |_, _| None).unwrap()
                })
                .collect();
            let numbers: Vec<u16> = ports.iter().map(|bound| bound[0].port.host_port).collect();
            assert_eq!(numbers, [8000, 8001, 8002]);
        });
    }

    #[test]
    fn a_conflict_names_the_other_one() {
        in_own_namespace(|| {
            let mut allocator = PortAllocator::default();
            let _held = allocator.bind(&wish(None, Some(80..=80)), target(), |_, _| None).unwrap();
            let again = |allocator: &mut PortAllocator, owner: Option<String>| {
                let outcome =
                    allocator.bind(&wish(Some("0.0.0.0"), Some(80..=80)), target(), |_, _| {
                        owner.clone()
                    });
                outcome.unwrap_err().to_string()
            };
            assert_eq!(
                again(&mut allocator, Some("web".into())),
                "Bind for 0.0.0.0:80 failed: port is already allocated by container web"
            );
            let text = again(&mut allocator, None);
            let start = "failed to bind host port for 0.0.0.0:80:172.17.0.2:80/tcp: address already in use by process ";
            assert!(text.starts_with(start), "{text}");
            assert!(text.ends_with(&format!("(pid {})", std::process::id())), "{text}");
        });
    }

    #[test]
    fn an_address_that_is_not_the_hosts_is_refused() {
        in_own_namespace(|| {
            let outcome = PortAllocator::default().bind(
                &wish(Some("192.0.2.77"), Some(80..=80)),
                target(),
                |_, _| None,
            );
            assert!(matches!(outcome, Err(PortError::Bind { .. })), "{outcome:?}");
        });
    }
}
