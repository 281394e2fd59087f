//! Writing tar headers.
//!
//! The form is ours and fixed, since digests depend on it: ustar; a PAX extended header first where
//! something does not fit (long or non-ASCII names, large numbers, negative times, attributes);
//! times in whole seconds, as Docker's layers have them; no user or group names.

use super::{BLOCK, Entry, Kind};

/// What [`header`] keeps of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    Seconds,
}

/// The header blocks of `entry`, its payload and padding to follow.
pub(crate) fn header(entry: &Entry, precision: Precision) -> Vec<u8> {
    let Precision::Seconds = precision;
    let mut pax = Vec::new();
    let mut block = [0u8; BLOCK];
    put_name(&mut block[..100], &entry.path, "path", &mut pax);
    put_name(&mut block[157..257], &entry.link, "linkpath", &mut pax);
    put_number(&mut block[100..108], u64::from(entry.mode));
    put_or_extend(&mut block[108..116], u64::from(entry.uid), "uid", &mut pax);
    put_or_extend(&mut block[116..124], u64::from(entry.gid), "gid", &mut pax);
    put_or_extend(&mut block[124..136], entry.size, "size", &mut pax);
    match u64::try_from(entry.mtime.secs) {
        Ok(secs) => put_or_extend(&mut block[136..148], secs, "mtime", &mut pax),
        Err(_) => {
            put_number(&mut block[136..148], 0);
            push_record(&mut pax, b"mtime", entry.mtime.secs.to_string().as_bytes());
        }
    }
    block[156] = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    };
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_number(&mut block[329..337], u64::from(entry.rdev.0));
    put_number(&mut block[337..345], u64::from(entry.rdev.1));
    for (name, value) in &entry.xattrs {
        push_record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    put_sum(&mut block);
    if pax.is_empty() {
        return block.to_vec();
    }
    let mut all = pax_header(entry, &pax);
    all.extend_from_slice(&block);
    all
}

/// The two blocks of zeros that end an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

fn pax_header(entry: &Entry, records: &[u8]) -> Vec<u8> {
    let base =
        entry.path.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or(b"x");
    let mut name = b"PaxHeaders.0/".to_vec();
    name.extend(base.iter().filter(|byte| byte.is_ascii_graphic()).take(80));
    let mut block = [0u8; BLOCK];
    block[..name.len()].copy_from_slice(&name);
    put_number(&mut block[100..108], 0o644);
    put_number(&mut block[108..116], 0);
    put_number(&mut block[116..124], 0);
    put_number(&mut block[124..136], records.len() as u64);
    put_number(&mut block[136..148], 0);
    block[156] = b'x';
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_sum(&mut block);
    let mut all = block.to_vec();
    all.extend_from_slice(records);
    all.resize(all.len().next_multiple_of(BLOCK), 0);
    all
}

fn put_name(field: &mut [u8], name: &[u8], key: &str, pax: &mut Vec<u8>) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
    if name.len() > field.len() || !name.is_ascii() {
        push_record(pax, key.as_bytes(), name);
    }
}

fn put_or_extend(field: &mut [u8], value: u64, key: &str, pax: &mut Vec<u8>) {
    let fits = value < 1 << (3 * (field.len() - 1));
    put_number(field, if fits { value } else { 0 });
    if !fits {
        push_record(pax, key.as_bytes(), value.to_string().as_bytes());
    }
}

/// Octal digits with leading zeros, a NUL at the end.
fn put_number(field: &mut [u8], value: u64) {
    let text = format!("{value:0width$o}", width = field.len() - 1);
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

fn put_sum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A record's length counts its own digits.
fn push_record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() != rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::{Time, read::Reader};
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::Symlink,
            link: b"target".to_vec(),
            mode: 0o4755,
            uid: 0,
            gid: 7,
            mtime: Time { secs: 1_700_000_000, nanos: 0 },
            rdev: (0, 0),
            xattrs: Vec::new(),
            size: 0,
            real_size: 0,
            parts: vec![(0, 0)],
        }
    }

    #[track_caller]
    fn check(entry: &Entry) {
        let mut bytes = header(entry, Precision::Seconds);
        bytes.extend_from_slice(&END);
        let mut raw = Vec::new();
        let mut reader = Reader::new(bytes.as_slice());
        assert_eq!(reader.next(&mut raw).unwrap().as_ref(), Some(entry));
        assert_eq!(reader.next(&mut raw).unwrap(), None);
        assert_eq!(raw.len(), bytes.len());
    }

    #[test]
    fn what_is_written_is_read() {
        check(&entry("usr/bin/env"));
    }

    #[test]
    fn what_does_not_fit_goes_into_an_extended_header() {
        check(&Entry { uid: u32::MAX, ..entry(&"long/".repeat(60)) });
        check(&Entry { link: "ü".repeat(90).into(), ..entry("Grüße") });
        check(&Entry { mtime: Time { secs: -5, nanos: 0 }, ..entry("before 1970") });
        let xattrs = vec![(b"user.x".to_vec(), b"a\0b\n=".to_vec())];
        check(&Entry { xattrs, ..entry("attributes") });
    }

    #[test]
    fn a_record_counts_its_own_length_at_every_length() {
        for length in 80..130 {
            check(&entry(&"é".repeat(length)));
        }
    }
}
