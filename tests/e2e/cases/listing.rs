//! Lists of images, and archives of them: both command lines do the same to the same state.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::registry::{ADDRESS, Registry, without};
use crate::harness::{BOTH, Cli, Outcome, Suite};

super::cases! {
    lists_of_images_are_the_same_in_both_command_lines,
    a_tree_shows_an_images_platforms,
    archives_come_from_an_address_and_go_to_no_directory,
}

/// What both print; the real client takes an image's names in any order.
fn both(suite: &Suite, args: &[&str]) -> String {
    let [tug, docker] = BOTH.map(|cli| {
        let output = suite.run(cli, args);
        let mut lines: Vec<String> =
            output.stdout.lines().map(|line| plain(line).trim_end().to_owned()).collect();
        lines.sort();
        (output.code, lines.join("\n"), output.stderr)
    });
    assert_eq!(tug, docker, "{args:?}");
    tug.1
}

/// A line without colours: the real client's tree has them in its header without a terminal too.
fn plain(line: &str) -> String {
    let mut pieces = line.split("\u{1b}[");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(piece.split_once('m').map_or("", |(_, rest)| rest));
    }
    text
}

fn lists_of_images_are_the_same_in_both_command_lines(suite: &Suite) -> Outcome {
    let label = "FROM busybox\nLABEL tier=web\n";
    suite.run_with_input(Cli::Tug, ["build", "-q", "-t", "listed:v1", "-"], label.as_bytes()).ok();
    suite.run(Cli::Tug, ["tag", "listed:v1", "listed:v2"]).ok();
    for args in [
        &[
            "images",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Repository}}:{{.Tag}} {{.Size}} {{.VirtualSize}}",
        ][..],
        &["images", "-q"],
        &[
            "images",
            "-a",
            "--digests",
            "--format",
            "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}",
        ],
        &["images", "--format", "table{{.ID}}", "listed"],
        &["images", "listed:v1", "--format", "{{.Repository}}:{{.Tag}}"],
        &["images", "-f", "label=tier", "-q"],
        &["images", "-f", "label=tier=web", "-f", "reference=l*:v2", "--format", "{{.Tag}}"],
        &["images", "-f", "since=busybox", "-q"],
        &["images", "-f", "before=busybox", "-q"],
        &["images", "-f", "dangling=true", "-q"],
        &["images", "-f", "until=1h", "-q"],
        &["images", "-f", "x=y"],
        &["images", "-f", "dangling=x"],
        &["images", "--format", "{{.Nope}}"],
        &["images", "--tree", "-q"],
        &["images", "--tree", "--no-trunc"],
        &["images", "--tree", "--digests"],
        &["images", "--tree", "--format", "json"],
        &["image", "ls", "--tree", "nope"],
        &["image", "ls", "--tree", "listed"],
        &["image", "ls", "--tree", "-a"],
    ] {
        both(suite, args);
    }
    let json = suite.run(Cli::Tug, ["images", "--format", "json", "listed:v1"]).ok();
    assert!(json.contains(r#""Repository":"listed""#) && json.contains(r#""Tag":"v1""#), "{json}");
    suite.run(Cli::Tug, ["rmi", "listed:v1", "listed:v2"]).ok();
    Outcome::Passed
}

fn a_tree_shows_an_images_platforms(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    let tar = suite.image_tar("busybox");
    let list = format!("{ADDRESS}/tree:v1");
    let mut create = vec!["manifest".to_owned(), "create".to_owned(), list.clone()];
    for architecture in ["amd64", "arm64"] {
        let (name, platform) =
            (format!("{ADDRESS}/tree:{architecture}"), format!("linux/{architecture}"));
        let tar = tar.to_str().unwrap();
        suite.run(Cli::Tug, ["import", "--platform", &platform, tar, &name]).ok();
        suite.run(Cli::Tug, ["push", "-q", &name]).ok();
        suite.run(Cli::Tug, ["rmi", &name]).ok();
        create.push(name);
    }
    suite.run(Cli::Tug, create).ok();
    suite.run(Cli::Tug, ["manifest", "push", "--purge", &list]).ok();
    suite.run(Cli::Tug, ["pull", "-q", &list]).ok();
    let tree = both(suite, &["image", "ls", "--tree", &list]);
    assert!(tree.contains("─ linux/amd64") && tree.contains("─ linux/arm64"), "{tree}");
    assert!(!tree.contains("   U"), "{tree}");
    let id = suite.run(Cli::Tug, ["create", &list, "true"]).ok();
    let used = both(suite, &["image", "ls", "--tree", &list]);
    assert_eq!(used.lines().filter(|line| line.ends_with("   U")).count(), 2, "{used}");
    suite.run(Cli::Tug, ["rm", &id]).ok();
    suite.run(Cli::Tug, ["rmi", &list]).ok();
    Outcome::Passed
}

/// Serves one file to everybody who asks for it, and 404 to others; its thread ends with the process.
fn serve(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let (status, body) = match head.starts_with(b"GET /root.tar ") {
                true => ("200 OK", file.as_slice()),
                false => ("404 Not Found", b"gone".as_slice()),
            };
            let length = body.len();
            // A client that is gone needs no answer.
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(body);
        }
    });
    format!("http://{address}")
}

fn archives_come_from_an_address_and_go_to_no_directory(suite: &Suite) -> Outcome {
    let server = serve(fs::read(suite.image_tar("busybox")).unwrap());
    for cli in BOTH {
        let url = format!("{server}/root.tar");
        let told =
            suite.run(cli, ["import", "-c", r#"CMD ["echo","from afar"]"#, &url, "afar"]).ok();
        assert!(told.starts_with(&format!("Downloading from {url}")), "{told}");
        assert_eq!(suite.run(cli, ["run", "--rm", "afar"]).ok(), "from afar");
        let comment = suite.run(cli, ["inspect", "-f", "{{.Comment}}", "afar"]).ok();
        assert_eq!(comment, format!("Imported from {url}"));
        suite.run(cli, ["rmi", "afar"]).ok();
        for (args, want) in [
            (["import", &format!("{server}/nope"), "afar"], "with status 404 Not Found: gone"),
            (["import", &url, "BAD"], "repository name (library/BAD) must be lowercase"),
            (["save", "-o/tmp", "busybox"], "failed to save image: cannot write to a directory"),
            (
                ["export", "-o/nonexistent/x", "nope"],
                "failed to export container: invalid output path: stat /nonexistent: no such file or directory",
            ),
        ] {
            let said = suite.run(cli, args).fails(1);
            assert!(said.contains(want), "{said}");
        }
    }
    Outcome::Passed
}
