//! Builds: every instruction, the cache, the context, and the errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{BOTH, Cli, Outcome, Output, Suite, shell};

super::cases! {
    a_service_is_built_and_built_again_from_cache,
    every_instruction_has_its_effect,
    stages_copy_from_each_other,
    arguments_and_environment_expand,
    ignored_files_stay_out,
    archives_are_unpacked_and_urls_fetched,
    the_cache_is_keyed_by_content,
    syntax_errors_name_the_line,
    what_is_missing_is_named,
    a_failing_step_leaves_nothing,
    the_own_client_draws_progress,
    a_dockerfile_comes_from_standard_input,
    onbuild_runs_in_the_next_build,
    ten_thousand_files_are_copied,
    the_same_layer_may_come_twice,
    a_prune_of_the_cache_goes_by_its_filters,
}

/// A build context with these files.
fn context(suite: &Suite, files: &[(&str, &str)]) -> PathBuf {
    let directory = suite.scratch();
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn build(suite: &Suite, cli: Cli, tag: &str, directory: &Path) -> Output {
    suite.run(cli, ["build", "-t", tag, directory.to_str().unwrap()])
}

fn a_service_is_built_and_built_again_from_cache(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let directory = context(
            suite,
            &[
                (
                    "Dockerfile",
                    "FROM busybox\nMAINTAINER somebody\nRUN echo one > /one\nRUN echo two > /two\nCOPY . /app\nWORKDIR /app\nENTRYPOINT [\"cat\"]\nCMD [\"/app/page\"]\n",
                ),
                ("page", &format!("the page {cli:?}\n")),
            ],
        );
        build(suite, cli, "service:1", &directory).ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "service:1"]).ok(), format!("the page {cli:?}"));
        let began = Instant::now();
        let again = build(suite, cli, "service:1", &directory);
        let took = began.elapsed();
        let text = format!("{}{}", again.stdout, again.stderr);
        assert_eq!(again.code, 0, "{text}");
        assert!(text.contains("Using cache") || text.contains("CACHED"), "{text}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        fs::write(directory.join("page"), "changed\n").unwrap();
        build(suite, cli, "service:1", &directory).ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "service:1"]).ok(), "changed");
        let dangling = suite
            .run(cli, ["images", "-f", "dangling=true", "--format", "{{.Repository}} {{.Tag}}"])
            .ok();
        assert!(dangling.contains("<none> <none>"), "{dangling}");
        suite.run(cli, ["rmi", "service:1"]).ok();
        suite.run(cli, ["image", "prune", "-f"]).ok();
    }
    Outcome::Passed
}

fn every_instruction_has_its_effect(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox AS base\n\
        MAINTAINER me <me@example.org>\n\
        LABEL a=1 b=\"two words\"\n\
        ENV OLD old style\n\
        ENV NEW=1 OTHER='x y'\n\
        ARG LATE=default\n\
        RUN echo shell $LATE > /shell\n\
        RUN [\"/bin/sh\", \"-c\", \"echo exec > /exec\"]\n\
        SHELL [\"/bin/sh\", \"-ec\"]\n\
        RUN echo other shell > /other\n\
        EXPOSE 80 53/udp\n\
        VOLUME [\"/data\"]\n\
        WORKDIR /work\n\
        WORKDIR deeper\n\
        COPY --chown=1000:1000 --chmod=640 file ./\n\
        ADD file /added\n\
        USER app\n\
        STOPSIGNAL SIGINT\n\
        HEALTHCHECK --interval=5s --retries=2 CMD true\n\
        ONBUILD RUN echo later\n\
        ENTRYPOINT [\"/bin/sh\", \"-c\"]\n\
        CMD [\"id -un; pwd; cat file\"]\n";
    for cli in BOTH {
        let directory = context(suite, &[("Dockerfile", dockerfile), ("file", "content\n")]);
        build(suite, cli, "every:1", &directory).ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "every:1"]).ok(), "app\n/work/deeper\ncontent");
        let read = "cat /shell /exec /other; stat -c %a:%u:%g file; echo $OLD,$NEW,$OTHER";
        assert_eq!(
            suite.run(cli, ["run", "--rm", "every:1", read]).ok(),
            "shell default\nexec\nother shell\n640:1000:1000\nold style,1,x y"
        );
        let fields = "{{.Author}}|{{.Config.Labels.b}}|{{json .Config.ExposedPorts}}|{{json .Config.Volumes}}|{{.Config.User}}|{{.Config.StopSignal}}|{{json .Config.Healthcheck.Test}}|{{json .Config.OnBuild}}|{{json .Config.Shell}}";
        assert_eq!(
            suite.run(cli, ["inspect", "-f", fields, "every:1"]).ok(),
            "me <me@example.org>|two words|{\"53/udp\":{},\"80/tcp\":{}}|{\"/data\":{}}|app|SIGINT|[\"CMD-SHELL\",\"true\"]|[\"RUN echo later\"]|[\"/bin/sh\",\"-ec\"]"
        );
        suite.run(cli, ["rmi", "every:1"]).ok();
    }
    Outcome::Passed
}

