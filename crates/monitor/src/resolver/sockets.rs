//! The resolver's sockets in the container's network namespace.
//!
//! They are made by a process with privileges ([`Sockets::open`], [`Sockets::open_here`]), for the
//! supervisor cannot enter the namespace. So those that lead to upstream servers are made ahead and used
//! again: a disconnected socket gets a port of its own with its next connection, as a new one would.
//!
//! Invariant: a socket that was given back holds nothing of the server it was connected to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use net::zone::{From, Upstream};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use sys::namespace::Namespaces;

use super::ResolverError;

/// Where containers believe their name server to be.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Questions that upstream servers may have from the container's network at one time, over UDP and
/// over TCP, for each family of addresses. Beyond it a question is dropped, and asked again.
const DATAGRAMS: usize = 12;
const STREAMS: usize = 4;

/// Sockets that listen at 127.0.0.11, and unconnected ones towards upstream servers.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: OwnedFd,
    pub(super) tcp: OwnedFd,
    far: Far,
}

/// Sockets towards upstream servers.
#[derive(Debug, Default)]
pub(super) struct Far {
    /// Unconnected, in the container's namespace.
    idle: Vec<(Class, OwnedFd)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    family: AddressFamily,
    kind: SocketType,
}

/// All that are made ahead, in the order in which they travel.
fn classes() -> impl Iterator<Item = Class> {
    let families = [AddressFamily::INET, AddressFamily::INET6];
    let kinds = [(SocketType::DGRAM, DATAGRAMS), (SocketType::STREAM, STREAMS)];
    families.into_iter().flat_map(move |family| {
        let class = move |(kind, count)| (0..count).map(move |_| Class { family, kind });
        kinds.into_iter().flat_map(class)
    })
}

impl Sockets {
    /// How many descriptors these are.
    #[must_use]
    pub fn count() -> usize {
        2 + classes().count()
    }

    /// Makes them in the network namespace `container` and redirects its port 53 to them. For a process
    /// with a single thread, which is in its own namespace again afterwards.
    ///
    /// # Errors
    /// When descriptors run out, the redirection fails or the namespace is gone.
    pub fn open(container: BorrowedFd<'_>) -> Result<Sockets, ResolverError> {
        let failed = |source| ResolverError::Sockets { source };
        let own = std::fs::File::open("/proc/thread-self/ns/net").map_err(failed)?;
        sys::namespace::join(container, Namespaces::NET).map_err(failed)?;
        let sockets = Sockets::open_here();
        sys::namespace::join(&own, Namespaces::NET).map_err(failed)?;
        sockets
    }

    /// The same for a thread that is in the container's namespace already.
    ///
    /// # Errors
    /// As [`Sockets::open`].
    pub fn open_here() -> Result<Sockets, ResolverError> {
        let sockets = Sockets::make().map_err(|source| ResolverError::Sockets { source })?;
        let port = |socket| port(socket).map_err(|source| ResolverError::Sockets { source });
        let (udp, tcp) = (port(&sockets.udp)?, port(&sockets.tcp)?);
        net::redirect::resolver(udp, tcp).map_err(|source| ResolverError::Redirect { source })?;
        Ok(sockets)
    }

    fn make() -> io::Result<Sockets> {
        let bound = |kind| -> io::Result<OwnedFd> {
            let socket = socket(Class { family: AddressFamily::INET, kind })?;
            rustix::net::bind(&socket, &SocketAddr::from((ADDRESS, 0)))?;
            Ok(socket)
        };
        let (udp, tcp) = (bound(SocketType::DGRAM)?, bound(SocketType::STREAM)?);
        rustix::net::listen(&tcp, 16)?;
        let mut idle = Vec::new();
        for class in classes() {
            match socket(class) {
                Ok(socket) => idle.push((class, socket)),
                // A kernel without IPv6 gets as many of the other family, so that the count is kept.
                Err(error) if error.raw_os_error() == Some(AFNOSUPPORT) => {
                    let class = Class { family: AddressFamily::INET, ..class };
                    idle.push((class, socket(class)?));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Sockets { udp, tcp, far: Far { idle } })
    }

    /// Takes over what another process made, in the order of [`Sockets::descriptors`].
    ///
    /// # Errors
    /// When some are missing or are no sockets.
    pub fn received(descriptors: Vec<OwnedFd>) -> io::Result<Sockets> {
        if descriptors.len() != Sockets::count() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidInput);
        let (udp, tcp) = (next()?, next()?);
        let mut idle = Vec::new();
        for Class { kind, .. } in classes() {
            let socket = next()?;
            let family = rustix::net::sockopt::socket_domain(&socket)?;
            idle.push((Class { family, kind }, socket));
        }
        Ok(Sockets { udp, tcp, far: Far { idle } })
    }

    /// To be handed to another process.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let far = self.far.idle.iter().map(|(_, socket)| socket.as_fd());
        [self.udp.as_fd(), self.tcp.as_fd()].into_iter().chain(far).collect()
    }

    pub(super) fn into_parts(self) -> (OwnedFd, OwnedFd, Far) {
        (self.udp, self.tcp, self.far)
    }
}

/// EAFNOSUPPORT.
const AFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

impl Far {
    /// A socket on its way to a server, from where that is to be reached.
    ///
    /// # Errors
    /// As connect(2); `WouldBlock` when all sockets are in use.
    pub(super) fn connect(&mut self, server: Upstream, kind: SocketType) -> io::Result<OwnedFd> {
        let family =
            if server.server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let class = Class { family, kind };
        let socket = match server.from {
            From::Host => socket(class)?,
            From::Container => {
                let at = self.idle.iter().position(|(idle, _)| *idle == class);
                self.idle.swap_remove(at.ok_or(io::ErrorKind::WouldBlock)?).1
            }
        };
        match rustix::net::connect(&socket, &server.server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
            Err(error) => {
                self.give_back(socket, server, kind);
                Err(error.into())
            }
        }
    }

    /// Takes a socket back that [`Far::connect`] gave for `server`.
    pub(super) fn give_back(&mut self, socket: OwnedFd, server: Upstream, kind: SocketType) {
        if server.from == From::Host || rustix::net::connect_unspec(&socket).is_err() {
            return;
        }
        let mut scratch = [0; 1];
        // What had arrived before it was disconnected; an error that is pending counts as one.
        while rustix::net::recv(&socket, &mut scratch, RecvFlags::DONTWAIT | RecvFlags::TRUNC)
            .is_ok_and(|(_, count)| count > 0 || kind == SocketType::DGRAM)
        {}
        let family =
            if server.server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        self.idle.push((Class { family, kind }, socket));
    }
}

fn socket(class: Class) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(class.family, class.kind, flags, None)?)
}

fn port(socket: &OwnedFd) -> io::Result<u16> {
    let address = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    debug_assert_eq!(address.ip(), IpAddr::from(ADDRESS));
    Ok(address.port())
}
