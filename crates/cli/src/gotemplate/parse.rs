//! Items as a tree, with Go's words for what is wrong.
//!
//! Source: Go 1.24 `text/template/parse/parse.go`.

use std::collections::BTreeMap;

use super::lex::{Item, Kind, lex};
use crate::args::go::quote;

/// What is written, done or chosen, in order.
pub type List = Vec<Node>;

#[derive(Debug, Clone)]
pub enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { at: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub struct Branch {
    pub pipe: Pipe,
    pub list: List,
    pub otherwise: Option<List>,
}

#[derive(Debug, Clone)]
pub struct Pipe {
    pub at: usize,
    /// Variables that are declared, or assigned.
    pub variables: Vec<String>,
    pub assigns: bool,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub struct Command {
    pub args: Vec<Arg>,
}

#[derive(Debug, Clone)]
pub struct Arg {
    pub at: usize,
    pub kind: ArgKind,
}

#[derive(Debug, Clone)]
pub enum ArgKind {
    Dot,
    Nil,
    Bool(bool),
    /// `.A.B`
    Field(Vec<String>),
    /// `$a.B`: the variable first.
    Variable(Vec<String>),
    Identifier(String),
    /// A text and how it was written.
    Text {
        text: String,
        written: String,
    },
    Number(Number),
    Pipe(Box<Pipe>),
    /// `(…).A.B`
    Chain(Box<Arg>, Vec<String>),
}

/// A constant, in each type that it fits.
#[derive(Debug, Clone)]
pub struct Number {
    pub written: String,
    pub int: Option<i64>,
    pub float: f64,
    /// A character is an integer that Go calls a rune.
    pub is_char: bool,
}

impl Arg {
    /// As written, as Go shows a node in its errors.
    pub fn shown(&self) -> String {
        let joined =
            |names: &[String]| names.iter().map(|name| format!(".{name}")).collect::<String>();
        match &self.kind {
            ArgKind::Dot => ".".to_owned(),
            ArgKind::Nil => "nil".to_owned(),
            ArgKind::Bool(truth) => truth.to_string(),
            ArgKind::Field(names) => joined(names),
            ArgKind::Variable(names) => names.join("."),
            ArgKind::Identifier(name) => name.clone(),
            ArgKind::Text { written, .. } => written.clone(),
            ArgKind::Number(number) => number.written.clone(),
            ArgKind::Pipe(pipe) => format!("({})", pipe.shown()),
            ArgKind::Chain(arg, names) => format!("{}{}", arg.shown(), joined(names)),
        }
    }
}

impl Pipe {
    pub fn shown(&self) -> String {
        let commands: Vec<String> = self.commands.iter().map(Command::shown).collect();
        let sign = if self.assigns { " = " } else { " := " };
        let variables = match self.variables.len() {
            0 => String::new(),
            _ => format!("{}{sign}", self.variables.join(", ")),
        };
        format!("{variables}{}", commands.join(" | "))
    }
}

impl Command {
    pub fn shown(&self) -> String {
        self.args.iter().map(Arg::shown).collect::<Vec<_>>().join(" ")
    }
}

/// A parsed text: what it does, and the templates that it defines.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub list: List,
    pub defined: BTreeMap<String, List>,
}

/// # Errors
/// In Go's words with the line.
pub fn parse(name: &str, text: &str, functions: &dyn Fn(&str) -> bool) -> Result<Tree, String> {
    let mut parser = Parser {
        items: lex(text),
        next: 0,
        line: 1,
        variables: vec!["$".to_owned()],
        ranges: 0,
        functions,
        defined: BTreeMap::new(),
    };
    let parsed = parser.top();
    let line = parser.line;
    match parsed {
        Ok(list) => Ok(Tree { list, defined: parser.defined }),
        Err(why) => Err(format!("template: {name}:{line}: {why}")),
    }
}

struct Parser<'a> {
    items: Vec<Item>,
    next: usize,
    /// Of the item read last.
    line: usize,
    variables: Vec<String>,
    ranges: usize,
    functions: &'a dyn Fn(&str) -> bool,
    defined: BTreeMap<String, List>,
}

/// How a list of nodes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    End,
    Else,
}

impl Ending {
    fn shown(&self) -> &'static str {
        match self {
            Ending::End => "{{end}}",
            Ending::Else => "{{else}}",
        }
    }
}

type Parsed<T> = Result<T, String>;

