//! Templates: both command lines show the same of every field of every type, and of every listing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::harness::{Cli, Outcome, Suite};

super::cases! {
    templates_show_every_field_as_dockers_client_does,
    templates_of_listings_are_the_same_in_both_command_lines,
    wrong_templates_are_told_in_the_same_words,
}

/// Without what no two processes share: addresses in memory.
fn plain(text: &str) -> String {
    let mut pieces = text.split("0xc");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str("0xADDRESS");
        out.push_str(piece.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

#[track_caller]
fn same(suite: &Suite, args: &[&str]) -> String {
    let mut tries = 0;
    loop {
        let [tug, docker] = [Cli::Tug, Cli::Docker].map(|cli| {
            let output = suite.run(cli, args);
            (output.code, plain(&output.stdout), plain(&output.stderr))
        });
        // A second may have passed between the two.
        tries += 1;
        if tug != docker && tries < 4 {
            continue;
        }
        assert_eq!(tug, docker, "{args:?}");
        return tug.1;
    }
}

/// The fields of each type: names of Go, whether embedded, and the written type.
type Types = BTreeMap<String, Vec<(String, bool, String)>>;

fn types() -> Types {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/cli/src/gotemplate/types.txt");
    let text = fs::read_to_string(path).unwrap();
    let mut found = Types::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => current = line.to_owned(),
            Some(line) => {
                let words: Vec<&str> = line.splitn(3, ' ').collect();
                let fields = found.entry(current.clone()).or_default();
                fields.push((words[0].to_owned(), words[1] == "&", words[2].to_owned()));
            }
        }
    }
    found
}

/// Every path of fields below a type that leads through no pointer.
fn paths(types: &Types, name: &str, before: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (field, is_embedded, written) in types.get(name).into_iter().flatten() {
        let path = format!("{before}.{field}");
        if *is_embedded {
            found.extend(paths(types, written.trim_start_matches('*'), before));
        } else if types.contains_key(written) {
            found.extend(paths(types, written, &path));
        }
        found.push(path);
    }
    found
}

fn templates_show_every_field_as_dockers_client_does(suite: &Suite) -> Outcome {
    let words = "run -d --name shown --label a=b --label c.d=e -p 127.0.0.1:0:80 -v kept:/data \
                 --tmpfs /t --ulimit nofile=100:200 --memory 64m --restart on-failure:3 -e X=1 \
                 busybox sleep 1000";
    suite.run(Cli::Tug, words.split_whitespace()).ok();
    suite.tug(["create", "--name", "bare", "busybox"]).ok();
    let types = types();
    // These tell the time, or count what asks.
    let moving = [".SystemTime", ".NFd", ".NGoroutines", ".NEventsListener"];
    let mut compared = 0;
    for (name, args, objects) in [
        ("container.InspectResponse", &["inspect"][..], &["shown", "bare"][..]),
        ("image.InspectResponse", &["image", "inspect"], &["busybox"]),
        ("network.Inspect", &["network", "inspect"], &["bridge"]),
        ("volume.Volume", &["volume", "inspect"], &["kept"]),
        ("system.Info", &["info"], &[]),
        ("types.Version", &["version"], &[]),
    ] {
        let before = if name == "types.Version" { ".Server" } else { "" };
        let paths = paths(&types, name, before);
        let paths: Vec<&String> =
            paths.iter().filter(|path| !moving.contains(&path.as_str())).collect();
        for some in paths.chunks(8) {
            let template: Vec<String> = some
                .iter()
                .map(|path| {
                    let more = match name {
                        // Docker's client writes a table's blanks for tabs here.
                        "types.Version" => String::new(),
                        _ => format!("|{{{{printf \"%v %+v %T\" {path} {path} {path}}}}}"),
                    };
                    format!("{path}={{{{{path}}}}}|{{{{json {path}}}}}{more}")
                })
                .collect();
            let template = template.join("\n");
            let args = [args, &["-f", &template], objects].concat();
            same(suite, &args);
            compared += some.len();
        }
    }
    assert!(compared > 150, "{compared}");
    for template in CONTAINER_TEMPLATES {
        same(suite, &["inspect", "-f", template, "shown", "bare"]);
    }
    for args in TEMPLATE_COMMANDS {
        same(suite, args);
    }
    Outcome::Passed
}

