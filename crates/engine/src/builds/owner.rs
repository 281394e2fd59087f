//! `--chown` and `USER` names, looked up in the files of the tree they are meant for.
//!
//! Names come from the tree's own `/etc/passwd` and `/etc/group`, read through the store's writer and bounded;
//! no name service of the host is asked, and nothing of the tree is executed.

use build::worker::{Failure, FailureKind};

/// Gives the text of a file of the tree; nothing for one that is not there.
type Read<'a> = &'a mut dyn FnMut(&str) -> Result<String, Failure>;

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Whether the words are numbers alone, so that no tree is needed.
pub(super) fn numeric(words: &str) -> Option<Owner> {
    let (user, group) = words.split_once(':').unwrap_or((words, words));
    Some(Owner { uid: user.parse().ok()?, gid: group.parse().ok()? })
}

/// Looks `user[:group]` up in a tree. A user without a group has the group of the same number when it
/// is a number, and its own group when it is a name.
///
/// # Errors
/// A name that is in no file, in Docker's words.
pub(super) fn resolve(words: &str, read: Read<'_>) -> Result<Owner, Failure> {
    if let Some(owner) = numeric(words) {
        return Ok(owner);
    }
    let (user, group) = match words.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (words, None),
    };
    let (uid, own_group) = match user.parse() {
        Ok(uid) => (uid, uid),
        Err(_) => passwd(&read("etc/passwd")?, user).ok_or_else(|| missing("user", user))?,
    };
    let gid = match group {
        None => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                group_id(&read("etc/group")?, group).ok_or_else(|| missing("group", group))?
            }
        },
    };
    Ok(Owner { uid, gid })
}

fn missing(what: &str, name: &str) -> Failure {
    let text = match what {
        "user" => format!(
            "unable to convert uid/gid chown string to host mapping: can't find uid for user {name}: no such user: {name}"
        ),
        _ => format!(
            "unable to convert uid/gid chown string to host mapping: can't find gid for group {name}: no such group: {name}"
        ),
    };
    Failure::new(FailureKind::Invalid, text)
}

fn passwd(text: &str, user: &str) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_wanted = fields.next() == Some(user);
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        if is_wanted { Some((uid.parse().ok()?, gid.parse().ok()?)) } else { None }
    })
}

fn group_id(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_wanted = fields.next() == Some(group);
        let gid = fields.nth(1)?;
        if is_wanted { gid.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_file() {
        assert_eq!(numeric("1000"), Some(Owner { uid: 1000, gid: 1000 }));
        assert_eq!(numeric("1:2"), Some(Owner { uid: 1, gid: 2 }));
        assert_eq!(numeric("www:2"), None);
    }

    #[test]
    fn names_are_found_in_the_trees_files() {
        let text = "root:x:0:0:root:/:/bin/sh\nbroken\nwww:x:33:34::/:\n";
        assert_eq!(passwd(text, "www"), Some((33, 34)));
        assert_eq!(passwd(text, "broken"), None);
        assert_eq!(group_id("staff:x:50:a,b\n", "staff"), Some(50));
    }
}
