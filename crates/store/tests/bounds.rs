//! Archives that are small and ask for much: each is refused in words, and nothing of it stays.

mod common;

use std::io::{Cursor, Read};

use common::{Scratch, privileged, sh};
use store::{Options, Store, UnpackError, UnpackLimits};

fn open(scratch: &Scratch) -> Store {
    Store::open(&scratch.path().join("root"), Options::default()).unwrap()
}

/// A header of ustar's; its payload is to follow.
fn header(name: &[u8], kind: u8, size: usize) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    let length = name.len().min(100);
    block[..length].copy_from_slice(&name[..length]);
    block[100..107].copy_from_slice(b"0000755");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn with_payload(name: &[u8], kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut all = header(name, kind, payload.len());
    all.extend_from_slice(payload);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// `count` pieces that `make` makes, one after another, none held before it is read.
fn flood(count: usize, mut make: impl FnMut(usize) -> Vec<u8>) -> impl Read {
    let (mut next, mut piece) = (0, Cursor::new(Vec::new()));
    Reading(move |out: &mut [u8]| {
        loop {
            let got = piece.read(out)?;
            if got > 0 || next == count {
                return Ok(got);
            }
            piece = Cursor::new(make(next));
            next += 1;
        }
    })
}

struct Reading<F>(F);

impl<F: FnMut(&mut [u8]) -> std::io::Result<usize>> Read for Reading<F> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        (self.0)(out)
    }
}