impl Parser<'_> {
    fn next(&mut self) -> Item {
        // The last item is the end or an error, and is read again and again.
        let item = self.items[self.next.min(self.items.len() - 1)].clone();
        self.next += 1;
        self.line = item.line;
        item
    }

    fn back(&mut self) {
        self.next -= 1;
    }

    fn peek(&mut self) -> Item {
        let item = self.next();
        self.back();
        item
    }

    fn next_word(&mut self) -> Item {
        loop {
            let item = self.next();
            if item.kind != Kind::Space {
                return item;
            }
        }
    }

    fn peek_word(&mut self) -> Item {
        let item = self.next_word();
        self.back();
        item
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Item> {
        let item = self.next_word();
        if item.kind == kind { Ok(item) } else { Err(unexpected(&item, context)) }
    }

    fn top(&mut self) -> Parsed<List> {
        let mut list = List::new();
        loop {
            if self.peek().kind == Kind::End {
                return Ok(list);
            }
            if self.peek().kind == Kind::Left {
                let before = self.next;
                self.next();
                if self.next_word().text == "define" {
                    self.define()?;
                    continue;
                }
                self.next = before;
            }
            match self.text_or_action()? {
                Ok(node) => list.push(node),
                Err(ending) => return Err(format!("unexpected {}", ending.shown())),
            }
        }
    }

    fn define(&mut self) -> Parsed<()> {
        let context = "define clause";
        let name = self.next_word();
        let name = match name.kind {
            Kind::Quoted | Kind::Raw => unquote(&name.text)?,
            _ => return Err(unexpected(&name, context)),
        };
        self.expect(Kind::Right, context)?;
        let (variables, ranges) =
            (std::mem::replace(&mut self.variables, vec!["$".to_owned()]), self.ranges);
        self.ranges = 0;
        let (list, ending) = self.list()?;
        if ending != Ending::End {
            return Err(format!("unexpected {} in {context}", ending.shown()));
        }
        (self.variables, self.ranges) = (variables, ranges);
        self.defined.insert(name, list);
        Ok(())
    }

    /// Up to an `end` or `else`.
    fn list(&mut self) -> Parsed<(List, Ending)> {
        let mut list = List::new();
        while self.peek_word().kind != Kind::End {
            match self.text_or_action()? {
                Ok(node) => list.push(node),
                Err(ending) => return Ok((list, ending)),
            }
        }
        self.next_word();
        Err("unexpected EOF".to_owned())
    }

    fn text_or_action(&mut self) -> Parsed<Result<Node, Ending>> {
        let item = self.next_word();
        match item.kind {
            Kind::Text => Ok(Ok(Node::Text(item.text))),
            Kind::Left => self.action(),
            _ => Err(unexpected(&item, "input")),
        }
    }

    fn action(&mut self) -> Parsed<Result<Node, Ending>> {
        let item = self.next_word();
        if item.kind != Kind::Keyword {
            self.back();
            let at = self.peek().at;
            let pipe = self.pipeline("command", Kind::Right, at)?;
            return Ok(Ok(Node::Action(pipe)));
        }
        Ok(Ok(match item.text.as_str() {
            "if" => Node::If(self.control("if")?),
            "with" => Node::With(self.control("with")?),
            "range" => Node::Range(self.control("range")?),
            "end" => {
                self.expect(Kind::Right, "end")?;
                return Ok(Err(Ending::End));
            }
            "else" => {
                let peeked = self.peek_word();
                // `else if` and `else with` are read by whoever opened the branch.
                if peeked.kind != Kind::Keyword || !matches!(peeked.text.as_str(), "if" | "with") {
                    self.expect(Kind::Right, "else")?;
                }
                return Ok(Err(Ending::Else));
            }
            word @ ("break" | "continue") => {
                let next = self.next_word();
                if next.kind != Kind::Right {
                    return Err(unexpected(&next, &format!("{{{{{word}}}}}")));
                }
                if self.ranges == 0 {
                    return Err(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                if word == "break" { Node::Break } else { Node::Continue }
            }
            "template" => self.template(item.at)?,
            "block" => self.block(item.at)?,
            _ => return Err(unexpected(&item, "command")),
        }))
    }

    fn template_name(&mut self, context: &str) -> Parsed<String> {
        let item = self.next_word();
        match item.kind {
            Kind::Quoted | Kind::Raw => unquote(&item.text),
            _ => Err(unexpected(&item, context)),
        }
    }

    fn template(&mut self, at: usize) -> Parsed<Node> {
        let name = self.template_name("template clause")?;
        if self.next_word().kind == Kind::Right {
            return Ok(Node::Template { at, name, pipe: None });
        }
        self.back();
        let start = self.peek().at;
        let pipe = self.pipeline("template clause", Kind::Right, start)?;
        Ok(Node::Template { at, name, pipe: Some(pipe) })
    }

    fn block(&mut self, at: usize) -> Parsed<Node> {
        let name = self.template_name("block clause")?;
        let start = self.peek().at;
        let pipe = self.pipeline("block clause", Kind::Right, start)?;
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (list, ending) = self.list()?;
        if ending != Ending::End {
            return Err(format!("unexpected {} in block clause", ending.shown()));
        }
        self.variables = variables;
        self.defined.insert(name.clone(), list);
        Ok(Node::Template { at, name, pipe: Some(pipe) })
    }

    fn control(&mut self, context: &str) -> Parsed<Branch> {
        let known = self.variables.len();
        let start = self.peek_word().at;
        let pipe = self.pipeline(context, Kind::Right, start)?;
        let is_range = context == "range";
        self.ranges += usize::from(is_range);
        let (list, ending) = self.list()?;
        self.ranges -= usize::from(is_range);
        let mut otherwise = None;
        if ending == Ending::Else {
            let peeked = self.peek_word();
            let chained = peeked.kind == Kind::Keyword && peeked.text == context && !is_range;
            if chained {
                self.next_word();
                let branch = self.control(context)?;
                let node = if context == "if" { Node::If(branch) } else { Node::With(branch) };
                otherwise = Some(vec![node]);
            } else if peeked.kind == Kind::Keyword {
                return Err(unexpected(&peeked, "else"));
            } else {
                let (list, ending) = self.list()?;
                if ending != Ending::End {
                    return Err(format!("expected end; found {}", ending.shown()));
                }
                otherwise = Some(list);
            }
        }
        self.variables.truncate(known);
        Ok(Branch { pipe, list, otherwise })
    }

    fn pipeline(&mut self, context: &str, end: Kind, at: usize) -> Parsed<Pipe> {
        let mut pipe = Pipe { at, variables: Vec::new(), assigns: false, commands: Vec::new() };
        self.declarations(&mut pipe, context)?;
        loop {
            let item = self.next_word();
            match item.kind {
                kind if kind == end => return check_pipeline(pipe, context),
                Kind::Bool
                | Kind::Char
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::Raw
                | Kind::Quoted
                | Kind::Variable
                | Kind::LeftParen => {
                    self.back();
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return Err(unexpected(&item, context)),
            }
        }
    }

    /// `$a, $b :=` before a pipeline; a variable without a sign behind it is a value.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parsed<()> {
        loop {
            let variable = self.peek_word();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            let before = self.next;
            self.next_word();
            let next = self.next_word();
            match next.kind {
                Kind::Declare | Kind::Assign => {
                    pipe.assigns = next.kind == Kind::Assign;
                    pipe.variables.push(variable.text.clone());
                    self.variables.push(variable.text);
                    return Ok(());
                }
                Kind::Comma if context == "range" && pipe.variables.len() < 2 => {
                    pipe.variables.push(variable.text.clone());
                    self.variables.push(variable.text);
                    if self.peek_word().kind != Kind::Variable {
                        return Err("range can only initialize variables".to_owned());
                    }
                    if pipe.variables.len() == 2 {
                        return Err("too many declarations in range".to_owned());
                    }
                }
                Kind::Comma => return Err(format!("too many declarations in {context}")),
                _ => {
                    self.next = before;
                    return Ok(());
                }
            }
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut args = Vec::new();
        loop {
            self.peek_word();
            if let Some(arg) = self.operand()? {
                args.push(arg);
            }
            let item = self.next();
            match item.kind {
                Kind::Space => continue,
                Kind::Right | Kind::RightParen => self.back(),
                Kind::Pipe => {}
                _ => return Err(unexpected(&item, "operand")),
            }
            if args.is_empty() {
                return Err("empty command".to_owned());
            }
            return Ok(Command { args });
        }
    }

    fn operand(&mut self) -> Parsed<Option<Arg>> {
        let Some(arg) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(arg));
        }
        let at = self.peek().at;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text[1..].to_owned());
        }
        let kind = match arg.kind {
            ArgKind::Field(mut first) => {
                first.append(&mut names);
                ArgKind::Field(first)
            }
            ArgKind::Variable(mut first) => {
                first.append(&mut names);
                ArgKind::Variable(first)
            }
            ArgKind::Bool(_)
            | ArgKind::Text { .. }
            | ArgKind::Number(_)
            | ArgKind::Nil
            | ArgKind::Dot => {
                return Err(format!("unexpected . after term {}", quote(&arg.shown())));
            }
            ArgKind::Identifier(_) | ArgKind::Pipe(_) | ArgKind::Chain(..) => {
                ArgKind::Chain(Box::new(arg), names)
            }
        };
        Ok(Some(Arg { at, kind }))
    }

    fn term(&mut self) -> Parsed<Option<Arg>> {
        let item = self.next_word();
        let at = item.at;
        let kind = match item.kind {
            Kind::Identifier => {
                if !(self.functions)(&item.text) {
                    return Err(format!("function {} not defined", quote(&item.text)));
                }
                ArgKind::Identifier(item.text)
            }
            Kind::Dot => ArgKind::Dot,
            Kind::Nil => ArgKind::Nil,
            Kind::Bool => ArgKind::Bool(item.text == "true"),
            Kind::Field => ArgKind::Field(vec![item.text[1..].to_owned()]),
            Kind::Variable => {
                if !self.variables.contains(&item.text) {
                    return Err(format!("undefined variable {}", quote(&item.text)));
                }
                ArgKind::Variable(vec![item.text])
            }
            Kind::Number | Kind::Char => ArgKind::Number(number(&item)?),
            Kind::Quoted | Kind::Raw => {
                ArgKind::Text { text: unquote(&item.text)?, written: item.text }
            }
            Kind::LeftParen => {
                let start = self.peek().at;
                ArgKind::Pipe(Box::new(self.pipeline(
                    "parenthesized pipeline",
                    Kind::RightParen,
                    start,
                )?))
            }
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Arg { at, kind }))
    }
}

