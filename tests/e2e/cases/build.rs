//! Builds: every instruction, the cache, the context, and the errors.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{BOTH, Cli, Outcome, Output, Suite, context, shell};

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
    the_classic_text_is_dockers,
    wrong_files_are_refused_in_dockers_words,
    volumes_of_the_classic_builder_drop_changes,
    an_image_without_its_cache_is_a_source_of_cache,
    options_reach_the_steps,
    the_cache_takes_room_and_gives_it_back,
    repositories_and_urls_are_contexts,
    a_cached_context_is_not_unpacked,
}

fn docker<const N: usize>(suite: &Suite, args: [&str; N]) -> Output {
    suite.run(Cli::Docker, args)
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
        let again = build(suite, cli, "service:1", &directory);
        let text = format!("{}{}", again.stdout, again.stderr);
        assert_eq!(again.code, 0, "{text}");
        assert!(text.contains("Using cache") || text.contains("CACHED"), "{text}");
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
        FROM busybox AS unused\nRUN echo nobody needs it\n\
        FROM scratch AS last\nCOPY --from=first /out /copied/\nCOPY --from=0 /out/a /numbered\nCOPY --from=redis:latest /etc/passwd /from-image\n\
        COPY --from=first /bin /bin\n";
    for cli in BOTH {
        let directory = context(suite, &[("Dockerfile", dockerfile)]);
        let built = build(suite, cli, "staged:1", &directory);
        assert_eq!(built.code, 0, "{}", built.stderr);
        // The classic builder builds all stages up to the target, BuildKit what the target needs.
        let ran = format!("{}{}", built.stdout, built.stderr).contains("nobody needs it");
        assert_eq!(ran, cli == Cli::Docker);
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
        let www = directory.join("served");
        let args = ["httpd", "-f", "-p", "127.0.0.1:8099", "-h", www.to_str().unwrap()];
        let server = serve("busybox", &args, 8099);
        fs::write(
            directory.join("Dockerfile"),
            "FROM busybox\nADD a.tgz /gz/\nADD b.txz /xz/\nCOPY a.tgz /kept/\nADD http://127.0.0.1:8099/plain /url/\nCMD cat /gz/x/file /xz/x/file /url/plain; ls /kept; stat -c %a /url/plain\n",
        )
        .unwrap();
        let built = build(suite, cli, "adding:1", &directory);
        drop(server);
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
        // What an image has too is no dangling result.
        assert_eq!(made(&["builder", "prune", "-f"]), first);
        assert_ne!(made(&["builder", "prune", "-af"]), first);
        suite.run(cli, ["rmi", "pruned:1"]).ok();
        suite.run(cli, ["image", "prune", "-f"]).ok();
    }
    Outcome::Passed
}

/// Ids become `<id>`, and what the client says of itself goes.
fn masked(text: &str) -> String {
    let is_hex = |word: &str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = |line: &str| {
        let words: Vec<&str> =
            line.split(' ').map(|word| if is_hex(word) { "<id>" } else { word }).collect();
        words.join(" ") + "\n"
    };
    text.lines().filter(|line| !line.starts_with("Sending")).map(words).collect()
}

