//! A registry that lies, stalls, floods and breaks off: each time a clear error, nothing that can be
//! seen of the image, nothing outside of its place, and memory that stays bounded.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::fixtures::http::{Request, Server, reply};
use crate::fixtures::image::{Image, Layer, ZSTD, digest, entry, head, ranged, seal, tar};
use crate::fixtures::registry::Etc;
use crate::harness::{BOTH, Outcome, Suite};

super::cases! {
    what_a_registry_tells_of_itself_is_checked,
    bodies_of_another_length_are_refused,
    redirects_have_an_end,
    documents_of_any_size_and_form_are_survived,
    words_of_a_registry_do_not_steer_the_terminal,
    layers_stay_in_their_place,
    archives_that_lie_about_sizes_are_refused,
    what_is_small_packed_and_large_unpacked_is_refused,
    a_download_goes_on_where_it_broke_off,
    what_a_build_adds_from_elsewhere_costs_no_memory,
}

/// Kilobytes by which the daemon may grow in all of a case, also built without optimisation.
const GROWTH_MAX: u64 = 60_000;

/// One try for each blob: what is broken stays broken.
struct Settings<'a>(&'a Suite, Etc);

impl Settings<'_> {
    fn one_try(suite: &Suite) -> Settings<'_> {
        let etc = Etc;
        etc.write("daemon.json", r#"{"max-download-attempts":1}"#);
        suite.reload();
        suite.reset_daemon_peak();
        Settings(suite, etc)
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        self.1.remove("daemon.json");
        self.0.reload();
    }
}

fn ping(stream: &mut TcpStream) {
    reply(stream, "200 OK", &[], b"{}");
}

/// Which part of a registry a request is for.
fn kind(request: &Request) -> &str {
    request.path.rsplit('/').nth(1).unwrap_or_default()
}

/// Pulls from a server and checks that nothing came of it.
#[track_caller]
fn refused(suite: &Suite, server: &Server, want: &str) -> String {
    let name = format!("{}/bad", server.address);
    let said = suite.tug(["pull", &name]).fails(1);
    assert!(said.contains(want), "{said}\nwant: {want}");
    nothing_of(suite, server);
    said
}

