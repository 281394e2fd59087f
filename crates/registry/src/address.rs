//! Addresses: what servers and people write, as URLs that a request can go to.
//!
//! A reference within an answer (`Location`, `Link`) is one of RFC 3986: it may lack everything but its
//! end, and means what it means to who asked. Fragments are for readers of documents, and dropped.
//! What a URL may not hold as it is (blanks, letters beyond ASCII) is escaped, as browsers and Go do.
//!
//! Source: RFC 3986, 4.1, 5.2; Go `net/url`, `URL.ResolveReference`.

use std::fmt::Write as _;

use hyper::Uri;

/// Why a text is no address of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("unsupported protocol scheme {0:?}")]
    Scheme(String),
    #[error("http: no Host in request URL")]
    Host,
    #[error("invalid URL")]
    Malformed,
}

/// The parts of a reference, without a fragment. Source: RFC 3986, appendix B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Parts<'a> {
        let text = text.split_once('#').map_or(text, |(text, _)| text);
        let (text, query) = match text.split_once('?') {
            Some((text, query)) => (text, Some(query)),
            None => (text, None),
        };
        let (scheme, rest) = match text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(authority), path)
            }
            None => (None, rest),
        };
        Parts { scheme, authority, path, query }
    }
}

fn is_scheme(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_letter)
}

/// Reads an absolute `http` or `https` address; one without a path has the path `/`.
///
/// # Errors
/// Another scheme or none, no host, characters that no host has.
pub fn parse(text: &str) -> Result<Uri, AddressError> {
    let Parts { scheme, authority, path, query } = Parts::of(text.trim());
    let scheme = scheme.unwrap_or_default().to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(AddressError::Scheme(scheme));
    }
    let authority = authority.filter(|authority| !authority.is_empty());
    compose(&scheme, authority.ok_or(AddressError::Host)?, path, query)
}

/// Where `reference` leads that an answer from `base` gave. An empty one leads to `base` again.
///
/// # Errors
/// As [`parse`].
pub fn resolve(base: &Uri, reference: &str) -> Result<Uri, AddressError> {
    let parts = Parts::of(reference.trim());
    if parts.scheme.is_some() {
        return parse(reference);
    }
    let scheme = base.scheme_str().unwrap_or_default();
    let own = base.authority().ok_or(AddressError::Host)?.as_str();
    if let Some(authority) = parts.authority {
        return match authority {
            "" => Err(AddressError::Host),
            authority => compose(scheme, authority, &without_dots(parts.path), parts.query),
        };
    }
    let (path, query) = match parts.path {
        "" => (base.path().to_owned(), parts.query.or_else(|| base.query())),
        path if path.starts_with('/') => (without_dots(path), parts.query),
        path => {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            (without_dots(&format!("{directory}/{path}")), parts.query)
        }
    };
    compose(scheme, own, &path, query)
}

/// An address as it is told to people: without a password, as Go's client tells it.
pub(crate) fn shown(address: &Uri) -> String {
    let text = address.to_string();
    let Some((user, _)) = user_of(address) else { return text };
    let Some((name, _)) = user.split_once(':') else { return text };
    text.replacen(&format!("//{user}@"), &format!("//{name}:***@"), 1)
}

/// What a download is called: the last part of the path, empty where that is a directory.
pub fn file_name(address: &Uri) -> String {
    let path = percent_encoding::percent_decode_str(address.path()).decode_utf8_lossy();
    let last = path.rsplit('/').next().unwrap_or_default();
    if matches!(last, "." | "..") || last.contains('\0') { String::new() } else { last.to_owned() }
}

/// `host[:port]`, without a user.
pub(crate) fn host_of(address: &Uri) -> &str {
    match user_of(address) {
        Some((_, host)) => host,
        None => address.authority().map(|authority| authority.as_str()).unwrap_or_default(),
    }
}

/// The user of an address with one, as it is written, and the host.
pub(crate) fn user_of(address: &Uri) -> Option<(&str, &str)> {
    address.authority()?.as_str().rsplit_once('@')
}

/// Source: RFC 3986, 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

