//! JSON in the forms that Docker's client prints.

use serde_json::Value;

/// On one line, HTML's letters escaped: a listing's row.
pub fn escaped(value: &Value) -> String {
    escape(&value.to_string())
}

/// Indented by four spaces, as `inspect` prints; nothing escaped.
pub fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    if serde::Serialize::serialize(value, &mut serializer).is_err() {
        return String::new();
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Go escapes these inside texts so that JSON can stand in HTML; outside texts they never occur.
fn escape(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Compact JSON in which Go escapes nothing but the two letters that scripts take for newlines.
pub fn compact_as_is(text: &str) -> String {
    text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A JSON text without its blanks, as it is written.
pub fn compact_raw(text: &str) -> String {
    laid_out(text, None)
}

/// A JSON text without its blanks, HTML's letters escaped; numbers and texts stay as written.
pub fn compact(text: &str) -> String {
    escape(&laid_out(text, None))
}

/// A JSON text indented by `indent`; numbers and texts stay as written.
pub fn indented_by(indent: &str, text: &str) -> String {
    laid_out(text, Some(indent))
}

/// Source: Go `encoding/json`, `Indent` and `Compact`.
fn laid_out(text: &str, indent: Option<&str>) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0;
    let mut letters = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                out.push('"');
                while let Some(inner) = letters.next() {
                    out.push(inner);
                    match inner {
                        '\\' => out.extend(letters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                match letters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' if indent.is_some() => out.push_str(": "),
            blank if blank.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_stay_as_written() {
        let text = "{ \"a\" : [ ], \"b\":{},\n\"c\": [1.0, \"x: \\\"{,\\u003c<\"] }";
        assert_eq!(compact(text), r#"{"a":[],"b":{},"c":[1.0,"x: \"{,\u003c\u003c"]}"#);
        assert_eq!(
            indented_by("  ", text),
            "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1.0,\n    \"x: \\\"{,\\u003c<\"\n  ]\n}"
        );
    }
}
