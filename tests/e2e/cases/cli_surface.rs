//! The command line's surface: help, output that cannot be written, plugins, completion.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Cli, Outcome, Output, Suite, run, shell};

super::cases! {
    help_has_dockers_form_for_every_command,
    no_command_succeeds_whose_output_is_not_written,
    plugins_run_in_our_place_and_are_listed,
    shells_complete_commands_options_and_names,
    a_wrong_configuration_is_told_of_and_counts_as_empty,
    contexts_are_updated_and_travel_as_archives,
}

/// The commands below `words` (none: the program's own), by their lines in help.
pub fn commands(suite: &Suite, cli: Cli, words: &[&str]) -> Vec<String> {
    let help = suite.run(cli, words.iter().copied().chain(["--help"])).stdout;
    let mut found = Vec::new();
    let mut in_list = false;
    for line in help.lines() {
        match line.strip_suffix(':') {
            Some(heading) if !line.starts_with(' ') => in_list = heading.ends_with("Commands"),
            _ => {}
        }
        if let Some(name) = line.strip_prefix("  ").and_then(|rest| rest.split(' ').next())
            && in_list
            && !name.is_empty()
        {
            found.push(name.to_owned());
        }
    }
    found
}

/// Without what is Tug's own, which stands below headings of its own.
fn without_own(text: &str) -> String {
    let mut kept = Vec::new();
    let mut own = false;
    for line in text.lines() {
        if !line.is_empty() && !line.starts_with(' ') {
            own = line.starts_with("Tug's own");
        }
        if !own {
            kept.push(line);
        }
    }
    kept.join("\n").trim_end().to_owned()
}

/// What a help says without its sentences, which are Tug's own: usage, headings, names of commands,
/// and of each option its letter, name, type and default.
pub(super) fn shape(help: &str) -> Vec<String> {
    let mut shape: Vec<String> = Vec::new();
    let mut heading = "";
    // An option's lines, of which all but the first go on with its sentence.
    let mut option = String::new();
    for line in help.lines().chain([""]) {
        let words = line.trim();
        // A sentence that goes on stands far to the right, and may begin with a minus.
        if heading.ends_with("Options") && line.starts_with("       ") {
            option.extend([" ", words]);
            continue;
        }
        // Some sentences have such a bracket, too, with words in it.
        if let Some((_, default)) = option.rsplit_once("(default ")
            && (default.starts_with('"') || !default.contains(' '))
        {
            shape.push(format!("default {default}"));
        }
        option.clear();
        if line.starts_with("Usage:") {
            shape.push(line.to_owned());
        } else if let Some(name) = line.strip_suffix(':').filter(|name| {
            ["Options", "Commands", "Aliases"].iter().any(|known| name.ends_with(known))
        }) {
            heading = name;
            shape.push(line.to_owned());
        } else if heading.ends_with("Options") && words.starts_with('-') {
            shape.push(words.split("   ").next().unwrap_or_default().to_owned());
            words.clone_into(&mut option);
        } else if heading.ends_with("Commands") && line.starts_with("  ") {
            shape.push(words.split(' ').next().unwrap_or_default().to_owned());
        } else if heading == "Aliases" && !words.is_empty() {
            shape.push(words.to_owned());
        }
    }
    shape
}

fn help_has_dockers_form_for_every_command(suite: &Suite) -> Outcome {
    // Its options are BuildKit's besides, which Docker's client has from a plugin.
    let is_build = |words: &[&str]| words.last() == Some(&"build");
    // These say only why they do nothing, and have no options to tell of.
    let absent = ["plugin", "swarm", "trust"];
    let mut compared = 0;
    let mut compare = |words: &[&str]| {
        let args = || words.iter().copied().chain(["--help"]);
        let [tug, docker] = [Cli::Tug, Cli::Docker].map(|cli| suite.run(cli, args()));
        assert_eq!(tug.code, 0, "{words:?}");
        let own = shape(&without_own(&tug.stdout));
        assert_eq!(own, shape(&docker.stdout), "help of {words:?}");
        compared += 1;
    };
    compare(&[]);
    for name in commands(suite, Cli::Docker, &[]) {
        let below = commands(suite, Cli::Docker, &[&name]);
        if !is_build(&[&name]) {
            compare(&[&name]);
        }
        for below in below {
            let words = [name.as_str(), below.as_str()];
            if !is_build(&words) && !absent.contains(&name.as_str()) {
                compare(&words);
            }
        }
    }
    assert!(compared > 100, "{compared}");
    Outcome::Passed
}

