//! Who the program runs as: looked up in the image's files, then assumed for good.
//!
//! Source for the rules of looking up: moby `github.com/moby/sys/user`, behaviour of `GetExecUser`.

use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use spec::runtime::{Capabilities, Process};
use sys::capability::{self, OnUserChange, Set};
use sys::path::Root;
use sys::users::{self, Group, Passwd};

use crate::error::{Kind, LaunchError, at};
use crate::request::UserRequest;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks up the user in the container's tree.
pub(crate) fn resolve(
    root: &Root,
    process: &Process,
    request: Option<&UserRequest>,
) -> Result<Identity, LaunchError> {
    let passwd: Vec<Passwd> = users::parse_passwd(&read(root, "/etc/passwd")).collect();
    let Some(request) = request else {
        let user = &process.user;
        let home =
            passwd.iter().find(|line| line.uid == user.uid).map_or("/", |line| line.home.as_str());
        return Ok(Identity {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids.clone(),
            home: home.to_owned(),
        });
    };
    let groups: Vec<Group> = users::parse_group(&read(root, "/etc/group")).collect();
    find(request, &passwd, &groups).map_err(|message| LaunchError::new(Kind::UnknownUser, message))
}

/// The numbers of `user`, written as for `--user`, by the files of the tree below `root`.
///
/// # Errors
/// Docker's words for a user that is not there.
pub fn find_user(root: &Root, user: &str) -> Result<(u32, u32), String> {
    let passwd: Vec<Passwd> = users::parse_passwd(&read(root, "/etc/passwd")).collect();
    let groups: Vec<Group> = users::parse_group(&read(root, "/etc/group")).collect();
    let request = UserRequest { user: user.to_owned(), groups: Vec::new() };
    find(&request, &passwd, &groups).map(|found| (found.uid, found.gid))
}

