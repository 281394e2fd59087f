//! `hosts.toml`: who answers for a registry's name, in the order of asking.
//!
//! ```text
//! server = "https://registry.example"           asked last; without it the name itself
//! capabilities = ["pull", "resolve", "push"]     and the other fields: for the server
//!
//! [host."https://mirror.example:5000/path"]
//!   capabilities = ["pull", "resolve"]           all where nothing is said
//!   ca = "ca.crt"                                a path or several
//!   client = [["me.cert", "me.key"]]             a path with both in it, several, or pairs
//!   skip_verify = false
//!   override_path = false                        true: /v2 is not put behind the path
//!   dial_timeout = "10s"
//!   [host."https://mirror.example:5000/path".header]
//!     x-name = "value"                           one or several
//! ```
//! Paths are taken from the file's own directory. What is not in this list is refused by its line:
//! a mirror that is silently not asked, or asked without its certificate, is found out too late.
//!
//! Source: containerd `docs/hosts.md`.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use spec::units::parse_timeout;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::dial::{Pair, Verify};
use crate::policy::{Scheme, address_of};

/// What a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Manifests by digest, and blobs.
    pub pull: bool,
    /// What a tag is.
    pub resolve: bool,
    pub push: bool,
}

impl Capabilities {
    pub const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true };
}

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub scheme: Scheme,
    /// `host[:port]`.
    pub authority: String,
    /// What stands before `/manifests` and the like: `/v2`, or what replaces it.
    pub root: String,
}

/// How a host is asked. PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub capabilities: Capabilities,
    pub authorities: Vec<Vec<u8>>,
    pub clients: Vec<Pair>,
    /// None: as the daemon's settings say.
    pub verify: Option<Verify>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub dial_timeout: Option<Duration>,
}

