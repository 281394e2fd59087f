//! Query parameters of the Engine API, each seen by what it changes.
//!
//! `tests/surface/api.tsv` names for every parameter the test that sees its effect; those that no
//! command line sends, or sends among others, are here.

use std::path::Path;

use serde_json::Value;

use super::cases;
use crate::harness::{Outcome, Suite, shell};

cases![
    parameters_of_containers_take_effect,
    parameters_of_logs_and_attachments_take_effect,
    parameters_of_a_containers_end_take_effect,
    parameters_of_images_take_effect,
    parameters_of_builds_take_effect,
    parameters_of_the_rest_take_effect,
];

#[track_caller]
fn ask(suite: &Suite, method: &str, path: &str, want: u16) -> String {
    let (status, answer) = suite.api(method, path, None);
    assert_eq!(status, want, "{method} {path}: {answer}");
    answer
}

#[track_caller]
fn json(suite: &Suite, path: &str) -> Value {
    serde_json::from_str(&ask(suite, "GET", path, 200)).expect("the answer is JSON")
}

fn length(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// A filter as clients put it into a URL.
fn filter(key: &str, value: &str) -> String {
    format!("filters=%7B%22{key}%22%3A%5B%22{value}%22%5D%7D")
}

/// The frames of a stream, bare of their heads.
fn text(suite: &Suite, path: &str) -> String {
    let line = format!(
        "curl -s --max-time 20 --unix-socket {} 'http://d{path}' | tr -d '\\000-\\011\\013-\\037'",
        suite.socket().display()
    );
    shell(&line).stdout
}

/// Starts the container "one": it has words in its log, and ends with 7 by USR1, with 8 by TERM.
fn start_one(suite: &Suite) {
    let script = "trap 'exit 7' USR1; trap 'exit 8' TERM; head -c 5000 /dev/zero > /made; echo out; echo err >&2; while :; do sleep 0.05; done";
    suite.tug(["run", "-d", "--name", "one", "--label", "l=1", "busybox", "sh", "-c", script]).ok();
    crate::harness::wait_for("its words", std::time::Duration::from_secs(20), || {
        let logs = suite.tug(["logs", "one"]);
        logs.stdout.contains("out") && logs.stderr.contains("err")
    });
}

/// Makes the container "two": it has a user and an anonymous volume.
fn create_two(suite: &Suite) {
    let two = ["create", "--name", "two", "-u", "1000:1001", "-v", "/anonymous", "busybox", "true"];
    suite.tug(two).ok();
}

fn parameters_of_containers_take_effect(suite: &Suite) -> Outcome {
    start_one(suite);
    create_two(suite);
    assert_eq!(length(&json(suite, "/containers/json")), 1);
    assert_eq!(length(&json(suite, "/containers/json?all=1")), 2);
    assert_eq!(length(&json(suite, "/containers/json?limit=1")), 1);
    assert_eq!(
        length(&json(suite, &format!("/containers/json?all=1&{}", filter("label", "l=1")))),
        1
    );
    assert!(json(suite, "/containers/json?size=1")[0]["SizeRw"].as_i64() >= Some(5000));
    assert!(json(suite, "/containers/one/json?size=1")["SizeRw"].as_i64() >= Some(5000));
    assert!(json(suite, "/containers/one/json")["SizeRw"].is_null());
    assert_eq!(json(suite, "/containers/one/top?ps_args=-o%20pid,args")["Titles"][1], "COMMAND");

    let stats = json(suite, "/containers/one/stats?stream=0&one-shot=1");
    assert_eq!(
        stats["precpu_stats"]["cpu_usage"]["total_usage"], 0,
        "one-shot has no sample before"
    );
    let stats = json(suite, "/containers/one/stats?stream=0");
    assert_ne!(stats["precpu_stats"]["cpu_usage"]["total_usage"], 0);

    let place = suite.scratch();
    let place = place.display();
    let pack =
        "echo x > etc && tar -cf etc.tar etc && echo y > copied && tar -cf copied.tar copied";
    shell(&format!("cd {place} && {pack}")).ok();
    let put = |file: &str, query: &str| {
        let line = format!(
            "curl -s -X PUT -H 'Content-Type: application/x-tar' --data-binary @{place}/{file} -w '%{{http_code}}' --unix-socket {} 'http://d/containers/two/archive?{query}'",
            suite.socket().display()
        );
        shell(&line).ok()
    };
    let refused = put("etc.tar", "path=/&noOverwriteDirNonDir=1");
    assert!(
        refused.contains("cannot overwrite directory") && refused.ends_with("400"),
        "{refused}"
    );
    assert_eq!(put("copied.tar", "path=/tmp&copyUIDGID=1"), "200");
    let owner = format!(
        "curl -s --unix-socket {} 'http://d/containers/two/archive?path=/tmp/copied' | tar --numeric-owner -tv",
        suite.socket().display()
    );
    let owner = shell(&owner).ok();
    assert!(owner.contains("1000/1001"), "{owner}");
    suite.tug(["rm", "-fv", "one", "two"]).ok();
    Outcome::Passed
}

fn parameters_of_logs_and_attachments_take_effect(suite: &Suite) -> Outcome {
    start_one(suite);
    let logs = |query: &str| text(suite, &format!("/containers/one/logs?{query}"));
    assert_eq!(logs("stdout=1"), "out\n");
    assert_eq!(logs("stderr=1"), "err\n");
    assert_eq!(logs("stdout=1&stderr=1&tail=1").lines().count(), 1);
    assert_eq!(logs("stdout=1&until=1"), "");
    assert_eq!(logs("stdout=1&since=4000000000"), "");
    assert!(logs("stdout=1&timestamps=1").contains("Z out"));
    assert_eq!(logs("stdout=1&details=1"), " out\n");
    ask(suite, "GET", "/containers/one/logs", 400);

    // Attach without a stream replays the log.
    let replayed = text_of_post(suite, "/containers/one/attach?logs=1&stdout=1");
    assert_eq!(replayed, "out\n");
    assert_eq!(text_of_post(suite, "/containers/one/attach?logs=1&stderr=1"), "err\n");
    let socket = |query: &str| {
        let line = format!(
            "curl -s -i -N --max-time 5 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' --unix-socket {} 'http://d/containers/one/attach/ws?{query}' | tr -d '\\000-\\011\\013-\\037'",
            suite.socket().display()
        );
        shell(&line).stdout
    };
    let told = socket("logs=1&stdout=1");
    assert!(told.contains(" 101 ") && told.contains("out") && !told.contains("err\n"), "{told}");
    assert!(socket("logs=1&stderr=1").contains("err"));
    assert!(socket("stream=1&stdin=1&detachKeys=nonsense-").contains(" 400 "));
    let keys =
        ask(suite, "POST", "/containers/one/attach?stream=1&stdin=1&detachKeys=nonsense-", 400);
    assert!(keys.contains("detach keys"), "{keys}");
    suite.tug(["rm", "-f", "one"]).ok();
    Outcome::Passed
}

fn parameters_of_a_containers_end_take_effect(suite: &Suite) -> Outcome {
    start_one(suite);
    create_two(suite);
    // It says something once its traps are set.
    let runs = |count: usize| {
        crate::harness::wait_for("its traps", std::time::Duration::from_secs(20), || {
            suite.tug(["logs", "one"]).stdout.matches("out").count() >= count
        });
    };
    ask(suite, "POST", "/containers/one/restart?signal=USR1&t=15", 204);
    runs(2);
    ask(suite, "POST", "/containers/one/stop?signal=USR1&t=15", 204);
    assert_eq!(json(suite, "/containers/one/json")["State"]["ExitCode"], 7);
    ask(suite, "POST", "/containers/one/start", 204);
    runs(3);
    let killed = ask(suite, "POST", "/containers/one/kill?signal=nope", 400);
    assert!(killed.contains("Invalid signal: nope"), "{killed}");
    ask(suite, "POST", "/containers/one/kill?signal=TERM", 204);
    assert_eq!(
        ask(suite, "POST", "/containers/one/wait?condition=not-running", 200).trim(),
        r#"{"StatusCode":8}"#
    );
    let bad = ask(suite, "POST", "/containers/one/wait?condition=bad", 400);
    assert!(bad.contains("invalid condition"), "{bad}");
    ask(suite, "POST", "/containers/one/rename?name=other", 204);

    let volume =
        json(suite, "/containers/two/json")["Mounts"][0]["Name"].as_str().map(str::to_owned);
    ask(suite, "DELETE", "/containers/two?v=1", 204);
    ask(suite, "GET", &format!("/volumes/{}", volume.expect("it has one")), 404);
    ask(suite, "POST", "/containers/other/start", 204);
    ask(suite, "DELETE", "/containers/other", 409);
    ask(suite, "DELETE", "/containers/other?force=1", 204);

    suite.tug(["create", "--name", "kept", "--label", "keep=1", "busybox", "true"]).ok();
    let pruned =
        ask(suite, "POST", &format!("/containers/prune?{}", filter("label!", "keep")), 200);
    assert!(pruned.contains(r#""ContainersDeleted":null"#), "{pruned}");
    suite.tug(["rm", "kept"]).ok();
    Outcome::Passed
}

fn text_of_post(suite: &Suite, path: &str) -> String {
    let line = format!(
        "curl -s --max-time 20 -X POST --unix-socket {} 'http://d{path}' | tr -d '\\000-\\011\\013-\\037'",
        suite.socket().display()
    );
    shell(&line).stdout
}

fn parameters_of_images_take_effect(suite: &Suite) -> Outcome {
    let archive = suite.scratch().join("a.tar");
    let archive = archive.to_str().expect("plain");
    shell(&format!("cd {} && echo hi > f && tar -cf {archive} f", suite.scratch().display())).ok();
    let upload = |path: &str, file: &str| {
        let line = format!(
            "curl -s --max-time 20 -X POST -H 'Content-Type: application/x-tar' --data-binary @{file} --unix-socket {} 'http://d{path}'",
            suite.socket().display()
        );
        shell(&line).ok()
    };
    let made = upload(
        "/images/create?fromSrc=-&repo=made&tag=1&message=from%20here&changes=ENV%20A=b&platform=linux/arm64",
        archive,
    );
    assert!(made.contains("sha256:"), "{made}");
    let image = json(suite, "/images/made:1/json");
    assert_eq!(
        (&image["Comment"], &image["Config"]["Env"][0]),
        (&"from here".into(), &"A=b".into())
    );
    assert_eq!(image["Architecture"], "arm64");
    let other = ask(suite, "GET", "/images/made:1/json?platform=linux/s390x", 404);
    assert!(other.contains("s390x"), "{other}");
    ask(suite, "GET", "/images/made:1/history?platform=linux/s390x", 404);
    ask(suite, "GET", "/images/made:1/get?platform=linux/s390x", 404);
    let twice =
        ask(suite, "GET", "/images/made:1/get?platform=linux/arm64&platform=linux/amd64", 400);
    assert!(twice.contains("multiple platform parameters not supported"), "{twice}");

    ask(suite, "POST", "/images/made:1/tag?repo=again&tag=2", 201);
    let listed = |query: &str| length(&json(suite, &format!("/images/json?{query}")));
    assert_eq!(listed(&filter("reference", "again:2")), 1);
    assert!(json(suite, &format!("/images/json?shared-size=1&{}", filter("reference", "again:2")))[0]["SharedSize"].as_i64() >= Some(0));
    assert_eq!(
        json(suite, &format!("/images/json?{}", filter("reference", "again:2")))[0]["SharedSize"],
        -1
    );
    assert!(listed("all=1") >= listed(""));

    let saved = suite.scratch().join("both.tar");
    let saved = saved.to_str().expect("plain");
    shell(&format!(
        "curl -s -o {saved} --unix-socket {} 'http://d/images/get?names=made:1&names=again:2'",
        suite.socket().display()
    ))
    .ok();
    ask(suite, "DELETE", "/images/again:2?noprune=1", 200);
    ask(suite, "DELETE", "/images/made:1?force=1", 200);
    let loaded = upload("/images/load?quiet=1", saved);
    assert!(
        loaded.contains("Loaded image: again:2") && !loaded.contains("Loading layer"),
        "{loaded}"
    );
    ask(suite, "DELETE", "/images/again:2", 200);
    ask(suite, "DELETE", "/images/made:1", 200);

    suite.tug(["create", "--name", "source", "busybox", "true"]).ok();
    let committed = "/commit?container=source&repo=committed&tag=3&comment=why&author=me&pause=0&changes=LABEL%20c=d";
    ask(suite, "POST", committed, 201);
    let image = json(suite, "/images/committed:3/json");
    assert_eq!((&image["Comment"], &image["Author"]), (&"why".into(), &"me".into()));
    assert_eq!(image["Config"]["Labels"]["c"], "d");
    let pruned = ask(suite, "POST", &format!("/images/prune?{}", filter("dangling", "x")), 400);
    assert!(pruned.contains("invalid filter 'dangling=x'"), "{pruned}");
    suite.tug(["rm", "source"]).ok();
    suite.tug(["rmi", "committed:3"]).ok();
    Outcome::Passed
}

fn parameters_of_builds_take_effect(suite: &Suite) -> Outcome {
    let pruned = ask(suite, "POST", "/build/prune?reserved-space=x", 400);
    assert!(pruned.contains("reserved-space is in bytes and expects an integer"), "{pruned}");
    for name in ["keep-storage", "max-used-space", "min-free-space"] {
        ask(suite, "POST", &format!("/build/prune?{name}=x"), 400);
    }
    ask(suite, "POST", "/build/prune?all=1&keep-storage=1000000000000", 200);
    ask(suite, "POST", &format!("/build/prune?{}", filter("nope", "x")), 400);
    ask(suite, "POST", "/build?version=9", 400);
    ask(suite, "POST", "/build?squash=1", 400);
    let isolated = ask(suite, "POST", "/build?isolation=hyperv", 400);
    assert!(isolated.contains("unsupported isolation"), "{isolated}");

    let place = suite.scratch();
    let place = place.display();
    let limits = "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpuset/cpuset.cpus /sys/fs/cgroup/cpuset/cpuset.mems | tr '\\n' ' '";
    let file = format!("FROM busybox\nRUN {limits}\n");
    shell(&format!("cd {place} && cat > Dockerfile <<'EOF'\n{file}EOF\ntar -cf c.tar Dockerfile"))
        .ok();
    if Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        let query = format!(
            "nocache=1&memory=67108864&memswap=134217728&cpushares=512&cpuperiod=50000&cpuquota=25000&cpusetcpus=0&cpusetmems=0&cgroupparent={}",
            suite.cgroup_parent()
        );
        let line = format!(
            "curl -s --max-time 60 -X POST -H 'Content-Type: application/x-tar' --data-binary @{place}/c.tar --unix-socket {} 'http://d/build?{query}'",
            suite.socket().display()
        );
        let said = shell(&line).ok();
        assert!(said.contains("134217728 512 50000 25000 0 0"), "{said}");
    }
    Outcome::Passed
}

fn parameters_of_the_rest_take_effect(suite: &Suite) -> Outcome {
    suite.tug(["volume", "create", "--label", "a=b", "vol"]).ok();
    let volumes = |query: &str| length(&json(suite, &format!("/volumes?{query}"))["Volumes"]);
    assert_eq!((volumes(&filter("label", "a=b")), volumes(&filter("label", "a=c"))), (1, 0));
    ask(suite, "DELETE", "/volumes/gone?force=1", 204);
    ask(suite, "DELETE", "/volumes/gone", 404);
    ask(suite, "PUT", "/volumes/vol?version=1", 503);
    let kept = ask(suite, "POST", &format!("/volumes/prune?{}", filter("label", "z")), 200);
    assert!(kept.contains(r#""VolumesDeleted":[]"#), "{kept}");
    suite.tug(["volume", "rm", "vol"]).ok();

    let networks = |query: &str| length(&json(suite, &format!("/networks?{query}")));
    assert_eq!((networks(&filter("name", "bridge")), networks(&filter("driver", "host"))), (1, 1));
    ask(suite, "GET", "/networks/bridge?scope=local", 200);
    ask(suite, "GET", "/networks/bridge?scope=swarm", 404);
    ask(suite, "GET", "/networks/bridge?verbose=x", 400);
    let pruned = ask(suite, "POST", &format!("/networks/prune?{}", filter("nope", "z")), 400);
    assert!(pruned.contains("invalid filter 'nope'"), "{pruned}");

    let usage = json(suite, "/system/df?type=volume");
    assert!(usage["Images"].is_null() && usage["Volumes"].is_array(), "{usage}");
    let unknown = ask(suite, "GET", "/system/df?type=x", 400);
    assert!(unknown.contains("unknown object type: x"), "{unknown}");

    suite.tug(["volume", "create", "seen"]).ok();
    suite.tug(["volume", "rm", "seen"]).ok();
    let until = shell("date +%s").ok();
    let events = |query: &str| text(suite, &format!("/events?{query}")).lines().count();
    let none = events(&format!("since={until}&until={until}&{}", filter("volume", "never")));
    let some = events(&format!("since=1&until={until}&{}", filter("volume", "seen")));
    assert!(none == 0 && some <= 2, "{none} {some}");
    let bad = ask(suite, "GET", "/events?since=nonsense", 400);
    assert!(bad.contains("failed to parse value as time or duration"), "{bad}");

    // On a node that is in no swarm.
    for (method, path, want) in [
        ("GET", "/swarm", 503),
        ("GET", "/nodes", 503),
        ("GET", "/services?status=1", 503),
        ("GET", "/tasks", 503),
        ("GET", "/secrets", 503),
        ("GET", "/configs", 503),
        ("POST", "/swarm/leave?force=1", 503),
        ("GET", "/plugins", 200),
        ("GET", "/plugins/x/json", 404),
        ("GET", "/containers/x/checkpoints?dir=/x", 404),
    ] {
        ask(suite, method, path, want);
    }
    let head =
        shell(&format!("curl -sI --unix-socket {} http://d/_ping", suite.socket().display()));
    assert!(head.ok().to_lowercase().contains("api-version: 1."));
    assert!(
        !Path::new("/debug").exists()
            || ask(suite, "GET", "/debug/vars", 404).contains("page not found")
    );
    Outcome::Passed
}
