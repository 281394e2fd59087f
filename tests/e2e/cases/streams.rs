//! What goes through a container's streams: every byte, both ways, whoever is slow.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{BOTH, Cli, Outcome, Suite, run, shell, wait_for};

super::cases! {
    keys_are_data_where_there_is_no_terminal,
    every_byte_goes_through_both_command_lines,
    every_byte_goes_through_a_bare_connection,
    who_does_not_read_output_keeps_no_signal_back,
    input_costs_few_system_calls,
    an_exec_that_cannot_start_says_so_once,
}

const BYTES: usize = 64 << 20;

/// Bytes that no program makes up, with the default detach keys among them.
fn noise(suite: &Suite, count: usize) -> PathBuf {
    let file = suite.scratch().join("noise");
    shell(&format!("(printf 'a\\020\\021b'; head -c {count} /dev/urandom) > {}", file.display()))
        .ok();
    file
}

fn digest(path: &Path) -> String {
    shell(&format!("sha256sum < {}", path.display())).ok()
}

fn keys_are_data_where_there_is_no_terminal(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    let input = b"abc\x10\x11def";
    let want = "0000000   a   b   c 020 021   d   e   f\n0000010";
    for cli in BOTH {
        for args in [
            &["exec", "-i", "box", "od", "-c"][..],
            &["exec", "-i", "--detach-keys", "a,b", "box", "od", "-c"],
            &["run", "--rm", "-i", "busybox", "od", "-c"],
            &["run", "--rm", "-i", "--detach-keys", "d", "busybox", "od", "-c"],
        ] {
            let file = suite.scratch().join("keys");
            fs::write(&file, input).unwrap();
            let output = run(suite.command(cli).args(args).stdin(fs::File::open(&file).unwrap()));
            assert_eq!(output.ok(), want, "{cli:?} {args:?}");
        }
    }
    Outcome::Passed
}

fn every_byte_goes_through_both_command_lines(suite: &Suite) -> Outcome {
    let file = noise(suite, BYTES);
    let want = digest(&file);
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for cli in BOTH {
        let docker = format!(
            "DOCKER_HOST=unix://{} {}",
            suite.socket().display(),
            suite.program(cli).display()
        );
        let through = |command: &str| {
            shell(&format!("{docker} {command} < {} | sha256sum", file.display())).ok()
        };
        assert_eq!(through("run --rm -i --log-driver none busybox cat"), want, "{cli:?} run");
        assert_eq!(through("exec -i box cat"), want, "{cli:?} exec");
        for (start, join) in [("", "start -ai late"), ("start late", "attach late")] {
            let create = "create -i --name late --log-driver none busybox cat";
            shell(&format!("{docker} {create}")).ok();
            if !start.is_empty() {
                shell(&format!("{docker} {start}")).ok();
            }
            assert_eq!(through(join), want, "{cli:?} {join}");
            suite.tug(["rm", "-f", "late"]).ok();
        }
    }
    // With a log, and by the count of what came in.
    let small = noise(suite, 2 << 20);
    let size = fs::metadata(&small).unwrap().len().to_string();
    for cli in BOTH {
        let args = ["run", "--rm", "-i", "busybox", "sh", "-c", "tee /dev/stderr | wc -c >&2"];
        let input = fs::File::open(&small).unwrap();
        let output = run(suite.command(cli).args(args).stdin(input));
        assert_eq!(output.code, 0);
        assert!(output.stderr.ends_with(&format!("{size}\n")), "{cli:?}");
    }
    Outcome::Passed
}

/// A connection that was taken over, and what came right behind the answer's head.
pub fn hijack(suite: &Suite, path: &str, headers: &str, body: &str) -> (UnixStream, Vec<u8>) {
    let mut stream = UnixStream::connect(suite.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") || head.starts_with("HTTP/1.1 200"), "{head}");
    (stream, Vec::new())
}

/// Takes multiplexed output apart: stdout's bytes.
pub fn unframed(framed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = framed;
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        assert!(header[0] == 1 && header[1..4] == [0; 3], "{header:?}");
        plain.extend_from_slice(&body[..length]);
        rest = &body[length..];
    }
    plain
}

/// Writes all of `input` while nobody reads at first, and gives what came back until the end.
fn both_ways(stream: UnixStream, input: Vec<u8>) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&input).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // Long enough for every buffer on the way to be full.
    std::thread::sleep(Duration::from_millis(300));
    let mut output = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut output).unwrap();
    writing.join().unwrap();
    output
}

