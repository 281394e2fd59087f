//! Beside other firewalls: what they drop without knowing our bridges.
//!
//! An accept in our table does not overrule a drop in another one, such as the `FORWARD` policy that
//! dockerd and ufw set by iptables-nft. There, and only there, a chain of our own is put into the
//! other program's table `filter`, for IPv4 and IPv6 alike:
//!
//! ```text
//! chain FORWARD { … jump DOCKER-USER; jump TUG; … }      first, where there is no DOCKER-USER
//! chain TUG {
//!     oifname BRIDGE accept             each of ours; what may come in is decided by our own table
//!     iifname BRIDGE oifname OTHER return    each of ours, each bridge of somebody else
//!     iifname BRIDGE accept             each of ours
//! }
//! ```
//!
//! Drops that the user wrote into DOCKER-USER keep the last word, and bridges of other engines stay
//! closed to our containers. The rules have the form that iptables writes, so that it still lists
//! and saves the table.
//!
//! Invariant: the chain's rules are told by their comments, and there is one jump to it. A rule set
//! that is neither iptables-nft's nor ours is never changed, only reported ([`Obstacle`]).

use std::fmt;

use sys::netlink::nft::expr::{Meta, Rule};
use sys::netlink::nft::{self, Batch, ChainInfo, Family, Hook, Place, RuleInfo, Table, Verdict};
use sys::netlink::{NetlinkError, Socket};

/// The table and chains of iptables-nft, and dockerd's chain for the user's rules.
const TABLE: &str = "filter";
const FORWARD: &str = "FORWARD";
const DOCKER_USER: &str = "DOCKER-USER";

/// Bridges as the neighbours' rules need them.
#[derive(Clone, Copy, Debug)]
pub struct Bridges<'a> {
    pub ours: &'a [String],
    /// Those of other programs.
    pub others: &'a [String],
}

/// Which of iptables' tables may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Teach {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Default for Teach {
    fn default() -> Teach {
        Teach { ipv4: true, ipv6: true }
    }
}

/// A rule set that may drop our containers' packets, and that we do not change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A chain that drops by its policy, of somebody's own nftables table.
    Chain { table: String, chain: String },
    /// iptables-legacy, whose rules are not visible through nf_tables.
    Legacy,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Chain { table, chain } => write!(f, "nftables chain {table} {chain}"),
            Obstacle::Legacy => write!(f, "iptables-legacy"),
        }
    }
}

/// Lets our bridges pass the neighbours' tables, or takes that back where it is no longer needed.
/// `name` is our own table's.
pub(super) fn pass(
    socket: &mut Socket,
    name: &str,
    bridges: Bridges<'_>,
    teach: Teach,
) -> Result<Vec<Obstacle>, NetlinkError> {
    let chains = nft::dump_base_chains(socket)?;
    let forward: Vec<&ChainInfo> =
        chains.iter().filter(|chain| chain.hook == Hook::Forward as u32).collect();
    for (family, wanted) in [(Family::Ip, teach.ipv4), (Family::Ip6, teach.ipv6)] {
        // What an earlier daemon put there goes.
        let bridges = if wanted { bridges } else { Bridges { ours: &[], ..bridges } };
        if let Some(chain) = forward.iter().find(|chain| is_iptables(chain, family)) {
            pass_one(socket, family, chain.drops, name, bridges)?;
        }
    }
    let routed = [Family::Inet as u8, Family::Ip as u8, Family::Ip6 as u8];
    let foreign = forward.iter().filter(|chain| {
        let known = is_iptables(chain, Family::Ip) || is_iptables(chain, Family::Ip6);
        chain.drops && !known && routed.contains(&chain.family)
    });
    let mut obstacles: Vec<Obstacle> = foreign
        .map(|chain| Obstacle::Chain { table: chain.table.clone(), chain: chain.name.clone() })
        .collect();
    obstacles.extend(legacy_filters().then_some(Obstacle::Legacy));
    Ok(obstacles)
}

/// Takes our chain out of the neighbours' tables.
pub(super) fn withdraw(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let none = Bridges { ours: &[], others: &[] };
    pass(socket, name, none, Teach::default()).map(drop)
}

fn is_iptables(chain: &ChainInfo, family: Family) -> bool {
    chain.family == family as u8 && chain.table == TABLE && chain.name == FORWARD
}

/// iptables-legacy lists its tables there once it has made them. Which policy they have only
/// iptables-legacy itself can tell.
fn legacy_filters() -> bool {
    let tables = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    tables.is_ok_and(|tables| tables.lines().any(|table| table == TABLE))
}

/// The name of our chain: `TUG` or `TUG-0A1B2C`.
fn chain_name(name: &str) -> String {
    name.to_ascii_uppercase()
}

fn pass_one(
    socket: &mut Socket,
    family: Family,
    drops: bool,
    name: &str,
    bridges: Bridges<'_>,
) -> Result<(), NetlinkError> {
    let table = Table { family, name: TABLE };
    let ours = chain_name(name);
    let forward = nft::dump_rules(socket, table, FORWARD)?;
    let present = nft::dump_rules(socket, table, &ours)?;
    let leads_to = |rule: &RuleInfo, chain: &str| rule.jump.as_deref() == Some(chain);
    let docker_user = forward.iter().rposition(|rule| leads_to(rule, DOCKER_USER));
    let needed = (drops || docker_user.is_some()) && !bridges.ours.is_empty();
    let wanted = if needed { rules(bridges) } else { Vec::new() };
    let jumps: Vec<usize> =
        (0..forward.len()).filter(|&place| leads_to(&forward[place], &ours)).collect();
    let in_place = match (jumps.as_slice(), docker_user) {
        ([one], Some(user)) => needed && *one > user,
        ([_], None) => needed,
        ([], _) => !needed,
        _ => false,
    };
    let same = present
        .iter()
        .map(|rule| rule.comment.as_deref())
        .eq(wanted.iter().map(|(comment, _)| Some(comment.as_str())));
    if in_place && same {
        return Ok(());
    }
    let mut batch = Batch::new();
    for place in jumps {
        batch.rule_delete(table, FORWARD, forward[place].handle);
    }
    batch.chain_add(table, &ours, None);
    batch.rules_delete(table, &ours);
    for (comment, rule) in &wanted {
        batch.rule_add(table, &ours, &rule.clone().commented(comment));
    }
    if needed {
        let place = docker_user.map_or(Place::First, |user| Place::After(forward[user].handle));
        let jump = Rule::new().counter().verdict(&Verdict::Jump(ours));
        batch.rule(table, FORWARD, place, &jump);
    } else {
        batch.chain_delete(table, &ours);
    }
    batch.commit(socket)
}

/// The rules of our chain with the comments by which they are told.
fn rules(bridges: Bridges<'_>) -> Vec<(String, Rule)> {
    let from = |name: &str| Rule::new().by_interface(Meta::InputName, name);
    let mut rules = Vec::new();
    for ours in bridges.ours {
        let inward = Rule::new().by_interface(Meta::OutputName, ours);
        rules.push((format!("tug: to {ours}"), inward.counter().verdict(&Verdict::Accept)));
    }
    for ours in bridges.ours {
        for other in bridges.others {
            let between = from(ours).by_interface(Meta::OutputName, other);
            let rule = between.counter().verdict(&Verdict::Return);
            rules.push((format!("tug: {ours} to {other} is not ours to allow"), rule));
        }
    }
    for ours in bridges.ours {
        rules.push((format!("tug: from {ours}"), from(ours).counter().verdict(&Verdict::Accept)));
    }
    rules
}
