//! Framing of attach, exec and logs without a TTY: two outputs on one connection.
//!
//! ```text
//! byte 0      1 2 3   4 5 6 7                8 …
//! stream      0 0 0   length, big-endian     payload
//! ```
//! Stream: 0 stdin, 1 stdout, 2 stderr, 3 an error of the server's. With a TTY there are no
//! frames. Source: moby 28.2 `pkg/stdcopy`.

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 8;

pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// From API 1.42 on, for framed streams.
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
    SystemError,
}

impl Stream {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::SystemError => 3,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::SystemError),
            _ => None,
        }
    }
}

/// The header before `length` bytes of payload.
#[must_use]
pub const fn header(stream: Stream, length: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream.code(), 0, 0, 0, a, b, c, d]
}

/// Appends one frame; payloads over 4 GiB become several.
pub fn encode(stream: Stream, payload: &[u8], out: &mut Vec<u8>) {
    for part in payload.chunks(u32::MAX as usize) {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&header(stream, length));
        out.extend_from_slice(part);
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized stream: {code}")]
pub struct FrameError {
    pub code: u8,
}

/// Takes a stream apart as it arrives, in pieces of any size.
///
/// A payload is passed on in the pieces in which it comes, so memory stays constant whatever
/// length a header announces.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_BYTES],
    header_length: usize,
    /// The frame being read and what it still lacks.
    frame: Option<(Stream, usize)>,
}

impl Decoder {
    /// Feeds `input`, calling `deliver` for each piece of payload in order.
    ///
    /// # Errors
    /// When a header names no stream: then this is no framed stream.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        mut deliver: impl FnMut(Stream, &[u8]),
    ) -> Result<(), FrameError> {
        while !input.is_empty() {
            if let Some((stream, missing)) = self.frame {
                let (piece, rest) = input.split_at(missing.min(input.len()));
                deliver(stream, piece);
                input = rest;
                let missing = missing - piece.len();
                self.frame = (missing > 0).then_some((stream, missing));
                continue;
            }
            let wanted = HEADER_BYTES - self.header_length;
            let (piece, rest) = input.split_at(wanted.min(input.len()));
            self.header[self.header_length..self.header_length + piece.len()]
                .copy_from_slice(piece);
            self.header_length += piece.len();
            input = rest;
            if self.header_length == HEADER_BYTES {
                self.header_length = 0;
                let [code, _, _, _, a, b, c, d] = self.header;
                let stream = Stream::of_code(code).ok_or(FrameError { code })?;
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                self.frame = (length > 0).then_some((stream, length));
            }
        }
        Ok(())
    }

    /// Whether the stream may end here, with no frame cut in two.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.frame.is_none() && self.header_length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_the_same_whatever_the_pieces() {
        let payloads: [(Stream, &[u8]); 4] = [
            (Stream::Stdout, b"out"),
            (Stream::Stderr, b""),
            (Stream::Stderr, b"error\n"),
            (Stream::SystemError, &[7; 300]),
        ];
        let mut wire = Vec::new();
        for (stream, payload) in payloads {
            encode(stream, payload, &mut wire);
        }
        for piece in 1..=wire.len() {
            let mut decoder = Decoder::default();
            let mut got: Vec<(Stream, Vec<u8>)> = Vec::new();
            for part in wire.chunks(piece) {
                decoder
                    .feed(part, |stream, bytes| match got.last_mut() {
                        Some((last, text)) if *last == stream => text.extend_from_slice(bytes),
                        _ => got.push((stream, bytes.to_vec())),
                    })
                    .unwrap();
            }
            assert!(decoder.at_boundary());
            let want: Vec<_> = payloads
                .iter()
                .filter(|(_, payload)| !payload.is_empty())
                .map(|(stream, payload)| (*stream, payload.to_vec()))
                .collect();
            assert_eq!(got, want, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_raw_stream_is_recognised_as_no_frames() {
        let mut decoder = Decoder::default();
        let error = decoder.feed(b"hello world", |_, _| ()).unwrap_err();
        assert_eq!(error, FrameError { code: b'h' });
    }

    #[test]
    fn a_cut_frame_is_noticed() {
        let mut decoder = Decoder::default();
        decoder.feed(&header(Stream::Stdout, 5), |_, _| ()).unwrap();
        assert!(!decoder.at_boundary());
    }
}
