//! Builds by the classic API: its parameters, its events, and the forms of its instructions.

use std::fs;

use crate::harness::{BOTH, Cli, Outcome, Suite, context, shell};

super::cases! {
    every_parameter_of_build_counts,
    a_classic_build_is_told_in_events,
    stages_of_a_classic_build_are_kept,
    sources_of_cache_that_are_missing_leave_the_cache_aside,
    steps_join_the_network_of_a_container,
    steps_run_in_the_control_group_that_is_asked_for,
    odd_forms_of_instructions_are_dockers,
    changes_are_instructions_of_a_dockerfile,
    exceptions_below_wildcards_are_kept,
}

/// Posts a context with these parameters: status and answer.
fn post(suite: &Suite, directory: &std::path::Path, query: &str) -> (u16, String) {
    let line = format!(
        "tar -C {} -cf - . | curl -s --max-time 60 -X POST -H 'Content-Type: application/x-tar' --data-binary @- -w '\\n%{{http_code}}' --unix-socket {} 'http://d/v1.47/build?{query}'",
        directory.display(),
        suite.socket().display()
    );
    let text = shell(&line).ok();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn every_parameter_of_build_counts(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nARG A=default\nRUN echo arg $A, mem $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max), hosts $(grep -c h.example /etc/hosts), shm $(df /dev/shm | tail -n1 | awk '{print $2}'), links $(ip -o link | wc -l), files $(ulimit -n)\n";
    let directory = context(
        suite,
        &[
            ("Dockerfile", dockerfile),
            ("Other", "FROM busybox AS one\nRUN echo other\nFROM one\nRUN echo second\n"),
        ],
    );
    for &(query, status, words) in REFUSED_QUERIES {
        let (got, said) = post(suite, &directory, query);
        assert!(got == status && said.contains(words), "{query}: {got} {said}");
    }
    let query = "q=0&nocache=1&buildargs=%7B%22A%22:null,%22B%22:%22x%22%7D&memory=67108864&extrahosts=h.example:192.0.2.1&shmsize=1048576&networkmode=none&ulimits=%5B%7B%22Name%22:%22nofile%22,%22Soft%22:99,%22Hard%22:99%7D%5D&labels=%7B%22l%22:%22v%22%7D&t=params:1&t=params:2&cachefrom=null&outputs=%5B%5D";
    let (status, said) = post(suite, &directory, query);
    assert_eq!(status, 200, "{said}");
    let words = "arg default, mem 67108864, hosts 1, shm 1024, links 1, files 99";
    assert!(said.contains(words) && said.contains("[B] were not consumed"), "{said}");
    assert_eq!(suite.tug(["inspect", "-f", "{{.Config.Labels.l}}", "params:2"]).ok(), "v");
    let (_, said) = post(suite, &directory, "dockerfile=Other&target=one&nocache=1");
    assert!(said.contains("other") && !said.contains("second"), "{said}");
    let (_, said) = post(suite, &directory, "q=1&t=params:3");
    let id = suite.tug(["inspect", "-f", "{{.Id}}", "params:3"]).ok();
    assert_eq!(said.trim(), format!("{{\"stream\":\"{id}\\n\"}}"));
    let (_, said) = post(suite, &directory, "rm=0&nocache=1");
    assert!(said.contains("[Warning] --rm=false keeps nothing"), "{said}");
    assert!(!said.contains("Removed intermediate container"), "{said}");
    fs::write(directory.join("Other"), "FROM busybox\nRUN exit 4\n").unwrap();
    let removed = "Removed intermediate container";
    let (_, said) = post(suite, &directory, "dockerfile=Other&forcerm=1&nocache=1");
    assert!(said.contains(removed) && said.contains("\"code\":4"), "{said}");
    let (_, said) = post(suite, &directory, "dockerfile=Other&nocache=1");
    assert!(!said.contains(removed), "{said}");
    // What is no list of credentials is none, as in Docker.
    let wrong = shell(&format!(
        "tar -C {} -cf - . | curl -s -X POST -H 'X-Registry-Config: %%%' --data-binary @- --unix-socket {} http://d/build",
        directory.display(),
        suite.socket().display()
    ));
    assert!(wrong.ok().contains("Successfully built"));
    assert_eq!(suite.api("POST", "/v1.47/build/cancel", None).0, 400);
    assert_eq!(suite.api("POST", "/v1.47/build/cancel?id=none", None).0, 204);
    fs::write(directory.join("Other"), "FROM busybox\nRUN sleep 1000\n").unwrap();
    let line = format!(
        "sleep 2; curl -s -X POST --unix-socket {} 'http://d/v1.47/build/cancel?id=mine'",
        suite.socket().display()
    );
    let mut canceller = std::process::Command::new("sh").args(["-c", &line]).spawn().unwrap();
    let (_, said) = post(suite, &directory, "dockerfile=Other&buildid=mine&nocache=1");
    canceller.wait().unwrap();
    assert!(said.contains("context canceled"), "{said}");
    suite.tug(["rmi", "params:1", "params:2", "params:3"]).ok();
    suite.tug(["image", "prune", "-f"]).ok();
    Outcome::Passed
}

