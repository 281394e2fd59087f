//! Compression of archives: told apart by their first bytes, as names and media types lie.

use std::io::{self, BufRead, Read};

use crate::limits::{Gauge, UnpackLimits};
use crate::store::Store;
use crate::tar::TarError;
use crate::unpack::wire::{Event, Job};
use crate::unpack::{Place, Said, Session};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// A hostile xz stream names the memory that its reader needs; this much it gets. xz(1) says that
/// its largest preset, -9, needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 128 << 20;
/// zstd: at most 128 MiB of window, which is what `--ultra -22` uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// How many bytes [`Compression::sniff`] wants to see.
pub const SNIFF_BYTES: usize = 6;

impl Compression {
    /// Tells by the first bytes.
    ///
    /// Source: RFC 1952, RFC 8878 3.1 (also skippable frames), xz-file-format 2.1.1.
    pub fn sniff(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::None,
        }
    }

    /// The plain bytes of `input`. Concatenated members count as one stream.
    pub fn reader<'a>(
        self,
        input: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Compression::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, flags)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
        })
    }
}

/// How many bytes [`may_be_archive`] wants to see.
pub const HEADER_BYTES: usize = crate::tar::BLOCK;

/// Whether something that begins like this may be an archive: it is compressed, or its first block has a
/// tar header's sum. Only to spare [`crate::LayerWriter::extract`] and [`Store::is_archive`] the rest.
pub fn may_be_archive(start: &[u8]) -> bool {
    Compression::sniff(start) != Compression::None
        || start
            .first_chunk::<{ crate::tar::BLOCK }>()
            .is_some_and(|header| crate::tar::read::check_sum(header).is_ok())
}

impl Store {
    /// Whether `input` begins an archive that `ADD` unpacks: a tar, plain or compressed. A process that
    /// can do nothing else looks at the first entry's header.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn is_archive(&self, input: impl Read + Send) -> Result<bool, TarError> {
        let job = Job::Entries { limits: self.unpack_limits() };
        let mut found = None;
        let hear = |session: &mut Session| match session.next()? {
            Said::Event(event) => {
                found = Some(matches!(event, Event::Entry(_)));
                // That is all; the rest is not waited for.
                Err::<(), TarError>(TarError::Header)
            }
            Said::Data(_) => Err(crate::layers::strange()),
        };
        let looked = self.unpacker().run(&job, input, Place::Nothing, hear);
        found.map_or_else(|| looked.map(|_| false), Ok)
    }
}

/// Decompresses whatever `input` turns out to be, and stops where it swells beyond the limits.
/// The gauge knows what came.
pub(crate) fn bounded<'a>(
    input: impl Read + Send + 'a,
    limits: &UnpackLimits,
) -> io::Result<(io::BufReader<Box<dyn Read + Send + 'a>>, Gauge)> {
    const BUFFER_BYTES: usize = 256 * 1024;
    let gauge = Gauge::new(limits);
    let plain = sniffed(io::BufReader::with_capacity(BUFFER_BYTES, gauge.count(input)))?;
    let plain: Box<dyn Read + Send + 'a> = Box::new(gauge.bound(plain));
    Ok((io::BufReader::with_capacity(BUFFER_BYTES, plain), gauge))
}

/// Decompresses whatever `input` turns out to be.
pub fn sniffed<'a>(mut input: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::new();
    (&mut input).take(SNIFF_BYTES as u64).read_to_end(&mut start)?;
    let compression = Compression::sniff(&start);
    compression
        .reader(io::BufReader::with_capacity(256 * 1024, io::Cursor::new(start).chain(input)))
}
