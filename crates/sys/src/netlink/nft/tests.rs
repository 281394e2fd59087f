//! What we encode is what Debian's `nft` lists. That program is needed by these tests only.

use std::process::Command;

use expect_test::expect;

use super::expr::{Conntrack, Meta, NatFamily, PayloadBase, Relation, Rule};
use super::*;
use crate::netlink::{Protocol, netns};

/// Runs in a namespace of its own and gives what `nft list ruleset` prints there.
fn listing(fill: impl FnOnce(&mut Socket) + Send) -> Option<String> {
    if !crate::testing::privileged("nftables need a network namespace of their own") {
        return None;
    }
    let (_, text) = netns::create(|| {
        fill(&mut Socket::open(Protocol::Netfilter).unwrap());
        let output = Command::new("nft").args(["-n", "list", "ruleset"]).output();
        output.map(|output| String::from_utf8(output.stdout).unwrap())
    })
    .unwrap();
    match text {
        Ok(text) => Some(text),
        Err(_) => {
            crate::testing::ignored("there is no nft program to compare with");
            None
        }
    }
}

const TABLE: Table<'static> = Table { family: Family::Inet, name: "t" };

#[test]
fn sets_maps_and_rules_read_back_as_meant() {
    let Some(text) = listing(|socket| {
        let mut batch = Batch::new();
        batch.table_add(TABLE);
        let target = [FieldType::Ipv4, FieldType::Port];
        let key = [FieldType::Protocol, FieldType::Port];
        batch.set_add(
            TABLE,
            &NewSet {
                name: "published",
                key: &key,
                keys: Keys::Exact,
                data: SetData::Value(&target),
            },
        );
        batch.set_add(
            TABLE,
            &NewSet {
                name: "inside",
                key: &[FieldType::Ipv4],
                keys: Keys::Intervals,
                data: SetData::None,
            },
        );
        batch.set_add(
            TABLE,
            &NewSet {
                name: "fate",
                key: &[FieldType::Interface],
                keys: Keys::Exact,
                data: SetData::Verdict,
            },
        );
        let base = Base {
            kind: ChainKind::Nat,
            hook: Hook::Prerouting,
            priority: -100,
            policy: Policy::Accept,
        };
        batch.chain_add(TABLE, "pre", Some(base));
        batch.chain_add(TABLE, "deeper", None);
        let published = SetRef { name: "published", key_fields: 2, data_fields: 2 };
        let address = Ipv4Addr::new(172, 17, 0, 2);
        batch.elements_add(
            TABLE,
            published,
            &[Element::map(Key::new().protocol(6).port(80), Key::new().ipv4(address).port(5000))],
        );
        let inside = SetRef { name: "inside", key_fields: 1, data_fields: 0 };
        batch.elements_add(
            TABLE,
            inside,
            &[
                Element::range([172, 17, 0, 0].into(), [172, 17, 255, 255].into()),
                Element::range([240, 0, 0, 0].into(), [255; 4].into()),
            ],
        );
        let fate = SetRef { name: "fate", key_fields: 1, data_fields: 0 };
        let verdict = Data::Verdict(Verdict::Jump("deeper".into()));
        batch.elements_add(
            TABLE,
            fate,
            &[Element { key: Key::new().interface("tug0"), end: None, data: verdict }],
        );
        let rule = Rule::new()
            .only_family(NatFamily::Ipv4, 0)
            .destination_kind(0)
            .compare(0, Relation::Equal, &2u32.to_ne_bytes())
            .meta(Meta::TransportProtocol, 0)
            .destination_port(1)
            .map("published", 0, 0)
            .destination_nat(NatFamily::Ipv4, 0, 1);
        batch.rule_add(TABLE, "pre", &rule);
        let rule = Rule::new()
            .conntrack(Conntrack::State, 0)
            .any_bit(0, 2 | 4)
            .meta(Meta::InputName, 0)
            .verdict_map("fate", 0);
        batch.rule_add(TABLE, "deeper", &Rule::new().counter().limit(5).verdict(&Verdict::Drop));
        batch.rule_add(TABLE, "pre", &rule);
        let rule = Rule::new()
            .only_family(NatFamily::Ipv4, 0)
            .source(NatFamily::Ipv4, 0)
            .lookup("inside", 0, Relation::NotEqual)
            .verdict(&Verdict::Accept);
        batch.rule_add(TABLE, "pre", &rule);
        batch.commit(socket).unwrap();
        assert!(table_exists(socket, TABLE).unwrap());
        assert!(!table_exists(socket, Table { family: Family::Inet, name: "other" }).unwrap());
        assert_eq!(dump_base_chains(socket).unwrap().len(), 1);
    }) else {
        return;
    };
    expect![[r#"
        table inet t {
        	map published {
        		type inet_proto . inet_service : ipv4_addr . inet_service
        		elements = { 6 . 80 : 172.17.0.2 . 5000 }
        	}

        	set inside {
        		type ipv4_addr
        		flags interval
        		elements = { 172.17.0.0/16, 240.0.0.0/4 }
        	}

        	map fate {
        		type ifname : verdict
        		elements = { "tug0" : jump deeper }
        	}

        	chain pre {
        		type nat hook prerouting priority -100; policy accept;
        		meta nfproto 2 fib daddr type 2 dnat ip to meta l4proto . th dport map @published
        		ct state 0x2,0x4 iifname vmap @fate
        		ip saddr != @inside accept
        	}

        	chain deeper {
        		counter packets 0 bytes 0 limit rate 5/second drop
        	}
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_batch_is_all_or_nothing_and_says_which_part_failed() {
    let Some(text) = listing(|socket| {
        let mut batch = Batch::new();
        batch.table_add(TABLE);
        batch.rule_add(TABLE, "absent", &Rule::new().masquerade());
        let error = batch.commit(socket).unwrap_err();
        assert_eq!(error.to_string(), "cannot add a rule to chain absent");
        assert!(error.is_missing());
        assert!(!table_exists(socket, TABLE).unwrap());
    }) else {
        return;
    };
    assert_eq!(text, "");
}

#[test]
fn many_elements_and_the_bridge_family_work() {
    const BRIDGE: Table<'static> = Table { family: Family::Bridge, name: "b" };
    let Some(text) = listing(|socket| {
        let mut batch = Batch::new();
        batch.table_add(BRIDGE);
        let key = [FieldType::Interface, FieldType::Ether];
        batch.set_add(
            BRIDGE,
            &NewSet { name: "own", key: &key, keys: Keys::Exact, data: SetData::None },
        );
        let own = SetRef { name: "own", key_fields: 2, data_fields: 0 };
        let elements: Vec<Element> = (0..5000u32)
            .map(|n| Element::of(Key::new().interface(&format!("veth{n}")).mac([2, 0, 0, 0, 0, 1])))
            .collect();
        batch.elements_add(BRIDGE, own, &elements);
        let base = Base {
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: -300,
            policy: Policy::Accept,
        };
        batch.chain_add(BRIDGE, "pre", Some(base));
        let rule = Rule::new()
            .meta(Meta::InputName, 0)
            .payload(PayloadBase::Link, 6, 6, 4)
            .lookup("own", 0, Relation::NotEqual)
            .verdict(&Verdict::Drop);
        batch.rule_add(BRIDGE, "pre", &rule);
        batch.commit(socket).unwrap();
        let mut batch = Batch::new();
        batch.elements_delete(BRIDGE, own, &elements[1..]);
        batch.commit(socket).unwrap();
    }) else {
        return;
    };
    expect![[r#"
        table bridge b {
        	set own {
        		type ifname . ether_addr
        		elements = { "veth0" . 02:00:00:00:00:01 }
        	}

        	chain pre {
        		type filter hook prerouting priority -300; policy accept;
        		iifname . ether saddr != @own drop
        	}
        }
    "#]]
    .assert_eq(&text);
}
