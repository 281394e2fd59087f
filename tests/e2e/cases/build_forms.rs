//! Builds: the forms of a Dockerfile's instructions that are seen in no other case, each by its effect.

use std::fs;

use crate::harness::{BOTH, Cli, Outcome, Suite, context, shell};

super::cases! {
    arguments_of_the_platform_and_of_the_builder_have_their_values,
    copies_take_what_their_flags_say,
    words_are_quoted_and_escaped_as_in_docker,
    mounts_are_shared_as_they_say,
}

/// Builds `dockerfile` without keeping anything; what its steps said.
#[track_caller]
fn said(suite: &Suite, cli: Cli, directory: &std::path::Path, options: &[&str]) -> String {
    let mut args = vec!["build", "--no-cache"];
    if cli == Cli::Tug {
        args.extend(["--progress=plain", "-o", "type=cacheonly"]);
    }
    args.extend(options);
    args.push(directory.to_str().unwrap());
    let output = suite.run(cli, args);
    let text = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{text}");
    text
}

fn arguments_of_the_platform_and_of_the_builder_have_their_values(suite: &Suite) -> Outcome {
    let dockerfile = "ARG TARGETARCH\nFROM busybox AS last\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT\nARG BUILDPLATFORM BUILDOS BUILDARCH BUILDVARIANT TARGETSTAGE\nARG a=1 b=$a.2\n\
        RUN echo \"[$TARGETPLATFORM $TARGETOS $TARGETARCH $TARGETVARIANT|$BUILDPLATFORM $BUILDOS $BUILDARCH $BUILDVARIANT|$TARGETSTAGE|$a $b|$(hostname)|$no_proxy]\"\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let text = said(suite, Cli::Tug, &directory, &["--build-arg", "no_proxy=n"]);
    let machine = shell("uname -m").ok();
    let arch = if machine == "x86_64" { "amd64" } else { "arm64" };
    let platform = format!("linux/{arch} linux {arch} ");
    let want = format!("[{platform}|{platform}|default|1 1.2|buildkitsandbox|n]");
    assert!(text.contains(&want), "{want}: {text}");
    let options = [
        "--build-arg",
        "BUILDKIT_SANDBOX_HOSTNAME=own",
        "--target",
        "last",
        "--build-arg",
        "TARGETSTAGE=x",
    ];
    let text = said(suite, Cli::Tug, &directory, &options);
    assert!(text.contains("|x|1 1.2|own|]") && !text.contains("not consumed"), "{text}");
    let dated = [
        "build",
        "-q",
        "--build-arg",
        "SOURCE_DATE_EPOCH=1700000000",
        "-t",
        "dated:1",
        directory.to_str().unwrap(),
    ];
    suite.tug(dated).ok();
    assert_eq!(
        suite.tug(["inspect", "-f", "{{.Created}}", "dated:1"]).ok(),
        "2023-11-14T22:13:20Z"
    );
    suite.tug(["rmi", "dated:1"]).ok();
    let wrong = ["build", "--build-arg", "SOURCE_DATE_EPOCH=soon", directory.to_str().unwrap()];
    let error = suite.tug(wrong).fails(1);
    assert!(error.contains("invalid SOURCE_DATE_EPOCH: soon"), "{error}");
    Outcome::Passed
}

fn copies_take_what_their_flags_say(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox AS from\nRUN mkdir -p /o && echo triggered > /o/t\n\
        FROM busybox\n\
        COPY --parents ./tree/./a/b/f tree/a/g /parents/\n\
        COPY --exclude=*.md --exclude=a tree /excluded/\n\
        COPY --link --chmod=go= tree/a/g /linked\n\
        ADD --chown=7:8 --chmod=u=rwX,go=rX tree/a /owned/\n\
        ADD --unpack=false packed.tar /packed/\n\
        ADD packed.tar /unpacked/\n\
        COPY [\"with blank\", \"/json/with blank\"]\n\
        COPY odd[[]0].txt /odd/\n\
        COPY tree/*.m? /globbed/\n\
        COPY --from=from --chown=9 /o /from/\n\
        RUN cd / && find parents excluded linked owned packed unpacked json odd globbed from | sort > /seen; stat -c '%n %a %u:%g' linked owned/g owned/b from/t >> /seen; sed 's/^/@@/' /seen\n";
    let files = [
        ("Dockerfile", dockerfile),
        ("tree/a/b/f", "f"),
        ("tree/a/g", "g"),
        ("tree/x.md", ""),
        ("tree/y.mp", ""),
        ("with blank", ""),
        ("odd[0].txt", ""),
    ];
    let directory = context(suite, &files);
    shell(&format!(
        "cd {} && tar -cf packed.tar tree/y.mp && chmod 600 tree/a/g",
        directory.display()
    ))
    .ok();
    let want = "excluded excluded/y.mp from from/t globbed globbed/x.md globbed/y.mp json json/with_blank linked odd odd/odd[0].txt \
        owned owned/b owned/b/f owned/g packed packed/packed.tar parents parents/a parents/a/b parents/a/b/f parents/tree parents/tree/a parents/tree/a/g \
        unpacked unpacked/tree unpacked/tree/y.mp linked_600_0:0 owned/g_644_7:8 owned/b_755_7:8 from/t_644_9:9";
    for cli in BOTH {
        let text = said(suite, cli, &directory, &[]);
        let lines: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_once("@@")?.1.replace(' ', "_")))
            .filter(|line| !line.contains('\''))
            .collect();
        assert_eq!(lines.join(" "), want, "{cli:?}: {text}");
    }
    Outcome::Passed
}

