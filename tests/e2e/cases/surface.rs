//! Docker's surface: what each field and parameter changes, many in one container.
//!
//! `tests/surface/*.tsv` names for every row of the surface the test that sees its effect; most of
//! those are here.

use std::time::Duration;

use serde_json::{Value, json};

use super::cases;
use crate::harness::{BOTH, Cli, Outcome, Suite, run, shell, wait_for};

cases![
    fields_of_a_container_are_kept_and_take_effect,
    limits_of_a_container_take_effect,
    what_run_cannot_give_is_refused_or_warned_of,
    throttles_of_devices_reach_the_kernel,
    endpoints_take_effect_field_by_field,
    mounts_take_effect_field_by_field,
    log_options_take_effect,
    wrong_log_options_are_refused,
    an_update_changes_what_it_was_asked_to,
    wishes_that_cannot_be_are_refused,
    lists_select_as_docker_does,
    parameters_of_requests_take_effect,
    flags_that_say_nothing_new_do_not_stop_the_daemon,
];

/// Makes and starts a container of the API's own form; gives what inspect says of it.
fn start(suite: &Suite, name: &str, body: &Value) -> Value {
    let path = format!("/containers/create?name={name}");
    let (status, answer) = suite.api("POST", &path, Some(&body.to_string()));
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = suite.api("POST", &format!("/containers/{name}/start"), None);
    assert_eq!(status, 204, "{answer}");
    inspect(suite, name)
}

fn inspect(suite: &Suite, name: &str) -> Value {
    let (status, answer) = suite.api("GET", &format!("/containers/{name}/json"), None);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).expect("inspect is JSON")
}

/// What a shell in the container prints.
fn inside(suite: &Suite, name: &str, script: &str) -> String {
    suite.tug(["exec", name, "sh", "-c", script]).ok()
}

/// That inspect shows all of what was asked for.
#[track_caller]
fn assert_shown(asked: &Value, shown: &Value) {
    for (field, value) in asked.as_object().expect("an object") {
        assert_eq!(&shown[field], value, "{field}");
    }
}

