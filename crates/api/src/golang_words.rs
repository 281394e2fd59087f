//! What Go says about a text that is no JSON: clients' own tests look for these words.
//!
//! Source: Go `encoding/json/scanner.go`, whose states these are.

/// Why `text` is no JSON document, or `None` where it is one, perhaps with more behind it.
#[must_use]
pub fn syntax_error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { rest: text, depth: 0 };
    scanner.space();
    scanner.value().err().map(|fault| match fault {
        // What a decoder says about a stream that ends too early.
        Fault::End => "unexpected EOF".to_owned(),
        Fault::Depth => "exceeded max depth".to_owned(),
        Fault::Character(byte, context) => {
            format!("invalid character {} {context}", quoted(byte))
        }
    })
}

/// Go gives up at 10,000; a thread's stack is smaller, and no request of ours is nested ten deep.
const DEPTH_MAX: usize = 500;

enum Fault {
    End,
    Depth,
    Character(u8, &'static str),
}

struct Scanner<'a> {
    rest: &'a [u8],
    /// How many objects and arrays are open.
    depth: usize,
}

type Outcome = Result<(), Fault>;

impl Scanner<'_> {
    fn space(&mut self) {
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    fn peek(&self) -> Result<u8, Fault> {
        self.rest.first().copied().ok_or(Fault::End)
    }

    fn take(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.rest.split_first().ok_or(Fault::End)?;
        self.rest = rest;
        Ok(*first)
    }

    fn value(&mut self) -> Outcome {
        match self.take()? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => self.string(),
            b't' => self.literal([
                "true",
                "in literal true (expecting 'r')",
                "in literal true (expecting 'u')",
                "in literal true (expecting 'e')",
                "",
            ]),
            b'f' => self.literal([
                "false",
                "in literal false (expecting 'a')",
                "in literal false (expecting 'l')",
                "in literal false (expecting 's')",
                "in literal false (expecting 'e')",
            ]),
            b'n' => self.literal([
                "null",
                "in literal null (expecting 'u')",
                "in literal null (expecting 'l')",
                "in literal null (expecting 'l')",
                "",
            ]),
            b'-' => match self.take()? {
                digit @ b'0'..=b'9' => self.number(digit),
                byte => Err(Fault::Character(byte, "in numeric literal")),
            },
            digit @ b'0'..=b'9' => self.number(digit),
            byte => Err(Fault::Character(byte, "looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Outcome) -> Outcome {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::Depth);
        }
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn literal(&mut self, [word, contexts @ ..]: [&'static str; 5]) -> Outcome {
        for (want, context) in word.bytes().skip(1).zip(contexts) {
            match self.take()? {
                byte if byte == want => {}
                byte => return Err(Fault::Character(byte, context)),
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let Some((b'0'..=b'9', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    /// After a number's first digit. A number may be the last of a text.
    fn number(&mut self, first: u8) -> Outcome {
        if first != b'0' {
            self.digits();
        }
        if self.rest.first() == Some(&b'.') {
            self.take()?;
            match self.take()? {
                b'0'..=b'9' => self.digits(),
                byte => {
                    return Err(Fault::Character(byte, "after decimal point in numeric literal"));
                }
            }
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.take()?;
            if matches!(self.peek()?, b'+' | b'-') {
                self.take()?;
            }
            match self.take()? {
                b'0'..=b'9' => self.digits(),
                byte => return Err(Fault::Character(byte, "in exponent of numeric literal")),
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Outcome {
        loop {
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => match self.take()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.take()?;
                            if !byte.is_ascii_hexdigit() {
                                let context = "in \\u hexadecimal character escape";
                                return Err(Fault::Character(byte, context));
                            }
                        }
                    }
                    byte => return Err(Fault::Character(byte, "in string escape code")),
                },
                byte if byte < 0x20 => {
                    return Err(Fault::Character(byte, "in string literal"));
                }
                _ => {}
            }
        }
    }

    fn object(&mut self) -> Outcome {
        self.space();
        if self.peek()? == b'}' {
            return self.take().map(drop);
        }
        loop {
            self.space();
            match self.take()? {
                b'"' => self.string()?,
                byte => {
                    return Err(Fault::Character(
                        byte,
                        "looking for beginning of object key string",
                    ));
                }
            }
            self.space();
            match self.take()? {
                b':' => {}
                byte => return Err(Fault::Character(byte, "after object key")),
            }
            self.space();
            self.value()?;
            self.space();
            match self.take()? {
                b',' => {}
                b'}' => return Ok(()),
                byte => return Err(Fault::Character(byte, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self) -> Outcome {
        self.space();
        if self.peek()? == b']' {
            return self.take().map(drop);
        }
        loop {
            self.space();
            self.value()?;
            self.space();
            match self.take()? {
                b',' => {}
                b']' => return Ok(()),
                byte => return Err(Fault::Character(byte, "after array element")),
            }
        }
    }
}

/// A character as Go quotes it.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        // Go takes one byte for one character here.
        0xa1..=0xff => format!("'{}'", char::from(byte)),
        _ => format!(r"'\x{byte:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, want: Expect) {
        want.assert_eq(&syntax_error(text.as_bytes()).unwrap_or_else(|| "ok".to_owned()));
    }

    #[test]
    fn documents_are_fine() {
        for text in [r#" {"a": [1, -2.5e+3, "x\u00e9\n", true, false, null, {}, []]} "#, "0", "[]"]
        {
            check(text, expect!["ok"]);
        }
    }

    #[test]
    fn a_body_of_brackets_does_not_end_the_daemon() {
        check(&"[".repeat(10 << 20), expect!["exceeded max depth"]);
        check(&format!("[{}]", ["[[]]"; 600].join(",")), expect!["ok"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_go_says_it() {
        check(
            "{invalid json",
            expect!["invalid character 'i' looking for beginning of object key string"],
        );
        check("invalid", expect!["invalid character 'i' looking for beginning of value"]);
        check(r#"{"a" 1}"#, expect!["invalid character '1' after object key"]);
        check(r#"{"a":1 2}"#, expect!["invalid character '2' after object key:value pair"]);
        check(
            r#"{"a":1,}"#,
            expect!["invalid character '}' looking for beginning of object key string"],
        );
        check("[1 2]", expect!["invalid character '2' after array element"]);
        check("[1,]", expect!["invalid character ']' looking for beginning of value"]);
        check("nul!", expect!["invalid character '!' in literal null (expecting 'l')"]);
        check("txue", expect!["invalid character 'x' in literal true (expecting 'r')"]);
        check("-x", expect!["invalid character 'x' in numeric literal"]);
        check("1.x", expect!["invalid character 'x' after decimal point in numeric literal"]);
        check("1ex", expect!["invalid character 'x' in exponent of numeric literal"]);
        check("\"a\nb\"", expect![[r"invalid character '\n' in string literal"]]);
        check(r#""\x""#, expect!["invalid character 'x' in string escape code"]);
        check(r#"{"a":"#, expect!["unexpected EOF"]);
        check(
            "{'a'}",
            expect![[r"invalid character '\'' looking for beginning of object key string"]],
        );
    }
}
