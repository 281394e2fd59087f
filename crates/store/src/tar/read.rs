//! Reading a tar archive as a stream.
//!
//! The caller alternates [`Reader::next`] and reading [`Entry::size`] bytes of payload. All bytes
//! that are not payload (headers, extension headers, padding, the end) are appended to `raw` as they
//! are met, so that a recorder can give the archive back bit for bit.
//!
//! Invariant: the size that positions the reader is the one the caller sees. A PAX `size` overrides
//! the header's for both, else one archive would hold two (CVE-2025-62518).
//!
//! Invariant: what is held of an archive is bounded, whatever it says: one entry's extension headers
//! by [`EXTENSION_BYTES_MAX`] each and [`EXTENSIONS_BYTES_MAX`] in all, its sparse map by
//! [`SPARSE_PARTS_MAX`].

use std::io::{BufRead, ErrorKind};

use super::{BLOCK, Entry, Kind, TarError, Time, padding};

/// Longest extension header that is believed: names and attributes, not data.
///
/// Source: Go `archive/tar/format.go`, `maxSpecialFileSize`, the bound that Docker has.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// All extension headers before one entry. An archiver writes one of each kind; a flood of them
/// would be held until the entry comes.
const EXTENSIONS_BYTES_MAX: usize = 2 << 20;
/// Parts of a sparse file: a terabyte with a hole every four megabytes.
const SPARSE_PARTS_MAX: usize = 1 << 18;

pub(crate) struct Reader<R> {
    input: R,
    /// Payload that the caller has not read, then padding.
    remaining: u64,
    padding: u64,
    ended: bool,
}

