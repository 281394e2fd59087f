//! The user and group files of a container's image, read by ourselves.
//!
//! Name services are never asked: they would run the container's own libraries (CVE-2019-14271).
//! Files are bounded in size, and lines that make no sense are skipped, as libc does.

/// Larger files are cut here: no image has a quarter of a million users.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// A line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwd {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

/// A line of group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// The users of a passwd file, in its order.
pub fn parse_passwd(text: &str) -> impl Iterator<Item = Passwd> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _comment = fields.next();
        let home = fields.next().unwrap_or_default().to_owned();
        let shell = fields.next().unwrap_or_default().to_owned();
        Some(Passwd { name, uid, gid, home, shell })
    })
}

/// The groups of a group file, in its order.
pub fn parse_group(text: &str) -> impl Iterator<Item = Group> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        let members = members.split(',').map(str::trim).filter(|member| !member.is_empty());
        Some(Group { name, gid, members: members.map(str::to_owned).collect() })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_skipped() {
        let users: Vec<_> =
            parse_passwd("root:x:0:0:root:/root:/bin/sh\nbroken\n+nis\nx:y:z:1\n").collect();
        assert_eq!(users.len(), 1);
        assert_eq!(users[0].home, "/root");
    }

    #[test]
    fn members_are_split_at_commas() {
        let groups: Vec<_> = parse_group("adm:x:4:syslog, me\nempty:x:5:\n").collect();
        assert_eq!(groups[0].members, ["syslog", "me"]);
        assert!(groups[1].members.is_empty());
    }
}
