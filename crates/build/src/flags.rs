//! `--flags` in front of an instruction's arguments, and the value of `RUN --mount`.
//!
//! Flags are taken off first, asked for one by one, and what was never asked for is unknown.

use spec::units::{parse_duration, ram_in_bytes};

use crate::instruction::{Mount, MountKind, Sharing};

/// A flag that cannot be used. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    #[error("unknown flag: --{name}{}", hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default())]
    Unknown { name: String, hint: Option<&'static str> },
    #[error("missing a value on flag: --{0}")]
    NoValue(String),
    #[error("duplicate flag specified: {0}")]
    Twice(String),
    #[error("expecting boolean value for flag {flag}, not: {value}")]
    Truth { flag: String, value: String },
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    #[error("Interval {name:?} cannot be less than 1ms")]
    Interval { name: String },
    #[error("--retries must be at least 0 (not {0})")]
    Retries(String),
    #[error("invalid value {value:?} for flag: {flag}")]
    Value { flag: String, value: String },
    #[error("invalid mount target {0:?}: must not be empty")]
    MountTarget(&'static str),
    #[error("unsupported mount type {0:?}")]
    MountType(String),
    #[error("unexpected key '{key}' in '{field}'")]
    MountKey { key: String, field: String },
    #[error("invalid value for {key}: {value}")]
    MountValue { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    MountNumber { key: String, value: String },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    MountKeyOfOther { key: String, kind: &'static str },
    #[error("{key} not allowed for {kind:?} type mounts")]
    MountOwner { key: String, kind: &'static str },
    #[error("unsupported sharing value {0:?}")]
    Sharing(String),
    #[error("invalid cache sharing set for {0} mount")]
    SharingOfOther(&'static str),
    #[error("{0}")]
    SecretMount(&'static str),
    #[error("invalid field '{0}' must be a key=value pair")]
    MountField(String),
}

/// Flags not yet asked for: name, value, in order.
#[derive(Debug, Default)]
pub struct Flags {
    left: Vec<(String, Option<String>)>,
    asked: Vec<&'static str>,
}

impl Flags {
    /// Takes the flags off the front of `rest`; gives them and what is left.
    pub fn take(rest: &str, escape: char) -> (Self, String) {
        let mut flags = Self::default();
        let mut rest = rest.trim_start();
        while rest.starts_with("--") {
            let end = word_end(rest, escape);
            let word = unquote(&rest[2..end], escape);
            rest = rest[end..].trim_start();
            if word.is_empty() {
                break;
            }
            match word.split_once('=') {
                Some((name, value)) => flags.left.push((name.to_owned(), Some(value.to_owned()))),
                None => flags.left.push((word, None)),
            }
        }
        (flags, rest.to_owned())
    }

    fn all(&mut self, name: &'static str) -> Vec<Option<String>> {
        self.asked.push(name);
        let mut values = Vec::new();
        self.left.retain_mut(|(own, value)| {
            let wanted = own == name;
            if wanted {
                values.push(value.take());
            }
            !wanted
        });
        values
    }

    fn single(&mut self, name: &'static str) -> Result<Option<Option<String>>, FlagError> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(FlagError::Twice(name.to_owned())),
        }
    }

    /// The value of a flag that has one.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, FlagError> {
        match self.single(name)? {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(FlagError::NoValue(name.to_owned())),
        }
    }

    /// The values of a flag that may be given again.
    pub fn texts(&mut self, name: &'static str) -> Result<Vec<String>, FlagError> {
        self.all(name)
            .into_iter()
            .map(|value| value.ok_or_else(|| FlagError::NoValue(name.to_owned())))
            .collect()
    }

    /// A flag that is true when it has no value.
    pub fn truth(&mut self, name: &'static str) -> Result<Option<bool>, FlagError> {
        match self.single(name)? {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(value)) => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(FlagError::Truth { flag: name.to_owned(), value }),
            },
        }
    }

    /// Nanoseconds; zero when the flag is not given.
    pub fn duration(&mut self, name: &'static str) -> Result<i64, FlagError> {
        let Some(text) = self.text(name)? else { return Ok(0) };
        let nanos = parse_duration(&text).map_err(|_| FlagError::Duration(text.clone()))?;
        match nanos {
            0 => Ok(0),
            short if short < 1_000_000 => Err(FlagError::Interval { name: name.to_owned() }),
            long => Ok(long),
        }
    }

    /// A number from zero on.
    pub fn count(&mut self, name: &'static str) -> Result<i64, FlagError> {
        let Some(text) = self.text(name)? else { return Ok(0) };
        match text.parse::<i32>() {
            Ok(number) if number >= 0 => Ok(i64::from(number)),
            Ok(_) | Err(_) => Err(FlagError::Retries(text)),
        }
    }

    /// `--mount=…`, any number of them.
    pub fn mounts(&mut self) -> Result<Vec<Mount>, FlagError> {
        self.texts("mount")?.iter().map(|text| mount(text)).collect()
    }

    /// Refuses what nobody asked for.
    pub fn none_left(&self) -> Result<(), FlagError> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let near =
            |known: &&&str| known.len().abs_diff(name.len()) <= 2 && same_letters(known, name);
        Err(FlagError::Unknown { name: name.clone(), hint: self.asked.iter().find(near).copied() })
    }
}

/// Near enough for "did you mean": all but two of the longer word's letters are in the other.
fn same_letters(a: &str, b: &str) -> bool {
    let mut pool: Vec<char> = b.chars().collect();
    let mut missing = 0;
    for c in a.chars() {
        match pool.iter().position(|&own| own == c) {
            Some(at) => {
                pool.remove(at);
            }
            None => missing += 1,
        }
    }
    missing + pool.len() <= 2 && a.len() > 2
}

fn word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == escape && quote != Some('\'') {
            chars.next();
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        } else if quote.is_none() && c.is_whitespace() {
            return at;
        }
    }
    text.len()
}