/// Queries of a build that are refused: the status, and words of the message.
const REFUSED_QUERIES: &[(&str, u16, &str)] = &[
    ("version=2", 501, "set DOCKER_BUILDKIT=0"),
    ("version=3", 400, "invalid version 3"),
    ("squash=1", 400, "squash is only supported with experimental mode"),
    ("isolation=hyperv", 400, "unsupported isolation"),
    ("securityopt=x", 400, "does not support setting security options on build"),
    ("shmsize=x", 400, "strconv.ParseInt: parsing \\\"x\\\": invalid syntax"),
    ("shmsize=-1", 400, "SHM size can not be less than 0"),
    ("ulimits=x", 400, "error reading ulimit settings: "),
    ("buildargs=x", 400, "error reading build args: "),
    ("labels=x", 400, "error reading labels: "),
    ("cachefrom=x", 400, "message"),
    ("outputs=x", 400, "invalid outputs specified: "),
    (
        "outputs=%5B%7B%22Type%22:%22local%22%7D%5D",
        400,
        "outputs are not supported by the classic builder",
    ),
    ("t=UPPER", 400, "must be lowercase"),
    (
        "t=a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        400,
        "build tag cannot contain a digest",
    ),
    ("platform=foo", 400, "invalid argument"),
    ("memory=1", 400, "Minimum memory limit allowed is 6MB"),
    ("extrahosts=nonsense", 400, "bad format for add-host: \\\"nonsense\\\""),
    ("networkmode=container:", 400, "invalid container format container:"),
    ("target=none", 400, "failed to reach build target none in Dockerfile"),
    ("dockerfile=none", 400, "Cannot locate specified Dockerfile: none"),
    ("dockerfile=../x", 400, "Forbidden path outside the build context: ../x"),
];

fn a_classic_build_is_told_in_events(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nLABEL told=yes\nRUN true\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let now = || shell("date +%s.%N").ok();
    let since = now();
    suite
        .run(
            Cli::Docker,
            ["build", "-q", "--no-cache", "-t", "told:1", directory.to_str().unwrap()],
        )
        .ok();
    let until = now();
    let events = |filter: &str| {
        let format = "{{.Type}} {{.Action}} {{index .Actor.Attributes \"exitCode\"}}";
        let args = [
            "events", "--since", &since, "--until", &until, "--filter", filter, "--format", format,
        ];
        let text = suite.run(Cli::Docker, args).ok();
        text.lines().map(|line| line.trim_end().replace(" <no value>", "")).collect::<Vec<_>>()
    };
    let containers = events("type=container");
    assert_eq!(
        containers,
        [
            "container create",
            "container destroy",
            "container create",
            "container attach",
            "container start",
            "container die 0",
            "container destroy"
        ]
    );
    assert_eq!(events("type=image"), ["image create", "image tag"]);
    assert_eq!(events("label=told=yes"), ["image create", "image tag"]);
    suite.tug(["rmi", "told:1"]).ok();
    Outcome::Passed
}