fn stages_copy_from_each_other(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox AS first\nRUN mkdir /out && echo made > /out/a && ln -s a /out/b\n\
        FROM busybox AS unused\nRUN false\n\
        FROM scratch AS last\nCOPY --from=first /out /copied/\nCOPY --from=0 /out/a /numbered\nCOPY --from=redis:latest /etc/passwd /from-image\n\
        COPY --from=first /bin /bin\n";
    for cli in BOTH {
        let directory = context(suite, &[("Dockerfile", dockerfile)]);
        suite.run(cli, ["build", "-q", "-t", "staged:1", directory.to_str().unwrap()]).ok();
        let seen = suite.run(
            cli,
            [
                "run",
                "--rm",
                "staged:1",
                "/bin/sh",
                "-c",
                "cat /copied/b /numbered; head -n1 /from-image; readlink /copied/b",
            ],
        );
        assert_eq!(seen.ok(), "made\nmade\nroot:x:0:0:root:/root:/bin/sh\na");
        suite
            .run(
                cli,
                [
                    "build",
                    "-q",
                    "--target",
                    "first",
                    "-t",
                    "staged:first",
                    directory.to_str().unwrap(),
                ],
            )
            .ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "staged:first", "cat", "/out/a"]).ok(), "made");
        suite.run(cli, ["rmi", "staged:1", "staged:first"]).ok();
    }
    Outcome::Passed
}

fn arguments_and_environment_expand(suite: &Suite) -> Outcome {
    let dockerfile = "ARG BASE=busybox\nFROM ${BASE}:latest\nARG WHO=nobody\nARG UNSET\nENV GREETING=\"hello ${WHO}\" FALL=${UNSET:-fallback} ALT=${WHO:+set}\n\
        LABEL who=$WHO\nWORKDIR /srv/$WHO\nCMD echo $GREETING $FALL $ALT $PWD\n";
    for cli in BOTH {
        let directory = context(suite, &[("Dockerfile", dockerfile)]);
        suite
            .run(
                cli,
                [
                    "build",
                    "-q",
                    "-t",
                    "args:1",
                    "--build-arg",
                    "WHO=world",
                    directory.to_str().unwrap(),
                ],
            )
            .ok();
        assert_eq!(
            suite.run(cli, ["run", "--rm", "args:1"]).ok(),
            "hello world fallback set /srv/world"
        );
        suite.run(cli, ["rmi", "args:1"]).ok();
    }
    Outcome::Passed
}

fn ignored_files_stay_out(suite: &Suite) -> Outcome {
    let ignore = "# comment\n*.log\n!keep.log\nnode_modules\n**/secret\ndocs/*\n!docs/README\n";
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY . /c\nCMD cd /c && find . -type f | sort\n"),
        (".dockerignore", ignore),
        ("a.log", ""),
        ("keep.log", ""),
        ("node_modules/x", ""),
        ("deep/er/secret", ""),
        ("deep/er/open", ""),
        ("docs/README", ""),
        ("docs/other", ""),
    ];
    for cli in BOTH {
        let directory = context(suite, &files);
        build(suite, cli, "ignoring:1", &directory).ok();
        assert_eq!(
            suite.run(cli, ["run", "--rm", "ignoring:1"]).ok(),
            "./.dockerignore\n./Dockerfile\n./deep/er/open\n./docs/README\n./keep.log"
        );
        suite.run(cli, ["rmi", "ignoring:1"]).ok();
    }
    Outcome::Passed
}

