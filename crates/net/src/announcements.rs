//! Telling the neighbours again where an address is now: a first message may be lost, or come before
//! the way to them is open.
//!
//! One thread repeats for all sandboxes. While something is to be repeated it holds the sandbox's
//! packet socket, and with it the namespace, so whoever takes an endpoint away says so ([`stop`]).
//! It also closes the sockets: the kernel waits for an RCU grace period there, 10 to 20 ms, which no
//! start should pay (linux `net/packet/af_packet.c`, `packet_release`).
//!
//! Source: moby 28.2 `libnetwork/osl/interface_linux.go`, `advertiseAddrs`.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use spec::Id;
use sys::netlink::announce::Announcer;

use crate::Mac;

/// How often an interface's addresses are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Who is asked to stop, an endpoint.
    pub owner: Id,
    pub times: u32,
    pub every: Duration,
}

/// What is to be told again.
#[derive(Debug)]
pub(crate) struct Repeat {
    pub announce: Announce,
    pub interface: u32,
    pub mac: Mac,
    pub addresses: Vec<IpAddr>,
}

impl Repeat {
    /// A courtesy: neighbours also learn by asking again.
    pub(crate) fn tell(&self, announcer: &Announcer) {
        for &address in &self.addresses {
            let _ = announcer.announce(self.interface, self.mac.0, address);
        }
    }
}

enum News {
    /// A sandbox's socket and what it has to tell.
    Later(Announcer, Vec<Repeat>),
    Stop(Id),
}

struct Group {
    announcer: Announcer,
    repeats: Vec<(Instant, Repeat)>,
}

/// Takes over a sandbox's socket: for what is to be told again, and to close it.
pub(crate) fn later(announcer: Announcer, repeats: Vec<Repeat>) {
    if let Some(thread) = thread() {
        // One that comes back is closed here, slowly.
        let _ = thread.send(News::Later(announcer, repeats));
    }
}

/// Tells nothing of this endpoint any more.
pub fn stop(owner: Id) {
    if let Some(thread) = thread() {
        let _ = thread.send(News::Stop(owner));
    }
}

fn thread() -> Option<&'static Sender<News>> {
    static THREAD: OnceLock<Option<Sender<News>>> = OnceLock::new();
    let made = THREAD.get_or_init(|| {
        let (sender, news) = mpsc::channel::<News>();
        let thread = std::thread::Builder::new().name("announcements".to_owned());
        thread.spawn(move || work(&news)).ok().map(|_| sender)
    });
    made.as_ref()
}

fn work(news: &mpsc::Receiver<News>) {
    let mut groups: Vec<Group> = Vec::new();
    loop {
        let next = groups.iter().flat_map(|group| &group.repeats).map(|(at, _)| *at).min();
        let received = match next {
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => news.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(News::Later(announcer, repeats)) => {
                let at = |repeat: Repeat| (Instant::now() + repeat.announce.every, repeat);
                groups.push(Group { announcer, repeats: repeats.into_iter().map(at).collect() });
            }
            Ok(News::Stop(owner)) => {
                for group in &mut groups {
                    group.repeats.retain(|(_, repeat)| repeat.announce.owner != owner);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for group in &mut groups {
            let now = Instant::now();
            for (at, repeat) in group.repeats.iter_mut().filter(|(at, _)| *at <= now) {
                repeat.tell(&group.announcer);
                repeat.announce.times = repeat.announce.times.saturating_sub(1);
                *at = now + repeat.announce.every;
            }
            group.repeats.retain(|(_, repeat)| repeat.announce.times > 0);
        }
        groups.retain(|group| !group.repeats.is_empty());
    }
}