fn stages_of_a_classic_build_are_kept(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox AS a\nLABEL stage-of-the-case=1\nONBUILD ENV bar=foo\nFROM a AS b\nFROM b\nRUN test $bar = foo\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let (status, said) = post(suite, &directory, "t=stages:1");
    assert_eq!(status, 200, "{said}");
    let ids: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("{\"aux\":{\"ID\":\"")?.split('"').next())
        .collect();
    assert_eq!(ids.len(), 3, "{said}");
    assert_eq!(ids[2], suite.tug(["inspect", "-f", "{{.Id}}", "stages:1"]).ok());
    assert_eq!(
        suite.tug(["inspect", "-f", "{{json .Config.OnBuild}}", ids[0]]).ok(),
        "[\"ENV bar=foo\"]"
    );
    let found = suite
        .run(
            Cli::Docker,
            [
                "images",
                "-q",
                "--no-trunc",
                "-f",
                "label=stage-of-the-case=1",
                "-f",
                "dangling=true",
            ],
        )
        .ok();
    assert!(found.contains(ids[0]), "{found}");
    suite.tug(["rmi", "stages:1"]).ok();
    suite.tug(["image", "prune", "-f"]).ok();
    Outcome::Passed
}

fn sources_of_cache_that_are_missing_leave_the_cache_aside(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let path = directory.to_str().unwrap();
    let docker = |args: &[&str]| suite.run(Cli::Docker, args).ok();
    docker(&["build", "-q", "-t", "sources:1", path]);
    let again = docker(&["build", "-t", "sources:1", path]);
    assert!(again.contains("Using cache"), "{again}");
    let without = docker(&["build", "--cache-from", "nosuch:1", "-t", "sources:2", path]);
    assert!(!without.contains("Using cache"), "{without}");
    let with = docker(&["build", "--cache-from", "nosuch:1,sources:1", "-t", "sources:3", path]);
    assert!(with.contains("Using cache"), "{with}");
    // Tug's own client builds as BuildKit does, which has its own results besides.
    let own = suite.tug(["build", "--progress=plain", "--cache-from", "nosuch:1", path]);
    assert!(own.code == 0 && own.stderr.contains("CACHED"), "{}", own.stderr);
    docker(&["rmi", "sources:1", "sources:2", "sources:3"]);
    docker(&["image", "prune", "-f"]);
    Outcome::Passed
}

fn steps_join_the_network_of_a_container(suite: &Suite) -> Outcome {
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "joined",
            "--hostname",
            "joined-host",
            "--add-host",
            "known.example:192.0.2.7",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "behind",
            "--network",
            "container:joined",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let address = suite.tug(["exec", "joined", "hostname", "-i"]).ok();
    let dockerfile = format!(
        "FROM busybox\nRUN ip -o -4 addr show eth0 | grep -q ' {}/' && grep -q known.example /etc/hosts\n",
        address.split(' ').next().unwrap()
    );
    let directory = context(suite, &[("Dockerfile", &dockerfile)]);
    let path = directory.to_str().unwrap();
    for cli in BOTH {
        for name in ["joined", "behind"] {
            let network = format!("--network=container:{name}");
            let output = suite.run(cli, ["build", "--no-cache", &network, path]);
            assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
        }
        let output = suite.run(cli, ["build", "--no-cache", "--network=container:nobody", path]);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(output.code == 1 && said.contains("No such container: nobody"), "{said}");
        let output = suite.run(cli, ["build", "--no-cache", "--network=nosuchnet", path]);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(output.code == 1 && said.contains("network nosuchnet not found"), "{said}");
    }
    suite.tug(["rm", "-f", "behind", "joined"]).ok();
    suite.tug(["image", "prune", "-f"]).ok();
    Outcome::Passed
}

