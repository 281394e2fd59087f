//! Netlink: the kernel's own interface to links, addresses, routes and nftables.
//!
//! A [`Message`] is one request, built by the functions of [`route`] and [`nft`]. A [`Socket`]
//! sends any number of them in one system call and collects the answers. The kernel works on a
//! request inside `sendmsg` itself, so all acknowledgements wait in the receive queue when it
//! returns, and nothing here ever blocks.
//!
//! A socket belongs for ever to the network namespace in which it was opened ([`netns`]).
//!
//! Source: `include/uapi/linux/netlink.h`, netlink(7).

pub mod announce;
pub mod conntrack;
pub mod netns;
pub mod nft;
pub mod route;

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Route,
    Netfilter,
}

/// A netlink failure, with the kernel's explanation where it gives one.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel said no. `index` is the message's place in the batch.
    #[error("cannot {what}{}", explained(.explanation.as_deref()))]
    Refused { what: String, index: usize, explanation: Option<String>, source: io::Error },
    #[error("netlink socket failed")]
    Socket { source: io::Error },
    #[error("the kernel's netlink answer is malformed")]
    Malformed,
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } | NetlinkError::Socket { source } => {
                source.raw_os_error()
            }
            NetlinkError::Malformed => None,
        }
    }

    /// Whether the named object was not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EADDRNOTAVAIL))
    }

    /// Whether the kernel lacks the kind of object, say because it was built without it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
    }

    /// Whether the object was there already.
    pub fn is_existing(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}

fn explained(explanation: Option<&str>) -> String {
    explanation.map(|text| format!(" ({text})")).unwrap_or_default()
}

const HEADER_BYTES: usize = 16;
/// The kernel's dumps come in parts of at most 32 KiB; an error quotes at most one message.
const RECEIVE_BYTES: usize = 64 * 1024;

/// One request: header, family header and attributes.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it asks for, to complete "cannot …".
    what: Cow<'static, str>,
    bytes: Vec<u8>,
}

impl Message {
    /// `flags` without `NLM_F_REQUEST`, which is always set.
    pub(crate) fn new(what: impl Into<Cow<'static, str>>, kind: u16, flags: i32) -> Message {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("message flags have 16 bits");
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Message { what: what.into(), bytes }
    }

