//! Tests of the solver, on the dry worker.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use spec::image::{History, ImageConfig};
use spec::{DiffId, Digest, ImageId};

use crate::dry::Dry;
use crate::export::{Carrier, Export};
use crate::parse::parse;
use crate::progress::{Classic, Containers, Event, Piece, trace};
use crate::solve::{Broken, Cache, Dialect, Options, build};

fn options() -> Options {
    Options {
        arguments: BTreeMap::new(),
        labels: BTreeMap::new(),
        target: None,
        cache: Cache::Use,
        dialect: Dialect::Classic,
        cache_from: None,
        allowed: Vec::new(),
        secrets: BTreeSet::new(),
        agents: BTreeSet::new(),
        contexts: BTreeMap::new(),
        fresh_stages: Vec::new(),
        platform: None,
        names: vec!["docker.io/library/x:latest".into()],
        exports: vec![Export::Image],
    }
}

fn dry() -> Dry {
    let mut image =
        ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    image.config.cmd = Some(vec!["sh".into()]);
    image.created = Some("2020-01-01T00:00:00Z".into());
    image.rootfs.diff_ids = vec![DiffId(Digest::of(b"base"))];
    image.history = vec![History { created_by: Some("base".into()), ..History::default() }];
    let mut triggered = image.clone();
    triggered.config.on_build = vec!["COPY . /src".into(), "RUN make".into()];
    let files = [("app.py", "app"), ("a.txt", "a"), ("b.txt", "b"), ("d/e.txt", "e")];
    let mut dry = Dry::default();
    dry.context =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    dry.images = [("busybox".to_owned(), image), ("triggered".to_owned(), triggered)].into();
    dry.codes = [("/bin/sh -c false".to_owned(), 1)].into();
    dry
}

fn run(dry: &Dry, source: &str, options: &Options) -> Result<ImageId, Broken> {
    let made = build(dry, &parse(source.as_bytes()).unwrap(), options)?;
    Ok(made.unwrap_or(ImageId(Digest::of(b"no image"))))
}

/// Twelve hexadecimal digits become `<id>`, so that keys may change.
fn masked(text: &str) -> String {
    let is_hex = |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = |line: &str| {
        let words: Vec<&str> =
            line.split(' ').map(|word| if is_hex(word) { "<id>" } else { word }).collect();
        words.join(" ")
    };
    text.lines().map(|line| words(line) + "\n").collect()
}

fn classic(events: &[Event]) -> String {
    let classic = Classic { after_success: Containers::Removed, after_failure: Containers::Kept };
    let pieces = events.iter().flat_map(|event| classic.render(event));
    pieces
        .filter_map(|piece| match piece {
            Piece::Text(text) => Some(text),
            Piece::Image(_) => None,
        })
        .collect()
}

#[track_caller]
fn check_classic(dry: &Dry, source: &str, want: Expect) {
    let end = match run(dry, source, &options()) {
        Ok(_) => String::new(),
        Err(broken) => format!("{broken}\n"),
    };
    want.assert_eq(&masked(&format!("{}{end}", classic(&dry.take_events()))));
}

const SERVICE: &str =
    "FROM busybox\nENV A=1\nRUN pip install\nCOPY app.py /app/\nWORKDIR /app\nCMD [\"app.py\"]\n";

