//! Shell patterns of the `reference` filter.
//!
//! Source: Go `path.Match`; distribution `reference/helpers.go`, `FamiliarMatch`.

use spec::Reference;

/// Whether a pattern matches a name, with or without its tag.
pub(super) fn matches(pattern: &str, name: &Reference) -> bool {
    glob(pattern.as_bytes(), name.familiar().as_bytes())
        || glob(pattern.as_bytes(), name.familiar_name().as_bytes())
}

/// Whether a class never ends or nothing is escaped.
pub(super) fn is_malformed(pattern: &str) -> bool {
    let mut rest = pattern.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = match first {
            b'[' => match class(more, 0) {
                Some((_, after)) => after,
                None => return true,
            },
            b'\\' => match more.split_first() {
                Some((_, after)) => after,
                None => return true,
            },
            _ => more,
        };
    }
    false
}

/// `*` and `?` do not match a slash; a malformed class matches nothing.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((b'*', rest)), _) => {
            let reach = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=reach).any(|length| glob(rest, &text[length..]))
        }
        (Some((b'?', rest)), Some((first, more))) => *first != b'/' && glob(rest, more),
        (Some((b'[', rest)), Some((first, more))) => class(rest, *first)
            .is_some_and(|(fits, rest)| fits && *first != b'/' && glob(rest, more)),
        (Some((b'\\', [wanted, rest @ ..])), Some((first, more))) => {
            wanted == first && glob(rest, more)
        }
        (Some((wanted, rest)), Some((first, more))) => wanted == first && glob(rest, more),
        (Some(_), None) => false,
    }
}

/// Reads a class after its bracket: whether `byte` is in it, and what follows.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut fits = false;
    let mut first = true;
    loop {
        rest = match rest {
            [b']', after @ ..] if !first => return Some((fits != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                fits |= (*low..=*high).contains(&byte);
                after
            }
            [one, after @ ..] => {
                fits |= *one == byte;
                after
            }
            [] => return None,
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, want: bool) {
        assert_eq!(matches(pattern, &Reference::parse(name).unwrap()), want, "{pattern} {name}");
    }

    #[test]
    fn patterns_match_familiar_names() {
        check("busybox", "busybox:1.36", true);
        check("busybox:1.*", "busybox:1.36", true);
        check("busy*", "busybox", true);
        check("*", "user/app", false);
        check("*/*", "user/app:v1", true);
        check("app:v[0-9]", "app:v1", true);
        check("app:v[^0-9]", "app:v1", false);
        check("*:latest", "app", true);
        check("app:v[", "app:v1", false);
    }

    #[test]
    fn a_pattern_that_breaks_off_is_malformed() {
        for pattern in ["[", "app:v[0-9", "app\\", "[]"] {
            assert!(is_malformed(pattern), "{pattern}");
        }
        for pattern in ["", "app", "[a-z]*", "\\[", "[]]"] {
            assert!(!is_malformed(pattern), "{pattern}");
        }
    }
}
