//! Networks: ports, names, isolation.

use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::harness::{BOTH, Cli, Outcome, Suite, shell, wait_for};

super::cases! {
    a_published_port_answers_on_every_address,
    a_port_that_is_not_published_refuses,
    a_taken_port_says_by_whom,
    a_loopback_port_is_not_reachable_from_the_lan,
    names_resolve_on_a_network_of_their_own,
    a_service_counts_visits_in_redis,
    networks_are_isolated_from_each_other,
    a_running_container_joins_and_leaves_networks,
    networks_are_listed_inspected_and_removed,
    no_network_and_the_hosts_network,
    a_container_joins_anothers_network,
    ephemeral_ports_and_ranges,
    containers_reach_the_lan_by_nat,
    containers_work_beside_another_firewall,
    published_udp_ports_answer_from_where_they_were_asked,
    an_interface_has_its_own_settings_and_addresses,
    macvlan_puts_a_container_on_the_lan,
}

const SERVER: &str = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";

fn fetch(url: &str) -> String {
    shell(&format!("curl -sg --max-time 5 {url}")).stdout.trim().to_owned()
}

fn wait_until_served(url: &str) {
    wait_for(url, Duration::from_secs(10), || fetch(url) == "served");
}

/// A network namespace that stands for another machine on the host's network.
struct Lan;

impl Lan {
    fn open() -> Lan {
        shell(
            "ip netns add lan && ip link add lan0 type veth peer name lan1 netns lan && \
             ip addr add 10.99.0.1/24 dev lan0 && ip -6 addr add fd99::1/64 dev lan0 nodad && ip link set lan0 up && \
             ip -n lan addr add 10.99.0.2/24 dev lan1 && ip -n lan -6 addr add fd99::2/64 dev lan1 nodad && ip -n lan link set lan1 up && ip -n lan link set lo up",
        )
        .ok();
        Lan
    }

    fn fetch(&self, url: &str) -> String {
        shell(&format!("ip netns exec lan curl -sg --max-time 3 {url}")).stdout.trim().to_owned()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        shell("ip link del lan0; ip netns del lan");
    }
}