impl Default for Asking {
    fn default() -> Self {
        Asking {
            capabilities: Capabilities::ALL,
            authorities: Vec::new(),
            clients: Vec::new(),
            verify: None,
            headers: Vec::new(),
            dial_timeout: None,
        }
    }
}

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsFile {
    /// In the file's order.
    pub hosts: Vec<(Address, Asking)>,
    pub server: Option<Address>,
    /// For the server, whether it is named or not.
    pub asking: Asking,
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct HostsError {
    pub line: usize,
    pub why: String,
}

/// Gives the bytes at a path that stands in the file.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

type Table<'a> = DeTable<'a>;
type Value<'a> = Spanned<DeValue<'a>>;
type Result<T> = std::result::Result<T, HostsError>;

/// Reads a file's text; `read` gives the certificates that it names.
///
/// # Errors
/// By line: no TOML, an unknown field, a value that means nothing, a certificate that cannot be read.
pub fn parse(text: &str, read: Read<'_>) -> Result<HostsFile> {
    let file = File { text, read };
    let root = DeTable::parse(text).map_err(|error| HostsError {
        line: file.line(error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    let root = root.get_ref();
    let mut found =
        HostsFile { asking: file.asking(root, &["server", "host"])?, ..HostsFile::default() };
    if let Some(value) = root.get("server") {
        let path = file.path_rule(root)?;
        found.server = Some(file.address(file.text(value)?, value, path)?);
    }
    if let Some(value) = root.get("host") {
        for (name, value) in file.table(value)? {
            let table = file.table(value)?;
            let address = file.address(name.get_ref(), name, file.path_rule(table)?)?;
            found.hosts.push((address, file.asking(table, &[])?));
        }
    }
    Ok(found)
}

/// Whether `/v2` is put behind an address's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathRule {
    Append,
    Override,
}

struct File<'a> {
    text: &'a str,
    read: Read<'a>,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn error<T>(&self, at: &Spanned<T>, why: impl Into<String>) -> HostsError {
        HostsError { line: self.line(at.span().start), why: why.into() }
    }

    fn want(&self, value: &Value<'_>, want: &str) -> HostsError {
        self.error(value, format!("want {want}, have {}", value.get_ref().type_str()))
    }

    fn text<'v>(&self, value: &'v Value<'_>) -> Result<&'v str> {
        value.get_ref().as_str().ok_or_else(|| self.want(value, "a string"))
    }

    fn flag(&self, value: &Value<'_>) -> Result<bool> {
        value.get_ref().as_bool().ok_or_else(|| self.want(value, "true or false"))
    }

    fn table<'v, 't>(&self, value: &'v Value<'t>) -> Result<&'v Table<'t>> {
        value.get_ref().as_table().ok_or_else(|| self.want(value, "a table"))
    }

    /// A list; a single value is a list of one.
    fn list<'v, 't>(&self, value: &'v Value<'t>) -> &'v [Value<'t>] {
        match value.get_ref().as_array() {
            Some(list) => list,
            None => std::slice::from_ref(value),
        }
    }

    fn path_rule(&self, table: &Table<'_>) -> Result<PathRule> {
        match table.get("override_path") {
            Some(value) if self.flag(value)? => Ok(PathRule::Override),
            _ => Ok(PathRule::Append),
        }
    }

    fn address<T>(&self, text: &str, at: &Spanned<T>, rule: PathRule) -> Result<Address> {
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let bad = || self.error(at, format!("{text:?} is not a valid host"));
        let url: Uri = url.parse().map_err(|_| bad())?;
        if url.query().is_some() {
            return Err(bad());
        }
        let (scheme, authority, path) = address_of(&url).ok_or_else(bad)?;
        let root = match rule {
            PathRule::Override => path,
            PathRule::Append if path.ends_with("/v2") => path,
            PathRule::Append => format!("{path}/v2"),
        };
        Ok(Address { scheme, authority, root })
    }

    fn asking(&self, table: &Table<'_>, others: &[&str]) -> Result<Asking> {
        let mut asking = Asking::default();
        for (name, value) in table {
            match name.get_ref().as_ref() {
                "capabilities" => asking.capabilities = self.capabilities(value)?,
                "ca" => {
                    for path in self.list(value) {
                        asking.authorities.push(self.file(path)?);
                    }
                }
                "client" => {
                    for entry in self.list(value) {
                        asking.clients.push(self.pair(entry)?);
                    }
                }
                "skip_verify" => {
                    asking.verify = Some(if self.flag(value)? { Verify::No } else { Verify::Yes });
                }
                "header" => asking.headers = self.headers(value)?,
                "dial_timeout" => {
                    let text = self.text(value)?;
                    let time = parse_timeout(text)
                        .ok_or_else(|| self.error(value, format!("invalid duration {text:?}")))?;
                    asking.dial_timeout = Some(time);
                }
                // Read with the address.
                "override_path" => {}
                known if others.contains(&known) => {}
                unknown => return Err(self.error(name, format!("unknown field {unknown:?}"))),
            }
        }
        Ok(asking)
    }

    fn capabilities(&self, value: &Value<'_>) -> Result<Capabilities> {
        let list = value.get_ref().as_array().ok_or_else(|| self.want(value, "a list"))?;
        if list.is_empty() {
            return Ok(Capabilities::ALL);
        }
        let mut found = Capabilities { pull: false, resolve: false, push: false };
        for value in list.iter() {
            match self.text(value)? {
                "pull" => found.pull = true,
                "resolve" => found.resolve = true,
                "push" => found.push = true,
                other => return Err(self.error(value, format!("unknown capability {other:?}"))),
            }
        }
        Ok(found)
    }

    fn file(&self, value: &Value<'_>) -> Result<Vec<u8>> {
        let path = Path::new(self.text(value)?);
        (self.read)(path).map_err(|error| self.error(value, format!("{}: {error}", path.display())))
    }

    /// A path to certificate and key, or a list of the two.
    fn pair(&self, value: &Value<'_>) -> Result<Pair> {
        match value.get_ref().as_array().map(|list| &list[..]) {
            None => {
                let both = self.file(value)?;
                Ok((both.clone(), both))
            }
            Some([both]) => self.pair(both),
            Some([certificate, key]) => Ok((self.file(certificate)?, self.file(key)?)),
            Some(_) => Err(self.error(value, "a client has a certificate and a key")),
        }
    }

    fn headers(&self, value: &Value<'_>) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let mut headers = Vec::new();
        for (name, values) in self.table(value)? {
            let header: HeaderName = name
                .get_ref()
                .parse()
                .map_err(|_| self.error(name, format!("invalid header {:?}", name.get_ref())))?;
            for value in self.list(values) {
                let text = self.text(value)?;
                let mut content = HeaderValue::from_str(text)
                    .map_err(|_| self.error(value, "a header's value cannot have this text"))?;
                // It may be what lets us in.
                content.set_sensitive(true);
                headers.push((header.clone(), content));
            }
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// Files whose name begins with `no` are not there.
    fn read(path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some(name) if !name.starts_with("no") => Ok(name.as_bytes().to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file or directory")),
        }
    }

    fn shown(address: &Address, asking: &Asking) -> String {
        let Capabilities { pull, resolve, push } = asking.capabilities;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "{:?} {}{} pull={pull} resolve={resolve} push={push} ca={:?} client={:?} verify={:?} header={:?} dial={:?}\n",
            address.scheme,
            address.authority,
            address.root,
            asking.authorities.iter().map(|pem| text(pem)).collect::<Vec<_>>(),
            asking.clients.iter().map(|(one, two)| (text(one), text(two))).collect::<Vec<_>>(),
            asking.verify,
            asking
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect::<Vec<_>>(),
            asking.dial_timeout,
        )
    }

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let got = match parse(text, &read) {
            Ok(file) => {
                let hosts = file.hosts.iter().map(|(address, asking)| shown(address, asking));
                let server = file.server.iter().map(|address| shown(address, &file.asking));
                hosts.chain(server).collect()
            }
            Err(error) => error.to_string(),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn hosts_are_asked_in_the_files_order() {
        check(
            r#"
server = "https://registry.example"
ca = "server.crt"

[host."http://z.example:5000"]
  capabilities = ["pull", "resolve"]
[host."https://a.example/mirror/"]
  ca = ["one.crt", "two.crt"]
  client = [["me.cert", "me.key"], "both.pem"]
  skip_verify = true
  dial_timeout = "1m0.5s"
  [host."https://a.example/mirror/".header]
    x-one = "1"
    x-two = ["2", "3"]
[host."b.example/v2/"]
[host."https://c.example/other"]
  override_path = true
"#,
            expect![[r#"
                Http z.example:5000/v2 pull=true resolve=true push=false ca=[] client=[] verify=None header=[] dial=None
                Https a.example/mirror/v2 pull=true resolve=true push=true ca=["one.crt", "two.crt"] client=[("me.cert", "me.key"), ("both.pem", "both.pem")] verify=Some(No) header=["x-one: 1", "x-two: 2", "x-two: 3"] dial=Some(60.5s)
                Https b.example/v2 pull=true resolve=true push=true ca=[] client=[] verify=None header=[] dial=None
                Https c.example/other pull=true resolve=true push=true ca=[] client=[] verify=None header=[] dial=None
                Https registry.example/v2 pull=true resolve=true push=true ca=["server.crt"] client=[] verify=None header=[] dial=None
            "#]],
        );
        check("", expect![""]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        check("server = \"x\"\nmirror = 1", expect![[r#"line 2: unknown field "mirror""#]]);
        check(
            "[host.\"x\"]\n\ncapabilities = [\n\"pull\",\n\"eat\"]",
            expect![[r#"line 5: unknown capability "eat""#]],
        );
        check(
            "[host.\"x\"]\nca = \"none.crt\"",
            expect!["line 2: none.crt: no such file or directory"],
        );
        check("[host.\"ftp://x\"]", expect![[r#"line 1: "ftp://x" is not a valid host"#]]);
        check(
            "[host.\"https://me:word@x\"]",
            expect![[r#"line 1: "https://me:word@x" is not a valid host"#]],
        );
        check(
            "[host.\"x\"]\nskip_verify = \"yes\"",
            expect!["line 2: want true or false, have string"],
        );
        check(
            "[host.\"x\"]\nclient = [[\"a\",\"b\",\"c\"]]",
            expect!["line 2: a client has a certificate and a key"],
        );
        check(
            "[host.\"x\"]\ndial_timeout = \"soon\"",
            expect![[r#"line 2: invalid duration "soon""#]],
        );
        check(
            "[host.\"x\"]\n[host.\"x\".header]\nx = \"a\\nb\"",
            expect!["line 3: a header's value cannot have this text"],
        );
        check("server = \"x\"\n[host", expect!["line 2: unclosed table, expected `]`"]);
        check("host = 1", expect!["line 1: want a table, have integer"]);
    }
}