fn whole(error: &UnpackError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[track_caller]
fn check(archive: impl Read + Send, limits: &UnpackLimits, words: &str) {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("bounds");
    let store = open(&scratch);
    let error = store.unpack(&store.lease(), archive, limits, None, &[]).unwrap_err();
    let text = whole(&error);
    assert!(text.contains(words), "{text}");
    store.settle();
    for dir in ["layers", "tmp"] {
        assert_eq!(std::fs::read_dir(store.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[track_caller]
fn refused(archive: impl Read + Send, words: &str) {
    check(archive, &UnpackLimits::default(), words);
}

#[test]
fn extension_headers_are_bounded_one_by_one_and_together() {
    let large = vec![b'x'; (1 << 20) + 1];
    for kind in [b'x', b'g', b'L', b'K'] {
        refused(&*with_payload(b"x", kind, &large), "is too long");
        let half = with_payload(b"x", kind, &record(&vec![b'y'; 1 << 19]));
        refused(flood(1000, |_| half.clone()), "is too long");
        refused(flood(100_000, |_| header(b"x", kind, 0)), "is too long");
    }
}

/// A PAX record.
fn record(value: &[u8]) -> Vec<u8> {
    let length = value.len() + 10;
    let digits = length.to_string().len();
    [format!("{} a=", value.len() + digits + 4).as_bytes(), value, b"\n"].concat()
}

#[test]
fn names_are_bounded_by_what_is_remembered() {
    let long = "a/".repeat(1800);
    let entry = |number: usize, kind| {
        let name = format!("{number:08}/{long}");
        [with_payload(b"x", b'L', name.as_bytes()), header(b"x", kind, 0)].concat()
    };
    refused(flood(1, |at| entry(at, b'5')), "inside each other is too deep");
    let long = "a".repeat(240) + "/";
    let long = long.repeat(15);
    let entry = |number: usize| {
        let name = format!("{number:08}{long}");
        [with_payload(b"x", b'L', name.as_bytes()), header(b"x", b'5', 0)].concat()
    };
    refused(flood(1_000_000, entry), "more names than can be remembered");
}

#[test]
fn a_path_is_no_longer_than_the_kernels() {
    let deep = "a/".repeat(100_000);
    let entry = [with_payload(b"x", b'L', deep.as_bytes()), header(b"x", b'5', 0)].concat();
    refused(&*entry, "file name too long");
}

#[test]
fn entries_are_counted() {
    let limits = UnpackLimits { entries_max: 1000, ..UnpackLimits::default() };
    check(flood(1001, |_| header(b"d", b'5', 0)), &limits, "more than 1000 entries");
}

#[test]
fn a_sparse_map_is_bounded() {
    let mut map = b"999999\n".to_vec();
    map.extend(b"1\n0\n".repeat(999_999));
    let pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=1\n";
    let entry = [with_payload(b"x", b'x', pax), with_payload(b"f", b'0', &map)].concat();
    refused(&*entry, "sparse map");
}

#[test]
fn an_xattr_flood_is_no_layer() {
    let records: Vec<u8> = (0..60_000_u32)
        .flat_map(|number| {
            let text = format!("SCHILY.xattr.user.{number:05}=");
            format!("{} {text}\n", text.len() + 4).into_bytes()
        })
        .take_while({
            let mut bytes = 0;
            move |_| {
                bytes += 1;
                bytes <= 20 * 28 * 1000
            }
        })
        .collect();
    let entry = [with_payload(b"x", b'x', &records), header(b"f", b'0', 0)].concat();
    // The file system has the last word: an inode holds 64 KiB of names.
    refused(&*entry, "cannot set attributes");
}

#[test]
fn bombs_of_every_compression_are_stopped_early() {
    let limits = UnpackLimits { free_bytes: 1 << 20, ratio_max: 20, ..UnpackLimits::default() };
    let scratch = Scratch::new("bombs");
    for tool in ["gzip", "zstd -q", "bzip2", "xz -0"] {
        let make = "head -c 64M /dev/zero > zeros; tar -c zeros";
        sh(scratch.path(), &format!("({make}) | {tool} -c > bomb"));
        let bomb = std::fs::read(scratch.path().join("bomb")).unwrap();
        check(&*bomb, &limits, "swells beyond reason");
    }
}

#[test]
fn a_decompressor_gets_no_more_memory_than_it_needs() {
    // A frame whose window is a gigabyte.
    let mut zstd = 0xfd2f_b528_u32.to_le_bytes().to_vec();
    zstd.extend([0x00, 20 << 3, 0x03, 0, 0]);
    zstd.resize(4096, 0);
    refused(&*zstd, "cannot read the archive");
    let scratch = Scratch::new("xz");
    sh(scratch.path(), "echo x > f; tar -cf - f | xz --lzma2=dict=64MiB -c > a.xz");
    let mut xz = std::fs::read(scratch.path().join("a.xz")).unwrap();
    // Block header: its size, flags, filter 0x21 with one byte: 4 GiB of dictionary. xz-file-format 3.1.
    let length = (usize::from(xz[12]) + 1) * 4;
    assert_eq!((xz[14], xz[15]), (0x21, 1));
    xz[16] = 40;
    let sum = crc32(&xz[12..12 + length - 4]);
    xz[12 + length - 4..12 + length].copy_from_slice(&sum.to_le_bytes());
    refused(&*xz, "cannot read the archive");
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn holes_are_free_in_a_layer_and_counted_in_an_add() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("sparse");
    sh(scratch.path(), "truncate -s 1T hole; tar -S -cf a.tar hole");
    let archive = std::fs::read(scratch.path().join("a.tar")).unwrap();
    let store = open(&scratch);
    let lease = store.lease();
    store.unpack(&lease, &*archive, &UnpackLimits::default(), None, &[]).unwrap();
    let mut writer = store.layer_writer(&lease, &[]).unwrap();
    let made = store::Attrs::default();
    let error = writer.extract(&*archive, std::path::Path::new("/"), None, &made).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("swells beyond reason"), "{source}");
}

#[test]
fn many_layers_of_a_load_are_one_archive() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("many");
    sh(
        scratch.path(),
        "head -c 80M /dev/zero > zeros; tar -c zeros | gzip -c > layer; rm zeros
         for i in $(seq 40); do ln layer layer$i; done; tar --hard-dereference -cf load.tar layer?*",
    );
    let limits = Options { unpacked_max: Some(100 << 20), ..Options::default() };
    let store = Store::open(&scratch.path().join("root"), limits).unwrap();
    let file = std::fs::File::open(scratch.path().join("load.tar")).unwrap();
    let mut loaded = 0;
    let outcome = store.image_load(file, None, &mut |_| {}, &mut |_| loaded += 1);
    assert!(outcome.is_err() && loaded == 0);
    store.settle();
    assert_eq!(std::fs::read_dir(store.root().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_listing_gives_up_its_tree_before_memory() {
    let scratch = Scratch::new("listing");
    let deep = "a/".repeat(40);
    let archive = flood(100_000, |at| header(format!("{at}/{deep}").as_bytes(), b'5', 0));
    let path = scratch.path().join("spool");
    let spool = std::fs::File::options().read(true).write(true).create_new(true).open(path);
    let limits = UnpackLimits::default();
    let listing = store::listing::list(archive, spool.unwrap(), &limits, &[]).unwrap();
    assert_eq!(listing.tree, None);
}
