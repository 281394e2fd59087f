//! Archives that come from a daemon, on their way to the reader that unpacks them.
//!
//! That reader takes an extension header (a long name, a PAX header) into memory as long as it says it
//! is, and any number of them before one entry. [`Guarded`] goes along from header to header and ends
//! the stream where that would be more than names need. Bytes pass unchanged.
//!
//! Source: POSIX.1-2017 `pax`, "ustar Interchange Format".

use std::io::{self, Read};

const BLOCK: usize = 512;
/// All extension headers before one entry; an archiver writes three at most.
const EXTENSION_BYTES_MAX: u64 = 2 << 20;

pub struct Guarded<R> {
    input: R,
    block: [u8; BLOCK],
    /// Bytes of the block that were read, and that were handed on.
    filled: usize,
    given: usize,
    /// Bytes of content and padding before the next header.
    left: u64,
    /// The body of a PAX header, while it passes.
    pax: Option<Vec<u8>>,
    /// The size that a PAX header gives to the next entry.
    size: Option<u64>,
    extensions: u64,
}

impl<R: Read> Guarded<R> {
    pub fn new(input: R) -> Guarded<R> {
        Guarded {
            input,
            block: [0; BLOCK],
            filled: 0,
            given: 0,
            left: 0,
            pax: None,
            size: None,
            extensions: 0,
        }
    }

    /// Reads the next header, or what there is of it.
    fn fill(&mut self) -> io::Result<()> {
        (self.filled, self.given) = (0, 0);
        while self.filled < BLOCK {
            match self.input.read(&mut self.block[self.filled..]) {
                Ok(0) => break,
                Ok(got) => self.filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.filled < BLOCK || self.block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let size = number(&self.block[124..136]);
        let kind = self.block[156];
        if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
            self.left = padded(self.size.take().unwrap_or(size));
            self.extensions = 0;
            return Ok(());
        }
        self.extensions = self.extensions.saturating_add(size).saturating_add(BLOCK as u64);
        if self.extensions > EXTENSION_BYTES_MAX {
            let text = format!("extension header of {size} bytes is too long");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.left = padded(size);
        self.pax = (kind == b'x').then(Vec::new);
        Ok(())
    }

    fn pass(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let got = self.input.read(&mut out[..limit])?;
        self.left -= got as u64;
        if let Some(pax) = &mut self.pax {
            pax.extend_from_slice(&out[..got]);
            if self.left == 0 {
                self.size = pax_size(pax);
                self.pax = None;
            }
        }
        Ok(got)
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.given == self.filled {
            if self.left > 0 {
                return self.pass(out);
            }
            self.fill()?;
        }
        let count = out.len().min(self.filled - self.given);
        out[..count].copy_from_slice(&self.block[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
}

/// Octal digits, or GNU's base 256 where the first bit is set. What is neither is as long as can be.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..].iter().fold(0, |value: u64, byte| {
            value.saturating_mul(256).saturating_add(u64::from(*byte))
        });
    }
    let text = String::from_utf8_lossy(field);
    let text = text.trim_matches(['\0', ' ']);
    if text.is_empty() { 0 } else { u64::from_str_radix(text, 8).unwrap_or(u64::MAX) }
}

/// The record `LENGTH size=NUMBER` of a PAX header.
fn pax_size(body: &[u8]) -> Option<u64> {
    let mut lines = body.split(|byte| *byte == b'\n').rev();
    let record = lines.find_map(|line| {
        let space = line.iter().position(|byte| *byte == b' ')?;
        line[space + 1..].strip_prefix(b"size=")
    });
    std::str::from_utf8(record?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: tar::EntryType, name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut all = header.as_bytes().to_vec();
        all.extend_from_slice(content);
        all.resize(all.len().next_multiple_of(BLOCK), 0);
        all
    }

    #[test]
    fn an_ordinary_archive_passes_as_it_is() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1500);
        builder.append_data(&mut header, "long/".repeat(100), &[7; 1500][..]).unwrap();
        builder.append_pax_extensions([("size", b"3".as_slice())]).unwrap();
        builder.append_data(&mut header.clone(), "x", &[b'x'; 3][..]).unwrap();
        let archive = builder.into_inner().unwrap();
        let mut seen = Vec::new();
        Guarded::new(archive.as_slice()).read_to_end(&mut seen).unwrap();
        assert_eq!(seen, archive);
    }

    #[test]
    fn extension_headers_end_it_one_by_one_and_together() {
        let large = vec![b'x'; 3 << 20];
        let half = vec![b'x'; 1 << 19];
        for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
            for archive in [entry(kind, "x", &large), entry(kind, "x", &half).repeat(5)] {
                let mut sink = Vec::new();
                let error = Guarded::new(archive.as_slice()).read_to_end(&mut sink).unwrap_err();
                assert!(error.to_string().contains("is too long"), "{error}");
            }
        }
    }
}
