//! Compresses on several threads: each block of the input is a gzip member or a zstd frame of its own.
//!
//! Members and frames one after another are one stream (RFC 1952, 2.2; RFC 8878, 3). What comes out
//! depends on the input alone, not on the number of threads, so a layer has the same blob whoever makes it.
//!
//! A layer is compressed when somebody first asks for it as a blob, or shortly before (`engine::images::ahead`),
//! and what was made is kept.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use libdeflater::{CompressionLvl, Compressor};

/// A layer that was made here is sent by somebody who waits for it. libdeflate's first level makes three
/// percent more bytes than zlib's fourth in less than half of the time.
const GZIP_LEVEL: i32 = 1;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// Long enough that starting anew costs less than one percent of the ratio.
const BLOCK_BYTES: usize = 1 << 20;
/// Several layers are compressed at a time, each with its own threads and up to three MiB a thread.
const THREADS_MAX: usize = 8;
/// One in work and one that is waiting or done, so that no thread idles while this one reads or writes.
/// Each thread's channels hold as many, so sending never waits for a thread that waits for us.
const BLOCKS_A_THREAD: usize = 2;

type Done = io::Result<Vec<u8>>;

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Gzip,
    Zstd,
}

/// Compresses all of `input` into `output`. Memory is a few blocks a thread.
///
/// # Errors
/// What reading or writing gives.
pub fn compress(format: Format, mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        let mut workers: Vec<(SyncSender<Vec<u8>>, Receiver<Done>)> = Vec::new();
        for _ in 0..threads {
            let (sender, blocks) = sync_channel::<Vec<u8>>(1);
            let (done, results) = sync_channel::<Done>(1);
            scope.spawn(move || {
                let mut encoder = Encoder::new(format);
                for block in blocks {
                    if done.send(encoder.member(&block)).is_err() {
                        return;
                    }
                }
            });
            workers.push((sender, results));
        }
        let gone = || io::Error::other("a compressing thread is gone");
        let (mut sent, mut written) = (0usize, 0usize);
        loop {
            let block = next_block(&mut input)?;
            let is_last = block.len() < BLOCK_BYTES;
            // An empty input is one empty member.
            if !block.is_empty() || sent == 0 {
                if sent - written == BLOCKS_A_THREAD * threads {
                    output.write_all(&workers[written % threads].1.recv().map_err(|_| gone())??)?;
                    written += 1;
                }
                workers[sent % threads].0.send(block).map_err(|_| gone())?;
                sent += 1;
            }
            if is_last {
                break;
            }
        }
        while written < sent {
            output.write_all(&workers[written % threads].1.recv().map_err(|_| gone())??)?;
            written += 1;
        }
        output.flush()
    })
}

fn next_block(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    input.take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// One thread's.
enum Encoder {
    Gzip(Compressor),
    Zstd,
}

impl Encoder {
    fn new(format: Format) -> Encoder {
        match format {
            Format::Gzip => {
                let level = CompressionLvl::new(GZIP_LEVEL).expect("libdeflate has levels 0 to 12");
                Encoder::Gzip(Compressor::new(level))
            }
            Format::Zstd => Encoder::Zstd,
        }
    }

    fn member(&mut self, block: &[u8]) -> Done {
        match self {
            Encoder::Gzip(compressor) => {
                // Neither name nor time in the header.
                let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
                let length = compressor.gzip_compress(block, &mut member);
                member.truncate(length.map_err(io::Error::other)?);
                Ok(member)
            }
            Encoder::Zstd => zstd::bulk::compress(block, ZSTD_LEVEL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, length: usize) {
        let plain: Vec<u8> = (0..length).map(|place| (place * place % 251) as u8).collect();
        let (mut once, mut again) = (Vec::new(), Vec::new());
        compress(format, &plain[..], &mut once).unwrap();
        compress(format, &plain[..], &mut again).unwrap();
        assert_eq!(once, again);
        let mut back = Vec::new();
        match format {
            Format::Gzip => {
                flate2::read::MultiGzDecoder::new(&once[..]).read_to_end(&mut back).unwrap();
            }
            Format::Zstd => zstd::stream::copy_decode(&once[..], &mut back).unwrap(),
        }
        assert!(back == plain);
    }

    #[test]
    fn blocks_give_back_the_whole() {
        for length in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 9 * BLOCK_BYTES + 7] {
            check(Format::Gzip, length);
            check(Format::Zstd, length);
        }
    }
}
