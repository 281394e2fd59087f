//! The little of DNS that is needed: reading a question, writing an answer, passing on the rest.
//!
//! ```text
//! header    id flags questions answers authorities additionals     u16 each, big-endian
//! question  name (length-prefixed labels, zero) type class
//! record    name (here always a pointer to the question's) type class ttl length data
//! ```
//!
//! Invariant: nothing here trusts a length; what does not parse is no query and is dropped.
//!
//! Source: RFC 1035; RFC 3596 for AAAA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long clients may keep our answers, in seconds.
const TTL: u32 = 600;

/// Longest answer over UDP to a client that did not offer more.
pub const UDP_BYTES_MAX: usize = 512;

const HEADER_BYTES: usize = 12;
const CLASS_IN: u16 = 1;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE: u16 = 0x7800;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    A,
    Aaaa,
    Ptr,
    Other(u16),
}

/// A query with its one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    flags: u16,
    /// Lower case, without the last dot; labels that hold anything but printable ASCII, or a dot,
    /// make it `None`: no name of ours.
    pub name: Option<String>,
    pub kind: Type,
    /// The question as it came.
    question: Vec<u8>,
}

/// The answer's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    Name(String),
}

/// A response's code, of those that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Success,
    ServerFailure,
    Refused,
    Other,
}

impl Query {
    /// Reads a query; `None` for everything else.
    pub fn parse(message: &[u8]) -> Option<Query> {
        let (id, flags, questions) =
            (u16_at(message, 0)?, u16_at(message, 2)?, u16_at(message, 4)?);
        if flags & (FLAG_RESPONSE | OPCODE) != 0 || questions != 1 {
            return None;
        }
        let (name, end) = parse_name(message, HEADER_BYTES)?;
        let (kind, class) = (u16_at(message, end)?, u16_at(message, end + 2)?);
        let kind = match kind {
            1 => Type::A,
            28 => Type::Aaaa,
            12 => Type::Ptr,
            other => Type::Other(other),
        };
        let name = name.filter(|_| class == CLASS_IN);
        Some(Query { id, flags, name, kind, question: message[HEADER_BYTES..end + 4].to_vec() })
    }

    /// The response with `answer`, cut to `bytes_max`.
    pub fn answer(&self, answer: &Answer, bytes_max: usize) -> Vec<u8> {
        let records: Vec<(u16, Vec<u8>)> = match answer {
            Answer::Addresses(addresses) => {
                addresses.iter().map(|address| address_record(*address)).collect()
            }
            Answer::Name(name) => vec![(12, encode_name(name))],
        };
        let mut message = self.respond(0);
        let mut count = 0;
        for (kind, data) in &records {
            if message.len() + 12 + data.len() > bytes_max {
                message[2] |= (FLAG_TRUNCATED >> 8) as u8;
                break;
            }
            message.extend_from_slice(&[0xc0, HEADER_BYTES as u8]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&CLASS_IN.to_be_bytes());
            message.extend_from_slice(&TTL.to_be_bytes());
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(data);
            count += 1_u16;
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message
    }

    /// The response that nobody could be asked.
    pub fn fail(&self) -> Vec<u8> {
        self.respond(2)
    }

    fn respond(&self, code: u16) -> Vec<u8> {
        let flags =
            FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | self.flags & FLAG_RECURSION_DESIRED | code;
        let mut message = Vec::with_capacity(UDP_BYTES_MAX);
        for word in [self.id, flags, 1, 0, 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&self.question);
        message
    }

    /// Whether `message` is a response to this query as it was sent on under `id`.
    pub fn is_answered_by(&self, id: u16, message: &[u8]) -> bool {
        u16_at(message, 0) == Some(id)
            && u16_at(message, 2).is_some_and(|flags| flags & FLAG_RESPONSE != 0)
            && message
                .get(HEADER_BYTES..HEADER_BYTES + self.question.len())
                .is_some_and(|question| question.eq_ignore_ascii_case(&self.question))
    }
}

/// A response's code.
pub fn code(message: &[u8]) -> Code {
    match u16_at(message, 2).map(|flags| flags & 15) {
        Some(0) => Code::Success,
        Some(2) => Code::ServerFailure,
        Some(5) => Code::Refused,
        Some(_) | None => Code::Other,
    }
}

/// Replaces a message's id.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(bytes) = message.first_chunk_mut() {
        *bytes = id.to_be_bytes();
    }
}

