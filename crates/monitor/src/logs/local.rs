//! The local format: protobuf messages between two copies of their size, so that a file can be
//! walked in both directions.
//!
//! ```text
//! record   = size (u32 big-endian) message size
//! message  = 1: source (string)  2: time in ns (varint)  3: line (bytes)  4: partial (bool)
//!            5: {1: last (bool) 2: id (string) 3: ordinal (varint)}
//! ```
//!
//! Source: moby `daemon/logger/local`, `api/types/plugins/logdriver/entry.proto`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Entry, Stream};

const SOURCE: u8 = 1 << 3 | 2;
const TIME: u8 = 2 << 3;
const LINE: u8 = 3 << 3 | 2;
const PARTIAL: u8 = 4 << 3;

/// Longest message accepted: a line's piece with much room for the other fields.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Appends one record to `out`.
pub fn encode(out: &mut Vec<u8>, line: &[u8], newline: bool, stream: Stream, time: Timestamp) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(SOURCE);
    varint(out, stream.name().len() as u64);
    out.extend_from_slice(stream.name().as_bytes());
    out.push(TIME);
    // Protobuf's int64: the same bits, unsigned.
    varint(out, i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX).cast_unsigned());
    out.push(LINE);
    varint(out, line.len() as u64);
    out.extend_from_slice(line);
    if !newline {
        out.extend_from_slice(&[PARTIAL, 1]);
    }
    let size = u32::try_from(out.len() - start - 4).expect("a line's piece is at most 16 KiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the bytes at the start of a buffer are.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed {
    /// More bytes are needed.
    Incomplete,
    /// A record of this many bytes in all.
    Record(usize),
    /// No record of ours can stand here.
    Damaged,
}

/// Looks at the start of `bytes`.
pub fn frame(bytes: &[u8]) -> Framed {
    let Some(size) = bytes.first_chunk::<4>() else { return Framed::Incomplete };
    let size = u32::from_be_bytes(*size) as usize;
    if size > MESSAGE_BYTES_MAX {
        return Framed::Damaged;
    }
    match bytes.get(4 + size..8 + size) {
        None => Framed::Incomplete,
        Some(again) if again == &bytes[..4] => Framed::Record(8 + size),
        Some(_) => Framed::Damaged,
    }
}

/// The entry in a whole record; `None` when it is not ours.
pub fn decode(record: &[u8]) -> Option<Entry> {
    let mut message = record.get(4..record.len().checked_sub(4)?)?;
    let mut entry = Entry {
        stream: Stream::Stdout,
        time: Timestamp::UNIX_EPOCH,
        bytes: Vec::new(),
        starts_line: true,
        attrs: BTreeMap::new(),
    };
    let mut partial = false;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 2) => {
                let name = take_bytes(&mut message)?;
                entry.stream = Stream::find(std::str::from_utf8(name).ok()?)?;
            }
            (2, 0) => {
                let nanoseconds = take_varint(&mut message)?.cast_signed();
                entry.time = Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
            }
            (3, 2) => entry.bytes = take_bytes(&mut message)?.to_vec(),
            (4, 0) => partial = take_varint(&mut message)? != 0,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 2) => drop(take_bytes(&mut message)?),
            (_, _) => return None,
        }
    }
    if !partial {
        entry.bytes.push(b'\n');
    }
    Some(entry)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let time: Timestamp = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
        for (line, newline) in [(&b"hello"[..], true), (b"part", false), (b"", true)] {
            let mut out = Vec::new();
            encode(&mut out, line, newline, Stream::Stderr, time);
            assert_eq!(frame(&out), Framed::Record(out.len()));
            let entry = decode(&out).unwrap();
            let mut want = line.to_vec();
            want.extend(newline.then_some(b'\n'));
            assert_eq!((entry.bytes, entry.stream, entry.time), (want, Stream::Stderr, time));
        }
    }

    #[test]
    fn hostile_bytes_are_no_record() {
        assert_eq!(frame(&[0xff; 64]), Framed::Damaged);
        assert_eq!(frame(&[0, 0, 0, 9, 1]), Framed::Incomplete);
        assert!(decode(&[0, 0, 0, 2, LINE, 200, 0, 0, 0, 2]).is_none());
        assert!(decode(&[0; 3]).is_none());
    }
}