fn words_are_quoted_and_escaped_as_in_docker(suite: &Suite) -> Outcome {
    let dockerfile = "#!/usr/bin/env -S docker build -f\n# escape=`\nFROM busybox\n\
        ENV A=\"x y\" B='$A' C=a\\b D=`$A\nLABEL l=\"$A\" `\n  # comment\n  m=${A:+set}\n\
        RUN echo \"= $A|$B|$C|$D|\" `\n  second\nENTRYPOINT [\"echo\", \"$A\"]\n";
    let directory = context(
        suite,
        &[
            ("Dockerfile", dockerfile),
            ("f.md", ""),
            ("Dockerfile.dockerignore", "*.md\n"),
            (".dockerignore", ""),
        ],
    );
    for cli in BOTH {
        let text = said(suite, cli, &directory, &[]);
        assert!(text.contains("= x y|$A|a\\b|$A| second"), "{text}");
    }
    let copied = "FROM busybox\nCOPY . /c\nRUN ls -A /c | sed 's/^/= /'\n";
    fs::write(directory.join("Dockerfile"), copied).unwrap();
    let text = said(suite, Cli::Tug, &directory, &[]);
    assert!(text.contains("= Dockerfile\n") && !text.contains("f.md"), "{text}");
    Outcome::Passed
}

fn mounts_are_shared_as_they_say(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nARG U=7 M=700\n\
        RUN --mount=type=cache,id=forms,target=/c,uid=$U,mode=0$M stat -c '= %a %u' /c && echo kept > /c/f\n\
        RUN --mount=type=cache,id=forms,target=/c,sharing=locked cat /c/f | sed 's/^/= /'\n\
        RUN --mount=type=cache,id=forms,target=/c,ro ! touch /c/g 2>/dev/null\n\
        RUN --mount=type=secret,source=none,target=/s test ! -e /s\n\
        RUN --network=none ip -o link | wc -l | sed 's/^/= links /'\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    suite.tug(["builder", "prune", "-af"]).ok();
    let text = said(suite, Cli::Tug, &directory, &[]);
    for words in ["= 700 7\n", "= kept\n", "= links 1\n"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Another name space of caches has another cache.
    let options = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other", "--build-arg", "U=8"];
    assert!(said(suite, Cli::Tug, &directory, &options).contains("= 700 8\n"));
    for (line, words) in [
        ("RUN --mount=target=/a,sharing=locked x", "invalid cache sharing set for bind mount"),
        ("RUN --mount=type=tmpfs,target=/a,mode=1 x", "mode not allowed for \"tmpfs\" type mounts"),
        ("RUN --device=x y", "unknown flag: --device"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("ADD --checksum=sha256:0 f /", "checksum can't be specified for non-HTTP(S) sources"),
        ("COPY <<E /x\nunended", "unterminated heredoc"),
        ("ENV ${A:x}=1", "unsupported modifier (:x) in substitution"),
        ("CMD --flag x", "unknown flag: --flag"),
    ] {
        fs::write(directory.join("Dockerfile"), format!("FROM busybox\n{line}\n")).unwrap();
        let error = suite.tug(["build", directory.to_str().unwrap()]).fails(1);
        assert!(error.contains("failed to solve: ") && error.contains(words), "{line}: {error}");
    }
    suite.tug(["builder", "prune", "-af"]).ok();
    Outcome::Passed
}