fn compose(
    scheme: &str,
    authority: &str,
    path: &str,
    query: Option<&str>,
) -> Result<Uri, AddressError> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut text = format!("{scheme}://{authority}{slash}{}", escaped(path));
    if let Some(query) = query {
        text.push('?');
        text.push_str(&escaped(query));
    }
    text.parse().map_err(|_| AddressError::Malformed)
}

/// What was escaped stays so.
fn escaped(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                // Writing to a String cannot fail.
                let _ = write!(kept, "%{byte:02X}");
            }
            byte => kept.push(byte.into()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3986, 5.4, with what servers send besides.
    #[test]
    fn a_reference_means_what_it_means_to_who_asked() {
        let base = parse("http://a:8080/b/c/d;p?q").unwrap();
        for (reference, want) in [
            ("g", "http://a:8080/b/c/g"),
            ("./g", "http://a:8080/b/c/g"),
            ("g/", "http://a:8080/b/c/g/"),
            ("/g", "http://a:8080/g"),
            ("//g", "http://g/"),
            ("//g:1/h?i", "http://g:1/h?i"),
            ("?y", "http://a:8080/b/c/d;p?y"),
            ("g?y", "http://a:8080/b/c/g?y"),
            ("#s", "http://a:8080/b/c/d;p?q"),
            ("g#s", "http://a:8080/b/c/g"),
            ("g?y#s", "http://a:8080/b/c/g?y"),
            (";x", "http://a:8080/b/c/;x"),
            ("", "http://a:8080/b/c/d;p?q"),
            (".", "http://a:8080/b/c/"),
            ("./", "http://a:8080/b/c/"),
            ("..", "http://a:8080/b/"),
            ("../", "http://a:8080/b/"),
            ("../g", "http://a:8080/b/g"),
            ("../..", "http://a:8080/"),
            ("../../g", "http://a:8080/g"),
            ("../../../g", "http://a:8080/g"),
            ("/./g", "http://a:8080/g"),
            ("/../g", "http://a:8080/g"),
            ("g.", "http://a:8080/b/c/g."),
            ("..g", "http://a:8080/b/c/..g"),
            ("./../g", "http://a:8080/b/g"),
            ("./g/.", "http://a:8080/b/c/g/"),
            ("g/../h", "http://a:8080/b/c/h"),
            ("g?y/./x", "http://a:8080/b/c/g?y/./x"),
            ("https://other", "https://other/"),
            ("HTTPS://other?x=1", "https://other/?x=1"),
            ("/a b/ü|\"?c=d e", "http://a:8080/a%20b/%C3%BC%7C%22?c=d%20e"),
            ("/a%20b", "http://a:8080/a%20b"),
        ] {
            let got = resolve(&base, reference).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), Ok(want), "{reference:?}");
        }
    }

    #[test]
    fn a_password_is_not_told() {
        let address = parse("http://me:secret@host:1/a?b").unwrap();
        assert_eq!(shown(&address), "http://me:***@host:1/a?b");
        assert_eq!(host_of(&address), "host:1");
        let address = parse("http://me@host").unwrap();
        assert_eq!(shown(&address), "http://me@host/");
    }

    #[test]
    fn a_download_has_the_last_name_of_its_path() {
        let name = |text: &str| file_name(&parse(text).unwrap());
        assert_eq!(name("http://h/a/b%20c.tar?x=/y"), "b c.tar");
        assert_eq!(name("http://h/a%2Fb"), "b");
        assert_eq!([name("http://h"), name("http://h/a/"), name("http://h/%2e%2e")], ["", "", ""]);
    }

    #[test]
    fn what_leads_nowhere_says_why() {
        let base = parse("http://a/b").unwrap();
        for (reference, want) in [
            ("ftp://x/y", AddressError::Scheme("ftp".to_owned())),
            ("mailto:x", AddressError::Scheme("mailto".to_owned())),
            ("http:g", AddressError::Host),
            ("http:///g", AddressError::Host),
            ("///g", AddressError::Host),
            ("//h o/", AddressError::Malformed),
        ] {
            assert_eq!(resolve(&base, reference), Err(want), "{reference:?}");
        }
        assert_eq!(parse("/token"), Err(AddressError::Scheme(String::new())));
    }
}