fn archives_are_unpacked_and_urls_fetched(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let directory = context(suite, &[("in/x/file", "packed\n"), ("served/plain", "fetched\n")]);
        let at = directory.display();
        shell(&format!("cd {at} && tar -C in -czf a.tgz x && tar -C in -cJf b.txz x")).ok();
        let mut server = std::process::Command::new("busybox")
            .args([
                "httpd",
                "-f",
                "-p",
                "127.0.0.1:8099",
                "-h",
                directory.join("served").to_str().unwrap(),
            ])
            .spawn()
            .unwrap();
        fs::write(
            directory.join("Dockerfile"),
            "FROM busybox\nADD a.tgz /gz/\nADD b.txz /xz/\nCOPY a.tgz /kept/\nADD http://127.0.0.1:8099/plain /url/\nCMD cat /gz/x/file /xz/x/file /url/plain; ls /kept; stat -c %a /url/plain\n",
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let built = build(suite, cli, "adding:1", &directory);
        server.kill().unwrap();
        server.wait().unwrap();
        built.ok();
        assert_eq!(
            suite.run(cli, ["run", "--rm", "adding:1"]).ok(),
            "packed\npacked\nfetched\na.tgz\n600"
        );
        suite.run(cli, ["rmi", "adding:1"]).ok();
    }
    Outcome::Passed
}

fn the_cache_is_keyed_by_content(suite: &Suite) -> Outcome {
    let directory = context(
        suite,
        &[
            (
                "Dockerfile",
                "FROM busybox\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCMD cat /stamp\n",
            ),
            ("a", "1"),
            ("b", "1"),
        ],
    );
    let stamp = |suite: &Suite| {
        build(suite, Cli::Tug, "keyed:1", &directory).ok();
        suite.tug(["run", "--rm", "keyed:1"]).ok()
    };
    let first = stamp(suite);
    shell(&format!("touch -d 2001-01-01 {0}/a; echo other > {0}/b", directory.display())).ok();
    assert_eq!(stamp(suite), first, "times and other files do not matter");
    fs::write(directory.join("a"), "2").unwrap();
    let second = stamp(suite);
    assert_ne!(second, first);
    shell(&format!("chmod 755 {}/a", directory.display())).ok();
    assert_ne!(stamp(suite), second, "the mode matters");
    let before = stamp(suite);
    suite.tug(["build", "-q", "--no-cache", "-t", "keyed:1", directory.to_str().unwrap()]).ok();
    assert_ne!(suite.tug(["run", "--rm", "keyed:1"]).ok(), before);
    Outcome::Passed
}

fn syntax_errors_name_the_line(suite: &Suite) -> Outcome {
    let cases = [
        ("FROM busybox\nFROB x\n", "unknown instruction: FROB"),
        ("RUN true\n", "no build stage in current context"),
        ("FROM busybox\nCOPY x\n", "COPY requires at least two arguments"),
        ("FROM busybox\nENV x\n", "ENV must have two arguments"),
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
    ];
    for cli in BOTH {
        for (dockerfile, words) in cases {
            let directory = context(suite, &[("Dockerfile", dockerfile)]);
            let output = build(suite, cli, "broken:1", &directory);
            assert_ne!(output.code, 0);
            let text = format!("{}{}", output.stdout, output.stderr);
            assert!(text.to_lowercase().contains(&words.to_lowercase()), "{words}: {text}");
        }
    }
    Outcome::Passed
}

fn what_is_missing_is_named(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let directory = context(suite, &[("Dockerfile", "FROM busybox\nCOPY nosuch /x\n")]);
        let output = build(suite, cli, "broken:1", &directory);
        assert_ne!(output.code, 0);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains("nosuch") && text.contains("not found"), "{text}");
        fs::write(directory.join("Dockerfile"), "FROM busybox\nCOPY ../../etc/passwd /x\n")
            .unwrap();
        assert_ne!(build(suite, cli, "broken:1", &directory).code, 0);
        fs::write(directory.join("Dockerfile"), "FROM nosuch/image:1\n").unwrap();
        assert_ne!(build(suite, cli, "broken:1", &directory).code, 0);
        let nowhere = suite.run(cli, ["build", "/no/such/directory"]);
        assert_ne!(nowhere.code, 0);
        assert!(nowhere.stderr.contains("/no/such/directory"), "{}", nowhere.stderr);
    }
    Outcome::Passed
}

