//! Ports forwarded between sockets of this host's loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::run::watch::source;

/// Runs a proxy for one port until the end of the test's patience.
fn run(port: ProxyPort, socket: OwnedFd) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let poller = Poller::new().unwrap();
        let mut proxy = Proxy::new();
        proxy.publish(port, socket, &poller).unwrap();
        let (mut ready, mut scratch) = (Vec::new(), vec![0; 64 << 10]);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            poller.wait(&mut ready, Some(Duration::from_millis(50))).unwrap();
            for news in &ready {
                let (_, id) = source(news.token).unwrap();
                proxy.handle(id, *news, &poller, &mut scratch);
            }
            proxy.tick(Instant::now(), &poller);
        }
        assert!(proxy.connections.is_empty() && proxy.owners.len() <= 1, "{proxy:?}");
    })
}

#[test]
fn a_connection_is_carried_both_ways_with_half_closes() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let at = front.local_addr().unwrap();
    let port = ProxyPort { protocol: Protocol::Tcp, to: service.local_addr().unwrap() };
    let proxy = run(port, front.into());
    // The service answers only once it has seen the end of the question.
    let server = std::thread::spawn(move || {
        let (mut stream, _) = service.accept().unwrap();
        let mut question = Vec::new();
        stream.read_to_end(&mut question).unwrap();
        question.reverse();
        stream.write_all(&question).unwrap();
    });
    let mut client = TcpStream::connect(at).unwrap();
    let question: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let want: Vec<u8> = question.iter().rev().copied().collect();
    writer.write_all(&question).unwrap();
    writer.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == want);
    server.join().unwrap();
    proxy.join().unwrap();
}

#[test]
fn nobody_behind_the_port_ends_the_connection() {
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = front.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = run(ProxyPort { protocol: Protocol::Tcp, to: closed }, front.into());
    let mut client = TcpStream::connect(at).unwrap();
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0);
    proxy.join().unwrap();
}

#[test]
fn datagrams_find_their_way_back() {
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = front.local_addr().unwrap();
    let port = ProxyPort { protocol: Protocol::Udp, to: service.local_addr().unwrap() };
    let proxy = run(port, front.into());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for word in [b"one", b"two"] {
        client.send_to(word, at).unwrap();
        let mut bytes = [0; 16];
        let (count, from) = service.recv_from(&mut bytes).unwrap();
        service.send_to(&bytes[..count], from).unwrap();
        let (count, from) = client.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..count], from), (&word[..], at));
    }
    proxy.join().unwrap();
}