fn every_byte_goes_through_a_bare_connection(suite: &Suite) -> Outcome {
    let input = fs::read(noise(suite, BYTES)).unwrap();
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for headers in ["", "Connection: Upgrade\r\nUpgrade: tcp\r\n"] {
        let wish = r#"{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"],"DetachKeys":"a"}"#;
        let (_, made) = suite.api("POST", "/v1.47/containers/box/exec", Some(wish));
        let id = made.split('"').nth(3).unwrap().to_owned();
        let (stream, _) = hijack(suite, &format!("/v1.47/exec/{id}/start"), headers, "{}");
        assert!(unframed(&both_ways(stream, input.clone())) == input, "exec {headers:?}");
        let (_, ended) = suite.api("GET", &format!("/v1.47/exec/{id}/json"), None);
        assert!(ended.contains("\"Running\":false,\"ExitCode\":0"), "{ended}");
        suite
            .tug(["create", "-i", "--name", "late", "--log-driver", "none", "busybox", "cat"])
            .ok();
        let path = "/v1.47/containers/late/attach?stream=1&stdin=1&stdout=1&detachKeys=a";
        let (stream, _) = hijack(suite, path, headers, "");
        suite.tug(["start", "late"]).ok();
        assert!(unframed(&both_ways(stream, input.clone())) == input, "attach {headers:?}");
        assert_eq!(state(suite, "late"), "exited 0");
        suite.tug(["rm", "late"]).ok();
    }
    suite.tug(["create", "-i", "--name", "late", "--log-driver", "none", "busybox", "cat"]).ok();
    let path = "/v1.47/containers/late/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=a";
    let stream = websocket(suite, path);
    suite.tug(["start", "late"]).ok();
    assert!(by_websocket(stream, input.clone()) == input, "websocket");
    suite.tug(["rm", "-f", "late"]).ok();
    Outcome::Passed
}

pub fn state(suite: &Suite, name: &str) -> String {
    suite.tug(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name]).ok()
}

/// A websocket after its handshake.
pub fn websocket(suite: &Suite, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(suite.socket()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Sends `input` in one frame, and gives the payload of what comes back until there is as much.
fn by_websocket(mut stream: UnixStream, input: Vec<u8>) -> Vec<u8> {
    let (wanted, mut writer) = (input.len(), stream.try_clone().unwrap());
    let writing = std::thread::spawn(move || {
        let mut frame = vec![0x82, 0xff];
        frame.extend_from_slice(&(input.len() as u64).to_be_bytes());
        // A mask of zeros changes nothing.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&input);
        writer.write_all(&frame).unwrap();
    });
    let mut output = Vec::new();
    while output.len() < wanted {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                stream.read_exact(&mut length).unwrap();
                u64::from_be_bytes(length) as usize
            }
            short => usize::from(short),
        };
        assert_eq!(head[0], 0x82, "a binary frame");
        let at = output.len();
        output.resize(at + length, 0);
        stream.read_exact(&mut output[at..]).unwrap();
    }
    writing.join().unwrap();
    output
}

fn who_does_not_read_output_keeps_no_signal_back(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let script = "trap 'exit 7' TERM; yes & while :; do sleep 0.1; done";
        let mut client = suite
            .command(cli)
            .args(["run", "--rm", "-i", "--name", "loud", "--log-driver", "none", "busybox"])
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the container", Duration::from_secs(20), || {
            suite.tug(["ps", "-q", "--filter", "name=loud"]).stdout.lines().count() == 1
        });
        // Now every buffer up to the client's standard output fills, and it is not read.
        std::thread::sleep(Duration::from_millis(500));
        run(std::process::Command::new("kill").arg("-TERM").arg(client.id().to_string())).ok();
        wait_for("the end by the signal", Duration::from_secs(20), || {
            suite.tug(["ps", "-q", "--filter", "name=loud"]).stdout.is_empty()
        });
        std::io::copy(client.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        assert_eq!(client.wait().unwrap().code(), Some(7), "{cli:?}");
    }
    Outcome::Passed
}

fn input_costs_few_system_calls(suite: &Suite) -> Outcome {
    if shell("command -v strace").code != 0 {
        return Outcome::Ignored("strace is not installed".to_owned());
    }
    const MEGABYTES: usize = 16;
    let file = noise(suite, MEGABYTES << 20);
    // `dd` and the daemon use other calls than these for what they pass on.
    let calls = suite.system_calls_during("recvfrom,epoll_ctl,epoll_wait,epoll_pwait", || {
        let input = fs::File::open(&file).unwrap();
        let args = ["run", "--rm", "-i", "busybox", "dd", "of=/dev/null", "bs=64k"];
        run(suite.command(Cli::Tug).args(args).stdin(input)).ok();
    });
    let per_megabyte = calls.len() / MEGABYTES;
    assert!(per_megabyte <= 160, "{per_megabyte} calls for each megabyte of input");
    Outcome::Passed
}

fn an_exec_that_cannot_start_says_so_once(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for round in 0..20 {
        let cli = BOTH[round % 2];
        let output = suite.run(cli, ["exec", "box", "nosuch"]);
        assert_eq!(output.code, 127, "{cli:?} {output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(said.matches("executable file not found in $PATH").count(), 1, "{cli:?} {said}");
    }
    Outcome::Passed
}