/// Templates of what inspect says of a container.
const CONTAINER_TEMPLATES: &[&str] = &[
    "{{.State}}",
    "{{.NetworkSettings.Ports}}",
    "{{.Mounts}}",
    "{{json .}}",
    "{{.HostConfig.Ulimits}}",
    "{{range $p, $b := .NetworkSettings.Ports}}{{$p}}:{{len $b}}{{range $b}} {{.HostIP}}{{end}}{{end}}",
    "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostIp}}",
    "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostIP}}",
    "{{index .NetworkSettings.Ports \"81/tcp\"}}|{{index .Config.Labels \"no\"}}",
    "{{.Config.Labels.a}} {{.Config.Labels.no}} {{index .Config.Labels \"c.d\"}}",
    "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{println}}{{end}}",
    "{{with .State.Health}}{{.Status}}{{else}}none{{end}}",
    "{{if .State.Running}}up{{else}}down{{end}} {{not .State.Paused}}",
    "{{slice .Id 0 12}} {{len .Id}} {{printf \"%.5s\" .Name}} {{.Name | printf \"%q\"}}",
    "{{range $i, $e := .Config.Env}}{{$i}}={{$e}};{{end}}",
    "{{join .Config.Cmd \" \"}} {{json .Config.Cmd}} {{json .Config.OnBuild}}",
    "{{eq .State.ExitCode 0}} {{lt .State.ExitCode 5}} {{and 1 0}} {{or \"\" \"x\"}}",
    "{{upper .Name}} {{title \"a b\"}} {{split \"a,b\" \",\"}} {{pad \"x\" 1 1}}|{{truncate \"hello\" 3}}",
    "{{html \"<a>\"}} {{js \"'\"}} {{urlquery \"a b&c\"}} {{print 1 2 \"x\" 3}}",
    "{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .Name}}{{block \"u\" .Id}}{{len .}}{{end}}",
    "{{- /* nothing */ -}} {{range .Config.Env}}{{break}}{{end}}x",
    "{{.HostConfig.NetworkMode}} {{.HostConfig.NetworkMode.IsBridge}} {{.HostConfig.RestartPolicy.Name}}",
    "{{.State.Health.Status}}",
    "{{.Nope}}",
    "{{.Config.Nope}} {{.Id}}",
    "{{.Id.Nope}}",
    "{{index .Mounts 5}}",
    "{{upper 5}}",
    "{{upper .State.Pid}}",
    "{{len .State.Pid}}",
    "{{lt .Id 5}}",
    "{{join .Name \",\"}}",
    "{{range .Id}}x{{end}}",
    "{{call .Id}}",
    "{{.Id 5}}",
    "a\nb {{.Nope}}",
];

/// Commands that take a template, beside what inspect says of a container.
const TEMPLATE_COMMANDS: &[&[&str]] = &[
    &["inspect", "--format", "json", "shown"],
    &["inspect", "-f", "{{.Id}}", "shown", "nobody", "bare"],
    &["inspect", "-f", "{{.Id}}", "nobody"],
    &["inspect", "--format", "json", "nobody"],
    &["inspect", "-f", "{{.Nope}}", "shown", "busybox"],
    &["inspect", "--size", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "bare"],
    &["image", "inspect", "-f", "{{json .Config}}|{{.Config.Volumes}}|{{.Metadata}}", "busybox"],
    &[
        "network",
        "inspect",
        "-f",
        "{{.IPAM.Config}} {{range .IPAM.Config}}{{.Subnet}}{{end}}",
        "bridge",
    ],
    &[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}}{{end}} {{.Containers}}",
        "bridge",
    ],
    &["volume", "inspect", "-f", "{{.Options}} {{json .Status}} {{.UsageData}}", "kept"],
    &["volume", "inspect", "-f", "{{.Nope}}", "kept"],
    &["info", "-f", "{{.RegistryConfig}}"],
    &["info", "-f", "{{json .RegistryConfig}}"],
    &["info", "-f", "{{.Nope}}"],
    &["info", "-f", "a{{.Swarm.LocalNodeState}}b{{.ID.X}}"],
    &["version", "-f", "{{.Server.Version}} {{.Nope}}"],
    &["version", "-f", "{{.Server.Components}}"],
    &[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        "type=volume",
        "--format",
        "{{.Type}} {{.Actor.Attributes.no}} {{.Time}} {{.}}",
    ],
    &["events", "--since", "1h", "--until", "0s", "-f", "type=volume", "--format", "{{json .}}"],
    &["events", "--since", "1h", "--until", "0s", "--format", "{{.Nope}}"],
    &["events", "--since", "1h", "--until", "0s", "--format", "{{.Type"],
];