/// Takes quotes off; `\$` stays for the expansion to come.
fn unquote(word: &str, escape: char) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            match chars.peek() {
                Some('$') => out.push(c),
                Some(_) | None => out.extend(chars.next()),
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        } else {
            out.push(c);
        }
    }
    out
}

fn mount(text: &str) -> Result<Mount, FlagError> {
    let mut kind = MountKind::Bind;
    let mut fields = Vec::new();
    for field in csv(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("type", Some(value)) => kind = mount_kind(&value)?,
            (_, value) => fields.push((key, value, field)),
        }
    }
    let mut mount = Mount {
        kind,
        target: None,
        source: None,
        from: None,
        read_only: kind == MountKind::Bind,
        id: None,
        sharing: Sharing::Shared,
        mode: None,
        uid: None,
        gid: None,
        size_bytes: None,
        required: false,
        env: None,
        deferred: Vec::new(),
    };
    for (key, value, field) in fields {
        fits(kind, &key)?;
        match value {
            Some(value) if value.contains('$') && is_deferred(&key) => {
                mount.deferred.push((key, value));
            }
            value => mount_field(&mut mount, key, value, field)?,
        }
    }
    if kind == MountKind::Secret {
        check_secret(&mount)?;
    }
    let needs_target = matches!(kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    match &mount.target {
        None if needs_target => Err(FlagError::MountTarget("target")),
        Some(target) if needs_target && target.is_empty() => Err(FlagError::MountTarget("target")),
        Some(_) | None => Ok(mount),
    }
}

/// Values that are text until the solver expands them are kept as they are; these are read.
fn is_deferred(key: &str) -> bool {
    !matches!(key, "source" | "src" | "target" | "dst" | "destination" | "from" | "id" | "env")
}

/// Gives a field that had variables its value.
///
/// # Errors
/// As for one without.
pub fn set_field(mount: &mut Mount, key: &str, value: String) -> Result<(), FlagError> {
    let field = format!("{key}={value}");
    mount_field(mount, key.to_owned(), Some(value), field)
}

/// Whether mounts of this kind have such a field.
///
/// Source: buildkit `frontend/dockerfile/instructions/commands_runmount.go`, `validateMount`.
fn fits(kind: MountKind, key: &str) -> Result<(), FlagError> {
    use MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};
    let (key, word) = (key.to_owned(), kind.word());
    match (key.as_str(), kind) {
        ("required", Bind | Cache | Tmpfs)
        | ("size", Bind | Cache | Secret | Ssh)
        | ("env", Bind | Cache | Tmpfs | Ssh) => {
            Err(FlagError::MountKeyOfOther { key, kind: word })
        }
        ("mode" | "uid" | "gid", Bind | Tmpfs) => Err(FlagError::MountOwner { key, kind: word }),
        ("sharing", Secret) => {
            Err(FlagError::SecretMount("secret mount should not define sharing"))
        }
        ("sharing", Bind | Tmpfs | Ssh) => Err(FlagError::SharingOfOther(word)),
        ("from", Secret) => Err(FlagError::SecretMount("secret mount should not have a from")),
        (_, _) => Ok(()),
    }
}

fn check_secret(mount: &Mount) -> Result<(), FlagError> {
    let names = [&mount.source, &mount.target, &mount.id, &mount.env];
    if names.into_iter().all(Option::is_none) {
        let text = "invalid secret mount. one of source, target required";
        return Err(FlagError::SecretMount(text));
    }
    match mount.source.is_some() && mount.id.is_some() {
        true => Err(FlagError::SecretMount("both source and id can't be set")),
        false => Ok(()),
    }
}

