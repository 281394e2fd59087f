//! Golden frames of each version released: they may be added to, never changed.

use std::os::fd::AsFd;

use expect_test::{Expect, expect};

use super::*;
use crate::settings::Protocol;

fn id() -> Id {
    Id::from_raw([0xab; 32])
}

fn time() -> Timestamp {
    "2026-01-02T03:04:05.6Z".parse().unwrap()
}

fn options() -> AttachOptions {
    AttachOptions {
        stdin: true,
        stdout: true,
        stderr: false,
        detach_keys: vec![16, 17],
        framing: Framing::Multiplexed,
        prelude: b"x".to_vec(),
    }
}

/// The frame's bytes, as text after the length; and that it is read again as what was sent.
#[track_caller]
fn check_request(request: &Request, want: Expect) {
    let frame = encode_request(7, request);
    want.assert_eq(body(&frame));
    let mut decoder = Decoder::default();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds = (0..request.fd_count()).map(|_| null.as_fd().try_clone_to_owned().unwrap());
    decoder.feed(&frame, fds);
    let received = decoder.next_request().unwrap().unwrap();
    let got = (received.seq, &received.request, received.fds.len());
    assert_eq!(got, (7, request, request.fd_count()));
    assert!(decoder.next_request().unwrap().is_none());
}

#[track_caller]
fn check_event(re: Option<u64>, event: &Event, want: Expect) {
    let frame = encode_event(re, event, 0);
    want.assert_eq(body(&frame));
    let mut decoder = Decoder::default();
    // Byte by byte, as a stream may deliver it.
    for byte in &frame[..frame.len() - 1] {
        decoder.feed(&[*byte], []);
        assert!(decoder.next_event().unwrap().is_none());
    }
    decoder.feed(&frame[frame.len() - 1..], []);
    let received = decoder.next_event().unwrap().unwrap();
    assert_eq!((received.re, &received.event), (re, event));
}

fn body(frame: &[u8]) -> &str {
    let length = u32::from_le_bytes(*frame.first_chunk().unwrap()) as usize;
    assert_eq!(frame.len(), 4 + length);
    std::str::from_utf8(&frame[4..]).unwrap()
}

#[test]
fn the_length_is_four_little_endian_bytes() {
    let frame = encode_request(1, &Request::State);
    assert_eq!(frame, b"\x2a\0\0\0{\"v\":1,\"seq\":1,\"request\":{\"kind\":\"state\"}}");
}