#[test]
fn the_classic_text_is_dockers() {
    let dry = dry();
    check_classic(
        &dry,
        SERVICE,
        expect![[r#"
        Step 1/6 : FROM busybox
         ---> <id>
        Step 2/6 : ENV A=1
         ---> Running in <id>
         ---> Removed intermediate container <id>
         ---> <id>
        Step 3/6 : RUN pip install
         ---> Running in <id>
        /bin/sh -c pip install
         ---> Removed intermediate container <id>
         ---> <id>
        Step 4/6 : COPY app.py /app/
         ---> <id>
        Step 5/6 : WORKDIR /app
         ---> Running in <id>
         ---> Removed intermediate container <id>
         ---> <id>
        Step 6/6 : CMD ["app.py"]
         ---> Running in <id>
         ---> Removed intermediate container <id>
         ---> <id>
        Successfully built <id>
    "#]],
    );
    check_classic(
        &dry,
        SERVICE,
        expect![[r#"
        Step 1/6 : FROM busybox
         ---> <id>
        Step 2/6 : ENV A=1
         ---> Using cache
         ---> <id>
        Step 3/6 : RUN pip install
         ---> Using cache
         ---> <id>
        Step 4/6 : COPY app.py /app/
         ---> Using cache
         ---> <id>
        Step 5/6 : WORKDIR /app
         ---> Using cache
         ---> <id>
        Step 6/6 : CMD ["app.py"]
         ---> Using cache
         ---> <id>
        Successfully built <id>
    "#]],
    );
}

#[test]
fn a_failing_command_is_named_with_its_code() {
    check_classic(
        &dry(),
        "FROM busybox\nRUN false\nRUN x\n",
        expect![[r#"
        Step 1/3 : FROM busybox
         ---> <id>
        Step 2/3 : RUN false
         ---> Running in <id>
        /bin/sh -c false
        The command '/bin/sh -c false' returned a non-zero code: 1
    "#]],
    );
}

#[test]
fn what_cannot_be_copied_is_said_in_dockers_words() {
    let check = |line: &str, want: &str| {
        let error = run(&dry(), &format!("FROM busybox\n{line}\n"), &options()).unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(error.span.map(|span| span.start), Some(2));
    };
    check(
        "COPY x /y",
        "COPY failed: file not found in build context or excluded by .dockerignore: stat x: file does not exist",
    );
    check("COPY ../x /y", "COPY failed: forbidden path outside the build context: ../x ()");
    check("COPY *.md /y", "COPY failed: no source files were specified");
    check(
        "COPY *.txt /y",
        "When using COPY with more than one source file, the destination must be a directory and end with a /",
    );
    check("COPY --from=nobody x /y", "invalid from flag value nobody: No such image: nobody");
    check("COPY --chmod=u+q a.txt /y", "invalid chmod: \"u+q\"");
}

#[test]
fn the_trace_shows_the_lines_of_buildkit() {
    let dry = dry();
    let source = "FROM busybox AS one\nRUN a\nFROM busybox\nLABEL x=y\nCOPY --from=one /a /b\n";
    run(&dry, source, &options()).unwrap();
    let lines: Vec<String> =
        dry.take_events().iter().filter_map(trace).map(|line| format!("{line:?}")).collect();
    let text = lines.join("\n");
    for name in [
        "[internal] load metadata for docker.io/library/busybox:latest",
        "[one 1/2] FROM docker.io/library/busybox:latest",
        "[one 2/2] RUN a",
        "[stage-1 2/2] COPY --from=one /a /b",
        "exporting to image",
        "naming to docker.io/library/x:latest",
    ] {
        assert!(text.contains(&format!("\"{name}\"")), "{name} is missing in\n{text}");
    }
    assert!(!text.contains("LABEL"));
}

#[test]
fn a_repeated_build_gives_the_same_image_and_runs_nothing() {
    let dry = dry();
    let first = run(&dry, SERVICE, &options()).unwrap();
    assert_eq!(dry.take_commands().len(), 1);
    assert_eq!(run(&dry, SERVICE, &options()).unwrap(), first);
    assert_eq!(dry.take_commands().len(), 0);
    let config = dry.config(&first).unwrap();
    let history: Vec<String> = config
        .history
        .iter()
        .map(|line| format!("{} {:?}\n", line.empty_layer, line.created_by))
        .collect();
    expect![[r#"
        false Some("base")
        true Some("/bin/sh -c #(nop)  ENV A=1")
        false Some("/bin/sh -c pip install")
        false Some("/bin/sh -c #(nop) COPY file:c753108b934d77634636350d7cb5063d429996d3e768340ef012430b009b1429 in /app/ ")
        false Some("/bin/sh -c #(nop) WORKDIR /app")
        true Some("/bin/sh -c #(nop)  CMD [\"app.py\"]")
    "#]]
    .assert_eq(&history.concat());
    assert_eq!(config.config.working_dir, "/app");
    assert_eq!(config.rootfs.diff_ids.len(), 4);
}

#[test]
fn only_what_a_step_sees_is_in_its_key() {
    let commands = |dry: &Dry, source: &str| {
        run(dry, source, &options()).unwrap();
        dry.take_commands().len()
    };
    let mut dry = dry();
    assert_eq!(commands(&dry, "FROM busybox\nLABEL a=1\nCOPY a.txt /\nRUN x\n"), 1);
    assert_eq!(
        commands(&dry, "FROM busybox\nLABEL a=2\nCOPY a.txt /\nRUN x\n"),
        0,
        "a label is not in the key"
    );
    assert_eq!(
        commands(&dry, "FROM busybox\nENV a=2\nCOPY a.txt /\nRUN x\n"),
        1,
        "the environment is"
    );
    assert_eq!(commands(&dry, "FROM busybox\nUSER u\nCOPY a.txt /\nRUN x\n"), 1, "the user is");
    dry.context.insert("c.txt".into(), b"new".to_vec());
    assert_eq!(commands(&dry, "FROM busybox\nCOPY a.txt /\nRUN x\n"), 0, "another file is not");
    dry.context.insert("a.txt".into(), b"new".to_vec());
    assert_eq!(commands(&dry, "FROM busybox\nCOPY a.txt /\nRUN x\n"), 1, "the content is");
    let fresh = Options { cache: Cache::Ignore, ..options() };
    run(&dry, "FROM busybox\nCOPY a.txt /\nRUN x\n", &fresh).unwrap();
    assert_eq!(dry.take_commands().len(), 1, "--no-cache runs again");
}

#[test]
fn arguments_have_their_scopes() {
    let dry = dry();
    let mut options = options();
    options.arguments = [("V", Some("2")), ("http_proxy", Some("p")), ("UNUSED", Some("u"))]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
        .collect();
    let source = "ARG BASE=busybox\nARG V=1\nFROM $BASE\nRUN none\nARG V\nARG W=${V}3\nRUN one\nENV V=env\nRUN two\nLABEL l=$V$W\n";
    let id = run(&dry, source, &options).unwrap();
    let config = dry.config(&id).unwrap();
    let created: Vec<&str> =
        config.history.iter().filter_map(|line| line.created_by.as_deref()).collect();
    assert!(created.contains(&"/bin/sh -c none"));
    assert!(created.contains(&"|2 V=2 W=23 /bin/sh -c one"));
    assert!(created.contains(&"|1 W=23 /bin/sh -c two"));
    assert_eq!(config.config.labels["l"], "env23");
    assert!(
        classic(&dry.take_events())
            .contains("[Warning] One or more build-args [UNUSED] were not consumed\n")
    );
}

#[test]
fn triggers_run_right_behind_from_and_are_not_inherited() {
    let dry = dry();
    let id = run(&dry, "FROM triggered\nRUN x\n", &options()).unwrap();
    assert_eq!(dry.take_commands(), ["/bin/sh -c make", "/bin/sh -c x"]);
    assert_eq!(dry.config(&id).unwrap().config.on_build, Vec::<String>::new());
    assert!(classic(&dry.take_events()).contains("# Executing 2 build triggers\n"));
}

#[test]
fn stages_that_nobody_needs_are_built_by_the_classic_builder_only() {
    let source = "FROM busybox AS a\nRUN a\nFROM busybox AS b\nRUN b\nFROM busybox AS unused\nRUN c\nFROM a\nCOPY --from=b /b /\n";
    let dry = dry();
    run(&dry, source, &options()).unwrap();
    assert_eq!(dry.take_commands(), ["a", "b", "c"].map(|word| format!("/bin/sh -c {word}")));
    let parallel = Options { dialect: Dialect::BuildKit, ..options() };
    let first = run(&dry, source, &parallel).unwrap();
    assert_eq!(run(&dry, source, &parallel).unwrap(), first);
    assert_eq!(dry.take_commands(), Vec::<String>::new(), "the dialects share the cache");
    let fresh = Options { cache: Cache::Ignore, ..parallel.clone() };
    run(&dry, source, &fresh).unwrap();
    let mut commands = dry.take_commands();
    commands.sort();
    assert_eq!(commands, ["a", "b"].map(|word| format!("/bin/sh -c {word}")), "c is not needed");
    let failing = source.replace("RUN b", "RUN false");
    let error = run(&dry, &failing, &parallel).unwrap_err();
    assert_eq!(error.to_string(), "The command '/bin/sh -c false' returned a non-zero code: 1");
}

#[test]
fn heredocs_become_scripts_and_files() {
    let dry = dry();
    run(&dry, "FROM busybox\nRUN <<E\necho a\nE\nRUN <<E\n#!/bin/awk\nx\nE\nRUN cat <<E\ny\nE\nCOPY <<E /z\nt\nE\n", &options())
        .unwrap();
    assert_eq!(
        dry.take_commands(),
        ["/bin/sh -c echo a\n", "/dev/pipes/E", "/bin/sh -c cat <<E\ny\nE"]
    );
}

#[test]
fn nothing_but_from_is_the_base_itself() {
    let dry = dry();
    let id = run(&dry, "FROM busybox\n", &options()).unwrap();
    assert_eq!(id, ImageId(Digest::of(b"busybox")));
    let labelled = Options { labels: [("a".to_owned(), "b".to_owned())].into(), ..options() };
    let id = run(&dry, "FROM busybox\n", &labelled).unwrap();
    assert_eq!(dry.config(&id).unwrap().config.labels["a"], "b");
    run(&dry, "FROM scratch\nCOPY a.txt /\n", &options()).unwrap();
}

#[test]
fn the_classic_builder_counts_global_arguments_and_labels() {
    let mut options = options();
    options.labels = [("b".to_owned(), "it's".to_owned())].into();
    let dry = dry();
    let id = run(&dry, "ARG B=busybox\nFROM $B\nRUN x\n", &options).unwrap();
    assert_eq!(dry.config(&id).unwrap().config.labels["b"], "it's");
    let text = classic(&dry.take_events());
    for line in ["Step 1/4 : ARG B=busybox\n", "Step 2/4 : FROM $B\n", "Step 4/4 : LABEL b=it's\n"]
    {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_source_of_cache_stands_in_for_what_its_history_tells() {
    let source = "FROM busybox\nENV A=1\nRUN x\nCOPY a.txt /\nRUN y\n";
    let built = dry();
    let id = run(&built, source, &options()).unwrap();
    // Another machine, that has the image but no cache.
    let elsewhere = dry();
    let cache_from = Some(vec![built.config(&id).unwrap()]);
    run(&elsewhere, &source.replace("RUN y", "RUN z"), &Options { cache_from, ..options() })
        .unwrap();
    assert_eq!(elsewhere.take_commands(), ["/bin/sh -c z"]);
    let mut changed = dry();
    changed.context.insert("a.txt".into(), b"new".to_vec());
    let cache_from = Some(vec![built.config(&id).unwrap()]);
    run(&changed, source, &Options { cache_from, ..options() }).unwrap();
    assert_eq!(changed.take_commands(), ["/bin/sh -c y"], "other content is another step");
}

#[test]
fn volumes_of_the_classic_builder_are_told_to_the_worker() {
    let text = "FROM busybox\nRUN x\nVOLUME /volumes/v\nRUN x\n";
    let dry = dry();
    run(&dry, text, &options()).unwrap();
    assert_eq!(dry.take_commands().len(), 2, "a volume is in the key");
}

#[test]
fn secrets_are_asked_for_by_name_and_missing_ones_may_be() {
    let dry = dry();
    let given = Options { secrets: ["s".to_owned()].into(), ..options() };
    run(&dry, "FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n", &given)
        .unwrap();
    run(&dry, "FROM busybox\nRUN --mount=type=secret,id=t cat /run/secrets/t\n", &given).unwrap();
    let source = "FROM busybox\nRUN --mount=type=secret,id=t,required x\n";
    assert_eq!(run(&dry, source, &given).unwrap_err().to_string(), "secret t: not found");
    let source = "FROM busybox\nRUN --mount=type=ssh,required x\n";
    assert_eq!(run(&dry, source, &given).unwrap_err().to_string(), "unset ssh forward key default");
}

#[test]
fn what_needs_leave_is_refused_without_it() {
    let dry = dry();
    let source = "FROM busybox\nRUN --security=insecure x\n";
    let error = run(&dry, source, &options()).unwrap_err();
    assert_eq!(error.to_string(), "security.insecure is not allowed");
    let allowed = vec![crate::solve::Entitlement::SecurityInsecure];
    run(&dry, source, &Options { allowed, ..options() }).unwrap();
}

#[test]
fn a_named_context_goes_before_a_stage_and_an_image() {
    let dry = dry();
    let contexts = [
        ("files".to_owned(), crate::solve::NamedContext::Files),
        ("nowhere".to_owned(), crate::solve::NamedContext::Image("busybox".to_owned())),
    ];
    let options = Options { contexts: contexts.into(), ..options() };
    run(&dry, "FROM nowhere\nCOPY --from=files a.txt /\nCOPY --from=nowhere /x /y\n", &options)
        .unwrap();
    assert!(run(&dry, "FROM files\nRUN x\n", &options).is_err());
}

#[test]
fn named_sources_of_cache_are_the_only_ones() {
    let dry = dry();
    let source = "FROM busybox\nRUN x\n";
    run(&dry, source, &options()).unwrap();
    assert_eq!(dry.take_commands().len(), 1);
    run(&dry, source, &Options { cache_from: Some(Vec::new()), ..options() }).unwrap();
    assert_eq!(dry.take_commands().len(), 1, "the named ones hold nothing");
    let cache_from = Some(Vec::new());
    let buildkit = Options { cache_from, dialect: Dialect::BuildKit, ..options() };
    run(&dry, source, &buildkit).unwrap();
    assert_eq!(dry.take_commands().len(), 0, "BuildKit takes its own results besides");
}

#[test]
fn a_base_of_two_stages_is_looked_up_and_shown_once() {
    let dry = dry();
    let source = "FROM busybox AS a\nRUN x\nFROM busybox\nCOPY --from=a /x /y\n";
    run(&dry, source, &Options { dialect: Dialect::BuildKit, ..options() }).unwrap();
    let lines: Vec<String> =
        dry.take_events().iter().filter_map(trace).map(|line| format!("{line:?}")).collect();
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("load metadata"), count("] FROM")), (1, 1), "{lines:?}");
}

#[test]
fn a_step_begins_when_the_stage_that_it_reads_from_is_done() {
    let dry = dry();
    let source = "FROM busybox AS a\nRUN x\nFROM busybox\nCOPY --from=a /x /y\nRUN --mount=from=a,target=/m y\n";
    run(&dry, source, &Options { dialect: Dialect::BuildKit, ..options() }).unwrap();
    let names: Vec<String> = dry
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::StepStarted { name: Some(name), .. } => Some(name),
            Event::StepDone { vertex, .. } => Some(format!("done {vertex}")),
            _ => None,
        })
        .collect();
    let place = |word: &str| names.iter().position(|name| name.contains(word)).unwrap();
    let ran = place("RUN x");
    assert!(names[ran + 1..place("COPY")].iter().any(|name| name.starts_with("done")), "{names:?}");
}

#[test]
fn a_heredoc_is_shown_with_its_first_line() {
    let dry = dry();
    let source =
        "FROM busybox\nRUN <<E\necho one\necho two\nE\nRUN <<E\necho three\nE\nRUN cat <<E\nx\nE\n";
    run(&dry, source, &options()).unwrap();
    let events = dry.take_events();
    let names: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::StepStarted { name: Some(name), .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        names[1..],
        ["[2/4] RUN <<E (echo one...)", "[3/4] RUN <<E (echo three)", "[4/4] RUN cat <<E"]
    );
}

#[test]
fn the_classic_builder_keeps_every_stage() {
    let dry = dry();
    let source = "FROM busybox AS a\nLABEL l=1\nFROM busybox AS b\nFROM scratch\nCOPY a.txt /\n";
    let last = run(&dry, source, &options()).unwrap();
    let classic = Classic { after_success: Containers::Removed, after_failure: Containers::Kept };
    let images: Vec<ImageId> = dry
        .take_events()
        .iter()
        .flat_map(|event| classic.render(event))
        .filter_map(|piece| match piece {
            Piece::Image(id) => Some(id),
            Piece::Text(_) => None,
        })
        .collect();
    assert_eq!(images[1..], [ImageId(Digest::of(b"busybox")), last]);
    assert_eq!(dry.config(&images[0]).unwrap().config.labels["l"], "1");
}

#[test]
fn an_empty_exec_form_runs_what_the_image_would() {
    let dry = dry();
    run(&dry, "FROM busybox\nRUN []\nENTRYPOINT [\"e\", \"f\"]\nRUN []\n", &options()).unwrap();
    assert_eq!(dry.take_commands(), ["sh", "e f"]);
    let buildkit = Options { dialect: Dialect::BuildKit, ..options() };
    let error = run(&dry, "FROM busybox\nRUN []\n", &buildkit).unwrap_err();
    assert_eq!(error.to_string(), "arguments are required");
}

#[test]
fn wrong_stages_and_volumes_are_refused_in_dockers_words() {
    for (lines, want) in [
        ("COPY --from=0 /x /y", "invalid from flag value 0: refers to current build stage"),
        ("COPY --from=1 /x /y", "invalid from flag value 1: index out of bounds"),
        ("COPY --from=-1 /x /y", "invalid from flag value -1: index out of bounds"),
        ("VOLUME /file", "mkdir /file: file exists"),
        ("VOLUME $none", "VOLUME specified can not be an empty string"),
        ("WORKDIR $none", "cannot normalize nothing"),
        ("FROM busybox AS a\nFROM busybox AS A", "a stage name already used"),
        ("ADD --checksum=sha256:0 a.txt /", "checksum can't be specified for non-HTTP(S) sources"),
        (
            "ADD --checksum=sha256:0 http://h/a http://h/b /",
            "checksum can't be specified for multiple sources",
        ),
        ("RUN --mount=type=cache,target=/c,uid=$none x", "invalid value  for uid"),
    ] {
        let error = run(&dry(), &format!("FROM busybox\n{lines}\n"), &options()).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn what_goes_to_the_client_leaves_no_image() {
    let dry = dry();
    let exports = vec![Export::Files(Carrier::Directory)];
    let source = "FROM scratch\nCOPY a.txt /\n";
    let made =
        build(&dry, &parse(source.as_bytes()).unwrap(), &Options { exports, ..options() }).unwrap();
    assert_eq!(made, None);
    let lines: Vec<String> =
        dry.take_events().iter().filter_map(trace).map(|line| format!("{line:?}")).collect();
    let text = lines.join("\n");
    assert!(text.contains("exporting to client directory") && text.contains("copying files"));
    assert!(!text.contains("writing image") && !text.contains("exporting layers"), "{text}");
}
