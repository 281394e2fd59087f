//! Running a template, with Go's words and places for what fails.
//!
//! Source: Go 1.24 `text/template/exec.go`.

use std::{borrow::Cow, rc::Rc};

use super::{
    Template,
    funcs::{self, Purpose, Want},
    parse::{Arg, ArgKind, Branch, Command, List, Node, Number, Pipe},
    print::plain,
    schema::Type,
    value::{Row, Value},
};
use crate::args::go::quote;

/// Templates that call themselves end here. Source: Go `maxExecDepth`, which its deeper stack allows.
const DEPTH_MAX: usize = 1000;

/// What a map's missing key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// `<no value>`.
    NoValue,
    Error,
}

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub struct Run<'a> {
    template: &'a Template,
    purpose: Purpose,
    absent: Absent,
    variables: Vec<(Cow<'static, str>, Value)>,
    name: String,
    depth: usize,
    out: &'a mut String,
}

type Ran<T> = Result<T, String>;

/// Writes behind what `out` holds. A failure is told in Go's words:
/// `template: :1:2: executing "" at <.X>: …`; what was written before it stays.
pub fn run(
    template: &Template,
    purpose: Purpose,
    absent: Absent,
    data: &Value,
    out: &mut String,
) -> Result<(), String> {
    let mut run = Run {
        template,
        purpose,
        absent,
        variables: vec![(Cow::Borrowed("$"), data.clone())],
        name: template.name.to_owned(),
        depth: 0,
        out,
    };
    run.list(data, &template.tree.list).map(drop)
}