/// A file of the image; one that is missing, huge or no file is empty.
fn read(root: &Root, path: &str) -> String {
    let text = || -> std::io::Result<String> {
        // A fifo in its place must not hold us up.
        let file =
            root.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(users::FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    text().unwrap_or_default()
}

fn find(request: &UserRequest, passwd: &[Passwd], groups: &[Group]) -> Result<Identity, String> {
    let (user, group) = request.user.split_once(':').unwrap_or((&request.user, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    // A number is always an id, though an image may have a user of that name (CVE-2026-30892).
    let line = passwd.iter().find(|line| match number {
        Some(uid) => line.uid == uid,
        None => line.name == user,
    });
    let (uid, mut gid, home, name) = match (line, number) {
        (Some(line), _) => (line.uid, line.gid, line.home.clone(), Some(line.name.as_str())),
        (None, Some(uid)) => (uid, 0, "/".to_owned(), None),
        (None, None) if user.parse::<i64>().is_ok() => return Err(range()),
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    let mut all = Vec::new();
    if !group.is_empty() {
        gid = find_group(group, groups)?;
    } else if let Some(name) = name {
        let member = |line: &&Group| line.members.iter().any(|member| member == name);
        all.extend(groups.iter().filter(member).map(|line| line.gid));
    }
    // moby daemon/oci_linux.go: the primary group is listed among the further ones.
    all.insert(0, gid);
    for group in &request.groups {
        all.push(find_group(group, groups)?);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|gid| seen.insert(*gid));
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(Identity { uid, gid, groups: all, home })
}

fn find_group(group: &str, groups: &[Group]) -> Result<u32, String> {
    let number = id(group);
    let line = groups.iter().find(|line| match number {
        Some(gid) => line.gid == gid,
        None => line.name == group,
    });
    match (line, number) {
        (Some(line), _) => Ok(line.gid),
        (None, Some(gid)) => Ok(gid),
        (None, None) if group.parse::<i64>().is_ok() => Err(range()),
        (None, None) => {
            Err(format!("unable to find group {group}: no matching entries in group file"))
        }
    }
}

fn id(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok())
}

fn range() -> String {
    "uids and gids must be in range 0-2147483647".to_owned()
}

/// Gives the program's user its standard streams, or /dev/stdout could not be opened by them.
pub(crate) fn own_streams(identity: &Identity) {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let is_null = stat.st_rdev == rustix::fs::makedev(1, 3);
        if stat.st_uid != identity.uid && !is_null {
            // Fails for files of others in a user namespace, and they stay as they are.
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(identity.uid)), None);
        }
    }
}

/// Becomes the user with the capabilities of the document, as far as the host holds them; no sets
/// mean none. `until_exec` are kept besides, but in no set that execve makes the program's from.
pub(crate) fn assume(
    identity: &Identity,
    wanted: Option<&Capabilities>,
    until_exec: Set,
) -> Result<(), LaunchError> {
    let none = Capabilities::default();
    let wanted = wanted.unwrap_or(&none);
    let held = capability::permitted().map_err(at("capget"))?;
    let parse = |names: &[String]| Set::parse(names.iter().map(String::as_str)).intersect(held);
    let bounding = parse(&wanted.bounding);
    capability::limit_bounding(bounding).map_err(at("unable to apply bounding set"))?;
    capability::on_user_change(OnUserChange::Keep).map_err(at("unable to set keep caps"))?;
    capability::set_identity(identity.uid, identity.gid, &identity.groups)
        .map_err(at("unable to setup user"))?;
    capability::on_user_change(OnUserChange::Drop).map_err(at("unable to clear keep caps"))?;
    let until_exec = until_exec.intersect(held);
    let permitted = parse(&wanted.permitted);
    let effective = parse(&wanted.effective).intersect(permitted);
    let inheritable = parse(&wanted.inheritable);
    capability::set(effective.union(until_exec), permitted.union(until_exec), inheritable)
        .map_err(at("unable to apply caps"))?;
    let ambient = parse(&wanted.ambient).intersect(permitted).intersect(inheritable);
    capability::set_ambient(ambient).map_err(at("unable to apply ambient caps"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:me\nwheel:x:10:me,root\n";

    fn check(user: &str, further: &[&str], want: &Expect) {
        let request = UserRequest {
            user: user.into(),
            groups: further.iter().map(|&name| name.into()).collect(),
        };
        let passwd: Vec<_> = users::parse_passwd(PASSWD).collect();
        let groups: Vec<_> = users::parse_group(GROUP).collect();
        let shown = match find(&request, &passwd, &groups) {
            Ok(found) => format!("{}:{} {:?} {}", found.uid, found.gid, found.groups, found.home),
            Err(error) => error,
        };
        want.assert_eq(&shown);
    }

    #[test]
    fn nobody_asked_for_is_root() {
        check("", &[], &expect!["0:0 [0, 10] /root"]);
    }

    #[test]
    fn a_name_brings_its_groups_and_its_home() {
        check("me", &[], &expect!["1000:1001 [1001, 50, 10] /home/me"]);
    }

    #[test]
    fn a_known_number_is_that_user() {
        check("1000", &["staff", "77"], &expect!["1000:1001 [1001, 50, 10, 77] /home/me"]);
    }

    #[test]
    fn an_unknown_number_is_taken_as_it_is() {
        check("4242", &[], &expect!["4242:0 [0] /"]);
    }

    #[test]
    fn a_group_that_is_named_is_the_only_one() {
        check("me:wheel", &[], &expect!["1000:10 [10] /home/me"]);
    }

    #[test]
    fn a_number_is_an_id_whatever_the_image_calls_its_users() {
        let passwd: Vec<_> = users::parse_passwd("1000:x:0:0::/root:/bin/sh\n").collect();
        let groups: Vec<_> = users::parse_group("50:x:0:\n").collect();
        let request = UserRequest { user: "1000:50".into(), groups: vec!["50".into()] };
        let found = find(&request, &passwd, &groups).unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (1000, 50, vec![50]));
    }

    #[test]
    fn an_unknown_name_is_refused_in_dockers_words() {
        check("foo", &[], &expect!["unable to find user foo: no matching entries in passwd file"]);
        check(
            "me:foo",
            &[],
            &expect!["unable to find group foo: no matching entries in group file"],
        );
        check("-1", &[], &expect!["uids and gids must be in range 0-2147483647"]);
    }
}