/// What extension headers said about the entry that follows.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    /// The body of a PAX header. Its records are read where they are used: a list of them would be
    /// many times as large.
    pax: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Reader<R> {
        Reader { input, remaining: 0, padding: 0, ended: false }
    }

    /// The next entry; none at the archive's end. Payload left unread is skipped, unrecorded.
    pub(crate) fn next(&mut self, raw: &mut Vec<u8>) -> Result<Option<Entry>, TarError> {
        self.skip_payload()?;
        let (mut extensions, start) = (Extensions::default(), raw.len());
        while !self.ended {
            let Some(header) = self.block(raw)? else {
                return if extensions.is_empty() { Ok(None) } else { Err(TarError::Truncated) };
            };
            if is_zero(&header) {
                self.end(raw)?;
                break;
            }
            check_sum(&header)?;
            if raw.len() - start > EXTENSIONS_BYTES_MAX {
                return Err(TarError::ExtensionTooLong((raw.len() - start) as u64));
            }
            match header[156] {
                b'x' => {
                    extensions.pax = self.extension(&header, raw)?;
                    pax_records(&extensions.pax).try_for_each(|record| record.map(drop))?;
                }
                // The defaults of a global header are dates and comments in practice; Docker ignores
                // them as well.
                b'g' => {
                    self.extension(&header, raw)?;
                }
                b'L' => extensions.path = Some(until_nul(&self.extension(&header, raw)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.extension(&header, raw)?).to_vec()),
                _ => return self.entry(&header, extensions, raw).map(Some),
            }
        }
        Ok(None)
    }

    /// The end is two blocks of zeros, of which the second may be missing as a whole.
    ///
    /// Source: Go `archive/tar/reader.go`, `readHeader`.
    fn end(&mut self, raw: &mut Vec<u8>) -> Result<(), TarError> {
        self.ended = true;
        match self.block(raw)? {
            Some(second) if !is_zero(&second) => Err(TarError::Header),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads what follows the last entry up to the stream's end, in pieces.
    pub(crate) fn drain<E: From<TarError>>(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let chunk = fill(&mut self.input)?;
            let length = chunk.len();
            if length == 0 {
                return Ok(());
            }
            each(chunk)?;
            self.input.consume(length);
        }
    }

    /// The next piece of the current entry's payload, at most `limit` bytes, to be followed by
    /// [`Reader::consume`].
    pub(crate) fn payload(&mut self, limit: u64) -> Result<&[u8], TarError> {
        let limit = usize::try_from(self.remaining.min(limit)).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(&[]);
        }
        let chunk = fill(&mut self.input)?;
        if chunk.is_empty() {
            return Err(TarError::Truncated);
        }
        Ok(&chunk[..chunk.len().min(limit)])
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.remaining -= length as u64;
    }

    fn skip_payload(&mut self) -> Result<(), TarError> {
        while self.remaining > 0 {
            let length = self.payload(u64::MAX)?.len();
            self.consume(length);
        }
        Ok(())
    }

    /// One header block, after the padding of what came before; none at a clean end.
    fn block(&mut self, raw: &mut Vec<u8>) -> Result<Option<[u8; BLOCK]>, TarError> {
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        // Go's reader, and so Docker, takes an end within the last padding as the end.
        if self.read_raw(padding, raw)? < padding {
            return Ok(None);
        }
        let start = raw.len();
        match self.read_raw(BLOCK, raw)? {
            0 => Ok(None),
            BLOCK => {
                let mut block = [0u8; BLOCK];
                block.copy_from_slice(&raw[start..]);
                Ok(Some(block))
            }
            _ => Err(TarError::Truncated),
        }
    }

    /// Appends up to `want` bytes to `raw`; fewer only at the end.
    fn read_raw(&mut self, want: usize, raw: &mut Vec<u8>) -> Result<usize, TarError> {
        let mut got = 0;
        while got < want {
            let chunk = fill(&mut self.input)?;
            if chunk.is_empty() {
                break;
            }
            let take = chunk.len().min(want - got);
            raw.extend_from_slice(&chunk[..take]);
            self.input.consume(take);
            got += take;
        }
        Ok(got)
    }

    /// The body of an extension header.
    fn extension(&mut self, header: &[u8; BLOCK], raw: &mut Vec<u8>) -> Result<Vec<u8>, TarError> {
        let size =
            number(&header[124..136]).and_then(non_negative).ok_or(TarError::field("size"))?;
        if size > EXTENSION_BYTES_MAX {
            return Err(TarError::ExtensionTooLong(size));
        }
        let start = raw.len();
        let want = usize::try_from(size).unwrap_or(usize::MAX);
        if self.read_raw(want, raw)? < want {
            return Err(TarError::Truncated);
        }
        let body = raw[start..].to_vec();
        self.padding = padding(size);
        Ok(body)
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        extensions: Extensions,
        raw: &mut Vec<u8>,
    ) -> Result<Entry, TarError> {
        let mut entry = basic(header)?;
        let sparse = extensions.apply(&mut entry)?;
        let header_only = !matches!(entry.kind, Kind::File);
        if header_only {
            entry.size = 0;
        }
        self.remaining = entry.size;
        self.padding = padding(entry.size);
        entry.real_size = entry.size;
        if header[156] == b'S' {
            self.old_sparse(header, &mut entry, raw)?;
        } else if let (Some(sparse), false) = (sparse, header_only) {
            self.pax_sparse(sparse, &mut entry, raw)?;
        } else {
            entry.parts = vec![(0, entry.size)];
        }
        Ok(entry)
    }

    /// GNU's first sparse format: four parts in the header, 21 in each following block.
    fn old_sparse(
        &mut self,
        header: &[u8; BLOCK],
        entry: &mut Entry,
        raw: &mut Vec<u8>,
    ) -> Result<(), TarError> {
        entry.real_size =
            number(&header[483..495]).and_then(non_negative).ok_or(TarError::field("realsize"))?;
        let mut more = header[482] != 0;
        let mut fields = header[386..482].to_vec();
        loop {
            for part in fields.chunks_exact(24) {
                if part[0] == 0 && part[12] == 0 {
                    break;
                }
                let offset = number(&part[..12]).and_then(non_negative);
                let length = number(&part[12..]).and_then(non_negative);
                entry.parts.push(offset.zip(length).ok_or(TarError::field("sparse"))?);
            }
            if entry.parts.len() > SPARSE_PARTS_MAX {
                return Err(sparse_error(entry));
            }
            if !more {
                return check_sparse(entry);
            }
            let start = raw.len();
            if self.read_raw(BLOCK, raw)? < BLOCK {
                return Err(TarError::Truncated);
            }
            fields = raw[start..start + 504].to_vec();
            more = raw[start + 504] != 0;
        }
    }

    /// The PAX sparse formats. In 1.0 the map stands before the data, in lines of decimal digits
    /// filled up to a block.
    fn pax_sparse(
        &mut self,
        sparse: PaxSparse,
        entry: &mut Entry,
        raw: &mut Vec<u8>,
    ) -> Result<(), TarError> {
        entry.real_size = sparse.real_size.ok_or_else(|| sparse_error(entry))?;
        let mut numbers = sparse.map;
        if sparse.map_in_data {
            numbers = self.map_in_data(entry, raw)?;
        }
        if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > SPARSE_PARTS_MAX {
            return Err(sparse_error(entry));
        }
        entry.parts = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        check_sparse(entry)
    }

    fn map_in_data(&mut self, entry: &mut Entry, raw: &mut Vec<u8>) -> Result<Vec<u64>, TarError> {
        let mut numbers = Vec::new();
        let mut digits = Vec::new();
        let mut count = None;
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(sparse_error(entry));
            }
            let start = raw.len();
            if self.read_raw(BLOCK, raw)? < BLOCK {
                return Err(TarError::Truncated);
            }
            self.remaining -= BLOCK as u64;
            entry.size -= BLOCK as u64;
            for byte in &raw[start..] {
                if *byte != b'\n' {
                    digits.push(*byte);
                    continue;
                }
                let value = decimal(&digits).ok_or_else(|| sparse_error(entry))?;
                digits.clear();
                match count {
                    None if value > SPARSE_PARTS_MAX as u64 => return Err(sparse_error(entry)),
                    None => count = Some(usize::try_from(value).unwrap_or(0) * 2),
                    Some(_) => numbers.push(value),
                }
                if count == Some(numbers.len()) {
                    return Ok(numbers);
                }
            }
            if digits.len() > 32 {
                return Err(sparse_error(entry));
            }
        }
    }
}

