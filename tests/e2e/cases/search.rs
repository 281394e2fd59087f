//! Search: both command lines ask the daemon, which asks a registry's search interface.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{BOTH, Outcome, Suite};

super::cases! {
    search_shows_what_a_registry_finds,
    search_refuses_what_docker_refuses,
}

const RESULTS: &str = r#"{"num_results":3,"query":"redis","results":[
    {"name":"a/few","description":"Few stars","star_count":3,"is_official":false,"is_automated":true},
    {"name":"redis","description":"A very long description of\nthis image which does not fit","star_count":13000,"is_official":true},
    {"name":"b/none","description":null,"star_count":0,"is_official":false}]}"#;

/// A registry that only searches. Its thread ends with the process; it holds nothing.
struct Index {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Index {
    fn start() -> Index {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &noted);
            }
        });
        Index { address, asked }
    }
}

/// One request a connection. Whoever speaks TLS gets no answer.
fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
            _ => return,
        }
        if !head.starts_with(b"GET ") {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (status, body) = match head.split_whitespace().nth(1).unwrap_or_default() {
        "/v1/_ping" => ("200 OK", "{}"),
        path if path.starts_with("/v1/search?") => ("200 OK", RESULTS),
        _ => ("404 Not Found", ""),
    };
    asked.lock().unwrap().push(head);
    // A client that is gone needs no answer.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn search_shows_what_a_registry_finds(suite: &Suite) -> Outcome {
    let index = Index::start();
    let term = format!("{}/redis", index.address);
    let want = [
        "NAME      DESCRIPTION                                     STARS     OFFICIAL",
        "a/few     Few stars                                       3         ",
        "redis     A very long description of this image which …   13000     [OK]",
        "b/none                                                    0",
    ];
    for cli in BOTH {
        let table = suite.run(cli, ["search", &term]).ok();
        assert_eq!(table.lines().collect::<Vec<_>>(), want);
        let filtered = [
            "search",
            "--filter",
            "stars=3",
            "--filter",
            "is-official=true",
            "--limit",
            "7",
            "--no-trunc",
            "--format",
            "json",
            &term,
        ];
        assert_eq!(
            suite.run(cli, filtered).ok(),
            r#"{"Description":"A very long description of this image which does not fit","IsOfficial":"true","Name":"redis","StarCount":"13000"}"#
        );
    }
    let asked = index.asked.lock().unwrap().clone();
    let has = |text: &str| asked.iter().any(|head| head.contains(text));
    assert!(has("GET /v1/search?q=redis&n=25 ") && has("GET /v1/search?q=redis&n=7 "), "{asked:?}");
    let (status, body) = suite.api("GET", &format!("/images/search?term={term}&limit=1"), None);
    assert_eq!(status, 200);
    assert!(
        body.starts_with(
            r#"[{"star_count":3,"is_official":false,"name":"a/few","is_automated":false,"description":"Few stars"}"#
        ),
        "{body}"
    );
    Outcome::Passed
}

fn search_refuses_what_docker_refuses(suite: &Suite) -> Outcome {
    for cli in BOTH {
        for (args, want) in [
            (&["--limit", "101", "x"][..], "limit 101 is outside the range of [1, 100]"),
            (&["--filter", "x=y", "x"], "invalid filter 'x'"),
            (&["--filter", "stars=a", "x"], "invalid filter 'stars=a'"),
            (&["http://host/x"], "repository name (http://host/x) should not have a scheme"),
            (&["127.0.0.1:5998/x"], "invalid registry endpoint \"http://127.0.0.1:5998/v1/\""),
        ] {
            let said = suite.run(cli, [&["search"], args].concat()).fails(1);
            assert!(said.contains(want), "{said}");
        }
    }
    Outcome::Passed
}