/// A row for each command that prints: its words behind the name. `-` as the only word says that it
/// prints nothing, or nothing that could be had here.
const PRINTING: &[(&str, &[&str])] = &[
    ("attach", &["-"]),
    ("build", &["-q", "https://"]),
    ("builder", &["prune", "-f"]),
    ("buildx", &["version"]),
    ("commit", &["shown"]),
    ("container", &["ls"]),
    ("context", &["ls"]),
    ("cp", &["shown:/etc/passwd", "-"]),
    ("create", &["--name", "made", "busybox"]),
    ("daemon", &["-"]),
    ("diff", &["shown"]),
    ("events", &["--since", "1h", "--until", "0s"]),
    ("exec", &["shown", "echo", "x"]),
    ("export", &["shown"]),
    ("history", &["busybox"]),
    ("image", &["ls"]),
    ("images", &[]),
    ("import", &["/dev/null"]),
    ("info", &[]),
    ("inspect", &["shown"]),
    ("kill", &["-s", "CONT", "shown"]),
    ("load", &["-"]),
    ("login", &["-"]),
    ("logout", &[]),
    ("logs", &["shown"]),
    ("manifest", &["-"]),
    ("network", &["ls"]),
    ("pause", &["shown"]),
    ("plugin", &["ls"]),
    ("port", &["shown"]),
    ("ps", &[]),
    ("pull", &["-"]),
    ("push", &["-"]),
    ("registry", &["-"]),
    ("rename", &["-"]),
    ("restart", &["-t", "0", "shown"]),
    ("rm", &["made"]),
    ("rmi", &["busybox:other"]),
    ("run", &["--rm", "busybox", "echo", "x"]),
    ("save", &["busybox"]),
    ("search", &["-"]),
    ("start", &["shown"]),
    ("stats", &["--no-stream"]),
    ("stop", &["-t", "0", "shown"]),
    ("swarm", &["-"]),
    ("system", &["df"]),
    ("tag", &["-"]),
    ("top", &["shown"]),
    ("trust", &["-"]),
    ("unpause", &["shown"]),
    ("update", &["--cpus", "1", "shown"]),
    ("version", &[]),
    ("volume", &["create"]),
    ("wait", &["shown"]),
];

/// More that prints, by whole command lines.
const ALSO: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["help"],
    &["ps", "--help"],
    &["network", "--help"],
    &["ps", "--format", "json"],
    &["ps", "-q"],
    &["images", "--tree"],
    &["inspect", "-f", "{{.Id}}", "shown"],
    &["image", "inspect", "busybox"],
    &["network", "inspect", "bridge"],
    &["volume", "ls", "-q"],
    &["system", "df", "-v"],
    &["system", "info", "-f", "{{.ID}}"],
    &["version", "-f", "{{.Client.Version}}"],
    &["context", "inspect"],
    &["context", "show"],
    &["completion", "bash"],
    &["__complete", "ps", "-"],
    &["container", "prune", "-f"],
    &["image", "prune", "-f"],
];

/// Runs a command with standard output on a full disk.
fn on_full_disk(suite: &Suite, args: &[&str]) -> Output {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = suite
        .command(Cli::Tug)
        .args(args)
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    Output {
        code: child.status.code().unwrap_or(-1),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&child.stderr).into_owned(),
    }
}