/// The address in a name under in-addr.arpa or ip6.arpa.
pub fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0; 4];
        let mut parts = digits.split('.');
        for byte in bytes.iter_mut().rev() {
            *byte = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(bytes).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut address = 0;
    let mut count = 0;
    for digit in digits.rsplit('.') {
        let &[digit] = digit.as_bytes() else { return None };
        address = address << 4 | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(address).into())
}

fn address_record(address: IpAddr) -> (u16, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (28, address.octets().to_vec()),
    }
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
    out
}

/// The name at `at`, and where it ends.
fn parse_name(message: &[u8], mut at: usize) -> Option<(Option<String>, usize)> {
    let mut name = Some(String::new());
    let start = at;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        // A first name has nothing to point back to; longer than 255 is no name.
        if length > 63 || at - start > 255 {
            return None;
        }
        if length == 0 {
            return Some((name, at));
        }
        let label = message.get(at..at + length)?;
        at += length;
        let plain = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        match (&mut name, plain) {
            (Some(text), true) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            }
            (_, false) => name = None,
            (None, true) => {}
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A query as resolvers send it.
    pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut message = Vec::new();
        for word in [id, FLAG_RECURSION_DESIRED, 1, 0, 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&encode_name(name));
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_read_without_regard_to_case() {
        let query = Query::parse(&query(7, "Redis.BackEnd", 28)).unwrap();
        assert_eq!(query.name.as_deref(), Some("redis.backend"));
        assert_eq!((query.id, query.kind), (7, Type::Aaaa));
    }

    #[test]
    fn an_answer_bears_the_question_and_the_addresses() {
        let query = Query::parse(&query(0x1234, "a", 1)).unwrap();
        let answer = Answer::Addresses(vec!["172.18.0.2".parse().unwrap()]);
        let want: &[u8] = &[
            0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1, //
            0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 2,
        ];
        assert_eq!(query.answer(&answer, UDP_BYTES_MAX), want);
    }

    #[test]
    fn too_many_addresses_are_cut_and_said_to_be() {
        let query = Query::parse(&query(1, "many", 1)).unwrap();
        let answer = Answer::Addresses(vec!["10.0.0.1".parse().unwrap(); 100]);
        let message = query.answer(&answer, UDP_BYTES_MAX);
        assert!(message.len() <= UDP_BYTES_MAX);
        assert_eq!(message[2] & 2, 2);
        assert_eq!(query.answer(&answer, 65535)[2] & 2, 0);
    }

    #[test]
    fn addresses_are_found_in_reverse_names() {
        let v4 = reverse_address("2.0.18.172.in-addr.arpa");
        assert_eq!(v4, Some("172.18.0.2".parse().unwrap()));
        let v6 = format!("2{}.d.f.ip6.arpa", ".0".repeat(29));
        assert_eq!(reverse_address(&v6), Some("fd00::2".parse().unwrap()));
        for wrong in
            ["1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "x.ip6.arpa", "300.0.0.1.in-addr.arpa"]
        {
            assert_eq!(reverse_address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hostile_messages_are_no_queries() {
        let good = query(1, "name.example", 1);
        for length in 0..good.len() {
            assert_eq!(Query::parse(&good[..length]), None);
        }
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        assert_eq!(Query::parse(&pointer), None);
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(Query::parse(&response), None);
        // Every byte changed in every bit: whatever comes out, it comes out.
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bent = good.clone();
                bent[at] ^= 1 << bit;
                let _whatever = Query::parse(&bent);
            }
        }
    }

    #[test]
    fn a_response_must_repeat_id_and_question() {
        let asked = Query::parse(&query(1, "a.example", 1)).unwrap();
        let mut response = query(9, "A.Example", 1);
        assert!(!asked.is_answered_by(9, &response));
        response[2] |= 0x80;
        assert!(asked.is_answered_by(9, &response));
        assert!(!asked.is_answered_by(8, &response));
        let mut other = query(9, "b.example", 1);
        other[2] |= 0x80;
        assert!(!asked.is_answered_by(9, &other));
    }
}