#[track_caller]
fn nothing_of(suite: &Suite, server: &Server) {
    let images = suite.tug(["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert!(!images.contains(&server.address) && !images.contains("<none>"), "{images}");
}

#[track_caller]
fn refused_image(suite: &Suite, image: Image, want: &str) {
    let server = Server::start(move |request, stream| image.answer(request, stream));
    refused(suite, &server, want);
}

/// An image of one layer with these entries.
fn image_of(entries: &[Vec<u8>]) -> Image {
    Image::of(&[Layer::gzip(&tar(entries))])
}

#[track_caller]
fn is_bounded(suite: &Suite, before: u64) {
    let peak = suite.daemon_peak_kilobytes();
    assert!(peak < before + GROWTH_MAX, "{before} kB before, {peak} kB at most");
}

fn what_a_registry_tells_of_itself_is_checked(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let good = Image::small();
    // A blob with other bytes, of the same length.
    let lying = good.clone();
    let server = Server::start(move |request, stream| {
        let name = request.path.rsplit('/').next().unwrap();
        match (kind(request), lying.blob(name)) {
            ("blobs", Some(bytes)) if bytes.starts_with(&[0x1f, 0x8b]) => {
                let mut other = bytes.to_vec();
                let last = other.len() - 1;
                other[last] ^= 1;
                reply(stream, "200 OK", &[], &other);
            }
            _ => lying.answer(request, stream),
        }
    });
    refused(suite, &server, "failed to register layer");
    // A manifest other than the one that was asked for.
    let lying = good.clone();
    let server = Server::start(move |request, stream| lying.answer(request, stream));
    let wanted = digest(b"something else");
    let name = format!("{}/bad@{wanted}", server.address);
    let said = suite.tug(["pull", &name]).fails(1);
    assert!(said.contains(&format!("manifest verification failed for digest {wanted}")), "{said}");
    // A configuration that is none of the layer's.
    let mut layer = Layer::gzip(&tar(&[entry(b'0', "x", "", b"content")]));
    layer.diff_id = digest(b"another layer");
    refused_image(
        suite,
        Image::of(&[layer]),
        "layers from manifest don't match image configuration",
    );
    nothing_of(suite, &server);
    Outcome::Passed
}

fn bodies_of_another_length_are_refused(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    for (change, want) in [(-1_isize, "unexpected EOF"), (1, "longer than its manifest says")] {
        let image = Image::small();
        let server = Server::start(move |request, stream| {
            let name = request.path.rsplit('/').next().unwrap();
            match (kind(request), image.blob(name)) {
                ("blobs", Some(bytes)) if bytes.starts_with(&[0x1f, 0x8b]) => {
                    let mut bytes = bytes.to_vec();
                    bytes.resize(bytes.len().checked_add_signed(change).unwrap(), 0);
                    reply(stream, "200 OK", &[], &bytes);
                }
                _ => image.answer(request, stream),
            }
        });
        refused(suite, &server, want);
    }
    // Fewer bytes than the head of the answer says.
    let image = Image::small();
    let server = Server::start(move |request, stream| match kind(request) {
        "blobs" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx");
        }
        _ => image.answer(request, stream),
    });
    refused(suite, &server, "EOF");
    Outcome::Passed
}

fn redirects_have_an_end(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request, stream| match kind(request) {
        "manifests" => {
            let next = count.fetch_add(1, Ordering::Relaxed);
            let to = format!("Location: /v2/bad/manifests/{next}");
            reply(stream, "302 Found", &[&to], b"");
        }
        _ => ping(stream),
    });
    refused(suite, &server, "stopped after 10 redirects");
    for (location, want) in [
        ("file:///etc/passwd", "unsupported protocol scheme \"file\""),
        ("ftp://127.0.0.1/x", "unsupported protocol scheme \"ftp\""),
        ("http://", "http: no Host in request URL"),
        ("http:manifests", "http: no Host in request URL"),
        ("http://a b/", "failed to parse Location header"),
        // Who says not where does not redirect.
        ("", "received unexpected HTTP status: 307 Temporary Redirect"),
    ] {
        let server = Server::start(move |request, stream| match kind(request) {
            "manifests" => {
                reply(stream, "307 Temporary Redirect", &[&format!("Location: {location}")], b"");
            }
            _ => ping(stream),
        });
        refused(suite, &server, want);
    }
    Outcome::Passed
}

/// A server that gives this for every manifest.
fn manifests(content_type: &'static str, bytes: Vec<u8>) -> Server {
    Server::start(move |request, stream| match kind(request) {
        "manifests" => {
            reply(stream, "200 OK", &[&format!("Content-Type: {content_type}")], &bytes);
        }
        "blobs" => reply(stream, "404 Not Found", &[], b""),
        _ => ping(stream),
    })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn documents_of_any_size_and_form_are_survived(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let before = suite.daemon_peak_kilobytes();
    let server = Server::start(|request, stream| match kind(request) {
        "manifests" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
            let block = vec![b' '; 1 << 20];
            (0..100).take_while(|_| stream.write_all(&block).is_ok()).for_each(drop);
        }
        _ => ping(stream),
    });
    refused(suite, &server, "larger than");
    // 10,000 layers of which each fits its configuration.
    let layer = Layer::gzip(&tar(&[entry(b'0', "x", "", b"content")]));
    refused_image(suite, Image::of(&vec![layer; 10_000]), "max depth exceeded");
    // An index of an index, and one that leads to itself by a tag.
    let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let outer = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": INDEX, "digest": digest(inner.as_bytes()), "size": inner.len(),
        "platform": {"os": "linux", "architecture": "amd64"},
    }]});
    let outer = outer.to_string();
    let server = Server::start(move |request, stream| {
        let is_inner = request.path.ends_with(&digest(inner.as_bytes()));
        let text = if is_inner { &inner } else { &outer };
        match kind(request) {
            "manifests" => {
                reply(stream, "200 OK", &[&format!("Content-Type: {INDEX}")], text.as_bytes());
            }
            _ => ping(stream),
        }
    });
    refused(suite, &server, "no matching manifest for linux/amd64");
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"schemaVersion\":2,\"x\":{open}1{close}}}").into_bytes();
    for (content_type, bytes, want) in [
        (MANIFEST, b"{".to_vec(), "cannot be read"),
        (MANIFEST, b"\xff\xfe{}".to_vec(), "cannot be read"),
        (MANIFEST, deep, "cannot be read"),
        (
            MANIFEST,
            br#"{"schemaVersion":2,"config":{"digest":"sha256:zz","size":1},"layers":[]}"#.to_vec(),
            "cannot be read",
        ),
        (
            MANIFEST,
            br#"{"schemaVersion":2,"config":{"digest":"sha256:00","size":-1},"layers":[]}"#
                .to_vec(),
            "cannot be read",
        ),
        ("text/html", b"<html>Welcome</html>".to_vec(), "cannot be read"),
        ("text/plain", br#"{"hello":"world"}"#.to_vec(), "unsupported manifest media type"),
    ] {
        refused(suite, &manifests(content_type, bytes), want);
    }
    // A head without an end.
    let server = Server::start(|request, stream| match kind(request) {
        "manifests" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"X-More: more\r\n").is_ok() {}
        }
        _ => ping(stream),
    });
    refused(suite, &server, "malformed HTTP response");
    is_bounded(suite, before);
    Outcome::Passed
}

