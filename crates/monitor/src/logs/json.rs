//! The json-file format: one JSON object a line.
//!
//! Written by hand, since this is the hot path of every container that prints much; read by serde.
//!
//! Source: moby `daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Entry, Stream};

/// Appends one entry to `out`. `attrs` is a JSON object, or empty.
pub fn encode(
    out: &mut Vec<u8>,
    line: &[u8],
    newline: bool,
    stream: Stream,
    time: &str,
    attrs: &str,
) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, line);
    if newline {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    if !attrs.is_empty() {
        out.extend_from_slice(b"\",\"attrs\":");
        out.extend_from_slice(attrs.as_bytes());
        out.extend_from_slice(b",\"time\":\"");
    } else {
        out.extend_from_slice(b"\",\"time\":\"");
    }
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// A JSON object of strings, escaped as [`encode`] does; empty for no attributes.
pub fn encode_attrs(attrs: &BTreeMap<String, String>) -> String {
    if attrs.is_empty() {
        return String::new();
    }
    let mut out = vec![b'{'];
    for (index, (key, value)) in attrs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        escape(&mut out, key.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape(&mut out, value.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    String::from_utf8_lossy(&out).into_owned()
}

/// Bytes that cannot be copied as they are: controls, quotes, Go's HTML-unsafe ones, non-ASCII.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte >= 0x80;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table
};

/// Appends `bytes` escaped the way Go's encoder does it, invalid UTF-8 as U+FFFD a byte.
fn escape(out: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(at) = bytes.iter().position(|&byte| SPECIAL[usize::from(byte)]) {
        out.extend_from_slice(&bytes[..at]);
        bytes = &bytes[at..];
        if bytes[0] < 0x80 {
            escape_ascii(out, bytes[0]);
            bytes = &bytes[1..];
        } else {
            let ascii = bytes.iter().position(u8::is_ascii).unwrap_or(bytes.len());
            escape_unicode(out, &bytes[..ascii]);
            bytes = &bytes[ascii..];
        }
    }
    out.extend_from_slice(bytes);
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

/// `bytes` are all non-ASCII. U+2028 and U+2029 are line ends to JavaScript, so Go escapes them.
fn escape_unicode(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(['\u{2028}', '\u{2029}']) {
            let separator: &[u8] =
                if rest[at..].starts_with('\u{2028}') { b"\\u2028" } else { b"\\u2029" };
            out.extend_from_slice(&rest.as_bytes()[..at]);
            out.extend_from_slice(separator);
            rest = &rest[at + 3..];
        }
        out.extend_from_slice(rest.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    time: Timestamp,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// The entry on `line`, which is without its newline; `None` when it is torn or not ours.
pub fn decode(line: &[u8]) -> Option<Entry> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    Some(Entry {
        stream: Stream::find(&line.stream)?,
        time: line.time,
        bytes: line.log.into_owned().into_bytes(),
        starts_line: true,
        attrs: line.attrs.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn plain_text_is_copied_and_ends_with_an_escaped_newline() {
        check(b"hello", expect![[r#"{"log":"hello\n","stream":"stdout","time":"T"}"#]]);
    }

    #[test]
    fn controls_quotes_and_html_are_escaped_as_go_does() {
        check(
            b"a\tb\r\"c\\<d>&\x7f\x1b[0m",
            expect![[
                r#"{"log":"a\u0009b\r\"c\\\u003cd\u003e\u0026\u001b[0m\n","stream":"stdout","time":"T"}"#
            ]],
        );
    }

    #[test]
    fn each_invalid_byte_becomes_one_replacement_character() {
        check(
            b"\xe2\x82x\xffy",
            expect![[r#"{"log":"\ufffd\ufffdx\ufffdy\n","stream":"stdout","time":"T"}"#]],
        );
    }

    #[test]
    fn text_in_other_scripts_stays_and_line_separators_are_escaped() {
        check(
            "grüß \u{2028}日本\u{2029}".as_bytes(),
            expect![[r#"{"log":"grüß \u2028日本\u2029\n","stream":"stdout","time":"T"}"#]],
        );
    }

    #[test]
    fn attributes_stand_before_the_time() {
        let attrs = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b\"".into(), "2".into())]);
        let mut out = Vec::new();
        encode(&mut out, b"x", false, Stream::Stderr, "T", &encode_attrs(&attrs));
        expect![[r#"
            {"log":"x","stream":"stderr","attrs":{"a":"1","b\"":"2"},"time":"T"}
        "#]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for line in ["", "plain", "t\tq\"b\\ <&> \u{1}", "ünï \u{2028}"] {
            let mut out = Vec::new();
            let time = "2026-01-02T03:04:05.000000006Z";
            encode(&mut out, line.as_bytes(), true, Stream::Stderr, time, "");
            let entry = decode(&out[..out.len() - 1]).unwrap();
            assert_eq!(String::from_utf8(entry.bytes).unwrap(), format!("{line}\n"));
            assert_eq!((entry.stream, entry.time.to_string().as_str()), (Stream::Stderr, time));
        }
    }

    #[track_caller]
    fn check(line: &[u8], want: Expect) {
        let mut out = Vec::new();
        encode(&mut out, line, true, Stream::Stdout, "T", "");
        let line = String::from_utf8(out).unwrap();
        want.assert_eq(&line.trim_end().replace('\x7f', ""));
    }
}
