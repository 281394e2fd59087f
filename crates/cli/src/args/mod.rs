//! The command line's grammar: commands, their flags, and what was found in `argv`.
//!
//! A command is a constant: its usage line, its flags, how many arguments it takes, and the
//! function that runs it. [`parse`] turns words into [`Matches`] by pflag's rules (long and
//! short forms, clusters such as `-it`, values attached or apart, `--` as the end), and
//! [`help`] prints a command the way Docker's users know it.
//!
//! Invariant: after parsing, every value has passed its [`Kind`]'s check, so readers may rely
//! on its form. What needs more than the one value (conflicts, files) is the command's own.

pub mod check;
pub mod go;
pub mod help;
pub mod parse;

use std::{future::Future, pin::Pin};

use crate::{context::Session, failure::Failure};

pub use parse::Matches;

/// The form of a flag's value. Each has its own name in help and its own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Uint16,
    Decimal,
    Duration,
    Bytes,
    /// `-1` or a size.
    SwapBytes,
    /// Any text, many times.
    List,
    /// Many times; each value may hold several parted by commas.
    Strings,
    /// `key=value`, many times.
    Map,
    /// `key=value`, several parted by commas.
    Pairs,
    Filter,
    Attach,
    Env,
    Label,
    ExtraHost,
    Dns,
    DnsSearch,
    Link,
    LinkLocal,
    DeviceCgroupRule,
    WeightDevice,
    ThrottleBps,
    ThrottleIops,
    Sysctl,
    Ulimit,
    Mount,
    Network,
    Gpus,
    /// An image's name, many times.
    Reference,
}

impl Kind {
    /// The word after the flag's name in help; none for a switch.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Bool => "",
            Kind::Text => "string",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Uint16 => "uint16",
            Kind::Decimal => "decimal",
            Kind::Duration => "duration",
            Kind::Bytes | Kind::SwapBytes => "bytes",
            Kind::Strings => "strings",
            Kind::Map | Kind::Sysctl => "map",
            Kind::Pairs => "stringToString",
            Kind::Filter => "filter",
            Kind::Ulimit => "ulimit",
            Kind::Mount => "mount",
            Kind::Network => "network",
            Kind::Gpus => "gpu-request",
            Kind::List
            | Kind::Attach
            | Kind::Env
            | Kind::Label
            | Kind::ExtraHost
            | Kind::Dns
            | Kind::DnsSearch
            | Kind::Link
            | Kind::LinkLocal
            | Kind::DeviceCgroupRule
            | Kind::WeightDevice
            | Kind::ThrottleBps
            | Kind::ThrottleIops
            | Kind::Reference => "list",
        }
    }
}

/// One option of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    /// Go's text for the value when not given; shown in help unless it is the kind's zero.
    pub default: &'static str,
    pub usage: &'static str,
    pub hidden: bool,
    /// Tug's own, which Docker's client has not; help lists it apart.
    pub own: bool,
    /// The flag that this is another spelling of.
    pub same_as: Option<&'static str>,
}

impl Flag {
    pub const fn s(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    pub const fn or(mut self, default: &'static str) -> Flag {
        self.default = default;
        self
    }

    pub const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }

    pub const fn own(mut self) -> Flag {
        self.own = true;
        self
    }

    pub const fn same_as(mut self, name: &'static str) -> Flag {
        self.same_as = Some(name);
        self.hidden = true;
        self
    }
}

/// A flag without a short form and without a default.
pub const fn flag(name: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag { name, short: None, kind, default: "", usage, hidden: false, own: false, same_as: None }
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
    /// One; with this flag one or more.
    OneUnless(&'static str),
    /// So many, told as a bare count where Docker leaves it to its command line library.
    Counted(usize),
}

impl Arity {
    /// What counts with the flags that were given.
    pub fn given(self, matches: &Matches) -> Arity {
        match self {
            Arity::OneUnless(flag) if matches.find(flag).is_some() => Arity::AtLeast(1),
            Arity::OneUnless(_) => Arity::Exactly(1),
            other => other,
        }
    }
}

/// Where option parsing ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Options may stand anywhere.
    Mixed,
    /// The first argument ends the options: what follows belongs to a program.
    OptionsFirst,
    /// Nothing is read but `--help`: the command is there only to say why it is not.
    Verbatim,
}

pub type Outcome = Result<u8, Failure>;
pub type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A command that does something.
pub struct Command {
    pub name: &'static str,
    /// Other names under the same parent.
    pub aliases: &'static [&'static str],
    /// Every full spelling, without the program's name, for help; empty when there is one.
    pub spellings: &'static [&'static str],
    /// What follows the command's name in the usage line.
    pub usage: &'static str,
    pub about: &'static str,
    pub flags: &'static [&'static [Flag]],
    pub arity: Arity,
    pub order: Order,
    pub run: for<'a> fn(&'a Session, &'a Matches) -> Running<'a>,
}

impl Command {
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().flat_map(|flags| flags.iter())
    }
}

/// Where the program's own help lists a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Management,
    Swarm,
    /// What Docker's client has not.
    Own,
    Hidden,
}

/// A management command: a name over other commands.
pub struct Group {
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What its own help says instead, if more.
    pub long: &'static str,
    pub section: Section,
    pub groups: &'static [Group],
    /// Commands that are not listed.
    pub hidden: &'static [&'static str],
    pub commands: &'static [&'static Command],
}

/// A group of commands in Docker's help, all else at its usual.
pub const fn group(
    name: &'static str,
    about: &'static str,
    commands: &'static [&'static Command],
) -> Group {
    Group {
        name,
        about,
        long: "",
        section: Section::Management,
        groups: &[],
        hidden: &[],
        commands,
    }
}