fn fields_of_a_container_are_kept_and_take_effect(suite: &Suite) -> Outcome {
    let config = json!({
        "Hostname": "named", "Domainname": "inner.test", "User": "1000:1001",
        "AttachStdin": false, "AttachStdout": false, "AttachStderr": true,
        "ExposedPorts": {"81/tcp": {}}, "Tty": false, "OpenStdin": true, "StdinOnce": false,
        "Env": ["A=1", "PATH=/bin"], "Cmd": ["100"], "Entrypoint": ["sleep"],
        "Healthcheck": {"Test": ["CMD-SHELL", "echo well; exit 0"], "Interval": 3_600_000_000_000_i64,
            "Timeout": 20_000_000_000_i64, "Retries": 4, "StartPeriod": 3_600_000_000_000_i64,
            "StartInterval": 100_000_000},
        "Image": "busybox", "Volumes": {"/fresh": {}}, "WorkingDir": "/work",
        "Labels": {"com.example.kind": "whole"}, "StopSignal": "SIGUSR1", "StopTimeout": 3,
        "Shell": ["/bin/ash", "-c"], "OnBuild": ["RUN true"],
    });
    let host = json!({
        "Binds": ["/usr:/host-usr:ro"], "ContainerIDFile": "/some/place",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "NetworkMode": "bridge", "PortBindings": {"82/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18082"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "VolumeDriver": "local",
        "ConsoleSize": [30, 90], "Annotations": {"com.example.note": "kept"},
        "CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["CAP_MKNOD"], "CgroupnsMode": "private",
        "Dns": ["192.0.2.53"], "DnsOptions": ["ndots:3"], "DnsSearch": ["search.test"],
        "ExtraHosts": ["other.test:192.0.2.7"], "GroupAdd": ["2002"], "IpcMode": "shareable",
        "OomScoreAdj": 123, "Privileged": false, "PublishAllPorts": true, "ReadonlyRootfs": true,
        "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/scratch": "size=1m,mode=700"},
        "ShmSize": 1_048_576, "Sysctls": {"net.ipv4.ip_default_ttl": "63"},
        "Runtime": "tug", "Isolation": "default", "Init": true,
        "MaskedPaths": ["/proc/uptime"], "ReadonlyPaths": ["/proc/sys"],
    });
    let mut body = config.clone();
    body["HostConfig"] = host.clone();
    let shown = start(suite, "whole", &body);
    let mut config = config;
    // What the wish implies is shown, too.
    config["ExposedPorts"]["82/tcp"] = json!({});
    assert_shown(&config, &shown["Config"]);
    assert_shown(&host, &shown["HostConfig"]);
    let ports = &shown["NetworkSettings"]["Ports"];
    assert_eq!(ports["82/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "18082"}]));
    assert!(ports["81/tcp"][0]["HostPort"].as_str().is_some_and(|port| port != "0"), "{ports}");

    for (script, want) in [
        ("hostname; cat /proc/sys/kernel/domainname", "named\ninner.test"),
        ("id -u; id -g; pwd; echo $A", "1000\n1001\n/work\n1"),
        ("grep ^Groups /proc/1/status | grep -c 2002", "1"),
        ("tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1", "/sbin/docker-init"),
        ("df -k /dev/shm /scratch | awk 'NR>1 {print $2}'", "1024\n1024"),
        ("stat -c %a /scratch", "700"),
        (
            "grep -E '^(nameserver|search|options)' /etc/resolv.conf",
            "nameserver 192.0.2.53\nsearch search.test\noptions ndots:3",
        ),
        ("grep other.test /etc/hosts", "192.0.2.7\tother.test"),
        ("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_default_ttl", "123\n63"),
        ("grep NoNewPrivs /proc/self/status | tr -d '\\t'", "NoNewPrivs:1"),
        ("touch /x 2>&1 | grep -o 'Read-only file system'", "Read-only file system"),
        ("grep -c ' /fresh \\| /host-usr ' /proc/self/mounts", "2"),
        ("grep ' /host-usr ' /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1", "ro"),
        (
            "cat /proc/uptime | wc -c; echo x 2>/dev/null > /proc/sys/kernel/hostname; echo $?",
            "0\n1",
        ),
        // Docker's default set with NET_ADMIN (bit 12) and without MKNOD (bit 27).
        ("awk '/CapBnd/ {print $2}' /proc/self/status | tail -c 9", "a00435fb"),
    ] {
        assert_eq!(inside(suite, "whole", script), want, "{script}");
    }
    wait_for("the first probe, by StartInterval", Duration::from_secs(20), || {
        inspect(suite, "whole")["State"]["Health"]["Status"] == "healthy"
    });
    suite.tug(["rm", "-fv", "whole"]).ok();
    Outcome::Passed
}

fn limits_of_a_container_take_effect(suite: &Suite) -> Outcome {
    let limits = json!({
        "CpuShares": 512, "Memory": 67_108_864, "CpuPeriod": 50_000, "CpuQuota": 25_000,
        "CpusetCpus": "0", "CpusetMems": "0", "MemoryReservation": 33_554_432,
        "MemorySwap": 134_217_728, "PidsLimit": 50, "KernelMemoryTCP": 4_194_304, "CgroupParent": suite.cgroup_parent(),
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["c 10:200 r"],
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "nofile", "Soft": 99, "Hard": 100}],
    });
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": limits});
    let shown = start(suite, "bounded", &body);
    assert_shown(&limits, &shown["HostConfig"]);
    let pid = shown["State"]["Pid"].to_string();
    let group = |controller: &str, file: &str| {
        // On version 2 there is one hierarchy and no such file.
        let line = format!(
            "p=$(grep ':{controller}:\\|:{controller},\\|,{controller}:\\|,{controller},' /proc/{pid}/cgroup | cut -d: -f3); cat /sys/fs/cgroup/{controller}$p/{file}"
        );
        shell(&line).stdout.trim().to_owned()
    };
    if std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        for (controller, file, want) in [
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_period_us", "50000"),
            ("cpu", "cpu.cfs_quota_us", "25000"),
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("cpuset", "cpuset.cpus", "0"),
            ("cpuset", "cpuset.mems", "0"),
            ("pids", "pids.max", "50"),
            ("memory", "memory.kmem.tcp.limit_in_bytes", "4194304"),
        ] {
            assert_eq!(group(controller, file), want, "{file}");
        }
        assert!(group("devices", "devices.list").contains("c 10:200 r"));
        let path = shell(&format!("grep pids /proc/{pid}/cgroup")).ok();
        assert!(path.contains(suite.cgroup_parent().as_str()), "{path}");
    }
    assert_eq!(inside(suite, "bounded", "ulimit -n; ulimit -Hn; ulimit -c"), "99\n100\n0");
    assert_eq!(inside(suite, "bounded", "test -c /dev/nothing && echo node"), "node");
    suite.tug(["rm", "-f", "bounded"]).ok();

    // What this kernel has not is dropped, with a warning, before its range is looked at.
    let body =
        json!({"Image": "busybox", "HostConfig": {"BlkioWeight": 5, "OomKillDisable": true}});
    let (status, answer) =
        suite.api("POST", "/containers/create?name=warned", Some(&body.to_string()));
    if std::path::Path::new("/sys/fs/cgroup/blkio/blkio.weight").exists() {
        assert_eq!(status, 400, "{answer}");
    } else if std::path::Path::new("/sys/fs/cgroup/blkio").exists() {
        assert_eq!(status, 201, "{answer}");
        assert!(answer.contains("Your kernel does not support Block I/O weight"), "{answer}");
        assert!(
            answer.contains("OOM killer is disabled for the container, but no memory"),
            "{answer}"
        );
        assert_eq!(inspect(suite, "warned")["HostConfig"]["BlkioWeight"], 0);
        suite.tug(["rm", "warned"]).ok();
    }
    Outcome::Passed
}