fn no_command_succeeds_whose_output_is_not_written(suite: &Suite) -> Outcome {
    let words = "run -d --name shown -p 127.0.0.1:0:80 busybox sh -c";
    let words = words.split(' ').chain(["echo said; exec sleep 1000"]);
    suite.run(Cli::Tug, words).ok();
    suite.tug(["tag", "busybox", "busybox:other"]).ok();
    suite.tug(["exec", "shown", "touch", "/changed"]).ok();
    let known: Vec<String> = commands(suite, Cli::Tug, &[]);
    for name in &known {
        assert!(PRINTING.iter().any(|(row, _)| row == name), "no row for {name}");
    }
    let rows = PRINTING.iter().filter(|(_, args)| *args != ["-"]);
    let rows = rows.map(|(name, args)| [&[*name], *args].concat());
    // What ends the container comes last, and `wait` after it.
    let (mut early, late): (Vec<Vec<&str>>, Vec<Vec<&str>>) =
        rows.partition(|args| !matches!(args[0], "restart" | "start" | "stop" | "wait"));
    early.retain(|args| args[0] != "build");
    early.extend(ALSO.iter().map(|args| args.to_vec()));
    for args in early.into_iter().chain(late) {
        let output = on_full_disk(suite, &args);
        assert_ne!(output.code, 0, "{args:?} succeeded: {}", output.stderr);
        assert!(
            output.stderr.contains("write /dev/stdout: no space left on device"),
            "{args:?}: {}",
            output.stderr
        );
    }
    // A reader that leaves is no failure.
    let piped = format!(
        "DOCKER_HOST=unix://{} {} images | head -n 0; echo ${{PIPESTATUS[0]}}",
        suite.socket().display(),
        suite.own_docker().display()
    );
    let output = run(Command::new("bash").args(["-c", &piped]));
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("0\n", ""));
    Outcome::Passed
}

const PLUGIN: &str = r#"#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion":"0.1.0","Vendor":"Somebody","Version":"v1.2.3","ShortDescription":"Says hello"}'
    exit 0
fi
case "$*" in
    *slow*) trap 'echo stopped; exit 7' TERM; echo ready; while :; do sleep 0.01; done ;;
    *__complete*) printf 'world\n:4\n'; exit 0 ;;
esac
echo "args: $*"
echo "from: ${DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND##*/}"
read line && echo "read: $line"
exit 3
"#;