impl Run<'_> {
    /// A failure at a node; behind a parenthesis Go names what it looked at last inside.
    fn error_at<T>(&self, arg: &Arg, why: &str) -> Ran<T> {
        let node = last_looked_at(arg);
        self.error(node.at, &node.shown(), why)
    }

    fn error<T>(&self, at: usize, shown: &str, why: &str) -> Ran<T> {
        let before = &self.template.source[..at.min(self.template.source.len())];
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(before.len(), |newline| before.len() - newline - 1);
        let (of, name) = (self.template.name, quote(&self.name));
        Err(format!("template: {of}:{line}:{column}: executing {name} at <{shown}>: {why}"))
    }

    fn list(&mut self, dot: &Value, list: &List) -> Ran<Flow> {
        for node in list {
            let flow = self.node(dot, node)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, dot: &Value, node: &Node) -> Ran<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.variables.is_empty() {
                    print(self.out, &value);
                }
            }
            Node::If(branch) | Node::With(branch) => {
                let known = self.variables.len();
                let value = self.pipeline(dot, &branch.pipe)?;
                let inner = if matches!(node, Node::With(_)) { &value } else { dot };
                let flow = if value.is_true() {
                    self.list(inner, &branch.list)?
                } else if let Some(otherwise) = &branch.otherwise {
                    self.list(dot, otherwise)?
                } else {
                    Flow::On
                };
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range(branch) => {
                let known = self.variables.len();
                self.range(dot, branch)?;
                self.variables.truncate(known);
            }
            Node::Template { at, name, pipe } => {
                self.call_template(dot, *at, name, pipe.as_ref())?
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn call_template(
        &mut self,
        dot: &Value,
        at: usize,
        name: &str,
        pipe: Option<&Pipe>,
    ) -> Ran<()> {
        let shown = match pipe {
            Some(pipe) => format!("{{{{template {} {}}}}}", quote(name), pipe.shown()),
            None => format!("{{{{template {}}}}}", quote(name)),
        };
        let Some(list) = self.template.tree.defined.get(name) else {
            return self.error(at, &shown, &format!("template {} not defined", quote(name)));
        };
        if self.depth == DEPTH_MAX {
            let why = format!("exceeded maximum template depth ({DEPTH_MAX})");
            return self.error(at, &shown, &why);
        }
        let dot = match pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Missing,
        };
        let variables =
            std::mem::replace(&mut self.variables, vec![(Cow::Borrowed("$"), dot.clone())]);
        let outer = std::mem::replace(&mut self.name, name.to_owned());
        self.depth += 1;
        self.list(&dot, list)?;
        self.depth -= 1;
        self.name = outer;
        self.variables = variables;
        Ok(())
    }

    fn range(&mut self, dot: &Value, branch: &Branch) -> Ran<()> {
        let value = self.pipeline(dot, &branch.pipe)?;
        let items: Vec<(Value, Value)> = match value.indirect() {
            Value::Missing | Value::Nil => Vec::new(),
            Value::List(items, _) => {
                let items = items.iter().flat_map(|items| items.iter()).enumerate();
                items
                    .map(|(at, item)| {
                        (Value::int(i64::try_from(at).unwrap_or(i64::MAX)), item.clone())
                    })
                    .collect()
            }
            Value::Map(entries, kind) => {
                let key = kind.key();
                let entries = entries.iter().flat_map(|entries| entries.iter());
                entries
                    .map(|(name, entry)| (Value::Text(name.as_str().into(), key), entry.clone()))
                    .collect()
            }
            Value::Int(count, name) => {
                (0..*count).map(|at| (Value::Int(at, name), Value::Int(at, name))).collect()
            }
            other => {
                let why = format!("range can't iterate over {}", plain(other));
                return self.error(branch.pipe.at, &branch.pipe.shown(), &why);
            }
        };
        if items.is_empty() {
            if let Some(otherwise) = &branch.otherwise {
                self.list(dot, otherwise)?;
            }
            return Ok(());
        }
        for (at, item) in items {
            let item = settled(item);
            let known = self.variables.len();
            match &branch.pipe.variables[..] {
                [one] => self.bind(one, item.clone(), branch.pipe.assigns),
                [first, second] => {
                    self.bind(first, at, branch.pipe.assigns);
                    self.bind(second, item.clone(), branch.pipe.assigns);
                }
                _ => {}
            }
            let flow = self.list(&item, &branch.list)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn bind(&mut self, name: &str, value: Value, assigns: bool) {
        if assigns {
            if let Some((_, old)) = self.variables.iter_mut().rev().find(|(known, _)| known == name)
            {
                *old = value;
            }
        } else {
            self.variables.push((Cow::Owned(name.to_owned()), value));
        }
    }

    fn pipeline(&mut self, dot: &Value, pipe: &Pipe) -> Ran<Value> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(settled(self.command(dot, command, last)?));
        }
        let value = last.unwrap_or(Value::Missing);
        for name in &pipe.variables {
            self.bind(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &Command, last: Option<Value>) -> Ran<Value> {
        let Some(first) = command.args.first() else { return Ok(Value::Missing) };
        match &first.kind {
            ArgKind::Field(names) => {
                self.chain(first, dot.clone(), names, &command.args, dot, last)
            }
            ArgKind::Chain(inner, names) => {
                let start = self.any(dot, inner)?;
                self.chain(first, start, names, &command.args, dot, last)
            }
            ArgKind::Variable(names) => {
                let start = self.variable(first, names)?;
                if names.len() == 1 {
                    self.no_call(first, command, last.as_ref())?;
                    return Ok(start);
                }
                self.chain(first, start, &names[1..], &command.args, dot, last)
            }
            ArgKind::Identifier(name) => {
                self.function(dot, first, name, &command.args, last, &|| command.shown())
            }
            ArgKind::Pipe(pipe) => {
                self.no_call(first, command, last.as_ref())?;
                self.pipeline(dot, pipe)
            }
            ArgKind::Nil => self.error(first.at, "nil", "nil is not a command"),
            ArgKind::Bool(_) | ArgKind::Dot | ArgKind::Number(_) | ArgKind::Text { .. } => {
                self.no_call(first, command, last.as_ref())?;
                self.any(dot, first)
            }
        }
    }

    fn no_call(&self, first: &Arg, command: &Command, last: Option<&Value>) -> Ran<()> {
        if command.args.len() > 1 || last.is_some() {
            let shown = first.shown();
            return self.error(
                first.at,
                &shown,
                &format!("can't give argument to non-function {shown}"),
            );
        }
        Ok(())
    }

    fn variable(&self, arg: &Arg, names: &[String]) -> Ran<Value> {
        let name = names.first().map(String::as_str).unwrap_or_default();
        match self.variables.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.error(arg.at, &arg.shown(), &format!("undefined variable: {name}")),
        }
    }

    /// `.A.B.C` of a value; the last may be a method with arguments.
    fn chain(
        &mut self,
        node: &Arg,
        start: Value,
        names: &[String],
        args: &[Arg],
        dot: &Value,
        last: Option<Value>,
    ) -> Ran<Value> {
        if matches!(&node.kind, ArgKind::Chain(inner, _) if matches!(inner.kind, ArgKind::Nil)) {
            let shown = node.shown();
            let why = format!("indirection through explicit nil in {shown}");
            return self.error(node.at, &shown, &why);
        }
        let mut value = start;
        let Some((end, before)) = names.split_last() else { return Ok(value) };
        for name in before {
            value = self.field(node, &value, name, None)?;
        }
        let mut given = Vec::new();
        for arg in args.iter().skip(1) {
            given.push(self.any(dot, arg)?);
        }
        given.extend(last);
        let call = (!given.is_empty()).then_some(given.as_slice());
        self.field(node, &value, end, call)
    }

    fn field(
        &self,
        node: &Arg,
        receiver: &Value,
        name: &str,
        call: Option<&[Value]>,
    ) -> Ran<Value> {
        let fail = |why: String| self.error_at(node, &why);
        let typ = || receiver.type_name();
        match receiver.indirect() {
            Value::Missing => match self.absent {
                Absent::NoValue => Ok(Value::Missing),
                Absent::Error => fail(format!("nil data; no entry for key {}", quote(name))),
            },
            Value::Nil => fail(format!("nil pointer evaluating interface {{}}.{name}")),
            Value::Pointer(None, _) => fail(format!("nil pointer evaluating {}.{name}", typ())),
            Value::Row(row) => self.row(node, row, name, call),
            Value::Struct(one) => match one.field(name) {
                Some(_) if call.is_some() => {
                    fail(format!("{name} has arguments but cannot be invoked as function"))
                }
                Some(value) => Ok(value.clone()),
                None => fail(format!("can't evaluate field {name} in type {}", typ())),
            },
            Value::Map(..) if call.is_some() => {
                fail(format!("{name} is not a method but has arguments"))
            }
            Value::Map(entries, _) => {
                match (entries.as_ref().and_then(|entries| entries.get(name)), self.absent) {
                    (Some(value), _) => Ok(value.clone()),
                    (None, Absent::NoValue) => Ok(Value::Missing),
                    (None, Absent::Error) => {
                        fail(format!("map has no entry for key {}", quote(name)))
                    }
                }
            }
            other => match method(other, name) {
                Some(value) => Ok(value),
                // What JSON without a type holds is an interface to Go.
                None if self.is_raw() => {
                    fail(format!("can't evaluate field {name} in type interface {{}}"))
                }
                None => fail(format!("can't evaluate field {name} in type {}", typ())),
            },
        }
    }

    /// Whether the template is run on JSON without a type.
    fn is_raw(&self) -> bool {
        matches!(self.variables.first(), Some((_, Value::Map(_, Type::Map(_, Type::Any)))))
    }

    fn row(&self, node: &Arg, row: &Row, name: &str, call: Option<&[Value]>) -> Ran<Value> {
        let fail = |why: String| self.error_at(node, &why);
        if name == "Label" {
            return match call {
                Some([label]) => Ok(Value::text(labelled(row, &plain(label)))),
                other => fail(format!(
                    "wrong number of args for Label: want 1 got {}",
                    other.map_or(0, <[Value]>::len)
                )),
            };
        }
        let found = row.fields.iter().find(|(field, _)| *field == name);
        match (found, call) {
            (Some((_, value)), None) => Ok(value.clone()),
            (Some(_), Some(given)) => {
                fail(format!("wrong number of args for {name}: want 0 got {}", given.len()))
            }
            // The line of column names is a map.
            (None, _) if row.is_header => Ok(Value::Missing),
            (None, _) => fail(format!("can't evaluate field {name} in type {}", row.name)),
        }
    }

    fn function(
        &mut self,
        dot: &Value,
        node: &Arg,
        name: &str,
        args: &[Arg],
        last: Option<Value>,
        shown: &dyn Fn() -> String,
    ) -> Ran<Value> {
        let given = args.len() - 1 + usize::from(last.is_some());
        if matches!(name, "and" | "or") {
            if given == 0 {
                let why = format!("wrong number of args for {name}: want at least 1 got 0");
                return self.error(node.at, name, &why);
            }
            return self.short_circuit(dot, name, args, last);
        }
        let Some(function) = funcs::find(name, self.purpose) else {
            let why = format!("{} is not a defined function", quote(name));
            return self.error(node.at, name, &why);
        };
        let wanted = function.wants.len();
        if function.more.is_some() && given < wanted {
            let why =
                format!("wrong number of args for {name}: want at least {wanted} got {given}");
            return self.error(node.at, name, &why);
        }
        if function.more.is_none() && given != wanted {
            let why = format!("wrong number of args for {name}: want {wanted} got {given}");
            return self.error(node.at, name, &why);
        }
        let want =
            |at: usize| function.wants.get(at).copied().or(function.more).unwrap_or(Want::Any);
        let mut values = Vec::new();
        for (at, arg) in args.iter().skip(1).enumerate() {
            let value = self.typed(dot, arg, want(at))?;
            values.push(value);
        }
        if let Some(last) = last {
            // What comes down a pipeline is told at the command that takes it.
            let shown = args.last().unwrap_or(node);
            values.push(self.checked(shown, last, want(values.len()))?);
        }
        match (function.call)(&values) {
            Ok(value) => Ok(value),
            Err(why) => {
                // Of these words alone the argument is a part.
                let why = match args.get(1) {
                    Some(first) if name == "call" => {
                        why.replace("non-function", &format!("non-function {}", first.shown()))
                    }
                    Some(_) | None => why,
                };
                self.error(node.at, &shown(), &format!("error calling {name}: {why}"))
            }
        }
    }

    fn short_circuit(
        &mut self,
        dot: &Value,
        name: &str,
        args: &[Arg],
        last: Option<Value>,
    ) -> Ran<Value> {
        let stops = |value: &Value| value.is_true() == (name == "or");
        let mut value = Value::Missing;
        for arg in args.iter().skip(1) {
            value = self.any(dot, arg)?;
            if stops(&value) {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// An argument for a parameter of a type.
    fn typed(&mut self, dot: &Value, arg: &Arg, want: Want) -> Ran<Value> {
        let constant = |kind: &str| format!("expected {kind}; found {}", arg.shown());
        match (&arg.kind, want) {
            (ArgKind::Nil, Want::Any) => return Ok(Value::Nil),
            (ArgKind::Nil, _) => {
                let why = format!("cannot assign nil to {}", want.name());
                return self.error(arg.at, &arg.shown(), &why);
            }
            (ArgKind::Bool(_) | ArgKind::Number(_), Want::Text) => {
                return self.error(arg.at, &arg.shown(), &constant("string"));
            }
            (ArgKind::Bool(_) | ArgKind::Text { .. }, Want::Int) => {
                return self.error(arg.at, &arg.shown(), &constant("integer"));
            }
            (ArgKind::Number(number), Want::Int) => {
                return match number.int {
                    Some(int) => Ok(Value::int(int)),
                    None => self.error(arg.at, &arg.shown(), &constant("integer")),
                };
            }
            _ => {}
        }
        let value = self.any(dot, arg)?;
        self.checked(arg, value, want)
    }

    fn checked(&self, arg: &Arg, value: Value, want: Want) -> Ran<Value> {
        let fits = match want {
            Want::Any => true,
            Want::Text => matches!(value, Value::Text(_, "string")),
            Want::Int => matches!(value, Value::Int(_, "int")),
            Want::Texts => {
                matches!(&value, Value::List(_, kind) if matches!(kind, Type::List(_, Type::Text("string"))))
            }
        };
        if fits {
            return Ok(value);
        }
        if let (Value::Pointer(Some(inner), _), Want::Text | Want::Int) = (&value, want) {
            return self.checked(arg, (**inner).clone(), want);
        }
        let why = match &value {
            Value::Missing | Value::Nil if want == Want::Texts => return Ok(Value::texts([])),
            Value::Missing | Value::Nil => format!("invalid value; expected {}", want.name()),
            other => {
                format!("wrong type for value; expected {}; got {}", want.name(), other.type_name())
            }
        };
        self.error(arg.at, &arg.shown(), &why)
    }

    /// An argument for whatever takes any value.
    fn any(&mut self, dot: &Value, arg: &Arg) -> Ran<Value> {
        Ok(settled(match &arg.kind {
            ArgKind::Dot => dot.clone(),
            ArgKind::Nil => Value::Nil,
            ArgKind::Bool(truth) => Value::Bool(*truth),
            ArgKind::Text { text, .. } => Value::text(text.as_str()),
            ArgKind::Number(number) => return self.number(arg, number),
            ArgKind::Field(names) => self.chain(arg, dot.clone(), names, &[], dot, None)?,
            ArgKind::Variable(names) => {
                let start = self.variable(arg, names)?;
                self.chain(arg, start, &names[1..], &[], dot, None)?
            }
            ArgKind::Identifier(name) => {
                self.function(dot, arg, name, std::slice::from_ref(arg), None, &|| name.clone())?
            }
            ArgKind::Pipe(pipe) => self.pipeline(dot, pipe)?,
            ArgKind::Chain(inner, names) => {
                let start = self.any(dot, inner)?;
                self.chain(arg, start, names, &[], dot, None)?
            }
        }))
    }

    fn number(&self, arg: &Arg, number: &Number) -> Ran<Value> {
        if number.is_char {
            return Ok(Value::Int(number.int.unwrap_or_default(), "int32"));
        }
        let looks_float = number.written.contains(['.', 'p', 'P'])
            || (!number.written.to_ascii_lowercase().starts_with("0x")
                && number.written.contains(['e', 'E']));
        match (looks_float, number.int) {
            (true, _) => Ok(Value::Float(number.float)),
            (false, Some(int)) => Ok(Value::int(int)),
            (false, None) => {
                self.error(arg.at, &arg.shown(), &format!("{} overflows int", number.written))
            }
        }
    }
}

fn last_looked_at(arg: &Arg) -> &Arg {
    let pipe = match &arg.kind {
        ArgKind::Pipe(pipe) => pipe,
        ArgKind::Chain(inner, _) => match &inner.kind {
            ArgKind::Pipe(pipe) => pipe,
            _ => return arg,
        },
        _ => return arg,
    };
    let last = pipe.commands.last().and_then(|command| command.args.last());
    last.map_or(arg, last_looked_at)
}

/// What an interface holds; nothing of one is no value.
fn settled(value: Value) -> Value {
    if let Value::Nil = value { Value::Missing } else { value }
}

/// As an action prints its value.
fn print(out: &mut String, value: &Value) {
    match (value, value.indirect()) {
        (_, Value::Missing) => out.push_str("<no value>"),
        // What nearly all cells of tables are.
        (Value::Text(text, _), _) => out.push_str(text),
        (Value::Pointer(Some(_), _), inner) => {
            // A pointer that prints itself does so.
            let own = plain(value);
            let is_own = !own.starts_with('&') && !own.starts_with("0xc");
            out.push_str(&if is_own { own } else { plain(inner) });
        }
        (_, inner) => out.push_str(&plain(inner)),
    }
}

fn labelled(row: &Row, name: &str) -> String {
    if row.is_header {
        // Docker names such a column after the last part of the label's name.
        return name.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ");
    }
    row.labels.get(name).cloned().unwrap_or_default()
}

/// The few methods that templates are known to call.
///
/// Source: go-connections `nat.Port`, moby `container.NetworkMode`, Go `time.Time`.
fn method(value: &Value, name: &str) -> Option<Value> {
    let Value::Text(text, kind) = value else { return time_method(value, name) };
    let (before, behind) = text.split_once('/').unwrap_or((text, ""));
    match (kind.split('=').next()?, name) {
        ("nat.Port", "Port") => Some(Value::text(before)),
        ("nat.Port", "Proto") => Some(Value::text(if behind.is_empty() { "tcp" } else { behind })),
        ("nat.Port", "Int") => Some(Value::int(before.parse().unwrap_or_default())),
        ("container.NetworkMode", mode) => Some(Value::Bool(match mode {
            "IsNone" => &**text == "none",
            "IsDefault" => &**text == "default",
            "IsBridge" => &**text == "bridge",
            "IsHost" => &**text == "host",
            "IsContainer" => text.starts_with("container:"),
            "NetworkName" => return Some(Value::text(Rc::clone(text))),
            _ => return None,
        })),
        _ => None,
    }
}

fn time_method(value: &Value, name: &str) -> Option<Value> {
    let Value::Time(text) = value else { return None };
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(match name {
        "String" => Value::text(plain(value)),
        "Unix" => Value::Int(at.as_second(), "int64"),
        "UnixNano" => Value::Int(i64::try_from(at.as_nanosecond()).ok()?, "int64"),
        "IsZero" => Value::Bool(&**text == "0001-01-01T00:00:00Z"),
        "Year" => Value::int(at.to_zoned(jiff::tz::TimeZone::UTC).year().into()),
        _ => return None,
    })
}