fn what_run_cannot_give_is_refused_or_warned_of(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let few =
            suite.run(cli, ["run", "--rm", "--cpu-shares", "1", "busybox", "true"]).fails(125);
        assert!(few.contains("the minimum allowed cpu-shares is 2"), "{few}");
        let many = suite
            .run(cli, ["run", "--rm", "--cpu-shares", "99999999", "busybox", "true"])
            .fails(125);
        assert!(many.contains("the maximum allowed cpu-shares is 262144"), "{many}");
        let none =
            suite.run(cli, ["run", "--rm", "--device", "/etc", "busybox", "true"]).fails(125);
        assert!(none.contains("custom device \"/etc\": not a device node"), "{none}");
        let host =
            suite.run(cli, ["run", "--rm", "--net", "host", "-p", "81:81", "busybox", "true"]);
        assert!(host.stderr.contains("Published ports are discarded"), "{host:?}");
    }
    Outcome::Passed
}

fn throttles_of_devices_reach_the_kernel(suite: &Suite) -> Outcome {
    let device =
        shell("for d in /sys/block/*; do n=/dev/${d##*/}; test -b $n && echo $n && break; done");
    let device = device.stdout.trim().to_owned();
    if device.is_empty() || !std::path::Path::new("/sys/fs/cgroup/blkio").exists() {
        return Outcome::Ignored(
            "no block device, or version 2 without an io controller".to_owned(),
        );
    }
    let throttle = |rate: u64| json!([{"Path": device, "Rate": rate}]);
    let limits = json!({
        "BlkioDeviceReadBps": throttle(1_048_576), "BlkioDeviceWriteBps": throttle(2_097_152),
        "BlkioDeviceReadIOps": throttle(300), "BlkioDeviceWriteIOps": throttle(400),
    });
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": limits});
    let shown = start(suite, "slow", &body);
    assert_shown(&limits, &shown["HostConfig"]);
    let pid = shown["State"]["Pid"].to_string();
    let read = |file: &str| {
        let line = format!(
            "cat /sys/fs/cgroup/blkio$(grep :blkio: /proc/{pid}/cgroup | cut -d: -f3)/blkio.throttle.{file}"
        );
        shell(&line).stdout.trim().rsplit(' ').next().unwrap_or_default().to_owned()
    };
    for (file, want) in [
        ("read_bps_device", "1048576"),
        ("write_bps_device", "2097152"),
        ("read_iops_device", "300"),
        ("write_iops_device", "400"),
    ] {
        assert_eq!(read(file), want, "{file}");
    }
    suite.tug(["rm", "-f", "slow"]).ok();
    let weights = json!({"Image": "busybox", "HostConfig": {"BlkioWeightDevice": [{"Path": device, "Weight": 50}]}});
    let (status, answer) =
        suite.api("POST", "/containers/create?name=weighed", Some(&weights.to_string()));
    assert_eq!(status, 201, "{answer}");
    if !std::path::Path::new("/sys/fs/cgroup/blkio/blkio.weight_device").exists() {
        assert!(answer.contains("does not support Block I/O weight_device"), "{answer}");
    }
    suite.tug(["rm", "weighed"]).ok();
    Outcome::Passed
}