fn fill<R: BufRead>(input: &mut R) -> Result<&[u8], TarError> {
    // A plain `match` on fill_buf in a loop would keep the borrow alive across iterations.
    while let Err(error) = input.fill_buf() {
        match error.kind() {
            ErrorKind::Interrupted => {}
            ErrorKind::UnexpectedEof => return Err(TarError::Truncated),
            _ => return Err(TarError::Read(error)),
        }
    }
    input.fill_buf().map_err(TarError::Read)
}

fn basic(header: &[u8; BLOCK]) -> Result<Entry, TarError> {
    let field =
        |range: std::ops::Range<usize>, name| number(&header[range]).ok_or(TarError::field(name));
    let ustar = &header[257..263] == b"ustar\0";
    let posix = ustar || &header[257..263] == b"ustar ";
    let mut path = until_nul(&header[..100]).to_vec();
    let prefix = until_nul(&header[345..500]);
    if ustar && !prefix.is_empty() {
        path = [prefix, b"/", &path].concat();
    }
    let kind = match header[156] {
        // Before POSIX, a directory was a file with a slash at the end of its name.
        0 | b'0' | b'7' if path.ends_with(b"/") && header[156] == 0 => Kind::Dir,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        other => return Err(TarError::Type(char::from(other))),
    };
    let device = |range| if posix { number(&header[range]).unwrap_or(0) } else { 0 };
    let narrow = |value: i64| u32::try_from(value).unwrap_or(0);
    Ok(Entry {
        path,
        kind,
        link: until_nul(&header[157..257]).to_vec(),
        mode: narrow(field(100..108, "mode")? & 0o7777),
        uid: narrow(field(108..116, "uid")?),
        gid: narrow(field(116..124, "gid")?),
        mtime: Time { secs: field(136..148, "mtime")?, nanos: 0 },
        rdev: (narrow(device(329..337)), narrow(device(337..345))),
        xattrs: Vec::new(),
        size: non_negative(field(124..136, "size")?).ok_or(TarError::field("size"))?,
        real_size: 0,
        parts: Vec::new(),
    })
}

