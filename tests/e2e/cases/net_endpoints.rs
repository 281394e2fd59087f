//! Which networks a container has: what was asked for, and no others.

use std::time::Duration;

use crate::harness::{BOTH, Cli, Outcome, Suite, shell, wait_for};

super::cases! {
    endpoints_given_at_create_are_all_there_are,
    a_disconnect_holds,
    containers_share_a_network_in_a_chain,
    ports_follow_the_way_out,
    links_on_a_users_network_are_names,
    links_open_what_icc_closes,
    names_of_interfaces_do_not_clash,
    ipv6_that_is_turned_off_is_not_given,
    what_networks_refuse_is_said_in_dockers_words,
    networks_are_made_as_docker_makes_them,
}

/// Names of a container's networks, in order.
fn networks(suite: &Suite, container: &str) -> String {
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    suite.tug(["inspect", "-f", format, container]).ok().trim_end().to_owned()
}

fn interfaces(suite: &Suite, container: &str) -> String {
    let list = "ls /sys/class/net | grep -v -e tunl -e sit -e ip6 -e gre -e erspan | tr '\\n' ' '";
    suite.tug(["exec", container, "sh", "-c", list]).ok().trim_end().to_owned()
}

/// Makes a container by the API and starts it.
#[track_caller]
fn start(suite: &Suite, name: &str, rest: &str) {
    let body = format!(r#"{{"Image":"busybox","Cmd":["sleep","60"],{rest}}}"#);
    let (status, text) =
        suite.api("POST", &format!("/v1.48/containers/create?name={name}"), Some(&body));
    assert_eq!(status, 201, "{text}");
    suite.tug(["start", name]).ok();
}

fn endpoints_given_at_create_are_all_there_are(suite: &Suite) -> Outcome {
    for name in ["na", "nb"] {
        suite.tug(["network", "create", name]).ok();
    }
    for mode in ["", r#""HostConfig":{"NetworkMode":"default"},"#] {
        start(
            suite,
            "one",
            &format!(r#"{mode}"NetworkingConfig":{{"EndpointsConfig":{{"na":{{}}}}}}"#),
        );
        assert_eq!(networks(suite, "one"), "na");
        assert_eq!(interfaces(suite, "one"), "eth0 lo");
        suite.tug(["restart", "-t", "0", "one"]).ok();
        assert_eq!(networks(suite, "one"), "na");
        suite.tug(["rm", "-f", "one"]).ok();
    }
    // By id, and the default route goes where the priority says.
    let id = suite.tug(["network", "inspect", "-f", "{{.Id}}", "nb"]).ok();
    for (first, second, want) in [(0, 10, "nb"), (10, 0, "na")] {
        let both = format!(
            r#""NetworkingConfig":{{"EndpointsConfig":{{"na":{{"GwPriority":{first}}},"{id}":{{"GwPriority":{second}}}}}}}"#
        );
        start(suite, "two", &both);
        assert_eq!(networks(suite, "two"), "na nb");
        let route = suite.tug(["exec", "two", "ip", "route", "show", "default"]).ok();
        let format = format!("{{{{.NetworkSettings.Networks.{want}.Gateway}}}}");
        let gateway = suite.tug(["inspect", "-f", &format, "two"]).ok();
        assert!(route.contains(&format!("via {gateway} ")), "{route}, want {want} by {gateway}");
        suite.tug(["rm", "-f", "two"]).ok();
    }
    // An empty list of places is any port of all addresses.
    start(
        suite,
        "three",
        r#""ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[]}}"#,
    );
    let ports = suite.tug(["port", "three"]).ok();
    assert!(ports.contains("0.0.0.0:") && ports.contains("[::]:"), "{ports}");
    suite.tug(["rm", "-f", "three"]).ok();
    for name in ["na", "nb"] {
        suite.tug(["network", "rm", name]).ok();
    }
    Outcome::Passed
}

fn a_disconnect_holds(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "away"]).ok();
    for cli in BOTH {
        // Before the first start.
        suite.run(cli, ["create", "--name", "cc", "busybox", "sleep", "60"]).ok();
        suite.run(cli, ["network", "disconnect", "bridge", "cc"]).ok();
        let again = suite.run(cli, ["network", "disconnect", "bridge", "cc"]).fails(1);
        assert!(again.contains("is not connected to the network bridge"), "{again}");
        suite.run(cli, ["start", "cc"]).ok();
        assert_eq!((networks(suite, "cc").as_str(), interfaces(suite, "cc").as_str()), ("", "lo"));
        suite.run(cli, ["network", "connect", "away", "cc"]).ok();
        assert_eq!(interfaces(suite, "cc"), "eth0 lo");
        suite.run(cli, ["restart", "-t", "0", "cc"]).ok();
        assert_eq!(networks(suite, "cc"), "away");
        // And of a running one, over restarts of container and daemon.
        suite.run(cli, ["network", "connect", "bridge", "cc"]).ok();
        suite.run(cli, ["network", "disconnect", "away", "cc"]).ok();
        suite.run(cli, ["restart", "-t", "0", "cc"]).ok();
        assert_eq!(networks(suite, "cc"), "bridge");
        suite.run(cli, ["network", "disconnect", "bridge", "cc"]).ok();
        suite.end_daemon("KILL");
        suite.start_daemon(&[]);
        assert_eq!(networks(suite, "cc"), "");
        suite.run(cli, ["restart", "-t", "0", "cc"]).ok();
        assert_eq!((networks(suite, "cc").as_str(), interfaces(suite, "cc").as_str()), ("", "lo"));
        let listed = suite.run(cli, ["ps", "-q", "--filter", "network=bridge"]).ok();
        assert_eq!(listed, "");
        suite.run(cli, ["rm", "-f", "cc"]).ok();
    }
    suite.tug(["network", "rm", "away"]).ok();
    Outcome::Passed
}