fn endpoints_take_effect_field_by_field(suite: &Suite) -> Outcome {
    let subnets = ["--subnet", "10.203.77.0/24", "--ipv6", "--subnet", "fd77:77::/64"];
    let mut create = vec!["network", "create"];
    create.extend(subnets);
    create.push("near");
    suite.run(Cli::Tug, create).ok();
    suite.tug(["network", "create", "far"]).ok();
    suite.tug(["run", "-d", "--name", "peer", "--network", "near", "busybox", "sleep", "100"]).ok();
    let near = json!({
        "IPAMConfig": {"IPv4Address": "10.203.77.9", "IPv6Address": "fd77:77::9", "LinkLocalIPs": ["169.254.9.9"]},
        "Links": ["peer:called"], "Aliases": ["nick"], "MacAddress": "02:00:00:00:00:77",
        "DriverOpts": {
            "com.docker.network.endpoint.ifname": "inner0",
            "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1",
        },
        "GwPriority": 5,
    });
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {"NetworkMode": "far"},
        "NetworkingConfig": {"EndpointsConfig": {"near": near, "far": {}}}});
    let shown = start(suite, "member", &body);
    let endpoint = &shown["NetworkSettings"]["Networks"]["near"];
    for field in ["IPAMConfig", "Links", "MacAddress", "DriverOpts", "GwPriority"] {
        assert_eq!(endpoint[field], near[field], "{field}");
    }
    for (field, want) in [
        ("IPAddress", json!("10.203.77.9")),
        ("IPPrefixLen", json!(24)),
        ("Gateway", json!("10.203.77.1")),
        ("GlobalIPv6Address", json!("fd77:77::9")),
        ("GlobalIPv6PrefixLen", json!(64)),
        ("IPv6Gateway", json!("fd77:77::1")),
    ] {
        assert_eq!(endpoint[field], want, "{field}");
    }
    let id = suite.tug(["network", "inspect", "-f", "{{.Id}}", "near"]).ok();
    assert_eq!(endpoint["NetworkID"], id.as_str());
    assert_eq!(endpoint["EndpointID"].as_str().map(str::len), Some(64));
    let names = endpoint["DNSNames"].to_string();
    assert!(names.contains("member") && names.contains("nick"), "{names}");
    for (script, want) in [
        ("cat /sys/class/net/inner0/address", "02:00:00:00:00:77"),
        ("ip -4 -o addr show inner0 | awk '{print $4}' | sort", "10.203.77.9/24\n169.254.9.9/16"),
        ("ip route | grep -c 'default via 10.203.77.1'", "1"),
        ("cat /proc/sys/net/ipv4/conf/inner0/log_martians", "1"),
        ("ping -c1 -W5 called > /dev/null && echo linked", "linked"),
    ] {
        assert_eq!(inside(suite, "member", script), want, "{script}");
    }
    suite.tug(["exec", "peer", "ping", "-c1", "-W5", "nick"]).ok();
    suite.tug(["rm", "-f", "member", "peer"]).ok();

    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100"], "NetworkDisabled": true});
    start(suite, "alone", &body);
    assert_eq!(inside(suite, "alone", "ls /sys/class/net"), "lo");
    suite.tug(["rm", "-f", "alone"]).ok();
    let body =
        json!({"Image": "busybox", "Cmd": ["sleep", "100"], "MacAddress": "02:00:00:00:00:78"});
    let shown = start(suite, "old", &body);
    assert_eq!(shown["Config"]["MacAddress"], "02:00:00:00:00:78");
    assert_eq!(inside(suite, "old", "cat /sys/class/net/eth0/address"), "02:00:00:00:00:78");
    suite.tug(["rm", "-f", "old"]).ok();
    suite.tug(["network", "rm", "near", "far"]).ok();
    Outcome::Passed
}

