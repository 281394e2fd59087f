//! What events tell, in which order and with which attributes: as dockerd 20.10 told the same commands,
//! but for the second `volume create` of an existing volume, which newer ones leave out.

use std::time::Duration;

use crate::harness::{BOTH, Outcome, Suite, shell, wait_for};

super::cases! {
    events_come_in_dockers_order_with_its_attributes,
}

/// Commands after the word `docker`, and what they make happen.
const FLOWS: &[(&str, &str)] = &[
    (
        "run --rm --name aa --label l=1 -v vol1:/v --network n1 busybox true",
        r#"volume create {"driver":"local"}
container create {"image":"busybox","l":"1","name":"aa"}
container attach {"image":"busybox","l":"1","name":"aa"}
network connect {"container":"ID","name":"n1","type":"bridge"}
volume mount {"container":"ID","destination":"/v","driver":"local","propagation":"","read/write":"true"}
container start {"image":"busybox","l":"1","name":"aa"}
container die {"exitCode":"0","image":"busybox","l":"1","name":"aa"}
network disconnect {"container":"ID","name":"n1","type":"bridge"}
volume unmount {"container":"ID","driver":"local"}
container destroy {"image":"busybox","l":"1","name":"aa"}"#,
    ),
    (
        "run -d --name aa --label l=1 --network n1 busybox sleep 600",
        r#"container create {"image":"busybox","l":"1","name":"aa"}
network connect {"container":"ID","name":"n1","type":"bridge"}
container start {"image":"busybox","l":"1","name":"aa"}"#,
    ),
    ("network connect n2 aa", r#"network connect {"container":"ID","name":"n2","type":"bridge"}"#),
    (
        "exec aa sh -c 'exit 3'",
        r#"container exec_create: sh -c exit 3 {"execID":"ID","image":"busybox","l":"1","name":"aa"}
container exec_start: sh -c exit 3 {"execID":"ID","image":"busybox","l":"1","name":"aa"}
container exec_die {"execID":"ID","exitCode":"3","image":"busybox","l":"1","name":"aa"}"#,
    ),
    (
        "exec -d aa true",
        r#"container exec_create: true  {"execID":"ID","image":"busybox","l":"1","name":"aa"}
container exec_start: true  {"execID":"ID","image":"busybox","l":"1","name":"aa"}
container exec_die {"execID":"ID","exitCode":"0","image":"busybox","l":"1","name":"aa"}"#,
    ),
    ("pause aa", r#"container pause {"image":"busybox","l":"1","name":"aa"}"#),
    ("unpause aa", r#"container unpause {"image":"busybox","l":"1","name":"aa"}"#),
    ("rename aa bb", r#"container rename {"image":"busybox","l":"1","name":"bb","oldName":"/aa"}"#),
    ("kill -s USR2 bb", r#"container kill {"image":"busybox","l":"1","name":"bb","signal":"12"}"#),
    (
        "restart -t 0 bb",
        r#"container kill {"image":"busybox","l":"1","name":"bb","signal":"15"}
container kill {"image":"busybox","l":"1","name":"bb","signal":"9"}
container die {"exitCode":"137","image":"busybox","l":"1","name":"bb"}
network disconnect {"container":"ID","name":"n1","type":"bridge"}
network disconnect {"container":"ID","name":"n2","type":"bridge"}
container stop {"image":"busybox","l":"1","name":"bb"}
network connect {"container":"ID","name":"n1","type":"bridge"}
network connect {"container":"ID","name":"n2","type":"bridge"}
container start {"image":"busybox","l":"1","name":"bb"}
container restart {"image":"busybox","l":"1","name":"bb"}"#,
    ),
    (
        "rm -f bb",
        r#"container kill {"image":"busybox","l":"1","name":"bb","signal":"9"}
container die {"exitCode":"137","image":"busybox","l":"1","name":"bb"}
network disconnect {"container":"ID","name":"n1","type":"bridge"}
network disconnect {"container":"ID","name":"n2","type":"bridge"}
container destroy {"image":"busybox","l":"1","name":"bb"}"#,
    ),
    (
        "run -d --name tt --network n1 --restart on-failure:1 busybox false",
        r#"container create {"image":"busybox","name":"tt"}
network connect {"container":"ID","name":"n1","type":"bridge"}
container start {"image":"busybox","name":"tt"}
container die {"exitCode":"1","image":"busybox","name":"tt"}
network disconnect {"container":"ID","name":"n1","type":"bridge"}
network connect {"container":"ID","name":"n1","type":"bridge"}
container start {"image":"busybox","name":"tt"}
container die {"exitCode":"1","image":"busybox","name":"tt"}
network disconnect {"container":"ID","name":"n1","type":"bridge"}"#,
    ),
    ("cp /etc/hostname tt:/x", r#"container extract-to-dir {"image":"busybox","name":"tt"}"#),
    (
        "commit tt im:1",
        r#"image tag {"name":"im:1"}
container commit {"comment":"","image":"busybox","imageID":"sha256:ID","imageRef":"im:1","name":"tt"}"#,
    ),
    ("rm tt", r#"container destroy {"image":"busybox","name":"tt"}"#),
    ("volume rm vol1", r#"volume destroy {"driver":"local"}"#),
    (
        "rmi im:1",
        r#"image untag {"name":"sha256:ID"}
image delete {"name":"sha256:ID"}"#,
    ),
    (
        "run -d --name hh --network none --health-cmd true --health-interval 300s \
         --health-start-period 300s --health-start-interval 100ms busybox sleep 600",
        r#"container create {"image":"busybox","name":"hh"}
network connect {"container":"ID","name":"none","type":"null"}
container start {"image":"busybox","name":"hh"}
container exec_create: /bin/sh -c true {"execID":"ID","image":"busybox","name":"hh"}
container exec_start: /bin/sh -c true {"execID":"ID","image":"busybox","name":"hh"}
container exec_die {"execID":"ID","exitCode":"0","image":"busybox","name":"hh"}
container health_status: healthy {"image":"busybox","name":"hh"}"#,
    ),
    (
        "stop -t 0 hh",
        r#"container kill {"image":"busybox","name":"hh","signal":"15"}
container kill {"image":"busybox","name":"hh","signal":"9"}
container die {"exitCode":"137","image":"busybox","name":"hh"}
network disconnect {"container":"ID","name":"none","type":"null"}
container stop {"image":"busybox","name":"hh"}"#,
    ),
    ("rm hh", r#"container destroy {"image":"busybox","name":"hh"}"#),
];

fn events_come_in_dockers_order_with_its_attributes(suite: &Suite) -> Outcome {
    for network in ["n1", "n2"] {
        suite.tug(["network", "create", network]).ok();
    }
    for cli in BOTH {
        let host = format!("DOCKER_HOST=unix://{}", suite.socket().display());
        let program = suite.program(cli).display().to_string();
        for (command, want) in FLOWS {
            let since = shell("date +%s.%N").ok();
            shell(&format!("{host} {program} {command}"));
            let told = || {
                let format = "{{.Type}} {{.Action}} {{json .Actor.Attributes}}";
                let normal = r#"s/[0-9a-f]{64}/ID/g; s/"execDuration":"[0-9]+",?//"#;
                shell(&format!(
                    "{host} docker events --since {since} --until $(date +%s.%N) \
                     --format '{format}' | sed -E '{normal}'"
                ))
                .ok()
            };
            // What follows an answer, as the end of a detached process does, may take a moment.
            let mut last = String::new();
            let holds = || {
                last = told();
                last == *want
            };
            let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                wait_for(command, Duration::from_secs(5), holds);
            }));
            assert!(waited.is_ok(), "{cli:?} {command}\n{last}\nand not\n{want}");
        }
    }
    Outcome::Passed
}
