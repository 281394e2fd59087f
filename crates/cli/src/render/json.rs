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