fn install_plugin(plugins: &Path, name: &str, text: &str) {
    let path = plugins.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What both command lines say with this configuration's plugins: status, output, errors.
fn both_with_plugins(
    suite: &Suite,
    config: &Path,
    args: &[&str],
    input: &str,
) -> [(i32, String, String); 2] {
    [Cli::Tug, Cli::Docker].map(|cli| {
        let mut line = suite.command(cli);
        let input = format!("printf '%s' '{input}' | \"$0\" \"$@\"");
        let program = line.get_program().to_owned();
        line.env("DOCKER_CONFIG", config).env_remove("DOCKER_BUILDKIT");
        let mut command = Command::new("sh");
        command.arg("-c").arg(input).arg(program).args(args);
        command.envs(line.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = run(&mut command);
        (output.code, output.stdout, output.stderr)
    })
}

fn plugins_run_in_our_place_and_are_listed(suite: &Suite) -> Outcome {
    let config = suite.scratch();
    let plugins = config.join("cli-plugins");
    fs::create_dir_all(&plugins).unwrap();
    install_plugin(&plugins, "docker-hello", PLUGIN);
    install_plugin(&plugins, "docker-ps", PLUGIN);
    install_plugin(
        &plugins,
        "docker-old",
        "#!/bin/sh\necho '{\"SchemaVersion\":\"0.0.1\",\"Vendor\":\"x\"}'\n",
    );
    install_plugin(&plugins, "docker-nobody", "#!/bin/sh\necho '{\"SchemaVersion\":\"0.1.0\"}'\n");
    install_plugin(&plugins, "docker-broken", "#!/bin/sh\nexit 3\n");
    let both = |args: &[&str], input: &str| both_with_plugins(suite, &config, args, input);
    for args in [
        &["hello"][..],
        &["-D", "--log-level", "debug", "hello", "--flag", "a b", "-x"],
        &["hello", "--help"],
        &["help", "hello"],
        &["old"],
        &["nobody", "x"],
        &["broken"],
        &["ps", "-q"],
        &["nosuch"],
    ] {
        let [tug, docker] = both(args, "line\n");
        assert_eq!(tug, docker, "{args:?}");
    }
    let [tug, docker] = both(
        &[
            "info",
            "-f",
            "{{range .ClientInfo.Plugins}}{{.Name}} {{.Version}} {{.Vendor}} {{with .Err}}{{.}}{{end}}\n{{end}}",
        ],
        "",
    );
    assert_eq!(tug, docker);
    let [tug, docker] = both(&["--help"], "");
    assert_eq!(shape(&without_own(&tug.1)), shape(&docker.1));
    assert!(tug.1.contains("  hello*      Says hello"), "{}", tug.1);
    let text = both(&["info"], "")[0].1.clone();
    let path = plugins.join("docker-hello");
    let told = format!(
        " Plugins:\n  hello: Says hello (Somebody)\n    Version:  v1.2.3\n    Path:     {}\n",
        path.display()
    );
    assert!(text.contains(&told), "{text}");
    let completed = both(&["__complete", "hello", "w"], "");
    assert_eq!(completed[0].1, "world\n:4\n");
    // Signals reach it, and its status is ours.
    let script = format!(
        "export DOCKER_HOST=unix:///nowhere; DOCKER_CONFIG={} {} hello slow > out & pid=$!; while ! grep -q ready out; do sleep 0.01; done; kill -TERM $pid; wait $pid; echo $?; cat out",
        config.display(),
        suite.own_docker().display()
    );
    let output = run(Command::new("bash").args(["-c", &script]).current_dir(&config));
    assert_eq!(output.stdout, "7\nready\nstopped\n", "{}", output.stderr);
    // Another directory, and the one name that may be given to a plugin.
    let more = suite.scratch();
    fs::rename(plugins.join("docker-hello"), more.join("docker-hello")).unwrap();
    let text = format!(
        "{{\"cliPluginsExtraDirs\":[{:?}],\"aliases\":{{\"builder\":\"hello\"}}}}",
        more.display().to_string()
    );
    fs::write(config.join("config.json"), text).unwrap();
    for args in [&["hello", "x"][..], &["builder", "x"], &["builder"]] {
        let [tug, docker] = both(args, "line\n");
        assert_eq!(tug, docker, "{args:?}");
    }
    Outcome::Passed
}

fn shells_complete_commands_options_and_names(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "spinning", "busybox", "sleep", "1000"]).ok();
    suite.tug(["create", "--name", "still", "busybox"]).ok();
    suite.tug(["network", "create", "net-one"]).ok();
    suite.tug(["volume", "create", "vol-one"]).ok();
    for (args, want) in [
        ("exec|", "spinning"),
        ("rm|st", "still"),
        ("start|", "still"),
        ("run|bus", "busybox:latest"),
        ("network|rm|net-", "net-one"),
        ("network|connect|net-one|sp", "spinning"),
        ("volume|rm|v", "vol-one"),
        ("run|--network|net-", "net-one"),
        ("run|--network=net-", "net-one"),
        ("run|--pull|n", "never"),
        ("container|sta", "start"),
        ("-D|ps|--no", "--no-trunc"),
        ("context|use|d", "default"),
    ] {
        let words: Vec<&str> = args.split('|').collect();
        for cli in [Cli::Tug, Cli::Docker] {
            let output = suite.run(cli, ["__completeNoDesc"].into_iter().chain(words.clone())).ok();
            assert!(output.lines().any(|line| line == want), "{cli:?} {args}: {output}");
            assert!(output.ends_with(":4"), "{cli:?} {args}: {output}");
        }
    }
    // Behind each candidate stands what it is for, in words of one's own.
    let [tug, docker] = [Cli::Tug, Cli::Docker].map(|cli| {
        let text = suite.run(cli, ["__complete", "ps", "-"]).ok();
        let names = text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
        names.collect::<Vec<_>>()
    });
    assert_eq!(tug, docker);
    // What a shell makes of it: the script is read, and its function called as by a key.
    let bin = suite.own_docker().parent().unwrap().display().to_string();
    let bash = r#"source <(docker completion bash)
ask() { COMP_LINE="$1" COMP_POINT=${#1}; COMPREPLY=(); __docker_complete; echo "${COMPREPLY[*]}"; }
ask 'docker rm st'; ask 'docker container unp'; ask 'docker ps --no-t'; ask 'docker rmi busybox:l'"#;
    let output = run(surrounded(suite.command(Cli::Tug), "bash", &bin).args(["-c", bash]));
    assert_eq!(output.stdout, "still\nunpause\n--no-trunc\nlatest\n", "{}", output.stderr);
    let fish = suite.scratch();
    let completions = fish.join("fish/completions");
    fs::create_dir_all(&completions).unwrap();
    fs::write(completions.join("docker.fish"), suite.tug(["completion", "fish"]).ok()).unwrap();
    let checks = [
        ("fish", "complete -C 'docker rm st' | string split -f1 \\t", "still\n"),
        (
            "zsh",
            "autoload -U compinit; compinit -u -D; source <(docker completion zsh); \
             (( $+functions[_docker] )) && print -r -- ${_comps[docker]}",
            "_docker\n",
        ),
    ];
    for (name, check, want) in checks {
        // A machine may be without them.
        if shell(&format!("command -v {name}")).code == 0 {
            let mut command = surrounded(suite.command(Cli::Tug), name, &bin);
            command.env("XDG_CONFIG_HOME", &fish).args(["-c", check]);
            let output = run(&mut command);
            assert_eq!(output.stdout, want, "{name}: {}", output.stderr);
        }
    }
    Outcome::Passed
}

/// The same surroundings for another program, with our `docker` first on the path.
fn surrounded(client: Command, program: &str, bin: &str) -> Command {
    let mut command = Command::new(program);
    command.envs(client.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{bin}:{path}"));
    command
}

fn a_wrong_configuration_is_told_of_and_counts_as_empty(suite: &Suite) -> Outcome {
    let config = suite.scratch();
    for text in ["{", "{\"a\":}", "[1]", "{\"auths\":[]}", "{\"psFormat\":1}", "{\"a\":1,}", "{}"] {
        fs::write(config.join("config.json"), text).unwrap();
        let [tug, docker] = [Cli::Tug, Cli::Docker].map(|cli| {
            let output = run(suite.command(cli).env("DOCKER_CONFIG", &config).args(["ps", "-q"]));
            (output.code, output.stdout, output.stderr)
        });
        assert_eq!(tug, docker, "{text}");
    }
    Outcome::Passed
}

fn contexts_are_updated_and_travel_as_archives(suite: &Suite) -> Outcome {
    let scratch = suite.scratch();
    fs::write(scratch.join("ca.pem"), "no real one").unwrap();
    let [tug, docker] = [Cli::Tug, Cli::Docker].map(|cli| {
        let place = scratch.join(format!("{cli:?}"));
        fs::create_dir_all(&place).unwrap();
        let line = |args: &str| {
            let mut command = suite.command(cli);
            command.env("DOCKER_CONFIG", place.join("config")).current_dir(&place);
            command.args(args.split(' ')).stdin(Stdio::null());
            let output = run(&mut command);
            let told = output.stdout + &output.stderr;
            (output.code, told.replace(&place.display().to_string(), "PLACE"))
        };
        [
            "context create --description=first --docker=host=tcp://h:1,skip-tls-verify=true one",
            "context create --from one --description other two",
            "context create --from one --docker host=tcp://h:1 three",
            "context create --docker hsot=x three",
            "context create --docker host=nonsense three",
            "context create --docker host=tcp://h:1,skip-tls-verify=maybe three",
            "context update --description changed --docker host=tcp://h:2 one",
            "context update nobody",
            "context inspect one two",
            "context inspect -f {{.Name}}:{{.Metadata.Description}} one two nobody",
            "context inspect --format {{.Endpoints.docker.Host}} one",
            "context export one",
            "context export one",
            "context export one other.tar",
            "context export nobody",
            "context import one other.tar",
            "context import moved other.tar",
            "context inspect moved",
            "context import third nowhere.tar",
            "context use two",
            "context ls",
            "context ls --format json",
            "context rm -f two",
            "--context gone context ls",
        ]
        .map(|args| (args, line(args)))
    });
    for (tug, docker) in tug.iter().zip(&docker) {
        assert_eq!(tug, docker);
    }
    // Each reads the other's archive.
    for (reader, writer) in [(Cli::Tug, Cli::Docker), (Cli::Docker, Cli::Tug)] {
        let mut command = suite.command(reader);
        command.env("DOCKER_CONFIG", scratch.join(format!("{reader:?}/config")));
        let archive = scratch.join(format!("{writer:?}/other.tar"));
        let output = run(command.args(["context", "import", "crossed"]).arg(archive));
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    Outcome::Passed
}
