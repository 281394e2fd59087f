//! JSON as Go's clients read it: names of fields in any case, and its words for what is none.
//!
//! Registries are tried with Docker, which is written in Go. So their documents have fields that only a
//! reader like Go's finds, and what people search for when one is broken are Go's words.
//!
//! Source: Go `encoding/json`, `scanner.go`, `decode.go`.

use serde_json::{Map, Value};

/// Why a document says nothing. Texts are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl JsonError {
    /// Source: distribution 2.8 `registry/client/errors.go`, `ErrNoErrorsInBody`.
    pub(crate) fn no_details() -> JsonError {
        JsonError("no error details found in HTTP response body".to_owned())
    }
}

/// Reads all of `text`.
///
/// # Errors
/// What is no JSON, or has something after it.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    serde_json::from_slice(text).map_err(|error| syntax_error(text, &error))
}

/// Reads the first document of `text`; what follows is of no interest, as to Go's `Decoder`.
///
/// # Errors
/// What does not begin with JSON.
pub fn first(text: &[u8]) -> Result<Value, JsonError> {
    match serde_json::Deserializer::from_slice(text).into_iter().next() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(syntax_error(text, &error)),
        None => Err(JsonError("EOF".to_owned())),
    }
}

/// The fields of an object. `within` is how Go names the structure in its errors.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    within: &'static str,
}

impl<'a> Fields<'a> {
    /// None for `null`, which is an empty object to Go. `kind` is Go's name of the whole type.
    ///
    /// # Errors
    /// What is no object.
    pub fn of(
        value: &'a Value,
        within: &'static str,
        kind: &str,
    ) -> Result<Option<Fields<'a>>, JsonError> {
        match value {
            Value::Object(map) => Ok(Some(Fields { map, within })),
            Value::Null => Ok(None),
            other => {
                let other = kind_of(other);
                Err(JsonError(format!(
                    "json: cannot unmarshal {other} into Go value of type {kind}"
                )))
            }
        }
    }

    /// The value of a field that is there and not null; of several the last one counts.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        let same =
            |(key, value): &(&String, &Value)| key.eq_ignore_ascii_case(name) && !value.is_null();
        self.map.iter().rfind(same).map(|(_, value)| value)
    }

    /// Empty where there is none.
    ///
    /// # Errors
    /// What is no text.
    pub fn text(&self, name: &str) -> Result<&'a str, JsonError> {
        match self.get(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.mismatch(name, other, "string")),
        }
    }

    /// Zero where there is none.
    ///
    /// # Errors
    /// What is no whole number.
    pub fn number(&self, name: &str) -> Result<i64, JsonError> {
        match self.get(name) {
            None => Ok(0),
            Some(other) => other.as_i64().ok_or_else(|| self.mismatch(name, other, "int")),
        }
    }

    /// Empty where there is none.
    ///
    /// # Errors
    /// What is no list. `kind` is Go's name of the list's type.
    pub fn list(&self, name: &str, kind: &str) -> Result<&'a [Value], JsonError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.mismatch(name, other, kind)),
        }
    }

    fn mismatch(&self, name: &str, value: &Value, kind: &str) -> JsonError {
        let what = match value {
            Value::Number(number) if kind == "int" => format!("number {number}"),
            other => kind_of(other).to_owned(),
        };
        let within = self.within;
        JsonError(format!(
            "json: cannot unmarshal {what} into Go struct field {within}.{name} of type {kind}"
        ))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn syntax_error(text: &[u8], error: &serde_json::Error) -> JsonError {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Err(Fault::End) => JsonError("unexpected end of JSON input".to_owned()),
        Err(Fault::Byte(byte, context)) => {
            JsonError(format!("invalid character {} {context}", quoted_byte(byte)))
        }
        // Deeper nested or with larger numbers than we read.
        Ok(()) => JsonError(error.to_string()),
    }
}

enum Fault {
    End,
    Byte(u8, String),
}

