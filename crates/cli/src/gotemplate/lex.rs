//! A template's text as items.
//!
//! Source of the grammar and of the words: Go 1.24 `text/template/parse/lex.go`.

use crate::args::go::quote;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Left,
    Right,
    Space,
    /// `.Name`
    Field,
    /// `$` or `$name`
    Variable,
    Identifier,
    Keyword,
    Bool,
    Nil,
    Dot,
    Number,
    Char,
    Quoted,
    Raw,
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
    LeftParen,
    RightParen,
    /// Any other printable letter of ASCII.
    Other,
    End,
    /// What is wrong, in Go's words.
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    pub text: String,
    /// Bytes before it.
    pub at: usize,
    pub line: usize,
}

impl Item {
    /// As Go shows an item in its errors.
    pub fn shown(&self) -> String {
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            // Go counts the dot and nil among its keywords.
            Kind::Keyword | Kind::Dot | Kind::Nil => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                format!("{}...", quote(&self.text.chars().take(10).collect::<String>()))
            }
            _ => quote(&self.text),
        }
    }
}

const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// All items up to the end or the first error, which is the last item.
pub fn lex(text: &str) -> Vec<Item> {
    let mut lexer = Lexer { text, at: 0, start: 0, parens: 0, items: Vec::new() };
    if let Err(why) = lexer.run() {
        lexer.push_text(Kind::Error, why);
    }
    lexer.items
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    start: usize,
    parens: usize,
    items: Vec<Item>,
}