fn unexpected(item: &Item, context: &str) -> String {
    // An error of the items says itself what is wrong.
    if item.kind == Kind::Error {
        return item.text.clone();
    }
    format!("unexpected {} in {context}", item.shown())
}

fn check_pipeline(pipe: Pipe, context: &str) -> Parsed<Pipe> {
    if pipe.commands.is_empty() {
        return Err(format!("missing value for {context}"));
    }
    for (stage, command) in pipe.commands.iter().enumerate().skip(1) {
        let is_call = command.args.first().is_some_and(|arg| {
            !matches!(
                arg.kind,
                ArgKind::Bool(_)
                    | ArgKind::Dot
                    | ArgKind::Nil
                    | ArgKind::Number(_)
                    | ArgKind::Text { .. }
            )
        });
        if !is_call {
            return Err(format!("non executable command in pipeline stage {}", stage + 1));
        }
    }
    Ok(pipe)
}

fn number(item: &Item) -> Parsed<Number> {
    let written = item.text.clone();
    if item.kind == Kind::Char {
        let letter = unescape(written.trim_matches('\''), '\'')
            .and_then(|text| text.chars().next())
            .ok_or_else(|| format!("malformed character constant: {written}"))?;
        let code = u32::from(letter);
        let int = Some(i64::from(code));
        return Ok(Number { written, int, float: f64::from(code), is_char: true });
    }
    let wrong = || format!("illegal number syntax: {}", quote(&item.text));
    if let Ok(int) = crate::args::go::parse_int(&written) {
        return Ok(Number { written, int: Some(int), float: int as f64, is_char: false });
    }
    if let Ok(uint) = crate::args::go::parse_uint(written.trim_start_matches('+'), u64::MAX) {
        let float = uint as f64;
        return Ok(Number { written, int: None, float, is_char: false });
    }
    let float: f64 = written.replace('_', "").parse().map_err(|_| wrong())?;
    // Go lets `1e3` be an integer too, and reports a too large one.
    if !written.contains(['.', 'e', 'E', 'p', 'P']) {
        return Err(format!("integer overflow: {}", quote(&written)));
    }
    let int = (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
    Ok(Number { written, int, float, is_char: false })
}

fn unquote(written: &str) -> Parsed<String> {
    if let Some(raw) = written.strip_prefix('`') {
        return Ok(raw.trim_end_matches('`').replace('\r', ""));
    }
    let inner = written.get(1..written.len().saturating_sub(1)).unwrap_or_default();
    unescape(inner, '"').ok_or_else(|| "invalid syntax".to_owned())
}

/// Go's escapes in a constant.
fn unescape(text: &str, delimiter: char) -> Option<String> {
    let mut out: Vec<u8> = Vec::new();
    let letters: Vec<char> = text.chars().collect();
    let mut at = 0;
    let push = |out: &mut Vec<u8>, letter: char| {
        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    };
    while let Some(&letter) = letters.get(at) {
        at += 1;
        if letter != '\\' {
            push(&mut out, letter);
            continue;
        }
        let escape = *letters.get(at)?;
        at += 1;
        let mut code = |count: usize, radix: u32| -> Option<u32> {
            let digits: String = letters.get(at..at + count)?.iter().collect();
            at += count;
            u32::from_str_radix(&digits, radix).ok()
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            'x' => out.push(u8::try_from(code(2, 16)?).ok()?),
            'u' => push(&mut out, char::from_u32(code(4, 16)?)?),
            'U' => push(&mut out, char::from_u32(code(8, 16)?)?),
            first @ '0'..='7' => {
                let rest = code(2, 8)?;
                out.push(u8::try_from(first.to_digit(8)? * 64 + rest).ok()?);
            }
            other if other == delimiter => push(&mut out, other),
            _ => return None,
        }
    }
    String::from_utf8(out).ok()
}