/// Finds the first byte that cannot be. Nesting is kept in a list, not on the stack.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value, or the end of the list or object that was just opened.
            let byte = self.token()?;
            match byte {
                b'{' | b'[' => {
                    self.at += 1;
                    open.push(byte);
                    let end = if byte == b'{' { b'}' } else { b']' };
                    if self.token()? != end {
                        self.key(byte)?;
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                _ => self.scalar(byte)?,
            }
            // What follows a value.
            loop {
                let Some(around) = open.last().copied() else {
                    return match self.token() {
                        Ok(byte) => self.bad(byte, "after top-level value"),
                        Err(_) => Ok(()),
                    };
                };
                match (self.token()?, around) {
                    (b',', _) => {
                        self.at += 1;
                        self.key(around)?;
                        break;
                    }
                    (b'}', b'{') | (b']', b'[') => {
                        self.at += 1;
                        open.pop();
                    }
                    (byte, b'{') => return self.bad(byte, "after object key:value pair"),
                    (byte, _) => return self.bad(byte, "after array element"),
                }
            }
        }
    }

    /// Within an object, a key and its colon.
    fn key(&mut self, around: u8) -> Result<(), Fault> {
        if around != b'{' {
            return Ok(());
        }
        match self.token()? {
            b'"' => self.string()?,
            byte => return self.bad(byte, "looking for beginning of object key string"),
        }
        match self.token()? {
            b':' => self.at += 1,
            byte => return self.bad(byte, "after object key"),
        }
        Ok(())
    }

    fn scalar(&mut self, byte: u8) -> Result<(), Fault> {
        match byte {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            byte => self.bad(byte, "looking for beginning of value"),
        }
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.next()?;
                            if !digit.is_ascii_hexdigit() {
                                return self.bad(digit, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    byte => return self.bad(byte, "in string escape code"),
                },
                byte @ 0..0x20 => return self.bad(byte, "in string literal"),
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            byte => return self.bad(byte, "in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<(), Fault> {
        match self.next()? {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            byte => self.bad(byte, context),
        }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        for want in word.bytes() {
            let got = self.next()?;
            if got != want {
                let want = want as char;
                return self.bad(got, &format!("in literal {word} (expecting '{want}')"));
            }
        }
        Ok(())
    }

    /// The next byte that is no blank; it stays.
    fn token(&mut self) -> Result<u8, Fault> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied().ok_or(Fault::End)
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.text.get(self.at).copied().ok_or(Fault::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn bad(&self, byte: u8, context: &str) -> Result<(), Fault> {
        Err(Fault::Byte(byte, context.to_owned()))
    }
}

/// A byte as Go's scanner shows it, which takes it for a letter.
fn quoted_byte(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        byte => {
            let text = quoted(&char::from(byte).to_string());
            format!("'{}'", &text[1..text.len() - 1])
        }
    }
}

/// A text as Go's `%q` shows it.
pub fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('"');
    for letter in text.chars() {
        match letter {
            '"' => shown.push_str("\\\""),
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\u{7}' => shown.push_str("\\a"),
            '\u{8}' => shown.push_str("\\b"),
            '\u{b}' => shown.push_str("\\v"),
            '\u{c}' => shown.push_str("\\f"),
            letter if letter.is_ascii_control() => {
                shown.push_str(&format!("\\x{:02x}", u32::from(letter)));
            }
            letter if letter.is_control() => {
                shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => shown.push(letter),
        }
    }
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go 1.24 says of each.
    #[test]
    fn what_is_no_json_is_told_in_gos_words() {
        for (text, want) in [
            ("", "unexpected end of JSON input"),
            (" \n", "unexpected end of JSON input"),
            ("<html>", "invalid character '<' looking for beginning of value"),
            ("forbidden", "invalid character 'o' in literal false (expecting 'a')"),
            ("denied", "invalid character 'd' looking for beginning of value"),
            ("{", "unexpected end of JSON input"),
            ("{x", "invalid character 'x' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("\"open", "unexpected end of JSON input"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("\0", "invalid character '\\x00' looking for beginning of value"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), want, "{text:?}");
        }
        assert_eq!(first(b" ").unwrap_err().to_string(), "EOF");
        assert_eq!(first(b"{} rest").unwrap(), serde_json::json!({}));
    }

    #[test]
    fn names_count_in_any_case_and_the_last_one_wins() {
        let value = parse(br#"{"CODE":"a","Code":"b","code":null,"n":1.5,"t":[]}"#).unwrap();
        let fields = Fields::of(&value, "T", "pkg.T").unwrap().unwrap();
        assert_eq!(fields.text("code"), Ok("b"));
        assert_eq!(fields.text("none"), Ok(""));
        let words = |error: JsonError| error.to_string();
        assert_eq!(
            fields.number("n").map_err(words),
            Err("json: cannot unmarshal number 1.5 into Go struct field T.n of type int".to_owned())
        );
        assert_eq!(
            fields.text("t").map_err(words),
            Err("json: cannot unmarshal array into Go struct field T.t of type string".to_owned())
        );
        let list = parse(b"[]").unwrap();
        assert_eq!(
            Fields::of(&list, "T", "pkg.T").map(drop).map_err(words),
            Err("json: cannot unmarshal array into Go value of type pkg.T".to_owned())
        );
    }
}