fn a_published_port_answers_on_every_address(suite: &Suite) -> Outcome {
    let lan = Lan::open();
    for cli in BOTH {
        suite
            .run(
                cli,
                ["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVER],
            )
            .ok();
        wait_until_served("http://127.0.0.1:8080/");
        for host in ["127.0.0.1", "[::1]", "localhost", "10.99.0.1", "[fd99::1]"] {
            assert_eq!(fetch(&format!("http://{host}:8080/")), "served", "{host}");
        }
        assert_eq!(lan.fetch("http://10.99.0.1:8080/"), "served");
        assert_eq!(lan.fetch("http://[fd99::1]:8080/"), "served");
        let ports = suite.run(cli, ["ps", "--format", "{{.Ports}}"]).ok();
        assert_eq!(ports, "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        assert_eq!(
            suite.run(cli, ["port", "web"]).ok(),
            "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080"
        );
        suite.run(cli, ["rm", "-f", "web"]).ok();
        assert_eq!(fetch("http://127.0.0.1:8080/"), "");
    }
    Outcome::Passed
}

fn a_port_that_is_not_published_refuses(suite: &Suite) -> Outcome {
    let lan = Lan::open();
    suite.tug(["run", "-d", "--name", "web", "--expose", "80", "busybox", "sh", "-c", SERVER]).ok();
    assert_eq!(fetch("http://127.0.0.1:80/"), "");
    let address = suite.tug(["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]).ok();
    wait_until_served(&format!("http://{address}/"));
    shell(&format!("ip -n lan route add {address}/32 via 10.99.0.1")).ok();
    assert_eq!(
        lan.fetch(&format!("http://{address}/")),
        "",
        "no direct routing to unpublished ports"
    );
    Outcome::Passed
}

fn a_taken_port_says_by_whom(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite
            .run(cli, ["run", "-d", "--name", "first", "-p", "8081:80", "busybox", "sleep", "60"])
            .ok();
        let taken = suite
            .run(cli, ["run", "--name", "second", "-p", "8081:80", "busybox", "true"])
            .fails(125);
        assert!(taken.contains("port is already allocated"), "{taken}");
        assert!(taken.contains("first"), "the holder is named: {taken}");
        assert_eq!(
            suite
                .run(cli, ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "second"])
                .ok(),
            "created 128"
        );
        suite.run(cli, ["rm", "-f", "first", "second"]).ok();

        let mut server = std::process::Command::new("busybox")
            .args(["httpd", "-f", "-p", "8082", "-h", "/"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let held = suite.run(cli, ["run", "--rm", "-p", "8082:80", "busybox", "true"]).fails(125);
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(held.contains("address already in use") && held.contains("busybox"), "{held}");
    }
    Outcome::Passed
}

fn a_loopback_port_is_not_reachable_from_the_lan(suite: &Suite) -> Outcome {
    let lan = Lan::open();
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "127.0.0.1:8083:80",
            "busybox",
            "sh",
            "-c",
            SERVER,
        ])
        .ok();
    wait_until_served("http://127.0.0.1:8083/");
    assert_eq!(lan.fetch("http://10.99.0.1:8083/"), "");
    shell(
        "ip -n lan route add 127.0.0.0/8 via 10.99.0.1 dev lan1 table local; ip netns exec lan sysctl -qw net.ipv4.conf.all.route_localnet=1; ip -n lan route del local 127.0.0.0/8 dev lo table local",
    );
    assert_eq!(lan.fetch("http://127.0.0.1:8083/"), "");
    assert_eq!(suite.tug(["port", "web", "80"]).ok(), "127.0.0.1:8083");
    Outcome::Passed
}

fn names_resolve_on_a_network_of_their_own(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["network", "create", "mesh"]).ok();
        let id = suite
            .run(
                cli,
                [
                    "run",
                    "-d",
                    "--name",
                    "web",
                    "--network",
                    "mesh",
                    "--network-alias",
                    "alias",
                    "busybox",
                    "sh",
                    "-c",
                    SERVER,
                ],
            )
            .ok();
        for name in ["web", "alias", "WEB", "web.mesh", &id[..12]] {
            let url = format!("http://{name}/");
            wait_for(name, Duration::from_secs(10), || {
                suite
                    .run(cli, ["run", "--rm", "--network", "mesh", "busybox", "fetch", &url])
                    .stdout
                    == "served\n"
            });
        }
        let resolver = suite
            .run(cli, ["run", "--rm", "--network", "mesh", "busybox", "cat", "/etc/resolv.conf"])
            .ok();
        assert!(resolver.contains("nameserver 127.0.0.11"), "{resolver}");
        assert_ne!(
            suite
                .run(cli, ["run", "--rm", "--network", "mesh", "busybox", "nslookup", "nosuchname"])
                .code,
            0
        );
        suite.run(cli, ["rm", "-f", "web"]).ok();
        suite.run(cli, ["network", "rm", "mesh"]).ok();
    }
    Outcome::Passed
}

fn a_service_counts_visits_in_redis(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "counting"]).ok();
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "redis",
            "--network",
            "counting",
            "redis",
            "redis-server",
            "--save",
            "",
            "--protected-mode",
            "no",
        ])
        .ok();
    for count in ["1", "2", "3"] {
        wait_for("redis", Duration::from_secs(10), || {
            suite
                .tug([
                    "run",
                    "--rm",
                    "--network",
                    "counting",
                    "redis",
                    "redis-cli",
                    "-h",
                    "redis",
                    "ping",
                ])
                .stdout
                == "PONG\n"
        });
        let visits = suite.tug([
            "run",
            "--rm",
            "--network",
            "counting",
            "redis",
            "redis-cli",
            "-h",
            "redis",
            "incr",
            "visits",
        ]);
        assert_eq!(visits.ok(), count);
    }
    Outcome::Passed
}

fn networks_are_isolated_from_each_other(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "one"]).ok();
    suite.tug(["network", "create", "two"]).ok();
    suite
        .tug(["run", "-d", "--name", "web", "--network", "one", "busybox", "sh", "-c", SERVER])
        .ok();
    let address =
        suite.tug(["inspect", "-f", "{{.NetworkSettings.Networks.one.IPAddress}}", "web"]).ok();
    let url = format!("http://{address}/");
    wait_until_served(&url);
    assert_eq!(
        suite.tug(["run", "--rm", "--network", "one", "busybox", "fetch", &url]).ok(),
        "served"
    );
    assert_ne!(suite.tug(["run", "--rm", "--network", "two", "busybox", "fetch", &url]).code, 0);
    Outcome::Passed
}