fn steps_run_in_the_control_group_that_is_asked_for(suite: &Suite) -> Outcome {
    let directory = context(suite, &[("Dockerfile", "FROM busybox\nRUN sleep 1000\n")]);
    let parent = format!("/{}/given", suite.directory.file_name().unwrap().to_str().unwrap());
    let groups = || {
        shell(&format!("ls -d /sys/fs/cgroup/*{parent}/*/ /sys/fs/cgroup{parent}/*/ 2>/dev/null"))
            .stdout
    };
    let mut build = suite
        .command(Cli::Tug)
        .args(["build", "--no-cache", "--cgroup-parent", &parent, directory.to_str().unwrap()])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let patience = std::time::Duration::from_secs(20);
    crate::harness::wait_for("the step's group", patience, || !groups().is_empty());
    shell(&format!("kill -INT {}", build.id())).ok();
    build.wait().unwrap();
    crate::harness::wait_for("the group's end", patience, || groups().is_empty());
    shell(&format!("rmdir /sys/fs/cgroup/*{parent} /sys/fs/cgroup{parent} 2>/dev/null; true")).ok();
    Outcome::Passed
}

fn odd_forms_of_instructions_are_dockers(suite: &Suite) -> Outcome {
    let docker = |args: &[&str]| suite.run(Cli::Docker, args);
    let good = "FROM busybox\nENTRYPOINT []\nCMD []\nWORKDIR /tmp/\nRUN true\n";
    let directory = context(suite, &[("Dockerfile", good)]);
    docker(&["build", "-q", "-t", "odd:1", directory.to_str().unwrap()]).ok();
    // An empty list in the image's own document; inspect leaves it out, as Docker's does.
    let fields = "{{.Config.WorkingDir}} {{.Id}}";
    let found = docker(&["inspect", "-f", fields, "odd:1"]).ok();
    let (entered, id) = found.split_once(" sha256:").unwrap();
    assert_eq!(entered, "/tmp/");
    let saved = format!(
        "docker -H unix://{} save odd:1 | tar -xO blobs/sha256/{id}",
        suite.socket().display()
    );
    let document: serde_json::Value = serde_json::from_str(&shell(&saved).ok()).unwrap();
    assert_eq!(document["config"]["Cmd"], serde_json::json!([]));
    assert_eq!(document["config"]["Entrypoint"], serde_json::json!([]));
    assert_eq!(docker(&["run", "--rm", "odd:1", "pwd"]).ok(), "/tmp");
    let none = docker(&["run", "--rm", "odd:1"]);
    assert!(none.stderr.contains("no command specified"), "{}", none.stderr);
    let empty = context(
        suite,
        &[("Dockerfile", "FROM busybox\nCMD [\"touch\", \"/ran\"]\nRUN []\nRUN test -e /ran\n")],
    );
    docker(&["build", "-q", "-t", "odd:2", empty.to_str().unwrap()]).ok();
    for (dockerfile, words) in [
        ("FROM busybox\nVOLUME $empty\n", "VOLUME specified can not be an empty string"),
        ("FROM busybox\nRUN touch /foo\nVOLUME /foo\n", "file exists"),
        (
            "FROM busybox\nCOPY --from=0 /a /b\n",
            "invalid from flag value 0: refers to current build stage",
        ),
        ("FROM busybox\nCOPY --from=1 /a /b\n", "invalid from flag value 1: index out of bounds"),
        ("FROM busybox\nRUN --mount=type=nope true\n", "unsupported mount type"),
        ("FROM busybox\nEXPOSE 99999\n", "invalid containerPort: 99999"),
    ] {
        let directory = context(suite, &[("Dockerfile", dockerfile)]);
        let error = docker(&["build", directory.to_str().unwrap()]).fails(1);
        assert!(error.contains(words), "{words}: {error}");
    }
    docker(&["rmi", "odd:1", "odd:2"]).ok();
    docker(&["image", "prune", "-f"]).ok();
    Outcome::Passed
}