fn mount_kind(value: &str) -> Result<MountKind, FlagError> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => return Err(FlagError::MountType(value.to_owned())),
    })
}

fn mount_field(
    mount: &mut Mount,
    key: String,
    value: Option<String>,
    field: String,
) -> Result<(), FlagError> {
    let invalid = |value: &str| FlagError::MountValue { key: key.clone(), value: value.to_owned() };
    let number = |value: &str| FlagError::MountNumber { key: key.clone(), value: value.to_owned() };
    let truth = |value: &Option<String>| match value.as_deref() {
        None | Some("true" | "1" | "TRUE" | "True" | "t" | "T") => Ok(true),
        Some("false" | "0" | "FALSE" | "False" | "f" | "F") => Ok(false),
        Some(other) => Err(invalid(other)),
    };
    match key.as_str() {
        "readonly" | "ro" => {
            mount.read_only = truth(&value)?;
            return Ok(());
        }
        "readwrite" | "rw" => {
            mount.read_only = !truth(&value)?;
            return Ok(());
        }
        "required" => {
            mount.required = truth(&value)?;
            return Ok(());
        }
        _ => {}
    }
    let Some(value) = value else { return Err(FlagError::MountField(field)) };
    match key.as_str() {
        "source" | "src" => mount.source = Some(value),
        "target" | "dst" | "destination" => mount.target = Some(value),
        "from" => mount.from = Some(value),
        "id" => mount.id = Some(value),
        "env" => mount.env = Some(value),
        "mode" => mount.mode = Some(u32::from_str_radix(&value, 8).map_err(|_| number(&value))?),
        "uid" => mount.uid = Some(value.parse().map_err(|_| number(&value))?),
        "gid" => mount.gid = Some(value.parse().map_err(|_| number(&value))?),
        "size" => mount.size_bytes = Some(ram_in_bytes(&value).map_err(|_| invalid(&value))?),
        "sharing" => {
            mount.sharing = match value.to_ascii_lowercase().as_str() {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                _ => return Err(FlagError::Sharing(value)),
            };
        }
        _ => return Err(FlagError::MountKey { key, field }),
    }
    Ok(())
}

/// One line of comma separated fields; a field may stand in double quotes.
fn csv(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match (c, fields.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => fields.push(String::new()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_short_names() {
        let mount = |text: &str| mount(text).map_err(|error| error.to_string());
        let cache =
            mount("type=cache,target=/root/.cache,sharing=locked,mode=0700,id=x,ro").unwrap();
        assert_eq!(
            (cache.kind, cache.sharing, cache.mode),
            (MountKind::Cache, Sharing::Locked, Some(0o700))
        );
        assert!(cache.read_only);
        let bind = mount("src=a,dst=/b,from=c,rw").unwrap();
        assert!(!bind.read_only);
        assert_eq!(bind.from.as_deref(), Some("c"));
        for (size, want) in [("1m", 1 << 20), ("1.5g", 3 << 29)] {
            let tmpfs = mount(&format!("type=tmpfs,target=/t,size={size}")).unwrap();
            assert_eq!(tmpfs.size_bytes, Some(want), "{size}");
        }
        assert_eq!(
            mount("type=cache").unwrap_err(),
            "invalid mount target \"target\": must not be empty"
        );
        assert_eq!(mount("type=x,target=/a").unwrap_err(), "unsupported mount type \"x\"");
        assert_eq!(mount("target=/a,foo=b").unwrap_err(), "unexpected key 'foo' in 'foo=b'");
        for (text, want) in [
            ("target=/a,required", "unexpected key 'required' for mount type 'bind'"),
            ("type=cache,target=/a,size=1", "unexpected key 'size' for mount type 'cache'"),
            ("type=ssh,env=A", "unexpected key 'env' for mount type 'ssh'"),
            ("target=/a,mode=755", "mode not allowed for \"bind\" type mounts"),
            ("type=tmpfs,target=/a,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
            ("target=/a,sharing=locked", "invalid cache sharing set for bind mount"),
            ("type=cache,target=/a,sharing=none", "unsupported sharing value \"none\""),
            ("type=cache,target=/a,uid=x", "invalid value x for uid"),
            ("type=cache,target=/a,mode=9", "invalid value 9 for mode"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
        ] {
            assert_eq!(mount(text).unwrap_err(), want, "{text}");
        }
        let mut deferred = mount("type=cache,target=/a,uid=$U,mode=0${M}").unwrap();
        assert_eq!(deferred.deferred.len(), 2);
        set_field(&mut deferred, "uid", "7".to_owned()).unwrap();
        assert_eq!((deferred.uid, deferred.mode), (Some(7), None));
        assert_eq!(mount("target").unwrap_err(), "invalid field 'target' must be a key=value pair");
    }
}