/// `U+0040 '@'`, as Go's `%#U`.
fn code_point(letter: Option<char>) -> String {
    match letter {
        Some(letter) => format!("U+{:04X} '{letter}'", u32::from(letter)),
        None => "U+FFFFFFFFFFFFFFFF".to_owned(),
    }
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn accept(&mut self, fits: impl Fn(char) -> bool) -> bool {
        let accepted = self.peek().is_some_and(fits);
        if accepted {
            self.next();
        }
        accepted
    }

    fn accept_all(&mut self, fits: impl Fn(char) -> bool) {
        while self.accept(&fits) {}
    }

    fn push(&mut self, kind: Kind) {
        let text = self.text[self.start..self.at].to_owned();
        self.push_text(kind, text);
    }

    fn push_text(&mut self, kind: Kind, text: String) {
        let line = 1 + self.text[..self.start].matches('\n').count();
        self.items.push(Item { kind, text, at: self.start, line });
        self.start = self.at;
    }

    fn run(&mut self) -> Result<(), String> {
        let mut trim = false;
        loop {
            let found = self.rest().find("{{");
            let end = found.map_or(self.text.len(), |offset| self.at + offset);
            let mut text = &self.text[self.at..end];
            let opens_trim = found.is_some() && {
                let mut after = self.text[end + 2..].chars();
                after.next() == Some('-') && after.next().is_some_and(char::is_whitespace)
            };
            if trim {
                text = text.trim_start();
            }
            if opens_trim {
                text = text.trim_end();
            }
            if !text.is_empty() {
                let text = text.to_owned();
                self.push_text(Kind::Text, text);
            }
            self.at = end;
            self.start = end;
            if found.is_none() {
                self.push_text(Kind::End, String::new());
                return Ok(());
            }
            let skipped = if opens_trim { 3 } else { 2 };
            let inside = &self.text[end + skipped..];
            if inside
                .trim_start_matches(|c: char| opens_trim && c.is_whitespace())
                .starts_with("/*")
            {
                trim = self.comment()?;
                continue;
            }
            self.at = end + 2;
            self.push(Kind::Left);
            if opens_trim {
                self.at += 1;
                self.start = self.at;
            }
            self.parens = 0;
            trim = self.action()?;
        }
    }

    /// Skips a comment; says whether the text behind it is trimmed.
    fn comment(&mut self) -> Result<bool, String> {
        let Some(end) = self.rest().find("*/") else { return Err("unclosed comment".to_owned()) };
        self.at += end + 2;
        let trims = self.rest().starts_with(|c: char| c.is_whitespace())
            && self.rest().trim_start().starts_with("-}}");
        let close = if trims { "-}}" } else { "}}" };
        let rest = if trims { self.rest().trim_start() } else { self.rest() };
        if !rest.starts_with(close) {
            return Err("comment ends before closing delimiter".to_owned());
        }
        self.at = self.text.len() - rest.len() + close.len();
        self.start = self.at;
        Ok(trims)
    }

    /// Reads to the end of an action; says whether the text behind it is trimmed.
    fn action(&mut self) -> Result<bool, String> {
        loop {
            let rest = self.rest();
            let trims = rest.starts_with([' ', '\t', '\r', '\n']) && rest[1..].starts_with("-}}");
            if trims || rest.starts_with("}}") {
                if self.parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                if trims {
                    self.at += 2;
                    self.start = self.at;
                }
                self.at += 2;
                self.push(Kind::Right);
                return Ok(trims);
            }
            self.inside()?;
        }
    }

    fn inside(&mut self) -> Result<(), String> {
        let Some(letter) = self.next() else { return Err("unclosed action".to_owned()) };
        match letter {
            ' ' | '\t' | '\r' | '\n' => {
                while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\r' | '\n'))
                    && !self.rest()[1..].starts_with("-}}")
                {
                    self.next();
                }
                self.push(Kind::Space);
            }
            '=' => self.push(Kind::Assign),
            ':' => {
                if !self.accept(|c| c == '=') {
                    return Err("expected :=".to_owned());
                }
                self.push(Kind::Declare);
            }
            '|' => self.push(Kind::Pipe),
            ',' => self.push(Kind::Comma),
            '"' => self.quoted()?,
            '`' => {
                let Some(end) = self.rest().find('`') else {
                    return Err("unterminated raw quoted string".to_owned());
                };
                self.at += end + 1;
                self.push(Kind::Raw);
            }
            '\'' => self.character()?,
            '$' => self.name(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => self.name(Kind::Field)?,
            '.' | '+' | '-' | '0'..='9' => {
                self.at -= 1;
                self.number()?;
            }
            '(' => {
                self.parens += 1;
                self.push(Kind::LeftParen);
            }
            ')' => {
                if self.parens == 0 {
                    return Err("unexpected right paren".to_owned());
                }
                self.parens -= 1;
                self.push(Kind::RightParen);
            }
            letter if is_word(letter) => self.word()?,
            // The parser says where it did not expect it.
            printable if printable.is_ascii_graphic() => self.push(Kind::Other),
            other => {
                let shown = code_point(Some(other));
                return Err(format!("unrecognized character in action: {shown}"));
            }
        }
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => {
                    self.next();
                }
                None | Some('\n' | '\\') => return Err("unterminated quoted string".to_owned()),
                Some('"') => break,
                Some(_) => {}
            }
        }
        self.push(Kind::Quoted);
        Ok(())
    }

    fn character(&mut self) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => {
                    self.next();
                }
                None | Some('\n' | '\\') => {
                    return Err("unterminated character constant".to_owned());
                }
                Some('\'') => break,
                Some(_) => {}
            }
        }
        self.push(Kind::Char);
        Ok(())
    }

    /// Whether what was read may end here.
    fn terminates(&self) -> bool {
        match self.peek() {
            None => true,
            Some(letter) => {
                letter.is_whitespace()
                    || matches!(letter, '.' | ',' | '|' | ':' | ')' | '(')
                    || self.rest().starts_with("}}")
            }
        }
    }

    fn name(&mut self, kind: Kind) -> Result<(), String> {
        if self.terminates() {
            // Nothing interesting follows: a bare dot or dollar.
            self.push(if kind == Kind::Field { Kind::Dot } else { Kind::Variable });
            return Ok(());
        }
        self.accept_all(is_word);
        if !self.terminates() {
            return Err(format!("bad character {}", code_point(self.peek())));
        }
        self.push(kind);
        Ok(())
    }

    fn word(&mut self) -> Result<(), String> {
        self.accept_all(is_word);
        if !self.terminates() {
            return Err(format!("bad character {}", code_point(self.peek())));
        }
        let kind = match &self.text[self.start..self.at] {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.push(kind);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        self.accept(|c| matches!(c, '+' | '-'));
        let prefix = self.rest().to_ascii_lowercase();
        let digits: fn(char) -> bool = if prefix.starts_with("0x") {
            self.at += 2;
            |c| c.is_ascii_hexdigit() || c == '_'
        } else if prefix.starts_with("0o") || prefix.starts_with("0b") {
            self.at += 2;
            |c| c.is_ascii_digit() || c == '_'
        } else {
            |c| c.is_ascii_digit() || c == '_'
        };
        self.accept_all(digits);
        if self.accept(|c| c == '.') {
            self.accept_all(digits);
        }
        if self.accept(|c| matches!(c, 'e' | 'E' | 'p' | 'P')) {
            self.accept(|c| matches!(c, '+' | '-'));
            self.accept_all(|c| c.is_ascii_digit() || c == '_');
        }
        if self.peek().is_some_and(is_word) {
            self.next();
            return Err(format!("bad number syntax: {}", quote(&self.text[self.start..self.at])));
        }
        self.push(Kind::Number);
        Ok(())
    }
}