fn changes_are_instructions_of_a_dockerfile(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite
            .run(cli, ["create", "--name", "changed", "-e", "U=me", "-e", "P=/bin", "busybox"])
            .ok();
        let args = [
            "commit",
            "-c",
            "ENV P=/opt/bin:$P",
            "-c",
            "WORKDIR /home/$U",
            "-c",
            "HEALTHCHECK --interval=7s CMD true",
            "-c",
            "EXPOSE 80-81/tcp",
            "-c",
            "ONBUILD RUN x",
            "changed",
            "changes:1",
        ];
        suite.run(cli, args).ok();
        let fields = "{{.Config.Env}}|{{.Config.WorkingDir}}|{{json .Config.Healthcheck}}|{{json .Config.ExposedPorts}}|{{.Config.OnBuild}}";
        let found = suite.run(cli, ["inspect", "-f", fields, "changes:1"]).ok();
        assert!(found.contains("P=/opt/bin:/bin"), "{found}");
        assert!(found.contains("|/home/me|{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":7000000000}|{\"80/tcp\":{},\"81/tcp\":{}}|[RUN x]"), "{found}");
        for (change, words) in [
            ("RUN x", "RUN is not a valid change command"),
            ("ENV a", "ENV must have two arguments"),
            ("VOLUME []", "VOLUME requires at least one argument"),
        ] {
            let error = suite.run(cli, ["commit", "-c", change, "changed"]).fails(1);
            assert!(error.contains(words), "{error}");
        }
        let tar = suite.image_tar("busybox");
        suite
            .run(
                cli,
                [
                    "import",
                    "-c",
                    "ENV A=1 B=$A",
                    "-c",
                    "ENV C=${A}x",
                    "-c",
                    "USER nobody",
                    tar.to_str().unwrap(),
                    "changes:2",
                ],
            )
            .ok();
        assert_eq!(
            suite.run(cli, ["inspect", "-f", "{{.Config.Env}} {{.Config.User}}", "changes:2"]).ok(),
            "[A=1 B= C=1x] nobody"
        );
        suite.run(cli, ["rm", "changed"]).ok();
        suite.run(cli, ["rmi", "changes:1", "changes:2"]).ok();
    }
    Outcome::Passed
}

fn exceptions_below_wildcards_are_kept(suite: &Suite) -> Outcome {
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY . /c\nRUN cd /c && find . | sort\n"),
        (".dockerignore", "\u{feff}# all but texts one level down\r\n*\r\n!*/*.txt\r\n"),
        ("a.txt", ""),
        ("d/a.txt", ""),
        ("d/b.md", ""),
        ("e/f/a.txt", ""),
    ];
    let directory = context(suite, &files);
    fs::set_permissions(directory.join("d"), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .unwrap();
    let (_, said) = post(suite, &directory, "nocache=1");
    let is_seen = |said: &str| ["./d/a.txt", "./d"].iter().all(|name| said.contains(name));
    assert!(is_seen(&said) && !said.contains("b.md") && !said.contains("e/f"), "{said}");
    let args = ["build", "--progress=plain", "--no-cache", "-t", "excepted:1"];
    let output = suite.run(Cli::Tug, args.into_iter().chain([directory.to_str().unwrap()]));
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    assert!(is_seen(&said) && !said.contains("b.md") && !said.contains("./a.txt"), "{said}");
    assert_eq!(suite.tug(["run", "--rm", "excepted:1", "stat", "-c", "%a", "/c/d"]).ok(), "711");
    suite.tug(["rmi", "excepted:1"]).ok();
    suite.tug(["image", "prune", "-f"]).ok();
    Outcome::Passed
}
