//! Which fields a template reads, so that a listing makes no others.
//!
//! Every name behind a dot counts as a field of the data, wherever it stands: too many cost time, one
//! too few would show a wrong table. Where the data itself is named (`{{json .}}`, `{{.}}`, `$`, `{{range}}`
//! over it), all is read.

use std::collections::BTreeSet;

use super::parse::{Arg, ArgKind, Branch, List, Node, Pipe, Tree};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reads {
    All,
    Fields(BTreeSet<String>),
}

impl Reads {
    pub fn field(&self, name: &str) -> bool {
        match self {
            Reads::All => true,
            Reads::Fields(names) => names.contains(name),
        }
    }
}

impl Tree {
    pub fn reads(&self) -> Reads {
        let mut found = Found::default();
        found.list(&self.list);
        self.defined.values().for_each(|list| found.list(list));
        if found.is_all { Reads::All } else { Reads::Fields(found.names) }
    }
}

#[derive(Default)]
struct Found {
    is_all: bool,
    names: BTreeSet<String>,
}

impl Found {
    fn list(&mut self, list: &List) {
        for node in list {
            match node {
                Node::Text(_) | Node::Break | Node::Continue => {}
                Node::Action(pipe) => self.pipe(pipe),
                Node::If(branch) | Node::With(branch) | Node::Range(branch) => self.branch(branch),
                Node::Template { at: _, name: _, pipe } => {
                    pipe.iter().for_each(|pipe| self.pipe(pipe));
                }
            }
        }
    }

    fn branch(&mut self, branch: &Branch) {
        self.pipe(&branch.pipe);
        self.list(&branch.list);
        branch.otherwise.iter().for_each(|list| self.list(list));
    }

    fn pipe(&mut self, pipe: &Pipe) {
        pipe.commands.iter().flat_map(|command| &command.args).for_each(|arg| self.arg(arg));
    }

    fn arg(&mut self, arg: &Arg) {
        match &arg.kind {
            ArgKind::Dot => self.is_all = true,
            ArgKind::Nil
            | ArgKind::Bool(_)
            | ArgKind::Identifier(_)
            | ArgKind::Text { .. }
            | ArgKind::Number(_) => {}
            ArgKind::Field(names) => self.names.extend(names.iter().cloned()),
            // `$` is the data; what another variable holds came through an argument that was seen.
            ArgKind::Variable(names) => match &names[..] {
                [name] => self.is_all |= name == "$",
                several => self.names.extend(several.iter().cloned()),
            },
            ArgKind::Pipe(pipe) => self.pipe(pipe),
            ArgKind::Chain(inner, names) => {
                self.arg(inner);
                self.names.extend(names.iter().cloned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Template;
    use super::*;

    #[track_caller]
    fn check(template: &str, want: &[&str]) {
        let reads = Template::parse("", template).unwrap().reads();
        let want = want.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(reads, Reads::Fields(want), "{template}");
    }

    #[test]
    fn fields_are_found_wherever_they_stand() {
        check("text", &[]);
        check("{{.ID}}\t{{.Names | upper}}", &["ID", "Names"]);
        check("{{if eq .State \"x\"}}{{.A}}{{else}}{{.B}}{{end}}", &["A", "B", "State"]);
        check("{{with $x := .A}}{{$x}}{{$.B}}{{end}}", &["$", "A", "B"]);
        check("{{range split .A \",\"}}{{printf \"%s\" (upper .B)}}{{end}}", &["A", "B"]);
        check("{{define \"t\"}}{{.C}}{{end}}{{template \"t\"}}", &["C"]);
        check("{{.Label \"a\"}}{{(.A).B}}", &["A", "B", "Label"]);
    }

    #[test]
    fn whoever_names_the_row_reads_all_of_it() {
        for template in
            ["{{json .}}", "{{.}}", "{{$}}", "{{template \"t\" .}}{{define \"t\"}}{{end}}"]
        {
            assert_eq!(Template::parse("", template).unwrap().reads(), Reads::All, "{template}");
        }
    }
}