fn containers_share_a_network_in_a_chain(suite: &Suite) -> Outcome {
    let run = |name: &str, network: &str| {
        let network = format!("--network={network}");
        suite.tug(["run", "-d", "--name", name, &network, "busybox", "sleep", "60"]).ok()
    };
    run("xx", "bridge");
    run("yy", "container:xx");
    run("zz", "container:yy");
    let tell = "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; ip -o -4 addr show eth0";
    let of = |name: &str| suite.tug(["exec", name, "sh", "-c", tell]).ok();
    assert_eq!(of("xx"), of("yy"));
    assert_eq!(of("xx"), of("zz"));
    // Whose network it is may come later; it is looked for at the start.
    suite.tug(["create", "--name", "early", "--network=container:late", "busybox", "true"]).ok();
    let missing = suite.tug(["start", "early"]).fails(1);
    let want = "joining network namespace of container: No such container: late";
    assert!(missing.contains(want), "{missing}");
    suite.tug(["create", "--name", "late", "busybox", "sleep", "60"]).ok();
    let stopped = suite.tug(["start", "early"]).fails(1);
    let want =
        "cannot join network namespace of a non running container: container late is created";
    assert!(stopped.contains(want), "{stopped}");
    suite.tug(["start", "late"]).ok();
    suite.tug(["start", "early"]).ok();
    suite.tug(["create", "--name", "me", "--network=container:me", "busybox", "true"]).ok();
    let itself = suite.tug(["start", "me"]).fails(1);
    assert!(itself.contains("cannot join own network"), "{itself}");
    suite.tug(["rm", "-f", "xx", "yy", "zz", "early", "late", "me"]).ok();
    Outcome::Passed
}

fn ports_follow_the_way_out(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "--internal", "inside"]).ok();
    suite.tug(["network", "create", "outside"]).ok();
    let serve = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "inside",
        "-p",
        "18080:80",
        "busybox",
        "sh",
        "-c",
        serve,
    ];
    suite.tug(run).ok();
    let fetch = || shell("curl -s --max-time 3 http://127.0.0.1:18080/").stdout.trim().to_owned();
    assert_eq!((fetch().as_str(), suite.tug(["port", "web"]).ok().as_str()), ("", ""));
    for cli in BOTH {
        suite.run(cli, ["network", "connect", "outside", "web"]).ok();
        let ports = suite.run(cli, ["port", "web"]).ok();
        assert!(ports.contains("80/tcp -> 0.0.0.0:18080"), "{ports}");
        wait_for("the port", Duration::from_secs(10), || fetch() == "served");
        suite.run(cli, ["network", "disconnect", "outside", "web"]).ok();
        assert_eq!((fetch().as_str(), suite.run(cli, ["port", "web"]).ok().as_str()), ("", ""));
    }
    // A port that is taken by then refuses the connect, and leaves nothing behind.
    let other = ["run", "-d", "--name", "other", "-p", "18080:80", "busybox", "sleep", "60"];
    suite.tug(other).ok();
    let taken = suite.tug(["network", "connect", "outside", "web"]).fails(1);
    assert!(taken.contains("port is already allocated"), "{taken}");
    assert_eq!(networks(suite, "web"), "inside");
    suite.tug(["rm", "-f", "other"]).ok();
    suite.tug(["network", "connect", "outside", "web"]).ok();
    wait_for("the port", Duration::from_secs(10), || fetch() == "served");
    suite.tug(["rm", "-f", "web"]).ok();
    suite.tug(["network", "rm", "inside", "outside"]).ok();
    Outcome::Passed
}

