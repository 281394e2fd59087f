//! Device nodes of a run, and which devices it may use.

use std::fmt;
use std::str::FromStr;

use super::PathInside;

/// Nodes are made, rules are set; neither follows from the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    pub nodes: Vec<DeviceNode>,
    /// The last one that fits a device counts.
    pub rules: Vec<DeviceRule>,
}

/// A node in the run's `/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    pub path: PathInside,
    pub kind: DeviceKind,
    pub number: DeviceNumber,
    /// Permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Character,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// What may be done with some devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub verdict: Verdict,
    /// `None` is either kind.
    pub kind: Option<DeviceKind>,
    /// `None` is every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

/// Some of read, write and mknod: `rwm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess(u8);

/// Why a text is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device rule is a kind, numbers and an access, such as \"c 1:3 rwm\"")]
pub struct DeviceRuleError;

const LETTERS: &[u8; 3] = b"rwm";

impl DeviceAccess {
    pub const ALL: DeviceAccess = DeviceAccess(0b111);
    pub const MKNOD: DeviceAccess = DeviceAccess(0b100);
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            DeviceKind::Character => "c",
            DeviceKind::Block => "b",
        })
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = LETTERS.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        named.map(|(_, letter)| char::from(*letter)).try_for_each(|letter| write!(out, "{letter}"))
    }
}

impl FromStr for DeviceAccess {
    type Err = DeviceRuleError;

    fn from_str(text: &str) -> Result<DeviceAccess, DeviceRuleError> {
        let bits = text.bytes().try_fold(0, |bits, letter| {
            let bit = LETTERS.iter().position(|known| *known == letter)?;
            Some(bits | 1 << bit)
        });
        bits.filter(|bits| *bits != 0).map(DeviceAccess).ok_or(DeviceRuleError)
    }
}

/// `c 1:3 mr`, where numbers may be `*`.
impl FromStr for DeviceRule {
    type Err = DeviceRuleError;

    fn from_str(text: &str) -> Result<DeviceRule, DeviceRuleError> {
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, numbers, access] = words[..] else { return Err(DeviceRuleError) };
        let kind = match kind {
            "a" => None,
            "c" => Some(DeviceKind::Character),
            "b" => Some(DeviceKind::Block),
            _ => return Err(DeviceRuleError),
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| DeviceRuleError),
        };
        let (major, minor) = numbers.split_once(':').ok_or(DeviceRuleError)?;
        let (major, minor) = (number(major)?, number(minor)?);
        Ok(DeviceRule { verdict: Verdict::Allow, kind, major, minor, access: access.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_are_read_or_refused() {
        let shown = |text: &str| {
            let rule: DeviceRule = text.parse().ok()?;
            Some(format!("{:?} {:?}:{:?} {}", rule.kind, rule.major, rule.minor, rule.access))
        };
        assert_eq!(shown("c 1:3 mr").unwrap(), "Some(Character) Some(1):Some(3) rm");
        assert_eq!(shown("a *:* rwm").unwrap(), "None None:None rwm");
        for bad in ["x 1:3 r", "c 1 r", "c 1:3 q", "c 1:3", "c 1:3 ", "c 1:3 r r", "c -1:3 r"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