fn a_running_container_joins_and_leaves_networks(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["network", "create", "later"]).ok();
        suite
            .run(
                cli,
                ["run", "-d", "--name", "web", "--network", "later", "busybox", "sh", "-c", SERVER],
            )
            .ok();
        suite.run(cli, ["run", "-d", "--name", "mover", "busybox", "sleep", "60"]).ok();
        assert_ne!(suite.run(cli, ["exec", "mover", "fetch", "http://web/"]).code, 0);
        suite.run(cli, ["network", "connect", "later", "mover"]).ok();
        wait_for("the name", Duration::from_secs(10), || {
            suite.run(cli, ["exec", "mover", "fetch", "http://web/"]).stdout == "served\n"
        });
        suite.run(cli, ["network", "disconnect", "later", "mover"]).ok();
        assert_ne!(suite.run(cli, ["exec", "mover", "fetch", "http://web/"]).code, 0);
        suite.run(cli, ["rm", "-f", "web", "mover"]).ok();
        suite.run(cli, ["network", "rm", "later"]).ok();
    }
    Outcome::Passed
}

fn networks_are_listed_inspected_and_removed(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let id = suite
            .run(
                cli,
                [
                    "network",
                    "create",
                    "--subnet",
                    "10.77.0.0/24",
                    "--gateway",
                    "10.77.0.254",
                    "--label",
                    "a=b",
                    "own",
                ],
            )
            .ok();
        assert_eq!(id.len(), 64);
        let subnet = "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} {{.Driver}} {{.Scope}}";
        assert_eq!(
            suite.run(cli, ["network", "inspect", "-f", subnet, "own"]).ok(),
            "10.77.0.0/24 10.77.0.254 bridge local"
        );
        let rows = suite.run(cli, ["network", "ls", "--format", "{{.Name}}"]).ok();
        for name in ["bridge", "host", "none", "own"] {
            assert!(rows.lines().any(|row| row == name), "{rows}");
        }
        suite
            .run(
                cli,
                [
                    "run",
                    "-d",
                    "--name",
                    "holder",
                    "--network",
                    "own",
                    "--ip",
                    "10.77.0.9",
                    "busybox",
                    "sleep",
                    "60",
                ],
            )
            .ok();
        assert!(
            suite
                .run(cli, ["exec", "holder", "ip", "-4", "addr", "show", "eth0"])
                .ok()
                .contains("10.77.0.9/24")
        );
        let busy = suite.run(cli, ["network", "rm", "own"]).fails(1);
        assert!(busy.contains("has active endpoints"), "{busy}");
        let overlap =
            suite.run(cli, ["network", "create", "--subnet", "10.77.0.0/16", "clash"]).fails(1);
        assert!(
            overlap.contains("Pool overlaps with other one on this address space"),
            "{overlap}"
        );
        let fixed = suite.run(cli, ["network", "rm", "bridge"]).fails(1);
        assert!(fixed.contains("bridge is a pre-defined network and cannot be removed"), "{fixed}");
        suite.run(cli, ["rm", "-f", "holder"]).ok();
        assert_eq!(suite.run(cli, ["network", "rm", "own"]).ok(), "own");
    }
    Outcome::Passed
}

fn no_network_and_the_hosts_network(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let none = suite.run(
            cli,
            ["run", "--rm", "--network", "none", "busybox", "sh", "-c", "ip -o link | wc -l"],
        );
        assert_eq!(none.ok(), "1");
        let theirs = suite
            .run(
                cli,
                ["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"],
            )
            .ok();
        assert_eq!(theirs, shell("readlink /proc/self/ns/net").ok());
    }
    Outcome::Passed
}

fn a_container_joins_anothers_network(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "web", "busybox", "sh", "-c", SERVER]).ok();
    wait_for("the shared loopback", Duration::from_secs(10), || {
        suite
            .tug([
                "run",
                "--rm",
                "--network",
                "container:web",
                "busybox",
                "fetch",
                "http://127.0.0.1/",
            ])
            .stdout
            == "served\n"
    });
    Outcome::Passed
}

fn ephemeral_ports_and_ranges(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite
            .run(
                cli,
                [
                    "run",
                    "-d",
                    "--name",
                    "any",
                    "-p",
                    "80",
                    "-p",
                    "9100-9102:9000-9002",
                    "busybox",
                    "sh",
                    "-c",
                    SERVER,
                ],
            )
            .ok();
        let port = suite.run(cli, ["port", "any", "80"]).ok();
        let number: u16 = port.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        assert!(number >= 32768, "{port}");
        wait_until_served(&format!("http://127.0.0.1:{number}/"));
        let ranges = suite.run(cli, ["port", "any", "9002"]).ok();
        assert!(ranges.starts_with("0.0.0.0:9102"), "{ranges}");
        suite.run(cli, ["rm", "-f", "any"]).ok();
        let invalid = suite.run(cli, ["run", "--rm", "-p", "70000:80", "busybox", "true"]);
        assert_eq!(invalid.code, 125);
        assert!(invalid.stderr.to_lowercase().contains("invalid"), "{}", invalid.stderr);
    }
    Outcome::Passed
}