    /// Appends the family's own header, padded to four bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Message {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Message {
        let length = u16::try_from(value.len() + 4).expect("an attribute fits 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Message {
        self.attribute(kind, &[value])
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) -> &mut Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// nfnetlink's numbers are in network order.
    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// A text with its terminating zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Message {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute made of attributes. Its length is 16 bits wide: callers split longer lists.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let start = self.bytes.len();
        let nested = kind | u16::try_from(libc::NLA_F_NESTED).expect("a 16-bit flag");
        self.attribute(nested, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("an attribute fits 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The wire form with its length and sequence number filled in.
    fn seal(&self, sequence: u32, acknowledge: bool, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).expect("a message fits 4 GiB");
        into[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        if acknowledge {
            into[start + 6] |= u8::try_from(libc::NLM_F_ACK).expect("a low flag");
        }
        into[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// Which messages of a batch are to be acknowledged. Refusals are always told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledge {
    Each,
    /// One answer for a whole nftables transaction, which must not overflow the receive queue.
    Only(usize),
}

/// A netlink socket, bound to the namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Socket, NetlinkError> {
        let failed = |source: io::Error| NetlinkError::Socket { source };
        let number = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            number,
        )
        .map_err(|error| failed(error.into()))?;
        // Explanations need Linux 4.12, short acknowledgements 4.3; neither is needed to work.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let _ = set_option(fd.as_fd(), libc::SOL_NETLINK, option, 1);
        }
        // A rebuilt rule set is one send; the default of about 200 KiB is for ordinary users.
        let _ = set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8 << 20);
        let _ = set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
        Ok(Socket { fd, sequence: 1, buffer: Vec::new() })
    }

    /// Opens a socket in another network namespace, by way of a thread that enters it.
    pub fn open_in(protocol: Protocol, netns: BorrowedFd<'_>) -> Result<Socket, NetlinkError> {
        netns::within(netns, || Socket::open(protocol))
            .map_err(|source| NetlinkError::Socket { source })?
    }

    /// Sends all messages in one call. They are done in order; one that is refused does not keep
    /// the later ones from being done, and the first refusal is returned.
    pub fn send(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        self.exchange(messages, Acknowledge::Each)
    }

    pub(crate) fn exchange(
        &mut self,
        messages: &[Message],
        acknowledge: Acknowledge,
    ) -> Result<(), NetlinkError> {
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        let first = self.sequence;
        let mut wire = Vec::with_capacity(messages.iter().map(|message| message.bytes.len()).sum());
        for (index, message) in messages.iter().enumerate() {
            let wanted = match acknowledge {
                Acknowledge::Each => true,
                Acknowledge::Only(only) => only == index,
            };
            message.seal(self.take_sequence(), wanted, &mut wire);
        }
        self.transmit(&wire)?;
        let expected = match acknowledge {
            Acknowledge::Each => messages.len(),
            Acknowledge::Only(_) => 1,
        };
        let mut answers = 0;
        let mut refusal = None;
        while let Some(length) = self.receive(RecvFlags::DONTWAIT)? {
            for answer in Packets(&self.buffer[..length]) {
                let answer = answer?;
                let index = answer.sequence.wrapping_sub(first) as usize;
                if answer.kind != libc::NLMSG_ERROR as u16 || index > last {
                    continue;
                }
                answers += 1;
                match answer.refusal()? {
                    Some((source, explanation)) if refusal.is_none() => {
                        let what = messages[index].what.clone().into_owned();
                        refusal = Some(NetlinkError::Refused { what, index, explanation, source });
                    }
                    Some(_) | None => {}
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if answers < expected => Err(NetlinkError::Malformed),
            None => Ok(()),
        }
    }

    /// Sends one dump (or get) request and gives the payload of each object: the family's header
    /// and its attributes.
    pub(crate) fn dump(&mut self, message: &Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let sequence = self.take_sequence();
        let mut wire = Vec::new();
        message.seal(sequence, false, &mut wire);
        let many = wire[6..8]
            .iter()
            .zip((libc::NLM_F_DUMP as u16).to_ne_bytes())
            .any(|(&a, b)| a & b & !1 != 0);
        self.transmit(&wire)?;
        let mut objects = Vec::new();
        loop {
            let Some(length) = self.receive(RecvFlags::empty())? else {
                return Err(NetlinkError::Malformed);
            };
            for answer in Packets(&self.buffer[..length]) {
                let answer = answer?;
                if answer.sequence != sequence {
                    continue;
                }
                if answer.kind == libc::NLMSG_DONE as u16 {
                    return Ok(objects);
                }
                if answer.kind == libc::NLMSG_ERROR as u16 {
                    return match answer.refusal()? {
                        None => Ok(objects),
                        Some((source, explanation)) => {
                            let what = message.what.clone().into_owned();
                            Err(NetlinkError::Refused { what, index: 0, explanation, source })
                        }
                    };
                }
                objects.push(answer.payload.to_vec());
                if !many {
                    return Ok(objects);
                }
            }
        }
    }

    fn take_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }

    fn transmit(&self, wire: &[u8]) -> Result<(), NetlinkError> {
        match rustix::net::send(&self.fd, wire, SendFlags::empty()) {
            Ok(_) => Ok(()),
            Err(error) => Err(NetlinkError::Socket { source: error.into() }),
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<Option<usize>, NetlinkError> {
        self.buffer.resize(RECEIVE_BYTES, 0);
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((length, _)) => return Ok(Some(length)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(NetlinkError::Socket { source: error.into() }),
            }
        }
    }
}

fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: setsockopt(2) reads `length` bytes at the pointer, which is a live i32 of that size.
    let done = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Packet<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Packet<'_> {
    /// For `NLMSG_ERROR`: `None` is an acknowledgement.
    fn refusal(&self) -> Result<Option<(io::Error, Option<String>)>, NetlinkError> {
        let code = self.payload.first_chunk().ok_or(NetlinkError::Malformed)?;
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Ok(None);
        }
        // After the code stands the request's header; with a capped acknowledgement that is all
        // of it, without one the whole request.
        let quoted = if i32::from(self.flags) & NLM_F_CAPPED != 0 {
            HEADER_BYTES
        } else {
            let length = self.payload.get(4..8).ok_or(NetlinkError::Malformed)?;
            u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize
        };
        let explanation = (i32::from(self.flags) & NLM_F_ACK_TLVS != 0)
            .then(|| self.payload.get(4 + quoted.next_multiple_of(4)..))
            .flatten()
            .and_then(|attributes| find(attributes, NLMSGERR_ATTR_MSG))
            .map(|text| {
                String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
            });
        Ok(Some((io::Error::from_raw_os_error(-code), explanation)))
    }
}

// The uapi values that libc does not name.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_CAPPED: i32 = 0x100;
const NLM_F_ACK_TLVS: i32 = 0x200;

struct Packets<'a>(&'a [u8]);

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_ne_bytes(header[0..4].try_into().expect("four bytes")) as usize;
        let Some(payload) = self.0.get(HEADER_BYTES..length) else {
            self.0 = &[];
            return Some(Err(NetlinkError::Malformed));
        };
        let packet = Packet {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes(header[8..12].try_into().expect("four bytes")),
            payload,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok(packet))
    }
}

/// The attributes of a payload, their nesting flags removed. Ends at the first damaged one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text attribute without its terminating zero.
pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|&byte| byte == 0).next().unwrap_or(&[])).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_are_found_again() {
        let mut message = Message::new("test", 16, 0);
        message.u32(1, 7).nest(2, |inner| {
            inner.text(3, "eth0").u8(4, 9);
        });
        let payload = &message.bytes[HEADER_BYTES..];
        let inner = find(payload, 2).unwrap();
        assert_eq!(text_of(find(inner, 3).unwrap()), "eth0");
        assert_eq!(find(inner, 4), Some(&[9u8][..]));
        assert_eq!(find(payload, 1), Some(&7u32.to_ne_bytes()[..]));
    }

    #[test]
    fn damaged_attributes_end_the_list() {
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0, 1]).count(), 0);
        assert!(Packets(&[255; 32]).next().unwrap().is_err());
    }
}