/// The text is that of Docker's classic builder, compared with Debian's dockerd 20.10 and moby 28's
/// words where they differ.
fn the_classic_text_is_dockers(suite: &Suite) -> Outcome {
    let unique = suite.scratch();
    let parent = context(
        suite,
        &[("Dockerfile", "FROM busybox\nMAINTAINER me\nONBUILD ENV T=1\nONBUILD RUN echo $T\n")],
    );
    build(suite, Cli::Docker, "classic:parent", &parent).ok();
    let dockerfile = format!(
        "ARG BASE=classic:parent\nFROM $BASE\nARG A=1\nRUN echo out; echo err >&2; echo {}\nHEALTHCHECK CMD a\nHEALTHCHECK NONE\nENV B=\"b c\"\nCOPY f /f\nWORKDIR /w\nEXPOSE 80 53/udp\n",
        unique.display()
    );
    let directory = context(suite, &[("Dockerfile", &dockerfile), ("f", "1")]);
    let path = directory.to_str().unwrap();
    let first =
        docker(suite, ["build", "-t", "classic:1", "--label", "l=x", "--build-arg", "A=2", path])
            .ok();
    let run = format!("RUN echo out; echo err >&2; echo {}", unique.display());
    let made = " ---> Running in <id>\n ---> Removed intermediate container <id>\n ---> <id>\n";
    let want = format!(
        "\nStep 1/11 : ARG BASE=classic:parent\nStep 2/11 : FROM $BASE\n# Executing 2 build triggers\n\
         \x20---> Running in <id>\n ---> Removed intermediate container <id>\n\
         \x20---> Running in <id>\n1\n ---> Removed intermediate container <id>\n ---> <id>\n\
         Step 3/11 : ARG A=1\n{made}Step 4/11 : {run}\n ---> Running in <id>\n"
    );
    let text = masked(&first);
    let head = text.trim_start().to_owned();
    assert!(head.starts_with(want.trim_start()), "{text}\n{want}");
    for part in [
        "\x1b[91merr\n\x1b[0m",
        "Note: overriding previous HEALTHCHECK: [CMD-SHELL a]\n",
        "Step 8/11 : COPY f /f\n ---> <id>\n",
        &format!(
            "Step 11/11 : LABEL l=x\n{made}Successfully built <id>\nSuccessfully tagged classic:1\n"
        ),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let again =
        docker(suite, ["build", "-t", "classic:1", "--label", "l=x", "--build-arg", "A=2", path])
            .ok();
    assert_eq!(again.matches(" ---> Using cache\n").count(), 11, "{again}");
    let history =
        docker(suite, ["history", "--no-trunc", "--format", "{{.CreatedBy}}", "classic:1"]).ok();
    for line in [
        "/bin/sh -c #(nop)  LABEL l=x",
        "/bin/sh -c #(nop)  EXPOSE 53/udp 80",
        "/bin/sh -c #(nop) WORKDIR /w",
        "/bin/sh -c #(nop)  ENV B=b c",
        "/bin/sh -c #(nop)  ARG A=1",
        &format!("|1 A=2 /bin/sh -c {}", &run[4..]),
    ] {
        assert!(history.lines().any(|own| own == line), "{line}: {history}");
    }
    assert!(history.contains("/bin/sh -c #(nop) COPY file:"), "{history}");
    let fields = "{{.Author}}|{{.Comment}}|{{index .Config.Env 0}}";
    assert_eq!(
        docker(suite, ["inspect", "-f", fields, "classic:1"]).ok(),
        "||PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    docker(suite, ["rmi", "classic:1", "classic:parent"]).ok();
    Outcome::Passed
}

fn wrong_files_are_refused_in_dockers_words(suite: &Suite) -> Outcome {
    for (dockerfile, words) in [
        ("FROM busybox\nENV a\n", "failed to parse Dockerfile: ENV must have two arguments"),
        ("# only\n", "failed to parse Dockerfile: file with no instructions"),
        ("RUN x\n", "Error response from daemon: no build stage in current context"),
        ("FROM busybox\nFOO\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM busybox\nCOPY\n", "line 2: COPY requires at least two arguments"),
        ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
        ("FROM busybox\nCOPY --from=7 /a /b\n", "invalid from flag value 7: index out of bounds"),
        ("FROM busybox\nSTOPSIGNAL FOO\n", "invalid signal: FOO"),
        ("FROM $NONE\n", "base name ($NONE) should not be blank"),
        ("FROM busybox\nUSER nosuch\nRUN true\n", "\nunable to find user nosuch: no matching"),
    ] {
        let directory = context(suite, &[("Dockerfile", dockerfile)]);
        let error = build(suite, Cli::Docker, "wrong:1", &directory).fails(1);
        assert!(format!("\n{error}").contains(words), "{words}: {error}");
    }
    let directory = context(suite, &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let path = directory.to_str().unwrap();
    for (option, value, words) in [
        ("--target", "no", "failed to reach build target no in Dockerfile"),
        ("--isolation", "hyperv", "unsupported isolation: \"hyperv\""),
        ("--security-opt", "x=y", "does not support setting security options on build"),
        ("--squash", "", "\"--squash\" is only supported on a Docker daemon with experimental"),
    ] {
        let option = if value.is_empty() { option.to_owned() } else { format!("{option}={value}") };
        let error = docker(suite, ["build", &option, path]).fails(1);
        assert!(error.contains(words), "{words}: {error}");
    }
    Outcome::Passed
}

fn volumes_of_the_classic_builder_drop_changes(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN mkdir /v && echo image > /v/a && chown 5:6 /v\nVOLUME /v /new\n\
        RUN test $(stat -c %u:%g /v) = 5:6 && cat /v/a && echo changed > /v/b && echo x > /new/y\nCOPY Dockerfile /v/\nRUN ls /v /new\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let text = build(suite, Cli::Docker, "volumes:1", &directory).ok();
    assert!(text.contains("/new:\n\n/v:\nDockerfile\na\n"), "{text}");
    docker(suite, ["rmi", "volumes:1"]).ok();
    Outcome::Passed
}

fn an_image_without_its_cache_is_a_source_of_cache(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nENV A=1\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY f /\nRUN cat /proc/sys/kernel/random/uuid > /last\n";
    let directory = context(suite, &[("Dockerfile", dockerfile), ("f", "1")]);
    let path = directory.to_str().unwrap();
    build(suite, Cli::Docker, "source:1", &directory).ok();
    let stamps = |tag: &str| docker(suite, ["run", "--rm", tag, "cat", "/stamp", "/last"]).ok();
    let first = stamps("source:1");
    docker(suite, ["builder", "prune", "-af"]).ok();
    let with = ["build", "--cache-from", "nosuch:1,source:1", "-t", "source:2", path];
    let text = docker(suite, with).ok();
    assert_eq!(text.matches("Using cache").count(), 4, "{text}");
    assert_eq!(stamps("source:2"), first);
    docker(suite, ["builder", "prune", "-af"]).ok();
    fs::write(directory.join("f"), "2").unwrap();
    let text = docker(suite, with).ok();
    assert_eq!(text.matches("Using cache").count(), 2, "other content is another step: {text}");
    docker(suite, ["rmi", "source:1", "source:2"]).ok();
    Outcome::Passed
}

fn options_reach_the_steps(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN echo files $(ulimit -n) hosts $(grep -c example /etc/hosts) shm $(df /dev/shm | tail -n1 | awk '{print $2}') links $(ip -o link | wc -l) proxy $HTTP_PROXY\n";
    for cli in BOTH {
        let directory = context(suite, &[("Dockerfile", dockerfile)]);
        let iid = directory.join("iid");
        let output = suite.run(
            cli,
            [
                "build",
                "--no-cache",
                "--ulimit=nofile=123:456",
                "--add-host=example:192.0.2.1",
                "--shm-size=1m",
                "--network=none",
                "--memory=64m",
                "--build-arg=HTTP_PROXY=http://p",
                "--iidfile",
                iid.to_str().unwrap(),
                "-t",
                "options:1",
                directory.to_str().unwrap(),
            ],
        );
        let text = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, 0, "{text}");
        assert!(text.contains("files 123 hosts 1 shm 1024 links 1 proxy http://p"), "{text}");
        let id = suite.run(cli, ["inspect", "-f", "{{.Id}}", "options:1"]).ok();
        assert_eq!(fs::read_to_string(&iid).unwrap(), id);
        let history = suite.run(cli, ["history", "--no-trunc", "options:1"]).ok();
        assert!(!history.contains("http://p"), "{history}");
        suite.run(cli, ["rmi", "options:1"]).ok();
    }
    Outcome::Passed
}

fn the_cache_takes_room_and_gives_it_back(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,target=/cache dd if=/dev/urandom of=/cache/f bs=1k count=100\nRUN dd if=/dev/urandom of=/big bs=1k count=300\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let cached = |filter: &str| {
        let format = "{{range .BuildCache}}{{.CacheType}} {{.Size}} {{.Shared}}\n{{end}}";
        let text = docker(suite, ["system", "df", "-v", "--format", format]).ok();
        text.lines().filter(|line| line.contains(filter)).count()
    };
    docker(suite, ["builder", "prune", "-af"]).ok();
    build(suite, Cli::Docker, "room:1", &directory).ok();
    assert_eq!((cached("exec.cachemount 102"), cached("regular 307")), (1, 1));
    assert_eq!(cached("regular 307kB true"), 1);
    docker(suite, ["rmi", "room:1"]).ok();
    assert_eq!(cached("regular 307kB false"), 1);
    let enough = docker(suite, ["builder", "prune", "-f", "--keep-storage", "1gb"]).ok();
    assert!(enough.contains("Total reclaimed space: 0B"), "{enough}");
    // The cache mount was used first, so it goes first.
    let oldest = docker(suite, ["builder", "prune", "-f", "--keep-storage", "350kb"]).ok();
    assert!(oldest.contains("Total reclaimed space: 102.4kB"), "{oldest}");
    assert_eq!((cached("exec.cachemount"), cached("regular 307")), (0, 1));
    let wrong = docker(suite, ["builder", "prune", "-f", "--filter", "colour=red"]).fails(1);
    assert!(wrong.contains("invalid filter 'colour'"), "{wrong}");
    let rest = docker(suite, ["builder", "prune", "-af"]).ok();
    assert!(rest.contains("Total reclaimed space: 307.2kB"), "{rest}");
    assert_eq!(cached(""), 0);
    Outcome::Passed
}

/// A program that serves until the case is over.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(program: &str, args: &[&str], port: u16) -> Served {
    let served = Served(std::process::Command::new(program).args(args).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "{program} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    served
}

fn repositories_and_urls_are_contexts(suite: &Suite) -> Outcome {
    if shell("git --exec-path >/dev/null").code != 0 {
        return Outcome::Ignored("no git here".to_owned());
    }
    let top = suite.scratch();
    shell(&format!(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; \
         cd {} && mkdir -p work/sub www && cd work && \
         printf 'FROM busybox\nCOPY f /f\nRUN cat /f; test ! -e /.git\n' > Dockerfile && cp Dockerfile sub/ && \
         echo top > f && echo below > sub/f && git init -q -b master . && git add . && git commit -qm one && git tag v1 && \
         echo later > f && git commit -qam two && \
         git clone -q --bare . ../www/repo.git && git -C ../www/repo.git update-server-info && \
         tar -cf ../www/context.tar Dockerfile f && \
         printf 'FROM busybox\nADD http://127.0.0.1:8098/repo.git#v1:sub /got/\nRUN ls -A /got; cat /got/f\n' > ../www/plain",
        top.display()
    ))
    .ok();
    let www = top.join("www");
    let args = ["httpd", "-f", "-p", "127.0.0.1:8098", "-h", www.to_str().unwrap()];
    let _served = serve("busybox", &args, 8098);
    let base = "http://127.0.0.1:8098";
    for (context, said) in [
        (format!("{base}/repo.git"), "later"),
        (format!("{base}/repo.git#v1"), "top"),
        (format!("{base}/repo.git#master:sub"), "below"),
        (format!("{base}/context.tar"), "later"),
        (format!("{base}/plain"), "below"),
    ] {
        for cli in BOTH {
            let output = suite.run(cli, ["build", "--no-cache", "-t", "remote:1", &context]);
            let text = format!("{}{}", output.stdout, output.stderr);
            assert_eq!(output.code, 0, "{context}: {text}");
            let is_said = |line: &str| line.split(' ').next_back() == Some(said);
            assert!(text.lines().any(is_said), "{context}: {text}");
        }
    }
    let url = format!("{base}/repo.git#nosuch");
    let error = suite.tug(["build", &url]).fails(1);
    assert!(error.contains("error fetching: fatal:"), "{error}");
    for missing in [format!("{base}/nothing"), "http://127.0.0.1:1/x".to_owned()] {
        let error = suite.tug(["build", &missing]).fails(1);
        assert!(error.contains(&format!("error downloading remote context {missing}")), "{error}");
    }
    suite.tug(["rmi", "remote:1"]).ok();
    Outcome::Passed
}

/// What a cached build needs of a context are digests; an archive that is not plain is unpacked to be seen.
fn a_cached_context_is_not_unpacked(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nCOPY d /d\nRUN cat /d/f\n";
    let directory = context(suite, &[("Dockerfile", dockerfile), ("d/f", "x")]);
    let at = directory.display();
    shell(&format!("cd {at}/d && mkdir e && ln -s f l && ln f hard && chmod 700 e")).ok();
    build(suite, Cli::Docker, "lazy:1", &directory).ok();
    let id = |tag: &str| docker(suite, ["inspect", "-f", "{{.Id}}", tag]).ok();
    let first = id("lazy:1");
    // The same files, each twice: the digests agree.
    let archive = suite.scratch().join("twice.tar");
    shell(&format!("cd {at} && tar -cf {0} . && tar -rf {0} .", archive.display())).ok();
    let twice = fs::read(&archive).unwrap();
    suite.run_with_input(Cli::Docker, ["build", "-q", "-t", "lazy:2", "-"], &twice).ok();
    assert_eq!(id("lazy:2"), first);
    docker(suite, ["rmi", "lazy:1", "lazy:2"]).ok();
    Outcome::Passed
}