fn links_on_a_users_network_are_names(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "nl"]).ok();
    for cli in BOTH {
        let run = |name: &str, more: &[&str]| {
            let start = ["run", "-d", "--name", name, "--network", "nl"];
            let words = start.iter().chain(more).chain(&["busybox", "sleep", "60"]);
            suite.run(cli, words).ok();
        };
        // Its target comes later.
        run("first", &["--link=third:bar"]);
        let asks = || suite.tug(["exec", "first", "nslookup", "bar", "127.0.0.11"]).code == 0;
        assert!(!asks());
        run("third", &[]);
        wait_for("the link's name", Duration::from_secs(5), asks);
        suite.run(cli, ["network", "disconnect", "nl", "third"]).ok();
        wait_for("no name", Duration::from_secs(5), || !asks());
        suite.run(cli, ["network", "connect", "nl", "third"]).ok();
        wait_for("the link's name", Duration::from_secs(5), asks);
        suite.run(cli, ["network", "disconnect", "nl", "first"]).ok();
        suite.run(cli, ["network", "connect", "--link", "third:baz", "nl", "first"]).ok();
        wait_for("another name", Duration::from_secs(5), || {
            suite.tug(["exec", "first", "nslookup", "baz", "127.0.0.11"]).code == 0
        });
        // A link on the default bridge needs its target there.
        let run = ["run", "--rm", "--link", "third:db", "busybox", "true"];
        let elsewhere = suite.run(cli, run);
        let want = "Cannot link to /third, as it does not belong to the default network";
        assert!(elsewhere.code != 0 && elsewhere.stderr.contains(want), "{elsewhere:?}");
        suite.run(cli, ["rm", "-f", "first", "third"]).ok();
    }
    suite.tug(["network", "rm", "nl"]).ok();
    Outcome::Passed
}

fn links_open_what_icc_closes(suite: &Suite) -> Outcome {
    suite.end_daemon("TERM");
    suite.start_daemon(&["--icc=false"]);
    let serve = "mkdir /www; echo served > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "db", "--expose", "80", "busybox", "sh", "-c", serve];
    suite.tug(run).ok();
    suite.tug(["run", "-d", "--name", "web", "--link", "db:db", "busybox", "sleep", "60"]).ok();
    suite.tug(["run", "-d", "--name", "stranger", "busybox", "sleep", "60"]).ok();
    let address = || suite.tug(["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db"]).ok();
    let fetch = |who: &str, port: u16| {
        let url = format!("http://{}:{port}/", address());
        suite.tug(["exec", who, "timeout", "2", "fetch", &url]).code == 0
    };
    wait_for("the linked port", Duration::from_secs(10), || fetch("web", 80));
    assert!(!fetch("web", 81), "a port that is not exposed");
    assert!(!fetch("stranger", 80), "a container without the link");
    // The target's next address is followed.
    suite.tug(["stop", "-t", "0", "db"]).ok();
    suite.tug(["run", "-d", "--name", "squatter", "busybox", "sleep", "60"]).ok();
    suite.tug(["start", "db"]).ok();
    wait_for("the linked port", Duration::from_secs(10), || fetch("web", 80));
    suite.tug(["rm", "-f", "db", "web", "stranger", "squatter"]).ok();
    suite.end_daemon("TERM");
    suite.start_daemon(&[]);
    suite.tug(["run", "--rm", "busybox", "true"]).ok();
    Outcome::Passed
}

