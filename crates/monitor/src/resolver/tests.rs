//! A name server in a network namespace of its own, asked at 127.0.0.11 port 53 as programs do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc;

use net::zone::{From as Origin, Resolver as Settings, Upstream, Zone};
use sys::netlink::route::{Link, LinkChange, State, link_set};
use sys::netlink::{Protocol, Socket, netns};

use super::message::tests::query;
use super::*;

/// A namespace with loopback, in which a resolver runs until the test ends.
struct Fixture {
    directory: PathBuf,
    netns: OwnedFd,
    stop: mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fixture {
    fn new(name: &str, upstreams: Vec<Upstream>) -> Option<Fixture> {
        if !sys::testing::privileged("a network namespace needs root") {
            return None;
        }
        let directory =
            std::env::temp_dir().join(format!("tug-resolver-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let zone = Zone {
            network: "backend".to_owned(),
            internal: false,
            names: BTreeMap::from([("redis".to_owned(), vec!["172.18.0.2".parse().unwrap()])]),
            addresses: BTreeMap::new(),
        };
        let zone_path = directory.join("zone.json");
        net::zone::write(&zone_path, &zone).unwrap();
        let settings = Settings { zones: vec![zone_path], links: BTreeMap::new(), upstreams };
        let settings_path = directory.join("resolver.json");
        net::zone::write(&settings_path, &settings).unwrap();
        let (netns, ()) = netns::create(|| {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
            socket.send(&[link_set(Link::Name("lo"), &up)]).unwrap();
        })
        .unwrap();
        let (stop, stopped) = mpsc::channel();
        let (started, ready) = mpsc::channel();
        let inside = netns.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let poller = Poller::new().unwrap();
            let mut resolver = {
                let sockets = Sockets::open(inside.as_fd()).unwrap();
                Resolver::open(&settings_path, sockets, &poller).unwrap()
            };
            started.send(()).unwrap();
            let (mut news, mut scratch) = (Vec::new(), vec![0; 64 << 10]);
            while stopped.try_recv().is_err() {
                poller.wait(&mut news, Some(Duration::from_millis(20))).unwrap();
                for ready in &news {
                    let (_, id) = crate::run::watch::source(ready.token).unwrap();
                    resolver.handle(id, *ready, &poller, &mut scratch);
                }
                resolver.tick(Instant::now(), &poller);
            }
            assert!(resolver.questions.is_empty(), "{resolver:?}");
        });
        ready.recv().expect("the resolver starts");
        Some(Fixture { directory, netns, stop, thread: Some(thread) })
    }

    /// Asks from inside, over UDP or TCP, at the usual port.
    fn ask(&self, message: &[u8], transport: Transport) -> Vec<u8> {
        netns::within(self.netns.as_fd(), || match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.connect("127.0.0.11:53").unwrap();
                socket.send(message).unwrap();
                let mut bytes = vec![0; 4096];
                let count = socket.recv(&mut bytes).unwrap();
                bytes.truncate(count);
                bytes
            }
            Transport::Tcp => {
                let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                stream.write_all(&frame(message)).unwrap();
                read_frame(&mut stream)
            }
        })
        .unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ended = self.stop.send(());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        let _gone = std::fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("the resolver ends well");
        }
    }
}

#[derive(Clone, Copy)]
enum Transport {
    Udp,
    Tcp,
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = (message.len() as u16).to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    frame
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// The answer that an upstream gives to everything: the question, with one response code.
fn echo(question: &[u8], code: u8) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = answer[3] & 0xf0 | code;
    answer
}

/// A server that answers one question a transport, where it is told to run.
fn upstream(code: u8, netns: Option<BorrowedFd<'_>>) -> SocketAddr {
    let open = || loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(address) {
            return (address, udp, tcp);
        }
    };
    let (address, udp, tcp) = match netns {
        Some(netns) => netns::within(netns, open).unwrap(),
        None => open(),
    };
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        let (count, client) = udp.recv_from(&mut bytes).unwrap();
        udp.send_to(&echo(&bytes[..count], code), client).unwrap();
    });
    std::thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        let question = read_frame(&mut stream);
        stream.write_all(&frame(&echo(&question, code))).unwrap();
    });
    address
}

#[test]
fn names_of_the_network_are_answered_at_the_usual_address() {
    let Some(fixture) = Fixture::new("names", Vec::new()) else { return };
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = fixture.ask(&query(77, "redis", 1), transport);
        assert_eq!(answer[..8], [0, 77, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(answer.ends_with(&[172, 18, 0, 2]));
        let nobody = fixture.ask(&query(78, "example.com", 1), transport);
        assert_eq!(nobody[3] & 15, 2);
    }
}

#[test]
fn other_names_go_to_the_host_s_servers_one_after_the_other() {
    let servers = [upstream(2, None), upstream(0, None)];
    let upstreams = servers.map(|server| Upstream { server, from: Origin::Host }).to_vec();
    let Some(fixture) = Fixture::new("host", upstreams) else { return };
    let answer = fixture.ask(&query(7, "example.com", 1), Transport::Udp);
    assert_eq!(answer, echo(&query(7, "example.com", 1), 0));
}

#[test]
fn a_question_over_tcp_is_passed_on_over_tcp() {
    let upstreams = vec![Upstream { server: upstream(3, None), from: Origin::Host }];
    let Some(fixture) = Fixture::new("tcp", upstreams) else { return };
    let answer = fixture.ask(&query(7, "example.com", 1), Transport::Tcp);
    assert_eq!(answer, echo(&query(7, "example.com", 1), 3));
}

#[test]
fn servers_that_the_user_named_are_asked_from_the_container() {
    let Some(fixture) = Fixture::new("inside", Vec::new()) else { return };
    let server = upstream(0, Some(fixture.netns.as_fd()));
    let settings = Settings {
        upstreams: vec![Upstream { server, from: Origin::Container }],
        ..Settings::default()
    };
    net::zone::write(&fixture.directory.join("resolver.json"), &settings).unwrap();
    let answer = fixture.ask(&query(7, "example.com", 28), Transport::Udp);
    assert_eq!(answer, echo(&query(7, "example.com", 28), 0));
}

#[test]
fn a_dead_server_costs_no_patience_when_the_kernel_says_so() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstreams =
        [closed, upstream(0, None)].map(|server| Upstream { server, from: Origin::Host }).to_vec();
    let Some(fixture) = Fixture::new("dead", upstreams) else { return };
    let start = Instant::now();
    fixture.ask(&query(7, "example.com", 1), Transport::Udp);
    assert!(start.elapsed() < UPSTREAM_PATIENCE);
}