fn words_of_a_registry_do_not_steer_the_terminal(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let escape = "\\u001b]0;title\\u0007\\u001b[2J\\u009b31m\\nStatus: Downloaded";
    let body = format!(r#"{{"errors":[{{"code":"DENIED\u001b[1m","message":"{escape}"}}]}}"#);
    let config = format!(
        r#"{{"config":{{"mediaType":"a\u001b[2Jb","digest":"{}","size":2}},"layers":[],"schemaVersion":2}}"#,
        digest(b"{}")
    );
    let servers = [
        Server::start(move |request, stream| match kind(request) {
            "manifests" => reply(stream, "403 Forbidden", &[], body.as_bytes()),
            _ => ping(stream),
        }),
        manifests("application/\x1b[2Jx", b"{}".to_vec()),
        Server::start(move |request, stream| match kind(request) {
            "manifests" => {
                reply(stream, "200 OK", &[&format!("Content-Type: {MANIFEST}")], config.as_bytes())
            }
            _ => ping(stream),
        }),
        manifests(MANIFEST, "{\"schemaVersion\":\"\u{1b}[2J\"}".into()),
    ];
    for server in &servers {
        for cli in BOTH {
            let output = suite.run(cli, ["pull", &format!("{}/bad", server.address)]);
            let text = output.stdout.clone() + &output.stderr;
            assert_eq!(output.code, 1, "{text:?}");
            let is_bad = |letter: char| letter.is_control() && letter != '\n' && letter != '\r';
            assert!(!text.contains(is_bad) && !text.contains("\nStatus:"), "{text:?}");
        }
    }
    Outcome::Passed
}

fn layers_stay_in_their_place(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let bait = suite.scratch().join("bait");
    fs::create_dir(&bait).unwrap();
    fs::write(bait.join("secret"), "of the host").unwrap();
    let out = bait.to_str().unwrap().trim_start_matches('/').to_owned();
    let up = "../".repeat(30);
    let secret = format!("{up}{out}/secret");
    let image = |entries: &[Vec<u8>]| {
        let image = image_of(entries);
        Server::start(move |request, stream| image.answer(request, stream))
    };
    let tricks = [
        image(&[entry(b'0', &format!("{up}{out}/new"), "", b"x")]),
        image(&[entry(b'2', "d", &format!("/{out}"), b""), entry(b'0', "d/new", "", b"x")]),
        image(&[entry(b'2', "d", &format!("{up}{out}"), b""), entry(b'0', "d/secret", "", b"x")]),
        image(&[entry(b'1', "h", &secret, b""), entry(b'0', "h", "", b"x")]),
        image(&[
            entry(b'2', "s", &format!("/{out}/secret"), b""),
            entry(b'1', "h", "s", b""),
            entry(b'0', "h", "", b"x"),
        ]),
        image(&[entry(b'2', "s", &format!("/{out}/secret"), b""), entry(b'0', "s", "", b"x")]),
        image(&[entry(b'0', &format!("/{out}/new"), "", b"x")]),
        image(&[entry(b'0', &format!("{up}{out}/.wh.secret"), "", b"")]),
        image(&[entry(b'2', "d", &format!("/{out}"), b""), entry(b'0', "d/.wh..wh..opq", "", b"")]),
        image(&[
            entry(b'2', "d", "..", b""),
            entry(b'2', "d/e", "..", b""),
            entry(b'0', "d/e/new", "", b"x"),
        ]),
    ];
    for (number, server) in tricks.iter().enumerate() {
        let name = format!("{}/bad", server.address);
        let output = suite.tug(["pull", &name]);
        // What can be had within the root may be had; a refusal leaves nothing.
        if output.code == 0 {
            suite.tug(["rmi", &name]).ok();
        } else {
            assert!(
                output.stderr.contains("failed to register layer"),
                "{number}: {}",
                output.stderr
            );
            nothing_of(suite, server);
        }
        let names: Vec<_> =
            fs::read_dir(&bait).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"], "trick {number} wrote to the host");
        let text = fs::read_to_string(bait.join("secret")).unwrap();
        assert_eq!(text, "of the host", "trick {number} changed the host's file");
    }
    // A device of the image is none that a container may use.
    let mut device = entry(b'3', "dev-mem", "", b"");
    device[100..108].copy_from_slice(b"0000666\0");
    // mem(4): 1, 1.
    device[337..345].copy_from_slice(b"0000001\0");
    let device = seal(device);
    let busybox = fs::read(suite.image_tar("busybox")).unwrap();
    let layers = [Layer::gzip(&busybox), Layer::gzip(&tar(&[device]))];
    let with_device = Image::of(&layers);
    let server = Server::start(move |request, stream| with_device.answer(request, stream));
    let name = format!("{}/device", server.address);
    if suite.tug(["pull", &name]).code == 0 {
        let said = suite.tug(["run", "--rm", &name, "/bin/sh", "-c", "cat /dev-mem"]).fails(1);
        assert!(
            said.contains("Operation not permitted") || said.contains("Permission denied"),
            "{said}"
        );
    }
    Outcome::Passed
}

/// A PAX header in front of a file.
fn pax(records: &str, file: Vec<u8>) -> Vec<Vec<u8>> {
    vec![entry(b'x', "PaxHeaders/x", "", records.as_bytes()), file]
}

fn archives_that_lie_about_sizes_are_refused(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let before = suite.daemon_peak_kilobytes();
    let mut negative = head(b'0', "x", "", 0);
    negative[124..136].copy_from_slice(b"-0000000001\0");
    let mut huge = head(b'0', "x", "", 0);
    huge[124..136]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let mut sparse = head(b'S', "x", "", 512);
    // One piece of data far beyond the file's real size.
    sparse[386..398].copy_from_slice(b"77777777777\0");
    sparse[398..410].copy_from_slice(b"00000001000\0");
    sparse[483..495].copy_from_slice(b"00000001000\0");
    let sparse = [seal(sparse), vec![b'x'; 512]].concat();
    let file = || entry(b'0', "x", "", b"content");
    for entries in [
        vec![seal(negative)],
        vec![seal(huge)],
        vec![sparse],
        vec![head(b'x', "p", "", 1 << 31)],
        vec![head(b'L', "p", "", 1 << 31)],
        pax("20 size=99999999999\n", file()),
        pax("99999999 path=x\n", file()),
        pax("0 path=x\n", file()),
        pax("no record", file()),
        pax("15 path=a\0b/../c\n", file()),
        pax(
            "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n32 GNU.sparse.realsize=99999999\n",
            file(),
        ),
        pax("25 GNU.sparse.map=0,1,9,9\n30 GNU.sparse.size=9999999999\n", file()),
        vec![vec![0xff; 512]],
    ] {
        let shown = String::from_utf8_lossy(&entries[0][..124.min(entries[0].len())]).into_owned();
        let image = image_of(&entries);
        let server = Server::start(move |request, stream| image.answer(request, stream));
        let name = format!("{}/bad", server.address);
        let output = suite.tug(["pull", &name]);
        assert_eq!(output.code, 1, "taken: {shown:?} {}", output.stdout);
        assert!(output.stderr.contains("failed to register layer"), "{}", output.stderr);
        nothing_of(suite, &server);
    }
    // Cut off within the archive, though the blob is whole.
    let whole = tar(&[entry(b'0', "x", "", &[7; 4000])]);
    refused_image(suite, Image::of(&[Layer::gzip(&whole[..1500])]), "failed to register layer");
    is_bounded(suite, before);
    Outcome::Passed
}

fn what_is_small_packed_and_large_unpacked_is_refused(suite: &Suite) -> Outcome {
    let _settings = Settings::one_try(suite);
    let before = suite.daemon_peak_kilobytes();
    // Zeros without end behind an archive's end, so that nothing of them is written to the disk.
    let archive = tar(&[entry(b'0', "x", "", b"content")]);
    let packed = zstd::encode_all(archive.as_slice(), 1).unwrap();
    let zeros = zstd::encode_all(vec![0; 8 << 20].as_slice(), 1).unwrap();
    let blob = [packed, zeros.repeat(3 << 7)].concat();
    let bomb = Layer { blob, media_type: ZSTD, diff_id: digest(b"never reached") };
    refused_image(suite, Image::of(&[bomb]), "failed to register layer");
    is_bounded(suite, before);
    Outcome::Passed
}

fn a_download_goes_on_where_it_broke_off(suite: &Suite) -> Outcome {
    let downloads = || {
        let entries = fs::read_dir(suite.data_root().join("downloads")).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>()
    };
    let before = downloads();
    for (honours_ranges, seed) in [(true, 13), (false, 17)] {
        // No two of them alike: what is here is not fetched again.
        let noise =
            (0_u32..300_000).map(|number| (number.wrapping_mul(2_654_435_761) >> seed) as u8);
        let noise: Vec<u8> = noise.collect();
        let image = image_of(&[entry(b'0', "noise", "", &noise)]);
        let broken = AtomicUsize::new(0);
        let server = Server::start(move |request, stream| {
            let name = request.path.rsplit('/').next().unwrap();
            let layer = image.blob(name).filter(|bytes| bytes.starts_with(&[0x1f, 0x8b]));
            match (kind(request), layer) {
                ("blobs", Some(bytes)) => match broken.fetch_add(1, Ordering::Relaxed) {
                    // Half of it, then the connection ends; then the registry is just starting.
                    0 => {
                        let text =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
                        let _ = stream
                            .write_all(text.as_bytes())
                            .and_then(|()| stream.write_all(&bytes[..bytes.len() / 2]));
                    }
                    1 if honours_ranges => reply(stream, "503 Service Unavailable", &[], b""),
                    _ if honours_ranges => ranged(request, stream, bytes),
                    _ => reply(stream, "200 OK", &[], bytes),
                },
                _ => image.answer(request, stream),
            }
        });
        let name = format!("{}/good", server.address);
        suite.tug(["pull", &name]).ok();
        let asked: Vec<String> =
            server.seen().iter().map(|request| request.header("range").to_owned()).collect();
        let ranges = asked.iter().filter(|range| range.starts_with("bytes=")).count();
        assert_eq!(ranges, if honours_ranges { 2 } else { 1 }, "{asked:?}");
        suite.tug(["rmi", &name]).ok();
    }
    assert_eq!(downloads(), before, "a download that is complete leaves nothing");
    Outcome::Passed
}

fn what_a_build_adds_from_elsewhere_costs_no_memory(suite: &Suite) -> Outcome {
    const MEGABYTES: usize = 100;
    let server = Server::start(|request, stream| match request.path.as_str() {
        "/large" => {
            let length = MEGABYTES << 20;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let block = vec![7; 1 << 20];
            (0..MEGABYTES).take_while(|_| stream.write_all(&block).is_ok()).for_each(drop);
        }
        "/short" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx");
        }
        _ => reply(stream, "404 Not Found", &[], b"\x1b[2Jnot here"),
    });
    suite.reset_daemon_peak();
    let before = suite.daemon_peak_kilobytes();
    let build = |path: &str| {
        let directory = suite.scratch();
        let text = format!("FROM busybox\nADD http://{}/{path} /got\n", server.address);
        fs::write(directory.join("Dockerfile"), text).unwrap();
        suite
            .run(crate::harness::Cli::Docker, ["build", "-t", "added", directory.to_str().unwrap()])
    };
    build("large").ok();
    is_bounded(suite, before);
    let listed = suite.tug(["run", "--rm", "added", "stat", "-c", "%s %a", "/got"]).ok();
    assert_eq!(listed, format!("{} 600", MEGABYTES << 20));
    let said = build("gone").fails(1);
    assert!(said.contains("with status 404 Not Found: ") && said.contains("[2Jnot here"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let said = build("short").fails(1);
    assert!(said.contains("unexpected EOF"), "{said}");
    Outcome::Passed
}