fn a_failing_step_leaves_nothing(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let directory =
            context(suite, &[("Dockerfile", "FROM busybox\nRUN echo before; exit 42\n")]);
        let output = build(suite, cli, "broken:1", &directory);
        assert_ne!(output.code, 0);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains("42") && text.contains("before"), "{text}");
        assert_eq!(suite.run(cli, ["ps", "-aq"]).ok(), "");
    }
    Outcome::Passed
}

fn the_own_client_draws_progress(suite: &Suite) -> Outcome {
    let directory =
        context(suite, &[("Dockerfile", "FROM busybox\nRUN echo step output\nCOPY . /x\n")]);
    let output =
        suite.tug(["build", "--progress", "plain", "-t", "drawn:1", directory.to_str().unwrap()]);
    let text = format!("{}{}", output.stdout, output.stderr);
    for words in [
        "[internal] load build definition from Dockerfile",
        "transferring context",
        "[2/3] RUN echo step output",
        "[3/3] COPY . /x",
        "exporting layers",
        "writing image sha256:",
        "naming to docker.io/library/drawn:1",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let again =
        suite.tug(["build", "--progress", "plain", "-t", "drawn:1", directory.to_str().unwrap()]);
    assert!(format!("{}{}", again.stdout, again.stderr).contains("CACHED"));
    Outcome::Passed
}

fn a_dockerfile_comes_from_standard_input(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let output = suite.run_with_input(
            cli,
            ["build", "-q", "-t", "piped:1", "-"],
            b"FROM busybox\nCMD echo piped\n",
        );
        output.ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "piped:1"]).ok(), "piped");
        suite.run(cli, ["rmi", "piped:1"]).ok();
    }
    Outcome::Passed
}

fn onbuild_runs_in_the_next_build(suite: &Suite) -> Outcome {
    let parent =
        context(suite, &[("Dockerfile", "FROM busybox\nONBUILD RUN echo triggered > /t\n")]);
    build(suite, Cli::Tug, "parent:1", &parent).ok();
    let child = context(suite, &[("Dockerfile", "FROM parent:1\nCMD cat /t\n")]);
    build(suite, Cli::Tug, "child:1", &child).ok();
    assert_eq!(suite.tug(["run", "--rm", "child:1"]).ok(), "triggered");
    Outcome::Passed
}

fn ten_thousand_files_are_copied(suite: &Suite) -> Outcome {
    let directory = context(
        suite,
        &[("Dockerfile", "FROM busybox\nCOPY files /files\nCMD find /files -type f | wc -l\n")],
    );
    shell(&format!(
        "cd {} && mkdir files && cd files && for d in $(seq 100); do mkdir $d; (cd $d && seq 100 | xargs touch); done",
        directory.display()
    ))
    .ok();
    build(suite, Cli::Docker, "files:1", &directory).ok();
    assert_eq!(suite.tug(["run", "--rm", "files:1"]).ok(), "10000");
    Outcome::Passed
}

/// Two equal steps make two equal layers, and images of old tools repeat the empty one.
fn the_same_layer_may_come_twice(suite: &Suite) -> Outcome {
    let text = "FROM busybox\nCOPY f /f\nRUN rm /f\nCOPY f /f\nRUN cat /f\n";
    let directory = context(suite, &[("Dockerfile", text), ("f", "twice")]);
    build(suite, Cli::Tug, "twice", &directory).ok();
    assert_eq!(suite.tug(["run", "--rm", "twice", "cat", "/f"]).ok(), "twice");
    Outcome::Passed
}

fn a_prune_of_the_cache_goes_by_its_filters(suite: &Suite) -> Outcome {
    let directory = context(
        suite,
        &[("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /when\n")],
    );
    for cli in BOTH {
        let made = |prune: &[&str]| {
            suite.run(cli, prune).ok();
            build(suite, cli, "pruned:1", &directory).ok();
            suite.run(cli, ["run", "--rm", "pruned:1", "cat", "/when"]).ok()
        };
        let first = made(&["version"]);
        // What cron jobs run, and what says which labels it spares.
        assert_eq!(made(&["system", "prune", "-f", "--filter", "until=1h"]), first);
        assert_eq!(made(&["system", "prune", "-f", "--filter", "label=none"]), first);
        assert_ne!(made(&["builder", "prune", "-f"]), first);
        suite.run(cli, ["rmi", "pruned:1"]).ok();
        suite.run(cli, ["image", "prune", "-f"]).ok();
    }
    Outcome::Passed
}