fn containers_reach_the_lan_by_nat(suite: &Suite) -> Outcome {
    let _lan = Lan::open();
    let mut server = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            "lan",
            "busybox",
            "nc",
            "-l",
            "-p",
            "7000",
            "-e",
            "sh",
            "-c",
            "echo $NCAT_REMOTE_ADDR reached",
        ])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let answer = suite.run(
        Cli::Tug,
        ["run", "--rm", "busybox", "sh", "-c", "nc -w 3 10.99.0.2 7000 < /dev/null"],
    );
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(answer.stdout.contains("reached"), "{} {}", answer.stdout, answer.stderr);
    Outcome::Passed
}

/// The rules of another program: iptables-nft as dockerd sets it up.
struct OtherFirewall;

impl OtherFirewall {
    fn open() -> Option<OtherFirewall> {
        let rules = "for p in iptables-nft ip6tables-nft; do \
                     $p -P FORWARD DROP && $p -N DOCKER-USER && $p -A FORWARD -j DOCKER-USER || exit; done";
        (shell(rules).code == 0).then_some(OtherFirewall)
    }
}

impl Drop for OtherFirewall {
    fn drop(&mut self) {
        shell("nft delete table ip filter; nft delete table ip6 filter");
    }
}

fn containers_work_beside_another_firewall(suite: &Suite) -> Outcome {
    let lan = Lan::open();
    let Some(_other) = OtherFirewall::open() else {
        return Outcome::Ignored("there is no iptables-nft to be the other firewall".to_owned());
    };
    let www = suite.scratch();
    std::fs::write(www.join("index.html"), "from the LAN\n").unwrap();
    let mut server = std::process::Command::new("ip")
        .args(["netns", "exec", "lan", "busybox", "httpd", "-f", "-p", "80", "-h"])
        .arg(&www)
        .spawn()
        .unwrap();
    suite.tug(["network", "create", "beside"]).ok();
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "beside",
            "-p",
            "8084:80",
            "busybox",
            "sh",
            "-c",
            SERVER,
        ])
        .ok();
    wait_until_served("http://127.0.0.1:8084/");
    let ask = |url: &str| {
        suite.tug(["run", "--rm", "--network", "beside", "busybox", "fetch", url]).stdout
    };
    let (neighbour, outside) = (ask("http://web/"), ask("http://10.99.0.2/"));
    let published = lan.fetch("http://10.99.0.1:8084/");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(neighbour, "served\n");
    assert_eq!(outside, "from the LAN\n");
    assert_eq!(published, "served");
    let rules = shell("iptables-nft -S").ok();
    assert!(rules.contains("-A FORWARD -j DOCKER-USER\n-A FORWARD -j TUG"), "{rules}");
    suite.tug(["rm", "-f", "web"]).ok();
    suite.tug(["network", "rm", "beside"]).ok();
    let after = shell("iptables-nft -S").ok();
    assert!(!after.contains("br-"), "the bridge's rules go with it: {after}");
    Outcome::Passed
}

/// A UDP socket in another network namespace, given by the path of its file.
fn udp_socket(namespace: &str, address: &str) -> UdpSocket {
    let file = std::fs::File::open(namespace).expect("the namespace is there");
    let socket = sys::netlink::netns::within(file.as_fd(), || UdpSocket::bind(address));
    let socket = socket.unwrap().unwrap_or_else(|error| panic!("{address}: {error}"));
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

fn namespace_of(suite: &Suite, container: &str) -> String {
    let pid = suite.tug(["inspect", "-f", "{{.State.Pid}}", container]).ok();
    format!("/proc/{pid}/ns/net")
}

/// Answers datagrams at port 53 of a container with its name, until the container ends.
fn answer_in(suite: &Suite, container: &'static str) {
    let words = format!("run -d --name {container} --network six -p 8053:53/udp busybox sleep 60");
    suite.run(Cli::Tug, words.split(' ')).ok();
    let socket = udp_socket(&namespace_of(suite, container), "[::]:53");
    std::thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            if let Ok((_, asker)) = socket.recv_from(&mut [0; 16]) {
                let _ = socket.send_to(container.as_bytes(), asker);
            }
        }
    });
}