struct PaxSparse {
    real_size: Option<u64>,
    map: Vec<u64>,
    map_in_data: bool,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.pax.is_empty()
    }

    /// Applies what was said; gives the sparse description if there is one.
    fn apply(self, entry: &mut Entry) -> Result<Option<PaxSparse>, TarError> {
        entry.path = self.path.unwrap_or(std::mem::take(&mut entry.path));
        entry.link = self.link.unwrap_or(std::mem::take(&mut entry.link));
        let mut sparse = PaxSparse { real_size: None, map: Vec::new(), map_in_data: false };
        let (mut is_sparse, mut sparse_name) = (false, None);
        for record in pax_records(&self.pax) {
            let (key, value) = record?;
            let unsigned = |name| decimal(value).ok_or(TarError::field(name));
            let narrow = |name| unsigned(name)?.try_into().map_err(|_| TarError::field(name));
            match key {
                b"path" => entry.path = value.to_vec(),
                b"linkpath" => entry.link = value.to_vec(),
                b"size" => entry.size = unsigned("size")?,
                b"uid" => entry.uid = narrow("uid")?,
                b"gid" => entry.gid = narrow("gid")?,
                b"mtime" => entry.mtime = pax_time(value).ok_or(TarError::field("mtime"))?,
                b"GNU.sparse.name" => sparse_name = Some(value.to_vec()),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    is_sparse = true;
                    sparse.real_size = Some(unsigned("GNU.sparse.realsize")?);
                }
                b"GNU.sparse.major" => {
                    is_sparse = true;
                    sparse.map_in_data = value != b"0";
                }
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    sparse.map.push(unsigned("GNU.sparse.offset")?);
                }
                b"GNU.sparse.map" => {
                    let numbers = value.split(|byte| *byte == b',').filter(|text| !text.is_empty());
                    sparse.map = numbers
                        .map(decimal)
                        .collect::<Option<_>>()
                        .ok_or(TarError::field("GNU.sparse.map"))?;
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        entry.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        if is_sparse {
            entry.path = sparse_name.unwrap_or(std::mem::take(&mut entry.path));
        }
        Ok(is_sparse.then_some(sparse))
    }
}

/// Records of the form `LENGTH KEY=VALUE\n`, the length counting itself.
fn pax_records(mut body: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), TarError>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let first = pax_record(body);
        body = first.as_ref().map_or(&[], |(_, rest)| rest);
        Some(first.map(|(record, _)| record))
    })
}

/// The first record of a PAX header as key and value, and what follows it.
type PaxRecord<'b> = ((&'b [u8], &'b [u8]), &'b [u8]);

fn pax_record(body: &[u8]) -> Result<PaxRecord<'_>, TarError> {
    let space = body.iter().position(|byte| *byte == b' ').ok_or(TarError::Header)?;
    let length = decimal(&body[..space]).ok_or(TarError::Header)?;
    let length = usize::try_from(length).map_err(|_| TarError::Header)?;
    if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
        return Err(TarError::Header);
    }
    let record = &body[space + 1..length - 1];
    let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarError::Header)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let text = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
    if key.is_empty() || (text && value.contains(&0)) {
        return Err(TarError::Header);
    }
    Ok(((key, value), &body[length..]))
}

fn check_sparse(entry: &Entry) -> Result<(), TarError> {
    let (mut end, mut total) = (0u64, 0u64);
    for (offset, length) in &entry.parts {
        let stop = offset.checked_add(*length).ok_or_else(|| sparse_error(entry))?;
        if *offset < end || stop > entry.real_size {
            return Err(sparse_error(entry));
        }
        end = stop;
        total = total.checked_add(*length).ok_or_else(|| sparse_error(entry))?;
    }
    if total == entry.size { Ok(()) } else { Err(sparse_error(entry)) }
}

fn sparse_error(entry: &Entry) -> TarError {
    TarError::Sparse(String::from_utf8_lossy(&entry.path).into_owned())
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// The sum of all bytes, the checksum's own taken as spaces. Old tars summed signed bytes.
pub(crate) fn check_sum(header: &[u8; BLOCK]) -> Result<(), TarError> {
    let said = number(&header[148..156]).ok_or(TarError::Header)?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if said == unsigned || said == signed { Ok(()) } else { Err(TarError::Header) }
}

/// Octal digits, or GNU's base 256 where the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
            if !(i64::MIN >> 8..=i64::MAX >> 8).contains(&value) {
                return None;
            }
            value = value << 8 | i64::from(byte);
        }
        return Some(value);
    }
    let text = until_nul(field).trim_ascii();
    let text = if text.is_empty() { field.trim_ascii() } else { text };
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => Some(value.checked_mul(8)? + i64::from(digit - b'0')),
        _ => None,
    })
}

fn non_negative(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn pax_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { secs, nanos })
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}