fn names_of_interfaces_do_not_clash(suite: &Suite) -> Outcome {
    for name in ["n0", "n1", "n2"] {
        suite.tug(["network", "create", name]).ok();
    }
    let named = r#""DriverOpts":{"com.docker.network.endpoint.ifname":"eth1"}"#;
    let rest =
        format!(r#""NetworkingConfig":{{"EndpointsConfig":{{"n0":{{{named}}},"n1":{{}}}}}}"#);
    start(suite, "cc", &rest);
    let place = |name: &str| {
        let format = format!("{{{{.NetworkSettings.Networks.{name}.IPAddress}}}}");
        let address = suite.tug(["inspect", "-f", &format, "cc"]).ok();
        let line = format!("ip -o -4 addr | grep -F ' {address}/' | cut -d' ' -f2");
        suite.tug(["exec", "cc", "sh", "-c", &line]).ok()
    };
    assert_eq!((place("n0").as_str(), place("n1").as_str()), ("eth1", "eth0"));
    suite.tug(["network", "connect", "n2", "cc"]).ok();
    assert_eq!(place("n2"), "eth2");
    for name in ["n1", "n2"] {
        suite.tug(["network", "disconnect", name, "cc"]).ok();
    }
    suite.tug(["network", "connect", "n2", "cc"]).ok();
    assert_eq!(place("n2"), "eth0");
    let option = "--driver-opt=com.docker.network.endpoint.ifname=eth0";
    let taken = suite.tug(["network", "connect", option, "n1", "cc"]).fails(1);
    assert!(taken.contains("error renaming interface") && taken.contains("file exists"), "{taken}");
    suite.tug(["rm", "-f", "cc"]).ok();
    for name in ["n0", "n1", "n2"] {
        suite.tug(["network", "rm", name]).ok();
    }
    Outcome::Passed
}

fn ipv6_that_is_turned_off_is_not_given(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "--ipv6", "six"]).ok();
    let run = |name: &str, more: &[&str]| {
        let words = ["run", "-d", "--name", name].into_iter().chain(more.iter().copied());
        suite.run(Cli::Tug, words.chain(["busybox", "sleep", "60"])).ok();
    };
    let six = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}";
    let hosts = |name: &str| suite.tug(["exec", name, "cat", "/etc/hosts"]).ok();
    run("with", &["--network", "six"]);
    assert!(suite.tug(["inspect", "-f", six, "with"]).ok().starts_with("fd"));
    // Loopback has it on a network without, too.
    run("four", &[]);
    assert!(hosts("with").contains("ip6-localhost") && hosts("four").contains("ip6-localhost"));
    let option = "name=six,driver-opt=com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.disable_ipv6=1";
    for (name, how) in [
        ("all", &["--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "--network", "six"][..]),
        ("default", &["--sysctl", "net.ipv6.conf.default.disable_ipv6=1", "--network", "six"]),
        ("own", &["--network", option]),
    ] {
        run(name, how);
        assert_eq!(suite.tug(["inspect", "-f", six, name]).ok(), "", "{name}");
        let list = "ip -o -6 addr show eth0; grep -v -e ip6- /etc/hosts | grep :";
        assert_eq!(suite.tug(["exec", name, "sh", "-c", list]).stdout, "", "{name}");
        let asked =
            suite.tug(["exec", "with", "nslookup", "-type=aaaa", name, "127.0.0.11"]).stdout;
        assert!(!asked.contains("fd"), "{name}: {asked}");
        assert_eq!(hosts(name).contains("::1"), name != "all", "{name}: {}", hosts(name));
    }
    suite.tug(["rm", "-f", "with", "four", "all", "default", "own"]).ok();
    suite.tug(["network", "rm", "six"]).ok();
    Outcome::Passed
}

fn what_networks_refuse_is_said_in_dockers_words(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "--subnet", "172.28.99.0/24", "chosen"]).ok();
    suite.tug(["network", "create", "auto"]).ok();
    suite.tug(["run", "-d", "--name", "cc", "busybox", "sleep", "60"]).ok();
    suite.tug(["create", "--name", "ss", "busybox", "true"]).ok();
    let needs_user = "user specified IP address is supported on user defined networks only";
    let no_alias = "network-scoped alias is supported only for containers in user defined networks";
    for cli in BOTH {
        for (line, want) in [
            (
                "create --expose 80 --net=container:cc busybox",
                "conflicting options: port exposing and the container type network mode",
            ),
            ("create --net=container: busybox", "invalid container format container:<name|id>"),
            ("network create default", "operation is not permitted on predefined default network"),
            ("network create bridge", "operation is not permitted on predefined bridge network"),
            ("network create host", "operation is not permitted on predefined host network"),
            ("network create none", "operation is not permitted on predefined none network"),
            ("create --net host --ip 10.0.0.9 busybox", needs_user),
            ("create --ip 172.17.0.9 busybox", needs_user),
            (
                "create --net chosen --ip6 ::ffff:172.28.99.99 busybox",
                "invalid IPv6 address: ::ffff:172.28.99.99",
            ),
            ("create --net chosen --ip x busybox", "invalid IPv4 address: x"),
            (
                "create --net chosen --ip 10.0.0.9 busybox",
                "no configured subnet or ip-range contain the IP address 10.0.0.9",
            ),
            (
                "create --net auto --ip 10.0.0.9 busybox",
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            ),
            ("network connect --alias x bridge cc", no_alias),
            ("network connect --alias x host cc", no_alias),
            ("network connect --alias x none ss", no_alias),
            ("network connect --ip 172.17.0.9 bridge ss", needs_user),
            (
                "network connect host cc",
                "cannot connect container to host network - container must be created in host network mode",
            ),
            (
                "network connect none cc",
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ),
            ("network connect bridge cc", "endpoint with name cc already exists in network bridge"),
            ("network disconnect auto cc", "is not connected to network auto"),
            ("network disconnect auto ss", "is not connected to the network auto"),
            ("network disconnect -f auto absent", "endpoint absent not found"),
            ("network rm bridge", "bridge is a pre-defined network and cannot be removed"),
            ("network create -d weave xx", "plugin \"weave\" not found"),
            ("network create --ipam-driver weave xx", "plugin \"weave\" not found"),
        ] {
            let output = suite.run(cli, line.split(' '));
            assert!(output.code != 0 && output.stderr.contains(want), "{cli:?} {line}: {output:?}");
        }
        // A stopped one that is on the network stays there.
        suite.run(cli, ["network", "connect", "bridge", "ss"]).ok();
        let run = ["create", "--name", "hh", "--net", "host", "-p", "80:80", "busybox", "true"];
        let warned = suite.run(cli, run);
        let want = "Published ports are discarded when using host network mode";
        assert!(warned.code == 0 && warned.stderr.contains(want), "{warned:?}");
        let other = suite.run(cli, ["network", "connect", "auto", "hh"]).fails(1);
        let want = "container sharing network namespace with another container or host cannot be connected to any other network";
        assert!(other.contains(want), "{other}");
        suite.run(cli, ["rm", "hh"]).ok();
    }
    suite.tug(["rm", "-f", "cc", "ss"]).ok();
    suite.tug(["network", "rm", "chosen", "auto"]).ok();
    Outcome::Passed
}