fn mounts_take_effect_field_by_field(suite: &Suite) -> Outcome {
    let place = suite.scratch();
    shell(&format!("mkdir -p {0}/tree/sub {0}/deep/below", place.display())).ok();
    let source = |name: &str| place.join(name).to_str().expect("plain").to_owned();
    let mounts = json!([
        {"Type": "bind", "Source": source("tree"), "Target": "/forced", "ReadOnly": true,
         "BindOptions": {"ReadOnlyForceRecursive": true, "Propagation": "rprivate"}},
        {"Type": "bind", "Source": source("tree"), "Target": "/alone", "Consistency": "cached",
         "BindOptions": {"NonRecursive": true}},
        {"Type": "bind", "Source": source("tree"), "Target": "/shallow", "ReadOnly": true,
         "BindOptions": {"ReadOnlyNonRecursive": true}},
        {"Type": "bind", "Source": source("made"), "Target": "/made",
         "BindOptions": {"CreateMountpoint": true}},
        {"Type": "volume", "Source": "typed", "Target": "/typed",
         "VolumeOptions": {"NoCopy": true, "Labels": {"k": "v"},
             "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}}}},
        {"Type": "tmpfs", "Target": "/quick",
         "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 448, "Options": [["exec"]]}},
        {"Type": "image", "Source": "busybox", "Target": "/image", "ImageOptions": {"Subpath": "etc"}},
    ]);
    let body =
        json!({"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {"Mounts": mounts}});
    let shown = start(suite, "mounted", &body);
    let kept = shown["HostConfig"]["Mounts"].as_array().expect("a list");
    for (asked, kept) in mounts.as_array().expect("a list").iter().zip(kept) {
        assert_shown(asked, kept);
    }
    let points = shown["Mounts"].as_array().expect("a list");
    let point = |target: &str| {
        points.iter().find(|point| point["Destination"] == target).expect("it is shown")
    };
    assert_eq!(
        (&point("/forced")["RW"], &point("/forced")["Propagation"]),
        (&json!(false), &json!("rprivate"))
    );
    assert_eq!(point("/typed")["Name"], "typed");
    for (script, want) in [
        ("touch /forced/x 2>&1 | grep -c Read-only", "1"),
        ("touch /shallow/x 2>&1 | grep -c Read-only", "1"),
        ("touch /alone/x && ls /alone", "sub\nx"),
        ("test -d /made && echo there", "there"),
        ("df -k /quick /typed | awk 'NR>1 {print $2}'; stat -c %a /quick", "1024\n2048\n700"),
        ("printf '#!/bin/sh\necho runs\n' > /quick/x && chmod +x /quick/x && /quick/x", "runs"),
        ("grep -c root /image/passwd", "1"),
    ] {
        assert_eq!(inside(suite, "mounted", script), want, "{script}");
    }
    let (_, volume) = suite.api("GET", "/volumes/typed", None);
    assert!(volume.contains(r#""Labels":{"k":"v"}"#) && volume.contains("size=2m"), "{volume}");
    assert!(place.join("made").is_dir());

    // Volumes of another container, one of them read-only, and a place below a volume.
    suite.tug(["volume", "create", "plain"]).ok();
    suite.tug(["run", "--rm", "-v", "plain:/p", "busybox", "mkdir", "/p/part"]).ok();
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {
        "VolumesFrom": ["mounted:ro"],
        "Mounts": [{"Type": "volume", "Source": "plain", "Target": "/part", "VolumeOptions": {"Subpath": "part"}}],
    }});
    start(suite, "heir", &body);
    assert_eq!(inside(suite, "heir", "touch /typed/x 2>&1 | grep -c Read-only"), "1");
    assert_eq!(inside(suite, "heir", "touch /part/here && echo made"), "made");
    suite.tug(["rm", "-fv", "heir", "mounted"]).ok();
    suite.tug(["volume", "rm", "plain", "typed"]).ok();
    Outcome::Passed
}

fn log_options_take_effect(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let run = |args: &[&str]| suite.run(cli, args);
        // Some 60 kB in files of 20 kB, of which two are kept.
        let chatter = "i=0; while [ $i -lt 600 ]; do printf '%0100d\\n' $i; i=$((i+1)); done";
        for (driver, more) in [("local", &[][..]), ("json-file", &["--log-opt", "compress=true"])] {
            let mut args = vec!["run", "--name", "kept", "--log-driver", driver];
            args.extend(["--log-opt", "max-size=20k", "--log-opt", "max-file=2"]);
            args.extend(more);
            args.extend(["busybox", "sh", "-c", chatter]);
            run(&args).ok();
            let logs = run(&["logs", "kept"]).ok();
            let numbers: Vec<u32> =
                logs.lines().map(|line| line.parse().expect("a number")).collect();
            assert_eq!(numbers.last(), Some(&599), "{driver}");
            assert!(numbers.len() > 50 && numbers.len() < 590, "{driver}: {}", numbers.len());
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{driver}");
            assert_eq!(run(&["logs", "-n", "2", "kept"]).ok().lines().count(), 2);
            run(&["rm", "kept"]).ok();
        }
        let short = run(&["run", "--rm", "--log-driver", "local", "busybox", "echo", "hi"]);
        assert_eq!(short.ok(), "hi");

        let tag = "tag={{.Name}}/{{.ImageName}}/{{upper (index .ContainerLabels \"com.x\")}}";
        run(&[
            "run",
            "--name",
            "told",
            "--label",
            "com.x=y",
            "--label",
            "a=b",
            "-e",
            "OS=linux",
            "--log-opt",
            "labels=a",
            "--log-opt",
            "labels-regex=^com",
            "--log-opt",
            "env=OS",
            "--log-opt",
            "env-regex=^NO",
            "--log-opt",
            tag,
            "--log-opt",
            "mode=non-blocking",
            "--log-opt",
            "max-buffer-size=64k",
            "busybox",
            "echo",
            "hello",
        ])
        .ok();
        let details = run(&["logs", "--details", "told"]).ok();
        for part in ["OS=linux", "a=b", "com.x=y", "tag=told%2Fbusybox%2FY", "hello"] {
            assert!(details.contains(part), "{part}: {details}");
        }
        run(&["rm", "told"]).ok();
    }
    Outcome::Passed
}

fn wrong_log_options_are_refused(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let run = |args: &[&str]| suite.run(cli, args);
        for (options, words) in [
            (
                &["--log-driver", "nosuch"][..],
                "error looking up logging plugin nosuch: plugin \"nosuch\" not found",
            ),
            (&["--log-opt", "nope=1"], "unknown log opt 'nope' for json-file log driver"),
            (&["--log-opt", "mode=x"], "logger: logging mode not supported: x"),
            (
                &["--log-opt", "max-buffer-size=1m"],
                "max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            (
                &["--log-driver", "local", "--log-opt", "labels=a"],
                "unknown log opt 'labels' for log driver local",
            ),
            (
                &["--log-opt", "max-file=0"],
                "failed to initialize logging driver: max-file cannot be less than 1",
            ),
            (&["--log-opt", "tag={{.Nope}}"], "can't evaluate field Nope in type *logger.Info"),
        ] {
            let mut args = vec!["run", "--name", "bad"];
            args.extend(options);
            args.extend(["busybox", "true"]);
            let refused = run(&args).fails(125);
            assert!(refused.contains(words), "{options:?}: {refused}");
            // What fails at start leaves its container.
            let _left = run(&["rm", "-f", "bad"]);
        }
    }
    Outcome::Passed
}

fn an_update_changes_what_it_was_asked_to(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let run = |args: &[&str]| suite.run(cli, args);
        run(&[
            "run", "-d", "--name", "box", "-m", "300m", "--cpus", ".5", "busybox", "sleep", "100",
        ])
        .ok();
        let limits = || {
            let form = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}} {{json .HostConfig.PidsLimit}}";
            run(&["inspect", "-f", form, "box"]).ok()
        };
        let before = limits();
        assert_eq!(before, "314572800 629145600 500000000 0 null");
        for (args, words) in [
            (
                &["--memory", "800m"][..],
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ),
            (
                &["--cpu-quota", "80000"],
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
            ),
            (
                &["--cpu-period", "80000"],
                "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
            ),
            (&["--memory", "4m"], "Minimum memory limit allowed is 6MB"),
            (&["--cpu-shares", "1"], "the minimum allowed cpu-shares is 2"),
            (&["--cpuset-cpus", "8000"], "Requested CPUs are not available"),
        ] {
            let mut update = vec!["update"];
            update.extend(args);
            update.push("box");
            let refused = run(&update).fails(1);
            assert!(refused.contains(words), "{args:?}: {refused}");
            assert_eq!(limits(), before, "{args:?}");
        }
        run(&["update", "--memory", "200m", "--pids-limit", "77", "--restart", "always", "box"])
            .ok();
        assert_eq!(limits(), "209715200 629145600 500000000 0 77");
        let pids = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null";
        assert_eq!(run(&["exec", "box", "sh", "-c", pids]).stdout.trim(), "77");
        run(&["update", "--pids-limit", "-1", "box"]).ok();
        assert_eq!(run(&["exec", "box", "sh", "-c", pids]).stdout.trim(), "max");
        let policy = "{{.HostConfig.RestartPolicy.Name}}";
        assert_eq!(run(&["inspect", "-f", policy, "box"]).ok(), "always");
        run(&["rm", "-f", "box"]).ok();
    }
    suite.tug(["run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "100"]).ok();
    let body = r#"{"RestartPolicy":{"Name":"always"}}"#;
    let (status, answer) = suite.api("POST", "/containers/passing/update", Some(body));
    assert_eq!(status, 409, "{answer}");
    let words = "Restart policy cannot be updated because AutoRemove is enabled for the container";
    assert!(answer.contains(words), "{answer}");
    suite.tug(["rm", "-f", "passing"]).ok();
    Outcome::Passed
}

fn wishes_that_cannot_be_are_refused(suite: &Suite) -> Outcome {
    for &(fields, words) in REFUSED_WISHES {
        let image = if fields == "bad" { "" } else { r#""Image":"busybox","# };
        let body = format!("{{{image}{fields}}}");
        let (status, answer) = suite.api("POST", "/containers/create", Some(&body));
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer.contains(words), "{body}: {answer}");
    }
    let gpu = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"DeviceRequests":[{"Driver":"x","Count":-1,"DeviceIDs":[],"Capabilities":[["gpu"]],"Options":{}}]}}"#;
    suite.api("POST", "/containers/create?name=gpu", Some(gpu));
    let (status, answer) = suite.api("POST", "/containers/gpu/start", None);
    let words = r#"could not select device driver \"x\" with capabilities: [[gpu]]"#;
    assert!(status == 500 && answer.contains(words), "{status} {answer}");
    suite.tug(["rm", "gpu"]).ok();
    Outcome::Passed
}

