//! `--chmod`: a number in octal, or letters as chmod(1) takes them.
//!
//! Source: POSIX.1-2017 `chmod`, "Extended Description"; umask counts for nothing here.

const ALL: u32 = 0o777;

/// What becomes of a file's permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    Octal(u32),
    Symbolic(Vec<Action>),
}

/// `ugo` `=` `rwx`: one of them after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Bits of those who are meant: 0o700, 0o070, 0o007 together.
    who: u32,
    operator: Operator,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Permissions by letter; `X` stands apart, since it depends on the file.
    Letters { bits: u32, search: bool, set_id: bool, sticky: bool },
    /// Those that the owner (6), group (3) or others (0) have; the shift.
    Copied(u32),
}

impl Chmod {
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok()?;
            return (mode <= 0o7777).then_some(Self::Octal(mode));
        }
        let clauses: Option<Vec<Vec<Action>>> = text.split(',').map(clause).collect();
        Some(Self::Symbolic(clauses?.concat()))
    }

    /// The permissions of something that has `mode` so far.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(actions) => {
                actions.iter().fold(mode & 0o7777, |mode, action| action.apply(mode, is_directory))
            }
        }
    }
}

impl Action {
    fn apply(self, mode: u32, is_directory: bool) -> u32 {
        let (bits, special) = match self.what {
            What::Copied(shift) => (((mode >> shift) & 0o7) * 0o111, 0),
            What::Letters { bits, search, set_id, sticky } => {
                let searched = search && (is_directory || mode & 0o111 != 0);
                let bit = |is_wanted: bool, bit: u32| if is_wanted { bit } else { 0 };
                let special = bit(set_id && self.who & 0o700 != 0, 0o4000)
                    | bit(set_id && self.who & 0o070 != 0, 0o2000)
                    | bit(sticky, 0o1000);
                (bits | bit(searched, 0o111), special)
            }
        };
        let bits = (bits & self.who) | special;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => (mode & !self.who) | bits,
        }
    }
}

fn clause(text: &str) -> Option<Vec<Action>> {
    let end = text.find(['+', '-', '='])?;
    let mut who = 0;
    for letter in text[..end].chars() {
        who |= match letter {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => ALL,
            _ => return None,
        };
    }
    if who == 0 {
        who = ALL;
    }
    let mut actions = Vec::new();
    let mut rest = &text[end..];
    while let Some(sign) = rest.chars().next() {
        let operator = match sign {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        actions.push(Action { who, operator, what: what(&rest[..end])? });
        rest = &rest[end..];
    }
    Some(actions)
}

fn what(letters: &str) -> Option<What> {
    match letters {
        "u" => return Some(What::Copied(6)),
        "g" => return Some(What::Copied(3)),
        "o" => return Some(What::Copied(0)),
        _ => {}
    }
    let (mut bits, mut search, mut set_id, mut sticky) = (0, false, false, false);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => search = true,
            's' => set_id = true,
            't' => sticky = true,
            _ => return None,
        }
    }
    Some(What::Letters { bits, search, set_id, sticky })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_chmod() {
        for (text, mode, want) in [
            ("755", 0o644, Some(0o755)),
            ("0600", 0o644, Some(0o600)),
            ("u+x", 0o644, Some(0o744)),
            ("+x", 0o644, Some(0o755)),
            ("a=r", 0o755, Some(0o444)),
            ("go-rwx", 0o755, Some(0o700)),
            ("u=rwx,g=rx,o=", 0o644, Some(0o750)),
            ("g=u", 0o740, Some(0o770)),
            ("a+X", 0o644, Some(0o644)),
            ("a+X", 0o744, Some(0o755)),
            ("u+s,+t", 0o755, Some(0o5755)),
            ("u+r-w", 0o644, Some(0o444)),
            ("99", 0, None),
            ("17777", 0, None),
            ("rwx", 0, None),
            ("z+x", 0, None),
            ("", 0, None),
        ] {
            let got = Chmod::parse(text).map(|chmod| chmod.apply(mode, false));
            assert_eq!(got, want, "{text} {mode:o}");
        }
        assert_eq!(Chmod::parse("a+X").unwrap().apply(0o644, true), 0o755);
    }
}