#[test]
fn requests_of_version_1() {
    let start = Request::Start { netns: true, attach: vec![options()] };
    check_request(
        &start,
        expect![[
            r#"{"v":1,"seq":7,"fds":2,"request":{"kind":"start","netns":true,"attach":[{"stdin":true,"stdout":true,"stderr":false,"detach_keys":[16,17],"framing":"multiplexed","prelude":[120]}]}}"#
        ]],
    );
    let ports = vec![ProxyPort { protocol: Protocol::Udp, to: "172.17.0.2:53".parse().unwrap() }];
    check_request(
        &Request::Publish { ports },
        expect![[
            r#"{"v":1,"seq":7,"fds":1,"request":{"kind":"publish","ports":[{"protocol":"udp","to":"172.17.0.2:53"}]}}"#
        ]],
    );
    let to = vec!["172.17.0.2".parse().unwrap()];
    check_request(
        &Request::Unpublish { to },
        expect![[r#"{"v":1,"seq":7,"request":{"kind":"unpublish","to":["172.17.0.2"]}}"#]],
    );
    check_request(
        &Request::Resolve { sockets: 0 },
        expect![[r#"{"v":1,"seq":7,"request":{"kind":"resolve"}}"#]],
    );
    let attach = Request::Attach { target: Target::Main, options: options() };
    check_request(
        &attach,
        expect![[
            r#"{"v":1,"seq":7,"fds":1,"request":{"kind":"attach","target":"main","options":{"stdin":true,"stdout":true,"stderr":false,"detach_keys":[16,17],"framing":"multiplexed","prelude":[120]}}}"#
        ]],
    );
    let size = ConsoleSize { height: 24, width: 80 };
    let resize = Request::Resize { target: Target::Exec(id()), size };
    check_request(
        &resize,
        expect![[
            r#"{"v":1,"seq":7,"request":{"kind":"resize","target":{"exec":"abababababababababababababababababababababababababababababababab"},"size":{"height":24,"width":80}}}"#
        ]],
    );
    let signal = Request::Signal { target: Target::Main, signal: 15 };
    check_request(
        &signal,
        expect![[r#"{"v":1,"seq":7,"request":{"kind":"signal","target":"main","signal":15}}"#]],
    );
    let close = Request::CloseStdin { target: Target::Main };
    check_request(
        &close,
        expect![[r#"{"v":1,"seq":7,"request":{"kind":"close_stdin","target":"main"}}"#]],
    );
}

#[test]
fn an_exec_of_version_1() {
    let process =
        Process { args: vec!["ls".to_owned()], cwd: "/".to_owned(), ..Process::default() };
    let exec = ExecRequest {
        exec: id(),
        process,
        user: Some("1000:10".to_owned()),
        stdin: true,
        attach: None,
    };
    check_request(
        &Request::Exec(Box::new(exec)),
        expect![[
            r#"{"v":1,"seq":7,"request":{"kind":"exec","exec":"abababababababababababababababababababababababababababababababab","process":{"user":{"uid":0,"gid":0},"args":["ls"],"cwd":"/"},"user":"1000:10","stdin":true,"attach":null}}"#
        ]],
    );
}

#[test]
fn events_of_version_1() {
    let started = Event::Started { pid: 42, started_at: time() };
    check_event(
        Some(7),
        &started,
        expect![[
            r#"{"v":1,"re":7,"event":{"kind":"started","pid":42,"started_at":"2026-01-02T03:04:05.6Z"}}"#
        ]],
    );
    let failed = Event::StartFailed { exit_code: 127, message: "exec: \"x\"".to_owned() };
    check_event(
        Some(7),
        &failed,
        expect![[
            r#"{"v":1,"re":7,"event":{"kind":"start_failed","exit_code":127,"message":"exec: \"x\""}}"#
        ]],
    );
    let exited = Event::Exited(ExitRecord {
        version: 1,
        container: id(),
        pid: 42,
        exit_code: 137,
        signal: Some(9),
        oom_killed: true,
        started_at: time(),
        finished_at: time(),
        error: None,
    });
    check_event(
        None,
        &exited,
        expect![[
            r#"{"v":1,"event":{"kind":"exited","version":1,"container":"abababababababababababababababababababababababababababababababab","pid":42,"exit_code":137,"signal":9,"oom_killed":true,"started_at":"2026-01-02T03:04:05.6Z","finished_at":"2026-01-02T03:04:05.6Z","error":null}}"#
        ]],
    );
}

#[test]
fn further_events_of_version_1() {
    let exec_started = Event::ExecStarted { exec: id(), pid: 43 };
    check_event(
        Some(1),
        &exec_started,
        expect![[
            r#"{"v":1,"re":1,"event":{"kind":"exec_started","exec":"abababababababababababababababababababababababababababababababab","pid":43}}"#
        ]],
    );
    let exec_failed = Event::ExecFailed { exec: id(), exit_code: 126, message: "no".to_owned() };
    check_event(
        Some(1),
        &exec_failed,
        expect![[
            r#"{"v":1,"re":1,"event":{"kind":"exec_failed","exec":"abababababababababababababababababababababababababababababababab","exit_code":126,"message":"no"}}"#
        ]],
    );
    let exec_exited = Event::ExecExited { exec: id(), exit_code: 3 };
    check_event(
        None,
        &exec_exited,
        expect![[
            r#"{"v":1,"event":{"kind":"exec_exited","exec":"abababababababababababababababababababababababababababababababab","exit_code":3}}"#
        ]],
    );
    check_event(None, &Event::Oom, expect![[r#"{"v":1,"event":{"kind":"oom"}}"#]]);
    let detached = Event::Detached { target: Target::Main, cause: DetachCause::Keys };
    check_event(
        None,
        &detached,
        expect![[r#"{"v":1,"event":{"kind":"detached","target":"main","cause":"keys"}}"#]],
    );
    let state = Event::State(State {
        supervisor: false,
        main: Some(Running { pid: 42, started_at: time() }),
        oom_killed: false,
        execs: vec![ExecState { exec: id(), pid: 43, exit_code: None }],
    });
    check_event(
        Some(2),
        &state,
        expect![[
            r#"{"v":1,"re":2,"event":{"kind":"state","main":{"pid":42,"started_at":"2026-01-02T03:04:05.6Z"},"oom_killed":false,"execs":[{"exec":"abababababababababababababababababababababababababababababababab","pid":43,"exit_code":null}]}}"#
        ]],
    );
    check_event(Some(2), &Event::Done, expect![[r#"{"v":1,"re":2,"event":{"kind":"done"}}"#]]);
    let failed = Event::Failed { message: "why".to_owned() };
    check_event(
        Some(2),
        &failed,
        expect![[r#"{"v":1,"re":2,"event":{"kind":"failed","message":"why"}}"#]],
    );
}

#[test]
fn fields_of_later_programs_are_passed_over() {
    let body = br#"{"v":1,"seq":1,"new":[],"request":{"kind":"signal","target":"main","signal":2,"more":{}}}"#;
    let mut decoder = Decoder::default();
    decoder.feed(&(body.len() as u32).to_le_bytes(), []);
    decoder.feed(body, []);
    let asked = decoder.next_request().unwrap().unwrap();
    assert_eq!(asked.request, Request::Signal { target: Target::Main, signal: 2 });
}

#[test]
fn requests_of_later_programs_are_known_to_be_unknown() {
    let body = br#"{"v":1,"seq":9,"fds":1,"request":{"kind":"later","what":1}}"#;
    let mut decoder = Decoder::default();
    decoder.feed(&(body.len() as u32).to_le_bytes(), []);
    let null = std::fs::File::open("/dev/null").unwrap();
    decoder.feed(body, [null.into()]);
    let asked = decoder.next_request().unwrap().unwrap();
    assert_eq!((asked.seq, asked.request, asked.fds.len()), (9, Request::Unknown, 1));
}

#[test]
fn another_version_is_refused_by_its_number() {
    let body = br#"{"v":2,"seq":1,"request":{"kind":"unheard_of"}}"#;
    let mut decoder = Decoder::default();
    decoder.feed(&(body.len() as u32).to_le_bytes(), []);
    decoder.feed(body, []);
    assert!(matches!(decoder.next_request(), Err(WireError::Version(2))));
}

#[test]
fn hostile_frames_are_refused() {
    let mut decoder = Decoder::default();
    decoder.feed(&u32::MAX.to_le_bytes(), []);
    assert!(matches!(decoder.next_request(), Err(WireError::TooLong(_))));
    let mut decoder = Decoder::default();
    decoder.feed(b"\x02\0\0\0[]", []);
    assert!(matches!(decoder.next_request(), Err(WireError::Malformed(_))));
    let mut decoder = Decoder::default();
    decoder.feed(&encode_request(1, &Request::Start { netns: true, attach: Vec::new() }), []);
    let refused = decoder.next_request();
    assert!(matches!(refused, Err(WireError::Descriptors { wanted: 1, present: 0 })));
}

#[test]
fn what_supervisors_added_to_version_1() {
    let adopt = Request::Adopt {
        exec: id(),
        pid: 7,
        streams: Streams::Pipes { stdin: true },
        attach: Some(options()),
    };
    check_request(
        &adopt,
        expect![[
            r#"{"v":1,"seq":7,"fds":6,"request":{"kind":"adopt","exec":"abababababababababababababababababababababababababababababababab","pid":7,"streams":{"pipes":{"stdin":true}},"attach":{"stdin":true,"stdout":true,"stderr":false,"detach_keys":[16,17],"framing":"multiplexed","prelude":[120]}}}"#
        ]],
    );
    check_request(
        &Request::Resolve { sockets: 3 },
        expect![[r#"{"v":1,"seq":7,"fds":3,"request":{"kind":"resolve","sockets":3}}"#]],
    );
    let state = State { supervisor: true, ..State::default() };
    check_event(
        Some(1),
        &Event::State(state),
        expect![[
            r#"{"v":1,"re":1,"event":{"kind":"state","supervisor":true,"main":null,"oom_killed":false,"execs":[]}}"#
        ]],
    );
}

#[test]
fn descriptors_that_no_event_names_are_not_kept_for_ever() {
    let mut decoder = Decoder::default();
    let null = std::fs::File::open("/dev/null").unwrap();
    let some = || (0..100).map(|_| null.as_fd().try_clone_to_owned().unwrap());
    let frame = encode_event(None, &Event::Oom, 0);
    for _ in 0..2 {
        decoder.feed(&frame, some());
        assert!(decoder.next_event().unwrap().is_some());
        assert!(decoder.next_event().unwrap().is_none());
    }
    decoder.feed(&frame, some());
    assert!(decoder.next_event().unwrap().is_some());
    assert!(decoder.next_event().is_err());
}
