//! Published ports in user mode: what the kernel's own forwarding cannot carry.
//!
//! nftables forwards what comes from outside. Connections from the host's loopback, and from IPv6
//! to a container that has only IPv4, come to the listening socket that reserves the port, and from
//! there through here: a connection of our own to the container's address, over the bridge.
//!
//! Always true: memory is bounded by [`tcp::CONNECTIONS_MAX`] and [`udp::SESSIONS_MAX`]; nothing
//! waits; one port's trouble is no other's.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use sys::epoll::{Poller, Ready};

use crate::complaints::complain;
use crate::settings::{Protocol, ProxyPort};

mod tcp;
mod udp;

use self::tcp::{Connection, TcpPort};
use self::udp::UdpPort;

/// All ports of one container.
#[derive(Debug, Default)]
pub struct Proxy {
    tcp_ports: BTreeMap<u32, TcpPort>,
    udp_ports: BTreeMap<u32, UdpPort>,
    connections: BTreeMap<u32, Connection>,
    /// Which connection or UDP port each of the other sockets' ids belongs to.
    owners: BTreeMap<u32, u32>,
    next_id: u32,
}

impl Proxy {
    pub fn new() -> Proxy {
        Proxy::default()
    }

    /// Forwards what comes to `socket`, listening (UDP: bound), to `port.to`.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn publish(&mut self, port: ProxyPort, socket: OwnedFd, poller: &Poller) -> io::Result<()> {
        let id = self.take_id();
        match port.protocol {
            Protocol::Tcp => {
                self.tcp_ports.insert(id, TcpPort::new(port.to, socket, id, poller)?);
            }
            Protocol::Udp => {
                self.udp_ports.insert(id, UdpPort::new(port.to, socket, id, poller)?);
            }
        }
        Ok(())
    }

    /// Forwards to these addresses no longer; what is connected stays.
    pub fn unpublish(&mut self, to: &[IpAddr], poller: &Poller) {
        let gone = self.tcp_ports.extract_if(.., |_, port| to.contains(&port.to.ip()));
        gone.for_each(|(_, port)| port.close(poller));
        let gone: Vec<UdpPort> = self
            .udp_ports
            .extract_if(.., |_, port| to.contains(&port.to.ip()))
            .map(|(_, port)| port)
            .collect();
        for port in gone {
            for id in port.close(poller) {
                self.owners.remove(&id);
            }
        }
    }

    /// When [`Proxy::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.udp_ports.values().filter_map(UdpPort::deadline).min()
    }

    /// Forgets UDP sessions that are idle.
    pub fn tick(&mut self, now: Instant, poller: &Poller) {
        for port in self.udp_ports.values_mut() {
            for id in port.expire(now, poller) {
                self.owners.remove(&id);
            }
        }
    }

    /// One of our sockets has news.
    pub fn handle(&mut self, id: u32, news: Ready, poller: &Poller, scratch: &mut [u8]) {
        if self.tcp_ports.contains_key(&id) {
            self.accept(id, poller);
        } else if self.udp_ports.contains_key(&id) {
            self.datagrams(id, poller, scratch);
        } else if let Some(&owner) = self.owners.get(&id) {
            if let Some(port) = self.udp_ports.get_mut(&owner) {
                port.answer(id, scratch);
            } else if let Some(connection) = self.connections.get_mut(&owner)
                && connection.handle(id, news, poller, scratch).is_err()
            {
                self.end(owner, poller);
            }
        }
    }

    fn accept(&mut self, port: u32, poller: &Poller) {
        let full = self.connections.len() >= tcp::CONNECTIONS_MAX;
        let Some(port) = self.tcp_ports.get_mut(&port) else { return };
        if full {
            // The next ones wait in the kernel's queue until one ends.
            port.pause(poller);
            return;
        }
        let Some(accepted) = port.accept() else { return };
        let to = port.to;
        let (connection_id, far_id) = (self.take_id(), self.take_id());
        match Connection::open(accepted, to, connection_id, far_id, poller) {
            Ok(connection) => {
                self.owners.insert(connection_id, connection_id);
                self.owners.insert(far_id, connection_id);
                self.connections.insert(connection_id, connection);
            }
            Err(error) => complain!("cannot forward a connection to {to}: {error}"),
        }
    }

    fn end(&mut self, id: u32, poller: &Poller) {
        if let Some(connection) = self.connections.remove(&id) {
            for id in connection.close(poller) {
                self.owners.remove(&id);
            }
        }
        for port in self.tcp_ports.values_mut() {
            port.resume(poller);
        }
    }

    fn datagrams(&mut self, id: u32, poller: &Poller, scratch: &mut [u8]) {
        let next = self.take_id();
        let Some(port) = self.udp_ports.get_mut(&id) else { return };
        let (new, gone) = port.receive(next, poller, scratch);
        for id in gone {
            self.owners.remove(&id);
        }
        if new {
            self.owners.insert(next, id);
        }
    }

    fn take_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests;