fn templates_of_listings_are_the_same_in_both_command_lines(suite: &Suite) -> Outcome {
    let words = ["create", "--name", "listed", "--label", "tier=web", "-p", "80", "-v", "kept:/d"];
    suite
        .run(Cli::Tug, words.into_iter().chain(["busybox", "echo", "日本語 ü and more words"]))
        .ok();
    for (args, fields) in [
        (
            &["ps", "-a"][..],
            "ID Names Image Command RunningFor Status State Ports Labels Mounts Networks Size LocalVolumes Platform CreatedAt",
        ),
        (
            &["images"],
            "ID Repository Tag Digest CreatedSince CreatedAt Size VirtualSize SharedSize UniqueSize Containers",
        ),
        (&["network", "ls"], "ID Name Driver Scope IPv4 IPv6 Internal Labels CreatedAt"),
        (
            &["volume", "ls"],
            "Name Driver Scope Mountpoint Labels Links Size Status Group Availability",
        ),
        (&["system", "df"], "Type TotalCount Active Size Reclaimable"),
        (&["history", "busybox"], "ID CreatedSince CreatedAt CreatedBy Size Comment"),
        (&["context", "ls"], "Name Description DockerEndpoint Error Current"),
        (&["plugin", "ls"], "ID Name Description Enabled PluginReference"),
    ] {
        let all: Vec<String> = fields.split(' ').map(|name| format!("{{{{.{name}}}}}")).collect();
        let table = format!("table {}", all.join("\t"));
        let with = |format: &str| {
            same(suite, &[args, &["--format", format]].concat());
        };
        with(&all.join("|"));
        with(&table);
        with("json");
        with("{{json .}}");
        with("{{.Nope}}");
        with("{{.ID");
        with("{{nope .}}");
        with("table");
        with("plain\\ttext\\n{{len \"x\"}}");
        if args[0] != "history" && args[0] != "context" {
            with("raw");
        }
    }
    for args in [
        &["ps", "-a"][..],
        &["ps", "-a", "--no-trunc"],
        &["ps", "-aq"],
        &["ps", "-aq", "--format", "raw"],
        &["ps", "-as"],
        &["ps", "-a", "--format", "{{.Label \"tier\"}}|{{.Label \"no\"}}"],
        &[
            "ps",
            "-a",
            "--format",
            "table {{.Label \"a.tier-x\"}}\t{{upper .Names}}\t{{pad .State 1 2}}",
        ],
        &["system", "df", "-v"],
        &[
            "system",
            "df",
            "-v",
            "--format",
            "{{range .Images}}{{.Repository}} {{.Size}}{{end}}{{len .BuildCache}}",
        ],
        &["system", "df", "-v", "--format", "{{.Nope}}"],
    ] {
        same(suite, args);
    }
    Outcome::Passed
}

fn wrong_templates_are_told_in_the_same_words(suite: &Suite) -> Outcome {
    for template in [
        "{{",
        "{{}}",
        "{{.ID",
        "{{.X}",
        "{{foo}}",
        "{{foo .X}}",
        "{{end}}",
        "{{else}}",
        "{{if .X}}",
        "{{if}}",
        "{{range}}",
        "{{if .X}}{{else}}{{else}}{{end}}",
        "{{$x}}",
        "{{.X | 5}}",
        "{{5 .X}}",
        "{{\"a}}",
        "{{`a}}",
        "{{'a}}",
        "{{(.X}}",
        "{{.X)}}",
        "{{.X @}}",
        "{{break}}",
        "{{/* x }}",
        "{{/* x */ }}",
        "{{template}}",
        "{{template \"no\"}}",
        "{{define x}}{{end}}",
        "{{1.2.3}}",
        "{{.X.}}",
        "{{nil}}",
        "{{true.X}}",
        "{{$x, $y := .X}}",
        "{{range $a, $b, $c := .X}}{{end}}",
        "{{. .}}",
        "{{|}}",
        "{{.X:=5}}",
        "\n\n{{foo}}",
        "{{if .X}}{{else if .Y}}{{end}}{{end}}",
    ] {
        same(suite, &["inspect", "-f", template, "nobody"]);
    }
    Outcome::Passed
}
