//! Registries behind TLS whose certificate nobody knows, and the ways to know it.

use std::fs;

use crate::fixtures::registry::{Auth, Certificates, Etc, Registry, without};
use crate::harness::{BOTH, Outcome, Suite};

super::cases! {
    an_unknown_certificate_is_refused_and_each_way_out_works,
    a_client_shows_its_certificate_where_it_has_one,
    a_certificate_for_another_name_is_refused,
}

const ADDRESS: &str = "127.0.0.2:5200";

/// An address whose certificate counts: loopback is insecure by itself, also for Docker.
const SECURE: &str = "10.78.0.1:5200";

struct Address;

impl Address {
    fn add() -> Address {
        crate::harness::shell("ip addr add 10.78.0.1/32 dev lo").ok();
        Address
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        crate::harness::shell("ip addr del 10.78.0.1/32 dev lo");
    }
}

fn an_unknown_certificate_is_refused_and_each_way_out_works(suite: &Suite) -> Outcome {
    let (etc, _address) = (Etc, Address::add());
    let certificates = Certificates::make(suite, "IP:10.78.0.1");
    let Some(_registry) = Registry::start(suite, SECURE, Auth::Password, Some(&certificates))
    else {
        return without();
    };
    let ca = fs::read(certificates.path("ca.crt")).unwrap();
    let name = format!("{SECURE}/box");
    suite.tug(["tag", "busybox", &name]).ok();
    let login = ["login", "-u", "me", "-p", "secret", SECURE];
    for cli in BOTH {
        for args in [&["pull", &name][..], &["push", &name], &login] {
            let said = suite.run(cli, args).fails(1);
            assert!(said.contains("tls: failed to verify certificate: x509: certificate signed by unknown authority"), "{said}");
            assert!(
                said.contains(&format!("certs.d/{SECURE}/ca.crt"))
                    && said.contains("insecure-registries"),
                "{said}"
            );
        }
        let works = || {
            suite.run(cli, login).ok();
            suite.run(cli, ["push", &name]).ok();
            suite.run(cli, ["pull", &name]).ok();
            suite.run(cli, ["logout", SECURE]).ok();
        };
        // No restart, and no reload either.
        etc.write(&format!("certs.d/{SECURE}/ca.crt"), &ca);
        works();
        etc.remove("certs.d");
        suite.run(cli, ["pull", &name]).fails(1);
        etc.write("daemon.json", format!(r#"{{"insecure-registries":["{SECURE}"]}}"#));
        suite.reload();
        works();
        etc.remove("daemon.json");
        suite.reload();
        suite.run(cli, ["pull", &name]).fails(1);
    }
    Outcome::Passed
}

fn a_client_shows_its_certificate_where_it_has_one(suite: &Suite) -> Outcome {
    let etc = Etc;
    let certificates = Certificates::make(suite, "IP:127.0.0.2").for_known_clients();
    let Some(_registry) = Registry::start(suite, ADDRESS, Auth::Nothing, Some(&certificates))
    else {
        return without();
    };
    let read = |name: &str| fs::read(certificates.path(name)).unwrap();
    let name = format!("{ADDRESS}/box");
    suite.tug(["tag", "busybox", &name]).ok();
    for cli in BOTH {
        let said = suite.run(cli, ["push", &name]).fails(1);
        // Whether the alert is read before the connection is gone is a matter of luck, with Go too.
        assert!(said.contains("Get \"https://"), "{said}");
        etc.write(&format!("certs.d/{ADDRESS}/ca.crt"), read("ca.crt"));
        etc.write(&format!("certs.d/{ADDRESS}/me.cert"), read("client.crt"));
        let said = suite.run(cli, ["push", &name]).fails(1);
        assert!(said.contains("missing key /etc/docker/certs.d/"), "{said}");
        etc.write(&format!("certs.d/{ADDRESS}/me.key"), read("client.key"));
        suite.run(cli, ["push", &name]).ok();
        suite.run(cli, ["pull", &name]).ok();
        etc.remove("certs.d");
        // The same said by hosts.toml.
        let dir = format!("certs.d/{ADDRESS}");
        etc.write(&format!("{dir}/ca.pem"), read("ca.crt"));
        etc.write(&format!("{dir}/both.pem"), [read("client.crt"), read("client.key")].concat());
        let file =
            format!("[host.\"https://{ADDRESS}\"]\nca = \"ca.pem\"\nclient = \"both.pem\"\n");
        etc.write(&format!("{dir}/hosts.toml"), file);
        suite.run(cli, ["push", &name]).ok();
        etc.remove("certs.d");
    }
    Outcome::Passed
}

fn a_certificate_for_another_name_is_refused(suite: &Suite) -> Outcome {
    let (etc, _address) = (Etc, Address::add());
    let certificates = Certificates::make(suite, "DNS:other.example,IP:10.9.9.9");
    let Some(_registry) = Registry::start(suite, SECURE, Auth::Nothing, Some(&certificates)) else {
        return without();
    };
    etc.write(&format!("certs.d/{SECURE}/ca.crt"), fs::read(certificates.path("ca.crt")).unwrap());
    for cli in BOTH {
        let said = suite.run(cli, ["pull", &format!("{SECURE}/box")]).fails(1);
        assert!(said.contains("x509: certificate is valid for 10.9.9.9, not 10.78.0.1"), "{said}");
    }
    Outcome::Passed
}