fn networks_are_made_as_docker_makes_them(suite: &Suite) -> Outcome {
    for cli in BOTH {
        // A macvlan network without a parent has one that leads nowhere.
        let id = suite.run(cli, ["network", "create", "-d", "macvlan", "alone"]).ok();
        let parent = format!("dm-{}", &id[..12]);
        let there = || shell(&format!("ip link show {parent}")).code == 0;
        assert!(there());
        for name in ["one", "two"] {
            let run = ["run", "-d", "--name", name, "--network", "alone", "busybox", "sleep", "60"];
            suite.run(cli, run).ok();
        }
        suite.run(cli, ["exec", "one", "ping", "-c", "1", "-W", "3", "two"]).ok();
        suite.run(cli, ["rm", "-f", "one", "two"]).ok();
        suite.end_daemon("TERM");
        suite.start_daemon(&[]);
        assert!(there());
        suite.run(cli, ["network", "rm", "alone"]).ok();
        assert!(!there());
        // A subnet of IPv6 does not turn IPv6 on, and is kept.
        let create =
            ["network", "create", "--subnet", "10.94.0.0/24", "--subnet", "2001:db8:77::/64", "n"];
        suite.run(cli, create).ok();
        let format = "{{.EnableIPv6}}{{range .IPAM.Config}} {{.Subnet}}{{end}}";
        let shown = suite.run(cli, ["network", "inspect", "-f", format, "n"]).ok();
        assert_eq!(shown, "false 10.94.0.0/24 2001:db8:77::/64");
        let run = ["run", "--rm", "--network", "n", "busybox", "cat", "/etc/resolv.conf"];
        let resolv = suite.run(cli, run).ok();
        assert!(resolv.starts_with("# Generated by Docker Engine.\n"), "{resolv}");
        assert!(
            resolv.contains("# Based on host file: '/etc/resolv.conf' (internal resolver)\n"),
            "{resolv}"
        );
        suite.run(cli, ["network", "rm", "n"]).ok();
        let option = "com.docker.network.advertise_addr_nmsgs=9";
        let wrong = suite.run(cli, ["network", "create", "-o", option, "n"]).fails(1);
        assert!(wrong.contains("must be in the range 0 to 3"), "{wrong}");
    }
    // By the name that clients of old read.
    let mac = "02:00:00:00:00:07";
    suite.tug(["create", "--name", "mm", "--mac-address", mac, "busybox", "true"]).ok();
    assert_eq!(suite.tug(["inspect", "-f", "{{.Config.MacAddress}}", "mm"]).ok(), mac);
    suite.tug(["rm", "mm"]).ok();
    suite.tug(["run", "--rm", "busybox", "true"]).ok();
    Outcome::Passed
}
