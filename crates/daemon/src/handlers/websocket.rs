//! Attach by websocket: `GET /containers/{id}/attach/ws`.
//!
//! The container's output goes out in binary frames (text frames before API 1.28), both outputs
//! mixed; what the client sends becomes stdin, and its close frame stdin's end. The engine sees
//! one end of a socket pair; this side turns its frames into the websocket's.
//!
//! ```text
//! client ─ websocket ─ this ─ socket pair ─ monitor
//! ```
//! Source: RFC 6455; moby 28.2 `container_routes.go`, `wsContainersAttach`.

use std::io;

use api::framing::Decoder;
use base64::Engine as _;
use engine::containers::views::ClientSocket;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Appended to the client's key before hashing (RFC 6455, 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Frames that say something about the connection may not be longer (RFC 6455, 5.5). Data may have
/// any length; it goes on in pieces.
const CONTROL_BYTES_MAX: u64 = 125;
const PIECE_BYTES: usize = 32 << 10;

/// Frames' kinds (RFC 6455, 5.2).
mod opcode {
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// The value of `Sec-WebSocket-Accept` for a client's key.
pub fn accept_key(key: &str) -> String {
    let digest = sha1(format!("{}{KEY_SUFFIX}", key.trim()).as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// What kind of frame carries output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Text,
    Binary,
}

/// Whether the container's side frames its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Raw,
    Framed,
}

/// Carries bytes both ways until one side is done. `container` is our end of the pair.
pub async fn pump(
    client: ClientSocket,
    container: UnixStream,
    output: Output,
    payload: Payload,
) -> io::Result<()> {
    let client_socket = std::os::unix::net::UnixStream::from(client.socket);
    client_socket.set_nonblocking(true)?;
    let (from_client, mut to_client) = UnixStream::from_std(client_socket)?.into_split();
    let mut from_client = io::Cursor::new(client.prelude).chain(from_client);
    let (mut from_container, mut to_container) = container.into_split();
    let (pongs, mut pending) = tokio::sync::mpsc::channel::<Vec<u8>>(4);

    let outward = async {
        let mut decoder = Decoder::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = tokio::select! {
                read = from_container.read(&mut piece) => read?,
                Some(ping) = pending.recv() => {
                    to_client.write_all(&frame(opcode::PONG, &ping)).await?;
                    continue;
                }
            };
            if length == 0 {
                // 1000: a normal end (RFC 6455, 7.4.1).
                return to_client.write_all(&frame(opcode::CLOSE, &1000_u16.to_be_bytes())).await;
            }
            let mut plain = Vec::new();
            match output {
                Output::Raw => plain.extend_from_slice(&piece[..length]),
                Output::Framed => decoder
                    .feed(&piece[..length], |_, bytes| plain.extend_from_slice(bytes))
                    .map_err(io::Error::other)?,
            }
            let kind = match payload {
                Payload::Text => opcode::TEXT,
                Payload::Binary => opcode::BINARY,
            };
            if !plain.is_empty() {
                to_client.write_all(&frame(kind, &plain)).await?;
            }
        }
    };
    let inward = async {
        while let Some(mut incoming) = Incoming::read(&mut from_client).await? {
            match incoming.kind {
                opcode::CLOSE => break,
                opcode::PING => {
                    let ping = incoming.whole(&mut from_client).await?;
                    // Who pings faster than it reads pongs gets fewer of them.
                    let _full = pongs.try_send(ping);
                }
                opcode::PONG => drop(incoming.whole(&mut from_client).await?),
                // Text, binary, and what continues them.
                _ => {
                    while let Some(bytes) = incoming.piece(&mut from_client).await? {
                        to_container.write_all(&bytes).await?;
                    }
                }
            }
        }
        to_container.shutdown().await
    };
    tokio::pin!(outward);
    tokio::select! {
        ended = &mut outward => ended,
        // The client is done writing; output goes on until the container ends.
        ended = inward => { ended?; outward.await }
    }
}