/// Asks once. A connected socket takes an answer only from the address that it asked, and what came late to an
/// earlier question is no answer to this one.
fn ask(socket: &UdpSocket, host: &str) -> String {
    socket.connect((host, 8053)).unwrap();
    let mut bytes = [0; 16];
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut bytes).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    let count = socket.send(b"ping").and_then(|_| socket.recv(&mut bytes)).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn published_udp_ports_answer_from_where_they_were_asked(suite: &Suite) -> Outcome {
    let _lan = Lan::open();
    suite.tug(["network", "create", "--ipv6", "six"]).ok();
    answer_in(suite, "first");
    suite.tug(["run", "-d", "--name", "asker", "--network", "six", "busybox", "sleep", "60"]).ok();
    let (host, lan) = ("/proc/self/ns/net", "/run/netns/lan");
    let neighbour = namespace_of(suite, "asker");
    let places = [
        (host, "127.0.0.1"),
        (host, "::1"),
        (host, "10.99.0.1"),
        (host, "fd99::1"),
        (lan, "10.99.0.1"),
        (lan, "fd99::1"),
        (neighbour.as_str(), "10.99.0.1"),
        (neighbour.as_str(), "fd99::1"),
    ];
    for (from, address) in places {
        let socket = udp_socket(from, if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" });
        wait_for(&format!("{address} from {from}"), Duration::from_secs(5), || {
            ask(&socket, address) == "first"
        });
    }
    // The same flow goes on to whoever has the port now, at whatever address.
    let flows =
        [(udp_socket(lan, "0.0.0.0:5999"), "10.99.0.1"), (udp_socket(lan, "[::]:5998"), "fd99::1")];
    for name in ["first", "second"] {
        for (socket, address) in &flows {
            wait_for(&format!("{name} at {address}"), Duration::from_secs(5), || {
                ask(socket, address) == name
            });
        }
        if name == "first" {
            suite.tug(["rm", "-f", "first"]).ok();
            // Its flow is cut off the caller's path; the answering thread keeps the namespace till then.
            wait_for("no answer any more", Duration::from_secs(10), || {
                flows.iter().all(|(socket, address)| ask(socket, address).is_empty())
            });
            answer_in(suite, "second");
        }
    }
    Outcome::Passed
}

fn an_interface_has_its_own_settings_and_addresses(suite: &Suite) -> Outcome {
    suite
        .tug([
            "network",
            "create",
            "-o",
            "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
            "own",
        ])
        .ok();
    let options = "name=own,link-local-ip=169.254.8.9,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0\"";
    for cli in BOTH {
        let shown = "cat /proc/sys/net/ipv4/conf/eth0/log_martians /proc/sys/net/ipv4/conf/eth0/forwarding; ip -4 addr show eth0";
        let text = suite
            .run(cli, ["run", "--rm", "--network", options, "busybox", "sh", "-c", shown])
            .ok();
        assert!(text.starts_with("1\n0\n") && text.contains("169.254.8.9/16"), "{text}");
        let wrong = "name=own,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1";
        let refused =
            suite.run(cli, ["run", "--rm", "--network", wrong, "busybox", "true"]).fails(125);
        assert!(refused.contains("unrecognised network interface sysctl"), "{refused}");
    }
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "near",
            "--network",
            "own",
            "-p",
            "8085:80",
            "busybox",
            "sleep",
            "60",
        ])
        .ok();
    assert_eq!(suite.tug(["port", "near"]).ok(), "80/tcp -> 127.0.0.1:8085");
    Outcome::Passed
}

fn macvlan_puts_a_container_on_the_lan(suite: &Suite) -> Outcome {
    let _lan = Lan::open();
    let mut server = std::process::Command::new("ip")
        .args(["netns", "exec", "lan", "busybox", "httpd", "-f", "-p", "80", "-h"])
        .arg(suite.scratch())
        .spawn()
        .unwrap();
    let created = suite.tug([
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=lan0",
        "--subnet",
        "10.99.0.0/24",
        "--gateway",
        "10.99.0.1",
        "flat",
    ]);
    if created.stderr.contains("not supported") {
        server.kill().unwrap();
        server.wait().unwrap();
        return Outcome::Ignored("this kernel has no macvlan".to_owned());
    }
    created.ok();
    let command = "ip -4 addr show eth0; nc -w 3 10.99.0.2 80 </dev/null && echo reached";
    let answer = suite.tug([
        "run",
        "--rm",
        "--network",
        "flat",
        "--ip",
        "10.99.0.77",
        "busybox",
        "sh",
        "-c",
        command,
    ]);
    server.kill().unwrap();
    server.wait().unwrap();
    let text = answer.ok();
    assert!(text.contains("10.99.0.77/24") && text.contains("reached"), "{text}");
    Outcome::Passed
}