/// Fields of a create request that are refused, and words of the message.
const REFUSED_WISHES: &[(&str, &str)] = &[
    (
        r#""HostConfig":{"CpuShares":-1}"#,
        "invalid CPU shares (-1): value must be a positive integer",
    ),
    (
        r#""HostConfig":{"Annotations":{"":"x"}}"#,
        "the empty string is not permitted as an annotation key",
    ),
    (r#""HostConfig":{"ShmSize":-1}"#, "SHM size can not be less than 0"),
    (
        r#""HostConfig":{"OomScoreAdj":1001}"#,
        "Invalid value 1001, range for oom score adj is [-1000, 1000]",
    ),
    (r#""HostConfig":{"Isolation":"hyperv"}"#, "invalid isolation 'hyperv' on linux"),
    (
        r#""HostConfig":{"RestartPolicy":{"Name":"nope"}}"#,
        "invalid restart policy: unknown policy 'nope'",
    ),
    (
        r#""HostConfig":{"RestartPolicy":{"Name":"no","MaximumRetryCount":1}}"#,
        "maximum retry count can only be used with 'on-failure'",
    ),
    (
        r#""HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}"#,
        "can't create 'AutoRemove' container with restart policy",
    ),
    (r#""HostConfig":{"MemorySwappiness":101}"#, "valid memory swappiness range is 0-100"),
    (r#""HostConfig":{"NanoCpus":99000000000000}"#, "range of CPUs is from 0.01 to"),
    (
        r#""HostConfig":{"CpuRealtimePeriod":1,"CpuRealtimeRuntime":2}"#,
        "cpu real-time runtime cannot be higher than cpu real-time period",
    ),
    (r#""HostConfig":{"IOMaximumIOps":1}"#, "configuration of maximum IOPs"),
    (r#""HostConfig":{"IOMaximumBandwidth":1}"#, "configuration of maximum bandwidth"),
    (r#""HostConfig":{"Runtime":"nosuch"}"#, "unknown or invalid runtime name: nosuch"),
    (r#""HostConfig":{"UsernsMode":"x"}"#, "invalid user namespace mode: x"),
    (r#""HostConfig":{"UTSMode":"x"}"#, "invalid UTS mode: x"),
    (r#""HostConfig":{"PidMode":"x"}"#, "invalid PID mode: x"),
    (r#""HostConfig":{"IpcMode":"x"}"#, "invalid IPC mode: x"),
    (r#""HostConfig":{"CgroupnsMode":"x"}"#, "invalid cgroup namespace mode: x"),
    (r#""HostConfig":{"PortBindings":{"0/tcp":[]}}"#, "invalid port specification"),
    (r#""HostConfig":{"Tmpfs":{"/t":"nonsense"}}"#, r#"invalid tmpfs option [\"nonsense\"]"#),
    (
        r#""HostConfig":{"Mounts":[{"Type":"bind","Source":"/usr","Target":"/t","BindOptions":{"ReadOnlyForceRecursive":true}}]}"#,
        "mount options conflict: !ReadOnly",
    ),
    (
        r#""HostConfig":{"Mounts":[{"Type":"volume","Source":"v","Target":"/t","ClusterOptions":{}}]}"#,
        "this node is none",
    ),
    (r#""HostConfig":{"Ulimits":[{"Name":"x","Soft":1,"Hard":1}]}"#, "invalid ulimit type: x"),
    (r#""HostConfig":{"DeviceCgroupRules":["x"]}"#, "invalid device cgroup rule format: 'x'"),
    (r#""ExposedPorts":{"x/tcp":{}}"#, r#"invalid port specification: \"x/tcp\""#),
    (r#""ExposedPorts":{"80/icmp":{}}"#, "invalid proto: icmp"),
    (r#""StopSignal":"NOPE""#, "Invalid signal: NOPE"),
    (r#""Env":["=x"]"#, "invalid environment variable: =x"),
    (r#""WorkingDir":"relative""#, "it needs to be an absolute path"),
    (r#""Healthcheck":{"Interval":1}"#, "Interval in Healthcheck cannot be less than 1ms"),
    (r#""Healthcheck":{"Retries":-1}"#, "Retries in Healthcheck cannot be negative"),
    ("bad", "invalid JSON: invalid character 'b' looking for beginning of object key string"),
];

fn lists_select_as_docker_does(suite: &Suite) -> Outcome {
    let child = suite.scratch();
    std::fs::write(child.join("Dockerfile"), "FROM busybox\nLABEL made=later\n")
        .expect("the directory is ours");
    suite.tug(["build", "-q", "-t", "child", child.to_str().expect("plain")]).ok();
    for cli in BOTH {
        let run = |args: &[&str]| suite.run(cli, args);
        run(&["run", "--name", "first", "--label", "a=1", "--label", "b=2", "busybox", "true"])
            .ok();
        run(&[
            "run",
            "-d",
            "--name",
            "second",
            "-p",
            "127.0.0.1::80",
            "--expose",
            "8080",
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "100",
        ])
        .ok();
        run(&["run", "-d", "--name", "third", "-p", "127.0.0.1:1090:90", "child", "sleep", "100"])
            .ok();
        let names = |filters: &[&str]| {
            let mut args = vec!["ps", "--format", "{{.Names}}"];
            args.extend(filters);
            let mut names: Vec<_> = run(&args).ok().lines().map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        for &(filters, want) in SELECTIONS {
            assert_eq!(names(filters), want, "{filters:?}");
        }
        let id = run(&["inspect", "-f", "{{.Id}}", "third"]).ok();
        assert_eq!(names(&["-f", &format!("id={}", &id[..9])]), "third");
        for (filter, words) in [
            ("nope=1", "invalid filter 'nope'"),
            ("status=up", "invalid filter 'status=up'"),
            ("publish=1:2", "filter for 'publish' should not contain ':': 1:2"),
            ("since=nobody", "No such container: nobody"),
        ] {
            let refused = run(&["ps", "-f", filter]).fails(1);
            assert!(refused.contains(words), "{filter}: {refused}");
        }
        run(&["rm", "-f", "first", "second", "third"]).ok();
        run(&["volume", "rm", "data"]).ok();
    }
    // Annotations are in lists from API 1.46 on.
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Annotations":{"k":"v"}}}"#;
    suite.api("POST", "/v1.50/containers/create?name=noted", Some(body));
    let listed =
        |version: &str| suite.api("GET", &format!("/{version}/containers/json?all=1"), None).1;
    assert!(listed("v1.46").contains(r#""Annotations":{"k":"v"}"#));
    assert!(!listed("v1.45").contains("Annotations"));
    suite.tug(["rm", "noted"]).ok();
    suite.tug(["rmi", "child"]).ok();
    Outcome::Passed
}

/// Options of a list, and which of the three containers it then shows.
const SELECTIONS: &[(&[&str], &str)] = &[
    (&["-f", "since=first"], "second third"),
    (&["-f", "before=third"], "second"),
    (&["-a", "-f", "before=third"], "first second"),
    (&["-f", "exited=0"], ""),
    (&["-a", "-f", "exited=0"], "first"),
    (&["-f", "status=exited"], "first"),
    (&["-f", "status=exited", "-f", "status=running"], "first second third"),
    (&["-f", "publish=80"], ""),
    (&["-f", "publish=1090"], "third"),
    (&["-f", "publish=1000-1100/tcp"], "third"),
    (&["-f", "publish=1090/udp"], ""),
    (&["-f", "expose=8080"], "second"),
    (&["-f", "expose=80-90/tcp"], "second third"),
    (&["-f", "ancestor=busybox"], "second third"),
    (&["-f", "ancestor=child"], "third"),
    (&["-a", "-f", "volume=/data"], "second"),
    (&["-a", "-f", "volume=data"], "second"),
    (&["-a", "-f", "label=a=1", "-f", "label=b"], "first"),
    (&["-a", "-f", "label=a=1", "-f", "label=c"], ""),
    (&["-f", "name=^/?sec"], "second"),
    (&["-f", "network=bridge"], "second third"),
    (&["-f", "health=none"], "second third"),
    (&["-f", "is-task=true"], ""),
    (&["-f", "is-task=false"], "second third"),
    (&["-f", "isolation=x"], "second third"),
    (&["-n", "2"], "second third"),
];

fn parameters_of_requests_take_effect(suite: &Suite) -> Outcome {
    suite.tug(["run", "-dt", "--name", "box", "busybox", "sleep", "100"]).ok();
    for (path, status, words) in [
        ("/containers/box/resize?h=20&w=70", 200, ""),
        ("/containers/box/resize?h=x&w=70", 400, r#"invalid resize height \"x\": invalid syntax"#),
        (
            "/containers/box/resize?h=20&w=-1",
            400,
            r#"invalid resize width \"-1\": value out of range"#,
        ),
        ("/containers/box/resize?h=4294967296&w=1", 400, "value out of range"),
        ("/images/busybox/tag?repo=sha256&tag=x", 400, "refusing to create an ambiguous tag"),
    ] {
        let (seen, answer) = suite.api("POST", path, None);
        assert_eq!(seen, status, "{path}: {answer}");
        assert!(answer.contains(words), "{path}: {answer}");
    }
    let (status, answer) = suite.api("POST", "/volumes/create", Some(r#"{"Driver":"nosuch"}"#));
    assert!(status == 404 && answer.contains(r#"plugin \"nosuch\" not found"#), "{answer}");
    assert_eq!(inside(suite, "box", "stty size < /proc/1/fd/0"), "20 70");
    let (_, pruned) =
        suite.api("POST", "/volumes/prune?filters=%7B%22label%22%3A%5B%22none%22%5D%7D", None);
    assert!(pruned.contains(r#""VolumesDeleted":[]"#), "{pruned}");
    let (status, gone) = suite.api("GET", "/v1.50/nothing/here", None);
    assert_eq!((status, gone.trim()), (404, r#"{"message":"page not found"}"#));
    let (status, old) = suite.api("GET", "/v1.10/info", None);
    assert!(status == 400 && old.contains("client version 1.10 is too old"), "{old}");
    let (status, new) = suite.api("GET", "/v1.99/info", None);
    assert!(status == 400 && new.contains("client version 1.99 is too new"), "{new}");
    suite.tug(["rm", "-f", "box"]).ok();
    Outcome::Passed
}

fn flags_that_say_nothing_new_do_not_stop_the_daemon(suite: &Suite) -> Outcome {
    suite.end_daemon("KILL");
    suite.start_daemon(&[
        "--ip6tables=false",
        "--experimental",
        "--feature",
        "cdi",
        "--cdi-spec-dir",
        "/some/cdi",
        "--userns-remap=",
        "--allow-direct-routing=false",
        "--swarm-default-advertise-addr",
        "lo",
        "--containerd",
        "/nowhere.sock",
        "-H",
        "0.0.0.0:23756",
    ]);
    let (_, info) = suite.api("GET", "/info", None);
    let info: Value = serde_json::from_str(&info).expect("info is JSON");
    let warnings = info["Warnings"].to_string();
    assert!(
        warnings.contains("API is accessible on http://0.0.0.0:23756 without encryption"),
        "{warnings}"
    );
    assert!(warnings.contains("equivalent to root access"), "{warnings}");
    assert_eq!(info["CDISpecDirs"], json!(["/some/cdi"]));
    assert_eq!(info["ExperimentalBuild"], true);
    assert!(info["NGoroutines"].as_i64().is_some_and(|count| count > 0), "{info}");
    let mut docker = suite.command(Cli::Docker);
    docker
        .env("DOCKER_HOST", "tcp://127.0.0.1:23756")
        .args(["run", "--rm", "busybox", "echo", "by TCP"]);
    assert_eq!(run(&mut docker).ok(), "by TCP");
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    Outcome::Passed
}