/// A whole, unmasked frame, as servers send them.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        short @ 0..=125 => frame.push(short as u8),
        medium @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A frame of a client's, as far as it was read.
struct Incoming {
    kind: u8,
    left: u64,
    /// Turned so that it begins with the next byte's.
    mask: [u8; 4],
}

impl Incoming {
    /// Reads the next frame's head; `None` when the connection is gone.
    async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Incoming>> {
        let mut head = [0; 2];
        match from.read_exact(&mut head).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        let left = match head[1] & 0x7f {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            short => u64::from(short),
        };
        let kind = head[0] & 0x0f;
        // A client must mask (RFC 6455, 5.1).
        if head[1] & 0x80 == 0 || (kind >= opcode::CLOSE && left > CONTROL_BYTES_MAX) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut mask = [0; 4];
        from.read_exact(&mut mask).await?;
        Ok(Some(Incoming { kind, left, mask }))
    }

    /// The next part of the payload; `None` at its end.
    async fn piece(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        let count = usize::try_from(self.left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        if count == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).await?;
        for (byte, mask) in bytes.iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(count % 4);
        self.left -= count as u64;
        Ok(Some(bytes))
    }

    /// The payload of a short frame.
    async fn whole(mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
        Ok(self.piece(from).await?.unwrap_or_default())
    }
}

/// SHA-1 (RFC 3174), which the handshake prescribes; it protects nothing here.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] =
                (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (round, word) in words.iter().enumerate() {
            let (mixed, constant) = match round {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshakes_example_is_that_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn masked_frames_are_read_and_the_end_is_noticed() {
        let wire = [0x82, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        let mut from = io::Cursor::new(wire.to_vec());
        let frame = Incoming::read(&mut from).await.unwrap().unwrap();
        assert_eq!(frame.kind, opcode::BINARY);
        assert_eq!(frame.whole(&mut from).await.unwrap(), b"hi");
        assert!(Incoming::read(&mut from).await.unwrap().is_none());
        for bad in [vec![0x82, 0x00], vec![0x89, 0xfe, 1, 0, 1, 2, 3, 4]] {
            assert!(Incoming::read(&mut io::Cursor::new(bad)).await.is_err());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_frame_of_any_length_arrives_in_pieces() {
        let mask = [1, 2, 3, 4];
        let payload: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|at| (at % 251) as u8).collect();
        let mut wire = vec![0x82, 0xff];
        wire.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        wire.extend_from_slice(&mask);
        wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let mut from = io::Cursor::new(wire);
        let mut frame = Incoming::read(&mut from).await.unwrap().unwrap();
        let mut got = Vec::new();
        while let Some(piece) = frame.piece(&mut from).await.unwrap() {
            got.extend(piece);
        }
        assert_eq!(got, payload);
    }

    #[test]
    fn lengths_have_three_forms() {
        assert_eq!(frame(opcode::BINARY, b"hi"), [0x82, 2, b'h', b'i']);
        assert_eq!(frame(opcode::BINARY, &[0; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(frame(opcode::BINARY, &[0; 65536])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn output_goes_out_and_input_goes_in() {
        let (client, mut far) = UnixStream::pair().unwrap();
        let (container, mut monitor) = UnixStream::pair().unwrap();
        let client =
            ClientSocket { socket: client.into_std().unwrap().into(), prelude: Vec::new() };
        let pump = tokio::spawn(pump(client, container, Output::Framed, Payload::Binary));
        let mut out = Vec::new();
        api::framing::encode(api::framing::Stream::Stdout, b"out", &mut out);
        monitor.write_all(&out).await.unwrap();
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [0x82, 3, b'o', b'u', b't']);
        far.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x', 0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut input = Vec::new();
        monitor.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"x");
        drop(monitor);
        pump.await.unwrap().unwrap();
    }
}
